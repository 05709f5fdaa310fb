"""Whose turn it is: a handler that always finds something to read lets others read, too.

gevent lets it go on; so does ours with a limit of 0, and where no handler reads from its client.
"""
import functools
import os
import socket as native
import subprocess
import sys
import threading

import gevent
import pytest
from gevent import baseserver, get_hub, server  # noqa: F401 (the steps need gevent.server)
from gevent._compat import PURE_PYTHON
from gevent.threadpool import ThreadPool

from ends import CANCELLED, CLOSED, Ends, in_hub, raised, seen, starts
from helpers import LOOPBACK, child_environ, is_on, outcome, printed, until


@pytest.fixture
def ends(impl):
    with Ends() as made:
        yield made


LIBUV = type(get_hub().loop).__module__.startswith('gevent.libuv')

#: how many reads come before that of who waits: in one turn of the loop, either may be the first
FIRST = [1, 2]


@pytest.fixture
def limit(impl):
    """``limit(number)`` sets it; whether that has an effect."""
    def set_to(number):
        if impl.stock:
            return False
        import gevent_cbase
        gevent_cbase.install(max_reads=number)
        return is_on('io') and is_on('greenlets') and number != 0
    yield set_to
    if not impl.stock:
        set_to(None)


class Readers:
    """A greenlet that waits for its socket, while this one reads from another that has data."""

    def __init__(self, ends, made):
        self.sock, self.other = made
        self.late, self.its_other = ends.pair()
        self.log = []
        self.waits = starts(self.late, self.wait)

    def wait(self):
        self.late.recv(10)
        self.log.append('other')

    def read(self, read, count):
        """A handler reads so often, when there is something for the other one, too; how many reads
        came before it.
        """
        return handled(self.sock, self.read_here, read, count)

    def read_here(self, read, count):
        self.its_other.send(b'late')
        for _ in range(count):
            read(self.sock)
            self.log.append('read')
        self.waits.join()
        assert self.log.count('read') == count
        return self.log.index('other')


def handled(sock, function, *args):
    """What the function returns in the handler of this client."""
    return handler(sock, function, *args).get()


def handler(sock, function, *args):
    """A greenlet as a server starts it, which calls the function."""
    return started(sock, lambda *client: function(*args))


def started(sock, handle):
    """A greenlet as a server starts it."""
    return gevent.spawn(baseserver._handle_and_close_when_done, handle, lambda *client: None,
                        (sock, None))


@pytest.fixture
def readers(ends):
    return Readers(ends, ends.pair())


def short(sock):
    """Read what the other end has just sent, and ask for more."""
    assert sock.recv(10) == b'data'


def send_and_read_short(one):
    def read(sock):
        one.other.send(b'data')
        short(sock)
    return read


@pytest.mark.parametrize('number', [0, 1, 100])
def test_short_reads(limit, readers, number):
    """After the first one, whoever waits comes first."""
    counts = limit(number)
    assert readers.read(send_and_read_short(readers), 5) in (FIRST if counts else [5])


@pytest.mark.parametrize('number', [0, 1, 3])
def test_too_many_reads(limit, readers, number):
    """Also if each read got all that it asked for."""
    counts = limit(number)
    readers.other.send(b'x' * 10)
    assert readers.read(lambda sock: sock.recv(1), 10) in (
        [number, 2 * number] if counts else [10])


@pytest.mark.parametrize('function', ['recv_into', 'recvfrom', 'recvfrom_into'])
def test_other_functions(limit, readers, function):
    counts = limit(100)

    def read(sock):
        readers.other.send(b'data')
        getattr(sock, function)(10 if function == 'recvfrom' else bytearray(10))
    assert readers.read(read, 5) in (FIRST if counts else [5])


def test_who_is_no_handler(limit, readers):
    """It reads at once: also with the socket as its argument, and the handler of another one."""
    limit(1)
    read = send_and_read_short(readers)
    assert readers.read_here(read, 5) == 5


@pytest.mark.parametrize('args', [
    lambda one: (one.sock,), lambda one: (None, None, (one.late, one.sock)),
    lambda one: (None, None, [one.sock]), lambda one: (None, None, ()),
    lambda one: (None, None, (one.sock, None))])
def test_who_resembles_a_handler(limit, readers, args):
    """The same."""
    limit(1)
    read = send_and_read_short(readers)
    greenlet = gevent.spawn(lambda *args: readers.read_here(read, 5), *args(readers))
    assert greenlet.get() == 5


def test_raw_greenlet(limit, readers):
    """The same."""
    limit(1)
    got = []
    hub = get_hub()
    gevent.spawn_raw(lambda *args: got.append(
        readers.read_here(send_and_read_short(readers), 5)), None, None, (readers.sock, None))
    readers.waits.join()
    while not got:
        gevent.sleep(0)
    assert got == [5] and hub is get_hub()


@pytest.mark.parametrize('spawn, waits', [
    ('default', True), (2, True), (gevent.spawn_raw, False)], ids=['default', 'pool', 'raw'])
@pytest.mark.parametrize('number', [0, 100, None])
def test_handler_of_a_server(impl, limit, ends, number, spawn, waits):
    """It waits for its turn, also if nobody has set a limit."""
    counts = limit(number)
    readers = Readers(ends, (None, None))
    got = []

    def handle(sock, address):
        readers.sock, readers.other = sock, peer
        got.append(readers.read_here(send_and_read_short(readers), 5))
    one = impl.StreamServer(LOOPBACK, handle, spawn=spawn)
    one.start()
    peer = native.create_connection(one.address, 5)
    until(lambda: got)
    peer.close()
    one.stop()
    assert got[0] in (FIRST if counts and waits else [5])


@pytest.mark.parametrize('kind', [lambda function: function, functools.partial],
                         ids=['function', 'object'])
def test_first_read_of_a_handler(limit, readers, kind):
    """It does not wait: what was read before was for somebody else, perhaps of another client with
    the same descriptor. On CPython 3.10 gevent's function runs handlers that are no functions."""
    limit(100)
    log = []

    def read():
        readers.other.send(b'data')
        get_hub().loop.run_callback(log.append, 'loop')
        short(readers.sock)
        return log.copy()
    for _ in range(2):
        log.clear()
        assert started(readers.sock, kind(lambda *client: read())).get() == []


def test_peeking_is_no_reading(limit, readers):
    """It does not wait, and what was peeked at is read at once."""
    limit(1)
    readers.other.send(b'data')
    assert readers.read(lambda sock: sock.recv(10, native.MSG_PEEK), 5) == 5
    short(readers.sock)


def test_datagrams(limit, ends):
    """A short read of a datagram has not emptied the socket."""
    limit(100)
    one = Readers(ends, ends.pair(type=native.SOCK_DGRAM))
    assert one.read(send_and_read_short(one), 5) == 5


@pytest.mark.parametrize('timeout', [0.0, 5.0])
def test_timeouts(limit, readers, timeout):
    """With a timeout, what is there is read at once."""
    limit(1)
    readers.sock.timeout = timeout
    assert readers.read(send_and_read_short(readers), 5) == 5


def test_in_the_hub(limit, readers):
    """Where nobody can wait."""
    limit(1)

    def read_all():
        for _ in range(5):
            readers.other.send(b'data')
            short(readers.sock)
        return 'done'
    assert in_hub(read_all) == 'done'
    readers.its_other.send(b'late')
    readers.waits.join()


def test_somebody_else_waits_for_the_same(limit, ends):
    """Who finds something reads it at once; both get what is theirs."""
    limit(1)
    sock, other = ends.pair()
    other.send(b'data')
    short(sock)
    greenlet = starts(sock, sock.recv, 10)
    other.send(b'data')
    short(sock)
    assert not greenlet.ready()
    other.send(b'for it')
    assert greenlet.get() == b'for it'


def test_alone(limit, ends):
    """Nobody waits: it goes on. The loop gets its turn when there were too many."""
    counts = limit(3)
    sock, other = ends.pair()
    log = []

    def read():
        gevent.sleep(0.001)
        get_hub().loop.run_callback(log.append, 'loop')
        for _ in range(6):
            other.send(b'data')
            short(sock)
            log.append('read')
        gevent.sleep(0)
    handled(sock, read)
    assert log.index('loop') in ([0, 1, 2, 3] if counts else [6])


def test_in_vain(limit, ends):
    """Who has found nothing after a short read waits at once the next time."""
    counts = limit(100)
    sock, other = ends.pair()
    log = []

    def read():
        other.send(b'data')
        short(sock)
        gevent.spawn(other.send, b'data')
        short(sock)  # in vain
        other.send(b'data')
        get_hub().loop.run_callback(log.append, 'loop')
        short(sock)
        return log[:]
    assert handled(sock, read) == (['loop'] if counts else [])


def test_in_another_thread(limit, ends):
    """Who reads there reads at once; it could not wait."""
    limit(1)
    sock, other = ends.pair()
    one = Readers(ends, ends.pair())
    pool = ThreadPool(1)
    try:
        for _ in range(3):
            other.send(b'data')
            assert pool.apply(sock.recv, (10,)) == b'data'
    finally:
        pool.kill()
    one.its_other.send(b'late')
    one.waits.join()


def test_descriptor_closed_behind_the_back(limit, ends):
    """EBADF, at once or after it has waited."""
    limit(1)
    one = Readers(ends, ends.pair())

    def read():
        one.other.send(b'data')
        short(one.sock)
        os.close(one.sock.fileno())
        return raised(one.sock.recv, 10)
    assert handled(one.sock, read) == CLOSED
    one.sock._sock.detach()
    one.its_other.send(b'late')
    one.waits.join()


def test_end_of_file(limit, readers):
    """Is found while others wait."""
    counts = limit(1)

    def close_and_read(sock):
        if not readers.log:
            readers.other.send(b'data')
            short(sock)
            readers.other.close()
        assert sock.recv(10) == b''
    assert readers.read(close_and_read, 3) in (FIRST + [0] if counts else [3])


def test_killed_while_it_waits_for_its_turn(limit, ends):
    """Nothing is lost."""
    counts = limit(100)
    one = Readers(ends, ends.pair())
    one.other.send(b'data')

    def read():
        short(one.sock)
        one.other.send(b'more')
        return one.sock.recv(10)
    greenlet = handler(one.sock, read)
    gevent.sleep(0)
    if counts:
        assert one.sock._read_event.active
        greenlet.kill()
        assert isinstance(greenlet.value, gevent.GreenletExit)
        assert one.sock.recv(10) == b'more'
    else:
        assert greenlet.get() == b'more'
    one.its_other.send(b'late')
    one.waits.join()


@pytest.mark.parametrize('what', ['close', 'kill', 'read'])
def test_what_comes_first(limit, ends, what):
    """What other greenlets are about to do to the handler or its socket, if it waits."""
    counts = limit(100)
    one = Readers(ends, ends.pair())
    got = []

    def read():
        one.other.send(b'data')
        short(one.sock)
        one.other.send(b'more')
        gevent.spawn({
            'close': one.sock.close, 'kill': lambda: greenlet.kill(block=False),
            'read': lambda: got.append(one.sock.recv(10))}[what])
        return outcome(one.sock.recv, 10)
    greenlet = handler(one.sock, read)
    until(lambda: greenlet.ready() or got)
    if what == 'read':
        assert (got, greenlet.ready()) == (([b'more'], False) if counts else ([], True))
        one.other.send(b'last')
        until(lambda: greenlet.ready() and got)
        assert {greenlet.value, *got} == {b'more', b'last'}
    elif not counts:
        assert greenlet.value == b'more'
    elif what == 'close':
        assert seen(greenlet.value) == CANCELLED
    else:
        assert isinstance(greenlet.value, gevent.GreenletExit)
    one.its_other.send(b'late')
    one.waits.join()


# -- what nobody is told of: it is read at once ---------------------------------------------------

def drained(ends, made):
    """A socket that was emptied, while another greenlet waits for its own; and its other end."""
    made[1].send(b'data')
    short(made[0])
    sock, other = ends.pair()
    return other, starts(sock, sock.recv, 10)


def leave(waits):
    other, greenlet = waits
    other.send(b'late')
    assert greenlet.get() == b'late'


def test_in_a_native_thread(limit, ends):
    """Where the socket's hub cannot be waited in."""
    limit(1)
    sock, other = ends.pair()
    waits = drained(ends, (sock, other))
    read = []

    def read_some():
        for _ in range(3):
            other.send(b'data')
            read.append(outcome(sock.recv, 10))
    thread = threading.Thread(target=read_some)
    thread.start()
    thread.join()
    assert read == [b'data'] * 3
    leave(waits)


def test_listener(limit, ends):
    """It has nothing to read, and says so."""
    limit(1)
    listener = ends.gevents(native.create_server(('127.0.0.1', 0)))
    sock, other = ends.pair()
    other.send(b'x' * 5)
    for _ in range(5):
        assert sock.recv(1) == b'x'
        with pytest.raises(OSError, match='not connected'):
            listener.recv(1)


def test_closed_inside(limit, ends):
    """A descriptor that is closed behind gevent's back."""
    limit(1)
    sock, other = ends.pair()
    closed, _ = ends.pair()
    for _ in range(2):
        other.send(b'x')
        assert sock.recv(1) == b'x'
    closed._sock.close()
    with pytest.raises(OSError, match='Bad file descriptor'):
        closed.recv(1)


@pytest.mark.parametrize('number', [1, 100])
def test_low_water_mark(limit, ends, number):
    """The system reports a socket no earlier than so much is there."""
    limit(number)
    sock, other = ends.tcp()
    sock.setsockopt(native.SOL_SOCKET, native.SO_RCVLOWAT, 100)

    def read():
        waits = drained(ends, (sock, other))
        for _ in range(3):
            other.send(b'data')
            until(lambda: readable(sock))
            short(sock)
        leave(waits)
        return 'done'
    assert handled(sock, read) == 'done'


def readable(sock):
    try:
        return sock._sock.recv(10, native.MSG_PEEK) == b'data'
    except BlockingIOError:
        return False


DESTROYED = '''
    import gevent
    from gevent import server, socket
    one, other = socket.socketpair()
    late, its_other = socket.socketpair()
    waits = gevent.spawn(late.recv, 10)
    gevent.sleep(0)
    assert late._read_event.active
    gevent.get_hub().destroy(destroy_loop=True)
    for _ in range(3):
        other.sendall(b'data')
        print(one.recv(10))
'''


@pytest.mark.skipif(LIBUV, reason='libuv does not end')
def test_hub_destroyed(impl, tmp_path):
    """There is no turn to wait for."""
    assert printed(impl, tmp_path, DESTROYED) == ["b'data'"] * 3


FORKED = '''
    import os
    import socket as native
    import gevent
    from gevent import server
    from gevent.event import Event
    parent, waits = os.getpid(), Event()

    def handle(sock, address):
        if sock.recv(10) == b'waits':
            waits.set()
            show(sock.recv(10))
            return
        waits.wait()
        child = os.fork()
        if not child:
            clients[1].sendall(b'mine')
            for _ in range(3):
                clients[0].sendall(b'rest')
                show(sock.recv(10))
            os._exit(0)
        os.waitpid(child, 0)

    def show(data):
        print('parent' if os.getpid() == parent else 'child', data, flush=True)
    one = server.StreamServer(('127.0.0.1', 0), handle)
    one.start()
    clients = [native.create_connection(one.address) for _ in range(2)]
    clients[0].sendall(b'forks')
    clients[1].sendall(b'waits')
    gevent.sleep(0.1)
    one.stop()
'''


def test_forked_by_a_handler(impl, tmp_path):
    """The child reads what is there, and leaves other clients to its parent."""
    assert printed(impl, tmp_path, FORKED) == 3 * ["child b'rest'"] + [
        "parent b'mine'"]


# -- the limit ------------------------------------------------------------------------------------

@pytest.mark.parametrize('wrong, error', [(-1, ValueError), ('5', TypeError), (1.5, TypeError)])
def test_wrong_limit(wrong, error):
    """Nothing is installed."""
    import gevent_cbase
    with pytest.raises(error):
        gevent_cbase.install(max_reads=wrong)
    assert not gevent_cbase.is_installed()


TURNS = '''if 1:
    import gevent_cbase
    gevent_cbase.install(%s)
    import gevent
    from gevent import baseserver, server, socket
    server.StreamServer(('127.0.0.1', 0), print)
    one, other = socket.socketpair()
    log = []
    def handle(*client):
        other.sendall(b'x' * 109)
        gevent.get_hub().loop.run_callback(log.append, 'loop')
        for _ in range(109):
            one.recv(1)
            log.append('read')
        print(log.index('loop') if 'loop' in log else 'never')
    run = baseserver._handle_and_close_when_done
    gevent.spawn(run, handle, lambda *client: None, (one, None)).join()
'''


@pytest.mark.fast_path('io')
@pytest.mark.parametrize('value, argument, result, warns', [
    ('', '', '100', False), ('4', '', '4', False), ('0', '', 'never', False),
    ('many', '', 'never', True), ('-1', '', 'never', True),
    ('4', 'max_reads=2', '2', False), ('4', 'max_reads=0', 'never', False)])
def test_limit_in_the_environment(value, argument, result, warns):
    """For who does not say it; what is not understood is gevent's order."""
    done = subprocess.run(
        [sys.executable, '-c', TURNS % argument], text=True, capture_output=True, timeout=60,
        env=child_environ(GEVENT_CBASE_MAX_READS=value))
    assert done.stdout == ('never' if PURE_PYTHON else result) + '\n'
    assert (
        'GEVENT_CBASE_MAX_READS=%s is not known, and read as 0' % value in done.stderr) is warns
