"""A UDP server that answers every datagram with its length and its text in capitals.

    python udp_server.py [HOST:PORT]
"""
import signal
import sys

import gevent
from gevent.server import DatagramServer


class Shouter(DatagramServer):
    def handle(self, data, address):
        self.sendto(b'%d %s' % (len(data), data.upper()), address)


def main():
    server = Shouter(sys.argv[1] if len(sys.argv) > 1 else '127.0.0.1:0')
    server.start()
    for number in (signal.SIGTERM, signal.SIGINT):
        gevent.signal_handler(number, server.stop)
    print('%s:%s' % server.address, flush=True)
    server.serve_forever()


if __name__ == '__main__':
    main()
