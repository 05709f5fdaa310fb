"""The fast paths: which there are, and the switch for each.

``GEVENT_CBASE_WITHOUT`` in the environment names those to do without, as ``sockets,pools``, or
is ``all``. It is for finding out whether one of them is to blame for something, and for the
tests: each must be right without the others.
"""
from gevent_cbase import _cbase, datastack
from gevent_cbase._native import (  # tls: C imports it
    greenlets,
    pools,
    sockets,
    switches,
    tls,  # noqa: F401
)


def _lookups_off():
    return switches.why_off('lookups') or _cbase._hooks_off()


def _with_lookups(why_off):
    """The same for a fast path that the loop takes only where it need not look things up."""
    return lambda: _lookups_off() or why_off()


#: what tells why it is off (None: it is on), by name
FAST_PATHS = {
    'lookups': _lookups_off,                # attributes that the loop needs are remembered
    'sockets': _with_lookups(sockets.why_off),            # accepting and closing in C
    'watchers': _with_lookups(sockets.why_watchers_off),  # those of closed sockets are used again
    'closing': sockets.why_closing_off,     # sockets that handlers close are closed in C
    'io': sockets.why_io_off,               # gevent's sockets are read and written in C
    'pools': _with_lookups(pools.why_off),  # full() and spawn() of gevent's Pool in C
    'greenlets': greenlets.why_off,         # the handlers' greenlets are made in C
    'datastack': datastack.why_off,         # data-stack chunks are kept
}

switches.check_names(FAST_PATHS)
if switches.why_off('lookups'):
    _cbase._hooks_switch_off()
