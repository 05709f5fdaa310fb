"""Errors of accepting and spawning: how they are reported, the pause after them, fatal ones.

Most tests run the batches themselves, on a server with a fake loop (see helpers.by_hand).
"""
import decimal
import errno
import fractions
import gc
import inspect
import math
import sys
import traceback
import types

import gevent
import pytest
from gevent import get_hub, socket

from helpers import (
    LOOPBACK, PAUSE, ask, batch, by_hand, connect_natively, contexts, echo, raising, resumed,
    until)

BASE_EXCEPTIONS = [KeyboardInterrupt, SystemExit, GeneratorExit, gevent.GreenletExit,
                   gevent.Timeout, BaseException]


# -- reports -----------------------------------------------------------------------------

def test_what_handle_error_gets_for_do_read(impl):
    """The server, type, value and traceback of the exception, which is being handled."""
    calls, error = [], LookupError('nothing')
    server = by_hand(impl, [error])

    def handle_error(*args, **kwargs):
        calls.append((args, kwargs, sys.exc_info()))
    server.loop.handle_error = handle_error
    batch(server)
    (args, kwargs, info), = calls
    assert args[:3] == (server, LookupError, error) and len(args) == 4 and kwargs == {}
    assert args[3] is error.__traceback__ and info == args[1:]
    assert [frame.name for frame in traceback.extract_tb(args[3])][-1] == 'do_read'


def test_what_handle_error_gets_for_the_handler(impl):
    """The same with ``(arguments but the first, server)`` as context."""
    calls, error = [], LookupError('nothing')
    server = by_hand(impl, [(1, 2, 3)], handle=raising(error))

    def handle_error(*args):
        calls.append((args, sys.exc_info()))
    server.loop.handle_error = handle_error
    batch(server)
    (args, info), = calls
    assert args[:3] == (((2, 3), server), LookupError, error)
    assert args[3] is error.__traceback__ and info == args[1:]
    assert traceback.extract_tb(args[3])[-1].name == 'function'


class Pairs(dict):
    """A mapping that can be sliced."""

    def __getitem__(self, key):
        return (key.start, key.stop, key.step)


@pytest.mark.parametrize('result, rest', [
    ((1,), ()), ((1, 2, 3), (2, 3)), ([1, 2, 3], [2, 3]), ('abc', 'bc'), (b'abc', b'bc'),
    (range(1, 4), range(2, 4)), (bytearray(b'ab'), bytearray(b'b')),
    (Pairs(a=1), (1, None, None))])
def test_context_is_a_slice_of_what_do_read_returned(impl, result, rest):
    """Sliced as it is, before any conversion to a tuple."""
    server = by_hand(impl, [result], spawn=raising(LookupError()))
    batch(server)
    (context, kind, value), = server.loop.errors
    assert context == (rest, server) and type(context[0]) is type(rest)
    assert type(context) is tuple and kind is LookupError


@pytest.mark.parametrize('result, kind', [
    (iter('abc'), TypeError), ({1, 2}, TypeError), ((n for n in 'ab'), TypeError)])
def test_result_that_cannot_be_sliced(impl, result, kind):
    """Such an iterable is fine until something fails: then the report fails in turn."""
    error = LookupError()
    server = by_hand(impl, [result], spawn=raising(error))
    with pytest.raises(kind, match='not subscriptable') as info:
        batch(server)
    assert contexts(info.value) == [info.value, error]
    assert server.loop.errors == [] and server.log[2:] == resumed(impl)


def test_client_is_closed_before_the_error_is_reported(impl):
    """Order of a failed spawn: do_close, report, stop accepting, timer."""
    server = by_hand(impl, [(1, 2), (3, 4)], spawn=raising(LookupError()))
    assert batch(server) == ['read', ('close', 1, 2), 'error'] + PAUSE
    assert server.delay == 0.02


def test_client_of_a_handler_that_fails_in_the_batch_is_closed_twice(impl):
    """With spawn=None once by what runs the handler, once by do_handle."""
    server = by_hand(impl, [(1,), (2,)], handle=raising(LookupError()))
    assert batch(server) == ['read', ('close', 1), ('close', 1), 'error'] + PAUSE


def test_error_of_do_handle_itself(impl):
    """An override that raises: reported in the same way, nobody closes the client."""
    error = LookupError()
    server = by_hand(impl, [(1, 2)], do_handle=raising(error))
    assert batch(server) == ['read', 'error'] + PAUSE
    assert server.loop.errors == [(((2,), server), LookupError, error)]


def test_is_fatal_error_is_not_asked_about_handling(impl):
    """Only what do_read raises may end the server."""
    server = by_hand(impl, [(1,)], handle=raising(OSError(errno.EBADF, 'bad')),
                     is_fatal_error=raising(AssertionError))
    assert batch(server) == ['read', ('close', 1), ('close', 1), 'error'] + PAUSE
    assert server.started


def test_spawn_that_cannot_be_called(impl):
    """A TypeError like any other error of spawning; the client is closed."""
    server = by_hand(impl, [(1,)], spawn=0.5)
    assert batch(server) == ['read', ('close', 1), 'error'] + PAUSE
    (context, kind, value), = server.loop.errors
    assert kind is TypeError and str(value) == "'float' object is not callable"


def test_handle_error_is_looked_up_before_the_context_is_made(impl, unraisable):
    """A loop without handle_error: that AttributeError, not the one of slicing, goes out."""
    class Result(list):
        def __getitem__(self, index):
            raise AssertionError('not reached')
    server = by_hand(impl, [Result([1])], spawn=raising(LookupError()))
    server.loop = types.SimpleNamespace()
    with pytest.raises(AttributeError, match='handle_error') as info:
        server._do_read()
    assert type(info.value.__context__) is LookupError
    assert unraisable == ([] if impl.stock else [AttributeError])  # no loop to resume by


# -- the pause ---------------------------------------------------------------------------

def timers(server):
    """The delays of all timers asked for so far."""
    return [entry[1] for entry in server.log if isinstance(entry, tuple) and entry[0] == 'timer']


@pytest.mark.parametrize('lowest, highest, expected', [
    (0.01, 1, [0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1, 1]),
    (0.5, 1, [0.5, 1, 1]),
    (0.25, 1.0, [0.25, 0.5, 1.0, 1.0]),
    (1, 10, [1, 2, 4, 8, 10, 10]),
    (1, 8, [1, 2, 4, 8, 8]),
    (1.0, 8, [1.0, 2.0, 4.0, 8, 8]),
    (3, 1, [3, 1, 1]),
    (0, 1, [0, 0, 0]),
    (0.0, 1, [0.0, 0.0, 0.0]),
    (True, 5, [True, 2, 4, 5]),
    (1, math.inf, [1, 2, 4, 8]),
    (fractions.Fraction(1, 3), 1, [fractions.Fraction(1, 3), fractions.Fraction(2, 3), 1, 1]),
    (decimal.Decimal('0.3'), 1, [decimal.Decimal('0.3'), decimal.Decimal('0.6'), 1, 1]),
    (1 << 70, 1 << 71, [1 << 70, 1 << 71, 1 << 71])])
def test_delays_of_consecutive_errors(impl, lowest, highest, expected):
    """Doubled up to max_delay, exactly and with their types; equal counts as max_delay."""
    server = by_hand(impl, [LookupError()] * len(expected), min_delay=lowest, max_delay=highest)
    for _ in expected:
        server._do_read()
    assert timers(server) == expected
    assert [type(delay) for delay in timers(server)] == [type(delay) for delay in expected]


def test_delays_of_consecutive_spawn_errors(impl):
    """Each comes after a do_read that reset the delay: the pause stays the shortest one."""
    server = by_hand(impl, [(1,)] * 3, spawn=raising(LookupError()))
    for _ in range(3):
        server._do_read()
    assert timers(server) == [0.01, 0.01, 0.01] and server.delay == 0.02


def test_order_of_a_pause(impl):
    """Watcher stopped and forgotten before the timer is made; the delay doubled at the end."""
    server = by_hand(impl, [LookupError()])
    timer = server.loop.timer

    def make(delay):
        server.log.append((server._watcher, server._timer, server.delay))
        return timer(delay)
    server.loop.timer = make
    assert batch(server) == ['read', 'error', 'io.stop', 'io.close', (None, None, 0.01),
                             ('timer', 0.01), 'timer.start']
    assert server._timer is server.loop.watcher and server.delay == 0.02
    assert server._timer.callback == server._start_accepting_if_started


def test_timer_running_out(impl):
    """Its callback makes a new watcher; the timer itself stays until accepting stops."""
    server = by_hand(impl, [LookupError()])
    batch(server)
    timer = server._timer
    del server.log[:]
    timer.callback()
    assert server.log == [('io', 7, 1), 'io.start'] and server._timer is timer
    server.stop_accepting()
    assert server.log[2:] == ['io.stop', 'io.close', 'timer.stop', 'timer.close']
    assert server._timer is None


def test_timer_of_a_server_stopped_meanwhile(impl):
    """The callback of an old timer does nothing to a server that is not started."""
    server = by_hand(impl, [LookupError()])
    batch(server)
    callback = server._timer.callback
    server.stop()
    del server.log[:]
    assert callback() is None
    assert callback('any argument') is None
    assert server.log == [] and server._watcher is None


def test_resuming_is_looked_up_when_the_timer_starts(impl):
    """An override of _start_accepting_if_started is what the timer gets."""
    server = by_hand(impl, [LookupError()])
    server._start_accepting_if_started = 'whatever'
    batch(server)
    assert server._timer.callback == 'whatever'


@pytest.mark.parametrize('delay', [-1, -0.001, -math.inf, math.nan])
def test_no_pause_for_a_negative_delay(impl, delay):
    """Nor for one that compares with nothing: the watcher goes on, the delay stays."""
    server = by_hand(impl, [LookupError(), (1,), (2,)], min_delay=delay)
    watcher = server._watcher
    assert batch(server) == ['read', 'error']
    assert server._watcher is watcher and server._timer is None and server.delay is delay
    server.handle = server._handle = raising(LookupError())
    assert batch(server) == ['read', ('close', 1), ('close', 1), 'error']
    assert server._watcher is watcher and server._timer is None


def test_no_number_for_max_delay(impl):
    """min(nan, …) is nan, so the first pause is the last one."""
    server = by_hand(impl, [LookupError()] * 2, max_delay=math.nan)
    assert batch(server) == ['read', 'error'] + PAUSE
    assert server.delay is server.max_delay
    assert batch(server) == ['read', 'error']


def test_delay_set_by_the_program(impl):
    """On the instance before an error, in handle_error, and max_delay at any time."""
    server = by_hand(impl, [LookupError()] * 4)
    server.delay = 0.3
    server._do_read()
    server.max_delay = 0.75
    server._do_read()
    assert timers(server) == [0.3, 0.6] and server.delay == 0.75

    def handle_error(*args):
        server.delay = 7
    server.loop.handle_error = handle_error
    server._do_read()
    type(server).max_delay, server.max_delay = 100, 9
    server._do_read()
    assert timers(server) == [0.3, 0.6, 7, 7] and server.delay == 9


class Delay:
    """A delay that notes what is done with it."""

    def __init__(self, log):
        self.log = log

    def __ge__(self, other):
        self.log.append(('>=', other))
        return 'yes'

    def __mul__(self, other):
        self.log.append(('*', other))
        return self

    def __lt__(self, other):
        self.log.append(('<', other))
        return []

    __hash__ = None


def test_operations_on_a_delay(impl):
    """delay >= 0, then loop.timer(delay), then min(max_delay, delay * 2), that is ``<``."""
    server = by_hand(impl, [LookupError()])
    server.delay = delay = Delay(server.log)
    assert batch(server) == ['read', 'error', ('>=', 0), 'io.stop', 'io.close',
                             ('timer', delay), 'timer.start', ('*', 2), ('<', 1)]
    assert server.delay == 1


@pytest.mark.parametrize('delay, error', [
    (None, "'>=' not supported between instances of 'NoneType' and 'int'"),
    ('1', "'>=' not supported between instances of 'str' and 'int'"),
    (1j, "'>=' not supported between instances of 'complex' and 'int'")])
def test_delay_of_a_wrong_type(impl, delay, error):
    """Noticed after the report: the TypeError leaves the batch, its context is the error."""
    first = LookupError()
    server = by_hand(impl, [first])
    server.delay = delay
    with pytest.raises(TypeError) as info:
        batch(server)
    assert str(info.value) == error and contexts(info.value) == [info.value, first]
    assert server.log[:2] == ['read', 'error']
    if impl.stock:  # nothing will make it accept again; ours waits for a timer of its own
        assert server.log[2:] == [] and server._timer is None
    else:
        assert server._timer is server.loop.watcher and server.log[-1] == 'timer.start'


def test_max_delay_of_a_wrong_type(impl):
    """Noticed last: the timer is running by then, the delay stays as it was."""
    server = by_hand(impl, [LookupError()], max_delay='1')
    message = "'<' not supported between instances of 'float' and 'str'"
    with pytest.raises(TypeError, match=message):
        batch(server)
    assert server.log[:6] == ['read', 'error'] + PAUSE
    assert server.delay == 0.01 and server._timer is server.loop.watcher


def test_delay_that_a_real_loop_refuses(impl, serve, errors):
    """The timer cannot be made: the TypeError goes to the hub. Ours still accepts again."""
    class Broken(impl.StreamServer):
        fail = True

        def do_read(self):
            if self.fail:
                self.fail, self.delay = False, Refused()
                raise LookupError
            return super().do_read()

    class Refused:
        def __ge__(self, other):
            return True
    server = serve(Broken(LOOPBACK, echo))
    client = connect_natively(server)
    until(lambda: len(errors) == 2)
    assert errors[0][1] is LookupError and errors[1][1] is TypeError
    if impl.stock:
        assert server._watcher is None and server._timer is None
    else:
        assert ask(server) == b'ping'
    client.close()


def test_real_pause(impl, serve, errors):
    """On a real loop: delays doubling over three errors, then the waiting client is served."""
    delays = []

    class Flaky(impl.StreamServer):
        min_delay = 0.003

        def do_read(self):
            delays.append(self.delay)
            if len(delays) <= 3:
                raise OSError(errno.EMFILE, 'too many')
            return super().do_read()
    server = serve(Flaky(LOOPBACK, echo))
    assert ask(server) == b'ping'
    assert delays[:4] == [0.003, 0.006, 0.012, 0.024] and server.delay == 0.003
    assert [entry[:2] for entry in errors] == [(server, OSError)] * 3


# -- fatal errors ------------------------------------------------------------------------

def fatal_line(capsys):
    """All that was written to stderr."""
    return capsys.readouterr().err


@pytest.mark.parametrize('code', [errno.EBADF, errno.EINVAL, errno.ENOTSOCK])
def test_fatal_errors(impl, capsys, code):
    """Reported, server closed, then a line on stderr about the closed server."""
    server = by_hand(impl, [OSError(code, 'gone')])
    assert batch(server) == ['read', 'error', 'io.stop', 'io.close']
    assert server.closed and not server.started and server._timer is None
    assert server.delay == 0.01
    assert fatal_line(capsys) == (
        'ERROR: <Server address=127.0.0.1:80> failed with [Errno %d] gone\n' % code)


@pytest.mark.parametrize('error', [
    OSError(errno.EMFILE, 'many'), OSError(errno.ECONNABORTED, 'aborted'), OSError('EBADF'),
    ValueError(errno.EBADF), KeyError(errno.EBADF), KeyboardInterrupt(errno.EBADF),
    Exception(errno.EBADF, 'bad'), BlockingIOError(errno.EAGAIN, 'again')])
def test_errors_that_are_not_fatal(impl, capsys, error):
    """Other codes, and other types whatever their arguments: a pause."""
    server = by_hand(impl, [error])
    assert batch(server) == ['read', 'error'] + PAUSE
    assert server.started and fatal_line(capsys) == ''


class Broken(OSError):
    """Some library's own socket error."""


def test_subclasses_of_os_error_are_fatal(impl):
    """All of them; only args[0] counts, not errno."""
    for error in (Broken(errno.EBADF, 'x'), ConnectionError(errno.EINVAL, 'x')):
        server = by_hand(impl, [error])
        batch(server)
        assert server.closed
    error = OSError(errno.EMFILE, 'x')
    error.args = (errno.EBADF,)
    assert error.errno == errno.EMFILE
    server = by_hand(impl, [error])
    batch(server)
    assert server.closed
    error = OSError(errno.EBADF, 'x')
    error.args = ('nothing',)
    server = by_hand(impl, [error])
    batch(server)
    assert not server.closed


@pytest.mark.parametrize('where', ['subclass', 'class', 'instance'])
def test_fatal_errors_is_looked_up_at_each_error(impl, where, capsys):
    """Any container will do."""
    steps = [OSError(errno.EBADF, 'bad'), OSError(errno.EMFILE, 'many')]
    if where == 'subclass':
        server = by_hand(impl, steps, fatal_errors={errno.EMFILE: 'x'})
    else:
        server = by_hand(impl, steps)
        setattr(type(server) if where == 'class' else server, 'fatal_errors', {errno.EMFILE})
    batch(server)
    assert server.started
    batch(server)
    assert server.closed and fatal_line(capsys).endswith(' failed with [Errno 24] many\n')


@pytest.mark.parametrize('where', ['class', 'instance'])
def test_is_fatal_error_overridden(impl, where, capsys):
    """Asked once for each error, with the exception, while it is being handled; any true
    answer counts."""
    def is_fatal_error(*args):
        server.log.append(('fatal?', len(args), args[-1], sys.exc_info()[1]))
        return [0] if args[-1] is errors[1] else ''
    errors = [OSError(errno.EBADF, 'bad'), LookupError('mine')]
    server = by_hand(impl, errors)
    setattr(type(server) if where == 'class' else server, 'is_fatal_error', is_fatal_error)
    count = 2 if where == 'class' else 1
    assert batch(server) == ['read', 'error', ('fatal?', count, errors[0], errors[0])] + PAUSE
    assert batch(server) == ['read', 'error', ('fatal?', count, errors[1], errors[1]),
                             'timer.stop', 'timer.close']
    assert server.closed
    assert fatal_line(capsys) == 'ERROR: <Server address=127.0.0.1:80> failed with mine\n'


@pytest.mark.parametrize('error, text', [
    (KeyError(), 'KeyError()'), (KeyError('k'), "'k'"), (ValueError(''), "ValueError('')"),
    (ValueError('some text'), 'some text'), (KeyboardInterrupt(), 'KeyboardInterrupt()'),
    (OSError(errno.EBADF, ''), '[Errno 9] '), (ValueError('ü€😀'), 'ü€😀')])
def test_text_of_a_fatal_error(impl, capsys, error, text):
    """str() of the error, its repr() if that is empty."""
    server = by_hand(impl, [error], is_fatal_error=lambda self, ex: True)
    batch(server)
    assert fatal_line(capsys) == (
        'ERROR: <Server address=127.0.0.1:80> failed with %s\n' % text)


def test_server_in_the_fatal_line(impl, capsys):
    """Its str() when it is closed; do_close, _formatinfo and __str__ may be overridden."""
    server = by_hand(impl, [OSError(errno.EBADF, 'x')], _formatinfo=lambda self: 'in short')
    batch(server)
    assert fatal_line(capsys) == 'ERROR: <Server in short> failed with [Errno 9] x\n'
    server = by_hand(impl, [OSError(errno.EBADF, 'x')],
                     __str__=lambda self: 'closed' if self.closed else 'open')
    batch(server)
    assert fatal_line(capsys) == 'ERROR: closed failed with [Errno 9] x\n'


def test_close_overridden(impl, capsys):
    """A fatal error calls close() of the subclass; what it does is its business."""
    server = by_hand(impl, [OSError(errno.EBADF, 'x')],
                     close=lambda self: self.log.append('my close'))
    assert batch(server) == ['read', 'error', 'my close']
    assert server.started and fatal_line(capsys).startswith('ERROR: <Server fileno=7 address=')
    type(server).close = impl.BaseServer.close
    server.close()


class Stream:
    """A stand-in for sys.stderr."""

    def __init__(self, log):
        self.log = log

    def write(self, text):
        self.log.append(text)
        return NotImplemented


def test_stderr_is_the_one_of_that_moment(impl, monkeypatch):
    """One write() of one line, by the sys.stderr there is after closing; no flush."""
    server = by_hand(impl, [OSError(errno.EBADF, 'x')])
    close = server.close

    def replace():
        close()
        monkeypatch.setattr(sys, 'stderr', Stream(server.log))
    server.close = replace
    assert batch(server) == [
        'read', 'error', 'io.stop', 'io.close',
        'ERROR: <Server address=127.0.0.1:80> failed with [Errno 9] x\n']


@pytest.mark.parametrize('stderr, message', [
    (None, "'NoneType' object has no attribute 'write'"),
    (7, "'int' object has no attribute 'write'")])
def test_stderr_that_cannot_be_written_to(impl, monkeypatch, stderr, message):
    """The server is closed; nobody is asked for texts; the AttributeError leaves the batch."""
    error = OSError(errno.EBADF, 'x')
    server = by_hand(impl, [error], __str__=raising(AssertionError('not asked')))
    with monkeypatch.context() as patch:
        patch.setattr(sys, 'stderr', stderr)
        with pytest.raises(AttributeError) as info:
            batch(server)
    assert str(info.value) == message and info.value.__context__ is error
    assert server.closed and server.log == ['read', 'error', 'io.stop', 'io.close']


def test_no_stderr_at_all(impl, monkeypatch):
    """Deleted from sys: an ordinary AttributeError."""
    server = by_hand(impl, [OSError(errno.EBADF, 'x')])
    with monkeypatch.context() as patch:
        patch.delattr(sys, 'stderr')
        with pytest.raises(AttributeError, match="module 'sys' has no attribute 'stderr'"):
            batch(server)
    assert server.closed


def test_stderr_that_raises(impl, monkeypatch):
    """The error of write() leaves the batch."""
    error = OSError(errno.EBADF, 'x')
    server = by_hand(impl, [error])
    with monkeypatch.context() as patch:
        patch.setattr(sys, 'stderr', types.SimpleNamespace(write=raising(LookupError('full'))))
        with pytest.raises(LookupError, match='full') as info:
            batch(server)
    assert contexts(info.value) == [info.value, error] and server.closed


@pytest.mark.parametrize('of_server', [False, True])
def test_texts_that_cannot_be_made(impl, of_server):
    """An error of str(), of the exception or of the server, leaves the batch."""
    class Mute(Exception):
        __str__ = raising(LookupError('no text'))
    error = KeyError() if of_server else Mute()
    server = by_hand(impl, [error], is_fatal_error=lambda self, ex: True)
    if of_server:
        type(server).__str__ = raising(LookupError('no text'))
    with pytest.raises(LookupError, match='no text') as info:
        batch(server)
    assert info.value.__context__ is error and server.closed


def test_fatal_error_ends_serve_forever(impl, errors, capsys):
    """With a real listener: the server closes itself and serve_forever returns."""
    class Gone(impl.StreamServer):
        def do_read(self):
            raise OSError(errno.ENOTSOCK, 'gone')
    server = Gone(LOOPBACK, echo)
    runner = gevent.spawn(server.serve_forever)
    until(lambda: server.started)
    client, port = connect_natively(server), server.server_port
    assert runner.get() is None
    assert server.closed and [entry[:2] for entry in errors] == [(server, OSError)]
    assert fatal_line(capsys) == (
        'ERROR: <Gone address=127.0.0.1:%d> failed with [Errno %d] gone\n'
        % (port, errno.ENOTSOCK))
    client.close()


# -- is_fatal_error ----------------------------------------------------------------------

@pytest.mark.parametrize('error, expected', [
    (OSError(errno.EBADF, ''), True), (OSError(errno.EINVAL), True),
    (OSError(errno.ENOTSOCK, 'a', 'b'), True), (OSError(9.0, ''), True),
    (OSError(errno.EMFILE, ''), False), (OSError(None), False), (OSError('9'), False),
    (Broken(errno.EBADF), True), (TimeoutError(errno.EBADF), True),
    (ValueError(errno.EBADF), False), (KeyError(), False), (BaseException(9), False),
    (9, False), (None, False), ((9,), False), (OSError, False)])
def test_is_fatal_error(impl, error, expected):
    """An OSError whose first argument is among fatal_errors; anything else is not."""
    server = impl.BaseServer(LOOPBACK, echo)
    assert server.is_fatal_error(error) is expected
    assert server.is_fatal_error(ex=error) is expected


def test_is_fatal_error_of_something_that_claims_to_be_an_os_error(impl):
    """isinstance() decides, so __class__ counts."""
    class Claims:
        __class__ = OSError
        args = [errno.EBADF]
    assert impl.BaseServer(LOOPBACK, echo).is_fatal_error(Claims()) is True


def test_is_fatal_error_that_fails(impl):
    """Arguments that cannot be indexed, fatal_errors that is no container."""
    class Claims:
        __class__ = OSError
        args = 9
    server = impl.BaseServer(LOOPBACK, echo)
    with pytest.raises(TypeError, match='not subscriptable'):
        server.is_fatal_error(Claims())
    server.fatal_errors = 5
    with pytest.raises(TypeError, match="argument of type 'int' is not"):
        server.is_fatal_error(OSError(9, ''))
    assert server.is_fatal_error(ValueError()) is False
    with pytest.raises(TypeError):
        server.is_fatal_error()
    with pytest.raises(TypeError):
        server.is_fatal_error(OSError(), 1)


@pytest.mark.stock_bug
def test_is_fatal_error_without_arguments(impl):
    """An OSError that has none is not fatal. gevent: IndexError."""
    server = impl.BaseServer(LOOPBACK, echo)
    if impl.stock:
        with pytest.raises(IndexError, match='tuple index out of range'):
            server.is_fatal_error(OSError())
    else:
        assert server.is_fatal_error(OSError()) is False


# -- BaseExceptions ----------------------------------------------------------------------

@pytest.mark.parametrize('kind', BASE_EXCEPTIONS)
def test_base_exceptions_are_reported_like_others(impl, kind):
    """In do_read, in the spawn function and in the handler: reported, then a pause."""
    error = kind()
    server = by_hand(impl, [error])
    assert batch(server) == ['read', 'error'] + PAUSE
    assert server.loop.errors == [(server, kind, error)]
    for method in (dict(spawn=raising(error)), dict(handle=raising(error))):
        server = by_hand(impl, [(1, 2)], **method)
        assert batch(server)[-5:] == ['error'] + PAUSE
        assert server.loop.errors == [(((2,), server), kind, error)]


@pytest.mark.parametrize('kind', [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize('where', ['do_read', 'spawn', 'handler'])
def test_system_errors_reach_the_main_greenlet(impl, serve, kind, where):
    """In the middle of the loop, thrown by the hub. When the main greenlet survives that and
    lets the hub go on, the server pauses and serves the next client."""
    class Flaky(impl.StreamServer):
        fail = True

        def check(self, place):
            if place == where and self.fail:
                self.fail = False
                raise kind(place)

        def do_read(self):
            self.check('do_read')
            return super().do_read()

    def spawn(function, *args):
        server.check('spawn')
        return gevent.spawn(function, *args)

    def handle(sock, address):
        server.check('handler')
        if where != 'handler':
            echo(sock, address)
    server = serve(Flaky(LOOPBACK, handle, spawn=None if where == 'handler' else spawn))
    first = connect_natively(server)
    with pytest.raises(kind) as info:
        gevent.sleep(8)
    assert info.value.args == (where,)
    assert server.started and server._watcher is not None and server._timer is None
    if where == 'do_read':
        first.sendall(b'ping')
    socket.wait_read(first.fileno())
    assert first.recv(9) == (b'ping' if where == 'do_read' else b'')
    first.close()
    if where == 'handler':
        assert ask(server, b'') == b''
    else:
        assert ask(server) == b'ping'


@pytest.mark.parametrize('where', ['do_read', 'spawn', 'handler'])
@pytest.mark.parametrize('kind', [gevent.GreenletExit, gevent.Timeout])
def test_other_base_exceptions_reach_the_hub(impl, serve, errors, kind, where):
    """GreenletExit and Timeout end nothing, wherever they come from: reported, then a pause."""
    error, steps = kind(), [True]

    def fail(place):
        if place == where and steps:
            steps.pop()
            raise error

    class Flaky(impl.StreamServer):
        def do_read(self):
            fail('do_read')
            return super().do_read()

    def spawn(function, *args):
        fail('spawn')
        return gevent.spawn(function, *args)

    def handle(sock, address):
        fail('handler')
        sock.sendall(b'served')
    server = serve(Flaky(LOOPBACK, handle, spawn=None if where == 'handler' else spawn))
    if where == 'do_read':
        assert ask(server, b'') == b'served'
    else:
        assert [ask(server, b'') for _ in range(2)] == [b'', b'served']
    (context, got, value), = errors
    assert got is kind and value is error
    assert context is server if where == 'do_read' else context[1] is server


# -- chains of exceptions, and nothing left behind ---------------------------------------

def test_do_close_that_fails_after_spawning_failed(impl):
    """Its error is the one reported; that of spawning is its context."""
    first, second = LookupError('spawn'), ValueError('close')
    server = by_hand(impl, [(1,)], spawn=raising(first), do_close=raising(second))
    assert batch(server) == ['read', 'error'] + PAUSE
    assert server.loop.errors == [(((), server), ValueError, second)]
    assert contexts(second) == [second, first]


def test_do_close_that_fails_after_a_handler_in_the_batch(impl):
    """It is called twice, each time with the error before as context."""
    first, later = LookupError('handler'), []

    def do_close(self, number):
        later.append(ValueError(len(later)))
        raise later[-1]
    server = by_hand(impl, [(1,)], handle=raising(first), do_close=do_close)
    assert batch(server) == ['read', 'error'] + PAUSE
    assert server.loop.errors == [(((), server), ValueError, later[1])]
    assert contexts(later[1]) == [later[1], later[0], first]


def test_do_close_that_fails_after_a_good_handler(impl):
    """Called once more by do_handle: the second error has the first as context."""
    errors = []

    def do_close(self, number):
        errors.append(ValueError(len(errors)))
        raise errors[-1]
    server = by_hand(impl, [(1,)], do_close=do_close)
    assert batch(server) == ['read', ('handle', 1), 'error'] + PAUSE
    assert [value for _, _, value in server.loop.errors] == errors[1:]
    assert contexts(errors[1]) == errors[::-1]


def test_do_close_sees_the_error(impl):
    """sys.exc_info() inside it shows what is being handled, or nothing after a good handler."""
    seen = []

    def do_close(self, *args):
        seen.append(sys.exc_info()[1])
    error = LookupError()
    batch(by_hand(impl, [(1,)], spawn=raising(error), do_close=do_close))
    batch(by_hand(impl, [(1,)], handle=raising(error), do_close=do_close))
    batch(by_hand(impl, [(1,)], do_close=do_close))
    assert seen == [error, error, error, None]


def test_handle_error_that_raises(impl):
    """Its error leaves the batch, what it was to report is the context. gevent makes no pause
    and asks nothing more; ours sees to it that accepting goes on."""
    for where in ('do_read', 'handler'):
        first, second = LookupError(), ValueError('broken')
        server = by_hand(impl, [first if where == 'do_read' else (1,)], handle=raising(first),
                         is_fatal_error=raising(AssertionError('not asked')))
        server.loop.handle_error = raising(second)
        with pytest.raises(ValueError) as info:
            batch(server)
        assert info.value is second and contexts(second) == [second, first]
        begin = ['read'] if where == 'do_read' else ['read', ('close', 1), ('close', 1)]
        assert server.log == begin + resumed(impl)


def test_handle_error_that_raises_without_a_pause(impl):
    """A negative delay: ours resumes by a timer of no length, the shortest that any loop
    takes. (In the batch itself would be too early: libuv stops the descriptor afterwards.)"""
    server = by_hand(impl, [LookupError()], min_delay=-1)
    server.loop.handle_error = raising(ValueError('broken'))
    with pytest.raises(ValueError, match='broken'):
        batch(server)
    assert server.log == ['read'] + resumed(
        impl, ['io.stop', 'io.close', ('timer', 0), 'timer.start'])
    assert server.delay == -1


@pytest.mark.stock_bug
def test_error_without_arguments(impl, serve):
    """It is reported once, as what it is, and the client is served after a pause. gevent reports
    an IndexError besides, and is deaf from then on.
    """
    hub, seen = get_hub(), []

    class Flaky(impl.StreamServer):
        def do_read(self):
            if not seen:
                raise OSError()
            return super().do_read()
    server = serve(Flaky(LOOPBACK, echo))
    hub.handle_error = lambda context, kind, value, tb: seen.append(kind)
    try:
        client = connect_natively(server)
        client.sendall(b'ping')
        until(lambda: len(seen) == 1 + impl.stock)
        if not impl.stock:
            answers = []
            gevent.spawn(lambda: answers.append(get_hub().threadpool.apply(client.recv, (9,))))
            until(lambda: answers)
            assert answers == [b'ping']
    finally:
        del hub.handle_error
        client.close()
    assert seen == ([OSError, IndexError] if impl.stock else [OSError])


def test_is_fatal_error_that_raises(impl):
    """The error goes up, with that of do_read() as context."""
    error = OSError(9, 'x')

    def is_fatal_error(self, ex):
        raise IndexError('tuple index out of range')
    server = by_hand(impl, [error], is_fatal_error=is_fatal_error)
    with pytest.raises(IndexError, match='tuple index out of range') as info:
        batch(server)
    assert contexts(info.value) == [info.value, error]
    assert server.log == ['read', 'error'] + resumed(impl)
    assert server.loop.errors == [(server, OSError, error)] and server.started


def test_verdict_without_a_truth_value(impl):
    """An error of bool() is like one of is_fatal_error."""
    class Unsure:
        def __bool__(self):
            raise ValueError('unsure')
    error = LookupError()
    server = by_hand(impl, [error], is_fatal_error=lambda self, ex: Unsure())
    with pytest.raises(ValueError, match='unsure') as info:
        batch(server)
    assert info.value.__context__ is error
    assert server.log == ['read', 'error'] + resumed(impl)


@pytest.mark.parametrize('name', ['stop_accepting', 'close'])
def test_steps_of_the_recovery_that_raise(impl, name):
    """stop_accepting() before a pause, close() after a fatal error: as they are."""
    error = OSError(errno.EBADF if name == 'close' else errno.EMFILE, 'x')
    server = by_hand(impl, [error])
    calls = []

    def once():
        if not calls:
            calls.append(name)
            raise ValueError(name)
        getattr(type(server), name)(server)
    setattr(server, name, once)
    with pytest.raises(ValueError, match=name) as info:
        batch(server)
    assert contexts(info.value) == [info.value, error] and calls == [name]
    assert server.log == ['read', 'error'] + resumed(impl)


def test_recovery_of_a_server_that_was_stopped(impl):
    """Nothing resumes a server that handle_error has stopped before it raised."""
    server = by_hand(impl, [LookupError()])

    def handle_error(*args):
        server.stop()
        raise ValueError('broken')
    server.loop.handle_error = handle_error
    with pytest.raises(ValueError, match='broken'):
        batch(server)
    assert server.log == ['read', 'io.stop', 'io.close'] and server._timer is None


def test_context_of_an_enclosing_exception(impl):
    """Run inside an except block, errors get that exception as their context."""
    outer, error = KeyError('outer'), LookupError('do_read')
    server = by_hand(impl, [error], is_fatal_error=raising(ValueError('fatal?')))
    try:
        raise outer
    except KeyError:
        with pytest.raises(ValueError) as info:
            batch(server)
        assert sys.exc_info()[1] is outer
    assert contexts(info.value) == [info.value, error, outer]


@pytest.mark.parametrize('steps, namespace', [
    ([LookupError()], {}),
    ([OSError(errno.EMFILE, 'x'), LookupError()], {}),
    ([(1,)], dict(handle=raising(LookupError()))),
    ([(1,)], dict(spawn=raising(LookupError()))),
    ([(1,)], dict(do_handle=raising(LookupError()))),
    ([None], {})])
def test_no_exception_is_left_behind(impl, steps, namespace):
    """sys.exc_info() afterwards is what it was: nothing, or that of the enclosing block."""
    server = by_hand(impl, steps * 2, **namespace)
    batch(server)
    assert sys.exc_info() == (None, None, None)
    outer = KeyError('outer')
    try:
        raise outer
    except KeyError:
        before = sys.exc_info()
        batch(server)
        assert sys.exc_info() == before and before[1] is outer
    assert sys.exc_info() == (None, None, None)


def test_exception_within_the_next_accept(impl):
    """After an error was dealt with in a batch within a batch, the outer handler sees none."""
    seen = []

    def handle(self, number):
        self._do_read()
        seen.append(sys.exc_info())
    server = by_hand(impl, [(1,), LookupError(), None], handle=handle)
    assert batch(server) == ['read', 'read', 'error'] + PAUSE + [('close', 1), 'read']
    assert seen == [(None, None, None)]


def test_exceptions_are_not_kept_alive(impl):
    """What was raised and reported is freed when the batch is over. In gevent it is part of
    a cycle with the frame of its loop and lives on until the collector comes."""
    class Marked(Exception):
        alive = 0

        def __init__(self):
            Marked.alive += 1

        def __del__(self):
            Marked.alive -= 1

    def do_read(self):
        raise Marked
    server = by_hand(impl, do_read=do_read)
    server.loop.handle_error = lambda *args: None
    for _ in range(3):
        batch(server)
        if impl.stock:
            gc.collect()
        assert Marked.alive == 0


# -- never deaf --------------------------------------------------------------------------

@pytest.mark.parametrize('delay', [0.005, -1, -1.0])
@pytest.mark.parametrize('culprit', ['handle_error', 'is_fatal_error', 'slice'])
def test_next_client_after_an_error_about_an_error(impl, serve, culprit, delay):
    """The second error reaches the hub. All of gevent's loops then stop the watcher of a
    callback that raised, so its server is deaf until someone restarts accepting; ours is not."""
    hub, seen = get_hub(), []

    class Flaky(impl.StreamServer):
        min_delay = delay

        def do_read(self):
            if seen:
                return super().do_read()
            if culprit == 'slice':
                return 7
            raise OSError() if culprit == 'is_fatal_error' else KeyError('first')

        def is_fatal_error(self, ex):
            return ex.args[0] == 9  # IndexError

    def handle_error(context, kind, value, tb):
        seen.append((kind, type(value.__context__)))
        if kind is KeyError:
            raise ValueError('broken')
    server = serve(Flaky(LOOPBACK, echo))
    hub.handle_error = handle_error
    try:
        client = connect_natively(server)
        client.sendall(b'ping')
        expected = {'handle_error': [(KeyError, type(None)), (ValueError, KeyError)],
                    'is_fatal_error': [(OSError, type(None)), (IndexError, OSError)],
                    'slice': [(TypeError, TypeError)]}[culprit]
        until(lambda: len(seen) == len(expected))
        assert seen == expected
    finally:
        del hub.handle_error
    assert server.started
    if impl.stock:
        # with libuv, what is stopped is the watcher that all users of a descriptor share
        watcher = getattr(server._watcher, '_watcher_ref', server._watcher)
        assert not watcher.active and server._timer is None
        server.stop_accepting()
        server.start_accepting()
    socket.wait_read(client.fileno())
    assert client.recv(9) == b'ping'
    client.close()
    assert ask(server) == b'ping' and len(seen) == len(expected)


# -- _handle_and_close_when_done ---------------------------------------------------------

def test_handle_and_close_when_done(impl):
    """handle(*args), then close(*args); the result is that of handle."""
    log = []

    def handle(*args):
        log.append(('handle', args))
        return 'result'

    def close(*args):
        log.append(('close', args))
        return 'not this one'
    run = impl.module._handle_and_close_when_done
    assert run(handle, close, (1, 2)) == 'result'
    assert run(handle=handle, close=close, args_tuple=()) == 'result'
    assert log == [('handle', (1, 2)), ('close', (1, 2)), ('handle', ()), ('close', ())]
    assert run.__name__ == '_handle_and_close_when_done'
    assert str(inspect.signature(run)) == '(handle, close, args_tuple)'


@pytest.mark.parametrize('args, kwargs', [
    ((), {}), ((1, 2), {}), ((1, 2, 3, 4), {}), ((1, 2, 3), {'args_tuple': 3}),
    ((1, 2), {'args': 3})])
def test_handle_and_close_when_done_called_wrongly(impl, args, kwargs):
    """Exactly three arguments of these names."""
    with pytest.raises(TypeError, match='_handle_and_close_when_done'):
        impl.module._handle_and_close_when_done(*args, **kwargs)


@pytest.mark.parametrize('make, handled, closed', [
    (lambda: (1, 2), (1, 2), (1, 2)), (lambda: [1, 2], (1, 2), (1, 2)),
    (lambda: 'ab', ('a', 'b'), ('a', 'b')), (lambda: {'k': 1}, ('k',), ('k',)),
    (lambda: iter([1, 2]), (1, 2), ()), (lambda: (n for n in 'xy'), ('x', 'y'), ())])
def test_handle_and_close_when_done_with_any_iterable(impl, make, handled, closed):
    """Unpacked for each of the two calls, so an iterator is empty at the second."""
    log = []
    impl.module._handle_and_close_when_done(
        lambda *args: log.append(args), lambda *args: log.append(args), make())
    assert log == [handled, closed]


def test_handle_and_close_when_done_without_an_iterable(impl):
    """Neither call can be made: two TypeErrors, chained."""
    with pytest.raises(TypeError, match='must be an iterable, not int') as info:
        impl.module._handle_and_close_when_done(raising(LookupError()), raising(KeyError()), 5)
    assert [type(error) for error in contexts(info.value)] == [TypeError, TypeError]


def test_handle_and_close_when_done_errors(impl):
    """close() is called in any case and sees the error of handle(); errors are chained."""
    run, first, second, seen = (impl.module._handle_and_close_when_done, LookupError('handle'),
                                ValueError('close'), [])

    def close(*args):
        seen.append((args, sys.exc_info()[1]))
    with pytest.raises(LookupError) as info:
        run(raising(first), close, (1,))
    assert contexts(info.value) == [first] and seen == [((1,), first)]
    with pytest.raises(ValueError) as info:
        run(len, raising(second), ('',))
    assert contexts(info.value) == [second]
    second.__context__ = None
    with pytest.raises(ValueError) as info:
        run(raising(first), raising(second), ())
    assert contexts(info.value) == [second, first]
    assert sys.exc_info() == (None, None, None)


@pytest.mark.parametrize('kind', BASE_EXCEPTIONS)
def test_handle_and_close_when_done_with_base_exceptions(impl, kind):
    """They close the client like any error."""
    error, closed = kind(), []
    with pytest.raises(BaseException) as info:
        impl.module._handle_and_close_when_done(raising(error), closed.append, (1,))
    assert info.value is error and closed == [1]
