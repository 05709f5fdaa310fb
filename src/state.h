/* The state of the module: interned names, constants, and one pointer for each file that keeps a
 * state. What such a state is, its file alone knows; only what several files of a storey have in
 * common lies in a header of that storey.
 *
 * Made when the module is loaded, and never freed.
 */
#ifndef CBASE_STATE_H
#define CBASE_STATE_H

#include "names.h"
#include "python/python.h"

typedef struct {
#define X(name) PyObject *s_##name;
    CBASE_NAMES(X)
#undef X
    PyObject *s_default; // 'default'

    PyObject *Event;        // gevent.event.Event
    PyObject *Greenlet;     // gevent.greenlet.Greenlet
    PyObject *GreenletExit; // greenlet.GreenletExit
    PyObject *get_hub;      // gevent.hub.get_hub
    PyObject *sys;
    PyObject *address_any; // ''
    PyObject *zero, *one, *two;
    PyObject *family_inet, *family_inet6;
    PyObject *all_but_first, *between_ends;                        // slice(1, None), slice(1, -1)
    PyObject *no_args;                                             // ()
    PyObject *kw_timeout, *kw_block_timeout, *kw_blocking_timeout; // keyword names of calls

    /* native/ */
    struct cbase_premises_state *premises;
    struct cbase_sockets *sockets; // socket.h
    struct cbase_socket_io_state *socket_io;
    struct cbase_io_wait_state *io_wait;
    struct cbase_pool_spawn_state *pool_spawn;
    struct cbase_greenlet_state *greenlets;
    struct cbase_hub_state *hub;
    struct cbase_batch_state *batch;

    /* server/ */
    struct cbase_class *class;         // server.h
    struct cbase_lifecycle *lifecycle; // server.h
    struct cbase_hooks_state *hooks;
    struct cbase_counters_state *counters;
    struct cbase_handover_state *handover;
} cbase_state;

/* The state behind `module`. */
static inline cbase_state *
cbase_module_state(PyObject *module)
{
    return (cbase_state *)PyModule_GetState(module);
}

/* Memory for what a file keeps, all zero and never freed; or NULL with an exception. */
static inline void *
cbase_state_new(size_t size)
{
    void *state = PyMem_Calloc(1, size);

    if (state == NULL) {
        PyErr_NoMemory();
    }
    return state;
}

#endif
