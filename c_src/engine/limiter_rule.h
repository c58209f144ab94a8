/*
 * limiter_rule.h - the arithmetic of the limiter's algorithms: what one 64-bit state word means, and what a hit makes of it.
 *
 * Pure functions of (rule, state, now, cost): no clock, no memory. The table (limiter.c) keeps one such word a key and replaces it by
 * one CAS. In every algorithm the word 0 is the state of a key that was never seen, any word whose time lies in the past is worth as
 * much as 0, and the word of all ones never occurs: the table uses it as a mark.
 *
 *     gcra           [ theoretical arrival time, 1/16 ns since the table's epoch : 64 ]
 *     fixed_window   [ end of the window, ms since the table's epoch : 40 | units used in it : 24 ]
 *
 * GCRA (ITU-T I.371, the generic cell rate algorithm): a hit of cost c moves the arrival time TAT to max(TAT, now) + c * emission and
 * is allowed while that stays within `span` = burst * emission of now. The emission interval is period / limit, rounded up, so the rate
 * is never above the one asked for; the unit of 1/16 ns keeps the rounding below 6.25 % even at the highest rate (1 unit a ns).
 *
 * fixed_window: a window opens with the first hit of the key and closes period ms later. The first hit's time is rounded up to the
 * next millisecond and the present is rounded down, so a window is never shorter than the period.
 *
 * A `now` that is older than the state (another thread read the clock later but came first) only makes the answer stricter.
 *
 * Ranges; everything outside is refused by fdn_limiter_rule_make or fdn_limiter_cost_fits, and inside nothing can overflow:
 *     period     1 .. 31622400000 ms (366 days)
 *     limit      0, or gcra: up to one a nanosecond (period in ns); fixed_window: up to 16777214
 *     burst      gcra: 1 .. such that burst * emission stays below 2^61 units (4.5 years)
 *     cost       0 .. burst (gcra) or limit (fixed_window); any cost where the limit is 0, which denies everything
 *     now        below 2^59 ns (18 years) after the table was made
 */
#ifndef FDN_LIMITER_RULE_H
#define FDN_LIMITER_RULE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/fdn_clock.h"

typedef enum { FDN_LIMITER_GCRA, FDN_LIMITER_FIXED_WINDOW } fdn_limiter_algorithm;

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
#define FDN_LIMITER_MAX_SPAN (1ULL << 61)
#define FDN_LIMITER_MAX_NOW_NS (1ULL << 59)

#define FDN_LIMITER_FRESH 0ULL /* a key never seen */
#define FDN_LIMITER_NEVER UINT64_MAX

/* A limit, prepared for use. */
typedef struct {
    uint64_t period_ms; /* 0: no rule */
    uint64_t units;     /* the most that is admitted at once: burst or limit; 0 denies everything */
    uint64_t emission;  /* gcra: 1/16 ns a unit of cost */
    uint64_t span;      /* gcra: units * emission */
} fdn_limiter_rule;

static inline fdn_limiter_fit fdn_limiter_rule_make(fdn_limiter_algorithm algorithm, uint64_t limit, uint64_t period_ms, uint64_t burst,
                                                    fdn_limiter_rule *rule)
{
    if (period_ms == 0 || period_ms > FDN_LIMITER_MAX_PERIOD_MS)
        return FDN_LIMITER_BAD_PERIOD;
    *rule = (fdn_limiter_rule){.period_ms = period_ms};
    if (limit == 0)
        return FDN_LIMITER_FITS;
    if (algorithm == FDN_LIMITER_FIXED_WINDOW) {
        rule->units = limit;
        return limit <= FDN_LIMITER_MAX_FIXED_LIMIT ? FDN_LIMITER_FITS : FDN_LIMITER_BAD_LIMIT;
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

/* Whether a key in this state has its whole budget. `state` is not the mark FDN_LIMITER_NEVER. */
static inline bool fdn_limiter_expired(fdn_limiter_algorithm algorithm, uint64_t state, uint64_t now_ns)
{
    return algorithm == FDN_LIMITER_GCRA ? state <= now_ns * 16 : state >> 24 <= now_ns / FDN_NS_PER_MS;
}

/* Milliseconds, rounded up, until the state is expired. */
static inline uint64_t fdn_limiter_expires_in_ms(fdn_limiter_algorithm algorithm, uint64_t state, uint64_t now_ns)
{
    if (fdn_limiter_expired(algorithm, state, now_ns))
        return 0;
    if (algorithm == FDN_LIMITER_GCRA)
        return (state - now_ns * 16 + 16 * FDN_NS_PER_MS - 1) / (16 * FDN_NS_PER_MS);
    return (state >> 24) - now_ns / FDN_NS_PER_MS;
}

/* Whether `a` stands for less consumed budget than `b`: the one to evict. */
static inline bool fdn_limiter_consumed_less(fdn_limiter_algorithm algorithm, uint64_t a, uint64_t b)
{
    if (algorithm == FDN_LIMITER_GCRA)
        return a < b;
    uint64_t used_a = a & 0xffffff, used_b = b & 0xffffff;
    return used_a != used_b ? used_a < used_b : a < b;
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

/*
 * Decide a hit. Allowed: true, *next is the new state, *value what remains. Denied: false, *value is the number of milliseconds after
 * which the same hit is admitted if nobody else comes in between (a rule of limit 0: its period, though it will deny then too).
 * Cost 0 asks without taking: allowed where a hit of cost 1 would be, *value is what remains now; *next is not to be stored.
 */
static inline bool fdn_limiter_decide(fdn_limiter_algorithm algorithm, const fdn_limiter_rule *rule, uint64_t state, uint64_t now_ns,
                                      uint64_t cost, uint64_t *next, uint64_t *value)
{
    if (rule->units == 0) {
        *value = rule->period_ms;
        return false;
    }
    return algorithm == FDN_LIMITER_GCRA ? fdn_limiter_gcra(rule, state, now_ns, cost, next, value)
                                         : fdn_limiter_fixed_window(rule, state, now_ns, cost, next, value);
}

#endif
