"""Flask-SocketIO: its server for async_mode='gevent' is gevent.pywsgi's.

    python with_socketio.py [PORT]
"""
import signal
import sys

import gevent
from flask import Flask
from flask_socketio import SocketIO, emit

import gevent_cbase

gevent_cbase.install()
app = Flask(__name__)
socketio = SocketIO(app, async_mode='gevent')


@socketio.on('say')
def say(text):
    """What one says everybody hears; who said it gets the length back."""
    emit('heard', text, broadcast=True)
    return len(text)


if __name__ == '__main__':
    # stop() is for use in a request; a handler of a signal ends the program
    gevent.signal_handler(signal.SIGTERM, sys.exit)
    socketio.run(app, '127.0.0.1', int(sys.argv[1]) if sys.argv[1:] else 8080)
