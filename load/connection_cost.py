"""What one connection costs a stream server, for a profiler that counts instructions.

    valgrind --tool=callgrind --callgrind-out-file=/dev/null \\
        python load/connection_cost.py IMPL SPAWN N

IMPL: gevent or gevent_cbase. SPAWN: default, raw, pool or none. Serves N connections, one after
the other; the difference between two runs, divided by that of their Ns, is the cost of one. The
handler does nothing. The client waits for the end of file; it is another process, not counted.
"""
import itertools
import subprocess
import sys

import gevent
from gevent.event import Event
from gevent.pool import Pool
from gevent.server import StreamServer

CLIENT = '''
import socket, sys
for _ in range(int(sys.argv[2])):
    with socket.create_connection(('127.0.0.1', int(sys.argv[1]))) as client:
        client.recv(1)
'''


def main(implementation, spawn, connections):
    if implementation == 'gevent_cbase':
        import gevent_cbase
        gevent_cbase.install()
    spawn = {'default': 'default', 'raw': gevent.spawn_raw, 'pool': Pool(100), 'none': None}[spawn]
    numbers, done = itertools.count(1), Event()

    def handle(sock, address):
        if next(numbers) == connections:
            done.set()
    server = StreamServer(('127.0.0.1', 0), handle, spawn=spawn)
    server.start()
    client = subprocess.Popen(
        [sys.executable, '-S', '-c', CLIENT, str(server.server_port), str(connections)])
    done.wait()
    server.stop()
    sys.exit(client.wait())


if __name__ == '__main__':
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
