/* Raising exceptions, and `except` and `finally` blocks in C, visible to Python code called from
 * inside them.
 *
 * Does not know what is raised.
 */
#include "python/python.h"

void
cbase_except_raise(PyObject *type, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    PyObject *message = PyUnicode_FromFormatV(format, args);
    va_end(args);
    if (message != NULL) {
        PyErr_SetObject(type, message);
        Py_DECREF(message);
    }
}

void
cbase_except_enter(cbase_except *block)
{
    block->raised = compat_get_raised();
    compat_get_handled(block->outer);
    PyErr_SetExcInfo(Py_NewRef((PyObject *)Py_TYPE(block->raised)), Py_NewRef(block->raised),
                     PyException_GetTraceback(block->raised));
}

int
cbase_except_leave(cbase_except *block)
{
    PyErr_SetExcInfo(block->outer[0], block->outer[1], block->outer[2]);
    /* Freeing the exception may run Python code, which must not see a new one as set. */
    PyObject *raised = compat_get_raised();
    Py_CLEAR(block->raised);
    if (raised == NULL) {
        return 0;
    }
    compat_set_raised(raised);
    return -1;
}

void
cbase_except_reraise(cbase_except *block)
{
    PyObject *exc = block->raised;

    if (PyErr_Occurred()) {
        (void)cbase_except_leave(block);
        return;
    }
    PyErr_SetExcInfo(block->outer[0], block->outer[1], block->outer[2]);
    compat_set_raised(exc);
}

int
cbase_except_report(PyObject *handler, PyObject *context, PyObject *exc)
{
    PyObject *tb = PyException_GetTraceback(exc);
    PyObject *args[4] = {context, (PyObject *)Py_TYPE(exc), exc, tb == NULL ? Py_None : tb};
    PyObject *result = PyObject_Vectorcall(handler, args, 4, NULL);

    Py_XDECREF(tb);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}
