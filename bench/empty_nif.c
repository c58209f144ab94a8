/*
 * empty_nif.c - what a NIF costs at least: one that does nothing, and one that does only what no limiter can do without. From the one
 * to the limiter's hit it goes in steps, each a NIF that does all that the one before does and one thing more. And a clock, for what is
 * measured call by call.
 *
 * Baselines of `make bench`, no part of the library.
 */
#include <erl_nif.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/fdn_clock.h"
#include "base/fdn_hash.h"
#include "base/fdn_inline.h"
#include "engine/limiter.h"
#include "engine/limiter_names.h"

#define NAME 42

typedef struct {
    uint8_t key[FDN_HASH_KEY_BYTES];
    _Atomic uint64_t word;
    ERL_NIF_TERM allow;
    fdn_limiters *names;
    pthread_key_t lane_key;
} floor_state;

static ERL_NIF_TERM empty(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[])
{
    (void)env;
    (void)argc;
    return argv[0];
}

typedef enum { ARGUMENTS, HASH, LEAST, ANSWER, ENTER, HIT } step;

static FDN_INLINE fdn_limiter_answer swap_word(floor_state *state, uint64_t hash)
{
    uint64_t now = fdn_clock_coarse_ns();
    uint64_t old = atomic_load(&state->word);
    while (!atomic_compare_exchange_weak(&state->word, &old, old + (hash & 1) + (now & 1)))
        ;
    return (fdn_limiter_answer){.value = old & 0xffffff};
}

/* (Key, Period, Limit): read the arguments, hash the key, read a clock and swap one word, make an answer, enter a limiter, hit it. */
static FDN_INLINE ERL_NIF_TERM steps(ErlNifEnv *env, const ERL_NIF_TERM argv[], step last)
{
    floor_state *state = enif_priv_data(env);
    fdn_limiter *t = NULL;
    fdn_limiter_answer answer = {.value = 0};
    ErlNifBinary key;
    ErlNifUInt64 period, limit;
    unsigned lane = 0;
    if (last >= ENTER) {
        uintptr_t known = (uintptr_t)pthread_getspecific(state->lane_key);
        if (known == 0) {
            known = fdn_limiters_lane(state->names) + 1;
            pthread_setspecific(state->lane_key, (void *)known);
        }
        lane = (unsigned)(known - 1);
        t = fdn_limiters_enter(state->names, lane, NAME);
    }
    if (!enif_inspect_binary(env, argv[0], &key) || !enif_get_uint64(env, argv[1], &period) || !enif_get_uint64(env, argv[2], &limit))
        return enif_make_badarg(env);
    if (last >= HASH) {
        uint64_t hash = fdn_hash_keyed(key.data, key.size, state->key);
        if (last == HASH)
            return hash == period ? argv[1] : argv[2];
        answer = last == HIT ? fdn_limiter_hit(t, lane, fdn_limiter_preset(t), hash, 1) : swap_word(state, hash);
    }
    if (last >= ENTER)
        fdn_limiters_leave(state->names, lane);
    return last >= ANSWER ? enif_make_tuple2(env, state->allow, enif_make_uint64(env, answer.value)) : argv[2];
}

#define STEP(NAME, LAST)                                                                                                               \
    static ERL_NIF_TERM NAME(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[])                                                      \
    {                                                                                                                                  \
        (void)argc;                                                                                                                    \
        return steps(env, argv, LAST);                                                                                                 \
    }
STEP(arguments, ARGUMENTS)
STEP(hash, HASH)
STEP(least, LEAST)
STEP(answer, ANSWER)
STEP(enter, ENTER)
STEP(hit, HIT)

static ERL_NIF_TERM now(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[])
{
    (void)argc;
    (void)argv;
    return enif_make_uint64(env, fdn_clock_mono_ns());
}

static bool make_limiter(floor_state *state)
{
    fdn_limiter_config config = {
        .algorithm = FDN_LIMITER_FIXED_WINDOW, .limit = FDN_LIMITER_MAX_FIXED_LIMIT, .period_ms = 3600000, .capacity = 1000};
    fdn_limiter_fit fit;
    fdn_limiters_entry entry;
    fdn_limiter *t;
    return fdn_limiters_create(false, &state->names) == 0 && fdn_limiter_create(&config, &t, &fit) == 0 &&
           fdn_limiters_add(state->names, NAME, 0, t, &entry) == 0 && pthread_key_create(&state->lane_key, NULL) == 0;
}

/* Fails for good: the benchmark ends then, and the VM with it. */
static int load(ErlNifEnv *env, void **priv, ERL_NIF_TERM info)
{
    (void)info;
    floor_state *state = enif_alloc(sizeof *state);
    if (!state || fdn_hash_init() || !make_limiter(state))
        return 1;
    fdn_random(state->key, sizeof state->key);
    atomic_init(&state->word, 0);
    state->allow = enif_make_atom(env, "allow");
    *priv = state;
    return 0;
}

static ErlNifFunc functions[] = {{"empty", 1, empty, 0},   {"arguments", 3, arguments, 0}, {"hash", 3, hash, 0}, {"least", 3, least, 0},
                                 {"answer", 3, answer, 0}, {"enter", 3, enter, 0},         {"hit", 3, hit, 0},   {"now", 0, now, 0}};

ERL_NIF_INIT(empty_nif, functions, load, NULL, NULL, NULL)
