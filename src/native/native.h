/* The face of this storey: steps that stand for Python code of gevent, each taken only where that
 * code is known to be what would run. It knows no server: what a server is given is an object.
 */
#ifndef CBASE_NATIVE_H
#define CBASE_NATIVE_H

#include "state.h"

/* Defined where gevent's sockets are accepted, read, written and closed in C. */
#if defined(__linux__) && !defined(CBASE_PORTABLE)
#define CBASE_HAVE_SOCKETS 1
#endif

/* How a native step has ended. */
typedef enum {
    CBASE_FAILED = -1,  // with an exception set
    CBASE_NOT_OURS = 0, // gevent's code has to run; nothing was done
    CBASE_DONE = 1,
} cbase_outcome;

/* What stands for a Python function, for function_calls.c: its arguments, `self` first. */
typedef cbase_outcome cbase_call(cbase_state *st, PyObject *const *args, size_t nargs,
                                 PyObject **result);

/* ---- premises.c: is gevent's code still what it was? ---- */

extern PyMethodDef cbase_premises_functions[];

int cbase_premises_init(cbase_state *st);
/* Compare what could not be compared before: 0 or -1. */
int cbase_premises_compare_again(cbase_state *st);
/* What is called whenever gevent was compared: what was found out about it may be another thing
 * now. */
void cbase_premises_on_compared(cbase_state *st, void (*call)(cbase_state *st));

/* ---- socket_accept.c: do_read() of gevent's stream servers ---- */

extern PyMethodDef cbase_socket_accept_functions[];

int cbase_socket_accept_init(cbase_state *st);
/* Looks for what the steps need, once gevent.server is loaded: 0 or -1. */
int cbase_socket_accept_find(cbase_state *st);
/* StreamServer.do_read for this listener, and its result. */
cbase_outcome cbase_socket_accept(cbase_state *st, PyObject *listener, PyObject **result);
/* Drops what is kept of closed sockets; nothing is kept until the next client is accepted. */
void cbase_socket_accept_drop_kept(void);
/* Whether gevent's code is what accepting and closing stand for (1, 0 or -1), and whether this is
 * a listener that connections are accepted from. */
int cbase_socket_accept_known(cbase_state *st);
int cbase_socket_accept_is_listener(const cbase_state *st, PyObject *listener);
/* Whether a function, or NULL, is StreamServer.do_read. */
int cbase_socket_accept_is_do_read(const cbase_state *st, PyObject *function);

/* ---- socket_close.c: do_close() of gevent's stream servers, and socket.close() ---- */

extern PyMethodDef cbase_socket_close_functions[];

/* close(*args), if `close` is StreamServer.do_close for a socket of gevent. */
cbase_outcome cbase_socket_close(cbase_state *st, PyObject *close, PyObject *args);
/* Whether a function, or NULL, is StreamServer.do_close. */
int cbase_socket_close_is_do_close(const cbase_state *st, PyObject *function);
/* socket.close(). */
cbase_call cbase_socket_close_call;

/* ---- socket_io.c: reading and writing of gevent's sockets ---- */

extern PyMethodDef cbase_socket_io_functions[];

int cbase_socket_io_init(cbase_state *st);
/* The handler of this client begins: what was read from its descriptor is of no account. */
void cbase_socket_io_begin(const cbase_state *st, PyObject *client);

/* ---- socket_read.c, socket_write.c: functions of SocketMixin, for function_calls.c ---- */

/* Each may switch to other greenlets. */
cbase_call cbase_socket_read_recv, cbase_socket_read_recv_into, cbase_socket_read_recvfrom,
    cbase_socket_read_recvfrom_into, cbase_socket_write_send, cbase_socket_write_sendall;

/* ---- socket_datagram.c: sendto() of SocketMixin and of gevent's DatagramServer ---- */

/* Each may switch to other greenlets. */
cbase_call cbase_socket_datagram_sendto, cbase_socket_datagram_server_sendto;
/* DatagramServer.do_read for this socket, its `_socket`, and its result. */
cbase_outcome cbase_socket_datagram_do_read(cbase_state *st, PyObject *raw, PyObject **result);
/* Whether a function, or NULL, is DatagramServer.do_read. */
int cbase_socket_datagram_is_do_read(const cbase_state *st, PyObject *function);

/* ---- io_wait.c: waiting for them ---- */

int cbase_io_wait_init(PyObject *module, cbase_state *st);

/* ---- function_calls.c: calls of gevent's Python functions by anyone ---- */

extern PyMethodDef cbase_function_calls_functions[];

int cbase_function_calls_init(PyObject *module);

/* ---- pool_spawn.c: full() and spawn() of gevent's Pool ---- */

extern PyMethodDef cbase_pool_spawn_functions[];

int cbase_pool_spawn_init(cbase_state *st);
/* Looks for what the steps need, once gevent.pool is loaded: 0 or -1. */
int cbase_pool_spawn_find(cbase_state *st);
/* full(), if it is Pool's, and its result. */
cbase_outcome cbase_pool_spawn_full(cbase_state *st, PyObject *full, int *result);
/* spawn(*args), if it is Pool's, and the greenlet. */
cbase_outcome cbase_pool_spawn(cbase_state *st, PyObject *spawn, PyObject *const *args,
                               size_t nargs, PyObject **greenlet);
/* Whether gevent's code is what both stand for, and whether `full` and `_spawn` of a server are
 * what they are taken for: 1, 0 or -1. */
int cbase_pool_spawn_known(cbase_state *st);
int cbase_pool_spawn_is_plain(cbase_state *st, PyObject *full, PyObject *spawn);

/* ---- greenlets.c: Greenlet(), Greenlet.spawn() and spawn_raw() of gevent ---- */

#define CBASE_SPAWN_ARGS 4 /* at most */

extern PyMethodDef cbase_greenlet_functions[];

int cbase_greenlet_init(cbase_state *st);
/* Looks for what the steps need: 0 or -1. */
int cbase_greenlet_find(cbase_state *st);
/* cls(*args), if `cls` is gevent's Greenlet, and spawn(*args), if that is gevent's; there is at
 * least one argument. */
cbase_outcome cbase_greenlet_new(cbase_state *st, PyObject *cls, PyObject *const *args,
                                 size_t nargs, PyObject **greenlet);
cbase_outcome cbase_greenlet_spawn(cbase_state *st, PyObject *spawn, PyObject *const *args,
                                   size_t nargs, PyObject **greenlet);
/* What servers run in the greenlet of a client: function(handle, close, (sock, ...)). */
void cbase_greenlet_set_handler(cbase_state *st, PyObject *function);
/* Whether this is a Greenlet that a server has started to handle a client, or this one. */
int cbase_greenlet_is_handler(cbase_state *st, PyObject *greenlet);
int cbase_greenlet_serves(cbase_state *st, PyObject *greenlet, PyObject *sock);
/* greenlet.rawlink(callback), if it is a Greenlet that was just made and nobody has seen yet. */
cbase_outcome cbase_greenlet_link(cbase_state *st, PyObject *greenlet, PyObject *callback);
/* greenlet.start(): 0 or -1 */
int cbase_greenlet_start(cbase_state *st, PyObject *greenlet);

/* ---- hub.c: the hub of the current thread ---- */

int cbase_hub_init(cbase_state *st);
/* get_hub(), which is gevent's function or any other. */
PyObject *cbase_hub_get(cbase_state *st, PyObject *get_hub);
/* hub.loop */
PyObject *cbase_hub_loop(cbase_state *st, PyObject *hub);
/* For cbase_batch_end(). */
void cbase_hub_drop(cbase_state *st);

/* ---- batch.c: what the connections of a batch share ---- */

enum {
    CBASE_BATCH_DO_CLOSE,
    CBASE_BATCH_DISCARD,
    CBASE_BATCH_METHODS,
};

int cbase_batch_init(cbase_state *st);
/* `function` bound to `self`, owned: the same object until another one is wanted or a batch ends.
 */
PyObject *cbase_batch_method(cbase_state *st, int which, PyObject *function, PyObject *self);
/* Lets go of all of it, so that nothing is kept alive by it. */
void cbase_batch_end(cbase_state *st);

#endif
