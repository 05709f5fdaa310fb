/* What reading and writing have in common: what is read from and written to, what is known of
 * gevent's functions, and the arguments of these.
 */
#ifndef CBASE_SOCKET_IO_H
#define CBASE_SOCKET_IO_H

#include "native/socket.h"

#ifdef CBASE_HAVE_SOCKETS

#include <errno.h>
#include <string.h>

typedef struct {
    PyObject *clock, *timeout_error, *no_timeout; // time.time, socket.timeout, timeout_default
    PyObject *send_chunk;                         // __send_chunk() of gevent._socketcommon
    PyObject *do_read;                            // DatagramServer.do_read, the function
    PyObject *semaphore;                          // the class, if nobody can change it; or None
} io_parts;

/* The functions that are stood for. */
enum {
    RECV,
    RECV_INTO,
    RECVFROM,
    RECVFROM_INTO,
    SEND,
    SENDALL,
    SENDTO,
    SERVER_SENDTO,
    DO_READ,
    CBASE_IO_FUNCTIONS
};

/* What a DatagramServer has of its own, while its class has nothing of these names. */
typedef struct {
    cbase_memo_class no_lock, no_socket; // of the class: `_writelock` and `socket`
    cbase_memo_dict lock, socket;
} own_attrs;
#define SERVERS 8 /* whose attributes are remembered */

struct cbase_socket_io_state {
    cbase_premises all;                         // of who waits, too
    cbase_premises at_once[CBASE_IO_FUNCTIONS]; // of who need not wait
    const io_parts *parts;
    PyObject *spare;             // bytes that a read may fill, owned by nobody else; or NULL
    own_attrs own[SERVERS];      // of DatagramServers, by their address
    cbase_memo_class locks_left; // `counter` of semaphores
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
static inline cbase_outcome
hold(cbase_state *st, cbase_premises *premises)
{
    int known = cbase_premises_hold(st, premises, &st->sockets->comparison);

    return known > 0 ? CBASE_DONE : known == 0 ? CBASE_NOT_OURS : CBASE_FAILED;
}

static inline cbase_outcome
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
static inline raw_socket *
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

static inline int
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

typedef struct {
    struct sockaddr_storage name;
    socklen_t length;
} address;

/* The value of an exact int that is not negative; -1: none of these. */
static inline Py_ssize_t
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
static inline int
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

#define FLAGS_OF_SEND (MSG_NOSIGNAL | MSG_DONTWAIT | MSG_MORE)

/* ---- socket_io.c ---- */

/* Raises EAGAIN: FAILED. */
cbase_outcome cbase_socket_io_would_block(void);
/* After EAGAIN: waits if `timeout` allows it, with the watcher in the slot with this offset. DONE:
 * try again. */
cbase_outcome cbase_socket_io_wait(const stream *io, int timeout, Py_ssize_t event);
/* After a failed system call: DONE: again; BLOCKED; or FAILED. */
int cbase_socket_io_judge(int error);
/* The bytes of an object of a type that is known: 1, or 0 without an exception. */
int cbase_socket_io_has_buffer(PyObject *data, Py_buffer *view, int flags);

/* After a system call that has left the GIL to others: whether it need not be made again.
 * *outcome: DONE; BLOCKED or FAILED. */
static inline int
is_over(PyThreadState *thread, Py_ssize_t count, int *outcome)
{
    int error = errno;

    go_on(thread);
    *outcome = count < 0 ? cbase_socket_io_judge(error) : (int)CBASE_DONE;
    return count >= 0 || *outcome != CBASE_DONE;
}

/* ---- socket_read.c ---- */

typedef struct {
    PyObject *buffer; // where to, borrowed; NULL: to new bytes
    Py_ssize_t size;  // at most; 0 with a buffer: all of it
    int flags;
    int function; // that is stood for
} reading;

/* raw.recv() and raw.recvfrom(), for bytes: one attempt: DONE, BLOCKED or FAILED. `from`: NULL if
 * nobody asks for it. */
int cbase_socket_read_bytes(struct cbase_socket_io_state *io, raw_socket *raw, const reading *what,
                            address *from, PyObject **result, int *was_short);
/* *result: with the address that it came from. */
cbase_outcome cbase_socket_read_add_address(const address *from, PyObject **result);

/* ---- socket_write.c ---- */

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

static const part whole = {0, 0, -1};

/* raw.send(data[start:stop], flags), or sendto(): one attempt. Not ours if the data has another
 * length now. */
int cbase_socket_write_try(const stream *io, const writing *what, const part *which,
                           Py_ssize_t *count);
/* send() and sendto() after an attempt that was in vain: waits, and tries once more. */
cbase_outcome cbase_socket_write_blocked(stream *io, const writing *what, const part *which,
                                         int timeout, Py_ssize_t *count);
/* The result of send() and sendto(). */
cbase_outcome cbase_socket_write_result(cbase_outcome outcome, Py_ssize_t count,
                                        PyObject **result);

#endif

#endif
