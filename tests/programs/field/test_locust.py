"""locust: against a server, and with the server of its own pages."""
import contextlib
import csv
import json
import os
import subprocess
import urllib.request

from helpers import child_environ, python, reserved_port, wait_for
from sides import FOLDER

SERVER = '''
from gevent import monkey
monkey.patch_all()
import gevent.pywsgi
import gevent.socket

def application(environ, start_response):
    start_response('200 OK', [('Content-Type', 'text/plain')])
    return [environ['PATH_INFO'].encode()]

server = gevent.pywsgi.WSGIServer(('127.0.0.1', 0), application, log=None, spawn=100)
server.start()
print(server.server_port, type(server).__mro__[2].__module__, flush=True)
gevent.socket.wait_read(0)  # until standard input ends
server.stop()
'''
USERS = '''
from locust import HttpUser, constant, task

class User(HttpUser):
    wait_time = constant(0.01)

    @task
    def page(self):
        with self.client.get('/page', catch_response=True) as response:
            if response.text != '/page':
                response.failure('wrong')

    @task
    def anew(self):
        with self.client.get('/anew', headers={'Connection': 'close'},
                             catch_response=True) as response:
            if response.text != '/anew':
                response.failure('wrong')
'''


@contextlib.contextmanager
def serving(side):
    """The port of a server in a process of its own."""
    process = subprocess.Popen(python(side, side.script(SERVER)), text=True,
                               env=child_environ(FOLDER), stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE)
    try:
        port, module = process.stdout.readline().split()
        assert module == ('gevent.baseserver' if side.stock else 'gevent_cbase.baseserver')
        yield int(port)
        process.communicate(timeout=60)
        assert process.returncode == 0
    finally:
        process.kill()
        process.communicate()


def users(side):
    """The path of what locust runs."""
    path = os.path.join(side.folder, 'users.py')
    with open(path, 'w', encoding='utf-8') as file:
        file.write(USERS)
    return path


def test_load(side, tool):
    """All of the requests to a server are answered."""
    with serving(side) as port:
        side.output([tool('locust'), '-f', users(side), '--headless', '--only-summary',
                     '--users', '5', '--spawn-rate', '5', '--run-time', '2s',
                     '--stop-timeout', '5', '--csv', 'load',
                     '--host', 'http://127.0.0.1:%d' % port])
    with open(os.path.join(side.folder, 'load_stats.csv'), encoding='utf-8') as file:
        rows = {row['Name']: row for row in csv.DictReader(file)}
    assert set(rows) == {'/page', '/anew', 'Aggregated'}
    for name, row in rows.items():
        assert int(row['Request Count']) > 10, name
        assert row['Failure Count'] == '0', name


def test_own_pages(side):
    """``python -m gevent_cbase -m locust``: its pages are served, while its users ask a server."""
    with serving(side) as port, reserved_port() as own:
        process = subprocess.Popen(
            python(side, '-m', 'locust', '-f', users(side), '--autostart', '--autoquit', '0',
                   '--users', '3', '--run-time', '6s', '--stop-timeout', '5',
                   '--web-host', '127.0.0.1', '--web-port', str(own),
                   '--host', 'http://127.0.0.1:%d' % port),
            cwd=side.folder, env=child_environ(FOLDER), text=True, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        try:
            def stats():
                assert process.poll() is None, 'locust has ended'
                with contextlib.suppress(OSError), urllib.request.urlopen(
                        'http://127.0.0.1:%d/stats/requests' % own, timeout=20) as page:
                    found = json.load(page)
                    return found['stats'][-1]['num_requests'] > 9 and found
            found = wait_for(stats)
            assert found['stats'][-1]['num_failures'] == 0
            assert 1 <= found['user_count'] <= 3
            out = process.communicate(timeout=60)[0]
            assert process.returncode == 0, out
        finally:
            process.kill()
            process.communicate()
