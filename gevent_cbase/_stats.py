"""servers() and stats(): which there are, what one has done so far, and how."""
import os
from typing import NamedTuple

from gevent_cbase import _cbase, datastack
from gevent_cbase._native import function_calls as _function_calls
from gevent_cbase._native import socket_io as _socket_io
from gevent_cbase._native import sockets as _sockets
from gevent_cbase._native.paths import FAST_PATHS


class ServerStats(NamedTuple):
    """What stats() returns: counts and seconds since the server was made, and two facts."""

    accepted: int
    spawn_errors: int
    accept_errors: dict
    full_pauses: int
    full_seconds: float
    backoff_pauses: int
    backoff_seconds: float
    delay: float
    fast_paths: dict


for _name, _doc in {
    'accepted': 'Connections (or what else do_read() returns) that were taken.',
    'spawn_errors': 'Of these, those whose handler could not be started: the spawn function has '
                    'raised, or, with spawn=None, the handler itself.',
    'accept_errors': 'How often do_read() has raised, by errno; 0 for all that has none.',
    'full_pauses': 'How often accepting has stopped because full() was true.',
    'full_seconds': 'How long, in seconds, with a pause that is under way.',
    'backoff_pauses': 'How often accepting has stopped because of an error.',
    'backoff_seconds': 'How long, in seconds, with a pause that is under way.',
    'delay': 'How long the next pause after an error will be, in seconds; negative: none.',
    'fast_paths': 'By the names that --info shows: None if the server takes this fast path now, '
                  'else why it does not, as text.',
}.items():
    getattr(ServerStats, _name).__doc__ = _doc


def servers():
    """Return the servers of this process on the class in C: a list, in no order.

    All that exist, of whatever class derived from BaseServer: made before install() or later, in
    any thread, not started yet, running or stopped; in a forked child those that it has inherited.
    It keeps none of them alive. An instance whose class did not call the constructor of BaseServer
    is among them once it has accepted.

    .. versionadded:: 1.0
    """
    return _cbase._stats_servers()


def stats(server):
    """Return the counters of a server, a ServerStats.

    *server*: an instance of BaseServer, of whatever class derived from it. Counting begins
    when the server is made or, for one that exists already, with install(), and goes on over
    stop() and start(). uninstall() and, in the child, os.fork() start over.

    Raises TypeError for anything else, and for a server on gevent's own class.

    .. versionadded:: 1.0
    """
    if not issubclass(type(server), getattr(_cbase, 'BaseServer', ())):
        if any((base.__module__, base.__qualname__) == ('gevent.baseserver', 'BaseServer')
               for base in type(server).__mro__):
            raise TypeError("this %s runs on gevent's own class, which counts nothing: call "
                            "gevent_cbase.install() first" % type(server).__qualname__)
        raise TypeError('a BaseServer is required, not %s' % type(server).__qualname__)
    counters = _cbase._stats_counters(server)
    delay = getattr(server, 'delay', server.min_delay)  # set by the constructor
    return ServerStats(*counters, delay, fast_paths(server))


def fast_paths(server):
    """{name: why the server does not take this fast path, or None}"""
    lookups, sockets, reads, accepts, closes, pools, plain = _cbase._stats_steps(server)
    no_lookups = None if lookups else _why_off('lookups') or (
        'its class, or its __dict__, has its own way with attributes')
    no_sockets = no_lookups or (
        None if sockets else _why_off('sockets')) or (
        _why_no_sockets(server, reads, accepts, closes))
    no_pools = no_lookups or (
        None if pools else _why_off('pools')) or (
        _why_no_pools(server, plain))
    return {
        'lookups': no_lookups,
        'sockets': no_sockets,
        'watchers': no_sockets or _sockets._watchers_off(),
        'closing': (None if sockets else _why_off('sockets')) or (
            _function_calls.off('closing')),
        'io': (None if sockets else _why_off('sockets')) or (
            _function_calls.off('io') or _socket_io.why_off()),
        'pools': no_pools,
        'greenlets': _why_no_greenlets(server, plain),
        'datastack': datastack.why_off(),
    }


def _why_off(name):
    return FAST_PATHS[name]()


def _why_no_sockets(server, reads, accepts, closes):
    if not reads:
        return 'do_read is not that of gevent.server.StreamServer'
    if 'socket' not in object.__getattribute__(server, '__dict__'):
        return 'there is no listening socket now'
    if not accepts and _cbase._has_no_accept4():
        return 'the kernel has no accept4(): only closing is native'
    if not accepts:
        return 'the listening socket is not one of gevent, or blocks, or is of an unknown family'
    if not closes:
        return 'do_close is not that of gevent.server.StreamServer: only accepting is native'


def _why_no_pools(server, plain):
    if getattr(server, 'pool', None) is None:
        return 'there is no pool'
    if not plain:
        return 'the pool is not a plain gevent.pool.Pool'


def _why_no_greenlets(server, plain):
    spawn = getattr(server, '_spawn', None)
    if spawn is None:
        return 'handlers run in the hub'
    pool = getattr(spawn, '__self__', None)
    if plain:
        spawn = getattr(pool.greenlet_class, 'spawn', None)
    taken = _cbase._greenlets_taken(spawn)
    if taken:
        return None
    if taken is None and (reason := _why_off('greenlets')):
        return reason
    if not plain and pool is not None and pool is getattr(server, 'pool', None):
        return 'pools is off'
    return 'spawn is not one of gevent'


os.register_at_fork(after_in_child=lambda: _cbase._stats_start_over(True))
