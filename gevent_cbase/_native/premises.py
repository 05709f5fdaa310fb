"""Is the installed gevent the one that the native steps were written for?

The C code of a native step stands for a few Python functions of gevent. They are compared, by
their source text, with those it was written for; if one differs, or its source is not there to
be read, the step stays off and gevent's own code runs.

Another thread, or a finalizer, may change gevent in the middle of a comparison. So what is handed
to the C code is what was there before: stamps() of the classes come first, then noted(), and
then what compares.
"""
import hashlib
import inspect

import gevent

from gevent_cbase import _cbase
from gevent_cbase._native import known
from gevent_cbase._requirements import numbers

#: what makes objects and sets their attributes
PLAIN = ('__new__', '__getattribute__', '__setattr__', '__delattr__')

#: (name, class or code object) of parts that were found to be the known ones, and the defaults
#: of their arguments, which a program may change without changing the code
_compared = {}


def digest(part):
    """SHA-256 of the source text of a class or code object."""
    return hashlib.sha256(inspect.getsource(part).encode()).hexdigest()


def stamps(*classes):
    """Each class with a stamp that changes whenever the class or one of its bases does."""
    return tuple((cls, _cbase._class_stamp(cls)) for cls in classes)


def noted(parts):
    """The functions of a dict, or classes, each with its code and its arguments' defaults."""
    return {name: (part, getattr(part, '__code__', part), getattr(part, '__defaults__', None),
                   getattr(part, '__kwdefaults__', None))
            for name, part in parts.items()}


def difference(parts, digests):
    """The first of these noted() *parts* whose source is not the known one, as text; or None.

    *digests*: for each name one, or several with spaces between.
    """
    for name, (_, code, *defaults) in parts.items():
        if (name, code) not in _compared:
            if digest(code) not in digests[name].split():
                return 'gevent has another %s' % name
            _compared[name, code] = defaults
        if any(one is not other for one, other in zip(defaults, _compared[name, code])):
            return 'gevent has other defaults of %s' % name


def not_read(path):
    """Whether gevent is newer than the newest whose compiled code was read for a fast path."""
    # gevent.version_info says 20.0 in every release
    return numbers(gevent.__version__)[:2] > numbers(known.NEWEST[path])


def not_plain(cls, base, names=PLAIN):
    """Which of the *names* of *cls* is not that of *base*, as text; or None."""
    for name in names:
        if getattr(cls, name) is not getattr(base, name):
            return 'gevent has another %s.%s' % (cls.__name__, name)


def why_off(prepare):
    """Call *prepare*; what it returns, or the Exception it raises as text."""
    try:
        return prepare()
    except Exception as ex:
        return '%s: %s' % (type(ex).__name__, ex)
