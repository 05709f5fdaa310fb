"""README's tables, and its chart, from files that other benchmarks have written with --json."""
import json

from gevent_cbase.bench.children import BenchError

#: how a ratio is called, in the tables and beside a bar
RATIO = '%.2f'

#: the cases: name -> (benchmark, settings that the run must have, what its result must be)
CASES = {
    'empty connection': (
        'connections', {'clients': 'wait'}, {'transport': 'tcp', 'spawn': 'default'}),
    'request, reply, close': ('io', {}, {'mode': 'once'}),
    'echo, connection kept': ('io', {}, {'mode': 'paced'}),
    'UDP echo': ('io', {}, {'mode': 'udp'}),
    'pywsgi': ('wsgi', {}, {'server': 'pywsgi', 'mode': 'one request a connection'}),
    'pywsgi, keep-alive': ('wsgi', {}, {'server': 'pywsgi', 'mode': 'keep-alive'}),
    'gunicorn': (
        'wsgi', {}, {'server': 'gunicorn with Flask', 'mode': 'one request a connection'}),
    'gunicorn, keep-alive': ('wsgi', {}, {'server': 'gunicorn with Flask', 'mode': 'keep-alive'}),
    **{'spawn=%s' % shown: (
        'connections', {'clients': 'close'}, {'transport': 'tcp', 'spawn': spawn})
       for spawn, shown in (('default', "'default'"), ('pool', 'Pool(1000)'), ('none', 'None'))},
    'echo, next is there': ('io', {}, {'mode': 'ready'}),
}

#: the tables: their cases
TABLES = [list(CASES)[:4], list(CASES)[4:8], list(CASES)[8:]]

#: the chart: its columns, and what is drawn of each case
CHART = [list(CASES)[:3], list(CASES)[4:8]]
DRAWN = ('gevent', 'gevent_cbase', 'uvloop Protocol')

#: what those that have no spawn say
WITHOUT = {'spawn': None}


def add_options(parser):
    parser.add_argument('files', nargs='+', metavar='FILE', help=(
        'written by connections, io or wsgi with --json, on any number of Pythons; a later file '
        'counts where two have the same'))
    parser.add_argument('--plot', metavar='FILE', help=(
        'draw a chart: FILE.svg or FILE.png; it has the figures of one Python'))
    parser.add_argument('--python', metavar='VERSION', help=(
        'of which Python the chart is, such as 3.13 (default: that of the first file)'))


def run(options):
    """Print the tables, and draw the chart if that is wanted."""
    found = Summary(options.files)
    print('\n'.join(found.tables()))
    if options.plot is not None:
        write(found, options.plot, options.python or python(found.runs[0]))


class Summary:
    """What the *files* hold: ``pythons``, in order, and the figures of each."""

    def __init__(self, files):
        self.runs = [read(path) for path in files]
        self.pythons = sorted({python(run) for run in self.runs}, key=order)

    def find(self, version, case, name):
        """(the run, the result) of the implementation *name* in a case; None if there is none."""
        benchmark, settings, wanted = CASES[case]
        if name not in ('gevent', 'gevent_cbase') and 'spawn' in wanted:
            wanted = {**wanted, **WITHOUT}
        for run in reversed(self.runs):
            if (run['benchmark'], python(run)) == (benchmark, version) and \
                    settings.items() <= run['settings'].items():
                for result in run['results']:
                    if result['implementation'] == name and wanted.items() <= result.items() \
                            and result['median'] is not None:
                        return run, result
        return None

    def tables(self):
        """Yield the lines of the tables, in reStructuredText."""
        for number, cases in enumerate(TABLES):
            if number:
                yield ''
            yield from table(['CPython', *cases], [
                [version, *(self.cell(version, case) for case in cases)]
                for version in self.pythons])

    def cell(self, version, case):
        """The ratio and its spread: ``0.45 (0.41–0.48)``."""
        found = self.find(version, case, 'gevent_cbase')
        if found is None or found[1]['ratio'] is None:
            return '–'
        ratio = found[1]['ratio']
        return '%s (%s–%s)' % tuple(RATIO % ratio[name] for name in ('median', 'min', 'max'))


def read(path):
    """What a benchmark has written to *path*. Raises BenchError."""
    try:
        with open(path, encoding='utf-8') as file:
            run = json.load(file)
        python(run), run['benchmark'], run['settings'], run['results']
    except OSError as ex:
        raise BenchError('%s: %s' % (path, ex.strerror)) from None
    except (ValueError, TypeError, KeyError):
        raise BenchError('%s is not what a benchmark has written' % path) from None
    return run


def python(run):
    """``3.13``"""
    return '.'.join(run['versions']['python'].split('.')[:2])


def order(version):
    return [int(part) for part in version.split('.')]


def table(head, rows):
    """Yield the lines of a simple table."""
    widths = [max(map(len, column)) for column in zip(head, *rows)]
    line = '  '.join('=' * width for width in widths)

    def text(row):
        return '  '.join('%-*s' % pair for pair in zip(widths, row)).rstrip()
    yield from [line, text(head), line, *map(text, rows), line]


# The chart


def bars(summary, version, case):
    """(name, µs, (median, least, greatest) ratio to gevent) of each bar."""
    found = []
    for name in DRAWN:
        one = summary.find(version, case, name)
        if one is not None:
            ratio = one[1]['ratio'] or {'median': 1, 'min': 1, 'max': 1}
            found.append((name, one[1]['median'],
                          tuple(ratio[key] for key in ('median', 'min', 'max'))))
    return found


def legend(summary, version):
    """What a reader of the chart has to know."""
    used = [one[0] for column in CHART for case in column for name in DRAWN
            if (one := summary.find(version, case, name))]
    rounds = sorted({run['settings']['rounds'] for run in used})
    names = {name: run['versions'][name] for run in used
             for name in ('gevent', 'greenlet', 'uvloop', 'gunicorn', 'flask')
             if name in run['versions']}
    run = used[-1]
    return (
        '× is the ratio to gevent in the same round: the median of %s rounds. The thin line spans '
        'the smallest and the largest.\n'
        'CPython %s, %s.\n%s, %s, %d cores: one for the server, one for its clients.' % (
            ' or '.join(map(str, rounds)), run['versions']['python'],
            ', '.join('%s %s' % item for item in names.items()),
            run['machine']['system'], run['machine']['cpu'], run['machine']['cores']))


def write(summary, path, version):
    """Draw the figures of a Python to *path*. Raises BenchError if there are none."""
    columns = [[(case, found) for case in column if (found := bars(summary, version, case))]
               for column in CHART]
    columns = [column for column in columns if column]
    if not columns:
        raise BenchError('--plot: the files have nothing of CPython %s to draw' % version)
    from gevent_cbase.bench import plot
    figure = plot.figure(3.9 * len(columns), 3.9)
    longest = max(ratio[2] for column in columns for _, found in column for *_, ratio in found)
    for place, column in zip(figure.subplots(1, len(columns), squeeze=False)[0], columns):
        draw(place, column, longest)
    figure.suptitle('CPU time of the server, gevent = 1: less is better', x=0.01, ha='left',
                    fontweight='bold')
    figure.supxlabel(legend(summary, version), fontsize=7, color='#666666', x=0.01, ha='left')
    plot.save(figure, path)


def draw(place, column, longest):
    """One column of the chart: groups of bars, one below the other."""
    from gevent_cbase.bench.plot import COLOURS
    row, ticks = 0, []
    for case, found in column:
        place.text(0, row, case, va='center', fontweight='bold')
        row += 1
        for name, median, (ratio, least, greatest) in found:
            place.barh(row, ratio, height=0.76, color=COLOURS[name])
            text = '%.*f µs' % (1 if median < 100 else 0, median)
            if name != 'gevent':
                place.plot([least, greatest], [row, row], color='#202020', linewidth=0.9)
                text = '×%s   %s' % (RATIO % ratio, text)
            place.text(max(ratio, greatest) + longest * 0.015, row, text, va='center')
            ticks.append((row, name))
            row += 1
        row += 0.3
    place.set_yticks(*zip(*ticks))
    place.invert_yaxis()
    place.set_xlim(0, longest * 1.28)
    place.set_xticks([0, 0.5, 1])
    place.spines[['top', 'right', 'left']].set_visible(False)
    place.tick_params(axis='y', length=0)
