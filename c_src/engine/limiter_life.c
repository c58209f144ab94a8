/*
 * limiter_life.c - the life of a table: how it is made, in memory or over a file, and taken apart, its manual clock, and its figures.
 */
#include <string.h>
#include <sys/mman.h>

#include "base/fdn_alloc.h"
#include "base/fdn_error.h"
#include "engine/limiter_file.h"
#include "engine/limiter_table.h"

/* From this many ticks of the coarse clock on, the tick is small beside the time a full budget takes to come back. */
#define COARSE_TICKS 250

static fdn_limiter_fit check(const fdn_limiter_config *config, fdn_limiter_rule *preset)
{
    *preset = (fdn_limiter_rule){0};
    if (config->algorithm > FDN_LIMITER_LEASE || config->on_full > FDN_LIMITER_ALLOW || config->clock > FDN_LIMITER_MANUAL)
        return FDN_LIMITER_BAD_ALGORITHM;
    if (config->capacity == 0 || config->capacity > FDN_LIMITER_MAX_CAPACITY)
        return FDN_LIMITER_BAD_CAPACITY;
    if (config->period_ms == 0)
        return config->limit == 0 && config->burst == 0 ? FDN_LIMITER_FITS : FDN_LIMITER_BAD_PERIOD;
    return fdn_limiter_rule_make((fdn_limiter_algorithm)config->algorithm, config->limit, config->period_ms, config->burst, preset);
}

/*
 * A table between these sizes (131072 to 8 million keys) gets its memory at once, in huge pages: a key that is not in the cache is
 * found without a walk through the page tables, which takes about as long as the memory itself. At once, because a hit that is the
 * first to touch a huge page would wait up to milliseconds for it to be cleared. Where the system cannot do both, ordinary pages are
 * taken from it as they are first touched; so are those of smaller tables, for which it makes no difference, and of larger ones, which
 * may be meant never to be filled.
 */
#define HUGE_FROM ((size_t)4 << 20)
#define HUGE_TO ((size_t)256 << 20)

static void take_huge_pages(void *p, size_t bytes)
{
#if defined(MADV_HUGEPAGE) && defined(MADV_POPULATE_WRITE)
    if (bytes >= HUGE_FROM && bytes <= HUGE_TO && madvise(p, bytes, MADV_HUGEPAGE) == 0 && madvise(p, bytes, MADV_POPULATE_WRITE) != 0)
        (void)madvise(p, bytes, MADV_NOHUGEPAGE);
#else
    (void)p;
    (void)bytes;
#endif
}

/* Zeroed pages. */
static void *map_pages(size_t bytes)
{
    if (fdn_alloc_fails())
        return NULL;
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED)
        return NULL;
    take_huge_pages(p, bytes);
    return p;
}

static void set_clock(fdn_limiter *t)
{
    uint64_t tick = fdn_clock_coarse_resolution_ns();
    t->tick_ms = (tick + FDN_NS_PER_MS - 1) / FDN_NS_PER_MS;
    t->coarse_from_ms = t->tick_ms * COARSE_TICKS;
    uint64_t whole_ms = t->algorithm == FDN_LIMITER_GCRA ? t->preset.span / (16 * FDN_NS_PER_MS) : t->preset.period_ms;
    t->preset_coarse = t->clock == FDN_LIMITER_COARSE || (t->clock == FDN_LIMITER_AUTO && whole_ms >= t->coarse_from_ms);
    /* The coarse clock is never ahead of the precise one, so neither reads less than the epoch. */
    t->epoch_ns = fdn_clock_coarse_ns();
}

/* A checked table without its buckets. NULL: no memory. */
static fdn_limiter *allocate(const fdn_limiter_config *config, const fdn_limiter_rule *preset, size_t table)
{
    /* Room to be aligned to a cache line by hand: the allocator promises 16 bytes. */
    char *block = fdn_calloc(1, sizeof(fdn_limiter) + FDN_CACHE_LINE);
    if (block == NULL)
        return NULL;
    fdn_limiter *t = (fdn_limiter *)(((uintptr_t)block + FDN_CACHE_LINE - 1) & ~(uintptr_t)(FDN_CACHE_LINE - 1));
    t->mapped = table + FDN_LIMITER_LANES * sizeof(fdn_limiter_counters);
    t->mapping = map_pages(t->mapped);
    if (t->mapping == NULL) {
        fdn_free(block);
        return NULL;
    }
    t->lanes = (fdn_limiter_counters *)((char *)t->mapping + table);
    t->config = *config;
    t->algorithm = (fdn_limiter_algorithm)config->algorithm;
    t->clock = (fdn_limiter_clock)config->clock;
    t->preset = *preset;
    t->bucket_count = fdn_limiter_buckets_for(config->capacity);
    set_clock(t);
    for (int i = 0; i < FDN_LIMITER_STRIPES; i++)
        pthread_mutex_init(&t->stripes[i].lock, NULL);
    t->block = block;
    return t;
}

int fdn_limiter_create(const fdn_limiter_config *config, fdn_limiter **out, fdn_limiter_fit *fit)
{
    fdn_limiter_rule preset;
    *out = NULL;
    *fit = check(config, &preset);
    if (*fit != FDN_LIMITER_FITS)
        return FDN_EINVAL;
    fdn_limiter *t = allocate(config, &preset, fdn_limiter_buckets_for(config->capacity) * sizeof(fdn_limiter_bucket));
    if (t == NULL)
        return FDN_ENOMEM;
    t->buckets = t->mapping;
    *out = t;
    return 0;
}

int fdn_limiter_open(const fdn_limiter_config *config, const char *path, const fdn_limiter_moment *at, fdn_limiter **out,
                     fdn_limiter_fit *fit, fdn_limiter_opening *why)
{
    fdn_limiter_rule preset;
    *out = NULL;
    *why = (fdn_limiter_opening){0};
    *fit = config->algorithm == FDN_LIMITER_LEASE ? FDN_LIMITER_BAD_ALGORITHM : check(config, &preset); /* a lease ends with its node */
    if (*fit != FDN_LIMITER_FITS)
        return FDN_EINVAL;
    fdn_limiter *t = allocate(config, &preset, 0);
    if (t == NULL)
        return FDN_ENOMEM;
    int rc = fdn_limiter_file_open(path, config, at, &t->file, why);
    if (rc != 0) {
        fdn_limiter_destroy(t);
        return rc;
    }
    fdn_limiter_file_view view = fdn_limiter_file_look(t->file);
    t->buckets = view.buckets;
    t->epoch_ns = view.epoch_ns;
    atomic_store(&t->manual_ns, view.now_ns);
    memcpy(t->secret.binaries, view.identity->binaries, sizeof t->secret.binaries);
    memcpy(t->secret.terms, view.identity->terms, sizeof t->secret.terms);
    t->secret.lasting = true;
    t->dropped = why->dropped;
    *out = t;
    return 0;
}

void fdn_limiter_destroy(fdn_limiter *t)
{
    if (t == NULL)
        return;
    fdn_limiter_destroy(t->leases);
    fdn_limiter_file_close(t->file, NULL, atomic_load(&t->manual_ns), t->discard);
    for (int i = 0; i < FDN_LIMITER_STRIPES; i++)
        pthread_mutex_destroy(&t->stripes[i].lock);
    munmap(t->mapping, t->mapped);
    fdn_free(t->block);
}

void fdn_limiter_discard(fdn_limiter *t)
{
    atomic_store(&t->discard, true);
}

const char *fdn_limiter_path(const fdn_limiter *t)
{
    return t->file != NULL ? fdn_limiter_file_look(t->file).path : NULL;
}

uint64_t fdn_limiter_dropped(const fdn_limiter *t)
{
    return t->dropped;
}

int fdn_limiter_look_after(fdn_limiter *t)
{
    if (t->file == NULL)
        return 0;
    int rc = fdn_limiter_file_check(t->file);
    int written = rc != FDN_EFAULTED ? fdn_limiter_file_stamp(t->file, NULL, atomic_load(&t->manual_ns)) : 0;
    return rc != 0 ? rc : written;
}

int fdn_limiter_advance(fdn_limiter *t, uint64_t ms)
{
    if (t->clock != FDN_LIMITER_MANUAL)
        return FDN_EINVAL;
    /* Leases first: a window must not begin while what was lent in the last one is good. */
    if (t->leases != NULL) {
        int rc = fdn_limiter_advance(t->leases, ms);
        if (rc != 0)
            return rc;
    }
    uint64_t now = atomic_load(&t->manual_ns), end = FDN_LIMITER_MAX_NOW_NS;
    if (t->algorithm == FDN_LIMITER_SLIDING_WINDOW)
        end = FDN_LIMITER_MAX_SLIDING_NOW_MS * FDN_NS_PER_MS;
    do {
        if (ms > (end - now) / FDN_NS_PER_MS)
            return FDN_ETOOBIG;
    } while (!atomic_compare_exchange_strong(&t->manual_ns, &now, now + ms * FDN_NS_PER_MS));
    if (t->file != NULL && !fdn_limiter_file_lost(t->file))
        (void)fdn_limiter_file_stamp(t->file, NULL, now + ms * FDN_NS_PER_MS);
    return 0;
}

void fdn_limiter_stats_of(fdn_limiter *t, fdn_limiter_stats *out)
{
    uint64_t now = fdn_limiter_read_clock(t, t->preset_coarse);
    uint64_t judged = fdn_limiter_recycling_clock(t, now);
    *out = (fdn_limiter_stats){.slots = t->bucket_count * FDN_LIMITER_SLOTS,
                               .bytes = t->bucket_count * sizeof(fdn_limiter_bucket) + sizeof *t,
                               .now_ms = now / FDN_NS_PER_MS,
                               .coarse = t->clock == FDN_LIMITER_AUTO ? t->preset_coarse : t->clock == FDN_LIMITER_COARSE,
                               .disk_bytes = t->file != NULL ? fdn_limiter_file_look(t->file).bytes : 0,
                               .faulted = t->file != NULL && fdn_limiter_file_check(t->file) == FDN_EFAULTED};
    for (uint64_t i = 0; i < t->bucket_count; i++) {
        for (int j = 0; j < FDN_LIMITER_SLOTS; j++) {
            uint64_t state = atomic_load(&t->buckets[i].state[j]);
            out->live += state != FDN_LIMITER_BUSY && !fdn_limiter_expired(t->algorithm, state, judged);
        }
    }
    for (unsigned i = 0; i < FDN_LIMITER_LANES; i++) {
        uint64_t allowed = atomic_load_explicit(&t->lanes[i].allowed, memory_order_relaxed);
        uint64_t denied = atomic_load_explicit(&t->lanes[i].denied, memory_order_relaxed);
        out->allowed += allowed;
        out->denied += denied;
        out->bytes += allowed | denied ? sizeof(fdn_limiter_counters) : 0;
    }
    for (int i = 0; i < FDN_LIMITER_STRIPES; i++) {
        out->full += atomic_load_explicit(&t->stripes[i].full, memory_order_relaxed);
        out->evicted += atomic_load_explicit(&t->stripes[i].evicted, memory_order_relaxed);
    }
    if (t->leases != NULL) {
        fdn_limiter_stats lent;
        fdn_limiter_stats_of(t->leases, &lent);
        out->allowed += lent.allowed;
        out->denied += lent.denied;
        out->bytes += lent.bytes;
    }
}
