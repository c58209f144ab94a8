/*
 * limiter_lease.h - a budget that several machines share: one of them keeps it and lends parts of it to the others.
 *
 *     keeper      debits units in its own table, and tells how many they are and how long they are good for      fdn_limiter_lend
 *     borrower    takes hits from what it was lent, until that is used up or its time is over                    fdn_limiter_lease_hit
 *
 * Units are debited before they are lent, and come back to nobody: whatever gets lost on the way, or is not used in time, only admits
 * less. Those of a window are good until that window ends. Those of gcra are good for as long as their debit takes to be regained, so
 * that what is admitted in any span of time exceeds what the keeper would admit alone by the largest loan at most.
 *
 * A machine is a keeper for some keys and a borrower for others, so a table for leases stands beside the limiter's own. The functions
 * below whose names have `lease` want it to be there. A lease is found by its key, its period, and its limit where a hit brought that.
 */
#ifndef FDN_LIMITER_LEASE_H
#define FDN_LIMITER_LEASE_H

#include "engine/limiter.h"

/*
 * Make it, of the same capacity, before others know the limiter; it goes with the limiter. From then on both go by the precise clock,
 * unless theirs is manual. 0 or FDN_ENOMEM.
 */
int fdn_limiter_lease_add(fdn_limiter *t);

typedef struct {
    bool granted;
    uint64_t units; /* granted: what was debited, `cost` of it for the hit itself */
    uint64_t value; /* granted: what the key has left; else milliseconds until the same hit would be admitted */
    uint64_t ms;    /* granted: how long the rest of the units is good for; else how long no hit is admitted, 0: a smaller one is now */
} fdn_limiter_loan;

/*
 * By the keeper: take `cost` (above 0), and of what is left then one part in `share` (0: nothing) to lend. Counted as no hit. Times
 * are rounded down, and shortened by a 256th, so that a borrower whose clock is slower by so much is not late.
 */
fdn_limiter_loan fdn_limiter_lend(fdn_limiter *t, const fdn_limiter_rule *rule, uint64_t hash, uint64_t cost, uint64_t share);

/* As fdn_limiter_hit, from what this machine was lent. Denied with FDN_LIMITER_ASK: the keeper may have more; counted as no hit. */
fdn_limiter_answer fdn_limiter_lease_hit(fdn_limiter *t, unsigned lane, const fdn_limiter_rule *rule, uint64_t hash, uint64_t cost);

/* The borrower's clock in ms, to be read before the keeper is asked: what he says about time counts from a later moment. */
uint64_t fdn_limiter_lease_now(fdn_limiter *t);

/*
 * Add to the key's lease, of a lease table: units that may be taken until end_ms by its clock, and whether there is nothing more before
 * then. To what is left of a living lease they are added, and the end is the earlier one. False: nothing was kept, as that time is over
 * or the table full.
 */
bool fdn_limiter_grant(fdn_limiter *leases, const fdn_limiter_rule *rule, uint64_t hash, uint64_t units, uint64_t end_ms, bool closed);

/*
 * Keep what was lent, good until end_ms by the clock of fdn_limiter_lease_now, or (closed) that there is nothing until then, by
 * fdn_limiter_grant.
 */
void fdn_limiter_lease_keep(fdn_limiter *t, const fdn_limiter_rule *rule, uint64_t hash, uint64_t units, uint64_t end_ms, bool closed);

/* Forget what the key has been lent under this limit, and that it has nothing. */
void fdn_limiter_lease_forget(fdn_limiter *t, const fdn_limiter_rule *rule, uint64_t hash);

/* Forget of all keys that they have nothing. About 1 ms for each 100 000 keys of capacity. */
void fdn_limiter_lease_reopen(fdn_limiter *t);

#endif
