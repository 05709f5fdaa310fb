"""Run a program the way ``python`` does: a script, a module or code, also from standard input, as
``__main__``.

No function that is below the program has ``__main__`` or its namespace: see src/run.c.
"""
import builtins
import importlib.machinery
import linecache
import os
import pkgutil
import runpy
import sys
import textwrap
import types

from gevent_cbase import _cbase


def run_module(name, args):
    """``python -m name args``; return whether it ended well."""
    sys.argv[:] = ['-m', *args]
    _new_main()
    return _cbase._run_call(runpy._run_module_as_main, name)


def run_code(source, args):
    """``python -c source args``; return whether it ended well."""
    sys.argv[:] = ['-c', *args]
    _set_path0('')
    if sys.version_info >= (3, 14):
        source = textwrap.dedent(source)
    if sys.version_info >= (3, 13):  # tracebacks show lines of the code
        linecache.cache['<string>'] = (len(source), None, source.splitlines(True), '<string>')
    _new_main()
    return _cbase._run_source(source)


def run_stdin(name, args):
    """``python - args``: a program from standard input; return whether it ended well."""
    sys.argv[:] = [name, *args]
    _set_path0('')
    _new_main()
    return _cbase._run_stdin()


def run_path(path, args):
    """``python path args``: a script, compiled or not, or a folder or archive with __main__;
    return whether it ended well.
    """
    sys.argv[:] = [path, *args]
    filename = os.path.join(os.getcwd(), path)
    if not path and sys.version_info >= (3, 11):
        filename = os.getcwd()
    if pkgutil.get_importer(filename) is not None:
        _set_path0(filename, always=True)
        _new_main()
        return _cbase._run_call(runpy._run_module_as_main, '__main__', False)
    _set_path0(os.path.dirname(os.path.realpath(filename)))
    _new_main()
    try:
        return _cbase._run_file(filename)
    except OSError as ex:
        print("%s: can't open file %r: [Errno %d] %s" % (
            sys.executable, filename, ex.errno, ex.strerror), file=sys.stderr)
        sys.exit(2)


def end_badly():
    """Raise what has the interpreter end as after the program's exception, which was shown."""
    before = {name: value for name, value in vars(sys).items()
              if name.startswith('last_') or name == 'excepthook'}

    def say_nothing(*args):
        del sys.excepthook
        vars(sys).update(before)
    sys.excepthook = say_nothing
    if issubclass(before.get('last_type', Exception), KeyboardInterrupt):
        raise KeyboardInterrupt
    raise Exception


def begin_as_module():
    """For a script of ours: sys.path as ``python -m`` begins with it."""
    if not _has_safe_path():
        sys.path[0] = os.getcwd()


def _has_safe_path():
    return getattr(sys.flags, 'safe_path', sys.flags.isolated)  # safe_path: since 3.11


def _set_path0(entry, always=False):
    """Put *entry* where ``python -m`` has put the working directory."""
    if not _has_safe_path():
        sys.path[0] = entry
    elif always:
        sys.path.insert(0, entry)


def _new_main():
    """Make a fresh ``__main__``, as the interpreter has it before it runs anything."""
    main = types.ModuleType('__main__')
    if '__annotations__' in vars(sys.modules['__main__']):
        main.__annotations__ = {}
    main.__builtins__ = builtins
    main.__loader__ = importlib.machinery.BuiltinImporter
    sys.modules['__main__'] = main
