"""What unittest.mock, and messages about wrong arguments, see of the class: Python functions."""
from unittest import mock

import pytest
from helpers import LOOPBACK, echo


def test_patched_with_autospec(impl):
    """The double of a method gets the server, as the method does."""
    server = impl.StreamServer(LOOPBACK, echo)
    with mock.patch.object(impl.StreamServer, 'close', autospec=True) as close:
        server.close()
        with pytest.raises(TypeError):
            server.close(1)
    close.assert_called_once_with(server)
    server.close()


@pytest.mark.parametrize('name, args', [
    ('do_handle', (1, 2)), ('do_read', ()), ('full', ()), ('is_fatal_error', (OSError(9),)),
    ('init_socket', ()), ('set_listener', (LOOPBACK,)), ('set_spawn', (None,))])
def test_each_method_patched_with_autospec(impl, name, args):
    server = impl.BaseServer(LOOPBACK, echo)
    with mock.patch.object(impl.BaseServer, name, autospec=True) as double:
        getattr(server, name)(*args)
    double.assert_called_once_with(server, *args)


def test_double_of_a_server(impl):
    """It knows the arguments of the methods, and refuses others."""
    double = mock.create_autospec(impl.StreamServer)(LOOPBACK, echo)
    double.start()
    double.stop(timeout=1)
    double.set_handle(echo)
    double.serve_forever(stop_timeout=3)
    assert double.stop.mock_calls == [mock.call(timeout=1)]
    with pytest.raises(AttributeError):
        double.begin
    for wrong in (lambda: double.start(1), lambda: double.stop(time=1),
                  lambda: double.stop(1, 2), lambda: double.set_handle(),
                  lambda: double.close(now=True), lambda: double.set_spawn()):
        with pytest.raises(TypeError):
            wrong()


@pytest.mark.parametrize('name, args, kwargs, text', [
    ('stop', (1, 2), {}, 'stop() takes from 1 to 2 positional arguments but 3 were given'),
    ('start', (1,), {}, 'start() takes 1 positional argument but 2 were given'),
    ('set_handle', (), {}, "set_handle() missing 1 required positional argument: 'handle'"),
    ('close', (), {'x': 1}, "close() got an unexpected keyword argument 'x'"),
    ('stop', (1,), {'timeout': 2}, "stop() got multiple values for argument 'timeout'"),
    ('__init__', (), {}, "__init__() missing 1 required positional argument: 'listener'"),
    ('do_close', (), {'x': 1}, "do_close() got an unexpected keyword argument 'x'")])
def test_message_about_wrong_arguments(impl, name, args, kwargs, text):
    """It names the class and counts the server."""
    server = impl.BaseServer(LOOPBACK, echo)
    with pytest.raises(TypeError) as caught:
        getattr(server, name)(*args, **kwargs)
    assert str(caught.value) == 'BaseServer.' + text


@pytest.mark.parametrize('args, kwargs, text', [
    ((), {}, "missing 3 required positional arguments: 'handle', 'close', and 'args_tuple'"),
    ((1, 2), {}, "missing 1 required positional argument: 'args_tuple'"),
    ((1, 2, (), 4), {}, 'takes 3 positional arguments but 4 were given'),
    ((1, 2, ()), {'x': 1}, "got an unexpected keyword argument 'x'")])
def test_message_of_the_function_beside_the_class(impl, args, kwargs, text):
    with pytest.raises(TypeError) as caught:
        impl.module._handle_and_close_when_done(*args, **kwargs)
    assert str(caught.value) == '_handle_and_close_when_done() ' + text


def test_function_beside_the_class_called_by_name(impl):
    seen = []
    result = impl.module._handle_and_close_when_done(
        args_tuple=(1, 2), close=lambda *args: seen.append(('close', *args)),
        handle=lambda *args: seen.append(('handle', *args)) or 'done')
    assert result == 'done' and seen == [('handle', 1, 2), ('close', 1, 2)]


#: what notes that it ran, in the place of a method
OTHERS = {
    'full': "def full(self):\n    self.note('full')\n    return False",
    'do_close': "def do_close(self, *args):\n    self.note('do_close')",
    'do_handle': "def do_handle(self, *args):\n    self.note('do_handle')",
    '_do_read': "def _do_read(self):\n    self.note('_do_read')",
}


@pytest.mark.parametrize('name, expected', [
    ('full', ['full', 'handled', 'full', 'handled', 'full']),
    ('do_close', ['handled', 'do_close', 'handled', 'do_close']),
    ('do_handle', ['do_handle', 'do_handle']),
    ('_do_read', ['_do_read'])])
def test_method_with_other_code(impl, monkeypatch, name, expected):
    """An agent rewrites a method of the class in place, while a server runs; and takes it back."""
    class Server(impl.BaseServer):
        def do_read(self):
            self.left -= 1
            return (1,) if self.left >= 0 else None

        def note(self, what):
            seen.append(what)

    def batch():
        del seen[:]
        server.left = 2
        server._do_read()
        return list(seen)
    seen, namespace = [], {}
    server = Server(LOOPBACK, lambda *args: seen.append('handled'), spawn=None)
    assert batch() == ['handled', 'handled']
    exec(OTHERS[name], namespace)
    monkeypatch.setattr(vars(impl.BaseServer)[name], '__code__', namespace[name].__code__)
    assert batch() == expected
    monkeypatch.undo()
    assert batch() == ['handled', 'handled']
