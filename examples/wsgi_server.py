"""A WSGI application behind gevent.pywsgi, over TLS if a certificate is given.

    python wsgi_server.py [CERTIFICATE KEY]
"""
import signal
import sys

import gevent
from gevent import ssl
from gevent.pywsgi import WSGIServer


def application(environ, start_response):
    """``/`` greets, ``/count`` streams, ``/upper`` shouts what was posted; else 404."""
    path = environ['PATH_INFO']
    plain = [('Content-Type', 'text/plain')]
    if path == '/':
        start_response('200 OK', plain)
        return [b'hello over ', environ['wsgi.url_scheme'].encode()]
    if path == '/count':
        start_response('200 OK', plain)
        return count()
    if path == '/upper' and environ['REQUEST_METHOD'] == 'POST':
        body = environ['wsgi.input'].read()
        start_response('200 OK', plain)
        return [body.upper()]
    start_response('404 Not Found', plain)
    return [b'nothing here']


def count():
    """Parts that come one after the other, with other greenlets running in between."""
    for number in range(5):
        yield b'%d ' % number
        gevent.sleep(0.01)


def main():
    tls = {}
    if len(sys.argv) > 1:
        tls['ssl_context'] = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls['ssl_context'].load_cert_chain(*sys.argv[1:])
    server = WSGIServer(('127.0.0.1', 0), application, log=None, **tls)
    server.start()
    for number in (signal.SIGTERM, signal.SIGINT):
        gevent.signal_handler(number, server.stop)
    print('%s:%s' % server.address, flush=True)
    server.serve_forever()


if __name__ == '__main__':
    main()
