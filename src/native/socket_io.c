/* Native reading and writing of gevent's sockets: recv(), recv_into(), recvfrom(),
 * recvfrom_into(), send(), sendall() and sendto() of SocketMixin, whoever calls them, see
 * function_calls.c.
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
#include "native/socket.h"

#ifdef CBASE_HAVE_SOCKETS

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <string.h>

/* ---- the socket ---- */

typedef struct {
    PyObject *clock, *timeout_error, *no_timeout; // time.time, socket.timeout, timeout_default
    PyObject *send_chunk;                         // __send_chunk() of gevent._socketcommon
    PyObject *do_read;                            // DatagramServer.do_read, the function
    PyObject *semaphore;                          // the class, if nobody can change it; or None
} io_parts;

/* The functions that are stood for. */
enum { RECV, RECV_INTO, RECVFROM, RECVFROM_INTO, SEND, SENDALL, SENDTO, SERVER_SENDTO, DO_READ };

static const char *const function_names[] = {
    [RECV] = "SocketMixin.recv",          [RECV_INTO] = "SocketMixin.recv_into",
    [RECVFROM] = "SocketMixin.recvfrom",  [RECVFROM_INTO] = "SocketMixin.recvfrom_into",
    [SEND] = "SocketMixin.send",          [SENDALL] = "SocketMixin.sendall",
    [SENDTO] = "SocketMixin.sendto",      [SERVER_SENDTO] = "DatagramServer.sendto",
    [DO_READ] = "DatagramServer.do_read",
};

struct cbase_socket_io_state {
    cbase_premises all;                                      // of who waits, too
    cbase_premises at_once[Py_ARRAY_LENGTH(function_names)]; // of who need not wait
    const io_parts *parts;
    PyObject *spare; // bytes that a read may fill, owned by nobody else; or NULL
    cbase_memo_class no_lock, no_socket; // of DatagramServers: `_writelock` and `socket`
    cbase_memo_class locks_left;         // `counter` of semaphores
};

/* What is read from or written to. */
typedef struct {
    cbase_state *st;
    const cbase_socket_parts *s;
    PyObject *sock; // owned by the caller
    int function;   // that is stood for
    int is_left;    // the next attempt to write is gevent's
} stream;

/* Outcomes of one attempt, besides those of a step. */
enum { BLOCKED = 2 }; // EAGAIN

/* Whether premises hold: DONE, NOT_OURS or FAILED. */
static cbase_outcome
hold(cbase_state *st, cbase_premises *premises)
{
    int known = cbase_premises_hold(st, premises, &st->sockets->comparison);

    return known > 0 ? CBASE_DONE : known == 0 ? CBASE_NOT_OURS : CBASE_FAILED;
}

static cbase_outcome
open_stream(cbase_state *st, PyObject *sock, int function, stream *io)
{
    cbase_outcome known = hold(st, &st->socket_io->at_once[function]);

    io->st = st;
    io->s = st->sockets->parts;
    io->sock = sock;
    io->function = function;
    io->is_left = 0;
    if (known != CBASE_DONE) {
        return known;
    }
    return Py_IS_TYPE(sock, io->s->socket) ? CBASE_DONE : CBASE_NOT_OURS;
}

/* The socket inside, owned, if it is one that does not block; or NULL without an exception. */
static raw_socket *
raw_of(const stream *io)
{
    PyObject *raw = *slot(io->sock, io->s->sock);

    if (raw == NULL || !Py_IS_TYPE(raw, io->s->raw) || ((raw_socket *)raw)->timeout != 0) {
        return NULL;
    }
    return (raw_socket *)Py_NewRef(raw);
}

/* What its timeout is. */
enum { FOREVER, NO_WAIT, SECONDS, UNKNOWN };

static int
kind_of_timeout(PyObject *timeout)
{
    if (timeout == Py_None) {
        return FOREVER;
    }
    if (timeout == NULL || !PyFloat_CheckExact(timeout)) {
        return UNKNOWN;
    }
    return PyFloat_AS_DOUBLE(timeout) == 0.0 ? NO_WAIT : SECONDS;
}

static cbase_outcome
would_block(void)
{
    errno = EAGAIN;
    PyErr_SetFromErrno(PyExc_OSError);
    return CBASE_FAILED;
}

/* After EAGAIN: waits if `timeout` allows it. DONE: try again. */
static cbase_outcome
wait_unless(const stream *io, int timeout, Py_ssize_t event)
{
    cbase_outcome known;

    switch (timeout) {
    case UNKNOWN:
        return CBASE_NOT_OURS;
    case NO_WAIT:
        return would_block();
    default:
        known = hold(io->st, &io->st->socket_io->all);
        if (known != CBASE_DONE) {
            return known;
        }
        return cbase_io_wait(io->st, io->s, io->sock, event) < 0 ? CBASE_FAILED : CBASE_DONE;
    }
}

/* ---- system calls ---- */

/* After a failed one: DONE: again; BLOCKED; or FAILED. */
static int
judge(int error)
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

typedef struct {
    struct sockaddr_storage name;
    socklen_t length;
} address;

/* recvfrom(2): DONE and *count; BLOCKED; or FAILED. `from`: NULL if nobody asks for it. */
static int
receive(raw_socket *raw, void *buffer, size_t size, int flags, Py_ssize_t *count, address *from)
{
    int outcome = CBASE_DONE;

    do {
        int fd = raw->fd;
        if (from != NULL) {
            memset(from, 0, sizeof(*from));
            from->length = sizeof(from->name);
        }
        PyThreadState *thread = let_others_run();
        *count = from == NULL ? recv(fd, buffer, size, flags)
                              : recvfrom(fd, buffer, size, flags, (struct sockaddr *)&from->name,
                                         &from->length);
        int error = errno;
        go_on(thread);
        if (*count < 0) {
            outcome = judge(error);
        }
    } while (*count < 0 && outcome == CBASE_DONE);
    return outcome;
}

/* sendto(2): the same. */
static int
transmit(raw_socket *raw, const void *buffer, size_t size, int flags, Py_ssize_t *count,
         const address *to)
{
    int outcome = CBASE_DONE;

    do {
        int fd = raw->fd;
        PyThreadState *thread = let_others_run();
        *count = to == NULL ? send(fd, buffer, size, flags)
                            : sendto(fd, buffer, size, flags, (const struct sockaddr *)&to->name,
                                     to->length);
        int error = errno;
        go_on(thread);
        if (*count < 0) {
            outcome = judge(error);
        }
    } while (*count < 0 && outcome == CBASE_DONE);
    return outcome;
}

/* ---- arguments ---- */

/* The value of an exact int that is not negative; -1: none of these. */
static Py_ssize_t
size_of(PyObject *number)
{
    int overflow;

    if (!PyLong_CheckExact(number)) {
        return -1;
    }
    long value = PyLong_AsLongAndOverflow(number, &overflow);
    return overflow != 0 || value > PY_SSIZE_T_MAX ? -1 : (Py_ssize_t)value;
}

/* Whether an argument, if it is there, is an int with no other flags than these. */
static int
has_flags(PyObject *const *args, size_t nargs, size_t i, int known, int *flags)
{
    *flags = 0;
    if (i < nargs) {
        Py_ssize_t value = size_of(args[i]);
        if (value < 0 || (value & ~(Py_ssize_t)known) != 0) {
            return 0;
        }
        *flags = (int)value;
    }
    return 1;
}

#define FLAGS_OF_RECV (MSG_PEEK | MSG_DONTWAIT)
#define FLAGS_OF_SEND (MSG_NOSIGNAL | MSG_DONTWAIT | MSG_MORE)

/* The bytes of an object of a type that is known: 1, or 0 without an exception. */
static int
has_buffer(PyObject *data, Py_buffer *view, int flags)
{
    if (PyBytes_CheckExact(data) && flags == PyBUF_SIMPLE) {
        *view = (Py_buffer){
            .obj = Py_NewRef(data), .buf = PyBytes_AS_STRING(data), .len = PyBytes_GET_SIZE(data)};
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

/* ---- reading ---- */

typedef struct {
    PyObject *buffer; // where to, borrowed; NULL: to new bytes
    Py_ssize_t size;  // at most; 0 with a buffer: all of it
    int flags;
    int function; // that is stood for
} reading;

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

/* raw.recv() and raw.recvfrom(), for bytes: one attempt. */
static int
read_bytes(struct cbase_socket_io_state *io, raw_socket *raw, const reading *what, address *from,
           PyObject **result, int *was_short)
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

    if (!has_buffer(what->buffer, &view, PyBUF_WRITABLE)) {
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

/* *result: with the address that it came from. */
static cbase_outcome
add_address(const address *from, PyObject **result)
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
    int outcome = what->buffer == NULL ? read_bytes(io, raw, what, wanted, result, &was_short)
                                       : read_into(raw, what, wanted, result, &was_short);

    if (outcome == BLOCKED) {
        cbase_io_turn_in_vain(raw);
    }
    else if (outcome == CBASE_DONE && !(what->flags & MSG_PEEK)) {
        cbase_io_turn_read(raw, was_short);
    }
    if (outcome == CBASE_DONE && wanted != NULL) {
        outcome = add_address(wanted, result);
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
        ready = wait_unless(&io, kind_of_timeout(*slot(sock, io.s->timeout)), io.s->read_event);
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
cbase_socket_io_recv(cbase_state *st, PyObject *const *args, size_t nargs, PyObject **result)
{
    return read_new(st, args, nargs, RECV, result);
}

cbase_outcome
cbase_socket_io_recvfrom(cbase_state *st, PyObject *const *args, size_t nargs, PyObject **result)
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
cbase_socket_io_recv_into(cbase_state *st, PyObject *const *args, size_t nargs, PyObject **result)
{
    return read_into_buffer(st, args, nargs, RECV_INTO, result);
}

cbase_outcome
cbase_socket_io_recvfrom_into(cbase_state *st, PyObject *const *args, size_t nargs,
                              PyObject **result)
{
    return read_into_buffer(st, args, nargs, RECVFROM_INTO, result);
}

/* ---- writing ---- */

typedef struct {
    PyObject *data; // owned by the caller
    int flags;
    const address *to; // or NULL
    PyObject *name;    // the same, as Python has it, owned by the caller
} writing;

/* Which part of the data; a `length` of -1: all of it. */
typedef struct {
    Py_ssize_t start, stop, length;
} part;

/* What raw.sendto() tells at each attempt. */
static int
audit(raw_socket *raw, const writing *what)
{
    return what->to == NULL ? 0 : PySys_Audit("socket.sendto", "OO", (PyObject *)raw, what->name);
}

/* raw.send(data[start:stop], flags): one attempt. Not ours if the data has another length now. */
static int
try_writing(const stream *io, const writing *what, const part *which, Py_ssize_t *count)
{
    raw_socket *raw = raw_of(io);
    Py_buffer view;
    int outcome = CBASE_NOT_OURS;

    if (raw != NULL && has_buffer(what->data, &view, PyBUF_SIMPLE)) {
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
    cbase_outcome ready = wait_unless(io, timeout, io->s->write_event);

    if (ready != CBASE_DONE) {
        return ready;
    }
    int outcome = open_stream(io->st, io->sock, io->function, io);
    if (outcome == CBASE_DONE) {
        outcome = try_writing(io, what, which, count);
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

/* send() and sendto() after an attempt that was in vain: waits, and tries once more. */
static cbase_outcome
write_blocked(stream *io, const writing *what, const part *which, int timeout, Py_ssize_t *count)
{
    cbase_except block;
    cbase_outcome outcome;

    (void)would_block();
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
    int outcome = try_writing(io, what, which, count);

    return outcome == BLOCKED ? write_blocked(io, what, which, timeout, count) : outcome;
}

static const part whole = {0, 0, -1};

/* The result of send() and sendto(). */
static cbase_outcome
counted(cbase_outcome outcome, Py_ssize_t count, PyObject **result)
{
    if (outcome == CBASE_DONE) {
        *result = PyLong_FromSsize_t(count);
        outcome = *result == NULL ? CBASE_FAILED : CBASE_DONE;
    }
    return outcome;
}

/* send(data, flags=0, timeout=timeout_default) */
cbase_outcome
cbase_socket_io_send(cbase_state *st, PyObject *const *args, size_t nargs, PyObject **result)
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
    return counted(outcome, count, result);
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
    if (view->ndim != 1 || view->itemsize != 1 || !has_buffer(memory, &alive, PyBUF_SIMPLE)) {
        Py_DECREF(memory);
        return NULL;
    }
    *length = alive.len;
    PyBuffer_Release(&alive);
    return memory;
}

/* sendall(data, flags=0) */
cbase_outcome
cbase_socket_io_sendall(cbase_state *st, PyObject *const *args, size_t nargs, PyObject **result)
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

/* ---- sendto() ---- */

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
    const char *text = (const char *)PyUnicode_1BYTE_DATA(host);
    memset(name, 0, sizeof(*name));
    if (port < 0 || port > 0xffff || strlen(text) != (size_t)PyUnicode_GET_LENGTH(host)
        || inet_pton(AF_INET, text, &name->sin_addr) != 1)
    {
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
    int outcome = in_vain ? BLOCKED : try_writing(&io, &what, &whole, &count);
    if (outcome == BLOCKED) {
        int timeout = kind_of_timeout(*slot(io.sock, io.s->timeout));
        outcome = write_blocked(&io, &what, &whole, timeout, &count);
    }
    Py_DECREF(what.name);
    Py_DECREF(what.data);
    return counted(outcome, count, result);
}

cbase_outcome
cbase_socket_io_sendto(cbase_state *st, PyObject *const *args, size_t nargs, PyObject **result)
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
cbase_socket_io_do_read(cbase_state *st, PyObject *sock, PyObject **result)
{
    cbase_outcome known = hold(st, &st->socket_io->at_once[DO_READ]);
    const cbase_socket_parts *s = st->sockets->parts;
    const reading what = {NULL, DATAGRAM, 0, DO_READ};
    address from;
    int was_short;

    *result = NULL;
    if (known != CBASE_DONE) {
        return known;
    }
    raw_socket *raw = (raw_socket *)sock; // owned by the caller
    if (!Py_IS_TYPE(sock, s->raw) || raw->timeout != 0 || !cbase_socket_address_known(raw->family))
    {
        return CBASE_NOT_OURS;
    }
    if (PyErr_CheckSignals() < 0) {
        return CBASE_FAILED;
    }
    switch (read_bytes(st->socket_io, raw, &what, &from, result, &was_short)) {
    case CBASE_DONE:
        return add_address(&from, result);
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

void
cbase_socket_io_begin(const cbase_state *st, PyObject *client)
{
    const cbase_socket_parts *s = st->sockets->parts;
    PyObject *raw = s != NULL && Py_IS_TYPE(client, s->socket) ? *slot(client, s->sock) : NULL;

    if (raw != NULL && Py_IS_TYPE(raw, s->raw)) {
        cbase_io_turn_forget(((const raw_socket *)raw)->fd);
    }
}

int
cbase_socket_io_is_do_read(const cbase_state *st, PyObject *function)
{
    return function != NULL && st->socket_io->parts != NULL
           && function == st->socket_io->parts->do_read;
}

/* Owned: what an instance alone has under a name; or NULL without an exception. */
static PyObject *
own_attr(cbase_memo_class *no_such, PyObject *self, PyObject *name)
{
    PyObject *dict = cbase_memo_class_lacks(no_such, Py_TYPE(self), name)
                         ? PyObject_GenericGetDict(self, NULL)
                         : NULL;
    PyObject *value = dict == NULL ? NULL : Py_XNewRef(PyDict_GetItemWithError(dict, name));

    PyErr_Clear();
    Py_XDECREF(dict);
    return value;
}

/* Whether self._writelock is a semaphore of gevent's that acquire() would not wait for. Who sends
 * without waiting need not take it then. */
static int
lock_is_free(cbase_state *st, PyObject *self)
{
    struct cbase_socket_io_state *io = st->socket_io;
    PyObject *lock = own_attr(&io->no_lock, self, st->s__writelock);
    PyObject *left = NULL;

    if (lock != NULL && (PyObject *)Py_TYPE(lock) == io->parts->semaphore) {
        left = cbase_memo_attr(&io->locks_left, lock, st->s_counter);
    }
    int is_free = left != NULL && size_of(left) > 0;
    PyErr_Clear();
    Py_XDECREF(left);
    Py_XDECREF(lock);
    return is_free;
}

/* self.socket.sendto(*args), if that need not wait; or nothing was sent: CBASE_NOT_OURS, or
 * BLOCKED after an attempt. */
static int
send_at_once(cbase_state *st, PyObject *const *args, size_t nargs)
{
    PyObject *sock = own_attr(&st->socket_io->no_socket, args[0], st->s_socket);
    int outcome = CBASE_NOT_OURS;
    Py_ssize_t count;
    writing what;
    address to;
    stream io;

    if (sock != NULL && (outcome = open_stream(st, sock, SERVER_SENDTO, &io)) == CBASE_DONE) {
        outcome = lock_is_free(st, args[0]) && has_message(&io, args, nargs, &what, &to)
                      ? try_writing(&io, &what, &whole, &count)
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
cbase_socket_io_server_sendto(cbase_state *st, PyObject *const *args, size_t nargs,
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

/* ---- for the modules in Python ---- */

static void
forget(struct cbase_socket_io_state *io)
{
    cbase_premises_forget(&io->all);
    for (size_t i = 0; i < Py_ARRAY_LENGTH(io->at_once); i++) {
        cbase_premises_forget(&io->at_once[i]);
    }
}

/* `at_once`: a dict of the premises of each function. 0, or -1 and none hold. */
static int
set_premises(struct cbase_socket_io_state *io, PyObject *all, PyObject *at_once)
{
    int result = cbase_premises_set(&io->all, all);

    for (size_t i = 0; result == 0 && i < Py_ARRAY_LENGTH(io->at_once); i++) {
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
    return st->socket_io == NULL ? -1 : 0;
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

cbase_outcome
cbase_socket_io_do_read(cbase_state *st, PyObject *raw, PyObject **result)
{
    (void)st, (void)raw, (void)result;
    return CBASE_NOT_OURS;
}

void
cbase_socket_io_begin(const cbase_state *st, PyObject *client)
{
    (void)st, (void)client;
}

int
cbase_socket_io_is_do_read(const cbase_state *st, PyObject *function)
{
    (void)st, (void)function;
    return 0;
}

PyMethodDef cbase_socket_io_functions[] = {{NULL, NULL, 0, NULL}};

#endif
