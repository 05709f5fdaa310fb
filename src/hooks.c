/* Hooks: what the accept loop calls and reads on a server, found once instead of anew for each
 * connection.
 *
 * gevent's loop looks up eight attributes for each connection. What was found stays true as
 * long as neither the class (nor a base of it) nor the instance dict has changed; that is
 * checked before each use, so that an override made at any moment, in a class or on the
 * instance, takes effect at the next accept. Servers whose classes customize attribute access,
 * or keep one of the names in a property or slot, are left to ordinary attribute access.
 *
 * CAUTION, watched by the tests of overrides in tests/test_accept_loop.py:
 * PyTypeObject.tp_version_tag. CPython gives a class a new one whenever it or one of its bases has
 * changed. Called internal; 0 means "no valid tag" in 3.10 to 3.15.
 */
#include "cbase.h"

/* ---- what the class has ---- */

/* The order of cbase_hooks.in_class. */
enum { FULL, DO_READ, MIN_DELAY, DELAY, DO_HANDLE, SPAWN, HANDLE, DO_CLOSE, SOCKET };

/* Adds what one class of the MRO has under names not found before: 1, 0 if looking that up
 * could run Python code, or -1. */
static int
look_into(PyObject *namespace, PyObject *const *names, PyObject **found)
{
    if (!cbase_dict_has_plain_keys(namespace)) {
        return 0;
    }
    for (int i = 0; i < CBASE_HOOK_NAMES; i++) {
        if (found[i] == NULL) {
            found[i] = PyDict_GetItemWithError(namespace, names[i]); // the class keeps it
            if (found[i] == NULL && PyErr_Occurred()) {
                return -1;
            }
        }
    }
    return 1;
}

/* Whether an attribute of the class is, for good, one that the instance dict may hide: values
 * of mutable types can become properties. */
static int
is_plain(PyObject *attr)
{
    return attr == NULL
           || (Py_TYPE(attr)->tp_descr_set == NULL
               && !PyType_HasFeature(Py_TYPE(attr), Py_TPFLAGS_HEAPTYPE));
}

/* Fills in the part of h that depends on the class alone: 0 or -1. */
static int
read_class(cbase_state *st, PyTypeObject *type, unsigned int version, cbase_hooks *h)
{
    PyObject *mro = type->tp_mro;
    int simple = mro != NULL && type->tp_getattro == PyObject_GenericGetAttr
                 && type->tp_setattro == PyObject_GenericSetAttr;

    h->self = NULL; // the rest is invalid now
    h->type = NULL;
    memset(h->in_class, 0, sizeof(h->in_class));
    for (Py_ssize_t i = 0; simple > 0 && i < PyTuple_GET_SIZE(mro); i++) {
        PyObject *namespace = compat_type_dict((PyTypeObject *)PyTuple_GET_ITEM(mro, i));
        simple = look_into(namespace, st->hook_names, h->in_class);
        Py_DECREF(namespace);
    }
    for (int i = 0; simple > 0 && i < CBASE_HOOK_NAMES; i++) {
        simple = is_plain(h->in_class[i]);
    }
    if (simple < 0) {
        return -1;
    }
    h->simple = simple;
    h->type = type;
    h->version = version;
    return 0;
}

/* ---- what the instance has ---- */

/* The value of an attribute, or NULL if it takes an ordinary look-up to know. */
static PyObject *
value_of(const cbase_hooks *h, PyObject *const *in_dict, int i)
{
    if (in_dict[i] != NULL) {
        return in_dict[i];
    }
    if (h->in_class[i] != NULL && Py_TYPE(h->in_class[i])->tp_descr_get == NULL) {
        return h->in_class[i];
    }
    return NULL;
}

static int
is_own(const cbase_hooks *h, PyObject *const *in_dict, int i, PyObject *own)
{
    return in_dict[i] == NULL && h->in_class[i] == own;
}

/* Fills in the rest of h: 1, 0 if the dict cannot be relied on, or -1. */
static int
read_instance(cbase_state *st, PyObject *self, PyObject *dict, cbase_hooks *h)
{
    PyObject *in_dict[CBASE_HOOK_NAMES] = {NULL};

    h->self = NULL;
    if (cbase_dict_watch(CBASE_INSTANCE, self, dict) < 0) {
        PyErr_Clear();
        return 0;
    }
    int plain = look_into(dict, st->hook_names, in_dict);
    if (plain <= 0) {
        return plain;
    }
    h->never_full = is_own(h, in_dict, FULL, st->own_full);
    h->full = in_dict[FULL];
    h->do_read = NULL;
    if (in_dict[DO_READ] == NULL && h->in_class[DO_READ] != NULL
        && PyType_HasFeature(Py_TYPE(h->in_class[DO_READ]), Py_TPFLAGS_METHOD_DESCRIPTOR))
    {
        h->do_read = h->in_class[DO_READ];
    }
    h->listener = h->do_read != NULL && h->do_read == st->stream.do_read ? in_dict[SOCKET] : NULL;
    h->delay_is_reset =
        in_dict[DELAY] != NULL && in_dict[DELAY] == value_of(h, in_dict, MIN_DELAY);
    h->own_do_handle = is_own(h, in_dict, DO_HANDLE, st->own_do_handle);
    h->spawn = value_of(h, in_dict, SPAWN);
    h->handle = value_of(h, in_dict, HANDLE);
    h->close_does_nothing = is_own(h, in_dict, DO_CLOSE, st->own_do_close);
    h->close_function = NULL;
    if (in_dict[DO_CLOSE] == NULL && h->in_class[DO_CLOSE] != NULL
        && Py_IS_TYPE(h->in_class[DO_CLOSE], &PyFunction_Type))
    {
        h->close_function = h->in_class[DO_CLOSE];
    }
    h->self = self;
    h->dict = dict;
    h->stamp = cbase_dict_stamp(CBASE_INSTANCE, dict);
    return 1;
}

/* ---- for the others ---- */

void
cbase_hooks_init(cbase_state *st)
{
    PyObject *names[CBASE_HOOK_NAMES] = {
        [FULL] = st->s_full,      [DO_READ] = st->s_do_read,     [MIN_DELAY] = st->s_min_delay,
        [DELAY] = st->s_delay,    [DO_HANDLE] = st->s_do_handle, [SPAWN] = st->s__spawn,
        [HANDLE] = st->s__handle, [DO_CLOSE] = st->s_do_close,   [SOCKET] = st->s_socket,
    };

    memcpy(st->hook_names, names, sizeof(names));
    cbase_dicts_init(st);
}

static PyObject *
hooks_off(PyObject *module, PyObject *unused)
{
    (void)module, (void)unused;
    if (!cbase_dict_can_watch(CBASE_INSTANCE)) {
        return PyUnicode_FromString("all dict watchers of the interpreter are taken");
    }
    return Py_NewRef(Py_None);
}

static PyObject *
hooks_switch_off(PyObject *module, PyObject *unused)
{
    (void)unused;
    cbase_module_state(module)->hooks_off = 1;
    return Py_NewRef(Py_None);
}

PyMethodDef cbase_hooks_functions[] = {
    {"_hooks_switch_off", hooks_switch_off, METH_NOARGS,
     PyDoc_STR("_hooks_switch_off($module, /)\n--\n\n"
               "Make every look-up the ordinary way, from now on.")},
    {"_hooks_off", hooks_off, METH_NOARGS,
     PyDoc_STR("_hooks_off($module, /)\n--\n\n"
               "Why look-ups are not remembered, as text; None if they are.")},
    {NULL, NULL, 0, NULL},
};

int
cbase_hooks_get(cbase_state *st, PyObject *self, const cbase_hooks **hooks)
{
    PyTypeObject *type = Py_TYPE(self);
    unsigned int version = compat_type_version(type);
    cbase_hooks *h = &st->hooks[((uintptr_t)self >> 4) % CBASE_HOOKS];

    *hooks = NULL;
    if (version == 0 || st->hooks_off) {
        return 0; // the next ordinary look-up gives the class one
    }
    if ((h->type != type || h->version != version) && read_class(st, type, version, h) < 0) {
        return -1;
    }
    if (!h->simple) {
        return 0;
    }
    PyObject *dict = PyObject_GenericGetDict(self, NULL);
    if (dict == NULL) {
        return -1;
    }
    int result = 1;
    if (h->self != self || h->dict != dict || h->stamp != cbase_dict_stamp(CBASE_INSTANCE, dict)) {
        result = read_instance(st, self, dict, h);
    }
    Py_DECREF(dict);
    if (result > 0) {
        *hooks = h;
    }
    return result;
}
