/* The hot NIFs of foundation_flags, and the library's description. */
#include "nif/nif_flags.h"

#include <string.h>

#include "base/fdn_error.h"

static inline fdn_flag_value in_force(const flags_entry *e)
{
    /* The epoch first; see flag_format.h. */
    uint64_t epoch = atomic_load_explicit(e->epoch, memory_order_acquire);
    return fdn_flag_in_force(epoch, atomic_load_explicit(e->value, memory_order_acquire));
}

/* A name that is not bound, or no name at all. Kept out of the hot functions, which then have little to save on the stack. */
static __attribute__((noinline, cold)) ERL_NIF_TERM not_bound(ErlNifEnv *env, ERL_NIF_TERM flag)
{
    return enif_is_atom(env, flag) ? fdn_lib_of(env)->atoms.false_ : fdn_raise_badarg(env, "flag", "not_an_atom");
}

/* enabled(Flag) */
static ERL_NIF_TERM enabled(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[])
{
    const fdn_lib *lib = fdn_lib_of(env);
    const flags_entry *e = flags_lookup(flags_table_of(lib->state), argv[0]);
    if (e == NULL)
        return not_bound(env, argv[0]);
    return in_force(e) == FDN_FLAG_TRUE ? lib->atoms.true_ : lib->atoms.false_;
}

ERL_NIF_TERM flags_value_term(ErlNifEnv *env, fdn_flag_value value)
{
    const fdn_atoms *atoms = &fdn_lib_of(env)->atoms;
    if ((value & FDN_FLAG_KIND_MASK) == FDN_FLAG_PERCENTAGE)
        return enif_make_tuple2(env, atoms->percentage, enif_make_uint(env, value & FDN_FLAG_PERCENT_MASK));
    return value == FDN_FLAG_TRUE ? atoms->true_ : atoms->false_;
}

/* get(Flag) */
static ERL_NIF_TERM get(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[])
{
    const flags_entry *e = flags_lookup(flags_table_of(flags_state_of(env)), argv[0]);
    if (e != NULL)
        return flags_value_term(env, in_force(e));
    return enif_is_atom(env, argv[0]) ? fdn_lib_of(env)->atoms.undefined : not_bound(env, argv[0]);
}

/* enabled_for_nif(Flag, Id): a boolean, or the percentage where the id's hash is Erlang's to compute. */
static ERL_NIF_TERM enabled_for(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[])
{
    const fdn_lib *lib = fdn_lib_of(env);
    const flags_state *s = lib->state;
    const flags_entry *e = flags_lookup(flags_table_of(lib->state), argv[0]);
    if (e == NULL)
        return not_bound(env, argv[0]);
    fdn_flag_value value = in_force(e);
    if ((value & FDN_FLAG_KIND_MASK) != FDN_FLAG_PERCENTAGE)
        return value == FDN_FLAG_TRUE ? lib->atoms.true_ : lib->atoms.false_;
    unsigned percent = value & FDN_FLAG_PERCENT_MASK;
    uint32_t hash;
    if (!atomic_load_explicit(&s->native_cohorts, memory_order_relaxed) || !flags_cohort_hash(env, e->seed, argv[1], &hash))
        return enif_make_uint(env, percent);
    return hash % FDN_FLAG_COHORTS < percent ? lib->atoms.true_ : lib->atoms.false_;
}

static bool get_value(ErlNifEnv *env, ERL_NIF_TERM term, fdn_flag_value *value)
{
    const fdn_atoms *atoms = &fdn_lib_of(env)->atoms;
    const ERL_NIF_TERM *elements;
    unsigned percent;
    int arity;
    if (term == atoms->true_)
        *value = FDN_FLAG_TRUE;
    else if (term == atoms->false_)
        *value = FDN_FLAG_FALSE;
    else if (enif_get_tuple(env, term, &arity, &elements) && arity == 2 && elements[0] == atoms->percentage &&
             enif_get_uint(env, elements[1], &percent) && percent <= 100)
        *value = FDN_FLAG_PERCENTAGE | (fdn_flag_value)percent;
    else
        return false;
    return true;
}

/* set_nif(Flag, Value) */
static ERL_NIF_TERM set(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[])
{
    const fdn_atoms *atoms = &fdn_lib_of(env)->atoms;
    flags_state *s = flags_state_of(env);
    const flags_table *t = flags_table_of(s);
    const flags_entry *e = flags_lookup(t, argv[0]);
    fdn_flag_value value;
    if (!enif_is_atom(env, argv[0]))
        return fdn_raise_badarg(env, "flag", "not_an_atom");
    if (!get_value(env, argv[1], &value))
        return fdn_raise_badarg(env, "value", "not_a_flag_value");
    if (e == NULL)
        return enif_make_tuple2(env, atoms->error, atoms->unknown_flag);
    int rc = fdn_flags_set_at(t->file, e->index, value);
    if (rc == 0)
        atomic_store(&s->dirty, true);
    return fdn_result_term(env, rc);
}

/* ---- the library -------------------------------------------------------------------------------------------------------------------
 */

static void destroy(void *state)
{
    flags_state *s = state;
    flags_table *t = atomic_load(&s->table);
    while (t) {
        flags_table *older = t->older;
        flags_table_free(t);
        t = older;
    }
    if (s->stash_env)
        enif_free_env(s->stash_env);
    if (s->lock)
        enif_mutex_destroy(s->lock);
    enif_free(s);
}

static int create(fdn_lib *lib, void **state)
{
    flags_state *s = enif_alloc(sizeof *s);
    if (s == NULL)
        return 1;
    memset(s, 0, sizeof *s);
    s->message = lib->atoms.foundation_flags_file;
    s->lock = enif_mutex_create((char *)"foundation_flags");
    if (s->lock == NULL) {
        destroy(s);
        return 1;
    }
    *state = s;
    return 0;
}

static void pause_watcher(void *state)
{
    flags_state *s = state;
    enif_mutex_lock(s->lock);
    flags_watch_stop(s);
    s->owner = NULL;
    enif_mutex_unlock(s->lock);
}

static int resume_watcher(void *state)
{
    flags_state *s = state;
    enif_mutex_lock(s->lock);
    s->owner = &flags_part;
    int rc = atomic_load(&s->table) == NULL ? 0 : flags_watch_start(s);
    enif_mutex_unlock(s->lock);
    return rc;
}

const fdn_part flags_part = {
    .name = "flags",
    .abi = 1,
    .create = create,
    .pause = pause_watcher,
    .resume = resume_watcher,
    .destroy = destroy,
};

/* What takes the library's lock is dirty: open holds it while it works on files and waits for the watcher's thread. */
static ErlNifFunc functions[] = {
    {"enabled", 1, enabled, 0},
    {"get", 1, get, 0},
    {"enabled_for_nif", 2, enabled_for, 0},
    {"set_nif", 2, set, 0},
    {"open_nif", 1, flags_open, ERL_NIF_DIRTY_JOB_IO_BOUND},
    {"declare_nif", 4, flags_declare, ERL_NIF_DIRTY_JOB_IO_BOUND},
    {"bind_nif", 3, flags_bind_nif, ERL_NIF_DIRTY_JOB_IO_BOUND},
    {"unbound_nif", 0, flags_unbound, 0},
    {"values_nif", 1, flags_values, 0},
    {"groups_nif", 1, flags_groups, 0},
    {"flag_info_nif", 1, flags_flag_info, 0},
    {"file_info_nif", 0, flags_file_info, ERL_NIF_DIRTY_JOB_IO_BOUND},
    {"rollback_nif", 3, flags_rollback, 0},
    {"rearm_nif", 3, flags_rearm, 0},
    {"sync_nif", 0, flags_sync, ERL_NIF_DIRTY_JOB_IO_BOUND},
    {"looked_nif", 0, flags_looked, 0},
    {"stash_nif", 1, flags_stash, ERL_NIF_DIRTY_JOB_IO_BOUND},
    {"stashed_nif", 0, flags_stashed, ERL_NIF_DIRTY_JOB_IO_BOUND},
    {"cohort_nif", 2, flags_cohort, 0},
    {"trust_cohorts_nif", 1, flags_trust_cohorts, 0},
};

FDN_NIF_INIT(foundation_flags, functions, &flags_part)
