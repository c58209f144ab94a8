/* The table of keys: linear hashing over chunks of buckets, chained. */
#include <string.h>

#include "base/fdn_alloc.h"
#include "base/fdn_error.h"
#include "base/fdn_hash.h"
#include "engine/store_internal.h"

int fdn_store_canon(const fdn_store *store, const uint8_t *key, size_t len, fdn_codec_buf *buf, uint64_t *hash)
{
    fdn_codec_buf_init(buf);
    int rc = fdn_codec_key(key, len, store->zeros_equal, buf);
    if (rc == 0)
        *hash = fdn_hash_check(buf->data, buf->len, 0);
    return rc;
}

static bool add_chunk(fdn_index *index)
{
    if (index->chunk_count == index->chunk_cap) {
        size_t cap = index->chunk_cap ? index->chunk_cap * 2 : 16;
        fdn_entry ***chunks = fdn_realloc(index->chunks, cap * sizeof *chunks);
        if (chunks == NULL)
            return false;
        index->chunks = chunks;
        index->chunk_cap = cap;
    }
    fdn_entry **chunk = fdn_calloc(FDN_INDEX_CHUNK, sizeof *chunk);
    if (chunk == NULL)
        return false;
    index->chunks[index->chunk_count++] = chunk;
    index->bytes += FDN_INDEX_CHUNK * sizeof *chunk;
    return true;
}

int fdn_index_init(fdn_index *index)
{
    memset(index, 0, sizeof *index);
    if (!add_chunk(index)) {
        fdn_index_clear(index);
        return FDN_ENOMEM;
    }
    index->buckets = index->level = FDN_INDEX_CHUNK;
    return 0;
}

fdn_entry **fdn_index_bucket(const fdn_index *index, uint64_t n)
{
    return &index->chunks[n / FDN_INDEX_CHUNK][n % FDN_INDEX_CHUNK];
}

void fdn_index_clear(fdn_index *index)
{
    for (uint64_t n = 0; n < index->buckets; n++) {
        fdn_entry *next;
        for (fdn_entry *e = *fdn_index_bucket(index, n); e; e = next) {
            next = e->next;
            fdn_entry_free(e);
        }
    }
    for (size_t i = 0; i < index->chunk_count; i++)
        fdn_free(index->chunks[i]);
    fdn_free(index->chunks);
    memset(index, 0, sizeof *index);
}

static fdn_entry **bucket_of(const fdn_index *index, uint64_t hash)
{
    uint64_t n = hash & (2 * index->level - 1);
    return fdn_index_bucket(index, n < index->buckets ? n : n - index->level);
}

fdn_entry *fdn_index_find(const fdn_index *index, uint64_t hash, const uint8_t *canon, size_t len)
{
    if (index->buckets == 0)
        return NULL;
    for (fdn_entry *e = *bucket_of(index, hash); e; e = e->next) {
        if (e->hash == hash && e->canon_len == len && memcmp(e->bytes, canon, len) == 0)
            return e;
    }
    return NULL;
}

fdn_entry *fdn_entry_new(uint64_t hash, const uint8_t *canon, size_t len)
{
    fdn_entry *e = fdn_malloc(sizeof *e + len);
    if (e == NULL)
        return NULL;
    memset(e, 0, sizeof *e);
    e->hash = hash;
    e->lowest = UINT64_MAX;
    e->canon_len = (uint32_t)len;
    memcpy(e->bytes, canon, len);
    return e;
}

void fdn_entry_free(fdn_entry *entry)
{
    fdn_free(entry);
}

/* Move what belongs there from the bucket that is split to the new last one. */
static void split(fdn_index *index)
{
    if (index->buckets == index->chunk_count * FDN_INDEX_CHUNK && !add_chunk(index))
        return;
    uint64_t target = index->buckets;
    fdn_entry **from = fdn_index_bucket(index, target - index->level), **to = fdn_index_bucket(index, target);
    while (*from) {
        fdn_entry *e = *from;
        if ((e->hash & (2 * index->level - 1)) == target) {
            *from = e->next;
            e->next = *to;
            *to = e;
        } else {
            from = &e->next;
        }
    }
    if (++index->buckets == 2 * index->level)
        index->level *= 2;
}

void fdn_index_insert(fdn_index *index, fdn_entry *entry)
{
    fdn_entry **bucket = bucket_of(index, entry->hash);
    entry->next = *bucket;
    *bucket = entry;
    index->entries++;
    index->bytes += sizeof *entry + entry->canon_len;
    if (index->entries > index->buckets)
        split(index);
}

void fdn_index_remove(fdn_index *index, fdn_entry *entry)
{
    for (fdn_entry **at = bucket_of(index, entry->hash); *at; at = &(*at)->next) {
        if (*at == entry) {
            *at = entry->next;
            index->entries--;
            index->bytes -= sizeof *entry + entry->canon_len;
            fdn_entry_free(entry);
            return;
        }
    }
}
