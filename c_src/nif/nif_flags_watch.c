/*
 * The watcher: one thread that sleeps on the file's futex word and tells the server when any word of the file changed, by whomever.
 *
 * It compares the words themselves with what it saw last, at least every 100 ms: a writer that was killed before it could wake anybody
 * is seen nevertheless. At most one message is under way; the server says `looked` before it looks, so nothing is missed in between.
 */
#include <string.h>
#include <time.h>

#include "base/fdn_error.h"
#include "nif/nif_flags.h"

#define RESCAN_MS 100
#define BETWEEN_MESSAGES_NS 2000000L /* a flag set in a loop does not keep the server busy */

/* What the watcher saw last; its own from start to end. */
typedef struct {
    flags_state *state;
    fdn_flags *file;
    uint32_t flags, groups;
    bool faulted;
    bool untold;
    uint64_t epochs[FDN_FLAG_GROUPS_MAX];
    uint64_t values[];
} sight;

static bool look(sight *seen)
{
    fdn_flags *f = seen->file;
    bool changed = false;
    bool faulted = fdn_flags_faulted(f);
    uint32_t flags = fdn_flags_count(f), groups = fdn_flags_group_count(f);
    if (faulted != seen->faulted || flags != seen->flags || groups != seen->groups)
        changed = true;
    seen->faulted = faulted;
    seen->flags = flags;
    seen->groups = groups;
    for (uint32_t i = 0; i < groups; i++) {
        uint64_t word = atomic_load(fdn_flags_epoch_word(f, i));
        changed |= word != seen->epochs[i];
        seen->epochs[i] = word;
    }
    for (uint32_t i = 0; i < flags; i++) {
        uint64_t word = atomic_load(fdn_flags_value_word(f, i));
        changed |= word != seen->values[i];
        seen->values[i] = word;
    }
    return changed;
}

/* False where it could not be told now and should be later. */
static bool tell(flags_state *s)
{
    if (!s->has_server || atomic_exchange(&s->reported, true))
        return true;
    ErlNifEnv *env = enif_alloc_env();
    bool told = env != NULL && enif_send(NULL, &s->server, env, s->message);
    if (env)
        enif_free_env(env);
    if (!told)
        atomic_store(&s->reported, false);
    return told;
}

/* `server` and the table are only written while no watcher runs. */
static void *watch(void *arg)
{
    sight *seen = arg;
    flags_state *s = seen->state;
    while (!atomic_load(&s->stop)) {
        uint32_t ticket = fdn_flags_ticket(seen->file);
        if (atomic_load(&s->stop))
            break;
        bool changed = look(seen);
        if (changed || seen->untold)
            seen->untold = !tell(s);
        if (changed)
            nanosleep(&(struct timespec){0, BETWEEN_MESSAGES_NS}, NULL);
        fdn_flags_wait(seen->file, ticket, RESCAN_MS);
    }
    enif_free(seen);
    return NULL;
}

int flags_watch_start(flags_state *s)
{
    if (s->watching)
        return 0;
    fdn_flags *file = atomic_load(&s->table)->file;
    size_t size = sizeof(sight) + fdn_flags_capacity(file) * sizeof(uint64_t);
    sight *seen = enif_alloc(size);
    if (seen == NULL)
        return FDN_ENOMEM;
    memset(seen, 0, size);
    seen->state = s;
    seen->file = file;
    seen->untold = true; /* whoever starts a watcher has not looked yet */
    atomic_store(&s->stop, false);
    atomic_store(&s->reported, false);
    int rc = enif_thread_create((char *)"foundation_flags", &s->watcher, watch, seen, NULL);
    if (rc != 0)
        enif_free(seen);
    s->watching = rc == 0;
    return rc;
}

void flags_watch_stop(flags_state *s)
{
    if (!s->watching)
        return;
    atomic_store(&s->stop, true);
    /* After the wake-up the ticket differs, so a watcher that had not yet gone to sleep does not. */
    fdn_flags_wake(atomic_load(&s->table)->file);
    enif_thread_join(s->watcher, NULL);
    s->watching = false;
}
