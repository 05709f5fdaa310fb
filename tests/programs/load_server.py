"""The server process of test_load.py: many servers, their counts, and what they do on demand.

    load_server.py CONTROL TOTAL FOLDER

CONTROL is the descriptor of a connected socket: a line of JSON goes out when all servers listen,
and another one for each line that comes in. A client first sends a token: the number of the
connection, below TOTAL, and what is to be done with it, one of CASES.
"""
import gc
import json
import os
import struct
import sys

import gevent
from gevent import socket
from gevent.hub import GreenletExit
from gevent.pool import Pool
from gevent.server import StreamServer

TOKEN = struct.Struct('!IB')
#: what a handler does when it has answered with its token; the last four depend on the client
CASES = ('return', 'raise', 'close', 'exit', 'sleep', 'kill', 'wait', 'half-close', 'reset')


class Planned(Exception):
    """Raised by handlers that are told to."""


class Counting(StreamServer):
    """Not gevent's own do_read and do_close any more: no native step applies."""
    opened = set()
    reads = again = 0

    def do_read(self):
        result = super().do_read()
        if result is not None:
            Counting.reads += 1
            self.opened.add(result[0])
        return result

    def do_close(self, sock, *args):
        if sock in self.opened:
            self.opened.remove(sock)
        else:  # so it is if a handler raises in the hub
            Counting.again += 1
        return super().do_close(sock, *args)


class Load:
    """All that is counted; nothing grows with the number of connections."""

    def __init__(self, total, folder):
        self.handled = bytearray(total)  # how often the handler of each connection has run
        self.calls = self.active = self.unread = 0
        self.reported = {}
        self.victims = []
        gevent.get_hub().handle_error = self.handle_error
        self.servers = [
            self.server(cls, listener(), handle, spawn)
            for cls in (StreamServer, Counting)
            for listener in (lambda: ('127.0.0.1', 0), lambda: self.unix(folder))
            for handle, spawn in (
                (self.handle, 'default'), (self.handle, gevent.spawn_raw),
                (self.handle, Pool(20)), (self.handle_in_hub, None))]

    def server(self, cls, listener, handle, spawn):
        one = cls(listener, handle, spawn=spawn)
        one.min_delay = one.max_delay = 0.0001  # an error of a handler in the hub is a pause
        one.start()
        return one

    def unix(self, folder):
        sock = socket.socket(socket.AF_UNIX)
        sock.bind(os.path.join(folder, str(sock.fileno())))
        sock.listen(256)
        return sock

    def handle_error(self, context, kind, value, tb):
        self.reported[kind.__name__] = self.reported.get(kind.__name__, 0) + 1

    def token(self, sock):
        """Note that the connection is handled; what is to be done with it."""
        self.calls += 1
        try:
            token = sock.recv(TOKEN.size)
            number, case = TOKEN.unpack(token)
        except (OSError, struct.error):  # a client that has reset the connection
            self.unread += 1
            return 'unread'
        self.handled[number] += 1
        if CASES[case] == 'half-close':
            assert sock.recv(1) == b''
        sock.sendall(token)
        return CASES[case]

    def handle(self, sock, address):
        self.active += 1
        try:
            case = self.token(sock)
            if case == 'raise':
                raise Planned
            elif case == 'close':
                sock.close()
            elif case == 'exit':
                raise GreenletExit
            elif case == 'sleep':
                gevent.sleep(0.001)
            elif case == 'kill':
                self.victims.append(gevent.getcurrent())
                gevent.sleep(1000)
            elif case == 'wait':
                sock.recv(1)
        finally:
            self.active -= 1

    def handle_in_hub(self, sock, address):
        case = self.token(sock)
        if case in ('raise', 'kill'):
            raise Planned
        elif case == 'close':
            sock.close()
        elif case == 'exit':
            raise GreenletExit

    def kill_victims(self):
        while True:
            gevent.sleep(0.001)
            while self.victims:
                gevent.kill(self.victims.pop())

    def where(self):
        return [one.socket.getsockname() for one in self.servers]

    def counts(self):
        gc.collect()
        return {
            'calls': self.calls, 'active': self.active, 'unread': self.unread,
            'once': self.handled.count(1), 'never': self.handled.count(0),
            'reads': Counting.reads, 'open': len(Counting.opened), 'again': Counting.again,
            'reported': self.reported,
            'blocks': sys.getallocatedblocks()}


def main():
    control, total, folder = sys.argv[1:]
    control = socket.socket(fileno=int(control))
    load = Load(int(total), folder)
    gevent.spawn(load.kill_victims)
    control.sendall(json.dumps(load.where()).encode() + b'\n')
    for _ in control.makefile('rb'):
        control.sendall(json.dumps(load.counts()).encode() + b'\n')


if __name__ == '__main__':
    main()
