"""The accept loop: how much one wake-up takes, what it asks when, what it makes of a result.

Most tests run the batches themselves, on a server with a fake loop and listener (see
helpers.by_hand); the last section has a real listener.
"""
import collections
import functools
import itertools
import weakref

import gevent
import pytest

from helpers import (
    LOOPBACK, ONE, PAUSE, TWO, FakeListener, ask, batch, by_hand, connect_natively, echo, read_all,
    resumed, until)

THREE = ['read', ('handle', 3), ('close', 3)]


class Index:
    """Not an int, but usable as one."""

    def __init__(self, value):
        self.value = value

    def __index__(self):
        if isinstance(self.value, Exception):
            raise self.value
        return self.value


class Count(int):
    """A subclass of int."""


class NoTruth:
    """Raises when it is asked whether it is true."""

    def __init__(self, error):
        self.error = error

    def __bool__(self):
        raise self.error


# -- max_accept --------------------------------------------------------------------------

@pytest.mark.parametrize('limit, taken', [
    (1, 1), (3, 3), (Count(2), 2), (True, 1), (False, 0), (0, 0), (-1, 0), (-(1 << 80), 0),
    (Index(2), 2), (Index(0), 0), (Index(-3), 0)])
def test_one_batch_takes_at_most_max_accept(impl, limit, taken):
    """An endless supply is cut at max_accept; zero and less mean nothing at all."""
    server = by_hand(impl, itertools.repeat((1,)))
    server.max_accept = limit
    assert batch(server) == ONE * taken
    assert batch(server) == ONE * taken


@pytest.mark.parametrize('limit', [
    101, 1 << 31, (1 << 63) - 1, 1 << 63, 1 << 64, 10 ** 30, Index(1 << 70)])
def test_max_accept_may_be_of_any_size(impl, limit):
    """There is no upper limit: 101 are waiting, 101 are taken."""
    server = by_hand(impl, [(1,)] * 101)
    server.max_accept = limit
    assert batch(server)[:303] == ONE * 101
    assert batch(server) == ['read']


def test_default_max_accept_is_100(impl):
    """100 of 250 waiting, then 100, then 50 and the read that finds nothing."""
    server = by_hand(impl, [(1,)] * 250)
    assert [len(batch(server)) for _ in range(4)] == [300, 300, 151, 1]


@pytest.mark.parametrize('limit, error', [
    ('3', "'str' object cannot be interpreted as an integer"),
    (None, "'NoneType' object cannot be interpreted as an integer"),
    (2.0, "'float' object cannot be interpreted as an integer"),
    (Index('2'), r'__index__(\(\) must return an int, not| returned non-int \(type) str'),
    (Index(TypeError('mine')), '^mine$')])
def test_max_accept_of_a_wrong_type(impl, limit, error):
    """The exception leaves _do_read() before anything else is asked or reported."""
    server = by_hand(impl, [(1,)])
    server.max_accept = limit
    with pytest.raises(TypeError, match=error):
        batch(server)
    assert server.log == []
    server.max_accept = 1
    assert batch(server) == ONE


def test_max_accept_that_cannot_be_looked_up(impl):
    """The error of a property goes out as it is."""
    server = by_hand(impl, [(1,)])
    type(server).max_accept = property(lambda self: {}['no limit today'])
    with pytest.raises(KeyError, match='no limit today'):
        batch(server)
    assert server.log == []


def test_max_accept_is_read_once_for_a_batch(impl):
    """At the start, before full() is asked."""
    def limit(self):
        self.log.append('max_accept')
        return 2

    def full(self):
        self.log.append('full')
    server = by_hand(impl, [(1,), (2,), (3,)], max_accept=property(limit), full=full)
    assert batch(server) == ['max_accept', 'full'] + ONE + ['full'] + TWO
    assert batch(server) == ['max_accept', 'full'] + THREE + ['full', 'read']


@pytest.mark.parametrize('on_class', [False, True])
def test_max_accept_changed_by_a_handler_holds_for_the_next_batch(impl, on_class):
    """The running batch keeps the number it began with."""
    def handle(self, number):
        setattr(type(self) if on_class else self, 'max_accept', 1)
        self.log.append(('handle', number))
    server = by_hand(impl, [(1,), (2,), (3,)], handle=handle, max_accept=2)
    assert batch(server) == ONE + TWO
    assert batch(server) == THREE
    assert batch(server) == ['read']


# -- full --------------------------------------------------------------------------------

def test_full_is_asked_before_every_accept(impl):
    """Also before the one that finds nothing; a yes ends the batch and stops the watcher."""
    answers = [False, False, False, True]

    def full(self):
        self.log.append('full')
        return answers.pop(0)
    server = by_hand(impl, [(1,), (2,)], full=full)
    assert batch(server) == ['full'] + ONE + ['full'] + TWO + ['full', 'read']
    assert server._watcher is not None
    assert batch(server) == ['full', 'io.stop', 'io.close']
    assert server._watcher is None and server._timer is None and server.started


@pytest.mark.parametrize('answer, expected', [
    (True, ['io.stop', 'io.close']), (1, ['io.stop', 'io.close']), ('no', ['io.stop', 'io.close']),
    ([0], ['io.stop', 'io.close']), (False, ['read']), (0, ['read']), ('', ['read']),
    (None, ['read']), ({}, ['read'])])
def test_any_true_answer_of_full_counts(impl, answer, expected):
    """full() may return anything that has a truth value."""
    server = by_hand(impl, full=lambda self: answer)
    assert batch(server) == expected


@pytest.mark.parametrize('full', [
    lambda self: {}['full'], lambda self: NoTruth(KeyError('full'))])
def test_errors_of_full_go_out(impl, full):
    """They are no accept errors: not reported, no pause, the watcher goes on."""
    server = by_hand(impl, [(1,)], full=full)
    with pytest.raises(KeyError, match='full'):
        batch(server)
    assert server.log == [] and server.loop.errors == [] and server._watcher is not None


def test_full_server_with_a_pool_waits_for_the_semaphore(impl):
    """Accepting is stopped first; the link is the method that resumes, looked up at the end."""
    class Semaphore:
        def rawlink(self, callback):
            server.log.append(('rawlink', server._watcher, callback))

    class Pool:
        _semaphore = Semaphore()
    server = by_hand(impl, full=lambda self: True)
    server.pool = Pool()
    assert batch(server) == [
        'io.stop', 'io.close', ('rawlink', None, server._start_accepting_if_started)]
    server.pool = None
    server.start_accepting()
    assert batch(server) == ['io.stop', 'io.close']


def test_full_is_found_on_the_instance_then_on_the_class(impl):
    """A false one on the instance hides that of the class until it is deleted."""
    server = by_hand(impl, [(1,)], full=lambda self: True)
    server.full = lambda: False
    assert batch(server) == ONE + ['read']
    del server.full
    assert batch(server) == ['io.stop', 'io.close']


# -- results of do_read ------------------------------------------------------------------

class Falsy:
    def __bool__(self):
        return False

    def __iter__(self):
        raise AssertionError('a false result is not looked at')


class Empty:
    def __len__(self):
        return 0


@pytest.mark.parametrize('result', [
    None, (), [], 0, 0.0, '', b'', False, {}, set(), range(0), Falsy(), Empty()])
def test_any_false_result_ends_the_batch(impl, result):
    """Nothing more to accept: no error, no pause, the next wake-up reads again."""
    server = by_hand(impl, [(1,), result, (2,)])
    assert batch(server) == ONE + ['read']
    assert batch(server) == TWO + ['read']
    assert server.loop.errors == []


class OldSequence:
    """Iterable by __getitem__ alone."""

    def __getitem__(self, index):
        return 'xy'[index]


class OtherTuple(tuple):
    """What it yields is not what it holds."""

    def __iter__(self):
        return iter(['other'])


@pytest.mark.parametrize('make, args', [
    (lambda: (1, 2), (1, 2)),
    (lambda: [1, 2], (1, 2)),
    (lambda: 'ab', ('a', 'b')),
    (lambda: b'ab', (97, 98)),
    (lambda: {'k': 'v'}, ('k',)),
    (lambda: {5}, (5,)),
    (lambda: range(3), (0, 1, 2)),
    (lambda: (n for n in (7, 8)), (7, 8)),
    (lambda: iter([4]), (4,)),
    (lambda: iter(()), ()),
    (lambda: map(str, [1]), ('1',)),
    (lambda: collections.namedtuple('Pair', 'a b')(1, 2), (1, 2)),
    (lambda: OldSequence(), ('x', 'y')),
    (lambda: OtherTuple((1, 2)), ('other',)),
    (lambda: tuple(range(300)), tuple(range(300))),
])
def test_any_iterable_is_a_result(impl, make, args):
    """Its items are the arguments of do_handle, of the handler and of do_close."""
    server = by_hand(impl, [make()])
    assert batch(server) == ['read', ('handle', *args), ('close', *args), 'read']


def test_arguments_of_handler_and_do_close_are_the_same_objects(impl):
    """Nothing is copied or converted on the way."""
    item, seen = object(), []
    server = by_hand(impl, [[item]], handle=lambda self, arg: seen.append(arg),
                     do_close=lambda self, arg: seen.append(arg))
    batch(server)
    assert seen[0] is item and seen[1] is item


class Sliceable:
    """Not iterable, but it can be sliced."""
    __iter__ = None

    def __getitem__(self, index):
        return index


def test_result_that_cannot_be_unpacked(impl):
    """Reported like an error of do_handle, with the slice of the result as context."""
    server = by_hand(impl, [Sliceable()])
    assert batch(server) == ['read', 'error'] + PAUSE
    (context, kind, value), = server.loop.errors
    assert context == (slice(1, None, None), server) and kind is TypeError


@pytest.mark.parametrize('result, unpack, slicing', [
    (5, 'must be an iterable, not int', "'int' object is not subscriptable"),
    (True, 'must be an iterable, not bool', "'bool' object is not subscriptable"),
    (object(), 'must be an iterable, not object', "'object' object is not subscriptable")])
def test_result_that_can_neither_be_unpacked_nor_sliced(impl, result, unpack, slicing):
    """Making the context of the report fails in turn, and that error leaves the batch."""
    server = by_hand(impl, [result])
    with pytest.raises(TypeError, match=slicing) as info:
        batch(server)
    assert unpack in str(info.value.__context__)
    assert server.log == ['read'] + resumed(impl) and server.loop.errors == []


class BrokenIterable(list):
    def __iter__(self):
        yield 1
        raise LookupError('half way')


class NotIterable(list):
    def __iter__(self):
        raise TypeError('I will not')


@pytest.mark.parametrize('result, kind, text', [
    (BrokenIterable([1, 2, 3]), LookupError, 'half way'),
    (NotIterable([1, 2, 3]), TypeError, 'I will not')])
def test_iteration_that_fails(impl, result, kind, text):
    """The error of the iterator is reported; neither the handler nor do_close is called."""
    server = by_hand(impl, [result])
    assert batch(server) == ['read', 'error'] + PAUSE
    (context, got, value), = server.loop.errors
    assert context == ([2, 3], server) and got is kind and str(value) == text


def test_truth_test_that_raises_is_an_error_of_do_read(impl):
    """Context is the server; the delay had been reset before."""
    server = by_hand(impl, [NoTruth(LookupError('undecided'))])
    server.delay = 5
    assert batch(server) == ['read', 'error'] + PAUSE
    (context, kind, value), = server.loop.errors
    assert context is server and kind is LookupError and str(value) == 'undecided'
    assert server.delay == 0.02


def test_do_read_error_ends_the_batch(impl):
    """What came before it has been handled, what would come after it waits for the timer."""
    server = by_hand(impl, [(1,), LookupError(), (2,)])
    assert batch(server) == ONE + ['read', 'error'] + PAUSE
    assert batch(server) == TWO + ['read']


def test_base_class_alone_cannot_read(impl):
    """do_read() of the base class raises NotImplementedError, which is an accept error."""
    class Bare(impl.BaseServer):
        pass
    with pytest.raises(NotImplementedError):
        Bare(FakeListener(), echo).do_read()
    server = by_hand(impl, do_read=impl.BaseServer.do_read)
    assert batch(server) == ['error'] + PAUSE
    assert server.loop.errors[0][:2] == (server, NotImplementedError)


# -- the delay ---------------------------------------------------------------------------

@pytest.mark.parametrize('result', [None, (), 0, (1,), 'x', 5])
def test_delay_is_reset_by_every_do_read_that_returns(impl, result):
    """Before the result is looked at: good, empty or unusable makes no difference."""
    class Watched(impl.BaseServer):
        def __setattr__(self, name, value):
            impl.BaseServer.__setattr__(self, name, value)
            if name == 'delay':
                self.log.append(('delay', value))
    server = by_hand(impl, [result], base=Watched, log=[])
    server.delay = 0.64
    server.max_accept = 1
    try:
        got = batch(server)
    except TypeError:
        got = server.log
    assert got[:2] == ['read', ('delay', 0.01)]


def test_delay_is_reset_before_the_handler_runs(impl):
    """The handler, the truth test and do_close already see min_delay."""
    class Result(tuple):
        def __bool__(self):
            server.log.append(('truth', server.delay))
            return True

    def see(self, *args):
        self.log.append(self.delay)
    server = by_hand(impl, [Result()], handle=see, do_close=see)
    server.delay = 0.64
    assert batch(server) == ['read', ('truth', 0.01), 0.01, 0.01, 'read']


@pytest.mark.parametrize('on_class', [False, True])
def test_min_delay_is_read_at_every_accept(impl, on_class):
    """A handler changes it, on the instance or on the class: the next accept resets to that."""
    seen = []

    def handle(self, *args):
        seen.append(self.delay)
        setattr(type(self) if on_class else self, 'min_delay', len(seen))
    server = by_hand(impl, [(1,), (2,), (3,)], handle=handle)
    batch(server)
    assert seen == [0.01, 1, 2] and server.delay == 3
    type(server).min_delay, server.min_delay = 'of the class', 'of the instance'
    batch(server)
    assert server.delay == 'of the instance'
    del server.min_delay
    batch(server)
    assert server.delay == 'of the class'


def test_min_delay_that_cannot_be_looked_up(impl):
    """An accept error like one of do_read itself; the pause is the delay there was."""
    server = by_hand(impl, [(1,)])
    server.delay = 0.5
    type(server).min_delay = property(lambda self: {}['min_delay'])
    assert batch(server) == ['read', 'error', 'io.stop', 'io.close', ('timer', 0.5), 'timer.start']
    assert server.loop.errors[0][:2] == (server, KeyError)


# -- look-up at every call ---------------------------------------------------------------

def put(server, where, name, function):
    """Make *function*, which takes the server first, the method *name* of instance or class."""
    if where == 'instance':
        setattr(server, name, functools.partial(function, server))
    else:
        setattr(type(server), name, function)


def noted(name):
    """A method that does nothing but note its name and arguments; returns None."""
    def method(self, *args):
        self.log.append(('new ' + name, *args))
    return method


REPLACED = {
    'full': [('new full',)] + TWO + [('new full',)] + THREE + [('new full',), 'read'],
    'do_read': [('new do_read',)],
    'do_handle': ['read', ('new do_handle', 2), 'read', ('new do_handle', 3), 'read'],
    'do_close': ['read', ('handle', 2), ('new do_close', 2),
                 'read', ('handle', 3), ('new do_close', 3), 'read'],
}


@pytest.mark.parametrize('where', ['instance', 'class'])
@pytest.mark.parametrize('name', sorted(REPLACED))
def test_method_replaced_during_a_batch(impl, name, where):
    """The replacement is in force from the next accept on."""
    def handle(self, number):
        self.log.append(('handle', number))
        if number == 1:
            put(self, where, name, noted(name))
    server = by_hand(impl, [(1,), (2,), (3,)], handle=handle)
    assert batch(server) == ONE + REPLACED[name]


@pytest.mark.parametrize('where', ['instance', 'class'])
@pytest.mark.parametrize('name', sorted(REPLACED))
def test_method_replaced_between_batches(impl, name, where):
    """The replacement is in force from the next batch on."""
    server = by_hand(impl, [(1,), (2,), (3,)])
    server.max_accept = 1
    assert batch(server) == ONE
    server.max_accept = 3
    put(server, where, name, noted(name))
    assert batch(server) == REPLACED[name]


@pytest.mark.parametrize('name', sorted(REPLACED))
def test_replacement_deleted_during_a_batch(impl, name):
    """What the class has is in force again at the next accept."""
    def handle(self, number):
        self.log.append(('handle', number))
        if number == 1:
            delattr(self, name)

    def stand_in(self, *args):
        self.log.append('stand-in')
        return getattr(type(self), name)(self, *args)
    server = by_hand(impl, [(1,), (2,)], handle=handle)
    put(server, 'instance', name, stand_in)
    got = batch(server)
    assert got.count('stand-in') == 1
    got.remove('stand-in')
    assert got == ONE + TWO + ['read']
    assert name not in vars(server)


@pytest.mark.parametrize('name, replacement, expected', [
    ('full', lambda self: True, ONE + ['io.stop', 'io.close']),
    ('do_handle', noted('do_handle'), ONE + ['read', ('new do_handle', 2), 'read']),
    ('max_accept', 1, ONE + TWO + ['read'])])
def test_base_class_patched_during_a_batch(impl, monkeypatch, name, replacement, expected):
    """An assignment on BaseServer itself reaches servers of any subclass at once."""
    def handle(self, number):
        self.log.append(('handle', number))
        monkeypatch.setattr(impl.BaseServer, name, replacement)
    server = by_hand(impl, [(1,), (2,)], handle=handle)
    assert batch(server) == expected


def test_spawn_and_handle_are_those_of_the_instance(impl):
    """set_spawn and set_handle left them there: what the class has is hidden until then."""
    def spawn(function, *args):
        server.log.append('spawn')
        function(*args)

    def handle(self, number):
        self.log.append(('handle', number))
        type(self)._spawn, type(self)._handle = staticmethod(spawn), noted('_handle')
        if number == 2:
            del self._spawn, self._handle
    server = by_hand(impl, [(1,), (2,), (3,)], handle=handle)
    assert batch(server) == ONE + TWO + [
        'read', 'spawn', ('new _handle', 3), ('close', 3), 'read']


def test_spawn_and_handle_replaced_on_the_instance(impl):
    """A handler sets them: in force at the next accept. Setting handle has no effect."""
    def handle(self, number):
        self._spawn = lambda function, *args: self.log.append(('spawn', args[0], args[2]))
        self._handle, self.handle = 'any object', 'ignored'
    server = by_hand(impl, [(1,), (2,)], handle=handle)
    assert batch(server) == ['read', ('close', 1), 'read', ('spawn', 'any object', (2,)), 'read']


def test_what_the_spawn_function_gets(impl):
    """_handle_and_close_when_done, the handler, do_close, the arguments as a plain tuple."""
    calls = []
    server = by_hand(impl, [[1, 2]], spawn=lambda *args, **kwargs: calls.append((args, kwargs)))
    assert batch(server) == ['read', 'read']
    assert calls == [((impl.module._handle_and_close_when_done, server.handle,
                       server.do_close, (1, 2)), {})]
    assert type(calls[0][0][3]) is tuple


def test_result_of_the_spawn_function_is_ignored(impl):
    """Also one that is false, or has no truth value."""
    results = [None, 0, NoTruth(LookupError('not asked'))]
    server = by_hand(impl, [(1,)] * 3, spawn=lambda *args: results.pop())
    assert batch(server) == ['read'] * 4 and results == []


def test_other_code_of_do_close(impl, monkeypatch):
    """That of BaseServer does nothing, until a program gives it other code, which runs."""
    closed, calls = [], []

    def other(self, *args):
        self.closed.append(args)

    def change(number):
        monkeypatch.setattr(impl.BaseServer.do_close, '__code__', other.__code__)

    server = by_hand(impl, [(1,)], lambda *call: calls.append(call), closed=closed,
                     do_close=impl.BaseServer.do_close)
    server._do_read()
    (function, _, close, args), = calls
    assert close == server.do_close
    assert function(lambda number: number, close, args) == 1 and closed == []
    function(change, close, args)
    function(change, close, args)
    assert closed == [(1,)] * 2


@pytest.mark.parametrize('error', [None, KeyError()])
def test_other_code_of_do_close_for_a_handler_in_the_hub(impl, monkeypatch, error):
    """The handler itself gives it that; if it raises, do_close() is called twice, as ever."""
    def other(self, *args):
        self.log.append(('other', *args))

    def handle(self, number):
        monkeypatch.setattr(impl.BaseServer.do_close, '__code__', other.__code__)
        if error is not None:
            raise error

    server = by_hand(impl, [(1,)], handle=handle, do_close=impl.BaseServer.do_close)
    assert batch(server) == ['read', ('other', 1)] + (
        ['read'] if error is None else [('other', 1), 'error'] + PAUSE)


@pytest.mark.parametrize('slots', [(), ('slot',)])
def test_dictionary_that_is_also_of_another_object(impl, slots):
    """To store into that object is to store into the server, whatever CPython does for it."""
    class Other:
        pass

    def handle(self, number):
        if number == 2:
            self.__dict__ = other.__dict__
        self.log.append(('handle', number))

    def other_handle(number):
        server.log.append(('other', number))
        other._handle = last_handle

    def last_handle(number):
        server.log.append(('last', number))

    other = Other()
    server = by_hand(impl, [(number,) for number in range(1, 6)], handle=handle, __slots__=slots)
    for name, value in vars(server).items():
        setattr(other, name, value)
    server.max_accept = other.max_accept = 3
    assert batch(server) == ONE + TWO + THREE
    other._handle = other_handle
    assert batch(server) == ['read', ('other', 4), ('close', 4), 'read', ('last', 5), ('close', 5),
                             'read']


def test_result_of_do_handle_and_do_close_is_ignored(impl):
    """Nobody asks for their truth either."""
    server = by_hand(impl, [(1,)], do_close=lambda self, arg: NoTruth(LookupError()))
    assert batch(server) == ['read', ('handle', 1), 'read']
    server = by_hand(impl, [(1,)], do_handle=lambda self, arg: NoTruth(LookupError()))
    assert batch(server) == ['read', 'read']


@pytest.mark.parametrize('where', ['instance', 'class'])
def test_do_read_of_the_watcher_is_looked_up_at_start_accepting(impl, where):
    """A running watcher keeps the _do_read it got; the next one gets the replacement."""
    server = by_hand(impl)
    first = server.loop.watcher.callback
    assert first == server._do_read
    put(server, where, '_do_read', noted('_do_read'))
    assert server.loop.watcher.callback == first
    server.start_accepting()
    assert server.loop.watcher.callback == first
    server.stop_accepting()
    server.start_accepting()
    assert server.loop.watcher.callback == server._do_read
    assert batch(server) == [('new _do_read',)]


def test_stop_accepting_replaced(impl):
    """Called when full and before the pause after an error, wherever it comes from."""
    server = by_hand(impl, [LookupError(), LookupError()])
    server.full = lambda: True
    server.stop_accepting = lambda: server.log.append('mine')
    assert batch(server) == ['mine']
    del server.full
    assert batch(server) == ['read', 'error', 'mine', ('timer', 0.01), 'timer.start']
    del server.stop_accepting
    type(server).stop_accepting = noted('stop_accepting')
    assert batch(server) == [
        'read', 'error', ('new stop_accepting',), ('timer', 0.02), 'timer.start']


def test_loop_replaced_while_reading(impl):
    """server.loop is looked up when it is needed."""
    def do_read(self):
        self.loop = type(self.loop)(self.log)
        self.log.append('new loop')
        raise LookupError
    server = by_hand(impl, do_read=do_read)
    old = server.loop
    assert batch(server) == ['new loop', 'error'] + PAUSE
    assert old.errors == [] and len(server.loop.errors) == 1
    assert server._timer is server.loop.watcher


# -- unusual classes ---------------------------------------------------------------------

HOOKS = {'max_accept', 'full', 'do_read', 'min_delay', 'do_handle', '_spawn', '_handle',
         'do_close', 'is_fatal_error', 'stop_accepting', '_start_accepting_if_started',
         'max_delay', 'pool'}


def test_order_of_look_ups_seen_by_getattribute(impl):
    """A class with __getattribute__ sees each hook and setting at the moment it is used."""
    seen = []

    class Watched(impl.BaseServer):
        def __getattribute__(self, name):
            if name in HOOKS:
                seen.append(name)
            return impl.BaseServer.__getattribute__(self, name)
    server = by_hand(impl, [(1,), None, LookupError()], base=Watched)
    del seen[:]
    assert batch(server) == ONE + ['read']
    assert seen == ['max_accept', 'full', 'do_read', 'min_delay', 'do_handle', '_spawn',
                    '_handle', 'do_close', 'full', 'do_read', 'min_delay']
    del seen[:]
    assert batch(server) == ['read', 'error'] + PAUSE
    assert seen == ['max_accept', 'full', 'do_read', 'is_fatal_error', 'stop_accepting',
                    '_start_accepting_if_started', 'max_delay']
    server.full = lambda: True
    del seen[:]
    assert batch(server) == ['timer.stop', 'timer.close']
    assert seen == ['max_accept', 'full', 'stop_accepting', 'pool']


def test_getattribute_decides(impl):
    """What it returns is used, though class and instance have something else."""
    class Other(impl.BaseServer):
        def __getattribute__(self, name):
            if name == 'max_accept':
                return 1
            if name == 'do_close':
                return lambda *args: self.log.append(('other', *args))
            return impl.BaseServer.__getattribute__(self, name)
    server = by_hand(impl, [(1,), (2,)], base=Other)
    assert batch(server) == ['read', ('handle', 1), ('other', 1)]
    assert batch(server) == ['read', ('handle', 2), ('other', 2)]


def test_setattr_sees_every_assignment(impl):
    """delay at each accept; watcher, timer and delay around a pause. close() deletes quietly."""
    seen = []

    class Watched(impl.BaseServer):
        def __setattr__(self, name, value):
            seen.append((name, value))
            impl.BaseServer.__setattr__(self, name, value)

        def __delattr__(self, name):
            seen.append(name)
    server = by_hand(impl, [(1,), None, LookupError()], base=Watched)
    del seen[:]
    batch(server)
    assert seen == [('delay', 0.01), ('delay', 0.01)]
    del seen[:]
    batch(server)
    assert seen == [('_watcher', None), ('_timer', server._timer), ('delay', 0.02)]
    del seen[:]
    server.close()
    assert seen == [('_timer', None)] and server.closed


def test_setattr_that_refuses_the_delay(impl):
    """Refused after a good read: an accept error. Refused at the end of a pause: it goes out."""
    class Strict(impl.BaseServer):
        strict = False

        def __setattr__(self, name, value):
            if self.strict and name == 'delay':
                raise PermissionError(value)
            impl.BaseServer.__setattr__(self, name, value)
    server = by_hand(impl, [(1,)], base=Strict)
    type(server).strict = True
    with pytest.raises(PermissionError, match='0.02') as info:
        batch(server)
    assert server.log[:6] == ['read', 'error'] + PAUSE
    (context, kind, value), = server.loop.errors
    assert context is server and kind is PermissionError and value.args == (0.01,)
    assert info.value.__context__ is value


@pytest.mark.parametrize('name', ['_handle', '_watcher', '_timer', 'loop', 'delay'])
def test_getattr_supplies_what_the_instance_lacks(impl, name):
    """State deleted from the instance is asked of __getattr__ like anything else."""
    asked, supplied = set(), {}

    class Supplied(impl.BaseServer):
        def __getattr__(self, missing):
            asked.add(missing)
            return supplied[missing]
    server = by_hand(impl, [LookupError(), (1,)], base=Supplied)
    supplied.update(vars(server))
    asked.clear()
    delattr(server, name)
    assert batch(server) == ['read', 'error'] + PAUSE
    assert batch(server) == ONE + ['read']
    assert asked == {name}


def test_getattr_supplies_the_pool_of_a_full_server(impl):
    """pool is only asked for when the server is full."""
    class Supplied(impl.BaseServer):
        def __getattr__(self, missing):
            self.log.append(missing)
    server = by_hand(impl, [(1,)], base=Supplied)
    del server.pool
    assert batch(server) == ONE + ['read']
    server.full = lambda: True
    assert batch(server) == ['io.stop', 'io.close', 'pool']


def test_properties_in_place_of_state(impl):
    """Data descriptors of a subclass are used for reading and writing."""
    class Stored:
        def __set_name__(self, owner, name):
            self.key = 'my' + name

        def __get__(self, server, owner=None):
            return self if server is None else vars(server)[self.key]

        def __set__(self, server, value):
            vars(server)[self.key] = value

    class Kept(impl.BaseServer):
        delay, loop, pool, _handle, _spawn, _watcher, _timer = (Stored() for _ in range(7))
    server = by_hand(impl, [LookupError(), LookupError(), (1,)], base=Kept)
    assert batch(server) == ['read', 'error'] + PAUSE
    assert batch(server) == ['read', 'error', 'timer.stop', 'timer.close',
                             ('timer', 0.02), 'timer.start']
    assert server.mydelay == 0.04 and server.my_timer is server.loop.watcher
    assert batch(server) == ONE + ['read']
    assert server.mydelay == 0.01
    assert not {'delay', 'loop', 'pool', '_handle', '_spawn', '_watcher', '_timer'} & set(
        vars(server))


def test_read_only_properties_for_hooks(impl):
    """full, do_read, do_close, min_delay given by properties."""
    class Computed(impl.BaseServer):
        min_delay = property(lambda self: 0.25)
        full = property(lambda self: lambda: self.log.append('full'))
    server = by_hand(impl, base=Computed,
                     do_read=property(lambda self: [(), (1,)].pop if self.delay else None),
                     do_close=property(lambda self: lambda *args: self.log.append(('by', args))))
    server.max_accept = 2
    assert batch(server) == ['full', ('handle', 1), ('by', (1,)),
                             'full', ('handle', 1), ('by', (1,))]
    assert server.delay == 0.25


def test_slots_in_place_of_state(impl):
    """State in slots of a subclass works; close() only clears the instance dictionary."""
    names = ('_handle', '_spawn', '_stop_event', '_timer', '_watcher', 'delay', 'loop', 'pool')
    server = by_hand(impl, [LookupError(), (1,)], __slots__=names)
    assert batch(server) == ['read', 'error'] + PAUSE
    assert server.delay == 0.02
    assert batch(server) == ONE + ['read']
    assert not set(names) & set(vars(server))
    server.close()
    assert server.closed and server._watcher is None
    assert server._handle == server.handle and server._spawn is None


def test_socket_in_a_slot(impl):
    """close() closes it and does not clear the slot: such a server never counts as closed."""
    class Listener(FakeListener):
        def close(self):
            server.log.append('listener closed')
    server = by_hand(impl, __slots__=('socket',))
    server.socket = Listener()
    del server.log[:]
    server.close()
    assert server.log == ['io.stop', 'io.close', 'listener closed']
    assert not server.closed and not server.started


class Callable:
    """An object that is callable but binds to nothing."""

    def __init__(self, function):
        self.function = function

    def __call__(self, *args):
        return self.function(*args)


@pytest.mark.parametrize('wrap, bound', [
    (lambda function: function, True),
    (classmethod, True),
    (lambda function: functools.partialmethod(function), True),
    (staticmethod, False),
    (Callable, False)])
def test_kinds_of_methods(impl, wrap, bound):
    """Anything callable may be a hook; what it binds is up to it."""
    calls = []
    results = [None, (5,)]
    server = by_hand(
        impl,
        full=wrap(lambda *args: calls.append(('full', len(args)))),
        do_read=wrap(lambda *args: calls.append(('do_read', len(args))) or results.pop()),
        do_handle=wrap(lambda *args: calls.append(('do_handle', len(args)))))
    batch(server)
    one = 1 if bound else 0
    assert calls == [('full', one), ('do_read', one), ('do_handle', one + 1),
                     ('full', one), ('do_read', one)]


@pytest.mark.parametrize('handler', [int, list, len, '-'.join, functools.partial(int, base=8)])
def test_handlers_of_all_kinds(impl, handler):
    """The handler may be a class, a builtin, a bound builtin, a partial."""
    server = by_hand(impl, [('12',)])
    server.set_handle(handler)
    assert batch(server) == ['read', ('close', '12'), 'read']


# -- what a handler may do to the server -------------------------------------------------

def spawn_that_closes(function, *args):
    args[0].__self__.close()
    function(*args)


@pytest.mark.parametrize('culprit', [
    dict(handle=lambda self, number: self.close()),
    dict(handle=lambda self, number: self.stop()),
    dict(do_close=lambda self, number: self.close()),
    dict(do_handle=lambda self, *args: self.close()),
    dict(spawn=spawn_that_closes)], ids='handle stop do_close do_handle spawn'.split())
def test_server_closed_while_a_client_is_handled(impl, culprit):
    """The client at hand is handled to its end. gevent then reads on, finds no handler and
    starts a timer for the closed server; ours ends the batch."""
    server = by_hand(impl, [(1,), (2, 'rest'), (3,)], **culprit)
    got = batch(server)
    taken = {
        'handle': ['read', 'io.stop', 'io.close', ('close', 1)],
        'do_close': ['read', ('handle', 1), 'io.stop', 'io.close'],
        'do_handle': ['read', 'io.stop', 'io.close'],
        'spawn': ['read', 'io.stop', 'io.close', ('handle', 1), ('close', 1)],
    }[list(culprit)[0]]
    if not impl.stock:
        assert got == taken and server.loop.errors == [] and server._timer is None
    elif 'do_handle' in culprit:
        assert got == taken + ['read', 'read', 'read']
    else:
        assert got == taken + ['read', 'error', ('timer', 0.01), 'timer.start']
        (context, kind, value), = server.loop.errors
        assert context == (('rest',), server)
        assert str(value) == "'Server' object has no attribute '_handle'"
    assert server.closed and not server.started


def test_error_of_a_handler_that_closed_the_server(impl):
    """Quiet is only the end of the loop: the handler's own error is reported."""
    def handle(self, number):
        self.close()
        raise LookupError(number)
    server = by_hand(impl, [(1,), (2,)], handle=handle)
    assert batch(server)[:6] == [
        'read', 'io.stop', 'io.close', ('close', 1), ('close', 1), 'error']
    (context, kind, value), = server.loop.errors
    assert context == ((), server) and kind is LookupError and value.args == (1,)


def test_handler_that_pauses_accepting(impl):
    """stop_accepting() in the middle does not end the batch."""
    def handle(self, number):
        self.log.append(('handle', number))
        self.stop_accepting()
    server = by_hand(impl, [(1,), (2,)], handle=handle)
    assert batch(server) == ['read', ('handle', 1), 'io.stop', 'io.close', ('close', 1)] + TWO + [
        'read']
    assert server._watcher is None and server.started


def test_handler_that_sets_the_stop_event(impl):
    """A server told to end this way still has its socket: the batch goes on to its end."""
    def handle(self, number):
        self.log.append(('handle', number))
        self._stop_event.set()
    server = by_hand(impl, [(1,), (2,)], handle=handle)
    assert batch(server) == ONE + TWO + ['read']
    assert not server.started and not server.closed


def test_server_without_any_socket(impl):
    """Never started, nothing bound, so "closed" all the time: batches run all the same."""
    class Bare(impl.BaseServer):
        steps = [(1,), (2,)]

        def do_read(self):
            return self.steps and self.steps.pop(0)
    got = []
    server = Bare(LOOPBACK, got.append, spawn=None)
    assert server.closed and not server.started
    assert server._do_read() is None
    assert got == [1, 2]


def test_handler_that_restarts_the_server(impl):
    """Closed and started again, with the same handler, within one batch: it goes on."""
    def handle(self, number):
        self.log.append(('handle', number))
        if number == 1:
            self.close()
            self.socket = FakeListener()
            self.set_spawn(None)
            self.set_handle(type(self).handle.__get__(self))
            self.start()
    server = by_hand(impl, [(1,), (2,)], handle=handle)
    assert batch(server) == ['read', ('handle', 1), 'io.stop', 'io.close', ('io', 7, 1),
                             'io.start', ('close', 1)] + TWO + ['read']
    assert server.started and not server.closed


def test_handler_that_changes_the_class(impl):
    """Hooks of the new class are used from the next accept on."""
    class Other(impl.BaseServer):
        do_read = noted('do_read')

        def full(self):
            self.log.append('new full')

    def handle(self, number):
        self.log.append(('handle', number))
        Other.log = self.log
        self.__class__ = Other
    server = by_hand(impl, [(1,), (2,)], handle=handle)
    assert batch(server) == ONE + ['new full', ('new do_read',)]
    assert type(server) is Other


def test_handler_that_swaps_the_dictionary(impl):
    """State is that of the new dictionary from then on; the old one is not touched."""
    def handle(self, number):
        self.log.append(('handle', number))
        old.append(vars(self))
        self.__dict__ = dict(old[0], min_delay=0.5, _handle=noted('_handle').__get__(self))
        old[0]['delay'] = 'untouched'
    old = []
    server = by_hand(impl, [(1,), (2,), LookupError()], handle=handle)
    assert batch(server) == ONE + ['read', ('new _handle', 2), ('close', 2), 'read', 'error',
                                   'io.stop', 'io.close', ('timer', 0.5), 'timer.start']
    assert server.delay == 1 and server._watcher is None
    assert old[0]['delay'] == 'untouched' and old[0]['_watcher'] is not None


def test_handler_that_empties_the_dictionary(impl, unraisable):
    """Nothing left, not even the loop to report that to: the error leaves the batch."""
    def handle(self, number):
        self.log.append(('handle', number))
        self.__dict__ = {}
    server = by_hand(impl, [(1,), (2,)], handle=handle)
    with pytest.raises(AttributeError, match="no attribute 'loop'") as info:
        batch(server)
    assert "no attribute '_handle'" in str(info.value.__context__)
    assert server.log == ONE + ['read'] and vars(server) == {'delay': 0.01}
    assert unraisable == ([] if impl.stock else [AttributeError])  # ours tried to resume


def test_handler_that_deletes_the_handler(impl):
    """An AttributeError of do_handle before it knows what to close: the client is not closed."""
    def handle(self, number):
        self.log.append(('handle', number))
        del self._handle
    server = by_hand(impl, [(1,), (2, 'rest')], handle=handle)
    assert batch(server) == ONE + ['read', 'error'] + PAUSE
    (context, kind, value), = server.loop.errors
    assert context == (('rest',), server) and kind is AttributeError
    assert str(value) == "'Server' object has no attribute '_handle'"


def test_handler_that_deletes_the_spawn_function(impl):
    """The class's own comes to light: Greenlet.spawn, unbound."""
    def handle(self, number):
        self.log.append(('handle', number))
        vars(self).pop('_spawn', None)
    server = by_hand(impl, [(1,), (2,)], handle=handle)
    assert server._spawn is None
    assert batch(server) == ONE + ['read', 'read']
    assert server._spawn == gevent.spawn
    until(lambda: len(server.log) == 7)
    assert server.log == ONE + ['read', 'read', ('handle', 2), ('close', 2)]


@pytest.mark.parametrize('name', ['_timer', '_watcher'])
def test_handler_that_deletes_watcher_or_timer(impl, unraisable, name):
    """Missed only when an error wants a pause: the AttributeError leaves the batch."""
    def handle(self, number):
        delattr(self, name)
    error = LookupError()
    server = by_hand(impl, [(1,), error], handle=handle)
    with pytest.raises(AttributeError, match="no attribute '%s'" % name) as info:
        batch(server)
    assert info.value.__context__ is error
    assert server.log[:4] == ['read', ('close', 1), 'read', 'error'] and server.delay == 0.01
    assert unraisable == ([] if impl.stock else [AttributeError])  # ours tried to resume


def test_handler_that_deletes_the_delay(impl):
    """The next do_read that returns brings it back; one that raises finds none."""
    def handle(self, number):
        del self.delay
    server = by_hand(impl, [(1,), (2,), LookupError()], handle=handle)
    with pytest.raises(AttributeError, match="no attribute 'delay'"):
        batch(server)
    begin = ['read', ('close', 1), 'read', ('close', 2), 'read', 'error']
    assert server.log == begin + resumed(
        impl, ['io.stop', 'io.close', ('timer', 1), 'timer.start'])


def test_handler_that_deletes_the_pool(impl):
    """Missed only when the server is full, after accepting has stopped."""
    def handle(self, number):
        self.log.append(('handle', number))
        del self.pool
        self.full = lambda: number == 1
    server = by_hand(impl, [(1,), (2,)], handle=handle)
    with pytest.raises(AttributeError, match="no attribute 'pool'"):
        batch(server)
    assert server.log == ONE + ['io.stop', 'io.close'] and server._watcher is None


def test_handler_that_drops_the_last_reference(impl):
    """The server lives to the end of the batch and is freed right after it."""
    def handle(self, number):
        self.log.append(('handle', number))
        self.close()
        box.clear()
    box = [by_hand(impl, [(1,)], handle=handle, max_accept=1)]
    log, alive = box[0].log, weakref.ref(box[0])
    box[0].loop.watcher = None
    run = box[0]._do_read
    del log[:]
    run()
    assert log == ['read', ('handle', 1), 'io.stop', 'io.close', ('close', 1)]
    assert alive() is not None
    del run
    assert alive() is None


def test_results_are_not_kept_alive(impl):
    """When the batch is over, nothing holds what do_read returned, the last one included."""
    class Item:
        pass
    refs = []

    def do_read(self):
        item = Item()
        refs.append(weakref.ref(item))
        return [item]
    server = by_hand(impl, do_read=do_read, handle=lambda self, item: None,
                     do_close=lambda self, item: None)
    server.max_accept = 2
    assert batch(server) == [] and server.loop.errors == []
    assert [ref() for ref in refs] == [None, None]


def test_batch_within_a_batch(impl):
    """A handler calls _do_read() again: the inner batch takes its own max_accept."""
    def handle(self, number):
        self.log.append(('handle', number))
        if number == 1:
            self._do_read()
    server = by_hand(impl, [(1,), (2,), (3,)], handle=handle)
    server.max_accept = 2
    assert batch(server) == ['read', ('handle', 1)] + TWO + THREE + [('close', 1), 'read']


# -- with a real listener ----------------------------------------------------------------

def counting(impl, rounds):
    """A StreamServer class that notes the number of reads in each wake-up."""
    class Counting(impl.StreamServer):
        def _do_read(self):
            rounds.append(0)
            super()._do_read()

        def do_read(self):
            rounds[-1] += 1
            return super().do_read()
    return Counting


@pytest.mark.parametrize('limit, expected', [
    (1, [1, 1, 1, 1, 1]), (2, [2, 2, 2]), (5, [5]), (6, [6]), (100, [6])])
def test_wake_ups_for_five_waiting_clients(impl, serve, limit, expected):
    """max_accept bounds the accepts of a wake-up; with room left one read finds nothing."""
    rounds = []
    server = serve(counting(impl, rounds)(LOOPBACK, echo))
    server.max_accept = limit
    clients = [connect_natively(server) for _ in range(5)]
    for client in clients:
        client.sendall(b'ping')
    until(lambda: sum(rounds) >= sum(expected))
    gevent.sleep(0.02)
    assert rounds == expected
    for client in clients:
        assert client.recv(9) == b'ping'
        client.close()


def test_handler_changes_max_accept_of_a_running_server(impl, serve):
    """The first wake-up takes three, as it began with; from then on one at a time."""
    rounds = []

    def handle(sock, address):
        server.max_accept = 1
    server = serve(counting(impl, rounds)(LOOPBACK, handle, spawn=None))
    server.max_accept = 3
    clients = [connect_natively(server) for _ in range(5)]
    until(lambda: len(rounds) >= 3)
    gevent.sleep(0.02)
    assert rounds == [3, 1, 1]
    for client in clients:
        client.close()


def test_full_without_a_pool(impl, serve):
    """Accepting stops in the middle of a batch and resumes by start_accepting() only."""
    served = []
    server = serve(impl.StreamServer(LOOPBACK, lambda sock, address: served.append(address),
                                     spawn=None))
    server.full = lambda: len(served) >= 2
    clients = [connect_natively(server) for _ in range(4)]
    until(lambda: server._watcher is None)
    assert len(served) == 2 and server.started
    server.full = lambda: False
    server.start_accepting()
    until(lambda: len(served) == 4)
    assert served == [client.getsockname() for client in clients]
    for client in clients:
        client.close()


def test_handler_in_the_hub_stops_a_stream_server(impl, errors):
    """The client is answered and closed. gevent then misses the attribute socket, reports
    that and leaves a timer behind; ours ends the loop quietly."""
    def handle(sock, address):
        sock.sendall(b'bye')
        server.stop()
    server = impl.StreamServer(LOOPBACK, handle, spawn=None)
    server.start()
    clients = [connect_natively(server) for _ in range(2)]
    until(lambda: server.closed)
    assert read_all(clients[0]) == b'bye'
    clients[1].close()
    assert server._watcher is None and not server.started
    if impl.stock:
        (context, kind, value), = errors
        assert context is server and kind is AttributeError
        assert str(value) == "'StreamServer' object has no attribute 'socket'"
        server.stop_accepting()
    else:
        assert errors == []
    assert server._timer is None


def test_handler_in_the_hub_stops_a_datagram_server(impl, errors, capsys):
    """gevent reads from the closed descriptor, a fatal error, and says so on stderr."""
    from gevent import socket

    def handle(data, address):
        got.append(data)
        server.stop()
    got = []
    server = impl.DatagramServer(LOOPBACK, handle, spawn=None)
    server.start()
    client = socket.socket(type=socket.SOCK_DGRAM)
    client.sendto(b'bye', server.address)
    client.close()
    until(lambda: server.closed)
    assert got == [b'bye'] and not server.started
    if impl.stock:
        (context, kind, value), = errors
        assert context is server and kind is OSError and value.errno == 9
        assert capsys.readouterr().err == (
            'ERROR: <DatagramServer address=127.0.0.1:%d> failed with [Errno 9] '
            'Bad file descriptor\n' % server.server_port)
    else:
        assert errors == [] and capsys.readouterr().err == ''


def test_handler_in_the_hub_restarts_a_stream_server(impl, serve):
    """Closed and started again on the same port by a handler of the class: serves on."""
    class Restarted(impl.StreamServer):
        times = 0

        def handle(self, sock, address):
            self.times += 1
            sock.sendall(b'%d' % self.times)
            if self.times == 1:
                self.close()
                self.set_spawn(None)
                self.start()
    server = serve(Restarted(LOOPBACK, spawn=None))
    port = server.server_port
    assert [ask(server, b'') for _ in range(3)] == [b'1', b'2', b'3']
    assert server.server_port == port and server.started


def test_running_server_whose_last_reference_goes(impl):
    """A handler stops the server that only the loop still holds: it is freed, nothing fails."""
    class Freed(impl.StreamServer):
        def handle(self, sock, address):
            sock.sendall(b'bye')
            self.close()
    server = Freed(LOOPBACK)
    server.start()
    alive, client = weakref.ref(server), connect_natively(server)
    del server
    assert alive() is not None
    until(lambda: alive() is None)
    assert read_all(client) == b'bye'
