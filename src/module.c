/* The extension module gevent_cbase._cbase: its tables, its constants and the order of start-up.
 *
 * May know everybody; nobody knows it.
 */
#include "ground.h"
#include "server/server.h"

static int
intern_names(cbase_state *st)
{
#define X(name)                                                                                   \
    if ((st->s_##name = PyUnicode_InternFromString(#name)) == NULL) {                             \
        return -1;                                                                                \
    }
    CBASE_NAMES(X)
#undef X
    st->s_default = PyUnicode_InternFromString("default");
    return st->s_default == NULL ? -1 : 0;
}

static PyObject *
slice(PyObject *start, long stop)
{
    PyObject *end = stop == 0 ? Py_NewRef(Py_None) : PyLong_FromLong(stop);
    PyObject *result = end == NULL ? NULL : PySlice_New(start, end, Py_None);

    Py_XDECREF(end);
    return result;
}

static int
make_constants(cbase_state *st)
{
    return (st->zero = PyLong_FromLong(0)) == NULL || (st->one = PyLong_FromLong(1)) == NULL
                   || (st->two = PyLong_FromLong(2)) == NULL
                   || (st->all_but_first = slice(st->one, 0)) == NULL
                   || (st->between_ends = slice(st->one, -1)) == NULL
                   || (st->address_any = PyUnicode_FromString("")) == NULL
                   || (st->no_args = PyTuple_New(0)) == NULL
                   || (st->kw_timeout = PyTuple_Pack(1, st->s_timeout)) == NULL
                   || (st->kw_blocking_timeout = PyTuple_Pack(2, st->s_blocking, st->s_timeout))
                          == NULL
                   || (st->kw_block_timeout = PyTuple_Pack(2, st->s_block, st->s_timeout)) == NULL
               ? -1
               : 0;
}

static int
import_gevent(cbase_state *st)
{
    return (st->Event = cbase_object_imported("gevent.event", "Event")) == NULL
                   || (st->Greenlet = cbase_object_imported("gevent.greenlet", "Greenlet")) == NULL
                   || (st->get_hub = cbase_object_imported("gevent.hub", "get_hub")) == NULL
                   || (st->GreenletExit = cbase_object_imported("greenlet", "GreenletExit"))
                          == NULL
                   || (st->family_inet = cbase_object_imported("_socket", "AF_INET")) == NULL
                   || (st->family_inet6 = cbase_object_imported("_socket", "AF_INET6")) == NULL
                   || (st->sys = PyImport_ImportModule("sys")) == NULL
               ? -1
               : 0;
}

static PyMethodDef *const functions[] = {
    cbase_datastack_functions,      cbase_run_functions,          cbase_premises_functions,
    cbase_socket_accept_functions,  cbase_socket_close_functions, cbase_socket_io_functions,
    cbase_function_calls_functions, cbase_pool_spawn_functions,   cbase_greenlet_functions,
    cbase_parse_address_functions,  cbase_hooks_functions,        cbase_handover_functions,
    cbase_counters_functions,       cbase_taken_functions,        cbase_class_functions,
    cbase_lifecycle_functions,      cbase_accept_loop_functions,  cbase_repr_functions,
};

static int
module_exec(PyObject *module)
{
    cbase_state *st = cbase_module_state(module);

    /* Greenlets with server methods on their stack may outlive the interpreter's clean-up of
     * modules: the module, and with it all that the state owns, is never freed. */
    Py_INCREF(module);
    if (cbase_class_stamp_init() < 0 || intern_names(st) < 0 || make_constants(st) < 0
        || import_gevent(st) < 0)
    {
        return -1;
    }
    for (size_t i = 0; i < Py_ARRAY_LENGTH(functions); i++) {
        if (PyModule_AddFunctions(module, functions[i]) < 0) {
            return -1;
        }
    }
    cbase_dict_stamp_init();
    if (cbase_premises_init(st) < 0 || cbase_hub_init(st) < 0 || cbase_batch_init(st) < 0
        || cbase_greenlet_init(st) < 0 || cbase_pool_spawn_init(st) < 0
        || cbase_socket_accept_init(st) < 0 || cbase_socket_io_init(st) < 0
        || cbase_io_wait_init(module, st) < 0 || cbase_function_calls_init(module) < 0
        || cbase_hooks_init(st) < 0 || cbase_lifecycle_init(st) < 0 || cbase_handover_init(st) < 0
        || cbase_class_init(st) < 0 || cbase_counters_init(module, st) < 0)
    {
        return -1;
    }
    return 0;
}

static PyModuleDef_Slot module_slots[] = {
    {Py_mod_exec, module_exec},
#ifdef Py_mod_multiple_interpreters
    {Py_mod_multiple_interpreters, Py_MOD_MULTIPLE_INTERPRETERS_NOT_SUPPORTED},
#endif
    {0, NULL},
};

static struct PyModuleDef module_def = {
    .m_base = PyModuleDef_HEAD_INIT,
    .m_name = "gevent_cbase._cbase",
    .m_doc = PyDoc_STR("gevent.baseserver in C; use gevent_cbase.baseserver."),
    .m_size = sizeof(cbase_state),
    .m_slots = module_slots,
};

PyMODINIT_FUNC
PyInit__cbase(void)
{
    return PyModuleDef_Init(&module_def);
}
