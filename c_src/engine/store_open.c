/* Opening a store: lock, recovery, the first segment of this life; and the end of it. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fdn_alloc.h"
#include "base/fdn_clock.h"
#include "base/fdn_error.h"
#include "base/fdn_guard.h"
#include "base/fdn_hash.h"
#include "engine/store_internal.h"

typedef struct {
    fdn_store *store;
    fdn_segment *segment;
    bool last;
    uint64_t at; /* where the scan is; the place of the damage when it fails */
    uint64_t previous_lsn;
    bool sealed;
} scan;

static int check_fields(const fdn_record *record)
{
    if (record->flags & ~(FDN_RECORD_COPY | FDN_RECORD_INNER | FDN_RECORD_OBJECT) || record->schema != 0 || record->expiry != 0 ||
        record->encoding > FDN_VALUE_ETF)
        return FDN_EVERSION; /* sound, so a later version wrote it */
    return 0;
}

/* One PUT or DELETE into the index: the highest LSN of a key wins, whatever file it is in; of a record and its copy the copy. */
static int apply(scan *s, const fdn_record *record, uint64_t offset)
{
    fdn_store *store = s->store;
    fdn_codec_buf canon;
    uint64_t hash;
    if (record->key_len == 0)
        return FDN_ECORRUPT;
    int rc = check_fields(record);
    if (rc != 0)
        return rc;
    rc = fdn_store_canon(store, record->key, record->key_len, &canon, &hash);
    if (rc == 0) {
        fdn_entry *e = fdn_index_find(&store->index, hash, canon.data, canon.len);
        if (e == NULL) {
            e = fdn_entry_new(hash, canon.data, canon.len);
            if (e)
                fdn_index_insert(&store->index, e);
            else
                rc = FDN_ENOMEM;
        }
        if (rc == 0 && (e->segment == NULL || record->lsn >= e->lsn))
            fdn_store_settle(store, e, s->segment, offset, record);
    }
    fdn_codec_buf_free(&canon);
    if (rc == 0 && record->lsn >= store->next_lsn)
        store->next_lsn = record->lsn + 1;
    return rc;
}

static int apply_batch(scan *s, const fdn_record *batch)
{
    fdn_record inner;
    uint64_t inside = 0;
    int rc = check_fields(batch);
    while (rc == 0) {
        uint64_t here = inside;
        int parsed = fdn_record_parse_inner(batch, &inside, s->segment->header.salt, &inner);
        if (parsed == FDN_PARSE_END)
            break;
        rc = parsed == FDN_PARSE_OK ? apply(s, &inner, s->at + FDN_RECORD_HEADER + here) : FDN_ECORRUPT;
    }
    return rc;
}

/* What was written in order must be read in order. Copies keep the LSN of their original. */
static int check_order(scan *s, const fdn_record *record)
{
    if (record->flags & FDN_RECORD_INNER)
        return FDN_ECORRUPT;
    if (record->flags & FDN_RECORD_COPY)
        return 0;
    if (record->lsn < s->segment->header.first_lsn || record->lsn <= s->previous_lsn)
        return FDN_ECORRUPT;
    s->previous_lsn = record->lsn;
    return 0;
}

static int take(scan *s, const fdn_record *record)
{
    int rc;
    switch (record->type) {
    case FDN_RECORD_PUT:
    case FDN_RECORD_DELETE:
        rc = check_order(s, record);
        return rc ? rc : apply(s, record, s->at);
    case FDN_RECORD_BATCH:
        rc = check_order(s, record);
        return rc ? rc : apply_batch(s, record);
    case FDN_RECORD_WATERMARK:
        return check_fields(record);
    case FDN_RECORD_SEAL:
        s->sealed = true;
        return fdn_record_mark(record) == s->at ? check_fields(record) : FDN_ECORRUPT;
    default:
        return FDN_EVERSION;
    }
}

/*
 * The scan stopped at s->at and there is no SEAL. Is this the end that a killed process or a dead machine left, or damage?
 *
 *   Not the last segment, or a file cut short: damage. A successor is begun only after the seal is on disk, and a file is trimmed only
 *   behind a seal.
 *   Same boot: the page cache has everything that was written, and a record's first word was written last. So a first word that is
 *   there belongs to a whole record, and nothing whole is behind the end.
 *   Another boot: pages may have reached the disk in any order, but not those below a WATERMARK.
 */
static int judge_end(scan *s, int parsed, uint64_t size)
{
    const fdn_segment_header *h = &s->segment->header;
    static const uint8_t unknown[16];
    fdn_segment_rest rest;
    if (size < h->capacity || !s->last)
        return FDN_ECORRUPT;
    fdn_segment_search(s->segment->map, size, s->at + 8, h->salt, &rest);
    bool same_boot = memcmp(h->boot, s->store->boot, 16) == 0 && memcmp(h->boot, unknown, 16) != 0;
    if (same_boot ? parsed == FDN_PARSE_BAD || rest.any : s->at < rest.watermark)
        return FDN_ECORRUPT;
    uint64_t tail = size;
    while (tail > s->at && s->segment->map[tail - 1] == 0)
        tail--;
    s->store->recovered_cut = tail - s->at;
    return 0;
}

static int scan_segment(scan *s)
{
    fdn_segment *segment = s->segment;
    uint64_t size = segment->map_size < segment->header.capacity ? segment->map_size : segment->header.capacity;
    fdn_record record;
    int parsed = FDN_PARSE_OK, rc = 0;
    s->at = FDN_SEGMENT_HEADER;
    if (segment->header.first_lsn > s->store->next_lsn)
        s->store->next_lsn = segment->header.first_lsn;
    while (!s->sealed) {
        parsed = fdn_record_parse(segment->map, size, s->at, segment->header.salt, &record);
        if (parsed != FDN_PARSE_OK)
            break;
        rc = take(s, &record);
        if (rc != 0)
            break;
        s->at += record.length;
    }
    if (rc == 0 && !s->sealed)
        rc = judge_end(s, parsed, size);
    if (rc == 0 && fdn_segment_faulted(segment))
        rc = FDN_ECORRUPT;
    segment->end = s->at;
    return rc;
}

/* Seal the segment that the last life left open, where it ends. Nothing is known to be durable but what is below its watermarks. */
static int seal_last(fdn_store *store, bool sealed)
{
    fdn_segment *last = fdn_store_active(store);
    if (!sealed) {
        /* LSNs behind the cut may have been seen; none of them is used again. */
        store->next_lsn += last->header.capacity / FDN_RECORD_HEADER + 1;
        int rc = fdn_store_mark(store, FDN_RECORD_SEAL, last->end);
        if (rc != 0)
            return atomic_load(&store->failed);
    }
    /* Also what was sealed: its writer may have been killed before the seal, and all in front of it, were on disk. */
    if (fdatasync(last->fd) != 0)
        return fdn_errno();
    if (last->file_bytes > last->end)
        (void)fdn_segment_trim(last, last->end);
    return 0;
}

static int recover(fdn_store *store, fdn_store_place *place)
{
    char **names = NULL;
    size_t count = 0;
    bool sealed = true;
    int rc = fdn_store_list(store, &names, &count, place);
    for (size_t i = 0; rc == 0 && i < count; i++) {
        fdn_segment *segment = NULL;
        rc = fdn_store_reserve_segment(store);
        if (rc == 0)
            rc = fdn_segment_open(store, names[i], &segment, place);
        if (rc != 0)
            break;
        store->segments[store->segment_count++] = segment;
        if (i == 0)
            memcpy(store->uuid, segment->header.uuid, sizeof store->uuid);
        if (memcmp(store->uuid, segment->header.uuid, sizeof store->uuid) != 0) {
            rc = FDN_EFOREIGN;
            break;
        }
        scan s = {.store = store, .segment = segment, .last = i + 1 == count};
        rc = scan_segment(&s);
        place->offset = s.at;
        sealed = s.sealed;
        store->next_number = segment->header.number + 1;
    }
    fdn_store_list_free(names, count);
    if (rc == 0 && count > 0)
        rc = seal_last(store, sealed);
    return rc;
}

/* Tombstones without an older record elsewhere only cost memory. */
static void drop_idle_tombstones(fdn_store *store)
{
    for (uint64_t n = 0; n < store->index.buckets && store->index.tombstones > 0; n++) {
        fdn_entry *next;
        for (fdn_entry *e = *fdn_index_bucket(&store->index, n); e; e = next) {
            next = e->next;
            if (e->tombstone && !fdn_store_tombstone_needed(store, e))
                fdn_store_forget(store, e);
        }
    }
}

/* Opening must succeed on a disk that is nearly full: a small segment will do for the deletes that make room. */
static int first_segment(fdn_store *store)
{
    fdn_segment *segment = NULL;
    uint64_t capacity = fdn_store_next_capacity(store, 0);
    int rc = fdn_store_reserve_segment(store);
    if (rc == 0)
        rc = fdn_segment_create(store, store->next_number, capacity, store->next_lsn, &segment);
    if ((rc == ENOSPC || rc == EDQUOT) && capacity > FDN_STORE_SEGMENT_MIN)
        rc = fdn_segment_create(store, store->next_number, FDN_STORE_SEGMENT_MIN, store->next_lsn, &segment);
    if (rc != 0)
        return rc;
    rc = fdn_segment_publish(store, segment);
    if (rc != 0) {
        fdn_segment_discard(store, segment);
        return rc;
    }
    store->segments[store->segment_count++] = segment;
    store->durable_number = store->next_number++;
    store->durable_offset = FDN_SEGMENT_HEADER;
    store->durable_lsn = store->next_lsn - 1;
    store->marked = FDN_SEGMENT_HEADER;
    return 0;
}

static int init_locks(fdn_store *store)
{
    pthread_rwlockattr_t attr;
    pthread_rwlockattr_init(&attr);
#ifdef __GLIBC__
    /* Writers are short and rare compared with readers, who would otherwise keep them out. */
    pthread_rwlockattr_setkind_np(&attr, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
#endif
    int rc = pthread_rwlock_init(&store->index_lock, &attr);
    pthread_rwlockattr_destroy(&attr);
    pthread_mutex_init(&store->maint, NULL);
    pthread_mutex_init(&store->log, NULL);
    pthread_mutex_init(&store->sync, NULL);
    pthread_cond_init(&store->synced, NULL);
    return rc;
}

static int open_directory(fdn_store *store, fdn_store_place *place)
{
    struct stat st;
    snprintf(place->path, sizeof place->path, "%s", store->path);
    store->dir_fd = open(store->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (store->dir_fd < 0 || fstat(store->dir_fd, &st) != 0)
        return errno;
    /* Files that root makes there would lock the owner out. */
    if (geteuid() == 0 && st.st_uid != 0)
        return FDN_EOWNER;
    return 0;
}

static fdn_store *allocate(const fdn_store_options *options)
{
    fdn_store *store = fdn_calloc(1, sizeof *store);
    char *path = fdn_malloc(strlen(options->path) + 1);
    if (store == NULL || path == NULL || fdn_index_init(&store->index) != 0 || init_locks(store) != 0) {
        fdn_free(path);
        fdn_free(store);
        return NULL;
    }
    strcpy(path, options->path);
    store->path = path;
    store->dir_fd = store->lock_fd = -1;
    store->durability = options->durability;
    store->segment_bytes = options->segment_bytes ? options->segment_bytes : FDN_STORE_SEGMENT_DEFAULT;
    store->max_bytes = options->max_bytes;
    if (store->max_bytes && store->segment_bytes > store->max_bytes / 8)
        store->segment_bytes = store->max_bytes / 8;
    store->zeros_equal = options->zeros_equal;
    store->next_lsn = 1;
    store->next_number = 1;
    return store;
}

int fdn_store_open(const fdn_store_options *options, fdn_store **out, fdn_store_place *place)
{
    memset(place, 0, sizeof *place);
    snprintf(place->path, sizeof place->path, "%s", options->path);
    if ((options->segment_bytes &&
         (options->segment_bytes < FDN_STORE_SEGMENT_MIN || options->segment_bytes > FDN_STORE_SEGMENT_MAX)) ||
        (options->max_bytes && options->max_bytes < FDN_STORE_MAX_BYTES_MIN))
        return FDN_EINVAL;
    int rc = fdn_hash_init() == 0 ? fdn_guard_init() : FDN_EINVAL;
    if (rc != 0)
        return rc;
    fdn_store *store = allocate(options);
    if (store == NULL)
        return FDN_ENOMEM;
    if (options->boot)
        memcpy(store->boot, options->boot, sizeof store->boot);
    else
        (void)fdn_boot_id(store->boot);
    fdn_random(store->uuid, sizeof store->uuid);
    rc = open_directory(store, place);
    if (rc == 0)
        rc = fdn_store_lock(store, place);
    if (rc == 0)
        rc = recover(store, place);
    if (rc == 0) {
        drop_idle_tombstones(store);
        snprintf(place->path, sizeof place->path, "%s", store->path);
        rc = first_segment(store);
    }
    if (rc != 0) {
        atomic_store(&store->failed, rc); /* nothing is flushed, nothing is sealed */
        fdn_store_free(store);
        return rc;
    }
    *out = store;
    return 0;
}

/*
 * The SEAL says where the segment ends, and the WATERMARK behind it that all below is on disk: damage to any of it is found by the next
 * open, on any boot.
 */
static int finish_log(fdn_store *store)
{
    fdn_segment *active = fdn_store_active(store);
    int rc = fdn_store_mark(store, FDN_RECORD_SEAL, active->end);
    if (rc == 0)
        rc = fdn_segment_flush(active, 0, active->end);
    if (rc == 0) {
        fdn_store_durable(store, store->next_lsn - 1, active->header.number, active->end);
        rc = fdn_store_mark(store, FDN_RECORD_WATERMARK, active->end);
    }
    if (rc == 0)
        rc = fdn_segment_flush(active, 0, active->end);
    if (rc == 0)
        (void)fdn_segment_trim(active, active->end);
    return rc;
}

int fdn_store_close(fdn_store *store)
{
    atomic_store(&store->closing, true);
    pthread_mutex_lock(&store->maint);
    pthread_mutex_lock(&store->log);
    if (atomic_load(&store->closed)) {
        pthread_mutex_unlock(&store->log);
        pthread_mutex_unlock(&store->maint);
        return 0;
    }
    int rc = atomic_load(&store->failed);
    if (rc == 0 && store->segment_count > 0)
        rc = finish_log(store);
    pthread_rwlock_wrlock(&store->index_lock);
    fdn_index index = store->index;
    memset(&store->index, 0, sizeof store->index);
    atomic_store(&store->closed, true);
    pthread_rwlock_unlock(&store->index_lock);
    while (store->segment_count > 0)
        fdn_segment_unpin(store->segments[--store->segment_count]);
    fdn_free(store->segments);
    store->segments = NULL;
    store->segment_cap = 0;
    if (store->dir_fd >= 0)
        close(store->dir_fd);
    if (store->lock_fd >= 0)
        close(store->lock_fd); /* the lock goes with it */
    store->dir_fd = store->lock_fd = -1;
    pthread_mutex_unlock(&store->log);
    pthread_mutex_unlock(&store->maint);
    pthread_mutex_lock(&store->sync);
    pthread_cond_broadcast(&store->synced);
    pthread_mutex_unlock(&store->sync);
    fdn_index_clear(&index);
    return rc;
}

void fdn_store_free(fdn_store *store)
{
    if (store == NULL)
        return;
    (void)fdn_store_close(store);
    pthread_mutex_destroy(&store->maint);
    pthread_mutex_destroy(&store->log);
    pthread_mutex_destroy(&store->sync);
    pthread_cond_destroy(&store->synced);
    pthread_rwlock_destroy(&store->index_lock);
    fdn_free(store->path);
    fdn_free(store);
}
