"""The greenlets of handlers, attribute by attribute: ours are made in C where nobody could tell.

The tests run batches of two connections by hand: gevent itself makes the first greenlet, the
second can have its stack.
"""
import functools
import gc
import itertools
import subprocess
import sys
import threading
import types
import weakref

import gevent
import gevent.hub
import gevent.pool
import greenlet
import pytest
from gevent import Greenlet, _hub_local, config, get_hub, getcurrent
from gevent.exceptions import BlockingSwitchOutError

import helpers
from helpers import FakeLoop, by_hand, child_environ, until

SETTING = config.settings['track_greenlet_tree']
GETTER = type(config).track_greenlet_tree.fget

#: gevent runs without its compiled modules
PURE = isinstance(Greenlet.spawn.__func__, types.FunctionType)

#: the Python functions that gevent runs to make a greenlet
STEPS = {function.__code__: name for function, name in (
    (gevent.spawn_raw, 'spawn_raw'), (GETTER, 'getter'), (type(SETTING).get, 'get'))}
frames = functools.partial(helpers.frames, STEPS)

SPAWNS = {'default': lambda: 'default', 'class method': lambda: Greenlet.spawn,
          'pool': lambda: gevent.pool.Pool(10), 'raw': lambda: gevent.spawn_raw}
every = pytest.mark.parametrize('how', SPAWNS)
of_class = pytest.mark.parametrize('how', [how for how in SPAWNS if how != 'raw'])


@pytest.fixture(autouse=True)
def _locals():
    """The main greenlet, which runs the batches, has what the hub has: without, all greenlets are
    made by gevent.
    """
    getcurrent().spawn_tree_locals = {}
    yield
    del getcurrent().spawn_tree_locals


def serving(impl, how, look=lambda one: one, **namespace):
    """A server with two connections in each batch; what *look* tells of a greenlet, while it runs
    its handler, is appended to ``server.seen``.
    """
    seen = []
    server = by_hand(impl, itertools.repeat((1,)), spawn=SPAWNS[how](), max_accept=2, seen=seen,
                     handle=lambda self, number: seen.append(look(getcurrent())), **namespace)
    return server


def batch(server):
    """Run a batch and the handlers; what was seen."""
    del server.seen[:]
    server._do_read()
    return handlers(server)


def handlers(server):
    """Run the handlers; what was seen."""
    assert server.loop.errors == []
    until(lambda: len(server.seen) == 2)
    return server.seen


def started_by(function):
    """Call *function*; the Greenlets that were started."""
    started = []
    Greenlet.add_spawn_callback(started.append)
    try:
        function()
    finally:
        Greenlet.remove_spawn_callback(started.append)
    return started


def in_the_hub(function):
    """Call *function* as the loop does."""
    done = []
    get_hub().loop.run_callback(lambda: done.append(function()))
    until(lambda: done)


def stack(one):
    """The stack of the spawner as gevent has noted it."""
    found, frame = [], one.spawning_stack
    while frame is not None:
        assert frame.f_globals is None
        found.append((frame.f_code, frame.f_lineno))
        frame = frame.f_back
    return found


def here():
    """The stack of the caller, as a Greenlet notes it."""
    found, frame = [], sys._getframe(1)
    while frame is not None:
        found.append((frame.f_code, frame.f_lineno))
        frame = frame.f_back
    return found


def is_right(noted, expected):
    """Whether a noted stack is the *expected* one, but for frames of gevent's own or ours, and ten
    frames long.
    """
    inside = [sys.modules[name].__file__ for name in (
        'gevent.baseserver', 'gevent.pool', 'gevent.greenlet', 'gevent_cbase.baseserver')
        if name in sys.modules]
    outside = [frame for frame in noted if frame[0].co_filename not in inside]
    return len(noted) == 10 and outside == expected[:len(outside)] and len(outside) >= 3


# -- one greenlet -------------------------------------------------------------------------

@pytest.mark.fast_path('greenlets')
def test_native_steps_are_on(impl):
    """On the gevent that is installed, for ours."""
    if not impl.stock:
        from gevent_cbase._native import greenlets
        assert greenlets.why_off() is None


@pytest.mark.fast_path('pools', 'greenlets')
@every
def test_no_python_code_makes_a_greenlet(impl, how):
    """But the first one of a place, which gevent makes."""
    server = serving(impl, how)
    def run():
        for _ in range(2):
            server._do_read()
    ran = frames(run)
    until(lambda: len(server.seen) == 4)
    half = len(ran) // 2
    ran = ran[half:] if impl.stock or how == 'raw' else ran[2:]  # after the first
    in_gevent = ['spawn_raw', 'getter', 'get'] if how == 'raw' else ['getter', 'get']
    assert ran == (in_gevent * 2 if impl.stock else [])


@of_class
def test_attributes(impl, how):
    """Of the greenlet and of its instance dict."""
    server = serving(impl, how, lambda one: (
        type(one), one.args, one.kwargs, one.value, one.dead, one.started, one.ready(),
        one.successful(), one.exception, bool(one.has_links()), bool(one),
        one.parent, list(one.__dict__)[0], one.spawning_greenlet(), one.gr_frame))
    linked = how == 'pool'
    for seen in batch(server), batch(server):
        assert seen == [(Greenlet, (server.handle, server.do_close, (1,)), {}, None, False, True,
                         False, False, None, linked, True, get_hub(),
                         '_run', getcurrent(), None)] * 2


@of_class
def test_args_and_kwargs_are_its_own(impl, how):
    """No two greenlets share what can be changed."""
    server = serving(impl, how, lambda one: (one, one.args, one.kwargs, one.__dict__))
    one, other = batch(server)
    assert [mine is its for mine, its in zip(one, other)] == [False] * 4


@every
def test_run_and_name(impl, how):
    """Each has what it runs, under gevent's names, an ident and a name of its own."""
    def look(one):
        if how == 'raw':
            return type(one).__name__, list(one.__dict__)
        return one._run.__name__, one.name == 'Greenlet-%d' % one.minimal_ident
    server = serving(impl, how, look)
    batch(server)
    assert batch(server) == [
        ('TrackedRawGreenlet', ['spawning_greenlet', 'spawn_tree_locals', 'loop'])
        if how == 'raw' else ('_handle_and_close_when_done', True)] * 2


def test_raw_greenlet(impl):
    """Parent, loop, and who spawned it."""
    server = serving(impl, 'raw', lambda one: (
        one.parent, one.loop, one.spawning_greenlet(), one.dead, bool(one)))
    hub = get_hub()
    for seen in batch(server), batch(server):
        assert seen == [(hub, hub.loop, getcurrent(), False, True)] * 2


# -- the stack ----------------------------------------------------------------------------

@of_class
def test_stack_is_the_callers(impl, how):
    """Every frame with its line, no more than ten; also when the line is another one."""
    server = serving(impl, how, stack)

    def check(expected):
        assert [is_right(noted, expected) for noted in handlers(server)] == [True] * 2
        del server.seen[:]
    for _ in range(3):
        server._do_read(), check(here())
    server._do_read(), check(here())
    server._do_read(), check(here())


@of_class
def test_stack_of_other_frames(impl, how):
    """Deeper, less deep, through another function, and deeper than what is noted."""
    server = serving(impl, how, stack)
    expected = None

    def down(depth):
        nonlocal expected
        if depth:
            return down(depth - 1)
        server._do_read(); expected = here()  # noqa: E702  on one line

    def aside():
        nonlocal expected
        server._do_read(); expected = here()  # noqa: E702

    for run, *args in (
            (down, 2), (down, 1), (down, 3), (aside,), (down, 40), (down, 0), (down, 0)):
        del server.seen[:]
        run(*args)
        assert [is_right(noted, expected) for noted in handlers(server)] == [True] * 2


@of_class
def test_spawned_by_the_loop(impl, how, serve):
    """All that is above is gevent's hub, whichever connection it is."""
    seen = []
    one = serve(impl.StreamServer(
        helpers.LOOPBACK, lambda sock, address: seen.append(stack(getcurrent())),
        spawn=SPAWNS[how]()))
    for _ in range(3):
        helpers.ask(one, b'')
    hub = get_hub()
    for noted in seen:
        code, line = noted[-1]
        assert code is gevent.hub.Hub.run.__code__ and code.co_firstlineno < line
    assert len(seen) == 3 and seen[0] == seen[1] == seen[2] and hub is get_hub()


# -- who spawned it -----------------------------------------------------------------------

@every
def test_locals_are_the_spawners(impl, how):
    """The same dict, for good; another one from another spawner."""
    server = serving(impl, how, lambda one: (one.spawning_greenlet(), one.spawn_tree_locals))
    for number in range(2):
        def spawn():
            getcurrent().spawn_tree_locals = {'number': number}
            server._do_read()
        spawner = gevent.spawn(spawn)
        del server.seen[:]
        spawner.join()
        for found, its_locals in handlers(server):
            assert found is spawner and its_locals is spawner.spawn_tree_locals
            assert its_locals == {'number': number}


@every
def test_batch_in_the_hub(impl, how):
    """Where the loop runs them: parent, spawner and locals are the hub's."""
    hub = get_hub()
    server = serving(impl, how, lambda one: (one.parent, one.spawning_greenlet(),
                                             one.spawn_tree_locals))
    for _ in range(2):
        del server.seen[:]
        in_the_hub(server._do_read)
        for parent, spawner, its_locals in handlers(server):
            assert parent is spawner is hub and its_locals is hub.spawn_tree_locals


@every
@pytest.mark.parametrize('what', ['attribute', 'item', 'dict', 'class', 'nothing'])
def test_locals_of_the_hub_are_replaced(impl, how, what, monkeypatch):
    """Between two connections of a batch, in any of the ways."""
    hub, other, at_first = get_hub(), {'other': 1}, get_hub().spawn_tree_locals

    def steps():
        yield (1,)
        if what == 'attribute':
            monkeypatch.setattr(hub, 'spawn_tree_locals', other)
        elif what == 'item':
            monkeypatch.setitem(vars(hub), 'spawn_tree_locals', other)
        elif what == 'dict':
            monkeypatch.setattr(hub, '__dict__', dict(vars(hub), spawn_tree_locals=other))
        elif what == 'class':
            monkeypatch.setattr(gevent.hub.Hub, 'spawn_tree_locals',
                                property(lambda self: other), raising=False)
        else:
            monkeypatch.delattr(hub, 'spawn_tree_locals')
        yield (2,)
        monkeypatch.undo()
        yield (3,)
    seen = {}
    server = by_hand(impl, steps(), spawn=SPAWNS[how](), handle=lambda self, number:
                     seen.update({number: getcurrent().spawn_tree_locals}))
    in_the_hub(server._do_read)
    until(lambda: len(seen) == 3)
    assert server.loop.errors == []
    assert seen[1] is at_first and seen[3] is hub.spawn_tree_locals is at_first
    assert seen[2] == {} if what == 'nothing' else seen[2] is other


@every
def test_spawner_without_locals_gets_some(impl, how):
    """A plain greenlet: what it spawns has them in common with it."""
    server = serving(impl, how, lambda one: one.spawn_tree_locals)
    for _ in range(2):
        del server.seen[:]
        spawner = greenlet.greenlet(server._do_read, parent=getcurrent())
        spawner.switch()
        one, other = handlers(server)
        assert one == {} and one is other is spawner.spawn_tree_locals


@of_class
def test_locals_of_another_type(impl, how):
    """An error, as gevent's compiled Greenlet keeps a dict; the connection is closed."""
    server = serving(impl, how)
    spawner = greenlet.greenlet(server._do_read, parent=getcurrent())
    batch(server)
    del server.log[:], server.seen[:]
    spawner.spawn_tree_locals = 7
    spawner.switch()
    if PURE:
        assert [one.spawn_tree_locals for one in handlers(server)] == [7, 7]
        return
    (context, kind, value), = server.loop.errors
    assert context == ((), server) and kind is TypeError
    assert str(value).startswith('Expected dict, got int')
    assert server.log[:2] == ['read', ('close', 1)]


@every
def test_main_greenlet_keeps_no_locals(impl, how):
    """Each of those that it spawns has its own."""
    seen, hubs = [], []

    def thread():
        main = getcurrent()
        assert main.parent is None
        server = serving(impl, how, lambda one: (one.spawn_tree_locals, one.spawning_greenlet))
        seen.extend(batch(server))
        seen.append(hasattr(main, 'spawn_tree_locals'))
        hubs.append(get_hub())
        get_hub().destroy()
    running = threading.Thread(target=thread)
    running.start()
    running.join()
    (one, ref), (other, same), kept = seen
    assert one == other == {} and one is not other and ref is same and kept is False
    assert hubs[0] is not get_hub()


# -- what gevent can be told --------------------------------------------------------------

@every
def test_tracking_is_switched_off_and_on(impl, how):
    """By ``gevent.config``: takes effect at the next greenlet."""
    names = 'spawning_greenlet', 'spawn_tree_locals', 'spawning_stack'
    server = serving(impl, how, lambda one: [getattr(one, name, None) is not None
                                             for name in names])
    on = [True, True, how != 'raw']
    assert batch(server) == [on] * 2
    config.track_greenlet_tree = False
    try:
        assert batch(server) == [[False] * 3] * 2
    finally:
        config.track_greenlet_tree = True
    assert batch(server) == [on] * 2


@every
@pytest.mark.parametrize('what', ['property', 'get', 'settings', 'setting', 'value'])
def test_configuration_is_patched(impl, how, what, monkeypatch):
    """In any of the ways in which gevent can be made to see another value."""
    server = serving(impl, how, lambda one: getattr(one, 'spawning_greenlet', None) is not None)
    assert batch(server) == [True] * 2
    other = types.SimpleNamespace(get=lambda: False)
    if what == 'property':
        monkeypatch.setattr(type(config), 'track_greenlet_tree', property(lambda self: False))
    elif what == 'get':
        monkeypatch.setattr(type(SETTING), 'get', lambda self: False)
    elif what == 'settings':
        monkeypatch.setattr(config, 'settings', dict(config.settings, track_greenlet_tree=other))
    elif what == 'setting':
        monkeypatch.setitem(config.settings, 'track_greenlet_tree', other)
    else:
        monkeypatch.setattr(SETTING, 'value', 0)
    assert batch(server) == [False] * 2
    monkeypatch.undo()
    assert batch(server) == [True] * 2


@of_class
def test_spawn_callback(impl, how):
    """Called for each Greenlet that starts."""
    server = serving(impl, how)
    assert started_by(lambda: batch(server)) == server.seen and len(server.seen) == 2


@of_class
def test_spawn_callback_during_a_batch(impl, how):
    """Called for those that start as long as it is there."""
    def steps():
        yield (1,)
        Greenlet.add_spawn_callback(started.append)
        yield (2,)
        Greenlet.remove_spawn_callback(started.append)
        yield (3,)
    started, seen = [], {}
    server = by_hand(impl, steps(), spawn=SPAWNS[how](), handle=lambda self, number:
                     seen.update({number: getcurrent()}))
    server._do_read()
    until(lambda: len(seen) == 3)
    assert started == [seen[2]]


@pytest.mark.parametrize('name', ['_get_hub_noargs', 'TrackedRawGreenlet', 'GEVENT_CONFIG'])
def test_spawn_raw_uses_its_globals(impl, name, monkeypatch):
    """Replaced ones, too."""
    used = []

    class Spy:
        def __call__(self, *args):
            used.append(name)
            return original(*args)

        def __getattr__(self, attr):
            used.append(name)
            return getattr(original, attr)
    server, original = serving(impl, 'raw'), getattr(gevent.hub, name)
    batch(server)
    monkeypatch.setattr(gevent.hub, name, Spy())
    server._do_read()
    assert used == [name] * 2


def test_spawn_raw_gets_other_code(impl, monkeypatch):
    """Its function is the same."""
    server = serving(impl, 'raw')
    batch(server)
    monkeypatch.setattr(gevent.spawn_raw, '__code__', gevent.spawn.__func__.__code__
                        if isinstance(gevent.spawn, types.FunctionType)
                        else (lambda function, *args, **kwargs: function(*args)).__code__)
    server._do_read()
    assert len(server.seen) == 4  # at once


def test_greenlet_class_of_the_pool(impl):
    """A class of its own, on the instance or in a subclass."""
    class Other(Greenlet):
        pass
    server = serving(impl, 'pool', type)
    assert batch(server) == [Greenlet] * 2
    server.pool.greenlet_class = Other
    assert batch(server) == [Other] * 2
    del server.pool.greenlet_class
    assert batch(server) == [Greenlet] * 2


def test_spawn_of_a_subclass(impl):
    """Its own constructor runs."""
    class Other(Greenlet):
        def __init__(self, *args):
            Greenlet.__init__(self, *args)
            self.number = args[3]
    server = by_hand(impl, itertools.repeat((5,)), spawn=Other.spawn, max_accept=2, seen=[],
                     handle=lambda self, number: self.seen.append(getcurrent().number))
    assert batch(server) == [(5,)] * 2


# -- and then -----------------------------------------------------------------------------

@of_class
def test_it_can_be_killed_before_it_starts(impl, how):
    """It never runs the handler; whoever waits for it goes on."""
    server = serving(impl, how)
    batch(server)
    del server.seen[:], server.log[:]
    one, other = started_by(server._do_read)
    one.kill()
    other.join()
    assert isinstance(one.value, gevent.GreenletExit) and one.ready() and one.successful()
    assert server.seen == [other] and server.log == ['read'] * 2 + [('close', 1)]
    if how == 'pool':
        until(lambda: len(server.pool) == 0)


class Seeing(set):
    """The greenlets of a pool; *see* is told of each, before it starts."""

    see = None

    def add(self, one):
        super().add(one)
        self.see(one)


def pool_that_sees(impl, see):
    """A server with a pool, and its second batch of two, the first one of which is over."""
    server = serving(impl, 'pool')
    batch(server)
    until(lambda: len(server.pool) == 0)
    server.pool.greenlets = Seeing()
    server.pool.greenlets.see = see
    del server.seen[:], server.log[:]
    server._do_read()
    return server


def test_start_of_its_own(impl):
    """Somebody gives a greenlet another start() before the pool starts it."""
    def see(one):
        one.start = lambda: started.append(one)
    started = []
    server = pool_that_sees(impl, see)
    assert set(started) == server.pool.greenlets and len(started) == 2
    gevent.sleep(0.01)
    assert server.seen == [] and not any(one.started for one in started)
    for one in started:
        Greenlet.start(one)
    assert set(handlers(server)) == set(started)


def test_switch_of_its_own(impl):
    """Somebody gives a greenlet another switch(): that is what the loop calls."""
    def see(one):
        one.switch = functools.partial(switched.append, one)
    switched = []
    server = pool_that_sees(impl, see)
    until(lambda: len(switched) == 2)
    assert set(switched) == server.pool.greenlets and server.seen == []
    for one in switched:
        one.kill()


@pytest.mark.parametrize('times', [0, 1, 2])
def test_start_again(impl, times):
    """Started before or after the pool does so, a greenlet runs once."""
    def see(one):
        for _ in range(times):
            one.start()
        all_of_them.append(one)
    all_of_them = []
    server = pool_that_sees(impl, see)
    assert all(one.started and not one.dead for one in all_of_them)
    for one in all_of_them:
        one.start()
    assert handlers(server) == all_of_them
    gevent.sleep(0.01)
    assert handlers(server) == all_of_them and all(one.successful() for one in all_of_them)


def test_killed_in_the_pool_before_it_starts(impl):
    """It leaves the pool without having run the handler."""
    all_of_them = []
    server = pool_that_sees(impl, all_of_them.append)
    one, other = all_of_them
    one.kill()
    until(lambda: len(server.pool) == 0)
    assert isinstance(one.value, gevent.GreenletExit) and one.successful()
    assert server.seen == [other] and server.log == ['read'] * 2 + [('close', 1)]


def test_pool_can_be_unlinked(impl):
    """What the pool has linked to a greenlet is equal to its method."""
    server = serving(impl, 'pool')
    batch(server)
    until(lambda: len(server.pool) == 0)
    one, other = started_by(server._do_read)
    assert one.has_links()
    one.unlink(server.pool._discard)
    assert not one.has_links() and other.has_links()
    gevent.joinall([one, other])
    until(lambda: len(server.pool) == 1)
    assert list(server.pool.greenlets) == [one]


@every
def test_error_of_the_loop(impl, how, monkeypatch):
    """What schedules a greenlet raises: reported, and the connection is closed."""
    server = serving(impl, how)
    batch(server)

    class Loop:
        def run_callback(self, *args):
            raise ZeroDivisionError

        def __getattr__(self, name):
            return getattr(loop, name)
    hub, loop = get_hub(), get_hub().loop
    del server.log[:]
    hub.loop = Loop()
    try:
        server._do_read()
    finally:
        hub.loop = loop
    (context, kind, value), = server.loop.errors
    assert (context, kind) == (((), server), ZeroDivisionError)
    assert server.log == ['read', ('close', 1), 'error', 'io.stop', 'io.close', ('timer', 0.01),
                          'timer.start']


@every
def test_loop_of_the_class_of_hubs(impl, how, monkeypatch):
    """Replaced in a batch: spawn_raw() asks for it, a compiled Greenlet looks into the hub."""
    class Loop:
        def run_callback(self, *args):
            calls.append(args[0])
            return loop.run_callback(*args)

    def steps():
        yield (1,)
        monkeypatch.setattr(gevent.hub.Hub, 'loop', property(lambda self: spy), raising=False)
        yield (2,)
        monkeypatch.undo()
        yield (3,)
    calls, seen, spy, loop = [], {}, Loop(), get_hub().loop
    server = by_hand(impl, steps(), spawn=SPAWNS[how](), handle=lambda self, number:
                     seen.update({number: getcurrent()}))
    server._do_read()
    until(lambda: len(seen) == 3)
    assert calls == ([seen[2].switch] if how == 'raw' or PURE else [])


def test_loop_of_another_class(impl, monkeypatch):
    """A descriptor that hubs cannot have: the error is reported, the connection closed."""
    def steps():
        yield (1,)
        monkeypatch.setattr(gevent.hub.Hub, 'loop', vars(types.FunctionType)['__code__'],
                            raising=False)
        yield (2,)
    seen = []
    server = by_hand(impl, steps(), spawn=gevent.spawn_raw,
                     handle=lambda self, number: seen.append(number))
    del server.log[:]
    server._do_read()
    monkeypatch.undo()
    (context, kind, value), = server.loop.errors
    assert (context, kind) == (((), server), TypeError)
    assert str(value) == ("descriptor '__code__' for 'function' objects "
                          "doesn't apply to a 'Hub' object")
    assert server.log[:3] == ['read', 'read', ('close', 2)]
    until(lambda: seen == [1])


@every
def test_nothing_is_kept_alive(impl, how):
    """Server, pool and greenlets are freed when the batch and its handlers are done."""
    server = serving(impl, how, weakref.ref)
    refs = list(batch(server)) + [weakref.ref(server)]
    if server.pool is not None:
        refs.append(weakref.ref(server.pool))
    server.stop()  # waits for the pool
    del server
    gevent.sleep(0)
    gc.collect()
    assert [ref() for ref in refs] == [None] * len(refs)


def test_pool_is_not_kept_by_do_handle(impl):
    """Called by itself, outside of a batch."""
    server = serving(impl, 'pool')
    for _ in range(2):
        server.do_handle(1)
    ref = weakref.ref(server.pool)
    assert len(handlers(server)) == 2
    server.stop()
    del server
    gevent.sleep(0)
    gc.collect()
    assert ref() is None


@of_class
def test_hubs_of_two_threads(impl, how):
    """Each greenlet belongs to the hub of the thread that accepts, in turn."""
    seen = {}
    barrier = threading.Barrier(2, timeout=60)

    def thread(name):
        server = serving(impl, how, lambda one: (one.parent, one.spawning_greenlet()))
        for _ in range(3):
            barrier.wait()
            for parent, spawner in batch(server):
                seen.setdefault(name, set()).add((parent is get_hub(), spawner is getcurrent()))
        get_hub().destroy()
    threads = [threading.Thread(target=thread, args=(name,)) for name in ('one', 'other')]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert seen == {'one': {(True, True)}, 'other': {(True, True)}}


def owners(impl, how, before, after):
    """The hubs that the greenlets of a batch of four belong to; the second and third are made
    between *before()* and *after()*.
    """
    def steps():
        yield (1,)
        before()
        yield (2,)
        yield (3,)
        after()
        yield (4,)
    # those that are made have what nobody else has
    marks = getcurrent().spawn_tree_locals
    server = by_hand(impl, steps(), spawn=SPAWNS[how](), handle=lambda self, number: None)
    gc.disable()  # which keeps them in order
    try:
        server._do_read()
        made = [one for one in gc.get_objects()
                if type(one) in (Greenlet, gevent.hub.TrackedRawGreenlet)
                and getattr(one, 'spawn_tree_locals', None) is marks]
    finally:
        gc.enable()
    found = [one.parent for one in made]
    for one in made:
        one.parent = get_hub()
    until(lambda: all(one.dead for one in made))
    return found


@every
def test_hub_is_replaced_in_a_batch(impl, how):
    """Each greenlet belongs to the hub that there is when it is made."""
    hub = get_hub()
    other = gevent.hub.Hub(loop=hub.loop)
    assert owners(impl, how, lambda: gevent.hub.set_hub(other),
                  lambda: gevent.hub.set_hub(hub)) == [hub, other, other, hub]


@every
def test_hub_comes_from_elsewhere(impl, how):
    """What tells gevent which hub there is was patched, and restored."""
    hub = get_hub()
    other = gevent.hub.Hub(loop=hub.loop)
    kept = _hub_local._Threadlocal

    def patch():
        kept.hub = property(lambda self: other)

    def restore():
        del kept.hub
    assert owners(impl, how, patch, restore) == [hub, other, other, hub]
    assert owners(impl, how, patch, restore) == [hub, other, other, hub]


@pytest.mark.parametrize('how', ['default', 'pool'])
def test_batch_within_a_batch(impl, how):
    """Other servers of the same class: each closes its own connections and tells its own pool."""
    def server(spawn, handle):
        made = cls(helpers.FakeListener(), handle, spawn=spawn)
        made.loop, made.max_accept = FakeLoop([]), 2
        made.start()
        return made

    class cls(impl.BaseServer):
        def do_read(self):
            return (1,)

        def do_close(self, *args):
            closed.append(self)
    closed, handled = [], []
    inner = server(SPAWNS[how](), handled.append)
    middle = server(SPAWNS[how](), handled.append)
    outer = server(None, lambda number: (inner._do_read(), middle._do_read()))
    outer._do_read()
    until(lambda: len(handled) == 8)
    assert closed.count(outer) == 2 and closed.count(inner) == closed.count(middle) == 4
    if how == 'pool':
        until(lambda: len(inner.pool) == len(middle.pool) == 0)


def test_blocking_spawn_in_the_hub(impl):
    """A pool that is full may not wait there; the loop goes on."""
    pool = gevent.pool.Pool(1)
    server = by_hand(impl, itertools.repeat((1,)), spawn=pool, max_accept=1,
                     full=lambda self: False)
    del server.full
    server._do_read()
    get_hub().loop.run_callback(server._do_read)
    until(lambda: server.loop.errors)
    (_, kind, _), = server.loop.errors
    assert kind is BlockingSwitchOutError
    assert isinstance(server.loop, FakeLoop)


@pytest.mark.parametrize('environ, why', [
    ({'GEVENT_CBASE_WITHOUT': 'greenlets'}, 'GEVENT_CBASE_WITHOUT switches it off'),
    ({'GEVENT_TRACK_GREENLET_TREE': '0'}, 'GEVENT_TRACK_GREENLET_TREE is off'),
    ({'PURE_PYTHON': '1'}, 'not with gevent in pure Python'),
])
def test_why_it_is_off(environ, why):
    """``--info`` tells."""
    environ = dict({'GEVENT_CBASE_WITHOUT': '', 'PURE_PYTHON': ''}, **environ)
    told = subprocess.run(
        [sys.executable, '-m', 'gevent_cbase', '--info'], capture_output=True, text=True,
        check=True, env=child_environ(**environ)).stdout
    assert '  greenlets            off: %s\n' % why in told
