"""Breakpoints, events of sys.monitoring, trace functions and line profiles, in handlers and in the
functions of gevent that fast paths stand for.
"""
import collections
import contextlib
import inspect
import subprocess
import sys

import pytest

import dap
from gevent import hub, pool, server, socket
from helpers import child_environ, python
from moments import CALLED
from sides import FOLDER, QUIET

#: what runs in Python of a connection, by what GEVENT_CBASE_WITHOUT switches off
SEEN = {
    '': ['', '', ''],
    'sockets': ['__init__ close do_close do_read'] * 3,
    'pools,greenlets': ['', 'spawn_raw', 'spawn'],
    'all': CALLED,
}
#: each of these has what it sees of the functions in replaced() noted, by name
WAYS = {
    'local events': '''
monitoring = sys.monitoring
monitoring.use_tool_id(monitoring.DEBUGGER_ID, 'tests')
monitoring.register_callback(monitoring.DEBUGGER_ID, monitoring.events.LINE,
                             lambda code, line: noted.append(code.co_name))
for function in functions:
    monitoring.set_local_events(monitoring.DEBUGGER_ID, function.__code__, monitoring.events.LINE)
''',
    'global events': '''
monitoring = sys.monitoring
monitoring.use_tool_id(monitoring.DEBUGGER_ID, 'tests')
monitoring.register_callback(monitoring.DEBUGGER_ID, monitoring.events.PY_START,
                             lambda code, offset: note(code))
monitoring.set_events(monitoring.DEBUGGER_ID, monitoring.events.PY_START)
''',
    'settrace': 'sys.settrace(lambda frame, event, arg: note(frame.f_code))',
    'setprofile': 'sys.setprofile(lambda frame, event, arg: note(frame.f_code))',
    'bdb': '''
import bdb

class Debugger(bdb.Bdb):
    def user_line(self, frame):
        note(frame.f_code)
        self.set_continue()

debugger = Debugger()
for function in functions:
    code = function.__code__
    assert debugger.set_break(code.co_filename, first_line(code)) is None
debugger.set_trace()
debugger.set_continue()
''',
    'line_profiler': '''
import line_profiler

class Hits:
    """The functions of which a line was hit since clear()."""
    def clear(self):
        self.before = self.hits()
    def hits(self):
        return {key: sum(hits for _, hits, _ in lines)
                for key, lines in profiler.get_stats().timings.items()}
    def __iter__(self):
        return (key[2].rpartition('.')[2] for key, hits in self.hits().items()
                if hits > self.before[key])

profiler = line_profiler.LineProfiler(*functions)
profiler.enable()
noted = Hits()
''',
}


@pytest.mark.parametrize('without', SEEN, ids=lambda names: names or 'nothing')
@pytest.mark.parametrize('way', WAYS)
def test_functions_of_gevent(side, way, without):
    """What a fast path stands for is not seen: not while the fast path is on."""
    assert side.printed('''
import sys
from served import note_all, replaced

def note(code):
    if code in codes:
        noted.append(code.co_name)

def first_line(code):
    return min(line for _, _, line in code.co_lines() if line and line > code.co_firstlineno)

noted = []
functions = [getattr(owner, name) for owner, name in replaced()]
codes = {function.__code__ for function in functions}
''' + WAYS[way] + '''
note_all(noted)
if 'profiler' in globals():
    profiler.disable()
''', GEVENT_CBASE_WITHOUT=without) == (CALLED if side.stock else SEEN[without])


@pytest.mark.parametrize('without', ['', 'closing'], ids=['nothing', 'closing'])
def test_close_by_a_handler(side, without):
    """That is a fast path of its own."""
    assert side.printed('''
import sys
import served
from gevent import socket

def handle(sock, address):
    sys.settrace(lambda frame, event, arg: noted.append(frame.f_code.co_name))
    sock.close()
    sys.settrace(None)

noted = []
served.talk(handle)
print('close' in noted)
''', GEVENT_CBASE_WITHOUT=without) == [str(bool(side.stock or without))]


@pytest.mark.parametrize('environ, seen', [
    ({'GEVENT_CBASE_WITHOUT': 'all'}, []), ({'GEVENT_CBASE': '0'}, ['_do_read', 'do_handle'])],
    ids=['without all', 'switched off'])
def test_methods_of_base_server(side, environ, seen):
    """They are in C, whatever fast paths there are."""
    program = side.script('\n'.join([side.install(), '''
import sys
from gevent.baseserver import BaseServer
import served

def note(frame, event, arg):
    if frame.f_code in codes:
        noted.append(frame.f_code.co_name)

codes = [getattr(BaseServer, name).__code__ for name in ('do_handle', '_do_read')]
noted = []
install()
sys.settrace(note)
served.talk(lambda sock, address: None)
sys.settrace(None)
print(*sorted(set(noted)))
''']))
    names = side.output([sys.executable, program], **environ)[0].split()
    assert names == (['_do_read', 'do_handle'] if side.stock else seen)


PROGRAM = '''
import debugpy
print(debugpy.listen(('127.0.0.1', 0))[1], flush=True)
debugpy.wait_for_client()
import gevent
import served

def handle(sock, address):
    data = b'sent'  # breakpoint
    gevent.sleep(0)
    sock.sendall(data)

for name in 'default', 'raw', 'pool':
    print(name, served.talk(handle, served.spawns()[name])[0].decode())
'''


def first_statement(function):
    """(path, line)"""
    code = function.__code__
    return code.co_filename, min(line for _, _, line in code.co_lines()
                                 if line and line > code.co_firstlineno)


@contextlib.contextmanager
def debugged(side, **environ):
    """A program that waits for a debugger, and its client."""
    process = subprocess.Popen(
        python(side, side.script(PROGRAM)), cwd=side.folder, text=True,
        env=child_environ(FOLDER, **QUIET, GEVENT_SUPPORT='True', **environ),
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        with contextlib.closing(dap.Client(int(process.stdout.readline()))) as client:
            yield client
        out, err = process.communicate(timeout=60)
        assert (out, process.returncode) == ('default sent\nraw sent\npool sent\n', 0), err
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize('without', ['', 'sockets', 'all'], ids=['nothing', 'sockets', 'all'])
@pytest.mark.parametrize('monitoring', ['0', '1'], ids=['settrace', 'monitoring'])
def test_debugpy(side, monitoring, without):
    """Breakpoints in a handler, and in functions of gevent."""
    breakpoints = collections.defaultdict(list)
    for function in (server.StreamServer.do_read, server.StreamServer.do_close, hub.spawn_raw,
                     socket.socket.close, pool.Group.spawn):
        path, line = first_statement(function)
        breakpoints[path].append(line)
    source, program = inspect.cleandoc(PROGRAM).split('\n'), side.script(PROGRAM)
    (line,) = [number for number, text in enumerate(source, 2) if 'breakpoint' in text]
    breakpoints[program].append(line)
    with debugged(side, PYDEVD_USE_SYS_MONITORING=monitoring,
                  GEVENT_CBASE_WITHOUT=without) as client:
        client.attach(breakpoints)
        stacks = list(client.stops())
    stops = collections.Counter(stack[0] for stack in stacks)
    assert stops.pop('handle') == 3
    in_handler = [stack for stack in stacks if stack[0] == 'handle']
    assert in_handler == [['handle', '_handle_and_close_when_done'] if side.stock
                          else ['handle']] * 3
    expected = {'do_read', 'do_close', 'close', 'spawn_raw', 'spawn'}
    if not side.stock:
        expected = {'': set(), 'sockets': {'do_read', 'do_close', 'close'},
                    'all': expected}[without]
    assert set(stops) == expected
