"""The storeys of the C code: a lower one never reaches up, in includes and in what is linked."""
import os
import re
import subprocess
import sysconfig

import pytest

from helpers import ROOT, c_sources

SRC = os.path.join(ROOT, 'src')

#: what the files of a folder may include, besides headers of the system
MAY_INCLUDE = {
    'python': r'python/\w+\.h',
    'native': r'native/\w+\.h|state\.h',
    'server': r'server/server\.h|native/native\.h',
}
#: and those on the ground; module.c may know everybody
GROUND = {
    'module.c': r'ground\.h|server/server\.h',
    'state.h': r'names\.h|python/python\.h',
    'names.h': r'(?!)',
}
#: whose symbols the objects of a folder may need
MAY_NEED = {
    'python': {'python'},
    'native': {'python', 'native'},
    'server': {'python', 'native', 'server'},
    'datastack.c': {'python'},
    'run.c': {'python'},
    'module.c': {'python', 'native', 'server', 'datastack.c', 'run.c'},
}
#: what leads to the state of the module, which CPython's storey does not know
STATE = {'PyModule_GetState', 'PyType_GetModuleState', 'PyState_FindModule'}


def storey(path):
    """The folder of a file, or on the ground its name."""
    return path.partition('/')[0]


def forbidden_includes(path, text):
    """The headers of ours that a file must not include."""
    allowed = MAY_INCLUDE.get(storey(path)) or GROUND.get(path, r'ground\.h|python/python\.h')
    return [name for name in re.findall(r'^\s*#\s*include\s+"(.*?)"', text, re.M)
            if not re.fullmatch(allowed, name)]


def symbols(path):
    """What an object file defines for others, and what it needs of them."""
    defined, needed = set(), set()
    for line in subprocess.check_output(['nm', '-g', path], text=True).splitlines():
        *_, kind, name = line.split()
        (needed if kind == 'U' else defined).add(name)
    return defined, needed


def reaching_up(objects):
    """(file, symbol, file that has it) of those who need what is above them, or the state."""
    owner = {name: path for path, (defined, _) in objects.items() for name in defined}
    return [(path, name, owner.get(name, 'CPython'))
            for path, (_, needed) in objects.items() for name in sorted(needed)
            if name in owner and storey(owner[name]) not in MAY_NEED[storey(path)]
            or storey(path) == 'python' and name in STATE]


def misnamed(objects):
    """(file, symbol) of those that do not begin with the name of the file."""
    found = []
    for path, (defined, _) in objects.items():
        stem = os.path.basename(path)[:-2]
        prefix = 'cbase_' + (stem[:-1] if stem.endswith('s') else stem)
        found += [(path, name) for name in defined if not name.startswith(prefix)]
    return found


def circle(objects):
    """The files on a way that leads back to where it began, or none."""
    owner = {name: path for path, (defined, _) in objects.items() for name in defined}
    ways = {path: {owner[name] for name in needed if name in owner} - {path}
            for path, (_, needed) in objects.items()}
    while True:
        ends = {path for path, others in ways.items() if not others}
        if not ends:
            return sorted(ways)
        ways = {path: others - ends for path, others in ways.items() if path not in ends}


def compiled(files, folder):
    """The object files of C sources, {name: path}, as symbols()."""
    compiler = sysconfig.get_config_var('CC').split()
    include = ['-I' + SRC, '-I' + sysconfig.get_path('include')]
    running, objects = [], {}
    for name, path in files.items():
        target = os.path.join(folder, name.replace('/', '+') + '.o')
        running.append((name, target, subprocess.Popen(
            [*compiler, '-std=c11', '-w', '-O0', '-fPIC', *include, '-c', path, '-o', target])))
    for name, target, process in running:
        assert process.wait() == 0, name
        objects[name] = symbols(target)
    return objects


@pytest.fixture(scope='module')
def objects(tmp_path_factory):
    files = {name: os.path.join(SRC, name) for name, _ in c_sources('*.c')}
    return compiled(files, str(tmp_path_factory.mktemp('objects')))


def test_includes():
    found = {path: forbidden_includes(path, text) for path, text in c_sources()}
    assert len(found) > 30
    assert {path: names for path, names in found.items() if names} == {}


@pytest.mark.parametrize('path, line, found', [
    ('python/memo.c', '#include "state.h"', ['state.h']),
    ('python/memo.c', '#include "native/native.h"', ['native/native.h']),
    ('native/hub.c', '#include "server/server.h"', ['server/server.h']),
    ('server/pool.c', '#include "native/socket.h"', ['native/socket.h']),
    ('run.c', '#  include "state.h"', ['state.h']),
    ('state.h', '#include "native/native.h"', ['native/native.h']),
    ('server/pool.c', '#include <sys/socket.h>', []),
    ('server/pool.c', '#include "server/server.h"', []),
])
def test_planted_includes(path, line, found):
    assert forbidden_includes(path, '/* Pools. */\n%s\nint x;\n' % line) == found


def test_symbols(objects):
    assert sum(len(defined) for defined, _ in objects.values()) > 80
    assert reaching_up(objects) == []


@pytest.mark.parametrize('path, call, found', [
    ('python/planted.c', 'cbase_hub_drop(0)', 'native/hub.c'),
    ('python/planted.c', 'cbase_hooks_drop(0)', 'server/hooks.c'),
    ('native/planted.c', 'cbase_hooks_drop(0)', 'server/hooks.c'),
    ('run.c', 'cbase_hub_drop(0)', 'native/hub.c'),
    ('python/planted.c', 'PyModule_GetState(0)', 'CPython'),
    ('server/planted.c', 'cbase_hub_drop(0)', None),
])
def test_planted_calls(objects, tmp_path, path, call, found):
    source = tmp_path / 'planted.c'
    name = call.partition('(')[0]
    source.write_text('void %s(void *);\nvoid cbase_planted(void) { %s; }\n' % (name, call))
    planted = {**objects, **compiled({path: str(source)}, str(tmp_path))}
    assert reaching_up(planted) == ([(path, name, found)] if found else [])


def test_names(objects):
    """A function or variable that others see bears the name of its file."""
    assert misnamed(objects) == [('module.c', 'PyInit__cbase')]
    assert misnamed({'native/hub.c': ({'cbase_hook_get'}, set())})


def test_no_circles(objects):
    assert circle({name: of for name, of in objects.items() if name != 'module.c'}) == []
    assert circle({'a.c': ({'a'}, {'b'}), 'b.c': ({'b'}, {'a'}), 'c.c': ({'c'}, {'a'}),
                   'd.c': ({'d'}, set())}) == ['a.c', 'b.c', 'c.c']


def test_first_comments():
    """Each file says what it is for; each source, also what it does not know."""
    for path, text in c_sources():
        comment = re.match(r'/\*(.*?)\*/', text, re.S)
        assert comment, path
        if path.endswith('.c') and path != 'module.c':
            limit = r'does[\s*]+not[\s*]+know|knows[\s*]+n(either|o)'
            assert re.search(limit, comment[1], re.I), path


def test_cautions():
    """Who leans on what nobody promises names the test that watches it."""
    found = [(path, comment) for path, text in c_sources()
             for comment in re.findall(r'/\*.*?\*/', text, re.S) if 'CAUTION' in comment]
    assert len(found) >= 10
    for path, comment in found:
        assert re.search(r'[Ww]atched\s.*\btest_', comment, re.S), (path, comment)
