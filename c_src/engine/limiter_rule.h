/*
 * limiter_rule.h - the arithmetic of the limiter's algorithms: what one 64-bit state word means, and what a hit makes of it.
 *
 * Pure functions of (rule, state, now, cost): no clock, no memory. The table (limiter.c) keeps one such word a key and replaces it by
 * one CAS. In every algorithm the word 0 is the state of a key that was never seen, any word whose time lies in the past is worth as
 * much as 0, and the word of all ones never occurs: the table uses it as a mark.
 *
 *     gcra           [ theoretical arrival time, 1/16 ns since the table's epoch : 64 ]
 *     fixed_window   [ end of the window, ms since the table's epoch : 40 | units used in it : 24 ]
 *     sliding_window [ s : 5 | when the key is at rest, in 2^s ms since the table's epoch : 39 - s | previous : c | current : c ]
 *     lease          [ end, ms since the table's epoch : 40 | closed : 1 | units left of it : 23 ]
 *
 * GCRA (ITU-T I.371, the generic cell rate algorithm): a hit of cost c moves the arrival time TAT to max(TAT, now) + c * emission and
 * is allowed while that stays within `span` = burst * emission of now. The emission interval is period / limit, rounded up, so the rate
 * is never above the one asked for; the unit of 1/16 ns keeps the rounding below 6.25 % even at the highest rate (1 unit a ns).
 *
 * fixed_window: a window opens with the first hit of the key and closes period ms later. The first hit's time is rounded up to the
 * next millisecond and the present is rounded down, so a window is never shorter than the period.
 *
 * sliding_window is the weighted two-window counter. Windows are `period` long and lie at multiples of it. A hit is allowed while
 * previous * (what is left of this window) / period + current, with its cost, is within the limit; previous and current are the units
 * admitted in the window before this one and in this one. The comparison is exact, in integers multiplied by the period; the present is
 * rounded down to the millisecond, which counts more of the previous window. s = floor(log2(period)), at most 31, and each count has
 * c = (20 + s) / 2 bits: a longer period admits more and needs its end less exactly. The end says which window is the current one,
 * too: window i is at rest at (i + 2) * period, rounded up to 2^s ms, which is no more than the period, so no two windows share an end.
 *
 * lease is no limit of its own but a share of one that is kept elsewhere: units granted until a moment, debited over there before. A
 * key without a lease has nothing, so losing one only admits less. What a lease cannot give is denied: with FDN_LIMITER_ASK, which
 * means that its owner may have more, or, where the owner said that there is none before the end (closed), with the time until then.
 *
 * A `now` that is older than the state (another thread read the clock later but came first) only makes the answer stricter.
 *
 * Ranges; everything outside is refused by fdn_limiter_rule_make or fdn_limiter_cost_fits, and inside nothing can overflow:
 *     period     1 .. 31622400000 ms (366 days)
 *     limit      0, or gcra: up to one a nanosecond (period in ns); fixed_window: up to 16777214; sliding_window: up to 2^c - 1, which
 *                is 1023 at 1 ms, 16383 at 1 s, 131071 at 1 min, 1048575 at 1 h, 8388607 at 1 day, 33554431 from 25 days on
 *     burst      gcra: 1 .. such that burst * emission stays below 2^61 units (4.5 years)
 *                lease: what the owner's algorithm allows; it holds up to 8388606 units
 *     cost       0 .. burst (gcra) or limit (the others); any cost where the limit is 0, which denies everything
 *     now        up to 2^59 ns (18 years) after the table was made; sliding_window: 2^38 ms (8.7 years), where its time stands still
 */
#ifndef FDN_LIMITER_RULE_H
#define FDN_LIMITER_RULE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/fdn_clock.h"

/* Where the compiler's own judgement costs a hit some nanoseconds. */
#define FDN_INLINE inline __attribute__((always_inline))
#define FDN_NOINLINE __attribute__((noinline))

typedef enum { FDN_LIMITER_GCRA, FDN_LIMITER_FIXED_WINDOW, FDN_LIMITER_SLIDING_WINDOW, FDN_LIMITER_LEASE } fdn_limiter_algorithm;

/* Which argument lies outside its range; 0: none. */
typedef enum {
    FDN_LIMITER_FITS,
    FDN_LIMITER_BAD_PERIOD,
    FDN_LIMITER_BAD_LIMIT,
    FDN_LIMITER_BAD_BURST,
    FDN_LIMITER_BAD_CAPACITY,
    FDN_LIMITER_BAD_ALGORITHM
} fdn_limiter_fit;

#define FDN_LIMITER_MAX_PERIOD_MS (366ULL * 86400 * 1000)
#define FDN_LIMITER_MAX_FIXED_LIMIT ((1ULL << 24) - 2)
#define FDN_LIMITER_LEASE_COUNT ((1ULL << 23) - 1) /* the bits that count what is left */
#define FDN_LIMITER_MAX_LEASE ((1ULL << 23) - 2)
#define FDN_LIMITER_MAX_SPAN (1ULL << 61)
#define FDN_LIMITER_MAX_WAIT_MS (FDN_LIMITER_MAX_SPAN / (16 * FDN_NS_PER_MS)) /* of a reservation */
#define FDN_LIMITER_MAX_AHEAD (2 * FDN_LIMITER_MAX_SPAN) /* of gcra's arrival time: a full budget, and the longest wait */
#define FDN_LIMITER_MAX_NOW_NS (1ULL << 59)
#define FDN_LIMITER_MAX_SLIDING_NOW_MS (1ULL << 38)

#define FDN_LIMITER_FRESH 0ULL /* a key never seen */
#define FDN_LIMITER_NEVER UINT64_MAX
#define FDN_LIMITER_ASK UINT64_MAX /* in the place of a time to wait */

/* A limit, prepared for use. */
typedef struct {
    uint64_t period_ms; /* 0: no rule */
    uint64_t units;     /* the most that is admitted at once: burst or limit; 0 denies everything */
    uint64_t emission;  /* gcra: 1/16 ns a unit of cost */
    uint64_t span;      /* gcra: units * emission */
} fdn_limiter_rule;

/* How many bits of time a sliding window's word leaves out for this period, and how many each of its counts has. */
static inline unsigned fdn_limiter_sliding_shift(uint64_t period_ms)
{
    unsigned log = 63 - (unsigned)__builtin_clzll(period_ms | 1);
    return log < 31 ? log : 31;
}

static inline unsigned fdn_limiter_sliding_count_bits(unsigned shift)
{
    return (20 + shift) / 2;
}

/* The largest limit of sliding_window for a period. */
static inline uint64_t fdn_limiter_sliding_max(uint64_t period_ms)
{
    return (1ULL << fdn_limiter_sliding_count_bits(fdn_limiter_sliding_shift(period_ms))) - 1;
}

static inline fdn_limiter_fit fdn_limiter_rule_make(fdn_limiter_algorithm algorithm, uint64_t limit, uint64_t period_ms, uint64_t burst,
                                                    fdn_limiter_rule *rule)
{
    if (period_ms == 0 || period_ms > FDN_LIMITER_MAX_PERIOD_MS)
        return FDN_LIMITER_BAD_PERIOD;
    *rule = (fdn_limiter_rule){.period_ms = period_ms};
    if (limit == 0)
        return FDN_LIMITER_FITS;
    if (algorithm != FDN_LIMITER_GCRA) {
        uint64_t most = algorithm == FDN_LIMITER_FIXED_WINDOW     ? FDN_LIMITER_MAX_FIXED_LIMIT
                        : algorithm == FDN_LIMITER_SLIDING_WINDOW ? fdn_limiter_sliding_max(period_ms)
                                                                  : UINT64_MAX;
        rule->units = limit;
        return limit <= most ? FDN_LIMITER_FITS : FDN_LIMITER_BAD_LIMIT;
    }
    uint64_t period_ns = period_ms * FDN_NS_PER_MS;
    if (limit > period_ns)
        return FDN_LIMITER_BAD_LIMIT;
    if (burst == 0)
        return FDN_LIMITER_BAD_BURST;
    rule->units = burst;
    rule->emission = (period_ns * 16 + limit - 1) / limit;
    if (__builtin_mul_overflow(burst, rule->emission, &rule->span) || rule->span > FDN_LIMITER_MAX_SPAN)
        return FDN_LIMITER_BAD_BURST;
    return FDN_LIMITER_FITS;
}

/* Whether a hit of this cost can ever be admitted (or, where the rule denies everything, be asked for). */
static inline bool fdn_limiter_cost_fits(const fdn_limiter_rule *rule, uint64_t cost)
{
    return cost <= rule->units || rule->units == 0;
}

/* Which window a sliding window's word belongs to: when it is at rest, in 2^s ms. */
static inline uint64_t fdn_limiter_sliding_mark(uint64_t state, uint64_t period_ms)
{
    return (state & ((1ULL << 59) - 1)) >> 2 * fdn_limiter_sliding_count_bits(fdn_limiter_sliding_shift(period_ms));
}

/* What a sliding window's word says by itself, without a period. Any word may be asked. */
static inline uint64_t fdn_limiter_sliding_end_ms(uint64_t state)
{
    unsigned shift = (unsigned)(state >> 59);
    return (state & ((1ULL << 59) - 1)) >> 2 * fdn_limiter_sliding_count_bits(shift) << shift;
}

static inline uint64_t fdn_limiter_sliding_sum(uint64_t state)
{
    unsigned bits = fdn_limiter_sliding_count_bits((unsigned)(state >> 59));
    uint64_t most = (1ULL << bits) - 1;
    return (state >> bits & most) + (state & most);
}

/* When, in ms rounded down, a key in this state has its whole budget; for the algorithms that keep their time in ms. */
static inline uint64_t fdn_limiter_end_ms(fdn_limiter_algorithm algorithm, uint64_t state)
{
    return algorithm == FDN_LIMITER_SLIDING_WINDOW ? fdn_limiter_sliding_end_ms(state) : state >> 24;
}

/* Whether a key in this state has its whole budget. `state` is not the mark FDN_LIMITER_NEVER. */
static inline bool fdn_limiter_expired(fdn_limiter_algorithm algorithm, uint64_t state, uint64_t now_ns)
{
    return algorithm == FDN_LIMITER_GCRA ? state <= now_ns * 16 : fdn_limiter_end_ms(algorithm, state) <= now_ns / FDN_NS_PER_MS;
}

/* Milliseconds, rounded up, until the state is expired. */
static inline uint64_t fdn_limiter_expires_in_ms(fdn_limiter_algorithm algorithm, uint64_t state, uint64_t now_ns)
{
    if (fdn_limiter_expired(algorithm, state, now_ns))
        return 0;
    if (algorithm == FDN_LIMITER_GCRA)
        return (state - now_ns * 16 + 16 * FDN_NS_PER_MS - 1) / (16 * FDN_NS_PER_MS);
    return fdn_limiter_end_ms(algorithm, state) - now_ns / FDN_NS_PER_MS;
}

/* Whether `a` stands for less consumed budget than `b` (a lease: for less that is left of it): the one to evict. */
static inline bool fdn_limiter_consumed_less(fdn_limiter_algorithm algorithm, uint64_t a, uint64_t b)
{
    if (algorithm == FDN_LIMITER_GCRA)
        return a < b;
    bool sliding = algorithm == FDN_LIMITER_SLIDING_WINDOW;
    uint64_t counts = algorithm == FDN_LIMITER_LEASE ? FDN_LIMITER_LEASE_COUNT : 0xffffff;
    uint64_t of_a = sliding ? fdn_limiter_sliding_sum(a) : a & counts, of_b = sliding ? fdn_limiter_sliding_sum(b) : b & counts;
    return of_a != of_b ? of_a < of_b : a < b;
}

static inline bool fdn_limiter_gcra(const fdn_limiter_rule *rule, uint64_t state, uint64_t now_ns, uint64_t cost, uint64_t *next,
                                    uint64_t *value)
{
    uint64_t now = now_ns * 16;
    uint64_t base = state > now ? state : now;
    uint64_t ahead = base - now + (cost ? cost : 1) * rule->emission; /* of now, once this hit is counted */
    if (ahead > rule->span) {
        *value = (ahead - rule->span + 16 * FDN_NS_PER_MS - 1) / (16 * FDN_NS_PER_MS);
        return false;
    }
    *next = now + ahead;
    *value = (rule->span - ahead) / rule->emission + (cost ? 0 : 1);
    return true;
}

static inline bool fdn_limiter_fixed_window(const fdn_limiter_rule *rule, uint64_t state, uint64_t now_ns, uint64_t cost,
                                            uint64_t *next, uint64_t *value)
{
    uint64_t now_ms = now_ns / FDN_NS_PER_MS;
    uint64_t end = state >> 24, used = state & 0xffffff;
    if (end <= now_ms) {
        used = 0;
        end = now_ms + (now_ms * FDN_NS_PER_MS != now_ns) + rule->period_ms;
    }
    if (used + (cost ? cost : 1) > rule->units) {
        *value = end - now_ms;
        return false;
    }
    *next = end << 24 | (used + cost);
    *value = rule->units - used - cost;
    return true;
}

/* A sliding window's word, read at a moment: the window that is current then, and what was admitted in it and in the one before. */
typedef struct {
    unsigned bits;              /* of each count */
    uint64_t end;               /* of the word that belongs to this window: when it is at rest, and s */
    uint64_t previous, current; /* units */
    uint64_t left_ms;           /* of the window: 1 .. period */
    uint64_t ahead_ms;          /* until it begins: 0 but for a `now` that is older than the word */
} fdn_limiter_windows;

static FDN_INLINE fdn_limiter_windows fdn_limiter_windows_at(uint64_t period_ms, uint64_t state, uint64_t now_ns)
{
    unsigned shift = fdn_limiter_sliding_shift(period_ms), bits = fdn_limiter_sliding_count_bits(shift);
    uint64_t now = now_ns / FDN_NS_PER_MS, most = (1ULL << bits) - 1, up = (1ULL << shift) - 1;
    now = now < FDN_LIMITER_MAX_SLIDING_NOW_MS ? now : FDN_LIMITER_MAX_SLIDING_NOW_MS;
    uint64_t next = now - now % period_ms + period_ms; /* window */
    uint64_t end = (next + period_ms + up) >> shift, end_before = (next + up) >> shift;
    uint64_t found = fdn_limiter_sliding_mark(state, period_ms);
    fdn_limiter_windows w = {.bits = bits, .left_ms = next - now};
    if (found > end_before) {
        w.previous = state >> bits & most;
        w.current = state & most;
        if (found > end) {
            uint64_t begin = (found << shift) / period_ms * period_ms - 2 * period_ms;
            end = found & ((1ULL << (39 - shift)) - 1); /* s = 31 leaves a bit unused, so no word is all ones */
            w.left_ms = period_ms;
            w.ahead_ms = begin > now ? begin - now : 0;
        }
    } else if (found > (next - period_ms + up) >> shift) {
        w.previous = state & most;
    }
    w.end = (uint64_t)shift << 59 | end << 2 * bits;
    return w;
}

static inline uint64_t fdn_limiter_windows_word(const fdn_limiter_windows *w)
{
    return w->end | w->previous << w->bits | w->current;
}

/* The units that count now, multiplied by the period. Below 2^61: each count has at most 25 bits, the period 35. */
static inline uint64_t fdn_limiter_windows_used(const fdn_limiter_windows *w, uint64_t period_ms)
{
    return w->previous * w->left_ms + w->current * period_ms;
}

/* Milliseconds until a hit that is denied now, of a cost within the limit, is admitted. */
static inline uint64_t fdn_limiter_windows_wait(const fdn_limiter_windows *w, const fdn_limiter_rule *rule, uint64_t cost)
{
    uint64_t room = rule->units - cost; /* for what was admitted before */
    if (room >= w->current) {
        /* In this window, or at its end: when there is no more left of it than this, and denied because there is more. */
        uint64_t left = w->previous ? (room - w->current) * rule->period_ms / w->previous : 0;
        return w->ahead_ms + w->left_ms - left;
    }
    /* In the next one, or at its end, when `current` has become the previous window's. */
    return w->ahead_ms + w->left_ms + rule->period_ms - room * rule->period_ms / w->current;
}

static FDN_INLINE bool fdn_limiter_sliding_window(const fdn_limiter_rule *rule, uint64_t state, uint64_t now_ns, uint64_t cost,
                                                  uint64_t *next, uint64_t *value)
{
    fdn_limiter_windows w = fdn_limiter_windows_at(rule->period_ms, state, now_ns);
    uint64_t used = fdn_limiter_windows_used(&w, rule->period_ms), all = rule->units * rule->period_ms;
    uint64_t wanted = cost ? cost : 1;
    if (used + wanted * rule->period_ms > all) {
        *value = fdn_limiter_windows_wait(&w, rule, wanted);
        return false;
    }
    w.current += cost;
    *next = fdn_limiter_windows_word(&w);
    *value = (all - used) / rule->period_ms - cost;
    return true;
}

static inline bool fdn_limiter_lease(uint64_t state, uint64_t now_ns, uint64_t cost, uint64_t *next, uint64_t *value)
{
    uint64_t now_ms = now_ns / FDN_NS_PER_MS, end = state >> 24, left = state & FDN_LIMITER_LEASE_COUNT;
    if (end > now_ms && left >= (cost ? cost : 1)) {
        *next = state - cost;
        *value = left - cost;
        return true;
    }
    bool closed = end > now_ms && (state >> 23 & 1);
    *value = closed ? end - now_ms : FDN_LIMITER_ASK;
    return false;
}

/*
 * Decide a hit. Allowed: true, *next is the new state, *value what remains. Denied: false, *value is the number of milliseconds after
 * which the same hit is admitted if nobody else comes in between (a rule of limit 0: its period, though it will deny then too).
 * Cost 0 asks without taking: allowed where a hit of cost 1 would be, *value is what remains now; *next is not to be stored.
 */
static FDN_INLINE bool fdn_limiter_decide(fdn_limiter_algorithm algorithm, const fdn_limiter_rule *rule, uint64_t state,
                                          uint64_t now_ns, uint64_t cost, uint64_t *next, uint64_t *value)
{
    if (rule->units == 0) {
        *value = rule->period_ms;
        return false;
    }
    if (algorithm == FDN_LIMITER_GCRA)
        return fdn_limiter_gcra(rule, state, now_ns, cost, next, value);
    if (algorithm == FDN_LIMITER_FIXED_WINDOW)
        return fdn_limiter_fixed_window(rule, state, now_ns, cost, next, value);
    if (algorithm == FDN_LIMITER_SLIDING_WINDOW)
        return fdn_limiter_sliding_window(rule, state, now_ns, cost, next, value);
    return fdn_limiter_lease(state, now_ns, cost, next, value);
}

#endif
