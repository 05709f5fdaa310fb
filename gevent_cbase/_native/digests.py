"""What a Python function does, told from its code object.

Somebody may give a function other code and leave its name, file and lines as they were: a tracer,
a debugger, an import hook. And in a frozen program there is no source text.
"""
import bisect
import opcode
import sys
import types

try:
    from _sha2 import sha256  # since 3.12; hashlib would import much more
except ImportError:
    try:
        from _sha256 import sha256
    except ImportError:
        from hashlib import sha256

#: this interpreter's key in known.CODE
VERSION = '%d.%d' % sys.version_info[:2]

#: CO_HAS_DOCSTRING, since 3.14
HAS_DOCSTRING = 0x4000000

_CACHE, _NOP = opcode.opmap.get('CACHE'), opcode.opmap['NOP']
_CONSTANT, _GLOBAL, _NAME = frozenset(opcode.hasconst), opcode.opmap['LOAD_GLOBAL'], \
    opcode.opmap['LOAD_NAME']
_ABSOLUTE = frozenset(opcode.hasjabs)
_FORWARD, _BACKWARD = (
    frozenset(number for number in opcode.hasjrel if ('BACKWARD' in opcode.opname[number]) is back)
    for back in (False, True))


def digest(code):
    """SHA-256, the first 32 digits, of what a code object does.

    What does not count is where it was written: file, lines, name, docstring.
    """
    return sha256(repr(_described(code)).encode()).hexdigest()[:32]


def _described(code):
    """What counts of a code object, in objects that have the same repr() everywhere."""
    instructions = list(_instructions(code))
    starts = [start for start, _, _, _ in instructions]

    def place(offset):
        return bisect.bisect_left(starts, offset)
    described = []
    for _, end, operation, argument in instructions:
        if operation in _CONSTANT:  # without a docstring the others have lower numbers
            argument = _constant(code.co_consts[argument])
        elif operation in _ABSOLUTE:
            argument = place(argument)
        elif operation in _FORWARD:
            argument = place(end + argument)
        elif operation in _BACKWARD:
            argument = place(end - argument)
        described.append((opcode.opname[operation], argument))
    handlers = [(place(start), place(start + size), place(target), rest)
                for start, size, target, rest in exception_handlers(code)]
    return (described, handlers, code.co_names, code.co_varnames, code.co_freevars,
            code.co_cellvars, code.co_flags & ~HAS_DOCSTRING, code.co_argcount,
            code.co_posonlyargcount, code.co_kwonlyargcount)


def _instructions(code):
    """Yield [start, end, operation, argument] of each that does something; start and end in units
    of two bytes, with what the interpreter notes behind it.
    """
    found, start, argument = [], 0, 0
    for offset, (operation, low) in enumerate(zip(code.co_code[::2], code.co_code[1::2])):
        argument = argument << 8 | low
        if operation == opcode.EXTENDED_ARG:
            continue
        if operation == _CACHE:
            found[-1][1] = offset + 1
        else:
            found.append([start, offset + 1, operation, argument])
        start, argument = offset + 1, 0
    return (one for one in found if one[2] != _NOP)  # NOP: where a docstring was


def exception_handlers(code):
    """Yield (start, size, target, rest) of each entry of the exception table, since 3.11."""
    entry, value = [], 0
    for byte in getattr(code, 'co_exceptiontable', b''):
        value = value << 6 | byte & 0x3f
        if not byte & 0x40:  # no more of this number
            entry.append(value)
            value = 0
        if len(entry) == 4:
            yield entry
            entry = []


def _constant(value):
    kind = type(value)
    if kind is types.CodeType:
        return 'code', _described(value)
    if kind is tuple:
        return 'tuple', [_constant(item) for item in value]
    if kind is slice:  # since 3.14
        return 'slice', [_constant(item) for item in (value.start, value.stop, value.step)]
    if kind is frozenset:
        return 'frozenset', sorted(repr(_constant(item)) for item in value)
    if value is None or value is ... or kind in (bool, int, float, complex, str, bytes):
        return kind.__name__, repr(value)
    return 'unknown', id(value)  # no compiler makes that


#: what global_names() returned, by code: gevent is compared again whenever a class of it changes
_names_of = {}


def global_names(code):
    """The global names that it reads, and the functions that it makes: a sorted tuple."""
    names = _names_of.get(code)
    if names is None:
        names = tuple(sorted(_global_names(code)))
        if len(_names_of) >= 100:
            _names_of.clear()
        _names_of[code] = names
    return names


def _global_names(code):
    names = set()
    for _, _, operation, argument in _instructions(code):
        if operation == _NAME:
            names.add(code.co_names[argument])
        elif operation == _GLOBAL:  # since 3.11 its last bit is another thing
            names.add(code.co_names[argument >> 1 if _CACHE is not None else argument])
    for value in code.co_consts:
        if type(value) is types.CodeType:
            names.update(_global_names(value))
    return names
