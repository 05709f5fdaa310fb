"""gevent.baseserver in C: a drop-in accept loop for every gevent server."""
from gevent_cbase import _requirements  # noqa: F401  first: says what is missing
from gevent_cbase._native import paths as _paths  # noqa: F401  switches off what has to be off
from gevent_cbase._install import install, is_installed, uninstall
from gevent_cbase._stats import ServerStats, servers, stats
from gevent_cbase._version import __version__

__all__ = ['BaseServer', 'ServerStats', 'install', 'is_installed', 'parse_address', 'servers',
           'stats', 'uninstall', '__version__']


def __getattr__(name):
    """What is imported no earlier than a program asks for it: it binds gevent's Greenlet."""
    if name in ('BaseServer', 'parse_address', 'baseserver'):
        import gevent_cbase.baseserver as module
        return module if name == 'baseserver' else getattr(module, name)
    raise AttributeError('module %r has no attribute %r' % (__name__, name))
