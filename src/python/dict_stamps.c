/* Has a dict changed? What was found in one stays true until its stamp is another one.
 *
 * CAUTION, watched by the tests of overrides in tests/server/accepting/test_accept_loop.py and of
 * replaced names in tests/native/steps/test_stream.py: PyDictObject.ma_version_tag (PEP 509)
 * in 3.10 and 3.11, the public dict watchers since 3.12, of which an interpreter has eight.
 *
 * Watchers are told before the dict changes. If another one runs Python code then, that may find
 * the old value and the new stamp; and the stamp does not change again. So a dict that somebody
 * else watches is not relied on.
 *
 * What 3.13 does differently to the values that lie in an object itself: end_sharing().
 * Does not know what is in a dict.
 */
#include "python/python.h"

#ifdef COMPAT_DICTS_ARE_WATCHED

uint64_t cbase_dict_stamp_changes[CBASE_DICT_KINDS];

static int watchers[CBASE_DICT_KINDS] = {-1, -1};
static PyObject *some_names[16]; // interned, owned
static size_t names_count;
static PyObject *popitem_name, *last_name; // 'popitem', and of an item to pop; the same

static int
on_some_change(PyDict_WatchEvent event, PyObject *dict, PyObject *key, PyObject *value)
{
    (void)event, (void)dict, (void)value;
    /* Interned names are compared by address; anything else counts as one of them. */
    if (key != NULL && PyUnicode_CheckExact(key) && PyUnicode_CHECK_INTERNED(key)) {
        size_t i = 0;
        while (i < names_count && some_names[i] != key) {
            i++;
        }
        if (i == names_count) {
            return 0;
        }
    }
    cbase_dict_stamp_changes[CBASE_DICT_SOME_NAMES]++;
    return 0;
}

static int
on_any_change(PyDict_WatchEvent event, PyObject *dict, PyObject *key, PyObject *value)
{
    (void)event, (void)dict, (void)key, (void)value;
    cbase_dict_stamp_changes[CBASE_DICT_ALL_NAMES]++;
    return 0;
}

void
cbase_dict_stamp_init(void)
{
    const PyDict_WatchCallback callbacks[CBASE_DICT_KINDS] = {
        [CBASE_DICT_SOME_NAMES] = on_some_change, [CBASE_DICT_ALL_NAMES] = on_any_change};

    if (popitem_name != NULL) {
        return; // the module was loaded before
    }
    popitem_name = PyUnicode_InternFromString("popitem");
    last_name = PyUnicode_InternFromString("gevent_cbase ends sharing");
    if (popitem_name == NULL || last_name == NULL) {
        PyErr_Clear();
        return; // every look-up is made the ordinary way
    }
    for (int kind = 0; kind < CBASE_DICT_KINDS; kind++) {
        watchers[kind] = PyDict_AddWatcher(callbacks[kind]);
        PyErr_Clear(); // all taken: every look-up is made the ordinary way
    }
}

int
cbase_dict_stamp_add_name(PyObject *name)
{
    for (size_t i = 0; i < names_count; i++) {
        if (some_names[i] == name) {
            return 0; // the module was loaded before; interned names are the same
        }
    }
    if (names_count == Py_ARRAY_LENGTH(some_names)) {
        PyErr_SetString(PyExc_SystemError, "too many names of attributes");
        return -1;
    }
    some_names[names_count++] = Py_NewRef(name);
    return 0;
}

int
cbase_dict_stamp_available(int kind)
{
    return watchers[kind] >= 0;
}

/* 3.13 stores into the values that lie in an object itself without telling the watchers of the
 * dict that shows them, which may be that of another object, too. popitem() ends that sharing, or
 * fails and leaves all as it is; to set
 * `__dict__` ends it, too, but without memory for that the values are lost. 0 or -1. */
static int
end_sharing(PyObject *dict)
{
#if PY_VERSION_HEX < 0x030E0000 && PY_VERSION_HEX >= 0x030D0000
    if (((PyDictObject *)dict)->ma_values != NULL) {
        if (PyDict_SetItem(dict, last_name, Py_None) < 0) {
            return -1;
        }
        PyObject *last = PyObject_CallMethodNoArgs(dict, popitem_name);
        Py_XDECREF(last);
        if (last == NULL) {
            PyErr_Clear();
            (void)PyDict_DelItem(dict, last_name);
            return -1; // the caller clears an exception, if there is one
        }
    }
#else
    (void)dict;
#endif
    return 0;
}

int
cbase_dict_stamp_is_shared(PyObject *dict)
{
    unsigned int ours = 0;

    for (int kind = 0; kind < CBASE_DICT_KINDS; kind++) {
        ours |= watchers[kind] < 0 ? 0 : 1U << watchers[kind];
    }
    return (compat_dict_watchers(dict) & ~ours) != 0;
}

int
cbase_dict_stamp_watch(int kind, PyObject *dict)
{
    if (cbase_dict_stamp_is_shared(dict)) {
        return 0; // they are told of no more than without us
    }
    if (PyDict_Watch(watchers[kind], dict) < 0 || end_sharing(dict) < 0) {
        PyErr_Clear(); // all watchers are taken, or there is no memory
        return 0;
    }
    return !cbase_dict_stamp_is_shared(dict); // that may have run anything
}

#else

void
cbase_dict_stamp_init(void)
{
}

int
cbase_dict_stamp_add_name(PyObject *name)
{
    (void)name;
    return 0;
}

int
cbase_dict_stamp_available(int kind)
{
    (void)kind;
    return 1;
}

int
cbase_dict_stamp_is_shared(PyObject *dict)
{
    (void)dict;
    return 0;
}

int
cbase_dict_stamp_watch(int kind, PyObject *dict)
{
    (void)kind, (void)dict;
    return 1;
}

#endif
