"""The native steps of pools: are they what the installed gevent does? See premises."""
from gevent_cbase import _cbase
from gevent_cbase._native import known, premises, switches


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
    from gevent import pool
    cls = pool.Pool
    stamps = premises.stamps(cls)
    full = premises.noted({
        'Pool.full': cls.full,
        'Pool.free_count': cls.free_count,
        'Group.__len__': cls.__len__,
    })
    spawn = premises.noted({
        'Group.spawn': cls.spawn,
        'Pool.start': cls.start,
        'Pool.add': cls.add,
        'Group.add': pool.Group.add,
    })
    reason = (premises.difference({**full, **spawn}, known.POOLS)
              or premises.not_plain(cls, object))
    if reason is None and spawn['Pool.add'][2] != (True, None):
        reason = 'gevent has other defaults of Pool.add'
    if reason is None and pool.Group not in cls.__mro__:
        reason = 'gevent.pool.Pool is no gevent.pool.Group'  # and nobody watches what it is
    if reason is None:
        names = vars(pool)
        _cbase._pool_prepare(
            full=(stamps, tuple(full.values()), ()),
            spawn=(stamps, tuple(spawn.values()),
                   ((names, 'Group', pool.Group), (names, 'PoolFull', pool.PoolFull))),
            cls=cls, full_function=full['Pool.full'][0], spawn_function=spawn['Group.spawn'][0],
            discard_function=cls._discard,
            PoolFull=pool.PoolFull)
    return reason
