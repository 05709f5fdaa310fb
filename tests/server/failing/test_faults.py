"""Faults of accept(2), and of every step between it and the handler.

Real ones, where descriptors can be made to run out; all others are injected under CPython and
under our C code alike: faults.c, preloaded into a child process, stands in front of
accept4(). The values are gevent's.
"""
import contextlib
import errno
import gc
import json
import os
import signal
import socket as native
import struct
import sys
import textwrap
import warnings

import gevent
import pytest
from gevent import get_hub, server, socket

from helpers import (
    LOOPBACK, OURS, Bench, accepts_in_c, ask, child_environ, connect, descriptors, echo, printed,
    raising, read_all, shared_library, until)

HERE = os.path.dirname(os.path.abspath(__file__))


@pytest.fixture(scope='session')
def library(tmp_path_factory):
    """faults.c, compiled."""
    return shared_library(
        os.path.join(HERE, 'faults.c'), tmp_path_factory.mktemp('faults'), '-ldl')


PRELUDE = '''
    import ctypes
    import errno
    import json
    import os
    import resource
    import signal
    import socket as native
    import sys
    import time
    import gevent
    from gevent import get_hub, server

    def descriptors():
        return len(os.listdir('/proc/self/fd'))

    def answering(kind):
        """A server that tells each client its port, and the errors that the hub is told."""
        def handle(sock, address):
            sock.sendall(b'%d' % address[1])
        spawn = {'default': 'default', 'raw': gevent.spawn_raw, 'pool': 100, 'none': None}[kind]
        one, errors = server.StreamServer(('127.0.0.1', 0), handle, spawn=spawn), []
        one.start()
        get_hub().handle_error = lambda context, kind, value, tb: errors.append(
            [context is one, value.errno])
        gevent.sleep(0.001)
        return one, errors

    def connect(one):
        return native.create_connection(one.address, timeout=30)

    def answer(client):
        """Everything up to end of file."""
        with client:
            return client.recv(100).decode() or client.recv(100).decode()

    class Loop:
        """Notes what is reported, and for how long accepting pauses."""

        def __init__(self):
            self.log = []

        def io(self, *args):
            return self

        def timer(self, delay):
            self.log.append(['timer', delay])
            return self

        def start(self, callback):
            pass
        stop = close = start

        def stop(self):
            pass
        close = stop

        def handle_error(self, context, kind, value, tb):
            assert kind is type(value) and tb is value.__traceback__ and tb is not None
            assert sys.exc_info()[1] is value
            self.log.append(['error', context is one, kind.__name__,
                             getattr(value, 'errno', None), str(value)])

    def serve(spawn=None, listener=('127.0.0.1', 0)):
        """A server whose batches are run by hand."""
        global one
        one = server.StreamServer(listener, handle, spawn=spawn)
        one.loop = Loop()
        one.start()

    def handle(sock, address):
        one.loop.log.append('handled')

    def batch():
        """What one wake-up does."""
        del one.loop.log[:]
        one._do_read()
        return list(one.loop.log)
    python_ran = []
    gevent.sleep(0.001)  # the loop opens its descriptors

    def profile(frame, event, arg):
        if event == 'call' and frame.f_code is server.StreamServer.do_read.__code__:
            python_ran.append(1)
'''


def child(impl, library, tmp_path, source, *args):
    """What a script prints, as JSON, with accept4() under its control as ``faults``."""
    preload = ' '.join(filter(None, [os.environ.get('LD_PRELOAD'), library]))
    line, = printed(
        impl, tmp_path, textwrap.dedent(PRELUDE) + 'faults = ctypes.CDLL(%r)\n' % library
        + textwrap.dedent(source), *args, env=child_environ(LD_PRELOAD=preload))
    return json.loads(line)


# -- every errno --------------------------------------------------------------------------

#: errno: the exception that CPython makes of it
REPORTED = dict.fromkeys([
    'EMFILE', 'ENFILE', 'ENOBUFS', 'ENOMEM', 'EPROTO', 'EOPNOTSUPP', 'EFAULT', 'ENETDOWN',
    'ENOPROTOOPT', 'EHOSTDOWN', 'ENONET', 'EHOSTUNREACH', 'ENETUNREACH', 'ENOSR',
    'ESOCKTNOSUPPORT', 'EPROTONOSUPPORT', 'EIO', 'ENETRESET', 'ESTALE', 'EDOM'], 'OSError')
REPORTED.update(
    ECONNABORTED='ConnectionAbortedError', ECONNRESET='ConnectionResetError',
    ECONNREFUSED='ConnectionRefusedError', EPIPE='BrokenPipeError', ETIMEDOUT='TimeoutError',
    EPERM='PermissionError', EACCES='PermissionError', ESRCH='ProcessLookupError',
    ENOENT='FileNotFoundError')
#: these end the server
FATAL = ['EBADF', 'EINVAL', 'ENOTSOCK']
#: these mean that nobody waits; Python has one exception for the four
NOBODY = ['EAGAIN', 'EWOULDBLOCK', 'EALREADY', 'EINPROGRESS']


def report(name):
    """How the log shows an error."""
    number = getattr(errno, name)
    return ['error', True, REPORTED.get(name, 'OSError'), number,
            '[Errno %d] %s' % (number, os.strerror(number))]


def test_every_errno(impl, library, tmp_path):
    """Once, three times, for ever: what is reported, how long accepting pauses, whether the
    server goes on; and that it is the native step that meets it."""
    results = child(impl, library, tmp_path, '''
        def run(number, count):
            """Batches while accept() fails, the one after that, and what else is left."""
            serve()
            client = connect(one)
            faults.faults_plan(number, count, 0)
            python_ran.clear()
            sys.setprofile(profile)
            failing = [batch() for _ in range(abs(count))]
            sys.setprofile(None)
            calls = faults.faults_calls()
            faults.faults_plan(0, 0, 0)
            after = batch()
            client.close()
            one.stop()
            return failing, after, calls, bool(python_ran)
        before = descriptors()
        results = {name: [run(getattr(errno, name), count) for count in (1, 3, -9)]
                   for name in sys.argv[1:]}
        print(json.dumps([results, descriptors() - before]))
    ''', *REPORTED, *NOBODY)
    results, lost = results
    assert lost == 0 and len(results) == len(REPORTED) + len(NOBODY)
    python_runs = not accepts_in_c(impl)
    delays = [0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1, 1]
    for name in REPORTED:
        for (failing, after, calls, in_python), count in zip(results[name], (1, 3, 9)):
            assert failing == [[report(name), ['timer', delay]] for delay in delays[:count]], name
            assert (after, calls, in_python) == (['handled'], count, python_runs), name
    for name in NOBODY:
        for (failing, after, calls, in_python), count in zip(results[name], (1, 3, 9)):
            assert failing == [[]] * count, name
            assert (after, calls, in_python) == (['handled'], count, python_runs), name


def test_fatal_errnos(impl, library, tmp_path):
    """The server closes, and says so; no batch follows."""
    results = child(impl, library, tmp_path, '''
        import io
        results = {}
        before = descriptors()
        for name in sys.argv[1:]:
            serve()
            client = connect(one)
            port, stderr = one.server_port, sys.stderr
            faults.faults_plan(getattr(errno, name), 1, 0)
            sys.stderr = io.StringIO()
            done = batch()
            said, sys.stderr = sys.stderr.getvalue().replace(str(port), 'PORT'), stderr
            results[name] = done, said, one.closed, one.started, faults.faults_calls()
            client.close()
        print(json.dumps([results, descriptors() - before]))
    ''', *FATAL)
    results, lost = results
    assert lost == 0
    for name in FATAL:
        number = getattr(errno, name)
        assert results[name] == [
            [report(name)],
            'ERROR: <StreamServer address=127.0.0.1:PORT> failed with [Errno %d] %s\n' % (
                number, os.strerror(number)), True, False, 1], name


def test_interrupted(impl, library, tmp_path):
    """By signals: tried again at once, however often; what their handlers raise is reported,
    and the client is served afterwards."""
    assert child(impl, library, tmp_path, '''
        def note(*args):
            seen.append(1)

        def fail(*args):
            raise LookupError('from the handler')
        seen, results = [], []
        serve()
        for count, sig, handler in ((1, 0, None), (100, 0, None), (3, signal.SIGUSR1, note),
                                    (1, signal.SIGUSR1, fail)):
            if sig:
                signal.signal(sig, handler)
            client = connect(one)
            faults.faults_plan(errno.EINTR, count, sig)
            log = batch()
            results.append([log, faults.faults_calls(), len(seen)])
            if handler is fail:
                results.append(batch())
            client.close()
        print(json.dumps(results))
    ''') == [[['handled'], 3, 0], [['handled'], 102, 0], [['handled'], 5, 3],
             [[['error', True, 'LookupError', None, 'from the handler'], ['timer', 0.01]], 1, 3],
             ['handled']]


def test_clients_behind_an_error(impl, library, tmp_path):
    """The first of five connections is reported as aborted: after one pause the rest is served,
    in one batch. An error in the middle of a batch does not touch what was accepted before."""
    assert child(impl, library, tmp_path, '''
        serve()
        clients = [connect(one) for _ in range(5)]
        faults.faults_plan(errno.ECONNABORTED, 1, 0)
        results = [len(batch()), batch(), one.delay]

        def handle_and_fail(sock, address):
            one.loop.log.append('handled')
            if one.loop.log.count('handled') == 2 and faults.faults_calls() > 5:
                faults.faults_plan(errno.EMFILE, 1, 0)
        one._handle = handle_and_fail
        clients += [connect(one) for _ in range(4)]
        results += [[event if event == 'handled' else event[0] for event in batch()]]
        results += [batch(), [answer(client) for client in clients]]
        print(json.dumps(results))
    ''') == [2, ['handled'] * 5, 0.01, ['handled', 'handled', 'error', 'timer'],
             ['handled'] * 2, [''] * 9]


@pytest.mark.parametrize('name', ['ECONNABORTED', 'EMFILE', 'ENETDOWN'])
@pytest.mark.parametrize('spawn', ['default', 'raw', 'pool', 'none'])
def test_on_a_real_loop(impl, library, tmp_path, name, spawn):
    """While accept() fails the loop sleeps: no more errors than the pauses leave room for.
    Then all clients are served."""
    errors, elapsed, answers, calls, lost = child(impl, library, tmp_path, '''
        one, errors = answering(sys.argv[2])
        before = descriptors()
        clients = [connect(one) for _ in range(10)]
        number = getattr(errno, sys.argv[1])
        start = time.monotonic()
        faults.faults_plan(number, -1, 0)
        while len(errors) < 4:
            gevent.sleep(0.001)
        elapsed, seen, calls = time.monotonic() - start, list(errors), faults.faults_calls()
        faults.faults_plan(0, 0, 0)
        while one.delay != one.min_delay:
            gevent.sleep(0.001)
        gevent.sleep(0.01)
        ports = [client.getsockname()[1] for client in clients]
        answers = [answer(client) for client in clients] == list(map(str, ports))
        while descriptors() > before:
            gevent.sleep(0.001)
        print(json.dumps([seen, elapsed, answers, calls, descriptors() - before]))
    ''', name, spawn)
    assert errors == [[True, getattr(errno, name)]] * calls and answers and lost == 0
    pauses = sum(0.01 * 2 ** i for i in range(calls - 1))
    assert calls >= 4 and elapsed >= pauses * 0.9


# -- descriptors run out ------------------------------------------------------------------

@pytest.mark.parametrize('spawn', ['default', 'raw', 'pool', 'none'])
def test_no_descriptor_is_free(impl, library, tmp_path, spawn):
    """Somebody else has taken all of them, and gives them back; nobody is forgotten."""
    errors, elapsed, answers, lost, watcher = child(impl, library, tmp_path, '''
        one, errors = answering(sys.argv[1])
        clients = [connect(one) for _ in range(10)]
        before, taken = descriptors(), []
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (before + 20, hard))
        try:
            while True:
                taken.append(os.dup(2))
        except OSError as ex:
            assert ex.errno == errno.EMFILE
        start = time.monotonic()
        while len(errors) < 5:
            gevent.sleep(0.001)
        elapsed, seen, watcher = time.monotonic() - start, list(errors), one._watcher is None
        for fd in taken:
            os.close(fd)
        while one.delay != one.min_delay:
            gevent.sleep(0.001)
        gevent.sleep(0.01)
        ports = [client.getsockname()[1] for client in clients]
        answers = [answer(client) for client in clients] == list(map(str, ports))
        while descriptors() > before - 10:
            gevent.sleep(0.001)
        print(json.dumps([seen, elapsed, answers, descriptors() - before + 10, watcher]))
    ''', spawn)
    assert set(map(tuple, errors)) == {(True, errno.EMFILE)} and answers and lost == 0
    assert elapsed >= sum(0.01 * 2 ** i for i in range(len(errors) - 1)) * 0.9 and watcher


def test_handlers_have_all_descriptors(impl, library, tmp_path):
    """Five clients at a time fit in; thirty are served."""
    held, most, served, answers, lost, repeated = child(impl, library, tmp_path, '''
        open_, most, served = set(), 0, []

        def handle(sock, address):
            global most
            open_.add(address)
            most = max(most, len(open_))
            go.wait()
            sock.sendall(b'%d' % address[1])
            served.append(address[1])
            open_.discard(address)
            gevent.sleep(0)
        go = gevent.event.Event()
        one = server.StreamServer(('127.0.0.1', 0), handle)
        one.start()
        errors = []
        get_hub().handle_error = lambda context, kind, value, tb: errors.append(value.errno)
        gevent.sleep(0.001)
        clients = [connect(one) for _ in range(30)]
        before = descriptors() - 1  # that of the folder which lists them
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (before + 5, hard))
        while len(errors) < 3:
            gevent.sleep(0.001)
        held = len(open_)
        go.set()
        while len(served) < 30:
            gevent.sleep(0.001)
        ports = [client.getsockname()[1] for client in clients]
        answers = [answer(client) for client in clients] == list(map(str, ports))
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        gevent.sleep(0.01)
        print(json.dumps([held, most, sorted(served) == sorted(ports), answers,
                          descriptors() - 1 + 30 - before, set(errors) != {errno.EMFILE}]))
    ''')
    assert (held, most, served, answers, lost, repeated) == (5, 5, True, True, 0, False)


# -- the address --------------------------------------------------------------------------

ADDRESSES = {
    'none at all': (b'', None),
    'of no family': (struct.pack('H', 0), [0, [0] * 14]),
    'of another family': (struct.pack('H', 5) + bytes(range(10)), [5, list(range(10)) + [0] * 4]),
    'path': (struct.pack('H', 1) + b'/tmp/x', '/tmp/x'),
    'unnamed': (struct.pack('H', 1), ''),
    'IPv4': (struct.pack('!HH4s8x', 0x0200, 80, b'\x01\x02\x03\x04'), ['1.2.3.4', 80]),
    'IPv6': (struct.pack('!HHI16sI', 0x0A00, 443, 7, b'\xfe' + b'\0' * 14 + b'\x01', 1 << 24),
             ['fe00::1', 443, 7, 1]),
}


@pytest.mark.parametrize('kind', ADDRESSES)
def test_odd_address(impl, library, tmp_path, kind):
    """Whatever the kernel says of the peer: the handler gets what CPython makes of it."""
    sockaddr, expected = ADDRESSES[kind]
    assert child(impl, library, tmp_path, '''
        def handle(sock, address):
            got.append([list(part) if isinstance(part, bytes) else part for part in address]
                       if isinstance(address, tuple) else address)
        got = []
        serve()
        sockaddr = bytes.fromhex(sys.argv[1])
        client = connect(one)
        faults.faults_address(sockaddr, len(sockaddr))
        print(json.dumps([batch(), got]))
    ''', sockaddr.hex()) == [[], [expected]]


# -- between accept() and the handler -----------------------------------------------------

class Faulty(Bench):
    """Some of its connections fail, and it has reported what it should."""

    def fail(self, error, context=None):
        """One client, for whom something raises *error*: it is reported, with *context* or the
        server, the client is dropped, and no descriptor is lost."""
        before = descriptors()
        with native.create_connection(self.server.address, timeout=10) as client:
            with warnings.catch_warnings():
                warnings.simplefilter('ignore', ResourceWarning)
                self.server._do_read()
                (told, kind, value), = self.errors
                if context is None:
                    assert told is self.server
                else:
                    assert told == (context(client), self.server)
                assert kind is type(value) and (value is error or kind is error)
                del self.errors[:]
                value.__traceback__ = None
                del value
                gc.collect()
            with contextlib.suppress(ConnectionResetError):
                assert client.recv(1) == b''
        gevent.sleep(0)
        assert descriptors() == before

    def works(self):
        """The next client is handled; its address."""
        del self.server.log[:]
        with native.create_connection(self.server.address, timeout=10) as client:
            self.server._do_read()
            assert self.errors == []
            gevent.sleep(0)
            gevent.sleep(0)
            assert self.server.log == [client.getsockname()]
            assert client.recv(1) == b''


@pytest.fixture
def bench(impl):
    """``bench(**namespace)``: a Faulty for a subclass of StreamServer."""
    with contextlib.ExitStack() as stack:
        def make(spawn=None, **namespace):
            log = []
            cls = type('Server', (impl.StreamServer,), dict(namespace, log=log))
            one = Faulty(cls, handle=lambda sock, address: log.append(address), spawn=spawn)
            stack.callback(one.server.close)
            return one
        yield make


def address_of(client):
    return (client.getsockname(),)


ERRORS = [LookupError('fault'), MemoryError(), KeyboardInterrupt(), gevent.GreenletExit(),
          OSError(errno.EMFILE, 'again'), gevent.Timeout(1)]
IDS = [type(error).__name__ for error in ERRORS]


@pytest.mark.parametrize('error', ERRORS[:3], ids=IDS[:3])
@pytest.mark.parametrize('module, name', [
    ('_socket3', 'get_hub'), ('_socket3', '_socket.getdefaulttimeout'),
    ('server', 'GeventSocket')])
def test_socket_cannot_be_made(impl, bench, monkeypatch, module, name, error):
    """Wherever its constructor fails. (gevent loses the descriptor if there is no socket yet.)"""
    import importlib
    one = bench()
    owner = importlib.import_module('gevent.' + module)
    *path, name = name.split('.')
    for part in path:
        owner = getattr(owner, part)
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, raising(error))
        if name == 'GeventSocket':
            before = set(os.listdir('/proc/self/fd'))
            with native.create_connection(one.server.address, timeout=10):
                one.server._do_read()
            lost, = {fd for fd in os.listdir('/proc/self/fd')
                     if fd not in before and os.path.exists('/proc/self/fd/' + fd)}
            os.close(int(lost))
            assert one.server.loop.errors.pop()[2] is error
        else:
            one.fail(error)
    error.__traceback__ = None
    one.works()


@pytest.mark.parametrize('error', ERRORS[:3], ids=IDS[:3])
@pytest.mark.parametrize('name', ['loop', 'io'])
def test_no_watcher(bench, error, name):
    """The hub has no loop, or the loop gives none."""
    one, hub = bench(), get_hub()
    loop = hub.loop

    class Loop:
        def io(self, *args):
            raise error

        def __getattr__(self, attr):
            return getattr(loop, attr)
    hub.loop = Loop() if name == 'io' else None
    try:
        before = descriptors()
        with native.create_connection(one.server.address, timeout=10):
            with warnings.catch_warnings():
                warnings.simplefilter('ignore', ResourceWarning)
                one.server._do_read()
                (context, kind, value), = one.server.loop.errors
                assert context is one.server
                assert value is error if name == 'io' else kind is AttributeError
                del one.server.loop.errors[:]
                value.__traceback__ = None
                del value
                gc.collect()
        assert descriptors() == before
    finally:
        hub.loop = loop
    one.works()


@pytest.mark.parametrize('error', ERRORS, ids=IDS)
def test_spawn_fails(bench, error):
    """The connection is closed, even if it was kept."""
    kept = []

    def spawn(*args):
        kept.append(args)
        raise error
    one = bench(spawn=spawn)
    one.fail(error, address_of)
    assert kept.pop()[3][0].closed
    one.server._spawn = gevent.spawn
    one.works()


@pytest.mark.parametrize('error', ERRORS[:3], ids=IDS[:3])
@pytest.mark.parametrize('spawn', [None, 'default', 5])
@pytest.mark.parametrize('name', ['_spawn', '_handle', 'do_close', 'do_handle'])
def test_look_up_fails(impl, bench, name, spawn, error):
    """Of what do_handle needs, or of itself: the connection is dropped with the arguments."""
    armed, base = [], impl.StreamServer

    def get(self, attr):
        if armed and attr == name:
            raise error
        return object.__getattribute__(self, attr)
    one = bench(spawn=spawn, __getattribute__=get)
    assert isinstance(one.server, base)
    armed.append(1)
    one.fail(error, address_of)
    del armed[:]
    one.works()


@pytest.mark.parametrize('spawn', [None, 'default', 5])
@pytest.mark.parametrize('count', [0, 1, 3])
def test_handler_with_other_arguments(impl, serve, errors, spawn, count):
    """A TypeError of the handler or of the greenlet; the connection is closed."""
    handle = [lambda: None, lambda one: None, None, lambda one, two, three: None][count]
    one = serve(impl.StreamServer(LOOPBACK, handle, spawn=spawn))
    gevent.sleep(0.001)
    before = descriptors()
    with socket.create_connection(one.address, timeout=10) as client:
        assert client.recv(1) == b''
    assert [kind for _, kind, _ in errors] == [TypeError]
    errors[0][2].__traceback__ = None
    gc.collect()
    assert descriptors() == before


@pytest.mark.parametrize('error', ERRORS, ids=IDS)
def test_do_handle_fails(impl, bench, error):
    """An override that raises owns the connection no longer: it is freed with its arguments."""
    one = bench(do_handle=raising(error))
    one.fail(error, address_of)
    type(one.server).do_handle = impl.StreamServer.do_handle
    one.works()


@pytest.mark.parametrize('error', ERRORS, ids=IDS)
def test_greenlet_fails(bench, monkeypatch, error):
    """To be made, to be started, to be added to a pool."""
    for method in ('__init__', 'start'):
        kind = type('Greenlet', (gevent.Greenlet,), {method: raising(error)})
        one = bench(spawn=kind.spawn)
        one.fail(error, address_of)
        one.server.close()
    for method in ('__init__', 'rawlink'):
        one = bench(spawn=5)
        kind = type('Greenlet', (gevent.Greenlet,), {method: raising(error)})
        one.server.pool.greenlet_class = kind
        one.fail(error, address_of)
        del one.server.pool.greenlet_class
        assert one.server.pool._semaphore.counter == 5
        one.works()
        assert one.server.pool._semaphore.counter == 5


@pytest.mark.parametrize('times', [20, 1000])
def test_no_memory_for_a_pause(impl, serve, errors, monkeypatch, times):
    """Ours tries again; if that is of no use either the former watcher goes on. (Of gevent's
    loops only that of libev in C can start it again. The others then have a server that is deaf,
    as gevent's own is.)"""
    loop, failing, untold = get_hub().loop, [LookupError('first')], []
    monkeypatch.setattr(sys, 'unraisablehook', lambda info: untold.append(info.exc_type))

    class Loop:
        def timer(self, delay):
            if failing:
                failing.pop()
                raise MemoryError
            return loop.timer(delay)

        def __getattr__(self, attr):
            return getattr(loop, attr)

    class Server(impl.StreamServer):
        def do_read(self):
            if failing and isinstance(failing[0], LookupError):
                error, failing[:] = failing[0], [None] * times
                raise error
            return super().do_read()
    one = serve(Server(LOOPBACK, echo))
    one.loop = Loop()
    client = connect(one)
    client.sendall(b'ping')
    until(lambda: len(failing) < times and errors)
    assert errors[0] == (one, LookupError, errors[0][2])
    compiled = type(loop).__module__ == 'gevent.libev.corecext'
    if impl.stock or times == 1000 and not compiled:
        until(lambda: len(errors) == 2)
        assert (errors[1][1], untold) == (MemoryError, [MemoryError] * (not impl.stock))
        one.stop_accepting()
        one.start_accepting()
    elif times == 1000:
        assert untold == [MemoryError] * 2 and len(errors) == 1
    assert read_all(client) == b'ping'
    assert one._watcher.active and ask(one) == b'ping'


@pytest.mark.parametrize('hours', [-5, 5])
def test_seconds_of_a_pause_when_the_clock_is_set(library, tmp_path, hours):
    """They are those that passed, whatever the time of day is set to meanwhile."""
    told = child(OURS, library, tmp_path, '''
        from gevent_cbase import stats

        hours = int(sys.argv[1])
        serve()
        faults.faults_plan(errno.EMFILE, 1, 0)
        batch()
        before = time.time()
        faults.faults_set_clock(hours * 3600)
        moved = time.time() - before
        seconds = [stats(one).backoff_seconds]
        one._start_accepting_if_started()
        seconds.append(stats(one).backoff_seconds)
        print(json.dumps([one.loop.log, moved, seconds]))
    ''', hours)
    log, moved, seconds = told
    assert [line[0] for line in log] == ['error', 'timer']
    assert round(moved / 3600) == hours
    assert 0 <= seconds[0] <= seconds[1] < 1000


def test_stock_is_what_it_was():
    """Nothing of this file is left behind."""
    assert server.GeventSocket is socket.socket and signal.getsignal(signal.SIGUSR1) == 0
    assert sys.getprofile() is None
