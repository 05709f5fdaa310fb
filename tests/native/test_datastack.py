"""gevent_cbase.datastack: the cache of data-stack chunks in front of the arena allocator.

The arena allocator belongs to the process, so what changes it runs in a child: a test decorated
with ``in_child``. There ``arenas()`` offers other arena allocators and direct requests to the
one in place (arenas.c); these work the same on CPython 3.10, which itself asks for no
chunks.
"""
import ctypes
import functools
import os
import subprocess
import sys
import sysconfig
import textwrap

import pytest

import children
from helpers import TESTS, child_environ, shared_library

CHUNK = 16 * 1024
LARGE = 256 * 1024
ARENA = 1024 * 1024

#: whether greenlets have data stacks, so that the cache can be on
DATA_STACK = sys.version_info >= (3, 11)

HERE = os.path.dirname(os.path.abspath(__file__))


@pytest.fixture(scope='session')
def library(tmp_path_factory):
    """arenas.c, compiled."""
    return shared_library(
        os.path.join(HERE, 'arenas.c'), tmp_path_factory.mktemp('arenas'), '-pthread',
        '-I' + sysconfig.get_path('include'))


@pytest.fixture(autouse=True)
def _library(library, monkeypatch):
    """The children find it."""
    monkeypatch.setenv('ARENAS', library)


in_child = functools.partial(children.in_child, GEVENT_CBASE_WITHOUT=None)


def run(*args, **environ):
    """Run python in a child: (exit status, output)."""
    done = subprocess.run([sys.executable, *args], text=True, timeout=100,
                          env=child_environ(HERE, TESTS, GEVENT_CBASE_WITHOUT=None, **environ),
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT)
    return done.returncode, done.stdout


# For the children


class Arenas:
    """The functions of arenas.c."""

    def __init__(self):
        # PyDLL keeps the GIL: what stands in place may be CPython's own, which needs it
        library = ctypes.PyDLL(os.environ['ARENAS'])
        for name in ('other_install', 'other_uninstall', 'other_is_in_place', 'hammer_start',
                     'late_read', 'late_read_ctx'):
            setattr(self, name, getattr(library, name))
        for name in 'other_asked', 'other_live', 'other_passed', 'hammer_rounds', 'hammer_stop':
            setattr(self, name, getattr(library, name))
            getattr(library, name).restype = ctypes.c_long
        for name in 'arena_in_place', 'arena_alloc', 'late_alloc':
            setattr(self, name, getattr(library, name))
            getattr(library, name).restype = ctypes.c_void_p
        for name in 'arena_free', 'late_free':
            setattr(self, name, getattr(library, name))
            getattr(library, name).argtypes = [ctypes.c_void_p, ctypes.c_size_t]
        self.arena_alloc.argtypes = self.late_alloc.argtypes = [ctypes.c_size_t]

    def alloc(self, size=CHUNK):
        return self.arena_alloc(size)

    def free(self, block, size=CHUNK):
        self.arena_free(block, size)

    def blocks(self, count, size=CHUNK):
        return [self.alloc(size) for _ in range(count)]

    def free_all(self, blocks, size=CHUNK):
        for block in blocks:
            self.free(block, size)


def start(limit):
    """Enable the cache on any CPython; return its stats()."""
    from gevent_cbase import _cbase, datastack
    _cbase._datastack_enable(limit)
    return datastack.stats


def stop():
    from gevent_cbase import _cbase
    _cbase._datastack_disable()


def alive(count):
    """So many greenlets that have started and wait."""
    import greenlet
    parent = greenlet.getcurrent()
    made = [greenlet.greenlet(lambda: parent.switch()) for _ in range(count)]
    for one in made:
        one.switch()
    return made


def finish(greenlets):
    for one in greenlets:
        one.switch()
        assert one.dead


# What is cached


@in_child
def test_last_in_first_out():
    """Chunks come back in the order that the processor's cache likes."""
    arenas = Arenas()
    stats = start(8)
    before = stats()
    blocks = arenas.blocks(3)
    arenas.free_all(blocks)
    assert stats().cached - before.cached == 3
    assert arenas.blocks(3) == blocks[::-1]
    assert (stats().hits - before.hits, stats().misses - before.misses) == (3, 3)
    arenas.free_all(blocks)


@in_child
def test_other_sizes_pass_through():
    """Neither kept nor counted: larger chunks, arenas, and whatever else."""
    arenas = Arenas()
    arenas.other_install(0, False)
    stats = start(8)
    before = stats()
    asked = arenas.other_asked(0)
    for size in 1, CHUNK - 4096, CHUNK - 1, CHUNK + 1, 2 * CHUNK, 4 * CHUNK, ARENA // 4, ARENA:
        block = arenas.alloc(size)
        arenas.free(block, size)
        assert arenas.other_live(0) == 0, size
    assert arenas.other_asked(0) - asked == 7  # arenas do not count
    assert stats() == before


@in_child
def test_never_more_than_the_limit():
    """What comes when it is full goes to the allocator behind; a lower limit gives back."""
    arenas = Arenas()
    arenas.other_install(0, False)
    stats = start(5)
    arenas.free_all(arenas.blocks(9))
    assert (stats().cached, arenas.other_live(0)) == (5, 5)
    start(2)
    assert (stats().cached, stats().limit, arenas.other_live(0)) == (2, 2, 2)
    start(7)
    arenas.free_all(arenas.blocks(9))
    assert (stats().cached, stats().limit, arenas.other_live(0)) == (7, 7, 7)
    stop()
    assert (stats().cached, stats().limit, arenas.other_live(0)) == (0, 0, 0)


@in_child
def test_off_until_enabled():
    """Importing changes nothing; nothing is counted while it is off."""
    arenas = Arenas()
    in_place = arenas.arena_in_place()
    from gevent_cbase import datastack
    assert datastack.stats() == (0, 0, 0, 0)
    datastack.disable()
    arenas.free_all(arenas.blocks(3))
    assert datastack.stats() == (0, 0, 0, 0)
    assert arenas.arena_in_place() == in_place
    start(8)
    assert arenas.arena_in_place() != in_place
    stop()
    assert arenas.arena_in_place() == in_place
    counts = datastack.stats()
    arenas.free_all(arenas.blocks(3))
    assert datastack.stats() == counts


@in_child
def test_no_memory():
    """When the allocator behind has no block, there is none; NULL may be freed."""
    arenas = Arenas()
    stats = start(8)
    assert arenas.alloc(1 << 62) is None
    cached = stats().cached
    arenas.free(None)
    arenas.free(None, ARENA)
    assert stats().cached == cached


# Other arena allocators


@in_child
def test_blocks_from_before_and_after():
    """Blocks outlive enable() and disable(); each goes back where it came from."""
    arenas = Arenas()
    arenas.other_install(0, False)
    chunks, larger = arenas.blocks(4), arenas.blocks(4, LARGE)
    stats = start(3)
    arenas.free_all(chunks)
    arenas.free_all(larger[:2], LARGE)
    assert (stats().cached, arenas.other_live(0)) == (3, 3 + 2)
    taken = arenas.blocks(2)
    assert taken == chunks[2:0:-1]
    stop()
    assert arenas.other_is_in_place(0)
    assert arenas.other_live(0) == 2 + 2
    arenas.free_all(taken)
    arenas.free_all(larger[2:], LARGE)
    assert (arenas.other_live(0), arenas.other_passed(0)) == (0, 0)


@in_child
def test_another_one_comes_first():
    """It is asked for what the cache lacks, with its own ctx, and gets back what it gave."""
    arenas = Arenas()
    arenas.other_install(0, True)
    arenas.other_install(1, True)
    stats = start(8)
    asked = arenas.other_asked(1)
    arenas.free_all(arenas.blocks(3))
    arenas.free_all(arenas.blocks(3))
    assert stats().cached == 3
    assert arenas.other_asked(1) - asked == arenas.other_asked(0) - asked == 3
    stop()
    assert arenas.other_is_in_place(1)


@in_child
def test_another_one_comes_later():
    """disable() leaves it in place and passes all on; enable() goes on behind it."""
    arenas = Arenas()
    arenas.other_install(0, False)
    stats = start(8)
    arenas.other_install(1, True)
    arenas.free_all(arenas.blocks(3))
    assert (stats().cached, arenas.other_asked(1)) == (3, 3)
    for _ in range(3):
        stop()
        counts = stats()
        assert arenas.other_is_in_place(1)
        assert (counts.cached, arenas.other_live(0)) == (0, 0)
        arenas.free_all(arenas.blocks(3))
        assert (stats(), arenas.other_live(0)) == (counts, 0)
        start(8)
        assert arenas.other_is_in_place(1)
        arenas.free_all(arenas.blocks(3))
        assert (stats().cached, arenas.other_live(0)) == (3, 3)
    stop()
    arenas.other_uninstall(1)
    assert not arenas.other_is_in_place(0)  # the hook, which passes all on
    arenas.free_all(arenas.blocks(3))
    assert (stats().cached, arenas.other_live(0)) == (0, 0)
    stop()
    assert arenas.other_is_in_place(0)


@in_child
def test_another_one_that_makes_its_own_blocks_comes_later():
    """Nothing comes to us any more; enable() then stands in front of it.

    It passes blocks from before its time on to us: they must not come back to it for ever.
    """
    from gevent_cbase import _cbase
    arenas = Arenas()
    stats = start(4)
    old, old_large = arenas.blocks(6), arenas.alloc(LARGE)
    arenas.other_install(0, False)
    assert not _cbase._datastack_is_reached()
    counts = stats()
    arenas.free_all(arenas.blocks(3))
    assert stats() == counts
    arenas.free(old.pop())
    assert (stats().cached, arenas.other_passed(0)) == (counts.cached + 1, 1)
    start(4)
    assert _cbase._datastack_is_reached()
    assert stats().cached == 0
    blocks = arenas.blocks(5)
    assert arenas.other_live(0) == 5
    arenas.free_all(old + blocks)
    arenas.free(old_large, LARGE)
    assert stats().cached == 4
    stop()
    assert arenas.other_is_in_place(0)
    assert (arenas.other_live(0), arenas.other_passed(0)) == (0, 7)


@in_child
def test_another_one_leaves_from_behind():
    """Putting back what it found throws us out; what it gave is still returned to it."""
    from gevent_cbase import _cbase
    arenas = Arenas()
    in_place = arenas.arena_in_place()
    arenas.other_install(0, False)
    stats = start(8)
    arenas.free_all(arenas.blocks(3))
    arenas.other_uninstall(0)
    assert arenas.arena_in_place() == in_place
    assert not _cbase._datastack_is_reached()
    assert (stats().cached, arenas.other_live(0)) == (3, 3)
    start(8)
    assert _cbase._datastack_is_reached()
    assert (stats().cached, arenas.other_live(0)) == (0, 0)
    arenas.free_all(arenas.blocks(2))
    assert (stats().cached, arenas.other_live(0)) == (2, 0)
    stop()
    assert (stats().cached, arenas.arena_in_place()) == (0, in_place)


@in_child
def test_another_one_leaves_and_puts_a_former_hook_in_front():
    """The cache is off until enable() gives it to that one."""
    from gevent_cbase import _cbase
    arenas = Arenas()
    in_place = arenas.arena_in_place()
    stats = start(4)
    arenas.other_install(0, False)
    start(4)
    assert _cbase._datastack_is_reached()
    arenas.other_uninstall(0)
    assert not _cbase._datastack_is_reached()
    arenas.free_all(arenas.blocks(2))
    assert stats().cached == 0
    start(4)
    assert _cbase._datastack_is_reached()
    arenas.free_all(arenas.blocks(2))
    assert stats().cached == 2
    stop()
    assert arenas.arena_in_place() == in_place


@in_child
def test_switching_on_and_off_leaks_nothing():
    """Neither chunks nor what describes the allocator behind."""
    import tracemalloc
    arenas = Arenas()
    arenas.other_install(0, False)
    start(4)
    stop()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for _ in range(1000):
        start(4)
        arenas.free(arenas.alloc())
        stop()
    assert tracemalloc.get_traced_memory()[0] - before < 8000
    assert arenas.other_live(0) == 0


@in_child
def test_late_calls():
    """Of a thread without the GIL, while the allocator is being changed."""
    arenas = Arenas()
    arenas.other_install(0, False)
    stats = start(8)
    arenas.late_read()
    stop()
    block = arenas.late_alloc(CHUNK)
    assert arenas.other_live(0) == 1
    arenas.late_free(block, CHUNK)
    assert (stats().cached, arenas.other_live(0)) == (0, 0)
    start(8)
    arenas.other_uninstall(0)
    start(8)  # in front of CPython's own; what is cached now comes from that
    arenas.free_all(arenas.blocks(2))
    assert stats().cached == 2
    block = arenas.late_alloc(CHUNK)
    assert (stats().cached, arenas.other_live(0)) == (2, 1)
    arenas.late_free(block, CHUNK)
    assert (stats().cached, arenas.other_live(0)) == (2, 0)
    # The ctx of the allocator that is in place now, the functions of the one before
    arenas.late_read()
    arenas.other_install(1, False)
    arenas.late_read_ctx()
    block = arenas.late_alloc(CHUNK)
    assert (stats().cached, arenas.other_live(1)) == (1, 0)
    arenas.late_free(block, CHUNK)
    assert (stats().cached, arenas.other_live(1)) == (2, 0)


@in_child
def test_coming_and_going_in_any_order():
    """Every order of the two of them, with blocks of each left over: all blocks come home."""
    import itertools
    import random
    arenas = Arenas()
    in_place = arenas.arena_in_place()
    rng = random.Random(7)
    held = []
    stats = start(1)
    stop()

    def other_install():
        if not any(map(arenas.other_is_in_place, range(4))):
            arenas.other_install(next(numbers), rng.random() < 0.5)

    def other_uninstall():
        for i in range(4):  # it may leave only when all that it gave has come back
            if arenas.other_is_in_place(i) and not arenas.other_live(i):
                arenas.other_uninstall(i)

    def use():
        for _ in range(rng.randrange(12)):
            if held and rng.random() < 0.5:
                arenas.free(*held.pop(rng.randrange(len(held))))
            else:
                size = rng.choice((CHUNK, CHUNK, CHUNK, 2 * CHUNK, LARGE))
                held.append((arenas.alloc(size), size))

    steps = [lambda: start(rng.randrange(1, 9)), stop, other_install, other_uninstall]
    for order in itertools.permutations(steps * 2, 4):
        numbers = itertools.cycle(range(4))
        for step in order:
            step()
            use()
        while held:
            arenas.free(*held.pop())
        stop()
        other_uninstall()
        stop()
        other_uninstall()
        stop()
        assert (arenas.arena_in_place(), stats().cached, stats().limit) == (in_place, 0, 0), order
        assert [arenas.other_live(i) for i in range(4)] == [0] * 4, order


@in_child
def test_loaded_again():
    """A second import shares the cache; a copy of the file has its own and stands in front."""
    import importlib.util
    import shutil
    import tempfile
    arenas = Arenas()
    in_place = arenas.arena_in_place()
    from gevent_cbase import _cbase
    stats = start(8)

    def load(path):
        spec = importlib.util.spec_from_file_location('gevent_cbase._cbase', path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    again = load(_cbase.__file__)
    assert again is not _cbase
    arenas.free_all(arenas.blocks(3))
    assert again._datastack_stats() == stats()
    with tempfile.TemporaryDirectory() as folder:
        copy = load(shutil.copy(_cbase.__file__, folder))
    assert copy._datastack_stats() == (0, 0, 0, 0)
    copy._datastack_enable(2)
    arenas.free_all(arenas.blocks(3))
    assert (copy._datastack_stats()[2], stats().cached) == (2, 1)
    again._datastack_disable()
    assert (copy._datastack_stats()[2], stats().cached) == (2, 0)
    copy._datastack_disable()
    assert copy._datastack_stats()[2:] == (0, 0)
    _cbase._datastack_disable()
    assert arenas.arena_in_place() == in_place


# Threads, forks


@in_child
def test_threads_without_the_gil():
    """Every block has one owner at a time, while the cache is switched on and off."""
    import time
    arenas = Arenas()
    arenas.other_install(0, False)
    stats = start(16)
    arenas.hammer_start(3, False)
    for limit in [1, 64, 8] * 20:
        start(limit)
        count = arenas.hammer_rounds()
        while arenas.hammer_rounds() < count + 100:
            time.sleep(0.001)
        assert stats().cached <= limit
        if limit == 8:
            stop()
    assert arenas.hammer_stop() == 0
    assert stats().hits > 0
    stop()
    assert arenas.other_is_in_place(0)
    assert (arenas.other_live(0), arenas.other_passed(0)) == (0, 0)


@in_child
def test_fork_amid_threads_without_the_gil():
    """Whoever holds the lock at that moment: the child can use the cache, and empty it."""
    import warnings
    warnings.simplefilter('ignore', DeprecationWarning)  # fork() of a process with threads
    arenas = Arenas()
    arenas.other_install(0, False)
    stats = start(16)
    arenas.hammer_start(3, True)
    for _ in range(50):
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                block = arenas.alloc()
                arenas.free(block)
                stop()
                status = stats().cached
            finally:
                os._exit(status)
        assert os.waitpid(pid, 0)[1] == 0
    assert arenas.hammer_stop() == 0
    assert stats().cached > 0


@in_child
def test_fork():
    """A child has the chunks that are cached; what it does with them is its own affair."""
    arenas = Arenas()
    stats = start(8)
    blocks = arenas.blocks(8)
    arenas.free_all(blocks)
    before = stats()
    assert before.cached == 8
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            assert stats() == before
            assert arenas.blocks(8) == blocks[::-1]
            finish(alive(20))
            stop()
            assert stats().cached == 0
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(pid, 0)[1] == 0
    assert stats() == before
    assert arenas.blocks(8) == blocks[::-1]


if sys.version_info >= (3, 12):
    @in_child
    def test_interpreters_with_a_gil_of_their_own():
        """They recurse from chunk to chunk, all at once, with the one cache."""
        import threading
        if sys.version_info >= (3, 13):
            import _interpreters as interpreters
            run_in = interpreters.exec
        else:
            import _xxsubinterpreters as interpreters
            run_in = interpreters.run_string
        from gevent_cbase import datastack
        datastack.enable(8)
        before = datastack.stats()
        code = textwrap.dedent("""
            def f(n):
                return n and f(n - 1)
            for _ in range(3000):
                f(600)
            """)

        def work():
            interpreter = interpreters.create()
            failed.append(run_in(interpreter, code))
            interpreters.destroy(interpreter)
        failed = []
        threads = [threading.Thread(target=work) for _ in range(3)]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            finish(alive(10))
        assert failed == [None] * 3
        after = datastack.stats()
        assert after.hits - before.hits > 3000
        assert 0 < after.cached <= 8


# Greenlets


@in_child
def test_greenlets_get_chunks_from_the_cache():
    """One each, of the size that is cached; nowhere else but on CPython 3.10."""
    from gevent_cbase import datastack
    assert datastack.enable(100) is DATA_STACK
    finish(alive(40))
    first = datastack.stats()
    finish(alive(30))
    second = datastack.stats()
    if DATA_STACK:
        assert first.cached == second.cached >= 40
        assert (second.hits - first.hits, second.misses - first.misses) == (30, 0)
    else:
        assert first == second == (0, 0, 0, 0)


@in_child
def test_greenlets_in_threads():
    """All share the cache; chunks may be freed by another thread than they were made for."""
    import threading
    import gevent
    from gevent_cbase import datastack
    datastack.enable(32)

    def work():
        for _ in range(20):
            gevent.joinall([gevent.spawn(gevent.sleep, 0) for _ in range(20)])
        left.append(alive(5))
        gevent.get_hub().destroy()
    left = []
    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    del left[:]
    finish(alive(40))
    stats = datastack.stats()
    if DATA_STACK:
        assert stats.cached == 32
        assert stats.hits + stats.misses >= 4 * 20 * 20
    else:
        assert stats == (0, 0, 0, 0)


@in_child
def test_deep_recursion_in_greenlets():
    """Many chunks for a greenlet, some of them larger: all is freed."""
    import greenlet
    from gevent_cbase import datastack

    def recurse(depth):
        if depth:
            return recurse(depth - 1)
        parent.switch()
    parent = greenlet.getcurrent()
    variables = ', '.join('v%d' % i for i in range(3000))
    namespace = {'parent': parent}
    exec('def large():\n    %s = [0] * 3000\n    parent.switch()' % variables, namespace)
    datastack.enable(10)
    for _ in range(20):
        made = [greenlet.greenlet(recurse) for _ in range(5)]
        for one in made:
            one.switch(400)
        made.append(greenlet.greenlet(namespace['large']))
        made[-1].switch()
        finish(made)
    assert datastack.stats().cached == (10 if DATA_STACK else 0)


LOOPS = ['libev-cext', 'libev-cffi', 'libuv-cffi']

#: ends with greenlets that wait in two threads, and others that run at the very end
EXIT = """
import atexit, threading, weakref
import gevent, greenlet
from gevent import socket
from gevent.server import StreamServer
import gevent_cbase
gevent_cbase.install()

class Late:
    def __del__(self, greenlet=greenlet.greenlet):
        greenlet(lambda: None).switch()

def wait():
    gevent.sleep(100)

def thread():
    gevent.spawn(wait)
    gevent.sleep(0.01)
    started.set()
    forever.wait()

started, forever = threading.Event(), threading.Event()
threading.Thread(target=thread, daemon=True).start()
started.wait()
late = Late()
late.itself = late
atexit.register(lambda: gevent.spawn(int).join())
server = StreamServer(('127.0.0.1', 0), lambda *args: wait())
server.start()
client = socket.create_connection(server.address)
left = [gevent.spawn(wait) for _ in range(50)]
gevent.joinall([gevent.spawn(int) for _ in range(50)])
gevent.sleep(0.01)
"""


@pytest.mark.parametrize('loop', LOOPS)
def test_interpreter_exit(loop):
    """With a server running, greenlets alive and the cache filled."""
    assert run('-c', EXIT, GEVENT_LOOP=loop, PYTHONMALLOC='debug') == (0, '')


if hasattr(ctypes.CDLL(None), '__asan_address_is_poisoned'):  # that is, in the sanitizers' run
    @in_child
    def test_cached_chunks_are_poisoned():
        """All of a chunk, as long as it is cached."""
        poisoned = ctypes.CDLL(None).__asan_address_is_poisoned
        poisoned.argtypes = [ctypes.c_void_p]
        arenas = Arenas()
        stats = start(8)
        block = arenas.alloc()
        places = range(block, block + CHUNK, 8)
        assert not any(map(poisoned, places))
        cached = stats().cached
        arenas.free(block)
        assert stats().cached == cached + 1
        assert all(map(poisoned, places))
        assert arenas.alloc() == block
        assert not any(map(poisoned, places))
        arenas.free(block)
        stop()
        assert not any(map(poisoned, places))

    @pytest.mark.parametrize('place', [0, 8, CHUNK // 2, CHUNK - 1])
    @pytest.mark.parametrize('cached', [False, True])
    def test_touch_of_a_chunk(cached, place):
        """Of one that is cached it is the end of the process, and AddressSanitizer says why."""
        code = ('import ctypes, test_datastack as test; arenas = test.Arenas(); test.start(8); '
                'block = arenas.alloc(); arenas.free(block); %s'
                'print(ctypes.memset(block + %d, 1, 1) == block + %d)' % (
                    '' if cached else 'arenas.alloc(); ', place, place))
        status, out = run('-c', code)
        if cached:
            assert status != 0 and 'AddressSanitizer: use-after-poison' in out
        else:
            assert (status, out) == (0, 'True\n')


# The interface


@in_child
def test_enable_and_disable():
    """What they return, and what is told in between."""
    from gevent_cbase import datastack
    assert not datastack.is_enabled()
    assert datastack.why_off() == ('not enabled' if DATA_STACK else
                                   'CPython 3.10 has no data stack')
    assert datastack.enable() is DATA_STACK
    assert datastack.is_enabled() is DATA_STACK
    if DATA_STACK:
        assert datastack.why_off() is None
        assert datastack.stats().limit == datastack.DEFAULT_MAX_CHUNKS == 1024
        assert datastack.enable(max_chunks=7) is True
        assert datastack.stats().limit == 7
    assert datastack.disable() is None
    assert not datastack.is_enabled()
    assert datastack.stats()._fields == ('hits', 'misses', 'cached', 'limit')
    assert datastack.stats()[2:] == (0, 0)
    datastack.disable()


@in_child
def test_wrong_limits():
    """An exception, and all is as before."""
    from gevent_cbase import datastack
    from helpers import outcome
    for on in False, True:
        before = datastack.stats()
        for limit, error in ((0, ValueError), (-1, ValueError), ('1', TypeError),
                             (1.5, TypeError), (None, TypeError), (1 << 64, OverflowError)):
            assert type(outcome(datastack.enable, limit)) is error, limit
            assert datastack.stats() == before
        assert datastack.enable(3) is DATA_STACK


@in_child
def test_why_off_tells_of_another_allocator():
    """Which stands in front and asks us for nothing."""
    from gevent_cbase import datastack
    arenas = Arenas()
    datastack.enable()
    arenas.other_install(0, False)
    if DATA_STACK:
        assert datastack.why_off() == 'another arena allocator has taken its place'
        assert not datastack.is_enabled()
        assert datastack.enable() is True
        assert datastack.is_enabled()


@in_child
def test_why_off_tells_of_an_unknown_size():
    """If greenlets leave no chunk of the known size; seen when it is to be enabled."""
    import greenlet
    from gevent_cbase import datastack
    arenas = Arenas()
    in_place = arenas.arena_in_place()
    # A greenlet that runs no Python function: no chunk
    datastack.greenlet = type('', (), {'greenlet': lambda run: greenlet.greenlet(dict)})
    assert datastack.enable() is False
    assert datastack.stats()[2:] == (0, 0)
    assert arenas.arena_in_place() == in_place
    if DATA_STACK:
        assert datastack.why_off() == (
            'a greenlet has ended and left no data-stack chunk of the known size to it')
    datastack.greenlet = greenlet
    assert datastack.enable() is datastack.is_enabled() is DATA_STACK


# install() and --info


@in_child
def test_install_enables():
    """And uninstall() disables."""
    import gevent_cbase
    from gevent_cbase import datastack
    gevent_cbase.install()
    gevent_cbase.install()
    assert datastack.is_enabled() is DATA_STACK
    assert datastack.stats().limit == (1024 if DATA_STACK else 0)
    gevent_cbase.uninstall()
    assert not datastack.is_enabled()
    assert datastack.stats().limit == 0
    gevent_cbase.uninstall()


@in_child
def test_install_without_it():
    """By its argument; a later install() may still enable it."""
    import gevent_cbase
    from gevent_cbase import datastack
    gevent_cbase.install(datastack=False)
    assert gevent_cbase.is_installed()
    assert not datastack.is_enabled()
    gevent_cbase.install()
    assert datastack.is_enabled() is DATA_STACK
    gevent_cbase.install(datastack=False)
    assert datastack.is_enabled() is DATA_STACK
    gevent_cbase.uninstall()
    assert not datastack.is_enabled()


@in_child(GEVENT_CBASE_DATASTACK='0')
def test_install_without_it_by_the_environment():
    """enable() works all the same."""
    import gevent_cbase
    from gevent_cbase import datastack
    gevent_cbase.install()
    assert gevent_cbase.is_installed()
    assert not datastack.is_enabled()
    assert datastack.why_off() == ('GEVENT_CBASE_DATASTACK switches it off' if DATA_STACK
                                   else 'CPython 3.10 has no data stack')
    assert datastack.enable() is datastack.is_enabled() is DATA_STACK
    gevent_cbase.uninstall()
    assert datastack.is_enabled() is DATA_STACK


@in_child(GEVENT_CBASE='0')
def test_install_switched_off_altogether():
    """GEVENT_CBASE=0: no cache either."""
    import gevent_cbase
    from gevent_cbase import datastack
    gevent_cbase.install()
    assert not gevent_cbase.is_installed()
    assert not datastack.is_enabled()


@in_child
def test_uninstall_leaves_what_the_program_enabled():
    """enable() before install(), or after it with a limit of one's own."""
    import gevent_cbase
    from gevent_cbase import datastack
    datastack.enable(5)
    gevent_cbase.install()
    gevent_cbase.uninstall()
    assert datastack.stats().limit == (5 if DATA_STACK else 0)
    datastack.disable()
    gevent_cbase.install()
    datastack.enable(6)
    gevent_cbase.uninstall()
    assert datastack.stats().limit == (6 if DATA_STACK else 0)
    datastack.disable()
    gevent_cbase.install()
    datastack.disable()
    gevent_cbase.uninstall()
    assert datastack.stats().limit == 0


@pytest.mark.parametrize('value, on', [
    (None, True), ('1', True), ('0', False), (' OFF ', False), ('no', False)])
def test_info(value, on):
    """--info says whether it is on, and otherwise why it is off."""
    environ = {} if value is None else {'GEVENT_CBASE_DATASTACK': value}
    status, out = run('-m', 'gevent_cbase', '--info', **environ)
    line, = [line for line in out.splitlines() if line.startswith('  datastack')]
    if not DATA_STACK:
        expected = 'off: CPython 3.10 has no data stack'
    else:
        expected = 'on' if on else 'off: GEVENT_CBASE_DATASTACK switches it off'
    assert (status, line.split(None, 1)[1]) == (0, expected)
