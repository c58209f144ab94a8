/* Reads and writes. Each begins on a normal scheduler and, where it must, begins again on a dirty one (nif_snapshot.h). */
#include <string.h>

#include "base/fdn_error.h"
#include "nif/nif_snapshot.h"

#define INLINE_OPS 4

/* A write on its way: the ops, and the encoded terms they point into. */
typedef struct {
    fdn_store_op *ops;
    ErlNifBinary *bins;
    ERL_NIF_TERM *keys;
    ERL_NIF_TERM *values; /* of puts, for their Saved */
    size_t count;
    size_t bin_count;
    size_t cap;
    size_t bytes;
    fdn_store_op inline_ops[INLINE_OPS];
    ErlNifBinary inline_bins[2 * INLINE_OPS];
    ERL_NIF_TERM inline_terms[2 * INLINE_OPS];
} call;

typedef ERL_NIF_TERM (*nif)(ErlNifEnv *, int, const ERL_NIF_TERM[]);

static bool on_dirty_scheduler(void)
{
    return enif_thread_type() != ERL_NIF_THR_NORMAL_SCHEDULER;
}

static ERL_NIF_TERM again_on_dirty(ErlNifEnv *env, const char *name, nif f, int argc, const ERL_NIF_TERM argv[])
{
    return enif_schedule_nif(env, name, ERL_NIF_DIRTY_JOB_IO_BOUND, f, argc, argv);
}

static bool call_init(call *c, size_t cap)
{
    memset(c, 0, offsetof(call, inline_ops));
    c->cap = cap;
    if (cap <= INLINE_OPS) {
        c->ops = c->inline_ops;
        c->bins = c->inline_bins;
        c->keys = c->inline_terms;
    } else {
        c->ops = enif_alloc(cap * sizeof *c->ops);
        c->bins = enif_alloc(2 * cap * sizeof *c->bins);
        c->keys = enif_alloc(2 * cap * sizeof *c->keys);
    }
    c->values = c->keys ? c->keys + cap : NULL;
    return c->ops && c->bins && c->keys;
}

static void call_free(call *c)
{
    for (size_t i = 0; i < c->bin_count; i++)
        enif_release_binary(&c->bins[i]);
    if (c->cap > INLINE_OPS) {
        enif_free(c->ops);
        enif_free(c->bins);
        enif_free(c->keys);
    }
}

static bool encode(ErlNifEnv *env, call *c, ERL_NIF_TERM term, const uint8_t **data, size_t *len)
{
    ErlNifBinary *bin = &c->bins[c->bin_count];
    if (!enif_term_to_binary(env, term, bin))
        return false;
    c->bin_count++;
    c->bytes += bin->size;
    *data = bin->data;
    *len = bin->size;
    return true;
}

/* Add an op on a key; its condition is the caller's to set. NULL: out of memory. */
static fdn_store_op *add(ErlNifEnv *env, call *c, int kind, ERL_NIF_TERM key)
{
    fdn_store_op *op = &c->ops[c->count];
    memset(op, 0, sizeof *op);
    op->kind = kind;
    c->keys[c->count] = key;
    if (!encode(env, c, key, &op->key, &op->key_len))
        return NULL;
    c->count++;
    return op;
}

static fdn_store_op *add_put(ErlNifEnv *env, call *c, ERL_NIF_TERM key, ERL_NIF_TERM value)
{
    fdn_store_op *op = add(env, c, FDN_STORE_PUT, key);
    c->values[c->count - 1] = value;
    return op && encode(env, c, value, &op->value, &op->value_len) ? op : NULL;
}

/* The write itself, and in sync mode the wait for the disk. FDN_EBUSY only on a normal scheduler. */
static int run(ErlNifEnv *env, snap *s, call *c, fdn_store_result *result)
{
    bool dirty = on_dirty_scheduler();
    int rc = fdn_store_write(s->store, c->ops, c->count, dirty, result);
    if (rc == 0 && s->durability == FDN_STORE_SYNC)
        rc = fdn_store_sync_to(s->store, result->lsn);
    if (!dirty)
        fdn_charge(env, c->bytes);
    else if (rc == 0)
        snap_kick(fdn_lib_of(env)->state);
    return rc;
}

static ERL_NIF_TERM make_saved(ErlNifEnv *env, const snap *s, uint64_t lsn, ERL_NIF_TERM value)
{
    return enif_make_tuple4(env, fdn_lib_of(env)->atoms.foundation_saved, enif_make_uint64(env, s->incarnation),
                            enif_make_uint64(env, lsn), value);
}

static ERL_NIF_TERM make_ok(ErlNifEnv *env, ERL_NIF_TERM term)
{
    return enif_make_tuple2(env, fdn_lib_of(env)->atoms.ok, term);
}

static ERL_NIF_TERM make_error(ErlNifEnv *env, ERL_NIF_TERM reason)
{
    return enif_make_tuple2(env, fdn_lib_of(env)->atoms.error, reason);
}

static ERL_NIF_TERM make_conflict(ErlNifEnv *env, ERL_NIF_TERM what)
{
    return make_error(env, enif_make_tuple2(env, fdn_lib_of(env)->atoms.conflict, what));
}

/* The condition that a Saved stands for. False: it is none. */
static bool saved_condition(ErlNifEnv *env, const snap *s, ERL_NIF_TERM saved, fdn_store_op *op)
{
    const ERL_NIF_TERM *t;
    ErlNifUInt64 incarnation, lsn;
    int arity;
    if (!enif_get_tuple(env, saved, &arity, &t) || arity != 4 || t[0] != fdn_lib_of(env)->atoms.foundation_saved ||
        !enif_get_uint64(env, t[1], &incarnation) || !enif_get_uint64(env, t[2], &lsn))
        return false;
    if (op) {
        op->condition = FDN_STORE_VERSION;
        op->version = incarnation == s->incarnation ? lsn : UINT64_MAX; /* no record has that one */
    }
    return true;
}

/* Whether this call has to move to a dirty scheduler before it encodes anything. */
static bool too_much_here(ErlNifEnv *env, const snap *s, const ERL_NIF_TERM *terms, int count)
{
    if (on_dirty_scheduler())
        return false;
    if (s->durability == FDN_STORE_SYNC)
        return true;
    for (int i = 0; i < count; i++) {
        if (!snap_is_small(env, terms[i]))
            return true;
    }
    return false;
}

/* save and update: one put, answered with its Saved. */
static ERL_NIF_TERM put_one(ErlNifEnv *env, const char *name, nif f, int argc, const ERL_NIF_TERM argv[], int value_at, int saved_at)
{
    fdn_store_result result;
    ERL_NIF_TERM answer;
    call c;
    snap *s = snap_get(env, argv[0], &answer);
    if (s == NULL)
        return answer;
    if (saved_at && !saved_condition(env, s, argv[saved_at], NULL)) {
        snap_put(s);
        return fdn_raise_badarg(env, "saved", "not_saved");
    }
    ERL_NIF_TERM terms[2] = {argv[1], argv[value_at]};
    if (too_much_here(env, s, terms, 2)) {
        snap_put(s);
        return again_on_dirty(env, name, f, argc, argv);
    }
    int rc = FDN_ENOMEM;
    if (call_init(&c, 1)) {
        fdn_store_op *op = add_put(env, &c, argv[1], argv[value_at]);
        if (op && saved_at)
            (void)saved_condition(env, s, argv[saved_at], op);
        if (op)
            rc = run(env, s, &c, &result);
    }
    if (rc == 0)
        answer = make_ok(env, make_saved(env, s, c.ops[0].lsn, argv[value_at]));
    else if (rc == FDN_ESTALE)
        answer = make_conflict(env, result.absent ? fdn_lib_of(env)->atoms.absent : enif_make_uint64(env, result.version));
    else if (rc == FDN_EBUSY)
        answer = again_on_dirty(env, name, f, argc, argv);
    else
        answer = snap_error(env, s, rc);
    call_free(&c);
    snap_put(s);
    return answer;
}

ERL_NIF_TERM snap_save(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[])
{
    return put_one(env, "save", snap_save, argc, argv, 2, 0);
}

ERL_NIF_TERM snap_update(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[])
{
    return put_one(env, "update", snap_update, argc, argv, 3, 2);
}

ERL_NIF_TERM snap_delete(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[])
{
    fdn_store_result result;
    ERL_NIF_TERM answer;
    call c;
    snap *s = snap_get(env, argv[0], &answer);
    if (s == NULL)
        return answer;
    if (too_much_here(env, s, argv + 1, 1)) {
        snap_put(s);
        return again_on_dirty(env, "delete", snap_delete, argc, argv);
    }
    int rc = call_init(&c, 1) && add(env, &c, FDN_STORE_DELETE, argv[1]) ? run(env, s, &c, &result) : FDN_ENOMEM;
    if (rc == 0)
        answer = fdn_lib_of(env)->atoms.true_;
    else if (rc == FDN_EBUSY)
        answer = again_on_dirty(env, "delete", snap_delete, argc, argv);
    else
        answer = snap_error(env, s, rc);
    call_free(&c);
    snap_put(s);
    return answer;
}

/* A pair is stored as key and value, any other tuple as a whole. */
static fdn_store_op *add_object(ErlNifEnv *env, call *c, ERL_NIF_TERM object, int arity, const ERL_NIF_TERM *t)
{
    if (arity == 2)
        return add_put(env, c, t[0], t[1]);
    fdn_store_op *op = add_put(env, c, t[0], object);
    if (op)
        op->object = true;
    return op;
}

ERL_NIF_TERM snap_insert(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[])
{
    const ERL_NIF_TERM *t;
    ERL_NIF_TERM answer, head, list = argv[1];
    fdn_store_result result;
    unsigned length = 1;
    int arity;
    call c;
    bool one = enif_get_tuple(env, argv[1], &arity, &t);
    snap *s = snap_get(env, argv[0], &answer);
    if (s == NULL)
        return answer;
    /* First: also counting a list takes as long as the list. */
    if (too_much_here(env, s, argv + 1, 1)) {
        snap_put(s);
        return again_on_dirty(env, "insert", snap_insert, argc, argv);
    }
    if (!one && !enif_get_list_length(env, list, &length)) {
        snap_put(s);
        return fdn_raise_badarg(env, "object", "not_a_tuple_or_list");
    }
    int rc = call_init(&c, length) ? 0 : FDN_ENOMEM;
    for (unsigned i = 0; rc == 0 && i < length; i++) {
        if (!one && (!enif_get_list_cell(env, list, &head, &list) || !enif_get_tuple(env, head, &arity, &t)))
            rc = FDN_EINVAL;
        else if (arity == 0)
            rc = FDN_EINVAL;
        else if (!add_object(env, &c, one ? argv[1] : head, arity, t))
            rc = FDN_ENOMEM;
    }
    if (rc == 0)
        rc = run(env, s, &c, &result);
    if (rc == 0)
        answer = fdn_lib_of(env)->atoms.true_;
    else if (rc == FDN_EINVAL)
        answer = fdn_raise_badarg(env, "object", "not_a_tuple");
    else if (rc == FDN_EBUSY)
        answer = again_on_dirty(env, "insert", snap_insert, argc, argv);
    else
        answer = snap_error(env, s, rc);
    call_free(&c);
    snap_put(s);
    return answer;
}

/* One element of a commit. 0, FDN_ENOMEM, or FDN_EINVAL: no such operation. */
static int add_commit_op(ErlNifEnv *env, const snap *s, call *c, ERL_NIF_TERM term)
{
    const fdn_atoms *a = &fdn_lib_of(env)->atoms;
    const ERL_NIF_TERM *t;
    fdn_store_op *op;
    ErlNifUInt64 version;
    int arity;
    if (!enif_get_tuple(env, term, &arity, &t))
        return FDN_EINVAL;
    if (arity == 3 && t[0] == a->put)
        return add_put(env, c, t[1], t[2]) ? 0 : FDN_ENOMEM;
    if (arity == 2 && t[0] == a->delete)
        return add(env, c, FDN_STORE_DELETE, t[1]) ? 0 : FDN_ENOMEM;
    if (arity == 4 && t[0] == a->update) {
        if (!saved_condition(env, s, t[2], NULL))
            return FDN_EINVAL;
        op = add_put(env, c, t[1], t[3]);
        return op && saved_condition(env, s, t[2], op) ? 0 : FDN_ENOMEM;
    }
    if (arity == 3 && t[0] == a->expect) {
        bool absent = t[2] == a->absent;
        if (!absent && !enif_get_uint64(env, t[2], &version))
            return FDN_EINVAL;
        op = add(env, c, FDN_STORE_EXPECT, t[1]);
        if (op == NULL)
            return FDN_ENOMEM;
        op->condition = absent ? FDN_STORE_ABSENT : FDN_STORE_VERSION;
        op->version = absent ? 0 : version;
        return 0;
    }
    return FDN_EINVAL;
}

static ERL_NIF_TERM saved_list(ErlNifEnv *env, const snap *s, const call *c)
{
    ERL_NIF_TERM list = enif_make_list(env, 0);
    for (size_t i = c->count; i-- > 0;) {
        if (c->ops[i].kind == FDN_STORE_PUT)
            list = enif_make_list_cell(env, make_saved(env, s, c->ops[i].lsn, c->values[i]), list);
    }
    return list;
}

ERL_NIF_TERM snap_commit(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[])
{
    ERL_NIF_TERM answer, head, list = argv[1];
    fdn_store_result result;
    unsigned length;
    call c;
    snap *s = snap_get(env, argv[0], &answer);
    if (s == NULL)
        return answer;
    if (too_much_here(env, s, argv + 1, 1)) {
        snap_put(s);
        return again_on_dirty(env, "commit", snap_commit, argc, argv);
    }
    if (!enif_get_list_length(env, list, &length)) {
        snap_put(s);
        return fdn_raise_badarg(env, "operations", "not_a_list");
    }
    int rc = call_init(&c, length) ? 0 : FDN_ENOMEM;
    while (rc == 0 && enif_get_list_cell(env, list, &head, &list))
        rc = add_commit_op(env, s, &c, head);
    if (rc == 0)
        rc = run(env, s, &c, &result);
    if (rc == 0)
        answer = make_ok(env, saved_list(env, s, &c));
    else if (rc == FDN_ESTALE)
        answer = make_conflict(env, c.keys[result.conflict]);
    else if (rc == FDN_EINVAL)
        answer = fdn_raise_badarg(env, "operations", "unknown_operation");
    else if (rc == FDN_EBUSY)
        answer = again_on_dirty(env, "commit", snap_commit, argc, argv);
    else
        answer = snap_error(env, s, rc);
    call_free(&c);
    snap_put(s);
    return answer;
}

static bool decode(ErlNifEnv *env, const uint8_t *data, size_t len, ERL_NIF_TERM *term)
{
    return enif_binary_to_term(env, data, len, term, 0) == len;
}

enum { READ_SAVED, READ_OBJECTS, READ_PRESENCE };

static ERL_NIF_TERM read_answer(ErlNifEnv *env, const snap *s, const fdn_store_value *value, ERL_NIF_TERM key, int how)
{
    ERL_NIF_TERM term;
    if (how == READ_SAVED && value->object)
        return make_error(env, fdn_lib_of(env)->atoms.not_found);
    if (value->encoding != FDN_VALUE_ETF || !decode(env, value->data, value->len, &term))
        return fdn_error_term(env, FDN_ECORRUPT);
    if (how == READ_SAVED)
        return make_ok(env, make_saved(env, s, value->lsn, term));
    return enif_make_list1(env, value->object ? term : enif_make_tuple2(env, key, term));
}

static ERL_NIF_TERM absent_answer(ErlNifEnv *env, int how)
{
    if (how == READ_SAVED)
        return make_error(env, fdn_lib_of(env)->atoms.not_found);
    return how == READ_OBJECTS ? enif_make_list(env, 0) : fdn_lib_of(env)->atoms.false_;
}

static ERL_NIF_TERM read_one(ErlNifEnv *env, const char *name, nif f, int argc, const ERL_NIF_TERM argv[], int how)
{
    fdn_store_value value;
    ErlNifBinary key;
    ERL_NIF_TERM answer;
    snap *s = snap_get(env, argv[0], &answer);
    if (s == NULL)
        return answer;
    bool dirty = on_dirty_scheduler();
    if (!dirty && !snap_is_small(env, argv[1])) {
        snap_put(s);
        return again_on_dirty(env, name, f, argc, argv);
    }
    if (!enif_term_to_binary(env, argv[1], &key)) {
        answer = snap_error(env, s, FDN_ENOMEM);
        snap_put(s);
        return answer;
    }
    int rc;
    fdn_store_value_init(&value);
    value.len = 0;
    if (how == READ_PRESENCE) {
        uint64_t lsn;
        size_t len;
        rc = fdn_store_find(s->store, key.data, key.size, dirty, &lsn, &len);
    } else {
        rc = fdn_store_read(s->store, key.data, key.size, dirty, dirty ? SIZE_MAX : SNAP_SMALL_BYTES, &value);
    }
    if (rc == FDN_ETOOBIG || rc == FDN_EBUSY)
        answer = again_on_dirty(env, name, f, argc, argv);
    else if (rc == FDN_EUNKNOWN)
        answer = absent_answer(env, how);
    else if (rc != 0)
        answer = snap_error(env, s, rc);
    else if (how == READ_PRESENCE)
        answer = fdn_lib_of(env)->atoms.true_;
    else
        answer = read_answer(env, s, &value, argv[1], how);
    if (!dirty && rc == 0 && how != READ_PRESENCE)
        fdn_charge(env, value.len);
    fdn_store_value_free(&value);
    enif_release_binary(&key);
    snap_put(s);
    return answer;
}

ERL_NIF_TERM snap_load(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[])
{
    return read_one(env, "load", snap_load, argc, argv, READ_SAVED);
}

ERL_NIF_TERM snap_lookup(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[])
{
    return read_one(env, "lookup", snap_lookup, argc, argv, READ_OBJECTS);
}

ERL_NIF_TERM snap_member(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[])
{
    return read_one(env, "member", snap_member, argc, argv, READ_PRESENCE);
}

typedef struct {
    ErlNifEnv *env;
    ERL_NIF_TERM list;
} collector;

static int collect(void *context, const fdn_store_value *value)
{
    collector *to = context;
    ERL_NIF_TERM key, term;
    if (value->encoding != FDN_VALUE_ETF || !decode(to->env, value->data, value->len, &term))
        return FDN_ECORRUPT;
    if (!value->object) {
        if (!decode(to->env, value->key, value->key_len, &key))
            return FDN_ECORRUPT;
        term = enif_make_tuple2(to->env, key, term);
    }
    to->list = enif_make_list_cell(to->env, term, to->list);
    return 0;
}

/* scan_nif(Store, Cursor) -> {NextCursor, [Object]}, on a dirty scheduler. */
ERL_NIF_TERM snap_scan(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[])
{
    collector to = {env, enif_make_list(env, 0)};
    ErlNifUInt64 from;
    uint64_t cursor;
    size_t count;
    ERL_NIF_TERM answer;
    snap *s = snap_get(env, argv[0], &answer);
    if (s == NULL)
        return answer;
    if (!enif_get_uint64(env, argv[1], &from)) {
        snap_put(s);
        return fdn_raise_badarg(env, "cursor", "not_an_integer");
    }
    cursor = from;
    int rc = fdn_store_scan(s->store, &cursor, 200, &count, collect, &to);
    answer = rc == 0 ? enif_make_tuple2(env, enif_make_uint64(env, cursor), to.list) : snap_error(env, s, rc);
    snap_put(s);
    return answer;
}
