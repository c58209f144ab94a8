/*
 * The limiter and the clocks of the system: it reads the monotonic ones only, so a wall clock that is set forward or back changes
 * nothing; and a wait that it tells is long enough on the coarse clock too, whose ticks the caller does not see.
 *
 * The clocks are this program's: its clock_gettime stands in for the C library's.
 */
#include <check.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/fdn_atomic.h"
#include "base/fdn_hash.h"
#include "engine/limiter.h"
#include "test/c/support.h"

static bool scripted;
static uint64_t mono_ns, wall_ns;
static bool wall_was_read, other_was_read;

static uint64_t told(clockid_t id)
{
    switch (id) {
    case CLOCK_MONOTONIC:
        return mono_ns;
    case CLOCK_MONOTONIC_COARSE:
        return mono_ns - mono_ns % fdn_clock_coarse_resolution_ns();
    case CLOCK_REALTIME:
        wall_was_read = true;
        return wall_ns;
    default:
        other_was_read = true;
        return mono_ns;
    }
}

int clock_gettime(clockid_t id, struct timespec *ts)
{
    if (!scripted)
        return (int)syscall(SYS_clock_gettime, id, ts);
    uint64_t now = told(id);
    *ts = (struct timespec){(time_t)(now / FDN_NS_PER_S), (long)(now % FDN_NS_PER_S)};
    return 0;
}

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

#define YEAR_NS (365ULL * 86400 * FDN_NS_PER_S)

static void start_clocks(void)
{
    wall_was_read = other_was_read = false;
    mono_ns = 12345678901ULL;
    wall_ns = 50 * YEAR_NS;
    scripted = true;
}

static fdn_limiter *table(fdn_limiter_config config)
{
    fdn_limiter *t;
    fdn_limiter_fit fit;
    ck_assert_int_eq(fdn_limiter_create(&config, &t, &fit), 0);
    return t;
}

static fdn_limiter_answer hit(fdn_limiter *t, uint64_t key, uint64_t cost)
{
    return fdn_limiter_hit(t, 1, fdn_limiter_preset(t), hash_of(key), cost);
}

#define ALGORITHMS 3
static const uint32_t algorithms[ALGORITHMS] = {FDN_LIMITER_GCRA, FDN_LIMITER_FIXED_WINDOW, FDN_LIMITER_SLIDING_WINDOW};
#define CLOCKS 3
static const uint32_t clocks[CLOCKS] = {FDN_LIMITER_AUTO, FDN_LIMITER_PRECISE, FDN_LIMITER_COARSE};

static fdn_limiter_config config_of(int i, uint64_t period_ms)
{
    return (fdn_limiter_config){.algorithm = algorithms[i % ALGORITHMS],
                                .clock = clocks[i / ALGORITHMS],
                                .limit = 10,
                                .period_ms = period_ms,
                                .burst = algorithms[i % ALGORITHMS] == FDN_LIMITER_GCRA ? 10 : 0,
                                .capacity = 100};
}

/* The wall clock goes where it likes; two tables, one of which lives through that, answer alike. */
START_TEST(wall_clock_does_not_matter)
{
    start_clocks();
    uint64_t began = mono_ns;
    static fdn_limiter_answer quiet[2000];
    for (int pass = 0; pass < 2; pass++) {
        mono_ns = began;
        seed = 99;
        fdn_limiter *t = table(config_of(_i, 60000));
        for (int n = 0; n < 2000; n++) {
            uint64_t step = rnd(3) == 0 ? rnd(20 * FDN_NS_PER_S) : rnd(FDN_NS_PER_MS), wall = rnd(80) * YEAR_NS;
            mono_ns += step;
            if (pass == 1)
                wall_ns = wall;
            fdn_limiter_answer a = hit(t, rnd(3), rnd(4));
            if (pass == 0)
                quiet[n] = a;
            ck_assert_int_eq(a.allowed, quiet[n].allowed);
            ck_assert_uint_eq(a.value, quiet[n].value);
        }
        fdn_limiter_stats stats;
        fdn_limiter_stats_of(t, &stats);
        fdn_limiter_destroy(t);
    }
    scripted = false;
    ck_assert(!wall_was_read);
    ck_assert(!other_was_read);
}
END_TEST

/* After the wait that a denial tells, by a clock that the limiter does not look at, the same hit is admitted. Periods on both sides of
 * where `auto` changes its clock. */
START_TEST(waits_are_long_enough)
{
    static const uint64_t periods[] = {1, 7, 100, 999, 1000, 2500, 3000, 60000};
    start_clocks();
    for (unsigned p = 0; p < sizeof periods / sizeof *periods; p++) {
        fdn_limiter *t = table(config_of(_i, periods[p]));
        int denied = 0;
        for (int n = 0; n < 3000; n++) {
            mono_ns += rnd(periods[p] * FDN_NS_PER_MS / 4 + 1);
            uint64_t cost = 1 + rnd(10);
            fdn_limiter_answer a = hit(t, 1, cost);
            if (a.allowed)
                continue;
            denied++;
            mono_ns += a.value * FDN_NS_PER_MS;
            a = hit(t, 1, cost);
            ck_assert(a.allowed);
        }
        ck_assert_int_gt(denied, 10);
        fdn_limiter_destroy(t);
    }
    scripted = false;
}
END_TEST

/* Months pass between two hits. */
START_TEST(long_sleep)
{
    start_clocks();
    fdn_limiter *t = table(config_of(_i, 60000));
    for (int months = 0; months < 90; months++) {
        ck_assert(hit(t, 1, 10).allowed);
        ck_assert(!hit(t, 1, 1).allowed);
        mono_ns += 30ULL * 86400 * FDN_NS_PER_S;
    }
    fdn_limiter_destroy(t);
    scripted = false;
}
END_TEST

/* The control: the clocks above are the ones that are read. */
START_TEST(clocks_are_ours)
{
    start_clocks();
    uint64_t wall = fdn_clock_wall_ns();
    uint64_t mono = fdn_clock_mono_ns();
    scripted = false;
    ck_assert_uint_eq(wall, wall_ns);
    ck_assert_uint_eq(mono, mono_ns);
    ck_assert(wall_was_read);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("limiter clock");
    TCase *c = tcase_create("clock");
    tcase_set_timeout(c, 60);
    tcase_add_test(c, clocks_are_ours);
    tcase_add_loop_test(c, wall_clock_does_not_matter, 0, ALGORITHMS * CLOCKS);
    tcase_add_loop_test(c, waits_are_long_enough, 0, ALGORITHMS * CLOCKS);
    tcase_add_loop_test(c, long_sleep, 0, ALGORITHMS * CLOCKS);
    suite_add_tcase(s, c);
    return support_run(s);
}
