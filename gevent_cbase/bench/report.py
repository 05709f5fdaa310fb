"""Results: medians and ratios, as a table and as JSON."""
import contextlib
import datetime
import importlib.metadata
import json
import os
import platform
import statistics
import sys

#: what each benchmark may run on
PACKAGES = {'connections': ('gevent', 'greenlet', 'uvloop'),
            'wsgi': ('gevent', 'greenlet', 'flask', 'gunicorn'),
            'io': ('gevent', 'greenlet', 'uvloop'),
            'spawn': ('gevent', 'greenlet'), 'loop': ('gevent', 'cython')}


#: how a value in the case of a Result is shown, if not by itself
LABELS = {'spawn': 'spawn=%s', 'size': '%d B', 'clients': '%d at once'}


class Result:
    """One row: *name* measured in the case *case*, a dict of what sets it apart.

    The rounds of *base*, another Result, are what its own are divided by, one by one. A round
    that was too short to measure is None, and then there is no median and no ratio.
    """

    def __init__(self, case, name, base=None):
        self.case = case
        self.name = name
        self.base = base
        self.rounds = []
        #: name of a percentile -> one value for each round
        self.latency = {}
        #: name of a system call -> how many a request takes; empty if they were not counted
        self.calls = {}

    @property
    def median(self):
        return None if None in self.rounds else statistics.median(self.rounds)

    @property
    def ratios(self):
        """For each round how many times that of *base*; empty without one."""
        if self.base is None or self.median is None or self.base.median is None:
            return []
        return [mine / theirs for mine, theirs in zip(self.rounds, self.base.rounds)]

    def as_json(self):
        ratios = self.ratios
        return {
            **self.case, 'implementation': self.name, 'rounds': self.rounds,
            'median': self.median,
            'ratio': ratios and {'to': self.base.name, 'median': statistics.median(ratios),
                                 'min': min(ratios), 'max': max(ratios), 'rounds': ratios} or None,
            **({'latency': {name: {'rounds': rounds, 'median': statistics.median(rounds)}
                            for name, rounds in self.latency.items()}} if self.latency else {}),
            **({'calls': self.calls} if self.calls else {}),
        }


class Report:
    """All results of a run. *title* says what is measured, in µs; *settings* go to JSON."""

    def __init__(self, benchmark, title, settings, cores=None):
        self.benchmark = benchmark
        self.title = title
        self.settings = settings
        self.cores = cores
        self.results = []
        #: what a reader has to know; what was not measured, and why
        self.notes = [cores.note()] if cores and cores.note() else []
        self.skipped = []
        #: what was served, if it was counted
        self.served = None
        self.date = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec='seconds')

    def add(self, case, name, base=None):
        result = Result(case, name, base)
        self.results.append(result)
        return result

    def skip(self, name, reason):
        if (name, reason) not in self.skipped:
            self.skipped.append((name, reason))

    def as_json(self):
        return {
            'benchmark': self.benchmark, 'title': self.title, 'unit': 'us', 'date': self.date,
            'settings': self.settings, 'versions': versions(), 'machine': machine(),
            'cores': {'server': self.cores and self.cores.server,
                      'load': self.cores and self.cores.load},
            'notes': self.notes, 'skipped': [list(pair) for pair in self.skipped],
            'served': self.served, 'results': [result.as_json() for result in self.results],
        }

    def write_json(self, path):
        with open(path, 'w') as file:
            json.dump(self.as_json(), file, indent=1)
            file.write('\n')

    def groups(self):
        """Yield (label, results) of each case, in order."""
        labels = {}
        for result in self.results:
            labels.setdefault(label(result.case), []).append(result)
        return labels.items()

    def table(self):
        """Yield the lines for a person."""
        yield self.title
        width = max([len(result.name) for result in self.results]
                    + [len(case) - 2 for case, _ in self.groups()])
        percentiles = list(self.results[0].latency) if self.results else []
        counted = any(result.calls for result in self.results)
        for case, results in self.groups():
            yield ''
            yield ('%-*s  %9s  %-20s%s%s' % (
                width + 2, case, 'µs', 'ratio (min - max)',
                ''.join('  %8s' % ('%s µs' % name) for name in percentiles),
                '  system calls' * counted)).rstrip()
            for result in results:
                ratios = result.ratios
                if result.median is None:
                    figure = '%-31s' % 'too short to measure'
                else:
                    figure = '%9.3f  %-20s' % (result.median, '%5.2f (%.2f - %.2f)' % (
                        statistics.median(ratios), min(ratios), max(ratios)) if ratios else '')
                yield ('  %-*s  %s%s%s' % (
                    width, result.name, figure,
                    ''.join('  %8.0f' % statistics.median(result.latency[name])
                            for name in percentiles),
                    '  %12.1f' % sum(result.calls.values()) if result.calls else '')).rstrip()
        yield ''
        yield from self.footer()

    def footer(self):
        found, here = versions(), machine()
        yield 'On %s %s; %s' % (
            found['implementation'], found['python'],
            ', '.join('%s %s' % (name, found[name]) for name in
                      ('gevent_cbase', *PACKAGES[self.benchmark])
                      if found.get(name)))
        yield '%s, %s, %d cores' % (here['system'], here['cpu'], here['cores'])
        for note in self.notes:
            yield 'Note: ' + note
        for name, reason in self.skipped:
            yield 'Skipped: %s (%s)' % (name, reason)


def label(case):
    """``{'transport': 'tcp', 'spawn': None}`` -> ``tcp``"""
    return ', '.join(LABELS.get(name, '%s') % value
                     for name, value in case.items() if value is not None)


def percentiles(seconds):
    """The latencies that are shown, in µs, of a list of seconds."""
    ordered = sorted(seconds)
    return {'p%d' % percent: ordered[(len(ordered) * percent - 1) // 100] * 1e6
            for percent in (50, 90, 99)}


def versions():
    from gevent_cbase import __version__
    found = {'gevent_cbase': __version__, 'python': platform.python_version(),
             'implementation': platform.python_implementation()}
    for name in sorted(set().union(*PACKAGES.values())):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def machine():
    release = platform.release().partition('-')[0]  # what follows names a build
    return {'system': '%s %s %s' % (platform.system(), release, platform.machine()),
            'cpu': cpu_model(), 'cores': os.cpu_count()}


def cpu_model():
    with contextlib.suppress(OSError):
        with open('/proc/cpuinfo') as file:
            for line in file:
                name, _, value = line.partition(':')
                if name.strip() == 'model name':
                    return value.strip()
    return platform.processor() or 'unknown processor'


class Progress:
    """One line on standard error, written over again; nothing if that is no terminal."""

    def __init__(self, stream=None):
        self.stream = sys.stderr if stream is None else stream
        self.on = self.stream.isatty()

    def __call__(self, text):
        if self.on:
            self.stream.write('\r\x1b[K' + text[:78])
            self.stream.flush()

    def clear(self):
        self('')


def interleave(measures, rounds, progress):
    """Run all *measures*, pairs of a Result and a function, round by round: A B C A B C …

    The first round is a warm-up. The function returns µs, or a pair of µs and latencies.
    """
    for number in range(rounds + 1):
        for result, measure in measures:
            progress('%s: %s, %s' % (
                'round %d of %d' % (number, rounds) if number else 'warm-up',
                label(result.case), result.name))
            value, latency = measure()
            if number:
                result.rounds.append(value)
                for name, time in (latency or {}).items():
                    result.latency.setdefault(name, []).append(time)
