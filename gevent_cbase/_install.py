"""install() and uninstall(): make all of gevent run on the C class, and back."""
import gc
import sys
import types
import warnings
import weakref

from gevent_cbase import _cbase, _pool, _stream, _switches
from gevent_cbase import baseserver as ours
from gevent_cbase import datastack as _datastack

#: what gevent.baseserver and gevent_cbase.baseserver both define
NAMES = ('BaseServer', 'parse_address', '_parse_address', '_extract_family',
         '_handle_and_close_when_done')

_MISSING = object()
_installed = None


class _Installed:
    """What uninstall() has to know."""

    def __init__(self, originals, servers):
        #: gevent's own objects, by name
        self.originals = originals
        #: what was made on purpose of our class before install(), and stays so
        self.our_classes = weakref.WeakSet(ours.BaseServer.__subclasses__())
        self.our_names = {(id(namespace), name) for namespace, name, _ in
                          _holders([getattr(ours, name) for name in NAMES])}
        #: what install() changed on our class, as (name, former value or nothing)
        self.carried = []
        self.our_servers = [weakref.ref(server) for server in servers
                            if type(server) is ours.BaseServer]


def disabled():
    """Return whether the environment variable GEVENT_CBASE forbids install()."""
    return _switches.says_no('GEVENT_CBASE')


def install(*, datastack=True):
    """Make ``gevent.baseserver.BaseServer``, and every class derived from it, ours.

    Classes derived already, in gevent or elsewhere, get our class as base, and with them
    their instances; servers that are running go on with our accept loop. Names in loaded
    modules that hold gevent's objects are bound to ours. May be called at any time and
    again, before or after ``gevent.monkey.patch_all()``. Does nothing if the environment
    variable ``GEVENT_CBASE`` is ``0``.

    Also enables the cache of gevent_cbase.datastack, unless *datastack* is false or the
    environment variable ``GEVENT_CBASE_DATASTACK`` is ``0``.

    Warns with RuntimeWarning of each class that refuses the change; it stays on gevent's.

    .. versionadded:: 1.0
    """
    global _installed
    if disabled():
        return
    if datastack:
        _datastack._on_install()
    _stream.on_install()
    if 'gevent.pool' in sys.modules:
        _pool.prepare()
    if _installed is None:
        from gevent import baseserver as gevents
        if gevents.BaseServer is ours.BaseServer:
            return  # our module was put into sys.modules
        servers = _servers(gevents.BaseServer, ours.BaseServer)
        _installed = _Installed({name: getattr(gevents, name) for name in NAMES}, servers)
    else:
        servers = _servers(_installed.originals['BaseServer'])
    old = _installed.originals['BaseServer']
    _carry_patches(old, _installed.carried)
    _replace(old, ours.BaseServer, old.__subclasses__(), servers)
    _rebind([(_installed.originals[name], getattr(ours, name)) for name in NAMES])


def uninstall():
    """Undo install(): all of gevent is as if it had never been called.

    Classes derived from our class before install(), and its instances, stay on it. Disables
    the data-stack cache, unless enable() was called. Does nothing if not installed.

    .. versionadded:: 1.0
    """
    global _installed
    _datastack._on_uninstall()
    _stream.on_uninstall()
    if _installed is None:
        return
    state, _installed = _installed, None
    _replace(ours.BaseServer, state.originals['BaseServer'],
             [cls for cls in ours.BaseServer.__subclasses__() if cls not in state.our_classes],
             _servers(ours.BaseServer), keep={id(ref()) for ref in state.our_servers})
    _rebind([(getattr(ours, name), state.originals[name]) for name in NAMES],
            keep=state.our_names)
    _cbase._stats_start_over(False)  # of those that have left
    for name, former in reversed(state.carried):
        if former:
            setattr(ours.BaseServer, name, *former)
        else:
            delattr(ours.BaseServer, name)


def is_installed():
    """Return whether ``gevent.baseserver.BaseServer`` is our class now.

    .. versionadded:: 1.0
    """
    module = sys.modules.get('gevent.baseserver')
    return module is not None and module.BaseServer is ours.BaseServer


# Classes and instances

def _carry_patches(old, carried):
    """Set on our class what a program has set on gevent's, as ``BaseServer.max_accept = 1``."""
    for name, value in list(vars(old).items()):
        if not _is_gevents(old, name, value):
            former = vars(ours.BaseServer).get(name, _MISSING)
            if former is _MISSING or (former is not value and former != value):
                carried.append((name, () if former is _MISSING else (former,)))
                setattr(ours.BaseServer, name, value)


def _is_gevents(cls, name, value):
    """Whether the class came with this value."""
    if name.startswith('__') and name not in vars(ours.BaseServer):
        return True  # the interpreter's: __firstlineno__ and the like
    if name in ('__module__', '__dict__', '__weakref__', '__doc__'):
        return True
    function = value.fget if isinstance(value, property) else value
    return (isinstance(function, types.FunctionType)
            and function.__module__ == cls.__module__
            and function.__qualname__ == '%s.%s' % (cls.__qualname__, name))


def _servers(*classes):
    """All instances of these classes and of those derived from them, in one scan."""
    classes = list(classes)
    for cls in classes:  # which grows
        classes += type.__subclasses__(cls)
    ids = set(map(id, classes))  # a metaclass may say how its classes compare
    return [server for server in gc.get_objects() if id(type(server)) in ids]


def _replace(old, new, classes, servers, keep=()):
    """Give *classes*, which derive from *old*, the base *new*, and move those of *servers* that
    are instances of *old*.

    *keep*: id() of instances of *old* itself to leave alone.
    """
    servers = [server for server in servers if issubclass(type(server), old)]
    callbacks = [_Callbacks(old, server) for server in servers]
    for cls in classes:
        try:
            cls.__bases__ = tuple(new if base is old else base for base in cls.__bases__)
        except Exception as ex:  # a metaclass may refuse with anything
            warnings.warn('gevent_cbase: %s.%s stays on %s.%s: %s' % (
                cls.__module__, cls.__qualname__, old.__module__, old.__qualname__, ex),
                RuntimeWarning, stacklevel=3)
    for server in servers:
        if type(server) is old and id(server) not in keep:
            server.__class__ = new
    for callback in callbacks:
        if issubclass(type(callback.server), new):
            callback.move(new)


class _Callbacks:
    """The methods of a server that its event loop and its pool hold, while it runs."""

    def __init__(self, cls, server):
        self.server = server
        self.state = object.__getattribute__(server, '__dict__')
        self.held = [self.bind(cls, name) for name in
                     ('_do_read', '_start_accepting_if_started')]

    def bind(self, cls, name):
        return vars(cls)[name].__get__(self.server, type(self.server))

    def move(self, new):
        """Let those who hold a method of the former class hold that of *new*."""
        for method in self.held:
            replacement = self.bind(new, method.__name__)
            for attribute in ('_watcher', '_timer'):
                watcher = self.state.get(attribute)
                if getattr(watcher, 'callback', None) == method:
                    watcher.callback = replacement
            self.relink(method, replacement)

    def relink(self, method, replacement):
        """The semaphore of a pool calls what is linked to it once, when a slot is free."""
        try:
            semaphore = self.state['pool']._semaphore
            before = remaining = semaphore.linkcount()
            semaphore.unlink(method)
            while semaphore.linkcount() < remaining:  # unlink() takes one away at a time
                remaining = semaphore.linkcount()
                semaphore.unlink(method)
        except Exception:  # a pool of some other kind, or none: nothing is linked to it
            return
        for _ in range(before - remaining):
            semaphore.rawlink(replacement)


# Names

def _holders(objects):
    """Yield (namespace, name, object) for each name in a loaded module bound to one of them."""
    ids = set(map(id, objects))
    for key, module in list(sys.modules.items()):
        if not issubclass(type(module), types.ModuleType) or _is_ours(key):
            continue
        namespace = object.__getattribute__(module, '__dict__')  # loads no lazy module
        if ids.isdisjoint(map(id, list(namespace.values()))):  # as most are: at the speed of C
            continue
        for name, value in list(namespace.items()):
            if id(value) in ids:
                yield namespace, name, value


def _is_ours(key):
    return isinstance(key, str) and key.partition('.')[0] == 'gevent_cbase'


def _rebind(pairs, keep=()):
    replacement = {id(old): new for old, new in pairs}
    for namespace, name, value in list(_holders([old for old, _ in pairs])):
        if (id(namespace), name) not in keep:
            namespace[name] = replacement[id(value)]
