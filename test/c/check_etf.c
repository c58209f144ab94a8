/* The term checker and what is built on it: what is a term, what is not, and that lies cost nothing. */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "c_node/etf.h"
#include "test/c/support.h"

static long skip(const void *p, size_t n)
{
    return fdn_etf_skip(p, n);
}

/* Every kind of term that a node sends, in one list. */
static void everything(ei_x_buff *x)
{
    static const unsigned char
        rest[] =
            {
                70,  0,   0,   0,   0,   0,   0,    0,   0,                                      /* float */
                77,  0,   0,   0,   1,   3,   0xe0,                                              /* bits */
                88,  119, 3,   'a', '@', 'b', 0,    0,   0,   1, 0,   0, 0, 0, 0, 0, 0, 9,       /* pid */
                103, 100, 0,   3,   'a', '@', 'b',  0,   0,   0, 1,   0, 0, 0, 0, 1,             /* old pid */
                120, 119, 3,   'a', '@', 'b', 0,    0,   0,   0, 0,   0, 0, 5, 0, 0, 0, 9,       /* port */
                89,  119, 3,   'a', '@', 'b', 0,    0,   0,   5, 0,   0, 0, 9,                   /* older port */
                102, 119, 3,   'a', '@', 'b', 0,    0,   0,   5, 1,                              /* oldest port */
                90,  0,   2,   119, 3,   'a', '@',  'b', 0,   0, 0,   9, 0, 0, 0, 1, 0, 0, 0, 2, /* reference */
                114, 0,   1,   119, 3,   'a', '@',  'b', 9,   0, 0,   0, 1,                      /* older reference */
                110, 1,   0,   200,                                                              /* big */
                111, 0,   0,   0,   1,   0,   200,                                               /* larger big */
                113, 119, 1,   'm', 119, 1,   'f',  97,  1,                                      /* export */
                112, 0,   0,   0,   60,  1,   0,    0,   0,   0, 0,   0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,  0, 1,  0,   0,   0,
                1, /* fun, one free variable */
                119, 1,   'm', 97,  0,   97,  0,    88,  119, 1, 'n', 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 9, 97, 7, 99, '1', '.', '0',
                0,   0,   0,   0,   0,   0,   0,    0,   0,   0, 0,   0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,  0, 0,  0,   0, /* old
                                                                                                                                float */
            };
    ei_x_new(x);
    ei_x_encode_list_header(x, 24);
    ei_x_encode_long(x, 1);
    ei_x_encode_long(x, -100000);
    ei_x_encode_atom(x, "atom");
    ei_x_encode_tuple_header(x, 0);
    ei_x_encode_string(x, "string");
    ei_x_encode_binary(x, "binary", 6);
    ei_x_encode_empty_list(x);
    ei_x_encode_map_header(x, 1);
    ei_x_encode_atom(x, "key");
    ei_x_encode_tuple_header(x, 2);
    ei_x_encode_long(x, 1);
    ei_x_encode_long(x, 2);
    ei_x_encode_tuple_header(x, 300);
    for (int i = 0; i < 300; i++)
        ei_x_encode_long(x, i);
    ei_x_encode_atom_as(x, "\xc3\xa9", ERLANG_UTF8, ERLANG_UTF8);
    ei_x_append_buf(x, (const char *)rest, sizeof rest);
    ei_x_encode_empty_list(x);
}

/* A whole term passes; no shorter beginning of it does, and none is read past its end (ASan). */
START_TEST(every_prefix_is_truncated)
{
    ei_x_buff x;
    everything(&x);
    ck_assert_int_eq(skip(x.buff, (size_t)x.index), x.index);
    for (int n = 0; n < x.index; n++) {
        char *exact = malloc((size_t)n + 1);
        memcpy(exact, x.buff, (size_t)n);
        ck_assert_int_eq(fdn_etf_skip((uint8_t *)exact, (size_t)n), FDN_ETF_TRUNCATED);
        free(exact);
    }
    ei_x_free(&x);
}
END_TEST

START_TEST(unknown_tags_are_malformed)
{
    static const unsigned char known[] = {70,  77,  88,  89,  90,  97,  98,  99,  100, 102, 103, 104, 105, 106,
                                          107, 108, 109, 110, 111, 112, 113, 114, 115, 116, 118, 119, 120};
    for (int tag = 0; tag < 256; tag++) {
        uint8_t bytes[64] = {(uint8_t)tag};
        if (!memchr(known, tag, sizeof known))
            ck_assert_int_eq(fdn_etf_skip(bytes, sizeof bytes), FDN_ETF_MALFORMED);
    }
}
END_TEST

START_TEST(inner_malformations)
{
    static const struct {
        uint8_t bytes[24];
        size_t n;
    } bad[] = {
        {{88, 97, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, 15},             /* a pid whose node is a number */
        {{90, 0, 0, 119, 1, 'a', 0, 0, 0, 1}, 10},                         /* a reference of no words */
        {{90, 0, 6, 119, 1, 'a', 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0}, 18}, /* and of too many */
        {{77, 0, 0, 0, 1, 9, 0}, 7},                                       /* nine bits in a byte */
        {{118, 4, 0, 'a'}, 4},                                             /* an atom that no node can make */
        {{100, 1, 0, 'a'}, 4},
        {{104, 1, 80, 0, 0, 0, 0}, 7}, /* compressed, inside */
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        ck_assert_int_eq(fdn_etf_skip(bad[i].bytes, bad[i].n), FDN_ETF_MALFORMED);
}
END_TEST

/* Five bytes that promise 2^32 elements cost ei seconds. Here the answer does not depend on what is promised. */
START_TEST(lying_counts_end_at_once)
{
    static const uint8_t tags[] = {105, 108, 116, 109, 111};
    for (size_t i = 0; i < sizeof tags; i++) {
        const uint8_t lie[] = {tags[i], 0xff, 0xff, 0xff, 0xff, 97, 1};
        ck_assert_int_eq(fdn_etf_skip(lie, 5), FDN_ETF_TRUNCATED);
        ck_assert_int_eq(fdn_etf_skip(lie, sizeof lie), FDN_ETF_TRUNCATED);
    }
    /* Each element promises as much again. */
    uint8_t nested[5 * 1000];
    for (size_t i = 0; i < sizeof nested; i += 5)
        memcpy(nested + i, (const uint8_t[]){116, 0xff, 0xff, 0xff, 0xff}, 5);
    ck_assert_int_eq(fdn_etf_skip(nested, sizeof nested), FDN_ETF_TRUNCATED);
}
END_TEST

/* A megabyte of nesting uses no stack, on the way in and in print. */
START_TEST(deep_nesting)
{
    const size_t depth = 1 << 19;
    uint8_t *bytes = malloc(2 * depth + 1);
    char text[64];
    for (size_t i = 0; i < depth; i++)
        memcpy(bytes + 2 * i, (const uint8_t[]){104, 1}, 2);
    bytes[2 * depth] = 106;
    ck_assert_int_eq(fdn_etf_skip(bytes, 2 * depth + 1), (long)(2 * depth + 1));
    ck_assert_int_eq(fdn_etf_skip(bytes, 2 * depth), FDN_ETF_TRUNCATED);
    fdn_etf_print((struct fdn_etf){bytes, 2 * depth + 1}, text, sizeof text);
    ck_assert_str_eq(text, "{{{{{{{...}}}}}}}");
    free(bytes);
}
END_TEST

START_TEST(taking_apart)
{
    ei_x_buff x;
    struct fdn_etf t, e[3], k, v;
    int64_t n;
    char name[FDN_ATOM_BYTES + 1];
    const uint8_t *p;
    size_t len;
    bool b;
    ei_x_new_with_version(&x);
    ei_x_encode_tuple_header(&x, 3);
    ei_x_encode_map_header(&x, 2);
    ei_x_encode_atom(&x, "a");
    ei_x_encode_long(&x, 1);
    ei_x_encode_atom(&x, "b");
    ei_x_encode_atom(&x, "true");
    ei_x_encode_list_header(&x, 2);
    ei_x_encode_longlong(&x, INT64_MIN);
    ei_x_encode_ulonglong(&x, UINT64_MAX);
    ei_x_encode_atom(&x, "tail");
    ei_x_encode_binary(&x, "bin\0x", 5);
    ck_assert(fdn_etf_versioned((uint8_t *)x.buff, (size_t)x.index, &t));
    ck_assert(!fdn_etf_versioned((uint8_t *)x.buff, (size_t)x.index - 1, &k));
    ck_assert(!fdn_etf_versioned((uint8_t *)x.buff + 1, (size_t)x.index - 1, &k));
    ck_assert(!fdn_etf_tuple(t, 2, e));
    ck_assert(fdn_etf_tuple(t, 3, e));
    ck_assert(fdn_etf_map_get(e[0], "b", &v) && fdn_etf_bool(v, &b) && b);
    ck_assert(fdn_etf_map_get(e[0], "a", &v) && fdn_etf_int(v, &n) && n == 1);
    ck_assert(!fdn_etf_map_get(e[0], "c", &v));
    ck_assert(!fdn_etf_map_get(e[1], "a", &v));
    struct fdn_etf_iter it = fdn_etf_list(e[1]);
    ck_assert(it.ok && fdn_etf_next(&it, &v) && fdn_etf_int(v, &n) && n == INT64_MIN);
    ck_assert(fdn_etf_next(&it, &v) && !fdn_etf_int(v, &n));
    ck_assert(!fdn_etf_next(&it, &v));
    ck_assert(fdn_etf_is_atom(it.rest, "tail"));
    ck_assert(fdn_etf_binary(e[2], &p, &len) && len == 5 && memcmp(p, "bin\0x", 5) == 0);
    ck_assert(!fdn_etf_atom(e[2], name));
    ck_assert(!fdn_etf_list(e[2]).ok);
    ei_x_free(&x);
}
END_TEST

START_TEST(atoms)
{
    char name[FDN_ATOM_BYTES + 1];
    static const uint8_t latin1[] = {100, 0, 1, 0xe9}, zero[] = {119, 3, 'a', 0, 'b'};
    ck_assert(fdn_etf_atom((struct fdn_etf){latin1, sizeof latin1}, name));
    ck_assert_str_eq(name, "\xc3\xa9");
    ck_assert_int_eq(fdn_etf_skip(zero, sizeof zero), sizeof zero);
    ck_assert(!fdn_etf_atom((struct fdn_etf){zero, sizeof zero}, name));
    ck_assert(!fdn_etf_is_atom((struct fdn_etf){zero, sizeof zero}, "a"));
    /* the longest atom there is: 255 characters of four bytes */
    uint8_t longest[3 + FDN_ATOM_BYTES] = {118, FDN_ATOM_BYTES >> 8, FDN_ATOM_BYTES & 0xff};
    for (int i = 0; i < 255; i++)
        memcpy(longest + 3 + 4 * i, "\xf0\x9f\x98\x80", 4);
    ck_assert(fdn_etf_atom((struct fdn_etf){longest, sizeof longest}, name));
    ck_assert_uint_eq(strlen(name), FDN_ATOM_BYTES);
}
END_TEST

START_TEST(printing)
{
    ei_x_buff x;
    char text[256], little[8];
    ei_x_new(&x);
    ei_x_encode_tuple_header(&x, 4);
    ei_x_encode_atom(&x, "bad\nmatch");
    ei_x_encode_list_header(&x, 2);
    ei_x_encode_long(&x, 1);
    ei_x_encode_binary(&x, "\xff", 1);
    ei_x_encode_empty_list(&x);
    ei_x_encode_string(&x, "text");
    ei_x_encode_map_header(&x, 0);
    struct fdn_etf t = {(uint8_t *)x.buff, (size_t)x.index};
    fdn_etf_print(t, text, sizeof text);
    ck_assert_str_eq(text, "{bad?match,[1,<<\"?\">>],\"text\",#{...}}");
    fdn_etf_print(t, little, sizeof little);
    ck_assert_str_eq(little, "{bad?ma");
    ei_x_free(&x);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("etf");
    TCase *t = tcase_create("etf");
    tcase_add_test(t, every_prefix_is_truncated);
    tcase_add_test(t, unknown_tags_are_malformed);
    tcase_add_test(t, inner_malformations);
    tcase_add_test(t, lying_counts_end_at_once);
    tcase_add_test(t, deep_nesting);
    tcase_add_test(t, taking_apart);
    tcase_add_test(t, atoms);
    tcase_add_test(t, printing);
    suite_add_tcase(s, t);
    return support_run(s);
}
