"""A fuzzer: everything hostile that a program may do, at any moment, while servers are busy.

``python tests/programs/hostile_fuzz.py --seconds N [--seed S]`` prints the seed and ends with
status 0 if nothing went wrong. If something did, the process crashes, or says what it was and
ends with 1.

Several threads, each with a hub of its own, run servers of all kinds and clients that connect to
them; workers come and go. Meanwhile *actions* are taken at random: servers are closed, restarted,
patched and dropped, classes and modules are patched, gevent_cbase is installed and uninstalled,
garbage is collected. They are taken from all *contexts*: callbacks and finalizers that the
collector calls, profile functions, signals, hooks and handlers of the servers, and threads to
which no server belongs. Those take only the actions that gevent allows to any thread.

``--only`` and ``--without`` take names of actions and contexts, separated by commas; ``--list``
shows them. ``--stock`` is the reference: the same on gevent alone. Runs with the same seed draw
the same numbers, and differ all the same: which thread comes first is up to the system.

What counts as wrong, besides a crash: an exception that gevent does not raise when it is treated
like this; a hook or handler that gets what belongs to another server or another thread; classes
that are not as they were in the end, or do not serve any more; memory and descriptors without
bounds.
"""
import argparse
import collections
import contextlib
import errno
import faulthandler
import gc
import importlib
import json
import os
import random
import re
import signal
import socket as native
import struct
import sys
import threading
import time
import traceback
import types
import warnings
import weakref

import _socket
import gevent
import gevent.baseserver
import gevent.pool
import gevent.server
import gevent.socket
import gevent.util
from gevent import _socket3, config, get_hub
from gevent.exceptions import HubDestroyed
from gevent.server import DatagramServer, StreamServer

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from helpers import LOOPBACK, descriptors  # noqa: E402

#: threads with servers, one of which is the main thread, and threads without
WORKERS, STRANGERS = 3, 2
#: servers and clients of one worker, and how many clients come at once at most
SERVERS, CLIENTS, BURST = 6, 3, 8
#: how deep actions are taken in the middle of actions
DEPTH = 2
#: bytes of memory, and descriptors, that a process may have in use
MEMORY, DESCRIPTORS = 1 << 30, 1500
#: descriptors with which there are enough clients
CROWD = 250
#: seconds without a turn of a thread after which it is waited for
LATE = 1
#: calls and returns that a profile function sees at a time
EVENTS = 5000
#: seconds for which a call shown to it may have been interrupted
RECENT = 10
#: seconds that a client waits, and a worker for all that it has started
PATIENCE, LAST_PATIENCE = 0.5, 5
RESET = struct.pack('ii', 1, 0)

#: what gevent's code raises when it is treated like this; others by what they say
EXPECTED = (OSError, AttributeError, AssertionError, gevent.GreenletExit, gevent.Timeout)
EXPECTED_TEXTS = (
    (ValueError, 'fd must be'),                  # closed meanwhile
    (TypeError, "'handle' must be provided"),    # the same
    (TypeError, 'call gevent_cbase.install() first'),
    (TypeError, 'a BaseServer is required, not'),  # stats(), and uninstall() elsewhere
)


class Planned(Exception):
    """What handlers and hooks raise on purpose."""


class Mixed(Exception):
    """Something came to a server that is none of its business."""


# -- what went wrong ---------------------------------------------------------------------

class Verdict:
    """What has been seen that must not be; ``over`` ends the run."""

    def __init__(self):
        self.found = collections.Counter()
        self.over = self.goes_on = False

    def wrong(self, what, details=''):
        if not self.found[what]:
            os.write(2, ('WRONG: %s\n%s\n' % (what, details)).encode())
        self.found[what] += 1
        if not self.goes_on:
            self.over = True

    def judge(self, place, error):
        """An exception that has got to *place*."""
        if isinstance(error, EXPECTED + (Planned,)) or any(
                isinstance(error, kind) and text in str(error) for kind, text in EXPECTED_TEXTS):
            return
        if is_late_call(error):
            return
        details = ''.join(traceback.format_exception(type(error), error, error.__traceback__))
        text = re.sub(r'0x[0-9a-f]+|\d{3,}', '*', '%s: %s' % (type(error).__name__, error))
        self.wrong('%s, in %s' % (text, place), details)

    def handle_error(self, context, kind, value, tb):
        """In place of that of a hub."""
        if kind is HubDestroyed:
            raise value  # as that does
        self.judge('a hub', kind() if value is None else value)

    def unraisable(self, info):
        """In place of sys.unraisablehook."""
        if info.exc_value is not None:
            self.judge('a finalizer', info.exc_value)

    def uncaught(self, info):
        """In place of threading.excepthook."""
        self.judge('a thread', info.exc_value)

    def warned(self, message, category, *args, **kwargs):
        """In place of warnings.showwarning: install() warns of a class that stays as it is."""
        self.wrong('%s: %s' % (category.__name__, message))


def is_late_call(error):
    """Whether a method of a class was called which its server had left after the look-up: another
    thread can come in between where arguments are computed, as in this file, or if the call is
    shown to a profile function.
    """
    if type(error) is not TypeError or not re.search(
            "doesn't apply to|requires a 'BaseServer' object", str(error)):
        return False
    last = error.__traceback__
    while last is not None and last.tb_next is not None:
        last = last.tb_next
    actor = FUZZ.actors.get(threading.get_ident())
    return (last is not None and last.tb_frame.f_code.co_filename == __file__
            or actor is not None and time.monotonic() < actor.profiled + RECENT)


VERDICT = Verdict()


# -- servers -----------------------------------------------------------------------------

class Token:
    """To whom a server belongs, what it has listened on, and what has to come back to it."""

    def __init__(self, worker):
        self.worker, self.ports = worker, set()
        self.guarded = worker.chance(0.7)
        self.busy = 0
        self.dropped = False

    def check_thread(self, where):
        if threading.get_ident() != self.worker.ident:
            raise Mixed('%s runs in another thread' % where)

    def check_socket(self, sock, server):
        """A handler's socket: accepted by this server, for the hub of this thread."""
        if sock.hub is not get_hub():
            raise Mixed('a socket has the hub of another thread')
        if server is not None:
            self.learn(server)
        try:
            port = sock.getsockname()[1]
        except (OSError, TypeError, IndexError):  # gone
            return
        if port not in self.ports and server is not None:
            raise Mixed('a handler got a connection of another server')

    def learn(self, server):
        """To be called before a server gets another address."""
        address = vars(server).get('address')
        if isinstance(address, tuple):
            self.ports.add(address[1])


def checked(cls, name):
    """A hook that looks at who calls it, and takes some action, now and then."""
    original = vars(cls)[name]
    family = StreamServer if issubclass(cls, StreamServer) else cls  # it may have become another

    def hook(self, *args):
        if not isinstance(self, family):
            raise Mixed('%s.%s got %s' % (cls.__name__, name, type(self).__name__))
        token = vars(self).get('token')
        if token is not None:  # while it is made there is none
            token.check_thread('%s.%s' % (cls.__name__, name))
            if token.worker.chance(0.02):
                token.worker.act('hook')
        return original(self, *args)
    hook.__name__ = name
    setattr(cls, name, hook)


def reported(function):
    """A function whose Mixed is seen, whoever swallows it."""
    def report(*args, **kwargs):
        try:
            return function(*args, **kwargs)
        except Mixed as ex:
            VERDICT.judge('a hook or a handler', ex)
            raise
    report.__name__ = function.__name__
    return report


class Plain(gevent.baseserver.BaseServer):
    """A server with socket handling of its own, in Python."""

    def init_socket(self):
        if not hasattr(self, 'socket'):
            self.socket = StreamServer.get_listener(self.address, 16, self.family)
            self.address = self.socket.getsockname()

    def do_read(self):
        worker = self.token.worker
        if worker.chance(0.02):
            raise Planned('do_read')
        try:
            fd, address = self.socket._accept()
        except BlockingIOError:
            return None
        sock = gevent.socket.socket(self.socket.family, self.socket.type, fileno=fd)
        result = sock, address, self.token
        return list(result) if worker.chance(0.1) else result

    def do_close(self, sock, address, token):
        if token is not self.token:
            raise Mixed('do_close got a connection of another server')
        sock.close()


class Endless(gevent.baseserver.BaseServer):
    """A server without a socket, that always has something for its handler."""
    turn = 0

    def do_read(self):
        self.turn += 1
        if self.turn % 3:
            return self, self.turn, self.token

    def do_close(self, server, turn, token):
        if server is not self or token is not self.token:
            raise Mixed('do_close got what belongs to another server')


class Overriding(StreamServer):
    """The hooks of a stream server, overridden."""

    def do_read(self):  # not by super(): it may have become another
        return StreamServer.do_read(self)

    def do_handle(self, *args):
        StreamServer.do_handle(self, *args)

    def do_close(self, sock, *args):
        StreamServer.do_close(self, sock, *args)


class Handling(StreamServer):
    """A stream server whose handler may be a method; nothing else is its own."""


class Checking(StreamServer):
    """A stream server that asks the pool itself, and handles errors in its own way."""

    def full(self):
        return self.pool is not None and self.pool.full()

    def is_fatal_error(self, ex):
        return False


for HOOKED, NAMES in {
        Plain: ('do_read', 'do_close'), Endless: ('do_read', 'do_close'),
        Overriding: ('do_read', 'do_handle', 'do_close'),
        Checking: ('full', 'is_fatal_error')}.items():
    for NAME in NAMES:
        checked(HOOKED, NAME)
        setattr(HOOKED, NAME, reported(vars(HOOKED)[NAME]))

#: classes whose instances may become instances of one another
RELATED = [StreamServer, Overriding, Handling, Checking]
KINDS = RELATED + [StreamServer, Plain, Plain, Endless, DatagramServer]


def spawn_by_hand(worker):
    """A spawn function in Python that nothing but one server holds."""
    def spawn(function, *args):
        if worker.chance(0.02):
            raise Planned('spawn')
        return gevent.spawn(function, *args)
    return spawn


#: name -> for a worker, what a server is given as *spawn*
SPAWNS = {
    'default': lambda worker: 'default', 'raw': lambda worker: gevent.spawn_raw,
    'none': lambda worker: None, 'function': spawn_by_hand,
    'number': lambda worker: worker.random.randint(1, 4),
    'pool': lambda worker: gevent.pool.Pool(worker.random.randint(1, 4))}


# -- handlers ----------------------------------------------------------------------------

def echo(worker, sock):
    sock.settimeout(0.01)
    with contextlib.suppress(OSError):
        sock.sendall(sock.recv(100))


def answer(worker, sock):
    with contextlib.suppress(OSError):
        sock.send(b'hello')


def close_twice(worker, sock):
    sock.close()
    sock.close()


def close_file_later(worker, sock):
    with sock.makefile('rb'):
        sock.close()


def close_elsewhere(worker, sock):
    """Garbage collected: nobody closes it."""
    worker.trash.append(sock)


def detach(worker, sock):
    os.close(sock.detach())


def fail(worker, sock):
    raise Planned('handler')


#: what a handler does with its connection; those below may block
BEHAVIOURS = [lambda worker, sock: None, answer, close_twice, close_file_later, close_elsewhere,
              detach, fail, lambda worker, sock: sock.close()]
BLOCKING = [echo, echo, lambda worker, sock: gevent.sleep(0),
            lambda worker, sock: gevent.getcurrent().throw(gevent.GreenletExit())]


def make_handler(server, worker, may_block):
    """A handler that nothing but *server* holds."""
    token, owner = server.token, weakref.ref(server)

    @reported
    def handle(sock, address, *rest):
        token.check_thread('a handler')
        worker.fuzz.served += 1
        if rest and rest != (token,):
            raise Mixed('a handler got a connection of another server')
        if worker.chance(0.05):
            worker.act('handler', may_block)
        if isinstance(sock, gevent.socket.socket):
            token.check_socket(sock, owner())
            # a switch in the middle of a collection would be the last one
            choices = BEHAVIOURS + BLOCKING if may_block and not worker.depth else BEHAVIOURS
            worker.random.choice(choices)(worker, sock)
    return handle


def call_method(find_class, name, server, *args):
    """A method of a class; again if the server was moved to another between look-up and call."""
    for _ in range(1000):
        method = getattr(find_class(), name)
        try:
            return method(server, *args)
        except TypeError as ex:
            if "doesn't apply to" not in str(ex) or ex.__traceback__.tb_next is not None:
                raise
            time.sleep(0)
    raise Mixed('%s.%s() does not take %s' % (find_class().__name__, name, type(server).__mro__))


def call_own(name, server, *args):
    return call_method(lambda: type(server), name, server, *args)


def guarded(server, name):
    """A method in the dictionary of a server, which notes that the method of the class is at work.

    Whoever interrupts gevent in one of these, to start or close the same server, leaves a watcher
    whose descriptor is closed, and libev ends the process.
    """
    owner, token = weakref.ref(server), server.token

    def method(*args):
        token.busy += 1
        try:
            return call_own(name, owner(), *args)
        finally:
            token.busy -= 1
    return method


def make_server(worker):
    cls = worker.random.choice(KINDS)
    spawn = worker.random.choice(sorted(SPAWNS))
    server = cls(LOOPBACK, len, spawn=SPAWNS[spawn](worker))
    server.token = Token(worker)
    server.stop_timeout = 0.01
    server.min_delay = 0.001
    if cls is Endless:
        server.max_accept = 20
    if server.token.guarded:
        for name in 'start', 'start_accepting', 'stop_accepting', 'close':
            vars(server)[name] = guarded(server, name)
    handler = make_handler(server, worker, spawn != 'none')
    call_own('set_handle', server, handler)
    return server


def start(server):
    """Start a server, which may have been closed before."""
    worker, own = server.token.worker, vars(server)
    server.token.learn(server)
    if 'socket' not in own and isinstance(own.get('address'), tuple):
        server.address = LOOPBACK
    if '_spawn' not in own:
        spawn = SPAWNS[worker.random.choice(sorted(SPAWNS))](worker)
        call_own('set_spawn', server, spawn)
    if '_handle' not in own:
        handler = make_handler(server, worker, own.get('_spawn') is not None)
        call_own('set_handle', server, handler)
    server.start()
    server.token.learn(server)
    if server.token.dropped:  # meanwhile
        server.close()


# -- patches -----------------------------------------------------------------------------

def passing(function):
    """A Python function that does what *function* does."""
    def patched(*args, **kwargs):
        return function(*args, **kwargs)
    return patched


class Patch:
    """Something that is put in place of an attribute, and the way back."""

    def __init__(self, holder, name, make=passing):
        self.holder, self.name, self.make = holder, name, make
        self.is_own = name in vars(holder)
        self.value = vars(holder)[name] if self.is_own else getattr(holder, name, None)

    def apply(self):
        setattr(self.holder, self.name, self.make(self.value))

    def undo(self):
        if self.is_own:
            setattr(self.holder, self.name, self.value)
        elif self.name in vars(self.holder):
            with contextlib.suppress(AttributeError):  # somebody else was faster
                delattr(self.holder, self.name)


def subclass(cls):
    return type(cls)(cls.__name__, (cls,), {'__slots__': ()})


def patches_of_classes(base_servers):
    yield Patch(gevent.socket.socket, 'note', lambda value: object())
    yield Patch(gevent.socket.socket, 'note', lambda value: object())
    for name in 'close', '__init__', '_drop_ref_on_close', '_detach_socket':
        yield Patch(gevent.socket.socket, name)
    for name in 'do_read', 'do_close':
        yield Patch(StreamServer, name)
    yield Patch(StreamServer, 'do_handle', lambda value: lambda self, *args: (
        call_method(lambda: gevent.baseserver.BaseServer, 'do_handle', self, *args)))
    yield Patch(DatagramServer, 'do_read')
    for name in 'spawn', 'full':
        yield Patch(gevent.pool.Pool, name)
    yield Patch(gevent.pool.Group, 'add')
    for cls, name in ((Plain, 'do_read'), (Plain, 'do_close'), (Endless, 'do_read'),
                      (Overriding, 'do_close'), (Overriding, 'do_handle'), (Checking, 'full')):
        yield Patch(cls, name)
    yield Patch(Handling, 'min_delay', lambda value: property(lambda self: 0.001, lambda *args: 0))
    yield Patch(Handling, 'do_close', lambda value: lambda self, sock, *args: sock.close())
    yield Patch(Plain, '__getattribute__', lambda value: passing(object.__getattribute__))
    yield Patch(Endless, 'max_accept', lambda value: 2)
    for base in base_servers:
        yield Patch(base, 'max_accept', lambda value: 1)
        yield Patch(base, 'min_delay', lambda value: 0.002)
        yield Patch(base, 'full', lambda value: lambda self: False)
        yield Patch(base, 'note', lambda value: object())


def patches_of_modules():
    yield Patch(_socket3, 'get_hub')
    yield Patch(_socket3, '_closedsocket', subclass)
    yield Patch(_socket, 'getdefaulttimeout')
    yield Patch(gevent.server, 'GeventSocket', subclass)
    yield Patch(gevent.pool, 'note', lambda value: object())


# What is put into the dictionary of a server: a name, and what makes it for that server.

def own_method(name):
    """The method that the class has then, bound by hand."""
    def method(self, *args):
        return call_own(name, self, *args)
    return lambda server: types.MethodType(method, server)


def another_handler(server):
    return make_handler(server, server.token.worker, vars(server).get('_spawn') is not None)


def another_spawn(server):
    """Not None: handlers that are there already may block."""
    return server.token.worker.random.choice(
        [gevent.spawn_raw, gevent.Greenlet.spawn, spawn_by_hand(server.token.worker)])


def full_method(server):
    """What the pool says, or that there is always room."""
    pool = vars(server).get('pool')
    return (lambda: False) if pool is None else (lambda: pool.full())


INSTANCE = [
    ('_handle', another_handler), ('handle', another_handler), ('_handle', another_handler),
    ('_spawn', another_spawn), ('do_close', own_method('do_close')),
    ('do_handle', own_method('do_handle')), ('do_read', own_method('do_read')),
    ('do_read', lambda server: lambda: None), ('full', full_method),
    ('max_accept', lambda server: 1), ('min_delay', lambda server: 0.003),
    ('delay', lambda server: 0.001), ('note', lambda server: object())]
#: those that the class has as well
REMOVABLE = ['do_close', 'do_handle', 'do_read', 'max_accept', 'min_delay', 'delay', 'note',
             '_handle']


# -- actions: what anybody may do --------------------------------------------------------

def patch_server(actor, server):
    name, make = actor.random.choice(INSTANCE)
    if name == '_spawn' and vars(server).get('pool') is not None:
        return  # its full() would be of another pool
    if name in ('_handle', 'handle', '_spawn') and name not in vars(server):
        return  # closed
    vars(server)[name] = make(server)


def restore_server(actor, server):
    vars(server).pop(actor.random.choice(REMOVABLE), None)


def patch_class(actor):
    actor.random.choice(FUZZ.patches).apply()


def restore_class(actor):
    actor.random.choice(FUZZ.patches).undo()


def patch_module(actor):
    actor.random.choice(FUZZ.globals).apply()


def restore_module(actor):
    actor.random.choice(FUZZ.globals).undo()


def install(actor):
    """Perhaps while another one is under way, in this thread or elsewhere."""
    if FUZZ.is_behind() or not FUZZ.installing.acquire(blocking=False):
        return
    if not FUZZ.options.one_install:
        FUZZ.installing.release()
    try:
        if actor.chance(0.6):
            FUZZ.cbase.install(datastack=actor.chance(0.5))
        else:
            FUZZ.cbase.uninstall()
    finally:
        if FUZZ.options.one_install:
            FUZZ.installing.release()


def stats(actor, server):
    FUZZ.cbase.stats(server)


def look_at(actor, server):
    repr(server), str(server), server.started, server.closed


def collect(actor):
    gc.collect(actor.random.choice([0, 1, 2]))


def set_threshold(actor):
    gc.set_threshold(actor.random.choice([1, 1, 2, 10, 100, 700]))


def clear_type_cache(actor):
    sys._clear_type_cache()


def switch_often(actor):
    sys.setswitchinterval(actor.random.choice([1e-5, 1e-5, 1e-5, 1e-4, 1e-3]))


# -- actions: what is left to the thread of the server ------------------------------------

def close(actor, server):
    server.token.learn(server)
    server.close()


def stop(actor, server):
    server.token.learn(server)
    server.stop(actor.random.choice([None, 0, 0.001]))


def restart(actor, server):
    server.token.learn(server)
    server.close()
    start(server)


def stop_accepting(actor, server):
    server.stop_accepting()


def start_accepting(actor, server):
    if server.started and not server.closed:
        server.start_accepting()


def wake(actor, server):
    """The loop calls, though there may be nobody."""
    if actor.depth and vars(server).get('pool') is not None:
        return  # handlers started meanwhile might fill it, and spawn() would block
    former, actor.woken = actor.woken, server
    try:
        for _ in range(actor.random.randint(1, 5)):
            call_own('_do_read', server)
    finally:
        actor.woken = former


def change_class(actor, server):
    if type(server) in RELATED:
        server.__class__ = actor.random.choice(RELATED)


def change_hooks(actor, server):
    """By the methods for that."""
    if vars(server).get('_spawn') is not None:
        if actor.chance(0.5):
            spawn = actor.random.choice(['default', 'raw', 'function', 'pool'])
            call_own('set_spawn', server, SPAWNS[spawn](actor))
        call_own('set_handle', server, another_handler(server))


def renew(actor, server):
    """Another server in its place; this one is dropped, perhaps in a cycle or while it listens."""
    made = make_server(actor)
    start(made)
    with contextlib.suppress(ValueError):  # gone already
        actor.servers[actor.servers.index(server)] = made
        actor.drop(server)
    if made not in actor.servers:
        made.close()


class Action:
    """An entry of the table. *scope* is what it is given: 'any' server, one of its 'own', one of
    these that is 'idle', or None.
    """

    def __init__(self, weight, function, scope=None, blocks=False):
        self.weight, self.function, self.scope, self.blocks = weight, function, scope, blocks


#: what is done: name in --only and --without -> actions
ACTIONS = {
    'close': [Action(6, close, 'idle')],
    'stop': [Action(2, stop, 'idle', blocks=True)],
    'restart': [Action(4, restart, 'idle')],
    'accepting': [Action(4, stop_accepting, 'idle'), Action(6, start_accepting, 'idle')],
    'wake': [Action(20, wake, 'idle')],
    'become': [Action(4, change_class, 'own')],
    'hooks': [Action(4, change_hooks, 'own')],
    'renew': [Action(4, renew, 'idle')],
    'instance': [Action(10, patch_server, 'any'), Action(8, restore_server, 'any')],
    'patch': [Action(10, patch_class), Action(10, restore_class)],
    'globals': [Action(2, patch_module), Action(3, restore_module)],
    'install': [Action(3, install)],
    'stats': [Action(3, stats, 'any')],
    'repr': [Action(2, look_at, 'any')],
    'collect': [Action(3, collect)],
    'threshold': [Action(3, set_threshold)],
    'cache': [Action(2, clear_type_cache)],
    'switches': [Action(2, switch_often)],
}

#: from where: name in --only and --without -> what is meant
CONTEXTS = {
    'greenlet': 'a greenlet of a worker',
    'handler': 'the handler of a server',
    'hook': 'do_read, do_close, ... of a server',
    'gc': 'a function in gc.callbacks',
    'finalizer': '__del__ of an object in a cycle',
    'weakref': 'the callback of a weak reference',
    'profile': 'a function given to sys.setprofile()',
    'signal': 'a handler of a signal',
    'thread': 'a thread without servers',
}
#: those that come at any moment
INTERRUPTING = {'gc', 'finalizer', 'weakref', 'profile', 'signal'}


# -- who takes them ----------------------------------------------------------------------

class Cycle:
    """Garbage that only the collector finds."""

    def __init__(self):
        self.itself = self


class Trap(Cycle):
    """Acts when it is collected, in whichever thread that is."""

    def __del__(self):
        FUZZ.act('finalizer')


def impatient(sock):
    """Have a client leave nothing in TIME_WAIT."""
    sock.setsockopt(native.SOL_SOCKET, native.SO_LINGER, RESET)


def close_all(socks):
    for sock in socks:
        sock.close()


class Actor:
    """A thread that takes actions."""

    def __init__(self, fuzz, number):
        self.fuzz = fuzz
        self.random = random.Random('%d %d' % (fuzz.options.seed, number))
        self.servers, self.trash = [], collections.deque(maxlen=20)
        self.callbacks = collections.deque(maxlen=20)
        self.depth = self.interrupted = self.events = 0
        self.ident = None
        self.seen, self.profiled = time.monotonic(), 0
        self.woken = None
        self.profiler = self.profile  # which CPython does not hold while it runs

    def chance(self, probability):
        return self.random.random() < probability

    def act(self, context, may_block=False):
        """Take an action in *context*, unless there are enough under way in this thread."""
        if context not in self.fuzz.contexts or VERDICT.over or self.depth >= DEPTH:
            return
        self.fuzz.contexts[context] += 1
        if may_block and not self.depth:
            self.take(True)
            return
        self.depth += 1
        self.interrupted += context in INTERRUPTING
        try:
            self.take(False)
        finally:
            self.depth -= 1
            self.interrupted -= context in INTERRUPTING

    def take(self, may_block):
        action = self.random.choices(*self.fuzz.actions)[0]
        args = []
        if action.blocks and not may_block:
            return
        if action.scope is not None:
            candidates = self.candidates(action.scope)
            if not candidates:
                return
            if self.woken in candidates and self.chance(0.5):
                candidates = [self.woken]  # in the middle of its batch
            args.append(self.random.choice(candidates))
        self.fuzz.taken[action.function.__name__] += 1
        try:
            action.function(self, *args)
        except gevent.GreenletExit:
            raise
        except BaseException as ex:
            VERDICT.judge(action.function.__name__ + '()', ex)

    def candidates(self, scope):
        """Servers for an action."""
        if scope == 'any':
            return self.fuzz.servers()
        if scope == 'own':
            return self.servers
        return [server for server in self.servers
                if not server.token.busy and (server.token.guarded or not self.interrupted)]

    def plant(self):
        """Garbage of all kinds."""
        if 'finalizer' in self.fuzz.contexts:
            Trap()
        if 'weakref' in self.fuzz.contexts:
            self.callbacks.append(weakref.ref(Cycle(), lambda ref: self.fuzz.act('weakref')))

    def profile(self, frame, event, arg):
        self.events += 1
        self.profiled = time.monotonic()
        if self.events > EVENTS:
            sys.setprofile(None)
        elif self.chance(0.002):
            self.act('profile')

    def start_profile(self):
        """For some time: everything is slow meanwhile, install() most of all."""
        if 'profile' in self.fuzz.contexts:
            self.events = 0
            sys.setprofile(self.profiler)

    def some_address(self):
        """That of a server of any thread, and its type of socket; None if there is to be none."""
        if self.fuzz.crowded:
            return None
        servers = [server for server in self.fuzz.servers()
                   if 'socket' in vars(server) and not isinstance(server, Endless)]
        if servers:
            server = self.random.choice(servers)
            address = vars(server).get('address')
            kind = (native.SOCK_DGRAM if isinstance(server, DatagramServer)
                    else native.SOCK_STREAM)
            return (address, kind) if address and address[1] else None

    def talk(self, sock, address):
        """Be a client with patience."""
        sock.settimeout(PATIENCE)
        sock.connect(address)
        if self.chance(0.7):
            sock.send(b'ping')
        if self.chance(0.7) and sock.type == native.SOCK_STREAM:
            sock.recv(100)

    def connect(self, module):
        """A client of some server, with a socket of *module*."""
        with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
            found = self.some_address()
            if found:
                sock = stack.enter_context(module.socket(native.AF_INET, found[1]))
                impatient(sock)
                self.talk(sock, found[0])

    def burst(self):
        """Clients that come together; to be closed later."""
        socks = []
        with contextlib.suppress(OSError):
            found = self.some_address()
            for _ in range(self.random.randint(1, BURST) if found else 0):
                socks.append(native.socket(native.AF_INET, found[1]))
                socks[-1].setblocking(False)
                impatient(socks[-1])
                socks[-1].connect_ex(found[0])  # at once, on the loopback interface
                if self.chance(0.5):
                    socks[-1].send(b'ping')
        return socks


class Worker(Actor):
    """A thread with servers and a hub, for some seconds at most."""

    def run(self, end):
        self.ident = threading.get_ident()
        self.fuzz.actors[self.ident] = self
        hub = get_hub()
        hub.handle_error = VERDICT.handle_error
        self.end = min(end, time.monotonic() + 1 + self.random.random() * 5)
        try:
            self.servers[:] = [make_server(self) for _ in range(SERVERS)]
            greenlets = [gevent.spawn(self.direct)]
            greenlets += [gevent.spawn(self.be_client) for _ in range(CLIENTS)]
            gevent.joinall(greenlets, timeout=self.end - time.monotonic() + LAST_PATIENCE)
            # what waits for a slot of a pool that lost one waits for good
            gevent.killall(greenlets, timeout=LAST_PATIENCE)
        finally:
            sys.setprofile(None)
            self.leave(hub)

    def is_over(self):
        return VERDICT.over or time.monotonic() > self.end

    def direct(self):
        """Take actions, and keep the servers going."""
        while not self.is_over():
            self.seen = time.monotonic()
            self.attempt(self.keep_going)
            self.plant()
            if self.chance(0.05):
                self.start_profile()
            self.attempt(self.act, 'greenlet', True)
            self.attempt(gevent.sleep, self.random.choice([0, 0, 0.001, 0.002]))
        sys.setprofile(None)

    @staticmethod
    def attempt(function, *args):
        try:
            function(*args)
        except BaseException as ex:
            VERDICT.judge('a greenlet', ex)

    def keep_going(self):
        for server in list(self.servers):
            if server.started or self.chance(0.5):
                continue
            try:
                start(server)
            except OSError as ex:
                if ex.errno in (errno.EMFILE, errno.ENFILE):
                    raise
                renew(self, server)
            if isinstance(server, Endless) and self.chance(0.3):
                call_own('_do_read', server)

    def be_client(self):
        while not self.is_over():
            socks = self.burst() if self.chance(0.5) else []
            if not socks:
                self.attempt(self.connect, gevent.socket)
            self.attempt(gevent.sleep, self.random.choice([0, 0.001, 0.002]))
            close_all(socks)

    def drop(self, server):
        """The last reference."""
        server.token.learn(server)
        server.token.dropped = True
        if self.chance(0.5):
            server.close()
        else:  # or the loop would keep it, and a timer or a pool would have it accept again
            server._stop_event.set()
            server.stop_accepting()
        if self.chance(0.5):
            server.itself = server

    def leave(self, hub):
        """Nothing of this thread goes on. Its servers may be garbage that others collect."""
        for server in self.servers:
            self.attempt(self.drop, server)
            self.attempt(server.stop_accepting)
        del self.servers[:]
        del self.fuzz.actors[self.ident]
        self.trash.clear()
        if hub.parent is gevent.getcurrent() and self.ident != threading.main_thread().ident:
            hub.destroy(destroy_loop=True)


class Stranger(Actor):
    """A thread without servers."""

    def run(self, end):
        self.ident = threading.get_ident()
        self.fuzz.actors[self.ident] = self
        try:
            while time.monotonic() < end and not VERDICT.over:
                self.seen = time.monotonic()
                self.act('thread')
                self.plant()
                if self.chance(0.02):
                    self.start_profile()
                socks = self.burst()
                time.sleep(self.random.choice([0, 0.001, 0.002]))
                close_all(socks)
        finally:
            sys.setprofile(None)
            del self.fuzz.actors[self.ident]


# -- all of it ---------------------------------------------------------------------------

def freeze():
    """Leave to the collector what is new: so it is fast, and can run all the time."""
    gc.unfreeze()  # also what install() has frozen meanwhile
    gc.collect()
    gc.freeze()


def peak_memory():
    """The most bytes that were in use. Not ru_maxrss, which begins with what the process had in
    use that has started this one."""
    with open('/proc/self/status') as file:
        (peak,) = re.findall(r'^VmHWM:\s*(\d+) kB$', file.read(), re.M)
    return int(peak) << 10


class Fuzz:
    """A run."""

    def __init__(self, options):
        self.options = options
        self.cbase = None if options.stock else importlib.import_module('gevent_cbase')
        self.actors = {}             # by thread
        self.crowded = False
        self.installing = threading.Lock()
        # how often; a thread may miss the count of another
        self.taken, self.threads, self.served = collections.Counter(), 0, 0
        self.end = time.monotonic() + options.seconds
        bases = [gevent.baseserver.BaseServer]
        if self.cbase is not None:
            bases.append(self.cbase.BaseServer)
        self.patches = list(patches_of_classes(bases))
        self.globals = list(patches_of_modules())
        names = chosen(options)
        self.contexts = dict.fromkeys(sorted(names & set(CONTEXTS)), 0)
        actions = [action for name in ACTIONS if name in names for action in ACTIONS[name]]
        self.actions = actions, [action.weight for action in actions]

    def is_behind(self):
        """Whether a worker has not had its turn for long: others have to leave it some time."""
        oldest = min([actor.seen for actor in list(self.actors.values())], default=0)
        return time.monotonic() > oldest + LATE

    def servers(self):
        """Of all threads."""
        return [server for actor in list(self.actors.values()) for server in actor.servers]

    def act(self, context):
        """In whichever thread this is."""
        actor = self.actors.get(threading.get_ident())
        if actor is not None:
            actor.act(context)

    def on_collection(self, phase, info):
        actor = self.actors.get(threading.get_ident())
        if actor is not None and actor.chance(0.2):
            actor.act('gc')

    def on_signal(self, number, frame):
        self.act('signal')
        if not VERDICT.over:
            signal.setitimer(signal.ITIMER_REAL, random.expovariate(500) + 1e-4)

    def watch(self, number):
        """Whether memory and descriptors are bounded; no clients come while there are many."""
        frozen = 0
        while time.monotonic() < self.end and not VERDICT.over:
            time.sleep(0.02)
            self.crowded = descriptors() > CROWD
            if self.crowded or time.monotonic() > frozen + 1:
                freeze()
                frozen = time.monotonic()
            if peak_memory() > MEMORY:
                VERDICT.wrong('too much memory')
            if descriptors() > DESCRIPTORS:
                VERDICT.wrong('too many descriptors')

    def employ(self, kind, number):
        """Have one thread after another do this, up to the end."""
        while time.monotonic() < self.end and not VERDICT.over:
            self.threads += 1
            actor = kind(self, number + 100 * self.threads)
            thread = threading.Thread(target=actor.run, args=[self.end], daemon=True)
            thread.start()
            thread.join()

    def begin(self):
        if self.cbase is not None:
            self.cbase.install()
        gc.callbacks.append(self.on_collection)
        sys.unraisablehook = VERDICT.unraisable
        threading.excepthook = VERDICT.uncaught
        warnings.simplefilter('ignore')
        warnings.filterwarnings('always', 'gevent_cbase:', RuntimeWarning)
        warnings.showwarning = VERDICT.warned
        sys.stderr.flush()
        sys.stderr = open(os.devnull, 'w')  # servers that give up say so
        sys.setswitchinterval(1e-5)
        gc.set_threshold(50)
        if 'signal' in self.contexts:
            signal.signal(signal.SIGALRM, self.on_signal)
            signal.setitimer(signal.ITIMER_REAL, 0.01)

    def finish(self):
        signal.setitimer(signal.ITIMER_REAL, 0)
        gc.callbacks.remove(self.on_collection)
        sys.setswitchinterval(0.005)
        gc.set_threshold(700)
        gc.unfreeze()
        if self.cbase is not None:
            self.cbase.uninstall()
        for patch in self.patches + self.globals:
            patch.undo()
        gc.collect()

    def run(self):
        self.begin()
        threads = [threading.Thread(target=self.employ, args=[Worker, number], daemon=True)
                   for number in range(1, WORKERS)]
        threads += [threading.Thread(target=self.employ, args=[Stranger, number], daemon=True)
                    for number in range(WORKERS, WORKERS + STRANGERS)]
        threads.append(threading.Thread(target=self.watch, args=[self.end], daemon=True))
        for thread in threads:
            thread.start()
        while time.monotonic() < self.end and not VERDICT.over:
            self.threads += 1
            Worker(self, 100 * self.threads).run(self.end)
        self.finish_threads(threads)
        self.finish()

    @staticmethod
    def finish_threads(threads):
        for thread in threads:
            thread.join(5 * LAST_PATIENCE)
        if any(thread.is_alive() for thread in threads):
            VERDICT.wrong('threads do not end', '\n'.join(gevent.util.format_run_info()))
            faulthandler.dump_traceback(file=sys.__stderr__)


def chosen(options):
    """Names of actions and contexts that are left."""
    names = set(ACTIONS) | set(CONTEXTS)
    for kind in ACTIONS, CONTEXTS:
        only = set(options.only) & set(kind)
        if only:
            names -= set(kind) - only
    unknown = (set(options.only) | set(options.without)) - set(ACTIONS) - set(CONTEXTS)
    if unknown:
        raise SystemExit('unknown: ' + ', '.join(sorted(unknown)))
    names -= set(options.without)
    if options.stock:
        names -= {'install', 'stats'}
    if not names & set(ACTIONS):
        raise SystemExit('no action is left')
    return names


# -- afterwards --------------------------------------------------------------------------

def check_classes(bases):
    """What uninstall() leaves is gevent's own."""
    for cls, former in bases.items():
        if cls.__bases__ != former:
            VERDICT.wrong('%s has the bases %r' % (cls.__name__, cls.__bases__))
    if gevent.baseserver.BaseServer.__module__ != 'gevent.baseserver':
        VERDICT.wrong('gevent.baseserver has another BaseServer')


def check_service(cls):
    """A new server answers, on whatever class it runs."""
    class Server(cls):
        def handle(self, sock, address):
            sock.sendall(b'done')
    try:
        with Server(LOOPBACK) as server:
            server.start()
            for _ in range(3):
                with gevent.socket.create_connection(server.address, LAST_PATIENCE) as client:
                    got = client.recv(10)
                    if got != b'done':
                        VERDICT.wrong('a server answers %r in the end' % got)
    except Exception as ex:
        VERDICT.wrong('%r, in a server in the end' % ex)


def check(fuzz, bases):
    check_classes(bases)
    check_service(StreamServer)
    if fuzz.cbase is not None:
        fuzz.cbase.install()
        check_service(StreamServer)
        fuzz.cbase.uninstall()
        check_classes(bases)
        check_service(StreamServer)


def arguments():
    def names(text):
        return [name for name in text.split(',') if name]
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('--seconds', type=float, default=10)
    parser.add_argument('--seed', type=int, default=None)
    parser.add_argument('--only', type=names, default=[], metavar='NAMES')
    parser.add_argument('--without', type=names, default=[], metavar='NAMES')
    parser.add_argument('--stock', action='store_true', help='gevent alone')
    parser.add_argument('--one-install', action='store_true', help='no install() or uninstall() '
                        'while another one is under way')
    parser.add_argument('--go-on', action='store_true', help='to the end, whatever is wrong')
    parser.add_argument('--list', action='store_true', help='show the names, and end')
    options = parser.parse_args()
    if options.seed is None:
        options.seed = random.randrange(1 << 30)
    return options


def main():
    global FUZZ
    options = arguments()
    if options.list:
        print('actions: ', *ACTIONS)
        for name, meaning in CONTEXTS.items():
            print('context: ', name, '-', meaning)
        return
    if config.loop.__module__ != 'gevent.libev.corecext':
        raise SystemExit('with this loop gevent itself does not survive it: use libev-cext')
    print('seed', options.seed, flush=True)
    faulthandler.enable(sys.__stderr__)
    faulthandler.dump_traceback_later(options.seconds + 100, exit=True, file=sys.__stderr__)
    bases = {cls: cls.__bases__ for cls in RELATED + [Plain, Endless, DatagramServer]}
    get_hub().handle_error = VERDICT.handle_error
    VERDICT.goes_on = options.go_on
    FUZZ = Fuzz(options)
    FUZZ.run()
    check(FUZZ, bases)
    print(json.dumps({
        'wrong': VERDICT.found, 'threads': FUZZ.threads, 'served': FUZZ.served,
        'megabytes': peak_memory() >> 20,
        'descriptors': descriptors(), 'contexts': FUZZ.contexts, 'actions': FUZZ.taken}),
        flush=True)
    # threads that do not end are no reason to wait, and nothing else is left to be looked at
    os._exit(1 if VERDICT.found else 0)


FUZZ = None

if __name__ == '__main__':
    main()
