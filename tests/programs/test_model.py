"""gevent's servers and ours live through the same random lives: see model.py.

Each kind of server has a process of its own, as a crash would be one. They take the same lives
in each run, some seconds for all of them. With GEVENT_CBASE_TESTS=nightly in the environment
each has ten minutes, with other lives in each run; model.py prints their seeds.
"""
import json
import os
import subprocess
import sys

import pytest

from helpers import child_environ

NIGHTLY = os.environ.get('GEVENT_CBASE_TESTS') == 'nightly'
#: how often the same lives are lived before a difference counts: some handlers wait, and which of
#: two ends first is up to the system. A fault of the code is there each time.
TRIES = 1 if NIGHTLY else 3
#: that of the environment, and the one on which watchers live in a different way
LOOPS = list(dict.fromkeys([os.environ.get('GEVENT_LOOP', 'libev-cext'), 'libuv-cffi']))
MODEL = os.path.join(os.path.dirname(os.path.abspath(__file__)), 'model.py')


# the processes have limits of their own
pytestmark = pytest.mark.no_deadline


@pytest.mark.parametrize('loop', LOOPS)
@pytest.mark.parametrize('kind', ['stream', 'plain', 'wsgi', 'datagram'])
def test_same_lives(kind, loop):
    """After each operation results, errors, state, pools and clients are the same; no forked child
    crashes; and with stream servers most connections have been accepted natively, where that can
    be."""
    for _ in range(TRIES):
        process = subprocess.run(
            [sys.executable, '-X', 'faulthandler', MODEL, kind] + ['600'] * NIGHTLY,
            capture_output=True, text=True, timeout=1800 if NIGHTLY else 300,
            env=child_environ(GEVENT_LOOP=loop))
        if process.returncode <= 0:  # below: it has crashed
            break
    assert process.returncode == 0, process.stdout + process.stderr
    report = json.loads(process.stdout.splitlines()[-1])
    assert report['crashed'] == 0, process.stderr
    assert report['operations']['connect'] > 20
    if kind == 'stream' and report['sockets'] is None:
        assert report['native'] > report['python'] and report['native'] > 100, report
