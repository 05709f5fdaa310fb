/* What differs between CPython 3.10 and 3.15, and nothing else. */
#ifndef CBASE_COMPAT_H
#define CBASE_COMPAT_H

#include <Python.h>
#include <frameobject.h>

#if PY_VERSION_HEX < 0x030A0000
#error "gevent_cbase needs CPython 3.10 or newer"
#endif
#if defined(PYPY_VERSION)
#error "gevent_cbase is an extension of CPython; on PyPy use gevent itself"
#endif
#if defined(Py_GIL_DISABLED)
#error "gevent_cbase relies on the GIL, as greenlet and gevent do"
#endif

/* What runs seldom, out of the way of what runs always; 3.10 has no public name for it. */
#ifndef Py_NO_INLINE
#define Py_NO_INLINE
#endif

/* The exception that is set, normalized and with its traceback, or NULL; clears it. */
static inline PyObject *
compat_get_raised(void)
{
#if PY_VERSION_HEX >= 0x030C0000
    return PyErr_GetRaisedException();
#else
    PyObject *type, *value, *tb;
    PyErr_Fetch(&type, &value, &tb);
    if (type == NULL) {
        return NULL;
    }
    PyErr_NormalizeException(&type, &value, &tb);
    if (tb != NULL) {
        PyException_SetTraceback(value, tb);
    }
    Py_XDECREF(type);
    Py_XDECREF(tb);
    return value;
#endif
}

/* Sets `exc` (stolen) as the exception that is raised. */
static inline void
compat_set_raised(PyObject *exc)
{
#if PY_VERSION_HEX >= 0x030C0000
    PyErr_SetRaisedException(exc);
#else
    PyErr_Restore(Py_NewRef((PyObject *)Py_TYPE(exc)), exc, PyException_GetTraceback(exc));
#endif
}

/* The same for an exception or NULL. */
static inline void
compat_restore_raised(PyObject *exc)
{
    if (exc != NULL) {
        compat_set_raised(exc);
    }
}

/* getattr() that takes AttributeError for "absent": 1 and an owned *result, 0 and NULL, or -1. */
static inline int
compat_get_optional(PyObject *obj, PyObject *name, PyObject **result)
{
#if PY_VERSION_HEX >= 0x030D0000
    return PyObject_GetOptionalAttr(obj, name, result);
#else
    *result = PyObject_GetAttr(obj, name);
    if (*result != NULL) {
        return 1;
    }
    if (!PyErr_ExceptionMatches(PyExc_AttributeError)) {
        return -1;
    }
    PyErr_Clear();
    return 0;
#endif
}

/* The namespace of one class of an MRO, owned. Static built-in types keep theirs elsewhere
 * since 3.12. */
static inline PyObject *
compat_type_dict(PyTypeObject *type)
{
#if PY_VERSION_HEX >= 0x030C0000
    return PyType_GetDict(type);
#else
    return Py_NewRef(type->tp_dict);
#endif
}

/* What is being handled at this level: in the running generator, or outside of all. Owned; NULLs
 * if nothing is, whatever a caller of the generator handles. PyErr_SetExcInfo() sets just this,
 * but PyErr_GetExcInfo() looks further up.
 *
 * CAUTION: PyThreadState.exc_info is in the public headers, but not documented. Watched by
 * test_generator_forgets_what_its_caller_handled. */
static inline void
compat_get_handled(PyObject **handled)
{
    const _PyErr_StackItem *level = PyThreadState_Get()->exc_info;

#if PY_VERSION_HEX >= 0x030B0000
    handled[0] = handled[2] = NULL; // PyErr_SetExcInfo() needs the exception alone
#else
    handled[0] = Py_XNewRef(level->exc_type);
    handled[2] = Py_XNewRef(level->exc_traceback);
#endif
    handled[1] = Py_XNewRef(level->exc_value);
}

/* Whether there is no Python frame where gevent needs one below what it calls, see handover.c. */
static inline int
compat_lacks_frame(void)
{
#if PY_VERSION_HEX < 0x030B0000
    return PyEval_GetFrame() == NULL;
#else
    return 0;
#endif
}

#if PY_VERSION_HEX >= 0x030C0000
/* Defined where changes of dicts are told by watchers, and not by a version of each dict. */
#define COMPAT_DICTS_ARE_WATCHED

/* Those who watch a dict, a bit for each watcher; without the interpreter's own, which run no
 * Python code.
 *
 * CAUTION: the lowest bits of a field that is private, as are the numbers of the interpreter's
 * watchers. Watched by test_dict_watcher_that_accepts. */
static inline unsigned int
compat_dict_watchers(PyObject *dict)
{
#if PY_VERSION_HEX >= 0x030F0000
    return (unsigned int)((PyDictObject *)dict)->_ma_watcher_tag & 0xF8;
#elif PY_VERSION_HEX >= 0x030E0000
    return (unsigned int)((PyDictObject *)dict)->_ma_watcher_tag & 0xFC;
#else
    _Py_COMP_DIAG_PUSH _Py_COMP_DIAG_IGNORE_DEPR_DECLS uint64_t tag =
        ((PyDictObject *)dict)->ma_version_tag;
    _Py_COMP_DIAG_POP return (unsigned int)tag & (PY_VERSION_HEX >= 0x030D0000 ? 0xFC : 0xFF);
#endif
}
#else
/* PyDictObject.ma_version_tag (PEP 509): another one whenever the dict has changed. */
static inline uint64_t
compat_dict_version(PyObject *dict)
{
    return ((PyDictObject *)dict)->ma_version_tag;
}
#endif

/* Borrowed: the instance dict of an object where it can be seen; NULL: PyObject_GenericGetDict()
 * knows whether there is one.
 *
 * CAUTION: where CPython keeps a dict that it manages itself is private; 3.12 may have values
 * there, with the lowest bit set. Watched by test_instance_dict. */
static inline PyObject *
compat_instance_dict(PyObject *obj)
{
    PyTypeObject *type = Py_TYPE(obj);

#if PY_VERSION_HEX >= 0x030C0000 && PY_VERSION_HEX < 0x03100000
    if (PyType_HasFeature(type, Py_TPFLAGS_MANAGED_DICT)) {
        PyObject *dict = ((PyObject **)obj)[-3];
        return ((uintptr_t)dict & 1) != 0 ? NULL : dict;
    }
#endif
    return type->tp_dictoffset > 0 ? *(PyObject **)((char *)obj + type->tp_dictoffset) : NULL;
}

/* PyTypeObject.tp_version_tag, which is another one whenever the class or one of its bases has
 * changed; 0 if it has none until the next look-up. */
static inline unsigned int
compat_type_version(PyTypeObject *type)
{
#if PY_VERSION_HEX < 0x030C0000
    if (!PyType_HasFeature(type, Py_TPFLAGS_VALID_VERSION_TAG)) {
        return 0;
    }
#endif
    return type->tp_version_tag;
}

/* frame.f_lasti: where in its code a frame is. */
static inline int
compat_frame_lasti(PyFrameObject *frame)
{
#if PY_VERSION_HEX >= 0x030B0000
    return PyFrame_GetLasti(frame);
#else
    return frame->f_lasti;
#endif
}

/* Whether the object of a weak reference is gone. */
static inline int
compat_is_gone(PyObject *ref)
{
#if PY_VERSION_HEX >= 0x030D0000
    PyObject *object;
    int there = PyWeakref_GetRef(ref, &object) > 0;
    Py_XDECREF(object);
    return !there;
#else
    return PyWeakref_GetObject(ref) == Py_None;
#endif
}

/* Defined where whoever calls a Python function asks for its PyFunctionObject.vectorcall: not the
 * interpreter of 3.11, only C code. */
#if PY_VERSION_HEX < 0x030B0000 || PY_VERSION_HEX >= 0x030C0000
#define COMPAT_VECTORCALL_IS_ASKED
#endif

static inline void
compat_set_vectorcall(PyFunctionObject *function, vectorcallfunc vectorcall)
{
#if PY_VERSION_HEX >= 0x030C0000
    PyFunction_SetVectorcall(function, vectorcall);
#else
    function->vectorcall = vectorcall;
#endif
}

#endif
