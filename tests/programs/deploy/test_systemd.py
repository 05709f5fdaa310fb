"""The units of recipes/deploy, and the service on a listener that it is given."""
import os
import socket
import subprocess
import sys

import pytest

from deployed import CERTIFICATE, KEY, LIMIT, Gunicorn, program, put, trusting
from helpers import Clients, child_environ, reserved_port


def test_units(tmp_path):
    """systemd has nothing to say about them."""
    gunicorn = os.path.join(os.path.dirname(sys.executable), 'gunicorn')
    units = [put(tmp_path, 'gevent-cbase.service', {'/srv/app/venv/bin/gunicorn': gunicorn}),
             put(tmp_path, 'gevent-cbase.socket')]
    done = subprocess.run([program('systemd-analyze'), 'verify', '--man=no', *units], text=True,
                          capture_output=True, timeout=LIMIT)
    said = [line for line in done.stderr.splitlines() if 'gevent-cbase' in line]
    assert (done.returncode, said) == (0, []), done.stderr


def test_units_that_are_wrong(tmp_path):
    """The same finds a setting that there is not."""
    unit = put(tmp_path, 'gevent-cbase.socket', {'Backlog=': 'Backlogs='})
    done = subprocess.run([program('systemd-analyze'), 'verify', '--man=no', unit], text=True,
                          capture_output=True, timeout=LIMIT)
    assert "Unknown key 'Backlogs' in section [Socket]" in done.stderr


@pytest.mark.parametrize('tls', [False, True], ids=['plain', 'tls'])
@pytest.mark.parametrize('kept', [False, True], ids=['new', 'kept'])
def test_socket_activation(tmp_path, tls, kept):
    """The first client has the service started; two reloads lose no request; systemd hears when
    the service is ready.
    """
    with reserved_port() as port, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified:
        notified.settimeout(LIMIT)
        notified.bind('\0gevent-cbase-%d' % port)
        environ = dict(child_environ(), NOTIFY_SOCKET='@gevent-cbase-%d' % port)
        listen = [program('systemd-socket-activate'), '-l', '127.0.0.1:%d' % port]
        for name in 'PYTHONPATH', 'NOTIFY_SOCKET':
            listen += ['-E', '%s=%s' % (name, environ[name])]
        more = ['--certfile', CERTIFICATE, '--keyfile', KEY] if tls else []
        with Gunicorn(tmp_path / 'app', *more, before=listen) as server:
            server.wait(lambda: 'Listening on' in server.log())
            with Clients(port, trusting() if tls else None, kept) as clients:
                server.wait(lambda: server.ready() == 2)
                assert notified.recv(1000).startswith(b'READY=1')
                for _ in range(2):
                    clients.more(100)
                    server.reload()
                clients.more(100)
            assert clients.lost == [] and len(clients.answers) >= 300
            assert len({body.split()[0] for body in clients.answers}) >= 3
            server.stop()
            assert 'Traceback' not in server.log(), server.log()
