"""What the class looks like from outside: layout, inheritance, signatures, documentation."""
import abc
import copy
import gc
import inspect
import pickle
import pydoc
import sys
import types
import weakref

import pytest
from helpers import LOOPBACK, ask, echo, listener

#: name -> signature as ``inspect`` shows it on the class
SIGNATURES = {
    '__init__': "(self, listener, handle=None, spawn='default')",
    '__enter__': '(self)',
    '__exit__': '(self, *args)',
    '__repr__': '(self)',
    '__str__': '(self)',
    '_do_read': '(self)',
    '_formatinfo': '(self)',
    '_start_accepting_if_started': '(self, _event=None)',
    'close': '(self)',
    'do_close': '(self, *args)',
    'do_handle': '(self, *args)',
    'do_read': '(self)',
    'full': '(self)',
    'init_socket': '(self)',
    'is_fatal_error': '(self, ex)',
    'serve_forever': '(self, stop_timeout=None)',
    'set_handle': '(self, handle)',
    'set_listener': '(self, listener)',
    'set_spawn': '(self, spawn)',
    'start': '(self)',
    'start_accepting': '(self)',
    'stop': '(self, timeout=None)',
    'stop_accepting': '(self)',
}

PROPERTIES = ['closed', 'server_host', 'server_port', 'started']
ATTRIBUTES = ['_spawn', 'fatal_errors', 'max_accept', 'max_delay', 'min_delay', 'stop_timeout']
METHODS = sorted(name for name in SIGNATURES if not name.startswith('__'))
PUBLIC_METHODS = [name for name in METHODS if not name.startswith('_')]

#: bits of ``__flags__`` that tell how instances are laid out and what the class allows
INLINE_VALUES, MANAGED_WEAKREF, MANAGED_DICT = 1 << 2, 1 << 3, 1 << 4
IMMUTABLE, HEAP, BASE, GC = 1 << 8, 1 << 9, 1 << 10, 1 << 14
LAYOUT = INLINE_VALUES | MANAGED_WEAKREF | MANAGED_DICT | IMMUTABLE | HEAP | BASE | GC


class Plain:
    """What every class must look like."""


@pytest.fixture
def server(impl):
    """A server that is never started."""
    return impl.BaseServer(LOOPBACK, echo)


# Layout


def test_layout_of_a_python_class(impl):
    """Dictionary and weak references as in ``class Plain: pass``, and nothing else."""
    cls = impl.BaseServer
    assert type(cls) is type and cls.__base__ is object and cls.__mro__ == (cls, object)
    for name in ('__basicsize__', '__itemsize__', '__dictoffset__', '__weakrefoffset__'):
        assert getattr(cls, name) == getattr(Plain, name)
    assert cls.__flags__ & LAYOUT == Plain.__flags__ & LAYOUT
    assert cls.__flags__ & (IMMUTABLE | HEAP | BASE | GC) == HEAP | BASE | GC


def test_layout_slots_of_the_class(impl):
    """The two descriptors that a Python class has."""
    for name in ('__dict__', '__weakref__'):
        descriptor = vars(impl.BaseServer)[name]
        assert type(descriptor) is types.GetSetDescriptorType
        owner = object if sys.version_info >= (3, 15) else impl.BaseServer
        assert descriptor.__objclass__ is owner


def test_names(impl):
    """The class is found where it says that it is, so it is pickled by reference."""
    cls = impl.BaseServer
    assert cls.__name__ == cls.__qualname__ == 'BaseServer'
    assert pickle.loads(pickle.dumps(cls)) is cls
    assert repr(cls) == "<class '%s.BaseServer'>" % cls.__module__


def test_public_names(impl):
    """dir() lists gevent's names and no others (double underscores aside)."""
    names = [name for name in dir(impl.BaseServer) if not name.startswith('__')]
    assert names == sorted(METHODS + PROPERTIES + ATTRIBUTES)
    own = {name for name in vars(impl.BaseServer) if not name.startswith('__')}
    assert own == set(names)


def test_special_methods(impl):
    """Of the special methods only these are the class's own."""
    own = {name for name, value in vars(impl.BaseServer).items()
           if name.startswith('__') and inspect.isroutine(value)}
    assert own == {'__init__', '__enter__', '__exit__', '__repr__', '__str__'}


def test_module_all(impl):
    """``from … import *`` gives the class alone."""
    assert impl.module.__all__ == ['BaseServer']
    space = {}
    exec('from %s import *' % impl.module.__name__, space)
    space.pop('__builtins__')
    assert space == {'BaseServer': impl.BaseServer}
    for name in ('parse_address', '_parse_address', '_extract_family',
                 '_handle_and_close_when_done'):
        assert callable(getattr(impl.module, name))


def test_server_classes_derive_from_it(impl):
    """The three classes of gevent, at any depth."""
    for cls in (impl.StreamServer, impl.DatagramServer, impl.WSGIServer):
        assert issubclass(cls, impl.BaseServer)
        assert cls.__mro__[-2:] == (impl.BaseServer, object)
    assert {impl.StreamServer, impl.DatagramServer} <= set(impl.BaseServer.__subclasses__())


# Subclasses


def test_subclass_with_slots(impl):
    """Slots add to the instance; the dictionary stays."""
    class Mine(impl.BaseServer):
        __slots__ = ('extra', 'other')
    server = Mine(LOOPBACK, echo)
    server.extra, server.free = 1, 2
    assert 'extra' not in vars(server) and server.extra == 1 and vars(server)['free'] == 2
    with pytest.raises(AttributeError):
        server.other
    del server.extra
    with pytest.raises(AttributeError):
        server.extra


@pytest.mark.parametrize('slot', ['__dict__', '__weakref__'])
def test_subclass_cannot_add_what_is_there(impl, slot):
    """As with any Python class, a second dictionary or list of weak references is refused."""
    with pytest.raises(TypeError, match='%s slot disallowed' % slot):
        type('Mine', (impl.BaseServer,), {'__slots__': (slot,)})


def test_subclass_with_a_slot_for_our_own_state(impl):
    """A slot named ``socket`` is used like any attribute, but close() empties only the
    instance dictionary, so such a server never looks closed again."""
    class Mine(impl.BaseServer):
        __slots__ = ('socket',)
    server = Mine(LOOPBACK, echo)
    assert server.closed
    sock = listener()
    server.set_listener(sock)
    assert server.socket is sock and 'socket' not in vars(server) and not server.closed
    server.close()
    assert sock.fileno() == -1 and server.socket is sock and not server.closed


def test_abstract_subclass(impl):
    """ABCMeta works, by metaclass or by base."""
    class Abstract(impl.BaseServer, metaclass=abc.ABCMeta):
        @abc.abstractmethod
        def do_read(self):
            raise NotImplementedError

    class Concrete(Abstract):
        def do_read(self):
            return None

    class Other(impl.BaseServer, abc.ABC):
        """Nothing abstract."""
    with pytest.raises(TypeError, match="abstract class '?Abstract'? with"):
        Abstract(LOOPBACK, echo)
    assert Concrete(LOOPBACK, echo).do_read() is None
    assert isinstance(Other(LOOPBACK, echo), Other)
    Abstract.register(Plain)
    assert isinstance(Plain(), Abstract) and not isinstance(Plain(), Concrete)


def test_cooperative_methods(impl):
    """A mixin before the server goes on with super(); one after it is the end of the chain."""
    log = []

    class Before:
        def __init__(self, *args, before, **kwargs):
            log.append(before)
            super().__init__(*args, **kwargs)

        def close(self):
            log.append('close')
            super().close()

    class After:
        def __init__(self):
            raise NotImplementedError

        def close(self):
            raise NotImplementedError

        def extra(self):
            return 'extra'

    class Mine(Before, impl.BaseServer, After):
        pass
    server = Mine(LOOPBACK, before='mixin', handle=echo)
    assert Mine.__mro__ == (Mine, Before, impl.BaseServer, After, object)
    server.close()
    assert log == ['mixin', 'close'] and server.extra() == 'extra'


def test_diamond(impl):
    """Two server classes under one: each base once."""
    class Left(impl.BaseServer):
        def full(self):
            return ('left',) + super().full()

    class Right(impl.BaseServer):
        def full(self):
            return ('right', super().full())

    class Both(Left, Right):
        pass
    assert Both(LOOPBACK, echo).full() == ('left', 'right', False)


@pytest.mark.parametrize('other', [dict, list, Exception])
def test_combined_with_a_builtin_class(impl, other):
    """The layout leaves room for one builtin base, on either side."""
    class First(impl.BaseServer, other):
        pass

    class Second(other, impl.BaseServer):
        def __init__(self, *args):
            impl.BaseServer.__init__(self, *args)
    for cls in (First, Second):
        server = cls(LOOPBACK, echo)
        assert server.address == LOOPBACK and isinstance(server, other)
        weakref.ref(server)
        server.close()
        assert server.closed


def test_init_subclass_and_set_name(impl):
    """Class creation calls the usual hooks; the class itself takes no class keywords."""
    log = []

    class Base(impl.BaseServer):
        def __init_subclass__(cls, tag=None, **kwargs):
            super().__init_subclass__(**kwargs)
            log.append((cls.__name__, tag))

    class Named:
        def __set_name__(self, owner, name):
            log.append(name)

    class Mine(Base, tag='t'):
        item = Named()
    assert log == ['item', ('Mine', 't')]
    with pytest.raises(TypeError):
        class Wrong(impl.BaseServer, tag='t'):
            pass


def test_new_of_a_subclass(impl):
    """__new__ may be overridden; the base's takes no part in the arguments."""
    class Mine(impl.BaseServer):
        def __new__(cls, *args, **kwargs):
            self = super().__new__(cls)
            self.got = args, kwargs
            return self
    server = Mine(1, handle=echo)
    assert server.got == ((1,), {'handle': echo}) and server.address == ('', 1)
    assert vars(impl.BaseServer.__new__(impl.BaseServer)) == {}


def test_class_of_an_instance_can_be_changed(impl):
    """``__class__`` may be assigned among servers, and between servers and plain classes."""
    class Mine(impl.BaseServer):
        def full(self):
            return 'mine'

    server = impl.BaseServer(LOOPBACK, echo)
    server.__class__ = Mine
    assert server.full() == 'mine' and server.handle is echo
    server.__class__ = Plain
    assert not hasattr(server, 'full') and vars(server)['handle'] is echo
    server.__class__ = impl.BaseServer
    assert server.full() is False
    thing = Plain()
    thing.__class__ = Mine
    assert thing.full() == 'mine' and repr(thing).startswith('<Mine at 0x')


def test_bases_of_a_class_can_be_changed(impl):
    """``__bases__`` may be assigned, in both directions, with instances alive."""
    class Other:
        def full(self):
            return 'other'

    class Mine(Other):
        pass
    thing = Mine()
    Mine.__bases__ = (impl.BaseServer,)
    assert thing.full() is False and isinstance(thing, impl.BaseServer)
    thing.__init__(LOOPBACK, echo)
    Mine.__bases__ = (Other, impl.BaseServer)
    assert thing.full() == 'other' and thing.handle is echo
    Mine.__bases__ = (Other,)
    assert not hasattr(thing, 'close') and thing.address == LOOPBACK


# Instances


def test_copy(impl):
    """A shallow copy shares every attribute, and is a different server all the same."""
    class Mine(impl.StreamServer):
        pass
    server = Mine(listener(), echo, spawn=2)
    server.start()
    twin = copy.copy(server)
    assert twin is not server and type(twin) is Mine and vars(twin) == vars(server)
    assert vars(twin) is not vars(server) and twin != server
    assert twin.started and ask(twin) == b'ping'
    server.stop()
    assert twin.socket.fileno() == -1 and not twin.closed and not twin.started


@pytest.mark.parametrize('protocol', range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickle(server, protocol):
    """Instances cannot be pickled."""
    with pytest.raises(TypeError):
        pickle.dumps(server, protocol)


def test_deep_copy(server):
    """Nor copied in depth."""
    with pytest.raises(TypeError):
        copy.deepcopy(server)


def test_weak_references(impl):
    """An unused server dies with its last reference, and its weak references are called."""
    server, dead = impl.BaseServer(LOOPBACK, echo, 3), []
    reference = weakref.ref(server, dead.append)
    keys = weakref.WeakSet([server])
    assert reference() is server and server in keys
    server.close()
    del server
    assert dead == [reference] and reference() is None and not keys


def test_cycles(impl):
    """Servers and classes of servers that refer to themselves are collected."""
    class Mine(impl.BaseServer):
        pass
    server = Mine(LOOPBACK, echo)
    server.itself = Mine.instance = server
    assert gc.is_tracked(server)
    references = weakref.ref(server), weakref.ref(Mine)
    del server, Mine
    gc.collect()
    assert [reference() for reference in references] == [None, None]


def test_identity(impl):
    """Servers compare and hash by identity."""
    one, other = impl.BaseServer(LOOPBACK, echo), impl.BaseServer(LOOPBACK, echo)
    assert one == one and one != other and len({one, other, one}) == 2
    assert hash(one) == object.__hash__(one)
    with pytest.raises(TypeError):
        one < other
    assert bool(one) is True


def test_free_attributes(server):
    """Instances take and lose any attribute; the dictionary can be used, even replaced."""
    server.novelty = 1
    assert vars(server)['novelty'] == 1
    del server.novelty
    with pytest.raises(AttributeError) as info:
        server.novelty
    assert str(info.value) == "'BaseServer' object has no attribute 'novelty'"
    with pytest.raises(AttributeError):
        del server.novelty
    server.__dict__ = {'address': ('a', 1)}
    assert server.server_host == 'a' and not hasattr(server, 'pool')


def test_own_state_can_be_deleted(server):
    """Nothing is hidden from the dictionary: what is deleted is gone."""
    for name in sorted(vars(server)):
        delattr(server, name)
    assert vars(server) == {}
    for name in ('pool', 'address', '_watcher', '_stop_event', 'handle', 'loop'):
        assert not hasattr(server, name)
    assert server._spawn is type(server)._spawn


def test_class_attributes_can_be_changed(impl, monkeypatch):
    """The class is mutable: methods, properties, special methods, new names."""
    cls = impl.BaseServer
    server = impl.StreamServer(LOOPBACK, echo)
    monkeypatch.setattr(cls, 'full', lambda self: 'patched')
    monkeypatch.setattr(cls, 'started', 'started')
    monkeypatch.setattr(cls, '__str__', lambda self: 'text')
    monkeypatch.setattr(cls, '__len__', lambda self: 0, raising=False)
    monkeypatch.setattr(cls, 'novelty', [], raising=False)
    assert server.full() == 'patched' and server.started == 'started' and str(server) == 'text'
    assert not server and server.novelty is cls.novelty
    monkeypatch.undo()
    assert server.full() is False and server.started is False and server
    assert str(server).startswith('<StreamServer ') and not hasattr(server, 'novelty')


def test_class_attributes_can_be_deleted(impl, monkeypatch):
    """A default or a method that is deleted is missed at the next use."""
    server = impl.BaseServer(LOOPBACK, echo)
    for name in ('stop_timeout', 'full', 'close', 'closed', 'min_delay'):
        monkeypatch.delattr(impl.BaseServer, name)
        with pytest.raises(AttributeError) as info:
            getattr(server, name)
        assert str(info.value) == "'BaseServer' object has no attribute '%s'" % name
    with pytest.raises(AttributeError, match='min_delay|close'):
        impl.BaseServer(LOOPBACK, echo)


@pytest.mark.parametrize('name', PROPERTIES)
def test_properties(impl, server, name):
    """They are ``property`` objects without setter: read-only, and usable as such."""
    found = vars(impl.BaseServer)[name]
    assert type(found) is property and found.fset is None and found.fdel is None
    assert found.fget(server) == getattr(server, name)
    value = getattr(server, name)
    with pytest.raises(AttributeError):
        setattr(server, name, 'x')
    with pytest.raises(AttributeError):
        delattr(server, name)
    vars(server)[name] = 'hidden'
    assert getattr(server, name) == value != 'hidden'


def test_property_extended_by_a_subclass(impl):
    """Via fget, super(), or a setter added to the inherited property."""
    class Mine(impl.BaseServer):
        log = ()

        @impl.BaseServer.closed.setter
        def closed(self, value):
            self.log += (value,)

        @property
        def server_port(self):
            return super().server_port + 1

        server_host = property(lambda self: impl.BaseServer.server_host.fget(self).upper())
    server = Mine(('host', 80), echo)
    server.closed = 'set'
    assert server.closed is True and server.log == ('set',)
    assert (server.server_host, server.server_port) == ('HOST', 81)


# Methods


@pytest.mark.parametrize('name', METHODS)
def test_bound_methods(impl, server, name):
    """Each look-up gives an equal object with an equal hash, and only on the same server."""
    other = impl.BaseServer(LOOPBACK, echo)
    method = getattr(server, name)
    assert method == getattr(server, name) and hash(method) == hash(getattr(server, name))
    assert not method != getattr(server, name)
    assert method != getattr(other, name) and method != getattr(impl.BaseServer, name)
    assert method in [getattr(server, name)] and method in {getattr(server, name): 1}
    assert method.__self__ is server and method.__name__ == name
    assert [each for each in METHODS if getattr(server, each) == method] == [name]
    assert inspect.isroutine(method) and inspect.isroutine(getattr(impl.BaseServer, name))


@pytest.mark.parametrize('name', METHODS)
def test_methods_need_their_server(impl, name):
    """On the class a method is unbound: it must be given an instance."""
    with pytest.raises(TypeError):
        getattr(impl.BaseServer, name)()


@pytest.mark.parametrize('name, args, kwargs', [
    ('close', (1,), {}),
    ('close', (), {'x': 1}),
    ('do_read', (1,), {}),
    ('do_handle', (), {'x': 1}),
    ('do_close', (), {'x': 1}),
    ('full', (1,), {}),
    ('is_fatal_error', (), {}),
    ('is_fatal_error', (1, 2), {}),
    ('serve_forever', (1, 2), {}),
    ('serve_forever', (), {'timeout': 1}),
    ('set_handle', (), {}),
    ('set_listener', (1, 2), {}),
    ('set_spawn', (), {'handle': 1}),
    ('start', (1,), {}),
    ('stop', (1, 2), {}),
    ('stop', (1,), {'timeout': 2}),
    ('stop', (), {'stop_timeout': 2}),
    ('stop_accepting', (1,), {}),
    ('_start_accepting_if_started', (1, 2), {}),
    ('_do_read', (1,), {}),
    ('_formatinfo', (1,), {}),
    ('__exit__', (), {'x': 1}),
    ('__enter__', (1,), {}),
])
def test_wrong_arguments(server, name, args, kwargs):
    """TypeError, and nothing has happened."""
    before = dict(vars(server))
    with pytest.raises(TypeError):
        getattr(server, name)(*args, **kwargs)
    assert vars(server) == before


def test_keyword_arguments(server):
    """Parameters can be given by name, self included."""
    cls = type(server)
    assert server.is_fatal_error(ex=OSError(9, '')) is True
    assert server._start_accepting_if_started(_event=1) is None
    assert server.stop(timeout=1) is None
    assert cls.set_spawn(server, spawn=None) is None and server._spawn is None


# Signatures


@pytest.mark.parametrize('name', SIGNATURES)
def test_signature(impl, server, name):
    """The same text as for gevent's class."""
    assert str(inspect.signature(getattr(impl.BaseServer, name))) == SIGNATURES[name]
    bound = inspect.signature(getattr(server, name))
    assert str(bound) == SIGNATURES[name].replace('self, ', '').replace('self', '')
    for parameter in bound.parameters.values():
        assert parameter.kind is (parameter.VAR_POSITIONAL if parameter.name == 'args'
                                  else parameter.POSITIONAL_OR_KEYWORD)


def test_signature_defaults(impl):
    """Defaults are real values."""
    defaults = {name: parameter.default for name, parameter
                in inspect.signature(impl.BaseServer).parameters.items()}
    assert defaults == {'listener': inspect.Parameter.empty, 'handle': None, 'spawn': 'default'}
    assert type(defaults['spawn']) is str


def test_signature_of_classes(impl):
    """Of the class, of gevent's classes, and of subclasses with and without __init__."""
    own = "(listener, handle=None, spawn='default')"

    class Without(impl.BaseServer):
        pass

    class With(impl.BaseServer):
        def __init__(self, port, *, name='x'):
            super().__init__(port)

    class New(impl.BaseServer):
        def __new__(cls, *args, **kwargs):
            return super().__new__(cls)

        def __init__(self, a, b=1):
            super().__init__(a)

    class Meta(type):
        pass

    class WithMeta(impl.BaseServer, metaclass=Meta):
        pass
    assert [str(inspect.signature(cls)) for cls in (
        impl.BaseServer, Without, With, type('Deeper', (With,), {}), WithMeta,
        impl.DatagramServer, impl.StreamServer)] == [
        own, own, "(port, *, name='x')", "(port, *, name='x')", own, '(*args, **kwargs)',
        "(listener, handle=None, backlog=None, spawn='default', **ssl_args)"]
    assert str(inspect.signature(With.stop)) == SIGNATURES['stop']
    assert str(inspect.signature(New.__init__)) == '(self, a, b=1)'


def test_signature_binds(impl):
    """bind() maps arguments as a call would."""
    bound = inspect.signature(impl.BaseServer).bind(1, spawn=None)
    assert bound.arguments == {'listener': 1, 'spawn': None}
    with pytest.raises(TypeError):
        inspect.signature(impl.BaseServer.stop).bind()


def test_argument_specification(impl):
    """The older interface of inspect works too."""
    spec = inspect.getfullargspec(impl.BaseServer.__init__)
    assert spec.args == ['self', 'listener', 'handle', 'spawn']
    assert spec.defaults == (None, 'default') and spec.varargs is spec.varkw is None
    assert inspect.getfullargspec(impl.BaseServer.do_handle).varargs == 'args'


# Documentation


def test_help(impl):
    """help() shows every public method with its signature, and the properties."""
    text = pydoc.render_doc(impl.BaseServer, renderer=pydoc.plaintext)
    lines = [line.strip(' |') for line in text.splitlines()]
    assert "BaseServer(listener, handle=None, spawn='default')" in lines
    for name in ['__init__', '__enter__', '__exit__'] + PUBLIC_METHODS:
        assert name + SIGNATURES[name] in lines
    for name in PROPERTIES:
        assert name in lines
    for name in ATTRIBUTES[1:]:
        assert '%s = %r' % (name, getattr(impl.BaseServer, name)) in lines


def test_help_on_parts(impl, server):
    """help() of a method, of a bound method, of the module and of a subclass."""
    for thing in (impl.BaseServer.stop, server.stop):
        assert 'stop(' in pydoc.render_doc(thing, renderer=pydoc.plaintext)
    text = pydoc.render_doc(impl.module, renderer=pydoc.plaintext)
    assert impl.module.__name__ in text and 'class BaseServer(' in text

    class Mine(impl.BaseServer):
        """A doc string."""
    text = pydoc.render_doc(Mine, renderer=pydoc.plaintext)
    assert 'serve_forever' + SIGNATURES['serve_forever'] in text and 'A doc string.' in text


@pytest.mark.parametrize('name', [
    None, 'start', 'close', 'stop', 'serve_forever', 'init_socket', 'server_host',
    'server_port'])
def test_documented(impl, name):
    """What gevent documents is documented; None stands for the class."""
    thing = impl.BaseServer if name is None else getattr(impl.BaseServer, name)
    assert len(inspect.getdoc(thing)) > 20


def test_doc_is_inherited_by_overrides(impl):
    """getdoc() of an override without a docstring finds that of the base."""
    class Mine(impl.BaseServer):
        def stop(self, timeout=None):
            raise NotImplementedError
    assert Mine.stop.__doc__ is None
    assert inspect.getdoc(Mine(LOOPBACK, echo).stop) == inspect.getdoc(impl.BaseServer.stop)


@pytest.fixture
def ours():
    """Our module alone, for what gevent does not have."""
    import gevent_cbase.baseserver
    return gevent_cbase.baseserver


def test_python_functions(impl):
    """Every method and every getter is one for who looks at it, and so are functions beside the
    class, but for the one that runs in greenlets.
    """
    for name in SIGNATURES:
        function = vars(impl.BaseServer)[name]
        assert inspect.isfunction(function) and inspect.getsource(function).strip()
        assert function.__qualname__ == 'BaseServer.' + name
        assert function.__module__ == impl.module.__name__
    for name in PROPERTIES:
        assert inspect.isfunction(vars(impl.BaseServer)[name].fget)
    for name in '_extract_family', '_parse_address', 'parse_address':
        assert inspect.isfunction(getattr(impl.module, name))
    function = impl.module._handle_and_close_when_done
    assert function.__name__ == function.__qualname__ == '_handle_and_close_when_done'
    assert function.__module__ == impl.module.__name__
    assert getattr(function, '__self__', None) is None
    assert str(inspect.signature(function)) == '(handle, close, args_tuple)'


def test_everything_public_is_documented(ours):
    """The class, every public method and every property of ours has a docstring."""
    for name in PUBLIC_METHODS + PROPERTIES:
        text = inspect.getdoc(vars(ours.BaseServer)[name])
        assert text and text == text.strip() and text.endswith('.'), name
    for thing in (ours, ours.BaseServer, ours.parse_address):
        assert thing.__doc__ and len(thing.__doc__) > 20


def test_same_class_under_both_names(ours):
    """gevent_cbase.BaseServer is the class of the mirror module."""
    import gevent_cbase
    assert gevent_cbase.BaseServer is ours.BaseServer


def test_methods_take_any_object(impl):
    """As functions of a class do: a server may have left the class since they were looked up."""
    class Other:
        def is_set(self):
            return True
    other, cls = Other(), impl.BaseServer
    other._stop_event = other
    assert cls.full(other) is False
    assert cls.set_handle(other, len) is None and other._handle is len
    assert cls.started.fget(other) is False
    with pytest.raises(NotImplementedError):
        cls.do_read(other)
    with pytest.raises(AttributeError, match="'Other' object has no attribute 'pool'") as caught:
        other.set = lambda: None
        cls.close(other)
    assert str(caught.value.__context__).startswith(
        "'Other' object has no attribute 'stop_accepting'")
    with pytest.raises(TypeError):
        cls.stop()
