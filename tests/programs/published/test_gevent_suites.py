"""gevent's own tests of its servers end the same on our class as on gevent's, one by one.

Every installed test module of gevent that uses a server is run on each of gevent's loops and
with PURE_PYTHON=1, stock and drop-in (gevent_suites.py, which can also be run by itself).
That takes less than a minute. With GEVENT_CBASE_TESTS=full in the environment all other test
modules of gevent follow, which takes a quarter of an hour; and with GEVENT_SOURCE naming the
folder of an unpacked source distribution of gevent also those that run its examples.

With gevent's leak checks each test is run three times and more, so only one module is, on one
loop; with GEVENT_CBASE_TESTS=nightly all are, which takes some minutes.
"""
import json
import os
import subprocess
import sys

import pytest

import gevent_suites

NIGHTLY = os.environ.get('GEVENT_CBASE_TESTS') == 'nightly'
FULL = os.environ.get('GEVENT_CBASE_TESTS') == 'full'
SOURCE = os.environ.get('GEVENT_SOURCE')
SERVER_MODULES = gevent_suites.modules(examples=bool(SOURCE))
OTHER_MODULES = [name for name in gevent_suites.modules(everything=True)
                 if name not in SERVER_MODULES]


# the processes have limits of their own
pytestmark = pytest.mark.no_deadline


def test_modules_found():
    """The search finds the modules that are about servers."""
    assert set(SERVER_MODULES) >= {
        'test__server', 'test__server_pywsgi', 'test__pywsgi', 'test__backdoor',
        'test__socket_close', 'test__all__', 'test__issue600'}


@pytest.mark.parametrize('configuration', gevent_suites.CONFIGURATIONS)
@pytest.mark.parametrize('module', SERVER_MODULES)
def test_same_outcomes(module, configuration):
    """Each test ends as on gevent's class, and the processes were what they claim to be."""
    stock, ours, differences, doubts = gevent_suites.compare(
        module, configuration, source=SOURCE)
    assert doubts == []
    assert differences == [], ours.text
    assert 'ok' in stock.tests.values() or module.startswith('test__example')


@pytest.mark.parametrize('configuration', gevent_suites.CONFIGURATIONS if NIGHTLY
                         else ['libev-cext'])
@pytest.mark.parametrize('module', SERVER_MODULES if NIGHTLY else ['test__server'])
def test_same_leaks(module, configuration):
    """Nothing leaks that does not on gevent's class, by gevent's own leak checks."""
    stock, ours, differences, doubts = gevent_suites.compare(module, configuration, leaks=True)
    assert doubts == []
    assert differences == [], ours.text
    if configuration == 'libuv-cffi':  # see gevent_suites.py
        assert set(stock.tests.values()) & {'ok', 'FAIL (_multiplexwatcher +2)'}
    else:
        assert 'ok' in stock.tests.values(), stock.text
    assert 'objgraph not available' not in stock.text + ours.text


def test_leaks_are_noticed(tmp_path):
    """Of two tests, the one that keeps an object fails, with the name of its class."""
    path, outcome = tmp_path / 'leaking.py', tmp_path / 'outcome.json'
    path.write_text('''if 1:
        from gevent import testing

        class Kept:
            all = []

        class Test(testing.TestCase):
            def test_keeps(self):
                Kept.all.append(Kept())

            def test_does_not(self):
                Kept()
        testing.main()
    ''')
    process = subprocess.run([sys.executable, path], capture_output=True, text=True, cwd=tmp_path,
                             env=gevent_suites.environment(
                                 sys.executable, 'libev-cext', SUITE_OUTCOME=str(outcome),
                                 GEVENTTEST_LEAKCHECK='1'), timeout=100)
    assert json.loads(outcome.read_text())['tests'] == {
        '__main__.Test.test_keeps': ['FAIL (Kept +1)'],
        '__main__.Test.test_does_not': ['ok']}, process.stderr


def test_what_counts_as_a_difference(monkeypatch):
    """A test that ends differently in every round; not one that did so once."""
    rounds = iter([
        [{'a': 'ok', 'b': 'ok', 'c': 'ok', 'd': 'ok'}, {'a': 'FAIL', 'b': 'ERROR', 'd': 'ok'}],
        [{'a': 'ok', 'b': 'ok', 'c': 'ok', 'd': 'ok'}, {'a': 'FAIL', 'b': 'ok', 'd': 'ok'}],
        [{'a': 'ok', 'b': 'ok', 'c': 'ok', 'd': 'ok'}, {'a': 'ERROR', 'b': 'ok', 'd': 'FAIL'}]])
    monkeypatch.setattr(gevent_suites, 'both', lambda *args, **kwargs: [
        gevent_suites.Run(tests, {}, '') for tests in next(rounds)])
    _, _, differences, _ = gevent_suites.compare('module', 'libev-cext')
    assert differences == ['a: stock ok, ours ERROR', 'c: stock ok, ours not run']
    assert next(rounds, None) is None


@pytest.mark.parametrize('names', [None, 'sockets,pools'])
def test_fast_paths_that_are_switched_off(monkeypatch, names):
    """The processes do without those that this one does without; a doubt if they did not."""
    monkeypatch.delenv('GEVENT_CBASE_WITHOUT', raising=False)
    if names:
        monkeypatch.setenv('GEVENT_CBASE_WITHOUT', names)
    stock, ours, differences, doubts = gevent_suites.compare('test__socket_close', 'libev-cffi')
    assert (differences, doubts) == ([], [])
    assert ours.facts['without'] == stock.facts['without'] == names
    monkeypatch.setenv('GEVENT_CBASE_WITHOUT', 'lookups')
    doubts = list(gevent_suites.doubts('libev-cffi', stock, ours))
    assert [doubt.partition(':')[0] for doubt in doubts] == ['stock', 'ours']


def test_drop_in_that_is_not_installed_is_noticed(monkeypatch):
    """Both sides on gevent's class end alike, but the one is not what it ought to be."""
    monkeypatch.setitem(gevent_suites.CONFIGURATIONS, 'off',
                        {'GEVENT_LOOP': 'libev-cffi', 'GEVENT_CBASE': '0'})
    monkeypatch.setitem(gevent_suites.LOOPS, 'off', gevent_suites.LOOPS['libev-cffi'])
    _, _, differences, doubts = gevent_suites.compare('test__socket_close', 'off')
    assert differences == []
    assert len(doubts) == 5 and all(doubt.startswith('ours: ') for doubt in doubts)
    assert 'ours: the base class of gevent.server.StreamServer is gevent' in doubts


if FULL:
    @pytest.mark.parametrize('configuration', gevent_suites.CONFIGURATIONS)
    @pytest.mark.parametrize('module', OTHER_MODULES)
    def test_same_outcomes_elsewhere(module, configuration):
        """Modules that use no server do not notice the drop-in."""
        _, ours, differences, _ = gevent_suites.compare(module, configuration)
        assert differences == [], ours.text
