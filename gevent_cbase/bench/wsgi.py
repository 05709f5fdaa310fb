"""Server CPU for one HTTP request, and how long the client waits for the answer."""
import contextlib
import tempfile

from gevent_cbase.bench import children
from gevent_cbase.bench.report import Report, percentiles

SERVERS = {'pywsgi': (), 'gunicorn': ('gunicorn', 'flask')}
IMPLEMENTATIONS = ('gevent', 'gevent_cbase', 'gevent_cbase without cache')
REQUEST = 'GET / HTTP/1.1\r\nHost: localhost\r\n%s\r\n'

#: (what it is called, whether connections are kept)
MODES = (('one request a connection', False), ('keep-alive', True))

ROUNDS, COUNT = 7, 4000
QUICK_ROUNDS, QUICK_COUNT = 3, 800


def add_options(parser, choices):
    children.add_options(parser, choices)
    parser.add_argument('--server', type=choices(tuple(SERVERS)), default=tuple(SERVERS),
                        metavar='LIST', help='of pywsgi,gunicorn (default: both)')
    parser.add_argument('--only', type=choices(IMPLEMENTATIONS), default=IMPLEMENTATIONS,
                        metavar='LIST', help='of %s (default: all)' % ','.join(IMPLEMENTATIONS))
    parser.add_argument('--clients', type=choices.number, default=16, metavar='N',
                        help='requests at once (default: 16)')


def run(options, progress):
    load = children.load_module()
    cores = children.Cores()
    cores.pin_load()
    report = Report(
        'wsgi', 'CPU of the server per request, and latency with %d requests at once: '
        'medians of %d rounds of %d requests' % (options.clients, options.rounds, options.count),
        {'rounds': options.rounds, 'requests': options.count, 'clients': options.clients,
         'server': options.server, 'only': options.only}, cores)
    for kind in options.server:
        try:
            children.available(*SERVERS[kind])
        except children.Skip as ex:
            report.skip(kind, str(ex))
            continue
        with contextlib.ExitStack() as stack:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix='bench-'))
            servers = children.start_servers(
                stack, [({'server': kind, 'implementation': name,
                          'name': '%s on %s' % (kind, name)}, 'tcp', folder, cores.server,
                         options) for name in options.only], progress)
            measures = []
            for mode, keep_alive in MODES:
                base = None
                for server, name in zip(servers, options.only):
                    result = report.add({'server': title(kind), 'mode': mode}, name, base)
                    if name == 'gevent':
                        base = result
                    measures.append((result, measure(load, server, options, keep_alive)))
            children.run_rounds(report, measures, servers, options, progress)
    return report


def title(kind):
    return {'pywsgi': 'pywsgi', 'gunicorn': 'gunicorn with Flask'}[kind]


def measure(load, server, options, keep_alive):
    request = (REQUEST % ('' if keep_alive else 'Connection: close\r\n')).encode()

    def one_round():
        cpu, seconds = server.measure(
            lambda: load.requests(server.where, request, options.count,
                                  min(options.clients, options.count), keep_alive),
            options.count)
        return cpu, percentiles(seconds)
    return one_round
