/* The policy: each rule by hand, and the window against a reference that remembers everything. */
#include <check.h>
#include <stdlib.h>

#include "base/fdn_alloc.h"
#include "base/fdn_error.h"
#include "c_node/policy.h"
#include "test/c/support.h"

static struct fdn_policy_conf process_conf(uint32_t failures, uint64_t window)
{
    struct fdn_policy_conf c;
    fdn_policy_defaults(&c, false);
    c.failures = failures;
    c.window_ms = window;
    return c;
}

static struct fdn_policy with(struct fdn_policy_conf conf, uint64_t now)
{
    struct fdn_policy p;
    ck_assert_int_eq(fdn_policy_init(&p, &conf, now), 0);
    return p;
}

START_TEST(window_edges)
{
    struct fdn_policy p = with(process_conf(3, 1000), 0);
    ck_assert_int_eq(fdn_policy_exit(&p, true, 100), FDN_COUNTED);
    ck_assert_int_eq(fdn_policy_exit(&p, true, 500), FDN_COUNTED);
    ck_assert_int_eq(fdn_policy_exit(&p, true, 1100), FDN_COUNTED); /* the first is exactly a window ago */
    ck_assert_int_eq(fdn_policy_exit(&p, true, 1499), FDN_TRIP);
    ck_assert_uint_eq(fdn_policy_recent(&p, 1499), 0); /* a trip starts the count again */
    ck_assert_int_eq(fdn_policy_exit(&p, true, 1500), FDN_COUNTED);
    ck_assert_uint_eq(p.trips, 1);
    ck_assert_uint_eq(p.total_failures, 5);
    fdn_policy_free(&p);
}
END_TEST

START_TEST(one_is_enough_when_asked)
{
    struct fdn_policy p = with(process_conf(1, 1), 0);
    ck_assert_int_eq(fdn_policy_exit(&p, true, 0), FDN_TRIP);
    ck_assert_int_eq(fdn_policy_exit(&p, true, 0), FDN_TRIP);
    fdn_policy_free(&p);
}
END_TEST

START_TEST(normal_exits)
{
    struct fdn_policy_conf c = process_conf(1, 1000);
    struct fdn_policy p = with(c, 0);
    ck_assert_int_eq(fdn_policy_exit(&p, false, 0), FDN_QUIET);
    ck_assert_uint_eq(p.total_failures, 0);
    fdn_policy_free(&p);
    c.abnormal_only = false;
    p = with(c, 0);
    ck_assert_int_eq(fdn_policy_exit(&p, false, 0), FDN_TRIP);
    fdn_policy_free(&p);
}
END_TEST

START_TEST(grace_cooldown_dry_run)
{
    struct fdn_policy_conf c = process_conf(1, 1000);
    c.grace_ms = 100;
    c.cooldown_ms = 50;
    c.dry_run = true;
    struct fdn_policy p = with(c, 1000);
    ck_assert_int_eq(fdn_policy_exit(&p, true, 1099), FDN_QUIET);
    ck_assert_int_eq(fdn_policy_exit(&p, true, 1100), FDN_TRIP_DRY);
    ck_assert_int_eq(fdn_policy_exit(&p, true, 1149), FDN_QUIET);
    ck_assert_int_eq(fdn_policy_exit(&p, true, 1150), FDN_TRIP_DRY);
    fdn_policy_found(&p, 2000); /* a node that comes back gets its grace again */
    ck_assert_int_eq(fdn_policy_exit(&p, true, 2099), FDN_QUIET);
    ck_assert_int_eq(fdn_policy_exit(&p, true, 2100), FDN_TRIP_DRY);
    fdn_policy_free(&p);
}
END_TEST

START_TEST(outages)
{
    struct fdn_policy_conf c;
    bool probe;
    fdn_policy_defaults(&c, true);
    c.down_after_ms = 500;
    struct fdn_policy p = with(c, 0);
    ck_assert_uint_eq(fdn_policy_due(&p), FDN_NEVER); /* never seen is not lost */
    fdn_policy_found(&p, 10);
    fdn_policy_lost(&p, 100);
    ck_assert_uint_eq(fdn_policy_due(&p), 600);
    ck_assert_int_eq(fdn_policy_tick(&p, 599, &probe), FDN_QUIET);
    fdn_policy_found(&p, 599); /* back in time: nothing happened */
    ck_assert_uint_eq(fdn_policy_due(&p), FDN_NEVER);
    fdn_policy_lost(&p, 700);
    fdn_policy_lost(&p, 900); /* the first counts */
    ck_assert_int_eq(fdn_policy_tick(&p, 1200, &probe), FDN_TRIP);
    ck_assert_uint_eq(fdn_policy_due(&p), FDN_NEVER); /* one outage counts once */
    ck_assert_int_eq(fdn_policy_dead(&p, 1300), FDN_QUIET);
    fdn_policy_found(&p, 2000);
    ck_assert_int_eq(fdn_policy_dead(&p, 2001), FDN_TRIP); /* known to be dead: at once */
    ck_assert_int_eq(fdn_policy_dead(&p, 2002), FDN_QUIET);
    fdn_policy_free(&p);
    /* a watch of a process does not care */
    p = with(process_conf(1, 1000), 0);
    fdn_policy_found(&p, 0);
    ck_assert_int_eq(fdn_policy_dead(&p, 1), FDN_QUIET);
    ck_assert_uint_eq(fdn_policy_due(&p), FDN_NEVER);
    fdn_policy_free(&p);
}
END_TEST

static struct fdn_policy probing(uint64_t now)
{
    struct fdn_policy_conf c;
    fdn_policy_defaults(&c, true);
    c.probe_every_ms = 100;
    c.probe_timeout_ms = 30;
    c.probe_misses = 3;
    struct fdn_policy p = with(c, now);
    fdn_policy_found(&p, now);
    return p;
}

/* Tick whenever it is due until a verdict; the time of it, or `until`. */
static uint64_t run(struct fdn_policy *p, uint64_t until, enum fdn_verdict *verdict)
{
    bool probe;
    *verdict = FDN_QUIET;
    for (uint64_t due = fdn_policy_due(p); due <= until; due = fdn_policy_due(p)) {
        *verdict = fdn_policy_tick(p, due, &probe);
        if (*verdict != FDN_QUIET)
            return due;
    }
    return until;
}

START_TEST(probes)
{
    enum fdn_verdict v;
    bool probe;
    struct fdn_policy p = probing(0);
    for (uint64_t t = 0; t < 1000; t += 100) {
        ck_assert_uint_eq(fdn_policy_due(&p), t);
        ck_assert_int_eq(fdn_policy_tick(&p, t, &probe), FDN_QUIET);
        ck_assert(probe);
        ck_assert_uint_eq(fdn_policy_due(&p), t + 30);
        fdn_policy_alive(&p, t + 29);
    }
    /* silence from just after an answer: timeout x misses and at most one interval */
    ck_assert_uint_eq(run(&p, 10000, &v), 1000 + 3 * 30);
    ck_assert_int_eq(v, FDN_TRIP);
    /* one hang trips once; an answer ends it */
    run(&p, 5000, &v);
    ck_assert_int_eq(v, FDN_QUIET);
    fdn_policy_alive(&p, 5001);
    run(&p, 10000, &v);
    ck_assert_int_eq(v, FDN_TRIP);
    fdn_policy_free(&p);
}
END_TEST

START_TEST(misses_in_a_row_only)
{
    bool probe;
    struct fdn_policy p = probing(0);
    for (uint64_t t = 0; t < 100000;) {
        fdn_policy_tick(&p, t, &probe);
        ck_assert(probe);
        t = fdn_policy_due(&p);
        ck_assert_int_eq(fdn_policy_tick(&p, t, &probe), FDN_QUIET);
        t = fdn_policy_due(&p);
        ck_assert_int_eq(fdn_policy_tick(&p, t, &probe), FDN_QUIET);
        fdn_policy_alive(&p, t + 1); /* the third is answered */
        t = fdn_policy_due(&p);
    }
    ck_assert_uint_eq(p.trips, 0);
    fdn_policy_free(&p);
}
END_TEST

/* We were stopped for an hour: neither the probe nor the outage is the other side's. */
START_TEST(our_own_pause)
{
    bool probe;
    struct fdn_policy p = probing(0);
    fdn_policy_tick(&p, 0, &probe);
    fdn_policy_resume(&p, 3600000);
    ck_assert_uint_eq(fdn_policy_due(&p), 3600030);
    fdn_policy_lost(&p, 3600010);
    fdn_policy_resume(&p, 7200000);
    ck_assert_int_eq(fdn_policy_tick(&p, 7200000 + p.conf.down_after_ms - 1, &probe), FDN_QUIET);
    ck_assert_int_eq(fdn_policy_tick(&p, 7200000 + p.conf.down_after_ms, &probe), FDN_TRIP);
    fdn_policy_free(&p);
}
END_TEST

/* Random exits, against counting all of them again each time. */
START_TEST(random_against_reference)
{
    unsigned seed = (unsigned)_i;
    struct fdn_policy_conf c = process_conf(1 + (uint32_t)rand_r(&seed) % 6, 1 + (uint64_t)rand_r(&seed) % 200);
    struct fdn_policy p = with(c, 0);
    uint64_t times[5000], now = 0;
    size_t n = 0, trips = 0;
    for (int step = 0; step < 5000; step++) {
        now += (uint64_t)rand_r(&seed) % 80;
        times[n++] = now;
        size_t within = 0;
        for (size_t i = 0; i < n; i++)
            within += now - times[i] < c.window_ms;
        bool expect = within >= c.failures;
        ck_assert_uint_eq(fdn_policy_exit(&p, true, now) == FDN_TRIP, expect);
        if (expect) {
            n = 0;
            trips++;
        }
        ck_assert_uint_eq(fdn_policy_recent(&p, now), expect ? 0 : within);
    }
    ck_assert_uint_eq(p.trips, trips);
    fdn_policy_free(&p);
}
END_TEST

START_TEST(no_memory)
{
    struct fdn_policy p;
    struct fdn_policy_conf c = process_conf(3, 1000);
    fdn_alloc_budget = 0;
    ck_assert_int_eq(fdn_policy_init(&p, &c, 0), FDN_ENOMEM);
    fdn_alloc_budget = -1;
}
END_TEST

int main(void)
{
    Suite *s = suite_create("policy");
    TCase *t = tcase_create("policy");
    tcase_add_test(t, window_edges);
    tcase_add_test(t, one_is_enough_when_asked);
    tcase_add_test(t, normal_exits);
    tcase_add_test(t, grace_cooldown_dry_run);
    tcase_add_test(t, outages);
    tcase_add_test(t, probes);
    tcase_add_test(t, misses_in_a_row_only);
    tcase_add_test(t, our_own_pause);
    tcase_add_loop_test(t, random_against_reference, 0, 50);
    tcase_add_test(t, no_memory);
    suite_add_tcase(s, t);
    return support_run(s);
}
