/* The life of a server: start, accept, stop, close, serve_forever.
 *
 * Does not know how a connection is accepted, nor what a pool does with its greenlets.
 */
#include "server/server.h"

/* ---- accepting on and off ---- */

CBASE_METHOD(server_start_accepting)
{
    cbase_state *st = cbase_class_state(cls);
    PyObject *watcher, *loop = NULL, *fileno = NULL, *callback = NULL, *result = NULL;

    (void)args;
    if (cbase_args_none("start_accepting", nargs, kwnames) < 0) {
        return NULL;
    }
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

CBASE_METHOD(server_start_accepting_if_started)
{
    static const cbase_args_params params = {"_start_accepting_if_started", 0, {"_event", NULL}};
    cbase_state *st = cbase_class_state(cls);
    PyObject *event;

    if (cbase_args_parse(&params, args, nargs, kwnames, &event) < 0) {
        return NULL;
    }
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

CBASE_METHOD(server_stop_accepting)
{
    cbase_state *st = cbase_class_state(cls);

    (void)args;
    if (cbase_args_none("stop_accepting", nargs, kwnames) < 0
        || drop_watcher(self, st->s__watcher, st) < 0 || drop_watcher(self, st->s__timer, st) < 0)
    {
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

CBASE_METHOD(server_start)
{
    cbase_state *st = cbase_class_state(cls);

    (void)args;
    if (cbase_args_none("start", nargs, kwnames) < 0) {
        return NULL;
    }
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

CBASE_METHOD(server_init_socket)
{
    (void)self, (void)cls, (void)args;
    if (cbase_args_none("init_socket", nargs, kwnames) < 0) {
        return NULL;
    }
    return Py_NewRef(Py_None);
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
    cbase_io_watchers_drop();
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

CBASE_METHOD(server_close)
{
    cbase_state *st = cbase_class_state(cls);
    cbase_except block;

    (void)args;
    if (cbase_args_none("close", nargs, kwnames) < 0
        || cbase_object_run_on(self, st->s__stop_event, st->s_set) < 0)
    {
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

/* A method with one optional argument that runs in greenlets of its own: one that is killed
 * while it runs drops the argument that it was started with, so the method owns it. */
#define BLOCKING_METHOD(function, name, param, run)                                               \
    CBASE_METHOD(function)                                                                        \
    {                                                                                             \
        static const cbase_args_params params = {name, 0, {param, NULL}};                         \
        PyObject *arg;                                                                            \
        if (cbase_args_parse(&params, args, nargs, kwnames, &arg) < 0) {                          \
            return NULL;                                                                          \
        }                                                                                         \
        arg = Py_NewRef(arg == NULL ? Py_None : arg);                                             \
        int result = run(cbase_class_state(cls), self, arg);                                      \
        Py_DECREF(arg);                                                                           \
        return result < 0 ? NULL : Py_NewRef(Py_None);                                            \
    }

BLOCKING_METHOD(server_stop, "stop", "timeout", stop)
BLOCKING_METHOD(server_serve_forever, "serve_forever", "stop_timeout", serve_forever)

CBASE_METHOD(server_enter)
{
    (void)cls, (void)args;
    if (cbase_args_none("__enter__", nargs, kwnames) < 0) {
        return NULL;
    }
    return Py_NewRef(self);
}

CBASE_METHOD(server_exit)
{
    (void)args, (void)nargs;
    if (cbase_args_no_keywords("__exit__", kwnames) < 0
        || cbase_object_run(self, cbase_class_state(cls)->s_stop) < 0)
    {
        return NULL;
    }
    return Py_NewRef(Py_None);
}

int
cbase_lifecycle_init(cbase_state *st)
{
    st->lifecycle = cbase_state_new(sizeof(*st->lifecycle));
    return st->lifecycle == NULL ? -1 : 0;
}

PyMethodDef cbase_lifecycle_methods[] = {
    CBASE_METHOD_DEF("start_accepting", server_start_accepting,
                     "start_accepting($self, /)\n--\n\n"
                     "Accept connections from now on; does nothing if it does so already.\n\n"
                     "Raises AttributeError if there is no listening socket. Since 1.0."),
    CBASE_METHOD_DEF(
        "_start_accepting_if_started", server_start_accepting_if_started,
        "_start_accepting_if_started($self, /, _event=None)\n--\n\n"
        "start_accepting() unless the server is stopped: called by timers and by the pool."),
    CBASE_METHOD_DEF("stop_accepting", server_stop_accepting,
                     "stop_accepting($self, /)\n--\n\n"
                     "Accept no more connections until start_accepting(); the port stays open.\n\n"
                     "Also cancels the pause after an error. Since 1.0."),
    CBASE_METHOD_DEF(
        "init_socket", server_init_socket,
        "init_socket($self, /)\n--\n\n"
        "Called by start() before accepting: a subclass that was given an address creates,\n"
        "binds and opens the listening socket here. Does nothing in this class. Since 1.0."),
    CBASE_METHOD_DEF(
        "start", server_start,
        "start($self, /)\n--\n\n"
        "Open the listening socket if need be, and start to accept connections.\n\n"
        "Raises what init_socket() and start_accepting() raise, OSError for instance if the\n"
        "address is in use; start() may then be tried again. Since 1.0."),
    CBASE_METHOD_DEF(
        "close", server_close,
        "close($self, /)\n--\n\n"
        "Stop accepting and close the listening socket. Handlers go on running. Since 1.0."),
    CBASE_METHOD_DEF(
        "stop", server_stop,
        "stop($self, /, timeout=None)\n--\n\n"
        "close(), and wait for the handlers that run in a pool.\n\n"
        "timeout: seconds until handlers still running are killed; default: stop_timeout (1).\n"
        "Without a pool, handlers are neither waited for nor killed.\n\n"
        "Raises BlockingSwitchOutError, an AssertionError, if it would have to wait in the\n"
        "hub; the listener is closed by then. Since 1.0."),
    CBASE_METHOD_DEF(
        "serve_forever", server_serve_forever,
        "serve_forever($self, /, stop_timeout=None)\n--\n\n"
        "start() if need be, wait until the server is stopped, then call stop().\n\n"
        "stop_timeout: the timeout for stop(), in seconds; default: stop_timeout (1).\n\n"
        "Raises what start() raises. Since 1.0."),
    CBASE_METHOD_DEF("__enter__", server_enter,
                     "__enter__($self, /)\n--\n\nReturn the server itself."),
    CBASE_METHOD_DEF("__exit__", server_exit,
                     "__exit__($self, /, *args)\n--\n\nstop() the server."),
    {NULL, NULL, 0, NULL},
};
