"""SIGTERM stops a server gracefully: no new clients, time for those that are there.

    python graceful_stop.py [ADDRESS [SECONDS]]

A client sends text and the end of it, and gets the text back in upper case.
"""
import signal
import sys

import gevent
from gevent.server import StreamServer

import gevent_cbase

gevent_cbase.install()


def handle(sock, address):
    with sock.makefile('rb') as file:
        sock.sendall(file.read().upper())


def main(address='127.0.0.1:8080', seconds='30'):
    # handlers are waited for only if they run in a pool; 1000 makes one of that size
    server = StreamServer(address, handle, spawn=1000)
    # that closes the port and lets serve_forever() go on: it waits for the handlers, and kills
    # those that are not done after so many seconds (server.stop() would allow them one)
    gevent.signal_handler(signal.SIGTERM, server.close)
    server.serve_forever(stop_timeout=float(seconds))


if __name__ == '__main__':
    main(*sys.argv[1:])
