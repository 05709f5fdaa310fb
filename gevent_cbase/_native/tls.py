"""A TLS connection gets a handler though its server is closed when the handshake is over.

gevent's StreamServer.wrap_socket_and_handle() asks the server for the handler then. A server that
was closed meanwhile has none any more, and the client is lost. So it gets the one that it was
accepted with.
"""
import types

from gevent_cbase._native import premises

NAME = 'StreamServer.wrap_socket_and_handle'

#: where gevent's function is
PARTS = {NAME: 'gevent.server:' + NAME}


def with_handler(method):
    """A bound wrap_socket_and_handle() that calls the handler that its server has then, or, if it
    has none any more, the one that it has now.

    Any other method is returned as it is, and so is one of a server whose class has the handler,
    which it does not lose.
    """
    function, server = method.__func__, method.__self__
    handle = vars(server).get('handle')
    if handle is None or not premises.is_known_code(NAME, function.__code__):
        return method

    def wrap_socket_and_handle(self, client_socket, address):
        closing = function.__globals__['_closing_socket']
        with closing(self.wrap_socket(client_socket, **self.ssl_args)) as ssl_socket:
            return getattr(self, 'handle', handle)(ssl_socket, address)
    wrap_socket_and_handle.__qualname__ = function.__qualname__
    return types.MethodType(wrap_socket_and_handle, server)


#: what of it is not as it is known, as text
differences = premises.differences
