/*
 * nif_limiter.h - what the limiter's NIF files share: the library's state, and how a call enters a limiter.
 */
#ifndef FDN_NIF_LIMITER_H
#define FDN_NIF_LIMITER_H

#include <pthread.h>

#include "engine/limiter.h"
#include "engine/limiter_names.h"
#include "nif/nif_common.h"
#include "nif/nif_limiter_key.h"

/* Raised whenever fdn_limiters, fdn_limiter or this struct changes: all of it is handed over by a hot upgrade. */
#define FDN_LIMITER_ABI 3

/* The tags of a table (fdn_limiter_config); its label is its name, an atom. A scope of 0 is local. */
enum { FDN_LIMITER_SCOPE = 3, FDN_LIMITER_CLUSTER = 1, FDN_LIMITER_CLUSTER_STRICT = 2, FDN_LIMITER_TELEMETRY = 4 };

typedef struct {
    fdn_limiters *names;
    pthread_key_t lane_key;    /* of each thread: 1 + its lane, as a pointer */
    fdn_limiter_secret secret; /* of the tables that live in memory */
    pthread_mutex_t opening;   /* while a file is opened and its limiter published: who comes second finds the name taken */
} fdn_limiter_state;

static inline fdn_limiter_state *fdn_limiter_state_of(ErlNifEnv *env)
{
    return fdn_lib_of(env)->state;
}

/* The calling thread's lane; given out at its first call. (enif_tsd_get takes 4 ns more, and a key of the VM's, given out again, still
 * has what threads stored under it in its earlier life.) */
static inline unsigned fdn_limiter_lane(fdn_limiter_state *st)
{
    uintptr_t known = (uintptr_t)pthread_getspecific(st->lane_key);
    if (known == 0) {
        /* The first call may find no memory; then it is lane 0 this time, and no lane is given away. */
        if (pthread_setspecific(st->lane_key, (void *)1) != 0)
            return 0;
        known = fdn_limiters_lane(st->names) + 1;
        (void)pthread_setspecific(st->lane_key, (void *)known);
    }
    return (unsigned)(known - 1);
}

/*
 * A handle's complement, a negative integer, is the same limiter "at home": its own table is asked, whatever its scope says, and nobody
 * is told. So a member answers the others (foundation_limiter_member).
 */
static inline bool fdn_limiter_at_home(ErlNifEnv *env, ERL_NIF_TERM term)
{
    ErlNifSInt64 handle;
    return enif_get_int64(env, term, &handle) && handle < 0;
}

static inline bool fdn_limiter_get_handle(ErlNifEnv *env, ERL_NIF_TERM term, uint64_t *handle)
{
    ErlNifSInt64 given;
    if (!enif_get_int64(env, term, &given))
        return false;
    *handle = (uint64_t)(given < 0 ? ~given : given);
    return true;
}

/*
 * Enter the limiter that a term names, by its name or handle. NULL: none; raise with fdn_limiter_raise_unknown. The word of a term that
 * is no atom is never a name, so names are looked for without asking the VM what the term is.
 */
static inline fdn_limiter *fdn_limiter_enter(ErlNifEnv *env, fdn_limiter_state *st, unsigned lane, ERL_NIF_TERM term)
{
    fdn_limiter *t = fdn_limiters_enter(st->names, lane, term);
    uint64_t handle;
    if (t != NULL || !fdn_limiter_get_handle(env, term, &handle))
        return t;
    return fdn_limiters_enter_handle(st->names, lane, handle);
}

/* As fdn_limiter_enter; *handle is then its handle. */
static inline fdn_limiter *fdn_limiter_enter_and_tell(ErlNifEnv *env, fdn_limiter_state *st, unsigned lane, ERL_NIF_TERM term,
                                                      uint64_t *handle)
{
    fdn_limiter *t = fdn_limiters_enter_and_tell(st->names, lane, term, handle);
    if (t != NULL || !fdn_limiter_get_handle(env, term, handle))
        return t;
    return fdn_limiters_enter_handle(st->names, lane, *handle);
}

/* What is wrong with a call: the words of {badarg, {Argument, Reason}}. */
typedef struct {
    const char *argument, *reason;
} fdn_limiter_complaint;

/* A term that enters no limiter: {limiter, not_a_name_or_handle | unknown | deleted}. */
fdn_limiter_complaint fdn_limiter_unknown(ErlNifEnv *env, ERL_NIF_TERM term);
ERL_NIF_TERM fdn_limiter_raise_unknown(ErlNifEnv *env, ERL_NIF_TERM term);

/* A non-negative integer; else *reason says what it is. */
bool fdn_limiter_get_count(ErlNifEnv *env, ERL_NIF_TERM term, uint64_t *out, const char **reason);

static inline bool fdn_limiter_get_argument(ErlNifEnv *env, ERL_NIF_TERM term, const char *argument, uint64_t *out,
                                            fdn_limiter_complaint *wrong)
{
    ErlNifUInt64 value;
    if (enif_get_uint64(env, term, &value)) {
        *out = value;
        return true;
    }
    wrong->argument = argument;
    return fdn_limiter_get_count(env, term, out, &wrong->reason);
}

/* The preset limit; NULL where the limiter has none. */
static inline const fdn_limiter_rule *fdn_limiter_get_preset(const fdn_limiter *t, fdn_limiter_complaint *wrong)
{
    const fdn_limiter_rule *preset = fdn_limiter_preset(t);
    if (preset->period_ms != 0)
        return preset;
    *wrong = (fdn_limiter_complaint){"limit", "no_preset_limit"};
    return NULL;
}

static inline bool fdn_limiter_get_cost(const fdn_limiter *t, const fdn_limiter_rule *rule, uint64_t cost, fdn_limiter_complaint *wrong)
{
    bool fits = fdn_limiter_cost_fits(rule, cost);
    if (!fits) {
        bool burst = rule == fdn_limiter_preset(t) && fdn_limiter_config_of(t)->algorithm == FDN_LIMITER_GCRA;
        *wrong = (fdn_limiter_complaint){"cost", burst ? "exceeds_burst" : "exceeds_limit"};
    }
    return fits;
}

/* nif_limiter_owner.c: the calls of the owner and of operators; all but whereis on dirty schedulers. */
ERL_NIF_TERM fdn_limiter_nif_attach(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]);
ERL_NIF_TERM fdn_limiter_nif_look_after(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]);
ERL_NIF_TERM fdn_limiter_nif_remove(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]);
ERL_NIF_TERM fdn_limiter_nif_info(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]);
ERL_NIF_TERM fdn_limiter_nif_whereis(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]);
ERL_NIF_TERM fdn_limiter_nif_advance(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]);

/* nif_limiter_token.c: what a reservation is given back by. */
int fdn_limiter_open_types(ErlNifEnv *env, fdn_lib *lib);
ERL_NIF_TERM fdn_limiter_make_token(ErlNifEnv *env, const fdn_lib *lib, uint64_t handle, const fdn_limiter_debit *debit);
ERL_NIF_TERM fdn_limiter_nif_refund(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]);

/* nif_limiter_cluster.c; reopen on a dirty scheduler */
ERL_NIF_TERM fdn_limiter_nif_lend(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]);
ERL_NIF_TERM fdn_limiter_nif_lease(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]);
ERL_NIF_TERM fdn_limiter_nif_forget(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]);
ERL_NIF_TERM fdn_limiter_nif_lease_now(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]);
ERL_NIF_TERM fdn_limiter_nif_reopen(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]);

/* nif_limiter_all.c */
ERL_NIF_TERM fdn_limiter_nif_hit_all(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]);

#endif
