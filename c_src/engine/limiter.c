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

#include <sched.h>

#include "engine/limiter_file.h"
#include "engine/limiter_table.h"

/* ---- a hit on a slot ------------------------------------------------------------------------------------------------------------ */

typedef enum { ANSWERED, GONE } outcome;

static FDN_INLINE outcome hit_slot(fdn_limiter_algorithm algorithm, const fdn_limiter_rule *rule, fdn_limiter_slot at, uint64_t print,
                                   uint64_t now, uint64_t cost, fdn_limiter_answer *answer)
{
    uint64_t state = atomic_load(at.state);
    for (;;) {
        if (state == FDN_LIMITER_BUSY || atomic_load(at.print) != print)
            return GONE;
        uint64_t next;
        answer->allowed = fdn_limiter_decide(algorithm, rule, state, now, cost, &next, &answer->value);
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
static bool find_settled(fdn_limiter_bucket *const pair[2], uint64_t print, fdn_limiter_slot *out)
{
    unsigned spins = 0;
    for (int i = 0; i < 2;) {
        if (!fdn_limiter_find_in(pair[i], print, out)) {
            i++;
        } else if (atomic_load(out->state) == FDN_LIMITER_BUSY) {
            wait_a_little(&spins);
        } else if (atomic_load(out->print) == print) {
            return true;
        }
    }
    return false;
}

/* What the eight slots offer to a new key. */
typedef struct {
    fdn_limiter_slot free, victim;
    uint64_t free_state, victim_state;
    uint64_t soonest_ms; /* until a slot is free by itself */
} choice;

static choice choose(const fdn_limiter *t, fdn_limiter_bucket *const pair[2], uint64_t now)
{
    choice c = {.soonest_ms = FDN_LIMITER_NEVER};
    fdn_limiter_slot found[2] = {{NULL, NULL}, {NULL, NULL}};
    uint64_t found_state[2] = {0, 0};
    int used[2] = {0, 0};
    for (int i = 0; i < 2; i++) {
        for (int j = 0; j < FDN_LIMITER_SLOTS; j++) {
            fdn_limiter_slot at = {&pair[i]->print[j], &pair[i]->state[j]};
            uint64_t state = atomic_load(at.state);
            if (state == FDN_LIMITER_BUSY) {
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

static bool occupy(fdn_limiter_slot at, uint64_t seen, uint64_t print, uint64_t state)
{
    fdn_step(FDN_STEP_FREE);
    if (!atomic_compare_exchange_strong(at.state, &seen, FDN_LIMITER_BUSY))
        return false;
    fdn_step(FDN_STEP_CLAIMED);
    atomic_store(at.print, print);
    fdn_step(FDN_STEP_CLAIMED);
    atomic_store(at.state, state);
    return true;
}

/* Whether keys that were here may be gone with a part of the file, so that a key that is not found is not known to be fresh. */
static bool forgetful(const fdn_limiter *t)
{
    return t->file != NULL && t->config.on_full != FDN_LIMITER_EVICT && fdn_limiter_file_lost(t->file);
}

/* The key is absent and its hit is allowed. False: a slot was taken from under us, look again. */
static bool insert(fdn_limiter *t, fdn_limiter_stripe *s, fdn_limiter_bucket *const pair[2], uint64_t print, uint64_t state,
                   uint64_t now, fdn_limiter_answer *answer)
{
    choice c = choose(t, pair, fdn_limiter_recycling_clock(t, now));
    bool lost = forgetful(t);
    if (c.free.state != NULL && !lost)
        return occupy(c.free, c.free_state, print, state);
    switch ((fdn_limiter_on_full)t->config.on_full) {
    case FDN_LIMITER_EVICT:
        if (c.victim.state == NULL || !occupy(c.victim, c.victim_state, print, state))
            return false;
        atomic_store_explicit(&s->evicted, atomic_load_explicit(&s->evicted, memory_order_relaxed) + 1, memory_order_relaxed);
        break;
    case FDN_LIMITER_DENY:
        if (c.victim.state == NULL && !lost)
            return false;
        answer->allowed = false;
        answer->value = lost ? fdn_limiter_expires_in_ms(t->algorithm, state, now) : c.soonest_ms;
        break;
    case FDN_LIMITER_ALLOW:
        break;
    }
    atomic_store_explicit(&s->full, atomic_load_explicit(&s->full, memory_order_relaxed) + 1, memory_order_relaxed);
    return true;
}

static fdn_limiter_answer hit_absent(fdn_limiter *t, const fdn_limiter_rule *rule, fdn_limiter_bucket *const pair[2], uint64_t print,
                                     bool coarse, uint64_t cost)
{
    fdn_limiter_answer answer;
    fdn_limiter_stripe *s = &t->stripes[print % FDN_LIMITER_STRIPES];
    unsigned spins = 0;
    fdn_step(FDN_STEP_FREE);
    pthread_mutex_lock(&s->lock);
    fdn_step(FDN_STEP_LOCKED);
    for (;; wait_a_little(&spins)) {
        fdn_limiter_slot at;
        bool found = find_settled(pair, print, &at);
        fdn_step(FDN_STEP_FREE);
        /* After the scan: see 4. */
        uint64_t now = fdn_limiter_read_clock(t, coarse), state;
        fdn_step(FDN_STEP_FREE);
        if (found) {
            if (hit_slot(t->algorithm, rule, at, print, now, cost, &answer) == ANSWERED)
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
#ifdef FDN_LIMITER_UNCOUNTED /* bench/hits.c */
    (void)t;
    (void)lane;
    (void)allowed;
#else
    _Atomic uint64_t *counter = allowed ? &t->lanes[lane].allowed : &t->lanes[lane].denied;
    if (lane == 0)
        atomic_fetch_add_explicit(counter, 1, memory_order_relaxed);
    else
        atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + 1, memory_order_relaxed);
#endif
}

static FDN_INLINE fdn_limiter_answer hit_by(fdn_limiter_algorithm algorithm, fdn_limiter *t, unsigned lane,
                                            const fdn_limiter_rule *rule, uint64_t hash, uint64_t cost)
{
    fdn_limiter_answer answer;
    uint64_t print = fdn_limiter_print_of(hash, rule->period_ms);
    fdn_limiter_bucket *first = fdn_limiter_first_bucket(t, print);
    __builtin_prefetch(first);
    fdn_limiter_bucket *second = fdn_limiter_second_bucket(t, print, first);
    __builtin_prefetch(second);
    bool coarse = fdn_limiter_uses_coarse(t, rule);
    uint64_t now = fdn_limiter_read_clock(t, coarse);
    fdn_limiter_slot at;
    fdn_step(FDN_STEP_FREE);
    if ((!fdn_limiter_find_in(first, print, &at) && !fdn_limiter_find_in(second, print, &at)) ||
        hit_slot(algorithm, rule, at, print, now, cost, &answer) == GONE)
        answer = hit_absent(t, rule, (fdn_limiter_bucket *const[2]){first, second}, print, coarse, cost);
    /* The caller may read the coarse clock just after a tick and come back just before one. */
    if (!answer.allowed && coarse && rule->units != 0)
        answer.value += t->tick_ms;
    if (cost != 0)
        count(t, lane, answer.allowed);
    return answer;
}

/* One compiled form for each algorithm: a hit decides by it once, and has registers for its own arithmetic alone. */
#define FORM(ALGORITHM)                                                                                                                \
    static FDN_NOINLINE fdn_limiter_answer hit_##ALGORITHM(fdn_limiter *t, unsigned lane, const fdn_limiter_rule *rule, uint64_t hash, \
                                                           uint64_t cost)                                                              \
    {                                                                                                                                  \
        return hit_by(FDN_LIMITER_##ALGORITHM, t, lane, rule, hash, cost);                                                             \
    }
FORM(GCRA)
FORM(FIXED_WINDOW)
FORM(SLIDING_WINDOW)

fdn_limiter_answer fdn_limiter_hit(fdn_limiter *t, unsigned lane, const fdn_limiter_rule *rule, uint64_t hash, uint64_t cost)
{
    if (t->algorithm == FDN_LIMITER_GCRA)
        return hit_GCRA(t, lane, rule, hash, cost);
    if (t->algorithm == FDN_LIMITER_FIXED_WINDOW)
        return hit_FIXED_WINDOW(t, lane, rule, hash, cost);
    return hit_SLIDING_WINDOW(t, lane, rule, hash, cost);
}

bool fdn_limiter_reset(fdn_limiter *t, uint64_t period_ms, uint64_t hash)
{
    uint64_t print = fdn_limiter_print_of(hash, period_ms);
    fdn_limiter_bucket *first = fdn_limiter_first_bucket(t, print);
    fdn_limiter_bucket *const pair[2] = {first, fdn_limiter_second_bucket(t, print, first)};
    fdn_limiter_stripe *s = &t->stripes[print % FDN_LIMITER_STRIPES];
    bool consumed = false;
    fdn_limiter_slot at;
    fdn_step(FDN_STEP_FREE);
    pthread_mutex_lock(&s->lock);
    fdn_step(FDN_STEP_LOCKED);
    while (find_settled(pair, print, &at)) {
        uint64_t state = atomic_load(at.state);
        fdn_step(FDN_STEP_FREE);
        if (state == FDN_LIMITER_BUSY || !atomic_compare_exchange_strong(at.state, &state, FDN_LIMITER_BUSY))
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
