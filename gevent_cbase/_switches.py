"""GEVENT_CBASE_WITHOUT: fast paths that are switched off by the environment; see _fast_paths."""
import os

OFF = 'GEVENT_CBASE_WITHOUT switches it off'


def why_off(name):
    """Why this fast path has to be off, as text; None if it has not."""
    names = os.environ.get('GEVENT_CBASE_WITHOUT', '').lower().replace(',', ' ').split()
    return OFF if name in names or 'all' in names else None
