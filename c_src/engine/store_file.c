/* Segment files: create, map, write, flush, remove; the directory and its lock. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fdn_alloc.h"
#include "base/fdn_clock.h"
#include "base/fdn_error.h"
#include "base/fdn_file.h"
#include "base/fdn_guard.h"
#include "base/fdn_hash.h"
#include "engine/store_internal.h"

#define NAME_FORMAT "seg-%016llx.fdn"
#define NAME_BYTES 32
#define TEMPORARY "new-segment.tmp"
#define LOCK_NAME "lock"
#define IOV_CHUNK 64

static void segment_free(fdn_segment *segment)
{
    if (segment == NULL)
        return;
    if (segment->map) {
        fdn_guard_remove(segment->guard);
        munmap(segment->map, segment->map_size);
    }
    if (segment->fd >= 0)
        close(segment->fd);
    fdn_free(segment->path);
    fdn_free(segment);
}

static fdn_segment *segment_new(const fdn_store *store, const char *name)
{
    fdn_segment *segment = fdn_calloc(1, sizeof *segment);
    size_t size = strlen(store->path) + strlen(name) + 2;
    char *path = fdn_malloc(size);
    if (segment == NULL || path == NULL) {
        fdn_free(segment);
        fdn_free(path);
        return NULL;
    }
    snprintf(path, size, "%s/%s", store->path, name);
    atomic_init(&segment->pins, 1);
    segment->path = path;
    segment->fd = -1;
    segment->guard = -1;
    return segment;
}

static const char *name_of(const fdn_segment *segment)
{
    return strrchr(segment->path, '/') + 1;
}

static int map(fdn_segment *segment, uint64_t size, bool writable)
{
    void *p = mmap(NULL, size, writable ? PROT_READ | PROT_WRITE : PROT_READ, MAP_SHARED, segment->fd, 0);
    if (p == MAP_FAILED)
        return errno;
    int slot = fdn_guard_add(p, size);
    if (slot < 0) {
        munmap(p, size);
        return slot;
    }
    segment->map = p;
    segment->map_size = size;
    segment->guard = slot;
    segment->mapped_writes = writable;
    return 0;
}

/*
 * The file gets its blocks, its header and its durable size under a temporary name; publish gives it its own. So a file with a
 * segment's name is whole, and shorter than its capacity only where somebody cut it.
 */
int fdn_segment_create(fdn_store *store, uint64_t number, uint64_t capacity, uint64_t first_lsn, fdn_segment **out)
{
    char name[NAME_BYTES];
    uint8_t *page = fdn_malloc(FDN_SEGMENT_HEADER);
    snprintf(name, sizeof name, NAME_FORMAT, (unsigned long long)number);
    fdn_segment *segment = page ? segment_new(store, name) : NULL;
    if (segment == NULL) {
        fdn_free(page);
        return FDN_ENOMEM;
    }
    fdn_segment_header *h = &segment->header;
    memcpy(h->uuid, store->uuid, sizeof h->uuid);
    memcpy(h->boot, store->boot, sizeof h->boot);
    h->number = number;
    h->capacity = capacity;
    h->first_lsn = first_lsn;
    h->created_ms = fdn_clock_wall_ns() / FDN_NS_PER_MS;
    fdn_random(&h->salt, sizeof h->salt);
    fdn_segment_write_header(page, h);
    (void)unlinkat(store->dir_fd, TEMPORARY, 0);
    segment->fd = openat(store->dir_fd, TEMPORARY, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    int rc = segment->fd < 0 ? errno : fdn_file_allocate(segment->fd, capacity);
    if (rc == 0)
        rc = fdn_file_write(segment->fd, page, FDN_SEGMENT_HEADER, 0);
    if (rc == 0 && fsync(segment->fd) != 0)
        rc = errno;
    if (rc == 0)
        rc = map(segment, capacity, store->durability != FDN_STORE_SYNC);
    fdn_free(page);
    if (rc != 0) {
        fdn_segment_discard(store, segment);
        return rc;
    }
    segment->end = FDN_SEGMENT_HEADER;
    segment->file_bytes = capacity;
    *out = segment;
    return 0;
}

int fdn_segment_publish(fdn_store *store, fdn_segment *segment)
{
    if (renameat(store->dir_fd, TEMPORARY, store->dir_fd, name_of(segment)) != 0)
        return errno;
    return fsync(store->dir_fd) == 0 ? 0 : errno;
}

void fdn_segment_discard(fdn_store *store, fdn_segment *segment)
{
    if (segment->fd >= 0)
        (void)unlinkat(store->dir_fd, TEMPORARY, 0);
    segment_free(segment);
}

int fdn_segment_open(fdn_store *store, const char *name, fdn_segment **out, fdn_store_place *place)
{
    struct stat st;
    uint8_t *page = fdn_calloc(1, FDN_SEGMENT_HEADER);
    fdn_segment *segment = page ? segment_new(store, name) : NULL;
    int rc = 0;
    if (segment == NULL) {
        rc = FDN_ENOMEM;
        goto done;
    }
    snprintf(place->path, sizeof place->path, "%s", segment->path);
    place->offset = 0;
    segment->fd = openat(store->dir_fd, name, O_RDWR | O_CLOEXEC);
    if (segment->fd < 0 || fstat(segment->fd, &st) != 0) {
        rc = errno;
        goto done;
    }
    ssize_t got = S_ISREG(st.st_mode) ? pread(segment->fd, page, FDN_SEGMENT_HEADER, 0) : 0;
    rc = got < 0 ? errno : fdn_segment_parse_header(page, (size_t)got, &segment->header);
    if (rc == 0) {
        char expected[NAME_BYTES];
        snprintf(expected, sizeof expected, NAME_FORMAT, (unsigned long long)segment->header.number);
        if (strcmp(expected, name) != 0)
            rc = FDN_EFOREIGN;
    }
    if (rc == 0)
        rc = map(segment, (uint64_t)st.st_size, false);
    if (rc == 0)
        segment->file_bytes = (uint64_t)st.st_size;
done:
    fdn_free(page);
    if (rc == 0)
        *out = segment;
    else
        segment_free(segment);
    return rc;
}

void fdn_segment_pin(fdn_segment *segment)
{
    atomic_fetch_add_explicit(&segment->pins, 1, memory_order_relaxed);
}

void fdn_segment_unpin(fdn_segment *segment)
{
    if (atomic_fetch_sub_explicit(&segment->pins, 1, memory_order_acq_rel) == 1)
        segment_free(segment);
}

int fdn_segment_faulted(const fdn_segment *segment)
{
    return fdn_guard_faulted(segment->guard) ? FDN_EFAULTED : 0;
}

/* Through the file descriptor. The first word goes in a write of its own, after the rest. */
static int emit_file(fdn_segment *segment, uint64_t offset, const struct iovec *iov, int count)
{
    struct iovec part[IOV_CHUNK];
    uint64_t at = offset + 8;
    size_t skip = 8;
    int i = 0;
    while (i < count) {
        int n = 0;
        for (int j = i; j < count && n < IOV_CHUNK; j++, n++) {
            size_t cut = n == 0 ? skip : 0;
            part[n].iov_base = (uint8_t *)iov[j].iov_base + cut;
            part[n].iov_len = iov[j].iov_len - cut;
        }
        ssize_t done = pwritev(segment->fd, part, n, (off_t)at);
        if (done < 0 && errno == EINTR)
            continue;
        if (done < 0)
            return errno;
        at += (uint64_t)done;
        size_t left = (size_t)done + skip;
        if (done == 0) {
            /* Only empty parts are allowed to write nothing. */
            for (int j = 0; j < n; j++) {
                if (part[j].iov_len > 0)
                    return EIO;
            }
        }
        while (i < count && left >= iov[i].iov_len) {
            left -= iov[i].iov_len;
            i++;
        }
        skip = left;
    }
    return fdn_file_write(segment->fd, iov[0].iov_base, 8, offset);
}

int fdn_segment_emit(fdn_segment *segment, uint64_t offset, const struct iovec *iov, int count)
{
    if (!segment->mapped_writes)
        return emit_file(segment, offset, iov, count);
    uint8_t *to = segment->map + offset + 8;
    memcpy(to, (const uint8_t *)iov[0].iov_base + 8, iov[0].iov_len - 8);
    to += iov[0].iov_len - 8;
    for (int i = 1; i < count; i++) {
        if (iov[i].iov_len > 0)
            memcpy(to, iov[i].iov_base, iov[i].iov_len);
        to += iov[i].iov_len;
    }
    uint64_t word;
    memcpy(&word, iov[0].iov_base, 8);
    /* Release: in the program's order the word comes last, which is the order a killed process leaves in the page cache. */
    atomic_store_explicit((_Atomic uint64_t *)(void *)(segment->map + offset), word, memory_order_release);
    return fdn_segment_faulted(segment);
}

int fdn_segment_flush(fdn_segment *segment, uint64_t from, uint64_t to)
{
    struct stat st;
    /* Writes through the descriptor do not fault where somebody has cut the file: they leave a hole. */
    if (fstat(segment->fd, &st) != 0)
        return fdn_errno();
    if ((uint64_t)st.st_size < atomic_load(&segment->file_bytes))
        return FDN_EFAULTED;
    if (!segment->mapped_writes)
        return fdatasync(segment->fd) == 0 ? 0 : errno;
    uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
    from &= ~(page - 1);
    if (to > from && msync(segment->map + from, to - from, MS_SYNC) != 0)
        return errno;
    return fdn_segment_faulted(segment);
}

int fdn_segment_trim(fdn_segment *segment, uint64_t end)
{
    /* In this order: a flush at the same time must not take the cut for somebody else's. */
    uint64_t before = atomic_exchange(&segment->file_bytes, end);
    if (ftruncate(segment->fd, (off_t)end) == 0)
        return 0;
    int rc = fdn_errno();
    atomic_store(&segment->file_bytes, before);
    return rc;
}

int fdn_store_unlink(fdn_store *store, fdn_segment *segment)
{
    if (unlinkat(store->dir_fd, name_of(segment), 0) != 0)
        return errno;
    return fsync(store->dir_fd) == 0 ? 0 : errno;
}

int fdn_store_lock(fdn_store *store, fdn_store_place *place)
{
    char text[32] = {0};
    /* The directory is locked too, where the file system can do that: files called "lock" get tidied away. */
    bool held = flock(store->dir_fd, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK;
    int fd = openat(store->dir_fd, LOCK_NAME, held ? O_RDONLY | O_CLOEXEC : O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    snprintf(place->path, sizeof place->path, "%s/%s", store->path, LOCK_NAME);
    if (fd < 0)
        return held ? FDN_ELOCKED : fdn_errno();
    if (held || flock(fd, LOCK_EX | LOCK_NB) != 0) {
        int rc = held || errno == EWOULDBLOCK ? FDN_ELOCKED : fdn_errno();
        if (pread(fd, text, sizeof text - 1, 0) > 0)
            place->pid = strtol(text, NULL, 10);
        close(fd);
        return rc;
    }
    int len = snprintf(text, sizeof text, "%-20ld\n", (long)getpid());
    int rc = fdn_file_write(fd, text, (size_t)len, 0);
    if (rc != 0) {
        close(fd);
        return rc;
    }
    store->lock_fd = fd;
    return 0;
}

static bool segment_name(const char *name)
{
    size_t len = strlen(name);
    return len == 24 && strncmp(name, "seg-", 4) == 0 && strcmp(name + 20, ".fdn") == 0 && strspn(name + 4, "0123456789abcdef") == 16;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

void fdn_store_list_free(char **names, size_t count)
{
    while (count-- > 0)
        fdn_free(names[count]);
    fdn_free(names);
}

int fdn_store_list(fdn_store *store, char ***names, size_t *count, fdn_store_place *place)
{
    char **list = NULL;
    size_t n = 0, cap = 0;
    int rc = 0;
    snprintf(place->path, sizeof place->path, "%s", store->path);
    DIR *dir = opendir(store->path);
    if (dir == NULL)
        return errno;
    for (;;) {
        errno = 0;
        struct dirent *entry = readdir(dir);
        if (entry == NULL) {
            rc = errno;
            break;
        }
        if (!segment_name(entry->d_name))
            continue;
        if (n == cap) {
            char **more = fdn_realloc(list, (cap ? cap * 2 : 16) * sizeof *list);
            if (more == NULL) {
                rc = FDN_ENOMEM;
                break;
            }
            list = more;
            cap = cap ? cap * 2 : 16;
        }
        char *copy = fdn_malloc(NAME_BYTES);
        if (copy == NULL) {
            rc = FDN_ENOMEM;
            break;
        }
        memcpy(copy, entry->d_name, strlen(entry->d_name) + 1);
        list[n++] = copy;
    }
    closedir(dir);
    if (rc != 0) {
        fdn_store_list_free(list, n);
        return rc;
    }
    if (n > 1)
        qsort(list, n, sizeof *list, by_name);
    *names = list;
    *count = n;
    return 0;
}
