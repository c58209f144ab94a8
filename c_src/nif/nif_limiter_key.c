#include "nif/nif_limiter_key.h"

#include <string.h>

#include "nif/nif_common.h"

/*
 * The encoding is injective: every value starts with a tag, has a length that its tag or a count tells, and lists end with a tag of
 * their own. Each value has one form only (an integer of 0..255 is never written as a long one).
 */
enum {
    TAG_ATOM = 'a',
    TAG_NAME = 'A',
    TAG_BYTE = 'c',
    TAG_INT = 'i',
    TAG_UINT = 'u',
    TAG_FLOAT = 'f',
    TAG_BINARY = 'b',
    TAG_EXTERNAL = 'x',
    TAG_PID = 'p',
    TAG_PORT = 'o',
    TAG_HASHED = 'h',
    TAG_TUPLE = 't',
    TAG_LIST = 'l',
    TAG_LIST_END = ']',
    TAG_NIL = 'n',
    TAG_MAP = 'm',
    TAG_PAIR = ':'
};

typedef enum { IN_TUPLE, IN_LIST, IN_MAP_KEY, IN_MAP_VALUE, IN_MAP_PAIR } place;

/* A structure that is being walked. */
typedef struct {
    place at;
    int left;                   /* tuple */
    const ERL_NIF_TERM *items;  /* tuple */
    ERL_NIF_TERM rest;          /* list */
    ErlNifMapIterator iterator; /* map */
    size_t mark;                /* map: where the pair's bytes begin */
    uint64_t sum;               /* map */
} frame;

typedef struct {
    ErlNifEnv *env;
    const fdn_limiter_secret *secret;
    bool dirty;
    unsigned terms_left; /* not dirty */
    unsigned char *bytes;
    size_t len, size;
    frame *frames;
    unsigned depth, max_depth;
    bool bytes_owned, frames_owned;
} walk;

/* ---- growing, on a dirty scheduler ---------------------------------------------------------------------------------------------- */

static fdn_limiter_key_result grow(void **block, bool *owned, size_t used, size_t wanted)
{
    void *bigger = *owned ? enif_realloc(*block, wanted) : enif_alloc(wanted);
    if (bigger == NULL)
        return FDN_KEY_NO_MEMORY;
    if (!*owned)
        memcpy(bigger, *block, used);
    *block = bigger;
    *owned = true;
    return FDN_KEY_HASHED;
}

static fdn_limiter_key_result more_bytes(walk *w, size_t more)
{
    if (!w->dirty)
        return FDN_KEY_NEEDS_DIRTY;
    size_t size = w->size * 2 > w->len + more ? w->size * 2 : w->len + more;
    void *block = w->bytes;
    fdn_limiter_key_result r = grow(&block, &w->bytes_owned, w->len, size);
    if (r == FDN_KEY_HASHED) {
        w->bytes = block;
        w->size = size;
    }
    return r;
}

static inline fdn_limiter_key_result reserve(walk *w, size_t more)
{
    return more <= w->size - w->len ? FDN_KEY_HASHED : more_bytes(w, more);
}

/* A frame more; the caller fills *out, which the last one of its kind left as it was. */
static fdn_limiter_key_result push(walk *w, frame **out)
{
    if (w->depth == w->max_depth) {
        if (!w->dirty)
            return FDN_KEY_NEEDS_DIRTY;
        void *block = w->frames;
        fdn_limiter_key_result r = grow(&block, &w->frames_owned, w->depth * sizeof(frame), 2 * w->max_depth * sizeof(frame));
        if (r != FDN_KEY_HASHED)
            return r;
        w->frames = block;
        w->max_depth *= 2;
    }
    *out = &w->frames[w->depth++];
    return FDN_KEY_HASHED;
}

/* ---- leaves --------------------------------------------------------------------------------------------------------------------- */

/* Inline, so that nearly always `len` is a constant. */
static inline fdn_limiter_key_result put(walk *w, unsigned char tag, const void *data, size_t len)
{
    fdn_limiter_key_result r = reserve(w, len + 1);
    if (r != FDN_KEY_HASHED)
        return r;
    w->bytes[w->len] = tag;
    if (len > 0)
        memcpy(w->bytes + w->len + 1, data, len);
    w->len += len + 1;
    return FDN_KEY_HASHED;
}

static inline fdn_limiter_key_result put_word(walk *w, unsigned char tag, uint64_t word)
{
    word = fdn_hash_word(word);
    return put(w, tag, &word, sizeof word);
}

static fdn_limiter_key_result put_sized(walk *w, unsigned char tag, const void *data, size_t len)
{
    fdn_limiter_key_result r = put_word(w, tag, len);
    if (r == FDN_KEY_HASHED)
        r = reserve(w, len);
    if (r != FDN_KEY_HASHED)
        return r;
    if (len > 0)
        memcpy(w->bytes + w->len, data, len);
    w->len += len;
    return FDN_KEY_HASHED;
}

/* Of no bounded size, and rare. */
static fdn_limiter_key_result put_external(walk *w, ERL_NIF_TERM term)
{
    ErlNifBinary bin;
    if (!w->dirty)
        return FDN_KEY_NEEDS_DIRTY;
    if (!enif_term_to_binary(w->env, term, &bin))
        return FDN_KEY_NO_MEMORY;
    fdn_limiter_key_result r = put_sized(w, TAG_EXTERNAL, bin.data, bin.size);
    enif_release_binary(&bin);
    return r;
}

static fdn_limiter_key_result put_hashed(walk *w, ERL_NIF_TERM term)
{
    uint64_t words[2];
    for (int i = 0; i < 2; i++)
        words[i] = enif_hash(ERL_NIF_INTERNAL_HASH, term, w->secret->salts[i]);
    return put(w, TAG_HASHED, words, sizeof words);
}

/* A term whose word is its identity, in this VM. */
static fdn_limiter_key_result put_local(walk *w, unsigned char tag, ERL_NIF_TERM term)
{
    uint64_t words[2] = {term, w->secret->salts[0]};
    return put(w, tag, words, w->secret->lasting ? sizeof words : sizeof words[0]);
}

/* An atom by its name, in UTF-8. */
static fdn_limiter_key_result put_name(walk *w, ERL_NIF_TERM atom)
{
    unsigned char latin[256], utf8[2 * sizeof latin];
    size_t len = 0;
    int got = enif_get_atom(w->env, atom, (char *)latin, sizeof latin, ERL_NIF_LATIN1);
    for (int i = 0; i < got - 1; i++) {
        if (latin[i] >= 0x80)
            utf8[len++] = (unsigned char)(0xc0 | latin[i] >> 6);
        utf8[len++] = latin[i] < 0x80 ? latin[i] : (unsigned char)(0x80 | (latin[i] & 0x3f));
    }
    if (got != 0)
        return put_sized(w, TAG_NAME, utf8, len);
    /* Other characters. Until OTP 26 only the external format tells them: 131, 119, a byte of length or 118, two bytes; the name. */
    ErlNifBinary bin;
    if (!enif_term_to_binary(w->env, atom, &bin))
        return FDN_KEY_NO_MEMORY;
    size_t head = bin.size > 1 && bin.data[1] == 119 ? 3 : 4;
    fdn_limiter_key_result r = bin.size < head ? FDN_KEY_NO_MEMORY : put_sized(w, TAG_NAME, bin.data + head, bin.size - head);
    enif_release_binary(&bin);
    return r;
}

static inline fdn_limiter_key_result put_integer(walk *w, ERL_NIF_TERM term)
{
    ErlNifSInt64 i;
    ErlNifUInt64 u;
    if (enif_get_int64(w->env, term, &i)) {
        unsigned char byte = (unsigned char)i;
        return i == byte ? put(w, TAG_BYTE, &byte, 1) : put_word(w, TAG_INT, (uint64_t)i);
    }
    if (enif_get_uint64(w->env, term, &u))
        return put_word(w, TAG_UINT, u);
    return put_external(w, term);
}

static fdn_limiter_key_result put_float(walk *w, ERL_NIF_TERM term)
{
    double d;
    uint64_t word;
    enif_get_double(w->env, term, &d);
    if (d == 0.0 && (w->secret->lasting || !w->secret->signed_zero))
        d = 0.0;
    memcpy(&word, &d, sizeof word);
    return put_word(w, TAG_FLOAT, word);
}

/* ---- structures ----------------------------------------------------------------------------------------------------------------- */

static fdn_limiter_key_result enter_map(walk *w, ERL_NIF_TERM term)
{
    size_t size;
    ErlNifMapIterator iterator;
    frame *f;
    enif_get_map_size(w->env, term, &size);
    /* More than is done here would be work thrown away. */
    if (!w->dirty && size > FDN_LIMITER_INLINE_TERMS / 2)
        return FDN_KEY_NEEDS_DIRTY;
    fdn_limiter_key_result r = put_word(w, TAG_MAP, size);
    if (r != FDN_KEY_HASHED)
        return r;
    if (!enif_map_iterator_create(w->env, term, &iterator, ERL_NIF_MAP_ITERATOR_FIRST))
        return FDN_KEY_NO_MEMORY;
    r = push(w, &f);
    if (r == FDN_KEY_HASHED)
        *f = (frame){.at = IN_MAP_KEY, .iterator = iterator};
    else
        enif_map_iterator_destroy(w->env, &iterator);
    return r;
}

static fdn_limiter_key_result enter_tuple(walk *w, ERL_NIF_TERM term)
{
    int arity;
    const ERL_NIF_TERM *items;
    frame *f;
    enif_get_tuple(w->env, term, &arity, &items);
    fdn_limiter_key_result r = put_word(w, TAG_TUPLE, (uint64_t)arity);
    if (r == FDN_KEY_HASHED)
        r = push(w, &f);
    if (r != FDN_KEY_HASHED)
        return r;
    f->at = IN_TUPLE;
    f->left = arity;
    f->items = items;
    return FDN_KEY_HASHED;
}

static fdn_limiter_key_result enter_list(walk *w, ERL_NIF_TERM term)
{
    frame *f;
    if (enif_is_empty_list(w->env, term))
        return put(w, TAG_NIL, NULL, 0);
    fdn_limiter_key_result r = put(w, TAG_LIST, NULL, 0);
    if (r == FDN_KEY_HASHED)
        r = push(w, &f);
    if (r != FDN_KEY_HASHED)
        return r;
    f->at = IN_LIST;
    f->rest = term;
    return FDN_KEY_HASHED;
}

/* Write a term, or its head and a frame for what is inside. */
static fdn_limiter_key_result enter(walk *w, ERL_NIF_TERM term)
{
    ErlNifBinary bin;
    ErlNifPid pid;
    ErlNifPort port;
    if (!w->dirty && w->terms_left-- == 0)
        return FDN_KEY_NEEDS_DIRTY;
    switch (enif_term_type(w->env, term)) {
    case ERL_NIF_TERM_TYPE_ATOM:
        return w->secret->lasting ? put_name(w, term) : put_word(w, TAG_ATOM, term);
    case ERL_NIF_TERM_TYPE_INTEGER:
        return put_integer(w, term);
    case ERL_NIF_TERM_TYPE_FLOAT:
        return put_float(w, term);
    case ERL_NIF_TERM_TYPE_BITSTRING:
        return enif_inspect_binary(w->env, term, &bin) ? put_sized(w, TAG_BINARY, bin.data, bin.size) : put_external(w, term);
    case ERL_NIF_TERM_TYPE_PID:
        return enif_get_local_pid(w->env, term, &pid) ? put_local(w, TAG_PID, term) : put_hashed(w, term);
    case ERL_NIF_TERM_TYPE_PORT:
        return enif_get_local_port(w->env, term, &port) ? put_local(w, TAG_PORT, term) : put_hashed(w, term);
    case ERL_NIF_TERM_TYPE_TUPLE:
        return enter_tuple(w, term);
    case ERL_NIF_TERM_TYPE_LIST:
        return enter_list(w, term);
    case ERL_NIF_TERM_TYPE_MAP:
        return enter_map(w, term);
    case ERL_NIF_TERM_TYPE_REFERENCE:
        return put_hashed(w, term);
    default: /* A fun holds terms of any size, and a type of a VM to come may do so. */
        return w->dirty ? put_hashed(w, term) : FDN_KEY_NEEDS_DIRTY;
    }
}

static fdn_limiter_key_result step_map(walk *w, frame *f)
{
    ERL_NIF_TERM key, value;
    fdn_limiter_key_result r;
    if (f->at == IN_MAP_PAIR) {
        f->sum += fdn_hash_keyed(w->bytes + f->mark, w->len - f->mark, w->secret->terms);
        w->len = f->mark;
        enif_map_iterator_next(w->env, &f->iterator);
        f->at = IN_MAP_KEY;
    }
    if (!enif_map_iterator_get_pair(w->env, &f->iterator, &key, &value)) {
        enif_map_iterator_destroy(w->env, &f->iterator);
        uint64_t sum = f->sum;
        w->depth--;
        return put_word(w, TAG_PAIR, sum);
    }
    if (f->at == IN_MAP_VALUE) {
        f->at = IN_MAP_PAIR;
        return enter(w, value);
    }
    f->mark = w->len;
    r = put(w, TAG_PAIR, NULL, 0);
    f->at = IN_MAP_VALUE;
    return r == FDN_KEY_HASHED ? enter(w, key) : r;
}

/* On through the innermost structure, until another one opens in it (which may move the frames) or it ends. */
static fdn_limiter_key_result step(walk *w)
{
    const unsigned depth = w->depth;
    frame *f = &w->frames[depth - 1];
    ERL_NIF_TERM head, rest;
    fdn_limiter_key_result r = FDN_KEY_HASHED;
    switch (f->at) {
    case IN_TUPLE:
        while (r == FDN_KEY_HASHED && w->depth == depth) {
            if (f->left-- == 0)
                w->depth--;
            else
                r = enter(w, *f->items++);
        }
        return r;
    case IN_LIST:
        while (r == FDN_KEY_HASHED && w->depth == depth) {
            if (!enif_get_list_cell(w->env, f->rest, &head, &rest)) {
                rest = f->rest;
                w->depth--;
                r = put(w, TAG_LIST_END, NULL, 0);
                return r == FDN_KEY_HASHED ? enter(w, rest) : r;
            }
            f->rest = rest;
            r = enter(w, head);
        }
        return r;
    default:
        return step_map(w, f);
    }
}

static fdn_limiter_key_result hash_term(ErlNifEnv *env, ERL_NIF_TERM key, const fdn_limiter_secret *secret, bool dirty, uint64_t *hash)
{
    unsigned char bytes[FDN_LIMITER_INLINE_BYTES];
    frame frames[FDN_LIMITER_INLINE_DEPTH];
    walk w = {.env = env,
              .secret = secret,
              .dirty = dirty,
              .terms_left = FDN_LIMITER_INLINE_TERMS,
              .bytes = bytes,
              .size = sizeof bytes,
              .frames = frames,
              .max_depth = FDN_LIMITER_INLINE_DEPTH};
    fdn_limiter_key_result r = enter(&w, key);
    while (r == FDN_KEY_HASHED && w.depth > 0)
        r = step(&w);
    if (r == FDN_KEY_HASHED)
        *hash = fdn_hash_keyed(w.bytes, w.len, secret->terms);
    while (w.depth > 0) {
        if (w.frames[--w.depth].at >= IN_MAP_KEY)
            enif_map_iterator_destroy(env, &w.frames[w.depth].iterator);
    }
    if (w.bytes_owned)
        enif_free(w.bytes);
    if (w.frames_owned)
        enif_free(w.frames);
    return r;
}

/* ---- public --------------------------------------------------------------------------------------------------------------------- */

fdn_limiter_key_result fdn_limiter_key_of_term(ErlNifEnv *env, ERL_NIF_TERM key, const fdn_limiter_secret *secret, bool dirty,
                                               uint64_t *hash)
{
    ErlNifSInt64 i;
    unsigned char word[9];
    uint64_t value;
    /* The usual keys, without the walk, in the same form. */
    if (!secret->lasting && enif_is_atom(env, key)) {
        word[0] = TAG_ATOM;
        value = key;
    } else if (enif_get_int64(env, key, &i) && (i < 0 || i > 255)) {
        word[0] = TAG_INT;
        value = (uint64_t)i;
    } else {
        return hash_term(env, key, secret, dirty, hash);
    }
    value = fdn_hash_word(value);
    memcpy(word + 1, &value, sizeof value);
    *hash = fdn_hash_keyed(word, sizeof word, secret->terms);
    return FDN_KEY_HASHED;
}

int fdn_limiter_secret_make(fdn_limiter_secret *secret)
{
    ErlNifEnv *env = enif_alloc_env();
    if (env == NULL)
        return -1;
    memset(secret, 0, sizeof *secret);
    fdn_random(secret->binaries, sizeof secret->binaries);
    fdn_random(secret->terms, sizeof secret->terms);
    fdn_random(secret->salts, sizeof secret->salts);
    secret->signed_zero = !enif_is_identical(enif_make_double(env, 0.0), enif_make_double(env, -0.0));
    enif_free_env(env);
    return 0;
}
