/* Canonical keys of hostile bytes: nothing outside the input is read, and two maps that differ only in the order of pairs agree. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "engine/codec.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(int condition)
{
    if (!condition)
        abort();
}

/* A map of two pairs whose keys are the small integers 0 and 1 and whose values are these terms, in this order of pairs. */
static size_t map_of(uint8_t *to, uint8_t first, const uint8_t *a, size_t a_len, const uint8_t *b, size_t b_len)
{
    const uint8_t head[8] = {131, 116, 0, 0, 0, 2, 97, first};
    size_t n = sizeof head;
    memcpy(to, head, n);
    memcpy(to + n, a, a_len);
    n += a_len;
    to[n++] = 97;
    to[n++] = (uint8_t)!first;
    memcpy(to + n, b, b_len);
    return n + b_len;
}

static int known(const uint8_t *term, size_t len)
{
    fdn_codec_buf out;
    uint8_t *whole = malloc(len + 1);
    check(whole != NULL);
    whole[0] = 131;
    memcpy(whole + 1, term, len);
    fdn_codec_buf_init(&out);
    check(fdn_codec_key(whole, len + 1, true, &out) == 0 && out.len >= 1);
    int canonical = out.data[0];
    fdn_codec_buf_free(&out);
    free(whole);
    return canonical;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fdn_codec_buf one, two;
    size_t half = size / 2;
    fdn_codec_buf_init(&one);
    check(fdn_codec_key(data, size, size & 1, &one) == 0);
    fdn_codec_buf_free(&one);
    if (!known(data, half) || !known(data + half, size - half))
        return 0;
    uint8_t *x = malloc(size + 16), *y = malloc(size + 16);
    check(x != NULL && y != NULL);
    size_t xn = map_of(x, 0, data, half, data + half, size - half), yn = map_of(y, 1, data + half, size - half, data, half);
    fdn_codec_buf_init(&two);
    check(fdn_codec_key(x, xn, true, &one) == 0 && fdn_codec_key(y, yn, true, &two) == 0);
    /* One level deeper than the parts: both may be too deep, then they are opaque and differ. */
    check(one.data[0] == two.data[0]);
    check(!one.data[0] || (one.len == two.len && memcmp(one.data, two.data, one.len) == 0));
    fdn_codec_buf_free(&one);
    fdn_codec_buf_free(&two);
    free(x);
    free(y);
    return 0;
}
