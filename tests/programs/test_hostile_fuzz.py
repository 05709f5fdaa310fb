"""Servers in several threads survive whatever is done to them at any moment: see hostile_fuzz.py.

Some seconds with a fixed seed, and with one that is new in each run and printed. With
GEVENT_CBASE_TESTS=nightly in the environment it is ten minutes each.
"""
import json
import os
import subprocess
import sys

import pytest

from helpers import child_environ

KIND = os.environ.get('GEVENT_CBASE_TESTS')
SECONDS = 600 if KIND == 'nightly' else 3
FUZZ = os.path.join(os.path.dirname(os.path.abspath(__file__)), 'hostile_fuzz.py')


# the processes have limits of their own
pytestmark = pytest.mark.no_deadline


def fuzz(*args):
    """A run in a process of its own, with CPython's debugging allocator unless there is another;
    the report that it prints. gevent in pure Python, and on other loops, does not survive it."""
    process = subprocess.run(
        [sys.executable, FUZZ, '--seconds', str(SECONDS), *args],
        capture_output=True, text=True, timeout=SECONDS + 150,
        env=child_environ(GEVENT_LOOP='libev-cext', PURE_PYTHON='',
                          PYTHONMALLOC=os.environ.get('PYTHONMALLOC', 'debug')))
    assert process.returncode == 0, process.stdout + process.stderr
    return json.loads(process.stdout.splitlines()[-1])


@pytest.mark.parametrize('seed', [['--seed', '1'], []], ids=['fixed', 'new'])
def test_survives(seed):
    """No crash, no exception that gevent would not raise, nothing that gets to another server, and
    in the end all is as before. Clients have been served, and actions taken."""
    report = fuzz(*seed)
    assert report['wrong'] == {}
    assert report['served'] > 0 and sum(report['actions'].values()) > 100, report


@pytest.mark.skipif(KIND == 'sanitizers', reason='nothing of ours runs')
def test_gevent_itself_survives():
    """What is done is nothing that the reference cannot stand."""
    report = fuzz('--stock', '--seed', '2')
    assert report['wrong'] == {}
    assert report['served'] > 0 and sum(report['actions'].values()) > 100, report
    assert 'install' not in report['actions']
