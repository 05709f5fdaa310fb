/* The instance `__dict__` of a server, in which all of its state lies, as in gevent's class.
 *
 * Removes from it, and puts back, as gevent's code does, through the attribute `__dict__`. All
 * else goes through ordinary attribute access; only hooks.c looks into the dict to save that. Does
 * not know what the values are for.
 */
#include "server/server.h"

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
    PyObject *dict = cbase_object_dict(self);
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
    PyObject *dict = cbase_object_dict(self);

    if (dict == NULL) {
        return -1;
    }
    int result = PyDict_Merge(dict, picked, 0);
    Py_DECREF(dict);
    return result;
}
