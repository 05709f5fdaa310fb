"""python -m gevent_cbase: run a program with gevent_cbase installed."""
import sys

from gevent_cbase import _install

USAGE = """\
usage: python -m gevent_cbase [-m MODULE | -c CODE | SCRIPT] [ARG ...]
       python -m gevent_cbase [--info | --help]

Run a program as python itself does, with gevent_cbase installed before it starts: every
gevent server in it then runs on the accept loop in C.

  -m MODULE   run a module, as python -m does
  -c CODE     run code, as python -c does
  SCRIPT      run a file, or a folder or archive with a __main__
  ARG ...     arguments of the program, in its sys.argv
  --info      print versions and which fast paths are on, and why the others are off
  --help, -h  print this

With GEVENT_CBASE=0 in the environment the program runs on gevent's own class,
with GEVENT_CBASE_WITHOUT=sockets,pools without these fast paths, with
GEVENT_CBASE_DATASTACK=0 without the cache of gevent_cbase.datastack, with
GEVENT_CBASE_MAX_READS=0 a handler that always finds something to read goes on
reading. Values that are not known are read as 0, with a warning.
"""


def fail(message):
    sys.stderr.write('gevent_cbase: %s\n\n%s' % (message, USAGE))
    sys.exit(2)


def main():
    args = sys.argv[1:]
    if not args:
        fail('no program to run')
    first = args.pop(0)
    if first in ('--help', '-h', '--info') and args:
        fail('%s takes no argument: %s' % (first, args[0]))
    if first in ('--help', '-h'):
        sys.stdout.write(USAGE)
        return
    if first == '--info':
        from gevent_cbase import _info
        _install.install()
        print('\n'.join(_info.lines()))
        return

    from gevent_cbase import _run
    run = _run.run_path
    if first[:2] in ('-m', '-c'):
        run = _run.run_module if first[:2] == '-m' else _run.run_code
        if first[2:]:
            args.insert(0, first[2:])
    elif first != '--':
        if first[:1] == '-':
            fail('unknown option: %s' % first)
        args.insert(0, first)
    if not args:
        fail('no program to run')
    _install.install()
    if not run(args[0], args[1:]):
        _run.end_badly()


if __name__ == '__main__':
    main()
