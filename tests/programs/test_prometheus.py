"""gevent_cbase.prometheus, on the real prometheus_client: what a scrape shows."""
import errno
import re
import signal
import socket as native
import subprocess
import sys
import textwrap
import types
import urllib.request

import gevent
import prometheus_client
import pytest
from gevent.pool import Pool
from gevent.server import StreamServer
from prometheus_client import CollectorRegistry, multiprocess
from prometheus_client.parser import text_string_to_metric_families

import gevent_cbase
from gevent_cbase import prometheus
from gevent_cbase._native.paths import FAST_PATHS
from helpers import (
    LOOPBACK, by_hand, child_environ, connect, handler, import_error, text_of, until, wait_for)

LIMIT = 60


@pytest.fixture(autouse=True)
def installed():
    gevent_cbase.install()
    yield
    gevent_cbase.uninstall()


@pytest.fixture
def registry():
    return CollectorRegistry()


def scraped(text):
    """{(name of the sample, sorted labels): value}"""
    return {(sample.name.removeprefix('gevent_server_'), *sorted(sample.labels.items())):
            sample.value for family in text_string_to_metric_families(text)
            for sample in family.samples}


def samples(registry, address):
    """The same of one server, without the address."""
    found = scraped(prometheus_client.generate_latest(registry).decode())
    return {tuple(part for part in key if part != ('address', address)): value
            for key, value in found.items() if ('address', address) in key}


def address_of(server):
    return '127.0.0.1:%d' % server.server_port


def accept(server, count):
    """Let it accept so many connections."""
    before = gevent_cbase.stats(server).accepted
    for _ in range(count):
        connect(server).close()
    until(lambda: gevent_cbase.stats(server).accepted == before + count)


@pytest.fixture(params=['collector', 'publisher'])
def update(request, registry):
    """Both ways to one registry; to be called before a look."""
    if request.param == 'publisher':
        return prometheus.Publisher(registry).update
    registry.register(prometheus.ServerCollector())
    return lambda: None


def test_all_of_stats(registry, update, serve):
    """Each value, by the labels."""
    server = serve(StreamServer(LOOPBACK, handler, spawn=Pool(50)))
    accept(server, 3)
    update()
    found = samples(registry, address_of(server))
    paths = {('fast_path', ('name', name)): float(why_not is None)
             for name, why_not in gevent_cbase.stats(server).fast_paths.items()}
    assert len(paths) == len(FAST_PATHS)
    found = {key: value for key, value in found.items() if not key[0].endswith('_created')}
    assert found == {
        ('accepted_total',): 3, ('spawn_errors_total',): 0, ('delay_seconds',): 0.01,
        ('pauses_total', ('reason', 'full')): 0, ('pauses_total', ('reason', 'backoff')): 0,
        ('paused_seconds_total', ('reason', 'full')): 0,
        ('paused_seconds_total', ('reason', 'backoff')): 0, **paths}


def test_errors_and_pauses(registry, update):
    """By errno, and by the reason of a pause."""
    our = types.SimpleNamespace(BaseServer=gevent_cbase.BaseServer)
    steps = [OSError(errno.EMFILE, 'full'), OSError(errno.EMFILE, 'full'), OSError(250, 'odd'),
             ZeroDivisionError(), None]
    server = by_hand(our, steps)
    server.address = ('::1', 80, 0, 0)
    for _ in steps:
        server._do_read()
    update()
    found = samples(registry, '[::1]:80')
    assert found['accept_errors_total', ('errno', 'EMFILE')] == 2
    assert found['accept_errors_total', ('errno', 'other')] == 2
    assert found['pauses_total', ('reason', 'backoff')] >= 1
    assert found['pauses_total', ('reason', 'full')] == 0
    server.stop()


def test_counts_go_on(registry, update, serve):
    """From one look to the next, also over a server that has stopped."""
    server = serve(StreamServer(LOOPBACK, handler))
    address = address_of(server)
    for total in 2, 4, 6:
        accept(server, 2)
        update()
        update()
        assert samples(registry, address)['accepted_total',] == total
    accept(server, 2)
    server.stop()
    update()
    assert samples(registry, address)['accepted_total',] == 8


def test_one_server_raises(registry, update, serve, caplog):
    """It is left out and logged, the others are shown; it is not counted twice when it is back."""
    class Moody(StreamServer):
        broken = False

        @property
        def min_delay(self):
            if self.broken:
                raise ValueError('not today')
            return 0.01

    moody, other = serve(Moody(LOOPBACK, handler)), serve(StreamServer(LOOPBACK, handler))
    accept(moody, 2)
    accept(other, 1)
    update()
    Moody.broken = True
    accept(other, 2)
    update()
    assert samples(registry, address_of(other))['accepted_total',] == 3
    assert {record.name for record in caplog.records} == {'gevent_cbase'}
    assert 'not today' in caplog.text and 'no metrics of <' in caplog.text
    Moody.broken = False
    update()
    assert samples(registry, address_of(moody))['accepted_total',] == 2


def test_servers_of_one_address(registry, update, serve):
    """They are added up; of the delay the longest is shown, of a fast path whether all take it."""
    listener = native.socket()
    listener.bind(LOOPBACK)
    listener.listen()
    listener.setblocking(False)
    servers = []
    for _ in range(2):
        servers.append(StreamServer(
            gevent.socket.socket(fileno=native.dup(listener.fileno())), handler))
    servers[1].do_close = lambda *args: args[0].close()
    for server in servers:
        serve(server)
        accept(server, 3)
        server.stop_accepting()
    servers[1].delay = 0.5
    update()
    found = samples(registry, address_of(servers[0]))
    assert found['accepted_total',] == 6
    assert found['delay_seconds',] == 0.5
    taken = [gevent_cbase.stats(server).fast_paths for server in servers]
    assert taken[1]['sockets'] is not None
    for name in FAST_PATHS:
        assert found['fast_path', ('name', name)] == all(one[name] is None for one in taken), name
    listener.close()


@pytest.mark.parametrize('address, label', [
    (('127.0.0.1', 80), '127.0.0.1:80'), (('::1', 80, 0, 0), '[::1]:80'), (('', 0), ':0'),
    ('/run/socket', '/run/socket'), (b'/run/\xff', '/run/\udcff'), (b'\0hidden', '@hidden'),
    ('', ''), (None, 'None'),
], ids=str)
def test_labels_of_addresses(address, label):
    assert prometheus._address(types.SimpleNamespace(address=address)) == label


def test_server_that_is_gone(registry, serve):
    """The collector shows it no longer; what was published goes on to count."""
    published = CollectorRegistry()
    registry.register(prometheus.ServerCollector())
    publisher = prometheus.Publisher(published)
    server = serve(StreamServer(LOOPBACK, handler))
    address = address_of(server)
    accept(server, 2)
    publisher.update()
    accept(server, 3)
    server.stop()
    del server
    serve.__closure__[0].cell_contents.clear()
    publisher.update()
    assert samples(published, address)['accepted_total',] == 5
    publisher.update()
    assert samples(registry, address) == {}
    assert samples(published, address)['accepted_total',] == 5


def test_a_running_server_is_kept_until_the_next_update():
    """A stopped one is not."""
    publisher = prometheus.Publisher(CollectorRegistry())
    server = StreamServer(LOOPBACK, handler)
    publisher.update()
    assert publisher._running.count(server) == 0
    server.start()
    publisher.update()
    assert publisher._running.count(server) == 1
    server.stop()
    publisher.update()
    assert publisher._running.count(server) == 0


def test_both_in_one_registry(registry):
    """The names are taken."""
    registry.register(prometheus.ServerCollector())
    with pytest.raises(ValueError, match='Duplicated timeseries'):
        prometheus.Publisher(registry)
    with pytest.raises(ValueError, match='Duplicated timeseries'):
        registry.register(prometheus.ServerCollector())


def test_publisher_goes_on_after_an_error(errors, registry, monkeypatch):
    """Which the hub is told."""
    publisher, calls = prometheus.Publisher(registry), []

    def update():
        calls.append(1)
        raise ZeroDivisionError
    monkeypatch.setattr(publisher, 'update', update)
    greenlet = gevent.spawn(publisher.run, 0.001)
    try:
        until(lambda: len(calls) >= 3)
    finally:
        greenlet.kill()
    assert [(context, kind) for context, kind, _ in errors[:2]] == [
        (publisher, ZeroDivisionError)] * 2


def test_without_the_client():
    code = ('import sys\nsys.modules["prometheus_client"] = None\n'
            'import gevent_cbase.prometheus\n')
    assert import_error(code) == (
        'ModuleNotFoundError: gevent_cbase.prometheus needs prometheus_client: pip install '
        "'gevent_cbase[prometheus]'")


# gunicorn with two workers, as docs/operating.rst has it

APP = '''
import os

def app(environ, start_response):
    if environ['PATH_INFO'] == '/metrics':
        return tell(environ, start_response)
    start_response('200 OK', [])
    return [str(os.getpid()).encode()]
'''


def documented(part):
    """The example with *part* in it."""
    (found,) = [block for block in re.findall(
        r'\.\. code-block:: python\n\n((?:    .*\n|\n)+)', text_of('docs/operating.rst'))
        if part in block]
    return textwrap.dedent(found)


def test_scraping_gunicorn(tmp_path):
    """Any worker tells of both; those that have ended go on to count, to the last connection."""
    configuration = documented('def post_worker_init').replace('seconds=5', 'seconds=0.1')
    (tmp_path / 'gunicorn.conf.py').write_text(
        'import gevent_cbase\ngevent_cbase.install()\n' + configuration)
    (tmp_path / 'app.py').write_text(documented('make_wsgi_app') + APP)
    folder = tmp_path / 'values'
    folder.mkdir()
    log = tmp_path / 'log'
    with log.open('w') as file:
        process = subprocess.Popen(
            [sys.executable, '-m', 'gunicorn', '-k', 'gevent', '-w', '2', '-b', '127.0.0.1:0',
             '--no-control-socket', 'app:app'], cwd=tmp_path, stdin=subprocess.DEVNULL,
            stdout=file, stderr=file,
            env=child_environ(str(tmp_path), PROMETHEUS_MULTIPROC_DIR=str(folder)))
    try:
        port = wait_for(lambda: re.search(r'Listening at: http://127\.0\.0\.1:(\d+) ',
                                          log.read_text()), log.read_text)[1]
        connections = []

        def ask(path):
            connections.append(path)
            with urllib.request.urlopen('http://127.0.0.1:%s%s' % (port, path),
                                        timeout=LIMIT) as answer:
                return answer.read().decode()

        def told():
            found = scraped(ask('/metrics'))
            return found.get(('accepted_total', ('address', '127.0.0.1:' + port)), 0)
        pids = set()
        wait_for(lambda: pids.add(ask('/')) or len(pids) == 2, log.read_text)
        before = len(connections)
        assert wait_for(lambda: told() >= before) and told() <= len(connections)
        found = scraped(ask('/metrics'))
        assert found['fast_path', ('address', '127.0.0.1:' + port), ('name', 'lookups')] == 1
        process.send_signal(signal.SIGTERM)
        assert process.wait(LIMIT) == 0
    finally:
        process.kill()
        process.wait()
    assert not re.search('Traceback|Error', log.read_text()), log.read_text()
    registry = CollectorRegistry()
    multiprocess.MultiProcessCollector(registry, str(folder))
    found = scraped(prometheus_client.generate_latest(registry).decode())
    assert found['accepted_total', ('address', '127.0.0.1:' + port)] == len(connections)
    assert not any(key[0] == 'fast_path' for key in found)  # nobody is alive
