/*
 * The slot protocol step by step: between two steps of one operation, others run whole operations, chosen at random, and the clock
 * moves. All answers, and the budgets that are left, must be those of the naive algorithm with the interrupted operation done at one
 * moment between its beginning and its end.
 */
#include <string.h>

#include "test/c/limiter_steps_fixture.h"

#define ACTIVE 6  /* of the keys at a time, so that none is refused */
#define INSIDE 7  /* most operations inside another */
#define PENDING 8 /* most debits that may be given back */
#define ROUNDS 60000

typedef enum { HIT, RESERVE, GIVE_BACK, CHARGE, SET, GRANT, RESET, ADVANCE } verb;

typedef struct {
    verb what;
    unsigned key;       /* ADVANCE: ms */
    uint64_t units, ms; /* GRANT: from when it is performed on, the moment at which it ends */
    bool closed;
    fdn_limiter_debit debit; /* what was taken, or is to be given back */
    fdn_limiter_answer answer;
} operation;

/* ---- the naive algorithm -------------------------------------------------------------------------------------------------------- */

/* Of a key, once a budget that is back is forgotten: */
typedef struct {
    uint64_t used; /* gcra: ms that are still to drain; else units of the window, or left of the lease */
    uint64_t end;  /* of the fixed window or the lease, or the sliding window's number */
    uint64_t more; /* units of the window before; whether the lease is closed */
} budget;

typedef struct {
    uint64_t now;
    budget of[KEYS];
} naive;

static void forget(budget *b, uint64_t now)
{
    if (algorithm == FDN_LIMITER_SLIDING_WINDOW) {
        uint64_t number = now / PERIOD;
        if (b->end != number)
            *b = (budget){.more = b->end + 1 == number ? b->used : 0, .end = number};
    } else if (algorithm != FDN_LIMITER_GCRA && b->end <= now) {
        *b = (budget){0};
    }
}

static void pass(naive *n, uint64_t ms)
{
    n->now += ms;
    for (unsigned k = 0; k < KEYS; k++) {
        if (algorithm == FDN_LIMITER_GCRA)
            n->of[k].used -= n->of[k].used < ms ? n->of[k].used : ms;
        else
            forget(&n->of[k], n->now);
    }
}

/* The units in use, multiplied by the period. */
static uint64_t in_use(const budget *b, uint64_t now)
{
    return b->used * PERIOD + (algorithm == FDN_LIMITER_SLIDING_WINDOW ? b->more * (PERIOD - now % PERIOD) : 0);
}

static bool fits(const budget *b, uint64_t now, uint64_t units)
{
    if (algorithm == FDN_LIMITER_LEASE)
        return units <= b->used;
    return in_use(b, now) + units * PERIOD <= LIMIT * PERIOD;
}

static fdn_limiter_answer denied(const naive *n, unsigned key, uint64_t units)
{
    if (algorithm == FDN_LIMITER_LEASE)
        return (fdn_limiter_answer){false, n->of[key].more ? n->of[key].end - n->now : FDN_LIMITER_ASK};
    naive later = {.now = n->now};
    later.of[0] = n->of[key];
    do
        pass(&later, 1);
    while (!fits(&later.of[0], later.now, units));
    return (fdn_limiter_answer){false, later.now - n->now};
}

static void add_units(budget *b, uint64_t now, uint64_t units)
{
    if (algorithm == FDN_LIMITER_FIXED_WINDOW && b->end == 0)
        b->end = now + PERIOD;
    b->used += units;
}

static fdn_limiter_answer naive_hit(naive *n, unsigned key, uint64_t cost)
{
    budget *b = &n->of[key];
    uint64_t wanted = cost ? cost : 1;
    if (!fits(b, n->now, wanted))
        return denied(n, key, wanted);
    if (algorithm == FDN_LIMITER_LEASE)
        b->used -= cost;
    else if (cost != 0)
        add_units(b, n->now, cost);
    return (fdn_limiter_answer){true, algorithm == FDN_LIMITER_LEASE ? b->used : (LIMIT * PERIOD - in_use(b, n->now)) / PERIOD};
}

static fdn_limiter_answer naive_reserve(naive *n, const operation *op)
{
    uint64_t after = n->of[op->key].used + op->units, wait = after > LIMIT ? after - LIMIT : 0;
    if (wait > op->ms)
        return (fdn_limiter_answer){false, wait - op->ms};
    n->of[op->key].used = after;
    return (fdn_limiter_answer){true, wait};
}

static fdn_limiter_answer naive_give_back(naive *n, const operation *op)
{
    budget *b = &n->of[op->key];
    uint64_t units = op->units, *from = &b->used;
    if (algorithm == FDN_LIMITER_GCRA) {
        uint64_t since = op->debit.mark / 16 / FDN_NS_PER_MS, gone = n->now > since ? n->now - since : 0;
        units = units > gone ? units - gone : 0;
    } else if (algorithm == FDN_LIMITER_FIXED_WINDOW) {
        units = b->end == op->debit.mark ? units : 0;
    } else if (algorithm == FDN_LIMITER_SLIDING_WINDOW) {
        uint64_t number = op->debit.mark * 4 / PERIOD - 2; /* as 4 <= 5 < 8 */
        from = number == b->end ? &b->used : &b->more;
        units = number <= b->end && b->end <= number + 1 ? units : 0;
    } else {
        bool same = b->end != 0 && b->end <= op->debit.mark;
        b->used += same ? units : 0;
        return (fdn_limiter_answer){same, 0};
    }
    units = units < *from ? units : *from;
    *from -= units;
    return (fdn_limiter_answer){units != 0, 0};
}

static fdn_limiter_answer naive_do(naive *n, const operation *op)
{
    fdn_limiter_answer a = {true, 0};
    budget *b = &n->of[op->key % KEYS];
    switch (op->what) {
    case HIT:
        return naive_hit(n, op->key, op->units);
    case RESERVE:
        return naive_reserve(n, op);
    case GIVE_BACK:
        return naive_give_back(n, op);
    case CHARGE:
        add_units(b, n->now, op->units);
        a.value = (in_use(b, n->now) + PERIOD - 1) / PERIOD;
        break;
    case SET:
        b->used = b->more = 0;
        add_units(b, n->now, op->units);
        break;
    case GRANT:
        if (op->ms <= n->now)
            return (fdn_limiter_answer){false, 0};
        b->end = b->used != 0 && b->end < op->ms ? b->end : op->ms;
        b->used += op->units;
        b->more = op->closed;
        break;
    case RESET:
        *b = (budget){0};
        forget(b, n->now);
        break;
    case ADVANCE:
        pass(n, op->key);
    }
    return a;
}

/*
 * Whether the naive algorithm gives this operation the answer that it got. `late`: the clock may have moved since the operation read
 * it; then it may be answered more strictly, but never more freely.
 */
static bool agrees(naive *n, const operation *op, bool late)
{
    bool hits = op->what == HIT || op->what == RESERVE;
    if (hits && late && !op->answer.allowed)
        return true;
    fdn_limiter_answer a = naive_do(n, op);
    if (a.allowed != op->answer.allowed)
        return false;
    if (a.value == op->answer.value)
        return true;
    return late && ((hits && a.allowed && op->what == HIT) ? a.value > op->answer.value : a.value < op->answer.value);
}

/* ---- the table, and what happens in between ------------------------------------------------------------------------------------- */

static operation outer, inside[INSIDE];
static unsigned inside_count, first_active;
static bool locked;
static operation pending[PENDING];
static unsigned pending_count;

static void remember(const operation *taken)
{
    if (taken->debit.amount == 0)
        return;
    unsigned at = pending_count < PENDING ? pending_count++ : (unsigned)rnd(PENDING);
    pending[at] = *taken;
    pending[at].what = GIVE_BACK;
}

static void perform(operation *op)
{
    const fdn_limiter_rule *rule = fdn_limiter_preset(t);
    uint64_t hash = op->what == ADVANCE ? 0 : hashes[op->key];
    op->answer = (fdn_limiter_answer){true, 0};
    switch (op->what) {
    case HIT:
        if (op->units % 2 != 0) {
            op->answer = fdn_limiter_take(t, 1, rule, hash, op->units, &op->debit);
            remember(op);
        } else {
            op->answer = fdn_limiter_hit(t, 1, rule, hash, op->units);
        }
        break;
    case RESERVE:
        op->answer = fdn_limiter_reserve(t, 1, rule, hash, op->units, op->ms, &op->debit);
        remember(op);
        break;
    case GIVE_BACK:
        op->answer.allowed = fdn_limiter_give_back(t, &op->debit);
        break;
    case CHARGE:
        op->answer.value = fdn_limiter_charge(t, rule, hash, op->units);
        break;
    case SET:
        fdn_limiter_set_used(t, rule, hash, op->units);
        break;
    case GRANT:
        op->ms += fdn_limiter_read_clock(t, false) / FDN_NS_PER_MS;
        op->answer.allowed = fdn_limiter_grant(t, rule, hash, op->units, op->ms, op->closed);
        break;
    case RESET:
        fdn_limiter_reset(t, PERIOD, hash);
        break;
    case ADVANCE:
        ck_assert_int_eq(fdn_limiter_advance(t, op->key), 0);
    }
}

static operation any_operation(void)
{
    operation op = {.what = HIT, .key = (first_active + (unsigned)rnd(ACTIVE)) % KEYS, .units = rnd(LIMIT + 1)};
    uint64_t kind = rnd(24);
    if (kind < 8) {
        op.what = ADVANCE;
        op.key = (unsigned)rnd(PERIOD + 2);
    } else if (kind < 10) {
        op.what = RESET;
    } else if (kind < 14 && algorithm == FDN_LIMITER_LEASE) {
        op.what = GRANT;
        op.ms = 1 + rnd(6);
        op.closed = rnd(2);
    } else if (kind < 11 && algorithm != FDN_LIMITER_LEASE) {
        op.what = CHARGE;
        op.units = 1 + rnd(2);
    } else if (kind < 12 && algorithm != FDN_LIMITER_LEASE) {
        op.what = SET;
        op.units = 1 + rnd(LIMIT);
    } else if (kind < 14 && algorithm == FDN_LIMITER_GCRA) {
        op.what = RESERVE;
        op.units = 1 + rnd(LIMIT);
        op.ms = rnd(4);
    } else if (kind < 17 && pending_count != 0) {
        unsigned at = (unsigned)rnd(pending_count);
        op = pending[at];
        pending[at] = pending[--pending_count];
    }
    return op;
}

/*
 * Inside another operation two things are left out, which limiter.c (3, 4) permits and the naive algorithm does not know: a reset of
 * its key, after which the slot may go to another key in the same state, and a question about its key, which may see the budget still
 * untouched at a time at which the interrupted hit, dated before, has consumed it. Nor may its key be touched by what would wait for
 * the lock that it holds.
 */
static bool may_be_inside(const operation *op)
{
    fdn_limiter_slot at;
    if (op->what == ADVANCE || op->key != outer.key)
        return true;
    bool adds = (op->what == HIT && op->units != 0) || op->what == RESERVE || op->what == CHARGE;
    if (locked)
        return adds && slot_of(op->key, &at); /* so it takes no lock */
    return adds || op->what == GIVE_BACK || op->what == SET || op->what == GRANT;
}

static operation operation_inside(void)
{
    for (;;) {
        operation op = any_operation();
        if (may_be_inside(&op))
            return op;
        if (op.what == GIVE_BACK)
            remember(&op);
    }
}

static void others(fdn_step_kind kind)
{
    locked = locked || kind == FDN_STEP_LOCKED;
    if (kind == FDN_STEP_CLAIMED || rnd(4) != 0)
        return;
    fdn_step_hook = NULL;
    for (uint64_t n = 1 + rnd(3); n > 0 && inside_count < INSIDE; n--) {
        inside[inside_count] = operation_inside();
        perform(&inside[inside_count++]);
    }
    fdn_step_hook = others;
}

/* What the naive algorithm may know by now: when several moments explain the answers, all of them stay possible. */
#define POSSIBLE 256
static naive possible[2][POSSIBLE];

static void add(naive *set, unsigned *count, naive n)
{
    for (unsigned i = 0; i < *count; i++) {
        if (memcmp(&set[i], &n, sizeof n) == 0)
            return;
    }
    ck_assert_uint_lt(*count, POSSIBLE);
    set[(*count)++] = n;
}

/* A denial by the state that the interrupted operation is about to replace, at a time later than its own: as strict as before it. */
static bool denied_before(const operation *op)
{
    bool replaces = outer.what == SET || outer.what == GIVE_BACK || outer.what == GRANT;
    return replaces && op->key == outer.key && (op->what == HIT || op->what == RESERVE) && !op->answer.allowed;
}

/* A denial is a question, too: what it says of the time to wait may not know of the interrupted operation, dated before, as yet. */
static bool denied_too(const naive *n, const operation *op)
{
    naive copy = *n;
    bool hits = op->what == HIT || op->what == RESERVE;
    return hits && op->key == outer.key && !op->answer.allowed && !naive_do(&copy, op).allowed;
}

/*
 * One order of events: the interrupted operation after so many of the others. Two more explanations are good where a debit of its key
 * was given back, or its count set, meanwhile. `also`: the key (KEYS: none) that is charged with it a second time, as the slot was lost
 * to it (limiter.c, 3). `undone`: the debit was undone as if it had never been, for a hit that is dated before (limiter.c, 6).
 */
typedef struct {
    unsigned moment, also;
    bool late, undone;
} order;

static bool back_to_outer(const operation *op)
{
    return op->what == GIVE_BACK && op->key == outer.key && op->answer.allowed;
}

static bool explains(naive *n, const order *o, const operation *after)
{
    for (unsigned i = 0; i <= inside_count; i++) {
        if (i == o->moment) {
            for (unsigned j = i; j < inside_count && o->undone; j++) {
                if (back_to_outer(&inside[j]) && !agrees(n, &inside[j], false))
                    return false;
            }
            if (!agrees(n, &outer, o->late))
                return false;
            if (o->also != KEYS)
                add_units(&n->of[o->also], n->now, outer.units);
        }
        if (i == inside_count || denied_before(&inside[i]) || (o->undone && i >= o->moment && back_to_outer(&inside[i])))
            continue;
        if (!agrees(n, &inside[i], false) && !denied_too(n, &inside[i]))
            return false;
    }
    for (unsigned k = 0; k < KEYS; k++) {
        if (!agrees(n, &after[k], false))
            return false;
    }
    return true;
}

/* All states that are possible after this round, if there is one. */
static unsigned explain(const naive *from, unsigned from_count, naive *to, const operation *after)
{
    unsigned to_count = 0, variants = 1;
    order o = {.late = false};
    for (unsigned i = 0; i < inside_count; i++) {
        o.late = o.late || inside[i].what == ADVANCE;
        if (back_to_outer(&inside[i]) || (inside[i].what == SET && inside[i].key == outer.key))
            variants = KEYS + 2;
    }
    for (unsigned v = 0; v < variants && (v < 2 || to_count == 0); v++) {
        o.also = v < 2 ? KEYS : v - 2;
        o.undone = v == 1;
        for (unsigned f = 0; f < from_count; f++) {
            for (o.moment = 0; o.moment <= inside_count; o.moment++) {
                naive n = from[f];
                if (explains(&n, &o, after))
                    add(to, &to_count, n);
            }
        }
    }
    return to_count;
}

START_TEST(one_moment_for_each_operation)
{
    algorithm = (fdn_limiter_algorithm)_i;
    unsigned interrupted = 0, count = 1, done[ADVANCE + 1] = {0}, given = 0;
    create(FDN_LIMITER_EVICT);
    choose_keys();
    memset(possible, 0, sizeof possible);
    for (unsigned round = 0; round < ROUNDS; round++) {
        first_active = round / 16 * 5;
        operation pause = {.what = ADVANCE, .key = (unsigned)rnd(3)};
        perform(&pause);
        for (unsigned i = 0; i < count; i++)
            pass(&possible[round % 2][i], pause.key);
        do
            outer = any_operation();
        while (outer.what == ADVANCE);
        inside_count = 0;
        locked = false;
        fdn_step_hook = others;
        perform(&outer);
        fdn_step_hook = NULL;
        interrupted += inside_count != 0;
        done[outer.what] += inside_count != 0;
        given += outer.what == GIVE_BACK && outer.answer.allowed;
        operation after[KEYS];
        for (unsigned k = 0; k < KEYS; k++) {
            after[k] = (operation){.what = HIT, .key = k, .units = 0};
            perform(&after[k]);
        }
        count = explain(possible[round % 2], count, possible[(round + 1) % 2], after);
        ck_assert_msg(count > 0, "round %u: no order of the operations gives these answers (%d)", round, (int)outer.what);
    }
    ck_assert_uint_gt(interrupted, ROUNDS / 4);
    for (verb v = HIT; v < ADVANCE; v++) {
        bool ours = v == RESERVE ? algorithm == FDN_LIMITER_GCRA : (v != CHARGE && v != SET) || algorithm != FDN_LIMITER_LEASE;
        if (v == GRANT ? algorithm == FDN_LIMITER_LEASE : ours)
            ck_assert_uint_gt(done[v], ROUNDS / 200);
    }
    ck_assert_uint_gt(given, ROUNDS / 500);
    fdn_limiter_stats stats;
    fdn_limiter_stats_of(t, &stats);
    ck_assert_uint_eq(stats.full, 0);
    fdn_limiter_destroy(t);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("limiter_steps");
    TCase *c = tcase_create("steps");
    tcase_set_timeout(c, 300);
    tcase_add_loop_test(c, one_moment_for_each_operation, 0, ALGORITHMS);
    suite_add_tcase(s, c);
    return support_run(s);
}
