"""What the environment switches off; and what it says that nobody knows, which is told."""
import subprocess
import sys
import warnings

import pytest

from children import in_child
from gevent_cbase import _install, datastack
from gevent_cbase._native import switches
from gevent_cbase._native.paths import FAST_PATHS
from helpers import child_environ

VARIABLES = ['GEVENT_CBASE', 'GEVENT_CBASE_DATASTACK']
VALUES = 'on is one of 1, yes, on, true; off is one of 0, no, off, false, never, disabled'
NAMES = 'lookups, sockets, watchers, closing, io, pools, greenlets, datastack, and all'


@pytest.fixture(autouse=True)
def _environment(monkeypatch):
    monkeypatch.setattr(switches, '_told', set())
    for variable in (*VARIABLES, 'GEVENT_CBASE_WITHOUT'):
        monkeypatch.delenv(variable, raising=False)


@pytest.mark.parametrize('variable', VARIABLES)
@pytest.mark.parametrize('value, known, on', [
    (None, True, True), ('', True, True), (' ', True, True), ('1', True, True),
    ('yes', True, True), ('On', True, True), (' TRUE\n', True, True),
    ('0', True, False), ('no', True, False), ('OFF', True, False), ('false ', True, False),
    ('never', True, False), ('Disabled', True, False),
    ('disable', False, False), ('2', False, False), ('none', False, False), ('n', False, False),
    ('0,', False, False), ('pools', False, False)])
def test_values(monkeypatch, variable, value, known, on):
    """What is not known is off, and told once."""
    if value is not None:
        monkeypatch.setenv(variable, value)
    assert switches.why_not(variable) == (None if on else variable + ' switches it off')
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter('always')
        switches.check(variable)
        switches.check(variable)
    assert [(one.category, str(one.message)) for one in seen] == [] if known else [
        (RuntimeWarning, 'gevent_cbase: %s=%s is not known, and read as off: %s' % (
            variable, value, VALUES))]


def test_who_asks_for_the_values(monkeypatch):
    monkeypatch.setenv('GEVENT_CBASE', 'never')
    assert _install.disabled() == 'GEVENT_CBASE switches it off'
    assert datastack._forbidden() is None
    monkeypatch.setenv('GEVENT_CBASE', 'true')
    monkeypatch.setenv('GEVENT_CBASE_DATASTACK', 'disabled')
    assert _install.disabled() is None
    assert datastack._forbidden() == 'GEVENT_CBASE_DATASTACK switches it off'


@pytest.mark.parametrize('value, off, unknown', [
    ('', [], ''), ('pools', ['pools'], ''), (' Pools,sockets ', ['sockets', 'pools'], ''),
    ('all', list(FAST_PATHS), ''), ('pool', [], 'pool'), ('socket,pools', ['pools'], 'socket'),
    ('socket;pool', [], 'socket;pool'), ('1', [], '1'),
    ('no, all', list(FAST_PATHS), 'no'), ('socket pool', [], 'socket, pool')])
def test_names(monkeypatch, value, off, unknown):
    """Those that are known count, the others are told once."""
    monkeypatch.setenv('GEVENT_CBASE_WITHOUT', value)
    assert [name for name in FAST_PATHS if switches.why_off(name)] == off
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter('always')
        switches.check_names(FAST_PATHS)
        switches.check_names(FAST_PATHS)
    assert [str(one.message) for one in seen] == ([] if not unknown else [
        'gevent_cbase: GEVENT_CBASE_WITHOUT has no effect on %s: known are %s' % (
            unknown, NAMES)])


def told(code, **environ):
    """The warnings of a process that must end well and print nothing else."""
    done = subprocess.run([sys.executable, '-c', code], env=child_environ(**environ), text=True,
                          capture_output=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, ''), done.stderr
    return [line.partition(': RuntimeWarning: ')[2] for line in done.stderr.splitlines()
            if 'Warning' in line]


@pytest.mark.parametrize('variable', VARIABLES)
def test_install_warns_once(variable):
    code = '''if 1:
        import gevent_cbase
        from gevent_cbase import datastack
        for _ in range(2):
            gevent_cbase.install()
            assert gevent_cbase.is_installed() is %s
            assert not datastack.is_enabled()
            gevent_cbase.uninstall()
    ''' % (variable != 'GEVENT_CBASE')
    assert told(code, **{variable: 'nonsense'}) == [
        'gevent_cbase: %s=nonsense is not known, and read as off: %s' % (variable, VALUES)]


def test_what_is_not_read_is_not_told():
    """The switch for the cache, where nothing is installed, or the cache is not asked for."""
    code = 'import gevent_cbase; gevent_cbase.install(datastack=%s)'
    assert told(code % True, GEVENT_CBASE='0', GEVENT_CBASE_DATASTACK='nonsense') == []
    assert told(code % False, GEVENT_CBASE_DATASTACK='nonsense') == []


def test_the_import_warns_of_names():
    """Fast paths are there without install(), too."""
    assert told('import gevent_cbase.baseserver, gevent_cbase; gevent_cbase.install()',
                GEVENT_CBASE_WITHOUT='socket,pools') == [
        'gevent_cbase: GEVENT_CBASE_WITHOUT has no effect on socket: known are ' + NAMES]


def nothing_is_installed(variable):
    """install() raises, each time; without the variable it does its work."""
    import os

    import gevent_cbase
    from gevent_cbase import datastack
    for _ in range(2):
        try:
            gevent_cbase.install()
        except RuntimeWarning as ex:
            assert variable in str(ex)
        else:
            raise AssertionError('no warning')
        assert not gevent_cbase.is_installed() and not datastack.is_enabled()
    del os.environ[variable]
    gevent_cbase.install()
    assert gevent_cbase.is_installed()


@in_child(GEVENT_CBASE='nonsense')
def test_warning_is_an_error():
    """Then nothing is installed."""
    nothing_is_installed('GEVENT_CBASE')


@in_child(GEVENT_CBASE_DATASTACK='nonsense')
def test_warning_of_the_cache_is_an_error():
    """Then nothing is installed either."""
    nothing_is_installed('GEVENT_CBASE_DATASTACK')


def test_warning_of_a_name_is_an_error():
    """Then the package cannot be imported, and can without the variable."""
    code = '''if 1:
        import os, sys, warnings
        warnings.simplefilter('error')
        for _ in range(2):
            try:
                import gevent_cbase
            except RuntimeWarning as ex:
                assert 'socket' in str(ex)
            else:
                raise AssertionError('no warning')
            assert 'gevent_cbase' not in sys.modules
        del os.environ['GEVENT_CBASE_WITHOUT']
        import gevent_cbase
        from gevent_cbase._native.paths import FAST_PATHS
        gevent_cbase.install()
        assert gevent_cbase.is_installed() and FAST_PATHS['lookups']() is None
    '''
    assert told(code, GEVENT_CBASE_WITHOUT='socket,lookups') == []
