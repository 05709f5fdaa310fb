"""Datagrams on gevent's sockets: addresses, sizes, full queues."""
import errno
import os
import socket as native

import gevent
import pytest
from gevent import socket

from ends import (
    AGAIN, READS, TIMED_OUT, Ends, at_rest, raised, recv, recv_into, seen, start, starts)
from helpers import printed

reads = pytest.mark.parametrize('read', READS)
hosts = pytest.mark.parametrize('host', ['127.0.0.1', '::1'])


@pytest.fixture
def ends(impl):
    with Ends() as made:
        yield made


@hosts
def test_addresses(ends, host):
    """That of the sender, as the raw socket gives it."""
    sock, other = ends.udp(host)
    mine, its = sock.getsockname(), other.getsockname()
    assert sock.sendto(b'question', its) == 8
    assert other.recvfrom(100) == (b'question', mine)
    assert other.sendto(b'answer', mine) == 6
    assert sock.recvfrom(100) == (b'answer', its)
    buffer = bytearray(10)
    other.sendto(b'more', mine)
    assert sock.recvfrom_into(buffer) == (4, its) and buffer == b'more' + bytes(6)
    greenlet = starts(sock, sock.recvfrom, 100)
    other.sendto(b'late', mine)
    assert greenlet.get() == (b'late', its)
    greenlet = starts(sock, sock.recvfrom_into, buffer, 3)
    other.sendto(b'late', mine)
    assert greenlet.get() == (3, its) and buffer[:4] == b'late'[:3] + b'e'
    assert sock.sendto(b'flags', 0, its[:2]) == 5 and other.recv(10) == b'flags'
    assert at_rest(sock)


@hosts
def test_senders_by_turns(ends, host):
    """Each datagram has the address of its sender, which an answer reaches at any time."""
    sock, one = ends.udp(host)
    _, other = ends.udp(host)
    senders = [one, other, other, one, one, other]
    got = []
    for i, sender in enumerate(senders):
        sender.sendto(b'%d' % i, sock.getsockname())
        got.append(sock.recvfrom(10))
    assert got == [(b'%d' % i, sender.getsockname()) for i, sender in enumerate(senders)]
    for data, address in reversed(got):
        assert sock.sendto(data, address) == sock.sendto(data, 0, tuple(list(address))) == 1
    for i, sender in reversed(list(enumerate(senders))):
        assert [sender.recv(10), sender.recv(10)] == [b'%d' % i] * 2


def test_address_of_another_family(ends):
    """Where a datagram came from is no address for a socket of another family, as ever."""
    four, its = ends.udp()
    six, its_six = ends.udp('::1')
    its.sendto(b'x', four.getsockname())
    _, address = four.recvfrom(10)
    assert raised(six.sendto, b'x', address)[0] is native.gaierror
    its_six.sendto(b'x', six.getsockname())
    _, address = six.recvfrom(10)
    assert raised(four.sendto, b'x', address) == raised(its.sendto, b'x', address)
    assert raised(four.sendto, b'x', address)[0] in (TypeError, native.gaierror)
    assert six.sendto(b'y', address) == 1 and its_six.recv(10) == b'y'


@hosts
def test_connected(ends, host):
    sock, other = ends.udp(host)
    sock.connect(other.getsockname())
    other.connect(sock.getsockname())
    assert sock.send(b'one') == 3 and sock.sendall(b'two') is None
    assert sock.sendto(b'three', other.getsockname()) == 5
    assert [other.recv(10) for _ in range(3)] == [b'one', b'two', b'three']
    other.send(b'answer')
    assert sock.recvfrom(10) == (b'answer', other.getsockname())
    other.send(b'answer')
    assert sock.recv(10) == b'answer'


def test_results_of_the_raw_socket(ends):
    """A tuple of its own each time."""
    sock, other = ends.udp()
    for _ in range(2):
        other.sendto(b'data', sock.getsockname())
    first, second = sock.recvfrom(10), sock.recvfrom(10)
    assert type(first) is type(first[1]) is tuple and first == second
    assert first is not second and first[1] is not second[1]
    assert [type(one) for one in first[1]] == [str, int]


@pytest.mark.parametrize('address, where', [
    ('path', 'path'), (b'path', 'path'), ('\0abstract', b'\0abstract'),
    (b'\0abstract', b'\0abstract')], ids=['path', 'bytes', 'abstract', 'abstract_bytes'])
def test_unix_addresses(ends, tmp_path, address, where):
    """Of the file system, and abstract; nobody has none."""
    part = '%d' % os.getpid()
    if 'path' in (address, where):
        name = str(tmp_path / 'p')
        address, where = os.fsencode(name) if isinstance(address, bytes) else name, name
    else:
        where += os.fsencode(part + str(tmp_path))[-60:]
        address = where if isinstance(address, bytes) else os.fsdecode(where)
    with native.socket(native.AF_UNIX, native.SOCK_DGRAM) as other:
        other.bind(address)
        sock = ends.gevents(native.socket(native.AF_UNIX, native.SOCK_DGRAM))
        assert sock.sendto(b'data', address) == 4
        assert other.recvfrom(10) == (b'data', None)
        name = str(tmp_path / 'mine')
        sock.bind(name)
        assert sock.sendto(b'data', 0, where) == 4
        assert other.recvfrom(10) == (b'data', name)
        other.sendto(b'answer', name)
        assert sock.recvfrom(10) == (b'answer', where)
        assert raised(sock.sendto, b'x', str(tmp_path / 'none'))[0] is FileNotFoundError
        assert raised(sock.sendto, b'x', 'x' * 200) == (OSError, ('AF_UNIX path too long',))
        assert raised(sock.sendto, b'x', 5)[0] is TypeError


@reads
def test_sizes(ends, read):
    """What does not fit is lost; empty ones arrive, and are no end of file."""
    sock, other = ends.pair(type=native.SOCK_DGRAM)
    for data in b'', b'0123456789', b'', b'0', b'last':
        other.send(data)
    assert [read(sock, size) for size in (5, 4, 100, 1, 4)] == [b'', b'0123', b'', b'0', b'last']
    sock.timeout = 0.0
    assert raised(read, sock, 1) == AGAIN


def test_nothing_asked_for(ends):
    """recv() and recv_into() leave the datagram, the others take it."""
    sock, other = ends.pair(type=native.SOCK_DGRAM)
    other.send(b'first')
    other.send(b'second')
    other.send(b'third')
    assert sock.recv(0) == b'' and sock.recv_into(bytearray()) == 0
    assert sock.recvfrom(0) == (b'', None)
    assert sock.recvfrom_into(bytearray()) == (0, None)
    assert sock.recv(10) == b'third'


def test_flags(ends):
    """MSG_PEEK leaves it, MSG_TRUNC tells how long it was."""
    sock, other = ends.pair(type=native.SOCK_DGRAM)
    other.send(b'0123456789')
    assert recv(sock, 5, native.MSG_PEEK) == recv_into(sock, 5, native.MSG_PEEK) == b'01234'
    buffer = bytearray(4)
    assert sock.recv_into(buffer, 4, native.MSG_TRUNC | native.MSG_PEEK) == 10
    assert buffer == b'0123'
    assert sock.recvfrom_into(buffer, 4, native.MSG_TRUNC | native.MSG_PEEK) == (10, None)
    assert sock.recv(20) == b'0123456789'


def test_sequenced_packets(ends):
    sock, other = ends.pair(type=native.SOCK_SEQPACKET)
    for data in b'one', b'two':
        other.send(data)
    assert sock.recv(2) == b'on' and sock.recv(10) == b'two'
    assert sock.sendall(b'three') is None and other.recv(10) == b'three'
    greenlet = starts(sock, sock.recv, 10)
    other.close()
    assert greenlet.get() == b''


WRONG = {
    'port_too_large': (('127.0.0.1', 65536), OverflowError, 'sendto(): port must be 0-65535.'),
    'negative_port': (('127.0.0.1', -1), OverflowError, 'sendto(): port must be 0-65535.'),
    'port_as_text': (('127.0.0.1', '9'), TypeError,
                     "'str' object cannot be interpreted as an integer"),
    'no_port': (('127.0.0.1',), TypeError, 'AF_INET address must be a pair (host, port)'),
    'three': (('127.0.0.1', 9, 0), TypeError, 'AF_INET address must be a pair (host, port)'),
    'text': ('127.0.0.1', TypeError, 'sendto(): AF_INET address must be tuple, not str'),
    'list': (['127.0.0.1', 9], TypeError, 'sendto(): AF_INET address must be tuple, not list'),
    'None': (None, TypeError, 'sendto(): AF_INET address must be tuple, not NoneType'),
    'no_host': ((None, 9), TypeError, 'str, bytes or bytearray expected, not NoneType'),
    'host_as_int': ((5, 9), TypeError, 'str, bytes or bytearray expected, not int')}


@pytest.mark.parametrize('kind', WRONG)
def test_wrong_addresses(ends, kind):
    sock, other = ends.udp()
    address, error, text = WRONG[kind]
    for flags in [], [0]:
        assert raised(sock.sendto, b'data', *flags, address) == (error, (text,))
    assert sock.sendto(b'data', other.getsockname()) == 4 and other.recv(10) == b'data'


def test_hosts(ends):
    """Names, bytes and the empty host as the raw socket takes them."""
    sock, other = ends.udp()
    port = other.getsockname()[1]
    for host in 'localhost', b'127.0.0.1', bytearray(b'127.0.0.1'), '127.0.0.1':
        assert sock.sendto(b'data', (host, port)) == 4 and other.recv(10) == b'data'
    assert raised(sock.sendto, b'data', ('<broadcast>', port)) == (
        PermissionError, (errno.EACCES, os.strerror(errno.EACCES)))
    assert raised(sock.sendto, b'data', ('no host \0', port))[0] in (ValueError, TypeError)
    assert issubclass(raised(sock.sendto, b'x', ('host.invalid', port))[0], native.gaierror)
    assert raised(sock.sendto, 'text', ('127.0.0.1', port)) == (
        TypeError, ("a bytes-like object is required, not 'str'",))
    assert raised(sock.sendto, b'x', 'flags', ('127.0.0.1', port)) == (
        TypeError, ("'str' object cannot be interpreted as an integer",))


AUDITED = '''
    import array
    import sys
    from gevent import server, socket
    seen, fails = [], []

    def hook(event, args):
        if event == 'socket.sendto':
            seen.append(args)
            if fails:
                raise LookupError('hook')

    def show(sendto, *args):
        del seen[:]
        try:
            sendto(*args)
            text = 'sent'
        except Exception as error:
            text = type(error).__name__
        print(len(seen), text)

    def writers(one):
        yield one.sendto
        sender = server.DatagramServer(one, print)
        yield sender.sendto
    sys.addaudithook(hook)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.bind(('127.0.0.1', 0))
        where = one.getsockname()
        for sendto in writers(one):
            for data in b'x', array.array('b', [1]), 'x', None:
                show(sendto, data, where)
                assert all(args[1:] == (where,) for args in seen)
            fails.append(1)
            show(sendto, b'x', where)
            show(sendto, 'x', where)
            fails.pop()
'''


def test_audit_events(impl, tmp_path):
    """One for what can be sent, and none for what cannot."""
    assert printed(impl, tmp_path, AUDITED) == 2 * [
        '1 sent', '1 sent', '0 TypeError', '0 TypeError', '1 LookupError', '0 TypeError']


def test_too_long(ends):
    sock, other = ends.udp()
    error = OSError, (errno.EMSGSIZE, os.strerror(errno.EMSGSIZE))
    assert raised(sock.sendto, bytes(70000), other.getsockname()) == error
    sock.connect(other.getsockname())
    assert raised(sock.send, bytes(70000)) == raised(sock.sendall, bytes(70000)) == error


def test_nobody_there(ends):
    """Told once, to whoever asks next."""
    sock, other = ends.udp()
    sock.connect(other.getsockname())
    other.close()
    error = ConnectionRefusedError, (errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))
    assert sock.send(b'data') == 4 and raised(sock.recv, 10) == error
    assert sock.send(b'data') == 4 and raised(sock.send, b'data') == error
    assert sock.send(b'data') == 4
    greenlet = gevent.spawn(raised, sock.recvfrom, 10)
    assert greenlet.get() == error and at_rest(sock)


def full(ends):
    """A connected socket whose peer's queue is full, the peer, and how many there are."""
    sock, other = ends.pair(type=native.SOCK_DGRAM)
    sock.timeout, count = 0.0, 0
    while raised_or_sent(sock, b'%03d' % count):
        count += 1
    sock.timeout = None
    return sock, other, count


def raised_or_sent(sock, data):
    try:
        return sock.send(data) == 3
    except BlockingIOError:
        return False


@pytest.mark.parametrize('name', ['send', 'sendall'])
def test_full_queue(ends, name):
    """It waits until somebody reads, and nothing is lost."""
    sock, other, count = full(ends)
    assert count > 1
    greenlet = start(sock._write_event, getattr(sock, name), b'one more')
    gevent.sleep(0)
    assert not greenlet.dead
    got = [other.recv(10) for _ in range(count)]
    assert greenlet.get() == (8 if name == 'send' else None) and at_rest(sock)
    assert got == [b'%03d' % number for number in range(count)] and other.recv(10) == b'one more'
    sock, other, count = full(ends)
    sock.timeout = 0.001
    assert raised(getattr(sock, name), b'one more') == TIMED_OUT and at_rest(sock)
    assert [other.recv(10) for _ in range(count)] == got[:count]
    other.setblocking(False)
    assert raised(other.recv, 10) == AGAIN


def test_full_queue_of_somebody_else(ends, tmp_path):
    """A socket that is not connected is always ready to write: tried once more, then 0."""
    name = str(tmp_path / 'it')
    with native.socket(native.AF_UNIX, native.SOCK_DGRAM) as other:
        other.bind(name)
        sock = ends.gevents(native.socket(native.AF_UNIX, native.SOCK_DGRAM))
        sock.timeout, count = 0.0, 0
        try:
            while True:
                sock.sendto(b'%03d' % count, name)
                count += 1
        except BlockingIOError as error:
            assert seen(error) == AGAIN
        for sock.timeout in None, 5:
            assert sock.sendto(b'more', name) == sock.sendto(b'more', 0, name) == 0
            assert at_rest(sock)
        assert [other.recv(10) for _ in range(count)] == [b'%03d' % n for n in range(count)]
        other.setblocking(False)
        assert raised(other.recv, 10) == AGAIN
        assert sock.sendto(b'', name) == 0 and other.recv(10) == b''
        assert type(sock) is socket.socket
