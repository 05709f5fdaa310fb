/* Reading and writing of gevent's sockets, whoever calls: what is known of gevent's functions,
 * what their arguments are, and how they wait. The calls themselves are in socket_read.c,
 * socket_write.c and socket_datagram.c; see function_calls.c for how they come there.
 *
 * One system call, no Python frame, and no exception where there is nothing to read yet. Only for
 * exactly gevent's socket with its non-blocking socket inside, and for arguments of the usual
 * types; all else goes on to the function's code before anything was read or sent. As in
 * socket_accept.c, the steps are only taken where gevent's code is known to be what would run:
 * gevent_cbase._native.socket_io compares it.
 *
 * Whoever waits switches to other greenlets, which may do anything to the socket: all is read anew
 * afterwards.
 *
 * CAUTION: reads the same fields and slots as socket_accept.c. Watched by
 * tests/native/io/test_reading.py and its neighbours.
 *
 * Does not know how the loop waits: io_wait.c does.
 */
#include "native/socket_io.h"

#ifdef CBASE_HAVE_SOCKETS

static const char *const function_names[] = {
    [RECV] = "SocketMixin.recv",          [RECV_INTO] = "SocketMixin.recv_into",
    [RECVFROM] = "SocketMixin.recvfrom",  [RECVFROM_INTO] = "SocketMixin.recvfrom_into",
    [SEND] = "SocketMixin.send",          [SENDALL] = "SocketMixin.sendall",
    [SENDTO] = "SocketMixin.sendto",      [SERVER_SENDTO] = "DatagramServer.sendto",
    [DO_READ] = "DatagramServer.do_read",
};

cbase_outcome
cbase_socket_io_would_block(void)
{
    errno = EAGAIN;
    PyErr_SetFromErrno(PyExc_OSError);
    return CBASE_FAILED;
}

cbase_outcome
cbase_socket_io_wait(const stream *io, int timeout, Py_ssize_t event)
{
    cbase_outcome known;

    switch (timeout) {
    case UNKNOWN:
        return CBASE_NOT_OURS;
    case NO_WAIT:
        return cbase_socket_io_would_block();
    default:
        known = hold(io->st, &io->st->socket_io->all);
        if (known != CBASE_DONE) {
            return known;
        }
        return cbase_io_wait(io->st, io->s, io->sock, event) < 0 ? CBASE_FAILED : CBASE_DONE;
    }
}

/* ---- system calls ---- */

int
cbase_socket_io_judge(int error)
{
    switch (error) {
    case EINTR:
        return PyErr_CheckSignals() < 0 ? CBASE_FAILED : CBASE_DONE;
    case EAGAIN:
#if EWOULDBLOCK != EAGAIN
    case EWOULDBLOCK:
#endif
        return BLOCKED;
    default:
        errno = error;
        PyErr_SetFromErrno(PyExc_OSError);
        return CBASE_FAILED;
    }
}

/* ---- arguments ---- */

int
cbase_socket_io_has_buffer(PyObject *data, Py_buffer *view, int flags)
{
    if (PyBytes_CheckExact(data) && flags == PyBUF_SIMPLE) {
        view->obj = NULL; // nothing to release
        view->buf = PyBytes_AS_STRING(data);
        view->len = PyBytes_GET_SIZE(data);
        return 1;
    }
    if (!PyBytes_CheckExact(data) && !PyByteArray_CheckExact(data) && !PyMemoryView_Check(data)) {
        return 0;
    }
    if (PyObject_GetBuffer(data, view, flags) < 0) {
        PyErr_Clear(); // gevent's function meets it as well
        return 0;
    }
    if (!PyBuffer_IsContiguous(view, 'C')) {
        PyBuffer_Release(view);
        return 0;
    }
    return 1;
}

/* ---- turns ---- */

void
cbase_socket_io_begin(const cbase_state *st, PyObject *client)
{
    const cbase_socket_parts *s = st->sockets->parts;
    PyObject *raw = s != NULL && Py_IS_TYPE(client, s->socket) ? *slot(client, s->sock) : NULL;

    if (raw != NULL && Py_IS_TYPE(raw, s->raw)) {
        cbase_io_turn_forget(((const raw_socket *)raw)->fd);
    }
}

/* ---- for the modules in Python ---- */

static void
forget(struct cbase_socket_io_state *io)
{
    cbase_premises_forget(&io->all);
    for (size_t i = 0; i < CBASE_IO_FUNCTIONS; i++) {
        cbase_premises_forget(&io->at_once[i]);
    }
}

/* `at_once`: a dict of the premises of each function. 0, or -1 and none hold. */
static int
set_premises(struct cbase_socket_io_state *io, PyObject *all, PyObject *at_once)
{
    int result = cbase_premises_set(&io->all, all);

    for (size_t i = 0; result == 0 && i < CBASE_IO_FUNCTIONS; i++) {
        PyObject *given = PyMapping_GetItemString(at_once, function_names[i]);
        result = given == NULL ? -1 : cbase_premises_set(&io->at_once[i], given);
        Py_XDECREF(given); // what is needed of it is owned
    }
    if (result < 0) {
        forget(io);
    }
    return result;
}

/* Hands over what the steps stand for. */
static PyObject *
io_prepare(PyObject *module, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"premises",      "at_once",    "clock",
                            "timeout_error", "no_timeout", "send_chunk",
                            "do_read",       "semaphore",  NULL};
    struct cbase_socket_io_state *io = cbase_module_state(module)->socket_io;
    io_parts given;
    PyObject *premises, *at_once;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "$OOOOOOOO:_io_prepare", names, &premises,
                                     &at_once, &given.clock, &given.timeout_error,
                                     &given.no_timeout, &given.send_chunk, &given.do_read,
                                     &given.semaphore))
    {
        return NULL;
    }
    PyObject *const objects[] = {given.clock,      given.timeout_error, given.no_timeout,
                                 given.send_chunk, given.do_read,       given.semaphore};
    const io_parts *parts = cbase_premises_keep_parts(io->parts, &given, sizeof(given), objects,
                                                      Py_ARRAY_LENGTH(objects));
    if (parts == NULL || set_premises(io, premises, at_once) < 0) {
        return NULL;
    }
    io->parts = parts;
    Py_RETURN_NONE;
}

int
cbase_socket_io_init(cbase_state *st)
{
    st->socket_io = cbase_state_new(sizeof(*st->socket_io));
    if (st->socket_io == NULL) {
        return -1;
    }
    for (int i = 0; i < SERVERS; i++) {
        own_attrs *own = &st->socket_io->own[i];
        own->lock.kind = own->socket.kind = CBASE_DICT_SOME_NAMES;
    }
    return cbase_dict_stamp_add_name(st->s__writelock) < 0
                   || cbase_dict_stamp_add_name(st->s_socket) < 0
               ? -1
               : 0;
}

static PyObject *
io_forget(PyObject *module, PyObject *unused)
{
    (void)unused;
    forget(cbase_module_state(module)->socket_io);
    return Py_NewRef(Py_None);
}

/* In the child. One that a handler has forked reads what is there, as with gevent: if it waited,
 * it would serve the clients of its parent. */
static PyObject *
io_after_fork(PyObject *module, PyObject *unused)
{
    (void)unused;
    if (cbase_io_wait_in_handler(cbase_module_state(module))) {
        cbase_io_turn_limit(0);
    }
    return Py_NewRef(Py_None);
}

static PyObject *
io_limit(PyObject *module, PyObject *number)
{
    unsigned long most = PyLong_AsUnsignedLong(number);

    (void)module;
    if (most == (unsigned long)-1 && PyErr_Occurred()) {
        return NULL;
    }
    cbase_io_turn_limit(most > UINT_MAX ? UINT_MAX : (unsigned int)most);
    return Py_NewRef(Py_None);
}

PyMethodDef cbase_socket_io_functions[] = {
    {"_io_after_fork", io_after_fork, METH_NOARGS,
     PyDoc_STR("_io_after_fork($module, /)\n--\n\n"
               "In a child that a handler has forked: gevent's order of reads.")},
    {"_io_forget", io_forget, METH_NOARGS,
     PyDoc_STR("_io_forget($module, /)\n--\n\n"
               "Switch reading and writing in C off.")},
    {"_io_limit", io_limit, METH_O,
     PyDoc_STR("_io_limit($module, number, /)\n--\n\n"
               "Set how many reads in a row need not wait; 0: gevent's order.")},
    {"_io_prepare", (PyCFunction)(void (*)(void))io_prepare, METH_VARARGS | METH_KEYWORDS,
     PyDoc_STR("_io_prepare($module, /, **parts)\n--\n\n"
               "Switch reading and writing in C on; for gevent_cbase._native.socket_io.")},
    {NULL, NULL, 0, NULL},
};

#else

int
cbase_socket_io_init(cbase_state *st)
{
    (void)st;
    return 0;
}

void
cbase_socket_io_begin(const cbase_state *st, PyObject *client)
{
    (void)st, (void)client;
}

PyMethodDef cbase_socket_io_functions[] = {{NULL, NULL, 0, NULL}};

#endif
