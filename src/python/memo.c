/* Look-ups that need not be made again for each connection: what a class or a
 * dict had under a name is still there as long as the class has the same version, and the dict
 * the same stamp. Everything unknown is looked up the ordinary way.
 *
 * What is noted is not owned, and all threads share it: it becomes a reference of the caller's
 * before anything else happens.
 *
 * Does not know what is looked up, nor by whom.
 */
#include "python/python.h"

int cbase_memo_off;

/* ---- in a class ---- */

/* Borrowed: what the MRO of a class has under a name, or NULL. Keys that are no str may be equal
 * to anything, and *known is 0. Runs no Python code. */
static PyObject *
find_in_mro(PyTypeObject *type, PyObject *name, int *known)
{
    PyObject *found = NULL;

    *known = type->tp_mro != NULL;
    for (Py_ssize_t i = 0; *known && found == NULL && i < PyTuple_GET_SIZE(type->tp_mro); i++) {
        PyObject *namespace = compat_type_dict((PyTypeObject *)PyTuple_GET_ITEM(type->tp_mro, i));
        *known = cbase_object_dict_is_plain(namespace) && !cbase_dict_stamp_is_shared(namespace);
        if (*known) {
            found = PyDict_GetItemWithError(namespace, name); // borrowed
            *known = found != NULL || !PyErr_Occurred();
        }
        Py_DECREF(namespace);
    }
    PyErr_Clear();
    return found;
}

/* Whether an attribute, or NULL, is one that C computes for instances of a class; it comes before
 * the instance dict. */
static int
is_computed(PyTypeObject *type, PyObject *attr)
{
    return attr != NULL && Py_IS_TYPE(attr, &PyGetSetDescr_Type)
           && PyType_IsSubtype(type, PyDescr_TYPE(attr))
           && ((PyGetSetDescrObject *)attr)->d_getset->get != NULL;
}

int
cbase_memo_class_look(cbase_memo_class *memo, PyTypeObject *type, PyObject *name)
{
    cbase_class_stamp stamp;
    int known;

    if (type->tp_getattro != PyObject_GenericGetAttr || !cbase_class_stamp_take(&stamp, type)) {
        return 0; // the next ordinary look-up gives the class one
    }
    memset(memo, 0, sizeof(*memo));
    PyObject *found = find_in_mro(type, name, &known);
    if (known) {
        memo->class = stamp;
        memo->attr = found;
        memo->is_computed = is_computed(type, found);
    }
    return known;
}

PyObject *
cbase_memo_attr(cbase_memo_class *memo, PyObject *obj, PyObject *name)
{
    PyTypeObject *type = Py_TYPE(obj);

    if (cbase_memo_class_knows(memo, type, name) && memo->is_computed) {
        PyObject *descr = Py_NewRef(memo->attr);
        const PyGetSetDef *def = ((PyGetSetDescrObject *)descr)->d_getset;
        PyObject *value = def->get(obj, def->closure);
        Py_DECREF(descr);
        return value;
    }
    return PyObject_GetAttr(obj, name);
}

PyObject *
cbase_memo_call(cbase_memo_class *memo, PyObject *name, PyObject *const *args, size_t nargs)
{
    PyTypeObject *type = Py_TYPE(args[0]);

    if (type->tp_dictoffset == 0 && cbase_memo_class_knows(memo, type, name) && memo->attr != NULL
        && PyType_HasFeature(Py_TYPE(memo->attr), Py_TPFLAGS_METHOD_DESCRIPTOR))
    {
        PyObject *function = Py_NewRef(memo->attr);
        PyObject *result = cbase_call_vector(function, args, nargs);
        Py_DECREF(function);
        return result;
    }
    return PyObject_VectorcallMethod(name, args, nargs, NULL);
}

/* ---- in a dict ---- */

/* Borrowed: what is in a dict; and notes it. */
static PyObject *
look_into(cbase_memo_dict *memo, PyObject *dict, PyObject *name)
{
    memo->dict = NULL;
    int watched = !cbase_memo_off && cbase_dict_stamp_available(memo->kind)
                  && cbase_dict_stamp_watch(memo->kind, dict)
                  && cbase_object_dict_is_plain(dict); // no Python code runs from here on
    uint64_t stamp = cbase_dict_stamp_of(memo->kind, dict);
    PyObject *value = PyDict_GetItemWithError(dict, name); // borrowed
    if (value == NULL && PyErr_Occurred()) {
        PyErr_Clear();
        return NULL;
    }
    if (watched) {
        memo->dict = dict;
        memo->stamp = stamp;
        memo->value = value;
    }
    return value;
}

/* Borrowed: the same without looking, if what is noted is still true. */
static inline PyObject *
find(cbase_memo_dict *memo, PyObject *dict, PyObject *name)
{
    return cbase_memo_dict_is_valid(memo, dict) ? memo->value : look_into(memo, dict, name);
}

PyObject *
cbase_memo_dict_get(cbase_memo_dict *memo, PyObject *dict, PyObject *name)
{
    return Py_XNewRef(find(memo, dict, name));
}

PyObject *
cbase_memo_instance_look(cbase_memo_dict *memo, PyObject *obj, PyObject *name)
{
    PyObject *dict = cbase_object_dict(obj);

    if (dict == NULL) {
        PyErr_Clear();
        return NULL;
    }
    PyObject *value = Py_XNewRef(find(memo, dict, name));
    Py_DECREF(dict);
    return value;
}

int
cbase_memo_instance_lacks(cbase_memo_dict *memo, PyObject *obj, PyObject *name)
{
    PyObject *dict = cbase_object_dict(obj);
    int found = -1;

    if (dict != NULL) {
        (void)find(memo, dict, name);
        found = cbase_memo_dict_is_valid(memo, dict) ? memo->value != NULL
                                                     : PyDict_Contains(dict, name);
        Py_DECREF(dict);
    }
    if (found < 0) {
        PyErr_Clear();
    }
    return found == 0;
}
