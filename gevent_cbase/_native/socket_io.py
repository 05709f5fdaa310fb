"""Reading and writing of gevent's sockets: is it what the installed gevent does? See premises."""
import os
import types

from gevent_cbase import _cbase
from gevent_cbase._native import function_calls, premises

#: the functions whose calls run in C
CALLS = tuple('SocketMixin.' + name for name in (
    'recv', 'recv_into', 'recvfrom', 'recvfrom_into', 'send', 'sendall', 'sendto'))
#: the same of a server, and what its loop calls
SERVER_CALLS = ('DatagramServer.sendto',)
DO_READ = 'DatagramServer.do_read'

#: where the parts of gevent are that they stand for
PARTS = {
    **{name: 'gevent._socket3:socket.' + name.partition('.')[2] for name in CALLS},
    'SocketMixin.getsockopt': 'gevent._socket3:socket.getsockopt',
    '_sendall': 'gevent._socketcommon:_sendall',
    '__send_chunk': 'gevent._socketcommon:__send_chunk',
    'exc_clear': 'gevent._compat:exc_clear',
    **{name: 'gevent.server:' + name for name in (*SERVER_CALLS, DO_READ)},
}

#: the parts that each needs while it need not wait
AT_ONCE = {
    **{name: (name,) for name in (*CALLS, DO_READ)},
    'SocketMixin.sendall': ('SocketMixin.sendall', '_sendall', '__send_chunk', 'SocketMixin.send',
                            'SocketMixin.getsockopt', 'exc_clear'),
    'DatagramServer.sendto': ('DatagramServer.sendto', 'SocketMixin.sendto'),
}

#: what waits for a socket
WAIT = 'gevent._hub_primitives:wait_on_socket'

#: what it does for that, by the name that the hub has it under
OF_HUB = {
    'wait': 'gevent._hub_primitives:WaitOperationsGreenlet.wait',
    'switch': 'gevent._greenlet_primitives:SwitchOutGreenletWithLoop.switch',
    'switch_out': 'gevent._greenlet_primitives:SwitchOutGreenletWithLoop.switch_out',
}

if hasattr(_cbase, '_io_after_fork'):
    os.register_at_fork(after_in_child=_cbase._io_after_fork)

#: why it is off, as text; None if it is on
_reason = 'it was not compared yet'


def why_off():
    """Why the steps are off though those for sockets are on, as text; None if they are on."""
    return _reason


def set_limit(number):
    """Set how many reads in a row need not wait."""
    if hasattr(_cbase, '_io_limit'):
        _cbase._io_limit(number)


def prepare(snapshot, stamps):
    """Switch the steps on if they are right; part of prepare() for sockets."""
    global _reason
    noted = premises.noted(PARTS, snapshot)
    parts = {name: function_calls.as_written(name, part) for name, part in noted.items()}
    _reason = function_calls.off('io') or next(differences(parts, snapshot), None)
    if _reason is None and premises.not_read('io'):
        _reason = 'gevent may wait in another way'
    if _reason is not None:
        _cbase._io_forget()
        return
    for name in CALLS + SERVER_CALLS:
        parts[name] = function_calls.take_over(name, parts[name])
    _reason = function_calls.unknown(CALLS + SERVER_CALLS)
    _cbase._io_prepare(
        premises=premises.given(stamps, parts.values()),
        at_once={name: premises.given(stamps, [parts[one] for one in needed])
                 for name, needed in AT_ONCE.items()}, clock=snapshot['time:time'],
        timeout_error=snapshot['socket:timeout'],
        no_timeout=snapshot['gevent._socketcommon:timeout_default'],
        send_chunk=parts['__send_chunk'].function,
        do_read=parts[DO_READ].function, semaphore=_semaphore(snapshot))


def _semaphore(snapshot):
    """gevent's class, if it is compiled, so that nobody can change it; or None."""
    cls = snapshot['gevent.lock:Semaphore']
    return cls if isinstance(cls, type) and not cls.__flags__ & premises.HEAP_TYPE else None


def differences(parts, snapshot):
    """Yield what is not as the steps need it, each as text."""
    yield from premises.differences(parts, snapshot)
    yield from class_differences(parts, snapshot)


def class_differences(parts, snapshot):
    """Yield what is not as the steps need it besides the parts, each as text."""
    sock, raw = snapshot['gevent._socket3:socket'], snapshot['gevent._socket3:_wrefsocket']
    own = {name: part for name, part in parts.items() if name.startswith('SocketMixin.')}
    yield from premises.not_known(sock, own, ('_wait', 'args'))  # args: of exceptions
    yield from premises.not_known(raw, own)
    if isinstance(snapshot[WAIT], types.FunctionType):
        yield 'not with gevent in pure Python'
    if sock._wait is not snapshot[WAIT]:
        yield 'gevent has another socket._wait'
    yield from premises.not_plain(snapshot['gevent.hub:Hub'], object, ('__getattribute__',))
    for name, path in OF_HUB.items():
        if snapshot['gevent.hub:Hub.' + name] is not snapshot[path]:
            yield 'gevent has another Hub.%s' % name
    if type(snapshot['time:time']) is not types.BuiltinFunctionType:
        yield 'another time.time'
