/* HTTP requests, several at once, and how long each took.
 *
 * As much of HTTP as a server of one short text needs: the answer must be a 200 with a
 * Content-Length and fit into a slot's buffer.
 */
#include "load.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

/* One client. */
typedef struct slot {
    int fd;        // -1: has nothing more to do
    int64_t start; // when the request was begun, in ns
    size_t sent;   // of the request
    size_t got;    // of the answer
    int complete;  // the answer has been timed; what is left is the end of file
    char buffer[4096];
} slot;

typedef struct run {
    load_target target;
    const char *request; // borrowed from the arguments
    size_t size;
    int keep_alive;
    Py_ssize_t to_begin, done, count;
    double *seconds; // of each answer
    slot *slots;
    struct pollfd *polls;
    Py_ssize_t clients;
    const char *failure; // what went wrong; errno tells more
} run;

/* Sends what is left of the request. */
static int
send_on(run *r, slot *s, struct pollfd *p)
{
    ssize_t sent = send(s->fd, r->request + s->sent, r->size - s->sent, MSG_NOSIGNAL);
    if (sent < 0) {
        if (errno != EAGAIN && errno != ENOTCONN) {
            return load_fail(&r->failure, "sending a request", errno);
        }
        sent = 0;
    }
    s->sent += (size_t)sent;
    p->events = s->sent < r->size ? POLLOUT : POLLIN;
    return 0;
}

static int
begin(run *r, slot *s, struct pollfd *p)
{
    s->sent = s->got = 0;
    s->complete = 0;
    if (r->to_begin == 0) {
        if (s->fd >= 0) {
            close(s->fd);
        }
        s->fd = p->fd = -1;
        return 0;
    }
    r->to_begin--;
    s->start = load_now();
    if (s->fd < 0) {
        s->fd = p->fd = load_connect(&r->target, !r->keep_alive);
        if (s->fd < 0) {
            return load_fail(&r->failure, "connecting to the server", errno);
        }
    }
    return send_on(r, s, p);
}

/* 1: the answer is there, 0: not yet. */
static int
is_complete(run *r, slot *s)
{
    static const char ok[] = "HTTP/1.1 200", field[] = "\r\ncontent-length:";
    s->buffer[s->got] = '\0';
    char *body = strstr(s->buffer, "\r\n\r\n");
    if (body == NULL) {
        return 0;
    }
    if (strncmp(s->buffer, ok, sizeof(ok) - 1) != 0) {
        return load_fail(&r->failure, "an answer is not 200", EPROTO);
    }
    char *at = strcasestr(s->buffer, field);
    if (at == NULL || at > body) {
        return load_fail(&r->failure, "an answer has no Content-Length", EPROTO);
    }
    size_t length = strtoul(at + sizeof(field) - 1, NULL, 10);
    size_t got = s->got - (size_t)(body + 4 - s->buffer);
    if (got > length) {
        return load_fail(&r->failure, "an answer is too long", EPROTO);
    }
    return got == length;
}

static int
receive(run *r, slot *s, struct pollfd *p)
{
    ssize_t got = recv(s->fd, s->buffer + s->got, sizeof(s->buffer) - 1 - s->got, 0);
    if (got < 0) {
        return errno == EAGAIN ? 0 : load_fail(&r->failure, "receiving an answer", errno);
    }
    if (got == 0) {
        if (!s->complete || s->got == sizeof(s->buffer) - 1) {
            return load_fail(&r->failure, "an answer is incomplete or too long", EPROTO);
        }
        close(s->fd);
        s->fd = p->fd = -1;
        return begin(r, s, p);
    }
    s->got += (size_t)got;
    if (s->complete) {
        return load_fail(&r->failure, "an answer is too long", EPROTO);
    }
    int complete = is_complete(r, s);
    if (complete == 0 && r->target.family == AF_INET) {
        // a server that sends head and body apart would have the body wait for this
        const int on = 1;
        setsockopt(s->fd, IPPROTO_TCP, TCP_QUICKACK, &on, sizeof(on));
    }
    if (complete <= 0) {
        return complete;
    }
    s->complete = 1;
    r->seconds[r->done++] = (double)(load_now() - s->start) / 1e9;
    return r->keep_alive ? begin(r, s, p) : 0;
}

/* One wake-up: 0, or -1 with `failure`; 1 if it ended for a signal. */
static int
turn(run *r)
{
    int ready = poll(r->polls, (nfds_t)r->clients, LOAD_PATIENCE);
    if (ready < 0 && errno == EINTR) {
        return 1;
    }
    if (ready <= 0) {
        return load_fail(&r->failure, "the server does not answer", ready ? errno : ETIMEDOUT);
    }
    for (Py_ssize_t i = 0; i < r->clients; i++) {
        slot *s = &r->slots[i];
        struct pollfd *p = &r->polls[i];
        if (p->revents == 0 || s->fd < 0) {
            continue;
        }
        int failed = p->events == POLLOUT ? send_on(r, s, p) : receive(r, s, p);
        if (failed) {
            return -1;
        }
    }
    return 0;
}

/* Whether any client has something to do: after the last answer, to wait for the close. */
static int
is_busy(const run *r)
{
    for (Py_ssize_t i = 0; i < r->clients; i++) {
        if (r->slots[i].fd >= 0) {
            return 1;
        }
    }
    return 0;
}

static int
run_all(run *r)
{
    int failed = 0;
    for (Py_ssize_t i = 0; i < r->clients; i++) {
        r->slots[i].fd = r->polls[i].fd = -1;
    }
    for (Py_ssize_t i = 0; i < r->clients && !failed; i++) {
        failed = begin(r, &r->slots[i], &r->polls[i]);
    }
    while (!failed && is_busy(r)) {
        PyThreadState *thread = PyEval_SaveThread();
        for (int turns = 0; turns < 100 && !failed && is_busy(r); turns++) {
            failed = turn(r);
        }
        PyEval_RestoreThread(thread);
        if (failed >= 0) {
            failed = PyErr_CheckSignals() < 0 ? -1 : 0;
        }
    }
    if (failed && !PyErr_Occurred()) {
        load_failed(r->failure);
    }
    for (Py_ssize_t i = 0; i < r->clients; i++) {
        if (r->slots[i].fd >= 0) {
            close(r->slots[i].fd);
        }
    }
    return failed ? -1 : 0;
}

const char load_requests_doc[] =
    "requests(where, request, count, clients, keep_alive)\n--\n\n"
    "Send *count* HTTP requests, *clients* at once; return the seconds each took, as a list.\n\n"
    "where: a port of 127.0.0.1, or the path of a UNIX socket. request: bytes, which must ask\n"
    "for what keep_alive says. With keep_alive each client uses one connection; otherwise each\n"
    "request has its own, and its time includes connecting. Raises OSError.";

PyObject *
load_requests(PyObject *Py_UNUSED(module), PyObject *args)
{
    PyObject *where, *result = NULL;
    Py_ssize_t size;
    run r = {.request = NULL};
    if (!PyArg_ParseTuple(args, "Oy#nnp:requests", &where, &r.request, &size, &r.count, &r.clients,
                          &r.keep_alive)
        || load_target_from(where, &r.target) < 0)
    {
        return NULL;
    }
    if (size < 1 || r.count < 0 || r.clients < 1) {
        PyErr_SetString(PyExc_ValueError, "request, count or clients out of range");
        return NULL;
    }
    r.size = (size_t)size;
    r.to_begin = r.count;
    r.seconds = PyMem_New(double, (size_t)r.count + 1);
    r.slots = PyMem_New(slot, (size_t)r.clients);
    r.polls = PyMem_New(struct pollfd, (size_t)r.clients);
    if (r.seconds == NULL || r.slots == NULL || r.polls == NULL) {
        PyErr_NoMemory();
    }
    else if (run_all(&r) == 0) {
        result = load_list(r.seconds, r.done);
    }
    PyMem_Free(r.seconds);
    PyMem_Free(r.slots);
    PyMem_Free(r.polls);
    return result;
}
