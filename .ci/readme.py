#!/usr/bin/env python3
"""Type README's commands as they are printed, in order, as somebody who has nothing yet would.

    .ci/readme.py VERSION ...

Each CPython that is found gets a fresh clone and a fresh environment of its own; those run at the
same time. A server is asked by HTTP and then stopped, as by Ctrl-C or by ``kill``. One command is
left out: all tests, which .ci/run types itself. Ends with status 1 if a command fails.
"""
import concurrent.futures
import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
LEFT_OUT = "python -m pip install -e '.[test]' && python -m pytest -n auto"
#: what a command names that serves -> the beginning of what the server answers
SERVING = {'wsgiref.simple_server:demo_app': 'Hello world!\n',
           'examples/wsgi_server.py': 'hello over http'}
#: seconds that a command may take, and a server until it answers or has ended
LIMIT, STOPPING = 600, 20
#: in a command, or what a server prints
ADDRESS = re.compile(r'127\.0\.0\.1:(\d+)')
#: one command has a fixed port
port_is_free = threading.Lock()


class Failure(Exception):
    """A command has failed; its text says how."""


def commands():
    """The lines of README's literal blocks."""
    with open(os.path.join(ROOT, 'README.rst'), encoding='utf-8') as file:
        lines = file.read().split('\n')
    inside = False
    for line in lines:
        if inside and line.startswith('    '):
            yield line[4:]
        elif line:
            inside = line.endswith('::') and not line.startswith('.. ')


def interpreter(version):
    """The path of ``python3.x``, or None."""
    try:
        return subprocess.check_output(
            ['python' + version, '-c', 'import sys; print(sys.executable)'], text=True,
            stderr=subprocess.DEVNULL).strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def environment(venv):
    """As in a new shell that has activated *venv*."""
    not_ours = 'PYTHON', 'GEVENT', 'PURE_PYTHON', 'VIRTUAL_ENV', 'PYTEST', 'CFLAGS'
    env = {name: value for name, value in os.environ.items() if not name.startswith(not_ours)}
    return dict(env, PATH=os.path.join(venv, 'bin') + os.pathsep + env['PATH'])


class Shell:
    """A command that runs, in a group of processes of its own, as in a terminal."""

    running = set()
    is_over = False

    def __init__(self, command, tree, env):
        if Shell.is_over:
            raise Failure('it was not started any more')
        self.output = tempfile.TemporaryFile('w+')
        self.process = subprocess.Popen(
            ['bash', '-c', command], cwd=tree, env=env, stdin=subprocess.DEVNULL,
            stdout=self.output, stderr=subprocess.STDOUT, start_new_session=True)
        Shell.running.add(self)

    @classmethod
    def end_all(cls, *args):
        """A handler of signals: all that runs fails, and nothing more is started."""
        Shell.is_over = True
        for shell in list(Shell.running):
            with contextlib.suppress(ProcessLookupError):
                shell.send(signal.SIGKILL)

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        with contextlib.suppress(ProcessLookupError):
            self.send(signal.SIGKILL)
        self.process.wait()
        Shell.running.remove(self)
        self.output.close()

    def send(self, number):
        os.killpg(self.process.pid, number)

    def wait(self, seconds):
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise Failure('it has not ended after %d s\n%s' % (seconds, self.said())) from None

    def said(self):
        return os.pread(self.output.fileno(), 1 << 20, 0).decode(errors='replace')


def run(command, tree, env):
    with Shell(command, tree, env) as shell:
        status = shell.wait(LIMIT)
        if status != 0:
            raise Failure('exit status %d\n%s' % (status, shell.said()))


def serve(command, answer, number, tree, env):
    """Run a server, ask it, and stop it by the signal *number*."""
    fixed = ADDRESS.search(command)
    if fixed and socket.socket().connect_ex(('127.0.0.1', int(fixed[1]))) == 0:
        raise Failure('somebody else listens on port %s' % fixed[1])
    with Shell(command, tree, env) as shell:
        end = time.monotonic() + LIMIT
        while True:
            if shell.process.poll() is not None:
                raise Failure('it has ended\n' + shell.said())
            if time.monotonic() > end:
                raise Failure('nobody answers\n' + shell.said())
            time.sleep(0.1)
            where = fixed or ADDRESS.search(shell.said())
            if where is None:
                continue
            try:
                with urllib.request.urlopen('http://%s/' % where[0], timeout=STOPPING) as response:
                    got = response.read().decode()
                break
            except OSError as ex:
                if not isinstance(getattr(ex, 'reason', ex), ConnectionRefusedError):
                    raise Failure('%s\n%s' % (ex, shell.said())) from None
        if not got.startswith(answer):
            raise Failure('it answers %r' % got)
        shell.send(number)
        if shell.wait(STOPPING) not in (0, -number, 128 + number):
            raise Failure('exit status %d after %s\n%s' % (
                shell.process.returncode, number.name, shell.said()))


def type_all(version, python, folder):
    """All commands on a CPython."""
    tree, venv = os.path.join(folder, 'gevent_cbase'), os.path.join(folder, 'venv')
    subprocess.run(['git', 'clone', '-q', ROOT, tree], check=True)
    subprocess.run([python, '-m', 'venv', venv], check=True)
    env = environment(venv)
    signals = [signal.SIGINT, signal.SIGTERM]
    for command in commands():
        if command == LEFT_OUT:
            continue
        answers = [answer for name, answer in SERVING.items() if name in command]
        start = time.monotonic()
        try:
            if answers:
                signals.reverse()
                with port_is_free if ADDRESS.search(command) else contextlib.nullcontext():
                    serve(command, answers[0], signals[0], tree, env)
            else:
                run(command, tree, env)
        except Failure as ex:
            raise Failure('%s: %s\n%s' % (version, command, ex)) from None
        print('%s, %3d s: %s' % (version, time.monotonic() - start, command), flush=True)


def main(versions):
    found = {version: python for version in versions if (python := interpreter(version))}
    for version in versions:
        if version not in found:
            print('no CPython %s here' % version)
    if not found or LEFT_OUT not in commands():
        sys.exit('no CPython, or README without its test command')
    for number in signal.SIGINT, signal.SIGTERM:
        signal.signal(number, Shell.end_all)
    with tempfile.TemporaryDirectory() as work, \
            concurrent.futures.ThreadPoolExecutor(len(found)) as pool:
        tasks = []
        for version, python in found.items():
            folder = os.path.join(work, version)
            os.mkdir(folder)
            tasks.append(pool.submit(type_all, version, python, folder))
        failures = [task.exception() for task in tasks if task.exception()]
    for failure in failures:
        print('FAILED on ' + str(failure))
    sys.exit(bool(failures))


if __name__ == '__main__':
    main(sys.argv[1:])
