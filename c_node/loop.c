#include "c_node/loop.h"

#include <errno.h>
#include <string.h>

#include "base/fdn_alloc.h"
#include "base/fdn_clock.h"

#define LONGEST_WAIT_MS 60000

uint64_t fdn_loop_clock(void)
{
    return fdn_clock_mono_ns() / FDN_NS_PER_MS;
}

void fdn_loop_init(struct fdn_loop *loop)
{
    memset(loop, 0, sizeof *loop);
    loop->now_ms = fdn_loop_clock();
}

void fdn_loop_free(struct fdn_loop *loop)
{
    fdn_free(loop->heap);
    fdn_free(loop->ios);
    fdn_free(loop->fds);
    memset(loop, 0, sizeof *loop);
}

/* ---- descriptors ---- */

bool fdn_loop_add(struct fdn_loop *loop, struct fdn_io *io, int fd, short events, fdn_io_fn *fn, void *arg)
{
    fdn_loop_remove(loop, io);
    if (loop->io_count == loop->io_cap) {
        size_t cap = loop->io_cap ? loop->io_cap * 2 : 16;
        struct fdn_io **ios = fdn_realloc(loop->ios, cap * sizeof *ios);
        if (!ios)
            return false;
        loop->ios = ios;
        struct pollfd *fds = fdn_realloc(loop->fds, cap * sizeof *fds);
        if (!fds)
            return false;
        loop->fds = fds;
        loop->io_cap = cap;
    }
    *io = (struct fdn_io){.fd = fd, .events = events, .fn = fn, .arg = arg, .place = loop->io_count + 1};
    loop->fds[loop->io_count] = (struct pollfd){.fd = fd, .events = events};
    loop->ios[loop->io_count++] = io;
    return true;
}

void fdn_loop_events(struct fdn_loop *loop, struct fdn_io *io, short events)
{
    if (io->place) {
        io->events = events;
        loop->fds[io->place - 1].events = events;
    }
}

void fdn_loop_remove(struct fdn_loop *loop, struct fdn_io *io)
{
    if (!io->place)
        return;
    size_t i = io->place - 1, last = --loop->io_count;
    loop->ios[i] = loop->ios[last];
    loop->fds[i] = loop->fds[last];
    loop->ios[i]->place = i + 1;
    io->place = 0;
}

/* ---- timers: heap[1] is the earliest ---- */

static void put(struct fdn_loop *loop, size_t i, struct fdn_timer *t)
{
    loop->heap[i] = t;
    t->place = i;
}

static void sift(struct fdn_loop *loop, size_t i, struct fdn_timer *t)
{
    while (i > 1 && loop->heap[i / 2]->due_ms > t->due_ms) {
        put(loop, i, loop->heap[i / 2]);
        i /= 2;
    }
    for (size_t c = 2 * i; c <= loop->timers; c = 2 * i) {
        if (c < loop->timers && loop->heap[c + 1]->due_ms < loop->heap[c]->due_ms)
            c++;
        if (loop->heap[c]->due_ms >= t->due_ms)
            break;
        put(loop, i, loop->heap[c]);
        i = c;
    }
    put(loop, i, t);
}

bool fdn_loop_at(struct fdn_loop *loop, struct fdn_timer *t, uint64_t due_ms, fdn_timer_fn *fn, void *arg)
{
    t->fn = fn;
    t->arg = arg;
    t->due_ms = due_ms;
    if (t->place) {
        sift(loop, t->place, t);
        return true;
    }
    if (loop->timers + 1 >= loop->heap_cap) {
        size_t cap = loop->heap_cap ? loop->heap_cap * 2 : 64;
        struct fdn_timer **heap = fdn_realloc(loop->heap, cap * sizeof *heap);
        if (!heap)
            return false;
        loop->heap = heap;
        loop->heap_cap = cap;
    }
    sift(loop, ++loop->timers, t);
    return true;
}

void fdn_loop_cancel(struct fdn_loop *loop, struct fdn_timer *t)
{
    if (!t->place)
        return;
    size_t i = t->place;
    struct fdn_timer *last = loop->heap[loop->timers--];
    t->place = 0;
    if (last != t)
        sift(loop, i, last);
}

/* ---- running ---- */

static void run_ios(struct fdn_loop *loop, int ready)
{
    /* Handlers add and remove entries, which moves others: an entry moved to the front is met in the next round, poll is
     * level-triggered. */
    for (size_t i = 0; i < loop->io_count && ready > 0; i++) {
        short revents = loop->fds[i].revents;
        if (revents) {
            loop->fds[i].revents = 0;
            ready--;
            loop->ios[i]->fn(loop->ios[i], revents, loop->ios[i]->arg);
        }
    }
}

static void run_timers(struct fdn_loop *loop)
{
    /* Only what is due now: a handler that sets itself again for now is met in the next round, after input. */
    uint64_t now = loop->now_ms;
    for (size_t limit = loop->timers; limit > 0 && loop->timers > 0 && loop->heap[1]->due_ms <= now && !loop->stop; limit--) {
        struct fdn_timer *t = loop->heap[1];
        fdn_loop_cancel(loop, t);
        t->fn(t, t->arg);
    }
}

int fdn_loop_run(struct fdn_loop *loop)
{
    while (!loop->stop) {
        uint64_t due = UINT64_MAX;
        int wait = -1;
        if (loop->timers > 0) {
            uint64_t now = fdn_loop_clock();
            due = loop->heap[1]->due_ms;
            wait = due <= now ? 0 : due - now > LONGEST_WAIT_MS ? LONGEST_WAIT_MS : (int)(due - now);
        }
        int ready = poll(loop->fds, loop->io_count, wait);
        if (ready < 0 && errno != EINTR)
            return errno;
        /* Back later than the next timer wanted, or than the last look at the clock: wherever in the round we stood still. */
        uint64_t base = due > loop->now_ms ? due : loop->now_ms;
        loop->now_ms = fdn_loop_clock();
        bool stalled = loop->stall_ms && due != UINT64_MAX && loop->now_ms > base && loop->now_ms - base > loop->stall_ms;
        if (ready > 0)
            run_ios(loop, ready);
        if (stalled && loop->on_stall)
            loop->on_stall(loop->now_ms - base, loop->stall_arg);
        run_timers(loop);
    }
    return 0;
}
