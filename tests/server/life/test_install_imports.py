"""install() loads nothing of gevent: the program does, and decides when gevent.baseserver binds
what it imports. Programs that replace parts of gevent first, on stock and with install() before.
"""
import sys

import pytest

from helpers import PLAIN, isolated

#: a program that replaces Greenlet, then imports a server, and prints what runs its handlers
PROGRAM = '''
    import gevent
    import gevent.greenlet
    first = gevent.Greenlet

    class Traced(first):
        pass
    gevent.Greenlet = gevent.greenlet.Greenlet = Traced
    import gevent.baseserver
    import gevent.pool
    from gevent import socket
    from gevent.server import StreamServer
    gevent.Greenlet = gevent.greenlet.Greenlet = first
    seen = []

    def handle(sock, address):
        seen.append(type(gevent.getcurrent()).__name__)

    class Server(StreamServer):
        def stop(self, timeout=None):
            seen.append(type(gevent.getcurrent()).__name__)
            super().stop(timeout)

    def run(spawn):
        server = Server(('127.0.0.1', 0), handle, spawn=spawn)
        runner = gevent.spawn(server.serve_forever)
        gevent.sleep(0)
        with socket.create_connection(server.address) as client:
            assert client.recv(1) == b''
        server._stop_event.set()
        runner.join()
        print(*seen)
        del seen[:]
    for spawn in 'default', 3, gevent.pool.Pool(3):
        run(spawn)
    from gevent import baseserver
    print(baseserver.BaseServer._spawn.__self__.__name__, baseserver.Greenlet.__name__)
'''
BOUND_LATE = ['Traced Traced'] * 4


def test_greenlet_replaced_before_servers_are_imported(impl, tmp_path):
    """As an instrumentation does that is imported first: under ``python -m gevent_cbase``."""
    assert isolated(impl, tmp_path, PROGRAM) == BOUND_LATE


def test_greenlet_replaced_between_install_and_import(impl, tmp_path):
    """Also what uninstall() gives back, and install() takes again."""
    program = PROGRAM if impl.stock else PROGRAM + '''
    import gevent_cbase
    assert gevent_cbase.is_installed()
    assert gevent_cbase.BaseServer._spawn.__self__ is Traced
    gevent_cbase.uninstall()
    assert gevent.baseserver.BaseServer._spawn.__self__ is Traced
    run('default')
    gevent_cbase.install()
    run('default')
    gevent_cbase.uninstall()
    '''
    assert isolated(impl, tmp_path, program) == BOUND_LATE + ['Traced Traced'] * (
        0 if impl.stock else 2)


def test_greenlet_replaced_and_servers_there_already(impl, tmp_path):
    """They go on with what they have bound; only new pools have the new one."""
    program = '    import gevent.baseserver\n' + PROGRAM
    assert isolated(impl, tmp_path, program) == [
        'Greenlet Greenlet', 'Traced Greenlet', 'Traced Greenlet', 'Greenlet Greenlet']


@pytest.mark.parametrize('way', ['from gevent_cbase.baseserver import BaseServer',
                                 'from gevent_cbase import BaseServer',
                                 'import gevent_cbase.baseserver as module'])
def test_our_own_module_binds_when_imported(impl, tmp_path, way):
    """Not with the package. On stock: gevent.baseserver."""
    if impl.stock:
        way = way.replace('gevent_cbase import', 'gevent.baseserver import').replace(
            'gevent_cbase.', 'gevent.')
    assert isolated(impl, tmp_path, '''
    import gevent, gevent.greenlet
    if not %(stock)s:
        import gevent_cbase
        gevent_cbase.uninstall()

    class Traced(gevent.Greenlet):
        pass
    first, gevent.greenlet.Greenlet = gevent.Greenlet, Traced
    %(way)s
    gevent.greenlet.Greenlet = first
    BaseServer = module.BaseServer if 'module' in globals() else BaseServer
    print(BaseServer._spawn.__self__.__name__)
    ''' % {'stock': impl.stock, 'way': way}) == ['Traced']


# What is imported


def test_modules_of_install(tmp_path):
    """No more than ``import gevent.server`` loads, but for our own, and for what compares code:
    tables and functions that nobody patches, without locks and threads.
    """
    comparing = {'opcode', '_opcode', '_opcode_metadata', 'bisect', '_bisect', '_sha2', '_sha256'}
    if sys.version_info >= (3, 15):  # typing.NamedTuple does so
        comparing |= {'annotationlib', 'ast', '_ast'}
    shown = "import sys; print('\\n'.join(sys.modules))"
    stock = set(isolated(PLAIN, tmp_path, 'import gevent.server; ' + shown))
    ours = set(isolated(PLAIN, tmp_path,
                        'import gevent_cbase; gevent_cbase.install(); ' + shown))
    assert {name for name in ours - stock - comparing
            if name.partition('.')[0] != 'gevent_cbase'} == set()
    assert 'gevent.baseserver' in stock - ours and 'socket' in stock


def test_threading_and_logging_are_left_to_the_program(tmp_path):
    """What monkey.patch_all() had better find unimported."""
    assert isolated(PLAIN, tmp_path, '''
    import gevent_cbase
    gevent_cbase.install()
    import sys
    print(sorted({'threading', 'logging', 'ssl', 'subprocess', 'queue', 'gevent.baseserver',
                  'gevent.pool', 'gevent.server'} & set(sys.modules)))
    from gevent import monkey
    monkey.patch_all()
    import gevent.server
    print(gevent_cbase.is_installed(), gevent.server.StreamServer.__mro__[1].__module__)
    ''') == ['[]', 'True gevent_cbase.baseserver']


def test_our_module_loaded_anew(tmp_path):
    """Servers of either class serve."""
    assert isolated(PLAIN, tmp_path, '''
    import importlib
    import gevent
    import gevent_cbase.baseserver as module
    from gevent import socket

    def serve(cls):
        class Server(cls):
            max_accept = 1

            def do_read(self):
                return self.socket.accept()

            def do_close(self, client, address):
                client.close()
        listener = socket.socket()
        listener.bind(('127.0.0.1', 0))
        listener.listen()
        server = Server(listener, lambda client, address: client.sendall(b'served'))
        server.start()
        with socket.create_connection(server.address) as client:
            print(client.recv(9), cls is module.BaseServer)
        server.stop()
    former = module.BaseServer
    serve(former)
    importlib.reload(module)
    serve(module.BaseServer)
    serve(former)
    ''') == ["b'served' True", "b'served' True", "b'served' False"]


# The import hook


HOOK = '''
    import importlib, importlib.util, sys
    import gevent_cbase
    finders, former = sys.meta_path, list(sys.meta_path)
'''


@pytest.mark.parametrize('body, expected', [
    pytest.param('''
    gevent_cbase.install()
    gevent_cbase.install()
    print(len(finders) - len(former), gevent_cbase.is_installed())
    gevent_cbase.uninstall()
    print(finders == former, gevent_cbase.is_installed())
    import gevent.server
    print(gevent.server.StreamServer.__bases__[0].__module__)
    ''', ['1 True', 'True False', 'gevent.baseserver'], id='taken out again'),
    pytest.param('''
    import gevent
    stock = importlib.util.find_spec('gevent.baseserver')
    gevent_cbase.install()
    spec = importlib.util.find_spec('gevent.baseserver')
    print(spec.origin == stock.origin, spec.loader.get_source('gevent.baseserver')[:13])
    print(spec.loader.is_package('gevent.baseserver'), 'gevent.baseserver' in sys.modules)
    module = importlib.import_module('gevent.baseserver')
    print(type(module.__loader__) is type(stock.loader), module.__spec__ == stock,
          module.__loader__ is module.__spec__.loader, module.__spec__.cached == stock.cached)
    ''', ['True """Base class', 'False False', 'True True True True'], id='not to be seen'),
    pytest.param('''
    gevent_cbase.install()
    import gevent.baseserver
    from gevent.server import StreamServer
    first = gevent_cbase._install._installed.originals['BaseServer']
    importlib.reload(gevent.baseserver)
    print(gevent_cbase.is_installed(), StreamServer.__bases__ == (first,))

    class Later(gevent.baseserver.BaseServer):
        pass
    print(Later.__bases__ == (gevent_cbase.BaseServer,), type(first) is type)
    gevent_cbase.uninstall()
    print(gevent.baseserver.BaseServer.__module__, gevent.baseserver.BaseServer is first,
          StreamServer.__bases__ == (first,), Later.__bases__[0] is gevent.baseserver.BaseServer)
    ''', ['True True', 'True True', 'gevent.baseserver False True True'], id='reloaded'),
    pytest.param('''
    import _thread
    sys.setswitchinterval(1e-6)
    done = []

    def change():
        for _ in range(40):
            gevent_cbase.install()
            gevent_cbase.uninstall()
        gevent_cbase.install()
        done.append(1)
    _thread.start_new_thread(change, ())
    for _ in range(40):
        import gevent.server
        for name in 'gevent.server', 'gevent.baseserver':
            sys.modules.pop(name, None)
    import time
    while not done:
        time.sleep(0.001)
    import gevent.server
    print(gevent_cbase.is_installed(), gevent.server.StreamServer.__mro__[1].__module__)
    ''', ['True gevent_cbase.baseserver'], id='loaded while another thread installs'),
    pytest.param('''
    class Odd:
        def __eq__(self, other):
            raise ZeroDivisionError
    finders.insert(0, Odd())
    finders.append(Odd())
    Odd.find_spec = lambda self, name, path=None, target=None: None
    gevent_cbase.install()
    import gevent.server
    print(gevent_cbase.is_installed(), len(finders) - len(former))
    gevent_cbase.uninstall()
    print(len(finders) - len(former))
    ''', ['True 3', '2'], id='among other finders'),
])
def test_hook(tmp_path, body, expected):
    assert isolated(PLAIN, tmp_path, HOOK + body) == expected


def test_module_that_cannot_be_loaded(impl, tmp_path):
    """The error is the program's, and the next import starts anew."""
    assert isolated(impl, tmp_path, '''
    import sys
    import gevent, gevent.event
    event = gevent.event.Event
    del gevent.event.Event
    try:
        import gevent.server
    except ImportError as ex:
        print('Event' in str(ex), 'gevent.baseserver' in sys.modules)
    gevent.event.Event = event
    import gevent.server
    print(gevent.server.StreamServer.__mro__[1].__name__)
    ''') == ['True False', 'BaseServer']
