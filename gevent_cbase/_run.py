"""Run a program the way ``python`` does: a script, a module or code, as ``__main__``."""
import builtins
import importlib.machinery
import importlib.util
import linecache
import marshal
import os
import pkgutil
import runpy
import stat
import sys
import textwrap
import types

from gevent_cbase import _cbase


def run_module(name, args):
    """``python -m name args``"""
    sys.argv[:] = ['-m', *args]
    _new_main()
    _end_like_python(runpy._run_module_as_main, name)


def run_code(source, args):
    """``python -c source args``"""
    sys.argv[:] = ['-c', *args]
    _set_path0('')
    if sys.version_info >= (3, 14):
        source = textwrap.dedent(source)
    if sys.version_info >= (3, 13):  # tracebacks show lines of the code
        linecache.cache['<string>'] = (len(source), None, source.splitlines(True), '<string>')
    main = _new_main()
    main.__loader__ = importlib.machinery.BuiltinImporter
    _end_like_python(_execute, source, vars(main))


def run_path(path, args):
    """``python path args``: a script, compiled or not, or a folder or archive with __main__."""
    sys.argv[:] = [path, *args]
    filename = os.path.join(os.getcwd(), path)
    if not path and sys.version_info >= (3, 11):
        filename = os.getcwd()
    if pkgutil.get_importer(filename) is not None:
        _set_path0(filename, always=True)
        _new_main()
        _end_like_python(runpy._run_module_as_main, '__main__', False)
        return
    compiled = False
    try:
        if stat.S_ISREG(os.stat(filename).st_mode):  # a pipe can be read but once
            with open(filename, 'rb') as file:
                compiled = file.read(4) == importlib.util.MAGIC_NUMBER
    except OSError as ex:
        print("%s: can't open file %r: [Errno %d] %s" % (
            sys.executable, filename, ex.errno, ex.strerror), file=sys.stderr)
        sys.exit(2)
    _set_path0(os.path.dirname(os.path.realpath(filename)))
    main = _new_main()
    main.__file__ = filename
    if sys.version_info < (3, 15):
        main.__cached__ = None
    if compiled:
        main.__loader__ = importlib.machinery.SourcelessFileLoader('__main__', filename)
        _end_like_python(_execute_compiled, filename, vars(main))
    else:
        main.__loader__ = importlib.machinery.SourceFileLoader('__main__', filename)
        _end_like_python(_cbase._run_file, filename, vars(main))


def _set_path0(entry, always=False):
    """Put *entry* where ``python -m`` has put the working directory."""
    safe = getattr(sys.flags, 'safe_path', sys.flags.isolated)  # safe_path: since 3.11
    if not safe:
        sys.path[0] = entry
    elif always:
        sys.path.insert(0, entry)


def _new_main():
    """A fresh ``__main__``, as the interpreter has it before it runs anything."""
    former = sys.modules['__main__']
    main = types.ModuleType('__main__')
    main.__builtins__ = builtins
    if '__annotations__' in vars(former):
        main.__annotations__ = {}
    sys.modules['__main__'] = main
    return main


def _execute(source, namespace):
    exec(compile(source, '<string>', 'exec', dont_inherit=True), namespace)


def _execute_compiled(filename, namespace):
    with open(filename, 'rb') as file:
        code = marshal.loads(file.read()[16:])
    exec(code, namespace)


def _end_like_python(run, *args):
    """Call *run*; an exception that ends the program is shown without frames of ours.

    It is shown here, and then goes on up to the interpreter for the exit status, which shows
    it, with the frames above, to a hook that says nothing.
    """
    try:
        run(*args)
        return
    except SystemExit:
        raise
    except BaseException as ex:
        error = ex
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_frame.f_globals is globals():
        traceback = traceback.tb_next
    error.__traceback__ = traceback
    _cbase._print_exception(error)
    hook = sys.excepthook

    def silent_hook(_kind, value, _traceback):
        sys.excepthook = hook
        sys.last_traceback = value.__traceback__ = traceback
    sys.excepthook = silent_hook
    raise error
