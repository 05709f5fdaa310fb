"""send(), sendall(), sendto() of gevent's sockets: arguments, what is sent, what they return."""
import array
import ctypes
import errno
import gc
import hashlib
import mmap
import os
import random
import socket as native
import sys
import threading
import types

import gevent
import pytest
from gevent import _socketcommon, socket

from ends import (
    AGAIN, CLOSED, MUCH, TIMED_OUT, WRITES, Ends, at_rest, collect, difference, drain, fill,
    raised, reset, seen, sendto, start)
from helpers import outcome, until

writes = pytest.mark.parametrize('write', WRITES)
every = pytest.mark.parametrize('write', WRITES + [sendto])
names = pytest.mark.parametrize('name', ['send', 'sendall'])

PIPE = BrokenPipeError, (errno.EPIPE, os.strerror(errno.EPIPE))
RESET = ConnectionResetError, (errno.ECONNRESET, os.strerror(errno.ECONNRESET))


@pytest.fixture
def ends(impl):
    with Ends() as made:
        yield made


def nothing_came(other):
    other.setblocking(False)
    assert raised(other.recv, 1) == AGAIN
    other.settimeout(5)


# -- arguments ------------------------------------------------------------------------------------

NUMBERS = {
    'send': [((), {}, "missing 1 required positional argument: 'data'"),
             ((b'x', 0, 1, 2), {}, 'takes from 2 to 4 positional arguments but 5 were given'),
             ((b'x',), {'size': 1}, "got an unexpected keyword argument 'size'"),
             ((b'x',), {'data': b'x'}, "got multiple values for argument 'data'"),
             ((b'x', 0), {'flags': 0}, "got multiple values for argument 'flags'"),
             ((), {'flags': 0}, "missing 1 required positional argument: 'data'")],
    'sendall': [((), {}, "missing 1 required positional argument: 'data'"),
                ((b'x', 0, 1), {}, 'takes from 2 to 3 positional arguments but 4 were given'),
                ((b'x',), {'timeout': 1}, "got an unexpected keyword argument 'timeout'"),
                ((b'x',), {'data': b'x'}, "got multiple values for argument 'data'"),
                ((), {'flags': 0}, "missing 1 required positional argument: 'data'")],
    'sendto': [((b'x',), {'address': ''}, "got an unexpected keyword argument 'address'")]}


@pytest.mark.parametrize('name', NUMBERS)
def test_number_of_arguments(ends, name):
    sock, other = ends.pair()
    for args, keywords, text in NUMBERS[name]:
        assert raised(getattr(sock, name), *args, **keywords) == (
            TypeError, ('SocketMixin.%s() %s' % (name, text),))
    assert raised(getattr(socket.socket, name)) == (TypeError, (
        'SocketMixin.%s() missing %s' % (name, {
            'sendto': "1 required positional argument: 'self'"}.get(
                name, "2 required positional arguments: 'self' and 'data'")),))
    nothing_came(other)


@pytest.mark.parametrize('args', [
    (), (b'x',), (b'x', 0, ('127.0.0.1', 9), 1)], ids=['0', '1', '4'])
def test_number_of_arguments_of_sendto(ends, args):
    """The raw function counts them."""
    sock, _ = ends.udp()
    assert raised(sock.sendto, *args) == (
        TypeError, ('sendto() takes 2 or 3 arguments (%d given)' % len(args),))


def test_keywords(ends):
    sock, other = ends.pair()
    assert sock.send(data=b'a') == sock.send(b'b', flags=0) == sock.send(b'c', timeout=None) == 1
    assert sock.send(timeout=0.0, flags=native.MSG_DONTWAIT, data=b'd') == 1
    assert sock.send(b'e', 0, 5) == 1
    assert sock.sendall(data=b'f') is sock.sendall(flags=0, data=b'g') is None
    assert sock.sendall(b'h', flags=0) is sock.sendall(b'i', 0) is None
    assert socket.socket.send(sock, b'j') == socket.socket.send(self=sock, data=b'k') == 1
    assert socket.socket.sendall(sock, b'l') is socket.socket.sendall(data=b'm', self=sock) is None
    assert _socketcommon.SocketMixin.send(sock, *[b'n'], **{}) == 1
    assert other.recv(100) == b'abcdefghijklmn'


NO_BYTES = {'text': 'x', 'None': None, 'int': 5, 'list': [b'x'], 'object': object()}


@pytest.mark.parametrize('kind', NO_BYTES)
def test_no_bytes(ends, kind):
    """sendall() has its own text: it makes a view first."""
    sock, other = ends.pair()
    data, name = NO_BYTES[kind], type(NO_BYTES[kind]).__name__
    text = "a bytes-like object is required, not '%s'" % name
    for flags in (), (0,), ('wrong',):
        if flags != ('wrong',):
            assert raised(sock.send, data, *flags) == (TypeError, (text,))
        assert raised(sock.sendall, data, *flags) == (TypeError, ('memoryview: ' + text,))
    assert raised(sock.sendto, data, '') == (TypeError, (text,))
    nothing_came(other)


#: what CPython says of numbers that are no int in C
TOO_LARGE, HUGE = ('Python int too large to convert to C int',) * 2 if (
    sys.version_info >= (3, 15)) else (
    'signed integer is greater than maximum', 'Python int too large to convert to C long')


@writes
@pytest.mark.parametrize('flags, error', [
    ('0', (TypeError, ("'str' object cannot be interpreted as an integer",))),
    (None, (TypeError, ("'NoneType' object cannot be interpreted as an integer",))),
    (0.0, (TypeError, ("'float' object cannot be interpreted as an integer",))),
    (1 << 31, (OverflowError, (TOO_LARGE,))),
    (1 << 70, (OverflowError, (HUGE,)))],
    ids=['text', 'None', 'float', 'large', 'huge'])
def test_wrong_flags(ends, write, flags, error):
    sock, other = ends.pair()
    assert raised(write, sock, b'data', flags) == error
    assert sock.sendall(b'', flags) == 0  # nobody looks at them
    nothing_came(other)


@writes
def test_flags(ends, write):
    sock, other = ends.pair()
    for flags in native.MSG_NOSIGNAL, native.MSG_DONTWAIT, int(native.MSG_DONTWAIT), False:
        assert write(sock, b'data', flags) == 4 and other.recv(10) == b'data'
    sock, other = ends.tcp()
    other.setblocking(True)
    assert write(sock, b'ab!', native.MSG_OOB) == 3
    assert other.recv(10) == b'ab' and other.recv(10, native.MSG_OOB) == b'!'


def test_out_of_place(ends):
    """What is no socket of gevent's."""
    for name in 'send', 'sendall', 'sendto':
        function = getattr(socket.socket, name)
        error = outcome(function, object(), b'x')
        assert type(error) is AttributeError
        assert str(error) == "'object' object has no attribute '%s'" % {
            'send': 'timeout', 'sendall': 'getsockopt', 'sendto': '_sock'}[name]
    assert socket.socket.sendall(None, b'') == 0
    calls = []
    namesake = types.SimpleNamespace(
        timeout=None, send=lambda *args: calls.append(args) or 2, getsockopt=lambda *args: 5)
    assert socket.socket.sendall(namesake, b'four', 9) is None
    assert [(bytes(data), flags) for data, flags in calls] == [(b'four', 9), (b'ur', 9)]


# -- buffers --------------------------------------------------------------------------------------

def mapped():
    area = mmap.mmap(-1, 8)
    area[:] = b'ABCDEFGH'
    return area


BUFFERS = {
    'bytes': lambda: b'ABCDEFGH', 'bytearray': lambda: bytearray(b'ABCDEFGH'),
    'subclass': lambda: type('Bytes', (bytes,), {})(b'ABCDEFGH'),
    'view': lambda: memoryview(b'ABCDEFGH'), 'part': lambda: memoryview(b'..ABCDEFGH.')[2:10],
    'array': lambda: array.array('b', b'ABCDEFGH'),
    'longs': lambda: array.array('Q', b'ABCDEFGH'),
    'shorts': lambda: array.array('H', b'ABCDEFGH'),
    'view_of_shorts': lambda: memoryview(b'ABCDEFGH').cast('H'),
    'two_dimensions': lambda: memoryview(b'ABCDEFGH').cast('B', (2, 4)),
    'mmap': mapped, 'ctypes': lambda: (ctypes.c_char * 8)(*b'ABCDEFGH'),
    'scalar': lambda: ctypes.c_uint64(int.from_bytes(b'ABCDEFGH', sys.byteorder))}


@pytest.mark.parametrize('kind', BUFFERS)
def test_buffers(ends, kind):
    """Whatever the items are, it is bytes that are sent and counted."""
    sock, other = ends.pair()
    for timeout in None, 5:
        sock.timeout = timeout
        assert sock.send(BUFFERS[kind]()) == 8 and other.recv(100) == b'ABCDEFGH'
        assert sock.sendall(BUFFERS[kind]()) is None and other.recv(100) == b'ABCDEFGH'


@writes
def test_not_contiguous(ends, write):
    sock, other = ends.pair()
    for step in 2, -1:
        assert raised(write, sock, memoryview(bytes(8))[::step]) == (
            BufferError, ('memoryview: underlying buffer is not C-contiguous',))
    nothing_came(other)


@writes
def test_released_view(ends, write):
    sock, other = ends.pair()
    view = memoryview(b'data')
    view.release()
    assert raised(write, sock, view) == (
        ValueError, ('operation forbidden on released memoryview object',))
    nothing_came(other)


@writes
def test_buffer_is_let_go(ends, write):
    """It can be resized after each call, also after one that failed."""
    sock, other = ends.pair()
    buffer = bytearray(b'data')
    write(sock, buffer)
    buffer += b'.'
    raised(write, sock, buffer, 'wrong')
    buffer += b'.'
    fill(sock)
    sock.timeout = 0.0
    assert raised(write, sock, buffer) == AGAIN
    buffer += b'.'
    sock._sock.close()
    assert raised(write, sock, buffer) == CLOSED
    buffer += b'.'
    assert buffer == b'data....'


# -- what is sent ---------------------------------------------------------------------------------

def test_results(ends):
    """How many bytes; sendall() of something has nothing to say, of nothing it says 0."""
    sock, other = ends.tcp()
    assert sock.send(b'abc') == 3 and sock.send(b'') == 0
    assert type(sock.send(b'd')) is int
    assert sock.sendall(b'efg') is None
    for nothing in b'', bytearray(), memoryview(b''), array.array('H'), memoryview(b'x')[1:]:
        assert sock.sendall(nothing) == 0 and type(sock.sendall(nothing)) is int
    assert drain(other, 7) == b'abcdefg'
    nothing_came(other)


def test_nothing_to_send(ends):
    """sendall() asks nobody: no timeout, no descriptor; send() and sendto() ask the kernel."""
    sock, other = ends.pair()
    fill(sock)
    sock.timeout = 0.0
    assert sock.sendall(b'') == 0
    sock.close()
    assert sock.sendall(b'') == 0 and raised(sock.send, b'') == CLOSED
    assert raised(sock.sendto, b'', '') == CLOSED
    sock, other = ends.pair(type=native.SOCK_DGRAM)
    assert sock.sendall(b'') == 0
    nothing_came(other)
    assert sock.send(b'') == 0 and other.recv(10) == b''


@pytest.mark.parametrize('size', [1, 2, 1023, 1024, 1 << 16])
@writes
def test_sizes(ends, write, size):
    sock, other = ends.tcp()
    data = os.urandom(size)
    for timeout in None, 5, 0.0:
        sock.timeout = timeout
        assert write(sock, data) == size and difference(drain(other, size), data) is None


@every
def test_not_blocking(ends, write):
    """Raises instead of waiting, and writes what fits."""
    sock, other = ends.tcp()
    sock.timeout = 0.0
    count = fill(sock)
    for quiet in 0.0, 0, False, -0.0:
        sock.timeout = quiet
        error = outcome(write, sock, b'more')
        assert seen(error) == AGAIN and error.__context__ is None
    assert at_rest(sock)
    assert len(drain(other, count)) == count
    until(lambda: outcome(write, sock, b'more') == 4)
    assert drain(other, 4) == b'more'


def test_timeout_of_one_send(ends):
    """Only tells whether to wait at all; how long is the socket's."""
    sock, other = ends.pair()
    fill(sock)
    for timeout in 0.0, 0, False:
        assert raised(sock.send, b'x', 0, timeout) == AGAIN
        assert raised(sock.send, b'x', timeout=timeout) == AGAIN
    sock.timeout = 0.0
    assert raised(sock.send, b'x', 0, 50) == raised(sock.send, b'x', timeout=None) == TIMED_OUT
    sock.timeout = 0.001
    assert raised(sock.send, b'x', 0, 50) == raised(sock.send, b'x', timeout=None) == TIMED_OUT
    assert raised(sock.send, b'x', 0, 0.0) == AGAIN
    assert at_rest(sock)


def test_part_of_it(ends):
    """send() sends what fits, sendall() too before it says that its time is over, of which there
    was none.
    """
    sock, other = ends.pair()
    count = sock.send(MUCH)
    assert 0 < count < len(MUCH)
    assert difference(drain(other, count), MUCH[:count]) is None
    nothing_came(other)
    sock.timeout = 0.0
    assert raised(sock.sendall, MUCH) == TIMED_OUT
    assert raised(sock.sendall, MUCH) == AGAIN
    other.setblocking(False)
    got = b''
    while isinstance(part := outcome(other.recv, 1 << 20), bytes):
        got += part
    assert seen(part) == AGAIN and len(got) > 0 and difference(got, MUCH[:len(got)]) is None


# -- errors ---------------------------------------------------------------------------------------

@writes
def test_reader_is_gone(ends, write):
    """EPIPE, each time; no signal."""
    sock, other = ends.pair()
    other.close()
    for _ in range(3):
        error = outcome(write, sock, b'data')
        assert seen(error) == PIPE and error.__context__ is None


@writes
def test_reset(ends, write):
    """Told once; then there is no connection."""
    sock, other = ends.tcp()
    reset(other)
    assert raised(write, sock, b'data') == RESET
    assert [raised(write, sock, b'data') for _ in range(2)] == [PIPE] * 2
    assert sock.recv(1) == b''


@writes
def test_shut_down(ends, write):
    """Nothing more can be sent, and what was is read; the other direction goes on."""
    sock, other = ends.tcp()
    assert write(sock, b'last') == 4
    sock.shutdown(native.SHUT_WR)
    assert raised(write, sock, b'data') == PIPE
    assert other.recv(10) == b'last' and other.recv(10) == b''
    other.send(b'answer')
    assert sock.recv(10) == b'answer'


def test_not_connected(ends):
    sock = socket.socket()
    with sock:
        for function in sock.send, sock.sendall:
            assert raised(function, b'x') == PIPE
    with socket.socket(type=native.SOCK_DGRAM) as sock:
        for function in sock.send, sock.sendall:
            assert raised(function, b'x') == (
                OSError, (errno.EDESTADDRREQ, os.strerror(errno.EDESTADDRREQ)))


def test_closed(ends):
    """EBADF, after what needs no socket: sendall() makes its view first."""
    sock, _ = ends.pair()
    sock.close()
    for args in (b'x',), ('text',), (None, 'wrong'), (b'x', 0, 'wrong'):
        assert raised(sock.send, *args) == CLOSED
    for args in (), (b'x',), (1, 2, 3, 4):
        assert raised(sock.sendto, *args) == CLOSED
    assert raised(sock.sendall, b'x') == raised(sock.sendall, b'x', 'wrong') == CLOSED
    assert raised(sock.sendall, 'text') == (
        TypeError, ("memoryview: a bytes-like object is required, not 'str'",))
    assert sock.sendall(b'') == sock.sendall(b'', 'wrong') == 0


@writes
@pytest.mark.parametrize('how', ['detached', 'raw', 'behind'])
def test_no_descriptor(ends, write, how):
    sock, other = ends.pair()
    raw = sock._sock
    if how == 'detached':
        other = native.socket(fileno=sock.detach())
        other.close()
    elif how == 'raw':
        raw.close()
    else:
        os.close(sock.fileno())
    assert raised(write, sock, b'data') == CLOSED
    if how == 'behind':
        raw.detach()


@writes
def test_while_an_exception_is_handled(ends, write):
    """It stays what is handled, and becomes the context of what is raised."""
    sock, other = ends.pair()
    try:
        raise LookupError('first')
    except LookupError as first:
        assert write(sock, b'data') == 4
        assert sys.exc_info()[1] is first
        sock.timeout = 0.0
        fill(sock)
        error = outcome(write, sock, b'x')
        assert sys.exc_info()[1] is first
        assert seen(error) == AGAIN and error.__context__ is first
    assert sys.exc_info() == (None, None, None)


def test_references(ends):
    """A thousand calls, good and bad, keep nothing of what they were given."""
    sock, other = ends.pair()
    sock.timeout = 0.0
    data, buffer, flags = bytes(range(200)), bytearray(200), 123456789
    view = memoryview(data)
    objects = [sock, sock._sock, data, buffer, view, flags, sock._write_event, sock.hub]

    def calls():
        for thing in data, buffer, view, memoryview(data)[5:]:
            sock.send(thing), sock.sendall(thing), sock.send(thing, 0), sock.sendall(thing, 0)
            sock.send(data=thing), sock.send(thing, timeout=5), sock.sendall(data=thing)
            other.recv(1 << 16)
            for function in sock.send, sock.sendall:
                raised(function, thing, view)
            raised(sock.send, thing, wrong=flags), raised(sock.sendto, thing, thing)
        fill(sock)
        for thing in data, buffer, view:
            raised(sock.send, thing), raised(sock.sendall, thing)
        other.setblocking(False)
        while isinstance(outcome(other.recv, 1 << 20), bytes):
            pass
    calls()
    gc.collect()
    before = [sys.getrefcount(one) for one in objects]
    for _ in range(30):
        calls()
    assert [sys.getrefcount(one) for one in objects] == before


# -- sendall() ------------------------------------------------------------------------------------

class Sending:
    """In place of send(): notes what it is called with, and sends nothing."""

    def __init__(self, *counts):
        self.calls, self.counts = [], list(counts)

    def __call__(self, sock, data, *args, **keywords):
        self.calls.append((type(data), len(data), args, keywords))
        return self.counts.pop(0) if self.counts else len(data)


@pytest.fixture
def sending(ends, monkeypatch):
    """``sending(…)`` puts one of these on the class."""
    def patch(*counts):
        spy = Sending(*counts)
        monkeypatch.setattr(socket.socket, 'send', lambda *args, **keywords: spy(
            *args, **keywords), raising=False)
        return spy
    yield patch
    monkeypatch.undo()


def test_chunks(ends, sending):
    """A mebibyte at a time, or as much as the socket buffers; the rest of one first."""
    sock, _ = ends.pair()
    spy, mebi = sending(), 1 << 20
    assert sock.getsockopt(native.SOL_SOCKET, native.SO_SNDBUF) < mebi
    assert sock.sendall(bytes(3 * mebi + 5)) is None
    assert spy.calls == [(memoryview, size, (0,), {}) for size in (mebi, mebi, mebi, 5)]
    spy = sending(1, 0, 2)
    assert sock.sendall(bytearray(mebi + 1), 64) is None
    assert spy.calls == [(memoryview, size, (64,), {})
                         for size in (mebi, mebi - 1, mebi - 1, mebi - 3, 1)]


def test_chunks_with_timeout(ends, sending):
    """Each call is told what is left of it."""
    sock, _ = ends.pair()
    sock.timeout = 50
    spy = sending(1, 1)
    assert sock.sendall(bytes(6), 7) is None
    lefts = [keywords.pop('timeout') for _, _, _, keywords in spy.calls]
    assert spy.calls == [(memoryview, size, (7,), {}) for size in (6, 5, 4)]
    assert lefts[0] == 50 and 0 < lefts[2] <= lefts[1] <= 50


def test_no_time_left(ends, sending):
    """Nothing is tried any more; but each chunk is once."""
    sock, _ = ends.pair()
    sock.timeout = 1e-9
    spy = sending(1)
    assert raised(sock.sendall, bytes(6)) == TIMED_OUT
    assert [size for _, size, _, _ in spy.calls] == [6]
    spy = sending()
    assert sock.sendall(bytes((1 << 20) + 1)) is None
    assert [size for _, size, _, _ in spy.calls] == [1 << 20, 1]


def test_short_of_time_with_room(ends):
    """What goes at once goes, however little time there is."""
    sock, other = ends.pair()
    for timeout in 1e-9, 0.0, 0:
        sock.timeout = timeout
        assert sock.sendall(b'data') is None and other.recv(10) == b'data'


@pytest.mark.parametrize('result, error', [
    (None, TypeError), ('1', TypeError), (LookupError('here'), LookupError)],
    ids=['None', 'text', 'raises'])
def test_odd_results_of_send(ends, monkeypatch, result, error):
    sock, _ = ends.pair()

    def odd(self, data, flags=0, timeout=None):
        if isinstance(result, Exception):
            raise result
        return result
    monkeypatch.setattr(socket.socket, 'send', odd, raising=False)
    assert raised(sock.sendall, b'data')[0] is error
    monkeypatch.undo()
    assert sock.sendall(b'data') is None


@pytest.mark.parametrize('timeout', [None, 8.0], ids=['no_timeout', 'timeout'])
@pytest.mark.parametrize('kind', ['pair', 'tcp'])
def test_slow_reader(ends, kind, timeout):
    """Eight mebibytes, byte for byte, to one who reads a bit now and then."""
    sock, other = getattr(ends, kind)()
    sock.timeout = timeout
    data = array.array('Q', range(1 << 20)).tobytes()
    digest, sizes = hashlib.sha1(), random.Random(1)
    other.setblocking(False)

    def read():
        count = 0
        while count < len(data):
            part = outcome(other.recv, sizes.choice([1, 999, 1 << 16, 1 << 19, 1 << 21]))
            if isinstance(part, bytes):
                digest.update(part)
                count += len(part)
            else:
                assert seen(part) == AGAIN
                gevent.sleep(0)
        return count
    reader = gevent.spawn(read)
    assert sock.sendall(data) is None
    assert reader.get() == len(data) and digest.digest() == hashlib.sha1(data).digest()
    nothing_came(other)
    assert at_rest(sock)


def test_reader_in_a_thread(ends):
    """The same with one who reads whenever it likes."""
    sock, other = ends.tcp()
    data = array.array('Q', range(1 << 19)).tobytes()
    got = []
    thread = threading.Thread(target=lambda: got.append(drain(other, len(data))))
    thread.start()
    for number in range(0, len(data), 1 << 20):
        assert sock.sendall(memoryview(data)[number:number + (1 << 20)]) is None
    thread.join(10)
    assert difference(got[0], data) is None


def test_one_clock(ends):
    """Someone who always reads a bit does not make the time longer."""
    sock, other = ends.pair()
    sock.timeout = 0.05
    data, got = memoryview(MUCH * 8), []

    def read():
        while True:
            got.append(len(other.recv(1 << 16)))
            gevent.sleep(0.005)
    fill_count = fill(sock)
    reader = gevent.spawn(read)
    assert raised(sock.sendall, data) == TIMED_OUT
    reader.kill()
    assert at_rest(sock) and sum(got) < fill_count + len(data)


def interrupted(ends, kind, stop, timeout=None):
    """sendall() of MUCH that is stopped halfway: what it raised, and what can be read."""
    sock, other = getattr(ends, kind)()
    sock.timeout = timeout
    greenlet = start(sock._write_event, sock.sendall, MUCH)
    first = drain(other, 1000)
    stop(greenlet, sock)
    error = greenlet.get()
    if not sock.closed:
        assert at_rest(sock)
        sock.close()
    until(lambda: not sock._sock)
    rest = b''.join(iter(lambda: other.recv(1 << 20), b''))
    count = 1000 + len(rest)
    assert 2000 < count < len(MUCH) and difference(first + rest, MUCH[:count]) is None
    return error


@pytest.mark.parametrize('kind', ['pair', 'tcp'])
def test_stopped_halfway(ends, kind):
    """What was sent stays sent."""
    error = LookupError('thrown')
    assert interrupted(ends, kind, lambda one, sock: one.kill(error)) is error
    assert seen(interrupted(ends, kind, lambda one, sock: one.kill())) == (gevent.GreenletExit, ())
    assert seen(interrupted(ends, kind, lambda one, sock: None, 0.01)) == TIMED_OUT
    closed = interrupted(ends, kind, lambda one, sock: sock.close())
    assert type(closed) is _socketcommon.cancel_wait_ex and closed.errno == errno.EBADF


def test_reset_halfway(ends):
    """Told to the writer that waits."""
    sock, other = ends.tcp()
    greenlet = start(sock._write_event, sock.sendall, MUCH)
    assert drain(other, 1000) == MUCH[:1000]
    reset(other)
    assert seen(greenlet.get()) in (RESET, PIPE)
    assert raised(sock.sendall, b'more') == PIPE and at_rest(sock)


def test_reader_leaves_halfway(ends):
    sock, other = ends.pair()
    greenlet = start(sock._write_event, sock.sendall, MUCH)
    assert drain(other, 1000) == MUCH[:1000]
    other.close()
    assert seen(greenlet.get()) in (RESET, PIPE)
    assert raised(sock.sendall, b'more') == PIPE and at_rest(sock)


def test_buffer_changed_meanwhile(ends):
    """While sendall() waits, it holds the buffer: no new size, but new bytes are those sent."""
    sock, other = ends.pair()
    buffer = bytearray(len(MUCH))
    greenlet = start(sock._write_event, sock.sendall, buffer)
    assert raised(buffer.extend, b'x') == (
        BufferError, ('Existing exports of data: object cannot be re-sized',))
    buffer[-4:] = b'last'
    got = collect(other, greenlet)
    assert greenlet.get() is None and difference(got, buffer) is None and got[-4:] == b'last'
    buffer += b'x'


def test_buffer_of_one_send(ends):
    """While send() waits, nobody holds the buffer: what it is afterwards is sent."""
    sock, other = ends.pair()
    count, buffer = fill(sock), bytearray(b'data')
    greenlet = start(sock._write_event, sock.send, buffer)
    buffer[:] = b'something else'
    drain(other, count)
    assert greenlet.get() == 14 and other.recv(100) == b'something else'
    count, view = fill(sock), memoryview(buffer)
    greenlet = start(sock._write_event, sock.send, view)
    view.release()
    drain(other, count)
    assert seen(greenlet.get()) == (
        ValueError, ('operation forbidden on released memoryview object',))
    nothing_came(other)


@pytest.mark.parametrize('name', ['send', 'sendto'])
def test_released_while_one_send_waits(ends, name):
    """The attempt after waiting is made while the exception of the first one is handled."""
    sock, other = ends.tcp()
    count, view = fill(sock), memoryview(bytearray(b'data'))
    args = [view] if name == 'send' else [view, sock.getpeername()]
    greenlet = start(sock._write_event, getattr(sock, name), *args)
    view.release()
    drain(other, count)
    error = greenlet.get()
    assert seen(error) == (
        ValueError, ('operation forbidden on released memoryview object',))
    assert type(error.__context__) is BlockingIOError
    assert error.__context__.errno == errno.EAGAIN
    nothing_came(other)


def test_patched_while_one_send_waits(ends, monkeypatch):
    """The attempt after waiting is of the call that waits, with the socket inside."""
    sock, other = ends.pair()
    for name in 'send', 'sendall':
        count = fill(sock)
        greenlet = start(sock._write_event, getattr(sock, name), b'data')
        with monkeypatch.context() as patches:
            patches.setattr(socket.socket, 'send', lambda *args, **kwargs: 1 / 0, raising=False)
            patches.setattr(socket.socket, 'sendall', lambda *args, **kwargs: 1 / 0,
                            raising=False)
            drain(other, count)
            assert greenlet.get() == (4 if name == 'send' else None)
        assert other.recv(10) == b'data'


@pytest.mark.parametrize('name', ['send', 'sendto', 'sendall'])
def test_detached_while_it_waits(ends, name):
    """What is in its place is asked, and there is an exception that is handled."""
    class Other:
        def send(self, data, *args):
            calls.append((bytes(data), args))
            raise BlockingIOError(errno.EAGAIN, 'not yet') if len(calls) == 1 else Stop
        sendto = send

    class Stop(Exception):
        pass
    calls = []
    sock, other = ends.tcp()
    count = fill(sock)
    args = [b'data'] if name != 'sendto' else [b'data', sock.getpeername()]
    greenlet = start(sock._write_event, getattr(sock, name), *args)
    inside, sock._sock = sock._sock, Other()
    drain(other, count)
    result = greenlet.get()
    sock._sock = inside
    if name == 'sendall':
        assert type(result) is Stop and len(calls) == 2
    else:
        assert result == 0 and len(calls) == 1
    assert {data for data, _ in calls} == {b'data'}


@pytest.mark.parametrize('mebis, error', [
    (1, None), (3, (ValueError, ('operation forbidden on released memoryview object',)))])
@pytest.mark.parametrize('timeout', [None, 8.0], ids=['no_timeout', 'timeout'])
def test_view_released_meanwhile(ends, timeout, mebis, error):
    """The chunk that is under way has a view of its own, and is sent."""
    sock, other = ends.pair()
    sock.timeout = timeout
    view = memoryview(MUCH)[:mebis << 20]
    greenlet = start(sock._write_event, sock.sendall, view)
    view.release()
    got = collect(other, greenlet)
    assert (greenlet.get() and seen(greenlet.get())) == error
    assert difference(got, MUCH[:1 << 20]) is None and at_rest(sock)


@pytest.mark.parametrize('timeout', [None, 8.0], ids=['no_timeout', 'timeout'])
def test_chunk_is_one_packet(ends, timeout):
    """Of a socket that buffers more than a mebibyte, which takes root."""
    sock, other = ends.pair(type=native.SOCK_SEQPACKET)
    sock.timeout, size = timeout, 2 << 20
    try:
        sock.setsockopt(native.SOL_SOCKET, 32, 4 * size)  # SO_SNDBUFFORCE
    except PermissionError:
        assert raised(sock.sendall, bytes(size)) == (
            OSError, (errno.EMSGSIZE, os.strerror(errno.EMSGSIZE)))
    else:
        for data in bytes(size), bytearray(size), memoryview(bytes(size)):
            assert sock.sendall(data) is None and len(other.recv(2 * size)) == size
    nothing_came(other)


def test_patched_halfway(ends, monkeypatch):
    """What is called then is told what is left of the time."""
    sock, other = ends.pair()
    sock.timeout, spy = 50.0, Sending()
    greenlet = start(sock._write_event, sock.sendall, MUCH)
    monkeypatch.setattr(socket.socket, 'send', lambda *args, **keywords: spy(
        *args, **keywords), raising=False)
    first = collect(other, greenlet)
    assert greenlet.get() is None
    assert all(0 < keywords['timeout'] < 50 for _, _, _, keywords in spy.calls)
    assert len(spy.calls) > 1 and difference(first, MUCH[:len(first)]) is None
    assert len(first) + sum(size for _, size, _, _ in spy.calls) == len(MUCH)


@pytest.mark.parametrize('name', ['send', 'sendto'])
def test_still_no_room_after_waiting(ends, name):
    """It was not sent: 0. Two descriptors of one socket become writable, one of them gets the
    room.
    """
    sock, other = ends.tcp()
    twin, count = ends.dup(sock), fill(sock)
    args = [MUCH] if name == 'send' else [MUCH, sock.getpeername()]
    waiting = [start(one._write_event, getattr(one, name), *args) for one in (sock, twin)]
    received = len(drain(other, count))
    results = sorted(one.get() for one in waiting)
    assert results[0] == 0 < results[1] < len(MUCH) and received == count
    assert difference(drain(other, results[1]), MUCH[:results[1]]) is None
    nothing_came(other)
    assert at_rest(sock) and at_rest(twin)
