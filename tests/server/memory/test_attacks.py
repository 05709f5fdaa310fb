"""Attacks on what the C code holds: Python that runs at a moment when nobody expects it.

It closes the server, replaces what was just looked up, or comes from another thread. The outcome
is gevent's, by value. What could take the process down runs in a child, whose allocator makes
sure that nobody can use what was freed.
"""
import gc
import os
import sys
import textwrap
import types
import weakref

import pytest
from gevent import socket

from helpers import (
    LOOPBACK, PLAIN, TESTS, FakeListener, by_hand, child_environ, is_open, printed, raising,
    shared_library)

PRELUDE = '''
    import ctypes
    import gc
    import os
    import signal
    import socket as native
    import sys
    import threading
    import time
    import types
    import warnings
    import weakref

    import gevent
    import gevent.baseserver
    import gevent.event
    import gevent.pool
    import gevent.server
    import gevent.socket
    from gevent import get_hub
    from gevent.baseserver import BaseServer
    from gevent.server import StreamServer
    from helpers import (
        LOOPBACK, FakeListener, FakeLoop, frames, is_open, read_all, until)

    def on_fake_loop(server):
        """Start a server whose batches the script runs."""
        server.loop = FakeLoop([])
        server.start()
        return server

    def connect(server):
        return native.create_connection(server.address, timeout=10)

    def batch(server):
        """In a greenlet of gevent, as the hub is one: what it spawns may be made in C."""
        gevent.spawn(server._do_read).get()

    def runs(function, server, clients=0):
        """Whether this Python function of gevent runs for each client of a batch. The first
        greenlet that is spawned from somewhere is always made by gevent."""
        for _ in range(clients):
            connect(server).close()
        ran = gevent.spawn(frames, {function.__code__: 'it'}, server._do_read).get()
        assert len(ran) <= 1 or len(ran) >= clients > 0, ran
        return len(ran) >= max(clients, 1)

    def when_compared(step, intervene, function, *args):
        """Call *function*. As soon as gevent's code is compared for *step*, call *intervene*."""
        def note(frame, event, arg):
            if event == 'call' and frame.f_code.co_name == 'differences' and (
                    frame.f_globals['__name__'] == 'gevent_cbase._native.' + step):
                sys.setprofile(None)
                intervened.append(step)
                intervene()
        sys.setprofile(note)
        try:
            return function(*args)
        finally:
            sys.setprofile(None)
    intervened = []

    def leave():
        """End at once: what is still open needs no warning."""
        sys.stdout.flush()
        os._exit(0)
'''


def child(impl, tmp_path, source, *args, **environ):
    """The lines that a script prints, in a process of its own which must end well."""
    env = child_environ(TESTS, PYTHONFAULTHANDLER='1', **environ)
    env.setdefault('PYTHONMALLOC', 'debug')  # the sanitizers have another one
    return printed(impl, tmp_path, textwrap.dedent(PRELUDE) + textwrap.dedent(source), *args,
                   env=env)


# -- what was noted of classes and dicts -------------------------------------------------

def test_type_versions_begin_again(impl, tmp_path):
    """CPython 3.10 then gives a changed class the version that it has had before."""
    assert child(impl, tmp_path, '''
        warnings.simplefilter('ignore', DeprecationWarning)
        clear = getattr(sys, '_clear_type_cache', None) or sys._clear_internal_caches
        handled = []

        class Server(BaseServer):
            calls = 0

        def reader(number):
            def do_read(self):
                self.calls += 1
                return (number,) if self.calls % 2 else None
            return do_read
        server = Server(FakeListener(), handled.append, spawn=None)
        for number in range(6):
            clear()
            Server.do_read = reader(number)
            server.calls  # the class gets its version
            server._do_read()
        print(handled)
    ''') == ['[0, 1, 2, 3, 4, 5]']


@pytest.mark.skipif(sys.version_info < (3, 12), reason='CPython has no dict watchers')
def test_dict_watcher_that_accepts(impl, tmp_path):
    """It is told before the dict changes. What the batch in it has seen is soon out of date."""
    assert child(impl, tmp_path, '''
        Watcher = ctypes.PYFUNCTYPE(
            ctypes.c_int, ctypes.c_int, ctypes.py_object, ctypes.c_void_p, ctypes.c_void_p)
        seen, calls, armed = [], [], False

        class Server(BaseServer):
            def do_read(self):
                calls.append(1)
                return ('client',) if len(calls) % 2 else None

            def do_close(self, client):
                pass

        def handler(number):
            state = [number]
            return lambda client: seen.append((client, state[0]))

        @Watcher
        def watcher(event, namespace, name, value):
            global armed
            if armed:
                armed = False
                server._do_read()
            return 0
        api = ctypes.pythonapi
        api.PyDict_AddWatcher.argtypes = [Watcher]
        api.PyDict_Watch.argtypes = [ctypes.c_int, ctypes.py_object]
        number = api.PyDict_AddWatcher(watcher)
        server = Server(FakeListener(), handler(0), spawn=lambda function, *args: function(*args))
        api.PyDict_Watch(number, server.__dict__)
        server._do_read()
        for number in (1, 2, 3):
            armed = True
            server.__dict__['_handle'] = handler(number)
            others = [handler(9) for _ in range(5)]  # where the former one was
            server._do_read()
            server._do_read()
            print(seen, armed)
            del seen[:]
        leave()
    ''') == ["[('client', 0), ('client', 0), ('client', 1), ('client', 1)] False",
             "[('client', 1), ('client', 2), ('client', 2)] False",
             "[('client', 2), ('client', 3), ('client', 3)] False"]


# -- Python code that runs in the middle of a step ---------------------------------------

@pytest.mark.fast_path('lookups')
def test_collector_closes_the_server(impl, tmp_path):
    """In 3.10 and 3.11 it may run whenever an object is made, also while a batch collects what
    it is going to call."""
    told = child(impl, tmp_path, '''
        class Server(BaseServer):
            def do_read(self):
                self.calls = vars(self).get('calls', 0) + 1
                return ('client',) if self.calls % 2 else None

            def do_close(self, *args):
                pass

        def functions(seen):
            """That only the server keeps."""
            token = object()

            def spawn(function, *args):
                seen.append(('spawn', token is not None))
                return function(*args)

            def handle(client):
                seen.append((client, token is not None))
            return handle, spawn

        def collecting(phase, info):
            global countdown
            if phase == 'start' and countdown:
                countdown -= 1
                if countdown == 0:
                    server.close()
        closed, countdown = 0, 0
        gc.callbacks.append(collecting)
        for turn in range(1, 30):
            seen = []
            server = Server(FakeListener(), *functions(seen))
            server.loop = FakeLoop([])
            server._do_read()
            assert seen == [('spawn', True), ('client', True)]
            del seen[:]
            countdown = turn
            gc.set_threshold(1)
            try:
                server._do_read()
            except Exception as ex:  # the batch itself finds that something is missing
                assert server.closed, ex
            gc.set_threshold(700)
            closed += server.closed
            assert seen in ([('spawn', True), ('client', True)], []), seen
            assert seen or server.closed
            assert all(kind in (AttributeError, TypeError) for _, kind, _ in server.loop.errors)
            countdown = 0
        print(closed > 0)
    ''')
    assert told == ['True'] or sys.version_info >= (3, 12)  # collects between two instructions


@pytest.mark.fast_path('lookups', 'sockets')
@pytest.mark.parametrize('kind', ['class', 'instance'])
def test_other_servers_accept_while_gevent_is_compared(impl, tmp_path, kind):
    """A class of gevent has changed, so its code is compared again, in Python. Other servers run
    meanwhile, and what was looked up for the first one is still right afterwards."""
    assert child(impl, tmp_path, '''
        class Other(BaseServer):
            def do_read(self):
                log.append(type(self).__name__)

        def own():
            log.append('own')

        def let_others_run():
            for other in others:
                other._do_read()
        log = []
        server = on_fake_loop(StreamServer(LOOPBACK, lambda *args: log.append('handled'),
                                           spawn=None))
        others = [Other(FakeListener(), print) for _ in range(100)]
        if sys.argv[1] == 'instance':
            for other in others:
                other.do_read = own
        connect(server).close()
        server._do_read()
        close = gevent.socket.socket.close
        gevent.socket.socket.close = lambda self: close(self)
        connect(server).close()
        when_compared('sockets', let_others_run, server._do_read)
        gevent.socket.socket.close = close
        connect(server).close()
        server._do_read()
        if not intervened:
            let_others_run()
        print(len(intervened), log.count('handled'), len(log) - 3, sorted(set(log)))
        server.stop()
    ''', kind) == ['%d 3 100 %s' % (
        not impl.stock, ['Other', 'handled'] if kind == 'class' else ['handled', 'own'])]


@pytest.mark.fast_path('lookups', 'sockets')
def test_threads_accept_while_gevent_is_compared(impl, tmp_path):
    """The same, by chance: the other servers are those of another thread."""
    assert child(impl, tmp_path, '''
        class Other(BaseServer):
            def do_read(self):
                if type(self) is not Other:
                    wrong.append(type(self))

        def run_others():
            others = [Other(FakeListener(), print) for _ in range(16)]
            ready.set()
            while not ended:
                for other in others:
                    other._do_read()
        handled, wrong, ended, ready = [], [], False, threading.Event()
        server = StreamServer(LOOPBACK, lambda *args: handled.append(1))
        server.start()
        thread = threading.Thread(target=run_others)
        thread.start()
        ready.wait()
        sys.setswitchinterval(1e-5)
        close = gevent.socket.socket.close
        for _ in range(40):
            with connect(server):
                gevent.socket.socket.close = lambda self: close(self)
                gevent.sleep(0.005)
            with connect(server):
                gevent.socket.socket.close = close
                gevent.sleep(0.005)
        ended = True
        until(lambda: len(handled) == 80)
        thread.join()
        server.stop()
        print(len(handled), wrong)
    ''') == ['80 []']


def test_spawner_is_freed_when_the_next_one_is_noted(impl, tmp_path):
    """The stack that was noted last may hold the last reference to a code object. Who waits for
    its end spawns a greenlet, in the middle of noting the next stack. Each greenlet knows its own.
    """
    assert child(impl, tmp_path, '''
        def handle(expected):
            frame, names = gevent.getcurrent().spawning_stack, []
            while frame is not None:
                if frame.f_code.co_filename in (__file__, '<string>'):
                    names.append(frame.f_code.co_name)
                frame = frame.f_back
            told.append((expected, names[0], names[1]))

        class Server(BaseServer):
            def do_read(self):
                return (steps.pop(),) if steps else None

        def first():
            steps.append('first')
            server._do_read()

        def second(ref=None):  # has the same instructions
            steps.append('second')
            server._do_read()

        def call(function):
            function()

        def main():
            exec('def third(): steps.append("third"); server._do_read()', globals())
            third()
            gevent.sleep(0)
            ref = weakref.ref(third.__code__, second)
            del globals()['third']
            for function in (first, second, first, second):
                call(function)
            gevent.sleep(0)
            assert ref() is None
        steps, told = [], []
        server = Server(FakeListener(), handle)
        gevent.spawn(main).get()
        print(sorted(line for line in told if line[2] == 'call'))
        print([line for line in told if line[0] != line[1]], len(told))
    ''') == [str([('first', 'first', 'call')] * 2 + [('second', 'second', 'call')] * 2), '[] 6']


# -- exceptions --------------------------------------------------------------------------

class Outer(Exception):
    """What is handled meanwhile."""


def frail(impl, hook):
    """A class of servers on which this hook fails."""
    return type('Frail', (impl.BaseServer,), {hook: raising(LookupError)})


def fail_to_start(impl):
    with pytest.raises(LookupError):
        frail(impl, 'init_socket')(LOOPBACK, print).start()


def fail_to_accept(impl):
    with pytest.raises(LookupError):
        frail(impl, 'start_accepting')(FakeListener(), print).start()


def fail_to_parse(impl):
    with pytest.raises(ValueError):
        impl.BaseServer('host:port', print)


def fail_to_make(impl):
    with pytest.raises(LookupError):
        frail(impl, 'set_spawn')(FakeListener(), print)


def fail_to_close(impl):
    with pytest.raises(LookupError):
        frail(impl, 'stop_accepting')(FakeListener(), print).close()


def fail_to_read(impl):
    server = by_hand(impl, [LookupError()])
    server._do_read()
    (_, kind, value), = server.loop.errors
    assert kind is LookupError and type(value.__context__) is Outer


def fail_to_handle(impl):
    server = by_hand(impl, [(1,)], spawn=raising(LookupError))
    server._do_read()
    (_, kind, value), = server.loop.errors
    assert kind is LookupError and type(value.__context__) is Outer


def fail_for_good(impl):
    server = by_hand(impl, [OSError(9, 'bad')])
    server._do_read()
    assert server.closed


@pytest.mark.parametrize('fail', [
    fail_to_start, fail_to_accept, fail_to_parse, fail_to_make, fail_to_close, fail_to_read,
    fail_to_handle, fail_for_good])
def test_generator_forgets_what_its_caller_handled(impl, capsys, fail):
    """It is resumed from an except block and fails in C, or something in it does. Resumed after
    the block it handles nothing, and the exception is gone."""
    impl.BaseServer(FakeListener(), print)  # see the next test for the first server of all

    def generate():
        yield
        fail(impl)
        yield
        handled = sys.exc_info()[1]
        try:
            raise ValueError
        except ValueError as ex:
            yield handled, ex.__context__
    generator, ref = generate(), None
    next(generator)
    try:
        raise Outer
    except Outer as ex:
        ref = weakref.ref(ex)
        next(generator)
    assert next(generator) == (None, None)
    gc.collect()
    assert ref() is None


def test_first_server_is_made_in_a_generator(impl, tmp_path):
    """Which is resumed from an except block. To make the server, gevent is compared, and that
    makes a greenlet; gevent's constructor of it confuses what is handled."""
    assert child(impl, tmp_path, '''
        def generate():
            yield
            StreamServer(LOOPBACK, print)
            yield
            yield sys.exc_info()[1]
        get_hub()
        generator = generate()
        next(generator)
        try:
            raise LookupError
        except LookupError:
            next(generator)
        print(repr(next(generator)))
    ''') == ['None']


# -- gevent cannot be compared now -------------------------------------------------------

def test_socket_is_closed_at_exit(impl, tmp_path):
    """By a finalizer when nothing can be imported any more, after gevent's class was touched."""
    assert child(impl, tmp_path, '''
        import builtins

        class Holder:
            fstat, write = staticmethod(os.fstat), staticmethod(os.write)

            def __init__(self):
                self.socket = gevent.socket.socket()
                self.fd = self.socket.fileno()

            def __del__(self):
                try:
                    self.socket.close()
                except BaseException as ex:
                    self.write(1, repr(ex).encode() + b'\\n')
                try:
                    self.fstat(self.fd)
                    self.write(1, b'still open\\n')
                except OSError:
                    self.write(1, b'closed\\n')
        StreamServer(LOOPBACK, print)  # gevent is compared
        holder = builtins.holder = Holder()
        holder.itself = holder
        gevent.socket.socket.touched = True
        del holder
    ''') == ['closed']


#: a fast path, and a Python function of gevent that does not run where it is taken
STEPS = [pytest.param(*values, marks=pytest.mark.fast_path('lookups', path), id=path)
         for path, *values in [
    ('sockets', 'sockets', 'StreamServer.do_read'),
    ('greenlets', 'greenlets', 'type(gevent.config).track_greenlet_tree.fget'),
    ('pools', 'pools', 'gevent.pool.Pool.full')]]


@pytest.mark.parametrize('error', ['KeyboardInterrupt', 'MemoryError'])
@pytest.mark.parametrize('step, function', STEPS)
def test_first_comparison_is_interrupted(impl, tmp_path, step, function, error):
    """It is made up for later. Meanwhile gevent's code runs, and no listener stays behind."""
    made, after = child(impl, tmp_path, '''
        def interrupt():
            raise %s

        def handle(*args):
            handled.append(1)

        def make():
            listener = native.create_server(LOOPBACK)
            listener.setblocking(False)
            listeners.append(listener)
            return StreamServer(
                listener, handle, spawn=5 if step == 'pools' else 'default')
        step, handled, listeners = sys.argv[1], [], []
        try:
            server = when_compared(step, interrupt, make)
        except %s:
            print('raised', is_open(listeners[0].fileno()))
            server = make()
        else:
            print('made', is_open(listeners[0].fileno()))
        on_fake_loop(server)
        for _ in range(3):
            connect(server).close()
            batch(server)
        in_python = runs(%s, server, 3)
        until(lambda: len(handled) == 6)
        print(intervened, in_python)
        leave()
    ''' % (error, error, function), step)
    assert made in ('made True', 'raised False')
    assert after == ('[] True' if impl.stock else "['%s'] False" % step)


@pytest.mark.parametrize('error', ['KeyboardInterrupt', 'MemoryError'])
@pytest.mark.parametrize('step, function', STEPS)
def test_comparison_after_a_change_is_interrupted(impl, tmp_path, step, function, error):
    """The same for a server that runs when a class of gevent has changed. Nobody connects if that
    would be another reason to compare."""
    assert child(impl, tmp_path, '''
        def interrupt():
            raise %s

        def handle(*args):
            handled.append(1)

        def accept():
            if step == 'greenlets':
                connect(server).close()
            try:
                server._do_read()
            except BaseException:
                pass
        step, handled = sys.argv[1], []
        server = on_fake_loop(StreamServer(
            LOOPBACK, handle, spawn=5 if step == 'pools' else 'default'))
        gevent.spawn(accept).get()
        for cls in gevent.socket.socket, type(gevent.config), gevent.pool.Pool:
            cls.touched = True
        gevent.spawn(when_compared, step, interrupt, accept).get()
        for _ in range(3):
            gevent.spawn(accept).get()
        gevent.sleep(0)
        del handled[:]
        in_python = runs(%s, server, 3 * (step == 'greenlets'))
        print(intervened, in_python)
        connect(server).close()
        batch(server)
        until(lambda: handled)
        leave()
    ''' % (error, function), step) == ['[] True' if impl.stock else "['%s'] False" % step]


@pytest.mark.fast_path('lookups', 'sockets')
def test_no_descriptor_is_free_for_the_comparison(impl, tmp_path):
    """For nothing else either: gevent's error is reported, and all is well afterwards."""
    assert child(impl, tmp_path, '''
        import errno
        import resource

        handled = []
        server = on_fake_loop(StreamServer(LOOPBACK, lambda *args: handled.append(1), spawn=None))
        server._do_read()
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (100, hard))
        taken = []
        try:
            while True:
                taken.append(os.dup(0))
        except OSError as ex:
            assert ex.errno == errno.EMFILE
        gevent.socket.socket.touched = True
        server._do_read()
        print([(context is server, value.errno == errno.EMFILE)
               for context, _, value in server.loop.errors])
        for fd in taken:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for _ in range(3):
            server._do_read()
        print(runs(StreamServer.do_read, server))
        connect(server).close()
        server._do_read()
        print(len(handled))
        leave()
    ''') == ['[(True, True)]', str(impl.stock), '1']


# -- accept4() ---------------------------------------------------------------------------

LIBRARY = r'''
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <netinet/in.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>

static int missing, calls, flood, raise_at, raised, fails_with;

/* As in an old kernel. */
void
attack_missing(void)
{
    missing = 1;
}

/* That many clients come out of nowhere, and a signal with one of them. */
void
attack_flood(int clients, int number, int signal_number)
{
    flood = clients;
    calls = 0;
    raise_at = number;
    raised = signal_number;
}

/* The next call fails with EINTR after a signal. */
void
attack_interrupt(int signal_number)
{
    calls = 0;
    raise_at = 1;
    raised = signal_number;
    fails_with = EINTR;
}

int
attack_calls(void)
{
    return calls;
}

int
accept4(int fd, struct sockaddr *peer, socklen_t *size, int flags)
{
    static int (*real)(int, struct sockaddr *, socklen_t *, int);

    if (real == NULL) {
        real = (int (*)(int, struct sockaddr *, socklen_t *, int))dlsym(RTLD_NEXT, "accept4");
    }
    calls++;
    if (missing) {
        errno = ENOSYS;
        return -1;
    }
    if (raised != 0 && calls == raise_at) {
        raise(raised);
        if (fails_with != 0) {
            errno = fails_with;
            fails_with = 0;
            return -1;
        }
    }
    if (calls <= flood) {
        struct sockaddr_in address = {.sin_family = AF_INET};
        memcpy(peer, &address, sizeof(address));
        *size = sizeof(address);
        return socket(AF_INET, SOCK_STREAM | flags, 0);
    }
    return real(fd, peer, size, flags);
}
'''


@pytest.fixture(scope='module')
def library(tmp_path_factory):
    """LIBRARY, compiled."""
    folder = tmp_path_factory.mktemp('attacks')
    source = folder / 'attacks.c'
    source.write_text(LIBRARY)
    return shared_library(source, folder, '-ldl')


@pytest.fixture
def preloaded(impl, tmp_path, library):
    """child() with accept4() under the control of its script, as ``attack``."""
    preload = ' '.join(filter(None, [os.environ.get('LD_PRELOAD'), library]))

    def run(source, *args):
        load = 'attack = ctypes.CDLL(%r)\n' % library
        return child(impl, tmp_path, load + textwrap.dedent(source), *args, LD_PRELOAD=preload)
    return run


@pytest.mark.parametrize('spawn', ['default', 'none'])
def test_no_accept4(preloaded, spawn):
    """The kernel, or a filter of system calls, does not know it: accept() is called instead. What
    it gives is not inherited and does not block."""
    assert preloaded('''
        def handle(client, address):
            flags.append((os.get_inheritable(client.fileno()), os.get_blocking(client.fileno())))
            client.sendall(b'%d' % address[1])
        flags, errors = [], []
        get_hub().handle_error = lambda *args: errors.append(args)
        attack.attack_missing()
        spawn = None if sys.argv[1] == 'none' else 'default'
        server = StreamServer(LOOPBACK, handle, spawn=spawn)
        server.start()
        for turn in range(2):
            clients = [connect(server) for _ in range(3)]
            until(lambda: len(flags) == 3 or errors)
            ports = [str(client.getsockname()[1]) for client in clients]
            gevent.sleep(0)
            print([read_all(client).decode() for client in clients] == ports, set(flags), errors)
            del flags[:]
        server.stop()
    ''', spawn) == ['True {(False, False)} []'] * 2


@pytest.mark.fast_path('lookups', 'sockets')
@pytest.mark.parametrize('impl', ['cbase'], indirect=True)
def test_no_accept4_is_told(preloaded):
    """By stats(); and sockets are still closed in C."""
    assert preloaded('''
        import gevent_cbase
        attack.attack_missing()
        served = []
        server = StreamServer(LOOPBACK, lambda *args: served.append(args))
        server.start()
        client = connect(server)
        until(lambda: served)
        print(gevent_cbase.stats(server).fast_paths['sockets'])
        server.stop()
    ''') == ['the kernel has no accept4(): only closing is native']


@pytest.mark.parametrize('spawn', ['default', 'raw', 'pool'])
def test_signals_during_a_long_batch(preloaded, spawn):
    """However many clients wait, and however many may be accepted at once: a signal handler need
    not wait for the last of them, and nobody is lost."""
    assert preloaded('''
        spawn = {'default': 'default', 'raw': gevent.spawn_raw, 'pool': 1000}[sys.argv[1]]
        handled, noticed = [], []
        signal.signal(signal.SIGUSR1, lambda *args: noticed.append(attack.attack_calls()))
        server = StreamServer(LOOPBACK, lambda *args: handled.append(1), spawn=spawn)
        server.max_accept = 10 ** 6
        on_fake_loop(server)
        batch(server)  # from now on all is known
        attack.attack_flood(600, 10, signal.SIGUSR1)
        batch(server)
        print(len(noticed), noticed[0] < 600, attack.attack_calls())
        until(lambda: len(handled) == 600)
        print(set(handled), server.loop.errors)
        server.stop()
    ''', spawn) == ['1 True 601', '{1} []']


def test_signal_handler_stops_a_long_batch(preloaded):
    """It closes the server: the clients that are still waiting are not accepted."""
    assert preloaded('''
        handled = []
        signal.signal(signal.SIGUSR1, lambda *args: server.close())
        server = StreamServer(LOOPBACK, lambda *args: handled.append(1))
        server.max_accept = 10 ** 6
        on_fake_loop(server)
        batch(server)
        attack.attack_flood(600, 10, signal.SIGUSR1)
        batch(server)
        calls = attack.attack_calls()
        gevent.sleep(0.01)
        print(server.closed, calls < 600, calls - 1 <= len(handled) <= calls)
        leave()
    ''') == ['True True True']


def test_signal_handler_fails_in_a_long_batch(preloaded):
    """What it raises is reported, and accepting pauses. Who was accepted before is handled."""
    assert preloaded('''
        def fail(*args):
            raise LookupError
        handled = []
        signal.signal(signal.SIGUSR1, fail)
        server = StreamServer(LOOPBACK, lambda *args: handled.append(1))
        server.max_accept = 10 ** 6
        on_fake_loop(server)
        batch(server)
        attack.attack_flood(600, 10, signal.SIGUSR1)
        batch(server)
        calls = attack.attack_calls()
        gevent.sleep(0.01)
        print([kind.__name__ for _, kind, _ in server.loop.errors],
              ('timer', 0.01) in server.loop.log)
        print(calls < 600, calls - 1 <= len(handled) <= calls)
        leave()
    ''') == ["['LookupError'] True", 'True True']


@pytest.mark.parametrize('what', ['listener', 'server'])
def test_signal_handler_closes_the_listener(preloaded, what):
    """Its descriptor number is soon that of another one, whose clients are not the server's."""
    assert preloaded('''
        import io

        def close(*args):
            (listener if sys.argv[1] == 'listener' else server).close()
            closed.append(not is_open(fd))
            os.dup2(other.fileno(), fd)
        handled, closed = [], []
        listener, other = native.create_server(LOOPBACK), native.create_server(LOOPBACK)
        listener.setblocking(False)
        other.setblocking(False)
        fd = listener.fileno()
        server = on_fake_loop(StreamServer(
            listener, lambda client, address: handled.append(address), spawn=None))
        client = native.create_connection(other.getsockname())
        signal.signal(signal.SIGUSR1, close)
        attack.attack_interrupt(signal.SIGUSR1)
        sys.stderr = said = io.StringIO()
        server._do_read()
        sys.stderr = sys.__stderr__
        print(closed, handled, [(context is server, getattr(value, 'errno', value))
                                for context, _, value in server.loop.errors])
        print(server.closed, 'failed with [Errno 9] ' in said.getvalue())
        accepted, address = other.accept()
        print(address == client.getsockname())
        leave()
    ''', what) == ['[True] [] [(True, 9)]', 'True True', 'True']


# -- install() and uninstall() -----------------------------------------------------------

@pytest.mark.parametrize('direction', ['install', 'uninstall'])
def test_event_is_under_way_in_another_thread(tmp_path, direction):
    """Its loop knows already what to call, and waits for the GIL, while this thread re-points the
    server. No Python code of this thread lets the other one run in between."""
    assert child(PLAIN, tmp_path, '''
        import gevent_cbase

        def serve():
            global server
            server = StreamServer(LOOPBACK, lambda client, address: client.sendall(b'pong'))
            server.start()
            ready.set()
            until(lambda: ended, 60)
            server.stop()
        gevent_cbase.install()  # all that is read from files is read
        gevent_cbase.uninstall()
        ended, ready = False, threading.Event()
        thread = threading.Thread(target=serve)
        thread.start()
        ready.wait()
        libc = ctypes.PyDLL(None)  # its functions keep the GIL
        sys.setswitchinterval(1000)
        answers = []
        for turn in range(10):
            if sys.argv[1] == 'uninstall':
                gevent_cbase.install()
            time.sleep(0.03)  # the other thread waits for events
            client = native.socket()
            client.settimeout(10)
            host, port = server.address
            address = (native.AF_INET.to_bytes(2, sys.byteorder) + port.to_bytes(2, 'big')
                       + native.inet_aton(host) + bytes(8))
            client.setblocking(True)
            assert libc.connect(client.fileno(), address, len(address)) == 0
            libc.usleep(20000)
            if sys.argv[1] == 'install':
                gevent_cbase.install()
            else:
                gevent_cbase.uninstall()
            client.settimeout(10)
            answers.append(read_all(client))
            gevent_cbase.uninstall()
        ended = True
        thread.join()
        print(set(answers), len(answers))
    ''', direction) == ["{b'pong'} 10"]


def test_servers_run_in_other_threads(tmp_path):
    """Under load, while this thread installs and uninstalls: everybody is answered."""
    assert child(PLAIN, tmp_path, '''
        import gevent_cbase

        def serve():
            server = StreamServer(LOOPBACK, lambda client, address: client.sendall(b'pong'))
            server.start()
            servers.append(server)
            until(lambda: ended, 60)
            server.stop()

        def call(server):
            while not done:
                with native.create_connection(server.address, timeout=30) as client:
                    answers.append(client.recv(100))
        servers, answers, done, ended = [], [], False, False
        threads = [threading.Thread(target=serve) for _ in range(2)]
        for thread in threads:
            thread.start()
        until(lambda: len(servers) == 2)
        callers = [threading.Thread(target=call, args=(server,)) for server in servers]
        for thread in callers:
            thread.start()
        end, rounds = time.monotonic() + 3, 0
        while time.monotonic() < end:
            gevent_cbase.install()
            gevent_cbase.uninstall()
            rounds += 1
        done = True
        for thread in callers:
            thread.join()
        ended = True
        for thread in threads:
            thread.join()
        print(set(answers), rounds > 0)
    ''') == ["{b'pong'} True"]


def test_servers_are_made_in_another_thread(tmp_path):
    """At any moment of install() and uninstall(): each works."""
    assert child(PLAIN, tmp_path, '''
        import gevent_cbase

        def make():
            while not ended:
                try:
                    one = StreamServer(LOOPBACK, print)
                    made.append((one.address, one.closed, one.started, one.max_accept))
                except Exception as ex:
                    errors.add(repr(ex))
        made, errors, ended = [], set(), False
        thread = threading.Thread(target=make)
        thread.start()
        sys.setswitchinterval(1e-5)
        for _ in range(8):
            gevent_cbase.install()
            gevent_cbase.uninstall()
        ended = True
        thread.join()
        print(set(made), errors)
    ''') == ["{(('127.0.0.1', 0), True, False, 100)} set()"]


@pytest.mark.parametrize('step', ['install', 'uninstall'])
@pytest.mark.parametrize('frozen', [False, True], ids=['plain', 'frozen'])
def test_servers_in_the_frozen_generation(tmp_path, step, frozen):
    """gc.freeze(), which programs call before they fork, hides nothing: a running server, an idle
    one, and one that waits for its pool move."""
    assert child(PLAIN, tmp_path, '''
        import gevent_cbase

        def is_ours(server):
            return server._watcher.callback.__func__.__module__ == 'gevent_cbase.baseserver'

        def ask(server):
            with connect(server) as client:
                until(lambda: len(handled) > before)
        handled, before = [], 0
        installs, frozen = sys.argv[1] == 'install', sys.argv[2] == 'True'
        if not installs:
            gevent_cbase.install()
        go = gevent.event.Event()
        running = StreamServer(LOOPBACK, lambda *args: handled.append(1))
        waiting = StreamServer(LOOPBACK, lambda *args: go.wait(), spawn=1)
        idle = gevent.baseserver.BaseServer(LOOPBACK, print)
        running.start()
        waiting.start()
        clients = [connect(waiting), connect(waiting)]
        until(lambda: waiting._watcher is None)
        linked = [waiting.pool._semaphore.linkcount()]
        if frozen:
            gc.freeze()
        count = gc.get_freeze_count()
        if installs:
            gevent_cbase.install()
        else:
            gevent_cbase.uninstall()
        gevent.sleep(0.01)
        print(is_ours(running), running._watcher.callback == running._do_read)
        cls = gevent_cbase.BaseServer if installs else gevent.baseserver.BaseServer
        print(type(idle) is cls, isinstance(running, cls), isinstance(waiting, cls))
        ask(running)
        if installs:
            print(gevent_cbase.stats(running).accepted, gevent_cbase.stats(idle).accepted)
        linked.append(waiting.pool._semaphore.linkcount())
        waiting.close()
        linked.append(waiting.pool._semaphore.linkcount())
        print(linked)
        running.stop()
        gevent_cbase.uninstall()
        print(type(idle) is gevent.baseserver.BaseServer, gc.get_freeze_count() >= count // 2)
        leave()
    ''', step, frozen) == (
        ['%s True' % (step == 'install'), 'True True True'] + ['1 0'] * (step == 'install')
        + ['[1, 1, 0]', 'True True'])


def test_value_that_cannot_be_compared(tmp_path):
    """A program has set it on gevent's class. install() does all of its work, or nothing."""
    assert child(PLAIN, tmp_path, '''
        import gevent_cbase

        class Odd(tuple):
            __hash__ = tuple.__hash__

            def __eq__(self, other):
                raise ValueError('ambiguous')
            __ne__ = __eq__

        def state():
            """What install() changes, by identity."""
            found = dict(vars(gevent.baseserver))
            found.update(vars(gevent_cbase.BaseServer))
            found.update(('StreamServer.' + name, value) for name, value in
                         vars(StreamServer).items())
            found.update(enumerate(StreamServer.__bases__))
            found = {name: id(value) for name, value in found.items() if name != '__bases__'}
            found['code'] = gevent.socket.socket.close.__code__
            found['data stack'] = gevent_cbase.datastack.is_enabled()
            found['installed'] = gevent_cbase.is_installed()
            return found
        import gevent_cbase.datastack
        stock, ours = gevent.baseserver.BaseServer, gevent_cbase.BaseServer
        values = ours.max_accept, ours.fatal_errors
        stock.max_accept, stock.fatal_errors = 7, Odd((9, 22, 38))
        before = state()
        for _ in range(2):
            try:
                gevent_cbase.install()
            except ValueError:
                assert state() == before, {
                    name: value for name, value in state().items() if before.get(name) != value}
            else:
                assert gevent_cbase.is_installed() and gevent.baseserver.BaseServer is ours
                assert StreamServer.__bases__ == (ours,) and ours.max_accept == 7
                assert ours.fatal_errors is stock.fatal_errors
            gevent_cbase.uninstall()
            assert state() == before
            assert (ours.max_accept, ours.fatal_errors) == values
        stock.max_accept, stock.fatal_errors = values
        gevent_cbase.install()
        assert StreamServer.__bases__ == (ours,)
        gevent_cbase.uninstall()
        assert StreamServer.__bases__ == (stock,)
    ''') == []


# -- other things that programs do -------------------------------------------------------

@pytest.mark.parametrize('place', ['init_socket', '_stop_event'])
def test_failed_start_leaves_the_listener_of_another(impl, tmp_path, place):
    """Two greenlets start a server, which takes a while. The second one fails; the listener is
    that of the first one, which serves."""
    assert child(impl, tmp_path, '''
        class Server(StreamServer):
            def init_socket(self):
                gevent.sleep(0.001)  # as resolving a name does
                if not hasattr(self, 'socket'):
                    super().init_socket()
                elif sys.argv[1] == 'init_socket':
                    raise LookupError
                else:
                    self._stop_event = None

        def start():
            try:
                server.start()
                return 'started'
            except Exception as ex:
                return type(ex).__name__
        handled = []
        server = Server(LOOPBACK, lambda *args: handled.append(1))
        event = server._stop_event
        starts = [gevent.spawn(start), gevent.spawn(start)]
        print([greenlet.get() for greenlet in starts])
        server._stop_event = event
        print(server.started, server.closed)
        with connect(server):
            until(lambda: handled)
        print(handled)
        leave()
    ''', place) == ["['started', '%s']" % (
        'LookupError' if place == 'init_socket' else 'AttributeError'), 'True False', '[1]']


def test_failed_start_leaves_a_listener_that_was_given(impl):
    """By the caller before start(), or by somebody else meanwhile."""
    class Server(impl.BaseServer):
        def init_socket(self):
            if not hasattr(self, 'socket'):
                self.socket = given
            raise LookupError
    given = FakeListener()
    server = Server(given, print)
    with pytest.raises(LookupError):
        server.start()
    assert server.socket is given and not server.closed


def test_code_of_close_can_be_stored(impl):
    """It is CPython 3.11 where it is another one than gevent's. Coverage tools and debuggers may
    store it; a function made of what was stored closes a socket."""
    import marshal
    impl.StreamServer(LOOPBACK, print)
    close = socket.socket.close
    code = marshal.loads(marshal.dumps(close.__code__))
    assert (code.co_name, code.co_filename) == ('close', close.__code__.co_filename)
    assert code.co_argcount == close.__code__.co_argcount
    copy = types.FunctionType(
        code, close.__globals__, 'close', close.__defaults__, close.__closure__)
    for function in (copy, close):
        sock = socket.socket()
        fd = sock.fileno()
        assert is_open(fd) and not sock.closed
        assert function(sock) is None
        assert sock.closed and not is_open(fd)
        assert function(sock) is None  # again
