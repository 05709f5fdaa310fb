"""What install() returns, and the line that it tells the logger ``gevent_cbase``."""
import re
import sys

import pytest

import gevent_cbase
from children import in_child
from helpers import PLAIN, isolated, run_script

LINE = 'gevent_cbase %s is on: gevent ' % re.escape(gevent_cbase.__version__)
#: a program that shows what it logs, as (level, name, text)
LOGGING = '''
    import logging
    class Handler(logging.Handler):
        def emit(self, record):
            print(record.levelname, record.name, record.getMessage())
    logging.getLogger().addHandler(Handler())
    logging.getLogger().setLevel(logging.%s)
    import gevent_cbase
'''


@in_child
def test_returns_whether_it_is_on():
    import gevent_cbase
    assert gevent_cbase.install() is True
    assert gevent_cbase.install() is True
    import gevent.server
    assert gevent_cbase.install() is True
    assert gevent_cbase.uninstall() is None
    assert gevent_cbase.install() is True
    assert gevent.server.StreamServer.__mro__[1] is gevent_cbase.BaseServer


@in_child(GEVENT_CBASE='0')
def test_returns_that_it_is_off():
    import gevent_cbase
    assert gevent_cbase.install() is False
    import gevent.server
    assert gevent_cbase.install() is False
    assert gevent.server.StreamServer.__mro__[1].__module__ == 'gevent.baseserver'


@in_child
def test_switched_off_afterwards():
    """It stays on, and install() says so."""
    import os

    import gevent_cbase
    assert gevent_cbase.install() is True
    os.environ['GEVENT_CBASE'] = '0'
    assert gevent_cbase.install() is True


def test_told_once(tmp_path):
    """When it is installed, and again when it is installed again."""
    lines = isolated(PLAIN, tmp_path, LOGGING % 'INFO' + '''
    for _ in range(2):
        gevent_cbase.install()
        gevent_cbase.install(max_reads=5)
    import gevent.server
    gevent_cbase.install()
    print('again')
    gevent_cbase.uninstall()
    gevent_cbase.install()
    ''')
    assert [re.match('INFO gevent_cbase ' + LINE, line) is not None for line in lines] == [
        True, False, True]
    assert lines[1] == 'again'


@pytest.mark.parametrize('level', ['WARNING', 'ERROR'])
def test_not_told(tmp_path, level):
    assert isolated(PLAIN, tmp_path, LOGGING % level + '    gevent_cbase.install()\n') == []


def test_not_told_where_it_is_off(tmp_path):
    assert isolated(PLAIN, tmp_path, LOGGING % 'INFO' + '''
    import os
    os.environ['GEVENT_CBASE'] = '0'
    gevent_cbase.install()
    ''') == []


def test_handler_that_installs_and_uninstalls(tmp_path):
    """A handler may do anything."""
    assert isolated(PLAIN, tmp_path, LOGGING % 'INFO' + '''
    def emit(self, record):
        print(gevent_cbase.is_installed(), gevent_cbase.install())
        gevent_cbase.uninstall()
    Handler.emit = emit
    print(gevent_cbase.install(), gevent_cbase.is_installed())
    ''') == ['True True', 'False False']


@pytest.mark.parametrize('before', ['', '    import logging\n'], ids=['without', 'with'])
def test_without_a_handler(tmp_path, before):
    """Nothing is shown, with logging imported or not."""
    assert isolated(PLAIN, tmp_path, before + '''
    import gevent_cbase
    gevent_cbase.install()
    import sys
    print('logging' in sys.modules)
    ''') == [str(bool(before))]


UNKNOWN = '''
    import gevent
    gevent.__version__ = '99.1.0'
'''
UNKNOWN_LINE = LINE + (r'99\.1\.0, CPython [\w.]+; this gevent is newer than 26\.9, '
                       r'the newest that is known; off: ')


def test_gevent_that_is_not_known(tmp_path):
    """A warning, with what is off because of it."""
    lines = isolated(PLAIN, tmp_path, UNKNOWN + LOGGING % 'WARNING' + '''
    import gevent.server
    gevent_cbase.install()
    gevent_cbase.install()
    ''')
    assert len(lines) == 1
    assert re.match('WARNING gevent_cbase ' + UNKNOWN_LINE, lines[0]), lines
    assert 'watchers (gevent may close them in another way)' in lines[0]
    assert 'greenlets (gevent may make them in another way)' in lines[0]


@pytest.mark.parametrize('before', ['', '    import logging\n'], ids=['without', 'with'])
def test_gevent_that_is_not_known_and_no_handler(tmp_path, before):
    """On standard error, as logging does with warnings."""
    status, out, err = run_script(PLAIN, tmp_path, UNKNOWN + before + '''
    import gevent.server
    import gevent_cbase
    gevent_cbase.install()
    gevent_cbase.install()
    ''')
    assert (status, out) == (0, '')
    assert re.fullmatch(UNKNOWN_LINE + '.*\n', err), err


@in_child(GEVENT_CBASE_WITHOUT='sockets')
def test_the_line():
    """All that is off, by its reason, when all of gevent is there."""
    import gevent.server
    import gevent_cbase
    from gevent_cbase import _report
    gevent_cbase.install()
    assert gevent.server.StreamServer.__mro__[1] is gevent_cbase.BaseServer
    told = _report.line().split('; ')
    assert told[0].startswith('gevent_cbase %s is on: gevent ' % gevent_cbase.__version__)
    off = dict(part.removeprefix('off: ').rstrip(')').split(' (', 1)[::-1] for part in told[1:])
    named = off['GEVENT_CBASE_WITHOUT switches it off'].split(', ')
    assert {'sockets', 'watchers', 'closing', 'io'} <= set(named)
    assert 'lookups' not in named and 'pools' not in named
    if sys.version_info < (3, 11):
        assert off['CPython 3.10 has no data stack'] == 'datastack'
