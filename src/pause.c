/* Pauses of the accept loop: back-off after errors, and polling of a full pool. */
#include "cbase.h"

/* self._timer = self.loop.timer(delay); self._timer.start(self._start_accepting_if_started)
 * `delay` NULL: self.delay. */
static int
start_timer(cbase_state *st, PyObject *self, PyObject *delay)
{
    PyObject *loop = PyObject_GetAttr(self, st->s_loop);
    PyObject *make = NULL, *timer = NULL, *resume = NULL, *started = NULL;
    int result = -1;

    if (loop == NULL) {
        return -1;
    }
    make = PyObject_GetAttr(loop, st->s_timer);
    Py_DECREF(loop);
    delay =
        make == NULL || delay != NULL ? Py_XNewRef(delay) : PyObject_GetAttr(self, st->s_delay);
    if (make == NULL || delay == NULL) {
        goto done;
    }
    timer = PyObject_CallOneArg(make, delay);
    if (timer == NULL || PyObject_SetAttr(self, st->s__timer, timer) < 0) {
        goto done;
    }
    Py_SETREF(timer, PyObject_GetAttr(self, st->s__timer));
    if (timer == NULL) {
        goto done;
    }
    resume = PyObject_GetAttr(self, st->s__start_accepting_if_started);
    if (resume == NULL) {
        goto done;
    }
    started = cbase_call_one(timer, st->s_start, resume);
    if (started != NULL) {
        cbase_stats_pause(st, self, CBASE_BACKOFF);
        result = 0;
    }
done:
    Py_XDECREF(started);
    Py_XDECREF(resume);
    Py_XDECREF(timer);
    Py_XDECREF(delay);
    Py_XDECREF(make);
    return result;
}

/* self.delay = min(self.max_delay, self.delay * 2) */
static int
double_delay(cbase_state *st, PyObject *self)
{
    PyObject *limit = PyObject_GetAttr(self, st->s_max_delay);
    PyObject *delay = NULL, *doubled = NULL;
    int result = -1;

    if (limit == NULL) {
        return -1;
    }
    delay = PyObject_GetAttr(self, st->s_delay);
    if (delay == NULL) {
        goto done;
    }
    doubled = PyNumber_Multiply(delay, st->two);
    if (doubled == NULL) {
        goto done;
    }
    int less = PyObject_RichCompareBool(doubled, limit, Py_LT);
    if (less >= 0) {
        result = PyObject_SetAttr(self, st->s_delay, less ? doubled : limit);
    }
done:
    Py_XDECREF(doubled);
    Py_XDECREF(delay);
    Py_DECREF(limit);
    return result;
}

/* self.delay >= 0: 1, 0 or -1. */
static int
pauses(cbase_state *st, PyObject *self)
{
    PyObject *delay = PyObject_GetAttr(self, st->s_delay);

    if (delay == NULL) {
        return -1;
    }
    int result = PyObject_RichCompareBool(delay, st->zero, Py_GE);
    Py_DECREF(delay);
    return result;
}

static int
pause_for_delay(cbase_state *st, PyObject *self)
{
    return start_timer(st, self, NULL) < 0 ? -1 : double_delay(st, self);
}

int
cbase_pause(cbase_state *st, PyObject *self)
{
    int pause = pauses(st, self);

    if (pause <= 0) {
        return pause;
    }
    if (cbase_run(self, st->s_stop_accepting) < 0) {
        return -1;
    }
    return pause_for_delay(st, self);
}

int
cbase_resume_later(cbase_state *st, PyObject *self)
{
    int pause = pauses(st, self);

    if (pause < 0) {
        return -1;
    }
    return pause ? pause_for_delay(st, self) : cbase_run(self, st->s_start_accepting);
}

/* What the server needs so that accepting goes on, where anything about it may be broken. */
static int
pause_somehow(cbase_state *st, PyObject *self)
{
    PyObject *started = PyObject_GetAttr(self, st->s_started);

    if (started == NULL) {
        return -1;
    }
    int result = PyObject_IsTrue(started);
    Py_DECREF(started);
    if (result <= 0) {
        return result;
    }
    if (cbase_run(self, st->s_stop_accepting) < 0) {
        return -1;
    }
    int pause = pauses(st, self);
    if (pause >= 0 && start_timer(st, self, pause ? NULL : st->zero) == 0) {
        return 0;
    }
    PyErr_Clear(); // a server whose delay is of no use waits a second
    return start_timer(st, self, st->one);
}

void
cbase_never_deaf(cbase_state *st, PyObject *self)
{
    if (PyErr_ExceptionMatches(st->GreenletExit)) {
        return; // the hub itself is being ended
    }
    PyObject *raised = compat_get_raised();
    if (pause_somehow(st, self) < 0) {
        PyErr_WriteUnraisable(self);
    }
    compat_set_raised(raised);
}
