"""The data-stack cache: greenlets that start without asking the system for memory.

CPython 3.11 and newer keep Python frames on a *data stack*, made of chunks of 16 KiB. Every
greenlet that runs Python code has one of its own, and CPython maps its first chunk when the
greenlet starts and unmaps it when the greenlet has ended. That takes longer than all else
that is needed to start a greenlet and end it. The cache keeps chunks of greenlets that have
ended for those that start next.

install() enables it. It needs neither install() nor a server, though: every program that
starts greenlets can call enable() by itself.

The cache belongs to the process, all threads share it. A forked child inherits it and goes
on with its own copy. It holds ``max_chunks`` chunks at most, which is ``max_chunks`` times
16 KiB of address space; of that, a chunk takes as much real memory as its greenlets have
touched, most often the first page or two.
"""
import sys
from collections import namedtuple

import greenlet

from gevent_cbase import _cbase
from gevent_cbase._native import switches

__all__ = ['DEFAULT_MAX_CHUNKS', 'Stats', 'disable', 'enable', 'is_enabled', 'stats', 'why_off']

#: How many chunks are kept unless enable() is told otherwise: 16 MiB of address space. Chosen
#: by the percentage of greenlets that get their chunk from the cache:
#:
#:     limit                                             64   256   512  1024  2048
#:     greenlets that never wait                        100   100   100   100   100
#:     5000 alive on average, starting one by one        98    99    99    99    99
#:     5000 alive on average, starting 100 at a time     48    85    94    99    99
#:     1000 alive at once, then none, and again           6    26    51   100   100
#:     5000 alive at once, then none, and again           1     5    10    20    41
#:
#: What counts is by how much the number of greenlets varies, not how large it is. A server
#: starts 100 at a time (max_accept), and up to 1000 in a gunicorn worker. Beyond 1024 only
#: larger bursts gain, in proportion to the memory.
DEFAULT_MAX_CHUNKS = 1024

#: whether it is there on this platform
BUILT = hasattr(_cbase, '_datastack_enable')

Stats = namedtuple('Stats', 'hits misses cached limit')
Stats.__doc__ = """What stats() returns."""
Stats.hits.__doc__ = 'Chunks handed out from the cache since the process started.'
Stats.misses.__doc__ = 'Chunks asked for while it was on but empty.'
Stats.cached.__doc__ = 'Chunks in the cache now.'
Stats.limit.__doc__ = 'How many it keeps at most; 0 if it is off.'

_failure = None  # why the last enable() did not succeed
_by_install = False  # enabled by install() alone, so uninstall() disables it


def enable(max_chunks=DEFAULT_MAX_CHUNKS):
    """Keep up to *max_chunks* chunks for greenlets to come; return whether that works.

    May be called again, with another limit; chunks that are then too many are given back.
    Where it does not work, nothing is changed and why_off() tells the reason.

    .. versionadded:: 1.0
    """
    global _by_install
    _by_install = False
    return _enable(max_chunks)


def disable():
    """Give back all chunks in the cache and keep none from now on.

    .. versionadded:: 1.0
    """
    global _by_install, _failure
    _by_install = False
    _failure = None
    if BUILT:
        _cbase._datastack_disable()


def is_enabled():
    """Return whether chunks are kept now.

    .. versionadded:: 1.0
    """
    return why_off() is None


def why_off():
    """Return why the cache is off, as text; None if it is on.

    .. versionadded:: 1.0
    """
    if not BUILT:
        return 'not built on this platform'
    if sys.version_info < (3, 11):
        return 'CPython %d.%d has no data stack' % sys.version_info[:2]
    if stats().limit:
        if _cbase._datastack_is_reached():
            return None
        return 'another arena allocator has taken its place'
    return switches.why_off('datastack') or _failure or _forbidden() or 'not enabled'


def stats():
    """Return a named tuple of hits, misses, the number of chunks cached, and the limit.

    .. versionadded:: 1.0
    """
    if not BUILT:
        return Stats(0, 0, 0, 0)
    return Stats(*_cbase._datastack_stats())


def _enable(max_chunks):
    global _failure
    if not BUILT:
        return False
    was_on = stats().limit
    _cbase._datastack_enable(max_chunks)
    if was_on or _works():
        _failure = None
    else:
        _cbase._datastack_disable()
        _failure = 'a greenlet has ended and left no data-stack chunk of the known size to it'
    return _failure is None


def _works():
    """With the cache just enabled and empty: whether it gets what a greenlet leaves."""
    hits = stats().hits
    greenlet.greenlet(lambda: None).switch()
    now = stats()
    return now.cached > 0 or now.hits > hits  # another thread may have been faster


# For install() and uninstall()


def _forbidden():
    return switches.why_off('datastack') or switches.why_not('GEVENT_CBASE_DATASTACK')


def _on_install():
    global _by_install
    switches.check('GEVENT_CBASE_DATASTACK')
    if not _forbidden() and not stats().limit:
        _by_install = _enable(DEFAULT_MAX_CHUNKS)


def _on_uninstall():
    if _by_install:
        disable()
