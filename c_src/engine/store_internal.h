/*
 * store_internal.h - what the files of the store share. store.h is the contract.
 *
 * Locks, outermost first:
 *   maint   one compaction at a time; close takes it so that none is running
 *   log     appending: LSN, active segment, list of segments, counters; held across I/O only by callers that may block
 *   index   rwlock: table, and through it which segment a value is in; never held across I/O
 *   sync    who is flushing, and up to where everything is durable; held for a few instructions
 *
 * A segment is counted: one for the list, one for each reader or flusher that uses its mapping or descriptor without a lock. Pins are
 * taken under `index` (readers) or `log` (flushers), so the list's own count is still there.
 */
#ifndef FDN_ENGINE_STORE_INTERNAL_H
#define FDN_ENGINE_STORE_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>
#include <sys/uio.h>

#include "engine/codec.h"
#include "engine/store.h"

typedef struct fdn_segment {
    _Atomic uint32_t pins;
    fdn_segment_header header;
    char *path;
    int fd;
    uint8_t *map; /* header.capacity or file size bytes; PROT_WRITE only where appends go through it */
    uint64_t map_size;
    int guard;
    bool mapped_writes;
    uint64_t end;                /* behind the last record; log */
    _Atomic uint64_t file_bytes; /* size of the file; changed under log */
    /* Live bytes: changed under log and index, read under log. */
    uint64_t live;  /* of PUTs that the index points to */
    uint64_t tombs; /* of DELETEs that the index points to */
    bool damaged;   /* compaction met bytes that do not verify: it is left alone from then on */
} fdn_segment;

typedef struct fdn_entry {
    struct fdn_entry *next;
    uint64_t hash;
    uint64_t lsn;
    uint64_t offset;
    uint64_t lowest; /* no segment below this number has a record of the key */
    fdn_segment *segment;
    uint32_t length; /* of the record */
    uint32_t value_len;
    uint32_t canon_len;
    bool tombstone;
    uint8_t bytes[]; /* canonical key; the key itself is in the record */
} fdn_entry;

/* Linear hashing: a table grows by one bucket an insert, so no single call pays for a rehash. */
#define FDN_INDEX_CHUNK 512

typedef struct fdn_index {
    fdn_entry ***chunks;
    size_t chunk_count;
    size_t chunk_cap;
    uint64_t buckets; /* in use */
    uint64_t level;   /* power of two: buckets is in [level, 2 * level) */
    uint64_t entries; /* tombstones included */
    uint64_t tombstones;
    uint64_t bytes;
} fdn_index;

struct fdn_store {
    char *path;
    int dir_fd;
    int lock_fd;
    int durability;
    uint64_t segment_bytes;
    uint64_t max_bytes;
    bool zeros_equal;
    uint8_t uuid[16];
    uint8_t boot[16];

    pthread_mutex_t maint;
    pthread_mutex_t log;
    pthread_rwlock_t index_lock;
    pthread_mutex_t sync;
    pthread_cond_t synced;

    _Atomic bool closing;
    _Atomic bool closed;
    _Atomic int failed;

    /* log */
    fdn_segment **segments; /* ascending numbers; the last one is active */
    size_t segment_count;
    size_t segment_cap;
    uint64_t next_lsn;
    uint64_t next_number;
    uint64_t marked; /* offset in the active segment that the last WATERMARK vouches for */
    uint64_t compactions;
    uint64_t copied_bytes;
    uint64_t recovered_cut;

    /* index */
    fdn_index index;

    /* sync */
    bool flushing;
    uint64_t durable_lsn;
    uint64_t durable_number; /* segment of durable_offset; segments below are durable as a whole */
    uint64_t durable_offset;

    /* maint */
    uint64_t victim;        /* number of the segment that compaction is in, 0: none */
    uint64_t victim_offset; /* next record of it */
};

/* ---- store_index.c: under the index lock, but for new and free of an entry ---- */
int fdn_index_init(fdn_index *index);
void fdn_index_clear(fdn_index *index);
fdn_entry *fdn_index_find(const fdn_index *index, uint64_t hash, const uint8_t *canon, size_t len);
fdn_entry *fdn_entry_new(uint64_t hash, const uint8_t *canon, size_t len);
void fdn_entry_free(fdn_entry *entry);
/* Cannot fail: where the table cannot grow it only gets slower. */
void fdn_index_insert(fdn_index *index, fdn_entry *entry);
/* Take it out and free it. */
void fdn_index_remove(fdn_index *index, fdn_entry *entry);
fdn_entry **fdn_index_bucket(const fdn_index *index, uint64_t n);
/* Key bytes to canonical form and hash; buf is the caller's to free in every case. */
int fdn_store_canon(const fdn_store *store, const uint8_t *key, size_t len, fdn_codec_buf *buf, uint64_t *hash);

/* ---- store_file.c ---- */
/* A segment under a temporary name; then either publish (durable under its own name) or discard it. */
int fdn_segment_create(fdn_store *store, uint64_t number, uint64_t capacity, uint64_t first_lsn, fdn_segment **out);
int fdn_segment_publish(fdn_store *store, fdn_segment *segment);
void fdn_segment_discard(fdn_store *store, fdn_segment *segment);
/* Open and map an existing file; the header is parsed, nothing else. *place is filled on failure. */
int fdn_segment_open(fdn_store *store, const char *name, fdn_segment **out, fdn_store_place *place);
void fdn_segment_pin(fdn_segment *segment);
void fdn_segment_unpin(fdn_segment *segment);
/*
 * Write iov at offset, whose first 8 bytes are a record's first word: those are written last. 0, or an errno or FDN_EFAULTED, after
 * which the place must not be written again.
 */
int fdn_segment_emit(fdn_segment *segment, uint64_t offset, const struct iovec *iov, int count);
/* Make [from, to) of the file durable. */
int fdn_segment_flush(fdn_segment *segment, uint64_t from, uint64_t to);
int fdn_segment_faulted(const fdn_segment *segment);
/* Release what lies behind `end` of a file that is not mapped (or never touched there). */
int fdn_segment_trim(fdn_segment *segment, uint64_t end);
int fdn_store_unlink(fdn_store *store, fdn_segment *segment);
int fdn_store_lock(fdn_store *store, fdn_store_place *place);
int fdn_store_list(fdn_store *store, char ***names, size_t *count, fdn_store_place *place);
void fdn_store_list_free(char **names, size_t count);

/* How much of the space that max_bytes leaves a record may take. */
enum { FDN_URGENCY_PUT, FDN_URGENCY_DELETE, FDN_URGENCY_COPY };

/* ---- store_log.c: under log ---- */
static inline fdn_segment *fdn_store_active(fdn_store *store)
{
    return store->segments[store->segment_count - 1];
}
/* Make room in the list for one more. */
int fdn_store_reserve_segment(fdn_store *store);
/*
 * Room for a record of `length` bytes in the active segment; with `rotate` a new one is begun where there is none. FDN_EBUSY: would
 * have to rotate. FDN_EFULL, ENOSPC: no space; nothing changed. Anything else: the store has failed.
 */
int fdn_store_room(fdn_store *store, uint64_t length, int urgency, bool rotate);
/* Append to the active segment, where room was found. FDN_EREADONLY: failed, for good. */
int fdn_store_append(fdn_store *store, const struct iovec *iov, int count, uint64_t length, uint64_t *offset);
/* Append a SEAL or WATERMARK. */
int fdn_store_mark(fdn_store *store, uint8_t type, uint64_t value);
/* Size of the next segment if it is to hold a record of `need` bytes. */
uint64_t fdn_store_next_capacity(fdn_store *store, uint64_t need);
uint64_t fdn_store_disk_bytes(const fdn_store *store);
/* Read-only from now on; wakes who waits for durability. From anywhere. */
void fdn_store_fail(fdn_store *store, int rc);
/* 0, FDN_ECLOSED or FDN_EREADONLY. */
int fdn_store_writable(fdn_store *store);
/* Everything up to lsn is durable, the bytes below `offset` of segment `number` included. Takes sync. */
void fdn_store_durable(fdn_store *store, uint64_t lsn, uint64_t number, uint64_t offset);

/* ---- store.c: under log and the index write lock ---- */
/* The entry's record is now this one: moves the bytes that segments and index account. */
void fdn_store_settle(fdn_store *store, fdn_entry *entry, fdn_segment *segment, uint64_t offset, const fdn_record *record);
/* Drop a tombstone whose work is done: no older record of its key is in any file but the tombstone's own. */
bool fdn_store_tombstone_needed(const fdn_store *store, const fdn_entry *entry);
void fdn_store_forget(fdn_store *store, fdn_entry *entry);

/* ---- store_compact.c ---- */
/* Compact until one segment is gone. Takes maint. FDN_EFULL where nothing is to be gained. */
int fdn_store_reclaim(fdn_store *store);

#endif
