"""The native steps of pools: are they what the installed gevent does? See premises."""
from gevent_cbase import _cbase
from gevent_cbase._native import premises, switches

#: where the parts of gevent are that full() stands for, and spawn()
FULL = {
    'Pool.full': 'gevent.pool:Pool.full',
    'Pool.free_count': 'gevent.pool:Pool.free_count',
    'Group.__len__': 'gevent.pool:Pool.__len__',
}
SPAWN = {
    'Group.spawn': 'gevent.pool:Pool.spawn',
    'Pool.start': 'gevent.pool:Pool.start',
    'Pool.add': 'gevent.pool:Pool.add',
    'Group.add': 'gevent.pool:Group.add',
}
PARTS = {**FULL, **SPAWN}


def why_off():
    """Why the native steps are off, as text; None if they are on."""
    return premises.why_off(prepare)


def prepare():
    """Switch the native steps on if they are right, and return why they are not, or None.

    Called when the first pool is given to a server, and again when the class has changed. If it
    raises an Exception it is called again later.
    """
    return switches.why_off('pools') or _prepare()


def _prepare():
    snapshot = premises.Snapshot()
    cls = snapshot['gevent.pool:Pool']
    stamps = premises.stamps(cls)
    parts = premises.noted(PARTS, snapshot)
    reason = next(differences(parts, snapshot), None)
    if reason is None:
        _cbase._pool_prepare(
            full=premises.given(stamps, (parts[name] for name in FULL)),
            spawn=premises.given(stamps, (parts[name] for name in SPAWN)),
            cls=cls, full_function=parts['Pool.full'].function,
            spawn_function=parts['Group.spawn'].function,
            discard_function=cls._discard, PoolFull=snapshot['gevent.pool:PoolFull'])
    return reason


def differences(parts, snapshot):
    """Yield what is not as the steps need it, each as text."""
    yield from premises.differences(parts, snapshot)
    yield from class_differences(parts, snapshot)


def class_differences(parts, snapshot):
    """Yield what is not as the steps need it besides the parts, each as text."""
    cls, group = snapshot['gevent.pool:Pool'], snapshot['gevent.pool:Group']
    yield from premises.not_plain(cls, object)
    yield from premises.not_known(cls, parts, ('greenlet_class', '_discard'))  # as they are
    if not issubclass(snapshot['gevent.pool:PoolFull'], BaseException):
        yield 'gevent.pool.PoolFull is no exception'
    if group not in cls.__mro__:
        yield 'gevent.pool.Pool is no gevent.pool.Group'  # and nobody watches what it is
