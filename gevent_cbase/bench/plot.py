"""The chart: bars of µs, one panel a case, with the ratio written at each bar."""
import importlib.util
import os
import statistics

from gevent_cbase.bench.children import BenchError

COLOURS = {
    'gevent': '#9aa0a6', 'without cache': '#9aa0a6',
    'gevent_cbase': '#0b7a4b', 'with cache': '#0b7a4b',
    'gevent_cbase without cache': '#7cc4a1',
    'uvloop Protocol': '#d9822b', 'uvloop streams': '#efb878',
    'asyncio Protocol': '#4c78a8', 'gevent compiled with Cython': '#b58900',
    'raw C': '#3c3c3c',
}


def check(path):
    """Raise BenchError if no chart can be written to *path*."""
    if os.path.splitext(path)[1] not in ('.svg', '.png'):
        raise BenchError('--plot: the name must end in .svg or .png: %s' % path)
    if importlib.util.find_spec('matplotlib') is None:
        raise BenchError("--plot: matplotlib is not installed; it comes with "
                         "pip install 'gevent_cbase[bench]'")


def figure(width, height):
    """An empty one, in inches."""
    import matplotlib
    matplotlib.use('Agg')
    from matplotlib.figure import Figure
    matplotlib.rcParams.update({'svg.hashsalt': 'gevent_cbase', 'font.size': 9,
                                'svg.fonttype': 'none'})
    return Figure(figsize=(width, height), layout='constrained')


def save(drawing, path):
    """Write it; the same figures give the same file."""
    drawing.savefig(path, dpi=150, metadata={'Date': None} if path.endswith('.svg') else None)


def write(report, path):
    """Draw *report* to *path*."""
    groups = list(report.groups())
    columns = 2 if len(groups) > 5 else 1
    rows = -(-len(groups) // columns)
    sizes = [max(len(results) for _, results in groups[row::rows]) for row in range(rows)]
    drawing = figure(1 + 6.5 * columns, 1.4 + 0.62 * rows + 0.27 * sum(sizes))
    panels = drawing.subplots(rows, columns, squeeze=False, sharex=True,
                             gridspec_kw={'height_ratios': [size + 0.6 for size in sizes]})
    longest = max(result.median or 0 for result in report.results) or 1
    for panel in panels.flat:
        panel.set_visible(False)
    for (case, results), panel in zip(groups, panels.T.flat):  # column by column
        panel.set_visible(True)
        draw(panel, case, results, longest)
    for panel in panels[-1]:
        panel.set_xlabel('µs')
    drawing.suptitle(report.title.partition(':')[0], x=0.01, ha='left', fontweight='bold')
    drawing.supxlabel('\n'.join(list(report.footer())[:2]), fontsize=7, color='#666666',
                      x=0.01, ha='left')
    save(drawing, path)


def draw(panel, case, results, longest):
    medians = [result.median or 0 for result in results]
    panel.barh(range(len(results)), medians, height=0.72,
               color=[COLOURS.get(result.name, '#999999') for result in results])
    panel.set_yticks(range(len(results)), [result.name for result in results])
    panel.invert_yaxis()
    panel.set_xlim(0, longest * 1.22)
    panel.set_title(case, loc='left', fontsize=9, fontweight='bold')
    panel.spines[['top', 'right', 'left']].set_visible(False)
    panel.tick_params(axis='y', length=0)
    for row, result in enumerate(results):
        text = '%.*f' % (2 if longest < 10 else 1, medians[row])
        if result.ratios:
            text += '   ×%.2f' % statistics.median(result.ratios)
        if result.median is None:
            text = 'too short to measure'
        panel.text(medians[row] + longest * 0.012, row, text, va='center')
