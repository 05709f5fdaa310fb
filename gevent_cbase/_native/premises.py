"""Is the installed gevent the one that the native steps were written for?

The C code of a native step stands for a few Python functions of gevent. They are compared, by
their source text, with those it was written for; if one differs, or its source is not there to
be read, the step stays off and gevent's own code runs.

Another thread, or a finalizer, may change gevent in the middle of a comparison. So what is handed
to the C code is what was there before: stamps() of the classes come first, then noted(), and
then what compares. All of it is looked up in one Snapshot.
"""
import hashlib
import importlib
import inspect
import sys

import gevent

from gevent_cbase import _cbase
from gevent_cbase._native import known
from gevent_cbase._requirements import numbers

#: what makes objects and sets their attributes
PLAIN = ('__new__', '__getattribute__', '__setattr__', '__delattr__')

#: (name, class or code object) of parts that were found to be the known ones, and the defaults
#: of their arguments, which a program may change without changing the code
_compared = {}


class Snapshot(dict):
    """What gevent has, by its path, as ``gevent.server:StreamServer.do_read``.

    Each thing is looked up once: all methods are of the same class, whoever binds its name anew.
    A name after the colon is an attribute, or a key of a dict.
    """

    def __missing__(self, path):
        module, _, names = path.partition(':')
        owner, _, name = names.rpartition('.')
        if not name:
            found = importlib.import_module(module)
        else:
            holder = self[module + ':' + owner if owner else module]
            name = sys.intern(name)  # CPython's method cache would keep the string of each look-up
            found = holder[name] if isinstance(holder, dict) else getattr(holder, name)
        self[path] = found
        return found


def digest(part):
    """SHA-256 of the source text of a class or code object."""
    return hashlib.sha256(inspect.getsource(part).encode()).hexdigest()


def stamps(*classes):
    """Each class with a stamp that changes whenever the class or one of its bases does."""
    return tuple((cls, _cbase._class_stamp(cls)) for cls in classes)


def noted(paths, snapshot):
    """The functions or classes at these paths, each with its code and its arguments' defaults.

    *paths*: for each name one, to be looked up in the *snapshot*.
    """
    parts = {name: snapshot[path] for name, path in paths.items()}
    return {name: (part, code_of(part), getattr(part, '__defaults__', None),
                   getattr(part, '__kwdefaults__', None))
            for name, part in parts.items()}


def code_of(part):
    """What is compared of a function or class."""
    return getattr(part, '__code__', part)


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
    return release() > numbers(known.NEWEST[path])


def release():
    """The release of gevent, as [year, month]; gevent.version_info is the same in all."""
    return numbers(gevent.__version__)[:2]


def not_plain(cls, base, names=PLAIN):
    """Yield which of the *names* of *cls* are not those of *base*, each as text."""
    for name in names:
        if getattr(cls, name) is not getattr(base, name):
            yield 'gevent has another %s.%s' % (cls.__name__, name)


def why_off(prepare):
    """Call *prepare*; what it returns, or the Exception it raises as text."""
    try:
        return prepare()
    except Exception as ex:
        return told(ex)


def told(ex):
    """An exception as text."""
    return '%s: %s' % (type(ex).__name__, ex)
