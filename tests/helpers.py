"""Small clients, waits and stand-ins shared by the tests."""
import contextlib
import gc
import glob
import http.client
import importlib.util
import os
import re
import socket as native
import subprocess
import sys
import sysconfig
import textwrap
import threading
import time
import types

import gevent
from gevent import socket

TESTS = os.path.dirname(os.path.abspath(__file__))
#: the top folder of the source tree
ROOT = os.path.dirname(TESTS)
#: any free port of the loopback interface
LOOPBACK = ('127.0.0.1', 0)
#: for python(): the interpreter itself, and with ``-m gevent_cbase``
PLAIN, OURS = types.SimpleNamespace(stock=True), types.SimpleNamespace(stock=False)


def text_of(name):
    """A file of the source tree."""
    with open(os.path.join(ROOT, name), encoding='utf-8') as file:
        return file.read()


def c_sources(pattern='*.[ch]'):
    """Yield (path in src/, text) of the extension's files."""
    folder = os.path.join(ROOT, 'src')
    for path in sorted(glob.glob(os.path.join(folder, '**', pattern), recursive=True)):
        yield os.path.relpath(path, folder).replace(os.sep, '/'), text_of(path)


def until(condition, limit=8):
    """Let the loop run until *condition* holds; fail after *limit* seconds."""
    end = time.monotonic() + limit
    while not condition():
        assert time.monotonic() < end, 'condition not met in time'
        gevent.sleep(0.002)


def wait_for(condition, what='condition not met in time', limit=60):
    """What *condition* returns as soon as that is true, without running the loop; after *limit*
    seconds fail with *what*, or with what that returns.
    """
    end = time.monotonic() + limit
    while not (found := condition()):
        assert time.monotonic() < end, what() if callable(what) else what
        time.sleep(0.01)
    return found


def connect(server):
    """A connected gevent client socket."""
    return socket.create_connection(('127.0.0.1', server.server_port), timeout=5)


def connect_natively(server):
    """A connected client socket of the standard library: connects without running the loop."""
    return native.create_connection(('127.0.0.1', server.server_port), timeout=5)


def listener(backlog=16):
    """A gevent TCP socket that listens on a free port of the loopback interface."""
    sock = socket.socket()
    sock.bind(LOOPBACK)
    sock.listen(backlog)
    return sock


@contextlib.contextmanager
def reserved_port():
    """A port on which a program started meanwhile can listen, and that nobody else is given."""
    with native.socket() as holder:
        # bound without listening: servers, which set one of these options too, may bind it as
        # well, but the kernel gives it to nobody who asks for any port
        holder.setsockopt(native.SOL_SOCKET, native.SO_REUSEADDR, 1)
        holder.setsockopt(native.SOL_SOCKET, native.SO_REUSEPORT, 1)
        holder.bind(('127.0.0.1', 0))
        yield holder.getsockname()[1]


def read_all(client):
    """All that comes up to end of file; closes *client*."""
    got = b''
    while True:
        part = client.recv(4096)
        if not part:
            client.close()
            return got
        got += part


def ask(server, data=b'ping'):
    """Send *data* over a fresh connection and return the whole answer."""
    client = connect(server)
    client.sendall(data)
    return read_all(client)


def echo(sock, address):
    """A handler: sends back the first bytes that come."""
    sock.sendall(sock.recv(100))


def reply(sock, address):
    """A handler that needs no request, and never blocks."""
    sock.sendall(b'served')


def handler(*args):
    """A handler that nobody calls."""


def raising(error):
    """A function that raises *error*, an exception or its class, whatever it is called with."""
    def function(*args, **kwargs):
        raise error
    return function


def contexts(error):
    """The chain of ``__context__`` from *error* down."""
    chain = []
    while error is not None:
        chain.append(error)
        error = error.__context__
    return chain


class FakeWatcher:
    """What a FakeLoop hands out; it never fires, it notes what is done to it."""

    def __init__(self, log, kind, *args):
        self.log, self.kind = log, kind
        log.append((kind, *args))

    def start(self, callback, *args):
        self.callback = callback
        self.log.append(self.kind + '.start')

    def stop(self):
        self.log.append(self.kind + '.stop')

    def close(self):
        self.log.append(self.kind + '.close')


class FakeLoop:
    """In place of ``server.loop``: runs nothing, notes in *log* what a server asks of it."""

    def __init__(self, log):
        self.log, self.errors, self.watcher = log, [], None

    def io(self, fd, events):
        self.watcher = FakeWatcher(self.log, 'io', fd, events)
        return self.watcher

    def timer(self, delay):
        self.watcher = FakeWatcher(self.log, 'timer', delay)
        return self.watcher

    def handle_error(self, context, kind, value, tb):
        self.log.append('error')
        self.errors.append((context, kind, value))


class FakeListener:
    """Enough of a listening socket for BaseServer; descriptor 7 of nothing."""
    family = native.AF_INET

    def accept(self):
        raise NotImplementedError

    def getsockname(self):
        return ('127.0.0.1', 80)

    def fileno(self):
        return 7

    def close(self):
        pass


def by_hand(impl, steps=(), spawn=None, base=None, **namespace):
    """A started server on a fake loop and listener: the test itself calls _do_read().

    do_read() takes the next of *steps*, raises it if it is an exception, and has None when
    there are no more. ``server.log`` lists what happened, in order. *namespace* goes into
    the server's class.
    """
    log, steps = [], iter(steps)

    class Server(base or impl.BaseServer):
        def do_read(self):
            log.append('read')
            step = next(steps, None)
            if isinstance(step, BaseException):
                raise step
            return step

        def do_close(self, *args):
            log.append(('close', *args))

        def handle(self, *args):
            log.append(('handle', *args))

    server = type(Server)('Server', (Server,), dict(namespace, log=log))(
        FakeListener(), spawn=spawn)
    server.loop = FakeLoop(log)
    server.start()
    return server


#: what the log says of a batch that takes one connection, 1 or 2, and of a pause
ONE = ['read', ('handle', 1), ('close', 1)]
TWO = ['read', ('handle', 2), ('close', 2)]
PAUSE = ['io.stop', 'io.close', ('timer', 0.01), 'timer.start']


def resumed(impl, pause=PAUSE):
    """What an error that leaves the batch adds to the log. The event loop may stop a watcher
    whose callback raised: gevent is deaf from then on, ours makes sure that it resumes."""
    return [] if impl.stock else pause


def batch(server):
    """Run one wake-up of a server made by by_hand(); what it put into the log."""
    del server.log[:]
    server._do_read()
    return list(server.log)


class Bench:
    """A started server on a fake loop, whose batches are run by the test; its listener and clients
    are real.
    """

    def __init__(self, cls, listener=LOOPBACK, handle=handler, **kwargs):
        self.server = cls(listener, handle, **kwargs)
        self.server.loop = FakeLoop([])
        self.server.start()

    @property
    def errors(self):
        return self.server.loop.errors


def child_environ(*folders, **more):
    """The environment of a child process that can import what is in *folders*, and the package
    under test; what is None in *more* is not in it.
    """
    env = {name: value for name, value in os.environ.items() if name != 'GEVENT_CBASE'}
    path = list(folders)
    spec = importlib.util.find_spec('gevent_cbase')
    if spec is not None:  # without it the reference can be tested all the same
        path.append(os.path.dirname(spec.submodule_search_locations[0]))
    env['PYTHONPATH'] = os.pathsep.join(filter(None, path + [env.get('PYTHONPATH')]))
    env.update(more)
    return {name: value for name, value in env.items() if value is not None}


def with_metadata(folder, **more):
    """child_environ(), with the metadata of an installation in *folder*: its entry points. There
    may be none, or that of another tree.
    """
    sections = re.findall(r'^\[project\.(?:entry-points\."(.+)"|scripts)\]\n((?:.+\n)+)',
                          text_of('pyproject.toml'), re.M)
    info = os.path.join(folder, 'gevent_cbase-1.0.0.dist-info')
    os.makedirs(info)
    for name, text in (
            ('METADATA', 'Metadata-Version: 2.1\nName: gevent_cbase\nVersion: 1.0.0\n'),
            ('entry_points.txt', ''.join(
                '[%s]\n%s' % (group or 'console_scripts', lines.replace('"', ''))
                for group, lines in sections))):
        with open(os.path.join(info, name), 'w') as file:
            file.write(text)
    return child_environ(str(folder), **more)


def python(impl, *args):
    """The command line that runs *args* (a script, ``-m`` module …) on *impl*."""
    return [sys.executable] + ([] if impl.stock else ['-m', 'gevent_cbase']) + list(args)


def run_script(impl, tmp_path, source, *args, env=None):
    """(exit status, stdout, stderr) of a script, in a process of its own."""
    script = tmp_path / 'script.py'
    script.write_text(textwrap.dedent(source))
    done = subprocess.run(python(impl, str(script), *map(str, args)), env=env or child_environ(),
                          text=True, capture_output=True, timeout=110)
    return done.returncode, done.stdout, done.stderr


def printed(impl, tmp_path, source, *args, env=None):
    """The lines that a script prints, in a process of its own which must end well."""
    status, out, err = run_script(impl, tmp_path, source, *args, env=env)
    assert (status, err) == (0, ''), err + out
    return out.split('\n')[:-1]


def isolated(impl, tmp_path, source, *args):
    """The same where warnings are errors."""
    return printed(impl, tmp_path, source, *args, env=child_environ(PYTHONWARNINGS='error'))


def shared_library(source, folder, *options):
    """The path of *source*, a C file, compiled into *folder*."""
    path = os.path.join(folder, 'library.so')
    subprocess.check_call(sysconfig.get_config_var('CC').split()
                          + ['-shared', '-fPIC', '-O1', '-o', path, str(source), *options])
    return path


def is_on(name):
    """Whether a fast path is on, in this process."""
    from gevent_cbase._native.paths import FAST_PATHS
    return FAST_PATHS[name]() is None


def accepts_in_c(impl):
    """Whether stream servers accept without gevent's do_read()."""
    return not impl.stock and is_on('sockets')


#: how many of gevent's functions still run, and can be seen, when a socket is closed in C
FRAMES_OF_CLOSE = 1 if sys.version_info[:2] == (3, 11) else 0


def closes_in_c(impl):
    """Whether calls of gevent's socket.close() run in C now."""
    return not impl.stock and is_on('closing')


def spying(base, log, *names):
    """A subclass of *base* whose methods *names* append their name to *log*, then go on."""
    def override(name):
        def method(self, *args, **kwargs):
            log.append(name)
            return getattr(super(Spy, self), name)(*args, **kwargs)
        return method
    Spy = type('Spy', (base,), {name: override(name) for name in names})
    return Spy


def descriptors():
    """How many descriptors this process has open."""
    return len(os.listdir('/proc/self/fd'))


def descriptors_at_rest():
    """The same when no garbage is left that could close some later: what to compare with."""
    gc.collect()
    return descriptors()


def is_open(fd):
    """Whether a descriptor is open."""
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def outcome(function, *args, **kwargs):
    """What a call returned or raised."""
    try:
        return function(*args, **kwargs)
    except BaseException as ex:
        return ex


def frames(steps, function, *args):
    """Call *function*; those of *steps*, names by code object, that ran.

    On CPython 3.11 gevent's socket.close() gets another code object, which is of the same place.
    """
    seen = []
    names = {(code.co_filename, code.co_firstlineno): name for code, name in steps.items()}

    def note(frame, event, arg):
        place = frame.f_code.co_filename, frame.f_code.co_firstlineno
        if event == 'call' and place in names:
            seen.append(names[place])
    sys.setprofile(note)
    try:
        function(*args)
    finally:
        sys.setprofile(None)
    return seen


def import_error(code):
    """The last line that code leaves on stderr which fails to import something."""
    done = subprocess.run([sys.executable, '-c', code], env=child_environ(), text=True,
                          stderr=subprocess.PIPE, timeout=60)
    assert done.returncode == 1
    return done.stderr.splitlines()[-1]


class Clients:
    """Clients in threads that go on sending requests to an HTTP server of this machine.

    ``answers`` are the bodies of whole answers, ``lost`` what came instead of one. Each request
    has a connection of its own; with *kept* a client keeps its connection until the server closes
    it, and sends a request that got nothing at all on a kept one once more, as every HTTP client
    does; ``again`` are those. With *context* they speak TLS.
    """

    def __init__(self, port, context=None, kept=False, clients=4):
        self.port, self.context, self.kept = port, context, kept
        self.answers, self.lost, self.again = [], [], []
        self.stop = threading.Event()
        self.threads = [threading.Thread(target=self.client) for _ in range(clients)]

    def connection(self):
        if self.context:
            return http.client.HTTPSConnection('127.0.0.1', self.port, timeout=60,
                                               context=self.context)
        return http.client.HTTPConnection('127.0.0.1', self.port, timeout=60)

    def client(self):
        connection = self.connection()
        while not self.stop.is_set():
            used = connection.sock is not None
            try:
                try:
                    self.ask(connection)
                except (BrokenPipeError, ConnectionResetError) as ex:  # with it RemoteDisconnected
                    if not used:
                        raise
                    self.again.append(ex)
                    connection.close()
                    self.ask(connection)
            except (OSError, http.client.HTTPException) as ex:
                self.lost.append(ex)
                connection.close()
        connection.close()

    def ask(self, connection):
        connection.request('GET', '/', headers={} if self.kept else {'Connection': 'close'})
        response = connection.getresponse()
        body = response.read().decode()
        if response.status != 200:
            raise http.client.HTTPException(response.status, body)
        self.answers.append(body)
        if not self.kept:
            connection.close()

    def more(self, count=100):
        """Wait for *count* answers more, or for one that is lost."""
        target = len(self.answers) + count
        wait_for(lambda: len(self.answers) >= target or self.lost)

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *args):
        self.stop.set()
        for thread in self.threads:
            thread.join()
