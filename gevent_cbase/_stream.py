"""The native steps of stream servers: are they what the installed gevent does?

The C code of ``src/stream.c`` stands for a few functions and classes of gevent. They are
compared, by their source text, with those it was written for; if one differs, or its source is
not there to be read, the steps stay off and gevent's own code runs.
"""
import contextlib
import hashlib
import os
import socket

from gevent_cbase import _cbase

#: SHA-256 of the source text, in gevent 25.9.1 to 26.9.0
KNOWN = {
    'StreamServer.do_read':
        '6cb23b7571a826b591cc85006b271902bb4f56183e465074da634be6c325ea6d',
    'StreamServer.do_close':
        '728ac328c4119488e22b086fd13cf4a3708165c130a1510f460acb3d4e2fb24d',
    'socket.__init__':
        '187a3fe6b61a8376a7f5a1ed87f6c3bc8ce049d7a5b2bf1b9cf053e542fbc7c6',
    'socket.close':
        '55bda0dc5e10084356319cc0be6056f945b2b7d869196aeb188324703fd5cb4b',
    'socket._real_close':
        'dd2e99c3f699dfb9d82ab4685ff28cc4f9f95d999ec47c01f8092a302bbfa2c2',
    'socket._detach_socket':
        '018c0da0064114acdb04e5c2e573dd522eff1d95542e3566567642945ddade31',
    'socket._drop_ref_on_close':
        '56e8012202d54019c04f1f90a49dd0f559d999e7e4bf4c82a696d630a61d42cd',
    'SocketMixin.__init__':
        'b1a105882d425bb29b1da7a5b23a5616f1aa057d7c4ea2801182e15a3dd7f1e7',
    'SocketMixin._drop_events_and_close':
        '3964106f70668cecead88d7209fe63985b6e97696e1eed95a33e60b6c1f06191',
    '_closedsocket.__init__':
        '81c68a3ac86b05b30a1565189aae2fb76c7bb18b8a0edb6f3a0c37c55d7afc18',
    '_wrefsocket':
        '5e71adb2469bd73f9df7234f1be6179a3b7579ccdcdc3caf3c69a675c4bb2770',
}

#: what makes objects and sets their attributes
PLAIN = ('__new__', '__getattribute__', '__setattr__', '__delattr__')


def why_off():
    """Why the native steps are off, as text; None if they are on."""
    return prepare()


def prepare():
    """Switch the native steps on if they are right, and return why they are not, or None.

    Called when the first server is made, and again when one of the classes has changed.
    """
    if not hasattr(_cbase, '_stream_prepare'):
        return 'not built on this platform'
    try:
        return _prepare()
    except Exception as ex:
        return '%s: %s' % (type(ex).__name__, ex)


def _prepare():
    import _socket

    from gevent import _socket3, _socketcommon, hub, monkey, server
    sock, raw, closed = _socket3.socket, _socket3._wrefsocket, _socket3._closedsocket
    accept = {
        'StreamServer.do_read': server.StreamServer.do_read,
        'socket.__init__': sock.__init__,
        'SocketMixin.__init__': _socketcommon.SocketMixin.__init__,
    }
    close = {
        'StreamServer.do_close': server.StreamServer.do_close,
        'socket.close': sock.close,
        'socket._real_close': sock._real_close,
        'socket._detach_socket': sock._detach_socket,
        'SocketMixin._drop_events_and_close': sock._drop_events_and_close,
        'socket._drop_ref_on_close': sock._drop_ref_on_close,
        '_closedsocket.__init__': closed.__init__,
    }
    for name, part in {**accept, **close, '_wrefsocket': raw}.items():
        if _digest(part) != KNOWN[name]:
            return 'gevent has another %s' % name
    for cls, base in ((sock, object), (closed, object), (raw, _socket.socket)):
        for name in PLAIN:
            if getattr(cls, name) is not getattr(base, name):
                return 'gevent has another %s.%s' % (cls.__name__, name)
    for name in ('__init__', '_accept', 'close', 'fileno', 'setblocking'):
        if getattr(raw, name) is not getattr(_socket.socket, name):
            return 'gevent has another _wrefsocket.%s' % name
    if sock._gevent_sock_class is not raw:
        return 'gevent makes other sockets'
    if not _layout_is_known(raw):
        return 'unknown layout of socket objects'
    names = vars(_socket3)
    loop_class, io_class = _watcher_classes()
    _cbase._stream_prepare(
        # the socket class of the standard library may have been patched away
        classes=(sock, raw, closed, monkey.get_original('socket', 'socket'), hub.Hub),
        loop_class=loop_class, io_class=io_class,
        do_read=accept['StreamServer.do_read'], do_close=close['StreamServer.do_close'],
        get_hub=names['get_hub'], getdefaulttimeout=_socket.getdefaulttimeout,
        cancelled=_socketcommon.cancel_wait_ex, close_later=_close_later, failed=do_read,
        accept_functions=tuple(accept.values()),
        accept_globals=((vars(server), 'GeventSocket', sock),
                        (names, 'get_hub', names['get_hub']),
                        (vars(_socket), 'getdefaulttimeout', _socket.getdefaulttimeout)),
        close_functions=tuple(close.values()),
        close_globals=((names, '_closedsocket', closed),))
    return None


def _digest(part):
    import inspect
    return hashlib.sha256(inspect.getsource(part).encode()).hexdigest()


def _watcher_classes():
    """The loop class and watcher class of which watchers can be kept; object for none.

    Closing one of their watchers that nobody waits for does nothing, in the gevent releases
    that were looked at.
    """
    from gevent import _hub_primitives, hub, version_info
    closing = 'cancel_waits_close_and_then'
    own = getattr(_hub_primitives.WaitOperationsGreenlet, closing)
    if version_info[:2] > (26, 9) or getattr(hub.Hub, closing) is not own:
        return object, object
    try:
        from gevent.libev import corecext
    except ImportError:
        return object, object
    return corecext.loop, corecext.io


def _layout_is_known(raw_class):
    for kind, timeout in (
            ((socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_UDP), 1.5),
            ((socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP), 0.0),
            ((socket.AF_UNIX, socket.SOCK_STREAM, 0), None)):
        with contextlib.closing(raw_class(*kind)) as sock:
            sock.settimeout(timeout)
            nanoseconds = -10 ** 9 if timeout is None else int(timeout * 10 ** 9)
            if not _cbase._has_known_layout(sock, sock.fileno(), *kind, nanoseconds):
                return False
    return True


def do_read(number):
    """Raise what accept() raises; the traceback shows the name of this function."""
    raise OSError(number, os.strerror(number))


def _close_later(loop, sock):
    """Close a socket whose descriptor the loop has pending events for, after these."""
    check = loop.check()

    def close():
        try:
            sock.close()
        except OSError:
            pass
        finally:
            check.stop()
            check.close()
    check.start(close)
