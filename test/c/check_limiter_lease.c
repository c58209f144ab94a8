/*
 * Lending between a keeper's table and borrowers': each side on its own, and a random walk of several borrowers, in which what is
 * admitted is held against the limit that the keeper alone would apply. limiter_steps interleaves the slot protocol.
 */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "base/fdn_alloc.h"
#include "base/fdn_error.h"
#include "base/fdn_hash.h"
#include "engine/limiter_lease.h"
#include "test/c/support.h"

#define ALGORITHMS 3

static uint64_t hash_of(uint64_t key)
{
    return fdn_hash_check(&key, sizeof key, 7);
}

static fdn_limiter *table_of(const fdn_limiter_config *config)
{
    fdn_limiter *t;
    fdn_limiter_fit fit;
    ck_assert_int_eq(fdn_limiter_create(config, &t, &fit), 0);
    ck_assert_int_eq(fdn_limiter_lease_add(t), 0);
    return t;
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
    return table_of(&config);
}

static fdn_limiter_answer hit(fdn_limiter *t, uint64_t key, uint64_t cost)
{
    return fdn_limiter_lease_hit(t, 1, fdn_limiter_preset(t), hash_of(key), cost);
}

static void allowed(fdn_limiter *t, uint64_t key, uint64_t cost, uint64_t value)
{
    fdn_limiter_answer a = hit(t, key, cost);
    ck_assert(a.allowed);
    ck_assert_uint_eq(a.value, value);
}

static void denied(fdn_limiter *t, uint64_t key, uint64_t cost, uint64_t value)
{
    fdn_limiter_answer a = hit(t, key, cost);
    ck_assert(!a.allowed);
    ck_assert_uint_eq(a.value, value);
}

static void keep(fdn_limiter *t, uint64_t key, uint64_t units, uint64_t ms, bool closed)
{
    fdn_limiter_lease_keep(t, fdn_limiter_preset(t), hash_of(key), units, fdn_limiter_lease_now(t) + ms, closed);
}

static void advance(fdn_limiter *t, uint64_t ms)
{
    ck_assert_int_eq(fdn_limiter_advance(t, ms), 0);
}

/* ---- the borrower --------------------------------------------------------------------------------------------------------------- */

START_TEST(leases)
{
    fdn_limiter *t = table(FDN_LIMITER_FIXED_WINDOW, 100, 1000);
    denied(t, 1, 1, FDN_LIMITER_ASK);
    denied(t, 1, 0, FDN_LIMITER_ASK);
    keep(t, 1, 10, 0, false);
    denied(t, 1, 1, FDN_LIMITER_ASK);
    keep(t, 1, 10, 100, false);
    allowed(t, 1, 4, 6);
    denied(t, 1, 7, FDN_LIMITER_ASK);
    advance(t, 30);
    /* More of it, and the earlier end holds. */
    keep(t, 1, 2, 1000, true);
    allowed(t, 1, 0, 8);
    denied(t, 1, 9, 70);
    keep(t, 1, 1, 20, true);
    denied(t, 1, 10, 20);
    keep(t, 1, 0, 20, false);
    denied(t, 1, 10, FDN_LIMITER_ASK);
    allowed(t, 1, 8, 1);
    advance(t, 19);
    allowed(t, 1, 0, 1);
    advance(t, 1);
    denied(t, 1, 1, FDN_LIMITER_ASK);
    /* Where nothing is left there is no end to keep to. */
    keep(t, 1, 1, 10, false);
    allowed(t, 1, 1, 0);
    keep(t, 1, 5, 100, false);
    advance(t, 99);
    allowed(t, 1, 5, 0);
    fdn_limiter_destroy(t);
}
END_TEST

START_TEST(nothing_to_ask_for)
{
    fdn_limiter *t = table(FDN_LIMITER_GCRA, 100, 1000);
    keep(t, 2, 0, 50, true);
    denied(t, 2, 1, 50);
    advance(t, 20);
    denied(t, 2, 100, 30);
    keep(t, 2, 3, 10, false);
    allowed(t, 2, 1, 2);
    keep(t, 2, 0, 20, true);
    denied(t, 2, 3, 10);
    advance(t, 10);
    denied(t, 2, 1, FDN_LIMITER_ASK);
    /* Of all keys, while their units stay. */
    for (uint64_t key = 10; key < 60; key++)
        keep(t, key, key % 2, 50, true);
    fdn_limiter_lease_reopen(t);
    for (uint64_t key = 10; key < 60; key++) {
        ck_assert(hit(t, key, 1).allowed == (key % 2 == 1));
        denied(t, key, 1, FDN_LIMITER_ASK);
    }
    fdn_limiter_destroy(t);
}
END_TEST

START_TEST(forgotten)
{
    fdn_limiter *t = table(FDN_LIMITER_SLIDING_WINDOW, 100, 1000);
    keep(t, 1, 10, 100, false);
    keep(t, 2, 0, 100, true);
    keep(t, 3, 7, 100, false);
    for (uint64_t key = 0; key < 3; key++)
        fdn_limiter_lease_forget(t, fdn_limiter_preset(t), hash_of(key));
    denied(t, 1, 1, FDN_LIMITER_ASK);
    denied(t, 2, 1, FDN_LIMITER_ASK);
    allowed(t, 3, 0, 7);
    fdn_limiter_destroy(t);
}
END_TEST

/* What was lent under one limit serves no hit under another, be it of the same period, or the preset one's. */
START_TEST(a_lease_belongs_to_its_limit)
{
    fdn_limiter *t = table(FDN_LIMITER_FIXED_WINDOW, 100, 1000);
    fdn_limiter_rule of_100, of_10;
    ck_assert_int_eq(fdn_limiter_rule_make(FDN_LIMITER_FIXED_WINDOW, 100, 1000, 100, &of_100), FDN_LIMITER_FITS);
    ck_assert_int_eq(fdn_limiter_rule_make(FDN_LIMITER_FIXED_WINDOW, 10, 1000, 10, &of_10), FDN_LIMITER_FITS);
    const fdn_limiter_rule *rules[] = {fdn_limiter_preset(t), &of_100, &of_10};
    for (int i = 0; i < 3; i++) {
        fdn_limiter_lease_keep(t, rules[i], hash_of(1), 5, 100, false);
        for (int j = 0; j < 3; j++)
            ck_assert(fdn_limiter_lease_hit(t, 1, rules[j], hash_of(1), 1).allowed == (i == j));
        fdn_limiter_lease_forget(t, rules[i], hash_of(1));
        ck_assert(!fdn_limiter_lease_hit(t, 1, rules[i], hash_of(1), 1).allowed);
    }
    fdn_limiter_destroy(t);
}
END_TEST

START_TEST(ends_of_the_word)
{
    fdn_limiter *t = table(FDN_LIMITER_FIXED_WINDOW, 16777214, 1000);
    fdn_limiter_lease_keep(t, fdn_limiter_preset(t), hash_of(1), UINT64_MAX, UINT64_MAX, false);
    fdn_limiter_lease_keep(t, fdn_limiter_preset(t), hash_of(1), UINT64_MAX, UINT64_MAX, false);
    allowed(t, 1, 0, FDN_LIMITER_MAX_LEASE);
    advance(t, FDN_LIMITER_MAX_NOW_NS / FDN_NS_PER_MS - 100);
    fdn_limiter_lease_keep(t, fdn_limiter_preset(t), hash_of(1), UINT64_MAX, UINT64_MAX, true);
    allowed(t, 1, 100, FDN_LIMITER_MAX_LEASE - 100);
    denied(t, 1, FDN_LIMITER_MAX_LEASE, FDN_LIMITER_MAX_PERIOD_MS);
    fdn_limiter_destroy(t);
}
END_TEST

/* Whatever the limiter's clock is, a lease ends on time. */
START_TEST(real_clocks)
{
    for (uint32_t clock = FDN_LIMITER_AUTO; clock <= FDN_LIMITER_COARSE; clock++) {
        fdn_limiter_config config = {
            .algorithm = FDN_LIMITER_FIXED_WINDOW, .clock = clock, .limit = 10, .period_ms = FDN_LIMITER_MAX_PERIOD_MS, .capacity = 1};
        fdn_limiter *t = table_of(&config);
        keep(t, 1, 1, FDN_LIMITER_MAX_PERIOD_MS, true);
        allowed(t, 1, 1, 0);
        ck_assert(hit(t, 1, 1).value <= FDN_LIMITER_MAX_PERIOD_MS);
        fdn_limiter_lease_forget(t, fdn_limiter_preset(t), hash_of(1));
        uint64_t end = fdn_limiter_lease_now(t) + 5;
        fdn_limiter_lease_keep(t, fdn_limiter_preset(t), hash_of(1), UINT64_MAX, end, false);
        while (fdn_limiter_lease_now(t) < end)
            ;
        denied(t, 1, 1, FDN_LIMITER_ASK);
        fdn_limiter_destroy(t);
    }
}
END_TEST

/* Hits that the leases answer are counted there; those that are asked elsewhere are not, and no loan is. */
START_TEST(figures)
{
    fdn_limiter *t = table(FDN_LIMITER_FIXED_WINDOW, 10, 1000);
    fdn_limiter_stats stats;
    hit(t, 1, 1);
    keep(t, 1, 2, 100, true);
    for (int i = 0; i < 5; i++)
        hit(t, 1, 1);
    fdn_limiter_lend(t, fdn_limiter_preset(t), hash_of(1), 1, 2);
    fdn_limiter_stats_of(t, &stats);
    ck_assert_uint_eq(stats.allowed, 2);
    ck_assert_uint_eq(stats.denied, 3);
    ck_assert_uint_eq(stats.live, 1);
    fdn_limiter_destroy(t);
}
END_TEST

#ifdef FDN_ALLOC_FAULTS
START_TEST(no_memory)
{
    fdn_limiter_config config = {.algorithm = FDN_LIMITER_GCRA, .limit = 1, .period_ms = 1, .burst = 1, .capacity = 10};
    int n, rc = FDN_ENOMEM;
    for (n = 0; n < 20 && rc != 0; n++) {
        fdn_limiter *t;
        fdn_limiter_fit fit;
        ck_assert_int_eq(fdn_limiter_create(&config, &t, &fit), 0);
        fdn_alloc_budget = n;
        rc = fdn_limiter_lease_add(t);
        fdn_alloc_budget = -1;
        ck_assert(rc == 0 || rc == FDN_ENOMEM);
        fdn_limiter_destroy(t);
    }
    ck_assert_int_eq(n, 3);
}
END_TEST
#endif

/* ---- the keeper ----------------------------------------------------------------------------------------------------------------- */

static fdn_limiter_loan lend(fdn_limiter *t, uint64_t key, uint64_t cost, uint64_t share)
{
    return fdn_limiter_lend(t, fdn_limiter_preset(t), hash_of(key), cost, share);
}

static void granted(fdn_limiter_loan loan, uint64_t units, uint64_t left, uint64_t ms)
{
    ck_assert(loan.granted);
    ck_assert_uint_eq(loan.units, units);
    ck_assert_uint_eq(loan.value, left);
    ck_assert_uint_eq(loan.ms, ms - ms / 256);
}

static void refused(fdn_limiter_loan loan, uint64_t wait, uint64_t closed)
{
    ck_assert(!loan.granted);
    ck_assert_uint_eq(loan.value, wait);
    ck_assert_uint_eq(loan.ms, closed - closed / 256);
}

/* A part of what is left, until all is lent; the units are the keeper's own no more. */
START_TEST(lends_parts)
{
    fdn_limiter *t = table((uint32_t)_i, 100, 10000);
    bool gcra = _i == FDN_LIMITER_GCRA;
    granted(lend(t, 1, 1, 0), 1, 99, gcra ? 0 : 10000);
    granted(lend(t, 1, 1, 4), 1 + 24, 74, gcra ? 2400 : 10000);
    advance(t, 50);
    granted(lend(t, 1, 10, 4), 10 + 16, 48, gcra ? 1600 : 9950);
    granted(lend(t, 1, 1, UINT64_MAX), 1, 47, gcra ? 0 : 9950);
    granted(lend(t, 1, 1, 1), 47, 0, gcra ? 4600 : 9950);
    ck_assert(!fdn_limiter_hit(t, 1, fdn_limiter_preset(t), hash_of(1), 1).allowed);
    fdn_limiter_destroy(t);
}
END_TEST

START_TEST(refuses)
{
    fdn_limiter *t = table(FDN_LIMITER_GCRA, 100, 10000);
    granted(lend(t, 1, 99, 0), 99, 1, 0);
    refused(lend(t, 1, 50, 4), 4900, 0);
    granted(lend(t, 1, 1, 4), 1, 0, 0);
    refused(lend(t, 1, 50, 4), 5000, 100);
    fdn_limiter_destroy(t);
    t = table(FDN_LIMITER_FIXED_WINDOW, 100, 10000);
    advance(t, 5);
    granted(lend(t, 1, 90, 0), 90, 10, 10000);
    advance(t, 1000);
    refused(lend(t, 1, 11, 4), 9000, 0);
    granted(lend(t, 1, 10, 4), 10, 0, 9000);
    refused(lend(t, 1, 11, 4), 9000, 9000);
    fdn_limiter_destroy(t);
    t = table(FDN_LIMITER_SLIDING_WINDOW, 100, 10000);
    advance(t, 9000);
    granted(lend(t, 1, 100, 0), 100, 0, 1000);
    refused(lend(t, 1, 1, 4), 1100, 1100);
    refused(lend(t, 1, 10, 4), 2000, 1100);
    fdn_limiter_destroy(t);
    t = table((uint32_t)FDN_LIMITER_FIXED_WINDOW, 0, 10000);
    refused(lend(t, 1, 1, 4), 10000, 10000);
    fdn_limiter_destroy(t);
}
END_TEST

/* A table without room for the key lends nothing: the hit alone is answered, as on_full says. */
START_TEST(full_keeper)
{
    fdn_limiter_config config = {
        .algorithm = FDN_LIMITER_FIXED_WINDOW, .clock = FDN_LIMITER_MANUAL, .limit = 100, .period_ms = 1000, .capacity = 1};
    for (uint32_t on_full = FDN_LIMITER_DENY; on_full <= FDN_LIMITER_ALLOW; on_full++) {
        config.on_full = on_full;
        fdn_limiter *t = table_of(&config);
        int met = 0;
        for (uint64_t key = 0; key < 100; key++) {
            fdn_limiter_stats before, after;
            fdn_limiter_stats_of(t, &before);
            fdn_limiter_loan loan = lend(t, key, 1, 4);
            fdn_limiter_stats_of(t, &after);
            if (after.full == before.full) {
                granted(loan, 25, 75, 1000);
                continue;
            }
            met++;
            ck_assert(loan.granted == (on_full == FDN_LIMITER_ALLOW));
            if (loan.granted)
                ck_assert_uint_eq(loan.units, 1);
            else
                ck_assert_uint_eq(loan.ms, 0);
        }
        ck_assert_int_gt(met, 0);
        fdn_limiter_destroy(t);
    }
}
END_TEST

/* ---- both ----------------------------------------------------------------------------------------------------------------------- */

#define BORROWERS 3

static unsigned long long seed;

static uint64_t dice(uint64_t below)
{
    seed = seed * 6364136223846793005ULL + 1442695040888963407ULL;
    return (seed >> 33) % below;
}

/* What the borrowers together admitted, held against the limit; all times are the keeper's. */
typedef struct {
    uint64_t end, used;              /* fixed_window: of the keeper's window */
    uint64_t index, previous, count; /* sliding_window */
    uint64_t arrival, largest;       /* gcra, in ns: theoretical arrival time; the largest loan */
} witness;

/* False: over the limit. No assertion of check's, which writes to a file each time that it holds. */
static bool admitted(witness *w, fdn_limiter_algorithm algorithm, uint64_t limit, uint64_t period, uint64_t now, uint64_t cost)
{
    if (algorithm == FDN_LIMITER_FIXED_WINDOW) {
        if (now >= w->end) {
            w->end = now + period;
            w->used = 0;
        }
        w->used += cost;
        return w->used <= limit;
    }
    if (algorithm == FDN_LIMITER_SLIDING_WINDOW) {
        uint64_t index = now / period;
        if (index != w->index) {
            w->previous = index == w->index + 1 ? w->count : 0;
            w->count = 0;
            w->index = index;
        }
        w->count += cost;
        return w->previous * (period - now % period) + w->count * period <= limit * period;
    }
    uint64_t now_ns = now * FDN_NS_PER_MS, emission = period * FDN_NS_PER_MS / limit;
    w->arrival = (w->arrival > now_ns ? w->arrival : now_ns) + cost * emission;
    return w->arrival - now_ns <= (limit + w->largest) * emission;
}

/* Everybody's clock. */
static void pass(fdn_limiter *const tables[1 + BORROWERS], uint64_t *now, uint64_t ms)
{
    for (int i = 0; i <= BORROWERS; i++) {
        if (fdn_limiter_advance(tables[i], ms) != 0)
            ck_abort();
    }
    *now += ms;
}

/*
 * Any number of hits; questions and answers that take their time, while others hit; answers that get lost; leases that are left alone.
 * The witness's fixed window opens with the first admission, which is the keeper's first debit.
 */
START_TEST(never_over_the_limit)
{
    fdn_limiter_algorithm algorithm = (fdn_limiter_algorithm)(_i % ALGORITHMS);
    seed = (unsigned long long)_i + 1;
    uint64_t limit = 1 + dice(200), period = limit * (1 + dice(20)), now = 0, total = 0;
    fdn_limiter *tables[1 + BORROWERS], *keeper;
    for (int i = 0; i <= BORROWERS; i++)
        tables[i] = table(algorithm, limit, period);
    keeper = tables[BORROWERS];
    witness w = {0};
    for (int step = 0; step < 20000; step++) {
        fdn_limiter *b = tables[dice(BORROWERS)];
        uint64_t cost = 1 + dice(limit < 3 ? limit : 3);
        fdn_limiter_answer a = hit(b, 1, cost);
        bool asked = !a.allowed && a.value == FDN_LIMITER_ASK, within = true;
        if (asked) {
            uint64_t sent = fdn_limiter_lease_now(b);
            pass(tables, &now, dice(4) == 0 ? dice(period) : 0);
            fdn_limiter_loan loan = lend(keeper, 1, cost, dice(3) ? dice(16) : 0);
            uint64_t lent = loan.granted ? loan.units - cost : 0;
            w.largest = lent > w.largest ? lent : w.largest;
            a.allowed = loan.granted;
            within = !a.allowed || admitted(&w, algorithm, limit, period, now, cost);
            pass(tables, &now, dice(4) == 0 ? dice(period) : 0);
            if (dice(10) != 0)
                fdn_limiter_lease_keep(b, fdn_limiter_preset(b), hash_of(1), lent, sent + loan.ms, !loan.granted);
        } else if (a.allowed) {
            within = admitted(&w, algorithm, limit, period, now, cost);
        }
        if (!within)
            ck_abort_msg("step %d of seed %d", step, _i + 1);
        total += a.allowed ? cost : 0;
        pass(tables, &now, dice(8) == 0 ? dice(period / 4 + 1) : 0);
    }
    ck_assert_uint_gt(total, 0);
    for (int i = 0; i <= BORROWERS; i++)
        fdn_limiter_destroy(tables[i]);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("limiter_lease");
    TCase *c = tcase_create("lease");
    tcase_set_timeout(c, 300);
    tcase_add_test(c, leases);
    tcase_add_test(c, nothing_to_ask_for);
    tcase_add_test(c, forgotten);
    tcase_add_test(c, a_lease_belongs_to_its_limit);
    tcase_add_test(c, ends_of_the_word);
    tcase_add_test(c, real_clocks);
    tcase_add_test(c, figures);
#ifdef FDN_ALLOC_FAULTS
    tcase_add_test(c, no_memory);
#endif
    tcase_add_loop_test(c, lends_parts, 0, ALGORITHMS);
    tcase_add_test(c, refuses);
    tcase_add_test(c, full_keeper);
    tcase_add_loop_test(c, never_over_the_limit, 0, 60);
    suite_add_tcase(s, c);
    return support_run(s);
}
