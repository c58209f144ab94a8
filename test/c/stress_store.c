/*
 * Threads against one store, for TSan and for the order of table and log: writers of shared keys, a counter under a condition, readers,
 * scans, background work, flushes. At the end the reopened store must hold exactly what the living one did.
 */
#include <pthread.h>
#include <stdatomic.h>

#include "store_fixture.h"

#define WRITERS 3
#define READERS 2
#define KEYS 16
#define ROUNDS 1500
#define COUNTER 1000

static fdn_store *store;
static atomic_bool stop;
static atomic_uint counted;

static void *writer(void *arg)
{
    unsigned seed = (unsigned)(uintptr_t)arg * 7919u, id = (unsigned)(uintptr_t)arg;
    for (unsigned i = 0; i < ROUNDS; i++) {
        seed = seed * 1103515245u + 12345u;
        unsigned k = seed >> 8 & (KEYS - 1), what = seed >> 16 & 15;
        int rc = what == 0   ? erase(store, k, true)
                 : what == 1 ? put_two(store, k, (k + 1) % KEYS, (k + 2) % KEYS, id << 24 | i, 400)
                             : put(store, k, id << 24 | i, 400, what > 8, NULL);
        MUST(rc == 0 || (rc == FDN_EBUSY && what <= 8 && what > 1));
        if (what == 15)
            MUST(fdn_store_sync(store) == 0);
    }
    return NULL;
}

static int counter_visit(const fdn_store_value *value, unsigned *n)
{
    memcpy(n, value->data + 6, sizeof *n);
    return 0;
}

/* A counter incremented by read, then write on condition of the version read: no increment may get lost. */
static void *counter(void *arg)
{
    (void)arg;
    uint8_t k[32], v[32];
    size_t klen = key_term(k, COUNTER);
    for (unsigned done = 0; done < ROUNDS / 4;) {
        fdn_store_value value;
        fdn_store_result result;
        unsigned n = 0;
        fdn_store_op op = {.kind = FDN_STORE_PUT, .key = k, .key_len = klen, .value = v};
        int rc = fdn_store_read(store, k, klen, true, SIZE_MAX, &value);
        MUST(rc == 0 || rc == FDN_EUNKNOWN);
        if (rc == 0)
            counter_visit(&value, &n);
        op.condition = rc == 0 ? FDN_STORE_VERSION : FDN_STORE_ABSENT;
        op.version = rc == 0 ? value.lsn : 0;
        fdn_store_value_free(&value);
        n++;
        op.value_len = binary_term(v, &n, sizeof n);
        rc = fdn_store_write(store, &op, 1, true, &result);
        MUST(rc == 0 || rc == FDN_ESTALE);
        if (rc == 0) {
            done++;
            atomic_fetch_add(&counted, 1);
        }
    }
    return NULL;
}

/* Values of one write only: a reader must never see bytes of two. */
static int whole(void *context, const fdn_store_value *value)
{
    (void)context;
    unsigned n;
    if (value->len < 406)
        return 0;
    memcpy(&n, value->data + 6, sizeof n);
    size_t len;
    uint8_t *expected = value_term(n, 400, &len);
    MUST(len == value->len && memcmp(expected, value->data, len) == 0);
    free(expected);
    return 0;
}

static void *reader(void *arg)
{
    (void)arg;
    while (!atomic_load(&stop)) {
        uint64_t cursor = 0;
        size_t count;
        fdn_store_info info;
        for (unsigned k = 0; k < KEYS; k++) {
            fdn_store_value value;
            uint8_t key[32];
            int rc = fdn_store_read(store, key, key_term(key, k), true, SIZE_MAX, &value);
            MUST(rc == 0 || rc == FDN_EUNKNOWN);
            if (rc == 0)
                whole(NULL, &value);
            fdn_store_value_free(&value);
        }
        do
            MUST(fdn_store_scan(store, &cursor, 5, &count, whole, NULL) == 0);
        while (cursor != 0);
        fdn_store_get_info(store, &info);
        MUST(info.failed == 0);
    }
    return NULL;
}

static void *background(void *arg)
{
    (void)arg;
    bool more;
    while (!atomic_load(&stop))
        MUST(fdn_store_maintain(store, 20000, &more) == 0);
    return NULL;
}

static void round_of(const char *dir, int durability)
{
    fdn_store_options options = small_store(dir, durability);
    fdn_store_place place;
    fdn_store_info info;
    pthread_t w[WRITERS], c[2], r[READERS + 1];
    digest before, after;
    atomic_store(&stop, false);
    atomic_store(&counted, 0);
    MUST(fdn_store_open(&options, &store, &place) == 0);
    for (int i = 0; i < READERS; i++)
        pthread_create(&r[i], NULL, reader, NULL);
    pthread_create(&r[READERS], NULL, background, NULL);
    for (int i = 0; i < WRITERS; i++)
        pthread_create(&w[i], NULL, writer, (void *)(uintptr_t)(i + 1));
    for (int i = 0; i < 2; i++)
        pthread_create(&c[i], NULL, counter, NULL);
    for (int i = 0; i < WRITERS; i++)
        pthread_join(w[i], NULL);
    for (int i = 0; i < 2; i++)
        pthread_join(c[i], NULL);
    atomic_store(&stop, true);
    for (int i = 0; i <= READERS; i++)
        pthread_join(r[i], NULL);
    MUST(digest_of(store, &before) == 0);
    unsigned n = atomic_load(&counted);
    uint8_t k[32];
    fdn_store_value value;
    unsigned found;
    MUST(fdn_store_read(store, k, key_term(k, COUNTER), true, SIZE_MAX, &value) == 0);
    counter_visit(&value, &found);
    fdn_store_value_free(&value);
    MUST(found == n && n == 2 * (ROUNDS / 4));
    fdn_store_get_info(store, &info);
    MUST(info.compactions > 0);
    MUST(fdn_store_close(store) == 0);
    fdn_store_free(store);
    MUST(fdn_store_open(&options, &store, &place) == 0);
    MUST(digest_of(store, &after) == 0);
    MUST(same_digest(&before, &after));
    fdn_store_free(store);
    printf("   durability %d: %llu compactions, %u counted\n", durability, (unsigned long long)info.compactions, n);
}

/* Calls that race with a close end with an answer, and with nothing half done. */
static void *until_closed(void *arg)
{
    unsigned id = (unsigned)(uintptr_t)arg, i = 0;
    for (int rc = 0; rc != FDN_ECLOSED;) {
        bool equal;
        rc = put(store, id, ++i, 300, true, NULL);
        MUST(rc == 0 || rc == FDN_ECLOSED);
        int seen = holds(store, id, i, 300, &equal);
        MUST(seen == FDN_ECLOSED || (seen == 0 && equal));
        if (i % 50 == 0)
            (void)fdn_store_sync(store);
    }
    return NULL;
}

static void close_race(const char *dir)
{
    fdn_store_options options = small_store(dir, FDN_STORE_ASYNC);
    fdn_store_place place;
    for (int n = 0; n < 20; n++) {
        pthread_t t[3];
        bool more;
        MUST(fdn_store_open(&options, &store, &place) == 0);
        for (int i = 0; i < 3; i++)
            pthread_create(&t[i], NULL, until_closed, (void *)(uintptr_t)(2000 + i));
        for (int i = 0; i < n; i++)
            (void)fdn_store_maintain(store, 10000, &more);
        MUST(fdn_store_close(store) == 0);
        for (int i = 0; i < 3; i++)
            pthread_join(t[i], NULL);
        fdn_store_free(store);
    }
}

int main(void)
{
    char dir[64];
    fixture_begin();
    temp_dir(dir, sizeof dir);
    for (int durability = FDN_STORE_ASYNC; durability <= FDN_STORE_SYNC; durability++) {
        round_of(dir, durability);
        empty_dir(dir);
    }
    close_race(dir);
    fixture_end();
    return 0;
}
