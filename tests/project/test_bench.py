"""``python -m gevent_cbase.bench``, with the smallest sizes; no test looks at how fast it was.

With --check the handlers tell of each call and what has run them, and the benchmark fails if there
was one more or less than the load generator has made, or one that was spawned in another way.
"""
import argparse
import contextlib
import importlib.util
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from helpers import child_environ, text_of, wait_for

LIMIT = 60
CACHE = sys.version_info >= (3, 11)  # older CPythons have no data stack
GEVENT = ['gevent', 'gevent_cbase', 'gevent_cbase without cache']


def has(*modules):
    return all(importlib.util.find_spec(module) for module in modules)


def command(*args):
    return [sys.executable, '-m', 'gevent_cbase.bench', *args]


def bench(*args, **more):
    return subprocess.run(command(*args), env=child_environ(**more), text=True,
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, timeout=LIMIT)


def measured(tmp_path, *args):
    """Run a benchmark that succeeds; its standard output, and what it wrote as JSON."""
    file = tmp_path / 'figures.json'
    done = bench(*args, '--json', str(file))
    assert (done.returncode, done.stderr) == (0, '')
    return done.stdout, json.loads(file.read_text())


def rows(figures, *keys):
    return [tuple(result[key] for key in (*keys, 'implementation'))
            for result in figures['results']]


def test_connections(tmp_path):
    text, figures = measured(tmp_path, 'connections', '--check', '--rounds', '2',
                             '--connections', '300', '--spawn', 'default', '--shortest', '0')
    others = ['uvloop Protocol', 'uvloop streams'] if has('uvloop') else []
    names = GEVENT + others + ['asyncio Protocol', 'raw C']
    assert rows(figures, 'transport') == [
        (transport, name) for transport in ('tcp', 'unix') for name in names]
    # two rounds and the warm-up
    assert figures['served'] == 2 * len(names) * 3 * 300
    assert figures['skipped'] == ([] if others else [
        ['uvloop Protocol', 'uvloop is not installed'],
        ['uvloop streams', 'uvloop is not installed']])
    for result in figures['results']:
        assert len(result['rounds']) == 2
        assert min(result['rounds']) > 0
        assert result['median'] == pytest.approx(sum(result['rounds']) / 2)
        if result['implementation'] == 'gevent':
            assert result['ratio'] is None
            base = result['rounds']
        else:
            ratios = [mine / theirs for mine, theirs in zip(result['rounds'], base)]
            assert result['ratio'] == {
                'to': 'gevent', 'median': pytest.approx(sum(ratios) / 2), 'min': min(ratios),
                'max': max(ratios), 'rounds': ratios}
    assert text.startswith('CPU of the server per connection: medians of 2 rounds of 300 ')
    assert 'tcp, spawn=default' in text and 'unix, spawn=default' in text
    assert 'Note: what has no spawn is compared to gevent with spawn=default\n' in text
    assert ('Skipped: uvloop Protocol (uvloop is not installed)' in text) is (not others)


@pytest.mark.parametrize('clients', ['close', 'wait'])
def test_each_way_to_spawn(tmp_path, clients):
    _, figures = measured(tmp_path, 'connections', '--check', '--rounds', '1', '--count', '40',
                          '--spawn', 'raw,pool,none', '--transport', 'unix',
                          '--only', 'gevent,gevent_cbase', '--clients', clients)
    assert figures['settings']['clients'] == clients
    assert rows(figures, 'transport', 'spawn') == [
        ('unix', spawn, name) for spawn in ('raw', 'pool', 'none')
        for name in ('gevent', 'gevent_cbase')]
    assert figures['served'] == 6 * 2 * 40


def test_wrong_spawn_is_noticed(tmp_path):
    """A server that runs its handlers in another way than it was asked to."""
    (tmp_path / 'sitecustomize.py').write_text("import gevent; gevent.spawn_raw = gevent.spawn\n")
    path = os.pathsep.join([str(tmp_path), child_environ()['PYTHONPATH']])
    done = bench('connections', '--check', '--rounds', '1', '--count', '40', '--spawn', 'raw',
                 '--transport', 'unix', '--only', 'gevent', PYTHONPATH=path)
    assert (done.returncode, done.stdout) == (1, '')
    assert done.stderr == (
        'gevent_cbase.bench: gevent, spawn=raw: served by spawn=d..., not what was asked for\n')


def test_wsgi(tmp_path):
    _, figures = measured(tmp_path, 'wsgi', '--check', '--rounds', '1', '--requests', '40')
    servers = ['pywsgi']
    if has('gunicorn', 'flask'):
        servers.append('gunicorn with Flask')
    else:
        assert [name for name, _ in figures['skipped']] == ['gunicorn']
    assert rows(figures, 'server', 'mode') == [
        (server, mode, name) for server in servers
        for mode in ('one request a connection', 'keep-alive') for name in GEVENT]
    assert figures['served'] == 6 * len(servers) * 2 * 40
    for result in figures['results']:
        assert list(result['latency']) == ['p50', 'p90', 'p99']
        times = [result['latency'][name]['median'] for name in ('p50', 'p90', 'p99')]
        assert times == sorted(times) and times[0] > 0


MODES = ['ready', 'paced', 'once', 'udp']


@pytest.mark.parametrize('mode', MODES)
def test_io(tmp_path, mode):
    text, figures = measured(tmp_path, 'io', '--check', '--rounds', '2', '--count', '90',
                             '--mode', mode, '--size', '100,65536', '--clients', '1,40',
                             '--shortest', '0')
    others = ['uvloop Protocol', 'uvloop streams'] if has('uvloop') else []
    sizes, skipped = (100, 65536), []
    if not others:
        skipped = [[name, 'uvloop is not installed']
                   for name in ('uvloop Protocol', 'uvloop streams')]
    if mode == 'udp':
        sizes = (100,)
        if others:
            others.pop()
            skipped = [['udp, uvloop streams', 'there are no streams of datagrams']]
        skipped.append(['udp, 65536 B', 'gevent receives 8192 bytes of a datagram'])
    names = ['gevent', 'gevent_cbase', *others, 'asyncio Protocol', 'raw C']
    assert figures['skipped'] == skipped
    assert rows(figures, 'mode', 'size', 'clients') == [
        (mode, size, clients, name)
        for size in sizes for clients in (1, 40) for name in names]
    # two rounds and the warm-up
    assert figures['served'] == len(sizes) * 2 * len(names) * 3 * 90
    assert mode + ', 100 B, 40 at once ' in text
    for result in figures['results']:
        assert len(result['rounds']) == 2 and min(result['rounds']) > 0
        assert (result['ratio'] is None) is (result['implementation'] == 'gevent')
        times = [result['latency'][name]['median'] for name in ('p50', 'p90', 'p99')]
        assert times == sorted(times) and times[0] > 0
        assert 'calls' not in result


ONE_CASE = ['io', '--rounds', '1', '--count', '40', '--mode', 'paced', '--size', '100',
            '--clients', '2', '--only', 'gevent,gevent_cbase']
NO_STRACE = ['system calls', 'strace is not installed']


def test_system_calls(tmp_path):
    """A false strace, which writes what the true one would have written of 40 messages."""
    strace = tmp_path / 'strace'
    strace.write_text("""#!%s
import signal, sys
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
with open(sys.argv[sys.argv.index('-o') + 1], 'w') as file:
    for number in range(40):
        file.write('12 recvfrom(9, ""..., 100, 0, NULL, NULL) = 100\\n')
        file.write('12 sendto(9, ""..., 100, 0, NULL, 0 <unfinished ...>\\n')
        file.write('12 <... sendto resumed>) = 100\\n')
    for number in range(10):
        file.write('epoll_wait(5, [], 64, 0) = -1 EINTR\\n')
    file.write('12 --- SIGCHLD {si_signo=SIGCHLD} ---\\n')
print('strace: Process', sys.argv[-1], 'attached', file=sys.stderr, flush=True)
signal.sigwait([signal.SIGINT])
""" % sys.executable)
    strace.chmod(0o755)
    done = bench(*ONE_CASE, '--check', '--system-calls', '--json', str(tmp_path / 'json'),
                 PATH=str(tmp_path))
    assert (done.returncode, done.stderr) == (0, '')
    figures = json.loads((tmp_path / 'json').read_text())
    assert figures['served'] == 2 * 3 * 40  # a round, the warm-up, and what was counted
    assert [result['calls'] for result in figures['results']] == [
        {'recvfrom': 1, 'sendto': 1, 'epoll_wait': 0.25}] * 2
    assert done.stdout.count('  system calls\n') == 1
    assert len([line for line in done.stdout.split('\n') if line.endswith('  2.2')]) == 2


def test_system_calls_by_the_true_strace(tmp_path):
    _, figures = measured(tmp_path, *ONE_CASE, '--system-calls')
    if figures['skipped']:  # it is not there, or may not attach
        assert [name for name, _ in figures['skipped']] == ['system calls']
        assert 'strace' in figures['skipped'][0][1]
        return
    for result in figures['results']:
        assert result['calls']['sendto'] == 1
        assert result['calls']['recvfrom'] >= 1


@pytest.mark.parametrize('script, reason', [
    (None, 'strace is not installed'),
    ('echo strace: may not >&2', 'strace: may not'),
    ('exit 1', 'strace has ended'),
])
def test_system_calls_that_cannot_be_counted(tmp_path, script, reason):
    if script is not None:
        strace = tmp_path / 'strace'
        strace.write_text('#!/bin/sh\n%s\n' % script)
        strace.chmod(0o755)
    done = bench(*ONE_CASE, '--system-calls', PATH=str(tmp_path))
    assert (done.returncode, done.stderr) == (0, '')
    assert done.stdout.endswith('Skipped: system calls (%s)\n' % reason)
    assert '  system calls\n' not in done.stdout


@pytest.mark.parametrize('args', [
    ['connections', '--transport', 'unix', '--spawn', 'raw', '--only', 'gevent,gevent_cbase'],
    ['wsgi', '--server', 'pywsgi', '--only', 'gevent,gevent_cbase'], ONE_CASE,
], ids=lambda args: args[0])
def test_a_round_that_is_too_short(tmp_path, args):
    text, figures = measured(tmp_path, *args, '--check', '--rounds', '2', '--count', '40',
                             '--shortest', '100000')
    rounds = text.count('too short to measure')
    note = ('too short to measure: the server has used no more than 100000 ms of CPU in a round; '
            '--count makes it longer')
    assert rounds == len(figures['results']) + 1
    assert figures['notes'][-1] == note and 'Note: %s\n' % note in text
    for result in figures['results']:
        assert result['rounds'] == [None, None]
        assert result['median'] is None and result['ratio'] is None
    if args[0] != 'connections':
        assert all(result['latency']['p50']['median'] > 0 for result in figures['results'])


def test_a_chart_of_what_is_too_short(tmp_path):
    if has('matplotlib'):
        file = tmp_path / 'chart.svg'
        done = bench(*ONE_CASE, '--shortest', '100000', '--plot', str(file))
        assert (done.returncode, done.stderr) == (0, '')
        assert file.read_text().count('too short to measure') == 2


def written(folder, version, rounds, ratios, benchmark='connections', **settings):
    """What a benchmark writes for gevent, with 40 µs, and for gevent_cbase; the path."""
    case = {'transport': 'tcp', 'spawn': 'default'} if benchmark == 'connections' else {
        'mode': 'once', 'size': 1024, 'clients': 16}
    file = folder / ('%s-%s-%d.json' % (benchmark, version, rounds))
    file.write_text(json.dumps({
        'benchmark': benchmark, 'settings': dict(settings, rounds=rounds),
        'versions': {'python': version + '.1', 'gevent': '26.9.0'},
        'machine': {'system': 'Linux 6', 'cpu': 'a processor', 'cores': 2},
        'results': [
            {**case, 'implementation': 'gevent', 'median': 40, 'ratio': None},
            {**case, 'implementation': 'gevent_cbase', 'median': 40 * ratios[1],
             'ratio': dict(zip(('min', 'median', 'max'), ratios))}]}))
    return str(file)


def test_summary(tmp_path):
    """A row of each CPython, in order; a later file counts; what was not measured is a dash."""
    done = bench('summary', written(tmp_path, '3.13', 3, (0.9, 0.9, 0.9), clients='wait'),
                 written(tmp_path, '3.13', 5, (0.41, 0.449, 0.5), clients='wait'),
                 written(tmp_path, '3.9', 5, (0.3, 0.35, 1.25), clients='close'),
                 written(tmp_path, '3.13', 7, (0.2, 0.25, 0.3), 'io'))
    assert (done.returncode, done.stderr) == (0, '')
    first, second, third = done.stdout.split('\n\n')
    assert first == '\n'.join([
        '=======  ================  =====================  =====================  ========',
        'CPython  empty connection  request, reply, close  echo, connection kept  UDP echo',
        '=======  ================  =====================  =====================  ========',
        '3.9      –                 –                      –                      –',
        '3.13     0.45 (0.41–0.50)  0.25 (0.20–0.30)       –                      –',
        '=======  ================  =====================  =====================  ========'])
    assert second.split('\n')[1].split('  ') == [
        'CPython', 'pywsgi', 'pywsgi, keep-alive', 'gunicorn', 'gunicorn, keep-alive']
    assert third.split('\n')[3].split() == ['3.9', '0.35', '(0.30–1.25)', '–', '–', '–']


def test_chart_of_a_summary(tmp_path):
    """It says what it shows, of which Python, and how many rounds were measured."""
    if not has('matplotlib'):
        return
    chart = tmp_path / 'chart.svg'
    files = [written(tmp_path, '3.13', 5, (0.41, 0.449, 0.5), clients='wait'),
             written(tmp_path, '3.13', 7, (0.2, 0.25, 0.3), 'io'),
             written(tmp_path, '3.12', 5, (0.3, 0.35, 1.25), clients='wait')]
    for args, texts in (
            ([], ['gevent = 1: less is better', '×0.45   18.0 µs', '×0.25   10.0 µs', '40.0 µs',
                  'median of 5 or 7 rounds', 'CPython 3.13.1, gevent 26.9.0', 'a processor']),
            (['--python', '3.12'], ['×0.35   14.0 µs', 'CPython 3.12.1', 'median of 5 rounds'])):
        done = bench('summary', *files, '--plot', str(chart), *args)
        assert (done.returncode, done.stderr) == (0, '')
        drawn = chart.read_text()
        for text in texts:
            assert text in drawn
    assert '×0.45' not in drawn
    done = bench('summary', *files, '--plot', str(chart), '--python', '3.10')
    assert (done.returncode, done.stderr) == (
        1, 'gevent_cbase.bench: --plot: the files have nothing of CPython 3.10 to draw\n')


@pytest.mark.parametrize('content, message', [
    (None, 'No such file or directory'), ('x', None), ('[]', None), ('{"versions": {}}', None),
    ('{"versions": {"python": "3.13.1"}}', None)])
def test_summary_of_something_else(tmp_path, content, message):
    file = tmp_path / 'file.json'
    if content is not None:
        file.write_text(content)
    done = bench('summary', str(file))
    assert (done.returncode, done.stdout) == (1, '')
    assert done.stderr == 'gevent_cbase.bench: %s%s\n' % (
        file, ': ' + message if message else ' is not what a benchmark has written')


@pytest.mark.parametrize('name, own', [
    ('connections', ['--transport', '--spawn', '--only', '--clients', '--check', '--shortest']),
    ('wsgi', ['--server', '--only', '--clients', '--check', '--shortest']),
    ('io', ['--mode', '--size', '--clients', '--only', '--system-calls', '--check',
            '--shortest']),
    ('spawn', ['--python']),
    ('loop', []),
])
def test_help_shows_every_option(name, own):
    done = bench(name, '--help', COLUMNS='200')
    assert (done.returncode, done.stderr) == (0, '')
    shown = set(re.findall(r'^  (?:-h, )?(--[a-z-]+)', done.stdout, re.M))
    assert shown == {'--help', '--quick', '--json', '--plot', '--rounds', '--count', *own}
    help_of_summary = bench('summary', '--help', COLUMNS='200').stdout
    assert set(re.findall(r'^  (?:-h, )?(--[a-z-]+)', help_of_summary, re.M)) == {
        '--help', '--plot', '--python'}
    assert 'SUPPRESS' not in text_of('gevent_cbase/bench/__main__.py')


def test_spawn(tmp_path):
    _, figures = measured(tmp_path, 'spawn', '--rounds', '1', '--count', '250',
                          '--python', sys.executable, '--python', sys.executable)
    how = ['without cache'] + ['with cache'] * CACHE
    assert rows(figures, 'case') == [
        (case, name) for _ in range(2)
        for case in ('gevent.spawn', 'gevent.spawn_raw', 'greenlet') for name in how]
    assert figures['settings']['python'] == [sys.executable] * 2
    assert bool(figures['skipped']) is (not CACHE)


def test_loop(tmp_path):
    _, figures = measured(tmp_path, 'loop', '--rounds', '1', '--count', '500')
    names = ['gevent', 'gevent_cbase']
    if not figures['skipped']:
        names.append('gevent compiled with Cython')
    elif not has('Cython'):
        assert figures['skipped'] == [
            ['gevent compiled with Cython', 'Cython is not installed']]
    assert rows(figures, 'case') == [('dispatch only', name) for name in names]


def test_json_says_on_what_it_ran(tmp_path):
    _, figures = measured(tmp_path, 'spawn', '--rounds', '1', '--count', '100')
    assert list(figures) == ['benchmark', 'title', 'unit', 'date', 'settings', 'versions',
                             'machine', 'cores', 'notes', 'skipped', 'served', 'results']
    assert figures['benchmark'] == 'spawn' and figures['unit'] == 'us'
    assert figures['settings'] == {
        'rounds': 1, 'greenlets': 100, 'batch': 100, 'python': [sys.executable]}
    assert {'gevent', 'gevent_cbase', 'greenlet', 'python'} <= set(figures['versions'])
    assert figures['machine']['cores'] == os.cpu_count()
    assert all(figures['machine'].values())


@pytest.mark.parametrize('kind, start', [('svg', b'<?xml'), ('png', b'\x89PNG')])
def test_plot(tmp_path, kind, start):
    file = tmp_path / ('chart.' + kind)
    done = bench('spawn', '--rounds', '1', '--count', '100', '--plot', str(file))
    if not has('matplotlib'):
        assert (done.returncode, done.stdout) == (1, '')
        assert done.stderr.startswith('gevent_cbase.bench: --plot: matplotlib is not installed')
        return
    assert (done.returncode, done.stderr) == (0, '')
    assert file.read_bytes().startswith(start)


@pytest.mark.parametrize('args, message', [
    ([], 'no benchmark given: connections, wsgi, io, spawn, loop (see --help)'),
    (['loop', 'x'], 'unrecognized arguments: x (see --help)'),
    (['connections', '--spawn', 'raw,many'],
     "argument --spawn: unknown 'many', choose from default, raw, pool, none (see --help)"),
    (['wsgi', '--clients', '0'],
     "argument --clients: not a number above 0: '0' (see --help)"),
    (['io', '--size', '100,x'],
     "argument --size: not a number above 0: 'x' (see --help)"),
    (['io', '--check', '--count', '60001'],
     '--check: what a pipe holds is 60000 at most (see --help)'),
    (['loop', '--plot', 'chart.gif'], '--plot: the name must end in .svg or .png: chart.gif'),
    (['loop', '--json', 'no/such/folder.json'], '--json: cannot write no/such/folder.json'),
    (['spawn', '--python', 'no-such-python'],
     "no-such-python does not start: [Errno 2] No such file or directory: 'no-such-python'"),
])
def test_errors_take_one_line(args, message):
    done = bench(*args)
    assert done.stderr == 'gevent_cbase.bench: %s\n' % message
    assert done.stdout == '' and done.returncode in (1, 2)


def test_error_of_a_child_is_shown(tmp_path):
    python = tmp_path / 'python'
    python.write_text('#!/bin/sh\necho "no gevent here" >&2\nexit 1\n')
    python.chmod(0o755)
    done = bench('spawn', '--python', str(python))
    assert (done.returncode, done.stdout) == (1, '')
    assert done.stderr == 'gevent_cbase.bench: python has ended: no gevent here\n'


def test_one_core(tmp_path):
    core = min(os.sched_getaffinity(0))
    code = ('import os, sys; os.sched_setaffinity(0, {%d}); from gevent_cbase.bench import '
            '__main__; sys.exit(__main__.main())' % core)
    done = subprocess.run(
        [sys.executable, '-c', code, 'connections', '--rounds', '1', '--count', '20',
         '--transport', 'tcp', '--only', 'raw C'], env=child_environ(), text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=LIMIT)
    assert (done.returncode, done.stderr) == (0, '')
    assert 'Note: one core only: the server and its load share it\n' in done.stdout


def children_of(pid):
    with open('/proc/%d/task/%d/children' % (pid, pid)) as file:
        return [int(child) for child in file.read().split()]


def is_alive(pid):
    try:
        with open('/proc/%d/stat' % pid) as file:
            return file.read().rpartition(')')[2].split()[0] != 'Z'
    except OSError:
        return False


@pytest.mark.parametrize('number, status', [
    (signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)])
def test_nothing_is_left_when_it_is_ended(tmp_path, number, status):
    running = subprocess.Popen(
        command('connections', '--rounds', '100000', '--transport', 'unix',
                '--only', 'gevent,raw C', '--spawn', 'default'),
        env=child_environ(TMPDIR=str(tmp_path)), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        wait_for(lambda: len(children_of(running.pid)) == 2
                 and len(list(tmp_path.glob('bench-*/*'))) == 2)
        servers = children_of(running.pid)
        running.send_signal(number)
        out, err = running.communicate(timeout=LIMIT)
    finally:
        running.kill()
        running.wait()
    assert (running.returncode, out, err) == (status, b'', b'')
    wait_for(lambda: not any(map(is_alive, servers)))
    if number != signal.SIGKILL:
        assert list(tmp_path.iterdir()) == []


class Answering:
    """A server of the standard library: sends *answer* on every connection, and closes it."""

    def __init__(self, answer):
        self.answer = answer
        self.listener = socket.create_server(('127.0.0.1', 0), backlog=64)
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            with client, contextlib.suppress(OSError):  # the client may have given up
                client.recv(1000)
                client.sendall(self.answer)

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()


OK = b'HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n'


@pytest.mark.parametrize('answer, message', [
    (OK + b'ok', None),
    (OK + b'o', 'an answer is incomplete or too long'),
    (OK + b'oks', 'an answer is too long'),
    (OK.replace(b'200', b'500') + b'ok', 'an answer is not 200'),
    (b'HTTP/1.1 200 OK\r\n\r\nok', 'an answer has no Content-Length'),
    (b'', 'an answer is incomplete or too long'),
    (OK.replace(b'\r\n\r\n', b'\r\nX: ' + b'x' * 5000 + b'\r\n\r\n'),
     'an answer is incomplete or too long'),
])
def test_requests_look_at_the_answer(answer, message):
    from gevent_cbase import _load
    with Answering(answer) as server:
        def ask():
            return _load.requests(server.port, b'GET / HTTP/1.1\r\n\r\n', 5, 2, False)
        if message is None:
            seconds = ask()
            assert len(seconds) == 5 and min(seconds) > 0
        else:
            with pytest.raises(OSError, match=message + ': Protocol error'):
                ask()


@pytest.mark.parametrize('call, error', [
    (lambda load: load.connections(0, 100, 1, 1, True), ValueError),
    (lambda load: load.connections('', 100, 1, 1, True), ValueError),
    (lambda load: load.connections('x' * 200, 100, 1, 1, True), ValueError),
    (lambda load: load.connections(None, 100, 1, 1, True), TypeError),
    (lambda load: load.connections(1, 1, 1, 1, True), ValueError),
    (lambda load: load.connections(1, 100, 1, 0, True), ValueError),
    (lambda load: load.requests(1, b'', 1, 1, True), ValueError),
    (lambda load: load.requests(1, b'x', 1, 0, True), ValueError),
    (lambda load: load.tell_cpu_time(0, 1), OSError),
    (lambda load: load.echo((), b'x', 1, 1, 0), ValueError),
    (lambda load: load.echo((-1,), b'x', 1, 1, 0), ValueError),
    (lambda load: load.echo((0,), b'', 1, 1, 0), ValueError),
    (lambda load: load.echo((0,), b'x', 1, 17, 0), ValueError),
    (lambda load: load.echo((0,), b'x', 1, 1, -1), ValueError),
    (lambda load: load.echo((0,), b'x', 1, 2, 0.1), ValueError),
    (lambda load: load.echo([0], b'x', 1, 1, 0), TypeError),
    (lambda load: load.echo_once(1, b'', 1, 1), ValueError),
    (lambda load: load.echo_once(1, b'x', 1, 0), ValueError),
    (lambda load: load.accept_and_close(-1, -1), OSError),
])
def test_arguments_of_the_load_generator(call, error):
    from gevent_cbase import _load
    with pytest.raises(error):
        call(_load)


def answered(answer, message=b'hello', count=1, depth=1, pause=0, kind=socket.SOCK_STREAM):
    """Send *message* to somebody who has said *answer* already, and will say no more."""
    from gevent_cbase import _load
    client, server = socket.socketpair(socket.AF_UNIX, kind)
    with client, server:
        for part in answer if kind == socket.SOCK_DGRAM else [b''.join(answer)]:
            server.send(part)
        server.shutdown(socket.SHUT_WR)
        return _load.echo((client,), message, count, depth, pause)


def echo_in_groups(sock, group, size, count):
    """Answer *group* messages of *size* as soon as all of them are there, until it were *count*;
    no more may be there by then.
    """
    while count > 0:
        number = min(group, count)
        messages = [sock.recv(size, socket.MSG_WAITALL) for _ in range(number)]
        with pytest.raises(BlockingIOError):
            sock.recv(size, socket.MSG_DONTWAIT)
        for message in messages:
            sock.send(message)
        count -= number


@pytest.mark.parametrize('kind', [socket.SOCK_STREAM, socket.SOCK_DGRAM],
                         ids=['stream', 'datagram'])
@pytest.mark.parametrize('depth, pause', [(1, 0), (3, 0), (1, 0.001)])
def test_echo(kind, depth, pause):
    from gevent_cbase import _load
    client, server = socket.socketpair(socket.AF_UNIX, kind)
    with client, server, ThreadPoolExecutor() as pool:
        done = pool.submit(echo_in_groups, server, depth, 5, 7)
        seconds = _load.echo((client,), b'hello', 7, depth, pause)
        done.result(LIMIT)
    assert len(seconds) == 7 and min(seconds) > 0


CLOSED, WRONG = 'the server has closed a connection', 'an answer is not what was sent'


@pytest.mark.parametrize('answer, message', [
    ([], CLOSED), ([b'hel'], CLOSED), ([b'hello'], CLOSED), ([b'hellO'], WRONG),
    ([b'hello!'], WRONG), ([b'hello', b'Hello'], WRONG),
], ids=repr)
def test_echo_looks_at_the_answer(answer, message):
    with pytest.raises(OSError, match=message + ': Protocol error'):
        answered(answer, count=2)


@pytest.mark.parametrize('answer', [[b'hell'], [b'hello!'], [b'hellO'], [b'hello', b'']],
                         ids=repr)
def test_echo_looks_at_datagrams(answer):
    with pytest.raises(OSError, match=WRONG + ': Protocol error'):
        answered(answer, count=2, kind=socket.SOCK_DGRAM)


@pytest.mark.parametrize('answer, message', [
    (b'hello', None), (b'hell', CLOSED), (b'hello!', WRONG), (b'', CLOSED)])
def test_one_echo_a_connection(answer, message):
    from gevent_cbase import _load
    with Answering(answer) as server:
        if message is None:
            seconds = _load.echo_once(server.port, b'hello', 5, 2)
            assert len(seconds) == 5 and min(seconds) > 0
        else:
            with pytest.raises(OSError, match=message + ': Protocol error'):
                _load.echo_once(server.port, b'hello', 5, 2)


def test_answers_that_nobody_waits_for():
    """A client that pauses looks at what comes all the same."""
    with pytest.raises(OSError, match=WRONG):
        answered([b'hello'] * 2, count=2, pause=0.1)


def test_cpu_time_is_told_at_once():
    """To another process the clock of this one, which is busy, could lag behind ``before``."""
    code = """
import os, signal, sys, time
from gevent_cbase import _load
read, write = os.pipe()
_load.tell_cpu_time(signal.SIGRTMIN, write)
for _ in range(100):
    for _ in range(1000):
        pass
    before = time.process_time_ns()
    signal.raise_signal(signal.SIGRTMIN)
    after = time.process_time_ns()
    told = os.read(read, 100)
    assert told.endswith(b'\\n')
    assert before <= int(told) <= after, (before, told, after)
print('ok')
"""
    done = subprocess.run([sys.executable, '-c', code], env=child_environ(), text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=LIMIT)
    assert done.stdout == 'ok\n'


SERVERS = {
    'gevent': {'server': 'gevent', 'implementation': 'gevent', 'spawn': 'default'},
    'gevent_cbase': {'server': 'gevent', 'implementation': 'gevent_cbase', 'spawn': 'default'},
    'asyncio': {'server': 'asyncio', 'loop': 'asyncio', 'streams': False},
    'raw': {'server': 'raw'},
}


@pytest.mark.parametrize('name', SERVERS)
def test_cpu_time_of_a_round_does_not_change_later(tmp_path, name):
    from gevent_cbase import _load
    from gevent_cbase.bench.children import Server
    options = argparse.Namespace(check=False, shortest=0)
    settings = dict(SERVERS[name], name=name)
    with contextlib.closing(Server(settings, 'unix', str(tmp_path), None, options)) as server:
        start = server.cpu_seconds()
        used, _ = server.measure(
            lambda: _load.connections(server.where, server.pid, 20000, 100, False), 20000)
        at_once = server.cpu_seconds() - start
        time.sleep(0.1)
        assert used * 20000 / 1e6 == pytest.approx(at_once, rel=0.005)
        assert server.cpu_seconds() - start == pytest.approx(at_once, rel=0.005)


def test_connections_that_cannot_be_made():
    from gevent_cbase import _load
    with subprocess.Popen([sys.executable, '-c', 'input()'], stdin=subprocess.PIPE) as child:
        with pytest.raises(FileNotFoundError, match='connecting to the server'):
            _load.connections('/no/such/socket', child.pid, 10, 5, True)
        assert child.communicate(b'\n') and child.returncode == 0  # it was let go again
    with pytest.raises(OSError, match='stopping the server|waiting for the server'):
        _load.connections(1, child.pid, 1, 1, True)
