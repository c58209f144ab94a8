/* The snapshot NIF: registry, opening, closing, what a store tells of itself. */
#include "nif/nif_snapshot.h"

#include <string.h>

#include "base/fdn_clock.h"
#include "base/fdn_error.h"
#include "base/fdn_hash.h"

#define SNAP_ABI 1

static ErlNifResourceType *snap_type(ErlNifEnv *env)
{
    return fdn_lib_of(env)->types[0];
}

static void snap_destroy(ErlNifEnv *env, void *object)
{
    (void)env;
    snap *s = object;
    fdn_store_free(s->store);
    enif_free(s->path);
}

static int open_types(ErlNifEnv *env, fdn_lib *lib)
{
    ErlNifResourceTypeInit init = {.dtor = snap_destroy};
    lib->types[0] = enif_open_resource_type_x(env, "foundation_snapshot", &init, ERL_NIF_RT_CREATE | ERL_NIF_RT_TAKEOVER, NULL);
    return lib->types[0] ? 0 : 1;
}

static int create(fdn_lib *lib, void **out)
{
    (void)lib;
    snap_state *state = enif_alloc(sizeof *state);
    if (state == NULL)
        return 1;
    memset(state, 0, sizeof *state);
    state->lock = enif_rwlock_create("foundation_snapshot_registry");
    if (state->lock == NULL) {
        enif_free(state);
        return 1;
    }
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_mutex_init(&state->wake_lock, NULL);
    pthread_cond_init(&state->wake, &attr);
    pthread_condattr_destroy(&attr);
    *out = state;
    return 0;
}

/* With the last library: what is still open is flushed and closed. */
static void destroy(void *p)
{
    snap_state *state = p;
    while (state->count > 0) {
        snap *s = state->stores[--state->count];
        (void)fdn_store_close(s->store);
        enif_release_resource(s);
    }
    enif_free(state->stores);
    pthread_cond_destroy(&state->wake);
    pthread_mutex_destroy(&state->wake_lock);
    enif_rwlock_destroy(state->lock);
    enif_free(state);
}

static void pause_state(void *state)
{
    snap_thread_stop(state);
}

static int resume_state(void *state)
{
    return snap_thread_start(state);
}

static const fdn_part part = {.name = "snapshot",
                              .abi = SNAP_ABI,
                              .open_types = open_types,
                              .create = create,
                              .pause = pause_state,
                              .resume = resume_state,
                              .destroy = destroy};

/* ---- registry ---- */

/* Under the registry lock. */
static snap *by_name(const snap_state *state, ERL_NIF_TERM name)
{
    for (size_t i = 0; i < state->count; i++) {
        if (state->stores[i]->name == name)
            return state->stores[i];
    }
    return NULL;
}

snap *snap_get(ErlNifEnv *env, ERL_NIF_TERM term, ERL_NIF_TERM *raised)
{
    snap_state *state = fdn_lib_of(env)->state;
    void *object;
    snap *s = NULL;
    *raised = 0;
    if (enif_is_atom(env, term)) {
        enif_rwlock_rlock(state->lock);
        s = by_name(state, term);
        if (s)
            enif_keep_resource(s);
        enif_rwlock_runlock(state->lock);
        if (s == NULL)
            *raised = fdn_raise_badarg(env, "store", "not_open");
    } else if (enif_get_resource(env, term, snap_type(env), &object)) {
        s = object;
        enif_keep_resource(s);
    } else {
        *raised = fdn_raise_badarg(env, "store", "not_a_store");
    }
    return s;
}

void snap_put(snap *s)
{
    enif_release_resource(s);
}

static bool registry_add(snap_state *state, snap *s)
{
    if (state->count == state->cap) {
        size_t cap = state->cap ? 2 * state->cap : 8;
        snap **stores = enif_realloc(state->stores, cap * sizeof *stores);
        if (stores == NULL)
            return false;
        state->stores = stores;
        state->cap = cap;
    }
    enif_keep_resource(s);
    state->stores[state->count++] = s;
    return true;
}

/* ---- errors ---- */

ERL_NIF_TERM snap_error(ErlNifEnv *env, snap *s, int rc)
{
    const fdn_atoms *a = &fdn_lib_of(env)->atoms;
    if (rc == FDN_ECLOSED)
        return fdn_raise_badarg(env, "store", "closed");
    if (rc != FDN_EREADONLY)
        return fdn_error_term(env, rc);
    ERL_NIF_TERM why = enif_make_tuple2(env, a->read_only, enif_make_atom(env, fdn_error_name(fdn_store_failed(s->store))));
    return enif_make_tuple2(env, a->error, why);
}

static ERL_NIF_TERM make_path(ErlNifEnv *env, const char *path)
{
    ERL_NIF_TERM term;
    size_t len = strlen(path);
    unsigned char *p = enif_make_new_binary(env, len, &term);
    if (len > 0)
        memcpy(p, path, len);
    return term;
}

/* {open_failed, Word, Path, Offset, OsPid}: foundation_snapshot.erl gives it its documented shape. */
static ERL_NIF_TERM open_error(ErlNifEnv *env, int rc, const fdn_store_place *place)
{
    return enif_make_tuple5(env, enif_make_atom(env, "open_failed"), enif_make_atom(env, fdn_error_name(rc)),
                            make_path(env, place->path), enif_make_uint64(env, place->offset), enif_make_long(env, place->pid));
}

/* ---- open_nif(Name, Path, Durability, IntervalMs, SegmentBytes, MaxBytes, ZerosEqual, Owner) ---- */

/* The store of this name, if there is one: taken over by the new owner where the old one is dead. */
static bool attach(ErlNifEnv *env, ERL_NIF_TERM name, const char *path, const ErlNifPid *owner, ERL_NIF_TERM *answer)
{
    snap_state *state = fdn_lib_of(env)->state;
    enif_rwlock_rwlock(state->lock);
    snap *s = by_name(state, name);
    if (s == NULL) {
        /* nothing to take over */
    } else if (strcmp(s->path, path) != 0) {
        *answer = enif_make_tuple2(env, enif_make_atom(env, "already_open"), make_path(env, s->path));
    } else if (enif_is_process_alive(env, &s->owner) && enif_compare_pids(&s->owner, owner) != 0) {
        *answer = enif_make_tuple2(env, fdn_lib_of(env)->atoms.already_started, enif_make_pid(env, &s->owner));
    } else {
        s->owner = *owner;
        *answer = enif_make_tuple2(env, fdn_lib_of(env)->atoms.ok, enif_make_resource(env, s));
    }
    enif_rwlock_rwunlock(state->lock);
    return s != NULL;
}

static ERL_NIF_TERM register_store(ErlNifEnv *env, snap *s)
{
    snap_state *state = fdn_lib_of(env)->state;
    ERL_NIF_TERM answer;
    enif_rwlock_rwlock(state->lock);
    snap *other = by_name(state, s->name); /* another caller was faster, with another path: this one's is locked */
    if (other)
        answer = enif_make_tuple2(env, enif_make_atom(env, "already_open"), make_path(env, other->path));
    else if (!registry_add(state, s))
        answer = fdn_error_term(env, FDN_ENOMEM);
    else
        answer = enif_make_tuple2(env, fdn_lib_of(env)->atoms.ok, enif_make_resource(env, s));
    enif_rwlock_rwunlock(state->lock);
    snap_kick(state);
    return answer;
}

static ERL_NIF_TERM open_nif(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[])
{
    const fdn_atoms *a = &fdn_lib_of(env)->atoms;
    char path[4096];
    ErlNifUInt64 interval_ms, segment_bytes, max_bytes;
    ErlNifPid owner;
    fdn_store_place place;
    ERL_NIF_TERM answer;
    if (!enif_is_atom(env, argv[0]))
        return fdn_raise_badarg(env, "name", "not_an_atom");
    if (!fdn_get_path(env, argv[1], path, sizeof path))
        return fdn_raise_badarg(env, "path", "not_a_path");
    if (!enif_get_uint64(env, argv[3], &interval_ms) || !enif_get_uint64(env, argv[4], &segment_bytes) ||
        !enif_get_uint64(env, argv[5], &max_bytes) || !enif_get_local_pid(env, argv[7], &owner))
        return fdn_raise_badarg(env, "options", "out_of_range");
    if (attach(env, argv[0], path, &owner, &answer))
        return answer;
    fdn_store_options options = {.path = path,
                                 .durability = argv[2] == a->sync       ? FDN_STORE_SYNC
                                               : argv[2] == a->interval ? FDN_STORE_INTERVAL
                                                                        : FDN_STORE_ASYNC,
                                 .segment_bytes = segment_bytes,
                                 .max_bytes = max_bytes,
                                 .zeros_equal = argv[6] == a->true_};
    snap *s = enif_alloc_resource(snap_type(env), sizeof *s);
    if (s == NULL)
        return fdn_error_term(env, FDN_ENOMEM);
    memset(s, 0, sizeof *s);
    s->name = argv[0];
    s->owner = owner;
    s->durability = options.durability;
    s->interval_ns = interval_ms * FDN_NS_PER_MS;
    s->synced_at = fdn_clock_mono_ns();
    s->path = enif_alloc(strlen(path) + 1);
    int rc = s->path ? fdn_store_open(&options, &s->store, &place) : FDN_ENOMEM;
    if (rc != 0) {
        answer = s->path ? open_error(env, rc, &place) : fdn_error_term(env, rc);
    } else {
        strcpy(s->path, path);
        fdn_random(&s->incarnation, sizeof s->incarnation);
        s->incarnation >>= 5; /* fits a small integer */
        answer = register_store(env, s);
    }
    enif_release_resource(s);
    return answer;
}

/* ---- close_nif(Store): the flush's result, and the owner ---- */

static ERL_NIF_TERM close_nif(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[])
{
    snap_state *state = fdn_lib_of(env)->state;
    ERL_NIF_TERM answer;
    snap *s = snap_get(env, argv[0], &answer);
    bool mine = false;
    if (s == NULL)
        return answer;
    enif_rwlock_rwlock(state->lock);
    for (size_t i = 0; i < state->count && !mine; i++) {
        if (state->stores[i] == s) {
            state->stores[i] = state->stores[--state->count];
            mine = true;
        }
    }
    ErlNifPid owner = s->owner;
    enif_rwlock_rwunlock(state->lock);
    if (mine) {
        int rc = fdn_store_close(s->store);
        ERL_NIF_TERM flushed = rc == 0 ? fdn_lib_of(env)->atoms.ok : fdn_error_term(env, rc);
        answer = enif_make_tuple2(env, flushed, enif_make_pid(env, &owner));
        enif_release_resource(s); /* the registry's */
    } else {
        answer = snap_error(env, s, FDN_ECLOSED);
    }
    snap_put(s);
    return answer;
}

static ERL_NIF_TERM sync_nif(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[])
{
    ERL_NIF_TERM answer;
    snap *s = snap_get(env, argv[0], &answer);
    if (s == NULL)
        return answer;
    int rc = fdn_store_sync(s->store);
    answer = rc == 0 ? fdn_lib_of(env)->atoms.ok : snap_error(env, s, rc);
    snap_put(s);
    return answer;
}

/* ---- info ---- */

typedef struct {
    ERL_NIF_TERM keys[24];
    ERL_NIF_TERM values[24];
    size_t count;
} pairs;

static void pair(ErlNifEnv *env, pairs *p, const char *key, ERL_NIF_TERM value)
{
    p->keys[p->count] = enif_make_atom(env, key);
    p->values[p->count++] = value;
}

static void number(ErlNifEnv *env, pairs *p, const char *key, uint64_t value)
{
    pair(env, p, key, enif_make_uint64(env, value));
}

static ERL_NIF_TERM durability_term(ErlNifEnv *env, const snap *s)
{
    const fdn_atoms *a = &fdn_lib_of(env)->atoms;
    if (s->durability == FDN_STORE_INTERVAL)
        return enif_make_tuple2(env, a->interval, enif_make_uint64(env, s->interval_ns / FDN_NS_PER_MS));
    return s->durability == FDN_STORE_SYNC ? a->sync : a->async;
}

static ERL_NIF_TERM info(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[])
{
    const fdn_atoms *a = &fdn_lib_of(env)->atoms;
    snap_state *state = fdn_lib_of(env)->state;
    fdn_store_info i;
    ERL_NIF_TERM map;
    pairs p = {.count = 0};
    snap *s = snap_get(env, argv[0], &map);
    if (s == NULL)
        return map;
    fdn_store_get_info(s->store, &i);
    if (i.closed) {
        map = snap_error(env, s, FDN_ECLOSED);
        snap_put(s);
        return map;
    }
    enif_rwlock_rlock(state->lock);
    ErlNifPid owner = s->owner;
    enif_rwlock_runlock(state->lock);
    pair(env, &p, "name", s->name);
    pair(env, &p, "path", make_path(env, s->path));
    pair(env, &p, "durability", durability_term(env, s));
    pair(env, &p, "owner", enif_make_pid(env, &owner));
    pair(env, &p, "read_only", i.failed ? enif_make_atom(env, fdn_error_name(i.failed)) : a->false_);
    number(env, &p, "keys", i.keys);
    number(env, &p, "tombstones", i.tombstones);
    number(env, &p, "live_bytes", i.live_bytes);
    number(env, &p, "used_bytes", i.used_bytes);
    number(env, &p, "disk_bytes", i.disk_bytes);
    number(env, &p, "segments", i.segments);
    number(env, &p, "memory", i.memory_bytes);
    number(env, &p, "version", i.lsn);
    number(env, &p, "durable_version", i.durable_lsn);
    number(env, &p, "compactions", i.compactions);
    number(env, &p, "copied_bytes", i.copied_bytes);
    number(env, &p, "recovered_cut", i.recovered_cut);
    ERL_NIF_TERM uuid;
    memcpy(enif_make_new_binary(env, sizeof i.uuid, &uuid), i.uuid, sizeof i.uuid);
    pair(env, &p, "uuid", uuid);
    if (!enif_make_map_from_arrays(env, p.keys, p.values, p.count, &map))
        map = fdn_error_term(env, FDN_ENOMEM);
    snap_put(s);
    return map;
}

/* whereis(Name) -> Store | undefined */
static ERL_NIF_TERM whereis(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[])
{
    snap_state *state = fdn_lib_of(env)->state;
    ERL_NIF_TERM answer = fdn_lib_of(env)->atoms.undefined;
    if (!enif_is_atom(env, argv[0]))
        return fdn_raise_badarg(env, "name", "not_an_atom");
    enif_rwlock_rlock(state->lock);
    snap *s = by_name(state, argv[0]);
    if (s)
        answer = enif_make_resource(env, s);
    enif_rwlock_runlock(state->lock);
    return answer;
}

#define SNAP_ENTRY(text, arity, f) {text, arity, f, 0},
static ErlNifFunc functions[] = {{"open_nif", 8, open_nif, ERL_NIF_DIRTY_JOB_IO_BOUND},
                                 {"close_nif", 1, close_nif, ERL_NIF_DIRTY_JOB_IO_BOUND},
                                 {"sync", 1, sync_nif, ERL_NIF_DIRTY_JOB_IO_BOUND},
                                 {"info", 1, info, ERL_NIF_DIRTY_JOB_IO_BOUND},
                                 {"scan_nif", 2, snap_scan, ERL_NIF_DIRTY_JOB_IO_BOUND},
                                 {"whereis", 1, whereis, 0},
                                 SNAP_OPS(SNAP_ENTRY)};

FDN_NIF_INIT(foundation_snapshot, functions, &part)
