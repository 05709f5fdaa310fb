/* Native accept: what do_read of gevent.server.StreamServer does, without a Python frame and
 * without a system call that is not needed.
 *
 * Each step is taken only where the Python code it stands for is known to be what would run:
 * gevent_cbase._native.sockets compares that code and hands its parts to stream_prepare(), again
 * when one of the classes has changed; what may change otherwise is looked at here each time. In
 * all other cases the step reports that it does not apply, and the Python code runs.
 *
 * CAUTION: writes the fields of CPython's socket object, and the slots of gevent's. Offsets of
 * the slots are read from their descriptors; the layout of the socket object is checked against
 * real sockets when the step is prepared. Watched by tests/native/steps/test_stream.py,
 * which compares the results slot by slot.
 *
 * Does not know the server.
 */
#include "native/socket.h"

#ifdef CBASE_HAVE_SOCKETS

#include <errno.h>
#include <string.h>
#include <structmember.h>
#include <unistd.h>

/* Whether a listener is a socket that the native step can accept from. */
static int
is_listener(const cbase_socket_parts *s, PyObject *listener)
{
    PyTypeObject *type = Py_TYPE(listener);

    if (type != s->raw && type != s->stdlib && type != s->base_class) {
        return 0;
    }
    const raw_socket *raw = (const raw_socket *)listener;
    return raw->timeout == 0 && cbase_socket_address_known(raw->family);
}

/* ---- accept ---- */

/* Raises what accept() raises. In Python, so that there is a traceback to report. */
static void
raise_errno(const cbase_socket_parts *s, int error)
{
    PyObject *number = PyLong_FromLong(error);
    PyObject *result = number == NULL ? NULL : PyObject_CallOneArg(s->failed, number);

    Py_XDECREF(number);
    Py_XDECREF(result);
}

/* accept4(2): a descriptor, or -1 and *error. */
static int
accept_without_gil(const raw_socket *listener, struct sockaddr_storage *address, socklen_t *length,
                   int *error)
{
    int from = listener->fd;

    *length = sizeof(*address);
    memset(address, 0, sizeof(*address));
    PyThreadState *thread = let_others_run();
    int fd = accept4(from, (struct sockaddr *)address, length, SOCK_NONBLOCK | SOCK_CLOEXEC);
    *error = errno;
    go_on(thread);
    return fd;
}

/* What accept_client() returns if it is no descriptor. */
enum { FAILED = -1, NOBODY = -2, NOT_OURS = -3 };

/* Accepts a client: a descriptor; FAILED with an exception set; NOBODY is there; or NOT_OURS: this
 * has to be done in Python. A listener that a signal handler has closed is a bad descriptor. */
static int
accept_client(cbase_state *st, const raw_socket *listener, struct sockaddr_storage *address,
              socklen_t *length)
{
    int fd, error;

    while ((fd = accept_without_gil(listener, address, length, &error)) < 0) {
        switch (error) {
        case EINTR:
            if (PyErr_CheckSignals() < 0) {
                return FAILED;
            }
            break;
        case EAGAIN:
#if EWOULDBLOCK != EAGAIN
        case EWOULDBLOCK:
#endif
        case EALREADY:
        case EINPROGRESS:
            return NOBODY; // BlockingIOError
        case ENOSYS:
            st->sockets->no_accept4 = 1; // CPython knows what to do instead
            return NOT_OURS;
        default:
            raise_errno(st->sockets->parts, error);
            return FAILED;
        }
    }
    return fd;
}

/* _wrefsocket(family, type, proto, fd), made non-blocking. Owns the descriptor from the moment
 * that it succeeds. */
static PyObject *
new_raw_socket(cbase_state *st, PyTypeObject *type, const raw_socket *listener, int fd)
{
    raw_socket *raw = (raw_socket *)cbase_socket_raw_new(st, type);

    if (raw == NULL) {
        return NULL;
    }
    if (PySys_Audit("socket.__new__", "Oiii", (PyObject *)raw, listener->family, listener->type,
                    listener->proto)
        < 0)
    {
        Py_DECREF(raw);
        return NULL;
    }
    raw->family = listener->family;
    raw->type = listener->type;
    raw->proto = listener->proto;
    raw->timeout = 0;
    raw->fd = fd;
    return (PyObject *)raw;
}

/* gevent.socket.socket(family, type, proto, fileno=fd) for `raw`, which is stolen. */
static PyObject *
new_socket(cbase_state *st, const cbase_socket_parts *s, PyObject *raw)
{
    PyObject *hub = NULL, *loop = NULL, *timeout = NULL, *events[2] = {NULL, NULL}, *sock = NULL;

    hub = cbase_hub_get(st, s->get_hub);
    if (hub == NULL || (loop = cbase_hub_loop(st, hub)) == NULL
        || cbase_io_watchers_make(st, loop, ((raw_socket *)raw)->fd, events) < 0
        || (timeout = cbase_call_no_args(s->getdefaulttimeout)) == NULL)
    {
        goto done;
    }
    sock = s->socket->tp_alloc(s->socket, 0);
    if (sock == NULL) {
        goto done;
    }
    set_slot(sock, s->hub, Py_NewRef(hub));
    set_slot(sock, s->timeout, Py_NewRef(timeout));
    set_slot(sock, s->read_event, Py_NewRef(events[0]));
    set_slot(sock, s->write_event, Py_NewRef(events[1]));
    set_slot(sock, s->sock, Py_NewRef(raw));
    set_slot(sock, s->io_refs, Py_NewRef(st->zero));
    set_slot(sock, s->closed, Py_NewRef(Py_False));
done:
    Py_XDECREF(timeout);
    Py_XDECREF(events[1]);
    Py_XDECREF(events[0]);
    Py_XDECREF(loop);
    Py_XDECREF(hub);
    Py_DECREF(raw);
    return sock;
}

/* The pair (socket, address) for an accepted descriptor, which is owned from here on. */
static PyObject *
new_connection(cbase_state *st, const raw_socket *listener, int fd,
               const struct sockaddr_storage *address, socklen_t length)
{
    const cbase_socket_parts *s = st->sockets->parts;
    PyObject *pair = NULL, *sock = NULL;
    PyObject *peer = cbase_socket_address(address, length);
    PyObject *raw = peer == NULL ? NULL : new_raw_socket(st, s->raw, listener, fd);

    if (raw == NULL) {
        close(fd);
        Py_XDECREF(peer);
        return NULL;
    }
    sock = new_socket(st, s, raw);
    if (sock != NULL) {
        pair = cbase_object_pair(sock, peer);
    }
    Py_XDECREF(sock);
    Py_DECREF(peer);
    return pair;
}

cbase_outcome
cbase_socket_accept(cbase_state *st, PyObject *listener, PyObject **result)
{
    struct cbase_sockets *s = st->sockets;
    struct sockaddr_storage address;
    socklen_t length;

    *result = NULL;
    if (see_to_signals(s) < 0) {
        return CBASE_FAILED;
    }
    int known = cbase_premises_hold(st, &s->accept, &s->comparison);
    if (known <= 0) {
        return known < 0 ? CBASE_FAILED : CBASE_NOT_OURS;
    }
    if (s->no_accept4 || !is_listener(s->parts, listener)) {
        return CBASE_NOT_OURS;
    }
    int fd = accept_client(st, (raw_socket *)listener, &address, &length);
    if (fd >= 0) {
        s->unchecked++;
        *result = new_connection(st, (raw_socket *)listener, fd, &address, length);
    }
    else if (fd == NOBODY) {
        *result = Py_NewRef(Py_None);
    }
    else if (fd == NOT_OURS) {
        return CBASE_NOT_OURS;
    }
    return *result == NULL ? CBASE_FAILED : CBASE_DONE;
}

/* ---- for servers ---- */

int
cbase_socket_accept_is_do_read(const cbase_state *st, PyObject *function)
{
    return function != NULL && st->sockets->parts != NULL
           && function == st->sockets->parts->do_read;
}

int
cbase_socket_accept_known(cbase_state *st)
{
    struct cbase_sockets *s = st->sockets;
    int known = cbase_premises_hold(st, &s->accept, &s->comparison);

    return known > 0 ? cbase_premises_hold(st, &s->close, &s->comparison) : known;
}

int
cbase_socket_accept_is_listener(const cbase_state *st, PyObject *listener)
{
    return st->sockets->parts != NULL && !st->sockets->no_accept4
           && is_listener(st->sockets->parts, listener);
}

void
cbase_socket_accept_drop_kept(void)
{
    cbase_io_watchers_drop();
    cbase_socket_raw_drop();
}

/* ---- comparison ---- */

/* Whether a real socket has the layout that raw_socket assumes. */
static PyObject *
has_known_layout(PyObject *module, PyObject *args)
{
    PyObject *sock;
    int fd, family, type, proto;
    long long timeout;

    (void)module;
    if (!PyArg_ParseTuple(args, "OiiiiL:_has_known_layout", &sock, &fd, &family, &type, &proto,
                          &timeout))
    {
        return NULL;
    }
    if (Py_TYPE(sock)->tp_basicsize < (Py_ssize_t)sizeof(raw_socket)) {
        Py_RETURN_FALSE;
    }
    const raw_socket *raw = (const raw_socket *)sock;
    return PyBool_FromLong(raw->fd == fd && raw->family == family && raw->type == type
                           && raw->proto == proto && raw->timeout == timeout);
}

/* Where instances of a class keep the slot `name`: an offset, or -1 with an exception. */
static Py_ssize_t
slot_offset(PyTypeObject *type, const char *name)
{
    PyObject *descr = cbase_object_attr((PyObject *)type, name);
    Py_ssize_t offset = -1;

    if (descr == NULL) {
        return -1;
    }
    if (Py_IS_TYPE(descr, &PyMemberDescr_Type)) {
        offset = ((PyMemberDescrObject *)descr)->d_member->offset;
    }
    else {
        PyErr_Format(PyExc_TypeError, "%s.%s is no slot", type->tp_name, name);
    }
    Py_DECREF(descr);
    return offset;
}

static int
find_slots(cbase_socket_parts *s)
{
    static const char *const closed_names[] = {"family", "type", "proto", "orig_fileno",
                                               "description"};
    struct {
        const char *name;
        Py_ssize_t *offset;
    } slots[] = {{"hub", &s->hub},
                 {"timeout", &s->timeout},
                 {"_read_event", &s->read_event},
                 {"_write_event", &s->write_event},
                 {"_sock", &s->sock},
                 {"_io_refs", &s->io_refs},
                 {"_closed", &s->closed}};

    for (size_t i = 0; i < Py_ARRAY_LENGTH(slots); i++) {
        if ((*slots[i].offset = slot_offset(s->socket, slots[i].name)) < 0) {
            return -1;
        }
    }
    for (size_t i = 0; i < Py_ARRAY_LENGTH(closed_names); i++) {
        if ((s->closed_slots[i] = slot_offset(s->closed_socket, closed_names[i])) < 0) {
            return -1;
        }
    }
    return 0;
}

/* Hands over the parts of gevent that the steps stand for. */
static PyObject *
stream_prepare(PyObject *module, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"accept",      "close",    "classes", "loop_class",        "io_class",
                            "do_read",     "do_close", "get_hub", "getdefaulttimeout", "cancelled",
                            "close_later", "failed",   "wait",    "hub_calls_any",     NULL};
    struct cbase_sockets *steps = cbase_module_state(module)->sockets;
    cbase_socket_parts given = {0};
    PyObject *accept, *close;

    if (!PyArg_ParseTupleAndKeywords(
            args, kwargs, "$OO(O!O!O!O!O!)O!O!OOOOOOOOp:_stream_prepare", names, &accept, &close,
            &PyType_Type, &given.socket, &PyType_Type, &given.raw, &PyType_Type,
            &given.closed_socket, &PyType_Type, &given.stdlib, &PyType_Type, &given.hub_class,
            &PyType_Type, &given.loop_class, &PyType_Type, &given.io_class, &given.do_read,
            &given.do_close, &given.get_hub, &given.getdefaulttimeout, &given.cancelled,
            &given.close_later, &given.failed, &given.wait, &given.hub_calls_any)
        || find_slots(&given) < 0)
    {
        return NULL;
    }
    given.base_class = given.raw->tp_base;
    given.close_descriptor = cbase_object_attr(module, "_close_descriptor");
    if (given.close_descriptor == NULL) {
        return NULL;
    }
    Py_DECREF(given.close_descriptor); // the module keeps it
    PyObject *const objects[] = {(PyObject *)given.socket,
                                 (PyObject *)given.raw,
                                 (PyObject *)given.closed_socket,
                                 (PyObject *)given.stdlib,
                                 (PyObject *)given.hub_class,
                                 (PyObject *)given.base_class,
                                 (PyObject *)given.loop_class,
                                 (PyObject *)given.io_class,
                                 given.do_read,
                                 given.do_close,
                                 given.get_hub,
                                 given.getdefaulttimeout,
                                 given.cancelled,
                                 given.close_later,
                                 given.failed,
                                 given.close_descriptor,
                                 given.wait};
    const cbase_socket_parts *parts = cbase_premises_keep_parts(
        steps->parts, &given, sizeof(given), objects, Py_ARRAY_LENGTH(objects));
    if (parts == NULL || cbase_premises_set(&steps->accept, accept) < 0
        || cbase_premises_set(&steps->close, close) < 0)
    {
        return NULL;
    }
    steps->parts = parts;
    Py_RETURN_NONE;
}

int
cbase_socket_accept_init(cbase_state *st)
{
    st->sockets = cbase_state_new(sizeof(*st->sockets));
    if (st->sockets == NULL) {
        return -1;
    }
    cbase_premises_register(st, &st->sockets->comparison, "gevent.server",
                            "gevent_cbase._native.sockets");
    return 0;
}

int
cbase_socket_accept_find(cbase_state *st)
{
    return cbase_premises_compare_once(st, &st->sockets->comparison);
}

static PyObject *
stream_compare(PyObject *module, PyObject *unused)
{
    cbase_state *st = cbase_module_state(module);

    (void)unused;
    return cbase_premises_compare(st, &st->sockets->comparison) < 0 ? NULL : Py_NewRef(Py_None);
}

static PyObject *
has_no_accept4(PyObject *module, PyObject *unused)
{
    (void)unused;
    return PyBool_FromLong(cbase_module_state(module)->sockets->no_accept4);
}

static PyObject *
drop_kept(PyObject *module, PyObject *unused)
{
    (void)module, (void)unused;
    cbase_socket_accept_drop_kept();
    return Py_NewRef(Py_None);
}

/* Only for watchers of libev's loop in C. */
static PyObject *
learn_watchers(PyObject *module, PyObject *watcher)
{
    return cbase_io_watchers_learn(cbase_module_state(module), watcher) < 0 ? NULL
                                                                            : Py_NewRef(Py_None);
}

PyMethodDef cbase_socket_accept_functions[] = {
    {"_learn_watchers", learn_watchers, METH_O,
     PyDoc_STR("_learn_watchers($module, watcher, /)\n--\n\n"
               "Find out what start() and stop() leave behind in a new io watcher.")},
    {"_drop_kept", drop_kept, METH_NOARGS,
     PyDoc_STR("_drop_kept($module, /)\n--\n\n"
               "Let go of what is kept of closed sockets for the next connections.")},
    {"_has_known_layout", has_known_layout, METH_VARARGS,
     PyDoc_STR("_has_known_layout($module, sock, fd, family, type, proto, timeout, /)\n--\n\n"
               "Whether a socket object of CPython keeps these values where they are expected.")},
    {"_has_no_accept4", has_no_accept4, METH_NOARGS,
     PyDoc_STR("_has_no_accept4($module, /)\n--\n\n"
               "Whether the kernel was seen to have no accept4(), or to forbid it.")},
    {"_stream_compare", stream_compare, METH_NOARGS,
     PyDoc_STR("_stream_compare($module, /)\n--\n\n"
               "Have prepare() of gevent_cbase._native.sockets called; later, if it fails.")},
    {"_stream_prepare", (PyCFunction)(void (*)(void))stream_prepare, METH_VARARGS | METH_KEYWORDS,
     PyDoc_STR("_stream_prepare($module, /, **parts)\n--\n\n"
               "Switch the native steps of stream servers on; for gevent_cbase._native.sockets.")},
    {NULL, NULL, 0, NULL},
};

#else

int
cbase_socket_accept_init(cbase_state *st)
{
    (void)st;
    return 0;
}

int
cbase_socket_accept_find(cbase_state *st)
{
    (void)st;
    return 0;
}

cbase_outcome
cbase_socket_accept(cbase_state *st, PyObject *listener, PyObject **result)
{
    (void)st, (void)listener, (void)result;
    return CBASE_NOT_OURS;
}

int
cbase_socket_accept_known(cbase_state *st)
{
    (void)st;
    return 0;
}

int
cbase_socket_accept_is_listener(const cbase_state *st, PyObject *listener)
{
    (void)st, (void)listener;
    return 0;
}

int
cbase_socket_accept_is_do_read(const cbase_state *st, PyObject *function)
{
    (void)st, (void)function;
    return 0;
}

void
cbase_socket_accept_drop_kept(void)
{
}

PyMethodDef cbase_socket_accept_functions[] = {{NULL, NULL, 0, NULL}};

#endif
