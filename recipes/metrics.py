"""Counters of a server, for Prometheus to collect: its text format, written by hand.

    python metrics.py [ADDRESS [ADDRESS OF THE METRICS]]

The metrics have an address of their own, which the public does not see.
"""
import errno
import signal
import sys

import gevent
from gevent.pywsgi import WSGIServer

import gevent_cbase

gevent_cbase.install()


def application(environ, start_response):
    start_response('200 OK', [('Content-Type', 'text/plain')])
    return [b'hello\n']


def exposition(server):
    """Yield the lines that tell of *server*."""
    stats = gevent_cbase.stats(server)
    yield '# TYPE server_accepted_total counter'
    yield 'server_accepted_total %d' % stats.accepted
    yield '# TYPE server_spawn_errors_total counter'
    yield 'server_spawn_errors_total %d' % stats.spawn_errors
    yield '# TYPE server_accept_errors_total counter'
    for number, count in stats.accept_errors.items():
        name = errno.errorcode.get(number, 'other')
        yield 'server_accept_errors_total{errno="%s"} %d' % (name, count)
    pauses = {'full': (stats.full_pauses, stats.full_seconds),
              'backoff': (stats.backoff_pauses, stats.backoff_seconds)}
    yield '# TYPE server_pauses_total counter'
    for reason, (times, _) in pauses.items():
        yield 'server_pauses_total{reason="%s"} %d' % (reason, times)
    yield '# TYPE server_paused_seconds_total counter'
    for reason, (_, seconds) in pauses.items():
        yield 'server_paused_seconds_total{reason="%s"} %.6f' % (reason, seconds)
    yield '# TYPE server_delay_seconds gauge'
    yield 'server_delay_seconds %g' % stats.delay
    yield '# TYPE server_fast_path gauge'
    for name, why_not in stats.fast_paths.items():
        yield 'server_fast_path{name="%s"} %d' % (name, why_not is None)


def metrics_of(server):
    """A WSGI application that shows the counters of *server*."""
    def metrics(environ, start_response):
        start_response('200 OK', [('Content-Type', 'text/plain; version=0.0.4')])
        return [''.join(line + '\n' for line in exposition(server)).encode()]
    return metrics


def main(address='127.0.0.1:8080', metrics_address='127.0.0.1:9100'):
    server = WSGIServer(address, application, log=None, spawn=1000)
    metrics = WSGIServer(metrics_address, metrics_of(server), log=None)
    gevent.signal_handler(signal.SIGTERM, server.close)
    metrics.start()
    server.serve_forever()
    metrics.stop()


if __name__ == '__main__':
    main(*sys.argv[1:])
