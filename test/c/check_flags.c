/* Flags, groups, epochs: what a flag file promises, against a naive model, across processes and through deaths of writers. */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fdn_clock.h"
#include "shared/flag_cohort.h"
#include "test/c/flags_fixture.h"

START_TEST(declared_flags_have_their_default)
{
    fdn_flag_value v;
    OK(fdn_flags_declare(f, "off", "g", false, -1, NULL));
    OK(fdn_flags_declare(f, "on", "g", true, -1, NULL));
    OK(fdn_flags_declare(f, "plain", NULL, false, -1, NULL));
    ck_assert_int_eq(value_of("off"), FDN_FLAG_FALSE);
    ck_assert_int_eq(value_of("on"), FDN_FLAG_TRUE);
    FAILS(fdn_flags_get(f, "of", &v), FDN_EUNKNOWN);
    FAILS(fdn_flags_set(f, "offf", FDN_FLAG_TRUE), FDN_EUNKNOWN);
    fdn_flag_group g;
    OK(fdn_flags_group_at(f, 1, &g));
    ck_assert_str_eq(g.name, "default");
    ck_assert(g.sticky && !g.rolled_back && g.epoch == 1 && !g.rollback.known);
    FAILS(fdn_flags_group_at(f, 2, &g), FDN_EUNKNOWN);
}
END_TEST

START_TEST(a_default_changes_only_what_nobody_set)
{
    OK(fdn_flags_declare(f, "a", "g", false, -1, NULL));
    OK(fdn_flags_declare(f, "a", "g", true, -1, NULL));
    ck_assert_int_eq(value_of("a"), FDN_FLAG_TRUE);
    OK(fdn_flags_set(f, "a", FDN_FLAG_TRUE));
    OK(fdn_flags_declare(f, "a", NULL, false, -1, NULL));
    ck_assert_int_eq(value_of("a"), FDN_FLAG_TRUE);
    fdn_flag_info info;
    OK(fdn_flags_at(f, 0, &info));
    ck_assert(info.explicit_value && !info.default_on && info.changed_ns > 0);
    FAILS(fdn_flags_declare(f, "a", "h", false, -1, NULL), FDN_EOTHERGROUP);
}
END_TEST

START_TEST(values_of_every_kind_keep)
{
    OK(fdn_flags_declare(f, "a", "g", false, -1, NULL));
    for (unsigned p = 0; p <= 100; p++) {
        OK(fdn_flags_set(f, "a", FDN_FLAG_PERCENTAGE | (fdn_flag_value)p));
        ck_assert_int_eq(value_of("a"), FDN_FLAG_PERCENTAGE | p);
    }
    FAILS(fdn_flags_set(f, "a", FDN_FLAG_PERCENTAGE | 101), FDN_EINVAL);
    FAILS(fdn_flags_set(f, "a", 0x300), FDN_EINVAL);
    FAILS(fdn_flags_set(f, "a", 0x8100), FDN_EINVAL);
    FAILS(fdn_flags_set(f, "a", FDN_FLAG_TRUE | 1), FDN_EINVAL);
    reopen();
    ck_assert_int_eq(value_of("a"), FDN_FLAG_PERCENTAGE | 100);
}
END_TEST

START_TEST(rollback_holds_until_rearmed_and_set)
{
    uint64_t epoch = 0;
    OK(fdn_flags_declare(f, "a", "g", true, -1, NULL));
    OK(fdn_flags_declare(f, "b", "g", false, -1, NULL));
    OK(fdn_flags_declare(f, "c", "other", true, -1, NULL));
    OK(fdn_flags_set(f, "b", FDN_FLAG_TRUE));
    OK(fdn_flags_rollback(f, "g", "why", "who", &epoch));
    ck_assert_uint_eq(epoch, 2);
    ck_assert(is_rolled_back("g") && !is_rolled_back("other"));
    ck_assert_int_eq(value_of("a"), FDN_FLAG_FALSE);
    ck_assert_int_eq(value_of("b"), FDN_FLAG_FALSE);
    ck_assert_int_eq(value_of("c"), FDN_FLAG_TRUE);
    FAILS(fdn_flags_set(f, "a", FDN_FLAG_TRUE), FDN_EROLLEDBACK);
    /* Neither a declaration nor a restart undoes it; a flag that is new in the group is off as well. */
    OK(fdn_flags_declare(f, "a", "g", true, -1, NULL));
    OK(fdn_flags_declare(f, "new", "g", true, -1, NULL));
    reopen();
    ck_assert(is_rolled_back("g"));
    ck_assert_int_eq(value_of("a"), FDN_FLAG_FALSE);
    ck_assert_int_eq(value_of("new"), FDN_FLAG_FALSE);
    FAILS(fdn_flags_rearm(f, "g", 1, "who"), FDN_ESTALE);
    FAILS(fdn_flags_rearm(f, "g", 3, "who"), FDN_ESTALE);
    FAILS(fdn_flags_rearm(f, "nothing", 2, "who"), FDN_EUNKNOWN);
    OK(fdn_flags_rearm(f, "g", 2, "who"));
    FAILS(fdn_flags_rearm(f, "g", 2, "who"), FDN_ENOTROLLEDBACK);
    /* Off until set, whatever the default, also after declaring again. */
    OK(fdn_flags_declare(f, "a", "g", true, -1, NULL));
    ck_assert_int_eq(value_of("a"), FDN_FLAG_FALSE);
    ck_assert_int_eq(value_of("b"), FDN_FLAG_FALSE);
    ck_assert_int_eq(value_of("new"), FDN_FLAG_FALSE);
    OK(fdn_flags_set(f, "new", FDN_FLAG_TRUE));
    ck_assert_int_eq(value_of("new"), FDN_FLAG_TRUE);
    ck_assert_int_eq(value_of("a"), FDN_FLAG_FALSE);
}
END_TEST

START_TEST(a_second_rollback_outdates_the_first_epoch)
{
    uint64_t first = 0, second = 0;
    OK(fdn_flags_declare(f, "a", "g", false, -1, NULL));
    OK(fdn_flags_rollback(f, "g", "one", "me", &first));
    OK(fdn_flags_rollback(f, "g", "two", "me", &second));
    ck_assert_uint_eq(second, first + 1);
    FAILS(fdn_flags_rearm(f, "g", first, "me"), FDN_ESTALE);
    OK(fdn_flags_rearm(f, "g", second, "me"));
    FAILS(fdn_flags_rollback(f, "h", "x", "me", NULL), FDN_EUNKNOWN);
}
END_TEST

START_TEST(a_group_without_sticky_is_only_switched_off)
{
    uint64_t epoch = 0;
    OK(fdn_flags_declare(f, "a", "g", true, 0, NULL));
    OK(fdn_flags_rollback(f, "g", "x", "me", &epoch));
    ck_assert_int_eq(value_of("a"), FDN_FLAG_FALSE);
    ck_assert(!is_rolled_back("g"));
    FAILS(fdn_flags_rearm(f, "g", epoch, "me"), FDN_ENOTROLLEDBACK);
    OK(fdn_flags_set(f, "a", FDN_FLAG_TRUE));
    ck_assert_int_eq(value_of("a"), FDN_FLAG_TRUE);
    OK(fdn_flags_declare(f, "a", NULL, true, 1, NULL));
    ck_assert_int_eq(value_of("a"), FDN_FLAG_TRUE);
    OK(fdn_flags_rollback(f, "g", "x", "me", &epoch));
    ck_assert(is_rolled_back("g"));
}
END_TEST

START_TEST(what_was_said_is_kept_and_clean)
{
    uint64_t epoch = 0, before = fdn_clock_wall_ns();
    fdn_flag_group g;
    char longest[400];
    OK(fdn_flags_declare(f, "a", "g", false, -1, NULL));
    OK(fdn_flags_rollback(f, "g", "tab\there \xff\xc3 \xe2\x82\xac", "op\nerator", &epoch));
    reopen();
    OK(fdn_flags_group_at(f, 0, &g));
    ck_assert(g.rollback.known && g.rollback.epoch == epoch && !g.rearm.known);
    ck_assert_str_eq(g.rollback.reason, "tab here ?? \xe2\x82\xac");
    ck_assert_str_eq(g.rollback.who, "op erator");
    ck_assert_uint_ge(g.rollback.at_ns, before);
    OK(fdn_flags_rearm(f, "g", epoch, "somebody"));
    OK(fdn_flags_group_at(f, 0, &g));
    ck_assert(g.rollback.known && g.rearm.known);
    ck_assert_str_eq(g.rearm.who, "somebody");
    /* Cut at a character's end: 118 bytes and a euro sign do not fit into 119. */
    memset(longest, 'x', sizeof longest);
    memcpy(longest + 118, "\xe2\x82\xac", 4);
    OK(fdn_flags_rollback(f, "g", longest, NULL, &epoch));
    OK(fdn_flags_group_at(f, 0, &g));
    ck_assert_uint_eq(strlen(g.rollback.reason), 118);
    ck_assert_str_eq(g.rollback.who, "");
    /* A writer that died half-way through saying it. */
    atomic_fetch_add((_Atomic uint64_t *)(uintptr_t)((const char *)fdn_flags_epoch_word(f, 0) - 2048 +
                                                     fdn_flag_groups_at(FDN_FLAG_CAPACITY) + 64 + (epoch << 1) % 4 * 192 + 100 / 8 * 8),
                     1);
    OK(fdn_flags_group_at(f, 0, &g));
    ck_assert(!g.rollback.known && g.rolled_back);
}
END_TEST

START_TEST(names_have_limits)
{
    char name[64];
    memset(name, 'n', sizeof name);
    name[55] = '\0';
    OK(fdn_flags_declare(f, name, name, true, -1, NULL));
    ck_assert_int_eq(value_of(name), FDN_FLAG_TRUE);
    name[55] = 'n';
    name[56] = '\0';
    fdn_flag_value v;
    FAILS(fdn_flags_declare(f, name, NULL, true, -1, NULL), FDN_ENAME);
    FAILS(fdn_flags_declare(f, "a", name, true, -1, NULL), FDN_ENAME);
    FAILS(fdn_flags_get(f, name, &v), FDN_EUNKNOWN);
    FAILS(fdn_flags_declare(f, "", NULL, true, -1, NULL), FDN_EINVAL);
    FAILS(fdn_flags_declare(f, "a\tb", NULL, true, -1, NULL), FDN_EINVAL);
    FAILS(fdn_flags_declare(f, "a", "\x7f", true, -1, NULL), FDN_EINVAL);
    ck_assert_uint_eq(fdn_flags_count(f), 1);
}
END_TEST

START_TEST(a_full_table_says_so)
{
    char name[32];
    for (unsigned i = 0; i < FDN_FLAG_GROUP_CAPACITY; i++) {
        snprintf(name, sizeof name, "%u", i);
        OK(fdn_flags_declare(f, name, name, true, -1, NULL));
    }
    FAILS(fdn_flags_declare(f, "more", "more", true, -1, NULL), FDN_EFULL);
    for (unsigned i = FDN_FLAG_GROUP_CAPACITY; i < FDN_FLAG_CAPACITY; i++) {
        snprintf(name, sizeof name, "%u", i);
        OK(fdn_flags_declare(f, name, "7", true, -1, NULL));
    }
    FAILS(fdn_flags_declare(f, "more", "7", true, -1, NULL), FDN_EFULL);
    OK(fdn_flags_declare(f, "1023", "7", false, -1, NULL));
    reopen();
    OK(fdn_flags_verify(f));
    ck_assert_int_eq(value_of("1022"), FDN_FLAG_TRUE);
    ck_assert_int_eq(value_of("1023"), FDN_FLAG_FALSE);
}
END_TEST

/* ---- against a naive model ---------------------------------------------------------------------------------------------------------
 */

enum { FLAGS = 12, GROUPS = 3 };

typedef struct {
    bool known, set_since, transient[GROUPS], rolled_back[GROUPS], known_group[GROUPS];
    uint64_t epoch[GROUPS];
    struct {
        bool known, live; /* live: its value belongs to the group's epoch */
        bool is_set;
        fdn_flag_value value;
    } flag[FLAGS];
} model;

static void model_step(model *m, unsigned op, unsigned i, unsigned arg)
{
    unsigned g = i % GROUPS;
    char name[8], group[8];
    snprintf(name, sizeof name, "f%u", i);
    snprintf(group, sizeof group, "g%u", g);
    fdn_flag_value value = arg % 3 == 0 ? FDN_FLAG_FALSE : arg % 3 == 1 ? FDN_FLAG_TRUE : FDN_FLAG_PERCENTAGE | (arg % 101);
    switch (op % 8) {
    case 0:
    case 1: {
        bool on = arg & 1;
        int sticky = (int)(arg / 2 % 8) - 1;
        if (sticky > 1)
            sticky = -1;
        OK(fdn_flags_declare(f, name, group, on, sticky, NULL));
        if (!m->known_group[g]) {
            m->known_group[g] = true;
            m->epoch[g] = 1;
        }
        if (sticky >= 0)
            m->transient[g] = sticky == 0;
        if (!m->flag[i].known) {
            m->flag[i].known = true;
            m->flag[i].live = !m->rolled_back[g];
        }
        if (m->flag[i].live && !m->flag[i].is_set && !m->rolled_back[g])
            m->flag[i].value = on ? FDN_FLAG_TRUE : FDN_FLAG_FALSE;
        break;
    }
    case 2: {
        uint64_t epoch = 0;
        int rc = fdn_flags_flip(f, group, "r", "w", &epoch);
        if (!m->known_group[g]) {
            FAILS(rc, FDN_EUNKNOWN);
            break;
        }
        OK(rc);
        ck_assert_uint_eq(epoch, ++m->epoch[g]);
        if (!m->transient[g])
            m->rolled_back[g] = true;
        for (unsigned k = g; k < FLAGS; k += GROUPS)
            m->flag[k].live = m->flag[k].is_set = false;
        break;
    }
    case 3: {
        uint64_t epoch = m->epoch[g] + arg % 3 - 1;
        int rc = fdn_flags_unflip(f, group, epoch, "w");
        if (!m->known_group[g])
            FAILS(rc, FDN_EUNKNOWN);
        else if (epoch != m->epoch[g])
            FAILS(rc, FDN_ESTALE);
        else if (!m->rolled_back[g])
            FAILS(rc, FDN_ENOTROLLEDBACK);
        else {
            OK(rc);
            m->rolled_back[g] = false;
        }
        break;
    }
    case 4:
        if (arg % 50 == 0)
            reopen();
        break;
    default: {
        int rc = fdn_flags_set(f, name, value);
        if (!m->flag[i].known)
            FAILS(rc, FDN_EUNKNOWN);
        else if (m->rolled_back[g])
            FAILS(rc, FDN_EROLLEDBACK);
        else {
            OK(rc);
            m->flag[i].live = m->flag[i].is_set = true;
            m->flag[i].value = value;
        }
    }
    }
}

START_TEST(against_a_naive_model)
{
    model m;
    memset(&m, 0, sizeof m);
    srandom((unsigned)_i + 1);
    for (unsigned step = 0; step < 5000; step++) {
        model_step(&m, (unsigned)random(), (unsigned)random() % FLAGS, (unsigned)random());
        for (unsigned i = 0; i < FLAGS; i++) {
            char name[8];
            snprintf(name, sizeof name, "f%u", i);
            if (m.flag[i].known)
                ck_assert_int_eq(value_of(name), m.flag[i].live ? m.flag[i].value : FDN_FLAG_FALSE);
        }
    }
    OK(fdn_flags_verify(f));
}
END_TEST

/* ---- several processes -------------------------------------------------------------------------------------------------------------
 */

START_TEST(two_maps_are_one_file)
{
    fdn_flags *other = NULL;
    fdn_flag_value v;
    uint8_t a[16], b[16];
    OK(fdn_flags_open(&other, path, FDN_FLAGS_CREATE));
    fdn_flags_uuid(f, a);
    fdn_flags_uuid(other, b);
    ck_assert_mem_eq(a, b, 16);
    OK(fdn_flags_declare(f, "a", "g", true, -1, NULL));
    OK(fdn_flags_get(other, "a", &v));
    ck_assert_int_eq(v, FDN_FLAG_TRUE);
    OK(fdn_flags_flip(other, "g", "r", "w", NULL));
    ck_assert_int_eq(value_of("a"), FDN_FLAG_FALSE);
    fdn_flags_close(other);
    OK(fdn_flags_open(&other, path, FDN_FLAGS_READ_ONLY));
    ck_assert(fdn_flags_read_only(other));
    OK(fdn_flags_get(other, "a", &v));
    FAILS(fdn_flags_set(other, "a", FDN_FLAG_TRUE), FDN_EREADONLY);
    FAILS(fdn_flags_flip(other, "g", "r", "w", NULL), FDN_EREADONLY);
    FAILS(fdn_flags_unflip(other, "g", 2, "w"), FDN_EREADONLY);
    FAILS(fdn_flags_declare(other, "b", "g", true, -1, NULL), FDN_EREADONLY);
    FAILS(fdn_flags_sync(other), FDN_EREADONLY);
    fdn_flags_wake(other);
    fdn_flags_close(other);
}
END_TEST

START_TEST(a_waiter_is_woken_by_another_process)
{
    OK(fdn_flags_declare(f, "a", "g", true, -1, NULL));
    uint64_t generation = fdn_flags_generation(f);
    uint32_t ticket = fdn_flags_ticket(f);
    pid_t child = fork();
    if (child == 0)
        _exit(fdn_flags_flip(f, "g", "r", "w", NULL) == 0 ? 0 : 1);
    /* Would time out after two minutes, and the test with it. */
    while (value_of("a") == FDN_FLAG_TRUE) {
        fdn_flags_wait(f, ticket, 200000);
        ticket = fdn_flags_ticket(f);
    }
    int status = 1;
    waitpid(child, &status, 0);
    ck_assert_int_eq(status, 0);
    ck_assert_uint_eq(fdn_flags_generation(f), generation + 2);
    /* An outdated ticket does not wait at all. */
    fdn_flags_wait(f, ticket - 1, 200000);
}
END_TEST

/* Writers of every kind killed at random points: the file is sound, the flags have values that somebody set, and the lock is free. */
START_TEST(killed_writers_leave_a_sound_file)
{
    OK(fdn_flags_declare(f, "a", "g", true, -1, NULL));
    OK(fdn_flags_declare(f, "b", "h", true, -1, NULL));
    for (int i = 0; i < 60; i++) {
        uint64_t epoch = epoch_of("h");
        pid_t child = fork();
        if (child == 0) {
            fdn_flags *mine = NULL;
            char name[32];
            if (fdn_flags_open(&mine, path, 0) != 0)
                _exit(3);
            for (unsigned k = 0;; k++) {
                snprintf(name, sizeof name, "%d-%u", i, k % 4);
                fdn_flags_declare(mine, name, "g", true, -1, NULL);
                fdn_flags_set(mine, "a", k & 1 ? FDN_FLAG_TRUE : FDN_FLAG_PERCENTAGE | 42);
                fdn_flags_flip(mine, "h", "again", "child", NULL);
            }
        }
        ck_assert_int_gt(child, 0);
        uint64_t from = fdn_flags_generation(f);
        while (fdn_flags_generation(f) < from + 4)
            usleep(50);
        usleep((useconds_t)(random() % 2000));
        kill(child, SIGKILL);
        int status = 0;
        ck_assert_int_eq(waitpid(child, &status, 0), child);
        ck_assert(WIFSIGNALED(status));
        OK(fdn_flags_verify(f));
        fdn_flag_value a = value_of("a");
        ck_assert(a == FDN_FLAG_TRUE || a == (FDN_FLAG_PERCENTAGE | 42));
        ck_assert(is_rolled_back("h"));
        ck_assert_uint_gt(epoch_of("h"), epoch);
        ck_assert_int_eq(value_of("b"), FDN_FLAG_FALSE);
        OK(fdn_flags_set(f, "a", FDN_FLAG_TRUE));
    }
    reopen();
    OK(fdn_flags_declare(f, "after", "g", true, -1, NULL));
}
END_TEST

/* ---- cohorts -----------------------------------------------------------------------------------------------------------------------
 */

/* erlang:phash2({use_ets_agent_registry, Id}, 100) and the atom's hash, from Erlang. */
START_TEST(cohorts_are_those_of_phash2)
{
    uint32_t seed = fdn_flag_cohort_seed(57242073u);
    ck_assert_uint_eq(fdn_flag_cohort_bytes(seed, (const uint8_t *)"user1", 5) % 100, 46);
    ck_assert_uint_eq(fdn_flag_cohort_bytes(seed, (const uint8_t *)"user2", 5) % 100, 25);
    ck_assert_uint_eq(fdn_flag_cohort_int(seed, 1) % 100, 50);
    ck_assert_uint_eq(fdn_flag_cohort_int(seed, 0), 2488998341u);
    ck_assert_uint_eq(fdn_flag_cohort_int(seed, -1), 2549415034u);
    ck_assert_uint_eq(fdn_flag_cohort_int(seed, (1 << 27) - 1), 3795999217u);
    ck_assert_uint_eq(fdn_flag_cohort_int(seed, 1 << 27), 3326454929u);
    ck_assert_uint_eq(fdn_flag_cohort_int(seed, -(1 << 27)), 3153792006u);
    ck_assert_uint_eq(fdn_flag_cohort_int(seed, -(1 << 27) - 1), 621866090u);
    ck_assert_uint_eq(fdn_flag_cohort_int(seed, INT64_MAX), 4270259904u);
    ck_assert_uint_eq(fdn_flag_cohort_int(seed, INT64_MIN), 539453053u);
    ck_assert_uint_eq(fdn_flag_cohort_bytes(seed, (const uint8_t *)"", 0), 594236804u);
    ck_assert_uint_eq(fdn_flag_cohort_bytes(seed, (const uint8_t *)"abcdefgh", 8), 3357049404u);
    ck_assert_uint_eq(fdn_flag_cohort_bytes(seed, (const uint8_t *)"abcdefghijk", 11), 4154004840u);
    ck_assert_uint_eq(fdn_flag_cohort_bytes(seed, (const uint8_t *)"abcdefghijkl", 12), 1880971227u);
    ck_assert_uint_eq(fdn_flag_cohort_bytes(seed, (const uint8_t *)"abcdefghijklmnopqrstuvwxy", 25), 2236287375u);
}
END_TEST

int main(void)
{
    TCase *tc = tcase_create("flags");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, declared_flags_have_their_default);
    tcase_add_test(tc, a_default_changes_only_what_nobody_set);
    tcase_add_test(tc, values_of_every_kind_keep);
    tcase_add_test(tc, rollback_holds_until_rearmed_and_set);
    tcase_add_test(tc, a_second_rollback_outdates_the_first_epoch);
    tcase_add_test(tc, a_group_without_sticky_is_only_switched_off);
    tcase_add_test(tc, what_was_said_is_kept_and_clean);
    tcase_add_test(tc, names_have_limits);
    tcase_add_test(tc, a_full_table_says_so);
    tcase_add_loop_test(tc, against_a_naive_model, 0, 6);
    tcase_add_test(tc, two_maps_are_one_file);
    tcase_add_test(tc, a_waiter_is_woken_by_another_process);
    tcase_add_test(tc, killed_writers_leave_a_sound_file);
    tcase_add_test(tc, cohorts_are_those_of_phash2);
    return run_suite("flags", tc);
}
