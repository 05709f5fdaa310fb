"""What runs in the process of a server: one of these, on an inherited listener."""
import asyncio
import json
import os
import socket
import sys

from gevent_cbase.bench import echo
from gevent_cbase.bench.children import BACKLOG, ready, settle


def main():
    settings = json.loads(sys.argv[1])
    settle(settings)
    SERVERS[settings['server']](**settings)


def install(implementation):
    """Install what is measured; which fast paths are off, as (name, reason)."""
    if implementation == 'gevent':
        return []
    import gevent_cbase
    from gevent_cbase import _info
    cached = implementation == 'gevent_cbase'
    gevent_cbase.install(datastack=cached)
    import gevent.server
    if gevent.server.StreamServer.__mro__[1] is not gevent_cbase.BaseServer:
        sys.exit('install() did not do its work')
    return [(name, reason) for name, reason in _info.fast_paths()
            if reason is not None and (cached or name != 'datastack')]


def handler(report):
    """A handler of connections: does nothing, or tells of each."""
    if report < 0:
        def handle(sock, address):
            pass
    else:
        def handle(sock, address):
            os.write(report, b'.')
    return handle


def gevent_handler(report, pool):
    """The same for a server of gevent; tells by the first letter of what it has been run by."""
    if report < 0:
        return handler(report)
    import gevent

    def run_by():
        current = gevent.getcurrent()
        if current is gevent.get_hub():
            return b'n'
        if not isinstance(current, gevent.Greenlet):
            return b'r'
        return b'p' if current in pool else b'd'

    def handle(sock, address):
        os.write(report, run_by())
    return handle


# Connections

def gevent_server(listener, report, implementation, spawn, **_):
    off = install(implementation)
    import gevent
    import gevent.pool
    import gevent.server
    import gevent.socket
    sock = gevent.socket.socket(fileno=listener)
    pool = gevent.pool.Pool(1000)
    how = {'default': 'default', 'raw': gevent.spawn_raw, 'pool': pool, 'none': None}
    server = gevent.server.StreamServer(sock, gevent_handler(report, pool), spawn=how[spawn])
    server.start()
    ready(off=off)
    server.serve_forever()


def asyncio_server(listener, report, loop, streams, **_):
    async def serve():
        sock = socket.socket(fileno=listener)
        unix = sock.family == socket.AF_UNIX
        if streams:
            start = asyncio.start_unix_server if unix else asyncio.start_server
            server = await start(client, sock=sock)
        else:
            running = asyncio.get_running_loop()
            create = running.create_unix_server if unix else running.create_server
            server = await create(Protocol, sock=sock)
        sock.listen(BACKLOG)  # the loop has set its own
        ready()
        await server.serve_forever()

    class Protocol(asyncio.Protocol):
        def connection_made(self, transport):
            handle(transport, None)
            transport.close()

    async def client(reader, writer):
        handle(reader, writer)
        writer.close()

    handle = handler(report)
    run_until_complete(loop, serve())


def run_until_complete(loop, coroutine):
    if loop == 'uvloop':
        import uvloop as module
    else:
        module = asyncio
    module.new_event_loop().run_until_complete(coroutine)


def raw_server(listener, report, **_):
    from gevent_cbase import _load
    ready()
    _load.accept_and_close(listener, report)


# Echo

def gevent_echo_server(listener, report, implementation, mode, size, **_):
    off = install(implementation)
    server = echo.gevent_server(listener, report, mode, size)
    server.start()
    ready(off=off)
    server.serve_forever()


def asyncio_echo_server(listener, report, loop, mode, size, streams, **_):
    run_until_complete(loop, echo.asyncio_server(listener, report, mode, size, streams))


def raw_echo_server(listener, report, mode, size, **_):
    from gevent_cbase import _load
    ready()
    _load.echo_server(listener, report, size, mode == 'once', mode == 'udp')


# WSGI

TEXT = b'Hello, World!\n'


def pywsgi_server(listener, report, implementation, **_):
    off = install(implementation)
    import gevent.pywsgi
    import gevent.socket

    def application(environ, start_response):
        if report >= 0:
            os.write(report, b'.')
        start_response('200 OK', [('Content-Type', 'text/plain'),
                                  ('Content-Length', str(len(TEXT)))])
        return [TEXT]

    sock = gevent.socket.socket(fileno=listener)
    server = gevent.pywsgi.WSGIServer(sock, application, log=None)
    server.start()
    ready(off=off)
    server.serve_forever()


def gunicorn_server(listener, report, implementation, **_):
    from gunicorn.app.base import BaseApplication
    off = install(implementation)
    master = os.getpid()

    def started(worker):
        settle({'core': None, 'parent': master})
        ready(off=off)

    class Application(BaseApplication):
        def load_config(self):
            for name, value in {
                    'bind': 'fd://%d' % listener, 'worker_class': 'gevent', 'workers': 1,
                    'loglevel': 'error', 'post_worker_init': started,
                    'control_socket_disable': True}.items():
                if name in self.cfg.settings:  # the last one is new in gunicorn 25
                    self.cfg.set(name, value)

        def load(self):
            import flask
            app = flask.Flask('hello')

            @app.route('/')
            def hello():
                if report >= 0:
                    os.write(report, b'.')
                return TEXT
            return app

    Application().run()


SERVERS = {'gevent': gevent_server, 'asyncio': asyncio_server, 'raw': raw_server,
           'gevent echo': gevent_echo_server, 'asyncio echo': asyncio_echo_server,
           'raw echo': raw_echo_server,
           'pywsgi': pywsgi_server, 'gunicorn': gunicorn_server}

if __name__ == '__main__':
    main()
