"""Sockets that several have: greenlets, threads, processes, hubs, files, other descriptors."""
import errno
import gc
import io
import os
import resource
import socket as native
import threading

import gevent
import gevent.lock
import gevent.threadpool
import pytest
from gevent import pywsgi, socket
from gevent.exceptions import ConcurrentObjectUseError

from ends import (
    CANCELLED, CLOSED, MUCH, READS, Ends, at_rest, collect, difference, fill, raised, seen,
    start, starts)
from helpers import (
    LOOPBACK, connect_natively, descriptors_at_rest, is_open, outcome, printed,
    until)

reads = pytest.mark.parametrize('read', READS)


@pytest.fixture
def ends(impl):
    with Ends() as made:
        yield made


# -- greenlets ------------------------------------------------------------------------------------

def test_one_reads_one_writes(ends):
    """At the same time; neither knows of the other."""
    sock, other = ends.pair()
    reader = starts(sock, sock.recv, 10)
    writer = start(sock._write_event, sock.sendall, MUCH)
    other.send(b'data')
    assert reader.get() == b'data' and not writer.dead
    reader = starts(sock, sock.recv, 10)
    assert difference(collect(other, writer), MUCH) is None
    assert writer.get() is None and not reader.dead
    other.send(b'more')
    assert reader.get() == b'more' and at_rest(sock)


def test_two_write(ends):
    """The second does not wait as long as the first does, and breaks nothing."""
    sock, other = ends.pair()
    first = start(sock._write_event, sock.sendall, MUCH)
    for write in sock.send, sock.sendall:
        assert raised(write, b'second')[0] is ConcurrentObjectUseError
    assert sock.sendall(b'') == 0
    assert difference(collect(other, first), MUCH) is None
    assert sock.sendall(b'second') is None and other.recv(10) == b'second'


def test_queue_of_readers(ends):
    """A lock around the calls gives each its part."""
    sock, other = ends.pair()
    lock, got = gevent.lock.RLock(), []

    def read(number):
        with lock:
            got.append((number, sock.recv(1)))
    waiting = [gevent.spawn(read, number) for number in range(20)]
    gevent.sleep(0)
    other.send(bytes(range(20)))
    gevent.joinall(waiting, raise_error=True)
    assert got == [(number, bytes([number])) for number in range(20)]


# -- threads --------------------------------------------------------------------------------------

def in_thread(function, *args):
    """What a call returns or raises in a native thread, while the hub of this one runs."""
    results = []
    thread = threading.Thread(target=lambda: results.append(outcome(function, *args)))
    thread.start()
    until(lambda: results)
    thread.join()
    return results[0]


@reads
def test_in_a_thread(ends, read):
    """Whoever need not wait can do it anywhere."""
    sock, other = ends.pair()
    for _ in range(3):
        other.send(b'data')
        assert in_thread(read, sock, 10) == b'data'
        assert in_thread(sock.sendall, b'answer') is None and other.recv(10) == b'answer'
        assert in_thread(sock.send, b'answer') == 6 and other.recv(10) == b'answer'
    assert in_thread(sock.recv, 0) == b''
    assert seen(in_thread(read, sock, -1))[0] is ValueError
    greenlet = starts(sock, read, sock, 10)
    other.send(b'data')
    assert greenlet.get() == b'data' and at_rest(sock)


def test_in_the_thread_pool(ends):
    """Data that is there; a short read before does not make it wait."""
    sock, other = ends.pair()
    pool = gevent.threadpool.ThreadPool(1)
    try:
        for _ in range(5):
            other.send(b'data')
            assert sock.recv(100) == b'data'
            other.send(b'more')
            assert pool.apply(sock.recv, (100,)) == b'more'
            assert pool.apply(sock.sendall, (b'answer',)) is None
            assert other.recv(10) == b'answer'
    finally:
        pool.kill()


def test_made_in_a_thread(ends):
    """With a hub of its own, where it waits."""
    one, other = native.socketpair()
    ends.natives(other)
    results = []

    def run():
        sock = socket.socket(one.family, one.type, fileno=one.detach())
        results.append(sock.hub)
        for _ in range(3):
            sock.sendall(sock.recv(10) + b'!')
        sock.close()
        gevent.get_hub().destroy()
    thread = threading.Thread(target=run)
    thread.start()
    for _ in range(3):
        other.send(b'data')
        assert other.recv(10) == b'data!'
    assert other.recv(10) == b''
    thread.join(10)
    assert results[0] is not gevent.get_hub()


# -- processes, hubs ------------------------------------------------------------------------------

FORKED = '''
    import gevent, os
    from gevent import server, socket
    def ended(pid):  # gevent's own way to wait may miss the end of a child
        while True:
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                return os.WEXITSTATUS(status)
            gevent.sleep(0.005)
    one, other = socket.socketpair()
    reader = gevent.spawn(one.recv, 10)
    gevent.sleep(0)
    assert one._read_event.active
    pid = os.fork()
    if not pid:
        gevent.reinit()
        two, three = socket.socketpair()
        greenlet = gevent.spawn(two.recv, 10)
        gevent.sleep(0)
        three.sendall(b'new')
        assert greenlet.get() == b'new'
        other.sendall(b'from child')
        os._exit(7)
    print(reader.get(timeout=20))
    print(ended(pid))
    pid = os.fork()
    if not pid:
        gevent.reinit()
        greenlet = gevent.spawn(one.recv, 10)
        gevent.sleep(0.001)
        other.sendall(b'in child')
        os._exit(8 if greenlet.get() == b'in child' else 1)
    print(ended(pid))
    one.sendall(b'x' * 10)
    print(other.recv(10))
'''


def test_forked(impl, tmp_path):
    """Both go on with sockets made before and after."""
    assert printed(impl, tmp_path, FORKED) == ["b'from child'", '7', '8', "b'" + 'x' * 10 + "'"]


DESTROYED = '''
    import gevent
    from gevent import server, socket
    one, other = socket.socketpair()
    other.sendall(b'data')
    gevent.sleep(0)
    gevent.get_hub().destroy(destroy_loop=True)
    print(one.recv(10), other.sendall(b'more'), one.recv_into(bytearray(10)))
    one.timeout = 0.0
    try:
        one.recv(10)
    except BlockingIOError as error:
        print(error.errno == 11)
    two, three = socket.socketpair()
    greenlet = gevent.spawn(two.recv, 10)
    gevent.sleep(0.001)
    three.sendall(b'new hub')
    print(greenlet.get())
'''


def test_hub_destroyed(impl, tmp_path):
    """Whoever need not wait needs none; new sockets have the new hub."""
    assert printed(impl, tmp_path, DESTROYED) == [
        "b'data' None 4", 'True', "b'new hub'"]


# -- descriptors ----------------------------------------------------------------------------------

@reads
def test_descriptor_given_out_anew(ends, read):
    """Each socket reads what is its own."""
    for _ in range(5):
        sock, other = ends.pair()
        fd = sock.fileno()
        other.send(b'short')
        assert read(sock, 100) == b'short'
        greenlet = starts(sock, read, sock, 10)
        sock.close()
        assert seen(greenlet.get()) == CANCELLED
        until(lambda: not is_open(fd))
        third, fourth = ends.pair()
        assert fd in (third.fileno(), fourth.fileno())
        greenlet = starts(third, read, third, 10)
        fourth.send(b'data')
        assert greenlet.get() == b'data' and raised(read, sock, 10) == CLOSED


def test_descriptor_replaced_natively(ends):
    """What is there now is read: the number counts."""
    sock, other = ends.pair()
    other.send(b'short')
    assert sock.recv(100) == b'short'
    third, fourth = native.socketpair()
    with third, ends.natives(fourth):
        third.setblocking(False)
        os.dup2(third.fileno(), sock.fileno())
        fourth.send(b'another')
        assert sock.recv(100) == b'another'
        assert sock.sendall(b'answer') is None and fourth.recv(10) == b'answer'
    assert other.recv(10) == b''


def test_high_descriptors(ends):
    """More than select() knows."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    assert limit > 1100
    held = [os.open(os.devnull, os.O_RDONLY) for _ in range(1030)]
    try:
        sock, other = ends.pair()
        assert sock.fileno() >= 1024
        greenlet = starts(sock, sock.recv, 10)
        other.send(b'data')
        assert greenlet.get() == b'data'
        writer = start(sock._write_event, sock.sendall, MUCH)
        assert difference(collect(other, writer), MUCH) is None
        sock.timeout = 0.001
        assert raised(sock.recv, 1)[0] is TimeoutError
    finally:
        for fd in held:
            os.close(fd)


def test_no_descriptor_is_lost(ends):
    """Whatever happened on them."""
    def use():
        one, other = socket.socketpair()
        with one, other:
            greenlet = gevent.spawn(outcome, one.recv, 10)
            gevent.sleep(0)
            greenlet.kill()
            one.sendall(b'data')
            assert other.recv(100) == b'data'
    use()
    before = descriptors_at_rest()
    for _ in range(20):
        use()
    assert descriptors_at_rest() == before


def test_duplicate(ends):
    """Has a timeout of its own, and the same data."""
    sock, other = ends.pair()
    sock.timeout = 0.0
    twin = ends.dup(sock)
    assert twin.timeout == 0.0 and twin.fileno() != sock.fileno()
    twin.timeout = None
    other.send(b'0123456789')
    assert sock.recv(5) == b'01234' and twin.recv(10) == b'56789'
    greenlet = starts(twin, twin.recv, 10)
    sock.close()
    other.send(b'data')
    assert greenlet.get() == b'data'
    twin.close()
    assert other.recv(1) == b''


def test_collected(ends):
    """A socket that nobody has any more is closed, whatever it did."""
    one, other = native.socketpair()
    ends.natives(other)
    sock = socket.socket(one.family, one.type, fileno=one.detach())
    greenlet = starts(sock, sock.recv, 10)
    other.send(b'data')
    assert greenlet.get() == b'data'
    del greenlet
    with pytest.warns(ResourceWarning, match='unclosed'):
        del sock
        gc.collect()
    assert other.recv(1) == b''


# -- files ----------------------------------------------------------------------------------------

@pytest.mark.parametrize('buffering', [0, 1, 16, None], ids=str)
def test_files(ends, buffering):
    """Read and written through makefile()."""
    sock, other = ends.pair()
    with sock.makefile('rwb', buffering=buffering) as file:
        assert sock._io_refs == 1
        greenlet = starts(sock, file.readline)
        other.send(b'first line\nsecond ')
        assert greenlet.get() == b'first line\n'
        other.send(b'line\n')
        assert file.readline() == b'second line\n'
        file.write(b'answer')
        file.flush()
        assert other.recv(10) == b'answer'
        other.send(b'0123456789')
        buffer = bytearray(4)
        assert file.readinto(buffer) == 4 and buffer == b'0123'
        assert file.read(6) == b'456789'
        other.shutdown(native.SHUT_WR)
        assert file.read(10) == b'' and file.readline() == b''
    assert sock._io_refs == 0 and at_rest(sock) and not sock.closed


def test_unbuffered_file(ends):
    """None where it would have to wait; EBADF from a closed socket."""
    sock, other = ends.pair()
    file = sock.makefile('rwb', buffering=0)
    assert type(file) is native.SocketIO
    sock.timeout = 0.0
    assert file.read(5) is None and file.readinto(bytearray(5)) is None
    fill(sock)
    assert file.write(b'data') is None
    sock.timeout = 0.001
    assert raised(file.read, 5)[0] is TimeoutError
    assert raised(file.read, 5) == (OSError, ('cannot read from timed out object',))
    file.close()
    sock.timeout = None
    sock.close()
    assert raised(file.read, 5) == (ValueError, ('I/O operation on closed file.',))


def test_text_file(ends):
    sock, other = ends.pair()
    with sock.makefile('rw', encoding='utf-8', newline='\n') as file:
        sock.close()
        greenlet = starts(sock, file.readline)
        other.send('grüße\n'.encode())
        assert greenlet.get() == 'grüße\n'
        file.write('zurück\n')
        file.flush()
        assert other.recv(20) == 'zurück\n'.encode()
    assert sock.closed and other.recv(1) == b''


def test_large_write_through_a_file(ends):
    """BufferedWriter gives views of its buffer."""
    sock, other = ends.pair()
    file = sock.makefile('wb', buffering=100000)

    def write():
        for number in range(0, len(MUCH), 77777):
            file.write(MUCH[number:number + 77777])
        file.close()
    greenlet = gevent.spawn(write)
    assert difference(collect(other, greenlet), MUCH) is None
    greenlet.get()
    assert isinstance(file, io.BufferedWriter) and at_rest(sock)


# -- servers, programs ----------------------------------------------------------------------------

@pytest.mark.parametrize('split', [False, True], ids=['at_once', 'in_pieces'])
def test_pipelined_requests(impl, serve, split):
    """Many on one kept connection, in order, with bodies."""
    def application(environ, start_response):
        body = environ['wsgi.input'].read()
        start_response('200 OK', [('Content-Length', str(len(body) + 3))])
        return [b'<', body, b'>\n']
    one = serve(impl.WSGIServer(LOOPBACK, application, log=None))
    assert isinstance(one, pywsgi.WSGIServer)
    requests = b''.join(
        b'POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s' % (number, b'b' * number)
        for number in range(40))
    expected = [b'<%s>' % (b'b' * number) for number in range(40)]
    got = b''
    with connect_natively(one) as client:
        client.setblocking(False)
        pieces = [requests[start:start + 97] for start in range(0, len(requests), 97)]
        for piece in pieces if split else [requests]:
            client.send(piece)
            gevent.sleep(0)
        while got.count(b'>\n') < 40:
            part = outcome(client.recv, 1 << 16)
            if isinstance(part, bytes):
                assert part
                got += part
            gevent.sleep(0)
    assert [line for line in got.split(b'\n') if line.startswith(b'<')] == expected
    assert got.count(b'HTTP/1.1 200 OK\r\n') == 40


PROGRAM = '''
    import gevent, sys
    from gevent import monkey, server
    monkey.patch_all()
    import socket
    one, other = socket.socketpair()
    greenlet = gevent.spawn(one.recv, 10)
    gevent.sleep(0)
    other.sendall(b'patched')
    print(greenlet.get(), type(one).__module__)
    gevent.spawn(one.recv, 10)
    gevent.sleep(0)
'''


def test_program_that_ends_while_somebody_waits(impl, tmp_path):
    """Silently."""
    assert printed(impl, tmp_path, PROGRAM) == ["b'patched' gevent._socket3"]


AT_EXIT = '''
    import atexit
    from gevent import server, socket
    one, other = socket.socketpair()

    def last():
        one.sendall(b'last')
        print(other.recv(10), one.recv(10))
    atexit.register(last)
    other.sendall(b'words')
'''


def test_sockets_at_exit(impl, tmp_path):
    """They still read and write."""
    assert printed(impl, tmp_path, AT_EXIT) == ["b'last' b'words'"]


def test_limits_of_a_connection(ends):
    """The error of one call is not that of the next."""
    sock, other = ends.tcp()
    other.close()
    assert sock.recv(10) == b''
    until(lambda: isinstance(outcome(sock.send, b'x'), OSError))
    assert seen(outcome(sock.send, b'x'))[1][0] in (errno.EPIPE, errno.ECONNRESET)
    assert sock.recv(10) == b'' and at_rest(sock)
