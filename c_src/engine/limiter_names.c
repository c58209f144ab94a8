/*
 * How a reader and a deleter meet.
 *
 *     reader                                        deleter
 *     t := place.limiter                            place.limiter := NULL
 *     lane.inside := t                              (barrier)
 *     (barrier)                                     wait while any lane.inside == t
 *     place.limiter == t ? use t : start over       destroy t
 *     lane.inside := NULL
 *
 * Of the two stores, one comes first for everybody: either the deleter sees the lane and waits, or the reader sees NULL and starts
 * over. That needs a full barrier between each side's store and load (the classic store-load pair). The deleter's barrier is
 * membarrier(2), which makes every running thread of the process pass a full barrier, so that the reader's may be none at all, only a
 * promise that the compiler keeps the order. Where the system has no membarrier ("portable") both sides use seq_cst accesses instead.
 *
 * The reader's last store is a release, the deleter's loads of the lane acquire: all that the reader did with t happens before its
 * destruction. Before the second look, t may have been freed and its address given to a new limiter; then the reader holds that one.
 *
 * Whether t is the limiter that was asked for is written in its place (name, handle). They change only while nothing is published
 * there, and a limiter is published once in its life. So the reader looks at place.limiter once more after reading them: if it still is
 * t, which cannot be freed any more, t was published there all the while, and they are t's.
 *
 * The threads without a lane share lane 0, which counts them; the deleter waits until it has seen the count at 0.
 *
 * Places are found by linear probing over a table that is never more than half full. The mutex serialises all changes. A removed name
 * leaves a tombstone, unless nothing follows it, so that a reader that is probing is never cut off from what lies behind.
 *
 * test/model/names.pml is the exhaustive model of all this, with mutants (make test-model).
 */
#include "engine/limiter_names.h"

#include <pthread.h>
#include <sched.h>
#include <time.h>

#ifdef __linux__
#include <linux/membarrier.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include "base/fdn_alloc.h"
#include "base/fdn_atomic.h"
#include "base/fdn_error.h"

#define PLACES (2 * FDN_LIMITERS_MAX)
#define PLACE_BITS 14
_Static_assert(1 << PLACE_BITS == PLACES, "a handle's low bits are its place");
#define INCARNATION_BITS (59 - PLACE_BITS)

#define EMPTY 0ULL
#define TOMBSTONE 1ULL

typedef struct {
    _Atomic uint64_t name;
    _Atomic(fdn_limiter *) limiter;
    _Atomic uint64_t handle;
    uint64_t owner; /* under the mutex */
} place;

typedef struct {
    _Atomic(fdn_limiter *) inside;
    _Atomic uint64_t crowd; /* lane 0 only: how many threads are inside anything */
    char pad[FDN_CACHE_LINE - 16];
} lane_line;
_Static_assert(sizeof(lane_line) == FDN_CACHE_LINE, "a lane has a cache line of its own");

struct fdn_limiters {
    place *places;
    lane_line *lanes;
    void *lanes_block;
    bool portable;
    _Atomic unsigned lanes_given; /* including lane 0 */
    pthread_mutex_t lock;
    unsigned live;
    uint64_t incarnations;
};

#if defined(__linux__) && defined(__NR_membarrier)
static bool membarrier_register(void)
{
    return syscall(__NR_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0) == 0;
}

static bool membarrier_all(void)
{
    return syscall(__NR_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0) == 0;
}
#else
static bool membarrier_register(void)
{
    return false;
}

static bool membarrier_all(void)
{
    return false;
}
#endif

static inline unsigned home_of(uint64_t name)
{
    return (unsigned)(name * 0x9e3779b97f4a7c15ULL >> (64 - PLACE_BITS));
}

/* ---- readers -------------------------------------------------------------------------------------------------------------------- */

unsigned fdn_limiters_lane(fdn_limiters *r)
{
    unsigned lane = atomic_load(&r->lanes_given);
    while (lane < FDN_LIMITER_LANES && !atomic_compare_exchange_weak(&r->lanes_given, &lane, lane + 1))
        ;
    return lane < FDN_LIMITER_LANES ? lane : 0;
}

static inline void announce(fdn_limiters *r, unsigned lane, fdn_limiter *t)
{
    if (lane == 0) {
        if (t != NULL)
            atomic_fetch_add(&r->lanes[0].crowd, 1);
        else
            atomic_fetch_sub(&r->lanes[0].crowd, 1);
    } else if (t == NULL) {
        atomic_store_explicit(&r->lanes[lane].inside, NULL, memory_order_release);
    } else if (r->portable) {
        atomic_store(&r->lanes[lane].inside, t);
    } else {
        /* Release, so that a deleter of what this thread was inside before is content with seeing this. */
        atomic_store_explicit(&r->lanes[lane].inside, t, memory_order_release);
        atomic_signal_fence(memory_order_seq_cst);
    }
}

/* Enter whatever is published in this place, if `identity` (its name or handle) is `wanted`; *handle, unless NULL, is then its handle.
 */
static inline fdn_limiter *enter_place(fdn_limiters *r, unsigned lane, place *p, _Atomic uint64_t *identity, uint64_t wanted,
                                       uint64_t *handle)
{
    for (;;) {
        fdn_limiter *t = atomic_load(&p->limiter);
        if (t == NULL)
            return NULL;
        fdn_step(FDN_STEP_FREE);
        announce(r, lane, t);
        if (atomic_load(&p->limiter) == t) {
            fdn_step(FDN_STEP_CLAIMED);
            bool same = atomic_load(identity) == wanted;
            uint64_t its_handle = handle ? atomic_load(&p->handle) : 0;
            if (atomic_load(&p->limiter) == t) {
                if (handle)
                    *handle = its_handle;
                if (same)
                    return t;
                announce(r, lane, NULL);
                return NULL;
            }
        }
        announce(r, lane, NULL);
    }
}

static inline fdn_limiter *enter_name(fdn_limiters *r, unsigned lane, uint64_t name, uint64_t *handle)
{
    unsigned at = home_of(name);
    for (unsigned i = 0; i < PLACES; i++) {
        place *p = &r->places[(at + i) % PLACES];
        uint64_t here = atomic_load(&p->name);
        if (here == name)
            return enter_place(r, lane, p, &p->name, name, handle);
        if (here == EMPTY)
            return NULL;
    }
    return NULL;
}

fdn_limiter *fdn_limiters_enter(fdn_limiters *r, unsigned lane, uint64_t name)
{
    return enter_name(r, lane, name, NULL);
}

fdn_limiter *fdn_limiters_enter_and_tell(fdn_limiters *r, unsigned lane, uint64_t name, uint64_t *handle)
{
    return enter_name(r, lane, name, handle);
}

fdn_limiter *fdn_limiters_enter_handle(fdn_limiters *r, unsigned lane, uint64_t handle)
{
    place *p = &r->places[handle % PLACES];
    return enter_place(r, lane, p, &p->handle, handle, NULL);
}

void fdn_limiters_leave(fdn_limiters *r, unsigned lane)
{
    announce(r, lane, NULL);
}

/* ---- changes, under the mutex --------------------------------------------------------------------------------------------------- */

static place *locked_find(fdn_limiters *r, uint64_t name)
{
    unsigned at = home_of(name);
    for (unsigned i = 0; i < PLACES; i++) {
        place *p = &r->places[(at + i) % PLACES];
        uint64_t here = atomic_load(&p->name);
        if (here == name)
            return p;
        if (here == EMPTY)
            return NULL;
    }
    return NULL;
}

static place *locked_find_handle(fdn_limiters *r, uint64_t handle)
{
    place *p = &r->places[handle % PLACES];
    return handle != 0 && atomic_load(&p->handle) == handle ? p : NULL;
}

static place *vacancy(fdn_limiters *r, uint64_t name)
{
    unsigned at = home_of(name);
    for (;; at++) {
        place *p = &r->places[at % PLACES];
        if (atomic_load(&p->name) <= TOMBSTONE)
            return p;
    }
}

int fdn_limiters_add(fdn_limiters *r, uint64_t name, uint64_t owner, fdn_limiter *t, fdn_limiters_entry *out)
{
    int rc = 0;
    pthread_mutex_lock(&r->lock);
    if (locked_find(r, name) != NULL) {
        rc = FDN_EBUSY;
    } else if (r->live == FDN_LIMITERS_MAX) {
        rc = FDN_EFULL;
    } else {
        place *p = vacancy(r, name);
        r->incarnations = (r->incarnations + 1) & ((1ULL << INCARNATION_BITS) - 1);
        uint64_t handle = (r->incarnations << PLACE_BITS) | (uint64_t)(p - r->places);
        p->owner = owner;
        r->live++;
        atomic_store(&p->handle, handle);
        atomic_store(&p->limiter, t);
        atomic_store(&p->name, name);
        *out = (fdn_limiters_entry){.handle = handle, .owner = owner};
    }
    pthread_mutex_unlock(&r->lock);
    return rc;
}

static int entry_of(const place *p, fdn_limiters_entry *out)
{
    if (p == NULL)
        return FDN_EUNKNOWN;
    *out = (fdn_limiters_entry){.handle = atomic_load(&p->handle), .owner = p->owner};
    return 0;
}

int fdn_limiters_find(fdn_limiters *r, uint64_t name, fdn_limiters_entry *out)
{
    pthread_mutex_lock(&r->lock);
    int rc = entry_of(locked_find(r, name), out);
    pthread_mutex_unlock(&r->lock);
    return rc;
}

int fdn_limiters_find_handle(fdn_limiters *r, uint64_t handle, fdn_limiters_entry *out)
{
    pthread_mutex_lock(&r->lock);
    int rc = entry_of(locked_find_handle(r, handle), out);
    pthread_mutex_unlock(&r->lock);
    return rc;
}

int fdn_limiters_adopt(fdn_limiters *r, uint64_t handle, uint64_t expected, uint64_t owner)
{
    pthread_mutex_lock(&r->lock);
    place *p = locked_find_handle(r, handle);
    int rc = p == NULL ? FDN_EUNKNOWN : p->owner != expected ? FDN_EBUSY : 0;
    if (rc == 0)
        p->owner = owner;
    pthread_mutex_unlock(&r->lock);
    return rc;
}

static void nap(unsigned *tries)
{
    if (++*tries < 100) {
        sched_yield();
    } else {
        struct timespec ts = {.tv_nsec = 100000};
        nanosleep(&ts, NULL);
    }
}

/* Until no reader that found `t` published is inside it any more. */
static void wait_for_readers(fdn_limiters *r, const fdn_limiter *t)
{
    unsigned tries = 0;
    if (!r->portable) {
        while (!membarrier_all())
            nap(&tries);
    }
    unsigned lanes = atomic_load(&r->lanes_given);
    for (unsigned i = 1; i < lanes; i++) {
        while (atomic_load(&r->lanes[i].inside) == t)
            nap(&tries);
    }
    while (atomic_load(&r->lanes[0].crowd) != 0)
        nap(&tries);
}

int fdn_limiters_remove(fdn_limiters *r, uint64_t handle)
{
    pthread_mutex_lock(&r->lock);
    place *p = locked_find_handle(r, handle);
    fdn_limiter *t = NULL;
    if (p != NULL) {
        t = atomic_load(&p->limiter);
        atomic_store(&p->limiter, NULL);
        atomic_store(&p->name, TOMBSTONE);
        atomic_store(&p->handle, 0);
        r->live--;
        unsigned at = (unsigned)(p - r->places);
        if (atomic_load(&r->places[(at + 1) % PLACES].name) == EMPTY) {
            for (; atomic_load(&r->places[at % PLACES].name) == TOMBSTONE; at += PLACES - 1)
                atomic_store(&r->places[at % PLACES].name, EMPTY);
        }
    }
    pthread_mutex_unlock(&r->lock);
    if (t == NULL)
        return FDN_EUNKNOWN;
    wait_for_readers(r, t);
    fdn_limiter_destroy(t);
    return 0;
}

/* ---- life ----------------------------------------------------------------------------------------------------------------------- */

int fdn_limiters_create(bool portable, fdn_limiters **out)
{
    *out = NULL;
    fdn_limiters *r = fdn_calloc(1, sizeof *r);
    if (r == NULL)
        return FDN_ENOMEM;
    r->places = fdn_calloc(PLACES, sizeof *r->places);
    r->lanes_block = fdn_calloc(FDN_LIMITER_LANES + 1, sizeof *r->lanes);
    if (r->places == NULL || r->lanes_block == NULL) {
        fdn_free(r->places);
        fdn_free(r->lanes_block);
        fdn_free(r);
        return FDN_ENOMEM;
    }
    r->lanes = (lane_line *)(((uintptr_t)r->lanes_block + FDN_CACHE_LINE - 1) & ~(uintptr_t)(FDN_CACHE_LINE - 1));
    r->portable = portable || !membarrier_register() || !membarrier_all();
    atomic_init(&r->lanes_given, 1);
    pthread_mutex_init(&r->lock, NULL);
    *out = r;
    return 0;
}

void fdn_limiters_destroy(fdn_limiters *r)
{
    if (r == NULL)
        return;
    for (unsigned i = 0; i < PLACES; i++)
        fdn_limiter_destroy(atomic_load(&r->places[i].limiter));
    pthread_mutex_destroy(&r->lock);
    fdn_free(r->lanes_block);
    fdn_free(r->places);
    fdn_free(r);
}
