/*
 * flag_map.h - a flag file, mapped.
 *
 * Any number of OS processes map the same file; a change is seen by all of them at once. Readers take two aligned loads. Setting a
 * flag is a compare-and-swap, rolling a group back is one, and neither takes a lock; only adding names takes a file lock on a sidecar
 * (PATH.lock), which the kernel frees when its holder dies. See flag_format.h for the words and why a race cannot leave a flag on.
 *
 * Every function is safe from any thread, except fdn_flags_close, after which the handle is gone. Results: 0, a positive errno, or a
 * code of fdn_error.h. Names are UTF-8, 1..55 bytes, without control characters (else FDN_ENAME, FDN_EINVAL).
 */
#ifndef FDN_FLAG_MAP_H
#define FDN_FLAG_MAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shared/flag_format.h"

typedef struct fdn_flags fdn_flags;

enum {
    FDN_FLAGS_READ_ONLY = 1, /* map for reading; changes answer FDN_EREADONLY */
    FDN_FLAGS_CREATE = 2     /* create the file (0600), and its folder (0700, one level), where missing */
};

/*
 * Map the file. Refused, and left as it is: a symlink (ELOOP), no regular file or bad magic (FDN_EFOREIGN), another version
 * (FDN_EVERSION), damage (FDN_ECORRUPT), a file or folder that group or others may write (FDN_EMODE), one of another user (FDN_EOWNER;
 * root may open but not create there). ENOENT without FDN_FLAGS_CREATE; ENOSPC where the space cannot be had.
 */
int fdn_flags_open(fdn_flags **out, const char *path, unsigned mode);

/* Unmap and free. No other thread may be inside. NULL is fine. */
void fdn_flags_close(fdn_flags *f);

/*
 * Let go of the file while readers may still be inside: its pages are replaced by zeroes, every flag reads off, every change answers
 * FDN_EFAULTED. The handle stays until fdn_flags_close.
 */
void fdn_flags_detach(fdn_flags *f);

void fdn_flags_uuid(const fdn_flags *f, uint8_t out[16]);
const char *fdn_flags_path(const fdn_flags *f);
bool fdn_flags_read_only(const fdn_flags *f);
uint32_t fdn_flags_capacity(const fdn_flags *f);
uint32_t fdn_flags_group_capacity(const fdn_flags *f);

/* Whether `path` still names the file that is mapped here. */
bool fdn_flags_same_file(const fdn_flags *f, const char *path);

/*
 * Whether the file was truncated or overwritten under us. When it was, the whole mapping is replaced by zeroes, so that no half of it
 * stays in force. One system call.
 */
bool fdn_flags_faulted(fdn_flags *f);

/* ---- groups ---------------------------------------------------------------------------------------------------------------------- */

/* FDN_EUNKNOWN; FDN_EFAULTED, with epoch 0 and rolled back, when the file was truncated. */
int fdn_flags_group_state(fdn_flags *f, const char *group, uint64_t *epoch, bool *rolled_back);

/*
 * Roll a group back: in force for every process when the epoch word is flipped, which is the first thing done. Then who and why are
 * noted, watchers are woken and the file is synced. Never takes a lock. `epoch` (may be NULL) gets the new epoch even where the sync
 * failed (positive errno): the rollback is in force, only not known to be on disk.
 */
int fdn_flags_rollback(fdn_flags *f, const char *group, const char *reason, const char *who, uint64_t *epoch);

/* The same without the sync; a few hundred nanoseconds. */
int fdn_flags_flip(fdn_flags *f, const char *group, const char *reason, const char *who, uint64_t *epoch);

/* Let the flags of a group be set again; they stay off until they are. FDN_ESTALE, FDN_ENOTROLLEDBACK, FDN_EUNKNOWN. */
int fdn_flags_rearm(fdn_flags *f, const char *group, uint64_t epoch, const char *who);

/* The same without the sync. */
int fdn_flags_unflip(fdn_flags *f, const char *group, uint64_t epoch, const char *who);

typedef struct {
    bool known; /* false: nothing happened yet, or its writer died before it could say */
    uint64_t epoch;
    uint64_t at_ns; /* wall clock */
    char who[FDN_FLAG_WHO_MAX + 1];
    char reason[FDN_FLAG_REASON_MAX + 1];
} fdn_flag_said;

typedef struct {
    char name[FDN_FLAG_NAME_MAX + 1];
    uint64_t epoch;
    bool rolled_back;
    bool sticky;
    fdn_flag_said rollback; /* the one that led to this epoch */
    fdn_flag_said rearm;    /* the one that ended it */
} fdn_flag_group;

/* Groups are numbered 0 .. count-1 and keep their number. */
uint32_t fdn_flags_group_count(const fdn_flags *f);
int fdn_flags_group_at(fdn_flags *f, uint32_t index, fdn_flag_group *out);
int fdn_flags_find_group(fdn_flags *f, const char *group, uint32_t *index);

/* ---- flags ----------------------------------------------------------------------------------------------------------------------- */

/*
 * Make a flag known. group NULL: the group it has, else "default". sticky: 1 or 0 sets it for the group, -1 leaves it (a new group is
 * sticky). A new flag has its default in force, except in a group that is rolled back, where it is off until set. For a known flag
 * only the default may change, and counts while nobody set the flag. Takes the sidecar's lock: FDN_EBUSY after two seconds.
 * FDN_EOTHERGROUP, FDN_EFULL, FDN_ENAME, FDN_EINVAL. `index` may be NULL.
 */
int fdn_flags_declare(fdn_flags *f, const char *name, const char *group, bool default_on, int sticky, uint32_t *index);

/* Set a flag. FDN_EUNKNOWN, FDN_EROLLEDBACK, FDN_EREADONLY, FDN_EFAULTED; FDN_EINVAL for a value that is none. */
int fdn_flags_set(fdn_flags *f, const char *name, fdn_flag_value value);
int fdn_flags_set_at(fdn_flags *f, uint32_t index, fdn_flag_value value);

/* The value in force. FDN_EUNKNOWN. */
int fdn_flags_get(fdn_flags *f, const char *name, fdn_flag_value *value);

typedef struct {
    char name[FDN_FLAG_NAME_MAX + 1];
    uint32_t group;
    fdn_flag_value value; /* in force */
    bool default_on;
    bool explicit_value; /* set since it was declared or rolled back */
    uint64_t changed_ns; /* wall clock of the last set, 0 for never */
} fdn_flag_info;

/* Flags are numbered 0 .. count-1 and keep their number. */
uint32_t fdn_flags_count(const fdn_flags *f);
int fdn_flags_at(fdn_flags *f, uint32_t index, fdn_flag_info *out);
int fdn_flags_find(fdn_flags *f, const char *name, uint32_t *index);

/* The words of a reader: load the epoch word first, then the value word, then fdn_flag_in_force. They live as long as the handle. */
const _Atomic uint64_t *fdn_flags_epoch_word(const fdn_flags *f, uint32_t group);
const _Atomic uint64_t *fdn_flags_value_word(const fdn_flags *f, uint32_t index);

/* ---- durability and watching -------------------------------------------------------------------------------------------------------
 */

/* Wait until everything written so far is on disk. */
int fdn_flags_sync(fdn_flags *f);

/* Check every checksum and invariant of the mapped file; FDN_ECORRUPT or FDN_EFAULTED. */
int fdn_flags_verify(fdn_flags *f);

/* Goes up at the beginning and at the end of every change. */
uint64_t fdn_flags_generation(const fdn_flags *f);

/*
 * Waiting for changes: take a ticket, look, then wait with that ticket: returns at the next change, or after timeout_ms. A writer may
 * die before it wakes anybody, so look again after every timeout too. Where there is no futex this polls.
 */
uint32_t fdn_flags_ticket(const fdn_flags *f);
void fdn_flags_wait(const fdn_flags *f, uint32_t ticket, unsigned timeout_ms);

/* Make every waiter return (in a read-only mapping: only at its timeout). */
void fdn_flags_wake(fdn_flags *f);

#endif
