/* Arena allocators, and users of one, for test_datastack.py: loaded with ctypes.
 *
 * An "other" allocator maps its blocks by itself, keeps account of them, and passes blocks that
 * are not its own to the allocator that it found when it was installed. Its counters leave out
 * what CPython may ask for at any moment: arenas.
 */
#include <Python.h>

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>

#define EXPORT __attribute__((visibility("default")))
#define OTHERS 4
#define BLOCKS 16384
#define ARENA ((size_t)1024 * 1024)

typedef struct {
    PyObjectArenaAllocator found;
    void *block[BLOCKS];
    int blocks; // entries in use, some of them NULL
    int forwards; // asks the allocator found for blocks, instead of mapping them
    long asked, live, passed;
} other;

static other others[OTHERS];
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;

static int
is_other(void *ctx)
{
    return (other *)ctx >= others && (other *)ctx < others + OTHERS;
}

static other *
check(void *ctx)
{
    if (!is_other(ctx)) {
        abort(); // called with the ctx of somebody else
    }
    return ctx;
}

static void *
other_alloc(void *ctx, size_t size)
{
    other *self = check(ctx);
    void *block;

    if (self->forwards) {
        self->asked += size != ARENA;
        return self->found.alloc(self->found.ctx, size);
    }
    block = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    pthread_mutex_lock(&mutex);
    self->asked += size != ARENA;
    self->live += size != ARENA;
    int i = 0;
    while (i < self->blocks && self->block[i] != NULL) {
        i++;
    }
    if (i == BLOCKS) {
        abort();
    }
    self->block[i] = block;
    self->blocks += i == self->blocks;
    pthread_mutex_unlock(&mutex);
    return block;
}

static void
other_free(void *ctx, void *block, size_t size)
{
    other *self = check(ctx);
    int i = 0;

    pthread_mutex_lock(&mutex);
    while (i < self->blocks && self->block[i] != block) {
        i++;
    }
    int own = i < self->blocks;
    if (own) {
        self->block[i] = NULL;
        self->live -= size != ARENA;
        munmap(block, size);
    }
    else {
        self->passed += size != ARENA;
    }
    pthread_mutex_unlock(&mutex);
    if (!own) {
        self->found.free(self->found.ctx, block, size);
    }
}

static void
lock_mutex(void)
{
    pthread_mutex_lock(&mutex);
}

static void
unlock_mutex(void)
{
    pthread_mutex_unlock(&mutex);
}

__attribute__((constructor)) static void
watch_forks(void)
{
    pthread_atfork(lock_mutex, unlock_mutex, unlock_mutex);
}

EXPORT void
other_install(int i, int forwards)
{
    PyObject_GetArenaAllocator(&others[i].found);
    others[i].forwards = forwards;
    PyObject_SetArenaAllocator(&(PyObjectArenaAllocator){&others[i], other_alloc, other_free});
}

/* Puts back what it found, whatever is in place now. */
EXPORT void
other_uninstall(int i)
{
    PyObject_SetArenaAllocator(&others[i].found);
}

EXPORT int
other_is_in_place(int i)
{
    PyObjectArenaAllocator now;

    PyObject_GetArenaAllocator(&now);
    return now.ctx == &others[i];
}

EXPORT long
other_asked(int i)
{
    return others[i].asked;
}

EXPORT long
other_live(int i)
{
    return others[i].live;
}

/* Blocks that were not its own. */
EXPORT long
other_passed(int i)
{
    return others[i].passed;
}

/* ---- as CPython uses the arena allocator ---- */

EXPORT void *
arena_alloc(size_t size)
{
    PyObjectArenaAllocator now;

    PyObject_GetArenaAllocator(&now);
    return now.alloc(now.ctx, size);
}

EXPORT void
arena_free(void *block, size_t size)
{
    PyObjectArenaAllocator now;

    PyObject_GetArenaAllocator(&now);
    now.free(now.ctx, block, size);
}

/* The address of the function that is in place. */
EXPORT void *
arena_in_place(void)
{
    PyObjectArenaAllocator now;

    PyObject_GetArenaAllocator(&now);
    return (void *)now.alloc;
}

/* As a thread without the GIL does that has read what is in place, and is late to call it. */
static PyObjectArenaAllocator read_before;

EXPORT void
late_read(void)
{
    PyObject_GetArenaAllocator(&read_before);
}

EXPORT void *
late_alloc(size_t size)
{
    return read_before.alloc(read_before.ctx, size);
}

EXPORT void
late_free(void *block, size_t size)
{
    read_before.free(read_before.ctx, block, size);
}

/* The same, when what has been put in place meanwhile had its `ctx` read. */
EXPORT void
late_read_ctx(void)
{
    PyObjectArenaAllocator now;

    PyObject_GetArenaAllocator(&now);
    read_before.ctx = now.ctx;
}

/* ---- threads that do so without the GIL ---- */

#define CHUNK ((size_t)16 * 1024)
#define HELD 24

static pthread_t threads[16];
static int running, fixed;
static atomic_int stop;
static atomic_long rounds, broken;

/* The allocator that is in place. Up to 3.11 CPython reads it without a lock, and so may get the
 * functions of an "other" with the ctx of the one that it has just replaced. */
static void
get_allocator(PyObjectArenaAllocator *now)
{
    do {
        PyObject_GetArenaAllocator(now);
    } while ((now->alloc == other_alloc || now->free == other_free) && !is_other(now->ctx));
}

static void *
hammer(void *number)
{
    PyObjectArenaAllocator now;
    uintptr_t *held[HELD] = {NULL};
    unsigned int seed = (unsigned int)(uintptr_t)number;

    get_allocator(&now);
    while (!stop) {
        if (!fixed) {
            get_allocator(&now);
        }
        int i = rand_r(&seed) % HELD;
        uintptr_t mark = ((uintptr_t)number << 32) + (uintptr_t)i;
        if (held[i] == NULL) {
            held[i] = now.alloc(now.ctx, CHUNK);
            held[i][0] = held[i][CHUNK / sizeof(mark) - 1] = mark;
        }
        else {
            broken += held[i][0] != mark || held[i][CHUNK / sizeof(mark) - 1] != mark;
            now.free(now.ctx, held[i], CHUNK);
            held[i] = NULL;
        }
        rounds++;
    }
    for (int i = 0; i < HELD; i++) {
        if (held[i] != NULL) {
            now.free(now.ctx, held[i], CHUNK);
        }
    }
    return NULL;
}

/* With `same` they call the allocator that is in place when they start, whatever comes later;
 * otherwise they ask for it each time, which takes a lock of CPython's that is not fork-safe. */
EXPORT void
hammer_start(int count, int same)
{
    stop = 0;
    fixed = same;
    for (running = 0; running < count; running++) {
        pthread_create(&threads[running], NULL, hammer, (void *)(uintptr_t)(running + 1));
    }
}

EXPORT long
hammer_rounds(void)
{
    return rounds;
}

/* How often a block was found to be another one's, too. */
EXPORT long
hammer_stop(void)
{
    stop = 1;
    while (running > 0) {
        pthread_join(threads[--running], NULL);
    }
    return broken;
}
