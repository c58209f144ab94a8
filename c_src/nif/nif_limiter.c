/*
 * nif_limiter.c - the hot calls: hit, peek, reset; and the library's life.
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

/* ---- arguments ------------------------------------------------------------------------------------------------------------------ */

ERL_NIF_TERM fdn_limiter_raise_unknown(ErlNifEnv *env, ERL_NIF_TERM term)
{
    ErlNifUInt64 handle;
    if (enif_is_atom(env, term))
        return fdn_raise_badarg(env, "limiter", "unknown");
    return fdn_raise_badarg(env, "limiter", enif_get_uint64(env, term, &handle) ? "deleted" : "not_a_name_or_handle");
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

/* What a call is about, besides the limiter and the key: positions in argv, 0 for an argument that it does not have. */
typedef struct {
    int period_at, limit_at, cost_at;
    unsigned cost; /* where it has no argument for it */
    bool reset;
    const char *name;
} shape;

/* What is wrong with the call. */
typedef struct {
    const char *argument, *reason;
} complaint;

static inline bool get_argument(ErlNifEnv *env, ERL_NIF_TERM term, const char *argument, uint64_t *out, complaint *wrong)
{
    wrong->argument = argument;
    return fdn_limiter_get_count(env, term, out, &wrong->reason);
}

/* The limit in force for this call: the preset one, or the one it brings. NULL: *wrong says why. */
static inline const fdn_limiter_rule *rule_of(ErlNifEnv *env, const fdn_limiter *t, const ERL_NIF_TERM argv[], const shape *s,
                                              fdn_limiter_rule *own, complaint *wrong)
{
    if (s->period_at == 0) {
        const fdn_limiter_rule *preset = fdn_limiter_preset(t);
        *wrong = (complaint){"limit", "no_preset_limit"};
        return preset->period_ms != 0 ? preset : NULL;
    }
    uint64_t period, limit = 0;
    if (!get_argument(env, argv[s->period_at], "period", &period, wrong))
        return NULL;
    if (s->limit_at != 0 && !get_argument(env, argv[s->limit_at], "limit", &limit, wrong))
        return NULL;
    fdn_limiter_algorithm algorithm = (fdn_limiter_algorithm)fdn_limiter_config_of(t)->algorithm;
    fdn_limiter_fit fit = fdn_limiter_rule_make(algorithm, limit, period, limit, own);
    *wrong = (complaint){fit == FDN_LIMITER_BAD_PERIOD ? "period" : "limit", "out_of_range"};
    return fit == FDN_LIMITER_FITS ? own : NULL;
}

/* ---- hit, peek, reset ----------------------------------------------------------------------------------------------------------- */

typedef enum { DONE, TELL, ELSEWHERE, WRONG, TOO_LARGE } call_result;

/* What there is to know after the call. */
typedef struct {
    fdn_limiter_answer answer; /* DONE, TELL */
    uint32_t tags;             /* TELL, ELSEWHERE: of the limiter */
    ERL_NIF_TERM name;
    complaint wrong; /* WRONG */
} call_report;

static inline call_result with_tags(const fdn_limiter *t, call_result result, call_report *out)
{
    const fdn_limiter_config *config = fdn_limiter_config_of(t);
    out->tags = config->tags;
    out->name = (ERL_NIF_TERM)config->label;
    return result;
}

static inline call_result call_inside(ErlNifEnv *env, fdn_limiter *t, unsigned lane, const ERL_NIF_TERM argv[], const shape *s,
                                      bool dirty, call_report *out)
{
    complaint *wrong = &out->wrong;
    fdn_limiter_rule own;
    uint64_t hash, cost = s->cost;
    const fdn_limiter_rule *rule = rule_of(env, t, argv, s, &own, wrong);
    if (rule == NULL)
        return WRONG;
    if (s->cost_at != 0 && !get_argument(env, argv[s->cost_at], "cost", &cost, wrong))
        return WRONG;
    if (!s->reset && !fdn_limiter_cost_fits(rule, cost)) {
        *wrong = (complaint){"cost", rule != &own && fdn_limiter_config_of(t)->algorithm == FDN_LIMITER_GCRA ? "exceeds_burst"
                                                                                                             : "exceeds_limit"};
        return WRONG;
    }
    uint32_t tags = fdn_limiter_config_of(t)->tags;
    if (tags != 0 && fdn_limiter_at_home(env, argv[0]))
        tags = 0;
    if (tags & FDN_LIMITER_SCOPE)
        return with_tags(t, ELSEWHERE, out);
    switch (fdn_limiter_key(env, argv[1], fdn_limiter_secret_of(t), dirty, &hash)) {
    case FDN_KEY_HASHED:
        break;
    case FDN_KEY_NEEDS_DIRTY:
        return TOO_LARGE;
    case FDN_KEY_NO_MEMORY:
        *wrong = (complaint){"key", "enomem"};
        return WRONG;
    }
    if (s->reset) {
        (void)fdn_limiter_reset(t, rule->period_ms, hash);
        return DONE;
    }
    out->answer = fdn_limiter_hit(t, lane, rule, hash, cost);
    if (!out->answer.allowed && cost != 0 && tags & FDN_LIMITER_TELEMETRY)
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

static inline ERL_NIF_TERM call(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[], const shape *s, nif *on_dirty)
{
    fdn_lib *lib = fdn_lib_of(env);
    fdn_limiter_state *st = lib->state;
    call_report report = {.answer = {false, 0}};
    unsigned lane = fdn_limiter_lane(st);
    fdn_limiter *t = fdn_limiter_enter(env, st, lane, argv[0]);
    if (t == NULL)
        return fdn_limiter_raise_unknown(env, argv[0]);
    call_result result = call_inside(env, t, lane, argv, s, on_dirty == NULL, &report);
    fdn_limiters_leave(st->names, lane);
    if (result == DONE && s->reset)
        return lib->atoms.ok;
    if (result == DONE) {
        ERL_NIF_TERM word = report.answer.allowed ? lib->atoms.allow : lib->atoms.deny;
        return enif_make_tuple2(env, word, enif_make_uint64(env, report.answer.value));
    }
    return uncommon(env, lib, result, &report, s, on_dirty, argc, argv);
}

#define CALL(NAME, ...)                                                                                                                \
    static const shape shape_##NAME = {__VA_ARGS__};                                                                                   \
    static ERL_NIF_TERM dirty_##NAME(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[])                                              \
    {                                                                                                                                  \
        return call(env, argc, argv, &shape_##NAME, NULL);                                                                             \
    }                                                                                                                                  \
    static ERL_NIF_TERM nif_##NAME(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[])                                                \
    {                                                                                                                                  \
        return call(env, argc, argv, &shape_##NAME, dirty_##NAME);                                                                     \
    }

CALL(hit_2, .cost = 1, .name = "hit_nif")
CALL(hit_3, .cost_at = 2, .name = "hit_nif")
CALL(hit_4, .period_at = 2, .limit_at = 3, .cost = 1, .name = "hit_nif")
CALL(hit_5, .period_at = 2, .limit_at = 3, .cost_at = 4, .name = "hit_nif")
CALL(peek_2, .cost = 0, .name = "peek_nif")
CALL(peek_4, .period_at = 2, .limit_at = 3, .cost = 0, .name = "peek_nif")
CALL(reset_2, .reset = true, .name = "reset_nif")
CALL(reset_3, .period_at = 2, .reset = true, .name = "reset_nif")

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

static const fdn_part part = {.name = "limiter", .abi = FDN_LIMITER_ABI, .create = create_state, .destroy = destroy_state};

static ErlNifFunc functions[] = {
    {"hit_nif", 2, nif_hit_2, 0},
    {"hit_nif", 3, nif_hit_3, 0},
    {"hit_nif", 4, nif_hit_4, 0},
    {"hit_nif", 5, nif_hit_5, 0},
    {"peek_nif", 2, nif_peek_2, 0},
    {"peek_nif", 4, nif_peek_4, 0},
    {"reset_nif", 2, nif_reset_2, 0},
    {"reset_nif", 3, nif_reset_3, 0},
    {"advance", 2, fdn_limiter_nif_advance, 0},
    {"whereis", 1, fdn_limiter_nif_whereis, 0},
    {"info", 1, fdn_limiter_nif_info, ERL_NIF_DIRTY_JOB_CPU_BOUND},
    {"attach_nif", 3, fdn_limiter_nif_attach, ERL_NIF_DIRTY_JOB_IO_BOUND},
    {"look_after_nif", 1, fdn_limiter_nif_look_after, ERL_NIF_DIRTY_JOB_IO_BOUND},
    {"remove_nif", 2, fdn_limiter_nif_remove, ERL_NIF_DIRTY_JOB_IO_BOUND},
};

FDN_NIF_INIT(foundation_limiter, functions, &part)
