"""install() and uninstall(): make all of gevent run on the C class, and back."""
import contextlib
import gc
import importlib
import operator
import sys
import types
import warnings
import weakref

from gevent._hub_local import get_hub_if_exists

from gevent_cbase import _cbase, _report
from gevent_cbase import datastack as _datastack
from gevent_cbase._native import sockets, switches
from gevent_cbase._patches import Known, Patches, lock, one_by_one

#: what gevent.baseserver and gevent_cbase.baseserver both define
NAMES = ('BaseServer', 'parse_address', '_parse_address', '_extract_family',
         '_handle_and_close_when_done')

#: the module whose class is replaced
_MODULE = 'gevent.baseserver'

#: how many reads of sockets in a row need not wait, if nobody says so
MAX_READS = 100

#: whether install() was called
_wanted = False

#: whether it has been told that it is on
_told = False

#: what has been replaced, if it is
_installed = None

#: what has been set on gevent's class and on ours; of the last one that was replaced
_patches = None

#: the globals of the functions between a program's call and a warning, which is of that call
_NOT_OF_PROGRAMS = globals(), one_by_one.__globals__, vars(contextlib)

#: what a thread that must not wait has left for the one that holds the lock
_left = []


def _ours():
    """The module with our class. When it is imported first it binds gevent's Greenlet, as
    gevent.baseserver does.
    """
    return importlib.import_module('gevent_cbase.baseserver')


class _Installed:
    """What uninstall() has to know."""

    def __init__(self, originals, servers):
        #: gevent's own objects, by name
        self.originals = originals
        #: what was made on purpose of our class before install(), and stays so
        self.our_classes = weakref.WeakSet(_ours().BaseServer.__subclasses__())
        self.our_names = {(id(namespace), name) for namespace, name, _ in
                          _holders([getattr(_ours(), name) for name in NAMES])}
        self.our_servers = [weakref.ref(server) for server in servers
                            if type(server) is _ours().BaseServer]
        #: the class that serve_forever() takes, before install()
        self.greenlet = None


def disabled():
    """Why the environment forbids install(), as text; None if it does not."""
    return switches.why_not('GEVENT_CBASE')


def install(*, datastack=True, max_reads=None):
    """Make ``gevent.baseserver.BaseServer``, and every class derived from it, ours.

    Classes derived already, in gevent or elsewhere, get our class as base, and with them
    their instances; servers that are running go on with our accept loop. Names in loaded
    modules that hold gevent's objects are bound to ours. What the program has set on gevent's
    class counts for ours, as does what it sets there later. May be called at any time and
    again, before or after ``gevent.monkey.patch_all()``. Does nothing if the environment
    variable ``GEVENT_CBASE`` is ``0``, or has a value that is not known.

    Loads no module of gevent: if gevent.baseserver is not loaded yet, its class is replaced as
    soon as the program imports it.

    Also enables the cache of gevent_cbase.datastack, unless *datastack* is false or the
    environment variable ``GEVENT_CBASE_DATASTACK`` is ``0``.

    *max_reads*: after so many reads in a row that found something, a handler that reads from its
    client waits for its turn in the event loop; and so does one that has read all there was,
    while others wait for their sockets. A number from 0, which is gevent's order: whoever finds
    something to read goes on. None: that of the environment variable ``GEVENT_CBASE_MAX_READS``,
    or 100. Raises TypeError or ValueError for anything else.

    Warns with RuntimeWarning of each class that refuses the change, which stays on gevent's, and
    once of a value of these variables that is not known. The logger ``gevent_cbase`` gets a line
    at INFO that tells versions, what is off and why; at WARNING if this gevent is not known.

    If it raises anything, for instance because warnings are errors, nothing is installed.

    Returns whether it is on: what is_installed() returns then.

    .. versionadded:: 1.0
    """
    _install_and_tell(datastack, max_reads)
    return is_installed()


def install_by_environment():
    """install() for GEVENT_CBASE=1, see gevent_cbase_plugin: an operator wants to see the line."""
    _install_and_tell(shown=True)


def _install_and_tell(datastack=True, max_reads=None, shown=False):
    global _told
    switches.check('GEVENT_CBASE')
    most = switches.number('GEVENT_CBASE_MAX_READS', MAX_READS) if max_reads is None else (
        _checked(max_reads))
    if not disabled():
        _one_by_one(_install, datastack, most)
    if _wanted and not _told:
        _told = True
        _report.tell(shown)


def _checked(max_reads):
    number = operator.index(max_reads)
    if number < 0:
        raise ValueError('max_reads must not be negative: %r' % (max_reads,))
    return number


def _one_by_one(change, *args):
    one_by_one(change, *args)
    _do_what_is_left()


def _do_what_is_left():
    while _left and lock.acquire(blocking=False):
        try:
            if _left:
                _one_by_one(_left.pop())
        finally:
            lock.release()


def _install(datastack, max_reads):
    global _wanted
    was_wanted = _wanted
    try:
        if datastack:
            _datastack._on_install()
        sockets.on_install(max_reads)
        if 'gevent.pool' in sys.modules:
            _cbase._pool_compare()
        _wanted = True
        _finder.put(sys.meta_path)
        _exchange()
    except BaseException:
        if not was_wanted:
            _uninstall()
        raise


def _exchange():
    global _installed, _patches
    if not _wanted or sys.modules.get(_MODULE) is None or _finder.loading:
        return  # it is called again when the module has been loaded
    gevents = importlib.import_module(_MODULE)  # waits for a thread that imports it
    old = _gevents_class(gevents)
    if old is None:
        return
    if _installed is not None and _installed.originals['BaseServer'] is not old:
        _uninstall_class()  # the module was loaded anew
    ours = _ours()
    if _installed is None:
        servers = _servers(old, ours.BaseServer)
        known = Known(gevents)
        originals = {name: getattr(gevents, name, None) for name in NAMES}
        _installed = _Installed({'BaseServer': old, **{
            name: value for name, value in originals.items() if known.has(name, value)}}, servers)
        _installed.greenlet = _cbase._bind_greenlet(gevents.Greenlet)
        if _patches is None or _patches.old is not old:
            _patches = Patches(old, ours.BaseServer, ours._made_with, known)
    else:
        servers = _servers(old)
    _patches.begin()
    # Other threads make servers meanwhile: a class is ours before its module has our names, and
    # the other way round in uninstall().
    refused = _replace(old, ours.BaseServer, type.__subclasses__(old), servers)
    for server in servers:
        _cbase._stats_begin(server)
    _rebind([(original, getattr(ours, name))
             for name, original in _installed.originals.items()])
    _warn(refused, old)


def _loaded():
    try:
        _exchange()
    except BaseException:
        _uninstall()
        raise


def _gevents_class(module):
    """gevent's BaseServer, also where a program has derived another one and put it in its place;
    None if there is none, as where our module was put into sys.modules.
    """
    for cls in getattr(getattr(module, 'BaseServer', None), '__mro__', ()):
        if _installed is not None and cls is _ours().BaseServer:
            return _installed.originals['BaseServer']
        if (cls.__module__, cls.__qualname__) == (_MODULE, 'BaseServer'):
            return cls


def uninstall():
    """Undo install(): all of gevent is as if it had never been called.

    What the program has set on our class meanwhile counts for gevent's. Classes derived from our
    class before install(), and its instances, stay on it. Disables the data-stack cache, unless
    enable() was called. Does nothing if not installed.

    .. versionadded:: 1.0
    """
    _one_by_one(_uninstall)


def _uninstall():
    global _wanted, _told
    _datastack._on_uninstall()
    sockets.on_uninstall()
    _wanted = _told = False
    _finder.take_from(sys.meta_path)
    if _installed is not None:
        _uninstall_class()


def _uninstall_class():
    global _installed
    refused = _exchange_back(_installed)
    _installed = None  # if this was not reached, a second uninstall() goes on
    _warn(refused, _ours().BaseServer)


def _exchange_back(state):
    ours, old = _ours().BaseServer, state.originals['BaseServer']
    _rebind([(getattr(_ours(), name), original) for name, original in state.originals.items()],
            keep=state.our_names)
    _patches.end()
    refused = _replace(
        ours, old, [cls for cls in ours.__subclasses__() if cls not in state.our_classes],
        _servers(ours), keep={id(ref()) for ref in state.our_servers})
    _cbase._stats_start_over(False)  # of those that have left
    if state.greenlet is not None:
        _cbase._bind_greenlet(state.greenlet)
    return refused


def is_installed():
    """Return whether ``gevent.baseserver.BaseServer`` is our class, or will be when it is loaded.

    .. versionadded:: 1.0
    """
    module = sys.modules.get(_MODULE)
    if module is None or _finder.loading:
        return _wanted
    mro = getattr(getattr(module, 'BaseServer', None), '__mro__', ())
    ours = getattr(_cbase, 'BaseServer', None)  # None: nobody has imported it yet
    return any(cls is ours for cls in mro)


def unknown():
    """Names of the functions in gevent.baseserver that are not known; they stay in force."""
    gevents = importlib.import_module(_MODULE)
    known = _patches.known if _installed is not None else Known(gevents)
    cls = _gevents_class(gevents)
    if cls is None:
        return []
    return sorted(name for name in vars(_ours().BaseServer) if known.is_other(
        'BaseServer.' + name, vars(cls).get(name)))


# Loading of gevent.baseserver

class _Finder:
    """On sys.meta_path while installed: replaces the class when a program loads its module.

    So it is the program that loads it, and decides when it binds the names that it imports.
    """

    #: whether the module is being loaded now
    loading = False

    def put(self, finders):
        if not any(finder is self for finder in finders):
            finders.insert(0, self)

    def take_from(self, finders):
        finders[:] = [finder for finder in finders if finder is not self]

    def find_spec(self, name, path=None, target=None):
        if name != _MODULE:
            return None
        finders = iter(sys.meta_path.copy())
        any(finder is self for finder in finders)  # those that come after it
        for finder in finders:
            spec = finder.find_spec(name, path, target)
            if spec is not None:
                if hasattr(spec.loader, 'exec_module'):
                    spec.loader = _Loader(spec.loader)
                return spec
        return None


class _Loader:
    """The loader of gevent.baseserver, whatever that is, until it is used."""

    def __init__(self, loader):
        self._loader = loader

    def __getattr__(self, name):
        return getattr(self._loader, name)

    def exec_module(self, module):
        module.__spec__.loader = module.__loader__ = self._loader
        _finder.loading = True
        try:
            self._loader.exec_module(module)
        finally:
            _finder.loading = False
        # Another thread may be within install(), and wait for a module that waits for this one.
        _left.append(_loaded)
        _do_what_is_left()


_finder = _Finder()


# Classes and instances

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
    servers = [server for server in servers if _is_in_mro(old, server)]
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
        if _is_in_mro(new, callback.server):
            callback.move(new)
    return refused


def _is_in_mro(cls, instance):
    """Whether it is an instance, whatever the classes say of that."""
    return any(base is cls for base in type.__dict__['__mro__'].__get__(type(instance)))


def _warn(refused, old):
    level, frame = 0, sys._getframe()
    while frame is not None and any(frame.f_globals is own for own in _NOT_OF_PROGRAMS):
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
        """Those that it has now, and those that it had before the program has set others."""
        return [_bound(function, self.server)
                for name in ('_do_read', '_start_accepting_if_started')
                for function in (vars(cls).get(name), _patches.original(cls, name))]

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
        for method, replacement in self.replacements[2:]:
            self.relink(method, replacement)

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


def _bound(attribute, server):
    """What *server* has of an attribute of its class, as which a program may set anything."""
    try:
        return type(attribute).__get__(attribute, server, type(server))
    except Exception:
        return attribute


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
