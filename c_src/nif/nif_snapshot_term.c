#include "nif/nif_snapshot.h"

#define MAX_DEPTH 64

typedef struct {
    ErlNifEnv *env;
    long terms;
    long bytes;
} budget;

static bool walk(budget *b, ERL_NIF_TERM term, int depth);

static bool walk_list(budget *b, ERL_NIF_TERM list, int depth)
{
    ERL_NIF_TERM head;
    while (enif_get_list_cell(b->env, list, &head, &list)) {
        if (!walk(b, head, depth))
            return false;
    }
    return enif_is_empty_list(b->env, list) || walk(b, list, depth);
}

static bool walk_map(budget *b, ERL_NIF_TERM map, int depth)
{
    ErlNifMapIterator it;
    ERL_NIF_TERM key, value;
    size_t size;
    if (!enif_get_map_size(b->env, map, &size) || (long)size > b->terms / 2)
        return false;
    if (!enif_map_iterator_create(b->env, map, &it, ERL_NIF_MAP_ITERATOR_FIRST))
        return false;
    bool ok = true;
    while (ok && enif_map_iterator_get_pair(b->env, &it, &key, &value)) {
        ok = walk(b, key, depth) && walk(b, value, depth);
        enif_map_iterator_next(b->env, &it);
    }
    enif_map_iterator_destroy(b->env, &it);
    return ok;
}

static bool walk(budget *b, ERL_NIF_TERM term, int depth)
{
    const ERL_NIF_TERM *elements;
    ErlNifBinary bin;
    int arity;
    if (--b->terms < 0 || b->bytes < 0 || depth <= 0)
        return false;
    switch (enif_term_type(b->env, term)) {
    case ERL_NIF_TERM_TYPE_LIST:
        return walk_list(b, term, depth - 1);
    case ERL_NIF_TERM_TYPE_TUPLE:
        if (!enif_get_tuple(b->env, term, &arity, &elements) || arity > b->terms)
            return false;
        for (int i = 0; i < arity; i++) {
            if (!walk(b, elements[i], depth - 1))
                return false;
        }
        return true;
    case ERL_NIF_TERM_TYPE_MAP:
        return walk_map(b, term, depth - 1);
    case ERL_NIF_TERM_TYPE_BITSTRING:
        /* A bitstring that is no binary cannot be asked for its size: as if it were large. */
        if (!enif_inspect_binary(b->env, term, &bin) || bin.size > SNAP_SMALL_BYTES)
            return false;
        b->bytes -= (long)bin.size;
        return b->bytes >= 0;
    case ERL_NIF_TERM_TYPE_INTEGER: {
        ErlNifSInt64 n;
        return enif_get_int64(b->env, term, &n); /* a bignum may have any size */
    }
    case ERL_NIF_TERM_TYPE_FUN:
        return false; /* its environment may be of any size */
    default:
        return true;
    }
}

bool snap_is_small(ErlNifEnv *env, ERL_NIF_TERM term)
{
    budget b = {env, SNAP_SMALL_TERMS, SNAP_SMALL_BYTES};
    return walk(&b, term, MAX_DEPTH);
}
