"""That reading, writing and waiting run in C, where the other tests say what comes of it."""
import functools
import re

import gevent
import pytest
from gevent import server, socket
from gevent._compat import PURE_PYTHON

import helpers
from ends import Ends, raised, starts
from helpers import FRAMES_OF_CLOSE, LOOPBACK, is_on, until

NAMES = ('recv', 'recv_into', 'recvfrom', 'recvfrom_into', 'send', 'sendall', 'sendto')

#: the Python functions of gevent that read and write
STEPS = {
    **{getattr(socket.socket, name).__code__: name for name in NAMES},
    server.DatagramServer.do_read.__code__: 'do_read',
    server.DatagramServer.sendto.__code__: 'DatagramServer.sendto',
}

frames = functools.partial(helpers.frames, STEPS)


@pytest.fixture
def ends(impl):
    with Ends() as made:
        yield made


def expected(impl, names):
    """What is seen of gevent's functions."""
    return names if impl.stock or not is_on('io') else names[:FRAMES_OF_CLOSE]


@pytest.mark.fast_path('sockets', 'io')
def test_io_is_on(impl):
    """For ours, once gevent.server is there."""
    assert is_on('io') is (not impl.stock and not PURE_PYTHON)


def test_stream(impl, ends):
    """Also where it waits."""
    sock, other = ends.pair()
    other.send(b'data')
    seen = expected(impl, ['recv'])
    assert frames(sock.recv, 10) == seen
    other.send(b'data')
    assert frames(sock.recv_into, bytearray(10)) == expected(impl, ['recv_into'])
    assert frames(sock.send, b'data') == expected(impl, ['send'])
    assert len(frames(sock.sendall, b'data')) == len(expected(impl, ['sendall', 'send']))
    assert other.recv(10) == b'datadata'
    gevent.spawn(other.send, b'late')
    got = []
    assert frames(lambda: got.append(sock.recv(10))) == seen and got == [b'late']


def test_datagrams(impl, ends):
    sock, other = ends.udp()
    address = other.getsockname()
    assert frames(sock.sendto, b'data', address) == expected(impl, ['sendto'])
    other.sendto(b'data', sock.getsockname())
    assert frames(sock.recvfrom, 10) == expected(impl, ['recvfrom'])
    other.sendto(b'data', sock.getsockname())
    assert frames(sock.recvfrom_into, bytearray(10)) == expected(impl, ['recvfrom_into'])


def test_datagram_server(impl, ends):
    """Reading and answering. The profiler sees what runs in the hub, too, of all greenlets."""
    class Echo(server.DatagramServer):
        def handle(self, data, address):
            self.sendto(data, address)
    one = Echo(LOOPBACK, spawn=None)
    one.start()
    client = ends.natives(helpers.native.socket(type=helpers.native.SOCK_DGRAM))
    client.sendto(b'data', one.address)
    client.setblocking(False)
    got = []

    def answered():
        try:
            got.append(client.recv(10))
        except BlockingIOError:
            return False
        return True
    seen = frames(until, answered)
    one.stop()
    assert got == [b'data']
    if impl.stock or not is_on('io'):
        assert seen[:3] == ['do_read', 'DatagramServer.sendto', 'sendto']
    else:
        assert seen == ['DatagramServer.sendto'][:FRAMES_OF_CLOSE]


@pytest.mark.parametrize('of_the_class', [False, True], ids=['instance', 'class'])
def test_datagram_server_with_its_own(impl, ends, monkeypatch, of_the_class):
    """do_read() and sendto() that are another's count."""
    log = []

    class Echo(server.DatagramServer):
        def handle(self, data, address):
            self.sendto(data, address)
    one = Echo(LOOPBACK, spawn=None)
    one.start()
    read, send = server.DatagramServer.do_read, server.DatagramServer.sendto

    def do_read(self):
        log.append('do_read')
        return read(self)

    def sendto(self, *args):
        log.append('sendto')
        return send(self, *args)
    if of_the_class:
        monkeypatch.setattr(server.DatagramServer, 'do_read', do_read)
        monkeypatch.setattr(server.DatagramServer, 'sendto', sendto)
    else:
        one.do_read, one.sendto = do_read.__get__(one), sendto.__get__(one)
    client = ends.natives(helpers.native.socket(type=helpers.native.SOCK_DGRAM))
    client.sendto(b'data', one.address)
    until(lambda: 'sendto' in log)
    assert client.recv(10) == b'data' and log[:2] == ['do_read', 'sendto']
    one.stop()


def test_datagram_server_reads_an_error(impl, ends):
    """It is reported with a traceback, which ends in do_read()."""
    one = server.DatagramServer(LOOPBACK, lambda *args: None)
    one.start()
    errors = []
    hub = gevent.get_hub()
    hub.handle_error, before = lambda *args: errors.append(args), vars(hub).get('handle_error')
    try:
        one._socket.connect(('127.0.0.1', 1))
        one._socket.send(b'refused')
        until(lambda: errors != [])
    finally:
        del hub.handle_error
        assert before is None
    one.stop()
    context, kind, error, traceback = errors[0]
    assert context is one and kind is ConnectionRefusedError and error.args[0] == 111
    while traceback.tb_next is not None:
        traceback = traceback.tb_next
    assert traceback.tb_frame.f_code.co_name == 'do_read'


def test_text_of_who_waits(impl, ends):
    """The same in errors, and what the watcher has."""
    sock, other = ends.pair()
    greenlet = starts(sock, sock.recv, 10)
    waiter = r'<gevent\.(_gevent_c_waiter|_waiter)\.Waiter object at 0x[0-9a-f]+>'
    method = r'<bound method Waiter\.switch of %s>' % waiter
    callback = sock._read_event.callback
    assert re.fullmatch(method, repr(callback))
    assert re.fullmatch(waiter, repr(callback.__self__))
    assert sock._read_event.args == (callback.__self__,)
    kind, (text,) = raised(sock.recv, 10)
    assert kind.__name__ == 'ConcurrentObjectUseError'
    assert re.fullmatch('This socket is already used by another greenlet: ' + method, text)
    other.send(b'data')
    assert greenlet.get() == b'data'


def test_waiter_outlives_its_wait(impl, ends):
    """Who has kept it can call it: nothing happens, and the next wait is not disturbed."""
    sock, other = ends.pair()
    greenlet = starts(sock, sock.recv, 10)
    kept = sock._read_event.callback
    other.send(b'one')
    assert greenlet.get() == b'one'
    assert kept('value') is None
    greenlet = starts(sock, sock.recv, 10)
    assert sock._read_event.callback is not kept and kept('value') is None
    assert not greenlet.ready()
    other.send(b'two')
    assert greenlet.get() == b'two'


def test_switched_by_nobody_but_the_hub(impl, ends):
    """AssertionError for whoever is in another greenlet."""
    sock, other = ends.pair()
    greenlet = starts(sock, sock.recv, 10)
    waiter = sock._read_event.callback.__self__
    error = (AssertionError, ('Can only use Waiter.switch method from the Hub greenlet',))
    assert raised(waiter.switch, waiter) == error
    assert raised(waiter.throw, KeyError) == error
    other.send(b'data')
    assert greenlet.get() == b'data'


def test_error_of_who_waited(impl, ends):
    """A raw greenlet that dies of it: reported with greenlet.switch as the context."""
    sock, other = ends.pair()
    errors, hub = [], gevent.get_hub()

    def read():
        sock.recv(10)
        raise ValueError('after')
    greenlet = gevent.spawn_raw(read)
    gevent.sleep(0)
    hub.handle_error = lambda *args: errors.append(args)
    try:
        other.send(b'data')
        until(lambda: errors != [])
    finally:
        del hub.handle_error
    (context, kind, error, _), = errors
    assert context == greenlet.switch and kind is ValueError and error.args == ('after',)
