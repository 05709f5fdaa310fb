/* What a native step takes for granted: that certain classes and Python functions of gevent, and
 * what is found under certain global names, are what they were when they were compared.
 *
 * CAUTION: PyTypeObject.tp_version_tag, as in hooks.c.
 */
#include "cbase.h"

/* ---- what was compared ---- */

/* Counts what is in a tuple: 0, or -1 if these are more than there is room for. */
static int
take_count(PyObject *tuple, Py_ssize_t room, Py_ssize_t *count)
{
    *count = PyTuple_GET_SIZE(tuple);
    if (*count > room) {
        PyErr_SetString(PyExc_ValueError, "too many premises");
        return -1;
    }
    return 0;
}

static int
take_functions(cbase_premises *p, PyObject *functions)
{
    if (take_count(functions, CBASE_FUNCTIONS, &p->functions) < 0) {
        return -1;
    }
    for (Py_ssize_t i = 0; i < p->functions; i++) {
        PyFunctionObject *function = (PyFunctionObject *)PyTuple_GET_ITEM(functions, i);
        if (!PyFunction_Check(function)) {
            PyErr_SetString(PyExc_TypeError, "a premise is a Python function");
            return -1;
        }
        p->function[i].object = function;
        p->function[i].code = function->func_code;
        p->function[i].defaults = function->func_defaults;
        p->function[i].kwdefaults = function->func_kwdefaults;
    }
    return 0;
}

static int
take_globals(cbase_premises *p, PyObject *globals)
{
    if (take_count(globals, CBASE_GLOBALS, &p->globals) < 0) {
        return -1;
    }
    for (Py_ssize_t i = 0; i < p->globals; i++) {
        if (!PyArg_ParseTuple(PyTuple_GET_ITEM(globals, i), "O!OO", &PyDict_Type,
                              &p->global[i].namespace, &p->global[i].name, &p->global[i].value))
        {
            return -1;
        }
        PyObject *namespace = p->global[i].namespace;
        p->global[i].watched = cbase_dict_watch(CBASE_NAMESPACE, NULL, namespace) == 0;
        PyErr_Clear(); // all watchers are taken
        p->global[i].stamp = cbase_dict_stamp(CBASE_NAMESPACE, namespace) - 1; // not looked at yet
    }
    return 0;
}

static void
read_versions(const cbase_premises *p, unsigned int *versions)
{
    memset(versions, 0, CBASE_CLASSES * sizeof(*versions));
    for (Py_ssize_t i = 0; i < p->classes; i++) {
        versions[i] = compat_type_version(p->class[i]);
    }
}

static int
same_versions(const unsigned int *one, const unsigned int *other)
{
    return memcmp(one, other, CBASE_CLASSES * sizeof(*one)) == 0;
}

static int
take_classes(cbase_premises *p, PyObject *classes)
{
    if (take_count(classes, CBASE_CLASSES, &p->classes) < 0) {
        return -1;
    }
    for (Py_ssize_t i = 0; i < p->classes; i++) {
        PyObject *cls = PyTuple_GET_ITEM(classes, i);
        if (!PyType_Check(cls)) {
            PyErr_SetString(PyExc_TypeError, "a premise is a class");
            return -1;
        }
        PyObject *found = cbase_attr(cls, "__init__"); // gives it a version
        Py_XDECREF(found);
        if (found == NULL) {
            return -1;
        }
        p->class[i] = (PyTypeObject *)cls;
        if (compat_type_version(p->class[i]) == 0) {
            PyErr_Format(PyExc_RuntimeError, "%R has no version", cls);
            return -1;
        }
    }
    read_versions(p, p->compared);
    memcpy(p->looked_at, p->compared, sizeof(p->compared));
    return 0;
}

static int
has_same_classes(const cbase_premises *one, const cbase_premises *other)
{
    return one->classes == other->classes
           && memcmp(one->class, other->class, sizeof(one->class)) == 0;
}

static int
has_same_functions(const cbase_premises *one, const cbase_premises *other)
{
    return one->functions == other->functions
           && memcmp(one->function, other->function, sizeof(one->function)) == 0;
}

static int
has_same_names(const cbase_premises *one, const cbase_premises *other)
{
    if (one->globals != other->globals) {
        return 0;
    }
    for (Py_ssize_t i = 0; i < one->globals; i++) {
        if (one->global[i].namespace != other->global[i].namespace
            || one->global[i].name != other->global[i].name
            || one->global[i].value != other->global[i].value)
        {
            return 0;
        }
    }
    return 1;
}

int
cbase_premises_set(cbase_premises *premises, PyObject *given)
{
    cbase_premises p = {0};
    PyObject *classes, *functions, *globals;

    if (!PyArg_ParseTuple(given, "O!O!O!", &PyTuple_Type, &classes, &PyTuple_Type, &functions,
                          &PyTuple_Type, &globals)
        || take_functions(&p, functions) < 0 || take_globals(&p, globals) < 0
        || take_classes(&p, classes) < 0)
    {
        return -1;
    }
    /* Owned from here on; what was owned before stays alive, as it may be in use. */
    if (!has_same_functions(&p, premises)) {
        for (Py_ssize_t i = 0; i < p.functions; i++) {
            Py_INCREF(p.function[i].object);
            Py_INCREF(p.function[i].code);
            Py_XINCREF(p.function[i].defaults);
            Py_XINCREF(p.function[i].kwdefaults);
        }
    }
    if (!has_same_classes(&p, premises)) {
        Py_INCREF(classes);
    }
    if (!has_same_names(&p, premises)) {
        Py_INCREF(globals);
    }
    *premises = p;
    return 0;
}

/* ---- is it still so? ---- */

static int
same_functions(const cbase_premises *p)
{
    for (Py_ssize_t i = 0; i < p->functions; i++) {
        const PyFunctionObject *function = p->function[i].object;
        if (function->func_code != p->function[i].code
            || function->func_defaults != p->function[i].defaults
            || function->func_kwdefaults != p->function[i].kwdefaults)
        {
            return 0;
        }
    }
    return 1;
}

static int
same_globals(cbase_premises *p)
{
    for (Py_ssize_t i = 0; i < p->globals; i++) {
        uint64_t stamp = cbase_dict_stamp(CBASE_NAMESPACE, p->global[i].namespace);
        if (p->global[i].watched && p->global[i].stamp == stamp) {
            continue;
        }
        PyObject *value = PyDict_GetItemWithError(p->global[i].namespace, p->global[i].name);
        if (value != p->global[i].value) {
            PyErr_Clear();
            return 0;
        }
        p->global[i].stamp = stamp;
    }
    return 1;
}

/* module.prepare(): 0 or -1 */
static int
prepare(const char *module)
{
    PyObject *imported = PyImport_ImportModule(module);
    PyObject *function = imported == NULL ? NULL : cbase_attr(imported, "prepare");
    PyObject *result = function == NULL ? NULL : PyObject_CallNoArgs(function);

    Py_XDECREF(function);
    Py_XDECREF(imported);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

int
cbase_premises_find(int *looked_for, const char *needed, const char *module)
{
    if (*looked_for) {
        return 0;
    }
    PyObject *name = PyUnicode_FromString(needed);
    if (name == NULL) {
        return -1;
    }
    int loaded = PyMapping_HasKey(PyImport_GetModuleDict(), name);
    Py_DECREF(name);
    if (!loaded) {
        return 0;
    }
    *looked_for = 1;
    return prepare(module);
}

/* A class has changed: compare all of it again, once. */
static int
look_again(cbase_premises *p, const unsigned int *now, const char *module)
{
    if (same_versions(now, p->looked_at)) {
        return 0;
    }
    if (prepare(module) < 0) {
        return -1;
    }
    read_versions(p, p->looked_at);
    return same_versions(p->looked_at, p->compared);
}

/* Whether all classes are in the version in which they were compared. */
static int
same_classes(const cbase_premises *p)
{
    for (Py_ssize_t i = 0; i < p->classes; i++) {
        if (compat_type_version(p->class[i]) != p->compared[i]) {
            return 0;
        }
    }
    return 1;
}

int
cbase_premises_hold(cbase_premises *p, const char *module)
{
    if (p->classes == 0) {
        return 0;
    }
    if (!same_classes(p)) {
        unsigned int now[CBASE_CLASSES];
        read_versions(p, now);
        int again = look_again(p, now, module);
        if (again <= 0) {
            return again;
        }
    }
    return same_functions(p) && same_globals(p);
}

void
cbase_own(PyObject *const *parts, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        Py_INCREF(parts[i]);
    }
}
