/*
 * A slot that goes to another key in the middle of an operation, and comes to the very state that the operation has read: what the
 * operation then does must not be done to the newcomer, and not be lost to its own key. And what takes consumption away holds the lock.
 */
#include "test/c/limiter_steps_fixture.h"

static bool locked;
static unsigned steps_before;

/* Whether this is the step at which the others come: the n-th, counted from the beginning, or from the lock on. */
static bool now_is_the_step(fdn_step_kind kind, bool from_lock)
{
    locked = locked || kind == FDN_STEP_LOCKED;
    return (locked || !from_lock) && kind != FDN_STEP_CLAIMED && steps_before-- == 0;
}

static void change_places(unsigned a, unsigned b)
{
    uint64_t swap = hashes[a];
    hashes[a] = hashes[b];
    hashes[b] = swap;
}

/* ---- resets --------------------------------------------------------------------------------------------------------------------- */

/* How many keys but the first have consumed something. */
static unsigned others_in_use(void)
{
    unsigned n = 0;
    for (unsigned k = 1; k < KEYS; k++)
        n += hit(k, 0).value < LIMIT;
    return n;
}

static unsigned in_use_before;

/* A flood evicts the key that is being reset, and the slot goes to another key in the very same state: that one stays. */
static void flood(fdn_step_kind kind)
{
    if (!now_is_the_step(kind, true))
        return;
    fdn_step_hook = NULL;
    for (unsigned k = 1; k < KEYS; k++)
        hit(k, 1);
    in_use_before = others_in_use();
}

START_TEST(reset_spares_the_newcomer)
{
    algorithm = (fdn_limiter_algorithm)_i;
    fdn_limiter_stats stats;
    unsigned evicted = 0;
    choose_keys();
    for (unsigned round = 0; round < 200; round++) {
        change_places(0, 1 + (unsigned)rnd(KEYS - 1));
        create(FDN_LIMITER_EVICT);
        hit(0, 1);
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

/* ---- hits ----------------------------------------------------------------------------------------------------------------------- */

static fdn_limiter_debit debit;
static bool set_instead;

/* The key of the interrupted hit comes to rest, and another one takes a slot. */
static void give_back_and_make_room(fdn_step_kind kind)
{
    if (!now_is_the_step(kind, false))
        return;
    fdn_step_hook = NULL;
    if (set_instead)
        fdn_limiter_set_used(t, fdn_limiter_preset(t), hashes[0], 0);
    else
        ck_assert(fdn_limiter_give_back(t, &debit));
    ck_assert(hit(1, 2).allowed);
}

START_TEST(hit_is_not_lost_to_the_newcomer)
{
    algorithm = FDN_LIMITER_GCRA;
    unsigned charged_twice = 0;
    choose_keys();
    for (unsigned round = 0; round < 6 * 200; round++) {
        change_places(0, 2 + (unsigned)rnd(KEYS - 2));
        change_places(1, 2 + (unsigned)rnd(KEYS - 2));
        create(FDN_LIMITER_DENY);
        ck_assert_int_eq(fdn_limiter_advance(t, rnd(2) * 10), 0);
        ck_assert(fdn_limiter_take(t, 1, fdn_limiter_preset(t), hashes[0], 2, &debit).allowed);
        locked = false;
        steps_before = round % 6;
        set_instead = rnd(2);
        fdn_step_hook = give_back_and_make_room;
        ck_assert(hit(0, 1).allowed);
        fdn_step_hook = NULL;
        uint64_t newcomer = fdn_limiter_used(t, fdn_limiter_preset(t), hashes[1]);
        ck_assert_uint_ge(fdn_limiter_used(t, fdn_limiter_preset(t), hashes[0]), 1);
        ck_assert(newcomer == 0 || newcomer >= 2); /* 0: there were fewer steps */
        charged_twice += newcomer == 3;
        fdn_limiter_destroy(t);
    }
    ck_assert_uint_gt(charged_twice, 10);
}
END_TEST

/* ---- leases --------------------------------------------------------------------------------------------------------------------- */

/* Leases for all others, each like the first key's. */
static void flood_of_leases(fdn_step_kind kind)
{
    if (!now_is_the_step(kind, true))
        return;
    fdn_step_hook = NULL;
    for (unsigned k = 1; k < KEYS; k++)
        ck_assert(fdn_limiter_grant(t, fdn_limiter_preset(t), hashes[k], 2, 10, false));
}

START_TEST(newcomer_gets_no_lease_of_another)
{
    algorithm = FDN_LIMITER_LEASE;
    unsigned evicted = 0;
    choose_keys();
    for (unsigned round = 0; round < 400; round++) {
        const fdn_limiter_rule *rule;
        bool back = rnd(2);
        change_places(0, 1 + (unsigned)rnd(KEYS - 1));
        create(FDN_LIMITER_EVICT);
        rule = fdn_limiter_preset(t);
        ck_assert(fdn_limiter_grant(t, rule, hashes[0], back ? 3 : 2, 10, false));
        if (back)
            ck_assert(fdn_limiter_take(t, 1, rule, hashes[0], 1, &debit).allowed);
        locked = false;
        steps_before = round % 5;
        fdn_step_hook = flood_of_leases;
        if (back)
            fdn_limiter_give_back(t, &debit);
        else
            ck_assert(fdn_limiter_grant(t, rule, hashes[0], 3, 10, false));
        fdn_step_hook = NULL;
        for (unsigned k = 1; k < KEYS; k++)
            ck_assert(!hit(k, 3).allowed);
        evicted += !hit(0, 0).allowed;
        fdn_limiter_destroy(t);
    }
    ck_assert_uint_gt(evicted, 10);
}
END_TEST

/* ---- the lock ------------------------------------------------------------------------------------------------------------------- */

static unsigned steps, steps_in_the_dark;

/* Once the lock is taken, nobody else gets it. */
static void look_for_the_lock(fdn_step_kind kind)
{
    pthread_mutex_t *lock = &t->stripes[fdn_limiter_print_of(hashes[0], PERIOD) % FDN_LIMITER_STRIPES].lock;
    locked = locked || kind == FDN_STEP_LOCKED;
    steps++;
    if (pthread_mutex_trylock(lock) == 0) {
        pthread_mutex_unlock(lock);
        steps_in_the_dark++;
    }
}

START_TEST(what_takes_away_holds_the_lock)
{
    algorithm = (fdn_limiter_algorithm)_i;
    choose_keys();
    create(FDN_LIMITER_DENY);
    const fdn_limiter_rule *rule = fdn_limiter_preset(t);
    for (int what = 0; what < 4; what++) {
        if (algorithm == FDN_LIMITER_LEASE)
            ck_assert(fdn_limiter_grant(t, rule, hashes[0], 2, 10, false));
        ck_assert(fdn_limiter_take(t, 1, rule, hashes[0], 1, &debit).allowed);
        locked = false;
        steps = steps_in_the_dark = 0;
        fdn_step_hook = look_for_the_lock;
        if (what == 0)
            ck_assert(fdn_limiter_give_back(t, &debit));
        else if (what == 1)
            ck_assert(fdn_limiter_reset(t, PERIOD, hashes[0]));
        else if (algorithm == FDN_LIMITER_LEASE)
            ck_assert(fdn_limiter_grant(t, rule, hashes[0], 2, 10, true));
        else
            fdn_limiter_set_used(t, rule, hashes[0], what == 2 ? 1 : 0);
        fdn_step_hook = NULL;
        ck_assert(locked);
        ck_assert_uint_ge(steps, 3);
        ck_assert_uint_eq(steps_in_the_dark, 1); /* the first one, before it is taken */
    }
    fdn_limiter_destroy(t);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("limiter_newcomer");
    TCase *c = tcase_create("newcomer");
    tcase_add_loop_test(c, reset_spares_the_newcomer, 0, FDN_LIMITER_LEASE);
    tcase_add_test(c, hit_is_not_lost_to_the_newcomer);
    tcase_add_test(c, newcomer_gets_no_lease_of_another);
    tcase_add_loop_test(c, what_takes_away_holds_the_lock, 0, ALGORITHMS);
    suite_add_tcase(s, c);
    return support_run(s);
}
