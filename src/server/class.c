/* The class BaseServer: its constructor, and the setters that the constructor uses.
 *
 * The class itself is a class statement in gevent_cbase/baseserver.py, whose methods call the
 * functions here and in the other files of this storey: so it has what Python code of gevent has
 * for whoever looks at it, or moves subclasses to it by assigning to __bases__, as install() does.
 *
 * Does not know what the methods do that other files of this storey define.
 */
#include "server/server.h"

/* ---- setters ---- */

static int
set_listener(cbase_state *st, PyObject *self, PyObject *listener)
{
    PyObject *value;
    int is_socket = cbase_object_has(listener, st->s_accept);

    if (is_socket < 0) {
        return -1;
    }
    if (!is_socket) {
        PyObject *parsed = cbase_parse_address(st, listener);
        if (parsed == NULL) {
            return -1;
        }
        int result = PyObject_SetAttr(self, st->s_family, PyTuple_GET_ITEM(parsed, 0));
        if (result == 0) {
            result = PyObject_SetAttr(self, st->s_address, PyTuple_GET_ITEM(parsed, 1));
        }
        Py_DECREF(parsed);
        return result;
    }
    int is_ssl = cbase_object_has(listener, st->s_do_handshake);
    if (is_ssl != 0) {
        if (is_ssl > 0) {
            cbase_except_raise(PyExc_TypeError, "Expected a regular socket, not SSLSocket: %R",
                               listener);
        }
        return -1;
    }
    value = PyObject_GetAttr(listener, st->s_family);
    if (value == NULL || PyObject_SetAttr(self, st->s_family, value) < 0) {
        Py_XDECREF(value);
        return -1;
    }
    Py_SETREF(value, cbase_object_call(listener, st->s_getsockname));
    if (value == NULL || PyObject_SetAttr(self, st->s_address, value) < 0) {
        Py_XDECREF(value);
        return -1;
    }
    Py_DECREF(value);
    return PyObject_SetAttr(self, st->s_socket, listener);
}

/* self.pool = pool; self._spawn = spawn */
static int
set_pool_and_spawn(cbase_state *st, PyObject *self, PyObject *pool, PyObject *spawn)
{
    if (PyObject_SetAttr(self, st->s_pool, pool) < 0) {
        return -1;
    }
    return PyObject_SetAttr(self, st->s__spawn, spawn);
}

/* self.pool = pool; self._spawn = pool.spawn */
static int
set_pool(cbase_state *st, PyObject *self, PyObject *pool)
{
    if (cbase_pool_spawn_find(st) < 0 || PyObject_SetAttr(self, st->s_pool, pool) < 0) {
        return -1;
    }
    PyObject *spawn = PyObject_GetAttr(pool, st->s_spawn);
    int result = spawn == NULL ? -1 : PyObject_SetAttr(self, st->s__spawn, spawn);
    Py_XDECREF(spawn);
    return result;
}

/* gevent.pool.Pool(size) */
static PyObject *
new_pool(PyObject *size)
{
    PyObject *class = cbase_object_imported("gevent.pool", "Pool");
    PyObject *pool = class == NULL ? NULL : PyObject_CallOneArg(class, size);

    Py_XDECREF(class);
    return pool;
}

static int
is_default(cbase_state *st, PyObject *spawn)
{
    PyObject *equal = PyObject_RichCompare(spawn, st->s_default, Py_EQ);

    if (equal == NULL) {
        return -1;
    }
    int truth = PyObject_IsTrue(equal);
    Py_DECREF(equal);
    return truth;
}

/* The part of set_spawn that tells the kinds of `spawn` apart. */
static int
choose_spawn(cbase_state *st, PyObject *self, PyObject *spawn)
{
    int is = is_default(st, spawn);
    int result;

    if (is != 0) {
        if (is < 0 || PyObject_SetAttr(self, st->s_pool, Py_None) < 0) {
            return -1;
        }
        PyObject *current = PyObject_GetAttr(self, st->s__spawn);
        result = current == NULL ? -1 : PyObject_SetAttr(self, st->s__spawn, current);
        Py_XDECREF(current);
        return result;
    }
    is = cbase_object_has(spawn, st->s_spawn);
    if (is != 0) {
        return is < 0 ? -1 : set_pool(st, self, spawn);
    }
    is = PyObject_IsInstance(spawn, (PyObject *)&PyLong_Type);
    if (is != 0) {
        PyObject *pool = is < 0 ? NULL : new_pool(spawn);
        result = pool == NULL ? -1 : set_pool(st, self, pool);
        Py_XDECREF(pool);
        return result;
    }
    return set_pool_and_spawn(st, self, Py_None, spawn);
}

static int
set_spawn(cbase_state *st, PyObject *self, PyObject *spawn)
{
    PyObject *pool, *full;
    int result;

    if (choose_spawn(st, self, spawn) < 0) {
        return -1;
    }
    pool = PyObject_GetAttr(self, st->s_pool);
    if (pool == NULL) {
        return -1;
    }
    result = compat_get_optional(pool, st->s_full, &full);
    if (result > 0) {
        result = PyObject_SetAttr(self, st->s_full, full);
        Py_DECREF(full);
    }
    if (result >= 0 && pool != Py_None) {
        result = cbase_pool_link(st, self, pool);
    }
    Py_DECREF(pool);
    return result < 0 ? -1 : 0;
}

static int
set_handle(cbase_state *st, PyObject *self, PyObject *handle)
{
    PyObject *value;

    if (handle != Py_None && PyObject_SetAttr(self, st->s_handle, handle) < 0) {
        return -1;
    }
    int found = compat_get_optional(self, st->s_handle, &value);
    if (found < 0) {
        return -1;
    }
    if (!found) {
        PyErr_SetString(PyExc_TypeError, "'handle' must be provided");
        return -1;
    }
    int result = PyObject_SetAttr(self, st->s__handle, value);
    Py_DECREF(value);
    return result;
}

CBASE_METHOD_WITH_ARGUMENT(set_listener)
CBASE_METHOD_WITH_ARGUMENT(set_spawn)
CBASE_METHOD_WITH_ARGUMENT(set_handle)

/* ---- constructor ---- */

/* What the constructor does inside its `try`. */
static int
configure(cbase_state *st, PyObject *self, PyObject *listener, PyObject *handle, PyObject *spawn)
{
    PyObject *value, *result;

    if ((result = cbase_object_call_one(self, st->s_set_listener, listener)) == NULL) {
        return -1;
    }
    Py_DECREF(result);
    if ((result = cbase_object_call_one(self, st->s_set_spawn, spawn)) == NULL) {
        return -1;
    }
    Py_DECREF(result);
    if ((result = cbase_object_call_one(self, st->s_set_handle, handle)) == NULL) {
        return -1;
    }
    Py_DECREF(result);

    value = PyObject_GetAttr(self, st->s_min_delay);
    if (value == NULL || PyObject_SetAttr(self, st->s_delay, value) < 0) {
        goto error;
    }
    Py_SETREF(value, PyObject_CallNoArgs(st->get_hub));
    if (value == NULL) {
        return -1;
    }
    Py_SETREF(value, PyObject_GetAttr(value, st->s_loop));
    if (value == NULL || PyObject_SetAttr(self, st->s_loop, value) < 0) {
        goto error;
    }
    Py_SETREF(value, PyObject_GetAttr(self, st->s_max_accept));
    if (value == NULL) {
        return -1;
    }
    int too_small = PyObject_RichCompareBool(value, st->one, Py_LT);
    if (too_small > 0) {
        cbase_except_raise(PyExc_ValueError, "max_accept must be positive int: %R", value);
    }
    Py_DECREF(value);
    if (too_small != 0 || cbase_greenlet_find(st) < 0) {
        return -1;
    }
    return cbase_socket_accept_find(st);
error:
    Py_XDECREF(value);
    return -1;
}

static int
init(cbase_state *st, PyObject *self, PyObject *listener, PyObject *handle, PyObject *spawn)
{
    PyObject *nones[] = {st->s__watcher, st->s__timer, st->s__handle, st->s_pool};
    PyObject *event = PyObject_CallNoArgs(st->Event);
    cbase_except block;

    int result = event == NULL ? -1 : PyObject_SetAttr(self, st->s__stop_event, event);
    Py_XDECREF(event);
    if (result < 0 || cbase_object_run_on(self, st->s__stop_event, st->s_set) < 0) {
        return -1;
    }
    for (size_t i = 0; i < Py_ARRAY_LENGTH(nones); i++) {
        if (PyObject_SetAttr(self, nones[i], Py_None) < 0) {
            return -1;
        }
    }
    if (configure(st, self, listener, handle, spawn) < 0) {
        cbase_except_enter(&block);
        (void)cbase_object_run(self, st->s_close);
        cbase_except_reraise(&block);
        return -1;
    }
    return 0;
}

static PyObject *
server_init(PyObject *module, PyObject *args)
{
    PyObject *self, *listener, *handle, *spawn;

    if (!PyArg_UnpackTuple(args, "_server_init", 4, 4, &self, &listener, &handle, &spawn)
        || init(cbase_module_state(module), self, listener, handle, spawn) < 0)
    {
        return NULL;
    }
    return Py_NewRef(Py_None);
}

/* ---- the class ---- */

/* Takes a function that a class has under a name, and its code: 0 or -1. */
static int
take_function(PyTypeObject *type, PyObject *name, cbase_own_function *own)
{
    PyObject *namespace = compat_type_dict(type);
    PyObject *function = PyDict_GetItemWithError(namespace, name); // borrowed
    int result = -1;

    if (function != NULL && PyFunction_Check(function)) {
        Py_XSETREF(own->function, Py_NewRef(function));
        Py_XSETREF(own->code, Py_NewRef(PyFunction_GET_CODE(function)));
        result = 0;
    }
    else if (!PyErr_Occurred()) {
        PyErr_SetObject(PyExc_TypeError, name);
    }
    Py_DECREF(namespace);
    return result;
}

/* Takes the class: what it has under these names is known from then on. A module that is loaded
 * anew has another class, and the former one works without being known. */
static PyObject *
class_is(PyObject *module, PyObject *type)
{
    cbase_state *st = cbase_module_state(module);
    struct cbase_class *c = st->class;

    if (!PyType_Check(type)) {
        PyErr_SetString(PyExc_TypeError, "the class BaseServer is required");
        return NULL;
    }
    if (take_function((PyTypeObject *)type, st->s_full, &c->full) < 0
        || take_function((PyTypeObject *)type, st->s_do_handle, &c->do_handle) < 0
        || take_function((PyTypeObject *)type, st->s_do_close, &c->do_close) < 0
        || PyModule_AddObjectRef(module, "BaseServer", type) < 0)
    {
        return NULL;
    }
    Py_XSETREF(c->BaseServer, (PyTypeObject *)Py_NewRef(type));
    return Py_NewRef(Py_None);
}

/* ---- what install() needs ---- */

static PyObject *
bind_greenlet(PyObject *module, PyObject *class)
{
    cbase_state *st = cbase_module_state(module);
    PyObject *former = st->Greenlet;

    st->Greenlet = Py_NewRef(class);
    return former;
}

/* CAUTION: a heap type owns its type. Assigning to __class__ does the same, but CPython refuses
 * that where one of the two is `type` itself, because that has no __dict__ to be seen. Watched by
 * test_isinstance_of_the_former_class. */
static PyObject *
set_metaclass(PyObject *module, PyObject *args)
{
    PyTypeObject *class, *metaclass, *former;

    (void)module;
    if (!PyArg_ParseTuple(args, "O!O!", &PyType_Type, &class, &PyType_Type, &metaclass)) {
        return NULL;
    }
    former = Py_TYPE(class);
    if (!PyType_HasFeature(class, Py_TPFLAGS_HEAPTYPE)
        || !PyType_IsSubtype(metaclass, &PyType_Type)
        || former->tp_basicsize != metaclass->tp_basicsize
        || former->tp_itemsize != metaclass->tp_itemsize)
    {
        return PyErr_Format(PyExc_TypeError, "%R cannot be an instance of %R", class, metaclass);
    }
    if (PyType_HasFeature(metaclass, Py_TPFLAGS_HEAPTYPE)) {
        Py_INCREF(metaclass);
    }
    Py_SET_TYPE(class, metaclass);
    PyType_Modified(class);
    if (PyType_HasFeature(former, Py_TPFLAGS_HEAPTYPE)) {
        Py_DECREF(former);
    }
    return Py_NewRef(Py_None);
}

/* ---- for the others ---- */

int
cbase_class_has(const cbase_state *st, PyObject *obj)
{
    return st->class->BaseServer != NULL && PyObject_TypeCheck(obj, st->class->BaseServer);
}

int
cbase_class_init(cbase_state *st)
{
    st->class = cbase_state_new(sizeof(*st->class));
    return st->class == NULL ? -1 : 0;
}

PyMethodDef cbase_class_functions[] = {
    {"_class_is", class_is, METH_O,
     PyDoc_STR("_class_is($module, cls, /)\n--\n\n"
               "Take the class BaseServer, when it has been defined.")},
    {"_bind_greenlet", bind_greenlet, METH_O,
     PyDoc_STR("_bind_greenlet($module, class, /)\n--\n\n"
               "Set what serve_forever() takes for gevent's Greenlet; returns the former one.")},
    {"_set_metaclass", set_metaclass, METH_VARARGS,
     PyDoc_STR("_set_metaclass($module, class, metaclass, /)\n--\n\n"
               "Give a class another metaclass, one of the same layout.")},
    {"_server_init", server_init, METH_VARARGS, NULL},
    {"_server_set_listener", server_set_listener, METH_VARARGS, NULL},
    {"_server_set_spawn", server_set_spawn, METH_VARARGS, NULL},
    {"_server_set_handle", server_set_handle, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};
