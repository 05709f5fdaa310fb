/* Io watchers of accepted sockets, used again for the next socket with the same descriptor.
 *
 * Every socket of gevent has two io watchers of its own. When the socket is closed they are idle,
 * and since the system gives out the lowest free descriptor, the next connection needs just
 * these: same loop, same descriptor, same events.
 *
 * A watcher is kept only if nobody else refers to it and its bytes, behind the object header, are
 * those that it was born with, or those of one that was started and stopped since: there is no
 * other state in which two watchers could differ. What starting leaves behind is learned from a
 * watcher that is made for it: libev forgets that the descriptor is new to it. So a watcher gets
 * its first bytes again. Only those of gevent's libev loop in C are looked at: others hold native
 * handles that have to be closed.
 *
 * Kept watchers keep their loop. So they are dropped whenever a server closes, no more are kept
 * until a server accepts again, and there are no more than two for each descriptor below
 * DESCRIPTORS.
 *
 * CAUTION: compares bytes of gevent's compiled class `io` that nobody documents. Watched by
 * tests/native/steps/test_watchers.py.
 *
 * Does not know sockets: a watcher belongs to a descriptor.
 */
#include "native/socket.h"

#ifdef CBASE_HAVE_SOCKETS

#define DESCRIPTORS 1024
#define MAX_BYTES   256 /* of a watcher: 144 in gevent 25.9 to 26.9 on x86-64 */

typedef struct {
    PyObject *loop;    // borrowed, as what follows: only compared
    PyObject *born[2]; // the watchers that were made last
    unsigned char bytes[2][MAX_BYTES];
    PyObject *kept[2]; // owned; both or none
} place;

static place *places[DESCRIPTORS];
/* What is another bit in the bytes of one that was started and stopped; all zero: not known. */
static unsigned char left_by_start[MAX_BYTES];
static int kept;   // places that keep something
static int wanted; // whether a client was accepted since all were dropped

static size_t
size_of(const PyObject *watcher)
{
    return (size_t)Py_TYPE(watcher)->tp_basicsize - sizeof(PyObject);
}

static void *
bytes_of(PyObject *watcher)
{
    return (char *)watcher + sizeof(PyObject);
}

/* loop.io(fd, events) */
static PyObject *
new_watcher(cbase_state *st, PyObject *loop, int fd, PyObject *events)
{
    PyObject *number = PyLong_FromLong(fd), *watcher = NULL;

    if (number != NULL) {
        PyObject *args[3] = {loop, number, events};
        watcher = PyObject_VectorcallMethod(st->s_io, args, 3, NULL);
        Py_DECREF(number);
    }
    return watcher;
}

/* Whether watchers made by this loop can be compared by their bytes. */
static int
is_known_loop(const cbase_state *st, PyObject *loop)
{
    return Py_IS_TYPE(loop, st->sockets->parts->loop_class);
}

static int
are_known(const cbase_state *st, PyObject *const *events)
{
    const PyTypeObject *io_class = st->sockets->parts->io_class;

    return Py_TYPE(events[0]) == io_class && Py_TYPE(events[1]) == io_class
           && size_of(events[0]) <= MAX_BYTES;
}

static void
remember(const cbase_state *st, PyObject *loop, int fd, PyObject *const *events)
{
    if (fd >= DESCRIPTORS || !are_known(st, events)) {
        return;
    }
    if (places[fd] == NULL) {
        places[fd] = PyMem_Calloc(1, sizeof(place));
        if (places[fd] == NULL) {
            return; // they will not be kept
        }
    }
    places[fd]->loop = loop;
    for (int i = 0; i < 2; i++) {
        places[fd]->born[i] = events[i];
        memcpy(places[fd]->bytes[i], bytes_of(events[i]), size_of(events[i]));
    }
}

static void
drop(place *p)
{
    if (p->kept[0] != NULL) {
        PyObject *dropped[2] = {p->kept[0], p->kept[1]};
        p->kept[0] = p->kept[1] = NULL;
        kept--;
        Py_DECREF(dropped[0]);
        Py_DECREF(dropped[1]);
    }
}

int
cbase_io_watchers_make(cbase_state *st, PyObject *loop, int fd, PyObject **events)
{
    int known = is_known_loop(st, loop);

    wanted = 1;
    if (known && fd < DESCRIPTORS && places[fd] != NULL && places[fd]->kept[0] != NULL) {
        place *p = places[fd];
        if (p->loop == loop) { // alive as long as the watchers
            events[0] = p->kept[0];
            events[1] = p->kept[1];
            p->kept[0] = p->kept[1] = NULL;
            kept--;
            return 0;
        }
        drop(p);
    }
    events[0] = new_watcher(st, loop, fd, st->one);
    events[1] = events[0] == NULL ? NULL : new_watcher(st, loop, fd, st->two);
    if (events[1] == NULL) {
        Py_CLEAR(events[0]);
        return -1;
    }
    if (known) {
        remember(st, loop, fd, events);
    }
    return 0;
}

/* Whether the bytes of a watcher are those that it was born with, or those after start(). It then
 * has the former. */
static int
is_idle(PyObject *watcher, const unsigned char *born)
{
    unsigned char *bytes = bytes_of(watcher);
    size_t size = size_of(watcher);

    if (memcmp(bytes, born, size) == 0) {
        return 1;
    }
    for (size_t i = 0; i < size; i++) {
        if (bytes[i] != (born[i] ^ left_by_start[i])) {
            return 0;
        }
    }
    memcpy(bytes, born, size);
    return 1;
}

/* Whether these are the watchers that were made last for a place, and idle. */
static int
are_idle(const place *p, PyObject *const *events)
{
    for (int i = 0; i < 2; i++) {
        if (events[i] != p->born[i] || Py_REFCNT(events[i]) != 1
            || !is_idle(events[i], p->bytes[i])) {
            return 0;
        }
    }
    return 1;
}

/* watcher.fd, or -1 */
static int
fd_of(cbase_state *st, PyObject *watcher)
{
    PyObject *number = PyObject_GetAttr(watcher, st->s_fd);
    long fd = number == NULL ? -1 : PyLong_AsLong(number);

    Py_XDECREF(number);
    PyErr_Clear();
    return fd < DESCRIPTORS ? (int)fd : -1;
}

int
cbase_io_watchers_keep(cbase_state *st, int fd, PyObject *const *events)
{
    if (!wanted || !are_known(st, events)) {
        return 0;
    }
    if (fd < 0) {
        fd = fd_of(st, events[0]);
    }
    if (fd < 0 || fd >= DESCRIPTORS || places[fd] == NULL || places[fd]->kept[0] != NULL
        || !are_idle(places[fd], events))
    {
        return 0;
    }
    for (int i = 0; i < 2; i++) {
        places[fd]->kept[i] = events[i];
    }
    kept++;
    return 1;
}

int
cbase_io_watchers_learn(cbase_state *st, PyObject *watcher)
{
    unsigned char before[MAX_BYTES], difference[MAX_BYTES] = {0};
    size_t size = size_of(watcher);
    int changed = 0;

    memset(left_by_start, 0, sizeof(left_by_start));
    if (size > MAX_BYTES) {
        return 0;
    }
    memcpy(before, bytes_of(watcher), size);
    PyObject *started = cbase_object_call_one(watcher, st->s_start, (PyObject *)&PyBool_Type);
    Py_XDECREF(started);
    if (started == NULL || cbase_object_run(watcher, st->s_stop) < 0) {
        return -1;
    }
    const unsigned char *after = bytes_of(watcher);
    for (size_t i = 0; i < size; i++) {
        difference[i] = before[i] ^ after[i];
        changed += difference[i] != 0;
    }
    if (changed == 1) { // the flag in its events
        memcpy(left_by_start, difference, sizeof(difference));
    }
    return 0;
}

void
cbase_io_watchers_drop(void)
{
    wanted = 0;
    for (int fd = 0; kept > 0 && fd < DESCRIPTORS; fd++) {
        if (places[fd] != NULL) {
            drop(places[fd]);
        }
    }
}

#endif
