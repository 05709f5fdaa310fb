"""Several processes that accept from one listening socket.

    python prefork.py [ADDRESS [PROCESSES]]

A process that dies is replaced; on SIGTERM all finish what they are doing.
"""
import os
import signal
import sys

import gevent
from gevent import socket
from gevent.pywsgi import WSGIServer

import gevent_cbase

gevent_cbase.install()


def application(environ, start_response):
    start_response('200 OK', [('Content-Type', 'text/plain')])
    return [b'%d' % os.getpid()]


class Server(WSGIServer):
    max_accept = 1  # leave some for the others: all of them wake up for a connection


def serve(listener):
    """Accept until SIGTERM comes; then finish what is under way."""
    server = Server(listener, application, log=None, spawn=1000)
    gevent.signal_handler(signal.SIGTERM, server.close)
    server.serve_forever(stop_timeout=30)


def start(listener):
    """The pid of a new process that serves."""
    pid = gevent.fork()
    if pid == 0:
        try:
            serve(listener)
        finally:
            os._exit(0)
    return pid


def main(address='127.0.0.1:8080', processes='2'):
    host, _, port = address.rpartition(':')
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((host, int(port)))
    listener.listen(1024)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    children = set()
    try:
        while True:
            while len(children) < int(processes):
                children.add(start(listener))
            pid, _ = os.wait()
            children.discard(pid)
    finally:
        listener.close()
        for pid in children:
            os.kill(pid, signal.SIGTERM)
        for pid in children:
            os.waitpid(pid, 0)


if __name__ == '__main__':
    main(*sys.argv[1:])
