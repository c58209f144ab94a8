/*
 * store.h - the snapshot store: a table of terms over an append-only log of checksummed records.
 *
 *     index (memory)                     log (directory)
 *     key -> lsn, segment, offset  --->  seg-1 | seg-2 | ... | seg-n (active: appends go here)
 *
 * Order. One mutex, `log`, covers "allot LSN, append, publish in the index": table and log cannot differ, and a reader never sees a
 * value that is not in the log. Readers take only the read side of the index lock, pin the segment, and copy the value out without a
 * lock; they never wait for I/O.
 *
 * What is promised when a write has returned 0:
 *   FDN_STORE_ASYNC     the record is in a shared mapping: it survives the death of the process (kill -9), not of the machine
 *   FDN_STORE_INTERVAL  the same, and fdn_store_maintain makes it durable once an interval
 *   FDN_STORE_SYNC      nothing more until fdn_store_sync_to(lsn) has returned 0: then it survives the death of the machine
 *
 * Failure. A write that the kernel refuses, a failed fdatasync, or a file truncated under us turns the store read-only for good
 * (fdn_store_info.failed says why): what fdatasync did once refuse may be silently gone the second time. Reading goes on.
 *
 * Space. Segments are allocated before they are used, so a full disk is an error of the call that needs a new segment, and nothing
 * is lost. Compaction copies what is live out of the segment with the least of it; the file is removed after the copies are durable.
 * A delete's record stays as long as an older record of its key is in any file.
 *
 * Terms come and go encoded (external term format). Keys are compared by their canonical form (codec.h).
 */
#ifndef FDN_ENGINE_STORE_H
#define FDN_ENGINE_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "engine/segment.h"

typedef struct fdn_store fdn_store;

enum { FDN_STORE_ASYNC = 0, FDN_STORE_SYNC = 1, FDN_STORE_INTERVAL = 2 };

#define FDN_STORE_SEGMENT_MIN ((uint64_t)64 << 10)
#define FDN_STORE_SEGMENT_MAX ((uint64_t)1 << 30)
#define FDN_STORE_MAX_BYTES_MIN ((uint64_t)1 << 20)
#define FDN_STORE_SEGMENT_DEFAULT ((uint64_t)64 << 20)
/* The first segments are smaller: a new one has the size of what is live, between this and segment_bytes. */
#define FDN_STORE_SEGMENT_FIRST ((uint64_t)16 << 20)
/* A key and its value, encoded; beyond it a write answers FDN_ETOOBIG. A batch as a whole obeys FDN_RECORD_MAX. */
#define FDN_STORE_VALUE_MAX ((uint64_t)512 << 20)
#define FDN_STORE_KEY_MAX ((uint64_t)16 << 20)

typedef struct fdn_store_options {
    const char *path;       /* an existing directory */
    int durability;         /* FDN_STORE_* */
    uint64_t segment_bytes; /* 0: the default */
    uint64_t max_bytes;     /* of the segment files; 0: no limit. segment_bytes is then at most an eighth of it */
    bool zeros_equal;       /* 0.0 =:= -0.0 in this VM */
    const uint8_t *boot;    /* 16 bytes in place of fdn_boot_id: tests stage a power loss with it; NULL otherwise */
} fdn_store_options;

/* Where an open failed. */
typedef struct fdn_store_place {
    char path[4096]; /* the file or directory */
    uint64_t offset; /* FDN_ECORRUPT: of the damage */
    long pid;        /* FDN_ELOCKED: of the holder, 0 where unknown */
} fdn_store_place;

/*
 * Open, recover, and begin a new segment. Returns 0, or with *place filled:
 *   errno           the directory or a file of it could not be used
 *   FDN_ELOCKED     another opener, in this process or another
 *   FDN_ECORRUPT    damage below what is known to be durable; no file was changed
 *   FDN_EFOREIGN FDN_EVERSION   a segment file that is none of this store's, or of a newer format; no file was changed
 *   FDN_EOWNER      root in another user's directory
 *   FDN_EMAPPINGS FDN_ENOMEM
 */
int fdn_store_open(const fdn_store_options *options, fdn_store **store, fdn_store_place *place);

/* Flush, seal, unmap, unlock; later calls answer FDN_ECLOSED. Returns the result of the flush. Waits for a running maintain. */
int fdn_store_close(fdn_store *store);

/* Free the memory. No call may be running or follow. Closes first where that was not done. */
void fdn_store_free(fdn_store *store);

enum {
    FDN_STORE_PUT = 1,
    FDN_STORE_DELETE = 2, /* of an absent key: done, nothing is written, lsn 0 */
    FDN_STORE_EXPECT = 3  /* only the condition */
};
enum { FDN_STORE_ANY = 0, FDN_STORE_ABSENT = 1, FDN_STORE_VERSION = 2 };

typedef struct fdn_store_op {
    int kind;
    int condition;    /* on the key as it is before the whole write */
    uint64_t version; /* FDN_STORE_VERSION */
    const uint8_t *key;
    size_t key_len;
    const uint8_t *value;
    size_t value_len;
    bool object;  /* the value is a whole tuple (FDN_RECORD_OBJECT) */
    uint64_t lsn; /* out: version of this PUT */
} fdn_store_op;

typedef struct fdn_store_result {
    size_t conflict;  /* FDN_ESTALE: index of the op whose condition does not hold, */
    bool absent;      /* and what is there: nothing, */
    uint64_t version; /* or this version */
    uint64_t lsn;     /* for fdn_store_sync_to: last LSN of this write, or of what an answer without a write stands on */
} fdn_store_result;

/*
 * Write all ops or none, as one record. `wait` false: never waits for a lock that somebody may hold across I/O and does no I/O but
 * into the mapping; FDN_EBUSY then means "call again with wait, from a thread that may block".
 * Returns 0, FDN_ESTALE (see result), FDN_EFULL (max_bytes), ENOSPC, FDN_ETOOBIG, FDN_EREADONLY, FDN_ECLOSED, FDN_ENOMEM, FDN_EINVAL.
 * After any result but 0 the table is as it was.
 */
int fdn_store_write(fdn_store *store, fdn_store_op *ops, size_t count, bool wait, fdn_store_result *result);

/* Block until everything up to lsn is durable (one fdatasync serves all who wait). 0, FDN_EREADONLY, FDN_ECLOSED. */
int fdn_store_sync_to(fdn_store *store, uint64_t lsn);

/* Everything written so far. */
int fdn_store_sync(fdn_store *store);

/* A record, copied out and verified. key and data point into buffer; fdn_store_value_free. */
typedef struct fdn_store_value {
    uint64_t lsn;
    bool object;
    uint8_t encoding;
    const uint8_t *key;
    size_t key_len;
    const uint8_t *data;
    size_t len;
    uint8_t *buffer; /* inline_data, or allocated */
    uint8_t inline_data[2048];
} fdn_store_value;

/* Empty; value_free is then safe, whatever comes in between. */
static inline void fdn_store_value_init(fdn_store_value *value)
{
    value->buffer = value->inline_data;
    value->len = 0;
}

/*
 * Whether and at which version; *len is the size of the encoded value. 0, FDN_EUNKNOWN (no such key), FDN_ECLOSED, FDN_ENOMEM, and
 * without `wait` FDN_EBUSY: a large batch is on its way into the table.
 */
int fdn_store_find(fdn_store *store, const uint8_t *key, size_t key_len, bool wait, uint64_t *lsn, size_t *len);

/*
 * Copy a value out and verify its checksum. Values longer than max_len are not copied: FDN_ETOOBIG, with len set.
 * 0, FDN_EUNKNOWN, FDN_ETOOBIG, FDN_EBUSY (as find), FDN_ECORRUPT or FDN_EFAULTED (the file changed under us), FDN_ECLOSED, FDN_ENOMEM.
 */
int fdn_store_read(fdn_store *store, const uint8_t *key, size_t key_len, bool wait, size_t max_len, fdn_store_value *value);
void fdn_store_value_free(fdn_store_value *value);

/*
 * Records of keys from *cursor (start with 0) on, `want` of them or a few more; *cursor is 0 again after the last. A key that is there
 * all the time is visited exactly once, however the table changes between two calls. No lock is held during a visit, and the value is
 * the visitor's only until it returns. Stops at the visitor's first non-zero result and returns it. *count: records of this call.
 */
typedef int (*fdn_store_visit)(void *context, const fdn_store_value *value);
int fdn_store_scan(fdn_store *store, uint64_t *cursor, size_t want, size_t *count, fdn_store_visit visit, void *context);

typedef struct fdn_store_info {
    uint64_t keys;
    uint64_t tombstones; /* deleted keys that still have older records on disk */
    uint64_t live_bytes; /* records that a reopened store needs */
    uint64_t used_bytes; /* of the segments */
    uint64_t disk_bytes; /* allocated for them */
    uint64_t segments;
    uint64_t memory_bytes;  /* index */
    uint64_t lsn;           /* last allotted */
    uint64_t durable_lsn;   /* known to be on disk */
    uint64_t compactions;   /* segments removed */
    uint64_t copied_bytes;  /* by compaction */
    uint64_t recovered_cut; /* bytes of a torn tail that the last open cut off */
    int failed;             /* 0, or why it is read-only */
    bool closed;
    uint8_t uuid[16];
    int durability;
} fdn_store_info;

void fdn_store_get_info(fdn_store *store, fdn_store_info *info);

/* Why the store is read-only; 0 where it is not. */
int fdn_store_failed(const fdn_store *store);

/*
 * The background work of one store: start writing back what is not durable, compact. Copies at most about `budget` bytes; *more says
 * that there is more to do. May block for I/O; call it from a thread of its own or from a dirty scheduler. 0 or why it stopped.
 */
int fdn_store_maintain(fdn_store *store, size_t budget, bool *more);

#endif
