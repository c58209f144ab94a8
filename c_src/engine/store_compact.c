/*
 * Compaction: copy what is live out of one sealed segment, then remove its file.
 *
 * A copy keeps its LSN, so recovery, which lets the highest LSN of a key win, does not care where a record lies. A tombstone is needed
 * while any file below its own may have an older record of its key (entry->lowest tells from where on); a tombstone that is not needed
 * goes with its file, together with whatever older records are in that same file. The file is removed only after everything written so
 * far is durable: the copies, and the newer records that made the others dead.
 */
#include <errno.h>
#include <string.h>

#include "base/fdn_error.h"
#include "engine/store_internal.h"

#define WRITE_BACK ((uint64_t)8 << 20) /* bytes that may wait for the disk in async mode; a rotation has to flush the rest */
#define SLACK ((uint64_t)1 << 20)      /* dead bytes that are not worth a copy */

static fdn_segment *by_number(fdn_store *store, uint64_t number)
{
    for (size_t i = 0; i + 1 < store->segment_count; i++) {
        if (store->segments[i]->header.number == number)
            return store->segments[i];
    }
    return NULL;
}

static uint64_t needed_bytes(const fdn_segment *segment)
{
    return segment->live + segment->tombs;
}

/* Whether more than half of what is sealed is dead, tombstones pile up, or there are many small files. Under log. */
static bool worth_it(fdn_store *store)
{
    uint64_t used = 0, needed = 0, tombs = 0;
    size_t sealed = store->segment_count - 1;
    for (size_t i = 0; i < sealed; i++) {
        used += store->segments[i]->end;
        needed += needed_bytes(store->segments[i]);
        tombs += store->segments[i]->tombs;
    }
    uint64_t slack = SLACK < store->segment_bytes ? SLACK : store->segment_bytes;
    return used > 2 * needed + slack || 2 * tombs > needed + slack || sealed > 16 + 2 * (needed / store->segment_bytes);
}

/*
 * A sealed segment without anything needed always goes. Otherwise, where it is worth it (or `pressed` for space): the one with the
 * smallest needed part; where tombstones pile up the oldest, whose removal lets them go; where files pile up the smallest.
 */
static fdn_segment *pick(fdn_store *store, bool pressed)
{
    fdn_segment *best = NULL;
    size_t sealed = store->segment_count - 1;
    bool worth = worth_it(store);
    uint64_t tombs = 0, needed = 0;
    for (size_t i = 0; i < sealed; i++) {
        fdn_segment *s = store->segments[i];
        tombs += s->tombs;
        needed += needed_bytes(s);
        if (s->damaged)
            continue;
        if (needed_bytes(s) == 0)
            return s;
        if (best == NULL || needed_bytes(s) * (best->end / 64) < needed_bytes(best) * (s->end / 64))
            best = s;
    }
    if (!worth && !pressed)
        return NULL;
    if (best && 2 * tombs > needed && !store->segments[0]->damaged)
        return store->segments[0];
    uint64_t dead = best ? best->end - needed_bytes(best) - FDN_SEGMENT_HEADER : 0;
    if (best && dead < best->end / 8) {
        if (pressed || sealed <= 16)
            return NULL;
        for (size_t i = 0; i < sealed; i++) {
            if (!store->segments[i]->damaged && store->segments[i]->end < best->end)
                best = store->segments[i];
        }
    }
    return best;
}

/* Under log: the entry that points to exactly this record. */
static fdn_entry *pointed_at(fdn_store *store, const fdn_segment *segment, uint64_t offset, uint64_t hash, const fdn_codec_buf *canon)
{
    fdn_entry *e = fdn_index_find(&store->index, hash, canon->data, canon->len);
    return e && e->segment == segment && e->offset == offset ? e : NULL;
}

static int append_copy(fdn_store *store, fdn_entry *e, fdn_record *record, uint64_t body)
{
    static const uint8_t zeros[8];
    uint8_t head[FDN_RECORD_HEADER];
    uint64_t offset;
    int rc = fdn_store_room(store, record->length, FDN_URGENCY_COPY, true);
    if (rc != 0)
        return rc;
    fdn_segment *active = fdn_store_active(store);
    record->flags = (uint8_t)((record->flags & ~FDN_RECORD_INNER) | FDN_RECORD_COPY);
    fdn_record_write_header(head, record, body, active->header.salt);
    struct iovec iov[4] = {{head, sizeof head},
                           {(void *)record->key, record->key_len},
                           {(void *)record->value, record->value_len},
                           {(void *)zeros, record->length - FDN_RECORD_HEADER - record->key_len - record->value_len}};
    rc = fdn_store_append(store, iov, 4, record->length, &offset);
    if (rc != 0)
        return rc;
    store->copied_bytes += record->length;
    pthread_rwlock_wrlock(&store->index_lock);
    fdn_store_settle(store, e, active, offset, record);
    pthread_rwlock_unlock(&store->index_lock);
    return 0;
}

/* One verified record of the victim. */
static int move_record(fdn_store *store, fdn_segment *victim, fdn_record *record, uint64_t offset)
{
    fdn_codec_buf canon;
    uint64_t hash, body = fdn_record_body_hash(record);
    int rc = fdn_store_canon(store, record->key, record->key_len, &canon, &hash);
    if (rc == 0) {
        pthread_mutex_lock(&store->log);
        rc = fdn_store_writable(store);
        fdn_entry *e = rc == 0 ? pointed_at(store, victim, offset, hash, &canon) : NULL;
        if (e && e->tombstone && !fdn_store_tombstone_needed(store, e)) {
            pthread_rwlock_wrlock(&store->index_lock);
            fdn_store_forget(store, e);
            pthread_rwlock_unlock(&store->index_lock);
        } else if (e) {
            rc = append_copy(store, e, record, body);
        }
        pthread_mutex_unlock(&store->log);
    }
    fdn_codec_buf_free(&canon);
    return rc;
}

static int move_batch(fdn_store *store, fdn_segment *victim, const fdn_record *batch, uint64_t offset)
{
    fdn_record inner;
    uint64_t inside = 0;
    int rc = 0;
    while (rc == 0) {
        uint64_t here = offset + FDN_RECORD_HEADER + inside;
        int parsed = fdn_record_parse_inner(batch, &inside, victim->header.salt, &inner);
        if (parsed == FDN_PARSE_END)
            break;
        rc = parsed == FDN_PARSE_OK ? move_record(store, victim, &inner, here) : FDN_ECORRUPT;
    }
    return rc;
}

/*
 * Copy from where the last call stopped. *done when the SEAL was reached. The victim is sealed and in the list until compaction itself
 * takes it out, so its bytes are read without a lock.
 */
static int move_some(fdn_store *store, fdn_segment *victim, size_t budget, bool *done)
{
    uint64_t from = store->victim_offset, start = store->copied_bytes;
    *done = false;
    while (!*done && store->copied_bytes - start < budget && store->victim_offset - from < 8 * budget) {
        fdn_record record;
        if (atomic_load(&store->closing))
            return FDN_ECLOSED;
        uint64_t at = store->victim_offset;
        int rc = FDN_ECORRUPT;
        if (fdn_record_parse(victim->map, victim->end, at, victim->header.salt, &record) == FDN_PARSE_OK) {
            uint64_t length = record.length;
            rc = 0;
            if (record.type == FDN_RECORD_PUT || record.type == FDN_RECORD_DELETE)
                rc = move_record(store, victim, &record, at);
            else if (record.type == FDN_RECORD_BATCH)
                rc = move_batch(store, victim, &record, at);
            else if (record.type == FDN_RECORD_SEAL)
                *done = true;
            at += length;
        }
        if (rc == FDN_ECORRUPT) {
            pthread_mutex_lock(&store->log);
            victim->damaged = true;
            pthread_mutex_unlock(&store->log);
        }
        if (rc != 0)
            return rc;
        store->victim_offset = at;
    }
    return 0;
}

static int remove_victim(fdn_store *store, fdn_segment *victim)
{
    int rc = fdn_store_sync(store);
    if (rc != 0)
        return rc;
    pthread_mutex_lock(&store->log);
    bool clean = needed_bytes(victim) == 0;
    pthread_mutex_unlock(&store->log);
    if (!clean)
        return FDN_ECORRUPT; /* the index points to what the scan did not meet; the file stays */
    /* The list may name a file that is gone, never the other way round: what decides about tombstones looks at the list. */
    rc = fdn_store_unlink(store, victim);
    if (rc != 0) {
        fdn_store_fail(store, rc);
        return FDN_EREADONLY;
    }
    pthread_mutex_lock(&store->log);
    size_t i = 0;
    while (store->segments[i] != victim)
        i++;
    memmove(store->segments + i, store->segments + i + 1, (store->segment_count - i - 1) * sizeof *store->segments);
    store->segment_count--;
    store->compactions++;
    pthread_mutex_unlock(&store->log);
    fdn_segment_unpin(victim);
    return 0;
}

/* Under maint. *removed: a segment is gone. *more: call again. */
static int step(fdn_store *store, size_t budget, bool pressed, bool *removed, bool *more)
{
    bool done = false;
    *removed = *more = false;
    pthread_mutex_lock(&store->log);
    int rc = fdn_store_writable(store);
    fdn_segment *victim = rc == 0 && store->victim ? by_number(store, store->victim) : NULL;
    if (rc == 0 && victim == NULL) {
        victim = pick(store, pressed);
        store->victim = victim ? victim->header.number : 0;
        store->victim_offset = FDN_SEGMENT_HEADER;
    }
    done = victim && needed_bytes(victim) == 0;
    pthread_mutex_unlock(&store->log);
    if (victim == NULL)
        return rc;
    if (!done)
        rc = move_some(store, victim, budget, &done);
    if (rc == 0 && done) {
        rc = remove_victim(store, victim);
        *removed = rc == 0;
    }
    if (rc != 0 || done)
        store->victim = 0;
    *more = rc == 0;
    return rc;
}

int fdn_store_reclaim(fdn_store *store)
{
    bool removed = false, more = true;
    pthread_mutex_lock(&store->maint);
    int rc = 0;
    while (rc == 0 && more && !removed && !atomic_load(&store->closing))
        rc = step(store, SIZE_MAX / 8, true, &removed, &more);
    pthread_mutex_unlock(&store->maint);
    return removed ? 0 : rc ? rc : FDN_EFULL;
}

int fdn_store_maintain(fdn_store *store, size_t budget, bool *more)
{
    bool removed;
    *more = false;
    pthread_mutex_lock(&store->log);
    int rc = fdn_store_writable(store);
    uint64_t end = 0, number = 0;
    if (rc == 0) {
        end = fdn_store_active(store)->end;
        number = fdn_store_active(store)->header.number;
    }
    pthread_mutex_lock(&store->sync);
    bool behind = rc == 0 && end > WRITE_BACK + (store->durable_number == number ? store->durable_offset : 0);
    pthread_mutex_unlock(&store->sync);
    pthread_mutex_unlock(&store->log);
    if (behind)
        rc = fdn_store_sync(store);
    if (rc != 0)
        return rc;
    pthread_mutex_lock(&store->maint);
    if (!atomic_load(&store->closing))
        rc = step(store, budget, false, &removed, more);
    pthread_mutex_unlock(&store->maint);
    return rc;
}
