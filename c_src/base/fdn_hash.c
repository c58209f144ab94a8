#include "base/fdn_hash.h"

#include <sodium.h>
#include <string.h>

/* Header-only use of libxxhash: inlined, and no run-time dependency of the release. */
#define XXH_INLINE_ALL
#include <xxhash.h>

_Static_assert(FDN_HASH_KEY_BYTES == crypto_shorthash_KEYBYTES, "SipHash key size");

uint64_t fdn_hash_keyed(const void *data, size_t len, const uint8_t key[FDN_HASH_KEY_BYTES])
{
    unsigned char out[crypto_shorthash_BYTES];
    uint64_t h;
    crypto_shorthash(out, data, len, key);
    memcpy(&h, out, sizeof h);
    return fdn_hash_word(h);
}

uint64_t fdn_hash_check(const void *data, size_t len, uint64_t salt)
{
    return XXH3_64bits_withSeed(data, len, salt);
}

void fdn_random(void *buf, size_t len)
{
    randombytes_buf(buf, len);
}

int fdn_hash_init(void)
{
    return sodium_init() < 0 ? -1 : 0;
}
