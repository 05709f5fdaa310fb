/* Shared by the files of gevent_cbase._load, the clients and the raw servers of
 * `python -m gevent_cbase.bench`. */
#ifndef GEVENT_CBASE_LOAD_H
#define GEVENT_CBASE_LOAD_H

#define PY_SSIZE_T_CLEAN
#include <Python.h> // and _GNU_SOURCE, for accept4()

#include <stdint.h>
#include <sys/socket.h>
#include <sys/types.h>

/* Milliseconds that a server may do nothing before the run is given up. */
#define LOAD_PATIENCE 30000

/* Where the server listens. */
typedef struct load_target {
    int family; // AF_INET: the loopback interface; or AF_UNIX
    struct sockaddr_storage address;
    socklen_t length;
} load_target;

/* All of these return -1 with an exception set. Those that wait release the GIL, and let
 * signals be handled now and then. */

/* `where`: a port of 127.0.0.1, or the path of a UNIX socket. */
int load_target_from(PyObject *where, load_target *target);
/* A non-blocking client socket, connected or about to be. `reset`: closing it leaves nothing
 * behind in the system. Needs no GIL; -1 with errno set. */
int load_connect(const load_target *target, int reset);
/* poll() of one descriptor for `events`, with LOAD_PATIENCE. */
int load_wait(int fd, short events);
/* Raises OSError for errno, with what was tried. */
int load_failed(const char *what);
/* Notes what went wrong, with errno; always -1. Needs no GIL. */
int load_fail(const char **failure, const char *what, int number);
/* A monotonic clock, in ns. */
int64_t load_now(void);
/* A list of floats, or NULL. */
PyObject *load_list(const double *values, Py_ssize_t count);

PyObject *load_connections(PyObject *module, PyObject *args);
PyObject *load_requests(PyObject *module, PyObject *args);
PyObject *load_echo(PyObject *module, PyObject *args);
PyObject *load_echo_once(PyObject *module, PyObject *args);
PyObject *load_accept_and_close(PyObject *module, PyObject *args);
PyObject *load_echo_server(PyObject *module, PyObject *args);

extern const char load_connections_doc[];
extern const char load_requests_doc[];
extern const char load_echo_doc[];
extern const char load_echo_once_doc[];
extern const char load_accept_and_close_doc[];
extern const char load_echo_server_doc[];

#endif
