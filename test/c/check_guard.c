/* The SIGBUS guard: a mapped file truncated under its readers reads zeroes; every other SIGBUS still kills. */
#include <check.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fdn_error.h"
#include "base/fdn_guard.h"
#include "test/c/support.h"

static int temp_file(size_t size)
{
    char name[] = "/tmp/fdn-guard-XXXXXX";
    int fd = mkstemp(name);
    ck_assert_int_ge(fd, 0);
    unlink(name);
    ck_assert_int_eq(ftruncate(fd, (off_t)size), 0);
    return fd;
}

START_TEST(truncated_file_reads_zero)
{
    ck_assert_int_eq(fdn_guard_init(), 0);
    ck_assert(fdn_guard_installed());
    size_t size = 1 << 16;
    int fd = temp_file(size);
    unsigned char *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    ck_assert_ptr_ne(p, MAP_FAILED);
    memset(p, 7, size);
    int slot = fdn_guard_add(p, size);
    ck_assert_int_ge(slot, 0);
    ck_assert(!fdn_guard_faulted(slot));
    ck_assert_int_eq(ftruncate(fd, 0), 0);
    ck_assert_int_eq(p[12345], 0);
    ck_assert(fdn_guard_faulted(slot));
    p[size - 1] = 1; /* a write fares as well */
    ck_assert_int_eq(p[size - 1], 1);
    fdn_guard_remove(slot);
    ck_assert(!fdn_guard_faulted(-1));
    munmap(p, size);
    close(fd);
}
END_TEST

/* The control: without registration the same access is the death of the process. */
START_TEST(unregistered_range_still_dies)
{
    size_t size = 1 << 16;
    int fd = temp_file(size);
    volatile unsigned char *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    ck_assert_int_eq(ftruncate(fd, 0), 0);
    pid_t child = fork();
    if (child == 0) {
        struct sigaction dfl;
        memset(&dfl, 0, sizeof dfl);
        dfl.sa_handler = SIG_DFL;
        sigaction(SIGBUS, &dfl, NULL); /* the sanitizer's own handler */
        fdn_guard_init();
        int slot = fdn_guard_add((void *)p, size);
        fdn_guard_remove(slot);
        _exit(p[100] == 0 ? 42 : 43);
    }
    int status = 0;
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert(WIFSIGNALED(status));
    ck_assert_int_eq(WTERMSIG(status), SIGBUS);
}
END_TEST

START_TEST(full_table_is_an_error)
{
    static char bytes[1];
    int slots[FDN_GUARD_RANGES];
    int n = 0;
    for (; n < FDN_GUARD_RANGES; n++) {
        slots[n] = fdn_guard_add(bytes, 1);
        if (slots[n] < 0)
            break;
    }
    ck_assert_int_eq(n, FDN_GUARD_RANGES);
    ck_assert_int_eq(fdn_guard_add(bytes, 1), FDN_EMAPPINGS);
    while (n-- > 0)
        fdn_guard_remove(slots[n]);
    int again = fdn_guard_add(bytes, 1);
    ck_assert_int_ge(again, 0);
    fdn_guard_remove(again);
}
END_TEST

START_TEST(error_names_are_one_vocabulary)
{
    ck_assert_str_eq(fdn_error_name(0), "ok");
    ck_assert_str_eq(fdn_error_name(FDN_ELOCKED), "locked");
    ck_assert_str_eq(fdn_error_name(28), "enospc");
    ck_assert_str_eq(fdn_error_name(9999), "errno");
}
END_TEST

int main(void)
{
    Suite *s = suite_create("guard");
    TCase *tc = tcase_create("guard");
    tcase_add_test(tc, unregistered_range_still_dies);
    tcase_add_test(tc, truncated_file_reads_zero);
    tcase_add_test(tc, full_table_is_an_error);
    tcase_add_test(tc, error_names_are_one_vocabulary);
    suite_add_tcase(s, tc);
    return support_run(s);
}
