/* Bound methods that the connections of a batch share: one object fewer for each connection, and
 * with that, often, no run of the garbage collector for a batch.
 */
#include "cbase.h"

PyObject *
cbase_batch_method(cbase_state *st, int which, PyObject *function, PyObject *self)
{
    PyObject *method = st->bound[which];

    if (method != NULL && PyMethod_GET_FUNCTION(method) == function
        && PyMethod_GET_SELF(method) == self)
    {
        return Py_NewRef(method);
    }
    method = PyMethod_New(function, self);
    if (method != NULL) {
        Py_XSETREF(st->bound[which], Py_NewRef(method)); // which may run anything
    }
    return method;
}

void
cbase_batch_drop_methods(cbase_state *st)
{
    for (int i = 0; i < CBASE_BATCH_METHODS; i++) {
        Py_CLEAR(st->bound[i]);
    }
}
