/* The bytes of segments: what is written is read back; every other byte, bit, length or salt is refused. */
#include <check.h>
#include <string.h>

#include "base/fdn_error.h"
#include "engine/segment.h"
#include "test/c/support.h"

#define SALT 0x5eed5eed5eed5eedu

static const fdn_segment_header header = {.uuid = "0123456789abcde",
                                          .boot = "boot",
                                          .number = 7,
                                          .first_lsn = 99,
                                          .capacity = 1 << 20,
                                          .salt = SALT,
                                          .created_ms = 1234567890123};

/* A record at buf[0]; returns its length. */
static uint64_t write_record(uint8_t *buf, uint8_t type, uint8_t flags, uint64_t lsn, const char *key, const char *value)
{
    fdn_record r = {
        .type = type, .flags = flags, .encoding = 1, .lsn = lsn, .key = (const uint8_t *)key, .value = (const uint8_t *)value};
    r.key_len = (uint32_t)strlen(key);
    r.value_len = (uint32_t)strlen(value);
    r.length = fdn_record_length(r.key_len, r.value_len);
    memset(buf, 0, r.length);
    memcpy(buf + FDN_RECORD_HEADER, key, r.key_len);
    memcpy(buf + FDN_RECORD_HEADER + r.key_len, value, r.value_len);
    fdn_record_write_header(buf, &r, fdn_record_body_hash(&r), SALT);
    return r.length;
}

START_TEST(header_is_read_back_and_every_bit_counts)
{
    uint8_t buf[FDN_SEGMENT_HEADER];
    fdn_segment_header got;
    fdn_segment_write_header(buf, &header);
    ck_assert_int_eq(fdn_segment_parse_header(buf, sizeof buf, &got), 0);
    ck_assert_mem_eq(got.uuid, header.uuid, 16);
    ck_assert_mem_eq(got.boot, header.boot, 16);
    ck_assert_uint_eq(got.number, header.number);
    ck_assert_uint_eq(got.first_lsn, header.first_lsn);
    ck_assert_uint_eq(got.capacity, header.capacity);
    ck_assert_uint_eq(got.salt, header.salt);
    for (size_t bit = 0; bit < sizeof buf * 8; bit++) {
        buf[bit / 8] ^= (uint8_t)(1 << bit % 8);
        int rc = fdn_segment_parse_header(buf, sizeof buf, &got);
        ck_assert_int_eq(rc, bit < 64 ? FDN_EFOREIGN : FDN_ECORRUPT);
        buf[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
    for (size_t size = 0; size < sizeof buf; size++)
        ck_assert_int_eq(fdn_segment_parse_header(buf, size, &got), size < 8 ? FDN_EFOREIGN : FDN_ECORRUPT);
}
END_TEST

START_TEST(record_is_read_back_and_every_bit_counts)
{
    uint8_t buf[256] = {0};
    fdn_record r;
    uint64_t len = write_record(buf, FDN_RECORD_PUT, FDN_RECORD_COPY, 42, "some key", "and its value");
    ck_assert_uint_eq(len % 8, 0);
    ck_assert_int_eq(fdn_record_parse(buf, sizeof buf, 0, SALT, &r), FDN_PARSE_OK);
    ck_assert_int_eq(r.type, FDN_RECORD_PUT);
    ck_assert_int_eq(r.flags, FDN_RECORD_COPY);
    ck_assert_uint_eq(r.lsn, 42);
    ck_assert_mem_eq(r.key, "some key", 8);
    ck_assert_mem_eq(r.value, "and its value", 13);
    for (size_t bit = 0; bit < len * 8; bit++) {
        buf[bit / 8] ^= (uint8_t)(1 << bit % 8);
        ck_assert_int_eq(fdn_record_parse(buf, sizeof buf, 0, SALT, &r), FDN_PARSE_BAD);
        buf[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
    /* Of another segment, cut, and not there. */
    ck_assert_int_eq(fdn_record_parse(buf, sizeof buf, 0, SALT + 1, &r), FDN_PARSE_BAD);
    for (uint64_t size = 0; size < len; size++)
        ck_assert_int_eq(fdn_record_parse(buf, size, 0, SALT, &r), size < FDN_RECORD_HEADER ? FDN_PARSE_END : FDN_PARSE_BAD);
    ck_assert_int_eq(fdn_record_parse(buf, sizeof buf, len, SALT, &r), FDN_PARSE_END);
    ck_assert_int_eq(fdn_record_parse(buf, sizeof buf, UINT64_MAX, SALT, &r), FDN_PARSE_END);
}
END_TEST

START_TEST(search_finds_what_stands_alone)
{
    uint8_t buf[1024] = {0};
    fdn_segment_rest rest;
    fdn_segment_search(buf, sizeof buf, 0, SALT, &rest);
    ck_assert(!rest.any);
    /* An inner record of a batch that was never finished proves nothing. */
    uint64_t at = 64 + write_record(buf + 64, FDN_RECORD_PUT, FDN_RECORD_INNER, 1, "k", "v");
    fdn_segment_search(buf, sizeof buf, 0, SALT, &rest);
    ck_assert(!rest.any);
    at += write_record(buf + at, FDN_RECORD_WATERMARK, 0, 2, "", "\x10\x20\0\0\0\0\0\0");
    fdn_segment_search(buf, sizeof buf, 0, SALT, &rest);
    ck_assert(rest.any);
    ck_assert_uint_eq(rest.watermark, 0); /* two bytes are no mark */
    write_record(buf + at, FDN_RECORD_WATERMARK, 0, 3, "", "12345678");
    fdn_segment_search(buf, sizeof buf, 0, SALT, &rest);
    ck_assert_uint_eq(rest.watermark, 0x3837363534333231u);
    fdn_segment_search(buf, sizeof buf, sizeof buf, SALT, &rest);
    ck_assert(!rest.any);
}
END_TEST

START_TEST(lengths_cannot_overflow)
{
    ck_assert_uint_eq(fdn_record_length(0, 0), FDN_RECORD_HEADER);
    ck_assert_uint_eq(fdn_record_length(1, 0), FDN_RECORD_HEADER + 8);
    ck_assert_uint_gt(fdn_record_length(UINT32_MAX, UINT32_MAX), FDN_RECORD_MAX);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("segment");
    TCase *tc = tcase_create("segment");
    tcase_add_test(tc, header_is_read_back_and_every_bit_counts);
    tcase_add_test(tc, record_is_read_back_and_every_bit_counts);
    tcase_add_test(tc, search_finds_what_stands_alone);
    tcase_add_test(tc, lengths_cannot_overflow);
    suite_add_tcase(suite, tc);
    return support_run(suite);
}
