/* The table: writing, reading, closing. Recovery is in store_open.c, the log in store_log.c. */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "base/fdn_alloc.h"
#include "base/fdn_atomic.h"
#include "base/fdn_error.h"
#include "engine/store_internal.h"

#define SPINS 400 /* a few microseconds: what an append of a small record takes */

static const uint8_t zeros[8];

/* One op on its way into the log. */
typedef struct {
    fdn_codec_buf canon;
    uint64_t hash;
    uint64_t body;
    fdn_entry *spare; /* for a key that is not in the index yet */
    fdn_record record;
    uint64_t offset; /* in the segment; before that in the batch */
} work;

typedef struct {
    work one;
    work *items; /* &one, or allocated */
    size_t count;
    size_t writes; /* ops that are no mere condition */
    bool puts;
    uint8_t *batch; /* inner records, headers still blank; NULL for a single record */
    fdn_record outer;
} job;

static void job_free(job *j)
{
    for (size_t i = 0; i < j->count; i++) {
        fdn_codec_buf_free(&j->items[i].canon);
        fdn_entry_free(j->items[i].spare);
    }
    if (j->items != &j->one)
        fdn_free(j->items);
    fdn_free(j->batch);
}

static int prepare_op(fdn_store *store, const fdn_store_op *op, work *w)
{
    if (op->key_len == 0 || op->kind < FDN_STORE_PUT || op->kind > FDN_STORE_EXPECT)
        return FDN_EINVAL;
    if (op->key_len > FDN_STORE_KEY_MAX || (op->kind == FDN_STORE_PUT && op->value_len > FDN_STORE_VALUE_MAX))
        return FDN_ETOOBIG;
    int rc = fdn_store_canon(store, op->key, op->key_len, &w->canon, &w->hash);
    if (rc != 0 || op->kind == FDN_STORE_EXPECT)
        return rc;
    fdn_record *r = &w->record;
    r->key = op->key;
    r->key_len = (uint32_t)op->key_len;
    r->value = zeros;
    if (op->kind == FDN_STORE_PUT) {
        r->type = FDN_RECORD_PUT;
        r->encoding = FDN_VALUE_ETF;
        r->flags = op->object ? FDN_RECORD_OBJECT : 0;
        r->value = op->value;
        r->value_len = (uint32_t)op->value_len;
        w->spare = fdn_entry_new(w->hash, w->canon.data, w->canon.len);
        if (w->spare == NULL)
            return FDN_ENOMEM;
    } else {
        r->type = FDN_RECORD_DELETE;
    }
    r->length = fdn_record_length(r->key_len, r->value_len);
    w->body = fdn_record_body_hash(r);
    return 0;
}

/* Lay out the inner records of a batch; only their headers wait for LSN and salt. */
static int prepare_batch(job *j, const fdn_store_op *ops)
{
    uint64_t total = 0;
    for (size_t i = 0; i < j->count; i++) {
        if (ops[i].kind == FDN_STORE_EXPECT)
            continue;
        j->items[i].offset = total;
        j->items[i].record.flags |= FDN_RECORD_INNER;
        total += j->items[i].record.length;
        if (total > FDN_RECORD_MAX)
            return FDN_ETOOBIG;
    }
    j->outer.type = FDN_RECORD_BATCH;
    j->outer.key = zeros;
    j->outer.value_len = (uint32_t)total;
    j->outer.length = fdn_record_length(0, total);
    if (j->outer.length > FDN_RECORD_MAX)
        return FDN_ETOOBIG;
    j->batch = fdn_calloc(1, total);
    if (j->batch == NULL)
        return FDN_ENOMEM;
    j->outer.value = j->batch;
    for (size_t i = 0; i < j->count; i++) {
        const fdn_record *r = &j->items[i].record;
        if (ops[i].kind == FDN_STORE_EXPECT)
            continue;
        uint8_t *to = j->batch + j->items[i].offset + FDN_RECORD_HEADER;
        memcpy(to, r->key, r->key_len);
        if (r->value_len > 0)
            memcpy(to + r->key_len, r->value, r->value_len);
    }
    return 0;
}

static int prepare(fdn_store *store, fdn_store_op *ops, size_t count, job *j)
{
    memset(j, 0, sizeof *j);
    j->items = &j->one;
    if (count > 1) {
        j->items = fdn_calloc(count, sizeof *j->items);
        if (j->items == NULL) {
            j->items = &j->one;
            return FDN_ENOMEM;
        }
    }
    for (size_t i = 0; i < count; i++) {
        fdn_codec_buf_init(&j->items[i].canon);
        j->count = i + 1;
        ops[i].lsn = 0;
        int rc = prepare_op(store, &ops[i], &j->items[i]);
        if (rc != 0)
            return rc;
        j->writes += ops[i].kind != FDN_STORE_EXPECT;
        j->puts |= ops[i].kind == FDN_STORE_PUT;
    }
    return j->writes > 1 ? prepare_batch(j, ops) : 0;
}

static fdn_entry *find_live(fdn_store *store, const work *w)
{
    fdn_entry *e = fdn_index_find(&store->index, w->hash, w->canon.data, w->canon.len);
    return e && !e->tombstone ? e : NULL;
}

/* Conditions hold for the table as it is before the write. Under log, which alone lets the index change. */
static int check(fdn_store *store, const fdn_store_op *ops, const job *j, fdn_store_result *result)
{
    for (size_t i = 0; i < j->count; i++) {
        if (ops[i].condition == FDN_STORE_ANY)
            continue;
        const fdn_entry *e = find_live(store, &j->items[i]);
        if (ops[i].condition == FDN_STORE_ABSENT ? e != NULL : e == NULL || e->lsn != ops[i].version) {
            result->conflict = i;
            result->absent = e == NULL;
            result->version = e ? e->lsn : 0;
            return FDN_ESTALE;
        }
    }
    return 0;
}

bool fdn_store_tombstone_needed(const fdn_store *store, const fdn_entry *entry)
{
    size_t lo = 0, hi = store->segment_count;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if (store->segments[mid]->header.number < entry->lowest)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo < store->segment_count && store->segments[lo]->header.number < entry->segment->header.number;
}

static void unplace(fdn_store *store, fdn_entry *entry)
{
    if (entry->segment == NULL)
        return;
    if (entry->tombstone) {
        entry->segment->tombs -= entry->length;
        store->index.tombstones--;
    } else {
        entry->segment->live -= entry->length;
    }
}

void fdn_store_settle(fdn_store *store, fdn_entry *entry, fdn_segment *segment, uint64_t offset, const fdn_record *record)
{
    unplace(store, entry);
    entry->segment = segment;
    entry->offset = offset;
    entry->lsn = record->lsn;
    entry->length = (uint32_t)record->length;
    entry->value_len = record->value_len;
    entry->tombstone = record->type == FDN_RECORD_DELETE;
    if (segment->header.number < entry->lowest)
        entry->lowest = segment->header.number;
    if (entry->tombstone) {
        segment->tombs += entry->length;
        store->index.tombstones++;
    } else {
        segment->live += entry->length;
    }
}

void fdn_store_forget(fdn_store *store, fdn_entry *entry)
{
    unplace(store, entry);
    fdn_index_remove(&store->index, entry);
}

static void publish(fdn_store *store, fdn_store_op *ops, job *j, fdn_segment *segment)
{
    pthread_rwlock_wrlock(&store->index_lock);
    for (size_t i = 0; i < j->count; i++) {
        work *w = &j->items[i];
        if (ops[i].kind == FDN_STORE_EXPECT)
            continue;
        fdn_entry *e = fdn_index_find(&store->index, w->hash, w->canon.data, w->canon.len);
        if (ops[i].kind == FDN_STORE_PUT) {
            if (e == NULL) {
                e = w->spare;
                w->spare = NULL;
                fdn_index_insert(&store->index, e);
            }
            ops[i].lsn = w->record.lsn;
        }
        if (e == NULL)
            continue; /* a delete of what was not there, in a batch */
        fdn_store_settle(store, e, segment, w->offset, &w->record);
        if (e->tombstone && !fdn_store_tombstone_needed(store, e))
            fdn_store_forget(store, e);
    }
    pthread_rwlock_unlock(&store->index_lock);
}

static int append_one(fdn_store *store, work *w)
{
    fdn_segment *active = fdn_store_active(store);
    fdn_record *r = &w->record;
    uint8_t head[FDN_RECORD_HEADER];
    r->lsn = store->next_lsn++;
    fdn_record_write_header(head, r, w->body, active->header.salt);
    struct iovec iov[4] = {{head, sizeof head},
                           {(void *)r->key, r->key_len},
                           {(void *)r->value, r->value_len},
                           {(void *)zeros, r->length - FDN_RECORD_HEADER - r->key_len - r->value_len}};
    return fdn_store_append(store, iov, 4, r->length, &w->offset);
}

static int append_batch(fdn_store *store, const fdn_store_op *ops, job *j)
{
    fdn_segment *active = fdn_store_active(store);
    uint8_t head[FDN_RECORD_HEADER];
    uint64_t at;
    j->outer.lsn = store->next_lsn++;
    for (size_t i = 0; i < j->count; i++) {
        work *w = &j->items[i];
        if (ops[i].kind == FDN_STORE_EXPECT)
            continue;
        w->record.lsn = store->next_lsn++;
        fdn_record_write_header(j->batch + w->offset, &w->record, w->body, active->header.salt);
    }
    fdn_record_write_header(head, &j->outer, fdn_record_body_hash(&j->outer), active->header.salt);
    struct iovec iov[2] = {{head, sizeof head}, {j->batch, j->outer.value_len}};
    int rc = fdn_store_append(store, iov, 2, j->outer.length, &at);
    for (size_t i = 0; i < j->count; i++)
        j->items[i].offset += at + FDN_RECORD_HEADER;
    return rc;
}

/* Under log. */
static int write_locked(fdn_store *store, fdn_store_op *ops, job *j, bool wait, fdn_store_result *result)
{
    int rc = fdn_store_writable(store);
    if (rc == 0)
        rc = check(store, ops, j, result);
    /* An answer that writes nothing stands on what others have written, and waits for that as for its own. */
    result->lsn = store->next_lsn - 1;
    if (rc != 0 || j->writes == 0)
        return rc;
    work *single = NULL;
    if (j->batch == NULL) {
        size_t i = 0;
        while (ops[i].kind == FDN_STORE_EXPECT)
            i++;
        single = &j->items[i];
        if (ops[i].kind == FDN_STORE_DELETE && find_live(store, single) == NULL)
            return 0;
    }
    uint64_t length = j->batch ? j->outer.length : single->record.length;
    rc = fdn_store_room(store, length, j->puts ? FDN_URGENCY_PUT : FDN_URGENCY_DELETE, wait);
    if (rc == 0)
        rc = j->batch ? append_batch(store, ops, j) : append_one(store, single);
    if (rc != 0)
        return rc;
    publish(store, ops, j, fdn_store_active(store));
    result->lsn = store->next_lsn - 1;
    return 0;
}

static bool lock_log(fdn_store *store, bool wait)
{
    if (wait) {
        pthread_mutex_lock(&store->log);
        return true;
    }
    for (int i = 0; i < SPINS; i++) {
        if (pthread_mutex_trylock(&store->log) == 0)
            return true;
        fdn_cpu_relax();
    }
    return false;
}

int fdn_store_write(fdn_store *store, fdn_store_op *ops, size_t count, bool wait, fdn_store_result *result)
{
    job j;
    memset(result, 0, sizeof *result);
    if (count == 0)
        return fdn_store_writable(store);
    int rc = prepare(store, ops, count, &j);
    while (rc == 0) {
        if (!lock_log(store, wait)) {
            rc = FDN_EBUSY;
            break;
        }
        rc = write_locked(store, ops, &j, wait, result);
        pthread_mutex_unlock(&store->log);
        if (!wait || (rc != FDN_EFULL && rc != ENOSPC && rc != EDQUOT))
            break;
        /* Each round removes a segment that had dead records, so this ends. */
        if (fdn_store_reclaim(store) != 0)
            break;
        rc = 0;
    }
    job_free(&j);
    return rc;
}

/* Pin the segment and say where the record is; the entry itself may change as soon as the lock is gone. */
static bool lock_index(fdn_store *store, bool wait)
{
    if (wait)
        return pthread_rwlock_rdlock(&store->index_lock) == 0;
    for (int i = 0; i < SPINS; i++) {
        if (pthread_rwlock_tryrdlock(&store->index_lock) == 0)
            return true;
        fdn_cpu_relax();
    }
    return false;
}

static int locate(fdn_store *store, const uint8_t *key, size_t key_len, bool wait, fdn_entry *at)
{
    fdn_codec_buf canon;
    uint64_t hash;
    int rc = fdn_store_canon(store, key, key_len, &canon, &hash);
    if (rc == 0 && !lock_index(store, wait))
        rc = FDN_EBUSY;
    else if (rc == 0) {
        const fdn_entry *e = fdn_index_find(&store->index, hash, canon.data, canon.len);
        if (atomic_load(&store->closed)) {
            rc = FDN_ECLOSED;
        } else if (e == NULL || e->tombstone) {
            rc = FDN_EUNKNOWN;
        } else {
            *at = *e;
            fdn_segment_pin(at->segment);
        }
        pthread_rwlock_unlock(&store->index_lock);
    }
    fdn_codec_buf_free(&canon);
    return rc;
}

int fdn_store_find(fdn_store *store, const uint8_t *key, size_t key_len, bool wait, uint64_t *lsn, size_t *len)
{
    fdn_entry at;
    int rc = locate(store, key, key_len, wait, &at);
    if (rc != 0)
        return rc;
    fdn_segment_unpin(at.segment);
    *lsn = at.lsn;
    *len = at.value_len;
    return 0;
}

/*
 * The record is copied first, and verified and used as the copy: whatever happens to the file meanwhile, what passes the checksum is
 * what is decoded.
 */
static int copy_record(const fdn_segment *segment, const fdn_entry *at, fdn_store_value *value)
{
    fdn_record record;
    value->buffer = value->inline_data;
    if (at->length > sizeof value->inline_data) {
        value->buffer = fdn_malloc(at->length);
        if (value->buffer == NULL) {
            value->buffer = value->inline_data;
            return FDN_ENOMEM;
        }
    }
    memcpy(value->buffer, segment->map + at->offset, at->length);
    if (fdn_record_parse(value->buffer, at->length, 0, segment->header.salt, &record) != FDN_PARSE_OK || record.lsn != at->lsn)
        return fdn_segment_faulted(segment) ? FDN_EFAULTED : FDN_ECORRUPT;
    value->lsn = record.lsn;
    value->object = (record.flags & FDN_RECORD_OBJECT) != 0;
    value->encoding = record.encoding;
    value->key = record.key;
    value->key_len = record.key_len;
    value->data = record.value;
    value->len = record.value_len;
    return 0;
}

int fdn_store_read(fdn_store *store, const uint8_t *key, size_t key_len, bool wait, size_t max_len, fdn_store_value *value)
{
    fdn_entry at;
    fdn_store_value_init(value);
    int rc = locate(store, key, key_len, wait, &at);
    if (rc != 0)
        return rc;
    value->len = at.value_len;
    rc = at.value_len > max_len ? FDN_ETOOBIG : copy_record(at.segment, &at, value);
    /* Reading goes on; writing into a file that somebody truncates does not. */
    if (rc == FDN_EFAULTED)
        fdn_store_fail(store, rc);
    fdn_segment_unpin(at.segment);
    return rc;
}

void fdn_store_value_free(fdn_store_value *value)
{
    if (value->buffer != value->inline_data)
        fdn_free(value->buffer);
    value->buffer = value->inline_data;
}

static uint64_t reverse(uint64_t v)
{
    v = (v >> 1 & 0x5555555555555555u) | (v & 0x5555555555555555u) << 1;
    v = (v >> 2 & 0x3333333333333333u) | (v & 0x3333333333333333u) << 2;
    v = (v >> 4 & 0x0f0f0f0f0f0f0f0fu) | (v & 0x0f0f0f0f0f0f0f0fu) << 4;
    return __builtin_bswap64(v);
}

/*
 * In the order of the bit-reversed hash. A bucket is a range of that order, and splitting it makes two ranges of one: whatever the
 * table does between two calls, the cursor stays a border between what was visited and what was not.
 */
int fdn_store_scan(fdn_store *store, uint64_t *cursor, size_t want, size_t *total, fdn_store_visit visit, void *context)
{
    fdn_entry *found = NULL;
    size_t n = 0, cap = 0;
    int rc = 0;
    *total = 0;
    pthread_rwlock_rdlock(&store->index_lock);
    fdn_index *index = &store->index;
    if (atomic_load(&store->closed))
        rc = FDN_ECLOSED;
    for (uint64_t r = *cursor; rc == 0;) {
        uint64_t hash = reverse(r), slot = hash & (2 * index->level - 1);
        bool whole = slot >= index->buckets || (slot < index->level && slot + index->level >= index->buckets);
        uint64_t b = slot < index->buckets ? slot : slot - index->level;
        unsigned bits = (unsigned)__builtin_ctzll(index->level) + (whole ? 0 : 1);
        for (const fdn_entry *e = *fdn_index_bucket(index, b); e && rc == 0; e = e->next) {
            if (e->tombstone)
                continue;
            if (n == cap) {
                size_t more = cap ? cap * 2 : want + 8;
                fdn_entry *list = fdn_realloc(found, more * sizeof *list);
                if (list == NULL) {
                    rc = FDN_ENOMEM;
                    break;
                }
                found = list;
                cap = more;
            }
            found[n++] = *e;
            fdn_segment_pin(e->segment);
        }
        r = ((r >> (64 - bits)) + 1) << (64 - bits);
        *cursor = r;
        if (r == 0 || n >= want)
            break;
    }
    pthread_rwlock_unlock(&store->index_lock);
    for (size_t i = 0; i < n; i++) {
        fdn_store_value value;
        fdn_store_value_init(&value);
        if (rc == 0)
            rc = copy_record(found[i].segment, &found[i], &value);
        if (rc == 0)
            rc = visit(context, &value);
        fdn_store_value_free(&value);
        fdn_segment_unpin(found[i].segment);
    }
    fdn_free(found);
    *total = n;
    return rc;
}

int fdn_store_failed(const fdn_store *store)
{
    return atomic_load(&store->failed);
}

void fdn_store_get_info(fdn_store *store, fdn_store_info *info)
{
    memset(info, 0, sizeof *info);
    pthread_mutex_lock(&store->log);
    pthread_mutex_lock(&store->sync);
    info->durable_lsn = store->durable_lsn;
    pthread_mutex_unlock(&store->sync);
    for (size_t i = 0; i < store->segment_count; i++) {
        fdn_segment *s = store->segments[i];
        info->live_bytes += s->live + s->tombs;
        info->used_bytes += s->end;
        if (fdn_segment_faulted(s))
            fdn_store_fail(store, FDN_EFAULTED);
    }
    info->keys = store->index.entries - store->index.tombstones;
    info->tombstones = store->index.tombstones;
    info->memory_bytes = store->index.bytes;
    info->disk_bytes = fdn_store_disk_bytes(store);
    info->segments = store->segment_count;
    info->lsn = store->next_lsn - 1;
    info->compactions = store->compactions;
    info->copied_bytes = store->copied_bytes;
    info->recovered_cut = store->recovered_cut;
    info->failed = atomic_load(&store->failed);
    info->closed = atomic_load(&store->closed);
    info->durability = store->durability;
    memcpy(info->uuid, store->uuid, sizeof info->uuid);
    pthread_mutex_unlock(&store->log);
}
