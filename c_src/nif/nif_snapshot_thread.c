/* The maintenance thread: one for all stores. Durability by interval, writing back, compaction. */
#include <time.h>

#include "base/fdn_clock.h"
#include "nif/nif_snapshot.h"

#define COPY_BUDGET ((size_t)1 << 20)
#define IDLE_MS 200 /* how long a store that nobody kicks waits to be looked at */
#define SHORTEST_MS 1
#define ASLEEP_MS 3600000 /* no store: opening one kicks */

/* The n-th store, counted; NULL behind the last. */
static snap *nth(snap_state *state, size_t n)
{
    enif_rwlock_rlock(state->lock);
    snap *s = n < state->count ? state->stores[n] : NULL;
    if (s)
        enif_keep_resource(s);
    enif_rwlock_runlock(state->lock);
    return s;
}

static bool stopping(snap_state *state)
{
    pthread_mutex_lock(&state->wake_lock);
    bool stop = state->stop;
    pthread_mutex_unlock(&state->wake_lock);
    return stop;
}

/* One look at one store. Returns in how many milliseconds it wants the next one. Errors are the store's: it says so itself. */
static uint64_t serve(snap *s)
{
    uint64_t wait_ms = IDLE_MS;
    bool more = false;
    if (s->durability == FDN_STORE_INTERVAL) {
        uint64_t now = fdn_clock_mono_ns(), due = s->synced_at + s->interval_ns;
        if (now >= due) {
            (void)fdn_store_sync(s->store);
            s->synced_at = now;
            due = now + s->interval_ns;
        }
        uint64_t until = (due - now) / FDN_NS_PER_MS + 1;
        wait_ms = until < wait_ms ? until : wait_ms;
    }
    if (fdn_store_maintain(s->store, COPY_BUDGET, &more) == 0 && more)
        wait_ms = SHORTEST_MS;
    return wait_ms;
}

/* Until kicked, stopped, or the time is over. */
static void rest(snap_state *state, uint64_t ms)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    uint64_t ns = (uint64_t)until.tv_nsec + ms * FDN_NS_PER_MS;
    until.tv_sec += (time_t)(ns / FDN_NS_PER_S);
    until.tv_nsec = (long)(ns % FDN_NS_PER_S);
    pthread_mutex_lock(&state->wake_lock);
    while (!state->stop && !state->kicked && pthread_cond_timedwait(&state->wake, &state->wake_lock, &until) == 0)
        ;
    state->kicked = false;
    pthread_mutex_unlock(&state->wake_lock);
}

static void *maintain(void *arg)
{
    snap_state *state = arg;
    while (!stopping(state)) {
        uint64_t wait_ms = IDLE_MS, started = fdn_clock_mono_ns();
        size_t n = 0;
        for (snap *s; !stopping(state) && (s = nth(state, n)) != NULL; n++) {
            uint64_t want = serve(s);
            wait_ms = want < wait_ms ? want : wait_ms;
            enif_release_resource(s);
        }
        /* At least as long a pause as the work took: half of one core and of one disk at most. */
        uint64_t spent_ms = (fdn_clock_mono_ns() - started) / FDN_NS_PER_MS;
        if (n == 0)
            wait_ms = ASLEEP_MS;
        rest(state, wait_ms > spent_ms ? wait_ms : spent_ms);
    }
    return NULL;
}

static void tell(snap_state *state, bool *what, bool value)
{
    pthread_mutex_lock(&state->wake_lock);
    *what = value;
    pthread_cond_signal(&state->wake);
    pthread_mutex_unlock(&state->wake_lock);
}

void snap_kick(snap_state *state)
{
    tell(state, &state->kicked, true);
}

int snap_thread_start(snap_state *state)
{
    tell(state, &state->stop, false);
    return enif_thread_create("foundation_snapshot", &state->thread, maintain, state, NULL);
}

void snap_thread_stop(snap_state *state)
{
    void *result;
    tell(state, &state->stop, true);
    enif_thread_join(state->thread, &result);
}
