/* Host names: the machine's own name always leads somewhere, also where no name service knows it. */
#include <arpa/inet.h>
#include <check.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "c_node/loop.h"
#include "c_node/resolve.h"
#include "test/c/support.h"

static struct fdn_resolved answer;
static struct fdn_loop loop;

static void on_answer(const struct fdn_resolved *result)
{
    answer = *result;
    loop.stop = true;
}

static void look_up(const char *host)
{
    struct fdn_resolver r;
    fdn_loop_init(&loop);
    ck_assert_int_eq(fdn_resolver_init(&r, &loop, on_answer), 0);
    ck_assert_int_eq(fdn_resolver_start(&r, host, &loop, 7), 0);
    ck_assert_int_eq(fdn_loop_run(&loop), 0);
    ck_assert_ptr_eq(answer.owner, &loop);
    ck_assert_uint_eq(answer.ticket, 7);
    fdn_resolver_free(&r, &loop);
    fdn_loop_free(&loop);
}

START_TEST(localhost_is_local)
{
    look_up("localhost");
    ck_assert_int_eq(answer.error, 0);
    ck_assert(answer.local);
}
END_TEST

START_TEST(a_name_that_nobody_knows)
{
    look_up("fdn-nowhere.invalid");
    ck_assert_int_ne(answer.error, 0);
}
END_TEST

/* In a host name of this process's own, which needs root; without it the machine's name has to do. */
START_TEST(own_name_without_a_name_service)
{
    char own[256] = "fdn-nowhere.invalid";
    if (unshare(CLONE_NEWUTS) != 0 || sethostname(own, strlen(own)) != 0)
        ck_assert_int_eq(gethostname(own, sizeof own), 0);
    look_up(own);
    ck_assert_int_eq(answer.error, 0);
    ck_assert(answer.local);
    own[strcspn(own, ".")] = '\0';
    look_up(own);
    ck_assert_int_eq(answer.error, 0);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("resolve");
    TCase *t = tcase_create("resolve");
    tcase_set_timeout(t, 60); /* a name server may take its time to say no */
    tcase_add_test(t, localhost_is_local);
    tcase_add_test(t, a_name_that_nobody_knows);
    tcase_add_test(t, own_name_without_a_name_service);
    suite_add_tcase(s, t);
    return support_run(s);
}
