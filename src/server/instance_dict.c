/* Attributes of a server: all of its state lies in the instance `__dict__`, as in gevent's class.
 *
 * Everything here goes through ordinary attribute access, so that properties, __getattr__,
 * __setattr__ and values set on an instance or a class count as they do in Python code.
 */
#include "cbase.h"

PyObject *
cbase_object_attr(PyObject *obj, const char *name)
{
    PyObject *interned = PyUnicode_InternFromString(name);
    PyObject *value = interned == NULL ? NULL : PyObject_GetAttr(obj, interned);

    Py_XDECREF(interned);
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
cbase_object_dict_has(PyObject *self, PyObject *name)
{
    PyObject *dict = PyObject_GenericGetDict(self, NULL);

    if (dict == NULL) {
        return -1;
    }
    int found = PyDict_Contains(dict, name);
    Py_DECREF(dict);
    return found;
}

int
cbase_instance_dict_pop(cbase_state *st, PyObject *self, PyObject *name, PyObject **value)
{
    PyObject *dict = PyObject_GetAttr(self, st->s___dict__);
    PyObject *found = NULL;
    int result = -1;

    if (value != NULL) {
        *value = NULL;
    }
    if (dict == NULL) {
        return -1;
    }
    found = PyObject_CallMethodObjArgs(dict, st->s_pop, name, Py_None, NULL);
    if (found != NULL) {
        if (value != NULL && found != Py_None) {
            *value = Py_NewRef(found);
        }
        result = 0;
    }
    Py_XDECREF(found);
    Py_DECREF(dict);
    return result;
}

int
cbase_instance_dict_get(cbase_state *st, PyObject *self, PyObject *name, PyObject **value)
{
    PyObject *dict = PyObject_GetAttr(self, st->s___dict__);

    *value = NULL;
    if (dict == NULL) {
        return -1;
    }
    *value = cbase_object_call_one(dict, st->s_get, name);
    Py_DECREF(dict);
    if (*value == NULL) {
        return -1;
    }
    if (*value == Py_None) {
        Py_CLEAR(*value);
        return 0;
    }
    return 1;
}

PyObject *
cbase_instance_dict_pick_handler(cbase_state *st, PyObject *self)
{
    PyObject *names[] = {st->s_handle, st->s__handle, st->s__spawn, st->s_full};
    PyObject *dict = PyObject_GenericGetDict(self, NULL);
    PyObject *picked = dict == NULL ? NULL : PyDict_New();

    for (size_t i = 0; picked != NULL && i < Py_ARRAY_LENGTH(names); i++) {
        PyObject *value = PyDict_GetItemWithError(dict, names[i]); // borrowed
        if (value == NULL ? PyErr_Occurred() != NULL : PyDict_SetItem(picked, names[i], value) < 0)
        {
            Py_CLEAR(picked);
        }
    }
    Py_XDECREF(dict);
    return picked;
}

int
cbase_instance_dict_fill(PyObject *self, PyObject *picked)
{
    PyObject *dict = PyObject_GenericGetDict(self, NULL);

    if (dict == NULL) {
        return -1;
    }
    int result = PyDict_Merge(dict, picked, 0);
    Py_DECREF(dict);
    return result;
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
cbase_object_run_on(PyObject *self, PyObject *attr, PyObject *name)
{
    PyObject *obj = PyObject_GetAttr(self, attr);

    if (obj == NULL) {
        return -1;
    }
    int result = cbase_object_run(obj, name);
    Py_DECREF(obj);
    return result;
}
