"""The state machine of test_model.py: gevent's classes and ours go through the same life.

``python tests/programs/model.py KIND [SECONDS [SEED]]`` is one run, in a process of its own: for
test_model.py, and to try one kind by hand. Without SECONDS it is the same run every time.

The reference is a second copy of gevent's server modules, on a BaseServer that install() does
not know. On the other side are the real ones, with install() and uninstall() as operations
among others. Each operation is carried out on both sides; what it returned or raised, what it
caused until nothing happened any more, and the state of server, pool and clients is compared.

Left out is what docs/differences.rst lists.
"""
import contextlib
import errno
import fcntl
import gc
import importlib
import json
import os
import random
import re
import socket as native
import struct
import sys
import termios
import time
import types
import weakref

import gevent
import gevent.os
from gevent import event, get_hub, pool, pywsgi, server, socket  # noqa: F401 (before install())
import hypothesis
from hypothesis import HealthCheck, Phase, settings, strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test)

import gevent_cbase
from gevent_cbase._native.paths import FAST_PATHS
sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from helpers import LOOPBACK, outcome  # noqa: E402

#: sequences of a run of fixed length, and operations in one of them at most
EXAMPLES, STEPS = 70, 40

#: seconds until both sides have to be in the same state
PATIENCE = 5

MODULES = ('baseserver', 'server', 'pywsgi')


def copies():
    """Fresh copies of gevent's server modules, which import one another and nobody else."""
    names = ['gevent.' + name for name in MODULES]
    originals = [sys.modules.pop(name) for name in names]
    try:
        return types.SimpleNamespace(
            **{name: importlib.import_module('gevent.' + name) for name in MODULES})
    finally:
        for name, short, module in zip(names, MODULES, originals):
            sys.modules[name] = module
            setattr(gevent, short, module)


class Odd(Exception):
    """What handlers and hooks raise here: what for, and on which side."""


class SlowLoop:
    """The hub's loop, whose timers wait until they are told that their time has come."""

    def __init__(self, loop):
        self.loop = loop

    def __getattr__(self, name):
        return getattr(self.loop, name)

    def timer(self, delay):
        return SlowTimer(delay)


class SlowTimer:
    callback = None

    def __init__(self, delay):
        self.delay = delay

    def start(self, callback):
        self.callback = callback

    def stop(self):
        self.callback = None

    close = stop


class OwnPool(pool.Pool):
    """A pool without native steps."""


class PoolLike:
    """What a server needs of a pool, with greenlets of another kind."""

    def __init__(self):
        self.pool = pool.Pool(2)
        self._semaphore = self.pool._semaphore

    def spawn(self, *args):
        return self.pool.spawn(*args)

    def full(self):
        return self.pool.full()

    def __len__(self):
        return len(self.pool)

    def join(self, timeout=None):
        return self.pool.join(timeout)

    def kill(self, block=True, timeout=None):
        self.pool.kill(block=block, timeout=timeout)

    def free_count(self):
        return self.pool.free_count()


def spawn_by_hand(function, *args):
    """A spawn function that is none of gevent's."""
    gevent.spawn(function, *args)


SPAWNS = {
    'default': lambda: 'default', 'none': lambda: None, 'raw': lambda: gevent.spawn_raw,
    'function': lambda: spawn_by_hand, 'one': lambda: 1, 'three': lambda: 3,
    'pool': lambda: pool.Pool(2), 'endless': lambda: pool.Pool(), 'own': lambda: OwnPool(2),
    'like': PoolLike, 'empty': lambda: pool.Pool(0), 'bad': lambda: 5.5}


class Client:
    """A client's end, and what came out of it."""

    def __init__(self, sock):
        self.sock, self.got, self.end = sock, b'', 'open'

    def poll(self):
        while self.end == 'open':
            try:
                part = self.sock.recv(4096)
            except BlockingIOError:
                break
            except OSError as ex:
                self.end = errno.errorcode[ex.errno]
            else:
                self.got += part
                if not part:
                    self.end = 'eof'
        return self.got, self.end

    def close(self, end):
        if end == 'reset':
            with contextlib.suppress(OSError):
                self.sock.setsockopt(native.SOL_SOCKET, native.SO_LINGER,
                                     struct.pack('ii', 1, 0))
        self.sock.close()
        self.end = 'closed'


class Side:
    """One implementation, its server and all that belongs to it."""

    def __repr__(self):
        return 'this side'

    def __init__(self, name, modules):
        self.name, self.modules = name, modules
        self.events, self.clients, self.servers = [], [], 0
        self.hooks = set()               # that ran since the last operation
        self.server = self.pool_before = self.forever = self.cls = None
        self.names = {}                  # ports and paths, as they appear in comparisons
        self.behaviour = {}              # of the handler for a client, by number
        self.gate = event.Event()        # what handlers wait for that block
        self.kept, self.changed = [], []
        self.failures = dict.fromkeys(('do_read', 'do_handle', 'do_close', 'spawn'), 0)
        self.happened = self.waiting = 0

    # -- what is compared

    def note(self, *what):
        """Something happened. How often in a row may depend on when the loop saw it."""
        self.happened += 1
        if not self.events or self.events[-1] != what:
            self.events.append(what)

    def show(self, thing):
        """*thing* as text without what is different from side to side."""
        if isinstance(thing, BaseException):
            return '%s(%s)' % (type(thing).__name__, self.show(str(thing)))
        if thing is self.server and thing is not None:
            return 'the server'
        if isinstance(thing, tuple):
            return '(%s)' % ', '.join(map(self.show, thing))
        if isinstance(thing, (socket.socket, gevent.Greenlet)) or (
                type(thing).__module__.startswith(('gevent.lib', 'gevent._ffi'))):
            return type(thing).__name__
        if isinstance(thing, types.MethodType):
            return 'method %s of %s' % (thing.__func__.__qualname__, type(thing.__self__).__name__)
        text = thing if isinstance(thing, str) else repr(thing)
        text = re.sub(r'0x[0-9a-f]{6,}', '0x', text)
        text = re.sub(r'fileno=\d+', 'fileno=N', text)
        text = re.sub(r'fd=\d+', 'fd=N', text)
        text = re.sub(r'\\x00cbase-\d+-\w+-', 'abstract ', text)
        text = re.sub(r'<built-in (method|function)', '<function', text)
        return re.sub(r'\b\d{4,5}\b', lambda port: self.names.get(int(port[0]), port[0]), text)

    def state(self):
        """Everything that can be seen from outside."""
        clients = [(number, *client.poll()) for number, client in enumerate(self.clients)]
        seen = {'hooks': sorted(self.hooks),
                'clients': [(number, re.sub(rb'Date: [^\r]*', b'', got), end)
                            for number, got, end in clients],
                'kept': [sock.fileno() < 0 for sock in self.kept],
                'forever': self.forever is not None and (self.forever.dead, self.show(
                    self.forever.exception or 'fine'))}
        if self.server is not None:
            seen.update(self.state_of_server())
        return seen

    def state_of_server(self):
        one = self.server
        own = vars(one)
        for address in (self.address(), own.get('address')):
            if address is not None and address[1:2] != (0,):
                self.learn(address, 'server %d' % self.servers)
        seen = {'keys': sorted(own), 'started': one.started, 'closed': one.closed,
                'full': outcome(one.full) if self.is_pool(own.get('pool')) else '',
                'repr': self.show(repr(one)), 'str': self.show(str(one)),
                'host': one.server_host, 'port': self.show(repr(one.server_port))}
        for name in ('delay', 'min_delay', 'max_delay', 'max_accept', 'family'):
            seen[name] = repr(getattr(one, name, None))
        for name in ('_handle', '_spawn', 'handle', 'address', 'ssl_args'):
            seen[name] = self.show(own.get(name, 'missing'))
        for name in ('_watcher', '_timer'):
            watcher = own.get(name)
            seen[name] = watcher and (type(watcher).__name__, getattr(watcher, 'delay', None),
                                      getattr(watcher.callback, '__name__', None))
        for name, one in (('pool', own.get('pool')), ('pool before', self.pool_before)):
            if self.is_pool(one):
                seen[name] = (type(one).__name__, len(one), one.free_count(),
                              getattr(one._semaphore, 'linkcount', str)())
        return seen

    @staticmethod
    def is_pool(thing):
        return isinstance(thing, (pool.Pool, PoolLike))

    # -- handlers

    def number_of(self, address):
        """Which client this is: the last part of its port's or path's name."""
        name = address[1] if isinstance(address, tuple) else address
        return int(self.names.get(name, '? -1').split()[-1])

    def make_handler(self, label):
        def handle(sock, address):
            number = self.number_of(address)
            what = self.behaviour.get(number, 'return')
            if isinstance(sock, bytes):  # of a datagram
                self.note(label, number, what, sock)
                DATAGRAM.get(what, DATAGRAM['reply'])(self, address)
            else:
                self.note(label, number, what, type(sock).__name__, sock.gettimeout(),
                          sock.fileno() >= 0, sock.family, sock.type, sock.proto)
                BEHAVIOURS[what](self, sock)
            if what == 'timeout':  # several end in any order
                self.hooks.add(('done', str(number)))
            else:
                self.note('done', number)
        handle.__name__ = handle.__qualname__ = label
        return handle

    def application(self, environ, start_response):
        number = self.number_of((None, int(environ['REMOTE_PORT'])))
        what = self.behaviour.get(number, 'return')
        self.note('application', number, what)
        if what in ('block', 'stop', 'stop_accepting', 'raise', 'exit'):
            BEHAVIOURS[what](self, None)
        start_response('200 OK', [('Content-Length', '2')])
        return [b'ok']

    # -- operations on the server

    def construct(self, kind, listener, spawn, handle, base, clock, values):
        base_class = {'stream': lambda: self.modules.server.StreamServer,
                      'datagram': lambda: self.modules.server.DatagramServer,
                      'wsgi': lambda: self.modules.pywsgi.WSGIServer,
                      'plain': lambda: plain(self.modules.baseserver.BaseServer,
                                             self.modules.server.StreamServer)}[kind]()
        self.cls = base_class
        if base == 'sub':
            self.cls = type('Server', (base_class,), {})
        elif base == 'method':
            handler = self.make_handler('method')
            self.cls = type('Server', (base_class,), {
                'handle': lambda self, sock, address: handler(sock, address)})
        self.servers += 1
        args = [self.make_listener(kind, listener)]
        options = {'spawn': SPAWNS[spawn]()}
        if kind == 'wsgi':
            args.append(self.application)
            options['log'] = options['error_log'] = None
        elif handle and base != 'method':
            args.append(self.make_handler('handle'))
        try:
            made = self.cls(*args, **options)
        except BaseException:
            listening = args[0]
            if hasattr(listening, 'fileno'):
                self.note('listener closed', listening.fileno() < 0)
                listening.close()
            raise
        made.stop_timeout = 0.001
        if clock == 'slow':
            made.loop = SlowLoop(made.loop)
        else:  # no pause may end between two comparisons
            made.delay, made.min_delay, made.max_delay = 0, 0, 1000
        for name, value in values:
            setattr(made, name, value)
        self.server = made

    def make_listener(self, kind, listener):
        if listener == 'address':
            return LOOPBACK
        if listener == 'text':
            return '127.0.0.1:0'
        if listener == 'bad':
            return 'no port: %s'
        if listener == 'wrong':
            return types.SimpleNamespace(accept=1)
        sort = socket.SOCK_DGRAM if kind == 'datagram' else socket.SOCK_STREAM
        module = native if listener == 'native' else socket
        if listener == 'unix' and kind not in ('datagram', 'wsgi'):
            sock = module.socket(socket.AF_UNIX, sort)
            sock.bind(b'\0cbase-%d-%s-server %d' % (
                os.getpid(), self.name.encode(), self.servers))
        else:
            sock = module.socket(socket.AF_INET, sort)
            sock.bind(LOOPBACK)
        if sort == socket.SOCK_STREAM:
            sock.listen(400)  # no client waits to be in the queue
        sock.setblocking(False)
        return sock

    def call(self, name, *args):
        return self.show(getattr(self.server, name)(*args))

    def assign(self, name, value):
        setattr(self.server, name, value)

    def remove(self, name):
        del vars(self.server)[name]

    def assign_on_class(self, name, value):
        self.changed.append((self.cls, name, vars(self.cls).get(name)))
        setattr(self.cls, name, value)

    def restore_class(self):
        while self.changed:
            cls, name, former = self.changed.pop()
            if former is not None:  # of gevent's own class
                setattr(cls, name, former)
            else:
                delattr(cls, name)

    def drop(self):
        """Stop the server and let go of it: is it gone?"""
        self.server.stop(0)
        alive = weakref.ref(self.server)
        self.server = self.pool_before = self.forever = None
        self.settle()
        gc.collect()
        return 'alive' if alive() else 'freed'

    def handler_changes(self, how):
        handler = self.make_handler('another')
        if how == 'assign':
            self.server.handle = handler
        elif how == 'none':
            self.server.set_handle(None)
        else:
            self.server.set_handle(handler)

    def class_changes(self):
        """Another class, derived from the present one."""
        self.cls = type('Server', (type(self.server),), {'extra': 1})
        self.server.__class__ = self.cls

    def listener_changes(self, kind, listener):
        made = self.make_listener(kind, listener)
        former = vars(self.server).get('socket')
        self.server.set_listener(made)
        if former is not None and vars(self.server)['socket'] is not former:
            self.server.stop_accepting()
            former.close()
            if self.server.started:
                self.server.start_accepting()

    # -- overrides

    def override(self, place, name, how):
        """A hook of its own for the server or its class."""
        side, cls = self, type(self.server)
        if how == 'raise':
            self.failures[name] = 2

        def hook(self, *args):
            if name in HOT:
                side.hooks.add((place, name))
            else:
                side.note(place, name)
            if how in ('yes', 'no'):
                return how == 'yes'
            if how == 'raise' and side.failures[name] > 0:
                side.failures[name] -= 1
                raise Odd(name, side)
            method = getattr(super(cls, self) if place == 'class' else cls, name)
            return method(*args) if place == 'class' else method(self, *args)
        if place == 'class':
            self.assign_on_class(name, hook)
        else:
            setattr(self.server, name, types.MethodType(hook, self.server))

    def failing_reads(self, count, error):
        """The next reads raise; then they are as before."""
        self.failures['do_read'] = count

        def do_read():
            if self.failures['do_read'] > 0:
                self.failures['do_read'] -= 1
                raise ERRORS[error]()
            vars(self.server).pop('do_read', None)
            return self.server.do_read()
        self.server.do_read = do_read

    def failing_spawns(self, count):
        self.failures['spawn'] = count
        spawn = self.server._spawn

        def failing(*args):
            if self.failures['spawn'] > 0:
                self.failures['spawn'] -= 1
                raise Odd('spawn', self)
            return spawn(*args)
        self.server._spawn = failing

    # -- pools

    def spawn_changes(self, spawn):
        self.pool_before = self.server.pool
        self.server.set_spawn(SPAWNS[spawn]())

    def pool_changes(self, how):
        present = self.server.pool
        if how == 'replace':
            self.pool_before, self.server.pool = present, pool.Pool(2)
        elif how == 'fill':
            while (self.is_pool(present) and present.free_count() > 0
                    and not present._semaphore.locked() and len(present) < 4):
                present.spawn(self.gate.wait)
        elif how == 'kill':
            present.kill(timeout=1)
        elif how == 'grow':
            present.size += 1
        elif how == 'shadow':
            present.full = lambda: False

    def release(self):
        """Let go on what has been blocked."""
        self.gate.set()
        self.gate = event.Event()

    # -- clients

    def address(self):
        listening = vars(self.server).get('socket')
        return None if listening is None else listening.getsockname()

    def learn(self, address, name):
        self.names[address[1] if isinstance(address, tuple) else address] = name

    def connect(self, behaviours, data):
        if self.address() is None:
            self.restart()
        address = self.address()
        self.learn(address, 'server %d' % self.servers)
        stream = self.server.socket.type == socket.SOCK_STREAM
        for behaviour in behaviours:
            number = len(self.clients)
            sock = native.socket(self.server.socket.family,
                                 native.SOCK_STREAM if stream else native.SOCK_DGRAM)
            self.clients.append(Client(sock))
            self.behaviour[number] = behaviour
            if sock.family == native.AF_UNIX:
                sock.bind(b'\0cbase-%d-%s-client %d' % (os.getpid(), self.name.encode(), number))
            else:
                sock.bind(LOOPBACK)
            self.learn(sock.getsockname(), 'client %d' % number)
            sock.settimeout(5)
            waiting = queued(self.server.socket)
            try:
                sock.connect(address)
                wait_shortly(lambda: queued(self.server.socket) != waiting or waiting is None)
                sock.setblocking(False)
                if data:
                    sock.send(b'GET / HTTP/1.0\r\n\r\n' if self.is_wsgi() else data)
                    wait_shortly(lambda: is_acknowledged(sock))
            except OSError as ex:
                self.note('not connected', self.show(ex))
                self.clients[-1].close('')

    def is_wsgi(self):
        return isinstance(self.server, self.modules.pywsgi.WSGIServer)

    def client_does(self, which, how):
        """One of the clients sends or ends."""
        if not self.clients:
            return
        client = self.clients[which % len(self.clients)]
        if client.end != 'open':
            return
        if how == 'send':
            with contextlib.suppress(OSError):
                client.sock.send(b'more')
                wait_shortly(lambda: is_acknowledged(client.sock))
        elif how == 'shut':
            with contextlib.suppress(OSError):
                client.sock.shutdown(native.SHUT_WR)
        else:
            client.close(how)

    # -- greenlets, time, processes

    def serve_forever(self, timeout):
        self.forever = gevent.spawn(self.server.serve_forever, timeout)

    def kill_forever(self):
        if self.forever is not None:
            self.forever.kill(timeout=1)

    def wake_up(self):
        """The loop calls, though there may be nobody."""
        get_hub().loop.run_callback(self.server._do_read)

    def time_passes(self):
        timer = vars(self.server).get('_timer')
        if isinstance(timer, SlowTimer) and timer.callback is not None:
            get_hub().loop.run_callback(timer.callback)
            return timer.delay

    def in_child(self, behaviours):
        """A forked child serves clients in place of this process."""
        if vars(self.server).get('_watcher') is None:
            return 'not accepting'
        self.server.stop_accepting()
        self.connect(behaviours, b'child')
        reader, writer = os.pipe()
        child = gevent.os.fork()
        if child == 0:
            status = 1
            try:
                os.write(writer, self.serve_in_child().encode())
                status = 0
            finally:
                os._exit(status)
        os.close(writer)
        with open(reader) as stream:
            report = stream.read()
        status = os.waitpid(child, 0)[1]
        RECORDER.crashed += os.WIFSIGNALED(status)  # may be the same on both sides
        self.server.start_accepting()
        return status, report

    def serve_in_child(self):
        self.events = []
        self.server.start_accepting()
        self.settle()
        present = self.server.pool
        return repr((self.server.started, len(present) if self.is_pool(present) else None,
                     sorted(map(str, self.events))))

    def settle(self):
        quiet, end = 0, time.monotonic() + 1
        while (quiet < ROUNDS or self.waiting or self.is_ending()) and time.monotonic() < end:
            before = self.happened
            turn_of_the_loop()
            quiet = quiet + 1 if self.happened == before else 0

    def is_ending(self):
        """Whether serve_forever() is about to stop the server, some milliseconds from now."""
        return (self.forever is not None and not self.forever.dead
                and self.server is not None and self.server._stop_event.is_set())

    def end(self):
        """Leave nothing behind."""
        self.release()
        self.kill_forever()
        if self.server is not None:
            for name in ('stop', 'close', 'stop_accepting', 'full'):
                vars(self.server).pop(name, None)
        self.restore_class()
        if self.server is not None:
            self.server.stop(0)
            self.server = None
        for client in self.clients:
            client.sock.close()
        for sock in self.kept:
            sock.close()
        self.settle()


#: how often the loop runs after each operation without anything happening
ROUNDS = 6 if 'libev' in type(get_hub().loop).__module__ else 3  # timers of libuv take longer


def queued(listener):
    """How many connections wait to be accepted: the system may take its time to put a client
    there whose connect() is done. None if it does not tell, or does not need it."""
    if listener.family == native.AF_INET and listener.type == native.SOCK_STREAM:
        return listener.getsockopt(native.IPPROTO_TCP, native.TCP_INFO, 104)[24]


def is_acknowledged(sock):
    """Whether the other end has what was sent."""
    if sock.family != native.AF_INET or sock.type != native.SOCK_STREAM:
        return True
    return fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4)) == bytes(4)


def wait_shortly(condition):
    """Without running the loop; a second must be enough."""
    end = time.monotonic() + 1
    while not condition() and time.monotonic() < end:
        time.sleep(0.0002)


def turn_of_the_loop():
    """Have the loop look for what is ready, once. (Not idle(): it may never be that.)"""
    hub = get_hub()
    with hub.loop.timer(0) as timer:  # closed, or libuv goes on writing into its memory
        hub.wait(timer)


def plain(base, stream):
    """A server on BaseServer itself, with socket handling of its own."""
    class Plain(base):
        def init_socket(self):
            if not hasattr(self, 'socket'):
                self.socket = stream.get_listener(self.address, 16, self.family)
                self.address = self.socket.getsockname()

        def do_read(self):
            try:
                fd, address = self.socket._accept()
            except BlockingIOError:
                return None
            return socket.socket(self.socket.family, self.socket.type, fileno=fd), address

        def do_close(self, sock, *args):
            sock.close()
    Plain.__name__ = Plain.__qualname__ = 'Plain'
    return Plain


def behave_block(side, sock):
    side.gate.wait()
    if sock is not None:
        sock.sendall(b'released')


def behave_raise(side, sock):
    raise Odd('handler', side)


def behave_exit(side, sock):
    raise SystemExit('handler', side)


def behave_keep(side, sock):
    side.kept.append(sock)


def behave_timeout(side, sock):
    """Waits in vain, so that the socket's watchers have been used."""
    sock.settimeout(0.001)
    side.waiting += 1
    try:
        sock.recv(1)
    except OSError as ex:
        sock.settimeout(5)
        with contextlib.suppress(OSError):
            sock.sendall(type(ex).__name__.encode())
    finally:
        side.waiting -= 1


def behave_echo(side, sock):
    with contextlib.suppress(OSError):
        sock.sendall(sock.recv(100))


def behave_stop(side, sock):
    side.server.close()


def behave_detach(side, sock):
    os.close(sock.detach())


BEHAVIOURS = {
    'return': lambda side, sock: None,
    'reply': lambda side, sock: sock.sendall(b'hello'),
    'close': lambda side, sock: sock.close(),
    'sleep': lambda side, sock: gevent.sleep(0),
    'stop_accepting': lambda side, sock: side.server.stop_accepting(),
    'kill': lambda side, sock: gevent.getcurrent().throw(gevent.GreenletExit()),
    'stop': behave_stop, 'block': behave_block, 'raise': behave_raise, 'exit': behave_exit,
    'keep': behave_keep, 'timeout': behave_timeout, 'echo': behave_echo,
    'detach': behave_detach,
}
DATAGRAM = {
    'reply': lambda side, address: side.server.sendto(b'hello', address),
    'block': lambda side, address: side.gate.wait(),
    'raise': lambda side, address: behave_raise(side, None),
    'stop': behave_stop,
}
ERRORS = {
    'odd': lambda: Odd('read'), 'exit': lambda: SystemExit('read'),
    'kill': lambda: gevent.GreenletExit(), 'timeout': lambda: native.timeout('read'),
    **{name: lambda number=getattr(errno, name): OSError(number, os.strerror(number))
       for name in ('EBADF', 'EINVAL', 'EMFILE', 'ECONNABORTED', 'EPROTO')}}

#: at once, or not as long as anybody looks
TIMES = st.sampled_from([0, 0.0, 30, 40.5, -1])
HOOKS = [('full', 'yes'), ('full', 'no'), ('do_read', 'pass'), ('do_read', 'raise'),
         ('do_handle', 'pass'), ('do_handle', 'raise'), ('do_close', 'pass'),
         ('do_close', 'raise'), ('is_fatal_error', 'yes'), ('is_fatal_error', 'no'),
         ('start_accepting', 'pass'), ('stop_accepting', 'pass'), ('close', 'pass'),
         ('stop', 'pass'), ('init_socket', 'pass'), ('set_spawn', 'pass'),
         ('_do_read', 'pass'), ('_start_accepting_if_started', 'pass')]
#: those that may run over and over while a client waits in vain
HOT = ('full', 'do_read', '_do_read', 'is_fatal_error', 'start_accepting', 'stop_accepting',
       '_start_accepting_if_started')
QUIET = ['return', 'reply', 'return', 'echo', 'close', 'timeout', 'keep', 'sleep']
LOUD = QUIET + ['block', 'block', 'raise', 'stop', 'stop_accepting', 'exit', 'kill', 'detach']

CONSTRUCT = {
    'listener': st.sampled_from(['address'] * 6 + ['text', 'gevent', 'native', 'unix', 'unix',
                                                   'bad', 'wrong']),
    'spawn': st.sampled_from(sorted(SPAWNS)),
    'handle': st.sampled_from([True] * 9 + [False]),
    'base': st.sampled_from(['sub', 'sub', 'direct', 'method']),
    'clock': st.sampled_from(['slow', 'slow', 'real']),
}

#: name of a method of Side -> strategy for its arguments
OPERATIONS = {
    'connect': st.tuples(st.lists(st.sampled_from(LOUD), min_size=1, max_size=4),
                         st.sampled_from([b'', b'ping'])),
    'connect_quietly': st.tuples(st.lists(st.sampled_from(QUIET), min_size=1, max_size=5),
                                 st.sampled_from([b'', b'ping'])),
    'connect_again': st.tuples(st.lists(st.just('reply'), min_size=1, max_size=3),
                               st.just(b'')),
    'connect_and_connect': st.tuples(st.lists(st.sampled_from(['reply', 'echo', 'return']),
                                              min_size=1, max_size=4), st.just(b'ping')),
    'client_does': st.tuples(st.integers(0, 9), st.sampled_from(
        ['send', 'send', 'shut', 'close', 'reset'])),
    'call': st.sampled_from([
        ('start',), ('start',), ('start',), ('init_socket',), ('start_accepting',),
        ('stop_accepting',), ('close',), ('stop',), ('stop', 0), ('stop', 0.002), ('full',),
        ('_start_accepting_if_started',), ('_start_accepting_if_started', 5),
        ('__enter__',), ('__exit__', None, None, None),
        ('is_fatal_error', OSError(9, 'x')), ('is_fatal_error', Odd())]),
    'restart': st.just(()),
    'serve_forever': st.tuples(st.sampled_from([None, 0, 0.001])),
    'kill_forever': st.just(()),
    'time_passes': st.just(()),
    'wake_up': st.just(()),
    'release': st.just(()),
    'pool_changes': st.tuples(st.sampled_from(['fill', 'fill', 'kill', 'replace', 'grow',
                                               'shadow'])),
    'spawn_changes': st.tuples(st.sampled_from(sorted(SPAWNS))),
    'handler_changes': st.tuples(st.sampled_from(['assign', 'none', 'set'])),
    'listener_changes': st.tuples(st.just('kind'), st.sampled_from(['gevent', 'address', 'bad'])),
    'override': st.tuples(st.sampled_from(['instance', 'class']), st.sampled_from(HOOKS)).map(
        lambda drawn: (drawn[0], *drawn[1])),
    'restore_instance': st.just(()),
    'restore_class': st.just(()),
    'class_changes': st.just(()),
    'failing_reads': st.tuples(st.integers(1, 3), st.sampled_from(sorted(ERRORS))),
    'failing_spawns': st.tuples(st.integers(1, 2)),
    'assign': st.one_of(
        st.tuples(st.just('max_accept'), st.sampled_from([1, 2, 100, 0, -1, 'x', 2.5])),
        st.tuples(st.sampled_from(['min_delay', 'max_delay', 'delay']), TIMES)),
    'assign_on_class': st.one_of(
        st.tuples(st.just('max_accept'), st.sampled_from([1, 2, 3])),
        st.tuples(st.sampled_from(['min_delay', 'max_delay']), TIMES),
        st.just(('fatal_errors', (errno.EMFILE,)))),
    'remove': st.tuples(st.sampled_from(['_handle', '_spawn', 'full', 'handle', 'max_accept'])),
    'drop': st.just(()),
    'in_child': st.tuples(st.lists(st.sampled_from(['reply', 'echo', 'timeout']), min_size=1,
                                   max_size=3)),
}


def restart(self):
    self.server.stop(0)
    if not hasattr(self.server, 'handle'):
        self.server.set_handle(self.make_handler('handle'))
    self.server.start()


def restore_instance(self):
    for name, _ in HOOKS:
        if name != 'full':
            vars(self.server).pop(name, None)


Side.restart, Side.restore_instance = restart, restore_instance
Side.connect_quietly = Side.connect_again = Side.connect_and_connect = Side.connect


class Model(RuleBasedStateMachine):
    kind = 'stream'
    reference = None

    def __init__(self):
        super().__init__()
        self.sides = [Side('gevent', self.reference), Side('cbase', gevent)]
        self.current = self.sides[0]
        self.options = {}
        hub = get_hub()
        hub.handle_error = self.note_error
        sys.unraisablehook = lambda info: self.current.note('unraisable', info.exc_type)
        self.stderr, sys.stderr = sys.stderr, types.SimpleNamespace(
            write=self.note_stderr, flush=lambda: None)
        RECORDER.side = None

    def note_error(self, context, kind, value, tb):
        context_server = context
        if isinstance(context, tuple) and len(context) == 2:
            context_server = context[1]
        side = self.current
        for one in self.sides:
            own = [] if one.server is None else [
                one.server, vars(one.server).get('_watcher'), vars(one.server).get('_timer')]
            if one in value.args or any(
                    thing is context_server for thing in own if thing is not None):
                side = one
        side.note('error', side.show(context), kind.__name__, side.show(str(value)))

    def note_stderr(self, text):
        self.current.note('stderr', self.current.show(text))

    def on_both(self, name, *args):
        """Carry out an operation on both sides, and compare."""
        results = []
        for side in self.sides:  # the loop serves both, whoever's turn it is
            side.events, side.hooks = [], set()
        for side in self.sides:
            self.current = RECORDER.side = side
            with gevent.Timeout(PATIENCE, 'blocks'):
                results.append(side.show(outcome(getattr(side, name), *args)))
            side.settle()
        RECORDER.operations[name] = RECORDER.operations.get(name, 0) + 1
        end = time.monotonic() + RECORDER.patience
        while True:
            traces = [(result, side.events, side.state())
                      for result, side in zip(results, self.sides)]
            if traces[0] == traces[1]:
                break
            if time.monotonic() > end:
                RECORDER.patience = 0.3  # to find a shorter way to the same
                text = difference(name, args, *traces)
                print(text, file=self.stderr)  # in case it cannot be made to happen again
                raise AssertionError(text)
            gc.collect()
            for side in self.sides:
                self.current = RECORDER.side = side
                side.settle()
            gevent.sleep(0.001)
        RECORDER.side = None

    @initialize(installed=st.sampled_from([True, True, True, False]))
    def begin(self, installed):
        if installed != gevent_cbase.is_installed():
            self.toggle()

    @staticmethod
    def toggle():
        if gevent_cbase.is_installed():
            gevent_cbase.uninstall()
        else:
            gevent_cbase.install()

    @precondition(lambda self: self.sides[0].server is not None)
    @rule()
    def install_or_uninstall(self):
        self.toggle()
        self.on_both('settle')

    @precondition(lambda self: self.sides[0].server is None)
    @rule(options=st.fixed_dictionaries(CONSTRUCT), settings=st.lists(st.one_of(
        st.tuples(st.just('max_accept'), st.sampled_from([1, 2])),
        st.tuples(st.sampled_from(['min_delay', 'max_delay']), st.sampled_from([0, 30]))),
        max_size=1))
    def construct(self, options, settings):
        self.options = options
        self.on_both('construct', self.kind, *(options[name] for name in CONSTRUCT), settings)
        if self.sides[0].server is not None and options['spawn'] != 'bad':
            self.on_both('call', 'start')

    def teardown(self):
        try:
            for side in self.sides:
                self.current = side
                side.end()
        finally:
            sys.stderr = self.stderr
            sys.unraisablehook = sys.__unraisablehook__
            del get_hub().handle_error


def difference(name, args, stock, ours):
    lines = ['%s%r:' % (name, args)]
    for what, one, other in (('result', stock[0], ours[0]), ('events', stock[1], ours[1])):
        if one != other:
            lines.append('%s\n  gevent: %s\n  cbase:  %s' % (what, one, other))
    for key in sorted(set(stock[2]) | set(ours[2])):
        one, other = (trace[2].get(key, 'missing') for trace in (stock, ours))
        if one != other:
            lines.append('%s\n  gevent: %s\n  cbase:  %s' % (key, one, other))
    return '\n'.join(lines)


def add_rule(name, arguments):
    def operation(self, args):
        if name == 'listener_changes':
            args = (self.kind, args[1])
        if not self.is_allowed(name, args):
            return
        self.on_both(name, *args)
    operation.__name__ = name
    setattr(Model, name, precondition(lambda self: self.sides[0].server is not None)(
        rule(args=arguments)(operation)))


def is_allowed(self, name, args):
    """Not what docs/differences.rst lists."""
    one = self.sides[0].server
    if name.startswith('connect') and {'stop', 'exit'} & set(args[0]):
        # closed in the middle of a batch by a handler in the hub
        return vars(one).get('_spawn') is not None or one.max_accept == 1
    if name == 'serve_forever' or args[:1] == ('start',):  # without, it fails half-way
        return one.started or hasattr(one, 'handle')
    return True


Model.is_allowed = is_allowed
for NAME, ARGUMENTS in OPERATIONS.items():
    add_rule(NAME, ARGUMENTS)


class Recorder:
    """What is counted: how many sockets of servers were made natively, told by an audit hook, the
    operations, and the children that crashed."""

    def __init__(self):
        self.side, self.native, self.python = None, 0, 0
        self.operations, self.crashed = {}, 0
        self.patience = PATIENCE
        self.code = socket.socket.__init__.__code__

    def __call__(self, what, args):
        if what == 'socket.__new__' and self.side is not None and self.side.name == 'cbase':
            caller = sys._getframe(1)
            if caller.f_code is not self.code:
                self.native += type(args[0]) is socket.socket._gevent_sock_class
            elif caller.f_back.f_code.co_name == 'do_read' and gevent_cbase.is_installed():
                self.python += 1


RECORDER = Recorder()


def run(kind, seconds=None, seed=None):
    Model.kind = kind
    Model.reference = copies()
    sys.addaudithook(RECORDER)
    gc.collect()
    gc.disable()
    options = settings(
        max_examples=EXAMPLES, stateful_step_count=STEPS, deadline=None, database=None,
        derandomize=seconds is None, suppress_health_check=list(HealthCheck),
        report_multiple_bugs=False,
        phases=[Phase.generate] + [Phase.shrink] * (seconds is not None))
    end = time.monotonic() + (seconds or 0)
    while True:
        if seconds is not None:
            number = random.randrange(1 << 30) if seed is None else seed
            print('seed', number, flush=True)
            hypothesis.seed(number)(Model)
        run_state_machine_as_test(Model, settings=options)
        if time.monotonic() >= end:
            break
    print(json.dumps({
        'native': RECORDER.native, 'python': RECORDER.python, 'operations': RECORDER.operations,
        'crashed': RECORDER.crashed, 'sockets': FAST_PATHS['sockets'](),
        'pools': FAST_PATHS['pools']()}))


if __name__ == '__main__':
    run(sys.argv[1], *map(int, sys.argv[2:]))
