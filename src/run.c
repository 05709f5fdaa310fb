/* For `python -m gevent_cbase`: runs a program as the interpreter does, once there is a new
 * `__main__` for it. An exception is shown here, and SystemExit ends the process here: so it has
 * no frame of ours in its traceback.
 *
 * As in the interpreter, `__main__` belongs to sys.modules alone: no Python frame of ours has it,
 * nor its namespace. Whoever keeps a frame or an exception of the program keeps the frames below,
 * and `__main__` would be alive when its names are cleared, late in the finalization.
 *
 * Knows neither servers nor the module's state.
 */
#include "ground.h"

/* python SCRIPT */
static PyObject *
run_file(PyObject *module, PyObject *args)
{
    PyObject *path;

    (void)module;
    if (!PyArg_ParseTuple(args, "O&:_run_file", PyUnicode_FSConverter, &path)) {
        return NULL;
    }
    FILE *file = fopen(PyBytes_AS_STRING(path), "rb");
    if (file == NULL) {
        PyErr_SetFromErrnoWithFilename(PyExc_OSError, PyBytes_AS_STRING(path));
        Py_DECREF(path);
        return NULL;
    }
    int status = PyRun_AnyFileExFlags(file, PyBytes_AS_STRING(path), 1, NULL);
    Py_DECREF(path);
    return PyBool_FromLong(status == 0);
}

/* python - */
static PyObject *
run_stdin(PyObject *module, PyObject *unused)
{
    (void)module, (void)unused;
    return PyBool_FromLong(PyRun_AnyFileExFlags(stdin, "<stdin>", 0, NULL) == 0);
}

/* python -c SOURCE */
static PyObject *
run_source(PyObject *module, PyObject *args)
{
    PyObject *source;
    PyCompilerFlags flags = {.cf_flags = PyCF_IGNORE_COOKIE,
                             .cf_feature_version = PY_MINOR_VERSION};

    (void)module;
    if (!PyArg_ParseTuple(args, "U:_run_source", &source)) {
        return NULL;
    }
    const char *text = PyUnicode_AsUTF8(source);
    if (text == NULL) {
        PySys_WriteStderr("Unable to decode the command from the command line:\n");
        PyErr_Print();
        Py_RETURN_FALSE;
    }
    return PyBool_FromLong(PyRun_SimpleStringFlags(text, &flags) == 0);
}

/* python -m, with the function of runpy that does it */
static PyObject *
run_call(PyObject *module, PyObject *const *args, Py_ssize_t nargs)
{
    (void)module;
    if (nargs == 0) {
        PyErr_SetString(PyExc_TypeError, "a function is required");
        return NULL;
    }
    PyObject *result = PyObject_Vectorcall(args[0], args + 1, nargs - 1, NULL);
    if (result == NULL) {
        PyErr_Print();
        Py_RETURN_FALSE;
    }
    Py_DECREF(result);
    Py_RETURN_TRUE;
}

PyMethodDef cbase_run_functions[] = {
    {"_run_file", run_file, METH_VARARGS,
     PyDoc_STR("_run_file($module, path, /)\n--\n\n"
               "Run a script, compiled or not, as `__main__`; return whether it ended well.\n\n"
               "Raises OSError if it cannot be opened.")},
    {"_run_stdin", run_stdin, METH_NOARGS,
     PyDoc_STR("_run_stdin($module, /)\n--\n\n"
               "Run what standard input has as `__main__`; return whether it ended well.")},
    {"_run_source", run_source, METH_VARARGS,
     PyDoc_STR("_run_source($module, source, /)\n--\n\n"
               "Run code as `__main__`; return whether it ended well.")},
    {"_run_call", (PyCFunction)(void (*)(void))run_call, METH_FASTCALL,
     PyDoc_STR("_run_call($module, function, /, *args)\n--\n\n"
               "Call a function that runs a program; return whether it ended well.")},
    {NULL, NULL, 0, NULL},
};
