"""recv(), recv_into(), recvfrom(), recvfrom_into() of gevent's sockets, with something to read.

They take what the functions of the raw socket take, and give and raise what these do.
"""
import array
import ctypes
import errno
import gc
import inspect
import mmap
import os
import socket as native
import sys

import pytest
from gevent import _socketcommon, socket

from ends import AGAIN, CLOSED, READS, Ends, raised, recv, recv_into, recvfrom, reset, seen
from helpers import outcome

METHODS = [function.__name__ for function in READS]

reads = pytest.mark.parametrize('read', READS)
methods = pytest.mark.parametrize('name', METHODS)


@pytest.fixture
def ends(impl):
    with Ends() as made:
        yield made


class Index:
    """An integer that is no int; counts how often it is asked."""

    def __init__(self, value):
        self.value, self.asked = value, 0

    def __index__(self):
        self.asked += 1
        if isinstance(self.value, BaseException):
            raise self.value
        return self.value


class Int(int):
    """An int that says of itself that it is another one; nobody asks."""

    def __index__(self):
        return 1

    __int__ = __index__


def released():
    view = memoryview(bytearray(4))
    view.release()
    return view


# -- the functions --------------------------------------------------------------------------------

SIGNATURES = {
    'recv': '(self, *args)', 'recvfrom': '(self, *args)', 'recv_into': '(self, *args)',
    'recvfrom_into': '(self, *args)', 'sendto': '(self, *args)',
    'send': '(self, data, flags=0, timeout=<object object>)', 'sendall': '(self, data, flags=0)'}


@pytest.mark.parametrize('name', SIGNATURES)
def test_the_function_stays_as_it_is(impl, name):
    """Whatever one can see of it."""
    function = getattr(socket.socket, name)
    assert type(function) is type(lambda: None)
    assert vars(_socketcommon.SocketMixin)[name] is function and name not in vars(socket.socket)
    assert (function.__name__, function.__qualname__, function.__module__) == (
        name, 'SocketMixin.' + name, 'gevent._socketcommon')
    text = str(inspect.signature(function))
    assert text.split(' at 0x')[0].rstrip('>)') == SIGNATURES[name].rstrip('>)')
    assert 'def %s(self' % name in inspect.getsource(function)
    assert function.__doc__ == (getattr(native.socket, name).__doc__)
    assert function.__code__.co_name == name


# -- arguments ------------------------------------------------------------------------------------

def not_an_int(name):
    return TypeError, ("'%s' object cannot be interpreted as an integer" % name,)


def too_many(name, limit, count):
    return '%s() takes at most %d arguments (%d given)' % (name, limit, count)


NO_ARGUMENTS = {
    'recv': 'recv() takes at least 1 argument (0 given)',
    'recvfrom': 'recvfrom() takes at least 1 argument (0 given)',
    'recv_into': "recv_into() missing required argument 'buffer' (pos 1)",
    'recvfrom_into': "recvfrom_into() missing required argument 'buffer' (pos 1)"}


NO_SIZE = [
    ('text', '1', not_an_int('str')),
    ('bytes', b'1', not_an_int('bytes')),
    ('float', 1.0, not_an_int('float')),
    ('None', None, not_an_int('NoneType')),
    ('list', [1], not_an_int('list')),
    ('one_more_than_fits', 1 << 63, (
        OverflowError, ('Python int too large to convert to C ssize_t',))),
    ('very_negative', -1 << 70, (
        OverflowError, ('Python int too large to convert to C ssize_t',)))]


@pytest.mark.parametrize('name', ['recv', 'recvfrom'])
@pytest.mark.parametrize('size, error', [
    pytest.param(size, error, id=id) for id, size, error in NO_SIZE])
def test_sizes_that_are_none(ends, name, size, error):
    sock, other = ends.pair()
    other.send(b'data')
    assert raised(getattr(sock, name), size) == error
    assert raised(getattr(sock, name), size, 0) == error
    assert sock.recv(10) == b'data'


@pytest.mark.parametrize('name', ['recv_into', 'recvfrom_into'])
@pytest.mark.parametrize('size, error', [
    pytest.param(size, error, id=id) for id, size, error in NO_SIZE])
def test_counts_that_are_none(ends, name, size, error):
    sock, other = ends.pair()
    other.send(b'data')
    assert raised(getattr(sock, name), bytearray(8), size) == error
    assert sock.recv(10) == b'data'


@methods
def test_number_of_arguments(ends, name):
    """The raw function counts them."""
    sock, other = ends.pair()
    other.send(b'data')
    function, raw = getattr(sock, name), getattr(sock._sock, name)
    most, first = (3, bytearray(4)) if name.endswith('_into') else (2, 4)
    for count in 0, most + 1, most + 5:
        args = ([first] + [0] * count)[:count]
        error = raised(function, *args)
        assert error == raised(raw, *args) and error[0] is TypeError
        assert error[1] == ((too_many(name, most, count) if count else NO_ARGUMENTS[name]),)
    assert sock.recv(10) == b'data'


@methods
@pytest.mark.parametrize('keywords', [
    {'bufsize': 1}, {'buffer': bytearray(1)}, {'nbytes': 1}, {'flags': 0}, {'args': (1,)}],
    ids=lambda keywords: ''.join(keywords))
def test_keywords(ends, name, keywords):
    """None is taken, also not those of the raw functions."""
    sock, other = ends.pair()
    other.send(b'data')
    for args in (), (bytearray(4) if name.endswith('_into') else 4,):
        assert raised(getattr(sock, name), *args, **keywords) == (TypeError, (
            "SocketMixin.%s() got an unexpected keyword argument '%s'" % (
                name, next(iter(keywords))),))
    assert sock.recv(10, **{}) == b'data'


@methods
def test_without_a_socket(impl, name):
    """It is a Python function after all."""
    function = getattr(socket.socket, name)
    assert raised(function) == (TypeError, (
        "SocketMixin.%s() missing 1 required positional argument: 'self'" % name,))
    assert raised(function, object(), 1) == (
        AttributeError, ("'object' object has no attribute '_sock'",))
    assert raised(function, None, 1) == (
        AttributeError, ("'NoneType' object has no attribute '_sock'",))

    class Namesake:
        class _sock:
            pass
    setattr(Namesake._sock, name, staticmethod(lambda *args: args))
    assert function(Namesake, 1, 'two', 3, 4) == (1, 'two', 3, 4)
    assert function(Namesake()) == ()


@methods
def test_ways_to_call(ends, name):
    """Unbound, from the base class, kept for later, with the arguments in a tuple."""
    sock, other = ends.pair()
    other.send(b'abcdefgh')
    args = [bytearray(1)] if name.endswith('_into') else [1]
    for function, more in [
            (getattr(sock, name), []), (getattr(socket.socket, name), [sock]),
            (getattr(_socketcommon.SocketMixin, name), [sock]),
            (getattr(socket.socket, name).__get__(sock, socket.socket), []),
            (getattr(socket.socket, name).__call__, [sock])]:
        function(*more, *args)
    assert sock.recv(10) == b'fgh'
    assert raised(getattr(socket.socket, name), *args, self=sock) == (TypeError, (
        "SocketMixin.%s() got multiple values for argument 'self'" % name,))
    assert raised(getattr(socket.socket, name), self=sock) == (TypeError, (NO_ARGUMENTS[name],))


@pytest.mark.parametrize('name, text', [
    ('recv', 'negative buffersize in recv'),
    ('recvfrom', 'negative buffersize in recvfrom')])
@pytest.mark.parametrize('size', [-1, -5, -1 << 63], ids=str)
def test_negative_sizes(ends, name, text, size):
    sock, other = ends.pair()
    other.send(b'data')
    assert raised(getattr(sock, name), size) == (ValueError, (text,))
    assert sock.recv(10) == b'data'


@pytest.mark.parametrize('name', ['recv_into', 'recvfrom_into'])
@pytest.mark.parametrize('size', [-1, -5, -1 << 63], ids=str)
def test_negative_counts(ends, name, size):
    sock, other = ends.pair()
    other.send(b'data')
    assert raised(getattr(sock, name), bytearray(4), size) == (
        ValueError, ('negative buffersize in %s' % name,))
    assert sock.recv(10) == b'data'


def test_nothing_asked_for(ends):
    """recv() and recv_into() do not even ask the kernel."""
    sock, other = ends.pair()
    assert sock.recv(0) == b'' and sock.recv_into(bytearray()) == 0
    assert sock.recv_into(bytearray(), 0) == 0
    other.send(b'data')
    assert sock.recv(0) == b'' and sock.recv_into(bytearray()) == 0
    assert sock.recvfrom(0) == (b'', None) and sock.recvfrom_into(bytearray()) == (0, None)
    assert sock.recv(10) == b'data'
    sock.timeout = 0.0
    assert sock.recv(0) == b'' and sock.recv_into(bytearray()) == 0
    assert raised(sock.recvfrom, 0) == raised(sock.recvfrom_into, bytearray()) == AGAIN
    sock._sock.close()
    assert sock.recv(0) == b'' and sock.recv_into(bytearray()) == 0
    assert raised(sock.recvfrom, 0) == raised(sock.recvfrom_into, bytearray()) == CLOSED


def test_count_of_zero(ends):
    """Means all of the buffer."""
    sock, other = ends.pair()
    other.send(b'abcdef')
    buffer = bytearray(4)
    assert sock.recv_into(buffer, 0) == 4 and buffer == b'abcd'
    assert sock.recvfrom_into(buffer, 0) == (2, None) and buffer == b'efcd'


@pytest.mark.parametrize('kind', [bool, Int, Index])
def test_sizes_of_other_types(ends, kind):
    sock, other = ends.pair()
    other.send(b'abcd')
    buffer, size = bytearray(4), kind(1)
    assert sock.recv(size) == b'a' and sock.recvfrom(size) == (b'b', None)
    assert sock.recv_into(buffer, size) == 1 and sock.recvfrom_into(buffer, size) == (1, None)
    assert buffer == b'd\0\0\0'
    assert kind is not Index or size.asked == 4


def test_value_of_a_subclass(ends):
    """That of the int, whatever its methods say."""
    sock, other = ends.pair()
    other.send(b'abcdef')
    assert sock.recv(Int(3)) == b'abc'
    assert native.MSG_PEEK == 2
    assert sock.recv(2, Int(2)) == sock.recv(2, Index(2)) == b'de'
    assert sock.recv(9, Int(0)) == b'def'


@methods
def test_index_that_raises(ends, name):
    sock, other = ends.pair()
    other.send(b'data')
    args = [bytearray(4)] if name.endswith('_into') else []
    error = LookupError('no index')
    assert outcome(getattr(sock, name), *args, Index(error)) is error
    assert outcome(getattr(sock, name), *args, 1, Index(error)) is error
    assert error.__context__ is None and sock.recv(10) == b'data'


@pytest.mark.parametrize('name', ['recv', 'recvfrom'])
@pytest.mark.parametrize('size, error', [
    (sys.maxsize, (OverflowError, ('byte string is too large',))),
    (sys.maxsize - 8, (OverflowError, ('byte string is too large',))),
    (1 << 62, (MemoryError, ()))], ids=['most', 'nearly', 'memory'])
def test_huge_sizes(ends, name, size, error):
    sock, other = ends.pair()
    other.send(b'data')
    assert raised(getattr(sock, name), size) == error
    assert sock.recv(10) == b'data'


@methods
@pytest.mark.parametrize('flags, error', [
    ('0', not_an_int('str')), (None, not_an_int('NoneType')), (0.0, not_an_int('float')),
    (1 << 31, (OverflowError, ('signed integer is greater than maximum',))),
    (-1 - (1 << 31), (OverflowError, ('signed integer is less than minimum',))),
    (1 << 70, (OverflowError, ('Python int too large to convert to C long',)))],
    ids=['text', 'None', 'float', 'large', 'small', 'huge'])
def test_wrong_flags(ends, name, flags, error):
    sock, other = ends.pair()
    other.send(b'data')
    args = [bytearray(4), 4] if name.endswith('_into') else [4]
    assert raised(getattr(sock, name), *args, flags) == error
    assert sock.recv(10) == b'data'


# -- buffers --------------------------------------------------------------------------------------

def two_dimensions():
    return memoryview(bytearray(8)).cast('B', (2, 4))


BUFFERS = {
    'bytearray': lambda: bytearray(8), 'view': lambda: memoryview(bytearray(8)),
    'part': lambda: memoryview(bytearray(12))[2:10],
    'array': lambda: array.array('B', bytes(8)), 'shorts': lambda: array.array('H', bytes(8)),
    'view_of_shorts': lambda: memoryview(bytearray(8)).cast('H'),
    'two_dimensions': two_dimensions, 'mmap': lambda: mmap.mmap(-1, 8),
    'ctypes': lambda: (ctypes.c_char * 8)(), 'scalar': lambda: ctypes.c_uint64(0)}


@pytest.mark.parametrize('name', ['recv_into', 'recvfrom_into'])
@pytest.mark.parametrize('kind', BUFFERS)
def test_buffers(ends, name, kind):
    """Whatever its items are, it is bytes that are counted and written."""
    sock, other = ends.pair()
    buffer = BUFFERS[kind]()
    for args, count in [((), 8), ((5,), 5), ((0,), 8), ((8, 0), 8), ((3, native.MSG_PEEK), 3)]:
        other.send(b'ABCDEFGHIJ')
        memoryview(buffer).cast('B')[:] = bytes(8)
        found = getattr(sock, name)(buffer, *args)
        assert found == (count if name == 'recv_into' else (count, None))
        left = 10 - count * (native.MSG_PEEK not in args)
        assert memoryview(buffer).tobytes() == b'ABCDEFGH'[:count] + bytes(8 - count)
        assert sock.recv(100) == b'ABCDEFGHIJ'[10 - left:]


@pytest.mark.parametrize('name', ['recv_into', 'recvfrom_into'])
@pytest.mark.parametrize('buffer', [
    pytest.param(lambda: b'1234', id='bytes'), pytest.param(lambda: '1234', id='text'),
    pytest.param(lambda: None, id='None'), pytest.param(lambda: 4, id='int'),
    pytest.param(lambda: memoryview(b'1234'), id='read_only'),
    pytest.param(lambda: memoryview(bytearray(8))[::2], id='not_contiguous'),
    pytest.param(lambda: memoryview(bytearray(8))[::-1], id='reversed'),
    pytest.param(lambda: [0] * 4, id='list')])
def test_no_buffers(ends, name, buffer):
    sock, other = ends.pair()
    other.send(b'data')
    kind = type(buffer()).__name__
    error = raised(getattr(sock, name), buffer())
    assert error == (TypeError, (
        '%s() argument 1 must be read-write bytes-like object, not %s' % (
            name, 'None' if kind == 'NoneType' else kind),))
    assert raised(getattr(sock, name), buffer(), 2, 0) == error
    assert sock.recv(10) == b'data'


@pytest.mark.parametrize('name', ['recv_into', 'recvfrom_into'])
def test_released_view(ends, name):
    sock, other = ends.pair()
    other.send(b'data')
    error, args = raised(getattr(sock, name), released())
    assert error in (ValueError, TypeError)
    assert (error, args) == raised(getattr(sock._sock, name), released())
    assert sock.recv(10) == b'data'


@pytest.mark.parametrize('name, text', [
    ('recv_into', 'buffer too small for requested bytes'),
    ('recvfrom_into', 'nbytes is greater than the length of the buffer')])
def test_buffer_too_small(ends, name, text):
    sock, other = ends.pair()
    other.send(b'data')
    for buffer in bytearray(3), bytearray(), array.array('H', [0]):
        assert raised(getattr(sock, name), buffer, 4) == (ValueError, (text,))
        assert raised(getattr(sock, name), buffer, sys.maxsize, 0) == (ValueError, (text,))
    assert sock.recv(10) == b'data'


@pytest.mark.parametrize('name', ['recv_into', 'recvfrom_into'])
def test_buffer_is_let_go(ends, name):
    """It can be resized after each call, also after one that failed."""
    sock, other = ends.pair()
    buffer = bytearray(4)
    other.send(b'data')
    getattr(sock, name)(buffer)
    buffer += b'.'
    assert raised(getattr(sock, name), buffer, 9)[0] is ValueError
    buffer += b'.'
    sock.timeout = 0.0
    assert raised(getattr(sock, name), buffer) == AGAIN
    buffer += b'.'
    sock._sock.close()
    assert raised(getattr(sock, name), buffer) == CLOSED
    buffer += b'.'
    assert buffer == b'data....'


# -- what is read ---------------------------------------------------------------------------------

@reads
def test_data(ends, read):
    sock, other = ends.tcp()
    other.send(b'0123456789')
    assert read(sock, 3, native.MSG_PEEK) == read(sock, 3) == b'012'
    assert read(sock, 1) == b'3'
    assert read(sock, 100) == b'456789'
    other.close()
    assert [read(sock, 10) for _ in range(3)] == [b''] * 3


@reads
@pytest.mark.parametrize('count', [1, 2, 255, 4096, 65536])
def test_size_of_result(ends, read, count):
    """As much as an equal bytes object takes, however much was asked for."""
    sock, other = ends.pair()
    data = os.urandom(count)
    for size in count, count + 1, count + 100000:
        other.send(data)
        found = read(sock, size)
        assert type(found) is bytes and found == data
        assert sys.getsizeof(found) == sys.getsizeof(bytes(bytearray(data)))
        assert hash(found) == hash(data)


@reads
def test_results_stay_as_they_are(ends, read):
    """Whatever is read later, of whatever size."""
    sock, other = ends.pair()
    sizes = [8192, 8192, 100, 8192, 65536, 65536, 70000, 70000, 512, 8192]
    parts = [os.urandom(count) for count in (1, 3000, 50, 2047, 2048, 2049, 17000, 5, 128, 9)]
    found = []
    for size, data in zip(sizes * 3, parts * 3):
        other.send(data)
        found.append(read(sock, size))
        if size == 65536:
            sock.timeout = 0.0
            with pytest.raises(BlockingIOError):
                read(sock, size)
            sock.timeout = None
    assert found == parts * 3


def test_end_of_file_is_the_empty_bytes(ends):
    sock, other = ends.pair()
    other.close()
    empty = bytes()
    assert sock.recv(100) is empty and sock.recvfrom(100)[0] is empty


@reads
def test_half_closed(ends, read):
    """One direction ends, the other goes on."""
    sock, other = ends.tcp()
    other.send(b'last')
    other.shutdown(native.SHUT_WR)
    assert read(sock, 100) == b'last' and read(sock, 100) == b''
    assert sock.sendall(b'answer') is None and other.recv(100) == b'answer'
    assert read(sock, 100) == b''


@reads
def test_own_end_shut_down(ends, read):
    """Nothing comes any more, and what has come is still there."""
    sock, other = ends.pair()
    other.send(b'data')
    sock.shutdown(native.SHUT_RD)
    assert read(sock, 100) == b'data' and read(sock, 100) == b''


@reads
def test_reset(ends, read):
    """Told once, after what had come before; then it is the end of the file."""
    sock, other = ends.tcp()
    other.send(b'before')
    reset(other)
    assert read(sock, 100) == b'before'
    assert raised(read, sock, 100) == (
        ConnectionResetError, (errno.ECONNRESET, os.strerror(errno.ECONNRESET)))
    assert [read(sock, 100) for _ in range(2)] == [b''] * 2


@reads
def test_errors_of_the_kernel(ends, read):
    """Those that are not about waiting are raised at once."""
    sock = ends.listener()
    assert raised(read, sock, 1) == (OSError, (errno.ENOTCONN, os.strerror(errno.ENOTCONN)))
    error = outcome(read, sock, 1)
    assert (error.errno, error.filename, error.__context__, error.__cause__) == (
        errno.ENOTCONN, None, None, None)
    assert str(error) == '[Errno %d] Transport endpoint is not connected' % errno.ENOTCONN


@reads
def test_flags(ends, read):
    sock, other = ends.pair()
    other.send(b'data')
    assert read(sock, 2, native.MSG_DONTWAIT) == b'da'
    assert read(sock, 10, native.MSG_WAITALL) == b'ta'
    sock.timeout = 0.0
    assert raised(read, sock, 10, native.MSG_WAITALL) == AGAIN
    assert raised(read, sock, 10, native.MSG_PEEK) == AGAIN


@reads
def test_not_blocking(ends, read):
    """Raises instead of waiting, each time, and reads what is there."""
    sock, other = ends.pair()
    for quiet in [lambda: sock.setblocking(False), lambda: sock.settimeout(0),
                  lambda: setattr(sock, 'timeout', 0), lambda: setattr(sock, 'timeout', False),
                  lambda: setattr(sock, 'timeout', -0.0)]:
        sock.timeout = None
        quiet()
        for _ in range(3):
            error = outcome(read, sock, 10)
            assert seen(error) == AGAIN and error.errno == errno.EAGAIN
            assert error.__context__ is None
        other.send(b'data')
        assert read(sock, 2) == b'da' and read(sock, 10) == b'ta'
        assert raised(read, sock, 10) == AGAIN


def test_data_right_after_a_short_read(ends):
    """A short read does not mean that nothing comes."""
    sock, other = ends.pair()
    sock.timeout = 5
    for number in range(50):
        other.send(b'a')
        assert sock.recv(100) == b'a'
        other.send(b'bc')
        assert sock.recv(1) == b'b' and sock.recv_into(bytearray(10)) == 1
    other.send(b'last')
    assert sock.recv(100) == b'last'
    other.close()
    assert sock.recv(100) == b''


def test_not_blocking_after_a_short_read(ends):
    """Where nothing waits, what is there is read at once, whatever was read before."""
    sock, other = ends.pair()
    sock.timeout = 0.0
    for number in range(50):
        other.send(b'a')
        assert sock.recv(100) == b'a'
        other.send(b'bc')
        assert sock.recv(100) == b'bc'
        assert raised(sock.recv, 100) == AGAIN
        other.send(b'd')
        assert sock.recv(100) == b'd'


@reads
def test_exactly_as_much_as_asked_for(ends, read):
    """Then there may be more, or not."""
    sock, other = ends.tcp()
    sock.timeout = 5
    for _ in range(20):
        other.send(b'0123')
        assert read(sock, 4) == b'0123'
    other.send(b'0123')
    other.close()
    assert read(sock, 4) == b'0123' and read(sock, 4) == b''


@reads
def test_out_of_band(ends, read):
    """Asked for where there is none: an error, nothing to wait for; else the byte."""
    sock, other = ends.tcp()
    other.send(b'data')
    assert raised(read, sock, 1, native.MSG_OOB) == (
        OSError, (errno.EINVAL, os.strerror(errno.EINVAL)))
    other.send(b'!', native.MSG_OOB)
    assert read(sock, 10) == b'data'
    assert read(sock, 1, native.MSG_OOB) == b'!'


# -- closed sockets -------------------------------------------------------------------------------

@methods
def test_closed(ends, name):
    """EBADF, whatever the arguments are."""
    sock, _ = ends.pair()
    sock.close()
    function = getattr(sock, name)
    for args in (), (1,), (bytearray(1),), ('wrong', 'wrong', 'wrong', 'wrong'), (-1,), (0,):
        error = outcome(function, *args)
        assert seen(error) == CLOSED and error.errno == errno.EBADF
    assert raised(function, flags=1)[0] is TypeError


@reads
def test_detached(ends, read):
    sock, other = ends.pair()
    fd = sock.detach()
    try:
        assert raised(read, sock, 1) == CLOSED
        other.send(b'for whoever has it')
        assert os.read(fd, 100) == b'for whoever has it'
    finally:
        os.close(fd)


@reads
def test_raw_socket_closed(ends, read):
    sock, _ = ends.pair()
    sock._sock.close()
    assert raised(read, sock, 1) == CLOSED


@reads
def test_descriptor_closed_behind_the_back(ends, read):
    sock, other = ends.pair()
    os.close(sock.fileno())
    assert raised(read, sock, 1) == CLOSED
    sock._sock.detach()


# -- around the call ------------------------------------------------------------------------------

@reads
def test_while_an_exception_is_handled(ends, read):
    """It stays what is handled, and becomes the context of what is raised."""
    sock, other = ends.pair()
    other.send(b'data')
    try:
        raise LookupError('first')
    except LookupError as first:
        assert read(sock, 10) == b'data'
        assert sys.exc_info()[1] is first
        sock.timeout = 0.0
        error = outcome(read, sock, 10)
        assert sys.exc_info()[1] is first
        assert seen(error) == AGAIN and error.__context__ is first
    assert sys.exc_info() == (None, None, None)


def test_references(ends):
    """A thousand calls, good and bad, keep nothing of what they were given."""
    sock, other = ends.pair()
    sock.timeout = 0.0
    size, flags, buffer = Index(100001), Index(0), bytearray(1)
    objects = [sock, sock._sock, size, flags, buffer, sock._read_event, sock.hub, sock.timeout]

    def calls():
        other.send(b'abcd')
        sock.recv(1), sock.recvfrom(1), sock.recv_into(buffer), sock.recvfrom_into(buffer, 1, 0)
        for function, args in [
                (sock.recv, (size, flags)), (sock.recvfrom, (size, flags)),
                (sock.recv_into, (buffer, 1, flags)), (sock.recvfrom_into, (buffer, 1, flags)),
                (sock.recv, (-1,)), (sock.recv, (size, flags, size)), (sock.recv, (buffer,)),
                (sock.recv_into, (size,)), (sock.recv_into, (buffer, size)),
                (sock.recvfrom_into, (buffer, size)), (socket.socket.recv, (buffer, size))]:
            raised(function, *args)
    calls()
    gc.collect()
    before = [sys.getrefcount(one) for one in objects]
    for _ in range(200):
        calls()
    assert [sys.getrefcount(one) for one in objects] == before


def test_results_are_given_away(ends):
    """Nobody but the caller has them."""
    sock, other = ends.pair()
    alone, counts = sys.getrefcount(os.urandom(10)), []
    for read in recv, recvfrom, recv_into:
        other.send(b'something')
        counts.append(sys.getrefcount(read(sock, 100)))
    other.send(b'something')
    counts.append(sys.getrefcount(sock.recvfrom(4)))
    assert counts == [alone] * 4
