"""The native steps of stream servers: are they what the installed gevent does? See premises."""
import contextlib
import os
import socket
import sys
import types
import weakref

from gevent_cbase import _cbase
from gevent_cbase._native import closing, known, premises, switches

#: where the parts of gevent are that accepting stands for, and closing
ACCEPT = {
    'StreamServer.do_read': 'gevent.server:StreamServer.do_read',
    'socket.__init__': 'gevent._socket3:socket.__init__',
    'SocketMixin.__init__': 'gevent._socketcommon:SocketMixin.__init__',
}
CLOSE = {
    'StreamServer.do_close': 'gevent.server:StreamServer.do_close',
    'socket.close': 'gevent._socket3:socket.close',
    'socket._real_close': 'gevent._socket3:socket._real_close',
    'socket._detach_socket': 'gevent._socket3:socket._detach_socket',
    'SocketMixin._drop_events_and_close': 'gevent._socket3:socket._drop_events_and_close',
    'socket._drop_ref_on_close': 'gevent._socket3:socket._drop_ref_on_close',
    '_closedsocket.__init__': 'gevent._socket3:_closedsocket.__init__',
    '_closedsocket.__bool__': 'gevent._socket3:_closedsocket.__bool__',
}
PARTS = {**ACCEPT, **CLOSE, '_wrefsocket': 'gevent._socket3:_wrefsocket'}

#: what closes watchers
CLOSE_WATCHER = 'gevent._hub_primitives:WaitOperationsGreenlet.cancel_waits_close_and_then'


def why_off():
    """Why the native steps are off, as text; None if they are on."""
    return premises.why_off(prepare)


def prepare():
    """Switch the native steps on if they are right, and return why they are not, or None.

    Called when the first server is made, and again when one of the classes has changed. If it
    raises an Exception it is called again later.
    """
    if not hasattr(_cbase, '_stream_prepare'):
        return 'not built on this platform'
    return switches.why_off('sockets') or _prepare()


def _prepare():
    import _socket

    from gevent import _socket3, hub, monkey, server
    snapshot = premises.Snapshot()
    sock, raw, closed = _classes(snapshot)
    # the socket class of the standard library may have been patched away
    classes = sock, raw, closed, monkey.get_original('socket', 'socket'), hub.Hub
    stamps = premises.stamps(*classes)
    parts = premises.noted(PARTS, snapshot)
    reason = (premises.difference(parts, known.SOCKETS)
              or next(class_differences(snapshot), None))
    if reason is not None:
        return reason
    if not _layout_is_known(raw):
        return 'unknown layout of socket objects'
    if closing.off() is None:
        parts['socket.close'] = closing.take_over(parts['socket.close'])
    names = vars(_socket3)
    loop_class, io_class = _watcher_classes()
    _cbase._stream_prepare(
        accept=(stamps, tuple(parts[name] for name in ACCEPT),
                ((vars(server), 'GeventSocket', sock),
                 (names, 'get_hub', names['get_hub']),
                 (vars(_socket), 'getdefaulttimeout', _socket.getdefaulttimeout))),
        close=(stamps, tuple(parts[name] for name in CLOSE), ((names, '_closedsocket', closed),)),
        classes=classes, loop_class=loop_class, io_class=io_class,
        do_read=parts['StreamServer.do_read'][0], do_close=parts['StreamServer.do_close'][0],
        get_hub=names['get_hub'], getdefaulttimeout=_socket.getdefaulttimeout,
        cancelled=parts['SocketMixin._drop_events_and_close'][2][1],
        close_later=_close_later, failed=do_read)
    return None


def _classes(snapshot):
    """The class of gevent's sockets, of the socket inside, and of what closed ones have there."""
    return (snapshot['gevent._socket3:socket'], snapshot['gevent._socket3:_wrefsocket'],
            snapshot['gevent._socket3:_closedsocket'])


def class_differences(snapshot):
    """Yield what is not as the steps need it besides the parts, each as text."""
    import _socket
    sock, raw, closed = _classes(snapshot)
    yield from premises.not_plain(sock, object)
    yield from premises.not_plain(closed, object)
    yield from premises.not_plain(raw, _socket.socket, premises.PLAIN + (
        '__init__', '_accept', 'close', 'fileno', 'setblocking'))
    if sock._gevent_sock_class is not raw:
        yield 'gevent makes other sockets'


def why_closing_off():
    """Why closing by others than do_close() runs in Python, as text; None if it does not."""
    return why_off() or closing.off()


def on_install():
    """Have all calls of socket.close() run in C, from now on."""
    closing.want(True)
    _prepare_again()


def on_uninstall():
    """Leave nothing of gevent to the native steps."""
    closing.want(False)
    closing.give_back()
    _prepare_again()  # close() may have another code now
    if hasattr(_cbase, '_drop_watchers'):
        _cbase._drop_watchers()  # servers that go on with gevent's class would not, when closed


def _prepare_again():
    if 'gevent.server' in sys.modules and hasattr(_cbase, '_stream_compare'):
        _cbase._stream_compare()


def why_watchers_off():
    """Why watchers are not used again, as text; None if they are."""
    return why_off() or _watchers_off()


def _watchers_off():
    """Closing a watcher that nobody waits for must do nothing: so it is in libev loops in C, in
    the gevent releases that were looked at.
    """
    from gevent import config
    snapshot = premises.Snapshot()
    if premises.not_read('watchers') or any(watcher_differences(snapshot)):
        return 'gevent may close them in another way'
    if isinstance(snapshot[CLOSE_WATCHER], types.FunctionType):  # a class that may be patched, too
        return 'not with gevent in pure Python'
    if config.loop.__module__ != 'gevent.libev.corecext':
        return 'not with this loop'
    return switches.why_off('watchers')


def watcher_differences(snapshot):
    """Yield what is not as it has to be with watchers, as text."""
    if snapshot['gevent.hub:Hub.cancel_waits_close_and_then'] is not snapshot[CLOSE_WATCHER]:
        yield 'gevent has another Hub.cancel_waits_close_and_then'


def _watcher_classes():
    """The loop class and the class of its watchers; object for none."""
    if _watchers_off():
        return object, object
    from gevent.libev import corecext
    return corecext.loop, corecext.io


#: classes that were found to have the layout that is known
_known_layouts = weakref.WeakSet()


def _layout_is_known(raw_class):
    if raw_class in _known_layouts:
        return True
    for kind, timeout in (
            ((socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_UDP), 1.5),
            ((socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP), 0.0),
            ((socket.AF_UNIX, socket.SOCK_STREAM, 0), None)):
        with contextlib.closing(raw_class(*kind)) as sock:
            sock.settimeout(timeout)
            nanoseconds = -10 ** 9 if timeout is None else int(timeout * 10 ** 9)
            if not _cbase._has_known_layout(sock, sock.fileno(), *kind, nanoseconds):
                return False
    _known_layouts.add(raw_class)
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
