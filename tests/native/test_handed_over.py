"""What the half in Python hands to the half in C: C looks at it before it takes it.

If something is wrong, nothing of it is taken, and the steps go on with what they had.
"""
import pytest

from gevent_cbase import _cbase
from gevent_cbase._native import greenlets, pools, sockets
from helpers import is_on

#: the steps by their fast path: the module that compares, and what it calls
STEPS = {'sockets': (sockets, '_stream_prepare'), 'pools': (pools, '_pool_prepare'),
         'greenlets': (greenlets, '_greenlets_prepare')}
EACH = pytest.mark.parametrize('step', [
    pytest.param(name, marks=pytest.mark.fast_path(name)) for name in STEPS])


@pytest.fixture
def given(monkeypatch):
    """``given(step)``: the function in C that takes over, and what it is given."""
    def taken(step):
        module, name = STEPS[step]
        take_over, seen = getattr(_cbase, name), []
        monkeypatch.setattr(_cbase, name, lambda **parts: seen.append(parts))
        assert module.prepare() is None
        monkeypatch.undo()
        (parts,) = seen
        return take_over, parts
    return taken


def refused(step, given, error, **changed):
    """The message of the error that other parts than gevent's end with."""
    take_over, parts = given(step)
    assert changed.keys() <= parts.keys()
    with pytest.raises(error) as caught:
        take_over(**dict(parts, **changed))
    assert is_on(step)
    return str(caught.value)


def premises_of(step, given):
    """The name under which these steps are given their first premises, and these four tuples."""
    _, parts = given(step)
    name = next(iter(parts))
    return name, parts[name]


@EACH
def test_as_it_is(step, given):
    take_over, parts = given(step)
    assert take_over(**parts) is None
    assert is_on(step)


@EACH
def test_parts_are_missing(step, given):
    take_over, _ = given(step)
    with pytest.raises(TypeError):
        take_over()
    assert is_on(step)


@EACH
def test_no_premises(step, given):
    name, _ = premises_of(step, given)
    refused(step, given, TypeError, **{name: ()})


@EACH
@pytest.mark.parametrize('place', range(4), ids=['classes', 'functions', 'namespaces', 'cells'])
def test_premises_of_another_kind(step, given, place):
    name, premises = premises_of(step, given)
    changed = list(premises)
    changed[place] = ((),)
    refused(step, given, TypeError, **{name: tuple(changed)})


@EACH
@pytest.mark.parametrize('place', range(4), ids=['classes', 'functions', 'namespaces', 'cells'])
def test_too_many_premises(step, given, place):
    """There is room for a few: no step needs more."""
    name, premises = premises_of(step, given)
    changed = list(premises)
    changed[place] = ((),) * 100
    assert refused(step, given, ValueError, **{name: tuple(changed)}) == 'too many premises'


@EACH
@pytest.mark.parametrize('names', [
    ('name',), ((),), ((1, 2),), (('name', 1, 2),)], ids=['text', 'empty', 'number', 'three'])
def test_names_of_another_kind(step, given, names):
    name, (classes, functions, _, cells) = premises_of(step, given)
    premises = classes, functions, (({}, names),), cells
    text = refused(step, given, TypeError, **{name: premises})
    assert text == 'names and their values are required'


@EACH
def test_premises_with_another_stamp(step, given):
    name, (classes, *rest) = premises_of(step, given)
    classes = tuple((cls, stamp + b'!') for cls, stamp in classes)
    text = refused(step, given, ValueError, **{name: (classes, *rest)})
    assert text == 'not the stamp of a class'


@pytest.mark.fast_path('greenlets')
@pytest.mark.parametrize('changed', [
    {'fresh': object()}, {'limit': -1}, {'limit': 10 ** 6}],
    ids=['of another class', 'negative limit', 'high limit'])
def test_another_greenlet(given, changed):
    assert refused('greenlets', given, TypeError, **changed) == 'another Greenlet'


@pytest.mark.fast_path('greenlets')
def test_greenlet_without_attributes(given):
    """It is compared with a new one to find out where its attributes are."""
    _, parts = given('greenlets')
    text = refused('greenlets', given, TypeError, made=parts['fresh'])
    assert text == 'a Greenlet has other attributes'


@pytest.mark.fast_path('sockets')
def test_class_without_slots(given):
    """Where a socket keeps what belongs to it is read from its class."""
    _, parts = given('sockets')
    closed, classes = parts['classes'][2], list(parts['classes'])
    classes[2] = type('Closed', (), {})
    assert 'family' in refused('sockets', given, AttributeError, classes=tuple(classes))
    classes[2] = type('Closed', (), dict.fromkeys(closed.__slots__))
    assert 'is no slot' in refused('sockets', given, TypeError, classes=tuple(classes))


@pytest.mark.fast_path('sockets')
def test_no_sockets():
    with pytest.raises(TypeError):
        _cbase._close_descriptor(object(), object())
    with pytest.raises(TypeError):
        _cbase._has_known_layout()
    assert _cbase._has_known_layout(object(), 0, 0, 0, 0, 0) is False


@pytest.mark.fast_path('closing')
def test_no_function():
    with pytest.raises(TypeError):
        _cbase._calls_take_over('socket.close', len)
    with pytest.raises(ValueError):
        _cbase._calls_take_over('socket.open', test_no_function)


def test_no_class():
    class Plain:
        full = do_handle = do_close = len
    for wrong in object(), int, Plain:
        with pytest.raises(TypeError):
            _cbase._class_is(wrong)
    for function in _cbase._class_stamp, _cbase._do_read_is:
        with pytest.raises(TypeError):
            function(object())


def test_no_server():
    with pytest.raises(TypeError):
        _cbase._stats_counters(object())


def test_no_program(tmp_path):
    with pytest.raises(FileNotFoundError):
        _cbase._run_file(str(tmp_path / 'missing.py'))
    for run in _cbase._run_file, _cbase._run_source, _cbase._run_call:
        with pytest.raises(TypeError):
            run()
    with pytest.raises(TypeError):
        _cbase._run_source(b'pass')
