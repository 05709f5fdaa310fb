"""What the socket of a client has inside, CPython's socket object and what stands for it after
closing: ours uses them again for the next one.

Nobody can tell but by looking for an object that exists although its socket is gone.
"""
import contextlib
import gc
import os
import socket as native
import sys
import weakref

import pytest
from gevent import _socket3

from helpers import Bench, is_on

pytestmark = pytest.mark.fast_path

RAW, STAND_IN = _socket3._wrefsocket, _socket3._closedsocket


class House(Bench):
    """The handlers, too, are run by the test."""

    def __init__(self, cls):
        self.calls = []
        super().__init__(cls, spawn=lambda *args: self.calls.append(args))

    def visit(self, handler=lambda sock: None, after=lambda sock: None):
        """One connection from beginning to end, with this handler; then the closed socket."""
        with native.create_connection(self.server.address, timeout=5) as client:
            self.server._do_read()
            assert self.errors == []
            (function, _, close, args), = self.calls
            self.calls.clear()
            function(lambda sock, address: handler(sock), close, args)
            after(args[0])
            del args, close
            assert client.recv(1) == b''


@pytest.fixture
def house(impl):
    gc.collect()
    one = House(impl.StreamServer)
    with contextlib.closing(one.server):
        yield one


def closed_ones():
    """The socket objects without a descriptor that are left of clients."""
    gc.collect()
    return [thing for thing in gc.get_objects() if type(thing) is RAW and thing.fileno() < 0]


def stand_ins():
    gc.collect()
    return [thing for thing in gc.get_objects() if type(thing) is STAND_IN]


def keeps(impl):
    """Whether one is kept, here."""
    return not impl.stock and is_on('sockets') and is_on('lookups')


@pytest.mark.fast_path('lookups', 'sockets')
def test_one_is_kept_until_the_server_closes(thawed, impl, house):
    ids = []
    for _ in range(3):
        house.visit(lambda sock: ids.append(id(sock._sock)))
        assert [id(one) for one in closed_ones()] == (ids[:1] if keeps(impl) else [])
    if keeps(impl):
        assert len(set(ids)) == 1
    house.server.close()
    assert closed_ones() == []


def test_several_clients_at_a_time(thawed, impl, house):
    """No two have the same object, and no more than one is left."""
    with contextlib.ExitStack() as stack:
        for _ in range(4):
            stack.enter_context(native.create_connection(house.server.address, timeout=5))
        house.server._do_read()
        calls, house.calls[:] = house.calls[:], []
        raws = {id(args[0]._sock) for _, _, _, args in calls}
        fds = {args[0].fileno() for _, _, _, args in calls}
        assert len(raws) == len(fds) == 4
        while calls:
            function, _, close, args = calls.pop()
            function(lambda sock, address: None, close, args)
        del close, args
    assert len(closed_ones()) == keeps(impl)
    house.visit()


def test_next_client_finds_a_new_one(impl, house):
    """Whatever was done to that of the client before."""
    def spoil(sock):
        sock._sock.settimeout(3)
        sock.settimeout(4)
        sock.setblocking(True)

    def look(sock):
        raw = sock._sock
        seen.append((raw.family, raw.type, raw.proto, raw.gettimeout(), sock.gettimeout(),
                     raw.fileno() == sock.fileno(), type(raw), sys.getrefcount(raw),
                     weakref.getweakrefcount(raw), raw.getpeername()[0]))

    seen = []
    house.visit(look)
    house.visit(spoil)
    house.visit(lambda sock: sock._sock.close())
    house.visit(look)
    house.visit(lambda sock: os.close(sock._sock.detach()))
    house.visit(look)
    assert seen == [seen[0]] * 3
    assert seen[0][:7] == (native.AF_INET, native.SOCK_STREAM, seen[0][2], 0.0, None, True, RAW)
    assert seen[0][8:] == (0, '127.0.0.1')


def test_one_that_somebody_has_is_left_to_him(impl, house):
    taken = []
    house.visit(lambda sock: taken.append(sock._sock))
    house.visit(lambda sock: taken.append(sock._sock))
    house.visit(lambda sock: taken.append(sock._sock))
    assert len(set(map(id, taken))) == 3
    assert [one.fileno() for one in taken] == [-1] * 3


def test_weak_references_end(impl, house):
    """As they do when it is freed."""
    ended = []

    def refer(sock):
        refs.append(weakref.ref(sock._sock, ended.append))

    refs = []
    house.visit(refer)
    house.visit(refer)
    gc.collect()
    assert ended == refs and [ref() for ref in refs] == [None, None]


def test_finalizers_run(impl, house, monkeypatch):
    """One that a class has got in the meantime, too."""
    ended = []
    house.visit()
    monkeypatch.setattr(RAW, '__del__', lambda self: ended.append(self.fileno()), raising=False)
    house.visit()
    house.visit()
    gc.collect()
    assert ended[-2:] == [-1, -1]


# -- what stands for it after closing ---------------------------------------------------------

@pytest.mark.fast_path('lookups', 'sockets')
def test_one_stand_in_is_kept_until_the_server_closes(thawed, impl, house):
    ids = []
    for _ in range(3):
        house.visit(after=lambda sock: ids.append(id(sock._sock)))
        assert [id(one) for one in stand_ins()] == (ids[:1] if keeps(impl) else [])
    if keeps(impl):
        assert len(set(ids)) == 1
    house.server.close()
    assert stand_ins() == []


def values(one):
    return tuple(getattr(one, name) for name in STAND_IN.__slots__)


def test_next_stand_in_is_a_new_one(impl, house):
    """Whatever was done to that of the client before."""
    def spoil(sock):
        sock._sock.family = sock._sock.description = 'spoilt'
        del sock._sock.type

    seen = []
    house.visit(after=spoil)
    house.visit(after=lambda sock: seen.append(values(sock._sock)))
    house.visit(after=lambda sock: seen.append(values(sock._sock)))
    (family, kind, proto, fd, why), again = seen
    assert again == seen[0] and (family, kind, why) == (
        native.AF_INET, native.SOCK_STREAM, 'closed')
    assert type(proto) is int and fd > 2


def test_stand_in_that_somebody_has_is_left_to_him(impl, house):
    """And one of a socket that is still there."""
    taken, sockets = [], []
    for _ in range(2):
        house.visit(after=lambda sock: taken.append(sock._sock))
        house.visit(after=sockets.append)
    found = taken + [sock._sock for sock in sockets]
    assert len(set(map(id, found))) == 4
    assert {values(one)[4] for one in found} == {'closed'} and not any(map(bool, found))


def test_stand_in_of_another_class(impl, house):
    """One that was given another class is not given to the next socket."""
    class Other(STAND_IN):
        __slots__ = ()

    def change(sock):
        sock._sock.__class__ = Other

    seen = []
    house.visit(after=change)
    house.visit(after=lambda sock: seen.append(type(sock._sock)))
    assert seen == [STAND_IN]


def test_finalizers_of_stand_ins_run(impl, house, monkeypatch):
    """Those of a class that has got one in the meantime, too."""
    ended = []
    house.visit()
    monkeypatch.setattr(STAND_IN, '__del__', lambda self: ended.append(self.description),
                        raising=False)
    house.visit()
    house.visit()
    gc.collect()
    assert ended[-2:] == ['closed'] * 2


def test_handler_that_closes_has_it_alone(impl, house):
    """What it puts there ends with the socket."""
    class Thing:
        pass

    def close(sock):
        sock.close()
        one = Thing()
        sock._sock.description, sock._sock.family = one, sock
        ends.append((weakref.ref(one), weakref.ref(sock)))
        references.append(sys.getrefcount(sock._sock))

    ends, references = [], []
    house.visit()
    for _ in range(3):
        house.visit(close)
    gc.collect()
    assert [(one(), sock()) for one, sock in ends] == [(None, None)] * 3
    assert len(set(references)) == 1 and references[0] <= 2
