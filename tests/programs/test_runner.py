"""``python -m gevent_cbase PROGRAM`` runs a program as ``python PROGRAM`` does.

Tests with ``impl`` state what Python does and ask both commands for it; side_by_side() runs one
program both ways and wants the same exit status, standard output and standard error.
"""
import importlib.util
import json
import os
import platform
import py_compile
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
import venv
import zipfile

import gevent
import greenlet
import pytest

import gevent_cbase
from helpers import OURS, PLAIN, child_environ, python, reserved_port, text_of

LIMIT = 60

#: Prints what a program can see of how it was started.
PROBE = '''\
import builtins, json, sys
main = sys.modules['__main__']
print(json.dumps({
    'argv': sys.argv,
    'path': sys.path,
    'name': __name__,
    'file': globals().get('__file__'),
    'cached': [globals().get('__cached__'), __spec__ and __spec__.cached],
    'doc': __doc__,
    'package': __package__,
    'spec': __spec__ and [__spec__.name, __spec__.origin, __spec__.parent,
                          type(__spec__.loader).__name__],
    'loader': getattr(__loader__, '__name__', None) or type(__loader__).__name__,
    'loader is of spec': bool(__spec__) and __loader__ is __spec__.loader,
    'builtins': __builtins__ is builtins,
    'main': vars(main) is globals(),
    'main name': main.__name__,
    'main type': type(main) is type(sys),
    'names': sorted(set(globals()) - {'main', 'builtins', 'json', 'sys'}),
    'filename': sys._getframe().f_code.co_filename,
    'flags': sys.flags,
    'warnoptions': sys.warnoptions,
    'xoptions': sys._xoptions,
    'executable': sys.executable,
    'prefix': sys.prefix,
    'threads': len(sys._current_frames()),
    'exception': str(sys.exc_info()),
}, sort_keys=True))
'''

#: how a program can be started: the arguments of python
WAYS = {
    'script': ['script.py'],
    'absolute': ['{here}/script.py'],
    'folder': ['folder/script.py'],
    'symlink': ['link.py'],
    'module': ['-m', 'module'],
    'package': ['-m', 'package'],
    'submodule': ['-m', 'package.sub'],
    'directory': ['directory'],
    'zip': ['archive.zip'],
    'code': ['-c', '{source}'],
}
every_way = pytest.mark.parametrize('way', WAYS)


def run(impl, *args, executable=sys.executable, options=(), stdin='', stdout=None, **environ):
    """(exit status, stdout, stderr) of one program in the current folder."""
    command = python(impl, *args)
    command[:1] = [executable, *options]
    done = subprocess.run(command, env=child_environ(**environ), input=stdin, text=True,
                          stdout=stdout or subprocess.PIPE, stderr=subprocess.PIPE,
                          timeout=LIMIT)
    return done.returncode, done.stdout, done.stderr


def side_by_side(*args, **kwargs):
    """What run() gives, after it was seen to be the same on plain python and on ours.

    Addresses and times, which reports of failed threads and greenlets have, do not count.
    """
    plain, found = [
        (status, out, re.sub(r'0x[0-9a-f]+|\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ', '*', err))
        for status, out, err in (run(impl, *args, **kwargs) for impl in (PLAIN, OURS))]
    assert found == plain
    return found


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """The current folder: an empty one."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def program(here):
    """``program(source, way)`` writes a program and returns the arguments that start it."""
    def write(source, way='script'):
        for folder in 'folder', 'package', 'directory':
            (here / folder).mkdir()
        (here / 'package' / '__init__.py').write_text('')
        for path in ('script.py', 'folder/script.py', 'module.py', 'package/__main__.py',
                     'package/sub.py', 'directory/__main__.py'):
            (here / path).write_text(source)
        (here / 'link.py').symlink_to('folder/script.py')
        with zipfile.ZipFile(here / 'archive.zip', 'w') as archive:
            archive.writestr('__main__.py', source)
        return [arg.replace('{here}', str(here)).replace('{source}', source)
                for arg in WAYS[way]]
    return write


@pytest.fixture(scope='session')
def isolated(tmp_path_factory):
    """A python that finds gevent and us without PYTHONPATH, as after an installation."""
    folder = tmp_path_factory.mktemp('isolated')
    venv.EnvBuilder(symlinks=True).create(folder)
    site, = folder.glob('lib/python*/site-packages')
    paths = {os.path.dirname(spec.submodule_search_locations[0]) for spec in (
        importlib.util.find_spec(name) for name in ('gevent', 'gevent_cbase'))}
    (site / 'tests.pth').write_text(''.join(
        'import site; site.addsitedir(%r)\n' % path for path in sorted(paths)))
    return str(folder / 'bin' / 'python')


# What the program sees


@every_way
def test_surroundings(impl, program, here, way):
    """sys.argv, sys.path[0] and the globals of ``__main__``, by value."""
    here = str(here)
    name = {'symlink': 'link.py', 'folder': 'folder/script.py', 'module': 'module.py',
            'package': 'package/__main__.py', 'submodule': 'package/sub.py',
            'directory': 'directory', 'zip': 'archive.zip', 'code': '-c',
            'absolute': here + '/script.py', 'script': 'script.py'}[way]
    argv0 = os.path.join(here, name) if '-m' in WAYS[way] else name
    path0 = {'code': '', 'folder': here + '/folder', 'symlink': here + '/folder',
             'directory': here + '/directory', 'zip': here + '/archive.zip'}.get(way, here)
    file = {'directory': here + '/directory/__main__.py', 'code': None,
            'zip': here + '/archive.zip/__main__.py'}.get(way, os.path.join(here, name))
    spec_name = {'module': 'module', 'package': 'package.__main__', 'submodule': 'package.sub',
                 'directory': '__main__', 'zip': '__main__'}.get(way)
    package = {'module': '', 'package': 'package', 'submodule': 'package', 'directory': '',
               'zip': ''}.get(way)
    status, out, err = run(impl, *program(PROBE, way), '-x', '--help', '', '--', 'ü')
    assert (status, err) == (0, '')
    found = json.loads(out)
    assert found['argv'] == [argv0, '-x', '--help', '', '--', 'ü']
    assert found['path'][0] == path0
    assert here not in found['path'][1:] and '' not in found['path'][1:]
    assert found['name'] == found['main name'] == '__main__'
    assert found['file'] == file
    assert found['filename'] == (file or '<string>')
    assert found['package'] == package
    assert found['spec'] == (spec_name and [
        spec_name, file, package, 'zipimporter' if way == 'zip' else 'SourceFileLoader'])
    assert found['loader'] == {'code': 'BuiltinImporter', 'zip': 'zipimporter'}.get(
        way, 'SourceFileLoader')
    assert found['builtins'] is found['main'] is found['main type'] is True
    assert found['threads'] == 1 and found['exception'] == '(None, None, None)'


@every_way
def test_surroundings_are_the_same(program, way):
    """All that the probe can see, the whole of sys.path and the names in ``__main__`` included."""
    status, out, err = side_by_side(*program('"""Doc."""\n' + PROBE, way), 'a', '-m', 'b')
    assert (status, err, json.loads(out)['doc']) == (0, '', 'Doc.')


@pytest.mark.parametrize('way', ['script', 'directory', 'code'])
@pytest.mark.parametrize('options', [
    ['-O'], ['-OO'], ['-B'], ['-s'], ['-u'], ['-b'], ['-X', 'utf8'], ['-X', 'dev'],
    ['-X', 'anything=1'], ['-W', 'error'], ['-W', 'ignore', '-W', 'error::UserWarning'],
    ['-E'], ['-I'], *([['-P']] if sys.version_info >= (3, 11) else []),
], ids=' '.join)
def test_options_of_the_interpreter(program, isolated, way, options):
    """Options before ``-m gevent_cbase`` have the effect that they have on the program."""
    source = PROBE + 'print(__debug__)\n'
    status, out, err = side_by_side(*program(source, way), 'x', executable=isolated,
                                    options=options, PYTHONPATH='/nowhere')
    assert (status, err) == (0, '')
    found, debug = out.splitlines()
    assert debug == str(not options[0].startswith('-O'))
    assert ('/nowhere' in json.loads(found)['path']) is (options[0] not in ('-E', '-I'))


if sys.version_info >= (3, 11):
    @pytest.mark.parametrize('way', ['script', 'module', 'code'])
    def test_safe_path(program, isolated, here, way):
        """With PYTHONSAFEPATH nothing is put in front of sys.path."""
        status, out, err = side_by_side(*program(PROBE, way), executable=isolated,
                                        PYTHONSAFEPATH='1', PYTHONPATH=str(here))
        assert (status, err) == (0, '')
        assert json.loads(out)['path'].count(str(here)) == 1


SOURCES = {
    'BOM': b'\xef\xbb\xbfprint("\xc3\xbc" == chr(252))\n',
    'latin-1': b'# coding: latin-1\nprint("\xfc" == chr(252))\n',
    'CRLF': b'if True:\r\n    print("""a\r\nb""" == "a\\nb")\r\n',
    'no newline': b'print(True)',
    'form feed': b'\x0cprint(True)',
    'future': b'from __future__ import annotations\ndef f(a: b): pass\n'
              b'print(f.__annotations__ == {"a": "b"})\n',
    'annotated': b'number: int = 1\nprint(__annotations__ == {"number": int})\n'
                 if sys.version_info < (3, 14) else b'number: int = 1\nprint(number == 1)\n',
    'empty': b'',
}


@pytest.mark.parametrize('kind', SOURCES)
def test_kinds_of_source(impl, here, kind):
    """Encodings, line ends and what the compiler takes over from nobody."""
    (here / 'script').write_bytes(SOURCES[kind])
    assert run(impl, 'script') == (0, 'True\n' if SOURCES[kind] else '', '')


@pytest.mark.parametrize('args', [
    ['./folder/script.py'], ['folder/../folder/script.py'], ['folder//script.py'],
    ['../{name}/script.py'], ['./directory'], ['directory/'], ['./archive.zip'],
    ['script.pyc'],
], ids=' '.join)
def test_spellings_of_a_path(program, here, args):
    """And a file that is no source."""
    program(PROBE)
    py_compile.compile('script.py', 'script.pyc')
    args = [arg.format(name=here.name) for arg in args]
    status, out, err = side_by_side(*args)
    assert (status, err) == (0, '') and json.loads(out)['argv'] == args


def test_script_from_a_pipe(impl):
    """As shells make one for ``python <(command)``."""
    assert run(impl, '/dev/stdin', stdin='print(6 * 7)') == (0, '42\n', '')


def test_program_from_standard_input(impl):
    """``python -``: what it sees, arguments included."""
    status, out, err = run(impl, '-', '-x', 'ü', '--', stdin=PROBE)
    assert (status, err) == (0, '')
    found = json.loads(out)
    assert found['argv'] == ['-', '-x', 'ü', '--']
    assert found['path'][0] == ''
    assert (found['file'], found['filename'], found['spec']) == ('<stdin>', '<stdin>', None)


@pytest.mark.parametrize('source', [
    '"""Doc."""\n' + PROBE, 'print(1)\n1 / 0\n', 'raise SystemExit(3)', 'raise KeyboardInterrupt',
    'print(1 +', '', 'import sys; print(repr(sys.stdin.read()))\n',
    'number: int = 1\nprint(number)', 'def f():\n  print(1)\nf()',
], ids=['probe', 'error', 'exit', 'interrupt', 'syntax', 'empty', 'reads', 'annotated',
        'function'])
def test_program_from_standard_input_is_the_same(source):
    """Output, tracebacks, exit status."""
    side_by_side('-', 'a', stdin=source)


@pytest.fixture
def installed_script(tmp_path_factory):
    """The script gevent-cbase, as an installer makes it."""
    module, function = re.search(r'^gevent-cbase = "(.*):(.*)"$', text_of('pyproject.toml'),
                                 re.M).groups()
    path = tmp_path_factory.mktemp('bin') / 'gevent-cbase'
    path.write_text('import sys\nfrom %s import %s\nif __name__ == "__main__":\n'
                    '    sys.exit(%s())\n' % (module, function, function))
    return str(path)


@every_way
@pytest.mark.parametrize('source', [PROBE, '1 / 0', 'raise SystemExit(3)'],
                         ids=['probe', 'error', 'exit'])
def test_installed_script(program, installed_script, way, source):
    """All is as with ``python``."""
    args = program(source, way)
    assert run(PLAIN, installed_script, *args, 'x') == run(PLAIN, *args, 'x')


def test_installed_script_installs(program, installed_script):
    assert run(PLAIN, installed_script, *program(WHOSE)) == (0, 'ours\n', '')
    assert run(PLAIN, installed_script, '--version')[1] == (
        'gevent_cbase %s\n' % gevent_cbase.__version__)
    assert run(PLAIN, installed_script) == (
        2, '', 'gevent_cbase: no program to run; see --help\n')


def test_modules_beside_the_script_can_be_imported(impl, program, here):
    """Those in the current folder cannot, unless it is the same folder."""
    (here / 'folder').mkdir()
    (here / 'folder' / 'beside.py').write_text('name = "beside"')
    (here / 'elsewhere.py').write_text('')
    (here / 'folder' / 'main.py').write_text(
        'import beside\n'
        'try:\n    import elsewhere\nexcept ImportError as ex:\n    print(beside.name, ex)\n')
    assert run(impl, 'folder/main.py') == (0, "beside No module named 'elsewhere'\n", '')


def test_parent_package_sees_dash_m(impl, here):
    """While the parents of a module are imported sys.argv[0] is not yet its file name."""
    (here / 'parent').mkdir()
    (here / 'parent' / '__init__.py').write_text('import sys; print(sys.argv)')
    (here / 'parent' / 'child.py').write_text('from . import sys; print(sys.argv)')
    assert run(impl, '-m', 'parent.child', 'x') == (
        0, "['-m', 'x']\n[%r, 'x']\n" % str(here / 'parent' / 'child.py'), '')


def test_main_module_can_be_used(impl, program):
    """By pickle, inspect, unittest, ``import __main__`` and relative to its globals."""
    source = '''\
import inspect, pickle, unittest
class Thing:
    pass
def number():
    return 42
class Test(unittest.TestCase):
    def test(self):
        import __main__
        self.assertIs(__main__.Thing, Thing)
        self.assertIs(type(pickle.loads(pickle.dumps(Thing()))), Thing)
        self.assertEqual(inspect.getsource(number), 'def number():\\n    return 42\\n')
        self.assertEqual(Thing.__module__, '__main__')
unittest.main(verbosity=0)
'''
    status, out, err = run(impl, *program(source))
    assert (status, out) == (0, '') and 'Ran 1 test' in err and err.endswith('\nOK\n'), err


def test_relative_imports_in_a_package(impl, here):
    """A module run with -m knows its package."""
    (here / 'parent').mkdir()
    (here / 'parent' / '__init__.py').write_text('')
    (here / 'parent' / 'brother.py').write_text('name = "brother"')
    (here / 'parent' / '__main__.py').write_text('from .brother import name; print(name)')
    assert run(impl, '-m', 'parent') == (0, 'brother\n', '')


def test_other_runners(impl, program):
    """Programs of the standard library that run a program in turn."""
    source = '''\
import sys, unittest
def answer():
    return 42
class Test(unittest.TestCase):
    def test(self):
        self.assertEqual(answer(), 42)
if __name__ == '__main__':
    print(sys.argv, answer())
'''
    args = program(source)
    status, out, err = run(impl, '-m', 'unittest', '-v', 'module.Test')
    assert (status, out) == (0, '') and err.endswith('\nOK\n')
    status, out, err = run(impl, '-m', 'cProfile', '-s', 'name', *args, 'x')
    assert (status, err) == (0, '')
    assert out.startswith("['script.py', 'x'] 42\n") and '(answer)' in out
    status, out, err = run(impl, '-m', 'runpy', 'module', 'x')
    assert (status, err) == (0, '') and out.endswith("module.py', 'x'] 42\n")


def test_warnings_of_the_program(program):
    """Shown with the program's file, line and source; DeprecationWarning of ``__main__`` too."""
    source = '''\
import warnings
warnings.warn('mind the gap')
def f():
    warnings.warn('old', DeprecationWarning, 2)
f()
'''
    status, out, err = side_by_side(*program(source))
    assert (status, out) == (0, '')
    assert [line.split(': ', 1)[-1] for line in err.splitlines()] == [
        'UserWarning: mind the gap', "  warnings.warn('mind the gap')",
        'DeprecationWarning: old', '  f()']


# How it ends


@pytest.mark.parametrize('way', ['script', 'module', 'directory', 'code'])
@pytest.mark.parametrize('source, status, err', [
    ('pass', 0, ''),
    ('import sys; sys.exit()', 0, ''),
    ('import sys; sys.exit(0)', 0, ''),
    ('import sys; sys.exit(3)', 3, ''),
    ('import sys; sys.exit(259)', 3, ''),
    ('import sys; sys.exit(-1)', 255, ''),
    ('import sys; sys.exit(True)', 1, ''),
    ('import sys; sys.exit("text")', 1, 'text\n'),
    ('import sys; sys.exit((1, 2))', 1, '(1, 2)\n'),
    ('import os; os._exit(7)', 7, ''),
    ('import os; os.abort()', -signal.SIGABRT, ''),
    ('import os, signal; os.kill(os.getpid(), signal.SIGTERM)', -signal.SIGTERM, ''),
    ('import sys; sys.exit("\\udcff")', 1, '\\udcff\n'),
])
def test_exit_status(impl, program, way, source, status, err):
    """Of a program that ends by itself."""
    assert run(impl, *program(source, way)) == (status, '', err)


@pytest.mark.parametrize('way', ['script', 'module', 'code'])
@pytest.mark.parametrize('raised, status', [
    ('ValueError("no")', 1), ('KeyboardInterrupt', -signal.SIGINT), ('GeneratorExit', 1),
    ('BaseException("no")', 1),
])
def test_exit_status_after_an_uncaught_exception(program, way, raised, status):
    """The traceback is on stderr; KeyboardInterrupt ends the process by SIGINT."""
    found, out, err = side_by_side(*program('print(1)\nraise ' + raised, way))
    assert (found, out) == (status, '1\n')
    assert err.startswith('Traceback (most recent call last):\n')
    assert err.splitlines()[-1] in ('ValueError: no', 'KeyboardInterrupt', 'GeneratorExit',
                                    'BaseException: no')


@pytest.mark.parametrize('number, status', [
    (signal.SIGINT, -signal.SIGINT), (signal.SIGTERM, -signal.SIGTERM),
    (signal.SIGHUP, -signal.SIGHUP)])
@pytest.mark.parametrize('wait', [
    'import time\nwhile True: time.sleep(0.1)', 'import gevent\ngevent.sleep(60)'])
def test_signals(impl, program, wait, number, status):
    """Sent from outside while the program waits, in the system or in gevent's loop."""
    process = subprocess.Popen(python(impl, *program('print(1, flush=True)\n' + wait)),
                               env=child_environ(), text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout.readline() == '1\n'
    process.send_signal(number)
    out, err = process.communicate(timeout=LIMIT)
    assert (process.returncode, out) == (status, '')
    assert ('KeyboardInterrupt' in err) is (number == signal.SIGINT)
    assert 'gevent_cbase' not in err


def test_signal_handlers_are_pythons(program):
    """Nothing but the program sets signal handlers."""
    source = '''\
import signal
for number in sorted(signal.valid_signals()):
    print(int(number), signal.getsignal(number))
'''
    status, out, err = side_by_side(*program(source))
    assert (status, err) == (0, '')
    assert '%d <built-in function default_int_handler>\n' % signal.SIGINT in out


def test_atexit_handlers(impl, program):
    """Run after the program, last one first, while its globals are still there."""
    source = '''\
import atexit, sys
word = 'globals'
atexit.register(lambda: print('first', word))
atexit.register(lambda: print('second', word))
print('main')
sys.exit(5)
'''
    assert run(impl, *program(source)) == (5, 'main\nsecond globals\nfirst globals\n', '')


def test_threads(impl, program):
    """Threads are awaited, daemon threads are not; the main thread is the main thread."""
    source = '''\
import threading, time
word = 'globals'
def late():
    time.sleep(0.2)
    print('late', word, threading.main_thread().is_alive())
threading.Thread(target=late).start()
threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
print(threading.current_thread() is threading.main_thread(), threading.active_count())
'''
    assert run(impl, *program(source)) == (0, 'True 3\nlate globals False\n', '')


def test_exceptions_in_threads_and_at_exit(program):
    """Reported as ever, and without effect on the exit status."""
    source = '''\
import atexit, threading
def fail():
    raise ValueError('in ' + threading.current_thread().name)
thread = threading.Thread(target=fail, name='thread')
thread.start()
thread.join()
class Sour:
    def __del__(self):
        raise ValueError('in __del__')
Sour()
'''
    status, out, err = side_by_side(*program(source))
    assert (status, out) == (0, '')
    assert err.count('ValueError: in thread') == err.count('ValueError: in __del__') == 1


def test_global_objects_die_at_the_end(impl, program):
    """``__del__`` of what the program leaves in its globals runs, after the atexit handlers."""
    source = '''\
import atexit
class Thing:
    def __del__(self, print=print):
        print('gone')
thing = Thing()
atexit.register(print, 'end')
'''
    assert run(impl, *program(source)) == (0, 'end\ngone\n', '')


def test_standard_input(impl, program):
    """Belongs to the program."""
    source = 'import sys\nprint(input("? "))\nprint(ascii(sys.stdin.read()))\n'
    assert run(impl, *program(source), stdin='line\nrest\nü') == (
        0, "? line\n'rest\\n\\xfc'\n", '')


def test_output_that_cannot_be_flushed(program):
    """Exit status 120, as ever."""
    with open('/dev/full', 'wb') as full:
        status, _, err = side_by_side(*program('print(1)'), stdout=full,
                                      PYTHONUNBUFFERED='')
    assert status == 120 and 'No space left' in err


@pytest.mark.parametrize('method', ['spawn', 'forkserver', 'fork'])
@pytest.mark.parametrize('way', ['script', 'folder', 'module', 'submodule'])
def test_multiprocessing(impl, program, way, method):
    """Children find the program's functions, however they are started."""
    source = '''\
import multiprocessing, sys
def square(number):
    return __name__, number * number, sys.argv[1:]
if __name__ == '__main__':
    with multiprocessing.get_context(sys.argv[1]).Pool(1) as pool:
        print(pool.map(square, [2, 3]))
'''
    name = '__main__' if method == 'fork' else '__mp_main__'
    expected = [(name, 4, [method]), (name, 9, [method])]
    status, out, err = run(impl, *program(source, way), method,
                           PYTHONWARNINGS='ignore::DeprecationWarning')
    assert (status, out, err) == (0, '%r\n' % expected, '')


def test_interactive_afterwards(program):
    """``python -i`` goes on in the program's globals."""
    status, out, err = side_by_side(*program('number = 6'), options=['-i', '-q'],
                                    stdin='print(number * 7, __name__)\n')
    assert (status, out) == (0, '42 __main__\n')


#: what a program leaves behind: it tells, when it dies, what it still can see
LEFT = '''\
import gevent, sys
word = 'globals'
class Left:
    def __init__(self, name):
        self.name = name
    def __del__(self):
        print(self.name, word, sys is not None)
one = Left('left')
'''
KEPT = LEFT + '''\
try:
    1 / 0
except ZeroDivisionError as ex:
    kept = ex
'''
IN_GREENLET = LEFT + '''\
def run():
    local = Left('local')
    %s
g = gevent.spawn(run)
'''
SHOWN_LATER = '''\
import atexit, traceback
atexit.register(lambda: traceback.print_exception(type(kept), kept, kept.__traceback__))
try:
    %s
except BaseException as ex:
    kept = ex
    raise
'''

#: programs by what they leave behind, each with its exit status and what it prints:
#: nothing, where python itself leaves without a word to what is left
ENDS = {
    'an object': (LEFT, 0, 'left globals True\n'),
    'an exception': (KEPT, 0, 'left globals True\n'),
    'an exception in sys': (KEPT + 'sys.kept = kept\n', 0, ''),
    'an exception, and a server': (KEPT + '''\
from gevent.server import StreamServer
server = StreamServer(('127.0.0.1', 0), lambda *args: one)
server.start()
''', 0, ''),
    'an exception, and who waits for __main__': (KEPT + '''\
import weakref
sys.kept = weakref.ref(sys.modules['__main__'], lambda _, print=print: print('__main__ is gone'))
''', 0, '__main__ is gone\nleft globals True\n'),
    'an exception, and a file': ('''\
from gevent.socket import socketpair
file = socketpair()[0].makefile('rwb')
try:
    1 / 0
except ZeroDivisionError as ex:
    kept = ex
''', 0, ''),
    'a file': ("from gevent.socket import socketpair\nfile = socketpair()[0].makefile()\n", 0, ''),
    'a frame': (LEFT + 'frame = sys._getframe()\n', 0, 'left globals True\n'),
    'a frame in sys': (LEFT + 'sys.kept = sys._getframe()\n', 0, ''),
    'a generator': (KEPT + '''\
def run():
    try:
        yield
    finally:
        print('finally', word)
generator = run()
next(generator)
''', 0, 'left globals True\nfinally globals\n'),
    'a greenlet that waits': (IN_GREENLET % 'gevent.sleep(60)' + 'gevent.sleep(0)\n', 0, ''),
    'a greenlet that has failed': (IN_GREENLET % '1 / 0' + 'g.join()\n', 0, ''),
    'a greenlet that has exited': (IN_GREENLET % 'sys.exit(5)' + 'g.join()\n', 5, ''),
    'a greenlet that has exited and is asked': (
        IN_GREENLET % 'sys.exit(5)' + 'g.get()\n', 5, ''),
    'a thread': (LEFT + '''\
import threading
event = threading.Event()
threading.Thread(target=lambda: (event.wait(), print('thread', word))).start()
event.set()
''', 0, 'thread globals\nleft globals True\n'),
    'a finalizer': (LEFT + '''\
import weakref
weakref.finalize(one, lambda: print('finalized', word))
''', 0, 'finalized globals\nleft globals True\n'),
    'an exit': (KEPT + 'sys.exit(3)\n', 3, 'left globals True\n'),
    'an exit, kept': (SHOWN_LATER % 'raise SystemExit(3)', 3, ''),
    'an exit with its own code': ('''\
class Exit(SystemExit):
    @property
    def code(self):
        return 4
raise Exit(3)
''', 4, ''),
    'an error': (LEFT + '''\
def run():
    local = Left('local')
    1 / 0
run()
''', 1, 'local globals True\nleft globals True\n'),
    'an error, kept': (SHOWN_LATER % '1 / 0', 1, ''),
    'an error that its hook keeps': (LEFT + '''\
kept = []
sys.excepthook = lambda *args: kept.append(args)
1 / 0
''', 1, ''),
    'an interrupt': (LEFT + 'raise KeyboardInterrupt\n', -signal.SIGINT, 'left globals True\n'),
}


@pytest.mark.parametrize('way', ['script', 'code', 'module'])
@pytest.mark.parametrize('what', ENDS)
def test_what_is_left_behind(program, way, what):
    """Dies as with python, at the same time: ``__main__`` and its names are there or not."""
    source, *expected = ENDS[what]
    status, out, err = side_by_side(*program(source, way))
    assert [status, out] == expected
    assert 'gevent_cbase' not in err and 'Exception ignored' not in err


def test_file_of_a_script_at_its_end(impl, program):
    """python takes ``__file__`` away when a script has ended."""
    source = """\
import atexit
atexit.register(lambda: print([name in globals() for name in ('__name__', '__file__')]))
"""
    assert run(impl, *program(source)) == (0, '[True, False]\n', '')


@pytest.mark.parametrize('compiled', [True, False])
@pytest.mark.parametrize('what', [
    'an exception, and who waits for __main__', 'a greenlet that has exited', 'an error, kept'])
def test_what_is_left_behind_by_other_programs(program, what, compiled):
    """A script that was compiled before, or a folder with a ``__main__``."""
    source, *expected = ENDS[what]
    args = program(source, 'directory')
    if compiled:
        args = [py_compile.compile('script.py', 'script.pyc')]
    assert list(side_by_side(*args)[:2]) == expected


@pytest.mark.parametrize('what', [
    'an exception, and a server', 'a greenlet that has exited and is asked',
    'an error that its hook keeps'])
def test_what_is_left_behind_switched_off(program, what):
    """With GEVENT_CBASE=0 just so."""
    source, *expected = ENDS[what]
    assert list(side_by_side(*program(source), GEVENT_CBASE='0')[:2]) == expected


@pytest.mark.parametrize('way', ['script', 'module', 'code'])
@pytest.mark.parametrize('source', ['1 / 0', 'raise SystemExit(3)', 'raise KeyboardInterrupt'])
def test_interactive_after_an_exception(program, way, source):
    """Which is shown once, and can be looked at; the status is that of the session."""
    status, out, err = side_by_side(
        *program(source, way), options=['-i', '-q'],
        stdin='import sys\nprint(repr(sys.last_value), sys.last_traceback is None)\n')
    interrupted = sys.version_info >= (3, 14) and 'KeyboardInterrupt' in source
    assert status == (-signal.SIGINT if interrupted else 0)
    assert out.endswith(') False\n') and err.count('Traceback') == 1


@pytest.mark.parametrize('source', ['1 / 0', 'raise SystemExit(3)', 'pass'])
def test_to_be_inspected_without_a_terminal(program, source):
    """With PYTHONINSPECT there is no session, and the status is that of the program."""
    status, out, err = side_by_side(*program(source), PYTHONINSPECT='1')
    assert (status, out) == (0 if source == 'pass' else 1, '')


# What cannot be run


@pytest.mark.parametrize('args, status, message', [
    (['missing.py'], 2, "can't open file '{here}/missing.py': [Errno 2]"),
    (['nowhere/missing.py', '--help'], 2, "can't open file '{here}/nowhere/missing.py': [Err"),
    ([''], 1, "can't find '__main__' module in '{here}"),
    (['empty'], 1, "can't find '__main__' module in '{here}/empty'"),
    (['-m', 'missing'], 1, 'No module named missing'),
    (['-m', 'missing.module'], 1, 'Error while finding module specification'),
    (['-m', 'plain'], 1, "No module named plain.__main__; 'plain' is a package and cannot be"),
    (['-m', 'plain.missing'], 1, 'No module named plain.missing'),
    (['-m', '.plain'], 1, 'Relative module names not supported'),
    (['-m', 'sys'], 1, 'No code object available for sys'),
    (['-m', 'broken'], 1, "ZeroDivisionError: division by zero"),
    (['-m', 'broken.module'], 1, "ZeroDivisionError: division by zero"),
    (['-c', '1 +'], 1, 'SyntaxError: invalid syntax'),
    (['-c', 'print("\udcff")'], 1, 'Unable to decode the command from the command line:'),
    (['latin'], 1, "SyntaxError: "),
    (['cookie'], 1, 'SyntaxError: '),
    (['null'], 1, 'SyntaxError: '),
])
def test_what_cannot_be_run(here, args, status, message):
    """Python's own message and exit status."""
    (here / 'empty').mkdir()
    (here / 'latin').write_bytes(b'print(1)\nprint("\xfc")\n')
    (here / 'cookie').write_bytes(b'# coding: nonsense\nprint(1)\n')
    (here / 'null').write_bytes(b'print(1)\nprint("\0")\n')
    for folder, source in (('plain', ''), ('broken', '1 / 0')):
        (here / folder).mkdir()
        (here / folder / '__init__.py').write_text(source)
        (here / folder / 'module.py').write_text('')
    found, out, err = side_by_side(*args)
    assert (found, out) == (status, '')
    assert message.format(here=here) in err


# Tracebacks


FAILURES = {
    'plain': ('''\
def inner(number):
    return 1 / number
def outer():
    inner(0)
outer()
''', 'ZeroDivisionError: division by zero'),
    'cause': ('''\
try:
    [][0]
except IndexError as ex:
    raise ValueError('second') from ex
''', 'ValueError: second'),
    'context': ('''\
def f():
    try:
        {}['key']
    finally:
        raise TypeError('second')
f()
''', 'TypeError: second'),
    'suppressed': ('''\
try:
    {}['key']
except KeyError:
    raise TypeError('second') from None
''', 'TypeError: second'),
    'import': ('import no_such_module\n', "ModuleNotFoundError: No module named 'no_such_module'"),
    'syntax': ('x = 1\nif x\n    pass\n', "SyntaxError: expected ':'"),
    'indentation': ('if 1:\npass\n',
                    "IndentationError: expected an indented block after 'if' statement on line 1"),
    'evaluated': ('eval("1 +")\n', 'SyntaxError: invalid syntax'),
    'in the library': ('import json\njson.loads("[")\n',
                       'json.decoder.JSONDecodeError: Expecting value: line 1 column 2 (char 1)'),
    'callback': ('''\
import functools
class Failure(Exception):
    pass
def fail(a, b):
    raise Failure(f'{a} {b}')
functools.reduce(fail, [1, 2, 3])
''', 'Failure: 1 2' if sys.version_info >= (3, 11) else '__main__.Failure: 1 2'),
    'own traceback': ('''\
try:
    1 / 0
except ZeroDivisionError as ex:
    raise ex.with_traceback(None)
''', 'ZeroDivisionError: division by zero'),
    'multiline': ('''\
def f(*args):
    raise KeyError(
        'a',
        *args)
f(
    1,
    2,
)
''', "KeyError: ('a', 1, 2)"),
    'exit after exception': ('''\
try:
    1 / 0
except ZeroDivisionError:
    raise SystemExit('text')
''', 'text'),
    'tracebacklimit': ('import sys\nsys.tracebacklimit = 1\ndef f():\n    1 / 0\nf()\n',
                       'ZeroDivisionError: division by zero'),
    'in gevent': ('''\
import gevent
def f():
    1 / 0
gevent.spawn(f).get()
''', 'ZeroDivisionError: division by zero'),
}
if sys.version_info >= (3, 11):
    FAILURES['group'] = ('''\
try:
    1 / 0
except ZeroDivisionError as ex:
    error = ExceptionGroup('two', [ex, ValueError('other')])
    error.add_note('a note')
    raise error
''', '    +------------------------------------')


@pytest.mark.parametrize('way, kind', [
    (way, kind) for way in WAYS for kind in FAILURES
    if way in ('script', 'module') or kind in ('plain', 'context', 'syntax', 'in the library')])
def test_tracebacks(program, way, kind):
    """Line by line what python prints, without a trace of us."""
    source, last = FAILURES[kind]
    args = program(source, way)
    status, out, err = side_by_side(*args)
    assert (status, out) == (1, '')
    assert err.splitlines()[-1] == last
    assert 'gevent_cbase' not in err


@pytest.mark.parametrize('way', ['script', 'module', 'code', 'zip'])
def test_excepthook_of_the_program(program, way):
    """Is called once, with the traceback that it would get from python."""
    source = '''\
import atexit, sys, traceback
def hook(kind, value, tb):
    print(kind.__name__, value, value.__traceback__ is tb)
    for frame, line in traceback.walk_tb(tb):
        print(frame.f_code.co_name, line)
    print(value.__context__, value.__cause__)
sys.excepthook = hook
def f():
    1 / 0
atexit.register(lambda: print(sys.last_value, sys.last_traceback is not None))
f()
'''
    status, out, err = side_by_side(*program(source, way))
    assert (status, err) == (1, '')
    lines = out.splitlines()
    assert lines[0] == 'ZeroDivisionError division by zero True'
    assert lines[-4:-1] == ['<module> 11', 'f 9', 'None None']


def test_excepthook_that_fails(program):
    """Both exceptions are printed."""
    source = '''\
import sys
def hook(*args):
    {}['hook']
sys.excepthook = hook
1 / 0
'''
    status, out, err = side_by_side(*program(source))
    assert (status, out) == (1, '')
    assert err.startswith('Error in sys.excepthook:\n')
    assert err.endswith('ZeroDivisionError: division by zero\n')


@pytest.mark.parametrize('way', ['script', 'module'])
def test_without_an_excepthook(program, way):
    """The interpreter says so, once."""
    status, out, err = side_by_side(*program('import sys\ndel sys.excepthook\n1 / 0\n', way))
    assert (status, out) == (1, '')
    assert err.startswith('sys.excepthook is missing')
    assert err.count('Traceback') == 1


def test_excepthook_that_exits(impl, program):
    """Its exit status counts."""
    source = 'import sys\nsys.excepthook = lambda *args: sys.exit(9)\n1 / 0\n'
    assert run(impl, *program(source)) == (9, '', '')


def test_keyboard_interrupt_goes_through_the_excepthook(impl, program):
    """And still ends the process by SIGINT."""
    source = '''\
import sys
sys.excepthook = lambda kind, value, tb: print(kind.__name__)
raise KeyboardInterrupt
'''
    assert run(impl, *program(source)) == (-signal.SIGINT, 'KeyboardInterrupt\n', '')


# Our command line


def ours(*args, **kwargs):
    return run(OURS, *args, **kwargs)


@pytest.mark.parametrize('args, argv', [
    (['--', 'script.py', 'x'], ['script.py', 'x']),
    (['script.py', '--', 'x'], ['script.py', '--', 'x']),
    (['script.py', '--info', '--help', '-m', 'module'],
     ['script.py', '--info', '--help', '-m', 'module']),
    (['-m', 'module', '--info', '-c', 'pass'], ['{here}/module.py', '--info', '-c', 'pass']),
    (['-m', 'module', '--', 'x'], ['{here}/module.py', '--', 'x']),
    (['-mmodule', '-h'], ['{here}/module.py', '-h']),
    (['-c', 'import sys; print(sys.argv)', '--help'], ['-c', '--help']),
    (['-c', 'import sys; print(sys.argv)', '-m', 'module', '--'], ['-c', '-m', 'module', '--']),
    (['-cimport sys; print(sys.argv)', '-c', 'x'], ['-c', '-c', 'x']),
])
def test_options_of_the_program(impl, program, here, args, argv):
    """What follows the program is the program's; what precedes it is read as python reads it."""
    program('import sys; print(sys.argv)\n')
    argv = [arg.format(here=here) for arg in argv]
    assert run(impl, *args) == (0, '%r\n' % argv, '')


@pytest.mark.parametrize('option', ['--help', '-h'])
def test_help(option):
    """Exit status 0, the usage on standard output."""
    status, out, err = ours(option)
    assert (status, err) == (0, '')
    assert 'python -m gevent_cbase' in out
    for part in '-m MODULE', '-c CODE', 'SCRIPT', '--info', '--version', '--help', 'GEVENT_CBASE':
        assert part in out


@pytest.mark.parametrize('option', ['--version', '-V'])
def test_version(option):
    status, out, err = ours(option)
    assert (status, err) == (0, '')
    assert out == 'gevent_cbase %s\n' % gevent_cbase.__version__


OF_PYTHON = '; options of python come before -m gevent_cbase'


@pytest.mark.parametrize('args, told', [
    ([], 'no program to run'), (['--'], 'no program to run'),
    (['--nonsense'], 'unknown option: --nonsense'),
    (['-x', 'script.py'], 'unknown option: -x' + OF_PYTHON),
    (['-Xdev', 'script.py'], 'unknown option: -Xdev' + OF_PYTHON),
    (['-u', '-m', 'module'], 'unknown option: -u' + OF_PYTHON),
    (['-m'], '-m needs an argument'), (['-c'], '-c needs an argument'),
    (['--info', 'extra'], '--info takes no argument: extra'),
    (['--version', 'extra'], '--version takes no argument: extra'),
    (['--help', 'extra'], '--help takes no argument: extra'),
    (['-h', '--info'], '-h takes no argument: --info'),
], ids=lambda arg: ' '.join(arg) if isinstance(arg, list) else '')
def test_usage_errors(program, args, told):
    """Exit status 2, one line on standard error."""
    program('print("not run")')
    assert ours(*args) == (2, '', 'gevent_cbase: %s; see --help\n' % told)


@pytest.mark.parametrize('switch', ['1', '0', None])
def test_info(switch):
    """The versions, whether the drop-in is installed, and the loop."""
    environ = {} if switch is None else {'GEVENT_CBASE': switch}
    status, out, err = ours('--info', **environ)
    assert (status, err) == (0, '')
    version = subprocess.check_output(
        [sys.executable, '-c', 'import gevent_cbase; print(gevent_cbase.__version__)'],
        env=child_environ(), text=True).strip()
    for name, number in (('CPython', platform.python_version()), ('gevent', gevent.__version__),
                         ('greenlet', greenlet.__version__), ('gevent_cbase', version)):
        assert re.search(r'(?m)^%s\W+%s\b' % (name, re.escape(number)), out), out
    off = 'no: GEVENT_CBASE switches it off'
    assert re.search(r'(?m)^installed +%s$' % (off if switch == '0' else 'yes'), out), out
    paths = re.findall(r'(?m)^  (\w+) +(.*)$', out.partition('\nfast paths\n')[2])
    assert [name for name, _ in paths] == [
        'lookups', 'sockets', 'watchers', 'closing', 'io', 'pools', 'greenlets', 'datastack']
    assert {told == 'off: GEVENT_CBASE switches it off' for _, told in paths} == {switch == '0'}
    loop = type(gevent.get_hub().loop).__module__
    assert re.search(r'(?m)^loop\W.*%s' % re.escape(loop), out), out


@pytest.mark.parametrize('loop, why', [
    ('nonsense', "ImportError: Cannot import 'nonsense'. "),
    ('nonsense.loop', "ModuleNotFoundError: No module named 'nonsense'"),
    ('os.sep', "AttributeError: 'str' object has no attribute '__module__'")])
def test_info_without_a_loop(loop, why):
    """One line says what is wrong."""
    status, out, err = ours('--info', GEVENT_LOOP=loop)
    assert (status, out) == (1, '')
    assert err.startswith('gevent_cbase: gevent cannot load its event loop: ' + why)
    assert err.count('\n') == 1


#: prints whose server classes the program has
WHOSE = '''\
import sys
from gevent import baseserver, pywsgi, server
base = server.StreamServer.__mro__[1]
assert pywsgi.WSGIServer.__mro__[1:3] == (server.StreamServer, base)
assert server.DatagramServer.__mro__[1] is baseserver.BaseServer is base
print('gevent' if base.__module__ == 'gevent.baseserver' else 'ours')
'''


@every_way
def test_drop_in_is_installed(impl, program, way):
    """For the program, whichever way it is started."""
    expected = 'gevent\n' if impl.stock else 'ours\n'
    assert run(impl, *program(WHOSE, way)) == (0, expected, '')


@pytest.mark.parametrize('way', ['script', 'module', 'code'])
def test_switched_off_by_the_environment(program, way):
    """With GEVENT_CBASE=0 the program runs all the same, on gevent's class."""
    assert ours(*program(WHOSE, way), GEVENT_CBASE='0') == (0, 'gevent\n', '')
    assert ours(*WAYS[way] if way != 'code' else ['-c', WHOSE], GEVENT_CBASE='1') == (
        0, 'ours\n', '')


def test_programs_that_patch(impl, program):
    """monkey.patch_all() at the start of a program finds nothing that came before it."""
    source = '''\
from gevent import monkey
monkey.patch_all()
import queue, socket, ssl, threading, time
import gevent
from gevent.server import StreamServer
order = []
def slow():
    time.sleep(0.05)
    order.append('slow')
def quick():
    order.append('quick')
threads = [threading.Thread(target=target) for target in (slow, quick)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(order, issubclass(ssl.SSLContext, gevent.ssl.SSLContext))
def handle(sock, address):
    time.sleep(0.01)
    sock.sendall(b'hello')
with StreamServer(('127.0.0.1', 0), handle) as server:
    server.start()
    with socket.create_connection(server.address) as client:
        print(client.recv(10))
print(isinstance(threading.current_thread(), threading._MainThread), len(threading.enumerate()))
'''
    assert run(impl, *program(source)) == (
        0, "['quick', 'slow'] True\nb'hello'\nTrue 1\n", '')


def test_gevents_own_runner_inside_ours(impl, program):
    """``-m gevent.monkey script`` patches and runs a script; the drop-in stays installed."""
    args = program(WHOSE + 'import socket\nprint(socket.socket.__module__, sys.argv)\n')
    whose = 'gevent' if impl.stock else 'ours'
    assert run(impl, '-m', 'gevent.monkey', *args, 'x') == (
        0, "%s\ngevent._socket3 ['script.py', 'x']\n" % whose, '')


def test_inside_itself(program):
    """Running the runner with the runner changes nothing."""
    args = program(WHOSE + 'print(sys.argv)')
    assert ours('-m', 'gevent_cbase', *args, 'x') == (0, "ours\n['script.py', 'x']\n", '')


@pytest.fixture
def port():
    with reserved_port() as number:
        yield number


def test_serving_wsgi_from_the_command_line(impl, port):
    """gevent.pywsgi run as a program serves the standard library's demo application."""
    process = subprocess.Popen(
        python(impl, '-m', 'gevent.pywsgi', 'wsgiref.simple_server:demo_app',
               '-b', '127.0.0.1:%d' % port),
        env=child_environ(), text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        end = time.monotonic() + LIMIT
        while True:
            try:
                socket.create_connection(('127.0.0.1', port)).close()
                break
            except ConnectionRefusedError:
                assert process.poll() is None and time.monotonic() < end
                time.sleep(0.02)
        for _ in range(3):
            with urllib.request.urlopen('http://127.0.0.1:%d/' % port, timeout=LIMIT) as answer:
                assert answer.status == 200
                assert answer.readline() == b'Hello world!\n'
                assert b"\nSERVER_PORT = '%d'\n" % port in answer.read()
            # nothing but one line of the access log for each request
            assert re.fullmatch(
                r'127\.0\.0\.1 - - \[.*\] "GET / HTTP/1\.1" 200 \d+ [\d.]+\n',
                process.stderr.readline())
        process.send_signal(signal.SIGTERM)
        assert process.communicate(timeout=LIMIT) == ('', '')
        assert process.returncode == -signal.SIGTERM
    finally:
        process.kill()
