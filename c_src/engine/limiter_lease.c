/*
 * limiter_lease.c - lending of budget between machines. The lease table is a limiter's table like any other (limiter.c), of the
 * algorithm FDN_LIMITER_LEASE.
 */
#include "engine/limiter_lease.h"

#include "base/fdn_atomic.h"
#include "base/fdn_error.h"
#include "engine/limiter_table.h"

#define CLOSED (1ULL << 23)

/* ---- the keeper ----------------------------------------------------------------------------------------------------------------- */

static uint64_t part_of(uint64_t left, uint64_t share)
{
    uint64_t part = share != 0 ? left / share : 0;
    return part < FDN_LIMITER_MAX_LEASE ? part : FDN_LIMITER_MAX_LEASE;
}

/* Where a change has an argument for time, this one has the share. */
static bool lend_change(fdn_limiter_algorithm algorithm, const fdn_limiter_rule *rule, uint64_t cost, uint64_t share, uint64_t state,
                        uint64_t now_ns, uint64_t *next, fdn_limiter_answer *answer)
{
    answer->allowed = fdn_limiter_decide(algorithm, rule, state, now_ns, cost, next, &answer->value);
    if (answer->allowed && part_of(answer->value, share) != 0)
        (void)fdn_limiter_decide(algorithm, rule, state, now_ns, cost + part_of(answer->value, share), next, &answer->value);
    return answer->allowed;
}

/* How long the units of a debit, in milliseconds rounded down, are good for. */
static uint64_t good_for(fdn_limiter_algorithm algorithm, const fdn_limiter_rule *rule, const fdn_limiter_outcome *debit,
                         uint64_t units)
{
    if (algorithm == FDN_LIMITER_GCRA)
        return units * rule->emission / (16 * FDN_NS_PER_MS);
    if (algorithm == FDN_LIMITER_FIXED_WINDOW)
        return ((debit->next >> 24) * FDN_NS_PER_MS - debit->now) / FDN_NS_PER_MS;
    fdn_limiter_windows w = fdn_limiter_windows_at(rule->period_ms, debit->next, debit->now);
    return w.ahead_ms + w.left_ms - (debit->now % FDN_NS_PER_MS != 0);
}

fdn_limiter_loan fdn_limiter_lend(fdn_limiter *t, const fdn_limiter_rule *rule, uint64_t hash, uint64_t cost, uint64_t share)
{
    fdn_limiter_outcome out = fdn_limiter_change_key(t, t->algorithm, rule, lend_change, cost, share, hash);
    fdn_limiter_loan loan = {.granted = out.answer.allowed, .units = cost, .value = out.answer.value};
    if (loan.granted && out.stored) {
        uint64_t next, left;
        (void)fdn_limiter_decide(t->algorithm, rule, out.state, out.now, cost, &next, &left);
        loan.units += part_of(left, share);
        loan.ms = good_for(t->algorithm, rule, &out, loan.units - cost);
    } else if (!loan.granted) {
        fdn_limiter_answer any = fdn_limiter_change_key(t, t->algorithm, rule, fdn_limiter_hit_change, 0, 0, hash).answer;
        loan.ms = any.allowed ? 0 : any.value;
    }
    loan.ms -= loan.ms / 256;
    return loan;
}

/* ---- the borrower --------------------------------------------------------------------------------------------------------------- */

int fdn_limiter_lease_add(fdn_limiter *t)
{
    fdn_limiter_config config = {
        .algorithm = FDN_LIMITER_LEASE, .on_full = FDN_LIMITER_EVICT, .clock = t->config.clock, .capacity = t->config.capacity};
    fdn_limiter_fit fit;
    /* The coarse clock is late by a tick, or by more where ticks come late, and a lease would live on for that. */
    if (t->clock != FDN_LIMITER_MANUAL)
        config.clock = t->clock = FDN_LIMITER_PRECISE;
    t->preset_coarse = false;
    return fdn_limiter_create(&config, &t->leases, &fit);
}

/* Limits that hits bring have leases of their own: one that was granted under a larger limit must not serve a smaller one. */
static inline uint64_t lease_hash(const fdn_limiter *t, const fdn_limiter_rule *rule, uint64_t hash)
{
    return rule == &t->preset ? hash : hash ^ (rule->units + 1) * 0xd6e8feb86659fd93ULL;
}

fdn_limiter_answer fdn_limiter_lease_hit(fdn_limiter *t, unsigned lane, const fdn_limiter_rule *rule, uint64_t hash, uint64_t cost)
{
    return fdn_limiter_hit(t->leases, lane, rule, lease_hash(t, rule, hash), cost);
}

uint64_t fdn_limiter_lease_now(fdn_limiter *t)
{
    return fdn_limiter_read_clock(t->leases, false) / FDN_NS_PER_MS;
}

static bool grant_change(uint64_t units, uint64_t end, bool closed, uint64_t state, uint64_t now_ns, uint64_t *next)
{
    uint64_t now_ms = now_ns / FDN_NS_PER_MS, old_end = state >> 24, left = state & FDN_LIMITER_LEASE_COUNT;
    if (end <= now_ms)
        return false;
    if (end > now_ms + FDN_LIMITER_MAX_PERIOD_MS)
        end = now_ms + FDN_LIMITER_MAX_PERIOD_MS;
    if (old_end <= now_ms)
        left = 0;
    else if (left != 0 && old_end < end)
        end = old_end;
    units = units < FDN_LIMITER_MAX_LEASE - left ? units : FDN_LIMITER_MAX_LEASE - left;
    *next = end << 24 | (closed ? CLOSED : 0) | (left + units);
    return true;
}

static bool grant_open(fdn_limiter_algorithm algorithm, const fdn_limiter_rule *rule, uint64_t units, uint64_t end_ms, uint64_t state,
                       uint64_t now_ns, uint64_t *next, fdn_limiter_answer *answer)
{
    (void)algorithm;
    (void)rule;
    (void)answer;
    return grant_change(units, end_ms, false, state, now_ns, next);
}

static bool grant_closed(fdn_limiter_algorithm algorithm, const fdn_limiter_rule *rule, uint64_t units, uint64_t end_ms, uint64_t state,
                         uint64_t now_ns, uint64_t *next, fdn_limiter_answer *answer)
{
    (void)algorithm;
    (void)rule;
    (void)answer;
    return grant_change(units, end_ms, true, state, now_ns, next);
}

bool fdn_limiter_grant(fdn_limiter *leases, const fdn_limiter_rule *rule, uint64_t hash, uint64_t units, uint64_t end_ms, bool closed)
{
    fdn_limiter_place place = fdn_limiter_place_of(leases, fdn_limiter_print_of(hash, rule->period_ms));
    return fdn_limiter_change_locked(leases, rule, closed ? grant_closed : grant_open, units, end_ms, place).stored;
}

void fdn_limiter_lease_keep(fdn_limiter *t, const fdn_limiter_rule *rule, uint64_t hash, uint64_t units, uint64_t end_ms, bool closed)
{
    (void)fdn_limiter_grant(t->leases, rule, lease_hash(t, rule, hash), units, end_ms, closed);
}

void fdn_limiter_lease_forget(fdn_limiter *t, const fdn_limiter_rule *rule, uint64_t hash)
{
    (void)fdn_limiter_reset(t->leases, rule->period_ms, lease_hash(t, rule, hash));
}

/* A change that is right for whatever key the slot holds: the claim of a slot is the only state to leave alone. */
void fdn_limiter_lease_reopen(fdn_limiter *t)
{
    for (uint64_t i = 0; i < t->leases->bucket_count; i++) {
        for (int j = 0; j < FDN_LIMITER_SLOTS; j++) {
            _Atomic uint64_t *at = &t->leases->buckets[i].state[j];
            uint64_t state = atomic_load(at);
            while (state != FDN_LIMITER_BUSY && (state & CLOSED) != 0 && !atomic_compare_exchange_strong(at, &state, state & ~CLOSED))
                ;
        }
    }
}
