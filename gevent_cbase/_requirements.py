"""Imported first: an ImportError that says what is missing, before anything else fails."""
import importlib
import os
import re
import sys

from gevent_cbase._native import known
from gevent_cbase._version import __version__


def check():
    """Raise ImportError if this cannot work here."""
    if sys.implementation.name != 'cpython':
        _fail('is an extension of CPython; on %s use gevent itself' % sys.implementation.name)
    for name, needed in known.OLDEST.items():
        try:
            found = importlib.import_module(name).__version__
        except ImportError as ex:
            _fail('needs %s %s or newer, and importing it fails: %s' % (name, needed, ex), ex)
        if numbers(found) < numbers(needed):
            _fail("needs %s %s or newer, and this is %s: pip install -U '%s>=%s'" % (
                name, needed, found, name, needed))
    try:
        import gevent_cbase._cbase  # noqa: F401
    except ModuleNotFoundError as ex:
        if ex.name != 'gevent_cbase._cbase':
            raise
        folder = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
        _fail('in %s is not built for this Python (%s): pip install it with this one. If that is '
              'its source tree, which hides what was installed elsewhere, run this there: '
              'python -m pip install -e .' % (folder, sys.implementation.cache_tag), ex)


def numbers(version):
    """The release of a version as integers; what follows it (dev0, a1, post1) is left out."""
    return [int(number) for number in re.match(r'[\d.]*\d|', version)[0].split('.') if number]


def check_extra(ex, package, extra):
    """Say what gevent_cbase.<extra> needs, if *ex* is that *package*, or part of it, is not there.
    """
    if (ex.name or '').partition('.')[0] == package:
        raise ModuleNotFoundError("gevent_cbase.%s needs %s: pip install 'gevent_cbase[%s]'" % (
            extra, package, extra), name=ex.name) from None


def _fail(why, cause=None):
    raise ImportError('gevent_cbase %s %s' % (__version__, why), name='gevent_cbase') from cause


check()
