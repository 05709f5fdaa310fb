/* Waiting until a socket can be read from or written to: what socket._wait() of gevent does, which
 * is wait_on_socket(), Hub.wait() and a Waiter.
 *
 * Without a timeout this is done here, by the public methods of watchers and by greenlet's C
 * interface; a socket with a timeout, or a hub with methods of its own, is waited for by gevent's
 * functions. A waiter here behaves as gevent's, has the same text, and is used again.
 *
 * CAUTION: takes functions of greenlet's C interface by their place in it, as greenlet.h does.
 * Watched by tests/native/io/test_waiting.py.
 *
 * Does not know what the socket is waited for.
 */
#include "native/socket.h"

#ifdef CBASE_HAVE_SOCKETS

/* greenlet's C interface, greenlet._C_API: the place of each function in it. */
enum { API_GREENLET = 0, API_GETCURRENT = 4, API_SWITCH = 6 };

typedef PyObject *(*get_current)(void);
typedef PyObject *(*switch_to)(PyObject *greenlet, PyObject *args, PyObject *kwargs);

typedef struct {
    PyObject_HEAD PyObject *hub; // owned
    PyObject *greenlet;          // that waits, owned; or NULL
} waiter;

struct cbase_io_wait_state {
    get_current getcurrent;
    switch_to switch_greenlet;
    PyObject *switch_method; // greenlet.switch
    PyTypeObject *waiter_class;
    PyObject *waiter_switch;  // its method, unbound
    PyObject *invalid_switch; // gevent.exceptions.InvalidSwitchError
    waiter *unused;           // owned, with its bound method; or NULL
    PyObject *unused_switch;  // owned
    cbase_memo_class callback, start, stop, no_switch_out;
    cbase_memo_dict hub_wait, hub_switch;
    cbase_class_stamp plain; // greenlets of this class switch as greenlet does
};

/* ---- greenlets ---- */

/* Whether an attribute of a greenlet is not in its instance dict. */
static int
has_none_of_its_own(PyObject *greenlet, PyObject *name)
{
    Py_ssize_t offset = Py_TYPE(greenlet)->tp_dictoffset;
    PyObject *dict = offset > 0 ? *(PyObject **)((char *)greenlet + offset) : NULL; // borrowed
    int found = dict == NULL ? 0 : PyDict_Contains(dict, name);

    if (found < 0) {
        PyErr_Clear();
    }
    return offset > 0 && found == 0;
}

/* Whether greenlet.switch is the method of class greenlet. */
static int
switches_plainly(cbase_state *st, PyObject *greenlet)
{
    struct cbase_io_wait_state *w = st->io_wait;
    PyTypeObject *type = Py_TYPE(greenlet);

    if (!cbase_class_stamp_is_of(&w->plain, type)) {
        cbase_class_stamp stamp;
        PyObject *found = PyObject_GetAttr((PyObject *)type, st->s_switch);
        int plain = found == w->switch_method && type->tp_getattro == PyObject_GenericGetAttr
                    && cbase_class_stamp_take(&stamp, type);
        PyErr_Clear();
        Py_XDECREF(found);
        if (!plain) {
            return 0;
        }
        w->plain = stamp;
    }
    return has_none_of_its_own(greenlet, st->s_switch);
}

/* The current greenlet, which is about to leave: calls its switch_out(), if it has one. */
static int
leave_current(cbase_state *st, PyObject *current)
{
    PyObject *method, *done;

    if (cbase_memo_class_lacks(&st->io_wait->no_switch_out, Py_TYPE(current), st->s_switch_out)
        && has_none_of_its_own(current, st->s_switch_out))
    {
        return 0;
    }
    int found = compat_get_optional(current, st->s_switch_out, &method);
    if (found <= 0) {
        return found;
    }
    done = method == Py_None ? Py_NewRef(Py_None) : PyObject_CallNoArgs(method);
    Py_DECREF(method);
    Py_XDECREF(done);
    return done == NULL ? -1 : 0;
}

/* ---- waiters ---- */

/* except: hub.handle_error(greenlet.method, *sys.exc_info()) */
static int
report(cbase_state *st, PyObject *hub, PyObject *greenlet, PyObject *method)
{
    cbase_except block;

    cbase_except_enter(&block);
    PyObject *context = PyObject_GetAttr(greenlet, method);
    PyObject *handler = context == NULL ? NULL : PyObject_GetAttr(hub, st->s_handle_error);
    if (handler != NULL) {
        (void)cbase_except_report(handler, context, block.raised);
    }
    Py_XDECREF(handler);
    Py_XDECREF(context);
    return cbase_except_leave(&block);
}

/* greenlet.method(*args), where all are owned by the caller. */
static PyObject *
call(cbase_state *st, PyObject *greenlet, PyObject *method, PyObject *args)
{
    if (method == st->s_switch && switches_plainly(st, greenlet)) {
        return st->io_wait->switch_greenlet(greenlet, args, NULL);
    }
    PyObject *bound = PyObject_GetAttr(greenlet, method);
    PyObject *result = bound == NULL ? NULL : PyObject_Call(bound, args, NULL);
    Py_XDECREF(bound);
    return result;
}

/* Calls this method of the greenlet that waits, if one does, for who is in the hub. */
static PyObject *
resume(cbase_state *st, waiter *self, PyObject *method, PyObject *args)
{
    PyObject *greenlet = self->greenlet, *current;

    if (greenlet == NULL) {
        return Py_NewRef(Py_None);
    }
    current = st->io_wait->getcurrent();
    Py_XDECREF(current);
    if (current != self->hub) {
        PyErr_SetString(PyExc_AssertionError,
                        "Can only use Waiter.switch method from the Hub greenlet");
        return NULL;
    }
    PyObject *hub = Py_NewRef(self->hub);
    Py_INCREF(greenlet);
    Py_INCREF(args); // while it is switched
    PyObject *result = call(st, greenlet, method, args);
    int failed = result == NULL && report(st, hub, greenlet, method) < 0;
    Py_XDECREF(result);
    Py_DECREF(args);
    Py_DECREF(greenlet);
    Py_DECREF(hub);
    return failed ? NULL : Py_NewRef(Py_None);
}

static PyObject *
waiter_switch(PyObject *self, PyObject *value)
{
    cbase_state *st = cbase_module_state(PyType_GetModule(Py_TYPE(self)));
    PyObject *args = PyTuple_Pack(1, value);
    PyObject *done = args == NULL ? NULL : resume(st, (waiter *)self, st->s_switch, args);

    Py_XDECREF(args);
    return done;
}

static PyObject *
waiter_throw(PyObject *self, PyObject *args)
{
    cbase_state *st = cbase_module_state(PyType_GetModule(Py_TYPE(self)));

    return resume(st, (waiter *)self, st->s_throw, args);
}

/* As that of gevent, so that errors read the same. */
static PyObject *
waiter_repr(PyObject *op)
{
    return PyUnicode_FromFormat("<gevent._gevent_c_waiter.Waiter object at %p>", op);
}

static void
waiter_dealloc(PyObject *op)
{
    PyTypeObject *type = Py_TYPE(op);

    Py_XDECREF(((waiter *)op)->hub);
    Py_XDECREF(((waiter *)op)->greenlet);
    type->tp_free(op);
    Py_DECREF(type);
}

static PyMethodDef waiter_methods[] = {
    {"switch", waiter_switch, METH_O, PyDoc_STR("Switch to the greenlet that waits.")},
    {"throw", waiter_throw, METH_VARARGS, PyDoc_STR("Raise an exception there.")},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot waiter_slots[] = {
    {Py_tp_doc, "What a greenlet waits with for a socket, as gevent's Waiter."},
    {Py_tp_repr, waiter_repr},
    {Py_tp_dealloc, waiter_dealloc},
    {Py_tp_methods, waiter_methods},
    {0, NULL},
};

static PyType_Spec waiter_spec = {
    .name = "gevent_cbase._cbase.Waiter",
    .basicsize = sizeof(waiter),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = waiter_slots,
};

/* A waiter and its bound method, both owned. */
static waiter *
take_waiter(struct cbase_io_wait_state *w, PyObject *hub, PyObject **method)
{
    waiter *new = w->unused;

    if (new != NULL) {
        *method = w->unused_switch;
        w->unused = NULL;
        w->unused_switch = NULL;
    }
    else {
        new = (waiter *)w->waiter_class->tp_alloc(w->waiter_class, 0);
        *method = new == NULL ? NULL : PyMethod_New(w->waiter_switch, (PyObject *)new);
        if (*method == NULL) {
            Py_XDECREF(new);
            return NULL;
        }
    }
    new->hub = Py_NewRef(hub);
    return new;
}

/* Kept for the next one, if nobody else has it. */
static void
leave_waiter(struct cbase_io_wait_state *w, waiter *used, PyObject *method)
{
    PyObject *hub = used->hub, *greenlet = used->greenlet;

    used->hub = used->greenlet = NULL;
    Py_XDECREF(greenlet);
    if (w->unused == NULL && Py_REFCNT(method) == 1 && Py_REFCNT(used) == 2) {
        w->unused = used;
        w->unused_switch = method;
    }
    else {
        used->hub = Py_NewRef(hub); // whoever calls it is told the truth
        Py_DECREF(method);
        Py_DECREF(used);
    }
    Py_DECREF(hub);
}

/* ---- waiting ---- */

/* hub.switch(), from a greenlet that was just found to be the current one. */
static PyObject *
switch_to_hub(cbase_state *st, PyObject *hub, PyObject *current)
{
    return leave_current(st, current) < 0 ? NULL : st->io_wait->switch_greenlet(hub, NULL, NULL);
}

/* waiter.get(), and what it has to return. */
static int
get(cbase_state *st, PyObject *hub, waiter *own, PyObject *watcher)
{
    PyObject *current = st->io_wait->getcurrent();

    if (current == NULL) {
        return -1;
    }
    own->greenlet = Py_NewRef(current);
    PyObject *result = switch_to_hub(st, hub, current);
    Py_CLEAR(own->greenlet);
    if (result != NULL && result != (PyObject *)own) {
        cbase_except_raise(st->io_wait->invalid_switch,
                           "Invalid switch into %S: got %R (expected %R; waiting on %R with %R)",
                           current, result, own, hub, watcher);
        Py_CLEAR(result);
    }
    Py_XDECREF(result);
    Py_DECREF(current);
    return result == NULL ? -1 : 0;
}

/* finally: watcher.stop() */
static int
stop(cbase_state *st, PyObject *watcher, int result)
{
    cbase_except block;

    if (result == 0) {
        PyObject *done = cbase_memo_call(&st->io_wait->stop, st->s_stop, &watcher, 1);
        Py_XDECREF(done);
        return done == NULL ? -1 : 0;
    }
    cbase_except_enter(&block);
    PyObject *done = cbase_memo_call(&st->io_wait->stop, st->s_stop, &watcher, 1);
    Py_XDECREF(done);
    cbase_except_reraise(&block);
    return -1;
}

/* hub.wait(watcher): 0 or -1 */
static int
wait_on_watcher(cbase_state *st, PyObject *hub, PyObject *watcher)
{
    struct cbase_io_wait_state *w = st->io_wait;
    PyObject *method;
    waiter *own = take_waiter(w, hub, &method);
    int result = -1;

    if (own == NULL) {
        return -1;
    }
    PyObject *args[3] = {watcher, method, (PyObject *)own};
    PyObject *done = cbase_memo_call(&w->start, st->s_start, args, 3);
    if (done != NULL) {
        Py_DECREF(done);
        result = stop(st, watcher, get(st, hub, own, watcher));
    }
    leave_waiter(w, own, method);
    return result;
}

/* Whether nobody waits for the watcher: 1, 0 or -1. */
static int
is_free(cbase_state *st, PyObject *watcher)
{
    PyObject *callback = cbase_memo_attr(&st->io_wait->callback, watcher, st->s_callback);

    Py_XDECREF(callback);
    return callback == NULL ? -1 : callback == Py_None;
}

/* Whether the hub waits and switches as gevent's does. */
static int
is_plain_hub(cbase_state *st, const cbase_socket_parts *s, PyObject *hub)
{
    return hub != NULL && Py_IS_TYPE(hub, s->hub_class)
           && cbase_memo_instance_lacks(&st->io_wait->hub_wait, hub, st->s_wait)
           && cbase_memo_instance_lacks(&st->io_wait->hub_switch, hub, st->s_switch);
}

static int
wait_in_python(const cbase_socket_parts *s, PyObject *sock, PyObject *watcher)
{
    PyObject *args[2] = {sock, watcher};
    PyObject *done = PyObject_Vectorcall(s->wait, args, 2, NULL);

    Py_XDECREF(done);
    return done == NULL ? -1 : 0;
}

/* Whether this greenlet handles the client behind the socket, and switches to this hub when it
 * waits: it is a child of the hub, which still has a loop. */
static int
is_handler(cbase_state *st, PyObject *hub, PyObject *sock)
{
    PyObject *current = st->io_wait->getcurrent();
    PyObject *parent = current != NULL && cbase_greenlet_serves(st, current, sock)
                           ? PyObject_GetAttr(current, st->s_parent)
                           : NULL;
    PyObject *loop = parent == hub ? cbase_hub_loop(st, hub) : NULL; // None: it was destroyed
    int found = loop != NULL && loop != Py_None;

    PyErr_Clear();
    Py_XDECREF(loop);
    Py_XDECREF(parent);
    Py_XDECREF(current);
    return found;
}

int
cbase_io_wait_in_handler(cbase_state *st)
{
    PyObject *current = st->io_wait->getcurrent();
    int found = current != NULL && cbase_greenlet_is_handler(st, current);

    PyErr_Clear();
    Py_XDECREF(current);
    return found;
}

int
cbase_io_wait_is_plain(cbase_state *st, const cbase_socket_parts *s, PyObject *sock,
                       Py_ssize_t event)
{
    PyObject *watcher = *slot(sock, event), *hub = *slot(sock, s->hub);

    if (watcher == NULL || watcher == Py_None || *slot(sock, s->timeout) != Py_None
        || !is_plain_hub(st, s, hub))
    {
        return 0;
    }
    Py_INCREF(hub);
    Py_INCREF(watcher);
    int plain = is_handler(st, hub, sock) ? is_free(st, watcher) : 0;
    Py_DECREF(watcher);
    Py_DECREF(hub);
    PyErr_Clear();
    return plain > 0;
}

int
cbase_io_wait(cbase_state *st, const cbase_socket_parts *s, PyObject *sock, Py_ssize_t event)
{
    PyObject *watcher = *slot(sock, event), *hub = *slot(sock, s->hub);
    int result, is_ours = watcher != NULL && watcher != Py_None
                          && *slot(sock, s->timeout) == Py_None && is_plain_hub(st, s, hub);

    watcher = Py_NewRef(watcher == NULL ? Py_None : watcher);
    cbase_io_turn_begin_wait();
    if (is_ours) {
        Py_INCREF(hub);
        is_ours = is_free(st, watcher);
        result = is_ours <= 0 ? is_ours : wait_on_watcher(st, hub, watcher);
        Py_DECREF(hub);
    }
    if (is_ours == 0) {
        result = wait_in_python(s, sock, watcher);
    }
    cbase_io_turn_end_wait();
    Py_DECREF(watcher);
    return result;
}

int
cbase_io_wait_init(PyObject *module, cbase_state *st)
{
    struct cbase_io_wait_state *w = st->io_wait = cbase_state_new(sizeof(*w));
    PyObject *capsule = w == NULL ? NULL : cbase_object_imported("greenlet", "_C_API");
    void **api = capsule == NULL ? NULL : PyCapsule_GetPointer(capsule, "greenlet._C_API");

    Py_XDECREF(capsule); // greenlet keeps it
    if (api == NULL) {
        return -1;
    }
    w->getcurrent = (get_current)api[API_GETCURRENT];
    w->switch_greenlet = (switch_to)api[API_SWITCH];
    w->waiter_class = (PyTypeObject *)PyType_FromModuleAndSpec(module, &waiter_spec, NULL);
    return w->waiter_class == NULL
                   || (w->waiter_switch = cbase_object_attr((PyObject *)w->waiter_class, "switch"))
                          == NULL
                   || (w->switch_method =
                           cbase_object_attr((PyObject *)api[API_GREENLET], "switch"))
                          == NULL
                   || (w->invalid_switch =
                           cbase_object_imported("gevent.exceptions", "InvalidSwitchError"))
                          == NULL
               ? -1
               : 0;
}

#else

int
cbase_io_wait_init(PyObject *module, cbase_state *st)
{
    (void)module, (void)st;
    return 0;
}

#endif
