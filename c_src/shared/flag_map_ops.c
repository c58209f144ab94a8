/* Setting and reading flags, rolling groups back and re-arming them. No function here takes a lock. */
#include <string.h>

#include "base/fdn_clock.h"
#include "base/fdn_error.h"
#include "base/fdn_hash.h"
#include "shared/flag_map_private.h"

/* ---- reading ----------------------------------------------------------------------------------------------------------------------
 */

const _Atomic uint64_t *fdn_flags_epoch_word(const fdn_flags *f, uint32_t group)
{
    return &f->header->epochs[group];
}

const _Atomic uint64_t *fdn_flags_value_word(const fdn_flags *f, uint32_t index)
{
    return &f->values[index];
}

static fdn_flag_value value_at(const fdn_flags *f, uint32_t index, uint32_t group)
{
    uint64_t epoch = atomic_load_explicit(&f->header->epochs[group], memory_order_acquire);
    uint64_t value = atomic_load_explicit(&f->values[index], memory_order_acquire);
    return fdn_flag_in_force(epoch, value);
}

int fdn_flags_get(fdn_flags *f, const char *name, fdn_flag_value *value)
{
    uint32_t i = 0;
    int rc = fdn_flags_find(f, name, &i);
    if (rc == 0)
        *value = value_at(f, i, f->names[i].group);
    return rc;
}

int fdn_flags_at(fdn_flags *f, uint32_t index, fdn_flag_info *out)
{
    memset(out, 0, sizeof *out);
    if (index >= fdn_flags_count(f))
        return FDN_EUNKNOWN;
    fdn_flag_name n = f->names[index];
    if (!fdn_flag_name_valid(f, &n, false, index))
        return fdn_flags_faulted(f) ? FDN_EFAULTED : FDN_ECORRUPT;
    memcpy(out->name, n.name, n.length);
    out->group = n.group;
    uint64_t epoch = atomic_load(&f->header->epochs[n.group]);
    uint64_t value = atomic_load(&f->values[index]);
    out->value = fdn_flag_in_force(epoch, value);
    out->explicit_value = fdn_flag_epoch(epoch) == fdn_flag_epoch(value) && (value & FDN_FLAG_EXPLICIT);
    out->default_on = atomic_load(&f->notes[index].defaults) & 1;
    out->changed_ns = atomic_load(&f->notes[index].changed_ns);
    return 0;
}

/* ---- setting ----------------------------------------------------------------------------------------------------------------------
 */

int fdn_flags_set_at(fdn_flags *f, uint32_t index, fdn_flag_value bits)
{
    if (!fdn_flag_value_valid(bits))
        return FDN_EINVAL;
    int rc = fdn_flags_writable(f);
    if (rc != 0)
        return rc;
    if (index >= fdn_flags_count(f) || !fdn_flag_name_valid(f, &f->names[index], false, index))
        return fdn_flags_faulted(f) ? FDN_EFAULTED : FDN_EUNKNOWN;
    _Atomic uint64_t *group = &f->header->epochs[f->names[index].group];
    uint64_t epoch;
    fdn_flags_begin(f);
    for (;;) {
        /*
         * The value word is read before the epoch, and the CAS fails if anybody wrote it since: a slow writer can neither bring back
         * an old epoch nor overwrite what was set after a re-arm.
         */
        uint64_t value = atomic_load(&f->values[index]);
        fdn_step(FDN_STEP_FREE);
        epoch = atomic_load(group);
        fdn_step(FDN_STEP_FREE);
        if (fdn_flag_epoch(epoch) == 0)
            rc = FDN_EFAULTED; /* a page of zeroes */
        else if (epoch & FDN_FLAG_ROLLED_BACK)
            rc = FDN_EROLLEDBACK;
        if (rc != 0 ||
            atomic_compare_exchange_strong(&f->values[index], &value, (epoch & FDN_FLAG_EPOCH_MASK) | FDN_FLAG_EXPLICIT | bits))
            break;
    }
    fdn_step(FDN_STEP_FREE);
    if (rc == 0) {
        atomic_store_explicit(&f->notes[index].changed_ns, fdn_clock_wall_ns(), memory_order_relaxed);
        /* Overtaken by a rollback: the flag is off, say so. (One that is over again, or not sticky, came after this set.) */
        uint64_t now = atomic_load(group);
        if (fdn_flag_epoch(now) != fdn_flag_epoch(epoch) && (now & FDN_FLAG_ROLLED_BACK))
            rc = FDN_EROLLEDBACK;
    }
    fdn_flags_end(f);
    return rc == 0 ? fdn_flags_writable(f) : rc;
}

int fdn_flags_set(fdn_flags *f, const char *name, fdn_flag_value value)
{
    uint32_t i = 0;
    int rc = fdn_flags_find(f, name, &i);
    return rc == 0 ? fdn_flags_set_at(f, i, value) : rc;
}

/* ---- what was said about a rollback ------------------------------------------------------------------------------------------------
 */

/* The length of the valid UTF-8 character at s, or 0. */
static size_t utf8_length(const unsigned char *s)
{
    if (s[0] < 0x80)
        return 1;
    size_t n = s[0] >= 0xc2 && s[0] < 0xe0 ? 2 : s[0] >= 0xe0 && s[0] < 0xf0 ? 3 : s[0] >= 0xf0 && s[0] < 0xf5 ? 4 : 0;
    for (size_t i = 1; i < n; i++)
        if ((s[i] & 0xc0) != 0x80)
            return 0;
    if (n == 3 && ((s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xed && s[1] > 0x9f)))
        return 0;
    if (n == 4 && ((s[0] == 0xf0 && s[1] < 0x90) || (s[0] == 0xf4 && s[1] > 0x8f)))
        return 0;
    return n;
}

/* Text for people: cut at a character's end to what fits, control characters as spaces, bytes that are no UTF-8 as '?'. */
static void clean_text(char *to, size_t size, const char *from)
{
    const unsigned char *s = (const unsigned char *)(from ? from : "");
    size_t used = 0;
    while (*s) {
        size_t n = utf8_length(s);
        size_t room = n ? n : 1;
        if (used + room >= size)
            break;
        if (n > 1)
            memcpy(to + used, s, n);
        else
            to[used] = (char)(n == 0 ? '?' : *s < 0x20 || *s == 0x7f ? ' ' : *s);
        used += room;
        s += room;
    }
    memset(to + used, 0, size - used);
}

typedef union {
    uint64_t word[FDN_FLAG_EVENT_WORDS];
    struct {
        uint64_t checksum;
        uint64_t key;
        uint64_t at_ns;
        char who[FDN_FLAG_WHO_MAX + 1];
        char reason[FDN_FLAG_REASON_MAX + 1];
    } is;
} event;

_Static_assert(sizeof(event) == sizeof(fdn_flag_event), "an event is its words");

static uint64_t event_checksum(const event *e, uint32_t group)
{
    return fdn_hash_check(&e->word[1], sizeof e->word - sizeof e->word[0], group);
}

static void say(fdn_flags *f, uint32_t group, uint64_t epoch, bool rearm, const char *reason, const char *who)
{
    event e;
    memset(&e, 0, sizeof e);
    e.is.key = epoch << 1 | rearm;
    e.is.at_ns = fdn_clock_wall_ns();
    clean_text(e.is.who, sizeof e.is.who, who);
    clean_text(e.is.reason, sizeof e.is.reason, reason);
    e.is.checksum = event_checksum(&e, group);
    fdn_flag_event *at = &f->groups[group].events[e.is.key % FDN_FLAG_EVENTS];
    for (size_t i = 0; i < FDN_FLAG_EVENT_WORDS; i++)
        atomic_store_explicit(&at->word[i], e.word[i], memory_order_relaxed);
}

static void said(const fdn_flags *f, uint32_t group, uint64_t epoch, bool rearm, fdn_flag_said *out)
{
    event e;
    uint64_t key = epoch << 1 | rearm;
    const fdn_flag_event *at = &f->groups[group].events[key % FDN_FLAG_EVENTS];
    for (size_t i = 0; i < FDN_FLAG_EVENT_WORDS; i++)
        e.word[i] = atomic_load_explicit(&at->word[i], memory_order_relaxed);
    memset(out, 0, sizeof *out);
    if (e.is.key != key || e.is.checksum != event_checksum(&e, group))
        return;
    out->known = true;
    out->epoch = epoch;
    out->at_ns = e.is.at_ns;
    memcpy(out->who, e.is.who, FDN_FLAG_WHO_MAX);
    memcpy(out->reason, e.is.reason, FDN_FLAG_REASON_MAX);
}

/* ---- groups ------------------------------------------------------------------------------------------------------------------------
 */

int fdn_flags_group_at(fdn_flags *f, uint32_t index, fdn_flag_group *out)
{
    memset(out, 0, sizeof *out);
    if (index >= fdn_flags_group_count(f))
        return FDN_EUNKNOWN;
    fdn_flag_name n = f->groups[index].name;
    if (!fdn_flag_name_valid(f, &n, true, index))
        return fdn_flags_faulted(f) ? FDN_EFAULTED : FDN_ECORRUPT;
    memcpy(out->name, n.name, n.length);
    uint64_t word = atomic_load(&f->header->epochs[index]);
    out->epoch = fdn_flag_epoch(word);
    out->rolled_back = (word & FDN_FLAG_ROLLED_BACK) != 0;
    out->sticky = (word & FDN_FLAG_TRANSIENT) == 0;
    said(f, index, out->epoch, false, &out->rollback);
    said(f, index, out->epoch, true, &out->rearm);
    return 0;
}

int fdn_flags_group_state(fdn_flags *f, const char *group, uint64_t *epoch, bool *rolled_back)
{
    uint32_t g = 0;
    *epoch = 0;
    *rolled_back = true;
    int rc = fdn_flags_find_group(f, group, &g);
    if (rc != 0)
        return fdn_flags_faulted(f) ? FDN_EFAULTED : rc;
    uint64_t word = atomic_load(&f->header->epochs[g]);
    *epoch = fdn_flag_epoch(word);
    *rolled_back = (word & FDN_FLAG_ROLLED_BACK) || *epoch == 0;
    return *epoch == 0 ? FDN_EFAULTED : 0;
}

int fdn_flags_flip(fdn_flags *f, const char *group, const char *reason, const char *who, uint64_t *epoch)
{
    uint32_t g = 0;
    int rc = fdn_flags_writable(f);
    if (rc == 0)
        rc = fdn_flags_find_group(f, group, &g);
    if (rc != 0)
        return rc == FDN_EUNKNOWN && fdn_flags_faulted(f) ? FDN_EFAULTED : rc;
    _Atomic uint64_t *word = &f->header->epochs[g];
    fdn_flags_begin(f);
    uint64_t old = atomic_load(word), new;
    do {
        fdn_step(FDN_STEP_FREE);
        new = old + FDN_FLAG_EPOCH_ONE;
        if (!(old & FDN_FLAG_TRANSIENT))
            new |= FDN_FLAG_ROLLED_BACK;
    } while (fdn_flag_epoch(old) != 0 && !atomic_compare_exchange_weak(word, &old, new));
    fdn_step(FDN_STEP_FREE);
    if (fdn_flag_epoch(old) != 0)
        say(f, g, fdn_flag_epoch(new), false, reason, who);
    fdn_flags_end(f);
    if (fdn_flag_epoch(old) == 0)
        return FDN_EFAULTED;
    if (epoch != NULL)
        *epoch = fdn_flag_epoch(new);
    return fdn_flags_writable(f);
}

int fdn_flags_rollback(fdn_flags *f, const char *group, const char *reason, const char *who, uint64_t *epoch)
{
    int rc = fdn_flags_flip(f, group, reason, who, epoch);
    return rc == 0 ? fdn_flags_sync(f) : rc;
}

int fdn_flags_unflip(fdn_flags *f, const char *group, uint64_t epoch, const char *who)
{
    uint32_t g = 0;
    int rc = fdn_flags_writable(f);
    if (rc == 0)
        rc = fdn_flags_find_group(f, group, &g);
    if (rc != 0)
        return rc == FDN_EUNKNOWN && fdn_flags_faulted(f) ? FDN_EFAULTED : rc;
    _Atomic uint64_t *word = &f->header->epochs[g];
    fdn_flags_begin(f);
    uint64_t old = atomic_load(word);
    do {
        fdn_step(FDN_STEP_FREE);
        if (fdn_flag_epoch(old) == 0)
            rc = FDN_EFAULTED;
        else if (fdn_flag_epoch(old) != epoch)
            rc = FDN_ESTALE;
        else if (!(old & FDN_FLAG_ROLLED_BACK))
            rc = FDN_ENOTROLLEDBACK;
    } while (rc == 0 && !atomic_compare_exchange_weak(word, &old, old & ~FDN_FLAG_ROLLED_BACK));
    if (rc == 0)
        say(f, g, epoch, true, "", who);
    fdn_flags_end(f);
    return rc == 0 ? fdn_flags_writable(f) : rc;
}

int fdn_flags_rearm(fdn_flags *f, const char *group, uint64_t epoch, const char *who)
{
    int rc = fdn_flags_unflip(f, group, epoch, who);
    return rc == 0 ? fdn_flags_sync(f) : rc;
}
