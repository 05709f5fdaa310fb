"""gevent.baseserver in C, name for name.

Put in its place before gevent.server is imported, it carries every gevent server:

    import sys, gevent_cbase.baseserver
    sys.modules['gevent.baseserver'] = gevent_cbase.baseserver

gevent_cbase.install() does the same at any time.
"""
from gevent.greenlet import Greenlet

from gevent_cbase._cbase import (  # noqa: F401
    BaseServer,
    _bind_greenlet,
    _extract_family,
    _handle_and_close_when_done,
    _parse_address,
    parse_address,
)

__all__ = ['BaseServer']

# As in gevent.baseserver: what gevent has when this is imported.
BaseServer._spawn = Greenlet.spawn
_bind_greenlet(Greenlet)
del Greenlet, _bind_greenlet
