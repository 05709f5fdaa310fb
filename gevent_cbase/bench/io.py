"""Server CPU to receive a message and send it back, and how long the client waits for it."""
import contextlib
import os
import socket
import tempfile

from gevent_cbase.bench import children, connections, strace
from gevent_cbase.bench.report import Report, percentiles

#: name -> what the clients do
MODES = {
    'ready': 'keep their connections with two messages under way, so the next one is there when '
             'the server has answered',
    'paced': 'keep their connections and pause after each answer, so the server waits for each '
             'message',
    'once': 'send one message a connection and wait for the server to close it',
    'udp': 'send a datagram and wait for the answer',
}

SIZES = (100, 1024, 65536)
CLIENTS = (1, 16, 100)

IMPLEMENTATIONS = {
    'gevent': {'server': 'gevent echo', 'implementation': 'gevent'},
    'gevent_cbase': {'server': 'gevent echo', 'implementation': 'gevent_cbase'},
    **{name: dict(connections.OTHERS[name], server='asyncio echo')
       for name in ('uvloop Protocol', 'uvloop streams', 'asyncio Protocol')},
    'raw C': {'server': 'raw echo'},
}

ROUNDS, COUNT = 5, 8000
QUICK_ROUNDS, QUICK_COUNT = 2, 6000

#: messages under way on a connection, if the next one shall be there
DEPTH = 2

#: seconds between two messages of all paced clients together, if the server is fast enough
PACE = 1e-4

#: bytes that a DatagramServer of gevent receives at most
LARGEST_DATAGRAM = 8192

#: messages while system calls are counted: that makes the server slow
TRACED = 500


def add_options(parser, choices):
    children.add_options(parser, choices)
    parser.add_argument('--mode', type=choices(tuple(MODES)), default=tuple(MODES), metavar='LIST',
                        help='what the clients do (default: all): %s' % '; '.join(
                            '%s: they %s' % item for item in MODES.items()))
    parser.add_argument('--size', type=choices.numbers, default=SIZES, metavar='LIST',
                        help='bytes of a message (default: %s)' % ','.join(map(str, SIZES)))
    parser.add_argument('--clients', type=choices.numbers, default=CLIENTS, metavar='LIST',
                        help='how many at once (default: %s)' % ','.join(map(str, CLIENTS)))
    parser.add_argument('--only', type=choices(tuple(IMPLEMENTATIONS)),
                        default=tuple(IMPLEMENTATIONS), metavar='LIST',
                        help='of %s (default: all)' % ','.join(IMPLEMENTATIONS))
    parser.add_argument('--system-calls', action='store_true', help=(
        'count the system calls of the server per message, by strace, in rounds of their own'))


def run(options, progress):
    load = children.load_module()
    cores = children.Cores()
    cores.pin_load()
    report = Report(
        'io', 'CPU of the server per echo, and latency: medians of %d rounds of %d messages'
        % (options.rounds, options.count),
        {'rounds': options.rounds, 'messages': options.count, 'mode': options.mode,
         'size': options.size, 'clients': options.clients, 'only': options.only}, cores)
    count_calls = options.system_calls
    if count_calls and not strace.is_there():
        report.skip('system calls', 'strace is not installed')
        count_calls = False
    for mode in options.mode:
        for size in options.size:
            if mode == 'udp' and size > LARGEST_DATAGRAM:
                report.skip('udp, %d B' % size,
                            'gevent receives %d bytes of a datagram' % LARGEST_DATAGRAM)
                continue
            with contextlib.ExitStack() as stack:
                folder = stack.enter_context(tempfile.TemporaryDirectory(prefix='bench-'))
                names, servers = start(report, stack, mode, size, folder, cores, options, progress)
                for clients in options.clients:
                    measure_case(load, report, {'mode': mode, 'size': size, 'clients': clients},
                                 names, servers, count_calls and folder, options, progress)
    return report


def start(report, stack, mode, size, folder, cores, options, progress):
    """The names of the implementations that can be measured, and their servers."""
    names = []
    for name in options.only:
        settings = IMPLEMENTATIONS[name]
        try:
            if settings.get('loop') == 'uvloop':
                children.available('uvloop')
        except children.Skip as ex:
            report.skip(name, str(ex))
            continue
        if mode == 'udp' and settings.get('streams'):
            report.skip('udp, ' + name, 'there are no streams of datagrams')
            continue
        names.append(name)
    return names, children.start_servers(
        stack, [(dict(IMPLEMENTATIONS[name], name=name, mode=mode, size=size, nodelay=True),
                 'udp' if mode == 'udp' else 'tcp', folder, cores.server, options)
                for name in names], progress)


def measure_case(load, report, case, names, servers, folder, options, progress):
    """Measure all *servers* in one case; in *folder* strace may write, if calls are counted."""
    with contextlib.ExitStack() as stack:
        base, measures, sendings = None, [], []
        for name, server in zip(names, servers):
            result = report.add(case, name, base)
            if name == 'gevent':
                base = result
            sendings.append(prepare(stack, load, server, **case))
            measures.append((result, measure(server, sendings[-1], options.count)))
        children.run_rounds(report, measures, servers, options, progress)
        if not folder:
            return
        count = min(TRACED, options.count)
        for (result, _), server, send in zip(measures, servers, sendings):
            progress('system calls: %s' % result.name)
            try:
                with strace.counting(server.pid, folder) as calls:
                    server.run(lambda: send(count), count)
            except children.Skip as ex:
                report.skip('system calls', str(ex))
                continue
            if options.check:
                report.served += count
            result.calls = {name: number / count for name, number in calls.items()}


def measure(server, send, count):
    def one_round():
        cpu, seconds = server.measure(lambda: send(count), count)
        return cpu, percentiles(seconds)
    return one_round


def prepare(stack, load, server, mode, size, clients):
    """A function that sends so many messages as it is told, and returns the seconds of each."""
    message = os.urandom(size)
    if mode == 'once':
        return lambda count: load.echo_once(server.where, message, count, min(clients, count))
    sockets = tuple(stack.enter_context(connect(mode, server.where)) for _ in range(clients))
    depth = DEPTH if mode == 'ready' else 1
    pause = PACE * clients if mode == 'paced' else 0
    return lambda count: load.echo(sockets[:count], message, count, depth, pause)


def connect(mode, port):
    """A connected socket."""
    kind = socket.SOCK_DGRAM if mode == 'udp' else socket.SOCK_STREAM
    sock = socket.socket(socket.AF_INET, kind)
    try:
        if mode != 'udp':
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.connect(('127.0.0.1', port))
    except BaseException:
        sock.close()
        raise
    return sock
