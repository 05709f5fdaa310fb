"""What the environment switches off.

A value that is not known switches off, too: who has set it did not want all of it on.
"""
import os
import warnings

#: values of GEVENT_CBASE and GEVENT_CBASE_DATASTACK, in lower case; to have none is on, too
ON = ('', '1', 'yes', 'on', 'true')
OFF = ('0', 'no', 'off', 'false', 'never', 'disabled')

#: what check() and check_names() have told
_told = set()


def why_not(variable):
    """Why what this variable is for has to be off, as text; None if it has not."""
    if _value(variable) not in ON:
        return '%s switches it off' % variable


def why_off(name):
    """Why the fast path *name*, see paths, has to be off, as text; None if it has not."""
    names = _names()
    if name in names or 'all' in names:
        return 'GEVENT_CBASE_WITHOUT switches it off'


def check(variable):
    """Warn, once, if the value of this variable is not known."""
    value = _value(variable)
    if value not in ON + OFF:
        _tell('%s=%s is not known, and read as off: on is one of %s; off is one of %s' % (
            variable, value, ', '.join(filter(None, ON)), ', '.join(OFF)))


def number(variable, default):
    """The value of this variable, an int from 0; *default* if it has none. Any other is read as
    0, and warned of.
    """
    value = _value(variable)
    if value.isdecimal():
        return int(value)
    if value:
        _tell('%s=%s is not known, and read as 0: it is a number, 0 or more' % (variable, value))
        return 0
    return default


def check_names(known):
    """Warn, once, if GEVENT_CBASE_WITHOUT has names besides these, of fast paths, and ``all``."""
    unknown = [name for name in _names() if name not in (*known, 'all')]
    if unknown:
        _tell('GEVENT_CBASE_WITHOUT has no effect on %s: known are %s, and all' % (
            ', '.join(unknown), ', '.join(known)))


def _value(variable):
    return os.environ.get(variable, '').strip().lower()


def _names():
    return os.environ.get('GEVENT_CBASE_WITHOUT', '').lower().replace(',', ' ').split()


def _tell(text):
    if text not in _told:
        warnings.warn('gevent_cbase: ' + text, RuntimeWarning, stacklevel=3)
        _told.add(text)  # not reached where warnings are errors
