"""Waiting in recv() and its like, send(), sendall() and sendto() of gevent's sockets.

What ends it, what it leaves behind, what others may do meanwhile.
"""
import contextlib
import errno
import gc
import signal
import socket as native
import sys
import threading
import time
import weakref

import gevent
import pytest
from gevent import get_hub, socket
from gevent.exceptions import (
    BlockingSwitchOutError, ConcurrentObjectUseError, InvalidSwitchError)

from ends import (
    AGAIN, CANCELLED, CLOSED, READS, TIMED_OUT, Ends, at_rest, drain, fill, in_hub, raised,
    recv, recv_into, recvfrom_into, reset, seen, send, sendall, sendto, start, starts)
from helpers import outcome, until

reads = pytest.mark.parametrize('read', READS)

IN_USE = 'This socket is already used by another greenlet: <'
GONE = ConcurrentObjectUseError, ('The socket has already been closed by another greenlet',)
IN_HUB = BlockingSwitchOutError, (
    'Impossible to call blocking function in the event loop callback',)


#: libuv's timers take a millisecond at least
pytestmark = pytest.mark.filterwarnings('ignore:libuv only supports millisecond timer')


@pytest.fixture
def ends(impl):
    with Ends() as made:
        yield made


class Side:
    """A socket on which one function has to wait, its watcher, and how to end that."""

    def __init__(self, ends, function):
        self.reads = function in READS
        self.sock, self.other = ends.pair() if function in (send, sendall) else ends.tcp()
        self.function = function
        self.args = (10,) if self.reads else (b'0123456789',)
        self.event = self.sock._read_event if self.reads else self.sock._write_event
        self.count = 0 if self.reads else fill(self.sock)

    def call(self):
        """What the function reads or how much it writes."""
        return self.function(self.sock, *self.args)

    def start(self):
        """A greenlet that is in it and waits."""
        return start(self.event, self.call)

    def make_ready(self):
        if self.reads:
            self.other.send(b'0123456789')
        else:
            drain(self.other, self.count)

    def succeeded(self, result):
        """Whether it did what it should, of which it is the result."""
        if self.reads:
            return result == b'0123456789'
        return result == 10 and drain(self.other, 10) == b'0123456789'

    def works(self):
        """Whether nothing is left of a wait that has failed: the function does its work now."""
        assert at_rest(self.sock)
        self.sock.timeout = None
        if self.reads:
            self.other.send(b'not lost ')
            assert self.call() == b'not lost '
        greenlet = self.start()
        self.make_ready()
        good = self.succeeded(greenlet.get()) and at_rest(self.sock)
        self.count = 0 if self.reads else fill(self.sock)
        return good


@pytest.fixture(params=READS + [send, sendall, sendto])
def side(ends, request):
    return Side(ends, request.param)


# -- it ends well ---------------------------------------------------------------------------------

@pytest.mark.parametrize('timeout', [None, 9, 9.5, 1 << 40], ids=str)
def test_until_it_is_ready(side, timeout):
    side.sock.timeout = timeout
    greenlet = side.start()
    gevent.sleep(0)
    assert not greenlet.dead
    side.make_ready()
    assert side.succeeded(greenlet.get()) and at_rest(side.sock)


def test_others_run_meanwhile(side):
    """And what is ready is done in the order in which it became so."""
    ran = []
    gevent.spawn(ran.append, 'other')
    gevent.spawn_later(0, side.make_ready)
    assert side.succeeded(side.call()) and ran == ['other']


@reads
def test_end_of_file(ends, read):
    sock, other = ends.pair()
    greenlet = starts(sock, read, sock, 10)
    other.close()
    assert greenlet.get() == b'' and at_rest(sock)


@reads
def test_reset(ends, read):
    """Told once to the reader that waits."""
    sock, other = ends.tcp()
    greenlet = starts(sock, read, sock, 10)
    reset(other)
    assert seen(greenlet.get())[0] is ConnectionResetError
    assert read(sock, 10) == b'' and at_rest(sock)


def test_again_and_again(ends):
    """Two who answer each other."""
    one, other = ends.both()
    one.timeout = 5

    def answer():
        for _ in range(200):
            other.sendall(other.recv(100) + b'!')
    greenlet = gevent.spawn(answer)
    for number in range(200):
        one.sendall(b'%d' % number)
        assert one.recv(100) == b'%d!' % number
    greenlet.get()
    assert at_rest(one) and at_rest(other)


def test_many_at_once(ends):
    """Each gets its own."""
    pairs = [ends.pair() for _ in range(60)]
    waiting = [starts(sock, sock.recv, 10) for sock, _ in pairs]
    for number, (_, other) in reversed(list(enumerate(pairs))):
        other.send(b'%d' % number)
    assert [one.get() for one in waiting] == [b'%d' % number for number in range(60)]


def test_short_read_then_wait(ends):
    """As long as nothing comes; however short the read before was."""
    sock, other = ends.pair()
    for size in 1, 9, 10, 100:
        other.send(b'0123456789'[:size])
        assert sock.recv(100) == b'0123456789'[:size]
        greenlet = starts(sock, sock.recv, 100)
        gevent.sleep(0)
        assert not greenlet.dead
        other.send(b'next')
        assert greenlet.get() == b'next'
    greenlet = starts(sock, sock.recv, 100)
    other.close()
    assert greenlet.get() == b''


# -- timeouts -------------------------------------------------------------------------------------

class Seconds(float):
    """Not quite a float."""


@pytest.mark.parametrize('timeout', [0.001, Seconds(0.001), 1e-9, 5e-324, -1, -0.5, -1 << 40],
                         ids=str)
def test_timed_out(side, timeout):
    """A negative one, which settimeout() refuses, is over at once."""
    side.sock.timeout = timeout
    error = outcome(side.call)
    assert seen(error) == TIMED_OUT and type(error) is socket.timeout
    assert (error.errno, str(error), error.__context__, error.__cause__) == (
        None, 'timed out', None, None)
    assert side.works()


def test_timed_out_again_and_again(side):
    side.sock.timeout = 0.0005
    errors = [outcome(side.call) for _ in range(5)]
    assert [seen(error) for error in errors] == [TIMED_OUT] * 5
    assert len(set(map(id, errors))) == 5
    assert side.works()


@pytest.mark.parametrize('timeout, error', [
    ('1', TypeError), (b'1', TypeError), (object(), TypeError), (1j, TypeError)],
    ids=['text', 'bytes', 'object', 'complex'])
def test_timeouts_that_are_none(side, timeout, error):
    """They count when it has to wait."""
    side.sock.timeout = timeout
    assert raised(side.call)[0] is error
    assert side.works()


@reads
def test_timeout_that_cannot_be_compared(ends, read):
    sock, other = ends.pair()

    class Odd:
        def __eq__(self, other):
            raise LookupError('no comparison')
        __hash__ = None
    sock.timeout = Odd()
    other.send(b'data')
    assert read(sock, 10) == b'data'
    assert raised(read, sock, 10) == (LookupError, ('no comparison',))
    sock.timeout = None
    assert at_rest(sock)


def test_timeout_of_the_program(side):
    """gevent.Timeout."""
    with pytest.raises(gevent.Timeout) as info, gevent.Timeout(0.001) as timeout:
        side.call()
    assert info.value is timeout and side.works()
    with gevent.Timeout(0.001, False):
        side.call()
    assert side.works()


def test_timeout_changed_while_it_waits(ends):
    """Counts for the next time: when somebody else got the data, here by another descriptor."""
    for change in 0.0, 0.001:
        sock, other = ends.pair()
        sock.timeout = 50
        twin = ends.dup(sock)
        waiting = [starts(one, one.recv, 10) for one in (sock, twin)]
        sock.timeout = twin.timeout = change
        gevent.sleep(0.002)
        assert not any(greenlet.dead for greenlet in waiting)
        other.send(b'data')
        results = [greenlet.get() for greenlet in waiting]
        assert b'data' in results
        results.remove(b'data')
        assert seen(results[0]) == (AGAIN if change == 0.0 else TIMED_OUT)
        assert at_rest(sock) and at_rest(twin)


def test_nothing_there_after_all(ends):
    """Then it waits again."""
    sock, other = ends.pair()
    twin = ends.dup(sock)
    waiting = [starts(one, one.recv, 10) for one in (sock, twin)]
    for data in b'first', b'second':
        other.send(data)
        until(lambda: any(greenlet.dead for greenlet in waiting))
        done, = [greenlet for greenlet in waiting if greenlet.dead]
        assert done.get() == data
        waiting.remove(done)
    assert waiting == [] and at_rest(sock) and at_rest(twin)


def timers():
    """How many run."""
    with contextlib.closing(get_hub().loop.timer(1)) as timer:
        return sum(type(one) is type(timer) and one.active for one in gc.get_objects())


def test_timers_are_closed(ends):
    """None is left of those that were not needed, whatever ended the wait."""
    sock, other = ends.pair()
    sock.timeout = 3600
    for end in [lambda greenlet: other.send(b'0123456789'), lambda greenlet: greenlet.kill(),
                lambda greenlet: greenlet.kill(LookupError())]:
        before = timers()
        greenlet = starts(sock, sock.recv, 10)
        assert timers() == before + 1
        end(greenlet)
        greenlet.join()
        gevent.sleep(0)
        assert timers() == before


# -- kill, throw, switch --------------------------------------------------------------------------

class Grave(BaseException):
    """No Exception."""


@pytest.mark.parametrize('error', [
    gevent.GreenletExit('kill'), ValueError('thrown'), Grave('thrown'), gevent.Timeout(None),
    StopIteration('thrown'), TimeoutError('thrown'), BlockingIOError(errno.EAGAIN, 'thrown'),
    InterruptedError(errno.EINTR, 'thrown'), KeyError('thrown')],
    ids=lambda error: type(error).__name__)
@pytest.mark.parametrize('timeout', [None, 50], ids=['no_timeout', 'timeout'])
def test_thrown(side, timeout, error):
    """It arrives as it is; what looks like EAGAIN too. Nothing was read or written."""
    side.sock.timeout = timeout
    greenlet = side.start()
    gevent.kill(greenlet, error)
    assert greenlet.get() is error
    assert side.works()


def test_killed(side):
    """Before it waits, and while it waits."""
    greenlet = side.start()
    greenlet.kill()
    assert type(greenlet.get()) is gevent.GreenletExit and side.works()


def test_killed_when_it_is_ready(ends):
    """Whoever is killed reads nothing, and what came is still there."""
    for read in READS:
        sock, other = ends.pair()
        greenlet = starts(sock, read, sock, 10)
        other.send(b'data')
        greenlet.kill(block=False)
        greenlet.join()
        left = outcome(sock._sock.recv, 10)
        assert (greenlet.get(), left)[type(greenlet.get()) is not bytes] == b'data'
        assert at_rest(sock)


@pytest.mark.parametrize('value', [(), None, 'x', (1, 2)], ids=repr)
@pytest.mark.parametrize('timeout', [None, 50], ids=['no_timeout', 'timeout'])
def test_switched_to_by_somebody_else(side, timeout, value):
    """An error; the watcher is stopped."""
    side.sock.timeout = timeout
    greenlet = side.start()
    get_hub().loop.run_callback(greenlet.switch, *([value] if value != () else []))
    error = greenlet.get()
    assert type(error) is InvalidSwitchError
    text = str(error)
    assert text.startswith('Invalid switch into <Greenlet at 0x')
    assert ': got %r (expected <' % (value,) in text
    assert '; waiting on <Hub ' in text and ' with <' in text
    assert side.works()


def test_switched_to_by_hand_when_it_is_ready(ends):
    """Nothing is read then."""
    sock, other = ends.pair()
    greenlet = starts(sock, sock.recv, 10)
    other.send(b'data')
    get_hub().loop.run_callback(greenlet.switch, 'x')
    assert type(greenlet.get()) is InvalidSwitchError
    assert sock.recv(10) == b'data' and at_rest(sock)


def test_raw_greenlets(side):
    """They wait as well as others; and what they raise afterwards is the hub's."""
    results = []
    gevent.spawn_raw(lambda: results.append(side.call()))
    until(lambda: side.event.active)
    side.make_ready()
    until(lambda: results)
    assert side.succeeded(results[0]) and at_rest(side.sock)


# -- in the hub -----------------------------------------------------------------------------------

@pytest.mark.parametrize('timeout', [None, 50], ids=['no_timeout', 'timeout'])
def test_in_the_hub(side, timeout):
    """Nobody can wait there, but whoever need not wait can read and write."""
    side.sock.timeout = timeout
    for _ in range(2):
        assert seen(in_hub(side.call)) == IN_HUB and at_rest(side.sock)
    side.make_ready()
    until(lambda: type(in_hub(side.call)) is not BlockingSwitchOutError or not side.reads)
    side.sock.timeout = 0.0
    assert side.function is not recv or seen(in_hub(side.call)) == AGAIN


@reads
def test_reading_in_the_hub(ends, read):
    """Also right after a short read, when something has come meanwhile."""
    sock, other = ends.pair()
    for _ in range(3):
        other.send(b'data')
        assert in_hub(lambda: read(sock, 10)) == b'data'
        other.send(b'some')
        assert in_hub(lambda: read(sock, 2)) == b'so'
        assert in_hub(lambda: read(sock, 10)) == b'me'
    assert seen(in_hub(lambda: read(sock, 10))) == IN_HUB
    other.send(b'after')
    assert in_hub(lambda: read(sock, 10)) == b'after'
    other.close()
    assert in_hub(lambda: read(sock, 10)) == b'' and at_rest(sock)


@pytest.mark.parametrize('write', [send, sendall])
def test_writing_in_the_hub(ends, write):
    sock, other = ends.pair()
    assert in_hub(lambda: write(sock, b'data')) == 4 and other.recv(10) == b'data'
    fill(sock)
    error = in_hub(lambda: write(sock, b'data'))
    assert seen(error) == IN_HUB and at_rest(sock)
    assert seen(error.__context__) == AGAIN


# -- closing, watchers ----------------------------------------------------------------------------

@pytest.mark.parametrize('timeout', [None, 50], ids=['no_timeout', 'timeout'])
def test_closed_in_another_greenlet(side, timeout):
    side.sock.timeout = timeout
    greenlet, event = side.start(), side.event
    side.sock.close()
    assert not greenlet.dead and side.sock.closed
    error = greenlet.get()
    assert seen(error) == CANCELLED and error.__context__ is None
    assert str(error) == '[Errno 9] File descriptor was closed in another greenlet'
    assert (event.active, event.callback) == (False, None)
    if side.function is not sendto:
        assert raised(side.call) == CLOSED


def test_detached_in_another_greenlet(ends):
    sock, other = ends.pair()
    greenlet = starts(sock, sock.recv, 10)
    with native.socket(fileno=sock.detach()) as left:
        assert seen(greenlet.get()) == CANCELLED
        other.send(b'data')
        assert left.recv(10) == b'data'


@pytest.mark.parametrize('how', [native.SHUT_RD, native.SHUT_WR, native.SHUT_RDWR],
                         ids=['read', 'write', 'both'])
def test_shut_down_in_another_greenlet(ends, how):
    """Ends the waits of that direction."""
    sock, other = ends.pair()
    fill(sock)
    reader = starts(sock, sock.recv, 10)
    writer = start(sock._write_event, sock.send, b'data')
    sock.shutdown(how)
    ended = {native.SHUT_RD: [reader], native.SHUT_WR: [writer]}.get(how, [reader, writer])
    assert [seen(one.get()) for one in ended] == [CANCELLED] * len(ended)
    assert [one.dead for one in (reader, writer)] == [one in ended for one in (reader, writer)]
    gevent.killall([reader, writer])
    assert at_rest(sock)


def test_cancelled(side):
    """By hub.cancel_wait(), with the error of somebody's choice."""
    greenlet, error = side.start(), LookupError('cancelled')
    get_hub().cancel_wait(side.event, error)
    assert greenlet.get() is error
    assert side.works()


def test_no_watcher(side):
    """As if it had been closed; whoever need not wait needs none."""
    event = '_read_event' if side.reads else '_write_event'
    setattr(side.sock, event, None)
    assert raised(side.call) == GONE
    side.sock.timeout = 0.0
    assert raised(side.call) == AGAIN
    side.sock.timeout = 5
    assert raised(side.call) == GONE
    side.make_ready()
    if side.reads:
        assert side.succeeded(side.call())
    setattr(side.sock, event, side.event)


def test_somebody_else_waits(side):
    """An error for the second; the first knows nothing of it."""
    for timeout in None, 50:
        side.sock.timeout = timeout
        greenlet = side.start()
        for _ in range(2):
            error = outcome(side.call)
            assert type(error) is ConcurrentObjectUseError and str(error).startswith(IN_USE)
            assert str(error).endswith('>') and ' at 0x' in str(error)
        assert side.event.active and not greenlet.dead
        greenlet.kill()
    assert side.works()


def test_wait_of_another_kind(ends):
    """The watcher is one for all: socket.wait_read() on another one does no harm."""
    sock, other = ends.pair()
    greenlet = starts(sock, socket.wait, sock._read_event)
    assert str(outcome(sock.recv, 10)).startswith(IN_USE)
    foreign = gevent.spawn(socket.wait_read, sock.fileno())
    gevent.sleep(0)
    other.send(b'data')
    assert greenlet.get() is None
    foreign.get()
    assert sock.recv(10) == b'data' and at_rest(sock)


def test_second_reader_takes_what_came(ends):
    """Whoever does not have to wait is not refused; the first goes on waiting."""
    sock, other = ends.pair()
    greenlet = starts(sock, sock.recv, 10)
    other.send(b'for the second')
    assert sock.recv(100) == b'for the second'
    gevent.sleep(0.002)
    assert not greenlet.dead
    other.send(b'first')
    assert greenlet.get() == b'first' and at_rest(sock)


def test_another_watcher(ends):
    """The socket's present one is waited for."""
    sock, other = ends.pair()
    third, fourth = ends.pair()
    former, sock._read_event = sock._read_event, third._read_event
    try:
        greenlet = start(third._read_event, sock.recv, 10)
        other.send(b'data')
        gevent.sleep(0.002)
        assert not greenlet.dead
        fourth.send(b'wakes it')
        assert greenlet.get() == b'data'
    finally:
        sock._read_event = former


def test_watcher_replaced_while_it_waits(ends):
    """The one that was started is stopped."""
    sock, other = ends.pair()
    event = sock._read_event
    greenlet = starts(sock, sock.recv, 10)
    sock._read_event = get_hub().loop.io(sock.fileno(), 1)
    other.send(b'data')
    assert greenlet.get() == b'data'
    assert (event.active, event.callback) == (False, None) and at_rest(sock)
    event.close()


class Watcher:
    """Something else in the place of a watcher."""

    def __init__(self, event):
        self.event, self.log = event, []

    callback = property(lambda self: self.event.callback)
    args = property(lambda self: self.event.args)
    active = property(lambda self: self.event.active)

    def start(self, *args):
        self.log.append('start')
        self.event.start(*args)

    def stop(self):
        self.log.append('stop')
        self.event.stop()

    def close(self):
        self.event.close()


def test_something_like_a_watcher(ends):
    """Its methods are called."""
    sock, other = ends.pair()
    for timeout in None, 5:
        sock.timeout = timeout
        event = sock._read_event = Watcher(sock._read_event)
        greenlet = starts(sock, sock.recv, 10)
        assert event.log == ['start']
        other.send(b'data')
        assert greenlet.get() == b'data' and event.log == ['start', 'stop']
        sock._read_event = event.event


# -- the hub of the socket ------------------------------------------------------------------------

def test_no_hub(side):
    """Then that of the thread."""
    for timeout in None, 5:
        side.sock.hub, side.sock.timeout = None, timeout
        greenlet = side.start()
        side.make_ready()
        assert side.succeeded(greenlet.get()) and at_rest(side.sock)
        if not side.reads:
            side.count = fill(side.sock)
    side.sock.hub = get_hub()


def test_hub_that_computes_its_attributes(side, monkeypatch):
    """It is asked for wait() each time."""
    asked = []

    def compute(self, name):
        if name == 'wait' and gevent.getcurrent() is not self and gevent.getcurrent() is not main:
            asked.append(name)
        return object.__getattribute__(self, name)
    main = gevent.getcurrent()
    monkeypatch.setattr(type(get_hub()), '__getattribute__', compute, raising=False)
    greenlet = side.start()
    assert asked == ['wait']
    side.make_ready()
    assert side.succeeded(greenlet.get()) and at_rest(side.sock)


@pytest.mark.parametrize('where', ['hub', 'class'])
def test_wait_of_the_hub_replaced(side, where):
    """What a program puts there is called, and nothing afterwards."""
    hub, calls = get_hub(), []
    owner = hub if where == 'hub' else type(hub)

    def wait(*args):
        calls.append(args[-1])
        raise LookupError('instead')
    owner.wait = wait
    try:
        for timeout in None, 50:
            side.sock.timeout = timeout
            assert raised(side.call) == (LookupError, ('instead',))
    finally:
        del owner.wait
    assert calls == [side.event] * 2
    assert side.works()


def test_switch_out(side):
    """A greenlet's own switch_out() is called before it waits, and may refuse."""
    log = []

    class Own(gevent.Greenlet):
        def switch_out(self):
            log.append(self)
            if len(log) > 1:
                raise LookupError('refused')
    greenlet = Own.spawn(lambda: outcome(side.call))
    until(lambda: side.event.active)
    assert log == [greenlet]
    side.make_ready()
    assert side.succeeded(greenlet.get())
    if not side.reads:
        fill(side.sock)
    greenlet = Own.spawn(lambda: outcome(side.call))
    assert seen(greenlet.get()) == (LookupError, ('refused',)) and at_rest(side.sock)


# -- what others see and do -----------------------------------------------------------------------

@pytest.mark.parametrize('name', ['recv_into', 'recvfrom_into'])
def test_buffer_changes_while_it_waits(ends, name):
    """Nobody holds it: it can be resized, and what it is afterwards is written to."""
    sock, other = ends.pair()
    for size, expected in [(2, b'da'), (8, b'data\0\0\0\0')]:
        buffer = bytearray(4)
        greenlet = starts(sock, getattr(sock, name), buffer)
        buffer[:] = bytes(size)
        other.send(b'data')
        count = min(size, 4)
        assert greenlet.get() == (count if name == 'recv_into' else (count, None))
        assert buffer == expected
        assert count == 4 or sock.recv(10) == b'ta'
    buffer = bytearray(4)
    greenlet = starts(sock, getattr(sock, name), buffer, 4)
    buffer.pop()
    other.send(b'data')
    assert seen(greenlet.get())[0] is ValueError
    assert sock.recv(10) == b'data' and at_rest(sock)


@pytest.mark.parametrize('name', ['recv_into', 'recvfrom_into'])
def test_view_released_while_it_waits(ends, name):
    sock, other = ends.pair()
    view = memoryview(bytearray(4))
    greenlet = starts(sock, getattr(sock, name), view)
    view.release()
    other.send(b'data')
    assert seen(greenlet.get()) == raised(getattr(sock._sock, name), view)
    assert sock.recv(10) == b'data' and at_rest(sock)


def test_arguments_are_looked_at_each_time(ends):
    """Before it waits, and after."""
    sock, other = ends.pair()

    class Index:
        values = [1, 2, 3]

        def __index__(self):
            return self.values.pop(0)
    greenlet = starts(sock, sock.recv, Index())
    other.send(b'data')
    assert greenlet.get() == b'da' and Index.values == [3]


def test_arguments_live_as_long_as_it_waits(ends):
    """And no longer."""
    class Bytes(bytearray):
        pass
    for function in recv_into, recvfrom_into:
        sock, other = ends.pair()
        buffer = Bytes(4)
        alive = weakref.ref(buffer)
        greenlet = starts(sock, getattr(sock, function.__name__), buffer)
        del buffer
        assert alive() is not None
        other.send(b'data')
        greenlet.get()
        del greenlet
        gc.collect()
        assert alive() is None
    for name in 'send', 'sendall':
        sock, other = ends.pair()
        count, buffer = fill(sock), Bytes(b'data')
        alive = weakref.ref(buffer)
        greenlet = start(sock._write_event, getattr(sock, name), buffer)
        del buffer
        assert alive() is not None
        drain(other, count)
        greenlet.get()
        del greenlet
        gc.collect()
        assert alive() is None and other.recv(10) == b'data'


def test_socket_lives_as_long_as_somebody_waits(ends):
    """Even if nobody else has it; and no longer."""
    one, other = native.socketpair()
    other = ends.natives(other)
    sock = socket.socket(one.family, one.type, fileno=one.detach())
    greenlet, alive = starts(sock, lambda one: one.recv(10), sock), weakref.ref(sock)
    raw = sock._sock
    del sock
    gc.collect()
    assert alive() is not None
    other.send(b'data')
    assert greenlet.get() == b'data'
    del greenlet
    gc.collect()
    assert alive() is None
    raw.close()


def test_references(ends):
    """Nothing more is kept after many waits of all sorts."""
    sock, other = ends.pair()
    sock.timeout = 0.0005
    buffer, data = bytearray(4), b'0123456789'
    objects = [sock, sock._sock, sock._read_event, sock._write_event, sock.hub, buffer, data]

    def waits():
        for read in sock.recv, sock.recvfrom, sock.recv_into, sock.recvfrom_into:
            arg = 5 if read.__name__ in ('recv', 'recvfrom') else buffer
            sock.timeout = 0.0005
            raised(read, arg)
            sock.timeout = None
            greenlet = starts(sock, read, arg)
            assert type(outcome(read, arg)) is ConcurrentObjectUseError
            greenlet.kill()
            greenlet = starts(sock, read, arg)
            other.send(b'data')
            greenlet.get()
        count = fill(sock)
        for write in sock.send, sock.sendall:
            sock.timeout = 0.0005
            raised(write, data)
            sock.timeout = None
            start(sock._write_event, write, data).kill()
        greenlet = start(sock._write_event, sock.sendall, data)
        drain(other, count)
        greenlet.get()
        drain(other, 10)
    for _ in range(3):
        waits()
    gevent.sleep(0.002)
    gc.collect()
    before = [sys.getrefcount(one) for one in objects]
    for _ in range(15):
        waits()
    gevent.sleep(0.002)
    gc.collect()
    assert [sys.getrefcount(one) for one in objects] == before


def test_exceptions_being_handled(side):
    """Are of the greenlet: each has its own, before and after."""
    def waits():
        try:
            raise LookupError('mine')
        except LookupError as mine:
            result = outcome(side.call)
            return result, sys.exc_info()[1] is mine, mine
    greenlet = gevent.spawn(waits)
    until(lambda: side.event.active)
    assert sys.exc_info() == (None, None, None)
    try:
        raise KeyError('another')
    except KeyError as another:
        side.make_ready()
        result, kept, _ = greenlet.get()
        assert sys.exc_info()[1] is another
    assert kept and side.succeeded(result)


def test_context_of_what_ends_it(side):
    """What was handled when it began."""
    def waits():
        try:
            raise LookupError('mine')
        except LookupError as mine:
            return mine, outcome(side.call)
    side.sock.timeout = 0.001
    mine, error = waits()
    assert seen(error) == TIMED_OUT and error.__context__ is None
    side.sock.timeout = None
    greenlet = gevent.spawn(waits)
    until(lambda: side.event.active)
    thrown = ValueError('thrown')
    greenlet.kill(thrown)
    mine, error = greenlet.get()
    assert error is thrown and error.__context__ is None


def test_signal(ends):
    """A Python handler runs while the loop waits, and the wait goes on."""
    sock, other = ends.pair()
    log = []

    def on_signal(number, frame):
        log.append(number)
        other.send(b'after the signal')
    former = signal.signal(signal.SIGUSR1, on_signal)
    main = threading.main_thread().ident

    def send_signals():
        while not log:
            time.sleep(0.002)
            signal.pthread_kill(main, signal.SIGUSR1)
    thread = threading.Thread(target=send_signals)
    # wakes the loop up, which some versions of gevent need to run handlers
    ticker = gevent.spawn(lambda: [gevent.sleep(0.002) for _ in iter(lambda: log, None)])
    try:
        thread.start()
        assert sock.recv(100).startswith(b'after the signal')
        thread.join(5)
    finally:
        ticker.kill()
        signal.signal(signal.SIGUSR1, former)
    assert set(log) == {signal.SIGUSR1} and at_rest(sock)


def test_signal_handler_that_raises(ends, errors):
    """Its exception goes to the main greenlet, and the reader, another one, goes on waiting."""
    sock, other = ends.pair()
    greenlet = starts(sock, sock.recv, 10)

    def on_signal(number, frame):
        raise LookupError('in the handler')
    former = signal.signal(signal.SIGUSR1, on_signal)
    try:
        with pytest.raises(LookupError):
            signal.raise_signal(signal.SIGUSR1)
            gevent.sleep(0.01)
    finally:
        signal.signal(signal.SIGUSR1, former)
    assert not greenlet.dead
    other.send(b'data')
    assert greenlet.get() == b'data' and at_rest(sock) and errors == []
