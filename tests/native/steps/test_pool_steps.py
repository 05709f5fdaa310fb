"""Servers with a gevent.pool.Pool: what each connection does to the pool, and who may change that.

The tests run the batches themselves, on a loop that only takes notes. ``frames`` tells which
Python functions of the pool ran: ours does without where nobody could tell, and calls all of
those that could have been changed.
"""
import copy
import functools
import gc
import itertools
import sys
import types
import weakref

import gevent
import gevent.pool
import pytest
from gevent import get_hub
from gevent.exceptions import BlockingSwitchOutError
from gevent.pool import Group, Pool, PoolFull

import helpers
from helpers import LOOPBACK, FakeListener, FakeLoop, ask, by_hand, echo, until

pytestmark = pytest.mark.fast_path

#: the Python functions of a pool that a connection takes in gevent
STEPS = {function.__code__: function.__qualname__ for function in (
    Pool.full, Pool.free_count, Pool.__len__, Pool.spawn, Pool.start, Pool.add, Group.add)}
FULL = ['Pool.full', 'Pool.free_count', 'Group.__len__']
SPAWN = ['Group.spawn', 'Pool.start', 'Pool.add', 'Group.add']
BATCH = FULL + SPAWN

frames = functools.partial(helpers.frames, STEPS)


def serving(impl, pool, **namespace):
    """A server that reads one connection, ``(1,)``, in each batch."""
    return by_hand(impl, itertools.repeat((1,)), spawn=pool, max_accept=1, **namespace)


def fast(impl, ours=()):
    """The frames of a batch: all of them in gevent, and *ours*."""
    return BATCH if impl.stock else list(ours)


def run_handlers(pool):
    """Let the greenlets of *pool* come to their end."""
    until(lambda: not pool.greenlets)


def error_of(server):
    """The one error that was reported, for the connection."""
    (context, kind, value), = server.loop.errors
    assert context == ((), server) and kind is type(value)
    del server.loop.errors[:]
    return value


# -- one connection -----------------------------------------------------------------------

@pytest.mark.fast_path('pools')
def test_native_steps_are_on(impl):
    """On the gevent that is installed, for ours."""
    if not impl.stock:
        from gevent_cbase._native import pools
        assert pools.why_off() is None


@pytest.mark.fast_path('lookups', 'pools')
@pytest.mark.parametrize('size', [3, None, 10 ** 6])
def test_no_python_of_the_pool_runs(impl, size):
    """Neither to ask whether it is full nor to spawn."""
    server = serving(impl, Pool(size))
    assert frames(server._do_read) == [
        name for name in fast(impl) if size is not None or name != 'Group.__len__']
    assert server.loop.errors == []


@pytest.mark.fast_path('lookups', 'pools')
def test_number_as_spawn(impl):
    """The server makes the pool."""
    server = serving(impl, 3)
    assert type(server.pool) is Pool and server.pool.size == 3
    assert frames(server._do_read) == fast(impl)
    assert len(server.pool) == 1


def test_what_a_connection_does_to_the_pool(impl):
    """Until the handler has run, and after it."""
    pool = Pool(3)
    server = serving(impl, pool)
    server._do_read()
    greenlet, = pool.greenlets
    assert type(greenlet) is gevent.Greenlet and not greenlet.dead and greenlet.started
    assert greenlet.args == (server.handle, server.do_close, (1,)) and greenlet.kwargs == {}
    assert (len(pool), pool.free_count(), pool.full(), pool._semaphore.counter) == (
        1, 2, False, 2)
    assert pool.dying == set() and not pool._empty_event.is_set() and greenlet in pool
    server._do_read()
    server._do_read()
    assert (len(pool), pool.free_count(), pool.full(), pool._semaphore.counter) == (3, 0, True, 0)
    del server.log[:]
    run_handlers(pool)
    assert server.log == [('handle', 1), ('close', 1)] * 3
    assert (len(pool), pool.free_count(), pool.full(), pool._semaphore.counter) == (
        0, 3, False, 3)
    assert pool._empty_event.is_set() and greenlet.ready() and greenlet.successful()


@pytest.mark.fast_path('lookups', 'pools')
def test_full_pool(impl):
    """No connection is read; the server links itself to the semaphore, and goes on by it."""
    server = serving(impl, Pool(1))
    server._do_read()
    del server.log[:]
    assert frames(server._do_read) == (FULL if impl.stock else [])
    assert server.log == ['io.stop', 'io.close'] and server._watcher is None
    del server.log[:]
    run_handlers(server.pool)
    until(lambda: server._watcher is not None)
    assert server.log == [('handle', 1), ('close', 1), ('io', 7, 1), 'io.start']
    assert frames(server._do_read) == fast(impl)


def test_greenlet_is_linked_to_discard(impl):
    """The link can be taken off: then the pool does not learn of the end."""
    pool = Pool(3)
    server = serving(impl, pool)
    server._do_read()
    greenlet, = pool.greenlets
    greenlet.unlink(pool._discard)
    until(greenlet.ready)
    gevent.sleep(0)
    assert pool.greenlets == {greenlet} and pool._semaphore.counter == 2
    pool.discard(greenlet)
    assert pool.greenlets == set() and pool._semaphore.counter == 3


def test_pool_is_joined_and_killed(impl):
    """By the means of gevent."""
    ended = []

    def handle(self, *args):
        try:
            gevent.sleep(100)
        finally:
            ended.append(args)
    pool = Pool(3)
    server = serving(impl, pool, handle=handle)
    server._do_read()
    assert pool.join(timeout=0.01) is False
    pool.kill()
    assert ended == [(1,)] and len(pool) == 0 and pool._semaphore.counter == 3
    assert pool.join(timeout=0.01) is True


def test_pool_and_server_are_freed(impl):
    """By reference counting alone, when the server is closed and the handlers are done."""
    pool = Pool(3)
    server = serving(impl, pool)
    server._do_read()
    run_handlers(pool)
    server.close()
    server.loop.watcher = None  # its callback is the server's method
    refs = weakref.ref(pool), weakref.ref(server)
    gc.disable()
    try:
        del pool, server
        gevent.sleep(0)
        assert [ref() for ref in refs] == [None, None]
    finally:
        gc.enable()


def test_references_do_not_grow(impl):
    """To the objects that every connection uses."""
    pool = Pool(10)
    server = serving(impl, pool)
    shared = [pool, pool._semaphore, pool.greenlets, pool._empty_event, PoolFull, Pool,
              gevent.Greenlet, Pool.add, Pool.full, pool.size, server]

    def connections(count):
        for _ in range(count):
            server._do_read()
            run_handlers(pool)
        return [sys.getrefcount(thing) for thing in shared]
    before = connections(10)
    after = connections(200)
    assert max(b - a for a, b in zip(before, after)) < 50


def test_on_a_real_loop(impl, serve):
    """More clients than slots, one after the other and together."""
    server = serve(impl.StreamServer(LOOPBACK, echo, spawn=2))
    clients = [gevent.spawn(ask, server, b'%d' % i) for i in range(20)]
    assert [client.get() for client in clients] == [b'%d' % i for i in range(20)]
    until(lambda: not server.pool.greenlets)
    assert server.pool._semaphore.counter == 2


# -- what the pool is made of -------------------------------------------------------------

class Parts:
    """Stands for all parts of a pool at once; notes what is called, in order, and raises the
    error of the step named *failing*."""

    def __init__(self, failing=None, acquired=True):
        self.log, self.failing, self.acquired = [], failing, acquired
        self.error = ArithmeticError(failing)

    def step(self, *what):
        self.log.append(what)
        if self.failing == what[0]:
            raise self.error

    def acquire(self, *args, **kwargs):
        self.step('acquire', args, list(kwargs.items()))
        return self.acquired

    def release(self):
        self.step('release')

    def add(self, greenlet):
        assert greenlet is self
        self.step('add')

    def clear(self):
        self.step('clear')

    def rawlink(self, callback):
        self.step('rawlink', callback)

    def start(self):
        self.step('start')

    def unlink(self, callback):
        """What close() calls on the semaphore."""

    def __call__(self, *args):
        self.step('new', len(args))
        return self

    def __len__(self):
        return 0


def made_of(impl, parts):
    """A server whose pool is made of *parts*."""
    pool = Pool(3)
    server = serving(impl, pool)
    pool.greenlets = pool._empty_event = pool._semaphore = pool.greenlet_class = parts
    return server


NEW, START, CLEAR, ADD = ('new', 4), ('start',), ('clear',), ('add',)
ACQUIRE = ('acquire', (), [('blocking', True), ('timeout', None)])


@pytest.mark.fast_path('pools')
def test_order_of_the_steps(impl):
    """Made, a slot taken, linked, added, started; nothing else is asked of the parts."""
    parts = Parts()
    server = made_of(impl, parts)
    assert frames(server._do_read) == fast(impl, FULL)  # not a set: full() is gevent's
    rawlink = 'rawlink', server.pool._discard
    assert parts.log == [NEW, ACQUIRE, rawlink, ADD, CLEAR, START]
    assert server.loop.errors == []


@pytest.mark.parametrize('failing, released', [
    ('new', 0), ('acquire', 0), ('rawlink', 1), ('add', 1), ('clear', 1), ('start', 0)])
def test_step_that_raises(impl, failing, released):
    """The error is reported, the client closed; a slot that was taken is given back."""
    parts = Parts(failing)
    server = made_of(impl, parts)
    server._do_read()
    order = [NEW, ACQUIRE, ('rawlink', server.pool._discard), ADD, CLEAR, START]
    last = [step[0] for step in order].index(failing)
    assert parts.log == order[:last + 1] + [('release',)] * released
    assert error_of(server) is parts.error and parts.error.__context__ is None
    assert server.log[-6:] == [
        ('close', 1), 'error', 'io.stop', 'io.close', ('timer', 0.01), 'timer.start']


@pytest.mark.parametrize('error', [KeyboardInterrupt, gevent.GreenletExit, gevent.Timeout])
def test_other_kinds_of_errors(impl, error):
    """Whatever it is, the slot is given back."""
    parts = Parts('rawlink')
    parts.error = error()
    server = made_of(impl, parts)
    server._do_read()
    assert parts.log[-1] == ('release',) and error_of(server) is parts.error


def test_release_that_raises(impl):
    """Its error is reported, in the context of the other, which it can see."""
    parts, seen, error = Parts('add'), [], LookupError()

    def release():
        seen.append(sys.exc_info()[1])
        raise error
    parts.release = release
    server = made_of(impl, parts)
    server._do_read()
    assert error_of(server) is error and error.__context__ is parts.error
    assert seen == [parts.error] and sys.exc_info() == (None, None, None)


@pytest.mark.parametrize('acquired', [False, None, 0, '', []])
def test_no_slot(impl, acquired):
    """PoolFull if the semaphore has nothing to give; nothing is released."""
    parts = Parts(acquired=acquired)
    server = made_of(impl, parts)
    server._do_read()
    error = error_of(server)
    assert type(error) is PoolFull and error.args == () and error.__context__ is None
    assert parts.log == [NEW, ACQUIRE]


def test_slot_whose_truth_is_unknown(impl):
    """The answer of the semaphore raises when it is tested."""
    class Answer:
        def __bool__(self):
            raise LookupError

    server = made_of(impl, Parts(acquired=Answer()))
    server._do_read()
    assert type(error_of(server)) is LookupError
    assert server.pool._semaphore.log == [NEW, ACQUIRE]


class Bare:
    """A greenlet that cannot be linked."""

    def __init__(self, *args):
        pass

    def start(self):
        pass


class Broken(Bare):
    @property
    def rawlink(self):
        return self.no_such_attribute


@pytest.mark.fast_path('lookups', 'pools')
def test_greenlet_without_rawlink(impl):
    """Is added all the same: an AttributeError means that there is none."""
    for kind in (Bare, Broken):
        pool = Pool(3)
        pool.greenlet_class = kind
        server = serving(impl, pool)
        assert frames(server._do_read) == fast(impl)
        assert [type(one) for one in pool.greenlets] == [kind]
        assert pool._semaphore.counter == 2 and server.loop.errors == []


def test_rawlink_that_raises_attribute_error(impl):
    """Called, and not taken for absent."""
    parts = Parts('rawlink')
    parts.error = AttributeError()
    server = made_of(impl, parts)
    server._do_read()
    assert error_of(server) is parts.error and parts.log[-1] == ('release',)


@pytest.mark.parametrize('missing, kind, counter', [
    ('_semaphore', AttributeError, None), ('greenlets', AttributeError, 3),
    ('_empty_event', AttributeError, 3)])
def test_missing_part(impl, missing, kind, counter):
    """Only then looked for; the slot is given back."""
    pool = Pool(3)
    server = serving(impl, pool, do_read=lambda self: delattr(pool, missing) or (1,))
    server._do_read()
    assert type(error_of(server)) is kind
    assert counter is None or pool._semaphore.counter == counter


def test_start_that_raises(impl):
    """The greenlet stays in the pool and keeps its slot."""
    class Unstarted(gevent.Greenlet):
        def start(self):
            raise LookupError
    pool = Pool(3)
    pool.greenlet_class = Unstarted
    server = serving(impl, pool)
    server._do_read()
    assert type(error_of(server)) is LookupError
    assert len(pool) == 1 and pool._semaphore.counter == 2


def in_hub(function):
    """Call *function* in the hub, as the event loop does; what it raised."""
    raised = []

    def call():
        try:
            function()
        except BaseException as ex:
            raised.append(ex)
        done.set()
    done = gevent.event.Event()
    get_hub().loop.run_callback(call)
    done.wait()
    return raised


def test_semaphore_that_would_block_the_hub(impl):
    """Slots taken by somebody else: reported, as the hub cannot wait."""
    pool = Pool(1)
    server = serving(impl, pool)
    pool._semaphore.acquire()
    assert in_hub(server._do_read) == []
    assert type(error_of(server)) is BlockingSwitchOutError
    assert len(pool) == 0 and pool._semaphore.counter == 0 and ('close', 1) in server.log
    pool._semaphore.release()
    assert in_hub(server._do_read) == [] and server.loop.errors == []
    assert len(pool) == 1 and pool._semaphore.counter == 0


def test_semaphore_that_blocks_elsewhere(impl):
    """A batch that is not run by the hub waits for the slot."""
    pool = Pool(1)
    server = serving(impl, pool)
    pool._semaphore.acquire()
    batch = gevent.spawn(server._do_read)
    gevent.sleep(0.005)
    assert not batch.ready() and len(pool) == 0
    pool._semaphore.release()
    batch.get()
    assert server.loop.errors == []
    run_handlers(pool)
    assert server.log.count(('close', 1)) == 1 and pool._semaphore.counter == 1


# -- size and members ---------------------------------------------------------------------

class Number(int):
    pass


@pytest.mark.fast_path('lookups', 'pools')
@pytest.mark.parametrize('size, full, native', [
    (None, False, True), (1, True, True), (2, False, True), (0, True, True), (-5, True, True),
    (2 ** 31, False, True), (2 ** 63 - 1, False, True), (2 ** 63, False, False),
    (-2 ** 80, True, False), (2 ** 80, False, False), (True, True, False),
    (Number(1), True, False), (1.5, False, False), (1.0, True, False),
    (float('inf'), False, False)])
def test_size_changed(impl, size, full, native):
    """At any moment, to anything that can be compared; with one member in the pool."""
    pool = Pool(3)
    server = serving(impl, pool)
    server._do_read()
    pool.size = size
    del server.log[:]
    seen = frames(server._do_read)
    assert ('read' not in server.log) is full
    asked = FULL[:2] if size is None else FULL
    if impl.stock:
        assert seen == (asked if full else asked + SPAWN)
    else:
        assert seen == ([] if native else FULL)
    pool.size = 3
    assert frames(pool.full) == FULL


def test_size_that_is_no_number(impl):
    """Asking whether the pool is full raises, out of the batch; a number sets it right."""
    pool = Pool(3)
    server = serving(impl, pool)
    pool.size = 'many'
    with pytest.raises(TypeError, match='unsupported operand'):
        server._do_read()
    pool.size = 3
    server._do_read()
    assert len(pool) == 1


def test_size_deleted(impl):
    """AttributeError, as for any attribute."""
    pool = Pool(3)
    server = serving(impl, pool)
    del pool.size
    with pytest.raises(AttributeError, match='size'):
        server._do_read()


class Members(set):
    def __len__(self):
        return 3


@pytest.mark.fast_path('lookups', 'pools')
@pytest.mark.parametrize('members, full, native', [
    ({1, 2, 3}, True, True), ({1, 2}, False, True), (frozenset('abc'), True, True),
    (Members(), True, False), ([1, 2, 3], True, False), (dict.fromkeys('ab'), False, False)])
def test_members_replaced(impl, members, full, native):
    """``greenlets`` may be anything that has a length."""
    pool = Pool(3)
    server = serving(impl, pool)
    pool.greenlets = copy.copy(members)
    seen = frames(server._do_read)
    assert ('read' not in server.log) is full
    assert [name for name in seen if name in FULL] == ([] if native and not impl.stock else FULL)


def test_members_deleted(impl):
    """Nobody asks for them in a pool without limit, before a greenlet is added."""
    pool = Pool()
    server = serving(impl, pool)
    del pool.greenlets
    server._do_read()
    assert type(error_of(server)) is AttributeError and 'read' in server.log
    limited = Pool(3)
    server = serving(impl, limited)
    del limited.greenlets
    with pytest.raises(AttributeError, match='greenlets'):
        server._do_read()


# -- overrides ----------------------------------------------------------------------------

def noting(log, original):
    """*original*, noting its name in *log* when it is called."""
    @functools.wraps(original)
    def method(*args, **kwargs):
        log.append(original.__name__)
        return original(*args, **kwargs)
    return method


#: methods, and the frames of ours while they are overridden
METHODS = [('full', FULL), ('free_count', FULL), ('spawn', SPAWN), ('start', SPAWN),
           ('add', SPAWN)]


@pytest.mark.fast_path('lookups', 'pools')
@pytest.mark.parametrize('name, ours', METHODS)
def test_set_on_the_pool(impl, name, ours):
    """Before the server is made; `full` and `spawn` are taken from there."""
    pool, log = Pool(3), []
    setattr(pool, name, noting(log, getattr(pool, name)))
    server = serving(impl, pool)
    assert frames(server._do_read) == fast(impl, ours)
    assert log == [name]
    assert len(pool) == 1 and pool._semaphore.counter == 2


@pytest.mark.fast_path('lookups', 'pools')
@pytest.mark.parametrize('name, ours', [
    one for one in METHODS if one[0] not in ('full', 'spawn')])  # the server keeps those two
def test_set_on_the_pool_and_removed(impl, name, ours):
    """At any moment; takes effect at the next connection."""
    pool, log = Pool(9), []
    server = serving(impl, pool)
    for _ in range(2):
        assert frames(server._do_read) == fast(impl)
        setattr(pool, name, noting(log, getattr(pool, name)))
        assert frames(server._do_read) == fast(impl, ours)
        delattr(pool, name)
        assert log == [name]
        del log[:]
    assert frames(server._do_read) == fast(impl)
    assert len(pool) == 5 and log == []


@pytest.mark.fast_path('lookups', 'pools')
@pytest.mark.parametrize('name', ['full', '_spawn'])
def test_set_on_the_server(impl, name):
    """Where the server keeps the pool's two methods."""
    pool, log = Pool(3), []
    server = serving(impl, pool)
    original = getattr(server, name)
    setattr(server, name, noting(log, original))
    assert frames(server._do_read) == fast(impl, {'full': FULL, '_spawn': SPAWN}[name])
    assert log == {'full': ['full'], '_spawn': ['spawn']}[name]
    setattr(server, name, original)
    assert frames(server._do_read) == fast(impl)


@pytest.mark.fast_path('lookups', 'pools')
def test_methods_of_another_pool(impl):
    """The server asks one and spawns in the other."""
    one, other = Pool(3), Pool(3)
    server = serving(impl, one)
    server._spawn = other.spawn
    assert frames(server._do_read) == fast(impl)
    assert (len(one), len(other)) == (0, 1)
    server.full = other.full
    other.size = 1
    assert frames(server._do_read) == (FULL if impl.stock else [])
    assert (len(one), len(other)) == (0, 1)


@pytest.mark.parametrize('name', ['full', 'free_count', '__len__', 'spawn', 'start', 'add'])
def test_subclass_of_pool(impl, name):
    """Its methods are called, and all others too: nothing is known of it."""
    log = []
    kind = type('MyPool', (Pool,), {name: noting(log, getattr(Pool, name))})
    server = serving(impl, kind(3))
    assert frames(server._do_read) == BATCH
    assert log == [name]
    assert len(server.pool.greenlets) == 1


def test_empty_subclass_of_pool(impl):
    """It can be given methods at any moment."""
    class MyPool(Pool):
        pass
    server, log = serving(impl, MyPool(3)), []
    assert frames(server._do_read) == BATCH
    MyPool.add = noting(log, Pool.add)
    assert frames(server._do_read) == BATCH and log == ['add']


#: what is patched, and the frames of a batch of ours meanwhile: a class is looked at as a whole
PATCHES = [(Pool, 'free_count'), (Pool, '__len__'), (Pool, 'start'), (Pool, 'add'),
           (Group, 'add'), (Group, '__len__'), (Group, 'free_count'), (Group, 'start')]


@pytest.mark.fast_path('lookups', 'pools')
@pytest.mark.parametrize('cls, name', PATCHES, ids=lambda value: getattr(
    value, '__name__', value))
def test_class_patched_and_restored(impl, monkeypatch, cls, name):
    """While a server runs: the patch is called at once, if it is what the pool has; the native
    steps come back afterwards."""
    server, log = serving(impl, Pool(9)), []
    assert frames(server._do_read) == fast(impl)
    hidden = cls is Group and name in ('free_count', 'start')
    for _ in range(2):
        with monkeypatch.context() as patch:
            original = getattr(cls, name, None)
            patch.setattr(cls, name, noting(log, original or Pool.free_count), raising=False)
            seen = frames(server._do_read)
        assert log == [name] * (not hidden)
        assert seen == (fast(impl) if hidden else BATCH)
        del log[:]
        assert frames(server._do_read) == fast(impl)
    assert log == [] and len(server.pool) == 5


@pytest.mark.fast_path('lookups', 'pools')
@pytest.mark.parametrize('name', ['full', 'spawn'])
def test_methods_that_the_server_keeps_are_patched(impl, monkeypatch, name):
    """A server that has the pool already goes on with the old ones; a new one does not."""
    pool, log = Pool(9), []
    old = serving(impl, pool)
    with monkeypatch.context() as patch:
        patch.setattr(Pool, name, noting(log, getattr(Pool, name)))
        old._do_read()
        assert log == []
        new = serving(impl, pool)
        assert frames(new._do_read) == BATCH
        assert log == [name]
    assert frames(old._do_read) == fast(impl)
    assert len(pool) == 3


@pytest.mark.fast_path('lookups', 'pools')
def test_other_attributes_of_the_class(impl, monkeypatch):
    """Set on the class, they are seen without a change of the steps."""
    class MyGreenlet(gevent.Greenlet):
        pass
    server = serving(impl, Pool(9))
    with monkeypatch.context() as patch:
        patch.setattr(Pool, 'greenlet_class', MyGreenlet)
        assert frames(server._do_read) == fast(impl)
        patch.setattr(Group, 'something', 1, raising=False)
        assert frames(server._do_read) == fast(impl)
    assert frames(server._do_read) == fast(impl)
    assert sorted(type(one).__name__ for one in server.pool) == [
        'Greenlet', 'MyGreenlet', 'MyGreenlet']


@pytest.mark.fast_path('lookups', 'pools')
@pytest.mark.parametrize('hook', ['__getattribute__', '__getattr__'])
def test_attribute_access_patched(impl, monkeypatch, hook):
    """A pool class that decides about attributes itself is asked for all of them."""
    pool = Pool(9)
    server, asked = serving(impl, pool), []
    with monkeypatch.context() as patch:
        if hook == '__getattribute__':
            def access(self, name):
                asked.append(name)
                return object.__getattribute__(self, name)
        else:
            def access(self, name):
                asked.append(name)
                return 9
            del pool.size
        patch.setattr(Pool, hook, access, raising=False)
        server._do_read()
        seen = list(asked)
    if hook == '__getattribute__':
        assert [name for name in seen if name in ('free_count', 'size', 'greenlet_class', 'start',
                                                  'add', '_semaphore', '_discard')] == [
            'free_count', 'size', 'size', 'greenlet_class', 'start', 'add', '_semaphore',
            '_discard']
    else:
        assert set(seen) == {'size'}
    pool.size = 9
    assert frames(server._do_read) == fast(impl) and len(pool) == 2


@pytest.mark.fast_path('lookups', 'pools')
def test_class_of_the_pool_changed(impl):
    """By assignment to ``__class__``; the methods that the server keeps are the old ones."""
    class MyPool(Pool):
        def add(self, greenlet):
            log.append('add')
            super().add(greenlet)
    log, pool = [], Pool(9)
    server = serving(impl, pool)
    pool.__class__ = MyPool
    assert frames(server._do_read) == BATCH and log == ['add']
    pool.__class__ = Pool
    assert frames(server._do_read) == fast(impl) and log == ['add']


CALLED = []


def other_full(self):
    CALLED.append('full')
    return self.free_count() <= 0


def other_free_count(self):
    CALLED.append('free_count')
    return 1


def other_len(self):
    CALLED.append('__len__')
    return 0


def other_spawn(self, *args, **kwargs):
    CALLED.append('spawn')
    greenlet = self.greenlet_class(*args, **kwargs)
    self.start(greenlet)
    return greenlet


def other_start(self, greenlet, *args, **kwargs):
    CALLED.append('start')
    self.add(greenlet, *args, **kwargs)
    greenlet.start()


def other_add(self, greenlet, blocking=True, timeout=None):
    CALLED.append('add')
    self.greenlets.add(greenlet)
    greenlet.rawlink(self.greenlets.discard)


def other_group_add(self, greenlet):
    other_add(self, greenlet)


CODES = [(Pool.full, other_full), (Pool.free_count, other_free_count),
         (Group.__len__, other_len), (Group.spawn, other_spawn),
         (Pool.start, other_start), (Pool.add, other_add), (Group.add, other_group_add)]


@pytest.mark.fast_path('lookups', 'pools')
@pytest.mark.parametrize('function, other', CODES,
                         ids=[one[0].__qualname__ for one in CODES])
def test_code_replaced_and_restored(impl, monkeypatch, function, other):
    """As debuggers and line profilers do it."""
    server = serving(impl, Pool(9))
    assert frames(server._do_read) == fast(impl)
    replaced = other.__code__.replace(co_name=function.__name__)
    for name in ('CALLED', 'other_add'):
        monkeypatch.setitem(function.__globals__, name, globals()[name])
    code = function.__code__
    function.__code__ = replaced
    del CALLED[:]
    try:
        server._do_read()
    finally:
        function.__code__ = code
    assert CALLED == [function.__name__]
    assert server.loop.errors == []
    run_handlers(server.pool)
    assert frames(server._do_read) == fast(impl)


@pytest.mark.fast_path('lookups', 'pools')
@pytest.mark.parametrize('touched', [False, True])
def test_defaults_replaced(impl, monkeypatch, touched):
    """``add`` that does not block, made so by its defaults; also when the class has changed."""
    pool = Pool(3)
    server = serving(impl, pool)
    server._do_read()
    with monkeypatch.context() as patch:
        patch.setattr(Pool.add, '__defaults__', (False, None))
        if touched:
            patch.setattr(Pool, 'something', 1, raising=False)
        pool._semaphore.acquire(), pool._semaphore.acquire()
        assert in_hub(server._do_read) == []
        assert type(error_of(server)) is PoolFull
    pool._semaphore.release()
    pool._semaphore.release()
    assert frames(server._do_read) == fast(impl) and server.loop.errors == []


@pytest.mark.fast_path('lookups', 'pools')
def test_group_replaced(impl, monkeypatch):
    """``gevent.pool.Group`` is what Pool.add asks to add."""
    calls = []

    class MyGroup(Group):
        def add(self, greenlet):
            calls.append(type(self))
            Group.add(self, greenlet)
    server = serving(impl, Pool(9))
    with monkeypatch.context() as patch:
        patch.setattr(gevent.pool, 'Group', types.SimpleNamespace(add=MyGroup.add))
        assert frames(server._do_read) == fast(impl, SPAWN)
        assert calls == [Pool]
    assert frames(server._do_read) == fast(impl) and calls == [Pool]


@pytest.mark.fast_path('lookups', 'pools')
def test_group_replaced_and_patched_later(impl, monkeypatch):
    """By a class that changes afterwards."""
    class MyGroup(Group):
        pass
    server, log = serving(impl, Pool(9)), []
    with monkeypatch.context() as patch:
        patch.setattr(gevent.pool, 'Group', MyGroup)
        patch.setattr(Pool, 'something', 1, raising=False)
        server._do_read()
        MyGroup.add = noting(log, Group.add)
        server._do_read()
        assert log == ['add']
    assert frames(server._do_read) == fast(impl)


def test_pool_full_replaced(impl, monkeypatch):
    """``gevent.pool.PoolFull`` is what is raised."""
    class Other(Exception):
        pass
    server = made_of(impl, Parts(acquired=False))
    with monkeypatch.context() as patch:
        patch.setattr(gevent.pool, 'PoolFull', Other)
        server._do_read()
        assert type(error_of(server)) is Other
    server._do_read()
    assert type(error_of(server)) is PoolFull


def test_globals_deleted(impl, monkeypatch):
    """NameError, as Python has it."""
    server = serving(impl, Pool(9))
    with monkeypatch.context() as patch:
        patch.delattr(gevent.pool, 'Group')
        server._do_read()
    error = error_of(server)
    assert type(error) is NameError and server.pool._semaphore.counter == 9


@pytest.mark.fast_path('lookups', 'pools')
def test_pool_class_replaced(impl, monkeypatch):
    """``gevent.pool.Pool`` is what a number makes; pools of the old class go on."""
    class MyPool(Pool):
        def add(self, greenlet):
            log.append('add')
            super().add(greenlet)
    log, old = [], serving(impl, 3)
    with monkeypatch.context() as patch:
        patch.setattr(gevent.pool, 'Pool', MyPool)
        new = serving(impl, 3)
        assert type(new.pool) is MyPool
        assert frames(new._do_read) == BATCH and log == ['add']
        old._do_read()
        assert len(old.pool) == 1 and log == ['add']
        patch.setattr(Group, 'something', 1, raising=False)  # compared again, with MyPool
        old._do_read()
        new._do_read()
        assert len(old.pool) == 2 and log == ['add', 'add']
    assert frames(serving(impl, 3)._do_read) == fast(impl)


# -- greenlets ----------------------------------------------------------------------------

class MyGreenlet(gevent.Greenlet):
    pass


@pytest.mark.fast_path('lookups', 'pools')
@pytest.mark.parametrize('where', ['argument', 'instance', 'subclass', 'function'])
def test_greenlet_class(impl, where):
    """Whatever makes greenlets."""
    pool = Pool(3, *[MyGreenlet] * (where == 'argument'))
    if where == 'instance':
        pool.greenlet_class = MyGreenlet
    elif where == 'function':
        pool.greenlet_class = lambda *args: MyGreenlet(*args)
    elif where == 'subclass':
        pool = type('MyPool', (Pool,), {'greenlet_class': MyGreenlet})(3)
    server = serving(impl, pool)
    assert frames(server._do_read) == (BATCH if where == 'subclass' else fast(impl))
    assert [type(one) for one in pool] == [MyGreenlet]


@pytest.mark.fast_path('lookups', 'pools')
@pytest.mark.parametrize('name', ['_discard', 'discarded'])
def test_discard_set_on_the_pool(impl, name):
    """What `_discard` is when the greenlet is added is what it calls when it ends."""
    pool, ended = Pool(3), []
    server = serving(impl, pool)
    setattr(pool, name, ended.append)
    assert frames(server._do_read) == fast(impl)
    greenlet, = pool.greenlets
    until(greenlet.ready)
    gevent.sleep(0)
    if name == '_discard':
        assert ended == [greenlet] and len(pool) == 1 and pool._semaphore.counter == 2
    else:
        assert ended == [] and len(pool) == 0 and pool._semaphore.counter == 3


def test_discard_overridden_in_a_subclass(impl):
    """It is looked up on the pool, and only when a greenlet is added."""
    ended = []

    class MyPool(Pool):
        def _discard(self, greenlet):
            ended.append(greenlet)
            super()._discard(greenlet)
    pool = MyPool(3)
    server = serving(impl, pool)
    server._do_read()
    greenlet, = pool.greenlets
    run_handlers(pool)
    assert ended == [greenlet] and pool._semaphore.counter == 3


@pytest.mark.fast_path('lookups', 'pools')
def test_semaphore_replaced(impl):
    """The new one counts from then on."""
    pool = Pool(3)
    server = serving(impl, pool)
    old, pool._semaphore = pool._semaphore, gevent.lock.Semaphore(7)
    assert frames(server._do_read) == fast(impl)
    assert (old.counter, pool._semaphore.counter) == (3, 6)
    run_handlers(pool)
    assert (old.counter, pool._semaphore.counter) == (3, 7)


# -- other ways to a pool -----------------------------------------------------------------

@pytest.mark.fast_path('pools')
def test_spawn_method_as_spawn(impl):
    """``spawn=pool.spawn``: the server knows of no pool, and is never full."""
    pool = Pool(1)
    server = serving(impl, pool.spawn)
    assert server.pool is None
    assert frames(server._do_read) == (SPAWN if impl.stock else [])
    assert len(pool) == 1 and pool._semaphore.counter == 0
    assert in_hub(server._do_read) == []
    assert type(error_of(server)) is BlockingSwitchOutError


def test_unbound_spawn(impl):
    """The function itself, with a pool as its first argument."""
    pool = Pool(3)
    server = serving(impl, functools.partial(Pool.spawn, pool))
    assert frames(server._do_read) == SPAWN and len(pool) == 1


def test_method_bound_to_something_else(impl):
    """To what is no pool: it has all that the methods ask of it."""
    made = []
    thing = types.SimpleNamespace(greenlet_class=lambda *args: args, start=made.append)
    server = serving(impl, types.MethodType(Pool.spawn, thing))
    assert frames(server._do_read) == ['Group.spawn']
    assert [len(one) for one in made] == [4] and server.loop.errors == []


@pytest.mark.fast_path('lookups', 'pools')
def test_two_servers_share_a_pool(impl):
    """Its slots are common; each is resumed by the other's handlers."""
    pool = Pool(2)
    one, other = serving(impl, pool), serving(impl, pool)
    one._do_read()
    assert frames(other._do_read) == fast(impl)
    assert len(pool) == 2
    del one.log[:], other.log[:]
    one._do_read()
    other._do_read()
    assert one.log == other.log == ['io.stop', 'io.close']
    run_handlers(pool)
    until(lambda: one._watcher is not None and other._watcher is not None)
    assert one.log.count(('handle', 1)) == other.log.count(('handle', 1)) == 1


@pytest.mark.fast_path('lookups', 'pools')
def test_pool_changed_between_two_connections_of_a_batch(impl):
    """What do_read changes counts for the connection that it returns."""
    pool, log, seen = Pool(9), [], []
    steps = iter([
        lambda: None,
        lambda: setattr(pool, 'add', noting(log, pool.add)),
        lambda: (delattr(pool, 'add'), setattr(pool, 'greenlet_class', MyGreenlet)),
        lambda: setattr(pool, 'size', 4),
        lambda: seen.append('not reached')])

    def do_read(self):
        next(steps)()
        return (1,)
    server = by_hand(impl, spawn=pool, do_read=do_read)
    assert frames(server._do_read) == (BATCH * 4 + FULL if impl.stock else SPAWN)
    assert log == ['add'] and seen == [] and len(pool) == 4
    assert sorted(type(one).__name__ for one in pool) == [
        'Greenlet', 'Greenlet', 'MyGreenlet', 'MyGreenlet']
    assert server._watcher is None


def test_pool_changed_by_full(impl):
    """Members that come while the question is asked."""
    class Members(set):
        def __len__(self):
            pool.greenlet_class = MyGreenlet
            return 0
    pool = Pool(3)
    server = serving(impl, pool)
    pool.greenlets = Members()
    server._do_read()
    assert [type(one) for one in pool] == [MyGreenlet]


def test_pool_changed_by_a_handler(impl, serve):
    """On a real loop, with the next client already waiting."""
    log = []

    def handle(sock, address):
        if not log:
            pool.add = noting(log, pool.add)
            log.append('patched')
        echo(sock, address)
    pool = Pool(1)
    server = serve(impl.StreamServer(LOOPBACK, handle, spawn=pool))
    clients = [gevent.spawn(ask, server, b'%d' % i) for i in range(3)]
    assert [client.get() for client in clients] == [b'0', b'1', b'2']
    assert log == ['patched', 'add', 'add']


def test_pool_dropped_while_it_spawns(impl):
    """Nobody else keeps the pool: it lives on until it has spawned."""
    class Server(impl.BaseServer):
        def do_read(self):
            return (1,)
        handle = print

    def make(*args):
        server._spawn = server.full = server.pool = None
        made.append(gevent.Greenlet(*args))
        return made[0]
    made, pool = [], Pool(3)
    pool.greenlet_class = make
    server = Server(FakeListener(), spawn=pool)
    server.loop = FakeLoop([])
    server.start()
    server.max_accept = 1
    ref = weakref.ref(pool)
    pool._semaphore.unlink(server._start_accepting_if_started)
    del pool
    server._do_read()
    assert ref() is not None and made[0] in ref()  # the greenlet is linked to it
    made[0].kill()
    made.clear()
    gevent.sleep(0)
    gc.collect()
    assert ref() is None
