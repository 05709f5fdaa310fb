/* What a native step takes for granted about gevent, for the files of this storey. */
#ifndef CBASE_PREMISES_H
#define CBASE_PREMISES_H

#include "native/native.h"

#define CBASE_CLASSES    5
#define CBASE_FUNCTIONS  16
#define CBASE_NAMESPACES 8
#define CBASE_CELLS      4

/* A function, and what it was when it was compared. */
typedef struct {
    PyFunctionObject *object;
    PyObject *code, *defaults, *kwdefaults;
} cbase_premises_function;

/* Owned, never freed. All zero: not known yet. */
typedef struct {
    Py_ssize_t classes, functions, namespaces, cells; // how many; no classes: not known yet
    cbase_class_stamp compared[CBASE_CLASSES];        // when all was found to be right
    cbase_class_stamp looked_at[CBASE_CLASSES];       // when it was last compared
    cbase_class_stamp failed_at[CBASE_CLASSES];       // when it last could not be
    cbase_premises_function function[CBASE_FUNCTIONS];
    struct {
        PyObject *dict, *names; // a tuple of (name, value), or (name,) for what is not there
        int watched;            // `stamp` counts:
        uint64_t stamp;         // of the dict when all of them were last found there
    } namespace[CBASE_NAMESPACES];
    int all_watched;      // all these stamps count, and so does one of all dicts:
    uint64_t found_right; // when all names were last found to be right
    struct {
        PyObject *object, *contents;
    } cell[CBASE_CELLS]; // variables of functions around these
} cbase_premises;

/* The comparison with what is known, by a module in Python. */
typedef struct cbase_premises_comparison {
    const char *needed, *module; // what has to be loaded, and what has prepare()
    struct cbase_premises_comparison *next;
    int wanted;   // it was asked for
    int compared; // prepare() has returned, whatever it has found
    int running;
    unsigned int pause, wait; // after a failure, in attempts: the last one, and what is left of it
} cbase_premises_comparison;

/* Makes a comparison known, once: what has to be loaded, and the module in Python that makes it.
 */
void cbase_premises_register(cbase_state *st, cbase_premises_comparison *comparison,
                             const char *needed, const char *module);
/* given: (classes, functions, namespaces, cells): tuples of (class, stamp), of (function, code,
 * defaults, kwdefaults), of (dict, names) and of (cell, contents), as they were when they were
 * compared. Replaces what an earlier call has set, or leaves it alone: 0 or -1. */
int cbase_premises_set(cbase_premises *premises, PyObject *given);
/* They do not hold until they are set again. */
void cbase_premises_forget(cbase_premises *premises);
/* 1, 0 or -1. If a class has changed, all is compared again, which may run anything. */
int cbase_premises_hold(cbase_state *st, cbase_premises *premises,
                        cbase_premises_comparison *comparison);
/* Compare now: 1 if that is done, 0 if it could not be and will be tried again, or -1. Of
 * exceptions, only those that are no Exception are errors. */
int cbase_premises_compare(cbase_state *st, cbase_premises_comparison *comparison);
/* The same once and for all, when the module `needed` is loaded: 0 or -1. */
int cbase_premises_compare_once(cbase_state *st, cbase_premises_comparison *comparison);

/* The parts of gevent that a native step works with. They are never changed nor freed: another
 * comparison may make others, while somebody is at work with these. Whoever calls into Python
 * reads the pointer to them once, or reads all of them anew.
 *
 * `former` if the parts that are given are the same, else a copy that owns the objects; both are
 * kept for good. NULL without memory. */
const void *cbase_premises_keep_parts(const void *former, const void *given, size_t size,
                                      PyObject *const *objects, size_t count);

#endif
