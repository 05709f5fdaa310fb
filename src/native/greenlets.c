/* Native steps for the greenlets of handlers: what Greenlet(...), Greenlet.spawn() and spawn_raw()
 * of gevent do, with the notes about who spawned it, but without looking up the configuration in
 * Python and without walking the same stack for every connection.
 *
 * gevent's classes are compiled and immutable; gevent_cbase._native.greenlets finds out where a
 * Greenlet keeps its attributes by comparing one with a new, uninitialized one.
 *
 * CAUTION: writes fields of gevent's objects, found like that. A Greenlet has its spawner's stack,
 * which is read-only, in common with those before it that were spawned from the same place.
 * Watched by tests/native/steps/test_greenlets.py, which compares them field by field.
 *
 * Does not know what a greenlet is for.
 */
#include "native/premises.h"

#define STACK_LIMIT 16 /* frames of a spawning stack; gevent has 10 */

typedef struct {
    PyTypeObject *class, *raw_class; // Greenlet, TrackedRawGreenlet
    PyObject *spawn_function;        // of the class method Greenlet.spawn
    PyObject *spawn_raw;
    PyObject *get_hub, *getcurrent;
    const PyGetSetDef *run, *parent; // attributes of class greenlet
    PyMethodDef *switch_method;      // of it
    PyTypeObject *hub_class;         // the class of hubs that start() knows
    const PyGetSetDef *loop;         // attribute of it
    PyObject *config, *setting;      // gevent.config, and its setting track_greenlet_tree
    PyObject **spawn_callbacks;      // gevent's variable: what start() calls; or NULL: unknown
    Py_ssize_t args, kwargs, links, spawning_greenlet, spawn_tree_locals, spawning_stack,
        start_event; // offsets
    int limit;       // of frames
} parts_of_gevent;

/* The last stack that gevent has made, and the Python frames it stands for. All owned. */
typedef struct {
    PyObject *stack;
    int limit, depth;
    struct {
        PyCodeObject *code;
        int lasti;
    } frame[STACK_LIMIT];
} spawning_stack;

struct cbase_greenlet_state {
    cbase_premises_comparison comparison;
    cbase_premises spawn, raw;
    const parts_of_gevent *parts;
    cbase_memo_dict settings, tracked, value; // on the way to the value of the setting
    cbase_memo_class spawners;                // classes of them, and `spawn_tree_locals`
    cbase_memo_dict locals;
    cbase_memo_class run_callback; // of loops
    PyObject *handler;             // what servers run; owned, or NULL
    PyObject *spawner;             // weak reference to the last spawner; owned, or NULL
    spawning_stack last;
};

static PyObject **
field(PyObject *obj, Py_ssize_t offset)
{
    return (PyObject **)((char *)obj + offset);
}

/* Sets a field to a value, which is stolen: 0, or -1 if there is no value. */
static int
set_field(PyObject *obj, Py_ssize_t offset, PyObject *value)
{
    if (value == NULL) {
        return -1;
    }
    Py_XSETREF(*field(obj, offset), value);
    return 0;
}

/* ---- is it tracked who spawned what? ---- */

/* Whether gevent.config.track_greenlet_tree is true, as far as can be told without asking it. */
static int
is_tracked(cbase_state *st, const parts_of_gevent *parts)
{
    struct cbase_greenlet_state *g = st->greenlets;
    PyObject *settings = cbase_memo_instance_get(&g->settings, parts->config, st->s_settings);
    PyObject *setting = NULL, *value = NULL;

    if (settings != NULL && PyDict_CheckExact(settings)) {
        setting = cbase_memo_dict_get(&g->tracked, settings, st->s_track_greenlet_tree);
    }
    if (setting == parts->setting) {
        value = cbase_memo_instance_get(&g->value, setting, st->s_value);
    }
    int tracked = value == Py_True;
    Py_XDECREF(value);
    Py_XDECREF(setting);
    Py_XDECREF(settings);
    return tracked;
}

/* ---- the stack of the spawner ---- */

/* The last stack, owned, if the Python frames that run now are where its were; or NULL. */
static PyObject *
last_stack(const spawning_stack *last)
{
    PyObject *stack = Py_XNewRef(last->stack); // so that no other one can have its address
    PyFrameObject *frame = PyEval_GetFrame();  // borrowed
    int i = 0;

    Py_XINCREF(frame);
    while (stack != NULL && frame != NULL && i < last->depth) {
        PyCodeObject *code = PyFrame_GetCode(frame);
        int same =
            code == last->frame[i].code && compat_frame_lasti(frame) == last->frame[i].lasti;
        Py_DECREF(code);
        if (!same) {
            break;
        }
        Py_SETREF(frame, PyFrame_GetBack(frame)); // which may run anything
        i++;
    }
    int whole = i == last->depth && (frame == NULL || i == last->limit);
    Py_XDECREF(frame);
    if (!whole || stack != last->stack) {
        Py_CLEAR(stack);
    }
    return stack;
}

static void
forget_stack(spawning_stack *forgotten)
{
    Py_XDECREF(forgotten->stack);
    for (int i = 0; i < forgotten->depth; i++) {
        Py_DECREF(forgotten->frame[i].code);
    }
}

/* Remembers the stack of a greenlet that was made just now; steals it. All of it is noted before
 * it takes the place of the last one. */
static void
remember_stack(spawning_stack *last, PyObject *stack, int limit)
{
    spawning_stack noted = {.stack = stack, .limit = limit};
    PyFrameObject *frame = PyEval_GetFrame(); // borrowed

    Py_XINCREF(frame);
    while (frame != NULL && noted.depth < limit) {
        noted.frame[noted.depth].code = PyFrame_GetCode(frame);
        noted.frame[noted.depth].lasti = compat_frame_lasti(frame);
        noted.depth++;
        Py_SETREF(frame, PyFrame_GetBack(frame));
    }
    Py_XDECREF(frame);
    spawning_stack forgotten = *last;
    *last = noted;
    forget_stack(&forgotten); // which may run anything
}

/* ---- Greenlet(run, ...) ---- */

/* greenlet.__init__(new, run, hub), which sets these two. Its parent is `spawner`, up to now. */
static int
init_base(const parts_of_gevent *g, PyObject *new, PyObject *run, PyObject *hub, PyObject *spawner)
{
    if (g->run->set(new, run, g->run->closure) < 0) {
        return -1;
    }
    return hub == spawner ? 0 : g->parent->set(new, hub, g->parent->closure);
}

/* Sets an attribute which is no descriptor in the class. */
static int
set_attribute(PyObject *new, PyObject *name, PyObject *value)
{
    PyObject *dict = cbase_object_dict(new);
    int result = dict == NULL ? -1 : PyDict_SetItem(dict, name, value);

    Py_XDECREF(dict);
    return result;
}

/* weakref.ref(spawner). CPython has one for each object, which is kept for the next greenlet. */
static PyObject *
reference_to(cbase_state *st, PyObject *spawner)
{
    PyObject **kept = &st->greenlets->spawner;

    if (*kept != NULL && ((PyWeakReference *)*kept)->wr_object == spawner) {
        return Py_NewRef(*kept);
    }
    PyObject *reference = PyWeakref_NewRef(spawner, NULL);
    if (reference != NULL) {
        Py_XSETREF(*kept, Py_NewRef(reference));
    }
    return reference;
}

/* Greenlet(*args) with this stack, spawned by `spawner`, which has these `locals`. *parent: the
 * hub, which is its parent and keeps it alive. */
static PyObject *
make_greenlet(cbase_state *st, const parts_of_gevent *g, PyObject *stack, PyObject *spawner,
              PyObject *locals, PyObject *const *args, size_t nargs, PyObject **parent)
{
    PyObject *hub = cbase_hub_get(st, g->get_hub);
    PyObject *new = hub == NULL ? NULL : g->class->tp_new(g->class, st->no_args, NULL);

    if (new != NULL
        && (init_base(g, new, Py_None, hub, spawner) < 0
            || set_attribute(new, st->s__run, args[0]) < 0
            || set_field(new, g->args, cbase_object_tuple(args + 1, nargs - 1)) < 0
            || set_field(new, g->kwargs, PyDict_New()) < 0
            || set_field(new, g->links, PyList_New(0)) < 0
            || set_field(new, g->spawning_greenlet, reference_to(st, spawner)) < 0
            || set_field(new, g->spawn_tree_locals, Py_NewRef(locals)) < 0
            || set_field(new, g->spawning_stack, Py_NewRef(stack)) < 0))
    {
        Py_CLEAR(new);
    }
    Py_XDECREF(hub);
    *parent = new == NULL ? NULL : hub;
    return new;
}

/* Greenlet(*args) itself; the next ones can have its stack. */
static PyObject *
first_greenlet(cbase_state *st, const parts_of_gevent *g, PyObject *const *args, size_t nargs)
{
    PyObject *new = PyObject_Vectorcall((PyObject *)g->class, args, nargs, NULL);

    if (new != NULL) {
        remember_stack(&st->greenlets->last, Py_NewRef(*field(new, g->spawning_stack)), g->limit);
    }
    return new;
}

/* The current greenlet and its spawn_tree_locals, if it has some: 1, 0 or -1. */
static int
find_spawner(cbase_state *st, const parts_of_gevent *parts, PyObject **spawner, PyObject **locals)
{
    struct cbase_greenlet_state *g = st->greenlets;

    *locals = NULL;
    *spawner = cbase_call_no_args(parts->getcurrent);
    if (*spawner == NULL) {
        return -1;
    }
    if (cbase_memo_class_lacks(&g->spawners, Py_TYPE(*spawner), st->s_spawn_tree_locals)) {
        *locals = cbase_memo_instance_get(&g->locals, *spawner, st->s_spawn_tree_locals);
    }
    return *locals != NULL ? 1 : compat_get_optional(*spawner, st->s_spawn_tree_locals, locals);
}

/* 1 and the parts that premises go with, 0 or -1. */
static int
hold(cbase_state *st, cbase_premises *premises, const parts_of_gevent **parts)
{
    int known = cbase_premises_hold(st, premises, &st->greenlets->comparison);

    *parts = st->greenlets->parts; // read after that, as it may run anything
    return known;
}

/* cls(*args). *parent: the hub that it has as its parent, borrowed from it; or NULL: not known. */
static cbase_outcome
new_greenlet(cbase_state *st, PyObject *cls, PyObject *const *args, size_t nargs,
             PyObject **greenlet, PyObject **parent)
{
    const parts_of_gevent *g = st->greenlets->parts;
    PyObject *spawner = NULL, *locals = NULL;

    *greenlet = *parent = NULL;
    if (g == NULL || cls != (PyObject *)g->class || args[0] == Py_None
        || !PyCallable_Check(args[0])) {
        return CBASE_NOT_OURS;
    }
    int known = hold(st, &st->greenlets->spawn, &g);
    if (known > 0 && (cls != (PyObject *)g->class || !is_tracked(st, g))) {
        return CBASE_NOT_OURS;
    }
    if (known > 0) {
        known = find_spawner(st, g, &spawner, &locals);
    }
    if (known > 0) {
        known = PyDict_CheckExact(locals) || locals == Py_None;
    }
    if (known > 0) {
        PyObject *stack = last_stack(&st->greenlets->last);
        *greenlet = stack != NULL
                        ? make_greenlet(st, g, stack, spawner, locals, args, nargs, parent)
                        : first_greenlet(st, g, args, nargs);
        Py_XDECREF(stack);
        known = *greenlet == NULL ? -1 : 1;
    }
    Py_XDECREF(locals);
    Py_XDECREF(spawner);
    return (cbase_outcome)known;
}

cbase_outcome
cbase_greenlet_new(cbase_state *st, PyObject *cls, PyObject *const *args, size_t nargs,
                   PyObject **greenlet)
{
    PyObject *parent;

    return new_greenlet(st, cls, args, nargs, greenlet, &parent);
}

cbase_outcome
cbase_greenlet_link(cbase_state *st, PyObject *greenlet, PyObject *callback)
{
    const parts_of_gevent *g = st->greenlets->parts;

    if (g == NULL || !Py_IS_TYPE(greenlet, g->class) || Py_REFCNT(greenlet) != 1) {
        return CBASE_NOT_OURS;
    }
    PyObject *links = *field(greenlet, g->links);
    if (links == NULL || !PyList_CheckExact(links)) {
        return CBASE_NOT_OURS;
    }
    return PyList_Append(links, callback) < 0 ? CBASE_FAILED : CBASE_DONE;
}

void
cbase_greenlet_set_handler(cbase_state *st, PyObject *function)
{
    Py_XSETREF(st->greenlets->handler, Py_NewRef(function));
}

int
cbase_greenlet_is_handler(cbase_state *st, PyObject *greenlet)
{
    const parts_of_gevent *g = st->greenlets->parts;
    PyObject *dict =
        g != NULL && Py_IS_TYPE(greenlet, g->class) ? cbase_object_dict(greenlet) : NULL;
    PyObject *run = // borrowed, compared only
        dict == NULL ? NULL : PyDict_GetItemWithError(dict, st->s__run);
    int found = run != NULL && run == st->greenlets->handler;

    PyErr_Clear();
    Py_XDECREF(dict);
    return found;
}

int
cbase_greenlet_serves(cbase_state *st, PyObject *greenlet, PyObject *sock)
{
    if (!cbase_greenlet_is_handler(st, greenlet)) {
        return 0;
    }
    PyObject *args = *field(greenlet, st->greenlets->parts->args); // borrowed: no Python code runs
    PyObject *client = args != NULL && PyTuple_CheckExact(args) && PyTuple_GET_SIZE(args) == 3
                           ? PyTuple_GET_ITEM(args, 2)
                           : NULL;
    return client != NULL && PyTuple_CheckExact(client) && PyTuple_GET_SIZE(client) > 0
           && PyTuple_GET_ITEM(client, 0) == sock;
}

/* ---- spawn ---- */

/* TrackedRawGreenlet(run, hub) */
static PyObject *
make_raw_greenlet(cbase_state *st, const parts_of_gevent *g, PyObject *run, PyObject *hub)
{
    PyTypeObject *class = g->raw_class;
    PyObject *spawner = NULL, *locals = NULL, *ref = NULL, *new = NULL;
    int found = find_spawner(st, g, &spawner, &locals);

    if (found == 0) { // it gets some
        PyObject *args[2] = {run, hub};
        new = PyObject_Vectorcall((PyObject *)class, args, 2, NULL);
    }
    else if (found > 0 && (ref = reference_to(st, spawner)) != NULL) {
        new = class->tp_new(class, st->no_args, NULL);
        if (new != NULL
            && (init_base(g, new, run, hub, spawner) < 0
                || set_attribute(new, st->s_spawning_greenlet, ref) < 0
                || set_attribute(new, st->s_spawn_tree_locals, locals) < 0))
        {
            Py_CLEAR(new);
        }
    }
    Py_XDECREF(ref);
    Py_XDECREF(locals);
    Py_XDECREF(spawner);
    return new;
}

/* loop.run_callback(greenlet.switch, *args), for a greenlet with no `switch` of its own. */
static PyObject *
schedule(cbase_state *st, const parts_of_gevent *g, PyObject *loop, PyObject *greenlet,
         PyObject *const *args, size_t nargs)
{
    PyObject *switch_to = PyCFunction_NewEx(g->switch_method, greenlet, NULL);
    PyObject *call[CBASE_SPAWN_ARGS + 2] = {loop, switch_to};
    PyObject *callback = NULL;

    if (switch_to != NULL) {
        for (size_t i = 0; i < nargs; i++) {
            call[i + 2] = args[i];
        }
        callback =
            cbase_memo_call(&st->greenlets->run_callback, st->s_run_callback, call, nargs + 2);
        Py_DECREF(switch_to);
    }
    return callback;
}

/* Whether start() of a greenlet does nothing but schedule it. */
static int
is_simple_start(cbase_state *st, const parts_of_gevent *g, PyObject *greenlet)
{
    if (g == NULL || !Py_IS_TYPE(greenlet, g->class) || g->spawn_callbacks == NULL
        || *g->spawn_callbacks != Py_None || *field(greenlet, g->start_event) != Py_None)
    {
        return 0;
    }
    if (Py_REFCNT(greenlet) == 1) {
        return 1; // nobody has seen it yet
    }
    PyObject *dict = cbase_object_dict(greenlet);
    int untouched =
        dict != NULL && PyDict_GET_SIZE(dict) == 1 && PyDict_Contains(dict, st->s__run) > 0;
    PyErr_Clear(); // gevent meets it as well
    Py_XDECREF(dict);
    return untouched;
}

/* The loop of the hub that a greenlet has as its parent, as start() finds it; or NULL, perhaps
 * with an exception. `parent`: that hub, or NULL: not known. */
static PyObject *
find_loop(const parts_of_gevent *g, PyObject *greenlet, PyObject *parent)
{
    PyObject *hub =
        parent != NULL ? Py_NewRef(parent) : g->parent->get(greenlet, g->parent->closure);
    PyObject *loop = NULL;

    if (hub != NULL && PyObject_TypeCheck(hub, g->hub_class)) {
        loop = g->loop->get(hub, g->loop->closure);
    }
    Py_XDECREF(hub);
    return loop;
}

/* greenlet.start(); `parent`: the hub that is known to be its parent, or NULL. */
static int
start(cbase_state *st, PyObject *greenlet, PyObject *parent)
{
    const parts_of_gevent *g = st->greenlets->parts;
    PyObject *loop = is_simple_start(st, g, greenlet) ? find_loop(g, greenlet, parent) : NULL;

    if (loop == NULL) {
        PyErr_Clear(); // gevent meets it as well
        return cbase_object_run(greenlet, st->s_start);
    }
    PyObject *event = schedule(st, g, loop, greenlet, NULL, 0);
    Py_DECREF(loop);
    return set_field(greenlet, g->start_event, event);
}

int
cbase_greenlet_start(cbase_state *st, PyObject *greenlet)
{
    return start(st, greenlet, NULL);
}

/* spawn_raw(*args) */
static PyObject *
spawn_raw(cbase_state *st, const parts_of_gevent *g, PyObject *const *args, size_t nargs)
{
    PyObject *hub = cbase_hub_get(st, g->get_hub);
    PyObject *loop = NULL, *new = NULL, *callback = NULL;
    int done = -1;

    if (hub == NULL) {
        return NULL;
    }
    loop = cbase_hub_loop(st, hub);
    new = loop == NULL ? NULL : make_raw_greenlet(st, g, args[0], hub);
    callback = new == NULL ? NULL : schedule(st, g, loop, new, args + 1, nargs - 1);
    if (callback != NULL) {
        Py_SETREF(loop, cbase_hub_loop(st, hub)); // it is read again
        done = loop == NULL ? -1 : set_attribute(new, st->s_loop, loop);
    }
    if (done < 0) {
        Py_CLEAR(new);
    }
    Py_XDECREF(callback);
    Py_XDECREF(loop);
    Py_DECREF(hub);
    return new;
}

/* spawn_raw(*args) */
static cbase_outcome
call_spawn_raw(cbase_state *st, PyObject *const *args, size_t nargs, PyObject **greenlet)
{
    *greenlet = NULL;
    if (nargs > CBASE_SPAWN_ARGS || !PyCallable_Check(args[0])) {
        return CBASE_NOT_OURS;
    }
    const parts_of_gevent *g;
    int known = hold(st, &st->greenlets->raw, &g);
    if (known > 0 && !is_tracked(st, g)) {
        return CBASE_NOT_OURS;
    }
    if (known > 0) {
        *greenlet = spawn_raw(st, g, args, nargs);
        known = *greenlet == NULL ? -1 : 1;
    }
    return (cbase_outcome)known;
}

/* Whether this is Greenlet.spawn. */
static int
is_greenlet_spawn(const parts_of_gevent *g, PyObject *spawn)
{
    return Py_IS_TYPE(spawn, &PyMethod_Type) && PyMethod_GET_FUNCTION(spawn) == g->spawn_function
           && PyMethod_GET_SELF(spawn) == (PyObject *)g->class;
}

cbase_outcome
cbase_greenlet_spawn(cbase_state *st, PyObject *spawn, PyObject *const *args, size_t nargs,
                     PyObject **greenlet)
{
    const parts_of_gevent *g = st->greenlets->parts;

    if (g == NULL) {
        return CBASE_NOT_OURS;
    }
    if (spawn == g->spawn_raw) {
        return call_spawn_raw(st, args, nargs, greenlet);
    }
    if (!is_greenlet_spawn(g, spawn)) {
        return CBASE_NOT_OURS;
    }
    PyObject *parent;
    cbase_outcome outcome =
        new_greenlet(st, PyMethod_GET_SELF(spawn), args, nargs, greenlet, &parent);
    if (outcome == CBASE_DONE && start(st, *greenlet, parent) < 0) {
        Py_CLEAR(*greenlet);
        outcome = CBASE_FAILED;
    }
    return outcome;
}

/* ---- comparison ---- */

/* Finds the field of `made`, not set in the uninitialized `fresh`, that holds `value`; where it
 * is NULL, an empty list. An offset, or -1 if there is not exactly one. */
static Py_ssize_t
find_field(PyObject *made, PyObject *fresh, PyObject *value)
{
    Py_ssize_t found = -1;

    for (Py_ssize_t i = Py_TYPE(made)->tp_base->tp_basicsize; i < Py_TYPE(made)->tp_basicsize;
         i += (Py_ssize_t)sizeof(PyObject *))
    {
        PyObject *now = *field(made, i);
        if (now == *field(fresh, i)) {
            continue; // not set, or what all have in common
        }
        if (value != NULL ? now == value : PyList_CheckExact(now) && PyList_GET_SIZE(now) == 0) {
            if (found >= 0 || *field(fresh, i) != Py_None) {
                return -1;
            }
            found = i;
        }
    }
    return found;
}

/* How many fields differ. */
static int
count_fields(PyObject *made, PyObject *fresh)
{
    int count = 0;

    for (Py_ssize_t i = Py_TYPE(made)->tp_base->tp_basicsize; i < Py_TYPE(made)->tp_basicsize;
         i += (Py_ssize_t)sizeof(PyObject *))
    {
        count += *field(made, i) != *field(fresh, i);
    }
    return count;
}

static int
find_fields(parts_of_gevent *g, PyObject *made, PyObject *fresh)
{
    struct {
        const char *name; // NULL: has none
        Py_ssize_t *offset;
    } fields[] = {{"args", &g->args},
                  {"kwargs", &g->kwargs},
                  {NULL, &g->links},
                  {"spawning_greenlet", &g->spawning_greenlet},
                  {"spawn_tree_locals", &g->spawn_tree_locals},
                  {"spawning_stack", &g->spawning_stack}};

    if (count_fields(made, fresh) != (int)Py_ARRAY_LENGTH(fields)) {
        PyErr_SetString(PyExc_TypeError, "a Greenlet has other attributes");
        return -1;
    }
    for (size_t i = 0; i < Py_ARRAY_LENGTH(fields); i++) {
        PyObject *value = NULL;
        if (fields[i].name != NULL && (value = cbase_object_attr(made, fields[i].name)) == NULL) {
            return -1;
        }
        *fields[i].offset = find_field(made, fresh, value);
        Py_XDECREF(value);
        if (*fields[i].offset < 0) {
            PyErr_SetString(PyExc_TypeError, "unknown layout of a Greenlet");
            return -1;
        }
    }
    return 0;
}

/* Finds the field of `made` whose value, when it is not None any more, makes it true: an offset,
 * or -1 if there is not exactly one. Starting it would tell as well, but schedule it. */
static Py_ssize_t
find_start_event(PyObject *made)
{
    Py_ssize_t found = -1;

    for (Py_ssize_t i = Py_TYPE(made)->tp_base->tp_basicsize; i < Py_TYPE(made)->tp_basicsize;
         i += (Py_ssize_t)sizeof(PyObject *))
    {
        if (*field(made, i) == Py_None) {
            set_field(made, i, Py_NewRef(Py_False));
            int started = PyObject_IsTrue(made);
            set_field(made, i, Py_NewRef(Py_None));
            if (started < 0 || (started > 0 && found >= 0)) {
                return -1;
            }
            found = started ? i : found;
        }
    }
    return found;
}

/* Hands over the parts of gevent that the steps stand for. */
static PyObject *
greenlets_prepare(PyObject *module, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"spawn",     "raw",       "made",       "fresh",  "limit",
                            "method",    "get_hub",   "getcurrent", "config", "setting",
                            "spawn_raw", "raw_class", "run",        "parent", "switch_method",
                            "loop",      "exports",   NULL};
    struct cbase_greenlet_state *steps = cbase_module_state(module)->greenlets;
    parts_of_gevent given = {0};
    PyObject *spawn, *raw, *made, *fresh, *method, *run, *parent, *switch_method, *loop, *exports;

    if (!PyArg_ParseTupleAndKeywords(
            args, kwargs, "$OOOOiO!OOOOOO!O!O!O!O!O:_greenlets_prepare", names, &spawn, &raw,
            &made, &fresh, &given.limit, &PyMethod_Type, &method, &given.get_hub,
            &given.getcurrent, &given.config, &given.setting, &given.spawn_raw, &PyType_Type,
            &given.raw_class, &PyGetSetDescr_Type, &run, &PyGetSetDescr_Type, &parent,
            &PyMethodDescr_Type, &switch_method, &PyGetSetDescr_Type, &loop, &exports))
    {
        return NULL;
    }
    given.class = Py_TYPE(made);
    given.spawn_function = PyMethod_GET_FUNCTION(method); // borrowed, until it is kept
    if (Py_TYPE(fresh) != given.class || PyMethod_GET_SELF(method) != (PyObject *)given.class
        || given.limit < 0 || given.limit > STACK_LIMIT
        || (((PyMethodDescrObject *)switch_method)->d_method->ml_flags & METH_METHOD) != 0)
    {
        PyErr_SetString(PyExc_TypeError, "another Greenlet");
        return NULL;
    }
    given.run = ((PyGetSetDescrObject *)run)->d_getset;
    given.parent = ((PyGetSetDescrObject *)parent)->d_getset;
    given.switch_method = ((PyMethodDescrObject *)switch_method)->d_method;
    given.loop = ((PyGetSetDescrObject *)loop)->d_getset;
    given.hub_class = PyDescr_TYPE(loop);
    given.start_event = find_start_event(made);
    given.spawn_callbacks =
        given.start_event < 0 ? NULL : cbase_object_exported(exports, "_spawn_callbacks");
    PyErr_Clear(); // without these two, start() is called
    if (find_fields(&given, made, fresh) < 0) {
        return NULL;
    }
    PyObject *const objects[] = {(PyObject *)given.class,
                                 (PyObject *)given.raw_class,
                                 given.spawn_function,
                                 given.get_hub,
                                 given.getcurrent,
                                 given.config,
                                 given.setting,
                                 given.spawn_raw,
                                 run,
                                 parent,
                                 loop,
                                 switch_method};
    const parts_of_gevent *parts = cbase_premises_keep_parts(steps->parts, &given, sizeof(given),
                                                             objects, Py_ARRAY_LENGTH(objects));
    if (parts == NULL || cbase_premises_set(&steps->spawn, spawn) < 0
        || cbase_premises_set(&steps->raw, raw) < 0)
    {
        return NULL;
    }
    steps->parts = parts;
    Py_RETURN_NONE;
}

int
cbase_greenlet_init(cbase_state *st)
{
    st->greenlets = cbase_state_new(sizeof(*st->greenlets));
    if (st->greenlets == NULL) {
        return -1;
    }
    cbase_premises_register(st, &st->greenlets->comparison, "gevent.hub",
                            "gevent_cbase._native.greenlets");
    return 0;
}

int
cbase_greenlet_find(cbase_state *st)
{
    return cbase_premises_compare_once(st, &st->greenlets->comparison);
}

/* Whether greenlets that `spawn` makes are made here; None: none are. */
static PyObject *
greenlets_taken(PyObject *module, PyObject *spawn)
{
    cbase_state *st = cbase_module_state(module);
    const parts_of_gevent *g;
    int known = hold(st, &st->greenlets->spawn, &g);

    if (known > 0) {
        known = hold(st, &st->greenlets->raw, &g);
    }
    if (known <= 0) {
        return known < 0 ? NULL : Py_NewRef(Py_None);
    }
    return PyBool_FromLong(spawn == g->spawn_raw || is_greenlet_spawn(g, spawn));
}

PyMethodDef cbase_greenlet_functions[] = {
    {"_greenlets_prepare", (PyCFunction)(void (*)(void))greenlets_prepare,
     METH_VARARGS | METH_KEYWORDS,
     PyDoc_STR("_greenlets_prepare($module, /, **parts)\n--\n\n"
               "Switch the native steps of greenlets on; for gevent_cbase._native.greenlets.")},
    {"_greenlets_taken", greenlets_taken, METH_O,
     PyDoc_STR(
         "_greenlets_taken($module, spawn, /)\n--\n\n"
         "Return whether the greenlets of this spawn function are made in C; None: none are.")},
    {NULL, NULL, 0, NULL},
};
