"""Passes every TCP connection on to another address, both ways.

    python port_forwarder.py HOST:PORT

On SIGTERM or SIGINT no new client is taken, but those that are there are served to the end.
"""
import signal
import sys

import gevent
from gevent import socket
from gevent.server import StreamServer


class Forwarder(StreamServer):

    def __init__(self, listener, target, **options):
        StreamServer.__init__(self, listener, **options)
        self.target = target

    def handle(self, client, address):
        try:
            there = socket.create_connection(self.target)
        except OSError as ex:
            print('%s:%s cannot be reached: %s' % (*self.target, ex), file=sys.stderr)
            return
        with there:
            gevent.joinall([gevent.spawn(pump, client, there), gevent.spawn(pump, there, client)])


def pump(source, target):
    """Copy until *source* ends, then tell *target* so; the other direction may go on."""
    try:
        while True:
            data = source.recv(4096)
            if not data:
                break
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        target.close()  # either side is gone: nothing is left to be done


def main():
    host, port = sys.argv[1].rsplit(':', 1)
    server = Forwarder('127.0.0.1:0', (host, int(port)), spawn=100)
    server.start()

    def close():
        server.close()
        print('closed to new clients', flush=True)
    for number in (signal.SIGTERM, signal.SIGINT):
        gevent.signal_handler(number, close)
    print('%s:%s' % server.address, flush=True)
    server.serve_forever(stop_timeout=60)


if __name__ == '__main__':
    main()
