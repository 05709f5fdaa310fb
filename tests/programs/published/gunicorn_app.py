"""The application of test_gunicorn.py. Waiting requests are directed by files in $HOLD."""
import gc
import os

import gevent
from gevent.baseserver import BaseServer

running = peak = 0


def application(environ, start_response):
    """``/``: pid; ``/bases``: classes of the servers; ``/hold/NAME``: answer when told so."""
    path = environ['PATH_INFO']
    if path == '/bases':
        answer = bases()
    elif path.startswith('/hold/'):
        answer = hold(path[6:])
    else:
        answer = str(os.getpid())
    start_response('200 OK', [('Content-Type', 'text/plain'),
                              ('Content-Length', str(len(answer)))])
    return [answer.encode()]


def bases():
    """The classes of each server in this process, up to object."""
    servers = [one for one in gc.get_objects() if issubclass(type(one), BaseServer)]
    return '; '.join(' '.join('%s.%s' % (cls.__module__, cls.__qualname__)
                              for cls in type(server).__mro__[:-1]) for server in servers)


def hold(name):
    """Write our pid to ``$HOLD/NAME``, wait for ``$HOLD/go``; the most that waited at once."""
    global running, peak
    folder = os.environ['HOLD']
    running += 1
    peak = max(peak, running)
    with open(os.path.join(folder, name + '.new'), 'w') as file:
        file.write(str(os.getpid()))
    os.rename(file.name, os.path.join(folder, name))
    while not os.path.exists(os.path.join(folder, 'go')):
        gevent.sleep(0.01)
    running -= 1
    return '%d %d' % (os.getpid(), peak)
