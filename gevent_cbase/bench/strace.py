"""The system calls of a process that runs, counted by strace."""
import collections
import contextlib
import os
import re
import shutil
import signal
import subprocess

from gevent_cbase.bench.children import PATIENCE, BenchError, Skip, is_readable

#: a line of a call that has begun; what is left is of signals, of the end, or of one resumed
CALL = re.compile(r'(?:\d+ +)?(\w+)\(')


def is_there():
    return shutil.which('strace') is not None


@contextlib.contextmanager
def counting(pid, folder):
    """Count the system calls of the process *pid* in a ``with`` block.

    Gives a dict, filled when the block ends. Writes to *folder*. Raises Skip if strace may not.
    """
    file = os.path.join(folder, 'strace')
    tracer = subprocess.Popen(
        ['strace', '-f', '-s', '0', '-o', file, '-p', str(pid)],
        stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, env=dict(os.environ, LC_ALL='C'))
    with tracer:
        try:
            await_attached(tracer)
            calls = collections.Counter()
            yield calls
            tracer.send_signal(signal.SIGINT)
            tracer.wait(PATIENCE)
        finally:
            tracer.kill()
    with open(file, errors='replace') as lines:
        calls.update(match[1] for match in map(CALL.match, lines) if match)


def await_attached(tracer):
    if not is_readable(tracer.stderr):
        raise BenchError('strace does not answer')
    line = tracer.stderr.readline().decode(errors='replace').strip()
    if not line.endswith('attached'):
        raise Skip(line or 'strace has ended')
