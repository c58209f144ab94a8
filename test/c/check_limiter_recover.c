/* A limiter's file when it is taken up: slots that cannot be kept, time over reboots and odd clocks, and tables that are moved back. */
#include <sys/stat.h>
#include <unistd.h>

#include "test/c/limiter_file_fixture.h"

static uint64_t seed = 88172645463325252ULL;

static uint64_t rnd(uint64_t below)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return seed % below;
}

/* ---- slots ---------------------------------------------------------------------------------------------------------------------- */

#define BUCKETS 54 /* of a table for 100 keys */
#define PERIOD 60000

static fdn_limiter_bucket buckets[BUCKETS];

static uint64_t print_of(uint64_t key)
{
    return fdn_limiter_print_of(hash_of(key), PERIOD);
}

static fdn_limiter_bucket *first_of(uint64_t print)
{
    return &buckets[fdn_limiter_first_place(print, BUCKETS)];
}

static fdn_limiter_bucket *second_of(uint64_t print)
{
    return &buckets[fdn_limiter_second_place(print, BUCKETS, fdn_limiter_first_place(print, BUCKETS))];
}

static void put(fdn_limiter_bucket *b, int slot, uint64_t print, uint64_t state)
{
    atomic_store(&b->print[slot], print);
    atomic_store(&b->state[slot], state);
}

static bool is(const fdn_limiter_bucket *b, int slot, uint64_t print, uint64_t state)
{
    return atomic_load(&b->print[slot]) == print && atomic_load(&b->state[slot]) == state;
}

/* The state of a key after one hit of this cost. */
static uint64_t state_after(int algorithm, uint64_t now_ms, uint64_t cost)
{
    fdn_limiter_rule rule;
    uint64_t state = 0, value;
    fdn_limiter_rule_make((fdn_limiter_algorithm)algorithm, 1000, PERIOD, 1000, &rule);
    ck_assert(fdn_limiter_decide((fdn_limiter_algorithm)algorithm, &rule, 0, now_ms * FDN_NS_PER_MS, cost, &state, &value));
    return state;
}

static uint64_t recover(int algorithm, uint64_t now_ms)
{
    return fdn_limiter_recover(buckets, BUCKETS, (fdn_limiter_algorithm)algorithm, now_ms * FDN_NS_PER_MS);
}

START_TEST(slots_that_cannot_be_kept)
{
    const uint64_t now = 1000000000, good = state_after(_i, now, 5), old = state_after(_i, now - 10 * PERIOD, 5);
    uint64_t key = 0, print = print_of(key);
    /* Kept: in the first bucket, in the second one, expired. */
    put(first_of(print), 3, print, good);
    uint64_t second = print_of(++key);
    put(second_of(second), 2, second, good);
    uint64_t expired = print_of(++key);
    put(first_of(expired), 1, expired, old);
    ck_assert_uint_eq(recover(_i, now), 0);
    ck_assert(is(first_of(print), 3, print, good) && is(second_of(second), 2, second, good));
    ck_assert(is(first_of(expired), 1, expired, old));
    /* Left BUSY, with and without a fingerprint; a state without one; a fingerprint where it does not belong. */
    memset(buckets, 0, sizeof buckets);
    put(first_of(print), 0, print, FDN_LIMITER_BUSY);
    put(&buckets[9], 1, 0, FDN_LIMITER_BUSY);
    put(&buckets[9], 2, 0, good);
    fdn_limiter_bucket *elsewhere = buckets;
    while (elsewhere == first_of(print) || elsewhere == second_of(print) || elsewhere == &buckets[9])
        elsewhere++;
    put(elsewhere, 0, print, good);
    ck_assert_uint_eq(recover(_i, now), 4);
    for (size_t i = 0; i < sizeof buckets; i++)
        ck_assert_int_eq(((uint8_t *)buckets)[i], 0);
    /* Ends that no hit can have set: the longest periods, and a day. Those a little nearer stay. */
    uint64_t far_ms = _i == FDN_LIMITER_GCRA           ? FDN_LIMITER_MAX_AHEAD / (16 * FDN_NS_PER_MS)
                      : _i == FDN_LIMITER_FIXED_WINDOW ? FDN_LIMITER_MAX_PERIOD_MS
                                                       : 2 * FDN_LIMITER_MAX_PERIOD_MS;
    for (int beyond = 0; beyond < 2; beyond++) {
        uint64_t end = now + far_ms + (beyond ? 30ULL * 86400000 : 0), state = end << 24 | 1;
        if (_i == FDN_LIMITER_GCRA)
            state = end * 16 * FDN_NS_PER_MS;
        else if (_i == FDN_LIMITER_SLIDING_WINDOW)
            state = (uint64_t)16 << 59 | end >> 16 << 36 | 1;
        put(first_of(print), 0, print, state);
        ck_assert_uint_eq(recover(_i, now), (uint64_t)beyond);
        ck_assert(is(first_of(print), 0, beyond ? 0 : print, beyond ? 0 : state));
    }
    put(first_of(print), 0, print, FDN_LIMITER_BUSY - 1);
    ck_assert_uint_eq(recover(_i, now), 1);
}
END_TEST

/* One key in two slots, as pages of different age leave it: the stricter state stays, where a search meets it first. */
START_TEST(one_key_keeps_one_slot)
{
    const uint64_t now = 1000000000, more = state_after(_i, now, 700), less = state_after(_i, now - PERIOD / 10, 5);
    for (uint64_t key = 0; key < 200; key++) {
        uint64_t print = print_of(key);
        for (int order = 0; order < 2; order++) {
            uint64_t one = order ? more : less, other = order ? less : more;
            memset(buckets, 0, sizeof buckets);
            put(first_of(print), 3, print, one);
            put(second_of(print), 0, print, other);
            ck_assert_uint_eq(recover(_i, now), 1);
            ck_assert(is(first_of(print), 3, print, more) && is(second_of(print), 0, 0, 0));
            memset(buckets, 0, sizeof buckets);
            put(second_of(print), 1, print, one);
            put(second_of(print), 2, print, FDN_LIMITER_BUSY);
            put(second_of(print), 3, print, other);
            ck_assert_uint_eq(recover(_i, now), 2);
            ck_assert(is(second_of(print), 1, print, more));
        }
        /* One that cannot be kept does not count. */
        memset(buckets, 0, sizeof buckets);
        put(first_of(print), 0, print, FDN_LIMITER_BUSY);
        put(second_of(print), 0, print, less);
        ck_assert_uint_eq(recover(_i, now), 1);
        ck_assert(is(second_of(print), 0, print, less));
    }
}
END_TEST

/* Any bytes: it ends, and what is left can be hit. */
START_TEST(any_bytes)
{
    for (int round = 0; round < 2000; round++) {
        uint64_t now = rnd(2) ? rnd(1ULL << 39) : 0;
        uint64_t *words = (uint64_t *)(void *)buckets;
        for (size_t i = 0; i < sizeof buckets / 8; i++)
            words[i] = rnd(4) ? rnd(UINT64_MAX) >> rnd(64) : UINT64_MAX - rnd(2);
        for (int i = 0; i < 50; i++) {
            uint64_t print = print_of(rnd(20));
            put(rnd(2) ? first_of(print) : second_of(print), (int)rnd(4), print, rnd(UINT64_MAX) >> rnd(64));
        }
        recover(_i, now);
        ck_assert_uint_eq(recover(_i, now), 0);
        for (uint64_t key = 0; key < 20; key++) {
            int found = 0;
            for (int i = 0; i < FDN_LIMITER_SLOTS; i++)
                found += (atomic_load(&first_of(print_of(key))->print[i]) == print_of(key)) +
                         (atomic_load(&second_of(print_of(key))->print[i]) == print_of(key));
            ck_assert_int_le(found, 1);
        }
    }
}
END_TEST

/* A process was killed in the middle of insertions: in the file, through the file's own opening. */
START_TEST(busy_slots_are_dropped_when_a_file_is_opened)
{
    fdn_limiter *t = open_table(_i);
    for (uint64_t k = 0; k < 60; k++)
        ck_assert(hit(t, k, 10).allowed);
    fdn_limiter_destroy(t);
    support_read_file(path, whole, sizeof whole);
    fdn_limiter_bucket *b = (fdn_limiter_bucket *)(void *)(whole + FDN_LIMITER_FILE_HEADER);
    uint64_t busy = 0;
    for (int i = 0; i < BUCKETS; i++) {
        for (int j = 0; j < FDN_LIMITER_SLOTS; j++) {
            if (atomic_load(&b[i].print[j]) % 3 == 1) {
                atomic_store(&b[i].state[j], FDN_LIMITER_BUSY);
                busy++;
            }
        }
    }
    support_patch(path, 0, whole, size_of(100));
    t = open_table(_i);
    ck_assert_uint_gt(busy, 5);
    ck_assert_uint_eq(why.dropped, busy);
    ck_assert_uint_eq(fdn_limiter_dropped(t), busy);
    ck_assert_uint_eq(stats_of(t).live, 60 - busy);
    for (uint64_t k = 0; k < 60; k++)
        ck_assert(hit(t, k, 10).allowed == (print_of(k) % 3 == 1));
    fdn_limiter_destroy(t);
}
END_TEST

/* ---- time ----------------------------------------------------------------------------------------------------------------------- */

#define S FDN_NS_PER_S

static fdn_limiter_moment moment(int boot, uint64_t mono_s, uint64_t wall_s)
{
    fdn_limiter_moment at = {.mono_ns = mono_s * S, .wall_ns = wall_s * S};
    memset(at.boot, boot, sizeof at.boot);
    return at;
}

/* The table's time when the file is opened at this moment, in seconds; closed at `end`, or left as a killed process leaves it. */
static uint64_t life(fdn_limiter_clock clock, fdn_limiter_moment at, const fdn_limiter_moment *end, uint64_t manual_ns)
{
    fdn_limiter_config config = config_of(FDN_LIMITER_GCRA);
    fdn_limiter_file *f;
    config.clock = (uint32_t)clock;
    OK(fdn_limiter_file_open(path, &config, &at, &f, &why));
    uint64_t now = fdn_limiter_file_look(f).now_ns, epoch = fdn_limiter_file_look(f).epoch_ns;
    ck_assert_uint_eq(at.mono_ns - epoch, now);
    if (end != NULL) {
        fdn_limiter_file_close(f, end, manual_ns, false);
    } else {
        static uint8_t left[1 << 16];
        size_t n = support_read_file(path, left, sizeof left);
        fdn_limiter_file_close(f, &at, 0, false);
        support_write_file(path, left, n, 0600);
    }
    ck_assert_uint_eq(now % S, 0);
    return now / S;
}

START_TEST(time_goes_on)
{
    fdn_limiter_moment end = moment(1, 1010, 5010);
    ck_assert_uint_eq(life(FDN_LIMITER_AUTO, moment(1, 1000, 5000), &end, 0), 0);
    /* On the same boot by the monotonic clock, whatever became of the wall clock; killed, too. */
    ck_assert_uint_eq(life(FDN_LIMITER_AUTO, moment(1, 1020, 9), NULL, 0), 20);
    ck_assert_uint_eq(life(FDN_LIMITER_AUTO, moment(1, 1030, 999999), NULL, 0), 30);
    /* After a reboot by the wall clock; from the last stamp, which is the one of the opening. */
    ck_assert_uint_eq(life(FDN_LIMITER_PRECISE, moment(2, 5, 1000009), NULL, 0), 40);
    /* Set back, it stands still; set forward, it leaps. */
    ck_assert_uint_eq(life(FDN_LIMITER_PRECISE, moment(3, 7, 1000), NULL, 0), 40);
    end = moment(3, 17, 2000);
    ck_assert_uint_eq(life(FDN_LIMITER_PRECISE, moment(3, 8, 1000), &end, 0), 41);
    ck_assert_uint_eq(life(FDN_LIMITER_PRECISE, moment(4, 8, 3000), NULL, 0), 1050);
    /* A boot that has no name is no boot that is known again. */
    ck_assert_uint_eq(life(FDN_LIMITER_PRECISE, moment(0, 8, 3010), NULL, 0), 1060);
    ck_assert_uint_eq(life(FDN_LIMITER_PRECISE, moment(0, 100, 3011), NULL, 0), 1061);
    /* Nor one whose clock is behind what was noted (a name space of its own). */
    ck_assert_uint_eq(life(FDN_LIMITER_PRECISE, moment(4, 100, 3012), NULL, 0), 1062);
    ck_assert_uint_eq(life(FDN_LIMITER_PRECISE, moment(4, 50, 3013), NULL, 0), 1063);
}
END_TEST

START_TEST(manual_time_is_kept)
{
    fdn_limiter_moment end = moment(1, 1010, 5010);
    ck_assert_uint_eq(life(FDN_LIMITER_MANUAL, moment(1, 1000, 5000), &end, 77 * S), 0);
    ck_assert_uint_eq(life(FDN_LIMITER_MANUAL, moment(1, 1100, 5100), &end, 78 * S), 77);
    ck_assert_uint_eq(life(FDN_LIMITER_MANUAL, moment(2, 1, 99999), &end, 0), 78); /* never back */
    /* It runs from there when the clock does, and stands still where it was when it does no more. */
    ck_assert_uint_eq(life(FDN_LIMITER_AUTO, moment(2, 2, 100000), NULL, 0), 78);
    ck_assert_uint_eq(life(FDN_LIMITER_AUTO, moment(2, 12, 100000), NULL, 0), 88);
    ck_assert_uint_eq(life(FDN_LIMITER_MANUAL, moment(2, 22, 100000), NULL, 0), 98);
    ck_assert_uint_eq(life(FDN_LIMITER_MANUAL, moment(2, 32, 100000), NULL, 0), 98);
}
END_TEST

/* What a stamp says counts for the next boot. */
START_TEST(stamps_are_where_a_reboot_goes_on)
{
    fdn_limiter_config config = config_of(FDN_LIMITER_GCRA);
    fdn_limiter_moment at = moment(1, 100, 5000), later = moment(1, 150, 5050), back = moment(1, 140, 4000);
    fdn_limiter_file *f;
    config.clock = FDN_LIMITER_PRECISE;
    OK(fdn_limiter_file_open(path, &config, &at, &f, &why));
    OK(fdn_limiter_file_stamp(f, &later, 0));
    OK(fdn_limiter_file_stamp(f, &back, 0)); /* never back */
    static uint8_t left[1 << 16];
    size_t n = support_read_file(path, left, sizeof left);
    fdn_limiter_file_close(f, &later, 0, false);
    support_write_file(path, left, n, 0600);
    ck_assert_uint_eq(life(FDN_LIMITER_PRECISE, moment(2, 3, 5060), NULL, 0), 60);
}
END_TEST

/* ---- moving back ---------------------------------------------------------------------------------------------------------------- */

#define SHIFT_S (FDN_LIMITER_FILE_SHIFT_MS / 1000)

/* A clock that leaps by a hundred years takes all budgets back, and the table begins anew, with time to come. */
START_TEST(a_leap_beyond_all_states)
{
    const uint64_t century = 3200000000ULL;
    fdn_limiter_moment at = moment(1, 1000, 5000);
    fdn_limiter_config config = config_of(_i);
    config.clock = FDN_LIMITER_PRECISE;
    fdn_limiter *t = open_at(&config, &at);
    ck_assert(hit(t, 1, 10).allowed);
    fdn_limiter_destroy(t);
    support_read_file(path, whole, sizeof whole);
    uint64_t wall_s = fdn_clock_wall_ns() / S;
    at = moment(2, 1, wall_s + century);
    t = open_at(&config, &at);
    ck_assert_uint_eq(stats_of(t).live, 0);
    ck_assert(stats_of(t).now_ms < FDN_LIMITER_FILE_SHIFT_MS);
    ck_assert(hit(t, 1, 10).allowed);
    ck_assert(!hit(t, 1, 1).allowed);
    fdn_limiter_destroy(t);
}
END_TEST

START_TEST(a_table_grown_old_is_moved_back)
{
    static uint64_t value[100];
    static bool allowed[100];
    struct stat before, later;
    uint8_t secret[16];
    fdn_limiter *t = open_table(_i);
    memcpy(secret, fdn_limiter_secret_of(t)->terms, 16);
    OK(fdn_limiter_advance(t, FDN_LIMITER_FILE_SHIFT_MS - 5000));
    for (uint64_t k = 0; k < 50; k++)
        ck_assert(hit(t, k, 1 + k % 10).allowed);
    OK(fdn_limiter_advance(t, 4999));
    fdn_limiter_destroy(t);
    ck_assert_int_eq(stat(path, &before), 0);
    t = open_table(_i);
    ck_assert_uint_eq(stats_of(t).now_ms, FDN_LIMITER_FILE_SHIFT_MS - 1); /* not yet */
    OK(fdn_limiter_advance(t, 1));
    for (uint64_t k = 0; k < 100; k++) {
        allowed[k] = hit(t, k, 0).allowed;
        value[k] = hit(t, k, 0).value;
    }
    fdn_limiter_destroy(t);
    ck_assert_int_eq(stat(path, &later), 0);
    ck_assert_uint_eq(before.st_ino, later.st_ino);
    t = open_table(_i);
    ck_assert_int_eq(stat(path, &later), 0);
    ck_assert_uint_ne(before.st_ino, later.st_ino);
    ck_assert_uint_eq(later.st_mode & 07777, 0600);
    ck_assert_uint_eq(stats_of(t).now_ms, 0);
    ck_assert_uint_eq(stats_of(t).live, 50);
    ck_assert_mem_eq(secret, fdn_limiter_secret_of(t)->terms, 16);
    for (uint64_t k = 0; k < 100; k++) {
        fdn_limiter_answer a = hit(t, k, 0);
        if (_i == FDN_LIMITER_SLIDING_WINDOW && k < 50) {
            ck_assert(!a.allowed || (allowed[k] && a.value <= value[k]));
        } else {
            ck_assert(a.allowed == allowed[k]);
            ck_assert_uint_eq(a.value, value[k]);
        }
    }
    OK(fdn_limiter_advance(t, 4 * PERIOD));
    ck_assert_uint_eq(stats_of(t).live, 0);
    for (uint64_t k = 0; k < 100; k++)
        ck_assert_uint_eq(hit(t, k, 0).value, 10);
    /* It is locked and open under its name. */
    fdn_limiter_config config = config_of(_i);
    FAILS(try_open(path, &config), FDN_ELOCKED);
    OK(fdn_limiter_look_after(t));
    fdn_limiter_destroy(t);
}
END_TEST

/* At any later moment, for any cost: what is admitted after the move would have been admitted without it. */
START_TEST(moving_back_gives_nothing_away)
{
    fdn_limiter_algorithm algorithm = (fdn_limiter_algorithm)_i;
    uint64_t strict = 0, equal = 0;
    for (int round = 0; round < 20000; round++) {
        fdn_limiter_bucket from = {0}, to = {0};
        fdn_limiter_rule rule;
        uint64_t period = 1 + rnd(1ULL << rnd(35)), limit = 1 + rnd(20), value, other, next;
        period = period < FDN_LIMITER_MAX_PERIOD_MS ? period : FDN_LIMITER_MAX_PERIOD_MS;
        ck_assert_int_eq(fdn_limiter_rule_make(algorithm, limit, period, limit, &rule), FDN_LIMITER_FITS);
        uint64_t now = FDN_LIMITER_FILE_SHIFT_MS + rnd(FDN_LIMITER_FILE_SHIFT_MS), state = 0,
                 at = now > 3 * period ? now - 3 * period : 0;
        for (int hits = 0; hits < 10 && at < now; hits++, at += rnd(period)) {
            if (fdn_limiter_decide(algorithm, &rule, state, at * FDN_NS_PER_MS, 1 + rnd(limit), &next, &value))
                state = next;
        }
        uint64_t back = now & ~((1ULL << 31) - 1);
        atomic_store(&from.print[0], 1);
        atomic_store(&from.state[0], state);
        fdn_limiter_move_back(&from, &to, 1, algorithm, now * FDN_NS_PER_MS, back);
        uint64_t moved = atomic_load(&to.state[0]);
        for (int i = 0; i < 20; i++) {
            uint64_t then = now + rnd(i < 10 ? period : 4 * period), cost = rnd(limit + 1);
            bool without = fdn_limiter_decide(algorithm, &rule, state, then * FDN_NS_PER_MS, cost, &next, &value);
            bool with = fdn_limiter_decide(algorithm, &rule, moved, (then - back) * FDN_NS_PER_MS, cost, &next, &other);
            ck_assert_msg(without || !with, "period %lu, state %lx, at %lu", (unsigned long)period, (unsigned long)state,
                          (unsigned long)(then - now));
            if (without && with)
                ck_assert_uint_le(other, value);
            strict += with != without;
            equal += with == without;
        }
        bool whole_again = fdn_limiter_decide(algorithm, &rule, moved, (now - back + 5 * period) * FDN_NS_PER_MS, 0, &next, &value);
        ck_assert(whole_again);
        ck_assert_uint_eq(value, limit);
    }
    if (algorithm == FDN_LIMITER_SLIDING_WINDOW)
        ck_assert_uint_gt(equal, strict);
    else
        ck_assert_uint_eq(strict, 0);
}
END_TEST

/* ---- the format ----------------------------------------------------------------------------------------------------------------- */

/* A file of the first version, by the offsets of doc/FORMAT.md; its budgets by the words of a key of 6 bytes and one of none. */
START_TEST(golden_file)
{
    static const char *const names[] = {"gcra", "fixed_window", "sliding_window"};
    char name[300];
    snprintf(name, sizeof name, "test/golden/limiter-%s-1.fdn", names[_i]);
    size_t n = support_read_file(name, whole, sizeof whole);
    ck_assert_uint_eq(n, 4096 + 34 * 64);
    uint32_t word;
    uint64_t wide;
#define U32(at) (memcpy(&word, whole + (at), 4), word)
#define U64(at) (memcpy(&wide, whole + (at), 8), wide)
    ck_assert_mem_eq(whole, "FDNLIMIT", 8);
    ck_assert_uint_eq(U32(8), 0x00010001);
    ck_assert_uint_eq(U32(12), 4096);
    ck_assert_uint_eq(U32(40), (uint32_t)_i);
    ck_assert_uint_eq(U32(44), 1);
    ck_assert_uint_eq(U64(48), 60);
    ck_assert_uint_eq(U64(56), 34);
    ck_assert_uint_eq(U64(64), n);
    ck_assert_uint_eq(U64(120), fdn_hash_check(whole, 120, 0));
    ck_assert_uint_eq(U32(128), 2); /* closed, a manual clock */
    ck_assert_uint_eq(U64(168), 5000000ULL * FDN_NS_PER_MS);
    ck_assert_uint_eq(U64(184), fdn_hash_check(whole + 128, 56, U64(120)));
    uint64_t user = fdn_hash_keyed("user:1", 6, whole + 72), none = fdn_hash_keyed("", 0, whole + 72);
    support_write_file(path, whole, n, 0600);
    fdn_limiter_config config = {.algorithm = (uint32_t)_i,
                                 .on_full = FDN_LIMITER_DENY,
                                 .clock = FDN_LIMITER_MANUAL,
                                 .limit = 1000,
                                 .period_ms = 86400000,
                                 .burst = 1000,
                                 .capacity = 60};
    fdn_limiter *t = open_at(&config, NULL);
    ck_assert_uint_eq(stats_of(t).live, 48);
    ck_assert_uint_eq(stats_of(t).now_ms, 5000000);
    /* The places of the keys in fdn_golden:keys(), three units each. */
    ck_assert_uint_eq(fdn_limiter_hit(t, 1, fdn_limiter_preset(t), none, 0).value, 1000 - 3 * 30);
    ck_assert_uint_eq(fdn_limiter_hit(t, 1, fdn_limiter_preset(t), user, 0).value, 1000 - 3 * 31);
    fdn_limiter_destroy(t);
}
END_TEST

int main(void)
{
    TCase *tc = tcase_create("recovery");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_loop_test(tc, slots_that_cannot_be_kept, 0, ALGORITHMS);
    tcase_add_loop_test(tc, one_key_keeps_one_slot, 0, ALGORITHMS);
    tcase_add_loop_test(tc, any_bytes, 0, ALGORITHMS);
    tcase_add_loop_test(tc, busy_slots_are_dropped_when_a_file_is_opened, 0, ALGORITHMS);
    tcase_add_test(tc, time_goes_on);
    tcase_add_test(tc, manual_time_is_kept);
    tcase_add_test(tc, stamps_are_where_a_reboot_goes_on);
    tcase_add_loop_test(tc, a_leap_beyond_all_states, 0, ALGORITHMS);
    tcase_add_loop_test(tc, a_table_grown_old_is_moved_back, 0, ALGORITHMS);
    tcase_add_loop_test(tc, moving_back_gives_nothing_away, 0, ALGORITHMS);
    tcase_add_loop_test(tc, golden_file, 0, ALGORITHMS);
    return run_suite("limiter recovery", tc);
}
