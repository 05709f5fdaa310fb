/* Arguments of functions and methods that are called by CPython's vectorcall convention.
 *
 * Does not know what they mean.
 */
#include "python/python.h"

static Py_ssize_t
index_of(const cbase_args_params *params, PyObject *name)
{
    for (Py_ssize_t i = 0; params->names[i] != NULL; i++) {
        if (PyUnicode_CompareWithASCIIString(name, params->names[i]) == 0) {
            return i;
        }
    }
    return -1;
}

int
cbase_args_parse(const cbase_args_params *params, PyObject *const *args, Py_ssize_t nargs,
                 PyObject *kwnames, PyObject **out)
{
    Py_ssize_t count = 0;

    while (params->names[count] != NULL) {
        out[count] = count < nargs ? args[count] : NULL;
        count++;
    }
    if (nargs > count) {
        PyErr_Format(PyExc_TypeError, "%s() takes at most %zd argument%s (%zd given)",
                     params->function, count, count == 1 ? "" : "s", nargs);
        return -1;
    }
    for (Py_ssize_t k = 0; kwnames != NULL && k < PyTuple_GET_SIZE(kwnames); k++) {
        PyObject *name = PyTuple_GET_ITEM(kwnames, k); // borrowed
        Py_ssize_t i = index_of(params, name);

        if (i < 0) {
            PyErr_Format(PyExc_TypeError, "%s() got an unexpected keyword argument '%U'",
                         params->function, name);
            return -1;
        }
        if (out[i] != NULL) {
            PyErr_Format(PyExc_TypeError, "%s() got multiple values for argument '%U'",
                         params->function, name);
            return -1;
        }
        out[i] = args[nargs + k];
    }
    for (Py_ssize_t i = 0; i < params->required; i++) {
        if (out[i] == NULL) {
            PyErr_Format(PyExc_TypeError, "%s() missing required argument '%s'", params->function,
                         params->names[i]);
            return -1;
        }
    }
    return 0;
}

int
cbase_args_no_keywords(const char *function, PyObject *kwnames)
{
    if (kwnames != NULL && PyTuple_GET_SIZE(kwnames) > 0) {
        PyErr_Format(PyExc_TypeError, "%s() got an unexpected keyword argument '%U'", function,
                     PyTuple_GET_ITEM(kwnames, 0));
        return -1;
    }
    return 0;
}

int
cbase_args_none(const char *function, Py_ssize_t nargs, PyObject *kwnames)
{
    if (nargs > 0) {
        PyErr_Format(PyExc_TypeError, "%s() takes no arguments (%zd given)", function, nargs);
        return -1;
    }
    return cbase_args_no_keywords(function, kwnames);
}
