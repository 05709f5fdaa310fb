/* Native datagrams: sendto() of gevent's sockets, and do_read() and sendto() of its
 * DatagramServer.
 *
 * The server's lock is not taken where it is free and nothing waits.
 *
 * Does not know how a datagram is read or written: socket_read.c and socket_write.c do.
 */
#include "native/socket_io.h"

#ifdef CBASE_HAVE_SOCKETS

#include <arpa/inet.h>

/* ---- sendto() ---- */

/* A numeric host, of an exact str of ASCII: 1, or 0. Most answer who was there last. */
static int
read_host(PyObject *host, struct in_addr *in)
{
    const char *text = (const char *)PyUnicode_1BYTE_DATA(host);

    return cbase_socket_address_of_host(host, in)
           || (strlen(text) == (size_t)PyUnicode_GET_LENGTH(host)
               && inet_pton(AF_INET, text, in) == 1);
}

/* A numeric host, of a tuple of an exact str and an int from 0 to 65535: 1, or 0. */
static int
has_address(int family, PyObject *pair, address *to)
{
    if (family != AF_INET || !PyTuple_CheckExact(pair) || PyTuple_GET_SIZE(pair) != 2
        || !PyUnicode_CheckExact(PyTuple_GET_ITEM(pair, 0))
        || !PyUnicode_IS_COMPACT_ASCII(PyTuple_GET_ITEM(pair, 0)))
    {
        return 0;
    }
    struct sockaddr_in *name = (struct sockaddr_in *)&to->name;
    Py_ssize_t port = size_of(PyTuple_GET_ITEM(pair, 1));
    PyObject *host = PyTuple_GET_ITEM(pair, 0); // borrowed
    memset(name, 0, sizeof(*name));
    if (port < 0 || port > 0xffff || !read_host(host, &name->sin_addr)) {
        return 0;
    }
    name->sin_family = AF_INET;
    name->sin_port = htons((uint16_t)port);
    to->length = sizeof(*name);
    return 1;
}

/* What sendto(data[, flags], address) sends, and where to: whether these are known. `to`: for the
 * address, which `what` then refers to. */
static int
has_message(const stream *io, PyObject *const *args, size_t nargs, writing *what, address *to)
{
    raw_socket *raw = raw_of(io);
    int found = raw != NULL && nargs >= 3 && nargs <= 4
                && has_flags(args, nargs - 1, 2, FLAGS_OF_SEND, &what->flags)
                && has_address(raw->family, args[nargs - 1], to);

    if (found) {
        what->data = args[1];
        what->to = to;
        what->name = args[nargs - 1];
    }
    Py_XDECREF(raw);
    return found;
}

/* The same, and *count of bytes. `in_vain`: there was an attempt already. */
static cbase_outcome
send_to(cbase_state *st, PyObject *const *args, size_t nargs, int in_vain, PyObject **result)
{
    writing what;
    address to;
    Py_ssize_t count;
    stream io;
    cbase_outcome known = open_stream(st, args[0], SENDTO, &io);

    if (known != CBASE_DONE || !has_message(&io, args, nargs, &what, &to)) {
        return known == CBASE_DONE ? CBASE_NOT_OURS : known;
    }
    Py_INCREF(what.data);
    Py_INCREF(what.name);
    int outcome = in_vain ? BLOCKED : cbase_socket_write_try(&io, &what, &whole, &count);
    if (outcome == BLOCKED) {
        int timeout = kind_of_timeout(*slot(io.sock, io.s->timeout));
        outcome = cbase_socket_write_blocked(&io, &what, &whole, timeout, &count);
    }
    Py_DECREF(what.name);
    Py_DECREF(what.data);
    return cbase_socket_write_result(outcome, count, result);
}

cbase_outcome
cbase_socket_datagram_sendto(cbase_state *st, PyObject *const *args, size_t nargs,
                             PyObject **result)
{
    return send_to(st, args, nargs, 0, result);
}

/* ---- gevent.server.DatagramServer ---- */

#define DATAGRAM 8192 /* the longest one that do_read() takes */

/* Raises the OSError that is set anew, in Python, so that there is a traceback to report. */
static void
raise_in_python(const cbase_socket_parts *s)
{
    PyObject *error = compat_get_raised();
    PyObject *number = error == NULL ? NULL : cbase_object_attr(error, "errno");
    PyObject *done = number == NULL ? NULL : PyObject_CallOneArg(s->failed, number);

    Py_XDECREF(done);
    Py_XDECREF(number);
    Py_XDECREF(error);
}

cbase_outcome
cbase_socket_datagram_do_read(cbase_state *st, PyObject *sock, PyObject **result)
{
    const reading what = {NULL, DATAGRAM, 0, DO_READ};
    address from;
    int was_short;

    *result = NULL;
    if (see_to_signals(st->sockets) < 0) {
        return CBASE_FAILED;
    }
    cbase_outcome known = hold(st, &st->socket_io->at_once[DO_READ]);
    const cbase_socket_parts *s = st->sockets->parts;
    if (known != CBASE_DONE) {
        return known;
    }
    raw_socket *raw = (raw_socket *)sock; // owned by the caller
    if (!Py_IS_TYPE(sock, s->raw) || raw->timeout != 0 || !cbase_socket_address_known(raw->family))
    {
        return CBASE_NOT_OURS;
    }
    switch (cbase_socket_read_bytes(st->socket_io, raw, &what, &from, result, &was_short)) {
    case CBASE_DONE:
        st->sockets->unchecked++;
        return cbase_socket_read_add_address(&from, result);
    case BLOCKED:
        *result = Py_NewRef(Py_None);
        return CBASE_DONE;
    default:
        if (PyErr_ExceptionMatches(PyExc_OSError)) {
            raise_in_python(s);
        }
        return CBASE_FAILED;
    }
}

int
cbase_socket_datagram_is_do_read(const cbase_state *st, PyObject *function)
{
    return function != NULL && st->socket_io->parts != NULL
           && function == st->socket_io->parts->do_read;
}

/* Owned: what an instance alone has under a name; or NULL without an exception. */
static inline PyObject *
own_attr(cbase_memo_class *no_such, cbase_memo_dict *value, PyObject *self, PyObject *name)
{
    return cbase_memo_class_lacks(no_such, Py_TYPE(self), name)
               ? cbase_memo_instance_get(value, self, name)
               : NULL;
}

/* Whether self._writelock is a semaphore of gevent's that acquire() would not wait for. Who sends
 * without waiting need not take it then. */
static int
lock_is_free(cbase_state *st, own_attrs *own, PyObject *self)
{
    struct cbase_socket_io_state *io = st->socket_io;
    PyObject *lock = own_attr(&own->no_lock, &own->lock, self, st->s__writelock);
    PyObject *left = NULL;

    if (lock != NULL && (PyObject *)Py_TYPE(lock) == io->parts->semaphore) {
        left = cbase_memo_attr(&io->locks_left, lock, st->s_counter);
    }
    int is_free = left == st->one || (left != NULL && size_of(left) > 0);
    if (left == NULL) {
        PyErr_Clear(); // the lock is taken as ever
    }
    Py_XDECREF(left);
    Py_XDECREF(lock);
    return is_free;
}

/* self.socket.sendto(*args), if that need not wait; or nothing was sent: CBASE_NOT_OURS, or
 * BLOCKED after an attempt. */
static int
send_at_once(cbase_state *st, PyObject *const *args, size_t nargs)
{
    own_attrs *own = &st->socket_io->own[((uintptr_t)args[0] >> 4) % SERVERS];
    PyObject *sock = own_attr(&own->no_socket, &own->socket, args[0], st->s_socket);
    int outcome = CBASE_NOT_OURS;
    Py_ssize_t count;
    writing what;
    address to;
    stream io;

    if (sock != NULL && (outcome = open_stream(st, sock, SERVER_SENDTO, &io)) == CBASE_DONE) {
        outcome = lock_is_free(st, own, args[0]) && has_message(&io, args, nargs, &what, &to)
                      ? cbase_socket_write_try(&io, &what, &whole, &count)
                      : (int)CBASE_NOT_OURS;
    }
    Py_XDECREF(sock);
    return outcome;
}

/* self.socket.sendto(*args). `in_vain`: there was an attempt already. */
static PyObject *
send_by_server(cbase_state *st, PyObject *const *args, size_t nargs, int in_vain)
{
    PyObject *call[4], *result = NULL;
    PyObject *sock = PyObject_GetAttr(args[0], st->s_socket);

    if (sock == NULL) {
        return NULL;
    }
    call[0] = sock;
    for (size_t i = 1; i < nargs; i++) {
        call[i] = args[i];
    }
    if (send_to(st, call, nargs, in_vain, &result) == CBASE_NOT_OURS) {
        result = PyObject_VectorcallMethod(st->s_sendto, call, nargs, NULL);
    }
    Py_DECREF(sock);
    return result;
}

/* self._writelock.acquire(), and try: self.socket.sendto(*args)
 * finally: self._writelock.release() */
static cbase_outcome
send_with_lock(cbase_state *st, PyObject *const *args, size_t nargs, int in_vain)
{
    cbase_except block;

    if (cbase_object_run_on(args[0], st->s__writelock, st->s_acquire) < 0) {
        return CBASE_FAILED;
    }
    PyObject *sent = send_by_server(st, args, nargs, in_vain);
    if (sent != NULL) {
        Py_DECREF(sent);
        return cbase_object_run_on(args[0], st->s__writelock, st->s_release) < 0 ? CBASE_FAILED
                                                                                 : CBASE_DONE;
    }
    cbase_except_enter(&block);
    (void)cbase_object_run_on(args[0], st->s__writelock, st->s_release);
    cbase_except_reraise(&block);
    return CBASE_FAILED;
}

/* sendto(*args) of the server, with the socket's own function where that is gevent's. */
cbase_outcome
cbase_socket_datagram_server_sendto(cbase_state *st, PyObject *const *args, size_t nargs,
                                    PyObject **result)
{
    PyObject *own[4] = {NULL};

    if (nargs == 0 || nargs > Py_ARRAY_LENGTH(own)) {
        return CBASE_NOT_OURS;
    }
    for (size_t i = 0; i < nargs; i++) {
        own[i] = Py_NewRef(args[i]);
    }
    int outcome = send_at_once(st, own, nargs);
    if (outcome == CBASE_NOT_OURS || outcome == BLOCKED) {
        int in_vain = outcome == BLOCKED;
        outcome = hold(st, &st->socket_io->all);
        outcome = outcome == CBASE_DONE ? send_with_lock(st, own, nargs, in_vain) : outcome;
    }
    for (size_t i = 0; i < nargs; i++) {
        Py_DECREF(own[i]);
    }
    *result = outcome == CBASE_DONE ? Py_NewRef(Py_None) : NULL;
    return outcome;
}

#else

cbase_outcome
cbase_socket_datagram_do_read(cbase_state *st, PyObject *raw, PyObject **result)
{
    (void)st, (void)raw, (void)result;
    return CBASE_NOT_OURS;
}

int
cbase_socket_datagram_is_do_read(const cbase_state *st, PyObject *function)
{
    (void)st, (void)function;
    return 0;
}

#endif
