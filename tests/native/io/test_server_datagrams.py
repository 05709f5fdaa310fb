"""DatagramServer.sendto(), which sends while it has a lock."""
import socket as native
import sys

import gevent
import pytest
from gevent.lock import BoundedSemaphore, DummySemaphore, RLock, Semaphore

from ends import Ends, raised
from helpers import LOOPBACK, until


@pytest.fixture
def ends(impl):
    with Ends() as made:
        yield made


@pytest.fixture
def served(impl):
    """A server, and where it sends to."""
    with native.socket(native.AF_INET, native.SOCK_DGRAM) as other:
        other.bind(LOOPBACK)
        other.settimeout(5)
        one = impl.DatagramServer(LOOPBACK, lambda *args: None)
        one.start()
        yield one, other
        one.stop()


class Noted:
    """A lock that notes what is done with it."""

    def __init__(self, fails=()):
        self.log = []
        self.fails = fails

    def __getattr__(self, name):
        def method():
            self.log.append(name)
            if name in self.fails:
                raise ZeroDivisionError(name)
        return method


def test_sends(served):
    """However it is called; the lock is free again."""
    one, other = served
    where = other.getsockname()
    assert one.sendto(b'one', where) is None
    assert one.sendto(b'two', 0, where) is None
    assert one.sendto(bytearray(b'three'), ('localhost', where[1])) is None
    assert [other.recvfrom(10) for _ in range(3)] == [
        (data, one.address) for data in (b'one', b'two', b'three')]
    assert one._writelock.counter == 1 and not one._writelock.locked()


@pytest.mark.parametrize('lock', [
    Semaphore, BoundedSemaphore, DummySemaphore, RLock, lambda: Semaphore(3),
    type('Derived', (Semaphore,), {})],
    ids=['semaphore', 'bounded', 'dummy', 'rlock', 'three', 'derived'])
def test_other_locks(served, lock):
    one, other = served
    one._writelock = lock()
    one.sendto(b'data', other.getsockname())
    assert other.recv(10) == b'data'
    assert getattr(one._writelock, 'counter', 1) in (1, 3)


@pytest.mark.parametrize('holder', ['instance', 'class'])
def test_lock_of_the_program(impl, served, holder):
    """It is acquired and released, wherever it is."""
    one, other = served
    lock = Noted()
    if holder == 'class':
        one.__class__ = type('Own', (impl.DatagramServer,), {'_writelock': property(
            lambda self: lock)})
    else:
        one._writelock = lock
    one.sendto(b'data', other.getsockname())
    assert other.recv(10) == b'data' and lock.log == ['acquire', 'release']
    assert raised(one.sendto, b'data', ('127.0.0.1', 'wrong'))[0] is TypeError
    assert lock.log == ['acquire', 'release'] * 2


def test_all_may_change_meanwhile(served, ends):
    """The lock, the socket and the dict of the server are those of this moment."""
    one, other = served
    where, first, lock = other.getsockname(), one.socket, Noted()
    second, _ = ends.udp()

    def sends(data):
        one.sendto(data, where)
        return other.recvfrom(10)

    for _ in range(2):
        assert sends(b'one') == (b'one', first.getsockname())
        plain, one._writelock = one._writelock, lock
        assert sends(b'two')[0] == b'two' and lock.log == ['acquire', 'release']
        one._writelock = plain
        one.socket = second
        assert sends(b'three') == (b'three', second.getsockname())
        vars(one).update(socket=first, _writelock=lock)
        assert sends(b'four') == (b'four', first.getsockname()) and len(lock.log) == 4
        one.__dict__ = dict(vars(one), _writelock=plain, socket=second)
        assert sends(b'five') == (b'five', second.getsockname()) and len(lock.log) == 4
        one.socket = first
        lock.log.clear()


@pytest.mark.parametrize('slots', [(), ('slot',)])
def test_dict_of_another_object(impl, ends, slots):
    """Its attributes are those of the server, whatever CPython does to store them."""
    class Other:
        pass

    class Own(impl.DatagramServer):
        __slots__ = slots

    one, other, lock = Own(LOOPBACK, lambda *args: None), Other(), Noted()
    one.start()
    second, receiver = ends.udp()
    where, first, former = receiver.getsockname(), one.address, one.socket
    for name, value in vars(one).items():
        setattr(other, name, value)
    one.__dict__ = other.__dict__
    one.sendto(b'one', where)
    one.sendto(b'two', where)
    other.socket = second
    one.sendto(b'three', where)
    other._writelock = lock
    one.sendto(b'four', where)
    assert [receiver.recvfrom(10) for _ in range(4)] == [
        (b'one', first), (b'two', first), (b'three', second.getsockname()),
        (b'four', second.getsockname())]
    assert lock.log == ['acquire', 'release']
    del other._writelock
    assert raised(one.sendto, b'five', where)[0] is AttributeError
    one.stop()
    former.close()


@pytest.mark.parametrize('when', ['acquire', 'release'])
def test_lock_that_fails(served, when):
    """Its error is what is raised; what was sent before is sent."""
    one, other = served
    one._writelock = Noted([when])
    assert raised(one.sendto, b'data', other.getsockname()) == (ZeroDivisionError, (when,))
    other.setblocking(False)
    assert raised(other.recv, 10)[0] is BlockingIOError if when == 'acquire' else (
        other.recv(10) == b'data')


def test_waits_for_the_lock(served):
    """Also after it was free before. Who waits sends in order."""
    one, other = served
    where = other.getsockname()
    one.sendto(b'first', where)
    one._writelock.acquire()
    waiting = [gevent.spawn(one.sendto, data, where) for data in (b'second', b'third')]
    until(lambda: one._writelock.linkcount() == 2)
    other.setblocking(False)
    assert other.recv(10) == b'first' and raised(other.recv, 10)[0] is BlockingIOError
    one._writelock.release()
    gevent.joinall(waiting, timeout=5)
    assert [other.recv(10), other.recv(10)] == [b'second', b'third']
    assert one._writelock.counter == 1


def test_killed_while_it_waits_for_the_lock(served):
    """Nothing is sent, and the lock is still the other's."""
    one, other = served
    one._writelock.acquire()
    greenlet = gevent.spawn(one.sendto, b'data', other.getsockname())
    until(one._writelock.linkcount)
    greenlet.kill()
    assert one._writelock.counter == 0 and one._writelock.linkcount() == 0
    one._writelock.release()
    other.setblocking(False)
    assert raised(other.recv, 10)[0] is BlockingIOError


def test_errors(served):
    """Are raised, and the lock is free again."""
    one, other = served
    assert raised(one.sendto, b'data', 5)[0] is TypeError
    assert raised(one.sendto, 5, other.getsockname())[0] is TypeError
    assert raised(one.sendto)[0] is TypeError
    assert raised(one.sendto, b'x' * 70000, other.getsockname())[0] is OSError
    assert raised(one.sendto, b'data', ('255.255.255.255', 9))[0] is PermissionError
    assert one._writelock.counter == 1
    lock = one.__dict__.pop('_writelock')
    assert raised(one.sendto, b'data', other.getsockname())[0] is AttributeError
    one._writelock = lock
    one.stop()
    assert raised(one.sendto, b'data', other.getsockname())[0] is AttributeError
    assert lock.counter == 1


def test_socket_of_the_class(impl, served, ends):
    """A property that gives another socket is asked, once."""
    one, other = served
    sock, _ = ends.udp()
    asked = []

    def ask(self):
        asked.append(self)
        return sock
    one.__class__ = type('Own', (impl.DatagramServer,), {'socket': property(ask)})
    asked.clear()
    one.sendto(b'data', other.getsockname())
    assert other.recvfrom(10) == (b'data', sock.getsockname()) and asked == [one]
    one.__class__ = impl.DatagramServer


def test_references(served):
    """A thousand datagrams keep nothing."""
    one, other = served
    data, where = b'data', other.getsockname()
    objects = [one, one.socket, one.socket._sock, one._writelock, data, where]
    one.sendto(data, where)
    before = [sys.getrefcount(thing) for thing in objects]
    for _ in range(1000):
        one.sendto(data, where)
        other.recv(10)
    assert [sys.getrefcount(thing) for thing in objects] == before
