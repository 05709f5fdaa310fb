/* Pools: what a server asks of the object given as `spawn`.
 *
 * gevent's Pool has `spawn`, `full`, `_semaphore`, `join` and `kill`. Unlike gevent's class,
 * which needs them all, a server here works with any object that has `spawn`: without a
 * semaphore to link to it is polled while full, without `join` or `kill` it is not waited for.
 *
 * Does not know how a pool spawns: native/pool_spawn.c.
 */
#include "server/server.h"

/* pool._semaphore.<name>: 1 and an owned *method, 0 and NULL if there is none, or -1. */
static int
semaphore_method(cbase_state *st, PyObject *pool, PyObject *name, PyObject **method)
{
    PyObject *semaphore;
    int found = compat_get_optional(pool, st->s__semaphore, &semaphore);

    *method = NULL;
    if (found > 0) {
        found = compat_get_optional(semaphore, name, method);
        Py_DECREF(semaphore);
    }
    return found;
}

static int
call_with_callback(cbase_state *st, PyObject *self, PyObject *pool, PyObject *name)
{
    PyObject *method, *callback, *result;
    int found = semaphore_method(st, pool, name, &method);

    if (found <= 0) {
        return found;
    }
    callback = PyObject_GetAttr(self, st->s__start_accepting_if_started);
    if (callback == NULL) {
        Py_DECREF(method);
        return -1;
    }
    result = PyObject_CallOneArg(method, callback);
    Py_DECREF(callback);
    Py_DECREF(method);
    if (result == NULL) {
        return -1;
    }
    Py_DECREF(result);
    return 1;
}

int
cbase_pool_link(cbase_state *st, PyObject *self, PyObject *pool)
{
    return call_with_callback(st, self, pool, st->s_rawlink);
}

int
cbase_pool_unlink(cbase_state *st, PyObject *self, PyObject *pool)
{
    return call_with_callback(st, self, pool, st->s_unlink);
}

/* self.pool.<name>(**kwargs) with the values in `args`; does nothing if there is no method. */
static int
call_if_present(cbase_state *st, PyObject *self, PyObject *name, PyObject *const *args,
                PyObject *kwnames)
{
    PyObject *pool = PyObject_GetAttr(self, st->s_pool);
    PyObject *method = NULL, *result = NULL;
    int found = -1;

    if (pool == NULL) {
        return -1;
    }
    found = compat_get_optional(pool, name, &method);
    if (found > 0) {
        result = PyObject_Vectorcall(method, args, 0, kwnames);
        found = result == NULL ? -1 : 0;
    }
    Py_XDECREF(result);
    Py_XDECREF(method);
    Py_DECREF(pool);
    return found;
}

int
cbase_pool_finish(cbase_state *st, PyObject *self, PyObject *timeout)
{
    PyObject *kill_args[2] = {Py_True, st->one};

    if (call_if_present(st, self, st->s_join, &timeout, st->kw_timeout) < 0) {
        return -1;
    }
    return call_if_present(st, self, st->s_kill, kill_args, st->kw_block_timeout);
}
