/*
 * nif_limiter.c - the calls about one key: hit, peek, reset, counts, reserve; and the library's life.
 *
 * They answer a list where the limiter's tags say that the Erlang function around them has more to do (foundation_limiter:more/2):
 * [cluster, Name | Telemetry] for a limiter whose budget is not here, [denied, Name | Ms] for a denial that is to be told.
 *
 * Each runs on a normal scheduler for a bounded time: a lookup by name, a hash of the key, a clock, one or two cache lines, one
 * compare-and-swap. A key that is too large to hash here sends the whole call to a dirty scheduler, where it starts over.
 */
#include "nif/nif_limiter.h"

#include <string.h>

#include "base/fdn_error.h"
#include "base/fdn_inline.h"
#include "engine/limiter_lease.h"

/* ---- arguments ------------------------------------------------------------------------------------------------------------------ */

fdn_limiter_complaint fdn_limiter_unknown(ErlNifEnv *env, ERL_NIF_TERM term)
{
    ErlNifUInt64 handle;
    if (enif_is_atom(env, term))
        return (fdn_limiter_complaint){"limiter", "unknown"};
    return (fdn_limiter_complaint){"limiter", enif_get_uint64(env, term, &handle) ? "deleted" : "not_a_name_or_handle"};
}

ERL_NIF_TERM fdn_limiter_raise_unknown(ErlNifEnv *env, ERL_NIF_TERM term)
{
    fdn_limiter_complaint wrong = fdn_limiter_unknown(env, term);
    return fdn_raise_badarg(env, wrong.argument, wrong.reason);
}

bool fdn_limiter_get_count(ErlNifEnv *env, ERL_NIF_TERM term, uint64_t *out, const char **reason)
{
    ErlNifUInt64 value;
    if (enif_get_uint64(env, term, &value)) {
        *out = value;
        return true;
    }
    *reason = enif_term_type(env, term) == ERL_NIF_TERM_TYPE_INTEGER ? "out_of_range" : "not_an_integer";
    return false;
}

typedef enum { HIT, RESET, GET, INC, SET, RESERVE } verb;

/* What a call is: its verb, and the positions of its arguments besides the limiter and the key; 0 for one that it does not have. */
typedef struct {
    const char *name;
    verb verb;
    int period_at, limit_at, amount_at, wait_at;
    const char *amount_name;
    unsigned amount; /* where it has no argument for it */
} shape;

/* A limit that is given by its period alone: enough for the windows' counts, and for gcra's where it is the preset one. */
static const fdn_limiter_rule *counted_rule(const fdn_limiter *t, uint64_t period, fdn_limiter_rule *own, fdn_limiter_complaint *wrong)
{
    const fdn_limiter_rule *preset = fdn_limiter_preset(t);
    if (preset->period_ms == period)
        return preset;
    if (fdn_limiter_config_of(t)->algorithm != FDN_LIMITER_GCRA)
        return own;
    *wrong = (fdn_limiter_complaint){"period", "not_the_preset_one"};
    return NULL;
}

/* The limit in force for this call: the preset one, or the one it brings. NULL: *wrong says why. */
static FDN_INLINE const fdn_limiter_rule *rule_of(ErlNifEnv *env, const fdn_limiter *t, const ERL_NIF_TERM argv[], const shape *s,
                                                  fdn_limiter_rule *own, fdn_limiter_complaint *wrong)
{
    if (s->period_at == 0)
        return fdn_limiter_get_preset(t, wrong);
    uint64_t period, limit = 0;
    if (!fdn_limiter_get_argument(env, argv[s->period_at], "period", &period, wrong))
        return NULL;
    if (s->limit_at != 0 && !fdn_limiter_get_argument(env, argv[s->limit_at], "limit", &limit, wrong))
        return NULL;
    fdn_limiter_algorithm algorithm = (fdn_limiter_algorithm)fdn_limiter_config_of(t)->algorithm;
    fdn_limiter_fit fit = fdn_limiter_rule_make(algorithm, limit, period, limit, own);
    if (fit != FDN_LIMITER_FITS) {
        *wrong = (fdn_limiter_complaint){fit == FDN_LIMITER_BAD_PERIOD ? "period" : "limit", "out_of_range"};
        return NULL;
    }
    return s->limit_at == 0 && s->verb != RESET ? counted_rule(t, period, own, wrong) : own;
}

/* ---- calls ---------------------------------------------------------------------------------------------------------------------- */

typedef enum { DONE, TELL, ELSEWHERE, WRONG, TOO_LARGE } call_result;

/* What there is to know after the call. */
typedef struct {
    fdn_limiter_answer answer; /* DONE, TELL; the value of GET, INC and SET is the count */
    fdn_limiter_debit debit;   /* RESERVE */
    uint64_t handle;
    uint32_t tags; /* TELL, ELSEWHERE: of the limiter */
    ERL_NIF_TERM name;
    fdn_limiter_complaint wrong; /* WRONG */
} call_report;

static inline call_result with_tags(const fdn_limiter *t, call_result result, call_report *out)
{
    const fdn_limiter_config *config = fdn_limiter_config_of(t);
    out->tags = config->tags;
    out->name = (ERL_NIF_TERM)config->label;
    return result;
}

/* The most that a key's word can count; the engine stops there, but a count that is told to be set is to be set. */
static uint64_t most_counted(const fdn_limiter *t, const fdn_limiter_rule *rule)
{
    switch (fdn_limiter_config_of(t)->algorithm) {
    case FDN_LIMITER_GCRA:
        return rule->emission ? FDN_LIMITER_MAX_SPAN / rule->emission : UINT64_MAX;
    case FDN_LIMITER_SLIDING_WINDOW:
        return fdn_limiter_sliding_max(rule->period_ms);
    default:
        return FDN_LIMITER_MAX_FIXED_LIMIT;
    }
}

static FDN_INLINE bool amount_fits(const fdn_limiter *t, const fdn_limiter_rule *rule, const shape *s, uint64_t amount,
                                   fdn_limiter_complaint *wrong)
{
    if (s->verb == HIT || s->verb == RESERVE)
        return fdn_limiter_get_cost(t, rule, amount, wrong);
    if (amount <= most_counted(t, rule))
        return true;
    *wrong = (fdn_limiter_complaint){s->amount_name, "out_of_range"};
    return false;
}

static FDN_INLINE call_result call_inside(ErlNifEnv *env, fdn_limiter *t, unsigned lane, const ERL_NIF_TERM argv[], const shape *s,
                                          bool dirty, call_report *out)
{
    fdn_limiter_complaint *wrong = &out->wrong;
    fdn_limiter_rule own;
    uint64_t hash, amount = s->amount, wait = 0;
    if (s->verb == RESERVE && fdn_limiter_config_of(t)->algorithm != FDN_LIMITER_GCRA) {
        *wrong = (fdn_limiter_complaint){"limiter", "not_gcra"};
        return WRONG;
    }
    const fdn_limiter_rule *rule = rule_of(env, t, argv, s, &own, wrong);
    if (rule == NULL)
        return WRONG;
    if (s->amount_at != 0 && !fdn_limiter_get_argument(env, argv[s->amount_at], s->amount_name, &amount, wrong))
        return WRONG;
    if (s->wait_at != 0 && !fdn_limiter_get_argument(env, argv[s->wait_at], "max_wait", &wait, wrong))
        return WRONG;
    if (s->verb != RESET && s->verb != GET && !amount_fits(t, rule, s, amount, wrong))
        return WRONG;
    uint32_t tags = fdn_limiter_config_of(t)->tags;
    if (tags != 0 && fdn_limiter_at_home(env, argv[0]))
        tags = 0;
    if (tags & FDN_LIMITER_SCOPE && s->verb == RESERVE) {
        *wrong = (fdn_limiter_complaint){"limiter", "not_local"};
        return WRONG;
    }
    bool lent = tags & FDN_LIMITER_CLUSTER && s->verb == HIT && amount != 0;
    if (tags & FDN_LIMITER_SCOPE && !lent)
        return with_tags(t, ELSEWHERE, out);
    switch (fdn_limiter_key(env, argv[1], fdn_limiter_secret_of(t), dirty, &hash)) {
    case FDN_KEY_HASHED:
        break;
    case FDN_KEY_NEEDS_DIRTY:
        return TOO_LARGE;
    case FDN_KEY_NO_MEMORY:
        *wrong = (fdn_limiter_complaint){"key", "enomem"};
        return WRONG;
    }
    switch (s->verb) {
    case HIT:
        out->answer = lent ? fdn_limiter_lease_hit(t, lane, rule, hash, amount) : fdn_limiter_hit(t, lane, rule, hash, amount);
        if (lent && !out->answer.allowed && out->answer.value == FDN_LIMITER_ASK)
            return with_tags(t, ELSEWHERE, out);
        break;
    case RESERVE:
        out->answer = fdn_limiter_reserve(t, lane, rule, hash, amount, wait, &out->debit);
        break;
    case RESET:
        (void)fdn_limiter_reset(t, rule->period_ms, hash);
        return DONE;
    case GET:
        out->answer.value = fdn_limiter_used(t, rule, hash);
        return DONE;
    case INC:
        out->answer.value = fdn_limiter_charge(t, rule, hash, amount);
        return DONE;
    case SET:
        out->answer.value = fdn_limiter_set_used(t, rule, hash, amount);
        return DONE;
    }
    if (!out->answer.allowed && amount != 0 && tags & FDN_LIMITER_TELEMETRY)
        return with_tags(t, TELL, out);
    return DONE;
}

typedef ERL_NIF_TERM nif(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]);

static ERL_NIF_TERM uncommon(ErlNifEnv *env, const fdn_lib *lib, call_result result, const call_report *report, const shape *s,
                             nif *on_dirty, int argc, const ERL_NIF_TERM argv[])
{
    ERL_NIF_TERM word, more;
    switch (result) {
    case WRONG:
        return fdn_raise_badarg(env, report->wrong.argument, report->wrong.reason);
    case TOO_LARGE:
        return enif_schedule_nif(env, s->name, ERL_NIF_DIRTY_JOB_CPU_BOUND, on_dirty, argc, argv);
    case ELSEWHERE:
        word = lib->atoms.cluster;
        more = report->tags & FDN_LIMITER_TELEMETRY ? lib->atoms.true_ : lib->atoms.false_;
        break;
    default:
        word = lib->atoms.denied;
        more = enif_make_uint64(env, report->answer.value);
        break;
    }
    return enif_make_list_cell(env, word, enif_make_list_cell(env, report->name, more));
}

static FDN_INLINE ERL_NIF_TERM call(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[], const shape *s, nif *on_dirty)
{
    fdn_lib *lib = fdn_lib_of(env);
    fdn_limiter_state *st = lib->state;
    call_report report; /* what the result calls for is filled in; clearing all of it would take 3 ns */
    unsigned lane = fdn_limiter_lane(st);
    fdn_limiter *t = s->verb == RESERVE ? fdn_limiter_enter_and_tell(env, st, lane, argv[0], &report.handle)
                                        : fdn_limiter_enter(env, st, lane, argv[0]);
    if (t == NULL)
        return fdn_limiter_raise_unknown(env, argv[0]);
    call_result result = call_inside(env, t, lane, argv, s, on_dirty == NULL, &report);
    fdn_limiters_leave(st->names, lane);
    if (result != DONE)
        return uncommon(env, lib, result, &report, s, on_dirty, argc, argv);
    if (s->verb == RESET)
        return lib->atoms.ok;
    ERL_NIF_TERM value = enif_make_uint64(env, report.answer.value);
    if (s->verb == GET || s->verb == INC || s->verb == SET)
        return value;
    if (s->verb == RESERVE && report.answer.allowed)
        return enif_make_tuple3(env, lib->atoms.ok, value, fdn_limiter_make_token(env, lib, report.handle, &report.debit));
    return enif_make_tuple2(env, report.answer.allowed ? lib->atoms.allow : lib->atoms.deny, value);
}

static FDN_NOINLINE ERL_NIF_TERM call_any(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[], const shape *s, nif *on_dirty)
{
    return call(env, argc, argv, s, on_dirty);
}

/* HOT: the whole call compiled for this shape alone. Others, and all of them on dirty schedulers, share one form. */
#define NIF(NAME, FORM, ...)                                                                                                           \
    static const shape shape_##NAME = {__VA_ARGS__};                                                                                   \
    static ERL_NIF_TERM dirty_##NAME(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[])                                              \
    {                                                                                                                                  \
        return call_any(env, argc, argv, &shape_##NAME, NULL);                                                                         \
    }                                                                                                                                  \
    static ERL_NIF_TERM nif_##NAME(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[])                                                \
    {                                                                                                                                  \
        return FORM(env, argc, argv, &shape_##NAME, dirty_##NAME);                                                                     \
    }
#define HOT(NAME, ...) NIF(NAME, call, __VA_ARGS__)
#define CALL(NAME, ...) NIF(NAME, call_any, __VA_ARGS__)

#define COST .amount_name = "cost"
HOT(hit_2, "hit_nif", HIT, .amount = 1)
HOT(hit_3, "hit_nif", HIT, COST, .amount_at = 2)
HOT(hit_4, "hit_nif", HIT, .period_at = 2, .limit_at = 3, .amount = 1)
HOT(hit_5, "hit_nif", HIT, COST, .period_at = 2, .limit_at = 3, .amount_at = 4)
HOT(peek_2, "peek_nif", HIT, .amount = 0)
HOT(peek_4, "peek_nif", HIT, .period_at = 2, .limit_at = 3, .amount = 0)
CALL(reset_2, "reset_nif", RESET, .amount = 0)
CALL(reset_3, "reset_nif", RESET, .period_at = 2)
CALL(get_2, "get_nif", GET, .amount = 0)
CALL(get_3, "get_nif", GET, .period_at = 2)
CALL(inc_3, "inc_nif", INC, .amount_name = "n", .amount_at = 2)
CALL(inc_4, "inc_nif", INC, .amount_name = "n", .period_at = 2, .amount_at = 3)
CALL(set_4, "set_nif", SET, .amount_name = "count", .period_at = 2, .amount_at = 3)
CALL(reserve_4, "reserve_nif", RESERVE, COST, .amount_at = 2, .wait_at = 3)

/* ---- the library ---------------------------------------------------------------------------------------------------------------- */

static int create_state(fdn_lib *lib, void **out)
{
    (void)lib;
    fdn_limiter_state *st = enif_alloc(sizeof *st);
    if (st == NULL)
        return -1;
    memset(st, 0, sizeof *st);
    if (fdn_limiter_secret_make(&st->secret) != 0)
        goto no_secret;
    if (fdn_limiters_create(false, &st->names) != 0)
        goto no_secret;
    if (pthread_key_create(&st->lane_key, NULL) != 0)
        goto no_key;
    pthread_mutex_init(&st->opening, NULL);
    *out = st;
    return 0;
no_key:
    fdn_limiters_destroy(st->names);
no_secret:
    enif_free(st);
    return -1;
}

static void destroy_state(void *state)
{
    fdn_limiter_state *st = state;
    pthread_key_delete(st->lane_key);
    fdn_limiters_destroy(st->names);
    pthread_mutex_destroy(&st->opening);
    enif_free(st);
}

static const fdn_part part = {
    .name = "limiter", .abi = FDN_LIMITER_ABI, .open_types = fdn_limiter_open_types, .create = create_state, .destroy = destroy_state};

static ErlNifFunc functions[] = {
    {"hit_nif", 2, nif_hit_2, 0},
    {"hit_nif", 3, nif_hit_3, 0},
    {"hit_nif", 4, nif_hit_4, 0},
    {"hit_nif", 5, nif_hit_5, 0},
    {"peek_nif", 2, nif_peek_2, 0},
    {"peek_nif", 4, nif_peek_4, 0},
    {"reset_nif", 2, nif_reset_2, 0},
    {"reset_nif", 3, nif_reset_3, 0},
    {"get_nif", 2, nif_get_2, 0},
    {"get_nif", 3, nif_get_3, 0},
    {"inc_nif", 3, nif_inc_3, 0},
    {"inc_nif", 4, nif_inc_4, 0},
    {"set_nif", 4, nif_set_4, 0},
    {"reserve_nif", 4, nif_reserve_4, 0},
    {"refund", 1, fdn_limiter_nif_refund, 0},
    {"hit_all_nif", 1, fdn_limiter_nif_hit_all, 0},
    {"lend_nif", 5, fdn_limiter_nif_lend, 0},
    {"lease_nif", 6, fdn_limiter_nif_lease, 0},
    {"forget_nif", 3, fdn_limiter_nif_forget, 0},
    {"lease_now_nif", 1, fdn_limiter_nif_lease_now, 0},
    {"reopen_nif", 1, fdn_limiter_nif_reopen, ERL_NIF_DIRTY_JOB_CPU_BOUND},
    {"advance", 2, fdn_limiter_nif_advance, ERL_NIF_DIRTY_JOB_IO_BOUND}, /* a file is told the time */
    {"whereis", 1, fdn_limiter_nif_whereis, 0},
    {"info_nif", 1, fdn_limiter_nif_info, ERL_NIF_DIRTY_JOB_CPU_BOUND},
    {"attach_nif", 3, fdn_limiter_nif_attach, ERL_NIF_DIRTY_JOB_IO_BOUND},
    {"look_after_nif", 1, fdn_limiter_nif_look_after, ERL_NIF_DIRTY_JOB_IO_BOUND},
    {"remove_nif", 2, fdn_limiter_nif_remove, ERL_NIF_DIRTY_JOB_IO_BOUND},
};

FDN_NIF_INIT(foundation_limiter, functions, &part)
