"""ddtrace: its tracer, its hooks in the code of gevent, its profiler."""
import pytest

from helpers import python

#: a server's greenlets, and the spans that its handlers make
TRACED = '''
from ddtrace.trace import TraceFilter, tracer
import gevent
import served

class Collect(TraceFilter):
    def process_trace(self, trace):
        spans.extend(span.name for span in trace)

def handle(sock, address):
    with tracer.trace('handler'), tracer.trace('reply'):
        gevent.sleep(0)
        greenlet = type(gevent.getcurrent()).__name__
        sock.sendall(('%s %s' % (greenlet, tracer.current_span().name)).encode())

spans = []
tracer.configure(trace_processors=[Collect()])
for name in 'default', 'raw', 'pool':
    print(name, *[reply.decode() for reply in served.talk(handle, served.spawns()[name], 2)])
print(*spans)
'''
SPANS = 'handler reply ' * 5 + 'handler reply'
#: what that prints after ddtrace has patched gevent
PATCHED = ['default TracedGreenlet reply TracedGreenlet reply',
           'raw TrackedRawGreenlet reply TrackedRawGreenlet reply',
           'pool TracedGreenlet reply TracedGreenlet reply', SPANS]


def test_spans_without_a_patch(side):
    assert side.printed(TRACED, DD_TRACE_GEVENT_ENABLED='false') == [
        'default Greenlet reply Greenlet reply',
        'raw TrackedRawGreenlet reply TrackedRawGreenlet reply',
        'pool Greenlet reply Greenlet reply', SPANS]


@pytest.mark.parametrize('patch', [
    'import ddtrace; ddtrace.patch(gevent=True)', 'import ddtrace.auto'], ids=['patch', 'auto'])
@pytest.mark.parametrize('when', ['-m gevent_cbase', 'imported before', 'installed before',
                                  'installed after'])
def test_program_patches(side, patch, when):
    """ddtrace puts its class in the place of Greenlet in gevent, before gevent.server is imported
    by the program: handlers run in greenlets of that class.
    """
    if when == '-m gevent_cbase':
        assert side.printed(patch + TRACED) == PATCHED
        return
    lines = {'imported before': ('', patch, 'install()'), 'installed before': ('install()', patch),
             'installed after': (patch, '', 'install()')}[when]
    imported = side.install()
    at = 1 if when == 'installed after' else 0
    program = '\n'.join([*lines[:at], imported, *lines[at:]]) + TRACED
    assert side.output(python(Plain, side.script(program))) == PATCHED


class Plain:
    """The program installs by itself."""
    stock = True


def test_ddtrace_run(side, tool):
    command = [tool('ddtrace-run'), *python(side, side.script(TRACED))]
    assert side.output(command) == PATCHED


def test_patched_while_a_server_runs(side):
    """gevent.server was imported before: the servers stay with gevent's own class of greenlets,
    pools do not.
    """
    assert side.printed('''
        import gevent.server
        import ddtrace
        ddtrace.patch(gevent=True)
        ''' + TRACED.replace('\n', '\n        ')) == [
            'default Greenlet reply Greenlet reply', *PATCHED[1:]]


#: gives functions of gevent a hook on their first line, as a line probe does; a wrapper, as the
#: tracer does; or a context, as a function probe does
INJECT = '''
import gevent.hub, gevent.pool, gevent.server, gevent.socket
import served
from gevent.server import StreamServer

def first_line(function):
    """That of the first statement."""
    code = function.__code__
    return min(line for _, _, line in code.co_lines() if line and line > code.co_firstlineno)

def inject_all():
    from ddtrace.internal.bytecode_injection import inject_hook
    for function in FUNCTIONS:
        inject_hook(function, noted.append, first_line(function), function.__qualname__)

def wrap_all():
    from ddtrace.internal.wrapping import wrap
    for function in FUNCTIONS:
        def wrapper(wrapped, args, kwargs, name=function.__qualname__):
            noted.append(name)
            return wrapped(*args, **kwargs)
        wrap(function, wrapper)

def probe_all():
    from ddtrace.internal.wrapping.context import WrappingContext
    class Context(WrappingContext):
        def __enter__(self):
            noted.append(self.__wrapped__.__qualname__)
            return super().__enter__()
    for function in FUNCTIONS:
        Context(function).wrap()

def serve(spawn):
    """What is noted of one connection; another one was there before."""
    server = StreamServer(('127.0.0.1', 0), lambda sock, address: None, spawn=spawn)
    server.start()
    served.ask(server.address)
    noted.clear()
    client = gevent.socket.create_connection(server.address)
    assert client.recv(1) == b''
    print(*sorted(set(noted)))
    client.close()
    server.stop()

def serve_all():
    for spawn in 'default', gevent.spawn_raw, 2:
        serve(spawn)

FUNCTIONS = (StreamServer.do_read, StreamServer.do_close, gevent.socket.socket.close,
             gevent.hub.spawn_raw, gevent.pool.Pool.spawn)
noted = []
'''
MOMENTS = {
    'before install': '%s(); install()',
    'before the first server': 'install(); %s()',
    'while servers run': 'install(); serve_all(); %s()',
    'and then classes are changed': 'install(); serve_all(); %s(); StreamServer.some = '
                                    'gevent.pool.Pool.some = gevent.socket.socket.some = 1',
}


@pytest.mark.parametrize('how', ['inject_all', 'wrap_all', 'probe_all'])
@pytest.mark.parametrize('moment', MOMENTS)
def test_hooks_in_the_code_of_gevent(side, how, moment):
    """The hook is called for each connection, whenever it was injected."""
    program = '\n'.join([side.install(), INJECT, MOMENTS[moment] % how, "print('--')",
                         'serve_all()'])
    lines = side.output(python(Plain, side.script(program)))
    assert lines[lines.index('--') + 1:] == [
        'StreamServer.do_close StreamServer.do_read socket.close',
        'StreamServer.do_close StreamServer.do_read socket.close spawn_raw',
        'Group.spawn StreamServer.do_close StreamServer.do_read socket.close']


#: a handler's greenlet, and whether the profiler knows it
PROFILED = '''
profiler.start()
import gevent
import served
from ddtrace.profiling import _gevent
from gevent import thread

def handle(sock, address):
    current = gevent.getcurrent()
    tracked = thread.get_ident(current) in _gevent._tracked_greenlets
    sock.sendall(('%s.%s %s' % (type(current).__module__, type(current).__name__, tracked)).encode())

for name in 'default', 'raw', 'pool':
    print(name, served.talk(handle, served.spawns()[name])[0].decode())
profiler.stop(flush=False)
'''


@pytest.mark.parametrize('imported', [False, True], ids=['before gevent.server', 'after it'])
def test_profiler(side, imported):
    """The profiler puts its class in the place of Greenlet, and spawn_raw in gevent.hub."""
    program = 'from ddtrace.profiling import Profiler\nprofiler = Profiler()\n'
    program += 'import gevent.server, gevent.pool' if imported else ''
    assert side.printed(program + PROFILED) == [
        'default gevent._gevent_cgreenlet.Greenlet True' if imported
        else 'default ddtrace.profiling._gevent.Greenlet True',
        'raw gevent._gevent_c_greenlet_primitives.TrackedRawGreenlet True',
        'pool gevent._gevent_cgreenlet.Greenlet True' if imported
        else 'pool ddtrace.profiling._gevent.Greenlet True']
