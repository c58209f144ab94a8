/* The file of a limiter's table in a system that fails: no room, no memory, killed in the middle, cut and replaced under its user. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fdn_alloc.h"
#include "base/fdn_guard.h"
#include "test/c/limiter_file_fixture.h"

/* In place of the C library's. */
static bool die_in_fsync, fsync_fails;
int fsync(int fd)
{
    if (die_in_fsync)
        (void)kill(getpid(), SIGKILL);
    if (fsync_fails) {
        errno = EIO;
        return -1;
    }
    return (int)syscall(SYS_fsync, fd);
}

/* Called before a lock is taken: what others do between somebody's open and lock. */
static void (*before_flock)(void);
int flock(int fd, int operation)
{
    void (*f)(void) = before_flock;
    before_flock = NULL;
    if (f != NULL)
        f();
    return (int)syscall(SYS_flock, fd, operation);
}

static char *folder(char *name, size_t size, const char *base)
{
    support_path(name, size, dir, base);
    ck_assert_int_eq(mkdir(name, 0700), 0);
    return name;
}

/* File systems without room, and without writing; root alone can mount one, and not in every container. */
START_TEST(no_space_and_no_writing)
{
    char mount_point[300], name[320];
    fdn_limiter_config config = config_of(FDN_LIMITER_GCRA);
    folder(mount_point, sizeof mount_point, "small");
    if (mount("tmpfs", mount_point, "tmpfs", 0, "size=64k,mode=0700") != 0)
        return;
    support_path(name, sizeof name, mount_point, "limits");
    config.capacity = 10000;
    int full = try_open(name, &config);
    bool nothing = empty(mount_point);
    config.capacity = 100;
    int fits = try_open(name, &config);
    (void)mount("tmpfs", mount_point, "tmpfs", MS_REMOUNT | MS_RDONLY, "");
    int read_only = try_open(name, &config);
    support_path(name, sizeof name, mount_point, "new");
    int none = try_open(name, &config);
    umount(mount_point);
    FAILS(full, ENOSPC);
    ck_assert(nothing);
    OK(fits);
    FAILS(read_only, EROFS);
    FAILS(none, EROFS);
}
END_TEST

/* Where files may not be that large it is an error, not the signal that ends the process. */
START_TEST(a_limit_on_the_size_of_files_is_an_error)
{
    char sub[300], name[320];
    struct rlimit limit = {65536, RLIM_INFINITY};
    int status = 0;
    fdn_limiter_config config = config_of(FDN_LIMITER_GCRA);
    config.capacity = 10000;
    support_path(name, sizeof name, folder(sub, sizeof sub, "sub"), "limits");
    pid_t child = fork();
    if (child == 0) {
        setrlimit(RLIMIT_FSIZE, &limit);
        _exit(try_open(name, &config) == EFBIG ? 0 : 1);
    }
    waitpid(child, &status, 0);
    ck_assert_msg(WIFEXITED(status) && WEXITSTATUS(status) == 0, "status %x", (unsigned)status);
    ck_assert(empty(sub));
}
END_TEST

START_TEST(a_killed_or_failing_creator_leaves_nothing)
{
    char sub[300], name[320];
    int status = 0;
    fdn_limiter_config config = config_of(FDN_LIMITER_GCRA);
    support_path(name, sizeof name, folder(sub, sizeof sub, "sub"), "limits");
    pid_t child = fork();
    if (child == 0) {
        die_in_fsync = true;
        (void)try_open(name, &config);
        _exit(0);
    }
    waitpid(child, &status, 0);
    ck_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    ck_assert(empty(sub));
    fsync_fails = true;
    FAILS(try_open(name, &config), EIO);
    fsync_fails = false;
    ck_assert(empty(sub));
    OK(try_open(name, &config));
}
END_TEST

/* Truncated at every interesting place under a table of every policy: no signal, on_full answers for keys that may be lost. */
START_TEST(truncated_under_us)
{
    static const off_t sizes[] = {0, 100, 4096, 4100, 6000};
    fdn_limiter_config config = config_of(_i % ALGORITHMS);
    fdn_limiter_on_full policy = (fdn_limiter_on_full)(_i / ALGORITHMS);
    config.on_full = policy;
    config.capacity = 1000;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        uint64_t kept = 0, allowed = 0;
        fdn_limiter *t = open_at(&config, NULL);
        for (uint64_t k = 0; k < 1000; k++)
            ck_assert(hit(t, k, 10).allowed);
        OK(fdn_limiter_look_after(t));
        ck_assert_int_eq(truncate(path, sizes[i]), 0);
        for (uint64_t k = 0; k < 1000; k++) {
            fdn_limiter_answer a = hit(t, k, 10);
            allowed += a.allowed;
            kept += !a.allowed;
            ck_assert(a.allowed || a.value > 0);
        }
        /* A key in a page that was cut off is fresh, and stays denied, or allowed, or begins again. */
        if (policy == FDN_LIMITER_DENY)
            ck_assert_uint_eq(allowed, 0);
        else
            ck_assert_uint_gt(allowed, 300);
        ck_assert_uint_eq(hit(t, 5000, 10).allowed, policy != FDN_LIMITER_DENY);
        ck_assert_uint_eq(hit(t, 5000, 10).allowed, policy == FDN_LIMITER_ALLOW);
        ck_assert(stats_of(t).faulted);
        FAILS(fdn_limiter_look_after(t), FDN_EFAULTED);
        ck_assert_int_eq(fdn_limiter_advance(t, 1), 0);
        ck_assert_int_eq(hit(t, 1, 0).allowed, hit(t, 1, 0).allowed);
        fdn_limiter_reset(t, 60000, hash_of(1));
        fdn_limiter_destroy(t);
        struct stat st;
        ck_assert_int_eq(stat(path, &st), 0);
        ck_assert_int_eq(st.st_size, sizes[i]);
        if (sizes[i] != 0)
            refused_and_left(path, &config, FDN_ECORRUPT);
        ck_assert_int_eq(unlink(path), 0);
    }
}
END_TEST

/* Cut and grown again, no page is missing, and another file written over it has all of them: its identity tells. */
START_TEST(overwritten_under_us)
{
    fdn_limiter *t = open_table(FDN_LIMITER_GCRA);
    ck_assert(hit(t, 1, 10).allowed);
    ck_assert_int_eq(truncate(path, 0), 0);
    ck_assert_int_eq(truncate(path, (off_t)size_of(100)), 0);
    ck_assert(hit(t, 1, 10).allowed); /* nobody has looked yet */
    ck_assert(stats_of(t).faulted);
    ck_assert(!hit(t, 2, 1).allowed);
    fdn_limiter_destroy(t);
    fdn_limiter_config config = config_of(FDN_LIMITER_GCRA);
    refused_and_left(path, &config, FDN_EFOREIGN);
}
END_TEST

START_TEST(removed_and_replaced_under_us)
{
    char other[300];
    fdn_limiter_config config = config_of(FDN_LIMITER_GCRA);
    support_path(other, sizeof other, dir, "other");
    fdn_limiter *t = open_table(FDN_LIMITER_GCRA);
    ck_assert(hit(t, 1, 10).allowed);
    ck_assert_int_eq(rename(path, other), 0);
    FAILS(fdn_limiter_look_after(t), ENOENT);
    ck_assert(!hit(t, 1, 1).allowed);
    ck_assert(!stats_of(t).faulted);
    OK(try_open(path, &config)); /* another table */
    FAILS(fdn_limiter_look_after(t), ENOENT);
    /* What is not ours is not removed. */
    fdn_limiter_discard(t);
    fdn_limiter_destroy(t);
    ck_assert_int_eq(access(path, F_OK), 0);
    ck_assert_int_eq(rename(other, path), 0);
    t = open_table(FDN_LIMITER_GCRA);
    ck_assert(!hit(t, 1, 1).allowed);
    OK(fdn_limiter_look_after(t));
    fdn_limiter_discard(t);
    fdn_limiter_destroy(t);
    ck_assert(empty(dir));
}
END_TEST

#ifdef FDN_ALLOC_FAULTS
START_TEST(no_memory_is_an_error)
{
    fdn_limiter_config config = config_of(FDN_LIMITER_GCRA);
    for (int taken = 0; taken < 2; taken++) {
        for (long n = 0;; n++) {
            fdn_alloc_budget = n;
            int rc = try_open(path, &config);
            fdn_alloc_budget = -1;
            if (rc == 0) {
                ck_assert_int_eq(n, taken ? 4 : 3);
                break;
            }
            FAILS(rc, FDN_ENOMEM);
        }
    }
}
END_TEST
#endif

START_TEST(no_room_in_the_guard_is_an_error)
{
    static char byte;
    int slots[FDN_GUARD_RANGES + 1], n = 0;
    fdn_limiter_config config = config_of(FDN_LIMITER_GCRA);
    ck_assert_int_eq(fdn_guard_init(), 0);
    while ((slots[n] = fdn_guard_add(&byte, 1)) >= 0)
        n++;
    ck_assert_int_gt(n, 0);
    FAILS(try_open(path, &config), FDN_EMAPPINGS);
    ck_assert(empty(dir));
    fdn_guard_remove(slots[--n]);
    OK(try_open(path, &config));
    ck_assert_int_eq(fdn_guard_add(&byte, 1), slots[n]);
    n++;
    refused_and_left(path, &config, FDN_EMAPPINGS);
    while (n-- > 0)
        fdn_guard_remove(slots[n]);
    OK(try_open(path, &config));
}
END_TEST

/* ---- others are faster ---------------------------------------------------------------------------------------------------------- */

static void remove_it(void)
{
    ck_assert_int_eq(unlink(path), 0);
}

static void replace_it(void)
{
    char other[300];
    support_path(other, sizeof other, dir, "other");
    ck_assert_int_eq(rename(other, path), 0);
}

static void make_it(void)
{
    char other[300];
    support_path(other, sizeof other, dir, "other");
    ck_assert_int_eq(link(other, path), 0);
    ck_assert_int_eq(unlink(other), 0);
}

static void prepare(void)
{
    char other[300];
    fdn_limiter *t = open_table(FDN_LIMITER_GCRA);
    ck_assert(hit(t, 1, 3).allowed);
    fdn_limiter_destroy(t);
    support_path(other, sizeof other, dir, "other");
    ck_assert_int_eq(rename(path, other), 0);
}

/* The lock of a file that has lost its name, or that another one took, is worth nothing. */
START_TEST(between_open_and_lock)
{
    fdn_limiter_config config = config_of(FDN_LIMITER_GCRA);
    prepare();
    if (_i == 2)
        support_write_file(path, "", 0, 0600);
    else if (_i != 3)
        OK(try_open(path, &config));
    before_flock = _i == 0 ? remove_it : _i == 3 ? make_it : replace_it;
    fdn_limiter *t = open_table(FDN_LIMITER_GCRA);
    ck_assert(before_flock == NULL);
    ck_assert_uint_eq(hit(t, 1, 0).value, _i == 0 ? 10 : 7);
    OK(fdn_limiter_look_after(t));
    refused_and_left(path, &config, FDN_ELOCKED);
    fdn_limiter_destroy(t);
}
END_TEST

int main(void)
{
    TCase *tc = tcase_create("faults");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, no_space_and_no_writing);
    tcase_add_test(tc, a_limit_on_the_size_of_files_is_an_error);
    tcase_add_test(tc, a_killed_or_failing_creator_leaves_nothing);
    tcase_add_loop_test(tc, truncated_under_us, 0, 3 * ALGORITHMS);
    tcase_add_test(tc, overwritten_under_us);
    tcase_add_test(tc, removed_and_replaced_under_us);
#ifdef FDN_ALLOC_FAULTS
    tcase_add_test(tc, no_memory_is_an_error);
#endif
    tcase_add_test(tc, no_room_in_the_guard_is_an_error);
    tcase_add_loop_test(tc, between_open_and_lock, 0, 4);
    return run_suite("limiter file faults", tc);
}
