/*
 * limiter_table.h - what the files of the limiter's engine share: how a table is laid out, its clock, and how a key's slot is found.
 *
 * limiter.h is the contract, and the protocol stands at the top of limiter.c. What a hit runs through is inline, here and there.
 */
#ifndef FDN_ENGINE_LIMITER_TABLE_H
#define FDN_ENGINE_LIMITER_TABLE_H

#include <pthread.h>

#include "base/fdn_atomic.h"
#include "base/fdn_inline.h"
#include "engine/limiter.h"

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
    _Atomic bool denying; /* the last hit was denied */
    char pad[FDN_CACHE_LINE - 17];
} fdn_limiter_counters;

typedef struct {
    _Alignas(FDN_CACHE_LINE) pthread_mutex_t lock;
    _Atomic uint64_t full, evicted; /* written under the lock */
} fdn_limiter_stripe;

struct fdn_limiter {
    /* As fdn_limiter_front. */
    fdn_limiter_secret secret;
    fdn_limiter_rule preset;
    fdn_limiter_config config;

    fdn_limiter_bucket *buckets;
    uint64_t bucket_count;
    fdn_limiter_algorithm algorithm;
    fdn_limiter_clock clock;
    uint64_t epoch_ns;
    uint64_t coarse_from_ms; /* periods from here on may use the coarse clock, where it is auto */
    uint64_t tick_ms;        /* of the coarse clock, rounded up */
    bool preset_coarse;
    fdn_limiter_counters *lanes;
    size_t mapped;
    void *mapping;
    void *block;                   /* what this struct was allocated in */
    struct fdn_limiter_file *file; /* where the buckets are, or NULL */
    fdn_limiter *leases;           /* limiter_lease.h, or NULL */
    _Atomic bool discard;          /* the file goes with the table */
    uint64_t dropped;              /* slots, when it was opened */
    _Atomic uint64_t manual_ns;
    fdn_limiter_stripe stripes[FDN_LIMITER_STRIPES];
};

#define FDN_LIMITER_IN_FRONT(FIELD)                                                                                                    \
    _Static_assert(offsetof(struct fdn_limiter, FIELD) == offsetof(fdn_limiter_front, FIELD), "a table begins with its front")
FDN_LIMITER_IN_FRONT(secret);
FDN_LIMITER_IN_FRONT(preset);
FDN_LIMITER_IN_FRONT(config);

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

/* Whether every operation on keys of this period goes by the coarse clock, under whatever rule. */
static inline bool fdn_limiter_all_coarse(const fdn_limiter *t, uint64_t period_ms)
{
    if (t->clock != FDN_LIMITER_AUTO)
        return t->clock == FDN_LIMITER_COARSE;
    return period_ms >= t->coarse_from_ms && (period_ms != t->preset.period_ms || t->preset_coarse);
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
    uint64_t coarse = t->clock == FDN_LIMITER_AUTO ? fdn_clock_coarse_ns() - t->epoch_ns : now;
    return coarse < now ? coarse : now;
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

/* ---- changing ------------------------------------------------------------------------------------------------------------------- */

typedef struct {
    fdn_limiter_answer answer;
    bool stored;               /* `next` took the place of `state` */
    bool full;                 /* it did not, for want of a slot */
    uint64_t state, next, now; /* only then: the two words, and the time (ns) of the decision */
} fdn_limiter_outcome;

/*
 * What an operation makes of a state: its answer, and whether *next is to be stored. Asked again where another thread came first.
 * `units` and `ms`: what the operation was given, by value, here and below: what has an address lives in memory, and a hit that finds
 * its key needs none.
 */
typedef bool fdn_limiter_change(fdn_limiter_algorithm algorithm, const fdn_limiter_rule *rule, uint64_t units, uint64_t ms,
                                uint64_t state, uint64_t now_ns, uint64_t *next, fdn_limiter_answer *answer);

/* Where a key may be. */
typedef struct {
    uint64_t print;
    fdn_limiter_bucket *pair[2];
} fdn_limiter_place;

static FDN_INLINE fdn_limiter_place fdn_limiter_place_of(const fdn_limiter *t, uint64_t print)
{
    uint64_t first = fdn_limiter_first_place(print, t->bucket_count);
    __builtin_prefetch(&t->buckets[first]);
    uint64_t second = fdn_limiter_second_place(print, t->bucket_count, first);
    __builtin_prefetch(&t->buckets[second]);
    return (fdn_limiter_place){print, {&t->buckets[first], &t->buckets[second]}};
}

/* Change the state in a slot that showed the key. False: it is changing hands, or has, and nothing is done to the key. */
static FDN_INLINE bool fdn_limiter_change_slot(fdn_limiter_algorithm algorithm, const fdn_limiter_rule *rule,
                                               fdn_limiter_change *change, uint64_t units, uint64_t ms, fdn_limiter_slot at,
                                               uint64_t print, uint64_t now, fdn_limiter_outcome *out)
{
    uint64_t state = atomic_load(at.state);
    for (;;) {
        if (state == FDN_LIMITER_BUSY || atomic_load(at.print) != print)
            return false;
        out->stored = change(algorithm, rule, units, ms, state, now, &out->next, &out->answer);
        out->state = state;
        out->now = now;
        out->full = false;
        fdn_step(FDN_STEP_FREE);
        if (!out->stored)
            return true;
        if (atomic_compare_exchange_strong(at.state, &state, out->next))
            return atomic_load(at.print) == print;
    }
}

/*
 * limiter.c. The same under the lock of the key's stripe, where the key is inserted if it is absent. What is there is judged by a clock
 * that was read after it; a lease is changed by way of a claim.
 */
fdn_limiter_outcome fdn_limiter_change_locked(fdn_limiter *t, const fdn_limiter_rule *rule, fdn_limiter_change *change, uint64_t units,
                                              uint64_t ms, fdn_limiter_place place);

/* The same wherever the key is. `algorithm` is the table's, a constant where that makes a shorter way. */
static FDN_INLINE fdn_limiter_outcome fdn_limiter_change_key(fdn_limiter *t, fdn_limiter_algorithm algorithm,
                                                             const fdn_limiter_rule *rule, fdn_limiter_change *change, uint64_t units,
                                                             uint64_t ms, uint64_t hash)
{
    fdn_limiter_place place = fdn_limiter_place_of(t, fdn_limiter_print_of(hash, rule->period_ms));
    uint64_t now = fdn_limiter_read_clock(t, fdn_limiter_uses_coarse(t, rule));
    fdn_limiter_outcome out;
    fdn_limiter_slot at;
    fdn_step(FDN_STEP_FREE);
    if ((fdn_limiter_find_in(place.pair[0], place.print, &at) || fdn_limiter_find_in(place.pair[1], place.print, &at)) &&
        fdn_limiter_change_slot(algorithm, rule, change, units, ms, at, place.print, now, &out))
        return out;
    return fdn_limiter_change_locked(t, rule, change, units, ms, place);
}

/* limiter.c. Find the key in its place, under its stripe's lock: while that is held, "not found" stays true. */
bool fdn_limiter_find_settled(const fdn_limiter_place *place, fdn_limiter_slot *out);

/*
 * limiter.c. Put `next` in the place of `state` in the key's slot, under its stripe's lock; in the place of a lease by way of a claim.
 * FDN_LIMITER_FRESH: the slot becomes a free one. False: it is not, or no longer, the key's slot in this state.
 */
bool fdn_limiter_exchange(const fdn_limiter *t, fdn_limiter_slot at, uint64_t print, uint64_t state, uint64_t next);

/* The answer of a hit, counted, as its caller is to see it. */
static FDN_INLINE fdn_limiter_answer fdn_limiter_counted(fdn_limiter *t, fdn_limiter_algorithm algorithm, unsigned lane,
                                                         const fdn_limiter_rule *rule, uint64_t cost, fdn_limiter_answer answer)
{
    if (algorithm == FDN_LIMITER_LEASE && !answer.allowed && answer.value == FDN_LIMITER_ASK)
        return answer;
    /* The caller may read the coarse clock just after a tick and come back just before one. */
    if (!answer.allowed && rule->units != 0 && fdn_limiter_uses_coarse(t, rule))
        answer.value += t->tick_ms;
#ifndef FDN_LIMITER_UNCOUNTED /* bench/hits.c */
    if (cost != 0) {
        _Atomic uint64_t *counter = answer.allowed ? &t->lanes[lane].allowed : &t->lanes[lane].denied;
        if (lane == 0)
            atomic_fetch_add_explicit(counter, 1, memory_order_relaxed);
        else
            atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + 1, memory_order_relaxed);
        if (atomic_load_explicit(&t->lanes[lane].denying, memory_order_relaxed) == answer.allowed)
            atomic_store_explicit(&t->lanes[lane].denying, !answer.allowed, memory_order_relaxed);
    }
#endif
    return answer;
}

/* A hit. */
static FDN_INLINE bool fdn_limiter_hit_change(fdn_limiter_algorithm algorithm, const fdn_limiter_rule *rule, uint64_t units,
                                              uint64_t ms, uint64_t state, uint64_t now_ns, uint64_t *next, fdn_limiter_answer *answer)
{
    answer->allowed = fdn_limiter_decide(algorithm, rule, state, now_ns, units, next, &answer->value);
    return answer->allowed && units != 0;
}

#endif
