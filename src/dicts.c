/* Has a dict changed? What was found in one stays true until its stamp is another one.
 *
 * CAUTION, watched by the tests of overrides in tests/test_accept_loop.py and of replaced names in
 * tests/test_stream.py: PyDictObject.ma_version_tag (PEP 509) in 3.10 and 3.11, the public dict
 * watchers since 3.12, of which an interpreter has eight.
 */
#include "cbase.h"

#if PY_VERSION_HEX >= 0x030C0000

uint64_t cbase_dict_changes[CBASE_DICT_KINDS];

static int watchers[CBASE_DICT_KINDS] = {-1, -1};
static PyObject *hooks[CBASE_HOOK_NAMES]; // interned and never freed, as the module state is

static int
on_instance_change(PyDict_WatchEvent event, PyObject *dict, PyObject *key, PyObject *value)
{
    (void)event, (void)dict, (void)value;
    /* Interned names are compared by address; anything else counts as one of them. */
    if (key != NULL && PyUnicode_CheckExact(key) && PyUnicode_CHECK_INTERNED(key)) {
        int i = 0;
        while (i < CBASE_HOOK_NAMES && hooks[i] != key) {
            i++;
        }
        if (i == CBASE_HOOK_NAMES) {
            return 0;
        }
    }
    cbase_dict_changes[CBASE_INSTANCE]++;
    return 0;
}

static int
on_namespace_change(PyDict_WatchEvent event, PyObject *dict, PyObject *key, PyObject *value)
{
    (void)event, (void)dict, (void)key, (void)value;
    cbase_dict_changes[CBASE_NAMESPACE]++;
    return 0;
}

void
cbase_dicts_init(PyObject *const *hook_names)
{
    const PyDict_WatchCallback callbacks[CBASE_DICT_KINDS] = {
        [CBASE_INSTANCE] = on_instance_change, [CBASE_NAMESPACE] = on_namespace_change};

    if (hooks[0] != NULL) {
        return; // the module was loaded before; interned names are the same
    }
    memcpy(hooks, hook_names, sizeof(hooks));
    for (int kind = 0; kind < CBASE_DICT_KINDS; kind++) {
        watchers[kind] = PyDict_AddWatcher(callbacks[kind]);
        PyErr_Clear(); // all taken: every look-up is made the ordinary way
    }
}

int
cbase_dict_can_watch(int kind)
{
    return watchers[kind] >= 0;
}

int
cbase_dict_watch(int kind, PyObject *dict)
{
    return PyDict_Watch(watchers[kind], dict);
}

#else

void
cbase_dicts_init(PyObject *const *hook_names)
{
    (void)hook_names;
}

int
cbase_dict_can_watch(int kind)
{
    (void)kind;
    return 1;
}

int
cbase_dict_watch(int kind, PyObject *dict)
{
    (void)kind, (void)dict;
    return 0;
}

#endif
