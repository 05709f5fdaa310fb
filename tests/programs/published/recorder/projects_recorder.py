"""A pytest plugin that writes down how each test of another project ends (see projects.py).

Each report goes to the file named by PROJECTS_OUTCOME as a line of JSON, at once, so that what
was known before a crash is kept. Processes that the tests start run on the same class as they.
"""
import json
import os
import sys

OUTCOME = os.environ.pop('PROJECTS_OUTCOME')
RECORDER = os.getpid()


def note(kind, *values):
    if os.getpid() == RECORDER:  # not in a forked child
        with open(OUTCOME, 'a') as out:
            out.write(json.dumps((kind, *values)) + '\n')


def pytest_configure(config):
    cbase = sys.modules.get('gevent_cbase')
    if cbase is not None and cbase.is_installed():
        os.environ['SUITE_CHILDREN'] = 'cbase'  # see sitecustomize.py


def pytest_collectreport(report):
    if report.failed:
        note('test', report.nodeid or '(collection)', 'collect', 'failed')


def pytest_runtest_logreport(report):
    outcome = report.outcome
    if hasattr(report, 'wasxfail'):
        outcome = 'xfailed' if report.skipped else 'xpassed'
    note('test', report.nodeid, report.when, outcome)


def pytest_sessionfinish():
    from gevent.server import StreamServer
    note('base', StreamServer.__mro__[1].__module__.partition('.')[0])
