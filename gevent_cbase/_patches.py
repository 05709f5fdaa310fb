"""What programs set on gevent's class and on ours: it has to hold for the one that is in force.

A program may patch BaseServer before install() and take the patch back after it, or do so with
uninstall() in between. It holds the class that was in force when it began. So what is set on
gevent's class while ours is in force is set on ours as well; and what was set on ours is set on
gevent's by uninstall(), and is taken back there when the program takes it back on ours.
"""
import _thread
import contextlib
import types

from gevent_cbase import _cbase
from gevent_cbase._native import digests, known, premises

MISSING = object()

#: held by install() and uninstall(), and while one name is carried over: of the thread, whatever
#: has been patched
lock = _thread.RLock()

#: the changes to make after the one that this thread is within, or None if there is none
_to_do = None

#: what is set on classes by the interpreter and by copyreg
_NOT_OF_PROGRAMS = {'__dict__', '__weakref__', '__firstlineno__', '__static_attributes__',
                    '__annotate_func__', '__annotations_cache__', '__slotnames__'}

#: where gevent's own functions are
PARTS = {name: 'gevent.baseserver:' + name + ('.fget' if name in (
    'BaseServer.server_host', 'BaseServer.server_port', 'BaseServer.started',
    'BaseServer.closed') else '')
    for name in known.CODE['3.10'] if name.partition('.')[0] in (
        'BaseServer', 'parse_address', '_parse_address', '_extract_family',
        '_handle_and_close_when_done')}

#: Patches of each class that is linked
_linked = {}


# One change at a time

@contextlib.contextmanager
def one_change():
    """A change of the classes. What it runs, finalizers for instance, may ask one_by_one() for
    another one: that is made after it.
    """
    global _to_do
    with lock:
        if _to_do is not None:
            yield
            return
        _to_do = []
        try:
            yield
        finally:
            waiting, _to_do = _to_do, None
            for change, *args in waiting:
                one_by_one(change, *args)


def one_by_one(change, *args):
    """Call *change*: now, or after the change that this thread is within."""
    with lock:
        if _to_do is not None:
            _to_do.append((change, *args))
            return
        with one_change():
            change(*args)


# Which functions are gevent's own

class Known:
    """Tells gevent's own functions from what a program has put in their place.

    By digests of their code: an import hook may have rewritten gevent.baseserver, and then that is
    what the program wants to run. A CPython without digests takes the code that the module's
    loader has, which such a hook may have rewritten as well.
    """

    def __init__(self, module):
        self.namespace = vars(module)
        self.by_loader = {} if digests.VERSION in known.CODE else _digests_of_loader(module)

    def is_other(self, name, value):
        """Whether this is a function, or has one, and is not what gevent has under that name."""
        return isinstance(value, (types.FunctionType, property)) and not self.has(name, value)

    def has(self, name, value):
        """Whether gevent has this under *name*, as ``BaseServer.start``."""
        if type(value) is property:
            if value.fset is not None or value.fdel is not None:
                return False
            value = value.fget
        return (type(value) is types.FunctionType
                and value.__globals__ is self.namespace
                and value.__defaults__ == known.BASESERVER_DEFAULTS.get(name)
                and not (value.__kwdefaults__ or value.__closure__ or vars(value))
                and (premises.is_known_code(name, value.__code__)
                     or digests.digest(value.__code__) == self.by_loader.get(name)))


def _digests_of_loader(module):
    try:
        code = module.__spec__.loader.get_code(module.__name__)
        return {name: digests.digest(function) for name, function in _functions(code)}
    except Exception:  # there is no code: then nothing is known to be gevent's
        return {}


def _functions(code, prefix=''):
    """Yield (name, code object) of the functions in this code of a module or a class."""
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            name = prefix + constant.co_name
            yield name, constant
            if not prefix and constant.co_name == 'BaseServer':
                yield from _functions(constant, 'BaseServer.')


def differences(parts, snapshot):
    """Yield which of the noted PARTS are not as they are known, each as text."""
    for name, part in parts.items():
        if not premises.is_known(name, part):
            yield 'gevent has another %s' % name


# Patches

class Patches:
    """What programs have set on gevent's class *old*, and on *ours*."""

    def __init__(self, old, ours, made_with, known):
        self.old, self.ours, self.known = old, ours, known
        #: what our class was made with, by name
        self.made_with = made_with
        #: gevent's own functions, by name, as they were seen on its class
        self.gevents = {}
        #: what ours has without install(), by name, where that is something else
        self.former = {}
        #: what ours had, by name, when the classes were last made the same
        self.seen = {}
        #: what ours had before a program has set something on it, by name, until it is taken back
        self.to_take_back = {}

    def begin(self):
        """Our class comes into force, or is: it gets what was set on gevent's."""
        _unlink(self.ours)
        if not self.seen:
            for name, former in self.former.items():
                _set(self.ours, name, former)
            self.former.clear()
            self.seen.update(_namespace(self.ours))
        _link(self.old, self)
        self.update_gevents()
        for name in {*_namespace(self.old), *self.made_with}:  # it may have been deleted there
            self._to_ours(name)

    def end(self):
        """It is no longer: it is as before, and gevent's class gets what was set on it."""
        self.update_gevents()
        _unlink(self.old)
        self.seen.clear()
        for name in {*self.former, *self.to_take_back}:
            self.former.setdefault(name, _get(self.ours, name))
            self._forget_if_taken_back(name)
        if self.to_take_back:
            _link(self.ours, self)

    def update_gevents(self):
        """Set on gevent's class what a program has set on ours, which is in force."""
        for name in {*_namespace(self.ours), *self.seen} if self.seen else ():
            value, seen = _get(self.ours, name), self.seen.get(name, MISSING)
            if value is not seen and _is_of_programs(name):
                if self.to_take_back.setdefault(name, seen) is value:
                    del self.to_take_back[name]
                self.former.setdefault(name, seen)
                self.seen[name] = value
                self._to_gevents(name)

    def changed(self, cls, name):
        """A program has set or deleted an attribute of a class that is not in force."""
        if not _is_of_programs(name):
            return
        if cls is self.old:
            self._to_ours(name)
        elif name in self.to_take_back:
            self._to_gevents(name)
            self._forget_if_taken_back(name)
            if not self.to_take_back:
                _unlink(self.ours)

    def original(self, cls, name):
        """What the class had before a program has set something else."""
        had = self.made_with if cls is self.ours else self.gevents
        return had.get(name, _namespace(cls).get(name))

    def _forget_if_taken_back(self, name):
        """If a program has nothing of its own on our class, that is as without install()."""
        value = _get(self.ours, name)
        if self.to_take_back.get(name, value) is value:
            self.to_take_back.pop(name, None)
            _set(self.ours, name, self.former.pop(name))

    def _to_ours(self, name):
        if not _is_of_programs(name):
            return
        value, current = _get(self.old, name), _get(self.ours, name)
        former = self.former.get(name, current)
        if self.known.has('BaseServer.' + name, value):
            self.gevents[name] = value
            value = former
        if not _are_equal(value, current):
            self.former[name] = former
            _set(self.ours, name, value)
        self.seen[name] = _get(self.ours, name)

    def _to_gevents(self, name):
        value = _get(self.ours, name)
        if value is self.made_with.get(name, MISSING):
            value = self.gevents.get(name, value)
        _set(self.old, name, value)


def _is_of_programs(name):
    """Whether it is for a program to set this attribute of a class."""
    return name not in _NOT_OF_PROGRAMS and not hasattr(vars(type).get(name), '__set__')


def _namespace(cls):
    return type.__dict__['__dict__'].__get__(cls)


def _get(cls, name):
    return _namespace(cls).get(name, MISSING)


def _set(cls, name, value):
    if value is _get(cls, name):
        return
    if value is MISSING:
        type.__delattr__(cls, name)
    else:
        type.__setattr__(cls, name, value)


def _are_equal(one, other):
    """Whether it makes no difference which of them a class has."""
    try:
        return one is other or type(one) is type(other) and bool(one == other)
    except Exception:  # how values compare is their own affair
        return False


#: of a class that is in force again
_NO_PATCHES = types.SimpleNamespace(old=None, changed=lambda cls, name: None)


# Classes that are not in force

class _NotInForce(type):
    """The metaclass of a class that is not in force, where somebody may still hold it."""

    def __getattribute__(cls, name):
        with _looked_at(cls):
            return type.__getattribute__(cls, name)

    def __setattr__(cls, name, value):
        with one_change(), _looked_at(cls) as patches:
            type.__setattr__(cls, name, value)
            patches.changed(cls, name)

    def __delattr__(cls, name):
        with one_change(), _looked_at(cls) as patches:
            type.__delattr__(cls, name)
            patches.changed(cls, name)

    def __new__(metacls, name, bases, namespace, **options):
        return type(name, tuple(map(_in_force, bases)), namespace, **options)

    def __call__(cls, *args, **options):
        return type.__call__(_in_force(cls), *args, **options)

    def __instancecheck__(cls, instance):
        now = _in_force(cls)
        return (type.__instancecheck__(cls, instance)
                or now is not cls and isinstance(instance, now))

    def __subclasscheck__(cls, subclass):
        now = _in_force(cls)
        return (type.__subclasscheck__(cls, subclass)
                or now is not cls and issubclass(subclass, now))


@contextlib.contextmanager
def _looked_at(cls):
    """The Patches of a class that is not in force; gevent's has what was set on ours, by then."""
    with lock:
        patches = _linked.get(cls, _NO_PATCHES)
        if cls is patches.old:
            with one_change():
                patches.update_gevents()
        yield patches


def _in_force(cls):
    """Our class, if this is gevent's and ours is in force."""
    patches = _linked.get(cls, _NO_PATCHES)
    return patches.ours if cls is patches.old else cls


def _link(cls, patches):
    if type(cls) is type:  # some other metaclass would not know what this one does
        _linked[cls] = patches
        _cbase._set_metaclass(cls, _NotInForce)


def _unlink(cls):
    if _linked.pop(cls, None) is not None:
        _cbase._set_metaclass(cls, type)
