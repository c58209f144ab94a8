/*
 * nif_common.h - what every NIF library of the project does the same way.
 *
 * Life of a library. The VM loads one library for each module instance; a hot code upgrade loads the new one while the old one is
 * still there, and unloads the old one when its code is purged. What outlives a library (tables, mappings, threads) is the part's
 * state; it is held in a counted box that an upgrade hands over:
 *
 *     load     opens the resource types, creates the state, starts its threads (resume)
 *     upgrade  opens the resource types again (takes them over), refuses a box whose abi it does not know, stops and joins the old
 *              library's threads (pause, old code), starts its own (resume, new code); on failure the old threads are started again
 *     unload   drops the box; the last holder pauses and destroys the state
 *
 * A part describes itself with one fdn_part and one FDN_NIF_INIT; it keeps nothing in static variables.
 */
#ifndef FDN_NIF_COMMON_H
#define FDN_NIF_COMMON_H

#include <erl_nif.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "nif/nif_atoms.h"

#define FDN_MAX_TYPES 4

typedef struct fdn_atoms {
    ERL_NIF_TERM true_;
    ERL_NIF_TERM false_;
#define FDN_ATOM_FIELD(name) ERL_NIF_TERM name;
    FDN_ATOMS(FDN_ATOM_FIELD)
#undef FDN_ATOM_FIELD
} fdn_atoms;

typedef struct fdn_lib fdn_lib;

/* A part's description. Functions may be NULL where there is nothing to do; the int ones return 0 or non-zero for failure. */
typedef struct fdn_part {
    const char *name;
    unsigned abi;                                    /* of the state; raised whenever its layout or meaning changes */
    int (*open_types)(ErlNifEnv *env, fdn_lib *lib); /* fill lib->types with ERL_NIF_RT_CREATE | ERL_NIF_RT_TAKEOVER */
    int (*create)(fdn_lib *lib, void **state);
    void (*pause)(void *state); /* stop and join every thread that runs this library's code */
    int (*resume)(void *state); /* start them */
    void (*destroy)(void *state);
} fdn_part;

typedef struct fdn_box fdn_box;

/* The priv data of one loaded library. `state` is box's, repeated for speed. */
struct fdn_lib {
    void *state;
    fdn_atoms atoms;
    ErlNifResourceType *types[FDN_MAX_TYPES];
    fdn_box *box;
    const fdn_part *part;
};

/*
 * Why a library did not load: the number that load or upgrade returns. foundation_nif.erl names them in the same order.
 */
enum {
    FDN_LOAD_ENOMEM = 1,
    FDN_LOAD_RESOURCE_TYPES = 2,
    FDN_LOAD_RANDOM_SOURCE = 3,
    FDN_LOAD_SIGBUS_GUARD = 4,
    FDN_LOAD_STATE = 5,
    FDN_LOAD_UPGRADE_REFUSED = 6,
    FDN_LOAD_THREADS = 7
};

int fdn_nif_load(ErlNifEnv *env, void **priv, const fdn_part *part);
int fdn_nif_upgrade(ErlNifEnv *env, void **priv, void **old_priv, const fdn_part *part);
void fdn_nif_unload(void *priv);

/* FDN_NIF_INIT(foundation_x, functions, &part): in place of ERL_NIF_INIT. */
#define FDN_NIF_INIT(MODULE, FUNCS, PART)                                                                                              \
    static int fdn_load_(ErlNifEnv *env, void **priv, ERL_NIF_TERM info)                                                               \
    {                                                                                                                                  \
        (void)info;                                                                                                                    \
        return fdn_nif_load(env, priv, PART);                                                                                          \
    }                                                                                                                                  \
    static int fdn_upgrade_(ErlNifEnv *env, void **priv, void **old, ERL_NIF_TERM info)                                                \
    {                                                                                                                                  \
        (void)info;                                                                                                                    \
        return fdn_nif_upgrade(env, priv, old, PART);                                                                                  \
    }                                                                                                                                  \
    static void fdn_unload_(ErlNifEnv *env, void *priv)                                                                                \
    {                                                                                                                                  \
        (void)env;                                                                                                                     \
        fdn_nif_unload(priv);                                                                                                          \
    }                                                                                                                                  \
    ERL_NIF_INIT(MODULE, FUNCS, fdn_load_, NULL, fdn_upgrade_, fdn_unload_)

static inline fdn_lib *fdn_lib_of(ErlNifEnv *env)
{
    return (fdn_lib *)enif_priv_data(env);
}

/* Raise error:{badarg, {Arg, Reason}}: which argument or option, and what about it. Both become atoms; cold path only. */
ERL_NIF_TERM fdn_raise_badarg(ErlNifEnv *env, const char *arg, const char *reason);

/* {error, Word} for a result code of an engine (fdn_error.h). */
ERL_NIF_TERM fdn_error_term(ErlNifEnv *env, int rc);

/* ok, or {error, Word}. */
ERL_NIF_TERM fdn_result_term(ErlNifEnv *env, int rc);

/* Option `key` (an atom by its text) of a map. False where the map has no such key. */
bool fdn_map_get(ErlNifEnv *env, ERL_NIF_TERM map, const char *key, ERL_NIF_TERM *value);

/* A path: any binary or iolist without NUL bytes, as the caller encoded it (file:native_name), into buf. False where it does not fit.
 */
bool fdn_get_path(ErlNifEnv *env, ERL_NIF_TERM term, char *buf, size_t size);

/*
 * Charge the calling process for work by the bytes touched: about one reduction a 64 bytes, 4000 to a time slice, and nothing below a
 * hundredth of a slice.
 */
#define FDN_CHARGED_FROM ((size_t)64 * 40)
void fdn_charge_slice(ErlNifEnv *env, size_t bytes);

static inline void fdn_charge(ErlNifEnv *env, size_t bytes)
{
    if (bytes >= FDN_CHARGED_FROM)
        fdn_charge_slice(env, bytes);
}

#endif
