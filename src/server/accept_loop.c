/* The accept loop: BaseServer._do_read and the hooks it calls.
 *
 * Does not know sockets, nor how a pause is made. It asks `full`, calls `do_read` and hands the
 * result to `do_handle`; each is looked up anew for every connection, so an override in a subclass
 * or on the instance, made at any moment, takes effect at the next accept.
 */
#include "server/server.h"

/* ---- the end of a batch: closed meanwhile, or full ---- */

typedef struct {
    cbase_counters *counters;
    cbase_hooks hooks; // of the server, owned
    int are_new;       // nothing has run since they were found for the first connection
    /* Whether the server was closed by what the batch called. */
    unsigned long closes; // cbase_lifecycle.closes when last looked at
    int open;             // had a `socket` of its own when the batch began
    Py_ssize_t most;      // connections
} batch;

/* The hooks of the server as they are now; *hooks is NULL if it takes ordinary attribute access.
 */
static int
find_hooks(cbase_state *st, PyObject *self, batch *b, const cbase_hooks **hooks)
{
    int known = cbase_hooks_get(st, self, &b->hooks);

    *hooks = known > 0 ? &b->hooks : NULL;
    return known < 0 ? -1 : 0;
}

/* self.max_accept and whether there is a `socket`: 0 or -1. */
static int
read_limits(cbase_state *st, PyObject *self, batch *b)
{
    PyObject *max_accept = PyObject_GetAttr(self, st->s_max_accept);

    if (max_accept == NULL) {
        return -1;
    }
    b->most = PyNumber_AsSsize_t(max_accept, NULL); // clips, as no batch gets that long
    Py_DECREF(max_accept);
    if (b->most == -1 && PyErr_Occurred()) {
        return -1;
    }
    b->open = cbase_object_dict_has(self, st->s_socket);
    return b->open < 0 ? -1 : 0;
}

static int
batch_begin(cbase_state *st, PyObject *self, batch *b)
{
    const cbase_hooks *hooks;

    memset(b, 0, sizeof(*b));
    b->counters = cbase_counters_of(st, self);
    cbase_counters_end_pause(b->counters); // also where start_accepting() is not ours
    if (cbase_premises_compare_again(st) < 0 || find_hooks(st, self, b, &hooks) < 0) {
        return -1;
    }
    b->closes = st->lifecycle->closes;
    if (hooks == NULL || hooks->max_accept == 0) {
        return read_limits(st, self, b);
    }
    b->most = hooks->max_accept;
    b->open = hooks->has_socket;
    b->are_new = 1;
    return 0;
}

/* 1 if there is nothing to accept from any more, 0 or -1. */
static int
batch_closed(cbase_state *st, PyObject *self, batch *b)
{
    if (b->closes == st->lifecycle->closes || !b->open) {
        return 0;
    }
    b->closes = st->lifecycle->closes;
    int has = cbase_object_dict_has(self, st->s_socket);
    return has < 0 ? -1 : !has;
}

static int
stop_until_slot(cbase_state *st, PyObject *self)
{
    if (cbase_object_run(self, st->s_stop_accepting) < 0) {
        return -1;
    }
    cbase_counters_pause(st, self, CBASE_FULL);
    PyObject *pool = PyObject_GetAttr(self, st->s_pool);
    if (pool == NULL) {
        return -1;
    }
    int linked = pool == Py_None ? 1 : cbase_pool_link(st, self, pool);
    Py_DECREF(pool);
    if (linked < 0) {
        return -1;
    }
    return linked ? 0 : cbase_backoff_resume_later(st, self);
}

/* Stop accepting until the pool says that a slot is free. */
static int
wait_for_slot(cbase_state *st, PyObject *self)
{
    cbase_backoff_waker waker;

    cbase_backoff_waker_take(st, self, st->s__watcher, &waker);
    int result = stop_until_slot(st, self);
    if (result < 0 && cbase_backoff_no_memory(st, self, &waker)) {
        result = 0;
    }
    cbase_backoff_waker_drop(&waker);
    return result;
}

/* ---- one connection ---- */

/* self.do_read(); `hooks` are true now, or NULL. */
static PyObject *
call_do_read(cbase_state *st, PyObject *self, const cbase_hooks *hooks)
{
    if (hooks == NULL || hooks->do_read == NULL) {
        return cbase_object_call(self, st->s_do_read);
    }
    PyObject *result;
    if (hooks->listener != NULL) {
        cbase_outcome outcome = hooks->takes_datagrams
                                    ? cbase_socket_datagram_do_read(st, hooks->listener, &result)
                                    : cbase_socket_accept(st, hooks->listener, &result);
        if (outcome != CBASE_NOT_OURS) {
            return result;
        }
    }
    return PyObject_Vectorcall(hooks->do_read, &self, 1, NULL);
}

/* self.delay = self.min_delay */
static int
reset_delay(cbase_state *st, PyObject *self)
{
    PyObject *min_delay = PyObject_GetAttr(self, st->s_min_delay);

    if (min_delay == NULL) {
        return -1;
    }
    int result = PyObject_SetAttr(self, st->s_delay, min_delay);
    Py_DECREF(min_delay);
    return result;
}

/* Reads one connection: 1 and its owned arguments, 0 if there is none, or -1. *hooks: true
 * before and, unless set to NULL, after. */
static int
read_one(cbase_state *st, PyObject *self, batch *b, const cbase_hooks **hooks, PyObject **args)
{
    int some = -1;

    *args = call_do_read(st, self, *hooks);
    if (*args == NULL) {
        return -1;
    }
    int known = find_hooks(st, self, b, hooks);
    if (*hooks != NULL && (*hooks)->delay_is_reset
        && (*args == Py_None || PyTuple_CheckExact(*args))) {
        some = *args != Py_None && PyTuple_GET_SIZE(*args) > 0;
    }
    else {
        *hooks = NULL;
        if (known >= 0 && reset_delay(st, self) == 0) {
            some = PyObject_IsTrue(*args);
        }
    }
    if (some <= 0) {
        Py_CLEAR(*args);
    }
    return some;
}

/* self.do_handle(*args); `hooks` are true now and args a tuple, or hooks is NULL. */
static int
handle_one(cbase_state *st, PyObject *self, const cbase_hooks *hooks, PyObject *args)
{
    PyObject *method, *result;

    if (hooks != NULL && hooks->base_do_handle) {
        return cbase_handover(st, self, hooks, args);
    }
    method = PyObject_GetAttr(self, st->s_do_handle);
    if (method == NULL) {
        return -1;
    }
    result = cbase_call_star(method, args);
    Py_DECREF(method);
    if (result == NULL) {
        return -1;
    }
    Py_DECREF(result);
    return 0;
}

/* ---- errors ---- */

/* self.loop.handle_error, owned. */
static PyObject *
error_handler(cbase_state *st, PyObject *self)
{
    PyObject *loop = PyObject_GetAttr(self, st->s_loop);

    if (loop == NULL) {
        return NULL;
    }
    PyObject *handler = PyObject_GetAttr(loop, st->s_handle_error);
    Py_DECREF(loop);
    return handler;
}

/* Report what do_read raised: self.loop.handle_error(self, ...) */
static int
report_reading(cbase_state *st, PyObject *self, PyObject *exc)
{
    PyObject *handler = error_handler(st, self);

    if (handler == NULL) {
        return -1;
    }
    int result = cbase_except_report(handler, self, exc);
    Py_DECREF(handler);
    return result;
}

/* Report what do_handle raised: self.loop.handle_error((args[1:], self), ...) */
static int
report_handling(cbase_state *st, PyObject *self, PyObject *args, PyObject *exc)
{
    PyObject *handler = error_handler(st, self);
    PyObject *rest = NULL, *context = NULL;
    int result = -1;

    if (handler == NULL) {
        return -1;
    }
    rest = PyObject_GetItem(args, st->all_but_first);
    if (rest == NULL) {
        goto done;
    }
    context = cbase_object_pair(rest, self);
    if (context != NULL) {
        result = cbase_except_report(handler, context, exc);
    }
done:
    Py_XDECREF(context);
    Py_XDECREF(rest);
    Py_DECREF(handler);
    return result;
}

/* str(exc) or repr(exc) */
static PyObject *
describe(PyObject *exc)
{
    PyObject *text = PyObject_Str(exc);

    if (text != NULL && PyUnicode_GET_LENGTH(text) == 0) {
        Py_SETREF(text, PyObject_Repr(exc));
    }
    return text;
}

/* Close the server and say so on sys.stderr. */
static int
give_up(cbase_state *st, PyObject *self, PyObject *exc)
{
    PyObject *err = NULL, *write = NULL, *why = NULL, *line = NULL, *written = NULL;

    if (cbase_object_run(self, st->s_close) < 0) {
        return -1;
    }
    err = cbase_object_attr(st->sys, "stderr");
    if (err == NULL) {
        return -1;
    }
    write = PyObject_GetAttr(err, st->s_write);
    if (write == NULL) {
        goto done;
    }
    PyObject *name = PyObject_Str(self);
    if (name == NULL) {
        goto done;
    }
    why = describe(exc);
    if (why != NULL) {
        line = PyUnicode_FromFormat("ERROR: %U failed with %U\n", name, why);
    }
    Py_DECREF(name);
    if (line != NULL) {
        written = PyObject_CallOneArg(write, line);
    }
done:
    Py_XDECREF(line);
    Py_XDECREF(why);
    Py_XDECREF(write);
    Py_DECREF(err);
    if (written == NULL) {
        return -1;
    }
    Py_DECREF(written);
    return 0;
}

static int
recover_from_reading(cbase_state *st, PyObject *self, PyObject *exc)
{
    if (report_reading(st, self, exc) < 0) {
        return -1;
    }
    PyObject *verdict = cbase_object_call_one(self, st->s_is_fatal_error, exc);
    if (verdict == NULL) {
        return -1;
    }
    int fatal = PyObject_IsTrue(verdict);
    Py_DECREF(verdict);
    if (fatal < 0) {
        return -1;
    }
    return fatal ? give_up(st, self, exc) : cbase_backoff_pause(st, self);
}

static int
recover_from_handling(cbase_state *st, PyObject *self, PyObject *args, PyObject *exc)
{
    if (report_handling(st, self, args, exc) < 0) {
        return -1;
    }
    return cbase_backoff_pause(st, self);
}

/* The `except` block around one connection: with the exception set, report it and pause.
 * `args`: what do_read returned, or NULL if it is what raised. */
static int
recover(cbase_state *st, PyObject *self, PyObject *args)
{
    cbase_except block;
    cbase_backoff_waker waker;
    int result;

    cbase_except_enter(&block);
    cbase_backoff_waker_take(st, self, st->s__watcher, &waker);
    if (args == NULL) {
        result = recover_from_reading(st, self, block.raised);
    }
    else {
        result = recover_from_handling(st, self, args, block.raised);
    }
    if (result < 0) {
        (void)cbase_backoff_never_deaf(st, self, &waker);
    }
    cbase_backoff_waker_drop(&waker);
    return cbase_except_leave(&block);
}

/* ---- the loop ---- */

/* self.full(): 1, 0 or -1. */
static int
ask_full(cbase_state *st, PyObject *self, const cbase_hooks *hooks)
{
    if (hooks != NULL && hooks->full != NULL) {
        int full;
        cbase_outcome outcome = cbase_pool_spawn_full(st, hooks->full, &full);
        if (outcome != CBASE_NOT_OURS) {
            return outcome == CBASE_DONE ? full : -1;
        }
    }
    return cbase_object_ask(self, st->s_full);
}

/* Whether the next connection can be read, with its hooks, or NULL: 1, 0 to end the batch, or
 * -1. */
static int
may_read(cbase_state *st, PyObject *self, batch *b, const cbase_hooks **hooks)
{
    int status = batch_closed(st, self, b);

    if (status != 0) {
        return status < 0 ? -1 : 0;
    }
    if (b->are_new) {
        b->are_new = 0;
        *hooks = &b->hooks;
    }
    else if (find_hooks(st, self, b, hooks) < 0) {
        return -1;
    }
    if (*hooks == NULL || !(*hooks)->never_full) {
        status = ask_full(st, self, *hooks);
        if (status != 0) {
            return status < 0 ? -1 : wait_for_slot(st, self);
        }
        if (find_hooks(st, self, b, hooks) < 0) { // full() may change everything
            return -1;
        }
    }
    return 1;
}

/* One turn: 1 to go on, 0 to end the batch, or -1. */
static int
accept_one(cbase_state *st, PyObject *self, batch *b)
{
    const cbase_hooks *hooks = NULL;
    PyObject *args;
    int status = may_read(st, self, b, &hooks);

    if (status <= 0) {
        return status < 0 ? cbase_backoff_go_on(st, self, st->s__watcher) : 0;
    }
    status = read_one(st, self, b, &hooks, &args);
    if (status < 0) {
        cbase_counters_accept_error(b->counters);
        return recover(st, self, NULL);
    }
    if (status == 0) {
        return 0;
    }
    b->counters->accepted++;
    if (handle_one(st, self, hooks, args) < 0) {
        b->counters->spawn_errors++;
        status = recover(st, self, args);
    }
    Py_DECREF(args);
    return status;
}

/* The accept loop. */
static PyObject *
accept_batch(cbase_state *st, PyObject *self)
{
    Py_ssize_t left;
    batch b;
    int status = 1;

    Py_INCREF(self); // a handler may drop the last reference
    if (batch_begin(st, self, &b) < 0) {
        status = cbase_backoff_go_on(st, self, st->s__watcher);
    }
    for (left = b.most; left > 0 && status > 0; left--) {
        status = accept_one(st, self, &b);
    }
    cbase_hooks_drop(&b.hooks);
    cbase_batch_end(st);
    Py_DECREF(self);
    return status < 0 ? NULL : Py_NewRef(Py_None);
}

static PyObject *
server_do_read(PyObject *module, PyObject *self)
{
    return accept_batch(cbase_module_state(module), self);
}

static cbase_state *state; // of the module that has taken _do_read() last
static cbase_own_function own_do_read;
static vectorcallfunc as_before; // how functions are called

/* A call of _do_read(): the event loop, which is in C, needs no frame of Python for it. But on
 * CPython 3.10 one must be below it: see runs_in_python() in handover.c. */
static PyObject *
vectorcall_do_read(PyObject *function, PyObject *const *args, size_t nargsf, PyObject *kwnames)
{
    if (function != own_do_read.function || PyFunction_GET_CODE(function) != own_do_read.code
        || PyVectorcall_NARGS(nargsf) != 1 || kwnames != NULL || compat_lacks_frame())
    {
        return as_before(function, args, nargsf, kwnames);
    }
    if (Py_EnterRecursiveCall(" while calling a Python object")) {
        return NULL;
    }
    PyObject *result = accept_batch(state, args[0]);
    Py_LeaveRecursiveCall();
    return result;
}

static void
take_do_read(cbase_state *st, PyFunctionObject *function)
{
    state = st;
    Py_XSETREF(own_do_read.function, Py_NewRef(function));
    Py_XSETREF(own_do_read.code, Py_NewRef(function->func_code));
    as_before = function->vectorcall;
    compat_set_vectorcall(function, vectorcall_do_read);
}

/* Has calls of a function, _do_read() of the class, run in C at once. */
static PyObject *
do_read_is(PyObject *module, PyObject *function)
{
    if (!PyFunction_Check(function)) {
        PyErr_SetString(PyExc_TypeError, "a Python function is required");
        return NULL;
    }
    take_do_read(cbase_module_state(module), (PyFunctionObject *)function);
    return Py_NewRef(Py_None);
}

/* Whether an OSError has one of these errno values; one without arguments has none. */
static int
is_one_of(cbase_state *st, PyObject *ex, PyObject *errors)
{
    PyObject *args = PyObject_GetAttr(ex, st->s_args);
    PyObject *code = args == NULL ? NULL : PyObject_GetItem(args, st->zero);
    int result = -1;

    if (code != NULL) {
        result = PySequence_Contains(errors, code);
    }
    else if (args != NULL && PyErr_ExceptionMatches(PyExc_IndexError)) {
        PyErr_Clear();
        result = 0;
    }
    Py_XDECREF(code);
    Py_XDECREF(args);
    return result;
}

static PyObject *
server_is_fatal_error(PyObject *module, PyObject *args)
{
    cbase_state *st = cbase_module_state(module);
    PyObject *self, *ex;

    if (!PyArg_UnpackTuple(args, "_server_is_fatal_error", 2, 2, &self, &ex)) {
        return NULL;
    }
    int result = PyObject_IsInstance(ex, PyExc_OSError);
    if (result > 0) {
        PyObject *errors = PyObject_GetAttr(self, st->s_fatal_errors);
        result = errors == NULL ? -1 : is_one_of(st, ex, errors);
        Py_XDECREF(errors);
    }
    return result < 0 ? NULL : PyBool_FromLong(result);
}

PyMethodDef cbase_accept_loop_functions[] = {
    {"_do_read_is", do_read_is, METH_O,
     PyDoc_STR("_do_read_is($module, function, /)\n--\n\n"
               "Take _do_read() of the class, when that has been defined.")},
    {"_server_do_read", server_do_read, METH_O, NULL},
    {"_server_is_fatal_error", server_is_fatal_error, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};
