/* Short connections.
 *
 * The server under test shall never wait for the clients, however fast it is. So it is stopped
 * while a burst of connections is made (the system completes them without it), and then runs
 * alone until it has closed the last of them. The clients close at once, or, if they shall wait,
 * after the server's close; with a reset, so that no connection stays behind in TIME_WAIT. If
 * they close at once, the last one of a burst waits all the same, as its close ends the burst.
 */
#include "load.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

/* Stops the child process `pid`; returns when it stands. */
static int
hold(pid_t pid)
{
    if (kill(pid, SIGSTOP) < 0) {
        return load_failed("stopping the server");
    }
    siginfo_t info;
    int done;
    do {
        PyThreadState *thread = PyEval_SaveThread();
        done = waitid(P_PID, (id_t)pid, &info, WSTOPPED | WEXITED | WNOWAIT);
        PyEval_RestoreThread(thread);
    } while (done < 0 && errno == EINTR && PyErr_CheckSignals() == 0);
    if (PyErr_Occurred()) {
        return -1;
    }
    if (done < 0) {
        return load_failed("waiting for the server");
    }
    if (info.si_code != CLD_STOPPED) {
        errno = ECHILD;
        return load_failed("the server has ended");
    }
    return 0;
}

/* 0 or errno of the first failure; `fds` gets -1 where there is no connection. */
static int
connect_all(const load_target *target, int *fds, Py_ssize_t count)
{
    int failure = 0;
    for (Py_ssize_t i = 0; i < count; i++) {
        fds[i] = failure ? -1 : load_connect(target, 1);
        if (fds[i] < 0 && failure == 0) {
            failure = errno;
        }
    }
    return failure;
}

static void
close_all(int *fds, Py_ssize_t count)
{
    for (Py_ssize_t i = 0; i < count; i++) {
        if (fds[i] >= 0) {
            close(fds[i]);
        }
    }
}

/* Waits for the server's close of each. The last one first, so that the client is not woken
 * for each connection: that would be work for the server's processor. */
static int
await_all(const int *fds, Py_ssize_t count)
{
    for (Py_ssize_t i = count; i-- > 0;) {
        char byte;
        ssize_t got = recv(fds[i], &byte, 1, 0);
        while (got < 0 && (errno == EAGAIN || errno == EINTR || errno == ENOTCONN)) {
            if (load_wait(fds[i], POLLIN) < 0) {
                return -1;
            }
            got = recv(fds[i], &byte, 1, 0);
        }
        if (got > 0) {
            errno = EPROTO;
            return load_failed("the server has sent something");
        }
        if (got < 0) {
            return load_failed("a connection to the server");
        }
    }
    return PyErr_CheckSignals();
}

static int
burst(const load_target *target, pid_t pid, int *fds, Py_ssize_t count, int wait)
{
    int failure;
    if (hold(pid) < 0) {
        kill(pid, SIGCONT);
        return -1;
    }
    PyThreadState *thread = PyEval_SaveThread();
    failure = connect_all(target, fds, count);
    Py_ssize_t gone = wait || failure ? 0 : count - 1;
    close_all(fds, gone);
    PyEval_RestoreThread(thread);
    kill(pid, SIGCONT);
    int result;
    if (failure) {
        errno = failure;
        result = load_failed("connecting to the server");
    }
    else {
        result = await_all(fds + gone, count - gone);
    }
    thread = PyEval_SaveThread();
    close_all(fds + gone, count - gone);
    PyEval_RestoreThread(thread);
    return result;
}

const char load_connections_doc[] =
    "connections(where, pid, count, burst, wait)\n--\n\n"
    "Make *count* connections; *wait* for the server's close of each, or close them at once.\n\n"
    "where: a port of 127.0.0.1, or the path of a UNIX socket. The server, the child process\n"
    "pid, is stopped while *burst* connections are made, so its backlog must be that large.\n"
    "Raises OSError if a connection ends otherwise.";

PyObject *
load_connections(PyObject *Py_UNUSED(module), PyObject *args)
{
    PyObject *where;
    int pid, wait;
    Py_ssize_t count, size;
    load_target target;
    if (!PyArg_ParseTuple(args, "Oinnp:connections", &where, &pid, &count, &size, &wait)
        || load_target_from(where, &target) < 0)
    {
        return NULL;
    }
    if (pid < 2 || count < 0 || size < 1) {
        PyErr_SetString(PyExc_ValueError, "pid, count or burst out of range");
        return NULL;
    }
    int *fds = PyMem_New(int, (size_t)size);
    if (fds == NULL) {
        return PyErr_NoMemory();
    }
    int result = 0;
    while (result == 0 && count > 0) {
        Py_ssize_t now = count < size ? count : size;
        result = burst(&target, (pid_t)pid, fds, now, wait);
        count -= now;
    }
    PyMem_Free(fds);
    return result < 0 ? NULL : Py_NewRef(Py_None);
}
