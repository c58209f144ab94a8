/*
 * loop.h - one thread, poll and timers.
 *
 * Timers are a binary heap; each knows its place in it, so setting, moving and cancelling cost a few steps. Input is always handled
 * before timers: after a pause of ours, an answer that lies in the socket is seen before its deadline is judged.
 */
#ifndef FDN_LOOP_H
#define FDN_LOOP_H

#include <poll.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct fdn_loop;
struct fdn_timer;
struct fdn_io;

typedef void fdn_timer_fn(struct fdn_timer *t, void *arg);
typedef void fdn_io_fn(struct fdn_io *io, short revents, void *arg);

struct fdn_timer {
    uint64_t due_ms;
    size_t place; /* in the heap, from 1; 0 = not set */
    fdn_timer_fn *fn;
    void *arg;
};

/* A file descriptor of interest. Owned by the caller, who removes it before closing the descriptor. */
struct fdn_io {
    int fd;
    short events;
    size_t place; /* from 1; 0 = not in the loop */
    fdn_io_fn *fn;
    void *arg;
};

struct fdn_loop {
    struct fdn_timer **heap;
    size_t timers, heap_cap;
    struct fdn_io **ios;
    struct pollfd *fds;
    size_t io_count, io_cap;
    uint64_t now_ms; /* monotonic; refreshed after each wait */
    bool stop;
    uint64_t stall_ms; /* a pause of ours longer than this calls on_stall; 0 = never */
    void (*on_stall)(uint64_t paused_ms, void *arg);
    void *stall_arg;
};

void fdn_loop_init(struct fdn_loop *loop);
void fdn_loop_free(struct fdn_loop *loop);
uint64_t fdn_loop_clock(void);

/* False where memory ran out. An io or timer that is already in is moved. */
bool fdn_loop_add(struct fdn_loop *loop, struct fdn_io *io, int fd, short events, fdn_io_fn *fn, void *arg);
void fdn_loop_events(struct fdn_loop *loop, struct fdn_io *io, short events);
void fdn_loop_remove(struct fdn_loop *loop, struct fdn_io *io);

bool fdn_loop_at(struct fdn_loop *loop, struct fdn_timer *t, uint64_t due_ms, fdn_timer_fn *fn, void *arg);
void fdn_loop_cancel(struct fdn_loop *loop, struct fdn_timer *t);

/* Until loop->stop. Returns 0, or an errno of poll. */
int fdn_loop_run(struct fdn_loop *loop);

#endif
