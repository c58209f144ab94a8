/*
 * nif_limiter_key.h - from any Erlang term to the 64 bits by which the limiter's table knows it.
 *
 * Two terms that are the same (=:=) get the same hash, on this VM; others get different ones, but for a chance of 2^-64 that nobody can
 * raise, because the hash is keyed with random bytes: SipHash-2-4 over canonical bytes.
 *
 *   binary              its bytes, under a key of their own
 *   anything else       a tag and the value for atoms, integers, floats and local pids and ports (their words in this VM); tag, size
 *                       and elements for tuples and lists; for maps the sum of the hashes of the pairs, so their order does not count;
 *                       bignums and bitstrings in the external term format
 *   references, funs,   two salted hashes of the VM's own (32 bits each; equal for terms that are =:=, which the external format is
 *   foreign pids        not: it names the creator of a fun, and the node as it is called now)
 *
 * Where the table outlives the VM (secret.lasting) the bytes say what every VM of every release would say, and they are a part of the
 * file's format (doc/FORMAT.md): atoms are written by name, -0.0 as 0.0 whether or not this VM tells them apart, and what means
 * something to one VM only (pids, ports, references, funs) is salted with random bytes of this VM, so that it meets no key of an
 * earlier one.
 *
 * The walk keeps its own stack. On a normal scheduler it stops at a fixed amount of work and asks for a dirty one.
 */
#ifndef FDN_NIF_LIMITER_KEY_H
#define FDN_NIF_LIMITER_KEY_H

#include <erl_nif.h>
#include <stdbool.h>
#include <stdint.h>

#include "engine/limiter.h"
#include "nif/nif_common.h"

/* What is hashed on a normal scheduler: a binary of this size takes about 30 us; a structure of this many bytes and terms, 5 us. */
#define FDN_LIMITER_INLINE_BINARY 32768
#define FDN_LIMITER_INLINE_BYTES 1024
#define FDN_LIMITER_INLINE_TERMS 256
#define FDN_LIMITER_INLINE_DEPTH 8

typedef enum { FDN_KEY_HASHED, FDN_KEY_NEEDS_DIRTY, FDN_KEY_NO_MEMORY } fdn_limiter_key_result;

/* Fill a secret with random bytes, for tables that end with the VM. Returns 0 or -1 where there is no memory. */
int fdn_limiter_secret_make(fdn_limiter_secret *secret);

/* Of what is no binary. */
fdn_limiter_key_result fdn_limiter_key_of_term(ErlNifEnv *env, ERL_NIF_TERM key, const fdn_limiter_secret *secret, bool dirty,
                                               uint64_t *hash);

static inline fdn_limiter_key_result fdn_limiter_key(ErlNifEnv *env, ERL_NIF_TERM key, const fdn_limiter_secret *secret, bool dirty,
                                                     uint64_t *hash)
{
    ErlNifBinary bin;
    if (!enif_inspect_binary(env, key, &bin))
        return fdn_limiter_key_of_term(env, key, secret, dirty, hash);
    if (bin.size > FDN_LIMITER_INLINE_BINARY && !dirty)
        return FDN_KEY_NEEDS_DIRTY;
    *hash = fdn_hash_keyed(bin.data, bin.size, secret->binaries);
    if (!dirty)
        fdn_charge(env, bin.size);
    return FDN_KEY_HASHED;
}

#endif
