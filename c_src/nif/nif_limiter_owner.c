/*
 * nif_limiter_owner.c - the calls around a limiter's life: attach (create, or take over from a dead owner), remove, and looking at it.
 */
#include <string.h>

#include "base/fdn_error.h"
#include "engine/limiter_lease.h"
#include "nif/nif_limiter.h"

/* ---- options -------------------------------------------------------------------------------------------------------------------- */

/* attach_nif's configuration: a tuple of every option in this order, `undefined` where limit, burst or path was left out. */
enum { ALGORITHM, LIMIT, PERIOD, BURST, CAPACITY, ON_FULL, CLOCK, SCOPE, TELEMETRY, PERSIST, OPTIONS };
static const char *const option_names[OPTIONS] = {"algorithm", "limit", "period", "burst",     "capacity",
                                                  "on_full",   "clock", "scope",  "telemetry", "persist"};

static ERL_NIF_TERM bad_option(ErlNifEnv *env, const char *option, const char *reason)
{
    const fdn_atoms *a = &fdn_lib_of(env)->atoms;
    ERL_NIF_TERM detail = enif_make_tuple2(env, enif_make_atom(env, option), enif_make_atom(env, reason));
    return enif_make_tuple2(env, a->error, enif_make_tuple2(env, a->badarg, detail));
}

/* The words of an option, in the order of its enum. */
static bool pick(ERL_NIF_TERM term, const ERL_NIF_TERM *words, uint32_t n, uint32_t *out)
{
    for (*out = 0; *out < n; (*out)++) {
        if (enif_is_identical(term, words[*out]))
            return true;
    }
    return false;
}

typedef struct {
    ERL_NIF_TERM algorithms[3], policies[3], clocks[4], scopes[3], booleans[2];
} vocabulary;

static vocabulary vocabulary_of(ErlNifEnv *env)
{
    const fdn_atoms *a = &fdn_lib_of(env)->atoms;
    return (vocabulary){.algorithms = {a->gcra, a->fixed_window, a->sliding_window},
                        .policies = {a->evict, a->deny, a->allow},
                        .clocks = {enif_make_atom(env, "auto"), a->precise, a->coarse, a->manual},
                        .scopes = {a->local, a->cluster, a->cluster_strict},
                        .booleans = {a->false_, a->true_}};
}

/* A limiter as it is asked for. */
typedef struct {
    fdn_limiter_config config;
    char path[4096]; /* of its file; empty: none */
} wanted;

/* Which option is wrong, and *reason; or -1. The ranges are the engine's to check. */
static int read_options(ErlNifEnv *env, const ERL_NIF_TERM *v, wanted *w, const char **reason)
{
    fdn_limiter_config *c = &w->config;
    vocabulary words = vocabulary_of(env);
    ERL_NIF_TERM undefined = fdn_lib_of(env)->atoms.undefined;
    bool no_limit = enif_is_identical(v[LIMIT], undefined), no_period = enif_is_identical(v[PERIOD], undefined);
    bool no_burst = enif_is_identical(v[BURST], undefined);
    *c = (fdn_limiter_config){0};
    w->path[0] = '\0';
    *reason = "not_a_path";
    if (!enif_is_identical(v[PERSIST], undefined) && !fdn_get_path(env, v[PERSIST], w->path, sizeof w->path))
        return PERSIST;
    *reason = "unknown_value";
    if (!pick(v[ALGORITHM], words.algorithms, 3, &c->algorithm))
        return ALGORITHM;
    if (!pick(v[ON_FULL], words.policies, 3, &c->on_full))
        return ON_FULL;
    if (!pick(v[CLOCK], words.clocks, 4, &c->clock))
        return CLOCK;
    uint32_t scope, telemetry;
    if (!pick(v[SCOPE], words.scopes, 3, &scope))
        return SCOPE;
    if (!pick(v[TELEMETRY], words.booleans, 2, &telemetry))
        return TELEMETRY;
    c->tags = scope | (telemetry ? FDN_LIMITER_TELEMETRY : 0);
    if (!fdn_limiter_get_count(env, v[CAPACITY], &c->capacity, reason))
        return CAPACITY;
    *reason = "missing";
    if (no_limit != no_period)
        return no_limit ? LIMIT : PERIOD;
    if (no_limit && !no_burst)
        return LIMIT;
    if (no_limit)
        return -1;
    if (!fdn_limiter_get_count(env, v[LIMIT], &c->limit, reason))
        return LIMIT;
    if (!fdn_limiter_get_count(env, v[PERIOD], &c->period_ms, reason))
        return PERIOD;
    *reason = "out_of_range";
    if (c->period_ms == 0)
        return PERIOD;
    c->burst = c->limit;
    if (no_burst)
        return -1;
    *reason = "only_for_gcra";
    if (c->algorithm != FDN_LIMITER_GCRA)
        return BURST;
    return fdn_limiter_get_count(env, v[BURST], &c->burst, reason) ? -1 : BURST;
}

static int option_of(fdn_limiter_fit fit)
{
    switch (fit) {
    case FDN_LIMITER_BAD_PERIOD:
        return PERIOD;
    case FDN_LIMITER_BAD_LIMIT:
        return LIMIT;
    case FDN_LIMITER_BAD_BURST:
        return BURST;
    case FDN_LIMITER_BAD_CAPACITY:
        return CAPACITY;
    default:
        return ALGORITHM;
    }
}

static int first_difference(const fdn_limiter *t, const wanted *w)
{
    const fdn_limiter_config *a = fdn_limiter_config_of(t), *b = &w->config;
    const char *path = fdn_limiter_path(t);
    if (strcmp(path ? path : "", w->path) != 0)
        return PERSIST;
    if (a->algorithm != b->algorithm)
        return ALGORITHM;
    if (a->limit != b->limit)
        return LIMIT;
    if (a->period_ms != b->period_ms)
        return PERIOD;
    if (a->burst != b->burst)
        return BURST;
    if (a->capacity != b->capacity)
        return CAPACITY;
    if (a->on_full != b->on_full)
        return ON_FULL;
    if (a->clock != b->clock)
        return CLOCK;
    if (a->tags == b->tags)
        return -1;
    return (a->tags ^ b->tags) & FDN_LIMITER_SCOPE ? SCOPE : TELEMETRY;
}

/* ---- attach --------------------------------------------------------------------------------------------------------------------- */

static ERL_NIF_TERM attached(ErlNifEnv *env, uint64_t handle, ERL_NIF_TERM how)
{
    return enif_make_tuple3(env, fdn_lib_of(env)->atoms.ok, enif_make_uint64(env, handle), how);
}

static ERL_NIF_TERM error_pair(ErlNifEnv *env, ERL_NIF_TERM word, ERL_NIF_TERM what)
{
    return enif_make_tuple2(env, fdn_lib_of(env)->atoms.error, enif_make_tuple2(env, word, what));
}

/* Why there is no table: {badarg, {Option, out_of_range}}, {locked, OsPid}, {file, {differs, Option}}, {file, Word}, enomem. */
static ERL_NIF_TERM no_table(ErlNifEnv *env, int rc, fdn_limiter_fit fit, const fdn_limiter_opening *why, bool file)
{
    ERL_NIF_TERM word = enif_make_atom(env, fdn_error_name(rc));
    if (fit != FDN_LIMITER_FITS)
        return bad_option(env, option_names[option_of(fit)], "out_of_range");
    if (rc == FDN_ENOMEM || !file)
        return fdn_error_term(env, rc);
    if (rc == FDN_ELOCKED)
        return error_pair(env, word, enif_make_uint64(env, why->pid));
    if (rc == FDN_EDIFFERS)
        word = enif_make_tuple2(env, word, enif_make_atom(env, option_names[option_of(why->differs)]));
    return error_pair(env, enif_make_atom(env, "file"), word);
}

/* The name is free: a new table, or the one in the file. *again where somebody else took the name meanwhile. */
static ERL_NIF_TERM create(ErlNifEnv *env, fdn_limiter_state *st, ERL_NIF_TERM name, const ErlNifPid *owner, const wanted *w,
                           bool *again)
{
    fdn_limiter *t;
    fdn_limiter_fit fit;
    fdn_limiter_opening why = {0};
    fdn_limiters_entry entry;
    bool file = w->path[0] != '\0';
    int rc = file ? fdn_limiter_open(&w->config, w->path, NULL, &t, &fit, &why) : fdn_limiter_create(&w->config, &t, &fit);
    if (rc != 0)
        return no_table(env, rc, fit, &why, file);
    if (file)
        memcpy(fdn_limiter_secret_of(t)->salts, st->secret.salts, sizeof st->secret.salts);
    else
        *fdn_limiter_secret_of(t) = st->secret;
    if ((w->config.tags & FDN_LIMITER_SCOPE) == FDN_LIMITER_CLUSTER && fdn_limiter_lease_add(t) != 0) {
        fdn_limiter_destroy(t);
        return fdn_error_term(env, FDN_ENOMEM);
    }
    rc = fdn_limiters_add(st->names, name, owner->pid, t, &entry);
    if (rc == 0)
        return attached(env, entry.handle, fdn_lib_of(env)->atoms.created);
    fdn_limiter_destroy(t);
    *again = rc == FDN_EBUSY;
    return enif_make_tuple2(env, fdn_lib_of(env)->atoms.error, enif_make_atom(env, "too_many_limiters"));
}

/* The name is taken: by a living owner, or by a table whose owner died. */
static ERL_NIF_TERM take_over(ErlNifEnv *env, fdn_limiter_state *st, const fdn_limiters_entry *entry, const ErlNifPid *owner,
                              const wanted *w, bool *again)
{
    const fdn_atoms *a = &fdn_lib_of(env)->atoms;
    ErlNifPid old = {(ERL_NIF_TERM)entry->owner};
    if (enif_is_process_alive(env, &old))
        return enif_make_tuple2(env, a->error, enif_make_tuple2(env, a->already_started, enif_make_pid(env, &old)));
    unsigned lane = fdn_limiter_lane(st);
    fdn_limiter *t = fdn_limiters_enter_handle(st->names, lane, entry->handle);
    *again = t == NULL;
    if (t == NULL)
        return a->undefined;
    int differs = first_difference(t, w);
    fdn_limiters_leave(st->names, lane);
    if (differs >= 0)
        return bad_option(env, option_names[differs], "differs_from_living_table");
    *again = fdn_limiters_adopt(st->names, entry->handle, entry->owner, owner->pid) != 0;
    return attached(env, entry->handle, a->attached);
}

/* attach_nif(Name, Options, Owner) -> {ok, Handle, created | attached} | {error, Reason} */
ERL_NIF_TERM fdn_limiter_nif_attach(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[])
{
    (void)argc;
    fdn_limiter_state *st = fdn_limiter_state_of(env);
    const ERL_NIF_TERM *values;
    const char *reason;
    int arity, wrong;
    wanted w;
    ErlNifPid owner;
    if (!enif_is_atom(env, argv[0]) || enif_is_identical(argv[0], fdn_lib_of(env)->atoms.undefined))
        return bad_option(env, "name", "not_a_name");
    if (!enif_get_tuple(env, argv[1], &arity, &values) || arity != OPTIONS || !enif_get_local_pid(env, argv[2], &owner))
        return enif_make_badarg(env);
    wrong = read_options(env, values, &w, &reason);
    if (wrong >= 0)
        return bad_option(env, option_names[wrong], reason);
    w.config.label = argv[0];
    ERL_NIF_TERM result = fdn_lib_of(env)->atoms.undefined;
    bool again = true, file = w.path[0] != '\0';
    if (file)
        pthread_mutex_lock(&st->opening);
    while (again) {
        fdn_limiters_entry entry;
        again = false;
        result = fdn_limiters_find(st->names, argv[0], &entry) == 0 ? take_over(env, st, &entry, &owner, &w, &again)
                                                                    : create(env, st, argv[0], &owner, &w, &again);
    }
    if (file)
        pthread_mutex_unlock(&st->opening);
    return result;
}

/* ---- the rest ------------------------------------------------------------------------------------------------------------------- */

static int find(ErlNifEnv *env, ERL_NIF_TERM term, fdn_limiters_entry *entry)
{
    fdn_limiter_state *st = fdn_limiter_state_of(env);
    ErlNifUInt64 handle;
    if (enif_is_atom(env, term))
        return fdn_limiters_find(st->names, term, entry);
    return enif_get_uint64(env, term, &handle) ? fdn_limiters_find_handle(st->names, handle, entry) : FDN_EUNKNOWN;
}

/* The limiter of a name or handle, entered. NULL: none. */
static fdn_limiter *enter(ErlNifEnv *env, unsigned lane, ERL_NIF_TERM term, fdn_limiters_entry *entry)
{
    return find(env, term, entry) == 0 ? fdn_limiters_enter_handle(fdn_limiter_state_of(env)->names, lane, entry->handle) : NULL;
}

/* remove_nif(L, Discard) -> {ok, Owner}; the owner may be dead. Discard: its file goes too. */
ERL_NIF_TERM fdn_limiter_nif_remove(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[])
{
    (void)argc;
    fdn_limiter_state *st = fdn_limiter_state_of(env);
    fdn_limiters_entry entry;
    unsigned lane = fdn_limiter_lane(st);
    fdn_limiter *t = enter(env, lane, argv[0], &entry);
    if (t == NULL)
        return fdn_limiter_raise_unknown(env, argv[0]);
    if (enif_is_identical(argv[1], fdn_lib_of(env)->atoms.true_))
        fdn_limiter_discard(t);
    fdn_limiters_leave(st->names, lane);
    if (fdn_limiters_remove(st->names, entry.handle) != 0)
        return fdn_limiter_raise_unknown(env, argv[0]);
    ErlNifPid owner = {(ERL_NIF_TERM)entry.owner};
    return enif_make_tuple2(env, fdn_lib_of(env)->atoms.ok, enif_make_pid(env, &owner));
}

static ERL_NIF_TERM make_path(ErlNifEnv *env, const char *path)
{
    ERL_NIF_TERM term;
    size_t len = strlen(path);
    memcpy(enif_make_new_binary(env, len, &term), path, len);
    return term;
}

/* look_after_nif(L) -> {Path | undefined, Dropped, ok | {error, faulted | enoent | ...}} */
ERL_NIF_TERM fdn_limiter_nif_look_after(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[])
{
    (void)argc;
    fdn_limiter_state *st = fdn_limiter_state_of(env);
    fdn_limiters_entry entry;
    unsigned lane = fdn_limiter_lane(st);
    fdn_limiter *t = enter(env, lane, argv[0], &entry);
    if (t == NULL)
        return fdn_limiter_raise_unknown(env, argv[0]);
    int rc = fdn_limiter_look_after(t);
    ERL_NIF_TERM path = fdn_limiter_path(t) ? make_path(env, fdn_limiter_path(t)) : fdn_lib_of(env)->atoms.undefined;
    ERL_NIF_TERM dropped = enif_make_uint64(env, fdn_limiter_dropped(t));
    fdn_limiters_leave(st->names, lane);
    return enif_make_tuple3(env, path, dropped, fdn_result_term(env, rc));
}

ERL_NIF_TERM fdn_limiter_nif_whereis(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[])
{
    (void)argc;
    fdn_limiters_entry entry;
    if (!enif_is_atom(env, argv[0]))
        return fdn_raise_badarg(env, "name", "not_an_atom");
    return find(env, argv[0], &entry) == 0 ? enif_make_uint64(env, entry.handle) : fdn_lib_of(env)->atoms.undefined;
}

ERL_NIF_TERM fdn_limiter_nif_advance(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[])
{
    (void)argc;
    fdn_limiter_state *st = fdn_limiter_state_of(env);
    const char *reason;
    uint64_t ms;
    if (!fdn_limiter_get_count(env, argv[1], &ms, &reason))
        return fdn_raise_badarg(env, "ms", reason);
    unsigned lane = fdn_limiter_lane(st);
    fdn_limiter *t = fdn_limiter_enter(env, st, lane, argv[0]);
    if (t == NULL)
        return fdn_limiter_raise_unknown(env, argv[0]);
    int rc = fdn_limiter_advance(t, ms);
    fdn_limiters_leave(st->names, lane);
    if (rc == 0)
        return fdn_lib_of(env)->atoms.ok;
    return rc == FDN_EINVAL ? fdn_raise_badarg(env, "clock", "not_manual") : fdn_raise_badarg(env, "ms", "out_of_range");
}

ERL_NIF_TERM fdn_limiter_nif_info(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[])
{
    (void)argc;
    fdn_limiter_state *st = fdn_limiter_state_of(env);
    const fdn_atoms *a = &fdn_lib_of(env)->atoms;
    fdn_limiters_entry entry;
    fdn_limiter_stats stats;
    unsigned lane = fdn_limiter_lane(st);
    fdn_limiter *t = enter(env, lane, argv[0], &entry);
    if (t == NULL)
        return fdn_limiter_raise_unknown(env, argv[0]);
    fdn_limiter_config config = *fdn_limiter_config_of(t);
    fdn_limiter_stats_of(t, &stats);
    ERL_NIF_TERM path = fdn_limiter_path(t) ? make_path(env, fdn_limiter_path(t)) : a->undefined;
    fdn_limiters_leave(st->names, lane);

    vocabulary words = vocabulary_of(env);
    ErlNifPid owner = {(ERL_NIF_TERM)entry.owner};
    bool preset = config.period_ms != 0;
    ERL_NIF_TERM in_use = config.clock == FDN_LIMITER_MANUAL ? a->manual : stats.coarse ? a->coarse : a->precise;
#define COUNT(value) enif_make_uint64(env, (value))
    ERL_NIF_TERM keys[] = {a->algorithm, a->limit, a->period,    a->burst,   a->capacity,   a->on_full, a->clock,  a->clock_in_use,
                           a->now,       a->owner, a->live,      a->slots,   a->bytes,      a->allowed, a->denied, a->full,
                           a->evicted,   a->scope, a->telemetry, a->persist, a->disk_bytes, a->faulted, a->name};
    ERL_NIF_TERM values[] = {words.algorithms[config.algorithm],
                             preset ? COUNT(config.limit) : a->undefined,
                             preset ? COUNT(config.period_ms) : a->undefined,
                             preset && config.algorithm == FDN_LIMITER_GCRA ? COUNT(config.burst) : a->undefined,
                             COUNT(config.capacity),
                             words.policies[config.on_full],
                             words.clocks[config.clock],
                             in_use,
                             COUNT(stats.now_ms),
                             enif_is_process_alive(env, &owner) ? enif_make_pid(env, &owner) : a->undefined,
                             COUNT(stats.live),
                             COUNT(stats.slots),
                             COUNT(stats.bytes),
                             COUNT(stats.allowed),
                             COUNT(stats.denied),
                             COUNT(stats.full),
                             COUNT(stats.evicted),
                             words.scopes[config.tags & FDN_LIMITER_SCOPE],
                             words.booleans[(config.tags & FDN_LIMITER_TELEMETRY) != 0],
                             path,
                             COUNT(stats.disk_bytes),
                             words.booleans[stats.faulted],
                             (ERL_NIF_TERM)config.label};
#undef COUNT
    _Static_assert(sizeof keys == sizeof values, "a value for each key");
    ERL_NIF_TERM map;
    if (!enif_make_map_from_arrays(env, keys, values, sizeof keys / sizeof *keys, &map))
        return enif_make_badarg(env);
    return map;
}
