/* Has a dict changed? See dict_stamps.c. What is asked for each connection is here, in line. */
#ifndef CBASE_DICT_STAMPS_H
#define CBASE_DICT_STAMPS_H

#include "python/compat.h"

/* Dicts of which all names count; and those of which only some do. */
enum { CBASE_DICT_ALL_NAMES, CBASE_DICT_SOME_NAMES, CBASE_DICT_KINDS };

void cbase_dict_stamp_init(void);
/* A name, interned, that counts where only some do: 0 or -1. */
int cbase_dict_stamp_add_name(PyObject *name);
/* Whether changes of such dicts can be told. */
int cbase_dict_stamp_available(int kind);
/* Whether from now on the stamp tells changes of this dict. May run Python code. */
int cbase_dict_stamp_watch(int kind, PyObject *dict);
/* Whether somebody else watches it: then what is noted of it may be wrong, see dict_stamps.c. */
int cbase_dict_stamp_is_shared(PyObject *dict);

#ifdef COMPAT_DICTS_ARE_WATCHED
extern uint64_t cbase_dict_stamp_changes[CBASE_DICT_KINDS]; // of any of the dicts

static inline uint64_t
cbase_dict_stamp_of(int kind, PyObject *dict)
{
    (void)dict;
    return cbase_dict_stamp_changes[kind];
}

/* A stamp of all dicts of a kind, where there is one: the same as long as none has changed. */
static inline int
cbase_dict_stamp_of_all(int kind, uint64_t *stamp)
{
    *stamp = cbase_dict_stamp_changes[kind];
    return 1;
}
#else
static inline int
cbase_dict_stamp_of_all(int kind, uint64_t *stamp)
{
    (void)kind, (void)stamp;
    return 0;
}

static inline uint64_t
cbase_dict_stamp_of(int kind, PyObject *dict)
{
    (void)kind;
    return compat_dict_version(dict);
}
#endif

#endif
