/* The hub of the current thread: what get_hub() of gevent returns, read from where gevent keeps it
 * once there is one.
 *
 * gevent._hub_local, compiled, exports the object with the thread-local attributes to its other
 * modules; its `__dict__` is the same dict as long as a thread lives.
 *
 * Does not know what a hub does.
 */
#include "native/native.h"

/* Where gevent keeps the hub of each thread. All but the dict is never freed. */
struct cbase_hub_state {
    PyObject *get_hub, *get_hub_noargs; // gevent's functions
    PyObject *local;                    // has the thread-local attribute `hub`; NULL: unknown
    cbase_class_stamp class;            // of its class, when this was found out about it:
    int in_dict;                        // the attribute is in its `__dict__`
    uint64_t thread;                    // for which
    PyObject *dict;                     // this is its `__dict__`, owned; or NULL
    PyObject *last_dict;                // this was it, compared only
    cbase_memo_dict hub;                // what is in that
    cbase_memo_class loop;              // attribute of hubs
};

/* The attributes of this thread. */
static PyObject *
find_dict(cbase_state *st, uint64_t thread)
{
    struct cbase_hub_state *h = st->hub;
    PyObject *dict = h->thread == thread ? Py_XNewRef(h->dict) : NULL;

    if (dict == NULL && (dict = PyObject_GetAttr(h->local, st->s___dict__)) != NULL) {
        h->thread = thread;
        h->last_dict = dict;
        Py_XSETREF(h->dict, Py_NewRef(dict)); // which may run anything
    }
    return dict;
}

/* The hub in the attributes of this thread; NULL, without an exception, if get_hub() has to see
 * to it. */
static PyObject *
read_hub(cbase_state *st)
{
    struct cbase_hub_state *h = st->hub;
    uint64_t thread = PyThreadState_GetID(PyThreadState_Get());
    PyObject *hub = NULL;

    if (h->thread != thread || !cbase_memo_dict_still(&h->hub, h->last_dict, &hub)) {
        PyObject *dict = find_dict(st, thread);
        if (dict == NULL) {
            PyErr_Clear(); // get_hub() meets it as well
            return NULL;
        }
        hub = cbase_memo_dict_get(&h->hub, dict, st->s_hub);
        Py_DECREF(dict);
    }
    if (hub == Py_None) {
        Py_CLEAR(hub);
    }
    return hub;
}

/* Whether instances of the class have `hub` in their dict alone, as far as that can be told. */
static int
has_no_hub(cbase_state *st, PyTypeObject *class)
{
    PyObject *hidden = PyObject_GetAttr((PyObject *)class, st->s_hub); // gives it a version
    int has_none = hidden == NULL && class->tp_getattro == class->tp_base->tp_getattro;

    PyErr_Clear();
    Py_XDECREF(hidden);
    return has_none;
}

/* Whether the attribute is what is in that dict, whatever was done to the class. */
static int
is_in_dict(cbase_state *st)
{
    struct cbase_hub_state *h = st->hub;
    PyTypeObject *class = Py_TYPE(h->local);

    if (!cbase_class_stamp_holds(&h->class, class)) {
        cbase_class_stamp stamp;
        (void)has_no_hub(st, class);
        if (!cbase_class_stamp_take(&stamp, class)) {
            return 0;
        }
        int in_dict = has_no_hub(st, class); // of the class with this stamp
        h->class = stamp;
        h->in_dict = in_dict;
    }
    return h->in_dict && cbase_class_stamp_holds(&h->class, class);
}

PyObject *
cbase_hub_get(cbase_state *st, PyObject *get_hub)
{
    const struct cbase_hub_state *h = st->hub;
    PyObject *hub = NULL;

    if (h->local != NULL && (get_hub == h->get_hub || get_hub == h->get_hub_noargs)
        && is_in_dict(st)) {
        hub = read_hub(st);
    }
    return hub != NULL ? hub : PyObject_CallNoArgs(get_hub);
}

PyObject *
cbase_hub_loop(cbase_state *st, PyObject *hub)
{
    return cbase_memo_attr(&st->hub->loop, hub, st->s_loop);
}

void
cbase_hub_drop(cbase_state *st)
{
    Py_CLEAR(st->hub->dict);
}

/* The object that gevent's functions read the hub from. Borrowed; or NULL, perhaps with an
 * exception set. */
static PyObject *
find_local(PyObject *module)
{
    PyObject *class = cbase_object_attr(module, "_Threadlocal");
    PyObject **local = class == NULL ? NULL : cbase_object_exported(module, "_threadlocal");

    if (local != NULL && (PyObject *)Py_TYPE(*local) != class) {
        local = NULL;
    }
    Py_XDECREF(class);
    return local == NULL ? NULL : *local;
}

int
cbase_hub_init(cbase_state *st)
{
    struct cbase_hub_state *h = st->hub = cbase_state_new(sizeof(*st->hub));

    if (h == NULL) {
        return -1;
    }
    PyObject *module = PyImport_ImportModule("gevent._hub_local");
    if (module != NULL && (h->get_hub = cbase_object_attr(module, "get_hub")) != NULL
        && (h->get_hub_noargs = cbase_object_attr(module, "get_hub_noargs")) != NULL)
    {
        h->local = Py_XNewRef(find_local(module));
    }
    PyErr_Clear(); // without it, gevent's functions are called
    Py_XDECREF(module);
    return 0;
}
