/* What a native step takes for granted: that certain classes and Python functions of gevent, and
 * what these read by a name, are what they were when they were compared.
 *
 * The comparison itself is made in Python, by prepare() of the module that belongs to the step. It
 * may run anything and may fail, and gevent may change while it runs. So what it has compared is
 * noted before it begins, and a step uses nothing after it that it has not read anew. If it fails,
 * as without memory, gevent's own code runs this time, and it is tried again later. Only what is
 * no Exception, as KeyboardInterrupt, goes on up.
 *
 * Does not know what the steps do, nor which there are: each makes its comparison known.
 */
#include "native/premises.h"

struct cbase_premises_state {
    cbase_premises_comparison *first; // of those that are known
    int unfinished;                   // one of them has failed
    void (*on_compared)(cbase_state *st);
};

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
        PyObject *defaults, *kwdefaults;
        if (!PyArg_ParseTuple(PyTuple_GET_ITEM(functions, i), "O!O!OO", &PyFunction_Type,
                              &p->function[i].object, &PyCode_Type, &p->function[i].code,
                              &defaults, &kwdefaults))
        {
            return -1;
        }
        p->function[i].defaults = defaults == Py_None ? NULL : defaults;
        p->function[i].kwdefaults = kwdefaults == Py_None ? NULL : kwdefaults;
    }
    return 0;
}

/* Whether a tuple has (name, value) or (name,), many times. */
static int
check_names(PyObject *names)
{
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(names); i++) {
        PyObject *name, *value, *item = PyTuple_GET_ITEM(names, i); // borrowed
        if (!PyTuple_Check(item) || !PyArg_ParseTuple(item, "U|O", &name, &value)) {
            PyErr_SetString(PyExc_TypeError, "names and their values are required");
            return -1;
        }
    }
    return 0;
}

static int
take_namespaces(cbase_premises *p, PyObject *namespaces)
{
    if (take_count(namespaces, CBASE_NAMESPACES, &p->namespaces) < 0) {
        return -1;
    }
    p->all_watched = 1;
    for (Py_ssize_t i = 0; i < p->namespaces; i++) {
        PyObject *dict, *names;
        if (!PyArg_ParseTuple(PyTuple_GET_ITEM(namespaces, i), "O!O!", &PyDict_Type, &dict,
                              &PyTuple_Type, &names)
            || check_names(names) < 0)
        {
            return -1;
        }
        p->namespace[i].dict = dict;
        p->namespace[i].names = names;
        p->namespace[i].watched = cbase_dict_stamp_watch(CBASE_DICT_ALL_NAMES, dict);
        p->namespace[i].stamp =
            cbase_dict_stamp_of(CBASE_DICT_ALL_NAMES, dict) - 1; // not looked at yet
        p->all_watched &= p->namespace[i].watched;
        p->found_right = p->namespace[i].stamp;
    }
    return 0;
}

static int
take_cells(cbase_premises *p, PyObject *cells)
{
    if (take_count(cells, CBASE_CELLS, &p->cells) < 0) {
        return -1;
    }
    for (Py_ssize_t i = 0; i < p->cells; i++) {
        if (!PyArg_ParseTuple(PyTuple_GET_ITEM(cells, i), "O!O", &PyCell_Type, &p->cell[i].object,
                              &p->cell[i].contents))
        {
            return -1;
        }
    }
    return 0;
}

static int
take_classes(cbase_premises *p, PyObject *classes)
{
    if (take_count(classes, CBASE_CLASSES, &p->classes) < 0) {
        return -1;
    }
    for (Py_ssize_t i = 0; i < p->classes; i++) {
        PyObject *class, *stamp;
        if (!PyArg_ParseTuple(PyTuple_GET_ITEM(classes, i), "O!S", &PyType_Type, &class, &stamp)) {
            return -1;
        }
        if (PyBytes_GET_SIZE(stamp) != sizeof(p->compared[i])) {
            PyErr_SetString(PyExc_ValueError, "not the stamp of a class");
            return -1;
        }
        memcpy(&p->compared[i], PyBytes_AS_STRING(stamp), sizeof(p->compared[i]));
        if ((PyObject *)p->compared[i].type != class || p->compared[i].version == 0) {
            PyErr_SetString(PyExc_ValueError, "the stamp of another class");
            return -1;
        }
    }
    memcpy(p->looked_at, p->compared, sizeof(p->compared));
    return 0;
}

static int
has_same_classes(const cbase_premises *one, const cbase_premises *other)
{
    int same = one->classes == other->classes;

    for (Py_ssize_t i = 0; same && i < one->classes; i++) {
        same = one->compared[i].type == other->compared[i].type;
    }
    return same;
}

static int
has_same_functions(const cbase_premises *one, const cbase_premises *other)
{
    return one->functions == other->functions
           && memcmp(one->function, other->function, sizeof(one->function)) == 0;
}

/* Whether two tuples have the same names and values, the very same objects. */
static int
are_same_names(PyObject *one, PyObject *other)
{
    int same = PyTuple_GET_SIZE(one) == PyTuple_GET_SIZE(other);

    for (Py_ssize_t i = 0; same && i < PyTuple_GET_SIZE(one); i++) {
        PyObject *a = PyTuple_GET_ITEM(one, i);   // borrowed
        PyObject *b = PyTuple_GET_ITEM(other, i); // borrowed
        Py_ssize_t size = PyTuple_GET_SIZE(a);
        same = size == PyTuple_GET_SIZE(b) && PyTuple_GET_ITEM(a, 0) == PyTuple_GET_ITEM(b, 0)
               && PyTuple_GET_ITEM(a, size - 1) == PyTuple_GET_ITEM(b, size - 1);
    }
    return same;
}

static int
has_same_namespaces(const cbase_premises *one, const cbase_premises *other)
{
    int same = one->namespaces == other->namespaces;

    for (Py_ssize_t i = 0; same && i < one->namespaces; i++) {
        same = one->namespace[i].dict == other->namespace[i].dict
               && are_same_names(one->namespace[i].names, other->namespace[i].names);
    }
    return same;
}

static int
has_same_cells(const cbase_premises *one, const cbase_premises *other)
{
    return one->cells == other->cells && memcmp(one->cell, other->cell, sizeof(one->cell)) == 0;
}

int
cbase_premises_set(cbase_premises *premises, PyObject *given)
{
    cbase_premises p = {0};
    PyObject *classes, *functions, *namespaces, *cells;

    if (!PyArg_ParseTuple(given, "O!O!O!O!", &PyTuple_Type, &classes, &PyTuple_Type, &functions,
                          &PyTuple_Type, &namespaces, &PyTuple_Type, &cells)
        || take_functions(&p, functions) < 0 || take_namespaces(&p, namespaces) < 0
        || take_cells(&p, cells) < 0 || take_classes(&p, classes) < 0)
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
        for (Py_ssize_t i = 0; i < p.classes; i++) {
            Py_INCREF(p.compared[i].type);
        }
    }
    if (has_same_namespaces(&p, premises)) {
        for (Py_ssize_t i = 0; i < p.namespaces; i++) {
            p.namespace[i].names = premises->namespace[i].names; // which are owned
        }
    }
    else {
        Py_INCREF(namespaces);
    }
    if (!has_same_cells(&p, premises)) {
        Py_INCREF(cells);
    }
    *premises = p;
    return 0;
}

void
cbase_premises_forget(cbase_premises *premises)
{
    premises->classes = 0;
}

/* ---- the comparison ---- */

/* module.prepare(): 0 or -1. It makes a Greenlet; in a generator, gevent leaves what the caller
 * handles as handled in the generator when it does so. */
static int
call_prepare(const char *module)
{
    PyObject *handled[3];

    compat_get_handled(handled);
    PyObject *function = cbase_object_imported(module, "prepare");
    PyObject *result = function == NULL ? NULL : PyObject_CallNoArgs(function);

    Py_XDECREF(function);
    Py_XDECREF(result);
    PyErr_SetExcInfo(handled[0], handled[1], handled[2]);
    return result == NULL ? -1 : 0;
}

#define LONGEST_PAUSE 4095 /* attempts */

int
cbase_premises_compare(cbase_state *st, cbase_premises_comparison *comparison)
{
    comparison->wanted = 1;
    if (comparison->running) {
        return 0; // this is called by what prepare() does, or in the meantime
    }
    if (comparison->wait > 0) {
        comparison->wait--;
        return 0;
    }
    comparison->running = 1;
    int result = call_prepare(comparison->module);
    comparison->running = 0;
    if (result == 0) {
        comparison->compared = 1;
        comparison->pause = 0;
        st->premises->on_compared(st);
        return 1;
    }
    st->premises->unfinished = 1;
    if (!PyErr_ExceptionMatches(PyExc_Exception)) {
        return -1;
    }
    PyErr_Clear(); // it fails more often than not for long, as when the interpreter ends
    if (comparison->pause < LONGEST_PAUSE) {
        comparison->pause = 2 * comparison->pause + 1;
    }
    comparison->wait = comparison->pause;
    return 0;
}

int
cbase_premises_compare_once(cbase_state *st, cbase_premises_comparison *comparison)
{
    if (comparison->compared) {
        return 0;
    }
    if (!comparison->wanted) {
        PyObject *name = PyUnicode_FromString(comparison->needed);
        if (name == NULL) {
            return -1;
        }
        int loaded = PyMapping_HasKey(PyImport_GetModuleDict(), name);
        Py_DECREF(name);
        if (!loaded) {
            return 0;
        }
    }
    return cbase_premises_compare(st, comparison) < 0 ? -1 : 0;
}

int
cbase_premises_compare_again(cbase_state *st)
{
    struct cbase_premises_state *p = st->premises;

    if (!p->unfinished) {
        return 0;
    }
    p->unfinished = 0;
    for (cbase_premises_comparison *one = p->first; one != NULL; one = one->next) {
        if (one->wanted && !one->compared) {
            if (cbase_premises_compare(st, one) < 0) {
                return -1;
            }
            p->unfinished |= !one->compared;
        }
    }
    return 0;
}

void
cbase_premises_register(cbase_state *st, cbase_premises_comparison *comparison, const char *needed,
                        const char *module)
{
    comparison->needed = needed;
    comparison->module = module;
    comparison->next = st->premises->first;
    st->premises->first = comparison;
}

void
cbase_premises_on_compared(cbase_state *st, void (*call)(cbase_state *st))
{
    st->premises->on_compared = call;
}

int
cbase_premises_init(cbase_state *st)
{
    st->premises = cbase_state_new(sizeof(*st->premises));
    return st->premises == NULL ? -1 : 0;
}

/* ---- is it still so? ---- */

static int
same_functions(const cbase_premises *p)
{
    const cbase_premises_function *end = p->function + p->functions;

    for (const cbase_premises_function *was = p->function; was < end; was++) {
        const PyFunctionObject *function = was->object;
        if (function->func_code != was->code || function->func_defaults != was->defaults
            || function->func_kwdefaults != was->kwdefaults)
        {
            return 0;
        }
    }
    return 1;
}

static int
same_cells(const cbase_premises *p)
{
    for (Py_ssize_t i = 0; i < p->cells; i++) {
        if (PyCell_GET(p->cell[i].object) != p->cell[i].contents) {
            return 0;
        }
    }
    return 1;
}

/* Whether each of the names, which are kept for good, has its value in the dict. A key may run
 * anything when it is compared. */
static int
has_values(PyObject *dict, PyObject *names)
{
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(names); i++) {
        PyObject *item = PyTuple_GET_ITEM(names, i); // borrowed: (name, value) or (name,)
        PyObject *expected =                         // borrowed
            PyTuple_GET_SIZE(item) == 2 ? PyTuple_GET_ITEM(item, 1) : NULL;
        PyObject *value = // borrowed, compared only
            PyDict_GetItemWithError(dict, PyTuple_GET_ITEM(item, 0));
        if (value != expected || PyErr_Occurred()) {
            PyErr_Clear();
            return 0;
        }
    }
    return 1;
}

/* Whether each name in a namespace has its value. */
static Py_NO_INLINE int
is_same_namespace(cbase_premises *p, Py_ssize_t i)
{
    PyObject *dict = p->namespace[i].dict, *names = p->namespace[i].names;
    uint64_t stamp = cbase_dict_stamp_of(CBASE_DICT_ALL_NAMES, dict);

    if (p->namespace[i].watched && p->namespace[i].stamp == stamp) {
        return 1;
    }
    if (!has_values(dict, names)) {
        return 0;
    }
    if (dict == p->namespace[i].dict && names == p->namespace[i].names
        && !cbase_dict_stamp_is_shared(dict))
    {
        p->namespace[i].stamp = stamp;
    }
    return 1;
}

/* Whether all are, by a look at each. */
static Py_NO_INLINE int
are_same_namespaces(cbase_premises *p)
{
    uint64_t stamp;
    int for_all = cbase_dict_stamp_of_all(CBASE_DICT_ALL_NAMES, &stamp) && p->all_watched;

    for (Py_ssize_t i = 0; i < p->namespaces; i++) {
        if (!is_same_namespace(p, i)) {
            return 0;
        }
        for_all &= p->namespace[i].stamp == stamp;
    }
    if (for_all) {
        p->found_right = stamp;
    }
    return 1;
}

static inline int
same_namespaces(cbase_premises *p)
{
    uint64_t stamp;

    return (cbase_dict_stamp_of_all(CBASE_DICT_ALL_NAMES, &stamp) && p->all_watched
            && p->found_right == stamp)
           || are_same_namespaces(p);
}

/* The stamp of a class, also where it takes a look-up to give it one: 1, 0 if it gets none, or
 * -1. */
static int
take_stamp(cbase_class_stamp *stamp, PyTypeObject *cls)
{
    if (compat_type_version(cls) == 0) {
        PyObject *found = cbase_object_attr((PyObject *)cls, "__init__");
        Py_XDECREF(found);
        if (found == NULL && !PyErr_ExceptionMatches(PyExc_Exception)) {
            return -1;
        }
        PyErr_Clear();
    }
    return cbase_class_stamp_take(stamp, cls);
}

/* Whether all classes are as they were when they were compared. */
static int
same_classes(const cbase_premises *p)
{
    return cbase_class_stamp_all_hold(p->compared, p->classes);
}

/* A class has changed: compare all of it again, once. */
static int
look_again(cbase_state *st, cbase_premises *p, cbase_premises_comparison *comparison)
{
    cbase_class_stamp now[CBASE_CLASSES];

    memset(now, 0, sizeof(now));
    for (Py_ssize_t i = 0; i < p->classes; i++) {
        if (take_stamp(&now[i], p->compared[i].type) < 0) {
            return -1;
        }
    }
    if (memcmp(now, p->looked_at, sizeof(now)) == 0) {
        return 0;
    }
    if (memcmp(now, p->failed_at, sizeof(now)) != 0) {
        comparison->wait = 0; // another change: it may not fail again
        memcpy(p->failed_at, now, sizeof(now));
    }
    int prepared = cbase_premises_compare(st, comparison);
    if (prepared > 0 && !same_classes(p)) {
        memcpy(p->looked_at, now, sizeof(now));
        return 0;
    }
    return prepared;
}

/* All but the classes. */
static int
same_rest(cbase_premises *p)
{
    return same_functions(p) && same_cells(p) && same_namespaces(p);
}

/* The same after a class has changed. */
static Py_NO_INLINE int
hold_again(cbase_state *st, cbase_premises *p, cbase_premises_comparison *comparison)
{
    int again = look_again(st, p, comparison);

    return again > 0 ? p->classes != 0 && same_rest(p) : again;
}

int
cbase_premises_hold(cbase_state *st, cbase_premises *p, cbase_premises_comparison *comparison)
{
    if (p->classes == 0) {
        return 0;
    }
    return same_classes(p) ? same_rest(p) : hold_again(st, p, comparison);
}

/* ---- for the modules in Python ---- */

static PyObject *
class_stamp(PyObject *module, PyObject *cls)
{
    cbase_class_stamp stamp;

    (void)module;
    if (!PyType_Check(cls)) {
        PyErr_SetString(PyExc_TypeError, "a class is required");
        return NULL;
    }
    int taken = take_stamp(&stamp, (PyTypeObject *)cls);
    if (taken == 0) {
        PyErr_Format(PyExc_RuntimeError, "%R has no version", cls);
    }
    if (taken <= 0) {
        return NULL;
    }
    return PyBytes_FromStringAndSize((const char *)&stamp, sizeof(stamp));
}

PyMethodDef cbase_premises_functions[] = {
    {"_class_stamp", class_stamp, METH_O,
     PyDoc_STR("_class_stamp($module, cls, /)\n--\n\n"
               "Return bytes that stand for what the class and its bases are now.")},
    {NULL, NULL, 0, NULL},
};

/* ---- parts of gevent ---- */

const void *
cbase_premises_keep_parts(const void *former, const void *given, size_t size,
                          PyObject *const *objects, size_t count)
{
    if (former != NULL && memcmp(former, given, size) == 0) {
        return former;
    }
    void *kept = PyMem_RawMalloc(size);
    if (kept == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    memcpy(kept, given, size);
    for (size_t i = 0; i < count; i++) {
        Py_INCREF(objects[i]);
    }
    return kept;
}
