"""When a tool changes a function of gevent, and what is noted then."""
from helpers import PLAIN, python

#: programs, for ``change_all()``; notes go to ``noted``
MOMENTS = {
    'before install': 'change_all(); install()',
    'before the first server': 'install(); change_all()',
    'while servers run': 'install(); note_all(noted); change_all()',
    'and then classes are changed':
        'install(); note_all(noted); change_all(); '
        'StreamServer.some = gevent.pool.Pool.some = gevent.socket.socket.some = 1',
}
BEFORE = '''
import gevent.hub, gevent.pool, gevent.server, gevent.socket
from gevent.server import StreamServer
from served import note_all, replaced
noted = []
'''
#: what they note of a connection
CALLED = ['__init__ close do_close do_read', '__init__ close do_close do_read spawn_raw',
          '__init__ close do_close do_read spawn']


def noted(side, change_all, moment):
    """What a change of all of replaced(), a function in Python, notes from some moment on."""
    program = '\n'.join([side.install(), BEFORE, change_all, MOMENTS[moment], "print('--')",
                         'note_all(noted)'])
    lines = side.output(python(PLAIN, side.script(program)))
    return lines[lines.index('--') + 1:]
