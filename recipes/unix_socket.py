"""A WSGI server on a UNIX socket, for a proxy on the same machine.

    python unix_socket.py PATH
"""
import contextlib
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
    return [b'hello over a path']


if __name__ == '__main__':
    path = sys.argv[1]
    with contextlib.suppress(FileNotFoundError):
        os.remove(path)  # left behind by a run that was killed
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    os.chmod(path, 0o660)  # the proxy is of our group
    listener.listen(1024)
    server = WSGIServer(listener, application, log=None)
    gevent.signal_handler(signal.SIGTERM, server.stop)
    server.serve_forever()
    os.remove(path)
