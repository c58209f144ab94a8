/* Opening, creating, validating and letting go of a flag file. */
#include "shared/flag_map.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fdn_alloc.h"
#include "base/fdn_clock.h"
#include "base/fdn_error.h"
#include "base/fdn_file.h"
#include "base/fdn_guard.h"
#include "base/fdn_hash.h"
#include "shared/flag_map_private.h"

#define CHECKED_HEADER_BYTES offsetof(fdn_flag_header, checksum)

static uint64_t header_checksum(const fdn_flag_header *h)
{
    return fdn_hash_check(h, CHECKED_HEADER_BYTES, 0);
}

int fdn_flags_open_dir(const char *path, bool create, const char **base, int *dir)
{
    int rc = fdn_file_open_dir(path, create, base, dir);
    if (rc != 0)
        return rc;
    /* Whoever owns or may write the folder can put another file in the place of ours. */
    rc = fdn_file_check_dir(*dir);
    if (rc == 0 && create)
        rc = fdn_file_may_create(*dir);
    if (rc != 0)
        close(*dir);
    return rc;
}

/* ---- creating ---------------------------------------------------------------------------------------------------------------------
 */

static int fill_new(int fd, void *context)
{
    (void)context;
    fdn_flag_header *h = fdn_calloc(1, sizeof *h);
    if (h == NULL)
        return FDN_ENOMEM;
    memcpy(h->magic, FDN_FLAG_MAGIC, sizeof h->magic);
    h->format = FDN_FLAG_FORMAT;
    h->header_bytes = FDN_FLAG_HEADER_BYTES;
    fdn_random(h->uuid, sizeof h->uuid);
    h->uuid[6] = (uint8_t)((h->uuid[6] & 0x0f) | 0x40); /* RFC 9562: version 4 */
    h->uuid[8] = (uint8_t)((h->uuid[8] & 0x3f) | 0x80);
    h->created_ns = fdn_clock_wall_ns();
    h->flag_capacity = FDN_FLAG_CAPACITY;
    h->group_capacity = FDN_FLAG_GROUP_CAPACITY;
    h->file_bytes = fdn_flag_file_bytes(h->flag_capacity, h->group_capacity);
    h->checksum = header_checksum(h);
    int rc = fdn_file_allocate(fd, h->file_bytes);
    if (rc == 0)
        rc = fdn_file_write(fd, h, sizeof *h, 0);
    if (rc == 0 && fsync(fd) != 0)
        rc = fdn_errno();
    fdn_free(h);
    return rc;
}

/* ---- opening ----------------------------------------------------------------------------------------------------------------------
 */

/* What the header says against what the file is. Reads with pread: a short file must not be touched through a mapping. */
static int check_header(int fd, fdn_flag_header *h)
{
    struct stat st;
    if (fstat(fd, &st) != 0)
        return fdn_errno();
    memset(h, 0, sizeof *h);
    ssize_t n = pread(fd, h, sizeof *h, 0);
    if (n < 0)
        return fdn_errno();
    if ((size_t)n < sizeof h->magic || memcmp(h->magic, FDN_FLAG_MAGIC, sizeof h->magic) != 0)
        return FDN_EFOREIGN;
    if ((size_t)n < sizeof *h)
        return FDN_ECORRUPT;
    if (h->format != FDN_FLAG_FORMAT)
        return FDN_EVERSION;
    if (h->checksum != header_checksum(h) || h->header_bytes != FDN_FLAG_HEADER_BYTES)
        return FDN_ECORRUPT;
    if (h->flag_capacity == 0 || h->flag_capacity > FDN_FLAG_CAPACITY_MAX || h->flag_capacity % FDN_FLAG_CAPACITY_STEP != 0 ||
        h->group_capacity == 0 || h->group_capacity > FDN_FLAG_GROUPS_MAX)
        return FDN_ECORRUPT;
    if (h->file_bytes != fdn_flag_file_bytes(h->flag_capacity, h->group_capacity) || (uint64_t)st.st_size != h->file_bytes)
        return FDN_ECORRUPT;
    return 0;
}

static int map_file(fdn_flags *f, const fdn_flag_header *h)
{
    f->size = (size_t)h->file_bytes;
    f->flag_capacity = h->flag_capacity;
    f->group_capacity = h->group_capacity;
    memcpy(f->uuid, h->uuid, sizeof f->uuid);
    int prot = f->read_only ? PROT_READ : PROT_READ | PROT_WRITE;
    void *p = mmap(NULL, f->size, prot, MAP_SHARED, f->fd, 0);
    if (p == MAP_FAILED)
        return fdn_errno();
    f->base = p;
    f->guard = fdn_guard_add(p, f->size);
    if (f->guard < 0)
        return f->guard;
    f->header = p;
    f->values = (_Atomic uint64_t *)(void *)(f->base + fdn_flag_values_at());
    f->names = (fdn_flag_name *)(void *)(f->base + fdn_flag_names_at(f->flag_capacity));
    f->notes = (fdn_flag_note *)(void *)(f->base + fdn_flag_notes_at(f->flag_capacity));
    f->groups = (fdn_flag_group_record *)(void *)(f->base + fdn_flag_groups_at(f->flag_capacity));
    return 0;
}

int fdn_flags_open(fdn_flags **out, const char *path, unsigned mode)
{
    const char *base = NULL;
    fdn_flag_header *h = NULL;
    int dir = -1;
    *out = NULL;
    if (fdn_hash_init() != 0)
        return ENOSYS;
    int rc = fdn_guard_init();
    if (rc != 0)
        return rc;
    fdn_flags *f = fdn_calloc(1, sizeof *f + strlen(path) + 1);
    if (f == NULL)
        return FDN_ENOMEM;
    strcpy(f->path, path);
    f->fd = -1;
    f->guard = -1;
    f->read_only = (mode & FDN_FLAGS_READ_ONLY) != 0;
    bool create = (mode & FDN_FLAGS_CREATE) && !f->read_only;
    rc = fdn_flags_open_dir(path, false, &base, &dir);
    if (rc == ENOENT && create)
        rc = fdn_flags_open_dir(path, true, &base, &dir);
    if (rc != 0)
        goto fail;
    /* O_NONBLOCK: opening a FIFO must not hang. */
    int flags = (f->read_only ? O_RDONLY : O_RDWR) | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK;
    f->fd = openat(dir, base, flags);
    if (f->fd < 0 && errno == ENOENT && create) {
        close(dir);
        dir = -1;
        rc = fdn_flags_open_dir(path, true, &base, &dir);
        if (rc == 0)
            rc = fdn_file_create(dir, base, fill_new, NULL);
        if (rc == EEXIST) /* another process was faster, and its file is as good */
            rc = 0;
        if (rc != 0)
            goto fail;
        f->fd = openat(dir, base, flags);
    }
    if (f->fd < 0) {
        rc = errno == ENXIO ? FDN_EFOREIGN : fdn_errno();
        goto fail;
    }
    rc = fdn_file_check(f->fd);
    if (rc != 0)
        goto fail;
    h = fdn_malloc(sizeof *h);
    if (h == NULL) {
        rc = FDN_ENOMEM;
        goto fail;
    }
    rc = check_header(f->fd, h);
    if (rc == 0)
        rc = map_file(f, h);
    if (rc == 0)
        rc = fdn_flags_verify(f);
    if (rc != 0)
        goto fail;
    fdn_free(h);
    close(dir);
    *out = f;
    return 0;
fail:
    fdn_free(h);
    if (dir >= 0)
        close(dir);
    fdn_flags_close(f);
    return rc;
}

void fdn_flags_close(fdn_flags *f)
{
    if (f == NULL)
        return;
    fdn_guard_remove(f->guard);
    if (f->base)
        munmap(f->base, f->size);
    if (f->fd >= 0)
        close(f->fd);
    fdn_free(f);
}

/* MAP_FIXED replaces the pages in one step for every thread: a reader sees the file's words, or zeroes, and nothing else. */
static void zero_pages(fdn_flags *f)
{
    if (atomic_exchange(&f->detached, true))
        return;
    int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE;
    if (mmap(f->base, f->size, PROT_READ | PROT_WRITE, flags, -1, 0) == MAP_FAILED)
        atomic_store(&f->detached, false);
}

void fdn_flags_detach(fdn_flags *f)
{
    zero_pages(f);
    if (atomic_load(&f->detached)) {
        fdn_guard_remove(f->guard);
        f->guard = -1;
    }
}

bool fdn_flags_faulted(fdn_flags *f)
{
    if (atomic_load(&f->detached))
        return true;
    struct stat st;
    bool lost = fdn_guard_faulted(f->guard) || fstat(f->fd, &st) != 0 || (uint64_t)st.st_size < f->size ||
                memcmp(f->header->uuid, f->uuid, sizeof f->uuid) != 0;
    if (lost)
        zero_pages(f);
    return lost;
}

int fdn_flags_writable(const fdn_flags *f)
{
    if (f->read_only)
        return FDN_EREADONLY;
    return atomic_load(&f->detached) || fdn_guard_faulted(f->guard) ? FDN_EFAULTED : 0;
}

/* ---- about a map ------------------------------------------------------------------------------------------------------------------
 */

void fdn_flags_uuid(const fdn_flags *f, uint8_t out[16])
{
    memcpy(out, f->uuid, 16);
}

const char *fdn_flags_path(const fdn_flags *f)
{
    return f->path;
}

bool fdn_flags_read_only(const fdn_flags *f)
{
    return f->read_only;
}

uint32_t fdn_flags_capacity(const fdn_flags *f)
{
    return f->flag_capacity;
}

uint32_t fdn_flags_group_capacity(const fdn_flags *f)
{
    return f->group_capacity;
}

bool fdn_flags_same_file(const fdn_flags *f, const char *path)
{
    struct stat ours, theirs;
    return fstat(f->fd, &ours) == 0 && stat(path, &theirs) == 0 && ours.st_dev == theirs.st_dev && ours.st_ino == theirs.st_ino;
}

int fdn_flags_sync(fdn_flags *f)
{
    int rc = fdn_flags_writable(f);
    if (rc != 0)
        return rc;
    return msync(f->base, f->size, MS_SYNC) == 0 ? 0 : fdn_errno();
}
