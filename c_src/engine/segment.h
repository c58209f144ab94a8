/*
 * segment.h - the bytes of a segment file of the snapshot store (doc/FORMAT.md has the same table).
 *
 *     0        4096                                                            capacity
 *     | header | record | record | ... | SEAL | WATERMARK | zeros or unused    |
 *
 * Pure functions over buffers: nothing here opens, maps or writes a file, and every input byte may be hostile. Integers are
 * little-endian. Records are 8-aligned; the first word of a record is never zero and zero means "nothing was written here": writers
 * store that word last, so that a process killed in the middle of an append leaves no record, and not half of one.
 */
#ifndef FDN_ENGINE_SEGMENT_H
#define FDN_ENGINE_SEGMENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define FDN_SEGMENT_HEADER 4096
#define FDN_SEGMENT_VERSION 1
#define FDN_RECORD_HEADER 48
#define FDN_RECORD_MAX ((uint64_t)1 << 30)      /* bytes of one record, batches included */
#define FDN_RECORD_MARK (FDN_RECORD_HEADER + 8) /* bytes of a SEAL or WATERMARK */
/* Every segment keeps this much free for its SEAL and the WATERMARK behind it. */
#define FDN_SEGMENT_RESERVE (2 * FDN_RECORD_MARK)

typedef struct fdn_segment_header {
    uint8_t uuid[16];    /* of the store; all its segments agree */
    uint8_t boot[16];    /* boot of the machine that created the segment, zero where the system tells none */
    uint64_t number;     /* file name and header agree; increasing */
    uint64_t first_lsn;  /* every record written here that is no copy has this LSN or a higher one */
    uint64_t capacity;   /* the file's size until the segment is sealed */
    uint64_t salt;       /* seed of the checksums of its records: bytes of another segment never pass here */
    uint64_t created_ms; /* wall clock */
} fdn_segment_header;

enum {
    FDN_RECORD_PUT = 1,
    FDN_RECORD_PATCH = 2, /* reserved */
    FDN_RECORD_DELETE = 3,
    FDN_RECORD_BATCH = 4,     /* its value is a sequence of PUT and DELETE records marked INNER: all or nothing */
    FDN_RECORD_ATOMS = 5,     /* reserved */
    FDN_RECORD_CLEAR = 6,     /* reserved */
    FDN_RECORD_WATERMARK = 7, /* value: u64 offset; everything below it in this segment was durable when this was written */
    FDN_RECORD_SEAL = 8       /* value: u64 own offset; the segment ends here */
};

/* Flags of a record. */
enum {
    FDN_RECORD_COPY = 1,  /* moved by compaction, under its old LSN */
    FDN_RECORD_INNER = 2, /* part of a BATCH */
    FDN_RECORD_OBJECT = 4 /* the value is the whole tuple of an insert that was no pair */
};

/* A record as fields. key and value point into the buffer it was read from, or to what is to be written. */
typedef struct fdn_record {
    uint8_t type;
    uint8_t flags;
    uint8_t encoding; /* of the value: FDN_VALUE_* of codec.h */
    uint32_t schema;  /* 0: none */
    uint64_t lsn;
    uint64_t expiry; /* wall clock milliseconds; 0: never */
    uint32_t key_len;
    uint32_t value_len;
    const uint8_t *key;
    const uint8_t *value;
    uint64_t length;   /* whole record with padding; set by parse and by fdn_record_length */
    uint64_t checksum; /* set by parse */
} fdn_record;

/* Fill buf[FDN_SEGMENT_HEADER]. */
void fdn_segment_write_header(uint8_t *buf, const fdn_segment_header *header);

/* Returns 0, FDN_EFOREIGN (no magic, too short for one), FDN_EVERSION (sound, but of another version), FDN_ECORRUPT. */
int fdn_segment_parse_header(const uint8_t *buf, size_t size, fdn_segment_header *header);

/* Bytes of a record with this key and value, padding included; above FDN_RECORD_MAX it must not be written. */
uint64_t fdn_record_length(uint64_t key_len, uint64_t value_len);

/* The part of the checksum that needs neither LSN nor salt: over key and value. Costs what the bytes cost; call it outside locks. */
uint64_t fdn_record_body_hash(const fdn_record *record);

/* Fill head[FDN_RECORD_HEADER] from a record whose length is set. `body` from fdn_record_body_hash. */
void fdn_record_write_header(uint8_t *head, const fdn_record *record, uint64_t body, uint64_t salt);

enum {
    FDN_PARSE_OK = 0,
    FDN_PARSE_END = 1, /* a zero word, or no room for a record */
    FDN_PARSE_BAD = 2  /* something that is no sound record; its checksum included */
};

/* The record at buf[offset], of a segment whose bytes are buf[0..size). */
int fdn_record_parse(const uint8_t *buf, uint64_t size, uint64_t offset, uint64_t salt, fdn_record *record);

/* The next INNER record of a BATCH's value; *offset (start with 0) moves behind it. END after the last one. */
int fdn_record_parse_inner(const fdn_record *batch, uint64_t *offset, uint64_t salt, fdn_record *record);

/* The u64 of a SEAL or WATERMARK. */
uint64_t fdn_record_mark(const fdn_record *record);

/*
 * Behind a place where scanning stopped: is there any sound record, and up to where does a WATERMARK vouch? Inner records do not
 * count: the torn rest of a batch has sound ones.
 */
typedef struct fdn_segment_rest {
    bool any;
    uint64_t watermark;
} fdn_segment_rest;

void fdn_segment_search(const uint8_t *buf, uint64_t size, uint64_t from, uint64_t salt, fdn_segment_rest *rest);

#endif
