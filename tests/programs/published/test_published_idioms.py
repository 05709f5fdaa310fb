"""What published programs do to gevent's servers beyond the documented ways, one test each.

The list comes from reading and running the code of 27 projects.
"""
import functools
import subprocess
import threading

import gevent
import gevent.baseserver
import gevent.event
import pytest
from gevent import get_hub, getcurrent, socket
from gevent.pool import Pool

from helpers import (
    LOOPBACK, ask, child_environ, connect, connect_natively, echo, listener, python, read_all,
    reply, until)


# -- attributes --------------------------------------------------------------------------

def test_attributes_set_before_the_constructor_of_the_base(impl, serve):
    """A subclass prepares itself first; nothing of that is lost."""
    class Prepared(impl.StreamServer):
        def __init__(self, address):
            self.greeting = b'hello'
            self.min_delay = 0.5
            self.max_accept = 7
            super().__init__(address)

        def handle(self, sock, address):
            sock.sendall(self.greeting)
    server = serve(Prepared(LOOPBACK))
    assert ask(server, b'') == b'hello'
    assert server.delay == 0.5 and server.max_accept == 7


def test_socket_set_before_the_constructor_of_the_base(impl, serve):
    """With an address for the constructor, the listener is the one already there."""
    class Bound(impl.StreamServer):
        def __init__(self, handle):
            self.socket = listener()
            super().__init__(self.socket.getsockname(), handle)
    server = Bound(echo)
    port = server.socket.getsockname()[1]
    assert not server.closed and server.server_port == port
    assert ask(serve(server)) == b'ping' and server.server_port == port


class CountingPool(Pool):
    """A pool that knows how many greenlets it had at most."""
    most = 0

    def start(self, *args, **kwargs):
        super().start(*args, **kwargs)
        self.most = max(self.most, len(self))


def test_pool_replaced_after_the_constructor(impl, serve):
    """Together with _spawn and full, as set_spawn() would do it."""
    server = impl.StreamServer(LOOPBACK, echo, spawn=5)
    server.pool = CountingPool(2)
    server._spawn, server.full = server.pool.spawn, server.pool.full
    serve(server)
    clients = [connect(server) for _ in range(4)]
    for client in clients:
        client.sendall(b'ping')
    assert [read_all(client) for client in clients] == [b'ping'] * 4
    assert server.pool.most == 2


def test_pool_replaced_without_anything_else(impl, serve):
    """Then it neither limits nor spawns; stop() waits for it."""
    waited = []

    class Joined(Pool):
        def join(self, timeout=None, raise_error=False):
            waited.append(timeout)
            return super().join(timeout, raise_error)
    server = impl.StreamServer(LOOPBACK, reply)
    server.pool = Joined(1)
    serve(server)
    assert [ask(server, b'') for _ in range(3)] == [b'served'] * 3
    server.pool.spawn(gevent.sleep, 0)
    server.stop(timeout=4)
    assert waited == [4] and len(server.pool) == 0


def test_no_delay_at_all(impl, serve, errors):
    """min_delay = max_delay = 0.0 on the instance: retried after a timer of no length."""
    class Flaky(impl.StreamServer):
        def do_read(self):
            if len(errors) < 3:
                raise OSError(24, 'too many')
            return super().do_read()
    server = Flaky(LOOPBACK, reply)
    server.min_delay = server.max_delay = server.delay = 0.0
    assert ask(serve(server), b'') == b'served'
    assert len(errors) == 3 and server.delay == 0.0


def test_free_attributes(impl, serve):
    """Anything may be kept on a server, also under names that look like the server's own."""
    server = impl.StreamServer(LOOPBACK, lambda sock, address: sock.sendall(server.application()))
    server.application = lambda: b'mine'
    server.timer = server.watcher = server.name = server.clients = 0
    assert ask(serve(server), b'') == b'mine'


def test_names_read_through_vars(impl, serve):
    """Monitoring code looks into the instance dictionary."""
    server = impl.StreamServer(LOOPBACK, echo, spawn=3)
    assert set(vars(server)) == {
        '_stop_event', '_watcher', '_timer', '_handle', 'pool', 'family', 'address', '_spawn',
        'full', 'handle', 'delay', 'loop', 'ssl_args'}
    serve(server)
    state = vars(server)
    assert state['pool'].size == 3 and state['handle'] is state['_handle'] is echo
    assert state['address'] == state['socket'].getsockname()
    assert state['_watcher'] is not None and state['_timer'] is None
    assert state['loop'] is get_hub().loop and state['delay'] == 0.01


def test_isinstance(impl):
    """Checks against gevent.baseserver.BaseServer hold for every server."""
    for kind in (impl.StreamServer, impl.DatagramServer, impl.WSGIServer):
        server = kind(LOOPBACK, echo)
        assert isinstance(server, gevent.baseserver.BaseServer)
        assert isinstance(server, impl.BaseServer)
    assert not isinstance(LOOPBACK, gevent.baseserver.BaseServer)


# -- assignments on classes and instances ------------------------------------------------

def test_do_handle_assigned_on_base_server(impl, serve, monkeypatch):
    """A wrapper around the original, for all servers, running ones included."""
    seen, original = [], impl.BaseServer.do_handle

    def do_handle(self, *args):
        seen.append((self, len(args)))
        return original(self, *args)
    server = serve(impl.StreamServer(LOOPBACK, echo))
    monkeypatch.setattr(gevent.baseserver.BaseServer, 'do_handle', do_handle)
    assert ask(server) == b'ping' and seen == [(server, 2)]


def test_do_handle_restated_on_stream_server(impl, serve, monkeypatch):
    """Its body in the program's own words, with the helper taken from gevent.baseserver."""
    seen = []

    def do_handle(self, *args):
        seen.append(args[1])
        spawn, handle, close = self._spawn, self._handle, self.do_close
        helper = gevent.baseserver._handle_and_close_when_done
        try:
            if spawn is None:
                helper(handle, close, args)
            else:
                spawn(helper, handle, close, args)
        except BaseException:
            close(*args)
            raise
    monkeypatch.setattr(impl.StreamServer, 'do_handle', do_handle, raising=False)
    for spawn in ('default', None, 3):
        server = serve(impl.StreamServer(LOOPBACK, reply, spawn=spawn))
        assert ask(server, b'') == b'served'
    assert len(seen) == 3


def test_start_accepting_assigned_on_the_instance(impl, serve):
    """Called by start() in place of the method."""
    calls = []
    server = impl.StreamServer(LOOPBACK, echo)
    original = server.start_accepting

    def start_accepting():
        calls.append(server.socket.fileno())
        original()
    server.start_accepting = start_accepting
    serve(server)
    assert calls == [server.socket.fileno()] and ask(server) == b'ping'
    server.stop_accepting()
    server._start_accepting_if_started()
    assert len(calls) == 2


def test_wrap_socket_and_ssl_args_assigned_on_the_instance(impl, serve):
    """TLS set up after the constructor: taken up by start()."""
    calls = []

    def wrap_socket(sock, **kwargs):
        calls.append(kwargs)
        sock.sendall(b'wrapped ')
        return sock
    server = impl.StreamServer(LOOPBACK, reply)
    server.wrap_socket = wrap_socket
    server.ssl_args = {'server_side': True, 'some': 'option'}
    serve(server)
    assert server.ssl_enabled and server._handle == server.wrap_socket_and_handle
    assert ask(server, b'') == b'wrapped served'
    assert calls == [{'server_side': True, 'some': 'option'}]


def test_max_accept_assigned_after_init_socket(impl, serve):
    """As a worker of several does it: the port is bound, then one accept a wake-up."""
    rounds = []

    class Worker(impl.StreamServer):
        def _do_read(self):
            rounds.append(0)
            super()._do_read()

        def do_read(self):
            rounds[-1] += 1
            return super().do_read()
    server = Worker(LOOPBACK, echo)
    server.init_socket()
    server.max_accept = 1
    port = server.server_port
    assert port and not server.started
    serve(server)
    assert server.server_port == port
    clients = [connect_natively(server) for _ in range(3)]
    until(lambda: len(rounds) == 3)
    assert rounds == [1, 1, 1]
    for client in clients:
        client.close()


# -- overrides ---------------------------------------------------------------------------

def test_set_listener_overridden(impl, serve):
    """A server with a way of its own to say where to listen."""
    class Named(impl.StreamServer):
        def set_listener(self, name):
            super().set_listener({'here': LOOPBACK}[name])
    server = Named('here', echo)
    assert server.address == LOOPBACK
    assert ask(serve(server)) == b'ping'


def test_start_overridden(impl):
    """Something before and after; serve_forever() calls it, too."""
    log = []

    class Started(impl.StreamServer):
        def start(self):
            log.append(('before', self.started, self.closed))
            super().start()
            log.append(('after', self.started, self.closed))
    server = Started(LOOPBACK, echo)
    runner = gevent.spawn(server.serve_forever)
    until(lambda: server.started)
    assert ask(server) == b'ping'
    server.stop()
    runner.get()
    assert log == [('before', False, True), ('after', True, False)]


def test_start_and_stop_accepting_overridden(impl, serve):
    """Called by start(), when full, when a slot is free, and by close()."""
    log = []

    class Noting(impl.StreamServer):
        def start_accepting(self):
            if self._watcher is None:  # a pool calls it once more when it has free slots
                log.append('start')
            super().start_accepting()

        def stop_accepting(self):
            log.append('stop')
            super().stop_accepting()
    gate = gevent.event.Event()
    server = serve(Noting(LOOPBACK, lambda sock, address: gate.wait(), spawn=1))
    client = connect(server)
    until(lambda: server._watcher is None)
    assert log == ['start', 'stop']
    gate.set()
    until(lambda: server._watcher is not None)
    assert log == ['start', 'stop', 'start']
    server.close()
    assert log == ['start', 'stop', 'start', 'stop']
    client.close()


def test_stop_overridden_with_any_signature(impl):
    """stop(*args, **kwargs), called by the program, by serve_forever() and by ``with``."""
    calls = []

    class Stopping(impl.StreamServer):
        def stop(self, *args, **kwargs):
            calls.append((args, kwargs))
            return super().stop(*args, **kwargs)
    server = Stopping(LOOPBACK, echo)
    runner = gevent.spawn(server.serve_forever, stop_timeout=3)
    until(lambda: server.started)
    server.stop(5)
    runner.get()
    with server:
        pass
    assert calls == [((5,), {}), ((), {'timeout': 3}), ((), {})]


def test_stop_with_a_positional_timeout(impl, serve):
    """stop(5) gives handlers in the pool up to five seconds."""
    done = []

    def handle(sock, address):
        gevent.sleep(0.02)
        done.append(address)
    server = serve(impl.StreamServer(LOOPBACK, handle, spawn=Pool()))
    client = connect(server)
    until(lambda: server.pool)
    server.stop(5)
    assert len(done) == 1 and server.closed
    client.close()


def test_close_overridden(impl):
    """Called by stop(), by the constructor that fails, and for a fatal error."""
    log = []

    class Closing(impl.StreamServer):
        def close(self):
            log.append(self.closed)
            super().close()
    server = Closing(LOOPBACK, echo)
    server.start()
    server.stop()
    assert log == [False]
    with pytest.raises(ValueError):
        Closing('127.0.0.1:x', echo)
    assert log == [False, True]


def test_serve_forever_overridden(impl):
    """Wrapped by the program, with arguments of its own."""
    log = []

    class Serving(impl.StreamServer):
        def serve_forever(self, *args, banner=None, **kwargs):
            log.append(banner)
            try:
                super().serve_forever(*args, **kwargs)
            finally:
                log.append('end')
    server = Serving(LOOPBACK, echo)
    runner = gevent.spawn(server.serve_forever, banner='hello')
    until(lambda: server.started)
    assert ask(server) == b'ping'
    server.stop()
    runner.get()
    assert log == ['hello', 'end'] and server.closed


def test_do_read_overridden(impl, serve):
    """What it returns goes to the handler, whatever it adds or leaves out."""
    class Numbered(impl.StreamServer):
        count = 0

        def do_read(self):
            result = super().do_read()
            if result:
                self.count += 1
                return result + (self.count,)

    def handle(sock, address, number):
        sock.sendall(b'%d' % number)
    server = serve(Numbered(LOOPBACK, handle))
    assert [ask(server, b'') for _ in range(3)] == [b'1', b'2', b'3']


def test_accept_loop_overridden(impl, serve):
    """_do_read of the subclass replaces the loop; it restates it in part."""
    class Looping(impl.StreamServer):
        def _do_read(self):
            for _ in range(2):
                if self.full():
                    self.stop_accepting()
                    return
                args = self.do_read()
                if args is None:
                    return
                self.do_handle(*args)
    server = serve(Looping(LOOPBACK, reply))
    assert [ask(server, b'') for _ in range(3)] == [b'served'] * 3


def test_do_handle_overridden_with_one_argument_more(impl, serve):
    """Handler and do_close get what it passes on."""
    class Timed(impl.StreamServer):
        def do_handle(self, *args):
            super().do_handle(*args, 'more')

    def handle(sock, address, more):
        sock.sendall(more.encode())
    for spawn in ('default', None):
        server = serve(Timed(LOOPBACK, handle, spawn=spawn))
        assert ask(server, b'') == b'more'


def test_do_close_that_keeps_the_socket(impl, serve):
    """The connection goes on after the handler, served by something else."""
    kept = []

    class Keeping(impl.StreamServer):
        def do_close(self, sock, *args):
            kept.append(sock)
    server = serve(Keeping(LOOPBACK, reply))
    client = connect(server)
    assert client.recv(6) == b'served'
    until(lambda: kept)
    kept[0].sendall(b' on')
    kept[0].close()
    assert read_all(client) == b' on'


def test_full_overridden(impl, serve):
    """A limit by the program's own count; it starts accepting again itself."""
    class Limited(impl.StreamServer):
        clients, limit = 0, 2

        def full(self):
            return self.clients >= self.limit

        def handle(self, sock, address):
            try:
                echo(sock, address)
            finally:
                self.clients -= 1
                self.start_accepting()

        def do_handle(self, *args):
            self.clients += 1
            super().do_handle(*args)
    server = serve(Limited(LOOPBACK))
    clients = [connect(server) for _ in range(4)]
    until(lambda: server._watcher is None)
    assert server.clients == 2
    for client in clients:
        client.sendall(b'ping')
    assert [read_all(client) for client in clients] == [b'ping'] * 4


def test_is_fatal_error_overridden(impl, serve, errors):
    """A server that survives errors that gevent takes for fatal."""
    class Stubborn(impl.StreamServer):
        def is_fatal_error(self, ex):
            return False

        def do_read(self):
            if not errors:
                raise OSError(9, 'bad descriptor')
            return super().do_read()
    server = serve(Stubborn(LOOPBACK, reply))
    assert ask(server, b'') == b'served'
    assert server.started and [kind for _, kind, _ in errors] == [OSError]


def test_formatinfo_overridden(impl):
    """Part of both repr() and str()."""
    class Named(impl.StreamServer):
        def _formatinfo(self):
            return 'name=x ' + super()._formatinfo()
    server = Named(LOOPBACK, echo)
    info = 'name=x address=127.0.0.1:0 handle=%r' % (echo,)
    assert str(server) == '<Named %s>' % info
    assert repr(server) == '<Named at %#x %s>' % (id(server), info)


def test_read_only_property_named_socket(impl, serve):
    """The listener under another name; the server goes through the property."""
    class Hidden(impl.BaseServer):
        def __init__(self, handle):
            self.listening = listener()
            super().__init__(self.listening.getsockname(), handle)

        @property
        def socket(self):
            return self.listening

        def do_read(self):
            try:
                fd, address = self.listening._sock._accept()
            except BlockingIOError:
                return None
            return socket.socket(fileno=fd), address

        def do_close(self, sock, *args):
            sock.close()
    server = Hidden(echo)
    assert not server.closed
    assert ask(serve(server)) == b'ping'
    server.stop()
    assert server.listening.fileno() == -1 and not server.started and not server.closed


# -- handlers ----------------------------------------------------------------------------

class Callable:
    """A handler with state."""

    def __init__(self):
        self.addresses = []

    def __call__(self, sock, address):
        self.addresses.append(address)
        sock.sendall(b'object')


def test_handler_that_is_a_callable_object(impl, serve):
    """The object itself, unbound, is _handle."""
    handler = Callable()
    server = serve(impl.StreamServer(LOOPBACK, handler))
    assert server._handle is handler
    assert ask(server, b'') == b'object' and len(handler.addresses) == 1


def test_handler_that_is_an_instance_of_a_class_in_c(impl, serve):
    """For instance what functools.lru_cache makes."""
    handler = functools.lru_cache(maxsize=None)(reply)
    server = serve(impl.StreamServer(LOOPBACK, handler))
    assert [ask(server, b'') for _ in range(2)] == [b'served'] * 2
    assert handler.cache_info().misses == 2
    handler.cache_clear()


def test_handler_that_is_a_partial(impl, serve):
    """With arguments before and by keyword."""
    def handle(first, sock, address, last=None):
        sock.sendall(first + last)
    handler = functools.partial(handle, b'first ', last=b'last')
    assert ask(serve(impl.StreamServer(LOOPBACK, handler)), b'') == b'first last'


def test_handler_stops_its_server(impl, errors):
    """From its own greenlet: serve_forever() returns; the handler goes on to its end."""
    def handle(sock, address):
        server.stop()
        reply(sock, address)
    server = impl.StreamServer(LOOPBACK, handle)
    runner = gevent.spawn(server.serve_forever)
    until(lambda: server.started)
    assert ask(server, b'') == b'served'
    runner.get()
    assert server.closed and errors == []


# -- lives -------------------------------------------------------------------------------

def test_close_then_kill_of_the_serve_forever_greenlet(impl, errors):
    """In this order, without letting it run in between."""
    server = impl.StreamServer(LOOPBACK, echo)
    runner = gevent.spawn(server.serve_forever)
    until(lambda: server.started)
    server.close()
    runner.kill()
    assert runner.dead and server.closed and not server.started and errors == []


def test_stop_accepting_then_stop(impl, serve):
    """A graceful end: no new clients, running handlers finish, then the port is closed."""
    gate = gevent.event.Event()

    def handle(sock, address):
        gate.wait()
        reply(sock, address)
    server = serve(impl.StreamServer(LOOPBACK, handle, spawn=Pool()))
    client = connect(server)
    until(lambda: server.pool)
    server.stop_accepting()
    assert server._watcher is None and server.started and not server.closed
    gevent.spawn(gate.set)
    server.stop(timeout=5)
    assert read_all(client) == b'served' and server.closed


def test_serve_forever_greenlet_killed(impl, errors):
    """The server is stopped all the same: the port is free again."""
    server = impl.StreamServer(LOOPBACK, echo)
    runner = gevent.spawn(server.serve_forever)
    until(lambda: server.started)
    address = server.address
    runner.kill()
    assert runner.dead and server.closed and not server.started and errors == []
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address)


def test_server_in_a_second_thread(impl):
    """With a hub of its own: its handlers run there; asked from here, stopped from there."""
    ready, made, seen = threading.Event(), [], []

    def handle(sock, address):
        seen.append(threading.current_thread())
        echo(sock, address)

    def stop_when_asked(server, ask_to_stop):
        while not ask_to_stop:
            gevent.sleep(0.005)
        server.stop()

    def work():
        server = impl.StreamServer(LOOPBACK, handle)
        made.append(server)
        server.start()
        gevent.spawn(stop_when_asked, server, stopping)
        ready.set()
        server.serve_forever()
        made.append(server.loop is get_hub().loop and getcurrent().parent is None)
        get_hub().destroy(destroy_loop=True)
    stopping = []
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    assert ready.wait(30)
    try:
        assert [ask(made[0]) for _ in range(3)] == [b'ping'] * 3
    finally:
        stopping.append(True)
        thread.join(30)
    assert not thread.is_alive()
    assert made[0].closed and made[1:] == [True] and seen == [thread] * 3
    assert made[0].loop is not get_hub().loop


PREFORK = '''
import os, signal, socket, sys
import gevent
from gevent.server import StreamServer
signal.alarm(60)

def handle(sock, address):
    sock.sendall(b'%d' % os.getpid())

class Server(StreamServer):
    def serve_in_child(self):
        self.start_accepting()
        self._stop_event.wait()

server = Server(('127.0.0.1', 0), handle)
if sys.argv[1] == 'init_socket':
    server.init_socket()
    server._stop_event.clear()
else:
    server.start()
    server.stop_accepting()
server.max_accept = 1
children = set()
for _ in range(2):
    pid = gevent.fork()
    if not pid:
        server.serve_in_child()
        os._exit(3)
    children.add(pid)
server.close()
while children:
    with socket.create_connection(server.address, timeout=30) as client:
        pid = int(client.recv(99))
    children.remove(pid)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    print('served')
'''


@pytest.mark.parametrize('prepared_by', ['init_socket', 'start'])
def test_prefork(impl, prepared_by):
    """Listening in the parent, accepting in the children, each of which serves clients."""
    process = subprocess.run(
        python(impl, '-c', PREFORK, prepared_by), env=child_environ(), timeout=90,
        capture_output=True, text=True)
    assert (process.stdout, process.stderr, process.returncode) == ('served\nserved\n', '', 0)


def test_several_servers_at_once(impl, serve):
    """One started after the other, the last one by serve_forever(), stopped together."""
    servers = [serve(impl.StreamServer(LOOPBACK, reply)) for _ in range(3)]
    last = impl.StreamServer(LOOPBACK, reply)
    runner = gevent.spawn(last.serve_forever)
    until(lambda: last.started)
    for server in servers + [last]:
        assert ask(server, b'') == b'served'
        server.stop()
    runner.get()
    assert all(server.closed for server in servers) and last.closed
