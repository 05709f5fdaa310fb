/* What the connections of a batch share: bound methods, and the hub. One object fewer for each
 * connection, and with that, often, no run of the garbage collector for a batch.
 *
 * Does not know what a batch is for: whoever begins one, ends it.
 */
#include "native/native.h"

struct cbase_batch_state {
    PyObject *method[CBASE_BATCH_METHODS]; // owned; or NULL
};

int
cbase_batch_init(cbase_state *st)
{
    st->batch = cbase_state_new(sizeof(*st->batch));
    return st->batch == NULL ? -1 : 0;
}

PyObject *
cbase_batch_method(cbase_state *st, int which, PyObject *function, PyObject *self)
{
    PyObject **place = &st->batch->method[which];
    PyObject *method = *place;

    if (method != NULL && PyMethod_GET_FUNCTION(method) == function
        && PyMethod_GET_SELF(method) == self)
    {
        return Py_NewRef(method);
    }
    method = PyMethod_New(function, self);
    if (method != NULL) {
        Py_XSETREF(*place, Py_NewRef(method)); // which may run anything
    }
    return method;
}

void
cbase_batch_end(cbase_state *st)
{
    for (int i = 0; i < CBASE_BATCH_METHODS; i++) {
        Py_CLEAR(st->batch->method[i]);
    }
    cbase_hub_drop(st);
}
