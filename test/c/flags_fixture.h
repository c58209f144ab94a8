/* flags_fixture.h - a temporary folder with a flag file, for check_flags*.c. */
#ifndef FDN_TEST_FLAGS_FIXTURE_H
#define FDN_TEST_FLAGS_FIXTURE_H

#include <check.h>
#include <stdio.h>
#include <string.h>

#include "base/fdn_error.h"
#include "shared/flag_map.h"
#include "test/c/support.h"

static char dir[256];
static char path[300];
static fdn_flags *f;

#define OK(call) ck_assert_str_eq(fdn_error_name(call), "ok")
#define FAILS(call, code) ck_assert_str_eq(fdn_error_name(call), fdn_error_name(code))

static void setup(void)
{
    support_tmpdir(dir, sizeof dir);
    support_path(path, sizeof path, dir, "flags");
    OK(fdn_flags_open(&f, path, FDN_FLAGS_CREATE));
}

static void teardown(void)
{
    fdn_flags_close(f);
    f = NULL;
    support_rmtree(dir);
}

static inline void reopen(void)
{
    fdn_flags_close(f);
    OK(fdn_flags_open(&f, path, 0));
}

static inline fdn_flag_value value_of(const char *name)
{
    fdn_flag_value v = 0xffff;
    OK(fdn_flags_get(f, name, &v));
    return v;
}

static inline uint64_t epoch_of(const char *group)
{
    uint64_t epoch = 0;
    bool rolled_back;
    OK(fdn_flags_group_state(f, group, &epoch, &rolled_back));
    return epoch;
}

static inline bool is_rolled_back(const char *group)
{
    uint64_t epoch;
    bool rolled_back = false;
    OK(fdn_flags_group_state(f, group, &epoch, &rolled_back));
    return rolled_back;
}

static inline int run_suite(const char *name, TCase *tc)
{
    Suite *s = suite_create(name);
    tcase_set_timeout(tc, 120);
    suite_add_tcase(s, tc);
    return support_run(s);
}

#endif
