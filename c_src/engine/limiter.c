/*
 * The slot protocol.
 *
 * A slot is two atomic words, fingerprint F and state S. Both are 0 where it was never used, or reset; else F is a key's and S a state
 * of limiter_rule.h other than 0, or BUSY.
 *
 *   hit      finds the slot by F, reads S, reads F again, decides, and replaces S by one compare-and-swap. A denied hit stops before
 *            the swap. A swap that fails starts over from reading S.
 *   insert   holds the lock of its key's stripe, looks for the key once more, and claims a free slot (S expired) or a victim: S -> BUSY
 *            by compare-and-swap, F := new key, S := its first state. From BUSY on it always goes through to the end, takes no lock and
 *            waits for nobody.
 *   reset    claims like an insertion (S -> BUSY), looks whether F is still its key, and stores F := 0, S := 0; or S := what it found.
 *
 * Why it is right:
 *
 *  1. F changes only while S is BUSY, and S leaves BUSY only by the hand that claimed it. So the claim excludes all others.
 *  2. One key never has two slots: a key is inserted only under the lock of its stripe, after a scan of both buckets under that lock
 *     that did not find it. A slot that shows the key with S BUSY is being recycled (or reset) by another thread; the scan waits until
 *     that is over (a few instructions, no lock) and looks again.
 *  3. Every admission is in the state: it is the swap S -> next, next computed from the very S that was replaced. The second reading of
 *     F, after S and before the swap, makes S a state of this key: if the slot was recycled before S was read, F had already changed
 *     (F is stored before S leaves BUSY), unless it was recycled back to this key since, and then the swap fails, or S is this key's.
 *     If the slot is recycled between the second reading and the swap, S went through BUSY to the first state of another key, and the
 *     swap fails unless that state equals the S we read. It cannot, where the slot was free to take: our S then ended in the past of
 *     the newcomer's clock, and the newcomer's ends in its future. After an eviction or a reset of our key it can; then the newcomer
 *     is charged with our hit on top of its own. That errs to the strict side, as does a denial judged by a state that was another
 *     key's for a moment (recycled away and back).
 *  4. Time. The clocks are monotonic over all threads. A hit reads `now` first of all; one that goes on to insert reads it again, under
 *     the lock and after the scan that did not find the key, so that the first state of a key is never dated before the end of its
 *     previous life in the table (a thread may sleep anywhere, and the old slot be recycled meanwhile). A hit that finds its key with
 *     a `now` older than the state is judged as if the state were in force, which is stricter. One that finds its key at rest restarts
 *     it from its own `now`, and the swap proves that nobody consumed anything since (though somebody may have asked meanwhile, and
 *     been told that the budget is whole).
 *  5. A slot is recycled when its state is expired by a clock that is not ahead of the one its own key uses: tables of clock `auto`
 *     judge this by the coarse clock, which never runs ahead of the precise one.
 *
 * Orderings. All accesses to F and S are seq_cst; the pairs that matter: store F -> store S (insert) with load S -> load F (hit, 3);
 * swap S -> BUSY with every other swap of S (1); the stripe's mutex with itself (2). On x86-64 a seq_cst load is a plain load and the
 * swap is the only locked instruction of a hit. Counters are relaxed: each lane has one writer, except lane 0, which adds atomically.
 *
 * test/c/check_limiter_steps.c interrupts every operation at every step (fdn_step) by others; test/c/stress_limiter.c runs under TSan.
 */
#include "engine/limiter.h"

#include <pthread.h>
#include <sched.h>
#include <sys/mman.h>

#include "base/fdn_alloc.h"
#include "base/fdn_atomic.h"
#include "base/fdn_error.h"

#define SLOTS 4 /* a bucket */
#define STRIPES 64
#define BUSY FDN_LIMITER_NEVER

/* From this many ticks of the coarse clock on, the tick is small beside the time a full budget takes to come back. */
#define COARSE_TICKS 250

typedef struct {
    _Atomic uint64_t print[SLOTS];
    _Atomic uint64_t state[SLOTS];
} bucket;
_Static_assert(sizeof(bucket) == FDN_CACHE_LINE, "a bucket is one cache line");

typedef struct {
    _Atomic uint64_t allowed, denied;
    char pad[FDN_CACHE_LINE - 16];
} lane_counters;

typedef struct {
    _Alignas(FDN_CACHE_LINE) pthread_mutex_t lock;
    _Atomic uint64_t full, evicted; /* written under the lock */
} stripe;

struct fdn_limiter {
    bucket *buckets;
    uint64_t bucket_count;
    fdn_limiter_algorithm algorithm;
    fdn_limiter_clock clock;
    uint64_t epoch_ns;
    uint64_t coarse_from_ms; /* periods from here on may use the coarse clock, where it is auto */
    uint64_t tick_ms;        /* of the coarse clock, rounded up */
    fdn_limiter_rule preset;
    bool preset_coarse;
    lane_counters *lanes;
    fdn_limiter_config config;
    size_t mapped;
    void *mapping;
    void *block; /* what this struct was allocated in */
    _Atomic uint64_t manual_ns;
    stripe stripes[STRIPES];
};

/* A key's slot. */
typedef struct {
    _Atomic uint64_t *print, *state;
} slot;

/* ---- clock ---------------------------------------------------------------------------------------------------------------------- */

static inline bool uses_coarse(const fdn_limiter *t, const fdn_limiter_rule *rule)
{
    if (t->clock != FDN_LIMITER_AUTO)
        return t->clock == FDN_LIMITER_COARSE;
    return rule == &t->preset ? t->preset_coarse : rule->period_ms >= t->coarse_from_ms;
}

static inline uint64_t read_clock(fdn_limiter *t, bool coarse)
{
    if (t->clock == FDN_LIMITER_MANUAL)
        return atomic_load(&t->manual_ns);
    return (coarse ? fdn_clock_coarse_ns() : fdn_clock_mono_ns()) - t->epoch_ns;
}

/* The clock by which other keys' slots are found expired: see 5 above. */
static uint64_t recycling_clock(fdn_limiter *t, uint64_t now)
{
    return t->clock == FDN_LIMITER_AUTO ? fdn_clock_coarse_ns() - t->epoch_ns : now;
}

/* ---- finding -------------------------------------------------------------------------------------------------------------------- */

/* The odd multiplier keeps different periods of one key apart; keys are kept apart by the hash. */
static inline uint64_t print_of(uint64_t hash, uint64_t period_ms)
{
    uint64_t print = hash ^ (period_ms * 0x9e3779b97f4a7c15ULL);
    return print ? print : 1;
}

static inline bucket *first_bucket(const fdn_limiter *t, uint64_t print)
{
    return &t->buckets[(print >> 32) * t->bucket_count >> 32];
}

static inline bucket *second_bucket(const fdn_limiter *t, uint64_t print, const bucket *first)
{
    bucket *second = &t->buckets[(print & 0xffffffff) * t->bucket_count >> 32];
    if (second != first)
        return second;
    return second + 1 < t->buckets + t->bucket_count ? second + 1 : t->buckets;
}

static inline bool find_in(bucket *b, uint64_t print, slot *out)
{
    for (int i = 0; i < SLOTS; i++) {
        if (atomic_load(&b->print[i]) == print) {
            *out = (slot){&b->print[i], &b->state[i]};
            fdn_step(FDN_STEP_FREE);
            return true;
        }
    }
    return false;
}

/* ---- a hit on a slot ------------------------------------------------------------------------------------------------------------ */

typedef enum { ANSWERED, GONE } outcome;

static inline outcome hit_slot(const fdn_limiter *t, const fdn_limiter_rule *rule, slot at, uint64_t print, uint64_t now, uint64_t cost,
                               fdn_limiter_answer *answer)
{
    uint64_t state = atomic_load(at.state);
    for (;;) {
        if (state == BUSY || atomic_load(at.print) != print)
            return GONE;
        uint64_t next;
        answer->allowed = fdn_limiter_decide(t->algorithm, rule, state, now, cost, &next, &answer->value);
        fdn_step(FDN_STEP_FREE);
        if (!answer->allowed || cost == 0 || atomic_compare_exchange_strong(at.state, &state, next))
            return ANSWERED;
    }
}

/* ---- insertion ------------------------------------------------------------------------------------------------------------------ */

/* For the few instructions that another thread holds a slot BUSY; it may have been interrupted in them. */
static void wait_a_little(unsigned *spins)
{
    if (++*spins % 64 == 0)
        sched_yield();
    else
        fdn_cpu_relax();
}

/* Find the key, waiting while the slot that shows it is BUSY. Under the stripe's lock "not found" stays true. */
static bool find_settled(bucket *const pair[2], uint64_t print, slot *out)
{
    unsigned spins = 0;
    for (int i = 0; i < 2;) {
        if (!find_in(pair[i], print, out)) {
            i++;
        } else if (atomic_load(out->state) == BUSY) {
            wait_a_little(&spins);
        } else if (atomic_load(out->print) == print) {
            return true;
        }
    }
    return false;
}

/* What the eight slots offer to a new key. */
typedef struct {
    slot free, victim;
    uint64_t free_state, victim_state;
    uint64_t soonest_ms; /* until a slot is free by itself */
} choice;

static choice choose(const fdn_limiter *t, bucket *const pair[2], uint64_t now)
{
    choice c = {.soonest_ms = FDN_LIMITER_NEVER};
    slot found[2] = {{NULL, NULL}, {NULL, NULL}};
    uint64_t found_state[2] = {0, 0};
    int used[2] = {0, 0};
    for (int i = 0; i < 2; i++) {
        for (int j = 0; j < SLOTS; j++) {
            slot at = {&pair[i]->print[j], &pair[i]->state[j]};
            uint64_t state = atomic_load(at.state);
            if (state == BUSY) {
                used[i]++;
                continue;
            }
            uint64_t wait = fdn_limiter_expires_in_ms(t->algorithm, state, now);
            if (wait == 0) {
                if (found[i].state == NULL) {
                    found[i] = at;
                    found_state[i] = state;
                }
                continue;
            }
            used[i]++;
            if (wait < c.soonest_ms)
                c.soonest_ms = wait;
            if (c.victim.state == NULL || fdn_limiter_consumed_less(t->algorithm, state, c.victim_state)) {
                c.victim = at;
                c.victim_state = state;
            }
        }
    }
    /* The emptier bucket; the first one while it is nearly empty, where most hits then find the key in one cache line. */
    int i = used[0] <= 1 || used[0] <= used[1] ? 0 : 1;
    if (found[i].state == NULL)
        i = 1 - i;
    c.free = found[i];
    c.free_state = found_state[i];
    return c;
}

static bool occupy(slot at, uint64_t seen, uint64_t print, uint64_t state)
{
    fdn_step(FDN_STEP_FREE);
    if (!atomic_compare_exchange_strong(at.state, &seen, BUSY))
        return false;
    fdn_step(FDN_STEP_CLAIMED);
    atomic_store(at.print, print);
    fdn_step(FDN_STEP_CLAIMED);
    atomic_store(at.state, state);
    return true;
}

/* The key is absent and its hit is allowed. False: a slot was taken from under us, look again. */
static bool insert(fdn_limiter *t, stripe *s, bucket *const pair[2], uint64_t print, uint64_t state, uint64_t now,
                   fdn_limiter_answer *answer)
{
    choice c = choose(t, pair, recycling_clock(t, now));
    if (c.free.state != NULL)
        return occupy(c.free, c.free_state, print, state);
    switch ((fdn_limiter_on_full)t->config.on_full) {
    case FDN_LIMITER_EVICT:
        if (c.victim.state == NULL || !occupy(c.victim, c.victim_state, print, state))
            return false;
        atomic_store_explicit(&s->evicted, atomic_load_explicit(&s->evicted, memory_order_relaxed) + 1, memory_order_relaxed);
        break;
    case FDN_LIMITER_DENY:
        if (c.victim.state == NULL)
            return false;
        answer->allowed = false;
        answer->value = c.soonest_ms;
        break;
    case FDN_LIMITER_ALLOW:
        break;
    }
    atomic_store_explicit(&s->full, atomic_load_explicit(&s->full, memory_order_relaxed) + 1, memory_order_relaxed);
    return true;
}

static fdn_limiter_answer hit_absent(fdn_limiter *t, const fdn_limiter_rule *rule, bucket *const pair[2], uint64_t print, bool coarse,
                                     uint64_t cost)
{
    fdn_limiter_answer answer;
    stripe *s = &t->stripes[print % STRIPES];
    unsigned spins = 0;
    fdn_step(FDN_STEP_FREE);
    pthread_mutex_lock(&s->lock);
    fdn_step(FDN_STEP_LOCKED);
    for (;; wait_a_little(&spins)) {
        slot at;
        bool found = find_settled(pair, print, &at);
        fdn_step(FDN_STEP_FREE);
        /* After the scan: see 4. */
        uint64_t now = read_clock(t, coarse), state;
        fdn_step(FDN_STEP_FREE);
        if (found) {
            if (hit_slot(t, rule, at, print, now, cost, &answer) == ANSWERED)
                break;
            continue;
        }
        answer.allowed = fdn_limiter_decide(t->algorithm, rule, FDN_LIMITER_FRESH, now, cost, &state, &answer.value);
        if (!answer.allowed || cost == 0 || insert(t, s, pair, print, state, now, &answer))
            break;
    }
    pthread_mutex_unlock(&s->lock);
    return answer;
}

/* ---- public --------------------------------------------------------------------------------------------------------------------- */

static inline void count(fdn_limiter *t, unsigned lane, bool allowed)
{
    _Atomic uint64_t *counter = allowed ? &t->lanes[lane].allowed : &t->lanes[lane].denied;
    if (lane == 0)
        atomic_fetch_add_explicit(counter, 1, memory_order_relaxed);
    else
        atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + 1, memory_order_relaxed);
}

fdn_limiter_answer fdn_limiter_hit(fdn_limiter *t, unsigned lane, const fdn_limiter_rule *rule, uint64_t hash, uint64_t cost)
{
    fdn_limiter_answer answer;
    uint64_t print = print_of(hash, rule->period_ms);
    bucket *first = first_bucket(t, print);
    __builtin_prefetch(first);
    bucket *second = second_bucket(t, print, first);
    __builtin_prefetch(second);
    bool coarse = uses_coarse(t, rule);
    uint64_t now = read_clock(t, coarse);
    slot at;
    fdn_step(FDN_STEP_FREE);
    if ((!find_in(first, print, &at) && !find_in(second, print, &at)) || hit_slot(t, rule, at, print, now, cost, &answer) == GONE)
        answer = hit_absent(t, rule, (bucket *const[2]){first, second}, print, coarse, cost);
    /* The caller may read the coarse clock just after a tick and come back just before one. */
    if (!answer.allowed && coarse && rule->units != 0)
        answer.value += t->tick_ms;
    if (cost != 0)
        count(t, lane, answer.allowed);
    return answer;
}

bool fdn_limiter_reset(fdn_limiter *t, uint64_t period_ms, uint64_t hash)
{
    uint64_t print = print_of(hash, period_ms);
    bucket *first = first_bucket(t, print);
    bucket *const pair[2] = {first, second_bucket(t, print, first)};
    stripe *s = &t->stripes[print % STRIPES];
    bool consumed = false;
    slot at;
    fdn_step(FDN_STEP_FREE);
    pthread_mutex_lock(&s->lock);
    fdn_step(FDN_STEP_LOCKED);
    while (find_settled(pair, print, &at)) {
        uint64_t state = atomic_load(at.state);
        fdn_step(FDN_STEP_FREE);
        if (state == BUSY || !atomic_compare_exchange_strong(at.state, &state, BUSY))
            continue;
        fdn_step(FDN_STEP_CLAIMED);
        bool ours = atomic_load(at.print) == print;
        if (!ours) {
            atomic_store(at.state, state);
            continue;
        }
        consumed = true;
        atomic_store(at.print, 0);
        fdn_step(FDN_STEP_CLAIMED);
        atomic_store(at.state, FDN_LIMITER_FRESH);
        break;
    }
    pthread_mutex_unlock(&s->lock);
    return consumed;
}

int fdn_limiter_advance(fdn_limiter *t, uint64_t ms)
{
    if (t->clock != FDN_LIMITER_MANUAL)
        return FDN_EINVAL;
    uint64_t now = atomic_load(&t->manual_ns);
    do {
        if (ms > (FDN_LIMITER_MAX_NOW_NS - now) / FDN_NS_PER_MS)
            return FDN_ETOOBIG;
    } while (!atomic_compare_exchange_strong(&t->manual_ns, &now, now + ms * FDN_NS_PER_MS));
    return 0;
}

void fdn_limiter_stats_of(fdn_limiter *t, fdn_limiter_stats *out)
{
    uint64_t now = read_clock(t, t->preset_coarse);
    uint64_t judged = recycling_clock(t, now);
    *out = (fdn_limiter_stats){.slots = t->bucket_count * SLOTS,
                               .bytes = t->bucket_count * sizeof(bucket) + sizeof *t,
                               .now_ms = now / FDN_NS_PER_MS,
                               .coarse = t->clock == FDN_LIMITER_AUTO ? t->preset_coarse : t->clock == FDN_LIMITER_COARSE};
    for (uint64_t i = 0; i < t->bucket_count; i++) {
        for (int j = 0; j < SLOTS; j++) {
            uint64_t state = atomic_load(&t->buckets[i].state[j]);
            out->live += state != BUSY && !fdn_limiter_expired(t->algorithm, state, judged);
        }
    }
    for (unsigned i = 0; i < FDN_LIMITER_LANES; i++) {
        uint64_t allowed = atomic_load_explicit(&t->lanes[i].allowed, memory_order_relaxed);
        uint64_t denied = atomic_load_explicit(&t->lanes[i].denied, memory_order_relaxed);
        out->allowed += allowed;
        out->denied += denied;
        out->bytes += allowed | denied ? sizeof(lane_counters) : 0;
    }
    for (int i = 0; i < STRIPES; i++) {
        out->full += atomic_load_explicit(&t->stripes[i].full, memory_order_relaxed);
        out->evicted += atomic_load_explicit(&t->stripes[i].evicted, memory_order_relaxed);
    }
}

const fdn_limiter_config *fdn_limiter_config_of(const fdn_limiter *t)
{
    return &t->config;
}

const fdn_limiter_rule *fdn_limiter_preset(const fdn_limiter *t)
{
    return &t->preset;
}

/* ---- life ----------------------------------------------------------------------------------------------------------------------- */

static fdn_limiter_fit check(const fdn_limiter_config *config, fdn_limiter_rule *preset)
{
    *preset = (fdn_limiter_rule){0};
    if (config->algorithm > FDN_LIMITER_FIXED_WINDOW || config->on_full > FDN_LIMITER_ALLOW || config->clock > FDN_LIMITER_MANUAL)
        return FDN_LIMITER_BAD_ALGORITHM;
    if (config->capacity == 0 || config->capacity > FDN_LIMITER_MAX_CAPACITY)
        return FDN_LIMITER_BAD_CAPACITY;
    if (config->period_ms == 0)
        return config->limit == 0 && config->burst == 0 ? FDN_LIMITER_FITS : FDN_LIMITER_BAD_PERIOD;
    return fdn_limiter_rule_make((fdn_limiter_algorithm)config->algorithm, config->limit, config->period_ms, config->burst, preset);
}

/* Zeroed pages that are taken from the system when they are first touched. */
static void *map_pages(size_t bytes)
{
    if (fdn_alloc_fails())
        return NULL;
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return p == MAP_FAILED ? NULL : p;
}

static void set_clock(fdn_limiter *t)
{
    uint64_t tick = fdn_clock_coarse_resolution_ns();
    t->tick_ms = (tick + FDN_NS_PER_MS - 1) / FDN_NS_PER_MS;
    t->coarse_from_ms = t->tick_ms * COARSE_TICKS;
    uint64_t whole_ms = t->algorithm == FDN_LIMITER_GCRA ? t->preset.span / (16 * FDN_NS_PER_MS) : t->preset.period_ms;
    t->preset_coarse = t->clock == FDN_LIMITER_COARSE || (t->clock == FDN_LIMITER_AUTO && whole_ms >= t->coarse_from_ms);
    /* The coarse clock is never ahead of the precise one, so neither reads less than the epoch. */
    t->epoch_ns = fdn_clock_coarse_ns();
}

int fdn_limiter_create(const fdn_limiter_config *config, fdn_limiter **out, fdn_limiter_fit *fit)
{
    fdn_limiter_rule preset;
    *out = NULL;
    *fit = check(config, &preset);
    if (*fit != FDN_LIMITER_FITS)
        return FDN_EINVAL;
    /* Room to be aligned to a cache line by hand: the allocator promises 16 bytes. */
    char *block = fdn_calloc(1, sizeof(fdn_limiter) + FDN_CACHE_LINE);
    if (block == NULL)
        return FDN_ENOMEM;
    fdn_limiter *t = (fdn_limiter *)(((uintptr_t)block + FDN_CACHE_LINE - 1) & ~(uintptr_t)(FDN_CACHE_LINE - 1));
    /* Twice as many slots as keys; a few buckets more, for the larger variance of small tables. */
    t->bucket_count = (config->capacity + 1) / 2 + 4;
    size_t table = t->bucket_count * sizeof(bucket);
    t->mapped = table + FDN_LIMITER_LANES * sizeof(lane_counters);
    t->mapping = map_pages(t->mapped);
    if (t->mapping == NULL) {
        fdn_free(block);
        return FDN_ENOMEM;
    }
    t->buckets = t->mapping;
    t->lanes = (lane_counters *)((char *)t->mapping + table);
    t->config = *config;
    t->algorithm = (fdn_limiter_algorithm)config->algorithm;
    t->clock = (fdn_limiter_clock)config->clock;
    t->preset = preset;
    set_clock(t);
    for (int i = 0; i < STRIPES; i++)
        pthread_mutex_init(&t->stripes[i].lock, NULL);
    t->block = block;
    *out = t;
    return 0;
}

void fdn_limiter_destroy(fdn_limiter *t)
{
    if (t == NULL)
        return;
    for (int i = 0; i < STRIPES; i++)
        pthread_mutex_destroy(&t->stripes[i].lock);
    munmap(t->mapping, t->mapped);
    fdn_free(t->block);
}
