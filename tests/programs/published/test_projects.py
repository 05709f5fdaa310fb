"""What projects.py, which runs the suites of other projects, makes of their outcomes."""
import subprocess
import sys

import pytest

import projects
from helpers import child_environ, python
from projects import Run

PASSED = {'a': 'passed', 'b': 'passed', 'c': 'skipped', '(exit status)': '0'}


def run_once(stock, ours, bases=('gevent', 'gevent_cbase')):
    """What compare() gets: the runs in their order; *calls* lists the sides that were run."""
    runs = {False: iter([Run(tests, bases[0], 'output') for tests in stock]),
            True: iter([Run(tests, bases[1], 'output') for tests in ours])}
    calls = []

    def once(side):
        calls.append(side)
        return next(runs[side])
    return once, calls


def test_same_outcomes():
    """One round is enough."""
    once, calls = run_once([PASSED], [PASSED])
    stock, ours, differences, flaky, doubts = projects.compare(once)
    assert (differences, flaky, doubts) == ([], [], [])
    assert projects.counts(stock) == projects.counts(ours) == '2 passed, 1 skipped'
    assert calls == [False, True]


def test_differences():
    """A test that fails, one that is not there, another exit status; each in every round."""
    different = {'a': 'failed', 'c': 'skipped', '(exit status)': '1'}
    once, calls = run_once([PASSED] * 3, [different] * 3)
    _, _, differences, flaky, doubts = projects.compare(once)
    assert differences == [
        '(exit status): stock 0, 0, 0; ours 1, 1, 1',
        'a: stock passed, passed, passed; ours failed, failed, failed',
        'b: stock passed, passed, passed; ours not run, not run, not run']
    assert flaky == []
    assert doubts == ['ours: no test has passed:\noutput']
    assert calls == [False, True] * 3


def test_flaky():
    """What differs in one round and not in another is no difference, and is told."""
    flaky = dict(PASSED, a='failed')
    once, calls = run_once([PASSED, PASSED], [flaky, PASSED])
    assert projects.compare(once)[2:] == ([], ['a: stock passed, passed; ours failed, passed'], [])
    assert calls == [False, True] * 2
    once, calls = run_once([PASSED, flaky, PASSED], [flaky, PASSED, dict(PASSED, b='failed')])
    assert projects.compare(once)[2:] == ([], [
        'a: stock passed, failed, passed; ours failed, passed, passed',
        'b: stock passed, passed, passed; ours passed, passed, failed'], [])
    assert calls == [False, True] * 3


@pytest.mark.parametrize('bases, doubts', [
    (('gevent', 'gevent'), ['ours: StreamServer stood on gevent']),
    (('gevent_cbase', 'gevent_cbase'), ['stock: StreamServer stood on gevent_cbase']),
    (('gevent', None), ['ours: StreamServer stood on None'])])
def test_doubts(bases, doubts):
    """Both sides ended the same, but one of them was not what it ought to have been."""
    assert projects.compare(run_once([PASSED], [PASSED], bases)[0])[2:] == ([], [], doubts)


SUITE = '''
import os, subprocess, sys
import pytest
from gevent.server import StreamServer

BASE = 'from gevent.server import StreamServer; print(StreamServer.__mro__[1].__module__)'

def test_passes():
    pass

def test_by_base():
    assert StreamServer.__mro__[1].__module__ == 'gevent.baseserver'

def test_child():
    out = subprocess.check_output([sys.executable, '-c', BASE], text=True)
    assert out == StreamServer.__mro__[1].__module__ + '\\n'

@pytest.mark.skip
def test_skipped():
    pass

@pytest.mark.xfail
def test_expected():
    assert False

@pytest.mark.xfail
def test_unexpected():
    pass

@pytest.fixture
def setup():
    assert False

@pytest.fixture
def teardown():
    yield
    assert False

def test_setup(setup):
    pass

def test_teardown(teardown):
    pass

@pytest.mark.parametrize('it', [object()], ids=repr)
def test_address(it):
    pass

def test_fork():
    pid = os.fork()
    if pid == 0:
        assert False  # goes on as a second pytest, which must not write to the record
    os.waitpid(pid, 0)

def test_end():
    os._exit(9)

def test_never_reached():
    pass
'''


def test_planted_difference(impl, tmp_path):
    """A small suite is run as those of the projects are: each kind of outcome, a test that ends
    differently on our class, a process that comes to an early end.
    """
    (tmp_path / 'test_it.py').write_text(SUITE)
    outcome = tmp_path / 'outcome'
    command = projects.command(sys.executable, not impl.stock, ['test_it.py', '-p', 'no:timeout'])
    position = command.index('--timeout')
    del command[position:position + 2]  # pytest-timeout is not among what our tests need
    env = child_environ(projects.RECORDER, PROJECTS_OUTCOME=str(outcome))
    status = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True).returncode
    tests, base = projects.read_outcome(str(outcome), str(status))
    assert base is None  # it did not come to that
    assert {name.partition('::')[2]: end for name, end in tests.items()} == {
        'test_passes': 'passed', 'test_by_base': 'passed' if impl.stock else 'failed',
        'test_child': 'passed', 'test_skipped': 'skipped', 'test_expected': 'xfailed',
        'test_unexpected': 'xpassed', 'test_setup': 'error in setup',
        'test_teardown': 'error in teardown', 'test_address[<object object at 0x>]': 'passed',
        'test_fork': 'passed', 'test_end': 'not finished', '': '9'}


def test_base_is_recorded(impl, tmp_path):
    """At the end of the session, and what pytest says of tests that it cannot collect."""
    (tmp_path / 'test_it.py').write_text('import nowhere')
    outcome = tmp_path / 'outcome'
    env = child_environ(projects.RECORDER, PROJECTS_OUTCOME=str(outcome))
    status = subprocess.run(python(impl, '-m', 'pytest', '-p', 'projects_recorder'),
                            cwd=tmp_path, env=env, capture_output=True).returncode
    assert projects.read_outcome(str(outcome), str(status)) == (
        {'test_it.py': 'error in collect', '(exit status)': '2'},
        'gevent' if impl.stock else 'gevent_cbase')
