/* flag_map_private.h - what the flag_map*.c files share. */
#ifndef FDN_FLAG_MAP_PRIVATE_H
#define FDN_FLAG_MAP_PRIVATE_H

#include "shared/flag_map.h"

struct fdn_flags {
    char *base;
    size_t size;
    int fd;
    int guard;
    bool read_only;
    _Atomic bool detached;
    uint8_t uuid[16];
    uint32_t flag_capacity;
    uint32_t group_capacity;
    fdn_flag_header *header;
    _Atomic uint64_t *values;
    fdn_flag_name *names;
    fdn_flag_note *notes;
    fdn_flag_group_record *groups;
    char path[];
};

/* Checksum of a name record; flags and groups are salted apart, so that a record at another's place does not pass. */
uint32_t fdn_flag_name_checksum(const fdn_flag_name *n, bool group, uint32_t index);

/* 0, FDN_ENAME or FDN_EINVAL. */
int fdn_flag_name_check(const char *name);

/* Whether the record is complete and undamaged. */
bool fdn_flag_name_valid(const fdn_flags *f, const fdn_flag_name *n, bool group, uint32_t index);

/* 0 where changes are possible, else FDN_EREADONLY or FDN_EFAULTED. No system call. */
int fdn_flags_writable(const fdn_flags *f);

/* Around every change. */
void fdn_flags_begin(fdn_flags *f);
void fdn_flags_end(fdn_flags *f);

/* The folder of the flag file, which nobody else may write; create: where missing, and where it is ours to create in. */
int fdn_flags_open_dir(const char *path, bool create, const char **base, int *dir);

#endif
