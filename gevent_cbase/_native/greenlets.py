"""The native steps of greenlets: are they what the installed gevent does? See premises."""
import types

from gevent_cbase import _cbase
from gevent_cbase._native import known, premises, switches

#: Py_TPFLAGS_IMMUTABLETYPE
IMMUTABLE = 1 << 8


def why_off():
    """Why the native steps are off, as text; None if they are on."""
    return premises.why_off(prepare)


def prepare():
    """Switch the native steps on if they are right, and return why they are not, or None.

    Called when the first server is made, and again when the configuration's classes have changed.
    If it raises an Exception it is called again later.
    """
    return switches.why_off('greenlets') or _prepare()


def _prepare():
    from greenlet import getcurrent, greenlet

    from gevent import Greenlet, _hub_local, config, hub
    if premises.not_read('greenlets'):
        return 'gevent may make them in another way'
    raw_class = hub.TrackedRawGreenlet
    if isinstance(Greenlet.spawn.__func__, types.FunctionType):
        return 'not with gevent in pure Python'
    from gevent import _gevent_cgreenlet, _greenlet_primitives
    setting = config.settings['track_greenlet_tree']
    stamps = premises.stamps(type(config), type(setting))
    for cls in Greenlet, raw_class:
        if not cls.__flags__ & IMMUTABLE:
            return '%s may be changed' % cls.__name__
        if cls.__setattr__ is not object.__setattr__:
            return '%s sets attributes in its own way' % cls.__name__
        if cls.switch is not greenlet.switch:
            return '%s switches in its own way' % cls.__name__
    for cls, name in ((Greenlet, '_run'), (raw_class, 'spawning_greenlet'),
                      (raw_class, 'spawn_tree_locals'), (raw_class, 'loop')):
        if hasattr(getattr(cls, name, None), '__set__'):
            return '%s.%s is no ordinary attribute' % (cls.__name__, name)
    if not config.track_greenlet_tree:
        return 'GEVENT_TRACK_GREENLET_TREE is off'
    for thing, name in (config, 'settings'), (setting, 'value'):
        if hasattr(getattr(type(thing), name, None), '__set__'):
            return '%s.%s is no ordinary attribute' % (type(thing).__name__, name)
    functions = premises.noted({
        'Config.track_greenlet_tree': type(config).track_greenlet_tree.fget,
        'Setting.get': type(setting).get,
    })
    raw = {**functions, **premises.noted({'spawn_raw': hub.spawn_raw})}
    reason = (premises.difference(raw, known.GREENLETS)
              or premises.not_plain(type(config), object, ('__getattribute__',))
              or premises.not_plain(type(setting), object))
    if reason is not None:
        return reason
    fresh = Greenlet.__new__(Greenlet)
    if fresh.parent is not getcurrent():
        return 'greenlets are born with another parent'
    names = vars(hub)
    get_hub = _hub_local.get_hub_noargs
    _cbase._greenlets_prepare(
        spawn=(stamps, tuple(functions.values()), ()),
        raw=(stamps, tuple(raw.values()),
             ((names, '_get_hub_noargs', get_hub), (names, 'GEVENT_CONFIG', config),
              (names, 'TrackedRawGreenlet', raw_class))),
        made=Greenlet(_prepare), fresh=fresh,
        limit=Greenlet.spawning_stack_limit, method=Greenlet.spawn, get_hub=get_hub,
        getcurrent=getcurrent, config=config, setting=setting, spawn_raw=raw['spawn_raw'][0],
        raw_class=raw_class, run=vars(greenlet)['run'], parent=vars(greenlet)['parent'],
        switch_method=vars(greenlet)['switch'],
        loop=vars(_greenlet_primitives.SwitchOutGreenletWithLoop)['loop'],
        exports=_gevent_cgreenlet)
    return None
