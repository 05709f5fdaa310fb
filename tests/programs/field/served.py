"""Small servers for the programs under test. Knows nothing of gevent_cbase."""
import gevent
from gevent import server, socket


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
