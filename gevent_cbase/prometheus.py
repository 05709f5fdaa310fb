"""What stats() tells of all servers of the process, for Prometheus, by its own client:

    pip install 'gevent_cbase[prometheus]'

ServerCollector is for one process, publish() for several that one scrape is to show, as the
workers of gunicorn. Both need install(). They have the same metrics, with the address that a
server listens at as label; servers of one address are added up. A server whose attributes raise is
left out, and the logger ``gevent_cbase`` tells why.

    gevent_server_accepted_total{address}
    gevent_server_spawn_errors_total{address}
    gevent_server_accept_errors_total{address,errno}     errno: EMFILE and the like, or other
    gevent_server_pauses_total{address,reason}           reason: full or backoff
    gevent_server_paused_seconds_total{address,reason}
    gevent_server_delay_seconds{address}                 the longest of them
    gevent_server_fast_path{address,name}                1 if all of them take it, or 0
"""
import atexit
import errno
import logging
import os
import sys
import weakref

import gevent

from gevent_cbase import _requirements
from gevent_cbase._stats import servers, stats

try:
    import prometheus_client
    from prometheus_client import core
except ModuleNotFoundError as ex:
    _requirements.check_extra(ex, 'prometheus_client', 'prometheus')
    raise

__all__ = ['Publisher', 'ServerCollector', 'publish']

#: name: (what it tells, labels besides the address)
COUNTERS = {
    'gevent_server_accepted': ('Connections taken.', ()),
    'gevent_server_spawn_errors': ('Connections whose handler could not be started.', ()),
    'gevent_server_accept_errors': ('How often accepting has failed.', ('errno',)),
    'gevent_server_pauses': ('How often accepting has stopped.', ('reason',)),
    'gevent_server_paused_seconds': ('How long accepting has stopped.', ('reason',)),
}
#: the same, with what is shown of several
GAUGES = {
    'gevent_server_delay_seconds': (
        'How long the next pause after an error will be.', (), max),
    'gevent_server_fast_path': (
        'Whether servers take this fast path.', ('name',), min),
}


class ServerCollector:
    """A collector for a registry of prometheus_client; looks at the servers when it is asked.

        prometheus_client.REGISTRY.register(ServerCollector())

    A server that is gone is no longer shown.

    .. versionadded:: 1.0
    """

    def describe(self):
        """Return the metrics without values: what the registry compares names with."""
        return list(_families().values())

    def collect(self):
        """Return the metrics, with the values of now."""
        families, values = _families(), {}
        for _, told in _values_of_each(servers()):
            for (name, *labels), value in told.items():
                key = name, tuple(labels)
                values[key] = _joined(name)(values[key], value) if key in values else value
        for (name, labels), value in values.items():
            families[name].add_metric(labels, value)
        return list(families.values())


class Publisher:
    """Writes the values into metrics of prometheus_client, which it makes: see publish().

    *registry*: where these are registered; default: that of prometheus_client.

    Raises ValueError if there are metrics of these names already.

    .. versionadded:: 1.0
    """

    def __init__(self, registry=None):
        registry = registry or prometheus_client.REGISTRY
        self._metrics = {name: prometheus_client.Counter(
            name, told, ['address', *labels], registry=registry)
            for name, (told, labels) in COUNTERS.items()}
        self._metrics.update((name, prometheus_client.Gauge(
            name, told, ['address', *labels], registry=registry,
            multiprocess_mode='live' + joined.__name__))
            for name, (told, labels, joined) in GAUGES.items())
        #: by id(): a weak reference to a server, and the values of it that have been written
        self._written = {}
        #: those that were running, so that nothing of one that has stopped since is lost
        self._running = []

    def update(self):
        """Write the values of now. Keeps alive the servers that run, until it is called again."""
        found = servers()
        written = {key: noted for key, noted in self._written.items() if noted[0]() is not None}
        gauges = {}
        for server, values in _values_of_each(found):
            before = written.get(id(server), (None, {}))[1]
            written[id(server)] = weakref.ref(server), values
            for key, value in values.items():
                if key[0] in COUNTERS:
                    self._child(key).inc(max(value - before.get(key, 0), 0))
                else:
                    gauges[key] = _joined(key[0])(gauges.get(key, value), value)
        for key, value in gauges.items():
            self._child(key).set(value)
        self._written = written
        self._running = [server for server in found if server.started]

    def _child(self, key):
        return self._metrics[key[0]].labels(*key[1:])

    def run(self, seconds):
        """update(), again and again; an error goes to the hub."""
        while True:
            try:
                self.update()
            except Exception:
                gevent.get_hub().handle_error(self, *sys.exc_info())
            gevent.sleep(seconds)


def publish(seconds=5.0, registry=None):
    """Keep the metrics of this process up to date, by a greenlet; return the Publisher.

    For the multiprocess mode of prometheus_client, which has no collectors: each process writes
    what it has to tell into a folder, and whoever is asked adds that up. To be called once in each
    process that serves, so after fork().

    *seconds*: how often; what happens in between is told at the next time, or at the end of the
    process. *registry*: see Publisher.

    .. versionadded:: 1.0
    """
    publisher = Publisher(registry)
    gevent.spawn(publisher.run, seconds)
    atexit.register(publisher.update)
    return publisher


def _families():
    """{name: a metric without values}"""
    families = {name: core.CounterMetricFamily(name, told, labels=['address', *labels])
                for name, (told, labels) in COUNTERS.items()}
    families.update((name, core.GaugeMetricFamily(name, told, labels=['address', *labels]))
                    for name, (told, labels, _) in GAUGES.items())
    return families


def _values_of_each(found):
    """Yield (server, its values); one that cannot tell them is left out, and logged."""
    for server in found:
        try:
            values = _values(server)
        except Exception:
            logger = logging.getLogger('gevent_cbase')
            logger.exception('no metrics of %s', object.__repr__(server))
        else:
            yield server, values


def _values(server):
    """{(name, address, other labels …): value}"""
    address, told = _address(server), stats(server)
    values = {
        ('gevent_server_accepted', address): told.accepted,
        ('gevent_server_spawn_errors', address): told.spawn_errors,
        ('gevent_server_pauses', address, 'full'): told.full_pauses,
        ('gevent_server_pauses', address, 'backoff'): told.backoff_pauses,
        ('gevent_server_paused_seconds', address, 'full'): told.full_seconds,
        ('gevent_server_paused_seconds', address, 'backoff'): told.backoff_seconds,
        ('gevent_server_delay_seconds', address): told.delay,
    }
    for number, count in told.accept_errors.items():
        key = 'gevent_server_accept_errors', address, errno.errorcode.get(number, 'other')
        values[key] = values.get(key, 0) + count
    for name, why_not in told.fast_paths.items():
        values['gevent_server_fast_path', address, name] = int(why_not is None)
    return values


def _joined(name):
    """How values of several servers become one."""
    return GAUGES[name][2] if name in GAUGES else lambda one, other: one + other


def _address(server):
    """Where a server listens: host:port, [IPv6 host]:port, or the path of a UNIX socket."""
    address = getattr(server, 'address', '')
    if isinstance(address, tuple):
        host, port = address[:2]
        return ('[%s]:%s' if ':' in str(host) else '%s:%s') % (host, port)
    address = os.fsdecode(address) if isinstance(address, bytes) else str(address)
    return address.replace('\0', '@')  # as the system shows one that is in no folder
