"""start, stop and everything between: order of calls, errors at each step, what is left."""
import errno
import gc
import socket as native
import subprocess
import sys
import threading
import weakref

import gevent
import pytest
from gevent import get_hub, socket
from gevent.event import Event
from gevent.exceptions import BlockingSwitchOutError
from gevent.pool import Pool
from helpers import (
    LOOPBACK, ask, child_environ, connect, connect_natively, descriptors, descriptors_at_rest,
    echo, handler, listener, outcome, python, read_all, spying, until)

#: attributes that close() leaves alone
KEPT = {'_stop_event', '_watcher', '_timer', 'pool', 'family', 'address', 'delay', 'loop'}

#: attributes that come from set_spawn and set_handle, dropped by close()
GIVEN = {'handle', '_handle', '_spawn', 'full'}

#: what re-entering close() makes of the watcher
MISSING = "'NoneType' object has no attribute 'close'"

#: gevent itself does not close the socket that it could not bind
BUSY = pytest.mark.filterwarnings('ignore:unclosed <socket:ResourceWarning')


class Fake:
    """Notes each call as ('name.method', arguments…) in *log*; false, though not None.

    The methods are those in *results*: an exception is raised, a function is called, anything
    else is returned.
    """

    def __init__(self, log, name, true=False, **results):
        self.log, self.name, self.true, self.results = log, name, true, results

    def __getattr__(self, method):
        if method not in self.results:
            raise AttributeError(method)

        def call(*args, **kwargs):
            self.log.append(('%s.%s' % (self.name, method),) + args + tuple(kwargs.items()))
            result = self.results[method]
            if isinstance(result, BaseException):
                raise result
            return result() if callable(result) else result
        return call

    def __bool__(self):
        return self.true


class Stage:
    """A BaseServer among fakes that all write to one log; *outcomes* as ``socket_close=x``."""

    def __init__(self, cls, pool_true=False, **outcomes):
        self.log = []
        self.outcomes = outcomes
        self.io = self.fake('io', 'start', 'stop', 'close')
        self.timer = self.fake('timer', 'start', 'stop', 'close')
        pool = self.fake('pool', 'spawn', 'full', 'join', 'kill')
        pool.true = pool_true
        pool._semaphore = self.fake('semaphore', 'rawlink', 'unlink')
        self.server = server = cls(('host', 1), handler, pool)
        self.link = server._start_accepting_if_started
        self.outcomes = {'socket_fileno': 7, 'loop_io': lambda: self.io,
                         'loop_timer': lambda: self.timer, **outcomes}
        server._stop_event = self.fake('event', 'set', 'clear', 'is_set', 'wait')
        server.loop = self.fake('loop', 'io', 'timer')
        self.socket = server.socket = self.fake('socket', 'fileno', 'close')
        del self.log[:]

    def fake(self, name, *methods):
        return Fake(self.log, name, **{
            method: self.outcomes.get('%s_%s' % (name, method)) for method in methods})

    def accepting(self):
        """As if started, with a pause timer as well."""
        self.server._watcher, self.server._timer = self.io, self.timer
        return self

    def __call__(self, method, *args, **kwargs):
        """Call *method* of the server; what it returned or raised, and the log."""
        del self.log[:]
        try:
            result = getattr(self.server, method)(*args, **kwargs)
        except BaseException as ex:
            result = ex
        return result, list(self.log)


# Accepting on and off


def test_start_accepting(impl):
    """loop.io(descriptor, 1), then start with the server's _do_read; once only."""
    stage = Stage(impl.BaseServer)
    server = stage.server
    assert stage('start_accepting') == (None, [
        ('socket.fileno',), ('loop.io', 7, 1), ('io.start', server._do_read)])
    assert server._watcher is stage.io and server._timer is None
    assert stage('start_accepting') == (None, [])


def test_start_accepting_takes_do_read_as_it_is(impl):
    """An override on the instance or in a subclass is what the watcher gets."""
    class Mine(impl.BaseServer):
        def _do_read(self):
            raise NotImplementedError
    stage = Stage(Mine)
    assert stage('start_accepting')[1][-1] == ('io.start', stage.server._do_read)
    stage = Stage(impl.BaseServer)
    stage.server._do_read = handler
    assert stage('start_accepting')[1][-1] == ('io.start', handler)


@pytest.mark.parametrize('where, calls, watched', [
    ('socket_fileno', 1, False), ('loop_io', 2, False), ('io_start', 3, True)])
def test_start_accepting_fails(impl, where, calls, watched):
    """The error gets out; a watcher that was made already stays in ``_watcher``."""
    error = LookupError(where)
    stage = Stage(impl.BaseServer, **{where: error})
    result, log = stage('start_accepting')
    assert result is error and len(log) == calls
    assert stage.server._watcher is (stage.io if watched else None)


def test_start_accepting_without_socket(impl):
    """AttributeError, and no watcher."""
    server = impl.BaseServer(1, handler)
    with pytest.raises(AttributeError) as info:
        server.start_accepting()
    assert str(info.value) == "'BaseServer' object has no attribute 'socket'"
    assert server._watcher is None


def test_stop_accepting(impl):
    """Stops, closes and forgets the watcher, then the timer of a pause."""
    stage = Stage(impl.BaseServer).accepting()
    assert stage('stop_accepting') == (None, [
        ('io.stop',), ('io.close',), ('timer.stop',), ('timer.close',)])
    assert stage.server._watcher is None and stage.server._timer is None
    assert stage('stop_accepting') == (None, [])
    stage.server._timer = stage.timer
    assert stage('stop_accepting') == (None, [('timer.stop',), ('timer.close',)])


@pytest.mark.parametrize('where, calls', [
    ('io_stop', 1), ('io_close', 2), ('timer_stop', 3), ('timer_close', 4)])
def test_stop_accepting_fails(impl, where, calls):
    """Nothing after the failing call is done: what failed is still there."""
    error = LookupError(where)
    stage = Stage(impl.BaseServer, **{where: error}).accepting()
    result, log = stage('stop_accepting')
    assert result is error and len(log) == calls
    assert stage.server._watcher is (stage.io if calls <= 2 else None)
    assert stage.server._timer is stage.timer


def test_start_accepting_if_started(impl):
    """Calls start_accepting() only while the server is started; takes an argument or none."""
    log = []
    server = spying(impl.BaseServer, log, 'start_accepting')(listener(), handler)
    for args in ((), (None,), ('event',)):
        assert server._start_accepting_if_started(*args) is None
    assert log == []
    server._stop_event.clear()
    assert server._start_accepting_if_started(_event=1) is None
    assert log == ['start_accepting'] and server._watcher is not None
    server.start_accepting = lambda: log.append('on the instance')
    server._start_accepting_if_started()
    assert log[1:] == ['on the instance']
    server.close()


def test_started_of_a_subclass_decides(impl):
    """``started`` is read as an attribute, so a subclass may have its own."""
    log = []

    class Mine(impl.BaseServer):
        started = []

        def start_accepting(self):
            log.append('go')
    server = Mine(1, handler)
    server._start_accepting_if_started()
    assert log == []
    server.started = 'yes'
    server._start_accepting_if_started()
    assert log == ['go']


def test_pause_and_resume(impl, serve):
    """While accepting is off clients wait in the backlog; the port stays open."""
    server = serve(impl.StreamServer(LOOPBACK, echo))
    assert ask(server) == b'ping'
    watcher = server._watcher
    server.stop_accepting()
    server.stop_accepting()
    assert server._watcher is None and server.started and not server.closed
    answer = gevent.spawn(ask, server)
    gevent.sleep(0.03)
    assert not answer.dead
    server.start_accepting()
    assert server._watcher is not watcher
    assert answer.get() == b'ping'


def test_stop_accepting_cancels_the_pause_after_an_error(impl, serve, errors):
    """Neither watcher nor timer is left, and nothing resumes by itself."""
    class Flaky(impl.StreamServer):
        min_delay = 0.01

        def do_read(self):
            if not errors:
                raise OSError(errno.EMFILE, 'Too many open files')
            return super().do_read()
    server = serve(Flaky(LOOPBACK, echo))
    answer = gevent.spawn(ask, server)
    until(lambda: errors)
    assert server._watcher is None and server._timer is not None and server.started
    server.stop_accepting()
    assert server._timer is None
    gevent.sleep(0.05)
    assert server._watcher is None and not answer.dead
    server.start_accepting()
    assert answer.get() == b'ping'


# start


def test_init_socket(impl):
    """The base class's does nothing."""
    server = impl.BaseServer(1, handler)
    before = dict(vars(server))
    assert server.init_socket() is None
    assert vars(server) == before


def test_start(impl):
    """init_socket(), the event cleared, start_accepting()."""
    class Mine(impl.BaseServer):
        def init_socket(self, *args):
            log.append(('init_socket',) + args)

        def start_accepting(self, *args):
            log.append(('start_accepting',) + args)
    stage = Stage(Mine)
    log = stage.log
    assert stage('start') == (None, [('init_socket',), ('event.clear',), ('start_accepting',)])
    stage = Stage(impl.BaseServer)
    assert stage('start') == (None, [
        ('event.clear',), ('socket.fileno',), ('loop.io', 7, 1),
        ('io.start', stage.server._do_read)])


def test_start_uses_hooks_of_the_instance(impl):
    """Hooks assigned to the instance count."""
    log = []
    server = impl.BaseServer(1, handler)
    server.init_socket = lambda: log.append(server.started)
    server.start_accepting = lambda: log.append(server.started)
    assert server.start() is None
    assert log == [False, True]


def test_start_twice(impl, serve):
    """The second time changes nothing."""
    server = serve(impl.StreamServer(LOOPBACK, echo))
    before = dict(vars(server))
    assert server.start() is None
    assert vars(server) == before and ask(server) == b'ping'


def test_init_socket_in_advance(impl):
    """As for a prefork server: bound and listening, not started; start() binds no more."""
    server = impl.StreamServer(LOOPBACK, echo)
    server.init_socket()
    sock, port = server.socket, server.server_port
    assert port > 0 and not server.started and not server.closed
    client = connect_natively(server)
    server.init_socket()
    server.start()
    assert server.socket is sock and server.server_port == port
    client.sendall(b'early')
    assert ask(server) == b'ping' and client.recv(9) == b'early'
    client.close()
    server.stop()


def test_accepting_without_being_started(impl):
    """init_socket() and start_accepting() alone are enough to serve."""
    server = impl.StreamServer(LOOPBACK, echo)
    server.init_socket()
    server.start_accepting()
    assert server.started is False and ask(server) == b'ping'
    server.close()
    assert server.closed and server._watcher is None


@BUSY
def test_address_in_use_and_again(impl):
    """start() fails while somebody else listens on the port, and may be tried again."""
    other = listener()
    server = impl.StreamServer(other.getsockname(), echo, spawn=Pool(1))
    before, attributes = descriptors_at_rest(), dict(vars(server))
    for _ in range(2):
        error = outcome(server.start)
        assert error.errno == errno.EADDRINUSE
        assert error.strerror.endswith(': %r' % (other.getsockname(),))
        del error
        assert server.closed and not server.started
        assert vars(server) == attributes and descriptors() == before
    other.close()
    server.start()
    assert server.started and ask(server) == b'ping'
    server.stop()


@pytest.mark.parametrize('where, calls', [
    ('socket_fileno', 2), ('loop_io', 3), ('io_start', 4)])
@pytest.mark.parametrize('kind', [LookupError, KeyboardInterrupt, gevent.GreenletExit])
def test_start_fails_to_accept(impl, where, calls, kind):
    """Any exception of start_accepting() closes the server and gets out.

    Better than gevent: handler and spawn function are kept, so that start() can be tried again.
    """
    error = kind(where)
    stage = Stage(impl.BaseServer, **{where: error})
    server = stage.server
    before = {name: vars(server)[name] for name in GIVEN}
    result, log = stage('start')
    assert result is error and error.__context__ is None
    watcher = [('io.stop',), ('io.close',)] if where == 'io_start' else []
    assert log[calls:] == [('event.set',)] + watcher + [
        ('socket.close',), ('semaphore.unlink', stage.link)]
    assert server._watcher is None and server.closed
    if impl.stock:
        assert vars(server).keys() == KEPT
    else:
        assert vars(server).keys() == KEPT | GIVEN
        assert {name: vars(server)[name] for name in GIVEN} == before


@pytest.mark.stock_bug
def test_start_again_after_failing_to_accept(impl):
    """Better than gevent: the second start() serves, and the pool still limits; gevent has
    lost the handler and leaves a bound socket behind."""
    class Mine(impl.StreamServer):
        failures = 2

        def start_accepting(self):
            self.failures -= 1
            if self.failures >= 0:
                raise LookupError('no loop')
            super().start_accepting()
    running, gate = [], Event()

    def handle(sock, address):
        running.append(address)
        gate.wait()
    before = descriptors_at_rest()
    server = Mine(LOOPBACK, handle, spawn=1)
    with pytest.raises(LookupError):
        server.start()
    assert server.closed and not server.started and descriptors() == before
    if impl.stock:
        with pytest.raises(AttributeError, match="no attribute 'handle'"):
            server.start()
        assert not server.closed and descriptors() == before + 1
        server.close()
        return
    with pytest.raises(LookupError):
        server.start()
    assert server.closed and descriptors() == before
    server.start()
    clients = [connect(server) for _ in range(2)]
    until(lambda: running)
    gevent.sleep(0.03)
    assert len(running) == len(server.pool) == 1
    gate.set()
    until(lambda: len(running) == 2)
    server.stop()
    for client in clients:
        client.close()


@pytest.mark.stock_bug
@pytest.mark.parametrize('kind', [LookupError, KeyboardInterrupt])
def test_start_fails_after_binding(impl, kind):
    """Better than gevent: if init_socket() fails when the socket is bound already, the socket
    is closed; gevent leaves it open. Either way start() may be tried again."""
    error = kind('late')

    class Late(impl.StreamServer):
        fail = True

        def init_socket(self):
            super().init_socket()
            if self.fail:
                raise error
    server, before = Late(LOOPBACK, echo, spawn=2), descriptors_at_rest()
    given = {name: vars(server)[name] for name in GIVEN}
    with pytest.raises(kind) as info:
        server.start()
    assert info.value is error and error.__context__ is None
    assert not server.started and server._watcher is None
    assert server.closed is (not impl.stock)
    assert descriptors() == before + impl.stock
    assert {name: vars(server)[name] for name in GIVEN} == given
    server.fail = False
    server.start()
    assert ask(server) == b'ping' and len(vars(server).keys() & GIVEN) == 4
    server.stop()
    assert descriptors() == before


@pytest.mark.stock_bug
def test_start_fails_to_clear_the_event(impl):
    """Better than gevent: nor does an error between init_socket() and start_accepting() leave
    a fresh socket bound."""
    class Broken(Event):
        def clear(self):
            raise LookupError('clear')
    server, before = impl.StreamServer(LOOPBACK, echo), descriptors_at_rest()
    server._stop_event = Broken()
    server._stop_event.set()
    with pytest.raises(LookupError, match='clear'):
        server.start()
    left = server.closed, descriptors() - before, server.handle
    server.close()
    assert left == ((False, 1, echo) if impl.stock else (True, 0, echo))
    assert descriptors() == before


def test_start_keeps_a_listener_of_the_caller(impl):
    """A socket that was there before start() stays open when init_socket() fails: only what
    start() itself has opened is its business."""
    class Late(impl.StreamServer):
        def init_socket(self):
            raise LookupError('late')
    sock = listener()
    server = Late(sock, echo)
    with pytest.raises(LookupError, match='late'):
        server.start()
    assert server.socket is sock and sock.fileno() >= 0 and not server.closed
    server.close()
    assert sock.fileno() == -1


@pytest.mark.stock_bug
def test_start_without_the_handler_that_close_dropped(impl):
    """A handler given to the constructor is gone after close(), so start() fails.

    Better than gevent: the socket that it has just bound is closed.
    """
    server = impl.StreamServer(LOOPBACK, echo)
    server.stop()
    before = descriptors_at_rest()
    with pytest.raises(AttributeError) as info:
        server.start()
    assert str(info.value) == "'StreamServer' object has no attribute 'handle'"
    assert server.closed is (not impl.stock) and not server.started
    assert descriptors() == before + impl.stock
    server.close()
    server.set_handle(echo)
    server.start()
    assert ask(server) == b'ping'
    server.stop()


def test_start_fails_and_so_does_close(impl):
    """The error of close() gets out, with the first as its context."""
    first, second = LookupError('first'), LookupError('second')

    class Mine(impl.BaseServer):
        def start_accepting(self):
            raise first

        def close(self):
            seen.append(sys.exc_info()[1])
            raise second
    seen = []
    server = Mine(1, handler)
    assert outcome(server.start) is second
    assert second.__context__ is first and first.__context__ is None and seen == [first]


def test_start_closes_by_the_overridden_method(impl):
    """close() of a subclass or of the instance is called, without arguments."""
    log = []
    server = impl.BaseServer(1, handler)
    server.close = lambda *args: log.append(args)
    with pytest.raises(AttributeError, match="no attribute 'socket'"):
        server.start()
    assert log == [()] and server.started is True
    assert vars(server).keys() == KEPT | (GIVEN - {'full'}) | {'close'}


# close


def test_close(impl):
    """The event, the watcher, the timer, the socket, and last the pool."""
    stage = Stage(impl.BaseServer).accepting()
    assert vars(stage.server).keys() == KEPT | GIVEN | {'socket'}
    assert stage('close') == (None, [
        ('event.set',), ('io.stop',), ('io.close',), ('timer.stop',), ('timer.close',),
        ('socket.close',), ('semaphore.unlink', stage.link)])
    assert vars(stage.server).keys() == KEPT
    assert stage.server._watcher is stage.server._timer is None
    assert stage('close') == (None, [('event.set',), ('semaphore.unlink', stage.link)])


def test_close_uses_stop_accepting_of_a_subclass(impl):
    """The hook is called when the event is set but all else is still there."""
    class Mine(impl.BaseServer):
        def stop_accepting(self, *args):
            log.append((args, vars(self).keys() == KEPT | GIVEN | {'socket'}))
    stage = Stage(Mine)
    log = stage.log
    assert stage('close')[1] == [
        ('event.set',), ((), True), ('socket.close',), ('semaphore.unlink', stage.link)]


def test_what_is_there_while_closing(impl):
    """The socket is closed while it is still an attribute, the pool left when all is gone."""
    seen = []
    stage = Stage(impl.BaseServer,
                  socket_close=lambda: seen.append(set(vars(stage.server))),
                  semaphore_unlink=lambda: seen.append(set(vars(stage.server))))
    assert stage('close')[0] is None
    assert seen == [KEPT | GIVEN | {'socket'}, KEPT]


@pytest.mark.parametrize('where, calls, rest', [
    ('event_set', 1, False), ('io_stop', 2, True), ('io_close', 3, True),
    ('timer_stop', 4, True), ('timer_close', 5, True), ('semaphore_unlink', 7, False)])
@pytest.mark.parametrize('kind', [LookupError, KeyboardInterrupt])
def test_close_fails(impl, where, calls, rest, kind):
    """If the event cannot be set nothing is done; any later error gets out when all that
    comes after is done all the same."""
    error = kind(where)
    stage = Stage(impl.BaseServer, **{where: error}).accepting()
    result, log = stage('close')
    assert result is error and error.__context__ is None
    assert log[calls - 1] == (where.replace('_', '.'),) + log[calls - 1][1:]
    assert log[calls:] == (
        [('socket.close',), ('semaphore.unlink', stage.link)] if rest else [])
    left = KEPT | GIVEN | {'socket'} if where == 'event_set' else KEPT
    assert vars(stage.server).keys() == left


def test_error_of_the_sockets_close(impl):
    """An Exception there is dropped; what is no Exception gets out, all else done."""
    for error in (OSError(errno.EBADF, 'x'), AttributeError('fileno')):
        stage = Stage(impl.BaseServer, socket_close=error)
        assert stage('close') == (None, [
            ('event.set',), ('socket.close',), ('semaphore.unlink', stage.link)])
        assert vars(stage.server).keys() == KEPT
    for error in (KeyboardInterrupt(), gevent.GreenletExit()):
        stage = Stage(impl.BaseServer, socket_close=error)
        result, log = stage('close')
        assert result is error and error.__context__ is None
        assert log[1:] == [('socket.close',), ('semaphore.unlink', stage.link)]
        assert vars(stage.server).keys() == KEPT


def test_several_errors_while_closing(impl):
    """Each error has for its context the one that was on its way."""
    first, grave, last = LookupError('first'), KeyboardInterrupt(), LookupError('last')
    stage = Stage(impl.BaseServer, io_stop=first, socket_close=grave,
                  semaphore_unlink=last).accepting()
    assert stage('close')[0] is last
    assert last.__context__ is grave and grave.__context__ is first
    assert first.__context__ is None


def test_dropped_error_while_closing(impl):
    """The socket's error is dropped but had the first as its context; the first is raised, or
    the pool's, which knows nothing of the dropped one."""
    first, dropped, last = LookupError('first'), LookupError('dropped'), LookupError('last')
    stage = Stage(impl.BaseServer, io_stop=first, socket_close=dropped).accepting()
    assert stage('close')[0] is first
    assert dropped.__context__ is first and first.__context__ is None
    first.__context__ = dropped.__context__ = None
    stage = Stage(impl.BaseServer, io_stop=first, socket_close=dropped,
                  semaphore_unlink=last).accepting()
    assert stage('close')[0] is last and last.__context__ is first
    first.__context__ = last.__context__ = dropped.__context__ = None
    stage = Stage(impl.BaseServer, socket_close=dropped, semaphore_unlink=last)
    assert stage('close')[0] is last and last.__context__ is None


def test_exception_seen_while_closing(impl):
    """During the clean-up after an error, that error is the one being handled."""
    seen = []

    def look():
        seen.append(sys.exc_info()[1])
    first = LookupError('first')
    stage = Stage(impl.BaseServer, io_stop=first, socket_close=look,
                  semaphore_unlink=look).accepting()
    assert stage('close')[0] is first and seen == [first, first]
    del seen[:]
    stage = Stage(impl.BaseServer, socket_close=look, semaphore_unlink=look).accepting()
    assert stage('close')[0] is None and seen == [None, None]


def test_close_again_while_the_watcher_is_being_stopped(impl):
    """Stopping the watcher closes the server: the outer close() finds no watcher any more and
    says so, when all is done."""
    def again():
        if len(stage.log) == 2:
            inner.append(outcome(stage.server.close))
    inner = []
    stage = Stage(impl.BaseServer, io_stop=again).accepting()
    result, log = stage('close')
    assert inner == [None]
    assert type(result) is AttributeError
    assert str(result) == MISSING
    closing = [('event.set',), ('io.stop',)]
    assert log == closing + closing + [
        ('io.close',), ('timer.stop',), ('timer.close',), ('socket.close',),
        ('semaphore.unlink', stage.link), ('semaphore.unlink', stage.link)]
    assert vars(stage.server).keys() == KEPT and stage.server._watcher is None


@pytest.mark.parametrize('where, message, closings', [
    ('event_set', 'None', 1), ('io_close', 'None', 1), ('timer_stop', MISSING, 1),
    ('timer_close', 'None', 1), ('socket_close', 'None', 2), ('semaphore_unlink', 'None', 1)])
def test_close_again_from_inside(impl, where, message, closings):
    """Wherever close() is called again from, the server ends up closed."""
    def again():
        if not inner:
            inner.append(None)
            inner[0] = outcome(stage.server.close)
    inner = []
    stage = Stage(impl.BaseServer, **{where: again}).accepting()
    result = stage('close')[0]
    assert inner == [None] and str(result) == message
    assert vars(stage.server).keys() == KEPT
    assert stage.server._watcher is stage.server._timer is None
    assert stage.log.count(('socket.close',)) == closings


def test_close_before_anything_else(impl):
    """A server that never started closes without a word, twice."""
    sock = listener()
    server = impl.StreamServer(sock, echo)
    assert server.close() is None and server.close() is None
    assert sock.fileno() == -1 and server.closed


def test_close_leaves_handlers_alone(impl):
    """Handlers go on, in a pool too."""
    gate, running = Event(), []

    def handle(sock, address):
        running.append(address)
        gate.wait()
        echo(sock, address)
    for spawn in ('default', 3):
        gate.clear()
        del running[:]
        server = impl.StreamServer(LOOPBACK, handle, spawn=spawn)
        server.start()
        answer = gevent.spawn(ask, server)
        until(lambda: running)
        server.close()
        assert not answer.dead
        gate.set()
        assert answer.get() == b'ping'


# stop


def test_stop(impl):
    """close(), then the pool is joined and killed."""
    stage = Stage(impl.BaseServer, pool_true=True).accepting()
    closing = [('event.set',), ('io.stop',), ('io.close',), ('timer.stop',), ('timer.close',),
               ('socket.close',), ('semaphore.unlink', stage.link)]
    assert stage('stop') == (None, closing + [
        ('pool.join', ('timeout', 1)), ('pool.kill', ('block', True), ('timeout', 1))])


@pytest.mark.parametrize('args, kwargs, timeout', [
    ((), {}, 1), ((None,), {}, 1), ((5,), {}, 5), ((), {'timeout': 0.5}, 0.5), ((0,), {}, 0),
    ((), {'timeout': False}, False), ((-1,), {}, -1), (('x',), {}, 'x')], ids=repr)
def test_timeout_of_stop(impl, args, kwargs, timeout):
    """None means stop_timeout; anything else is passed to join() unchecked."""
    stage = Stage(impl.BaseServer, pool_true=True)
    assert stage('stop', *args, **kwargs)[1][-2:] == [
        ('pool.join', ('timeout', timeout)), ('pool.kill', ('block', True), ('timeout', 1))]
    stage.server.stop_timeout = 7
    joined = ('pool.join', ('timeout', 7 if timeout == 1 else timeout))
    assert stage('stop', *args, **kwargs)[1][-2] == joined


def test_stop_reads_the_default_after_closing(impl):
    """stop_timeout is read only if needed, but then even without a pool."""
    class Mine(impl.BaseServer):
        @property
        def stop_timeout(self):
            raise LookupError(str(self.closed))
    server = Mine(listener(), handler)
    with pytest.raises(LookupError, match='True'):
        server.stop()
    assert server.stop(3) is None


def test_stop_with_an_idle_pool(impl):
    """An empty pool is false, so it is not waited for; nor is None."""
    stage = Stage(impl.BaseServer)
    assert stage('stop')[1][-1] == ('semaphore.unlink', stage.link)
    stage.server.pool = None
    assert stage('stop')[1] == [('event.set',)]


def test_stop_uses_the_pool_that_is_there_after_closing(impl):
    """A subclass may exchange the pool in close()."""
    class Mine(impl.BaseServer):
        def close(self):
            log.append(('close',))
            self.pool = Fake(log, 'other', True, join=None, kill=None)
    stage = Stage(Mine, pool_true=True)
    log = stage.log
    assert stage('stop') == (None, [
        ('close',), ('other.join', ('timeout', 1)),
        ('other.kill', ('block', True), ('timeout', 1))])


def test_stop_fails(impl):
    """An error of close() means that the pool is not touched, one of join() that it is not
    killed; none is hidden."""
    for where, last in (('io_stop', 'semaphore.unlink'), ('pool_join', 'pool.join'),
                        ('pool_kill', 'pool.kill')):
        error = LookupError(where)
        stage = Stage(impl.BaseServer, pool_true=True, **{where: error}).accepting()
        result, log = stage('stop')
        assert result is error and error.__context__ is None
        assert log[-1][0] == last
        assert vars(stage.server).keys() == KEPT


def test_stop_with_a_pool_whose_truth_is_unknown(impl):
    """The error of bool(pool) gets out, after closing."""
    class Odd(Fake):
        def __bool__(self):
            raise LookupError('bool')
    stage = Stage(impl.BaseServer)
    stage.server.pool = Odd(stage.log, 'odd')
    stage.server.pool._semaphore = Fake(stage.log, 'semaphore', unlink=None)
    result, log = stage('stop')
    assert str(result) == 'bool' and log[-1][0] == 'semaphore.unlink'


def test_stop_waits_for_handlers_in_the_pool(impl):
    """They may finish before the timeout; new clients are refused meanwhile."""
    gate, trace = Event(), []

    def handle(sock, address):
        gate.wait()
        echo(sock, address)
        trace.append('finished')
    server = impl.StreamServer(LOOPBACK, handle, spawn=Pool(2))
    server.start()
    answer = gevent.spawn(ask, server)
    until(lambda: len(server.pool) == 1)
    stopping = gevent.spawn(server.stop, 60)
    until(lambda: server.closed)
    with pytest.raises(ConnectionRefusedError):
        connect(server)
    assert not stopping.dead and not trace
    gate.set()
    stopping.get()
    assert trace == ['finished'] and answer.get() == b'ping' and len(server.pool) == 0


@pytest.mark.parametrize('stop', [
    lambda server: server.stop(0), lambda server: server.stop(timeout=0.01),
    lambda server: server.__exit__()], ids=['at once', 'soon', 'by default'])
def test_stop_kills_handlers_when_the_time_is_over(impl, stop):
    """Those still in the pool get GreenletExit, and their sockets are closed."""
    trace = []

    def handle(sock, address):
        try:
            Event().wait()
        except gevent.GreenletExit as ex:
            trace.append(type(ex))
            raise
    server = impl.StreamServer(LOOPBACK, handle, spawn=2)
    server.stop_timeout = 0.01
    server.start()
    clients = [connect(server) for _ in range(2)]
    until(lambda: len(server.pool) == 2)
    stop(server)
    assert trace == [gevent.GreenletExit] * 2 and len(server.pool) == 0
    assert [read_all(client) for client in clients] == [b'', b'']


def test_stop_without_a_pool_waits_for_nobody(impl):
    """Handlers that were spawned elsewhere go on."""
    gate, running = Event(), []

    def handle(sock, address):
        running.append(address)
        gate.wait()
        echo(sock, address)
    server = impl.StreamServer(LOOPBACK, handle)
    server.start()
    client = connect(server)
    client.sendall(b'late')
    until(lambda: running)
    server.stop()
    gate.set()
    with client:
        assert client.recv(9) == b'late'


def test_stop_from_a_handler(impl):
    """Without a pool it simply works."""
    result = []

    def handle(sock, address):
        result.append(server.stop())
        sock.sendall(b'stopped')
    server = impl.StreamServer(LOOPBACK, handle)
    server.start()
    assert ask(server, b'') == b'stopped'
    assert result == [None] and server.closed


def test_stop_from_a_handler_in_the_pool(impl):
    """The handler waits for itself, and is killed when the time is over."""
    trace = []

    def handle(sock, address):
        try:
            server.stop(timeout=0.01)
        except gevent.GreenletExit:
            trace.append(server.closed)
            raise
    server = impl.StreamServer(LOOPBACK, handle, spawn=2)
    server.start()
    assert ask(server, b'') == b''
    until(lambda: not server.pool)
    assert trace == [True]


def test_stop_in_the_hub(impl, errors):
    """Where nothing can wait, stop() closes the port, then fails if handlers are running."""
    gate, results = Event(), []

    def in_hub():
        results.append(outcome(server.stop))
    for spawn, clients in ((3, 1), (3, 0), ('default', 1)):
        server = impl.StreamServer(LOOPBACK, lambda *args: gate.wait(), spawn=spawn)
        server.start()
        held = [connect(server) for _ in range(clients)]
        if server.pool is not None:
            until(lambda: len(server.pool) == clients)
        get_hub().loop.run_callback(in_hub)
        until(lambda: len(results) == 1)
        result, = results
        del results[:]
        if server.pool is not None and clients:
            assert type(result) is BlockingSwitchOutError and len(server.pool) == 1
        else:
            assert result is None
        assert server.closed and not server.started
        for client in held:
            client.close()
    gate.set()
    assert errors == []


# serve_forever


def test_whole_run(impl):
    """Each method is called through its override, in this order."""
    log = []
    names = ['serve_forever', 'start', 'init_socket', 'start_accepting', 'stop', 'close',
             'stop_accepting', '_start_accepting_if_started', '__enter__', '__exit__']
    server = spying(impl.StreamServer, log, *names)(LOOPBACK, echo)
    runner = gevent.spawn(server.serve_forever)
    until(lambda: server.started)
    assert ask(server) == b'ping'
    server.stop()
    assert runner.get() is None
    assert log == ['serve_forever', 'start', 'init_socket', 'start_accepting', 'stop', 'close',
                   'stop_accepting', 'stop', 'close', 'stop_accepting']


@pytest.mark.parametrize('args, kwargs, timeout', [
    ((), {}, None), ((5,), {}, 5), ((), {'stop_timeout': 0.25}, 0.25), ((None,), {}, None)],
    ids=repr)
def test_end_of_serve_forever(impl, args, kwargs, timeout):
    """stop(timeout=…) runs in a greenlet of its own when the event is set from outside."""
    calls = []

    class Mine(impl.StreamServer):
        def stop(self, *args, **kwargs):
            calls.append((args, kwargs, gevent.getcurrent()))
            super().stop()
    server = Mine(LOOPBACK, echo)
    runner = gevent.spawn(server.serve_forever, *args, **kwargs)
    until(lambda: server.started)
    server._stop_event.set()
    assert not server.started
    assert runner.get() is None
    (stop_args, stop_kwargs, greenlet), = calls
    assert stop_args == () and stop_kwargs == {'timeout': timeout}
    assert type(greenlet) is gevent.Greenlet and greenlet is not runner
    assert server.closed


def test_serve_forever_on_a_started_server(impl):
    """It does not start it again."""
    log = []
    server = spying(impl.StreamServer, log, 'start')(LOOPBACK, echo)
    server.start()
    runner = gevent.spawn(server.serve_forever)
    assert ask(server) == b'ping'
    server.stop()
    runner.get()
    assert log == ['start']


def test_serve_forever_with_a_start_that_does_not_start(impl):
    """The event is still set: stop() follows at once."""
    log = []

    class Mine(impl.BaseServer):
        def start(self, *args):
            log.append(('start',) + args)

        def stop(self, timeout=None):
            log.append(('stop', timeout))
    assert Mine(1, handler).serve_forever(3) is None
    assert log == [('start',), ('stop', 3)]


@BUSY
def test_serve_forever_that_cannot_start(impl):
    """The error gets out, and stop() is not called."""
    log, other = [], listener()
    server = spying(impl.StreamServer, log, 'start', 'stop')(other.getsockname(), echo)
    error = outcome(server.serve_forever)
    assert error.errno == errno.EADDRINUSE and log == ['start']
    del error
    other.close()
    runner = gevent.spawn(server.serve_forever)
    until(lambda: server.started)
    assert ask(server) == b'ping'
    server.stop()
    runner.get()


def test_stop_before_serve_forever_is_forgotten(impl):
    """A server stopped too early runs all the same."""
    class Mine(impl.StreamServer):
        def handle(self, sock, address):
            echo(sock, address)
    server = Mine(LOOPBACK)
    server.stop()
    runner = gevent.spawn(server.serve_forever)
    until(lambda: server.started)
    assert ask(server) == b'ping' and not runner.dead
    server.stop()
    runner.get()


def test_stop_found_on_the_instance_at_the_end(impl):
    """``stop`` is looked up when serve_forever ends."""
    calls = []
    server = impl.StreamServer(LOOPBACK, echo)
    runner = gevent.spawn(server.serve_forever)
    until(lambda: server.started)
    server.stop = lambda **kwargs: calls.append(kwargs)
    server.close()
    runner.get()
    assert calls == [{'timeout': None}]


def test_killing_the_greenlet_of_serve_forever(impl):
    """The server is stopped by then."""
    server = impl.StreamServer(LOOPBACK, echo)
    runner = gevent.spawn(server.serve_forever)
    until(lambda: server.started)
    runner.kill()
    assert type(runner.value) is gevent.GreenletExit
    assert server.closed and not server.started


@pytest.mark.parametrize('how', ['server.stop()', 'runner.kill()'])
def test_serve_forever_under_an_audit_hook(impl, how):
    """There may be no Python frame in its greenlet when it starts another one: gevent looks for
    the frame, and tells the hook."""
    process = subprocess.run(python(impl, '-c', '''
import sys, gevent
from gevent.server import StreamServer
sys.addaudithook(lambda *args: None)
server = StreamServer(('127.0.0.1', 0), print)
runner = gevent.spawn(server.serve_forever)
while not server.started:
    gevent.sleep(0.001)
%s
runner.join()
print(server.closed)
''' % how), capture_output=True, text=True, timeout=60, env=child_environ())
    assert (process.returncode, process.stdout) == (0, 'True\n'), process.stderr


class Token:
    """An object that only one place refers to."""


@pytest.mark.parametrize('by_name', [False, True], ids=['by position', 'by name'])
def test_killed_serve_forever_still_has_its_timeout(impl, by_name):
    """A greenlet that is killed drops its arguments at once; the timeout outlives that."""
    seen = []

    class Mine(impl.StreamServer):
        def stop(self, timeout=None):
            seen.append(reference() is timeout)
            super().stop(0)
    server, token = Mine(LOOPBACK, echo), Token()
    reference = weakref.ref(token)
    if by_name:
        runner = gevent.spawn(server.serve_forever, stop_timeout=token)
    else:
        runner = gevent.spawn(server.serve_forever, token)
    del token
    until(lambda: server.started)
    runner.kill()
    assert seen == [True] and server.closed


def test_killed_stop_still_has_its_timeout(impl):
    """The same for a stop() that is killed within close() and goes on nevertheless."""
    seen = []

    class Stubborn(impl.BaseServer):
        def close(self):
            seen.append('closing')
            try:
                Event().wait()
            except gevent.GreenletExit:
                self.pool = Fake([], 'pool', True, kill=None)
                self.pool.join = lambda timeout: seen.append(reference() is timeout)
    server, token = Stubborn(1, handler), Token()
    reference = weakref.ref(token)
    stopping = gevent.spawn(server.stop, token)
    del token
    until(lambda: seen == ['closing'])
    stopping.kill()
    assert seen == ['closing', True]


def test_killed_greenlet_was_the_last_to_know_the_server(impl):
    """A server known only to the greenlet of its serve_forever is stopped, then freed with
    that greenlet, whose traceback knows it."""
    made, stopped = [], []

    class Mine(impl.StreamServer):
        def __init__(self):
            super().__init__(LOOPBACK, echo)
            made.append(weakref.ref(self))

        def stop(self, timeout=None):
            super().stop(timeout)
            stopped.append(self.closed)
    runner = gevent.spawn(Mine().serve_forever)
    until(lambda: made[0]().started)
    runner.kill()
    assert stopped == [True]
    del runner
    until(lambda: gc.collect() >= 0 and made[0]() is None)


def test_timeout_around_serve_forever(impl):
    """Any exception thrown into it stops the server and gets out."""
    server = impl.StreamServer(LOOPBACK, echo)
    timeout = gevent.Timeout(0.02)
    with pytest.raises(gevent.Timeout) as info, timeout:
        server.serve_forever()
    assert info.value is timeout and server.closed


def test_serve_forever_when_waiting_fails(impl):
    """Whatever wait() raises: stop() first, then the error."""
    for error in (LookupError('wait'), KeyboardInterrupt(), SystemExit(3)):
        stage = Stage(impl.BaseServer, event_wait=error, event_is_set=False)
        result, log = stage('serve_forever')
        assert result is error and error.__context__ is None
        assert log == [('event.is_set',), ('event.wait',), ('event.set',), ('socket.close',),
                       ('semaphore.unlink', stage.link)]


def test_serve_forever_interrupted_twice(impl):
    """A second exception, thrown in while stop() is at work, takes the place of the first, and
    stop() goes on in its own greenlet."""
    gate, trace = Event(), []

    class Mine(impl.StreamServer):
        def stop(self, timeout=None):
            trace.append('waiting')
            gate.wait()
            super().stop(timeout)
            trace.append('stopped')
    server = Mine(LOOPBACK, echo)
    runner = gevent.spawn(outcome, server.serve_forever)
    until(lambda: server.started)
    first, second = LookupError('first'), LookupError('second')
    runner.kill(first, block=False)
    until(lambda: trace == ['waiting'])
    runner.kill(second)
    assert runner.value is second and second.__context__ is None
    assert trace == ['waiting'] and server.started
    gate.set()
    until(lambda: trace == ['waiting', 'stopped'])
    assert server.closed


def test_serve_forever_with_a_stop_that_fails(impl, errors):
    """The error of stop() is reported for its greenlet; serve_forever returns normally."""
    class Mine(impl.StreamServer):
        def stop(self, timeout=None):
            super().stop(timeout)
            raise LookupError('stop')
    server = Mine(LOOPBACK, echo)
    runner = gevent.spawn(server.serve_forever)
    until(lambda: server.started)
    server.close()
    assert runner.get() is None
    (context, kind, value), = errors
    assert type(context) is gevent.Greenlet and kind is LookupError and str(value) == 'stop'


def test_serve_forever_without_stop(impl, monkeypatch):
    """A missing ``stop`` is noticed at the end: AttributeError, or with the error of wait() as
    context."""
    monkeypatch.delattr(impl.BaseServer, 'stop')
    stage = Stage(impl.BaseServer, event_is_set=False)
    assert str(stage('serve_forever')[0]) == "'BaseServer' object has no attribute 'stop'"
    first = LookupError('wait')
    stage = Stage(impl.BaseServer, event_is_set=False, event_wait=first)
    result = stage('serve_forever')[0]
    assert type(result) is AttributeError and result.__context__ is first


def test_serve_forever_in_another_thread(impl):
    """A server made and run in a second thread, with a hub of its own."""
    ready, made = threading.Event(), []

    def work():
        def handle(sock, address):
            sock.sendall(b'bye')
            server.stop()
        server = impl.StreamServer(LOOPBACK, handle)
        server.start()
        made.append(server)
        ready.set()
        server.serve_forever()
        made.append(server.closed)
        get_hub().destroy(destroy_loop=True)
    thread = threading.Thread(target=work)
    thread.start()
    assert ready.wait(60)
    with connect_natively(made[0]) as client:
        assert client.recv(9) == b'bye'
    thread.join(60)
    assert not thread.is_alive() and made[1:] == [True]


# with


def test_context_manager(impl):
    """Entering gives the server, not started; leaving calls stop() without arguments."""
    calls = []

    class Mine(impl.StreamServer):
        def stop(self, *args, **kwargs):
            calls.append((args, kwargs))
            super().stop()
    server = Mine(LOOPBACK, echo)
    with server as entered:
        assert entered is server and not server.started
        server.start()
        assert ask(server) == b'ping'
    assert calls == [((), {})] and server.closed
    assert server.__enter__() is server


def test_context_manager_and_errors(impl):
    """An error inside gets out; one of stop() hides it and has it as context."""
    class Mine(impl.BaseServer):
        error = None

        def stop(self):
            if self.error is not None:
                raise self.error
    server, inside = Mine(1, handler), LookupError('inside')
    with pytest.raises(LookupError) as info, server:
        raise inside
    assert info.value is inside
    server.error = LookupError('stop')
    with pytest.raises(LookupError) as info, server:
        raise inside
    assert info.value is server.error and server.error.__context__ is inside


@pytest.mark.parametrize('args', [(), (None, None, None), (1, 2, 3, 4, 5)])
def test_exit_takes_anything(impl, args):
    """__exit__ ignores its arguments and returns None."""
    server = impl.BaseServer(listener(), handler)
    assert server.__exit__(*args) is None
    assert server.closed


# Again


def test_restart(impl):
    """A handler of the class survives stop(); the port stays the same."""
    class Mine(impl.StreamServer):
        def handle(self, sock, address):
            echo(sock, address)
    server = Mine(LOOPBACK)
    server.start()
    address = server.address
    for _ in range(3):
        assert ask(server) == b'ping'
        server.stop()
        server.start()
        assert server.address == address and server.started
    server.stop()


def test_restart_forgets_the_pool(impl):
    """After a restart the pool neither spawns nor limits, although it is still there."""
    running, gate = [], Event()

    class Mine(impl.StreamServer):
        def handle(self, sock, address):
            running.append(address)
            gate.wait()
    server = Mine(LOOPBACK, spawn=1)
    pool = server.pool
    server.start()
    server.stop()
    server.start()
    assert server.pool is pool and server._spawn == gevent.spawn and server.full() is False
    clients = [connect(server) for _ in range(2)]
    until(lambda: len(running) == 2)
    assert len(pool) == 0
    gate.set()
    server.stop()
    for client in clients:
        client.close()


def test_restart_with_the_settings_given_again(impl):
    """set_handle and set_spawn before the next start bring everything back."""
    server = impl.StreamServer(LOOPBACK, echo, spawn=2)
    server.start()
    server.stop()
    server.set_spawn(3)
    server.set_handle(echo)
    server.start()
    assert ask(server) == b'ping' and server.pool.size == 3 and server._spawn == server.pool.spawn
    server.stop()


# What is there after each step


def test_keys_of_a_stream_server(impl):
    """The exact attributes of a StreamServer, step by step."""
    server = impl.StreamServer(LOOPBACK, echo, spawn=2)
    new = KEPT | GIVEN | {'ssl_args'}
    assert vars(server).keys() == new
    for step, keys in (('init_socket', new | {'socket'}), ('start', new | {'socket'}),
                       ('stop_accepting', new | {'socket'}),
                       ('start_accepting', new | {'socket'}),
                       ('close', KEPT | {'ssl_args'}), ('stop', KEPT | {'ssl_args'})):
        getattr(server, step)()
        assert vars(server).keys() == keys, step
        assert (server._watcher is not None) is (step in ('start', 'start_accepting')), step
        assert server._timer is None


def test_keys_of_a_datagram_server(impl):
    """The exact attributes of a DatagramServer, which also serves."""
    got = []

    def handle(data, address):
        got.append(data)
        server.sendto(data * 2, address)
    server = impl.DatagramServer(LOOPBACK, handle)
    new = KEPT | GIVEN - {'full'} | {'_socket', '_writelock'}
    assert vars(server).keys() == new and server._socket is None
    server.start()
    assert vars(server).keys() == new | {'socket'}
    with socket.socket(type=native.SOCK_DGRAM) as client:
        client.connect(server.address)
        client.send(b'ab')
        assert client.recv(9) == b'abab' and got == [b'ab']
    server.stop()
    assert vars(server).keys() == KEPT | {'_socket', '_writelock'}


def test_keys_of_a_base_server(impl):
    """The exact attributes of a BaseServer with a listener and a handler in the class."""
    class Mine(impl.BaseServer):
        def handle(self, *args):
            raise NotImplementedError
    server = Mine(listener())
    new = KEPT | {'_handle', '_spawn', 'socket'}
    assert vars(server).keys() == new
    server.start()
    assert vars(server).keys() == new and server._watcher is not None
    server.stop()
    assert vars(server).keys() == KEPT and server._watcher is None


def test_attributes_of_ones_own_survive(impl):
    """close() takes away only what is its own."""
    server = impl.BaseServer(listener(), handler)
    server.extra = server.max_accept = server.min_delay = 5
    server.close()
    assert vars(server).keys() == KEPT | {'extra', 'max_accept', 'min_delay'}


# Without a constructor


@pytest.mark.parametrize('method, missing', [
    ('start', '_stop_event'), ('start_accepting', '_watcher'), ('stop_accepting', '_watcher'),
    ('_start_accepting_if_started', '_stop_event'), ('close', '_stop_event'),
    ('stop', '_stop_event'), ('serve_forever', '_stop_event'), ('__exit__', '_stop_event'),
    ('do_handle', '_handle')])
def test_init_never_ran(impl, method, missing):
    """AttributeError about the first attribute that is needed."""
    server = impl.BaseServer.__new__(impl.BaseServer)
    with pytest.raises(AttributeError) as info:
        getattr(server, method)()
    assert str(info.value) == "'BaseServer' object has no attribute '%s'" % missing
    assert vars(server) == {}


@pytest.mark.parametrize('method, missing', [
    ('start_accepting', '_watcher'), ('start_accepting', 'loop'),
    ('stop_accepting', '_watcher'), ('stop_accepting', '_timer'), ('close', '_stop_event'),
    ('close', '_watcher'), ('close', '_timer'), ('close', 'pool'), ('stop', 'pool'),
    ('start', '_stop_event'), ('do_handle', '_handle')])
def test_one_attribute_is_missing(impl, method, missing):
    """Each attribute is needed where it is used, and named if it is not there."""
    server = impl.BaseServer(listener(), handler)
    delattr(server, missing)
    sock = server.socket
    with pytest.raises(AttributeError) as info:
        getattr(server, method)()
    assert str(info.value) == "'BaseServer' object has no attribute '%s'" % missing
    if method in ('close', 'stop') and missing != '_stop_event':
        assert sock.fileno() == -1 and server.closed
    sock.close()


def test_do_read_of_the_base_class(impl):
    """To be provided by a subclass."""
    with pytest.raises(NotImplementedError) as info:
        impl.BaseServer(1, handler).do_read()
    assert info.value.args == ()


def test_do_close_of_the_base_class(impl):
    """Does nothing, whatever it is given."""
    assert impl.BaseServer(1, handler).do_close(1, 2, 3) is None


# Garbage


@pytest.fixture
def no_collector():
    """Nothing but reference counting during the test."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.parametrize('spawn', ['default', 3, None, gevent.spawn_raw],
                         ids=['default', 'pool', 'none', 'raw'])
def test_stopped_server_is_freed_by_reference_counting(impl, no_collector, spawn):
    """After it has served and stopped, no cycle keeps it."""
    def handle(sock, address):
        sock.sendall(b'x')
    server = impl.StreamServer(LOOPBACK, handle, spawn=spawn)
    server.start()
    assert ask(server, b'') == b'x'
    server.stop()
    reference = weakref.ref(server)
    del server
    until(lambda: reference() is None)


def test_unused_server_is_freed_by_reference_counting(impl, no_collector):
    """Nor does one that never started hold itself; a pool lets go of it when the loop has run."""
    for spawn in ('default', None, 3):
        server = impl.StreamServer(LOOPBACK, handler, spawn=spawn)
        reference = weakref.ref(server)
        del server
        if spawn == 3:
            until(lambda: reference() is None)
        assert reference() is None


def test_failed_constructor_frees_the_server(impl, no_collector):
    """The half-made server goes with the exception."""
    made = []

    class Mine(impl.StreamServer):
        def set_listener(self, listener):
            made.append(weakref.ref(self))
            super().set_listener(listener)
    with pytest.raises(TypeError):
        Mine(LOOPBACK)
    assert made[0]() is None


def test_accepting_server_is_freed_by_the_collector(impl, no_collector):
    """Server, watcher and callback form a cycle, which the collector can see through."""
    stage = Stage(impl.BaseServer)
    stage.server.loop.results['io'] = lambda: Keeper()

    class Keeper:
        def start(self, callback):
            self.callback = callback
    stage.server.start()
    reference = weakref.ref(stage.server)
    stage.server = None
    del stage
    assert reference() is not None
    gc.collect()
    assert reference() is None


def test_accepting_server_that_nobody_knows_goes_on(impl):
    """The loop itself keeps an active watcher, and thereby the server."""
    server = impl.StreamServer(LOOPBACK, echo)
    server.start()
    reference = weakref.ref(server)
    del server
    gc.collect()
    assert ask(reference()) == b'ping'
    reference().stop()
