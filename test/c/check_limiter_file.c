/* The file of a limiter's table: budgets outlive the process, one process has it, and what is refused is left as it is. */
#include <errno.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "test/c/limiter_file_fixture.h"

START_TEST(made_private_and_whole)
{
    struct stat st;
    char name[300];
    fdn_limiter_config config = config_of(FDN_LIMITER_GCRA);
    umask(0);
    support_path(name, sizeof name, dir, "made/limits");
    OK(try_open(name, &config));
    ck_assert_int_eq(stat(name, &st), 0);
    ck_assert_uint_eq(st.st_mode & 07777, 0600);
    ck_assert_uint_eq((size_t)st.st_size, size_of(100));
    ck_assert_uint_ge((uint64_t)st.st_blocks * 512, (uint64_t)st.st_size); /* the space is really there */
    support_path(name, sizeof name, dir, "made");
    ck_assert_int_eq(stat(name, &st), 0);
    ck_assert_uint_eq(st.st_mode & 07777, 0700);
    FAILS(try_open(name, &config), EISDIR);
    support_path(name, sizeof name, dir, "made/");
    FAILS(try_open(name, &config), EISDIR);
    support_path(name, sizeof name, dir, "no/such/limits");
    FAILS(try_open(name, &config), ENOENT);
    support_path(name, sizeof name, dir, "made/limits/below");
    FAILS(try_open(name, &config), ENOTDIR);
    FAILS(try_open("", &config), EISDIR);
    /* A copy that everybody may read is made private again: it has a secret. */
    support_path(name, sizeof name, dir, "made/limits");
    ck_assert_int_eq(chmod(name, 0644), 0);
    OK(try_open(name, &config));
    ck_assert_int_eq(stat(name, &st), 0);
    ck_assert_uint_eq(st.st_mode & 07777, 0600);
}
END_TEST

/* Two tables of one configuration have different secrets; a table that is taken up has the one it had. */
START_TEST(the_secret_stays_with_the_file)
{
    uint8_t binaries[16], terms[16], zero[16] = {0};
    fdn_limiter *t = open_table(FDN_LIMITER_GCRA);
    memcpy(binaries, fdn_limiter_secret_of(t)->binaries, 16);
    memcpy(terms, fdn_limiter_secret_of(t)->terms, 16);
    ck_assert(fdn_limiter_secret_of(t)->lasting);
    ck_assert_mem_ne(binaries, zero, 16);
    ck_assert_mem_ne(binaries, terms, 16);
    ck_assert_str_eq(fdn_limiter_path(t), path);
    fdn_limiter_destroy(t);
    t = open_table(FDN_LIMITER_GCRA);
    ck_assert_mem_eq(fdn_limiter_secret_of(t)->binaries, binaries, 16);
    ck_assert_mem_eq(fdn_limiter_secret_of(t)->terms, terms, 16);
    fdn_limiter_discard(t);
    fdn_limiter_destroy(t);
    t = open_table(FDN_LIMITER_GCRA);
    ck_assert_mem_ne(fdn_limiter_secret_of(t)->binaries, binaries, 16);
    fdn_limiter_destroy(t);
}
END_TEST

static void use_up(int algorithm, int keys)
{
    fdn_limiter *t = open_table(algorithm);
    ck_assert_int_eq(fdn_limiter_advance(t, 7), 0);
    for (int k = 0; k < keys; k++)
        ck_assert(hit(t, (uint64_t)k, 1 + (uint64_t)k % 10).allowed);
    if (keys > 90)
        (void)kill(getpid(), SIGKILL);
    fdn_limiter_destroy(t);
}

static void used_up(int algorithm, int keys)
{
    fdn_limiter *t = open_table(algorithm);
    ck_assert_uint_eq(why.dropped, 0);
    ck_assert_uint_eq(stats_of(t).live, (uint64_t)keys);
    ck_assert_uint_eq(stats_of(t).now_ms, 7);
    ck_assert_uint_eq(stats_of(t).disk_bytes, size_of(100));
    ck_assert(!stats_of(t).faulted);
    for (int k = 0; k < keys; k++) {
        uint64_t left = 9 - (uint64_t)k % 10;
        ck_assert(left == 0 || hit(t, (uint64_t)k, left).allowed);
        ck_assert(!hit(t, (uint64_t)k, 1).allowed);
    }
    fdn_limiter_destroy(t);
}

START_TEST(budgets_outlive_an_orderly_end)
{
    use_up(_i, 80);
    used_up(_i, 80);
}
END_TEST

START_TEST(budgets_outlive_a_killed_process)
{
    int status = 0;
    pid_t child = fork();
    if (child == 0) {
        use_up(_i, 100);
        _exit(9);
    }
    waitpid(child, &status, 0);
    ck_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    used_up(_i, 100);
}
END_TEST

START_TEST(one_process_has_it)
{
    char byte, other[300];
    int ready[2];
    fdn_limiter_config config = config_of(FDN_LIMITER_GCRA);
    ck_assert_int_eq(pipe(ready), 0);
    pid_t child = fork();
    if (child == 0) {
        fdn_limiter *t = open_table(FDN_LIMITER_GCRA);
        if (t == NULL || write(ready[1], "x", 1) != 1)
            _exit(1);
        for (;;)
            pause();
    }
    ck_assert_int_eq(read(ready[0], &byte, 1), 1);
    for (int i = 0; i < 3; i++) {
        refused_and_left(path, &config, FDN_ELOCKED);
        ck_assert_uint_eq(why.pid, (uint32_t)child);
    }
    /* By another name it is the same file. */
    support_path(other, sizeof other, dir, "other");
    ck_assert_int_eq(link(path, other), 0);
    FAILS(try_open(other, &config), FDN_ELOCKED);
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    fdn_limiter *t = open_table(FDN_LIMITER_GCRA);
    FAILS(try_open(path, &config), FDN_ELOCKED);
    ck_assert_uint_eq(why.pid, (uint32_t)getpid());
    fdn_limiter_destroy(t);
    OK(try_open(path, &config));
}
END_TEST

START_TEST(what_may_differ_and_what_not)
{
    fdn_limiter_config config = config_of(FDN_LIMITER_GCRA), other = config;
    OK(try_open(path, &config));
    other.algorithm = FDN_LIMITER_FIXED_WINDOW;
    refused_and_left(path, &other, FDN_EDIFFERS);
    ck_assert_int_eq(why.differs, FDN_LIMITER_BAD_ALGORITHM);
    other = config;
    other.capacity = 101;
    refused_and_left(path, &other, FDN_EDIFFERS);
    ck_assert_int_eq(why.differs, FDN_LIMITER_BAD_CAPACITY);
    other = (fdn_limiter_config){.limit = 3, .period_ms = 10, .burst = 9, .capacity = 100, .on_full = FDN_LIMITER_ALLOW};
    OK(try_open(path, &other));
    other = (fdn_limiter_config){.capacity = 100};
    OK(try_open(path, &other));
    other.capacity = 0;
    refused_and_left(path, &other, FDN_EINVAL);
    other = (fdn_limiter_config){.capacity = 100, .algorithm = FDN_LIMITER_LEASE};
    refused_and_left(path, &other, FDN_EINVAL);
}
END_TEST

/* In a file that was closed, and in one whose process was killed. */
START_TEST(every_byte_of_the_header_counts)
{
    fdn_limiter_config config = config_of(FDN_LIMITER_GCRA);
    pid_t child = fork();
    if (child == 0) {
        use_up(FDN_LIMITER_GCRA, _i == 0 ? 80 : 100);
        _exit(0);
    }
    waitpid(child, NULL, 0);
    static uint8_t header[FDN_LIMITER_FILE_HEADER];
    ck_assert_uint_eq(support_read_file(path, header, sizeof header), sizeof header);
    for (size_t at = 0; at < sizeof header; at++) {
        uint8_t byte = header[at] ^ (uint8_t)(1 << at % 8);
        support_patch(path, (off_t)at, &byte, 1);
        refused_and_left(path, &config, at < 8 ? FDN_EFOREIGN : at < 12 ? FDN_EVERSION : FDN_ECORRUPT);
        support_patch(path, (off_t)at, &header[at], 1);
    }
    OK(try_open(path, &config));
}
END_TEST

/* Whatever a later version may write is told from damage: the checksums hold. */
START_TEST(later_versions_are_refused)
{
    fdn_limiter_header h;
    fdn_limiter_config config = config_of(FDN_LIMITER_GCRA);
    OK(try_open(path, &config));
    support_read_file(path, whole, sizeof whole);
    for (int change = 0; change < 9; change++) {
        memcpy(&h, whole, sizeof h);
        h.identity.algorithm += change == 0 ? 3 : 0;
        h.identity.keys += change == 1;
        h.identity.reserved[15] = change == 2;
        h.identity.header_bytes += change == 3 ? 4096 : 0;
        h.identity.buckets -= change == 4;
        h.identity.file_bytes += change == 5 ? 64 : 0;
        h.identity.capacity = change == 6 ? 0 : change == 7 ? FDN_LIMITER_MAX_CAPACITY + 1 : h.identity.capacity;
        h.stamp.flags = change == 8 ? 4 : h.stamp.flags;
        h.identity.checksum = fdn_hash_check(&h.identity, 120, 0);
        h.stamp.checksum = fdn_hash_check(&h.stamp, 56, h.identity.checksum);
        support_patch(path, 0, &h, sizeof h);
        int expected = change < 3 || change == 8 ? FDN_EVERSION : FDN_ECORRUPT;
        size_t n = support_read_file(path, after, sizeof after);
        FAILS(try_open(path, &config), expected);
        ck_assert_uint_eq(support_read_file(path, after, sizeof after), n);
        ck_assert_mem_eq(after, &h, sizeof h);
    }
}
END_TEST

START_TEST(every_other_length_is_refused)
{
    static uint8_t copy[1 << 16];
    char name[300];
    fdn_limiter_config config = config_of(FDN_LIMITER_FIXED_WINDOW);
    use_up(FDN_LIMITER_FIXED_WINDOW, 80);
    size_t size = support_read_file(path, copy, sizeof copy);
    ck_assert_uint_eq(size, size_of(100));
    size_t lengths[] = {1,    7,    8,    11,   12,   119,  120,  127,       128,      191,      192,
                        4095, 4096, 4097, 4159, 4160, 8191, 8192, size - 64, size - 1, size + 1, size + 4096};
    support_path(name, sizeof name, dir, "cut");
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        support_write_file(name, copy, lengths[i], 0600);
        refused_and_left(name, &config, lengths[i] < 8 ? FDN_EFOREIGN : FDN_ECORRUPT);
    }
    support_write_file(name, copy, size, 0600);
    OK(try_open(name, &config));
    support_write_file(name, "something else entirely", 23, 0600);
    refused_and_left(name, &config, FDN_EFOREIGN);
    memset(copy, 0, size);
    support_write_file(name, copy, size, 0600);
    refused_and_left(name, &config, FDN_EFOREIGN);
}
END_TEST

/* What the death of a machine may leave of a file, or somebody made in advance: there is nothing in it to lose. */
START_TEST(an_empty_file_becomes_a_table)
{
    fdn_limiter_config config = config_of(FDN_LIMITER_GCRA);
    support_write_file(path, "", 0, 0644);
    use_up(FDN_LIMITER_GCRA, 80);
    used_up(FDN_LIMITER_GCRA, 80);
    support_write_file(path, "", 0, 0666);
    refused_and_left(path, &config, FDN_EMODE);
}
END_TEST

START_TEST(what_is_no_file_is_refused)
{
    char name[400];
    fdn_limiter_config config = config_of(FDN_LIMITER_GCRA);
    OK(try_open(path, &config));
    support_path(name, sizeof name, dir, "link");
    ck_assert_int_eq(symlink(path, name), 0);
    FAILS(try_open(name, &config), ELOOP);
    support_path(name, sizeof name, dir, "dangling");
    ck_assert_int_eq(symlink("nowhere", name), 0);
    FAILS(try_open(name, &config), ELOOP);
    support_path(name, sizeof name, dir, "fifo");
    ck_assert_int_eq(mkfifo(name, 0600), 0);
    FAILS(try_open(name, &config), FDN_EFOREIGN); /* and does not hang */
    FAILS(try_open("/dev/null", &config), FDN_EFOREIGN);
    FAILS(try_open("/dev/full", &config), FDN_EFOREIGN);
    memset(name, 'x', 300);
    name[0] = '/';
    name[300] = '\0';
    FAILS(try_open(name, &config), ENAMETOOLONG);
    ck_assert_int_eq(chmod(path, 0602), 0);
    refused_and_left(path, &config, FDN_EMODE);
    ck_assert_int_eq(chmod(path, 0620), 0);
    refused_and_left(path, &config, FDN_EMODE);
}
END_TEST

static int as_nobody(const char *name, const fdn_limiter_config *config, int code)
{
    int status = 1;
    pid_t child = fork();
    if (child == 0) {
        if (setuid(65534) != 0)
            _exit(9);
        _exit(try_open(name, config) == code ? 0 : 1);
    }
    waitpid(child, &status, 0);
    return status;
}

/* Only root can make a file of another user's. */
START_TEST(another_users_file_is_refused)
{
    char name[300], theirs[300];
    fdn_limiter_config config = config_of(FDN_LIMITER_GCRA);
    if (geteuid() != 0)
        return;
    OK(try_open(path, &config));
    ck_assert_int_eq(chmod(dir, 0755), 0);
    ck_assert_int_eq(as_nobody(path, &config, EACCES), 0);
    ck_assert_int_eq(chmod(path, 0666), 0);
    ck_assert_int_eq(as_nobody(path, &config, FDN_EOWNER), 0);
    support_path(name, sizeof name, dir, "new");
    ck_assert_int_eq(as_nobody(name, &config, EACCES), 0);
    /* Root opens what is another's, in a folder that only that one may write, and makes nothing there. */
    ck_assert_int_eq(chmod(path, 0600), 0);
    ck_assert_int_eq(chown(path, 65534, 65534), 0);
    OK(try_open(path, &config));
    ck_assert_int_eq(chown(dir, 65534, 65534), 0);
    OK(try_open(path, &config));
    FAILS(try_open(name, &config), FDN_EOWNER);
    support_path(theirs, sizeof theirs, dir, "sub/new");
    FAILS(try_open(theirs, &config), FDN_EOWNER);
    support_path(theirs, sizeof theirs, dir, "sub");
    ck_assert_int_ne(access(theirs, F_OK), 0);
    /* Where everybody may put files, only our own will do. */
    ck_assert_int_eq(chown(dir, 0, 0), 0);
    ck_assert_int_eq(chmod(dir, 01777), 0);
    FAILS(try_open(path, &config), FDN_EOWNER);
    OK(try_open(name, &config));
}
END_TEST

int main(void)
{
    TCase *tc = tcase_create("file");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, made_private_and_whole);
    tcase_add_test(tc, the_secret_stays_with_the_file);
    tcase_add_loop_test(tc, budgets_outlive_an_orderly_end, 0, ALGORITHMS);
    tcase_add_loop_test(tc, budgets_outlive_a_killed_process, 0, ALGORITHMS);
    tcase_add_test(tc, one_process_has_it);
    tcase_add_test(tc, what_may_differ_and_what_not);
    tcase_add_loop_test(tc, every_byte_of_the_header_counts, 0, 2);
    tcase_add_test(tc, later_versions_are_refused);
    tcase_add_test(tc, every_other_length_is_refused);
    tcase_add_test(tc, an_empty_file_becomes_a_table);
    tcase_add_test(tc, what_is_no_file_is_refused);
    tcase_add_test(tc, another_users_file_is_refused);
    return run_suite("limiter file", tc);
}
