/* What a server tells of itself: repr, str and its read-only properties.
 *
 * Changes nothing, and does not know what happens in the accept loop.
 */
#include "server/server.h"

/* Appends to *text what str(exception being raised) gives, or `fallback` if that is empty, and
 * takes the exception for handled. Only Exceptions: others stay set. -1 with one set, or 0. */
static int
append_error(PyObject **text, const char *fallback)
{
    cbase_except block;
    PyObject *message;

    if (!PyErr_ExceptionMatches(PyExc_Exception)) {
        return -1;
    }
    cbase_except_enter(&block);
    message = PyObject_Str(block.raised);
    if (message != NULL && PyUnicode_GET_LENGTH(message) == 0) {
        Py_SETREF(message, PyUnicode_FromString(fallback));
    }
    if (message != NULL) {
        PyUnicode_AppendAndDel(text, message);
    }
    return cbase_except_leave(&block) < 0 || *text == NULL ? -1 : 0;
}

/* format % args, or format % (arg,) */
static PyObject *
format(const char *text, PyObject *args)
{
    PyObject *pattern = PyUnicode_FromString(text);

    if (pattern == NULL) {
        return NULL;
    }
    PyObject *result = PyUnicode_Format(pattern, args);
    Py_DECREF(pattern);
    return result;
}

/* 'fileno=N ' */
static PyObject *
format_socket(cbase_state *st, PyObject *self)
{
    PyObject *socket, *fileno = NULL, *text = NULL;
    int has = compat_get_optional(self, st->s_socket, &socket);

    if (has < 0) {
        return NULL;
    }
    if (has == 0) {
        return PyUnicode_FromString("");
    }
    fileno = cbase_object_call(socket, st->s_fileno);
    Py_DECREF(socket);
    if (fileno == NULL) {
        fileno = PyUnicode_FromString("");
        if (fileno == NULL || append_error(&fileno, "") < 0) {
            Py_XDECREF(fileno);
            return NULL;
        }
    }
    text = format("fileno=%s ", fileno);
    Py_DECREF(fileno);
    return text;
}

/* 'address=HOST:PORT' or 'address=ADDRESS' */
static PyObject *
format_address(cbase_state *st, PyObject *self)
{
    PyObject *address = PyObject_GetAttr(self, st->s_address);
    PyObject *text = NULL;

    if (address == NULL) {
        return NULL;
    }
    int pair = PyObject_IsInstance(address, (PyObject *)&PyTuple_Type);
    if (pair > 0) {
        Py_ssize_t size = PyObject_Size(address);
        pair = size < 0 ? -1 : size == 2;
    }
    if (pair > 0) {
        text = format("address=%s:%s", address);
    }
    else if (pair == 0) {
        PyObject *one = PyTuple_Pack(1, address);
        text = one == NULL ? NULL : format("address=%s", one);
        Py_XDECREF(one);
    }
    Py_DECREF(address);
    return text;
}

/* ' handle=...': a bound method of the server itself is not asked for its repr, which would
 * contain the server's. */
static PyObject *
format_handle(cbase_state *st, PyObject *self, PyObject *handle, PyObject *bound_to)
{
    PyObject *text = NULL;

    if (bound_to != self) {
        PyObject *repr = PyObject_Repr(handle);
        text = repr == NULL ? NULL : PyUnicode_FromFormat(" handle=%U", repr);
        Py_XDECREF(repr);
        return text;
    }
    PyObject *type = cbase_object_attr(self, "__class__");
    PyObject *type_name = type == NULL ? NULL : PyObject_GetAttr(type, st->s___name__);
    PyObject *name = type_name == NULL ? NULL : PyObject_GetAttr(handle, st->s___name__);
    if (name != NULL) {
        text = PyUnicode_FromFormat(" handle=<bound method %S.%S of self>", type_name, name);
    }
    Py_XDECREF(name);
    Py_XDECREF(type_name);
    Py_XDECREF(type);
    return text;
}

/* Appends a part, or the text of the exception that making it raised. */
static int
append(PyObject **text, PyObject *part)
{
    if (part == NULL) {
        return append_error(text, "<error>");
    }
    PyUnicode_AppendAndDel(text, part);
    return *text == NULL ? -1 : 0;
}

static PyObject *
format_info(cbase_state *st, PyObject *self)
{
    PyObject *text = format_socket(st, self);
    PyObject *handle = NULL, *bound_to = NULL;

    if (text == NULL || append(&text, format_address(st, self)) < 0
        || cbase_instance_dict_get(st, self, st->s_handle, &handle) < 0)
    {
        goto error;
    }
    if (handle != NULL) {
        if (compat_get_optional(handle, st->s___self__, &bound_to) < 0
            || append(&text, format_handle(st, self, handle, bound_to)) < 0)
        {
            goto error;
        }
    }
    Py_XDECREF(bound_to);
    Py_XDECREF(handle);
    return text;
error:
    Py_XDECREF(bound_to);
    Py_XDECREF(handle);
    Py_XDECREF(text);
    return NULL;
}

static PyObject *
server_formatinfo(PyObject *module, PyObject *self)
{
    return format_info(cbase_module_state(module), self);
}

/* '<NAME INFO>' or '<NAME at ID INFO>' */
static PyObject *
describe(cbase_state *st, PyObject *self, int with_id)
{
    PyObject *name = PyObject_GetAttr((PyObject *)Py_TYPE(self), st->s___name__);
    PyObject *info = name == NULL ? NULL : cbase_object_call(self, st->s__formatinfo);
    PyObject *result = NULL;

    if (info != NULL && with_id) {
        PyObject *id = PyLong_FromVoidPtr(self);
        PyObject *hex = id == NULL ? NULL : PyNumber_ToBase(id, 16);
        result = hex == NULL ? NULL : PyUnicode_FromFormat("<%S at %U %S>", name, hex, info);
        Py_XDECREF(hex);
        Py_XDECREF(id);
    }
    else if (info != NULL) {
        result = PyUnicode_FromFormat("<%S %S>", name, info);
    }
    Py_XDECREF(info);
    Py_XDECREF(name);
    return result;
}

static PyObject *
server_repr(PyObject *module, PyObject *self)
{
    return describe(cbase_module_state(module), self, 1);
}

static PyObject *
server_str(PyObject *module, PyObject *self)
{
    return describe(cbase_module_state(module), self, 0);
}

/* self.address[index] if it is a tuple, else None */
static PyObject *
address_item(cbase_state *st, PyObject *self, PyObject *index)
{
    PyObject *address = PyObject_GetAttr(self, st->s_address);
    PyObject *item = NULL;

    if (address == NULL) {
        return NULL;
    }
    int is_tuple = PyObject_IsInstance(address, (PyObject *)&PyTuple_Type);
    if (is_tuple > 0) {
        item = PyObject_GetItem(address, index);
    }
    else if (is_tuple == 0) {
        item = Py_NewRef(Py_None);
    }
    Py_DECREF(address);
    return item;
}

static PyObject *
get_server_host(PyObject *module, PyObject *self)
{
    cbase_state *st = cbase_module_state(module);
    return address_item(st, self, st->zero);
}

static PyObject *
get_server_port(PyObject *module, PyObject *self)
{
    cbase_state *st = cbase_module_state(module);
    return address_item(st, self, st->one);
}

static PyObject *
get_started(PyObject *module, PyObject *self)
{
    cbase_state *st = cbase_module_state(module);
    PyObject *event;

    event = PyObject_GetAttr(self, st->s__stop_event);
    if (event == NULL) {
        return NULL;
    }
    int stopped = cbase_object_ask(event, st->s_is_set);
    Py_DECREF(event);
    return stopped < 0 ? NULL : PyBool_FromLong(!stopped);
}

static PyObject *
get_closed(PyObject *module, PyObject *self)
{
    int open = cbase_object_has(self, cbase_module_state(module)->s_socket);
    return open < 0 ? NULL : PyBool_FromLong(!open);
}

PyMethodDef cbase_repr_functions[] = {
    {"_server_formatinfo", server_formatinfo, METH_O, NULL},
    {"_server_repr", server_repr, METH_O, NULL},
    {"_server_str", server_str, METH_O, NULL},
    {"_server_host", get_server_host, METH_O, NULL},
    {"_server_port", get_server_port, METH_O, NULL},
    {"_server_started", get_started, METH_O, NULL},
    {"_server_closed", get_closed, METH_O, NULL},
    {NULL, NULL, 0, NULL},
};
