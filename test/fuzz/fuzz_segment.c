/*
 * The scanner of segment files on hostile bytes: nothing outside the buffer is read, a scan ends, and what it takes for sound is inside
 * the buffer. The first byte may ask for repaired checksums, without which no input gets past them.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "engine/segment.h"

#define SALT 0x1234567890abcdefu

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(int condition)
{
    if (!condition)
        abort();
}

static void touch(const uint8_t *p, size_t n)
{
    volatile uint8_t sink = 0;
    for (size_t i = 0; i < n; i++)
        sink ^= p[i];
    (void)sink;
}

static void inside(const uint8_t *buf, size_t size, const fdn_record *record)
{
    check(record->key >= buf && record->value >= record->key && record->value + record->value_len <= buf + size);
    touch(record->key, record->key_len);
    touch(record->value, record->value_len);
}

/* Make every record of the buffer that has a plausible length a sound one. */
static void repair(uint8_t *buf, size_t size)
{
    for (size_t at = 0; at + FDN_RECORD_HEADER <= size;) {
        uint8_t *p = buf + at;
        fdn_record record = {.type = p[8], .flags = p[9], .encoding = p[10], .lsn = p[16]};
        record.key_len = p[32];
        record.value_len = (uint32_t)(p[36] | p[37] << 8);
        record.length = fdn_record_length(record.key_len, record.value_len);
        if (record.length > size - at)
            return;
        record.key = p + FDN_RECORD_HEADER;
        record.value = record.key + record.key_len;
        memset(p + FDN_RECORD_HEADER + record.key_len + record.value_len, 0,
               record.length - FDN_RECORD_HEADER - record.key_len - record.value_len);
        if (record.type == FDN_RECORD_BATCH)
            repair(p + FDN_RECORD_HEADER + record.key_len, record.value_len);
        fdn_record_write_header(p, &record, fdn_record_body_hash(&record), SALT);
        at += record.length;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fdn_segment_header header;
    fdn_segment_rest rest;
    fdn_record record, inner;
    if (size < 1)
        return 0;
    size_t n = size - 1;
    uint8_t *buf = malloc(n ? n : 1);
    if (buf == NULL)
        return 0;
    memcpy(buf, data + 1, n);
    (void)fdn_segment_parse_header(buf, n, &header);
    if (data[0] & 1)
        repair(buf, n);
    uint64_t at = 0;
    while (fdn_record_parse(buf, n, at, SALT, &record) == FDN_PARSE_OK) {
        inside(buf, n, &record);
        check(record.length >= FDN_RECORD_HEADER && record.length <= n - at && record.length % 8 == 0);
        (void)fdn_record_mark(&record);
        for (uint64_t in = 0; record.type == FDN_RECORD_BATCH && fdn_record_parse_inner(&record, &in, SALT, &inner) == FDN_PARSE_OK;)
            inside(record.value, record.value_len, &inner);
        at += record.length;
    }
    fdn_segment_search(buf, n, at, SALT, &rest);
    (void)fdn_record_parse(buf, n, UINT64_MAX, SALT, &record);
    free(buf);
    return 0;
}
