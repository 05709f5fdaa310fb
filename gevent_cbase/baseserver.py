"""gevent.baseserver in C, name for name.

Put in its place before gevent.server is imported, it carries every gevent server:

    import sys, gevent_cbase.baseserver
    sys.modules['gevent.baseserver'] = gevent_cbase.baseserver

gevent_cbase.install() does the same at any time.

What can be called here is a Python function, as in gevent.baseserver, for those who look at it:
inspect, unittest.mock, debuggers. What it does is in C, in src/server/.
"""
import errno

from gevent.greenlet import Greenlet as _Greenlet

from gevent_cbase import _cbase

__all__ = ['BaseServer']


class BaseServer:
    """gevent's base class of servers, with the accept loop in C.

    BaseServer(listener, handle=None, spawn='default')

    listener: where to accept connections; see set_listener().
    handle: called for each connection with what do_read() returned; when it is done, the
    connection is closed by do_close(). Default: the method `handle` of the subclass.
    spawn: how handlers are run; see set_spawn(). Default: a new greenlet for each.

    Raises TypeError, ValueError or what the arguments raise; the listener is closed then.
    A context manager: stop() at its end. Since 1.0.

    Attributes, on the class for all servers or on an instance:
    min_delay, max_delay: seconds to pause accepting after an error, and the limit to which
    the pause doubles while errors go on; the next good accept starts over. 0.01 and 1.
    A negative min_delay: no pause.
    max_accept: connections accepted at most before other events get their turn, int of at
    least 1. 100.
    stop_timeout: seconds that stop() waits for handlers in a pool. 1.
    fatal_errors: errno values that end the server. (EBADF, EINVAL, ENOTSOCK).
    """

    min_delay = 0.01
    max_delay = 1
    max_accept = 100
    stop_timeout = 1
    fatal_errors = (errno.EBADF, errno.EINVAL, errno.ENOTSOCK)
    _spawn = _Greenlet.spawn

    def __init__(self, listener, handle=None, spawn='default'):
        """See help(BaseServer)."""
        _cbase._server_init(self, listener, handle, spawn)
        _cbase._stats_begin(self)

    def __enter__(self):
        """Return the server itself."""
        return self

    def __exit__(self, *args):
        """stop() the server."""
        self.stop()

    def set_listener(self, listener):
        """Set where to listen; sets family, address and, given a socket, socket.

        listener: a bound socket (TCP: one that listens), of gevent or of the standard
        library, or an address: (host, port), 'host:port', '[IPv6 host]:port', ':port', or a
        port as int or str.

        Raises TypeError for an SSL socket and for other types, ValueError for text that is
        no address. Since 1.0.
        """
        _cbase._server_set_listener(self, listener)

    def set_spawn(self, spawn):
        """Set how handlers are run; works on a running server too.

        spawn: 'default' (gevent.spawn), any function called as spawn(function, *args), None
        (handlers run in the hub and must not block), a number (the size of a new Pool), or
        an object with a method `spawn`: a Pool, a Group, or alike. While its `full()` is
        true no connection is accepted. Since 1.0; gevent takes pools only.
        """
        _cbase._server_set_spawn(self, spawn)

    def set_handle(self, handle):
        """Set the handler for connections not yet accepted.

        handle: called with what do_read() returns; None takes the attribute `handle`, for
        instance a method of the subclass.

        Raises TypeError if there is none. Since 1.0.
        """
        _cbase._server_set_handle(self, handle)

    def _start_accepting_if_started(self, _event=None):
        """start_accepting() unless the server is stopped: called by timers and by the pool."""
        _cbase._server_start_accepting_if_started(self)

    def start_accepting(self):
        """Accept connections from now on; does nothing if it does so already.

        Raises AttributeError if there is no listening socket. Since 1.0.
        """
        _cbase._server_start_accepting(self)

    def stop_accepting(self):
        """Accept no more connections until start_accepting(); the port stays open.

        Also cancels the pause after an error. Since 1.0.
        """
        _cbase._server_stop_accepting(self)

    def do_handle(self, *args):
        """Run the handler for one connection, in a greenlet made by the spawn function.

        args: what do_read() returned; the handler gets them as its arguments and do_close()
        after it, also when the handler raises. With spawn=None the handler runs at once, in
        the hub, and must not block.

        Raises what the spawn function raises, after do_close(*args). Since 1.0.
        """
        _cbase._server_do_handle(self, args)

    def do_close(self, *args):
        """Called with the arguments of the handler when it is done. Does nothing; subclasses
        close the connection here. Since 1.0.
        """

    def do_read(self):
        """Accept one connection; for subclasses to define.

        Returns the arguments for the handler, as any iterable, or any false value if there
        is nothing to accept now. Must not block.

        Raises NotImplementedError in this class. Since 1.0.
        """
        raise NotImplementedError()

    def _do_read(self):
        """The accept loop, called by the event loop when the listener is readable.

        Hands at most max_accept connections from do_read() to do_handle(). Stops accepting
        while full() says so. An error goes to the hub's handle_error and pauses accepting.
        """
        _cbase._server_do_read(self)

    def full(self):
        """Return whether the server may take no more connections now: False.

        Asked before each accept. With a pool, the pool's own `full` takes its place on the
        instance. Since 1.0.
        """
        return False

    def __repr__(self):
        """Return repr(self)."""
        return _cbase._server_repr(self)

    def __str__(self):
        """Return str(self)."""
        return _cbase._server_str(self)

    def _formatinfo(self):
        """The part of repr() and str() that tells descriptor, address and handler."""
        return _cbase._server_formatinfo(self)

    @property
    def server_host(self):
        """Host that the server is bound to, a str; None if the address is not a tuple, as that
        of a UNIX socket. Since 1.0.
        """
        return _cbase._server_host(self)

    @property
    def server_port(self):
        """Port that the server is bound to, an int; None if the address is not a tuple. With
        port 0 the real one is known once the server has started. Since 1.0.
        """
        return _cbase._server_port(self)

    def init_socket(self):
        """Called by start() before accepting: a subclass that was given an address creates,
        binds and opens the listening socket here. Does nothing in this class. Since 1.0.
        """

    @property
    def started(self):
        """True between start() and close(), also while accepting pauses. Since 1.0."""
        return _cbase._server_started(self)

    def start(self):
        """Open the listening socket if need be, and start to accept connections.

        Raises what init_socket() and start_accepting() raise, OSError for instance if the
        address is in use; start() may then be tried again. Since 1.0.
        """
        _cbase._server_start(self)

    def close(self):
        """Stop accepting and close the listening socket. Handlers go on running. Since 1.0."""
        _cbase._server_close(self)

    @property
    def closed(self):
        """True while there is no listening socket. Since 1.0."""
        return _cbase._server_closed(self)

    def stop(self, timeout=None):
        """close(), and wait for the handlers that run in a pool.

        timeout: seconds until handlers still running are killed; default: stop_timeout (1).
        Without a pool, handlers are neither waited for nor killed.

        Raises BlockingSwitchOutError, an AssertionError, if it would have to wait in the
        hub; the listener is closed by then. Since 1.0.
        """
        _cbase._server_stop(self, timeout)

    def serve_forever(self, stop_timeout=None):
        """start() if need be, wait until the server is stopped, then call stop().

        stop_timeout: the timeout for stop(), in seconds; default: stop_timeout (1).

        Raises what start() raises. Since 1.0.
        """
        _cbase._server_serve_forever(self, stop_timeout)

    def is_fatal_error(self, ex):
        """Return whether an exception from do_read() ends the server: an OSError whose errno is
        among fatal_errors. Since 1.0.
        """
        return _cbase._server_is_fatal_error(self, ex)


def _handle_and_close_when_done(handle, close, args_tuple):
    """Return handle(*args_tuple); call close(*args_tuple) when it returns or raises.

    This is what runs in the greenlet of each connection.
    """
    try:
        return handle(*args_tuple)
    finally:
        close(*args_tuple)


_handle_and_close_when_done = _cbase._handover_function(_handle_and_close_when_done)


def _extract_family(host):
    """Return (AF_INET6, host without brackets) for '[host]', else (AF_INET, host)."""
    return _cbase._address_extract_family(host)


def _parse_address(address):
    """parse_address() without the address in the text of a ValueError."""
    return _cbase._address_parse_inner(address)


def parse_address(address):
    """Return the pair (address family, socket address) that an address stands for.

    address: a (host, port) tuple, returned unchanged with AF_INET6 if the host is
    empty or contains a colon, else with AF_INET; 'host:port', '[IPv6 host]:port',
    ':port' or '*:port' (any IPv4 host); or a port alone, as int or str (any IPv6
    host).

    Raises ValueError if text or number cannot be parsed, TypeError for other
    types. Since 1.0.
    """
    return _cbase._address_parse(address)


_cbase._class_is(BaseServer)
_cbase._do_read_is(BaseServer._do_read)
_made_with = dict(vars(BaseServer))  # for install()
_cbase._bind_greenlet(_Greenlet)  # as in gevent.baseserver: what gevent has when this is imported
