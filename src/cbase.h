/* Shared by all files of the extension: the module state and what each file offers the others.
 *
 * Conventions. Functions return -1 or NULL with an exception set, unless their comment says
 * otherwise. Arguments are borrowed, results owned, unless marked. `self` is an instance of
 * BaseServer; every call into Python may run anything, also close or free that server, so a
 * caller owns what it goes on using and reads it anew afterwards.
 */
#ifndef CBASE_H
#define CBASE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <errno.h>

#include "python/class_stamps.h"
#include "python/compat.h"
#include "names.h"

#define CBASE_HOOK_NAMES 9

/* hooks.c: what the accept loop calls and reads on one server. A caller's copy owns the objects;
 * to begin with it is all zero. */
typedef struct {
    int never_full;           // `full` is BaseServer's
    int delay_is_reset;       // `delay` is the very object `min_delay`
    int base_do_handle;       // `do_handle` is BaseServer's
    int close_does_nothing;   // `do_close` is BaseServer's
    PyObject *full;           // `full` of the instance, or NULL
    PyObject *do_read;        // function of the class, to be called with self; or NULL: unknown
    PyObject *listener;       // `socket` of the instance, if do_read is StreamServer's; or NULL
    PyObject *spawn;          // `_spawn`, or NULL: unknown
    PyObject *handle;         // `_handle`, or NULL: unknown
    PyObject *close_function; // `do_close` is this Python function of the class; or NULL

    /* True as long as these are the same. Compared only. */
    cbase_class_stamp class;
    PyObject *self, *dict;
    uint64_t stamp;
} cbase_hooks;

typedef struct cbase_hook_slot cbase_hook_slot;

/* memo.c: what was found under one name. Nothing here is owned: the class or the dict owns it
 * as long as it has not changed. */
typedef struct {
    cbase_class_stamp class; // of this class
    PyObject *attr;          // this is there, or NULL: nothing
} cbase_memo_class;

typedef struct {
    PyObject *dict;  // compared only
    uint64_t stamp;  // with which
    PyObject *value; // this is there, or NULL: nothing
} cbase_memo_dict;

/* premises.c: what a native step takes for granted about gevent. Owned, never freed. */
#define CBASE_CLASSES   5
#define CBASE_FUNCTIONS 8
#define CBASE_GLOBALS   4

typedef struct {
    Py_ssize_t classes, functions, globals; // how many of each; no classes: not known yet
    PyTypeObject *class[CBASE_CLASSES];
    cbase_class_stamp compared[CBASE_CLASSES];  // when all was found to be right
    cbase_class_stamp looked_at[CBASE_CLASSES]; // when it was last compared
    cbase_class_stamp failed_at[CBASE_CLASSES]; // when it last could not be
    struct {
        PyFunctionObject *object;
        PyObject *code, *defaults, *kwdefaults;
    } function[CBASE_FUNCTIONS];
    struct {
        PyObject *namespace, *name, *value;
        int watched;    // `stamp` counts:
        uint64_t stamp; // of the namespace when the value was last found there
    } global[CBASE_GLOBALS];
} cbase_premises;

/* premises.c: the comparison with what is known, by a module in Python. */
typedef struct {
    const char *needed, *module; // what has to be loaded, and what has prepare()
    int wanted;                  // it was asked for
    int compared;                // prepare() has returned, whatever it has found
    int running;
    unsigned int pause, wait; // after a failure, in attempts: the last one, and what is left of it
} cbase_premises_comparison;

/* The parts of gevent that a native step works with. They are never changed nor freed: another
 * comparison may make others, while somebody is at work with these. Whoever calls into Python
 * reads the pointer to them once, or reads all of them anew. */

/* socket_accept.c */
typedef struct {
    PyTypeObject *socket, *raw, *closed_socket, *stdlib, *hub_class; // classes
    PyTypeObject *base_class;                                        // _socket.socket
    PyTypeObject *loop_class, *io_class; // whose watchers can be kept; object: none
    Py_ssize_t hub, timeout, read_event, write_event, sock, io_refs, closed; // offsets of slots
    Py_ssize_t closed_slots[5];
    PyObject *do_read, *do_close;
    PyObject *get_hub, *getdefaulttimeout;
    PyObject *cancelled;        // what waiters get when their socket is closed
    PyObject *close_later;      // gevent_cbase._stream._close_later
    PyObject *failed;           // gevent_cbase._stream.do_read
    PyObject *close_descriptor; // the function _close_descriptor
} cbase_socket_parts;

typedef struct {
    cbase_premises_comparison preparation;
    cbase_premises accept, close;
    const cbase_socket_parts *parts; // or NULL: not known yet
    int no_accept4;                  // the kernel has none, or forbids it
    int unchecked;                   // a client was accepted since signals were seen to
    cbase_memo_dict overridden;      // cancel_waits_close_and_then() of the hub
    cbase_memo_class closing_fd;     // of loops
} cbase_sockets;

/* pool_spawn.c: gevent.pool.Pool */
typedef struct {
    PyTypeObject *class;
    PyObject *full_function, *spawn_function, *discard_function;
    PyObject *PoolFull;
} cbase_pool_spawn_parts;

typedef struct {
    cbase_premises_comparison preparation;
    cbase_premises full, spawn; // both with the class Pool
    const cbase_pool_spawn_parts *parts;
} cbase_pool_spawns;

/* batch.c */
enum {
    CBASE_BATCH_DO_CLOSE,
    CBASE_BATCH_DISCARD,
    CBASE_BATCH_METHODS,
};

/* greenlets.c: gevent's Greenlet and spawn_raw */
#define CBASE_STACK_LIMIT 16 /* frames of a spawning stack; gevent has 10 */

typedef struct {
    PyTypeObject *class, *raw_class; // Greenlet, TrackedRawGreenlet
    PyObject *spawn_function;        // of the class method Greenlet.spawn
    PyObject *spawn_raw;
    PyObject *get_hub, *getcurrent;
    const PyGetSetDef *run, *parent; // attributes of class greenlet
    PyObject *switch_method;         // its descriptor there
    PyTypeObject *hub_class;         // the class of hubs that start() knows
    const PyGetSetDef *loop;         // attribute of it
    PyObject *config, *setting;      // gevent.config, and its setting track_greenlet_tree
    PyObject **spawn_callbacks;      // gevent's variable: what start() calls; or NULL: unknown
    Py_ssize_t args, kwargs, links, spawning_greenlet, spawn_tree_locals, spawning_stack,
        start_event; // offsets
    int limit;       // of frames
} cbase_greenlet_parts;

/* The last stack that gevent has made, and the Python frames it stands for. All owned. */
typedef struct {
    PyObject *stack;
    int limit, depth;
    struct {
        PyCodeObject *code;
        int lasti;
    } frame[CBASE_STACK_LIMIT];
} cbase_spawning_stack;

typedef struct {
    cbase_premises_comparison preparation;
    cbase_premises spawn, raw;
    const cbase_greenlet_parts *parts;
    cbase_memo_dict settings, tracked, value; // on the way to the value of the setting
    cbase_memo_class spawners;                // classes of them, and `spawn_tree_locals`
    cbase_memo_dict locals;
    cbase_memo_class run_callback; // of loops
    cbase_spawning_stack last;
} cbase_greenlets;

/* hub.c: where gevent keeps the hub of each thread. All but the dict is never freed. */
typedef struct {
    PyObject *get_hub, *get_hub_noargs; // gevent's functions
    PyObject *local;                    // has the thread-local attribute `hub`; NULL: unknown
    cbase_class_stamp class;            // of its class, when this was found out about it:
    int in_dict;                        // the attribute is in its `__dict__`
    uint64_t thread;                    // for which
    PyObject *dict;                     // this is its `__dict__`, owned; or NULL
    cbase_memo_dict hub;                // what is in that
    cbase_memo_class loop;              // attribute of hubs
} cbase_hub;

/* counters.c: what is counted about one server. */
#define CBASE_ERRNOS  256 /* errno values that are told apart; Linux has 133 */
#define CBASE_BUCKETS 256

enum { CBASE_NO_PAUSE, CBASE_FULL, CBASE_BACKOFF, CBASE_PAUSES };

typedef struct cbase_counters {
    struct cbase_counters *next;
    PyObject *server; // borrowed: valid as long as the weak reference is
    PyObject *ref;    // weak reference to the server
    unsigned long long accepted, spawn_errors, accept_errors[CBASE_ERRNOS];
    int pause;    // under way: CBASE_FULL, CBASE_BACKOFF or CBASE_NO_PAUSE
    double since; // when it began
    unsigned long long pauses[CBASE_PAUSES];
    double seconds[CBASE_PAUSES]; // of those that are over
} cbase_counters;

typedef struct {
#define X(name) PyObject *s_##name;
    CBASE_NAMES(X)
#undef X
    PyObject *s_default; // 'default'

    PyTypeObject *BaseServer;
    PyObject *handle_and_close; // the function _handle_and_close_when_done

    PyObject *Event;        // gevent.event.Event
    PyObject *Greenlet;     // gevent.greenlet.Greenlet
    PyObject *GreenletExit; // greenlet.GreenletExit
    PyObject *get_hub;      // gevent.hub.get_hub
    PyObject *sys;
    PyObject *address_any; // ''
    PyObject *zero, *one, *two;
    PyObject *family_inet, *family_inet6;
    PyObject *all_but_first, *between_ends;                        // slice(1, None), slice(1, -1)
    PyObject *no_args;                                             // ()
    PyObject *kw_timeout, *kw_block_timeout, *kw_blocking_timeout; // keyword names of calls

    PyObject *base_full, *base_do_handle, *base_do_close; // descriptors in BaseServer

    /* Counts BaseServer.close(): tells the accept loop that some server has been closed. */
    unsigned long closes;
    PyObject *hook_names[CBASE_HOOK_NAMES]; // borrowed from the names above
    int hooks_off;
    cbase_hook_slot *hook_slots; // owned
    int unprepared;              // a comparison has failed, see cbase_premises_compare_again()
    cbase_sockets sockets;
    cbase_pool_spawns pool_spawn;
    cbase_greenlets greenlets;
    PyObject *bound[CBASE_BATCH_METHODS]; // owned; or NULL
    struct starting *starting;            // of lifecycle.c
    cbase_hub hub;
    cbase_counters *counters[CBASE_BUCKETS];
    PyObject *forget_counters; // the function _stats_forget
} cbase_state;

/* The state behind `module`, and behind the class that defines the method being called. */
static inline cbase_state *
cbase_module_state(PyObject *module)
{
    return (cbase_state *)PyModule_GetState(module);
}

static inline cbase_state *
cbase_class_state(PyTypeObject *defining_class)
{
    return (cbase_state *)PyType_GetModuleState(defining_class);
}

/* Signature of a method: PyCMethod of METH_METHOD | METH_FASTCALL | METH_KEYWORDS. */
#define CBASE_SIGNATURE(function)                                                                 \
    static PyObject *function(PyObject *self, PyTypeObject *cls, PyObject *const *args,           \
                              Py_ssize_t nargs, PyObject *kwnames)

#if PY_VERSION_HEX >= 0x030B0000
#define CBASE_METHOD CBASE_SIGNATURE
#else
/* A method that greenlets and threads begin with calls itself once more, see
 * cbase_call_in_frame(). */
#define CBASE_METHOD(function)                                                                    \
    CBASE_SIGNATURE(function##_in_frame);                                                         \
    CBASE_SIGNATURE(function)                                                                     \
    {                                                                                             \
        static PyMethodDef again = CBASE_METHOD_DEF(#function, function, "");                     \
        if (cbase_call_has_no_frame()) {                                                          \
            return cbase_call_method_in_frame(&again, self, cls, args, nargs, kwnames);           \
        }                                                                                         \
        return function##_in_frame(self, cls, args, nargs, kwnames);                              \
    }                                                                                             \
    CBASE_SIGNATURE(function##_in_frame)
#endif

#define CBASE_METHOD_DEF(name, function, doc)                                                     \
    {                                                                                             \
        name, (PyCFunction)(void (*)(void))(function),                                            \
            METH_METHOD | METH_FASTCALL | METH_KEYWORDS, PyDoc_STR(doc)                           \
    }

/* A module function of METH_FASTCALL | METH_KEYWORDS. */
#define CBASE_FUNCTION_DEF(name, function, doc)                                                   \
    {                                                                                             \
        name, (PyCFunction)(void (*)(void))(function), METH_FASTCALL | METH_KEYWORDS,             \
            PyDoc_STR(doc)                                                                        \
    }

/* ---- args.c: METH_FASTCALL | METH_KEYWORDS functions, and their arguments ---- */

#if PY_VERSION_HEX < 0x030B0000
/* Whether no Python function runs: so it is at the bottom of a greenlet that began with one in C.
 *
 * CAUTION: gevent looks for the frame that makes a Greenlet, by sys._getframe(). Without one, 3.10
 * crashes if there is an audit hook. So what may lead to that is called from a frame, as it is in
 * gevent, where all of this is Python. Watched by the tests with 'audit_hook' in their names in
 * tests/test_lifecycle.py and tests/test_spawn.py. */
static inline int
cbase_call_has_no_frame(void)
{
    return PyEval_GetFrame() == NULL;
}

/* function(*args), or a method made from `def`, in a Python frame. */
PyObject *cbase_call_in_frame(PyObject *function, PyObject *const *args, Py_ssize_t nargs,
                              PyObject *kwnames);
PyObject *cbase_call_method_in_frame(PyMethodDef *def, PyObject *self, PyTypeObject *cls,
                                     PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames);
#endif

#define CBASE_MAX_PARAMS 3

typedef struct {
    const char *function;
    Py_ssize_t required;
    const char *names[CBASE_MAX_PARAMS + 1]; // NULL-terminated
} cbase_args_params;

/* Fills out[i] with the borrowed argument of names[i], or NULL if it was not given. */
int cbase_args_parse(const cbase_args_params *params, PyObject *const *args, Py_ssize_t nargs,
                     PyObject *kwnames, PyObject **out);
/* function(), without the interpreter's detours if it is a built-in one that has no parameters. */
static inline PyObject *
cbase_call_no_args(PyObject *function)
{
    if (PyCFunction_CheckExact(function) && PyCFunction_GET_FLAGS(function) == METH_NOARGS) {
        return PyCFunction_GET_FUNCTION(function)(PyCFunction_GET_SELF(function), NULL);
    }
    return PyObject_CallNoArgs(function);
}

/* For functions that take positional arguments only. */
int cbase_args_no_keywords(const char *function, PyObject *kwnames);
int cbase_args_none(const char *function, Py_ssize_t nargs, PyObject *kwnames);

/* ---- instance_dict.c: attributes of a server; alone in touching the instance `__dict__` ---- */

/* getattr(obj, name). Not PyObject_GetAttrString(): CPython's method cache keeps the string of
 * each such call, up to thousands. */
PyObject *cbase_object_attr(PyObject *obj, const char *name);
/* hasattr(): 1, 0 or -1. */
int cbase_object_has(PyObject *obj, PyObject *name);
/* self.__dict__.pop(name, None); *value, if wanted, receives what was there or NULL. */
int cbase_instance_dict_pop(cbase_state *st, PyObject *self, PyObject *name, PyObject **value);
/* self.__dict__.get(name): 1 and an owned *value, 0 and NULL (absent or None), or -1. */
int cbase_instance_dict_get(cbase_state *st, PyObject *self, PyObject *name, PyObject **value);
/* A new dict with those of `handle`, `_handle`, `_spawn` and `full` that the server holds, and
 * the way back: sets what the server lacks of it. */
PyObject *cbase_instance_dict_pick_handler(cbase_state *st, PyObject *self);
int cbase_instance_dict_fill(PyObject *self, PyObject *picked);
/* getattr(obj, name)(): the result, or only success. */
PyObject *cbase_object_call(PyObject *obj, PyObject *name);
PyObject *cbase_object_call_one(PyObject *obj, PyObject *name, PyObject *arg);
int cbase_object_run(PyObject *obj, PyObject *name);
/* bool(getattr(obj, name)()): 1, 0 or -1. */
int cbase_object_ask(PyObject *obj, PyObject *name);
/* getattr(getattr(self, attr), name)(): as `self._watcher.stop()`. */
int cbase_object_run_on(PyObject *self, PyObject *attr, PyObject *name);

/* Whether the instance dict itself holds `name`: 1, 0 or -1. Runs no Python code. */
int cbase_object_dict_has(PyObject *self, PyObject *name);

/* ---- dict_stamps.c: has a dict changed? ---- */

/* Instance dicts of servers, of which only the names of hooks count; those of gevent, as
 * namespaces of its modules. */
enum { CBASE_INSTANCE_DICT, CBASE_NAMESPACE_DICT, CBASE_DICT_KINDS };

void cbase_dict_stamp_init(const cbase_state *st);
/* Whether changes of such dicts can be told. */
int cbase_dict_stamp_available(int kind);
/* Whether from now on the stamp tells changes of this dict. `obj`: whose instance dict it is, or
 * NULL. May run Python code. */
int cbase_dict_stamp_watch(int kind, PyObject *obj, PyObject *dict);
/* Whether somebody else watches it: then what is noted of it may be wrong, see dict_stamps.c. */
int cbase_dict_stamp_is_shared(PyObject *dict);
/* No other keys than exact str: looking one up then runs no Python code. */
int cbase_object_dict_is_plain(PyObject *dict);

#if PY_VERSION_HEX >= 0x030C0000
extern uint64_t cbase_dict_stamp_changes[CBASE_DICT_KINDS]; // of any of the dicts

static inline uint64_t
cbase_dict_stamp_of(int kind, PyObject *dict)
{
    (void)dict;
    return cbase_dict_stamp_changes[kind];
}
#else
static inline uint64_t
cbase_dict_stamp_of(int kind, PyObject *dict)
{
    (void)kind;
    return ((PyDictObject *)dict)->ma_version_tag;
}
#endif

/* ---- memo.c: look-ups on objects of gevent that need not be made again ---- */

/* getattr(obj, name), short for what the class computes in C. */
PyObject *cbase_memo_attr(const cbase_state *st, cbase_memo_class *memo, PyObject *obj,
                          PyObject *name);
/* getattr(args[0], name)(*args[1:]), short for methods of what has no instance dict. */
PyObject *cbase_memo_call(const cbase_state *st, cbase_memo_class *memo, PyObject *name,
                          PyObject *const *args, size_t nargs);
/* Whether instances of a class have in their instance dict alone what they have under a name. */
int cbase_memo_class_lacks(const cbase_state *st, cbase_memo_class *memo, PyTypeObject *type,
                           PyObject *name);
/* What is in a dict, or in the instance dict of an object, owned; or NULL without an exception.
 * The memo is for that dict. */
PyObject *cbase_memo_dict_get(const cbase_state *st, cbase_memo_dict *memo, PyObject *dict,
                              PyObject *name);
PyObject *cbase_memo_instance_get(const cbase_state *st, cbase_memo_dict *memo, PyObject *obj,
                                  PyObject *name);
/* Whether the instance dict of an object has nothing under a name; no, if that is not known. */
int cbase_memo_instance_lacks(const cbase_state *st, cbase_memo_dict *memo, PyObject *obj,
                              PyObject *name);
/* The variable that a compiled module shares with others; or NULL with an exception. */
PyObject **cbase_object_exported(PyObject *module, const char *name);

/* ---- hooks.c: look-ups of the accept loop that need not be made again ---- */

extern PyMethodDef cbase_hooks_functions[];

int cbase_hooks_init(cbase_state *st);
/* 1 and *hooks are what is true of a server now, also if they were true already; 0 if ordinary
 * attribute access has to be used, or -1, and then they are empty. */
int cbase_hooks_get(cbase_state *st, PyObject *self, cbase_hooks *hooks);
/* Lets go of what they own. */
void cbase_hooks_drop(cbase_hooks *hooks);
/* From now on everything is looked up anew. */
void cbase_hooks_forget(cbase_state *st);

/* ---- except.c: raising, `except` and `finally` ---- */

/* PyErr_Format, for messages that contain a repr() or str(): what that raises is raised instead,
 * which PyErr_Format does not do on 3.10. */
void cbase_except_raise(PyObject *type, const char *format, ...);

/* The exception that a block handles, and what was being handled outside of it. */
typedef struct {
    PyObject *raised;
    PyObject *outer[3];
} cbase_except;

/* Enters the block with the exception that is set; from here on sys.exc_info() shows it and
 * new exceptions get it as their __context__. */
void cbase_except_enter(cbase_except *block);
/* Leaves it. `leave` drops the exception and keeps one raised in the block, if any: 0 or -1;
 * `reraise` raises it again unless the block raised another one. */
int cbase_except_leave(cbase_except *block);
void cbase_except_reraise(cbase_except *block);

/* ---- accept_loop.c: the accept loop ---- */
extern PyMethodDef cbase_accept_loop_methods[];

/* Lets go of what the connections of a batch share, so that nothing is kept alive by it. */
void cbase_batch_end(cbase_state *st);

/* ---- counters.c: counters of servers ---- */
extern PyMethodDef cbase_counters_functions[];

int cbase_counters_init(PyObject *module, cbase_state *st);
/* The counters of a server, to be used as long as the server is owned. Never NULL. */
cbase_counters *cbase_counters_of(cbase_state *st, PyObject *self);
/* Counts the exception that do_read has raised, which is set and stays so. */
void cbase_counters_accept_error(cbase_counters *counters);
/* A pause begins, CBASE_FULL or CBASE_BACKOFF, unless one is under way; and it ends. */
void cbase_counters_pause(cbase_state *st, PyObject *self, int kind);
void cbase_counters_end_pause(cbase_counters *counters);
void cbase_counters_resume(cbase_state *st, PyObject *self);

/* ---- backoff.c: how accepting stops for a while ---- */

/* Stop accepting, start again after self.delay, double the delay; a negative one: go on. */
int cbase_backoff_pause(cbase_state *st, PyObject *self);
/* As cbase_backoff_pause for a server that is accepting no more: the timer and the doubling only.
 */
int cbase_backoff_resume_later(cbase_state *st, PyObject *self);

/* The io watcher or timer in an attribute of a server, before it is stopped: what calls the
 * server again where there is no memory for a pause. Both NULL if there is none. */
typedef struct {
    PyObject *attr;               // borrowed
    PyObject *watcher, *callback; // owned
} cbase_backoff_waker;

/* Keeps an exception that is set. */
void cbase_backoff_waker_take(cbase_state *st, PyObject *self, PyObject *attr,
                              cbase_backoff_waker *waker);
void cbase_backoff_waker_drop(cbase_backoff_waker *waker);
/* With an exception set that is about to reach the event loop, which stops the io watcher for
 * that: make sure that accepting goes on later. 0 if the exception is still set; 1 if it has
 * been written to stderr, and must not reach the loop. */
int cbase_backoff_never_deaf(cbase_state *st, PyObject *self, cbase_backoff_waker *waker);
/* The same for a MemoryError; 0 for all else, as gevent does not go on after it either. */
int cbase_backoff_no_memory(cbase_state *st, PyObject *self, cbase_backoff_waker *waker);
/* With an exception set that has nothing to do with a connection: 0 if it was a lack of memory,
 * and accepting goes on, or -1. `attr` holds what has called the server. */
int cbase_backoff_go_on(cbase_state *st, PyObject *self, PyObject *attr);

/* ---- pool.c: pools and what resembles one ---- */

/* Have the pool call back when a slot is free: 1, 0 if it cannot, or -1. */
int cbase_pool_link(cbase_state *st, PyObject *self, PyObject *pool);
int cbase_pool_unlink(cbase_state *st, PyObject *self, PyObject *pool);
/* Wait for its greenlets for `timeout` seconds, then kill the rest. */
int cbase_pool_finish(cbase_state *st, PyObject *self, PyObject *timeout);

/* ---- handover.c: from an accepted connection to its handler ---- */
extern PyMethodDef cbase_handover_methods[];
extern PyMethodDef cbase_handover_functions[];

/* function(*args) */
PyObject *cbase_call_star(PyObject *function, PyObject *args);
/* self.do_handle(*args) for BaseServer's own do_handle. `args` is a tuple. `hooks`: those of
 * the server, valid now, or NULL. */
int cbase_handover(cbase_state *st, PyObject *self, const cbase_hooks *hooks, PyObject *args);

/* ---- parse_address.c ---- */
extern PyMethodDef cbase_parse_address_functions[];

PyObject *cbase_parse_address(cbase_state *st, PyObject *address);

/* ---- pool_spawn.c: full() and spawn() of gevent's Pool ---- */

extern PyMethodDef cbase_pool_spawn_functions[];

/* Looks for what the steps need, once gevent.pool is loaded. */
int cbase_pool_spawn_find(cbase_state *st);
/* full(), if it is Pool's: 1, 0, -1, or CBASE_UNKNOWN if it has to be called. */
#define CBASE_UNKNOWN (-2)
int cbase_pool_spawn_full(cbase_state *st, PyObject *full);
/* spawn(*args), if `spawn` is Pool's: 1 and the greenlet or NULL with an exception, or 0 if it
 * has to be called. */
int cbase_pool_spawn(cbase_state *st, PyObject *spawn, PyObject *const *args, size_t nargs,
                     PyObject **greenlet);
/* Whether gevent's code is what both stand for, and whether `full` and `_spawn` of a server are
 * what they are taken for: 1, 0 or -1. */
int cbase_pool_spawn_known(cbase_state *st);
int cbase_pool_spawn_is_plain(cbase_state *st, PyObject *full, PyObject *spawn);

/* ---- batch.c: bound methods that the connections of a batch share ---- */

/* `function` bound to `self`, owned: the same object until another one is wanted or a batch ends.
 */
PyObject *cbase_batch_method(cbase_state *st, int which, PyObject *function, PyObject *self);
/* For cbase_batch_end(). */
void cbase_batch_drop_methods(cbase_state *st);

/* ---- hub.c: the hub of the current thread ---- */

void cbase_hub_init(cbase_state *st);
/* get_hub(), which is gevent's function or any other. */
PyObject *cbase_hub_get(cbase_state *st, PyObject *get_hub);
/* hub.loop */
PyObject *cbase_hub_loop(cbase_state *st, PyObject *hub);
/* For cbase_batch_end(). */
void cbase_hub_drop(cbase_state *st);

/* ---- greenlets.c: Greenlet(), Greenlet.spawn() and spawn_raw() of gevent ---- */

#define CBASE_SPAWN_ARGS 4 /* at most */

extern PyMethodDef cbase_greenlet_functions[];

/* Looks for what the steps need. */
int cbase_greenlet_find(cbase_state *st);
/* cls(*args), if `cls` is gevent's Greenlet, and spawn(*args), if that is gevent's; there is at
 * least one argument. 1 and the greenlet or NULL with an exception, or 0 if it has to be called.
 */
int cbase_greenlet_new(cbase_state *st, PyObject *cls, PyObject *const *args, size_t nargs,
                       PyObject **greenlet);
/* greenlet.rawlink(callback), if it is a Greenlet that was just made and nobody has seen yet: 1, 0
 * if that has to be called, or -1. */
int cbase_greenlet_link(cbase_state *st, PyObject *greenlet, PyObject *callback);
/* greenlet.start(): 0 or -1 */
int cbase_greenlet_start(cbase_state *st, PyObject *greenlet);
int cbase_greenlet_spawn(cbase_state *st, PyObject *spawn, PyObject *const *args, size_t nargs,
                         PyObject **greenlet);

/* ---- premises.c: is gevent's code still what it was? ---- */

extern PyMethodDef cbase_premises_functions[];

/* given: (classes, functions, globals): tuples of (class, stamp), of (function, code, defaults,
 * kwdefaults) and of (namespace, name, value), as they were when they were compared. Replaces what
 * an earlier call has set, or leaves it alone: 0 or -1. */
int cbase_premises_set(cbase_premises *premises, PyObject *given);
/* 1, 0 or -1. If a class has changed, all is compared again, which may run anything. */
int cbase_premises_hold(cbase_state *st, cbase_premises *premises,
                        cbase_premises_comparison *preparation);
/* Compare now: 1 if that is done, 0 if it could not be and will be tried again, or -1. Of
 * exceptions, only those that are no Exception are errors. */
int cbase_premises_compare(cbase_state *st, cbase_premises_comparison *preparation);
/* The same once and for all, when the module `needed` is loaded: 0 or -1. */
int cbase_premises_compare_once(cbase_state *st, cbase_premises_comparison *preparation);
/* Compare what could not be compared before; for when `unprepared` is set: 0 or -1. */
int cbase_premises_compare_again(cbase_state *st);
/* `former` if the parts that are given are the same, else a copy that owns the objects; both are
 * kept for good. NULL without memory. */
const void *cbase_premises_keep_parts(const void *former, const void *given, size_t size,
                                      PyObject *const *objects, size_t count);

/* ---- socket_accept.c: accept and close of gevent's stream servers ---- */

#if defined(__linux__) && !defined(CBASE_PORTABLE)
#define CBASE_HAVE_SOCKETS 1
#include <sys/socket.h>

extern PyMethodDef cbase_socket_accept_functions[];

/* Looks for what the native steps need, once gevent.server is loaded. */
int cbase_socket_accept_find(cbase_state *st);
/* StreamServer.do_read for this listener: 1 and its result or NULL with an exception, or 0 if
 * the function itself has to be called. */
int cbase_socket_accept(cbase_state *st, PyObject *listener, PyObject **result);
/* Whether gevent's code is what both stand for (1, 0 or -1), and whether this is a listener that
 * the first accepts from. */
int cbase_socket_accept_known(cbase_state *st);
int cbase_socket_accept_is_listener(const cbase_state *st, PyObject *listener);
/* Whether a function, or NULL, is StreamServer.do_read, or StreamServer.do_close. */
int cbase_socket_accept_is_do_read(const cbase_state *st, PyObject *function);
int cbase_socket_close_is_do_close(const cbase_state *st, PyObject *function);

/* socket_close.c: closing */
extern PyMethodDef cbase_socket_close_functions[];

int cbase_socket_close_init(PyObject *module);
/* close(*args), if `close` is StreamServer.do_close for a socket of gevent: 1, 0 if it has to be
 * called, or -1. */
int cbase_socket_close(cbase_state *st, PyObject *close, PyObject *args);

/* socket_address.c: addresses of clients */
int cbase_socket_address_known(int family);
/* The address as Python has it. `address` is filled with zeros behind its `length`. */
PyObject *cbase_socket_address(const struct sockaddr_storage *address, socklen_t length);

/* io_watchers.c: io watchers of accepted sockets */
/* events[0] and [1]: owned watchers of `loop` for reading and writing, made or kept. 0 or -1. */
int cbase_io_watchers_make(cbase_state *st, PyObject *loop, int fd, PyObject **events);
/* Keeps the watchers of a socket that is being closed for the next one with that descriptor, if
 * they are as new, nobody else's, and wanted: 1 and they are stolen, or 0. `fd`: -1 if the
 * descriptor was closed before. */
int cbase_io_watchers_keep(cbase_state *st, int fd, PyObject *const *events);
/* Drops all that are kept; none are wanted until the next one is made. */
void cbase_io_watchers_drop(void);
#else
static inline void
cbase_io_watchers_drop(void)
{
}
static inline int
cbase_socket_close_init(PyObject *module)
{
    (void)module;
    return 0;
}
static inline int
cbase_socket_accept_find(cbase_state *st)
{
    (void)st;
    return 0;
}
static inline int
cbase_socket_accept(cbase_state *st, PyObject *listener, PyObject **result)
{
    (void)st, (void)listener, (void)result;
    return 0;
}
static inline int
cbase_socket_close(cbase_state *st, PyObject *close, PyObject *args)
{
    (void)st, (void)close, (void)args;
    return 0;
}
static inline int
cbase_socket_accept_known(cbase_state *st)
{
    (void)st;
    return 0;
}
static inline int
cbase_socket_accept_is_listener(const cbase_state *st, PyObject *listener)
{
    (void)st, (void)listener;
    return 0;
}
static inline int
cbase_socket_accept_is_do_read(const cbase_state *st, PyObject *function)
{
    (void)st, (void)function;
    return 0;
}
static inline int
cbase_socket_close_is_do_close(const cbase_state *st, PyObject *function)
{
    (void)st, (void)function;
    return 0;
}
#endif

/* ---- run.c: for python -m gevent_cbase ---- */
extern PyMethodDef cbase_run_functions[];

/* ---- lifecycle.c: start, stop and what lies between; repr.c: repr and properties ---- */
extern PyMethodDef cbase_lifecycle_methods[];
extern PyMethodDef cbase_repr_methods[];
extern PyMethodDef cbase_repr_properties[];

/* ---- datastack.c: the cache of data-stack chunks ---- */
#if !defined(_WIN32)
#define CBASE_HAVE_DATASTACK 1
extern PyMethodDef cbase_datastack_functions[];
#endif

/* ---- class.c: the type ---- */

/* Creates BaseServer for `module` and stores it in its state. */
int cbase_class_create(PyObject *module, cbase_state *st);

#endif
