/* The control of `make test-asan`: NIFs that are wrong on purpose. ASan must stop the VM in each of them. */
#include <erl_nif.h>
#include <string.h>

/* Writes one byte behind memory of enif_alloc, which ASan sees only under +Mea min. */
static ERL_NIF_TERM alloc_overflow(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[])
{
    volatile size_t size = 24; /* not for the compiler to see through */
    char *bytes = enif_alloc(size);
    if (bytes == NULL)
        return enif_make_badarg(env);
    memset(bytes, 1, size + 1);
    ERL_NIF_TERM sum = enif_make_int(env, bytes[size - 1]);
    enif_free(bytes);
    return sum;
}

/* Reads what was freed. */
static ERL_NIF_TERM use_after_free(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[])
{
    volatile char *bytes = enif_alloc(24);
    if (bytes == NULL)
        return enif_make_badarg(env);
    bytes[0] = 1;
    enif_free((void *)bytes);
    return enif_make_int(env, bytes[0]);
}

/* Nothing wrong: the same machinery must let it pass. */
static ERL_NIF_TERM fine(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[])
{
    return enif_make_atom(env, "fine");
}

static ErlNifFunc functions[] = {
    {"alloc_overflow", 0, alloc_overflow, 0},
    {"use_after_free", 0, use_after_free, 0},
    {"fine", 0, fine, 0},
};

ERL_NIF_INIT(overflow_nif, functions, NULL, NULL, NULL, NULL)
