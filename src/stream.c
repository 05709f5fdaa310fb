/* Native steps for stream servers: what gevent.server.StreamServer's do_read does, and, in
 * close.c, its do_close for a socket of gevent, without a Python frame and without a system call
 * that is not needed.
 *
 * Each step is taken only where the Python code it stands for is known to be what would run:
 * gevent_cbase._stream compares that code and hands its parts to stream_prepare(), again when one
 * of the classes has changed; what may change otherwise is looked at here each time. In all other
 * cases the step reports that it does not apply, and the Python code runs.
 *
 * CAUTION: writes the fields of CPython's socket object, and the slots of gevent's. Offsets of
 * the slots are read from their descriptors; the layout of the socket object is checked against
 * real sockets when the step is prepared. tests/test_stream.py compares the results slot by slot.
 */
#include "cbase.h"

#ifdef CBASE_HAVE_STREAM

#include <errno.h>
#include <string.h>
#include <structmember.h>
#include <unistd.h>

#include "sockets.h"

/* Whether a listener is a socket that the native step can accept from. */
static int
is_listener(const cbase_stream *s, PyObject *listener)
{
    PyTypeObject *type = Py_TYPE(listener);

    if (type != s->accept.class[CBASE_RAW_SOCKET] && type != s->accept.class[CBASE_STDLIB_SOCKET]
        && type != s->base_class)
    {
        return 0;
    }
    const raw_socket *raw = (const raw_socket *)listener;
    return raw->timeout == 0 && cbase_sockaddr_known(raw->family);
}

/* ---- accept ---- */

/* Raises what accept() raises. In Python, so that there is a traceback to report. */
static void
raise_errno(const cbase_stream *s, int error)
{
    PyObject *number = PyLong_FromLong(error);
    PyObject *result = number == NULL ? NULL : PyObject_CallOneArg(s->failed, number);

    Py_XDECREF(number);
    Py_XDECREF(result);
}

/* accept4(2): a descriptor, -1 with an exception set, or -2 if there is nobody to accept. */
static int
accept_client(const cbase_stream *s, int listener, struct sockaddr_storage *address,
              socklen_t *length)
{
    int fd, error;

    for (;;) {
        *length = sizeof(*address);
        memset(address, 0, sizeof(*address));
        PyThreadState *thread = let_others_run();
        fd = accept4(listener, (struct sockaddr *)address, length, SOCK_NONBLOCK | SOCK_CLOEXEC);
        error = errno;
        go_on(thread);
        if (fd >= 0) {
            return fd;
        }
        if (error == EAGAIN || error == EWOULDBLOCK || error == EALREADY || error == EINPROGRESS) {
            return -2; // BlockingIOError
        }
        if (error != EINTR) {
            raise_errno(s, error);
            return -1;
        }
        if (PyErr_CheckSignals() < 0) {
            return -1;
        }
    }
}

/* _wrefsocket(family, type, proto, fd), made non-blocking. Owns the descriptor from the moment
 * that it succeeds. */
static PyObject *
new_raw_socket(cbase_state *st, const raw_socket *listener, int fd)
{
    PyTypeObject *type = st->stream.accept.class[CBASE_RAW_SOCKET];
    raw_socket *raw = (raw_socket *)type->tp_new(type, st->no_args, NULL);

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
new_socket(cbase_state *st, PyObject *raw)
{
    const cbase_stream *s = &st->stream;
    PyTypeObject *type = s->accept.class[CBASE_SOCKET];
    PyObject *hub = NULL, *loop = NULL, *timeout = NULL, *events[2] = {NULL, NULL}, *sock = NULL;

    hub = cbase_hub_get(st, s->get_hub);
    if (hub == NULL || (loop = cbase_hub_loop(st, hub)) == NULL
        || cbase_watchers_make(st, loop, ((raw_socket *)raw)->fd, events) < 0
        || (timeout = cbase_call_no_args(s->getdefaulttimeout)) == NULL)
    {
        goto done;
    }
    sock = type->tp_alloc(type, 0);
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
    PyObject *pair = NULL, *sock = NULL;
    PyObject *peer = cbase_sockaddr(address, length);
    PyObject *raw = peer == NULL ? NULL : new_raw_socket(st, listener, fd);

    if (raw == NULL) {
        close(fd);
        Py_XDECREF(peer);
        return NULL;
    }
    sock = new_socket(st, raw);
    if (sock != NULL) {
        pair = PyTuple_Pack(2, sock, peer);
    }
    Py_XDECREF(sock);
    Py_DECREF(peer);
    return pair;
}

int
cbase_stream_read(cbase_state *st, PyObject *listener, PyObject **result)
{
    cbase_stream *s = &st->stream;
    struct sockaddr_storage address;
    socklen_t length;

    *result = NULL;
    Py_INCREF(listener);
    int known = cbase_premises_hold(&s->accept, CBASE_STREAM_MODULE);
    if (known > 0) {
        known = is_listener(s, listener);
    }
    if (known > 0) {
        int fd = accept_client(s, ((raw_socket *)listener)->fd, &address, &length);
        if (fd >= 0) {
            *result = new_connection(st, (raw_socket *)listener, fd, &address, length);
        }
        else if (fd == -2) {
            *result = Py_NewRef(Py_None);
        }
    }
    Py_DECREF(listener);
    return known != 0;
}

/* ---- for stats.c ---- */

int
cbase_stream_known(cbase_state *st)
{
    int known = cbase_premises_hold(&st->stream.accept, CBASE_STREAM_MODULE);

    return known > 0 ? cbase_premises_hold(&st->stream.close, CBASE_STREAM_MODULE) : known;
}

int
cbase_stream_is_listener(const cbase_state *st, PyObject *listener)
{
    return is_listener(&st->stream, listener);
}

/* ---- preparation ---- */

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
    PyObject *descr = cbase_attr((PyObject *)type, name);
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
find_slots(cbase_stream *s)
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
        if ((*slots[i].offset = slot_offset(s->accept.class[CBASE_SOCKET], slots[i].name)) < 0) {
            return -1;
        }
    }
    for (size_t i = 0; i < Py_ARRAY_LENGTH(closed_names); i++) {
        if ((s->closed_slots[i] =
                 slot_offset(s->accept.class[CBASE_CLOSED_SOCKET], closed_names[i]))
            < 0) {
            return -1;
        }
    }
    return 0;
}

/* Hands over the parts of gevent that the steps stand for; all is kept for good. */
static PyObject *
stream_prepare(PyObject *module, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"accept",    "close",       "loop_class", "io_class",
                            "do_read",   "do_close",    "get_hub",    "getdefaulttimeout",
                            "cancelled", "close_later", "failed",     NULL};
    cbase_stream *s = &cbase_module_state(module)->stream;
    cbase_stream given = *s;
    PyObject *accept, *close;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "$OOO!O!OOOOOOO:_stream_prepare", names,
                                     &accept, &close, &PyType_Type, &given.loop_class,
                                     &PyType_Type, &given.io_class, &given.do_read,
                                     &given.do_close, &given.get_hub, &given.getdefaulttimeout,
                                     &given.cancelled, &given.close_later, &given.failed)
        || cbase_premises_set(&given.accept, accept) < 0
        || cbase_premises_set(&given.close, close) < 0 || find_slots(&given) < 0
        || (given.close_descriptor == NULL
            && (given.close_descriptor = cbase_attr(module, "_close_descriptor")) == NULL))
    {
        return NULL;
    }
    given.base_class = given.accept.class[CBASE_RAW_SOCKET]->tp_base;
    PyObject *const owned[] = {(PyObject *)given.loop_class,
                               (PyObject *)given.io_class,
                               given.do_read,
                               given.do_close,
                               given.get_hub,
                               given.getdefaulttimeout,
                               given.cancelled,
                               given.close_later,
                               given.failed};
    cbase_own(owned, Py_ARRAY_LENGTH(owned));
    *s = given;
    Py_RETURN_NONE;
}

int
cbase_stream_find(cbase_state *st)
{
    return cbase_premises_find(&st->stream.looked_for, "gevent.server", CBASE_STREAM_MODULE);
}

static PyObject *
drop_watchers(PyObject *module, PyObject *unused)
{
    (void)module, (void)unused;
    cbase_watchers_drop();
    return Py_NewRef(Py_None);
}

PyMethodDef cbase_stream_functions[] = {
    {"_drop_watchers", drop_watchers, METH_NOARGS,
     PyDoc_STR("_drop_watchers($module, /)\n--\n\n"
               "Let go of the io watchers that are kept for the next connections.")},
    {"_has_known_layout", has_known_layout, METH_VARARGS,
     PyDoc_STR("_has_known_layout($module, sock, fd, family, type, proto, timeout, /)\n--\n\n"
               "Whether a socket object of CPython keeps these values where they are expected.")},
    {"_stream_prepare", (PyCFunction)(void (*)(void))stream_prepare, METH_VARARGS | METH_KEYWORDS,
     PyDoc_STR("_stream_prepare($module, /, **parts)\n--\n\n"
               "Switch the native steps of stream servers on; for gevent_cbase._stream.")},
    {NULL, NULL, 0, NULL},
};

#endif
