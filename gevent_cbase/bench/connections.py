"""Server CPU for one short connection: accept it, run a handler that does nothing, close it."""
import contextlib
import tempfile

from gevent_cbase.bench import children
from gevent_cbase.bench.report import Report

TRANSPORTS = ('tcp', 'unix')
SPAWNS = ('default', 'raw', 'pool', 'none')

#: those that have a ``spawn``
GEVENT = ('gevent', 'gevent_cbase', 'gevent_cbase without cache')
OTHERS = {
    'uvloop Protocol': {'server': 'asyncio', 'loop': 'uvloop', 'streams': False},
    'uvloop streams': {'server': 'asyncio', 'loop': 'uvloop', 'streams': True},
    'asyncio Protocol': {'server': 'asyncio', 'loop': 'asyncio', 'streams': False},
    'raw C': {'server': 'raw'},
}
IMPLEMENTATIONS = (*GEVENT, *OTHERS)

ROUNDS, COUNT = 7, 20000
QUICK_ROUNDS, QUICK_COUNT = 3, 8000

NOTE = 'what has no spawn is compared to gevent with spawn=%s'

#: connections that are there when the server is let go
BURST = 900

CLIENTS = ('close', 'wait')


def add_options(parser, choices):
    children.add_options(parser, choices)
    parser.add_argument('--transport', type=choices(TRANSPORTS), default=TRANSPORTS,
                        metavar='LIST', help='of tcp,unix (default: both)')
    parser.add_argument('--spawn', type=choices(SPAWNS), default=SPAWNS, metavar='LIST',
                        help='of default,raw,pool,none (default: all)')
    parser.add_argument('--only', type=choices(IMPLEMENTATIONS), default=IMPLEMENTATIONS,
                        metavar='LIST', help='of %s (default: all)' % ','.join(IMPLEMENTATIONS))
    parser.add_argument('--clients', choices=CLIENTS, default=CLIENTS[0], help=(
        'close at once, or wait for the server to do so, which costs it more (default: close)'))


def run(options, progress):
    load = children.load_module()
    cores = children.Cores()
    cores.pin_load()
    burst = min(BURST, longest_backlog())
    report = Report(
        'connections', 'CPU of the server per connection: medians of %d rounds of %d connections'
        % (options.rounds, options.count),
        {'rounds': options.rounds, 'connections': options.count, 'burst': burst,
         'clients': options.clients, 'transport': options.transport, 'spawn': options.spawn,
         'only': options.only}, cores)
    wait = options.clients == 'wait'
    for transport in options.transport:
        with contextlib.ExitStack() as stack:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix='bench-'))
            results, wanted = plan(report, transport, options)
            servers = children.start_servers(
                stack, [(settings, transport, folder, cores.server, options)
                        for settings in wanted], progress)
            measures = [(result, measure(load, server, options.count, burst, wait))
                        for result, server in zip(results, servers)]
            children.run_rounds(report, measures, servers, options, progress)
    return report


def plan(report, transport, options):
    """The results to come, and for each the settings of its server."""
    results, wanted = [], []

    def add(spawn, name, base, settings):
        results.append(report.add({'transport': transport, 'spawn': spawn}, name, base))
        wanted.append(dict(settings, name='%s, spawn=%s' % (name, spawn) if spawn else name))
        return results[-1]

    first = None  # those without a spawn are compared to this
    for spawn in options.spawn:
        base = None
        for name in GEVENT:
            if name in options.only:
                result = add(spawn, name, base, {
                    'server': 'gevent', 'implementation': name, 'spawn': spawn})
                if name == 'gevent':
                    base = result
                    first = first or result
    for name, settings in OTHERS.items():
        if name not in options.only:
            continue
        if first is not None and NOTE % first.case['spawn'] not in report.notes:
            report.notes.append(NOTE % first.case['spawn'])
        if settings.get('loop') == 'uvloop':
            try:
                children.available('uvloop')
            except children.Skip as ex:
                report.skip(name, str(ex))
                continue
        add(None, name, first, settings)
    return results, wanted


def measure(load, server, count, burst, wait):
    def one_round():
        return server.measure(
            lambda: load.connections(server.where, server.pid, count, burst, wait), count)
    return one_round


def longest_backlog():
    """What the system allows."""
    try:
        with open('/proc/sys/net/core/somaxconn') as file:
            return int(file.read())
    except OSError:
        return 128
