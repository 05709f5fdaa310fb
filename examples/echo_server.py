"""A TCP server that sends every line back, until a client says bye.

    python echo_server.py [HOST:PORT]
"""
import signal
import sys

import gevent
from gevent.server import StreamServer


def echo(sock, address):
    """Runs in a greenlet of its own for each client; the server closes *sock* afterwards."""
    sock.sendall(b'hello, say something\n')
    with sock.makefile('rb') as lines:
        for line in lines:
            if line.strip() == b'bye':
                break
            sock.sendall(line)
    print('%s:%s left' % address, flush=True)


def main():
    server = StreamServer(sys.argv[1] if len(sys.argv) > 1 else '127.0.0.1:0', echo)
    server.start()
    for number in (signal.SIGTERM, signal.SIGINT):
        gevent.signal_handler(number, server.stop)
    print('%s:%s' % server.address, flush=True)
    server.serve_forever()


if __name__ == '__main__':
    main()
