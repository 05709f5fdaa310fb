/* The class BaseServer: its creation, its constructor and the setters that the constructor uses.
 *
 * The class is made by calling type(), as a class statement does, so that it adds to object just
 * what a Python class adds. Subclasses may then be moved between gevent's class and this one by
 * assigning to __bases__ (install() does so), and code that treats it as a Python class works.
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
    PyObject *module = PyImport_ImportModule("gevent.pool");
    PyObject *class = module == NULL ? NULL : cbase_object_attr(module, "Pool");
    PyObject *pool = class == NULL ? NULL : PyObject_CallOneArg(class, size);

    Py_XDECREF(class);
    Py_XDECREF(module);
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

#define SETTER(function, name, param, set)                                                        \
    CBASE_METHOD(function)                                                                        \
    {                                                                                             \
        static const cbase_args_params params = {name, 1, {param, NULL}};                         \
        PyObject *value;                                                                          \
        if (cbase_args_parse(&params, args, nargs, kwnames, &value) < 0                           \
            || set(cbase_class_state(cls), self, value) < 0)                                      \
        {                                                                                         \
            return NULL;                                                                          \
        }                                                                                         \
        return Py_NewRef(Py_None);                                                                \
    }

SETTER(server_set_listener, "set_listener", "listener", set_listener)
SETTER(server_set_spawn, "set_spawn", "spawn", set_spawn)
SETTER(server_set_handle, "set_handle", "handle", set_handle)

static PyMethodDef setter_methods[] = {
    CBASE_METHOD_DEF(
        "set_listener", server_set_listener,
        "set_listener($self, /, listener)\n--\n\n"
        "Set where to listen; sets family, address and, given a socket, socket.\n\n"
        "listener: a bound socket (TCP: one that listens), of gevent or of the standard\n"
        "library, or an address: (host, port), 'host:port', '[IPv6 host]:port', ':port', or a\n"
        "port as int or str.\n\n"
        "Raises TypeError for an SSL socket and for other types, ValueError for text that is\n"
        "no address. Since 1.0."),
    CBASE_METHOD_DEF(
        "set_spawn", server_set_spawn,
        "set_spawn($self, /, spawn)\n--\n\n"
        "Set how handlers are run; works on a running server too.\n\n"
        "spawn: 'default' (gevent.spawn), any function called as spawn(function, *args), None\n"
        "(handlers run in the hub and must not block), a number (the size of a new Pool), or\n"
        "an object with a method `spawn`: a Pool, a Group, or alike. While its `full()` is\n"
        "true no connection is accepted. Since 1.0; gevent takes pools only."),
    CBASE_METHOD_DEF(
        "set_handle", server_set_handle,
        "set_handle($self, /, handle)\n--\n\n"
        "Set the handler for connections not yet accepted.\n\n"
        "handle: called with what do_read() returns; None takes the attribute `handle`, for\n"
        "instance a method of the subclass.\n\n"
        "Raises TypeError if there is none. Since 1.0."),
    {NULL, NULL, 0, NULL},
};

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
server_init(PyObject *self, PyObject *args, void *wrapped, PyObject *kwargs)
{
    static char *names[] = {"listener", "handle", "spawn", NULL};
    cbase_state *st = wrapped;
    PyObject *listener, *handle = Py_None, *spawn = st->s_default;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|OO:__init__", names, &listener, &handle,
                                     &spawn)
        || init(st, self, listener, handle, spawn) < 0)
    {
        return NULL;
    }
    return Py_NewRef(Py_None);
}

/* __init__ is a slot wrapper and no method descriptor, which inspect.signature(BaseServer)
 * trips over on 3.13. It finds the state in what it wraps. */
static struct wrapperbase init_wrapper = {
    .name = "__init__",
    .wrapper = (wrapperfunc)(void (*)(void))server_init,
    .doc = PyDoc_STR("__init__($self, /, listener, handle=None, spawn='default')\n--\n\n"
                     "See help(BaseServer)."),
    .flags = PyWrapperFlag_KEYWORDS,
};

/* ---- the class ---- */

#define SIGNATURE "BaseServer(listener, handle=None, spawn='default')\n--\n\n"

PyDoc_STRVAR(
    class_doc,
    "gevent's base class of servers, with the accept loop in C.\n\n"
    "BaseServer(listener, handle=None, spawn='default')\n\n"
    "listener: where to accept connections; see set_listener().\n"
    "handle: called for each connection with what do_read() returned; when it is done, the\n"
    "connection is closed by do_close(). Default: the method `handle` of the subclass.\n"
    "spawn: how handlers are run; see set_spawn(). Default: a new greenlet for each.\n\n"
    "Raises TypeError, ValueError or what the arguments raise; the listener is closed then.\n"
    "A context manager: stop() at its end. Since 1.0.\n\n"
    "Attributes, on the class for all servers or on an instance:\n"
    "min_delay, max_delay: seconds to pause accepting after an error, and the limit to which\n"
    "the pause doubles while errors go on; the next good accept starts over. 0.01 and 1.\n"
    "A negative min_delay: no pause.\n"
    "max_accept: connections accepted at most before other events get their turn, int of at\n"
    "least 1. 100.\n"
    "stop_timeout: seconds that stop() waits for handlers in a pool. 1.\n"
    "fatal_errors: errno values that end the server. (EBADF, EINVAL, ENOTSOCK).");

static int
add_methods(PyTypeObject *type, PyMethodDef *methods)
{
    for (PyMethodDef *def = methods; def->ml_name != NULL; def++) {
        PyObject *descr = cbase_methods_new(type, def);
        int result =
            descr == NULL ? -1 : PyObject_SetAttrString((PyObject *)type, def->ml_name, descr);
        Py_XDECREF(descr);
        if (result < 0) {
            return -1;
        }
    }
    return 0;
}

/* Properties are of type `property`, as in a Python class, with a getter in C. */
static int
add_properties(PyTypeObject *type, PyMethodDef *getters)
{
    for (PyMethodDef *def = getters; def->ml_name != NULL; def++) {
        PyObject *get = cbase_methods_new(type, def);
        PyObject *property = NULL;
        if (get != NULL) {
            property = PyObject_CallFunction((PyObject *)&PyProperty_Type, "OOOs", get, Py_None,
                                             Py_None, def->ml_doc);
            Py_DECREF(get);
        }
        int result = property == NULL
                         ? -1
                         : PyObject_SetAttrString((PyObject *)type, def->ml_name, property);
        Py_XDECREF(property);
        if (result < 0) {
            return -1;
        }
    }
    return 0;
}

static int
add_init(PyTypeObject *type, cbase_state *st)
{
    PyObject *descr = PyDescr_NewWrapper(type, &init_wrapper, st);
    int result = descr == NULL ? -1 : PyObject_SetAttrString((PyObject *)type, "__init__", descr);

    Py_XDECREF(descr);
    return result;
}

static PyObject *
new_namespace(cbase_state *st)
{
    PyObject *spawn = PyObject_GetAttr(st->Greenlet, st->s_spawn);
    PyObject *namespace = NULL;

    if (spawn != NULL) {
        namespace = Py_BuildValue("{s:s,s:s,s:d,s:i,s:i,s:i,s:(iii),s:O}", "__module__",
                                  "gevent_cbase.baseserver", "__doc__", SIGNATURE, "min_delay",
                                  0.01, "max_delay", 1, "max_accept", 100, "stop_timeout", 1,
                                  "fatal_errors", EBADF, EINVAL, ENOTSOCK, "_spawn", spawn);
        Py_DECREF(spawn);
    }
    return namespace;
}

/* What the namespace of the class holds, owned. */
static PyObject *
read_namespace(PyTypeObject *type, PyObject *name)
{
    PyObject *namespace = compat_type_dict(type);
    PyObject *value = PyDict_GetItemWithError(namespace, name); // borrowed

    if (value == NULL && !PyErr_Occurred()) {
        PyErr_SetObject(PyExc_KeyError, name);
    }
    Py_XINCREF(value);
    Py_DECREF(namespace);
    return value;
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

PyMethodDef cbase_class_functions[] = {
    {"_bind_greenlet", bind_greenlet, METH_O,
     PyDoc_STR("_bind_greenlet($module, class, /)\n--\n\n"
               "Set what serve_forever() takes for gevent's Greenlet; returns the former one.")},
    {"_set_metaclass", set_metaclass, METH_VARARGS,
     PyDoc_STR("_set_metaclass($module, class, metaclass, /)\n--\n\n"
               "Give a class another metaclass, one of the same layout.")},
    {NULL, NULL, 0, NULL},
};

/* ---- creation ---- */

int
cbase_class_create(PyObject *module, cbase_state *st)
{
    PyObject *doc, *namespace;
    PyTypeObject *type;

    st->class = cbase_state_new(sizeof(*st->class));
    if (st->class == NULL) {
        return -1;
    }
    namespace = new_namespace(st);
    if (namespace == NULL) {
        return -1;
    }
    type = (PyTypeObject *)PyObject_CallFunction((PyObject *)&PyType_Type, "s(O)O", "BaseServer",
                                                 (PyObject *)&PyBaseObject_Type, namespace);
    Py_DECREF(namespace);
    if (type == NULL) {
        return -1;
    }
    st->class->BaseServer = type;
    cbase_methods_only_state = st;
    /* CAUTION: what PyType_FromModuleAndSpec sets, and PyType_GetModuleState reads, in the
     * public struct PyHeapTypeObject. Watched by every test of the class, as
     * test_methods_take_any_object. */
    ((PyHeapTypeObject *)type)->ht_module = Py_NewRef(module);

    /* The signature stays in tp_doc, where __text_signature__ finds it. */
    doc = PyUnicode_FromString(class_doc);
    if (doc == NULL || PyObject_SetAttrString((PyObject *)type, "__doc__", doc) < 0) {
        Py_XDECREF(doc);
        return -1;
    }
    Py_DECREF(doc);
    if (add_init(type, st) < 0 || add_methods(type, setter_methods) < 0
        || add_methods(type, cbase_lifecycle_methods) < 0
        || add_methods(type, cbase_accept_loop_methods) < 0
        || add_methods(type, cbase_handover_methods) < 0
        || add_methods(type, cbase_repr_methods) < 0
        || add_properties(type, cbase_repr_properties) < 0)
    {
        return -1;
    }
    st->class->full = read_namespace(type, st->s_full);
    st->class->do_handle = read_namespace(type, st->s_do_handle);
    st->class->do_close = read_namespace(type, st->s_do_close);
    if (st->class->full == NULL || st->class->do_handle == NULL || st->class->do_close == NULL) {
        return -1;
    }
    return PyModule_AddObjectRef(module, "BaseServer", (PyObject *)type);
}
