/* limiter_file_fixture.h - a temporary folder for a limiter's file, for check_limiter_file.c and check_limiter_recover.c. */
#ifndef FDN_TEST_LIMITER_FILE_FIXTURE_H
#define FDN_TEST_LIMITER_FILE_FIXTURE_H

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fdn_error.h"
#include "base/fdn_hash.h"
#include "engine/limiter_file.h"
#include "test/c/support.h"

#define FIXTURE __attribute__((unused)) static
#define OK(call) ck_assert_str_eq(fdn_error_name(call), "ok")
#define FAILS(call, code) ck_assert_str_eq(fdn_error_name(call), fdn_error_name(code))

#define ALGORITHMS 3

static char dir[256];
static char path[300];
static fdn_limiter_opening why;

FIXTURE void setup(void)
{
    support_tmpdir(dir, sizeof dir);
    support_path(path, sizeof path, dir, "limits");
}

FIXTURE void teardown(void)
{
    support_rmtree(dir);
}

/* 10 units a minute, for 100 keys, by a clock that stands still. */
FIXTURE fdn_limiter_config config_of(int algorithm)
{
    return (fdn_limiter_config){.algorithm = (uint32_t)algorithm,
                                .on_full = FDN_LIMITER_DENY,
                                .clock = FDN_LIMITER_MANUAL,
                                .limit = 10,
                                .period_ms = 60000,
                                .burst = 10,
                                .capacity = 100};
}

FIXTURE size_t size_of(uint64_t capacity)
{
    return FDN_LIMITER_FILE_HEADER + fdn_limiter_buckets_for(capacity) * sizeof(fdn_limiter_bucket);
}

FIXTURE int try_open(const char *name, const fdn_limiter_config *config)
{
    fdn_limiter *t = NULL;
    fdn_limiter_fit fit;
    int rc = fdn_limiter_open(config, name, NULL, &t, &fit, &why);
    ck_assert((rc == 0) == (t != NULL));
    fdn_limiter_destroy(t);
    return rc;
}

FIXTURE uint8_t whole[1 << 16], after[1 << 16];

/* Opening answers this, and the file is what it was, to the byte. */
FIXTURE void refused_and_left(const char *name, const fdn_limiter_config *config, int code)
{
    size_t before = support_read_file(name, whole, sizeof whole);
    int rc = try_open(name, config);
    ck_assert_msg(rc == code, "%s, not %s", fdn_error_name(rc), fdn_error_name(code));
    ck_assert_uint_eq(support_read_file(name, after, sizeof after), before);
    ck_assert_mem_eq(whole, after, before);
}

FIXTURE bool empty(const char *folder)
{
    char command[400];
    snprintf(command, sizeof command, "test -z \"$(ls -A '%s')\"", folder);
    return system(command) == 0; /* NOLINT(cert-env33-c) */
}

FIXTURE fdn_limiter *open_at(const fdn_limiter_config *config, const fdn_limiter_moment *at)
{
    fdn_limiter *t = NULL;
    fdn_limiter_fit fit;
    OK(fdn_limiter_open(config, path, at, &t, &fit, &why));
    return t;
}

FIXTURE fdn_limiter *open_table(int algorithm)
{
    fdn_limiter_config config = config_of(algorithm);
    return open_at(&config, NULL);
}

FIXTURE uint64_t hash_of(uint64_t key)
{
    return fdn_hash_check(&key, sizeof key, 7);
}

FIXTURE fdn_limiter_answer hit(fdn_limiter *t, uint64_t key, uint64_t cost)
{
    return fdn_limiter_hit(t, 1, fdn_limiter_preset(t), hash_of(key), cost);
}

FIXTURE fdn_limiter_stats stats_of(fdn_limiter *t)
{
    fdn_limiter_stats s;
    fdn_limiter_stats_of(t, &s);
    return s;
}

FIXTURE int run_suite(const char *name, TCase *tc)
{
    Suite *s = suite_create(name);
    tcase_set_timeout(tc, 120);
    suite_add_tcase(s, tc);
    return support_run(s);
}

#endif
