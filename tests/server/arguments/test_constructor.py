"""What the constructor sets, in which order, what it refuses, and what it leaves behind."""
import errno
import functools
import socket as native
import sys
import threading

import gevent
import pytest
from gevent import get_hub, socket
from gevent.event import Event
from gevent.pool import Group, Pool
from gevent.threadpool import ThreadPool
from helpers import (
    LOOPBACK, ask, descriptors, descriptors_at_rest, echo, handler, listener, outcome, spying)

#: attributes of every instance once the constructor has returned
ALWAYS = {'_stop_event', '_watcher', '_timer', '_handle', 'pool', 'family', 'address', '_spawn',
          'delay', 'loop'}


class FakePool:
    """Has what a server needs of a pool, and notes who links and unlinks."""

    def __init__(self):
        self._semaphore = self
        self.links, self.unlinks = [], []

    def rawlink(self, callback):
        self.links.append(callback)

    def unlink(self, callback):
        self.unlinks.append(callback)

    def spawn(self, *args):
        raise NotImplementedError

    def full(self):
        return 'maybe'


class Bare:
    """Only spawns: lacks both ``_semaphore`` and ``full``."""

    def spawn(self, *args):
        raise NotImplementedError


# Defaults and signature


@pytest.mark.parametrize('name, value', [
    ('min_delay', 0.01), ('max_delay', 1), ('max_accept', 100), ('stop_timeout', 1),
    ('fatal_errors', (errno.EBADF, errno.EINVAL, errno.ENOTSOCK))])
def test_class_attributes(impl, name, value):
    """The documented defaults, which belong to the class alone."""
    assert getattr(impl.BaseServer, name) == value
    assert type(getattr(impl.BaseServer, name)) is type(value)
    assert name in vars(impl.BaseServer)
    server = impl.BaseServer(LOOPBACK, handler)
    assert name not in vars(server)
    assert getattr(server, name) == value


def test_default_spawn_of_the_class(impl):
    """``_spawn`` is Greenlet.spawn, a bound class method, thus not bound again."""
    assert vars(impl.BaseServer)['_spawn'] == gevent.Greenlet.spawn == gevent.spawn
    assert impl.BaseServer._spawn.__self__ is gevent.Greenlet


def test_positions_and_keywords(impl):
    """(listener, handle, spawn), by position or by name."""
    for server in (impl.BaseServer(LOOPBACK, handler, 3),
                   impl.BaseServer(LOOPBACK, handler, spawn=3),
                   impl.BaseServer(LOOPBACK, spawn=3, handle=handler),
                   impl.BaseServer(spawn=3, handle=handler, listener=LOOPBACK)):
        assert server.address == LOOPBACK
        assert server.handle is server._handle is handler
        assert server.pool.size == 3


@pytest.mark.parametrize('args, kwargs', [
    ((), {}),
    ((), {'handle': handler}),
    ((LOOPBACK, handler, 'default', None), {}),
    ((LOOPBACK,), {'listener': LOOPBACK, 'handle': handler}),
    ((LOOPBACK, handler), {'handle': handler}),
    ((LOOPBACK, handler), {'backlog': 5}),
    ((LOOPBACK, handler, None), {'spawn': None}),
])
def test_wrong_arguments(impl, args, kwargs):
    """TypeError before anything is set."""
    server = impl.BaseServer.__new__(impl.BaseServer)
    with pytest.raises(TypeError):
        server.__init__(*args, **kwargs)
    assert vars(server) == {}


def test_constructing_on_an_existing_instance(impl):
    """``__init__`` returns None, may be called unbound, and again."""
    server = object.__new__(impl.BaseServer)
    assert impl.BaseServer.__init__(server, '1', handler) is None
    first = server._stop_event
    assert impl.BaseServer.__init__(server, listener=2, handle=echo, spawn=None) is None
    assert server.address == ('', 2) and server._handle is echo and server._spawn is None
    assert server._stop_event is not first and server._stop_event.is_set()


# What is set


@pytest.mark.parametrize('address, family, parsed', [
    (('127.0.0.1', 0), native.AF_INET, ('127.0.0.1', 0)),
    (('::1', 0), native.AF_INET6, ('::1', 0)),
    (('', 0), native.AF_INET6, ('', 0)),
    (('*', 0), native.AF_INET, ('*', 0)),
    ('localhost:80', native.AF_INET, ('localhost', 80)),
    ('*:80', native.AF_INET, ('', 80)),
    (':80', native.AF_INET, ('', 80)),
    ('[::1]:80', native.AF_INET6, ('::1', 80)),
    ('80', native.AF_INET6, ('', 80)),
    (80, native.AF_INET6, ('', 80)),
], ids=repr)
def test_address_as_listener(impl, address, family, parsed):
    """Address and family are noted; nothing is bound yet, so the server is closed."""
    before = descriptors_at_rest()
    server = impl.BaseServer(address, handler)
    assert descriptors() == before
    assert vars(server).keys() == ALWAYS | {'handle'}
    assert server.family == family and server.address == parsed
    assert server.closed and not server.started


def make_tcp():
    return listener()


def make_raw_tcp():
    return native.create_server(LOOPBACK)


def make_udp():
    sock = socket.socket(type=native.SOCK_DGRAM)
    sock.bind(LOOPBACK)
    return sock


@pytest.mark.parametrize('make', [make_tcp, make_raw_tcp, make_udp])
def test_socket_as_listener(impl, make):
    """A socket of any kind is kept as it is, with its own family and name."""
    sock = make()
    server = impl.BaseServer(sock, handler)
    assert vars(server).keys() == ALWAYS | {'handle', 'socket'}
    assert server.socket is sock and server.address == sock.getsockname()
    assert server.family is native.AF_INET
    assert not server.closed and not server.started
    server.close()
    assert sock.fileno() == -1


def test_unix_socket_as_listener(impl, tmp_path):
    """The address of a UNIX socket is its path."""
    path = str(tmp_path / 's')
    with socket.socket(native.AF_UNIX) as sock:
        sock.bind(path)
        server = impl.BaseServer(sock, handler)
        assert (server.family, server.address) == (native.AF_UNIX, path)


def test_any_object_with_accept_as_listener(impl):
    """A listener is recognised by ``accept``, which is not called; family and name are taken
    as they come."""
    class Listener:
        accept = family = None
        closed = 0

        def getsockname(self):
            return [1]

        def close(self):
            self.closed += 1
    sock = Listener()
    server = impl.BaseServer(sock, handler)
    assert server.family is None and server.address == [1] and server.socket is sock
    server.close()
    assert sock.closed == 1


def test_initial_state(impl):
    """Not started, no watcher, no timer, the current hub's loop, the shortest delay."""
    class Slow(impl.BaseServer):
        min_delay = 0.25
    server = Slow(LOOPBACK, handler)
    assert type(server._stop_event) is Event and server._stop_event.is_set()
    assert server._watcher is None and server._timer is None and server.pool is None
    assert server.loop is get_hub().loop
    assert server.delay == 0.25


def test_loop_of_another_thread(impl):
    """The loop is that of the hub of the thread that constructs."""
    seen = []

    def work():
        seen.append(impl.BaseServer(LOOPBACK, handler).loop is get_hub().loop)
        seen.append(get_hub().loop is not loop)
        get_hub().destroy(destroy_loop=True)
    loop = get_hub().loop
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [True, True]


def test_order_of_assignments(impl):
    """Every attribute is set through __setattr__, so a subclass may watch, in this order."""
    log = []

    class Watched(impl.BaseServer):
        def __setattr__(self, name, value):
            log.append(name)
            super().__setattr__(name, value)
    Watched(LOOPBACK, handler)
    assert log == ['_stop_event', '_watcher', '_timer', '_handle', 'pool', 'family', 'address',
                   'pool', '_spawn', 'handle', '_handle', 'delay', 'loop']
    del log[:]
    Watched(LOOPBACK, handler, 3)
    assert log == ['_stop_event', '_watcher', '_timer', '_handle', 'pool', 'family', 'address',
                   'pool', '_spawn', 'full', 'handle', '_handle', 'delay', 'loop']
    del log[:]
    server = Watched(listener(), handler, None)
    assert log == ['_stop_event', '_watcher', '_timer', '_handle', 'pool', 'family', 'address',
                   'socket', 'pool', '_spawn', 'handle', '_handle', 'delay', 'loop']
    server.close()


def test_order_of_hooks(impl):
    """set_listener, set_spawn, set_handle, each with the constructor's own argument."""
    log = []

    class Mine(impl.BaseServer):
        def set_listener(self, *args, **kwargs):
            log.append((args, kwargs, sorted(vars(self))))

        def set_spawn(self, *args, **kwargs):
            log.append((args, kwargs))

        def set_handle(self, *args, **kwargs):
            log.append((args, kwargs))
    server = Mine(1, 2, 3)
    assert log == [
        ((1,), {}, ['_handle', '_stop_event', '_timer', '_watcher', 'pool']),
        ((3,), {}),
        ((2,), {}),
    ]
    assert vars(server).keys() == ALWAYS - {'family', 'address', '_spawn'}
    assert server._handle is None


def test_hooks_found_on_the_instance(impl):
    """A hook assigned to the instance before __init__ is the one that is called."""
    server = impl.BaseServer.__new__(impl.BaseServer)
    got = []
    server.set_listener = server.set_spawn = server.set_handle = got.append
    server.min_delay = 5
    server.__init__('L', 'H', 'S')
    assert got == ['L', 'S', 'H'] and server.delay == 5


def test_attributes_set_before_the_constructor(impl):
    """They are kept, ``socket`` included; those that the constructor sets are replaced."""
    class Mine(impl.BaseServer):
        def __init__(self, *args):
            self.extra, self.pool, self.delay = 'kept', 'replaced', 'replaced'
            self.socket = sock
            self.max_accept = 7
            super().__init__(*args)
    sock = listener()
    server = Mine(LOOPBACK, handler)
    assert server.socket is sock and server.address == LOOPBACK and not server.closed
    assert vars(server).keys() == ALWAYS | {'handle', 'extra', 'socket', 'max_accept'}
    assert (server.extra, server.pool, server.delay) == ('kept', None, 0.01)
    server.close()
    assert sock.fileno() == -1


def test_read_only_property_named_socket(impl):
    """A subclass that keeps its socket elsewhere shows it by a property; an address is fine
    then, and a listener cannot be set."""
    class Mine(impl.BaseServer):
        @property
        def socket(self):
            return shown
    shown, other = listener(), listener()
    server = Mine(LOOPBACK, handler)
    assert not server.closed and 'socket' not in vars(server)
    server.close()
    assert shown.fileno() == -1 and not server.closed
    with pytest.raises(AttributeError), other:
        Mine(other, handler)


# Handlers


@pytest.mark.parametrize('handle', [
    handler, print, functools.partial(handler, 1), [].append, Bare(), 0, False, 'text',
], ids=['function', 'builtin', 'partial', 'bound', 'object', 'zero', 'false', 'text'])
def test_any_object_as_handle(impl, handle):
    """What is not None is taken, callable or not, and stored twice."""
    server = impl.BaseServer(LOOPBACK, handle)
    assert vars(server)['handle'] is handle and vars(server)['_handle'] is handle


def test_handle_of_a_subclass(impl):
    """A method named ``handle`` needs no argument; only ``_handle`` is stored."""
    class Mine(impl.BaseServer):
        def handle(self, *args):
            raise NotImplementedError
    server = Mine(LOOPBACK)
    assert vars(server).keys() == ALWAYS
    assert server._handle == server.handle and server._handle.__self__ is server
    server = Mine(LOOPBACK, handler)
    assert server.handle is server._handle is handler


def test_set_handle(impl):
    """None keeps the handler; another one replaces both attributes."""
    server = impl.BaseServer(LOOPBACK, handler)
    assert server.set_handle(None) is None
    assert server.handle is server._handle is handler
    server.handle = print
    assert impl.BaseServer.set_handle(server, None) is None
    assert server.handle is server._handle is print
    assert server.set_handle(handle=echo) is None
    assert server.handle is server._handle is echo


def test_set_handle_after_close(impl):
    """close() has dropped the handler, so None is refused until a new one is given."""
    server = impl.BaseServer(LOOPBACK, handler)
    server.close()
    with pytest.raises(TypeError) as info:
        server.set_handle(None)
    assert str(info.value) == "'handle' must be provided"
    assert '_handle' not in vars(server)
    server.set_handle(echo)
    assert server.handle is server._handle is echo


def test_handle_property(impl):
    """AttributeError of a property counts as no handler; other errors get out."""
    class Mine(impl.BaseServer):
        error = AttributeError('hidden')

        @property
        def handle(self):
            raise self.error
    with pytest.raises(TypeError, match="^'handle' must be provided$") as info:
        Mine(LOOPBACK)
    assert info.value.__context__ is None
    Mine.error = LookupError('loud')
    with pytest.raises(LookupError) as info:
        Mine(LOOPBACK)
    assert info.value is Mine.error


# set_listener on its own


def test_set_listener(impl):
    """It sets family and address, and ``socket`` only for a socket."""
    server = impl.BaseServer(1, handler)
    assert impl.BaseServer.set_listener(server, '[::1]:5') is None
    assert (server.family, server.address) == (native.AF_INET6, ('::1', 5))
    sock = listener()
    assert server.set_listener(listener=sock) is None
    assert server.socket is sock and server.address == sock.getsockname()
    assert server.set_listener(('a', 1)) is None
    assert server.socket is sock and server.address == ('a', 1)
    server.close()


def test_set_listener_that_fails_changes_nothing(impl):
    """On its own it neither closes the server nor sets half of the attributes."""
    server = impl.BaseServer(1, handler)
    before = dict(vars(server))
    for bad, kind in ((b'1', TypeError), ('x', ValueError), (None, TypeError),
                      ((), IndexError)):
        with pytest.raises(kind):
            server.set_listener(bad)
    assert vars(server) == before


# Ways to spawn


def test_spawn_default(impl):
    """'default' copies the class's own spawn function to the instance."""
    for spawn in ('default', 'de' + 'fault'.lower(), type('Text', (str,), {})('default')):
        server = impl.BaseServer(LOOPBACK, handler, spawn)
        assert vars(server).keys() == ALWAYS | {'handle'}
        assert server.pool is None and vars(server)['_spawn'] == gevent.spawn


def test_spawn_default_of_a_subclass(impl):
    """A plain function as ``_spawn`` of a subclass is bound; a static one is not."""
    class Method(impl.BaseServer):
        def _spawn(self, *args):
            raise NotImplementedError

    class Static(impl.BaseServer):
        _spawn = staticmethod(handler)

    class Nothing(impl.BaseServer):
        _spawn = None
    assert Method(1, handler)._spawn.__func__ is vars(Method)['_spawn']
    assert Static(1, handler)._spawn is handler
    assert Nothing(1, handler)._spawn is None


@pytest.mark.parametrize('spawn', [
    gevent.spawn, gevent.spawn_raw, handler, functools.partial(gevent.spawn), 'Default', b'',
    b'default', 1.5, (), None,
], ids=['spawn', 'spawn_raw', 'function', 'partial', 'text', 'no bytes', 'bytes', 'float', 'tuple',
        'none'])
def test_spawn_as_it_is(impl, spawn):
    """What has no ``spawn`` and is no int is stored unchecked; None means no spawning."""
    server = impl.BaseServer(LOOPBACK, handler, spawn)
    assert vars(server).keys() == ALWAYS | {'handle'}
    assert server._spawn is spawn and server.pool is None
    assert server.full() is False


@pytest.mark.parametrize('number', [5, 1, 0, True, False, type('Int', (int,), {})(4)],
                         ids=['5', '1', '0', 'True', 'False', 'subclass'])
def test_spawn_number(impl, number):
    """A number makes a Pool of that size."""
    server = impl.BaseServer(LOOPBACK, handler, number)
    assert vars(server).keys() == ALWAYS | {'handle', 'full'}
    assert type(server.pool) is Pool and server.pool.size is number
    assert server._spawn == server.pool.spawn and server.full == server.pool.full
    assert server.full() is (number == 0)


def test_spawn_number_uses_the_pool_class_of_the_moment(impl, monkeypatch):
    """gevent.pool.Pool is looked up when needed, so a replaced one is used."""
    class Mine(Pool):
        pass
    monkeypatch.setattr('gevent.pool.Pool', Mine)
    assert type(impl.BaseServer(LOOPBACK, handler, 2).pool) is Mine


def test_spawn_negative_number(impl):
    """The error is the pool's own."""
    sock = listener()
    with pytest.raises(ValueError) as info:
        impl.BaseServer(sock, handler, -1)
    assert str(info.value) == 'size must not be negative: -1'
    assert info.value.__context__ is None and sock.fileno() == -1


def test_spawn_pool(impl):
    """The pool's spawn and full become the instance's own; its semaphore is linked."""
    class Mine(Pool):
        pass
    for pool in (Pool(2), Mine(1)):
        server = impl.BaseServer(LOOPBACK, handler, pool)
        assert vars(server).keys() == ALWAYS | {'handle', 'full'}
        assert server.pool is pool
        assert server._spawn == pool.spawn and server.full == pool.full
        assert pool._semaphore.linkcount() == 1
        server.close()
        assert pool._semaphore.linkcount() == 0 and server.pool is pool


def test_spawn_pool_without_a_limit(impl):
    """A Pool without a size has a semaphore that links nothing; it is never full."""
    pool = Pool()
    server = impl.BaseServer(LOOPBACK, handler, pool)
    assert vars(server).keys() == ALWAYS | {'handle', 'full'}
    assert server.pool is pool and server.full == pool.full and server.full() is False
    server.close()
    assert server.pool is pool


def test_spawn_pool_hides_full_of_a_subclass(impl):
    """The pool's ``full`` wins over a method of the subclass."""
    class Mine(impl.BaseServer):
        def full(self):
            raise NotImplementedError
    assert Mine(LOOPBACK, handler, Pool(1)).full() is False


def test_spawn_pool_like(impl):
    """Duck typing: one rawlink with the server's own method, one unlink with an equal one."""
    pool = FakePool()
    server = impl.BaseServer(LOOPBACK, handler, pool)
    assert pool.links == [server._start_accepting_if_started] and pool.unlinks == []
    assert server.full() == 'maybe' and server._spawn == pool.spawn
    server.close()
    assert pool.unlinks == pool.links
    assert server.full() is False


def test_spawn_pool_like_without_full(impl):
    """Then the server's own ``full`` stays in force."""
    class Mine(Bare):
        _semaphore = FakePool()
    pool = Mine()
    server = impl.BaseServer(LOOPBACK, handler, pool)
    assert vars(server).keys() == ALWAYS | {'handle'}
    assert server.pool is pool and server._spawn == pool.spawn and server.full() is False


class Full(Bare):
    """Lacks ``_semaphore`` only."""

    def full(self):
        return 'perhaps'


@pytest.fixture
def threads():
    """A pool of threads; on libuv one that is dropped without kill() crashes gevent later."""
    pool = ThreadPool(1)
    yield pool
    pool.kill()


@pytest.mark.stock_bug
@pytest.mark.parametrize('make, keys', [
    (Group, {'full'}), (Bare, set()), (Full, {'full'}), (None, set())],
    ids=['Group', 'only spawn', 'spawn and full', 'ThreadPool'])
def test_spawn_pool_like_without_semaphore(impl, threads, make, keys):
    """Better than gevent, whose constructor fails with AttributeError, then again in close():
    whatever has ``spawn`` is accepted."""
    pool, sock = make() if make else threads, listener()
    if impl.stock:
        with pytest.raises(AttributeError, match="has no attribute '_semaphore'") as info:
            impl.BaseServer(sock, handler, pool)
        assert type(info.value.__context__) is AttributeError
        assert sock.fileno() == -1
        return
    server = impl.BaseServer(sock, handler, pool)
    assert vars(server).keys() == ALWAYS | {'handle', 'socket'} | keys
    assert server.pool is pool and server._spawn == pool.spawn
    assert 'full' not in keys or server.full == pool.full
    server.close()
    assert sock.fileno() == -1
    assert vars(server).keys() == ALWAYS - {'_spawn', '_handle'}


@pytest.mark.stock_bug
def test_spawn_group_serves(impl):
    """Better than gevent: a Group really serves, and stop() ends its greenlets."""
    group = Group()
    if impl.stock:
        with pytest.raises(AttributeError, match='_semaphore'):
            impl.StreamServer(LOOPBACK, echo, spawn=group)
        return
    server = impl.StreamServer(LOOPBACK, echo, spawn=group)
    server.start()
    assert ask(server) == b'ping'
    hanging = group.spawn(gevent.sleep, 30)
    server.stop(timeout=0)
    assert hanging.dead and len(group) == 0 and server.closed


def test_set_spawn_on_its_own(impl):
    """Each form replaces pool and _spawn; 'default' keeps the function and ``full`` in use."""
    server = impl.BaseServer(LOOPBACK, handler)
    assert server.set_spawn(handler) is None
    assert server.pool is None and server._spawn is handler
    assert impl.BaseServer.set_spawn(server, spawn=2) is None
    pool = server.pool
    assert pool.size == 2 and server._spawn == pool.spawn
    server.set_spawn('default')
    assert server.pool is None and server._spawn == pool.spawn and server.full == pool.full
    server.set_spawn(None)
    assert server.pool is None and server._spawn is None and server.full == pool.full
    server.close()
    server.set_spawn('default')
    assert server._spawn == gevent.spawn and 'full' not in vars(server)


def test_set_spawn_links_again_each_time(impl):
    """The old pool stays linked; the same pool given twice is linked twice."""
    pool, other = FakePool(), FakePool()
    server = impl.BaseServer(LOOPBACK, handler, pool)
    server.set_spawn(pool)
    server.set_spawn(other)
    assert len(pool.links) == 2 and pool.unlinks == []
    server.close()
    assert pool.unlinks == [] and other.unlinks == other.links


def test_spawn_that_claims_to_be_the_default(impl):
    """`==` decides, whatever the object is."""
    class Same:
        spawn = full = None

        def __eq__(self, other):
            return [other == 'default']
    server = impl.BaseServer(LOOPBACK, handler, Same())
    assert server.pool is None and server._spawn == gevent.spawn


@pytest.mark.parametrize('name', ['__eq__', '__bool__', 'spawn', 'full', '_semaphore',
                                  'rawlink'])
def test_hostile_spawn(impl, name):
    """An error other than AttributeError, anywhere in a spawn object, gets out unchanged."""
    error = LookupError(name)

    def fail(*args):
        raise error

    class Hostile(FakePool):
        def __eq__(self, other):
            return fail() if name == '__eq__' else Answer()

        rawlink = fail if name == 'rawlink' else FakePool.rawlink

    class Answer:
        def __bool__(self):
            return fail() if name == '__bool__' else False
    pool, sock = Hostile(), listener()
    if name in ('spawn', 'full', '_semaphore'):
        setattr(Hostile, name, property(fail, lambda self, value: None))
    assert outcome(impl.BaseServer, sock, handler, pool) is error
    assert sock.fileno() == -1
    error.__traceback__ = None  # or it would keep the hostile object for the next tests


# Failures


class Failing:
    """Keeps the half-made instance of *base* for inspection."""

    def __init__(self, base, **attributes):
        class Kept(base):
            def __init__(inner, *args):
                self.server = inner
                super().__init__(*args)
        for name, value in attributes.items():
            setattr(Kept, name, value)
        self.cls = Kept

    def __call__(self, kind, *args):
        with pytest.raises(kind) as info:
            self.cls(*args)
        assert type(info.value) is kind
        return info.value


START = {'_stop_event', '_watcher', '_timer', 'pool'}


def test_wrong_listener(impl):
    """TypeError, ValueError or whatever the address raises; little is left behind."""
    failing = Failing(impl.BaseServer)
    for bad, kind, message in (
            (b'80', TypeError, "Expected tuple or string, got <class 'bytes'>"),
            (None, TypeError, "Expected tuple or string, got <class 'NoneType'>"),
            ((), IndexError, 'tuple index out of range'),
            ('x', ValueError, "Failed to parse address 'x': invalid literal for int() with "
                              "base 10: 'x'")):
        error = failing(kind, bad, handler)
        assert str(error) == message
        assert (error.__context__ is None) is (kind is not ValueError)
        assert vars(failing.server).keys() == START
        assert failing.server.pool is None and failing.server._stop_event.is_set()


def test_no_handle(impl):
    """TypeError, and a listener of the caller's is closed."""
    failing = Failing(impl.BaseServer)
    for spawn in ('default', 3):
        sock, before = listener(), descriptors_at_rest()
        error = failing(TypeError, sock, None, spawn)
        assert str(error) == "'handle' must be provided" and error.__context__ is None
        assert sock.fileno() == -1 and descriptors() == before - 1
        assert vars(failing.server).keys() == START | {'family', 'address'}


class Mine(Exception):
    """What an attribute of a subclass raises."""


def raising(*args):
    raise Mine


@pytest.mark.parametrize('name, closed', [
    ('_stop_event', False), ('_watcher', False), ('_timer', False), ('_handle', False),
    ('pool', False), ('family', False), ('address', False), ('_spawn', True), ('handle', True),
    ('delay', True), ('loop', True)])
def test_attribute_that_cannot_be_set(impl, name, closed):
    """The error passes; a listener of the caller's is closed if the server has it by then."""
    failing, sock = Failing(impl.BaseServer, **{name: property(lambda self: None, raising)}), \
        listener()
    with sock:
        failing(Mine, sock, handler)
        assert (sock.fileno() == -1) is closed


@pytest.mark.parametrize('name, closed', [
    ('_stop_event', False), ('pool', True), ('handle', True), ('min_delay', True),
    ('max_accept', True)])
def test_attribute_that_cannot_be_read(impl, name, closed):
    failing, sock = Failing(impl.BaseServer, **{
        name: property(raising, lambda self, value: None)}), listener()
    with sock:
        failing(Mine, sock, handler)
        assert (sock.fileno() == -1) is closed


def test_default_handle_is_none(impl):
    """The argument may be left out only if the class has a handler."""
    with pytest.raises(TypeError, match="^'handle' must be provided$"):
        impl.BaseServer(LOOPBACK)


@pytest.mark.parametrize('value, shown', [
    (0, '0'), (-1, '-1'), (0.5, '0.5'), (False, 'False'), ((), None), ('1', None), (None, None)])
def test_max_accept_below_one(impl, value, shown):
    """Checked last, on whatever the instance has; what does not compare is a TypeError."""
    failing = Failing(impl.BaseServer, max_accept=value)
    sock = listener()
    error = failing(TypeError if shown is None else ValueError, sock, handler, 3)
    if shown is not None:
        assert str(error) == 'max_accept must be positive int: ' + shown
    assert error.__context__ is None and sock.fileno() == -1
    assert vars(failing.server).keys() == START | {'family', 'address', 'delay', 'loop'}
    assert failing.server.pool._semaphore.linkcount() == 0


@pytest.mark.parametrize('value', [1, True, 1.5, 1 << 70])
def test_max_accept_of_one_or_more(impl, value):
    """Only `< 1` is refused; the kind of number does not matter here."""
    class Mine(impl.BaseServer):
        max_accept = value
    assert Mine(LOOPBACK, handler).max_accept is value


def test_max_accept_tuple_in_the_message(impl):
    """A value that is a tuple is still shown whole."""
    class Low(tuple):
        def __lt__(self, other):
            return True
    failing = Failing(impl.BaseServer, max_accept=Low('ab'))
    error = failing(ValueError, LOOPBACK, handler)
    assert str(error) == "max_accept must be positive int: ('a', 'b')"


def test_messages_that_cannot_be_made(impl):
    """The error of a value's own repr() takes the place of the message about it."""
    class Low(float):
        def __repr__(self):
            raise LookupError('low')

    class Shy(Secure):
        def __repr__(self):
            raise LookupError('shy')
    for failing, args, message in (
            (Failing(impl.BaseServer, max_accept=Low()), (LOOPBACK, handler), 'low'),
            (Failing(impl.BaseServer), (Shy(), handler), 'shy')):
        error = failing(LookupError, *args)
        assert str(error) == message and error.__context__ is None
        assert failing.server.closed


class Secure:
    """Looks like an SSL socket."""

    closed = False
    accept = do_handshake = family = None

    def getsockname(self):
        raise NotImplementedError

    def close(self):
        self.closed = True

    def __repr__(self):
        return '<secure>'


def test_ssl_listener(impl):
    """An SSL socket is refused, and left open."""
    sock, failing = Secure(), Failing(impl.BaseServer)
    error = failing(TypeError, sock, handler)
    assert str(error) == 'Expected a regular socket, not SSLSocket: <secure>'
    assert error.__context__ is None
    assert sock.closed is False
    assert vars(failing.server).keys() == START


def test_real_ssl_listener(impl):
    """The same with gevent's own SSL socket."""
    from gevent import ssl
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with context.wrap_socket(listener(), server_side=True) as sock:
        with pytest.raises(TypeError, match='^Expected a regular socket, not SSLSocket: <'):
            impl.BaseServer(sock, handler)
        assert sock.fileno() >= 0


def test_hostile_listener(impl):
    """Errors of accept, do_handshake, family and getsockname get out; the listener is not
    closed, for it was not the server's yet."""
    for name, left in (('accept', set()), ('do_handshake', set()), ('family', set()),
                       ('getsockname', {'family'})):
        error = LookupError(name)

        def fail(self, error=error):
            raise error

        class Listener:
            accept, family, closed = None, 9, False

            def close(self):
                self.closed = True
        setattr(Listener, name, property(fail))
        failing, sock = Failing(impl.BaseServer), Listener()
        assert failing(LookupError, sock, handler) is error
        assert sock.closed is False
        assert vars(failing.server).keys() == START | left


def test_listener_without_family_or_name(impl):
    """AttributeError, as for any missing attribute."""
    class Listener:
        accept = None
    failing = Failing(impl.BaseServer)
    error = failing(AttributeError, Listener(), handler)
    assert str(error) == "'Listener' object has no attribute 'family'"
    Listener.family = 1
    error = failing(AttributeError, Listener(), handler)
    assert str(error) == "'Listener' object has no attribute 'getsockname'"
    assert vars(failing.server).keys() == START | {'family'}


def test_hidden_accept(impl):
    """A property that raises AttributeError means that it is no socket: the object is then
    taken for an address."""
    class Odd(str):
        @property
        def accept(self):
            raise AttributeError
    assert impl.BaseServer(Odd('host:1'), handler).address == ('host', 1)


@pytest.mark.parametrize('hook', ['set_listener', 'set_spawn', 'set_handle'])
@pytest.mark.parametrize('kind', [LookupError, KeyboardInterrupt, SystemExit,
                                  gevent.GreenletExit, gevent.Timeout])
def test_hook_that_raises(impl, hook, kind):
    """Any exception of an overridden hook closes the server and passes on unchanged."""
    error = kind()
    log = []

    def fail(self, argument):
        raise error
    base = spying(impl.BaseServer, log, 'close')
    failing = Failing(base, **{hook: fail})
    sock = listener()
    assert failing(kind, sock, handler) is error
    assert error.__context__ is None and log == ['close']
    assert (sock.fileno() == -1) is (hook != 'set_listener')
    sock.close()


def test_min_delay_and_loop_failures(impl):
    """An error after the three hooks also closes."""
    error = LookupError('delay')

    def fail(self):
        raise error
    failing, sock = Failing(impl.BaseServer, min_delay=property(fail)), listener()
    assert failing(LookupError, sock, handler) is error
    assert sock.fileno() == -1
    assert vars(failing.server).keys() == START | {'family', 'address'}


def test_close_sees_the_error(impl):
    """While close() runs, the error is the exception being handled."""
    seen = []

    def close(self):
        seen.append(sys.exc_info()[1])
        impl.BaseServer.close(self)
    error = Failing(impl.BaseServer, close=close)(TypeError, b'', handler)
    assert seen == [error]


def test_close_found_on_the_instance(impl):
    """An overriding ``close`` assigned before __init__ is called, without arguments."""
    server, log = impl.BaseServer.__new__(impl.BaseServer), []
    server.close = lambda *args: log.append(args)
    with pytest.raises(TypeError):
        server.__init__(None)
    assert log == [()]
    assert vars(server).keys() == START | {'_handle', 'close'}


def test_close_that_raises(impl):
    """An error of close() takes the place of the first, which becomes its context."""
    second = LookupError('close')

    def close(self):
        raise second
    failing = Failing(impl.BaseServer, close=close)
    assert failing(LookupError, b'', handler) is second
    first = second.__context__
    assert type(first) is TypeError and str(first).startswith('Expected tuple or string')
    assert first.__context__ is None and second.__cause__ is None


def test_error_of_the_sockets_close_is_lost(impl):
    """An Exception of the listener's close() is dropped; the first error stays as it was."""
    class Listener:
        accept = family = None

        def getsockname(self):
            return 'name'

        def close(self):
            raise self.error
    sock = Listener()
    sock.error = LookupError('close')
    error = Failing(impl.BaseServer)(TypeError, sock)
    assert str(error) == "'handle' must be provided" and error.__context__ is None


def test_grave_error_of_the_sockets_close(impl):
    """What is no Exception gets out, with the first error as context."""
    class Listener:
        accept = family = None

        def getsockname(self):
            return 'name'

        def close(self):
            raise self.error
    sock, failing = Listener(), Failing(impl.BaseServer)
    sock.error = KeyboardInterrupt()
    error = failing(KeyboardInterrupt, sock)
    assert error is sock.error
    assert str(error.__context__) == "'handle' must be provided"
    assert vars(failing.server).keys() == START | {'family', 'address'}


def test_pool_that_cannot_be_unlinked(impl):
    """An error of unlink() comes last, when all is closed, and hides the first."""
    class Stuck(FakePool):
        def unlink(self, callback):
            raise LookupError('unlink')
    sock, failing = listener(), Failing(impl.BaseServer)
    error = failing(LookupError, sock, None, Stuck())
    assert str(error) == 'unlink'
    assert str(error.__context__) == "'handle' must be provided"
    assert sock.fileno() == -1
    assert vars(failing.server).keys() == START | {'family', 'address'}


def test_error_while_another_is_handled(impl):
    """The caller's own exception is the context of the constructor's."""
    outer = RuntimeError()
    try:
        try:
            raise outer
        except RuntimeError:
            impl.BaseServer(None, handler)
    except TypeError as ex:
        error = ex
    assert error.__context__ is outer and sys.exc_info() == (None, None, None)


def test_failed_constructors_leave_no_descriptor(impl):
    """Whatever the failure, the count of open descriptors is as before."""
    class Low(impl.StreamServer):
        max_accept = 0
    before = descriptors_at_rest()
    for cls, args in ((impl.BaseServer, (None,)), (impl.BaseServer, ('nonsense', handler)),
                      (impl.StreamServer, ()), (impl.StreamServer, (handler, None, -1)),
                      (Low, (handler,)), (impl.DatagramServer, (None, 3))):
        args = args if cls is impl.BaseServer else (listener(),) + args
        with pytest.raises((TypeError, ValueError)):
            cls(*args)
    assert descriptors() == before


# The servers built on it


def test_keys_of_the_server_classes(impl):
    """StreamServer, DatagramServer and WSGIServer add their own attributes to ours."""
    base = ALWAYS | {'handle'}
    assert vars(impl.StreamServer(LOOPBACK, handler)).keys() == base | {'ssl_args'}
    assert vars(impl.DatagramServer(LOOPBACK, handler)).keys() == base | {
        '_socket', '_writelock'}
    server = impl.WSGIServer(LOOPBACK, handler)
    assert ALWAYS < vars(server).keys() and 'handle' not in vars(server)


def test_backlog_with_a_socket(impl):
    """StreamServer closes the server when it refuses what BaseServer has accepted."""
    sock = listener()
    with pytest.raises(TypeError, match='backlog must be None'):
        impl.StreamServer(sock, handler, backlog=5)
    assert sock.fileno() == -1
