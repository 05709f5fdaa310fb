"""The native steps of stream servers: are they what the installed gevent does? See premises."""
import contextlib
import os
import socket
import sys
import types
import weakref

from gevent_cbase import _cbase
from gevent_cbase._native import function_calls, premises, socket_io, switches

#: where the parts of gevent are that accepting stands for, and closing
ACCEPT = {
    'StreamServer.do_read': 'gevent.server:StreamServer.do_read',
    'socket.__init__': 'gevent._socket3:socket.__init__',
    'SocketMixin.__init__': 'gevent._socketcommon:SocketMixin.__init__',
    'stdlib.family': 'stdlib:family.fget',
    'stdlib.type': 'stdlib:type.fget',
    '_intenum_converter': 'socket:_intenum_converter',
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
PARTS = {**ACCEPT, **CLOSE}

#: the function whose calls are closing
CLOSE_CALL = 'socket.close'

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
    from gevent import hub
    snapshot = new_snapshot()
    classes = *_classes(snapshot), hub.Hub
    stamps = premises.stamps(*classes)
    noted = premises.noted(PARTS, snapshot)
    parts = {**noted, CLOSE_CALL: function_calls.as_written(CLOSE_CALL, noted[CLOSE_CALL])}
    reason = next(differences(parts, snapshot), None)
    if reason is not None:
        return reason
    if not _layout_is_known(classes[1]):
        return 'unknown layout of socket objects'
    parts[CLOSE_CALL] = (function_calls.take_over(CLOSE_CALL, parts[CLOSE_CALL])
                         if function_calls.off('closing') is None else noted[CLOSE_CALL])
    loop_class, io_class = _watcher_classes()
    _cbase._stream_prepare(
        accept=premises.given(stamps, (parts[name] for name in ACCEPT)),
        close=premises.given(stamps, (parts[name] for name in CLOSE)),
        classes=classes, loop_class=loop_class, io_class=io_class,
        do_read=parts['StreamServer.do_read'].function,
        do_close=parts['StreamServer.do_close'].function,
        get_hub=_read(parts['socket.__init__'], 'get_hub'),
        getdefaulttimeout=_read(parts['socket.__init__'], 'getdefaulttimeout'),
        cancelled=parts['SocketMixin._drop_events_and_close'].defaults[1],
        close_later=_close_later, failed=do_read, wait=snapshot[socket_io.WAIT],
        hub_calls_any=_hub_calls_any(snapshot))
    socket_io.prepare(snapshot, stamps)
    return None


def new_snapshot():
    """A Snapshot that has the socket class of the standard library, which may have been patched
    away, as ``stdlib``.
    """
    from gevent import monkey
    snapshot = premises.Snapshot()
    snapshot['stdlib'] = monkey.get_original('socket', 'socket')
    return snapshot


def _read(part, name):
    """What a noted part reads by this name."""
    return next(value for _, read, *values in part.reads if read == name for value in values)


def _classes(snapshot):
    """The class of gevent's sockets, of the socket inside, and of what closed ones have there;
    and that of the standard library.
    """
    return (snapshot['gevent._socket3:socket'], snapshot['gevent._socket3:_wrefsocket'],
            snapshot['gevent._socket3:_closedsocket'], snapshot['stdlib'])


def differences(parts, snapshot):
    """Yield what is not as the steps need it, each as text."""
    yield from premises.differences(parts, snapshot)
    yield from class_differences(parts, snapshot)


def class_differences(parts, snapshot):
    """Yield what is not as the steps need it besides the parts, each as text."""
    import _socket
    sock, raw, closed, stdlib = _classes(snapshot)
    yield from premises.not_plain(sock, object)
    yield from premises.not_plain(closed, object)
    yield from premises.not_plain(raw, _socket.socket, (*premises.PLAIN, '__init__'))
    yield from premises.not_plain(stdlib, _socket.socket, ('__getattribute__',))
    yield from premises.not_known(sock, _of(parts, 'socket', 'SocketMixin'), READ_OF_RAW)
    yield from premises.not_known(raw, parts)
    yield from premises.not_known(closed, _of(parts, '_closedsocket'))
    yield from premises.not_known(stdlib, _of(parts, 'StreamServer', 'stdlib'), ('close',))
    if sock._gevent_sock_class is not raw:
        yield 'gevent makes other sockets'


#: what gevent's sockets read of the socket inside, and what is compared in another way
READ_OF_RAW = ('family', 'type', 'proto', 'fileno', 'setblocking', '_gevent_sock_class')


def _of(parts, *owners):
    return {name: part for name, part in parts.items() if name.partition('.')[0] in owners}


def why_closing_off():
    """Why closing by others than do_close() runs in Python, as text; None if it does not."""
    return why_off() or function_calls.off('closing') or function_calls.unknown([CLOSE_CALL])


def why_io_off():
    """Why reading and writing run in Python, as text; None if they do not."""
    return why_off() or function_calls.off('io') or socket_io.why_off()


def on_install(max_reads):
    """Have all calls of gevent's functions for sockets run in C, from now on; so many reads in a
    row need not wait.
    """
    socket_io.set_limit(max_reads)
    function_calls.want(True)
    _prepare_again()


def on_uninstall():
    """Leave nothing of gevent to the native steps."""
    function_calls.want(False)
    function_calls.give_back()
    _prepare_again()  # the functions may have another code now
    if hasattr(_cbase, '_drop_kept'):
        _cbase._drop_kept()  # servers that go on with gevent's class would not, when closed


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


def _hub_calls_any(snapshot):
    """Whether the hub has gevent's function for closing watchers, so that it does not matter what
    that is to call in the end.
    """
    from gevent import _hub_primitives
    function = snapshot[CLOSE_WATCHER]
    return not any(watcher_differences(snapshot)) and (
        not isinstance(function, types.FunctionType)  # of a class that cannot be patched
        or function.__globals__ is vars(_hub_primitives))


def _watcher_classes():
    """The loop class and the class of its watchers; object for none."""
    if _watchers_off():
        return object, object
    from gevent.libev import corecext
    _learn_watchers(corecext)
    return corecext.loop, corecext.io


#: classes of watchers that C knows about
_learned = weakref.WeakSet()


def _learn_watchers(corecext):
    """Have C find out how a watcher differs from a new one when it was used. On a loop of its own,
    as the program may not have chosen the one of its hub yet.
    """
    if corecext.io in _learned:
        return
    loop = corecext.loop(default=False)
    reader, writer = os.pipe()
    try:
        watcher = loop.io(reader, 1)
        if type(watcher) is corecext.io:
            _cbase._learn_watchers(watcher)
            _learned.add(corecext.io)
        watcher.close()
    finally:
        os.close(reader)
        os.close(writer)
        loop.destroy()


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
