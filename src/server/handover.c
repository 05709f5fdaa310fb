/* From an accepted connection to its handler: do_handle, do_close, and the function that runs
 * in the handler's greenlet.
 *
 * Does not know the accept loop, nor what do_read() has returned: these are arguments for the
 * handler.
 */
#include "server/server.h"

/* _handle_and_close_when_done: the function that is spawned, and the one in Python. Owned; NULL
 * until the class is there. */
struct cbase_handover_state {
    PyObject *function, *in_python;
};

/* close(*args) */
static PyObject *
call_close(cbase_state *st, PyObject *close, PyObject *args)
{
    cbase_outcome outcome =
        cbase_class_is_do_close(st, close) ? CBASE_DONE : cbase_socket_close(st, close, args);

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

/* close(*args) after the handler: its result, which is stolen, or NULL with an exception. `close`
 * may be NULL: nothing to do. */
static PyObject *
close_after(cbase_state *st, PyObject *result, PyObject *close, PyObject *args)
{
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

/* try: return handle(*args) finally: close(*args) */
static PyObject *
handle_and_close(cbase_state *st, PyObject *handle, PyObject *close, PyObject *args)
{
    return close_after(st, cbase_call_star(handle, args), close, args);
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
    if (!hooks->close_does_nothing || hooks->spawn != Py_None) {
        if (hooks->close_function == NULL) {
            return 0;
        }
        p->close = cbase_batch_method(st, CBASE_BATCH_DO_CLOSE, hooks->close_function, self);
        if (p->close == NULL) {
            return -1;
        }
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

/* Whether this may be the method of gevent's StreamServer that makes a TLS socket first. */
static int
is_for_tls(cbase_state *st, PyObject *handle)
{
    return PyMethod_Check(handle) && PyFunction_Check(PyMethod_GET_FUNCTION(handle))
           && ((PyFunctionObject *)PyMethod_GET_FUNCTION(handle))->func_name
                  == st->s_wrap_socket_and_handle;
}

/* Puts in the place of that method one that knows its handler: 0 or -1. */
static int
keep_handler(PyObject **handle)
{
    PyObject *function = cbase_object_imported("gevent_cbase._native.tls", "with_handler");
    PyObject *method = function == NULL ? NULL : PyObject_CallOneArg(function, *handle);

    Py_XDECREF(function);
    if (method != NULL) {
        Py_SETREF(*handle, method);
    }
    return method == NULL ? -1 : 0;
}

/* Runs the handler in the hub. A do_close() that does nothing is not called, unless the handler
 * has given it other code. */
static PyObject *
run_in_hub(cbase_state *st, PyObject *self, parts *p, PyObject *args)
{
    const cbase_own_function *own = &st->class->do_close;
    PyObject *result = cbase_call_star(p->handle, args);

    if (p->close == NULL && !cbase_class_is_own(own)) {
        p->close = PyMethod_New(own->function, self);
        if (p->close == NULL) {
            Py_XDECREF(result);
            return NULL;
        }
    }
    return close_after(st, result, p->close, args);
}

/* Runs the handler in the hub, or in a greenlet. */
static PyObject *
run_handler(cbase_state *st, PyObject *self, parts *p, PyObject *args)
{
    PyObject *result;

    if (is_for_tls(st, p->handle) && keep_handler(&p->handle) < 0) {
        return NULL;
    }
    if (p->spawn == Py_None) {
        return run_in_hub(st, self, p, args);
    }
    PyObject *call[4] = {st->handover->function, p->handle, p->close, args};
    if (cbase_greenlet_spawn(st, p->spawn, call, 4, &result) == CBASE_NOT_OURS
        && cbase_pool_spawn(st, p->spawn, call, 4, &result) == CBASE_NOT_OURS)
    {
        result = PyObject_Vectorcall(p->spawn, call, 4, NULL);
    }
    return result;
}

int
cbase_handover(cbase_state *st, PyObject *self, const cbase_hooks *hooks, PyObject *args)
{
    parts p = {NULL, NULL, NULL};
    PyObject *result = NULL;

    if (find_parts(st, self, hooks, &p) == 0) {
        result = run_handler(st, self, &p, args);
        if (result == NULL && p.close != NULL) {
            (void)close_and_reraise(st, p.close, args);
        }
    }
    int failed = result == NULL;
    Py_XDECREF(result);
    parts_clear(&p);
    return failed ? -1 : 0;
}

/* self.do_handle(*args) */
static PyObject *
server_do_handle(PyObject *module, PyObject *given)
{
    cbase_state *st = cbase_module_state(module);
    PyObject *self, *args;

    if (!PyArg_ParseTuple(given, "OO!:_server_do_handle", &self, &PyTuple_Type, &args)) {
        return NULL;
    }
    int result = cbase_handover(st, self, NULL, args);
    cbase_batch_end(st); // as this may be no part of one
    return result < 0 ? NULL : Py_NewRef(Py_None);
}

/* Whether gevent's function itself, in Python, has to run: with other arguments; and on CPython
 * 3.10 where no Python function runs, as at the bottom of a greenlet, if the handler is none.
 *
 * CAUTION: gevent looks for the frame that makes a Greenlet, by sys._getframe(). Without one, 3.10
 * crashes if there is an audit hook. Watched by the tests with 'audit_hook' in their names in
 * tests/server/accepting/test_spawn.py. */
static int
runs_in_python(PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    if (nargs != 3 || kwnames != NULL) {
        return 1;
    }
    PyObject *handle = args[0];
    PyObject *function = // borrowed
        PyMethod_Check(handle) ? PyMethod_GET_FUNCTION(handle) : handle;
    return !PyFunction_Check(function) && compat_lacks_frame();
}

/* What runs in the greenlet of each connection. Its __self__ is None, as that of gevent's function
 * is not there: who shows a greenlet then shows the function's name. So the state is found by the
 * class. */
static PyObject *
handle_and_close_when_done(PyObject *self, PyTypeObject *cls, PyObject *const *args,
                           Py_ssize_t nargs, PyObject *kwnames)
{
    cbase_state *st = PyType_GetModuleState(cls);

    (void)self;
    if (nargs == 3 && PyTuple_Check(args[2]) && PyTuple_GET_SIZE(args[2]) > 0) {
        cbase_socket_io_begin(st, PyTuple_GET_ITEM(args[2], 0));
    }
    if (runs_in_python(args, nargs, kwnames)) {
        return PyObject_Vectorcall(st->handover->in_python, args, (size_t)nargs, kwnames);
    }
    /* A greenlet that is killed while it runs drops the arguments that it was started with. */
    PyObject *handle = Py_NewRef(args[0]);
    PyObject *close = Py_NewRef(args[1]);
    PyObject *args_tuple = Py_NewRef(args[2]);
    PyObject *result = handle_and_close(st, handle, close, args_tuple);
    Py_DECREF(args_tuple);
    Py_DECREF(close);
    Py_DECREF(handle);
    return result;
}

static PyMethodDef handle_and_close_def = {
    "_handle_and_close_when_done", (PyCFunction)(void (*)(void))handle_and_close_when_done,
    METH_METHOD | METH_FASTCALL | METH_KEYWORDS,
    PyDoc_STR("_handle_and_close_when_done(handle, close, args_tuple)\n--\n\n"
              "Return handle(*args_tuple); call close(*args_tuple) when it returns or raises.\n\n"
              "This is what runs in the greenlet of each connection.")};

static PyType_Slot state_slots[] = {
    {Py_tp_doc, "Leads from a function without __self__ to the module."},
    {0, NULL},
};

static PyType_Spec state_spec = {
    .name = "gevent_cbase._cbase._State",
    .basicsize = sizeof(PyObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = state_slots,
};

/* The function in C for the one in Python, which takes over where the arguments are others. */
static PyObject *
handover_function(PyObject *module, PyObject *in_python)
{
    cbase_state *st = cbase_module_state(module);
    PyObject *name = cbase_object_attr(in_python, "__module__");
    PyObject *cls = name == NULL ? NULL : PyType_FromModuleAndSpec(module, &state_spec, NULL);
    PyObject *function =
        cls == NULL ? NULL : PyCMethod_New(&handle_and_close_def, NULL, name, (PyTypeObject *)cls);

    Py_XDECREF(cls);
    Py_XDECREF(name);
    if (function != NULL) {
        Py_XSETREF(st->handover->in_python, Py_NewRef(in_python));
        Py_XSETREF(st->handover->function, Py_NewRef(function));
        cbase_greenlet_set_handler(st, function);
    }
    return function;
}

int
cbase_handover_init(cbase_state *st)
{
    st->handover = cbase_state_new(sizeof(*st->handover));
    return st->handover == NULL ? -1 : 0;
}

PyMethodDef cbase_handover_functions[] = {
    {"_server_do_handle", server_do_handle, METH_VARARGS, NULL},
    {"_handover_function", handover_function, METH_O, NULL},
    {NULL, NULL, 0, NULL},
};
