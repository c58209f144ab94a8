/* Timers in order whatever is set, moved and cancelled; descriptors that come and go while they are served. */
#include <check.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "c_node/loop.h"
#include "test/c/support.h"

#define MANY 500

struct seen {
    struct fdn_loop *loop;
    uint64_t order[MANY];
    size_t n, stop_at;
};

static void note(struct fdn_timer *t, void *arg)
{
    struct seen *s = arg;
    s->order[s->n++] = t->due_ms;
    if (s->n == s->stop_at)
        s->loop->stop = true;
}

/* All in the past, so that the clock decides nothing: they must come by their due times. */
START_TEST(timers_in_order)
{
    unsigned seed = (unsigned)_i;
    struct fdn_loop loop;
    struct fdn_timer timers[MANY];
    struct seen s = {.loop = &loop};
    fdn_loop_init(&loop);
    memset(timers, 0, sizeof timers);
    for (int i = 0; i < 3 * MANY; i++) {
        struct fdn_timer *t = &timers[(unsigned)rand_r(&seed) % MANY];
        if (rand_r(&seed) % 4 == 0)
            fdn_loop_cancel(&loop, t);
        else
            ck_assert(fdn_loop_at(&loop, t, (uint64_t)rand_r(&seed) % 300, note, &s));
    }
    for (int i = 0; i < MANY; i++)
        s.stop_at += timers[i].place != 0;
    ck_assert_uint_eq(loop.timers, s.stop_at);
    ck_assert_int_eq(fdn_loop_run(&loop), 0);
    ck_assert_uint_eq(s.n, s.stop_at);
    for (size_t i = 1; i < s.n; i++)
        ck_assert_uint_le(s.order[i - 1], s.order[i]);
    fdn_loop_free(&loop);
}
END_TEST

struct pipes {
    struct fdn_loop *loop;
    int fds[8][2];
    struct fdn_io io[8];
    int served[8];
};

/* The first one served removes half of the others, itself included. */
static void serve(struct fdn_io *io, short revents, void *arg)
{
    struct pipes *p = arg;
    char c;
    int i = (int)(io - p->io);
    p->served[i]++;
    ck_assert_int_eq(read(p->fds[i][0], &c, 1), 1);
    if (i % 2 == 0)
        for (int j = 0; j < 8; j += 2)
            fdn_loop_remove(p->loop, &p->io[j]);
    if (p->loop->io_count == 4 && p->served[1] && p->served[3] && p->served[5] && p->served[7])
        p->loop->stop = true;
}

START_TEST(descriptors_come_and_go)
{
    struct fdn_loop loop;
    struct pipes p = {.loop = &loop};
    fdn_loop_init(&loop);
    for (int i = 0; i < 8; i++) {
        ck_assert_int_eq(pipe(p.fds[i]), 0);
        ck_assert(fdn_loop_add(&loop, &p.io[i], p.fds[i][0], POLLIN, serve, &p));
        ck_assert_int_eq(write(p.fds[i][1], "x", 1), 1);
    }
    ck_assert_int_eq(fdn_loop_run(&loop), 0);
    ck_assert_int_eq(p.served[0] + p.served[2] + p.served[4] + p.served[6], 1);
    for (int i = 1; i < 8; i += 2)
        ck_assert_int_eq(p.served[i], 1);
    for (int i = 0; i < 8; i++) {
        close(p.fds[i][0]);
        close(p.fds[i][1]);
    }
    fdn_loop_free(&loop);
}
END_TEST

static void late(struct fdn_timer *t, void *arg)
{
    struct pipes *p = arg;
    ck_assert_int_eq(p->served[1], 1);
    p->loop->stop = true;
}

static void serve_one(struct fdn_io *io, short revents, void *arg)
{
    ((struct pipes *)arg)->served[1]++;
    fdn_loop_remove(((struct pipes *)arg)->loop, io);
}

/* What lies in a socket is seen before a deadline that has passed meanwhile. */
START_TEST(input_before_timers)
{
    struct fdn_loop loop;
    struct pipes p = {.loop = &loop};
    struct fdn_timer t = {0};
    fdn_loop_init(&loop);
    ck_assert_int_eq(pipe(p.fds[0]), 0);
    ck_assert(fdn_loop_add(&loop, &p.io[0], p.fds[0][0], POLLIN, serve_one, &p));
    ck_assert_int_eq(write(p.fds[0][1], "x", 1), 1);
    ck_assert(fdn_loop_at(&loop, &t, 0, late, &p));
    ck_assert_int_eq(fdn_loop_run(&loop), 0);
    close(p.fds[0][0]);
    close(p.fds[0][1]);
    fdn_loop_free(&loop);
}
END_TEST

static void again(struct fdn_timer *t, void *arg)
{
    struct fdn_loop *loop = arg;
    ck_assert(fdn_loop_at(loop, t, loop->now_ms + 5, again, loop));
}

static void stalled(uint64_t paused_ms, void *arg)
{
    struct fdn_loop *loop = arg;
    if (paused_ms >= 150)
        loop->stop = true;
}

/* A process that was stopped knows it afterwards. */
START_TEST(own_pause_is_noticed)
{
    struct fdn_loop loop;
    struct fdn_timer t = {0};
    fdn_loop_init(&loop);
    loop.stall_ms = 20;
    loop.on_stall = stalled;
    loop.stall_arg = &loop;
    again(&t, &loop);
    pid_t us = getpid();
    pid_t child = fork();
    if (child == 0) {
        kill(us, SIGSTOP);
        usleep(300000);
        kill(us, SIGCONT);
        _exit(0);
    }
    ck_assert_int_eq(fdn_loop_run(&loop), 0);
    waitpid(child, NULL, 0);
    fdn_loop_free(&loop);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("loop");
    TCase *t = tcase_create("loop");
    tcase_add_loop_test(t, timers_in_order, 0, 20);
    tcase_add_test(t, descriptors_come_and_go);
    tcase_add_test(t, input_before_timers);
    tcase_add_test(t, own_pause_is_noticed);
    suite_add_tcase(s, t);
    return support_run(s);
}
