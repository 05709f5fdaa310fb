/* For `python -m gevent_cbase`: the two steps of running a program that Python code cannot do
 * the way the interpreter does.
 *
 * Knows neither servers nor the module's state.
 */
#include "ground.h"

/* Run a script: source is read and decoded, and its errors are told, as for `python SCRIPT`. */
static PyObject *
run_file(PyObject *module, PyObject *args)
{
    PyObject *path, *globals, *result;

    (void)module;
    if (!PyArg_ParseTuple(args, "O&O!:_run_file", PyUnicode_FSConverter, &path, &PyDict_Type,
                          &globals))
    {
        return NULL;
    }
    FILE *file = fopen(PyBytes_AS_STRING(path), "rb");
    if (file == NULL) {
        PyErr_SetFromErrnoWithFilename(PyExc_OSError, PyBytes_AS_STRING(path));
        Py_DECREF(path);
        return NULL;
    }
    result =
        PyRun_FileExFlags(file, PyBytes_AS_STRING(path), Py_file_input, globals, globals, 1, NULL);
    Py_DECREF(path);
    return result;
}

/* Show an exception that ends the program: sys.last_*, sys.excepthook, and what happens if that
 * fails. */
static PyObject *
print_exception(PyObject *module, PyObject *exc)
{
    (void)module;
    if (!PyExceptionInstance_Check(exc)) {
        PyErr_SetString(PyExc_TypeError, "an exception is required");
        return NULL;
    }
    compat_set_raised(Py_NewRef(exc));
    PyErr_PrintEx(1);
    return Py_NewRef(Py_None);
}

PyMethodDef cbase_run_functions[] = {
    {"_run_file", run_file, METH_VARARGS,
     PyDoc_STR("_run_file($module, path, globals, /)\n--\n\n"
               "Run a script in the namespace `globals`.\n\n"
               "Raises OSError if it cannot be opened, and what it raises.")},
    {"_print_exception", print_exception, METH_O,
     PyDoc_STR("_print_exception($module, exc, /)\n--\n\n"
               "Show an exception as the interpreter does when it ends the program.")},
    {NULL, NULL, 0, NULL},
};
