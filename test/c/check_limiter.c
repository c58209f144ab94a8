/* The limiter's engine against naive references with a manual clock, its ranges, its full table, its names, and allocation failure. */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "base/fdn_alloc.h"
#include "base/fdn_error.h"
#include "base/fdn_hash.h"
#include "engine/limiter.h"
#include "test/c/support.h"

static uint64_t seed = 88172645463325252ULL;

static uint64_t rnd(uint64_t below)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return seed % below;
}

static uint64_t hash_of(uint64_t key)
{
    return fdn_hash_check(&key, sizeof key, 7);
}

static fdn_limiter *table(fdn_limiter_config config)
{
    fdn_limiter *t;
    fdn_limiter_fit fit;
    ck_assert_int_eq(fdn_limiter_create(&config, &t, &fit), 0);
    ck_assert_ptr_nonnull(t);
    return t;
}

static fdn_limiter_answer hit(fdn_limiter *t, uint64_t key, uint64_t cost)
{
    return fdn_limiter_hit(t, 1, fdn_limiter_preset(t), hash_of(key), cost);
}

static fdn_limiter_stats stats_of(fdn_limiter *t)
{
    fdn_limiter_stats s;
    fdn_limiter_stats_of(t, &s);
    return s;
}

/* ---- naive references ----------------------------------------------------------------------------------------------------------- */

/*
 * gcra as the leaky bucket of I.371, the other way to write the same algorithm: a level that drains with time. fixed_window by the
 * book. sliding_window keeps the units of the two latest windows that had any. All in 128-bit integers and plain variables, no packing.
 */
typedef struct {
    unsigned __int128 level, last; /* gcra, 1/16 ns */
    uint64_t end_ms, used;         /* fixed window */
    uint64_t window[2], units[2];  /* sliding window: numbers and contents of two windows, the later one first */
} naive;

static bool naive_sliding(naive *n, uint64_t now_ms, uint64_t limit, uint64_t period_ms, uint64_t cost)
{
    uint64_t number = now_ms / period_ms, left = period_ms - now_ms % period_ms;
    unsigned __int128 counts = 0;
    for (int i = 0; i < 2; i++) {
        if (n->window[i] == number)
            counts += (unsigned __int128)n->units[i] * period_ms;
        else if (n->window[i] + 1 == number)
            counts += (unsigned __int128)n->units[i] * left;
    }
    if (counts + (unsigned __int128)cost * period_ms > (unsigned __int128)limit * period_ms)
        return false;
    if (n->window[0] != number) {
        n->window[1] = n->window[0];
        n->units[1] = n->units[0];
        n->window[0] = number;
        n->units[0] = 0;
    }
    n->units[0] += cost;
    return true;
}

static bool naive_hit(fdn_limiter_algorithm algorithm, naive *n, uint64_t now_ms, uint64_t limit, uint64_t period_ms, uint64_t burst,
                      uint64_t cost)
{
    if (limit == 0)
        return false;
    if (algorithm == FDN_LIMITER_SLIDING_WINDOW)
        return naive_sliding(n, now_ms, limit, period_ms, cost);
    if (algorithm == FDN_LIMITER_FIXED_WINDOW) {
        if (now_ms >= n->end_ms)
            *n = (naive){.end_ms = now_ms + period_ms};
        if (n->used + cost > limit)
            return false;
        n->used += cost;
        return true;
    }
    unsigned __int128 now = (unsigned __int128)now_ms * 16000000, each = ((unsigned __int128)period_ms * 16000000 + limit - 1) / limit;
    unsigned __int128 drained = now - n->last, level = n->level > drained ? n->level - drained : 0;
    if (level + each * cost > each * burst)
        return false;
    n->level = level + each * cost;
    n->last = now;
    return true;
}

#define ALGORITHMS 3
#define KEYS 40
#define PERIODS 3

/* Random hits, peeks, resets and steps of the clock on one table, every answer compared. */
static void compare(fdn_limiter_algorithm algorithm, uint64_t limit, uint64_t period_ms, uint64_t burst)
{
    fdn_limiter *t = table((fdn_limiter_config){.algorithm = algorithm,
                                                .clock = FDN_LIMITER_MANUAL,
                                                .limit = limit,
                                                .period_ms = period_ms,
                                                .burst = burst,
                                                .capacity = KEYS * PERIODS});
    static naive reference[KEYS][PERIODS];
    memset(reference, 0, sizeof reference);
    uint64_t now = 0, allowed = 0;
    for (int i = 0; i < 6000; i++) {
        uint64_t key = rnd(KEYS), p = rnd(PERIODS), use_limit = limit, use_burst = burst, use_period = period_ms;
        fdn_limiter_rule own;
        const fdn_limiter_rule *rule = fdn_limiter_preset(t);
        if (p != 0) {
            use_period = period_ms * (p + 1);
            use_burst = use_limit = 1 + rnd(2 * limit);
            if (algorithm == FDN_LIMITER_SLIDING_WINDOW && use_limit > fdn_limiter_sliding_max(use_period))
                use_burst = use_limit = fdn_limiter_sliding_max(use_period);
            ck_assert_int_eq(fdn_limiter_rule_make(algorithm, use_limit, use_period, use_burst, &own), FDN_LIMITER_FITS);
            rule = &own;
        }
        naive *n = &reference[key][p], copy = *n;
        uint64_t cost = rnd(4) ? 1 : rnd(use_burst + 1);
        if (rnd(50) == 0) {
            fdn_limiter_reset(t, use_period, hash_of(key));
            *n = (naive){0};
            continue;
        }
        fdn_limiter_answer a = fdn_limiter_hit(t, 1, rule, hash_of(key), cost);
        bool expected = naive_hit(algorithm, cost ? n : &copy, now, use_limit, use_period, use_burst, cost ? cost : 1);
        ck_assert_msg(a.allowed == expected, "hit %d: key %lu cost %lu at %lu: %d, not %d", i, (unsigned long)key, (unsigned long)cost,
                      (unsigned long)now, a.allowed, expected);
        allowed += a.allowed && cost != 0;
        copy = *n;
        if (a.allowed) {
            /* What remains can be taken at once, and not one more. */
            naive again = copy;
            ck_assert(a.value == 0 || naive_hit(algorithm, &again, now, use_limit, use_period, use_burst, a.value));
            ck_assert(!naive_hit(algorithm, &copy, now, use_limit, use_period, use_burst, a.value + 1));
        } else {
            /* After the retry time the same hit passes, and not a millisecond before. */
            naive before = copy;
            ck_assert_uint_gt(a.value, 0);
            ck_assert(!naive_hit(algorithm, &before, now + a.value - 1, use_limit, use_period, use_burst, cost ? cost : 1));
            ck_assert(naive_hit(algorithm, &copy, now + a.value, use_limit, use_period, use_burst, cost ? cost : 1));
        }
        if (rnd(3) == 0) {
            uint64_t step = rnd(1 + period_ms / (1 + rnd(20)));
            if (fdn_limiter_advance(t, step) == FDN_ETOOBIG)
                break;
            now += step;
        }
    }
    ck_assert_uint_gt(allowed, 100);
    ck_assert_uint_eq(stats_of(t).evicted, 0);
    ck_assert_uint_eq(stats_of(t).now_ms, now);
    fdn_limiter_destroy(t);
}

START_TEST(agrees_with_naive)
{
    fdn_limiter_algorithm algorithm = (fdn_limiter_algorithm)_i;
    uint64_t limits[] = {1, 2, 3, 7, 20, 1000, 16777214}, periods[] = {1, 2, 10, 999, 60000, FDN_LIMITER_MAX_PERIOD_MS / PERIODS};
    for (unsigned l = 0; l < sizeof limits / sizeof *limits; l++) {
        for (unsigned p = 0; p < sizeof periods / sizeof *periods; p++) {
            uint64_t limit = limits[l] > 8388607 ? 8388607 : limits[l];
            if (algorithm == FDN_LIMITER_SLIDING_WINDOW && limit > fdn_limiter_sliding_max(periods[p]))
                limit = fdn_limiter_sliding_max(periods[p]);
            if (algorithm == FDN_LIMITER_GCRA && limit > periods[p] * 500000)
                continue;
            uint64_t burst = algorithm == FDN_LIMITER_GCRA ? 1 + rnd(2 * limit) : limit;
            compare(algorithm, limit, periods[p], burst);
        }
    }
}
END_TEST

/* ---- ranges --------------------------------------------------------------------------------------------------------------------- */

START_TEST(ends_of_ranges)
{
    fdn_limiter_rule r;
    const uint64_t year = FDN_LIMITER_MAX_PERIOD_MS;
    ck_assert_int_eq(fdn_limiter_rule_make(FDN_LIMITER_GCRA, 1, 0, 1, &r), FDN_LIMITER_BAD_PERIOD);
    ck_assert_int_eq(fdn_limiter_rule_make(FDN_LIMITER_GCRA, 1, year + 1, 1, &r), FDN_LIMITER_BAD_PERIOD);
    ck_assert_int_eq(fdn_limiter_rule_make(FDN_LIMITER_GCRA, 1, UINT64_MAX, 1, &r), FDN_LIMITER_BAD_PERIOD);
    ck_assert_int_eq(fdn_limiter_rule_make(FDN_LIMITER_GCRA, 1000000, 1, 1000000, &r), FDN_LIMITER_FITS);
    ck_assert_uint_eq(r.emission, 16);
    ck_assert_int_eq(fdn_limiter_rule_make(FDN_LIMITER_GCRA, 1000001, 1, 1, &r), FDN_LIMITER_BAD_LIMIT);
    ck_assert_int_eq(fdn_limiter_rule_make(FDN_LIMITER_GCRA, UINT64_MAX, year, 1, &r), FDN_LIMITER_BAD_LIMIT);
    ck_assert_int_eq(fdn_limiter_rule_make(FDN_LIMITER_GCRA, 1, year, 1, &r), FDN_LIMITER_FITS);
    ck_assert_int_eq(fdn_limiter_rule_make(FDN_LIMITER_GCRA, year * 1000000, year, year * 1000000, &r), FDN_LIMITER_FITS);
    ck_assert_int_eq(fdn_limiter_rule_make(FDN_LIMITER_GCRA, 1, year, 4, &r), FDN_LIMITER_FITS);
    ck_assert_int_eq(fdn_limiter_rule_make(FDN_LIMITER_GCRA, 1, year, 5, &r), FDN_LIMITER_BAD_BURST);
    ck_assert_int_eq(fdn_limiter_rule_make(FDN_LIMITER_GCRA, 1, year, UINT64_MAX, &r), FDN_LIMITER_BAD_BURST);
    ck_assert_int_eq(fdn_limiter_rule_make(FDN_LIMITER_GCRA, 1, 1, 0, &r), FDN_LIMITER_BAD_BURST);
    ck_assert_int_eq(fdn_limiter_rule_make(FDN_LIMITER_FIXED_WINDOW, 16777214, year, 0, &r), FDN_LIMITER_FITS);
    ck_assert_int_eq(fdn_limiter_rule_make(FDN_LIMITER_FIXED_WINDOW, 16777215, year, 0, &r), FDN_LIMITER_BAD_LIMIT);
    struct {
        uint64_t period_ms, most;
    } sliding[] = {{1, 1023},          {1000, 16383},       {60000, 131071},
                   {3600000, 1048575}, {86400000, 8388607}, {25ULL * 86400000, 33554431},
                   {year, 33554431}};
    for (unsigned i = 0; i < sizeof sliding / sizeof *sliding; i++) {
        uint64_t period = sliding[i].period_ms, most = sliding[i].most;
        ck_assert_int_eq(fdn_limiter_rule_make(FDN_LIMITER_SLIDING_WINDOW, most, period, 0, &r), FDN_LIMITER_FITS);
        ck_assert_int_eq(fdn_limiter_rule_make(FDN_LIMITER_SLIDING_WINDOW, most + 1, period, 0, &r), FDN_LIMITER_BAD_LIMIT);
        ck_assert_int_eq(fdn_limiter_rule_make(FDN_LIMITER_SLIDING_WINDOW, UINT64_MAX, period, 0, &r), FDN_LIMITER_BAD_LIMIT);
    }
    ck_assert_int_eq(fdn_limiter_rule_make(FDN_LIMITER_SLIDING_WINDOW, 1, 0, 0, &r), FDN_LIMITER_BAD_PERIOD);
    ck_assert_int_eq(fdn_limiter_rule_make(FDN_LIMITER_SLIDING_WINDOW, 1, year + 1, 0, &r), FDN_LIMITER_BAD_PERIOD);
    /* Never a rate above the one asked for: the interval is rounded up. */
    for (int i = 0; i < 10000; i++) {
        uint64_t period = 1 + rnd(1 + rnd(year)), limit = 1 + rnd(1 + rnd(period * 1000000));
        ck_assert_int_eq(fdn_limiter_rule_make(FDN_LIMITER_GCRA, limit, period, 1, &r), FDN_LIMITER_FITS);
        ck_assert((unsigned __int128)r.emission * limit >= (unsigned __int128)period * 16000000);
        ck_assert((unsigned __int128)(r.emission - 1) * limit < (unsigned __int128)period * 16000000);
    }
    fdn_limiter *t;
    fdn_limiter_fit fit;
    fdn_limiter_config bad[] = {{.capacity = 0},
                                {.capacity = FDN_LIMITER_MAX_CAPACITY + 1},
                                {.capacity = 1, .limit = 1},
                                {.capacity = 1, .algorithm = 9},
                                {.capacity = 1, .period_ms = 1, .limit = 1, .burst = 0}};
    for (unsigned i = 0; i < sizeof bad / sizeof *bad; i++) {
        ck_assert_int_eq(fdn_limiter_create(&bad[i], &t, &fit), FDN_EINVAL);
        ck_assert_ptr_null(t);
        ck_assert_int_ne(fit, FDN_LIMITER_FITS);
    }
}
END_TEST

/* At the last moment that the manual clock can reach, with the longest period and the largest cost. */
START_TEST(end_of_time)
{
    fdn_limiter_algorithm algorithm = (fdn_limiter_algorithm)_i;
    uint64_t burst = algorithm == FDN_LIMITER_GCRA ? 4 : 1;
    fdn_limiter *t = table((fdn_limiter_config){.algorithm = algorithm,
                                                .clock = FDN_LIMITER_MANUAL,
                                                .limit = 1,
                                                .period_ms = FDN_LIMITER_MAX_PERIOD_MS,
                                                .burst = burst,
                                                .capacity = 10});
    ck_assert(hit(t, 1, burst).allowed);
    uint64_t all = algorithm == FDN_LIMITER_SLIDING_WINDOW ? FDN_LIMITER_MAX_SLIDING_NOW_MS : FDN_LIMITER_MAX_NOW_NS / FDN_NS_PER_MS;
    ck_assert_int_eq(fdn_limiter_advance(t, all + 1), FDN_ETOOBIG);
    ck_assert_int_eq(fdn_limiter_advance(t, UINT64_MAX), FDN_ETOOBIG);
    ck_assert_int_eq(fdn_limiter_advance(t, all), 0);
    ck_assert_int_eq(fdn_limiter_advance(t, 1), FDN_ETOOBIG);
    ck_assert(hit(t, 1, burst).allowed);
    fdn_limiter_answer a = hit(t, 1, 1);
    ck_assert(!a.allowed);
    if (algorithm == FDN_LIMITER_SLIDING_WINDOW) /* the end of the next window */
        ck_assert_uint_eq(a.value, 2 * FDN_LIMITER_MAX_PERIOD_MS - all % FDN_LIMITER_MAX_PERIOD_MS);
    else
        ck_assert_uint_eq(a.value, FDN_LIMITER_MAX_PERIOD_MS);
    ck_assert(hit(t, 2, burst).allowed);
    fdn_limiter_destroy(t);
}
END_TEST

START_TEST(limit_zero_denies)
{
    fdn_limiter *t =
        table((fdn_limiter_config){.algorithm = (uint32_t)_i, .clock = FDN_LIMITER_MANUAL, .period_ms = 70, .capacity = 10});
    for (uint64_t cost = 0; cost < 3; cost++) {
        fdn_limiter_answer a = hit(t, 1, cost);
        ck_assert(!a.allowed);
        ck_assert_uint_eq(a.value, 70);
    }
    fdn_limiter_stats s = stats_of(t);
    ck_assert_uint_eq(s.live, 0);
    ck_assert_uint_eq(s.denied, 2); /* the one of cost 0 was a question */
    fdn_limiter_destroy(t);
}
END_TEST

/* The real clocks run, and the coarse one adds its tick to the retry time. */
START_TEST(real_clocks)
{
    uint64_t tick = (fdn_clock_coarse_resolution_ns() + FDN_NS_PER_MS - 1) / FDN_NS_PER_MS;
    struct {
        uint64_t period_ms;
        fdn_limiter_clock clock;
        bool coarse;
    } cases[] = {{3600000, FDN_LIMITER_PRECISE, false},
                 {1, FDN_LIMITER_COARSE, true},
                 {250 * tick, FDN_LIMITER_AUTO, true},
                 {250 * tick - 1, FDN_LIMITER_AUTO, false}};
    for (unsigned i = 0; i < sizeof cases / sizeof *cases; i++) {
        for (uint32_t algorithm = 0; algorithm < ALGORITHMS; algorithm++) {
            fdn_limiter *t = table((fdn_limiter_config){.algorithm = algorithm,
                                                        .clock = cases[i].clock,
                                                        .limit = 1,
                                                        .period_ms = cases[i].period_ms,
                                                        .burst = 1,
                                                        .capacity = 10});
            ck_assert(stats_of(t).coarse == cases[i].coarse);
            fdn_limiter_answer a = hit(t, 1, 1);
            ck_assert(a.allowed);
            a = hit(t, 1, 1);
            uint64_t longest = algorithm == FDN_LIMITER_SLIDING_WINDOW ? 2 * cases[i].period_ms : cases[i].period_ms + 1;
            if (!a.allowed)
                ck_assert_uint_le(a.value, longest + (cases[i].coarse ? tick : 0));
            ck_assert_int_eq(fdn_limiter_advance(t, 1), FDN_EINVAL);
            fdn_limiter_destroy(t);
        }
    }
}
END_TEST

/* ---- the table ------------------------------------------------------------------------------------------------------------------ */

static fdn_limiter_config small(fdn_limiter_on_full on_full, uint64_t capacity)
{
    return (fdn_limiter_config){.algorithm = FDN_LIMITER_FIXED_WINDOW,
                                .on_full = on_full,
                                .clock = FDN_LIMITER_MANUAL,
                                .limit = 1000,
                                .period_ms = 1000,
                                .burst = 1000,
                                .capacity = capacity};
}

START_TEST(capacity_fits)
{
    uint64_t keys = 0, full = 0, capacities[] = {1, 2, 3, 10, 50, 100, 333, 1000, 5000, 200000};
    for (unsigned i = 0; i < sizeof capacities / sizeof *capacities; i++) {
        fdn_limiter *t = table(small(FDN_LIMITER_DENY, capacities[i]));
        for (uint64_t k = 0; k < capacities[i]; k++)
            hit(t, rnd(UINT64_MAX), 1);
        fdn_limiter_stats s = stats_of(t);
        ck_assert_uint_eq(s.live + s.full, capacities[i]);
        keys += capacities[i];
        full += s.full;
        fdn_limiter_destroy(t);
    }
    ck_assert_uint_le(full, keys / 1000);
}
END_TEST

/* At rest a key needs no slot: the table serves any number of keys one after the other. */
START_TEST(expired_slots_are_recycled)
{
    fdn_limiter *t = table(small(FDN_LIMITER_DENY, 100));
    for (uint64_t k = 0; k < 100000; k++) {
        if (k % 50 == 0)
            ck_assert_int_eq(fdn_limiter_advance(t, 1000), 0);
        ck_assert(hit(t, k, 1).allowed);
    }
    ck_assert_uint_eq(stats_of(t).full, 0);
    ck_assert_uint_eq(stats_of(t).live, 50);
    fdn_limiter_destroy(t);
}
END_TEST

START_TEST(full_table)
{
    fdn_limiter *t = table(small(FDN_LIMITER_DENY, 1));
    uint64_t denied = 0;
    ck_assert_int_eq(fdn_limiter_advance(t, 400), 0);
    for (uint64_t k = 0; k < 1000; k++) {
        fdn_limiter_answer a = hit(t, k, 1);
        if (!a.allowed)
            ck_assert_uint_eq(a.value, 1000);
        denied += !a.allowed;
    }
    fdn_limiter_stats s = stats_of(t);
    ck_assert_uint_eq(s.slots, 20);
    ck_assert_uint_eq(s.live, 20);
    ck_assert_uint_eq(s.full, 980);
    ck_assert_uint_eq(denied, 980);
    ck_assert_uint_eq(s.denied, 980);
    fdn_limiter_destroy(t);

    t = table(small(FDN_LIMITER_ALLOW, 1));
    for (uint64_t k = 0; k < 1000; k++)
        ck_assert(hit(t, k, 1).allowed);
    ck_assert_uint_eq(stats_of(t).full, 980);
    ck_assert_uint_eq(stats_of(t).evicted, 0);
    fdn_limiter_destroy(t);

    t = table(small(FDN_LIMITER_EVICT, 1));
    for (uint64_t k = 0; k < 1000; k++)
        ck_assert(hit(t, k, 1).allowed);
    ck_assert_uint_eq(stats_of(t).evicted, 980);
    fdn_limiter_destroy(t);
}
END_TEST

START_TEST(flood_leaves_the_busy_key_alone)
{
    for (uint32_t algorithm = 0; algorithm < ALGORITHMS; algorithm++) {
        fdn_limiter_config config = small(FDN_LIMITER_EVICT, 1000);
        config.algorithm = algorithm;
        config.period_ms = 1000000;
        fdn_limiter *t = table(config);
        uint64_t bytes = stats_of(t).bytes + 64; /* and this thread's counters */
        uint64_t allowed = 0;
        for (int i = 0; i < 10; i++)
            allowed += hit(t, 0, 1).allowed;
        for (uint64_t k = 1; k <= 200000; k++) {
            hit(t, k, 1);
            if (k % 100 == 0)
                allowed += hit(t, 0, 1).allowed;
        }
        ck_assert_uint_eq(allowed, 1000);
        ck_assert_uint_gt(stats_of(t).evicted, 150000);
        ck_assert_uint_eq(stats_of(t).bytes, bytes);
        fdn_limiter_destroy(t);
    }
}
END_TEST

START_TEST(reset_gives_back)
{
    fdn_limiter *t = table(small(FDN_LIMITER_EVICT, 100));
    ck_assert(!fdn_limiter_reset(t, 1000, hash_of(1)));
    ck_assert(hit(t, 1, 1000).allowed);
    ck_assert(!hit(t, 1, 1).allowed);
    ck_assert(!fdn_limiter_reset(t, 999, hash_of(1)));
    ck_assert(!hit(t, 1, 1).allowed);
    ck_assert(fdn_limiter_reset(t, 1000, hash_of(1)));
    ck_assert(!fdn_limiter_reset(t, 1000, hash_of(1)));
    ck_assert_uint_eq(stats_of(t).live, 0);
    ck_assert_uint_eq(hit(t, 1, 0).value, 1000);
    ck_assert(hit(t, 1, 1000).allowed);
    fdn_limiter_destroy(t);
}
END_TEST

#ifdef FDN_ALLOC_FAULTS
START_TEST(allocation_failures)
{
    fdn_limiter_config config = small(FDN_LIMITER_EVICT, 1000);
    fdn_limiter *t = NULL;
    fdn_limiter_fit fit;
    int n, rc;
    for (n = 0; n < 20; n++) {
        fdn_alloc_budget = n;
        rc = fdn_limiter_create(&config, &t, &fit);
        fdn_alloc_budget = -1;
        if (rc == 0)
            break;
        ck_assert_int_eq(rc, FDN_ENOMEM);
        ck_assert_ptr_null(t);
    }
    ck_assert_int_eq(n, 2); /* the struct, the pages */
    fdn_limiter_destroy(t);
    fdn_limiter_destroy(NULL);
}
END_TEST
#endif

int main(void)
{
    Suite *s = suite_create("limiter");
    TCase *c = tcase_create("engine");
    tcase_set_timeout(c, 300);
    tcase_add_loop_test(c, agrees_with_naive, 0, ALGORITHMS);
    tcase_add_test(c, ends_of_ranges);
    tcase_add_loop_test(c, end_of_time, 0, ALGORITHMS);
    tcase_add_loop_test(c, limit_zero_denies, 0, ALGORITHMS);
    tcase_add_test(c, real_clocks);
    tcase_add_test(c, capacity_fits);
    tcase_add_test(c, expired_slots_are_recycled);
    tcase_add_test(c, full_table);
    tcase_add_test(c, flood_leaves_the_busy_key_alone);
    tcase_add_test(c, reset_gives_back);
#ifdef FDN_ALLOC_FAULTS
    tcase_add_test(c, allocation_failures);
#endif
    suite_add_tcase(s, c);
    return support_run(s);
}
