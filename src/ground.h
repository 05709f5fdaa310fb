/* What lies on the ground, beside the storeys: each of these files knows CPython alone. */
#ifndef CBASE_GROUND_H
#define CBASE_GROUND_H

#include "python/python.h"

/* datastack.c: the cache of data-stack chunks */
extern PyMethodDef cbase_datastack_functions[];
/* run.c: for python -m gevent_cbase */
extern PyMethodDef cbase_run_functions[];

#endif
