/*
 * Threads against the limiter, for TSan and for what it promises: never more admissions than the sequential algorithm gives, with
 * insertion races, recycled slots, a flood that evicts, resets, debits that are given back, charges, leases, and limiters that are
 * deleted while threads are inside them.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fdn_error.h"
#include "base/fdn_hash.h"
#include "engine/limiter_lease.h"
#include "engine/limiter_names.h"

#define THREADS 4

static void fail(const char *what, uint64_t got, uint64_t want)
{
    fprintf(stderr, "stress_limiter: %s: %llu, not %llu\n", what, (unsigned long long)got, (unsigned long long)want);
    exit(1);
}

static uint64_t hash_of(uint64_t key)
{
    return fdn_hash_check(&key, sizeof key, 11);
}

static fdn_limiter *table(fdn_limiter_config config)
{
    fdn_limiter *t;
    fdn_limiter_fit fit;
    if (fdn_limiter_create(&config, &t, &fit) != 0)
        fail("create", fit, 0);
    return t;
}

static uint64_t next_random(uint64_t *seed)
{
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    return *seed;
}

typedef struct {
    fdn_limiter *t;
    fdn_limiters *names;
    _Atomic uint64_t handle;
    pthread_barrier_t start;
    _Atomic uint64_t *allowed; /* a key */
    _Atomic uint64_t *granted; /* a key */
    uint64_t keys, hits, cost;
    _Atomic uint64_t ready, done;  /* how many are under way; whether to stop */
    _Atomic uint64_t begun, ended; /* the clock's ticks */
} shared;

typedef struct {
    shared *s;
    unsigned lane;
    uint64_t seed;
} self;

static void run(shared *s, void *(*body)(void *), unsigned threads)
{
    pthread_t ids[THREADS];
    self selves[THREADS];
    pthread_barrier_init(&s->start, NULL, threads);
    atomic_store(&s->done, 0);
    for (unsigned i = 0; i < threads; i++) {
        /* The last one goes without a lane of its own. */
        selves[i] = (self){s, i + 1 == threads ? 0 : i + 1, 0x9e3779b97f4a7c15ULL * (i + 1)};
        pthread_create(&ids[i], NULL, body, &selves[i]);
    }
    for (unsigned i = 0; i < threads; i++)
        pthread_join(ids[i], NULL);
    pthread_barrier_destroy(&s->start);
}

/* ---- few keys, and fresh keys ---------------------------------------------------------------------------------------------------- */

static void *hit_every_key(void *arg)
{
    self *me = arg;
    shared *s = me->s;
    pthread_barrier_wait(&s->start);
    for (uint64_t k = 0; k < s->keys; k++) {
        for (uint64_t i = 0; i < s->hits; i++) {
            if (fdn_limiter_hit(s->t, me->lane, fdn_limiter_preset(s->t), hash_of(k), s->cost).allowed)
                atomic_fetch_add(&s->allowed[k], s->cost);
        }
    }
    return NULL;
}

static void contend(uint32_t algorithm, uint64_t keys, uint64_t limit, uint64_t cost)
{
    shared s = {.keys = keys, .hits = limit / cost + 2, .cost = cost, .allowed = calloc(keys, sizeof(_Atomic uint64_t))};
    s.t = table((fdn_limiter_config){.algorithm = algorithm,
                                     .on_full = FDN_LIMITER_DENY,
                                     .clock = FDN_LIMITER_MANUAL,
                                     .limit = limit,
                                     .period_ms = 1000,
                                     .burst = limit,
                                     .capacity = 4 * keys});
    run(&s, hit_every_key, THREADS);
    uint64_t sum = 0;
    for (uint64_t k = 0; k < keys; k++) {
        if (s.allowed[k] != limit / cost * cost)
            fail("admitted of one key", s.allowed[k], limit / cost * cost);
        sum += s.allowed[k] / cost;
    }
    fdn_limiter_stats stats;
    fdn_limiter_stats_of(s.t, &stats);
    if (stats.live != keys)
        fail("live keys", stats.live, keys);
    if (stats.allowed != sum)
        fail("counted as allowed", stats.allowed, sum);
    if (stats.allowed + stats.denied != keys * s.hits * THREADS)
        fail("counted in all", stats.allowed + stats.denied, keys * s.hits * THREADS);
    fdn_limiter_destroy(s.t);
    free(s.allowed);
}

/* ---- slots that are recycled all the time ---------------------------------------------------------------------------------------- */

#define TICKS 500

/*
 * One thread moves the clock by a whole period a tick, so that every slot is free again; the others hit more keys than there are slots.
 * A hit whose tick is known for sure, because the clock did not move meanwhile, counts for that tick.
 */
static void *recycle(void *arg)
{
    self *me = arg;
    shared *s = me->s;
    pthread_barrier_wait(&s->start);
    if (me->lane == 1) {
        for (uint64_t i = 1; i < TICKS; i++) {
            while (atomic_load(&s->ready) < i * s->hits)
                ;
            atomic_store(&s->begun, i);
            fdn_limiter_advance(s->t, 1);
            atomic_store(&s->ended, i);
        }
        atomic_store(&s->done, 1);
        return NULL;
    }
    while (atomic_load(&s->done) == 0) {
        uint64_t k = next_random(&me->seed) % s->keys, tick = atomic_load(&s->ended);
        bool allowed = fdn_limiter_hit(s->t, me->lane, fdn_limiter_preset(s->t), hash_of(k), 1).allowed;
        if (allowed && atomic_load(&s->begun) == tick)
            atomic_fetch_add(&s->allowed[tick * s->keys + k], 1);
        if (atomic_fetch_add(&s->ready, 1) % 16 == 0) /* a key that nobody hits */
            fdn_limiter_reset(s->t, 2, hash_of(k));
    }
    return NULL;
}

static void churn(uint32_t algorithm, uint64_t keys, uint64_t limit)
{
    shared s = {.keys = keys, .hits = 2 * keys * limit, .allowed = calloc(keys * TICKS, sizeof(_Atomic uint64_t))};
    s.t = table((fdn_limiter_config){.algorithm = algorithm,
                                     .on_full = FDN_LIMITER_DENY,
                                     .clock = FDN_LIMITER_MANUAL,
                                     .limit = limit,
                                     .period_ms = 1,
                                     .burst = limit,
                                     .capacity = 1});
    run(&s, recycle, THREADS);
    uint64_t counted = 0;
    for (uint64_t i = 0; i < keys * TICKS; i++) {
        if (s.allowed[i] > limit)
            fail("admitted of one key in one window", s.allowed[i], limit);
        counted += s.allowed[i];
    }
    if (counted == 0)
        fail("hits whose tick is known", 0, TICKS);
    fdn_limiter_destroy(s.t);
    free(s.allowed);
}

/* ---- a flood, and a key that was there before ------------------------------------------------------------------------------------ */

static void *flood(void *arg)
{
    self *me = arg;
    shared *s = me->s;
    pthread_barrier_wait(&s->start);
    for (uint64_t i = 0; i < s->hits; i++) {
        fdn_limiter_hit(s->t, me->lane, fdn_limiter_preset(s->t), hash_of(next_random(&me->seed)), 1);
        if (i % 8 == 0 && fdn_limiter_hit(s->t, me->lane, fdn_limiter_preset(s->t), hash_of(0), 1).allowed)
            atomic_fetch_add(&s->allowed[0], 1);
    }
    return NULL;
}

static void evict(uint32_t algorithm)
{
    _Atomic uint64_t allowed = 0;
    shared s = {.hits = 8000, .allowed = &allowed};
    s.t = table((fdn_limiter_config){.algorithm = algorithm,
                                     .on_full = FDN_LIMITER_EVICT,
                                     .clock = FDN_LIMITER_MANUAL,
                                     .limit = 1000,
                                     .period_ms = 1000000,
                                     .burst = 1000,
                                     .capacity = 100});
    for (; allowed < 10; allowed++)
        fdn_limiter_hit(s.t, 1, fdn_limiter_preset(s.t), hash_of(0), 1);
    run(&s, flood, THREADS);
    if (allowed != 1000)
        fail("admitted of the busy key under a flood", allowed, 1000);
    fdn_limiter_destroy(s.t);
}

/* ---- debits given back, charges, leases ------------------------------------------------------------------------------------------ */

#define HELD 4

/* Takes and gives back, and hits that stay. What each key may have been given in all is counted before the table is asked. */
static void *take_and_give_back(void *arg)
{
    self *me = arg;
    shared *s = me->s;
    const fdn_limiter_rule *rule = fdn_limiter_preset(s->t);
    fdn_limiter_debit held[HELD];
    uint64_t key[HELD], n = 0;
    pthread_barrier_wait(&s->start);
    for (uint64_t i = 0; i < s->hits || n != 0; i++) {
        uint64_t k = next_random(&me->seed) % s->keys, what = next_random(&me->seed) % 4;
        if (i >= s->hits || (n == HELD || (n != 0 && what == 0))) {
            uint64_t at = next_random(&me->seed) % n;
            /* Given back entirely, as the clock stands still. */
            if (!fdn_limiter_give_back(s->t, &held[at]))
                fail("given back", 0, 1);
            atomic_fetch_sub(&s->allowed[key[at]], s->cost);
            held[at] = held[--n];
            key[at] = key[n];
        } else if (what == 1) {
            if (fdn_limiter_hit(s->t, me->lane, rule, hash_of(k), s->cost).allowed)
                atomic_fetch_add(&s->allowed[k], s->cost);
        } else if (fdn_limiter_take(s->t, me->lane, rule, hash_of(k), s->cost, &held[n]).allowed) {
            atomic_fetch_add(&s->allowed[k], s->cost);
            key[n++] = k;
        }
    }
    return NULL;
}

static void undo(uint32_t algorithm, uint64_t keys, uint64_t limit)
{
    shared s = {.keys = keys, .hits = 8000, .cost = 3, .allowed = calloc(keys, sizeof(_Atomic uint64_t))};
    s.t = table((fdn_limiter_config){.algorithm = algorithm,
                                     .on_full = FDN_LIMITER_DENY,
                                     .clock = FDN_LIMITER_MANUAL,
                                     .limit = limit,
                                     .period_ms = 1000,
                                     .burst = limit,
                                     .capacity = 4 * keys});
    run(&s, take_and_give_back, THREADS);
    for (uint64_t k = 0; k < keys; k++) {
        if (s.allowed[k] > limit)
            fail("admitted of one key, less what was given back", s.allowed[k], limit);
        uint64_t used = fdn_limiter_used(s.t, fdn_limiter_preset(s.t), hash_of(k));
        if (used != s.allowed[k])
            fail("count of a key", used, s.allowed[k]);
    }
    fdn_limiter_destroy(s.t);
    free(s.allowed);
}

/*
 * The same while time goes on, by gcra: debits are held for a while, in which others are admitted and time gives budget back. What was
 * admitted in all, and not given back, is never more than a burst and what time gave.
 */
static void *undo_in_time(void *arg)
{
    self *me = arg;
    shared *s = me->s;
    const fdn_limiter_rule *rule = fdn_limiter_preset(s->t);
    fdn_limiter_debit held[HELD];
    memset(held, 0, sizeof held); /* empty ones give nothing back */
    pthread_barrier_wait(&s->start);
    for (uint64_t i = 0; i < s->hits; i++) {
        fdn_limiter_debit *d = &held[i % HELD];
        fdn_limiter_give_back(s->t, d);
        fdn_limiter_take(s->t, me->lane, rule, hash_of(0), 1, d);
        for (int j = 0; j < 3; j++) {
            if (fdn_limiter_hit(s->t, me->lane, rule, hash_of(0), 1).allowed)
                atomic_fetch_add(&s->allowed[0], 1);
        }
        if (me->lane == 1)
            fdn_limiter_advance(s->t, 1);
    }
    for (int i = 0; i < HELD; i++)
        fdn_limiter_give_back(s->t, &held[i]);
    return NULL;
}

static void undo_by_gcra(uint64_t burst)
{
    _Atomic uint64_t allowed = 0;
    fdn_limiter_stats stats;
    shared s = {.hits = 8000, .allowed = &allowed};
    s.t = table((fdn_limiter_config){.algorithm = FDN_LIMITER_GCRA,
                                     .on_full = FDN_LIMITER_DENY,
                                     .clock = FDN_LIMITER_MANUAL,
                                     .limit = 2,
                                     .period_ms = 1,
                                     .burst = burst,
                                     .capacity = 10});
    run(&s, undo_in_time, THREADS);
    fdn_limiter_stats_of(s.t, &stats);
    if (allowed > burst + 2 * stats.now_ms)
        fail("admitted of one key by gcra, in all", allowed, burst + 2 * stats.now_ms);
    if (allowed == 0)
        fail("admitted of one key by gcra", 0, 1);
    fdn_limiter_destroy(s.t);
}

/* Charges and reservations, of which none is lost. */
static void *charge(void *arg)
{
    self *me = arg;
    shared *s = me->s;
    const fdn_limiter_rule *rule = fdn_limiter_preset(s->t);
    fdn_limiter_debit debit;
    pthread_barrier_wait(&s->start);
    for (uint64_t i = 0; i < s->hits; i++) {
        uint64_t k = i / 16 % s->keys;
        if (fdn_limiter_config_of(s->t)->algorithm == FDN_LIMITER_GCRA && i % 2) {
            if (!fdn_limiter_reserve(s->t, me->lane, rule, hash_of(k), 1, UINT64_MAX, &debit).allowed)
                fail("reserved", 0, 1);
        } else if (fdn_limiter_charge(s->t, rule, hash_of(k), 1) == 0) {
            fail("charged", 0, 1);
        }
    }
    return NULL;
}

static void charge_all(uint32_t algorithm)
{
    shared s = {.hits = 6400, .keys = 20};
    s.t = table((fdn_limiter_config){.algorithm = algorithm,
                                     .on_full = FDN_LIMITER_DENY,
                                     .clock = FDN_LIMITER_MANUAL,
                                     .limit = 10,
                                     .period_ms = 3600000,
                                     .burst = 10,
                                     .capacity = 100});
    run(&s, charge, THREADS);
    for (uint64_t k = 0; k < s.keys; k++) {
        uint64_t used = fdn_limiter_used(s.t, fdn_limiter_preset(s.t), hash_of(k));
        if (used != s.hits / s.keys * THREADS)
            fail("charged to a key", used, s.hits / s.keys * THREADS);
    }
    fdn_limiter_destroy(s.t);
}

/* Leases granted, used and evicted all the time, of equal words, so that a slot's next key often comes to the same state. */
static void *lease(void *arg)
{
    self *me = arg;
    shared *s = me->s;
    const fdn_limiter_rule *rule = fdn_limiter_preset(s->t);
    pthread_barrier_wait(&s->start);
    for (uint64_t i = 0; i < s->hits; i++) {
        uint64_t k = next_random(&me->seed) % s->keys;
        fdn_limiter_debit debit;
        if (i % 3 == 0) {
            atomic_fetch_add(&s->granted[k], 2);
            fdn_limiter_grant(s->t, rule, hash_of(k), 2, 1000, i % 2);
        } else if (fdn_limiter_take(s->t, me->lane, rule, hash_of(k), 1, &debit).allowed) {
            if (i % 3 == 1)
                fdn_limiter_give_back(s->t, &debit);
            else
                atomic_fetch_add(&s->allowed[k], 1);
        }
    }
    return NULL;
}

static void leases(uint64_t keys)
{
    shared s = {.keys = keys, .hits = 8000, .allowed = calloc(keys, sizeof(_Atomic uint64_t))};
    uint64_t sum = 0;
    s.granted = calloc(keys, sizeof(_Atomic uint64_t));
    s.t = table((fdn_limiter_config){.algorithm = FDN_LIMITER_LEASE,
                                     .on_full = FDN_LIMITER_EVICT,
                                     .clock = FDN_LIMITER_MANUAL,
                                     .limit = 1,
                                     .period_ms = 1000,
                                     .burst = 1,
                                     .capacity = 1});
    run(&s, lease, THREADS);
    for (uint64_t k = 0; k < keys; k++) {
        if (s.allowed[k] > s.granted[k])
            fail("admitted by a key's leases", s.allowed[k], s.granted[k]);
        sum += s.allowed[k];
    }
    if (sum == 0)
        fail("admitted by leases", 0, 1);
    fdn_limiter_destroy(s.t);
    free(s.allowed);
    free(s.granted);
}

/* ---- deletion while threads are inside ------------------------------------------------------------------------------------------- */

#define NAME_A 1000
#define NAME_B 2000

/* Each name's limiters have a limit of their own, so a hit that ends in the wrong table shows. */
static const uint64_t limit_of[2] = {3, 77};

static void *use_names(void *arg)
{
    self *me = arg;
    shared *s = me->s;
    uint64_t entered = 0, i;
    pthread_barrier_wait(&s->start);
    for (i = 0; atomic_load(&s->done) == 0; i++) {
        unsigned which = i % 2;
        bool by_handle = i % 3 == 0;
        fdn_limiter *t = by_handle ? fdn_limiters_enter_handle(s->names, me->lane, atomic_load(&s->handle))
                                   : fdn_limiters_enter(s->names, me->lane, which ? NAME_B : NAME_A);
        if (t == NULL)
            continue;
        uint64_t limit = fdn_limiter_config_of(t)->limit;
        if (!by_handle && limit != limit_of[which])
            fail("entered by name: limit", limit, limit_of[which]);
        fdn_limiter_hit(t, me->lane, fdn_limiter_preset(t), hash_of(next_random(&me->seed) % 50), 1);
        fdn_limiters_leave(s->names, me->lane);
        if (++entered == 1)
            atomic_fetch_add(&s->ready, 1);
    }
    return NULL;
}

static void *change_names(void *arg)
{
    self *me = arg;
    shared *s = me->s;
    uint64_t handles[2] = {0, 0};
    pthread_barrier_wait(&s->start);
    for (uint64_t i = 0; i < s->hits || atomic_load(&s->ready) < THREADS - 1; i++) {
        unsigned which = next_random(&me->seed) % 2;
        if (handles[which] != 0) {
            if (fdn_limiters_remove(s->names, handles[which]) != 0)
                fail("remove", 1, 0);
            handles[which] = 0;
            continue;
        }
        fdn_limiters_entry e;
        fdn_limiter *t = table((fdn_limiter_config){.algorithm = (uint32_t)(i % 2),
                                                    .clock = FDN_LIMITER_PRECISE,
                                                    .limit = limit_of[which],
                                                    .period_ms = 1,
                                                    .burst = 1,
                                                    .capacity = 1 + next_random(&me->seed) % 500});
        if (fdn_limiters_add(s->names, which ? NAME_B : NAME_A, 1, t, &e) != 0)
            fail("add", 1, 0);
        handles[which] = e.handle;
        atomic_store(&s->handle, e.handle);
    }
    atomic_store(&s->done, 1);
    return NULL;
}

static void *names_body(void *arg)
{
    self *me = arg;
    return me->lane == 1 ? change_names(arg) : use_names(arg);
}

static void delete_inside(bool portable)
{
    shared s = {.hits = 1500};
    if (fdn_limiters_create(portable, &s.names) != 0)
        fail("registry", 1, 0);
    for (unsigned lane = 1; lane < THREADS; lane++) {
        if (fdn_limiters_lane(s.names) != lane)
            fail("lane", 0, lane);
    }
    run(&s, names_body, THREADS);
    fdn_limiters_destroy(s.names);
}

int main(void)
{
    for (uint32_t algorithm = 0; algorithm < FDN_LIMITER_LEASE; algorithm++) {
        contend(algorithm, 1, 4000, 1);
        contend(algorithm, 3, 3000, 7);
        for (uint64_t limit = 1; limit <= 200; limit = limit == 1 ? 3 : limit == 3 ? 20 : limit * 10)
            contend(algorithm, 1000 / (1 + limit / 20), limit, 1);
        churn(algorithm, 24, 1);
        churn(algorithm, 40, 3);
        evict(algorithm);
        undo(algorithm, 1, 10);
        undo(algorithm, 40, 20);
        charge_all(algorithm);
    }
    undo_by_gcra(1);
    undo_by_gcra(7);
    leases(60);
    delete_inside(true);
    delete_inside(false);
    puts("stress_limiter: no admission too many, no limiter freed under a thread");
    return 0;
}
