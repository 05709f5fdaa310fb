"""gevent's own test modules, stock and drop-in, outcome by outcome.

    python tests/programs/published/gevent_suites.py [--loop L]... [--module M]... [--python PY]
                                                     [--source DIR] [--leaks]

runs every module of gevent.tests that uses a server on every configuration of gevent, once as
``python -m gevent.tests.M`` and once as ``python -m gevent_cbase -m gevent.tests.M``, prints
one line for each and exits with 1 if any test ended differently. A test that did is tried
again, on both sides, up to twice. ``--module all`` stands for every test module there is.
GEVENT_CBASE_WITHOUT counts, for a run without some of the fast paths.

With --leaks gevent repeats each test until the number of objects stays the same, or fails it
with the types that grow; those are part of how it ended. This needs objgraph. (On libuv stock
gevent fails most: a server closes its listener under the socket of gevent that it was made with,
whose two watchers stay in the loop.)

gevent's tests of its examples need the examples, which are not installed with it: give the
folder of an unpacked source distribution as DIR (outside of a checkout of this project, or
those tests find the wrong setup.py) and they are run too.
"""
import argparse
import collections
import functools
import glob
import json
import os
import re
import signal
import subprocess
import sys
import tempfile

CONFIGURATIONS = {
    'libev-cext': {'GEVENT_LOOP': 'libev-cext'},
    'libev-cffi': {'GEVENT_LOOP': 'libev-cffi'},
    'libuv-cffi': {'GEVENT_LOOP': 'libuv-cffi'},
    'pure-python': {'PURE_PYTHON': '1'},
}
#: where the class of the loop is defined
LOOPS = {
    'libev-cext': 'gevent.libev.corecext',
    'libev-cffi': 'gevent.libev.corecffi',
    'libuv-cffi': 'gevent.libuv.loop',
    'pure-python': 'gevent.libev.corecext',
}
#: the variable that switches fast paths off
WITHOUT = 'GEVENT_CBASE_WITHOUT'
HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(HERE)))
RECORDER = os.path.join(HERE, 'recorder')

#: modules about servers that the search for a server's name does not find, and those about what
#: becomes of sockets
ALSO = ('test__all__', 'test__issue600', 'test__makefile_ref',
        'test__refcount', 'test__socket', 'test__socket_ex', 'test__ssl')
SERVER = re.compile(r'StreamServer|WSGIServer|DatagramServer|BackdoorServer|baseserver|pywsgi')

ROUNDS = 3
LIMIT = 300  # seconds for one module
LEAKS_LIMIT = 1800

#: tests: {test id: outcome}, facts: what the recorder says of the process, text: its output
Run = collections.namedtuple('Run', 'tests facts text')


def modules(python=sys.executable, everything=False, examples=False):
    """Names of gevent's test modules that use a server (or all), sorted."""
    where = 'import gevent.tests; print(gevent.tests.__path__[0])'
    folder = subprocess.check_output([python, '-c', where], text=True).strip()
    found = []
    for path in glob.glob(os.path.join(folder, 'test_*.py')):
        name = os.path.basename(path)[:-3]
        if name.startswith('test__example'):
            wanted = examples
        else:
            with open(path, encoding='utf-8') as source:
                wanted = everything or name in ALSO or SERVER.search(source.read())
        if wanted:
            found.append(name)
    return sorted(found)


@functools.lru_cache(None)
def search_path(python):
    """What PYTHONPATH needs besides the recorder: this checkout, if it is not installed."""
    found = subprocess.run([python, '-c', 'import gevent_cbase._cbase'], cwd=RECORDER,
                           stderr=subprocess.DEVNULL)
    return [RECORDER] if found.returncode == 0 else [RECORDER, ROOT]


def environment(python, configuration, **more):
    """The same for both sides: of gevent's variables only those of the configuration."""
    env = {name: value for name, value in os.environ.items()
           if name == WITHOUT or not name.startswith('GEVENT') and name != 'PURE_PYTHON'}
    path = search_path(python) + [env.get('PYTHONPATH')]
    env['PYTHONPATH'] = os.pathsep.join(filter(None, path))
    env['GEVENTTEST_USE_RESOURCES'] = 'all,-network'
    env.update(CONFIGURATIONS[configuration], **more)
    return env


class Process:
    """One module in a process of its own, on gevent's class or on ours."""

    def __init__(self, module, configuration, ours, python=sys.executable, source=None,
                 leaks=False):
        self.limit = LEAKS_LIMIT if leaks else LIMIT
        self.folder = tempfile.TemporaryDirectory(prefix='suite')
        self.outcome = os.path.join(self.folder.name, 'outcome.json')
        env = environment(python, configuration, SUITE_OUTCOME=self.outcome,
                          SUITE_CHILDREN='cbase' if ours else 'gevent',
                          **{'GEVENTTEST_LEAKCHECK': '1'} if leaks else {})
        self.output = open(os.path.join(self.folder.name, 'output'), 'w+b')
        self.popen = subprocess.Popen(
            [python] + ['-m', 'gevent_cbase'] * ours + ['-m', 'gevent.tests.' + module],
            cwd=source or self.folder.name, env=env, stdin=subprocess.DEVNULL,
            stdout=self.output, stderr=subprocess.STDOUT, start_new_session=True)

    def wait(self):
        """The Run, once the process has ended."""
        with self.folder, self.output:
            try:
                status = self.popen.wait(self.limit)
            except subprocess.TimeoutExpired:
                os.killpg(self.popen.pid, signal.SIGKILL)
                status = 'killed after %d seconds (%d)' % (
                    self.limit, self.popen.wait())
            recorded = {'tests': {}, 'facts': {}}
            if os.path.exists(self.outcome):
                with open(self.outcome) as file:
                    recorded = json.load(file)
            tests = {name: re.sub('0x[0-9a-f]+', '0x', ' + '.join(outcomes))
                     for name, outcomes in recorded['tests'].items()}
            tests['(exit status)'] = str(status)
            self.output.seek(0)
            return Run(tests, recorded['facts'], self.output.read().decode(errors='replace'))


def both(module, *args, **kwargs):
    """The two Runs of *module*, stock and ours, side by side."""
    if module.startswith('test__example'):  # these have fixed ports
        return [Process(module, *args, ours=ours, **kwargs).wait() for ours in (False, True)]
    return [process.wait() for process in
            [Process(module, *args, ours=ours, **kwargs) for ours in (False, True)]]


def compare(module, configuration, **kwargs):
    """(stock Run, our Run, differences, doubts) after as many rounds as are needed.

    A difference is a line of text about a test that ended differently in every round; a doubt
    is one about a process that was not what it ought to have been.
    """
    differing = None
    for _ in range(ROUNDS):
        stock, ours = both(module, configuration, **kwargs)
        names = {name for name in set(stock.tests) | set(ours.tests)
                 if stock.tests.get(name) != ours.tests.get(name)}
        differing = names if differing is None else differing & names
        if not differing:
            break
    differences = ['%s: stock %s, ours %s' % (name, stock.tests.get(name, 'not run'),
                                              ours.tests.get(name, 'not run'))
                   for name in sorted(differing)]
    return stock, ours, differences, list(doubts(configuration, stock, ours))


def doubts(configuration, stock, ours):
    """What speaks against the one process having run on gevent's class, the other on ours."""
    for side, run, expected in (
            ('stock', stock, {'imported': False, 'installed': False, 'current': False,
                              'python': True}),
            ('ours', ours, {'imported': True, 'installed': True, 'current': True,
                            'python': False})):
        expected.update(loop=LOOPS[configuration], pure=configuration == 'pure-python',
                        without=os.environ.get(WITHOUT))
        found = dict(run.facts)
        bases = found.pop('bases', {})
        if found != expected:
            yield '%s: %r instead of %r' % (side, found, expected)
        base = 'gevent' if side == 'stock' else 'gevent_cbase'
        for name in ('gevent.server.StreamServer', 'gevent.server.DatagramServer',
                     'gevent.pywsgi.WSGIServer', 'gevent.backdoor.BackdoorServer'):
            bases.setdefault(name, 'missing')
        for name in sorted(bases):
            if bases[name] != base:
                yield '%s: the base class of %s is %s' % (side, name, bases[name])
        if len(run.tests) < 2:
            yield '%s: no test was run:\n%s' % (side, run.text)


def counts(run):
    """For people: '37 ok, 1 skipped'."""
    kinds = collections.Counter(outcome.split(' (')[0] for name, outcome in run.tests.items()
                                if name != '(exit status)')
    return ', '.join('%d %s' % (number, kind) for kind, number in sorted(
        kinds.items(), key=lambda item: -item[1])) or 'none'


def main():
    parser = argparse.ArgumentParser(usage=__doc__.split('\n\n')[1].strip(),
                                     description=__doc__.split('\n\n')[2])
    parser.add_argument('--loop', action='append', choices=sorted(CONFIGURATIONS))
    parser.add_argument('--module', action='append', help='a name without gevent.tests., or all')
    parser.add_argument('--python', default=sys.executable)
    parser.add_argument('--source', help='an unpacked source distribution of gevent')
    parser.add_argument('--leaks', action='store_true', help="with gevent's leak checks")
    options = parser.parse_args()
    server_modules = modules(options.python, examples=bool(options.source))
    names = options.module or server_modules
    if 'all' in names:
        names = modules(options.python, everything=True, examples=bool(options.source))
    failed = 0
    row = '%-26s %-12s %-34s %-34s %s'
    print(row % ('module', 'loop', 'stock', 'ours', 'differences'))
    for name in names:
        for configuration in options.loop or CONFIGURATIONS:
            stock, ours, differences, doubtful = compare(
                name, configuration, python=options.python, source=options.source,
                leaks=options.leaks)
            print(row % (name, configuration, counts(stock), counts(ours), len(differences)),
                  flush=True)
            if name not in server_modules:
                doubtful = []  # many of these do without unittest or without gevent
            for line in doubtful + differences[:20]:
                print('    ' + line.replace('\n', '\n    '))
            if len(differences) > 20:
                print('    and %d more' % (len(differences) - 20))
            failed += bool(differences or doubtful)
    sys.exit(1 if failed else 0)


if __name__ == '__main__':
    main()
