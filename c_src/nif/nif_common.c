#include "nif/nif_common.h"

#include <stdatomic.h>
#include <string.h>

#include "base/fdn_error.h"
#include "base/fdn_guard.h"
#include "base/fdn_hash.h"

#define BOX_MAGIC 0x464e4258u /* FNBX */

/*
 * The box outlives the library that made it, so an upgraded library reads a box that other code wrote. These fields and their order
 * stay as they are; whatever follows them may change only with a new magic.
 */
struct fdn_box {
    uint32_t magic;
    uint32_t abi;
    _Atomic uint32_t holders;
    void *state;
};

static void make_atoms(ErlNifEnv *env, fdn_atoms *atoms)
{
    atoms->true_ = enif_make_atom(env, "true");
    atoms->false_ = enif_make_atom(env, "false");
#define FDN_ATOM_MAKE(name) atoms->name = enif_make_atom(env, #name);
    FDN_ATOMS(FDN_ATOM_MAKE)
#undef FDN_ATOM_MAKE
}

/* What load and upgrade have in common: a library without a state. */
static int open_library(ErlNifEnv *env, const fdn_part *part, fdn_lib **out)
{
    if (fdn_hash_init() != 0)
        return FDN_LOAD_RANDOM_SOURCE;
    if (fdn_guard_init() != 0)
        return FDN_LOAD_SIGBUS_GUARD;
    fdn_lib *lib = enif_alloc(sizeof *lib);
    if (lib == NULL)
        return FDN_LOAD_ENOMEM;
    memset(lib, 0, sizeof *lib);
    lib->part = part;
    make_atoms(env, &lib->atoms);
    if (part->open_types && part->open_types(env, lib) != 0) {
        enif_free(lib);
        return FDN_LOAD_RESOURCE_TYPES;
    }
    *out = lib;
    return 0;
}

static int start(const fdn_part *part, void *state)
{
    return part->resume ? part->resume(state) : 0;
}

static void stop(const fdn_part *part, void *state)
{
    if (part->pause)
        part->pause(state);
}

int fdn_nif_load(ErlNifEnv *env, void **priv, const fdn_part *part)
{
    fdn_lib *lib = NULL;
    int rc = open_library(env, part, &lib);
    if (rc != 0)
        return rc;
    fdn_box *box = enif_alloc(sizeof *box);
    if (box == NULL) {
        rc = FDN_LOAD_ENOMEM;
        goto fail;
    }
    box->magic = BOX_MAGIC;
    box->abi = part->abi;
    box->state = NULL;
    atomic_init(&box->holders, 1);
    if (part->create && part->create(lib, &box->state) != 0) {
        rc = FDN_LOAD_STATE;
        goto fail;
    }
    if (start(part, box->state) != 0) {
        if (part->destroy)
            part->destroy(box->state);
        rc = FDN_LOAD_THREADS;
        goto fail;
    }
    lib->box = box;
    lib->state = box->state;
    *priv = lib;
    return 0;
fail:
    if (box)
        enif_free(box);
    enif_free(lib);
    return rc;
}

int fdn_nif_upgrade(ErlNifEnv *env, void **priv, void **old_priv, const fdn_part *part)
{
    fdn_lib *old = *old_priv;
    fdn_lib *lib = NULL;
    if (old == NULL || old->box == NULL || old->box->magic != BOX_MAGIC || old->box->abi != part->abi)
        return FDN_LOAD_UPGRADE_REFUSED;
    int rc = open_library(env, part, &lib);
    if (rc != 0)
        return rc;
    stop(old->part, old->box->state);
    if (start(part, old->box->state) != 0) {
        (void)start(old->part, old->box->state);
        enif_free(lib);
        return FDN_LOAD_THREADS;
    }
    lib->box = old->box;
    lib->state = old->box->state;
    atomic_fetch_add(&lib->box->holders, 1);
    *priv = lib;
    return 0;
}

void fdn_nif_unload(void *priv)
{
    fdn_lib *lib = priv;
    if (lib == NULL)
        return;
    fdn_box *box = lib->box;
    if (box && atomic_fetch_sub(&box->holders, 1) == 1) {
        stop(lib->part, box->state);
        if (lib->part->destroy)
            lib->part->destroy(box->state);
        box->magic = 0;
        enif_free(box);
    }
    enif_free(lib);
}

ERL_NIF_TERM fdn_raise_badarg(ErlNifEnv *env, const char *arg, const char *reason)
{
    ERL_NIF_TERM detail = enif_make_tuple2(env, enif_make_atom(env, arg), enif_make_atom(env, reason));
    return enif_raise_exception(env, enif_make_tuple2(env, fdn_lib_of(env)->atoms.badarg, detail));
}

ERL_NIF_TERM fdn_error_term(ErlNifEnv *env, int rc)
{
    return enif_make_tuple2(env, fdn_lib_of(env)->atoms.error, enif_make_atom(env, fdn_error_name(rc)));
}

ERL_NIF_TERM fdn_result_term(ErlNifEnv *env, int rc)
{
    return rc == 0 ? fdn_lib_of(env)->atoms.ok : fdn_error_term(env, rc);
}

bool fdn_map_get(ErlNifEnv *env, ERL_NIF_TERM map, const char *key, ERL_NIF_TERM *value)
{
    return enif_get_map_value(env, map, enif_make_atom(env, key), value);
}

bool fdn_get_path(ErlNifEnv *env, ERL_NIF_TERM term, char *buf, size_t size)
{
    ErlNifBinary bin;
    if (!enif_inspect_iolist_as_binary(env, term, &bin) || bin.size == 0 || bin.size >= size || memchr(bin.data, 0, bin.size))
        return false;
    memcpy(buf, bin.data, bin.size);
    buf[bin.size] = '\0';
    return true;
}

void fdn_charge_slice(ErlNifEnv *env, size_t bytes)
{
    size_t percent = bytes / FDN_CHARGED_FROM;
    enif_consume_timeslice(env, percent > 100 ? 100 : (int)percent);
}
