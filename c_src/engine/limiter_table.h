/*
 * limiter_table.h - what the files of the limiter's engine share: how a table is laid out, its clock, and how a key's slot is found.
 *
 * limiter.h is the contract, and the protocol stands at the top of limiter.c. What a hit runs through is inline, here and there.
 */
#ifndef FDN_ENGINE_LIMITER_TABLE_H
#define FDN_ENGINE_LIMITER_TABLE_H

#include <pthread.h>

#include "base/fdn_atomic.h"
#include "engine/limiter.h"

/* Where the compiler's own judgement costs a hit some nanoseconds. */
#define FDN_INLINE inline __attribute__((always_inline))
#define FDN_NOINLINE __attribute__((noinline))

#define FDN_LIMITER_SLOTS 4 /* a bucket */
#define FDN_LIMITER_STRIPES 64
#define FDN_LIMITER_BUSY FDN_LIMITER_NEVER /* the state of a slot that is changing hands */

typedef struct {
    _Atomic uint64_t print[FDN_LIMITER_SLOTS];
    _Atomic uint64_t state[FDN_LIMITER_SLOTS];
} fdn_limiter_bucket;
_Static_assert(sizeof(fdn_limiter_bucket) == FDN_CACHE_LINE, "a bucket is one cache line");

typedef struct {
    _Atomic uint64_t allowed, denied;
    char pad[FDN_CACHE_LINE - 16];
} fdn_limiter_counters;

typedef struct {
    _Alignas(FDN_CACHE_LINE) pthread_mutex_t lock;
    _Atomic uint64_t full, evicted; /* written under the lock */
} fdn_limiter_stripe;

struct fdn_limiter {
    fdn_limiter_secret secret; /* first: fdn_limiter_secret_of */
    fdn_limiter_bucket *buckets;
    uint64_t bucket_count;
    fdn_limiter_algorithm algorithm;
    fdn_limiter_clock clock;
    uint64_t epoch_ns;
    uint64_t coarse_from_ms; /* periods from here on may use the coarse clock, where it is auto */
    uint64_t tick_ms;        /* of the coarse clock, rounded up */
    fdn_limiter_rule preset;
    bool preset_coarse;
    fdn_limiter_counters *lanes;
    fdn_limiter_config config;
    size_t mapped;
    void *mapping;
    void *block;                   /* what this struct was allocated in */
    struct fdn_limiter_file *file; /* where the buckets are, or NULL */
    _Atomic bool discard;          /* the file goes with the table */
    _Atomic uint64_t manual_ns;
    fdn_limiter_stripe stripes[FDN_LIMITER_STRIPES];
};

_Static_assert(offsetof(struct fdn_limiter, secret) == 0, "fdn_limiter_secret_of");

/* A key's slot. */
typedef struct {
    _Atomic uint64_t *print, *state;
} fdn_limiter_slot;

/* ---- clock ---------------------------------------------------------------------------------------------------------------------- */

static inline bool fdn_limiter_uses_coarse(const fdn_limiter *t, const fdn_limiter_rule *rule)
{
    if (t->clock != FDN_LIMITER_AUTO)
        return t->clock == FDN_LIMITER_COARSE;
    return rule == &t->preset ? t->preset_coarse : rule->period_ms >= t->coarse_from_ms;
}

static inline uint64_t fdn_limiter_read_clock(fdn_limiter *t, bool coarse)
{
    if (t->clock == FDN_LIMITER_MANUAL)
        return atomic_load(&t->manual_ns);
    return (coarse ? fdn_clock_coarse_ns() : fdn_clock_mono_ns()) - t->epoch_ns;
}

/* The clock by which other keys' slots are found expired: see 5 in limiter.c. */
static inline uint64_t fdn_limiter_recycling_clock(fdn_limiter *t, uint64_t now)
{
    return t->clock == FDN_LIMITER_AUTO ? fdn_clock_coarse_ns() - t->epoch_ns : now;
}

/* Twice as many slots as keys; a few buckets more, for the larger variance of small tables. Files depend on it. */
static inline uint64_t fdn_limiter_buckets_for(uint64_t capacity)
{
    return (capacity + 1) / 2 + 4;
}

/* ---- finding -------------------------------------------------------------------------------------------------------------------- */

/* The odd multiplier keeps different periods of one key apart; keys are kept apart by the hash. */
static inline uint64_t fdn_limiter_print_of(uint64_t hash, uint64_t period_ms)
{
    uint64_t print = hash ^ (period_ms * 0x9e3779b97f4a7c15ULL);
    return print ? print : 1;
}

/* Where the key's two buckets stand, of `count`, which is not 1. */
static inline uint64_t fdn_limiter_first_place(uint64_t print, uint64_t count)
{
    return (print >> 32) * count >> 32;
}

static inline uint64_t fdn_limiter_second_place(uint64_t print, uint64_t count, uint64_t first)
{
    uint64_t second = (print & 0xffffffff) * count >> 32;
    if (second != first)
        return second;
    return second + 1 < count ? second + 1 : 0;
}

static inline fdn_limiter_bucket *fdn_limiter_first_bucket(const fdn_limiter *t, uint64_t print)
{
    return &t->buckets[fdn_limiter_first_place(print, t->bucket_count)];
}

static inline fdn_limiter_bucket *fdn_limiter_second_bucket(const fdn_limiter *t, uint64_t print, const fdn_limiter_bucket *first)
{
    return &t->buckets[fdn_limiter_second_place(print, t->bucket_count, (uint64_t)(first - t->buckets))];
}

static inline bool fdn_limiter_find_in(fdn_limiter_bucket *b, uint64_t print, fdn_limiter_slot *out)
{
    for (int i = 0; i < FDN_LIMITER_SLOTS; i++) {
        if (atomic_load(&b->print[i]) == print) {
            *out = (fdn_limiter_slot){&b->print[i], &b->state[i]};
            fdn_step(FDN_STEP_FREE);
            return true;
        }
    }
    return false;
}

#endif
