/* Addresses that a program gives as text, number or tuple: parse_address and its two helpers.
 *
 * Does not know servers, and resolves no names. Addresses of clients: native/socket_address.c.
 */
#include "server/server.h"

/* (family, address) or (family, (host, port)); steals nothing. */
static PyObject *
family_and(PyObject *family, PyObject *address)
{
    return cbase_object_pair(family, address);
}

/* Whether the character is in a host or address: 1, 0 or -1. */
static int
has_colon(PyObject *text)
{
    PyObject *colon = PyUnicode_FromString(":");

    if (colon == NULL) {
        return -1;
    }
    int found = PySequence_Contains(text, colon);
    Py_DECREF(colon);
    return found;
}

/* text.<name>(*args), with the errors of Python code; `args` is stolen and may be NULL. */
static PyObject *
call_method(PyObject *text, const char *name, PyObject *args)
{
    PyObject *method = args == NULL ? NULL : cbase_object_attr(text, name);
    PyObject *result = method == NULL ? NULL : PyObject_CallObject(method, args);

    Py_XDECREF(method);
    Py_XDECREF(args);
    return result;
}

/* bool(text.<method>(arg)) */
static int
ask_with(PyObject *text, const char *method, const char *arg)
{
    PyObject *result = call_method(text, method, Py_BuildValue("(s)", arg));

    if (result == NULL) {
        return -1;
    }
    int truth = PyObject_IsTrue(result);
    Py_DECREF(result);
    return truth;
}

/* The tuple (family, host without brackets). */
static PyObject *
extract_family(cbase_state *st, PyObject *host)
{
    int brackets = ask_with(host, "startswith", "[");

    if (brackets > 0) {
        brackets = ask_with(host, "endswith", "]");
    }
    if (brackets < 0) {
        return NULL;
    }
    if (!brackets) {
        return family_and(st->family_inet, host);
    }
    PyObject *bare = PyObject_GetItem(host, st->between_ends);
    if (bare == NULL) {
        return NULL;
    }
    PyObject *result = family_and(st->family_inet6, bare);
    Py_DECREF(bare);
    return result;
}

static PyObject *
parse_tuple(cbase_state *st, PyObject *address)
{
    PyObject *host = PyObject_GetItem(address, st->zero);

    if (host == NULL) {
        return NULL;
    }
    int six = PyObject_Not(host);
    if (six == 0) {
        Py_SETREF(host, PyObject_GetItem(address, st->zero));
        six = host == NULL ? -1 : has_colon(host);
    }
    Py_XDECREF(host);
    if (six < 0) {
        return NULL;
    }
    return family_and(six ? st->family_inet6 : st->family_inet, address);
}

/* (family, (host, int(port))) */
static PyObject *
with_port(PyObject *family, PyObject *host, PyObject *port)
{
    PyObject *number = PyObject_CallOneArg((PyObject *)&PyLong_Type, port);
    PyObject *pair = NULL, *result = NULL;

    if (number == NULL) {
        return NULL;
    }
    pair = cbase_object_pair(host, number);
    Py_DECREF(number);
    if (pair != NULL) {
        result = family_and(family, pair);
        Py_DECREF(pair);
    }
    return result;
}

/* The owned tuple (host, port) that `host, port = address.rsplit(':', 1)` unpacks. Only a
 * subclass of str can give anything but two items. */
static PyObject *
split_port(PyObject *address)
{
    PyObject *parts = call_method(address, "rsplit", Py_BuildValue("(si)", ":", 1));
    PyObject *items[3] = {NULL, NULL, NULL};
    PyObject *iterator, *pair = NULL;
    int count = 0;

    if (parts == NULL) {
        return NULL;
    }
    if (Py_TYPE(parts)->tp_iter == NULL && !PySequence_Check(parts)) {
        PyErr_Format(PyExc_TypeError, "cannot unpack non-iterable %.200s object",
                     Py_TYPE(parts)->tp_name);
        Py_DECREF(parts);
        return NULL;
    }
    iterator = PyObject_GetIter(parts);
    Py_DECREF(parts);
    if (iterator == NULL) {
        return NULL;
    }
    while (count < 3 && (items[count] = PyIter_Next(iterator)) != NULL) {
        count++;
    }
    Py_DECREF(iterator);
    if (PyErr_Occurred()) {
        // raised by the iterator
    }
    else if (count < 2) {
        PyErr_Format(PyExc_ValueError, "not enough values to unpack (expected 2, got %d)", count);
    }
    else if (count > 2) {
        PyErr_SetString(PyExc_ValueError, "too many values to unpack (expected 2)");
    }
    else {
        pair = cbase_object_pair(items[0], items[1]);
    }
    for (int i = 0; i < count; i++) {
        Py_DECREF(items[i]);
    }
    return pair;
}

static PyObject *
parse_host_and_port(cbase_state *st, PyObject *address)
{
    PyObject *pair = split_port(address);
    PyObject *extracted = NULL, *star = NULL, *result = NULL;

    if (pair == NULL) {
        return NULL;
    }
    extracted = extract_family(st, PyTuple_GET_ITEM(pair, 0));
    star = PyUnicode_FromString("*");
    if (extracted == NULL || star == NULL) {
        goto done;
    }
    PyObject *host = PyTuple_GET_ITEM(extracted, 1); // borrowed
    int any = PyObject_RichCompareBool(host, star, Py_EQ);
    if (any >= 0) {
        result = with_port(PyTuple_GET_ITEM(extracted, 0), any ? st->address_any : host,
                           PyTuple_GET_ITEM(pair, 1));
    }
done:
    Py_XDECREF(star);
    Py_XDECREF(extracted);
    Py_DECREF(pair);
    return result;
}

static PyObject *
parse(cbase_state *st, PyObject *address)
{
    int is = PyObject_IsInstance(address, (PyObject *)&PyTuple_Type);

    if (is != 0) {
        return is < 0 ? NULL : parse_tuple(st, address);
    }
    is = PyObject_IsInstance(address, (PyObject *)&PyUnicode_Type);
    int colon = is > 0 ? has_colon(address) : 1;
    if (is < 0 || colon < 0) {
        return NULL;
    }
    if (colon) { // or a number, whatever else it claims to be
        int is_number = PyObject_IsInstance(address, (PyObject *)&PyLong_Type);
        if (is_number == 0 && is == 0) {
            cbase_except_raise(PyExc_TypeError, "Expected tuple or string, got %S",
                               (PyObject *)Py_TYPE(address));
        }
        if (is_number <= 0) {
            return is_number < 0 || is == 0 ? NULL : parse_host_and_port(st, address);
        }
    }
    return with_port(st->family_inet6, st->address_any, address); // just a port
}

PyObject *
cbase_parse_address(cbase_state *st, PyObject *address)
{
    PyObject *result = parse(st, address);

    if (result == NULL && PyErr_ExceptionMatches(PyExc_ValueError)) {
        cbase_except block;
        cbase_except_enter(&block);
        cbase_except_raise(PyExc_ValueError, "Failed to parse address %R: %S", address,
                           block.raised);
        (void)cbase_except_leave(&block);
    }
    return result;
}

static PyObject *
address_extract_family(PyObject *module, PyObject *host)
{
    return extract_family(cbase_module_state(module), host);
}

static PyObject *
address_parse_inner(PyObject *module, PyObject *address)
{
    return parse(cbase_module_state(module), address);
}

static PyObject *
address_parse(PyObject *module, PyObject *address)
{
    return cbase_parse_address(cbase_module_state(module), address);
}

PyMethodDef cbase_parse_address_functions[] = {
    {"_address_extract_family", address_extract_family, METH_O, NULL},
    {"_address_parse_inner", address_parse_inner, METH_O, NULL},
    {"_address_parse", address_parse, METH_O, NULL},
    {NULL, NULL, 0, NULL},
};
