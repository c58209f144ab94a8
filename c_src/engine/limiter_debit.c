/*
 * limiter_debit.c - what else may be done to a key's budget than to hit it: debits that can be given back, reservations, counts.
 *
 * Each operation is a change of the state's word, carried through by the slot protocol (limiter.c). Below: the arithmetic of these
 * changes, pure functions like those of limiter_rule.h; then the operations.
 */
#include "base/fdn_atomic.h"
#include "engine/limiter_table.h"

/* ---- arithmetic ----------------------------------------------------------------------------------------------------------------- */

#define UNITS_PER_MS (16 * FDN_NS_PER_MS) /* of gcra's time */
#define FIXED_COUNT 0xffffffULL

static uint64_t divided_up(uint64_t a, uint64_t b)
{
    return a / b + (a % b != 0);
}

static uint64_t lesser(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static uint64_t greater(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

static uint64_t sum_up_to(uint64_t a, uint64_t b, uint64_t most)
{
    return a >= most || b >= most - a ? most : a + b;
}

static uint64_t product_up_to(uint64_t a, uint64_t b, uint64_t most)
{
    uint64_t product;
    return __builtin_mul_overflow(a, b, &product) ? most : lesser(product, most);
}

static bool reserve_change(fdn_limiter_algorithm algorithm, const fdn_limiter_rule *rule, uint64_t cost, uint64_t max_wait_ms,
                           uint64_t state, uint64_t now_ns, uint64_t *next, fdn_limiter_answer *answer)
{
    if (rule->units == 0 || algorithm != FDN_LIMITER_GCRA) {
        *answer = (fdn_limiter_answer){false, rule->period_ms};
        return false;
    }
    uint64_t now = now_ns * 16, ahead = greater(state, now) - now + (cost ? cost : 1) * rule->emission;
    uint64_t furthest = rule->span + lesser(max_wait_ms, FDN_LIMITER_MAX_WAIT_MS) * UNITS_PER_MS;
    if (ahead > furthest) {
        *answer = (fdn_limiter_answer){false, divided_up(ahead - furthest, UNITS_PER_MS)};
        return false;
    }
    *answer = (fdn_limiter_answer){true, ahead > rule->span ? divided_up(ahead - rule->span, UNITS_PER_MS) : 0};
    *next = now + ahead;
    return cost != 0;
}

/* The changes of counts answer with the count; `allowed` says nothing. Those of gcra are not asked about a rule without emission. */

static bool charge_change(fdn_limiter_algorithm algorithm, const fdn_limiter_rule *rule, uint64_t n, uint64_t ms, uint64_t state,
                          uint64_t now_ns, uint64_t *next, fdn_limiter_answer *answer)
{
    if (algorithm == FDN_LIMITER_GCRA) {
        uint64_t now = now_ns * 16, before = greater(state, now) - now;
        uint64_t ahead = sum_up_to(before, product_up_to(n, rule->emission, FDN_LIMITER_MAX_AHEAD), FDN_LIMITER_MAX_AHEAD);
        answer->value = divided_up(ahead, rule->emission);
        *next = now + ahead;
        return ahead > before;
    }
    if (algorithm == FDN_LIMITER_FIXED_WINDOW) {
        uint64_t now_ms = now_ns / FDN_NS_PER_MS, end = state >> 24, used = state & FIXED_COUNT;
        if (end <= now_ms) {
            used = 0;
            end = now_ms + (now_ms * FDN_NS_PER_MS != now_ns) + rule->period_ms;
        }
        answer->value = sum_up_to(used, n, FDN_LIMITER_MAX_FIXED_LIMIT);
        *next = end << 24 | answer->value;
        return n != 0;
    }
    if (algorithm == FDN_LIMITER_SLIDING_WINDOW) {
        fdn_limiter_windows w = fdn_limiter_windows_at(rule->period_ms, state, now_ns);
        w.current = sum_up_to(w.current, n, fdn_limiter_sliding_max(rule->period_ms));
        answer->value = divided_up(fdn_limiter_windows_used(&w, rule->period_ms), rule->period_ms);
        *next = fdn_limiter_windows_word(&w);
        return n != 0;
    }
    answer->value = 0;
    return false;
}

static bool set_change(fdn_limiter_algorithm algorithm, const fdn_limiter_rule *rule, uint64_t count, uint64_t ms, uint64_t state,
                       uint64_t now_ns, uint64_t *next, fdn_limiter_answer *answer)
{
    if (algorithm == FDN_LIMITER_FIXED_WINDOW) /* an open window stays open */
        return charge_change(algorithm, rule, count, ms, state & ~FIXED_COUNT, now_ns, next, answer);
    return charge_change(algorithm, rule, count, ms, FDN_LIMITER_FRESH, now_ns, next, answer);
}

/* What the state becomes when the debit is given back at `now`. The same: nothing of it is left. */
static uint64_t without(fdn_limiter_algorithm algorithm, const fdn_limiter_debit *debit, uint64_t state, uint64_t now_ns)
{
    uint64_t now_ms = now_ns / FDN_NS_PER_MS;
    if (algorithm == FDN_LIMITER_GCRA) {
        uint64_t now = now_ns * 16, gone = now > debit->mark ? now - debit->mark : 0;
        if (state <= now || debit->amount <= gone)
            return state;
        /* Not to be cut off at `now`: the key may go by a clock that is behind. */
        uint64_t back = debit->amount - gone;
        return state > back ? state - back : FDN_LIMITER_FRESH;
    }
    if (algorithm == FDN_LIMITER_FIXED_WINDOW) {
        bool same = state >> 24 == debit->mark && debit->mark > now_ms;
        return same ? state - lesser(state & FIXED_COUNT, debit->amount) : state;
    }
    if (algorithm == FDN_LIMITER_SLIDING_WINDOW) {
        unsigned shift = fdn_limiter_sliding_shift(debit->period_ms), bits = fdn_limiter_sliding_count_bits(shift);
        uint64_t most = (1ULL << bits) - 1, found = fdn_limiter_sliding_mark(state, debit->period_ms);
        uint64_t rest = (debit->mark << shift) / debit->period_ms; /* the number of the window in which nothing of it counts */
        if (now_ms / debit->period_ms >= rest)
            return state;
        if (found == debit->mark)
            return state - lesser(state & most, debit->amount);
        if ((found << shift) / debit->period_ms == rest + 1)
            return state - (lesser(state >> bits & most, debit->amount) << bits);
        return state;
    }
    /* A later lease than the debit's has no use for it: it would live on in there. */
    bool same = state >> 24 > now_ms && state >> 24 <= debit->mark;
    uint64_t left = state & FDN_LIMITER_LEASE_COUNT;
    return same ? state + sum_up_to(left, debit->amount, FDN_LIMITER_MAX_LEASE) - left : state;
}

/* ---- debits --------------------------------------------------------------------------------------------------------------------- */

fdn_limiter_answer fdn_limiter_take(fdn_limiter *t, unsigned lane, const fdn_limiter_rule *rule, uint64_t hash, uint64_t cost,
                                    fdn_limiter_debit *debit)
{
    fdn_limiter_outcome out = fdn_limiter_change_key(t, t->algorithm, rule, fdn_limiter_hit_change, cost, 0, hash);
    *debit = (fdn_limiter_debit){0};
    if (out.stored) {
        *debit = (fdn_limiter_debit){fdn_limiter_print_of(hash, rule->period_ms), cost, out.next >> 24, rule->period_ms};
        if (t->algorithm == FDN_LIMITER_GCRA) {
            debit->amount = cost * rule->emission;
            debit->mark = out.now * 16;
        } else if (t->algorithm == FDN_LIMITER_SLIDING_WINDOW) {
            debit->mark = fdn_limiter_sliding_mark(out.next, rule->period_ms);
        }
    }
    return fdn_limiter_counted(t, t->algorithm, lane, rule, cost, out.answer);
}

fdn_limiter_answer fdn_limiter_reserve(fdn_limiter *t, unsigned lane, const fdn_limiter_rule *rule, uint64_t hash, uint64_t cost,
                                       uint64_t max_wait_ms, fdn_limiter_debit *debit)
{
    fdn_limiter_outcome out = fdn_limiter_change_key(t, t->algorithm, rule, reserve_change, cost, max_wait_ms, hash);
    *debit = (fdn_limiter_debit){0};
    if (out.stored)
        *debit = (fdn_limiter_debit){fdn_limiter_print_of(hash, rule->period_ms), cost * rule->emission,
                                     greater(out.state, out.now * 16), rule->period_ms};
    return fdn_limiter_counted(t, t->algorithm, lane, rule, cost, out.answer);
}

bool fdn_limiter_give_back(fdn_limiter *t, const fdn_limiter_debit *debit)
{
    if (debit->amount == 0)
        return false;
    fdn_limiter_place place = fdn_limiter_place_of(t, debit->print);
    fdn_limiter_stripe *s = &t->stripes[debit->print % FDN_LIMITER_STRIPES];
    bool given = false, left = true;
    fdn_limiter_slot at;
    fdn_step(FDN_STEP_FREE);
    pthread_mutex_lock(&s->lock);
    fdn_step(FDN_STEP_LOCKED);
    while (!given && left && fdn_limiter_find_settled(&place, &at)) {
        uint64_t state = atomic_load(at.state);
        fdn_step(FDN_STEP_FREE);
        if (state == FDN_LIMITER_BUSY || atomic_load(at.print) != debit->print)
            continue;
        /* After the state, and by a clock that is not behind any that the key went by: nothing in the state is dated later (6). */
        uint64_t next = without(t->algorithm, debit, state, fdn_limiter_read_clock(t, fdn_limiter_all_coarse(t, debit->period_ms)));
        left = next != state;
        fdn_step(FDN_STEP_FREE);
        given = left && fdn_limiter_exchange(t, at, debit->print, state, next);
    }
    pthread_mutex_unlock(&s->lock);
    return given;
}

/* ---- counts --------------------------------------------------------------------------------------------------------------------- */

static bool countable(const fdn_limiter *t, const fdn_limiter_rule *rule)
{
    return t->algorithm != FDN_LIMITER_LEASE && (t->algorithm != FDN_LIMITER_GCRA || rule->emission != 0);
}

uint64_t fdn_limiter_charge(fdn_limiter *t, const fdn_limiter_rule *rule, uint64_t hash, uint64_t n)
{
    if (!countable(t, rule))
        return 0;
    fdn_limiter_outcome out = fdn_limiter_change_key(t, t->algorithm, rule, charge_change, n, 0, hash);
    return out.full ? 0 : out.answer.value;
}

uint64_t fdn_limiter_used(fdn_limiter *t, const fdn_limiter_rule *rule, uint64_t hash)
{
    return fdn_limiter_charge(t, rule, hash, 0);
}

uint64_t fdn_limiter_set_used(fdn_limiter *t, const fdn_limiter_rule *rule, uint64_t hash, uint64_t count)
{
    if (count == 0) {
        (void)fdn_limiter_reset(t, rule->period_ms, hash);
        return 0;
    }
    if (!countable(t, rule))
        return 0;
    /* Under the lock, as all that takes consumption away: see 6 in limiter.c. */
    fdn_limiter_place place = fdn_limiter_place_of(t, fdn_limiter_print_of(hash, rule->period_ms));
    fdn_limiter_outcome out = fdn_limiter_change_locked(t, rule, set_change, count, 0, place);
    return out.full ? 0 : out.answer.value;
}
