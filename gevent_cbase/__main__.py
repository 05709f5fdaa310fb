"""python -m gevent_cbase, and the script gevent-cbase: run a program with it installed."""
import sys

from gevent_cbase import _install
from gevent_cbase._version import __version__

USAGE = """\
usage: python -m gevent_cbase [-m MODULE | -c CODE | SCRIPT | -] [ARG ...]
       python -m gevent_cbase [--info | --version | --help]

Run a program as python itself does, with gevent_cbase installed before it starts: every
gevent server in it then runs on the accept loop in C. The script gevent-cbase does the
same. Options of python itself come first: python -X dev -m gevent_cbase SCRIPT.

  -m MODULE      run a module, as python -m does
  -c CODE        run code, as python -c does
  SCRIPT         run a file, or a folder or archive with a __main__
  -              run what standard input has, as python - does
  ARG ...        arguments of the program, in its sys.argv
  --info         print versions and which fast paths are on, and why the others are off
  --version, -V  print the version
  --help, -h     print this

With GEVENT_CBASE=1 in the environment gevent.monkey.patch_all() installs it in any program.
With GEVENT_CBASE=0 the program runs on gevent's own class,
with GEVENT_CBASE_WITHOUT=sockets,pools without these fast paths, with
GEVENT_CBASE_DATASTACK=0 without the cache of gevent_cbase.datastack, with
GEVENT_CBASE_MAX_READS=0 a handler that always finds something to read goes on
reading. Values that are not known are read as 0, with a warning.
"""


def fail(message):
    sys.stderr.write('gevent_cbase: %s; see --help\n' % message)
    sys.exit(2)


def tell_help():
    sys.stdout.write(USAGE)


def tell_version():
    print('gevent_cbase', __version__)


def tell_info():
    from gevent_cbase import _info
    _install.install()
    print('\n'.join(_info.lines()))


TELLING = {'--help': tell_help, '-h': tell_help, '--version': tell_version, '-V': tell_version,
           '--info': tell_info}


def main():
    args = sys.argv[1:]
    if not args:
        fail('no program to run')
    first = args.pop(0)
    if first in TELLING:
        if args:
            fail('%s takes no argument: %s' % (first, args[0]))
        TELLING[first]()
        return

    from gevent_cbase import _run
    run = _run.run_path
    if first[:2] in ('-m', '-c'):
        run = _run.run_module if first[:2] == '-m' else _run.run_code
        if first[2:]:
            args.insert(0, first[2:])
        if not args:
            fail('%s needs an argument' % first)
    elif first == '-':
        run = _run.run_stdin
        args.insert(0, first)
    elif first != '--':
        if first[:2] == '--':
            fail('unknown option: %s' % first)
        if first[:1] == '-':
            fail('unknown option: %s; options of python come before -m gevent_cbase' % first)
        args.insert(0, first)
    if not args:
        fail('no program to run')
    _install.install()
    if not run(args[0], args[1:]):
        _run.end_badly()


def script():
    """The script gevent-cbase."""
    from gevent_cbase import _run
    _run.begin_as_module()
    main()


if __name__ == '__main__':
    main()
