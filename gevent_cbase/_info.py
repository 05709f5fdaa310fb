"""What ``python -m gevent_cbase --info`` tells."""
import platform
import sys

import gevent
import greenlet
from gevent import config

from gevent_cbase import _install
from gevent_cbase._native import premises
from gevent_cbase._native.paths import FAST_PATHS
from gevent_cbase._version import __version__


def fast_paths():
    """Yield (name, reason) for each fast path; the reason is None if the drop-in takes it."""
    disabled = _install.disabled()
    for name, why_off in FAST_PATHS.items():
        yield name, disabled or why_off()


def loop():
    """The name of gevent's event loop. Raises SystemExit, with a line for it, if there is none."""
    try:
        cls = config.loop
        return '%s.%s' % (cls.__module__, cls.__qualname__)
    except Exception as ex:  # it is imported, and GEVENT_LOOP may name anything
        why = ' '.join(premises.told(ex).split())
        sys.exit('gevent_cbase: gevent cannot load its event loop: %s' % why)


def lines():
    """Yield the report, line by line."""
    yield 'gevent_cbase %s' % __version__
    yield 'gevent       %s' % gevent.__version__
    yield 'greenlet     %s' % greenlet.__version__
    yield '%-12s %s (%s)' % (platform.python_implementation(), platform.python_version(),
                             sys.platform)
    yield 'loop         %s' % loop()
    if _install.is_installed():
        yield 'installed    yes'
    else:
        yield 'installed    no: %s' % (_install.disabled() or 'install() was not called')
    unknown = _install.unknown()
    if unknown:
        yield 'in Python    %s: gevent, or this Python, has another one than is known' % (
            ', '.join(unknown))
    yield ''
    yield 'fast paths'
    for name, reason in fast_paths():
        yield '  %-20s %s' % (name, 'on' if reason is None else 'off: ' + reason)
