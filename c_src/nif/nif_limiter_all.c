/*
 * nif_limiter_all.c - hit_all: several keys, of one limiter or of many, are debited together or not at all.
 *
 * First every entry is looked at: its limiter, its cost, its key. Where one of them is wrong, nothing was debited. Then they are
 * debited in order. Where one is denied, the debits before it are given back, the last one first. Meanwhile others may be denied what
 * will be given back; nobody is admitted too much.
 *
 * A thread is inside one limiter at a time, so each is entered anew for its debit: by the handle that was found at first, which finds
 * that limiter and no later one of its name. One that was deleted since ends the call as if it had been wrong from the start.
 */
#include "base/fdn_clock.h"
#include "nif/nif_limiter.h"

/*
 * A short list is worked through on a normal scheduler: INLINE_ENTRIES usual keys take 6 us; the largest structures, 7 us each, 0.45
 * ms; binaries may have FDN_LIMITER_INLINE_BINARY bytes together, 15 us. Anything longer starts over on a dirty one: that costs 15 us.
 */
enum { INLINE_ENTRIES = 64 };

typedef struct {
    uint64_t handle, hash, cost;
    fdn_limiter_rule rule;
    fdn_limiter_debit debit;
    uint64_t remaining;
} entry;

typedef struct {
    ErlNifEnv *env;
    fdn_limiter_state *st;
    unsigned lane;
    bool dirty;
    size_t binaries_left; /* not dirty: bytes */
    entry *entries;
    size_t n;
    size_t at; /* the entry that is looked at or debited */
    fdn_limiter_complaint wrong;
    fdn_limiter_answer denied;
    ERL_NIF_TERM name; /* of the limiter that denied */
} job;

typedef enum { DONE, WRONG, TOO_LARGE, DENIED, TOLD } job_result;

static job_result wrong(job *j, const char *argument, const char *reason)
{
    j->wrong = (fdn_limiter_complaint){argument, reason};
    return WRONG;
}

/* ---- looking at the entries ------------------------------------------------------------------------------------------------------ */

static job_result look_at_key(job *j, fdn_limiter *t, ERL_NIF_TERM key, uint64_t *hash)
{
    ErlNifBinary bin;
    if (!j->dirty && enif_inspect_binary(j->env, key, &bin)) {
        if (bin.size > j->binaries_left)
            return TOO_LARGE;
        j->binaries_left -= bin.size;
    }
    switch (fdn_limiter_key(j->env, key, fdn_limiter_secret_of(t), j->dirty, hash)) {
    case FDN_KEY_HASHED:
        return DONE;
    case FDN_KEY_NEEDS_DIRTY:
        return TOO_LARGE;
    default:
        return wrong(j, "key", "enomem");
    }
}

static job_result look_inside(job *j, fdn_limiter *t, const ERL_NIF_TERM *item, entry *e)
{
    if (fdn_limiter_config_of(t)->tags & FDN_LIMITER_SCOPE)
        return wrong(j, "limiter", "not_local");
    const fdn_limiter_rule *rule = fdn_limiter_get_preset(t, &j->wrong);
    if (rule == NULL || !fdn_limiter_get_argument(j->env, item[2], "cost", &e->cost, &j->wrong) ||
        !fdn_limiter_get_cost(t, rule, e->cost, &j->wrong))
        return WRONG;
    e->rule = *rule;
    return look_at_key(j, t, item[1], &e->hash);
}

static job_result look(job *j, ERL_NIF_TERM term)
{
    const ERL_NIF_TERM *item;
    int arity;
    entry *e = &j->entries[j->at];
    if (!enif_get_tuple(j->env, term, &arity, &item) || arity != 3)
        return wrong(j, NULL, "not_an_entry");
    fdn_limiter *t = fdn_limiter_enter_and_tell(j->env, j->st, j->lane, item[0], &e->handle);
    if (t == NULL) {
        j->wrong = fdn_limiter_unknown(j->env, item[0]);
        return WRONG;
    }
    job_result result = look_inside(j, t, item, e);
    fdn_limiters_leave(j->st->names, j->lane);
    return result;
}

/* ---- debits ---------------------------------------------------------------------------------------------------------------------- */

static job_result debit_one(job *j)
{
    entry *e = &j->entries[j->at];
    fdn_limiter *t = fdn_limiters_enter_handle(j->st->names, j->lane, e->handle);
    if (t == NULL)
        return wrong(j, "limiter", "deleted");
    fdn_limiter_answer answer = fdn_limiter_take(t, j->lane, &e->rule, e->hash, e->cost, &e->debit);
    const fdn_limiter_config *config = fdn_limiter_config_of(t);
    job_result result = config->tags & FDN_LIMITER_TELEMETRY && e->cost != 0 ? TOLD : DENIED;
    j->name = (ERL_NIF_TERM)config->label;
    fdn_limiters_leave(j->st->names, j->lane);
    e->remaining = answer.value;
    j->denied = answer;
    return answer.allowed ? DONE : result;
}

static void undo(const job *j)
{
    for (size_t i = j->at; i-- > 0;) {
        fdn_limiter *t = fdn_limiters_enter_handle(j->st->names, j->lane, j->entries[i].handle);
        if (t == NULL)
            continue;
        (void)fdn_limiter_give_back(t, &j->entries[i].debit);
        fdn_limiters_leave(j->st->names, j->lane);
    }
}

static job_result work(job *j, ERL_NIF_TERM list)
{
    ERL_NIF_TERM item;
    job_result result = DONE;
    for (j->at = 0; j->at < j->n && enif_get_list_cell(j->env, list, &item, &list); j->at++) {
        result = look(j, item);
        if (result != DONE)
            return result;
    }
    j->n = j->at;
    for (j->at = 0; j->at < j->n; j->at++) {
        result = debit_one(j);
        if (result != DONE) {
            undo(j);
            return result;
        }
    }
    return DONE;
}

/* ---- the call -------------------------------------------------------------------------------------------------------------------- */

/* {badarg, {{entry, Index}, Reason}}; Reason is a word, or {Argument, Word} */
static ERL_NIF_TERM raise_entry(const job *j, const fdn_atoms *a)
{
    ERL_NIF_TERM reason = enif_make_atom(j->env, j->wrong.reason);
    if (j->wrong.argument != NULL)
        reason = enif_make_tuple2(j->env, enif_make_atom(j->env, j->wrong.argument), reason);
    ERL_NIF_TERM which = enif_make_tuple2(j->env, a->entry, enif_make_uint64(j->env, j->at + 1));
    return enif_raise_exception(j->env, enif_make_tuple2(j->env, a->badarg, enif_make_tuple2(j->env, which, reason)));
}

static ERL_NIF_TERM answer_of(const job *j, const fdn_atoms *a, job_result result)
{
    if (result == WRONG)
        return raise_entry(j, a);
    if (result != DONE) {
        ERL_NIF_TERM index = enif_make_uint64(j->env, j->at + 1), ms = enif_make_uint64(j->env, j->denied.value);
        if (result == DENIED)
            return enif_make_tuple3(j->env, a->deny, index, ms);
        ERL_NIF_TERM tail = enif_make_list_cell(j->env, j->name, enif_make_list_cell(j->env, index, ms));
        return enif_make_list_cell(j->env, a->denied, tail);
    }
    ERL_NIF_TERM remaining = enif_make_list(j->env, 0);
    for (size_t i = j->n; i-- > 0;)
        remaining = enif_make_list_cell(j->env, enif_make_uint64(j->env, j->entries[i].remaining), remaining);
    return enif_make_tuple2(j->env, a->allow, remaining);
}

static job job_for(ErlNifEnv *env, bool dirty)
{
    fdn_limiter_state *st = fdn_limiter_state_of(env);
    return (job){.env = env, .st = st, .lane = fdn_limiter_lane(st), .dirty = dirty, .binaries_left = FDN_LIMITER_INLINE_BINARY};
}

static ERL_NIF_TERM on_dirty(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[])
{
    (void)argc;
    job j = job_for(env, true);
    unsigned n;
    if (!enif_get_list_length(env, argv[0], &n))
        return fdn_raise_badarg(env, "entries", "not_a_proper_list");
    j.n = n;
    j.entries = enif_alloc(n * sizeof *j.entries + 1);
    if (j.entries == NULL)
        return fdn_raise_badarg(env, "entries", "enomem");
    job_result result = work(&j, argv[0]);
    ERL_NIF_TERM answer = answer_of(&j, &fdn_lib_of(env)->atoms, result);
    enif_free(j.entries);
    return answer;
}

/* Charge for the time that a list took; keys differ too much for their number to say. A time slice is 1 ms. */
static job_result timed_work(job *j, ERL_NIF_TERM list)
{
    enum { TOO_FEW_TO_TIME = 8 };
    if (j->n <= TOO_FEW_TO_TIME)
        return work(j, list);
    uint64_t since = fdn_clock_mono_ns();
    job_result result = work(j, list);
    uint64_t percent = (fdn_clock_mono_ns() - since) / (FDN_NS_PER_MS / 100);
    if (percent > 0)
        (void)enif_consume_timeslice(j->env, percent > 100 ? 100 : (int)percent);
    return result;
}

/* hit_all_nif([{L, Key, Cost}]) -> {allow, [Remaining]} | {deny, Index, Ms} | [denied, Name, Index | Ms] */
ERL_NIF_TERM fdn_limiter_nif_hit_all(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[])
{
    entry entries[INLINE_ENTRIES];
    job j = job_for(env, false);
    ERL_NIF_TERM item, rest = argv[0];
    while (j.n < INLINE_ENTRIES && enif_get_list_cell(env, rest, &item, &rest))
        j.n++;
    job_result result = TOO_LARGE;
    if (enif_is_empty_list(env, rest)) {
        j.entries = entries;
        result = timed_work(&j, argv[0]);
    }
    if (result == TOO_LARGE)
        return enif_schedule_nif(env, "hit_all_nif", ERL_NIF_DIRTY_JOB_CPU_BOUND, on_dirty, argc, argv);
    return answer_of(&j, &fdn_lib_of(env)->atoms, result);
}
