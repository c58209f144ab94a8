/*
 * The slot protocol step by step: between two steps of one operation, others run whole operations, chosen at random, and the clock
 * moves. All answers, and the budgets that are left, must be those of the naive algorithm with the interrupted operation done at one
 * moment between its beginning and its end.
 */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "base/fdn_atomic.h"
#include "base/fdn_hash.h"
#include "engine/limiter.h"
#include "test/c/support.h"

#define KEYS 30  /* more than the table's 20 slots, which therefore change hands all the time */
#define ACTIVE 6 /* of them at a time, so that none is refused */
#define LIMIT 4  /* one unit a ms, so that gcra need not round */
#define PERIOD 4 /* ms */
#define INSIDE 7 /* most operations inside another */
#define ROUNDS 100000

static uint64_t seed = 88172645463325252ULL;

static uint64_t rnd(uint64_t below)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return seed % below;
}

typedef enum { HIT, RESET, ADVANCE } verb;

typedef struct {
    verb what;
    unsigned key; /* ADVANCE: ms */
    uint64_t cost;
    fdn_limiter_answer answer;
} operation;

/* ---- the naive algorithm -------------------------------------------------------------------------------------------------------- */

typedef struct {
    uint64_t now;
    uint64_t used[KEYS], end[KEYS]; /* fixed window: until when; gcra: ms that were still to drain, and when */
} naive;

static fdn_limiter_answer naive_hit(fdn_limiter_algorithm algorithm, naive *n, unsigned k, uint64_t cost)
{
    uint64_t used = 0, left, add = cost ? cost : 1;
    if (algorithm == FDN_LIMITER_FIXED_WINDOW) {
        if (n->now < n->end[k])
            used = n->used[k];
        left = LIMIT - used;
        if (add <= left && cost != 0) {
            n->end[k] = n->now < n->end[k] ? n->end[k] : n->now + PERIOD;
            n->used[k] = used + cost;
        }
        return (fdn_limiter_answer){add <= left, add <= left ? left - cost : 0};
    }
    uint64_t drained = n->now - n->end[k];
    used = n->used[k] > drained ? n->used[k] - drained : 0;
    bool allowed = used + add <= LIMIT;
    if (allowed && cost != 0) {
        n->used[k] = used + cost;
        n->end[k] = n->now;
    }
    return (fdn_limiter_answer){allowed, allowed ? LIMIT - used - cost : 0};
}

/*
 * Whether the naive algorithm gives this operation the answer that it got. `late`: the clock may have moved since the operation read
 * it; then it may be answered more strictly, but never more freely.
 */
static bool agrees(fdn_limiter_algorithm algorithm, naive *n, const operation *op, bool late)
{
    if (op->what == ADVANCE) {
        n->now += op->key;
    } else if (op->what == RESET) {
        n->used[op->key] = 0;
        n->end[op->key] = algorithm == FDN_LIMITER_GCRA ? n->now : 0;
    } else {
        if (late && !op->answer.allowed)
            return true;
        fdn_limiter_answer a = naive_hit(algorithm, n, op->key, op->cost);
        return a.allowed == op->answer.allowed && (!a.allowed || a.value == op->answer.value || (late && a.value > op->answer.value));
    }
    return true;
}

/* ---- the table, and what happens in between ---------------------------------------------------------------------------------------
 */

static fdn_limiter *t;
static uint64_t hashes[KEYS];
static operation outer, inside[INSIDE];
static unsigned inside_count, first_active;
static bool locked;

static void perform(operation *op)
{
    if (op->what == ADVANCE)
        ck_assert_int_eq(fdn_limiter_advance(t, op->key), 0);
    else if (op->what == RESET)
        fdn_limiter_reset(t, PERIOD, hashes[op->key]);
    else
        op->answer = fdn_limiter_hit(t, 1, fdn_limiter_preset(t), hashes[op->key], op->cost);
}

/*
 * Inside another operation two things are left out, which limiter.c (3, 4) permits and the naive algorithm does not know: a reset of
 * its key, after which the slot may go to another key in the same state, and a question about its key, which may see the budget still
 * untouched at a time at which the interrupted hit, dated before, has consumed it.
 */
static operation any_operation(void)
{
    operation op = {.what = rnd(8) == 0 ? RESET : rnd(3) == 0 ? ADVANCE : HIT, .cost = rnd(LIMIT + 1)};
    op.key = op.what == ADVANCE ? (unsigned)rnd(PERIOD + 2) : (first_active + (unsigned)rnd(ACTIVE)) % KEYS;
    return op;
}

static operation operation_inside(void)
{
    for (;;) {
        operation op = any_operation();
        if (op.what == ADVANCE || op.key != outer.key || (op.what == HIT && op.cost != 0 && !locked))
            return op;
    }
}

static void others(fdn_step_kind kind)
{
    locked = locked || kind == FDN_STEP_LOCKED;
    if (kind == FDN_STEP_CLAIMED || rnd(4) != 0)
        return;
    fdn_step_hook = NULL;
    for (uint64_t n = 1 + rnd(3); n > 0 && inside_count < INSIDE; n--) {
        inside[inside_count] = operation_inside();
        perform(&inside[inside_count++]);
    }
    fdn_step_hook = others;
}

/* Keys whose insertions hold different locks, so that one can be interrupted by another. */
static void choose_keys(void)
{
    uint64_t mixed = PERIOD * 0x9e3779b97f4a7c15ULL, taken = 0;
    for (uint64_t i = 0, n = 0; n < KEYS; i++) {
        uint64_t hash = fdn_hash_check(&i, sizeof i, 3), stripe = (hash ^ mixed) % 64;
        if (taken >> stripe & 1)
            continue;
        taken |= 1ULL << stripe;
        hashes[n++] = hash;
    }
}

/* What the naive algorithm may know by now: when several moments explain the answers, all of them stay possible. */
#define POSSIBLE 256
static naive possible[2][POSSIBLE];

static void add(fdn_limiter_algorithm algorithm, naive *set, unsigned *count, naive n)
{
    /* A budget that is back has no past. */
    for (unsigned k = 0; k < KEYS; k++) {
        if (algorithm == FDN_LIMITER_FIXED_WINDOW ? n.end[k] <= n.now : n.end[k] + n.used[k] <= n.now)
            n.used[k] = n.end[k] = 0;
    }
    for (unsigned i = 0; i < *count; i++) {
        if (memcmp(&set[i], &n, sizeof n) == 0)
            return;
    }
    ck_assert_uint_lt(*count, POSSIBLE);
    set[(*count)++] = n;
}

/* All states that are possible after this round, if there is one: the interrupted operation done at each moment in turn. */
static unsigned explain(fdn_limiter_algorithm algorithm, const naive *from, unsigned from_count, naive *to, const operation *after)
{
    unsigned to_count = 0;
    bool late = false;
    for (unsigned i = 0; i < inside_count; i++)
        late = late || inside[i].what == ADVANCE;
    for (unsigned f = 0; f < from_count; f++) {
        for (unsigned moment = 0; moment <= inside_count; moment++) {
            naive n = from[f];
            bool found = true;
            for (unsigned i = 0; i <= inside_count && found; i++)
                found = (i != moment || agrees(algorithm, &n, &outer, late)) &&
                        (i == inside_count || agrees(algorithm, &n, &inside[i], false));
            for (unsigned k = 0; k < KEYS && found; k++)
                found = agrees(algorithm, &n, &after[k], false);
            if (found)
                add(algorithm, to, &to_count, n);
        }
    }
    return to_count;
}

START_TEST(one_moment_for_each_operation)
{
    fdn_limiter_algorithm algorithm = (fdn_limiter_algorithm)_i;
    fdn_limiter_fit fit;
    unsigned interrupted = 0, count = 1;
    fdn_limiter_config config = {
        .algorithm = algorithm, .clock = FDN_LIMITER_MANUAL, .limit = LIMIT, .period_ms = PERIOD, .burst = LIMIT, .capacity = 1};
    ck_assert_int_eq(fdn_limiter_create(&config, &t, &fit), 0);
    choose_keys();
    memset(possible, 0, sizeof possible);
    for (unsigned round = 0; round < ROUNDS; round++) {
        first_active = round / 16 * 5;
        operation pause = {.what = ADVANCE, .key = (unsigned)rnd(3)};
        perform(&pause);
        for (unsigned i = 0; i < count; i++)
            possible[round % 2][i].now += pause.key;
        do
            outer = any_operation();
        while (outer.what == ADVANCE);
        inside_count = 0;
        locked = false;
        fdn_step_hook = others;
        perform(&outer);
        fdn_step_hook = NULL;
        interrupted += inside_count != 0;
        operation after[KEYS];
        for (unsigned k = 0; k < KEYS; k++) {
            after[k] = (operation){.what = HIT, .key = k, .cost = 0};
            perform(&after[k]);
        }
        count = explain(algorithm, possible[round % 2], count, possible[(round + 1) % 2], after);
        ck_assert_msg(count > 0, "round %u: no order of the operations gives these answers", round);
    }
    ck_assert_uint_gt(interrupted, ROUNDS / 4);
    fdn_limiter_stats stats;
    fdn_limiter_stats_of(t, &stats);
    ck_assert_uint_eq(stats.full, 0);
    fdn_limiter_destroy(t);
}
END_TEST

/* How many keys but the first have consumed something. */
static unsigned others_in_use(void)
{
    unsigned n = 0;
    for (unsigned k = 1; k < KEYS; k++)
        n += fdn_limiter_hit(t, 1, fdn_limiter_preset(t), hashes[k], 0).value < LIMIT;
    return n;
}

static unsigned in_use_before, steps_before;

/* A flood evicts the key that is being reset, and the slot goes to another key in the very same state: that one stays. */
static void flood(fdn_step_kind kind)
{
    locked = locked || kind == FDN_STEP_LOCKED;
    if (!locked || kind == FDN_STEP_CLAIMED || steps_before-- != 0)
        return;
    fdn_step_hook = NULL;
    for (unsigned k = 1; k < KEYS; k++)
        fdn_limiter_hit(t, 1, fdn_limiter_preset(t), hashes[k], 1);
    in_use_before = others_in_use();
}

START_TEST(reset_spares_the_newcomer)
{
    fdn_limiter_fit fit;
    fdn_limiter_stats stats;
    unsigned evicted = 0;
    fdn_limiter_config config = {.algorithm = (uint32_t)_i,
                                 .on_full = FDN_LIMITER_EVICT,
                                 .clock = FDN_LIMITER_MANUAL,
                                 .limit = LIMIT,
                                 .period_ms = PERIOD,
                                 .burst = LIMIT,
                                 .capacity = 1};
    choose_keys();
    for (unsigned round = 0; round < 200; round++) {
        uint64_t swap = hashes[0], other = 1 + rnd(KEYS - 1);
        hashes[0] = hashes[other];
        hashes[other] = swap;
        ck_assert_int_eq(fdn_limiter_create(&config, &t, &fit), 0);
        fdn_limiter_hit(t, 1, fdn_limiter_preset(t), hashes[0], 1);
        locked = false;
        steps_before = round % 3;
        fdn_step_hook = flood;
        bool reset = fdn_limiter_reset(t, PERIOD, hashes[0]);
        fdn_step_hook = NULL;
        fdn_limiter_stats_of(t, &stats);
        ck_assert_uint_eq(stats.live + stats.evicted + reset, KEYS);
        ck_assert_uint_eq(others_in_use(), in_use_before);
        evicted += !reset;
        fdn_limiter_destroy(t);
    }
    ck_assert_uint_gt(evicted, 10);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("limiter_steps");
    TCase *c = tcase_create("steps");
    tcase_set_timeout(c, 300);
    tcase_add_loop_test(c, one_moment_for_each_operation, 0, 2);
    tcase_add_loop_test(c, reset_spares_the_newcomer, 0, 2);
    suite_add_tcase(s, c);
    return support_run(s);
}
