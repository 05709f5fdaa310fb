"""What one message costs a server, for a profiler that counts instructions.

    valgrind --tool=callgrind --callgrind-out-file=/dev/null python load/io_cost.py IMPL KIND N

IMPL: gevent or gevent_cbase. Answers N messages of 100 bytes, each with itself; the difference
between two runs, divided by that of their Ns, is the cost of one. KIND:

    close     each message on a connection of its own, which the server closes
    wait      one connection; the client pauses before each message, so it has to be waited for
    there     one connection; the client sends all messages at once, so the next one is there
    udp       datagrams, spawn='default'
    udp-none  datagrams, spawn=None

The client is another process, not counted.
"""
import itertools
import subprocess
import sys

from gevent.event import Event
from gevent.server import DatagramServer, StreamServer

SIZE = 100

CLIENT = '''
import socket, sys, threading, time
kind, port, count, message = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), b'x' * %d
address = '127.0.0.1', port
if kind == 'close':
    for _ in range(count):
        with socket.create_connection(address) as client:
            client.sendall(message)
            while client.recv(8192):
                pass
elif kind == 'wait':
    with socket.create_connection(address) as client:
        for _ in range(count):
            time.sleep(0.02)
            client.sendall(message)
            client.recv(8192)
elif kind == 'there':
    with socket.create_connection(address) as client:
        sender = threading.Thread(target=client.sendall, args=[message * count])
        sender.start()
        left = len(message) * count
        while left:
            left -= len(client.recv(65536))
        sender.join()
else:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.connect(address)
        for _ in range(count):
            client.send(message)
            client.recv(8192)
''' % SIZE


def stream_server(kind, messages, done):
    """A server that calls done() when it has answered so many messages."""
    numbers = itertools.count(1)
    size = SIZE if kind == 'there' else 8192

    def answer(sock, address):
        sock.sendall(sock.recv(size))
        if next(numbers) == messages:
            done()

    def answer_all(sock, address):
        recv, sendall = sock.recv, sock.sendall
        while data := recv(size):
            sendall(data)
        done()
    return StreamServer(('127.0.0.1', 0), answer if kind == 'close' else answer_all)


def datagram_server(kind, messages, done):
    """The same for datagrams."""
    numbers = itertools.count(1)

    class Server(DatagramServer):
        def handle(self, data, address):
            self.sendto(data, address)
            if next(numbers) == messages:
                done()
    return Server(('127.0.0.1', 0), spawn=None if kind == 'udp-none' else 'default')


def main(implementation, kind, messages):
    if implementation == 'gevent_cbase':
        import gevent_cbase
        gevent_cbase.install()
    done = Event()
    server = (datagram_server if kind.startswith('udp') else stream_server)(
        kind, messages, done.set)
    server.start()
    client = subprocess.Popen(
        [sys.executable, '-S', '-c', CLIENT, kind, str(server.server_port), str(messages)])
    done.wait()
    server.stop()
    sys.exit(client.wait())


if __name__ == '__main__':
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
