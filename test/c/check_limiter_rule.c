/* The arithmetic of the state words by itself: fractions of a millisecond, the ends of the sliding window's ranges, and words that
 * nothing in this program has written. */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "base/fdn_hash.h"
#include "engine/limiter_table.h"
#include "test/c/support.h"

#define ALGORITHMS 4

static uint64_t seed = 88172645463325252ULL;

static uint64_t rnd(uint64_t below)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return seed % below;
}

static fdn_limiter_rule rule_of(fdn_limiter_algorithm algorithm, uint64_t limit, uint64_t period_ms)
{
    fdn_limiter_rule r;
    ck_assert_int_eq(fdn_limiter_rule_make(algorithm, limit, period_ms, limit, &r), FDN_LIMITER_FITS);
    return r;
}

/*
 * Hits at any nanosecond. The reference keeps them all, and asks of the window at hand, and at any moment, only what the algorithm
 * promises: a sliding window counts at least what the exact moment would; a fixed one is no shorter than its period; and by the time
 * that a denial told, the hit is admitted.
 */
START_TEST(fractions_of_a_millisecond)
{
    const uint64_t period = 7, limit = 50;
    fdn_limiter_rule r = rule_of((fdn_limiter_algorithm)_i, limit, period);
    uint64_t now = 0, state = FDN_LIMITER_FRESH, times[200], opened = 0;
    unsigned count = 0, denied = 0;
    for (unsigned i = 0; i < 20000; i++) {
        uint64_t next, value, admitted = 0;
        bool ok = fdn_limiter_decide((fdn_limiter_algorithm)_i, &r, state, now, 1, &next, &value);
        if (_i == FDN_LIMITER_SLIDING_WINDOW) {
            /* Multiplied by the period in ns. */
            uint64_t p = period * FDN_NS_PER_MS, begin = now - now % p, sum = 0;
            unsigned kept = 0;
            for (unsigned j = 0; j < count; j++) {
                if (times[j] + p < begin)
                    continue;
                times[kept++] = times[j];
                sum += times[j] >= begin ? p : times[j] >= begin - p ? p - now % p : 0;
            }
            count = kept;
            if (ok)
                ck_assert_uint_le(sum + p, limit * p);
            if (ok && count < 200)
                times[count++] = now;
        } else {
            if (ok && (state == FDN_LIMITER_FRESH || next >> 24 != state >> 24)) {
                ck_assert(state == FDN_LIMITER_FRESH || now >= opened + period * FDN_NS_PER_MS);
                opened = now;
            }
        }
        if (!ok) {
            denied++;
            ck_assert(fdn_limiter_decide((fdn_limiter_algorithm)_i, &r, state, now + value * FDN_NS_PER_MS, 1, &next, &admitted));
        } else {
            state = next;
        }
        now += rnd(2 * period * FDN_NS_PER_MS / limit);
    }
    ck_assert_uint_gt(denied, 1000);
}
END_TEST

/* A hit that is denied now, of a word as it stands: not a millisecond before the time that it was told, and then for sure. */
static uint64_t told_exactly(const fdn_limiter_rule *r, uint64_t state, uint64_t now_ms, uint64_t cost)
{
    uint64_t next, wait, value;
    ck_assert(!fdn_limiter_decide(FDN_LIMITER_SLIDING_WINDOW, r, state, now_ms * FDN_NS_PER_MS, cost, &next, &wait));
    ck_assert_uint_ge(wait, 1);
    ck_assert(!fdn_limiter_decide(FDN_LIMITER_SLIDING_WINDOW, r, state, (now_ms + wait - 1) * FDN_NS_PER_MS, cost, &next, &value));
    ck_assert(fdn_limiter_decide(FDN_LIMITER_SLIDING_WINDOW, r, state, (now_ms + wait) * FDN_NS_PER_MS, cost, &next, &value));
    return wait;
}

START_TEST(ends_of_sliding_windows)
{
    const uint64_t periods[] = {1,          2,          3,           999,         1000,
                                65535,      65536,      3600000,     86400000,    (1ULL << 31) - 1,
                                1ULL << 31, 1ULL << 34, 31622399999, 31622400000, FDN_LIMITER_MAX_PERIOD_MS};
    for (unsigned i = 0; i < sizeof periods / sizeof *periods; i++) {
        uint64_t period = periods[i], limit = fdn_limiter_sliding_max(period), next, value;
        fdn_limiter_rule r = rule_of(FDN_LIMITER_SLIDING_WINDOW, limit, period);
        for (unsigned j = 0; j < 200; j++) {
            uint64_t last = FDN_LIMITER_MAX_SLIDING_NOW_MS - 3 * period, now = j == 0 ? 0 : j == 1 ? last : rnd(last);
            uint64_t state, full, left = period - now % period;
            /* The whole limit at once: no more until this window has faded in the next one. */
            ck_assert(fdn_limiter_decide(FDN_LIMITER_SLIDING_WINDOW, &r, FDN_LIMITER_FRESH, now * FDN_NS_PER_MS, limit, &full, &value));
            ck_assert_uint_eq(value, 0);
            ck_assert_uint_ne(full, FDN_LIMITER_NEVER);
            ck_assert_uint_eq(told_exactly(&r, full, now, limit), left + period);
            ck_assert_uint_eq(told_exactly(&r, full, now, 1), left + (period + limit - 1) / limit);
            /* It rests when both windows are over, not before and not a unit of time later. */
            uint64_t rest = fdn_limiter_sliding_end_ms(full), unit = 1ULL << fdn_limiter_sliding_shift(period);
            ck_assert_uint_ge(rest, now + left + period);
            ck_assert_uint_lt(rest, now + left + period + unit);
            ck_assert_uint_eq(fdn_limiter_expires_in_ms(FDN_LIMITER_SLIDING_WINDOW, full, now * FDN_NS_PER_MS), rest - now);
            /* Any two counts, and any cost. */
            ck_assert(fdn_limiter_decide(FDN_LIMITER_SLIDING_WINDOW, &r, FDN_LIMITER_FRESH, now * FDN_NS_PER_MS, 1 + rnd(limit), &state,
                                         &value));
            uint64_t later = now + left + rnd(period), cost = 1 + rnd(limit);
            if (fdn_limiter_decide(FDN_LIMITER_SLIDING_WINDOW, &r, state, later * FDN_NS_PER_MS, cost, &next, &value)) {
                ck_assert_uint_le(value + cost, limit);
                state = next;
            }
            if (!fdn_limiter_decide(FDN_LIMITER_SLIDING_WINDOW, &r, state, later * FDN_NS_PER_MS, limit, &next, &value))
                told_exactly(&r, state, later, limit);
            /* Read by a clock that is behind it. */
            if (!fdn_limiter_decide(FDN_LIMITER_SLIDING_WINDOW, &r, full, (now - rnd(now + 1)) * FDN_NS_PER_MS, 1, &next, &value))
                ck_assert_uint_le(value, now + left + 2 * period);
            else
                ck_abort_msg("a full window is full for a clock that is behind");
        }
        /* Its time stands still at the end. */
        uint64_t state, end = FDN_LIMITER_MAX_SLIDING_NOW_MS;
        ck_assert(fdn_limiter_decide(FDN_LIMITER_SLIDING_WINDOW, &r, FDN_LIMITER_FRESH, end * FDN_NS_PER_MS, limit, &state, &value));
        ck_assert_uint_ne(state, FDN_LIMITER_NEVER);
        ck_assert(!fdn_limiter_decide(FDN_LIMITER_SLIDING_WINDOW, &r, state, 2 * end * FDN_NS_PER_MS, 1, &next, &value));
    }
}
END_TEST

/* Less is evicted first, whatever the periods are. */
START_TEST(evicts_what_consumed_least)
{
    uint64_t next, value;
    for (unsigned i = 0; i < 1000; i++) {
        uint64_t words[2], costs[2];
        for (int j = 0; j < 2; j++) {
            uint64_t period = 1 + rnd(1 + rnd(FDN_LIMITER_MAX_PERIOD_MS));
            fdn_limiter_rule r = rule_of(FDN_LIMITER_SLIDING_WINDOW, fdn_limiter_sliding_max(period), period);
            costs[j] = 1 + rnd(r.units);
            ck_assert(fdn_limiter_decide(FDN_LIMITER_SLIDING_WINDOW, &r, FDN_LIMITER_FRESH, rnd(1ULL << 57), costs[j], &next, &value));
            words[j] = next;
        }
        if (costs[0] != costs[1])
            ck_assert(fdn_limiter_consumed_less(FDN_LIMITER_SLIDING_WINDOW, words[0], words[1]) == (costs[0] < costs[1]));
    }
    ck_assert(fdn_limiter_consumed_less(FDN_LIMITER_LEASE, 5ULL << 24 | 1ULL << 23 | 1, 4ULL << 24 | 2));
}
END_TEST

/* Any word may stand in a table that was read from a file: whatever is done to it ends, in a word of the algorithm or a denial. */
START_TEST(words_from_elsewhere)
{
    fdn_limiter_algorithm algorithm = (fdn_limiter_algorithm)_i;
    const uint64_t hash = 1234567;
    fdn_limiter_config config = {.algorithm = algorithm, .clock = FDN_LIMITER_MANUAL, .capacity = 1};
    fdn_limiter *t;
    fdn_limiter_fit fit;
    fdn_limiter_stats stats;
    ck_assert_int_eq(fdn_limiter_create(&config, &t, &fit), 0);
    ck_assert_int_eq(fdn_limiter_advance(t, 1ULL << 37), 0);
    for (unsigned i = 0; i < 30000; i++) {
        uint64_t period = 1 + rnd(1 + rnd(FDN_LIMITER_MAX_PERIOD_MS)), word = rnd(UINT64_MAX), give;
        word = rnd(4) == 0 ? word >> rnd(64) : rnd(4) == 0 ? word | UINT64_MAX << rnd(64) : word;
        word = word == FDN_LIMITER_BUSY ? 1 : word;
        uint64_t limit = 1 + rnd(algorithm == FDN_LIMITER_GCRA           ? 4
                                 : algorithm == FDN_LIMITER_FIXED_WINDOW ? FDN_LIMITER_MAX_FIXED_LIMIT
                                                                         : fdn_limiter_sliding_max(period));
        fdn_limiter_rule r = rule_of(algorithm, limit, period);
        fdn_limiter_place place = fdn_limiter_place_of(t, fdn_limiter_print_of(hash, period));
        fdn_limiter_debit d = {place.print, rnd(UINT64_MAX) >> rnd(64), rnd(UINT64_MAX) >> rnd(64), period};
        fdn_limiter_debit taken;
        atomic_store(&place.pair[0]->print[0], place.print);
        atomic_store(&place.pair[0]->state[0], word);
        (void)fdn_limiter_hit(t, 1, &r, hash, rnd(limit + 1));
        (void)fdn_limiter_take(t, 1, &r, hash, rnd(limit + 1), &taken);
        (void)fdn_limiter_reserve(t, 1, &r, hash, rnd(limit + 1), rnd(UINT64_MAX) >> rnd(64), &taken);
        (void)fdn_limiter_give_back(t, rnd(2) ? &taken : &d);
        (void)fdn_limiter_charge(t, &r, hash, rnd(UINT64_MAX) >> rnd(64));
        (void)fdn_limiter_grant(t, &r, hash, rnd(UINT64_MAX) >> rnd(64), rnd(UINT64_MAX) >> rnd(64), rnd(2));
        if (rnd(100) == 0)
            fdn_limiter_stats_of(t, &stats);
        if (rnd(2))
            fdn_limiter_set_used(t, &r, hash, rnd(UINT64_MAX) >> rnd(64));
        for (unsigned b = 0; b < t->bucket_count; b++) {
            for (unsigned j = 0; j < FDN_LIMITER_SLOTS; j++)
                ck_assert_uint_ne(atomic_load(&t->buckets[b].state[j]), FDN_LIMITER_BUSY);
        }
        give = fdn_limiter_reset(t, period, hash);
        ck_assert(give || fdn_limiter_used(t, &r, hash) == 0);
        memset(t->buckets, 0, t->bucket_count * sizeof *t->buckets);
    }
    fdn_limiter_destroy(t);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("limiter_rule");
    TCase *c = tcase_create("rule");
    tcase_set_timeout(c, 120);
    tcase_add_loop_test(c, fractions_of_a_millisecond, FDN_LIMITER_FIXED_WINDOW, FDN_LIMITER_SLIDING_WINDOW + 1);
    tcase_add_test(c, ends_of_sliding_windows);
    tcase_add_test(c, evicts_what_consumed_least);
    tcase_add_loop_test(c, words_from_elsewhere, 0, ALGORITHMS);
    suite_add_tcase(s, c);
    return support_run(s);
}
