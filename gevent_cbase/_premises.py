"""Is the installed gevent the one that the native steps were written for?

The C code of a native step stands for a few Python functions of gevent. They are compared, by
their source text, with those it was written for; if one differs, or its source is not there to
be read, the step stays off and gevent's own code runs.
"""
import hashlib
import inspect

#: what makes objects and sets their attributes
PLAIN = ('__new__', '__getattribute__', '__setattr__', '__delattr__')

#: (name, class or code object) of parts that were found to be the known ones, and the defaults
#: of their arguments, which a program may change without changing the code
_compared = {}


def digest(part):
    """SHA-256 of the source text of a class or code object."""
    return hashlib.sha256(inspect.getsource(part).encode()).hexdigest()


def difference(parts, known):
    """The first of the *parts*, a dict, whose source is not a *known* one, as text; or None.

    *known*: for each name a digest, or several with spaces between.
    """
    for name, part in parts.items():
        code = getattr(part, '__code__', part)  # of a function that wraps another, its own
        defaults = [getattr(part, name, None) for name in ('__defaults__', '__kwdefaults__')]
        if (name, code) not in _compared:
            if digest(code) not in known[name].split():
                return 'gevent has another %s' % name
            _compared[name, code] = defaults
        if any(one is not other for one, other in zip(defaults, _compared[name, code])):
            return 'gevent has other defaults of %s' % name


def not_plain(cls, base, names=PLAIN):
    """Which of the *names* of *cls* is not that of *base*, as text; or None."""
    for name in names:
        if getattr(cls, name) is not getattr(base, name):
            return 'gevent has another %s.%s' % (cls.__name__, name)


def tried(prepare):
    """Call *prepare*; what it returns, or the exception it raises as text."""
    try:
        return prepare()
    except Exception as ex:
        return '%s: %s' % (type(ex).__name__, ex)
