/*
 * fdn_hash.h - the two hashes of the project, both from libraries.
 *
 * fdn_hash_keyed   SipHash-2-4 (Aumasson, Bernstein 2012; libsodium): for keys that strangers choose. With a secret key nobody can
 *                  craft collisions.
 * fdn_hash_check   XXH3-64 (libxxhash, seeded): for detecting damage in our own files, 18 ns a KB. It is no defence against forgery.
 */
#ifndef FDN_HASH_H
#define FDN_HASH_H

#include <sodium/crypto_shorthash.h>
#include <stddef.h>
#include <stdint.h>

#define FDN_HASH_KEY_BYTES 16
_Static_assert(FDN_HASH_KEY_BYTES == crypto_shorthash_KEYBYTES, "SipHash key size");

/* A word as its bytes are hashed: little-endian on every machine. */
static inline uint64_t fdn_hash_word(uint64_t word)
{
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    return __builtin_bswap64(word);
#else
    return word;
#endif
}

static inline uint64_t fdn_hash_keyed(const void *data, size_t len, const uint8_t key[FDN_HASH_KEY_BYTES])
{
    uint64_t h;
    (void)crypto_shorthash((unsigned char *)&h, data, len, key);
    return fdn_hash_word(h);
}

uint64_t fdn_hash_check(const void *data, size_t len, uint64_t salt);

/* Cryptographically strong random bytes (libsodium). Call fdn_hash_init first. */
void fdn_random(void *buf, size_t len);

/* Once a process, before the functions above. Returns 0, or -1 where the library finds no source of randomness. Idempotent. */
int fdn_hash_init(void);

#endif
