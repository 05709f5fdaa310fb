/* The data-stack cache: chunks that greenlets have left, kept for greenlets to come.
 *
 * CPython 3.11 and newer keep Python frames on a data stack, made of chunks that come from the
 * arena allocator. Every greenlet starts a data stack of its own and gives its first chunk back
 * when it has ended: an mmap, page faults and an munmap for each. The layer in this file stands
 * in front of the arena allocator that it found, keeps up to `limit` of the chunks that come
 * back, and hands out first the one that came last, which the processor has at hand.
 *
 * Only blocks of exactly the size of a chunk are kept; all else goes to the allocator behind.
 * The layer makes no blocks of its own: each comes from the allocator behind and goes back to
 * it. So it does no harm that blocks from before its time are freed to it, and blocks that it
 * handed out are freed after its time.
 *
 * The arena allocator belongs to the process, not to an interpreter, and so does all state
 * here; it is static and outlives the module. What the layer has to reckon with:
 * - It runs without the GIL: PyThreadState_Delete(), which frees the data stack of a thread,
 *   needs none, and interpreters with a GIL of their own (3.12) share the arena allocator. So
 *   there is a lock, held for some instructions; the layer never waits for it, but goes without
 *   the cache while it is taken.
 * - It runs inside CPython's allocator, and after finalization: no Python API in it.
 * - It can leave only if nobody else stands in front of it. If it has to stay it passes all on.
 *
 * Knows neither servers nor greenlets.
 */
#include "ground.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define WITH_ASAN
#endif
#endif
#if defined(__SANITIZE_ADDRESS__)
#define WITH_ASAN
#endif
#if defined(WITH_ASAN)
#include <sanitizer/asan_interface.h>
#define poison(address, size)   ASAN_POISON_MEMORY_REGION(address, size)
#define unpoison(address, size) ASAN_UNPOISON_MEMORY_REGION(address, size)
#else
#define poison(address, size)   ((void)0)
#define unpoison(address, size) ((void)0)
#endif

/* CAUTION: private to CPython, and in its headers only since 3.14; the same in 3.11 to 3.15.
 * Whether it is right for the CPython that runs is seen by enable() in gevent_cbase/datastack.py;
 * watched by test_greenlets_get_chunks_from_the_cache. */
#if defined(_PY_DATA_STACK_CHUNK_SIZE)
#define CHUNK_SIZE ((size_t)_PY_DATA_STACK_CHUNK_SIZE)
#else
#define CHUNK_SIZE ((size_t)16 * 1024)
#endif

/* The layer in front of one allocator: the ctx of layer_alloc() and layer_free(). Neither changed
 * nor freed, so it leads to the same allocator for good, wherever others have put it in their
 * chain; layers before and behind an allocator never make a circle. */
typedef struct layer {
    PyObjectArenaAllocator behind;
    struct layer *older;
} layer;

static _Atomic(layer *) newest;
static _Atomic(layer *) reached; // if NULL, set by the next request that is passed on

/* What a chunk holds in its first bytes while it is cached. */
typedef struct chunk {
    struct chunk *next;
} chunk;

static struct {
    atomic_flag locked;
    layer *user; // the one layer that uses the cache; others pass all on
    chunk *top;
    size_t cached;
    size_t limit; // 0: off
    size_t hits, misses;
} cache = {.locked = ATOMIC_FLAG_INIT};

/* ---- the lock ---- */

static int
try_lock(void)
{
    return !atomic_flag_test_and_set_explicit(&cache.locked, memory_order_acquire);
}

static void
lock(void)
{
    while (!try_lock()) {
        sched_yield();
    }
}

static void
unlock(void)
{
    atomic_flag_clear_explicit(&cache.locked, memory_order_release);
}

/* ---- the layer ---- */

/* With the lock held and something cached. */
static chunk *
pop(void)
{
    chunk *popped = cache.top;

    unpoison(popped, CHUNK_SIZE);
    cache.top = popped->next;
    cache.cached--;
    return popped;
}

/* A cached chunk, or NULL. */
static void *
take(const layer *self)
{
    void *taken = NULL;

    if (!try_lock()) {
        return NULL;
    }
    if (self == cache.user && cache.cached > 0) {
        taken = pop();
        cache.hits++;
    }
    else if (self == cache.user && cache.limit > 0) {
        cache.misses++;
    }
    unlock();
    return taken;
}

/* Whether the chunk is cached now. */
static int
keep(const layer *self, void *ptr)
{
    int kept = 0;

    if (!try_lock()) {
        return 0;
    }
    if (self == cache.user && cache.cached < cache.limit) {
        chunk *pushed = ptr;

        pushed->next = cache.top;
        cache.top = pushed;
        cache.cached++;
        poison(pushed, CHUNK_SIZE);
        kept = 1;
    }
    unlock();
    return kept;
}

/* CPython reads `alloc` and `ctx` one after the other, without a lock: while the allocator is
 * being changed, a thread without the GIL may come with another one's ctx. */
static layer *
layer_of(void *ctx)
{
    layer *last = atomic_load(&newest);

    for (layer *known = last; known != NULL; known = known->older) {
        if (ctx == known) {
            return known;
        }
    }
    return last;
}

static void *
layer_alloc(void *ctx, size_t size)
{
    layer *self = layer_of(ctx);

    if (size == CHUNK_SIZE) {
        void *taken = take(self);
        if (taken != NULL) {
            return taken;
        }
    }
    layer *nobody = NULL;
    atomic_compare_exchange_strong(&reached, &nobody, self);
    return self->behind.alloc(self->behind.ctx, size);
}

static void
layer_free(void *ctx, void *ptr, size_t size)
{
    layer *self = layer_of(ctx);

    if (size == CHUNK_SIZE && ptr != NULL && keep(self, ptr)) {
        return;
    }
    self->behind.free(self->behind.ctx, ptr, size);
}

/* ---- on and off; with the GIL held ---- */

/* Chunks that are too many go back. */
static void
set_limit(size_t limit)
{
    const layer *self = cache.user; // changed with the GIL held only
    chunk *surplus = NULL;

    lock();
    cache.limit = limit;
    while (cache.cached > limit) {
        chunk *popped = pop();

        popped->next = surplus;
        surplus = popped;
    }
    unlock();
    while (surplus != NULL) {
        chunk *rest = surplus->next;

        self->behind.free(self->behind.ctx, surplus, CHUNK_SIZE);
        surplus = rest;
    }
}

/* The layer that CPython's requests come to, NULL if to none. If somebody else stands in front,
 * only a request can tell; its size is one that nobody caches: not of a chunk or an arena. */
static layer *
find_reached(const PyObjectArenaAllocator *front)
{
    if (front->alloc == layer_alloc) {
        return front->ctx;
    }
    if (atomic_load(&newest) == NULL) {
        return NULL;
    }
    atomic_store(&reached, NULL);
    void *block = front->alloc(front->ctx, 3 * CHUNK_SIZE);
    if (block != NULL) {
        front->free(front->ctx, block, 3 * CHUNK_SIZE);
    }
    return atomic_load(&reached);
}

/* The layer for an allocator, or NULL with an exception set. */
static layer *
make_layer(const PyObjectArenaAllocator *behind)
{
    layer *made = atomic_load(&newest);

    while (made != NULL
           && (made->behind.alloc != behind->alloc || made->behind.free != behind->free
               || made->behind.ctx != behind->ctx))
    {
        made = made->older;
    }
    if (made == NULL) {
        made = PyMem_RawMalloc(sizeof(*made));
        if (made == NULL) {
            PyErr_NoMemory();
            return NULL;
        }
        *made = (layer){*behind, atomic_load(&newest)};
        atomic_store(&newest, made);
    }
    return made;
}

/* A forked child has the chunks, and a lock that is free. */
static int
watch_forks(void)
{
    static int watching;

    if (!watching && pthread_atfork(lock, unlock, unlock) != 0) {
        PyErr_NoMemory();
        return -1;
    }
    watching = 1;
    return 0;
}

/* Sees to it that a layer is in the chain and has the cache. */
static int
activate(void)
{
    PyObjectArenaAllocator front;

    PyObject_GetArenaAllocator(&front);
    layer *chosen = find_reached(&front);
    int is_there = chosen != NULL;
    if (!is_there && (watch_forks() < 0 || (chosen = make_layer(&front)) == NULL)) {
        return -1;
    }
    if (chosen != cache.user) {
        set_limit(0); // what is cached came to another layer and leaves by that one
        lock();
        cache.user = chosen;
        unlock();
    }
    if (!is_there) {
        PyObject_SetArenaAllocator(&(PyObjectArenaAllocator){chosen, layer_alloc, layer_free});
    }
    return 0;
}

static PyObject *
datastack_enable(PyObject *module, PyObject *max_chunks)
{
    (void)module;
    Py_ssize_t limit = PyNumber_AsSsize_t(max_chunks, PyExc_OverflowError);
    if (limit == -1 && PyErr_Occurred()) {
        return NULL;
    }
    if (limit < 1) {
        PyErr_SetString(PyExc_ValueError, "max_chunks must be at least 1");
        return NULL;
    }
    if (activate() < 0) {
        return NULL;
    }
    set_limit((size_t)limit);
    Py_RETURN_NONE;
}

static PyObject *
datastack_disable(PyObject *module, PyObject *unused)
{
    (void)module, (void)unused;
    PyObjectArenaAllocator front;

    set_limit(0);
    PyObject_GetArenaAllocator(&front);
    if (front.alloc == layer_alloc) {
        PyObject_SetArenaAllocator(&((layer *)front.ctx)->behind);
    }
    Py_RETURN_NONE;
}

static PyObject *
datastack_is_reached(PyObject *module, PyObject *unused)
{
    (void)module, (void)unused;
    PyObjectArenaAllocator front;

    PyObject_GetArenaAllocator(&front);
    layer *found = find_reached(&front);
    return PyBool_FromLong(found != NULL && found == cache.user);
}

static PyObject *
datastack_stats(PyObject *module, PyObject *unused)
{
    (void)module, (void)unused;
    lock();
    Py_ssize_t hits = (Py_ssize_t)cache.hits, misses = (Py_ssize_t)cache.misses;
    Py_ssize_t cached = (Py_ssize_t)cache.cached, limit = (Py_ssize_t)cache.limit;
    unlock();
    return Py_BuildValue("(nnnn)", hits, misses, cached, limit);
}

PyMethodDef cbase_datastack_functions[] = {
    {"_datastack_enable", datastack_enable, METH_O,
     PyDoc_STR("_datastack_enable($module, max_chunks, /)\n--\n\n"
               "Cache up to so many data-stack chunks.")},
    {"_datastack_disable", datastack_disable, METH_NOARGS,
     PyDoc_STR("_datastack_disable($module, /)\n--\n\n"
               "Cache none, and give back what is cached.")},
    {"_datastack_is_reached", datastack_is_reached, METH_NOARGS,
     PyDoc_STR("_datastack_is_reached($module, /)\n--\n\n"
               "Whether what CPython asks the arena allocator for comes to the cache.")},
    {"_datastack_stats", datastack_stats, METH_NOARGS,
     PyDoc_STR("_datastack_stats($module, /)\n--\n\n"
               "(hits, misses, cached, limit); limit is 0 if it is off.")},
    {NULL, NULL, 0, NULL},
};
