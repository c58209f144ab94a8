/* The file of a table: making it, taking it up, its stamps, letting go of it. */
#include "engine/limiter_file.h"

#include <errno.h>
#include <fcntl.h>
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

/* How often a file may turn out to be another one while it is being opened. */
#define TRIES 100

typedef struct {
    int fd, guard;
    uint8_t *map;
    size_t size;
} mapping;

struct fdn_limiter_file {
    mapping m;
    dev_t dev;
    ino_t ino;
    fdn_limiter_identity identity; /* as it has to stand in the file */
    pthread_mutex_t lock;          /* of the stamp */
    fdn_limiter_stamp stamp;       /* as it was last written */
    uint64_t now_ns;
    _Atomic bool lost;
    char path[];
};

/* ---- pieces --------------------------------------------------------------------------------------------------------------------- */

static const mapping nothing = {.fd = -1, .guard = -1};

static void let_go(mapping *m)
{
    fdn_guard_remove(m->guard);
    if (m->map != NULL)
        munmap(m->map, m->size);
    if (m->fd >= 0)
        close(m->fd); /* the lock goes with it */
    *m = nothing;
}

/* m->fd is open and locked. */
static int map(mapping *m, uint64_t size)
{
    void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, m->fd, 0);
    if (p == MAP_FAILED)
        return fdn_errno();
    m->map = p;
    m->size = size;
    m->guard = fdn_guard_add(p, size);
    return m->guard < 0 ? m->guard : 0;
}

static fdn_limiter_bucket *buckets_of(const mapping *m)
{
    return (fdn_limiter_bucket *)(void *)(m->map + FDN_LIMITER_FILE_HEADER);
}

static uint64_t file_bytes(uint64_t buckets)
{
    return FDN_LIMITER_FILE_HEADER + buckets * sizeof(fdn_limiter_bucket);
}

static uint64_t identity_checksum(const fdn_limiter_identity *i)
{
    return fdn_hash_check(i, offsetof(fdn_limiter_identity, checksum), 0);
}

static uint64_t stamp_checksum(const fdn_limiter_stamp *s, const fdn_limiter_identity *i)
{
    return fdn_hash_check(s, offsetof(fdn_limiter_stamp, checksum), i->checksum);
}

static bool zero(const uint8_t *bytes, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        if (bytes[i] != 0)
            return false;
    }
    return true;
}

static bool same_file(const fdn_limiter_file *f, const struct stat *st)
{
    return st->st_dev == f->dev && st->st_ino == f->ino;
}

/* ---- time ----------------------------------------------------------------------------------------------------------------------- */

void fdn_limiter_moment_now(fdn_limiter_moment *at)
{
    (void)fdn_boot_id(at->boot); /* zeroed where there is none */
    at->mono_ns = fdn_clock_coarse_ns();
    at->wall_ns = fdn_clock_wall_ns();
}

/* The table's time at a moment, going by its last stamp. */
static uint64_t resume(const fdn_limiter_stamp *s, const fdn_limiter_moment *at)
{
    uint64_t now = s->table_ns;
    if (!(s->flags & FDN_LIMITER_STAMP_MANUAL)) {
        bool same_boot = memcmp(s->boot, at->boot, sizeof s->boot) == 0 && !zero(at->boot, sizeof at->boot);
        int64_t passed = (int64_t)(at->mono_ns - s->epoch_ns - now);
        if (!same_boot || passed < 0)
            passed = at->wall_ns > s->wall_ns ? (int64_t)((at->wall_ns - s->wall_ns) & INT64_MAX) : 0;
        now = now < FDN_LIMITER_MAX_NOW_NS ? now + (uint64_t)passed : now;
    }
    return now < FDN_LIMITER_MAX_NOW_NS ? now : FDN_LIMITER_MAX_NOW_NS;
}

/* f->lock is held, or nobody else knows f. */
static int write_stamp(fdn_limiter_file *f, int fd)
{
    f->stamp.checksum = stamp_checksum(&f->stamp, &f->identity);
    return fdn_file_write(fd, &f->stamp, sizeof f->stamp, offsetof(fdn_limiter_header, stamp));
}

/* The stamp of whoever opens the table now, when its time is f->now_ns. */
static void begin_stamp(fdn_limiter_file *f, const fdn_limiter_config *config, const fdn_limiter_moment *at)
{
    f->stamp = (fdn_limiter_stamp){.flags = FDN_LIMITER_STAMP_OPEN,
                                   .pid = (uint32_t)getpid(),
                                   .epoch_ns = at->mono_ns - f->now_ns,
                                   .wall_ns = at->wall_ns,
                                   .table_ns = f->now_ns};
    if (config->clock == FDN_LIMITER_MANUAL)
        f->stamp.flags |= FDN_LIMITER_STAMP_MANUAL;
    memcpy(f->stamp.boot, at->boot, sizeof f->stamp.boot);
}

/* ---- making --------------------------------------------------------------------------------------------------------------------- */

typedef struct {
    fdn_limiter_file *f;
    const mapping *from; /* NULL: a new table */
    uint64_t from_ns, back_ms;
    mapping m; /* the file that was filled */
} making;

/* Locked before it has a name, and every block of it on disk: a later touch of the mapping cannot fail for want of space. */
static int fill(int fd, void *context)
{
    making *k = context;
    fdn_limiter_file *f = k->f;
    let_go(&k->m);
    k->m.fd = fcntl(fd, F_DUPFD_CLOEXEC, 0); /* shares the lock */
    if (k->m.fd < 0 || flock(fd, LOCK_EX | LOCK_NB) != 0)
        return fdn_errno();
    int rc = fdn_file_allocate(fd, f->identity.file_bytes);
    if (rc == 0)
        rc = fdn_file_write(fd, &f->identity, sizeof f->identity, 0);
    if (rc == 0)
        rc = write_stamp(f, fd);
    if (rc == 0)
        rc = map(&k->m, f->identity.file_bytes);
    if (rc == 0 && k->from != NULL)
        fdn_limiter_move_back(buckets_of(k->from), buckets_of(&k->m), f->identity.buckets, (fdn_limiter_algorithm)f->identity.algorithm,
                              k->from_ns, k->back_ms);
    if (rc == 0 && (msync(k->m.map, k->m.size, MS_SYNC) != 0 || fsync(fd) != 0))
        rc = fdn_errno();
    if (rc == 0 && (fdn_guard_faulted(k->m.guard) || (k->from != NULL && fdn_guard_faulted(k->from->guard))))
        rc = FDN_EFAULTED;
    return rc;
}

static int make(fdn_limiter_file *f, making *k, int dir, const char *base, bool replace)
{
    k->f = f;
    k->m = nothing;
    int rc = fdn_file_may_create(dir);
    if (rc == 0)
        rc = (replace ? fdn_file_replace : fdn_file_create)(dir, base, fill, k);
    if (rc == 0)
        f->m = k->m;
    else
        let_go(&k->m);
    return rc;
}

static int make_new(fdn_limiter_file *f, int dir, const char *base, bool replace, const fdn_limiter_config *config,
                    const fdn_limiter_moment *at)
{
    making k = {.from = NULL};
    fdn_limiter_identity *i = &f->identity;
    memset(i, 0, sizeof *i);
    memcpy(i->magic, FDN_LIMITER_FILE_MAGIC, sizeof i->magic);
    i->format = FDN_LIMITER_FILE_FORMAT;
    i->header_bytes = FDN_LIMITER_FILE_HEADER;
    fdn_random(i->uuid, sizeof i->uuid);
    i->uuid[6] = (uint8_t)((i->uuid[6] & 0x0f) | 0x40); /* RFC 9562: version 4 */
    i->uuid[8] = (uint8_t)((i->uuid[8] & 0x3f) | 0x80);
    i->created_ns = at->wall_ns;
    i->algorithm = config->algorithm;
    i->keys = FDN_LIMITER_FILE_KEYS;
    i->capacity = config->capacity;
    i->buckets = fdn_limiter_buckets_for(config->capacity);
    i->file_bytes = file_bytes(i->buckets);
    fdn_random(i->binaries, sizeof i->binaries);
    fdn_random(i->terms, sizeof i->terms);
    i->checksum = identity_checksum(i);
    f->now_ns = 0;
    begin_stamp(f, config, at);
    return make(f, &k, dir, base, replace);
}

/* ---- taking up ------------------------------------------------------------------------------------------------------------------ */

/* What stands in the header against what the file is. Reads with pread: a short file must not be touched through a mapping. */
static int check_header(int fd, const struct stat *st, const fdn_limiter_header *h, size_t got)
{
    const fdn_limiter_identity *i = &h->identity;
    if (got < sizeof i->magic || memcmp(i->magic, FDN_LIMITER_FILE_MAGIC, sizeof i->magic) != 0)
        return FDN_EFOREIGN;
    if (got < sizeof *i)
        return FDN_ECORRUPT;
    if (i->format != FDN_LIMITER_FILE_FORMAT)
        return FDN_EVERSION;
    if (i->checksum != identity_checksum(i) || got < sizeof *h)
        return FDN_ECORRUPT;
    /* Sound, so a later version wrote what this one does not know. */
    if (i->algorithm > FDN_LIMITER_SLIDING_WINDOW || i->keys != FDN_LIMITER_FILE_KEYS || !zero(i->reserved, sizeof i->reserved))
        return FDN_EVERSION;
    if (i->header_bytes != FDN_LIMITER_FILE_HEADER || i->capacity == 0 || i->capacity > FDN_LIMITER_MAX_CAPACITY ||
        i->buckets != fdn_limiter_buckets_for(i->capacity) || i->file_bytes != file_bytes(i->buckets) ||
        (uint64_t)st->st_size != i->file_bytes)
        return FDN_ECORRUPT;
    if (h->stamp.checksum != stamp_checksum(&h->stamp, i) || !zero(h->reserved, sizeof h->reserved))
        return FDN_ECORRUPT;
    if (h->stamp.flags > (FDN_LIMITER_STAMP_OPEN | FDN_LIMITER_STAMP_MANUAL) || h->stamp.reserved != 0)
        return FDN_EVERSION;
    return 0;
}

static int read_header(int fd, fdn_limiter_header *h, size_t *got)
{
    memset(h, 0, sizeof *h);
    ssize_t n = pread(fd, h, sizeof *h, 0);
    if (n < 0)
        return fdn_errno();
    *got = (size_t)n;
    return 0;
}

static int check_purpose(const fdn_limiter_identity *i, const fdn_limiter_config *config, fdn_limiter_opening *why)
{
    if (i->algorithm != config->algorithm)
        why->differs = FDN_LIMITER_BAD_ALGORITHM;
    else if (i->capacity != config->capacity)
        why->differs = FDN_LIMITER_BAD_CAPACITY;
    return why->differs == FDN_LIMITER_FITS ? 0 : FDN_EDIFFERS;
}

/* Who has it open, from a stamp that is being written by somebody else. */
static uint32_t holder(int fd, fdn_limiter_header *h)
{
    size_t got = 0;
    for (int tries = 0; tries < 3; tries++) {
        if (read_header(fd, h, &got) == 0 && got == sizeof *h && h->stamp.checksum == stamp_checksum(&h->stamp, &h->identity))
            return h->stamp.pid;
    }
    return 0;
}

/* A file that is ours alone from here on; nothing was changed yet. */
static int resume_table(fdn_limiter_file *f, int dir, const char *base, const fdn_limiter_header *h, const fdn_limiter_config *config,
                        const fdn_limiter_moment *at, fdn_limiter_opening *why)
{
    fdn_limiter_algorithm algorithm = (fdn_limiter_algorithm)h->identity.algorithm;
    f->identity = h->identity;
    f->now_ns = resume(&h->stamp, at);
    int rc = map(&f->m, h->identity.file_bytes);
    if (rc != 0)
        return rc;
    uint64_t dropped = fdn_limiter_recover(buckets_of(&f->m), h->identity.buckets, algorithm, f->now_ns);
    if (fdn_guard_faulted(f->m.guard))
        return FDN_EFAULTED;
    uint64_t now_ms = f->now_ns / FDN_NS_PER_MS;
    if (now_ms < FDN_LIMITER_FILE_SHIFT_MS) {
        begin_stamp(f, config, at);
        rc = write_stamp(f, f->m.fd);
        /* A secret is in it, and a copy may have been made with another mode. */
        if (rc == 0)
            (void)fchmod(f->m.fd, 0600);
    } else {
        mapping old = f->m;
        making k = {.from = &old, .from_ns = f->now_ns, .back_ms = now_ms & ~((1ULL << 31) - 1)};
        f->now_ns -= k.back_ms * FDN_NS_PER_MS;
        begin_stamp(f, config, at);
        f->m = nothing;
        rc = make(f, &k, dir, base, true);
        let_go(&old);
    }
    why->dropped = dropped;
    return rc;
}

/* The file that the path means. *again: it has another one by now. */
static int take_up(fdn_limiter_file *f, int dir, const char *base, const fdn_limiter_config *config, const fdn_limiter_moment *at,
                   fdn_limiter_opening *why, bool *again)
{
    struct stat st, named;
    size_t got = 0;
    fdn_limiter_header *h = NULL;
    int fd = f->m.fd, rc = fdn_file_check(fd);
    if (rc == 0 && fstat(fd, &st) != 0)
        rc = fdn_errno();
    /* Where others may put files, only our own is ours. */
    if (rc == 0 && st.st_uid != geteuid() && fdn_file_check_dir(dir) != 0)
        rc = FDN_EOWNER;
    if (rc != 0)
        return rc;
    bool locked = flock(fd, LOCK_EX | LOCK_NB) == 0;
    if (!locked && errno != EWOULDBLOCK)
        return fdn_errno();
    *again = fstatat(dir, base, &named, AT_SYMLINK_NOFOLLOW) != 0 || named.st_dev != st.st_dev || named.st_ino != st.st_ino;
    if (*again)
        return EBUSY;
    if (locked && st.st_size == 0) {
        mapping empty = f->m;
        rc = make_new(f, dir, base, true, config, at);
        let_go(&empty);
        return rc;
    }
    h = fdn_malloc(sizeof *h);
    if (h == NULL)
        return FDN_ENOMEM;
    if (!locked) {
        why->pid = holder(fd, h);
        rc = FDN_ELOCKED;
    }
    if (rc == 0)
        rc = read_header(fd, h, &got);
    if (rc == 0)
        rc = check_header(fd, &st, h, got);
    if (rc == 0)
        rc = check_purpose(&h->identity, config, why);
    if (rc == 0)
        rc = resume_table(f, dir, base, h, config, at, why);
    fdn_free(h);
    return rc;
}

static int open_once(fdn_limiter_file *f, const fdn_limiter_config *config, const fdn_limiter_moment *at, fdn_limiter_opening *why,
                     bool *again)
{
    const char *base;
    int dir;
    *again = false;
    int rc = fdn_file_open_dir(f->path, true, &base, &dir);
    if (rc != 0)
        return rc;
    /* O_NONBLOCK: opening a FIFO must not hang. */
    f->m = nothing;
    f->m.fd = openat(dir, base, O_RDWR | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
    if (f->m.fd >= 0) {
        rc = take_up(f, dir, base, config, at, why, again);
    } else if (errno == ENOENT) {
        rc = make_new(f, dir, base, false, config, at);
        *again = rc == EEXIST; /* another process was faster */
    } else {
        rc = errno == ENXIO ? FDN_EFOREIGN : fdn_errno();
    }
    struct stat st;
    if (rc == 0 && fstat(f->m.fd, &st) != 0)
        rc = fdn_errno();
    if (rc == 0) {
        f->dev = st.st_dev;
        f->ino = st.st_ino;
    } else {
        let_go(&f->m);
    }
    close(dir);
    return rc;
}

int fdn_limiter_file_open(const char *path, const fdn_limiter_config *config, const fdn_limiter_moment *at, fdn_limiter_file **out,
                          fdn_limiter_opening *why)
{
    fdn_limiter_moment system;
    bool again = true;
    *out = NULL;
    *why = (fdn_limiter_opening){0};
    if (fdn_hash_init() != 0)
        return ENOSYS;
    int rc = fdn_guard_init();
    if (rc != 0)
        return rc;
    size_t length = strlen(path) + 1;
    fdn_limiter_file *f = fdn_calloc(1, sizeof *f + length);
    if (f == NULL)
        return FDN_ENOMEM;
    memcpy(f->path, path, length);
    if (at == NULL) {
        fdn_limiter_moment_now(&system);
        at = &system;
    }
    for (int i = 0; again && i < TRIES; i++)
        rc = open_once(f, config, at, why, &again);
    if (rc != 0) {
        fdn_free(f);
        return rc;
    }
    pthread_mutex_init(&f->lock, NULL);
    *out = f;
    return 0;
}

/* ---- in use --------------------------------------------------------------------------------------------------------------------- */

fdn_limiter_file_view fdn_limiter_file_look(const fdn_limiter_file *f)
{
    return (fdn_limiter_file_view){.buckets = buckets_of(&f->m),
                                   .bucket_count = f->identity.buckets,
                                   .bytes = f->identity.file_bytes,
                                   .epoch_ns = f->stamp.epoch_ns,
                                   .now_ns = f->now_ns,
                                   .identity = &f->identity,
                                   .path = f->path};
}

bool fdn_limiter_file_lost(const fdn_limiter_file *f)
{
    return atomic_load_explicit(&f->lost, memory_order_relaxed) || fdn_guard_faulted(f->m.guard);
}

int fdn_limiter_file_check(fdn_limiter_file *f)
{
    fdn_limiter_identity now;
    struct stat st;
    if (fdn_limiter_file_lost(f))
        return FDN_EFAULTED;
    if (fstat(f->m.fd, &st) != 0)
        return fdn_errno();
    ssize_t got = pread(f->m.fd, &now, sizeof now, 0);
    if (got < 0)
        return fdn_errno();
    if ((uint64_t)st.st_size < f->identity.file_bytes || (size_t)got < sizeof now || memcmp(&now, &f->identity, sizeof now) != 0) {
        atomic_store(&f->lost, true);
        return FDN_EFAULTED;
    }
    return lstat(f->path, &st) == 0 && same_file(f, &st) ? 0 : ENOENT;
}

static int stamp(fdn_limiter_file *f, const fdn_limiter_moment *at, uint64_t manual_ns, bool last)
{
    fdn_limiter_moment system;
    if (at == NULL) {
        fdn_limiter_moment_now(&system);
        at = &system;
    }
    pthread_mutex_lock(&f->lock);
    uint64_t now = f->stamp.flags & FDN_LIMITER_STAMP_MANUAL ? manual_ns : at->mono_ns - f->stamp.epoch_ns;
    if (f->stamp.table_ns < now) {
        f->stamp.table_ns = now;
        f->stamp.wall_ns = at->wall_ns;
    }
    if (last)
        f->stamp.flags &= ~(uint32_t)FDN_LIMITER_STAMP_OPEN;
    int rc = write_stamp(f, f->m.fd);
    pthread_mutex_unlock(&f->lock);
    return rc;
}

int fdn_limiter_file_stamp(fdn_limiter_file *f, const fdn_limiter_moment *at, uint64_t manual_ns)
{
    return stamp(f, at, manual_ns, false);
}

static void remove_file(const fdn_limiter_file *f)
{
    const char *base;
    struct stat st;
    int dir;
    if (fdn_file_open_dir(f->path, false, &base, &dir) != 0)
        return;
    if (fstatat(dir, base, &st, AT_SYMLINK_NOFOLLOW) == 0 && same_file(f, &st) && unlinkat(dir, base, 0) == 0)
        (void)fsync(dir);
    close(dir);
}

void fdn_limiter_file_close(fdn_limiter_file *f, const fdn_limiter_moment *at, uint64_t manual_ns, bool discard)
{
    if (f == NULL)
        return;
    if (discard) {
        remove_file(f);
    } else if (fdn_limiter_file_check(f) != FDN_EFAULTED) {
        (void)msync(f->m.map, f->m.size, MS_SYNC);
        (void)stamp(f, at, manual_ns, true);
        (void)fdatasync(f->m.fd);
    }
    let_go(&f->m);
    pthread_mutex_destroy(&f->lock);
    fdn_free(f);
}
