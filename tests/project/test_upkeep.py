"""What those who carry on read and use: is it true of the tree?"""
import os
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree

import pytest

import gevent_cbase
from gevent_cbase._native.paths import FAST_PATHS
from helpers import ROOT, child_environ, text_of

TEMPLATES = ['.github/ISSUE_TEMPLATE/%s.md' % name for name in ('bug', 'difference', 'speed')]


def test_same_tools_before_a_commit():
    """pre-commit has what nox's lint has, in the same versions."""
    lint = text_of('noxfile.py').partition('\ndef lint(')[2].partition('\n\n\n')[0]
    pinned = re.findall(r"'([\w-]+==[\d.]+)'", lint)
    assert len(pinned) == 3
    assert re.findall(r'additional_dependencies: \[(.*)\]',
                      text_of('.pre-commit-config.yaml')) == pinned


def test_version_and_changes():
    """What is not released is called so in both."""
    version, tag = re.search(r'^(\d+\.\d+\.\d+) \((.*)\)\n-+$', text_of('CHANGES.rst'),
                             re.M).groups()
    if tag == 'unreleased':
        version += '.dev0'
    else:
        assert re.fullmatch(r'\d{4}-\d\d-\d\d', tag)
    assert version == gevent_cbase.__version__
    stable = re.fullmatch(r'[1-9][\d.]*', version)
    assert re.findall(r'"Development Status :: (.*)"', text_of('pyproject.toml')) == [
        '5 - Production/Stable' if stable else '4 - Beta']


def test_wheels_of_the_workflow():
    """It has the cibuildwheel whose choice of wheels is checked, and asks the index for trust."""
    (pinned,) = re.findall(r"^CIBUILDWHEEL = '(.*)'", text_of('noxfile.py'), re.M)
    workflow = text_of('.github/workflows/wheels.yml')
    assert 'pipx run %s --output-dir' % pinned in workflow
    assert workflow.count('id-token: write') == 1 and 'password' not in workflow
    assert 'environment: pypi' in workflow


def test_one_gunicorn():
    """Every extra that has gunicorn has the same oldest one."""
    found = re.findall(r'^(?:gunicorn = \[|    )"gunicorn(.*?)"', text_of('pyproject.toml'), re.M)
    assert found == ['>=25'] * 3


@pytest.mark.parametrize('document', ['SECURITY.rst', 'docs/releasing.rst'])
def test_files_that_are_named(document):
    for name in re.findall(r'``([\w./]+\.(?:rst|py|toml)|\.ci/run)``', text_of(document)):
        folder = 'gevent_cbase' if name.startswith('_') else ''
        assert os.path.exists(os.path.join(ROOT, folder, name)), name


def test_sessions_that_are_named():
    for document in 'CONTRIBUTING.rst', 'docs/releasing.rst':
        for session in re.findall(r'nox -s ([a-z]+\d*)', text_of(document)):
            assert '\ndef %s(session' % session in text_of('noxfile.py')


@pytest.mark.parametrize('name', TEMPLATES)
def test_issue_templates(name):
    """They ask what is needed first, and name switches that there are."""
    text = text_of(name)
    assert re.match(r'---\nname: .+\nabout: .+\nlabels: \w+\n---\n', text)
    assert '`python -m gevent_cbase --info`' in text
    assert 'GEVENT_CBASE=0' in text
    documents = text_of('docs/using.rst')
    for variable in set(re.findall(r'GEVENT_CBASE\w*=\w*', text)):
        assert variable.partition('=')[0] + '=' in documents


def test_fast_paths_in_the_template():
    text = text_of('.github/ISSUE_TEMPLATE/bug.md')
    (listed,) = re.findall(r'one name: (.*?)\. Which one', text, re.S)
    assert re.findall(r'`(\w+)`', listed) == list(FAST_PATHS)


def test_limit_of_coverage():
    """The limit that nox holds is the one that is written down."""
    (limit,) = re.findall(r'^C_COVERAGE = (\d+) ', text_of('noxfile.py'), re.M)
    assert 'below %s %% of the C lines' % limit in ' '.join(text_of('CONTRIBUTING.rst').split())


def test_picture_is_drawn_by_hand():
    """Text is text, which a reader finds and copies; and there is a dark one in it."""
    source = text_of('docs/architecture.svg')
    assert len(source) < 8000
    tree = xml.etree.ElementTree.fromstring(source)
    words = {word for text in tree.iter('{http://www.w3.org/2000/svg}text')
             for word in ''.join(text.itertext()).split()}
    assert {'src/server/', 'src/native/', 'src/python/', 'accept_loop.c'} <= words
    assert '@media (prefers-color-scheme: dark)' in source
    assert '.. image:: architecture.svg\n' in text_of('docs/architecture.rst')


README = """\
Usage::

    echo $VIRTUAL_ENV$PYTHONPATH > said
    python examples/wsgi_server.py
    python -m pip install -e '.[test]' && python -m pytest -n auto

No command: see below.

.. code-block:: python

    import nothing

After that::

    %s
"""
SERVER = """\
import http.server
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(%r)
server = http.server.HTTPServer(('127.0.0.1', 0), Handler)
print('127.0.0.1:%%d' %% server.server_port, flush=True)
server.serve_forever()
"""
VERSION = '%d.%d' % sys.version_info[:2]


@pytest.mark.parametrize('last, answer, failure', [
    ('test "$(cat said)" = "" && python -c "import sys; sys.exit(sys.prefix == sys.base_prefix)"',
     b'hello over http', None),
    ('echo why; false', b'hello over http', 'echo why; false\nexit status 1\nwhy\n'),
    ('true', b'goodbye', "python examples/wsgi_server.py\nit answers 'goodbye'\n"),
], ids=['right', 'command', 'server'])
def test_ci_types_readme(tmp_path, last, answer, failure):
    """In a fresh clone and a fresh environment; what fails there fails."""
    for folder in '.ci', 'examples':
        (tmp_path / folder).mkdir()
    shutil.copy(os.path.join(ROOT, '.ci', 'readme.py'), tmp_path / '.ci')
    (tmp_path / 'README.rst').write_text(README % last)
    (tmp_path / 'examples' / 'wsgi_server.py').write_text(SERVER % answer)
    for command in ('init -q', 'add .', '-c user.name=a -c user.email=b commit -q -m all'):
        subprocess.run(['git', *command.split()], cwd=tmp_path, check=True)
    path = os.path.join(sys.base_prefix, 'bin') + os.pathsep + os.environ['PATH']
    done = subprocess.run([sys.executable, '.ci/readme.py', VERSION, '2.0'], cwd=tmp_path,
                          env=child_environ(PATH=path), text=True, capture_output=True)
    assert done.stderr == ''
    assert done.stdout.startswith('no CPython 2.0 here\n')
    assert 'pytest' not in done.stdout and 'nothing' not in done.stdout
    if failure is None:
        assert done.returncode == 0
        assert re.sub(r' +\d+ s', '', done.stdout).split('\n')[1:] == [
            '%s,: %s' % (VERSION, command) for command in (
                'echo $VIRTUAL_ENV$PYTHONPATH > said', 'python examples/wsgi_server.py', last)
        ] + ['']
    else:
        assert done.returncode == 1
        assert 'FAILED on %s: %s' % (VERSION, failure) in done.stdout
