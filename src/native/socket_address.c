/* Addresses of clients, built exactly as the accept() of CPython's socket module builds them.
 *
 * Does not know whose they are.
 */
#include "native/socket.h"

#ifdef CBASE_HAVE_SOCKETS

#include <arpa/inet.h>
#include <stddef.h>
#include <string.h>
#include <sys/un.h>

int
cbase_socket_address_known(int family)
{
    return family == AF_INET || family == AF_INET6 || family == AF_UNIX;
}

/* 'a.b.c.d'; inet_ntop() does it through printf, which shows in profiles. */
static PyObject *
new_ipv4_host(const struct in_addr *in)
{
    const unsigned char *bytes = (const unsigned char *)&in->s_addr;
    char text[INET_ADDRSTRLEN], *end = text;

    for (int i = 0; i < 4; i++) {
        unsigned int byte = bytes[i];
        if (byte >= 100) {
            *end++ = (char)('0' + byte / 100);
        }
        if (byte >= 10) {
            *end++ = (char)('0' + byte / 10 % 10);
        }
        *end++ = (char)('0' + byte % 10);
        *end++ = '.';
    }
    return PyUnicode_FromKindAndData(PyUnicode_1BYTE_KIND, text, end - 1 - text);
}

/* What was made last, owned; or NULL. Who comes next may have it in common. */
static PyObject *last_host, *last_port;
static struct in_addr its_address;
static in_port_t its_number;

static PyObject *
ipv4_host(const struct in_addr *in)
{
    if (last_host == NULL || in->s_addr != its_address.s_addr) {
        PyObject *host = new_ipv4_host(in);
        if (host == NULL) {
            return NULL;
        }
        Py_XSETREF(last_host, host);
        its_address = *in;
    }
    return Py_NewRef(last_host);
}

static PyObject *
ipv4_port(in_port_t number)
{
    if (last_port == NULL || number != its_number) {
        PyObject *port = PyLong_FromLong(ntohs(number));
        if (port == NULL) {
            return NULL;
        }
        Py_XSETREF(last_port, port);
        its_number = number;
    }
    return Py_NewRef(last_port);
}

int
cbase_socket_address_of_host(PyObject *host, struct in_addr *in)
{
    if (host != last_host || host == NULL) {
        return 0;
    }
    *in = its_address;
    return 1;
}

static PyObject *
ipv4_address(const struct sockaddr_in *address)
{
    PyObject *host = ipv4_host(&address->sin_addr);
    PyObject *port = host == NULL ? NULL : ipv4_port(address->sin_port);
    PyObject *pair = port == NULL ? NULL : cbase_object_pair(host, port);

    Py_XDECREF(port);
    Py_XDECREF(host);
    return pair;
}

static PyObject *
ipv6_address(const struct sockaddr_in6 *address)
{
    char host[INET6_ADDRSTRLEN];

    if (inet_ntop(AF_INET6, &address->sin6_addr, host, sizeof(host)) == NULL) {
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    return Py_BuildValue("siII", host, (int)ntohs(address->sin6_port),
                         (unsigned int)ntohl(address->sin6_flowinfo),
                         (unsigned int)address->sin6_scope_id);
}

static PyObject *
unix_address(const struct sockaddr_un *address, socklen_t length)
{
    size_t path = (size_t)length - offsetof(struct sockaddr_un, sun_path);

    if (path > 0 && address->sun_path[0] == 0) { // abstract
        return PyBytes_FromStringAndSize(address->sun_path, (Py_ssize_t)path);
    }
    return PyUnicode_DecodeFSDefault(address->sun_path);
}

/* A peer that is not of the listener's family: (family, bytes) */
static PyObject *
unknown_address(const struct sockaddr *address)
{
    PyObject *data = PyBytes_FromStringAndSize(address->sa_data, sizeof(address->sa_data));

    return data == NULL ? NULL : Py_BuildValue("iN", (int)address->sa_family, data);
}

PyObject *
cbase_socket_address(const struct sockaddr_storage *address, socklen_t length)
{
    if (length == 0) {
        return Py_NewRef(Py_None); // a peer without any address
    }
    switch (address->ss_family) {
    case AF_INET:
        return ipv4_address((const struct sockaddr_in *)address);
    case AF_INET6:
        return ipv6_address((const struct sockaddr_in6 *)address);
    case AF_UNIX:
        return unix_address((const struct sockaddr_un *)address, length);
    default:
        return unknown_address((const struct sockaddr *)address);
    }
}

#endif
