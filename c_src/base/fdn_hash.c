#include "base/fdn_hash.h"

#include <sodium.h>

/* Header-only use of libxxhash: inlined, and no run-time dependency of the release. */
#define XXH_INLINE_ALL
#include <xxhash.h>

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
