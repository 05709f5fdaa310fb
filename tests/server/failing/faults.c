/* Preloaded by test_faults.py: accept4(2) and accept(2) that fail as they are told, and a
 * clock that is set. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

static int ahead; // seconds, of the time of day
static int error, times, raised, calls;
static struct sockaddr_storage address;
static int length = -1;

/* The next calls fail with `number`: so many, or for ever if `count` is negative. A signal, if
 * it is not 0, is raised before each of them. */
void
faults_plan(int number, int count, int signal_number)
{
    error = number;
    times = count;
    raised = signal_number;
    calls = 0;
}

/* What the next call that succeeds tells as the peer's address. */
void
faults_address(const void *bytes, int count)
{
    memcpy(&address, bytes, count);
    length = count;
}

/* How often either has been called since faults_plan(). */
int
faults_calls(void)
{
    return calls;
}

int
accept4(int fd, struct sockaddr *peer, socklen_t *size, int flags)
{
    static int (*real)(int, struct sockaddr *, socklen_t *, int);

    if (real == NULL) {
        real = (int (*)(int, struct sockaddr *, socklen_t *, int))dlsym(RTLD_NEXT, "accept4");
    }
    calls++;
    if (times != 0) {
        times -= times > 0;
        if (raised != 0) {
            raise(raised);
        }
        errno = error;
        return -1;
    }
    int accepted = real(fd, peer, size, flags);
    if (accepted >= 0 && length >= 0) {
        memset(peer, 0, *size);
        memcpy(peer, &address, length);
        *size = length;
        length = -1;
    }
    return accepted;
}

int
accept(int fd, struct sockaddr *peer, socklen_t *size)
{
    return accept4(fd, peer, size, 0);
}

/* From now on the time of day is that many seconds ahead. */
void
faults_set_clock(int seconds)
{
    ahead = seconds;
}

int
clock_gettime(clockid_t clock, struct timespec *now)
{
    static int (*real)(clockid_t, struct timespec *);

    if (real == NULL) {
        real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    }
    int result = real(clock, now);
    if (result == 0 && clock == CLOCK_REALTIME) {
        now->tv_sec += ahead;
    }
    return result;
}
