#include "shared/flag_cohort.h"

/* Multiples of 2^32 times the golden ratio keep the kinds of terms apart. */
#define GOLDEN 0x9e3779b9u
#define SALT(n) ((uint32_t)((n)*GOLDEN))
enum { SALT_SMALL = 1, SALT_ATOM = 3, SALT_TUPLE = 9, SALT_NEGATIVE = 10, SALT_POSITIVE = 11, SALT_BINARY = 13 };

typedef struct {
    uint32_t a, b, c;
} mix3;

static inline mix3 mix(mix3 m)
{
    m.a -= m.b, m.a -= m.c, m.a ^= m.c >> 13;
    m.b -= m.c, m.b -= m.a, m.b ^= m.a << 8;
    m.c -= m.a, m.c -= m.b, m.c ^= m.b >> 13;
    m.a -= m.b, m.a -= m.c, m.a ^= m.c >> 12;
    m.b -= m.c, m.b -= m.a, m.b ^= m.a << 16;
    m.c -= m.a, m.c -= m.b, m.c ^= m.b >> 5;
    m.a -= m.b, m.a -= m.c, m.a ^= m.c >> 3;
    m.b -= m.c, m.b -= m.a, m.b ^= m.a << 10;
    m.c -= m.a, m.c -= m.b, m.c ^= m.b >> 15;
    return m;
}

static inline uint32_t fold(uint32_t hash, uint32_t x, uint32_t y, uint32_t salt)
{
    return mix((mix3){salt + x, salt + y, hash}).c;
}

uint32_t fdn_flag_cohort_seed(uint32_t atom_hash)
{
    return fold(fold(0, 2, 0, SALT(SALT_TUPLE)), atom_hash, 0, SALT(SALT_ATOM));
}

uint32_t fdn_flag_cohort_int(uint32_t seed, int64_t id)
{
    /* Integers of 28 bits are "small" to phash2, whatever the word size; the others are digits and a sign. */
    if (id >= -(1 << 27) && id < (1 << 27)) {
        uint32_t hash = seed;
        if (id < 0)
            hash = fold(hash, (uint32_t)-id, 0, SALT(SALT_SMALL));
        return fold(hash, (uint32_t)id, 0, SALT(SALT_SMALL));
    }
    uint64_t digits = id < 0 ? 0 - (uint64_t)id : (uint64_t)id;
    return fold(seed, (uint32_t)digits, (uint32_t)(digits >> 32), SALT(id < 0 ? SALT_NEGATIVE : SALT_POSITIVE));
}

static inline uint32_t little32(const uint8_t *p)
{
    return p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

uint32_t fdn_flag_cohort_bytes(uint32_t seed, const uint8_t *id, size_t len)
{
    uint32_t start = SALT(SALT_BINARY) + seed;
    if (len == 0)
        return start;
    mix3 m = {GOLDEN, GOLDEN, start};
    size_t left = len;
    for (; left >= 12; left -= 12, id += 12) {
        m.a += little32(id);
        m.b += little32(id + 4);
        m.c += little32(id + 8);
        m = mix(m);
    }
    /* The last block, padded with zeroes; the lowest byte of c takes the length instead. */
    uint8_t last[12] = {0};
    for (size_t i = 0; i < left; i++)
        last[i < 8 ? i : i + 1] = id[i];
    m.a += little32(last);
    m.b += little32(last + 4);
    m.c += (uint32_t)len + little32(last + 8);
    return mix(m).c;
}
