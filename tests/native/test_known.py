"""What is known of gevent's releases, and the command that tells where the installed one differs.
"""
import ast
import re
import subprocess
import sys

import gevent
import gevent.pool
import gevent.server  # noqa: F401 (has to be there for the native steps)
import pytest
from gevent import _socket3, hub

from gevent_cbase import _patches
from gevent_cbase._native import (
    differences,
    digests,
    greenlets,
    known,
    pools,
    premises,
    socket_io,
    sockets,
    tls,
)
from helpers import child_environ

STEPS = sockets, socket_io, pools, greenlets, tls, _patches
PARTS = [name for step in STEPS for name in step.PARTS]


def found():
    """All differences, each as text."""
    return list(differences.differences())


def entry(text):
    """What one of them has to be pasted into known.py."""
    _, _, pasted = text.partition('\n\n')
    assert pasted.startswith("    ") and pasted.endswith(',\n')
    return ast.literal_eval('{%s}' % pasted)


def known_code():
    """What is known of this CPython."""
    return known.CODE[digests.VERSION]


def another(self, cancel_wait_ex=None):
    """For some method of gevent."""


class Another(_socket3._wrefsocket):
    """For the class of sockets inside those of gevent."""

    __slots__ = ()


def command(before='', *options):
    """(exit status, stdout) of the command, for what gevent is after *before*."""
    code = 'import runpy\nimport gevent\nimport gevent_cbase\n%s\n' \
        'runpy.run_module("gevent_cbase._native.differences", run_name="__main__")\n' % before
    done = subprocess.run([sys.executable, *options, '-c', code], env=child_environ(), text=True,
                          capture_output=True, timeout=60)
    assert done.stderr == ''
    return done.returncode, done.stdout


# What is known


@pytest.mark.parametrize('version', known.CODE)
def test_each_part_has_a_digest(version):
    """And each digest is that of a part."""
    code = known.CODE[version]
    assert len(set(PARTS)) == len(PARTS) and sorted(code) == sorted(PARTS)
    for digest in ' '.join(code.values()).split(' '):
        assert re.fullmatch('[0-9a-f]{32}', digest)


def test_all_pythons_are_known():
    assert sorted(known.CODE) == ['3.%d' % minor for minor in range(10, 16)]


def test_what_is_known_is_of_a_part():
    for table in known.DEFAULTS, known.CELLS:
        assert list(table) and set(table) <= set(PARTS)


def test_nothing_is_known_elsewhere():
    """No digest in any other file of the package."""
    for step in (*STEPS, premises, differences, digests):
        with open(step.__file__, encoding='utf-8') as file:
            assert not re.search('[0-9a-f]{32}', file.read())


@pytest.mark.parametrize('version, newer', [
    ('25.9.1', False), ('26.9.0', False), ('26.9.3', False), ('26.10.0.dev0', True),
    ('26.10.0a1', True), ('27.1', True)])
@pytest.mark.fast_path('sockets', 'watchers', 'greenlets')
def test_compiled_code_that_nobody_has_read(monkeypatch, version, newer):
    """Is not leaned on."""
    monkeypatch.setattr(gevent, '__version__', version)
    monkeypatch.setattr(known, 'NEWEST', dict.fromkeys(known.NEWEST, '26.9'))
    assert (sockets.why_watchers_off() == 'gevent may close them in another way') is newer
    assert (greenlets.why_off() == 'gevent may make them in another way') is newer


@pytest.mark.fast_path('sockets', 'pools', 'greenlets')
def test_python_that_is_not_known(monkeypatch):
    """All that is compared stays off, and the command tells what to put into known.py."""
    code = known_code()
    monkeypatch.delitem(known.CODE, digests.VERSION)
    monkeypatch.setattr(premises, '_known_codes', set())
    for step, name in ((sockets, 'StreamServer.do_read'), (pools, 'Pool.full'),
                       (greenlets, 'Config.track_greenlet_tree')):
        assert step.why_off() == 'gevent has another %s' % name
    text, = found()
    assert text.startswith('CODE: CPython %s is not known\n' % digests.VERSION)
    assert entry(text) == {digests.VERSION: code}
    monkeypatch.undo()
    assert [step.why_off() for step in (sockets, pools, greenlets)] == [None] * 3


def test_snapshot():
    """Each thing is looked up once, whoever binds its name anew."""
    snapshot = premises.Snapshot()
    assert snapshot['gevent.pool:Pool.full'] is gevent.pool.Pool.full
    assert snapshot['gevent.pool'] is gevent.pool
    assert snapshot['gevent:config.settings.loop'] is gevent.config.settings['loop']
    pool, gevent.pool.Pool = gevent.pool.Pool, None
    try:
        assert snapshot['gevent.pool:Pool.add'] is pool.add
    finally:
        gevent.pool.Pool = pool
    for path, error in (('gevent.pool:Pool.nothing', AttributeError),
                        ('gevent:config.settings.nothing', KeyError),
                        ('gevent.nothing:Pool', ImportError)):
        with pytest.raises(error):
            snapshot[path]


# What a digest is of

SOURCE = '''
def f(self, *args, timeout=None):
    """Documented."""
    for arg in args:
        try:
            if arg in (1, 'two', (3.0, None)):
                return lambda: self.name or timeout
        except ValueError:
            continue
    return other(self)
'''


def code_of(source, name='f', filename='one.py', optimize=0):
    """The code object of the function that a source defines."""
    namespace = {}
    exec(compile(source, filename, 'exec', optimize=optimize), namespace)
    return namespace[name].__code__


@pytest.mark.parametrize('source, options', [
    (SOURCE, {'filename': 'two.py'}), ('\n\n\n' + SOURCE, {}), (SOURCE, {'optimize': 2}),
    (SOURCE.replace('Documented', 'Otherwise'), {}), (SOURCE.replace('"""Documented."""', ''), {}),
    (SOURCE.replace('    try', '    # what follows\n        try'), {})],
    ids=['file', 'line', '-OO', 'docstring', 'no docstring', 'comment'])
def test_what_does_not_count(source, options):
    assert digests.digest(code_of(source, **options)) == digests.digest(code_of(SOURCE))


def test_name_does_not_count():
    digest = digests.digest(code_of('def f(): return 1'))
    assert digest == digests.digest(code_of('def g(): return 1', 'g'))


@pytest.mark.parametrize('old, new', [
    ('1,', '2,'), ("'two'", "b'two'"), ('3.0', '3'), ('1,', 'True,'), ('None))', '()))'),
    ('in (', 'not in ('), ('return other', 'return another'), ('self.name', 'self.names'),
    ('continue', 'break'), ('ValueError', 'TypeError'), ('or timeout', 'and timeout'),
    ('*args,', '*args, more=1,'), ('self, *', 'self, /, *'), ('*args, t', 'args, *, t'),
    ('    return other', '        return other'), ('for arg', 'note(); arg = 1\n    for arg'),
    ('for arg', 'for age'), ('return lambda: self', 'return lambda: (self)')])
def test_what_counts(old, new):
    assert SOURCE.count(old) == 1 or old == '1,'
    changed = digests.digest(code_of(SOURCE.replace(old, new, 1)))
    assert (changed == digests.digest(code_of(SOURCE))) is ('(self)' in new)


def test_slices():
    """They are constants since 3.14."""
    one, same, other = (digests.digest(code_of('def f(a):\n    return a[%s]' % part))
                        for part in ('1:', '1:', '2:'))
    assert one == same != other


def test_constant_that_no_compiler_makes():
    """Nothing else has the digest of that code."""
    code = code_of(SOURCE)
    seen = {digests.digest(code)}
    for value in object(), [], type('text', (str,), {})('two'):
        constants = tuple(value if one == 1 else one for one in code.co_consts)
        nested = tuple((value,) if type(one) is tuple else one for one in code.co_consts)
        for changed in constants, nested:
            seen.add(digests.digest(code.replace(co_consts=changed)))
    assert len(seen) >= 4


def test_code_that_was_run_often():
    """The interpreter changes it in place."""
    code = code_of(SOURCE)
    before = digests.digest(code)
    namespace = {}
    exec(SOURCE, namespace)
    function = namespace['f']
    namespace['other'] = str
    for _ in range(5000):
        assert function(4, 5, 6) == '4'
    assert digests.digest(function.__code__) == before


def test_global_names():
    """Those of functions that it makes are among them; attributes are not."""
    code = code_of('''
def f():
    a.b = c(d.e)
    global g
    g = 1
    def h():
        return i, c
    return [j for k in l]
''')
    assert digests.global_names(code) == ('a', 'c', 'd', 'i', 'j', 'l')


def test_many_names():
    """Whose numbers need more than a byte, and so do those of constants and jumps."""
    body = ''.join('    if n%d > %d.5:\n        m%d()\n' % (i, i, i) for i in range(300))
    one = code_of('def f():\n' + body)
    assert set(digests.global_names(one)) == {'%s%d' % (n, i) for n in 'mn' for i in range(300)}
    other = code_of('def f():\n    """Documented."""\n' + body)
    assert digests.digest(one) == digests.digest(other)
    assert digests.digest(one) != digests.digest(code_of('def f():\n' + body.replace('9.5', '9')))


# What differs


def test_installed_gevent():
    """There is nothing that is not known."""
    assert found() == []


def test_command_for_the_installed_gevent():
    """As CONTRIBUTING has it, word for word."""
    done = subprocess.run([sys.executable, '-m', 'gevent_cbase._native.differences'],
                          env=child_environ(), text=True, capture_output=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, '')
    first, rest = done.stdout.split('\n', 1)
    assert first.startswith('gevent %s, greenlet ' % gevent.__version__)
    assert rest == '\nNo difference: all of it is known.\n'


@pytest.mark.parametrize('option', ['-O', '-OO'])
def test_without_docstrings(option):
    """The code is the same."""
    status, out = command('', option)
    assert status == 0 and out.endswith('\nNo difference: all of it is known.\n')


def test_changed_function(monkeypatch):
    """Where it is, and its entry for known.py with the new digest behind the old one."""
    monkeypatch.setattr(_socket3.socket, '_detach_socket', another)
    text, = found()
    code = another.__code__
    where = '%s, line %d' % (__file__, code.co_firstlineno)
    assert text.startswith(
        'sockets: gevent has another socket._detach_socket: %s\nRead the change. ' % where)
    assert entry(text) == {'socket._detach_socket': known_code()['socket._detach_socket']
                           + ' ' + digests.digest(code)}


@pytest.mark.fast_path('pools')
def test_pasted_digest(monkeypatch):
    """The difference has gone, and the fast path is on again."""
    def free_count(self):
        """For Pool.free_count."""
        return 1 if self.size is None else max(0, self.size - len(self))
    function = type(free_count)(free_count.__code__, vars(gevent.pool))
    monkeypatch.setattr(gevent.pool.Pool, 'free_count', function)
    assert pools.why_off() == 'gevent has another Pool.free_count'
    text, = found()
    monkeypatch.setitem(known_code(), 'Pool.free_count', entry(text)['Pool.free_count'])
    assert found() == []
    assert pools.why_off() is None
    monkeypatch.undo()
    assert found() == [] and pools.why_off() is None


def test_part_that_was_not_known_at_all(monkeypatch):
    digest = known_code()['Pool.full']
    monkeypatch.setattr(premises, '_known_codes', set())
    monkeypatch.delitem(known_code(), 'Pool.full')
    text, = found()
    assert entry(text) == {'Pool.full': digest}


def test_third_digest(monkeypatch):
    """It is put behind both."""
    monkeypatch.setattr(premises, '_known_codes', set())
    monkeypatch.setitem(known_code(), 'Pool.full', 'one two')
    text, = found()
    assert re.fullmatch('one two [0-9a-f]{32}', entry(text)['Pool.full'])


def test_changed_class(monkeypatch):
    """What a part reads of it has to be CPython's, or a part."""
    monkeypatch.setattr(_socket3, '_wrefsocket', Another)
    monkeypatch.setattr(Another, '__setattr__', another)
    monkeypatch.setattr(Another, 'proto', 17, raising=False)
    assert found() == ['sockets: %s\nThe step has to be changed.' % why for why in (
        'gevent has another Another.__setattr__', 'gevent has another Another.proto',
        'gevent makes other sockets')]


def test_missing_part(monkeypatch):
    monkeypatch.delattr(_socket3.socket, '_detach_socket')
    assert found() == [
        'sockets: gevent has no socket._detach_socket: AttributeError: type object '
        "'socket' has no attribute '_detach_socket'\nThe step has to be changed."]


def test_missing_class(monkeypatch):
    """All of its parts are told, and the others are compared all the same."""
    monkeypatch.delattr(_socket3, '_closedsocket')
    monkeypatch.setattr(_socket3.socket, '_real_close', another)
    assert [text.split(': ')[1] for text in found()] == [
        'gevent has no _closedsocket.__init__', 'gevent has no _closedsocket.__bool__',
        'gevent has another socket._real_close',
        'gevent has another _closedsocket in socket._detach_socket\nThe step has to be changed.',
        'the classes of gevent cannot be compared']


def test_part_in_c(monkeypatch):
    """There is no code to compare."""
    monkeypatch.setattr(gevent.pool.Pool, 'full', len)
    assert found() == ['pools: gevent has another Pool.full\nThe step has to be changed.']


def test_gevent_is_newer(monkeypatch):
    """Than the newest whose compiled code was read, for each fast path that leans on it."""
    monkeypatch.setattr(gevent, '__version__', '99.11.2rc1')
    texts = found()
    for text, path in zip(texts, known.NEWEST, strict=True):
        assert text.startswith('NEWEST: gevent 99.11.2rc1 is newer than %s, the last one read for '
                               '%s\nRead what known.py names' % (known.NEWEST[path], path))
        assert entry(text) == {path: '99.11'}
    for text in texts:
        monkeypatch.setattr(known, 'NEWEST', {**known.NEWEST, **entry(text)})
    assert found() == []


@pytest.mark.parametrize('step, module, cls, name', [
    ('sockets', _socket3, 'socket', '__setattr__'),
    ('pools', gevent.pool, 'Pool', '__getattribute__'),
    ('greenlets', gevent._config, 'Config', '__getattribute__')])
def test_changed_class_of_another_kind(monkeypatch, step, module, cls, name):
    """There is no digest of what is not known."""
    monkeypatch.setattr(getattr(module, cls), name, getattr(Wraps, name))
    assert found() == ['%s: gevent has another %s.%s\nThe step has to be changed.' % (
        step, cls, name)]


class Wraps:
    """Special methods that are not those of object."""

    def __setattr__(self, *args):
        return object.__setattr__(self, *args)

    def __getattribute__(self, *args):
        return object.__getattribute__(self, *args)


def test_watchers_are_closed_in_another_way(monkeypatch):
    monkeypatch.setattr(hub.Hub, 'cancel_waits_close_and_then', another)
    assert found() == ["NEWEST['watchers']: gevent has another Hub.cancel_waits_close_and_then\n"
                       'The step has to be changed.']


def test_several_at_once():
    """Of all steps, and all of one step; the exit status says so."""
    status, out = command('''
import gevent.pool, gevent._config, gevent._socket3
gevent.__version__ = '99.11'
gevent.pool.Pool.full = gevent.pool.Pool.free_count
gevent.pool.Pool.add = gevent.pool.Group.add
del gevent._socket3._closedsocket.__bool__
gevent._socket3.socket._real_close = gevent._socket3.socket.close
gevent._config.Setting.get = gevent._config.Setting.set
''')
    assert status == 1
    assert out.startswith('gevent 99.11, greenlet ')
    assert re.findall(r'^([a-zA-Z]+: gevent .*?)(?:: .*|, the .*)?$', out, re.M) == [
        'sockets: gevent has no _closedsocket.__bool__',
        'sockets: gevent has another socket._real_close',
        'pools: gevent has another Pool.full',
        'pools: gevent has another Pool.add',
        'greenlets: gevent has another Setting.get',
        *['NEWEST: gevent 99.11 is newer than ' + read for read in known.NEWEST.values()]]


def test_one_difference():
    status, out = command('import gevent.pool\ngevent.pool.Pool.full = gevent.pool.Pool.start')
    assert status == 1 and out.endswith('\n\n1 difference\n')
