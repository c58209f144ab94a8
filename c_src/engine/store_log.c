/* The log: appending, rotation, durability. */
#include <errno.h>
#include <string.h>

#include "base/fdn_alloc.h"
#include "base/fdn_error.h"
#include "engine/store_internal.h"

void fdn_store_fail(fdn_store *store, int rc)
{
    int none = 0;
    atomic_compare_exchange_strong(&store->failed, &none, rc);
    pthread_mutex_lock(&store->sync);
    pthread_cond_broadcast(&store->synced);
    pthread_mutex_unlock(&store->sync);
}

int fdn_store_writable(fdn_store *store)
{
    if (atomic_load(&store->closed))
        return FDN_ECLOSED;
    return atomic_load(&store->failed) ? FDN_EREADONLY : 0;
}

uint64_t fdn_store_disk_bytes(const fdn_store *store)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < store->segment_count; i++)
        sum += store->segments[i]->file_bytes;
    return sum;
}

int fdn_store_reserve_segment(fdn_store *store)
{
    if (store->segment_count < store->segment_cap)
        return 0;
    size_t cap = store->segment_cap ? store->segment_cap * 2 : 16;
    fdn_segment **list = fdn_realloc(store->segments, cap * sizeof *list);
    if (list == NULL)
        return FDN_ENOMEM;
    store->segments = list;
    store->segment_cap = cap;
    return 0;
}

/* As large as what is live, so that a small store stays small and a large one has few files. */
uint64_t fdn_store_next_capacity(fdn_store *store, uint64_t need)
{
    uint64_t live = 0;
    for (size_t i = 0; i < store->segment_count; i++)
        live += store->segments[i]->live;
    uint64_t capacity = live > FDN_STORE_SEGMENT_FIRST ? live : FDN_STORE_SEGMENT_FIRST;
    if (capacity > store->segment_bytes)
        capacity = store->segment_bytes;
    /* A WATERMARK may come before the record. */
    uint64_t least = FDN_SEGMENT_HEADER + need + FDN_RECORD_MARK + FDN_SEGMENT_RESERVE;
    if (capacity < least)
        capacity = least;
    return (capacity + 4095) & ~(uint64_t)4095;
}

void fdn_store_durable(fdn_store *store, uint64_t lsn, uint64_t number, uint64_t offset)
{
    pthread_mutex_lock(&store->sync);
    if (lsn > store->durable_lsn)
        store->durable_lsn = lsn;
    if (number > store->durable_number || (number == store->durable_number && offset > store->durable_offset)) {
        store->durable_number = number;
        store->durable_offset = offset;
    }
    pthread_cond_broadcast(&store->synced);
    pthread_mutex_unlock(&store->sync);
}

/* Up to where the active segment is known to be durable. */
static uint64_t durable_offset(fdn_store *store)
{
    pthread_mutex_lock(&store->sync);
    uint64_t offset = store->durable_number == fdn_store_active(store)->header.number ? store->durable_offset : 0;
    pthread_mutex_unlock(&store->sync);
    return offset;
}

int fdn_store_mark(fdn_store *store, uint8_t type, uint64_t value)
{
    fdn_segment *active = fdn_store_active(store);
    uint8_t head[FDN_RECORD_HEADER], bytes[8];
    for (int i = 0; i < 8; i++)
        bytes[i] = (uint8_t)(value >> 8 * i);
    fdn_record record = {
        .type = type, .lsn = store->next_lsn - 1, .value = bytes, .value_len = sizeof bytes, .length = FDN_RECORD_MARK};
    record.key = bytes; /* empty */
    fdn_record_write_header(head, &record, fdn_record_body_hash(&record), active->header.salt);
    struct iovec iov[2] = {{head, sizeof head}, {bytes, sizeof bytes}};
    int rc = fdn_segment_emit(active, active->end, iov, 2);
    if (rc != 0) {
        fdn_store_fail(store, rc);
        return FDN_EREADONLY;
    }
    active->end += FDN_RECORD_MARK;
    return 0;
}

/*
 * The next segment is allocated first, so a full disk changes nothing. Then the active one is sealed and made durable, and only then
 * does the next one get its name: that a segment has a successor means that all of it is on disk.
 */
static int rotate(fdn_store *store, uint64_t capacity)
{
    fdn_segment *active = fdn_store_active(store), *next = NULL;
    int rc = fdn_store_reserve_segment(store);
    if (rc == 0)
        rc = fdn_segment_create(store, store->next_number, capacity, store->next_lsn, &next);
    if (rc != 0)
        return rc;
    rc = fdn_store_mark(store, FDN_RECORD_SEAL, active->end);
    if (rc != 0) {
        fdn_segment_discard(store, next);
        return rc;
    }
    rc = fdn_segment_flush(active, durable_offset(store), active->end);
    if (rc == 0) {
        fdn_store_durable(store, store->next_lsn - 1, active->header.number, active->end);
        rc = fdn_segment_publish(store, next);
    }
    if (rc != 0) {
        fdn_store_fail(store, rc);
        fdn_segment_discard(store, next);
        return FDN_EREADONLY;
    }
    /* What a large record did not fit into. */
    if (active->file_bytes - active->end > active->file_bytes / 8)
        (void)fdn_segment_trim(active, active->end);
    store->segments[store->segment_count++] = next;
    store->next_number++;
    store->marked = FDN_SEGMENT_HEADER;
    return 0;
}

/*
 * The last segment_bytes below max_bytes are kept for what frees space: records of deletes may take half of a segment there, copies of
 * compaction all of it.
 */
int fdn_store_room(fdn_store *store, uint64_t length, int urgency, bool may_rotate)
{
    fdn_segment *active = fdn_store_active(store);
    uint64_t taken = active->end + FDN_RECORD_MARK + FDN_SEGMENT_RESERVE;
    uint64_t capacity = active->header.capacity;
    bool fits = taken < capacity && length <= capacity - taken;
    uint64_t disk = store->max_bytes ? fdn_store_disk_bytes(store) : 0;
    if (fits && store->max_bytes && disk + store->segment_bytes > store->max_bytes) {
        if (urgency == FDN_URGENCY_PUT || (urgency == FDN_URGENCY_DELETE && capacity - taken - length < capacity / 2))
            return may_rotate ? FDN_EFULL : FDN_EBUSY;
    }
    if (fits)
        return 0;
    if (!may_rotate)
        return FDN_EBUSY;
    uint64_t next = fdn_store_next_capacity(store, length);
    uint64_t keep = urgency == FDN_URGENCY_PUT ? store->segment_bytes : 0;
    if (store->max_bytes && disk + next + keep > store->max_bytes)
        return FDN_EFULL;
    return rotate(store, next);
}

int fdn_store_append(fdn_store *store, const struct iovec *iov, int count, uint64_t length, uint64_t *offset)
{
    fdn_segment *active = fdn_store_active(store);
    uint64_t durable = durable_offset(store);
    if (durable > store->marked) {
        int rc = fdn_store_mark(store, FDN_RECORD_WATERMARK, durable);
        if (rc != 0)
            return rc;
        store->marked = durable;
    }
    int rc = fdn_segment_emit(active, active->end, iov, count);
    if (rc != 0) {
        fdn_store_fail(store, rc);
        return FDN_EREADONLY;
    }
    *offset = active->end;
    active->end += length;
    return 0;
}

/* By the one thread that has set `flushing`. */
static int flush_active(fdn_store *store)
{
    pthread_mutex_lock(&store->log);
    int rc = fdn_store_writable(store);
    if (rc != 0) {
        pthread_mutex_unlock(&store->log);
        return rc;
    }
    fdn_segment *active = fdn_store_active(store);
    uint64_t from = durable_offset(store), to = active->end, lsn = store->next_lsn - 1, number = active->header.number;
    fdn_segment_pin(active);
    pthread_mutex_unlock(&store->log);
    rc = fdn_segment_flush(active, from, to);
    fdn_segment_unpin(active);
    if (rc != 0) {
        fdn_store_fail(store, rc);
        return FDN_EREADONLY;
    }
    fdn_store_durable(store, lsn, number, to);
    return 0;
}

/* Up to what somebody waits: an LSN, or a place, since copies of compaction have no LSN of their own. Under sync. */
typedef struct {
    uint64_t lsn;
    uint64_t number;
    uint64_t offset;
} goal;

static bool reached(const fdn_store *store, const goal *g)
{
    return store->durable_lsn >= g->lsn &&
           (store->durable_number > g->number || (store->durable_number == g->number && store->durable_offset >= g->offset));
}

static int sync_until(fdn_store *store, const goal *g)
{
    int rc = 0;
    pthread_mutex_lock(&store->sync);
    while (!reached(store, g) && rc == 0) {
        rc = fdn_store_writable(store);
        if (rc != 0)
            break;
        if (store->flushing) {
            pthread_cond_wait(&store->synced, &store->sync);
            continue;
        }
        store->flushing = true;
        pthread_mutex_unlock(&store->sync);
        rc = flush_active(store);
        pthread_mutex_lock(&store->sync);
        store->flushing = false;
        pthread_cond_broadcast(&store->synced);
    }
    if (reached(store, g))
        rc = 0;
    pthread_mutex_unlock(&store->sync);
    return rc;
}

int fdn_store_sync_to(fdn_store *store, uint64_t lsn)
{
    goal g = {.lsn = lsn};
    return sync_until(store, &g);
}

int fdn_store_sync(fdn_store *store)
{
    goal g = {0};
    pthread_mutex_lock(&store->log);
    int rc = fdn_store_writable(store);
    if (rc == 0) {
        const fdn_segment *active = fdn_store_active(store);
        g = (goal){store->next_lsn - 1, active->header.number, active->end};
    }
    pthread_mutex_unlock(&store->log);
    return rc != 0 ? rc : sync_until(store, &g);
}
