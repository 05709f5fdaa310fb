/* Attributes of objects, and calls of their methods, by ordinary attribute access: properties,
 * __getattr__ and values set on an instance or a class count as they do in Python code.
 *
 * Does not know whose object it is.
 */
#include "python/python.h"

PyObject *
cbase_object_attr(PyObject *obj, const char *name)
{
    PyObject *interned = PyUnicode_InternFromString(name);
    PyObject *value = interned == NULL ? NULL : PyObject_GetAttr(obj, interned);

    Py_XDECREF(interned);
    return value;
}

PyObject *
cbase_object_imported(const char *module, const char *name)
{
    PyObject *imported = PyImport_ImportModule(module);
    PyObject *value = imported == NULL ? NULL : cbase_object_attr(imported, name);

    Py_XDECREF(imported);
    return value;
}

int
cbase_object_has(PyObject *obj, PyObject *name)
{
    PyObject *value;
    int found = compat_get_optional(obj, name, &value);

    Py_XDECREF(value);
    return found;
}

int
cbase_object_dict_has(PyObject *obj, PyObject *name)
{
    PyObject *dict = cbase_object_dict(obj);

    if (dict == NULL) {
        return -1;
    }
    int found = PyDict_Contains(dict, name);
    Py_DECREF(dict);
    return found;
}

int
cbase_object_dict_is_plain(PyObject *dict)
{
    PyObject *key;
    Py_ssize_t i = 0;

    while (PyDict_Next(dict, &i, &key, NULL)) {
        if (!PyUnicode_CheckExact(key)) {
            return 0;
        }
    }
    return 1;
}

PyObject *
cbase_object_call(PyObject *obj, PyObject *name)
{
    return PyObject_VectorcallMethod(name, &obj, 1 | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL);
}

PyObject *
cbase_object_call_one(PyObject *obj, PyObject *name, PyObject *arg)
{
    PyObject *args[2] = {obj, arg};
    return PyObject_VectorcallMethod(name, args, 2 | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL);
}

int
cbase_object_run(PyObject *obj, PyObject *name)
{
    PyObject *result = cbase_object_call(obj, name);

    if (result == NULL) {
        return -1;
    }
    Py_DECREF(result);
    return 0;
}

int
cbase_object_ask(PyObject *obj, PyObject *name)
{
    PyObject *result = cbase_object_call(obj, name);

    if (result == NULL) {
        return -1;
    }
    int truth = PyObject_IsTrue(result);
    Py_DECREF(result);
    return truth;
}

int
cbase_object_run_on(PyObject *obj, PyObject *attr, PyObject *name)
{
    PyObject *value = PyObject_GetAttr(obj, attr);

    if (value == NULL) {
        return -1;
    }
    int result = cbase_object_run(value, name);
    Py_DECREF(value);
    return result;
}

PyObject **
cbase_object_exported(PyObject *module, const char *name)
{
    PyObject *capi = cbase_object_attr(module, "__pyx_capi__");
    PyObject *capsule = capi == NULL ? NULL : PyMapping_GetItemString(capi, name);
    PyObject **variable = capsule == NULL ? NULL : PyCapsule_GetPointer(capsule, "PyObject *");

    Py_XDECREF(capsule);
    Py_XDECREF(capi);
    return variable;
}
