"""GEVENT_CBASE=1: monkey.patch_all() installs the drop-in, by gevent's own plugins, and tells so.

Without the variable nothing of ours is imported but the entry point.
"""
import re
import subprocess
import sys

import pytest

import gevent_cbase
import gevent_cbase_plugin
from helpers import PLAIN, run_script, text_of, with_metadata

#: prints modules of ours, and whose servers the program has
PROGRAM = '''
from gevent import monkey
monkey.patch_all()
import sys
print(sorted({name.partition('.')[0] for name in sys.modules if name.startswith('gevent_cbase')}))
import gevent.server
print(gevent.server.StreamServer.__mro__[1].__module__)
'''
INERT = ["['gevent_cbase_plugin']", 'gevent.baseserver']
ON = ["['gevent_cbase', 'gevent_cbase_plugin']", 'gevent_cbase.baseserver']
OFF = ["['gevent_cbase', 'gevent_cbase_plugin']", 'gevent.baseserver']
#: the line that tells it
LINE = r'gevent_cbase %s is on: gevent [\w.]+, CPython [\w.]+(; off: .+)?\n' % re.escape(
    gevent_cbase.__version__)


@pytest.fixture
def run(tmp_path):
    """``run(source, GEVENT_CBASE='1', …)``: (lines of stdout, stderr); it has to end well."""
    environs = {}

    def run_it(source, folders=('metadata',), **environ):
        for folder in folders:
            if folder not in environs:
                environs[folder] = with_metadata(tmp_path / folder)
        path = ':'.join(str(tmp_path / folder) for folder in folders)
        env = {**environs[folders[0]], **environ}
        env['PYTHONPATH'] = path + ':' + env['PYTHONPATH']
        status, out, err = run_script(PLAIN, tmp_path, source, env=env)
        assert status == 0, err
        return out.splitlines(), err
    return run_it


@pytest.mark.parametrize('environ', [{}, {'GEVENT_CBASE': ''}, {'GEVENT_CBASE': '0'},
                                     {'GEVENT_CBASE': ' 0 '}], ids=str)
def test_inert(run, environ):
    """No module of ours is loaded, and nothing is told."""
    assert run(PROGRAM, **environ) == (INERT, '')


@pytest.mark.parametrize('value', ['1', 'yes', ' ON '])
def test_on(run, value):
    """One line on standard error says so, as the program has no handler for logging."""
    out, err = run(PROGRAM, GEVENT_CBASE=value)
    assert out == ON
    assert re.fullmatch(LINE, err), err


@pytest.mark.parametrize('value', ['off', 'no'])
def test_off(run, value):
    assert run(PROGRAM, GEVENT_CBASE=value) == (OFF, '')


def test_value_that_is_not_known(run):
    """It is read as off, with a warning."""
    out, err = run(PROGRAM, GEVENT_CBASE='perhaps')
    assert out == OFF
    assert err.count('RuntimeWarning: gevent_cbase: GEVENT_CBASE=perhaps is not known') == 1
    assert ' is on: ' not in err


def test_modules_of_the_plugin():
    """It imports nothing but os, which every program has."""
    source = text_of('gevent_cbase_plugin.py')
    assert re.findall(r'^(?:import|from) .*$', source, re.M) == ['import os']
    assert gevent_cbase_plugin.did_patch_all.__module__ == 'gevent_cbase_plugin'


def test_only_patch_all(run):
    """Who patches single modules calls install()."""
    source = PROGRAM.replace('patch_all()', 'patch_socket()')
    assert run(source, GEVENT_CBASE='1') == (['[]', 'gevent.baseserver'], '')


def test_patching_that_is_called_off(run):
    """By another plugin, or a subscriber."""
    source = '''
    import gevent.events
    def refuse(event):
        if isinstance(event, gevent.events.GeventWillPatchAllEvent):
            raise gevent.events.DoNotPatch
    gevent.events.subscribers.append(refuse)
    ''' .replace('\n    ', '\n') + PROGRAM
    assert run(source, GEVENT_CBASE='1') == (['[]', 'gevent.baseserver'], '')


def test_patched_twice(run):
    """The line comes once."""
    source = ("from gevent import monkey\nmonkey.patch_all(subprocess=False)\n"
              "import warnings\nwarnings.simplefilter('ignore')\n" + PROGRAM)
    out, err = run(source, GEVENT_CBASE='1')
    assert out == ON
    assert re.fullmatch(LINE, err), err


def test_two_installations_on_the_path(run):
    """gevent calls the plugin once."""
    source = '''\
import gevent_cbase_plugin
gevent_cbase_plugin.did_patch_all = lambda event: print(type(event).__name__)
from gevent import monkey
monkey.patch_all()
'''
    assert run(source, folders=('one', 'two'), GEVENT_CBASE='1') == (
        ['GeventDidPatchAllEvent'], '')


def test_where_it_cannot_work(run):
    """The program runs on gevent's class, and a warning tells why."""
    source = "import gevent\ngevent.__version__ = '24.11.1'\n" + PROGRAM
    out, err = run(source, GEVENT_CBASE='1')
    assert out == OFF
    assert ('RuntimeWarning: GEVENT_CBASE has no effect: gevent_cbase %s needs gevent 25.9.1 or '
            'newer, and this is 24.11.1' % gevent_cbase.__version__) in err


def test_what_is_off_and_why(run):
    """Grouped by the reason; modules of gevent that nobody has imported are left alone."""
    source = PROGRAM.replace('import gevent.server', '''
from gevent._hub_local import get_hub_if_exists
print({'gevent.server', 'gevent.baseserver', 'gevent.pool'} & set(sys.modules),
      get_hub_if_exists())
import gevent.server''')
    out, err = run(source, GEVENT_CBASE='1', GEVENT_CBASE_WITHOUT='io,pools',
                   GEVENT_CBASE_DATASTACK='0')
    assert out == [ON[0], 'set() None', ON[1]]
    datastack = ('CPython 3.10 has no data stack' if sys.version_info < (3, 11) else
                 'GEVENT_CBASE_DATASTACK switches it off')
    assert '; off: io, pools (GEVENT_CBASE_WITHOUT switches it off)' in err
    assert 'datastack (%s)' % datastack in err
    assert err.count('\n') == 1


def test_unknown_code_of_gevent_is_told(run):
    """Where it was loaded before, what is compared is told, too."""
    source = '''\
import gevent.pool
gevent.pool.Pool.full = lambda self: False
''' + PROGRAM
    out, err = run(source, GEVENT_CBASE='1')
    assert out == ON
    assert re.search(r'; off: (\w+, )*pools \(.*Pool\.full.*\)', err), err


# Logging of the program

LOGGING = '''\
import logging
logging.basicConfig(level=logging.%s, format='%%(levelname)s %%(name)s %%(message)s')
'''


def test_logged(run):
    """Where the program has a handler the line goes there, once."""
    out, err = run(LOGGING % 'INFO' + PROGRAM, GEVENT_CBASE='1')
    assert out == ON
    assert re.fullmatch('INFO gevent_cbase ' + LINE, err), err


@pytest.mark.parametrize('before', [
    LOGGING % 'WARNING',
    "import logging\nlogging.getLogger('gevent_cbase').setLevel(logging.WARNING)\n",
    LOGGING % 'INFO' + "logging.getLogger('gevent_cbase').setLevel(logging.WARNING)\n",
], ids=['level of all', 'level of ours', 'both'])
def test_not_logged(run, before):
    """Who wants to see warnings only sees nothing."""
    assert run(before + PROGRAM, GEVENT_CBASE='1') == (ON, '')


def test_without_standard_error(run):
    """As a daemon may be."""
    assert run('import sys\nsys.stderr = None\n' + PROGRAM, GEVENT_CBASE='1') == (ON, '')


# Other processes


def test_children_of_multiprocessing(run):
    """A child process started with ``spawn`` imports the program, and patches as it does."""
    source = PROGRAM.replace("import sys\n", "import multiprocessing, sys\n") + '''
if __name__ == '__main__':
    child = multiprocessing.get_context('spawn').Process(target=print, args=('child',))
    child.start()
    child.join()
'''
    out, err = run(source, GEVENT_CBASE='1')
    assert out == [*ON, *ON, 'child']
    assert re.fullmatch(LINE * 2, err), err


def test_runner_of_gevent(tmp_path):
    """``python -m gevent.monkey PROGRAM``."""
    script = tmp_path / 'script.py'
    script.write_text(PROGRAM.replace('monkey.patch_all()', ''))
    done = subprocess.run([sys.executable, '-m', 'gevent.monkey', str(script)], text=True,
                          env=with_metadata(tmp_path / 'metadata', GEVENT_CBASE='1'),
                          capture_output=True, timeout=60)
    assert (done.returncode, done.stdout.splitlines()) == (0, ON), done.stderr
    assert re.fullmatch(LINE, done.stderr), done.stderr
