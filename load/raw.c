/* The raw servers: system calls and nothing else, to see what the system alone costs. */
#include "load.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <unistd.h>

/* A client: its descriptor, or -1 with errno set. */
static int
accept_client(int listener)
{
    struct sockaddr_storage address;
    socklen_t length = sizeof(address);
    return accept4(listener, (struct sockaddr *)&address, &length, SOCK_NONBLOCK | SOCK_CLOEXEC);
}

/* Tells that one was served: 0 or -1. */
static int
report_one(int report)
{
    return report >= 0 && write(report, ".", 1) < 0 ? -1 : 0;
}

/* Calls turn() without the GIL, which returns 0 or -1 with errno set, until there is an exception:
 * NULL. */
static PyObject *
run(int (*turn)(void *), void *server)
{
    do {
        PyThreadState *thread = PyEval_SaveThread();
        while (turn(server) == 0) {
        }
        PyEval_RestoreThread(thread);
        if (errno != EINTR) {
            load_failed("the raw server");
            return NULL;
        }
    } while (PyErr_CheckSignals() == 0);
    return NULL;
}

/* Accept and close */

typedef struct closer {
    int listener, report;
} closer;

static int
close_next(void *server)
{
    const closer *s = server;
    int fd = accept_client(s->listener);
    if (fd >= 0) {
        int told = report_one(s->report);
        close(fd);
        return told;
    }
    if (errno == EAGAIN) {
        struct pollfd one = {.fd = s->listener, .events = POLLIN};
        return poll(&one, 1, -1) < 0 ? -1 : 0;
    }
    return errno == ECONNABORTED ? 0 : -1;
}

const char load_accept_and_close_doc[] =
    "accept_and_close(listener, report)\n--\n\n"
    "Accept connections at the non-blocking descriptor *listener* and close them, for ever.\n\n"
    "For each, writes a byte to the descriptor *report*, unless that is -1. Raises OSError.";

PyObject *
load_accept_and_close(PyObject *Py_UNUSED(module), PyObject *args)
{
    closer s;
    if (!PyArg_ParseTuple(args, "ii:accept_and_close", &s.listener, &s.report)) {
        return NULL;
    }
    return run(close_next, &s);
}

/* Echo */

#define MOST_CLIENTS 65536 // descriptors below this number
#define EVENTS       256   // of one wake-up

typedef struct server {
    int listener, report, epoll;
    size_t size;   // of a message
    int once;      // closes after one message
    int datagrams; // the listener receives them
    char *buffer;
    size_t *got; // by descriptor: bytes of a message that were sent back, or are to be
} server;

static int
add(const server *s, int fd)
{
    struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
    return epoll_ctl(s->epoll, EPOLL_CTL_ADD, fd, &event);
}

/* Sends all of it, also to a client that reads slowly; -1 if the client has gone, too. */
static int
send_back(int fd, const char *data, size_t left)
{
    while (left > 0) {
        ssize_t sent = send(fd, data, left, MSG_NOSIGNAL);
        if (sent < 0 && errno == EAGAIN) {
            struct pollfd one = {.fd = fd, .events = POLLOUT};
            if (poll(&one, 1, -1) < 0 && errno != EINTR) {
                return -1;
            }
        }
        else if (sent < 0) {
            return -1;
        }
        else {
            data += sent;
            left -= (size_t)sent;
        }
    }
    return 0;
}

/* Counts what was sent back, and reports whole messages. */
static int
tell(server *s, int fd, size_t sent)
{
    s->got[fd] += sent;
    for (; s->got[fd] >= s->size; s->got[fd] -= s->size) {
        if (report_one(s->report) < 0) {
            return -1;
        }
    }
    return 0;
}

/* What there is to read of a client that keeps its connection: 1 to go on, 0 at the end, or -1. */
static int
echo_kept(server *s, int fd)
{
    ssize_t got = recv(fd, s->buffer, s->size, 0);
    if (got < 0) {
        return errno == EAGAIN ? 1 : 0;
    }
    if (got == 0 || send_back(fd, s->buffer, (size_t)got) < 0) {
        return 0;
    }
    return tell(s, fd, (size_t)got) < 0 ? -1 : 1;
}

/* The same of one that sends a single message. */
static int
echo_single(server *s, int fd)
{
    ssize_t got = recv(fd, s->buffer + s->got[fd], s->size - s->got[fd], 0);
    if (got < 0) {
        return errno == EAGAIN ? 1 : 0;
    }
    s->got[fd] += (size_t)got;
    if (got > 0 && s->got[fd] < s->size) {
        return 1; // all clients send the same message, so that one buffer is enough
    }
    if (got == 0 || send_back(fd, s->buffer, s->size) < 0) {
        return 0;
    }
    s->got[fd] = 0;
    return tell(s, fd, s->size);
}

/* What a client has sent: 0 or -1. `known`: epoll knows it. */
static int
serve(server *s, int fd, int known)
{
    int more = s->once ? echo_single(s, fd) : echo_kept(s, fd);
    if (more > 0) {
        return known ? 0 : add(s, fd);
    }
    s->got[fd] = 0;
    close(fd);
    return more;
}

/* Takes all clients that are there. */
static int
accept_all(server *s)
{
    for (;;) {
        int fd = accept_client(s->listener);
        if (fd < 0) {
            return errno == EAGAIN || errno == ECONNABORTED ? 0 : -1;
        }
        if (fd >= MOST_CLIENTS) {
            close(fd);
            errno = EMFILE;
            return -1;
        }
        if (serve(s, fd, 0) < 0) {
            return -1;
        }
    }
}

/* Sends back the datagrams that are there. */
static int
echo_datagrams(server *s)
{
    for (;;) {
        struct sockaddr_storage address;
        socklen_t length = sizeof(address);
        ssize_t got =
            recvfrom(s->listener, s->buffer, s->size, 0, (struct sockaddr *)&address, &length);
        if (got < 0) {
            return errno == EAGAIN ? 0 : -1;
        }
        if (sendto(s->listener, s->buffer, (size_t)got, 0, (struct sockaddr *)&address, length) < 0
            || report_one(s->report) < 0)
        {
            return -1;
        }
    }
}

/* One turn of the event loop: 0 or -1. */
static int
turn(void *echo_server)
{
    server *s = echo_server;
    struct epoll_event events[EVENTS];
    int count = epoll_wait(s->epoll, events, EVENTS, -1);
    int failed = count < 0;

    for (int i = 0; i < count && !failed; i++) {
        int fd = events[i].data.fd;
        if (fd != s->listener) {
            failed = serve(s, fd, 1) < 0;
        }
        else {
            failed = (s->datagrams ? echo_datagrams(s) : accept_all(s)) < 0;
        }
    }
    return failed ? -1 : 0;
}

const char load_echo_server_doc[] =
    "echo_server(listener, report, size, once, datagrams)\n--\n\n"
    "Send back what comes to the non-blocking descriptor *listener*, for ever.\n\n"
    "*size*: bytes of a message; if *once*, a connection is closed after one. *datagrams*: the\n"
    "listener receives them itself. For each message, writes a byte to the descriptor *report*,\n"
    "unless that is -1. Raises OSError, ValueError.";

PyObject *
load_echo_server(PyObject *Py_UNUSED(module), PyObject *args)
{
    server s = {0};
    Py_ssize_t size;
    if (!PyArg_ParseTuple(args, "iinpp:echo_server", &s.listener, &s.report, &size, &s.once,
                          &s.datagrams))
    {
        return NULL;
    }
    if (size < 1) {
        PyErr_SetString(PyExc_ValueError, "size must be positive");
        return NULL;
    }
    s.size = (size_t)size;
    s.buffer = calloc(1, s.size);
    s.got = calloc(MOST_CLIENTS, sizeof(*s.got));
    s.epoll = epoll_create1(EPOLL_CLOEXEC);
    if (s.buffer == NULL || s.got == NULL) {
        PyErr_NoMemory();
        goto done;
    }
    if (s.epoll < 0 || add(&s, s.listener) < 0) {
        load_failed("epoll");
        goto done;
    }
    (void)run(turn, &s);
done:
    if (s.epoll >= 0) {
        close(s.epoll);
    }
    free(s.got);
    free(s.buffer);
    return NULL;
}
