"""Is the installed gevent the one that the native steps were written for?

The C code of a native step stands for a few Python functions, its parts. They are compared with
those it was written for: code object, defaults, and all that the code reads by a name: globals,
builtins, cells. If anything differs, the step stays off and gevent's own code runs.

Another thread, or a finalizer, may change gevent in the middle of a comparison. So what is handed
to the C code is what was there before: stamps() of the classes come first, then noted(), and
then what compares. All of it is looked up in one Snapshot.
"""
import builtins
import importlib
import sys
import types
from collections import namedtuple

import gevent

from gevent_cbase import _cbase
from gevent_cbase._native import digests, known
from gevent_cbase._requirements import numbers

#: what makes objects and sets their attributes
PLAIN = ('__new__', '__getattribute__', '__setattr__', '__delattr__')

_ABSENT = object()

#: (name, code object) of parts that were found to be known
_known_codes = set()

#: A function as it was noted. `reads`: (namespace, name) and what was there, if anything was, for
#: each name that the code reads; `cells`: its variables of functions around it, the same.
Part = namedtuple('Part', 'function code defaults kwdefaults reads cells')


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


def stamps(*classes):
    """Each class with a stamp that changes whenever the class or one of its bases does."""
    return tuple((cls, _cbase._class_stamp(cls)) for cls in classes)


def noted(paths, snapshot):
    """The functions at these paths, each as a Part, or as it is if it is none in Python.

    *paths*: for each name one, to be looked up in the *snapshot*.
    """
    return {name: _noted(snapshot[path]) for name, path in paths.items()}


def _noted(function):
    if type(function) is not types.FunctionType:
        return function
    code = function.__code__
    return Part(function, code, function.__defaults__, function.__kwdefaults__,
                tuple(_reads(function, code)), tuple(_cells(function)))


def _reads(function, code):
    for name in digests.global_names(code):
        yield (function.__globals__, name, *_held(function.__globals__, name))
        value = function.__globals__.get(name, _ABSENT)
        if value is _ABSENT:
            yield (function.__builtins__, name, *_held(function.__builtins__, name))
        elif type(value) is types.ModuleType:  # what is read of it is among these names
            names = vars(value)
            for attribute in code.co_names:
                if attribute in names:
                    yield (names, attribute, *_held(names, attribute))


def _held(namespace, name):
    value = namespace.get(name, _ABSENT)
    return () if value is _ABSENT else (value,)


def _cells(function):
    for cell in function.__closure__ or ():
        try:
            yield cell, cell.cell_contents
        except ValueError:
            yield cell, _ABSENT


def given(stamps, parts):
    """What the C code has to watch, for _cbase: classes, functions, names, cells."""
    parts = list(parts)
    reads = {}
    for part in parts:
        for namespace, *read in part.reads:
            reads.setdefault(id(namespace), (namespace, {}))[1][read[0]] = tuple(read)
    return (stamps, tuple(part[:4] for part in parts),
            tuple((namespace, tuple(read.values())) for namespace, read in reads.values()),
            tuple(cell for part in parts for cell in part.cells))


def differences(parts, snapshot):
    """Yield what of the noted() *parts* is not as it is known, each as text."""
    for name, part in parts.items():
        yield from _differences(name, part, snapshot)


def _differences(name, part, snapshot):
    if not is_known(name, part):
        yield 'gevent has another %s' % name
        return  # it reads other names
    expected = known.DEFAULTS.get(name)
    if not _are_values(part.defaults, expected, snapshot) or part.kwdefaults is not None:
        yield 'gevent has other defaults of %s' % name
    module = next((module for module in known.GLOBALS
                   if vars(snapshot[module]) is part.function.__globals__), None)
    if module is None or part.function.__builtins__ is not vars(builtins):
        yield 'gevent has other globals of %s' % name
        return
    for read in sorted({read for namespace, read, *value in part.reads if not _is_expected(
            namespace, read, value, part, known.GLOBALS[module], snapshot)}):
        yield 'gevent has another %s in %s' % (read, name)
    cells = [value for _, value in part.cells] or None
    if not _are_values(cells, known.CELLS.get(name), snapshot):
        yield 'gevent has another %s around %s' % (', '.join(part.code.co_freevars), name)


def is_known(name, part):
    """Whether this is a function with the code that is known for this name."""
    return type(part) is Part and is_known_code(name, part.code)


def is_known_code(name, code):
    """Whether a function of this name has this code."""
    if (name, code) not in _known_codes:
        if digests.digest(code) not in digests_of(name):
            return False
        _known_codes.add((name, code))
    return True


def digests_of(name):
    """The digests that are known for this name, on this CPython."""
    return known.CODE.get(digests.VERSION, {}).get(name, '').split()


def _is_expected(namespace, name, value, part, names, snapshot):
    """Whether *value*, a list of one or none, is what has to be there."""
    if namespace is vars(builtins):
        return value != [] and _is_builtin(name, value[0])
    if namespace is not part.function.__globals__:
        return True  # it is used as it is, and must only stay
    if name in names:
        return value != [] and _is_value(value[0], names[name], snapshot)
    return value == []


def _is_builtin(name, value):
    """Whether this is CPython's: a function in C of the module builtins, or a class that nobody
    can change.
    """
    if type(value) is types.BuiltinFunctionType:
        return value.__self__ is builtins and value.__name__ == name
    return (isinstance(value, type) and not value.__flags__ & HEAP_TYPE
            and value.__name__ == name)


#: Py_TPFLAGS_HEAPTYPE
HEAP_TYPE = 1 << 9


def _are_values(values, expected, snapshot):
    if values is None or expected is None:
        return values is expected
    return len(values) == len(expected) and all(
        _is_value(value, one, snapshot) for value, one in zip(values, expected))


def _is_value(value, expected, snapshot):
    """Whether a value is the *expected* one: a text is the path of an object."""
    if isinstance(expected, str):
        return value is snapshot[expected]
    return type(value) is type(expected) and value == expected


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


def not_known(cls, parts, live=()):
    """Yield which of the names that the known *parts* read the class has neither from them nor
    from C, each as text.

    *live*: names that count for objects of other classes only, or that the step looks up itself.
    """
    methods, names = {}, set()
    for name, part in parts.items():
        methods.setdefault(name.rpartition('.')[2], getattr(part, 'function', part))
        if is_known(name, part):
            names.update(part.code.co_names)
    for name in sorted(names.difference(live)):
        value = next((vars(base)[name] for base in cls.__mro__ if name in vars(base)), _ABSENT)
        if isinstance(value, property):
            value = value.fget
        if not (value is _ABSENT or value is methods.get(name) or _is_of_c(value, name, cls)):
            yield 'gevent has another %s.%s' % (cls.__name__, name)


def _is_of_c(value, name, cls):
    """Whether this is what a class in C, or __slots__, has for a name."""
    kinds = (types.MemberDescriptorType, types.GetSetDescriptorType, types.MethodDescriptorType,
             types.WrapperDescriptorType)
    return (type(value) in kinds and value.__name__ == name and value.__objclass__ in cls.__mro__)


def why_off(prepare):
    """Call *prepare*; what it returns, or the Exception it raises as text."""
    try:
        return prepare()
    except Exception as ex:
        return told(ex)


def told(ex):
    """An exception as text."""
    return '%s: %s' % (type(ex).__name__, ex)
