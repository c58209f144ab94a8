/*
 * nif_flags.h - what the files of the flags library share.
 *
 *     state -> table -> entries, keyed on the atom's term word -> two words in the mapped file
 *
 * An atom's term is one machine word that stays the same as long as the VM lives, so a reader compares words, never names. The table
 * of a file is allocated at twice the file's capacity when the file is opened, filled as names are bound, and kept until the library
 * is unloaded: a reader holds no reference and needs no lock. An entry is written completely before its atom is published (release in
 * flags_bind, acquire in flags_lookup). When another file is opened, the old one is detached (its pages read zero) but stays mapped.
 */
#ifndef FDN_NIF_FLAGS_H
#define FDN_NIF_FLAGS_H

#include "nif/nif_common.h"
#include "shared/flag_cohort.h"
#include "shared/flag_map.h"

/* Longer binaries go through erlang:phash2, which yields. */
#define FLAGS_COHORT_BYTES_MAX 4096u

typedef struct {
    _Atomic ERL_NIF_TERM atom; /* 0: free */
    const _Atomic uint64_t *epoch;
    const _Atomic uint64_t *value;
    uint32_t seed; /* fdn_flag_cohort_seed */
    uint32_t index;
} flags_entry;

typedef struct flags_table {
    struct flags_table *older;
    fdn_flags *file;
    _Atomic uint32_t bound;       /* flags 0 .. bound-1 have an atom */
    _Atomic(ERL_NIF_TERM) *atoms; /* by index */
    unsigned shift;
    uint32_t mask;
    void *memory; /* what was allocated */
    _Alignas(FDN_CACHE_LINE) flags_entry entries[];
} flags_table;

typedef struct {
    _Atomic(flags_table *) table; /* of the open file; NULL before the first */
    _Atomic bool native_cohorts;  /* the self-check against erlang:phash2 passed */
    _Atomic bool dirty;           /* changed here and not yet the server's to sync */
    _Atomic bool reported;        /* the server was told and has not looked yet */
    _Atomic bool stop;            /* to the watcher */
    _Atomic int sync_error;       /* of the last sync */
    ErlNifMutex *lock;            /* for all below */
    const void *owner;            /* the library whose code the watcher runs */
    bool watching;
    ErlNifTid watcher;
    bool has_server;
    ErlNifPid server;
    ERL_NIF_TERM message; /* an atom */
    ErlNifEnv *stash_env; /* what the server wants to find again after a crash */
    ERL_NIF_TERM stash;
} flags_state;

extern const fdn_part flags_part;

static inline flags_state *flags_state_of(ErlNifEnv *env)
{
    return (flags_state *)fdn_lib_of(env)->state;
}

static inline flags_table *flags_table_of(flags_state *s)
{
    return atomic_load_explicit(&s->table, memory_order_acquire);
}

static inline uint32_t flags_slot(const flags_table *t, ERL_NIF_TERM atom)
{
    return (uint32_t)(((uint64_t)atom * 0x9e3779b97f4a7c15u) >> t->shift);
}

/* NULL for a name that is not bound (and for what is no atom). */
static inline const flags_entry *flags_lookup(const flags_table *t, ERL_NIF_TERM atom)
{
    if (t == NULL)
        return NULL;
    for (uint32_t i = flags_slot(t, atom);; i = (i + 1) & t->mask) {
        ERL_NIF_TERM there = atomic_load_explicit(&t->entries[i].atom, memory_order_acquire);
        if (there == atom)
            return &t->entries[i];
        if (there == 0)
            return NULL;
    }
}

/* The hash of {Flag, Id}; false for an id that is left to Erlang. */
static inline bool flags_cohort_hash(ErlNifEnv *env, uint32_t seed, ERL_NIF_TERM id, uint32_t *hash)
{
    ErlNifSInt64 number;
    ErlNifBinary bytes;
    if (enif_get_int64(env, id, &number))
        *hash = fdn_flag_cohort_int(seed, number);
    else if (enif_inspect_binary(env, id, &bytes) && bytes.size <= FLAGS_COHORT_BYTES_MAX)
        *hash = fdn_flag_cohort_bytes(seed, bytes.data, bytes.size);
    else
        return false;
    return true;
}

/* nif_flags_table.c: everything under the lock. */
flags_table *flags_table_new(fdn_flags *file);
void flags_table_free(flags_table *t); /* closes the file */
int flags_bind(flags_table *t, uint32_t index, ERL_NIF_TERM atom, uint32_t atom_hash);

/* nif_flags_watch.c: start and stop the thread that watches the file; the lock is held. */
int flags_watch_start(flags_state *s);
void flags_watch_stop(flags_state *s);

/* nif_flags_cold.c: the NIFs that are not hot. */
#define FLAGS_NIF(name) ERL_NIF_TERM flags_##name(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[])
FLAGS_NIF(open);
FLAGS_NIF(declare);
FLAGS_NIF(bind_nif);
FLAGS_NIF(unbound);
FLAGS_NIF(values);
FLAGS_NIF(groups);
FLAGS_NIF(flag_info);
FLAGS_NIF(file_info);
FLAGS_NIF(rollback);
FLAGS_NIF(rearm);
FLAGS_NIF(sync);
FLAGS_NIF(looked);
FLAGS_NIF(stash);
FLAGS_NIF(stashed);
FLAGS_NIF(cohort);
FLAGS_NIF(trust_cohorts);

ERL_NIF_TERM flags_value_term(ErlNifEnv *env, fdn_flag_value value);

#endif
