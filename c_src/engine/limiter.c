/*
 * The slot protocol.
 *
 * A slot is two atomic words, fingerprint F and state S. Both are 0 where it was never used, or reset; else F is a key's and S a state
 * of limiter_rule.h other than 0, or BUSY.
 *
 *   change   finds the slot by F, reads S, reads F again, decides, replaces S by one compare-and-swap, and reads F a third time. What
 *            needs no new state (a denied hit, a question) stops before the swap. A swap that fails starts over from reading S. Where
 *            the third reading is not the key's, the key's change is still to be made: see 3.
 *   insert   holds the lock of its key's stripe, looks for the key once more (and changes it if it is there), and claims a free slot
 *            (S expired) or a victim: S -> BUSY by compare-and-swap, F := new key, S := its first state. From BUSY on it always goes
 *            through to the end, takes no lock and waits for nobody.
 *   replace  holds the lock of its key's stripe and claims like an insertion (S -> BUSY), looks whether F is still its key, and stores
 *            S := the new state, or F := 0, S := 0 where the key is to have none; or S := what it found.
 *
 * The operations, all made of these three:
 *
 *   hit, take, reserve, charge    a change; where the key is absent, an insert of what the change makes of a fresh key
 *   used, and hits of cost 0      a change that stores nothing
 *   set_used                      under the lock: a change, judged by a clock read after S, or an insert; of 0, a reset
 *   give_back                     under the lock: a change, judged by a clock read after S
 *   reset                         a replace by nothing
 *   grant                         a replace or an insert; and to leases give_back is a replace, too (7)
 *
 * Why it is right:
 *
 *  1. F changes only while S is BUSY, and S leaves BUSY only by the hand that claimed it. So the claim excludes all others.
 *  2. One key never has two slots: a key is inserted only under the lock of its stripe, after a scan of both buckets under that lock
 *     that did not find it. A slot that shows the key with S BUSY is being recycled (or reset) by another thread; the scan waits until
 *     that is over (a few instructions, no lock) and looks again.
 *  3. Every admission is in the state: it is the swap S -> next, next computed from the very S that was replaced (a hit's, and in the
 *     same way that of a take, a reservation, a charge). The second reading of F, after S and before the swap, makes S a state of this
 *     key: if the slot was recycled before S was read, F had already changed (F is stored before S leaves BUSY), unless it was recycled
 *     back to this key since, and then the swap fails, or S is this key's. If the slot is recycled between the second reading and the
 *     swap, S went through BUSY to the first state of another key, and the swap fails unless that state equals the S we read. It does
 *     not, where our S had ended: in the past of the newcomer's clock, while the newcomer's ends in its future. It may, where the key
 *     lost its slot before S would have ended: evicted, reset, or by a debit given back or a count set. Then the third reading finds
 *     the newcomer (or nobody), and the change is made over for its own key. Where that reading comes so late that the key has gone
 *     since, it is made twice. Both err to the strict side: the newcomer, or the key, is charged once more than admitted. So does a
 *     denial judged by a state that was another key's for a moment (recycled away and back).
 *     One thing is left, with gcra and debits given back: a newcomer whose debit is given back at once leaves the word that it began
 *     with, its `now`, which may be the one that our key ended with. A thread that swapped that word, and then sleeps before the third
 *     reading so long that its key has been in another slot and is in this one again, finds its key there, and its hit is charged to
 *     nobody. (explore_slots gcra deny 1 1 2 h1 t3h1h2h1, of test/model/explore, shows it.)
 *  4. Time. The clocks are monotonic over all threads. A hit reads `now` first of all; one that goes on to insert reads it again, under
 *     the lock and after the scan that did not find the key, so that the first state of a key is never dated before the end of its
 *     previous life in the table (a thread may sleep anywhere, and the old slot be recycled meanwhile). A hit that finds its key with a
 *     `now` older than the state is judged as if the state were in force, which is stricter. One that finds its key at rest restarts it
 *     from its own `now`, and the swap proves that nobody consumed anything since (though somebody may have asked meanwhile, and been
 *     told that the budget is whole).
 *  5. A slot is recycled when its state is expired by a clock that is not ahead of the one its own key uses: tables of clock `auto`
 *     judge this by the coarse clock, which never runs ahead of the precise one. Nor is it ahead of the newcomer's own `now`, which was
 *     read before: or the newcomer's first state might end as early as the one it replaces, and 3 would not hold.
 *  6. Giving back. Of gcra, changes only ever move S up; what moves it down (reset, set_used, give_back) holds the lock of the stripe.
 *     So a swap of give_back or set_used that succeeds proves that nothing was stored between the reading of S and the swap: else S
 *     would be larger by then, and no slot comes back to the same state by way of another key, as in 3 (after an eviction it can, which
 *     is allowed to over-admit). In the other algorithms the word alone, not the time, says what may be taken out of it. What is left
 *     is stored as it is, not cut off at `now`, which may be ahead of the clock that the key goes by.
 *
 *     gcra: write the arrival time after the i-th stored operation as T(i) = max(T(i-1), n(i)) + c(i), n its `now` and c its amount;
 *     unrolled, T(i) = max over j <= i of n(j) + c(j) + .. + c(i). Let the debit be the k-th, and T' the same chain without it. If the
 *     maximum of T'(i) is at some j < k, then T(i) >= T'(i) + c(k). If it is at j > k (the chain was idle, and began again at n(j)),
 *     then T(i) >= n(k) + c(k) + c(k+1) + .. + c(i) >= n(k) + c(k) + (T'(i) - n(j)) = T'(i) + c(k) - (n(j) - n(k)). So subtracting c(k)
 *     - max(0, now - n(k)) leaves no less than T'(i), as long as now >= n(j) for every operation that is in S. It is: each read its
 *     clock before its swap, that was before S was read, and that was before give_back reads `now`, from a clock that is not behind.
 *     What follows is decided by a state that is at least that of the chain without the debit, so nothing is admitted that would not
 *     have been. This holds for any number of debits: after one was given back, S is at least the chain without it, in which another
 *     debit has the same n and the same c. (Were n(k) replaced by max(T(k-1), n(k)), the moment at which all that was taken before is
 *     back, it would not hold: that moment moves when an earlier debit is given back. For reservations it is replaced so; the contract
 *     says what that means.)
 *
 *     fixed_window and sliding_window: the debit's units are a summand of one count, which is found again by its window. They are taken
 *     out of that count or, where the window is over, are not; the same operations without the debit would have left no more in it. A
 *     fixed window that the debit opened stays open, though, and closes when it would have.
 *  7. Leases are the other way round: grants, and debits given back to them, add what may be admitted, and a hit that takes it moves S
 *     down. A swap that hits another key's equal state, as in 3, would give that key what it was not granted, so here the claim comes
 *     first, and then the last look at F. The end of a lease never moves on while it lives, and units are only given back to one that
 *     ends no later than the one they were taken from; so each unit ends with its own grant, or before.
 *
 * Orderings. All accesses to F and S are seq_cst; the pairs that matter: store F -> store S (insert, replace) with load S -> load F
 * and swap S -> load F (change, 3); swap S -> BUSY with every other swap of S (1); clock -> swap of S (change) with load S -> clock
 * (give_back, 6); the stripe's mutex with itself (2, 6). On x86-64 a seq_cst load is a plain load and the swap is the only locked
 * instruction of a hit. Counters are relaxed: each lane has one writer, except lane 0, which adds atomically.
 *
 * test/model/slots.pml is the exhaustive model of all this, with mutants (make test-model).
 * test/c/check_limiter_steps.c interrupts every operation at every step (fdn_step) by others; test/c/stress_limiter.c runs under TSan.
 */
#include "engine/limiter.h"

#include <sched.h>

#include "engine/limiter_file.h"
#include "engine/limiter_table.h"

/* ---- insertion ------------------------------------------------------------------------------------------------------------------ */

/* For the few instructions that another thread holds a slot BUSY; it may have been interrupted in them. */
static void wait_a_little(unsigned *spins)
{
    if (++*spins % 64 == 0)
        sched_yield();
    else
        fdn_cpu_relax();
}

bool fdn_limiter_find_settled(const fdn_limiter_place *place, fdn_limiter_slot *out)
{
    unsigned spins = 0;
    for (int i = 0; i < 2;) {
        if (!fdn_limiter_find_in(place->pair[i], place->print, out)) {
            i++;
        } else if (atomic_load(out->state) == FDN_LIMITER_BUSY) {
            wait_a_little(&spins);
        } else if (atomic_load(out->print) == place->print) {
            return true;
        }
    }
    return false;
}

static bool replace(fdn_limiter_slot at, uint64_t print, uint64_t state, uint64_t next)
{
    fdn_step(FDN_STEP_FREE);
    if (state == FDN_LIMITER_BUSY || !atomic_compare_exchange_strong(at.state, &state, FDN_LIMITER_BUSY))
        return false;
    fdn_step(FDN_STEP_CLAIMED);
    if (atomic_load(at.print) != print) {
        atomic_store(at.state, state);
        return false;
    }
    if (next == FDN_LIMITER_FRESH)
        atomic_store(at.print, 0);
    fdn_step(FDN_STEP_CLAIMED);
    atomic_store(at.state, next);
    return true;
}

bool fdn_limiter_exchange(const fdn_limiter *t, fdn_limiter_slot at, uint64_t print, uint64_t state, uint64_t next)
{
    if (next == FDN_LIMITER_FRESH || t->algorithm == FDN_LIMITER_LEASE)
        return replace(at, print, state, next);
    fdn_step(FDN_STEP_FREE);
    return atomic_compare_exchange_strong(at.state, &state, next) && atomic_load(at.print) == print;
}

/* What the eight slots offer to a new key. */
typedef struct {
    fdn_limiter_slot free, victim;
    uint64_t free_state, victim_state;
    uint64_t soonest_ms; /* until a slot is free by itself */
} choice;

static choice choose(const fdn_limiter *t, const fdn_limiter_place *place, uint64_t now)
{
    choice c = {.soonest_ms = FDN_LIMITER_NEVER};
    fdn_limiter_slot found[2] = {{NULL, NULL}, {NULL, NULL}};
    uint64_t found_state[2] = {0, 0};
    int used[2] = {0, 0};
    for (int i = 0; i < 2; i++) {
        for (int j = 0; j < FDN_LIMITER_SLOTS; j++) {
            fdn_limiter_slot at = {&place->pair[i]->print[j], &place->pair[i]->state[j]};
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

static void bump(_Atomic uint64_t *counter) /* under the lock */
{
    atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + 1, memory_order_relaxed);
}

/* Whether keys that were here may be gone with a part of the file, so that a key that is not found is not known to be fresh. */
static bool forgetful(const fdn_limiter *t)
{
    return t->file != NULL && t->config.on_full != FDN_LIMITER_EVICT && fdn_limiter_file_lost(t->file);
}

/*
 * The key is absent and out->next is to be its state. Full: out->stored becomes false, and out->answer what the table answers to hits.
 * False: a slot was taken from under us, look again.
 */
static bool insert(fdn_limiter *t, fdn_limiter_stripe *s, const fdn_limiter_place *place, fdn_limiter_outcome *out)
{
    choice c = choose(t, place, fdn_limiter_recycling_clock(t, out->now));
    bool lost = forgetful(t);
    if (c.free.state != NULL && !lost)
        return occupy(c.free, c.free_state, place->print, out->next);
    if (c.victim.state == NULL && !lost)
        return false;
    if (t->config.on_full == FDN_LIMITER_EVICT) {
        if (!occupy(c.victim, c.victim_state, place->print, out->next))
            return false;
        bump(&s->evicted);
    } else {
        out->stored = false;
        out->full = true;
        if (t->config.on_full == FDN_LIMITER_DENY)
            out->answer =
                (fdn_limiter_answer){false, lost ? fdn_limiter_expires_in_ms(t->algorithm, out->next, out->now) : c.soonest_ms};
    }
    bump(&s->full);
    return true;
}

fdn_limiter_outcome fdn_limiter_change_locked(fdn_limiter *t, const fdn_limiter_rule *rule, fdn_limiter_change *change, uint64_t units,
                                              uint64_t ms, fdn_limiter_place place)
{
    fdn_limiter_stripe *s = &t->stripes[place.print % FDN_LIMITER_STRIPES];
    fdn_limiter_outcome out;
    unsigned spins = 0;
    fdn_step(FDN_STEP_FREE);
    pthread_mutex_lock(&s->lock);
    fdn_step(FDN_STEP_LOCKED);
    for (;; wait_a_little(&spins)) {
        fdn_limiter_slot at;
        bool found = fdn_limiter_find_settled(&place, &at);
        out = (fdn_limiter_outcome){.state = found ? atomic_load(at.state) : FDN_LIMITER_FRESH};
        fdn_step(FDN_STEP_FREE);
        if (found && (out.state == FDN_LIMITER_BUSY || atomic_load(at.print) != place.print))
            continue;
        /* After the scan, and after the state: see 4 and 6. */
        out.now = fdn_limiter_read_clock(t, fdn_limiter_uses_coarse(t, rule));
        fdn_step(FDN_STEP_FREE);
        out.stored = change(t->algorithm, rule, units, ms, out.state, out.now, &out.next, &out.answer);
        if (!out.stored || (found ? fdn_limiter_exchange(t, at, place.print, out.state, out.next) : insert(t, s, &place, &out)))
            break;
    }
    pthread_mutex_unlock(&s->lock);
    return out;
}

/* ---- hits ----------------------------------------------------------------------------------------------------------------------- */

/*
 * A line that another core has just swapped would come as a copy for the look at it, and a second time for the swap. So it is asked for
 * as this core's own, before anything else; but not by a thread whose last hit was denied, since denied hits share the line.
 */
static inline void expect_swap(const fdn_limiter *t, unsigned lane, const fdn_limiter_rule *rule, uint64_t hash, uint64_t cost)
{
    if (cost != 0 && !atomic_load_explicit(&t->lanes[lane].denying, memory_order_relaxed))
        fdn_prefetch_to_write(&t->buckets[fdn_limiter_first_place(fdn_limiter_print_of(hash, rule->period_ms), t->bucket_count)]);
}

/* One compiled form for each algorithm: a hit decides by it once, and has registers for its own arithmetic alone. */
#define FORM(ALGORITHM)                                                                                                                \
    static FDN_NOINLINE fdn_limiter_answer hit_##ALGORITHM(fdn_limiter *t, unsigned lane, const fdn_limiter_rule *rule, uint64_t hash, \
                                                           uint64_t cost)                                                              \
    {                                                                                                                                  \
        expect_swap(t, lane, rule, hash, cost);                                                                                        \
        fdn_limiter_outcome out = fdn_limiter_change_key(t, FDN_LIMITER_##ALGORITHM, rule, fdn_limiter_hit_change, cost, 0, hash);     \
        return fdn_limiter_counted(t, FDN_LIMITER_##ALGORITHM, lane, rule, cost, out.answer);                                          \
    }
FORM(GCRA)
FORM(FIXED_WINDOW)
FORM(SLIDING_WINDOW)
FORM(LEASE)

fdn_limiter_answer fdn_limiter_hit(fdn_limiter *t, unsigned lane, const fdn_limiter_rule *rule, uint64_t hash, uint64_t cost)
{
    if (t->algorithm == FDN_LIMITER_GCRA)
        return hit_GCRA(t, lane, rule, hash, cost);
    if (t->algorithm == FDN_LIMITER_FIXED_WINDOW)
        return hit_FIXED_WINDOW(t, lane, rule, hash, cost);
    if (t->algorithm == FDN_LIMITER_SLIDING_WINDOW)
        return hit_SLIDING_WINDOW(t, lane, rule, hash, cost);
    return hit_LEASE(t, lane, rule, hash, cost);
}

/* ---- reset ---------------------------------------------------------------------------------------------------------------------- */

bool fdn_limiter_reset(fdn_limiter *t, uint64_t period_ms, uint64_t hash)
{
    fdn_limiter_place place = fdn_limiter_place_of(t, fdn_limiter_print_of(hash, period_ms));
    fdn_limiter_stripe *s = &t->stripes[place.print % FDN_LIMITER_STRIPES];
    bool consumed = false;
    fdn_limiter_slot at;
    fdn_step(FDN_STEP_FREE);
    pthread_mutex_lock(&s->lock);
    fdn_step(FDN_STEP_LOCKED);
    while (!consumed && fdn_limiter_find_settled(&place, &at))
        consumed = fdn_limiter_exchange(t, at, place.print, atomic_load(at.state), FDN_LIMITER_FRESH);
    pthread_mutex_unlock(&s->lock);
    return consumed;
}
