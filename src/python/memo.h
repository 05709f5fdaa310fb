/* Look-ups that need not be made again, see memo.c. What is checked many times for each connection
 * is here, in line.
 */
#ifndef CBASE_MEMO_H
#define CBASE_MEMO_H

#include "python/class_stamps.h"
#include "python/dict_stamps.h"

/* What was found under one name. Nothing here is owned: the class or the dict owns it as long as
 * it has not changed. Only memo.c and the functions here look into them. All zero: nothing yet. */
typedef struct {
    cbase_class_stamp class; // of this class
    PyObject *attr;          // this is there, or NULL: nothing
    int is_computed;         // it is an attribute that C computes, of the class or a base of it
} cbase_memo_class;

typedef struct {
    int kind;        // of dicts, see cbase_dict_stamp_add_name()
    PyObject *dict;  // compared only
    uint64_t stamp;  // with which
    PyObject *value; // this is there, or NULL: nothing
} cbase_memo_dict;

extern int cbase_memo_off; // every look-up is made the ordinary way

/* getattr(obj, name), short for what the class computes in C. */
PyObject *cbase_memo_attr(cbase_memo_class *memo, PyObject *obj, PyObject *name);
/* getattr(args[0], name)(*args[1:]), short for methods of what has no instance dict. */
PyObject *cbase_memo_call(cbase_memo_class *memo, PyObject *name, PyObject *const *args,
                          size_t nargs);
/* Looks into a class, and notes what is there: 1, or 0 if that cannot be known. */
int cbase_memo_class_look(cbase_memo_class *memo, PyTypeObject *type, PyObject *name);

/* Whether memo->attr is what instances of a class find in it, with ordinary attribute access. */
static inline int
cbase_memo_class_knows(cbase_memo_class *memo, PyTypeObject *type, PyObject *name)
{
    if (cbase_memo_off) {
        return 0;
    }
    return cbase_class_stamp_is_of(&memo->class, type) || cbase_memo_class_look(memo, type, name);
}

/* Whether instances of a class have in their instance dict alone what they have under a name. */
static inline int
cbase_memo_class_lacks(cbase_memo_class *memo, PyTypeObject *type, PyObject *name)
{
    return cbase_memo_class_knows(memo, type, name) && memo->attr == NULL;
}

static inline int
cbase_memo_dict_is_valid(const cbase_memo_dict *memo, PyObject *dict)
{
    return memo->dict == dict && memo->stamp == cbase_dict_stamp_of(memo->kind, dict);
}

/* What is in a dict, or in the instance dict of an object, owned; or NULL without an exception.
 * The memo is for that dict. */
PyObject *cbase_memo_dict_get(cbase_memo_dict *memo, PyObject *dict, PyObject *name);
PyObject *cbase_memo_instance_look(cbase_memo_dict *memo, PyObject *obj, PyObject *name);

static inline PyObject *
cbase_memo_instance_get(cbase_memo_dict *memo, PyObject *obj, PyObject *name)
{
    PyObject *dict = compat_instance_dict(obj); // borrowed, compared only

    return dict != NULL && cbase_memo_dict_is_valid(memo, dict)
               ? Py_XNewRef(memo->value)
               : cbase_memo_instance_look(memo, obj, name);
}

/* The same of a dict that may be gone, which is compared only: whether it is known to be there and
 * unchanged. Where nobody tells of the end of a dict, that is never known. */
static inline int
cbase_memo_dict_still(const cbase_memo_dict *memo, PyObject *dict, PyObject **value)
{
#ifdef COMPAT_DICTS_ARE_WATCHED
    /* Watchers are told of the end of a dict as of a change. The stamp is that of all dicts. */
    if (dict != NULL && cbase_memo_dict_is_valid(memo, dict)) {
        *value = Py_XNewRef(memo->value);
        return 1;
    }
#else
    (void)memo, (void)dict, (void)value;
#endif
    return 0;
}

/* Whether the instance dict of an object has nothing under a name; no, if that is not known. */
int cbase_memo_instance_lacks(cbase_memo_dict *memo, PyObject *obj, PyObject *name);

#endif
