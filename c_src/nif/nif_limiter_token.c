/*
 * nif_limiter_token.c - what a reservation is given back by: a reference that any process of this VM may hold and use once.
 *
 * It knows its limiter by handle, so it outlives the limiter harmlessly, and the library's code: a hot upgrade takes its type over.
 */
#include <stdatomic.h>

#include "nif/nif_limiter.h"

enum { TOKEN_TYPE };
typedef enum { FRESH, REFUNDED, EXPIRED } token_use;

typedef struct {
    uint64_t handle;
    fdn_limiter_debit debit;
    _Atomic uint32_t use;
} token;

int fdn_limiter_open_types(ErlNifEnv *env, fdn_lib *lib)
{
    ErlNifResourceFlags flags = ERL_NIF_RT_CREATE | ERL_NIF_RT_TAKEOVER;
    lib->types[TOKEN_TYPE] = enif_open_resource_type(env, NULL, "foundation_limiter_token", NULL, flags, NULL);
    return lib->types[TOKEN_TYPE] != NULL ? 0 : -1;
}

ERL_NIF_TERM fdn_limiter_make_token(ErlNifEnv *env, const fdn_lib *lib, uint64_t handle, const fdn_limiter_debit *debit)
{
    token *k = enif_alloc_resource(lib->types[TOKEN_TYPE], sizeof *k);
    k->handle = handle;
    k->debit = *debit;
    atomic_init(&k->use, FRESH);
    ERL_NIF_TERM term = enif_make_resource(env, k);
    enif_release_resource(k);
    return term;
}

/* refund(Token) -> ok | {error, expired | refunded}. Of several processes with one token, one refunds. */
ERL_NIF_TERM fdn_limiter_nif_refund(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[])
{
    (void)argc;
    fdn_lib *lib = fdn_lib_of(env);
    fdn_limiter_state *st = lib->state;
    void *object;
    if (!enif_get_resource(env, argv[0], lib->types[TOKEN_TYPE], &object))
        return fdn_raise_badarg(env, "token", "not_a_token");
    token *k = object;
    uint32_t use = FRESH;
    if (atomic_compare_exchange_strong(&k->use, &use, REFUNDED)) {
        unsigned lane = fdn_limiter_lane(st);
        fdn_limiter *t = fdn_limiters_enter_handle(st->names, lane, k->handle);
        bool given = t != NULL && fdn_limiter_give_back(t, &k->debit);
        if (t != NULL)
            fdn_limiters_leave(st->names, lane);
        if (given)
            return lib->atoms.ok;
        use = EXPIRED;
        atomic_store(&k->use, use);
    }
    return enif_make_tuple2(env, lib->atoms.error, use == EXPIRED ? lib->atoms.expired : lib->atoms.refunded);
}
