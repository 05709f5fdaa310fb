/* Hooks: what the accept loop calls and reads on a server, found once instead of anew for each
 * connection.
 *
 * gevent's loop looks up eight attributes for each connection. What was found stays true as
 * long as neither the class (nor a base of it) nor the instance dict has changed; that is
 * checked before each use, so that an override made at any moment, in a class or on the
 * instance, takes effect at the next accept. Servers whose classes customize attribute access,
 * or keep one of the names in a property or slot, are left to ordinary attribute access.
 *
 * What was found for the last servers is noted in slots, which all threads share and which any
 * call into Python may fill anew. So nobody else sees a slot: a batch gets a copy that owns what
 * it holds. A slot owns nothing, or it would keep handlers alive.
 *
 * Does not know what the hooks do.
 */
#include "server/server.h"

#define SLOTS 8
#define NAMES 11

/* What was found for one server. Nothing here is owned: the class and the instance dict own it as
 * long as they have not changed. */
typedef struct {
    cbase_class_stamp class;
    int simple; // if not, only ordinary attribute access is right
    PyObject *in_class[NAMES];
    cbase_hooks found; // its `self` is NULL: nothing
} hook_slot;

struct cbase_hooks_state {
    PyObject *names[NAMES]; // borrowed from the names of the module
    hook_slot slots[SLOTS];
};

/* ---- what the class has ---- */

/* The order of in_class. */
enum { FULL, DO_READ, MIN_DELAY, DELAY, DO_HANDLE, SPAWN, HANDLE, DO_CLOSE, SOCKET, RAW, MAX };

/* Adds what one class of the MRO has under names not found before: 1, 0 if looking that up
 * could run Python code, or -1. */
static int
look_into(PyObject *namespace, PyObject *const *names, PyObject **found)
{
    if (!cbase_object_dict_is_plain(namespace)) {
        return 0;
    }
    for (int i = 0; i < NAMES; i++) {
        if (found[i] == NULL) {
            found[i] =
                PyDict_GetItemWithError(namespace, names[i]); // borrowed: the class keeps it
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

/* Fills in the part of a slot that depends on the class alone: 1, 0 if it has no stamp, or -1. */
static int
read_class(cbase_state *st, PyTypeObject *type, hook_slot *slot)
{
    PyObject *mro = type->tp_mro; // borrowed: no Python code runs before it is read
    int simple = mro != NULL && type->tp_getattro == PyObject_GenericGetAttr
                 && type->tp_setattro == PyObject_GenericSetAttr;
    cbase_class_stamp stamp;

    memset(slot, 0, sizeof(*slot));
    if (!cbase_class_stamp_take(&stamp, type)) {
        return 0; // the next ordinary look-up gives the class one
    }
    for (Py_ssize_t i = 0; simple > 0 && i < PyTuple_GET_SIZE(mro); i++) {
        PyObject *namespace = compat_type_dict((PyTypeObject *)PyTuple_GET_ITEM(mro, i));
        simple = cbase_dict_stamp_is_shared(namespace)
                     ? 0
                     : look_into(namespace, st->hooks->names, slot->in_class);
        Py_DECREF(namespace);
    }
    for (int i = 0; simple > 0 && i < NAMES; i++) {
        simple = is_plain(slot->in_class[i]);
    }
    if (simple < 0) {
        return -1;
    }
    slot->simple = simple;
    slot->class = stamp;
    return 1;
}

/* ---- what the instance has ---- */

/* The value of an attribute, or NULL if it takes an ordinary look-up to know. */
static PyObject *
value_of(const hook_slot *slot, PyObject *const *in_dict, int i)
{
    if (in_dict[i] != NULL) {
        return in_dict[i];
    }
    if (slot->in_class[i] != NULL && Py_TYPE(slot->in_class[i])->tp_descr_get == NULL) {
        return slot->in_class[i];
    }
    return NULL;
}

/* The value of an int, or 0 if it is none, or is not positive. */
static Py_ssize_t
positive_int(PyObject *value)
{
    int overflow;

    if (value == NULL || !PyLong_CheckExact(value)) {
        return 0;
    }
    long number = PyLong_AsLongAndOverflow(value, &overflow);
    return overflow == 0 && number > 0 ? number : 0;
}

static int
is_base(const hook_slot *slot, PyObject *const *in_dict, int i, PyObject *base)
{
    return in_dict[i] == NULL && slot->in_class[i] == base;
}

/* Fills in the rest of a slot: 1, 0 if looking into the dict could run Python code, or -1. */
static int
read_instance(cbase_state *st, PyObject *self, PyObject *dict, hook_slot *slot)
{
    PyObject *in_dict[NAMES] = {NULL}; // borrowed
    cbase_hooks *h = &slot->found;

    memset(h, 0, sizeof(*h));
    int plain = look_into(dict, st->hooks->names, in_dict);
    if (plain <= 0) {
        return plain;
    }
    h->max_accept = positive_int(value_of(slot, in_dict, MAX));
    h->has_socket = in_dict[SOCKET] != NULL;
    h->never_full = is_base(slot, in_dict, FULL, st->class->full.function);
    h->full = in_dict[FULL];
    if (in_dict[DO_READ] == NULL && slot->in_class[DO_READ] != NULL
        && PyType_HasFeature(Py_TYPE(slot->in_class[DO_READ]), Py_TPFLAGS_METHOD_DESCRIPTOR))
    {
        h->do_read = slot->in_class[DO_READ];
    }
    if (cbase_socket_accept_is_do_read(st, h->do_read)) {
        h->listener = in_dict[SOCKET];
    }
    h->takes_datagrams = cbase_socket_datagram_is_do_read(st, h->do_read);
    if (h->takes_datagrams) {
        h->listener = in_dict[RAW];
    }
    h->delay_is_reset =
        in_dict[DELAY] != NULL && in_dict[DELAY] == value_of(slot, in_dict, MIN_DELAY);
    h->base_do_handle = is_base(slot, in_dict, DO_HANDLE, st->class->do_handle.function);
    h->spawn = value_of(slot, in_dict, SPAWN);
    h->handle = value_of(slot, in_dict, HANDLE);
    h->close_does_nothing = is_base(slot, in_dict, DO_CLOSE, st->class->do_close.function);
    if (in_dict[DO_CLOSE] == NULL && slot->in_class[DO_CLOSE] != NULL
        && Py_IS_TYPE(slot->in_class[DO_CLOSE], &PyFunction_Type))
    {
        h->close_function = slot->in_class[DO_CLOSE];
    }
    h->class = slot->class;
    h->self = self;
    h->dict = dict;
    h->stamp = cbase_dict_stamp_of(CBASE_DICT_SOME_NAMES, dict);
    return 1;
}

/* ---- copies ---- */

/* Whether what was found is still true of a server with this instance dict, if its class is the
 * same. */
static int
is_true(const cbase_hooks *h, PyObject *self, PyObject *dict)
{
    return h->self == self && h->dict == dict
           && h->stamp == cbase_dict_stamp_of(CBASE_DICT_SOME_NAMES, dict);
}

static void
copy(const cbase_hooks *found, cbase_hooks *hooks)
{
    *hooks = *found;
    Py_XINCREF(hooks->full);
    Py_XINCREF(hooks->do_read);
    Py_XINCREF(hooks->listener);
    Py_XINCREF(hooks->spawn);
    Py_XINCREF(hooks->handle);
    Py_XINCREF(hooks->close_function);
}

void
cbase_hooks_drop(cbase_hooks *hooks)
{
    cbase_hooks dropped = *hooks;

    hooks->self = NULL;
    hooks->full = hooks->do_read = hooks->listener = NULL;
    hooks->spawn = hooks->handle = hooks->close_function = NULL;
    Py_XDECREF(dropped.full);
    Py_XDECREF(dropped.do_read);
    Py_XDECREF(dropped.listener);
    Py_XDECREF(dropped.spawn);
    Py_XDECREF(dropped.handle);
    Py_XDECREF(dropped.close_function);
}

/* ---- for the others ---- */

/* From now on everything is looked up anew: what is known of a server depends on gevent. */
static void
forget(cbase_state *st)
{
    memset(st->hooks->slots, 0, sizeof(st->hooks->slots));
}

int
cbase_hooks_init(cbase_state *st)
{
    PyObject *names[NAMES] = {
        [FULL] = st->s_full,      [DO_READ] = st->s_do_read,     [MIN_DELAY] = st->s_min_delay,
        [DELAY] = st->s_delay,    [DO_HANDLE] = st->s_do_handle, [SPAWN] = st->s__spawn,
        [HANDLE] = st->s__handle, [DO_CLOSE] = st->s_do_close,   [SOCKET] = st->s_socket,
        [RAW] = st->s__socket,    [MAX] = st->s_max_accept,
    };

    st->hooks = cbase_state_new(sizeof(*st->hooks));
    if (st->hooks == NULL) {
        return -1;
    }
    memcpy(st->hooks->names, names, sizeof(names));
    for (int i = 0; i < NAMES; i++) {
        if (cbase_dict_stamp_add_name(names[i]) < 0) {
            return -1;
        }
    }
    cbase_premises_on_compared(st, forget);
    return 0;
}

static PyObject *
hooks_off(PyObject *module, PyObject *unused)
{
    (void)module, (void)unused;
    if (!cbase_dict_stamp_available(CBASE_DICT_SOME_NAMES)) {
        return PyUnicode_FromString("all dict watchers of the interpreter are taken");
    }
    return Py_NewRef(Py_None);
}

static PyObject *
hooks_switch_off(PyObject *module, PyObject *unused)
{
    (void)module, (void)unused;
    cbase_memo_off = 1;
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

/* The part of a slot that depends on the class alone: 1, 0 if ordinary attribute access has to be
 * used, or -1. Runs no Python code. */
static int
know_class(cbase_state *st, PyTypeObject *type, hook_slot *slot)
{
    if (cbase_class_stamp_is_of(&slot->class, type)) {
        return slot->simple;
    }
    int known = read_class(st, type, slot);
    return known > 0 ? slot->simple : known;
}

/* The slot of a server, filled in: 1, 0 or -1 as above. No Python code has run since when this
 * returns 1. */
static int
fill_slot(cbase_state *st, PyObject *self, PyObject *dict, hook_slot *slot)
{
    int known = know_class(st, Py_TYPE(self), slot);

    if (known <= 0 || is_true(&slot->found, self, dict)) {
        return known;
    }
    if (!cbase_dict_stamp_watch(CBASE_DICT_SOME_NAMES, dict)) {
        return 0;
    }
    known = know_class(st, Py_TYPE(self), slot); // that may have run anything
    return known > 0 ? read_instance(st, self, dict, slot) : known;
}

/* Whether a copy is still true of a server with this instance dict. */
static inline int
is_still_true(const cbase_hooks *hooks, PyObject *self, PyObject *dict)
{
    return is_true(hooks, self, dict) && cbase_class_stamp_is_of(&hooks->class, Py_TYPE(self));
}

/* As cbase_hooks_get(). */
static Py_NO_INLINE int
find_anew(cbase_state *st, PyObject *self, cbase_hooks *hooks)
{
    if (!cbase_class_is_as_taken(st)) {
        cbase_hooks_drop(hooks);
        return 0;
    }
    if (hooks->self != NULL) {
        PyObject *dict = cbase_object_dict(self);
        int same = dict != NULL && is_still_true(hooks, self, dict);
        Py_XDECREF(dict);
        if (same) {
            return 1;
        }
        PyErr_Clear();           // it is asked for again
        cbase_hooks_drop(hooks); // which may run anything
    }
    if (cbase_memo_off) {
        return 0;
    }
    PyObject *dict = cbase_object_dict(self);
    if (dict == NULL) {
        return -1;
    }
    hook_slot *slot = &st->hooks->slots[((uintptr_t)self >> 4) % SLOTS];
    int result = fill_slot(st, self, dict, slot);
    if (result > 0) {
        copy(&slot->found, hooks);
    }
    Py_DECREF(dict);
    return result;
}

int
cbase_hooks_get(cbase_state *st, PyObject *self, cbase_hooks *hooks)
{
    PyObject *dict = compat_instance_dict(self); // borrowed, compared only

    if (dict != NULL && is_still_true(hooks, self, dict) && cbase_class_is_as_taken(st)) {
        return 1;
    }
    return find_anew(st, self, hooks);
}
