"""What the accept loop itself costs, for a profiler that counts instructions.

    valgrind --tool=callgrind --callgrind-out-file=/dev/null python load/loop_cost.py IMPL N

IMPL: gevent or gevent_cbase. Does N accepts; the difference between two runs, divided by that
of their Ns, is the cost of one. ``do_read`` returns a constant, the handler does nothing.
"""
import importlib
import sys


def main(implementation, accepts):
    BaseServer = importlib.import_module(implementation + '.baseserver').BaseServer

    class Server(BaseServer):
        connection = (object(), object())
        max_accept = accepts

        def do_read(self):
            return self.connection

    def handle(sock, address):
        pass

    Server(('127.0.0.1', 0), handle, spawn=None)._do_read()


if __name__ == '__main__':
    main(sys.argv[1], int(sys.argv[2]))
