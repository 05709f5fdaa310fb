"""Every difference between the installed gevent and what known.py knows of it.

    python -m gevent_cbase._native.differences

prints them, each with what to do, and for known.py what to paste. The exit status is 0 if there is
none, otherwise 1.
"""
import inspect
import sys

import gevent
import greenlet

from gevent_cbase._native import greenlets, known, pools, premises, sockets

#: the native steps, by the name of their digests in known.py
STEPS = {'SOCKETS': sockets, 'POOLS': pools, 'GREENLETS': greenlets}

CHANGE = 'The step has to be changed.'
STAYS_OFF = 'The step stays off: there is nothing to compare.'
PASTE = 'put this in the place of what is there:'


def differences():
    """Yield a text for each."""
    snapshot = premises.Snapshot()
    for name, step in STEPS.items():
        digests = getattr(known, name)
        for part, path in step.PARTS.items():
            yield from _of_part(name, part, path, digests.get(part, ''), snapshot)
        yield from _of_classes(name, step.class_differences(snapshot))
    for path in known.NEWEST:
        if premises.not_read(path):
            yield _newer(path)
    yield from _of_classes("NEWEST['watchers']", sockets.watcher_differences(snapshot))


def _of_part(step, part, path, digests, snapshot):
    try:
        code = premises.code_of(snapshot[path])
    except (AttributeError, ImportError, KeyError) as ex:
        yield '%s: gevent has no %s: %s\n%s' % (step, part, premises.told(ex), CHANGE)
        return
    try:
        digest = premises.digest(code)
    except (OSError, TypeError) as ex:
        yield '%s: gevent has no source of %s: %s\n%s' % (step, part, premises.told(ex), STAYS_OFF)
        return
    if digest not in digests.split():
        yield '%s: gevent has another %s: %s, line %d\n%s\n\n%s' % (
            step, part, inspect.getsourcefile(code), inspect.getsourcelines(code)[1],
            'Read the change. If the step is right for it as well, ' + PASTE,
            _entry(part, [*digests.split(), digest]))


def _of_classes(step, texts):
    try:
        for text in texts:
            yield '%s: %s\n%s' % (step, text, CHANGE)
    except (AttributeError, ImportError, KeyError) as ex:
        yield '%s: the classes of gevent cannot be compared: %s\n%s' % (
            step, premises.told(ex), CHANGE)


def _newer(path):
    return 'NEWEST: gevent %s is newer than %s, the last one read for %s\n%s\n\n    %r: %r,\n' % (
        gevent.__version__, known.NEWEST[path], path,
        'Read what known.py names there. If all is as it was, ' + PASTE,
        path, '.'.join(map(str, premises.release())))


def _entry(part, digests):
    """As it is in known.py."""
    lines = ['%s ' % digest for digest in digests[:-1]] + digests[-1:]
    return '    %r:\n%s,\n' % (part, '\n'.join('        %r' % line for line in lines))


def main():
    """Print them all; return the exit status."""
    found = list(differences())
    print('gevent %s, greenlet %s, compared with %s\n' % (
        gevent.__version__, greenlet.__version__, known.__file__))
    for text in found:
        print(text.rstrip('\n') + '\n')
    if found:
        print('%d differences' % len(found) if len(found) > 1 else '1 difference')
        return 1
    print('No difference: all of it is known.')
    return 0


if __name__ == '__main__':
    sys.exit(main())
