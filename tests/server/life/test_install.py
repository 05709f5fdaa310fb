"""install(), uninstall() and is_installed(), each test in a process of its own.

A test decorated with ``in_child`` runs in a fresh interpreter that has imported nothing of
gevent yet and turns warnings into errors. So this module must not import gevent, nor pytest,
by itself.
"""
import os
import sys

from children import in_child

# For the children


NAMES = ('BaseServer', 'parse_address', '_parse_address', '_extract_family',
         '_handle_and_close_when_done')


def user_module(source):
    """A module as the program would have it, in sys.modules."""
    import types
    module = types.ModuleType('user_module_%d' % len(sys.modules))
    sys.modules[module.__name__] = module
    exec(source, vars(module))
    return module


def echo_server(**options):
    """A running StreamServer."""
    from gevent.server import StreamServer
    from helpers import LOOPBACK, echo
    server = StreamServer(LOOPBACK, echo, **options)
    server.start()
    return server


def loop_is_ours(server):
    """Whether it is our function that the event loop calls for a running server."""
    assert server._watcher.callback == server._do_read
    return server._watcher.callback.__func__.__module__ == 'gevent_cbase.baseserver'


class Callers:
    """Threads with sockets of the standard library that talk to a server all the time."""

    def __init__(self, server, threads=3):
        import threading
        self.address = server.address
        self.answers = []
        self.failures = []
        self.ended = False
        self.threads = [threading.Thread(target=self.run) for _ in range(threads)]
        for thread in self.threads:
            thread.start()

    def run(self):
        import socket
        while not self.ended:
            try:
                with socket.create_connection(self.address, timeout=60) as client:
                    client.sendall(b'ping')
                    answer = client.recv(100) + client.recv(100)
                assert answer == b'ping', answer
                self.answers.append(answer)
            except Exception as ex:
                self.failures.append(ex)

    def end(self):
        from helpers import until
        self.ended = True
        until(lambda: not any(thread.is_alive() for thread in self.threads), 60)
        assert self.failures == []


# Importing


@in_child
def test_importing_changes_nothing():
    """Neither gevent.baseserver nor what is loaded of gevent."""
    import gevent.baseserver
    before = dict(vars(gevent.baseserver))
    methods = dict(vars(gevent.baseserver.BaseServer))
    import gevent_cbase
    assert vars(gevent.baseserver) == before
    assert dict(vars(gevent.baseserver.BaseServer)) == methods
    assert not gevent_cbase.is_installed()
    assert gevent.baseserver.BaseServer is not gevent_cbase.BaseServer
    assert gevent.baseserver.BaseServer.__subclasses__() == []
    for name in 'gevent.server', 'gevent.pywsgi', 'gevent.socket', 'gevent.ssl', 'ssl':
        assert name not in sys.modules, name


@in_child
def test_installing_loads_no_server_and_makes_no_hub():
    """So that a program finds gevent as it would without us."""
    import gevent_cbase
    gevent_cbase.install()
    assert gevent_cbase.is_installed()
    for name in 'gevent.server', 'gevent.pywsgi', 'gevent.ssl', 'ssl':
        assert name not in sys.modules, name
    from gevent._hub_local import get_hub_if_exists
    assert get_hub_if_exists() is None


@in_child
def test_installing_makes_no_hub_of_servers_that_are_loaded():
    """The program may choose its loop afterwards. No descriptor is left, either."""
    import gc
    import gevent.server
    import gevent_cbase
    from gevent._hub_local import get_hub_if_exists
    gc.collect()
    descriptors = os.listdir('/proc/self/fd') if os.path.exists('/proc/self/fd') else None
    for change in (gevent_cbase.uninstall, gevent_cbase.install, gevent_cbase.uninstall,
                   gevent_cbase.install):
        change()
        assert get_hub_if_exists() is None
    if descriptors is not None:
        assert len(os.listdir('/proc/self/fd')) == len(descriptors)
    gevent.config.loop = 'libev-cffi'
    assert type(gevent.get_hub().loop).__module__ == 'gevent.libev.corecffi'


@in_child
def test_in_place_of_gevents_module():
    """Our module under the name of gevent's is enough to run every gevent server."""
    import gevent_cbase.baseserver
    sys.modules['gevent.baseserver'] = gevent_cbase.baseserver
    from urllib.request import urlopen

    import gevent
    from gevent import pywsgi, server
    from helpers import LOOPBACK, ask
    assert server.StreamServer.__bases__ == (gevent_cbase.BaseServer,)
    assert server.DatagramServer.__bases__ == (gevent_cbase.BaseServer,)
    assert pywsgi.WSGIServer.__mro__ == (
        pywsgi.WSGIServer, server.StreamServer, gevent_cbase.BaseServer, object)
    assert ask(echo_server()) == b'ping'

    def application(environ, start_response):
        start_response('200 OK', [])
        return [environ['PATH_INFO'].encode()]
    with pywsgi.WSGIServer(LOOPBACK, application, log=None) as wsgi:
        wsgi.start()
        url = 'http://127.0.0.1:%d/path' % wsgi.server_port
        with gevent.get_hub().threadpool.apply(urlopen, (url,)) as answer:
            assert answer.read() == b'/path'


# Classes


@in_child
def test_before_anything_is_imported():
    """Classes that are defined later have our class as base; uninstall() takes it from them."""
    import gevent_cbase
    gevent_cbase.install()
    import gevent.baseserver
    import gevent.backdoor
    from gevent.pywsgi import WSGIServer
    from gevent.server import DatagramServer, StreamServer
    ours = gevent_cbase.BaseServer
    assert gevent.baseserver.BaseServer is ours
    assert WSGIServer.__mro__ == (WSGIServer, StreamServer, ours, object)
    assert DatagramServer.__mro__ == (DatagramServer, ours, object)
    gevent_cbase.uninstall()
    assert not gevent_cbase.is_installed()
    stock = gevent.baseserver.BaseServer
    assert stock is not ours and stock.__module__ == 'gevent.baseserver'
    assert WSGIServer.__mro__ == (WSGIServer, StreamServer, stock, object)
    assert DatagramServer.__mro__ == (DatagramServer, stock, object)
    assert gevent.backdoor.BackdoorServer.__mro__[1:] == (StreamServer, stock, object)
    assert gevent.server.BaseServer is stock
    assert gevent_cbase.BaseServer is ours
    assert ours.__subclasses__() == []


@in_child
def test_after_everything_is_imported():
    """Classes that exist get our class as base, and their own one back."""
    import gevent.baseserver
    import gevent.pywsgi
    from gevent.server import DatagramServer, StreamServer
    stock = gevent.baseserver.BaseServer
    import gevent_cbase
    ours = gevent_cbase.BaseServer
    gevent_cbase.install()
    assert gevent.baseserver.BaseServer is ours
    assert ours in gevent.pywsgi.WSGIServer.__mro__
    assert stock not in gevent.pywsgi.WSGIServer.__mro__
    assert StreamServer.__bases__ == DatagramServer.__bases__ == (ours,)
    assert stock.__subclasses__() == []
    gevent_cbase.uninstall()
    assert gevent.baseserver.BaseServer is stock
    assert ours not in gevent.pywsgi.WSGIServer.__mro__
    assert StreamServer.__bases__ == DatagramServer.__bases__ == (stock,)
    assert ours.__subclasses__() == []


@in_child
def test_classes_of_the_program():
    """Whatever their shape; those defined while installed are as the others afterwards."""
    import abc

    import gevent.baseserver
    from gevent.server import DatagramServer, StreamServer
    import gevent_cbase
    stock, ours = gevent.baseserver.BaseServer, gevent_cbase.BaseServer
    source = '''
import abc, threading
import gevent.baseserver
from gevent.server import StreamServer, DatagramServer
class Mixin:
    pass
class Direct(gevent.baseserver.BaseServer):
    pass
class Deeper(Direct):
    pass
class Second(Mixin, gevent.baseserver.BaseServer):
    pass
class Both(Mixin, Direct, StreamServer):
    pass
class Slots(gevent.baseserver.BaseServer):
    __slots__ = ('one', 'two')
class Abstract(gevent.baseserver.BaseServer, metaclass=abc.ABCMeta):
    @abc.abstractmethod
    def handle(self, *args):
        pass
class Local(gevent.baseserver.BaseServer, threading.local):
    pass
class Stream(StreamServer):
    pass
'''
    before = user_module(source)
    names = [name for name in vars(before) if isinstance(getattr(before, name), type)]

    def bases(module):
        return {name: getattr(module, name).__bases__ for name in names}
    original = bases(before)
    gevent_cbase.install()
    during = user_module(source)
    for module in before, during:
        for name in names:
            if name != 'Mixin':
                mro = getattr(module, name).__mro__
                assert ours in mro and stock not in mro, name
        assert module.Direct.__bases__ == (ours,)
        assert module.Second.__bases__ == (module.Mixin, ours)
        assert module.Both.__bases__ == (module.Mixin, module.Direct, StreamServer)
        assert module.Abstract.__abstractmethods__ == {'handle'}
    gevent_cbase.uninstall()
    after = user_module(source)
    assert bases(before) == original
    for module in before, during, after:
        for name in names:
            if name != 'Mixin':
                mro = getattr(module, name).__mro__
                assert stock in mro and ours not in mro, name
        assert module.Second.__bases__ == (module.Mixin, stock)
    assert isinstance(before.Abstract, abc.ABCMeta) and DatagramServer.__bases__ == (stock,)


@in_child
def test_class_that_refuses():
    """The others are re-pointed all the same; a RuntimeWarning names it; it stays as it is."""
    import warnings

    import gevent.baseserver
    from gevent.server import StreamServer
    import gevent_cbase
    from helpers import LOOPBACK, ask, echo
    stock, ours = gevent.baseserver.BaseServer, gevent_cbase.BaseServer

    class Stubborn(type):
        def __setattr__(cls, name, value):
            if name == '__bases__':
                raise ZeroDivisionError('leave me alone')
            type.__setattr__(cls, name, value)

    class First(gevent.baseserver.BaseServer):
        pass

    class Refusing(gevent.baseserver.BaseServer, metaclass=Stubborn):
        init_socket = StreamServer.init_socket
        _make_socket_stdlib = StreamServer._make_socket_stdlib
        get_listener = StreamServer.get_listener
        do_read = StreamServer.do_read
        do_close = StreamServer.do_close
        backlog, reuse_addr, ssl_args = 16, 1, None

    class Last(gevent.baseserver.BaseServer):
        pass
    server = Refusing(LOOPBACK, echo)
    server.start()
    for _ in range(2):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter('always')
            gevent_cbase.install()
        warning, = caught
        assert warning.category is RuntimeWarning
        assert 'Refusing' in str(warning.message) and 'leave me alone' in str(warning.message)
        assert warning.filename == __file__  # the caller of install()
        assert gevent_cbase.is_installed()
        assert First.__bases__ == Last.__bases__ == StreamServer.__bases__ == (ours,)
        assert Refusing.__bases__ == (stock,)
        assert ask(server) == b'ping' and not loop_is_ours(server)
        gevent_cbase.uninstall()  # without a warning: -W error
        assert First.__bases__ == Last.__bases__ == Refusing.__bases__ == (stock,)
        assert ask(server) == b'ping'


@in_child
def test_classes_made_of_ours_on_purpose():
    """A class defined from gevent_cbase.BaseServer before install() keeps it afterwards."""
    import gevent.baseserver
    import gevent_cbase
    from gevent.server import StreamServer
    from helpers import LOOPBACK, ask, echo
    stock, ours = gevent.baseserver.BaseServer, gevent_cbase.BaseServer
    on_purpose = user_module('from gevent_cbase import BaseServer, parse_address')

    class Mine(gevent_cbase.BaseServer):
        pass

    class Mixed(Mine, StreamServer):
        pass
    assert Mixed.__mro__ == (Mixed, Mine, ours, StreamServer, stock, object)
    server = Mine(('', 0), echo)
    for _ in range(2):
        gevent_cbase.install()
        assert Mine.__bases__ == (ours,)
        assert Mixed.__mro__ == (Mixed, Mine, StreamServer, ours, object)
        assert isinstance(server, gevent.baseserver.BaseServer)
        running = Mixed(LOOPBACK, echo)
        running.start()
        assert ask(running) == b'ping' and loop_is_ours(running)
        running.stop()
        gevent_cbase.uninstall()
        assert Mine.__bases__ == (ours,)
        assert Mixed.__mro__ == (Mixed, Mine, ours, StreamServer, stock, object)
        assert type(server) is Mine and StreamServer.__bases__ == (stock,)
        assert on_purpose.BaseServer is ours
        assert on_purpose.parse_address is gevent_cbase.parse_address


# Names


@in_child
def test_names_in_loaded_modules():
    """Wherever a module's name holds one of gevent's objects it holds ours, and back again."""
    import gevent.baseserver
    import gevent.server  # noqa: F401
    import gevent_cbase.baseserver
    source = '''
from gevent import baseserver, server
from gevent.baseserver import *
from gevent.baseserver import parse_address, _parse_address, _extract_family
from gevent.baseserver import BaseServer as Base, _handle_and_close_when_done as run
inside = [Base]
'''
    names = {'BaseServer': 'BaseServer', 'Base': 'BaseServer', 'parse_address': 'parse_address',
             '_parse_address': '_parse_address', '_extract_family': '_extract_family',
             'run': '_handle_and_close_when_done'}
    stock = {name: getattr(gevent.baseserver, name) for name in NAMES}
    ours = {name: getattr(gevent_cbase.baseserver, name) for name in NAMES}
    assert not set(map(id, stock.values())) & set(map(id, ours.values()))
    before = user_module(source)
    original = dict(vars(before))
    gevent_cbase.install()
    during = user_module(source)
    for module in before, during:
        for name, meaning in names.items():
            assert getattr(module, name) is ours[meaning], name
    for name in NAMES:
        assert getattr(gevent.baseserver, name) is ours[name]
    assert gevent.server.BaseServer is ours['BaseServer']
    assert before.inside == [stock['BaseServer']]
    gevent_cbase.uninstall()
    for module in before, during:
        for name, meaning in names.items():
            assert getattr(module, name) is stock[meaning], name
    for name in NAMES:
        assert getattr(gevent.baseserver, name) is stock[name]
        assert getattr(gevent_cbase.baseserver, name) is ours[name]
    assert gevent.server.BaseServer is stock['BaseServer']
    assert vars(before) == original
    assert gevent_cbase.BaseServer is ours['BaseServer']
    assert gevent_cbase.parse_address is ours['parse_address']


@in_child
def test_odd_things_in_sys_modules():
    """Entries that are no modules, or modules that are loaded when touched, are left alone."""
    import types

    import gevent_cbase

    class Touchy(types.ModuleType):
        def __getattr__(self, name):
            raise ZeroDivisionError(name)

        def __setattr__(self, name, value):
            raise ZeroDivisionError(name)

    class Hostile:
        def __getattr__(self, name):
            raise ZeroDivisionError(name)
    sys.modules['nothing'] = None
    sys.modules['number'] = 42
    sys.modules['hostile'] = Hostile()
    sys.modules['touchy'] = Touchy('touchy')
    sys.modules['nameless'] = types.ModuleType('nameless')
    del sys.modules['nameless'].__name__
    gevent_cbase.install()
    assert gevent_cbase.is_installed()
    gevent_cbase.uninstall()


@in_child
def test_lazy_modules_stay_unloaded():
    """A module whose import is put off until it is used is not imported by install()."""
    import importlib.util
    import tempfile

    import gevent_cbase
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, 'lazy.py')
        with open(path, 'w') as file:
            file.write('from gevent.baseserver import BaseServer\nimport sys\nsys.loaded = 1\n')
        spec = importlib.util.spec_from_file_location('lazy', path)
        spec.loader = importlib.util.LazyLoader(spec.loader)
        lazy = sys.modules['lazy'] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(lazy)
        gevent_cbase.install()
        assert not hasattr(sys, 'loaded')
        assert lazy.BaseServer is gevent_cbase.BaseServer
        assert hasattr(sys, 'loaded')
        gevent_cbase.uninstall()
        assert lazy.BaseServer is not gevent_cbase.BaseServer


# Instances


@in_child
def test_instances():
    """Those that exist, of whatever class, are instances of the base class in force."""
    import gevent.baseserver
    from gevent.pywsgi import WSGIServer
    from gevent.server import DatagramServer, StreamServer
    import gevent_cbase
    from helpers import LOOPBACK, echo
    stock, ours = gevent.baseserver.BaseServer, gevent_cbase.BaseServer

    class Slots(gevent.baseserver.BaseServer):
        __slots__ = ('extra',)

    def make():
        slots = Slots(LOOPBACK, echo)
        slots.extra = 1
        return [StreamServer(LOOPBACK, echo), DatagramServer(LOOPBACK, echo), slots,
                WSGIServer(LOOPBACK)]

    def check(base, other):
        for server in servers:
            assert isinstance(server, gevent.baseserver.BaseServer)
            assert isinstance(server, base)
            assert isinstance(server, other) is (other is stock)  # that is no longer in force
            assert base in type(server).__mro__ and other not in type(server).__mro__
        assert [repr(server)[:12] for server in servers[:4]] == [
            '<StreamServe', '<DatagramSer', '<Slots at 0x', '<WSGIServer ']
        assert all(server.extra == 1 for server in servers[2::4])
    servers = make()
    contents = [dict(vars(server)) for server in servers]
    dicts = [vars(server) for server in servers]
    gevent_cbase.install()
    assert [vars(server) for server in servers] == contents
    assert all(vars(server) is content for server, content in zip(servers, dicts))
    servers += make()
    check(ours, stock)
    gevent_cbase.uninstall()
    servers += make()
    check(stock, ours)
    assert [vars(server) for server in servers[:4]] == contents
    gevent_cbase.install()
    check(ours, stock)


@in_child
def test_classes_that_cannot_be_compared():
    """A metaclass may raise: neither its servers nor its other instances are in the way."""
    from gevent.server import StreamServer
    import gevent_cbase
    from helpers import LOOPBACK, ask, echo

    class Hostile(type):
        def __eq__(cls, other):
            raise ZeroDivisionError
        __hash__ = type.__hash__

    class Other(metaclass=Hostile):
        pass

    class Server(StreamServer, metaclass=Hostile):
        pass
    other = Other()
    other.itself = other  # the collector knows it
    server = Server(LOOPBACK, echo)
    server.start()
    for _ in range(2):
        gevent_cbase.install()
        assert loop_is_ours(server) and ask(server) == b'ping'
        gevent_cbase.uninstall()
        assert not loop_is_ours(server) and ask(server) == b'ping'


@in_child
def test_instances_of_the_base_class_itself():
    """Those made of gevent.baseserver.BaseServer, before or meanwhile; not those made of ours."""
    import gevent.baseserver
    import gevent_cbase
    stock, ours = gevent.baseserver.BaseServer, gevent_cbase.BaseServer

    def make():
        server = gevent.baseserver.BaseServer(('', 0), print)
        server.extra = 1
        return server
    on_purpose = ours(('', 0), print)
    servers = [make()]
    content = vars(servers[0])
    gevent_cbase.install()
    servers.append(make())
    assert [type(server) for server in servers] == [ours] * 2
    gevent_cbase.uninstall()
    assert type(on_purpose) is ours
    servers.append(make())
    assert [type(server) for server in servers] == [stock] * 3
    gevent_cbase.install()
    assert [type(server) for server in servers] == [ours] * 3
    assert vars(servers[0]) is content and [server.extra for server in servers] == [1] * 3


@in_child
def test_patches_of_the_class():
    """What a program has set on gevent's class before install() counts for ours as well."""
    import gevent.baseserver
    import gevent_cbase
    stock, ours = gevent.baseserver.BaseServer, gevent_cbase.BaseServer
    pristine = dict(vars(ours))

    def do_handle(self, *args):
        """Mine."""
    stock.max_accept, stock.min_delay, stock.novelty, stock.do_handle = 1, 0.01, 'x', do_handle
    for _ in range(2):
        gevent_cbase.install()
        gevent_cbase.install()
        assert (ours.max_accept, ours.min_delay, ours.novelty) == (1, 0.01, 'x')
        assert ours.do_handle is do_handle and vars(ours)['full'] is pristine['full']
        gevent_cbase.uninstall()
        assert dict(vars(ours)) == pristine
    assert (stock.max_accept, stock.novelty, stock.do_handle) == (1, 'x', do_handle)


@in_child
def test_servers_are_not_kept_alive():
    """Neither by install() nor by uninstall()."""
    import weakref

    import gevent.baseserver
    from gevent.server import StreamServer
    import gevent_cbase
    from helpers import LOOPBACK, echo

    def make():
        return [StreamServer(LOOPBACK, echo), gevent.baseserver.BaseServer(LOOPBACK, echo)]

    def gone(servers):
        refs = [weakref.ref(server) for server in servers]
        servers.clear()
        return [ref() for ref in refs] == [None, None]
    servers = make()
    gevent_cbase.install()
    assert gone(servers)
    servers, others = make(), make()
    gevent_cbase.uninstall()
    assert gone(servers)
    gevent_cbase.install()
    assert gone(others)


# Again and again


@in_child
def test_twice_is_once():
    """install() and uninstall() may be repeated; one uninstall() undoes all."""
    import gevent.baseserver
    from gevent.server import StreamServer
    import gevent_cbase
    stock, ours = gevent.baseserver.BaseServer, gevent_cbase.BaseServer
    before = dict(vars(gevent.baseserver))
    gevent_cbase.uninstall()
    assert vars(gevent.baseserver) == before and StreamServer.__bases__ == (stock,)
    for _ in range(3):
        for _ in range(2):
            gevent_cbase.install()
            assert gevent_cbase.is_installed() is True
            assert StreamServer.__bases__ == (ours,)
        for _ in range(2):
            gevent_cbase.uninstall()
            assert gevent_cbase.is_installed() is False
            assert StreamServer.__bases__ == (stock,)
            assert vars(gevent.baseserver) == before


@in_child
def test_again_for_what_came_later():
    """A class made of a kept reference to gevent's class is found by the next install()."""
    import gevent.baseserver
    import gevent_cbase
    stock, ours = gevent.baseserver.BaseServer, gevent_cbase.BaseServer
    gevent_cbase.install()

    class Late(stock):
        pass
    server = stock(('', 0), print)
    gevent_cbase.install()
    assert Late.__bases__ == (ours,) and type(server) is ours
    gevent_cbase.uninstall()
    assert Late.__bases__ == (stock,) and type(server) is stock


@in_child(GEVENT_CBASE='0')
def test_switched_off():
    """With GEVENT_CBASE=0 install() does nothing, before and after gevent is imported."""
    import gevent_cbase
    gevent_cbase.install()
    assert gevent_cbase.is_installed() is False
    import gevent.baseserver
    from gevent.server import StreamServer
    from helpers import ask
    before = dict(vars(gevent.baseserver))
    server = echo_server()
    gevent_cbase.install()
    assert gevent_cbase.is_installed() is False
    assert vars(gevent.baseserver) == before
    assert StreamServer.__bases__ == (gevent.baseserver.BaseServer,)
    assert gevent_cbase.BaseServer.__subclasses__() == []
    assert not loop_is_ours(server) and ask(server) == b'ping'
    gevent_cbase.uninstall()
    assert vars(gevent.baseserver) == before


@in_child(GEVENT_CBASE='1')
def test_switched_on():
    """1 and its like change nothing; test_switches.py has all values."""
    import gevent_cbase
    gevent_cbase.install()
    assert gevent_cbase.is_installed() is True


@in_child(GEVENT_CBASE='')
def test_switch_is_empty():
    """An empty GEVENT_CBASE is as none."""
    import gevent_cbase
    gevent_cbase.install()
    assert gevent_cbase.is_installed() is True


# Monkey patching


def serve_patched():
    """A patched program: its sockets and threads are gevent's and its servers are ours."""
    import socket
    import threading
    import gevent_cbase
    import gevent.socket
    from gevent.server import StreamServer
    assert socket.socket is gevent.socket.socket
    assert StreamServer.__bases__ == (gevent_cbase.BaseServer,)
    both_here = threading.Barrier(2)

    def handle(sock, address):
        both_here.wait(60)  # needs the two handlers at the same time
        sock.sendall(sock.recv(100))
    listener = socket.create_server(('127.0.0.1', 0))
    with StreamServer(listener, handle) as server:
        server.start()
        assert loop_is_ours(server)
        answers = []

        def client():
            with socket.create_connection(server.address, timeout=60) as sock:
                sock.sendall(b'ping')
                answers.append(sock.recv(100))
        threads = [threading.Thread(target=client) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert answers == [b'ping', b'ping']


@in_child
def test_patched_before():
    """monkey.patch_all(), then the servers, then install()."""
    from gevent import monkey
    monkey.patch_all()
    import gevent.server  # noqa: F401
    import gevent_cbase
    gevent_cbase.install()
    serve_patched()


@in_child
def test_patched_after():
    """install() first; patching finds nothing that was imported too early (-W error)."""
    import gevent_cbase
    gevent_cbase.install()
    from gevent import monkey
    monkey.patch_all()
    serve_patched()


@in_child
def test_patched_between():
    """The servers, then install(), then monkey.patch_all(); and once more after uninstall()."""
    import gevent.server  # noqa: F401
    import gevent_cbase
    gevent_cbase.install()
    from gevent import monkey
    monkey.patch_all()
    serve_patched()
    gevent_cbase.uninstall()
    gevent_cbase.install()
    serve_patched()


# Running servers


@in_child
def test_running_server_changes_its_loop():
    """The very next connection is accepted by our loop, and after uninstall() by gevent's."""
    import gevent_cbase
    from helpers import ask
    server = echo_server()
    watcher = server._watcher
    for _ in range(3):
        assert not loop_is_ours(server) and ask(server) == b'ping'
        gevent_cbase.install()
        assert loop_is_ours(server) and ask(server) == b'ping'
        gevent_cbase.install()
        assert loop_is_ours(server) and ask(server) == b'ping'
        gevent_cbase.uninstall()
    assert server._watcher is watcher and watcher.active
    server.stop()
    assert server.closed


@in_child
def test_server_started_on_ours_goes_on_on_gevents():
    """The other way round: uninstall() with a server that has never run on gevent's class."""
    import gevent_cbase
    gevent_cbase.install()
    from helpers import ask
    server = echo_server(spawn=2)
    assert loop_is_ours(server) and ask(server) == b'ping'
    gevent_cbase.uninstall()
    assert not loop_is_ours(server) and ask(server) == b'ping'
    server.stop()
    assert server.closed and server.pool._semaphore.linkcount() == 0


@in_child
def test_override_keeps_the_loop():
    """A class with a _do_read of its own goes on being called, and calls its new base's."""
    import gevent_cbase
    from gevent.server import StreamServer
    from helpers import LOOPBACK, ask, echo
    calls = []

    class Counting(StreamServer):
        def _do_read(self):
            calls.append(gevent_cbase.is_installed())
            super()._do_read()
    server = Counting(LOOPBACK, echo)
    server.start()
    for expected in False, True, False:
        del calls[:]
        assert ask(server) == b'ping'
        assert set(calls) == {expected}
        assert server._watcher.callback.__func__ is vars(Counting)['_do_read']
        gevent_cbase.uninstall() if expected else gevent_cbase.install()


@in_child
def test_no_connection_is_lost():
    """Clients talk to a server while install() and uninstall() take turns."""
    import gevent_cbase
    from helpers import until
    server = echo_server()
    callers = Callers(server)
    for turn in range(20):
        reached = len(callers.answers) + 10
        until(lambda: len(callers.answers) >= reached or callers.failures, 60)
        gevent_cbase.uninstall() if turn % 2 else gevent_cbase.install()
        assert loop_is_ours(server) is (turn % 2 == 0)
    callers.end()
    assert len(callers.answers) >= 200


@in_child
def test_no_connection_is_lost_with_a_small_pool():
    """The same with a server that is mostly paused, because its pool is full."""
    import gevent
    import gevent_cbase
    from gevent.server import StreamServer
    from helpers import LOOPBACK, echo, until

    def slow_echo(sock, address):
        gevent.sleep(0.001)
        echo(sock, address)
    server = StreamServer(LOOPBACK, slow_echo, spawn=1)
    server.start()
    callers = Callers(server, threads=4)
    for turn in range(20):
        reached = len(callers.answers) + 10
        until(lambda: len(callers.answers) >= reached or callers.failures, 60)
        gevent_cbase.uninstall() if turn % 2 else gevent_cbase.install()
    callers.end()
    server.stop()
    assert server.pool._semaphore.linkcount() == 0


@in_child
def test_paused_by_a_full_pool():
    """A server that waits for a free slot goes on, on its new class, when there is one."""
    import gevent
    import gevent_cbase
    from gevent.event import Event
    from gevent.pool import Pool
    from gevent.server import StreamServer
    from helpers import LOOPBACK, ask, echo, until
    gates = [Event(), Event()]
    got = []

    def handle(sock, address):
        got.append(address)
        gates[len(got) - 1].wait()
        echo(sock, address)
    for first, second in ((gevent_cbase.install, gevent_cbase.uninstall),
                          (lambda: None, gevent_cbase.install)):
        first()
        for gate in gates:
            gate.clear()
        del got[:]
        server = StreamServer(LOOPBACK, handle, spawn=Pool(1))
        server.start()
        answers = [gevent.spawn(ask, server) for _ in range(2)]
        until(lambda: got and server._watcher is None)
        second()
        gevent.sleep(0.02)
        assert len(got) == 1 and server._watcher is None
        gates[0].set()
        until(lambda: len(got) == 2)
        gates[1].set()
        assert [answer.get() for answer in answers] == [b'ping', b'ping']
        until(lambda: server._watcher is not None)
        assert loop_is_ours(server) is gevent_cbase.is_installed()
        server.stop()
        assert server.pool._semaphore.linkcount() == 0
        gevent_cbase.uninstall()


@in_child
def test_linked_to_its_pool_more_than_once():
    """Each link, made by set_spawn() and by a wake-up with the pool full, is moved."""
    import gevent_cbase
    from gevent.pool import Pool
    from gevent.server import StreamServer
    from helpers import LOOPBACK, echo
    server = StreamServer(LOOPBACK, echo, spawn=Pool(0))
    server.init_socket()
    server._do_read()
    semaphore = server.pool._semaphore
    for change in (gevent_cbase.install, gevent_cbase.uninstall):
        assert semaphore.linkcount() == 2
        change()
        for left in (1, 0):
            semaphore.unlink(server._start_accepting_if_started)
            assert semaphore.linkcount() == left
        server.set_spawn(server.pool)
        server._do_read()
    server.stop()


@in_child
def test_paused_by_an_error():
    """A server that waits after a failed accept goes on, on its new class, after the delay."""
    import errno

    import gevent
    import gevent_cbase
    from gevent.server import StreamServer
    from helpers import LOOPBACK, ask, echo, until
    errors = []
    gevent.get_hub().handle_error = lambda context, kind, value, tb: errors.append(kind)

    class Flaky(StreamServer):
        min_delay = 0.5

        def do_read(self):
            if not errors:
                raise OSError(errno.EMFILE, 'Too many open files')
            return StreamServer.do_read(self)
    for first, second in ((gevent_cbase.install, gevent_cbase.uninstall),
                          (lambda: None, gevent_cbase.install)):
        del errors[:]
        first()
        server = Flaky(LOOPBACK, echo)
        server.start()
        answer = gevent.spawn(ask, server)
        until(lambda: errors)
        assert errors == [OSError] and server._watcher is None and server._timer.active
        second()
        assert server._timer.callback == server._start_accepting_if_started
        assert answer.get() == b'ping'
        assert loop_is_ours(server) is gevent_cbase.is_installed()
        server.stop()
        gevent_cbase.uninstall()


@in_child
def test_stopped_by_hand():
    """A server between stop_accepting() and start_accepting()."""
    import gevent
    import gevent_cbase
    from helpers import ask, until
    server = echo_server()
    server.stop_accepting()
    answer = gevent.spawn(ask, server)
    gevent_cbase.install()
    gevent.sleep(0.02)
    assert not answer.dead and server._watcher is None
    server.start_accepting()
    assert loop_is_ours(server) and answer.get() == b'ping'
    server.stop_accepting()
    gevent_cbase.uninstall()
    server.start_accepting()
    until(lambda: ask(server) == b'ping')
    assert not loop_is_ours(server)


@in_child
def test_serve_forever():
    """A greenlet inside of serve_forever() goes on waiting and is ended by stop()."""
    import gevent
    import gevent_cbase
    from gevent.server import StreamServer
    from helpers import LOOPBACK, ask, echo, until
    for first, second in ((lambda: None, gevent_cbase.install),
                          (lambda: None, gevent_cbase.uninstall)):
        server = StreamServer(LOOPBACK, echo, spawn=3)
        runner = gevent.spawn(server.serve_forever)
        until(lambda: server.started)
        second()
        assert ask(server) == b'ping' and not runner.dead
        server.stop()
        assert runner.get() is None and server.closed


@in_child
def test_from_inside_of_the_accept_loop():
    """A handler with spawn=None exchanges the loop that is just running."""
    import gevent_cbase
    from gevent.server import StreamServer
    from helpers import LOOPBACK, ask, connect_natively, until
    turns = []

    def handle(sock, address):
        gevent_cbase.uninstall() if gevent_cbase.is_installed() else gevent_cbase.install()
        turns.append(gevent_cbase.is_installed())
        sock.sendall(b'done')
    server = StreamServer(LOOPBACK, handle, spawn=None)
    server.start()
    clients = [connect_natively(server) for _ in range(4)]  # all in one wake-up of the loop
    until(lambda: len(turns) == 4)
    assert [client.recv(10) for client in clients] == [b'done'] * 4
    for client in clients:
        client.close()
    assert ask(server, b'') == b'done'
    assert turns == [True, False, True, False, True]
    assert loop_is_ours(server)


@in_child
def test_datagram_and_wsgi_servers():
    """The other servers of gevent, running."""
    import socket

    import gevent
    import gevent_cbase
    from gevent.pywsgi import WSGIServer
    from gevent.server import DatagramServer
    from helpers import LOOPBACK, ask
    udp = DatagramServer(LOOPBACK, lambda data, address: udp.sendto(data.upper(), address))
    udp.start()
    client = gevent.socket.socket(type=socket.SOCK_DGRAM)
    client.settimeout(60)

    def application(environ, start_response):
        start_response('200 OK', [])
        return [b'hello']
    wsgi = WSGIServer(LOOPBACK, application, log=None)
    wsgi.start()
    for change in gevent_cbase.install, gevent_cbase.uninstall:
        change()
        client.sendto(b'ping', udp.address)
        assert client.recv(100) == b'PING'
        assert ask(wsgi, b'GET / HTTP/1.0\r\n\r\n').endswith(b'\r\n\r\nhello')
        for server in udp, wsgi:
            assert loop_is_ours(server) is gevent_cbase.is_installed()
    client.close()


@in_child
def test_servers_in_other_threads():
    """Each with a hub of its own; install() is called in the main thread."""
    import socket
    import threading

    import gevent
    import gevent_cbase
    servers, ends, ready = [], [], threading.Semaphore(0)

    def run():
        end = gevent.get_hub().loop.async_()
        waiting = gevent.event.Event()
        end.start(waiting.set)
        server = echo_server()
        servers.append(server)
        ends.append(end)
        ready.release()
        waiting.wait()
        server.stop()
        end.close()

    def ask_natively(server):
        with socket.create_connection(server.address, timeout=60) as client:
            client.sendall(b'ping')
            return client.recv(100)
    import gevent.event
    import gevent.server  # noqa: F401 (not in two threads at a time)
    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for _ in threads:
        assert ready.acquire(timeout=60)
    for change, ours in ((gevent_cbase.install, True), (gevent_cbase.uninstall, False),
                         (gevent_cbase.install, True)):
        change()
        for server in servers:
            assert ask_natively(server) == b'ping'
            assert loop_is_ours(server) is ours  # since its loop has run
    for end in ends:
        end.send()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert all(server.closed for server in servers)


@in_child
def test_links_of_a_pool_that_come_and_go():
    """While they are exchanged, others unlink theirs: the accept loop is never linked."""
    import gevent_cbase
    from gevent.server import StreamServer

    class Semaphore:
        count, linked = 9, []

        def linkcount(self):
            self.count = max(self.count - 1, 0)
            return self.count

        def rawlink(self, callback):
            self.linked.append(callback.__name__)

        def unlink(self, callback):
            pass

    class Pool:
        _semaphore = Semaphore()

        def spawn(self, function, *args):
            function(*args)

        def full(self):
            return False
    server = StreamServer(('127.0.0.1', 0), print, spawn=Pool())
    server.start()
    gevent_cbase.install()
    assert set(Semaphore.linked) == {'_start_accepting_if_started'}
    assert loop_is_ours(server)
    Semaphore.count = 9
    gevent_cbase.uninstall()
    assert set(Semaphore.linked) == {'_start_accepting_if_started'}
    server.close()
