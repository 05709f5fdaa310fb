/* The life of a server: start, accept, stop, close, serve_forever.
 *
 * Does not know how a connection is accepted, nor what a pool does with its greenlets.
 */
#include "server/server.h"

/* ---- accepting on and off ---- */

static PyObject *
server_start_accepting(PyObject *module, PyObject *self)
{
    cbase_state *st = cbase_module_state(module);
    PyObject *watcher, *loop = NULL, *fileno = NULL, *callback = NULL, *result = NULL;

    cbase_counters_resume(st, self);
    watcher = PyObject_GetAttr(self, st->s__watcher);
    if (watcher == NULL || watcher != Py_None) {
        Py_XDECREF(watcher);
        return watcher == NULL ? NULL : Py_NewRef(Py_None);
    }
    Py_CLEAR(watcher);
    loop = PyObject_GetAttr(self, st->s_loop);
    if (loop == NULL) {
        goto done;
    }
    PyObject *socket = PyObject_GetAttr(self, st->s_socket);
    if (socket == NULL) {
        goto done;
    }
    fileno = cbase_object_call(socket, st->s_fileno);
    Py_DECREF(socket);
    if (fileno == NULL) {
        goto done;
    }
    PyObject *io_args[3] = {loop, fileno, st->one}; // 1: readable
    watcher = PyObject_VectorcallMethod(st->s_io, io_args, 3, NULL);
    if (watcher == NULL || PyObject_SetAttr(self, st->s__watcher, watcher) < 0) {
        goto done;
    }
    Py_SETREF(watcher, PyObject_GetAttr(self, st->s__watcher));
    if (watcher == NULL) {
        goto done;
    }
    callback = PyObject_GetAttr(self, st->s__do_read);
    if (callback == NULL) {
        goto done;
    }
    result = cbase_object_call_one(watcher, st->s_start, callback);
    if (result != NULL) {
        Py_SETREF(result, Py_NewRef(Py_None));
    }
done:
    Py_XDECREF(callback);
    Py_XDECREF(fileno);
    Py_XDECREF(loop);
    Py_XDECREF(watcher);
    return result;
}

/* bool(self.started): 1, 0 or -1. */
static int
is_started(cbase_state *st, PyObject *self)
{
    PyObject *started = PyObject_GetAttr(self, st->s_started);

    if (started == NULL) {
        return -1;
    }
    int truth = PyObject_IsTrue(started);
    Py_DECREF(started);
    return truth;
}

static PyObject *
server_start_accepting_if_started(PyObject *module, PyObject *self)
{
    cbase_state *st = cbase_module_state(module);
    int started = is_started(st, self);
    if (started > 0) {
        started = cbase_object_run(self, st->s_start_accepting);
    }
    if (started < 0) {
        started = cbase_backoff_go_on(st, self, st->s__timer);
    }
    return started < 0 ? NULL : Py_NewRef(Py_None);
}

/* Stop and close the watcher in `attr`, if there is one. Stopping may run anything, also this
 * again: the attribute is read anew each time. */
static int
drop_watcher(PyObject *self, PyObject *attr, cbase_state *st)
{
    PyObject *watcher = PyObject_GetAttr(self, attr);

    if (watcher == NULL) {
        return -1;
    }
    if (watcher == Py_None) {
        Py_DECREF(watcher);
        return 0;
    }
    int result = cbase_object_run(watcher, st->s_stop);
    Py_DECREF(watcher);
    if (result < 0 || cbase_object_run_on(self, attr, st->s_close) < 0) {
        return -1;
    }
    return PyObject_SetAttr(self, attr, Py_None);
}

static PyObject *
server_stop_accepting(PyObject *module, PyObject *self)
{
    cbase_state *st = cbase_module_state(module);

    if (drop_watcher(self, st->s__watcher, st) < 0 || drop_watcher(self, st->s__timer, st) < 0) {
        return NULL;
    }
    cbase_counters_resume(st, self);
    return Py_NewRef(Py_None);
}

/* ---- start ---- */

/* A start() that is under way. On the heap, as the stack of a greenlet that waits is moved. */
typedef struct starting {
    struct starting *next;
    PyObject *server;  // owned: a greenlet that is killed drops what it was started with
    int has_socket;    // it had one to begin with
    int has_companion; // another start() of the server was under way meanwhile
} starting;

/* 0 or -1. */
static int
starting_begin(cbase_state *st, PyObject *self, starting **begun)
{
    int has_socket = cbase_object_dict_has(self, st->s_socket);
    starting *s = has_socket < 0 ? NULL : PyMem_Calloc(1, sizeof(*s));

    if (s == NULL) {
        if (has_socket >= 0) {
            PyErr_NoMemory();
        }
        return -1;
    }
    s->server = Py_NewRef(self);
    s->has_socket = has_socket;
    for (starting *other = st->lifecycle->starting; other != NULL; other = other->next) {
        if (other->server == self) {
            other->has_companion = s->has_companion = 1;
        }
    }
    s->next = st->lifecycle->starting;
    st->lifecycle->starting = s;
    *begun = s;
    return 0;
}

/* Keeps an exception that is set. */
static void
starting_end(cbase_state *st, starting *s)
{
    starting **link = &st->lifecycle->starting;

    while (*link != s) {
        link = &(*link)->next;
    }
    *link = s->next;
    Py_DECREF(s->server);
    PyMem_Free(s);
}

/* With an exception set: close the listener that init_socket has made already, so that start()
 * can be tried again. Unlike gevent's class, which leaves it bound. If two start() of a server are
 * under way at a time, nobody knows whose it is, and it is left alone. */
static void
discard_fresh_socket(cbase_state *st, PyObject *self)
{
    cbase_except block;
    PyObject *socket;

    cbase_except_enter(&block);
    if (cbase_instance_dict_pop(st, self, st->s_socket, &socket) == 0 && socket != NULL) {
        if (cbase_object_run(socket, st->s_close) < 0 && PyErr_ExceptionMatches(PyExc_Exception)) {
            PyErr_Clear();
        }
        Py_DECREF(socket);
    }
    cbase_except_reraise(&block);
}

/* With the exception of start_accepting set: self.close(), but keep the handler and what
 * set_spawn() has set, so that start() can be tried again. */
static void
close_after_failed_start(cbase_state *st, PyObject *self)
{
    cbase_except block;
    PyObject *kept;

    cbase_except_enter(&block);
    kept = cbase_instance_dict_pick_handler(st, self);
    if (cbase_object_run(self, st->s_close) == 0 && kept != NULL) {
        (void)cbase_instance_dict_fill(self, kept);
    }
    Py_XDECREF(kept);
    cbase_except_reraise(&block);
}

static PyObject *
server_start(PyObject *module, PyObject *self)
{
    cbase_state *st = cbase_module_state(module);

    starting *under_way;
    if (starting_begin(st, self, &under_way) < 0) {
        return NULL;
    }
    int result = cbase_object_run(self, st->s_init_socket);
    if (result == 0) {
        result = cbase_object_run_on(self, st->s__stop_event, st->s_clear);
    }
    if (result < 0) {
        if (!under_way->has_socket && !under_way->has_companion) {
            discard_fresh_socket(st, self);
        }
    }
    else {
        result = cbase_object_run(self, st->s_start_accepting);
        if (result < 0) {
            close_after_failed_start(st, self);
        }
    }
    starting_end(st, under_way);
    return result < 0 ? NULL : Py_NewRef(Py_None);
}

/* ---- close ---- */

/* Drop what only an open server has, and the link to its pool. */
static int
forget(cbase_state *st, PyObject *self)
{
    PyObject *names[] = {st->s_socket, st->s_handle, st->s__handle, st->s__spawn, st->s_full};

    for (size_t i = 0; i < Py_ARRAY_LENGTH(names); i++) {
        if (cbase_instance_dict_pop(st, self, names[i], NULL) < 0) {
            return -1;
        }
    }
    st->lifecycle->closes++;
    cbase_socket_accept_drop_kept();
    PyObject *pool = PyObject_GetAttr(self, st->s_pool);
    if (pool == NULL) {
        return -1;
    }
    int result = pool == Py_None ? 0 : cbase_pool_unlink(st, self, pool);
    Py_DECREF(pool);
    return result < 0 ? -1 : 0;
}

/* Close the listener; no Exception of that counts. */
static int
close_socket(cbase_state *st, PyObject *self)
{
    cbase_except block;

    if (cbase_object_run_on(self, st->s_socket, st->s_close) == 0) {
        return forget(st, self);
    }
    if (PyErr_ExceptionMatches(PyExc_Exception)) {
        PyErr_Clear();
        return forget(st, self);
    }
    cbase_except_enter(&block);
    (void)forget(st, self);
    cbase_except_reraise(&block);
    return -1;
}

static PyObject *
server_close(PyObject *module, PyObject *self)
{
    cbase_state *st = cbase_module_state(module);
    cbase_except block;

    if (cbase_object_run_on(self, st->s__stop_event, st->s_set) < 0) {
        return NULL;
    }
    if (cbase_object_run(self, st->s_stop_accepting) < 0) {
        cbase_except_enter(&block);
        (void)close_socket(st, self);
        cbase_except_reraise(&block);
        return NULL;
    }
    return close_socket(st, self) < 0 ? NULL : Py_NewRef(Py_None);
}

/* ---- stop ---- */

static int
stop(cbase_state *st, PyObject *self, PyObject *timeout)
{
    if (cbase_object_run(self, st->s_close) < 0) {
        return -1;
    }
    if (timeout == Py_None) {
        timeout = PyObject_GetAttr(self, st->s_stop_timeout);
    }
    else {
        Py_INCREF(timeout);
    }
    if (timeout == NULL) {
        return -1;
    }
    PyObject *pool = PyObject_GetAttr(self, st->s_pool);
    int result = pool == NULL ? -1 : PyObject_IsTrue(pool);
    Py_XDECREF(pool);
    if (result > 0) {
        result = cbase_pool_finish(st, self, timeout);
    }
    Py_DECREF(timeout);
    return result;
}

/* Greenlet.spawn(stop, timeout=timeout) */
static PyObject *
spawn_stop(cbase_state *st, PyObject *stop, PyObject *timeout)
{
    PyObject *args[2] = {stop, timeout};
    PyObject *class = Py_NewRef(st->Greenlet); // install() may bind another one
    PyObject *spawn = PyObject_GetAttr(class, st->s_spawn);
    PyObject *greenlet =
        spawn == NULL ? NULL : PyObject_Vectorcall(spawn, args, 1, st->kw_timeout);

    Py_XDECREF(spawn);
    Py_DECREF(class);
    return greenlet;
}

/* Greenlet.spawn(self.stop, timeout=timeout).join() */
static int
stop_in_greenlet(cbase_state *st, PyObject *self, PyObject *timeout)
{
    PyObject *stop = PyObject_GetAttr(self, st->s_stop);
    PyObject *greenlet;
    int result = -1;

    if (stop == NULL) {
        return -1;
    }
    greenlet = spawn_stop(st, stop, timeout);
    Py_DECREF(stop);
    if (greenlet != NULL) {
        result = cbase_object_run(greenlet, st->s_join);
        Py_DECREF(greenlet);
    }
    return result;
}

static int
serve_forever(cbase_state *st, PyObject *self, PyObject *timeout)
{
    int started = is_started(st, self);
    cbase_except block;

    if (started < 0 || (!started && cbase_object_run(self, st->s_start) < 0)) {
        return -1;
    }
    if (cbase_object_run_on(self, st->s__stop_event, st->s_wait) < 0) {
        cbase_except_enter(&block);
        (void)stop_in_greenlet(st, self, timeout);
        cbase_except_reraise(&block);
        return -1;
    }
    return stop_in_greenlet(st, self, timeout);
}

CBASE_METHOD_WITH_ARGUMENT(stop)
CBASE_METHOD_WITH_ARGUMENT(serve_forever)

int
cbase_lifecycle_init(cbase_state *st)
{
    st->lifecycle = cbase_state_new(sizeof(*st->lifecycle));
    return st->lifecycle == NULL ? -1 : 0;
}

PyMethodDef cbase_lifecycle_functions[] = {
    {"_server_start_accepting", server_start_accepting, METH_O, NULL},
    {"_server_start_accepting_if_started", server_start_accepting_if_started, METH_O, NULL},
    {"_server_stop_accepting", server_stop_accepting, METH_O, NULL},
    {"_server_start", server_start, METH_O, NULL},
    {"_server_close", server_close, METH_O, NULL},
    {"_server_stop", server_stop, METH_VARARGS, NULL},
    {"_server_serve_forever", server_serve_forever, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};
