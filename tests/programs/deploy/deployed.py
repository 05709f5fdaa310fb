"""The files of recipes/deploy, as they are but for addresses and paths, and what they are for."""
import contextlib
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys

from helpers import ROOT, child_environ, text_of, wait_for

RECIPES = os.path.join(ROOT, 'recipes', 'deploy')
CERTIFICATE = os.path.join(ROOT, 'examples', 'localhost.crt')
KEY = os.path.join(ROOT, 'examples', 'localhost.key')
LIMIT = 60


def program(name):
    """The path of a program of the system; Debian keeps some where only root looks."""
    path = shutil.which(name, path=os.environ['PATH'] + os.pathsep + '/usr/sbin')
    assert path, 'these tests need the program %s' % name
    return path


def put(folder, name, replaced=()):
    """The path of a copy in *folder* in which each key of *replaced*, which has to be there, is
    exchanged for its value.
    """
    text = text_of('recipes/deploy/' + name)
    for old, new in dict(replaced).items():
        assert old in text, '%s is not in %s' % (old, name)
        text = text.replace(old, new)
    path = folder / name
    path.write_text(text)
    return str(path)


def trusting():
    """For clients that check the certificate; it is for a name, and they connect to a number."""
    context = ssl.create_default_context(cafile=CERTIFICATE)
    context.check_hostname = False
    return context


def is_open(port):
    """Whether somebody accepts or will accept there."""
    with contextlib.suppress(ConnectionError):
        socket.create_connection(('127.0.0.1', port), timeout=LIMIT).close()
        return True


class Program:
    """A running program; what it says is in ``log()``."""

    def __init__(self, folder, name, command, **environ):
        self.path = folder / (name + '.log')
        with self.path.open('wb') as log:
            self.process = subprocess.Popen(
                command, cwd=folder, env=child_environ(**environ), stdin=subprocess.DEVNULL,
                stdout=log, stderr=log, start_new_session=True)

    def __enter__(self):
        return self

    def __exit__(self, *args):
        """Kill it and what it has started, which are a process group of their own."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def log(self):
        return self.path.read_text()

    def wait(self, condition):
        """Wait for what *condition* returns, as long as the program runs."""
        found = wait_for(lambda: self.process.poll() is not None or condition(), self.log)
        assert self.process.poll() is None, self.log()
        return found

    def listens(self, port):
        self.wait(lambda: is_open(port))
        return self

    def stop(self):
        self.process.terminate()
        assert self.process.wait(LIMIT) == 0, self.log()


class Gunicorn(Program):
    """gunicorn as gevent-cbase.service runs it, but for its path and its log."""

    #: a worker tells when it hears signals
    READY = ("loglevel = 'info'\n"
             "def post_worker_init(worker):\n"
             "    worker.log.info('Ready: %d', worker.pid)\n")

    def __init__(self, folder, *args, before=(), **environ):
        folder.mkdir()
        with open(put(folder, 'gunicorn.conf.py'), 'a') as file:
            file.write(self.READY)
        put(folder, 'app.py')
        (line,) = re.findall('^ExecStart=(.*)$', text_of('recipes/deploy/gevent-cbase.service'),
                             re.M)
        words = line.split()
        assert words[0] == '/srv/app/venv/bin/gunicorn'
        super().__init__(folder, 'gunicorn', [
            *before, sys.executable, '-m', 'gunicorn', *words[1:], *args], **environ)

    def ready(self):
        """How many workers have begun to work since it started."""
        return self.log().count('Ready: ')

    def stopped(self):
        return self.log().count('Worker exiting')

    def reload(self):
        """What "systemctl reload" does; return when the old workers have gone."""
        (line,) = re.findall('^ExecReload=(.*)$', text_of('recipes/deploy/gevent-cbase.service'),
                             re.M)
        assert line == '/bin/kill -HUP $MAINPID'
        ready, stopped = self.ready(), self.stopped()
        self.process.send_signal(signal.SIGHUP)
        self.wait(lambda: self.ready() == ready + 2 and self.stopped() == stopped + 2)
