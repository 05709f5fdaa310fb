"""The real gunicorn, with its own gevent workers and with those of gevent_cbase.gunicorn.

Answers are counted: each request that gunicorn's own worker answers must be answered.
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
import threading
import time

import psutil
import pytest

from helpers import ROOT, child_environ, import_error, wait_for, with_metadata

HERE = os.path.dirname(os.path.abspath(__file__))
CERTIFICATE = os.path.join(ROOT, 'examples', 'localhost.crt')
KEY = os.path.join(ROOT, 'examples', 'localhost.key')
LIMIT = 60

STREAM = 'gevent.server.StreamServer'
PYWSGI = 'gunicorn.workers.ggevent.PyWSGIServer gevent.pywsgi.WSGIServer ' + STREAM
STOCK = ' gevent.baseserver.BaseServer'
OURS = ' gevent_cbase.baseserver.BaseServer'

#: what -k is given: the classes of the server it makes
STREAM_WORKERS = {
    'gevent': STREAM + STOCK,
    'gevent_cbase.gunicorn.GeventWorker': STREAM + OURS,
}
PYWSGI_WORKERS = {
    'gevent_pywsgi': PYWSGI + STOCK,
    'gevent_cbase.gunicorn.GeventPyWSGIWorker': PYWSGI + OURS,
}
WORKERS = STREAM_WORKERS | PYWSGI_WORKERS

def lossless(worker):
    """The environment in which nothing is lost while a worker stops. On libuv gunicorn's own one
    loses some: a handler that starts just after the listener was closed asks that for its name."""
    libuv = os.environ.get('GEVENT_LOOP', '').startswith('libuv')
    return {'GEVENT_LOOP': 'libev-cffi'} if libuv and worker == 'gevent' else {}


every_worker = pytest.mark.parametrize('worker', WORKERS)
stream_worker = pytest.mark.parametrize('worker', STREAM_WORKERS)


#: a worker that is told to stop before it is ready does not hear it
SETTINGS = '''\
control_socket_disable = True
graceful_timeout = 60

def post_worker_init(worker):
    worker.log.info('Ready: %d', worker.pid)

'''


def is_running(pid):
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


class Gunicorn:
    """A gunicorn that serves gunicorn_app on a free port; what it logs is in a file."""

    def __init__(self, folder, worker, *args, program=('-m', 'gunicorn'), settings='',
                 environ=(), bind=None):
        self.folder = folder / 'gunicorn'
        self.folder.mkdir()
        self.path = bind
        self.log_file = self.folder / 'log'
        configuration = self.folder / 'gunicorn.conf.py'
        configuration.write_text(SETTINGS + settings)
        self.context = None
        with self.log_file.open('wb') as log:
            self.process = subprocess.Popen(
                [sys.executable, *program, '-c', str(configuration), '-k', worker,
                 '--pythonpath', HERE, '--log-level', 'info',
                 '-b', 'unix:%s' % bind if bind else '127.0.0.1:0',
                 *args, 'gunicorn_app:application'],
                env=child_environ(HOLD=str(self.folder), **dict(environ)), stdout=log,
                stderr=log, stdin=subprocess.DEVNULL, start_new_session=True)

    def __enter__(self):
        try:
            listening = wait_for(lambda: self.process.poll() is not None
                                 or re.search(r'Listening at: \S+?(\d*) \(', self.log()), self.log)
            assert listening is not True, self.log()
            self.port = int(listening[1] or 0)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *args):
        """Kill master and workers, which are a process group of their own."""
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait()

    def log(self):
        return self.log_file.read_text()

    def workers(self):
        """The worker processes that are ready, as a set of pids."""
        return {int(pid) for pid in re.findall(r'Ready: (\d+)', self.log())
                if is_running(int(pid))}

    def wait_for_workers(self, count):
        """The workers, when there are *count* of them."""
        wait_for(lambda: len(self.workers()) == count, self.log)
        return self.workers()

    def connection(self):
        if self.path:
            connection = http.client.HTTPConnection('localhost', timeout=LIMIT)
            connection.sock = socket.socket(socket.AF_UNIX)
            connection.sock.settimeout(LIMIT)
            connection.sock.connect(self.path)
            return connection
        if self.context:
            return http.client.HTTPSConnection('127.0.0.1', self.port, timeout=LIMIT,
                                               context=self.context)
        return http.client.HTTPConnection('127.0.0.1', self.port, timeout=LIMIT)

    def ask(self, path='/'):
        """The body of the answer to one request on a connection of its own."""
        connection = self.connection()
        try:
            connection.request('GET', path, headers={'Connection': 'close'})
            response = connection.getresponse()
            body = response.read().decode()
            assert response.status == 200, body
            return body
        finally:
            connection.close()

    def pid(self, _=None):
        return int(self.ask())

    def hold(self, name):
        """Send a request that waits; (the pid it is handled by, its connection)."""
        connection = self.connection()
        connection.request('GET', '/hold/' + name, headers={'Connection': 'close'})
        return int(wait_for(lambda: self.held(name), self.log)), connection

    def held(self, name):
        file = self.folder / name
        return file.read_text() if file.exists() else None

    def go(self):
        """Let requests that wait, and all to come, be answered."""
        (self.folder / 'go').touch()

    def quiet(self):
        """Nothing has gone wrong as far as gunicorn knows."""
        return not re.search(r'Traceback|\[ERROR\]|\[CRITICAL\]|Error', self.log())

    def exit_status(self):
        return self.process.wait(LIMIT)


def answer(connection):
    """(status, body) of the response that *connection* waits for."""
    response = connection.getresponse()
    body = response.read().decode()
    connection.close()
    return response.status, body


class Load:
    """Clients that go on sending requests, from threads; ``pids`` are the answers."""

    def __init__(self, server, clients=6):
        self.server, self.clients = server, clients
        self.stop = threading.Event()
        self.sent, self.pids = [], []

    def client(self):
        while not self.stop.is_set():
            self.sent.append(1)
            self.pids.append(self.server.pid())

    def more(self, count):
        """Wait for *count* answers more."""
        target = len(self.pids) + count
        wait_for(lambda: len(self.pids) >= target or self.failed(), self.server.log)

    def failed(self):
        return any(future.done() for future in self.futures)

    def __enter__(self):
        self.pool = concurrent.futures.ThreadPoolExecutor(self.clients)
        self.futures = [self.pool.submit(self.client) for _ in range(self.clients)]
        return self

    def __exit__(self, *args):
        self.stop.set()
        self.pool.shutdown()
        for future in self.futures:
            future.result()


@every_worker
def test_several_workers_under_load(tmp_path, worker):
    """Three workers answer all that six clients send, each does some of it, each is ours."""
    with Gunicorn(tmp_path, worker, '--workers', '3') as server:
        server.wait_for_workers(3)
        with Load(server) as load:
            load.more(300)
            wait_for(lambda: set(load.pids) == server.workers() or load.failed(), server.log)
        assert len(load.pids) == len(load.sent) >= 300
        assert server.ask('/bases') == WORKERS[worker]
        assert server.quiet(), server.log()


@every_worker
def test_reload(tmp_path, worker):
    """HUP under load: what is in flight is answered by the old worker, and nothing is lost."""
    with Gunicorn(tmp_path, worker, '--workers', '2', environ=lossless(worker)) as server:
        with Load(server, clients=4) as load:
            load.more(20)
            old = server.wait_for_workers(2)
            pid, in_flight = server.hold('one')
            assert pid in old
            server.process.send_signal(signal.SIGHUP)
            wait_for(lambda: len(server.workers() - old) == 2 and len(server.workers() & old) == 1
                     or load.failed(), server.log)
            assert server.workers() & old == {pid}
            load.more(50)
            server.go()
            assert answer(in_flight) == (200, '%d 1' % pid)
            wait_for(lambda: not server.workers() & old or load.failed(), server.log)
            load.more(50)
        assert len(load.pids) == len(load.sent)
        new = server.workers()
        assert len(new) == 2
        assert set(load.pids[-20:]) <= new
        assert server.ask('/bases') == WORKERS[worker]
        assert server.quiet(), server.log()


@every_worker
def test_graceful_stop(tmp_path, worker):
    """TERM: the port is closed, what is in flight is answered, then all processes end."""
    with Gunicorn(tmp_path, worker, '--workers', '2', environ=lossless(worker)) as server:
        pid, in_flight = server.hold('one')
        server.wait_for_workers(2)
        server.process.send_signal(signal.SIGTERM)
        wait_for(lambda: not is_open(server.port), server.log)
        assert server.process.poll() is None
        server.go()
        assert answer(in_flight) == (200, '%d 1' % pid)
        assert server.exit_status() == 0
        assert not psutil.pid_exists(pid)
        assert server.quiet(), server.log()


def over_tls(worker, folder):
    """A gunicorn whose clients check the certificate."""
    server = Gunicorn(folder, worker, '--workers', '2', '--certfile', CERTIFICATE,
                      '--keyfile', KEY, environ=lossless(worker))
    server.context = ssl.create_default_context(cafile=CERTIFICATE)
    return server


@pytest.mark.parametrize('worker', [name for name in WORKERS if name != 'gevent'])
def test_reload_over_tls(tmp_path, worker):
    """HUP under load loses nothing; that it may with the worker gevent is the next test."""
    with over_tls(worker, tmp_path) as server:
        old = server.wait_for_workers(2)
        with Load(server, clients=4) as load:
            load.more(50)
            server.process.send_signal(signal.SIGHUP)
            wait_for(lambda: len(server.workers() - old) == 2 and not server.workers() & old
                     or load.failed(), server.log)
            load.more(50)
        assert len(load.pids) == len(load.sent) >= 100
        assert server.quiet(), server.log()


@pytest.mark.stock_bug
@every_worker
def test_handshake_during_a_reload(tmp_path, worker):
    """A client that a worker has accepted, and that shakes hands when this worker has closed its
    listener, is answered. The worker gevent drops it on gevent's class, and so would gunicorn's
    handler on ours, if it asked the listener for its name."""
    with over_tls(worker, tmp_path) as server:
        old = server.wait_for_workers(2)
        with socket.create_connection(('127.0.0.1', server.port), timeout=LIMIT) as client:
            wait_for(lambda: accepted(client, old), server.log)
            server.process.send_signal(signal.SIGHUP)
            wait_for(lambda: not listeners(old), server.log)
            got = b''
            with contextlib.suppress(ConnectionError, ssl.SSLError), \
                    server.context.wrap_socket(client, server_hostname='localhost') as tls:
                tls.sendall(b'GET / HTTP/1.0\r\n\r\n')
                with tls.makefile('rb') as file:
                    got = file.read()
        if worker == 'gevent':
            assert got == b''
        else:
            assert int(got.rpartition(b'\r\n\r\n')[2]) in old
            assert server.quiet(), server.log()


def accepted(client, pids):
    """Whether the other end of *client* is in one of these processes."""
    return any(tuple(connection.raddr) == client.getsockname()
               for pid in pids for connection in connections(pid))


def connections(pid):
    """Those of a process; none if it has ended, as it may at any moment."""
    try:
        return psutil.Process(pid).net_connections()
    except psutil.NoSuchProcess:
        return []


def listeners(pids):
    """How many listening sockets these processes have, of those that run."""
    return sum(connection.status == psutil.CONN_LISTEN
               for pid in pids if is_running(pid) for connection in connections(pid))


def is_open(port):
    try:
        socket.create_connection(('127.0.0.1', port), timeout=LIMIT).close()
    except ConnectionError:  # refused, or reset while it was being closed
        return False
    return True


def by_environment(tmp_path):
    """What GEVENT_CBASE=1 needs."""
    env = with_metadata(tmp_path / 'metadata')
    return {'GEVENT_CBASE': '1', 'PYTHONPATH': env['PYTHONPATH']}


@pytest.mark.parametrize('worker, bases', [
    *STREAM_WORKERS.items(), ('environment', STREAM + OURS)])
def test_binary_upgrade(tmp_path, worker, bases):
    """USR2 starts a second gunicorn on the same socket; the first may go, and nothing is lost."""
    script = os.path.join(os.path.dirname(sys.executable), 'gunicorn')
    environ = lossless(worker)
    if worker == 'environment':
        worker, environ = 'gevent', {**lossless('gevent'), **by_environment(tmp_path)}
    with Gunicorn(tmp_path, worker, program=[script], environ=environ) as server:
        (old,) = server.wait_for_workers(1)
        with Load(server, clients=4) as load:
            server.process.send_signal(signal.SIGUSR2)
            wait_for(lambda: len(set(load.pids)) == 2 or load.failed(), server.log)
            server.process.send_signal(signal.SIGTERM)
            wait_for(lambda: server.process.poll() is not None or load.failed(), server.log)
            load.more(20)
        assert server.exit_status() == 0
        assert len(load.pids) == len(load.sent)
        (new,) = set(load.pids) - {old}
        assert set(load.pids[-8:]) == {new}
        assert server.ask('/bases') == bases


@stream_worker
def test_killed_worker(tmp_path, worker):
    """kill -9 takes what that worker had in flight with it, and nothing else."""
    with Gunicorn(tmp_path, worker, '--workers', '2') as server:
        server.wait_for_workers(2)
        held = {}
        for number in range(100):
            pid, connection = server.hold('request-%d' % number)
            held.setdefault(pid, []).append(connection)
            if len(held) == 2:
                break
        killed, survivor = held
        os.kill(killed, signal.SIGKILL)
        for connection in held[killed]:
            with pytest.raises(ConnectionError):
                connection.getresponse()
            connection.close()
        wait_for(lambda: killed not in server.workers() and len(server.workers()) == 2,
                 server.log)
        server.go()
        assert [answer(connection)[0] for connection in held[survivor]] \
            == [200] * len(held[survivor])
        with Load(server, clients=4) as load:
            wait_for(lambda: set(load.pids) == server.workers() or load.failed(), server.log)
        assert survivor in load.pids and killed not in load.pids
        assert len(load.pids) == len(load.sent)


@stream_worker
def test_max_requests(tmp_path, worker):
    """Workers that have done their share are replaced, under load, with nothing lost."""
    with Gunicorn(tmp_path, worker, '--workers', '2', '--max-requests', '20',
                  environ=lossless(worker)) as server:
        with Load(server, clients=4) as load:
            wait_for(lambda: len(set(load.pids)) >= 5 or load.failed(), server.log)
        assert len(load.pids) == len(load.sent)
        ended = re.findall(r'Worker exiting \(pid: (\d+)\)', server.log())
        assert len(ended) >= 3
        assert all(load.pids.count(int(pid)) >= 20 for pid in ended)
        assert server.quiet(), server.log()


@every_worker
def test_worker_connections(tmp_path, worker):
    """With all of --worker-connections in use, more clients wait in the queue of the kernel."""
    with Gunicorn(tmp_path, worker, '--worker-connections', '3') as server:
        waiting = [server.hold('inside-%d' % number) for number in range(3)]
        outside = [server.connection() for _ in range(2)]
        for number, connection in enumerate(outside):
            connection.request('GET', '/hold/outside-%d' % number,
                               headers={'Connection': 'close'})
        wait_for(lambda: backlog(server.port) == 2, server.log)
        time.sleep(0.2)
        assert backlog(server.port) == 2
        server.go()
        (worker_pid,) = server.workers()
        for connection in [connection for _, connection in waiting] + outside:
            assert answer(connection) == (200, '%d 3' % worker_pid)
        assert server.held('outside-0') and server.held('outside-1')
        assert server.quiet(), server.log()


def backlog(port):
    """How many connections to a listening port of the loopback interface wait for accept."""
    with open('/proc/net/tcp') as table:
        for line in table:
            _, local, _, state, queues = line.split()[:5]
            if (local, state) == ('0100007F:%04X' % port, '0A'):
                return int(queues.partition(':')[2], 16)


@every_worker
def test_tls(tmp_path, worker):
    """Clients that check the certificate are served, also after one that speaks no TLS."""
    with Gunicorn(tmp_path, worker, '--certfile', CERTIFICATE, '--keyfile', KEY) as server:
        server.context = ssl.create_default_context(cafile=CERTIFICATE)
        pid = server.pid()
        with socket.create_connection(('127.0.0.1', server.port), timeout=LIMIT) as plain:
            plain.sendall(b'GET / HTTP/1.0\r\n\r\n')
            try:
                assert not plain.recv(100).startswith(b'HTTP')
            except ConnectionResetError:
                pass
        with concurrent.futures.ThreadPoolExecutor(4) as clients:
            assert list(clients.map(server.pid, range(40))) == [pid] * 40
        assert server.ask('/bases') == WORKERS[worker]


@every_worker
def test_unix_socket(tmp_path, worker, monkeypatch):
    """Requests are answered over a UNIX socket, which is gone after a graceful stop."""
    monkeypatch.chdir(tmp_path)  # the full path may be too long for an address
    with Gunicorn(tmp_path, worker, bind='socket') as server:
        (pid,) = server.wait_for_workers(1)
        with concurrent.futures.ThreadPoolExecutor(4) as clients:
            assert list(clients.map(server.pid, range(40))) == [pid] * 40
        assert server.ask('/bases') == WORKERS[worker]
        server.process.send_signal(signal.SIGTERM)
        assert server.exit_status() == 0
        assert not os.path.exists('socket')
        assert server.quiet(), server.log()


# Other ways to it


@pytest.mark.parametrize('worker, base', [('gevent', STREAM + OURS),
                                          ('gevent_pywsgi', PYWSGI + OURS)])
@pytest.mark.parametrize('way', [
    {'program': ['-m', 'gevent_cbase', '-m', 'gunicorn']},
    {'settings': 'import gevent_cbase\ngevent_cbase.install()\n'},
], ids=['runner', 'configuration'])
def test_plain_worker(tmp_path, worker, base, way):
    """-k gevent is ours under the runner, and with install() in gunicorn.conf.py."""
    with Gunicorn(tmp_path, worker, '--workers', '2', **way) as server:
        with concurrent.futures.ThreadPoolExecutor(4) as clients:
            assert len(list(clients.map(server.pid, range(40)))) == 40
        assert server.ask('/bases') == base
        server.wait_for_workers(2)
        server.process.send_signal(signal.SIGTERM)
        assert server.exit_status() == 0
        assert server.quiet(), server.log()


ON = r'gevent_cbase \S+ is on: gevent .*\n'
#: gunicorn's logging, with a handler for all that is logged
LOGGING = '''
logconfig_dict = {'root': {'level': 'INFO', 'handlers': ['console']}, 'formatters': {
    'generic': {'format': '%(process)d %(levelname)s %(name)s: %(message)s'}}}
'''


@pytest.mark.parametrize('worker, bases', [('gevent', STREAM + OURS),
                                           ('gevent_pywsgi', PYWSGI + OURS)])
@pytest.mark.parametrize('settings', ['', 'preload_app = True\n'], ids=['default', 'preload'])
def test_by_environment(tmp_path, worker, bases, settings):
    """GEVENT_CBASE=1 gunicorn -k gevent: each worker says so, on standard error."""
    with Gunicorn(tmp_path, worker, '--workers', '2', settings=settings,
                  environ=by_environment(tmp_path)) as server:
        server.wait_for_workers(2)
        with concurrent.futures.ThreadPoolExecutor(4) as clients:
            assert len(list(clients.map(server.pid, range(40)))) == 40
        assert server.ask('/bases') == bases
        assert len(re.findall('^' + ON, server.log(), re.M)) == 2
        server.process.send_signal(signal.SIGTERM)
        assert server.exit_status() == 0
        assert server.quiet(), server.log()


def test_by_environment_logged(tmp_path):
    """In gunicorn's log, where that has a place for what others log."""
    with Gunicorn(tmp_path, 'gevent', '--workers', '2', settings=LOGGING,
                  environ=by_environment(tmp_path)) as server:
        pids = server.wait_for_workers(2)
        assert server.ask('/bases') == STREAM + OURS
        told = re.findall(r'^(\d+) INFO gevent_cbase: ' + ON, server.log(), re.M)
        assert {int(pid) for pid in told} == pids and len(told) == 2


@pytest.mark.parametrize('value', [None, '0'])
def test_by_environment_not(tmp_path, value):
    with Gunicorn(tmp_path, 'gevent', environ={
            **by_environment(tmp_path), 'GEVENT_CBASE': value}) as server:
        assert server.ask('/bases') == STREAM + STOCK
        assert not re.search(ON, server.log())


@pytest.mark.parametrize('worker', ['gevent_cbase.gunicorn.GeventWorker',
                                    'gevent_cbase.gunicorn.GeventPyWSGIWorker'])
def test_switched_off(tmp_path, worker):
    """With GEVENT_CBASE=0 our workers are gunicorn's."""
    with Gunicorn(tmp_path, worker, environ={'GEVENT_CBASE': '0'}) as server:
        assert server.ask('/bases') == WORKERS[worker].replace(OURS, STOCK)


def test_master_stays_as_it_is(tmp_path):
    """The worker class installs in the workers only."""
    settings = ('def when_ready(server):\n'
                '    import gevent_cbase\n'
                '    server.log.info("installed: %s", gevent_cbase.is_installed())\n')
    with Gunicorn(tmp_path, 'gevent_cbase.gunicorn.GeventWorker', settings=settings) as server:
        assert server.ask('/bases') == STREAM + OURS
        assert server.log().count('installed: ') == server.log().count('installed: False') == 1


def test_without_gunicorn():
    """The module says what it needs."""
    code = ('import sys\n'
            'class Nothing:\n'
            '    def find_spec(self, name, path=None, target=None):\n'
            '        if name == "gunicorn":\n'
            '            raise ModuleNotFoundError("No module named %r" % name, name=name)\n'
            'sys.meta_path.insert(0, Nothing())\n'
            'import gevent_cbase.gunicorn\n')
    assert import_error(code) == (
        "ModuleNotFoundError: gevent_cbase.gunicorn needs gunicorn: "
        "pip install 'gevent_cbase[gunicorn]'")
