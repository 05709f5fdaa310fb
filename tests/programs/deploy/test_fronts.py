"""nginx and HAProxy in front, configured by the files of recipes/deploy."""
import contextlib
import os
import re
import subprocess

import pytest

from deployed import CERTIFICATE, KEY, Gunicorn, Program, program, put, trusting
from helpers import ROOT, Clients, reserved_port, text_of

every_client = [
    pytest.mark.parametrize('tls', [False, True], ids=['plain', 'tls']),
    pytest.mark.parametrize('kept', [False, True], ids=['new', 'kept'])]


def with_every_client(test):
    for mark in every_client:
        test = mark(test)
    return test


@pytest.fixture
def ports():
    """Four of them: of the front, plain and TLS, and of two servers."""
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(reserved_port()) for _ in range(4)]


def nginx(folder, ports):
    """nginx with its configuration file, on ports of ours, and with all it writes in *folder*."""
    kinds = 'client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'
    paths = ''.join(' %s_temp_path %s/%s;' % (kind, folder, kind) for kind in kinds)
    path = put(folder, 'nginx.conf', {
        '127.0.0.1:8080': '127.0.0.1:%d' % ports[2],
        '127.0.0.1:80;': '127.0.0.1:%d;' % ports[0],
        '127.0.0.1:443': '127.0.0.1:%d' % ports[1],
        '/run/nginx.pid': '%s/nginx.pid' % folder, '/var/log/nginx/error.log': 'stderr',
        '/etc/ssl/certs/application.crt': CERTIFICATE,
        '/etc/ssl/private/application.key': KEY,
        'access_log off;': 'access_log off;' + paths})
    command = [program('nginx'), '-p', str(folder), '-c', path, '-e', 'stderr',
               '-g', 'daemon off;']
    return Program(folder, 'nginx', command).listens(ports[0]).listens(ports[1])


def haproxy(folder, ports):
    """HAProxy likewise; it wants certificate and key in one file."""
    both = folder / 'both.pem'
    with open(CERTIFICATE) as certificate, open(KEY) as key:
        both.write_text(certificate.read() + key.read())
    path = put(folder, 'haproxy.cfg', {
        '127.0.0.1:8080': '127.0.0.1:%d' % ports[2], '127.0.0.1:8081': '127.0.0.1:%d' % ports[3],
        '127.0.0.1:80\n': '127.0.0.1:%d\n' % ports[0],
        '127.0.0.1:443': '127.0.0.1:%d' % ports[1],
        '/etc/haproxy/application.pem': str(both)})
    command = [program('haproxy'), '-db', '-f', path]
    return Program(folder, 'haproxy', command).listens(ports[0]).listens(ports[1])


def gunicorn(folder, port):
    server = Gunicorn(folder, '-b', '127.0.0.1:%d' % port)
    with contextlib.ExitStack() as stack:
        stack.enter_context(server)
        server.wait(lambda: server.ready() == 2)
        stack.pop_all()
    return server


def of_clients(ports, tls, kept):
    return Clients(ports[1], trusting(), kept) if tls else Clients(ports[0], None, kept)


def proxied(clients):
    """The processes that have answered; each was told by the front who asks."""
    found = [body.split() for body in clients.answers]
    assert {address for _, address in found} == {'127.0.0.1'}
    return {pid for pid, _ in found}


@with_every_client
def test_nginx(tmp_path, ports, tls, kept):
    """Two reloads of the server behind it lose no request."""
    with gunicorn(tmp_path / 'app', ports[2]) as server, nginx(tmp_path, ports), \
            of_clients(ports, tls, kept) as clients:
        for _ in range(2):
            clients.more(100)
            server.reload()
        clients.more(100)
    assert clients.lost == [] and len(clients.answers) >= 300
    assert len(proxied(clients)) >= 3


@with_every_client
def test_haproxy(tmp_path, ports, tls, kept):
    """Neither a reload of one server behind it nor that one stops and starts loses a request."""
    with contextlib.ExitStack() as stack, gunicorn(tmp_path / 'one', ports[2]) as one, \
            gunicorn(tmp_path / 'two', ports[3]), haproxy(tmp_path, ports), \
            of_clients(ports, tls, kept) as clients:
        clients.more(100)
        one.reload()
        clients.more(100)
        one.stop()
        clients.more(100)
        stack.enter_context(gunicorn(tmp_path / 'again', ports[2]))
        clients.more(100)
    assert clients.lost == [] and len(clients.answers) >= 400
    assert len(proxied(clients)) >= 4


def test_dockerfile():
    """A linter finds nothing, and what is copied from the tree is there."""
    path = os.path.join('recipes', 'deploy', 'Dockerfile')
    done = subprocess.run([program('hadolint'), path], cwd=ROOT, text=True, capture_output=True,
                          timeout=60)
    assert (done.returncode, done.stdout) == (0, ''), done.stdout + done.stderr
    copied = re.findall('^COPY (?!--from)(.*) .*$', text_of(path), re.M)
    assert copied == ['.', 'recipes/deploy/app.py recipes/deploy/gunicorn.conf.py']
    for name in ' '.join(copied).split():
        assert os.path.exists(os.path.join(ROOT, name)), name
