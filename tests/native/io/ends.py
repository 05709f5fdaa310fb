"""Connections with a gevent socket at one end, and calls that wait on them."""
import contextlib
import errno
import os
import socket as native
import struct
import time

import gevent
from gevent import get_hub, socket
from gevent._socketcommon import cancel_wait_ex

from helpers import LOOPBACK, outcome, until

#: what is raised, type and arguments: nothing is there yet, closed, closed meanwhile, no time left
AGAIN = BlockingIOError, (errno.EAGAIN, os.strerror(errno.EAGAIN))
CLOSED = OSError, (errno.EBADF, os.strerror(errno.EBADF))
CANCELLED = cancel_wait_ex, (errno.EBADF, 'File descriptor was closed in another greenlet')
TIMED_OUT = TimeoutError, ('timed out',)
#: more than any socket takes without somebody who reads
MUCH = bytes(range(256)) * (8 << 12)


class Ends:
    """Makes connections, and closes both ends in the end."""

    def __init__(self):
        self.stack = contextlib.ExitStack()

    def __enter__(self):
        return self

    def __exit__(self, *args):
        self.stack.close()

    def gevents(self, sock, cls=socket.socket):
        """*sock* of the standard library as a gevent socket."""
        one = cls(sock.family, sock.type, sock.proto, fileno=sock.detach())
        self.stack.callback(quietly, one)
        return one

    def natives(self, sock):
        """*sock* of the standard library, which blocks for some seconds at most."""
        self.stack.callback(sock.close)
        sock.settimeout(5)
        return sock

    def pair(self, cls=socket.socket, type=native.SOCK_STREAM):
        """Both ends of a Unix socket pair: of gevent, of the standard library."""
        one, other = native.socketpair(native.AF_UNIX, type)
        return self.gevents(one, cls), self.natives(other)

    def both(self, type=native.SOCK_STREAM):
        """The same, both of gevent."""
        one, other = native.socketpair(native.AF_UNIX, type)
        return self.gevents(one), self.gevents(other)

    def tcp(self, cls=socket.socket, host='127.0.0.1'):
        """A TCP connection: gevent's end, and that of the standard library."""
        with native.create_server((host, 0), family=family_of(host)) as listener:
            one = native.create_connection(listener.getsockname()[:2])
            other, _ = listener.accept()
        return self.gevents(one, cls), self.natives(other)

    def udp(self, host='127.0.0.1'):
        """Two UDP sockets that are bound, and not connected."""
        one, other = (native.socket(family_of(host), native.SOCK_DGRAM) for _ in range(2))
        one.bind((host, 0))
        other.bind((host, 0))
        return self.gevents(one), self.natives(other)

    def dup(self, sock):
        """Another gevent socket for what *sock* is."""
        other = sock.dup()
        self.stack.callback(quietly, other)
        return other

    def listener(self):
        """A gevent socket that listens."""
        sock = socket.socket()
        self.stack.callback(quietly, sock)
        sock.bind(LOOPBACK)
        sock.listen(1)
        return sock


def family_of(host):
    return native.AF_INET6 if ':' in host else native.AF_INET


def quietly(sock):
    """Close it, whatever has been done to it."""
    with contextlib.suppress(OSError, AttributeError):
        sock.close()


def reset(sock):
    """Close a TCP socket of the standard library so that the peer gets a reset."""
    sock.setsockopt(native.SOL_SOCKET, native.SO_LINGER, struct.pack('ii', 1, 0))
    sock.close()


def fill(sock):
    """Write until *sock*, of gevent, takes nothing more; how many bytes."""
    count = 0
    while True:
        before = count
        for part in MUCH[:1 << 16], b'x':
            with contextlib.suppress(BlockingIOError):
                while True:
                    count += sock._sock.send(part)
        if sock.family == native.AF_UNIX or count == before:
            return count
        time.sleep(0.05)  # TCP acknowledges later, and has room again


def drain(sock, count):
    """Read so many bytes from *sock*, of the standard library."""
    got = bytearray()
    while len(got) < count:
        part = sock.recv(min(count - len(got), 1 << 20))
        assert part, 'end of file'
        got += part
    return bytes(got)


def difference(got, expected):
    """What is wrong with so many bytes that pytest must not show them; None: nothing."""
    if got == expected:
        return None
    same = next((i for i, (one, other) in enumerate(zip(got, expected)) if one != other),
                min(len(got), len(expected)))
    return '%d bytes instead of %d, the same up to %d' % (len(got), len(expected), same)


def collect(sock, greenlet, size=1 << 20):
    """All that comes to *sock*, of the standard library, until *greenlet* has ended, which runs
    meanwhile.
    """
    got, part = bytearray(), b'-'
    sock.setblocking(False)
    while part:
        dead, part = greenlet.dead, outcome(sock.recv, size)
        if isinstance(part, bytes):
            got += part
        else:
            assert seen(part) == AGAIN
            if dead:
                break
        gevent.sleep(0)
    sock.settimeout(5)
    return bytes(got)


def start(event, function, *args, **kwargs):
    """A greenlet that is in *function*, which waits on a watcher; it returns what outcome() does.
    """
    greenlet = gevent.spawn(outcome, function, *args, **kwargs)
    until(lambda: event.active or greenlet.dead)
    assert event.active and event.callback is not None
    return greenlet


def starts(sock, function, *args, **kwargs):
    """The same on the watcher of *sock* for reading."""
    return start(sock._read_event, function, *args, **kwargs)


def in_hub(function):
    """What a function returns or raises in a callback of the loop."""
    results = []
    get_hub().loop.run_callback(lambda: results.append(outcome(function)))
    until(lambda: results)
    return results[0]


def at_rest(sock):
    """Whether nobody waits on a socket, and its watchers know nothing of those who did."""
    return all((event.active, event.callback, event.args or None) == (False, None, None)
               for event in (sock._read_event, sock._write_event))


def seen(error):
    """The type of an exception and its arguments."""
    assert isinstance(error, BaseException), error
    return type(error), error.args


def raised(function, *args, **kwargs):
    """The same of what a call raises."""
    return seen(outcome(function, *args, **kwargs))


# -- the four ways to read, each of which gives the bytes -----------------------------------------

def recv(sock, size, *flags):
    return sock.recv(size, *flags)


def recvfrom(sock, size, *flags):
    data, _ = sock.recvfrom(size, *flags)
    return data


def recv_into(sock, size, *flags):
    buffer = bytearray(b'?' * size)
    count = sock.recv_into(buffer, size, *flags)
    assert buffer[count:] == b'?' * (size - count)
    return bytes(buffer[:count])


def recvfrom_into(sock, size, *flags):
    buffer = bytearray(b'?' * size)
    count, _ = sock.recvfrom_into(buffer, size, *flags)
    assert buffer[count:] == b'?' * (size - count)
    return bytes(buffer[:count])


READS = [recv, recvfrom, recv_into, recvfrom_into]


# -- the ways to write, each of which gives how many bytes ----------------------------------------

def send(sock, data, *flags):
    return sock.send(data, *flags)


def sendall(sock, data, *flags):
    assert sock.sendall(data, *flags) is None
    return len(data)


def sendto(sock, data, *flags):
    """To whom it is connected."""
    return sock.sendto(data, *flags, sock.getpeername())


WRITES = [send, sendall]
