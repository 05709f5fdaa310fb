"""Arguments of all sorts, also objects of which every method may do anything, given to gevent's
class and to ours: the same is asked of them, in the same order, with the same outcome.

The same arguments in each run; with GEVENT_CBASE_TESTS=nightly many more, and others each time.
"""
import os
import re

import pytest
from gevent.hub import GreenletExit
from hypothesis import HealthCheck, given, settings, strategies as st

from conftest import STOCK
from helpers import outcome

NIGHTLY = os.environ.get('GEVENT_CBASE_TESTS') == 'nightly'
EXAMPLES = settings(
    max_examples=20000 if NIGHTLY else 300, derandomize=not NIGHTLY, deadline=None,
    database=None, suppress_health_check=list(HealthCheck))


# nothing here waits, and the nightly run takes long
pytestmark = pytest.mark.no_deadline


# -- arguments ---------------------------------------------------------------------------

class Grave(BaseException):
    """No Exception: what `except Exception` does not catch."""


ERRORS = st.sampled_from([
    ValueError('bad'), ValueError(), TypeError('no'), AttributeError('gone'), KeyError('key'),
    OSError(9, 'closed'), OSError(), ZeroDivisionError(), RecursionError('deep'), Grave('grave'),
    GreenletExit(), KeyboardInterrupt()])
PLAIN = st.one_of(
    st.none(), st.booleans(), st.integers(-2, 70000), st.integers(), st.floats(),
    st.text(max_size=6), st.binary(max_size=4), st.just(NotImplemented), st.just('default'),
    st.sampled_from(['127.0.0.1:0', ':80', '[::1]:8080', '*:1', '%s:%d', 'localhost', '0', '']),
    st.tuples(st.text(max_size=3), st.integers(0, 9)), st.lists(st.integers(), max_size=2),
    st.lists(st.text(max_size=2), max_size=3).map(tuple))

#: what an attribute does that is no method of the interpreter's: how it is found, what it gives
ATTRIBUTE = st.tuples(st.sampled_from(['value', 'method', 'property']), PLAIN | ERRORS)
METHOD = st.tuples(st.just('method'), PLAIN | ERRORS)
BASES = {'object': object, 'str': str, 'int': int, 'tuple': tuple, 'bytes': bytes}


def things(attributes, needed=()):
    """Descriptions of objects: (base, its value, {attribute: what it does}).

    *needed*: those that none is without.
    """
    special = st.dictionaries(st.sampled_from([
        '__eq__', '__ne__', '__bool__', '__len__', '__str__', '__repr__', '__int__', '__index__',
        '__iter__', '__getitem__', '__contains__', '__format__', '__call__', '__getattr__',
        'rsplit', 'startswith', 'endswith']), METHOD, max_size=4)
    shown = st.fixed_dictionaries({}, optional={
        '__class__': st.tuples(st.just('property'), st.sampled_from(
            [str, int, tuple, float, ValueError('class')]))})
    own = st.fixed_dictionaries(
        {name: ATTRIBUTE for name in needed},
        optional={name: ATTRIBUTE for name in attributes if name not in needed})
    return st.tuples(
        st.sampled_from(sorted(BASES)), PLAIN,
        st.builds(lambda *parts: {name: how for part in parts for name, how in part.items()},
                  special, shown, own))


def make(what, log):
    """The object that *what* describes; it notes in *log* what is asked of it."""
    if not isinstance(what, tuple) or len(what) != 3 or not isinstance(what[2], dict):
        return what
    base, value, attributes = what

    def give(result):
        if isinstance(result, BaseException):
            # a fresh one: it may get a context
            raise type(result)(*result.args)
        return result

    def method(name, result):
        def called(self, *args, **kwargs):
            if name == '__getitem__' and args[0] in (3, 4, 5):
                raise IndexError  # or looking through it would never end
            log.append((name, [arg for arg in args if type(arg) in (str, int, slice)]))
            return give(result)
        called.__name__ = called.__qualname__ = name
        return called

    def getter(name, result):
        def get(self):
            if name != '__class__':  # gevent asks isinstance() more than it has to
                log.append(name)
            return give(result)
        return property(get)
    namespace = {}
    for name, (kind, result) in attributes.items():
        if kind == 'value':
            namespace[name] = result
        else:
            namespace[name] = (method if kind == 'method' else getter)(name, result)
    if '__eq__' in namespace:
        namespace['__hash__'] = BASES[base].__hash__
    if base == 'bytes' and isinstance(value, int):
        value = min(value, 70000)  # as many zeros: not so many that they fill the memory
    cls = type('Thing', (BASES[base],), namespace)
    try:
        return BASES[base].__new__(cls, value)
    except (TypeError, ValueError):
        return BASES[base].__new__(cls)


def described(result):
    """What a call gave, without addresses; of an exception also those that led to it."""
    if not isinstance(result, BaseException):
        return plain(result)
    chain = []
    while result is not None:
        chain.append((type(result).__name__, [plain(arg) for arg in result.args],
                      result.__suppress_context__))
        result = result.__context__
    return chain


def plain(value):
    if type(value) is tuple:
        return [plain(item) for item in value]
    if type(value).__name__ == 'Thing':
        return 'a thing'
    if isinstance(value, BaseException):
        return described(value)
    return type(value).__name__, re.sub('0x[0-9a-f]+', '0x', repr(value))


def both():
    """gevent's module (its parts) and ours."""
    import gevent_cbase.baseserver
    assert gevent_cbase.baseserver.BaseServer is not STOCK.BaseServer
    return STOCK, gevent_cbase.baseserver


def same(check, *args):
    """Run ``check(module, log, *args)`` on both: what it returns, and what it logs.

    Not how often in a row: gevent's hasattr() and the look-up after it may be one.
    """
    seen = []
    for module in both():
        log = []
        result = check(module, log, *args)
        seen.append((result, [one for one, next_one in zip(log, log[1:] + [None])
                              if one != next_one]))
    assert seen[0] == seen[1]


# -- checks ------------------------------------------------------------------------------

ADDRESSES = things(['rsplit'])


@pytest.mark.parametrize('name', ['parse_address', '_parse_address', '_extract_family'])
def test_parse_address(name):
    """Addresses that are such objects, or tuples of them."""
    def check(module, log, address):
        if isinstance(address, list):
            made = tuple(make(item, log) for item in address)
        else:
            made = make(address, log)
        return described(outcome(getattr(module, name), made))

    @EXAMPLES
    @given(ADDRESSES | st.lists(ADDRESSES | PLAIN, max_size=3))
    def run(address):
        same(check, address)
    run()


class Semaphore:
    """As much of a pool's as a server needs."""

    def __init__(self, log, error):
        self.log, self.error = log, error

    def rawlink(self, callback):
        self.log.append(('rawlink', callback.__name__))
        if self.error:
            raise self.error

    def unlink(self, callback):
        self.log.append(('unlink', callback.__name__))


def state(server, log):
    """All that a server tells of itself."""
    seen = [sorted(vars(server))]
    for ask in (repr, str, lambda server: server.server_host, lambda server: server.server_port,
                lambda server: server.started, lambda server: server.closed,
                lambda server: server._formatinfo()):
        seen.append(described(outcome(ask, server)))
        log.append('next')
    return seen


def construct(module, log, listener, handle, spawn, semaphore, max_accept):
    class Server(module.BaseServer):
        pass
    Server.max_accept = make(max_accept, log)
    spawn = make(spawn, log)
    if semaphore is not None:
        type(spawn)._semaphore = Semaphore(log, semaphore.args and semaphore)
    server = Server.__new__(Server)
    result = outcome(server.__init__, make(listener, log), make(handle, log), spawn)
    return described(result), state(server, log), described(outcome(server.close)), state(
        server, log)


LISTENERS = PLAIN | things(['accept', 'family', 'getsockname', 'fileno', 'close',
                            'do_handshake']) | things(
    ['accept', 'family', 'getsockname', 'fileno', 'close'], ['accept', 'family', 'getsockname'])
HANDLES = PLAIN | things(['__self__', '__name__', '__func__'])
# without a semaphore ours accepts it, see docs/differences.rst
SPAWNS = st.tuples(PLAIN | things([]), st.none()) | st.tuples(
    things(['full', 'join', 'kill'], ['spawn']), st.sampled_from(
        [Exception(), ValueError('link'), Grave('link')]))


def without_spawn(what):
    return isinstance(what, tuple) and len(what) == 3 and isinstance(what[2], dict) and (
        'spawn' not in what[2])


@EXAMPLES
@given(LISTENERS)
def test_listener(listener):
    """The constructor's first argument."""
    same(construct, listener, len, 'default', None, 100)


@EXAMPLES
@given(SPAWNS, st.sampled_from([('127.0.0.1', 80), 5]))
def test_spawn(spawn, listener):
    """Its last."""
    spawn, semaphore = spawn
    if semaphore is None and without_spawn(spawn):
        spawn = (spawn[0], spawn[1], {name: how for name, how in spawn[2].items()
                                      if name != '__getattr__'})  # it has everything
    same(construct, listener, len, spawn, semaphore, 100)


@EXAMPLES
@given(LISTENERS, HANDLES, things(['real', 'numerator'] + ['__lt__']) | PLAIN)
def test_handle_and_max_accept(listener, handle, max_accept):
    """Its second, and a max_accept that can hardly be compared."""
    same(construct, listener, handle, 'default', None, max_accept)


def show(module, log, attributes):
    class Server(module.BaseServer):
        pass
    server = Server.__new__(Server)
    vars(server).update((name, make(what, log)) for name, what in attributes.items())
    return state(server, log)


@EXAMPLES
@given(st.fixed_dictionaries({}, optional={
    'socket': things(['close'], ['fileno']), 'address': ADDRESSES | PLAIN, 'handle': HANDLES,
    '_stop_event': things([], ['is_set'])}))
def test_repr(attributes):
    """repr, str and the properties of a server that has just these attributes."""
    same(show, attributes)
