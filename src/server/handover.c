/* From an accepted connection to its handler: do_handle, do_close, and the function that runs
 * in the handler's greenlet.
 *
 * Does not know the accept loop, nor what do_read() has returned: these are arguments for the
 * handler.
 */
#include "server/server.h"

/* close(*args) */
static PyObject *
call_close(cbase_state *st, PyObject *close, PyObject *args)
{
    cbase_outcome outcome = cbase_socket_close(st, close, args);

    if (outcome != CBASE_NOT_OURS) {
        return outcome == CBASE_FAILED ? NULL : Py_NewRef(Py_None);
    }
    return cbase_call_star(close, args);
}

/* close(*args) for a `finally` or `except` block with an exception set: that exception again,
 * or the one of close(). Always NULL. */
static PyObject *
close_and_reraise(cbase_state *st, PyObject *close, PyObject *args)
{
    cbase_except block;

    cbase_except_enter(&block);
    Py_XDECREF(call_close(st, close, args));
    cbase_except_reraise(&block);
    return NULL;
}

/* try: return handle(*args) finally: close(*args). `close` may be NULL: nothing to do. */
static PyObject *
handle_and_close(cbase_state *st, PyObject *handle, PyObject *close, PyObject *args)
{
    PyObject *result = cbase_call_star(handle, args);

    if (close == NULL) {
        return result;
    }
    if (result == NULL) {
        return close_and_reraise(st, close, args);
    }
    PyObject *closed = call_close(st, close, args);
    if (closed == NULL) {
        Py_DECREF(result);
        return NULL;
    }
    Py_DECREF(closed);
    return result;
}

/* The three things that do_handle looks up on the server. */
typedef struct {
    PyObject *spawn, *handle, *close; // owned; close: NULL if it does nothing
} parts;

static void
parts_clear(parts *p)
{
    Py_CLEAR(p->spawn);
    Py_CLEAR(p->handle);
    Py_CLEAR(p->close);
}

/* The parts as the hooks have them: 1, 0 if these do not tell all of them, or -1. */
static int
known_parts(cbase_state *st, const cbase_hooks *hooks, PyObject *self, parts *p)
{
    if (hooks == NULL || hooks->spawn == NULL || hooks->handle == NULL) {
        return 0;
    }
    if (hooks->close_function != NULL) {
        p->close = cbase_batch_method(st, CBASE_BATCH_DO_CLOSE, hooks->close_function, self);
        if (p->close == NULL) {
            return -1;
        }
    }
    else if (!hooks->close_does_nothing || hooks->spawn != Py_None) {
        return 0;
    }
    p->spawn = Py_NewRef(hooks->spawn);
    p->handle = Py_NewRef(hooks->handle);
    return 1;
}

static int
find_parts(cbase_state *st, PyObject *self, const cbase_hooks *hooks, parts *p)
{
    int known = known_parts(st, hooks, self, p);

    if (known != 0) {
        return known < 0 ? -1 : 0;
    }
    p->spawn = PyObject_GetAttr(self, st->s__spawn);
    p->handle = p->spawn == NULL ? NULL : PyObject_GetAttr(self, st->s__handle);
    p->close = p->handle == NULL ? NULL : PyObject_GetAttr(self, st->s_do_close);
    return p->close == NULL ? -1 : 0;
}

int
cbase_handover(cbase_state *st, PyObject *self, const cbase_hooks *hooks, PyObject *args)
{
    parts p = {NULL, NULL, NULL};
    PyObject *result;

    if (find_parts(st, self, hooks, &p) < 0) {
        parts_clear(&p);
        return -1;
    }
    if (p.spawn == Py_None) {
        result = handle_and_close(st, p.handle, p.close, args);
    }
    else {
        PyObject *call[4] = {st->handle_and_close, p.handle, p.close, args};
        if (cbase_greenlet_spawn(st, p.spawn, call, 4, &result) == CBASE_NOT_OURS
            && cbase_pool_spawn(st, p.spawn, call, 4, &result) == CBASE_NOT_OURS)
        {
            result = PyObject_Vectorcall(p.spawn, call, 4, NULL);
        }
    }
    if (result == NULL && p.close != NULL) {
        (void)close_and_reraise(st, p.close, args);
    }
    int failed = result == NULL;
    Py_XDECREF(result);
    parts_clear(&p);
    return failed ? -1 : 0;
}

CBASE_METHOD(server_do_handle)
{
    if (cbase_args_no_keywords("do_handle", kwnames) < 0) {
        return NULL;
    }
    PyObject *tuple = PyTuple_New(nargs);
    if (tuple == NULL) {
        return NULL;
    }
    for (Py_ssize_t i = 0; i < nargs; i++) {
        PyTuple_SET_ITEM(tuple, i, Py_NewRef(args[i]));
    }
    cbase_state *st = cbase_class_state(cls);
    int result = cbase_handover(st, self, NULL, tuple);
    cbase_batch_end(st); // as this may be no part of one
    Py_DECREF(tuple);
    return result < 0 ? NULL : Py_NewRef(Py_None);
}

CBASE_METHOD(server_do_close)
{
    (void)self, (void)cls, (void)args, (void)nargs;
    if (cbase_args_no_keywords("do_close", kwnames) < 0) {
        return NULL;
    }
    return Py_NewRef(Py_None);
}

static PyObject *
handle_and_close_when_done(PyObject *module, PyObject *const *args, Py_ssize_t nargs,
                           PyObject *kwnames)
{
    static const cbase_args_params params = {
        "_handle_and_close_when_done", 3, {"handle", "close", "args_tuple", NULL}};
    PyObject *given[3];

    if (cbase_args_parse(&params, args, nargs, kwnames, given) < 0) {
        return NULL;
    }
    /* A greenlet that is killed while it runs drops the arguments that it was started with. */
    PyObject *handle = Py_NewRef(given[0]);
    PyObject *close = Py_NewRef(given[1]);
    PyObject *args_tuple = Py_NewRef(given[2]);
    PyObject *result = handle_and_close(cbase_module_state(module), handle, close, args_tuple);
    Py_DECREF(args_tuple);
    Py_DECREF(close);
    Py_DECREF(handle);
    return result;
}

PyMethodDef cbase_handover_functions[] = {
    CBASE_FUNCTION_DEF(
        "_handle_and_close_when_done", handle_and_close_when_done,
        "_handle_and_close_when_done($module, handle, close, args_tuple)\n--\n\n"
        "Return handle(*args_tuple); call close(*args_tuple) when it returns or raises.\n\n"
        "This is what runs in the greenlet of each connection."),
    {NULL, NULL, 0, NULL},
};

PyMethodDef cbase_handover_methods[] = {
    CBASE_METHOD_DEF(
        "do_handle", server_do_handle,
        "do_handle($self, /, *args)\n--\n\n"
        "Run the handler for one connection, in a greenlet made by the spawn function.\n\n"
        "args: what do_read() returned; the handler gets them as its arguments and do_close()\n"
        "after it, also when the handler raises. With spawn=None the handler runs at once, in\n"
        "the hub, and must not block.\n\n"
        "Raises what the spawn function raises, after do_close(*args). Since 1.0."),
    CBASE_METHOD_DEF(
        "do_close", server_do_close,
        "do_close($self, /, *args)\n--\n\n"
        "Called with the arguments of the handler when it is done. Does nothing; subclasses\n"
        "close the connection here. Since 1.0."),
    {NULL, NULL, 0, NULL},
};
