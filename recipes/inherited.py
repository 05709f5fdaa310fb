"""A server on a socket that systemd, or another parent, has opened (socket activation).

    systemd-socket-activate -l 8080 python inherited.py

Clients that come while it is not running, or restarts, wait in the queue of the socket.
"""
import os
import signal
import sys

import gevent
import gevent.event
from gevent import socket
from gevent.pywsgi import WSGIHandler, WSGIServer

import gevent_cbase

gevent_cbase.install()
FIRST = 3  # the descriptors are 3, 4, ...; sd_listen_fds(3)


def inherited():
    """The listening sockets that were handed to this very process."""
    if os.environ.pop('LISTEN_PID', '') != str(os.getpid()):
        return []
    count = int(os.environ.pop('LISTEN_FDS', '0'))
    for fd in range(FIRST, FIRST + count):
        os.set_inheritable(fd, False)
    return [socket.socket(fileno=fd) for fd in range(FIRST, FIRST + count)]


def application(environ, start_response):
    start_response('200 OK', [('Content-Type', 'text/plain')])
    return [b'%d' % os.getpid()]


class Handler(WSGIHandler):
    def finalize_headers(self):
        """Tell a client that keeps its connection to go, in the answer, if the server stops."""
        super().finalize_headers()
        if not self.server.started and not self.connection_upgraded:
            self.response_headers.append((b'Connection', b'close'))
            self.close_connection = True


if __name__ == '__main__':
    servers = [WSGIServer(listener, application, log=None, spawn=1000, handler_class=Handler)
               for listener in inherited()]
    if not servers:
        sys.exit('no socket was handed over: LISTEN_FDS and LISTEN_PID are not set for this one')
    for server in servers:
        server.start()
    stop = gevent.event.Event()
    gevent.signal_handler(signal.SIGTERM, stop.set)
    stop.wait()
    gevent.joinall([gevent.spawn(server.stop, timeout=30) for server in servers])
