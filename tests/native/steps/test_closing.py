"""socket.close() of gevent, called by handlers and by everybody else.

While the drop-in is installed, calls of that function run in C, for sockets that are as gevent has
made them; the function itself stays as it is, but for its code object on CPython 3.11.
"""
import contextlib
import errno
import functools
import gc
import inspect
import os
import socket as native
import subprocess
import sys
import textwrap
import threading
import traceback
import types
import weakref

import gevent
import pytest
from gevent import _socket3, get_hub, socket, ssl
from gevent._socketcommon import cancel_wait_ex

import helpers
from helpers import (
    FRAMES_OF_CLOSE, LOOPBACK, child_environ, connect, is_on, is_open, isolated, read_all, until)

#: the Python functions of gevent that close a socket, in the order in which they run
STEPS = {getattr(socket.socket, name).__code__: name for name in (
    'close', '_real_close', '_detach_socket', '_drop_events_and_close', '_drop_ref_on_close',
    '__exit__', '_decref_socketios')}
CLOSE = ['close', '_real_close', '_detach_socket', '_drop_events_and_close',
         '_drop_ref_on_close']

frames = functools.partial(helpers.frames, STEPS)


@pytest.fixture
def pair(impl):
    """``pair(…)`` makes a gevent socket and the other end of its connection."""
    with contextlib.ExitStack() as stack:
        def make(cls=socket.socket, **kwargs):
            one, other = native.socketpair(**kwargs)
            stack.callback(other.close)
            other.settimeout(5)
            sock = cls(one.family, one.type, one.proto, fileno=one.detach())
            stack.callback(quietly, sock)
            return sock, other
        yield make


def quietly(sock):
    with contextlib.suppress(OSError, AttributeError, TypeError, RecursionError):
        sock.close()


def expected(impl, names):
    """What is seen of gevent's functions."""
    return names if impl.stock else with_ours(names)


def with_ours(names):
    """The same while the drop-in is installed."""
    return names[:FRAMES_OF_CLOSE] if is_on('closing') else names


@pytest.mark.fast_path('sockets', 'closing')
def test_closing_is_on(impl):
    """For ours, once gevent.server is there."""
    assert is_on('closing') is not impl.stock


@pytest.mark.parametrize('kind', [
    {}, {'type': native.SOCK_DGRAM}, {'type': native.SOCK_SEQPACKET}])
def test_closed_socket(impl, pair, kind):
    """What is left of it."""
    sock, other = pair(**kind)
    family, type_, fd, raw = sock.family, sock.type, sock.fileno(), sock._sock
    assert frames(sock.close) == expected(impl, CLOSE)
    assert sock._closed is True and sock.closed is True and sock._io_refs == 0
    assert sock._read_event is None and sock._write_event is None
    assert sock.hub is get_hub() and sock.timeout is None
    proxy = sock._sock
    assert type(proxy) is _socket3._closedsocket and not proxy
    assert (proxy.family, proxy.type, proxy.proto, proxy.orig_fileno, proxy.description) == (
        family, type_, 0, fd, 'closed')
    assert (sock.family, sock.type, sock.fileno()) == (family, type_, -1)
    assert raw.fileno() == -1 and not is_open(fd)
    if type_ != native.SOCK_DGRAM:
        assert other.recv(1) == b''
    with pytest.raises(OSError) as info:
        sock.recv(1)
    assert info.value.errno == errno.EBADF


def test_closed_again(impl, pair):
    """Nothing happens; a descriptor with the same number stays open."""
    sock, _ = pair()
    fd = sock.fileno()
    assert sock.close() is None
    proxy, other = sock._sock, os.dup(0)
    try:
        assert frames(sock.close) == expected(impl, CLOSE[:2])
        assert sock._sock is proxy and proxy.orig_fileno == fd and is_open(other)
    finally:
        os.close(other)


def test_context_manager(impl, pair):
    sock, other = pair()
    assert frames(sock.__exit__, None, None, None) == ['__exit__'] + expected(impl, CLOSE)
    assert sock.closed and other.recv(1) == b''
    assert frames(sock.__exit__, None, None, None) == ['__exit__']


def test_open_files(impl, pair):
    """The connection lives until the last of them is closed."""
    sock, other = pair()
    first, second = sock.makefile('wb'), sock.makefile('rb')
    assert frames(sock.close) == expected(impl, CLOSE[:1])
    assert sock._closed is True and sock._io_refs == 2 and sock._read_event is not None
    assert type(sock._sock) is _socket3._wrefsocket and is_open(sock.fileno())
    first.write(b'still there')
    assert frames(first.close) == ['_decref_socketios'] + expected(impl, CLOSE[:1])
    assert other.recv(100) == b'still there'
    assert frames(second.close) == ['_decref_socketios'] + expected(impl, CLOSE)
    assert sock._io_refs == 0 and not sock._sock and other.recv(1) == b''


def test_raw_socket_closed_first(impl, pair):
    """As gevent.pywsgi does."""
    sock, other = pair()
    sock._sock.close()
    assert other.recv(1) == b''
    assert frames(sock.close) == expected(impl, CLOSE)
    assert sock._sock.orig_fileno == -1 and sock._sock.description == 'closed'


def test_descriptor_closed_behind_the_back(impl, pair):
    """EBADF, and the socket counts as closed, but its raw socket is still there."""
    sock, _ = pair()
    os.close(sock.fileno())
    with pytest.raises(OSError) as info:
        sock.close()
    assert (type(info.value), info.value.errno) == (OSError, errno.EBADF)
    assert sock._closed is True and type(sock._sock) is _socket3._wrefsocket
    assert sock._read_event is None and sock._sock.fileno() == -1
    sock.close()
    assert sock._sock.description == 'closed'


def test_detached(pair):
    """The descriptor is the caller's."""
    sock, other = pair()
    fd = sock.detach()
    sock.close()
    assert is_open(fd) and sock._sock.description == 'detached'
    os.close(fd)
    assert other.recv(1) == b''


def test_socket_lives_until_it_is_closed(impl):
    """As long as a waiter on it has not been told, even if nobody else refers to it."""
    one, other = native.socketpair()
    sock = socket.socket(one.family, one.type, fileno=one.detach())
    fd, alive, watcher, seen = sock.fileno(), weakref.ref(sock), sock._read_event, []

    def wait():
        try:
            get_hub().wait(watcher)
        except OSError as ex:
            seen.append((type(ex), is_open(fd)))
    greenlet = gevent.spawn(wait)
    until(lambda: watcher.active)
    sock.close()
    del sock
    gc.collect()
    assert alive() is not None and is_open(fd) and seen == []
    greenlet.join()
    until(lambda: not is_open(fd))
    gc.collect()
    assert seen == [(cancel_wait_ex, True)] and alive() is None
    assert other.recv(1) == b''
    other.close()


def test_hub_of_the_program(impl, pair):
    """The hub that the socket has does the work."""
    sock, other = pair()
    hub, calls, raw, events = get_hub(), [], sock._sock, (sock._read_event, sock._write_event)

    class Hub:
        loop = hub.loop

        def cancel_waits_close_and_then(self, watchers, error, then, *args):
            calls.append((watchers, error, args[-1], sock._closed, sock._read_event, sock._sock))
            return hub.cancel_waits_close_and_then(watchers, error, then, *args)
    sock.hub = Hub()
    sock.close()
    assert calls == [(events, cancel_wait_ex, raw, True, None, raw)]
    assert other.recv(1) == b'' and sock._sock.description == 'closed'


def test_in_another_thread(pair):
    """A thread without a hub of its own."""
    sock, other = pair()
    thread = threading.Thread(target=sock.close)
    thread.start()
    thread.join(10)
    until(lambda: not sock._sock)
    assert sock.closed and other.recv(1) == b''


# -- what is not a plain socket, or not a plain call ----------------------------------------

class Mine(socket.socket):
    def close(self):
        super().close()
        self.asked = True


class Detaches(socket.socket):
    def _detach_socket(self, reason):
        self.reason = reason
        super()._detach_socket(reason)


def test_subclasses(pair):
    """Their methods are called."""
    sock, other = pair(Mine)
    sock.close()
    assert sock.asked is True and other.recv(1) == b''
    sock, other = pair(Detaches)
    assert frames(sock.close) == CLOSE
    assert sock.reason == 'closed' and other.recv(1) == b''


def test_tls_socket(pair):
    """Is of another class."""
    sock, other = pair()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    wrapped = context.wrap_socket(sock, do_handshake_on_connect=False)
    assert isinstance(wrapped, socket.socket)
    wrapped.close()
    assert wrapped.closed and other.recv(1) == b''


def test_the_function_stays_as_it_is(impl):
    """Whatever one can see of it."""
    close = socket.socket.close
    assert type(close) is type(lambda: None) and vars(socket.socket)['close'] is close
    assert close.__qualname__ == 'socket.close' and close.__module__ == 'gevent._socket3'
    assert str(inspect.signature(close)) == '(self)' and close.__defaults__ is None
    assert 'def close(self):' in inspect.getsource(close)


def events(function, *args, **kwargs):
    """What a tracer sees of it, and its result."""
    seen = []

    def trace(frame, event, arg):
        if frame.f_code.co_name == function.__name__:
            seen.append((event, frame.f_lineno))
        return trace
    former = sys.gettrace()
    sys.settrace(trace)
    try:
        result = function(*args, **kwargs)
    except LookupError as ex:
        result = ex.args, [line for _, line in traceback.walk_tb(ex.__traceback__)][1:]
    finally:
        sys.settrace(former)
    return seen, result


def test_traced(impl):
    """Whoever traces lines sees those of the function, one after the other."""
    lines, start = inspect.getsourcelines(socket.socket.close)
    first, *body = [number for number, line in enumerate(lines, start)
                    if line.strip() and '#' not in line]
    assert events(socket.socket.close, Namesake()) == (
        [('call', first), *[('line', number) for number in body], ('return', body[-1])], None)


def test_unusual_calls(pair):
    """By keyword, unbound, with too much, with the wrong thing."""
    sock, other = pair()
    with pytest.raises(TypeError, match='takes 1 positional argument but 2 were given'):
        sock.close(1)
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'self'"):
        socket.socket.close()
    with pytest.raises(AttributeError, match='_io_refs|_closed'):
        socket.socket.close(object())
    assert not sock.closed
    socket.socket.close(self=sock)
    assert sock.closed and other.recv(1) == b''
    sock, other = pair()
    socket.socket.close(sock)
    assert sock.closed and other.recv(1) == b''
    sock, other = pair()
    socket.socket.close(*[sock], **{})
    assert sock.closed and other.recv(1) == b''


class Namesake:
    """Has what close() asks for."""

    _io_refs, closed_by = 0, None

    def _real_close(self):
        self.closed_by = '_real_close'


def test_called_with_something_else(impl):
    """It is a Python function after all."""
    thing = Namesake()
    socket.socket.close(thing)
    assert thing.closed_by == '_real_close' and thing._closed is True


@pytest.mark.parametrize('value', [-1, 1.5, True, 2 ** 100, None, 'x'])
def test_odd_numbers_of_files(pair, value):
    """What is no plain count of files is compared as gevent compares it."""
    sock, other = pair()
    sock._io_refs = value
    try:
        few = value <= 0
    except TypeError:
        with pytest.raises(TypeError):
            sock.close()
        few = False
    else:
        sock.close()
    assert sock._closed is True and (not sock._sock) is few
    sock._io_refs = 0
    sock.close()
    assert not sock._sock and other.recv(1) == b''


@pytest.mark.parametrize('name', ['_io_refs', '_sock', 'hub', '_read_event', '_write_event'])
def test_slots_deleted(pair, name):
    """AttributeError, as for any object."""
    sock, _ = pair()
    raw = sock._sock
    delattr(sock, name)
    with pytest.raises((AttributeError, RecursionError)):
        sock.close()
    assert sock._closed is True
    raw.close()


# -- servers --------------------------------------------------------------------------------

@pytest.mark.parametrize('spawn', ['default', gevent.spawn_raw, 5, None])
def test_handlers_that_close(impl, serve, errors, spawn):
    """The client sees the end, and what do_close() does afterwards does no harm."""
    seen = []

    def handle(sock, address):
        fd = sock.fileno()
        sock.sendall(b'bye')
        sock.close()
        seen.append((sock.closed, is_open(fd)))
    one = serve(impl.StreamServer(LOOPBACK, handle, spawn=spawn))
    for _ in range(3):
        assert read_all(connect(one)) == b'bye'
    assert seen == [(True, False)] * 3 and errors == []


@pytest.mark.fast_path('lookups', 'sockets', 'closing')
def test_no_python_of_gevent_runs(impl, serve):
    """Between the handler's close() and the end of its greenlet, for the closed socket."""
    found = []

    def handle(sock, address):
        found.append(frames(sock.close))
    one = serve(impl.StreamServer(LOOPBACK, handle))
    read_all(connect(one))
    assert found == [expected(impl, CLOSE)]


PATCHES = {'close': 2, '_real_close': 2, '_detach_socket': 1, '_drop_events_and_close': 1,
           '_drop_ref_on_close': 1, '__bool__': 1}

PATCHED = '''
    import sys
    import socket as native
    from gevent import server, socket, _socket3, _socketcommon
    name, how = sys.argv[1:]
    seen = []
    one = server.StreamServer(('127.0.0.1', 0), lambda sock, address: sock.close(), spawn=None)
    one.init_socket()

    def connection():
        client = native.create_connection(one.address)
        one._do_read()
        client.recv(1)
        client.close()
        count = len(seen)
        del seen[:]
        return count
    counts = [connection()]
    owner = {'__bool__': _socket3._closedsocket,
             '_drop_events_and_close': _socketcommon.SocketMixin}.get(name, socket.socket)
    original = getattr(owner, name)
    if how == 'attribute':
        def patched(self, *args, **kwargs):
            seen.append(name)
            return original(self, *args, **kwargs)
        setattr(owner, name, patched)
        counts += [connection(), connection()]
        setattr(owner, name, original)
    else:
        import types
        code = original.__code__
        copy = types.FunctionType(code, original.__globals__, name, original.__defaults__)

        def patched(self, *args, **kwargs):
            import sys
            main = sys.modules['__main__']
            main.seen.append(main.name)
            return main.copy(self, *args, **kwargs)
        original.__code__ = patched.__code__
        counts += [connection(), connection()]
        original.__code__ = code
    counts.append(connection())
    one.close()
    print(counts)
'''


@pytest.mark.parametrize('how', ['attribute', 'code'])
@pytest.mark.parametrize('name', PATCHES)
def test_patched(impl, tmp_path, name, how):
    """Whatever is put on gevent's classes, at any time, is called: by the handler's close(), and
    again by the server's.
    """
    times = PATCHES[name]
    assert isolated(impl, tmp_path, PATCHED, name, how) == [str([0, times, times, 0])]


@pytest.mark.parametrize('owner', ['class', 'hub'])
def test_hub_whose_closing_is_another(impl, pair, monkeypatch, owner):
    """It is told what gevent tells it."""
    hub, seen = get_hub(), []
    original = hub.cancel_waits_close_and_then

    def close(watchers, exc_kind, then, then_arg):
        seen.append((watchers, exc_kind, then, then_arg))
        return original(watchers, exc_kind, then, then_arg)
    if owner == 'hub':
        monkeypatch.setattr(hub, 'cancel_waits_close_and_then', close, raising=False)
    else:
        monkeypatch.setattr(type(hub), 'cancel_waits_close_and_then',
                            lambda self, *args: close(*args), raising=False)
    for _ in range(2):
        sock, other = pair()
        raw, watchers = sock._sock, (sock._read_event, sock._write_event)
        sock.close()
        assert seen == [(watchers, cancel_wait_ex, sock._drop_ref_on_close, raw)]
        until(lambda: raw.fileno() < 0)
        assert other.recv(1) == b''
        del seen[:]


# -- install() and uninstall() ----------------------------------------------------------------

def test_uninstall_gives_it_back():
    """And install() takes it again."""
    import gevent_cbase
    for _ in range(3):
        gevent_cbase.install()
        try:
            one, other = socket.socketpair()
            assert frames(one.close) == with_ours(CLOSE)
        finally:
            gevent_cbase.uninstall()
        assert frames(other.close) == CLOSE


def does_nothing(self):
    pass


def test_uninstall_leaves_what_came_after():
    """Code that somebody else gives to the function while the drop-in is installed."""
    import gevent_cbase
    close = socket.socket.close
    before = close.__code__
    gevent_cbase.install()
    try:
        one, other = socket.socketpair()
        installed = close.__code__
        close.__code__ = does_nothing.__code__
        one.close()
        assert not one.closed
        gevent_cbase.uninstall()
        assert close.__code__ is does_nothing.__code__
        close.__code__ = installed
        assert frames(one.close) == CLOSE and one.closed
        gevent_cbase.install()
        assert frames(other.close) == with_ours(CLOSE)
    finally:
        gevent_cbase.uninstall()
    assert close.__code__ is before


FRAMES = '''
    import sys
    import gevent.socket
    import gevent_cbase
    from gevent_cbase._native import sockets
    names = []

    def see(frame, event, arg):
        if event == 'call':
            names.append(frame.f_code.co_name)

    def closing():
        one, other = gevent.socket.socketpair()
        del names[:]
        sys.setprofile(see)
        one.close()
        sys.setprofile(None)
        other.close()
        return '_real_close' in names
'''


def test_only_with_servers():
    """A program that has not loaded gevent.server keeps its own close(), until it does."""
    code = textwrap.dedent(FRAMES) + textwrap.dedent('''
        gevent_cbase.install()
        print(closing(), 'gevent.server' in sys.modules)
        import gevent.server
        gevent.server.StreamServer(('127.0.0.1', 0), print)
        print(closing() == (sockets.why_closing_off() is not None))
    ''')
    done = subprocess.run([sys.executable, '-c', code], env=child_environ(), text=True,
                          capture_output=True, timeout=60)
    assert (done.stdout, done.stderr) == ('True False\nTrue\n', '')


def test_not_without_install():
    """Servers made of our class by a direct import leave gevent's sockets alone."""
    code = textwrap.dedent(FRAMES) + textwrap.dedent('''
        from gevent_cbase.baseserver import BaseServer
        BaseServer(('127.0.0.1', 0), print)
        import gevent.server
        print(closing(), sockets.why_closing_off())
    ''')
    done = subprocess.run(
        [sys.executable, '-c', code], env=child_environ(GEVENT_CBASE_WITHOUT=''), text=True,
        capture_output=True, timeout=60)
    assert done.stderr == '' and done.stdout in (
        'True install() was not called\n', 'True not built on this platform\n')


# -- a code object that begins with a call, on CPython 3.11 ---------------------------------------

def classify(value, *more, limit=10, **options):
    """Loops, jumps both ways, comprehensions, a call over several lines."""
    found = []
    for number in range(value):
        if number % 3 == 0:
            continue
        while number > limit:
            number -= 4
        found.append(
            number,
        )
    else:
        found += [2 * one for one in more] + sorted(options)
    return found if found else None


def refuse(value):
    raise LookupError(value)


def count(value):
    yield value


def guard(value):
    try:
        return int(value)
    except ValueError:
        return None


def outer(value):
    return lambda: value


def nothing():
    pass


if sys.version_info[:2] == (3, 11):
    from gevent_cbase._native.function_calls import beginning_with

    class Mark:
        """Compared with the parameters of a function: what a function says of them."""

        def __init__(self, decide):
            self.decide = decide

        def __eq__(self, other):
            return self.decide(other)

    def with_beginning(function, decide):
        code = beginning_with(Mark(decide), function.__code__)
        return types.FunctionType(code, function.__globals__, function.__name__,
                                  function.__defaults__)

    @pytest.mark.parametrize('function', [classify, refuse, guard])
    @pytest.mark.parametrize('value', [0, 1, 30])
    def test_goes_on_as_ever(function, value):
        """If the mark says False: same result, same events, same lines in tracebacks."""
        asked = []
        copy = with_beginning(function, lambda parameters: asked.append(parameters[0]) or False)
        copy.__kwdefaults__ = function.__kwdefaults__
        options = {'x': 1, 'limit': 5} if function is classify else {}
        for _ in range(20):  # the interpreter specializes code that runs often
            assert events(copy, value, **options) == events(function, value, **options)
        assert asked == [value] * 20
        assert (list(copy.__code__.co_positions())[-5:]
                == list(function.__code__.co_positions())[-5:])

    def test_done():
        """What else it says is what is returned, and nothing else runs."""
        copy = with_beginning(refuse, lambda parameters: callable(parameters[0]) and 'done')
        for _ in range(20):
            assert copy(len) == 'done'
        with pytest.raises(LookupError):
            copy(1)

    def test_comparison_that_fails():
        """Its error has the function's first line in the traceback."""
        with pytest.raises(TypeError) as caught:
            with_beginning(refuse, abs)(1)
        tb = caught.tb.tb_next
        assert tb.tb_frame.f_code.co_name == 'refuse'
        assert tb.tb_next.tb_frame.f_code is Mark.__eq__.__code__ and tb.tb_next.tb_next is None
        assert tb.tb_lineno == refuse.__code__.co_firstlineno + 1

    @pytest.mark.parametrize('function', [count, outer, outer(1), nothing])
    def test_other_kinds_of_code(function):
        """Are refused."""
        with pytest.raises(ValueError, match='^code of an unknown kind$'):
            beginning_with(len, function.__code__)

    def test_code_of_another_kind_is_left_alone(monkeypatch):
        """With nothing but closing off."""
        from gevent_cbase._native import function_calls
        monkeypatch.setattr(function_calls, '_unknown', {})
        monkeypatch.setattr(function_calls, '_given', {})
        code = count.__code__
        assert function_calls._give_code('socket.close', count, code) is code
        assert count.__code__ is code and function_calls._given == {}
        assert function_calls.unknown(['socket.close']) == 'code of an unknown kind'
