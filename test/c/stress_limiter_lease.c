/*
 * Threads of a keeper and two borrowers of its budgets, for TSan and for the limit: however hits, loans, leases that are forgotten or
 * reopened, and other keys' hits interleave, a key is never admitted more often than the keeper alone would. All of it is used, too,
 * where nothing is forgotten.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/fdn_hash.h"
#include "engine/limiter_lease.h"

#define THREADS 4
#define MACHINES 3 /* the keeper is the first one; it borrows of itself */
#define LIMIT 200

typedef struct {
    fdn_limiter *machines[MACHINES];
    _Atomic uint64_t admitted; /* of the round's key */
    uint64_t key;
    bool forgetful;
    pthread_barrier_t start;
} shared;

typedef struct {
    shared *s;
    unsigned lane;
    uint64_t seed;
} self;

static uint64_t hash_of(uint64_t key)
{
    return fdn_hash_check(&key, sizeof key, 13);
}

static uint64_t dice(uint64_t *seed, uint64_t below)
{
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    return *seed % below;
}

static bool hit(self *me, fdn_limiter *borrower, uint64_t key)
{
    const fdn_limiter_rule *rule = fdn_limiter_preset(borrower);
    fdn_limiter *keeper = me->s->machines[0];
    fdn_limiter_answer a = fdn_limiter_lease_hit(borrower, me->lane, rule, hash_of(key), 1);
    if (a.allowed || a.value != FDN_LIMITER_ASK)
        return a.allowed;
    uint64_t sent = fdn_limiter_lease_now(borrower);
    fdn_limiter_loan loan = fdn_limiter_lend(keeper, fdn_limiter_preset(keeper), hash_of(key), 1, dice(&me->seed, 12));
    fdn_limiter_lease_keep(borrower, rule, hash_of(key), loan.granted ? loan.units - 1 : 0, sent + loan.ms, !loan.granted);
    return loan.granted;
}

static void *hit_until_denied(void *arg)
{
    self *me = arg;
    shared *s = me->s;
    pthread_barrier_wait(&s->start);
    for (unsigned denied = 0; denied < 20;) {
        fdn_limiter *borrower = s->machines[(me->lane + dice(&me->seed, 2)) % MACHINES];
        if (hit(me, borrower, s->key))
            atomic_fetch_add(&s->admitted, 1);
        else
            denied++;
        if (s->forgetful && dice(&me->seed, 16) == 0)
            fdn_limiter_lease_forget(borrower, fdn_limiter_preset(borrower), hash_of(s->key));
        if (dice(&me->seed, 16) == 0)
            fdn_limiter_lease_reopen(borrower);
        /* Others, that take and recycle slots. */
        (void)hit(me, borrower, 1000000 + dice(&me->seed, 64));
    }
    return NULL;
}

/* What threads left in leases when they had been denied often enough. */
static uint64_t rest(shared *s)
{
    uint64_t left = 0;
    for (int i = 0; i < MACHINES; i++) {
        while (fdn_limiter_lease_hit(s->machines[i], 0, fdn_limiter_preset(s->machines[i]), hash_of(s->key), 1).allowed)
            left++;
    }
    return left;
}

int main(void)
{
    shared s = {.key = 0};
    fdn_limiter_config config = {
        .algorithm = FDN_LIMITER_FIXED_WINDOW, .clock = FDN_LIMITER_PRECISE, .limit = LIMIT, .period_ms = 86400000, .capacity = 8192};
    for (int i = 0; i < MACHINES; i++) {
        fdn_limiter_fit fit;
        if (fdn_limiter_create(&config, &s.machines[i], &fit) != 0 || fdn_limiter_lease_add(s.machines[i]) != 0)
            return 2;
    }
    for (s.key = 1; s.key <= 200; s.key++) {
        pthread_t ids[THREADS];
        self selves[THREADS];
        atomic_store(&s.admitted, 0);
        s.forgetful = s.key % 2;
        pthread_barrier_init(&s.start, NULL, THREADS);
        for (unsigned i = 0; i < THREADS; i++) {
            selves[i] = (self){&s, i + 1, 0x9e3779b97f4a7c15ULL * (THREADS * s.key + i + 1)};
            pthread_create(&ids[i], NULL, hit_until_denied, &selves[i]);
        }
        for (unsigned i = 0; i < THREADS; i++)
            pthread_join(ids[i], NULL);
        pthread_barrier_destroy(&s.start);
        uint64_t admitted = atomic_load(&s.admitted), left = rest(&s);
        if (admitted + left > LIMIT || (!s.forgetful && admitted + left != LIMIT)) {
            fprintf(stderr, "stress_limiter_lease: key %llu: %llu admitted and %llu left of %d\n", (unsigned long long)s.key,
                    (unsigned long long)admitted, (unsigned long long)left, LIMIT);
            return 1;
        }
    }
    for (int i = 0; i < MACHINES; i++)
        fdn_limiter_destroy(s.machines[i]);
    puts("stress_limiter_lease: no admission too many, and none too few");
    return 0;
}
