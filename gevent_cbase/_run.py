"""Run a program the way ``python`` does: a script, a module or code, as ``__main__``."""
import builtins
import importlib.machinery
import importlib.util
import io
import linecache
import marshal
import os
import pkgutil
import runpy
import sys
import textwrap
import types


def run_module(name, args):
    """``python -m name args``"""
    sys.argv[:] = ['-m', *args]
    _new_main()
    try:
        runpy._run_module_as_main(name)
    except Exception as ex:
        _forget_frames(ex)
        raise
    except KeyboardInterrupt as ex:
        _forget_frames(ex)
        raise


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
    _execute(source, '<string>', main)


def run_path(path, args):
    """``python path args``: a script, compiled or not, or a folder or archive with __main__."""
    sys.argv[:] = [path, *args]
    filename = _absolute(path)
    if pkgutil.get_importer(filename) is not None:
        _set_path0(filename, always=True)
        _new_main()
        try:
            runpy._run_module_as_main('__main__', alter_argv=False)
        except (Exception, KeyboardInterrupt) as ex:
            _forget_frames(ex)
            raise
        return
    try:
        with io.open_code(filename) as file:
            code = file.read()
    except OSError as ex:
        print("%s: can't open file %r: [Errno %d] %s" % (
            sys.executable, filename, ex.errno, ex.strerror), file=sys.stderr)
        sys.exit(2)
    _set_path0(os.path.dirname(os.path.realpath(filename)))
    main = _new_main()
    main.__file__ = filename
    main.__loader__ = importlib.machinery.SourceFileLoader('__main__', filename)
    if sys.version_info < (3, 15):
        main.__cached__ = None
    if code[:4] == importlib.util.MAGIC_NUMBER:
        main.__loader__ = importlib.machinery.SourcelessFileLoader('__main__', filename)
        code = marshal.loads(code[16:])
    _execute(code, filename, main)


def _absolute(path):
    """The path as ``python`` shows it: absolute, otherwise as given."""
    if os.path.isabs(path):
        return path
    if path.startswith('.' + os.sep):
        path = path[2:]
    return os.path.join(os.getcwd(), path)


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


def _execute(source, filename, main):
    try:
        code = source
        if not isinstance(source, types.CodeType):
            code = compile(source, filename, 'exec', dont_inherit=True)
        exec(code, vars(main))
    except (Exception, KeyboardInterrupt) as ex:
        _forget_frames(ex)
        raise


def _forget_frames(ex):
    """Have *ex*, which ends the program, shown without the frames of this module.

    It goes on up to the interpreter, which adds our frames again before it calls
    sys.excepthook: so the hook is where they are taken off, once.
    """
    traceback = ex.__traceback__.tb_next
    hook = sys.excepthook

    def excepthook(kind, value, _traceback):
        sys.excepthook = hook
        sys.last_traceback = traceback
        value.__traceback__ = traceback
        hook(kind, value, traceback)
    sys.excepthook = excepthook
