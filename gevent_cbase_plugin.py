"""gevent's plugin: with ``GEVENT_CBASE=1`` in the environment, ``gevent.monkey.patch_all()`` calls
``gevent_cbase.install()``.

gevent calls it in every program that patches all. So it is a module of its own, and imports
nothing of gevent_cbase unless it is asked to.
"""
import os


def did_patch_all(event):
    """The entry point ``gevent.plugins.monkey.did_patch_all``: all has been patched.

    A gevent_cbase that cannot work here is left off, with a RuntimeWarning that says why.
    """
    if os.environ.get('GEVENT_CBASE', '').strip() in ('', '0'):
        return
    try:
        from gevent_cbase import _install
    except ImportError as ex:
        import warnings
        warnings.warn('GEVENT_CBASE has no effect: %s' % ex, RuntimeWarning, stacklevel=2)
        return
    _install.install_by_environment()
