/* Which native steps a server takes now, for gevent_cbase.stats(): why a fast path is off.
 *
 * Does not know how a step decides; it asks each.
 */
#include "server/server.h"

/* Whether the server has spawn() and full() of a plain Pool: 1, 0 or -1. Spawning in it needs no
 * hooks. */
static int
has_plain_pool(cbase_state *st, PyObject *server)
{
    PyObject *full, *spawn = NULL;
    int found = compat_get_optional(server, st->s_full, &full);

    if (found > 0) {
        found = compat_get_optional(server, st->s__spawn, &spawn);
    }
    if (found > 0) {
        found = cbase_pool_spawn_is_plain(st, full, spawn);
    }
    Py_XDECREF(full);
    Py_XDECREF(spawn);
    return found;
}

static PyObject *
steps(PyObject *module, PyObject *server)
{
    cbase_state *st = cbase_module_state(module);
    cbase_hooks h = {0};
    int reads = 0, accepts = 0, closes = 0, pool = 0;
    int sockets = cbase_socket_accept_known(st);
    int pools = sockets < 0 ? -1 : cbase_pool_spawn_known(st);

    /* The class gets a version by an ordinary look-up, unless it is out of them. */
    if (pools < 0 || cbase_object_has(server, st->s_loop) < 0) {
        return NULL;
    }
    int lookups = cbase_hooks_get(st, server, &h);
    if (lookups > 0) {
        reads = sockets && cbase_socket_accept_is_do_read(st, h.do_read);
        accepts = reads && h.listener != NULL && cbase_socket_accept_is_listener(st, h.listener);
        closes = sockets && cbase_socket_close_is_do_close(st, h.close_function);
    }
    cbase_hooks_drop(&h);
    if (lookups < 0 || (pools && (pool = has_plain_pool(st, server)) < 0)) {
        return NULL;
    }
    return Py_BuildValue("NNNNNNN", PyBool_FromLong(lookups), PyBool_FromLong(sockets),
                         PyBool_FromLong(reads), PyBool_FromLong(accepts), PyBool_FromLong(closes),
                         PyBool_FromLong(pools), PyBool_FromLong(pool));
}

PyMethodDef cbase_taken_functions[] = {
    {"_stats_steps", steps, METH_O,
     PyDoc_STR("_stats_steps($module, server, /)\n--\n\n"
               "Return, as bools: look-ups are remembered; StreamServer is known; the server has\n"
               "its do_read, a listener to accept from in C, its do_close; Pool is known; the\n"
               "server has the methods of a plain one.")},
    {NULL, NULL, 0, NULL},
};
