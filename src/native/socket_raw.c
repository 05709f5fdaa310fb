/* CPython's socket object inside a gevent socket, used again for the next client.
 *
 * When the socket is closed, nothing is left in the object but what a new one has as well, and the
 * fields that accepting sets anyway. So one that nobody else refers to is kept instead of freed.
 * What is freed otherwise would do nothing but that: it has no descriptor to warn about.
 *
 * As with io watchers, it is dropped whenever a server closes, and none is kept until a server
 * accepts again. There is never more than one.
 *
 * CAUTION: takes for granted that the object has no other fields than these. That is checked by
 * its size, and watched by tests/native/steps/test_raw_sockets.py.
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

static PyObject *kept; // owned; or NULL
static int wanted;     // whether a client was accepted since all was dropped

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

void
cbase_socket_raw_drop(void)
{
    wanted = 0;
    Py_CLEAR(kept);
}

#endif
