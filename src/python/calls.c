/* Calls of functions; and, on CPython 3.10, a Python frame below those that begin in C.
 *
 * Does not know what it calls.
 */
#include "python/python.h"

#ifdef COMPAT_NEEDS_FRAME

/* gevent_cbase._frame.call(function, *args) */
static PyObject *
call_in_frame(PyObject *function, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    size_t count = (size_t)nargs + (kwnames == NULL ? 0 : (size_t)PyTuple_GET_SIZE(kwnames));
    PyObject *module = PyImport_ImportModule("gevent_cbase._frame");
    PyObject *call = module == NULL ? NULL : cbase_object_attr(module, "call");
    PyObject *result = NULL;

    Py_XDECREF(module);
    if (call == NULL) {
        return NULL;
    }
    PyObject **all = PyMem_New(PyObject *, count + 1);
    if (all == NULL) {
        PyErr_NoMemory();
    }
    else {
        all[0] = function;
        memcpy(all + 1, args, count * sizeof(*args));
        result = PyObject_Vectorcall(call, all, (size_t)nargs + 1, kwnames);
        PyMem_Free(all);
    }
    Py_DECREF(call);
    return result;
}

PyObject *
cbase_call_from_frame(PyMethodDef *def, PyObject *self, PyTypeObject *cls, PyObject *const *args,
                      Py_ssize_t nargs, PyObject *kwnames)
{
    PyObject *method = PyCMethod_New(def, self, NULL, cls);
    PyObject *result = method == NULL ? NULL : call_in_frame(method, args, nargs, kwnames);

    Py_XDECREF(method);
    return result;
}

/* Whether a function has to be called from a frame: it is none in Python, which has its own. */
static int
wants_frame(PyObject *function)
{
    PyObject *inner = // borrowed
        PyMethod_Check(function) ? PyMethod_GET_FUNCTION(function) : function;

    return !PyFunction_Check(inner) && cbase_call_has_no_frame();
}

#endif

static PyObject *
call_tuple(PyObject *function, PyObject *args)
{
    PyObject **items = ((PyTupleObject *)args)->ob_item;
    Py_ssize_t count = PyTuple_GET_SIZE(args);

#ifdef COMPAT_NEEDS_FRAME
    if (wants_frame(function)) {
        return call_in_frame(function, items, count, NULL);
    }
#endif
    return PyObject_Vectorcall(function, items, (size_t)count, NULL);
}

PyObject *
cbase_call_star(PyObject *function, PyObject *args)
{
    if (PyTuple_CheckExact(args)) {
        return call_tuple(function, args);
    }
    if (Py_TYPE(args)->tp_iter == NULL && !PySequence_Check(args)) {
        PyErr_Format(PyExc_TypeError, "argument after * must be an iterable, not %.200s",
                     Py_TYPE(args)->tp_name);
        return NULL;
    }
    PyObject *tuple = PySequence_Tuple(args);
    if (tuple == NULL) {
        return NULL;
    }
    PyObject *result = call_tuple(function, tuple);
    Py_DECREF(tuple);
    return result;
}
