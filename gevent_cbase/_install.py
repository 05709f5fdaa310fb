"""install() and uninstall(): make all of gevent run on the C class, and back."""
import _thread
import gc
import sys
import types
import warnings
import weakref

from gevent._hub_local import get_hub_if_exists

from gevent_cbase import _cbase
from gevent_cbase import baseserver as ours
from gevent_cbase import datastack as _datastack
from gevent_cbase._native import sockets, switches

#: what gevent.baseserver and gevent_cbase.baseserver both define
NAMES = ('BaseServer', 'parse_address', '_parse_address', '_extract_family',
         '_handle_and_close_when_done')

_MISSING = object()
_installed = None

#: held by install() and uninstall(): of the thread, whatever has been patched
_lock = _thread.RLock()

#: what was called in the middle of one of them, as by a finalizer, and is done after it; or None
_to_do = None


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
    """Why the environment forbids install(), as text; None if it does not."""
    return switches.why_not('GEVENT_CBASE')


def install(*, datastack=True):
    """Make ``gevent.baseserver.BaseServer``, and every class derived from it, ours.

    Classes derived already, in gevent or elsewhere, get our class as base, and with them
    their instances; servers that are running go on with our accept loop. Names in loaded
    modules that hold gevent's objects are bound to ours. May be called at any time and
    again, before or after ``gevent.monkey.patch_all()``. Does nothing if the environment
    variable ``GEVENT_CBASE`` is ``0``, or has a value that is not known.

    Also enables the cache of gevent_cbase.datastack, unless *datastack* is false or the
    environment variable ``GEVENT_CBASE_DATASTACK`` is ``0``.

    Warns with RuntimeWarning of each class that refuses the change, which stays on gevent's, and
    once of a value of these variables that is not known.

    If it raises anything, for instance because warnings are errors, nothing is installed.

    .. versionadded:: 1.0
    """
    switches.check('GEVENT_CBASE')
    if not disabled():
        _one_by_one(_install, datastack)


def _one_by_one(change, *args):
    global _to_do
    with _lock:
        if _to_do is not None:
            _to_do.append((change, *args))
            return
        _to_do = []
        try:
            change(*args)
        finally:
            waiting, _to_do = _to_do, None
            for change, *args in waiting:
                _one_by_one(change, *args)


def _install(datastack):
    was_installed = _installed is not None
    try:
        if datastack:
            _datastack._on_install()
        sockets.on_install()
        if 'gevent.pool' in sys.modules:
            _cbase._pool_compare()
        _exchange()
    except BaseException:
        if not was_installed:
            _uninstall()
        raise


def _exchange():
    global _installed
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
    # Other threads make servers meanwhile: a class is ours before its module has our names, and
    # the other way round in uninstall().
    refused = _replace(old, ours.BaseServer, old.__subclasses__(), servers)
    _rebind([(_installed.originals[name], getattr(ours, name)) for name in NAMES])
    _warn(refused, old)


def uninstall():
    """Undo install(): all of gevent is as if it had never been called.

    Classes derived from our class before install(), and its instances, stay on it. Disables
    the data-stack cache, unless enable() was called. Does nothing if not installed.

    .. versionadded:: 1.0
    """
    _one_by_one(_uninstall)


def _uninstall():
    global _installed
    _datastack._on_uninstall()
    sockets.on_uninstall()
    if _installed is not None:
        refused = _exchange_back(_installed)
        _installed = None  # if this was not reached, a second uninstall() goes on
        _warn(refused, ours.BaseServer)


def _exchange_back(state):
    _rebind([(getattr(ours, name), state.originals[name]) for name in NAMES],
            keep=state.our_names)
    refused = _replace(
        ours.BaseServer, state.originals['BaseServer'],
        [cls for cls in ours.BaseServer.__subclasses__() if cls not in state.our_classes],
        _servers(ours.BaseServer), keep={id(ref()) for ref in state.our_servers})
    _cbase._stats_start_over(False)  # of those that have left
    while state.carried:
        name, former = state.carried[-1]
        if former:
            setattr(ours.BaseServer, name, *former)
        elif name in vars(ours.BaseServer):
            delattr(ours.BaseServer, name)
        state.carried.pop()
    return refused


def is_installed():
    """Return whether ``gevent.baseserver.BaseServer`` is our class now.

    .. versionadded:: 1.0
    """
    module = sys.modules.get('gevent.baseserver')
    return module is not None and module.BaseServer is ours.BaseServer


# Classes and instances

def _carry_patches(old, carried):
    """Set on our class what a program has set on gevent's, as ``BaseServer.max_accept = 1``."""
    for name, value in vars(old).copy().items():
        if not _is_gevents(old, name, value):
            former = vars(ours.BaseServer).get(name, _MISSING)
            if former is _MISSING or not _are_equal(former, value):
                carried.append((name, () if former is _MISSING else (former,)))
                setattr(ours.BaseServer, name, value)


def _are_equal(one, other):
    try:
        return one is other or bool(one == other)
    except Exception:  # how values compare is their own affair
        return False


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
    return [server for server in _referrers(classes) if id(type(server)) in ids]


def _referrers(classes):
    """All objects that refer to one of these classes, as its instances do, with those that
    gc.freeze() has hidden from the collector. What was made since then is frozen, too.

    Not all objects that the collector knows: in another thread one of them may be on its way out,
    and does not survive that somebody takes a reference to it.
    """
    if not gc.get_freeze_count():
        return gc.get_referrers(*classes)
    enabled = gc.isenabled()
    gc.disable()  # or it might come in between, and take long
    try:
        gc.unfreeze()
        return gc.get_referrers(*classes)
    finally:
        gc.freeze()
        if enabled:
            gc.enable()


def _replace(old, new, classes, servers, keep=()):
    """Give *classes*, which derive from *old*, the base *new*, and move those of *servers* that
    are instances of *old*. Returns (class, why) for those that refuse.

    *keep*: id() of instances of *old* itself to leave alone.
    """
    servers = [server for server in servers if issubclass(type(server), old)]
    callbacks = [_Callbacks(old, server) for server in servers]
    refused = []
    for cls in classes:
        try:
            cls.__bases__ = tuple(new if base is old else base for base in cls.__bases__)
        except Exception as ex:  # a metaclass may refuse with anything
            refused.append((cls, ex))
    for server in servers:
        if type(server) is old and id(server) not in keep:
            server.__class__ = new
    for callback in callbacks:
        if issubclass(type(callback.server), new):
            callback.move(new)
    return refused


def _warn(refused, old):
    level, frame = 0, sys._getframe()
    while frame is not None and frame.f_globals is globals():
        level, frame = level + 1, frame.f_back
    for cls, why in refused:
        warnings.warn('gevent_cbase: %s.%s stays on %s.%s: %s' % (
            cls.__module__, cls.__qualname__, old.__module__, old.__qualname__, why),
            RuntimeWarning, stacklevel=level + 1)


class _Callbacks:
    """The methods of a server that its event loop and its pool hold, while it runs."""

    def __init__(self, cls, server):
        self.server = server
        self.state = object.__getattribute__(server, '__dict__')
        self.held = self.bind(cls)

    def bind(self, cls):
        return [vars(cls)[name].__get__(self.server, type(self.server))
                for name in ('_do_read', '_start_accepting_if_started')]

    def move(self, new):
        """Let those who hold a method of the former class hold that of *new*.

        A loop that runs in another thread reads its watchers at any moment, without the GIL: there
        it is done by that loop, before it looks for events again.
        """
        if all(self.state.get(name) is None for name in ('_watcher', '_timer', 'pool')):
            return  # nobody holds one
        self.replacements = list(zip(self.held, self.bind(new)))
        loop = self.state.get('loop')
        if _is_of_another_thread(loop):
            try:
                loop.run_callback_threadsafe(self.replace)
            except Exception:  # it was destroyed, and calls nobody
                pass
        else:
            self.replace()

    def replace(self):
        for method, replacement in self.replacements:
            for attribute in ('_watcher', '_timer'):
                watcher = self.state.get(attribute)
                if getattr(watcher, 'callback', None) == method:
                    watcher.callback = replacement
        self.relink(*self.replacements[-1])

    def relink(self, method, replacement):
        """The semaphore of a pool calls what is linked to it once, when a slot is free. That is
        _start_accepting_if_started(), which may also be called once too often.
        """
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


def _is_of_another_thread(loop):
    """Whether this may be the loop of another thread; it is one of gevent's, or a stand-in."""
    hub = get_hub_if_exists()
    return (hasattr(loop, 'run_callback_threadsafe')
            and (hub is None or getattr(hub, 'loop', None) is not loop))


# Names

def _holders(objects):
    """Yield (namespace, name, object) for each name in a loaded module bound to one of them."""
    ids = set(map(id, objects))
    for key, module in sys.modules.copy().items():  # other threads import, finalizers too
        if not issubclass(type(module), types.ModuleType) or _is_ours(key):
            continue
        namespace = object.__getattribute__(module, '__dict__')  # loads no lazy module
        if ids.isdisjoint(map(id, list(namespace.values()))):  # as most are: at the speed of C
            continue
        for name, value in namespace.copy().items():
            if id(value) in ids:
                yield namespace, name, value


def _is_ours(key):
    return isinstance(key, str) and key.partition('.')[0] == 'gevent_cbase'


def _rebind(pairs, keep=()):
    replacement = {id(old): new for old, new in pairs}
    for namespace, name, value in list(_holders([old for old, _ in pairs])):
        if (id(namespace), name) not in keep:
            namespace[name] = replacement[id(value)]
