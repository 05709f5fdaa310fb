"""Where C looks for the instance dict of an object: compat_instance_dict()."""
import ctypes
import sys

import gevent
import pytest

from helpers import LOOPBACK

WORD = ctypes.sizeof(ctypes.c_void_p)


def place(obj):
    """How far from the object its dict is, or NULL, in bytes; None: that is not looked at."""
    offset = type(obj).__dictoffset__
    managed = type(obj).__flags__ & 1 << 4 and sys.version_info >= (3, 12)
    return -3 * WORD if managed else offset if offset > 0 else None


def seen(obj):
    """The address that is there; None: CPython is asked."""
    at = place(obj)
    found = None if at is None else ctypes.c_void_p.from_address(id(obj) + at).value
    return None if found is None or found & 1 else found


class Plain:
    """An ordinary class."""


def made(impl, kind):
    return {'plain': Plain, 'greenlet': gevent.Greenlet, 'function': lambda: lambda: None,
            'server': lambda: impl.StreamServer(LOOPBACK, print)}[kind]()


@pytest.mark.parametrize('kind', ['plain', 'greenlet', 'function', 'server'])
def test_instance_dict(impl, kind):
    """It is nowhere or there: when nobody has asked for it, afterwards, and when it is another."""
    one = made(impl, kind)
    one.attribute = 1
    first = seen(one)
    assert first in (None, id(vars(one)))
    assert seen(one) == (None if place(one) is None else id(vars(one)))
    former, one.__dict__ = vars(one), dict(vars(one))
    assert vars(one) is not former
    assert seen(one) == (None if place(one) is None else id(vars(one)))
    if kind in ('plain', 'server'):
        del one.__dict__
        assert seen(one) is None and vars(one) == {}
        assert seen(one) == (None if place(one) is None else id(vars(one)))


def test_places():
    """Those of servers and greenlets are looked at where they are not hidden: but on 3.11."""
    assert place(gevent.Greenlet()) > 0
    assert (place(Plain()) is None) == (sys.version_info[:2] == (3, 11))
