/* A log that nobody reads keeps nobody waiting. */
#include <check.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

#include "c_node/log.h"
#include "test/c/support.h"

static int ends[2];

static void setup(void)
{
    ck_assert_int_eq(pipe(ends), 0);
}

static void fill(void)
{
    char block[4096];
    memset(block, 'x', sizeof block);
    fcntl(ends[1], F_SETFL, O_NONBLOCK);
    while (write(ends[1], block, sizeof block) > 0)
        ;
    fcntl(ends[1], F_SETFL, 0); /* as stderr is handed to us */
}

/* The suite's own time limit ends a test that hangs. */
START_TEST(nobody_reads_stderr)
{
    struct fdn_log log = {.least = FDN_LOG_INFO};
    fill();
    int stderr_before = dup(STDERR_FILENO);
    dup2(ends[1], STDERR_FILENO);
    for (int i = 0; i < 100; i++)
        fdn_log(&log, FDN_LOG_ERROR, "event", "%d", i);
    dup2(stderr_before, STDERR_FILENO);
}
END_TEST

START_TEST(stderr_is_closed)
{
    struct fdn_log log = {.least = FDN_LOG_INFO};
    int stderr_before = dup(STDERR_FILENO);
    close(STDERR_FILENO);
    fdn_log(&log, FDN_LOG_ERROR, "event", "detail");
    dup2(stderr_before, STDERR_FILENO);
}
END_TEST

/* A stranger's line ends and escapes do not make lines or colours of their own. */
START_TEST(one_plain_line)
{
    struct fdn_log log = {.least = FDN_LOG_INFO};
    char got[4096] = "";
    int stderr_before = dup(STDERR_FILENO);
    dup2(ends[1], STDERR_FILENO);
    fdn_log(&log, FDN_LOG_DEBUG, "quiet", "below the least level");
    fdn_log(&log, FDN_LOG_ERROR, "event", "a\nb\033[1mc\177");
    dup2(stderr_before, STDERR_FILENO);
    ck_assert_int_gt(read(ends[0], got, sizeof got - 1), 0);
    ck_assert(strstr(got, " error event a b [1mc \n"));
    ck_assert(!strstr(got, "quiet"));
}
END_TEST

int main(void)
{
    Suite *s = suite_create("log");
    TCase *t = tcase_create("log");
    tcase_add_checked_fixture(t, setup, NULL);
    tcase_add_test(t, nobody_reads_stderr);
    tcase_add_test(t, stderr_is_closed);
    tcase_add_test(t, one_plain_line);
    suite_add_tcase(s, t);
    return support_run(s);
}
