"""Threads, forks and the end of the interpreter, with servers running; ``-X dev``, ``-W error``.

Each test runs a program on gevent's class and on ours; stderr has to stay empty.
"""
import subprocess
import textwrap

import pytest

from helpers import child_environ, python

LOOPS = ['libev-cext', 'libev-cffi', 'libuv-cffi']
LIMIT = 60

on_every_loop = pytest.mark.parametrize('loop', LOOPS)

#: what all programs start with: ask() is a whole connection, with a line each way
COMMON = '''\
import os
import sys
import threading
import gevent
from gevent import socket
from gevent.server import StreamServer

def connect(where):
    client = socket.socket(socket.AF_UNIX if isinstance(where, str) else socket.AF_INET)
    client.settimeout(30)
    client.connect(where)
    return client

def ask(where, line=b'ping'):
    with connect(where) as client:
        if line:
            client.sendall(line)
            client.shutdown(socket.SHUT_WR)
        return b''.join(iter(lambda: client.recv(100), b''))

def echo(sock, address):
    sock.sendall(sock.recv(100))

'''


# the processes have limits of their own
pytestmark = pytest.mark.no_deadline


@pytest.fixture
def run(impl, tmp_path):
    """``run(program, *options, **environ)``: exit status, lines of stdout, stderr."""
    def run_program(program, *options, **environ):
        path = tmp_path / 'program.py'
        path.write_text(COMMON + textwrap.dedent(program))
        command = python(impl, str(path))
        command[1:1] = options
        done = subprocess.run(command, env=child_environ(PYTHONMALLOC='debug', **environ),
                              capture_output=True, text=True, timeout=LIMIT, cwd=tmp_path)
        return done.returncode, done.stdout.splitlines(), done.stderr
    return run_program


# -- threads ------------------------------------------------------------------------------


# not libuv: in several threads gevent itself loses events there, or crashes
@pytest.mark.parametrize('loop', [loop for loop in LOOPS if 'libuv' not in loop])
def test_threads(run, loop):
    """The main thread and three others each have a hub and two servers of their own. Handlers
    run in the thread of their server, whoever else is busy; also when one thread has ended.
    """
    assert run('''
        from gevent.pool import Pool

        def name(sock, address):
            gevent.sleep(0.001)
            sock.sendall(sock.recv(100) + threading.current_thread().name.encode())

        def until(condition):
            while not condition():
                gevent.sleep(0.001)

        def rounds(numbers):
            """How many answers came from each thread; each server is asked ten times."""
            asked = [gevent.spawn(ask, address)
                     for _ in range(10) for number in numbers for address in where[number]]
            answers = [one.get() for one in asked]
            return [answers.count(b'ping%d' % number) for number in range(4)]

        def work(number):
            servers = [StreamServer(('127.0.0.1', 0), name, spawn=spawn)
                       for spawn in ('default', Pool(5))]
            for server in servers:
                server.start()
            where[number] = [server.address for server in servers]
            until(lambda: None not in where)
            first.append(rounds([0, 1, 2, 3]))
            until(lambda: len(first) == 4)
            if number != 2:
                until(lambda: not threads[2].is_alive())
                second.append(rounds([0, 1, 3]))
                until(lambda: len(second) == 3)
            for server in servers:
                server.stop()
            if number != 0:
                gevent.get_hub().destroy()

        where, first, second = [None] * 4, [], []
        threads = [threading.Thread(target=work, args=(number,), name=str(number))
                   for number in range(4)]
        threads[0] = threading.current_thread()
        threads[0].name = '0'
        for thread in threads[1:]:
            thread.start()
        work(0)
        for thread in threads[1:]:
            thread.join()
        print(first)
        print(second)
    ''', '-X', 'dev', '-W', 'error', GEVENT_LOOP=loop) == (
        0, [str([[20, 20, 20, 20]] * 4), str([[20, 20, 0, 20]] * 3)], '')


# -- forks --------------------------------------------------------------------------------

FORKS = {
    'gevent': 'from gevent.os import fork',
    'plain': '''
        def fork():
            pid = os.fork()
            if pid == 0:
                gevent.reinit()
            return pid
        ''',
    'patched': '''
        from gevent import monkey
        monkey.patch_os()
        fork = os.fork
        ''',
}


@on_every_loop
@pytest.mark.parametrize('way', FORKS)
def test_fork(run, loop, way):
    """With a server running, a handler waiting and the data-stack cache filled: the child goes
    on with the inherited server and with a new one, then so does the parent.
    """
    assert run(textwrap.dedent(FORKS[way]) + textwrap.dedent('''
        from gevent.event import Event

        def handle(sock, address):
            if sock.recv(4) == b'wait':
                waiting.append(1)
                event.wait()
            sock.sendall(b'%d' % os.getpid())

        def serve(where):
            asked = [gevent.spawn(ask, where) for _ in range(40)]
            return [one.get() for one in asked].count(b'%d' % os.getpid())

        def cached():
            cbase = sys.modules.get('gevent_cbase.datastack')
            return cbase is None or not cbase.is_enabled() or cbase.stats().cached >= 30

        event, waiting = Event(), []
        server = StreamServer(('127.0.0.1', 0), handle)
        server.start()
        print(serve(server.address), cached())
        waiter = gevent.spawn(ask, server.address, b'wait')
        while not waiting:
            gevent.sleep(0.001)
        sys.stdout.flush()
        pid = fork()
        if pid == 0:
            status = 1
            try:
                found = [serve(server.address)]
                server.stop(timeout=0)
                with StreamServer(('127.0.0.1', 0), handle) as another:
                    another.start()
                    found.append(serve(another.address))
                print('child', found, cached(), flush=True)
                status = 0
            finally:
                os._exit(status)
        server.stop_accepting()
        from gevent.os import waitpid
        print(waitpid(pid, 0)[1])
        server.start_accepting()
        print(serve(server.address), cached(), waiter.ready())
        event.set()
        print(waiter.get() == b'%d' % os.getpid())
        server.stop()
    '''), GEVENT_LOOP=loop) == (
        0, ['40 True', 'child [40, 40] True', '0', '40 True False', 'True'], '')


@on_every_loop
def test_multiprocessing_fork(run, loop):
    """Servers in children of multiprocessing, forked while one runs in the parent."""
    assert run('''
        import multiprocessing

        def handle(sock, address):
            sock.sendall(sock.recv(10) + os.path.basename(type(server).__mro__[1].__module__
                         .partition('.')[0]).encode())

        def work(pipe):
            gevent.reinit()
            server.close()
            with StreamServer(('127.0.0.1', 0), handle) as own:
                own.start()
                pipe.send([ask(own.address) for _ in range(10)])
            pipe.close()

        server = StreamServer(('127.0.0.1', 0), handle)
        server.start()
        expected = ask(server.address)
        context = multiprocessing.get_context('fork')
        for _ in range(3):
            ours, its = context.Pipe()
            child = context.Process(target=work, args=(its,))
            child.start()
            print(ours.recv() == [expected] * 10)
            child.join()
            print(child.exitcode, ask(server.address) == expected)
        server.stop()
    ''', GEVENT_LOOP=loop) == (0, ['True', '0 True'] * 3, '')


# -- the end ------------------------------------------------------------------------------

#: a program that ends with servers running; its exit status; what it prints
ENDS = {
    'clients wait': ('''
        def wait(sock, address):
            sock.sendall(b'hello')
            gevent.sleep(100)

        servers = [StreamServer(('127.0.0.1', 0), wait, spawn=spawn)
                   for spawn in ('default', gevent.spawn_raw, gevent.pool.Pool(3))]
        for server in servers:
            server.start()
        clients = [connect(server.address) for server in servers for _ in range(3)]
        print([client.recv(10) for client in clients] == [b'hello'] * 9)
        clients += [connect(server.address) for server in servers for _ in range(3)]
        ''', 0, ['True']),
    'exit in a handler': ('''
        def leave(sock, address):
            sock.sendall(b'bye')
            sys.exit(7)

        server = StreamServer(('127.0.0.1', 0), leave)
        server.start()
        gevent.spawn(ask, server.address)
        server.serve_forever()
        ''', 7, []),
    'exit in a handler in the hub': ('''
        def leave(sock, address):
            sys.exit(7)

        server = StreamServer(('127.0.0.1', 0), leave, spawn=None)
        server.start()
        gevent.spawn(connect, server.address)
        server.serve_forever()
        ''', 7, []),
    'signal': ('''
        import signal

        def kill(sock, address):
            os.kill(os.getpid(), signal.SIGTERM)
            gevent.sleep(100)

        server = StreamServer(('127.0.0.1', 0), kill)
        server.start()
        gevent.signal_handler(signal.SIGTERM, sys.exit, 5)
        gevent.spawn(connect, server.address)
        server.serve_forever()
        ''', 5, []),
    # The thread has to rest in its loop by then, and nothing may wake it: one that wants the
    # interpreter is ended, before CPython 3.14 by unwinding its stack, which is now and then a
    # crash if greenlets have switched there, whatever runs in them.
    'daemon thread': ('''
        def work():
            server = StreamServer(('127.0.0.1', 0), handle)
            server.start()
            where.append(server.address)
            ready.set()
            server.serve_forever()

        def handle(sock, address):
            handled.append(address)
            echo(sock, address)

        def rests():
            with open(f'/proc/self/task/{thread.native_id}/wchan') as function:
                return len(handled) == 21 and 'poll' in function.read()

        where, handled, ready = [], [], threading.Event()
        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        ready.wait()
        print([ask(where[0]) for _ in range(20)].count(b'ping'))
        connect(where[0]).detach()
        while not rests():
            gevent.sleep(0.001)
        ''', 0, ['20']),
    'served at exit': ('''
        import atexit

        def last():
            print(ask(server.address), [one.get() for one in [
                gevent.spawn(ask, server.address) for _ in range(30)]].count(b'ping'))

        server = StreamServer(('127.0.0.1', 0), echo)
        atexit.register(last)
        server.start()
        ''', 0, ["b'ping' 30"]),
}


@on_every_loop
@pytest.mark.parametrize('end', ENDS)
def test_end(run, loop, end):
    """The interpreter ends with that status, quietly, whatever is still running."""
    program, status, out = ENDS[end]
    assert run('import gevent.pool' + textwrap.dedent(program), GEVENT_LOOP=loop) == (
        status, out, '')


# -- -X dev and -W error ------------------------------------------------------------------


@on_every_loop
def test_development_mode(run, loop, tmp_path):
    """A connection of each kind, from start to exit: nothing is left open, nothing warns."""
    assert run('''
        from gevent import pywsgi
        from gevent.pool import Pool
        from gevent.server import DatagramServer

        def datagram(data, address):
            packets.sendto(data, address)

        def application(environ, start_response):
            start_response('200 OK', [('Content-Length', '4')])
            return [b'ping']

        def tell(sock, address):
            sock.sendall(b'ping')

        def leave(sock, address):
            sock.sendall(b'ping')
            raise gevent.GreenletExit

        def unix():
            listener = socket.socket(socket.AF_UNIX)
            listener.bind('socket-%d' % len(found))
            listener.listen()
            return listener

        found = []
        for make in (lambda: ('127.0.0.1', 0)), unix:
            for spawn in 'default', gevent.spawn_raw, Pool(2), None:
                for handle in [tell] + [echo, leave] * (spawn is not None):
                    server = StreamServer(make(), handle, spawn=spawn)
                    server.start()
                    found.append(ask(server.address, b'' if handle is not echo else b'ping'))
                    server.stop()
        with pywsgi.WSGIServer(('127.0.0.1', 0), application, log=None) as server:
            server.start()
            found.append(ask(server.address, b'GET / HTTP/1.0\\r\\n\\r\\n')[-4:])
        with DatagramServer('127.0.0.1:0', datagram) as packets:
            packets.start()
            with socket.socket(type=socket.SOCK_DGRAM) as client:
                client.connect(packets.address)
                client.sendall(b'ping')
                found.append(client.recv(10))
        print(found == [b'ping'] * 22, len(found))
    ''', '-X', 'dev', '-W', 'error', GEVENT_LOOP=loop) == (0, ['True 22'], '')
