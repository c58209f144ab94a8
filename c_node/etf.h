/*
 * etf.h - terms in the external format, from strangers.
 *
 * A term is a span of bytes: its tag first, without the leading version byte 131. ei's decoders take no length, skip nested errors and
 * recurse, so every received term passes fdn_etf_skip first: one loop, no stack, no allocation, time linear in the bytes that are
 * really there. What passes may be split by the functions below and its leaves decoded by ei.
 *
 * The format is prefix-coded: it is enough to count the terms still owed. Every owed term needs at least a byte, so a count above the
 * bytes left is a lie and ends the walk at once; nesting costs nothing.
 *
 * Spans point into the caller's buffer and own nothing.
 *
 * Source: "External Term Format", Erlang/OTP documentation (ERTS user's guide).
 */
#ifndef FDN_ETF_H
#define FDN_ETF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <ei.h>

struct fdn_etf {
    const uint8_t *p;
    size_t n;
};

#define FDN_ETF_TRUNCATED (-1L) /* the bytes end inside the term, or a length in it exceeds them */
#define FDN_ETF_MALFORMED (-2L) /* a tag or a value that no node sends under the flags we announced */

/* Longest atom in bytes (255 characters of 4 bytes), without a terminator. */
#define FDN_ATOM_BYTES 1020

/* Length of the term that starts at p, or one of the negative codes. The only function that may be given unchecked bytes. */
long fdn_etf_skip(const uint8_t *p, size_t n);

/* The version byte and one term that fills the rest exactly: sets *out to the term. */
bool fdn_etf_versioned(const uint8_t *p, size_t n, struct fdn_etf *out);

/* The elements of a tuple of exactly `arity` elements. False for anything else. */
bool fdn_etf_tuple(struct fdn_etf t, unsigned arity, struct fdn_etf *elements);

/* The number of elements of a tuple, or -1. */
long fdn_etf_arity(struct fdn_etf t);

/*
 * Walk a proper or improper list, or the keys and values of a map:
 *     for (struct fdn_etf_iter it = fdn_etf_list(t); fdn_etf_next(&it, &x);) ...
 * `left` is 0 from the start where the term is not of that kind; `ok` says whether it was. A string (bytes as a list) is not walked.
 */
struct fdn_etf_iter {
    struct fdn_etf rest;
    uint32_t left;
    bool ok;
};
struct fdn_etf_iter fdn_etf_list(struct fdn_etf t);
struct fdn_etf_iter fdn_etf_map(struct fdn_etf t); /* yields key, value, key, value, ... */
bool fdn_etf_next(struct fdn_etf_iter *it, struct fdn_etf *out);

/* The value of an atom key in a map. */
bool fdn_etf_map_get(struct fdn_etf map, const char *key, struct fdn_etf *value);

/* Leaves. Each is false where the term is of another kind or does not fit. */
bool fdn_etf_is_atom(struct fdn_etf t, const char *name);
bool fdn_etf_atom(struct fdn_etf t, char out[FDN_ATOM_BYTES + 1]);
bool fdn_etf_int(struct fdn_etf t, int64_t *out);
bool fdn_etf_bool(struct fdn_etf t, bool *out);
bool fdn_etf_binary(struct fdn_etf t, const uint8_t **bytes, size_t *len);
bool fdn_etf_is_pid(struct fdn_etf t);
bool fdn_etf_is_ref(struct fdn_etf t);
/* The node of a pid or reference. */
bool fdn_etf_node(struct fdn_etf t, char out[FDN_ATOM_BYTES + 1]);
bool fdn_etf_equal(struct fdn_etf a, struct fdn_etf b);

/* A short readable form of a term for logs and audit lines; cut to fit, always terminated. */
void fdn_etf_print(struct fdn_etf t, char *out, size_t size);

/* ---- encoding: ei's growing buffer, plus spans copied verbatim. ei reports a failed allocation; these pass it on as false. ---- */
bool fdn_etf_put(ei_x_buff *x, struct fdn_etf t);
bool fdn_etf_put_atom(ei_x_buff *x, const char *utf8);
bool fdn_etf_put_text(ei_x_buff *x, const char *utf8); /* as a binary */

#endif
