/* CPython 3.10: when the version tags of classes have begun again.
 *
 * sys._clear_type_cache() takes the tags of all classes away. One of them is a class of ours that
 * nobody ever looks an attribute up on, so that it gets no new one: when its tag is gone, a new
 * epoch begins, and no stamp of an earlier one is valid. Its metaclass sees to it that even who
 * looks into all subclasses of object gives it none.
 *
 * Does not know any other class.
 */
#include "python/python.h"

#if PY_VERSION_HEX < 0x030B0000

PyTypeObject *cbase_class_stamp_epoch_class; // owned, never freed
unsigned int cbase_class_stamp_epoch;

/* Attributes of the class, without giving it a tag. */
static PyObject *
epoch_getattr(PyObject *cls, PyObject *name)
{
    (void)cls;
    return PyObject_GetAttr((PyObject *)&PyBaseObject_Type, name);
}

static PyType_Slot epoch_slots[] = {
    {Py_tp_getattro, epoch_getattr},
    {0, NULL},
};

static PyType_Spec epoch_spec = {
    .name = "gevent_cbase._cbase._EpochType",
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = epoch_slots,
};

void
cbase_class_stamp_epoch_begin(void)
{
    PyObject *name = PyUnicode_InternFromString("__init__");
    PyObject *found =
        name == NULL ? NULL
                     : PyType_Type.tp_getattro((PyObject *)cbase_class_stamp_epoch_class, name);

    PyErr_Clear(); // then each stamp is of an epoch of its own
    Py_XDECREF(found);
    Py_XDECREF(name);
    cbase_class_stamp_epoch++;
}

int
cbase_class_stamp_init(void)
{
    if (cbase_class_stamp_epoch_class != NULL) {
        return 0;
    }
    PyObject *bases = PyTuple_Pack(1, (PyObject *)&PyType_Type);
    PyObject *metaclass = bases == NULL ? NULL : PyType_FromSpecWithBases(&epoch_spec, bases);

    if (metaclass != NULL) {
        cbase_class_stamp_epoch_class =
            (PyTypeObject *)PyObject_CallFunction(metaclass, "s(){}", "_Epoch");
    }
    Py_XDECREF(metaclass);
    Py_XDECREF(bases);
    return cbase_class_stamp_epoch_class == NULL ? -1 : 0;
}

#else

int
cbase_class_stamp_init(void)
{
    return 0;
}

#endif
