"""A program with a mistake in each line that ends in a comment; it is never run."""
import gevent_cbase
from gevent_cbase import BaseServer, datastack


class Server(BaseServer):
    max_accept = 'five'  # assignment

    def full(self) -> str:  # override
        return 'never'


gevent_cbase.install(False)  # call-arg
gevent_cbase.installed()  # attr-defined
gevent_cbase.parse_address()  # call-arg
server = BaseServer(b'127.0.0.1:0')  # arg-type
server = BaseServer(('127.0.0.1', 0), spawn='many')  # arg-type
server = BaseServer(('127.0.0.1', 0), handle=5)  # arg-type
server.started = True  # misc
server.stop('soon')  # arg-type
port: str = server.server_port  # assignment
datastack.enable('much')  # arg-type
datastack.stats().hit  # attr-defined
datastack.why_off().upper()  # union-attr
gevent_cbase.stats()  # call-arg
gevent_cbase.stats('server')  # arg-type
gevent_cbase.stats(5)  # arg-type
gevent_cbase.stats(server).refused  # attr-defined
gevent_cbase.servers()[0].stop('soon')  # arg-type
gevent_cbase.install().bit  # attr-defined
