"""A server on a UNIX socket that tells each client how many came before it.

    python unix_server.py PATH
"""
import itertools
import os
import signal
import sys

import gevent
from gevent import socket
from gevent.server import StreamServer

numbers = itertools.count()


def greet(sock, address):
    name = sock.recv(100)
    sock.sendall(b'%s, %d before you' % (name, next(numbers)))


def listen(path):
    """A listening UNIX socket; what an earlier run left behind at *path* is removed."""
    if os.path.exists(path):
        os.remove(path)
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(path)
    sock.listen(128)
    return sock


def main():
    path = sys.argv[1]
    server = StreamServer(listen(path), greet, spawn=10)
    server.start()
    for number in (signal.SIGTERM, signal.SIGINT):
        gevent.signal_handler(number, server.stop)
    print(server.address, flush=True)
    server.serve_forever()
    os.remove(path)


if __name__ == '__main__':
    main()
