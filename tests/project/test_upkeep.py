"""What those who carry on read and use: is it true of the tree?"""
import os
import re
import xml.etree.ElementTree

import pytest

import gevent_cbase
from gevent_cbase._native.paths import FAST_PATHS
from helpers import ROOT, text_of

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
    readme = text_of('README.rst')
    for variable in set(re.findall(r'GEVENT_CBASE\w*=\w*', text)):
        assert variable.partition('=')[0] + '=' in readme


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
