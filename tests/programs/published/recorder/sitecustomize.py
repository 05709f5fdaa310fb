"""Imported by every Python whose PYTHONPATH names this folder (see gevent_suites.py).

The first process writes the outcome of each unittest test it runs, and which base class its
servers had, as JSON to the file named by SUITE_OUTCOME. Nothing but unittest's result class is
touched, and not before the program itself imports unittest. Processes started by that one
record nothing; with SUITE_CHILDREN=cbase they install the drop-in, for tests that start
their server in a process of its own.
"""
import gc
import importlib.machinery
import json
import os
import sys

OUTCOME = os.environ.pop('SUITE_OUTCOME', None)
RECORDER = os.getpid()


class RunnerFinder:
    """Loads unittest.runner as always, then puts our result class into it."""

    def find_spec(self, name, path=None, target=None):
        if name != 'unittest.runner':
            return None
        sys.meta_path.remove(self)
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        load = spec.loader.exec_module

        def exec_module(module):
            load(module)
            module.TextTestRunner.resultclass = recording(module.TextTestResult)
            complete()
        spec.loader.exec_module = exec_module
        return spec


def complete():
    """Load gevent's servers before the tests: with them comes what our class does for sockets."""
    import gevent.server  # noqa: F401
    if 'gevent_cbase' in sys.modules:
        sys.modules['gevent_cbase'].install()


def recording(base):
    """A subclass of unittest's own result class *base* that also writes OUTCOME."""
    seen = {}

    def note(test, outcome):
        seen.setdefault(test.id(), []).append(outcome)

    class Result(base):
        def startTestRun(self):
            base.startTestRun(self)
            if os.environ.get('GEVENTTEST_LEAKCHECK'):
                gc.collect()
                gc.freeze()  # what was there before can not leak, and is not counted each time

        def addSuccess(self, test):
            base.addSuccess(self, test)
            note(test, 'ok')

        def addFailure(self, test, err):
            base.addFailure(self, test, err)
            note(test, 'FAIL' + growth(err[1]))

        def addError(self, test, err):
            base.addError(self, test, err)
            note(test, 'ERROR')

        def addSkip(self, test, reason):
            base.addSkip(self, test, reason)
            note(test, 'skipped (%s)' % reason)

        def addExpectedFailure(self, test, err):
            base.addExpectedFailure(self, test, err)
            note(test, 'expected failure')

        def addUnexpectedSuccess(self, test):
            base.addUnexpectedSuccess(self, test)
            note(test, 'unexpected success')

        def addSubTest(self, test, subtest, err):
            base.addSubTest(self, test, subtest, err)
            if err is not None:
                kind = 'FAIL' if issubclass(err[0], test.failureException) else 'ERROR'
                note(subtest, kind)

        def stopTestRun(self):
            base.stopTestRun(self)
            if os.getpid() == RECORDER:
                with open(OUTCOME, 'w') as out:
                    json.dump({'tests': seen, 'facts': facts()}, out)
    return Result


def growth(exc):
    """' (type +1, type +2)': what grew each time, if a leak check of gevent failed."""
    text = str(exc)
    if not text.startswith('refcount increased by '):
        return ''
    rows = [row.split() for row in text.splitlines()[1:]]
    return ' (%s)' % ', '.join('%s %s' % (row[0], row[-1]) for row in sorted(rows))


def facts():
    """Which loop ran, and which base class the servers of this process had."""
    import gevent.backdoor
    import gevent.pywsgi  # noqa: F401 (now every server class of gevent exists)
    from gevent import _compat, baseserver, get_hub
    cbase = sys.modules.get('gevent_cbase')
    bases = {}

    def walk(cls, base):
        for child in cls.__subclasses__():
            bases['%s.%s' % (child.__module__, child.__qualname__)] = base
            walk(child, base)
    for root in object.__subclasses__():
        if cbase is not None and root is cbase.BaseServer:
            walk(root, 'gevent_cbase')
        elif root.__module__ == 'gevent.baseserver':
            walk(root, 'gevent')
    return {
        'loop': type(get_hub().loop).__module__,
        'pure': bool(_compat.PURE_PYTHON),
        'imported': cbase is not None,
        'installed': cbase is not None and cbase.is_installed(),
        'current': cbase is not None and baseserver.BaseServer is cbase.BaseServer,
        'without': os.environ.get('GEVENT_CBASE_WITHOUT'),
        'python': baseserver.BaseServer.__module__ == 'gevent.baseserver',
        'bases': bases,
    }


if OUTCOME:
    sys.meta_path.insert(0, RunnerFinder())
elif os.environ.get('SUITE_CHILDREN') == 'cbase':
    import gevent_cbase
    gevent_cbase.install()
