"""Many connections: each is handled once and closed once, and nothing is left behind.

The servers run in processes of their own, the clients here. With GEVENT_CBASE_TESTS=nightly in
the environment the soak makes a million connections, which takes some minutes.
"""
import contextlib
import json
import os
import random
import resource
import signal
import socket
import struct
import subprocess

import psutil
import pytest

from helpers import child_environ, python, wait_for
from load_server import CASES, TOKEN

HERE = os.path.dirname(os.path.abspath(__file__))
NIGHTLY = os.environ.get('GEVENT_CBASE_TESTS') == 'nightly'
#: AddressSanitizer keeps what is freed for a while: RSS tells nothing then
RSS_TELLS = os.environ.get('GEVENT_CBASE_TESTS') != 'sanitizers'
PATIENCE = 60  # seconds after which a client or a server has waited in vain
RESET = struct.pack('ii', 1, 0)  # for SO_LINGER: close() resets the connection


# whoever waits here does so for PATIENCE seconds at most
pytestmark = pytest.mark.no_deadline


def connect(where):
    client = socket.socket(socket.AF_INET if isinstance(where, list) else socket.AF_UNIX)
    client.settimeout(PATIENCE)
    client.connect(tuple(where) if isinstance(where, list) else where)
    return client


class Child:
    """A script on the class under test, with a line of JSON for each line that it is sent."""

    def __init__(self, impl, *args):
        ours, its = socket.socketpair()
        ours.settimeout(PATIENCE)
        with its:
            self.process = subprocess.Popen(
                python(impl, args[0], str(its.fileno()), *args[1:]), env=child_environ(),
                pass_fds=[its.fileno()], stderr=subprocess.PIPE, start_new_session=True)
        self.control = ours
        self.lines = ours.makefile('r')
        self.details = psutil.Process(self.process.pid)

    def __enter__(self):
        return self

    def __exit__(self, *failure):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)  # wherever it is
        self.errors = self.process.communicate()[1].decode()
        print(self.errors)  # for whoever reads of a failure
        self.lines.close()
        self.control.close()

    def hear(self):
        return json.loads(self.lines.readline())

    def ask(self, word=''):
        self.control.sendall(word.encode() + b'\n')
        return self.hear()

    @contextlib.contextmanager
    def stopped(self):
        """What happens meanwhile the process finds when it goes on."""
        self.process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self.process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)

    def rss(self):
        return self.details.memory_info().rss


# -- the soak -----------------------------------------------------------------------------


class Soak:
    """Bursts of clients, evenly over all servers and at random over what is to be done."""

    def __init__(self, child, total):
        self.child, self.servers = child, child.hear()
        self.random = random.Random(7)
        self.made, self.total = 0, total
        self.cases = dict.fromkeys(CASES, 0)
        self.in_hub = dict.fromkeys(CASES, 0)  # of them those of servers with spawn=None
        self.again = 0  # how many of them raise on a server that counts

    def burst(self, each):
        """*each* connections to every server; sees what the clients see of them."""
        clients = []
        with self.child.stopped():  # so that a handler in the hub finds its token
            for _ in range(each):
                for number, where in enumerate(self.servers):
                    case = self.random.randrange(len(CASES))
                    clients.append((connect(where), TOKEN.pack(self.made, case), CASES[case]))
                    self.made += 1
                    self.cases[CASES[case]] += 1
                    if number % 4 == 3:
                        self.in_hub[CASES[case]] += 1
                        self.again += number > 8 and CASES[case] in ('raise', 'exit', 'kill')
            for client, token, case in clients:
                client.sendall(token)
                if case == 'half-close':
                    client.shutdown(socket.SHUT_WR)
                # so that connections which the server closes do not stay in TIME_WAIT
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                if case == 'reset':
                    client.close()
        for client, token, case in clients:
            if case != 'reset':
                with client:
                    assert client.recv(len(token)) == token
                    if case != 'wait':
                        assert client.recv(1) == b''

    def counts(self):
        """The server's, when the last handler has ended."""
        counts = {}

        def ended():
            counts.update(self.child.ask())
            return counts['calls'] == self.made and counts['active'] == 0
        wait_for(ended)
        return counts


def test_soak(impl, tmp_path):
    """Whatever handlers and clients do, on each kind of server: every connection is handled once
    and closed once; memory and descriptors are as before.
    """
    total = 1_000_000 if NIGHTLY and not impl.stock else 16_000
    with Child(impl, os.path.join(HERE, 'load_server.py'), str(total), str(tmp_path)) as child:
        soak = Soak(child, total)
        descriptors = child.details.num_fds()
        blocks, rss = [], []
        for part in 2, 5, 8:
            while soak.made < total // 8 * part:
                soak.burst(25)
            counts = soak.counts()
            wait_for(lambda: child.details.num_fds() == descriptors)
            blocks.append(counts['blocks'])
            rss.append(child.rss())
        print(counts, blocks, rss)

    assert soak.made == total
    # each has been handled, none twice; what could not be read came from a client that reset it
    assert (counts['once'], counts['never']) == (total - counts['unread'], counts['unread'])
    assert counts['unread'] <= soak.cases['reset']
    # and closed once: no client got another one's answer or none, and no descriptor is left;
    # half of the servers have counted that
    assert (counts['reads'], counts['open']) == (total // 2, 0)
    assert soak.again <= counts['again'] <= soak.again + soak.in_hub['reset']
    # errors of handlers were reported once each, and no others
    reported = dict(counts['reported'])
    assert reported.pop('Planned') == soak.cases['raise'] + soak.in_hub['kill']
    assert reported.pop('GreenletExit') == soak.in_hub['exit']
    assert sum(reported.values()) <= soak.cases['reset'] + soak.cases['wait']
    assert set(reported) <= {'ConnectionResetError', 'BrokenPipeError'}
    # what is lost for each connection, or for each of some kind, is lost in both parts
    each = total // 8 * 3
    assert min(blocks[1] - blocks[0], blocks[2] - blocks[1]) < 200 + each / 1000
    assert min(rss[1] - rss[0], rss[2] - rss[1]) < (1 << 20) + each or not RSS_TELLS


# -- ten thousand at once -----------------------------------------------------------------

#: what a process may have open, less what it needs besides
OPEN = min(10_000, resource.getrlimit(resource.RLIMIT_NOFILE)[1] - 100)

RAISE_LIMIT = """
import json, resource, socket, sys
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
"""

#: echoes; answers with how many data-stack chunks are kept, and how many blocks are allocated
ECHO_SERVER = RAISE_LIMIT + r"""
import gc
from gevent import socket
from gevent.server import StreamServer

def handle(sock, address):
    while True:
        data = sock.recv(10)
        if not data:
            break
        sock.sendall(data)

control = socket.socket(fileno=int(sys.argv[1]))
server = StreamServer(('127.0.0.1', 0), handle, backlog=1024)
server.start()
control.sendall(json.dumps(server.address).encode() + b'\n')
for _ in control.makefile('rb'):
    gc.collect()
    cbase = sys.modules.get('gevent_cbase.datastack')
    answer = cbase.stats().cached if cbase else 0, sys.getallocatedblocks()
    control.sendall(json.dumps(answer).encode() + b'\n')
"""

#: 'more' or 'all': open so many connections, or talk over each; stops when nobody asks
ECHO_CLIENT = RAISE_LIMIT + r"""
port, patience = int(sys.argv[2]), int(sys.argv[3])
control = socket.socket(fileno=int(sys.argv[1]))
clients = []

def talk(clients):
    for client in clients:
        client.sendall(b'ping')
    return sum(client.recv(10) == b'ping' for client in clients)

print('ready', file=control.makefile('w'), flush=True)
for line in control.makefile('r'):
    if line == 'all\n':
        answer = talk(clients)
    else:
        new = [socket.create_connection(('127.0.0.1', port), patience) for _ in range(int(line))]
        clients += new
        answer = talk(new)
    control.sendall(json.dumps(answer).encode() + b'\n')
"""


@pytest.mark.parametrize('count', [OPEN])
def test_open_at_once(impl, tmp_path, count):
    """All are served, the first as well as the last; memory is in proportion, and in the end all
    is given back but for what the data-stack cache may keep.
    """
    (tmp_path / 'server.py').write_text(ECHO_SERVER)
    (tmp_path / 'client.py').write_text(ECHO_CLIENT)
    with Child(impl, str(tmp_path / 'server.py')) as server:
        port = server.hear()[1]
        descriptors, rss = server.details.num_fds(), server.rss()
        _, blocks = server.ask()
        with Child(impl, str(tmp_path / 'client.py'), str(port), str(PATIENCE)) as client:
            assert client.lines.readline() == 'ready\n'
            for made in range(0, count, 500):
                each = min(500, count - made)
                assert client.ask(str(each)) == each
            assert server.details.num_fds() == descriptors + count
            assert client.ask('all') == count
            assert (server.rss() - rss) / count < 16_000 or not RSS_TELLS
        wait_for(lambda: server.details.num_fds() == descriptors)
        cached, blocks_now = server.ask()
        assert cached <= 1024
        assert (blocks_now - blocks) / count < 1


# -- servers that share a listener --------------------------------------------------------

#: servers in one process; answers with how many connections each has had; 'stop N' stops one
SHARED = r"""
import json, sys
from gevent import socket
from gevent.server import StreamServer

def serve(number):
    def handle(sock, address):
        counts[number] += 1
        sock.sendall(b'done')
    one = StreamServer(listener.dup(), handle)
    one.max_accept = 1
    one.start()
    return one

control = socket.socket(fileno=int(sys.argv[1]))
listener = socket.socket()
listener.bind(('127.0.0.1', 0))
listener.listen(256)
listener.setblocking(False)
counts = [0, 0, 0]
servers = [serve(number) for number in range(3)]
control.sendall(json.dumps(listener.getsockname()).encode() + b'\n')
for line in control.makefile('r'):
    if line.startswith('stop'):
        servers[int(line.split()[1])].stop()
    control.sendall(json.dumps(counts).encode() + b'\n')
"""


def finish(client):
    """All that a client gets, up to the end of the connection."""
    with client:
        return b''.join(iter(lambda: client.recv(100), b''))


def test_servers_on_one_listener(impl, tmp_path):
    """Each client is served by one of them; when some stop the others go on."""
    (tmp_path / 'shared.py').write_text(SHARED)
    with Child(impl, str(tmp_path / 'shared.py')) as child:
        where = child.hear()
        descriptors = child.details.num_fds()
        for left in 3, 2, 1:
            before = child.ask()
            with child.stopped():
                clients = [connect(where) for _ in range(200)]
            assert [finish(client) for client in clients] == [b'done'] * 200
            counts = child.ask()
            assert sum(counts) - sum(before) == 200
            assert counts[left:] == before[left:]
            wait_for(lambda: child.details.num_fds() == descriptors)
            if left > 1:
                child.ask('stop %d' % (left - 1))
                descriptors -= 1
    assert child.errors == ''


#: three processes that share a listener, as forked children; answers with their ids. The first
#: client finds each of them stopped, about to call accept(2).
PREFORK = r"""
import json, os, signal, sys
import gevent
from gevent import socket
from gevent import os as gevent_os
from gevent.server import StreamServer

def handle(sock, address):
    sock.sendall(b'%d\n' % os.getpid())
    sock.recv(10)
    sock.sendall(b'done')

def full():
    del server.full
    os.kill(os.getpid(), signal.SIGSTOP)
    return False

control = socket.socket(fileno=int(sys.argv[1]))
server = StreamServer(('127.0.0.1', 0), handle)
server.max_accept = 1
server.full = full
server.init_socket()
children = []
for _ in range(3):
    pid = gevent_os.fork()
    if pid == 0:
        control.close()
        server.start_accepting()
        gevent.wait()
        os._exit(1)
    children.append(pid)
control.sendall(json.dumps([server.address, children]).encode() + b'\n')
control.recv(1)
"""


class Guest:
    """A client of PREFORK; *pid* is the process that serves it."""

    def __init__(self, where):
        self.socket = connect(where)
        self.lines = self.socket.makefile('rb')

    def greet(self):
        self.pid = int(self.lines.readline())

    def finish(self):
        """What comes up to the end of the connection."""
        with self.socket, self.lines:
            try:
                self.socket.sendall(b'more')
                return self.lines.read()
            except (ConnectionResetError, BrokenPipeError):
                return b''


def stop(pids):
    """Have processes stop, and return when they have."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    await_stopped(pids)


def await_stopped(pids):
    wait_for(lambda: {psutil.Process(pid).status() for pid in pids} == {psutil.STATUS_STOPPED})


def go_on(pids):
    for pid in pids:
        os.kill(pid, signal.SIGCONT)


def each_serves(where, pids):
    """Each of the processes serves a client while all others are stopped."""
    for pid in pids:
        others = set(pids) - {pid}
        stop(others)
        guest = Guest(where)
        guest.greet()
        assert guest.pid == pid and guest.finish() == b'done'
        go_on(others)


def test_processes_on_one_listener(impl, tmp_path):
    """One is killed while it serves: its clients see the end, all others are served by the
    rest, those that nobody had accepted yet among them. Whoever finds that another one has
    accepted the client goes on as well.
    """
    (tmp_path / 'prefork.py').write_text(PREFORK)
    with Child(impl, str(tmp_path / 'prefork.py')) as child:
        where, pids = child.hear()
        guests = [Guest(where)]
        await_stopped(pids)
        go_on(pids[:1])
        guests[0].greet()
        assert guests[0].pid == pids[0]
        go_on(pids)
        each_serves(where, pids)
        guests += [Guest(where) for _ in range(100)]
        for guest in guests[1:]:
            guest.greet()
        victim = guests[1].pid
        rest = set(pids) - {victim}
        stop(pids)
        waiting = [Guest(where) for _ in range(50)]
        os.kill(victim, signal.SIGKILL)
        go_on(rest)
        waiting += [Guest(where) for _ in range(50)]
        for guest in waiting:
            guest.greet()
            assert guest.pid in rest
        each_serves(where, rest)
        for guest in guests + waiting:
            assert guest.finish() == (b'' if guest.pid == victim else b'done')
    assert child.errors == ''
