"""Servers that send back what they receive: gevent's, and those of asyncio or uvloop.

``size`` is that of a message, and each message is answered by itself. In the mode ``once`` they
close a connection after one.
"""
import asyncio
import os
import socket

from gevent_cbase.bench.children import BACKLOG, ready


def telling(send, report, size):
    """*send*, or a function that also tells of each message of *size* that was sent in parts."""
    if report < 0:
        return send
    rest = 0

    def send_and_tell(data, *more):
        nonlocal rest
        messages, rest = divmod(rest + len(data), size)
        os.write(report, b'.' * messages)
        return send(data, *more)
    return send_and_tell


def gevent_server(listener, report, mode, size):
    """A server of gevent, as a user would write it."""
    import gevent.server
    import gevent.socket

    class Datagrams(gevent.server.DatagramServer):
        def handle(self, data, address):
            sendto(data, address)

    def keep(sock, address):
        sendall = telling(sock.sendall, report, size)
        while True:
            data = sock.recv(size)
            if not data:
                return
            sendall(data)

    def once(sock, address):
        sendall = telling(sock.sendall, report, size)
        data = sock.recv(size)
        while len(data) < size:
            more = sock.recv(size - len(data))
            if not more:
                return
            data += more
        sendall(data)

    sock = gevent.socket.socket(fileno=listener)
    if mode == 'udp':
        server = Datagrams(sock)
        sendto = telling(sock.sendto, report, size)
        return server
    return gevent.server.StreamServer(sock, once if mode == 'once' else keep)


async def asyncio_server(listener, report, mode, size, streams):
    """Serve for ever on the running loop, as asyncio's documents do it."""
    class Keep(asyncio.Protocol):
        def connection_made(self, transport):
            self.write = telling(transport.write, report, size)

        def data_received(self, data):
            if len(data) <= size:
                self.write(data)
                return
            for start in range(0, len(data), size):  # several messages in one read
                self.write(data[start:start + size])

    class Once(Keep):
        def connection_made(self, transport):
            super().connection_made(transport)
            self.transport = transport
            self.data = b''

        def data_received(self, data):
            self.data += data
            if len(self.data) == size:
                self.write(self.data)
                self.transport.close()

    class Datagrams(asyncio.DatagramProtocol):
        def connection_made(self, transport):
            self.sendto = telling(transport.sendto, report, size)

        def datagram_received(self, data, address):
            self.sendto(data, address)

    async def keep(reader, writer):
        write = telling(writer.write, report, size)
        while True:
            data = await reader.read(size)
            if not data:
                break
            write(data)
            await writer.drain()
        writer.close()

    async def once(reader, writer):
        data = await reader.readexactly(size)
        telling(writer.write, report, size)(data)
        await writer.drain()
        writer.close()

    sock = socket.socket(fileno=listener)
    loop = asyncio.get_running_loop()
    if mode == 'udp':
        await loop.create_datagram_endpoint(Datagrams, sock=sock)
        ready()
        await asyncio.Event().wait()
    elif streams:
        server = await asyncio.start_server(once if mode == 'once' else keep, sock=sock)
    else:
        server = await loop.create_server(Once if mode == 'once' else Keep, sock=sock)
    sock.listen(BACKLOG)  # the loop has set its own
    ready()
    await server.serve_forever()
