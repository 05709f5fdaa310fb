/* Native steps for pools: what full() and spawn() of a gevent.pool.Pool do, without a Python
 * frame. As in socket_accept.c, only where gevent's own code is known to be what would run:
 * gevent_cbase._native.pools compares it. Here, `pool` is always exactly a Pool.
 *
 * Does not know servers, nor how a greenlet is made.
 */
#include "native/premises.h"

typedef struct {
    PyTypeObject *class;
    PyObject *full_function, *spawn_function, *discard_function;
    PyObject *PoolFull;
} parts_of_gevent;

struct cbase_pool_spawn_state {
    cbase_premises_comparison comparison;
    cbase_premises full, spawn;   // both with the class Pool
    const parts_of_gevent *parts; // or NULL: not known yet
};

/* Whether `method` is full(), or spawn(), of a Pool. */
static int
is_bound(const parts_of_gevent *parts, PyObject *method, PyObject *function)
{
    return PyMethod_GET_FUNCTION(method) == function
           && Py_IS_TYPE(PyMethod_GET_SELF(method), parts->class);
}

static int
is_full_of_pool(const parts_of_gevent *parts, PyObject *method)
{
    return parts != NULL && Py_IS_TYPE(method, &PyMethod_Type)
           && is_bound(parts, method, parts->full_function);
}

static int
is_spawn_of_pool(const parts_of_gevent *parts, PyObject *method)
{
    return parts != NULL && Py_IS_TYPE(method, &PyMethod_Type)
           && is_bound(parts, method, parts->spawn_function);
}

static int
hold(cbase_state *st, cbase_premises *premises)
{
    return cbase_premises_hold(st, premises, &st->pool_spawn->comparison);
}

/* Whether none of the methods is hidden by an attribute of the pool: 1, 0 or -1. */
static int
hides_none(PyObject *pool, PyObject *const *names, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        int hidden = cbase_object_dict_has(pool, names[i]);
        if (hidden != 0) {
            return hidden < 0 ? -1 : 0;
        }
    }
    return 1;
}

/* ---- full() ---- */

/* size - len(greenlets) <= 0, if these are a plain number and set. */
static cbase_outcome
ask_size(cbase_state *st, PyObject *pool, int *full)
{
    PyObject *size = PyObject_GetAttr(pool, st->s_size);
    cbase_outcome outcome = CBASE_NOT_OURS;

    if (size == NULL || size == Py_None) {
        Py_XDECREF(size);
        *full = 0;
        return size == NULL ? CBASE_FAILED : CBASE_DONE;
    }
    PyObject *greenlets = PyObject_GetAttr(pool, st->s_greenlets);
    if (greenlets == NULL) {
        outcome = CBASE_FAILED;
    }
    else if (PyLong_CheckExact(size) && PyAnySet_CheckExact(greenlets)) {
        int overflow;
        long long most = PyLong_AsLongLongAndOverflow(size, &overflow);
        if (overflow == 0) {
            *full = most <= PySet_GET_SIZE(greenlets);
            outcome = CBASE_DONE;
        }
    }
    Py_XDECREF(greenlets);
    Py_DECREF(size);
    return outcome;
}

cbase_outcome
cbase_pool_spawn_full(cbase_state *st, PyObject *full, int *result)
{
    if (!is_full_of_pool(st->pool_spawn->parts, full)) {
        return CBASE_NOT_OURS;
    }
    PyObject *pool = Py_NewRef(PyMethod_GET_SELF(full));
    PyObject *const used[] = {st->s_free_count};
    int known = hold(st, &st->pool_spawn->full);

    if (known > 0) {
        known = hides_none(pool, used, Py_ARRAY_LENGTH(used));
    }
    cbase_outcome outcome = known < 0    ? CBASE_FAILED
                            : known == 0 ? CBASE_NOT_OURS
                                         : ask_size(st, pool, result);
    Py_DECREF(pool);
    return outcome;
}

/* ---- spawn() ---- */

/* self._semaphore.acquire(blocking=True, timeout=None); raises PoolFull if it returns false. */
static int
acquire(cbase_state *st, PyObject *semaphore)
{
    PyObject *args[3] = {semaphore, Py_True, Py_None};
    PyObject *result = PyObject_VectorcallMethod(st->s_acquire, args, 1, st->kw_blocking_timeout);
    int acquired = result == NULL ? -1 : PyObject_IsTrue(result);

    Py_XDECREF(result);
    if (acquired == 0) {
        PyErr_SetNone(st->pool_spawn->parts->PoolFull);
    }
    return acquired > 0 ? 0 : -1;
}

/* self._discard */
static PyObject *
get_discard(cbase_state *st, PyObject *pool)
{
    int hidden = cbase_object_dict_has(pool, st->s__discard);
    int known = hidden == 0 ? hold(st, &st->pool_spawn->spawn) : 0;

    if (hidden < 0 || known < 0) {
        return NULL;
    }
    return known ? cbase_batch_method(st, CBASE_BATCH_DISCARD,
                                      st->pool_spawn->parts->discard_function, pool)
                 : PyObject_GetAttr(pool, st->s__discard);
}

/* rawlink(self._discard), if the greenlet has that method. */
static int
link_greenlet(cbase_state *st, PyObject *pool, PyObject *greenlet)
{
    PyObject *rawlink = NULL, *result = NULL;
    PyObject *discard = get_discard(st, pool);
    int done = discard == NULL ? -1 : (int)cbase_greenlet_link(st, greenlet, discard);

    if (done == 0) {
        done = compat_get_optional(greenlet, st->s_rawlink, &rawlink);
    }
    if (rawlink != NULL) {
        result = PyObject_CallOneArg(rawlink, discard);
        done = result == NULL ? -1 : 0;
        Py_XDECREF(result);
        Py_DECREF(rawlink);
    }
    Py_XDECREF(discard);
    return done < 0 ? -1 : 0;
}

/* Group.add(self, greenlet) */
static int
add_to_group(cbase_state *st, PyObject *pool, PyObject *greenlet)
{
    if (link_greenlet(st, pool, greenlet) < 0) {
        return -1;
    }
    PyObject *greenlets = PyObject_GetAttr(pool, st->s_greenlets);
    PyObject *added =
        greenlets == NULL ? NULL : cbase_object_call_one(greenlets, st->s_add, greenlet);
    Py_XDECREF(greenlets);
    if (added == NULL) {
        return -1;
    }
    Py_DECREF(added);
    return cbase_object_run_on(pool, st->s__empty_event, st->s_clear);
}

/* self.add(greenlet) */
static int
add(cbase_state *st, PyObject *pool, PyObject *greenlet)
{
    PyObject *semaphore = PyObject_GetAttr(pool, st->s__semaphore);
    int result = semaphore == NULL ? -1 : acquire(st, semaphore);

    Py_XDECREF(semaphore);
    if (result == 0 && add_to_group(st, pool, greenlet) < 0) {
        cbase_except block;
        cbase_except_enter(&block);
        (void)cbase_object_run_on(pool, st->s__semaphore, st->s_release);
        cbase_except_reraise(&block);
        result = -1;
    }
    return result;
}

/* spawn(*args) of a Pool. */
static PyObject *
spawn_in_pool(cbase_state *st, PyObject *pool, PyObject *const *args, size_t nargs)
{
    PyObject *cls = PyObject_GetAttr(pool, st->s_greenlet_class);
    PyObject *greenlet = NULL;

    if (cls != NULL && cbase_greenlet_new(st, cls, args, nargs, &greenlet) == CBASE_NOT_OURS) {
        greenlet = PyObject_Vectorcall(cls, args, nargs, NULL);
    }
    Py_XDECREF(cls);
    if (greenlet != NULL
        && (add(st, pool, greenlet) < 0 || cbase_greenlet_start(st, greenlet) < 0)) {
        Py_CLEAR(greenlet);
    }
    return greenlet;
}

cbase_outcome
cbase_pool_spawn(cbase_state *st, PyObject *spawn, PyObject *const *args, size_t nargs,
                 PyObject **greenlet)
{
    *greenlet = NULL;
    if (!is_spawn_of_pool(st->pool_spawn->parts, spawn)) {
        return CBASE_NOT_OURS;
    }
    PyObject *pool = Py_NewRef(PyMethod_GET_SELF(spawn));
    PyObject *const used[] = {st->s_start, st->s_add};
    int known = hold(st, &st->pool_spawn->spawn);

    if (known > 0) {
        known = hides_none(pool, used, Py_ARRAY_LENGTH(used));
    }
    if (known > 0) {
        *greenlet = spawn_in_pool(st, pool, args, nargs);
        known = *greenlet == NULL ? -1 : 1;
    }
    Py_DECREF(pool);
    return (cbase_outcome)known;
}

/* ---- for servers ---- */

int
cbase_pool_spawn_known(cbase_state *st)
{
    int known = hold(st, &st->pool_spawn->full);

    return known > 0 ? hold(st, &st->pool_spawn->spawn) : known;
}

int
cbase_pool_spawn_is_plain(cbase_state *st, PyObject *full, PyObject *spawn)
{
    const parts_of_gevent *parts = st->pool_spawn->parts;
    PyObject *const used[] = {st->s_free_count, st->s_start, st->s_add};

    if (!is_full_of_pool(parts, full) || !is_spawn_of_pool(parts, spawn)) {
        return 0;
    }
    return hides_none(PyMethod_GET_SELF(spawn), used, Py_ARRAY_LENGTH(used));
}

/* ---- comparison ---- */

/* Hands over the parts of gevent that the steps stand for. */
static PyObject *
pool_prepare(PyObject *module, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {
        "full",     "spawn", "cls", "full_function", "spawn_function", "discard_function",
        "PoolFull", NULL};
    struct cbase_pool_spawn_state *steps = cbase_module_state(module)->pool_spawn;
    parts_of_gevent given = {0};
    PyObject *full, *spawn;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "$OOO!OOOO:_pool_prepare", names, &full, &spawn,
                                     &PyType_Type, &given.class, &given.full_function,
                                     &given.spawn_function, &given.discard_function,
                                     &given.PoolFull))
    {
        return NULL;
    }
    PyObject *const objects[] = {(PyObject *)given.class, given.full_function,
                                 given.spawn_function, given.discard_function, given.PoolFull};
    const parts_of_gevent *parts = cbase_premises_keep_parts(steps->parts, &given, sizeof(given),
                                                             objects, Py_ARRAY_LENGTH(objects));
    if (parts == NULL || cbase_premises_set(&steps->full, full) < 0
        || cbase_premises_set(&steps->spawn, spawn) < 0)
    {
        return NULL;
    }
    steps->parts = parts;
    Py_RETURN_NONE;
}

int
cbase_pool_spawn_init(cbase_state *st)
{
    st->pool_spawn = cbase_state_new(sizeof(*st->pool_spawn));
    if (st->pool_spawn == NULL) {
        return -1;
    }
    cbase_premises_register(st, &st->pool_spawn->comparison, "gevent.pool",
                            "gevent_cbase._native.pools");
    return 0;
}

int
cbase_pool_spawn_find(cbase_state *st)
{
    return cbase_premises_compare_once(st, &st->pool_spawn->comparison);
}

static PyObject *
pool_compare(PyObject *module, PyObject *unused)
{
    cbase_state *st = cbase_module_state(module);

    (void)unused;
    return cbase_premises_compare(st, &st->pool_spawn->comparison) < 0 ? NULL : Py_NewRef(Py_None);
}

PyMethodDef cbase_pool_spawn_functions[] = {
    {"_pool_compare", pool_compare, METH_NOARGS,
     PyDoc_STR("_pool_compare($module, /)\n--\n\n"
               "Have prepare() of gevent_cbase._native.pools called; later, if it fails.")},
    {"_pool_prepare", (PyCFunction)(void (*)(void))pool_prepare, METH_VARARGS | METH_KEYWORDS,
     PyDoc_STR("_pool_prepare($module, /, **parts)\n--\n\n"
               "Switch the native steps of pools on; for gevent_cbase._native.pools.")},
    {NULL, NULL, 0, NULL},
};
