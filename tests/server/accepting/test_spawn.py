"""The ways to run handlers: each form of ``spawn``, limits of pools, and closing of clients."""
import subprocess
import types

import gevent
import greenlet
import pytest
from gevent import get_hub, getcurrent
from gevent.event import Event
from gevent.exceptions import BlockingSwitchOutError
from gevent.lock import Semaphore
from gevent.pool import Group, Pool
from gevent.threadpool import ThreadPool

from helpers import (
    LOOPBACK, ask, batch, by_hand, child_environ, connect, connect_natively, python, read_all,
    reply, until)


class Held:
    """A handler that holds each client until it is let go."""

    def __init__(self):
        self.running, self.served, self.most = [], [], 0
        self.gate = Semaphore(0)

    def __call__(self, sock, address):
        self.running.append(address)
        self.served.append(address)
        self.most = max(self.most, len(self.running))
        try:
            self.gate.acquire()
        finally:
            self.running.remove(address)


class Slots:
    """As little of a pool as makes sense: cannot tell anybody when a slot gets free."""

    def __init__(self, size):
        self.size, self.greenlets = size, set()

    def spawn(self, function, *args):
        new = gevent.spawn(function, *args)
        self.greenlets.add(new)
        new.rawlink(self.greenlets.discard)
        return new

    def full(self):
        return len(self.greenlets) >= self.size


class Spawner:
    """Not even full(): anything with ``spawn`` counts as a pool."""

    def __init__(self):
        self.calls = 0

    def spawn(self, function, *args):
        self.calls += 1
        return gevent.spawn(function, *args)


class MyGreenlet(gevent.Greenlet):
    """To be told from others."""


#: the type of what spawn_raw makes; depends on GEVENT_TRACK_GREENLET_TREE
RAW = type(gevent.spawn_raw(len, ()))


def later(function, *args):
    """A spawn function that starts the handler a moment later."""
    gevent.spawn_later(0.001, function, *args)


def in_the_middle(function, *args):
    """A spawn function that runs the handler in a greenlet at once, within the batch."""
    greenlet.greenlet(function).switch(*args)


# -- forms of spawn ----------------------------------------------------------------------

@pytest.mark.parametrize('make', [
    lambda: 'default', lambda: gevent.spawn, lambda: gevent.spawn_raw, lambda: MyGreenlet.spawn,
    lambda: Pool(2), lambda: Pool(), lambda: Pool(2, MyGreenlet), lambda: 2, lambda: True,
    lambda: None, lambda: later, lambda: in_the_middle])
def test_every_form_serves(impl, serve, errors, make):
    """Five clients one after the other, then three that wait in the backlog."""
    server = serve(impl.StreamServer(LOOPBACK, reply, spawn=make()))
    assert [ask(server, b'') for _ in range(5)] == [b'served'] * 5
    clients = [connect_natively(server) for _ in range(3)]
    gevent.socket.wait_read(clients[-1].fileno())
    for client in clients:
        gevent.socket.wait_read(client.fileno())
        assert client.recv(9) == b'served' and client.recv(9) == b''
        client.close()
    assert errors == []


@pytest.mark.parametrize('make, kind', [
    (lambda: 'default', gevent.Greenlet), (lambda: gevent.spawn, gevent.Greenlet),
    (lambda: gevent.spawn_raw, RAW), (lambda: MyGreenlet.spawn, MyGreenlet),
    (lambda: Pool(2), gevent.Greenlet), (lambda: Pool(2, MyGreenlet), MyGreenlet),
    (lambda: 2, gevent.Greenlet), (lambda: None, type(get_hub()))])
def test_what_runs_the_handler(impl, serve, make, kind):
    """The type of the greenlet; its parent is the hub, unless it is the hub."""
    seen = []
    server = serve(impl.StreamServer(LOOPBACK, lambda *args: seen.append(getcurrent()),
                                     spawn=make()))
    assert ask(server, b'') == b''
    assert type(seen[0]) is kind
    assert (seen[0] if kind is type(get_hub()) else seen[0].parent) is get_hub()


def test_what_the_greenlet_looks_like(impl, serve):
    """Seen from outside: what it runs and with which arguments."""
    held = Held()
    server = serve(impl.StreamServer(LOOPBACK, held, spawn=3))
    client = connect(server)
    until(lambda: held.running)
    one, = server.pool
    assert one._run is impl.module._handle_and_close_when_done
    assert one._run.__name__ == '_handle_and_close_when_done'
    handle, close, (sock, address) = one.args
    assert handle is held and close == server.do_close and type(one.args[2]) is tuple
    assert type(sock) is gevent.socket.socket and address == client.getsockname()
    assert one.kwargs == {}
    held.gate.release()
    until(lambda: one.ready())
    assert one.successful() and one.value is None
    client.close()


def test_result_of_the_handler_is_that_of_the_greenlet(impl, serve):
    """Whoever has the greenlet gets the value or the exception."""
    made, results = [], ['value', LookupError('error')]

    def spawn(*args):
        made.append(gevent.spawn(*args))

    def handle(sock, address):
        result = results[len(made) - 1]
        if isinstance(result, Exception):
            raise result
        return result
    get_hub().NOT_ERROR += (LookupError,)
    try:
        server = serve(impl.StreamServer(LOOPBACK, handle, spawn=spawn))
        assert ask(server, b'') == ask(server, b'') == b''
    finally:
        del get_hub().NOT_ERROR
    assert made[0].get() == 'value'
    with pytest.raises(LookupError, match='error'):
        made[1].get()


def test_errors_of_handlers_do_not_stop_the_loop(impl, serve, errors):
    """In greenlets of their own they are reported for the greenlet; no pause."""
    def handle(sock, address):
        raise LookupError
    server = serve(impl.StreamServer(LOOPBACK, handle))
    watcher = server._watcher
    assert [ask(server, b'') for _ in range(3)] == [b''] * 3
    until(lambda: len(errors) == 3)
    assert server._watcher is watcher and server._timer is None
    assert {kind for _, kind, _ in errors} == {LookupError}
    assert {type(context) for context, _, _ in errors} == {gevent.Greenlet}


def test_handler_that_blocks_in_the_hub(impl, serve, errors):
    """With spawn=None that is an AssertionError, reported with a pause; the server goes on."""
    blocking = [True]

    def handle(sock, address):
        if blocking:
            blocking.pop()
            gevent.sleep(0)
        reply(sock, address)
    server = serve(impl.StreamServer(LOOPBACK, handle, spawn=None))
    client = connect(server)
    address = client.getsockname()
    assert read_all(client) == b''
    assert ask(server, b'') == b'served'
    (context, kind, value), = errors
    assert context == ((address,), server) and kind is BlockingSwitchOutError
    assert isinstance(value, AssertionError)


def test_spawn_function_that_blocks_in_the_hub(impl, serve, errors):
    """The same for the spawn function; the client is closed."""
    def spawn(*args):
        if not errors:
            gevent.sleep(0)
        gevent.spawn(*args)
    server = serve(impl.StreamServer(LOOPBACK, reply, spawn=spawn))
    assert ask(server, b'') == b''
    assert ask(server, b'') == b'served'
    assert [kind for _, kind, _ in errors] == [BlockingSwitchOutError]


# -- pools: never more handlers than slots -----------------------------------------------

@pytest.mark.parametrize('size', [1, 2, 3])
@pytest.mark.parametrize('make', [Pool, int])
def test_never_more_handlers_than_slots(impl, serve, make, size):
    """Six clients; whenever one is let go exactly one more is accepted."""
    held = Held()
    server = serve(impl.StreamServer(LOOPBACK, held, spawn=make(size)))
    clients = [connect_natively(server) for _ in range(6)]
    for done in range(7):
        count = min(6, size + done)
        until(lambda: len(held.served) == count)
        until(lambda: (server._watcher is None) == (len(held.running) == size))
        gevent.sleep(0.005)
        assert len(held.served) == count and len(held.running) == min(size, 6 - done)
        held.gate.release()
    until(lambda: not held.running)
    assert held.most == size
    assert held.served == [client.getsockname() for client in clients]
    for client in clients:
        client.close()


def test_full_pool_stops_accepting(impl, serve):
    """As soon as it is full: no watcher, no timer, but started; the rest waits unaccepted."""
    held = Held()
    server = serve(impl.StreamServer(LOOPBACK, held, spawn=2))
    clients = [connect_natively(server) for _ in range(3)]
    until(lambda: server._watcher is None)
    assert len(held.running) <= 2 and len(server.pool) == 2
    assert server.started and server._timer is None and server.full() is True
    assert server.full == server.pool.full
    until(lambda: len(held.running) == 2)
    held.gate.release()
    until(lambda: len(held.served) == 3)
    for client in clients:
        client.close()


def test_pool_of_size_zero(impl, serve):
    """Nobody is ever accepted."""
    server = serve(impl.StreamServer(LOOPBACK, reply, spawn=Pool(0)))
    client = connect_natively(server)
    until(lambda: server._watcher is None)
    gevent.sleep(0.02)
    assert server._watcher is None and server.started
    client.close()


def end(server, held):
    held.gate.release()


def kill(server, held):
    next(iter(server.pool)).kill(block=False)


def fail(server, held):
    next(iter(server.pool)).kill(LookupError('broken handler'), block=False)


def kill_all(server, held):
    server.pool.kill(block=False)


def discard(server, held):
    server.pool.discard(next(iter(server.pool)))


def give_number(server, held):
    server.set_spawn(3)


def give_pool(server, held):
    server.set_spawn(Pool(2))


@pytest.mark.parametrize('free', [end, kill, fail, kill_all, discard, give_number, give_pool])
def test_full_server_resumes(impl, serve, errors, free):
    """Whatever it is that frees a slot, or gives the server another pool."""
    held = Held()
    server = serve(impl.StreamServer(LOOPBACK, held, spawn=1))
    clients = [connect_natively(server) for _ in range(2)]
    until(lambda: server._watcher is None and held.running)
    gevent.sleep(0.01)
    assert len(held.served) == 1
    first = next(iter(server.pool))
    free(server, held)
    until(lambda: len(held.served) == 2)
    assert [kind for _, kind, _ in errors] == ([LookupError] if free is fail else [])
    assert held.served == [client.getsockname() for client in clients]
    for _ in clients:
        held.gate.release()
    first.join()
    for client in clients:
        client.close()


@pytest.mark.parametrize('finish', ['end', 'kill'])
def test_slot_taken_by_somebody_else(impl, serve, finish):
    """A greenlet added to the pool by the program counts, and frees its slot in the end."""
    gate, pool = Event(), Pool(1)
    stranger = gevent.spawn(gate.wait)
    pool.add(stranger)
    server = serve(impl.StreamServer(LOOPBACK, reply, spawn=pool))
    client = connect_natively(server)
    until(lambda: server._watcher is None)
    gevent.sleep(0.01)
    assert server._watcher is None
    if finish == 'end':
        gate.set()
    else:
        stranger.kill(block=False)
    gevent.socket.wait_read(client.fileno())
    assert client.recv(9) == b'served'
    client.close()


def test_pool_attribute_replaced(impl, serve):
    """server.pool alone: spawn and full go on being those of the old pool, the semaphore asked
    for a free slot is that of the new one."""
    held = Held()
    server = serve(impl.StreamServer(LOOPBACK, held, spawn=1))
    old, server.pool = server.pool, Pool(5)
    clients = [connect_natively(server) for _ in range(2)]
    until(lambda: held.running)
    gevent.sleep(0.01)
    assert len(held.served) == 1 and len(old) == 1 and len(server.pool) == 0
    held.gate.release()
    until(lambda: len(held.served) == 2)
    assert len(old) == 1 and len(server.pool) == 0
    held.gate.release()
    until(lambda: not old)
    for client in clients:
        client.close()


def test_pool_attribute_replaced_while_full(impl, serve):
    """The old pool's semaphore still has the link: its free slot resumes accepting."""
    held = Held()
    server = serve(impl.StreamServer(LOOPBACK, held, spawn=1))
    clients = [connect_natively(server) for _ in range(2)]
    until(lambda: server._watcher is None and held.running)
    server.pool = Pool(5)
    held.gate.release()
    until(lambda: len(held.served) == 2)
    held.gate.release()
    until(lambda: not held.running)
    for client in clients:
        client.close()


def test_set_spawn_on_a_full_server(impl, serve):
    """A number: a new pool, waiting clients are taken at once. 'default' afterwards: no pool
    any more, but spawn and full of the last one stay in use."""
    held = Held()
    server = serve(impl.StreamServer(LOOPBACK, held, spawn=1))
    clients = [connect_natively(server) for _ in range(4)]
    until(lambda: server._watcher is None and held.running)
    old = server.pool
    server.set_spawn(2)
    pool = server.pool
    until(lambda: len(held.running) == 3)
    assert len(old) == 1 and len(pool) == 2 and type(pool) is Pool and pool.size == 2
    server.set_spawn('default')
    assert server.pool is None and server._spawn == pool.spawn and server.full == pool.full
    for _ in clients:
        held.gate.release()
    until(lambda: len(held.served) == 4)
    assert held.most == 3
    until(lambda: not held.running)
    for client in clients:
        client.close()


@pytest.mark.parametrize('spawn', [Pool(), 'default', None, gevent.spawn])
def test_set_spawn_that_notifies_nobody(impl, serve, spawn):
    """A full server given something without a working semaphore, an unlimited pool for one,
    goes on waiting for its old pool."""
    held = Held()
    server = serve(impl.StreamServer(LOOPBACK, held, spawn=1))
    clients = [connect_natively(server) for _ in range(2)]
    until(lambda: server._watcher is None and held.running)
    server.set_spawn(spawn)
    gevent.sleep(0.01)
    assert server._watcher is None and len(held.served) == 1
    held.gate.release()
    until(lambda: len(held.served) == 2)
    held.gate.release()
    until(lambda: not held.running)
    for client in clients:
        client.close()


def test_set_spawn_on_a_running_server(impl, serve):
    """In force from the next accept on; a full() left by a pool remains until deleted."""
    seen = []
    server = serve(impl.StreamServer(LOOPBACK, lambda *args: seen.append(type(getcurrent()))))
    for spawn in ('default', MyGreenlet.spawn, None, Pool(1), gevent.spawn_raw):
        server.set_spawn(spawn)
        assert ask(server, b'') == b''
    assert seen == [gevent.Greenlet, MyGreenlet, type(get_hub()), gevent.Greenlet, RAW]
    assert server.pool is None and server._spawn is gevent.spawn_raw
    assert server.full.__self__.__class__ is Pool


def test_two_servers_share_a_pool(impl, serve):
    """The limit is common; a slot freed by one server's handler may serve the other's client,
    also after one of the two has been closed."""
    held, pool = Held(), Pool(2)
    first, second = (serve(impl.StreamServer(LOOPBACK, held, spawn=pool)) for _ in range(2))
    clients = [connect_natively(server) for server in (first, second)]
    until(lambda: len(held.running) == 2)
    clients += [connect_natively(server) for server in (first, second)]
    until(lambda: first._watcher is None and second._watcher is None)
    gevent.sleep(0.01)
    assert len(held.served) == 2 and len(pool) == 2
    held.gate.release()
    until(lambda: len(held.served) == 3)
    gevent.sleep(0.01)
    assert len(held.running) == 2
    first.close()
    held.gate.release()
    held.gate.release()
    until(lambda: clients[3].getsockname() in held.served)
    held.gate.release()
    until(lambda: not held.running)
    assert held.most == 2 and second.started and not first.started
    for client in clients:
        client.close()


def test_closed_server_is_not_resumed_by_its_pool(impl, serve):
    """close() while full takes the link back; the freed slot starts nothing."""
    held, calls = Held(), []

    class Watched(impl.StreamServer):
        def _start_accepting_if_started(self, *args):
            calls.append(args)
            super()._start_accepting_if_started(*args)
    server = serve(Watched(LOOPBACK, held, spawn=1))
    client = connect_natively(server)
    until(lambda: held.running)
    second = connect_natively(server)
    until(lambda: server._watcher is None)
    del calls[:]
    pool = server.pool
    server.close()
    held.gate.release()
    until(lambda: not pool)
    gevent.sleep(0.01)
    assert calls == [] and server._watcher is None and server.pool is pool
    client.close()
    second.close()


def test_full_changed_by_the_program_on_a_server_with_a_pool(impl, serve):
    """The instance's full() is whatever was put there last."""
    held = Held()
    server = serve(impl.StreamServer(LOOPBACK, held, spawn=Pool()))
    server.full = lambda: len(server.pool) >= 2
    clients = [connect_natively(server) for _ in range(3)]
    until(lambda: len(held.running) == 2)
    gevent.sleep(0.01)
    assert len(held.served) == 2
    server.full = server.pool.full
    server.start_accepting()
    until(lambda: len(held.served) == 3)
    for client in clients:
        held.gate.release()
        client.close()


# -- pools that are none -----------------------------------------------------------------

def only_ours(impl, spawn, handle=reply):
    """A server of ours with *spawn*; None for gevent, which insists on ``_semaphore``."""
    if impl.stock:
        with pytest.raises(AttributeError, match='_semaphore'):
            impl.StreamServer(LOOPBACK, handle, spawn=spawn)
        return None
    return impl.StreamServer(LOOPBACK, handle, spawn=spawn)


def test_group(impl, serve, errors):
    """No limit, but stop() waits for what runs in it."""
    held, group = Held(), Group()
    server = only_ours(impl, group, held)
    if server is None:
        return
    serve(server)
    assert server.pool is group and server._spawn == group.spawn and server.full == group.full
    clients = [connect_natively(server) for _ in range(4)]
    until(lambda: len(held.running) == 4)
    assert len(group) == 4 and server._watcher is not None
    gevent.spawn_later(0.01, lambda: [held.gate.release() for _ in clients])
    server.stop(timeout=5)
    assert held.running == [] and len(group) == 0 and errors == []
    for client in clients:
        client.close()


def test_group_is_killed_by_stop(impl):
    """After the timeout, like the handlers of a pool."""
    held, group = Held(), Group()
    server = only_ours(impl, group, held)
    if server is None:
        return
    server.start()
    client = connect_natively(server)
    until(lambda: held.running)
    server.stop(timeout=0.01)
    assert held.running == [] and len(group) == 0
    client.close()


def test_anything_with_spawn(impl, serve):
    """No full(): the server's own counts, no limit. Nothing to wait for when it stops."""
    spawner, held = Spawner(), Held()
    server = only_ours(impl, spawner, held)
    if server is None:
        return
    serve(server)
    assert server.pool is spawner and 'full' not in vars(server) and server.full() is False
    clients = [connect_natively(server) for _ in range(3)]
    until(lambda: len(held.running) == 3)
    assert spawner.calls == 3
    server.stop()
    assert len(held.running) == 3 and server.closed
    for client in clients:
        held.gate.release()
        client.close()
    until(lambda: not held.running)


def test_pool_that_cannot_notify_is_polled(impl, serve):
    """Never more handlers than slots, and everybody is served in the end."""
    held = Held()
    server = only_ours(impl, Slots(2), held)
    if server is None:
        return
    server.min_delay = 0.002
    server.max_delay = 0.01
    serve(server)
    clients = [connect_natively(server) for _ in range(5)]
    until(lambda: len(held.running) == 2 and server._timer is not None)
    for done in range(1, 4):
        held.gate.release()
        until(lambda: len(held.served) == 2 + done)
        assert len(held.running) == 2
    for client in clients:
        held.gate.release()
        client.close()
    until(lambda: not held.running)
    assert held.most == 2


def test_delays_of_polling(impl):
    """While full: the back-off delay, doubling up to max_delay; reset by the next accept."""
    slots = Slots(2)
    if impl.stock:
        with pytest.raises(AttributeError, match='_semaphore'):
            by_hand(impl, spawn=slots)
        return
    server = by_hand(impl, [(1,), (2,)], spawn=slots)
    slots.size, log = 0, []
    for delay in (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1, 1):
        log += ['io.stop', 'io.close'] + ['timer.stop', 'timer.close'] * (delay > 0.01) + [
            ('timer', delay), 'timer.start']
        if delay == 0.01:
            del server.log[:]
        server._do_read()
        assert server.log == log
        assert server._watcher is None and server.started
        server._timer.callback()
        log += [('io', 7, 1), 'io.start']
    slots.size = 1
    assert batch(server) == ['read', 'io.stop', 'io.close', 'timer.stop', 'timer.close',
                             ('timer', 0.01), 'timer.start']
    assert server.delay == 0.02
    slots.size = 2
    assert batch(server) == ['read', 'timer.stop', 'timer.close', ('timer', 0.01), 'timer.start']


def test_polling_without_a_pause(impl):
    """A negative delay means no pause here, too: accepting goes on with a new watcher."""
    if impl.stock:
        with pytest.raises(AttributeError, match='_semaphore'):
            by_hand(impl, spawn=Slots(0))
        return
    server = by_hand(impl, spawn=Slots(0), min_delay=-1)
    assert batch(server) == ['io.stop', 'io.close', ('io', 7, 1), 'io.start']
    assert server._timer is None and server.delay == -1


def test_polling_ends_when_the_server_is_closed(impl):
    """The timer is cancelled like that of a pause; its callback does nothing any more."""
    if impl.stock:
        with pytest.raises(AttributeError, match='_semaphore'):
            by_hand(impl, spawn=Slots(0))
        return
    server = by_hand(impl, spawn=Slots(0))
    batch(server)
    callback = server._timer.callback
    del server.log[:]
    server.close()
    callback()
    assert server.log == ['timer.stop', 'timer.close'] and server._timer is None


def test_thread_pool(impl):
    """gevent's ThreadPool has neither _semaphore nor full: handlers run in its threads."""
    import threading
    threads = []

    def handle(self, number):
        threads.append(threading.get_ident())
    pool = ThreadPool(2)
    try:
        if impl.stock:
            with pytest.raises(AttributeError, match='_semaphore'):
                by_hand(impl, spawn=pool)
            return
        server = by_hand(impl, [(1,)], spawn=pool, handle=handle)
        assert batch(server)[:1] == ['read']
        pool.join()
        assert len(threads) == 1 and threads[0] != threading.get_ident()
        assert sorted(server.log, key=str) == [('close', 1), 'read', 'read']
        server.stop()
    finally:
        pool.kill()


def test_pool_with_a_semaphore_but_without_full(impl):
    """Accepted by gevent as well: linked at once, never full by its own account."""
    links = []
    pool = types.SimpleNamespace(
        spawn=lambda function, *args: function(*args),
        _semaphore=types.SimpleNamespace(rawlink=links.append, unlink=links.remove))
    server = by_hand(impl, [(1,)], spawn=pool)
    assert links == [server._start_accepting_if_started]
    assert batch(server) == ['read', ('handle', 1), ('close', 1), 'read']
    server.full = lambda: True
    assert batch(server) == ['io.stop', 'io.close']
    assert links == [server._start_accepting_if_started] * 2
    server.close()
    assert links == [server._start_accepting_if_started]


class Counted(Spawner):
    """A pool-like object that is full or not, true or not, as it is told."""

    def __init__(self, truth):
        Spawner.__init__(self)
        self.truth, self.log = truth, []
        self._semaphore = types.SimpleNamespace(rawlink=lambda link: None,
                                                unlink=lambda link: None)

    def __bool__(self):
        return self.truth

    def join(self, *args, **kwargs):
        self.log.append(('join', args, kwargs))

    def kill(self, *args, **kwargs):
        self.log.append(('kill', args, kwargs))


@pytest.mark.parametrize('stop, timeout', [
    (lambda server: server.stop(), 1), (lambda server: server.stop(5), 5),
    (lambda server: server.stop(timeout=0), 0), (lambda server: server.stop(None), 1)])
def test_stop_joins_and_kills_a_true_pool(impl, stop, timeout):
    """With the timeout given or stop_timeout; killing takes a second at most."""
    server = by_hand(impl, spawn=Counted(True))
    stop(server)
    assert server.pool.log == [('join', (), {'timeout': timeout}),
                               ('kill', (), {'block': True, 'timeout': 1})]


def test_stop_does_not_wait_for_a_false_pool(impl):
    """An empty pool is false: nothing is called."""
    server = by_hand(impl, spawn=Counted(False))
    server.stop(timeout=5)
    assert server.pool.log == [] and server.closed
    server = by_hand(impl, spawn=Pool(3))
    server.pool.join = server.pool.kill = None
    server.stop(timeout=5)
    assert server.closed


@pytest.mark.parametrize('lacking', ['join', 'kill'])
def test_stop_with_a_pool_that_lacks_join_or_kill(impl, lacking):
    """gevent fails after closing; ours makes do with what there is."""
    pool = types.SimpleNamespace(**{name: getattr(Counted(True), name) for name in (
        'spawn', '_semaphore', 'join', 'kill') if name != lacking})
    server = by_hand(impl, spawn=pool)
    if impl.stock:
        with pytest.raises(AttributeError, match="no attribute '%s'" % lacking):
            server.stop(timeout=5)
    else:
        server.stop(timeout=5)
    assert server.closed
    log = {'join': [('kill', (), {'block': True, 'timeout': 1})],
           'kill': [('join', (), {'timeout': 5})]}[lacking]
    got = getattr(pool, 'kill' if lacking == 'join' else 'join').__self__.log
    assert got == ([] if impl.stock and lacking == 'join' else log)


# -- closing the client ------------------------------------------------------------------

FORMS = [lambda: 'default', lambda: gevent.spawn_raw, lambda: Pool(2), lambda: None,
         lambda: in_the_middle]


@pytest.mark.parametrize('make', FORMS)
def test_client_is_closed_when_the_handler_returns(impl, serve, make):
    """Not before, whether it did anything with the socket or not."""
    socks = []

    def handle(sock, address):
        assert sock.fileno() >= 0
        socks.append(sock)
    server = serve(impl.StreamServer(LOOPBACK, handle, spawn=make()))
    assert ask(server, b'') == b''
    until(lambda: socks[0].fileno() == -1)


@pytest.mark.parametrize('make', FORMS)
def test_client_is_closed_when_the_handler_raises(impl, serve, errors, make):
    """Everywhere; the error is reported once."""
    socks = []

    def handle(sock, address):
        socks.append(sock)
        raise LookupError
    server = serve(impl.StreamServer(LOOPBACK, handle, spawn=make()))
    assert ask(server, b'') == b''
    until(lambda: errors)
    assert socks[0].fileno() == -1 and [kind for _, kind, _ in errors] == [LookupError]


@pytest.mark.parametrize('make', [lambda: 'default', lambda: gevent.spawn_raw, lambda: Pool(2)])
def test_client_is_closed_when_the_handler_is_killed(impl, serve, make):
    """Killed while it waits for the client."""
    seen = []

    def handle(sock, address):
        seen.extend([sock, getcurrent()])
        sock.recv(1)
    server = serve(impl.StreamServer(LOOPBACK, handle, spawn=make()))
    client = connect(server)
    until(lambda: seen)
    gevent.kill(seen[1])
    assert read_all(client) == b''
    assert seen[0].fileno() == -1 and seen[1].dead


def test_handler_killed_before_it_began(impl):
    """Then nothing of it runs: neither the handler nor do_close."""
    made = []
    server = by_hand(impl, [(1,)], spawn=lambda *args: made.append(gevent.spawn(*args)))
    assert batch(server) == ['read', 'read']
    made[0].kill()
    gevent.sleep(0)
    assert server.log == ['read', 'read'] and made[0].dead


def test_client_is_closed_when_spawning_fails(impl, serve, errors):
    """And the server pauses, then serves the next one."""
    args = []

    def spawn(*given):
        if not args:
            args.extend(given)
            raise LookupError
        return gevent.spawn(*given)
    server = serve(impl.StreamServer(LOOPBACK, reply, spawn=spawn))
    client = connect(server)
    address = client.getsockname()
    assert read_all(client) == b''
    assert args[3][0].fileno() == -1 and args[3][1] == address
    assert ask(server, b'') == b'served'
    (context, kind, value), = errors
    assert context == ((address,), server) and kind is LookupError


def test_spawning_fails_after_it_has_taken_the_client(impl, serve, errors):
    """The spawn function started the handler and raised then: the client is closed under it."""
    def spawn(*args):
        made.append(gevent.spawn(*args))
        raise LookupError
    made, sent = [], []

    def handle(sock, address):
        sent.append(sock.fileno())
    server = serve(impl.StreamServer(LOOPBACK, handle, spawn=spawn))
    assert ask(server, b'') == b''
    until(lambda: sent)
    assert sent == [-1] and made[0].get() is None
    assert [kind for _, kind, _ in errors] == [LookupError]


def test_do_close_that_keeps_the_client(impl, serve):
    """An override decides: the socket stays open after the handler."""
    class Keeping(impl.StreamServer):
        def do_close(self, *args):
            kept.append(args)
    kept = []
    server = serve(Keeping(LOOPBACK, reply))
    client = connect(server)
    until(lambda: kept)
    (sock, address), = kept
    assert address == client.getsockname()
    sock.sendall(b' twice')
    sock.close()
    assert read_all(client) == b'served twice'


def test_datagram_server_with_a_pool(impl, serve):
    """Limits hold for datagrams, too: no more than two are handled at a time."""
    gate, running, most = Semaphore(0), [], []

    def handle(data, address):
        running.append(data)
        most.append(len(running))
        gate.acquire()
        running.remove(data)
    server = serve(impl.DatagramServer(LOOPBACK, handle, spawn=2))
    client = gevent.socket.socket(type=gevent.socket.SOCK_DGRAM)
    for data in (b'1', b'2', b'3'):
        client.sendto(data, server.address)
    until(lambda: len(running) == 2)
    gevent.sleep(0.01)
    assert sorted(running) == [b'1', b'2'] and server._watcher is None
    gate.release()
    until(lambda: b'3' in running)
    gate.release()
    gate.release()
    until(lambda: not running)
    assert max(most) == 2 and len(most) == 3
    client.close()


@pytest.mark.parametrize('how', [
    'gevent.spawn(server._do_read)', 'gevent.spawn_raw(server.do_handle, *server.do_read())',
    'server.set_handle(functools.partial(gevent.spawn, handle)), server._do_read()'])
def test_spawning_under_an_audit_hook(impl, how):
    """There may be no Python frame in a greenlet when another one is made in it: gevent looks
    for the frame, and tells the hook."""
    process = subprocess.run(python(impl, '-c', '''
import functools, select, socket, sys, gevent
from gevent.pool import Pool
from gevent.server import StreamServer

def handle(sock, address):
    print('handled')

sys.addaudithook(lambda *args: None)
for spawn in 'default', gevent.spawn_raw, Pool(2), functools.partial(gevent.spawn), None:
    server = StreamServer(('127.0.0.1', 0), handle, spawn=spawn)
    server.init_socket()
    client = socket.create_connection(server.address)
    select.select([server.socket], [], [])
    %s
    gevent.get_hub().join()
''' % how), capture_output=True, text=True, timeout=60, env=child_environ())
    assert (process.returncode, process.stdout) == (0, 'handled\n' * 5), process.stderr
