/* Pauses of the accept loop: back-off after errors as EMFILE, and polling of a full pool.
 *
 * Does not know what has failed, but for a lack of memory: then the timer for a pause may fail
 * too.
 */
#include "server/server.h"

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
    started = cbase_object_call_one(timer, st->s_start, resume);
    if (started != NULL) {
        cbase_counters_pause(st, self, CBASE_BACKOFF);
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
cbase_backoff_pause(cbase_state *st, PyObject *self)
{
    int pause = pauses(st, self);

    if (pause <= 0) {
        return pause;
    }
    if (cbase_object_run(self, st->s_stop_accepting) < 0) {
        return -1;
    }
    return pause_for_delay(st, self);
}

int
cbase_backoff_resume_later(cbase_state *st, PyObject *self)
{
    int pause = pauses(st, self);

    if (pause < 0) {
        return -1;
    }
    return pause ? pause_for_delay(st, self) : cbase_object_run(self, st->s_start_accepting);
}

/* ---- never deaf ---- */

#define ATTEMPTS 30 /* while there is no memory */

/* Whether a watcher that was closed can be started again. CAUTION: so it is in gevent's libev
 * loop in C, not in the others; watched by test_no_memory_for_a_pause.
 *
 * A spare one would be of no use there, as to start it takes memory, and one that always runs
 * wakes the process up for nothing. A timer that is started before the former watcher is stopped
 * would change the order of gevent's calls, and may be over when stop_accepting() returns. */
static int
is_reusable(PyObject *watcher)
{
    static const char module[] = "gevent.libev.corecext.";

    return watcher != NULL && strncmp(Py_TYPE(watcher)->tp_name, module, strlen(module)) == 0;
}

void
cbase_backoff_waker_take(cbase_state *st, PyObject *self, PyObject *attr,
                         cbase_backoff_waker *waker)
{
    PyObject *raised = compat_get_raised();

    *waker = (cbase_backoff_waker){.attr = attr};
    if (cbase_instance_dict_get(st, self, attr, &waker->watcher) < 0
        || (is_reusable(waker->watcher)
            && compat_get_optional(waker->watcher, st->s_callback, &waker->callback) < 0))
    {
        PyErr_Clear(); // there is no last resort
    }
    compat_restore_raised(raised);
}

void
cbase_backoff_waker_drop(cbase_backoff_waker *waker)
{
    Py_CLEAR(waker->watcher);
    Py_CLEAR(waker->callback);
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
    if (cbase_object_run(self, st->s_stop_accepting) < 0) {
        return -1;
    }
    int pause = pauses(st, self);
    if (pause >= 0 && start_timer(st, self, pause ? NULL : st->zero) == 0) {
        return 0;
    }
    if (PyErr_ExceptionMatches(PyExc_MemoryError)) {
        return -1;
    }
    PyErr_Clear(); // a server whose delay is of no use waits a second
    return start_timer(st, self, st->one);
}

/* Start again what has called the server, which takes no memory: 1 if that is done or needless,
 * or 0. */
static int
call_again(cbase_state *st, PyObject *self, cbase_backoff_waker *waker)
{
    if (waker->callback == NULL || waker->callback == Py_None) {
        return 0;
    }
    int open = cbase_object_dict_has(self, st->s_socket);
    PyObject *started =
        open > 0 ? cbase_object_call_one(waker->watcher, st->s_start, waker->callback) : NULL;
    int set = started != NULL && PyObject_SetAttr(self, waker->attr, waker->watcher) == 0;
    PyErr_Clear();
    Py_XDECREF(started);
    return set;
}

int
cbase_backoff_never_deaf(cbase_state *st, PyObject *self, cbase_backoff_waker *waker)
{
    if (PyErr_ExceptionMatches(st->GreenletExit)) {
        return 0; // the hub itself is being ended
    }
    PyObject *raised = compat_get_raised();
    int result = pause_somehow(st, self);
    for (int i = 1; i < ATTEMPTS && result < 0 && PyErr_ExceptionMatches(PyExc_MemoryError); i++) {
        PyErr_Clear();
        result = pause_somehow(st, self);
    }
    if (result == 0) {
        compat_set_raised(raised);
        return 0;
    }
    int called = 0;
    if (PyErr_ExceptionMatches(PyExc_MemoryError)) {
        PyObject *second = compat_get_raised();
        called = call_again(st, self, waker);
        compat_set_raised(second);
    }
    PyErr_WriteUnraisable(self);
    compat_set_raised(raised);
    if (called) {
        PyErr_WriteUnraisable(self); // the event loop would stop what raises
    }
    return called;
}

int
cbase_backoff_no_memory(cbase_state *st, PyObject *self, cbase_backoff_waker *waker)
{
    return PyErr_ExceptionMatches(PyExc_MemoryError) && cbase_backoff_never_deaf(st, self, waker);
}

int
cbase_backoff_go_on(cbase_state *st, PyObject *self, PyObject *attr)
{
    cbase_backoff_waker waker;

    cbase_backoff_waker_take(st, self, attr, &waker);
    int dealt_with = cbase_backoff_no_memory(st, self, &waker);
    cbase_backoff_waker_drop(&waker);
    return dealt_with ? 0 : -1;
}
