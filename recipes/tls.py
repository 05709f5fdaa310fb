"""A server that speaks TLS: it sends back each line in upper case.

    python tls.py CERTIFICATE KEY [ADDRESS]
"""
import signal
import sys

import gevent
from gevent import ssl
from gevent.server import StreamServer

import gevent_cbase

gevent_cbase.install()


def handle(sock, address):
    with sock.makefile('rwb') as file:
        for line in file:
            file.write(line.upper())
            file.flush()


if __name__ == '__main__':
    certificate, key, *address = sys.argv[1:]
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    # the handshake takes place in the handler's greenlet, so a slow client holds up no other
    server = StreamServer(*address or ['127.0.0.1:8443'], handle, ssl_context=context)
    gevent.signal_handler(signal.SIGTERM, server.stop)
    server.serve_forever()
