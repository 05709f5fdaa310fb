"""wrapt and mock: what they put in the place of gevent's functions is called."""
import pytest

from moments import CALLED, MOMENTS, noted
from helpers import PLAIN, python

CHANGES = {
    'wrapt.wrap_function_wrapper': '''
def change_all():
    import wrapt
    for owner, name in replaced():
        def wrapper(wrapped, instance, args, kwargs, name=name):
            noted.append(name)
            return wrapped(*args, **kwargs)
        wrapt.wrap_function_wrapper(owner, name, wrapper)
    gevent.spawn_raw = gevent.hub.spawn_raw
''',
    'wrapt.decorator': '''
def change_all():
    import wrapt
    @wrapt.decorator
    def noting(wrapped, instance, args, kwargs):
        noted.append(wrapped.__name__)
        return wrapped(*args, **kwargs)
    for owner, name in replaced():
        setattr(owner, name, noting(getattr(owner, name)))
    gevent.spawn_raw = gevent.hub.spawn_raw
''',
    'mock.patch.object': '''
def change_all():
    import mock
    for owner, name in replaced():
        def replacement(*args, name=name, former=getattr(owner, name), **kwargs):
            noted.append(name)
            return former(*args, **kwargs)
        double = mock.patch.object(owner, name, autospec=True).start()
        double.side_effect = replacement
    gevent.spawn_raw = gevent.hub.spawn_raw
''',
}


@pytest.mark.parametrize('how', CHANGES)
@pytest.mark.parametrize('moment', MOMENTS)
def test_functions_of_gevent(side, how, moment):
    """Attributes of gevent's classes and modules are replaced."""
    assert noted(side, CHANGES[how], moment) == CALLED


BASE_SERVER = '''
import gevent, served
from gevent.baseserver import BaseServer
from gevent.server import StreamServer
NAMES = ('do_handle', '_do_read', 'set_handle', 'start_accepting', 'stop_accepting', 'full',
         'close', 'start', 'stop', '__init__')
noted = []

def serve():
    noted.clear()
    print(served.talk(lambda sock, address: sock.sendall(b'sent'))[0].decode())
    print(*sorted(set(noted)))
'''
#: the same for methods of BaseServer
METHODS = {
    'functools': '''
def change_all():
    import functools
    for name in NAMES:
        def note(former, name):
            @functools.wraps(former)
            def wrapper(*args, **kwargs):
                noted.append(name)
                return former(*args, **kwargs)
            return wrapper
        setattr(BaseServer, name, note(getattr(BaseServer, name), name))
''',
    'wrapt': '''
def change_all():
    import wrapt
    for name in NAMES:
        def wrapper(wrapped, instance, args, kwargs, name=name):
            noted.append(name)
            return wrapped(*args, **kwargs)
        wrapt.wrap_function_wrapper('gevent.baseserver', 'BaseServer.' + name, wrapper)
''',
    'mock': '''
def change_all():
    import mock
    for name in NAMES[:-1]:
        def replacement(*args, name=name, former=getattr(BaseServer, name), **kwargs):
            noted.append(name)
            return former(*args, **kwargs)
        mock.patch('gevent.baseserver.BaseServer.' + name, autospec=True,
                   side_effect=replacement).start()
''',
}


@pytest.mark.parametrize('how', METHODS)
@pytest.mark.parametrize('moment', ['change_all(); install(); serve()',
                                    'install(); change_all(); serve()',
                                    'install(); serve(); change_all(); serve()'],
                         ids=['before install', 'after it', 'after a server'])
def test_methods_of_base_server(side, how, moment):
    """By the names that gevent.baseserver has for them."""
    lines = side.output(python(PLAIN, side.script('\n'.join(
        [side.install(), BASE_SERVER, METHODS[how], moment]))))
    assert lines[-2] == 'sent'
    names = {'do_handle', '_do_read', 'set_handle', 'start_accepting', 'stop_accepting', 'full',
             'close', 'start', 'stop', '__init__'}
    assert lines[-1].split() == sorted(names - {'__init__'} if how == 'mock' else names)


def test_wrapped_while_serving(side):
    """A wrapper around do_handle, and its removal, count for a server that runs."""
    assert side.printed('''
import wrapt
import served
from gevent.server import StreamServer

def wrapper(wrapped, instance, args, kwargs):
    noted.append(wrapped.__name__)
    return wrapped(*args, **kwargs)

noted = []
server = StreamServer(('127.0.0.1', 0), lambda sock, address: sock.sendall(b'sent'))
server.start()
for name in 'do_handle', 'do_read', 'do_close':
    served.ask(server.address)
    print(*noted)
    wrapt.wrap_function_wrapper(StreamServer, name, wrapper)
    served.ask(server.address)
    delattr(StreamServer, name) if name == 'do_handle' else setattr(
        StreamServer, name, getattr(StreamServer, name).__wrapped__)
noted.clear()
print(served.ask(server.address).decode(), *noted)
server.stop()
''') == ['', 'do_handle', 'do_handle do_read do_read', 'sent']


def test_mock_of_a_server(side):
    """It has the names of the class, and no others."""
    assert side.printed('''
import mock
from gevent.server import StreamServer
double = mock.create_autospec(StreamServer, instance=True)
print(*sorted(name for name in dir(double) if not name.startswith('_') and
              name not in dir(mock.NonCallableMagicMock())))
double.stop(timeout=1)
print(double.stop.mock_calls)
try:
    double.begin
except AttributeError as ex:
    print(ex)
''') == [
        'backlog close closed do_close do_handle do_read fatal_errors full get_listener '
        'init_socket is_fatal_error max_accept max_delay min_delay reuse_addr serve_forever '
        'server_host server_port set_handle set_listener set_spawn ssl_enabled start '
        'start_accepting started stop stop_accepting stop_timeout wrap_socket_and_handle',
        '[call(timeout=1)]', "Mock object has no attribute 'begin'"]


@pytest.mark.parametrize('call, error', [
    ('start(1)', 'too many positional arguments'), ('stop(time=1)', 'unexpected keyword'),
    ('stop(1, 2)', 'too many positional'), ('set_handle()', 'missing a required argument'),
    ('close(now=True)', 'unexpected keyword')])
def test_mock_refuses_wrong_arguments(side, call, error):
    (line,) = side.printed('''
import mock
from gevent.server import StreamServer
double = mock.create_autospec(StreamServer, instance=True)
try:
    double.%s
except TypeError as ex:
    print(ex)
else:
    print('accepted')
''' % call)
    assert error in line


def test_prometheus_client(side):
    """Its WSGI application tells what handlers have counted."""
    assert side.printed('''
import prometheus_client
import served
from gevent import pywsgi

def handle(sock, address):
    with seconds.time():
        requests.labels('plain').inc()
        sock.sendall(b'sent')

registry = prometheus_client.CollectorRegistry()
requests = prometheus_client.Counter('requests', 'handled', ['kind'], registry=registry)
seconds = prometheus_client.Histogram('seconds', 'taken', registry=registry)
for name in 'default', 'raw', 'pool', 'hub':
    served.talk(handle, served.spawns()[name], 3)
page = served.page(prometheus_client.make_wsgi_app(registry)).decode()
for line in page.splitlines():
    if line.startswith(('requests_total', 'seconds_count')):
        print(line)
''') == ['requests_total{kind="plain"} 12.0', 'seconds_count 12.0']
