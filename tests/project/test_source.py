"""What CONTRIBUTING says of borrowed references, as far as the text of the C code shows it."""
import re
import subprocess
import sys

import pytest

from helpers import c_sources, child_environ

#: what gives a reference that belongs to somebody else
BORROWING = (r'PyDict_GetItem\w*|PyTuple_GET_ITEM|PyTuple_GetItem|PyList_GET_ITEM|PyList_GetItem|'
             r'PyMethod_GET_\w+|PyCFunction_GET_SELF|PyWeakref_GetObject|PyEval_GetFrame|'
             r'PyImport_GetModuleDict|PyImport_AddModule|PySys_GetObject')

#: a variable that gets one as it is
KEPT = re.compile(r'[\w\]]\s*=\s*(?:[^=;]*\?\s*)?(?:\([\w ]+\*\))?(?:%s)\(' % BORROWING)

#: what is noted for later, and the files that know it: all others get references of their own
NOTED = {r'\bhook_slot\b|->in_class\b|->slots\b': {'server/hooks.c'},
         r'\bmemo->': {'python/memo.c', 'python/memo.h'}}


def unmarked(text):
    """The lines that keep a borrowed reference and do not say so, here or in the next one."""
    lines = text.split('\n')
    return [line.strip() for line, after in zip(lines, lines[1:] + [''])
            if KEPT.search(line) and '// borrowed' not in line
            and not (';' not in line and '// borrowed' in after)]


@pytest.mark.parametrize('line, kept', [
    ('    PyObject *value = PyDict_GetItemWithError(dict, name);', True),
    ('    h->value = (PyObject *)PyTuple_GET_ITEM(tuple, 0);', True),
    ('    inner = is ? PyMethod_GET_FUNCTION(method) : method;', True),
    ('    PyObject *value = PyDict_GetItemWithError(dict, name); // borrowed', False),
    ('    PyObject *pool = Py_NewRef(PyMethod_GET_SELF(full));', False),
    ('    return call(PyTuple_GET_ITEM(pair, 0));', False),
    ('    if (PyMethod_GET_SELF(method) == self) {', False),
])
def test_what_is_looked_for(line, kept):
    assert bool(unmarked(line)) is kept


def test_borrowed_references_are_marked():
    found = {name: unmarked(text) for name, text in c_sources()}
    assert len(found) > 20
    assert {name: lines for name, lines in found.items() if lines} == {}


def test_modules_of_ours_that_c_imports():
    """Python code names each, or a frozen program would not have it."""
    named = {name for _, text in c_sources()
             for name in re.findall(r'"(gevent_cbase\.[a-z_.]+)"', text)}
    assert 'gevent_cbase._native.pools' in named
    code = 'import sys, gevent_cbase; print(*sys.modules)'
    loaded = subprocess.check_output([sys.executable, '-c', code], text=True, env=child_environ())
    assert named <= set(loaded.split())


def test_what_is_noted_is_known_to_one_place():
    """Slots and memos own nothing, so that nobody else may hold a pointer out of them."""
    for pattern, files in NOTED.items():
        assert {name for name, text in c_sources() if re.search(pattern, text)} == files
