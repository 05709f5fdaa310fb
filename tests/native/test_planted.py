"""Whatever a native step stands for may be rewritten or replaced at any moment: that is what runs.

Each function gets other code, which notes that it ran and claims to be of the same lines of the
same file. Each name that one of them reads is bound to something else, and each variable around
one of them, too. What clients and the hub then see is the same with gevent's own class and ours.
"""
import builtins
import json
import subprocess
import sys

import pytest

from gevent_cbase._native import greenlets, pools, premises, sockets
from helpers import TESTS, child_environ

pytestmark = pytest.mark.fast_path('sockets', 'pools', 'greenlets')

#: when it is done, as code: `plant()` does it, and `install()` nothing for gevent's own class
MOMENTS = {
    'before install()': 'load(); plant(); install(); serve()',
    'after install()': 'install(); load(); plant(); serve()',
    'before the first server': 'load(); install(); plant(); serve()',
    'while servers run': 'load(); install(); serve(plant)',
    'before a class is changed': 'load(); install(); serve(plant, change_classes)',
    'after a class is changed': 'load(); install(); serve(change_classes, plant)',
}

CHILD = r'''
import ast, builtins, importlib, inspect, json, os, socket as native, sys, textwrap


def load():
    global StreamServer
    from gevent.server import StreamServer
    import gevent.pool, gevent._socket3


def install():
    if sys.argv[1] == 'cbase':
        import gevent_cbase
        gevent_cbase.install()


def lookup(path):
    if path.startswith('stdlib:'):
        from gevent import monkey
        found = monkey.get_original('socket', 'socket')
    else:
        found = importlib.import_module(path.partition(':')[0])
    for name in path.partition(':')[2].split('.'):
        found = found[name] if isinstance(found, dict) else getattr(found, name)
    return found


def code_that_notes(function):
    """Its code with a note first: for the same lines of the same file."""
    code = function.__code__
    names = ', '.join(code.co_freevars)
    source = 'def around(%s):\n%s' % (names, textwrap.indent(
        textwrap.dedent(inspect.getsource(function)), '    '))
    tree = ast.parse(source)
    inner, = tree.body[0].body
    inner.decorator_list = []
    inner.body[:0] = ast.parse('__import__("sys").ran = True').body
    for node in ast.walk(inner.body[0]):
        if hasattr(node, 'lineno'):
            node.lineno = node.end_lineno = inner.lineno + 1
    ast.increment_lineno(tree, code.co_firstlineno - inner.lineno)
    for kind in (lambda const: hasattr(const, 'co_code'),) * 2:
        tree = next(filter(kind, getattr(tree, 'co_consts', None) or compile(
            tree, code.co_filename, 'exec').co_consts))
    return tree.replace(co_freevars=code.co_freevars)


class Planted:
    """In the place of something that is called, or whose attributes are read: notes that."""

    def __init__(self, value):
        self.value = value

    def __call__(self, *args, **kwargs):
        sys.ran = True
        return self.value(*args, **kwargs)

    def __getattr__(self, name):
        sys.ran = True
        return getattr(self.value, name)


class PlantedError(Exception):
    """In the place of an exception that is caught."""


def plant_it(kind, path, name):
    if kind == 'function':
        function = lookup(path)
        function.__code__ = code_that_notes(function)
    elif kind == 'name':
        names = vars(importlib.import_module(path))
        value = names.get(name, getattr(builtins, name, None))
        is_error = isinstance(value, type) and issubclass(value, BaseException)
        names[name] = PlantedError if is_error else Planted(value)
    else:
        cell = lookup(path).__closure__[name]
        cell.cell_contents = Planted(cell.cell_contents)


def change_classes():
    import gevent.pool, gevent._socket3
    for cls in (gevent._socket3.socket, gevent._socket3._wrefsocket, gevent._socket3._closedsocket,
                gevent.pool.Pool, type(gevent.config), StreamServer):
        cls.changed = True


def serve(*changes):
    """All kinds of spawners and listeners; what clients and the hub see after the changes."""
    import gevent
    from gevent.pool import Pool
    gevent.get_hub().handle_error = lambda context, kind, value, tb: errors.append(kind.__name__)
    errors, seen, servers = [], [], []

    def handle(sock, address):
        seen.append('handled')
        sock.close()
    for spawn in ('default', gevent.spawn_raw, Pool(2)):
        for kind in ('gevent', 'native'):
            listener = native.socket()
            listener.bind(('127.0.0.1', 0))
            listener.listen()
            listener.setblocking(False)
            if kind == 'gevent':
                fd = listener.detach()
                listener = gevent.socket.socket(fileno=fd)
            servers.append(StreamServer(listener, handle, spawn=spawn))
            servers[-1].min_delay = servers[-1].max_delay = 0.01
            servers[-1].start()
    if changes:
        for server in servers:
            ask(server)
        for change in changes:
            change()
    del errors[:], seen[:]
    sys.ran = False
    for server in servers:
        for _ in range(2):
            seen.append(ask(server))
        seen.append(sorted(set(errors)))
        del errors[:]
    sys.result = [sys.ran, seen]


def ask(server):
    """Whether the server closes the connection; by system calls, as sockets may not work."""
    import gevent
    address = _socket.socket.getsockname(getattr(server.socket, '_sock', server.socket))
    client = _socket.socket()
    client.connect(address)
    client.setblocking(False)
    for _ in range(30):
        gevent.sleep(0.001)
        try:
            return client.recv(1) == b''
        except BlockingIOError:
            pass
        except OSError:
            return 'error'
    return False


import _socket
import gevent._socketcommon
for item in json.load(sys.stdin):
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        plant = lambda: item and plant_it(*item)
        try:
            exec(sys.argv[2])
            result = sys.result
        except BaseException as ex:
            result = ['%s: %s' % (type(ex).__name__, ex)]
        os.write(write, json.dumps(result).encode())
        os._exit(0)
    os.close(write)
    os.waitpid(pid, 0)
    with open(read) as file:
        print(json.dumps([item, json.loads(file.read() or '["no result"]')]))
'''


def all_items():
    """Everything that the steps stand for, as [kind, path, name]."""
    items = set()
    snapshot = sockets.new_snapshot()
    noted = [(step, premises.noted(step.PARTS, snapshot)) for step in (sockets, pools, greenlets)]
    modules = {id(vars(module)): name for name, module in sys.modules.items()
               if getattr(module, '__name__', None) == name}
    for step, parts in noted:
        for name, part in parts.items():
            path = step.PARTS[name]
            items.add(('function', path, ''))
            items.update(('name', modules[id(namespace)], read)
                         for namespace, read, *_ in part.reads if namespace is not vars(builtins))
            items.update(('variable', path, number) for number in range(len(part.cells)))
    return sorted(items, key=str)


def outcomes(impl, moment, items):
    """What happens, by item."""
    done = subprocess.run(
        [sys.executable, '-c', CHILD, str(impl), MOMENTS[moment]], input=json.dumps(items),
        env=child_environ(TESTS), text=True, capture_output=True, timeout=110)
    assert (done.returncode, done.stderr) == (0, '')
    results = map(json.loads, done.stdout.splitlines())
    return {item and tuple(item): result for item, result in results}


def test_everything_is_planted():
    """The list is made from what is compared; these are some of it."""
    items = all_items()
    assert len(items) > 50
    assert {('function', 'gevent.server:StreamServer.do_read', ''),
            ('name', 'gevent.server', 'BlockingIOError'), ('name', 'gevent.pool', 'len'),
            ('name', '_socket', 'getdefaulttimeout'), ('name', 'gevent._socket3', '_socket'),
            ('variable', 'gevent._socket3:socket.__init__', 0)} < set(items)


@pytest.mark.parametrize('moment', MOMENTS)
def test_planted(moment):
    """Nothing is known any more of what was there."""
    items = all_items()
    stock, ours = outcomes('gevent', moment, items), outcomes('cbase', moment, items)
    assert {item: result for item, result in ours.items() if result != stock[item]} == {}
    ran = {item for item, (ran, *_) in ours.items() if ran is True}
    assert {item for item in ours if item[0] == 'function'} < ran
    assert {('name', *item) for item in (
        ('_socket', 'getdefaulttimeout'), ('gevent._socket3', '_closedsocket'),
        ('gevent._socket3', '_socket'), ('gevent._socket3', 'get_hub'), ('gevent.pool', 'len'),
        ('gevent.hub', 'callable'), ('gevent.hub', 'GEVENT_CONFIG'),
        ('gevent.server', 'GeventSocket'), ('socket', 'AddressFamily'))} < ran


def test_nothing_planted():
    """Nothing of it runs in Python while all is as gevent has made it."""
    result = [False, ['handled', True, 'handled', True, []] * 6]
    assert set(map(str, outcomes('cbase', 'while servers run', [None]).values())) == {str(result)}
