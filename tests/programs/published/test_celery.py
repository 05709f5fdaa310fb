"""Celery's gevent pool, on stock and with GEVENT_CBASE=1: a task that serves, in a real worker."""
import re
import subprocess
import sys

import pytest

from helpers import with_metadata

LIMIT = 90
TASKS = '''
import socket

import celery
import gevent.server
from celery.signals import worker_ready

app = celery.Celery('tasks', broker='memory://', backend='cache+memory://')
app.conf.worker_redirect_stdouts = False

@app.task
def serve():
    """Answer a client, and tell on which class."""
    server = gevent.server.StreamServer(('127.0.0.1', 0), lambda sock, address: sock.sendall(b'x'))
    server.start()
    with socket.create_connection(server.address) as client:
        print('Served:', client.recv(1), type(server).__mro__[1].__module__, flush=True)
    server.stop()
    app.control.shutdown()

@worker_ready.connect
def ready(**kwargs):
    serve.delay()
'''
ON = re.compile(r'^gevent_cbase \S+ is on: gevent .*$', re.M)


@pytest.mark.parametrize('value, module', [(None, 'gevent.baseserver'), ('0', 'gevent.baseserver'),
                                           ('1', 'gevent_cbase.baseserver')])
def test_worker(tmp_path, value, module):
    """``celery -P gevent`` starts, runs the task and ends; the line is there, once."""
    (tmp_path / 'tasks.py').write_text(TASKS)
    done = subprocess.run(
        [sys.executable, '-m', 'celery', '-A', 'tasks', 'worker', '-P', 'gevent', '-l', 'INFO',
         '--without-mingle', '--without-gossip'], cwd=tmp_path, text=True, timeout=LIMIT,
        env=with_metadata(tmp_path / 'metadata', GEVENT_CBASE=value), stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert done.returncode == 0, done.stdout
    assert "Served: b'x' %s\n" % module in done.stdout, done.stdout
    assert len(ON.findall(done.stdout)) == (value == '1'), done.stdout
