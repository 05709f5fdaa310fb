"""Programs that put something of their own between gevent's sockets and the kernel."""
import contextlib
import errno
import gc
import os
import socket as native
import sys
import threading

import gevent
import pytest
from gevent import _socketcommon, socket, ssl

from ends import (
    AGAIN, CLOSED, READS, WRITES, Ends, at_rest, collect, difference, drain, fill, raised, recv,
    recv_into, seen, send, sendall, start, starts)
from helpers import ROOT, outcome, until

reads = pytest.mark.parametrize('read', READS)
METHODS = ['recv', 'recvfrom', 'recv_into', 'recvfrom_into', 'send', 'sendall', 'sendto']


@pytest.fixture
def ends(impl):
    with Ends() as made:
        yield made


# -- subclasses -----------------------------------------------------------------------------------

class Waits(socket.socket):
    """Notes its waits."""

    def __init__(self, *args, **keywords):
        super().__init__(*args, **keywords)
        self.log = []

    def _wait(self, watcher, timeout_exc=None):
        self.log.append(watcher)
        return super()._wait(watcher, timeout_exc)


class Calls(socket.socket):
    """Notes calls of each method."""

    def __init__(self, *args, **keywords):
        super().__init__(*args, **keywords)
        self.log = []


def noting(name):
    def method(self, *args, **keywords):
        self.log.append(name)
        return getattr(super(Calls, self), name)(*args, **keywords)
    return method


for each in METHODS + ['getsockopt']:
    setattr(Calls, each, noting(each))


@reads
def test_subclass_that_waits(ends, read):
    sock, other = ends.pair(Waits)
    greenlet = starts(sock, read, sock, 10)
    assert sock.log == [sock._read_event]
    other.send(b'data')
    assert greenlet.get() == b'data' and len(sock.log) == 1


@pytest.mark.parametrize('write', WRITES)
def test_subclass_that_waits_to_write(ends, write):
    sock, other = ends.pair(Waits)
    count = fill(sock)
    greenlet = start(sock._write_event, write, sock, b'data')
    assert sock.log == [sock._write_event]
    drain(other, count)
    assert greenlet.get() == 4 and other.recv(10) == b'data' and len(sock.log) == 1


def test_subclass_with_methods(ends):
    """sendall() calls send() and getsockopt()."""
    sock, other = ends.pair(Calls)
    assert sock.sendall(b'data') is None and sock.log == ['sendall', 'getsockopt', 'send']
    assert other.recv(10) == b'data'
    other.send(b'answer')
    assert sock.recv(10) == b'answer' and sock.log[3:] == ['recv']
    assert socket.socket.sendall(sock, b'data') is None
    assert sock.log[4:] == ['getsockopt', 'send']
    assert socket.socket.send(sock, b'data') == 4 and sock.log[6:] == []


def test_plain_subclass(ends):
    """One that overrides nothing."""
    class Plain(socket.socket):
        pass
    sock, other = ends.pair(Plain)
    greenlet = starts(sock, sock.recv, 10)
    other.send(b'data')
    assert greenlet.get() == b'data'
    assert sock.sendall(b'answer') is None and other.recv(10) == b'answer'
    sock.recv = lambda size: b'of the instance'
    assert sock.recv(10) == b'of the instance'


def test_timeout_as_a_property(ends):
    class Odd(socket.socket):
        timeout = property(lambda self: 0.0, lambda self, value: None)
    sock, other = ends.pair(Odd)
    for read in READS:
        assert raised(read, sock, 1) == AGAIN
    assert sock.sendall(b'data') is None and other.recv(10) == b'data'


# -- patches of the classes -----------------------------------------------------------------------

@pytest.mark.parametrize('owner', [_socketcommon.SocketMixin, socket.socket],
                         ids=['SocketMixin', 'socket'])
@pytest.mark.parametrize('name', METHODS)
def test_method_replaced(ends, monkeypatch, owner, name):
    """What is put there is called, from then on, until it is taken away."""
    sock, other = ends.pair()
    args = {'recv': (1,), 'recvfrom': (1,), 'recv_into': (bytearray(1),),
            'recvfrom_into': (bytearray(1),), 'send': (b'x',), 'sendall': (b'x',),
            'sendto': (b'x', '')}[name]
    for _ in range(3):
        monkeypatch.setattr(owner, name, lambda *args: args, raising=False)
        assert getattr(sock, name)(*args) == (sock, *args)
        monkeypatch.undo()
        other.send(b'data')
        assert sock.recv(10) == b'data' and sock.send(b'data') == 4 and other.recv(9) == b'data'


@pytest.mark.parametrize('owner', [_socketcommon.SocketMixin, socket.socket],
                         ids=['SocketMixin', 'socket'])
def test_wait_replaced(ends, monkeypatch, owner):
    """By all ways to read and write, with the watcher; also after a short read."""
    sock, other = ends.tcp()
    log = []

    def wait(self, watcher, *args):
        log.append((self, watcher, *args))
        raise LookupError('instead')
    for _ in range(2):
        other.send(b'short')
        assert sock.recv(100) == b'short'
        monkeypatch.setattr(owner, '_wait', wait, raising=False)
        for read in READS:
            assert raised(read, sock, 10) == (LookupError, ('instead',))
        count = fill(sock)
        for write in [sock.send, sock.sendall, lambda data: sock.sendto(data, sock.getpeername())]:
            error = outcome(write, b'data')
            assert seen(error) == (LookupError, ('instead',))
        assert log == [(sock, sock._read_event)] * 4 + [(sock, sock._write_event)] * 3
        monkeypatch.undo()
        del log[:]
        drain(other, count)
        greenlet = starts(sock, sock.recv, 10)
        other.send(b'data')
        assert greenlet.get() == b'data' and log == []


def test_wait_that_does_not_wait(ends, monkeypatch):
    """Reading goes on in circles, writing gives up."""
    sock, other = ends.tcp()
    log = []

    def wait(self, watcher):
        log.append(watcher)
        if len(log) == 3 and watcher is self._read_event:
            other.send(b'data')
    monkeypatch.setattr(socket.socket, '_wait', wait, raising=False)
    assert sock.recv(10) == b'data' and log == [sock._read_event] * 3
    fill(sock)
    assert sock.send(b'data') == sock.sendto(b'data', sock.getpeername()) == 0
    assert log[3:] == [sock._write_event] * 2


@pytest.mark.parametrize('owner', [_socketcommon.SocketMixin, socket.socket],
                         ids=['SocketMixin', 'socket'])
def test_getsockopt_replaced(ends, monkeypatch, owner):
    """sendall() asks it how much the socket buffers, unless there is nothing to send."""
    sock, other = ends.pair()
    log = []

    def getsockopt(self, *args):
        log.append(args)
        raise LookupError('instead')
    monkeypatch.setattr(owner, 'getsockopt', getsockopt, raising=False)
    assert raised(sock.sendall, b'data') == (LookupError, ('instead',))
    assert sock.sendall(b'') == 0 and sock.send(b'sent') == 4
    assert log == [(native.SOL_SOCKET, native.SO_SNDBUF)]
    monkeypatch.undo()
    assert sock.sendall(b'data') is None and other.recv(20) == b'sentdata'


def test_send_again_codes(ends, monkeypatch):
    """What send() waits for is in the module."""
    sock, other = ends.pair()
    monkeypatch.setattr(_socketcommon, 'GSENDAGAIN', ())
    count = fill(sock)
    assert raised(sock.send, b'data') == raised(sock.sendall, b'data') == AGAIN
    monkeypatch.undo()
    greenlet = start(sock._write_event, sock.send, b'data')
    drain(other, count)
    assert greenlet.get() == 4


@pytest.mark.parametrize('name', ['recv', 'send', 'sendall'])
def test_code_replaced(ends, name):
    """The function is the same, what it does is not."""
    sock, other = ends.pair()
    function = getattr(_socketcommon.SocketMixin, name)
    before = function.__code__
    other.send(b'data')

    def instead(self, data, flags=0, timeout=None):
        return 'instead', data
    try:
        function.__code__ = instead.__code__
        assert getattr(sock, name)(b'x', 0, 0) == ('instead', b'x')
    finally:
        function.__code__ = before
    assert sock.recv(10) == b'data' and sock.send(b'data') == 4 and sock.sendall(b'x') is None


def test_module_names_replaced(ends, monkeypatch):
    """Those that gevent's functions read when they run."""
    sock, other = ends.pair()
    monkeypatch.setattr(_socketcommon, '_sendall', lambda *args: args[1:])
    data, flags = sock.sendall(b'data', 5)
    assert (bytes(data), flags) == (b'data', 5)
    monkeypatch.undo()
    monkeypatch.setattr(_socketcommon, '_get_memory', lambda data: memoryview(b'instead'))
    assert sock.sendall(b'data') is None and other.recv(10) == b'instead'
    monkeypatch.undo()
    monkeypatch.setattr(_socketcommon, 'EWOULDBLOCK', errno.ENOTCONN)
    assert raised(sock.recv, 10) == AGAIN
    monkeypatch.undo()
    greenlet = starts(sock, sock.recv, 10)
    other.send(b'data')
    assert greenlet.get() == b'data'


# -- the raw socket -------------------------------------------------------------------------------

def test_another_raw_socket(ends):
    """It is read and written; the watchers stay."""
    sock, other = ends.pair()
    third, fourth = ends.pair()
    former, sock._sock = sock._sock, third._sock
    other.send(b'not this')
    fourth.send(b'this')
    assert sock.recv(10) == b'this'
    assert sock.sendall(b'answer') is None and fourth.recv(10) == b'answer'
    sock._sock = former
    assert sock.recv(10) == b'not this'


class Raw:
    """Something else in its place."""

    def __init__(self):
        self.log = []

    def __getattr__(self, name):
        def method(*args):
            self.log.append((name, args))
            return 3
        return method


def test_something_else_as_raw_socket(ends):
    """Its methods are called with what the functions are given."""
    sock, _ = ends.pair()
    former, sock._sock = sock._sock, Raw()
    try:
        for name in METHODS:
            if name not in ('send', 'sendall'):
                assert getattr(sock, name)(1, 'two', [3], None) == 3
                assert sock._sock.log.pop() == (name, (1, 'two', [3], None))
        assert sock.send('text') == 3 and sock._sock.log == [('send', ('text', 0))]
        assert sock.send('text', 'flags', 'timeout') == 3
        assert sock._sock.log[1:] == [('send', ('text', 'flags'))]
        del sock._sock.log[:]
        assert sock.sendall(b'data..') is None
        assert [name for name, _ in sock._sock.log] == ['getsockopt', 'send', 'send']
    finally:
        sock._sock = former


def test_subclass_of_raw_socket(ends):
    """Its overrides are called."""
    class Own(type(ends.pair()[0]._sock)):
        __slots__ = ()

        def recv(self, *args):
            return b'own'

        def send(self, *args):
            return len(args[0])
    sock, other = ends.pair()
    former, sock._sock = sock._sock, Own(fileno=os.dup(sock.fileno()))
    try:
        sock._sock.setblocking(False)
        assert sock.recv(10) == b'own' and sock.sendall(b'data') is None
        other.setblocking(False)
        assert raised(other.recv, 1) == AGAIN
        other.send(b'data')
        assert recv_into(sock, 10) == b'data'
    finally:
        sock._sock.close()
        sock._sock = former


@reads
def test_raw_socket_that_blocks(ends, read):
    """Its own time-out is raised, and nobody else runs meanwhile."""
    sock, other = ends.pair()
    ran = []
    gevent.spawn(ran.append, 'other')
    sock._sock.settimeout(0.001)
    error = outcome(read, sock, 10)
    assert seen(error) == (TimeoutError, ('timed out',)) and ran == []
    other.send(b'data')
    assert read(sock, 10) == b'data'
    thread = threading.Timer(0.02, other.send, [b'from a thread'])
    sock._sock.setblocking(True)
    thread.start()
    assert read(sock, 20) == b'from a thread' and ran == []
    thread.join()
    sock._sock.setblocking(False)
    greenlet = starts(sock, read, sock, 10)
    other.send(b'data')
    assert greenlet.get() == b'data' and ran == ['other']


def test_raw_socket_that_blocks_when_written(ends):
    sock, other = ends.pair()
    fill(sock)
    sock._sock.settimeout(0.001)
    for write in send, sendall:
        assert raised(write, sock, b'data') == (TimeoutError, ('timed out',))
    sock._sock.settimeout(0)
    assert at_rest(sock)


# -- what looks on --------------------------------------------------------------------------------

@contextlib.contextmanager
def looked_at(how):
    """While a tracer or a profiler is there."""
    seen_events = []

    def note(frame, event, arg):
        seen_events.append(event)
        return note
    set_it = sys.settrace if how == 'trace' else sys.setprofile
    former = sys.gettrace() if how == 'trace' else sys.getprofile()
    set_it(note)
    try:
        yield seen_events
    finally:
        set_it(former)


@pytest.mark.parametrize('how', ['trace', 'profile'])
def test_tracers(ends, how):
    """Change nothing of what is read and written."""
    sock, other = ends.pair()
    with looked_at(how) as events:
        for read in READS:
            other.send(b'data')
            data = read(sock, 10)
            greenlet = gevent.spawn(read, sock, 10)
            gevent.sleep(0)
            other.send(b'more')
            more, error = greenlet.get(), outcome(read, sock, -1)
            if (data, more, type(error)) != (b'data', b'more', ValueError):
                break
        else:
            data = None
        for write in WRITES:
            sent = write(sock, b'data')
            got = other.recv(10)
        sock.timeout = 0.0
        again = outcome(sock.recv, 10)
    assert data is None and (sent, got) == (4, b'data') and seen(again) == AGAIN
    assert events and at_rest(sock)


def test_collector_runs_meanwhile(ends):
    """Finalizers that read and write on the same socket."""
    sock, other = ends.pair()

    class Cycle:
        def __init__(self):
            self.me = self

        def __del__(self):
            found.append((outcome(sock.sendall, b'.'), outcome(sock._sock.recv, 1)))
    found = []
    for _ in range(20):
        other.send(b'abc')
        Cycle()
        gc.collect()
        assert sock.recv(10) == b'bc' and other.recv(10) == b'.'
    assert found == [(None, b'a')] * 20


# -- TLS ------------------------------------------------------------------------------------------

@pytest.fixture
def tls(ends):
    """Two ends of a TLS connection, both of gevent."""
    one, other = ends.both()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(*(os.path.join(ROOT, 'examples', 'localhost.' + end)
                             for end in ('crt', 'key')))
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
    greenlet = gevent.spawn(server.wrap_socket, one, server_side=True)
    two = client.wrap_socket(other)
    one = greenlet.get()
    with contextlib.closing(one), contextlib.closing(two):
        yield one, two


def test_tls(tls):
    """Its sendall() calls that of plain sockets, which calls send() of TLS."""
    one, two = tls
    assert type(one).send is not socket.socket.send
    for timeout in None, 5:
        one.timeout = two.timeout = timeout
        greenlet = starts(two, two.recv, 100)
        assert one.sendall(b'data') is None and one.sendall(b'') == 0
        assert greenlet.get() == b'data'
        assert two.send(b'answer') == 6 and one.recv_into(bytearray(10)) == 6
    data = os.urandom(1 << 20)
    greenlet = gevent.spawn(one.sendall, data)
    got = bytearray()
    while len(got) < len(data):
        got += two.recv(1 << 16)
    assert greenlet.get() is None and difference(got, data) is None
    two.timeout = 0.001
    assert issubclass(raised(two.recv, 1)[0], TimeoutError)
    for name, args in [('recvfrom', (1,)), ('recvfrom_into', (bytearray(1),)),
                       ('sendto', (b'x', ''))]:
        assert raised(getattr(two, name), *args)[0] is ValueError


def test_tls_over_a_plain_socket_that_was_used(tls):
    """Errors of arguments are those of TLS."""
    one, two = tls
    assert raised(one.sendall, 'text') == (
        TypeError, ("memoryview: a bytes-like object is required, not 'str'",))
    assert raised(one.sendall, b'data', 1)[0] is ValueError
    two.close()
    until(lambda: two.closed)
    assert raised(two.recv, 1)[0] in (CLOSED[0], ValueError)


def test_collecting_what_a_plain_socket_gets(ends):
    """sendall() in one greenlet, odd readers in another."""
    sock, other = ends.pair()
    data = os.urandom(300000)
    greenlet = gevent.spawn(sock.sendall, data)
    assert difference(collect(other, greenlet, 999), data) is None
    other.send(b'data')
    assert recv(sock, 10) == b'data'
