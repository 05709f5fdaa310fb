/* Has a class changed? What was found in one, or in its bases, stays true as long as the stamp
 * that was taken before is valid.
 *
 * CAUTION, watched by the tests of overrides in tests/server/accepting/test_accept_loop.py and by
 * test_type_versions_begin_again: PyTypeObject.tp_version_tag. CPython gives a class a new one
 * whenever it or one of its bases has changed. Called internal; 0 means "no valid tag" in 3.10 to
 * 3.15. On 3.10 sys._clear_type_cache() has them begin again at 1, so that a class may get a tag
 * that it had before. There a stamp is of an epoch, too, see class_stamps.c.
 */
#ifndef CBASE_CLASSES_H
#define CBASE_CLASSES_H

#include "python/compat.h"

/* All zero: not valid. Compared only; owns nothing. */
typedef struct {
    PyTypeObject *type;
    unsigned int version;
    unsigned int epoch; // 0 but on 3.10
} cbase_class_stamp;

int cbase_class_stamp_init(void);

#if PY_VERSION_HEX < 0x030B0000
extern PyTypeObject *cbase_class_stamp_epoch_class;
extern unsigned int cbase_class_stamp_epoch;
void cbase_class_stamp_epoch_begin(void);

static inline unsigned int
cbase_class_stamp_epoch_now(void)
{
    if (!PyType_HasFeature(cbase_class_stamp_epoch_class, Py_TPFLAGS_VALID_VERSION_TAG)) {
        cbase_class_stamp_epoch_begin();
    }
    return cbase_class_stamp_epoch;
}

static inline int
cbase_class_stamp_is_of_now(const cbase_class_stamp *stamp)
{
    return stamp->epoch == cbase_class_stamp_epoch_now();
}
#else
static inline unsigned int
cbase_class_stamp_epoch_now(void)
{
    return 0;
}

static inline int
cbase_class_stamp_is_of_now(const cbase_class_stamp *stamp)
{
    (void)stamp;
    return 1;
}
#endif

/* Whether a class is what it was when this stamp was taken of it. */
static inline int
cbase_class_stamp_holds(const cbase_class_stamp *stamp, PyTypeObject *type)
{
    return stamp->version != 0 && stamp->version == compat_type_version(type)
           && cbase_class_stamp_is_of_now(stamp);
}

/* The same for several classes, with stamps that were taken of them. */
static inline int
cbase_class_stamp_all_hold(const cbase_class_stamp *stamps, Py_ssize_t count)
{
    for (const cbase_class_stamp *stamp = stamps; stamp < stamps + count; stamp++) {
        if (stamp->version != compat_type_version(stamp->type)
            || !cbase_class_stamp_is_of_now(stamp)) {
            return 0;
        }
    }
    return 1;
}

/* The same where the stamp may be of another class. */
static inline int
cbase_class_stamp_is_of(const cbase_class_stamp *stamp, PyTypeObject *type)
{
    return stamp->type == type && cbase_class_stamp_holds(stamp, type);
}

/* Takes the stamp of a class: 1, or 0 if it has none until the next ordinary look-up. */
static inline int
cbase_class_stamp_take(cbase_class_stamp *stamp, PyTypeObject *type)
{
    *stamp = (cbase_class_stamp){type, compat_type_version(type), cbase_class_stamp_epoch_now()};
    if (stamp->version == 0) {
        *stamp = (cbase_class_stamp){NULL, 0, 0};
        return 0;
    }
    return 1;
}

#endif
