"""Whatever is done with servers thousands of times: nothing accumulates.

Each operation is repeated in a child process, and what could grow is counted before and after:
allocated blocks, objects by type, types, descriptors, active watchers, links to pools. And what
nobody needs any more can be freed: servers, pools, handlers, sockets.
"""
import contextlib
import errno
import gc
import json
import sys
import textwrap
import weakref

import pytest
from gevent import get_hub, socket
from gevent.pool import Pool

from conftest import Impl
from helpers import LOOPBACK, listener, printed, until

PRELUDE = '''
    import collections
    import contextlib
    import errno
    import gc
    import io
    import json
    import os
    import socket as native
    import sys
    import gevent
    import gevent.pool
    from gevent import baseserver, get_hub, server, socket

    ADDRESS = ('127.0.0.1', 0)
    hub = get_hub()
    operations = {}
    slow = type(hub.loop).__module__ != 'gevent.libev.corecext'  # cffi: ten times, or more

    def times(count):
        """Decorator: an operation, to be repeated so often; less with a slow loop."""
        def add(function):
            operations[function.__name__] = function, count // 10 if slow else count
            return function
        return add

    def tick():
        """What is due gets done."""
        for _ in range(20):
            gevent.sleep(0)

    def handler(sock, address):
        pass

    class Quiet:
        """In place of a loop: nothing happens."""
        handle_error = io = timer = start = stop = close = lambda self, *args: self

    class Odd(Exception):
        pass

    def fail(*args):
        raise Odd

    def counted():
        """Everything that may not grow, by name."""
        gc.collect()
        kinds = collections.Counter(
            '%s.%s' % (type(obj).__module__, type(obj).__qualname__) for obj in gc.get_objects())
        return {'descriptors': len(os.listdir('/proc/self/fd')),
                'active watchers': hub.loop.activecnt, 'blocks': sys.getallocatedblocks(),
                **{'of ' + name: count for name, count in kinds.items()}}

    def window(function, count):
        """What has become more by half of *count*, for a leak is *count* or more; of
        descriptors and watchers, by any number.
        """
        tick()
        before = counted()
        before = counted()  # with one such result alive, as below
        for i in range(count):
            function()
            if i % 50 == 0:
                tick()
        tick()
        after = counted()
        exact = 'descriptors', 'active watchers'
        return {name: number - before.get(name, 0) for name, number in after.items()
                if number - before.get(name, 0) > (0 if name in exact else count // 2)}

    def growth(function, count):
        """What grows again and again."""
        for _ in range(count // 5 + 10):
            function()
        found = window(function, count)
        for _ in range(5):  # caches fill up
            if found:
                again = window(function, count)
                found = {name: again[name] for name in found if name in again}
        return found

    def measure():
        print(json.dumps({name: growth(*operation) for name, operation in operations.items()}))
'''


def grown(impl, tmp_path, source):
    """What grew in each operation that *source* defines, without those where nothing did; and
    how many operations there are."""
    line, = printed(impl, tmp_path,
                    textwrap.dedent(PRELUDE) + textwrap.dedent(source) + 'measure()\n')
    measured = json.loads(line)
    return {name: found for name, found in measured.items() if found}, len(measured)


def test_life(impl, tmp_path):
    """Constructor, start, stop and what lies between, also where it fails."""
    assert grown(impl, tmp_path, '''
        taken = native.socket()
        taken.bind(ADDRESS)
        taken.listen(1)

        class Kept(server.StreamServer):
            """May be started again: the handler belongs to the class."""

            def handle(self, *args):
                pass

        class Late(server.StreamServer):
            def start_accepting(self):
                super().start_accepting()
                raise Odd

        @times(3000)
        def construct():
            for spawn in ('default', None, 3, gevent.spawn_raw, gevent.pool.Pool(2)):
                baseserver.BaseServer(80, handler, spawn)

        @times(3000)
        def construct_badly():
            for args in ((object(), handler), (80, 1), (80, handler, 'x'), ('a:b:c', handler)):
                with contextlib.suppress(Exception):
                    server.StreamServer(*args)

        @times(1000)
        def init_socket():
            one = server.StreamServer(ADDRESS, handler)
            one.init_socket()
            one.close()

        @times(1000)
        def start_and_stop():
            for spawn in ('default', 3, None):
                one = server.StreamServer(ADDRESS, handler, spawn=spawn)
                one.start()
                one.stop()

        @times(1000)
        def given_listener():
            sock = socket.socket()
            sock.bind(ADDRESS)
            sock.listen(1)
            one = server.StreamServer(sock, handler)
            one.start()
            one.stop()
        kept = Kept(ADDRESS)

        @times(1000)
        def restart():
            kept.start()
            kept.stop()

        @times(1000)
        def fail_to_start():
            one = server.StreamServer(taken.getsockname(), handler)
            try:
                one.start()
            except OSError as ex:
                assert ex.errno == errno.EADDRINUSE

        @times(1000)
        def fail_to_accept():
            with contextlib.suppress(Odd):
                Late(ADDRESS, handler).start()
        running = server.StreamServer(ADDRESS, handler)
        running.start()

        @times(3000)
        def accepting_on_and_off():
            running.stop_accepting()
            running.start_accepting()
            running._start_accepting_if_started()

        @times(300)
        def serve_forever():
            one = server.StreamServer(ADDRESS, handler)
            greenlet = gevent.spawn(one.serve_forever)
            gevent.sleep(0)
            one.stop()
            greenlet.join()

        @times(300)
        def forever_killed():
            one = server.StreamServer(ADDRESS, handler, spawn=2)
            greenlet = gevent.spawn(one.serve_forever)
            gevent.sleep(0)
            greenlet.kill()
    ''') == ({}, 11)


def test_small_calls(impl, tmp_path):
    """Setters, texts, addresses, subclasses."""
    assert grown(impl, tmp_path, '''
        class Fresh(server.StreamServer):
            pass
        one = server.StreamServer(ADDRESS, handler)
        one.start()
        other = baseserver.BaseServer(1, handler)

        @times(3000)
        def set_spawn():
            for spawn in (2, gevent.pool.Pool(2), None, gevent.spawn_raw, 'default'):
                other.set_spawn(spawn)
            for spawn in ('x', object()):
                with contextlib.suppress(Exception):
                    other.set_spawn(spawn)

        @times(3000)
        def set_handle():
            other.set_handle(lambda *args: None)
            with contextlib.suppress(TypeError):
                other.set_handle(1)

        @times(3000)
        def set_listener():
            another = baseserver.BaseServer(1, handler)
            del another.address
            another.set_listener(('127.0.0.1', 80))
            with contextlib.suppress(Exception):
                another.set_listener(object())

        @times(3000)
        def texts():
            repr(one), str(other), one.server_host, one.server_port, one.closed, one.started
            repr(baseserver.BaseServer.__new__(baseserver.BaseServer))

        @times(3000)
        def parse_address():
            for address in ('127.0.0.1:80', ':80', '[::1]:80', 80, '80', ('a', 1), 'x', 'a:b',
                            None):
                with contextlib.suppress(Exception):
                    baseserver.parse_address(address)

        @times(3000)
        def odd_calls():
            for call in (one.do_read, one.start, one.full, one.do_handle, one.do_close,
                         one.is_fatal_error, baseserver._handle_and_close_when_done):
                with contextlib.suppress(Exception):
                    call(1, 2, 3, 4, x=5)

        @times(3000)
        def is_fatal_error():
            one.is_fatal_error(OSError(9, 'x')), one.is_fatal_error(ValueError())
            one.is_fatal_error(OSError(8))

        @times(3000)
        def in_greenlet():
            run = baseserver._handle_and_close_when_done
            run(id, id, (one,))
            with contextlib.suppress(Odd):
                run(fail, id, (one,))

        @times(300)
        def subclass():
            class Sub(Fresh):
                do_read = fail
            sub = Sub(ADDRESS, handler)
            sub.loop = Quiet()
            sub.start()
            sub._do_read()
            sub._do_read()
            sub.stop()
    ''') == ({}, 9)


CONNECTIONS = '''
    def serve(spawn, handle=handler):
        one = server.StreamServer(ADDRESS, handle, spawn=spawn)
        one.start()
        address = one.address

        def connection():
            with native.create_connection(address) as client:
                client.settimeout(30)
                socket.wait_read(client.fileno(), timeout=30)
                assert client.recv(1) == b''
        return connection

    def waits(sock, address):
        gevent.sleep(0)
        sock.makefile('rb').close()

    def closes(sock, address):
        sock.close()

    def closes_file(sock, address):
        with sock.makefile('rb'):
            sock.close()
    hub.handle_error = lambda *args: None
    limited = gevent.pool.Pool(1)
    for name, args in {
            'default': ['default'], 'raw': [gevent.spawn_raw], 'none': [None], 'pool': [5],
            'full pool': [limited], 'group': [gevent.pool.Pool()], 'waits': ['default', waits],
            'raises': ['default', fail], 'raises in pool': [5, fail],
            'kills': ['default', lambda *args: gevent.getcurrent().kill()],
            'wrong arguments': ['default', lambda: None],
            'closes': ['default', closes], 'closes a file later': [5, closes_file],
            }.items():
        times(1000)(serve(*args))
        operations[name] = operations.pop('connection')
'''


def test_connections(impl, tmp_path):
    """Of each kind of spawn; handlers that wait, raise, end their greenlet."""
    assert grown(impl, tmp_path, CONNECTIONS) == ({}, 13)


def test_closed_sockets(impl, tmp_path):
    """Of no server, closed in all ways."""
    assert grown(impl, tmp_path, '''
        def pair():
            one, other = native.socketpair()
            other.close()
            return socket.socket(one.family, one.type, fileno=one.detach())

        @times(3000)
        def close():
            sock = pair()
            sock.close(), sock.close()

        @times(3000)
        def with_files():
            sock = pair()
            with sock.makefile('rb'), sock.makefile('wb'):
                sock.close()

        @times(3000)
        def behind_the_back():
            sock = pair()
            os.close(sock.fileno())
            with contextlib.suppress(OSError):
                sock.close()

        @times(1000)
        def with_a_waiter():
            one, other = socket.socketpair()

            def wait():
                with contextlib.suppress(OSError):
                    one.recv(1)
            greenlet = gevent.spawn(wait)
            gevent.sleep(0)
            one.close(), other.close()
            greenlet.join()
    ''') == ({}, 4)


def test_errors_in_hooks(impl, tmp_path):
    """Each hook raises; a pool is full and the server is told later, or stopped before."""
    assert grown(impl, tmp_path, '''
        hub.handle_error = lambda *args: None

        class Given(baseserver.BaseServer):
            def do_read(self):
                return (1, 2) if self.left.pop() else None
        sock = socket.socket()
        sock.bind(ADDRESS)
        sock.listen(1)

        def serve(spawn=None, **attributes):
            one = Given(sock, handler, spawn)
            one.loop, one.left = Quiet(), [0, 0, 1]
            one.start()
            vars(one).update(attributes)
            return one

        def hook(spawn=None, **attributes):
            def operation():
                one = serve(spawn, **attributes)
                with contextlib.suppress(Exception), contextlib.redirect_stderr(io.StringIO()):
                    one._do_read()
                vars(one).pop('socket')  # stays open
                one.loop = Quiet()
                with contextlib.suppress(Odd):
                    one.stop()
            return operation

        def fatal():
            raise OSError(9, 'x')

        class NoText(Exception):
            def __str__(self):
                raise Odd
        loops = {}
        for broken in ('handle_error', 'timer'):
            loops[broken] = type('Broken', (Quiet,), {broken: fail})()
        for name, given in {
                'do_read': dict(do_read=fail), 'do_handle': dict(do_handle=fail),
                'do_close': dict(do_close=fail), 'full': dict(full=fail),
                'handle': dict(_handle=fail), '_spawn': dict(_spawn=fail),
                'spawn and do_close': dict(_spawn=fail, do_close=fail),
                'is_fatal_error': dict(do_read=fail, is_fatal_error=fail),
                'fatal': dict(do_read=fatal, close=lambda: None),
                'fatal, close': dict(do_read=fatal, close=fail),
                'stop_accepting': dict(do_read=fail, stop_accepting=fail),
                'handle_error': dict(do_read=fail, loop=loops['handle_error']),
                'handle_error, handler': dict(do_handle=fail, loop=loops['handle_error']),
                'result': dict(do_read=lambda: 7), 'min_delay': dict(min_delay=None, delay='x'),
                'pool': dict(spawn=3), 'pool, do_close': dict(spawn=3, do_close=fail),
                'max_accept': dict(max_accept='x')}.items():
            times(1000)(hook(**given))
            operations[name] = operations.pop('operation')
        pool = gevent.pool.Pool(1)
        busy = serve(pool)

        @times(1000)
        def full():
            pool.add(gevent.Greenlet())
            busy._do_read()
            assert pool._semaphore.linkcount() == 1
            busy.stop_accepting()
            pool.discard(*pool.greenlets)
            tick()
            assert pool._semaphore.linkcount() == 0

        @times(1000)
        def stopped_while_full():
            one = serve(pool)
            pool.add(gevent.Greenlet())
            one._do_read()
            assert pool._semaphore.linkcount() == 2  # one of set_spawn(), one of full()
            vars(one).pop('socket')
            one.close()
            assert pool._semaphore.linkcount() == 1
            pool.discard(*pool.greenlets)
            tick()
            assert pool._semaphore.linkcount() == 0
    ''') == ({}, 19)


def test_of_ours(tmp_path):
    """What gevent has not."""
    assert grown(Impl('cbase'), tmp_path, '''
        import gevent_cbase
        from gevent_cbase import _info, datastack
        slow = False  # none of this is done with a loop
        one = server.StreamServer(ADDRESS, handler)
        one.start()

        @times(100)
        def uninstall_and_install():
            gevent_cbase.uninstall()
            assert not gevent_cbase.is_installed()
            gevent_cbase.install()

        @times(3000)
        def install_again():
            gevent_cbase.is_installed()

        @times(1000)
        def datastack_on_and_off():
            datastack.disable()
            datastack.enable(10)
            datastack.enable(5)
            gevent.spawn_raw(tick)
            tick()
            datastack.stats(), datastack.why_off(), datastack.is_enabled()
            with contextlib.suppress(ValueError):
                datastack.enable(0)

        @times(300)
        def info():
            with contextlib.redirect_stdout(io.StringIO()) as text:
                print(*_info.lines())
            assert 'gevent' in text.getvalue()
    ''') == ({}, 4)


# -- what can be freed --------------------------------------------------------------------

class Handler:
    """A handler that can be watched."""

    def __init__(self):
        self.socks = []

    def __call__(self, sock, address):
        self.socks.append(weakref.ref(sock))


#: servers and sockets that are dropped, as here, leave it to the collector to close them
DROPPED = pytest.mark.filterwarnings('ignore::ResourceWarning')


@pytest.fixture
def quiet(monkeypatch):
    """Nothing is reported, and no exception kept."""
    monkeypatch.setattr(sys, 'unraisablehook', lambda info: None)
    get_hub().handle_error = lambda *args: None
    yield
    del get_hub().handle_error


@pytest.fixture(params=['default', 'pool', 'none'])
def spawn(request):
    """A function: what to spawn with, and a pool or None."""
    def make():
        pool = Pool(3) if request.param == 'pool' else None
        return {'pool': pool, 'none': None}.get(request.param, request.param), pool
    return make


def freed(refs, collect=False):
    """Let the loop run until all of these are gone."""
    refs = list(refs)
    assert refs

    def gone():
        if collect:
            gc.collect()
        return [ref for ref in refs if ref() is not None] == []
    until(gone)


def refer(*objects):
    return [weakref.ref(obj) for obj in objects if obj is not None]


def talk(one):
    """One short connection."""
    with socket.create_connection(one.address, timeout=10) as client:
        with contextlib.suppress(ConnectionResetError):
            client.recv(1)


def test_after_stop(impl, spawn):
    """Without the collector: a server that has served, its pool, its handler, its sockets."""
    gc.collect()
    gc.disable()
    try:
        kind, pool = spawn()
        handler = Handler()
        one = impl.StreamServer(LOOPBACK, handler, spawn=kind)
        one.start()
        for _ in range(3):
            talk(one)
        refs = refer(one, pool, handler, one.socket) + handler.socks
        assert len(handler.socks) == 3
        one.stop()
        del one, pool, handler, kind
        freed(refs)
    finally:
        gc.enable()


def test_while_it_runs(impl, spawn):
    """The loop refers to it: it goes on as long as it accepts, whoever else has forgotten it."""
    kind, pool = spawn()
    handler = Handler()
    one = impl.StreamServer(LOOPBACK, handler, spawn=kind)
    one.start()
    refs = refer(one, pool, handler, one.socket)
    address = one.address
    del one, pool, handler, kind
    gc.collect()
    assert None not in [ref() for ref in refs]
    refs[0]().stop()
    freed(refs, collect=True)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address)


@DROPPED
def test_after_a_failed_start(impl, spawn):
    """The address is in use, or accepting cannot be started."""
    class Late(impl.StreamServer):
        def start_accepting(self):
            super().start_accepting()
            raise LookupError
    with listener() as taken:
        for cls, address, error in ((impl.StreamServer, taken.getsockname(), OSError),
                                    (Late, LOOPBACK, LookupError)):
            kind, pool = spawn()
            handler = Handler()
            one = cls(address, handler, spawn=kind)
            try:
                one.start()
            except error as ex:
                assert error is LookupError or ex.errno == errno.EADDRINUSE
            else:
                pytest.fail('it has started')
            refs = refer(one, pool, handler)
            del one, pool, handler, kind
            freed(refs, collect=True)


def fail(*args):
    raise LookupError


@DROPPED
@pytest.mark.parametrize('hook', [
    'do_read', 'do_handle', 'do_close', 'full', 'is_fatal_error', '_spawn', '_handle',
    'stop_accepting', 'min_delay'])
def test_after_errors(impl, spawn, quiet, hook):
    """Each hook raises, and the server is stopped."""
    kind, pool = spawn()
    handler = Handler()
    one = impl.StreamServer(LOOPBACK, handler, spawn=kind)
    one.start()
    refs = refer(one, pool, handler, one.socket)
    if hook in ('is_fatal_error', 'stop_accepting'):
        one.do_read = fail
    called = []

    def hooked(*args):
        called.append(hook)
        fail()
    if hook == 'min_delay':
        type(one).min_delay = property(hooked)
    else:
        setattr(one, hook, hooked)
    try:
        with socket.create_connection(one.address, timeout=10):
            until(lambda: called)
    finally:
        if hook == 'min_delay':
            del type(one).min_delay
    vars(one).pop('stop_accepting', None)
    one.stop()
    del one, pool, handler, kind, hooked
    freed(refs, collect=True)
