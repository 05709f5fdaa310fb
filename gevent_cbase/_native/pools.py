"""The native steps of pools: are they what the installed gevent does? See premises."""
from gevent_cbase import _cbase
from gevent_cbase._native import premises, switches

#: SHA-256 of the source text, in gevent 25.9.1 to 26.9.0
KNOWN = {
    'Pool.full':
        '8e466d8609f6f599ccfd993c0a0575f076101d4ea22a5c4983c51d89d00acd33',
    'Pool.free_count':
        'b3dcb00439ef869a405f37ab1bbcc26f9fa8a7fb7d02d0bd7b6b3e9a4d10c760',
    'Group.__len__':
        '704cac6fc1b652c01e6e8906ede4d22715a9514983f14ffadb99e19c7516ed99',
    'Group.spawn':
        'cb9b9ecddc510da939485b34633e9b2d4fb9c0fe27c9540b7cfb65101a01aee4',
    'Pool.start':
        '1f530c65b938dc9fe6e034856cbda2bc40d076e0f329ad1e57bfa85e012d3e34',
    'Pool.add':
        '95b1f7869bed32607695a635d5a2586732d1b6c9eb461678c437086c27ffbe2c',
    'Group.add':
        '6bc108730a81c8921e0f7cfcc65f5bf2075e9c9acd636ab64b87f4ecadea36a1',
}


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
    reason = (premises.difference({**full, **spawn}, KNOWN)
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
