/* What a native step takes for granted: that certain Python functions of gevent, and what they
 * find under certain global names, are still what they were when they were compared. */
#include "cbase.h"

/* Replaces what an earlier call has set. */
int
cbase_premises_set(cbase_premises *premises, PyObject *functions, PyObject *globals)
{
    cbase_premises p = {.functions = PyTuple_GET_SIZE(functions),
                        .globals = PyTuple_GET_SIZE(globals)};

    if (p.functions > CBASE_FUNCTIONS || p.globals > CBASE_GLOBALS) {
        PyErr_SetString(PyExc_ValueError, "too many premises");
        return -1;
    }
    for (Py_ssize_t i = 0; i < p.functions; i++) {
        PyFunctionObject *function = (PyFunctionObject *)PyTuple_GET_ITEM(functions, i);
        if (!PyFunction_Check(function)) {
            PyErr_SetString(PyExc_TypeError, "a premise is a Python function");
            return -1;
        }
        p.function[i].object = function;
        p.function[i].code = function->func_code;
        p.function[i].defaults = function->func_defaults;
        p.function[i].kwdefaults = function->func_kwdefaults;
    }
    for (Py_ssize_t i = 0; i < p.globals; i++) {
        if (!PyArg_ParseTuple(PyTuple_GET_ITEM(globals, i), "O!OO", &PyDict_Type,
                              &p.global[i].namespace, &p.global[i].name, &p.global[i].value))
        {
            return -1;
        }
    }
    /* Owned from here on. What was owned before stays alive for good: others may be using it. */
    for (Py_ssize_t i = 0; i < p.functions; i++) {
        Py_INCREF(p.function[i].object);
        Py_INCREF(p.function[i].code);
        Py_XINCREF(p.function[i].defaults);
        Py_XINCREF(p.function[i].kwdefaults);
    }
    for (Py_ssize_t i = 0; i < p.globals; i++) {
        Py_INCREF(p.global[i].namespace);
        Py_INCREF(p.global[i].name);
        Py_INCREF(p.global[i].value);
    }
    *premises = p;
    return 0;
}

int
cbase_premises_hold(const cbase_premises *p)
{
    for (Py_ssize_t i = 0; i < p->functions; i++) {
        const PyFunctionObject *function = p->function[i].object;
        if (function->func_code != p->function[i].code
            || function->func_defaults != p->function[i].defaults
            || function->func_kwdefaults != p->function[i].kwdefaults)
        {
            return 0;
        }
    }
    for (Py_ssize_t i = 0; i < p->globals; i++) {
        PyObject *value = PyDict_GetItemWithError(p->global[i].namespace, p->global[i].name);
        if (value != p->global[i].value) {
            PyErr_Clear();
            return 0;
        }
    }
    return 1;
}
