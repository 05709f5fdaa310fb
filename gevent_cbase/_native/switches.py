"""What the environment switches off."""
import os

#: values of GEVENT_CBASE and GEVENT_CBASE_DATASTACK that switch something off
NO = ('0', 'no', 'off', 'false')

OFF = 'GEVENT_CBASE_WITHOUT switches it off'


def says_no(variable):
    """Whether this environment variable switches something off."""
    return os.environ.get(variable, '').strip().lower() in NO


def why_off(name):
    """Why the fast path *name*, see paths, has to be off, as text; None if it has not."""
    names = os.environ.get('GEVENT_CBASE_WITHOUT', '').lower().replace(',', ' ').split()
    return OFF if name in names or 'all' in names else None
