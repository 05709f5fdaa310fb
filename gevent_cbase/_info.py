"""What ``python -m gevent_cbase --info`` tells."""
import platform
import sys

import gevent
import greenlet
from gevent import config

from gevent_cbase import _install
from gevent_cbase._native.paths import FAST_PATHS
from gevent_cbase._version import __version__


def fast_paths():
    """Yield (name, reason) for each fast path; the reason is None if the path is on."""
    for name, why_off in FAST_PATHS.items():
        yield name, why_off()


def lines():
    """Yield the report, line by line."""
    yield 'gevent_cbase %s' % __version__
    yield 'gevent       %s' % gevent.__version__
    yield 'greenlet     %s' % greenlet.__version__
    yield '%-12s %s (%s)' % (platform.python_implementation(), platform.python_version(),
                             sys.platform)
    loop = config.loop
    yield 'loop         %s.%s' % (loop.__module__, loop.__qualname__)
    if _install.is_installed():
        yield 'installed    yes'
    else:
        yield 'installed    no%s' % (': GEVENT_CBASE is set to switch it off'
                                     if _install.disabled() else '')
    unknown = _install.unknown()
    if unknown:
        yield 'in Python    %s: gevent, or this Python, has another one than is known' % (
            ', '.join(unknown))
    yield ''
    yield 'fast paths'
    for name, reason in fast_paths():
        yield '  %-20s %s' % (name, 'on' if reason is None else 'off: ' + reason)
