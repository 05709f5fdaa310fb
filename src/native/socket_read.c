/* Native reading: recv(), recv_into(), recvfrom() and recvfrom_into() of gevent's sockets.
 *
 * Does not know what else is done with a socket.
 */
#include "native/socket_io.h"

#ifdef CBASE_HAVE_SOCKETS

#define FLAGS_OF_RECV (MSG_PEEK | MSG_DONTWAIT)

/* ---- the system call ---- */

/* recvfrom(2): DONE and *count; BLOCKED; or FAILED. `from`: NULL if nobody asks for it. */
static int
receive(raw_socket *raw, void *buffer, size_t size, int flags, Py_ssize_t *count, address *from)
{
    PyThreadState *thread;
    int outcome;

    do {
        int fd = raw->fd;
        if (from != NULL) {
            memset(from, 0, sizeof(*from));
            from->length = sizeof(from->name);
        }
        thread = let_others_run();
        *count = from == NULL ? recv(fd, buffer, size, flags)
                              : recvfrom(fd, buffer, size, flags, (struct sockaddr *)&from->name,
                                         &from->length);
    } while (!is_over(thread, *count, &outcome));
    return outcome;
}

/* ---- attempts ---- */

static int
wants_address(const reading *what)
{
    return what->function == RECVFROM || what->function == RECVFROM_INTO;
}

/* Bytes that are kept: not those that CPython allocates fast, nor many. */
enum { SMALLEST_SPARE = 512, LARGEST_SPARE = 64 * 1024 };

/* New bytes of this size, perhaps those that are kept. */
static PyObject *
take_bytes(struct cbase_socket_io_state *io, Py_ssize_t size)
{
    PyObject *bytes = io->spare;

    if (bytes == NULL || PyBytes_GET_SIZE(bytes) != size) {
        return PyBytes_FromStringAndSize(NULL, size);
    }
    io->spare = NULL; // another thread may read while this one does
    return bytes;
}

/* Keeps bytes that nobody else has seen. */
static void
leave_bytes(struct cbase_socket_io_state *io, PyObject *bytes)
{
    Py_ssize_t size = PyBytes_GET_SIZE(bytes);

    if (size >= SMALLEST_SPARE && size <= LARGEST_SPARE) {
        Py_XSETREF(io->spare, bytes); // what was read last is likely to be read next
    }
    else {
        Py_DECREF(bytes);
    }
}

/* The first bytes of these: a copy, if most are left over, which then serve the next read. */
static PyObject *
first_bytes(struct cbase_socket_io_state *io, PyObject *bytes, Py_ssize_t count)
{
    if (count < PyBytes_GET_SIZE(bytes) / 4) {
        PyObject *copy = PyBytes_FromStringAndSize(PyBytes_AS_STRING(bytes), count);
        if (copy != NULL) {
            leave_bytes(io, bytes);
            return copy;
        }
        PyErr_Clear(); // nothing that was read is lost for want of memory
    }
    (void)_PyBytes_Resize(&bytes, count); // or NULL, with an exception
    return bytes;
}

int
cbase_socket_read_bytes(struct cbase_socket_io_state *io, raw_socket *raw, const reading *what,
                        address *from, PyObject **result, int *was_short)
{
    PyObject *bytes = take_bytes(io, what->size);
    Py_ssize_t count;

    if (bytes == NULL) {
        return CBASE_FAILED;
    }
    int outcome =
        receive(raw, PyBytes_AS_STRING(bytes), (size_t)what->size, what->flags, &count, from);
    if (outcome != CBASE_DONE) {
        leave_bytes(io, bytes);
        return outcome;
    }
    *was_short = count < what->size;
    *result = *was_short ? first_bytes(io, bytes, count) : bytes;
    return *result == NULL ? CBASE_FAILED : CBASE_DONE;
}

/* raw.recv_into() and raw.recvfrom_into(): one attempt. */
static int
read_into(raw_socket *raw, const reading *what, address *from, PyObject **result, int *was_short)
{
    Py_buffer view;
    Py_ssize_t count;

    if (!cbase_socket_io_has_buffer(what->buffer, &view, PyBUF_WRITABLE)) {
        return CBASE_NOT_OURS;
    }
    Py_ssize_t size = what->size == 0 ? view.len : what->size;
    int outcome = size == 0 || size > view.len
                      ? (int)CBASE_NOT_OURS
                      : receive(raw, view.buf, (size_t)size, what->flags, &count, from);
    PyBuffer_Release(&view);
    if (outcome == CBASE_DONE) {
        *was_short = count < size;
        *result = PyLong_FromSsize_t(count);
        outcome = *result == NULL ? CBASE_FAILED : CBASE_DONE;
    }
    return outcome;
}

cbase_outcome
cbase_socket_read_add_address(const address *from, PyObject **result)
{
    PyObject *peer = cbase_socket_address(&from->name, from->length);

    Py_SETREF(*result, peer == NULL ? NULL : cbase_object_pair(*result, peer));
    Py_XDECREF(peer);
    return *result == NULL ? CBASE_FAILED : CBASE_DONE;
}

/* One attempt, with a socket of a known kind. */
static int
read_now(struct cbase_socket_io_state *io, raw_socket *raw, const reading *what, PyObject **result)
{
    address from, *wanted = wants_address(what) ? &from : NULL;
    int was_short = 0;
    int outcome = what->buffer == NULL
                      ? cbase_socket_read_bytes(io, raw, what, wanted, result, &was_short)
                      : read_into(raw, what, wanted, result, &was_short);

    if (outcome == BLOCKED) {
        cbase_io_turn_in_vain(raw);
    }
    else if (outcome == CBASE_DONE && !(what->flags & MSG_PEEK)) {
        cbase_io_turn_read(raw, was_short);
    }
    if (outcome == CBASE_DONE && wanted != NULL) {
        outcome = cbase_socket_read_add_address(wanted, result);
    }
    return outcome;
}

/* Whether it has to wait for its turn. */
static int
is_for_later(const stream *io, const raw_socket *raw, const reading *what)
{
    return !(what->flags & MSG_PEEK) && cbase_io_turn_is_over(raw)
           && cbase_io_wait_is_plain(io->st, io->s, io->sock, io->s->read_event)
           && cbase_io_turn_is_told(raw);
}

/* One attempt; or none, and BLOCKED, if it has to wait and may. */
static int
try_reading(const stream *io, const reading *what, int may_wait, PyObject **result)
{
    raw_socket *raw = raw_of(io);
    int outcome = CBASE_NOT_OURS;

    if (raw != NULL && (!wants_address(what) || cbase_socket_address_known(raw->family))) {
        outcome = may_wait && is_for_later(io, raw, what)
                      ? BLOCKED
                      : read_now(io->st->socket_io, raw, what, result);
    }
    Py_XDECREF(raw);
    return outcome;
}

/* All of it: reads, or waits and tries again. */
static cbase_outcome
read_from(cbase_state *st, PyObject *sock, const reading *what, PyObject **result)
{
    stream io;
    cbase_outcome ready;
    int may_wait = 1;

    while ((ready = open_stream(st, sock, what->function, &io)) == CBASE_DONE) {
        int outcome = try_reading(&io, what, may_wait, result);
        if (outcome != BLOCKED) {
            return outcome;
        }
        may_wait = 0;
        ready = cbase_socket_io_wait(&io, kind_of_timeout(*slot(sock, io.s->timeout)),
                                     io.s->read_event);
        if (ready != CBASE_DONE) {
            break;
        }
    }
    return ready;
}

/* recv(bufsize[, flags]) and recvfrom(bufsize[, flags]) */
static cbase_outcome
read_new(cbase_state *st, PyObject *const *args, size_t nargs, int function, PyObject **result)
{
    reading what = {NULL, nargs < 2 || nargs > 3 ? 0 : size_of(args[1]), 0, function};

    if (what.size <= 0 || !has_flags(args, nargs, 2, FLAGS_OF_RECV, &what.flags)) {
        return CBASE_NOT_OURS;
    }
    return read_from(st, args[0], &what, result);
}

cbase_outcome
cbase_socket_read_recv(cbase_state *st, PyObject *const *args, size_t nargs, PyObject **result)
{
    return read_new(st, args, nargs, RECV, result);
}

cbase_outcome
cbase_socket_read_recvfrom(cbase_state *st, PyObject *const *args, size_t nargs, PyObject **result)
{
    return read_new(st, args, nargs, RECVFROM, result);
}

/* recv_into(buffer[, nbytes[, flags]]) and recvfrom_into(buffer[, nbytes[, flags]]) */
static cbase_outcome
read_into_buffer(cbase_state *st, PyObject *const *args, size_t nargs, int function,
                 PyObject **result)
{
    reading what = {NULL, 0, 0, function};

    if (nargs < 2 || nargs > 4 || !has_flags(args, nargs, 3, FLAGS_OF_RECV, &what.flags)
        || (nargs > 2 && (what.size = size_of(args[2])) < 0))
    {
        return CBASE_NOT_OURS;
    }
    what.buffer = Py_NewRef(args[1]);
    cbase_outcome outcome = read_from(st, args[0], &what, result);
    Py_DECREF(what.buffer);
    return outcome;
}

cbase_outcome
cbase_socket_read_recv_into(cbase_state *st, PyObject *const *args, size_t nargs,
                            PyObject **result)
{
    return read_into_buffer(st, args, nargs, RECV_INTO, result);
}

cbase_outcome
cbase_socket_read_recvfrom_into(cbase_state *st, PyObject *const *args, size_t nargs,
                                PyObject **result)
{
    return read_into_buffer(st, args, nargs, RECVFROM_INTO, result);
}

#endif
