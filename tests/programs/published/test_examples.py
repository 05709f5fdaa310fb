"""The small servers in examples/ as programs of their own, with clients that know no gevent."""
import contextlib
import errno
import http.client
import os
import signal
import socket
import ssl
import subprocess

import psutil
import pytest

from helpers import ROOT, child_environ, python

EXAMPLES = os.path.join(ROOT, 'examples')
CERTIFICATE = os.path.join(EXAMPLES, 'localhost.crt')
KEY = os.path.join(EXAMPLES, 'localhost.key')
#: seconds that a client waits at most
LIMIT = 30


def start(impl, script, *args):
    """The process of a script of examples/."""
    return subprocess.Popen(python(impl, os.path.join(EXAMPLES, script), *args),
                            env=child_environ(), text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def end(process, number=signal.SIGTERM):
    """(exit status, what it has printed and not been read, stderr) after a signal."""
    process.send_signal(number)
    out, err = process.communicate(timeout=LIMIT)
    return process.returncode, out, err


@contextlib.contextmanager
def running(impl, script, *args):
    """(process, address) of a server that has printed its address."""
    process = start(impl, script, *args)
    try:
        address = process.stdout.readline().strip()
        assert address, process.communicate(timeout=LIMIT)[1]
        # it is on the implementation that it was started on
        loaded = {os.path.basename(found.path).split('.')[0]
                  for found in psutil.Process(process.pid).memory_maps()}
        assert ('_cbase' in loaded) is not impl.stock
        host, colon, port = address.rpartition(':')
        yield process, (host, int(port)) if colon else address
    finally:
        process.kill()
        process.communicate()


def connect(address):
    return socket.create_connection(address, timeout=LIMIT)


def test_echo(impl):
    """Two clients at once, each with a conversation of its own."""
    with running(impl, 'echo_server.py') as (process, address):
        with connect(address) as one, connect(address) as two, \
                one.makefile('rwb', buffering=0) as first, \
                two.makefile('rwb', buffering=0) as second:
            assert first.readline() == second.readline() == b'hello, say something\n'
            second.write(b'from the second\n')
            first.write(b'from the first\n')
            assert first.readline() == b'from the first\n'
            assert second.readline() == b'from the second\n'
            first.write(b'bye\n')
            assert first.readline() == b''
            assert process.stdout.readline() == '%s:%s left\n' % one.getsockname()
            second.write(b'still here\n')
            assert second.readline() == b'still here\n'
            assert end(process) == (0, '', '')


def test_udp(impl):
    """The standard library's socket and the example's own client get their answers."""
    with running(impl, 'udp_server.py') as (process, address):
        with socket.socket(type=socket.SOCK_DGRAM) as client:
            client.settimeout(LIMIT)
            for text in (b'quiet', b'', b'x' * 8000):
                client.sendto(text, address)
                assert client.recvfrom(9000) == (b'%d %s' % (len(text), text.upper()), address)
        client = start(impl, 'udp_client.py', '%s:%s' % address, 'psst')
        assert client.communicate(timeout=LIMIT) == ('4 PSST\n', '')
        assert client.returncode == 0
        assert end(process) == (0, '', '')


def requests(connection, scheme):
    """Four requests over one connection."""
    def ask(method, path, body=None):
        connection.request(method, path, body)
        response = connection.getresponse()
        return response.status, response.getheader('Transfer-Encoding'), response.read()
    with contextlib.closing(connection):
        assert ask('GET', '/') == (200, None, b'hello over ' + scheme)
        assert ask('POST', '/upper', b'a body') == (200, None, b'A BODY')
        assert ask('GET', '/count') == (200, 'chunked', b'0 1 2 3 4 ')
        assert ask('GET', '/elsewhere') == (404, None, b'nothing here')


def test_wsgi(impl):
    """Requests over one connection that is kept alive, one of them streamed, one with a body."""
    with running(impl, 'wsgi_server.py') as (process, address):
        requests(http.client.HTTPConnection(*address, timeout=LIMIT), b'http')
        assert end(process) == (0, '', '')


def test_wsgi_over_tls(impl):
    """The same over TLS, for a client that checks the server's certificate."""
    trusting = ssl.create_default_context(cafile=CERTIFICATE)
    with running(impl, 'wsgi_server.py', CERTIFICATE, KEY) as (process, address):
        requests(http.client.HTTPSConnection(*address, timeout=LIMIT, context=trusting), b'https')
        assert end(process) == (0, '', '')


def test_wsgi_over_tls_outlives_clients_that_break_off(impl):
    """A client that trusts nobody and one that speaks no TLS get no answer; the next one does."""
    suspicious = ssl.create_default_context()
    trusting = ssl.create_default_context(cafile=CERTIFICATE)
    with running(impl, 'wsgi_server.py', CERTIFICATE, KEY) as (process, address):
        with pytest.raises(ssl.SSLCertVerificationError):
            http.client.HTTPSConnection(*address, timeout=LIMIT, context=suspicious).connect()
        with connect(address) as plain:
            plain.sendall(b'GET / HTTP/1.0\r\n\r\n')
            with contextlib.suppress(ConnectionResetError):
                assert not plain.recv(100).startswith(b'HTTP')
        requests(http.client.HTTPSConnection(*address, timeout=LIMIT, context=trusting), b'https')
        status, out, err = end(process)
        assert (status, out) == (0, '')
        assert err.count('failed with SSLError') == err.count('Traceback') == 2


def test_unix_socket(impl, tmp_path):
    """Clients reach the server by its path, which is gone after the server has ended."""
    path = tmp_path / 'socket'
    path.write_text('left behind')
    with running(impl, 'unix_server.py', str(path)) as (process, address):
        assert address == str(path)
        for number in range(3):
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(LIMIT)
                client.connect(address)
                client.sendall(b'me')
                assert client.recv(100) == b'me, %d before you' % number
                assert client.recv(100) == b''
        assert end(process) == (0, '', '')
    assert not path.exists()


def test_port_forwarder(impl):
    """Data and the end of data pass in both directions."""
    with socket.create_server(('127.0.0.1', 0)) as target:
        target.settimeout(LIMIT)
        with running(impl, 'port_forwarder.py', '%s:%s' % target.getsockname()) as (
                process, address):
            with connect(address) as client:
                there, _ = target.accept()
                with there:
                    there.settimeout(LIMIT)
                    client.sendall(b'question')
                    client.shutdown(socket.SHUT_WR)
                    assert there.recv(100) == b'question'
                    assert there.recv(100) == b''
                    there.sendall(b'answer')
                assert client.recv(100) == b'answer'
                assert client.recv(100) == b''
            assert end(process) == (0, 'closed to new clients\n', '')


def test_port_forwarder_stops_gracefully(impl):
    """After SIGTERM no client is taken any more, but one that was there is served to the end."""
    with socket.create_server(('127.0.0.1', 0)) as target:
        target.settimeout(LIMIT)
        with running(impl, 'port_forwarder.py', '%s:%s' % target.getsockname()) as (
                process, address):
            with connect(address) as client:
                there, _ = target.accept()
                with there:
                    there.settimeout(LIMIT)
                    process.send_signal(signal.SIGTERM)
                    assert process.stdout.readline() == 'closed to new clients\n'
                    with pytest.raises(ConnectionRefusedError):
                        connect(address)
                    client.sendall(b'late')
                    assert there.recv(100) == b'late'
                    there.sendall(b'not too late')
                    assert client.recv(100) == b'not too late'
                    assert process.poll() is None
            out, err = process.communicate(timeout=LIMIT)
            assert (process.returncode, out, err) == (0, '', '')


def test_port_forwarder_without_a_target(impl):
    """A client whose target cannot be reached is dropped; the forwarder stays."""
    with socket.create_server(('127.0.0.1', 0)) as closed:
        target = '%s:%s' % closed.getsockname()
    with running(impl, 'port_forwarder.py', target) as (process, address):
        for _ in range(2):
            with connect(address) as client:
                assert client.recv(100) == b''
        refused = ConnectionRefusedError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))
        assert end(process) == (0, 'closed to new clients\n',
                                '%s cannot be reached: %s\n' % (target, refused) * 2)


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize('script, args', [
    ('echo_server.py', ['127.0.0.1:0']),
    ('udp_server.py', ['127.0.0.1:0']),
    ('wsgi_server.py', []),
    ('wsgi_server.py', [CERTIFICATE, KEY]),
    ('unix_server.py', ['socket']),
    ('port_forwarder.py', ['127.0.0.1:1']),
])
def test_either_signal_ends_a_server_cleanly(impl, script, args, number, tmp_path, monkeypatch):
    """Before any client has come: exit status 0, nothing on stderr, nothing left behind."""
    monkeypatch.chdir(tmp_path)
    with running(impl, script, *args) as (process, address):
        farewell = 'closed to new clients\n' if script == 'port_forwarder.py' else ''
        assert end(process, number) == (0, farewell, '')
    assert os.listdir(tmp_path) == []
