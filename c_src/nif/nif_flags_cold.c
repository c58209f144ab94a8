/* The NIFs of foundation_flags that are not hot: opening, names, lists, rollback. Their arguments come from the Erlang modules. */
#include <limits.h>
#include <string.h>

#include "base/fdn_clock.h"
#include "base/fdn_error.h"
#include "base/fdn_guard.h"
#include "nif/nif_flags.h"

#define FLAGS_A_CALL 512u /* lists are given in parts, so that no call is long */
#define GROUPS_A_CALL 32u
#define TEXT_MAX 512u

static ERL_NIF_TERM make_bytes(ErlNifEnv *env, const void *data, size_t len)
{
    ERL_NIF_TERM term;
    unsigned char *to = enif_make_new_binary(env, len, &term);
    if (to)
        memcpy(to, data, len);
    return term;
}

static ERL_NIF_TERM make_text(ErlNifEnv *env, const char *text)
{
    return make_bytes(env, text, strlen(text));
}

static ERL_NIF_TERM make_bool(ErlNifEnv *env, bool value)
{
    const fdn_atoms *atoms = &fdn_lib_of(env)->atoms;
    return value ? atoms->true_ : atoms->false_;
}

/* A binary without NUL into buf; false where it does not fit. */
static bool get_text(ErlNifEnv *env, ERL_NIF_TERM term, char *buf, size_t size)
{
    ErlNifBinary bin;
    if (!enif_inspect_binary(env, term, &bin) || bin.size >= size || memchr(bin.data, 0, bin.size))
        return false;
    memcpy(buf, bin.data, bin.size);
    buf[bin.size] = '\0';
    return true;
}

/* The table of the open file, or NULL. */
static flags_table *open_table(ErlNifEnv *env)
{
    return flags_table_of(flags_state_of(env));
}

/* ---- opening -----------------------------------------------------------------------------------------------------------------------
 */

/* Another file in place of the open one, whose readers see zeroes from here on. The lock is held. */
static int switch_file(flags_state *s, const char *path)
{
    fdn_flags *file = NULL;
    int rc = fdn_flags_open(&file, path, FDN_FLAGS_CREATE);
    if (rc != 0)
        return rc;
    flags_table *t = flags_table_new(file);
    if (t == NULL) {
        fdn_flags_close(file);
        return FDN_ENOMEM;
    }
    flags_watch_stop(s);
    t->older = atomic_load(&s->table);
    atomic_store_explicit(&s->table, t, memory_order_release);
    if (t->older)
        fdn_flags_detach(t->older->file);
    return 0;
}

/*
 * open_nif(Path) -> {ok, attached | opened} | {error, Word}. The caller becomes the one whom the watcher tells. A file that is open
 * already, and sound, is not opened again: what survives a crash of the server is this mapping.
 */
FLAGS_NIF(open)
{
    const fdn_atoms *atoms = &fdn_lib_of(env)->atoms;
    flags_state *s = flags_state_of(env);
    char path[PATH_MAX];
    if (!fdn_get_path(env, argv[0], path, sizeof path))
        return fdn_error_term(env, FDN_EINVAL);
    enif_mutex_lock(s->lock);
    /* Called in a library that an upgrade has replaced meanwhile: its threads must not be started again. */
    int rc = s->owner == &flags_part ? 0 : FDN_EBUSY;
    flags_table *now = flags_table_of(s);
    bool attach = rc == 0 && now && strcmp(fdn_flags_path(now->file), path) == 0 && !fdn_flags_faulted(now->file) &&
                  fdn_flags_same_file(now->file, path);
    if (rc == 0 && !attach)
        rc = switch_file(s, path);
    if (rc == 0) {
        flags_watch_stop(s);
        s->has_server = enif_self(env, &s->server) != NULL;
        rc = flags_watch_start(s);
    }
    enif_mutex_unlock(s->lock);
    return rc == 0 ? enif_make_tuple2(env, atoms->ok, attach ? atoms->attached : atoms->opened) : fdn_error_term(env, rc);
}

/* ---- names -------------------------------------------------------------------------------------------------------------------------
 */

/* declare_nif(Flag, Group | undefined, Default, Sticky | undefined), names as binaries -> {ok, Index} | {error, Word} */
FLAGS_NIF(declare)
{
    const fdn_atoms *atoms = &fdn_lib_of(env)->atoms;
    flags_state *s = flags_state_of(env);
    flags_table *t = flags_table_of(s);
    char flag[TEXT_MAX], group[TEXT_MAX];
    uint32_t index = 0;
    if (t == NULL)
        return fdn_error_term(env, FDN_ECLOSED);
    if (!get_text(env, argv[0], flag, sizeof flag))
        return fdn_error_term(env, FDN_ENAME);
    bool has_group = argv[1] != atoms->undefined;
    if (has_group && !get_text(env, argv[1], group, sizeof group))
        return fdn_error_term(env, FDN_ENAME);
    int sticky = argv[3] == atoms->undefined ? -1 : argv[3] == atoms->true_;
    int rc = fdn_flags_declare(t->file, flag, has_group ? group : NULL, argv[2] == atoms->true_, sticky, &index);
    if (rc != 0)
        return fdn_error_term(env, rc);
    atomic_store(&s->dirty, true);
    return enif_make_tuple2(env, atoms->ok, enif_make_uint(env, index));
}

/* unbound_nif() -> [{Index, Name}]: flags in the file that have no atom in this VM yet, in order. */
FLAGS_NIF(unbound)
{
    flags_table *t = open_table(env);
    ERL_NIF_TERM list = enif_make_list(env, 0);
    if (t == NULL)
        return list;
    uint32_t from = atomic_load(&t->bound), to = fdn_flags_count(t->file);
    if (to > from + FLAGS_A_CALL)
        to = from + FLAGS_A_CALL;
    for (uint32_t i = to; i > from; i--) {
        fdn_flag_info info;
        if (fdn_flags_at(t->file, i - 1, &info) != 0)
            list = enif_make_list(env, 0); /* a damaged name, and what comes after it, stays unknown */
        else
            list = enif_make_list_cell(env, enif_make_tuple2(env, enif_make_uint(env, i - 1), make_text(env, info.name)), list);
    }
    return list;
}

/* bind_nif(Index, Flag, phash2(Flag, 1 bsl 32)) -> ok | {error, Word} */
FLAGS_NIF(bind_nif)
{
    flags_state *s = flags_state_of(env);
    unsigned index, hash;
    if (!enif_get_uint(env, argv[0], &index) || !enif_is_atom(env, argv[1]) || !enif_get_uint(env, argv[2], &hash))
        return enif_make_badarg(env);
    enif_mutex_lock(s->lock);
    flags_table *t = flags_table_of(s);
    int rc = t ? flags_bind(t, index, argv[1], hash) : FDN_ECLOSED;
    enif_mutex_unlock(s->lock);
    return fdn_result_term(env, rc);
}

/* ---- lists -------------------------------------------------------------------------------------------------------------------------
 */

/* values_nif(From) -> {[{Flag, ValueInForce, GroupIndex}], NextFrom | done} */
FLAGS_NIF(values)
{
    const fdn_atoms *atoms = &fdn_lib_of(env)->atoms;
    flags_table *t = open_table(env);
    ERL_NIF_TERM list = enif_make_list(env, 0);
    unsigned from;
    if (!enif_get_uint(env, argv[0], &from))
        return enif_make_badarg(env);
    uint32_t bound = t ? atomic_load(&t->bound) : 0;
    uint32_t to = bound > from && bound - from > FLAGS_A_CALL ? from + FLAGS_A_CALL : bound;
    for (uint32_t i = to; i > from; i--) {
        ERL_NIF_TERM atom = atomic_load(&t->atoms[i - 1]);
        const flags_entry *e = flags_lookup(t, atom);
        uint64_t epoch = atomic_load(e->epoch);
        ERL_NIF_TERM value = flags_value_term(env, fdn_flag_in_force(epoch, atomic_load(e->value)));
        ERL_NIF_TERM group = enif_make_uint(env, (unsigned)(e->epoch - fdn_flags_epoch_word(t->file, 0)));
        list = enif_make_list_cell(env, enif_make_tuple3(env, atom, value, group), list);
    }
    fdn_charge(env, to > from ? (to - from) * 128u : 0);
    return enif_make_tuple2(env, list, to < bound ? enif_make_uint(env, to) : atoms->done);
}

static ERL_NIF_TERM said_term(ErlNifEnv *env, const fdn_flag_said *said)
{
    if (!said->known)
        return fdn_lib_of(env)->atoms.undefined;
    return enif_make_tuple3(env, enif_make_uint64(env, said->at_ns / FDN_NS_PER_MS), make_text(env, said->who),
                            make_text(env, said->reason));
}

/* groups_nif(From) -> {[{Index, Name, Epoch, RolledBack, Sticky, Rollback, Rearm}], NextFrom | done}; the last two are {AtMs, Who,
 * Reason} or undefined. */
FLAGS_NIF(groups)
{
    const fdn_atoms *atoms = &fdn_lib_of(env)->atoms;
    flags_table *t = open_table(env);
    ERL_NIF_TERM list = enif_make_list(env, 0);
    unsigned from;
    if (!enif_get_uint(env, argv[0], &from))
        return enif_make_badarg(env);
    uint32_t count = t ? fdn_flags_group_count(t->file) : 0;
    uint32_t to = count > from && count - from > GROUPS_A_CALL ? from + GROUPS_A_CALL : count;
    for (uint32_t i = to; i > from; i--) {
        fdn_flag_group g;
        if (fdn_flags_group_at(t->file, i - 1, &g) != 0)
            continue;
        ERL_NIF_TERM is = enif_make_tuple7(env, enif_make_uint(env, i - 1), make_text(env, g.name), enif_make_uint64(env, g.epoch),
                                           make_bool(env, g.rolled_back), make_bool(env, g.sticky), said_term(env, &g.rollback),
                                           said_term(env, &g.rearm));
        list = enif_make_list_cell(env, is, list);
    }
    fdn_charge(env, to > from ? (to - from) * 1024u : 0);
    return enif_make_tuple2(env, list, to < count ? enif_make_uint(env, to) : atoms->done);
}

/* flag_info_nif(Flag) -> {GroupIndex, ValueInForce, Default, Explicit, ChangedMs} | undefined | {error, Word} */
FLAGS_NIF(flag_info)
{
    flags_table *t = open_table(env);
    const flags_entry *e = flags_lookup(t, argv[0]);
    fdn_flag_info info;
    if (e == NULL)
        return fdn_lib_of(env)->atoms.undefined;
    int rc = fdn_flags_at(t->file, e->index, &info);
    if (rc == FDN_EUNKNOWN) /* a known flag is gone from the file */
        rc = FDN_EFAULTED;
    if (rc != 0)
        return fdn_error_term(env, rc);
    return enif_make_tuple5(env, enif_make_uint(env, info.group), flags_value_term(env, info.value), make_bool(env, info.default_on),
                            make_bool(env, info.explicit_value), enif_make_uint64(env, info.changed_ns / FDN_NS_PER_MS));
}

/* file_info_nif() -> {Path, Uuid, Flags, FlagCapacity, Groups, GroupCapacity, Generation, Faulted, ReadOnly, Guarded, SyncResult,
 * NativeCohorts} | closed */
FLAGS_NIF(file_info)
{
    flags_state *s = flags_state_of(env);
    flags_table *t = flags_table_of(s);
    uint8_t uuid[16];
    if (t == NULL)
        return enif_make_atom(env, "closed");
    bool faulted = fdn_flags_faulted(t->file);
    fdn_flags_uuid(t->file, uuid);
    ERL_NIF_TERM is[] = {
        make_text(env, fdn_flags_path(t->file)),
        make_bytes(env, uuid, sizeof uuid),
        enif_make_uint(env, fdn_flags_count(t->file)),
        enif_make_uint(env, fdn_flags_capacity(t->file)),
        enif_make_uint(env, fdn_flags_group_count(t->file)),
        enif_make_uint(env, fdn_flags_group_capacity(t->file)),
        enif_make_uint64(env, fdn_flags_generation(t->file)),
        make_bool(env, faulted),
        make_bool(env, fdn_flags_read_only(t->file)),
        make_bool(env, fdn_guard_installed()),
        fdn_result_term(env, atomic_load(&s->sync_error)),
        make_bool(env, atomic_load(&s->native_cohorts)),
    };
    return enif_make_tuple_from_array(env, is, sizeof is / sizeof is[0]);
}

/* ---- rollback ----------------------------------------------------------------------------------------------------------------------
 */

static ERL_NIF_TERM group_error(ErlNifEnv *env, int rc)
{
    const fdn_atoms *atoms = &fdn_lib_of(env)->atoms;
    return rc == FDN_EUNKNOWN ? enif_make_tuple2(env, atoms->error, atoms->unknown_group) : fdn_error_term(env, rc);
}

/* rollback_nif(Group, Reason, Who), binaries -> {ok, Epoch} | {error, Word}. In force on return; sync_nif waits for the disk. */
FLAGS_NIF(rollback)
{
    flags_state *s = flags_state_of(env);
    flags_table *t = flags_table_of(s);
    char group[TEXT_MAX], reason[TEXT_MAX], who[TEXT_MAX];
    uint64_t epoch = 0;
    if (t == NULL)
        return fdn_error_term(env, FDN_ECLOSED);
    if (!get_text(env, argv[0], group, sizeof group))
        return group_error(env, FDN_EUNKNOWN);
    if (!get_text(env, argv[1], reason, sizeof reason) || !get_text(env, argv[2], who, sizeof who))
        return enif_make_badarg(env);
    int rc = fdn_flags_flip(t->file, group, reason, who, &epoch);
    if (rc != 0)
        return group_error(env, rc);
    atomic_store(&s->dirty, true);
    return enif_make_tuple2(env, fdn_lib_of(env)->atoms.ok, enif_make_uint64(env, epoch));
}

/* rearm_nif(Group, Epoch, Who) -> ok | {error, Word} */
FLAGS_NIF(rearm)
{
    flags_state *s = flags_state_of(env);
    flags_table *t = flags_table_of(s);
    char group[TEXT_MAX], who[TEXT_MAX];
    ErlNifUInt64 epoch;
    if (t == NULL)
        return fdn_error_term(env, FDN_ECLOSED);
    if (!get_text(env, argv[0], group, sizeof group))
        return group_error(env, FDN_EUNKNOWN);
    if (!enif_get_uint64(env, argv[1], &epoch) || !get_text(env, argv[2], who, sizeof who))
        return enif_make_badarg(env);
    int rc = fdn_flags_unflip(t->file, group, epoch, who);
    if (rc != 0)
        return group_error(env, rc);
    atomic_store(&s->dirty, true);
    return fdn_lib_of(env)->atoms.ok;
}

/* sync_nif() -> ok | {error, Word} */
FLAGS_NIF(sync)
{
    flags_state *s = flags_state_of(env);
    flags_table *t = flags_table_of(s);
    if (t == NULL)
        return fdn_error_term(env, FDN_ECLOSED);
    int rc = fdn_flags_sync(t->file);
    atomic_store(&s->sync_error, rc);
    return fdn_result_term(env, rc);
}

/* ---- for the server ----------------------------------------------------------------------------------------------------------------
 */

/* looked_nif() -> Dirty: the server is about to look, and a change from here on is told again; and whether this VM changed something
 * since the last call, which is then the server's to sync. */
FLAGS_NIF(looked)
{
    flags_state *s = flags_state_of(env);
    atomic_store(&s->reported, false);
    return make_bool(env, atomic_exchange(&s->dirty, false));
}

/* stash_nif(Term) -> ok | {error, enomem}: keep a term beyond the life of the server. */
FLAGS_NIF(stash)
{
    flags_state *s = flags_state_of(env);
    ErlNifEnv *fresh = enif_alloc_env();
    if (fresh == NULL)
        return fdn_error_term(env, FDN_ENOMEM);
    ERL_NIF_TERM copy = enif_make_copy(fresh, argv[0]);
    enif_mutex_lock(s->lock);
    ErlNifEnv *old = s->stash_env;
    s->stash_env = fresh;
    s->stash = copy;
    enif_mutex_unlock(s->lock);
    if (old)
        enif_free_env(old);
    return fdn_lib_of(env)->atoms.ok;
}

/* stashed_nif() -> Term | undefined */
FLAGS_NIF(stashed)
{
    flags_state *s = flags_state_of(env);
    enif_mutex_lock(s->lock);
    ERL_NIF_TERM term = s->stash_env ? enif_make_copy(env, s->stash) : fdn_lib_of(env)->atoms.undefined;
    enif_mutex_unlock(s->lock);
    return term;
}

/* cohort_nif(phash2(Flag, 1 bsl 32), Id) -> 0..99 as computed here, or undefined for an id that is left to Erlang. */
FLAGS_NIF(cohort)
{
    unsigned atom_hash;
    uint32_t hash;
    if (!enif_get_uint(env, argv[0], &atom_hash))
        return enif_make_badarg(env);
    if (!flags_cohort_hash(env, fdn_flag_cohort_seed(atom_hash), argv[1], &hash))
        return fdn_lib_of(env)->atoms.undefined;
    return enif_make_uint(env, hash % FDN_FLAG_COHORTS);
}

/* trust_cohorts_nif(Boolean) -> ok: whether enabled_for may compute cohorts here. */
FLAGS_NIF(trust_cohorts)
{
    const fdn_atoms *atoms = &fdn_lib_of(env)->atoms;
    atomic_store(&flags_state_of(env)->native_cohorts, argv[0] == atoms->true_);
    return atoms->ok;
}
