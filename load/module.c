/* The module, and what all clients need. */
#include "load.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

int
load_failed(const char *what)
{
    int number = errno;
    PyObject *text = PyUnicode_FromFormat("%s: %s", what, strerror(number));
    if (text != NULL) {
        PyObject *exc = PyObject_CallFunction(PyExc_OSError, "iO", number, text);
        if (exc != NULL) {
            PyErr_SetObject((PyObject *)Py_TYPE(exc), exc);
            Py_DECREF(exc);
        }
        Py_DECREF(text);
    }
    return -1;
}

int
load_target_from(PyObject *where, load_target *target)
{
    memset(target, 0, sizeof(*target));
    if (PyLong_Check(where)) {
        struct sockaddr_in *address = (struct sockaddr_in *)&target->address;
        long port = PyLong_AsLong(where);
        if (port == -1 && PyErr_Occurred()) {
            return -1;
        }
        if (port < 1 || port > 65535) {
            PyErr_SetString(PyExc_ValueError, "port must be from 1 to 65535");
            return -1;
        }
        address->sin_family = AF_INET;
        address->sin_port = htons((uint16_t)port);
        address->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        target->family = AF_INET;
        target->length = sizeof(*address);
        return 0;
    }
    struct sockaddr_un *address = (struct sockaddr_un *)&target->address;
    Py_ssize_t size;
    const char *path = PyUnicode_AsUTF8AndSize(where, &size);
    if (path == NULL) {
        return -1;
    }
    if (size == 0 || (size_t)size >= sizeof(address->sun_path)) {
        PyErr_SetString(PyExc_ValueError, "path of a UNIX socket is empty or too long");
        return -1;
    }
    address->sun_family = AF_UNIX;
    memcpy(address->sun_path, path, (size_t)size);
    target->family = AF_UNIX;
    target->length = sizeof(*address);
    return 0;
}

static int
set_up(int fd, const load_target *target, int reset)
{
    if (target->family == AF_INET && reset) {
        const struct linger none = {.l_onoff = 1, .l_linger = 0};
        if (setsockopt(fd, SOL_SOCKET, SO_LINGER, &none, sizeof(none)) < 0) {
            return -1;
        }
    }
    if (connect(fd, (const struct sockaddr *)&target->address, target->length) < 0) {
        return errno == EINPROGRESS ? 0 : -1;
    }
    return 0;
}

int
load_connect(const load_target *target, int reset)
{
    int fd = socket(target->family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd >= 0 && set_up(fd, target, reset) < 0) {
        int number = errno;
        close(fd);
        errno = number;
        return -1;
    }
    return fd;
}

int
load_wait(int fd, short events)
{
    struct pollfd one = {.fd = fd, .events = events};
    for (;;) {
        int ready;
        PyThreadState *thread = PyEval_SaveThread();
        ready = poll(&one, 1, LOAD_PATIENCE);
        PyEval_RestoreThread(thread);
        if (ready > 0) {
            return 0;
        }
        if (ready == 0) {
            errno = ETIMEDOUT;
            return load_failed("the server does not answer");
        }
        if (errno != EINTR) {
            return load_failed("poll");
        }
        if (PyErr_CheckSignals() < 0) {
            return -1;
        }
    }
}

int
load_fail(const char **failure, const char *what, int number)
{
    *failure = what;
    errno = number;
    return -1;
}

int64_t
load_now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

PyObject *
load_list(const double *values, Py_ssize_t count)
{
    PyObject *list = PyList_New(count);
    for (Py_ssize_t i = 0; list != NULL && i < count; i++) {
        PyObject *value = PyFloat_FromDouble(values[i]);
        if (value == NULL) {
            Py_CLEAR(list);
            break;
        }
        PyList_SET_ITEM(list, i, value);
    }
    return list;
}

/* Processes */

static int cpu_time_fd; // where tell_cpu_time() writes

/* A signal handler. Whatever the process does, it has not to return to its event loop first. */
static void
write_cpu_time(int Py_UNUSED(number))
{
    int saved = errno;
    struct timespec used;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
    char text[24], *at = text + sizeof(text);
    int64_t left = (int64_t)used.tv_sec * 1000000000 + used.tv_nsec;
    *--at = '\n';
    do {
        *--at = (char)('0' + left % 10);
        left /= 10;
    } while (left > 0);
    ssize_t written = write(cpu_time_fd, at, (size_t)(text + sizeof(text) - at));
    (void)written; // who asks notices
    errno = saved;
}

PyDoc_STRVAR(tell_cpu_time_doc,
             "tell_cpu_time(signal, fd)\n--\n\n"
             "From now on write a line to the descriptor *fd* at each *signal*: the user and\n"
             "system time that this process has used, in ns. Raises OSError.\n\n"
             "Only the process itself knows it: to others it lags by up to a tick while it runs.");

static PyObject *
tell_cpu_time(PyObject *Py_UNUSED(module), PyObject *args)
{
    int number;
    struct sigaction action = {.sa_handler = write_cpu_time, .sa_flags = SA_RESTART};
    if (!PyArg_ParseTuple(args, "ii:tell_cpu_time", &number, &cpu_time_fd)) {
        return NULL;
    }
    if (sigaction(number, &action, NULL) < 0) {
        load_failed("sigaction");
        return NULL;
    }
    Py_RETURN_NONE;
}

PyDoc_STRVAR(die_with_parent_doc, "die_with_parent(pid)\n--\n\n"
                                  "Let this process be killed when its parent, pid, ends.");

static PyObject *
die_with_parent(PyObject *Py_UNUSED(module), PyObject *arg)
{
    long pid = PyLong_AsLong(arg);
    if (pid == -1 && PyErr_Occurred()) {
        return NULL;
    }
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0) {
        load_failed("prctl");
        return NULL;
    }
    if (getppid() != pid) { // it ended before
        raise(SIGKILL);
    }
    Py_RETURN_NONE;
}

static PyMethodDef functions[] = {
    {"connections", load_connections, METH_VARARGS, load_connections_doc},
    {"requests", load_requests, METH_VARARGS, load_requests_doc},
    {"echo", load_echo, METH_VARARGS, load_echo_doc},
    {"echo_once", load_echo_once, METH_VARARGS, load_echo_once_doc},
    {"accept_and_close", load_accept_and_close, METH_VARARGS, load_accept_and_close_doc},
    {"echo_server", load_echo_server, METH_VARARGS, load_echo_server_doc},
    {"tell_cpu_time", tell_cpu_time, METH_VARARGS, tell_cpu_time_doc},
    {"die_with_parent", die_with_parent, METH_O, die_with_parent_doc},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef_Slot slots[] = {
    {0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "gevent_cbase._load",
    .m_doc = "Clients and the raw servers of python -m gevent_cbase.bench.",
    .m_methods = functions,
    .m_slots = slots,
};

PyMODINIT_FUNC
PyInit__load(void)
{
    return PyModuleDef_Init(&definition);
}
