/*
 * limiter.h - one rate limiter: a fixed table of keys, one 64-bit compare-and-swap a hit.
 *
 *     buckets, 64 bytes each, one cache line         a key lives in one slot of one of its two buckets
 *     +----------------------------+----------------------------+
 *     | fingerprint 0 1 2 3        | state 0 1 2 3              |
 *     +----------------------------+----------------------------+
 *
 * fingerprint: keyed SipHash of the key's canonical bytes, with the period mixed in, so one key under two periods is two keys here. The
 * table knows no other form of the key. 0 marks a slot never used.
 * state: the word of limiter_rule.h, or BUSY (all ones) while an insertion changes the slot's fingerprint.
 *
 * The table never grows. It is sized so that `capacity` keys load it to 50 %; a key finds both its buckets full for about one key in
 * 30 000 at that load, and then `on_full` speaks. A slot whose state is expired is free, so there is no sweeper.
 *
 * Any thread may call any function at any time, except fdn_limiter_destroy, which wants to be alone (limiter_names.h arranges that).
 * The protocol and its proof stand at the top of limiter.c.
 */
#ifndef FDN_LIMITER_H
#define FDN_LIMITER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/fdn_hash.h"
#include "engine/limiter_rule.h"

typedef enum { FDN_LIMITER_EVICT, FDN_LIMITER_DENY, FDN_LIMITER_ALLOW } fdn_limiter_on_full;
typedef enum { FDN_LIMITER_AUTO, FDN_LIMITER_PRECISE, FDN_LIMITER_COARSE, FDN_LIMITER_MANUAL } fdn_limiter_clock;

#define FDN_LIMITER_MAX_CAPACITY (1ULL << 31)

/* Counters are kept by lanes, one a thread, each in a cache line of its own. Lane 0 is for all threads that got none of their own. */
#define FDN_LIMITER_LANES 2560

/* How a table is made. period_ms 0: no preset limit, every hit brings its own. */
typedef struct {
    uint32_t algorithm, on_full, clock;
    uint32_t tags;                    /* the caller's, and mean nothing here: what it wants to know at a hit, */
    uint64_t label;                   /* and what it calls the table */
    uint64_t limit, period_ms, burst; /* burst counts for gcra only */
    uint64_t capacity;                /* keys, 1 .. FDN_LIMITER_MAX_CAPACITY */
} fdn_limiter_config;

typedef struct {
    bool allowed;
    uint64_t value; /* what remains, or milliseconds until the same hit would be admitted */
} fdn_limiter_answer;

typedef struct {
    uint64_t live;            /* keys with consumed budget, counted by looking at every slot */
    uint64_t slots, bytes;    /* of the table; limiter_life.c says when they are taken from the system */
    uint64_t allowed, denied; /* hits answered so; peeks do not count */
    uint64_t full, evicted;   /* hits that found no free slot; entries evicted by them */
    uint64_t now_ms;          /* of the table's clock, since its epoch */
    bool coarse;              /* the preset limit's clock */
    bool faulted;             /* a part of the file is gone: on_full answers for keys that were there */
    uint64_t disk_bytes;      /* of the file, or 0 */
} fdn_limiter_stats;

/*
 * With what the caller hashes the keys of one table. It means nothing to the engine, which keeps it where every hit finds it; a table
 * that lives in a file has its two keys from there.
 */
typedef struct {
    uint8_t binaries[FDN_HASH_KEY_BYTES], terms[FDN_HASH_KEY_BYTES];
    uint64_t salts[2];
    bool signed_zero; /* whether 0.0 and -0.0 are different terms in this VM (since OTP 27) */
    bool lasting;     /* the hashes outlive the VM */
} fdn_limiter_secret;

/* Clocks to go by: the boot of the machine, its coarse monotonic clock, the wall clock. */
typedef struct {
    uint8_t boot[16];
    uint64_t mono_ns, wall_ns;
} fdn_limiter_moment;

/* What there is to say about opening a table's file. */
typedef struct {
    uint32_t pid;            /* FDN_ELOCKED: of the process that has it; 0 where it cannot be told */
    fdn_limiter_fit differs; /* FDN_EDIFFERS: what the file was made for with another value */
    uint64_t dropped;        /* success: slots that could not be kept */
} fdn_limiter_opening;

typedef struct fdn_limiter fdn_limiter;

/*
 * Make an empty table. Returns 0, or FDN_ENOMEM, or FDN_EINVAL with *fit telling which part of the configuration is outside its range.
 * The caller owns *out and ends it with fdn_limiter_destroy.
 */
int fdn_limiter_create(const fdn_limiter_config *config, fdn_limiter **out, fdn_limiter_fit *fit);

/*
 * The same for a table that lives in the file `path`: made where there is none, else taken up with its budgets. Limit, period, burst,
 * on_full and clock may be others than before. `at`: clocks to go by, NULL for the system's. See fdn_limiter_file_open for what else is
 * returned. The two keys of its secret come from the file.
 */
int fdn_limiter_open(const fdn_limiter_config *config, const char *path, const fdn_limiter_moment *at, fdn_limiter **out,
                     fdn_limiter_fit *fit, fdn_limiter_opening *why);

/* The path of its file, or NULL; it lives as long as the table. How many slots could not be kept when it was opened. */
const char *fdn_limiter_path(const fdn_limiter *t);
uint64_t fdn_limiter_dropped(const fdn_limiter *t);

/*
 * To be called now and then for a table with a file: note its time there, and look at it. 0; FDN_EFAULTED where it was truncated or
 * overwritten; ENOENT where its path means it no more, so that the budgets end with this table; an errno. A few system calls.
 */
int fdn_limiter_look_after(fdn_limiter *t);

/* Remove the file when the table is destroyed. */
void fdn_limiter_discard(fdn_limiter *t);

/* Give all memory back; a file is closed and stays. No other thread may be inside a call on this table. NULL is allowed. */
void fdn_limiter_destroy(fdn_limiter *t);

/* How every table begins: what a hit asks it for, without a call for each. For the functions below only. */
typedef struct {
    fdn_limiter_secret secret;
    fdn_limiter_rule preset;
    fdn_limiter_config config;
} fdn_limiter_front;

/* A table's secret, zero after fdn_limiter_create; to be filled before others know the table. It lives as long as the table. */
static inline fdn_limiter_secret *fdn_limiter_secret_of(fdn_limiter *t)
{
    return &((fdn_limiter_front *)(void *)t)->secret;
}

/* The configuration it was made with. It lives as long as the table. */
static inline const fdn_limiter_config *fdn_limiter_config_of(const fdn_limiter *t)
{
    return &((const fdn_limiter_front *)(const void *)t)->config;
}

/* Its preset rule (period_ms 0: none). It lives as long as the table. */
static inline const fdn_limiter_rule *fdn_limiter_preset(const fdn_limiter *t)
{
    return &((const fdn_limiter_front *)(const void *)t)->preset;
}

/*
 * One hit. `hash`: the keyed hash of the key. `rule`: of fdn_limiter_rule_make with this table's algorithm; `cost` fits it
 * (fdn_limiter_cost_fits). Cost 0 asks without taking anything. `lane`: the calling thread's (limiter_names.h), or 0.
 * A denied hit writes nothing but the thread's own counter.
 */
fdn_limiter_answer fdn_limiter_hit(fdn_limiter *t, unsigned lane, const fdn_limiter_rule *rule, uint64_t hash, uint64_t cost);

/*
 * ---- limiter_debit.c: debits that may be given back, and counts.
 *
 * What is needed to give an admitted debit back. Of a hit that was denied or not counted it is empty: amount 0.
 */
typedef struct {
    uint64_t print, amount, mark, period_ms;
} fdn_limiter_debit;

/* A hit, and what it took. */
fdn_limiter_answer fdn_limiter_take(fdn_limiter *t, unsigned lane, const fdn_limiter_rule *rule, uint64_t hash, uint64_t cost,
                                    fdn_limiter_debit *debit);

/*
 * A hit that may wait for its turn, of a gcra table (any other one denies). Allowed: the budget is taken, and the hit conforms in
 * `value` ms, which is at most max_wait_ms (0: now). Denied: nothing is taken, and the same call is admitted after `value` ms. Cost 0
 * asks what cost 1 would be answered. Waits are below FDN_LIMITER_MAX_WAIT_MS; a longer max_wait_ms is as good.
 * A coarse clock makes them up to a tick longer than need be.
 */
fdn_limiter_answer fdn_limiter_reserve(fdn_limiter *t, unsigned lane, const fdn_limiter_rule *rule, uint64_t hash, uint64_t cost,
                                       uint64_t max_wait_ms, fdn_limiter_debit *debit);

/*
 * Give a debit back, once, to the table that it was taken from. False: nothing of it was left, because its window is over, time gave
 * all of it back already, or the key was reset or evicted.
 *
 * The debit of fdn_limiter_take never gives back more than it still holds off others: nothing is admitted afterwards that would not
 * have been without it (limiter.c, 6); a fixed window that it opened stays open. That of fdn_limiter_reserve is whole until time has
 * given back all that was taken before it, as its owner expects; where some of that was given back by hand, the moment is in truth
 * an earlier one, and up to as much is admitted early.
 */
bool fdn_limiter_give_back(fdn_limiter *t, const fdn_limiter_debit *debit);

/*
 * Counts. The count of a key is what it has consumed and not got back yet, in units, rounded up; for fixed_window what its open window
 * has admitted. gcra needs a rule that admits something (limit above 0), and answers 0 and does nothing by any other one; a lease has
 * no count.
 *
 * charge adds n, limit or not; the count stays where the range of limits ends (gcra: at FDN_LIMITER_MAX_AHEAD). Concurrent hits and
 * charges are never lost. set_used makes the count what it says, as if the key had consumed it just now; 0 is a reset. Both insert an
 * absent key and return the new count; where the table is full, and on_full is not to evict, nothing is kept: 0.
 */
uint64_t fdn_limiter_used(fdn_limiter *t, const fdn_limiter_rule *rule, uint64_t hash);
uint64_t fdn_limiter_charge(fdn_limiter *t, const fdn_limiter_rule *rule, uint64_t hash, uint64_t n);
uint64_t fdn_limiter_set_used(fdn_limiter *t, const fdn_limiter_rule *rule, uint64_t hash, uint64_t count);

/* Give the key its whole budget back, under this period. Returns whether anything was consumed. */
bool fdn_limiter_reset(fdn_limiter *t, uint64_t period_ms, uint64_t hash);

/* Move a manual clock on. FDN_EINVAL where the clock is another one, FDN_ETOOBIG beyond the last
 * moment that its algorithm can tell (limiter_rule.h). */
int fdn_limiter_advance(fdn_limiter *t, uint64_t ms);

/* Figures; live takes a pass over the whole table (about 1 ms for each 100 000 keys of capacity). */
void fdn_limiter_stats_of(fdn_limiter *t, fdn_limiter_stats *out);

#endif
