/* Methods in C that take any object, as functions of a class in Python do.
 *
 * Does not know what they do, nor of which class they are.
 */
#include "server/server.h"

cbase_state *cbase_methods_only_state;

static vectorcallfunc call_checked; // how CPython calls methods of this kind

/* BaseServer.method(obj, ...): as gevent's, it takes any object. Between the look-up of a method
 * and its call uninstall() may have made a server no instance of this class any more, in another
 * thread or in a finalizer.
 *
 * CAUTION: PyMethodDescrObject is in the public headers, but not documented. Watched by
 * test_methods_take_any_object. */
static PyObject *
call_unchecked(PyObject *descr, PyObject *const *args, size_t nargsf, PyObject *kwnames)
{
    Py_ssize_t nargs = PyVectorcall_NARGS(nargsf);

    if (nargs < 1) {
        return call_checked(descr, args, nargsf, kwnames);
    }
    PyCMethod function =
        (PyCMethod)(void (*)(void))((PyMethodDescrObject *)descr)->d_method->ml_meth;
    if (Py_EnterRecursiveCall(" while calling a Python object")) {
        return NULL;
    }
    PyObject *result = function(args[0], PyDescr_TYPE(descr), args + 1, nargs - 1, kwnames);
    Py_LeaveRecursiveCall();
    return result;
}

PyObject *
cbase_methods_new(PyTypeObject *type, PyMethodDef *def)
{
    PyObject *descr = PyDescr_NewMethod(type, def);

    if (descr != NULL) {
        call_checked = ((PyMethodDescrObject *)descr)->vectorcall;
        ((PyMethodDescrObject *)descr)->vectorcall = call_unchecked;
    }
    return descr;
}

/* After uninstall() a program may have kept a method in something that it has put on a class, and
 * that binds it to a server that is no longer of ours. A method of `object` takes any object.
 *
 * CAUTION: what it is a method of, CPython reads in the public struct PyDescrObject. Watched by
 * test_proxies_in_any_order. */
static PyObject *
set_owner(PyObject *module, PyObject *args)
{
    PyObject *descr, *name;
    PyTypeObject *owner, *former;

    (void)module;
    if (!PyArg_ParseTuple(args, "OO!", &descr, &PyType_Type, &owner)) {
        return NULL;
    }
    if (!Py_IS_TYPE(descr, &PyMethodDescr_Type) && !Py_IS_TYPE(descr, &PyWrapperDescr_Type)) {
        return PyErr_Format(PyExc_TypeError, "%R is no method", descr);
    }
    name = PyObject_GetAttrString(descr, "__qualname__"); // which it keeps, from now on
    if (name == NULL) {
        return NULL;
    }
    Py_DECREF(name);
    former = PyDescr_TYPE(descr);
    Py_INCREF(owner);
    PyDescr_TYPE(descr) = owner;
    Py_DECREF(former);
    return Py_NewRef(Py_None);
}

PyMethodDef cbase_methods_functions[] = {
    {"_set_owner", set_owner, METH_VARARGS,
     PyDoc_STR("_set_owner($module, method, class, /)\n--\n\n"
               "Make a method in C one of this class, BaseServer or object.")},
    {NULL, NULL, 0, NULL},
};
