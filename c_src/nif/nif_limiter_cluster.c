/*
 * nif_limiter_cluster.c - private calls of a limiter whose budgets are shared by nodes (foundation_limiter_cluster): those of the
 * keeper of a key, which lends, and of the others, which keep what they were lent. Hits of what was lent are in nif_limiter.c.
 *
 * Each is bounded like a hit; a key that is too large to hash on a normal scheduler sends the call to a dirty one.
 */
#include "engine/limiter_lease.h"
#include "nif/nif_limiter.h"

typedef enum { LEND, LEASE, FORGET } verb;

typedef ERL_NIF_TERM nif(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]);

/* preset | {PeriodMs, Limit} */
static const fdn_limiter_rule *rule_of(ErlNifEnv *env, const fdn_limiter *t, ERL_NIF_TERM term, fdn_limiter_rule *own,
                                       fdn_limiter_complaint *wrong)
{
    const ERL_NIF_TERM *pair;
    int arity;
    uint64_t period, limit;
    if (enif_is_identical(term, fdn_lib_of(env)->atoms.preset))
        return fdn_limiter_get_preset(t, wrong);
    if (!enif_get_tuple(env, term, &arity, &pair) || arity != 2) {
        *wrong = (fdn_limiter_complaint){"limit", "not_a_limit"};
        return NULL;
    }
    if (!fdn_limiter_get_argument(env, pair[0], "period", &period, wrong) ||
        !fdn_limiter_get_argument(env, pair[1], "limit", &limit, wrong))
        return NULL;
    fdn_limiter_algorithm algorithm = (fdn_limiter_algorithm)fdn_limiter_config_of(t)->algorithm;
    fdn_limiter_fit fit = fdn_limiter_rule_make(algorithm, limit, period, limit, own);
    if (fit == FDN_LIMITER_FITS)
        return own;
    *wrong = (fdn_limiter_complaint){fit == FDN_LIMITER_BAD_PERIOD ? "period" : "limit", "out_of_range"};
    return NULL;
}

/* What the call does. NULL of *wrong's argument: the key wants a dirty scheduler. */
static bool do_inside(ErlNifEnv *env, fdn_limiter *t, verb what, const ERL_NIF_TERM argv[], bool dirty, fdn_limiter_loan *loan,
                      fdn_limiter_complaint *wrong)
{
    fdn_limiter_rule own;
    uint64_t hash, first = 0, second = 0;
    const fdn_limiter_rule *rule = rule_of(env, t, argv[2], &own, wrong);
    if (rule == NULL)
        return false;
    if (what == LEND &&
        (!fdn_limiter_get_argument(env, argv[3], "cost", &first, wrong) ||
         !fdn_limiter_get_argument(env, argv[4], "share", &second, wrong) || !fdn_limiter_get_cost(t, rule, first, wrong)))
        return false;
    if (what == LEASE && (!fdn_limiter_get_argument(env, argv[3], "units", &first, wrong) ||
                          !fdn_limiter_get_argument(env, argv[4], "end", &second, wrong)))
        return false;
    switch (fdn_limiter_key(env, argv[1], fdn_limiter_secret_of(t), dirty, &hash)) {
    case FDN_KEY_HASHED:
        break;
    case FDN_KEY_NEEDS_DIRTY:
        *wrong = (fdn_limiter_complaint){NULL, NULL};
        return false;
    case FDN_KEY_NO_MEMORY:
        *wrong = (fdn_limiter_complaint){"key", "enomem"};
        return false;
    }
    if (what == LEND)
        *loan = fdn_limiter_lend(t, rule, hash, first, second);
    else if (what == LEASE)
        fdn_limiter_lease_keep(t, rule, hash, first, second, enif_is_identical(argv[5], fdn_lib_of(env)->atoms.true_));
    else
        fdn_limiter_lease_forget(t, rule, hash);
    return true;
}

/* Every limiter can lend, as keys are handed over in this way, too. */
static bool has_leases(const fdn_limiter *t)
{
    return (fdn_limiter_config_of(t)->tags & FDN_LIMITER_SCOPE) == FDN_LIMITER_CLUSTER;
}

static ERL_NIF_TERM call(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[], const char *name, verb what, nif *on_dirty)
{
    fdn_limiter_state *st = fdn_limiter_state_of(env);
    const fdn_atoms *a = &fdn_lib_of(env)->atoms;
    fdn_limiter_complaint wrong = {"limiter", "not_shared"};
    fdn_limiter_loan loan;
    unsigned lane = fdn_limiter_lane(st);
    fdn_limiter *t = fdn_limiter_enter(env, st, lane, argv[0]);
    if (t == NULL)
        return fdn_limiter_raise_unknown(env, argv[0]);
    bool done = (what == LEND || has_leases(t)) && do_inside(env, t, what, argv, on_dirty == NULL, &loan, &wrong);
    fdn_limiters_leave(st->names, lane);
    if (!done)
        return wrong.argument == NULL ? enif_schedule_nif(env, name, ERL_NIF_DIRTY_JOB_CPU_BOUND, on_dirty, argc, argv)
                                      : fdn_raise_badarg(env, wrong.argument, wrong.reason);
    if (what != LEND)
        return a->ok;
    ERL_NIF_TERM units = enif_make_uint64(env, loan.units), value = enif_make_uint64(env, loan.value),
                 ms = enif_make_uint64(env, loan.ms);
    return loan.granted ? enif_make_tuple4(env, a->granted, units, value, ms) : enif_make_tuple3(env, a->denied, value, ms);
}

#define CALL(NAME, VERB)                                                                                                               \
    static ERL_NIF_TERM dirty_##NAME(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[])                                              \
    {                                                                                                                                  \
        return call(env, argc, argv, #NAME "_nif", VERB, NULL);                                                                        \
    }                                                                                                                                  \
    ERL_NIF_TERM fdn_limiter_nif_##NAME(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[])                                           \
    {                                                                                                                                  \
        return call(env, argc, argv, #NAME "_nif", VERB, dirty_##NAME);                                                                \
    }

CALL(lend, LEND)     /* lend_nif(L, Key, Rule, Cost, Share) -> {granted, Units, Remaining, Ms} | {denied, RetryAfterMs, Ms} */
CALL(lease, LEASE)   /* lease_nif(L, Key, Rule, Units, EndMs, Closed) -> ok */
CALL(forget, FORGET) /* forget_nif(L, Key, Rule) -> ok */

/* lease_now_nif(L) -> Ms */
ERL_NIF_TERM fdn_limiter_nif_lease_now(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[])
{
    (void)argc;
    fdn_limiter_state *st = fdn_limiter_state_of(env);
    unsigned lane = fdn_limiter_lane(st);
    fdn_limiter *t = fdn_limiter_enter(env, st, lane, argv[0]);
    if (t == NULL)
        return fdn_limiter_raise_unknown(env, argv[0]);
    bool shared = has_leases(t);
    uint64_t now = shared ? fdn_limiter_lease_now(t) : 0;
    fdn_limiters_leave(st->names, lane);
    return shared ? enif_make_uint64(env, now) : fdn_raise_badarg(env, "limiter", "not_shared");
}

/* reopen_nif(L) -> ok, on a dirty scheduler: looks at every slot */
ERL_NIF_TERM fdn_limiter_nif_reopen(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[])
{
    (void)argc;
    fdn_limiter_state *st = fdn_limiter_state_of(env);
    unsigned lane = fdn_limiter_lane(st);
    fdn_limiter *t = fdn_limiter_enter(env, st, lane, argv[0]);
    if (t == NULL)
        return fdn_limiter_raise_unknown(env, argv[0]);
    bool shared = has_leases(t);
    if (shared)
        fdn_limiter_lease_reopen(t);
    fdn_limiters_leave(st->names, lane);
    return shared ? fdn_lib_of(env)->atoms.ok : fdn_raise_badarg(env, "limiter", "not_shared");
}
