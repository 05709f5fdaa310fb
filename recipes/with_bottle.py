"""Bottle's own adapter for gevent.

    python with_bottle.py [PORT]
"""
from gevent import monkey

monkey.patch_all()

import signal  # noqa: E402
import sys  # noqa: E402

import bottle  # noqa: E402
import gevent  # noqa: E402

import gevent_cbase  # noqa: E402

gevent_cbase.install()
app = bottle.Bottle()


@app.get('/hello/<name>')
def hello(name):
    return 'hello %s' % name


@app.post('/upper')
def upper():
    return bottle.request.body.read().upper()


if __name__ == '__main__':
    gevent.signal_handler(signal.SIGTERM, sys.exit)
    bottle.run(app, server='gevent', host='127.0.0.1', quiet=True,
               port=int(sys.argv[1]) if sys.argv[1:] else 8080)
