/* Hooks: what the accept loop calls and reads on a server, found once instead of anew for each
 * connection.
 *
 * gevent's loop looks up eight attributes for each connection. What was found stays true as
 * long as neither the class (nor a base of it) nor the instance dict has changed; that is
 * checked before each use, so that an override made at any moment, in a class or on the
 * instance, takes effect at the next accept. Servers whose classes customize attribute access,
 * or keep one of the names in a property or slot, are left to ordinary attribute access.
 *
 * CAUTION, both watched by the tests of overrides in tests/test_accept_loop.py:
 * - PyTypeObject.tp_version_tag: CPython gives a class a new one whenever it or one of its bases
 *   has changed. Called internal; 0 means "no valid tag" in 3.10 to 3.15.
 * - Changes of a dict: PyDictObject.ma_version_tag (PEP 509) in 3.10 and 3.11, the public dict
 *   watchers since 3.12.
 */
#include "cbase.h"

/* ---- has the class changed? ---- */

static unsigned int
version_of(PyTypeObject *type)
{
#if PY_VERSION_HEX < 0x030C0000
    if (!PyType_HasFeature(type, Py_TPFLAGS_VALID_VERSION_TAG)) {
        return 0;
    }
#endif
    return type->tp_version_tag;
}

/* ---- has the dict changed? ---- */

#if PY_VERSION_HEX >= 0x030C0000

#define WATCHED 8

static uint64_t changes;             // of one of these names in any watched dict
static PyObject *watched[WATCHED];   // interned, immortal as the module state is
static int watcher = -1;

static int
on_change(PyDict_WatchEvent event, PyObject *dict, PyObject *key, PyObject *value)
{
    (void)event, (void)dict, (void)value;
    /* Interned names are compared by address; anything else counts as one of them. */
    if (key != NULL && PyUnicode_CheckExact(key) && PyUnicode_CHECK_INTERNED(key)) {
        int i = 0;
        while (i < WATCHED && watched[i] != key) {
            i++;
        }
        if (i == WATCHED) {
            return 0;
        }
    }
    changes++;
    return 0;
}

int
cbase_hooks_init(cbase_state *st)
{
    PyObject *names[WATCHED] = {st->s_full,      st->s_do_read, st->s_min_delay, st->s_delay,
                                st->s_do_handle, st->s__spawn,  st->s__handle,   st->s_do_close};

    if (watcher >= 0) {
        return 0; // the module was loaded before: the same interned names
    }
    memcpy(watched, names, sizeof(names));
    watcher = PyDict_AddWatcher(on_change);
    if (watcher < 0) {
        PyErr_Clear(); // all taken: every look-up is made the ordinary way
    }
    return 0;
}

static int
watch(cbase_state *st, PyObject *self, PyObject *dict)
{
    (void)st, (void)self;
    if (watcher < 0) {
        return -1;
    }
#if PY_VERSION_HEX < 0x030E0000 && PY_VERSION_HEX >= 0x030D0000
    /* 3.13 stores into the values that lie in the object without telling the watchers of the
     * dict that shows them. Setting `__dict__` to the very same dict ends that sharing. */
    if (Py_TYPE(st->own_dict)->tp_descr_set(st->own_dict, self, dict) < 0) {
        return -1;
    }
#endif
    return PyDict_Watch(watcher, dict);
}

static uint64_t
stamp_of(PyObject *dict)
{
    (void)dict;
    return changes;
}

#else

int
cbase_hooks_init(cbase_state *st)
{
    (void)st;
    return 0;
}

static int
watch(cbase_state *st, PyObject *self, PyObject *dict)
{
    (void)st, (void)self, (void)dict;
    return 0;
}

static uint64_t
stamp_of(PyObject *dict)
{
    return ((PyDictObject *)dict)->ma_version_tag;
}

#endif

/* ---- finding ---- */

/* One attribute: where the class and the instance have it. Borrowed. */
typedef struct {
    PyObject *in_class, *in_dict;
} place;

/* The attribute as the MRO has it: 0 and a borrowed *attr, or NULL if there is none; or -1. */
static int
find_in_mro(PyTypeObject *type, PyObject *name, PyObject **attr)
{
    PyObject *mro = type->tp_mro;

    *attr = NULL;
    for (Py_ssize_t i = 0; mro != NULL && i < PyTuple_GET_SIZE(mro) && *attr == NULL; i++) {
        PyObject *dict = compat_type_dict((PyTypeObject *)PyTuple_GET_ITEM(mro, i));
        *attr = PyDict_GetItemWithError(dict, name);
        Py_DECREF(dict); // the class keeps it and what was found
        if (*attr == NULL && PyErr_Occurred()) {
            return -1;
        }
    }
    return 0;
}

/* Clears h->simple if the attribute comes before the instance dict. */
static int
find(cbase_hooks *h, PyObject *name, place *p)
{
    if (find_in_mro(h->type, name, &p->in_class) < 0) {
        return -1;
    }
    if (p->in_class != NULL && Py_TYPE(p->in_class)->tp_descr_set != NULL) {
        h->simple = 0;
    }
    p->in_dict = PyDict_GetItemWithError(h->dict, name);
    return p->in_dict == NULL && PyErr_Occurred() ? -1 : 0;
}

/* The value of a plain attribute, or NULL if it takes an ordinary look-up to know. */
static PyObject *
value_of(const place *p)
{
    if (p->in_dict != NULL) {
        return p->in_dict;
    }
    if (p->in_class != NULL && Py_TYPE(p->in_class)->tp_descr_get == NULL) {
        return p->in_class;
    }
    return NULL;
}

static int
is_own(const place *p, PyObject *own)
{
    return p->in_dict == NULL && p->in_class == own;
}

/* Fills in all but the stamp: 0, or -1. */
static int
find_all(cbase_state *st, cbase_hooks *h)
{
    place full, do_read, min_delay, delay, do_handle, spawn, handle, do_close;

    h->simple = h->type->tp_getattro == PyObject_GenericGetAttr
                && h->type->tp_setattro == PyObject_GenericSetAttr;
    if (!h->simple) {
        return 0;
    }
    if (find(h, st->s_full, &full) < 0 || find(h, st->s_do_read, &do_read) < 0
        || find(h, st->s_min_delay, &min_delay) < 0 || find(h, st->s_delay, &delay) < 0
        || find(h, st->s_do_handle, &do_handle) < 0 || find(h, st->s__spawn, &spawn) < 0
        || find(h, st->s__handle, &handle) < 0 || find(h, st->s_do_close, &do_close) < 0)
    {
        return -1;
    }
    h->never_full = is_own(&full, st->own_full);
    h->do_read = NULL;
    if (do_read.in_dict == NULL && do_read.in_class != NULL
        && PyType_HasFeature(Py_TYPE(do_read.in_class), Py_TPFLAGS_METHOD_DESCRIPTOR)) {
        h->do_read = do_read.in_class;
    }
    h->delay_is_reset = delay.in_dict != NULL && delay.in_dict == value_of(&min_delay);
    h->own_do_handle = is_own(&do_handle, st->own_do_handle);
    h->spawn = value_of(&spawn);
    h->handle = value_of(&handle);
    h->close_does_nothing = is_own(&do_close, st->own_do_close);
    h->close_function = NULL;
    if (do_close.in_dict == NULL && do_close.in_class != NULL
        && Py_IS_TYPE(do_close.in_class, &PyFunction_Type)) {
        h->close_function = do_close.in_class;
    }
    return 0;
}

/* Fills h for the server: 1, 0 if it changed while being read or cannot be watched, or -1. */
static int
refresh(cbase_state *st, PyObject *self, PyObject *dict, unsigned int version, cbase_hooks *h)
{
    h->self = NULL; // invalid until complete
    h->type = Py_TYPE(self);
    h->version = version;
    h->dict = dict;
    if (watch(st, self, dict) < 0) {
        PyErr_Clear();
        return 0;
    }
    h->stamp = stamp_of(dict);
    if (find_all(st, h) < 0) { // a key that is no str may have run any code
        return -1;
    }
    if (h->stamp != stamp_of(dict) || h->type != Py_TYPE(self)
        || h->version != version_of(h->type)) {
        return 0;
    }
    h->self = self;
    return 1;
}

static PyObject *
hooks_off(PyObject *module, PyObject *unused)
{
    (void)module, (void)unused;
#if PY_VERSION_HEX >= 0x030C0000
    if (watcher < 0) {
        return PyUnicode_FromString("all dict watchers of the interpreter are taken");
    }
#endif
    return Py_NewRef(Py_None);
}

PyMethodDef cbase_hooks_functions[] = {
    {"_hooks_off", hooks_off, METH_NOARGS,
     PyDoc_STR("_hooks_off($module, /)\n--\n\n"
               "Why look-ups are not remembered, as text; None if they are.")},
    {NULL, NULL, 0, NULL},
};

int
cbase_hooks_get(cbase_state *st, PyObject *self, const cbase_hooks **hooks)
{
    PyTypeObject *type = Py_TYPE(self);
    unsigned int version = version_of(type);
    cbase_hooks *h = &st->hooks[((uintptr_t)self >> 4) % CBASE_HOOKS];
    int result = 1;

    if (version == 0) {
        return 0; // the next ordinary look-up gives the class one
    }
    PyObject *dict = PyObject_GenericGetDict(self, NULL);
    if (dict == NULL) {
        return -1;
    }
    if (h->self != self || h->dict != dict || h->stamp != stamp_of(dict) || h->type != type
        || h->version != version)
    {
        result = refresh(st, self, dict, version, h);
    }
    Py_DECREF(dict);
    *hooks = h;
    return result > 0 ? h->simple : result;
}
