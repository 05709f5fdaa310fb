"""Child processes: started on their own core, asked, and killed in the end."""
import contextlib
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time

import gevent_cbase
from gevent_cbase.bench.report import interleave

#: the folder that gevent_cbase was imported from
FOLDER = os.path.dirname(os.path.dirname(os.path.abspath(gevent_cbase.__file__)))

#: seconds within which a child has to start, or to answer
PATIENCE = 120

#: connections that a listener holds until they are accepted
BACKLOG = 1024

#: at which a server tells its CPU time; nobody else uses it
CLOCK = getattr(signal, 'SIGRTMIN', None)

#: seconds after the last answer in which a server comes to rest
REST = 0.005

#: milliseconds of CPU in a round that are too few: to tell them takes a server some 0.1
SHORTEST = 20

TOO_SHORT = ('too short to measure: the server has used no more than %g ms of CPU in a round; '
             '--count makes it longer')

#: runs a module of this package; a Python of its own may have gevent_cbase, or take ours
BOOT = '''\
import importlib.util, runpy, sys
folder, module = sys.argv[1:3]
del sys.argv[1:3]
if importlib.util.find_spec('gevent_cbase') is None:
    sys.path.append(folder)
runpy.run_module(module, run_name='__main__', alter_sys=True)
'''


class BenchError(Exception):
    """Ends the benchmark; its text is all that the user is told."""


class Skip(Exception):
    """Something cannot be measured here; its text says why."""


def available(*modules):
    """Raise Skip unless all *modules* can be imported."""
    for name in modules:
        try:
            importlib.import_module(name)
        except ImportError:
            raise Skip('%s is not installed' % name) from None


def load_module():
    """gevent_cbase._load; raises BenchError."""
    try:
        return importlib.import_module('gevent_cbase._load')
    except ImportError as ex:
        raise BenchError('the load generator is not built, it needs Linux (%s)' % ex) from None


class Cores:
    """Which core the servers run on, and which one the load; None where there is no choice."""

    def __init__(self):
        cores = sorted(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else []
        self.server = cores[-1] if cores else None
        self.load = None
        for core in cores[:-1]:  # not two halves of one core, if that can be avoided
            if self.load is None or self._is_same(self.load, self.server):
                self.load = core

    @staticmethod
    def _is_same(one, other):
        try:
            with open('/sys/devices/system/cpu/cpu%d/topology/core_id' % one) as first, \
                    open('/sys/devices/system/cpu/cpu%d/topology/core_id' % other) as second:
                return first.read() == second.read()
        except OSError:
            return False

    def pin_load(self):
        if self.load is not None:
            os.sched_setaffinity(0, {self.load})

    def note(self):
        """What a reader of the figures has to know, or None."""
        if self.load is None:
            return 'one core only: the server and its load share it'
        return None


def is_readable(file):
    """Whether *file* can be read within PATIENCE."""
    waiting = select.poll()  # select() takes no large descriptors
    waiting.register(file, select.POLLIN)
    return bool(waiting.poll(PATIENCE * 1000))


class Child:
    """A process that runs a module of this package and answers with lines of JSON.

    *settings* go to its main(), *core* is where it runs, *fds* are descriptors that it inherits.
    Raises BenchError if it does not start. close() kills it with all that it has started.
    """

    def __init__(self, module, settings, *, core=None, fds=(), python=None):
        self.name = os.path.basename(python or '') or settings.get('name') or module
        env = {name: value for name, value in os.environ.items()
               if name not in ('GEVENT_CBASE', 'GEVENT_CBASE_DATASTACK')}
        if python is None:
            python = sys.executable
            env['PYTHONPATH'] = os.pathsep.join(
                filter(None, [FOLDER, env.get('PYTHONPATH')]))
        settings = dict(settings, core=core, parent=os.getpid())
        self.errors = tempfile.TemporaryFile()
        try:
            self.process = subprocess.Popen(
                [python, '-c', BOOT, FOLDER, 'gevent_cbase.bench.' + module,
                 json.dumps(settings)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors, env=env,
                pass_fds=fds, start_new_session=True)
        except OSError as ex:
            self.errors.close()
            raise BenchError('%s does not start: %s' % (python, ex)) from None
        try:
            self.hello = self.answer()
        except BaseException:
            self.close()
            raise

    def answer(self):
        """The next line of the child; raises BenchError if there is none."""
        if not is_readable(self.process.stdout):
            raise BenchError('%s does not answer' % self.name)
        line = self.process.stdout.readline()
        if not line:
            raise BenchError('%s has ended: %s' % (self.name, self.last_words()))
        return json.loads(line)

    def ask(self, **question):
        """Send a question, return the answer."""
        try:
            self.process.stdin.write(json.dumps(question).encode() + b'\n')
            self.process.stdin.flush()
        except OSError:
            pass  # answer() knows more
        return self.answer()

    def complaints(self):
        """How much the child has written to its standard error."""
        return os.fstat(self.errors.fileno()).st_size

    def last_words(self):
        """The last line that the child has written to its standard error."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(1)
        self.errors.seek(0)
        lines = self.errors.read().decode(errors='replace').split('\n')
        return ([line.strip() for line in lines if line.strip()] or ['no message'])[-1]

    def close(self):
        with contextlib.suppress(OSError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        for file in (self.process.stdin, self.process.stdout, self.errors):
            with contextlib.suppress(OSError):
                file.close()


class Server(Child):
    """A child that serves on a fresh listener.

    *transport*: ``tcp``, ``unix`` or ``udp``, *folder*: where the socket goes. *options*:
    ``shortest``, the milliseconds of CPU that are too short to measure; with ``check`` the handler
    tells of each connection or request, and served() returns what it has told: a letter for each,
    the first of the setting ``spawn`` if there is one. With the setting ``nodelay`` connections
    have TCP_NODELAY.
    """

    def __init__(self, settings, transport, folder, core, options):
        check = options.check
        self.where = None
        self.report = None
        self.shortest = options.shortest
        with contextlib.ExitStack() as ours:
            listener = ours.enter_context(
                self.listen(transport, folder, settings.get('nodelay', False)))
            fds = [listener.fileno()]
            if check:
                self.report, write = os.pipe()
                ours.callback(os.close, write)
                os.set_blocking(self.report, False)
                fds.append(write)
            settings = dict(settings, listener=fds[0], report=fds[1] if check else -1)
            try:
                super().__init__('servers', settings, core=core, fds=fds)
            except BaseException:
                self.close_report()
                raise
        #: whose CPU time counts; it answers CLOCK
        self.pid = self.hello['pid']
        self.said = self.complaints()
        #: what the handler has to tell
        self.letter = (settings.get('spawn') or '.')[0].encode()

    def listen(self, transport, folder, nodelay):
        if transport == 'unix':
            listener = socket.socket(socket.AF_UNIX)
            self.where = tempfile.mktemp(dir=folder)  # the folder is ours alone
            listener.bind(self.where)
        else:
            udp = transport == 'udp'
            listener = socket.socket(
                socket.AF_INET, socket.SOCK_DGRAM if udp else socket.SOCK_STREAM)
            listener.bind(('127.0.0.1', 0))
            self.where = listener.getsockname()[1]
            if udp:  # one datagram of each client has to find room
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
            elif nodelay:  # connections inherit it
                listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if transport != 'udp':
            listener.listen(BACKLOG)
        listener.setblocking(False)
        return listener

    def cpu_seconds(self):
        """User and system time that the server has used, as it says itself: see _load."""
        os.kill(self.pid, CLOCK)
        return self.answer() / 1e9

    def served(self):
        """What the handler has told since the last call."""
        told = b''
        with contextlib.suppress(BlockingIOError):
            while True:
                part = os.read(self.report, 65536)
                if not part:
                    break
                told += part
        return told

    def measure(self, load, count):
        """Run *load*, which makes *count* calls of the handler; µs of CPU each took, or None if
        that was too short, and what *load* returned. Raises as run()."""
        used = 0

        def timed():
            nonlocal used
            before = self.cpu_seconds()
            result = load()
            time.sleep(REST)
            used = self.cpu_seconds() - before
            return result

        result = self.run(timed, count)
        return None if used <= self.shortest / 1e3 else used / count * 1e6, result

    def run(self, load, count):
        """Run *load*, which makes *count* calls of the handler; what it returned. Raises
        BenchError if the handler has run more or less often."""
        try:
            result = load()
        except OSError as ex:
            reason = ex.strerror
            if self.process.poll() is not None:
                reason = 'it has ended: ' + self.last_words()
            raise BenchError('%s: %s' % (self.name, reason)) from None
        if self.complaints() != self.said:
            raise BenchError('%s has reported an error: %s' % (self.name, self.last_words()))
        if self.report is not None:
            told = self.served()
            if len(told) != count:
                raise BenchError('%s: %d made, but %d served' % (self.name, count, len(told)))
            if told != self.letter * count:
                raise BenchError('%s: served by spawn=%s..., not what was asked for' % (
                    self.name, told.replace(self.letter, b'')[:1].decode()))
        return result

    def close_report(self):
        if self.report is not None:
            os.close(self.report)
            self.report = None

    def close(self):
        super().close()
        self.close_report()


def add_options(parser, choices):
    """The options of all benchmarks that have servers."""
    parser.add_argument('--check', action='store_true', help=(
        'let the servers tell of each call of their handler, and fail if it is another number '
        'than was made or was spawned otherwise; this costs them time'))
    parser.add_argument(
        '--shortest', type=choices.number_or_zero, default=SHORTEST, metavar='MS', help=(
            'a round in which the server uses no more CPU time is called too short to measure '
            '(default: %d)' % SHORTEST))


def start_servers(stack, wanted, progress):
    """Start one server for each item of *wanted*, arguments of Server, until *stack* ends."""
    servers = []
    for number, args in enumerate(wanted, 1):
        progress('starting server %d of %d' % (number, len(wanted)))
        server = Server(*args)
        stack.callback(server.close)
        servers.append(server)
    return servers


def notes(children):
    """What is off in the children that run on gevent_cbase, one text for each."""
    return sorted({'gevent_cbase: %s is off: %s' % tuple(off)
                   for child in children for off in child.hello.get('off', ())})


def run_rounds(report, measures, servers, options, progress):
    """Interleave *measures*, one round after the other, which *servers* serve; *report* gets what
    was served, if that was checked, and what is off in the servers.
    """
    interleave(measures, options.rounds, progress)
    if options.check:
        report.served = (report.served or 0) + (
            len(measures) * options.count * (options.rounds + 1))
    found = notes(servers)
    if any(result.median is None for result, _ in measures):
        found.append(TOO_SHORT % options.shortest)
    report.notes += [note for note in found if note not in report.notes]


# In the child

def settle(settings):
    """Go to the child's core; see to it that the child ends with its parent."""
    if settings['core'] is not None:
        os.sched_setaffinity(0, {settings['core']})
    with contextlib.suppress(ImportError):
        from gevent_cbase import _load
        _load.die_with_parent(settings['parent'])


def say(**answer):
    """Answer the parent, in one write."""
    os.write(1, json.dumps(answer).encode() + b'\n')


def ready(**answer):
    """Tell the parent that the server in this process is there, and its CPU time from now on."""
    from gevent_cbase import _load
    _load.tell_cpu_time(CLOCK, 1)
    say(pid=os.getpid(), **answer)


def serve_questions(answer):
    """Reply to each question with what *answer* returns, until the parent has gone."""
    for line in sys.stdin:
        say(**answer(**json.loads(line)))
