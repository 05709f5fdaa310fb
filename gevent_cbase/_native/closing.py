"""Calls of gevent's socket.close(), whoever makes them, run in C: that is what install() asks for.

The function object stays. CPython calls a function by its PyFunctionObject.vectorcall, but for the
interpreter of 3.11, which goes on with the code at once. There the function gets a code object
that begins with a comparison, which C makes, and which is true if the socket is closed now.

A comparison and no call, because code objects are written to files and sent to other processes:
marshal takes the object that is compared for bytes, pickle does so too, and a comparison with
bytes is false.
"""
import itertools
import opcode
import sys

from gevent_cbase import _cbase
from gevent_cbase._native import switches

#: whether install() was called
_everywhere = False
#: CPython 3.11: the function, its own code and the code that it is given
_function = _own = _given = None
#: why the function cannot be given another code, as text
_unknown = None


def off():
    """Why it is not so, as text; None if it is."""
    if not hasattr(_cbase, '_close_take_over'):
        return 'not built on this platform'
    if not _everywhere:
        return 'install() was not called'
    return switches.why_off('closing') or _unknown


def want(everywhere):
    """Set whether it is to be so; take_over() does it."""
    global _everywhere
    _everywhere = everywhere


def as_written(noted):
    """The function as it was noted(), see premises; with its own code, if it has what it is given.
    """
    if _given is not None and getattr(noted, 'code', None) is _given:
        return noted._replace(code=_own)
    return noted


def take_over(noted):
    """Have calls of a function, which is gevent's, run in C.

    It was compared as it was noted, as_written(). Returns how it has to be noted now.
    """
    _cbase._close_take_over(noted.function)
    if sys.version_info[:2] == (3, 11):
        return noted._replace(code=_give_code(noted.function, noted.code))
    return noted


def give_back():
    """Have them run as ever. Where somebody else has come after us, what he does is left alone."""
    if hasattr(_cbase, '_close_give_back'):
        _cbase._close_give_back()
    if _given and _function.__code__ is _given:
        _function.__code__ = _own


def _give_code(close, code):
    """Exchange *code* of the function, and return what it has now."""
    global _function, _own, _given, _unknown
    if code is not _own:
        try:
            _given = beginning_with(_cbase._CloseMark(), code)
        except ValueError as ex:
            _unknown = str(ex)
            return code
        _function, _own = close, code
    if close.__code__ is code:  # as it was compared
        close.__code__ = _given
    return _given


def beginning_with(mark, code):
    """A copy of *code* that compares *mark* with its first argument, and returns None if they are
    equal. For CPython 3.11, where jumps are relative.

    Raises ValueError if *code* is not as simple as that of socket.close() is.
    """
    start = _code('RESUME', 0)
    constants = code.co_consts + (mark, None)
    if (not code.co_code.startswith(start) or code.co_exceptiontable or code.co_argcount < 1
            or len(constants) > 255):
        raise ValueError('code of an unknown kind')
    compare = (_code('LOAD_CONST', len(constants) - 2) + _code('LOAD_FAST', 0)
               + _code('COMPARE_OP', opcode.cmp_op.index('==')))
    leave = _code('LOAD_CONST', len(constants) - 1) + _code('RETURN_VALUE')
    added = compare + _code('POP_JUMP_FORWARD_IF_FALSE', len(leave) // 2) + leave
    # For who traces lines, what is added belongs to the first of them.
    positions = list(code.co_positions())
    line = positions[1][0]
    positions[1:1] = [(line, line, None, None)] * (len(added) // 2)
    return code.replace(
        co_code=start + added + code.co_code[len(start):], co_consts=constants,
        co_stacksize=max(code.co_stacksize, 2),
        co_linetable=b''.join(_locations(positions, code.co_firstlineno)))


def _code(name, argument=0):
    """An instruction with its inline caches, which are empty."""
    number = opcode.opmap[name]
    return bytes([number, argument]) + bytes(2 * opcode._inline_cache_entries[number])


def _locations(positions, line):
    """The entries of a location table, in its long forms."""
    for (start, end, column, end_column), units in itertools.groupby(positions):
        count = len(list(units))
        while count > 0:
            length = min(count, 8) - 1
            count -= 8
            if start is None:
                yield bytes([0x80 | 15 << 3 | length])
                continue
            change, line = start - line, start
            change = -change << 1 | 1 if change < 0 else change << 1
            if column is None:
                yield bytes([0x80 | 13 << 3 | length, *_varint(change)])
            else:
                yield bytes([0x80 | 14 << 3 | length, *_varint(change), *_varint(end - start),
                             *_varint(column + 1), *_varint(end_column + 1)])


def _varint(value):
    """Groups of six bits, the lowest first."""
    while value >= 64:
        yield 64 | value & 63
        value >>= 6
    yield value
