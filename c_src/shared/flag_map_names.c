/* The names in a flag file: looking them up, checking them, and adding new ones under the sidecar's lock. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <time.h>
#include <unistd.h>

#include "base/fdn_clock.h"
#include "base/fdn_error.h"
#include "base/fdn_file.h"
#include "base/fdn_hash.h"
#include "shared/flag_map_private.h"

#define LOCK_DEADLINE_NS (2 * FDN_NS_PER_S)
#define LOCK_PAUSE_NS (2 * FDN_NS_PER_MS)

int fdn_flag_name_check(const char *name)
{
    size_t n = strnlen(name, FDN_FLAG_NAME_MAX + 1);
    if (n > FDN_FLAG_NAME_MAX)
        return FDN_ENAME;
    if (n == 0)
        return FDN_EINVAL;
    for (size_t i = 0; i < n; i++)
        if ((unsigned char)name[i] < 0x20 || name[i] == 0x7f)
            return FDN_EINVAL;
    return 0;
}

uint32_t fdn_flag_name_checksum(const fdn_flag_name *n, bool group, uint32_t index)
{
    return (uint32_t)fdn_hash_check(n, offsetof(fdn_flag_name, checksum), ((uint64_t)group << 32) | index);
}

bool fdn_flag_name_valid(const fdn_flags *f, const fdn_flag_name *n, bool group, uint32_t index)
{
    return n->length >= 1 && n->length <= FDN_FLAG_NAME_MAX && n->group < f->group_capacity &&
           n->checksum == fdn_flag_name_checksum(n, group, index);
}

static void name_write(fdn_flag_name *n, const char *name, bool group, uint32_t index, uint16_t group_index)
{
    memset(n, 0, sizeof *n);
    n->length = (uint8_t)strlen(name);
    memcpy(n->name, name, n->length);
    n->group = group_index;
    n->checksum = fdn_flag_name_checksum(n, group, index);
}

static bool name_is(const fdn_flag_name *n, const char *name, size_t len)
{
    return n->length == len && memcmp(n->name, name, len) == 0;
}

/* A count never exceeds its capacity, whatever stands in the file. */
uint32_t fdn_flags_count(const fdn_flags *f)
{
    uint32_t n = atomic_load_explicit(&f->header->flag_count, memory_order_acquire);
    return n <= f->flag_capacity ? n : f->flag_capacity;
}

uint32_t fdn_flags_group_count(const fdn_flags *f)
{
    uint32_t n = atomic_load_explicit(&f->header->group_count, memory_order_acquire);
    return n <= f->group_capacity ? n : f->group_capacity;
}

int fdn_flags_find(fdn_flags *f, const char *name, uint32_t *index)
{
    size_t len = strnlen(name, FDN_FLAG_NAME_MAX + 1);
    uint32_t n = fdn_flags_count(f);
    for (uint32_t i = 0; i < n; i++)
        if (name_is(&f->names[i], name, len)) {
            if (!fdn_flag_name_valid(f, &f->names[i], false, i))
                return FDN_ECORRUPT;
            *index = i;
            return 0;
        }
    return FDN_EUNKNOWN;
}

int fdn_flags_find_group(fdn_flags *f, const char *group, uint32_t *index)
{
    size_t len = strnlen(group, FDN_FLAG_NAME_MAX + 1);
    uint32_t n = fdn_flags_group_count(f);
    for (uint32_t i = 0; i < n; i++)
        if (name_is(&f->groups[i].name, group, len)) {
            if (!fdn_flag_name_valid(f, &f->groups[i].name, true, i))
                return FDN_ECORRUPT;
            *index = i;
            return 0;
        }
    return FDN_EUNKNOWN;
}

int fdn_flags_verify(fdn_flags *f)
{
    uint32_t flags = atomic_load(&f->header->flag_count);
    uint32_t groups = atomic_load(&f->header->group_count);
    bool sound = flags <= f->flag_capacity && groups <= f->group_capacity;
    for (uint32_t i = 0; sound && i < groups; i++)
        sound = fdn_flag_name_valid(f, &f->groups[i].name, true, i) && fdn_flag_epoch(atomic_load(&f->header->epochs[i])) != 0;
    for (uint32_t i = 0; sound && i < flags; i++) {
        /* The value word first: a rollback meanwhile can only raise the group's epoch. */
        uint64_t value = atomic_load(&f->values[i]);
        sound = fdn_flag_name_valid(f, &f->names[i], false, i) && f->names[i].group < groups &&
                fdn_flag_value_valid((fdn_flag_value)(value & (FDN_FLAG_EXPLICIT - 1))) &&
                fdn_flag_epoch(value) <= fdn_flag_epoch(atomic_load(&f->header->epochs[f->names[i].group]));
    }
    if (fdn_flags_faulted(f))
        return FDN_EFAULTED;
    return sound ? 0 : FDN_ECORRUPT;
}

/* ---- adding names -----------------------------------------------------------------------------------------------------------------
 */

/*
 * The lock is an open file's (flock), so it also excludes threads of one process from each other, and it is gone with its holder. It
 * is waited for by polling, because a holder may be stopped: then the answer is FDN_EBUSY, not a hang.
 */
static int lock_names(const fdn_flags *f, int *lock)
{
    const char *base = NULL;
    char name[300];
    int dir = -1, fd = -1;
    int rc = fdn_flags_open_dir(f->path, false, &base, &dir);
    if (rc != 0)
        return rc;
    int n = snprintf(name, sizeof name, "%s.lock", base);
    if (n < 0 || (size_t)n >= sizeof name)
        rc = ENAMETOOLONG;
    int flags = O_RDWR | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK;
    if (rc == 0 && (fd = openat(dir, name, flags)) < 0)
        rc = fdn_errno();
    if (rc == ENOENT) {
        /* Not by root in another user's folder: its owner could not open it any more. */
        close(dir);
        rc = fdn_flags_open_dir(f->path, true, &base, &dir);
        if (rc != 0)
            return rc;
        if ((fd = openat(dir, name, flags | O_CREAT, 0600)) < 0)
            rc = fdn_errno();
    }
    if (rc == 0)
        rc = fdn_file_check(fd);
    close(dir);
    uint64_t deadline = fdn_clock_mono_ns() + LOCK_DEADLINE_NS;
    while (rc == 0 && flock(fd, LOCK_EX | LOCK_NB) != 0) {
        if (errno == EINTR)
            continue;
        if (errno != EWOULDBLOCK)
            rc = fdn_errno();
        else if (fdn_clock_mono_ns() > deadline)
            rc = FDN_EBUSY;
        else
            nanosleep(&(struct timespec){0, LOCK_PAUSE_NS}, NULL);
    }
    if (rc != 0) {
        if (fd >= 0)
            close(fd);
        return rc;
    }
    *lock = fd;
    return 0;
}

static int add_group(fdn_flags *f, const char *group, int sticky, uint32_t *index)
{
    uint32_t i = fdn_flags_group_count(f);
    if (i == f->group_capacity)
        return FDN_EFULL;
    name_write(&f->groups[i].name, group, true, i, (uint16_t)i);
    atomic_store(&f->header->epochs[i], FDN_FLAG_EPOCH_ONE | (sticky == 0 ? FDN_FLAG_TRANSIENT : 0));
    atomic_store_explicit(&f->header->group_count, i + 1, memory_order_release);
    *index = i;
    return 0;
}

static void set_sticky(fdn_flags *f, uint32_t group, int sticky)
{
    if (sticky == 0)
        atomic_fetch_or(&f->header->epochs[group], FDN_FLAG_TRANSIENT);
    else if (sticky == 1)
        atomic_fetch_and(&f->header->epochs[group], ~FDN_FLAG_TRANSIENT);
}

/*
 * The word of a flag that nobody has set. In a group that is rolled back it belongs to no epoch (0, and false): the flag stays off,
 * also after a re-arm, until it is set.
 */
static uint64_t unset_word(uint64_t epoch_word, bool default_on)
{
    if (epoch_word & FDN_FLAG_ROLLED_BACK)
        return 0;
    return (epoch_word & FDN_FLAG_EPOCH_MASK) | (default_on ? FDN_FLAG_TRUE : FDN_FLAG_FALSE);
}

static int add_flag(fdn_flags *f, const char *name, uint32_t group, bool default_on, uint32_t *index)
{
    uint32_t i = fdn_flags_count(f);
    if (i == f->flag_capacity)
        return FDN_EFULL;
    name_write(&f->names[i], name, false, i, (uint16_t)group);
    atomic_store(&f->notes[i].changed_ns, 0);
    atomic_store(&f->notes[i].defaults, default_on ? 1 : 0);
    atomic_store(&f->values[i], unset_word(atomic_load(&f->header->epochs[group]), default_on));
    atomic_store_explicit(&f->header->flag_count, i + 1, memory_order_release);
    *index = i;
    return 0;
}

/* A known flag with another default: it counts only while the flag has its default of this epoch. */
static void change_default(fdn_flags *f, uint32_t index, bool default_on)
{
    atomic_store(&f->notes[index].defaults, default_on ? 1 : 0);
    for (;;) {
        fdn_step(FDN_STEP_LOCKED);
        uint64_t value = atomic_load(&f->values[index]);
        fdn_step(FDN_STEP_LOCKED);
        uint64_t epoch = atomic_load(&f->header->epochs[f->names[index].group]);
        fdn_step(FDN_STEP_LOCKED);
        if ((value & FDN_FLAG_EXPLICIT) || fdn_flag_epoch(value) != fdn_flag_epoch(epoch) || (epoch & FDN_FLAG_ROLLED_BACK))
            return;
        if (atomic_compare_exchange_strong(&f->values[index], &value, unset_word(epoch, default_on)))
            return;
    }
}

static int declare_locked(fdn_flags *f, const char *name, const char *group, bool default_on, int sticky, uint32_t *index)
{
    uint32_t g = 0, i = 0;
    int found = fdn_flags_find(f, name, &i);
    if (found != 0 && found != FDN_EUNKNOWN)
        return found;
    if (found == 0) {
        uint32_t has = f->names[i].group;
        if (group != NULL && (fdn_flags_find_group(f, group, &g) != 0 || g != has))
            return FDN_EOTHERGROUP;
        set_sticky(f, has, sticky);
        change_default(f, i, default_on);
        *index = i;
        return 0;
    }
    if (fdn_flags_count(f) == f->flag_capacity)
        return FDN_EFULL;
    if (group == NULL)
        group = "default";
    int rc = fdn_flags_find_group(f, group, &g);
    if (rc == 0)
        set_sticky(f, g, sticky);
    else if (rc == FDN_EUNKNOWN)
        rc = add_group(f, group, sticky, &g);
    return rc == 0 ? add_flag(f, name, g, default_on, index) : rc;
}

int fdn_flags_declare(fdn_flags *f, const char *name, const char *group, bool default_on, int sticky, uint32_t *index)
{
    uint32_t at = 0;
    int lock = -1;
    int rc = fdn_flag_name_check(name);
    if (rc == 0 && group != NULL)
        rc = fdn_flag_name_check(group);
    if (rc == 0)
        rc = fdn_flags_writable(f);
    if (rc == 0)
        rc = lock_names(f, &lock);
    if (rc != 0)
        return rc;
    fdn_flags_begin(f);
    rc = declare_locked(f, name, group, default_on, sticky, &at);
    fdn_flags_end(f);
    close(lock);
    if (rc == 0)
        rc = fdn_flags_writable(f); /* truncated meanwhile: what was written is in nobody's file */
    if (rc == 0 && index != NULL)
        *index = at;
    return rc;
}
