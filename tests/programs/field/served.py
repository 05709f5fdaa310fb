"""Small servers for the programs under test. Knows nothing of gevent_cbase."""
import socket as native

import gevent
from gevent import pywsgi, server, socket


def spawns():
    """Each way to start a handler, by its name."""
    return {'default': 'default', 'raw': gevent.spawn_raw, 'pool': 2, 'hub': None}


def ask(address, data=b''):
    """Send *data*, if there is any, over a fresh connection; all that comes back."""
    with socket.create_connection(address, timeout=20) as client:
        if data:
            client.sendall(data)
        return b''.join(iter(lambda: client.recv(4096), b''))


def talk(handle, spawn='default', times=1):
    """The answers of a server that is asked so many times."""
    one = server.StreamServer(('127.0.0.1', 0), handle, spawn=spawn)
    one.start()
    try:
        return [ask(one.address) for _ in range(times)]
    finally:
        one.stop()


def page(application):
    """The body of what a WSGI server answers."""
    one = pywsgi.WSGIServer(('127.0.0.1', 0), application, log=None)
    one.start()
    try:
        return ask(one.address, b'GET /path HTTP/1.0\r\n\r\n').partition(b'\r\n\r\n')[2]
    finally:
        one.stop()


def replaced():
    """(owner, name) of the functions that fast paths stand for."""
    from gevent import hub, pool
    stream = server.StreamServer
    return ((stream, 'do_read'), (stream, 'do_close'), (socket.socket, '__init__'),
            (socket.socket, 'close'), (hub, 'spawn_raw'), (pool.Group, 'spawn'))


def note_all(noted):
    """For each way to start a handler print what is noted of one connection; another one was there
    before.
    """
    for spawn in 'default', gevent.spawn_raw, 2:
        one = server.StreamServer(('127.0.0.1', 0), lambda sock, address: None, spawn=spawn)
        one.start()
        ask(one.address)
        noted.clear()
        with native.create_connection(one.address) as client:  # which notes nothing
            socket.wait_read(client.fileno())
            assert client.recv(1) == b''
        print(*sorted(set(noted)))
        one.stop()
