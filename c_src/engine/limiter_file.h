/*
 * limiter_file.h - the file of a table whose budgets outlive the VM.
 *
 *     offset 0       identity: what the file is for, and its secret; written once, with a checksum
 *     128            stamp: who has it open, and how the table's time goes on; written anew now and then, with a checksum
 *     192            zero
 *     4096           the buckets of limiter.h, 64 bytes each
 *
 * doc/FORMAT.md has the same as a byte table. The buckets are mapped and hit as those of a table in memory; what a hit stored is in the
 * page cache, where the death of the process does not reach. Counters, locks and lanes are in memory only.
 *
 * One process has the file, by flock(2), which ends with the process; the file's own number (inode) is locked, so it never changes:
 * whoever gives the path another file (fdn_file_replace, unlink) holds the lock of the old one, and whoever gets a lock looks whether
 * the path still means that file.
 *
 * Time. A table's states are dated by the table's time, which begins at 0 when it is made and never goes back. It is the monotonic
 * clock less an epoch while the machine runs. After a reboot (another boot id) it goes on from the last stamp by what the wall clock
 * says has passed since: a wall clock that was set forward meanwhile gives budgets back early, one that was set back gives them back
 * late. When it comes near the end of what a state can hold, opening the file moves all states, and the time with them, back to its
 * beginning.
 *
 * A stamp is one write of 64 bytes in one page, which a killed process has either made or not.
 */
#ifndef FDN_ENGINE_LIMITER_FILE_H
#define FDN_ENGINE_LIMITER_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "engine/limiter.h"
#include "engine/limiter_table.h"

#define FDN_LIMITER_FILE_MAGIC "FDNLIMIT"
#define FDN_LIMITER_FILE_FORMAT 0x00010001u /* version 1, layout 1: low and high half */
#define FDN_LIMITER_FILE_HEADER 4096u
#define FDN_LIMITER_FILE_KEYS 1u /* how keys become the bytes that are hashed: nif_limiter_key.h, lasting */

typedef struct {
    char magic[8];         /*   0 */
    uint32_t format;       /*   8 */
    uint32_t header_bytes; /*  12 */
    uint8_t uuid[16];      /*  16 random */
    uint64_t created_ns;   /*  32 wall clock */
    uint32_t algorithm;    /*  40 fdn_limiter_algorithm */
    uint32_t keys;         /*  44 */
    uint64_t capacity;     /*  48 */
    uint64_t buckets;      /*  56 */
    uint64_t file_bytes;   /*  64 */
    uint8_t binaries[16];  /*  72 the secret: key of the hash of binaries */
    uint8_t terms[16];     /*  88 and of other terms */
    uint8_t reserved[16];  /* 104 */
    uint64_t checksum;     /* 120 XXH3-64 of bytes 0..119, seed 0 */
} fdn_limiter_identity;

enum { FDN_LIMITER_STAMP_OPEN = 1, FDN_LIMITER_STAMP_MANUAL = 2 };

typedef struct {
    uint32_t flags;    /*  0 (128 in the file) open; the time is a manual clock's */
    uint32_t pid;      /*  4 of whoever has, or had, it open */
    uint8_t boot[16];  /*  8 of the machine; zero where it tells none */
    uint64_t epoch_ns; /* 24 what the monotonic clock of this boot shows at the table's time 0, modulo 2^64 */
    uint64_t wall_ns;  /* 32 wall clock */
    uint64_t table_ns; /* 40 the table's time, at the same moment */
    uint64_t reserved; /* 48 */
    uint64_t checksum; /* 56 XXH3-64 of the 56 bytes before it, seed: checksum of the identity */
} fdn_limiter_stamp;

typedef struct {
    fdn_limiter_identity identity;                    /*   0 */
    fdn_limiter_stamp stamp;                          /* 128 */
    uint8_t reserved[FDN_LIMITER_FILE_HEADER - 192u]; /* 192 */
} fdn_limiter_header;

_Static_assert(sizeof(fdn_limiter_identity) == 128 && offsetof(fdn_limiter_identity, checksum) == 120, "identity");
_Static_assert(offsetof(fdn_limiter_identity, created_ns) == 32 && offsetof(fdn_limiter_identity, capacity) == 48, "identity");
_Static_assert(offsetof(fdn_limiter_identity, binaries) == 72 && offsetof(fdn_limiter_identity, terms) == 88, "identity");
_Static_assert(sizeof(fdn_limiter_stamp) == 64 && offsetof(fdn_limiter_stamp, checksum) == 56, "stamp");
_Static_assert(offsetof(fdn_limiter_stamp, boot) == 8 && offsetof(fdn_limiter_stamp, epoch_ns) == 24, "stamp");
_Static_assert(sizeof(fdn_limiter_header) == FDN_LIMITER_FILE_HEADER && offsetof(fdn_limiter_header, stamp) == 128, "header");
_Static_assert(FDN_LIMITER_GCRA == 0 && FDN_LIMITER_FIXED_WINDOW == 1 && FDN_LIMITER_SLIDING_WINDOW == 2, "they stand in files");

/* From this table time on, opening moves a table back to its beginning: a quarter of the least that a state can hold. */
#define FDN_LIMITER_FILE_SHIFT_MS (1ULL << 36)

typedef struct fdn_limiter_file fdn_limiter_file;

/* The system's clocks. */
void fdn_limiter_moment_now(fdn_limiter_moment *at);

/*
 * Open the file of a table of this configuration, or make it where there is none (or an empty one, which the death of a machine may
 * leave), and its folder (0700, one level). `at`: the clocks to go by, NULL for the system's. Slots that a killed process was changing
 * are dropped, and those whose state no hit can have left; *why tells how many.
 *
 * Refused, and left byte for byte as it is: FDN_ELOCKED (why->pid, 0 where it cannot be told), FDN_EDIFFERS (why->differs),
 * FDN_EFOREIGN, FDN_EVERSION, FDN_ECORRUPT, FDN_EOWNER, FDN_EMODE (others may write it), ELOOP for a symbolic link, EISDIR and what
 * else the system says. FDN_ENOMEM, FDN_EMAPPINGS.
 */
int fdn_limiter_file_open(const char *path, const fdn_limiter_config *config, const fdn_limiter_moment *at, fdn_limiter_file **out,
                          fdn_limiter_opening *why);

/* What the table needs to know; the buckets live until the file is closed. */
typedef struct {
    fdn_limiter_bucket *buckets;
    uint64_t bucket_count, bytes; /* of the file */
    uint64_t epoch_ns, now_ns;    /* now: the table's time when it was opened */
    const fdn_limiter_identity *identity;
    const char *path;
} fdn_limiter_file_view;
fdn_limiter_file_view fdn_limiter_file_look(const fdn_limiter_file *f);

/* Whether a part of the file is gone from under us, as far as is known. A few loads. */
bool fdn_limiter_file_lost(const fdn_limiter_file *f);

/*
 * Look at the file: 0; FDN_EFAULTED where it was truncated or overwritten; ENOENT where its path means it no more, which loses the
 * budgets when it is closed. A few system calls.
 */
int fdn_limiter_file_check(fdn_limiter_file *f);

/* Write down how time goes on; `manual_ns`: the time of a table whose clock is manual, which never goes back. 0 or an errno. */
int fdn_limiter_file_stamp(fdn_limiter_file *f, const fdn_limiter_moment *at, uint64_t manual_ns);

/* Flush, stamp, unlock, unmap, free. No other thread may be inside. `discard`: remove the file as well. NULL is allowed. */
void fdn_limiter_file_close(fdn_limiter_file *f, const fdn_limiter_moment *at, uint64_t manual_ns, bool discard);

/* ---- slots (limiter_recover.c) --------------------------------------------------------------------------------------------------- */

/*
 * Make the slots of a table sound that nobody has open, by the table's time: slots left BUSY, slots whose state no hit can have left,
 * slots where no key of this fingerprint belongs and the second slot of one key (it keeps the one with more consumed) become free.
 * Returns how many.
 */
uint64_t fdn_limiter_recover(fdn_limiter_bucket *buckets, uint64_t count, fdn_limiter_algorithm algorithm, uint64_t now_ns);

/*
 * Copy sound buckets to a table whose time is `back_ms` earlier; back_ms is a multiple of 2^31 and not after now. No budget comes back
 * sooner for it, but those of sliding_window may come back a window or two later.
 */
void fdn_limiter_move_back(const fdn_limiter_bucket *from, fdn_limiter_bucket *to, uint64_t count, fdn_limiter_algorithm algorithm,
                           uint64_t now_ns, uint64_t back_ms);

#endif
