/*
 * empty_nif.c - what a NIF costs at least: one that does nothing, and one that does only what no limiter can do without. And a clock,
 * for what is measured call by call.
 *
 * Baselines of `make bench`, no part of the library.
 */
#include <erl_nif.h>
#include <stdatomic.h>
#include <stdint.h>

#include "base/fdn_clock.h"
#include "base/fdn_hash.h"

typedef struct {
    uint8_t key[FDN_HASH_KEY_BYTES];
    _Atomic uint64_t word;
} floor_state;

static ERL_NIF_TERM empty(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[])
{
    (void)env;
    (void)argc;
    return argv[0];
}

/* floor(Key, Period, Limit): read the arguments, hash the key, read a clock, swap one word. */
static ERL_NIF_TERM least(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[])
{
    floor_state *state = enif_priv_data(env);
    ErlNifBinary key;
    ErlNifUInt64 period, limit;
    (void)argc;
    if (!enif_inspect_binary(env, argv[0], &key) || !enif_get_uint64(env, argv[1], &period) || !enif_get_uint64(env, argv[2], &limit))
        return enif_make_badarg(env);
    uint64_t hash = fdn_hash_keyed(key.data, key.size, state->key);
    uint64_t now = fdn_clock_coarse_ns();
    uint64_t old = atomic_load(&state->word);
    while (!atomic_compare_exchange_weak(&state->word, &old, old + (hash & 1) + (now & 1)))
        ;
    return argv[2];
}

static ERL_NIF_TERM now(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[])
{
    (void)argc;
    (void)argv;
    return enif_make_uint64(env, fdn_clock_mono_ns());
}

static int load(ErlNifEnv *env, void **priv, ERL_NIF_TERM info)
{
    (void)env;
    (void)info;
    floor_state *state = enif_alloc(sizeof *state);
    if (!state)
        return 1;
    if (fdn_hash_init()) {
        enif_free(state);
        return 2;
    }
    fdn_random(state->key, sizeof state->key);
    atomic_init(&state->word, 0);
    *priv = state;
    return 0;
}

static void unload(ErlNifEnv *env, void *priv)
{
    (void)env;
    enif_free(priv);
}

static ErlNifFunc functions[] = {{"empty", 1, empty, 0}, {"least", 3, least, 0}, {"now", 0, now, 0}};

ERL_NIF_INIT(empty_nif, functions, load, NULL, NULL, unload)
