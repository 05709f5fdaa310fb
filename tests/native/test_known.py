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

from gevent_cbase._native import differences, greenlets, known, pools, premises, sockets
from helpers import child_environ

STEPS = [(sockets, known.SOCKETS), (pools, known.POOLS), (greenlets, known.GREENLETS)]


def found():
    """All differences, each as text."""
    return list(differences.differences())


def entry(text):
    """What one of them has to be pasted into known.py."""
    _, _, pasted = text.partition('\n\n')
    assert pasted.startswith("    '") and pasted.endswith(',\n')
    return ast.literal_eval('{%s}' % pasted)


def another(self, cancel_wait_ex=None):
    """For some method of gevent."""


class Another(_socket3._wrefsocket):
    """For the class of sockets inside those of gevent."""

    __slots__ = ()


def command(before=''):
    """(exit status, stdout) of the command, for what gevent is after *before*."""
    code = 'import runpy\nimport gevent\nimport gevent_cbase\n%s\n' \
        'runpy.run_module("gevent_cbase._native.differences", run_name="__main__")\n' % before
    done = subprocess.run([sys.executable, '-c', code], env=child_environ(), text=True,
                          capture_output=True, timeout=60)
    assert done.stderr == ''
    return done.returncode, done.stdout


# What is known


@pytest.mark.parametrize('step, digests', STEPS)
def test_each_part_has_a_digest(step, digests):
    """And each digest is that of a part."""
    assert list(digests) and sorted(digests) == sorted(step.PARTS)
    for digest in ' '.join(digests.values()).split(' '):
        assert re.fullmatch('[0-9a-f]{64}', digest)


def test_nothing_is_known_elsewhere():
    """No digest in any other file of the package."""
    for step in (sockets, pools, greenlets, premises, differences):
        with open(step.__file__, encoding='utf-8') as file:
            assert not re.search('[0-9a-f]{64}', file.read())


@pytest.mark.parametrize('version, newer', [
    ('25.9.1', False), ('26.9.0', False), ('26.9.3', False), ('26.10.0.dev0', True),
    ('26.10.0a1', True), ('27.1', True)])
@pytest.mark.fast_path('sockets', 'watchers', 'greenlets')
def test_compiled_code_that_nobody_has_read(monkeypatch, version, newer):
    """Is not leaned on."""
    monkeypatch.setattr(gevent, '__version__', version)
    monkeypatch.setattr(known, 'NEWEST', {'watchers': '26.9', 'greenlets': '26.9'})
    assert (sockets.why_watchers_off() == 'gevent may close them in another way') is newer
    assert (greenlets.why_off() == 'gevent may make them in another way') is newer


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


def test_changed_function(monkeypatch):
    """Where it is, and its entry for known.py with the new digest behind the old one."""
    monkeypatch.setattr(_socket3.socket, 'close', another)
    text, = found()
    code = another.__code__
    where = '%s, line %d' % (__file__, code.co_firstlineno)
    assert text.startswith(
        'SOCKETS: gevent has another socket.close: %s\nRead the change. ' % where)
    assert entry(text) == {
        'socket.close': known.SOCKETS['socket.close'] + ' ' + premises.digest(code)}


@pytest.mark.fast_path('pools')
def test_pasted_digest(monkeypatch):
    """The difference has gone, and the fast path is on again."""
    monkeypatch.setattr(gevent.pool.Pool, 'free_count', another)
    assert pools.why_off() == 'gevent has another Pool.free_count'
    text, = found()
    monkeypatch.setitem(known.POOLS, 'Pool.free_count', entry(text)['Pool.free_count'])
    assert found() == []
    assert pools.why_off() is None
    monkeypatch.undo()
    assert found() == [] and pools.why_off() is None


def test_part_that_was_not_known_at_all(monkeypatch):
    digest = known.POOLS['Pool.full']
    monkeypatch.delitem(known.POOLS, 'Pool.full')
    text, = found()
    assert entry(text) == {'Pool.full': digest}


def test_third_digest(monkeypatch):
    """It is put behind both."""
    monkeypatch.setitem(known.POOLS, 'Pool.full', 'one two')
    text, = found()
    assert re.fullmatch('one two [0-9a-f]{64}', entry(text)['Pool.full'])
    assert "'one '\n        'two '\n        '" in text


def test_changed_class(monkeypatch):
    """It is compared as a whole, and so is what else has to hold for it."""
    monkeypatch.setattr(_socket3, '_wrefsocket', Another)
    monkeypatch.setattr(Another, '__setattr__', another)
    one, *others = found()
    assert one.startswith('SOCKETS: gevent has another _wrefsocket: %s, line ' % __file__)
    assert entry(one) == {
        '_wrefsocket': known.SOCKETS['_wrefsocket'] + ' ' + premises.digest(Another)}
    assert others == ['SOCKETS: %s\nThe step has to be changed.' % why for why in (
        'gevent has another Another.__setattr__', 'gevent makes other sockets')]


def test_missing_part(monkeypatch):
    monkeypatch.delattr(_socket3.socket, '_detach_socket')
    assert found() == [
        'SOCKETS: gevent has no socket._detach_socket: AttributeError: type object '
        "'socket' has no attribute '_detach_socket'\nThe step has to be changed."]


def test_missing_class(monkeypatch):
    """All of its parts are told, and the others are compared all the same."""
    monkeypatch.delattr(_socket3, '_closedsocket')
    monkeypatch.setattr(_socket3.socket, 'close', another)
    assert [text.split(': ')[1] for text in found()] == [
        'gevent has another socket.close', 'gevent has no _closedsocket.__init__',
        'gevent has no _closedsocket.__bool__', 'the classes of gevent cannot be compared']


@pytest.mark.parametrize('part, error', [
    (len, 'TypeError'),
    (eval(compile('lambda self: 1', 'no such file.py', 'eval')), 'OSError')], ids=['C', 'no file'])
def test_part_without_source(monkeypatch, part, error):
    """It is compiled, or its file is not there."""
    monkeypatch.setattr(gevent.pool.Pool, 'full', part)
    text, = found()
    assert text.startswith('POOLS: gevent has no source of Pool.full: %s: ' % error)
    assert text.endswith('\nThe step stays off: there is nothing to compare.')


def test_gevent_is_newer(monkeypatch):
    """Than the newest whose compiled code was read, for both fast paths that lean on it."""
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
    ('SOCKETS', _socket3, 'socket', '__setattr__'),
    ('POOLS', gevent.pool, 'Pool', '__getattribute__'),
    ('GREENLETS', gevent._config, 'Config', '__getattribute__')])
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
del gevent._socket3.socket._detach_socket
gevent._socket3.socket._real_close = gevent._socket3.socket.close
gevent._config.Setting.get = gevent._config.Setting.set
''')
    assert status == 1
    head, *texts, last = out.rstrip('\n').split('\n\n')
    assert head.startswith('gevent 99.11, greenlet ') and last == '7 differences'
    assert re.findall(r'^([A-Z]+: gevent .*?)(?:: .*|, the .*)?$', out, re.M) == [
        'SOCKETS: gevent has another socket._real_close',
        'SOCKETS: gevent has no socket._detach_socket',
        'POOLS: gevent has another Pool.full',
        'POOLS: gevent has another Pool.add',
        'GREENLETS: gevent has another Setting.get',
        *['NEWEST: gevent 99.11 is newer than ' + read for read in known.NEWEST.values()]]


def test_one_difference():
    status, out = command('import gevent.pool\ngevent.pool.Pool.full = gevent.pool.Pool.start')
    assert status == 1 and out.endswith('\n\n1 difference\n')
