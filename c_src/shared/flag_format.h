/*
 * flag_format.h - the layout of a flag file, version 1. doc/FORMAT.md has the same as a byte table.
 *
 *     offset 0      header, 4096 bytes: identity, counts, generation, futex word, one epoch word a group
 *     4096          value words:   flag_capacity  x 8
 *     ...           flag names:    flag_capacity  x 64
 *     ...           flag notes:    flag_capacity  x 64
 *     ...           group records: group_capacity x 1024   (name, and what was last said about a rollback and a re-arm)
 *
 * The file is mapped shared by every process that uses it; numbers are in the host's byte order (a file of the other order is refused
 * as a foreign version). A flag's place never changes and nothing is ever removed, so an index, once seen, stays valid.
 *
 * The two words. Both carry an epoch in their upper 48 bits; epochs begin at 1, so that a page of zeroes is "off".
 *
 *     epoch word   63..16 epoch   bit 1 transient (rollbacks are not sticky)   bit 0 rolled back
 *     value word   63..16 epoch of the group when it was set   bit 15 explicit (set, not the default)   9..8 kind   6..0 percent
 *
 * A value counts only while its epoch is the group's. Advancing the epoch, in one atomic operation on one word, therefore turns every
 * flag of the group off in every process at once. A writer puts the epoch that it read *before* into the value word: when a rollback
 * overtakes it, what it writes is already outdated.
 */
#ifndef FDN_FLAG_FORMAT_H
#define FDN_FLAG_FORMAT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/fdn_atomic.h"

#define FDN_FLAG_MAGIC "FDNFLAGS"
#define FDN_FLAG_VERSION 1u
#define FDN_FLAG_LAYOUT 1u
#define FDN_FLAG_FORMAT ((FDN_FLAG_LAYOUT << 16) | FDN_FLAG_VERSION)

#define FDN_FLAG_HEADER_BYTES 4096u
#define FDN_FLAG_NAME_MAX 55u /* bytes of UTF-8 */
#define FDN_FLAG_WHO_MAX 47u
#define FDN_FLAG_REASON_MAX 119u
#define FDN_FLAG_GROUPS_MAX 256u    /* epoch words in the header */
#define FDN_FLAG_CAPACITY_MAX 8192u /* flags */
#define FDN_FLAG_CAPACITY_STEP 512u /* keeps every section on a page boundary */
#define FDN_FLAG_CAPACITY 1024u     /* of a file created without saying otherwise */
#define FDN_FLAG_GROUP_CAPACITY 64u

#define FDN_FLAG_EPOCH_SHIFT 16
#define FDN_FLAG_EPOCH_MASK (~(uint64_t)0 << FDN_FLAG_EPOCH_SHIFT)
#define FDN_FLAG_EPOCH_ONE ((uint64_t)1 << FDN_FLAG_EPOCH_SHIFT)
#define FDN_FLAG_ROLLED_BACK ((uint64_t)1)
#define FDN_FLAG_TRANSIENT ((uint64_t)2)
#define FDN_FLAG_EXPLICIT ((uint64_t)1 << 15)

/* A value: the lower bits of a value word. */
typedef uint16_t fdn_flag_value;
#define FDN_FLAG_FALSE ((fdn_flag_value)0)
#define FDN_FLAG_TRUE ((fdn_flag_value)0x100)
#define FDN_FLAG_PERCENTAGE ((fdn_flag_value)0x200) /* | percent, 0..100 */
#define FDN_FLAG_KIND_MASK ((fdn_flag_value)0x300)
#define FDN_FLAG_PERCENT_MASK ((fdn_flag_value)0x7f)
#define FDN_FLAG_VALUE_MASK (FDN_FLAG_KIND_MASK | FDN_FLAG_PERCENT_MASK)

typedef struct {
    char magic[8];           /*   0 FDN_FLAG_MAGIC */
    uint32_t format;         /*   8 version (low half) and layout (high half) */
    uint32_t header_bytes;   /*  12 4096 */
    uint8_t uuid[16];        /*  16 identity of this file, random */
    uint64_t created_ns;     /*  32 wall clock */
    uint32_t flag_capacity;  /*  40 */
    uint32_t group_capacity; /*  44 */
    uint64_t file_bytes;     /*  48 */
    uint64_t checksum;       /*  56 XXH3-64 of bytes 0..55 */
    /* Counts are published (release) after the record they count is complete. */
    _Atomic uint32_t flag_count;                  /*  64 */
    _Atomic uint32_t group_count;                 /*  68 */
    uint8_t reserved0[56];                        /*  72 */
    _Atomic uint64_t generation;                  /* 128 counts beginnings and ends of changes */
    _Atomic uint32_t futex;                       /* 136 watchers sleep on it */
    uint32_t reserved1;                           /* 140 */
    _Atomic uint64_t command_sequence;            /* 144 last operator's command; zero in this version */
    uint8_t reserved2[1896];                      /* 152 */
    _Atomic uint64_t epochs[FDN_FLAG_GROUPS_MAX]; /* 2048 */
} fdn_flag_header;

/* A name, written once under the sidecar's lock, before its count is published. */
typedef struct {
    uint8_t length;               /* 0 */
    char name[FDN_FLAG_NAME_MAX]; /* 1, UTF-8 without control characters, zero-padded */
    uint16_t group;               /* 56 index of the group; in a group's own record its own index */
    uint16_t reserved;            /* 58 */
    uint32_t checksum;            /* 60 low half of XXH3-64 of bytes 0..59, salted with the record's index */
} fdn_flag_name;

typedef struct {
    _Atomic uint64_t changed_ns; /* 0 wall clock of the last set */
    _Atomic uint64_t defaults;   /* 8 bit 0: the default last declared */
    uint64_t reserved[6];        /* 16 */
} fdn_flag_note;

/*
 * What was said about one rollback or re-arm. Written after the flip, without a lock, by whoever did it: words, and a checksum over
 * them. A reader that meets a half-written or overwritten note finds that the checksum does not hold, and reports no reason.
 */
#define FDN_FLAG_EVENT_WORDS 24
typedef struct {
    _Atomic uint64_t word[FDN_FLAG_EVENT_WORDS]; /* 0 checksum, 1 epoch << 1 | rearm, 2 wall ns, 3..8 who, 9..23 why */
} fdn_flag_event;

#define FDN_FLAG_EVENTS 4
typedef struct {
    fdn_flag_name name;                     /* 0 */
    fdn_flag_event events[FDN_FLAG_EVENTS]; /* 64; the one of an epoch: (epoch << 1 | rearm) mod 4 */
    uint8_t reserved[192];                  /* 832 */
} fdn_flag_group_record;

_Static_assert(sizeof(fdn_flag_header) == FDN_FLAG_HEADER_BYTES, "header");
_Static_assert(offsetof(fdn_flag_header, checksum) == 56, "header");
_Static_assert(offsetof(fdn_flag_header, flag_count) == 64, "header");
_Static_assert(offsetof(fdn_flag_header, generation) == 128, "header");
_Static_assert(offsetof(fdn_flag_header, command_sequence) == 144, "header");
_Static_assert(offsetof(fdn_flag_header, epochs) == 2048, "header");
_Static_assert(sizeof(fdn_flag_name) == 64 && offsetof(fdn_flag_name, group) == 56 && offsetof(fdn_flag_name, checksum) == 60, "name");
_Static_assert(sizeof(fdn_flag_note) == 64, "note");
_Static_assert(sizeof(fdn_flag_event) == 192, "event");
_Static_assert(sizeof(fdn_flag_group_record) == 1024 && offsetof(fdn_flag_group_record, events) == 64, "group");
_Static_assert(FDN_FLAG_WHO_MAX + 1 == 48 && FDN_FLAG_REASON_MAX + 1 == 120, "event");

/* Where the sections stand, and how long the file is. */
static inline size_t fdn_flag_values_at(void)
{
    return FDN_FLAG_HEADER_BYTES;
}
static inline size_t fdn_flag_names_at(uint32_t flag_capacity)
{
    return fdn_flag_values_at() + (size_t)flag_capacity * sizeof(uint64_t);
}
static inline size_t fdn_flag_notes_at(uint32_t flag_capacity)
{
    return fdn_flag_names_at(flag_capacity) + (size_t)flag_capacity * sizeof(fdn_flag_name);
}
static inline size_t fdn_flag_groups_at(uint32_t flag_capacity)
{
    return fdn_flag_notes_at(flag_capacity) + (size_t)flag_capacity * sizeof(fdn_flag_note);
}
static inline size_t fdn_flag_file_bytes(uint32_t flag_capacity, uint32_t group_capacity)
{
    return fdn_flag_groups_at(flag_capacity) + (size_t)group_capacity * sizeof(fdn_flag_group_record);
}

static inline uint64_t fdn_flag_epoch(uint64_t word)
{
    return word >> FDN_FLAG_EPOCH_SHIFT;
}

/* The value in force, from the group's epoch word (loaded first) and the flag's value word. */
static inline fdn_flag_value fdn_flag_in_force(uint64_t epoch_word, uint64_t value_word)
{
    uint64_t outdated = ((epoch_word ^ value_word) & FDN_FLAG_EPOCH_MASK) | (epoch_word & FDN_FLAG_ROLLED_BACK);
    return outdated ? FDN_FLAG_FALSE : (fdn_flag_value)(value_word & FDN_FLAG_VALUE_MASK);
}

static inline bool fdn_flag_value_valid(fdn_flag_value v)
{
    switch (v & FDN_FLAG_KIND_MASK) {
    case FDN_FLAG_PERCENTAGE:
        return (v & ~FDN_FLAG_VALUE_MASK) == 0 && (v & FDN_FLAG_PERCENT_MASK) <= 100;
    default:
        return v == FDN_FLAG_FALSE || v == FDN_FLAG_TRUE;
    }
}

#endif
