"""gevent_cbase.stats(): what is counted, for how long, and by which server.

gevent has nothing of the kind, so these tests are about our class alone. Seconds are compared
with a clock of the same kind, read right before and after.
"""
import errno
import gc
import os
import socket as native
import subprocess
import sys
import threading
import time
import tracemalloc

import gevent
import pytest
from gevent import get_hub, pywsgi, server, socket
from gevent.event import Event
from gevent.pool import Group, Pool

import gevent_cbase
from gevent_cbase import ServerStats, datastack, stats
from helpers import (
    LOOPBACK, FakeLoop, ask, batch, by_hand, child_environ, connect, echo, until)

now = time.monotonic


@pytest.fixture
def ours():
    """install() for the test; as ``impl`` of by_hand()."""
    gevent_cbase.install()
    yield gevent_cbase
    gevent_cbase.uninstall()


def counts(one):
    """The counters that are no seconds."""
    s = stats(one)
    return s.accepted, s.spawn_errors, s.accept_errors, s.full_pauses, s.backoff_pauses


ZEROS = (0, 0, {}, 0, 0)


class Clock:
    """Bounds of the seconds from start() to stop(): neither call took no time."""

    def start(self, function, *args):
        self.earliest = now()
        result = function(*args)
        self.latest = now()
        return result

    def check(self, seconds, before, after):
        """*seconds* were told between the times *before* and *after*."""
        assert before - self.latest <= seconds <= after - self.earliest

    def stop(self, function, *args):
        before = now()
        function(*args)
        self.shortest, self.longest = before - self.latest, now() - self.earliest


# What is counted


def test_zeros_at_first(ours):
    one = server.StreamServer(LOOPBACK, echo)
    assert stats(one)[:7] == (0, 0, {}, 0, 0.0, 0, 0.0)
    assert stats(one).delay == 0.01
    assert [type(value) for value in stats(one)] == [
        int, int, dict, int, float, int, float, float, dict]
    blank = server.StreamServer.__new__(server.StreamServer)  # its constructor never ran
    assert counts(blank) == ZEROS and stats(blank).delay == 0.01


@pytest.mark.parametrize('spawn', ['default', None, 100])
def test_accepted(ours, serve, spawn):
    def handle(sock, address):
        seen.append(stats(one).accepted)
        sock.sendall(b'%d' % len(seen))
    seen = []
    one = serve(server.StreamServer(LOOPBACK, handle, spawn=spawn))
    assert [ask(one, b'') for _ in range(3)] == [b'1', b'2', b'3']
    assert seen == [1, 2, 3]
    assert counts(one) == (3, 0, {}, 0, 0)


def test_every_kind_of_server(ours, serve):
    class Application(pywsgi.WSGIServer):
        pass

    def hello(environ, start_response):
        start_response('200 OK', [])
        return [b'%d' % stats(environ['server']).accepted]
    one = serve(Application(LOOPBACK, hello, log=None, environ={}))
    one.environ['server'] = one
    for number in range(1, 4):
        answer = ask(one, b'GET / HTTP/1.0\r\n\r\n')
        assert answer.startswith(b'HTTP/1.1 200') and answer.endswith(b'%d' % number)
    assert counts(one) == (3, 0, {}, 0, 0)

    datagrams = serve(server.DatagramServer(LOOPBACK, lambda data, address: None))
    with socket.socket(type=socket.SOCK_DGRAM) as client:
        client.sendto(b'x', ('127.0.0.1', datagrams.server_port))
        until(lambda: stats(datagrams).accepted == 1)
    assert counts(one) == (3, 0, {}, 0, 0)


@pytest.mark.parametrize('error, number', [
    (OSError(errno.EMFILE, 'too many'), errno.EMFILE),
    (OSError(errno.ECONNABORTED, 'gone'), errno.ECONNABORTED),
    (OSError(255, 'the highest that is told'), 255),
    (OSError(256, 'too high'), 0), (OSError(-1, 'too low'), 0), (OSError(10 ** 30, 'huge'), 0),
    (OSError('a text'), 0), (OSError('no', 'number'), 0),
    (ValueError(errno.EMFILE, 'no OSError'), 0), (KeyboardInterrupt(), 0)])
def test_accept_errors(ours, error, number):
    one = by_hand(ours, [(1,), error, (2,), error])
    for _ in range(2):
        batch(one)
    assert counts(one) == (2, 0, {number: 2}, 0, 2)
    assert [kind for _, kind, _ in one.loop.errors] == [type(error)] * 2


def test_accept_errors_are_told_apart(ours):
    one = by_hand(ours, [OSError(errno.EMFILE, ''), OSError(errno.ENFILE, ''), ValueError()],
                  min_delay=-1)  # no pauses
    for _ in range(3):
        batch(one)
    assert counts(one) == (0, 0, {0: 1, errno.ENFILE: 1, errno.EMFILE: 1}, 0, 0)


def test_nothing_to_accept_is_no_error(ours):
    one = by_hand(ours, [None, (), [3]])
    for _ in range(3):
        batch(one)
    assert counts(one) == (1, 0, {}, 0, 0)


def test_real_accept_error(ours, serve, errors):
    """The native accept reports it too; the server is closed, as ENOTSOCK is fatal."""
    one = serve(server.StreamServer(LOOPBACK, echo))
    with open(os.devnull) as file:
        os.dup2(file.fileno(), one.socket.fileno())
        one._do_read()
    assert counts(one) == (0, 0, {errno.ENOTSOCK: 1}, 0, 0)
    assert one.closed


def test_spawn_errors(ours):
    def refuse(*args):
        raise ValueError('no')
    one = by_hand(ours, [(1,), (2,), (3,)], spawn=refuse)
    batch(one)
    batch(one)
    assert counts(one) == (2, 2, {}, 0, 2)
    one.set_spawn(None)
    one.set_handle(refuse)
    batch(one)
    assert counts(one) == (3, 3, {}, 0, 3)


def test_spawn_error_of_an_override(ours):
    def do_handle(self, *args):
        raise ValueError('no')
    one = by_hand(ours, [(1,)], do_handle=do_handle)
    batch(one)
    assert counts(one) == (1, 1, {}, 0, 1)


def test_handler_that_fails_in_its_greenlet(ours, serve, errors):
    """It was started all right."""
    def handle(*args):
        raise ValueError('no')
    one = serve(server.StreamServer(LOOPBACK, handle))
    assert ask(one, b'') == b''
    assert counts(one) == (1, 0, {}, 0, 0)
    assert [kind for _, kind, _ in errors] == [ValueError]


# Pauses


def test_full(ours, serve):
    """A pause that is under way grows, one that is over does not; they add up."""
    def handle(sock, address):
        go.wait()
        go.clear()
    go, clock, earlier, bounds = Event(), Clock(), 0, [0, 0]
    one = serve(server.StreamServer(LOOPBACK, handle, spawn=1))
    for number in (1, 2):
        def fill():
            connect(one).close()
            until(lambda: stats(one).full_pauses == number)
        clock.start(fill)
        for _ in range(2):
            gevent.sleep(0.01)
            before = now()
            told = stats(one).full_seconds
            clock.check(told - earlier, before, now())

        def drain():
            go.set()
            until(lambda: one._watcher is not None)
        clock.stop(drain)
        earlier = stats(one).full_seconds
        bounds = [bounds[0] + clock.shortest, bounds[1] + clock.longest]
        assert told < earlier and bounds[0] <= earlier <= bounds[1]
        gevent.sleep(0.01)
        assert stats(one)[:7] == (number, 0, {}, number, earlier, 0, 0.0)


@pytest.mark.parametrize('polled', [False, True])
def test_full_pool_of_another_kind(ours, polled):
    """It is asked again after the time of the back-off, which is no back-off."""
    class Mine(Group):
        _semaphore = Pool(0)._semaphore

        def full(self):
            return is_full
    if polled:
        del Mine._semaphore
    is_full, clock = True, Clock()
    one = by_hand(ours, [(1,)], spawn=Mine())
    clock.start(batch, one)
    before = now()
    clock.check(stats(one).full_seconds, before, now())
    assert counts(one) == (0, 0, {}, 1, 0)
    assert stats(one).delay == (0.02 if polled else 0.01)
    is_full = False
    clock.stop(one._start_accepting_if_started)
    assert clock.shortest <= stats(one).full_seconds <= clock.longest
    batch(one)
    assert counts(one) == (1, 0, {}, 1, 0)


def test_full_without_a_pool(ours):
    one = by_hand(ours, full=lambda self: True)
    batch(one)
    batch(one)
    assert counts(one) == (0, 0, {}, 2, 0)


def test_backoff(ours):
    one, clock = by_hand(ours, [ValueError(), ValueError(), None]), Clock()
    total = [0, 0]
    for number, delay in ((1, 0.02), (2, 0.04)):
        clock.start(batch, one)
        assert counts(one) == (0, 0, {0: number}, 0, number)
        assert stats(one).delay == delay
        clock.stop(one.loop.watcher.callback)  # the timer's
        total = [total[0] + clock.shortest, total[1] + clock.longest]
        assert total[0] <= stats(one).backoff_seconds <= total[1]
    seconds = stats(one).backoff_seconds
    batch(one)
    assert stats(one)[3:8] == (0, 0.0, 2, seconds, 0.01)


def test_backoff_of_a_running_server(ours, serve, errors):
    """The pause lasts as long as the delay, by the clock of the loop."""
    class Server(server.StreamServer):
        min_delay = 0.05

        def do_read(self):
            if not failed:
                failed.append(now())
                raise OSError(errno.EMFILE, 'too many')
            failed.append(now())
            return super().do_read()
    failed = []
    one = serve(Server(LOOPBACK, echo))
    assert ask(one) == b'ping'
    until(lambda: stats(one).accepted == 1)
    s = stats(one)
    assert (s.accept_errors, s.backoff_pauses, s.delay) == ({errno.EMFILE: 1}, 1, 0.05)
    assert 0.03 < s.backoff_seconds <= failed[1] - failed[0]


@pytest.mark.parametrize('end', ['stop_accepting', 'close', 'stop', 'start_accepting'])
def test_what_ends_a_pause(ours, end):
    one, clock = by_hand(ours, [ValueError()]), Clock()
    clock.start(batch, one)
    clock.stop(getattr(one, end))
    seconds = stats(one).backoff_seconds
    assert clock.shortest <= seconds <= clock.longest
    time.sleep(0.001)
    assert stats(one).backoff_seconds == seconds
    assert stats(one).backoff_pauses == 1


def test_accepting_ends_a_pause(ours):
    """Also where start_accepting() and stop_accepting() are the subclass's own."""
    one = by_hand(ours, [ValueError(), (1,)], start_accepting=lambda self: None,
                  stop_accepting=lambda self: None, min_delay=30)
    clock = Clock()
    clock.start(batch, one)
    clock.stop(batch, one)
    seconds = stats(one).backoff_seconds
    assert clock.shortest <= seconds <= clock.longest
    time.sleep(0.001)
    assert stats(one).backoff_seconds == seconds
    assert counts(one) == (1, 0, {0: 1}, 0, 1)


def test_timer_that_does_not_start(ours):
    """One pause, however many attempts it takes to have it end."""
    class Loop(FakeLoop):
        def timer(self, delay):
            if delay == 0.01:
                raise ValueError('no such timer')
            return super().timer(delay)
    one = by_hand(ours, [ValueError()])
    one.loop = Loop(one.log)
    with pytest.raises(ValueError, match='no such timer'):
        batch(one)
    assert one.log[-2:] == [('timer', 1), 'timer.start']
    assert counts(one) == (0, 0, {0: 1}, 0, 1)


# Whose counters


def test_restart_goes_on(ours, serve):
    one = server.StreamServer(LOOPBACK, echo)
    for number in (1, 2):
        serve(one)
        ask(one)
        one.stop()
        assert counts(one) == (number, 0, {}, 0, 0)
        one.set_handle(echo)


def test_instance_is_left_alone(ours):
    """Nothing is added to the server, and its own comparisons are not asked."""
    def refuse(*args):
        raise ValueError('do not')
    one = by_hand(ours, [(1,), (2,)], __eq__=refuse, __hash__=refuse)
    names = set(vars(one))
    batch(one)
    assert counts(one) == (2, 0, {}, 0, 0)
    assert set(vars(one)) == names


def test_servers_that_compare_equal(ours):
    alike = {'__eq__': lambda self, other: True, '__hash__': lambda self: 1}
    one, two = (by_hand(ours, [(1,)] * count, **alike) for count in (1, 2))
    batch(one), batch(two)
    assert (stats(one).accepted, stats(two).accepted) == (1, 2)


@pytest.mark.parametrize('cycle', [False, True])
def test_counters_go_with_their_server(ours, cycle):
    """A new server at the address of an old one starts at zero, and no memory is kept."""
    class Server(gevent_cbase.BaseServer):
        def do_read(self):
            return next(self.steps)

    def use():
        one = Server(LOOPBACK, len, spawn=lambda *args: None)
        assert counts(one) == ZEROS
        one.steps = iter([(1,), None])
        one._do_read()
        assert counts(one) == (1, 0, {}, 0, 0)
        one.myself = one if cycle else None
        return id(one)
    gc.collect()
    addresses = set()
    tracemalloc.start()
    try:
        for number in range(300):
            addresses.add(use())
            if number % 20 == 0:
                gc.collect()
            if number == 100:
                before = tracemalloc.get_traced_memory()[0]
        gc.collect()
        after = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    if os.environ.get('GEVENT_CBASE_TESTS') != 'sanitizers':  # which use none again
        assert len(addresses) < 300  # else nothing was shown
    assert after - before < 100 * 1024


def test_server_that_survives_its_end(ours):
    """Its counters may be gone, but it counts."""
    class Server(gevent_cbase.BaseServer):
        def do_read(self):
            return next(self.steps)

        def __del__(self):
            saved.append(self)
    saved = []
    for cycle in (False, True):
        one = Server(LOOPBACK, len, spawn=lambda *args: None)
        one.steps = iter([(1,), None, (2,), None])
        one.myself = one if cycle else None
        one._do_read()
        assert stats(one).accepted == 1
        del one
        gc.collect()
        survivor = saved.pop()
        before = stats(survivor).accepted
        survivor._do_read()
        assert stats(survivor).accepted == before + 1 and before in (0, 1)
        survivor.myself = None


def test_server_that_counts_at_its_end(ours):
    """Its finalizer runs a batch: what is counted then is kept for nobody, and no server that
    gets its address later has it, nor do install() and uninstall() touch what is gone."""
    class Server(gevent_cbase.BaseServer):
        def do_read(self):
            return self.steps.pop() if self.steps else None

        def __del__(self):
            self._do_read()
    spawned = []
    for _ in range(50):
        one = Server(LOOPBACK, len, spawn=lambda *args: spawned.append(None))
        vars(one).update(steps=[(1,)], myself=one)  # no other object that refers to it is new
        del one
    gc.collect()
    assert len(spawned) == 50
    later = [Server(LOOPBACK, len, spawn=len) for _ in range(100)]
    for one in later:
        one.steps = []
    assert [counts(one) for one in later] == [ZEROS] * 100
    gevent_cbase.uninstall()
    gevent_cbase.install()
    assert [counts(one) for one in later] == [ZEROS] * 100


def test_server_freed_by_its_handler(ours):
    """The loop goes on with its counters until it ends."""
    class Server(gevent_cbase.BaseServer):
        steps = iter([(1,), (2,), None])

        def do_read(self):
            return next(self.steps)
    kept = [Server(LOOPBACK, spawn=None, handle=lambda number: kept.clear())]
    kept[0]._do_read()
    gc.collect()
    assert kept == []


def test_stats_asked_while_an_error_is_reported(ours):
    def handle_error(context, kind, value, tb):
        seen.append(counts(one))
    seen = []
    one = by_hand(ours, [ValueError(), (1,)], handle=lambda self, number: 1 / 0)
    one.loop.handle_error = handle_error
    batch(one)
    batch(one)
    assert seen == [(0, 0, {0: 1}, 0, 0), (1, 1, {0: 1}, 0, 1)]


def test_threads(ours):
    """Each server is served in a thread of its own, by a hub of its own."""
    def serve(count):
        def handle(sock, address):
            if stats(one).accepted == count:
                one.close()
        one = server.StreamServer(LOOPBACK, handle)
        one.start()
        ports.append((one.server_port, count))
        done[count] = one
        one.serve_forever()
        get_hub().destroy(destroy_loop=True)
    ports, done = [], {}
    threads = [threading.Thread(target=serve, args=(count,)) for count in (20, 30)]
    for thread in threads:
        thread.start()
    until(lambda: len(ports) == 2)
    for port, count in ports:
        for _ in range(count):
            native.create_connection(('127.0.0.1', port), timeout=5).close()
    for thread in threads:
        thread.join(20)
    assert {count: counts(one)[:3] for count, one in done.items()} == {
        20: (20, 0, {}), 30: (30, 0, {})}


@pytest.mark.filterwarnings('ignore:.*multi-threaded:DeprecationWarning')  # other tests' threads
def test_fork(ours):
    """The child starts at zero, with a pause that is under way as its first."""
    idle = by_hand(ours, [(1,)])
    one = by_hand(ours, [(1,), ValueError(), (2,)])
    batch(idle), batch(one)
    time.sleep(0.01)
    reading, writing = os.pipe()
    before = now()
    pid = os.fork()
    if pid == 0:
        try:
            told, seconds, idles = counts(one), stats(one).backoff_seconds, counts(idle)
            if seconds <= now() - before:
                batch(one)
                os.write(writing, repr((told, idles, counts(one))).encode())
        finally:
            os._exit(0)
    os.close(writing)
    os.waitpid(pid, 0)
    with open(reading, 'rb') as file:
        assert eval(file.read()) == (  # nosec: our own child's
            (0, 0, {}, 0, 1), ZEROS, (1, 0, {}, 0, 1))
    assert counts(one) == (1, 0, {0: 1}, 0, 1)
    assert stats(one).backoff_seconds >= 0.01


# install()


def test_server_that_exists_already(serve):
    one = serve(server.StreamServer(LOOPBACK, echo))
    assert ask(one) == b'ping'
    with pytest.raises(TypeError) as info:
        stats(one)
    assert str(info.value) == ("this StreamServer runs on gevent's own class, which counts "
                               "nothing: call gevent_cbase.install() first")
    for _ in range(2):
        gevent_cbase.install()
        try:
            assert counts(one) == ZEROS
            assert ask(one) == b'ping'
            assert counts(one) == (1, 0, {}, 0, 0)
        finally:
            gevent_cbase.uninstall()
        with pytest.raises(TypeError, match="gevent's own class"):
            stats(one)


def test_uninstall_in_a_pause():
    """gevent's class ends it, and nobody hears of that."""
    gevent_cbase.install()
    try:
        one = server.StreamServer(LOOPBACK, echo)
        one.loop = FakeLoop([])
        one.start()
        one.do_read = None  # which raises
        one._do_read()
        assert counts(one) == (0, 0, {0: 1}, 0, 1)
        mine = by_hand(gevent_cbase, [(1,)])
        batch(mine)
    finally:
        gevent_cbase.uninstall()
    gevent_cbase.install()
    try:
        assert stats(one)[:7] == (0, 0, {}, 0, 0.0, 0, 0.0)
    finally:
        gevent_cbase.uninstall()
        one.stop()


def test_server_that_stays_on_our_class():
    """Made from our class on purpose: it counts, installed or not."""
    class Server(gevent_cbase.BaseServer):
        steps = iter([(1,), None, (2,), None])

        def do_read(self):
            return next(self.steps)
    one = Server(LOOPBACK, len, spawn=lambda *args: None)
    one._do_read()
    gevent_cbase.install()
    gevent_cbase.uninstall()
    one._do_read()
    assert counts(one) == (2, 0, {}, 0, 0)


@pytest.mark.parametrize('thing, name', [
    (None, 'NoneType'), (3, 'int'), (gevent_cbase.BaseServer, 'type'), (server, 'module')])
def test_what_is_no_server(thing, name):
    with pytest.raises(TypeError) as info:
        stats(thing)
    assert str(info.value) == 'a BaseServer is required, not ' + name


def test_pretenders():
    """What only says that it is a server would be at home nowhere in C."""
    class Pretender:
        __class__ = gevent_cbase.BaseServer
    with pytest.raises(TypeError, match='a BaseServer is required, not .*Pretender'):
        stats(Pretender())


def test_documented():
    assert ServerStats._fields == (
        'accepted', 'spawn_errors', 'accept_errors', 'full_pauses', 'full_seconds',
        'backoff_pauses', 'backoff_seconds', 'delay', 'fast_paths')
    for name in ServerStats._fields:
        assert 'Alias for field' not in getattr(ServerStats, name).__doc__
    assert '.. versionadded:: 1.0' in stats.__doc__


# Which fast paths it takes

NO_READ = 'do_read is not that of gevent.server.StreamServer'
NO_SOCKET = 'there is no listening socket now'
NO_POOL = 'there is no pool'
NO_PLAIN_POOL = 'the pool is not a plain gevent.pool.Pool'
IN_HUB = 'handlers run in the hub'
NO_SPAWN = 'spawn is not one of gevent'
NOT_IN_POOL = 'pools is off'
OWN_WAY = 'its class, or its __dict__, has its own way with attributes'


def taken(one):
    """The fast paths without those that are the same for all servers."""
    found = dict(stats(one).fast_paths)
    assert list(found) == [
        'lookups', 'sockets', 'watchers', 'closing', 'io', 'pools', 'greenlets', 'datastack']
    assert found.pop('datastack') == datastack.why_off()
    assert found.pop('closing') == gevent_cbase._native.sockets.why_closing_off()
    assert found.pop('io') == gevent_cbase._native.sockets.why_io_off()
    sockets, watchers = found['sockets'], found.pop('watchers')
    assert watchers == (sockets or gevent_cbase._native.sockets._watchers_off())
    return found


class Reads(server.StreamServer):
    def do_read(self):
        return super().do_read()


class Closes(server.StreamServer):
    def do_close(self, sock, *args):
        return super().do_close(sock, *args)


class Attributes(server.StreamServer):
    def __getattribute__(self, name):
        return super().__getattribute__(name)


class MyPool(Pool):
    pass


class MyGreenlet(gevent.Greenlet):
    pass


@pytest.mark.fast_path('lookups', 'sockets', 'pools', 'greenlets')
@pytest.mark.parametrize('cls, spawn, lookups, sockets, pools, greenlets', [
    (server.StreamServer, 'default', None, None, NO_POOL, None),
    (server.StreamServer, gevent.spawn_raw, None, None, NO_POOL, None),
    (server.StreamServer, MyGreenlet.spawn, None, None, NO_POOL, NO_SPAWN),
    (pywsgi.WSGIServer, 'default', None, None, NO_POOL, None),
    (server.StreamServer, 5, None, None, None, None),
    (server.StreamServer, Pool(5, MyGreenlet), None, None, None, NO_SPAWN),
    (server.StreamServer, MyPool(5), None, None, NO_PLAIN_POOL, NOT_IN_POOL),
    (server.StreamServer, Group(), None, None, NO_PLAIN_POOL, NOT_IN_POOL),
    (server.DatagramServer, 'default', None, NO_READ, NO_POOL, None),
    (Reads, 5, None, NO_READ, None, None),
    (Closes, None, None,
     'do_close is not that of gevent.server.StreamServer: only accepting is native', NO_POOL,
     IN_HUB),
    (Attributes, 5, OWN_WAY, OWN_WAY, OWN_WAY, None),
])
def test_fast_paths(ours, serve, cls, spawn, lookups, sockets, pools, greenlets):
    one = cls(LOOPBACK, echo, spawn=spawn)
    if cls is server.StreamServer:
        assert taken(one) == {
            'lookups': None, 'sockets': NO_SOCKET, 'pools': pools, 'greenlets': greenlets}
    serve(one)
    expected = {
        'lookups': lookups, 'sockets': sockets, 'pools': pools, 'greenlets': greenlets}
    assert taken(one) == expected
    assert taken(one) == expected
    assert counts(one) == ZEROS


@pytest.mark.fast_path('lookups', 'sockets', 'pools', 'greenlets')
def test_fast_paths_change(ours, serve, monkeypatch):
    """With the server, its class, and gevent."""
    one = serve(server.StreamServer(LOOPBACK, echo, spawn=5))
    everything = {'lookups': None, 'sockets': None, 'pools': None, 'greenlets': None}
    assert taken(one) == everything
    one.do_read = one.do_read
    assert taken(one)['sockets'] == NO_READ
    del one.do_read
    assert taken(one) == everything
    one.pool.add = one.pool.add
    assert (taken(one)['pools'], taken(one)['greenlets']) == (NO_PLAIN_POOL, NOT_IN_POOL)
    del one.pool.add
    one.socket.setblocking(True)
    assert taken(one)['sockets'] == (
        'the listening socket is not one of gevent, or blocks, or is of an unknown family')
    one.socket.setblocking(False)
    assert taken(one) == everything
    with monkeypatch.context() as patch:
        patch.setattr(socket.socket, 'close', lambda self: None)
        assert taken(one)['sockets'] == 'gevent has another socket.close'
    with monkeypatch.context() as patch:
        patch.setattr(socket.socket.__init__, '__defaults__', (2, 1, 0, None))
        for _ in range(2):  # asking why is no way to have it on again
            assert taken(one)['sockets'] == 'gevent has other defaults of socket.__init__'
    with monkeypatch.context() as patch:
        patch.setattr(Pool, 'full', lambda self: False)
        assert taken(serve(server.StreamServer(LOOPBACK, echo, spawn=5)))['pools'] == (
            'gevent has another Pool.full')
    assert taken(one) == everything


@pytest.mark.fast_path
@pytest.mark.parametrize('cls', [server.StreamServer, server.DatagramServer, Attributes, Closes])
def test_asking_changes_nothing(ours, serve, cls):
    """Asked again and again, as a collector of metrics does: nothing is compared or made anew."""
    one = serve(cls(LOOPBACK, echo, spawn=5))
    stats(one)
    gc.collect()
    before = sys.getallocatedblocks()
    for _ in range(500):
        stats(one)
    gc.collect()
    assert sys.getallocatedblocks() - before < 50


def test_fast_paths_switched_off():
    code = '''if 1:
        import gevent_cbase
        gevent_cbase.install()
        from gevent.server import StreamServer
        server = StreamServer(('127.0.0.1', 0), print, spawn=5)
        server.start()
        print(gevent_cbase.stats(server).fast_paths)
    '''
    done = subprocess.run(
        [sys.executable, '-c', code], env=child_environ(GEVENT_CBASE_WITHOUT='all'),
        text=True, capture_output=True, timeout=60)
    assert done.stderr == ''
    reasons = eval(done.stdout)
    off = 'GEVENT_CBASE_WITHOUT switches it off'
    del reasons['datastack']  # which CPython 3.10 has not
    assert set(reasons) == {
        'lookups', 'sockets', 'watchers', 'closing', 'io', 'pools', 'greenlets'}
    assert set(reasons.values()) <= {
        off, 'not built on this platform', 'not with this version of CPython'}


@pytest.mark.parametrize('name, off', [
    ('lookups', ['lookups', 'sockets', 'watchers', 'pools']),
    ('sockets', ['sockets', 'watchers', 'closing', 'io']), ('io', ['io']),
    ('watchers', ['watchers']), ('closing', ['closing']), ('pools', ['pools']),
    ('greenlets', []), ('datastack', [])])
def test_one_fast_path_switched_off(name, off):
    """``--info`` says the same of those that a server takes: some need others."""
    code = '''if 1:
        import gevent_cbase
        gevent_cbase.install()
        from gevent_cbase import _info
        from gevent.server import StreamServer
        server = StreamServer(('127.0.0.1', 0), print, spawn=5)
        server.start()
        print([dict(_info.fast_paths()), gevent_cbase.stats(server).fast_paths])
    '''
    done = subprocess.run(
        [sys.executable, '-c', code], env=child_environ(GEVENT_CBASE_WITHOUT=name),
        text=True, capture_output=True, timeout=60)
    assert done.stderr == ''
    info, taken = eval(done.stdout)
    assert info[name] is not None and taken[name] is not None
    assert [one for one in off if info[one] is None or taken[one] is None] == []
    for one in ('lookups', 'sockets', 'watchers', 'closing', 'io', 'pools'):
        assert (info[one] is None) == (taken[one] is None), one


@pytest.mark.fast_path('greenlets')
@pytest.mark.parametrize('name, reason, in_python', [
    ('pools', NOT_IN_POOL, True), ('lookups', None, False), ('watchers', None, False),
    ('greenlets', 'GEVENT_CBASE_WITHOUT switches it off', False)])
def test_greenlets_of_a_pool(name, reason, in_python):
    """Made in C where the pool spawns in C, which needs no look-ups."""
    code = '''if 1:
        import sys
        import gevent_cbase
        gevent_cbase.install()
        from gevent.pool import Pool
        from gevent.server import StreamServer
        server = StreamServer(('127.0.0.1', 0), print, spawn=5)
        server.start()
        called = []
        sys.setprofile(lambda frame, event, arg: event == 'call' and called.append(frame.f_code))
        server.do_handle()
        sys.setprofile(None)
        print([gevent_cbase.stats(server).fast_paths['greenlets'],
               Pool.spawn.__code__ in called])
    '''
    done = subprocess.run(
        [sys.executable, '-c', code], env=child_environ(GEVENT_CBASE_WITHOUT=name),
        text=True, capture_output=True, timeout=60)
    assert (done.stderr, eval(done.stdout)) == ('', [reason, in_python])
