/* What accepting (socket_accept.c) and closing (socket_close.c) know about socket objects. */
#ifndef CBASE_SOCKETS_H
#define CBASE_SOCKETS_H

#include "cbase.h"

/* The beginning of PySocketSockObject. */
typedef struct {
    PyObject_HEAD int fd;
    int family;
    int type;
    int proto;
    PyObject *(*errorhandler)(void);
    int64_t timeout; // nanoseconds; 0: non-blocking
} raw_socket;

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
 * Other threads come and go without the GIL, so nothing is read of theirs: one that is alone is
 * the first in the list of threads, and has none behind it. */
static inline PyThreadState *
let_others_run(void)
{
    PyThreadState *thread = PyThreadState_Get();
    int alone = PyInterpreterState_ThreadHead(PyThreadState_GetInterpreter(thread)) == thread
                && PyThreadState_Next(thread) == NULL;

    return alone ? NULL : PyEval_SaveThread();
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
