/* Whether a read that could be made at once waits for its turn first.
 *
 * gevent's recv() reads without waiting as long as there is something to read. A client that
 * answers at once so keeps all others waiting, for thousands of requests. And a read that got less
 * than it asked for has emptied the socket: the next one would most likely find nothing, a system
 * call for nothing.
 *
 * So after a short read of a stream, the next read waits for the socket as if nothing were there:
 * if others wait for theirs, so that they get their turn; or if trying was in vain the last time.
 * And so does a read after too many that did not wait. A limit of 0 is gevent's order.
 *
 * Only a handler waits for its turn, with the client that it was started for: nobody else is
 * likely to read from there, and to take what this one is waiting for.
 *
 * Who waits is only told of what the system reports. So a socket never waits for its turn before
 * its handler has read something from it, nor if its descriptor was closed behind gevent's back,
 * which loops do not stand, nor if it is reported no earlier than some bytes are there,
 * SO_RCVLOWAT: a system call that costs a third of a read.
 *
 * Does not know how one waits. All is by descriptor, and forgotten when a handler begins.
 */
#include "native/socket.h"

#ifdef CBASE_HAVE_SOCKETS

#define DESCRIPTORS 65536 /* pages that nobody needs take no memory */
#define TRUSTED     16    /* reads for which one that was in vain is believed */

typedef struct {
    const raw_socket *raw; // compared only
    unsigned char drained; // its last read was short
    unsigned char trusted; // so many of the next ones will find nothing
} place;

static place places[DESCRIPTORS];
static unsigned int limit;    // of reads in a row; 0: none waits for its turn
static unsigned int in_a_row; // that have not waited
static unsigned int waiting;  // greenlets that wait for a socket

static place *
place_of(const raw_socket *raw)
{
    return raw->fd >= 0 && raw->fd < DESCRIPTORS ? &places[raw->fd] : NULL;
}

void
cbase_io_turn_limit(unsigned int most)
{
    limit = most;
}

int
cbase_io_turn_is_over(const raw_socket *raw)
{
    place *p = limit == 0 ? NULL : place_of(raw);

    if (p == NULL || p->raw != raw) {
        return 0;
    }
    if (in_a_row >= limit) {
        return 1;
    }
    if (!p->drained) {
        return 0;
    }
    if (p->trusted > 0) {
        p->trusted--;
        return 1;
    }
    return waiting > 0;
}

int
cbase_io_turn_is_told(const raw_socket *raw)
{
    int bytes;
    socklen_t size = sizeof(bytes);

    return cbase_socket_address_known(raw->family)
           && getsockopt(raw->fd, SOL_SOCKET, SO_RCVLOWAT, &bytes, &size) == 0 && bytes <= 1;
}

void
cbase_io_turn_read(const raw_socket *raw, int was_short)
{
    place *p = limit == 0 ? NULL : place_of(raw);

    if (p == NULL) {
        return;
    }
    in_a_row++;
    if (p->raw != raw) {
        p->raw = raw;
        p->trusted = 0;
    }
    p->drained = was_short && raw->type == SOCK_STREAM;
}

void
cbase_io_turn_in_vain(const raw_socket *raw)
{
    place *p = place_of(raw);

    if (p != NULL && p->raw == raw && p->drained) {
        p->trusted = TRUSTED;
    }
}

void
cbase_io_turn_forget(int fd)
{
    if (limit != 0 && fd >= 0 && fd < DESCRIPTORS) {
        places[fd].raw = NULL;
    }
}

void
cbase_io_turn_begin_wait(void)
{
    in_a_row = 0;
    waiting++;
}

void
cbase_io_turn_end_wait(void)
{
    in_a_row = 0;
    waiting--;
}

#endif
