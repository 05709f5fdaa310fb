"""How a server shows itself: repr, str, host, port, started, closed, in every state."""
import collections
import functools
import sys

import pytest
from gevent.event import Event
from gevent.pool import Pool
from helpers import LOOPBACK, echo, handler, listener


def blank(cls):
    """An instance whose __init__ never ran."""
    return cls.__new__(cls)


HANDLE = ' handle=%r' % handler


class Raises:
    """A descriptor, for any name, that raises *error* when read."""

    def __init__(self, error):
        self.error = error

    def __get__(self, instance, owner):
        raise self.error


class Shown:
    """An object whose str and repr are what it is told."""

    def __init__(self, text=None, error=None):
        self.text, self.error = text, error

    def __str__(self):
        if self.error is not None:
            raise self.error
        return self.text

    __repr__ = __str__


def error_text(function):
    """The text of the TypeError that *function* raises: CPython words them anew at times."""
    with pytest.raises(TypeError) as info:
        function()
    return str(info.value)


class Socket:
    """A socket of which only fileno() is ever used."""

    def __init__(self, result=None, error=None):
        self.result, self.error = result, error

    def fileno(self):
        if self.error is not None:
            raise self.error
        return self.result

    def close(self):
        """Nothing to close."""


# In each state


def test_states_of_a_server_with_an_address(impl):
    """New, started, paused, stopped, started again."""
    class Mine(impl.StreamServer):
        def handle(self, *args):
            raise NotImplementedError
    server = Mine('127.0.0.1:0')
    assert (server.server_host, server.server_port) == ('127.0.0.1', 0)
    assert server.closed is True and server.started is False
    assert str(server) == '<Mine address=127.0.0.1:0>'
    for _ in range(2):
        server.start()
        port = server.server_port
        assert server.server_host == '127.0.0.1' and port == server.socket.getsockname()[1] > 0
        assert server.closed is False and server.started is True
        fileno = server.socket.fileno()
        shown = '<Mine fileno=%d address=127.0.0.1:%d>' % (fileno, port)
        assert str(server) == shown
        server.stop_accepting()
        assert server.closed is False and server.started is True and str(server) == shown
        server.stop()
        assert server.closed is True and server.started is False
        assert str(server) == '<Mine address=127.0.0.1:%d>' % port
        assert (server.server_host, server.server_port) == ('127.0.0.1', port)


def test_states_of_a_server_with_a_socket(impl):
    """Not closed from the beginning; the handler given is shown until close()."""
    sock = listener()
    port, fileno = sock.getsockname()[1], sock.fileno()
    server = impl.BaseServer(sock, handler)
    expected = 'fileno=%d address=127.0.0.1:%d%s' % (fileno, port, HANDLE)
    assert server.closed is False and server.started is False
    assert server._formatinfo() == expected
    server.start()
    assert server.closed is False and server.started is True
    assert server._formatinfo() == expected
    sock.close()
    assert server._formatinfo() == expected.replace('fileno=%d' % fileno, 'fileno=-1')
    server.close()
    assert server.closed is True and server.started is False
    assert server._formatinfo() == 'address=127.0.0.1:%d' % port


def test_repr_and_str(impl):
    """The class's name, for repr also the address of the object, and the information."""
    server = impl.BaseServer(LOOPBACK, handler)
    info = 'address=127.0.0.1:0' + HANDLE
    assert server._formatinfo() == info
    assert repr(server) == '<BaseServer at %s %s>' % (hex(id(server)), info)
    assert str(server) == format(server) == '%s' % server == '<BaseServer %s>' % info


def test_name_is_that_of_the_type(impl):
    """The real type's name, read anew; ``__class__`` does not count here."""
    class Mine(impl.BaseServer):
        __class__ = int
    server = Mine(1, handler)
    assert str(server).startswith('<Mine address=:1 ')
    Mine.__name__ = 'N\xefew'
    assert str(server).startswith('<N\xefew address=:1 ')
    assert repr(server).startswith('<N\xefew at 0x')


@pytest.mark.parametrize('result, shown', [
    ('text', 'text'), (None, 'None'), (('a', 1), "('a', 1)"), (Shown('s'), 's'), (b'%s', "b'%s'")],
    ids=['text', 'none', 'tuple', 'object', 'bytes'])
def test_formatinfo_of_a_subclass(impl, result, shown):
    """repr and str use an overridden _formatinfo, whatever it returns."""
    class Mine(impl.BaseServer):
        def _formatinfo(self, *args, **kwargs):
            assert args == () and kwargs == {}
            return result
    server = blank(Mine)
    assert str(server) == '<Mine %s>' % shown
    assert repr(server) == '<Mine at %s %s>' % (hex(id(server)), shown)


def test_formatinfo_of_the_instance(impl):
    """The one on the instance comes first; its errors pass."""
    server = impl.BaseServer(1, handler)
    server._formatinfo = lambda: 'mine'
    assert str(server) == '<BaseServer mine>'
    error = LookupError('info')
    server._formatinfo = Shown(error=error).__str__
    for show in (str, repr):
        with pytest.raises(LookupError) as info:
            show(server)
        assert info.value is error
    server._formatinfo = lambda: Shown(error=error)
    with pytest.raises(LookupError):
        str(server)


def test_init_never_ran(impl):
    """A bare instance can be shown; it is closed; the rest is missing."""
    server = blank(impl.BaseServer)
    text = "'BaseServer' object has no attribute 'address'"
    assert server._formatinfo() == text
    assert str(server) == '<BaseServer %s>' % text
    assert repr(server) == '<BaseServer at %s %s>' % (hex(id(server)), text)
    assert server.closed is True
    for name, missing in (('started', '_stop_event'), ('server_host', 'address'),
                          ('server_port', 'address')):
        with pytest.raises(AttributeError) as info:
            getattr(server, name)
        assert str(info.value) == "'BaseServer' object has no attribute '%s'" % missing
    server.handle = handler
    assert server._formatinfo() == text + HANDLE


# The descriptor


@pytest.mark.parametrize('result, shown', [
    (5, '5'), (-1, '-1'), (None, 'None'), ('x', 'x'), ([1], '[1]'), ((7,), '7'), (('a',), 'a'),
    (((),), '()')], ids=repr)
def test_fileno(impl, result, shown):
    """Any result is shown by %s, so a tuple of one shows its item."""
    server = impl.BaseServer(('h', 1), handler)
    server.socket = Socket(result)
    assert server._formatinfo() == 'fileno=%s address=h:1%s' % (shown, HANDLE)


@pytest.mark.parametrize('result, message', [
    ((1, 2), error_text(lambda: '%s'.__mod__((1, 2)))),
    ((), error_text(lambda: '%s'.__mod__(())))], ids=['two', 'none'])
def test_fileno_of_odd_length(impl, result, message):
    """A tuple of another length is the error of %."""
    server = impl.BaseServer(1, handler)
    server.socket = Socket(result)
    with pytest.raises(TypeError) as info:
        str(server)
    assert str(info.value) == message


def test_fileno_raises(impl):
    """The text of an Exception is shown in place of the number."""
    server = impl.BaseServer(('h', 1), handler)
    server.socket = Socket(error=OSError(9, 'Bad'))
    assert server._formatinfo() == 'fileno=[Errno 9] Bad address=h:1' + HANDLE
    server.socket = Socket(error=LookupError())
    assert server._formatinfo() == 'fileno= address=h:1' + HANDLE
    server.socket = None
    assert server._formatinfo() == (
        "fileno='NoneType' object has no attribute 'fileno' address=h:1" + HANDLE)
    assert sys.exc_info() == (None, None, None)


def test_fileno_raises_beyond_repair(impl):
    """BaseExceptions pass, and so does an error of the error's own text."""
    server = impl.BaseServer(1, handler)
    grave = KeyboardInterrupt()
    server.socket = Socket(error=grave)
    with pytest.raises(KeyboardInterrupt) as info:
        server._formatinfo()
    assert info.value is grave

    class Mute(Exception):
        def __str__(self):
            raise LookupError('mute')
    server.socket = Socket(error=Mute())
    with pytest.raises(LookupError) as info:
        server._formatinfo()
    assert info.value.__context__ is server.socket.error


def test_socket_on_the_class(impl):
    """``socket`` is looked up as an attribute: on the class it counts as well."""
    class Mine(impl.BaseServer):
        socket = Socket(3)
    assert str(Mine(('h', 1), handler)).startswith('<Mine fileno=3 address=h:1 ')
    assert Mine(1, handler).closed is False
    Mine.socket = None
    assert Mine(1, handler).closed is False


def test_socket_property(impl):
    """AttributeError of a property means closed; anything else passes."""
    class Mine(impl.BaseServer):
        socket = Raises(AttributeError('hidden'))
    server = Mine(1, handler)
    assert server.closed is True and server._formatinfo() == 'address=:1' + HANDLE
    for kind in (LookupError, KeyboardInterrupt):
        Mine.socket = Raises(kind('loud'))
        for use in (lambda: server.closed, server._formatinfo, server.__repr__):
            with pytest.raises(kind, match='loud'):
                use()


# The address


Pair = collections.namedtuple('Pair', 'a b')


class Long(tuple):
    """A pair that says that it has three items."""

    def __len__(self):
        return 3


class Short(tuple):
    """Three items that say that they are two."""

    def __len__(self):
        return 2


ADDRESS_IDS = [
    'pair', 'pair of others', 'named pair', 'four', 'one', 'none', 'list', 'path', 'percent',
    'bytes', 'empty', 'None', 'long', 'short', 'object', 'silent error', 'error', 'item error']


@pytest.mark.parametrize('address, shown', [
    (('h', 1), 'address=h:1'),
    ((b'h', None), "address=b'h':None"),
    (Pair('h', 1), 'address=h:1'),
    (('::1', 1, 0, 0), "address=('::1', 1, 0, 0)"),
    (('h',), "address=('h',)"),
    ((), 'address=()'),
    (['h', 1], "address=['h', 1]"),
    ('/path', 'address=/path'),
    ('%s', 'address=%s'),
    (b'\0abstract', "address=b'\\x00abstract'"),
    ('', 'address='),
    (None, 'address=None'),
    (Long(('h', 1)), "address=('h', 1)"),
    (Short('abc'), error_text(lambda: '%s:%s'.__mod__(tuple('abc')))),
    (Shown('shown'), 'address=shown'),
    (Shown(error=LookupError()), '<error>'),
    (Shown(error=KeyError('text')), "'text'"),
    ((Shown(error=ValueError('item')), 1), 'item'),
], ids=ADDRESS_IDS)
def test_address(impl, address, shown):
    """A pair as host:port, all else by %s; an error is shown by its text or as <error>."""
    server = impl.BaseServer(1, handler)
    server.address = address
    assert server._formatinfo() == shown + HANDLE
    server.socket = Socket(3)
    assert server._formatinfo() == 'fileno=3 ' + shown + HANDLE
    assert sys.exc_info() == (None, None, None)


def test_address_property(impl):
    """Exceptions are shown, BaseExceptions pass."""
    class Mine(impl.BaseServer):
        address = Raises(LookupError('lost'))
    server = blank(Mine)
    assert server._formatinfo() == 'lost'
    Mine.address = Raises(LookupError())
    assert server._formatinfo() == '<error>'
    Mine.address = Raises(KeyboardInterrupt('now'))
    with pytest.raises(KeyboardInterrupt):
        server._formatinfo()


@pytest.mark.parametrize('address, host, port', [
    (('h', 1), 'h', 1),
    (('::1', 1, 2, 3), '::1', 1),
    (Pair(None, 'p'), None, 'p'),
    ('/path', None, None),
    (['h', 1], None, None),
    (b'x', None, None),
    (None, None, None),
    (5, None, None),
], ids=repr)
def test_host_and_port(impl, address, host, port):
    """The first two items of a tuple; None for anything else."""
    server = impl.BaseServer(1, handler)
    server.address = address
    assert server.server_host == host and server.server_port == port


def test_host_and_port_of_odd_tuples(impl):
    """IndexError if an item is missing; a subclass of tuple is asked."""
    server = impl.BaseServer(1, handler)
    server.address = ('h',)
    assert server.server_host == 'h'
    with pytest.raises(IndexError, match='^tuple index out of range$'):
        server.server_port
    server.address = ()
    with pytest.raises(IndexError, match='^tuple index out of range$'):
        server.server_host

    class Odd(tuple):
        def __getitem__(self, index):
            return 'item %r' % index
    server.address = Odd()
    assert (server.server_host, server.server_port) == ('item 0', 'item 1')


# The handler


def test_handle_of_the_class_is_not_shown(impl):
    """Only a handler in the instance dictionary is, and not if it is None."""
    class Mine(impl.BaseServer):
        def handle(self, *args):
            raise NotImplementedError
    server = Mine(1)
    assert server._formatinfo() == 'address=:1'
    server.handle = None
    assert server._formatinfo() == 'address=:1'
    server.handle = 0
    assert server._formatinfo() == 'address=:1 handle=0'


def test_handle_bound_to_the_server(impl):
    """A method of the server itself is shown without the server."""
    class Mine(impl.BaseServer):
        def __init__(self):
            super().__init__(1, self.on_client)

        def on_client(self, *args):
            raise NotImplementedError
    server, other = Mine(), Mine()
    assert str(server) == '<Mine address=:1 handle=<bound method Mine.on_client of self>>'
    server.handle = other.on_client
    assert str(server) == '<Mine address=:1 handle=%r>' % (other.on_client,)
    server.handle = server.stop
    assert str(server) == '<Mine address=:1 handle=<bound method Mine.stop of self>>'


def test_handle_in_a_partial(impl):
    """A partial object notices the recursion by itself."""
    server = impl.BaseServer(1, handler)
    server.handle = functools.partial(echo, server)
    assert str(server) == '<BaseServer address=:1 handle=functools.partial(%r, %s)>' % (
        echo, '<BaseServer at %s address=:1 handle=...>' % hex(id(server)))


def test_name_of_the_bound_handle(impl):
    """There it is ``__class__`` that counts, and ``__name__`` of the handler, by %s."""
    class Mine(impl.BaseServer):
        class __class__:
            pass

    class Handle:
        __name__ = ('a', 1)
    server = blank(Mine)
    server.address = ''
    server.handle = Handle()
    server.handle.__self__ = server
    assert server._formatinfo() == (
        "address= handle=<bound method __class__.('a', 1) of self>")


@pytest.mark.parametrize('error, shown', [
    (LookupError(), '<error>'), (ValueError('text'), 'text'), (OSError(1, 'x'), '[Errno 1] x')],
    ids=repr)
def test_handle_that_cannot_be_shown(impl, error, shown):
    """The error's text, straight after the address."""
    server = impl.BaseServer(1, Shown(error=error))
    assert server._formatinfo() == 'address=:1' + shown
    assert sys.exc_info() == (None, None, None)


def test_handle_with_odd_names(impl):
    """A handler bound to the server but without __name__, or with one that raises."""
    class Handle:
        pass
    server = impl.BaseServer(1, Handle())
    server.handle.__self__ = server
    assert server._formatinfo() == "address=:1'Handle' object has no attribute '__name__'"

    class Odd:
        __name__ = Raises(LookupError())
    server.handle = Odd()
    server.handle.__self__ = server
    assert server._formatinfo() == 'address=:1<error>'


def test_handle_repr_of_another_type(impl):
    """A repr that is no text is the TypeError of repr()."""
    server = impl.BaseServer(1, Shown(5))
    assert server._formatinfo() == 'address=:1' + error_text(lambda: repr(Shown(5)))


def test_handle_with_a_grave_error(impl):
    """BaseExceptions of repr(handle) pass, and any error but AttributeError of __self__."""
    server = impl.BaseServer(1, Shown(error=KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        server._formatinfo()

    class Handle:
        __self__ = Raises(LookupError('self'))
        __repr__ = Shown('quiet').__repr__
    server.handle = Handle()
    with pytest.raises(LookupError, match='self'):
        server._formatinfo()
    Handle.__self__ = Raises(AttributeError('none'))
    assert server._formatinfo() == 'address=:1 handle=quiet'


def test_handle_changes(impl):
    """``handle`` is what is shown; ``_handle`` is what is called."""
    server = impl.BaseServer(1, handler)
    server._handle = echo
    assert server._formatinfo() == 'address=:1' + HANDLE
    server.handle = Shown('new')
    assert server._formatinfo() == 'address=:1 handle=new'
    server.close()
    assert server._formatinfo() == 'address=:1'


def test_pool_and_spawn_are_not_shown(impl):
    """Nor any attribute of one's own."""
    server = impl.BaseServer(1, handler, Pool(3))
    server.extra = 1
    assert server._formatinfo() == 'address=:1' + HANDLE


# started and closed


def test_started_follows_the_event(impl):
    """Whoever sets or clears the event changes ``started``, which is always a bool."""
    server = impl.BaseServer(1, handler)
    server._stop_event.clear()
    assert server.started is True
    server._stop_event.set()
    assert server.started is False
    server._stop_event = Event()
    assert server.started is True


@pytest.mark.parametrize('result, started', [
    ([], True), ('x', False), (0, True), (None, True), (2, False)], ids=repr)
def test_started_with_another_event(impl, result, started):
    """Any true result of is_set() means stopped."""
    class Fake:
        def is_set(self, *args, **kwargs):
            assert args == () and kwargs == {}
            return result
    server = impl.BaseServer(1, handler)
    server._stop_event = Fake()
    assert server.started is started


def test_started_with_a_broken_event(impl):
    """Errors of is_set(), or of its result, pass; a missing one is an AttributeError."""
    class Answer:
        __bool__ = Raises(LookupError('bool'))

    class Fake:
        is_set = Answer
    server = impl.BaseServer(1, handler)
    server._stop_event = Fake()
    with pytest.raises(LookupError, match='bool'):
        server.started
    server._stop_event = None
    with pytest.raises(AttributeError) as info:
        server.started
    assert str(info.value) == "'NoneType' object has no attribute 'is_set'"


def test_closed_follows_the_attribute(impl):
    """A server is closed while it has no attribute ``socket``, whatever its value is."""
    server = impl.BaseServer(1, handler)
    assert server.closed is True
    for server.socket in (None, 0, Socket()):
        assert server.closed is False
    del server.socket
    assert server.closed is True


# Arguments


@pytest.mark.parametrize('name', [
    '__enter__', '__repr__', '__str__', '_do_read', 'close', 'do_read', 'full', 'init_socket',
    'start', 'start_accepting', 'stop_accepting'])
def test_no_arguments(impl, name):
    server = impl.BaseServer(LOOPBACK, handler)
    method = getattr(server, name)
    for args, kwargs in ((None,), {}), ((), {'value': None}):
        with pytest.raises(TypeError):
            method(*args, **kwargs)


@pytest.mark.parametrize('name', ['closed', 'server_host', 'server_port', 'started'])
def test_properties_take_the_server_alone(impl, name):
    getter = vars(impl.BaseServer)[name].fget
    with pytest.raises(TypeError):
        getter(impl.BaseServer(LOOPBACK, handler), None)
