/*
 * nif_snapshot.h - what the files of the snapshot NIF share.
 *
 * Life of a store. `open_nif` makes a resource and puts it into the registry (the part's state), which holds one reference, so the
 * store lives on when its owner process or the last Erlang term of it is gone. `close_nif` takes it out, closes the engine's store, and
 * drops that reference; calls that still run, or come with an old handle, find it closed. The last reference frees the memory.
 *
 * Schedulers. A call begins on its normal scheduler and does there only what is bounded: small terms, locks held for microseconds, a
 * copy into mapped memory. Whatever may block or take long (sync mode, a large term, a contended log, rotation) starts again on a dirty
 * I/O scheduler; nothing has happened until then.
 */
#ifndef FDN_NIF_SNAPSHOT_H
#define FDN_NIF_SNAPSHOT_H

#include <pthread.h>

#include "engine/codec.h"
#include "engine/store.h"
#include "nif/nif_common.h"

/* Encoded bytes that a normal scheduler may encode, decode or copy in one call: a fraction of a millisecond. */
#define SNAP_SMALL_BYTES 32768
#define SNAP_SMALL_TERMS 2000

typedef struct snap {
    fdn_store *store;
    ERL_NIF_TERM name; /* an atom */
    char *path;
    int durability;
    uint64_t interval_ns;
    uint64_t synced_at;   /* monotonic; of the maintenance thread */
    uint64_t incarnation; /* of this opening; versions of another one are stale */
    ErlNifPid owner;      /* registry lock */
} snap;

/* The part's state: the registry and the maintenance thread. */
typedef struct snap_state {
    ErlNifRWLock *lock;
    snap **stores;
    size_t count;
    size_t cap;
    pthread_mutex_t wake_lock; /* the VM's conditions have no timed wait */
    pthread_cond_t wake;
    bool stop;   /* wake_lock */
    bool kicked; /* wake_lock */
    ErlNifTid thread;
} snap_state;

/* nif_snapshot.c: a counted reference to a store by handle or name, or NULL and what to return. snap_put drops it. */
snap *snap_get(ErlNifEnv *env, ERL_NIF_TERM term, ERL_NIF_TERM *raised);
void snap_put(snap *s);
/* {error, Reason} of a write, or badarg for a closed store. */
ERL_NIF_TERM snap_error(ErlNifEnv *env, snap *s, int rc);

/* nif_snapshot_thread.c. kick: look at the stores now, there is something new. */
void snap_kick(snap_state *state);
int snap_thread_start(snap_state *state);
void snap_thread_stop(snap_state *state);

/* nif_snapshot_term.c: whether the term encodes to a small binary; looks at SNAP_SMALL_TERMS subterms at most. */
bool snap_is_small(ErlNifEnv *env, ERL_NIF_TERM term);

/* nif_snapshot_ops.c */
#define SNAP_OPS(X)                                                                                                                    \
    X("save", 3, snap_save)                                                                                                            \
    X("update", 4, snap_update)                                                                                                        \
    X("insert", 2, snap_insert)                                                                                                        \
    X("delete", 2, snap_delete)                                                                                                        \
    X("commit", 2, snap_commit)                                                                                                        \
    X("load", 2, snap_load)                                                                                                            \
    X("lookup", 2, snap_lookup)                                                                                                        \
    X("member", 2, snap_member)
#define SNAP_DECLARE(text, arity, f) ERL_NIF_TERM f(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]);
SNAP_OPS(SNAP_DECLARE)
#undef SNAP_DECLARE
ERL_NIF_TERM snap_scan(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]);

#endif
