/* Echo: messages that the server sends back, and how long each took.
 *
 * Either on connections that are kept, with some messages under way on each, or with a pause after
 * each answer; datagrams too. Or one message a connection, which the server closes.
 */
#include "load.h"

#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>

#define MAX_DEPTH 16
#define EVENTS    256 // of one wake-up

typedef struct client {
    int fd;                    // -1: has nothing more to do
    uint32_t events;           // that epoll waits for; 0: it does not know fd
    Py_ssize_t left;           // messages to begin
    size_t unsent;             // bytes of the messages begun
    size_t got;                // bytes of the next answer
    int underway;              // begun and not answered
    int first;                 // of `starts`
    int64_t starts[MAX_DEPTH]; // of those under way, in ns
    int64_t due;               // when the pause ends
} client;

typedef struct run {
    load_target target;
    const char *message; // borrowed from the arguments
    size_t size;
    char *messages; // `depth` times the message
    int once;       // one message a connection
    int datagram;   // what is received is a whole message
    int depth;      // messages under way on a connection
    int64_t pause;
    Py_ssize_t done, count;
    double *seconds; // of each answer
    char *buffer;    // one byte longer than `messages`
    client *clients;
    Py_ssize_t number;
    client **pausing; // a ring, by `due`
    Py_ssize_t pausing_first, pausing_count;
    int epoll, timer;
    const char *failure; // what went wrong; errno tells more
} run;

static int
watch(run *r, client *c, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.ptr = c};
    if (c->events == events) {
        return 0;
    }
    int what = c->events ? EPOLL_CTL_MOD : EPOLL_CTL_ADD;
    c->events = events;
    return epoll_ctl(r->epoll, what, c->fd, &event) < 0
               ? load_fail(&r->failure, "epoll_ctl", errno)
               : 0;
}

static void
begin(const run *r, client *c)
{
    c->left--;
    c->unsent += r->size;
    c->starts[(c->first + c->underway++) % MAX_DEPTH] = load_now();
}

/* Begins as many messages as may be under way, and sends as much as it can at once. */
static int
send_on(run *r, client *c)
{
    while (c->left > 0 && c->underway < r->depth) {
        begin(r, c);
    }
    while (c->unsent > 0) {
        size_t begun = c->unsent % r->size; // what is left of a message sent in part
        const char *from = r->messages + (begun ? r->size - begun : 0);
        ssize_t sent =
            send(c->fd, from, r->datagram ? r->size : c->unsent, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent < 0) {
            if (errno == EAGAIN || errno == ENOTCONN) {
                return watch(r, c, EPOLLIN | EPOLLOUT);
            }
            return load_fail(&r->failure, "sending a message", errno);
        }
        c->unsent -= (size_t)sent;
    }
    return watch(r, c, EPOLLIN);
}

static int
open_next(run *r, client *c)
{
    if (c->left == 0) {
        return 0;
    }
    begin(r, c);
    c->fd = load_connect(&r->target, 1);
    return c->fd < 0 ? load_fail(&r->failure, "connecting to the server", errno) : send_on(r, c);
}

/* The pauses. As all are of one length, they end in the order in which they begin. */

static int
set_timer(run *r)
{
    int64_t due = r->pausing[r->pausing_first]->due;
    struct itimerspec when = {.it_value = {due / 1000000000, due % 1000000000}};
    if (timerfd_settime(r->timer, TFD_TIMER_ABSTIME, &when, NULL) < 0) {
        return load_fail(&r->failure, "timerfd_settime", errno);
    }
    return 0;
}

static int
begin_pause(run *r, client *c, int64_t due)
{
    c->due = due;
    r->pausing[(r->pausing_first + r->pausing_count++) % r->number] = c;
    return r->pausing_count == 1 ? set_timer(r) : 0;
}

static int
end_pauses(run *r)
{
    uint64_t expired;
    if (read(r->timer, &expired, sizeof(expired)) < 0 && errno != EAGAIN) {
        return load_fail(&r->failure, "reading a timer", errno);
    }
    while (r->pausing_count > 0) {
        client *c = r->pausing[r->pausing_first];
        if (c->due > load_now()) {
            return set_timer(r);
        }
        r->pausing_first = (r->pausing_first + 1) % r->number;
        r->pausing_count--;
        if (send_on(r, c) < 0) {
            return -1;
        }
    }
    return 0;
}

/* The answers */

/* The answer that `c` has waited for longest is there. */
static void
take_time(run *r, client *c)
{
    r->seconds[r->done++] = (double)(load_now() - c->starts[c->first]) / 1e9;
    c->first = (c->first + 1) % MAX_DEPTH;
    c->underway--;
}

static int
end_of_file(run *r, client *c)
{
    if (!r->once || c->got < r->size) {
        return load_fail(&r->failure, "the server has closed a connection", EPROTO);
    }
    close(c->fd);
    c->fd = -1;
    c->events = 0;
    c->got = 0;
    take_time(r, c);
    return open_next(r, c);
}

static int
receive(run *r, client *c)
{
    size_t whole = r->size * (size_t)(r->datagram ? c->underway > 0 : c->underway);
    size_t room = whole - c->got;
    size_t limit = r->datagram || room == 0 ? room + 1 : room; // anything more is noticed
    ssize_t got = recv(c->fd, r->buffer, limit, MSG_DONTWAIT);
    if (got < 0) {
        return errno == EAGAIN ? 0 : load_fail(&r->failure, "receiving an answer", errno);
    }
    if (got == 0 && !r->datagram) {
        return end_of_file(r, c);
    }
    if ((size_t)got > room || (r->datagram && (size_t)got < room)
        || memcmp(r->buffer, r->messages + c->got, (size_t)got) != 0)
    {
        return load_fail(&r->failure, "an answer is not what was sent", EPROTO);
    }
    c->got += (size_t)got;
    if (c->got < r->size || r->once) {
        return 0;
    }
    for (; c->got >= r->size; c->got -= r->size) {
        take_time(r, c);
    }
    if (r->pause && c->left > 0) {
        return begin_pause(r, c, load_now() + r->pause);
    }
    return send_on(r, c);
}

/* One wake-up: 0, or -1 with `failure`; 1 if it ended for a signal. */
static int
turn(run *r)
{
    struct epoll_event events[EVENTS];
    int ready = epoll_wait(r->epoll, events, EVENTS, LOAD_PATIENCE);
    if (ready < 0 && errno == EINTR) {
        return 1;
    }
    if (ready <= 0) {
        return load_fail(&r->failure, "the server does not answer", ready ? errno : ETIMEDOUT);
    }
    for (int i = 0; i < ready; i++) {
        client *c = events[i].data.ptr;
        if (c == NULL) {
            if (end_pauses(r) < 0) {
                return -1;
            }
            continue;
        }
        if (events[i].events & ~(uint32_t)EPOLLOUT && receive(r, c) < 0) {
            return -1;
        }
        if (events[i].events & EPOLLOUT && c->fd >= 0 && send_on(r, c) < 0) {
            return -1;
        }
    }
    return 0;
}

static int
start(run *r)
{
    r->epoll = epoll_create1(EPOLL_CLOEXEC);
    r->timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
    if (r->epoll < 0 || r->timer < 0 || epoll_ctl(r->epoll, EPOLL_CTL_ADD, r->timer, &event) < 0) {
        return load_fail(&r->failure, "epoll", errno);
    }
    int64_t now = load_now();
    int failed = 0;
    for (Py_ssize_t i = 0; i < r->number && !failed; i++) {
        client *c = &r->clients[i];
        c->left = r->count / r->number + (i < r->count % r->number);
        if (r->once) {
            failed = open_next(r, c);
        }
        else if (r->pause && c->left > 0) { // not all at once
            failed = begin_pause(r, c, now + r->pause / r->number * i + 1);
        }
        else {
            failed = send_on(r, c);
        }
    }
    return failed;
}

/* Closes what this has opened. */
static void
stop(run *r)
{
    for (Py_ssize_t i = 0; r->once && i < r->number; i++) {
        if (r->clients[i].fd >= 0) {
            close(r->clients[i].fd);
        }
    }
    if (r->epoll >= 0) {
        close(r->epoll);
    }
    if (r->timer >= 0) {
        close(r->timer);
    }
}

static int
run_all(run *r)
{
    int failed = start(r);
    while (!failed && r->done < r->count) {
        PyThreadState *thread = PyEval_SaveThread();
        for (int turns = 0; turns < 100 && !failed && r->done < r->count; turns++) {
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
    stop(r);
    return failed ? -1 : 0;
}

/* Runs for `number` clients; the descriptors in `fds`, unless that is NULL. */
static PyObject *
run_clients(run *r, PyObject *fds)
{
    PyObject *result = NULL;
    r->epoll = r->timer = -1;
    r->seconds = PyMem_New(double, (size_t)r->count + 1);
    r->messages = PyMem_New(char, r->size *(size_t)r->depth);
    r->buffer = PyMem_New(char, r->size *(size_t)r->depth + 1);
    r->clients = PyMem_Calloc((size_t)r->number, sizeof(client));
    r->pausing = PyMem_New(client *, (size_t)r->number);
    if (r->seconds == NULL || r->messages == NULL || r->buffer == NULL || r->clients == NULL
        || r->pausing == NULL)
    {
        PyErr_NoMemory();
        goto end;
    }
    for (int i = 0; i < r->depth; i++) {
        memcpy(r->messages + r->size * (size_t)i, r->message, r->size);
    }
    for (Py_ssize_t i = 0; i < r->number; i++) {
        r->clients[i].fd = -1;
        if (fds != NULL) {
            r->clients[i].fd = PyObject_AsFileDescriptor(PyTuple_GET_ITEM(fds, i));
            if (r->clients[i].fd < 0) {
                goto end;
            }
        }
    }
    if (run_all(r) == 0) {
        result = load_list(r->seconds, r->done);
    }
end:
    PyMem_Free(r->seconds);
    PyMem_Free(r->messages);
    PyMem_Free(r->buffer);
    PyMem_Free(r->clients);
    PyMem_Free(r->pausing);
    return result;
}

const char load_echo_doc[] =
    "echo(sockets, message, count, depth, pause)\n--\n\n"
    "Send *message* *count* times, and wait for as many answers; return the seconds each took.\n\n"
    "sockets: a tuple of connected sockets or descriptors, of streams or of datagrams. They "
    "share\n"
    "the messages evenly. depth: how many are under way on each, 16 at most. pause: seconds that\n"
    "each waits after an answer, if the depth is 1; or 0. Raises OSError if an answer is not the\n"
    "message.";

PyObject *
load_echo(PyObject *Py_UNUSED(module), PyObject *args)
{
    PyObject *fds;
    Py_ssize_t size;
    double pause;
    run r = {.once = 0};
    if (!PyArg_ParseTuple(args, "O!y#nid:echo", &PyTuple_Type, &fds, &r.message, &size, &r.count,
                          &r.depth, &pause))
    {
        return NULL;
    }
    r.number = PyTuple_GET_SIZE(fds);
    if (size < 1 || r.count < 0 || r.number < 1 || r.depth < 1 || r.depth > MAX_DEPTH
        || !(pause >= 0 && pause < 60) || (pause > 0 && r.depth > 1))
    {
        PyErr_SetString(PyExc_ValueError, "sockets, message, count, depth or pause out of range");
        return NULL;
    }
    int type, fd = PyObject_AsFileDescriptor(PyTuple_GET_ITEM(fds, 0));
    socklen_t length = sizeof(type);
    if (fd < 0) {
        return NULL;
    }
    if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &length) < 0) {
        load_failed("what should be a socket");
        return NULL;
    }
    r.datagram = type == SOCK_DGRAM;
    r.size = (size_t)size;
    r.pause = (int64_t)(pause * 1e9);
    return run_clients(&r, fds);
}

const char load_echo_once_doc[] =
    "echo_once(where, message, count, clients)\n--\n\n"
    "Likewise, each on a connection of its own, *clients* at once, until the server closes it.\n\n"
    "where: a port of 127.0.0.1, or the path of a UNIX socket. Connecting is a part of the time.";

PyObject *
load_echo_once(PyObject *Py_UNUSED(module), PyObject *args)
{
    PyObject *where;
    Py_ssize_t size;
    run r = {.once = 1, .depth = 1};
    if (!PyArg_ParseTuple(args, "Oy#nn:echo_once", &where, &r.message, &size, &r.count, &r.number)
        || load_target_from(where, &r.target) < 0)
    {
        return NULL;
    }
    if (size < 1 || r.count < 0 || r.number < 1) {
        PyErr_SetString(PyExc_ValueError, "message, count or clients out of range");
        return NULL;
    }
    r.size = (size_t)size;
    return run_clients(&r, NULL);
}
