"""Test suites of published projects that live on gevent's servers, stock and drop-in.

    python tests/programs/published/projects.py [NAME ...] [--all] [--list] [--cache DIR]

For each project (those of CI, those named, or all) this fetches the source distribution and
makes a virtual environment, both from the package index and kept in the cache folder; runs the
unmodified suite as ``python -m pytest`` and as ``python -m gevent_cbase -m pytest``, and prints
one line. It exits with 1 if any test ended differently on the two sides. A suite in which one
did is run again on both sides, twice at most: a test that differs each time is a difference,
one that differs only sometimes is listed as flaky. That a test fails on both sides alike is no
difference. A project that cannot be had here, or of which no test passes on stock gevent, is
listed; it is a failure only if it was named. GEVENT_LOOP chooses the loop as always.
"""
import argparse
import collections
import concurrent.futures
import contextlib
import glob
import importlib.metadata
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import tarfile
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
RECORDER = os.path.join(HERE, 'recorder')

NOTHING = '%s: no test has passed'

ROUNDS = 3
LIMIT = 240  # seconds for one run of a suite
TEST_LIMIT = 60  # seconds for one of its tests

#: version and arguments for pytest; what else it needs; whether CI runs it
Project = collections.namedtuple('Project', 'version arguments requires ci')


def project(version, *arguments, requires=(), ci=False):
    return Project(version, arguments, tuple(requires), ci)


PROJECTS = {
    'gunicorn': project(
        '27.0.1', '-k', 'gevent', 'tests/workers/test_ggevent.py',
        'tests/workers/test_gevent_import_order.py', 'tests/test_http2_live.py',
        'tests/test_control_socket_integration.py', 'tests/test_http2_alpn.py',
        requires=['h2', 'httpx[http2]', 'pytest-asyncio'], ci=True),
    'geventhttpclient': project(
        '2.6.1', '-m', 'not network', 'tests', ci=True,
        requires=['requests', 'dpkt', 'httplib2', 'pytest-httpserver', 'urllib3', 'trustme']),
    'gnsq': project('1.0.2', 'tests', '--fast', requires=['mock', 'requests'], ci=True),
    'gipc': project('1.8.0', 'test', requires=['pytest<8'], ci=True),  # calls setup() of modules
    'tinyrpc': project(
        '1.1.7', 'tests/test_wsgi_transport.py', ci=True,
        requires=['requests', 'werkzeug', 'gevent-websocket', 'six']),
    'python-slimta': project(
        '5.0.5', '--continue-on-collection-errors', 'test', ci=True,
        requires=['pymox', 'testfixtures', 'setuptools<80', 'pyspf', 'py3dns', 'redis']),
    'locust': project(  # later ones come without tests
        '2.29.1', *['locust/test/test_%s.py' % name for name in (
            'web', 'fasthttp', 'http', 'users', 'stats', 'locust_class')],
        requires=['cryptography', 'pyquery', 'retry', 'flask<3.1']),
    'gevent-toolbelt': project('1.0.12', 'tests', requires=['requests']),
    'pywb': project(
        '2.10.0', 'pywb', 'tests',
        requires=['webtest', 'httpbin', 'fakeredis', 'mock', 'responses', 'setuptools<80']),
    'python-engineio': project(
        '4.15.1', 'tests', requires=[
            'simple-websocket', 'websocket-client', 'requests', 'aiohttp', 'tornado', 'eventlet',
            'pytest-asyncio']),
    'python-socketio': project(
        '5.18.1', 'tests', requires=[
            'simple-websocket', 'websocket-client', 'requests', 'redis', 'valkey', 'kombu',
            'msgpack', 'aiohttp', 'pytest-asyncio', 'uvicorn']),
}

#: tests: {test id: outcome}, base: whose class StreamServer stood on, text: the output
Run = collections.namedtuple('Run', 'tests base text')


# Fetching

def pip(*args):
    """Run pip; raises CalledProcessError with its output."""
    subprocess.run([sys.executable, '-m', 'pip', '--disable-pip-version-check', '-q', *args],
                   check=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def fetch(name, version, cache):
    """The path of the source distribution."""
    folder = os.path.join(cache, 'sources', '%s-%s' % (name, version))
    if not glob.glob(os.path.join(folder, '*.tar.gz')):
        pip('download', '--no-deps', '--no-binary', ':all:', '-d', folder,
            '%s==%s' % (name, version))
    (path,) = glob.glob(os.path.join(folder, '*.tar.gz'))
    return path


def requirements(name):
    """What goes into the environment of a project: the gevent of this Python, too."""
    installed = ['%s==%s' % (package, importlib.metadata.version(package))
                 for package in ('gevent', 'greenlet')]
    chosen = PROJECTS[name]
    return ['%s==%s' % (name, chosen.version), 'pytest', 'pytest-timeout', 'cffi',
            *chosen.requires, *installed]


def environment(name, cache):
    """The Python of the project's virtual environment, made if it is not there."""
    folder = os.path.join(cache, 'environments', '%s-%d.%d' % (name, *sys.version_info[:2]))
    python = os.path.join(folder, 'bin', 'python')
    record = os.path.join(folder, 'requirements.json')
    wanted = requirements(name)
    with contextlib.suppress(OSError, ValueError), open(record) as file:
        if json.load(file) == wanted:
            return python
    subprocess.run([sys.executable, '-m', 'venv', '--clear', '--without-pip', folder], check=True)
    pip('--python', python, 'install', *wanted)
    with open(record, 'w') as file:
        json.dump(wanted, file)
    return python


def prepare(name, cache):
    """(path of the source distribution, path of a Python) to run the suite with."""
    return fetch(name, PROJECTS[name].version, cache), environment(name, cache)


def package_folder(cache):
    """A folder with the package under test in it and nothing else, for PYTHONPATH."""
    spec = importlib.util.find_spec('gevent_cbase')
    folder = os.path.join(cache, 'package')
    link = os.path.join(folder, 'gevent_cbase')
    os.makedirs(folder, exist_ok=True)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(link)
    os.symlink(spec.submodule_search_locations[0], link)
    return folder


# Running

def command(python, ours, arguments):
    return [python, *['-m', 'gevent_cbase'] * ours, '-m', 'pytest', '-o', 'addopts=', '-q',
            '-p', 'projects_recorder', '-p', 'no:cacheprovider', '-p', 'no:anyio',
            '--timeout', str(TEST_LIMIT), *arguments]


def run(name, ours, source, python, package):
    """Run the suite of a project once, in a fresh copy of its source: a Run."""
    with tempfile.TemporaryDirectory(prefix='project') as folder:
        with tarfile.open(source) as archive:
            archive.extractall(folder, filter='data')
        (inside,) = os.listdir(folder)
        with open(os.path.join(folder, 'pytest.ini'), 'w') as file:
            file.write('[pytest]\n')  # for suites without a configuration: look no further up
        outcome = os.path.join(folder, 'outcome')
        env = {key: value for key, value in os.environ.items()
               if key == 'GEVENT_CBASE_WITHOUT'
               or not key.startswith(('GEVENT_CBASE', 'PYTEST_'))}
        env.update(PYTHONPATH=os.pathsep.join([package, RECORDER]), PROJECTS_OUTCOME=outcome)
        with open(os.path.join(folder, 'output'), 'w+b') as output:
            process = subprocess.Popen(
                command(python, ours, PROJECTS[name].arguments), env=env, stdout=output,
                cwd=os.path.join(folder, inside), stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL, start_new_session=True)
            try:
                status = str(process.wait(LIMIT))
            except subprocess.TimeoutExpired:
                status = 'killed after %d seconds' % LIMIT
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)  # with all that it has left behind
                process.wait()
            output.seek(0)
            text = output.read().decode(errors='replace')
        return Run(*read_outcome(outcome, status), text)


def read_outcome(path, status):
    """(tests, base) as the recorder has written them; `status` of the process counts as a test."""
    phases, base = {}, None
    with contextlib.suppress(FileNotFoundError), open(path) as file:
        for line in file:
            kind, *values = json.loads(line)
            if kind == 'base':
                (base,) = values
            else:
                test, phase, outcome = values
                test = re.sub('0x[0-9a-f]+', '0x', test)
                phases.setdefault(test, {})[phase] = outcome
    tests = {test: verdict(outcomes) for test, outcomes in phases.items()}
    tests['(exit status)'] = status
    return tests, base


def verdict(phases):
    """One word for the phases of a test: {'setup': 'passed', 'call': …, 'teardown': …}."""
    for phase in ('collect', 'setup', 'teardown'):
        if phases.get(phase) == 'failed':
            return 'error in ' + phase
    if phases.get('setup') == 'skipped':
        return 'skipped'
    return phases.get('call', 'not finished')


def compare(run_once):
    """Run both sides until nothing new is to be learned.

    *run_once(ours)* returns a Run. Returns the last two Runs, stock and ours, and lines of text:
    the differences, what was flaky, and doubts whether the processes were what they ought to be.
    """
    rounds = []
    while len(rounds) < ROUNDS:
        rounds.append([run_once(False), run_once(True)])
        if not differing(*rounds[-1]):
            break
    always = set.intersection(*[differing(*both) for both in rounds])
    sometimes = set.union(*[differing(*both) for both in rounds]) - always
    stock, ours = rounds[-1]
    return (stock, ours, [describe(test, rounds) for test in sorted(always)],
            [describe(test, rounds) for test in sorted(sometimes)], list(doubts(stock, ours)))


def differing(stock, ours):
    return {test for test in set(stock.tests) | set(ours.tests)
            if stock.tests.get(test) != ours.tests.get(test)}


def describe(test, rounds):
    def outcomes(side):
        return ', '.join(both[side].tests.get(test, 'not run') for both in rounds)
    return '%s: stock %s; ours %s' % (test, outcomes(0), outcomes(1))


def doubts(stock, ours):
    for side, one, expected in ('stock', stock, 'gevent'), ('ours', ours, 'gevent_cbase'):
        if one.base != expected:
            yield '%s: StreamServer stood on %s' % (side, one.base)
        if 'passed' not in one.tests.values():
            yield '%s:\n%s' % (NOTHING % side, one.text[-1000:])


def counts(one):
    """For people: '37 passed, 1 skipped'."""
    kinds = collections.Counter(outcome for test, outcome in one.tests.items()
                                if test != '(exit status)')
    return ', '.join('%d %s' % (number, kind) for kind, number in sorted(
        kinds.items(), key=lambda item: -item[1])) or 'none'


def main():
    parser = argparse.ArgumentParser(usage=__doc__.split('\n\n')[1].strip(),
                                     description=__doc__.split('\n\n')[2])
    parser.add_argument('name', nargs='*', choices=[[], *PROJECTS], metavar='NAME')
    parser.add_argument('--all', action='store_true', help='every project, not only those of CI')
    parser.add_argument('--list', action='store_true', help='print their names and end')
    parser.add_argument('--cache', help='where sources and environments are kept')
    options = parser.parse_args()
    names = options.name or [name for name in PROJECTS if options.all or PROJECTS[name].ci]
    if options.list:
        for name in names:
            print(name, PROJECTS[name].version)
        return
    cache = options.cache or os.path.join(
        os.environ.get('XDG_CACHE_HOME') or os.path.expanduser('~/.cache'),
        'gevent_cbase-projects')
    sys.exit(1 if run_all(names, os.path.abspath(cache), bool(options.name)) else 0)


def run_all(names, cache, named):
    """How many of these projects were not found to end the same. *named*: all must be compared."""
    package = package_folder(cache)
    failed = 0
    row = '%-24s %7s  %s'
    print(row % ('project', 'seconds', 'outcomes'), flush=True)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:  # prepares one while another runs
        prepared = [pool.submit(prepare, name, cache) for name in names]
        for name, ready in zip(names, prepared):
            start = time.monotonic()
            try:
                source, python = ready.result()
            except subprocess.CalledProcessError as ex:
                print('%s: cannot be had:\n%s' % (name, ex.output))
                failed += named
                continue
            stock, ours, differences, flaky, doubtful = compare(
                lambda ours: run(name, ours, source, python, package))
            title = '%s %s' % (name, PROJECTS[name].version)
            print(row % (title, round(time.monotonic() - start), counts(stock)), flush=True)
            if counts(ours) != counts(stock):
                print(row % ('', 'ours:', counts(ours)))
            for kind, lines in ('doubt', doubtful), ('different', differences), ('flaky', flaky):
                for line in lines[:20]:
                    print('    %s: %s' % (kind, line.replace('\n', '\n    ')), flush=True)
                if len(lines) > 20:
                    print('    and %d more' % (len(lines) - 20))
            if not named and NOTHING % 'stock' in '\n'.join(doubtful):
                print('    cannot be compared here')
            else:
                failed += bool(differences or doubtful)
    return failed


if __name__ == '__main__':
    main()
