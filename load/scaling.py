"""Requests per second of one and of two processes, which share a listener or a port.

    python load/scaling.py [ROUNDS [REQUESTS]]

Runs recipes/prefork.py and recipes/reuse_port.py, on gevent's class and on ours, one round of each
after the other; one request a connection. The clients, in C, take their share of the same cores.
"""
import contextlib
import os
import socket
import statistics
import subprocess
import sys
import time

from gevent_cbase import _load

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(ROOT, 'tests'))
from helpers import reserved_port  # noqa: E402

REQUEST = b'GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n'
CLIENTS = 64
IMPLEMENTATIONS = {'gevent': '0', 'gevent_cbase': '1'}  # the value of GEVENT_CBASE


@contextlib.contextmanager
def running(way, processes, switch, port):
    """A group of processes that serve."""
    address = '127.0.0.1:%d' % port
    command = [sys.executable, os.path.join(ROOT, 'recipes', way + '.py'), address]
    commands = [command + [str(processes)]] if way == 'prefork' else [command] * processes
    children = [subprocess.Popen(one, env=dict(os.environ, GEVENT_CBASE=switch))
                for one in commands]
    try:
        seen, end = set(), time.monotonic() + 60
        while len(seen) < processes:  # all of them answer
            if time.monotonic() > end:
                sys.exit('%s does not start' % way)
            with contextlib.suppress(OSError), \
                    socket.create_connection(('127.0.0.1', port), timeout=5) as client:
                client.sendall(REQUEST)
                with client.makefile('rb') as answer:
                    seen.add(answer.read().rpartition(b'\r\n')[2])
        yield
    finally:
        for child in children:
            child.terminate()
        for child in children:
            child.wait()


def main(rounds='5', requests='10000'):
    cases = [(way, processes, name) for way in ('prefork', 'reuse_port')
             for processes in (1, 2) for name in IMPLEMENTATIONS]
    figures = {case: [] for case in cases}
    with contextlib.ExitStack() as stack:
        ports = {case: stack.enter_context(reserved_port()) for case in cases}
        for (way, processes, name), port in ports.items():
            stack.enter_context(running(way, processes, IMPLEMENTATIONS[name], port))
        for number in range(int(rounds) + 1):
            for case, port in ports.items():
                begin = time.perf_counter()
                _load.requests(port, REQUEST, int(requests), CLIENTS, False)
                if number:  # the first is a warm-up
                    figures[case].append(int(requests) / (time.perf_counter() - begin))
    print('requests per second: medians of %s rounds of %s, %d clients, %d cores' % (
        rounds, requests, CLIENTS, os.cpu_count()))
    for (way, processes, name), values in figures.items():
        print('%-10s  %d  %-12s  %6.0f' % (way, processes, name, statistics.median(values)))


if __name__ == '__main__':
    main(*sys.argv[1:])
