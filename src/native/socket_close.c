/* Native close of gevent's sockets: for StreamServer.do_close, and for handlers, which call
 * socket.close() themselves more often than not.
 *
 * For the latter, see function_calls.c. What is not exactly a socket as gevent has made it goes on
 * to the function's code. As in socket_accept.c, the step is only taken where gevent's code is
 * known to be what would run.
 *
 * CAUTION: writes the same fields and slots as socket_accept.c. Watched by
 * tests/native/steps/test_closing.py.
 *
 * Does not know who closes.
 */
#include "native/socket.h"

#ifdef CBASE_HAVE_SOCKETS

#include <errno.h>
#include <unistd.h>

/* ---- the parts of a socket ---- */

/* _closedsocket(family, type, proto, fileno, 'closed'). `by_server`: after the handler, so that
 * hardly anybody looks at it any more. */
static PyObject *
new_closed_socket(cbase_state *st, const cbase_socket_parts *s, const raw_socket *raw,
                  int by_server)
{
    PyObject *closed = by_server ? cbase_socket_raw_new_closed(s)
                                 : s->closed_socket->tp_alloc(s->closed_socket, 0);
    int values[4] = {raw->family, raw->type, raw->proto, raw->fd};

    for (int i = 0; closed != NULL && i < 4; i++) {
        PyObject *value = PyLong_FromLong(values[i]);
        if (value == NULL) {
            Py_CLEAR(closed);
        }
        else {
            set_slot(closed, s->closed_slots[i], value);
        }
    }
    if (closed != NULL) {
        set_slot(closed, s->closed_slots[4], Py_NewRef(st->s_closed));
    }
    return closed;
}

/* raw.close() */
static int
close_fd(raw_socket *raw)
{
    int fd = raw->fd, failed;

    if (fd < 0) {
        return 0;
    }
    raw->fd = -1;
    PyThreadState *thread = let_others_run();
    failed = close(fd) < 0 && errno != ECONNRESET;
    go_on(thread);
    if (failed) {
        PyErr_SetFromErrno(PyExc_OSError);
        return -1;
    }
    return 0;
}

/* Closes the descriptor, at once unless the loop still needs it: _drop_ref_on_close(). */
static int
close_raw(cbase_state *st, const cbase_socket_parts *s, PyObject *hub, PyObject *raw)
{
    PyObject *loop = cbase_hub_loop(st, hub);
    PyObject *fd = loop == NULL ? NULL : PyLong_FromLong(((raw_socket *)raw)->fd);
    PyObject *asked[2] = {loop, fd};
    PyObject *defer =
        fd == NULL ? NULL : cbase_memo_call(&st->sockets->closing_fd, st->s_closing_fd, asked, 2);
    int result = defer == NULL ? -1 : PyObject_IsTrue(defer);

    if (result > 0) {
        PyObject *call[2] = {loop, raw};
        PyObject *later = PyObject_Vectorcall(s->close_later, call, 2, NULL);
        result = later == NULL ? -1 : 0;
        Py_XDECREF(later);
    }
    else if (result == 0) {
        result = close_fd((raw_socket *)raw);
    }
    Py_XDECREF(defer);
    Py_XDECREF(fd);
    Py_XDECREF(loop);
    return result;
}

static PyObject *
close_descriptor(PyObject *module, PyObject *const *args, Py_ssize_t nargs)
{
    cbase_state *st = cbase_module_state(module);
    const cbase_socket_parts *s = st->sockets->parts;

    if (nargs != 2 || s == NULL || !Py_IS_TYPE(args[1], s->raw)) {
        PyErr_SetString(PyExc_TypeError, "_close_descriptor() takes two sockets");
        return NULL;
    }
    PyObject *raw = Py_NewRef(args[1]);
    PyObject *hub = PyObject_GetAttr(args[0], st->s_hub);
    int result = hub == NULL ? -1 : close_raw(st, s, hub, raw);
    Py_XDECREF(hub);
    Py_DECREF(raw);
    return result < 0 ? NULL : Py_NewRef(Py_None);
}

/* Whether cancel_waits_close_and_then() of a hub is gevent's. */
static int
is_hub_known(cbase_state *st, const cbase_socket_parts *s, PyObject *hub)
{
    return s->hub_calls_any && Py_IS_TYPE(hub, s->hub_class)
           && cbase_memo_instance_lacks(&st->sockets->overridden, hub,
                                        st->s_cancel_waits_close_and_then);
}

/* hub.cancel_waits_close_and_then(events, cancelled, sock._drop_ref_on_close, raw). What is called
 * in the end closes the descriptor, and keeps the socket alive until then. `known`: see
 * is_hub_known(). */
static int
close_watched(cbase_state *st, const cbase_socket_parts *s, PyObject *hub, int known,
              PyObject *sock, PyObject *raw, PyObject *const *events)
{
    PyObject *pair = cbase_object_pair(events[0], events[1]);
    PyObject *name = st->s_cancel_waits_close_and_then, *then = NULL, *done = NULL;

    if (pair != NULL && known) {
        PyObject *args[6] = {hub, pair, s->cancelled, s->close_descriptor, sock, raw};
        done = PyObject_VectorcallMethod(name, args, 6, NULL);
    }
    else if (pair != NULL && (then = PyObject_GetAttr(sock, st->s__drop_ref_on_close)) != NULL) {
        PyObject *args[5] = {hub, pair, s->cancelled, then, raw};
        done = PyObject_VectorcallMethod(name, args, 5, NULL);
    }
    Py_XDECREF(then);
    Py_XDECREF(pair);
    Py_XDECREF(done);
    return done == NULL ? -1 : 0;
}

/* What is taken out of a socket that is being closed. All owned. */
typedef struct {
    PyObject *hub, *raw, *events[2], *flag;
} taken_out;

/* Marks an open socket as closed and takes out what there is to close: 1, or 0 if it is none as
 * gevent makes it. Runs no Python code. */
static int
take_out(const cbase_socket_parts *s, PyObject *sock, taken_out *out)
{
    PyObject **hub = slot(sock, s->hub), **raw = slot(sock, s->sock);
    PyObject **read_event = slot(sock, s->read_event), **write_event = slot(sock, s->write_event);
    PyObject **flag = slot(sock, s->closed);

    if (*raw == NULL || !Py_IS_TYPE(*raw, s->raw) || *hub == NULL || *read_event == NULL
        || *write_event == NULL)
    {
        return 0;
    }
    *out = (taken_out){Py_NewRef(*hub), Py_NewRef(*raw), {*read_event, *write_event}, *flag};
    *read_event = Py_NewRef(Py_None);
    *write_event = Py_NewRef(Py_None);
    *flag = Py_NewRef(Py_True);
    return 1;
}

/* socket._detach_socket('closed'): the waiters on its watchers are cancelled, the watchers closed,
 * and the descriptor. `closed` takes the place of the raw socket. */
static int
close_parts(cbase_state *st, const cbase_socket_parts *s, PyObject *sock, const taken_out *out,
            PyObject *closed)
{
    int known = is_hub_known(st, s, out->hub), result;

    /* If nobody waits for the watchers, the hub would only close them. Kept ones are stolen. */
    if (known && cbase_io_watchers_keep(st, ((raw_socket *)out->raw)->fd, out->events)) {
        result = close_raw(st, s, out->hub, out->raw);
    }
    else {
        result = close_watched(st, s, out->hub, known, sock, out->raw, out->events);
        Py_DECREF(out->events[0]);
        Py_DECREF(out->events[1]);
    }
    if (result == 0) {
        set_slot(sock, s->sock, Py_NewRef(closed));
    }
    Py_XDECREF(out->flag);
    cbase_socket_raw_release(s, out->raw);
    Py_DECREF(out->hub);
    return result;
}

/* ---- socket.close() ---- */

/* Whether files that were made from a socket are open, by its _io_refs: 1, 0, or -1 if that is
 * not known. */
static int
has_files(cbase_state *st, PyObject *io_refs)
{
    if (io_refs == st->zero) {
        return 0;
    }
    int overflow;
    return io_refs != NULL && PyLong_CheckExact(io_refs)
                   && PyLong_AsLongAndOverflow(io_refs, &overflow) > 0
               ? 1
               : -1;
}

/* Whether nothing but the flag has to be set: the socket was closed before, or has open files. */
static int
is_flag_enough(cbase_state *st, const cbase_socket_parts *s, PyObject *sock)
{
    int files = has_files(st, *slot(sock, s->io_refs));
    const PyObject *raw = *slot(sock, s->sock);

    return files > 0 || (files == 0 && raw != NULL && Py_IS_TYPE(raw, s->closed_socket));
}

/* sock.close() of an open socket: 1, 0 or -1. */
static int
close_open_socket(cbase_state *st, const cbase_socket_parts *s, PyObject *sock, int by_server)
{
    PyObject *raw = *slot(sock, s->sock);
    taken_out out;

    if (raw == NULL || !Py_IS_TYPE(raw, s->raw)) {
        return 0;
    }
    Py_INCREF(raw);
    PyObject *closed = // which may run anything
        new_closed_socket(st, s, (raw_socket *)raw, by_server);
    int same = *slot(sock, s->sock) == raw && has_files(st, *slot(sock, s->io_refs)) == 0;
    Py_DECREF(raw);
    if (closed == NULL) {
        return -1;
    }
    int done = same && take_out(s, sock, &out);
    if (done && close_parts(st, s, sock, &out, closed) < 0) {
        done = -1;
    }
    Py_DECREF(closed);
    return done;
}

/* sock.close(), which is owned by the caller: 1, 0 if it has to be called, or -1. */
static int
close_socket(cbase_state *st, PyObject *sock, int by_server)
{
    int known = cbase_premises_hold(st, &st->sockets->close, &st->sockets->comparison);
    const cbase_socket_parts *s = st->sockets->parts;

    if (known <= 0 || !Py_IS_TYPE(sock, s->socket)) {
        return known < 0 ? -1 : 0;
    }
    if (is_flag_enough(st, s, sock)) {
        set_slot(sock, s->closed, Py_NewRef(Py_True));
        return 1;
    }
    return has_files(st, *slot(sock, s->io_refs)) < 0 ? 0
                                                      : close_open_socket(st, s, sock, by_server);
}

int
cbase_socket_close_is_do_close(const cbase_state *st, PyObject *function)
{
    return function != NULL && st->sockets->parts != NULL
           && function == st->sockets->parts->do_close;
}

cbase_outcome
cbase_socket_close(cbase_state *st, PyObject *close, PyObject *args)
{
    if (!Py_IS_TYPE(close, &PyMethod_Type)
        || !cbase_socket_close_is_do_close(st, PyMethod_GET_FUNCTION(close))
        || !PyTuple_CheckExact(args) || PyTuple_GET_SIZE(args) < 1)
    {
        return 0;
    }
    return close_socket(st, PyTuple_GET_ITEM(args, 0), 1); // borrowed from args
}

cbase_outcome
cbase_socket_close_call(cbase_state *st, PyObject *const *args, size_t nargs, PyObject **result)
{
    int done = nargs == 1 ? close_socket(st, args[0], 0) : 0;

    if (done > 0) {
        *result = Py_NewRef(Py_None);
    }
    return done;
}

/* ---- for the modules in Python ---- */

PyMethodDef cbase_socket_close_functions[] = {
    {"_close_descriptor", (PyCFunction)(void (*)(void))close_descriptor, METH_FASTCALL,
     PyDoc_STR("_close_descriptor($module, sock, raw, /)\n--\n\n"
               "Close the raw socket of one that is being closed, at once or when the loop has\n"
               "done with its descriptor.")},
    {NULL, NULL, 0, NULL},
};

#else

cbase_outcome
cbase_socket_close(cbase_state *st, PyObject *close, PyObject *args)
{
    (void)st, (void)close, (void)args;
    return CBASE_NOT_OURS;
}

int
cbase_socket_close_is_do_close(const cbase_state *st, PyObject *function)
{
    (void)st, (void)function;
    return 0;
}

PyMethodDef cbase_socket_close_functions[] = {{NULL, NULL, 0, NULL}};

#endif
