"""How the programs of these tests are run."""
import os
import subprocess
import textwrap

from helpers import child_environ, python

FOLDER = os.path.dirname(os.path.abspath(__file__))

#: what keeps tools from talking to anybody
QUIET = {
    'DD_INSTRUMENTATION_TELEMETRY_ENABLED': 'false',
    'DD_REMOTE_CONFIGURATION_ENABLED': 'false',
    'DD_TRACE_STARTUP_LOGS': 'false',
    'DD_TRACE_AGENT_URL': 'http://127.0.0.1:9',
    'NEW_RELIC_DEVELOPER_MODE': 'true',
    'NEW_RELIC_LICENSE_KEY': '0' * 40,
}


class Side:
    """On whose class a program runs: that of gevent, or ours."""

    def __init__(self, name, folder):
        self.stock = name == 'gevent'
        self.folder = folder

    def install(self):
        """A line of a program: install() as this side has it."""
        return 'install = bool' if self.stock else 'from gevent_cbase import install'

    def script(self, source):
        """The path of a program."""
        path = os.path.join(self.folder, 'program.py')
        with open(path, 'w', encoding='utf-8') as file:
            file.write(textwrap.dedent(source))
        return path

    def printed(self, source, *args, **environ):
        """The lines that a program prints, run by ``python`` or ``python -m gevent_cbase``."""
        return self.output(python(self, self.script(source), *args), **environ)

    def output(self, command, **environ):
        """The lines that a command prints, which must end well."""
        done = self.run(command, **environ)
        assert done.returncode == 0, done.stderr + done.stdout
        return done.stdout.split('\n')[:-1]

    def run(self, command, **environ):
        """Run a command where the programs are."""
        return subprocess.run(
            command, cwd=self.folder, env=child_environ(FOLDER, **{**QUIET, **environ}), text=True,
            stdin=subprocess.DEVNULL, capture_output=True, timeout=100)
