/* Calls of Python functions of gevent that run in C, whoever makes them: that is what install()
 * asks for.
 *
 * The function objects stay what they are. CPython calls one by its PyFunctionObject.vectorcall,
 * but for the interpreter of 3.11, see gevent_cbase/_native/function_calls.py: there its code
 * compares a mark with its arguments. What the step does not know goes on to the function's code.
 *
 * CAUTION: replaces what calls a Python function (on 3.11: changes its code). Watched by
 * tests/native/steps/test_closing.py.
 *
 * Does not know what the functions do.
 */
#include "native/native.h"

#ifdef CBASE_HAVE_SOCKETS

#include <string.h>

/* The functions, and what stands for each. */
typedef struct {
    const char *name;
    cbase_call *run;
    int has_star;               // its parameters are (self, *args)
    PyFunctionObject *function; // owned; or NULL: not taken over
    vectorcallfunc as_before;   // how calls of it run otherwise
} taken_function;

static taken_function functions[] = {
    {"socket.close", cbase_socket_close_call, 0, NULL, NULL},
    {"SocketMixin.recv", cbase_socket_read_recv, 1, NULL, NULL},
    {"SocketMixin.recv_into", cbase_socket_read_recv_into, 1, NULL, NULL},
    {"SocketMixin.recvfrom", cbase_socket_read_recvfrom, 1, NULL, NULL},
    {"SocketMixin.recvfrom_into", cbase_socket_read_recvfrom_into, 1, NULL, NULL},
    {"SocketMixin.send", cbase_socket_write_send, 0, NULL, NULL},
    {"SocketMixin.sendall", cbase_socket_write_sendall, 0, NULL, NULL},
    {"SocketMixin.sendto", cbase_socket_datagram_sendto, 1, NULL, NULL},
    {"DatagramServer.sendto", cbase_socket_datagram_server_sendto, 1, NULL, NULL},
};

#define MOST_ARGS 5 /* with self */

static PyObject *in_charge; // the module that runs them, which is never freed; or NULL

/* The step, if that is wanted now. */
static inline cbase_outcome
run(const taken_function *taken, PyObject *const *args, size_t nargs, PyObject **result)
{
    *result = NULL;
    if (in_charge == NULL || nargs == 0 || nargs > MOST_ARGS) {
        return CBASE_NOT_OURS;
    }
    PyObject *self = Py_NewRef(args[0]);
    cbase_outcome outcome = taken->run(cbase_module_state(in_charge), args, nargs, result);
    Py_DECREF(self);
    return outcome;
}

static taken_function *
find(const char *name)
{
    for (size_t i = 0; i < Py_ARRAY_LENGTH(functions); i++) {
        if (strcmp(functions[i].name, name) == 0) {
            return &functions[i];
        }
    }
    PyErr_Format(PyExc_ValueError, "no step stands for %s", name);
    return NULL;
}

#ifdef COMPAT_VECTORCALL_IS_ASKED

static inline PyObject *
call(const taken_function *taken, PyObject *function, PyObject *const *args, size_t nargsf,
     PyObject *kwnames)
{
    PyObject *result;

    if (kwnames == NULL) {
        cbase_outcome outcome = run(taken, args, (size_t)PyVectorcall_NARGS(nargsf), &result);
        if (outcome != CBASE_NOT_OURS) {
            return result;
        }
    }
    return taken->as_before(function, args, nargsf, kwnames);
}

#define FOR_EACH(X) X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8)

#define CALL(i)                                                                                   \
    static PyObject *call_##i(PyObject *function, PyObject *const *args, size_t nargsf,           \
                              PyObject *kwnames)                                                  \
    {                                                                                             \
        return call(&functions[i], function, args, nargsf, kwnames);                              \
    }
FOR_EACH(CALL)

#define NAME(i) call_##i,
static const vectorcallfunc ours[] = {FOR_EACH(NAME)};

/* Whether calls of the function run here from now on. */
static int
take(taken_function *taken, PyObject *function)
{
    if (taken->function == NULL) {
        taken->function = (PyFunctionObject *)Py_NewRef(function);
        taken->as_before = taken->function->vectorcall;
        compat_set_vectorcall(taken->function, ours[taken - functions]);
    }
    return (PyObject *)taken->function == function;
}

/* If somebody else has come after us, what he does is left alone, and comes to call(). */
static void
leave(void)
{
    for (size_t i = 0; i < Py_ARRAY_LENGTH(functions); i++) {
        taken_function *taken = &functions[i];
        if (taken->function != NULL && taken->function->vectorcall == ours[i]) {
            compat_set_vectorcall(taken->function, taken->as_before);
            Py_CLEAR(taken->function);
        }
    }
}

#else

/* The function's code compares a mark with its arguments. */
static int
take(taken_function *taken, PyObject *function)
{
    (void)taken, (void)function;
    return 1;
}

static void
leave(void)
{
}

#endif

#ifndef COMPAT_VECTORCALL_IS_ASKED

/* ---- the mark ---- */

typedef struct {
    PyObject_HEAD taken_function *taken;
} mark;

/* What the step gets of a tuple of parameters: how many; 0: none that it knows. */
static size_t
unpack(const taken_function *taken, PyObject *parameters, PyObject **args)
{
    if (!PyTuple_CheckExact(parameters)) {
        return 0;
    }
    Py_ssize_t count = PyTuple_GET_SIZE(parameters);
    PyObject *rest = NULL;
    if (taken->has_star) {
        if (count != 2 || !PyTuple_CheckExact(PyTuple_GET_ITEM(parameters, 1))) {
            return 0;
        }
        rest = PyTuple_GET_ITEM(parameters, 1); // borrowed
        count = 1 + PyTuple_GET_SIZE(rest);
    }
    if (count > MOST_ARGS) {
        return 0;
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        args[i] = rest == NULL || i == 0 ? PyTuple_GET_ITEM(parameters, i) // borrowed
                                         : PyTuple_GET_ITEM(rest, i - 1);  // borrowed
    }
    return (size_t)count;
}

/* mark == (self, ...): what the function returns; False if its code has to run. */
static PyObject *
mark_compare(PyObject *self, PyObject *other, int op)
{
    PyObject *args[MOST_ARGS], *result;

    if (op != Py_EQ) {
        return PyBaseObject_Type.tp_richcompare(self, other, op);
    }
    const taken_function *taken = ((mark *)self)->taken;
    cbase_outcome outcome = run(taken, args, unpack(taken, other, args), &result);
    return outcome == CBASE_NOT_OURS ? Py_NewRef(Py_False) : result;
}

static Py_hash_t
mark_hash(PyObject *self)
{
    return PyBaseObject_Type.tp_hash(self);
}

static PyObject *
mark_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"name", NULL};
    const char *name;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "s:_CallMark", names, &name)) {
        return NULL;
    }
    taken_function *taken = find(name);
    mark *self = taken == NULL ? NULL : (mark *)type->tp_alloc(type, 0);
    if (self != NULL) {
        self->taken = taken;
    }
    return (PyObject *)self;
}

/* No bytes, for marshal. */
static int
mark_buffer(PyObject *self, Py_buffer *view, int flags)
{
    static char nothing[1];

    return PyBuffer_FillInfo(view, self, nothing, 0, 1, flags);
}

/* No bytes, for pickle. */
static PyObject *
mark_reduce(PyObject *self, PyObject *unused)
{
    (void)self, (void)unused;
    return Py_BuildValue("O()", (PyObject *)&PyBytes_Type);
}

static PyMethodDef mark_methods[] = {
    {"__reduce__", mark_reduce, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot mark_slots[] = {
    {Py_tp_doc, "In the code of a function of gevent: compared with its parameters, what C\n"
                "returns in its place."},
    {Py_tp_new, mark_new},
    {Py_tp_richcompare, mark_compare},
    {Py_tp_hash, mark_hash},
    {Py_bf_getbuffer, mark_buffer},
    {Py_tp_methods, mark_methods},
    {0, NULL},
};

static PyType_Spec mark_spec = {
    .name = "gevent_cbase._cbase._CallMark",
    .basicsize = sizeof(mark),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = mark_slots,
};

int
cbase_function_calls_init(PyObject *module)
{
    PyObject *type = PyType_FromModuleAndSpec(module, &mark_spec, NULL);
    int result = type == NULL ? -1 : PyModule_AddObjectRef(module, "_CallMark", type);

    Py_XDECREF(type);
    return result;
}

#else

int
cbase_function_calls_init(PyObject *module)
{
    (void)module;
    return 0;
}

#endif

/* ---- for the modules in Python ---- */

static PyObject *
take_over(PyObject *module, PyObject *args)
{
    const char *name;
    PyObject *function;

    if (!PyArg_ParseTuple(args, "sO!:_calls_take_over", &name, &PyFunction_Type, &function)) {
        return NULL;
    }
    taken_function *taken = find(name);
    if (taken == NULL) {
        return NULL;
    }
    if (take(taken, function)) {
        in_charge = module;
    }
    Py_RETURN_NONE;
}

static PyObject *
give_back(PyObject *module, PyObject *unused)
{
    (void)unused;
    if (in_charge == module) {
        leave();
        in_charge = NULL;
    }
    Py_RETURN_NONE;
}

PyMethodDef cbase_function_calls_functions[] = {
    {"_calls_take_over", take_over, METH_VARARGS,
     PyDoc_STR("_calls_take_over($module, name, function, /)\n--\n\n"
               "Have calls of a function of gevent run in C.")},
    {"_calls_give_back", give_back, METH_NOARGS,
     PyDoc_STR("_calls_give_back($module, /)\n--\n\n"
               "Have all of them run as ever.")},
    {NULL, NULL, 0, NULL},
};

#else

int
cbase_function_calls_init(PyObject *module)
{
    (void)module;
    return 0;
}

PyMethodDef cbase_function_calls_functions[] = {{NULL, NULL, 0, NULL}};

#endif
