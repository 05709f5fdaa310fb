"""Tests that run in a fresh interpreter, which has imported nothing of gevent yet.

So this module must not import gevent by itself, nor does one whose tests need that.
"""
import functools
import os
import subprocess
import sys


def in_child(function=None, **environ):
    """The test that runs *function* in a fresh interpreter, with *environ*, where warnings are
    errors; it must print nothing.
    """
    if function is None:
        return functools.partial(in_child, **environ)

    @functools.wraps(function)
    def test():
        from helpers import TESTS, child_environ
        folder = os.path.dirname(os.path.abspath(function.__code__.co_filename))
        code = 'import {0}; {0}.{1}.__wrapped__()'.format(function.__module__, function.__name__)
        done = subprocess.run(
            [sys.executable, '-W', 'error', '-c', code], text=True, timeout=100,
            env=child_environ(folder, TESTS, **environ), stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        assert (done.returncode, done.stdout) == (0, ''), done.stdout
    return test
