"""What an installer, a linker and a type checker see of the package.

That an sdist and a wheel are built, checked and installed is nox's session ``packaging``.
"""
import importlib
import os
import re
import shutil
import subprocess
import sys
import sysconfig

import pytest

import gevent_cbase
from gevent_cbase import _cbase, _requirements
from helpers import ROOT, child_environ, text_of

HERE = os.path.dirname(os.path.abspath(__file__))
PACKAGE = os.path.dirname(gevent_cbase.__file__)
LIMIT = 300


def run(*args, cwd=None, **environ):
    """(exit status, stdout, stderr) of a Python that can import the package."""
    done = subprocess.run([sys.executable, *args], cwd=cwd, env=child_environ(**environ),
                          text=True, capture_output=True, timeout=LIMIT)
    return done.returncode, done.stdout, done.stderr


# The extension module


def symbols(which):
    out = subprocess.run(['nm', '-D', '-P', which, _cbase.__file__], text=True, check=True,
                         stdout=subprocess.PIPE, timeout=LIMIT).stdout
    return {line.split()[0].partition('@')[0] for line in out.splitlines()}


def test_exports():
    """Nothing but what the interpreter needs to load it."""
    assert symbols('--defined-only') == {'PyInit__cbase'}


def test_no_private_symbols():
    """What begins with an underscore is what public names of CPython's headers stand for.

    All are in the stable ABI, but for two that an inline function of 3.10's headers calls.
    _PyBytes_Resize() is a documented function, underscore or not.
    """
    private = {name for name in symbols('--undefined-only') if name.startswith('_Py')}
    assert '_Py_NoneStruct' in private
    private -= {'_Py_Dealloc', '_Py_NoneStruct', '_Py_TrueStruct', '_Py_FalseStruct',
                '_PyBytes_Resize'}
    if sys.version_info < (3, 13):  # PY_SSIZE_T_CLEAN
        private -= {'_PyArg_ParseTuple_SizeT', '_PyArg_ParseTupleAndKeywords_SizeT',
                    '_PyObject_CallFunction_SizeT', '_PyObject_CallMethod_SizeT',
                    '_Py_BuildValue_SizeT'}
    if sys.version_info < (3, 11):  # PyObject_Vectorcall()
        private -= {'_PyObject_MakeTpCall', '_Py_CheckFunctionResult'}
    assert private == set()


# Types


def mypy(tmp_path, *args):
    return run('-m', *args, cwd=tmp_path, MYPY_CACHE_DIR=str(tmp_path / 'cache'))


def test_stubs_describe_the_running_modules(tmp_path):
    """mypy's stubtest finds no public name missing, too many or of another signature."""
    configuration = os.path.join(ROOT, 'pyproject.toml')
    status, out, err = mypy(tmp_path, 'mypy.stubtest', '--mypy-config-file', configuration,
                            'gevent_cbase')
    assert (status, err) == (0, ''), out + err
    assert re.fullmatch(r'Success: no issues found in \d+ modules\n', out)


def test_stubs_stand_the_strictest_check(tmp_path):
    stubs = [os.path.join(PACKAGE, name) for name in os.listdir(PACKAGE) if name.endswith('.pyi')]
    configuration = os.path.join(ROOT, 'pyproject.toml')
    status, out, err = mypy(tmp_path, 'mypy', '--config-file', configuration, *stubs)
    assert (status, err) == (0, ''), out + err


def test_types_in_a_program(tmp_path):
    """A strict check has nothing against proper use, and finds each mistake.

    nox's session ``packaging`` has pyright do the same, with and without types-gevent.
    """
    status, out, err = run(os.path.join(HERE, 'typed', 'check.py'), 'mypy', cwd=tmp_path,
                           MYPY_CACHE_DIR=str(tmp_path / 'cache'))
    assert (status, out, err) == (0, 'mypy: 20 of 20 mistakes found, 0 more\n', '')


# Entry points


@pytest.mark.parametrize('section, names', [
    ('scripts', ['gevent-cbase']),
    ('entry-points."gevent.plugins.monkey.did_patch_all"', ['gevent_cbase'])])
def test_entry_points(section, names):
    """What an installer writes into the metadata is there."""
    lines = text_of('pyproject.toml').partition('\n[project.%s]\n' % section)[2].partition('\n\n')
    found = re.findall(r'^([\w-]+) = "([\w.]+):(\w+)"$', lines[0], re.M)
    assert [name for name, _, _ in found] == names
    for _, module, function in found:
        assert callable(getattr(importlib.import_module(module), function))


def test_modules_that_are_packed():
    """Packages, and the module of the plugin."""
    text = text_of('pyproject.toml')
    assert 'py-modules = ["gevent_cbase_plugin"]\n' in text
    packages = re.search(r'^packages = \[(.*)\]$', text, re.M)[1].replace('"', '').split(', ')
    there = [os.path.relpath(folder, ROOT).replace(os.sep, '.')
             for folder, _, files in os.walk(PACKAGE) if '__init__.py' in files]
    assert sorted(packages) == sorted(there)


# Errors that say what is missing


def importing(before):
    """The last line that importing the package leaves on stderr, after *before* has run."""
    status, out, err = run('-c', 'import sys, types\n%s\nimport gevent_cbase\n' % before)
    assert (status, out) == (1, '')
    return err.splitlines()[-1].replace(gevent_cbase.__version__, 'VERSION')


NOT_BUILT = (
    'ImportError: gevent_cbase VERSION in %%s is not built for this Python (%s): pip install it '
    'with this one. If that is its source tree, which hides what was installed elsewhere, run '
    'this there: python -m pip install -e .' % sys.implementation.cache_tag)
FAKE = '''
module = sys.modules[%r] = types.ModuleType(%r)
module.__version__ = %r
'''


@pytest.mark.parametrize('found', ['25.9.0', '24.11.1', '25.9', '1.5a4'])
def test_old_gevent(found):
    assert importing(FAKE % ('gevent', 'gevent', found)) == (
        'ImportError: gevent_cbase VERSION needs gevent 25.9.1 or newer, and this is %s: '
        "pip install -U 'gevent>=25.9.1'" % found)


def test_old_greenlet():
    before = FAKE % ('gevent', 'gevent', '25.9.1') + FAKE % ('greenlet', 'greenlet', '3.2.1')
    assert importing(before) == (
        'ImportError: gevent_cbase VERSION needs greenlet 3.2.2 or newer, and this is 3.2.1: '
        "pip install -U 'greenlet>=3.2.2'")


@pytest.mark.parametrize('version, numbers', [
    ('25.9.1', [25, 9, 1]), ('26.9.0.dev0', [26, 9, 0]), ('26.10.1rc2', [26, 10, 1]),
    ('26.9.0.post1', [26, 9, 0]), ('', []), ('unknown', [])])
def test_versions(version, numbers):
    assert _requirements.numbers(version) == numbers


def test_no_gevent():
    before = '''
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == 'gevent':
            raise ImportError('libsomething.so.1 is not there')
sys.meta_path.insert(0, Finder())
'''
    assert importing(before) == (
        'ImportError: gevent_cbase VERSION needs gevent 25.9.1 or newer, and importing it fails: '
        'libsomething.so.1 is not there')


def test_another_python():
    assert importing('sys.implementation.name = "pypy"') == (
        'ImportError: gevent_cbase VERSION is an extension of CPython; on pypy use gevent itself')


def test_extension_not_built():
    before = '''
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == 'gevent_cbase._cbase':
            raise ModuleNotFoundError('No module named %r' % name, name=name)
sys.meta_path.insert(0, Finder())
'''
    assert importing(before) == NOT_BUILT % os.path.dirname(PACKAGE)


def test_checkout_hides_what_is_installed(tmp_path):
    """Whoever starts Python in a fresh clone is told that it is the clone that was imported."""
    tree = tmp_path / 'tree'
    shutil.copytree(PACKAGE, tree / 'gevent_cbase', ignore=shutil.ignore_patterns('*.so', '*.pyc'))
    path = os.path.dirname(PACKAGE), sysconfig.get_path('purelib'), sysconfig.get_path('platlib')
    # without .pth files: what is installed with -e would find the extension
    status, out, err = run('-S', '-m', 'gevent_cbase', '--info', cwd=tree,
                           PYTHONPATH=os.pathsep.join(path))
    assert (status, out) == (1, '')
    assert NOT_BUILT % tree in err.replace(gevent_cbase.__version__, 'VERSION')


# Recipes


def tree(folder):
    """{path: bytes} of the files below a folder."""
    found = {}
    for where, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(where, name)
            if '__pycache__' not in path:
                with open(path, 'rb') as file:
                    found[os.path.relpath(path, folder)] = file.read()
    return found


@pytest.fixture(params=['tree', 'wheel'])
def recipes(request, tmp_path):
    """``recipes(*args)`` runs ``gevent_cbase.recipes``: of the tree, and of what a wheel has."""
    command = ['-m', 'gevent_cbase.recipes']
    if request.param == 'wheel':
        done = run('setup.py', '-q', 'build_py', '--build-lib', str(tmp_path / 'lib'), cwd=ROOT)
        assert done[0] == 0, done[2]
        package = tmp_path / 'lib' / 'gevent_cbase'
        assert tree(package / '_recipes') == tree(os.path.join(ROOT, 'recipes'))
        command = [str(package / 'recipes.py')]
    return lambda *args: run(*command, *args, cwd=tmp_path)


def test_list_of_recipes(recipes):
    """Each with what it is for."""
    status, out, err = recipes()
    assert (status, err) == (0, '')
    listed = dict(line.split(maxsplit=1) for line in out.splitlines())
    assert listed.keys() == tree(os.path.join(ROOT, 'recipes')).keys()
    assert listed['prefork.py'] == 'Several processes that accept from one listening socket.'
    assert listed['deploy/nginx.conf'].startswith('nginx in front of ')


def test_show_recipes(recipes):
    there = tree(os.path.join(ROOT, 'recipes'))
    assert recipes('tls.py') == (0, there['tls.py'].decode(), '')
    assert recipes('deploy/app.py', 'tls.py') == (
        0, (there['deploy/app.py'] + there['tls.py']).decode(), '')


def test_copy_recipes(recipes, tmp_path):
    """One, a folder of them, or all; nothing is copied if a file is there already."""
    there = tree(os.path.join(ROOT, 'recipes'))
    deploy = {os.path.basename(name): text for name, text in there.items() if '/' in name}
    target = tmp_path / 'target'
    assert recipes('--copy', 'target', 'deploy/app.py') == (0, 'target/app.py\n', '')
    assert tree(target) == {'app.py': deploy['app.py']}
    assert recipes('--copy', 'target', 'deploy') == (
        1, '', 'gevent_cbase.recipes: target/app.py is there already\n')
    assert tree(target) == {'app.py': deploy['app.py']}
    status, out, err = recipes('--copy', 'other', 'deploy/')
    assert (status, err, len(out.splitlines())) == (0, '', len(deploy))
    assert tree(tmp_path / 'other') == deploy
    assert recipes('--copy', 'all')[0] == 0
    assert tree(tmp_path / 'all').keys() == {os.path.basename(name) for name in there}


def test_no_such_recipe(recipes):
    assert recipes('deplo') == (1, '', 'gevent_cbase.recipes: there is no recipe deplo\n')


# The same when it is built


def test_long_description():
    """README, but for the chart: a package index has no file for a relative path."""
    status, out, err = run('setup.py', '-q', '--long-description', cwd=ROOT)
    assert (status, err) == (0, '')
    with open(os.path.join(ROOT, 'README.rst'), encoding='utf-8') as file:
        before, chart, after = file.read().partition('.. image:: docs/numbers.svg\n')
    assert chart
    assert '.. image::' not in out and ':alt:' not in out
    assert out.rstrip() == before + (
        'The chart of these numbers is ``docs/numbers.svg`` in the source distribution.\n'
    ) + re.sub(r'\A(?: +.*\n)+', '', after).rstrip()


def building(tmp_path, before='', **environ):
    """(exit status, last line of stderr) of setup.py, run after *before*."""
    folders = ['--build-lib', str(tmp_path / 'lib'), '--build-temp', str(tmp_path / 'temp')]
    code = 'import os, runpy, sys\n%s\nsys.argv[0] = "setup.py"\nrunpy.run_path("setup.py")\n'
    status, _, err = run('-c', code % before, '-q', 'build_ext', *folders, cwd=ROOT, **environ)
    return status, err.splitlines()[-1]


def test_no_compiler(tmp_path):
    status, err = building(tmp_path, CC='/nowhere/cc')
    assert status == 1
    assert err == (
        "gevent_cbase is written in C, and the C compiler '/nowhere/cc' is not there. Install "
        'one (Debian: apt install gcc; Fedora: dnf install gcc; Alpine: apk add gcc musl-dev), '
        'or name yours in CC.')


def test_no_headers(tmp_path):
    before = '''
exists = os.path.exists
os.path.exists = lambda path: not str(path).endswith('Python.h') and exists(path)
'''
    status, err = building(tmp_path, before)
    assert status == 1
    assert err == (
        'gevent_cbase is written in C, and the header Python.h of CPython %d.%d is not there. '
        'Install it (Debian: apt install python3-dev; Fedora: dnf install python3-devel; '
        'Alpine: apk add python3-dev).' % sys.version_info[:2])


def test_build_on_another_python(tmp_path):
    status, err = building(tmp_path, 'import setuptools\nsys.implementation.name = "pypy"')
    assert status == 1
    assert err == 'gevent_cbase is an extension of CPython; on pypy use gevent itself.'


def test_build_without_the_gil(tmp_path):
    before = "import setuptools, sysconfig\nsysconfig.get_config_vars()['Py_GIL_DISABLED'] = 1"
    status, err = building(tmp_path, before)
    assert status == 1
    assert err == (
        'gevent_cbase relies on the GIL; on a free-threaded CPython use gevent itself.')
