"""gevent.baseserver in C: a drop-in accept loop for every gevent server."""
from gevent_cbase import _requirements  # noqa: F401  first: says what is missing
from gevent_cbase._native import paths as _paths  # noqa: F401  switches off what has to be off
from gevent_cbase._install import install, is_installed, uninstall
from gevent_cbase._stats import ServerStats, stats
from gevent_cbase._version import __version__
from gevent_cbase.baseserver import BaseServer, parse_address

__all__ = ['BaseServer', 'ServerStats', 'install', 'is_installed', 'parse_address', 'stats',
           'uninstall', '__version__']
