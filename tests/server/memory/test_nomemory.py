"""Every allocation of a server fails, one after the other, in child processes.

Each step of a server's life is repeated, with the first allocation that it makes failing, then
the second, and so on until none is left to fail. It succeeds or raises MemoryError, or reports
one; afterwards the server accepts, and no descriptor is lost.

What does not stand it is kept out: greenlet 3 crashes if there is no memory for a greenlet, libev
aborts, gevent's code that is not compiled breaks. So the greenlets are no greenlets, and servers
have an event loop that takes notes; only the watchers of the sockets are those of a real one.
"""
import json
import re
import textwrap

import pytest

from helpers import PLAIN, accepts_in_c, child_environ, run_script

pytest.importorskip('_testcapi', reason='CPython was built without _testcapi')

#: whatever this process uses
COMPILED = child_environ(GEVENT_LOOP='libev-cext', PURE_PYTHON='')

#: what CPython writes if there is no memory to call sys.unraisablehook
UNTOLD = re.compile('Exception ignored on building sys.unraisablehook|MemoryError: $')

PRELUDE = '''
    import faulthandler
    import gc
    import json
    import operator
    import os
    import socket as native
    import sys
    import warnings
    import _testcapi
    import gevent
    import gevent.pool
    from gevent import _socket3, get_hub, server
    faulthandler.enable()
    warnings.simplefilter('ignore')
    sys.unraisablehook = lambda info: noticed.append(info.exc_type.__name__)
    noticed, waiting, escaped, steps = [], [], [], [0]

    class Watcher:
        active, callback = False, None

        def start(self, callback):
            self.active, self.callback = True, callback

        def stop(self):
            self.active = False
        close = stop
    Watcher.__name__ = 'gevent.libev.corecext.fake'  # it can be started after close(), as those

    class Loop:
        def io(self, fd, events):
            return Watcher()

        def timer(self, delay):
            return Watcher()

        def handle_error(self, context, kind, value, tb):
            noticed.append(kind.__name__)

    class Ready:
        """In place of a greenlet."""

        def __init__(self, *args):
            self.args, self.links = args, []

        def rawlink(self, callback):
            self.links.append(callback)

        def start(self):
            waiting.append(self)

        def run(self):
            self.args[0](*self.args[1:])
            for callback in self.links:
                callback(self)

    def spawn(*args):
        Ready(*args).start()

    def pool():
        made = gevent.pool.Pool(3)
        made.greenlet_class = Ready
        return made

    def inside_closed_sockets():
        """The objects that may serve the next one, as long as nobody has them."""
        return [one for one in gc.get_objects() if type(one) is _socket3._closedsocket]

    def descriptors():
        return len(os.listdir('/proc/self/fd'))

    def listener():
        sock = native.socket()
        sock.bind(('127.0.0.1', 0))
        sock.listen(16)
        sock.setblocking(False)
        return sock

    def make(kind):
        one = server.StreamServer(listener(), operator.is_, spawn={
            'function': spawn, 'pool': pool(), 'none': None}[kind])
        one.loop = Loop()
        return one

    def started(kind):
        one = make(kind)
        one.start()
        return one

    def accepts(one):
        """Whether a server waits for clients, or for the end of a pause."""
        return one._watcher is not None and one._watcher.active or (
            one._timer is not None and one._timer.active)

    def is_linked(one):
        """Whether the pool calls a server when a slot is free."""
        return one.pool is not None and one.pool._semaphore.linkcount() > 0

    def connect(one):
        return native.create_connection(one.address, timeout=10)

    def run_handlers():
        while waiting:
            waiting.pop().run()

    def was_dropped(client):
        with client:
            try:
                return client.recv(1) == b''
            except ConnectionResetError:
                return True

    def attempt(n, function, *args, width=1):
        """Call *function* with its nth allocation failing, and others behind it: *width* in all.
        The names of the errors.
        """
        del noticed[:], escaped[:]
        _testcapi.set_nomemory(n, n + width)
        try:
            function(*args)
        except BaseException as ex:
            _testcapi.remove_mem_hooks()
            noticed.append(type(ex).__name__)
            escaped.append(1)
            ex.__traceback__ = ex.__context__ = None
        else:
            _testcapi.remove_mem_hooks()
        return list(noticed)

    def wake_up(n, one, width=1):
        """attempt() of what the event loop does when a client waits; it lets go of a server
        that raises, as all of gevent's loops do.
        """
        watcher = one._watcher
        seen = attempt(n, one._do_read, width=width)
        if escaped:
            watcher.stop()
        return seen

    def settle(one):
        """All clients are accepted, all handlers have run."""
        for greenlet in list(one.pool or ()):
            if greenlet not in waiting:  # it could not be started, and keeps its slot
                one.pool.discard(greenlet)
        run_handlers()
        one._do_read()  # if the client was not accepted before
        run_handlers()
        gc.collect()

    def sweep(step, at_least=0):
        """step(n), the errors and whether all is well, for each n until nothing fails for a
        while, and up to *at_least*. The kinds of errors, how many steps failed, descriptors lost,
        steps gone wrong.
        """
        for _ in range(3):
            step(10 ** 6)
        gc.collect()
        before, n, quiet, kinds, failures, wrong = descriptors(), 0, 0, set(), 0, []
        while quiet < 25 or n < at_least:
            seen, well = step(n)
            kinds.update(seen)
            failed = 'MemoryError' in seen
            failures += failed
            if not well:
                wrong.append(n)
            quiet = 0 if failed else quiet + 1
            n += 1
            assert n < 1000, noticed
        step(10 ** 6)
        gc.collect()
        steps.append(n)
        return sorted(kinds), failures, descriptors() - before, wrong

    def done(result):
        print(json.dumps(result), flush=True)
        os._exit(0)
    gevent.sleep(0.001)  # the hub has run, the loop has its descriptors
'''


def child(impl, tmp_path, source, *args):
    """What a script prints, as JSON."""
    status, out, err = run_script(
        impl, tmp_path, textwrap.dedent(PRELUDE) + textwrap.dedent(source), *args, env=COMPILED)
    said = [line for line in err.splitlines() if not UNTOLD.match(line)]
    assert (status, said) == (0, []), err
    return json.loads(out)


def test_load(tmp_path):
    """The module is loaded, or not; and the one that was loaded before goes on.

    CPython 3.11 loses an error while a class is made, and says something else then.
    """
    kinds = child(PLAIN, tmp_path, '''
        import _imp
        from gevent_cbase import _cbase
        from gevent_cbase.baseserver import BaseServer
        kinds, n, loaded = [], 0, 0
        while loaded < 100:
            module = _imp.create_dynamic(_cbase.__spec__)
            _testcapi.set_nomemory(n, n + 1)
            try:
                _imp.exec_dynamic(module)
            except Exception as ex:
                _testcapi.remove_mem_hooks()
                kinds.append(type(ex).__name__)
            else:
                _testcapi.remove_mem_hooks()
                loaded += 1
                assert module._address_parse(':80')[1] == ('', 80)
            n += 1
        BaseServer(('127.0.0.1', 0), print)
        done(kinds)
    ''')
    assert set(kinds) <= {'MemoryError', 'SystemError'}
    assert kinds.count('MemoryError') > 0.98 * len(kinds) > 100


@pytest.mark.parametrize('kind', ['"default"', '3', 'None', 'gevent.spawn_raw', 'pool()'])
def test_constructor(impl, tmp_path, kind):
    """A server, or none; it may be given its listener."""
    kinds, failures, lost, wrong = child(impl, tmp_path, '''
        def step(n):
            sock = listener()
            given = {0: ('127.0.0.1', 0), 1: sock}[n %% 2]
            seen = attempt(n // 2, server.StreamServer, given, operator.is_, None, %s)
            sock.close()
            return seen, True
        done(sweep(step))
    ''' % kind)
    assert (kinds, lost, wrong) == (['MemoryError'], 0, []) and failures > 5


@pytest.mark.parametrize('kind', ['function', 'pool', 'none'])
def test_start(impl, tmp_path, kind):
    """It may be tried again. (gevent has forgotten the handler and has closed the socket.)"""
    kinds, failures, lost, wrong = child(impl, tmp_path, '''
        def step(n):
            one = make(sys.argv[1])
            seen = attempt(n, one.start)
            if seen and STOCK:
                one.stop()
                return seen, True
            if seen and one.closed:
                one.socket = listener()
            one.start()
            well = accepts(one) and one._handle is operator.is_
            client = native.create_connection(one.socket.getsockname(), timeout=10)
            one._do_read()
            run_handlers()
            well = well and was_dropped(client)
            one.stop()
            return seen, well
        done(sweep(step))
    '''.replace('STOCK', str(impl.stock)), kind)
    assert (kinds, lost, wrong) == (['MemoryError'], 0, []) and failures > 0


@pytest.mark.parametrize('fresh', [False, True])
@pytest.mark.parametrize('kind', ['function', 'pool', 'none'])
def test_accept(impl, tmp_path, kind, fresh):
    """On a descriptor that has been used before, or not; up to the handler: the client gets
    there or is dropped; accepting goes on, and every slot of the pool is given back. (gevent
    loses the descriptor before there is a socket.)"""
    in_python = not accepts_in_c(impl)  # gevent's do_read() loses the descriptor
    kinds, failures, lost, wrong = child(impl, tmp_path, '''
        one, taken, inside = started(sys.argv[1]), [], []

        def step(n):
            one.start_accepting()
            if FRESH:
                taken.append(os.dup(2))
            inside.extend(inside_closed_sockets())
            client = connect(one)
            seen = wake_up(n, one)
            well = STOCK or accepts(one)
            settle(one)
            if not IN_PYTHON:
                well = well and was_dropped(client)
            if one.pool is not None:
                well = well and one.pool._semaphore.counter == 3 and not one.pool.greenlets
            client.close()
            client = connect(one)
            one._do_read()
            run_handlers()
            well = well and was_dropped(client)
            return seen, well
        kinds, failures, lost, wrong = sweep(step)
        done((kinds, failures, lost - len(taken) + 3 * FRESH, wrong))
    '''.replace('STOCK', str(impl.stock)).replace('IN_PYTHON', str(in_python)).replace(
        'FRESH', str(fresh)), kind)
    assert (kinds, wrong) == (['MemoryError'], []) and failures > 2
    assert lost > 0 if in_python else lost == 0


@pytest.mark.parametrize('kind', ['function', 'none'])
def test_first_client(impl, tmp_path, kind):
    """A server that nobody has connected to before: it keeps all of its attributes. (CPython 3.13
    takes them away if there is no memory to set `__dict__`.)"""
    kinds, failures, wrong = child(impl, tmp_path, '''
        def step(n):
            one = started(sys.argv[1])
            before = {name: getattr(one, name) for name in one.__dict__}
            client = connect(one)
            seen = wake_up(n, one)
            names = {*before} - {'_watcher', '_timer', 'delay'}
            well = set(one.__dict__) >= {*before} and all(
                getattr(one, name) is before[name] for name in names)
            client.close()
            run_handlers()
            one.close()
            return seen, well
        kinds, failures, _, wrong = sweep(step)
        done((kinds, failures, wrong))
    ''', kind)
    assert (kinds, wrong) == (['MemoryError'], []) and failures > 2


#: how many allocations in a row fail; the last: all, until the event loop has control again
WIDTHS = [2, 3, 5, 20, 10 ** 6]


@pytest.mark.parametrize('cause, kind', [
    ('client', 'function'), ('client', 'pool'), ('client', 'none'), ('error', 'function'),
    ('full', 'pool'), ('timer', 'function'), ('slot', 'pool')])
def test_never_deaf(impl, tmp_path, kind, cause):
    """Several allocations fail, also those that deal with the first failure: with a client, with
    an error to report, with a pool that is full, when a pause is over or a slot is free. The
    loop goes on to watch the server or a timer of it. (A server of gevent may stay deaf, and is
    started again here. Nothing calls for a free slot a second time: there, not all fail.)"""
    results = child(impl, tmp_path, '''
        one = started(sys.argv[1])

        def fail():
            raise LookupError

        def step(n, width):
            one.stop_accepting()
            one.start_accepting()
            if CAUSE == 'error':
                one.do_read = fail
            elif CAUSE == 'full':
                one.full = lambda: True
            client = connect(one)
            if CAUSE in ('timer', 'slot'):
                one.stop_accepting()
                if CAUSE == 'timer':
                    one._timer = one.loop.timer(1)
                    one._timer.start(one._start_accepting_if_started)
                    one._timer.active = False
                seen = attempt(n, one._start_accepting_if_started, width=width)
            else:
                seen = wake_up(n, one, width)
            vars(one).pop('do_read', None)
            vars(one).pop('full', None)
            well = STOCK or accepts(one) or is_linked(one)
            settle(one)
            client.close()
            client = connect(one)
            one._do_read()
            run_handlers()
            return seen, well and was_dropped(client)
        done([sweep(lambda n: step(n, width), max(steps)) for width in %s])
    '''.replace('STOCK', str(impl.stock)).replace('CAUSE', repr(cause)) % WIDTHS, kind)
    if cause == 'slot':
        del results[-1]
    for (kinds, failures, lost, wrong), width in zip(results, WIDTHS):
        assert set(kinds) <= {'MemoryError', 'LookupError'} and wrong == [], width
        assert failures or width == WIDTHS[-1], width  # no memory to tell of it
        assert lost == 0 or cause == 'client' and not accepts_in_c(impl) or impl.stock


@pytest.mark.parametrize('handler', ['operator.is_', 'lambda sock, address: sock.close()'])
def test_handle_and_close(impl, tmp_path, handler):
    """What runs in the greenlet of the handler. Somebody has what closed sockets have inside, so
    that it cannot serve the next one.
    """
    kinds, failures, lost, wrong = child(impl, tmp_path, '''
        one = started('function')
        one.set_handle(eval(sys.argv[1]))
        inside = []

        def step(n):
            client = connect(one)
            one._do_read()
            function, *args = waiting.pop().args
            seen = attempt(n, function, *args)
            sock = args[2][0]
            sock.close()
            if sock._sock:
                sock._real_close()
            inside.append(sock._sock)
            del args, sock
            return seen, was_dropped(client)
        done(sweep(step))
    ''', handler)
    assert (kinds, lost, wrong) == (['MemoryError'], 0, []) and failures > 0


@pytest.mark.parametrize('kind', ['function', 'pool', 'none'])
@pytest.mark.parametrize('method', ['close', 'stop'])
def test_stop(impl, tmp_path, kind, method):
    """Closes the server, or may be tried again."""
    kinds, failures, lost, wrong = child(impl, tmp_path, '''
        def step(n):
            one = started(sys.argv[1])
            seen = attempt(n, one.%s)
            one.stop()
            return seen, one.closed and not one.started and not accepts(one)
        done(sweep(step))
    ''' % method, kind)
    assert set(kinds) <= {'MemoryError'} and (lost, wrong) == (0, [])


CALLS = ['repr(one)', 'str(one)', 'one.server_host, one.server_port, one.closed, one.started',
         'one.is_fatal_error(error)', 'one.full()', 'one.set_spawn(3)', 'one.set_spawn(None)',
         'one.set_spawn("default")', 'one.set_handle(print)', 'one.do_handle(thing, 1)',
         'one.do_close(thing)', 'one.stop_accepting()', 'one._start_accepting_if_started()',
         'one.set_listener(("127.0.0.1", 80))', 'parse("127.0.0.1:80")', 'parse("[::1]:80")',
         'parse(":80")', 'parse(80)', 'parse(("", 1))', 'run(operator.is_, operator.is_, (1, 2))']


#: only ours has these
MORE_CALLS = ['cbase._datastack_stats()', 'cbase._datastack_enable(8)',
              'cbase._datastack_is_reached()', 'cbase._datastack_disable()']


def test_other_methods(impl, tmp_path):
    """And the functions of the module; the server goes on. (CPython 3.12 crashes in gevent's
    repr().)"""
    calls = CALLS[2:] if impl.stock else CALLS + MORE_CALLS
    results = child(impl, tmp_path, '''
        from gevent.baseserver import _handle_and_close_when_done as run, parse_address as parse
        from gevent_cbase import _cbase as cbase
        error, thing, results = OSError(9, 'bad'), Watcher(), {}

        def step(n):
            one.set_spawn('default')
            one.address = one.socket.getsockname()
            if one._watcher is None:
                one.start_accepting()
            return attempt(n, call), not one.closed and one.started
        for source in json.loads(sys.argv[1]):
            one = started('none')
            call = eval('lambda: (%s)' % source)
            results[source] = sweep(step)
            one.stop()
        done(results)
    ''', json.dumps(calls))
    assert list(results) == calls
    for call, (kinds, failures, lost, wrong) in results.items():
        assert set(kinds) <= {'MemoryError'} and (lost, wrong) == (0, []), call
    assert sum(failures for _, failures, _, _ in results.values()) > (10 if impl.stock else 30)


@pytest.mark.parametrize('name, size', [('recv', 8192), ('recv', 200000), ('recv_into', 0)])
def test_reading(impl, tmp_path, name, size):
    """No byte is lost: it is read, or can be read. (gevent loses some.)"""
    kinds, failures, lost, wrong = child(impl, tmp_path, '''
        from gevent import socket
        server.StreamServer(listener(), print)
        one, other = socket.socketpair()
        buffer, got = bytearray(100), [None]
        given = buffer if sys.argv[1] == 'recv_into' else int(sys.argv[2])

        def read():
            got[0] = getattr(one, sys.argv[1])(given)

        def step(n):
            got[0] = None
            data = b'%d' % n
            other.send(data)
            seen = attempt(n, read)
            found = bytes(buffer[:got[0]]) if isinstance(got[0], int) else got[0]
            try:
                left = one._sock.recv(100)
            except BlockingIOError:
                left = None
            return seen, STOCK or [found, left] in ([data, None], [None, data])
        done(sweep(step))
    '''.replace('STOCK', str(impl.stock)), name, size)
    assert (lost, wrong) == (0, []) and set(kinds) <= {'MemoryError'}


def test_writing(impl, tmp_path):
    """All of it is sent once, or none."""
    kinds, failures, lost, wrong = child(impl, tmp_path, '''
        from gevent import socket
        server.StreamServer(listener(), print)
        one, other = socket.socketpair()

        def step(n):
            data = b'%d' % n
            seen = attempt(n, one.sendall, data)
            try:
                found = other._sock.recv(100)
            except BlockingIOError:
                found = b''
            return seen, found == data or bool(seen and not found)
        done(sweep(step))
    ''')
    assert (lost, wrong) == (0, []) and set(kinds) <= {'MemoryError'}
