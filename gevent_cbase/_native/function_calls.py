"""Calls of Python functions of gevent, whoever makes them, run in C: that is what install() asks
for.

The function objects stay. CPython calls a function by its PyFunctionObject.vectorcall, but for the
interpreter of 3.11, which goes on with the code at once. There the function gets a code object
that begins with a comparison, which C makes: it is false if the code has to go on, and otherwise
what the function returns.

A comparison and no call, because code objects are written to files and sent to other processes:
marshal takes the object that is compared for bytes, pickle does so too, and a comparison with
bytes is false.
"""
import itertools
import opcode
import sys

from gevent_cbase import _cbase
from gevent_cbase._native import digests, switches

#: whether install() was called
_everywhere = False
#: CPython 3.11: by name, the function, its own code and the code that it is given
_given = {}
#: by name, why the function cannot be given another code, as text
_unknown = {}


def off(path):
    """Why it is not so with the functions of a fast path, as text; None if it is."""
    if not hasattr(_cbase, '_io_prepare'):
        return 'not built on this platform'
    if not _everywhere:
        return 'install() was not called'
    return switches.why_off(path)


def unknown(names):
    """Why one of these functions could not be taken over, as text; or None."""
    return next((_unknown[name] for name in names if name in _unknown), None)


def want(everywhere):
    """Set whether it is to be so; take_over() does it."""
    global _everywhere
    _everywhere = everywhere


def as_written(name, noted):
    """The function as it was noted(), see premises; with its own code, if it has what it is given.
    """
    _, own, given = _given.get(name, (None, None, None))
    if given is not None and getattr(noted, 'code', None) is given:
        return noted._replace(code=own)
    return noted


def take_over(name, noted):
    """Have calls of a function, which is gevent's, run in C.

    It was compared as it was noted, as_written(). Returns how it has to be noted now.
    """
    _cbase._calls_take_over(name, noted.function)
    if sys.version_info[:2] == (3, 11):
        return noted._replace(code=_give_code(name, noted.function, noted.code))
    return noted


def give_back():
    """Have them run as ever. Where somebody else has come after us, what he does is left alone."""
    if hasattr(_cbase, '_calls_give_back'):
        _cbase._calls_give_back()
    for function, own, given in _given.values():
        if function.__code__ is given:
            function.__code__ = own


def _give_code(name, function, code):
    """Exchange *code* of the function, and return what it has now."""
    _, own, given = _given.get(name, (None, None, None))
    if code is not own:
        try:
            given = beginning_with(_cbase._CallMark(name), code)
        except ValueError as ex:
            _unknown[name] = str(ex)
            return code
        _given[name] = function, code, given
    if function.__code__ is code:  # as it was compared
        function.__code__ = given
    return given


def beginning_with(mark, code):
    """A copy of *code* that compares *mark* with a tuple of its parameters, and returns what that
    returns unless it is False. For CPython 3.11, where jumps are relative.

    Raises ValueError if *code* is not as simple as that of gevent's functions is.
    """
    start = _code('RESUME', 0)
    constants = code.co_consts + (mark, False)
    count = (code.co_argcount + code.co_kwonlyargcount + bool(code.co_flags & CO_VARARGS)
             + bool(code.co_flags & CO_VARKEYWORDS))
    if (not code.co_code.startswith(start) or code.co_argcount < 1 or len(constants) > 255
            or code.co_cellvars or code.co_flags & UNKNOWN_FLAGS):
        raise ValueError('code of an unknown kind')
    added = b''.join((
        _code('LOAD_CONST', len(constants) - 2), *(_code('LOAD_FAST', i) for i in range(count)),
        _code('BUILD_TUPLE', count), _code('COMPARE_OP', opcode.cmp_op.index('==')),
        _code('COPY', 1), _code('LOAD_CONST', len(constants) - 1), _code('IS_OP', 0),
        _code('POP_JUMP_FORWARD_IF_TRUE', 1), _code('RETURN_VALUE'), _code('POP_TOP')))
    # For who traces lines, what is added belongs to the first of them.
    positions = list(code.co_positions())
    line = positions[1][0]
    positions[1:1] = [(line, line, None, None)] * (len(added) // 2)
    return code.replace(
        co_code=start + added + code.co_code[len(start):], co_consts=constants,
        co_stacksize=max(code.co_stacksize, count + 1, 3),
        co_exceptiontable=_moved(code, len(added) // 2),
        co_linetable=b''.join(_locations(positions, code.co_firstlineno)))


#: flags of code, as inspect has them: it has *args, or **kwargs; it is no plain function
CO_VARARGS, CO_VARKEYWORDS, UNKNOWN_FLAGS = 0x04, 0x08, 0x20 | 0x80 | 0x200


def _moved(code, units):
    """The exception table of *code* when it begins so many code units later."""
    return b''.join(
        _number(start + units, first=True) + _number(size) + _number(target + units)
        + _number(rest) for start, size, target, rest in digests.exception_handlers(code))


def _number(value, first=False):
    """A number of an exception table: groups of six bits, the highest first."""
    groups = [value & 0x3f]
    while value >= 64:
        value >>= 6
        groups.append(value & 0x3f | 0x40)
    if first:
        groups[-1] |= 0x80
    return bytes(reversed(groups))


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
