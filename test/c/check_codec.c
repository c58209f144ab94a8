/* Canonical keys: what the VM holds =:= is one key, whatever the encoding; what it does not is two. */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "engine/codec.h"
#include "test/c/support.h"

#define ETF(...)                                                                                                                       \
    (const uint8_t[])                                                                                                                  \
    {                                                                                                                                  \
        131, __VA_ARGS__                                                                                                               \
    }
#define SAME(zeros, a, b) ck_assert(same(zeros, a, sizeof(a), b, sizeof(b)))
#define DIFFER(zeros, a, b) ck_assert(!same(zeros, a, sizeof(a), b, sizeof(b)))

static bool same(bool zeros_equal, const uint8_t *a, size_t a_len, const uint8_t *b, size_t b_len)
{
    fdn_codec_buf x, y;
    fdn_codec_buf_init(&x);
    fdn_codec_buf_init(&y);
    ck_assert_int_eq(fdn_codec_key(a, a_len, zeros_equal, &x), 0);
    ck_assert_int_eq(fdn_codec_key(b, b_len, zeros_equal, &y), 0);
    bool equal = x.len == y.len && memcmp(x.data, y.data, x.len) == 0;
    fdn_codec_buf_free(&x);
    fdn_codec_buf_free(&y);
    return equal;
}

START_TEST(atoms_of_every_release)
{
    SAME(false, ETF(100, 0, 2, 'o', 'k'), ETF(119, 2, 'o', 'k'));
    SAME(false, ETF(115, 2, 'o', 'k'), ETF(118, 0, 2, 'o', 'k'));
    SAME(false, ETF(100, 0, 1, 0xe4), ETF(119, 2, 0xc3, 0xa4));
    DIFFER(false, ETF(119, 2, 'o', 'k'), ETF(109, 0, 0, 0, 2, 'o', 'k'));
    DIFFER(false, ETF(119, 2, 'o', 'k'), ETF(119, 2, 'o', 'j'));
}
END_TEST

START_TEST(maps_in_any_order)
{
    SAME(false, ETF(116, 0, 0, 0, 2, 97, 1, 97, 7, 97, 2, 106), ETF(116, 0, 0, 0, 2, 97, 2, 106, 97, 1, 97, 7));
    DIFFER(false, ETF(116, 0, 0, 0, 2, 97, 1, 97, 7, 97, 2, 106), ETF(116, 0, 0, 0, 2, 97, 2, 97, 7, 97, 1, 106));
    /* Inside of one another, and the atoms of another release. */
    SAME(false, ETF(104, 1, 116, 0, 0, 0, 2, 116, 0, 0, 0, 0, 97, 1, 119, 1, 'a', 97, 2),
         ETF(104, 1, 116, 0, 0, 0, 2, 100, 0, 1, 'a', 97, 2, 116, 0, 0, 0, 0, 97, 1));
    /* Keys one of which is the beginning of the other. */
    SAME(false, ETF(116, 0, 0, 0, 2, 107, 0, 1, 1, 97, 0, 107, 0, 2, 1, 1, 97, 1),
         ETF(116, 0, 0, 0, 2, 107, 0, 2, 1, 1, 97, 1, 107, 0, 1, 1, 97, 0));
}
END_TEST

START_TEST(numbers)
{
    DIFFER(true, ETF(97, 1), ETF(70, 0x3f, 0xf0, 0, 0, 0, 0, 0, 0));
    SAME(true, ETF(70, 0x80, 0, 0, 0, 0, 0, 0, 0), ETF(70, 0, 0, 0, 0, 0, 0, 0, 0));
    DIFFER(false, ETF(70, 0x80, 0, 0, 0, 0, 0, 0, 0), ETF(70, 0, 0, 0, 0, 0, 0, 0, 0));
    DIFFER(true, ETF(110, 1, 0, 255), ETF(110, 1, 1, 255));
}
END_TEST

START_TEST(tuples_bits_and_funs)
{
    SAME(false, ETF(104, 1, 106), ETF(105, 0, 0, 0, 1, 106));
    SAME(false, ETF(77, 0, 0, 0, 1, 3, 0xa0), ETF(77, 0, 0, 0, 1, 3, 0xbf));
    DIFFER(false, ETF(77, 0, 0, 0, 1, 3, 0xa0), ETF(77, 0, 0, 0, 1, 4, 0xa0));
#define FUN_HEAD                                                                                                                       \
    112, 0, 0, 0, 0, 1, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 0, 0, 0, 1, 0, 0, 0, 1, 119, 1, 'm', 97, 1, 97, 2
    SAME(false, ETF(FUN_HEAD, 88, 119, 1, 'n', 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 0, 97, 9),
         ETF(FUN_HEAD, 88, 119, 1, 'n', 0, 0, 0, 6, 0, 0, 0, 0, 0, 0, 0, 0, 97, 9));
    DIFFER(false, ETF(FUN_HEAD, 88, 119, 1, 'n', 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 0, 97, 9),
           ETF(FUN_HEAD, 88, 119, 1, 'n', 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 0, 97, 8));
}
END_TEST

/* What is not understood is compared as it is, and never equals what is. */
START_TEST(unknown_and_deep)
{
    SAME(false, ETF(200, 1, 2), ETF(200, 1, 2));
    DIFFER(false, ETF(200, 1, 2), ETF(200, 1, 3));
    DIFFER(false, ETF(116, 255, 255, 255, 255), ETF(116, 255, 255, 255, 254));
    size_t n = 100000;
    uint8_t *deep = malloc(2 * n + 2);
    fdn_codec_buf out;
    deep[0] = 131;
    for (size_t i = 0; i < n; i++) {
        deep[1 + 2 * i] = 104;
        deep[2 + 2 * i] = 1;
    }
    deep[2 * n + 1] = 106;
    fdn_codec_buf_init(&out);
    ck_assert_int_eq(fdn_codec_key(deep, 2 * n + 2, false, &out), 0);
    ck_assert_uint_eq(out.len, 2 * n + 3);
    fdn_codec_buf_free(&out);
    free(deep);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("codec");
    TCase *tc = tcase_create("keys");
    tcase_add_test(tc, atoms_of_every_release);
    tcase_add_test(tc, maps_in_any_order);
    tcase_add_test(tc, numbers);
    tcase_add_test(tc, tuples_bits_and_funs);
    tcase_add_test(tc, unknown_and_deep);
    suite_add_tcase(suite, tc);
    return support_run(suite);
}
