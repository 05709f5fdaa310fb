/* Counters of servers, for gevent_cbase.stats() and servers().
 *
 * They lie beside the servers, in a table that finds them by the server's address: a server has no
 * room in C, and its `__dict__` shows gevent's attributes only. They are made by the constructor,
 * or by the first batch. The accept loop looks them up once in a batch and then adds to plain
 * integers. So the table is the list of servers, too. A weak reference, made with the counters,
 * tells when a server is gone; they go with it, before another object can have its address. Only
 * if a finalizer of garbage has made it does the collector, since CPython 3.14, clear it silently.
 *
 * Counting never fails: without memory for its counters a server is counted nowhere.
 *
 * Counts and nothing else: does not know why something is counted.
 */
#include "server/server.h"

#include <time.h>

#define BUCKETS 256

struct cbase_counters_state {
    cbase_counters *buckets[BUCKETS];
    PyObject *forget; // the function _stats_forget
};

static cbase_counters nowhere;

static double
now(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

/* ---- the table ---- */

static cbase_counters **
bucket_of(cbase_state *st, PyObject *server)
{
    return &st->counters->buckets[((uintptr_t)server >> 4) % BUCKETS];
}

/* Removes what *link points to. */
static void
drop(cbase_counters **link)
{
    cbase_counters *c = *link;

    *link = c->next;
    Py_DECREF(c->ref);
    PyMem_Free(c);
}

/* NULL if the server has none yet. */
static cbase_counters *
find(cbase_state *st, PyObject *server)
{
    cbase_counters **link = bucket_of(st, server);

    while (*link != NULL && (*link)->server != server) {
        link = &(*link)->next;
    }
    if (*link != NULL && compat_is_gone((*link)->ref)) { // of another that had the address
        drop(link);
        return NULL;
    }
    return *link;
}

/* New counters in the table, or NULL. */
static cbase_counters *
make(cbase_state *st, PyObject *server)
{
    PyObject *ref = PyWeakref_NewRef(server, st->counters->forget);
    cbase_counters *c = ref == NULL ? NULL : find(st, server); // the collector runs anything

    if (ref != NULL && c == NULL) {
        c = PyMem_Calloc(1, sizeof(*c));
        if (c != NULL) {
            cbase_counters **bucket = bucket_of(st, server);
            c->server = server;
            c->ref = Py_NewRef(ref);
            c->next = *bucket;
            *bucket = c;
        }
    }
    Py_XDECREF(ref);
    return c;
}

cbase_counters *
cbase_counters_of(cbase_state *st, PyObject *self)
{
    cbase_counters *c = find(st, self);

    if (c != NULL) {
        return c;
    }
    PyObject *raised = compat_get_raised();
    c = make(st, self);
    PyErr_Clear();
    if (raised != NULL) {
        compat_set_raised(raised);
    }
    return c == NULL ? &nowhere : c;
}

/* Called with a weak reference to a server that is gone. */
static PyObject *
forget(PyObject *module, PyObject *ref)
{
    cbase_state *st = cbase_module_state(module);

    for (size_t i = 0; i < BUCKETS; i++) {
        for (cbase_counters **link = &st->counters->buckets[i]; *link != NULL;
             link = &(*link)->next) {
            if ((*link)->ref == ref) {
                drop(link);
                Py_RETURN_NONE;
            }
        }
    }
    Py_RETURN_NONE;
}

/* Starts over, in place: an accept loop may be at work with these counters. */
static void
reset(cbase_counters *c)
{
    int pause = c->pause;

    memset(c->accept_errors, 0, sizeof(c->accept_errors));
    memset(c->pauses, 0, sizeof(c->pauses));
    memset(c->seconds, 0, sizeof(c->seconds));
    c->accepted = c->spawn_errors = 0;
    if (pause != CBASE_NO_PAUSE) {
        c->pauses[pause] = 1;
        c->since = now();
    }
}

/* ---- counting ---- */

void
cbase_counters_accept_error(cbase_counters *counters)
{
    PyObject *exc = compat_get_raised();
    long number = 0;

    if (PyObject_TypeCheck(exc, (PyTypeObject *)PyExc_OSError)) {
        PyObject *code = ((PyOSErrorObject *)exc)->myerrno;
        int overflow;
        if (code != NULL && PyLong_CheckExact(code)) {
            number = PyLong_AsLongAndOverflow(code, &overflow);
        }
    }
    counters->accept_errors[number > 0 && number < CBASE_ERRNOS ? number : 0]++;
    compat_set_raised(exc);
}

void
cbase_counters_pause(cbase_state *st, PyObject *self, int kind)
{
    cbase_counters *c = cbase_counters_of(st, self);

    if (c->pause == CBASE_NO_PAUSE) {
        c->pause = kind;
        c->pauses[kind]++;
        c->since = now();
    }
}

void
cbase_counters_end_pause(cbase_counters *counters)
{
    if (counters->pause != CBASE_NO_PAUSE) {
        counters->seconds[counters->pause] += now() - counters->since;
        counters->pause = CBASE_NO_PAUSE;
    }
}

void
cbase_counters_resume(cbase_state *st, PyObject *self)
{
    cbase_counters *c = find(st, self);

    if (c != NULL) {
        cbase_counters_end_pause(c);
    }
}

/* ---- for gevent_cbase._stats ---- */

/* {errno: count} */
static PyObject *
errors_as_dict(const cbase_counters *c)
{
    PyObject *dict = PyDict_New();

    for (int i = 0; dict != NULL && i < CBASE_ERRNOS; i++) {
        if (c->accept_errors[i] == 0) {
            continue;
        }
        PyObject *number = PyLong_FromLong(i);
        PyObject *count = PyLong_FromUnsignedLongLong(c->accept_errors[i]);
        if (number == NULL || count == NULL || PyDict_SetItem(dict, number, count) < 0) {
            Py_CLEAR(dict);
        }
        Py_XDECREF(count);
        Py_XDECREF(number);
    }
    return dict;
}

/* The servers of our class. Takes no reference to one that is on its way out. */
static PyObject *
servers(PyObject *module, PyObject *unused)
{
    cbase_state *st = cbase_module_state(module);
    PyObject *list = PyList_New(0); // from here on nothing is called that may change the table

    (void)unused;
    for (size_t i = 0; list != NULL && i < BUCKETS; i++) {
        for (cbase_counters *c = st->counters->buckets[i]; list != NULL && c != NULL; c = c->next)
        {
            if (!compat_is_gone(c->ref) && cbase_class_has(st, c->server)
                && PyList_Append(list, c->server) < 0)
            {
                Py_CLEAR(list);
            }
        }
    }
    return list;
}

/* Counts a server from now on, whatever it does. */
static PyObject *
begin(PyObject *module, PyObject *server)
{
    (void)cbase_counters_of(cbase_module_state(module), server);
    return Py_NewRef(Py_None);
}

static PyObject *
counters(PyObject *module, PyObject *server)
{
    static const cbase_counters none;
    cbase_state *st = cbase_module_state(module);

    if (!cbase_class_has(st, server)) {
        PyErr_Format(PyExc_TypeError, "a BaseServer is required, not %.200s",
                     Py_TYPE(server)->tp_name);
        return NULL;
    }
    PyObject *errors = NULL;
    const cbase_counters *found = find(st, server);
    cbase_counters c = found == NULL ? none : *found;
    cbase_counters_end_pause(&c); // of the copy: until now
    errors = errors_as_dict(&c);
    if (errors == NULL) {
        return NULL;
    }
    return Py_BuildValue("KKNKdKd", c.accepted, c.spawn_errors, errors, c.pauses[CBASE_FULL],
                         c.seconds[CBASE_FULL], c.pauses[CBASE_BACKOFF], c.seconds[CBASE_BACKOFF]);
}

/* Resets the counters of all servers, or of those that are no instances of our class now. */
static PyObject *
start_over(PyObject *module, PyObject *all)
{
    cbase_state *st = cbase_module_state(module);
    int every = all == Py_True;

    for (size_t i = 0; i < BUCKETS; i++) {
        cbase_counters **link = &st->counters->buckets[i];
        while (*link != NULL) {
            cbase_counters *c = *link;
            if (compat_is_gone(c->ref)) {
                drop(link);
                continue;
            }
            link = &c->next;
            if (!every && cbase_class_has(st, c->server)) {
                continue;
            }
            if (!every) {
                c->pause = CBASE_NO_PAUSE; // nobody will tell us of its end
            }
            reset(c);
        }
    }
    Py_RETURN_NONE;
}

int
cbase_counters_init(PyObject *module, cbase_state *st)
{
    st->counters = cbase_state_new(sizeof(*st->counters));
    if (st->counters == NULL) {
        return -1;
    }
    st->counters->forget = cbase_object_attr(module, "_stats_forget");
    return st->counters->forget == NULL ? -1 : 0;
}

PyMethodDef cbase_counters_functions[] = {
    {"_stats_counters", counters, METH_O,
     PyDoc_STR("_stats_counters($module, server, /)\n--\n\n"
               "Return the counters of a server: accepted, spawn errors, a dict of accept errors\n"
               "by errno, times and seconds of pauses with the pool full, and of back-off.")},
    {"_stats_servers", servers, METH_NOARGS,
     PyDoc_STR("_stats_servers($module, /)\n--\n\n"
               "Return a list of the servers that are counted and of our class.")},
    {"_stats_begin", begin, METH_O,
     PyDoc_STR("_stats_begin($module, server, /)\n--\n\n"
               "Count a server from now on.")},
    {"_stats_start_over", start_over, METH_O,
     PyDoc_STR("_stats_start_over($module, all, /)\n--\n\n"
               "Reset the counters of all servers (True), or of those no longer of our class.")},
    {"_stats_forget", forget, METH_O,
     PyDoc_STR("_stats_forget($module, ref, /)\n--\n\n"
               "Drop the counters of a server that is gone.")},
    {NULL, NULL, 0, NULL},
};
