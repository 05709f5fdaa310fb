"""The io watchers of accepted sockets: kept when a socket is closed, for the next one with the
same descriptor.

Ours does that on gevent's libev loop in C, while the server is open, with idle watchers
that nobody else refers to. So a kept watcher is an object that exists although its
socket is closed: the tests look for such objects, as the address of a new object may well be
that of an old one.
"""
import contextlib
import errno
import gc
import os
import resource
import select
import socket as native
import sys
import threading
import types

import gevent
import pytest
from gevent import get_hub, hub, socket
from gevent._compat import PURE_PYTHON

from helpers import (
    LOOPBACK, Bench, closes_in_c, connect, echo, is_on, printed, read_all, until)

pytestmark = pytest.mark.fast_path

#: the class of watchers that can be kept, if the loop has it; others are not looked for
IO = None
if type(get_hub().loop).__module__ == 'gevent.libev.corecext' and not PURE_PYTHON:
    from gevent.libev.corecext import io as IO


def keeps(impl):
    """Whether watchers are kept at all, here."""
    if impl.stock or IO is None:
        return False
    from gevent_cbase import _cbase
    return hasattr(_cbase, '_stream_prepare')


def watchers(*fds):
    """The io watchers there are for descriptors."""
    gc.collect()
    return [thing for thing in gc.get_objects()
            if IO is not None and type(thing) is IO and thing.fd in fds]


@contextlib.contextmanager
def lowest(fd):
    """Make *fd*, or the next one that is free, the lowest descriptor that is free."""
    with contextlib.ExitStack() as stack:
        while fd is not None:
            number = os.dup(2)
            if number >= fd:
                os.close(number)
                fd = number
                break
            stack.callback(os.close, number)
        yield fd


class House(Bench):
    """The handlers, too, are run by the test."""

    def __init__(self, cls, **kwargs):
        self.open, self.args = contextlib.ExitStack(), None
        super().__init__(cls, spawn=self.take, **kwargs)
        self.open.callback(self.server.close)

    def take(self, *args):
        self.args = args

    def connect(self):
        return self.open.enter_context(contextlib.closing(
            native.create_connection(self.server.address, timeout=5)))

    def accept(self, at=None):
        """A client and the socket that the handler is to get, *at* that descriptor."""
        client = self.connect()
        with lowest(at):
            self.server._do_read()
        assert self.errors == []
        sock = self.args[3][0]
        self.open.callback(quietly, sock.close)
        return client, sock

    def finish(self):
        """Run the handler, and what closes the socket."""
        (function, handle, close, args), self.args = self.args, None
        function(handle, close, args)

    def visit(self, touch=lambda sock: None, at=None):
        """One connection from beginning to end; the descriptor and addresses of watchers."""
        client, sock = self.accept(at)
        fd, events = sock.fileno(), [id(sock._read_event), id(sock._write_event)]
        touch(sock)
        self.finish()
        client.close()
        return fd, events


def quietly(function):
    with contextlib.suppress(OSError, AttributeError):
        function()


@pytest.fixture
def house(impl):
    """``house()`` makes a House; its server is closed when the test ends."""
    gc.collect()
    with contextlib.ExitStack() as stack:
        def make(cls=None, **kwargs):
            one = House(cls or impl.StreamServer, **kwargs)
            stack.callback(one.open.close)
            return one
        yield make


def expected(impl):
    """How many watchers a closed socket leaves behind."""
    return 2 if keeps(impl) else 0


def is_as_new(watcher):
    """Whether nothing tells a watcher that nobody has used yet from another one."""
    return (watcher.callback is None and not watcher.args and not watcher.active
            and watcher.ref is True and not getattr(watcher, 'pending', False)
            and not getattr(watcher, 'priority', 0))


def loop_of(watcher):
    """The loop of a watcher; those of libuv are parts of one that several share."""
    return getattr(watcher, '_watcher_ref', watcher).loop


def works(client, sock):
    """Talk in both directions, and wait for what comes and for what does not."""
    for _ in range(2):
        waiting = gevent.spawn(sock.recv, 10)
        gevent.sleep(0)
        assert not waiting.ready()
        client.sendall(b'ping')
        assert waiting.get() == b'ping'
        sock.sendall(b'pong')
        assert client.recv(10) == b'pong'
    socket.wait_write(sock.fileno(), timeout=5)
    sock._wait(sock._write_event)
    sock.settimeout(0.005)
    with pytest.raises(TimeoutError):
        sock.recv(1)
    with gevent.Timeout(0.005, False):
        sock.settimeout(None)
        sock.recv(1)
        pytest.fail('nothing was sent')
    killed = gevent.spawn(sock.recv, 1)
    gevent.sleep(0)
    killed.kill()
    client.sendall(b'x')
    assert sock.recv(10) == b'x'


# -- kept and used again ------------------------------------------------------------------

@pytest.mark.fast_path('lookups', 'sockets', 'watchers')
def test_watchers_are_used_again(impl, house):
    """The very objects, each in its role."""
    one = house()
    fd, events = one.visit()
    kept = watchers(fd)
    assert len(kept) == expected(impl)
    if kept:
        assert sorted(map(id, kept)) == sorted(events)
    del kept
    for _ in range(3):
        client, sock = one.accept()
        assert sock.fileno() == fd
        read, write = sock._read_event, sock._write_event
        assert (read.fd, read.events & 3, write.fd, write.events & 3) == (fd, 1, fd, 2)
        assert is_as_new(read) and is_as_new(write)
        if keeps(impl):
            assert [id(read), id(write)] == events
            alone = object()  # a local name counts once, since 3.14 not at all
            assert sys.getrefcount(read) == sys.getrefcount(write) == sys.getrefcount(alone) + 1
        del read, write
        one.finish()
        client.close()


def test_sockets_with_used_watchers_work(impl, house):
    """Waiting, timeouts, and what is cancelled."""
    one = house()
    fd, _ = one.visit()
    client, sock = one.accept()
    assert sock.fileno() == fd
    works(client, sock)
    one.finish()
    assert client.recv(1) == b''
    client.close()
    one.visit()
    client, sock = one.accept()
    works(client, sock)
    one.finish()


@pytest.mark.fast_path('lookups', 'sockets', 'watchers')
def test_collector_leaves_them_alone(thawed, impl, house):
    """They are reachable for nobody, yet alive."""
    one = house()
    fd, events = one.visit()
    for _ in range(3):
        gc.collect()
    client, sock = one.accept()
    if keeps(impl):
        assert [id(sock._read_event), id(sock._write_event)] == events
    works(client, sock)


@pytest.mark.fast_path('lookups', 'sockets', 'watchers')
def test_several_connections_at_a_time(impl, house):
    """Each descriptor has its own."""
    one, open_ = house(), []
    for _ in range(5):
        client, sock = one.accept()
        open_.append((client, sock, one.args))
    fds = [sock.fileno() for _, sock, _ in open_]
    for client, _, args in open_:
        one.args = args
        one.finish()
    assert len(watchers(*fds)) == 5 * expected(impl)
    for client, _, _ in open_:
        client.close()
    del open_[:]
    for _ in range(5):
        client, sock = one.accept()
        assert sock._read_event.fd == sock._write_event.fd == sock.fileno()
        open_.append((client, sock))
    for client, sock in open_:
        works(client, sock)


@pytest.mark.fast_path('lookups', 'sockets', 'watchers')
def test_number_of_watchers_does_not_grow(impl, house):
    """Two for a descriptor."""
    one = house()
    fds = {one.visit()[0] for _ in range(200)}
    assert len(fds) == 1 and len(watchers(*fds)) == expected(impl)


# -- not kept -----------------------------------------------------------------------------

def wait(sock):
    with gevent.Timeout(0.001, False):
        sock.recv(1)


def swap(sock):
    sock._read_event, sock._write_event = sock._write_event, sock._read_event


def renew(sock):
    sock._write_event = sock.hub.loop.io(sock.fileno(), 2)


TOUCHES = {
    'ref of the socket': lambda sock: setattr(sock, 'ref', False),
    'waited': wait,
    'none': lambda sock: setattr(sock, '_read_event', None),
}
if IO is not None:  # the watchers of other loops do not stand all of that
    TOUCHES.update({
        'ref': lambda sock: setattr(sock._read_event, 'ref', False),
        'ref of the other': lambda sock: setattr(sock._write_event, 'ref', False),
        'fd': lambda sock: setattr(sock._read_event, 'fd', 0),
        'events': lambda sock: setattr(sock._write_event, 'events', 3),
        'callback': lambda sock: setattr(sock._read_event, 'callback', list),
        'args': lambda sock: setattr(sock._write_event, 'args', ()),
        'priority': lambda sock: setattr(sock._write_event, 'priority', 1),
        'started': lambda sock: sock._read_event.start(lambda: None),
        'stopped': lambda sock: (sock._write_event.start(list), sock._write_event.stop()),
        'pending': lambda sock: sock._read_event.feed(1, list),
        'swapped': swap,
        'another one': renew,
    })


#: after these the watchers are idle: they serve the next socket
IDLE = ('waited', 'stopped')


@pytest.mark.parametrize('touch', TOUCHES)
def test_watchers_that_were_touched(impl, house, touch):
    """Are gone with their socket unless they are idle; and the next one is not affected."""
    one = house()
    one.visit()
    others = len(watchers(0))
    fd, _ = one.visit(TOUCHES[touch])
    gevent.sleep(0)
    gevent.sleep(0)
    with pytest.raises(OSError):
        os.fstat(fd)
    if IO is not None:
        kept = expected(impl) if touch in IDLE and is_on('watchers') else 0
        assert len(watchers(fd)) == kept
        assert len(watchers(0)) == others
    client, sock = one.accept()
    read, write = sock._read_event, sock._write_event
    assert (read.fd, read.events & 3) == (sock.fileno(), 1) and is_as_new(read)
    assert (write.fd, write.events & 3) == (sock.fileno(), 2) and is_as_new(write)
    works(client, sock)


@pytest.mark.parametrize('name', ['_read_event', '_write_event'])
def test_watcher_that_somebody_else_has(house, name):
    """It stays with its owner: the next socket has others."""
    one, owned = house(), []
    fd, _ = one.visit(lambda sock: owned.append(getattr(sock, name)))
    if IO is not None:
        assert watchers(fd) == owned
    client, sock = one.accept()
    assert sock.fileno() == fd
    assert owned[0] is not sock._read_event and owned[0] is not sock._write_event
    works(client, sock)
    one.finish()
    del owned[:]


@pytest.mark.fast_path('lookups', 'sockets', 'watchers')
@pytest.mark.parametrize('change', ['ref', 'priority'])
def test_changed_and_put_back(impl, house, change):
    """What is as new is as good as new."""
    def touch(sock):
        if hasattr(sock._read_event, change):
            value = getattr(sock._read_event, change)
            setattr(sock._read_event, change, not value)
            setattr(sock._read_event, change, value)
    one = house()
    fd, _ = one.visit(touch)
    assert len(watchers(fd)) == expected(impl)
    works(*one.accept())


def test_missing_watcher(house):
    """Closing raises, as it does for any socket."""
    one = house()
    client, sock = one.accept()
    del sock._read_event
    with pytest.raises(AttributeError):
        one.finish()
    assert sock.closed
    sock._sock.close()


@pytest.mark.fast_path('lookups', 'sockets', 'watchers')
def test_socket_closed_by_its_handler(impl, house):
    """Where that close() runs in C; gevent's own knows of no kept watchers."""
    one = house()
    one.visit()
    fd, _ = one.visit(lambda sock: sock.close())
    assert len(watchers(fd)) == (expected(impl) if closes_in_c(impl) else 0)
    works(*one.accept())


@pytest.mark.fast_path('lookups', 'sockets', 'watchers')
def test_raw_socket_closed_first(impl, house):
    """As pywsgi does: the watchers know the descriptor."""
    one = house()
    one.visit()

    def touch(sock):
        sock._sock.close()
        sock.close()
    fd, _ = one.visit(touch)
    assert len(watchers(fd)) == (expected(impl) if closes_in_c(impl) else 0)
    works(*one.accept())


def test_descriptor_taken_by_another_socket(impl, house):
    """Between the close of the raw socket and that of gevent's: each has its own watchers."""
    one = house()
    _, sock = one.accept()
    client, fd = one.connect(), sock.fileno()
    sock._sock.close()
    with lowest(fd):
        one.server._do_read()
    other = one.args[3][0]
    one.open.callback(quietly, other.close)
    assert other.fileno() == fd
    sock.close()
    assert len(watchers(fd)) == (0 if IO is None else 2)
    assert None not in (other._read_event, other._write_event)
    works(client, other)


def test_socket_closed_after_its_server(house):
    """Nobody would drop the watchers."""
    one = house()
    client, sock = one.accept()
    fd = sock.fileno()
    one.server.close()
    sock.close()
    assert watchers(fd) == []
    works(*house().accept())


def test_socket_detached_by_its_handler(impl, house):
    """The descriptor lives on in another socket, with watchers of its own."""
    one, other = house(), []

    def detach(sock):
        other.append(socket.socket(fileno=sock.detach()))
    client, sock = one.accept()
    detach(sock)
    one.finish()
    fd = other[0].fileno()
    if IO is not None:
        assert len(watchers(fd)) == 2
    with other.pop() as sock:
        works(client, sock)


def test_handler_that_waits_when_the_socket_is_closed(house):
    """It gets the error that gevent gives it; the watchers are not kept."""
    one = house()
    one.visit()
    client, sock = one.accept()
    fd, raised = sock.fileno(), []

    def receive():
        try:
            sock.recv(1)
        except OSError as ex:
            raised.append(ex.args)
    waiting = gevent.spawn(receive)
    gevent.sleep(0)
    one.finish()
    waiting.join()
    assert raised == [(errno.EBADF, 'File descriptor was closed in another greenlet')]
    gevent.sleep(0)
    with pytest.raises(OSError):
        os.fstat(fd)
    assert watchers(fd) == []
    client.close()
    works(*one.accept())


def test_watchers_of_a_greenlet_that_is_about_to_wait(house):
    """It has the watcher already, but has not started it when the socket is closed."""
    one = house()
    client, sock = one.accept()
    watcher = sock._read_event
    one.finish()
    client.close()
    client, sock = one.accept()
    assert sock._read_event is not watcher and watcher.callback is None
    works(client, sock)


# -- servers, loops, threads --------------------------------------------------------------

@pytest.mark.fast_path('lookups', 'sockets', 'watchers')
def test_dropped_when_the_server_closes(impl, house):
    """Whatever way it is closed."""
    for way in ('close', 'stop'):
        one = house()
        fd, _ = one.visit()
        assert len(watchers(fd)) == expected(impl)
        getattr(one.server, way)()
        assert watchers(fd) == []


@pytest.mark.fast_path('lookups', 'sockets', 'watchers')
def test_dropped_when_another_server_closes(impl, house):
    """They cost little to be made again."""
    one, other = house(), house()
    fd, _ = one.visit()
    other.server.close()
    assert watchers(fd) == []
    fd, _ = one.visit()
    assert len(watchers(fd)) == expected(impl)


def test_not_kept_for_a_closed_server(house):
    """A handler that outlives its server."""
    one = house()
    client, sock = one.accept()
    fd = sock.fileno()
    one.server.close()
    one.finish()
    assert watchers(fd) == [] and client.recv(1) == b''


@pytest.mark.fast_path('lookups', 'sockets', 'watchers')
def test_servers_use_each_others(impl, house):
    """What counts is loop and descriptor."""
    one, other = house(), house()
    fd, events = one.visit()
    client, sock = other.accept()
    assert sock.fileno() == fd
    if keeps(impl):
        assert [id(sock._read_event), id(sock._write_event)] == events
    works(client, sock)


@pytest.mark.fast_path('lookups', 'sockets', 'watchers')
def test_not_kept_after_uninstall(impl, house):
    """gevent's class, on which the servers are then, would not drop them."""
    one = house()
    client, sock = one.accept()
    running, fd = one.args, sock.fileno()
    idle_fd, _ = one.visit()
    assert len(watchers(idle_fd)) == expected(impl)
    if not impl.stock:
        import gevent_cbase
        gevent_cbase.uninstall()
    assert watchers(idle_fd) == []
    one.args = running
    one.finish()
    assert watchers(fd) == [] and client.recv(1) == b''


@pytest.mark.fast_path('lookups', 'sockets', 'watchers')
def test_closed_by_something_else_than_a_server(impl, house):
    """do_close, bound to an object that has no attributes: no matter, a server is accepting."""
    one = house()
    one.visit()
    client, sock = one.accept()
    fd = sock.fileno()
    close = types.MethodType(impl.StreamServer.do_close, object())
    done = impl.module._handle_and_close_when_done(lambda *args: 'result', close, (sock, None))
    assert done == 'result' and sock.closed and client.recv(1) == b''
    assert len(watchers(fd)) == expected(impl)


def in_thread(function):
    """Run *function* in a thread with a hub of its own; its result."""
    results = []

    def run():
        try:
            results.append(function())
        finally:
            get_hub().destroy(destroy_loop=True)
    thread = threading.Thread(target=run)
    thread.start()
    thread.join(20)
    return results[0]


@pytest.mark.fast_path('lookups', 'sockets', 'watchers')
def test_threads_with_the_same_descriptor(impl, house):
    """Each has watchers of its own loop, and takes none of the other's."""
    fd = 300

    def serve_twice(one):
        found = []
        for _ in range(2):
            client, sock = one.accept(at=fd)
            assert sock.fileno() == fd
            found += [loop_of(sock._read_event), loop_of(sock._write_event)]
            works(client, sock)
            one.finish()
            client.close()
            assert one.visit(at=fd)[0] == fd  # leaves watchers
        return found

    def in_other_thread():
        other = House(impl.StreamServer)
        found, own = serve_twice(other), [get_hub().loop] * 4
        left = len(watchers(fd))
        assert serve_twice(other) == own
        other.open.close()
        return found == own, left
    one, main = house(), get_hub().loop
    assert serve_twice(one) == [main] * 4
    assert in_thread(in_other_thread) == (True, expected(impl))
    assert serve_twice(one) == [main] * 4
    assert in_thread(in_other_thread) == (True, expected(impl))


def test_loop_of_a_thread_is_freed(impl):
    """Once its server is closed: with the hub, nothing is left of it."""
    kind = type(get_hub().loop)

    def count():
        gc.collect()
        return sum(type(thing) is kind or type(thing) is hub.Hub for thing in gc.get_objects())

    def serve_once():
        one = House(impl.StreamServer)
        one.visit()
        one.visit()
        one.open.close()
    before = count()
    for _ in range(3):
        in_thread(serve_once)
    until(lambda: count() == before)


# -- descriptors, processes ---------------------------------------------------------------

@pytest.mark.fast_path('lookups', 'sockets', 'watchers')
@pytest.mark.parametrize('fd', [100, 1023, 1024, 1500])
def test_high_descriptors(impl, house, fd):
    """From 1024 on no watchers are kept."""
    one = house()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4096), hard))
    try:
        assert one.visit(at=fd)[0] == fd
        assert len(watchers(fd)) == (0 if fd >= 1024 else expected(impl))
        for _ in range(2):
            client, sock = one.accept(at=fd)
            assert sock.fileno() == fd
            works(client, sock)
            one.finish()
            client.close()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_fork(impl, tmp_path):
    """Child and parent both go on with what was kept."""
    assert printed(impl, tmp_path, '''
        import os
        import sys
        from gevent import os as gevent_os, server, socket

        def handle(sock, address):
            if plain:
                sock.sendall(b'hello')
            else:
                sock.sendall(sock.recv(10))

        def ask():
            client = socket.create_connection(one.address)
            if not plain:
                client.sendall(b'ping')
            got = client.recv(10), client.recv(10)
            client.close()
            return got
        one = server.StreamServer(('127.0.0.1', 0), handle)
        one.start()
        plain = True
        print(ask(), ask(), flush=True)
        pid = gevent_os.fork()
        if pid:
            one.stop_accepting()
            print(gevent_os.waitpid(pid, 0)[1])
            one.start_accepting()
        plain = False
        print(ask())
        plain = True
        print(ask(), flush=True)
        if not pid:
            os._exit(0)
        one.stop()
    ''') == ["(b'hello', b'') (b'hello', b'')", "(b'ping', b'')", "(b'hello', b'')", '0',
             "(b'ping', b'')", "(b'hello', b'')"]


# -- the hub decides ----------------------------------------------------------------------

def noting(calls, original):
    def cancel_waits_close_and_then(watchers, error, then, *args):
        calls.append(len(watchers))
        return original(watchers, error, then, *args)
    return cancel_waits_close_and_then


@pytest.mark.fast_path('lookups', 'sockets', 'watchers')
def test_method_set_on_the_hub(impl, house):
    """It is called for every socket, from the moment that it is there."""
    one, calls, own = house(), [], get_hub()
    fd, _ = one.visit()
    own.cancel_waits_close_and_then = noting(calls, own.cancel_waits_close_and_then)
    try:
        one.visit()
        one.visit()
        assert calls == [2, 2] and watchers(fd) == []
    finally:
        del own.cancel_waits_close_and_then
    one.visit()
    assert calls == [2, 2] and len(watchers(fd)) == expected(impl)


@pytest.mark.fast_path('lookups', 'sockets', 'watchers')
def test_method_patched_on_the_hub_class(impl, house, monkeypatch):
    """And put back."""
    one, calls = house(), []
    fd, _ = one.visit()
    original = hub.Hub.cancel_waits_close_and_then
    with monkeypatch.context() as patch:
        patch.setattr(hub.Hub, 'cancel_waits_close_and_then',
                      lambda self, *args: calls.append(self) or original(self, *args))
        one.visit()
        one.visit()
        assert calls == [get_hub()] * 2
        assert len(watchers(fd)) == expected(impl)  # those that were kept before
    one.visit()
    one.visit()
    assert len(calls) == 2 and len(watchers(fd)) == expected(impl)


def test_method_of_a_hub_subclass(impl):
    """In a thread whose hub is of that class."""
    calls = []

    class MyHub(hub.Hub):
        def cancel_waits_close_and_then(self, *args):
            calls.append(self)
            return super().cancel_waits_close_and_then(*args)

    def serve_twice():
        hub.set_hub(MyHub())
        one = House(impl.StreamServer)
        one.visit()
        one.visit()
        one.open.close()
        return get_hub()
    assert calls == [in_thread(serve_twice)] * 2


def test_socket_given_another_hub(house):
    """The socket's own hub is asked."""
    one, calls, own = house(), [], get_hub()
    one.visit()

    def touch(sock):
        sock.hub = types.SimpleNamespace(
            loop=own.loop,
            cancel_waits_close_and_then=noting(calls, own.cancel_waits_close_and_then))
    fd, _ = one.visit(touch)
    assert calls == [2] and watchers(fd) == []


def test_method_patched_on_the_base_of_the_hub_class(impl, house, monkeypatch):
    """Possible where gevent runs as Python code."""
    from gevent._hub_primitives import WaitOperationsGreenlet
    one, calls = house(), []
    one.visit()
    original = WaitOperationsGreenlet.cancel_waits_close_and_then
    with monkeypatch.context() as patch:
        def cancel(self, *args):
            calls.append(self)
            return original(self, *args)
        if PURE_PYTHON:
            patch.setattr(WaitOperationsGreenlet, 'cancel_waits_close_and_then', cancel)
        else:
            with pytest.raises(TypeError, match='immutable'):
                WaitOperationsGreenlet.cancel_waits_close_and_then = cancel
        one.visit()
        one.visit()
    assert calls == [get_hub()] * 2 * PURE_PYTHON


# -- on a real loop -----------------------------------------------------------------------

def test_handlers_of_all_kinds(impl, serve):
    """Those that wait and those that do not take turns on the same descriptors."""
    def handle(sock, address):
        kind = kinds[address[1]]
        if kind == 'silent':
            return
        if kind == 'echo':
            echo(sock, address)
        elif kind == 'impatient':
            sock.settimeout(0.002)
            with contextlib.suppress(TimeoutError):
                sock.recv(1)
            sock.sendall(b'late')
        elif kind == 'cancelled':
            gevent.spawn_later(0.002, sock.close)
            with contextlib.suppress(OSError):
                sock.recv(1)
                pytest.fail('nothing was sent')
        else:
            kept.append(sock._read_event)
            sock.sendall(b'kept')
    answers = {'silent': b'', 'echo': b'ping', 'impatient': b'late', 'cancelled': b'',
               'keeper': b'kept'}
    kinds, kept = {}, []
    server = serve(impl.StreamServer(LOOPBACK, handle))
    order = list(answers)
    for i in range(50):
        kind = order[i * 7 % 5 if i % 3 else i * 3 % 5]
        client = connect(server)
        kinds[client.getsockname()[1]] = kind
        if kind == 'echo':
            gevent.sleep(0.001)
            client.sendall(b'ping')
        assert read_all(client) == answers[kind]
    assert set(kinds.values()) == set(answers)


def test_closed_descriptor_is_not_polled(impl, serve):
    """A kept watcher is not active: nothing fires for whoever has the descriptor next."""
    server = serve(impl.StreamServer(LOOPBACK, lambda sock, address: None))
    for _ in range(5):
        assert read_all(connect(server)) == b''
    reading, writing = os.pipe()
    try:
        os.write(writing, b'x')
        gevent.sleep(0.01)
        assert select.select([reading], [], [], 0)[0] == [reading]
    finally:
        os.close(reading)
        os.close(writing)
    assert read_all(connect(server)) == b''
