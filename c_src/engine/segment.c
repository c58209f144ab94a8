#include "engine/segment.h"

#include <string.h>

#include "base/fdn_error.h"
#include "base/fdn_hash.h"

/* Offsets in the segment header. Magic, version and checksum stay where they are in every version to come. */
enum { H_MAGIC = 0, H_VERSION = 8, H_UUID = 16, H_BOOT = 32, H_NUMBER = 48, H_LSN = 56, H_CAPACITY = 64, H_SALT = 72, H_CREATED = 80 };
#define H_CHECKSUM (FDN_SEGMENT_HEADER - 8)

/* Offsets in a record's header. */
enum {
    R_LENGTH = 0,
    R_GUARD = 4,
    R_TYPE = 8,
    R_FLAGS = 9,
    R_ENCODING = 10,
    R_ZERO = 11,
    R_SCHEMA = 12,
    R_LSN = 16,
    R_EXPIRY = 24,
    R_KEY = 32,
    R_VALUE = 36,
    R_CHECKSUM = 40
};

static const uint8_t magic[8] = {'F', 'D', 'N', 'S', 'N', 'A', 'P', '\n'};
#define LENGTH_GUARD 0x46444e52u /* length ^ guard: the first word is never zero, and a flipped length is told before it is used */

static void put32(uint8_t *p, uint32_t v)
{
    for (int i = 0; i < 4; i++)
        p[i] = (uint8_t)(v >> 8 * i);
}

static void put64(uint8_t *p, uint64_t v)
{
    for (int i = 0; i < 8; i++)
        p[i] = (uint8_t)(v >> 8 * i);
}

static uint32_t get32(const uint8_t *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static uint64_t get64(const uint8_t *p)
{
    return (uint64_t)get32(p) | (uint64_t)get32(p + 4) << 32;
}

void fdn_segment_write_header(uint8_t *buf, const fdn_segment_header *header)
{
    memset(buf, 0, FDN_SEGMENT_HEADER);
    memcpy(buf + H_MAGIC, magic, sizeof magic);
    put32(buf + H_VERSION, FDN_SEGMENT_VERSION);
    memcpy(buf + H_UUID, header->uuid, 16);
    memcpy(buf + H_BOOT, header->boot, 16);
    put64(buf + H_NUMBER, header->number);
    put64(buf + H_LSN, header->first_lsn);
    put64(buf + H_CAPACITY, header->capacity);
    put64(buf + H_SALT, header->salt);
    put64(buf + H_CREATED, header->created_ms);
    put64(buf + H_CHECKSUM, fdn_hash_check(buf, H_CHECKSUM, 0));
}

int fdn_segment_parse_header(const uint8_t *buf, size_t size, fdn_segment_header *header)
{
    if (size < sizeof magic || memcmp(buf, magic, sizeof magic) != 0)
        return FDN_EFOREIGN;
    if (size < FDN_SEGMENT_HEADER || get64(buf + H_CHECKSUM) != fdn_hash_check(buf, H_CHECKSUM, 0))
        return FDN_ECORRUPT;
    if (get32(buf + H_VERSION) != FDN_SEGMENT_VERSION)
        return FDN_EVERSION;
    memcpy(header->uuid, buf + H_UUID, 16);
    memcpy(header->boot, buf + H_BOOT, 16);
    header->number = get64(buf + H_NUMBER);
    header->first_lsn = get64(buf + H_LSN);
    header->capacity = get64(buf + H_CAPACITY);
    header->salt = get64(buf + H_SALT);
    header->created_ms = get64(buf + H_CREATED);
    return 0;
}

uint64_t fdn_record_length(uint64_t key_len, uint64_t value_len)
{
    return (FDN_RECORD_HEADER + key_len + value_len + 7) & ~(uint64_t)7;
}

uint64_t fdn_record_body_hash(const fdn_record *record)
{
    return fdn_hash_check(record->value, record->value_len, fdn_hash_check(record->key, record->key_len, 0));
}

static uint64_t full_hash(const uint8_t *head, uint64_t body, uint64_t salt)
{
    uint8_t sum[R_CHECKSUM + 8];
    memcpy(sum, head, R_CHECKSUM);
    put64(sum + R_CHECKSUM, body);
    return fdn_hash_check(sum, sizeof sum, salt);
}

void fdn_record_write_header(uint8_t *head, const fdn_record *record, uint64_t body, uint64_t salt)
{
    memset(head, 0, FDN_RECORD_HEADER);
    put32(head + R_LENGTH, (uint32_t)record->length);
    put32(head + R_GUARD, (uint32_t)record->length ^ LENGTH_GUARD);
    head[R_TYPE] = record->type;
    head[R_FLAGS] = record->flags;
    head[R_ENCODING] = record->encoding;
    put32(head + R_SCHEMA, record->schema);
    put64(head + R_LSN, record->lsn);
    put64(head + R_EXPIRY, record->expiry);
    put32(head + R_KEY, record->key_len);
    put32(head + R_VALUE, record->value_len);
    put64(head + R_CHECKSUM, full_hash(head, body, salt));
}

int fdn_record_parse(const uint8_t *buf, uint64_t size, uint64_t offset, uint64_t salt, fdn_record *record)
{
    uint8_t head[FDN_RECORD_HEADER];
    if (offset > size || size - offset < FDN_RECORD_HEADER)
        return FDN_PARSE_END;
    /* A copy: what was checked is what is used, whoever writes to the file meanwhile. */
    memcpy(head, buf + offset, sizeof head);
    if (get64(head) == 0)
        return FDN_PARSE_END;
    uint64_t length = get32(head + R_LENGTH);
    uint64_t key_len = get32(head + R_KEY), value_len = get32(head + R_VALUE);
    if ((get32(head + R_GUARD) ^ LENGTH_GUARD) != length || length > size - offset || length > FDN_RECORD_MAX || head[R_ZERO] != 0 ||
        length != fdn_record_length(key_len, value_len))
        return FDN_PARSE_BAD;
    record->type = head[R_TYPE];
    record->flags = head[R_FLAGS];
    record->encoding = head[R_ENCODING];
    record->schema = get32(head + R_SCHEMA);
    record->lsn = get64(head + R_LSN);
    record->expiry = get64(head + R_EXPIRY);
    record->key_len = (uint32_t)key_len;
    record->value_len = (uint32_t)value_len;
    record->key = buf + offset + FDN_RECORD_HEADER;
    record->value = record->key + key_len;
    record->length = length;
    record->checksum = get64(head + R_CHECKSUM);
    for (const uint8_t *p = record->value + value_len; p < buf + offset + length; p++) {
        if (*p != 0)
            return FDN_PARSE_BAD;
    }
    return record->checksum == full_hash(head, fdn_record_body_hash(record), salt) ? FDN_PARSE_OK : FDN_PARSE_BAD;
}

int fdn_record_parse_inner(const fdn_record *batch, uint64_t *offset, uint64_t salt, fdn_record *record)
{
    if (*offset == batch->value_len)
        return FDN_PARSE_END;
    int rc = fdn_record_parse(batch->value, batch->value_len, *offset, salt, record);
    if (rc != FDN_PARSE_OK || !(record->flags & FDN_RECORD_INNER) ||
        (record->type != FDN_RECORD_PUT && record->type != FDN_RECORD_DELETE))
        return FDN_PARSE_BAD;
    *offset += record->length;
    return FDN_PARSE_OK;
}

uint64_t fdn_record_mark(const fdn_record *record)
{
    return record->value_len >= 8 ? get64(record->value) : 0;
}

void fdn_segment_search(const uint8_t *buf, uint64_t size, uint64_t from, uint64_t salt, fdn_segment_rest *rest)
{
    fdn_record record;
    memset(rest, 0, sizeof *rest);
    for (uint64_t at = (from + 7) & ~(uint64_t)7; at < size;) {
        if (fdn_record_parse(buf, size, at, salt, &record) != FDN_PARSE_OK) {
            at += 8;
            continue;
        }
        if (!(record.flags & FDN_RECORD_INNER)) {
            rest->any = true;
            if (record.type == FDN_RECORD_WATERMARK && fdn_record_mark(&record) > rest->watermark)
                rest->watermark = fdn_record_mark(&record);
        }
        at += record.length;
    }
}
