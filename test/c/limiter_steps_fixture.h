/* limiter_steps_fixture.h - what the programs share that interrupt the limiter's operations: a small table, and keys that fill it. */
#ifndef FDN_TEST_LIMITER_STEPS_FIXTURE_H
#define FDN_TEST_LIMITER_STEPS_FIXTURE_H

#include <check.h>
#include <stdlib.h>

#include "base/fdn_atomic.h"
#include "base/fdn_hash.h"
#include "engine/limiter_lease.h"
#include "engine/limiter_table.h"
#include "test/c/support.h"

#define ALGORITHMS 4
#define KEYS 30 /* more than the table's 20 slots, which therefore change hands all the time */
#define LIMIT 4 /* units; gcra: one a ms, so that it need not round */

/* ms; of the sliding window no power of two, so that its ends are rounded. */
#define PERIOD (algorithm == FDN_LIMITER_SLIDING_WINDOW ? 5 : 4)

static fdn_limiter_algorithm algorithm;
static fdn_limiter *t;
static uint64_t hashes[KEYS];
static uint64_t seed = 88172645463325252ULL;

static inline uint64_t rnd(uint64_t below)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return seed % below;
}

static inline void create(fdn_limiter_on_full on_full)
{
    fdn_limiter_fit fit;
    fdn_limiter_config config = {.algorithm = algorithm,
                                 .on_full = on_full,
                                 .clock = FDN_LIMITER_MANUAL,
                                 .limit = LIMIT,
                                 .period_ms = PERIOD,
                                 .burst = LIMIT,
                                 .capacity = 1};
    ck_assert_int_eq(fdn_limiter_create(&config, &t, &fit), 0);
}

/* Keys whose insertions hold different locks, so that one can be interrupted by another. */
static inline void choose_keys(void)
{
    uint64_t mixed = PERIOD * 0x9e3779b97f4a7c15ULL, taken = 0;
    for (uint64_t i = 0, n = 0; n < KEYS; i++) {
        uint64_t hash = fdn_hash_check(&i, sizeof i, 3), stripe = (hash ^ mixed) % FDN_LIMITER_STRIPES;
        if (taken >> stripe & 1)
            continue;
        taken |= 1ULL << stripe;
        hashes[n++] = hash;
    }
}

static inline fdn_limiter_answer hit(unsigned key, uint64_t cost)
{
    return fdn_limiter_hit(t, 1, fdn_limiter_preset(t), hashes[key], cost);
}

/* The key's slot, if it has one that is not changing hands. */
static inline bool slot_of(unsigned key, fdn_limiter_slot *at)
{
    fdn_limiter_place place = fdn_limiter_place_of(t, fdn_limiter_print_of(hashes[key], PERIOD));
    bool found = fdn_limiter_find_in(place.pair[0], place.print, at) || fdn_limiter_find_in(place.pair[1], place.print, at);
    return found && atomic_load(at->state) != FDN_LIMITER_BUSY;
}

#endif
