"""What the greenlet of a handler shows of itself: the same text as with gevent's own class.

Log lines of failed handlers are grouped by it.
"""
import io
import re

import gevent
import pytest
from gevent.pool import Pool
from helpers import LOOPBACK, ask, printed, until

SPAWNS = {'default': lambda: 'default', 'pool': lambda: Pool(2)}
every_spawn = pytest.mark.parametrize('spawn', SPAWNS)

#: gevent shows the first fifty characters of each argument: more where addresses are shorter
TEXT = (r'<Greenlet (?:"Greenlet-\d+" )?at 0x[0-9a-f]+: _handle_and_close_when_done\('
        r'<function \w+ at 0x[0-9a-f]+>, <bound method StreamServer\.do_close of <StreamServ, '
        r'(?=.{50}\)>)\(<gevent\._socket3\.socket(?: \[closed\])? at 0x[0-9a-f]+'
        r'(?: ?| object,(?: fd?(?:=\d*)?)?)\)>')

shown, show = [], []


def handle(sock, address):
    """A global function, whose repr() is short."""
    shown.append(show[0]())


def fails(sock, address):
    raise ValueError('wrong')


def shown_by(impl, spawn, function):
    """What *function* returns in a handler."""
    shown[:], show[:] = [], [function]
    server = impl.StreamServer(LOOPBACK, handle, spawn=SPAWNS[spawn]())
    server.start()
    try:
        ask(server, b'')
        until(lambda: shown)
    finally:
        server.stop()
    return shown[0]


@every_spawn
def test_repr(impl, spawn):
    assert re.fullmatch(TEXT, shown_by(impl, spawn, lambda: repr(gevent.getcurrent())))


@every_spawn
@pytest.mark.parametrize('show', [
    "print('\\n'.join(util.format_run_info()))", 'print(util.GreenletTree.current_tree())'],
    ids=['run info', 'tree'])
def test_all_greenlets_are_shown(impl, tmp_path, spawn, show):
    """As gevent.util does, and its monitor thread: one entry is the handler's."""
    lines = printed(impl, tmp_path, '''
        import gevent
        from gevent import socket, util
        from gevent.pool import Pool
        from gevent.server import StreamServer

        def handle(sock, address):
            %s
        server = StreamServer(('127.0.0.1', 0), handle, spawn=%s)
        server.start()
        with socket.create_connection(server.address) as client:
            client.recv(1)
        server.stop()
    ''' % (show, {'default': "'default'", 'pool': 'Pool(2)'}[spawn]))
    assert any(re.search(TEXT, line) for line in lines)
    assert not any('built-in function' in line for line in lines)


@every_spawn
def test_report_of_a_failed_handler(impl, spawn, monkeypatch):
    """The last line that the hub prints."""
    out = io.StringIO()
    monkeypatch.setattr(gevent.get_hub(), 'exception_stream', out, raising=False)
    server = impl.StreamServer(LOOPBACK, fails, spawn=SPAWNS[spawn]())
    server.start()
    try:
        ask(server, b'')
        until(lambda: 'failed with' in out.getvalue())
    finally:
        server.stop()
    lines = out.getvalue().strip().splitlines()
    assert lines[-2] == 'ValueError: wrong'
    text, _, failed = lines[-1].partition(' <')[2].partition(' failed with ')
    assert re.fullmatch(TEXT, '<' + text) and failed == 'ValueError'
