"""gevent's servers and ours beside each other, with types-gevent installed or not."""
import gevent
import gevent.pool
import gevent.server
import gevent.socket
from gevent.pywsgi import WSGIServer

import gevent_cbase


class Echo(gevent.server.StreamServer):
    max_accept = 5


class Counted(gevent.server.DatagramServer):
    def figures(self) -> dict[str, str | None]:
        return gevent_cbase.stats(self).fast_paths


def handle(sock: gevent.socket.socket, address: object) -> None:
    sock.close()


def serve(listener: gevent.socket.socket) -> list[gevent_cbase.ServerStats]:
    own = [
        gevent_cbase.BaseServer(listener, handle, spawn=gevent.pool.Pool(10)),
        gevent_cbase.BaseServer(listener, handle, spawn=gevent.pool.Group()),
        gevent_cbase.BaseServer(listener, handle, spawn=gevent.spawn_raw),
        gevent_cbase.BaseServer(listener, handle, spawn=gevent.spawn),
    ]
    print(Counted(listener).figures())
    return [
        gevent_cbase.stats(WSGIServer(('127.0.0.1', 0))),
        gevent_cbase.stats(Echo(listener, handle)),
        gevent_cbase.stats(gevent.server.DatagramServer(':0', handle)),
        *map(gevent_cbase.stats, own),
    ]
