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

/*
 * Enter the limiter that a term names, by its name or handle. NULL: none; raise with fdn_limiter_raise_unknown. The word of a term that
 * is no atom is never a name, so names are looked for without asking the VM what the term is.
 */
static inline fdn_limiter *fdn_limiter_enter(ErlNifEnv *env, fdn_limiter_state *st, unsigned lane, ERL_NIF_TERM term)
{
    fdn_limiter *t = fdn_limiters_enter(st->names, lane, term);
    ErlNifSInt64 handle;
    if (t != NULL || !enif_get_int64(env, term, &handle))
        return t;
    return fdn_limiters_enter_handle(st->names, lane, (uint64_t)(handle < 0 ? ~handle : handle));
}

/* {limiter, not_a_name_or_handle | unknown | deleted} */
ERL_NIF_TERM fdn_limiter_raise_unknown(ErlNifEnv *env, ERL_NIF_TERM term);

/* A non-negative integer; else *reason says what it is. */
bool fdn_limiter_get_count(ErlNifEnv *env, ERL_NIF_TERM term, uint64_t *out, const char **reason);

/* nif_limiter_owner.c: the calls of the owner and of operators; all but whereis and advance on dirty schedulers. */
ERL_NIF_TERM fdn_limiter_nif_attach(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]);
ERL_NIF_TERM fdn_limiter_nif_look_after(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]);
ERL_NIF_TERM fdn_limiter_nif_remove(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]);
ERL_NIF_TERM fdn_limiter_nif_info(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]);
ERL_NIF_TERM fdn_limiter_nif_whereis(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]);
ERL_NIF_TERM fdn_limiter_nif_advance(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]);

#endif
