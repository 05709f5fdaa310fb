"""gevent_cbase.servers(): the servers of the process that run on the class in C."""
import copy
import gc
import os
import subprocess
import sys
import threading
import weakref

import gevent
import pytest
from gevent import server as gevent_server
from gevent.server import StreamServer

import gevent_cbase
from helpers import LOOPBACK, PLAIN, child_environ, connect, handler, isolated, until


@pytest.fixture(autouse=True)
def installed():
    gevent_cbase.install()
    yield
    gevent_cbase.uninstall()


def listed(server):
    """How often servers() has it."""
    return sum(one is server for one in gevent_cbase.servers())


def test_each_state(serve):
    """From the constructor until it is freed."""
    server = StreamServer(LOOPBACK, handler)
    assert listed(server) == 1
    serve(server)
    assert listed(server) == 1
    server.stop()
    assert listed(server) == 1


def test_kinds():
    """Of all classes: those in C, of gevent, of a program."""
    class Program(gevent_cbase.BaseServer):
        pass
    made = [Program(LOOPBACK, handler), gevent_cbase.BaseServer(LOOPBACK, handler),
            gevent_server.DatagramServer(LOOPBACK, handler)]
    assert [listed(server) for server in made] == [1, 1, 1]


def test_nothing_is_kept_alive():
    """A stopped server is freed by reference counting alone."""
    server = StreamServer(LOOPBACK, handler)
    server.start()
    server.stop()
    ref, before = weakref.ref(server), len(gevent_cbase.servers())
    gc.disable()
    try:
        del server
        assert ref() is None
    finally:
        gc.enable()
    assert len(gevent_cbase.servers()) == before - 1


def test_while_one_is_being_finalized():
    """It is there in its own finalizer, as for any weak reference, and then it is not."""
    seen = []

    class Server(StreamServer):
        def __del__(self):
            seen.append([type(one) for one in gevent_cbase.servers()].count(Server))
    Server(LOOPBACK, handler)
    seen.append([type(one) for one in gevent_cbase.servers()].count(Server))
    assert seen == [1, 0]


def test_garbage():
    """One in a cycle is gone once the collector has found it."""
    class Server(StreamServer):
        pass
    server = Server(LOOPBACK, handler)
    server.itself = server
    del server
    gc.collect()
    assert not any(type(one) is Server for one in gevent_cbase.servers())


def test_constructor_that_fails():
    class Server(StreamServer):
        def set_handle(self, handle):
            kept.append(self)
            raise ZeroDivisionError
    kept = []
    with pytest.raises(ZeroDivisionError):
        Server(LOOPBACK, handler)
    assert listed(kept[0]) == 0


def test_neither_hashable_nor_comparable():
    """What a server says of itself is not asked."""
    class Server(StreamServer):
        __hash__ = None

        def __eq__(self, other):
            raise ZeroDivisionError

        def __bool__(self):
            raise ZeroDivisionError
    server = Server(LOOPBACK, handler)
    assert listed(server) == 1


def test_without_the_constructor(serve):
    """It is listed when it has accepted."""
    server = StreamServer(LOOPBACK, handler)
    other = copy.copy(server)
    assert (listed(server), listed(other)) == (1, 0)
    serve(other)
    connect(other).close()
    until(lambda: gevent_cbase.stats(other).accepted == 1)
    assert listed(other) == 1


def test_made_before_install():
    """They come with install(), whether they run or not, and go with uninstall()."""
    gevent_cbase.uninstall()
    servers = [StreamServer(LOOPBACK, handler), StreamServer(LOOPBACK, handler)]
    servers[0].start()
    for _ in range(2):
        assert [listed(server) for server in servers] == [0, 0]
        gevent_cbase.install()
        assert [listed(server) for server in servers] == [1, 1]
        gevent_cbase.uninstall()
    servers[0].stop()


def test_a_list_of_ones_own():
    found = gevent_cbase.servers()
    assert type(found) is list
    server = StreamServer(LOOPBACK, handler)
    found.append(server)
    assert listed(server) == 1


def test_in_another_thread():
    """With a hub of its own; and asked from there."""
    found, go = [], threading.Event()

    def run():
        server = StreamServer(LOOPBACK, handler)
        server.start()
        found.append(server)
        found.append(listed(mine))
        go.wait(60)
        server.stop()
        gevent.get_hub().destroy(destroy_loop=True)
    mine = StreamServer(LOOPBACK, handler)
    thread = threading.Thread(target=run)
    thread.start()
    until(lambda: len(found) == 2)
    assert found[1] == listed(found[0]) == 1
    go.set()
    thread.join()


def test_in_a_forked_child(tmp_path):
    """Those that it has inherited, and its own; the parent does not see these."""
    assert isolated(PLAIN, tmp_path, '''
    import gevent, gevent_cbase, os
    gevent_cbase.install()
    from gevent.server import StreamServer
    def make():
        return StreamServer(('127.0.0.1', 0), print)
    inherited = make()
    pid = os.fork()
    if not pid:
        own = make()
        assert len(gevent_cbase.servers()) == 2
        del inherited
        assert gevent_cbase.servers() == [own]
        os._exit(3)
    assert os.waitpid(pid, 0)[1] >> 8 == 3
    print(gevent_cbase.servers() == [inherited])
    ''') == ['True']


def test_not_installed(tmp_path):
    """There is none, nor does it load anything of gevent."""
    assert isolated(PLAIN, tmp_path, '''
    import gevent_cbase, sys
    print(gevent_cbase.servers(), 'gevent.baseserver' in sys.modules)
    import gevent.server
    server = gevent.server.StreamServer(('127.0.0.1', 0), print)
    print(gevent_cbase.servers())
    from gevent_cbase.baseserver import BaseServer
    ours = BaseServer(('127.0.0.1', 0), print)
    print(gevent_cbase.servers() == [ours])
    ''') == ['[] False', '[]', 'True']


def test_many_at_once():
    """Made, listed and freed by threads. (These make their hubs one after the other: on libuv two
    that are made at the same time may crash gevent.)"""
    code = '''if 1:
    import sys, threading, gevent, gevent_cbase
    gevent_cbase.install()
    sys.setswitchinterval(1e-6)
    done, one_at_a_time = [], threading.Lock()
    def work():
        with one_at_a_time:
            gevent.get_hub().loop
        for _ in range(300):
            server = gevent_cbase.BaseServer(('127.0.0.1', 0), print)
            assert any(one is server for one in gevent_cbase.servers())
            del server
        done.append(1)
    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(len(done), gevent_cbase.servers())
    '''
    done = subprocess.run([sys.executable, '-W', 'error', '-c', code], env=child_environ(),
                          text=True, capture_output=True, timeout=100, cwd=os.sep)
    assert (done.returncode, done.stdout, done.stderr) == (0, '4 []\n', '')
