"""What programs do to BaseServer itself, before, during and after install(): patches, and places
where they keep it. Each test in a process of its own, as those of test_install.py.
"""
import itertools
import sys

from children import in_child

# For the children


def value(name, attribute, cls):
    """A plain value."""
    return {'A': 1, 'B': 2}[name]


def wraps(name, attribute, cls):
    """A function that names itself after the one it calls, as functools.wraps does."""
    import functools
    wrapped = vars(cls)[attribute]

    @functools.wraps(wrapped)
    def wrapper(*args, **kwargs):
        log.append(name)
        return wrapped(*args, **kwargs)
    for copied in '__module__', '__name__', '__qualname__':
        assert getattr(wrapper, copied) == getattr(wrapped, copied, None) or (
            copied == '__module__')
    return wrapper


def proxy(name, attribute, cls):
    """An object that looks like the function it calls, its class included, as wrapt's."""
    class Proxy:
        def __init__(self, wrapped, instance=None):
            self.wrapped, self.instance = wrapped, instance

        @property
        def __class__(self):
            return type(self.wrapped)

        def __getattr__(self, name):
            return getattr(self.wrapped, name)

        def __get__(self, instance, owner):
            return type(self)(self.wrapped.__get__(instance, owner), instance)

        def __call__(self, *args, **kwargs):
            log.append(name)
            return self.wrapped(*args, **kwargs)
    return Proxy(vars(cls)[attribute])


def own_property(name, attribute, cls):
    """Another property."""
    wrapped = vars(cls)[attribute]

    def get(self):
        log.append(name)
        return wrapped.__get__(self)
    return property(get)


log = []

#: what is patched, how, and what a server shows of it
PATCHES = {
    'max_accept': (value, lambda server: server.max_accept),
    'novelty': (value, lambda server: getattr(server, 'novelty', None)),
    'full': (wraps, lambda server: server.full()),
    'do_close': (proxy, lambda server: server.do_close(None)),
    'started': (own_property, lambda server: server.started),
    '__repr__': (wraps, lambda server: repr(server)[:10]),
    '__init__': (wraps, lambda server: type(server)(None, print).pool),
}


def shown(server, look):
    """What *look* gives, and which patches that came through."""
    del log[:]
    return look(server), tuple(log)


def by_mock(cls, attribute, new):
    """Patch; returns what undoes it."""
    from unittest import mock
    patch = mock.patch.object(cls, attribute, new, create=True)
    patch.__enter__()
    return lambda: patch.__exit__(None, None, None)


def by_hand(cls, attribute, new):
    """The same as pytest.monkeypatch does it."""
    former = vars(cls).get(attribute, log)
    setattr(cls, attribute, new)
    if former is log:
        return lambda: delattr(cls, attribute)
    return lambda: setattr(cls, attribute, former)


def life(steps, attribute, patch, changes, server):
    """What a server shows after each step. A and B patch, a and b take that back; A in the class
    that is in force, and B in the one that was at the beginning. *changes*: of the other steps.
    """
    import gevent.baseserver
    held = [gevent.baseserver.BaseServer]  # no name of a module
    make, look = PATCHES[attribute]
    undo, seen = {}, []
    for step in steps:
        if step in 'AB':
            cls = gevent.baseserver.BaseServer if step == 'A' else held[0]
            undo[step.lower()] = patch(cls, attribute, make(step, attribute, cls))
        elif step in 'ab':
            undo.pop(step)()
        else:
            changes[step]()
        seen.append(step)
        seen.append(shown(server, look))
    return seen


def reset(cls, names):
    """Take back what patches have left that were not undone in the right order."""
    for name in set(vars(cls)) | set(names):
        if name not in names:
            delattr(cls, name)
        elif vars(cls)[name] is not names[name]:
            setattr(cls, name, names[name])


#: A is undone first, or B, or each before the other is made
ORDERS = 'ABba', 'ABab', 'AaBb', 'BAab', 'BAba', 'BbAa'


def all_lives(attribute, patch=by_hand, orders=('BAba', 'ABab')):
    """Two patches, in each of these orders, with install() and uninstall() twice at all places
    between, on stock and on ours; what the last one showed.
    """
    import gevent.baseserver
    import gevent_cbase
    from gevent_cbase import _install
    _install._referrers = lambda classes: []  # takes long; no server runs
    stock, ours = gevent.baseserver.BaseServer, gevent_cbase.BaseServer
    before, pristine = dict(vars(stock)), dict(vars(ours))

    class Server(stock):
        def set_listener(self, listener):
            pass
    server = Server(None, print)
    nothing = dict.fromkeys('iu', lambda: None)
    changes = {'i': gevent_cbase.install, 'u': gevent_cbase.uninstall}
    lives = 0
    for places in itertools.combinations(range(8), 4):
        for patches in orders:
            patches_left, changes_left = iter(patches), iter('iuiu')
            steps = [next(patches_left if place in places else changes_left)
                     for place in range(8)]
            expected = life(steps, attribute, patch, nothing, server)
            left = {name for name in vars(stock) if vars(stock)[name] is not before.get(name)}
            reset(stock, before)
            del log[:]
            found = life(steps, attribute, patch, changes, server)
            assert found == expected, (''.join(steps), found, expected)
            gevent_cbase.uninstall()
            assert left == {name for name in vars(stock)
                            if vars(stock)[name] is not before.get(name)}, ''.join(steps)
            assert patches in ('ABab', 'BAba') or not left
            if left:
                reset(stock, before)
                gevent_cbase.install()
                gevent_cbase.uninstall()
            for cls, names in (stock, before), (ours, pristine):
                assert type(cls) is type and dict(vars(cls)) == names, (''.join(steps), cls)
            lives += 1
    assert lives == 70 * len(orders)
    return found


# Patches


@in_child
def test_values_in_any_order():
    """Set before, during and after, and undone in any order."""
    assert all_lives('max_accept', orders=ORDERS) == [
        'i', (100, ()), 'u', (100, ()), 'i', (100, ()), 'u', (100, ()),
        'B', (2, ()), 'b', (100, ()), 'A', (1, ()), 'a', (100, ())]


@in_child
def test_new_attributes_in_any_order():
    assert all_lives('novelty')[8:10] == ['A', (1, ())]


@in_child
def test_mock():
    """unittest.mock, which undoes in its own way."""
    assert all_lives('max_accept', by_mock, ['BAba'])[8:10] == ['B', (2, ())]
    assert all_lives('novelty', by_mock, ['ABba'])[8:10] == ['A', (1, ())]


@in_child
def test_wrapped_methods_in_any_order():
    """By functools.wraps."""
    assert all_lives('full')[8:12] == ['A', (False, ('A',)), 'B', (False, ('B', 'A'))]


@in_child
def test_proxies_in_any_order():
    """They bind what they have wrapped, also to a server that is of the other class by then."""
    assert all_lives('do_close')[8:12] == ['A', (None, ('A',)), 'B', (None, ('B', 'A'))]


@in_child
def test_properties_in_any_order():
    assert all_lives('started')[8:12] == ['A', (False, ('A',)), 'B', (False, ('B', 'A'))]


@in_child
def test_special_methods_in_any_order():
    assert all_lives('__repr__')[8:12] == ['A', ('<Server at', ('A',)),
                                             'B', ('<Server at', ('B', 'A'))]
    assert all_lives('__init__')[8:12] == ['A', (None, ('A',)), 'B', (None, ('B', 'A'))]


@in_child
def test_code_that_is_replaced():
    """The function is gevent's object, with another code or other defaults."""
    import gevent.baseserver
    import gevent_cbase
    from gevent.server import StreamServer
    from helpers import LOOPBACK, ask, echo
    stock, ours = gevent.baseserver.BaseServer, gevent_cbase.BaseServer
    pristine = dict(vars(ours))
    code, asked = stock.full.__code__, []

    def full(self):
        self.asked.append(type(self).__name__)
        return False
    StreamServer.asked = asked
    stock.full.__code__ = full.__code__
    stock.stop.__defaults__ = (0.25,)
    stock.set_handle.exposed = True
    gevent_cbase.install()
    changed = {name for name in pristine if vars(ours)[name] is not pristine[name]}
    assert changed == {'full', 'stop', 'set_handle'}
    assert ours.set_handle.exposed is True and ours.stop.__defaults__ == (0.25,)
    server = StreamServer(LOOPBACK, echo)
    server.start()
    assert ask(server) == b'ping' and set(asked) == {'StreamServer'}
    stock.full.__code__ = code
    del asked[:]
    assert ask(server) == b'ping' and asked == []
    stock.stop.__defaults__ = (None,)
    del stock.set_handle.exposed
    gevent_cbase.install()
    assert dict(vars(ours)) == pristine
    server.stop()
    gevent_cbase.uninstall()
    assert dict(vars(ours)) == pristine


@in_child
def test_nothing_is_patched():
    """All functions of gevent are known: by their digests, or by the loader's code where there
    are none; warm and traced, too.
    """
    import gevent.baseserver
    import gevent_cbase
    from gevent_cbase import _patches
    from gevent_cbase._native import known, premises
    stock, ours = gevent.baseserver.BaseServer, gevent_cbase.BaseServer

    class Server(stock):
        def set_listener(self, listener):
            pass
    server = Server(None, print)
    server.do_read = lambda: None
    for _ in range(3000):
        server._do_read()
    sys.settrace(lambda *args: None)
    server._do_read()
    code = known.CODE
    assert 'BaseServer.start' in code['%d.%d' % sys.version_info[:2]]
    for known.CODE in code, {}:
        premises._known_codes.clear()
        of_class = _patches.Known(gevent.baseserver)
        names = {name for name, value in vars(stock).items()
                 if of_class.has('BaseServer.' + name, value)}
        assert names == {name for name, value in vars(ours).items() if callable(value)
                         or isinstance(value, property)} - {'_spawn'}
        assert not of_class.has('BaseServer.full', stock.start)
        assert not of_class.has('BaseServer.nothing', stock.start)
        for name in ('parse_address', '_parse_address', '_extract_family',
                     '_handle_and_close_when_done'):
            assert of_class.has(name, getattr(gevent.baseserver, name))
    sys.settrace(None)


@in_child
def test_import_hook_that_rewrites():
    """What it has made of gevent.baseserver is what the program wants to run."""
    import importlib.abc
    import importlib.machinery

    class Loader(importlib.machinery.SourceFileLoader):
        def source_to_code(self, data, path, *args, **kwargs):
            data = data.replace(b'        return False', b'        return bool(self.asked())')
            return super().source_to_code(data, path, *args, **kwargs)

        def path_stats(self, path):
            raise OSError  # no cache

    class Finder(importlib.abc.MetaPathFinder):
        def find_spec(self, name, path=None, target=None):
            spec = importlib.machinery.PathFinder.find_spec(name, path, target)
            if name == 'gevent.baseserver':
                spec.loader = Loader(spec.loader.name, spec.loader.path)
            return spec
    sys.meta_path.insert(0, Finder())
    import gevent_cbase
    gevent_cbase.install()
    from gevent.server import StreamServer
    ours = gevent_cbase.BaseServer
    assert StreamServer.__bases__ == (ours,)
    assert ours.full.__code__.co_names[:1] == ('bool',)
    assert ours.start.__module__ == 'gevent_cbase.baseserver'
    import gevent.baseserver
    assert type(gevent.baseserver.__loader__) is Loader
    assert gevent.baseserver.__spec__.loader is gevent.baseserver.__loader__


@in_child
def test_functions_of_the_module():
    """One that was patched stays; the others are exchanged."""
    from unittest import mock
    import gevent.baseserver
    import gevent_cbase.baseserver
    stock = gevent.baseserver._parse_address
    with mock.patch('gevent.baseserver.parse_address', wraps=len) as patch:
        gevent_cbase.install()
        assert gevent.baseserver.parse_address is patch
        assert gevent.baseserver._parse_address is gevent_cbase.baseserver._parse_address
    gevent_cbase.uninstall()
    assert gevent.baseserver.parse_address.__module__ == 'gevent.baseserver'
    assert gevent.baseserver._parse_address is stock


@in_child
def test_class_in_place_of_gevents():
    """Derived from it and put under its name: it stays there, and gets our class as base."""
    import gevent.baseserver
    stock = gevent.baseserver.BaseServer

    class Instrumented(stock):
        pass
    gevent.baseserver.BaseServer = Instrumented
    from gevent.server import StreamServer
    import gevent_cbase
    ours = gevent_cbase.BaseServer
    for _ in range(2):
        gevent_cbase.install()
        assert gevent_cbase.is_installed()
        assert gevent.baseserver.BaseServer is Instrumented
        assert StreamServer.__mro__ == (StreamServer, Instrumented, ours, object)
        gevent_cbase.uninstall()
        assert not gevent_cbase.is_installed()
        assert StreamServer.__mro__ == (StreamServer, Instrumented, stock, object)
    gevent.baseserver.BaseServer = print
    gevent_cbase.install()
    assert not gevent_cbase.is_installed()


@in_child
def test_running_server_with_a_patch():
    """Its loop calls what it was started with, until it is started again, as with gevent."""

    import gevent.baseserver
    from gevent.server import StreamServer
    import gevent_cbase
    from helpers import LOOPBACK, ask, echo
    calls = []

    def running():
        server = StreamServer(LOOPBACK, echo)
        server.start()
        return server

    def patched(cls):
        original = cls._do_read

        def _do_read(self):
            calls.append(self)
            original(self)
        cls._do_read = _do_read
        return lambda: setattr(cls, '_do_read', original)

    def loop(server):
        """Whose function the event loop calls, and through how many patches."""
        del calls[:]
        assert ask(server) == b'ping'
        callback = server._watcher.callback
        return callback.__func__.__module__ != 'gevent_cbase.baseserver', bool(calls)
    before = running()
    gevent_cbase.install()
    gevent_cbase.uninstall()
    undo = patched(gevent.baseserver.BaseServer)
    after = running()
    assert [loop(before), loop(after)] == [(True, False), (True, True)]
    gevent_cbase.install()
    assert [loop(before), loop(after)] == [(False, False), (True, True)]
    undo()
    later = running()
    assert [loop(later), loop(after)] == [(False, False), (True, True)]
    undo = patched(gevent.baseserver.BaseServer)
    gevent_cbase.uninstall()
    assert [loop(before), loop(later), loop(running())] == [
        (True, False), (True, False), (True, True)]
    undo()
    assert loop(running()) == (True, False)


@in_child
def test_method_that_is_no_function():
    """mock.patch puts a Mock in its place, which does not know its server; or it is an int."""
    from unittest import mock
    import gevent.baseserver
    from gevent.server import StreamServer
    import gevent_cbase
    from helpers import LOOPBACK, ask, echo
    base, server = gevent.baseserver.BaseServer, StreamServer(LOOPBACK, echo)
    server.start()
    ours = []
    for change in gevent_cbase.install, gevent_cbase.uninstall, gevent_cbase.install:
        for name in '_do_read', '_start_accepting_if_started':
            for value in mock.Mock(), 3:
                with mock.patch.object(gevent.baseserver.BaseServer, name, value):
                    change()
                    assert getattr(server, name) is value
        assert gevent_cbase.is_installed() is (change is gevent_cbase.install)
        assert (StreamServer.__bases__[0] is base) is not gevent_cbase.is_installed()
        ours.append(server._do_read.__func__ is not base._do_read)
        assert ask(server) == b'ping'
    assert ours == [True, False, True]


@in_child
def test_attributes_that_were_deleted():
    """They are not there, with install() and without; nor do they keep it from being undone."""
    import gevent.baseserver
    import gevent.server
    import gevent_cbase
    base = gevent.baseserver.BaseServer
    former = dict(vars(base))
    for name in '__str__', 'do_close', 'stop_accepting', 'started', 'stop_timeout', '_do_read':
        delattr(base, name)
        for _ in range(2):
            gevent_cbase.install()
            assert name not in vars(gevent.baseserver.BaseServer)
            gevent.server.StreamServer(('127.0.0.1', 0), print)
            gevent_cbase.uninstall()
            assert name not in vars(base)
        setattr(base, name, former[name])
        gevent_cbase.install()
        assert name in vars(gevent.baseserver.BaseServer)
        gevent_cbase.uninstall()
        assert vars(base)[name] is former[name]


# Places where a program keeps the class


@in_child
def test_isinstance_of_the_former_class():
    """In tuples, class attributes, variables of functions: whatever was kept before install()."""
    import gevent.baseserver
    from gevent.server import StreamServer
    import gevent_cbase
    ours = gevent_cbase.BaseServer
    stock = kept = [gevent.baseserver.BaseServer][0]
    kinds = (int, stock)

    class Holder:
        kind = stock

    class Mine(ours):
        pass
    mine = Mine(('127.0.0.1', 0), print)

    def check(others, installed):
        server = StreamServer(('127.0.0.1', 0), print)
        for kind in stock, kinds, Holder.kind, kept:
            assert isinstance(server, kind) and issubclass(StreamServer, kind)
            assert not isinstance(print, kind) and not issubclass(dict, kind)
            assert isinstance(mine, kind) is issubclass(Mine, kind) is installed
        assert isinstance(3, kinds) and issubclass(stock, stock)
        assert issubclass(ours, stock) is installed
    check(None, False)
    for _ in range(2):
        gevent_cbase.install()
        check(None, True)
        assert isinstance(stock, type) and repr(stock) == "<class 'gevent.baseserver.BaseServer'>"
        assert hash(stock) == object.__hash__(stock) and stock == stock != ours
        gevent_cbase.uninstall()
        check(None, False)
        assert type(stock) is type and type(ours) is type


@in_child
def test_classes_and_servers_of_the_former_class():
    """Made of it while ours is in force: they are ours."""
    import abc
    import gevent.baseserver
    import gevent_cbase
    stock, ours = [gevent.baseserver.BaseServer][0], gevent_cbase.BaseServer
    gevent_cbase.install()

    class Plain(stock):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)

        def __init_subclass__(cls, option, **kwargs):
            cls.option = option

    class Abstract(abc.ABC):
        pass
    Mixed = abc.ABCMeta('Mixed', (Plain, Abstract), {}, option=1)
    Called = type('Called', (stock,), {'name': 'value'})
    assert Plain.__bases__ == Called.__bases__ == (ours,) and Mixed.option == 1
    assert type(Plain) is type(Called) is type and type(Mixed) is abc.ABCMeta
    server = stock(('127.0.0.1', 0), print)
    assert type(server) is ours
    assert type(Plain(('127.0.0.1', 0), handle=print)) is Plain
    gevent_cbase.uninstall()
    assert Plain.__bases__ == Called.__bases__ == (stock,) and type(server) is stock


@in_child
def test_registered_before():
    """With an ABC, or for a function of functools.singledispatch."""
    import abc
    import functools

    import gevent.baseserver
    from gevent.pywsgi import WSGIServer
    from gevent.server import DatagramServer, StreamServer
    import gevent_cbase
    from helpers import LOOPBACK

    class Service(abc.ABC):
        pass
    Service.register(gevent.baseserver.BaseServer)

    @functools.singledispatch
    def kind(thing):
        return 'thing'
    kind.register(gevent.baseserver.BaseServer, lambda server: 'server')
    kind.register(StreamServer, lambda server: 'stream')
    kind.register(Service, lambda service: 'service')

    def check():
        class Derived(gevent.baseserver.BaseServer):
            pass
        assert issubclass(gevent.baseserver.BaseServer, Service) and not issubclass(int, Service)
        for cls, expected in ((StreamServer, 'stream'), (DatagramServer, 'server'),
                              (WSGIServer, 'stream'), (Derived, 'server')):
            server = cls(LOOPBACK, print)
            assert isinstance(server, Service) and issubclass(cls, Service)
            assert kind(server) == expected, cls
        assert kind(3) == 'thing' and not isinstance(3, Service)
    for change in (gevent_cbase.install, gevent_cbase.uninstall) * 2:
        change()
        check()


@in_child
def test_former_class_shows_what_is_in_force():
    """Read and set through it, as if it were the one."""
    import gevent.baseserver
    import gevent_cbase
    stock, ours = [gevent.baseserver.BaseServer][0], gevent_cbase.BaseServer
    names, full = set(vars(stock)), stock.full
    gevent_cbase.install()
    assert set(vars(stock)) == names and stock.full is full
    ours.max_accept, ours.novelty = 7, 'new'
    assert stock.max_accept == vars(stock)['max_accept'] == 7 and stock.novelty == 'new'
    del ours.novelty
    assert not hasattr(stock, 'novelty') and 'novelty' not in vars(stock)
    stock.max_accept = 8
    assert ours.max_accept == 8
    del stock.max_accept
    assert not hasattr(ours, 'max_accept')
    stock.max_accept = 100
    stock.__doc__ = former = stock.__doc__
    assert ours.__doc__ != former
    gevent_cbase.uninstall()
    assert set(vars(stock)) == names and stock.max_accept == ours.max_accept == 100


@in_child
def test_uninstall_while_something_is_set():
    """As by a finalizer, or by the comparison of what was there: it comes when that is set."""
    import gevent.baseserver
    import gevent_cbase

    class Uninstalling:
        def __eq__(self, other):
            changes.append(gevent_cbase.uninstall())
            return False

    class Installing:
        def __eq__(self, other):
            changes.append(gevent_cbase.uninstall())
            changes.append(gevent_cbase.install())
            return False
    stock, ours, changes = [gevent.baseserver.BaseServer][0], gevent_cbase.BaseServer, []
    former = dict(vars(ours)), dict(vars(stock))
    for value, is_installed in ((Uninstalling, False), (Installing, True)):
        gevent_cbase.install()
        stock.note = value()
        stock.note = last = value()
        assert changes and gevent_cbase.is_installed() is is_installed
        assert vars(stock)['note'] is last and hasattr(ours, 'note') is is_installed
        del stock.note
        assert not hasattr(ours, 'note')
        changes.clear()
        for change in (gevent_cbase.install, gevent_cbase.uninstall) * 2:
            change()
            stock.note = 1
            del stock.note
        assert (dict(vars(ours)), dict(vars(stock))) == former


@in_child
def test_what_is_refused():
    """By the function in C that changes the metaclass of a class."""
    from gevent_cbase import _cbase

    class Larger(type):
        __slots__ = ()

    class Plain:
        pass
    for function, *args in ((_cbase._set_metaclass, int, Larger), (_cbase._set_metaclass, 3, type),
                            (_cbase._set_metaclass, Plain, dict), (_cbase._set_metaclass, Plain)):
        try:
            function(*args)
        except TypeError:
            pass
        else:
            assert False, (function, args)
    assert type(int) is type(Plain) is type
    _cbase._set_metaclass(Plain, Larger)
    assert type(Plain) is Larger and isinstance(Plain(), Plain)
    _cbase._set_metaclass(Plain, type)
    assert type(Plain) is type


@in_child
def test_metaclasses_are_not_kept_alive():
    """Nor are classes: it is counted who has them."""
    import gc

    import gevent.baseserver
    import gevent_cbase
    from gevent_cbase import _patches
    cls = [gevent.baseserver.BaseServer][0]

    def counts():
        gc.collect()
        return (sys.getrefcount(_patches._NotInForce), sys.getrefcount(cls),
                sys.getrefcount(gevent_cbase.BaseServer))
    for _ in range(3):
        gevent_cbase.install()
        gevent_cbase.uninstall()
    before = counts()
    for _ in range(50):
        gevent_cbase.install()
        gevent_cbase.BaseServer.max_accept = 3
        gevent_cbase.uninstall()
        gevent_cbase.BaseServer.max_accept = 100
    assert type(cls) is type and cls.max_accept == 100
    after = counts()
    assert all(abs(one - other) < 10 for one, other in zip(before, after)), (before, after)
