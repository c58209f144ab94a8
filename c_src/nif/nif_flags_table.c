/* The table from atoms to flags; see nif_flags.h. */
#include <string.h>

#include "base/fdn_error.h"
#include "nif/nif_flags.h"
#include "shared/flag_cohort.h"

flags_table *flags_table_new(fdn_flags *file)
{
    uint32_t capacity = fdn_flags_capacity(file);
    unsigned bits = 1;
    while ((1u << bits) < 2 * capacity)
        bits++;
    size_t slots = (size_t)1 << bits;
    /* Aligned, so that an entry lies in one cache line. */
    size_t size = sizeof(flags_table) + slots * sizeof(flags_entry);
    void *memory = enif_alloc(size + FDN_CACHE_LINE);
    if (memory == NULL)
        return NULL;
    flags_table *t = (flags_table *)(((uintptr_t)memory + FDN_CACHE_LINE - 1) & ~(uintptr_t)(FDN_CACHE_LINE - 1));
    memset(t, 0, size);
    t->memory = memory;
    t->atoms = enif_alloc(capacity * sizeof *t->atoms);
    if (t->atoms == NULL) {
        enif_free(memory);
        return NULL;
    }
    memset((void *)t->atoms, 0, capacity * sizeof *t->atoms);
    t->file = file;
    t->mask = (uint32_t)slots - 1;
    t->shift = 64 - bits;
    return t;
}

void flags_table_free(flags_table *t)
{
    fdn_flags_close(t->file);
    enif_free((void *)t->atoms);
    enif_free(t->memory);
}

/* Flags are bound in order, once each; the table is never more than half full, so a probe ends. */
int flags_bind(flags_table *t, uint32_t index, ERL_NIF_TERM atom, uint32_t atom_hash)
{
    fdn_flag_info info;
    uint32_t bound = atomic_load(&t->bound);
    if (index < bound)
        return atomic_load(&t->atoms[index]) == atom ? 0 : FDN_EINVAL;
    if (index > bound || flags_lookup(t, atom) != NULL)
        return FDN_EINVAL;
    int rc = fdn_flags_at(t->file, index, &info);
    if (rc != 0)
        return rc;
    uint32_t i = flags_slot(t, atom);
    while (atomic_load(&t->entries[i].atom) != 0)
        i = (i + 1) & t->mask;
    flags_entry *e = &t->entries[i];
    e->epoch = fdn_flags_epoch_word(t->file, info.group);
    e->value = fdn_flags_value_word(t->file, index);
    e->seed = fdn_flag_cohort_seed(atom_hash);
    e->index = index;
    atomic_store_explicit(&e->atom, atom, memory_order_release);
    atomic_store(&t->atoms[index], atom);
    atomic_store_explicit(&t->bound, index + 1, memory_order_release);
    return 0;
}
