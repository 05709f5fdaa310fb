/* What the steps of sockets have in common: gevent's socket objects and those of CPython, and what
 * is known of them.
 */
#ifndef CBASE_SOCKET_H
#define CBASE_SOCKET_H

#include "native/premises.h"

#ifdef CBASE_HAVE_SOCKETS
#include <netinet/in.h>
#include <sys/socket.h>

/* The parts of gevent that the steps work with. */
typedef struct {
    PyTypeObject *socket, *raw, *closed_socket, *stdlib, *hub_class; // classes
    PyTypeObject *base_class;                                        // _socket.socket
    PyTypeObject *loop_class, *io_class; // whose watchers can be kept; object: none
    Py_ssize_t hub, timeout, read_event, write_event, sock, io_refs, closed; // offsets of slots
    Py_ssize_t closed_slots[5];
    PyObject *do_read, *do_close;
    PyObject *get_hub, *getdefaulttimeout;
    PyObject *cancelled;        // what waiters get when their socket is closed
    PyObject *close_later;      // gevent_cbase._native.sockets._close_later
    PyObject *failed;           // gevent_cbase._native.sockets.do_read
    PyObject *close_descriptor; // the function _close_descriptor
    int hub_calls_any;          // whether the hub's function for closing calls whatever it gets
    PyObject *wait;             // gevent._hub_primitives.wait_on_socket
} cbase_socket_parts;

struct cbase_sockets {
    cbase_premises_comparison comparison;
    cbase_premises accept, close;
    const cbase_socket_parts *parts; // or NULL: not known yet
    int no_accept4;                  // the kernel has none, or forbids it
    int unchecked;                   // accepted and received since signals were seen to
    cbase_memo_dict overridden;      // cancel_waits_close_and_then() of the hub
    cbase_memo_class closing_fd;     // of loops
};

#define MOST_UNCHECKED 8 /* clients and datagrams */

/* Under a flood no Python code need run for long that would see to signals: 0 or -1. */
static inline int
see_to_signals(struct cbase_sockets *s)
{
    if (s->unchecked < MOST_UNCHECKED) {
        return 0;
    }
    s->unchecked = 0;
    return PyErr_CheckSignals();
}

/* ---- socket_address.c: addresses of clients ---- */

int cbase_socket_address_known(int family);
/* The address as Python has it. `address` is filled with zeros behind its `length`. */
PyObject *cbase_socket_address(const struct sockaddr_storage *address, socklen_t length);
/* The address of a host as it was made for Python, if that was the last one: 1, or 0. */
int cbase_socket_address_of_host(PyObject *host, struct in_addr *in);

/* ---- socket_raw.c ---- */

/* type(), or one that is kept: all but its weak references and its error handler has to be set. */
PyObject *cbase_socket_raw_new(cbase_state *st, PyTypeObject *type);
/* Drops a reference to the object of a socket that was closed; if it is the last one, it may be
 * kept. */
void cbase_socket_raw_release(const cbase_socket_parts *s, PyObject *raw);
/* _closedsocket.__new__(_closedsocket), or one that was used before: all slots have to be set. */
PyObject *cbase_socket_raw_new_closed(const cbase_socket_parts *s);
/* Drops those that are kept; none are until the next client is accepted. */
void cbase_socket_raw_drop(void);

/* ---- io_watchers.c ---- */

/* events[0] and [1]: owned watchers of `loop` for reading and writing, made or kept. 0 or -1. */
int cbase_io_watchers_make(cbase_state *st, PyObject *loop, int fd, PyObject **events);
/* Keeps the watchers of a socket that is being closed for the next one with that descriptor, if
 * they are idle, nobody else's, and wanted: 1 and they are stolen, or 0. `fd`: -1 if the
 * descriptor was closed before. */
int cbase_io_watchers_keep(cbase_state *st, int fd, PyObject *const *events);
/* Drops all that are kept; none are until the next one is made. */
void cbase_io_watchers_drop(void);

/* Finds out what start() and stop() leave behind in a watcher, which is new: 0 or -1. */
int cbase_io_watchers_learn(cbase_state *st, PyObject *watcher);

/* ---- io_wait.c ---- */

/* sock._wait(watcher), where that is gevent's; the watcher is in the slot of `sock` with this
 * offset. The greenlet may switch: 0 or -1. */
int cbase_io_wait(cbase_state *st, const cbase_socket_parts *s, PyObject *sock,
                  Py_ssize_t watcher);

/* Whether a read of this socket by cbase_io_wait() need not be left to gevent's functions, nor
 * fails at once: this greenlet handles the client behind it, belongs to its hub, and nobody else
 * waits for it. Runs no Python code but that of the watcher. */
int cbase_io_wait_is_plain(cbase_state *st, const cbase_socket_parts *s, PyObject *sock,
                           Py_ssize_t watcher);

/* Whether this greenlet handles some client. */
int cbase_io_wait_in_handler(cbase_state *st);

/* The beginning of PySocketSockObject. */
typedef struct {
    PyObject_HEAD int fd;
    int family;
    int type;
    int proto;
    PyObject *(*errorhandler)(void);
    int64_t timeout; // nanoseconds; 0: non-blocking
} raw_socket;

/* ---- io_turn.c ---- */

/* How many reads in a row need not wait, and whether short ones count; 0: gevent's order. */
void cbase_io_turn_limit(unsigned int most);
/* Whether the next read of a socket has to wait for it, though there may be something. */
int cbase_io_turn_is_over(const raw_socket *raw);
/* Whether who waits for a socket is told of all that is there. */
int cbase_io_turn_is_told(const raw_socket *raw);
/* A read has got something, perhaps less than it asked for. */
void cbase_io_turn_read(const raw_socket *raw, int was_short);
/* There was nothing to read. */
void cbase_io_turn_in_vain(const raw_socket *raw);
/* Forgets what is known of this descriptor. */
void cbase_io_turn_forget(int fd);
/* Around each wait. */
void cbase_io_turn_begin_wait(void);
void cbase_io_turn_end_wait(void);

static inline PyObject **
slot(PyObject *obj, Py_ssize_t offset)
{
    return (PyObject **)((char *)obj + offset);
}

/* Sets a slot to a value, which is stolen. */
static inline void
set_slot(PyObject *obj, Py_ssize_t offset, PyObject *value)
{
    Py_XSETREF(*slot(obj, offset), value);
}

/* Before a system call: releases the GIL if there is another thread that could take it. NULL, or
 * what go_on() needs.
 *
 * Other threads come and go without the GIL, so nothing is read of theirs: one that is alone has
 * none before and none behind it. */
static inline PyThreadState *
let_others_run(void)
{
    const PyThreadState *thread = PyThreadState_Get();

    return thread->prev == NULL && thread->next == NULL ? NULL : PyEval_SaveThread();
}

/* Keeps errno. */
static inline void
go_on(PyThreadState *thread)
{
    if (thread != NULL) {
        PyEval_RestoreThread(thread);
    }
}

#endif

#endif
