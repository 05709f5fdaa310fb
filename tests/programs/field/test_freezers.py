"""Programs that are frozen, compiled or in an archive: they serve, with the same fast paths."""
import compileall
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import sysconfig

import pytest

from helpers import child_environ

#: the program; its argument tells whether it installs, or prints what --info does
PROGRAM = '''
import json
import os
import sys


def main():
    sys.addaudithook(lambda *args: None)
    if sys.argv[1] != 'gevent':
        import gevent_cbase
        gevent_cbase.install()
    if sys.argv[1] == 'info':
        from gevent_cbase import _info
        print(*_info.lines(), sep='\\n')
        return
    import gevent
    from gevent import baseserver, server, socket
    source = os.path.splitext(server.__file__)[0] + '.py'
    print('source text' if os.path.exists(source) else 'code')

    def handle(sock, address):
        sock.sendall(type(gevent.getcurrent()).__name__.encode())
        sock.close()

    spawns = {'default': 'default', 'raw': gevent.spawn_raw, 'pool': 2, 'hub': None}
    for name, spawn in spawns.items():
        one = server.StreamServer(('127.0.0.1', 0), handle, spawn=spawn)
        one.start()
        with socket.create_connection(one.address) as client:
            print(name, b''.join(iter(lambda: client.recv(100), b'')).decode())
        if baseserver.BaseServer.__module__ != 'gevent.baseserver':
            paths = gevent_cbase.stats(one).fast_paths
            print(json.dumps({path: reason for path, reason in paths.items() if reason}))
        gevent.spawn_raw(one.stop)  # a greenlet that begins in C
        gevent.sleep(0.01)
        assert one.closed, 'not stopped'


if __name__ == '__main__':
    main()
'''
SERVED = ['default Greenlet', 'raw TrackedRawGreenlet', 'pool Greenlet', 'hub Hub']
#: what is off, of each server
NO_STACK = {} if sys.version_info >= (3, 11) else {'datastack': 'CPython 3.10 has no data stack'}
NO_POOL = {'pools': 'there is no pool', **NO_STACK}
IN_HUB = {'greenlets': 'handlers run in the hub', **NO_POOL}
WITHOUT_ALL = dict.fromkeys(['lookups', 'sockets', 'watchers', 'closing', 'io', 'pools',
                             'greenlets', 'datastack'], 'GEVENT_CBASE_WITHOUT switches it off')

#: what the program imports
PACKAGES = ['gevent', 'greenlet', 'zope', 'gevent_cbase']


def imported(name):
    """The folder of a package."""
    return importlib.util.find_spec(name).submodule_search_locations[0]


def tool(name):
    return os.path.join(sysconfig.get_path('scripts'), name)


def call(command, folder):
    """Run what makes a program."""
    done = subprocess.run(command, cwd=folder, env=child_environ(), stdin=subprocess.DEVNULL,
                          text=True, capture_output=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr


def copied(folder):
    """A folder with all that the program needs."""
    for name in PACKAGES:
        shutil.copytree(imported(name), os.path.join(folder, name), ignore=shutil.ignore_patterns(
            '__pycache__', 'tests', '*.c', '*.pyx', '*.h', 'bench'))
    shutil.copy(os.path.join(folder, '..', 'program.py'), folder)
    return folder


def plain(folder, *options):
    return [sys.executable, *options, 'program.py'], True


def optimized(folder):
    return plain(folder, '-O')


def without_docstrings(folder):
    return plain(folder, '-OO')


def compiled(folder):
    """No .py file is left."""
    tree = copied(os.path.join(folder, 'tree'))
    assert compileall.compile_dir(tree, quiet=1, legacy=True)
    for place, _, names in os.walk(tree):
        for name in names:
            if name.endswith('.py'):
                os.remove(os.path.join(place, name))
    return [*ALONE, sys.executable, os.path.join(tree, 'program.pyc')], False


def pyinstaller(folder, option):
    call([tool('pyinstaller'), '--noconfirm', '--log-level', 'ERROR', option,
          '--paths', os.path.dirname(imported('gevent_cbase')), 'program.py'], folder)
    program = os.path.join(folder, 'dist', 'program')
    return [*ALONE, os.path.join(program, 'program') if option == '--onedir' else program], False


def onedir(folder):
    return pyinstaller(folder, '--onedir')


def onefile(folder):
    return pyinstaller(folder, '--onefile')


def shiv(folder):
    call([tool('shiv'), '--site-packages', copied(os.path.join(folder, 'tree')),
          '--output-file', 'program.pyz', '--entry-point', 'program:main'], folder)
    return [*ALONE, sys.executable, 'program.pyz'], True


#: with nothing but what it brings
ALONE = ['env', '-u', 'PYTHONPATH']
FORMS = [plain, optimized, without_docstrings, compiled, onedir, onefile, shiv]
pytestmark = pytest.mark.no_deadline  # a build takes a minute


@pytest.fixture(scope='module', params=FORMS, ids=lambda form: form.__name__)
def frozen(request, tmp_path_factory):
    """A folder, the command that runs the program there, and whether there is source text."""
    folder = str(tmp_path_factory.mktemp(request.param.__name__))
    with open(os.path.join(folder, 'program.py'), 'w', encoding='utf-8') as file:
        file.write(PROGRAM)
    return folder, *request.param(folder)


def run(frozen, argument, **environ):
    """The lines that the program prints, which must end well."""
    folder, command, source = frozen
    done = subprocess.run(
        [*command, argument], cwd=folder, text=True,
        env=child_environ(SHIV_ROOT=os.path.join(folder, 'shiv'), **environ),
        stdin=subprocess.DEVNULL, capture_output=True, timeout=100)
    assert (done.returncode, done.stderr) == (0, ''), done.stderr + done.stdout
    return done.stdout.split('\n')[:-1]


def printed(frozen, side, **environ):
    """What the program prints of its servers: lines, and the dicts."""
    first, *lines = run(frozen, 'gevent' if side.stock else 'cbase', **environ)
    assert first == ('source text' if frozen[2] else 'code')
    return ([line for line in lines if line[0] != '{'],
            [json.loads(line) for line in lines if line[0] == '{'])


@pytest.mark.parametrize('without', [None, 'all'], ids=['nothing', 'all'])
def test_info(frozen, without):
    lines = run(frozen, 'info', GEVENT_CBASE_WITHOUT=without)
    off = {**WITHOUT_ALL, **NO_STACK} if without else NO_STACK
    assert lines[lines.index('fast paths') + 1:] == [
        '  %-20s %s' % (name, 'off: ' + off[name] if name in off else 'on')
        for name in WITHOUT_ALL]


def test_all_fast_paths(frozen, side):
    assert printed(frozen, side) == (
        SERVED, [] if side.stock else [NO_POOL, NO_POOL, NO_STACK, IN_HUB])


def test_without_fast_paths(frozen, side):
    lines, off = printed(frozen, side, GEVENT_CBASE_WITHOUT='all')
    assert lines == SERVED
    if not side.stock:
        assert [set(one) for one in off] == [set(WITHOUT_ALL)] * 4
        assert off[2] == {**WITHOUT_ALL, **NO_STACK}


def test_switched_off(frozen, side):
    assert printed(frozen, side, GEVENT_CBASE='0') == (SERVED, [])
