"""python -m gevent_cbase.bench: measure gevent_cbase against gevent and others."""
import argparse
import os
import signal
import sys

from gevent_cbase.bench import connections, io, loop, plot, spawn, summary, wsgi
from gevent_cbase.bench.children import BenchError
from gevent_cbase.bench.report import Progress

BENCHMARKS = {'connections': connections, 'wsgi': wsgi, 'io': io, 'spawn': spawn, 'loop': loop}


class Parser(argparse.ArgumentParser):
    """Errors take one line."""

    def error(self, message):
        self.exit(2, 'gevent_cbase.bench: %s (see --help)\n' % message)


def choices(allowed):
    """A type for argparse: some of *allowed*, separated by commas."""
    def parse(text):
        names = tuple(name.strip() for name in text.split(','))
        for name in names:
            if name not in allowed:
                raise argparse.ArgumentTypeError(
                    'unknown %r, choose from %s' % (name, ', '.join(allowed)))
        return tuple(name for name in allowed if name in names)
    return parse


def number(text):
    """A type for argparse: a whole number above 0."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError('not a number above 0: %r' % text)
    return int(text)


def number_or_zero(text):
    """A type for argparse: a whole number."""
    return 0 if text == '0' else number(text)


def numbers(text):
    """A type for argparse: whole numbers above 0, separated by commas."""
    return tuple(dict.fromkeys(number(part.strip()) for part in text.split(',')))


choices.number = number
choices.number_or_zero = number_or_zero
choices.numbers = numbers


def parse(args):
    parser = Parser(prog='python -m gevent_cbase.bench', description=__doc__.partition(': ')[2],
                    allow_abbrev=False, epilog=(
                        'python -m gevent_cbase.bench BENCHMARK --help shows its options'))
    commands = parser.add_subparsers(dest='benchmark', metavar='BENCHMARK', parser_class=Parser)
    for name, module in BENCHMARKS.items():
        command = commands.add_parser(name, help=module.__doc__, description=module.__doc__,
                                      allow_abbrev=False)
        module.add_options(command, choices)
        command.add_argument('--quick', action='store_true',
                             help='fewer and shorter rounds: a first impression')
        command.add_argument('--json', metavar='FILE', help='write all figures to FILE')
        command.add_argument('--plot', metavar='FILE', help='draw a chart: FILE.svg or FILE.png')
        command.add_argument('--rounds', type=number, metavar='N', help=(
            'rounds, without the warm-up (default: %d; quick: %d)' % (
                module.ROUNDS, module.QUICK_ROUNDS)))
        command.add_argument(
            '--count', '--connections', '--requests', type=number, metavar='N', help=(
                'what is measured in a round, so many times (default: %d; quick: %d)' % (
                    module.COUNT, module.QUICK_COUNT)))
    command = commands.add_parser('summary', help=summary.__doc__, description=summary.__doc__,
                                  allow_abbrev=False)
    summary.add_options(command)
    options = parser.parse_args(args)
    if options.benchmark is None:
        parser.error('no benchmark given: %s' % ', '.join(BENCHMARKS))
    if options.benchmark == 'summary':
        return options
    module = BENCHMARKS[options.benchmark]
    options.rounds = options.rounds or (module.QUICK_ROUNDS if options.quick else module.ROUNDS)
    options.count = options.count or (module.QUICK_COUNT if options.quick else module.COUNT)
    if getattr(options, 'check', False) and options.count > 60000:
        parser.error('--check: what a pipe holds is 60000 at most')
    return options


def check_files(options):
    """Raise BenchError for a file that could not be written in the end."""
    if options.plot is not None:
        plot.check(options.plot)
    for name in ('json', 'plot'):
        path = getattr(options, name, None)
        if path is not None:
            folder = os.path.dirname(path) or '.'
            if os.path.isdir(path) or not os.access(folder, os.W_OK):
                raise BenchError('--%s: cannot write %s' % (name, path))


def main(args=None):
    """Run the benchmark that *args* ask for; the exit status."""
    options = parse(args)
    progress = Progress()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, frame: sys.exit(128 + number))
    try:
        check_files(options)
        if options.benchmark == 'summary':
            summary.run(options)
            return 0
        report = BENCHMARKS[options.benchmark].run(options, progress)
        progress.clear()
        print('\n'.join(report.table()))
        if options.json is not None:
            report.write_json(options.json)
        if options.plot is not None:
            plot.write(report, options.plot)
    except KeyboardInterrupt:
        progress.clear()
        return 130
    except (BenchError, OSError) as ex:
        progress.clear()
        sys.stderr.write('gevent_cbase.bench: %s\n' % ex)
        return 1
    return 0


if __name__ == '__main__':
    sys.exit(main())
