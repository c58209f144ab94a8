/* Debits that are given back, reservations and counts, each on its own, with a manual clock. limiter_steps interleaves them. */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "base/fdn_hash.h"
#include "engine/limiter.h"
#include "test/c/support.h"

#define ALGORITHMS 3

static uint64_t hash_of(uint64_t key)
{
    return fdn_hash_check(&key, sizeof key, 7);
}

static fdn_limiter *table(uint32_t algorithm, uint64_t limit, uint64_t period_ms)
{
    fdn_limiter_config config = {.algorithm = algorithm,
                                 .on_full = FDN_LIMITER_DENY,
                                 .clock = FDN_LIMITER_MANUAL,
                                 .limit = limit,
                                 .period_ms = period_ms,
                                 .burst = limit,
                                 .capacity = 100};
    fdn_limiter *t;
    fdn_limiter_fit fit;
    ck_assert_int_eq(fdn_limiter_create(&config, &t, &fit), 0);
    return t;
}

static fdn_limiter_answer hit(fdn_limiter *t, uint64_t key, uint64_t cost)
{
    return fdn_limiter_hit(t, 1, fdn_limiter_preset(t), hash_of(key), cost);
}

/* What a hit can still take. */
static uint64_t left(fdn_limiter *t, uint64_t key)
{
    fdn_limiter_answer a = hit(t, key, 0);
    return a.allowed ? a.value : 0;
}

static fdn_limiter_debit take(fdn_limiter *t, uint64_t key, uint64_t cost)
{
    fdn_limiter_debit d;
    ck_assert(fdn_limiter_take(t, 1, fdn_limiter_preset(t), hash_of(key), cost, &d).allowed);
    return d;
}

static fdn_limiter_answer reserve(fdn_limiter *t, uint64_t key, uint64_t cost, uint64_t wait, fdn_limiter_debit *d)
{
    return fdn_limiter_reserve(t, 1, fdn_limiter_preset(t), hash_of(key), cost, wait, d);
}

static void advance(fdn_limiter *t, uint64_t ms)
{
    ck_assert_int_eq(fdn_limiter_advance(t, ms), 0);
}

static uint64_t used(fdn_limiter *t, uint64_t key)
{
    return fdn_limiter_used(t, fdn_limiter_preset(t), hash_of(key));
}

static uint64_t charge(fdn_limiter *t, uint64_t key, uint64_t n)
{
    return fdn_limiter_charge(t, fdn_limiter_preset(t), hash_of(key), n);
}

static void set_used(fdn_limiter *t, uint64_t key, uint64_t count)
{
    fdn_limiter_set_used(t, fdn_limiter_preset(t), hash_of(key), count);
}

/* ---- take and give back --------------------------------------------------------------------------------------------------------- */

START_TEST(given_back_at_once_is_whole)
{
    fdn_limiter *t = table((uint32_t)_i, 10, 1000);
    fdn_limiter_debit d = take(t, 1, 4), e = take(t, 1, 6), none;
    ck_assert_uint_eq(left(t, 1), 0);
    ck_assert(!fdn_limiter_take(t, 1, fdn_limiter_preset(t), hash_of(1), 1, &none).allowed);
    ck_assert(!fdn_limiter_give_back(t, &none));
    ck_assert(fdn_limiter_give_back(t, &d));
    ck_assert_uint_eq(left(t, 1), 4);
    ck_assert(fdn_limiter_give_back(t, &e));
    ck_assert_uint_eq(left(t, 1), 10);
    ck_assert(!fdn_limiter_give_back(t, &e));
    d = take(t, 1, 0);
    ck_assert(!fdn_limiter_give_back(t, &d));
    d = take(t, 2, 3);
    ck_assert(fdn_limiter_reset(t, 1000, hash_of(2)));
    ck_assert(!fdn_limiter_give_back(t, &d));
    fdn_limiter_destroy(t);
}
END_TEST

START_TEST(gcra_gives_back_what_time_has_not)
{
    fdn_limiter *t = table(FDN_LIMITER_GCRA, 10, 1000); /* a unit every 100 ms */
    fdn_limiter_debit d = take(t, 1, 4);
    advance(t, 250);
    ck_assert_uint_eq(used(t, 1), 2); /* 150 ms of it */
    ck_assert(fdn_limiter_give_back(t, &d));
    ck_assert_uint_eq(left(t, 1), 10);
    d = take(t, 2, 4);
    advance(t, 399);
    hit(t, 2, 1);
    ck_assert(fdn_limiter_give_back(t, &d)); /* the last millisecond */
    ck_assert_uint_eq(used(t, 2), 1);
    d = take(t, 3, 4);
    hit(t, 3, 5);
    advance(t, 400);
    ck_assert(!fdn_limiter_give_back(t, &d));
    ck_assert_uint_eq(used(t, 3), 5);
    fdn_limiter_destroy(t);
}
END_TEST

START_TEST(fixed_window_gives_back_to_its_window_alone)
{
    fdn_limiter *t = table(FDN_LIMITER_FIXED_WINDOW, 10, 1000);
    fdn_limiter_debit d = take(t, 1, 4);
    hit(t, 1, 6);
    advance(t, 999);
    ck_assert(fdn_limiter_give_back(t, &d));
    ck_assert_uint_eq(left(t, 1), 4);
    d = take(t, 1, 4);
    advance(t, 1);
    ck_assert(!fdn_limiter_give_back(t, &d));
    hit(t, 1, 6);
    ck_assert(!fdn_limiter_give_back(t, &d));
    ck_assert_uint_eq(left(t, 1), 4);
    fdn_limiter_destroy(t);
}
END_TEST

START_TEST(sliding_window_gives_back_to_its_window)
{
    fdn_limiter *t = table(FDN_LIMITER_SLIDING_WINDOW, 10, 1000);
    fdn_limiter_debit d = take(t, 1, 4), e = take(t, 1, 6);
    advance(t, 1500);
    ck_assert_uint_eq(left(t, 1), 5);
    ck_assert(fdn_limiter_give_back(t, &d)); /* nobody hit in this window yet */
    ck_assert_uint_eq(left(t, 1), 7);
    hit(t, 1, 1);
    ck_assert(fdn_limiter_give_back(t, &e)); /* it is the previous one in the word by now */
    ck_assert_uint_eq(left(t, 1), 9);
    d = take(t, 2, 4);
    advance(t, 1499);
    ck_assert(hit(t, 2, 0).value >= 9);
    ck_assert(fdn_limiter_give_back(t, &d));
    d = take(t, 3, 4);
    advance(t, 2000 - 999);
    ck_assert(!fdn_limiter_give_back(t, &d)); /* it is at rest, though its word may still stand */
    ck_assert_uint_eq(hit(t, 3, 4).value, 6);
    ck_assert(!fdn_limiter_give_back(t, &d));
    ck_assert_uint_eq(left(t, 3), 6);
    fdn_limiter_destroy(t);
}
END_TEST

/* ---- reservations --------------------------------------------------------------------------------------------------------------- */

START_TEST(reservations_queue)
{
    fdn_limiter *t = table(FDN_LIMITER_GCRA, 10, 1000);
    fdn_limiter_debit d, e, none;
    ck_assert(hit(t, 1, 10).allowed);
    fdn_limiter_answer a = reserve(t, 1, 0, 150, &d);
    ck_assert(a.allowed && a.value == 100 && d.amount == 0);
    a = reserve(t, 1, 2, 200, &d);
    ck_assert(a.allowed);
    ck_assert_uint_eq(a.value, 200);
    a = reserve(t, 1, 3, 499, &none);
    ck_assert(!a.allowed);
    ck_assert_uint_eq(a.value, 1);
    ck_assert(!fdn_limiter_give_back(t, &none));
    advance(t, 1);
    a = reserve(t, 1, 3, 499, &e);
    ck_assert(a.allowed);
    ck_assert_uint_eq(a.value, 499);
    ck_assert_uint_eq(hit(t, 1, 1).value, 599);
    /* Given back before its turn it is whole, and the hit that waits behind moves up. */
    ck_assert(fdn_limiter_give_back(t, &e));
    a = hit(t, 1, 1);
    ck_assert(!a.allowed);
    ck_assert_uint_eq(a.value, 299);
    /* What was taken before it is back after 1000 ms; from then on time gives it back itself. */
    advance(t, 999);
    ck_assert_uint_eq(used(t, 1), 2);
    hit(t, 1, 4);
    advance(t, 150);
    ck_assert(fdn_limiter_give_back(t, &d));
    ck_assert_uint_eq(used(t, 1), 4);
    ck_assert(reserve(t, 2, 2, 0, &d).allowed);
    advance(t, 200);
    ck_assert(!fdn_limiter_give_back(t, &d));
    fdn_limiter_destroy(t);
}
END_TEST

START_TEST(ends_of_reservations)
{
    fdn_limiter *t = table(FDN_LIMITER_GCRA, 1, FDN_LIMITER_MAX_PERIOD_MS);
    fdn_limiter_debit d;
    advance(t, FDN_LIMITER_MAX_NOW_NS / FDN_NS_PER_MS);
    ck_assert(hit(t, 1, 1).allowed);
    uint64_t wait = 0;
    for (uint64_t waiting = 1; waiting <= FDN_LIMITER_MAX_WAIT_MS / FDN_LIMITER_MAX_PERIOD_MS; waiting++) {
        fdn_limiter_answer a = reserve(t, 1, 1, UINT64_MAX, &d);
        ck_assert(a.allowed);
        wait = waiting * FDN_LIMITER_MAX_PERIOD_MS;
        ck_assert_uint_eq(a.value, wait);
    }
    fdn_limiter_answer a = reserve(t, 1, 1, UINT64_MAX, &d);
    ck_assert(!a.allowed);
    ck_assert_uint_eq(a.value, wait + FDN_LIMITER_MAX_PERIOD_MS - FDN_LIMITER_MAX_WAIT_MS);
    a = hit(t, 1, 1);
    ck_assert(!a.allowed);
    ck_assert_uint_eq(a.value, wait + FDN_LIMITER_MAX_PERIOD_MS);
    fdn_limiter_destroy(t);
    t = table(FDN_LIMITER_GCRA, 0, 70);
    a = reserve(t, 1, 5, 1000, &d);
    ck_assert(!a.allowed && a.value == 70 && d.amount == 0);
    fdn_limiter_destroy(t);
    t = table(FDN_LIMITER_FIXED_WINDOW, 10, 70);
    a = reserve(t, 1, 1, 1000, &d);
    ck_assert(!a.allowed && a.value == 70 && d.amount == 0);
    fdn_limiter_destroy(t);
}
END_TEST

/* ---- counts --------------------------------------------------------------------------------------------------------------------- */

START_TEST(counts)
{
    fdn_limiter *t = table((uint32_t)_i, 10, 1000);
    fdn_limiter_stats stats;
    ck_assert_uint_eq(used(t, 1), 0);
    ck_assert_uint_eq(charge(t, 1, 0), 0);
    set_used(t, 1, 0);
    fdn_limiter_stats_of(t, &stats);
    ck_assert_uint_eq(stats.live, 0);
    ck_assert_uint_eq(charge(t, 1, 3), 3);
    ck_assert(hit(t, 1, 2).allowed);
    ck_assert_uint_eq(used(t, 1), 5);
    ck_assert_uint_eq(charge(t, 1, 20), 25);
    ck_assert(!hit(t, 1, 1).allowed);
    set_used(t, 1, 9);
    ck_assert_uint_eq(used(t, 1), 9);
    ck_assert_uint_eq(left(t, 1), 1);
    set_used(t, 1, 0);
    ck_assert_uint_eq(left(t, 1), 10);
    set_used(t, 2, 7);
    ck_assert_uint_eq(used(t, 2), 7);
    ck_assert_uint_eq(used(t, 1), 0);
    fdn_limiter_stats_of(t, &stats);
    ck_assert_uint_eq(stats.allowed, 1);
    ck_assert_uint_eq(stats.denied, 1);
    advance(t, 2000);
    ck_assert_uint_eq(used(t, 2), 0);
    fdn_limiter_destroy(t);
}
END_TEST

/* An open fixed window keeps its end when its count is set; the other two begin anew. */
START_TEST(set_keeps_the_window)
{
    uint64_t waits[] = {1000, 500, 1000};
    fdn_limiter *t = table((uint32_t)_i, 10, 1000);
    advance(t, 1500);
    charge(t, 1, 10);
    advance(t, 500);
    set_used(t, 1, 10);
    ck_assert_uint_eq(hit(t, 1, 10).value, waits[_i] + (_i == FDN_LIMITER_SLIDING_WINDOW ? 1000 : 0));
    fdn_limiter_destroy(t);
}
END_TEST

START_TEST(counts_stay_where_the_range_ends)
{
    uint64_t most[] = {4, FDN_LIMITER_MAX_FIXED_LIMIT, (1 << 25) - 1}, period = FDN_LIMITER_MAX_PERIOD_MS;
    fdn_limiter *t = table((uint32_t)_i, 1, period);
    uint64_t end = (_i == FDN_LIMITER_SLIDING_WINDOW ? FDN_LIMITER_MAX_SLIDING_NOW_MS : FDN_LIMITER_MAX_NOW_NS / FDN_NS_PER_MS);
    for (int at_end = 0; at_end < 2; at_end++) {
        for (uint64_t k = 0; k < 3; k++) {
            uint64_t n = k == 0 ? UINT64_MAX : k == 1 ? UINT64_MAX / 16 : 1ULL << 30;
            if (_i == FDN_LIMITER_GCRA)
                most[0] = (FDN_LIMITER_MAX_SPAN / (16 * FDN_NS_PER_MS) * 2 + period - 1) / period;
            ck_assert_uint_eq(charge(t, k, n), most[_i]);
            ck_assert_uint_eq(charge(t, k, n), most[_i]);
            ck_assert_uint_eq(charge(t, k, 1), most[_i]);
            ck_assert_uint_eq(used(t, k), most[_i]);
            set_used(t, k, n);
            ck_assert_uint_eq(used(t, k), most[_i]);
            ck_assert(!hit(t, k, 1).allowed);
            set_used(t, k, 0);
            ck_assert(hit(t, k, 1).allowed);
        }
        if (at_end == 0)
            advance(t, end);
    }
    fdn_limiter_destroy(t);
}
END_TEST

START_TEST(counts_of_a_limit_zero)
{
    fdn_limiter *t = table((uint32_t)_i, 0, 1000);
    bool counted = _i != FDN_LIMITER_GCRA;
    ck_assert_uint_eq(charge(t, 1, 5), counted ? 5 : 0);
    set_used(t, 1, 3);
    ck_assert_uint_eq(used(t, 1), counted ? 3 : 0);
    ck_assert(!hit(t, 1, 1).allowed);
    fdn_limiter_destroy(t);
}
END_TEST

/* With no slot left and nobody to evict, nothing is kept, and says so; a key that is there goes on. */
START_TEST(counts_and_a_full_table)
{
    for (uint32_t on_full = 0; on_full < 3; on_full++) {
        fdn_limiter_config config = {.algorithm = (uint32_t)_i, .on_full = on_full, .clock = FDN_LIMITER_MANUAL, .capacity = 1};
        fdn_limiter_rule rule;
        fdn_limiter *t;
        fdn_limiter_fit fit;
        fdn_limiter_stats stats;
        fdn_limiter_debit d;
        uint64_t lost = 0;
        ck_assert_int_eq(fdn_limiter_create(&config, &t, &fit), 0);
        ck_assert_int_eq(fdn_limiter_rule_make((fdn_limiter_algorithm)_i, 100, 1000, 100, &rule), FDN_LIMITER_FITS);
        for (uint64_t k = 0; k < 500; k++) {
            uint64_t n = fdn_limiter_charge(t, &rule, hash_of(k), 2);
            ck_assert(n == 2 || n == 0);
            ck_assert_uint_eq(fdn_limiter_used(t, &rule, hash_of(k)), n);
            fdn_limiter_set_used(t, &rule, hash_of(k), 3);
            ck_assert_uint_eq(fdn_limiter_used(t, &rule, hash_of(k)), n ? 3 : 0);
            fdn_limiter_take(t, 1, &rule, hash_of(k), 5, &d);
            ck_assert(fdn_limiter_give_back(t, &d) == (n != 0));
            lost += n == 0;
        }
        fdn_limiter_stats_of(t, &stats);
        ck_assert_uint_eq(lost, on_full == FDN_LIMITER_EVICT ? 0 : 480);
        ck_assert_uint_eq(stats.evicted, on_full == FDN_LIMITER_EVICT ? 480 : 0);
        ck_assert_uint_eq(stats.full, on_full == FDN_LIMITER_EVICT ? 480 : 3 * 480);
        fdn_limiter_destroy(t);
    }
}
END_TEST

int main(void)
{
    Suite *s = suite_create("limiter_debit");
    TCase *c = tcase_create("debit");
    tcase_add_loop_test(c, given_back_at_once_is_whole, 0, ALGORITHMS);
    tcase_add_test(c, gcra_gives_back_what_time_has_not);
    tcase_add_test(c, fixed_window_gives_back_to_its_window_alone);
    tcase_add_test(c, sliding_window_gives_back_to_its_window);
    tcase_add_test(c, reservations_queue);
    tcase_add_test(c, ends_of_reservations);
    tcase_add_loop_test(c, counts, 0, ALGORITHMS);
    tcase_add_loop_test(c, set_keeps_the_window, 0, ALGORITHMS);
    tcase_add_loop_test(c, counts_stay_where_the_range_ends, 0, ALGORITHMS);
    tcase_add_loop_test(c, counts_of_a_limit_zero, 0, ALGORITHMS);
    tcase_add_loop_test(c, counts_and_a_full_table, 0, ALGORITHMS);
    suite_add_tcase(s, c);
    return support_run(s);
}
