/*
 * explore_slots ALGORITHM deny|evict|auto LIMIT TICKS FREE OPERATIONS...: the slot protocol, on a table of one pair of buckets in which
 * FREE slots are not taken for good, from every state of keys 1 and 2 that matters, by one thread for each OPERATIONS: h (hit), t
 * (take, then give back), v (reserve, of gcra), c (charge), s (set_used, to 1), r (reset), g (grant) or a (any of h t r), each followed
 * by a key or ? (1 or 2). The clock moves TICKS times; auto: there are two of them.
 *
 * At every end: no slot is BUSY, no key has two, and there is an order of the operations, each at one moment between its call and its
 * return, in which the algorithm's own arithmetic, one operation after the other, admits what was admitted and leaves at least what is
 * left. A debit given back is not in that order, but for the fixed window that it opens. A denial is in it, and may be stricter. Where
 * there is eviction, what was admitted for one key may have been the end of another. Not to be combined: a debit and what takes it away
 * before it is given back (r and h, s of one key), which may admit more, as limiter.h says.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fdn_error.h"
#include "engine/limiter_file.h"
#include "engine/limiter_lease.h"
#include "engine/limiter_table.h"
#include "test/model/explore.h"

#define MS FDN_NS_PER_MS
#define NOW 100 /* ms, to begin with */
#define KEYS 3
#define OPERATIONS 4 /* a thread */
#define RECORDS (3 * OPERATIONS)
#define WAIT 1 /* ms, of a reservation at most */

int explore_clock(clockid_t id, struct timespec *out);

/* ---- the table ------------------------------------------------------------------------------------------------------------------- */

static struct fdn_limiter table;
static fdn_limiter_bucket buckets[2];
static fdn_limiter_counters lanes[4];
static bool two_clocks, evicts;
static uint64_t precise_ns, coarse_ns;
static const char *scripts[3];
static unsigned script_count, ticks, free_slots;
static unsigned keys_called, keys_used; /* bits: by the operations; and those that were there before */

/* Keys 1 and 3 begin in the first bucket, key 2 in the second one; all three have stripes of their own. */
static const uint64_t prints[KEYS + 1] = {0, 0x0000000180000001, 0x8000000200000002, 0x0000000380000003};

bool fdn_limiter_file_lost(const struct fdn_limiter_file *f)
{
    return f != NULL;
}

int fdn_limiter_create(const fdn_limiter_config *config, fdn_limiter **out, fdn_limiter_fit *fit)
{
    (void)config;
    *out = NULL;
    *fit = FDN_LIMITER_FITS;
    return FDN_ENOMEM;
}

static uint64_t hash_of(unsigned key)
{
    return prints[key] ^ (table.preset.period_ms * 0x9e3779b97f4a7c15ULL);
}

int explore_clock(clockid_t id, struct timespec *out)
{
    uint64_t *clock = id == CLOCK_MONOTONIC ? &precise_ns : &coarse_ns;
    explore_before(clock, sizeof *clock, EXPLORE_LOAD);
    *out = (struct timespec){.tv_sec = (time_t)(*clock / FDN_NS_PER_S), .tv_nsec = (long)(*clock % FDN_NS_PER_S)};
    return 0;
}

/* Of two clocks, key 1 goes by the coarse one, through the preset rule, and the others by the precise one. */
static fdn_limiter_rule called_for;

static const fdn_limiter_rule *rule_of(unsigned key)
{
    return key == 1 ? &table.preset : &called_for;
}

static uint64_t now_ms(unsigned key)
{
    return (two_clocks ? key == 1 ? coarse_ns : precise_ns : *(uint64_t *)(void *)&table.manual_ns) / MS;
}

/* A state of which `units` are consumed, that ends in `ends` ms from NOW (gcra: it follows from the units). */
static uint64_t word(unsigned units, unsigned ends)
{
    switch (table.algorithm) {
    case FDN_LIMITER_GCRA:
        return (uint64_t)(NOW + ends) * MS * 16;
    case FDN_LIMITER_SLIDING_WINDOW: {
        uint64_t next = 0, value;
        fdn_limiter_decide(table.algorithm, &table.preset, 0, (NOW + ends - 2 * table.preset.period_ms) * MS, units, &next, &value);
        return next;
    }
    default:
        return (uint64_t)(NOW + ends) << 24 | units;
    }
}

/* What a key may have been left in, NOW. */
static unsigned beginnings(void)
{
    return table.algorithm == FDN_LIMITER_SLIDING_WINDOW ? 4 : 3;
}

static uint64_t beginning(unsigned i)
{
    unsigned all = (unsigned)table.preset.units;
    return i == 0 ? 0 : word(i == 3 ? 1 : all, i - 1);
}

static void set_slot(unsigned slot, uint64_t print, uint64_t state)
{
    atomic_store(&buckets[slot % 2].print[slot / 2], state ? print : 0);
    atomic_store(&buckets[slot % 2].state[slot / 2], state);
}

static void begin(uint64_t first, uint64_t second)
{
    uint64_t full = table.algorithm == FDN_LIMITER_GCRA             ? 1ULL << 60
                    : table.algorithm == FDN_LIMITER_SLIDING_WINDOW ? 0x0fffffffffffffffULL
                                                                    : 1ULL << 60 | 0x7fffff;
    for (unsigned i = 0; i < 2 * FDN_LIMITER_SLOTS; i++)
        set_slot(i, 0xff00000000000000 + i, full);
    set_slot(0, prints[1], first);
    if (free_slots > 1)
        set_slot(1, prints[2], second);
    atomic_store(&table.manual_ns, NOW * MS);
    precise_ns = coarse_ns = NOW * MS;
}

/* ---- what happened --------------------------------------------------------------------------------------------------------------- */

typedef struct {
    uint64_t value, end;                 /* end: of a grant */
    uint32_t after;                      /* bits: the records of what had returned when this was called */
    uint8_t what, key, called, returned; /* ms since NOW */
    bool done, allowed;
    uint8_t pad[6];
} record;

static record records[RECORDS];

static record *call(unsigned thread, unsigned n, char what, unsigned key)
{
    uint32_t after = 0;
    for (unsigned i = 0; i < RECORDS; i++)
        after |= (uint32_t)records[i].done << i;
    record *r = &records[thread * OPERATIONS + n];
    *r = (record){.after = after, .what = (uint8_t)what, .key = (uint8_t)key, .called = (uint8_t)(now_ms(key) - NOW)};
    return r;
}

static void returned(record *r, fdn_limiter_answer answer)
{
    r->allowed = answer.allowed;
    r->value = answer.allowed ? answer.value : 0;
    r->returned = (uint8_t)(now_ms(r->key) - NOW);
    r->done = true;
}

static void operate(unsigned thread, unsigned n, char what, unsigned key)
{
    fdn_limiter_debit debit;
    const fdn_limiter_rule *rule = rule_of(key);
    record *r = call(thread, n, what, key);
    switch (what) {
    case 'h':
        returned(r, fdn_limiter_hit(&table, thread, rule, hash_of(key), 1));
        break;
    case 't':
        returned(r, fdn_limiter_take(&table, thread, rule, hash_of(key), 1, &debit));
        fdn_limiter_give_back(&table, &debit);
        break;
    case 'v':
        returned(r, fdn_limiter_reserve(&table, thread, rule, hash_of(key), 1, WAIT, &debit));
        break;
    case 'c':
        returned(r, (fdn_limiter_answer){fdn_limiter_charge(&table, rule, hash_of(key), 1) != 0, 0});
        break;
    case 's':
        returned(r, (fdn_limiter_answer){fdn_limiter_set_used(&table, rule, hash_of(key), 1) != 0, 0});
        break;
    case 'r':
        fdn_limiter_reset(&table, rule->period_ms, hash_of(key));
        returned(r, (fdn_limiter_answer){true, 0});
        break;
    default:
        r->end = fdn_limiter_read_clock(&table, false) / MS + rule->period_ms;
        returned(r, (fdn_limiter_answer){fdn_limiter_grant(&table, rule, hash_of(key), 1, r->end, false), 0});
    }
}

static void worker(uintptr_t thread)
{
    const char *script = scripts[thread];
    for (unsigned n = 0; script[2 * n] != 0; n++) {
        char what = script[2 * n], key = script[2 * n + 1];
        if (what == 'a')
            what = "htr"[explore_choose(3)];
        operate((unsigned)thread, n, what, key == '?' ? 1 + explore_choose(2) : (unsigned)(key - '0'));
    }
}

static void set_clock(uint64_t *clock, uint64_t ns)
{
    explore_before(clock, sizeof *clock, EXPLORE_STORE);
    *clock = ns;
    explore_changed();
}

static void clocks(uintptr_t unused)
{
    for (unsigned i = 1; i <= ticks; i++) {
        if (!two_clocks) {
            set_clock((uint64_t *)(void *)&table.manual_ns, (NOW + i) * MS);
            continue;
        }
        set_clock(&precise_ns, (NOW + i) * MS);
        if (explore_choose(2))
            set_clock(&coarse_ns, (NOW + i) * MS);
    }
}

/* ---- whether that was right ------------------------------------------------------------------------------------------------------ */

static uint64_t first_states[KEYS + 1], left[KEYS + 1]; /* at the end */

/* What is left of a key's budget by this state. */
static uint64_t left_by(uint64_t state, uint64_t ms)
{
    uint64_t next, value;
    return fdn_limiter_decide(table.algorithm, &table.preset, state, ms * MS, 0, &next, &value) ? value : 0;
}

/*
 * Whether a denial may be stricter than the algorithm alone: where the clock moved meanwhile, or others were at the key, or a debit was
 * given back, which may be in part, or there may have been no slot.
 */
static bool may_be_stricter(const record *r)
{
    bool may = r->called != r->returned || (unsigned)__builtin_popcount(keys_used) > free_slots || evicts;
    for (unsigned i = 0; i < RECORDS; i++) {
        const record *other = &records[i];
        bool together = !(other->after >> (r - records) & 1) && !(r->after >> i & 1);
        may = may || (other != r && other->key == r->key && (together || other->what == 't'));
    }
    return may;
}

/* A unit more, whether it is admitted or not. */
static uint64_t charged(uint64_t state, uint64_t ms)
{
    const uint64_t period = table.preset.period_ms;
    if (table.algorithm == FDN_LIMITER_GCRA)
        return (state > ms * MS * 16 ? state : ms * MS * 16) + table.preset.emission;
    if (table.algorithm == FDN_LIMITER_FIXED_WINDOW)
        return state >> 24 > ms ? state + 1 : (ms + period) << 24 | 1;
    fdn_limiter_windows w = fdn_limiter_windows_at(period, state, ms * MS);
    w.current++;
    return fdn_limiter_windows_word(&w);
}

/* Do this to the key's state at this moment, as the algorithm alone would. False: it would not admit it. */
static bool alone(const record *r, uint64_t ms, uint64_t *state)
{
    uint64_t next = 0, value;
    if (r->what == 'r') {
        *state = FDN_LIMITER_FRESH;
    } else if (r->what == 'c' || r->what == 's') {
        bool anew = r->what == 's' && (table.algorithm != FDN_LIMITER_FIXED_WINDOW || *state >> 24 <= ms);
        if (r->allowed)
            *state = charged(r->what == 'c' ? *state : anew ? FDN_LIMITER_FRESH : *state >> 24 << 24, ms);
    } else if (r->what == 'v') {
        next = charged(*state, ms);
        if (r->allowed)
            *state = next;
        return !r->allowed || next - ms * MS * 16 <= table.preset.span + WAIT * MS * 16;
    } else if (r->what == 'g' && r->allowed) {
        uint64_t end = *state >> 24, units = end > ms ? *state & FDN_LIMITER_LEASE_COUNT : 0;
        *state = (units != 0 && end < r->end ? end : r->end) << 24 | (units + 1);
        return r->end > ms;
    } else if (r->allowed) {
        bool admitted = fdn_limiter_decide(table.algorithm, &table.preset, *state, ms * MS, 1, &next, &value);
        if (r->what == 'h')
            *state = next;
        else if (table.algorithm == FDN_LIMITER_FIXED_WINDOW && *state >> 24 <= ms)
            *state = next - 1;
        return r->what == 't' || (admitted && r->value <= value);
    } else if (r->what == 'h') {
        return may_be_stricter(r) || !fdn_limiter_decide(table.algorithm, &table.preset, *state, ms * MS, 1, &next, &value);
    }
    return true;
}

/* Whether one of these had returned before that one was called. */
static bool before_one_of(unsigned i, uint32_t these)
{
    for (unsigned j = 0; j < RECORDS; j++) {
        if ((these >> j & 1) && (records[j].after >> i & 1))
            return true;
    }
    return false;
}

/*
 * Whether there is an order for the operations on this key, which are `all`; `ends`: those that may have evicted it. But for that, keys
 * have nothing to do with each other.
 */
static bool explained(unsigned key, uint32_t done, uint32_t all, uint32_t ends, uint64_t ms, uint64_t state)
{
    if ((done & all) == all && left[key] <= left_by(state, now_ms(key)))
        return true;
    for (unsigned i = 0; i < RECORDS; i++) {
        const record *r = &records[i];
        if (!((all | ends) >> i & 1) || (done >> i & 1) || (r->after & all & ~done) != 0 || before_one_of(i, done))
            continue;
        for (uint64_t at = NOW + (uint64_t)r->called; at <= NOW + (uint64_t)r->returned; at++) {
            uint64_t next = ends >> i & 1 ? FDN_LIMITER_FRESH : state;
            if (at >= ms && ((ends >> i & 1) || alone(r, at, &next)) && explained(key, done | 1U << i, all, ends, at, next))
                return true;
        }
    }
    return false;
}

/* What there is no order for. */
static void tell(unsigned key)
{
    printf("key %u, at first %llx: ", key, (unsigned long long)first_states[key]);
    for (unsigned i = 0; i < RECORDS; i++) {
        const record *r = &records[i];
        if (r->key == key)
            printf("%c%u by %u in %u..%u ms %s (%llu left); ", r->what, key, i / OPERATIONS, r->called, r->returned,
                   r->allowed ? "yes" : "no", (unsigned long long)r->value);
    }
    printf("at the end %llu\n", (unsigned long long)left[key]);
}

static void at_end(void)
{
    for (unsigned i = 0; i < 2 * FDN_LIMITER_SLOTS; i++) {
        uint64_t print = atomic_load(&buckets[i % 2].print[i / 2]);
        if (atomic_load(&buckets[i % 2].state[i / 2]) == FDN_LIMITER_BUSY)
            explore_violated("no slot is left busy");
        for (unsigned j = 0; j < i; j++) {
            if (print != 0 && atomic_load(&buckets[j % 2].print[j / 2]) == print)
                explore_violated("a key has one slot");
        }
    }
    for (unsigned k = 1; k <= KEYS; k++) {
        fdn_limiter_answer answer = fdn_limiter_hit(&table, 3, rule_of(k), hash_of(k), 0);
        left[k] = answer.allowed ? answer.value : 0;
        uint32_t all = 0, ends = 0;
        for (unsigned i = 0; i < RECORDS; i++) {
            all |= (uint32_t)(records[i].key == k) << i;
            ends |= (uint32_t)(evicts && records[i].key != k && records[i].what != 'r' && records[i].allowed) << i;
        }
        if (!explained(k, 0, all, ends, NOW, first_states[k])) {
            tell(k);
            explore_violated("one moment for each operation");
        }
    }
}

/* ---- begin ----------------------------------------------------------------------------------------------------------------------- */

static void make(const char *algorithm, const char *full, unsigned limit)
{
    static const char *const names[] = {"gcra", "fixed", "sliding", "lease"};
    unsigned a = 0;
    while (strcmp(names[a], algorithm) != 0)
        a++;
    two_clocks = strcmp(full, "auto") == 0;
    evicts = strcmp(full, "evict") == 0;
    table.algorithm = (fdn_limiter_algorithm)a;
    table.clock = two_clocks ? FDN_LIMITER_AUTO : FDN_LIMITER_MANUAL;
    table.preset_coarse = true;
    table.config = (fdn_limiter_config){.algorithm = a, .on_full = evicts ? FDN_LIMITER_EVICT : FDN_LIMITER_DENY, .capacity = 1};
    table.buckets = buckets;
    table.bucket_count = 2;
    table.lanes = lanes;
    table.preset = (fdn_limiter_rule){.period_ms = 2, .units = limit};
    if (a == FDN_LIMITER_GCRA) {
        table.preset.emission = 16 * MS;
        table.preset.span = limit * table.preset.emission;
    }
    table.coarse_from_ms = 1000;
    called_for = table.preset;
}

int main(int argc, char **argv)
{
    if (argc < 7) {
        fprintf(stderr, "usage: explore_slots ALGORITHM deny|evict|auto LIMIT TICKS FREE OPERATIONS...\n");
        return 2;
    }
    make(argv[1], argv[2], (unsigned)strtoul(argv[3], NULL, 10));
    ticks = (unsigned)strtoul(argv[4], NULL, 10);
    free_slots = (unsigned)strtoul(argv[5], NULL, 10);
    explore_state(records, sizeof records);
    for (int i = 6; i < argc; i++) {
        scripts[script_count] = argv[i];
        for (const char *k = argv[i]; *k != 0; k++)
            keys_called |= *k == '?' ? 6U : *k <= '3' ? 1U << (*k - '0') : 0;
        explore_thread(worker, script_count++);
    }
    explore_thread(clocks, 0);
    for (unsigned first = 0; first < beginnings(); first++) {
        for (unsigned second = 0; second < (free_slots > 1 ? beginnings() : 1); second++) {
            first_states[1] = beginning(first);
            first_states[2] = free_slots > 1 ? beginning(second) : 0;
            begin(first_states[1], first_states[2]);
            keys_used = keys_called | (unsigned)(first != 0) << 1 | (unsigned)(second != 0) << 2;
            explore(at_end);
        }
    }
    explore_summary();
    return 0;
}
