"""The line that tells that it is on: for the logger ``gevent_cbase``."""
import sys

import gevent

from gevent_cbase._native import known, premises
from gevent_cbase._native.paths import FAST_PATHS
from gevent_cbase._native.switches import why_off
from gevent_cbase._version import __version__

#: levels, as in logging, which may not be imported yet, and is not for us to import
INFO, WARNING = 20, 30

#: what a fast path is compared with, or needs; it is for the program to import
_ABOUT = dict.fromkeys(('sockets', 'watchers', 'closing', 'io', 'greenlets'), 'gevent.server')
_ABOUT['pools'] = 'gevent.pool'


def tell(shown):
    """Tell it: INFO, or WARNING if this gevent is not known.

    Where the program has no handler for it, INFO goes to stderr if *shown*, and WARNING always, as
    by logging's last resort.
    """
    level = WARNING if _is_unknown() else INFO
    logging = sys.modules.get('logging')
    logger = getattr(logging, 'getLogger', lambda name: None)('gevent_cbase')  # may be half loaded
    if logger is not None and logger.hasHandlers():
        if logger.isEnabledFor(level):
            logger.log(level, '%s', line())
    elif (shown or level == WARNING) and not (logger and logger.level > level) and sys.stderr:
        sys.stderr.write(line() + '\n')


def line():
    """Versions, and what is off and why, as far as that can be told without importing anything of
    gevent.
    """
    parts = ['gevent_cbase %s is on: gevent %s, CPython %s' % (
        __version__, gevent.__version__, sys.version.split()[0])]
    if _is_unknown():
        parts.append('this gevent is newer than %s, the newest that is known' % _newest())
    names = {}
    for name, reason in _off():
        names.setdefault(reason, []).append(name)
    parts += ['off: %s (%s)' % (', '.join(off), reason) for reason, off in names.items()]
    return '; '.join(parts)


def _off():
    """Yield (fast path, why it is off)."""
    for name, why in FAST_PATHS.items():
        reason = why() if _ABOUT.get(name, 'gevent') in sys.modules else why_off(name)
        if reason is not None:
            yield name, reason


def _newest():
    return max(known.NEWEST.values(), key=premises.numbers)


def _is_unknown():
    return premises.release() > premises.numbers(_newest())
