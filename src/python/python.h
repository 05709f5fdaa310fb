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

/* ---- dict_stamps.c: has a dict changed? ---- */

/* Dicts of which only some names count, see cbase_dict_stamp_init(); and those of which all do. */
enum { CBASE_DICT_SOME_NAMES, CBASE_DICT_ALL_NAMES, CBASE_DICT_KINDS };

/* `names`: those that count, interned and kept for good, as the array is. */
void cbase_dict_stamp_init(PyObject *const *names, size_t count);
/* Whether changes of such dicts can be told. */
int cbase_dict_stamp_available(int kind);
/* Whether from now on the stamp tells changes of this dict. `obj`: whose instance dict it is, or
 * NULL. May run Python code. */
int cbase_dict_stamp_watch(int kind, PyObject *obj, PyObject *dict);
/* Whether somebody else watches it: then what is noted of it may be wrong, see dict_stamps.c. */
int cbase_dict_stamp_is_shared(PyObject *dict);

#ifdef COMPAT_DICTS_ARE_WATCHED
extern uint64_t cbase_dict_stamp_changes[CBASE_DICT_KINDS]; // of any of the dicts

static inline uint64_t
cbase_dict_stamp_of(int kind, PyObject *dict)
{
    (void)dict;
    return cbase_dict_stamp_changes[kind];
}

/* A stamp of all dicts of a kind, where there is one: the same as long as none has changed. */
static inline int
cbase_dict_stamp_of_all(int kind, uint64_t *stamp)
{
    *stamp = cbase_dict_stamp_changes[kind];
    return 1;
}
#else
static inline int
cbase_dict_stamp_of_all(int kind, uint64_t *stamp)
{
    (void)kind, (void)stamp;
    return 0;
}

static inline uint64_t
cbase_dict_stamp_of(int kind, PyObject *dict)
{
    (void)kind;
    return compat_dict_version(dict);
}
#endif

/* ---- memo.c: look-ups that need not be made again ---- */

/* What was found under one name. Nothing here is owned: the class or the dict owns it as long as
 * it has not changed. memo.c alone looks into them. All zero: nothing yet. */
typedef struct {
    cbase_class_stamp class; // of this class
    PyObject *attr;          // this is there, or NULL: nothing
    int is_computed;         // it is an attribute that C computes, of the class or a base of it
} cbase_memo_class;

typedef struct {
    PyObject *dict;  // compared only
    uint64_t stamp;  // with which
    PyObject *value; // this is there, or NULL: nothing
} cbase_memo_dict;

extern int cbase_memo_off; // every look-up is made the ordinary way

/* getattr(obj, name), short for what the class computes in C. */
PyObject *cbase_memo_attr(cbase_memo_class *memo, PyObject *obj, PyObject *name);
/* getattr(args[0], name)(*args[1:]), short for methods of what has no instance dict. */
PyObject *cbase_memo_call(cbase_memo_class *memo, PyObject *name, PyObject *const *args,
                          size_t nargs);
/* Whether instances of a class have in their instance dict alone what they have under a name. */
int cbase_memo_class_lacks(cbase_memo_class *memo, PyTypeObject *type, PyObject *name);
/* What is in a dict, or in the instance dict of an object, owned; or NULL without an exception.
 * The memo is for that dict. */
PyObject *cbase_memo_dict_get(cbase_memo_dict *memo, PyObject *dict, PyObject *name);
PyObject *cbase_memo_instance_get(cbase_memo_dict *memo, PyObject *obj, PyObject *name);
/* The same of a dict that may be gone, which is compared only: whether it is known to be there and
 * unchanged. Where nobody tells of the end of a dict, that is never known. */
int cbase_memo_dict_still(const cbase_memo_dict *memo, PyObject *dict, PyObject **value);
/* Whether the instance dict of an object has nothing under a name; no, if that is not known. */
int cbase_memo_instance_lacks(cbase_memo_dict *memo, PyObject *obj, PyObject *name);

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
