"""New Relic, Sentry and OpenTelemetry: what they know of a handler."""
import pytest

from moments import CALLED, MOMENTS, noted

#: asks servers whose handler is ``handle``, and prints what they answer
SERVE = '''
for name in 'default', 'raw', 'pool':
    print(name, *[reply.decode() for reply in served.talk(handle, served.spawns()[name], 2)])
'''
MONKEY = '''
from gevent import monkey
monkey.patch_all()
'''


NEWRELIC = MONKEY + '''
import newrelic.agent
newrelic.agent.initialize()
newrelic.agent.register_application(timeout=10)
import gevent
import served
from newrelic.api.transaction import Transaction

def ending(transaction, *args):
    ended.append('%s/%s %d' % (transaction.group, transaction.name, transaction._trace_node_count))
    return leave(transaction, *args)

ended = []
leave = Transaction.__exit__
Transaction.__exit__ = ending
'''


def test_newrelic_transactions(side):
    """A handler is a transaction, over switches, with its parts."""
    assert side.printed(NEWRELIC + '''
@newrelic.agent.background_task(name='handler')
def handle(sock, address):
    before = newrelic.agent.current_transaction()
    gevent.sleep(0)
    with newrelic.agent.FunctionTrace('reply'):
        after = newrelic.agent.current_transaction()
        sock.sendall(('%s %s' % (type(after).__name__, after is before)).encode())
''' + SERVE + '''
print(*ended, newrelic.agent.current_transaction())
''') == ['default BackgroundTask True BackgroundTask True',
        'raw BackgroundTask True BackgroundTask True',
        'pool BackgroundTask True BackgroundTask True', 'Function/handler 1 ' * 6 + 'None']


def test_newrelic_wsgi(side):
    """The agent wraps the constructor of pywsgi.WSGIServer."""
    assert side.printed(NEWRELIC + '''
def application(environ, start_response):
    start_response('200 OK', [])
    newrelic.agent.set_transaction_name('page')
    return [type(newrelic.agent.current_transaction()).__name__.encode()]
print(served.page(application).decode())
print(*ended)
''') == ['WSGIWebTransaction', 'Function/page 4']


@pytest.mark.parametrize('moment', MOMENTS)
def test_newrelic_wraps_functions(side, moment):
    assert noted(side, '''
def change_all():
    from newrelic.agent import wrap_function_wrapper
    for owner, name in replaced():
        def wrapper(wrapped, instance, args, kwargs, name=name):
            noted.append(name)
            return wrapped(*args, **kwargs)
        wrap_function_wrapper(owner, name, wrapper)
    gevent.spawn_raw = gevent.hub.spawn_raw
''', moment) == CALLED


SENTRY = '''
import sentry_sdk
from sentry_sdk.transport import Transport

class Collect(Transport):
    def capture_envelope(self, envelope):
        for item in envelope.items:
            events.append(item.get_event() or item.get_transaction_event())

events = []
sentry_sdk.init(dsn='http://key@127.0.0.1:9/1', transport=Collect, traces_sample_rate=1.0,
                auto_session_tracking=False)
import gevent
import served
'''


@pytest.mark.parametrize('monkey', ['', MONKEY], ids=['plain', 'patch_all'])
def test_sentry_events(side, monkey):
    """An error of a handler, with the frames up to it and what was noted in its scope."""
    assert side.printed(monkey + SENTRY + '''
def handle(sock, address):
    with sentry_sdk.isolation_scope() as scope, sentry_sdk.start_transaction(name='handler'):
        scope.set_tag('client', 'n%d' % len(events))
        gevent.sleep(0)
        try:
            sock.unknown
        except AttributeError:
            sentry_sdk.capture_exception()
        sock.sendall(b'sent')
''' + SERVE + '''
for event in events:
    if event.get('type') == 'transaction':
        print(event['transaction'], event['tags'])
    else:
        (value,) = event['exception']['values']
        print(value['type'], event['tags'], event['transaction'],
              [frame['function'] for frame in value['stacktrace']['frames']])
''') == ['default sent sent', 'raw sent sent', 'pool sent sent'] + [
        line % number for number in range(0, 12, 2) for line in (
            "AttributeError {'client': 'n%d'} handler ['handle', '__getattr__']",
            "handler {'client': 'n%d'}")]


def test_sentry_wsgi(side):
    assert side.printed(SENTRY + '''
from sentry_sdk.integrations.wsgi import SentryWsgiMiddleware

@SentryWsgiMiddleware
def application(environ, start_response):
    start_response('200 OK', [])
    sentry_sdk.capture_message('page')
    return [b'sent']
print(served.page(application).decode())
for event in events:
    print(event.get('message'), event['request']['method'],
          event['request']['url'].rpartition('/')[2])
''') == ['sent', 'page GET path', 'None GET path']


OPENTELEMETRY = '''
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
exporter = InMemorySpanExporter()
trace.set_tracer_provider(TracerProvider())
trace.get_tracer_provider().add_span_processor(SimpleSpanProcessor(exporter))
tracer = trace.get_tracer('tests')
import gevent
import served

def print_spans():
    spans = exporter.get_finished_spans()
    names = {span.context.span_id: span.name for span in spans}
    for span in spans:
        print(span.name, 'in', names.get(span.parent.span_id) if span.parent else None)
'''


def test_opentelemetry_spans(side):
    """A handler does not run within the span that was current where its server was made."""
    assert side.printed(OPENTELEMETRY + '''
def handle(sock, address):
    with tracer.start_as_current_span('handler'):
        gevent.sleep(0)
        with tracer.start_as_current_span('reply'):
            sock.sendall(trace.get_current_span().name.encode())

with tracer.start_as_current_span('all'):
''' + SERVE.strip().replace('for', '    for').replace('print', '    print') + '''
print_spans()
''') == ['default reply reply', 'raw reply reply', 'pool reply reply',
        *['reply in handler', 'handler in None'] * 6, 'all in None']


def test_opentelemetry_wsgi(side):
    assert side.printed(OPENTELEMETRY + '''
from opentelemetry.instrumentation.wsgi import OpenTelemetryMiddleware

def application(environ, start_response):
    start_response('200 OK', [])
    return [trace.get_current_span().name.encode()]

application = OpenTelemetryMiddleware(application)
print(served.page(application).decode())
print_spans()
''') == ['GET /path', 'GET /path in None']
