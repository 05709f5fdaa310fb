"""Several processes that accept from one listening socket.

    python prefork.py [ADDRESS [PROCESSES [CERTIFICATE KEY]]]

A process that dies is replaced. On HUP all are: new ones accept, the old ones finish what they are
doing. On TERM all finish. The socket stays open meanwhile, so no client is lost.
"""
import os
import signal
import sys

import gevent
from gevent import socket, ssl
from gevent.pywsgi import WSGIHandler, WSGIServer

import gevent_cbase

gevent_cbase.install()
SIGNALS = {signal.SIGCHLD, signal.SIGHUP, signal.SIGTERM}


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


class Server(WSGIServer):
    max_accept = 1  # leave some for the others: all of them wake up for a connection
    handler_class = Handler


def serve(listener, certificate=None, key=None):
    """Accept until SIGTERM comes; then finish what is under way."""
    # import your application here, not above: then HUP takes its new code
    tls = {}
    if certificate:
        tls['ssl_context'] = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls['ssl_context'].load_cert_chain(certificate, key)
    server = Server(listener, application, log=None, spawn=1000, **tls)
    gevent.signal_handler(signal.SIGTERM, server.close)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)  # one that has come already counts
    server.serve_forever(stop_timeout=30)


def start(*args):
    """The pid of a new process that serves."""
    pid = gevent.fork()
    if pid == 0:
        try:
            serve(*args)
        finally:
            os._exit(0)
    return pid


def stop(pids):
    for pid in pids:
        os.kill(pid, signal.SIGTERM)


def main(address='127.0.0.1:8080', processes='2', *certificate_and_key):
    host, _, port = address.rpartition(':')
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((host, int(port)))
    listener.listen(1024)
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # they are waited for
    serving, leaving = set(), set()
    number = None
    while number != signal.SIGTERM:
        while len(serving) < int(processes):
            serving.add(start(listener, *certificate_and_key))
        number = signal.sigwait(SIGNALS)
        if number == signal.SIGHUP:
            leaving |= serving
            serving = {start(listener, *certificate_and_key) for _ in serving}
            stop(leaving)
        elif number == signal.SIGCHLD:
            for pid in serving | leaving:
                if os.waitpid(pid, os.WNOHANG)[0]:
                    serving.discard(pid)
                    leaving.discard(pid)
    listener.close()
    stop(serving)
    for pid in serving | leaving:
        os.waitpid(pid, 0)


if __name__ == '__main__':
    main(*sys.argv[1:])
