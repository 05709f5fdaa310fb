"""CPU of the accept loop alone: a do_read that returns a constant, and spawn=None."""
import contextlib
import importlib.util
import json
import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time

from gevent_cbase.bench import children
from gevent_cbase.bench.report import Report, interleave

CYTHON = 'gevent compiled with Cython'
IMPLEMENTATIONS = ('gevent', 'gevent_cbase', CYTHON)

ROUNDS, COUNT = 9, 200000
QUICK_ROUNDS, QUICK_COUNT = 3, 30000

#: of the module that is compiled
NAME = 'compiled_baseserver'


def add_options(parser, choices):
    pass


def run(options, progress):
    cores = children.Cores()
    report = Report(
        'loop', 'CPU of the loop alone per accept: medians of %d rounds of %d accepts'
        % (options.rounds, options.count),
        {'rounds': options.rounds, 'accepts': options.count}, cores)
    report.notes = []  # there is no load
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix='bench-'))
        names, compiled = list(IMPLEMENTATIONS), None
        try:
            progress('compiling gevent.baseserver with Cython')
            compiled = compile_with_cython(folder)
        except children.Skip as ex:
            report.skip(CYTHON, str(ex))
            names.remove(CYTHON)
        child = children.Child('loop', {'name': 'loop', 'compiled': compiled}, core=cores.server)
        stack.callback(child.close)
        measures, base = [], None
        for name in names:
            result = report.add({'case': 'dispatch only'}, name, base)
            base = base or result
            measures.append((result, measure(child, name, options.count)))
        interleave(measures, options.rounds, progress)
    return report


def measure(child, name, count):
    return lambda: (child.ask(name=name, count=count)['us'], None)


def compile_with_cython(folder):
    """Path of gevent.baseserver as an extension module, made in *folder*; raises Skip."""
    children.available('Cython')
    compiler = shlex.split(os.environ.get('CC') or sysconfig.get_config_var('CC') or 'cc')
    if shutil.which(compiler[0]) is None:
        raise children.Skip('there is no C compiler')
    source = os.path.join(folder, NAME + '.py')
    target = os.path.join(folder, NAME + sysconfig.get_config_var('EXT_SUFFIX'))
    shutil.copyfile(importlib.util.find_spec('gevent.baseserver').origin, source)
    for command in (
            [sys.executable, '-m', 'cython', '-3', source],
            [*compiler, '-shared', '-fPIC', '-O2', '-w',
             '-I' + sysconfig.get_path('include'), source[:-3] + '.c', '-o', target]):
        done = subprocess.run(command, cwd=folder, stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        if done.returncode:
            lines = done.stdout.decode(errors='replace').split('\n')
            raise children.Skip('%s failed: %s' % (
                os.path.basename(command[0]), ([line for line in lines if line] or [''])[-1]))
    return target


# In the child

def main():
    settings = json.loads(sys.argv[1])
    children.settle(settings)
    import gevent.baseserver

    import gevent_cbase.baseserver
    modules = {'gevent': gevent.baseserver, 'gevent_cbase': gevent_cbase.baseserver}
    if settings['compiled']:
        spec = importlib.util.spec_from_file_location(NAME, settings['compiled'])
        modules[CYTHON] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(modules[CYTHON])
    servers = {name: make_server(module.BaseServer) for name, module in modules.items()}

    def answer(name, count):
        accept = servers[name]._do_read
        batches = -(-count // servers[name].max_accept)
        start = time.process_time()
        for _ in range(batches):
            accept()
        used = time.process_time() - start
        return {'us': used / (batches * servers[name].max_accept) * 1e6}

    children.say()
    children.serve_questions(answer)


def make_server(base):
    class Server(base):
        connection = (object(), object())

        def do_read(self):
            return self.connection

    def handle(sock, address):
        pass

    return Server(('127.0.0.1', 0), handle, spawn=None)


if __name__ == '__main__':
    main()
