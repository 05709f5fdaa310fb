"""The ``impl`` fixture: one test body, run on gevent's class and on ours.

gevent itself is the reference. For ``cbase`` the drop-in is installed before the test
and taken out again after it, so the classes of gevent.server and gevent.pywsgi, and every
subclass defined in a test module, run on the C class during the test.
"""
import faulthandler
import gc
import importlib.util
import os
import resource
import signal
import sys
import types

import gevent
import hypothesis.strategies
import pytest
from gevent import baseserver, get_hub
from gevent import pywsgi, server  # noqa: F401 (their classes must exist before install())
from gevent._compat import PURE_PYTHON

#: gevent's own objects, whatever is installed at the moment
STOCK = types.SimpleNamespace(**{name: getattr(baseserver, name) for name in (
    'BaseServer', 'parse_address', '_parse_address', '_extract_family',
    '_handle_and_close_when_done')})

#: seconds after which a test that blocks the whole thread is shown and ends the run
HARD_LIMIT = 120

#: seconds of hub time that a test may take; an emulated processor is many times slower
DEADLINE = 10
if os.environ.get('GEVENT_CBASE_TESTS') == 'emulated':
    DEADLINE, HARD_LIMIT = 10 * DEADLINE, 10 * HARD_LIMIT

#: bytes that a process may take; AddressSanitizer keeps what is freed, and marks what is not
MEMORY = (4 if os.environ.get('GEVENT_CBASE_TESTS') == 'sanitizers' else 1) << 30

#: what needs more than the tests do; see ``nox -s field`` and ``nox -s deploy``
collect_ignore = ['programs/' + name for name in ('field', 'deploy')
                  if os.environ.get('GEVENT_CBASE_TESTS') != name]

# a shell has what it starts in the background ignore SIGINT, and so would the programs under test
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(config, items):
    """Tests of fast paths go first: since CPython 3.13 a class gets a thousand version tags in its
    life, install() uses up one or two, and without one there is no fast path.

    Where fast paths are switched off, the tests that need one of them are left out. There, under
    the sanitizers, with GEVENT_CBASE_TESTS=ours and where the processor is emulated so are those
    of gevent's class, which are the same as ever.
    """
    items.sort(key=lambda item: item.get_closest_marker('fast_path') is None)
    ours_only = (os.environ.get('GEVENT_CBASE_WITHOUT')
                 or os.environ.get('GEVENT_CBASE_TESTS') in ('sanitizers', 'ours', 'emulated'))
    kept, left_out = [], []
    for item in items:
        stands = has_paths(item) and not (ours_only and is_stock(item))
        (kept if stands else left_out).append(item)
    items[:] = kept
    config.hook.pytest_deselected(items=left_out)


def pytest_collection_finish():
    """Thousands of collected tests are no longer looked at, each time, by the collector and by
    install(), which looks for servers: there are none yet, also not in what is frozen."""
    use_hypothesis()
    gc.collect()
    gc.freeze()
    if importlib.util.find_spec('gevent_cbase') is not None:
        from gevent_cbase import _install
        _install._referrers = lambda classes: gc.get_referrers(*classes)


@hypothesis.settings(database=None, max_examples=1)
@hypothesis.given(hypothesis.strategies.none())
def use_hypothesis(nothing):
    """Once: it warns if the collector does not see who refers to the generator that it makes."""


@pytest.fixture
def thawed():
    """The collector looks at everything there is, as in a program."""
    gc.unfreeze()
    yield
    gc.collect()
    gc.freeze()


def has_paths(item):
    """Whether a test needs no fast path that is switched off, or that gevent in pure Python has
    not.
    """
    from gevent_cbase._native.switches import why_off
    needed = [name for mark in item.iter_markers('fast_path') for name in mark.args]
    return not any(why_off(name) or PURE_PYTHON and name in ('greenlets', 'io') for name in needed)


def is_stock(item):
    """Whether a test is of gevent's class."""
    return hasattr(item, 'callspec') and item.callspec.params.get('impl') == 'gevent'


class Impl:
    """What a test needs of one implementation; attributes are looked up when used."""

    def __init__(self, name):
        self.name = name
        self.stock = name == 'gevent'

    def __repr__(self):
        return self.name

    @property
    def module(self):
        """gevent.baseserver or gevent_cbase.baseserver."""
        if self.stock:
            return baseserver
        import gevent_cbase.baseserver
        return gevent_cbase.baseserver

    @property
    def BaseServer(self):
        return self.module.BaseServer

    @property
    def StreamServer(self):
        return server.StreamServer

    @property
    def DatagramServer(self):
        return server.DatagramServer

    @property
    def WSGIServer(self):
        return pywsgi.WSGIServer


@pytest.fixture(params=['gevent', 'cbase'])
def impl(request):
    """The implementation under test: ``impl.BaseServer``, ``impl.StreamServer``, …"""
    chosen = Impl(request.param)
    if chosen.stock:
        yield chosen
        return
    import gevent_cbase
    gevent_cbase.install()
    try:
        assert server.StreamServer.__mro__[1] is gevent_cbase.BaseServer
        yield chosen
    finally:
        gevent_cbase.uninstall()
    assert server.StreamServer.__mro__[1] is STOCK.BaseServer


@pytest.fixture(autouse=True)
def _deadline(request):
    """Seconds of hub time for a test, two minutes for one that blocks the thread."""
    if request.node.get_closest_marker('no_deadline'):
        yield
        return
    faulthandler.dump_traceback_later(HARD_LIMIT, exit=True, file=_real_stderr)
    try:
        with gevent.Timeout(DEADLINE):
            yield
    finally:
        faulthandler.cancel_dump_traceback_later()


@pytest.fixture(autouse=True)
def _memory():
    """No test, nor a process that it has waited for, takes more than MEMORY.

    Both figures only ever grow, so it is the test during which they got there that is told. A
    process begins with that of its parent, which therefore counts first.
    """
    before = peaks()
    yield
    for who, peak in peaks().items():
        if peak > MEMORY >= max(before['this process'], before[who]):
            pytest.fail('%s took %d MiB, and %d are allowed' % (who, peak >> 20, MEMORY >> 20))


def peaks():
    """The most memory that this process has had at a time, and any that it has waited for."""
    return {who: resource.getrusage(of).ru_maxrss * 1024 for who, of in (
        ('this process', resource.RUSAGE_SELF), ('a child', resource.RUSAGE_CHILDREN))}


_real_stderr = None


def pytest_configure(config):
    global _real_stderr
    _real_stderr = os.fdopen(os.dup(2), 'w')  # pytest does not capture at this point


def pytest_unconfigure(config):
    _real_stderr.close()


def pytest_report_header(config):
    hub = get_hub()
    return 'gevent %s, loop %s, CPython %s' % (
        gevent.__version__, type(hub.loop).__module__, sys.version.split()[0])


class Errors(list):
    """(context, type, value) of everything that reached the hub's error handler."""

    def __call__(self, context, kind, value, tb):
        self.append((context, kind, value))


@pytest.fixture
def errors():
    """Record what reaches ``hub.handle_error`` instead of printing it."""
    hub = get_hub()
    hub.handle_error = seen = Errors()
    yield seen
    del hub.handle_error


@pytest.fixture
def unraisable(monkeypatch):
    """Types of the exceptions that could only be written to stderr."""
    seen = []
    monkeypatch.setattr(sys, 'unraisablehook', lambda info: seen.append(info.exc_type))
    return seen


@pytest.fixture
def serve():
    """``serve(server)`` starts it and returns it; it is stopped when the test ends."""
    made = []

    def start(one):
        made.append(one)
        one.start()
        return one
    yield start
    for one in made:
        one.stop(timeout=0)
