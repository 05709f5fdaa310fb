"""coverage, yappi, memray and py-spy: what they tell of handlers."""
import json
import os
import re
import subprocess

import pytest

from helpers import PLAIN, child_environ, python
from sides import FOLDER

#: the frames of a handler; gevent's function below it is not there with ours, as README says
BELOW = {True: ['_handle_and_close_when_done'], False: []}

HANDLERS = '''\
import gevent

def handle(sock, address):
    data = b'sent'
    if not address:
        data = b'never'
    gevent.sleep(0)
    reply(sock, data)

def reply(sock, data):
    for byte in data:
        sock.sendall(bytes([byte]))

def in_hub(sock, address):
    reply(sock, b'hub')
'''
SERVE = '''
import served
from handlers import handle, in_hub
for name, spawn in served.spawns().items():
    print(name, *[reply.decode() for reply in served.talk(handle if spawn else in_hub, spawn, 2)])
'''
SERVED = ['default sent sent', 'raw sent sent', 'pool sent sent', 'hub hub hub']


@pytest.fixture
def handlers(side):
    """A module beside the program."""
    with open(os.path.join(side.folder, 'handlers.py'), 'w', encoding='utf-8') as file:
        file.write(HANDLERS)


@pytest.mark.parametrize('core, options, tracer', [
    ('ctrace', ['--concurrency=gevent'], 'CTracer'),
    ('ctrace', ['--concurrency=gevent', '--branch'], 'CTracer'),
    ('sysmon', ['--concurrency=gevent'], 'CTracer'),  # which sysmon cannot do
    ('sysmon', [], 'SysMonitor'),
], ids=['ctrace', 'branches', 'gevent', 'sysmon'])
def test_coverage(side, handlers, core, options, tracer):
    """The lines of handlers that ran."""
    program = side.script('''
        import coverage
        print(coverage.Coverage.current()._collector.tracer_name())
        ''' + SERVE.replace('\n', '\n        '))
    command = [*python(PLAIN, '-m', 'coverage', 'run'), '--include=*/handlers.py', *options,
               *python(side, program)[1:]]
    assert side.output(command, COVERAGE_CORE=core) == [tracer, *SERVED]
    side.output(python(PLAIN, '-m', 'coverage', 'json', '-o', 'report'))
    with open(os.path.join(side.folder, 'report'), encoding='utf-8') as report:
        (file,) = json.load(report)['files'].values()
    assert file['executed_lines'] == [1, 3, 4, 5, 7, 8, 10, 11, 12, 14, 15]
    assert file['missing_lines'] == [6]
    if '--branch' in options:
        assert file['executed_branches'] == [[5, 7], [11, -10], [11, 12]]


@pytest.mark.parametrize('clock', ['cpu', 'wall'])
@pytest.mark.parametrize('backend', ['native_thread', 'greenlet'])
def test_yappi(side, handlers, clock, backend):
    """Calls of the functions of handlers, and kinds of greenlets."""
    lines = side.printed('''
import yappi
yappi.set_clock_type(%r)
yappi.set_context_backend(%r)
yappi.start()
''' % (clock, backend) + SERVE + '''
yappi.stop()
for function in sorted(yappi.get_func_stats(), key=lambda function: function.name):
    if 'handlers.py' in function.module and function.name != '<module>':
        print(function.name, function.ncall)
if %r == 'greenlet':
    print(*sorted({one.name for one in yappi.get_greenlet_stats()} - {'_WorkerGreenlet'}))
''' % backend)
    assert lines == SERVED + ['handle 6', 'in_hub 2', 'reply 8'] + [
        'Greenlet Hub TrackedRawGreenlet greenlet'] * (backend == 'greenlet')


@pytest.mark.parametrize('options', [[], ['--trace-python-allocators'], ['--native']],
                         ids=['plain', 'python', 'native'])
def test_memray(side, tool, options):
    """Who allocated how much."""
    program = side.script('''
        import gevent
        import served

        def handle(sock, address):
            data = bytearray(5 << 20)
            gevent.sleep(0)
            sock.sendall(b'%d' % len(data))

        for name in 'default', 'raw', 'pool':
            print(name, *served.talk(handle, served.spawns()[name], 2))
        ''')
    assert side.output([tool('memray'), 'run', '-q', '-o', 'memory', *options,
                        *python(side, program)[1:]]) == [
        "%s b'5242880' b'5242880'" % name for name in ('default', 'raw', 'pool')]
    lines = side.output(python(PLAIN, '-c', '''if 1:
        import memray
        for record in memray.FileReader('memory').get_allocation_records():
            if 5 << 20 < record.size < 6 << 20:
                print(*[name for name, path, line in record.stack_trace()])
        '''))
    assert lines == [' '.join(['handle', *BELOW[side.stock]])] * 6


@pytest.mark.parametrize('spawn', ['default', 'raw', 'pool', 'hub'])
def test_py_spy(side, tool, spawn):
    """The stack of a handler that is at work, at one moment and over a second."""
    end = os.path.join(side.folder, 'end')
    program = side.script('''
        import os, sys, time
        import served

        def handle(sock, address):
            print('at work', flush=True)
            limit = time.monotonic() + 60
            while not os.path.exists(%r):
                assert time.monotonic() < limit
            sock.sendall(b'sent')

        print(served.talk(handle, served.spawns()[%r])[0].decode())
        ''' % (end, spawn))
    process = subprocess.Popen(python(side, program), text=True, env=child_environ(FOLDER),
                               stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    try:
        assert process.stdout.readline() == 'at work\n'
        dump = json.loads('\n'.join(side.output(
            [tool('py-spy'), 'dump', '--json', '--pid', str(process.pid)])))
        side.output([tool('py-spy'), 'record', '--format', 'raw', '--duration', '1',
                     '--output', 'samples', '--pid', str(process.pid)])
        open(end, 'w').close()
        assert process.communicate(timeout=60)[0] == 'sent\n'
        assert process.returncode == 0
    finally:
        process.kill()
        process.communicate()
    (dumped,) = [[frame['name'] for frame in thread['frames']] for thread in dump
                 if thread['thread_name'] == 'MainThread']
    with open(os.path.join(side.folder, 'samples'), encoding='utf-8') as file:
        stacks = [re.sub(r' \([^)]*\)| \d+$', '', line.strip()).split(';') for line in file]
    sampled = [stack[::-1] for stack in stacks if 'handle' in stack]
    assert sampled
    below = BELOW[side.stock]
    if spawn == 'hub':
        below = below + ['BaseServer.do_handle', 'BaseServer._do_read'] * side.stock + ['Hub.run']
    for names in dumped, *sampled:
        assert names[names.index('handle') + 1:] == below
