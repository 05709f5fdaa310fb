"""CPU to create a greenlet that does nothing, start it, and see it end."""
import contextlib
import json
import sys
import time

from gevent_cbase.bench import children
from gevent_cbase.bench.report import Report, interleave

CASES = ('gevent.spawn', 'gevent.spawn_raw', 'greenlet')
PLAIN, CACHED = 'without cache', 'with cache'

ROUNDS, COUNT = 9, 30000
QUICK_ROUNDS, QUICK_COUNT = 3, 5000

#: how many greenlets are created before the hub runs them
BATCH = 100


def add_options(parser, choices):
    parser.add_argument('--python', action='append', default=None, metavar='PATH',
                        help='a Python to measure in place of this one; may be given again')


def run(options, progress):
    cores = children.Cores()
    report = Report(
        'spawn', 'CPU per greenlet, created, run and ended: medians of %d rounds of %d greenlets'
        % (options.rounds, options.count),
        {'rounds': options.rounds, 'greenlets': options.count, 'batch': BATCH,
         'python': options.python or [sys.executable]}, cores)
    report.notes = []  # there is no load
    measures = []
    with contextlib.ExitStack() as stack:
        for path in options.python or [None]:
            progress('starting %s' % (path or sys.executable))
            child = children.Child('spawn', {'name': 'spawn'}, core=cores.server, python=path)
            stack.callback(child.close)
            python = 'CPython %(python)s, greenlet %(greenlet)s' % child.hello
            for case in CASES:
                base = report.add({'python': python, 'case': case}, PLAIN)
                measures.append((base, measure(child, case, options.count, False)))
                if child.hello['off'] is None:
                    cached = report.add({'python': python, 'case': case}, CACHED, base)
                    measures.append((cached, measure(child, case, options.count, True)))
                else:
                    report.skip('cache on ' + python, child.hello['off'])
        interleave(measures, options.rounds, progress)
    return report


def measure(child, case, count, cached):
    return lambda: (child.ask(case=case, count=count, cached=cached)['us'], None)


# In the child

def main():
    settings = json.loads(sys.argv[1])
    children.settle(settings)
    import platform

    import greenlet

    from gevent_cbase import datastack
    off = None if datastack.enable() else datastack.why_off()
    datastack.disable()
    children.say(python=platform.python_version(), greenlet=greenlet.__version__, off=off)
    children.serve_questions(answer)


def answer(case, count, cached):
    from gevent_cbase import datastack
    if cached:
        datastack.enable()
    try:
        start = time.process_time()
        run_case(case, count)
        return {'us': (time.process_time() - start) / count * 1e6}
    finally:
        datastack.disable()


def run_case(case, count):
    import gevent
    import greenlet

    def nothing():
        pass

    if case == 'greenlet':
        new = greenlet.greenlet
        for _ in range(count):
            new(nothing).switch()
        return
    start = gevent.spawn if case == 'gevent.spawn' else gevent.spawn_raw
    while count > 0:
        for _ in range(min(BATCH, count)):
            start(nothing)
        gevent.sleep(0)  # the hub comes back when it has run them
        count -= BATCH


if __name__ == '__main__':
    main()
