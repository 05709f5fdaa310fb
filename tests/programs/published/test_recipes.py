"""The programs of recipes/, as processes of their own, with the real packages they are about.

They install gevent_cbase themselves; GEVENT_CBASE=0 makes them run on gevent's class. Clients
are those of the standard library, and Socket.IO's own.
"""
import concurrent.futures
import contextlib
import http.client
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import time

import psutil
import pytest

from helpers import ROOT, Clients, child_environ, wait_for

RECIPES = os.path.join(ROOT, 'recipes')
CERTIFICATE = os.path.join(ROOT, 'examples', 'localhost.crt')
KEY = os.path.join(ROOT, 'examples', 'localhost.key')
LIMIT = 60

#: each request on a connection of its own, or all on one
every_client = pytest.mark.parametrize('kept', [False, True], ids=['new', 'kept'])

#: Runs a program, and tells at its end which class its servers stood on.
RUN = '''
import atexit, runpy, sys
def tell():
    sys.stderr.write(sys.modules['gevent.server'].StreamServer.__mro__[1].__module__)
atexit.register(tell)
del sys.argv[0]
sys.path[0] = sys.argv[0].rpartition('/')[0]
runpy.run_path(sys.argv[0], run_name='__main__')
'''
#: Does what systemd does to the program that it starts for a socket; the first argument is that.
ACTIVATE = '''
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS='1')
os.execv(sys.executable, [sys.executable, *sys.argv[2:]])
'''


class Recipe:
    """A running program of recipes/; it has to end by itself on SIGTERM, with nothing to say."""

    def __init__(self, impl, name, *args, activate=None, **environ):
        self.module = 'gevent.baseserver' if impl.stock else 'gevent_cbase.baseserver'
        environ = child_environ(**environ)
        if impl.stock:
            environ['GEVENT_CBASE'] = '0'
        command = ['-c', RUN, os.path.join(RECIPES, name), *args]
        if activate is not None:
            command = ['-c', ACTIVATE, str(activate.fileno()), *command]
        self.process = subprocess.Popen(
            [sys.executable, *command], env=environ, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True, start_new_session=True,
            pass_fds=[] if activate is None else [activate.fileno()])

    def __enter__(self):
        return self

    def __exit__(self, *args):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)  # its children too
        self.process.communicate()

    def addresses(self, count):
        """Where it listens, when it does so at *count* addresses; in the order of descriptors."""
        def listening():
            found = [connection for connection in
                     psutil.Process(self.process.pid).net_connections()
                     if connection.status == psutil.CONN_LISTEN]
            return len(found) == count and sorted(found)
        found = wait_for(lambda: self.process.poll() is not None or listening())
        assert found is not True, self.process.communicate()
        return [tuple(connection.laddr) for connection in found]

    def address(self):
        """The only one."""
        return self.addresses(1)[0]

    def has_accepted(self, client):
        """Whether the other end of *client* is out of the queue and in a process."""
        process = psutil.Process(self.process.pid)
        return any(tuple(connection.raddr) == client.getsockname()
                   for one in [process, *process.children()]
                   for connection in one.net_connections())

    def stop(self, **how):
        self.process.send_signal(signal.SIGTERM)
        self.ended(**how)

    def ended(self, said=''):
        """*said*: a pattern of what it may have to say all the same."""
        out, err = self.process.communicate(timeout=LIMIT)
        assert (self.process.returncode, out) == (0, ''), err
        assert re.fullmatch('(?:%s)%s' % (said, re.escape(self.module)), err), err


def ask(address, path='/', body=None, headers=()):
    """The body of the answer to a request on a connection of its own."""
    connection = http.client.HTTPConnection(*address, timeout=LIMIT)
    with contextlib.closing(connection):
        connection.request('GET' if body is None else 'POST', path, body,
                           {'Connection': 'close', **dict(headers)})
        response = connection.getresponse()
        assert response.status == 200, response.read()
        return response.read().decode()


def asked(address, count):
    """The set of answers to *count* requests, four at a time."""
    with concurrent.futures.ThreadPoolExecutor(4) as clients:
        return set(clients.map(lambda _: ask(address), range(count)))


def refused(address):
    """Whether nobody listens there (any more)."""
    try:
        socket.create_connection(address, timeout=LIMIT).close()
    except ConnectionError:
        return True


def test_flask(impl):
    """Arguments, a streamed answer and JSON pass through Flask."""
    with Recipe(impl, 'with_flask.py', '127.0.0.1:0') as recipe:
        address = recipe.address()
        assert ask(address) == 'hello world'
        assert ask(address, '/?name=you') == 'hello you'
        assert ask(address, '/stream') == '0\n1\n2\n3\n4\n'
        assert ask(address, '/sum', '[1, 2, 39]', {'Content-Type': 'application/json'}) \
            == '{"sum":42}\n'
        assert asked(address, 40) == {'hello world'}
        recipe.stop()


@pytest.mark.parametrize('transports', [['polling'], ['polling', 'websocket']])
def test_flask_socketio(impl, transports):
    """Two clients hear what one says, by polling and after the upgrade to a WebSocket."""
    import socketio
    with Recipe(impl, 'with_socketio.py', '0') as recipe:
        url = 'http://%s:%d' % recipe.address()
        clients = [socketio.SimpleClient(), socketio.SimpleClient()]
        try:
            for client in clients:
                client.connect(url, transports=transports, wait_timeout=LIMIT)
                assert client.transport == transports[-1]
            for number, client in enumerate(clients):
                assert client.call('say', 'text %d' % number, timeout=LIMIT) == 6
            for client in clients:
                for number in range(2):
                    assert client.receive(timeout=LIMIT) == ['heard', 'text %d' % number]
        finally:
            for client in clients:
                client.disconnect()
        # it may have said that a session has ended early, and pywsgi that it takes the last
        # words over a WebSocket for another request
        recipe.stop(said=r'(?s:.*)')


@pytest.mark.parametrize('impl', ['cbase'], indirect=True)
def test_metrics(impl):
    """A collector finds what has happened; names, labels and values in Prometheus's format."""
    with Recipe(impl, 'metrics.py', '127.0.0.1:0', '127.0.0.1:0') as recipe:
        # the metrics are the first to listen
        metrics, address = recipe.addresses(2)
        assert asked(address, 3) == {'hello\n'}
        lines = ask(metrics).splitlines()
        values = dict(line.rsplit(' ', 1) for line in lines if not line.startswith('#'))
        kinds = dict(line.split()[2:] for line in lines if line.startswith('# TYPE'))
        assert kinds == {
            'server_accepted_total': 'counter', 'server_spawn_errors_total': 'counter',
            'server_accept_errors_total': 'counter', 'server_pauses_total': 'counter',
            'server_paused_seconds_total': 'counter', 'server_delay_seconds': 'gauge',
            'server_fast_path': 'gauge'}
        paths = {name: values.pop('server_fast_path{name="%s"}' % name)
                 for name in (
                     'lookups', 'sockets', 'watchers', 'closing', 'io', 'pools', 'greenlets',
                     'datastack')}
        assert set(paths.values()) <= {'0', '1'}
        assert values == {
            'server_accepted_total': '3', 'server_spawn_errors_total': '0',
            'server_pauses_total{reason="full"}': '0',
            'server_pauses_total{reason="backoff"}': '0',
            'server_paused_seconds_total{reason="full"}': '0.000000',
            'server_paused_seconds_total{reason="backoff"}': '0.000000',
            'server_delay_seconds': '0.01'}
        recipe.stop()


def test_bottle(impl):
    """Bottle's adapter serves."""
    with Recipe(impl, 'with_bottle.py', '0') as recipe:
        address = recipe.address()
        assert ask(address, '/hello/you') == 'hello you'
        assert ask(address, '/upper', 'a body') == 'A BODY'
        recipe.stop()


def test_tls(impl):
    """A client that checks the certificate has a conversation, also while another one dawdles."""
    trusting = ssl.create_default_context(cafile=CERTIFICATE)
    with Recipe(impl, 'tls.py', CERTIFICATE, KEY, '127.0.0.1:0') as recipe:
        address = recipe.address()
        with socket.create_connection(address, timeout=LIMIT) as dawdler:
            with socket.create_connection(address, timeout=LIMIT) as plain, \
                    trusting.wrap_socket(plain, server_hostname='localhost') as client:
                for text in (b'one\n', b'two\n'):
                    client.sendall(text)
                    assert client.recv(100) == text.upper()
            with trusting.wrap_socket(dawdler, server_hostname='localhost') as client:
                client.sendall(b'three\n')
                assert client.recv(100) == b'THREE\n'
        recipe.stop()


def test_unix_socket(impl, tmp_path, monkeypatch):
    """Requests pass through a path; it takes the place of an old one, and is gone at the end."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'socket').write_text('left behind')
    with Recipe(impl, 'unix_socket.py', 'socket') as recipe:
        def connected():
            client = socket.socket(socket.AF_UNIX)
            client.settimeout(LIMIT)
            try:
                client.connect('socket')
            except (ConnectionError, FileNotFoundError):
                client.close()
                return None
            return client
        for _ in range(3):
            with wait_for(connected) as client:
                client.sendall(b'GET / HTTP/1.0\r\n\r\n')
                with client.makefile('rb') as answer:
                    assert answer.read().endswith(b'\r\n\r\nhello over a path')
        assert os.stat('socket').st_mode & 0o777 == 0o660
        recipe.stop()
    assert os.listdir(tmp_path) == []


def test_prefork(impl):
    """Three processes answer; one that is killed is replaced; all end with their parent."""
    with Recipe(impl, 'prefork.py', '127.0.0.1:0', '3') as recipe:
        address = recipe.address()
        pids = set()
        wait_for(lambda: pids.update(asked(address, 20)) or len(pids) == 3)
        assert str(recipe.process.pid) not in pids
        killed = int(pids.pop())
        os.kill(killed, signal.SIGKILL)
        wait_for(lambda: pids.update(asked(address, 20) - {str(killed)}) or len(pids) == 3)
        assert {str(child.pid) for child in psutil.Process(recipe.process.pid).children()} == pids
        recipe.stop()
        assert not any(psutil.pid_exists(int(pid)) for pid in pids)


def test_prefork_stops_gracefully(impl):
    """A request that is in flight when SIGTERM comes is answered."""
    with Recipe(impl, 'prefork.py', '127.0.0.1:0', '2') as recipe:
        address = recipe.address()
        wait_for(lambda: len(asked(address, 20)) == 2)
        with socket.create_connection(address, timeout=LIMIT) as client:
            client.sendall(b'GET / HTTP/1.0\r\n')
            ask(address)
            wait_for(lambda: recipe.has_accepted(client))
            recipe.process.send_signal(signal.SIGTERM)
            wait_for(lambda: refused(address))
            client.sendall(b'\r\n')
            with client.makefile('rb') as answer:
                assert answer.read().startswith(b'HTTP/1.1 200 OK\r\n')
        recipe.ended()


def reload_prefork(impl, kept, *certificate_and_key, context=None):
    """Have all processes exchanged, twice, under load."""
    with Recipe(impl, 'prefork.py', '127.0.0.1:0', '2', *certificate_and_key) as recipe:
        with Clients(recipe.address()[1], context, kept) as clients:
            for _ in range(2):
                clients.more(50)
                before = set(clients.answers)
                recipe.process.send_signal(signal.SIGHUP)
                wait_for(lambda: clients.lost or not before & set(clients.answers[-50:]))
        assert clients.lost == clients.again == [] and len(clients.answers) >= 150
        recipe.stop()


@every_client
def test_reload_of_prefork(impl, kept):
    """No request is lost, and none is sent again: a server that ends says so before."""
    reload_prefork(impl, kept)


@every_client
def test_reload_of_prefork_over_tls(impl, kept):
    """Nor over TLS."""
    context = ssl.create_default_context(cafile=CERTIFICATE)
    context.check_hostname = False
    reload_prefork(impl, kept, CERTIFICATE, KEY, context=context)


def test_handshake_during_a_reload(impl):
    """A client that was accepted before the reload, and shakes hands after it, is answered."""
    trusting = ssl.create_default_context(cafile=CERTIFICATE)
    with Recipe(impl, 'prefork.py', '127.0.0.1:0', '1', CERTIFICATE, KEY) as recipe:
        with socket.create_connection(recipe.address(), timeout=LIMIT) as client:
            wait_for(lambda: recipe.has_accepted(client))
            (old,) = psutil.Process(recipe.process.pid).children()
            recipe.process.send_signal(signal.SIGHUP)
            wait_for(lambda: not any(connection.status == psutil.CONN_LISTEN
                                     for connection in old.net_connections()))
            with trusting.wrap_socket(client, server_hostname='localhost') as client:
                client.sendall(b'GET / HTTP/1.0\r\n\r\n')
                with client.makefile('rb') as answer:
                    assert answer.read().endswith(b'\r\n\r\n%d' % old.pid)
        recipe.stop()


def test_reuse_port(impl):
    """Two processes share a port; when one has stopped the other gets all."""
    with Recipe(impl, 'reuse_port.py', '127.0.0.1:0') as one:
        address = one.address()
        with Recipe(impl, 'reuse_port.py', '127.0.0.1:%d' % address[1]) as two:
            assert two.address() == address
            pids = {str(one.process.pid), str(two.process.pid)}
            wait_for(lambda: asked(address, 20) == pids)
            one.stop()
            assert asked(address, 20) == {str(two.process.pid)}
            two.stop()


def test_inherited(impl):
    """Clients wait in the socket's queue until the server is there, also over a restart."""
    with socket.create_server(('127.0.0.1', 0)) as listener:
        address = listener.getsockname()
        with concurrent.futures.ThreadPoolExecutor(8) as clients:
            for _ in range(2):
                early = [clients.submit(ask, address) for _ in range(4)]
                with Recipe(impl, 'inherited.py', activate=listener) as recipe:
                    pid = str(recipe.process.pid)
                    assert [future.result() for future in early] == [pid] * 4
                    assert asked(address, 20) == {pid}
                    recipe.stop()


@every_client
def test_restart_of_inherited(impl, kept):
    """The program ends and another one is started on the same listener, under load, three times:
    no request is lost."""
    with socket.create_server(('127.0.0.1', 0), backlog=1024) as listener, \
            contextlib.ExitStack() as stack:
        with Clients(listener.getsockname()[1], kept=kept) as clients:
            for number in range(1, 4):
                with Recipe(impl, 'inherited.py', activate=listener) as recipe:
                    clients.more(50)
                    recipe.stop()
                assert len(set(clients.answers)) == number
            recipe = stack.enter_context(Recipe(impl, 'inherited.py', activate=listener))
            clients.more(50)
        recipe.stop()
        assert clients.lost == clients.again == [] and len(clients.answers) >= 200


def test_inherited_without_a_socket(impl):
    """Variables that are meant for another process are of no account."""
    with Recipe(impl, 'inherited.py', LISTEN_PID='1', LISTEN_FDS='1') as recipe:
        out, err = recipe.process.communicate(timeout=LIMIT)
        assert recipe.process.returncode == 1
        assert err == ('no socket was handed over: LISTEN_FDS and LISTEN_PID are not set for this '
                       'one\n' + recipe.module)


def test_graceful_stop(impl):
    """After SIGTERM the port is closed, and a client that is there is served to the end."""
    with Recipe(impl, 'graceful_stop.py', '127.0.0.1:0', '60') as recipe:
        address = recipe.address()
        with socket.create_connection(address, timeout=LIMIT) as client:
            client.sendall(b'in ')
            wait_for(lambda: recipe.has_accepted(client))
            recipe.process.send_signal(signal.SIGTERM)
            wait_for(lambda: refused(address))
            time.sleep(1.2)  # gevent's own patience is a second
            client.sendall(b'time')
            client.shutdown(socket.SHUT_WR)
            assert client.recv(100) == b'IN TIME'
            assert client.recv(100) == b''
        recipe.ended()


def test_graceful_stop_has_an_end(impl):
    """A client that does not get done is dropped when the time is over."""
    with Recipe(impl, 'graceful_stop.py', '127.0.0.1:0', '0.2') as recipe:
        with socket.create_connection(recipe.address(), timeout=LIMIT) as client:
            client.sendall(b'for ever')
            wait_for(lambda: recipe.has_accepted(client))
            recipe.process.send_signal(signal.SIGTERM)
            assert client.recv(100) == b''
        recipe.ended()
