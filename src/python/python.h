/* The face of this storey: what is about CPython alone, and nothing of gevent nor of this module.
 *
 * Conventions, here and in the storeys above. Functions return -1 or NULL with an exception set,
 * unless their comment says otherwise. Arguments are borrowed, results owned, unless marked. Every
 * call into Python may run anything, so a caller owns what it goes on using and reads the rest
 * anew afterwards.
 */
#ifndef CBASE_PYTHON_H
#define CBASE_PYTHON_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "python/class_stamps.h"
#include "python/compat.h"
#include "python/dict_stamps.h"
#include "python/memo.h"

/* ---- objects.c: attributes, and calls of methods ---- */

/* getattr(obj, name). Not PyObject_GetAttrString(): CPython's method cache keeps the string of
 * each such call, up to thousands. */
PyObject *cbase_object_attr(PyObject *obj, const char *name);
/* The same of a module, which is imported. */
PyObject *cbase_object_imported(const char *module, const char *name);
/* hasattr(): 1, 0 or -1. */
int cbase_object_has(PyObject *obj, PyObject *name);
/* Whether the instance dict itself holds `name`: 1, 0 or -1. Runs no Python code. */
int cbase_object_dict_has(PyObject *obj, PyObject *name);
/* No other keys than exact str: looking one up in the dict then runs no Python code. */
int cbase_object_dict_is_plain(PyObject *dict);
/* getattr(obj, name)(): the result, or only success. */
PyObject *cbase_object_call(PyObject *obj, PyObject *name);
PyObject *cbase_object_call_one(PyObject *obj, PyObject *name, PyObject *arg);
int cbase_object_run(PyObject *obj, PyObject *name);
/* bool(getattr(obj, name)()): 1, 0 or -1. */
int cbase_object_ask(PyObject *obj, PyObject *name);
/* getattr(getattr(obj, attr), name)(): as `self._watcher.stop()`. */
int cbase_object_run_on(PyObject *obj, PyObject *attr, PyObject *name);
/* The variable that a module compiled by Cython shares with others; or NULL with an exception. */
PyObject **cbase_object_exported(PyObject *module, const char *name);

/* obj.__dict__, for an object that has the ordinary one. Runs no Python code. */
static inline PyObject *
cbase_object_dict(PyObject *obj)
{
    PyObject *dict = compat_instance_dict(obj);

    return dict != NULL ? Py_NewRef(dict) : PyObject_GenericGetDict(obj, NULL);
}

/* A tuple of these, faster than PyTuple_Pack(). */
static inline PyObject *
cbase_object_tuple(PyObject *const *items, size_t count)
{
    PyObject *tuple = PyTuple_New((Py_ssize_t)count);

    for (size_t i = 0; tuple != NULL && i < count; i++) {
        PyTuple_SET_ITEM(tuple, i, Py_NewRef(items[i]));
    }
    return tuple;
}

/* (first, second) */
static inline PyObject *
cbase_object_pair(PyObject *first, PyObject *second)
{
    return cbase_object_tuple((PyObject *const[]){first, second}, 2);
}

/* ---- calls.c: calls of functions, and the Python frame below them ---- */

/* function(*args) */
PyObject *cbase_call_star(PyObject *function, PyObject *args);

/* function(), without the interpreter's detours if it is a built-in one that has no parameters. */
static inline PyObject *
cbase_call_no_args(PyObject *function)
{
    if (PyCFunction_CheckExact(function) && PyCFunction_GET_FLAGS(function) == METH_NOARGS) {
        return PyCFunction_GET_FUNCTION(function)(PyCFunction_GET_SELF(function), NULL);
    }
    return PyObject_CallNoArgs(function);
}

/* PyObject_Vectorcall() of positional arguments, without its detours. */
static inline PyObject *
cbase_call_vector(PyObject *callable, PyObject *const *args, size_t nargs)
{
    const PyTypeObject *type = Py_TYPE(callable);
    vectorcallfunc call = NULL;

    if (PyType_HasFeature(Py_TYPE(callable), Py_TPFLAGS_HAVE_VECTORCALL)) {
        call = *(vectorcallfunc *)((char *)callable + type->tp_vectorcall_offset);
    }
    return call == NULL ? PyObject_Vectorcall(callable, args, nargs, NULL)
                        : call(callable, args, nargs, NULL);
}

/* ---- except.c: raising, `except` and `finally` ---- */

/* PyErr_Format, for messages that contain a repr() or str(): what that raises is raised instead,
 * which PyErr_Format does not do on 3.10. */
void cbase_except_raise(PyObject *type, const char *format, ...);

/* The exception that a block handles, and what was being handled outside of it. */
typedef struct {
    PyObject *raised;
    PyObject *outer[3];
} cbase_except;

/* Enters the block with the exception that is set; from here on sys.exc_info() shows it and
 * new exceptions get it as their __context__. */
void cbase_except_enter(cbase_except *block);
/* Leaves it. `leave` drops the exception and keeps one raised in the block, if any: 0 or -1;
 * `reraise` raises it again unless the block raised another one. */
int cbase_except_leave(cbase_except *block);
void cbase_except_reraise(cbase_except *block);
/* handler(context, type(exc), exc, traceback): 0 or -1 */
int cbase_except_report(PyObject *handler, PyObject *context, PyObject *exc);

#endif
