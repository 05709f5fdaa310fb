"""The native steps of greenlets: are they what the installed gevent does? See premises."""
import types

from gevent_cbase import _cbase
from gevent_cbase._native import premises, switches

#: where the parts of gevent are that spawning a Greenlet stands for, and spawn_raw()
SPAWN = {
    'Config.track_greenlet_tree': 'gevent:config.__class__.track_greenlet_tree.fget',
    'Setting.get': 'gevent:config.settings.track_greenlet_tree.__class__.get',
}
PARTS = {**SPAWN, 'spawn_raw': 'gevent.hub:spawn_raw'}

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

    if premises.not_read('greenlets'):
        return 'gevent may make them in another way'
    snapshot = premises.Snapshot()
    Greenlet, raw_class, config, setting = _objects(snapshot)
    if _in_python(Greenlet):
        return 'not with gevent in pure Python'
    from gevent import _gevent_cgreenlet, _greenlet_primitives
    stamps = premises.stamps(type(config), type(setting))
    parts = premises.noted(PARTS, snapshot)
    if not config.track_greenlet_tree:
        return 'GEVENT_TRACK_GREENLET_TREE is off'
    reason = next(differences(parts, snapshot), None)
    if reason is not None:
        return reason
    fresh = Greenlet.__new__(Greenlet)
    if fresh.parent is not getcurrent():
        return 'greenlets are born with another parent'
    _cbase._greenlets_prepare(
        spawn=premises.given(stamps, (parts[name] for name in SPAWN)),
        raw=premises.given(stamps, parts.values()),
        made=Greenlet(_prepare), fresh=fresh,
        limit=Greenlet.spawning_stack_limit, method=Greenlet.spawn,
        get_hub=snapshot['gevent._hub_local:get_hub_noargs'], getcurrent=getcurrent,
        config=config, setting=setting, spawn_raw=parts['spawn_raw'].function,
        raw_class=raw_class, run=vars(greenlet)['run'], parent=vars(greenlet)['parent'],
        switch_method=vars(greenlet)['switch'],
        loop=vars(_greenlet_primitives.SwitchOutGreenletWithLoop)['loop'],
        exports=_gevent_cgreenlet)
    return None


def _objects(snapshot):
    """The classes of greenlets, gevent's configuration, and its setting for what they note."""
    return (snapshot['gevent:Greenlet'], snapshot['gevent.hub:TrackedRawGreenlet'],
            snapshot['gevent:config'], snapshot['gevent:config.settings.track_greenlet_tree'])


def _in_python(cls):
    """Whether gevent is not compiled."""
    return isinstance(cls.spawn.__func__, types.FunctionType)


def differences(parts, snapshot):
    """Yield what is not as the steps need it, each as text."""
    yield from premises.differences(parts, snapshot)
    yield from class_differences(parts, snapshot)


def class_differences(parts, snapshot):
    """Yield what is not as the steps need it besides the parts, each as text."""
    from greenlet import greenlet
    Greenlet, raw_class, config, setting = _objects(snapshot)
    if not _in_python(Greenlet):
        for cls in Greenlet, raw_class:
            if not cls.__flags__ & IMMUTABLE:
                yield '%s may be changed' % cls.__name__
            if cls.__setattr__ is not object.__setattr__:
                yield '%s sets attributes in its own way' % cls.__name__
            if cls.switch is not greenlet.switch:
                yield '%s switches in its own way' % cls.__name__
    for cls, name in ((Greenlet, '_run'), (raw_class, 'spawning_greenlet'),
                      (raw_class, 'spawn_tree_locals'), (raw_class, 'loop'),
                      (type(config), 'settings'), (type(setting), 'value')):
        if hasattr(getattr(cls, name, None), '__set__'):
            yield '%s.%s is no ordinary attribute' % (cls.__name__, name)
    yield from premises.not_plain(type(config), object, ('__getattribute__',))
    yield from premises.not_plain(type(setting), object)
    yield from premises.not_known(type(config), parts, ('loop',))
    yield from premises.not_known(type(setting), parts, ('validate', '_default', 'value'))
