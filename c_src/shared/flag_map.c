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

/* ---- owner and mode ------------------------------------------------------------------------------------------------------------- */

/* Root may work on what belongs to another user. */
static int check_owner_and_mode(const struct stat *st)
{
    uid_t me = geteuid();
    if (st->st_uid != me && me != 0)
        return FDN_EOWNER;
    return (st->st_mode & (S_IWGRP | S_IWOTH)) ? FDN_EMODE : 0;
}

int fdn_flags_check_file(int fd)
{
    struct stat st;
    if (fstat(fd, &st) != 0)
        return fdn_errno();
    if (!S_ISREG(st.st_mode))
        return FDN_EFOREIGN;
    return check_owner_and_mode(&st);
}

int fdn_flags_open_dir(const char *path, bool create, const char **base, int *dir)
{
    const char *slash = strrchr(path, '/');
    char name[4096];
    size_t n = slash ? (size_t)(slash - path) : 0;
    if (n >= sizeof name)
        return ENAMETOOLONG;
    *base = slash ? slash + 1 : path;
    if (**base == '\0')
        return EISDIR;
    if (slash == NULL)
        strcpy(name, ".");
    else if (n == 0)
        strcpy(name, "/");
    else {
        memcpy(name, path, n);
        name[n] = '\0';
    }
    int fd = open(name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 && errno == ENOENT && create) {
        if (mkdir(name, 0700) != 0 && errno != EEXIST)
            return fdn_errno();
        fd = open(name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    }
    if (fd < 0)
        return fdn_errno();
    struct stat st;
    int rc = fstat(fd, &st) != 0 ? fdn_errno() : 0;
    /* Whoever owns or may write the folder can put another file in the place of ours. A folder of root's is trusted. */
    if (rc == 0 && st.st_uid != 0)
        rc = check_owner_and_mode(&st);
    else if (rc == 0 && (st.st_mode & (S_IWGRP | S_IWOTH)))
        rc = FDN_EMODE;
    if (rc == 0 && create && geteuid() == 0 && st.st_uid != 0)
        rc = FDN_EOWNER;
    if (rc != 0) {
        close(fd);
        return rc;
    }
    *dir = fd;
    return 0;
}

/* ---- creating ---------------------------------------------------------------------------------------------------------------------
 */

static int write_all(int fd, const void *data, size_t len)
{
    const char *p = data;
    size_t done = 0;
    while (done < len) {
        ssize_t n = pwrite(fd, p + done, len - done, (off_t)done);
        if (n < 0 && errno != EINTR)
            return fdn_errno();
        if (n > 0)
            done += (size_t)n;
    }
    return 0;
}

static int fill_new(int fd)
{
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
        rc = write_all(fd, h, sizeof *h);
    if (rc == 0 && fsync(fd) != 0)
        rc = fdn_errno();
    fdn_free(h);
    return rc;
}

/* Filled and linked under its name, unless there is one of that name: another process was faster, and its file is as good. */
static int fill_and_link(int fd, int from_dir, const char *from, int dir, const char *base, int flags)
{
    int rc = fill_new(fd);
    if (rc == 0 && linkat(from_dir, from, dir, base, flags) != 0 && errno != EEXIST)
        rc = fdn_errno();
    return rc;
}

/*
 * A complete file appears under its name at once. It has no name until then where the system can do that, so that a creator that is
 * killed leaves nothing; otherwise a temporary one.
 */
static int create_file(int dir, const char *base)
{
    char temp[300];
    uint64_t unique;
    int rc = ENOTSUP, fd = -1;
#ifdef O_TMPFILE
    fd = openat(dir, ".", O_RDWR | O_TMPFILE | O_CLOEXEC, 0600);
    if (fd >= 0) {
        snprintf(temp, sizeof temp, "/proc/self/fd/%d", fd);
        rc = access(temp, F_OK) == 0 ? fill_and_link(fd, AT_FDCWD, temp, dir, base, AT_SYMLINK_FOLLOW) : ENOTSUP;
        close(fd);
    }
#endif
    if (rc == ENOTSUP) {
        fdn_random(&unique, sizeof unique);
        int n = snprintf(temp, sizeof temp, "%s.new.%016llx", base, (unsigned long long)unique);
        if (n < 0 || (size_t)n >= sizeof temp)
            return ENAMETOOLONG;
        fd = openat(dir, temp, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
        if (fd < 0)
            return fdn_errno();
        rc = fill_and_link(fd, dir, temp, dir, base, 0);
        unlinkat(dir, temp, 0);
        close(fd);
    }
    if (rc == 0 && fsync(dir) != 0)
        rc = fdn_errno();
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
            rc = create_file(dir, base);
        if (rc != 0)
            goto fail;
        f->fd = openat(dir, base, flags);
    }
    if (f->fd < 0) {
        rc = errno == ENXIO ? FDN_EFOREIGN : fdn_errno();
        goto fail;
    }
    rc = fdn_flags_check_file(f->fd);
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
