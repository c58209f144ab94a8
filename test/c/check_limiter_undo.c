/*
 * Undoing debits never admits too much: the table, from which debits are taken and given back in any order around a rest of the chain,
 * against the sequential algorithm that has never seen those that were given back.
 */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "base/fdn_hash.h"
#include "engine/limiter_table.h"
#include "test/c/support.h"

#define HASH 0x123456789abcdefULL
#define EVENTS 60
#define ROUNDS 4000

static uint64_t seed = 88172645463325252ULL;

static uint64_t rnd(uint64_t below)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return seed % below;
}

static fdn_limiter *table(uint32_t algorithm, uint64_t limit, uint64_t period_ms, uint64_t burst, fdn_limiter_clock clock)
{
    fdn_limiter_config config = {.algorithm = algorithm,
                                 .on_full = FDN_LIMITER_DENY,
                                 .clock = clock,
                                 .limit = limit,
                                 .period_ms = period_ms,
                                 .burst = burst,
                                 .capacity = 10};
    fdn_limiter *t;
    fdn_limiter_fit fit;
    ck_assert_int_eq(fdn_limiter_create(&config, &t, &fit), 0);
    return t;
}

/* Something that was admitted. */
typedef struct {
    uint64_t at_ms, cost;
    fdn_limiter_debit debit;
    bool gone, opened; /* given back; began a fixed window */
} event;

/* What a hit could take at this time, had only the events been that are not gone. Nothing is remembered from one question to the next.
 */
static uint64_t left_without(fdn_limiter_algorithm algorithm, const fdn_limiter_rule *r, const event *events, unsigned n, uint64_t now)
{
    unsigned __int128 level = 0, period = r->period_ms;
    uint64_t tat = 0, end = 0;
    for (unsigned i = 0; i < n; i++) {
        const event *e = &events[i];
        uint64_t cost = e->gone ? 0 : e->cost;
        if (algorithm == FDN_LIMITER_GCRA) {
            uint64_t at = e->at_ms * 16 * FDN_NS_PER_MS;
            if (cost != 0)
                tat = (tat > at ? tat : at) + cost * r->emission;
        } else if (algorithm == FDN_LIMITER_FIXED_WINDOW) {
            /* A window that was opened stays open, whoever opened it. */
            if (e->at_ms >= end) {
                end = e->at_ms + r->period_ms;
                level = 0;
            }
            level += cost;
        } else {
            uint64_t number = now / r->period_ms, own = e->at_ms / r->period_ms;
            if (own == number)
                level += cost * period;
            else if (own + 1 == number)
                level += cost * (period - now % period);
        }
    }
    if (algorithm == FDN_LIMITER_GCRA) {
        uint64_t at = now * 16 * FDN_NS_PER_MS, ahead = tat > at ? tat - at : 0;
        return ahead > r->span ? 0 : (r->span - ahead) / r->emission;
    }
    if (algorithm == FDN_LIMITER_FIXED_WINDOW)
        return now < end ? r->units - (uint64_t)level : r->units;
    unsigned __int128 all = r->units * period;
    return level > all ? 0 : (uint64_t)((all - level) / period);
}

/* Any order. What is left is never more, and of the windows, which lose nothing to rounding, it is the same. */
START_TEST(any_order)
{
    fdn_limiter_algorithm algorithm = (fdn_limiter_algorithm)_i;
    unsigned undone = 0, rested = 0, whole = 0;
    for (unsigned round = 0; round < ROUNDS; round++) {
        uint64_t limit = 1 + rnd(7), period = 1 + rnd(100), burst = algorithm == FDN_LIMITER_GCRA ? 1 + rnd(7) : limit, now = 0;
        fdn_limiter *t = table(algorithm, limit, period, burst, FDN_LIMITER_MANUAL);
        const fdn_limiter_rule *r = fdn_limiter_preset(t);
        event events[EVENTS];
        unsigned n = 0;
        for (unsigned i = 0; i < EVENTS; i++) {
            uint64_t kind = rnd(10), step;
            event *e = &events[n];
            if (kind < 3) {
                step = rnd(4) == 0 ? rnd(period + 1) : rnd(period / 4 + 2);
                ck_assert_int_eq(fdn_limiter_advance(t, step), 0);
                now += step;
            } else if (kind < 7) {
                *e = (event){.at_ms = now, .cost = 1 + rnd(burst)};
                n += fdn_limiter_take(t, 1, r, HASH, e->cost, &e->debit).allowed;
            } else if (n != 0) {
                e = &events[rnd(n)];
                if (!e->gone && e->at_ms + 2 * period > now) {
                    uint64_t before = left_without(algorithm, r, events, n, now);
                    e->gone = true;
                    undone += fdn_limiter_give_back(t, &e->debit);
                    whole += left_without(algorithm, r, events, n, now) == before + e->cost;
                }
            }
            fdn_limiter_answer a = fdn_limiter_hit(t, 1, r, HASH, 0);
            uint64_t left = a.allowed ? a.value : 0, most = left_without(algorithm, r, events, n, now);
            ck_assert_msg(left <= most, "round %u: %lu left, and %lu at most", round, (unsigned long)left, (unsigned long)most);
            if (algorithm != FDN_LIMITER_GCRA)
                ck_assert_uint_eq(left, most);
            rested += n != 0 && most == r->units;
        }
        fdn_limiter_destroy(t);
    }
    ck_assert_uint_gt(undone, ROUNDS);
    ck_assert_uint_gt(rested, ROUNDS);
    ck_assert_uint_gt(whole, ROUNDS);
}
END_TEST

static fdn_limiter_debit take(fdn_limiter *t)
{
    fdn_limiter_debit d;
    ck_assert(fdn_limiter_take(t, 1, fdn_limiter_preset(t), HASH, 1, &d).allowed);
    return d;
}

static uint64_t used(fdn_limiter *t)
{
    return fdn_limiter_used(t, fdn_limiter_preset(t), HASH);
}

/* Two debits, the second one in the queue behind the first: given back, the first one takes the second one's place in time away. */
START_TEST(two_debits_around_a_rest)
{
    fdn_limiter *t = table(FDN_LIMITER_GCRA, 1, 10, 2, FDN_LIMITER_MANUAL);
    fdn_limiter_debit first = take(t), second = take(t);
    ck_assert_int_eq(fdn_limiter_advance(t, 1), 0);
    ck_assert(fdn_limiter_give_back(t, &first));
    ck_assert_int_eq(fdn_limiter_advance(t, 11), 0); /* at rest since 1 ms */
    take(t);
    ck_assert(!fdn_limiter_give_back(t, &second));
    ck_assert_uint_eq(used(t), 1);
    take(t);
    ck_assert(!fdn_limiter_hit(t, 1, fdn_limiter_preset(t), HASH, 1).allowed);
    fdn_limiter_destroy(t);
}
END_TEST

/* Within a tick of the coarse clock nothing of an undone debit remains, so that limits of one at a time are as if nothing had been. */
START_TEST(whole_within_a_tick)
{
    fdn_limiter *t = table(FDN_LIMITER_GCRA, 1, 3600000, 1, FDN_LIMITER_AUTO);
    unsigned seen = 0;
    for (unsigned i = 0; i < 1000000 && seen < 100; i++) {
        uint64_t before = fdn_clock_coarse_ns();
        fdn_limiter_debit d = take(t);
        ck_assert(fdn_limiter_give_back(t, &d));
        fdn_limiter_answer a = fdn_limiter_hit(t, 1, fdn_limiter_preset(t), HASH, 0);
        if (fdn_clock_coarse_ns() == before) {
            ck_assert(a.allowed);
            seen++;
        }
        fdn_limiter_reset(t, 3600000, HASH);
    }
    ck_assert_uint_eq(seen, 100);
    fdn_limiter_destroy(t);
}
END_TEST

/*
 * A key that one rule reads by the precise clock (a small burst), and another, of the same period, by the coarse one. Giving back goes
 * by the precise one, and does not cut off what is ahead of the coarse one: it may have been consumed by then.
 */
START_TEST(two_clocks_of_a_key)
{
    const uint64_t period = 3600000;
    fdn_limiter *t = table(FDN_LIMITER_GCRA, period * 1000, period, 1, FDN_LIMITER_AUTO); /* one every us */
    fdn_limiter_rule whole;
    unsigned seen = 0;
    ck_assert_int_eq(fdn_limiter_rule_make(FDN_LIMITER_GCRA, period * 1000, period, period * 1000, &whole), FDN_LIMITER_FITS);
    ck_assert(!fdn_limiter_uses_coarse(t, fdn_limiter_preset(t)) && fdn_limiter_uses_coarse(t, &whole));
    for (unsigned i = 0; i < 1000000 && seen < 100; i++) {
        fdn_limiter_debit d;
        ck_assert(fdn_limiter_take(t, 1, &whole, HASH, 1000000, &d).allowed);
        /* The state, in terms of the precise clock, and what of the debit had passed by then, at least. */
        uint64_t passed = fdn_clock_mono_ns() - t->epoch_ns - d.mark / 16;
        ck_assert(fdn_limiter_give_back(t, &d));
        fdn_limiter_place place = fdn_limiter_place_of(t, d.print);
        fdn_limiter_slot at;
        bool found = fdn_limiter_find_in(place.pair[0], place.print, &at) || fdn_limiter_find_in(place.pair[1], place.print, &at);
        ck_assert(found);
        ck_assert_uint_ge(atomic_load(at.state), d.mark + passed * 16);
        seen += passed > 1000;
        fdn_limiter_reset(t, period, HASH);
    }
    ck_assert_uint_eq(seen, 100);
    fdn_limiter_destroy(t);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("limiter_undo");
    TCase *c = tcase_create("undo");
    tcase_set_timeout(c, 120);
    tcase_add_loop_test(c, any_order, 0, FDN_LIMITER_LEASE);
    tcase_add_test(c, two_debits_around_a_rest);
    tcase_add_test(c, whole_within_a_tick);
    tcase_add_test(c, two_clocks_of_a_key);
    suite_add_tcase(s, c);
    return support_run(s);
}
