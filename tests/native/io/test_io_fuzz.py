"""Random lives of sockets: what is read, written, waited for, killed, closed, in any order.

Each byte says where in the stream it belongs, so none is lost, doubled or out of place unnoticed.
The same lives in each run; with GEVENT_CBASE_TESTS=nightly many more, and others each time.
"""
import contextlib
import os
import socket as native
import struct

import gevent
import pytest
from gevent._socketcommon import cancel_wait_ex
from gevent.exceptions import (
    BlockingSwitchOutError, ConcurrentObjectUseError, InvalidSwitchError)
from hypothesis import HealthCheck, given, settings, strategies as st

from ends import (
    AGAIN, CLOSED, READS, TIMED_OUT, WRITES, Ends, at_rest, collect, difference, drain, fill,
    in_hub, raised, reset, seen, start, starts)
from helpers import outcome, until

NIGHTLY = os.environ.get('GEVENT_CBASE_TESTS') == 'nightly'

pytestmark = [pytest.mark.no_deadline,
              pytest.mark.filterwarnings('ignore:libuv only supports millisecond timer')]


def examples(count):
    return settings(
        max_examples=count * (100 if NIGHTLY else 1), derandomize=not NIGHTLY, deadline=None,
        database=None, suppress_health_check=list(HealthCheck))


#: no period of the size of a buffer: 251 is a prime
STREAM = bytes(number % 251 for number in range(251 * 70000))
SIZES = st.one_of(st.integers(1, 9), st.integers(1, 3000), st.sampled_from([4096, 65536]))


# -- one socket, of which is known what it must do --------------------------------------------

class Grave(BaseException):
    """No Exception."""


class Life:
    """A connection, and what there is to read at each of its ends."""

    def __init__(self, ends):
        self.ends, self.sent, self.written = ends, 0, 0
        self.open()

    def open(self):
        """A new connection, whose descriptor often is that of the one before."""
        self.sock, self.other = self.ends.pair()
        self.here, self.there = b'', b''
        self.ended = self.closed = False
        self.reader = self.size = None

    def feed(self, size):
        """The other end sends."""
        if self.ended or self.closed or len(self.here) > 50000:
            return
        data = STREAM[self.sent:self.sent + size]
        assert self.other.send(data) == size
        self.sent += size
        self.here += data
        if self.reader is not None:
            assert self.woken() == self.take(self.size)

    def woken(self):
        """What the greenlet that waits gets, now that it must."""
        reader, self.reader = self.reader, None
        result = reader.get(timeout=8)
        assert self.closed or at_rest(self.sock)
        return result

    def take(self, size):
        data, self.here = self.here[:size], self.here[size:]
        return data

    def read(self, function, size, flags, where):
        """Here, in another greenlet, or in the hub."""
        call = [function, self.sock, size] + [flags] * (flags != 0)
        if self.closed:
            assert raised(*call) == CLOSED
        elif self.here or self.ended:
            expected = self.here[:size]
            if flags != native.MSG_PEEK:
                self.take(size)
            run = {'hub': in_hub, 'greenlet': lambda f: gevent.spawn(f).get()}.get(
                where, lambda f: f())
            assert run(lambda: outcome(*call)) == expected
        elif self.sock.timeout == 0.0:
            assert raised(*call) == AGAIN
        elif self.reader is not None:
            assert raised(*call)[0] is ConcurrentObjectUseError
            assert self.sock._read_event.active
        elif where == 'hub':
            assert seen(in_hub(lambda: outcome(*call)))[0] is BlockingSwitchOutError
            assert at_rest(self.sock)
        elif self.sock.timeout == 0.001:
            assert raised(*call) == TIMED_OUT and at_rest(self.sock)
        elif flags != native.MSG_PEEK:
            self.reader, self.size = starts(self.sock, *call), size

    def write(self, function, size, view):
        if len(self.there) > 50000:
            return
        data = STREAM[self.written:self.written + size]
        given = [data, bytearray(data), memoryview(data)][view]
        if self.closed:
            assert raised(function, self.sock, given) == CLOSED
            return
        assert function(self.sock, given) == size
        self.written += size
        self.there += data

    def answer(self, size):
        """The other end reads."""
        data, self.there = self.there[:size], self.there[size:]
        assert drain(self.other, len(data)) == data

    def end(self, how):
        """The other end sends nothing more."""
        if not self.closed and not self.ended:
            self.ended = True
            self.other.shutdown(native.SHUT_WR)
            if self.reader is not None:
                assert self.woken() == b''

    def stop(self, error):
        """The greenlet that waits is told something else."""
        if self.reader is None:
            return
        if error == 'switch':
            gevent.get_hub().loop.run_callback(self.reader.switch, 'x')
            assert type(self.woken()) is InvalidSwitchError
        elif error == 'cancel':
            gevent.get_hub().cancel_wait(self.sock._read_event, LookupError)
            assert type(self.woken()) is LookupError
        else:
            gevent.kill(self.reader, error)
            assert self.woken() is error

    def set_timeout(self, value):
        """The one that counts next, not for who waits already."""
        self.sock.timeout = value

    def close(self, how):
        """Then another connection begins."""
        if self.closed:
            self.open()
            return
        self.closed = True
        if how == 'close':
            self.sock.close()
        elif how == 'detach':
            os.close(self.sock.detach())
        if self.reader is not None:
            assert type(self.woken()) is cancel_wait_ex
        until(lambda: not self.sock._sock)
        rest = b''.join(iter(lambda: self.other.recv(1 << 16), b'')) if not self.here else None
        assert rest in (None, self.there)
        self.here = self.there = b''

    def twin(self, size):
        """The same through another descriptor, whose socket knows nothing of this one."""
        if not self.closed and self.here:
            twin = self.ends.dup(self.sock)
            assert twin.recv(size) == self.take(size)
            twin.close()


STEPS = st.one_of(
    st.tuples(st.just('feed'), SIZES),
    st.tuples(st.just('read'), st.sampled_from(READS), SIZES,
              st.sampled_from([0, 0, 0, native.MSG_PEEK, native.MSG_DONTWAIT]),
              st.sampled_from(['here', 'here', 'hub', 'greenlet'])),
    st.tuples(st.just('write'), st.sampled_from(WRITES), SIZES, st.integers(0, 2)),
    st.tuples(st.just('answer'), SIZES),
    st.tuples(st.just('stop'), st.sampled_from([
        gevent.GreenletExit('killed'), ValueError('thrown'), Grave('thrown'), TimeoutError('no'),
        BlockingIOError(11, 'thrown'), 'switch', 'cancel'])),
    st.tuples(st.just('set_timeout'), st.sampled_from([None, None, 0.0, 0.001, 50, 50])),
    st.tuples(st.just('twin'), SIZES),
    st.tuples(st.sampled_from(['feed', 'read_all']), st.just(1)),
    st.tuples(st.just('end'), st.none()),
    st.tuples(st.just('close'), st.sampled_from(['close', 'detach'])))


def test_lives(impl):
    """Each step does exactly what it must."""
    @examples(120)
    @given(st.lists(STEPS, min_size=5, max_size=40))
    def live(steps):
        with Ends() as ends:
            life = Life(ends)
            for name, *args in steps:
                if name == 'read_all':
                    name, args = 'read', [READS[0], 1 << 17, 0, 'here']
                getattr(life, name)(*args)
            life.stop(ValueError('the end'))
            if not life.closed:
                life.sock.timeout = 0.0
                life.read(READS[0], 1 << 17, 0, 'here')
                life.answer(len(life.there))
                assert at_rest(life.sock)
    live()


# -- who shares a socket ----------------------------------------------------------------------

LANES = 2


def pause():
    """Lets others run; may be stopped, as everything."""
    with contextlib.suppress(LookupError):
        gevent.sleep(0)


class Writer:
    """Sends its own bytes, which tell whose they are and how many came before."""

    def __init__(self, sock, lane, sizes):
        self.sock, self.lane, self.sizes, self.count = sock, lane, sizes, 0
        self.stopped = 0

    def bytes(self, size):
        return bytes(self.lane << 7 | number % 127
                     for number in range(self.count, self.count + size))

    def run(self):
        """A send() that was stopped while it waited has sent nothing."""
        for size in self.sizes:
            end = self.count + size
            while self.count < end:
                try:
                    self.count += self.sock.send(self.bytes(end - self.count))
                except (ConcurrentObjectUseError, TimeoutError, LookupError):
                    self.stopped += 1
                pause()


class Reader:
    """Reads, with others, what all of them put into one list."""

    def __init__(self, sock, got, calls):
        self.sock, self.got, self.calls, self.stopped = sock, got, calls, 0

    def run(self):
        """Until the end of the file."""
        number, data = 0, b'-'
        while data:
            read, size = self.calls[number % len(self.calls)]
            number += 1
            try:
                data = read(self.sock, size)
                self.got += data
            except (ConcurrentObjectUseError, TimeoutError, LookupError):
                self.stopped += 1
                pause()
            if number % 3 == 0:
                pause()


PIECES = st.lists(st.one_of(st.integers(1, 2000), st.just(20000)), max_size=6)
CALLS = st.lists(st.tuples(st.sampled_from(READS), st.one_of(
    st.integers(30, 90), st.integers(1000, 200000))), min_size=1, max_size=8)


def test_shared(impl):
    """Two write, two read, each is stopped now and then; the buffers are small."""
    @examples(15)
    @given(st.sampled_from(['pair', 'tcp']), PIECES, PIECES, CALLS, CALLS,
           st.lists(st.integers(0, 3), max_size=25),
           st.sampled_from([None, 5, 0.001]))
    def share(kind, first, second, calls, more_calls, victims, timeout):
        with Ends() as ends:
            one, other = getattr(ends, kind)()
            other.setblocking(False)
            two = ends.gevents(other)
            one.setsockopt(native.SOL_SOCKET, native.SO_SNDBUF, 4096)
            one.timeout = two.timeout = timeout
            got = bytearray()
            writers = [Writer(one, lane, sizes) for lane, sizes in enumerate((first, second))]
            readers = [Reader(two, got, calls), Reader(two, got, more_calls)]
            running = [gevent.spawn(worker.run) for worker in writers + readers]
            for victim in victims:
                gevent.sleep(0)
                if running[victim]:
                    gevent.kill(running[victim], LookupError('stopped'))
            gevent.joinall(running[:LANES], timeout=30, raise_error=True)
            one.shutdown(native.SHUT_WR)
            gevent.joinall(running, timeout=30, raise_error=True)
            assert all(greenlet.successful() for greenlet in running)
            for writer in writers:
                assert writer.count == sum(writer.sizes)
                lane = bytes(byte & 127 for byte in got if byte >> 7 == writer.lane)
                writer.count = 0
                expected = bytes(number % 127 for number in range(sum(writer.sizes)))
                assert difference(lane, expected) is None
            assert at_rest(one) and at_rest(two)
    share()


# -- sendall() that does not come to its end --------------------------------------------------

STOPS = st.sampled_from(['kill', 'timeout', 'own timeout', 'switch', 'nothing', 'nothing'])


def test_interrupted(impl):
    """What was sent is a beginning of what should have been, and what comes next follows it."""
    @examples(40)
    @given(st.lists(st.tuples(st.integers(1, 1 << 20), STOPS, SIZES,
                              st.integers(0, 4)), min_size=1, max_size=5))
    def interrupt(calls):
        with Ends() as ends:
            sock, other = ends.pair()
            position = 0
            for size, stop, part, count in calls:
                data = memoryview(STREAM)[position:position + size]
                sock.timeout = 0.005 if stop == 'own timeout' else None
                greenlet = gevent.spawn(outcome, sock.sendall, data)
                gevent.sleep(0)
                got = b''
                other.setblocking(False)
                for _ in range(count):
                    piece = outcome(other.recv, part)
                    got += piece if isinstance(piece, bytes) else b''
                    gevent.sleep(0)
                if not greenlet.dead and stop == 'kill':
                    greenlet.kill(LookupError('stopped'))
                elif not greenlet.dead and stop == 'timeout':
                    greenlet.kill(gevent.Timeout(None))
                elif not greenlet.dead and stop == 'switch':
                    gevent.get_hub().loop.run_callback(greenlet.switch)
                elif stop == 'own timeout':
                    greenlet.join()
                got += collect(other, greenlet)
                result = greenlet.get()
                assert difference(got, STREAM[position:position + len(got)]) is None
                assert len(got) == size if result is None else len(got) < size
                assert result is None or type(result) in (
                    LookupError, gevent.Timeout, InvalidSwitchError, TimeoutError)
                position += len(got)
                assert at_rest(sock)
    interrupt()


def test_peers_that_leave(impl):
    """Whoever reads gets all that was sent before, whoever writes is told in the end."""
    @examples(40)
    @given(st.sampled_from(['pair', 'tcp']), st.sampled_from(['close', 'reset', 'shut down']),
           st.lists(SIZES, min_size=1, max_size=10), CALLS, st.integers(0, 12), st.booleans())
    def leave(kind, how, sizes, calls, before, blocked):
        with Ends() as ends:
            sock, other = getattr(ends, kind)()
            if kind == 'tcp':  # or a short segment waits in the peer, and is lost if that resets
                other.setsockopt(native.IPPROTO_TCP, native.TCP_NODELAY, 1)
            sock.timeout = 5
            got, errors, position = bytearray(), [], 0
            writer = None
            if blocked:
                fill(sock)
                writer = start(sock._write_event, sock.sendall, b'never read')

            def read():
                data = b'-'
                while data:
                    for function, size in calls:
                        data = outcome(function, sock, size)
                        if isinstance(data, Exception):
                            errors.append(data)
                            data = b'-'
                            continue
                        got.extend(data)
            reader = gevent.spawn(read)
            for number, size in enumerate(sizes):
                if number == before:
                    gevent.sleep(0)
                other.sendall(STREAM[position:position + size])
                position += size
                until(lambda: len(got) >= position - 60000)
            if how == 'reset' and kind == 'tcp':
                reset(other)
            elif how == 'shut down':
                other.shutdown(native.SHUT_WR)
            else:
                other.close()
            reader.get(timeout=8)
            assert difference(got, STREAM[:position]) is None
            assert [type(error) for error in errors] in ([], [ConnectionResetError])
            assert errors == [] or how != 'shut down'
            if writer is not None and how == 'shut down':
                writer.kill()
            if writer is not None:
                assert isinstance(writer.get(timeout=8), (ConnectionError, gevent.GreenletExit))
            assert at_rest(sock)
    leave()


# -- datagrams --------------------------------------------------------------------------------

def test_datagrams(impl):
    """Each arrives once, whole or cut to the size that was asked for, in order."""
    @examples(60)
    @given(st.sampled_from(['unix', 'udp']), st.lists(st.one_of(
        st.tuples(st.just('send'), st.integers(0, 300)),
        st.tuples(st.just('read'), st.sampled_from(READS), st.integers(1, 400)),
        st.tuples(st.just('wait'), st.sampled_from(READS), st.integers(1, 400)),
        st.tuples(st.just('kill'))), max_size=40))
    def exchange(kind, steps):
        with Ends() as ends:
            sock, other = ends.pair(type=native.SOCK_DGRAM) if kind == 'unix' else ends.udp()
            if kind == 'udp':
                other.connect(sock.getsockname())
            queue, number, waiting = [], 0, None
            for name, *args in steps:
                if name == 'send' and len(queue) < 5:
                    data = struct.pack('>H', number) * args[0]
                    number += 1
                    assert other.send(data) == len(data)
                    if waiting:
                        greenlet, size = waiting
                        waiting = None
                        assert greenlet.get(timeout=8) == data[:size] and at_rest(sock)
                    else:
                        queue.append(data)
                elif name == 'read' and queue:
                    function, size = args
                    assert function(sock, size) == queue.pop(0)[:size]
                elif name == 'wait' and not queue and not waiting:
                    waiting = starts(sock, *[args[0], sock, args[1]]), args[1]
                elif name == 'kill' and waiting:
                    waiting[0].kill()
                    assert type(waiting[0].get()) is gevent.GreenletExit and at_rest(sock)
                    waiting = None
            if waiting:
                waiting[0].kill()
            sock.timeout = 0.0
            assert [sock.recv(1000) for _ in queue] == queue and raised(sock.recv, 1) == AGAIN
    exchange()
