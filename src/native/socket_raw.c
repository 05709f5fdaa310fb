/* What a gevent socket has inside, used again for the next client: CPython's socket object, and
 * after closing the object that stands for it.
 *
 * When the socket is closed, nothing is left in CPython's object but what a new one has as well,
 * and the fields that accepting sets anyway. So one that nobody else refers to is kept instead of
 * freed. What is freed otherwise would do nothing but that: it has no descriptor to warn about.
 *
 * The object that takes its place belongs to the socket until that is freed. So there is one
 * reference more to the last one, and once that is the only one, the next closed socket gets it.
 * Only where a server closes: a handler that closes may look at it, and put anything into it.
 *
 * As with io watchers, they are dropped whenever a server closes, and none is kept until a server
 * accepts again. There is never more than one of each.
 *
 * CAUTION: takes for granted that CPython's object has no other fields than these. That is checked
 * by its size, and watched by tests/native/steps/test_raw_sockets.py.
 *
 * Does not know who closes.
 */
#include "native/socket.h"

#ifdef CBASE_HAVE_SOCKETS

/* All of PySocketSockObject: from 3.12 on, with the state of its module behind it. */
#if PY_VERSION_HEX >= 0x030C0000
#define SIZE_OF_RAW (sizeof(raw_socket) + sizeof(void *))
#else
#define SIZE_OF_RAW sizeof(raw_socket)
#endif

static PyObject *kept;        // owned; or NULL
static PyObject *last_closed; // owned, perhaps by a closed socket, too; or NULL
static int wanted;            // whether a client was accepted since all was dropped

PyObject *
cbase_socket_raw_new(cbase_state *st, PyTypeObject *type)
{
    PyObject *raw = kept;

    wanted = 1;
    if (raw != NULL && Py_IS_TYPE(raw, type)) {
        kept = NULL;
        return raw;
    }
    return type->tp_new(type, st->no_args, NULL);
}

/* Whether instances of gevent's class have what CPython's have, a list of weak references, and
 * nothing else; and whether nothing else is run when they are freed. */
static int
is_known_class(const cbase_socket_parts *s)
{
    const PyTypeObject *type = s->raw, *base = s->base_class;

    return base->tp_basicsize == (Py_ssize_t)SIZE_OF_RAW && type->tp_dictoffset == 0
           && type->tp_finalize == base->tp_finalize && type->tp_del == NULL;
}

void
cbase_socket_raw_release(const cbase_socket_parts *s, PyObject *raw)
{
    if (wanted && kept == NULL && Py_REFCNT(raw) == 1 && Py_IS_TYPE(raw, s->raw)
        && ((raw_socket *)raw)->fd == -1 && is_known_class(s)
        && (s->raw->tp_weaklistoffset == 0 || *slot(raw, s->raw->tp_weaklistoffset) == NULL))
    {
        kept = raw;
    }
    else {
        Py_DECREF(raw);
    }
}

/* Whether instances of the class have nothing but slots, and nothing is run when they are freed.
 */
static int
has_only_slots(const PyTypeObject *type)
{
    return type->tp_dictoffset == 0 && type->tp_weaklistoffset == 0 && type->tp_finalize == NULL
           && type->tp_del == NULL;
}

PyObject *
cbase_socket_raw_new_closed(const cbase_socket_parts *s)
{
    PyObject *closed = last_closed;

    if (closed != NULL && Py_REFCNT(closed) == 1 && Py_IS_TYPE(closed, s->closed_socket)
        && has_only_slots(s->closed_socket))
    {
        return Py_NewRef(closed);
    }
    closed = s->closed_socket->tp_alloc(s->closed_socket, 0);
    if (closed != NULL && wanted) {
        Py_XSETREF(last_closed, Py_NewRef(closed)); // which may run anything
    }
    return closed;
}

void
cbase_socket_raw_drop(void)
{
    wanted = 0;
    Py_CLEAR(kept);
    Py_CLEAR(last_closed);
}

#endif
