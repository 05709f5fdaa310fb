"""Accepting and closing on stream servers: the sockets handlers get, and what becomes of them.

Most tests run the batches themselves (see Connections): the listener and the clients are real, the
loop that the server knows is not. ``frames`` tells which of gevent's Python functions ran; ours
takes their place with native code where nobody could tell, and calls them everywhere else.
"""
import contextlib
import errno
import functools
import gc
import os
import re
import resource
import socket as native
import struct
import sys
import threading
import types
import warnings
import weakref

import _socket
import gevent
import gevent.select
import pytest
from gevent import _socket3, get_hub, server, socket
from gevent._socketcommon import cancel_wait_ex
from gevent.pool import Pool

import helpers
from helpers import (
    FRAMES_OF_CLOSE, LOOPBACK, Bench, FakeLoop, ask, closes_in_c, connect, connect_natively,
    descriptors, descriptors_at_rest, echo, is_open, isolated, read_all, until)

CERTIFICATE = os.path.join(helpers.ROOT, 'examples', 'localhost.crt')
KEY = os.path.join(helpers.ROOT, 'examples', 'localhost.key')

#: the Python functions that a connection takes in gevent
STEPS = {function.__code__: function.__qualname__ for function in (
    server.StreamServer.do_read, server.StreamServer.do_close, server.DatagramServer.do_read,
    socket.socket.__init__, socket.socket._accept, socket.socket.close,
    socket.socket._real_close, socket.socket._detach_socket,
    socket.socket._drop_events_and_close, socket.socket._drop_ref_on_close)}
ACCEPT = ['StreamServer.do_read', 'socket.__init__', 'StreamServer.do_read']
CLOSE = ['StreamServer.do_close', 'socket.close', 'socket._real_close', 'socket._detach_socket',
         'SocketMixin._drop_events_and_close', 'socket._drop_ref_on_close']


#: what a greenlet gets that waits for a socket when another one closes it
CANCELLED = (errno.EBADF, 'File descriptor was closed in another greenlet')

frames = functools.partial(helpers.frames, STEPS)


class Connections(Bench):
    """``taken`` has the arguments of the spawn function."""

    def __init__(self, cls, listener=LOOPBACK, **kwargs):
        self.taken, self.open = [], contextlib.ExitStack()
        super().__init__(cls, listener, spawn=self.take, **kwargs)
        self.open.callback(self.server.stop)

    def take(self, function, handle, close, args):
        self.taken.append((function, handle, close, args))
        self.open.enter_context(contextlib.suppress(OSError))
        self.open.callback(args[0].close)

    def connect(self, source=None):
        """A client of the standard library, bound to *source*."""
        listener = self.server.socket
        client = native.socket(listener.family, listener.type)
        self.open.callback(client.close)
        client.settimeout(5)
        if source is not None:
            client.bind(source)
        client.connect(listener.getsockname())
        return client

    def accept(self, source=None):
        """A client, the socket and the address that the handler is to get, and the frames."""
        client = self.connect(source)
        del self.taken[:]
        seen = frames(self.server._do_read)
        assert self.errors == []
        (_, _, _, (sock, address)), = self.taken
        return client, sock, address, seen

    def finish(self):
        """Run the handler of the last client, then what closes it; the frames."""
        function, handle, close, args = self.taken[-1]
        return frames(function, handle, close, args)


@pytest.fixture
def bench(impl):
    """``bench(…)`` makes Connections for a StreamServer or for the class given as ``cls``."""
    with contextlib.ExitStack() as stack:
        def make(listener=LOOPBACK, cls=None, **kwargs):
            one = Connections(cls or impl.StreamServer, listener, **kwargs)
            stack.callback(one.open.close)
            return one
        yield make


def kind_of_listener(kind, tmp_path, make=socket.socket):
    """A non-blocking listener and its (family, type)."""
    family, type_, address = {
        'ipv4': (native.AF_INET, native.SOCK_STREAM, ('127.0.0.1', 0)),
        'ipv6': (native.AF_INET6, native.SOCK_STREAM, ('::1', 0)),
        'unix': (native.AF_UNIX, native.SOCK_STREAM, str(tmp_path / 'listener')),
        'seqpacket': (native.AF_UNIX, native.SOCK_SEQPACKET, str(tmp_path / 'listener')),
        'abstract': (native.AF_UNIX, native.SOCK_STREAM, '\0gevent_cbase %d' % os.getpid()),
    }[kind]
    sock = make(family, type_)
    sock.bind(address)
    sock.listen(64)
    sock.setblocking(False)
    return sock, family, type_


KINDS = ['ipv4', 'ipv6', 'unix', 'seqpacket', 'abstract']


@pytest.fixture
def default_timeout():
    """Set the default timeout of sockets; put back afterwards."""
    yield native.setdefaulttimeout
    native.setdefaulttimeout(None)


# -- the native steps ---------------------------------------------------------------------

@pytest.mark.fast_path('sockets')
def test_native_steps_are_on(impl):
    """On the gevent that is installed, for ours."""
    if not impl.stock:
        from gevent_cbase._native import sockets
        impl.StreamServer(LOOPBACK, echo).close()
        assert sockets.why_off() is None


@pytest.mark.fast_path('lookups', 'sockets')
@pytest.mark.parametrize('kind', KINDS)
def test_no_python_of_gevent_runs(impl, bench, tmp_path, kind):
    """Neither to accept nor to close."""
    one = bench(kind_of_listener(kind, tmp_path)[0])
    assert one.accept()[3] == (ACCEPT if impl.stock else [])
    assert one.finish() == (CLOSE if impl.stock else [])


@pytest.mark.fast_path('lookups', 'sockets')
def test_own_listener(impl, bench):
    """An address given to the server."""
    one = bench()
    assert type(one.server.socket) is _socket3._wrefsocket
    assert one.accept()[3] == (ACCEPT if impl.stock else [])


@pytest.mark.fast_path('lookups', 'sockets')
def test_plain_listener(impl, bench, tmp_path):
    """The class under those of gevent and of the standard library."""
    one = bench()
    one.server.socket.close()
    one.server.socket = kind_of_listener('ipv4', tmp_path, _socket.socket)[0]
    client, sock, address, seen = one.accept()
    assert type(sock) is socket.socket and address == client.getsockname()
    assert seen == (ACCEPT if impl.stock else [])


@pytest.mark.fast_path('lookups', 'sockets')
@pytest.mark.parametrize('make', [socket.socket, native.socket])
def test_listener_of_the_user(impl, bench, tmp_path, make):
    """Of gevent, which the server unwraps, and of the standard library."""
    one = bench(kind_of_listener('ipv4', tmp_path, make)[0])
    client, sock, address, seen = one.accept()
    assert type(sock) is socket.socket and address == client.getsockname()
    assert seen == (ACCEPT if impl.stock else [])


@pytest.mark.fast_path('lookups', 'sockets')
def test_batch(impl, bench):
    """All clients that wait are taken at once, in their order."""
    one = bench()
    clients = [one.connect() for _ in range(5)]
    seen = frames(one.server._do_read)
    assert [taken[3][1] for taken in one.taken] == [c.getsockname() for c in clients]
    assert seen == (ACCEPT[:2] * 5 + ACCEPT[:1] if impl.stock else [])
    assert one.errors == []


@pytest.mark.parametrize('proto', [0, native.IPPROTO_TCP])
def test_protocol_of_the_listener(bench, proto):
    """Is that of the client's socket."""
    one = bench()
    one.server.socket.close()
    listener = one.server.socket = native.socket(native.AF_INET, native.SOCK_STREAM, proto)
    listener.bind(LOOPBACK)
    listener.listen(1)
    listener.setblocking(False)
    _, sock, _, _ = one.accept()
    assert sock.proto == sock._sock.proto == proto
    one.finish()
    assert closed_proxy(sock)[:3] == (2, 1, proto)


def test_what_the_handler_gets(thawed, bench):
    """A tuple of two, and nobody else refers to the socket."""
    one = bench()
    _, sock, address, _ = one.accept()
    args = one.taken[0][3]
    assert type(args) is tuple and args == (sock, address)
    assert [type(thing) for thing in gc.get_referrers(sock)
            if thing is not args and not isinstance(thing, types.FrameType)] == [
                types.MethodType]  # what this test made to clean up


def test_client_that_is_gone_already(bench):
    """A connection that was reset while it waited is accepted; it fails when it is used."""
    one = bench()
    client = one.connect()
    address = client.getsockname()
    client.setsockopt(native.SOL_SOCKET, native.SO_LINGER, struct.pack('ii', 1, 0))
    client.close()
    one.server._do_read()
    (_, _, _, (sock, got)), = one.taken
    assert got == address and one.errors == []
    with pytest.raises(ConnectionResetError):
        sock.recv(1)
    one.finish()
    assert closed_proxy(sock)[4] == 'closed'


def test_nobody_to_accept(bench):
    """A wake-up for nothing."""
    one = bench()
    one.server.delay = 1
    one.server._do_read()
    assert one.taken == one.errors == [] and one.server.delay == one.server.min_delay


@pytest.mark.fast_path('lookups', 'sockets')
def test_subclass_that_leaves_do_read_alone(impl, bench):
    """Any subclass is served in the same way."""
    class Server(impl.StreamServer):
        def do_handle(self, *args):
            super().do_handle(*args)
    one = bench(cls=Server)
    assert one.accept()[3] == (ACCEPT if impl.stock else [])
    assert one.finish() == (CLOSE if impl.stock else [])


@pytest.mark.fast_path('lookups', 'sockets')
def test_wsgi_server(impl, bench):
    """gevent.pywsgi.WSGIServer leaves both methods alone."""
    one = bench(cls=impl.WSGIServer)
    assert one.accept()[3] == (ACCEPT if impl.stock else [])
    assert type(one.taken[0][3][0]) is socket.socket


def test_wsgi_answer(impl, serve):
    """A request on a real loop."""
    def application(environ, start_response):
        start_response('200 OK', [('Content-Type', 'text/plain')])
        return [environ['REMOTE_ADDR'].encode()]
    one = serve(impl.WSGIServer(LOOPBACK, application, log=None))
    assert ask(one, b'GET / HTTP/1.0\r\n\r\n').endswith(b'\r\n\r\n127.0.0.1')


def tls_contexts():
    """For a server, and for clients that trust it."""
    from gevent import ssl
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE, KEY)
    trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trusting.check_hostname = False
    trusting.load_verify_locations(CERTIFICATE)
    return context, trusting


def test_tls_server(impl, serve):
    """The handler's socket is wrapped: what the server accepted is detached, not closed."""
    from gevent import ssl
    context, trusting = tls_contexts()
    kept = []

    class Server(impl.StreamServer):
        def do_close(self, sock, *args):
            kept.append((type(sock), sock._sock.description))
            super().do_close(sock, *args)

    def handle(sock, address):
        kept.append(type(sock))
        sock.sendall(sock.recv(100).upper())
    one = serve(Server(LOOPBACK, handle, ssl_context=context))
    with trusting.wrap_socket(connect(one)) as client:
        client.sendall(b'hello')
        assert client.recv(100) == b'HELLO'
    until(lambda: len(kept) == 2)
    assert kept == [ssl.SSLSocket, (socket.socket, 'detached')]


@pytest.mark.stock_bug
@pytest.mark.parametrize('spawn', ['default', 'raw', 'pool'])
def test_tls_handshake_while_the_server_closes(impl, serve, errors, spawn):
    """The client gets the handler that it was accepted with. gevent looks for the handler when the
    handshake is over, and loses the client: AttributeError.
    """
    context, trusting = tls_contexts()
    shown = []

    def handle(sock, address):
        shown.append(repr(gevent.getcurrent()))
        sock.sendall(sock.recv(100).upper())
    how = {'default': 'default', 'raw': gevent.spawn_raw, 'pool': Pool(2)}[spawn]
    one = serve(impl.StreamServer(LOOPBACK, handle, spawn=how, ssl_context=context))
    client = connect(one)
    gevent.sleep(0.01)  # accepted: the server waits for the client to speak
    one.close()
    try:
        with trusting.wrap_socket(client) as client:
            client.sendall(b'hello')
            answer = client.recv(100)
    except OSError:
        answer = b''
    assert answer == (b'' if impl.stock else b'HELLO') and not hasattr(one, 'handle')
    if impl.stock:
        until(lambda: errors)
        assert [kind for _, kind, _ in errors] == [AttributeError]
        return
    assert errors == []
    if spawn != 'raw':
        assert ('_handle_and_close_when_done(<bound method StreamServer.wrap_socket_and_handle , '
                in shown[0])


def test_tls_handler_replaced_during_the_handshake(impl, serve):
    """The one that the server has when the handshake is over is called."""
    context, trusting = tls_contexts()
    one = serve(impl.StreamServer(
        LOOPBACK, lambda sock, address: sock.sendall(b'former'), ssl_context=context))
    client = connect(one)
    gevent.sleep(0.01)  # accepted: the server waits for the client to speak
    one.set_handle(lambda sock, address: sock.sendall(b'latter'))
    with trusting.wrap_socket(client) as client:
        assert client.recv(100) == b'latter'


def test_tls_server_whose_method_is_another(impl, serve):
    """An override is called as it is, whatever its name."""
    class Server(impl.StreamServer):
        def wrap_socket_and_handle(self, client_socket, address):
            seen.append(self.handle)
            client_socket.sendall(b'bye')
    seen = []
    one = serve(Server(LOOPBACK, len, ssl_args_are='not looked at'))
    assert ask(one, b'') == b'bye' and seen == [len]


def test_tls_server_whose_class_has_the_handler(impl, serve):
    """It is called as a method, also after close()."""
    context, trusting = tls_contexts()

    class Server(impl.StreamServer):
        def handle(self, sock, address):
            sock.sendall(b'%d' % (self is one))
    one = serve(Server(LOOPBACK, ssl_context=context))
    client = connect(one)
    gevent.sleep(0.01)
    one.close()
    with trusting.wrap_socket(client) as client:
        assert client.recv(100) == b'1'


@pytest.mark.fast_path('lookups', 'sockets')
def test_tls_server_accepts_natively(impl, bench):
    """The wrapping is in the handler."""
    from gevent import ssl
    one = bench(ssl_context=ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
    assert one.accept()[3] == (ACCEPT if impl.stock else [])


def test_datagram_server(impl, serve):
    """Not concerned: it has no connections."""
    got = []
    one = serve(impl.DatagramServer(LOOPBACK, lambda *args: got.append(args)))
    with contextlib.closing(native.socket(type=native.SOCK_DGRAM)) as client:
        client.bind(LOOPBACK)
        client.sendto(b'hello', one.address)
        until(lambda: got)
        assert got == [(b'hello', client.getsockname())]


# -- the socket ---------------------------------------------------------------------------

def plain(text, sock):
    """A repr without addresses of objects and without its descriptor."""
    return re.sub('0x[0-9a-f]+', '0x', text).replace('fd=%d' % sock.fileno(), 'fd=N')


def anatomy(sock):
    """All that can be seen of a gevent socket, without what is bound to differ."""
    raw, seen = sock._sock, {}
    for name in ('_read_event', '_write_event'):
        watcher = getattr(sock, name)
        seen[name] = (
            type(watcher), watcher.fd == sock.fileno(), watcher.events, watcher.callback,
            watcher.active, watcher.args, watcher.ref, getattr(watcher, 'priority', None),
            getattr(watcher, 'pending', None), plain(repr(watcher), sock))
    seen['classes'] = type(sock), type(raw)
    seen['values'] = [
        (type(value), value) for value in (
            sock.family, sock.type, sock.proto, sock.timeout, sock._io_refs, sock._closed,
            sock.closed, raw.family, raw.type, raw.proto, raw.timeout, sock.gettimeout(),
            raw.gettimeout(), sock.getblocking(), raw.getblocking(), sock.ref)]
    seen['hub'] = sock.hub
    seen['collected'] = gc.is_tracked(sock), gc.is_tracked(raw)
    seen['references'] = [sorted(type(thing).__name__ for thing in gc.get_referents(thing_of))
                          for thing_of in (sock, raw)]
    seen['counts'] = sys.getrefcount(raw), sys.getrefcount(sock._read_event)
    seen['weak'] = weakref.getweakrefcount(sock), weakref.getweakrefcount(raw)
    seen['flags'] = os.get_inheritable(sock.fileno()), os.get_blocking(sock.fileno())
    return seen


@pytest.mark.parametrize('timeout', [None, 2.5, 0.0, 1e-9, 1e9])
@pytest.mark.parametrize('kind', KINDS)
def test_socket_is_as_gevent_makes_it(bench, default_timeout, tmp_path, kind, timeout):
    """Slot by slot like what the constructor of gevent makes of the same descriptor."""
    listener, family, type_ = kind_of_listener(kind, tmp_path)
    one = bench(listener)
    default_timeout(timeout)
    _, sock, _, _ = one.accept()
    seen = anatomy(sock)  # before the twin makes what they share non-blocking
    twin = socket.socket(family, type_, listener.proto, fileno=os.dup(sock.fileno()))
    one.open.callback(twin.close)
    assert seen == anatomy(twin)
    assert plain(repr(sock), sock) == plain(repr(twin), twin)


@pytest.mark.parametrize('timeout', [None, 2.5, 0.0])
@pytest.mark.parametrize('kind', KINDS)
def test_values_of_the_socket(bench, default_timeout, tmp_path, kind, timeout):
    """The same, told in literals."""
    listener, family, type_ = kind_of_listener(kind, tmp_path)
    one = bench(listener)
    default_timeout(timeout)
    client, sock, _, _ = one.accept()
    assert type(sock) is socket.socket and type(sock._sock) is _socket3._wrefsocket
    assert sock.hub is get_hub()
    assert (sock.family, sock.type, sock.proto) == (family, type_, 0)
    assert type(sock.family) is native.AddressFamily and type(sock.type) is int
    assert sock.timeout == timeout and type(sock.timeout) is type(timeout)
    assert sock.gettimeout() == timeout and sock.getblocking() is (timeout != 0)
    assert sock._sock.gettimeout() == 0.0 and sock._sock.getblocking() is False
    assert sock._io_refs == 0 and sock._closed is False and sock.closed is False
    assert os.get_inheritable(sock.fileno()) is False and os.get_blocking(sock.fileno()) is False
    assert sock.getsockname() == listener.getsockname()
    for watcher, events in ((sock._read_event, 1), (sock._write_event, 2)):
        assert watcher.fd == sock.fileno() and watcher.events & 3 == events
        assert watcher.callback is None and watcher.active is False
    assert not hasattr(sock, '__dict__')
    assert weakref.ref(sock)() is sock and weakref.ref(sock._sock)() is sock._sock
    with pytest.raises(AttributeError):
        sock.no_such_attribute


def test_both_ends_talk(impl, serve):
    """Blocking operations in a handler."""
    def handle(sock, address):
        data = bytearray(5)
        assert sock.recv_into(data) == 5
        with sock.makefile('rwb') as file:
            file.write(data + file.readline())
        sock.sendall(b'x' * 5000000)
        sock.shutdown(socket.SHUT_WR)
    one = serve(impl.StreamServer(LOOPBACK, handle))
    client = connect(one)
    client.sendall(b'first')
    gevent.sleep(0.01)
    client.sendall(b' line\n')
    assert read_all(client) == b'first line\n' + b'x' * 5000000


def test_default_timeout_holds_in_the_handler(impl, serve, default_timeout):
    """A recv that nobody answers ends by itself."""
    seen = []

    def handle(sock, address):
        try:
            sock.recv(1)
        except OSError as ex:
            seen.append(type(ex))
    one = serve(impl.StreamServer(LOOPBACK, handle))
    default_timeout(0.01)
    with contextlib.closing(connect(one)):
        until(lambda: seen)
    assert seen == [TimeoutError]


def test_socket_of_another_hub(impl, tmp_path):
    """In a thread with a hub of its own, its sockets belong to that hub."""
    assert isolated(impl, tmp_path, '''
        import threading
        from gevent import get_hub, server, socket
        main = get_hub()

        def run():
            hubs = []

            def handle(sock, address):
                hubs.append(sock.hub)
                sock.sendall(b'hello')
            one = server.StreamServer(('127.0.0.1', 0), handle)
            one.start()
            client = socket.create_connection(one.address)
            print(client.recv(10), hubs[0] is get_hub(), hubs[0] is main)
            client.close()
            one.stop()
            get_hub().destroy()
        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
    ''') == ["b'hello' True False"]


# -- the address --------------------------------------------------------------------------

def test_ipv4_address(bench):
    """Every value of every byte that a loopback address can have."""
    one = bench()
    for i in range(256):
        host = '127.%d.%d.%d' % (i, i * 7 % 256, 255 - i)
        client, sock, address, _ = one.accept((host, 0))
        assert address == (host, client.getsockname()[1]) and type(address) is tuple
        assert [type(part) for part in address] == [str, int]
        assert address == sock.getpeername()
        sock.close()
        client.close()


@pytest.mark.parametrize('host', ['127.0.0.1', '127.9.10.99', '127.100.109.199', '127.200.255.1'])
def test_ipv4_address_in_literals(bench, host):
    """One, two and three digits a byte; the text is an ASCII string."""
    _, _, (got, port), _ = bench().accept((host, 0))
    assert got == host and got.isascii() and hash(got) == hash(host) and 0 < port < 65536


def test_ipv6_address(bench, tmp_path):
    """Four parts: host, port, flow, scope."""
    client, _, address, _ = bench(kind_of_listener('ipv6', tmp_path)[0]).accept()
    assert address == ('::1', client.getsockname()[1], 0, 0)
    assert [type(part) for part in address] == [str, int, int, int]


def test_ipv4_client_of_an_ipv6_listener(bench):
    """Mapped."""
    listener = socket.socket(socket.AF_INET6)
    listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    listener.bind(('::', 0))
    listener.listen(1)
    listener.setblocking(False)
    one = bench(listener)
    with contextlib.closing(native.create_connection(
            ('127.0.0.1', listener.getsockname()[1]))) as client:
        one.server._do_read()
        (_, _, _, (_, address)), = one.taken
        assert address == ('::ffff:127.0.0.1', client.getsockname()[1], 0, 0)


@pytest.mark.parametrize('kind', ['unix', 'abstract', 'seqpacket'])
def test_unnamed_unix_client(bench, tmp_path, kind):
    """An empty string."""
    address = bench(kind_of_listener(kind, tmp_path)[0]).accept()[2]
    assert address == '' and type(address) is str


@pytest.mark.parametrize('name', ['client', 'caf\xe9', 'x\udcff\udc80'])
def test_unix_client_with_a_path(bench, tmp_path, name):
    """Decoded like a file name."""
    path = str(tmp_path / name)
    address = bench(kind_of_listener('unix', tmp_path)[0]).accept(path)[2]
    assert address == path and type(address) is str


def test_unix_client_with_the_longest_path(bench, tmp_path, monkeypatch):
    """All the 107 bytes there are."""
    monkeypatch.chdir(tmp_path)
    os.mkdir('d' * 50)
    path = 'd' * 50 + '/' + 'c' * 56
    assert bench(kind_of_listener('unix', tmp_path)[0]).accept(path)[2] == path


@pytest.mark.parametrize('name', [b'name', b'x', b'a\0b\0', b'\0', b'\xff\xfe', b'y' * 90])
def test_abstract_unix_client(bench, tmp_path, name):
    """Bytes, zeros included."""
    name = b'\0%d.' % os.getpid() + name
    address = bench(kind_of_listener('abstract', tmp_path)[0]).accept(name)[2]
    assert address == name and type(address) is bytes


def test_longest_abstract_unix_client(bench, tmp_path):
    """108 bytes, with no zero at the end."""
    name = (b'\0%d.' % os.getpid()).ljust(108, b'z')
    assert bench(kind_of_listener('unix', tmp_path)[0]).accept(name)[2] == name


def test_autobound_unix_client(bench, tmp_path):
    """The kernel chooses five hexadecimal digits."""
    address = bench(kind_of_listener('unix', tmp_path)[0]).accept('')[2]
    assert re.fullmatch(b'\0[0-9a-f]{5}', address)


# -- stepping aside -----------------------------------------------------------------------

@pytest.mark.parametrize('where', ['instance', 'class', 'subclass', 'bound'])
def test_do_read_overridden(impl, bench, where):
    """The override is called, each time."""
    calls = []

    class Server(impl.StreamServer):
        pass

    def do_read(self):
        calls.append(self)
        return impl.StreamServer.do_read(self)
    if where == 'subclass':
        Server = type('Sub', (Server,), {'do_read': do_read})
    one = bench(cls=Server)
    if where == 'instance':
        one.server.do_read = lambda: do_read(one.server)
    elif where == 'bound':
        one.server.do_read = types.MethodType(do_read, one.server)
    elif where == 'class':
        Server.do_read = do_read
    _, sock, _, seen = one.accept()
    assert calls == [one.server] * 2 and seen == ACCEPT
    assert type(sock) is socket.socket


@pytest.mark.fast_path('lookups', 'sockets')
def test_do_read_patched_on_gevents_class(impl, bench, monkeypatch):
    """While a server runs; and put back."""
    one, calls = bench(), []
    original = impl.StreamServer.do_read
    one.accept()
    with monkeypatch.context() as patch:
        patch.setattr(impl.StreamServer, 'do_read', lambda self: calls.append(original(self)))
        one.connect()
        one.server._do_read()
        assert len(calls) == 1 and len(one.taken) == 1
        calls[0][0].close()
    assert one.accept()[3] == (ACCEPT if impl.stock else [])


def test_code_of_do_read_replaced(impl, bench):
    """As debuggers and line profilers do it."""
    def do_read(self):
        fd, address = self.socket._accept()
        return GeventSocket(fileno=fd), (address, 'patched')  # noqa: F821 (of gevent.server)
    one, function = bench(), impl.StreamServer.do_read
    one.server.max_accept = 1
    one.accept()
    code = function.__code__
    function.__code__ = do_read.__code__
    try:
        client, sock, address, _ = one.accept()
    finally:
        function.__code__ = code
    assert address == (client.getsockname(), 'patched')
    assert one.accept()[2] != (client.getsockname(), 'patched')


@pytest.mark.fast_path('lookups', 'sockets')
def test_socket_class_replaced_in_the_server_module(impl, bench, monkeypatch):
    """gevent.server.GeventSocket is what makes the sockets."""
    class Special(socket.socket):
        pass
    one = bench()
    with monkeypatch.context() as patch:
        patch.setattr(server, 'GeventSocket', Special)
        _, sock, _, seen = one.accept()
        assert type(sock) is Special and seen == ACCEPT
        assert one.finish() == CLOSE
        assert sock._sock.description == 'closed'
    _, sock, _, seen = one.accept()
    assert type(sock) is socket.socket and seen == (ACCEPT if impl.stock else [])


def test_socket_class_missing_in_the_server_module(bench, monkeypatch):
    """A NameError, reported; the client that was accepted has no owner yet."""
    one = bench()
    one.connect()
    before = set(os.listdir('/proc/self/fd'))
    monkeypatch.delattr(server, 'GeventSocket')
    one.server._do_read()
    (context, kind, value), = one.errors
    assert context is one.server and kind is NameError and one.taken == []
    for name in set(os.listdir('/proc/self/fd')) - before:
        with contextlib.suppress(OSError):
            os.close(int(name))


@pytest.mark.parametrize('timeout', [5.0, None])
def test_listener_that_blocks(bench, timeout):
    """Its own code decides what that means; what it accepts is not blocking all the same."""
    one = bench()
    one.server.max_accept = 1
    one.server.socket.settimeout(timeout)
    client, sock, address, seen = one.accept()
    assert seen == ACCEPT[:2] and address == client.getsockname()
    assert sock.timeout is None and os.get_blocking(sock.fileno()) is False


def test_listener_whose_time_is_up(bench):
    """A TimeoutError of accepting."""
    one = bench()
    one.server.socket.settimeout(0.001)
    one.server._do_read()
    (context, kind, value), = one.errors
    assert context is one.server and kind is TimeoutError and str(value) == 'timed out'


@pytest.mark.parametrize('base', [_socket3._wrefsocket, native.socket, _socket.socket])
def test_listener_of_a_subclass(bench, tmp_path, base):
    """Its _accept is called."""
    calls = []

    class Listener(base):
        def _accept(self):
            calls.append(self)
            return super()._accept()
    one = bench()
    one.server.socket.close()
    listener = one.server.socket = kind_of_listener('ipv4', tmp_path, Listener)[0]
    client, sock, address, seen = one.accept()
    assert calls == [listener] * 2 and seen == ACCEPT
    assert type(sock) is socket.socket and address == client.getsockname()


def test_listener_that_is_no_socket(bench, tmp_path):
    """Anything with the methods of one."""
    class Listener:
        timeout = 0

        def __init__(self, sock):
            self.real = sock

        def __getattr__(self, name):
            if name == '_sock':
                raise AttributeError(name)
            return getattr(self.real, name)

        def accept(self):
            raise NotImplementedError
    real = kind_of_listener('ipv4', tmp_path, native.socket)[0]
    client, sock, address, seen = bench(Listener(real)).accept()
    assert address == client.getsockname() and seen == ACCEPT


def test_listener_replaced_during_a_batch(impl, bench, tmp_path):
    """The next client is accepted from the new one."""
    one = bench()
    old = one.server.socket
    other = kind_of_listener('unix', tmp_path, native.socket)[0]
    one.open.callback(old.close)
    one.connect()
    with contextlib.closing(native.socket(native.AF_UNIX)) as client:
        client.connect(other.getsockname())
        take = one.server._spawn

        def spawn(*args):
            take(*args)
            one.server.socket = other
        one.server._spawn = spawn
        one.server._do_read()
    assert [taken[3][0].family for taken in one.taken] == [native.AF_INET, native.AF_UNIX]
    assert one.errors == []


def test_listener_replaced_by_a_property(impl, tmp_path):
    """A class that computes its listener."""
    real = kind_of_listener('ipv4', tmp_path, native.socket)[0]

    class Server(impl.StreamServer):
        @property
        def socket(self):
            return real

        @socket.setter
        def socket(self, value):
            pass

        @socket.deleter
        def socket(self):
            pass
    one = Connections(Server, real)
    with one.open:
        client, sock, address, seen = one.accept()
        assert seen == ACCEPT and address == client.getsockname()
    real.close()


@pytest.mark.parametrize('how', ['close', 'detach', 'os.close'])
def test_listener_closed_behind_the_back(impl, bench, capsys, how):
    """EBADF is fatal: reported, and the server is closed."""
    one = bench()
    listener = one.server.socket
    fd = listener.fileno()
    if how == 'close':
        listener.close()
    elif how == 'detach':
        listener.detach()
        os.close(fd)
    else:
        os.close(fd)
    one.server._do_read()
    (context, kind, value), = one.errors
    assert context is one.server and kind is OSError
    assert value.args == (errno.EBADF, 'Bad file descriptor')
    assert value.filename is None and value.errno == errno.EBADF
    assert one.server.closed and not one.server.started and one.taken == []
    assert capsys.readouterr().err.endswith('failed with [Errno 9] Bad file descriptor\n')


def test_listener_that_does_not_listen(bench):
    """EINVAL is reported."""
    one = bench()
    one.server.socket.close()
    one.server.socket = native.socket()
    one.server.socket.setblocking(False)
    one.server._do_read()
    (context, kind, value), = one.errors
    assert context is one.server and value.args == (errno.EINVAL, 'Invalid argument')


@pytest.mark.fast_path('sockets')
def test_do_close_patched_on_gevents_class(impl, bench, monkeypatch):
    """Takes effect for the next connection."""
    one, kept = bench(), []
    one.accept()
    with monkeypatch.context() as patch:
        patch.setattr(impl.StreamServer, 'do_close', lambda self, *args: kept.append(args))
        _, sock, address, _ = one.accept()
        assert one.finish() == [] and kept == [(sock, address)] and not sock.closed
    _, sock, _, _ = one.accept()
    assert one.finish() == (CLOSE if impl.stock else []) and sock.closed


def test_code_of_do_close_replaced(impl, bench):
    """Also for connections that have been accepted before."""
    def do_close(self, sock, *args):
        sock.sendall(b'patched')
        sock.close()
    one, function = bench(), impl.StreamServer.do_close
    client, sock, _, _ = one.accept()
    code = function.__code__
    function.__code__ = do_close.__code__
    try:
        one.finish()
    finally:
        function.__code__ = code
    assert read_all(client) == b'patched' and closed_proxy(sock)[4] == 'closed'


PATCHED = '''
    import sys
    from gevent import server, socket, _socket3, _socketcommon
    import socket as native

    seen = []
    ours = server.BaseServer.__module__ != 'gevent.baseserver'
    one = server.StreamServer(('127.0.0.1', 0), lambda *args: None, spawn=None)
    one.init_socket()

    def connection():
        client = native.create_connection(one.address)
        one._do_read()
        client.recv(1)
        client.close()
    connection()
    assert not seen
    owner, name = {
        'socket.__init__': (socket.socket, '__init__'),
        'socket.close': (socket.socket, 'close'),
        'socket._real_close': (socket.socket, '_real_close'),
        'socket._detach_socket': (socket.socket, '_detach_socket'),
        'socket._drop_ref_on_close': (socket.socket, '_drop_ref_on_close'),
        'SocketMixin._drop_events_and_close':
            (_socketcommon.SocketMixin, '_drop_events_and_close'),
        'SocketMixin.__init__': (_socketcommon.SocketMixin, '__init__'),
        '_closedsocket.__init__': (_socket3._closedsocket, '__init__'),
    }[sys.argv[1]]
    original = getattr(owner, name)
'''


PATCHABLE = [
    'socket.__init__', 'socket.close', 'socket._real_close', 'socket._detach_socket',
    'socket._drop_ref_on_close', 'SocketMixin._drop_events_and_close', 'SocketMixin.__init__',
    '_closedsocket.__init__']


@pytest.mark.parametrize('name', PATCHABLE)
def test_gevents_socket_patched(impl, tmp_path, name):
    """Whatever is put on gevent's classes, at any time, is called."""
    assert isolated(impl, tmp_path, PATCHED + '''
    def patched(self, *args, **kwargs):
        seen.append(name)
        return original(self, *args, **kwargs)
    setattr(owner, name, patched)
    connection()
    connection()
    setattr(owner, name, original)
    connection()
    one.close()
    print(seen == [name] * 2)
''', name) == ['True']


@pytest.mark.parametrize('name', PATCHABLE)
def test_code_of_gevents_socket_replaced(impl, tmp_path, name):
    """As debuggers and line profilers do it."""
    assert isolated(impl, tmp_path, PATCHED + '''
    import types
    code = original.__code__
    copy = types.FunctionType(
        code, original.__globals__, name, original.__defaults__, original.__closure__)

    def make(__class__):
        def patched(self, *args, **kwargs):
            __class__
            import sys
            main = sys.modules['__main__']
            main.seen.append(main.name)
            return main.copy(self, *args, **kwargs)

        def no_closure(self, *args, **kwargs):
            import sys
            main = sys.modules['__main__']
            main.seen.append(main.name)
            return main.copy(self, *args, **kwargs)
        return patched if code.co_freevars else no_closure
    original.__code__ = make(owner).__code__
    connection()
    original.__code__ = code
    connection()
    one.close()
    print(seen == [name])
''', name) == ['True']


@pytest.mark.parametrize('name', ['__setattr__', '__new__', '_sock', 'timeout', 'hub'])
def test_gevents_socket_given_more(impl, tmp_path, name):
    """Methods and properties that take part in making a socket."""
    assert isolated(impl, tmp_path, '''
        import sys
        import socket as native
        from gevent import server, socket
        name, seen = sys.argv[1], []
        one = server.StreamServer(('127.0.0.1', 0), lambda *args: None, spawn=None)
        one.init_socket()
        cls = socket.socket
        if name == '__setattr__':
            def patched(self, key, value):
                seen.append(key)
                super(cls, self).__setattr__(key, value)
        elif name == '__new__':
            def patched(cls, *args, **kwargs):
                seen.append(cls)
                return object.__new__(cls)
        else:
            slot = getattr(cls, name)
            def store(self, value):
                seen.append(value)
                slot.__set__(self, value)
            patched = property(slot.__get__, store)
        setattr(cls, name, patched)
        client = native.create_connection(one.address)
        one._do_read()
        print(client.recv(1))
        one.close()
        client.close()
        print(bool(seen))
    ''', name) == ["b''", 'True']


# -- closing ------------------------------------------------------------------------------

def closed_proxy(sock):
    """The values of what is in place of the raw socket."""
    proxy = sock._sock
    assert type(proxy) is _socket3._closedsocket and not proxy and proxy.fileno() == -1
    values = proxy.family, proxy.type, proxy.proto, proxy.orig_fileno, proxy.description
    assert [type(value) for value in values] == [int, int, int, int, str]
    return values


@pytest.mark.parametrize('kind', KINDS)
def test_closed_socket(bench, tmp_path, kind):
    """All that is left of a socket when its handler is done."""
    listener, family, type_ = kind_of_listener(kind, tmp_path)
    one = bench(listener)
    client, sock, _, _ = one.accept()
    fd, raw, watchers = sock.fileno(), sock._sock, (sock._read_event, sock._write_event)
    one.finish()
    assert sock._closed is True and sock.closed is True and sock._io_refs == 0
    assert sock._read_event is None and sock._write_event is None
    assert sock.hub is get_hub() and sock.timeout is None
    assert closed_proxy(sock) == (family, type_, 0, fd, 'closed')
    assert (sock.family, sock.type, sock.proto, sock.fileno()) == (family, type_, 0, -1)
    assert repr(sock).startswith('<gevent._socket3.socket [closed] at 0x')
    assert repr(sock).endswith('[closed proxy at 0x%x fd=%d closed]>' % (id(sock._sock), fd))
    assert raw.fileno() == -1 and not is_open(fd)
    assert client.recv(1) == b''
    for watcher in watchers:
        assert not watcher.active and watcher.callback is None
    alone = object()  # a local name counts once, since 3.14 not at all
    assert sys.getrefcount(raw) == sys.getrefcount(alone)
    for call in (lambda: sock.recv(1), lambda: sock.send(b''), sock.getsockname):
        with pytest.raises(OSError) as info:
            call()
        assert info.value.args == (errno.EBADF, 'Bad file descriptor')
    sock.close()
    sock.close()
    assert closed_proxy(sock) == (family, type_, 0, fd, 'closed')


def test_closed_again(bench):
    """do_close for a socket that has been closed does nothing."""
    one = bench()
    _, sock, _, _ = one.accept()
    fd = sock.fileno()
    one.finish()
    other = os.dup(0)  # most likely that number again
    proxy = sock._sock
    one.finish()
    assert sock._sock is proxy and closed_proxy(sock)[3] == fd and is_open(other)
    os.close(other)


@pytest.mark.parametrize('timeout', [None, 2.5, 0.0])
def test_timeout_of_a_closed_socket(bench, timeout):
    """Stays what the handler set."""
    one = bench()
    _, sock, _, _ = one.accept()
    sock.settimeout(timeout)
    one.finish()
    assert sock.timeout == timeout and sock.type == native.SOCK_STREAM


@pytest.mark.fast_path('sockets')
def test_open_file(impl, bench):
    """A file made from the socket keeps the connection until it is closed."""
    one = bench()
    client, sock, _, _ = one.accept()
    fd, file = sock.fileno(), sock.makefile('wb')
    assert one.finish() == (CLOSE[:2] if impl.stock else [])
    assert sock._closed is True and sock._io_refs == 1 and is_open(fd)
    assert type(sock._sock) is _socket3._wrefsocket and sock._read_event is not None
    file.write(b'still there')
    file.flush()
    assert client.recv(100) == b'still there'
    file.close()
    assert sock._io_refs == 0 and not is_open(fd)
    assert closed_proxy(sock)[4] == 'closed'
    assert client.recv(1) == b''


@pytest.mark.fast_path('sockets')
def test_closed_file(impl, bench):
    """A file that the handler has closed is no obstacle."""
    one = bench()
    client, sock, _, _ = one.accept()
    with sock.makefile('rwb') as file, sock.makefile('r'):
        file.write(b'hello')
    assert one.finish() == (CLOSE if impl.stock else [])
    assert read_all(client) == b'hello'


def test_handler_closed_the_socket(bench):
    """Nothing is left to do."""
    one = bench()
    client, sock, _, _ = one.accept()
    fd = sock.fileno()
    sock.close()
    other = os.dup(0)
    one.finish()
    assert is_open(other) and closed_proxy(sock)[3:] == (fd, 'closed')
    os.close(other)
    assert client.recv(1) == b''


def test_handler_detached_the_socket(bench):
    """The descriptor is the handler's."""
    one = bench()
    client, sock, _, _ = one.accept()
    fd = sock.detach()
    one.finish()
    assert is_open(fd) and closed_proxy(sock) == (2, 1, 0, fd, 'detached')
    os.write(fd, b'mine')
    os.close(fd)
    assert read_all(client) == b'mine'


def test_handler_duplicated_the_socket(bench):
    """The connection lives on in the duplicate."""
    one = bench()
    client, sock, _, _ = one.accept()
    twin = sock.dup()
    one.finish()
    twin.sendall(b'more')
    twin.close()
    assert closed_proxy(sock)[4] == 'closed' and read_all(client) == b'more'


@pytest.mark.fast_path('sockets')
def test_handler_shut_the_connection(impl, bench):
    """shutdown() is no close."""
    one = bench()
    client, sock, _, _ = one.accept()
    sock.shutdown(socket.SHUT_RDWR)
    assert one.finish() == (CLOSE if impl.stock else [])
    assert client.recv(1) == b'' and closed_proxy(sock)[4] == 'closed'


def test_unread_data(bench):
    """The kernel resets a connection that is closed with data unread."""
    one = bench()
    client = one.connect()
    client.sendall(b'unread')
    one.server._do_read()
    one.finish()
    with pytest.raises(ConnectionResetError):
        client.recv(1)


def test_descriptor_closed_from_outside(bench):
    """EBADF, as closing a socket of the standard library has it; the rest is done."""
    one = bench()
    _, sock, _, _ = one.accept()
    raw = sock._sock
    os.close(sock.fileno())
    with pytest.raises(OSError) as info:
        one.finish()
    assert info.value.args == (errno.EBADF, 'Bad file descriptor')
    assert sock._closed is True and sock._sock is raw and raw.fileno() == -1
    assert sock._read_event is None and sock._write_event is None


def test_descriptor_closed_from_outside_is_reported(impl, serve, errors):
    """From the greenlet of the handler, with the greenlet as context."""
    one = serve(impl.StreamServer(LOOPBACK, lambda sock, address: os.close(sock.fileno())))
    connect(one).close()
    until(lambda: errors)
    (context, kind, value), = errors
    assert type(context) is gevent.Greenlet and kind is OSError
    assert value.args == (errno.EBADF, 'Bad file descriptor')
    assert value.__context__ is None


@pytest.mark.parametrize('error', [LookupError, gevent.GreenletExit, KeyboardInterrupt])
def test_handler_that_fails(bench, error):
    """The socket is closed, the error goes on as it is."""
    one = bench()
    client, sock, _, _ = one.accept()
    function, _, close, args = one.taken[0]
    raised = error()

    def handle(*args):
        raise raised
    with pytest.raises(error) as info:
        function(handle, close, args)
    assert info.value is raised and raised.__context__ is None
    assert closed_proxy(sock)[4] == 'closed' and client.recv(1) == b''


def test_handler_and_close_fail(bench):
    """The error of closing has the handler's as its context."""
    one = bench()
    _, sock, _, _ = one.accept()
    function, _, close, args = one.taken[0]
    raised = LookupError()

    def handle(sock, address):
        os.close(sock.fileno())
        raise raised
    with pytest.raises(OSError) as info:
        function(handle, close, args)
    assert info.value.errno == errno.EBADF and info.value.__context__ is raised


@pytest.mark.parametrize('event', ['read', 'write', 'both'])
def test_waiters(impl, serve, event):
    """Greenlets that wait for a socket are told that it was closed."""
    seen, sockets, fds = [], [], []

    def wait(sock, name):
        try:
            sock._wait(getattr(sock, name))
        except OSError as ex:
            seen.append((name, type(ex), ex.args, is_open(fds[0])))
    names = {'read': ['_read_event'], 'write': ['_write_event'],
             'both': ['_read_event', '_write_event']}[event]

    def handle(sock, address):
        sockets.append(sock)
        fds.append(sock.fileno())
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        with contextlib.suppress(BlockingIOError):
            while True:
                sock._sock.send(b'x' * 100000)
        greenlets.extend(gevent.spawn(wait, sock, name) for name in names)
        gevent.sleep(0)
        until(lambda: all(getattr(sock, name).active for name in names))
    greenlets = []
    one = serve(impl.StreamServer(LOOPBACK, handle))
    client = native.create_connection(one.address)
    until(lambda: len(seen) == len(names))
    gevent.joinall(greenlets)
    assert seen == [(name, cancel_wait_ex, CANCELLED, True) for name in names]
    until(lambda: not is_open(fds[0]))
    assert closed_proxy(sockets[0])[3:] == (fds[0], 'closed')
    client.close()


def test_waiter_in_recv(impl, serve):
    """The same, through the public interface, and what the client sees."""
    seen = []

    def wait(sock):
        try:
            sock.recv(10)
        except OSError as ex:
            seen.append(ex.args)

    def handle(sock, address):
        gevent.spawn(wait, sock)
        gevent.sleep(0.01)
    one = serve(impl.StreamServer(LOOPBACK, handle))
    assert read_all(connect(one)) == b''
    assert seen == [CANCELLED]


def test_watcher_of_the_program(bench):
    """A watcher that was started with a callback: closed, no callback; the descriptor later."""
    one, calls = bench(), []
    client, sock, _, _ = one.accept()
    watcher, fd, raw = sock._read_event, sock.fileno(), sock._sock
    watcher.start(lambda: calls.append('called'))
    one.finish()
    assert closed_proxy(sock)[3] == fd and sock._read_event is None
    assert is_open(fd) and raw.fileno() == fd
    until(lambda: not is_open(fd))
    assert raw.fileno() == -1 and calls == []
    assert client.recv(1) == b''


def test_do_close_that_keeps_the_socket(impl, bench):
    """An override decides."""
    kept = []

    class Server(impl.StreamServer):
        def do_close(self, *args):
            kept.append(args)
    one = bench(cls=Server)
    client, sock, address, _ = one.accept()
    one.finish()
    assert kept == [(sock, address)] and not sock.closed
    sock.sendall(b'kept')
    assert client.recv(10) == b'kept'


def test_do_close_that_goes_on(impl, bench):
    """An override that calls gevent's own."""
    class Server(impl.StreamServer):
        def do_close(self, sock, *args):
            sock.send(b'bye')
            super().do_close(sock, *args)
    one = bench(cls=Server)
    client, sock, _, _ = one.accept()
    assert one.finish() == (
        CLOSE[:1 + FRAMES_OF_CLOSE] if closes_in_c(impl) else CLOSE)
    assert read_all(client) == b'bye' and closed_proxy(sock)[4] == 'closed'


def test_other_arguments_for_do_close(impl):
    """gevent's do_close closes anything that comes first, whatever follows."""
    log = []
    thing = types.SimpleNamespace(close=lambda: log.append('closed'))

    class Server(impl.StreamServer):
        def do_read(self):
            return results.pop() if results else None
    results = [(thing,), [thing, 1, 2, 3]]
    one = Server(LOOPBACK, lambda *args: log.append(len(args)), spawn=None)
    one.loop = FakeLoop([])
    one.start()
    one._do_read()
    one.close()
    assert log == [4, 'closed', 1, 'closed'] and one.loop.errors == []


def test_do_close_called_by_hand(impl):
    """With a socket that no server ever had."""
    one = impl.StreamServer(LOOPBACK, echo)
    ours, theirs = socket.socketpair()
    one.do_close(ours, 'more', 'arguments')
    assert closed_proxy(ours)[4] == 'closed'
    theirs.close()
    one.close()


@pytest.mark.parametrize('spawn', [None, gevent.spawn_raw, gevent.spawn, 'default', 10])
def test_all_forms_of_spawn(impl, serve, spawn):
    """The handler's socket is open while it runs, closed after it."""
    sockets = []

    def handle(sock, address):
        assert not sock.closed
        sockets.append(sock)
        sock.sendall(b'%d' % address[1])
    one = serve(impl.StreamServer(LOOPBACK, handle, spawn=spawn))
    client = connect(one)
    assert client.getsockname()[1] == int(read_all(client))
    until(lambda: sockets[0].closed)
    assert closed_proxy(sockets[0])[4] == 'closed'


def test_spawn_that_fails(impl, serve, errors):
    """The client is closed, the error reported."""
    error, kept = LookupError(), []

    def spawn(function, handle, close, args):
        kept.append(args[0])
        raise error
    one = serve(impl.StreamServer(LOOPBACK, echo, spawn=spawn))
    client = connect(one)
    assert read_all(client) == b''
    until(lambda: errors)
    (context, kind, value), = errors
    assert context[1] is one and context[0][0][0] == '127.0.0.1'
    assert kind is LookupError and value is error
    assert closed_proxy(kept[0])[4] == 'closed'


def test_spawn_and_close_fail(bench):
    """The error of closing is reported, in the context of the other."""
    one, error = bench(), LookupError()

    def spawn(function, handle, close, args):
        os.close(args[0].fileno())
        raise error
    one.server._spawn = spawn
    one.connect()
    one.server._do_read()
    (context, kind, value), = one.errors
    assert kind is OSError and value.errno == errno.EBADF and value.__context__ is error


def test_closing_seen_by_the_hub(bench, monkeypatch):
    """The hub's own method does the work, as it does for gevent."""
    one, calls, hub = bench(), [], get_hub()
    _, sock, _, _ = one.accept()
    raw, events = sock._sock, (sock._read_event, sock._write_event)

    class Hub:
        loop = hub.loop

        def cancel_waits_close_and_then(self, watchers, error, then, *args):
            calls.append((watchers, error, args[-1], sock._closed, sock._read_event,
                          sock._write_event, sock._sock))
            return hub.cancel_waits_close_and_then(watchers, error, then, *args)
    sock.hub = Hub()
    one.finish()
    assert calls == [(events, cancel_wait_ex, raw, True, None, None, raw)]
    assert closed_proxy(sock)[4] == 'closed' and raw.fileno() == -1


@pytest.mark.parametrize('defer', [False, True])
def test_loop_that_has_events_pending(bench, defer):
    """closing_fd() decides whether the descriptor is closed at once or one turn later."""
    one, calls, hub = bench(), [], get_hub()
    _, sock, _, _ = one.accept()
    fd = sock.fileno()

    class Loop:
        def closing_fd(self, number):
            calls.append((number, is_open(number)))
            return defer

        def __getattr__(self, name):
            return getattr(hub.loop, name)

    class Hub:
        loop = Loop()
        cancel_waits_close_and_then = hub.cancel_waits_close_and_then
    sock.hub = Hub()
    one.finish()
    assert calls == [(fd, True)] and is_open(fd) is defer
    assert closed_proxy(sock)[3:] == (fd, 'closed')
    until(lambda: not is_open(fd))


# -- faults -------------------------------------------------------------------------------

class FaultyLoop:
    """The hub's loop; its *nth* io() raises."""

    def __init__(self, loop, nth, error):
        self.loop, self.left, self.error, self.asked = loop, nth, error, []

    def io(self, fd, events):
        self.asked.append(events)
        self.left -= 1
        if self.left == 0:
            raise self.error
        return self.loop.io(fd, events)

    def __getattr__(self, name):
        return getattr(self.loop, name)


@pytest.mark.parametrize('error', [LookupError, OSError, KeyboardInterrupt, MemoryError])
@pytest.mark.parametrize('nth', [1, 2])
def test_watcher_cannot_be_made(bench, nth, error):
    """Reported with the server as context; the connection is dropped, no descriptor lost."""
    one, hub = bench(), get_hub()
    client = one.connect()
    before, raised = descriptors_at_rest(), error(12, 'no watcher')
    loop = hub.loop
    faulty = hub.loop = FaultyLoop(loop, nth, raised)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', ResourceWarning)
        try:
            one.server._do_read()
        finally:
            hub.loop = loop
        assert faulty.asked == [1, 2][:nth] and one.taken == []
        assert one.errors == [(one.server, error, raised)]
        raised.__traceback__ = None  # gevent's socket is in there
        gc.collect()
    assert descriptors() == before
    with contextlib.suppress(ConnectionResetError):
        assert client.recv(1) == b''


def test_nothing_can_be_accepted(bench):
    """EMFILE: reported, and the client is served when there are descriptors again."""
    one = bench()
    client = one.connect()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        one.server._do_read()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    (context, kind, value), = one.errors
    assert context is one.server and kind is OSError and one.taken == []
    assert value.args == (errno.EMFILE, os.strerror(errno.EMFILE))
    assert one.server.loop.log[-2:] == [('timer', 0.01), 'timer.start']
    one.server._do_read()
    (_, _, _, (sock, address)), = one.taken
    assert address == client.getsockname()


def test_clients_are_served_when_descriptors_are_free_again(impl, serve, errors):
    """The same on a real loop: accepting pauses, then goes on by itself."""
    one = serve(impl.StreamServer(LOOPBACK, echo))
    client = native.create_connection(one.address)
    client.sendall(b'hello')
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        until(lambda: len(errors) >= 2)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert {(context, kind, value.errno) for context, kind, value in errors} == {
        (one, OSError, errno.EMFILE)}
    gevent.sleep(0)
    until(lambda: one.delay == one.min_delay)
    client.settimeout(5)
    until(lambda: gevent.select.select([client], [], [], 0)[0])
    assert read_all(client) == b'hello'


@pytest.mark.fast_path('lookups', 'sockets')
def test_memory_runs_out(impl, tmp_path):
    """Wherever an allocation fails, accepting and closing succeed or raise MemoryError; ours
    loses no descriptor."""
    assert isolated(impl, tmp_path, '''
        import gc
        import os
        import socket as native
        import sys
        import warnings
        import _testcapi
        from gevent import get_hub, server
        warnings.simplefilter('ignore')
        sys.unraisablehook = lambda info: None
        failed = []

        class Loop:
            def handle_error(self, context, kind, value, tb):
                failed.append(kind)

            def timer(self, delay):
                return self

            def start(self, callback):
                pass
            stop = close = start

        class Server(server.StreamServer):
            def stop_accepting(self):
                pass

        class Watcher:
            callback = None

            def close(self):
                pass

        class HubLoop:  # gevent's own loops do not all stand it
            def io(self, fd, events):
                return Watcher()

            def closing_fd(self, fd):
                return False

        def failing(n, function, *args):
            _testcapi.set_nomemory(n, n + 1)
            try:
                function(*args)
            except MemoryError as ex:
                failed.append(type(ex))
            finally:
                _testcapi.remove_mem_hooks()

        def attempt(n):
            client = native.create_connection(one.address)
            failing(n, one._do_read)
            while taken:
                function, handle, close, args = taken.pop()
                sock = args[0]
                failing(n, function, handle, close, args)
                sock.close()
                if sock._sock:
                    sock._real_close()
            client.close()
        taken = []
        one = Server(('127.0.0.1', 0), lambda *args: None, spawn=lambda *args: taken.append(args))
        one.init_socket()
        one.loop = Loop()
        get_hub().loop = HubLoop()
        one.max_accept = 1
        attempt(10000)
        gc.collect()
        before = len(os.listdir('/proc/self/fd'))
        for n in range(80):
            attempt(n)
        one.max_accept = 200
        attempt(10000)  # what is left of the others
        gc.collect()
        lost = len(os.listdir('/proc/self/fd')) - before
        print(set(failed) == {MemoryError}, lost > 0)
        sys.stdout.flush()
        os._exit(0)
    ''') == ['True %s' % impl.stock]  # a descriptor between accept() and socket() has no owner


def test_traceback_of_an_accept_that_fails(bench):
    """The report has a traceback, whose last entry is do_read."""
    one, seen = bench(), []
    one.server.loop.handle_error = lambda *args: seen.append((args, sys.exc_info()))
    one.server.socket.close()
    one.server._do_read()
    (args, info), = seen
    assert args[:1] == (one.server,) and args[1:] == info
    tb = args[3]
    while tb.tb_next:
        tb = tb.tb_next
    assert tb.tb_frame.f_code.co_name == 'do_read'


AUDIT = '''
    import os
    import sys
    import warnings
    import socket as native
    from gevent import server

    events, fail = [], []

    def hook(event, args):
        if event == 'socket.__new__' and events is not None:
            events.append((type(args[0]).__name__, *args[1:]))
            if fail:
                raise fail.pop()

    def count():
        return len(os.listdir('/proc/self/fd'))
    one = server.StreamServer(('127.0.0.1', 0), lambda *args: None, spawn=None)
    one.init_socket()

    class Loop:
        def handle_error(self, context, kind, value, tb):
            print(context is one, kind.__name__, value)

        def __getattr__(self, name):
            return getattr(loop, name)
    loop, one.loop = one.loop, Loop()
    client = native.create_connection(one.address)
    sys.addaudithook(hook)
'''


def test_audit_event(impl, tmp_path):
    """Auditors see every socket that is made."""
    assert isolated(impl, tmp_path, AUDIT + '''
    one._do_read()
    print(events)
    print(client.recv(1))
    client.close()
    one.close()
    ''') == ["[('_wrefsocket', 2, 1, 0)]", "b''"]


@pytest.mark.fast_path('lookups', 'sockets')
def test_audit_hook_that_raises(impl, tmp_path):
    """Reported as an error of accepting; gevent loses the descriptor, ours does not."""
    assert isolated(impl, tmp_path, AUDIT + '''
    before = count()
    fail.append(RuntimeError('not allowed'))
    one._do_read()
    print(events, count() - before)
    client.close()
    client = native.create_connection(one.address)
    one._do_read()
    print(client.recv(1))
    one.close()
    client.close()
    ''') == ['True RuntimeError not allowed',
             "[('_wrefsocket', 2, 1, 0)] %d" % (1 if impl.stock else 0), "b''"]


def test_other_threads_run_while_a_close_blocks(impl, serve):
    """As it does with SO_LINGER and a client that does not read; the hub's thread has to wait."""
    ticks, seen, done = [], [], threading.Event()

    def count():
        while not done.wait(0.005):
            ticks.append(None)

    def handle(sock, address):
        sock.setsockopt(native.SOL_SOCKET, native.SO_LINGER, struct.pack('ii', 1, 1))
        with contextlib.suppress(BlockingIOError):
            while True:
                sock._sock.send(bytes(10 ** 6))
        gevent.get_hub().loop.run_callback(lambda: seen.append(len(ticks)))
        seen.append(len(ticks))
    one = serve(impl.StreamServer(LOOPBACK, handle))
    other = threading.Thread(target=count)
    other.start()
    try:
        with contextlib.closing(connect_natively(one)):
            until(lambda: len(seen) == 2)
    finally:
        done.set()
        other.join()
    before, after = seen
    assert after - before > 20


# -- growth -------------------------------------------------------------------------------

def objects():
    """How many objects there are of the kinds that a connection is made of."""
    with socket.socket() as sample:
        watcher = type(sample._read_event)
    del sample
    gc.collect()
    kinds = socket.socket, _socket.socket, _socket3._closedsocket, gevent.Greenlet, watcher
    found = [0] * len(kinds)
    for thing in gc.get_objects():
        for i, kind in enumerate(kinds):
            found[i] += issubclass(type(thing), kind)  # others may lie about __class__
    return found


def test_no_growth_in_batches(impl, bench):
    """Two thousand connections leave nothing behind: no descriptor, no memory."""
    one = bench()
    one.server._spawn = lambda function, handle, close, args: function(handle, close, args)

    def connections(count):
        for _ in range(count):
            client = native.create_connection(one.server.address)
            one.server._do_read()
            client.close()
        gc.collect()
        return descriptors(), sys.getallocatedblocks()
    connections(200)
    before = connections(200)
    after = connections(2000)
    assert after[0] == before[0] and after[1] - before[1] < 500 and one.errors == []


def test_no_growth_on_a_real_loop(impl, serve):
    """The same with greenlets."""
    one = serve(impl.StreamServer(LOOPBACK, lambda sock, address: None))

    def connections(count):
        for _ in range(count):
            assert read_all(connect(one)) == b''
        gevent.sleep(0.01)
        return descriptors(), objects()
    before = connections(50)
    assert connections(500) == before
