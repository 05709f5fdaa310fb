"""ddtrace: its tracer, its hooks in the code of gevent, its profiler."""
import pytest

from helpers import PLAIN, python
from moments import CALLED, MOMENTS, noted

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
    assert side.output(python(PLAIN, side.script(program))) == PATCHED


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


#: a line probe, what the tracer does, a function probe; all of them change code
CHANGES = {
    'inject_hook': '''
def change_all():
    from ddtrace.internal.bytecode_injection import inject_hook
    for owner, name in replaced():
        code = getattr(owner, name).__code__
        line = min(line for _, _, line in code.co_lines() if line and line > code.co_firstlineno)
        inject_hook(getattr(owner, name), noted.append, line, name)
''',
    'wrap': '''
def change_all():
    from ddtrace.internal.wrapping import wrap
    for owner, name in replaced():
        def wrapper(wrapped, args, kwargs, name=name):
            noted.append(name)
            return wrapped(*args, **kwargs)
        wrap(getattr(owner, name), wrapper)
''',
    'context': '''
def change_all():
    from ddtrace.internal.wrapping.context import WrappingContext
    class Context(WrappingContext):
        def __enter__(self):
            noted.append(self.__wrapped__.__name__)
            return super().__enter__()
    for owner, name in replaced():
        Context(getattr(owner, name)).wrap()
''',
}


@pytest.mark.parametrize('how', CHANGES)
@pytest.mark.parametrize('moment', MOMENTS)
def test_code_of_gevent(side, how, moment):
    """ddtrace changes the code of functions, and keeps their files and lines."""
    assert noted(side, CHANGES[how], moment) == CALLED


def test_code_of_base_server(side):
    """The same in the methods of gevent.baseserver, before install()."""
    lines = side.output(python(PLAIN, side.script('\n'.join([side.install(), '''
from gevent.baseserver import BaseServer
import served
def replaced():
    return [(BaseServer, name) for name in ('_do_read', 'do_handle', 'start_accepting', 'close')]
noted = []
''', CHANGES['inject_hook'], '''
change_all(); install()
served.talk(lambda sock, address: None)
print(*sorted(set(noted)))
''']))))
    assert lines == ['_do_read close do_handle start_accepting']


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
    cls = type(current)
    sock.sendall(('%s.%s %s' % (cls.__module__, cls.__name__, tracked)).encode())

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
