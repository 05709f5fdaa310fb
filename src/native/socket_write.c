/* Native writing: send() and sendall() of gevent's sockets.
 *
 * sendall() of gevent asks for the size of the send buffer, and is made of calls of send(). Here
 * the next attempt goes on where the last one has ended.
 *
 * Does not know what else is done with a socket.
 */
#include "native/socket_io.h"

#ifdef CBASE_HAVE_SOCKETS

/* ---- the system call ---- */

/* send(2) and sendto(2): DONE and *count; BLOCKED; or FAILED. `to`: NULL for the former. */
static int
transmit(raw_socket *raw, const void *buffer, size_t size, int flags, Py_ssize_t *count,
         const address *to)
{
    PyThreadState *thread;
    int outcome;

    do {
        int fd = raw->fd;
        thread = let_others_run();
        *count = to == NULL ? send(fd, buffer, size, flags)
                            : sendto(fd, buffer, size, flags, (const struct sockaddr *)&to->name,
                                     to->length);
    } while (!is_over(thread, *count, &outcome));
    return outcome;
}

/* ---- attempts ---- */

/* What raw.sendto() tells at each attempt. */
static int
audit(raw_socket *raw, const writing *what)
{
    return what->to == NULL ? 0 : PySys_Audit("socket.sendto", "OO", (PyObject *)raw, what->name);
}

int
cbase_socket_write_try(const stream *io, const writing *what, const part *which, Py_ssize_t *count)
{
    raw_socket *raw = raw_of(io);
    Py_buffer view;
    int outcome = CBASE_NOT_OURS;

    if (raw != NULL && cbase_socket_io_has_buffer(what->data, &view, PyBUF_SIMPLE)) {
        if (which->length < 0 || view.len == which->length) {
            Py_ssize_t stop = which->length < 0 ? view.len : which->stop;
            outcome = audit(raw, what) < 0
                          ? (int)CBASE_FAILED
                          : transmit(raw, (const char *)view.buf + which->start,
                                     (size_t)(stop - which->start), what->flags, count, what->to);
        }
        PyBuffer_Release(&view);
    }
    Py_XDECREF(raw);
    return outcome;
}

/* memory[start:stop], which stands whatever becomes of the memoryview. */
static PyObject *
slice_of(PyObject *memory, Py_ssize_t start, Py_ssize_t stop)
{
    PyObject *view =
        PyMemoryView_Check(memory) ? Py_NewRef(memory) : PyMemoryView_FromObject(memory);
    PyObject *slice = view == NULL ? NULL : PySequence_GetSlice(view, start, stop);

    Py_XDECREF(view);
    return slice;
}

/* Whether EWOULDBLOCK was raised, which is cleared then. */
static int
was_blocked(void)
{
    if (!PyErr_ExceptionMatches(PyExc_OSError)) {
        return 0;
    }
    PyObject *raised = compat_get_raised();
    PyObject *number = raised == NULL ? NULL : cbase_object_attr(raised, "errno");
    int blocked = number != NULL && PyLong_CheckExact(number) && size_of(number) == EWOULDBLOCK;

    Py_XDECREF(number);
    PyErr_Clear();
    if (blocked) {
        Py_XDECREF(raised);
    }
    else if (raised != NULL) {
        compat_set_raised(raised);
    }
    return blocked;
}

/* raw.send(data, flags) or raw.sendto(data, flags, address), whatever these are. */
static PyObject *
call_raw(const stream *io, const writing *what, PyObject *data)
{
    PyObject *raw = PyObject_GetAttr(io->sock, io->st->s__sock);
    PyObject *flags = raw == NULL ? NULL : PyLong_FromLong(what->flags);
    PyObject *call[4] = {raw, data, flags, what->name}, *result = NULL;

    if (flags != NULL) {
        result = what->name == NULL ? PyObject_VectorcallMethod(io->st->s_send, call, 3, NULL)
                                    : PyObject_VectorcallMethod(io->st->s_sendto, call, 4, NULL);
    }
    Py_XDECREF(flags);
    Py_XDECREF(raw);
    return result;
}

/* The attempt after waiting, as gevent's function makes it whatever has become of the socket. */
static int
write_in_python(stream *io, const writing *what, const part *which, Py_ssize_t *count)
{
    PyObject *data = which->length < 0 ? Py_NewRef(what->data)
                                       : slice_of(what->data, which->start, which->stop);
    PyObject *number = data == NULL ? NULL : call_raw(io, what, data);

    io->is_left = 1;
    *count = number == NULL ? -1 : PyLong_AsSsize_t(number);
    Py_XDECREF(number);
    Py_XDECREF(data);
    if (!PyErr_Occurred()) {
        return CBASE_DONE;
    }
    return was_blocked() ? BLOCKED : (int)CBASE_FAILED;
}

/* In gevent's `except` block for EAGAIN: waits, and tries once more. */
static cbase_outcome
write_later(stream *io, const writing *what, const part *which, int timeout, Py_ssize_t *count)
{
    cbase_outcome ready = cbase_socket_io_wait(io, timeout, io->s->write_event);

    if (ready != CBASE_DONE) {
        return ready;
    }
    int outcome = open_stream(io->st, io->sock, io->function, io);
    if (outcome == CBASE_DONE) {
        outcome = cbase_socket_write_try(io, what, which, count);
    }
    if (outcome == CBASE_NOT_OURS) {
        outcome = write_in_python(io, what, which, count);
    }
    if (outcome == BLOCKED) {
        *count = 0;
        outcome = CBASE_DONE;
    }
    return outcome;
}

cbase_outcome
cbase_socket_write_blocked(stream *io, const writing *what, const part *which, int timeout,
                           Py_ssize_t *count)
{
    cbase_except block;
    cbase_outcome outcome;

    (void)cbase_socket_io_would_block();
    if (timeout == NO_WAIT) {
        return CBASE_FAILED;
    }
    cbase_except_enter(&block);
    outcome = write_later(io, what, which, timeout, count);
    return cbase_except_leave(&block) < 0 ? CBASE_FAILED : outcome;
}

/* send(): an attempt, and one more after waiting. *count: 0 if that has not sent anything either.
 * `timeout`: as it was before. */
static cbase_outcome
write_once(stream *io, const writing *what, const part *which, int timeout, Py_ssize_t *count)
{
    int outcome = cbase_socket_write_try(io, what, which, count);

    return outcome == BLOCKED ? cbase_socket_write_blocked(io, what, which, timeout, count)
                              : outcome;
}

cbase_outcome
cbase_socket_write_result(cbase_outcome outcome, Py_ssize_t count, PyObject **result)
{
    if (outcome == CBASE_DONE) {
        *result = PyLong_FromSsize_t(count);
        outcome = *result == NULL ? CBASE_FAILED : CBASE_DONE;
    }
    return outcome;
}

/* send(data, flags=0, timeout=timeout_default) */
cbase_outcome
cbase_socket_write_send(cbase_state *st, PyObject *const *args, size_t nargs, PyObject **result)
{
    writing what = {NULL, 0, NULL, NULL};
    Py_ssize_t count;
    stream io;

    if (nargs < 2 || nargs > 4 || !has_flags(args, nargs, 2, FLAGS_OF_SEND, &what.flags)) {
        return CBASE_NOT_OURS;
    }
    cbase_outcome outcome = open_stream(st, args[0], SEND, &io);
    if (outcome != CBASE_DONE) {
        return outcome;
    }
    int timeout = kind_of_timeout(*slot(args[0], io.s->timeout));
    if (timeout == UNKNOWN || (nargs == 4 && args[3] != st->socket_io->parts->no_timeout)) {
        return CBASE_NOT_OURS;
    }
    what.data = Py_NewRef(args[1]);
    outcome = write_once(&io, &what, &whole, timeout, &count);
    Py_DECREF(what.data);
    return cbase_socket_write_result(outcome, count, result);
}

/* ---- sendall() ---- */

/* What is left of its timeout. */
typedef struct {
    int counts; // there is one
    double left, end;
} remaining;

static int
read_clock(cbase_state *st, double *now)
{
    PyObject *time = PyObject_CallNoArgs(st->socket_io->parts->clock);

    *now = time == NULL ? -1.0 : PyFloat_AsDouble(time);
    Py_XDECREF(time);
    return *now == -1.0 && PyErr_Occurred() ? -1 : 0;
}

/* What sendall() sends, of `length` bytes. */
typedef struct {
    PyObject *memory; // owned: bytes, or a memoryview of single bytes, perhaps the caller's
    Py_ssize_t length, sent;
    Py_ssize_t chunk; // bytes that are sent as one
    int flags;
    remaining time;
} sending;

/* time->left, after somebody has waited. */
static int
count_time(cbase_state *st, remaining *time)
{
    double now;

    if (read_clock(st, &now) < 0) {
        return -1;
    }
    time->left = time->end - now;
    return 0;
}

/* __send_chunk(sock, chunk, flags, timeleft, end), by gevent's function. */
static cbase_outcome
send_in_python(const stream *io, PyObject *chunk, sending *all)
{
    remaining *time = &all->time;

    if (time->counts && count_time(io->st, time) < 0) {
        return CBASE_FAILED;
    }
    PyObject *left = time->counts ? PyFloat_FromDouble(time->left) : Py_NewRef(Py_None);
    PyObject *end = time->counts ? PyFloat_FromDouble(time->end) : Py_NewRef(Py_None);
    PyObject *now = left == NULL || end == NULL
                        ? NULL
                        : PyObject_CallFunction(io->st->socket_io->parts->send_chunk, "OOiOO",
                                                io->sock, chunk, all->flags, left, end);

    if (now != NULL && time->counts) {
        time->left = PyFloat_AsDouble(now);
    }
    Py_XDECREF(now);
    Py_XDECREF(end);
    Py_XDECREF(left);
    return now == NULL || PyErr_Occurred() ? CBASE_FAILED : CBASE_DONE;
}

/* Sends a part of the data, as __send_chunk() of gevent does. NOT_OURS: what is left of it is not.
 * `is_last`: the time that is left is not asked for any more. */
static cbase_outcome
write_chunk(stream *io, const writing *what, part *which, remaining *time, int is_last)
{
    int started = 0;
    Py_ssize_t count;

    while (which->start < which->stop) {
        if (started && time->counts && time->left <= 0.0) {
            PyErr_SetString(io->st->socket_io->parts->timeout_error, "timed out");
            return CBASE_FAILED;
        }
        started = 1;
        int timeout = time->counts ? (time->left == 0.0 ? NO_WAIT : SECONDS)
                                   : kind_of_timeout(*slot(io->sock, io->s->timeout));
        cbase_outcome outcome =
            timeout == UNKNOWN ? CBASE_NOT_OURS : write_once(io, what, which, timeout, &count);
        if (outcome != CBASE_DONE) {
            return outcome;
        }
        which->start += count;
        if (time->counts && (which->start < which->stop || !is_last)
            && count_time(io->st, time) < 0) {
            return CBASE_FAILED;
        }
        if (io->is_left && which->start < which->stop) {
            return CBASE_NOT_OURS;
        }
    }
    return CBASE_DONE;
}

/* Sends the next chunk: DONE or FAILED. `known`: whether that is still what gevent's functions
 * would do, DONE or NOT_OURS. */
static cbase_outcome
send_chunk(stream *io, cbase_outcome known, sending *all)
{
    Py_ssize_t start = all->sent, size = Py_MIN(all->length - start, all->chunk);
    writing what = {NULL, all->flags, NULL, NULL};
    part which = {start, start + size, all->length};

    if (PyMemoryView_Check(all->memory)) { // somebody may release it in the meantime
        what.data = slice_of(all->memory, start, start + size);
        which = (part){0, size, size};
    }
    else {
        what.data = Py_NewRef(all->memory);
    }
    all->sent += size;
    cbase_outcome outcome = what.data == NULL ? CBASE_FAILED : known;
    if (outcome == CBASE_DONE) {
        outcome = write_chunk(io, &what, &which, &all->time, all->sent == all->length);
    }
    if (outcome == CBASE_NOT_OURS) {
        PyObject *rest = slice_of(what.data, which.start, which.stop);
        outcome = rest == NULL ? CBASE_FAILED : send_in_python(io, rest, all);
        Py_XDECREF(rest);
    }
    Py_XDECREF(what.data);
    return outcome;
}

/* The rest of sendall(). */
static cbase_outcome
send_all(stream *io, sending *all)
{
    PyObject *timeout = *slot(io->sock, io->s->timeout); // borrowed
    int kind = kind_of_timeout(timeout);
    cbase_outcome outcome = CBASE_DONE;

    if (kind == UNKNOWN) {
        return CBASE_NOT_OURS;
    }
    all->time.counts = kind != FOREVER;
    if (all->time.counts) {
        double now;
        all->time.left = PyFloat_AS_DOUBLE(timeout);
        if (read_clock(io->st, &now) < 0) {
            return CBASE_FAILED;
        }
        all->time.end = now + all->time.left;
    }
    while (outcome == CBASE_DONE && all->sent < all->length) {
        cbase_outcome known =
            all->sent == 0 ? CBASE_DONE : open_stream(io->st, io->sock, io->function, io);
        outcome = known == CBASE_FAILED ? known : send_chunk(io, known, all);
    }
    return outcome;
}

/* How many bytes gevent sends as one, of so many: 0 if that cannot be told. */
static Py_ssize_t
chunk_of(const stream *io, Py_ssize_t length)
{
    raw_socket *raw = raw_of(io);
    Py_ssize_t chunk = raw == NULL ? 0 : 1024 * 1024;

    if (raw != NULL && length > chunk) {
        int room;
        socklen_t size = sizeof(room);
        if (getsockopt(raw->fd, SOL_SOCKET, SO_SNDBUF, &room, &size) != 0) {
            chunk = 0;
        }
        else if (room > chunk) {
            chunk = room;
        }
    }
    Py_XDECREF(raw);
    return chunk;
}

/* What sendall() sends: bytes, or a memoryview of single bytes. NULL: none of these. */
static PyObject *
memory_of(PyObject *data, Py_ssize_t *length)
{
    if (PyBytes_CheckExact(data)) {
        *length = PyBytes_GET_SIZE(data);
        return Py_NewRef(data);
    }
    if (!PyByteArray_CheckExact(data) && !PyMemoryView_Check(data)) {
        return NULL;
    }
    PyObject *memory = PyMemoryView_Check(data) ? Py_NewRef(data) : PyMemoryView_FromObject(data);
    if (memory == NULL) {
        PyErr_Clear(); // gevent's function meets it as well
        return NULL;
    }
    const Py_buffer *view = PyMemoryView_GET_BUFFER(memory);
    Py_buffer alive;
    if (view->ndim != 1 || view->itemsize != 1
        || !cbase_socket_io_has_buffer(memory, &alive, PyBUF_SIMPLE))
    {
        Py_DECREF(memory);
        return NULL;
    }
    *length = alive.len;
    PyBuffer_Release(&alive);
    return memory;
}

/* sendall(data, flags=0) */
cbase_outcome
cbase_socket_write_sendall(cbase_state *st, PyObject *const *args, size_t nargs, PyObject **result)
{
    sending all = {NULL, 0, 0, 0, 0, {0, 0.0, 0.0}};
    stream io;

    if (nargs < 2 || nargs > 3 || !has_flags(args, nargs, 2, FLAGS_OF_SEND, &all.flags)) {
        return CBASE_NOT_OURS;
    }
    cbase_outcome outcome = open_stream(st, args[0], SENDALL, &io);
    if (outcome != CBASE_DONE) {
        return outcome;
    }
    all.memory = memory_of(args[1], &all.length);
    all.chunk = all.memory == NULL || all.length == 0 ? 0 : chunk_of(&io, all.length);
    outcome = all.chunk == 0 ? CBASE_NOT_OURS : send_all(&io, &all);
    Py_XDECREF(all.memory);
    if (outcome == CBASE_DONE) {
        *result = Py_NewRef(Py_None);
    }
    return outcome;
}

#endif
