/* Native close of gevent's sockets: for StreamServer.do_close, and for handlers, which call
 * socket.close() themselves more often than not.
 *
 * For the latter, install() has calls of that Python function run here, see
 * gevent_cbase/_closing.py. What is not exactly a socket as gevent has made it goes on to the
 * function's code. As in stream.c, the step is only taken where gevent's code is known to be what
 * would run.
 */
#include "cbase.h"

#ifdef CBASE_HAVE_STREAM

#include <errno.h>
#include <unistd.h>

#include "sockets.h"

/* ---- the parts of a socket ---- */

/* _closedsocket(family, type, proto, fileno, 'closed') */
static PyObject *
new_closed_socket(cbase_state *st, const raw_socket *raw)
{
    const cbase_stream *s = &st->stream;
    PyTypeObject *type = s->accept.class[CBASE_CLOSED_SOCKET];
    PyObject *closed = type->tp_alloc(type, 0);
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
close_raw(cbase_state *st, PyObject *hub, PyObject *raw)
{
    PyObject *loop = cbase_hub_loop(st, hub);
    PyObject *fd = loop == NULL ? NULL : PyLong_FromLong(((raw_socket *)raw)->fd);
    PyObject *asked[2] = {loop, fd};
    PyObject *defer =
        fd == NULL ? NULL
                   : cbase_call_method(st, &st->stream.closing_fd, st->s_closing_fd, asked, 2);
    int result = defer == NULL ? -1 : PyObject_IsTrue(defer);

    if (result > 0) {
        PyObject *call[2] = {loop, raw};
        PyObject *later = PyObject_Vectorcall(st->stream.close_later, call, 2, NULL);
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

    if (nargs != 2 || !Py_IS_TYPE(args[1], st->stream.accept.class[CBASE_RAW_SOCKET])) {
        PyErr_SetString(PyExc_TypeError, "_close_descriptor() takes two sockets");
        return NULL;
    }
    PyObject *raw = Py_NewRef(args[1]);
    PyObject *hub = PyObject_GetAttr(args[0], st->s_hub);
    int result = hub == NULL ? -1 : close_raw(st, hub, raw);
    Py_XDECREF(hub);
    Py_DECREF(raw);
    return result < 0 ? NULL : Py_NewRef(Py_None);
}

/* hub.cancel_waits_close_and_then(events, ...) with the descriptor closed in the end, until when
 * the socket is kept alive. */
static int
close_watched(cbase_state *st, PyObject *hub, PyObject *sock, PyObject *raw,
              PyObject *const *events)
{
    const cbase_stream *s = &st->stream;
    PyObject *pair = PyTuple_Pack(2, events[0], events[1]);

    if (pair == NULL) {
        return -1;
    }
    PyObject *args[6] = {hub, pair, s->cancelled, s->close_descriptor, sock, raw};
    PyObject *done = PyObject_VectorcallMethod(st->s_cancel_waits_close_and_then, args, 6, NULL);
    Py_DECREF(pair);
    Py_XDECREF(done);
    return done == NULL ? -1 : 0;
}

/* Whether nothing has to be done about the watchers, which are stolen then: nobody waits for them,
 * so that the hub would only close them, and they are kept for a server's next connection. */
static int
keep_watchers(cbase_state *st, PyObject *hub, int fd, PyObject *const *events)
{
    if (!Py_IS_TYPE(hub, st->stream.accept.class[CBASE_HUB])) {
        return 0;
    }
    return cbase_own_lacks(st, &st->stream.overridden, hub, st->s_cancel_waits_close_and_then)
           && cbase_watchers_keep(st, fd, events);
}

/* socket._detach_socket('closed'): the waiters on its watchers are cancelled, the watchers closed,
 * and the descriptor. `raw` is owned by the caller. */
static int
close_open_socket(cbase_state *st, PyObject *sock, PyObject *raw)
{
    const cbase_stream *s = &st->stream;
    int fd = ((raw_socket *)raw)->fd, result;
    PyObject *closed = new_closed_socket(st, (raw_socket *)raw);

    if (closed == NULL) {
        return -1;
    }
    PyObject *hub = Py_NewRef(*slot(sock, s->hub));
    PyObject *events[2] = {*slot(sock, s->read_event), *slot(sock, s->write_event)}; // owned now
    *slot(sock, s->read_event) = Py_NewRef(Py_None);
    *slot(sock, s->write_event) = Py_NewRef(Py_None);
    if (keep_watchers(st, hub, fd, events)) {
        result = close_raw(st, hub, raw);
    }
    else {
        result = close_watched(st, hub, sock, raw, events);
        Py_DECREF(events[0]);
        Py_DECREF(events[1]);
    }
    if (result == 0) {
        set_slot(sock, s->sock, Py_NewRef(closed));
    }
    Py_DECREF(hub);
    Py_DECREF(closed);
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

/* sock.close(), which is owned by the caller: 1, 0 if it has to be called, or -1. */
static int
close_socket(cbase_state *st, PyObject *sock)
{
    const cbase_stream *s = &st->stream;
    int known = cbase_premises_hold(&st->stream.close, CBASE_STREAM_MODULE);

    if (known <= 0 || !Py_IS_TYPE(sock, s->accept.class[CBASE_SOCKET])) {
        return known < 0 ? -1 : 0;
    }
    int files = has_files(st, *slot(sock, s->io_refs));
    PyObject *raw = *slot(sock, s->sock);
    if (files > 0
        || (files == 0 && raw != NULL && Py_IS_TYPE(raw, s->accept.class[CBASE_CLOSED_SOCKET])))
    {
        set_slot(sock, s->closed, Py_NewRef(Py_True)); // and that is all
        return 1;
    }
    if (files < 0 || raw == NULL || !Py_IS_TYPE(raw, s->accept.class[CBASE_RAW_SOCKET])
        || *slot(sock, s->hub) == NULL || *slot(sock, s->read_event) == NULL
        || *slot(sock, s->write_event) == NULL)
    {
        return 0;
    }
    Py_INCREF(raw);
    set_slot(sock, s->closed, Py_NewRef(Py_True));
    int result = close_open_socket(st, sock, raw);
    Py_DECREF(raw);
    return result < 0 ? -1 : 1;
}

int
cbase_stream_close(cbase_state *st, PyObject *close, PyObject *args)
{
    if (!Py_IS_TYPE(close, &PyMethod_Type) || PyMethod_GET_FUNCTION(close) != st->stream.do_close
        || !PyTuple_CheckExact(args) || PyTuple_GET_SIZE(args) < 1)
    {
        return 0;
    }
    return close_socket(st, PyTuple_GET_ITEM(args, 0)); // borrowed from args
}

/* ---- calls of socket.close() by anyone ---- */

static PyObject *in_charge; // the module that closes them, owned; or NULL

/* close_socket(), if that is wanted now. */
static int
close_if_in_charge(PyObject *sock)
{
    if (in_charge == NULL) {
        return 0;
    }
    PyObject *module = Py_NewRef(in_charge);
    Py_INCREF(sock);
    int done = close_socket(cbase_module_state(module), sock);
    Py_DECREF(sock);
    Py_DECREF(module);
    return done;
}

#ifdef COMPAT_VECTORCALL_IS_ASKED

static PyFunctionObject *taken;  // gevent's function, owned; or NULL
static vectorcallfunc as_before; // how calls of it run otherwise

static PyObject *
call_close(PyObject *function, PyObject *const *args, size_t nargsf, PyObject *kwnames)
{
    if (PyVectorcall_NARGS(nargsf) == 1 && kwnames == NULL) {
        int done = close_if_in_charge(args[0]);
        if (done != 0) {
            return done < 0 ? NULL : Py_NewRef(Py_None);
        }
    }
    return as_before(function, args, nargsf, kwnames);
}

static int
take(PyObject *function)
{
    if (taken == NULL) {
        taken = (PyFunctionObject *)Py_NewRef(function);
        as_before = taken->vectorcall;
        compat_set_vectorcall(taken, call_close);
    }
    return (PyObject *)taken == function;
}

/* If somebody else has come after us, what he does is left alone, and comes to call_close(). */
static void
leave(void)
{
    if (taken->vectorcall == call_close) {
        compat_set_vectorcall(taken, as_before);
        Py_CLEAR(taken);
    }
}

#else

/* The function's code calls _close_done(). */
static int
take(PyObject *function)
{
    (void)function;
    return 1;
}

static void
leave(void)
{
}

#endif

static PyObject *
take_over(PyObject *module, PyObject *function)
{
    if (!PyFunction_Check(function)) {
        PyErr_SetString(PyExc_TypeError, "a Python function is required");
        return NULL;
    }
    if (take(function)) {
        Py_XSETREF(in_charge, Py_NewRef(module));
    }
    Py_RETURN_NONE;
}

static PyObject *
give_back(PyObject *module, PyObject *unused)
{
    (void)unused;
    if (in_charge == module) {
        leave();
        Py_CLEAR(in_charge);
    }
    Py_RETURN_NONE;
}

static PyObject *
close_done(PyObject *module, PyObject *sock)
{
    (void)module;
    int done = close_if_in_charge(sock);

    return done < 0 ? NULL : PyBool_FromLong(done);
}

PyMethodDef cbase_close_functions[] = {
    {"_close_descriptor", (PyCFunction)(void (*)(void))close_descriptor, METH_FASTCALL,
     PyDoc_STR("_close_descriptor($module, sock, raw, /)\n--\n\n"
               "Close the raw socket of one that is being closed, at once or when the loop has\n"
               "done with its descriptor.")},
    {"_close_take_over", take_over, METH_O,
     PyDoc_STR("_close_take_over($module, function, /)\n--\n\n"
               "Have calls of gevent's function socket.close() run in C.")},
    {"_close_give_back", give_back, METH_NOARGS,
     PyDoc_STR("_close_give_back($module, /)\n--\n\n"
               "Have them run as ever.")},
    {"_close_done", close_done, METH_O,
     PyDoc_STR("_close_done($module, sock, /)\n--\n\n"
               "Close a socket as socket.close() of gevent does; False if that has to do it.")},
    {NULL, NULL, 0, NULL},
};

#endif
