/* Calls of functions.
 *
 * Does not know what it calls.
 */
#include "python/python.h"

static PyObject *
call_tuple(PyObject *function, PyObject *args)
{
    PyObject **items = ((PyTupleObject *)args)->ob_item;
    Py_ssize_t count = PyTuple_GET_SIZE(args);

    return cbase_call_vector(function, items, (size_t)count);
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
