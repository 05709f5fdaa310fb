"""Processes that share an address with SO_REUSEPORT: start it several times.

    python reuse_port.py [ADDRESS]

The kernel gives each process a queue of its own and deals new connections out to them. One
that stops takes what is still in its queue with it; with one listener (prefork.py) it does not.
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


if __name__ == '__main__':
    host, _, port = (sys.argv[1] if sys.argv[1:] else '127.0.0.1:8080').rpartition(':')
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    listener.bind((host, int(port)))
    listener.listen(1024)
    server = WSGIServer(listener, application, log=None, spawn=1000)
    gevent.signal_handler(signal.SIGTERM, server.close)
    server.serve_forever(stop_timeout=30)
