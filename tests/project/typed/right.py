"""A program that uses each public name; a type checker has nothing to say against it."""
import socket

import prometheus_client

import gevent_cbase
from gevent_cbase import BaseServer, baseserver, datastack
from gevent_cbase.gunicorn import GeventPyWSGIWorker, GeventWorker
from gevent_cbase.prometheus import Publisher, ServerCollector, publish


class Upper(BaseServer):
    max_accept = 5
    min_delay = max_delay = 0.5

    def handle(self, sock: socket.socket, address: tuple[str, int]) -> None:
        sock.sendall(sock.recv(100).upper())

    def do_read(self) -> tuple[socket.socket, tuple[str, int]] | None:
        return None

    def full(self) -> bool:
        return super().full()


class Worker(GeventWorker):
    pass


class PyWSGIWorker(GeventPyWSGIWorker):
    pass


def handle(sock: socket.socket, address: object) -> None:
    sock.close()


def serve() -> int | None:
    BaseServer(socket.create_server(('127.0.0.1', 0)), handle, spawn=None).close()
    BaseServer('127.0.0.1:0', handle, 100).stop(timeout=1.5)
    baseserver.BaseServer(0, spawn='default').set_handle(handle)
    with Upper(('127.0.0.1', 0), spawn=10) as server:
        upper: Upper = server
        upper.start()
        upper.delay = upper.max_delay
        if upper.started and not upper.closed and not upper.full():
            upper.serve_forever(stop_timeout=1)
        host: str | None = upper.server_host
        print(host, upper.address, upper.family.bit_length())
    servers: list[BaseServer] = gevent_cbase.servers()
    print([gevent_cbase.stats(one).accepted for one in servers])
    told: gevent_cbase.ServerStats = gevent_cbase.stats(upper)
    print(told.accepted + sum(told.accept_errors.values()), told.backoff_seconds.hex())
    print([name.upper() for name, reason in told.fast_paths.items() if reason is None])
    return upper.server_port


def tell() -> None:
    prometheus_client.REGISTRY.register(ServerCollector())
    publisher: Publisher = publish(seconds=1, registry=prometheus_client.CollectorRegistry())
    publisher.update()


def main() -> None:
    on: bool = gevent_cbase.install()
    print(on)
    gevent_cbase.uninstall()
    gevent_cbase.install(datastack=False)
    family, address = gevent_cbase.parse_address('127.0.0.1:80')
    print(family.bit_length(), address, gevent_cbase.__version__.upper())
    if datastack.enable(10) and datastack.enable() and datastack.is_enabled():
        stats: datastack.Stats = datastack.stats()
        hits, misses, cached, limit = stats
        print(hits + stats.misses + datastack.DEFAULT_MAX_CHUNKS)
    reason: str | None = datastack.why_off()
    print(reason, gevent_cbase.is_installed() is True)
    datastack.disable()
