/* The flag file as a file: who may write it, what is refused, what happens when it is truncated, replaced or damaged. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fdn_alloc.h"
#include "base/fdn_guard.h"
#include "test/c/flags_fixture.h"

#ifdef FDN_ALLOC_FAULTS
extern long fdn_alloc_budget;
#endif

static char buf[400];

/* In place of the C library's. */
static bool die_in_fsync;
int fsync(int fd)
{
    if (die_in_fsync)
        (void)kill(getpid(), SIGKILL);
    return (int)syscall(SYS_fsync, fd);
}

static int try_open(const char *name, unsigned mode)
{
    fdn_flags *g = NULL;
    int rc = fdn_flags_open(&g, name, mode);
    ck_assert((rc == 0) == (g != NULL));
    fdn_flags_close(g);
    return rc;
}

START_TEST(created_private)
{
    struct stat st;
    char name[300];
    ck_assert_int_eq(stat(path, &st), 0);
    ck_assert_uint_eq(st.st_mode & 07777, 0600);
    ck_assert_uint_eq((size_t)st.st_size, fdn_flag_file_bytes(FDN_FLAG_CAPACITY, FDN_FLAG_GROUP_CAPACITY));
    ck_assert_uint_ge((uint64_t)st.st_blocks * 512, (uint64_t)st.st_size); /* the space is really there */
    /* A missing folder is made, private, but not a whole path of them. */
    umask(0);
    support_path(name, sizeof name, dir, "made/flags");
    FAILS(try_open(name, 0), ENOENT);
    OK(try_open(name, FDN_FLAGS_CREATE));
    ck_assert_int_eq(stat(name, &st), 0);
    ck_assert_uint_eq(st.st_mode & 07777, 0600);
    support_path(name, sizeof name, dir, "made");
    ck_assert_int_eq(stat(name, &st), 0);
    ck_assert_uint_eq(st.st_mode & 07777, 0700);
    support_path(name, sizeof name, dir, "no/such/flags");
    FAILS(try_open(name, FDN_FLAGS_CREATE), ENOENT);
    support_path(name, sizeof name, dir, "flags/below");
    FAILS(try_open(name, FDN_FLAGS_CREATE), ENOTDIR);
    support_path(name, sizeof name, dir, "made/");
    FAILS(try_open(name, FDN_FLAGS_CREATE), EISDIR);
    support_path(name, sizeof name, dir, "made");
    FAILS(try_open(name, 0), EISDIR);
    FAILS(try_open(name, FDN_FLAGS_READ_ONLY), FDN_EFOREIGN);
    FAILS(try_open(dir, 0), FDN_EMODE); /* its folder is /tmp */
    FAILS(try_open("", 0), EISDIR);
}
END_TEST

START_TEST(what_others_may_write_is_refused)
{
    static const mode_t modes[] = {0620, 0602, 0666};
    char name[300];
    for (size_t i = 0; i < sizeof modes / sizeof modes[0]; i++) {
        ck_assert_int_eq(chmod(path, modes[i]), 0);
        FAILS(try_open(path, FDN_FLAGS_CREATE), FDN_EMODE);
    }
    ck_assert_int_eq(chmod(path, 0644), 0);
    OK(try_open(path, 0));
    ck_assert_int_eq(chmod(dir, 0770), 0);
    FAILS(try_open(path, 0), FDN_EMODE);
    ck_assert_int_eq(chmod(dir, 01777), 0);
    FAILS(try_open(path, 0), FDN_EMODE);
    ck_assert_int_eq(chmod(dir, 0700), 0);
    OK(try_open(path, 0));
    /* The lock beside it is checked in the same way. */
    support_path(name, sizeof name, dir, "flags.lock");
    support_write_file(name, "", 0, 0666);
    FAILS(fdn_flags_declare(f, "a", "g", true, -1, NULL), FDN_EMODE);
    ck_assert_int_eq(unlink(name), 0);
    ck_assert_int_eq(symlink("/dev/null", name), 0);
    FAILS(fdn_flags_declare(f, "a", "g", true, -1, NULL), ELOOP);
    ck_assert_int_eq(unlink(name), 0);
    OK(fdn_flags_declare(f, "a", "g", true, -1, NULL));
}
END_TEST

/* Only root can make a file of another user's. */
START_TEST(another_users_file_is_refused)
{
    if (geteuid() != 0)
        return;
    char name[300];
    pid_t child = fork();
    if (child == 0) {
        if (chmod(dir, 0755) != 0 || setuid(65534) != 0)
            _exit(9);
        fdn_flags *g = NULL;
        _exit(fdn_flags_open(&g, path, FDN_FLAGS_READ_ONLY) == EACCES ? 0 : 1);
    }
    int status = 1;
    waitpid(child, &status, 0);
    ck_assert_int_eq(status, 0);
    ck_assert_int_eq(chmod(path, 0644), 0);
    child = fork();
    if (child == 0) {
        if (setuid(65534) != 0)
            _exit(9);
        fdn_flags *g = NULL;
        _exit(fdn_flags_open(&g, path, FDN_FLAGS_READ_ONLY) == FDN_EOWNER ? 0 : 1);
    }
    waitpid(child, &status, 0);
    ck_assert_int_eq(status, 0);
    /* Root opens what is another's, and creates nothing there, not even the lock. */
    ck_assert_int_eq(chown(path, 65534, 65534), 0);
    ck_assert_int_eq(chown(dir, 65534, 65534), 0);
    OK(try_open(path, 0));
    FAILS(fdn_flags_declare(f, "a", "g", true, -1, NULL), FDN_EOWNER);
    support_path(name, sizeof name, dir, "flags.lock");
    ck_assert_int_ne(access(name, F_OK), 0);
    support_path(name, sizeof name, dir, "new");
    FAILS(try_open(name, FDN_FLAGS_CREATE), FDN_EOWNER);
    ck_assert_int_ne(access(name, F_OK), 0);
}
END_TEST

START_TEST(foreign_and_damaged_files_are_refused_and_left)
{
    static char whole[1 << 19], after[1 << 19];
    char name[300];
    OK(fdn_flags_declare(f, "abc", "grp", true, -1, NULL));
    size_t n = support_read_file(path, whole, sizeof whole);
    support_path(name, sizeof name, dir, "other");
    support_write_file(name, "", 0, 0600);
    FAILS(try_open(name, FDN_FLAGS_CREATE), FDN_EFOREIGN);
    support_write_file(name, "something else entirely", 23, 0600);
    FAILS(try_open(name, FDN_FLAGS_CREATE), FDN_EFOREIGN);
    ck_assert_uint_eq(support_read_file(name, after, sizeof after), 23);
    ck_assert_mem_eq(after, "something else entirely", 23);
    support_write_file(name, whole, n, 0600);
    OK(try_open(name, 0));
    /* Each byte of the identity; each of the published names; each of the counts. */
    size_t names = fdn_flag_names_at(FDN_FLAG_CAPACITY), groups = fdn_flag_groups_at(FDN_FLAG_CAPACITY);
    for (size_t at = 0; at < n; at++) {
        bool checked = at < 72 || (at >= names && at < names + 64) || (at >= groups && at < groups + 64);
        if (!checked)
            continue;
        char byte = (char)(whole[at] ^ 0x5a);
        support_patch(name, (off_t)at, &byte, 1);
        int rc = try_open(name, FDN_FLAGS_CREATE);
        int expected = at < 8 ? FDN_EFOREIGN : at < 12 ? FDN_EVERSION : FDN_ECORRUPT;
        ck_assert_msg(rc == expected, "byte %zu: %s", at, fdn_error_name(rc));
        support_patch(name, (off_t)at, &whole[at], 1);
    }
    /* A value from a later epoch than its group's, and a group without an epoch. */
    uint64_t word = (uint64_t)7 << FDN_FLAG_EPOCH_SHIFT | FDN_FLAG_TRUE;
    support_patch(name, 4096, &word, sizeof word);
    FAILS(try_open(name, 0), FDN_ECORRUPT);
    support_patch(name, 4096, whole + 4096, sizeof word);
    word = 0;
    support_patch(name, 2048, &word, sizeof word);
    FAILS(try_open(name, 0), FDN_ECORRUPT);
    support_patch(name, 2048, whole + 2048, sizeof word);
    OK(try_open(name, 0));
    for (size_t len = 8; len < n; len = len * 3 + 1) {
        support_write_file(name, whole, len, 0600);
        FAILS(try_open(name, FDN_FLAGS_CREATE), FDN_ECORRUPT);
        ck_assert_uint_eq(support_read_file(name, after, sizeof after), len);
        ck_assert_mem_eq(after, whole, len);
    }
}
END_TEST

START_TEST(what_is_no_file_is_refused)
{
    char name[300];
    support_path(name, sizeof name, dir, "link");
    ck_assert_int_eq(symlink(path, name), 0);
    FAILS(try_open(name, FDN_FLAGS_CREATE), ELOOP);
    support_path(name, sizeof name, dir, "fifo");
    ck_assert_int_eq(mkfifo(name, 0600), 0);
    FAILS(try_open(name, 0), FDN_EFOREIGN); /* and does not hang */
    FAILS(try_open("/dev/full", 0), FDN_EFOREIGN);
    FAILS(try_open("/dev/null", 0), FDN_EFOREIGN);
    FAILS(try_open("/proc/version", FDN_FLAGS_READ_ONLY), FDN_EFOREIGN);
    memset(buf, 'x', 300);
    buf[0] = '/';
    buf[300] = '\0';
    FAILS(try_open(buf, FDN_FLAGS_CREATE), ENAMETOOLONG);
}
END_TEST

static void declare_some(void)
{
    OK(fdn_flags_declare(f, "a", "g", true, -1, NULL));
    OK(fdn_flags_declare(f, "b", "h", false, -1, NULL));
    OK(fdn_flags_set(f, "b", FDN_FLAG_TRUE));
}

/* Truncated to nothing, to the header, to a part of the values, and to all but the last byte: everything off, and said. */
START_TEST(truncated_under_us_all_is_off)
{
    static const off_t sizes[] = {0, 100, 4096, 8192, 100000, 208895};
    declare_some();
    const _Atomic uint64_t *epoch = fdn_flags_epoch_word(f, 0), *value = fdn_flags_value_word(f, 0);
    ck_assert_int_eq(fdn_flag_in_force(atomic_load(epoch), atomic_load(value)), FDN_FLAG_TRUE);
    ck_assert(!fdn_flags_faulted(f));
    ck_assert_int_eq(truncate(path, sizes[_i]), 0);
    /* A reader that knows nothing meets no signal; what it can still see of the file it may read until somebody notices. */
    fdn_flag_value seen = fdn_flag_in_force(atomic_load(epoch), atomic_load(value));
    ck_assert(seen == FDN_FLAG_FALSE || sizes[_i] > 4096);
    ck_assert(fdn_flags_faulted(f));
    ck_assert_int_eq(fdn_flag_in_force(atomic_load(epoch), atomic_load(value)), FDN_FLAG_FALSE);
    fdn_flag_value v = FDN_FLAG_FALSE;
    fdn_flag_group g;
    fdn_flag_info info;
    uint64_t e;
    bool rolled_back = false;
    FAILS(fdn_flags_get(f, "a", &v), FDN_EUNKNOWN);
    FAILS(fdn_flags_set_at(f, 0, FDN_FLAG_TRUE), FDN_EFAULTED);
    FAILS(fdn_flags_flip(f, "g", "r", "w", NULL), FDN_EFAULTED);
    FAILS(fdn_flags_unflip(f, "g", 1, "w"), FDN_EFAULTED);
    FAILS(fdn_flags_declare(f, "c", "g", true, -1, NULL), FDN_EFAULTED);
    FAILS(fdn_flags_sync(f), FDN_EFAULTED);
    FAILS(fdn_flags_verify(f), FDN_EFAULTED);
    FAILS(fdn_flags_group_state(f, "g", &e, &rolled_back), FDN_EFAULTED);
    ck_assert(rolled_back && e == 0);
    FAILS(fdn_flags_group_at(f, 0, &g), FDN_EUNKNOWN);
    FAILS(fdn_flags_at(f, 0, &info), FDN_EUNKNOWN);
    fdn_flags_wait(f, fdn_flags_ticket(f), 1);
    FAILS(try_open(path, FDN_FLAGS_CREATE), sizes[_i] == 0 ? FDN_EFOREIGN : FDN_ECORRUPT);
    fdn_flags_close(f);
    ck_assert_int_eq(unlink(path), 0);
    OK(fdn_flags_open(&f, path, FDN_FLAGS_CREATE));
}
END_TEST

/* Nobody noticed before a writer came: what it does must not count either. */
START_TEST(writers_meet_the_truncation_first)
{
    uint64_t epoch = 0;
    declare_some();
    ck_assert_int_eq(truncate(path, 0), 0);
    int rc = _i == 0   ? fdn_flags_set_at(f, 0, FDN_FLAG_TRUE)
             : _i == 1 ? fdn_flags_rollback(f, "g", "r", "w", &epoch)
             : _i == 2 ? fdn_flags_rearm(f, "g", 1, "w")
                       : fdn_flags_declare(f, "c", "g", true, -1, NULL);
    FAILS(rc, FDN_EFAULTED);
    ck_assert(fdn_flags_faulted(f));
}
END_TEST

/* Another flag file written over ours, in place (cp): not ours any more. Renamed over (mv): ours stays ours, the path is another's. */
START_TEST(replaced_files_are_noticed)
{
    static char whole[1 << 19];
    char name[300], again[300];
    declare_some();
    support_path(name, sizeof name, dir, "other");
    OK(try_open(name, FDN_FLAGS_CREATE));
    ck_assert(fdn_flags_same_file(f, path));
    ck_assert(!fdn_flags_same_file(f, name));
    support_path(again, sizeof again, dir, "third");
    OK(try_open(again, FDN_FLAGS_CREATE));
    ck_assert_int_eq(rename(again, path), 0);
    ck_assert(!fdn_flags_same_file(f, path));
    ck_assert(!fdn_flags_faulted(f));
    ck_assert_int_eq(value_of("a"), FDN_FLAG_TRUE);
    reopen();
    size_t n = support_read_file(name, whole, sizeof whole);
    support_patch(path, 0, whole, n);
    ck_assert(fdn_flags_faulted(f));
    FAILS(fdn_flags_declare(f, "c", "g", true, -1, NULL), FDN_EFAULTED);
}
END_TEST

START_TEST(detached_reads_off)
{
    declare_some();
    const _Atomic uint64_t *epoch = fdn_flags_epoch_word(f, 0), *value = fdn_flags_value_word(f, 0);
    fdn_flags_detach(f);
    ck_assert_int_eq(fdn_flag_in_force(atomic_load(epoch), atomic_load(value)), FDN_FLAG_FALSE);
    FAILS(fdn_flags_set_at(f, 0, FDN_FLAG_TRUE), FDN_EFAULTED);
    fdn_flags_detach(f);
    fdn_flags_wake(f);
    reopen();
    ck_assert_int_eq(value_of("a"), FDN_FLAG_TRUE); /* in the file nothing happened */
}
END_TEST

START_TEST(a_held_lock_is_busy_and_dies_with_its_holder)
{
    char name[300];
    int ready[2];
    char byte;
    declare_some();
    support_path(name, sizeof name, dir, "flags.lock");
    ck_assert_int_eq(pipe(ready), 0);
    pid_t child = fork();
    if (child == 0) {
        int fd = open(name, O_RDWR);
        if (fd < 0 || flock(fd, LOCK_EX) != 0 || write(ready[1], "x", 1) != 1)
            _exit(1);
        for (;;)
            pause();
    }
    ck_assert_int_eq(read(ready[0], &byte, 1), 1);
    FAILS(fdn_flags_declare(f, "c", "g", true, -1, NULL), FDN_EBUSY);
    /* A rollback and a set do not care. */
    OK(fdn_flags_set(f, "a", FDN_FLAG_FALSE));
    OK(fdn_flags_rollback(f, "g", "r", "w", NULL));
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    OK(fdn_flags_declare(f, "c", "g", true, -1, NULL));
    close(ready[0]);
    close(ready[1]);
}
END_TEST

/* A file system without room; root alone can mount one, and not in every container. */
START_TEST(no_space_is_said_and_leaves_nothing)
{
    char mount_point[300], name[320];
    support_path(mount_point, sizeof mount_point, dir, "small");
    ck_assert_int_eq(mkdir(mount_point, 0700), 0);
    if (mount("tmpfs", mount_point, "tmpfs", 0, "size=64k,mode=0700") != 0)
        return;
    support_path(name, sizeof name, mount_point, "flags");
    int rc = try_open(name, FDN_FLAGS_CREATE);
    int gone = access(name, F_OK);
    int left = rmdir(mount_point); /* EBUSY: still mounted; the listing below decides */
    (void)left;
    snprintf(buf, sizeof buf, "test -z \"$(ls -A '%s')\"", mount_point);
    int empty = system(buf); /* NOLINT(cert-env33-c) */
    umount(mount_point);
    FAILS(rc, ENOSPC);
    ck_assert_int_ne(gone, 0);
    ck_assert_int_eq(empty, 0);
}
END_TEST

START_TEST(a_killed_creator_leaves_nothing)
{
    char sub[300], name[320];
    int status = 0;
    support_path(sub, sizeof sub, dir, "sub");
    ck_assert_int_eq(mkdir(sub, 0700), 0);
    support_path(name, sizeof name, sub, "flags");
    pid_t pid = fork();
    ck_assert_int_ge(pid, 0);
    if (pid == 0) {
        die_in_fsync = true;
        (void)try_open(name, FDN_FLAGS_CREATE);
        _exit(0);
    }
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    ck_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    snprintf(buf, sizeof buf, "test -z \"$(ls -A '%s')\"", sub);
    ck_assert_int_eq(system(buf), 0); /* NOLINT(cert-env33-c) */
    ck_assert_int_eq(try_open(name, FDN_FLAGS_CREATE), 0);
    unlink(name);
    rmdir(sub);
}
END_TEST

/* Where files may not be that large it is an error, not the signal that ends the process. */
START_TEST(a_limit_on_the_size_of_files_is_an_error)
{
    char sub[300], name[320];
    struct rlimit limit = {65536, RLIM_INFINITY};
    int status = 0;
    support_path(sub, sizeof sub, dir, "sub");
    ck_assert_int_eq(mkdir(sub, 0700), 0);
    support_path(name, sizeof name, sub, "flags");
    pid_t pid = fork();
    ck_assert_int_ge(pid, 0);
    if (pid == 0) {
        setrlimit(RLIMIT_FSIZE, &limit);
        fdn_flags *g = NULL;
        _exit(fdn_flags_open(&g, name, FDN_FLAGS_CREATE) == EFBIG ? 0 : 1);
    }
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    ck_assert_msg(WIFEXITED(status) && WEXITSTATUS(status) == 0, "status %x", (unsigned)status);
    ck_assert_int_eq(rmdir(sub), 0);
}
END_TEST

#ifdef FDN_ALLOC_FAULTS
START_TEST(no_memory_is_an_error)
{
    char name[300];
    support_path(name, sizeof name, dir, "fresh");
    for (long n = 0;; n++) {
        fdn_alloc_budget = n;
        int rc = try_open(name, FDN_FLAGS_CREATE);
        fdn_alloc_budget = -1;
        if (rc == 0) {
            ck_assert_int_ge(n, 2);
            break;
        }
        FAILS(rc, FDN_ENOMEM);
    }
}
END_TEST
#endif

START_TEST(no_room_in_the_guard_is_an_error)
{
    static char byte;
    int slots[FDN_GUARD_RANGES], n = 0;
    while ((slots[n] = fdn_guard_add(&byte, 1)) >= 0)
        n++;
    FAILS(try_open(path, 0), FDN_EMAPPINGS);
    while (n-- > 0)
        fdn_guard_remove(slots[n]);
    OK(try_open(path, 0));
}
END_TEST

int main(void)
{
    TCase *tc = tcase_create("file");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, created_private);
    tcase_add_test(tc, what_others_may_write_is_refused);
    tcase_add_test(tc, another_users_file_is_refused);
    tcase_add_test(tc, foreign_and_damaged_files_are_refused_and_left);
    tcase_add_test(tc, what_is_no_file_is_refused);
    tcase_add_loop_test(tc, truncated_under_us_all_is_off, 0, 6);
    tcase_add_loop_test(tc, writers_meet_the_truncation_first, 0, 4);
    tcase_add_test(tc, replaced_files_are_noticed);
    tcase_add_test(tc, detached_reads_off);
    tcase_add_test(tc, a_held_lock_is_busy_and_dies_with_its_holder);
    tcase_add_test(tc, no_space_is_said_and_leaves_nothing);
    tcase_add_test(tc, a_killed_creator_leaves_nothing);
    tcase_add_test(tc, a_limit_on_the_size_of_files_is_an_error);
#ifdef FDN_ALLOC_FAULTS
    tcase_add_test(tc, no_memory_is_an_error);
#endif
    tcase_add_test(tc, no_room_in_the_guard_is_an_error);
    return run_suite("flag file", tc);
}
