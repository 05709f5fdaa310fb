"""One command for each check: ``nox -s SESSION``; ``nox -l`` lists them.

``nox`` alone runs all but the benchmarks on every CPython it finds. Arguments after ``--`` go
to pytest: ``nox -s tests-3.12 -- tests/test_pool.py -k full``.
"""
import glob
import shutil
import subprocess

import nox

PYTHONS = ['3.10', '3.11', '3.12', '3.13', '3.14', '3.15']
WARNINGS = '-Wall -Wextra -Wshadow -Wstrict-prototypes -Wundef -Werror'
SANITIZERS = '-fsanitize=address,undefined -fno-sanitize-recover=all'

nox.needs_version = '>=2024.3.2'
nox.options.sessions = ['lint', 'warnings', 'tests', 'sanitizers']
nox.options.error_on_missing_interpreters = False
nox.options.reuse_existing_virtualenvs = True


@nox.session(python=PYTHONS)
def tests(session):
    """The test-suite, with gevent's own suites on every loop."""
    session.install('-e', '.[test]')
    session.run('python', '-m', 'pytest', '-n', 'auto', *session.posargs)


@nox.session
def lint(session):
    """Format of the C code, and the Python code."""
    session.install('clang-format==14.0.6', 'ruff==0.14.0')
    session.run('clang-format', '--dry-run', '-Werror', *sorted(glob.glob('src/*.[ch]')))
    session.run('ruff', 'check', '.')


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


@nox.session(python=['3.12'])
def sanitizers(session):
    """The test-suite on a build with AddressSanitizer and UndefinedBehaviorSanitizer."""
    session.install('pytest', 'pytest-xdist', 'hypothesis', 'psutil', 'cffi', 'setuptools',
                    'gevent')
    # greenlet moves stacks about, which AddressSanitizer could not follow
    session.install('--no-build-isolation', '--no-deps', '--force-reinstall', '.', env={
        'CFLAGS': SANITIZERS + ' -g -O1 -fno-omit-frame-pointer --param asan-stack=0',
        'LDFLAGS': SANITIZERS, 'CC': 'gcc'})
    libraries = [subprocess.check_output(['gcc', '-print-file-name=' + name], text=True).strip()
                 for name in ('libasan.so', 'libstdc++.so')]
    session.run('pytest', '-n', 'auto', *(session.posargs or ['tests']), env={
        'LD_PRELOAD': ' '.join(libraries), 'PYTHONMALLOC': 'malloc',
        'ASAN_OPTIONS': 'detect_leaks=0', 'GEVENT_CBASE_TESTS': 'sanitizers'})
