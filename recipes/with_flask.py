"""Flask on gevent.pywsgi.

    python with_flask.py [ADDRESS]
"""
from gevent import monkey

monkey.patch_all()  # first of all: Flask and what it imports get gevent's sockets and threads

import signal  # noqa: E402
import sys  # noqa: E402

import gevent  # noqa: E402
from flask import Flask, request  # noqa: E402
from gevent.pywsgi import WSGIServer  # noqa: E402

import gevent_cbase  # noqa: E402

gevent_cbase.install()
app = Flask(__name__)


@app.get('/')
def index():
    return 'hello %s' % request.args.get('name', 'world')


@app.get('/stream')
def stream():
    def parts():
        for number in range(5):
            yield '%d\n' % number
            gevent.sleep(0.01)  # others are served in the meantime
    return parts(), {'Content-Type': 'text/plain'}


@app.post('/sum')
def add():
    return {'sum': sum(request.json)}


if __name__ == '__main__':
    server = WSGIServer(sys.argv[1] if sys.argv[1:] else '127.0.0.1:8080', app,
                        log=None, spawn=1000)
    gevent.signal_handler(signal.SIGTERM, server.close)
    server.serve_forever(stop_timeout=30)
