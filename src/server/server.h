/* The face of this storey: gevent.baseserver in C. What it takes from below are steps and calls;
 * it does not know how sockets, pools or greenlets are built.
 *
 * `self` is an instance of BaseServer. Every call into Python may run anything, also close or free
 * that server.
 */
#ifndef CBASE_SERVER_H
#define CBASE_SERVER_H

#include "native/native.h"

/* The module function _server_NAME(self, argument), for a method of the class that does what
 * name(st, self, argument) does, which returns 0 or -1. The frame of the method, in Python, owns
 * both, whatever happens to its greenlet. */
#define CBASE_METHOD_WITH_ARGUMENT(name)                                                          \
    static PyObject *server_##name(PyObject *module, PyObject *args)                              \
    {                                                                                             \
        PyObject *self, *argument;                                                                \
        if (!PyArg_UnpackTuple(args, "_server_" #name, 2, 2, &self, &argument)                    \
            || name(cbase_module_state(module), self, argument) < 0)                              \
        {                                                                                         \
            return NULL;                                                                          \
        }                                                                                         \
        return Py_NewRef(Py_None);                                                                \
    }

/* ---- class.c: the class ---- */

/* A function of the class, and its code when the class was taken. Both owned. */
typedef struct {
    PyObject *function, *code;
} cbase_own_function;

struct cbase_class {
    PyTypeObject *BaseServer; // owned; NULL until it has been defined
    cbase_own_function full, do_handle, do_close;
};

extern PyMethodDef cbase_class_functions[];

int cbase_class_init(cbase_state *st);
/* Whether nobody has given a function other code. */
static inline int
cbase_class_is_own(const cbase_own_function *own)
{
    return own->code != NULL && PyFunction_GET_CODE(own->function) == own->code;
}

/* The same of all that are known. */
static inline int
cbase_class_is_as_taken(const cbase_state *st)
{
    const struct cbase_class *c = st->class;

    return cbase_class_is_own(&c->full) && cbase_class_is_own(&c->do_handle)
           && cbase_class_is_own(&c->do_close);
}

/* Whether this is do_close() of the class, which does nothing. */
static inline int
cbase_class_is_do_close(const cbase_state *st, PyObject *method)
{
    const cbase_own_function *own = &st->class->do_close;

    return Py_IS_TYPE(method, &PyMethod_Type) && PyMethod_GET_FUNCTION(method) == own->function
           && cbase_class_is_own(own);
}

/* Whether an object is a server that runs on the class. */
int cbase_class_has(const cbase_state *st, PyObject *obj);

/* ---- lifecycle.c: start, stop and what lies between ---- */

extern PyMethodDef cbase_lifecycle_functions[];

struct cbase_lifecycle {
    /* Counts BaseServer.close(): tells the accept loop that some server has been closed. */
    unsigned long closes;
    struct starting *starting; // those under way
};

int cbase_lifecycle_init(cbase_state *st);

/* ---- accept_loop.c ---- */

extern PyMethodDef cbase_accept_loop_functions[];

/* ---- hooks.c: what the accept loop calls and reads on one server ---- */

extern PyMethodDef cbase_hooks_functions[];

/* A caller's copy owns the objects; to begin with it is all zero. */
typedef struct {
    Py_ssize_t max_accept;    // or 0: unknown
    int has_socket;           // the instance has `socket`
    int never_full;           // `full` is BaseServer's
    int delay_is_reset;       // `delay` is the very object `min_delay`
    int base_do_handle;       // `do_handle` is BaseServer's
    int close_does_nothing;   // `do_close` is BaseServer's
    PyObject *full;           // `full` of the instance, or NULL
    PyObject *do_read;        // function of the class, to be called with self; or NULL: unknown
    int takes_datagrams;      // `do_read` is DatagramServer's
    PyObject *listener;       // `socket` of the instance, if do_read is StreamServer's; `_socket`,
                              // if it is DatagramServer's; or NULL
    PyObject *spawn;          // `_spawn`, or NULL: unknown
    PyObject *handle;         // `_handle`, or NULL: unknown
    PyObject *close_function; // `do_close` is this Python function of the class; or NULL

    /* True as long as these are the same. Compared only. */
    cbase_class_stamp class;
    PyObject *self, *dict;
    uint64_t stamp;
} cbase_hooks;

int cbase_hooks_init(cbase_state *st);
/* 1 and *hooks are what is true of a server now, also if they were true already; 0 if ordinary
 * attribute access has to be used, or -1, and then they are empty. */
int cbase_hooks_get(cbase_state *st, PyObject *self, cbase_hooks *hooks);
/* Lets go of what they own. */
void cbase_hooks_drop(cbase_hooks *hooks);

/* ---- handover.c: from an accepted connection to its handler ---- */

extern PyMethodDef cbase_handover_functions[];

int cbase_handover_init(cbase_state *st);

/* self.do_handle(*args) for BaseServer's own do_handle. `args` is a tuple. `hooks`: those of
 * the server, valid now, or NULL. */
int cbase_handover(cbase_state *st, PyObject *self, const cbase_hooks *hooks, PyObject *args);

/* ---- backoff.c: how accepting stops for a while ---- */

/* Stop accepting, start again after self.delay, double the delay; a negative one: go on. */
int cbase_backoff_pause(cbase_state *st, PyObject *self);
/* The same for a server that is accepting no more: the timer and the doubling only. */
int cbase_backoff_resume_later(cbase_state *st, PyObject *self);

/* The io watcher or timer in an attribute of a server, before it is stopped: what calls the
 * server again where there is no memory for a pause. Both NULL if there is none. */
typedef struct {
    PyObject *attr;               // borrowed
    PyObject *watcher, *callback; // owned
} cbase_backoff_waker;

/* Keeps an exception that is set. */
void cbase_backoff_waker_take(cbase_state *st, PyObject *self, PyObject *attr,
                              cbase_backoff_waker *waker);
void cbase_backoff_waker_drop(cbase_backoff_waker *waker);
/* With an exception set that is about to reach the event loop, which stops the io watcher for
 * that: make sure that accepting goes on later. 0 if the exception is still set; 1 if it has
 * been written to stderr, and must not reach the loop. */
int cbase_backoff_never_deaf(cbase_state *st, PyObject *self, cbase_backoff_waker *waker);
/* The same for a MemoryError; 0 for all else, as gevent does not go on after it either. */
int cbase_backoff_no_memory(cbase_state *st, PyObject *self, cbase_backoff_waker *waker);
/* With an exception set that has nothing to do with a connection: 0 if it was a lack of memory,
 * and accepting goes on, or -1. `attr` holds what has called the server. */
int cbase_backoff_go_on(cbase_state *st, PyObject *self, PyObject *attr);

/* ---- pool.c: pools and what resembles one ---- */

/* Have the pool call back when a slot is free: 1, 0 if it cannot, or -1. */
int cbase_pool_link(cbase_state *st, PyObject *self, PyObject *pool);
int cbase_pool_unlink(cbase_state *st, PyObject *self, PyObject *pool);
/* Wait for its greenlets for `timeout` seconds, then kill the rest. */
int cbase_pool_finish(cbase_state *st, PyObject *self, PyObject *timeout);

/* ---- parse_address.c ---- */

extern PyMethodDef cbase_parse_address_functions[];

PyObject *cbase_parse_address(cbase_state *st, PyObject *address);

/* ---- repr.c: repr and properties ---- */

extern PyMethodDef cbase_repr_functions[];

/* ---- counters.c: what is counted about servers ---- */

extern PyMethodDef cbase_counters_functions[];

#define CBASE_ERRNOS 256 /* errno values that are told apart; Linux has 133 */

enum { CBASE_NO_PAUSE, CBASE_FULL, CBASE_BACKOFF, CBASE_PAUSES };

typedef struct cbase_counters {
    struct cbase_counters *next;
    PyObject *server; // borrowed: valid as long as the weak reference is
    PyObject *ref;    // weak reference to the server
    unsigned long long accepted, spawn_errors, accept_errors[CBASE_ERRNOS];
    int pause;    // under way: CBASE_FULL, CBASE_BACKOFF or CBASE_NO_PAUSE
    double since; // when it began
    unsigned long long pauses[CBASE_PAUSES];
    double seconds[CBASE_PAUSES]; // of those that are over
} cbase_counters;

int cbase_counters_init(PyObject *module, cbase_state *st);
/* The counters of a server, to be used as long as the server is owned. Never NULL. */
cbase_counters *cbase_counters_of(cbase_state *st, PyObject *self);
/* Counts the exception that do_read has raised, which is set and stays so. */
void cbase_counters_accept_error(cbase_counters *counters);
/* A pause begins, CBASE_FULL or CBASE_BACKOFF, unless one is under way; and it ends. */
void cbase_counters_pause(cbase_state *st, PyObject *self, int kind);
void cbase_counters_end_pause(cbase_counters *counters);
void cbase_counters_resume(cbase_state *st, PyObject *self);

/* ---- taken.c: which native steps a server takes, for stats() ---- */

extern PyMethodDef cbase_taken_functions[];

/* ---- instance_dict.c: the instance dict of a server ---- */

/* self.__dict__.pop(name, None); *value, if wanted, receives what was there or NULL. */
int cbase_instance_dict_pop(cbase_state *st, PyObject *self, PyObject *name, PyObject **value);
/* self.__dict__.get(name): 1 and an owned *value, 0 and NULL (absent or None), or -1. */
int cbase_instance_dict_get(cbase_state *st, PyObject *self, PyObject *name, PyObject **value);
/* A new dict with those of `handle`, `_handle`, `_spawn` and `full` that the server holds, and
 * the way back: sets what the server lacks of it. */
PyObject *cbase_instance_dict_pick_handler(cbase_state *st, PyObject *self);
int cbase_instance_dict_fill(PyObject *self, PyObject *picked);

#endif
