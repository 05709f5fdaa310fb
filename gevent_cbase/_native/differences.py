"""Every difference between the installed gevent and what known.py knows of it.

    python -m gevent_cbase._native.differences

prints them, each with what to do, and for known.py what to paste. The exit status is 0 if there is
none, otherwise 1.
"""
import sys

import gevent
import greenlet

from gevent_cbase import _patches
from gevent_cbase._native import (
    digests, greenlets, known, pools, premises, socket_io, sockets, tls)

#: what stands for functions of gevent: the native steps, by the name of their fast path; and more
STEPS = {'sockets': sockets, 'io': socket_io, 'pools': pools, 'greenlets': greenlets, 'tls': tls,
         'baseserver': _patches}

CHANGE = 'The step has to be changed.'
PASTE = 'put this in the place of what is there:'


def differences():
    """Yield a text for each."""
    snapshot = sockets.new_snapshot()
    for name, step in STEPS.items():
        parts = yield from _of_parts(name, step.PARTS, snapshot)
        if digests.VERSION in known.CODE and parts is not None:
            yield from _of_step(name, step.differences(parts, snapshot), parts)
    if digests.VERSION not in known.CODE:
        yield ('CODE: CPython %s is not known\nPut this in known.py:\n\n%s' % (
            digests.VERSION, _block(snapshot)))
    for path in known.NEWEST:
        if premises.not_read(path):
            yield _newer(path)
    yield from _of_step("NEWEST['watchers']", sockets.watcher_differences(snapshot), {})


def _of_parts(step, paths, snapshot):
    """Yield a text for each part that is not there; return the others, or None for a class."""
    parts = {}
    for name, path in paths.items():
        try:
            parts.update(premises.noted({name: path}, snapshot))
        except (AttributeError, ImportError, KeyError) as ex:
            yield '%s: gevent has no %s: %s\n%s' % (step, name, premises.told(ex), CHANGE)
    return parts


def _of_step(step, texts, parts):
    """Yield them with the name of the step, and what to do."""
    unknown = {'gevent has another %s' % name: name for name, part in parts.items()
               if not premises.is_known(name, part)}
    try:
        for text in texts:
            part = parts.get(unknown.get(text))
            if type(part) is premises.Part:
                yield '%s: %s: %s, line %d\nRead the change. If the step is right for it as ' \
                    'well, %s\n\n%s' % (step, text, part.code.co_filename,
                                        part.code.co_firstlineno, PASTE,
                                        _entry(unknown[text], part))
            else:
                yield '%s: %s\n%s' % (step, text, CHANGE)
    except (AttributeError, ImportError, KeyError) as ex:
        yield '%s: the classes of gevent cannot be compared: %s\n%s' % (
            step, premises.told(ex), CHANGE)


def _newer(path):
    return 'NEWEST: gevent %s is newer than %s, the last one read for %s\n%s\n\n    %r: %r,\n' % (
        gevent.__version__, known.NEWEST[path], path,
        'Read what known.py names there. If all is as it was, ' + PASTE,
        path, '.'.join(map(str, premises.release())))


def _entry(name, part):
    """As it is in known.CODE, under this CPython."""
    return '        %r: %r,\n' % (name, ' '.join(
        [*premises.digests_of(name), digests.digest(part.code)]))


def _block(snapshot):
    """What known.CODE has for a CPython."""
    entries = []
    for step in STEPS.values():
        for name, part in premises.noted(step.PARTS, snapshot).items():
            entries.append(_entry(name, part))
    return '    %r: {\n%s    },\n' % (digests.VERSION, ''.join(entries))


def main():
    """Print them all; return the exit status."""
    found = list(differences())
    print('gevent %s, greenlet %s, CPython %s, compared with %s\n' % (
        gevent.__version__, greenlet.__version__, digests.VERSION, known.__file__))
    for text in found:
        print(text.rstrip('\n') + '\n')
    if found:
        print('%d differences' % len(found) if len(found) > 1 else '1 difference')
        return 1
    print('No difference: all of it is known.')
    return 0


if __name__ == '__main__':
    sys.exit(main())
