/*
 * explore_names lanes|portable|crowd OPERATIONS...: the registry of limiters, one thread for each OPERATIONS. In capitals they are a
 * reader's: N (enter by any name, use it, leave), T (the same, and be told the handle), H (by any handle there was); in small letters
 * changes: a, b (add a limiter of that name), d (remove any). `crowd`: readers have no lane of their own. To begin with there is one
 * limiter, named a. Both names are at home in the same place. Freed addresses are given to new limiters.
 *
 * Nobody uses a limiter that is destroyed; a name finds a limiter that bore it at some moment within the call, and nothing only if
 * there was one without; a handle finds its limiter; a limiter is removed once.
 */
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fdn_error.h"
#include "engine/limiter_names.h"
#include "test/model/explore.h"

#define ADDRESSES 3
#define LIMITERS 8
#define THREADS 4

static fdn_limiters *registry;
static uint64_t names[2];
static const char *scripts[THREADS];
static unsigned script_count;
static bool crowd;

typedef enum { ABSENT, COMING, PRESENT, GOING, GONE } standing;

/* What is true. No padding. */
static struct {
    uint64_t handle[LIMITERS]; /* once it was told */
    uint8_t name[LIMITERS], is[LIMITERS];
    uint8_t alive[ADDRESSES]; /* the limiter at this address; 0: free memory */
    uint8_t held[THREADS];    /* address + 1 of what the thread uses */
    uint8_t made;
} truth;

static char memory[ADDRESSES]; /* limiters are not looked into */

static fdn_limiter *at_address(unsigned i)
{
    return (fdn_limiter *)(void *)&memory[i];
}

static unsigned address_of(const fdn_limiter *t)
{
    return (unsigned)((const char *)(const void *)t - memory);
}

void fdn_limiter_destroy(fdn_limiter *t)
{
    if (t == NULL)
        return;
    for (unsigned i = 0; i < THREADS; i++) {
        if (truth.held[i] == address_of(t) + 1)
            explore_violated("nobody uses a limiter that is destroyed");
    }
    if (truth.alive[address_of(t)] == 0)
        explore_violated("a limiter is destroyed once");
    truth.alive[address_of(t)] = 0;
}

int explore_clock(clockid_t id, struct timespec *out);
int explore_clock(clockid_t id, struct timespec *out)
{
    *out = (struct timespec){.tv_sec = id};
    return 0;
}

/* ---- changes --------------------------------------------------------------------------------------------------------------------- */

static void add(unsigned name, unsigned address)
{
    fdn_limiters_entry entry;
    unsigned made = ++truth.made;
    truth.alive[address] = (uint8_t)made;
    truth.name[made] = (uint8_t)name;
    truth.is[made] = COMING;
    if (fdn_limiters_add(registry, names[name], 1, at_address(address), &entry) == 0) {
        truth.is[made] = PRESENT;
        truth.handle[made] = entry.handle;
    } else {
        truth.is[made] = ABSENT;
        truth.alive[address] = 0;
    }
}

/* One of those for which `may` holds; LIMITERS: there is none. */
static unsigned any(unsigned count, bool (*may)(unsigned i))
{
    unsigned found[LIMITERS + ADDRESSES], n = 0;
    for (unsigned i = 0; i < count; i++) {
        if (may(i))
            found[n++] = i;
    }
    return n == 0 ? LIMITERS : n == 1 ? found[0] : found[explore_choose(n)];
}

static bool is_free(unsigned address)
{
    return truth.alive[address] == 0;
}

static bool had_handle(unsigned limiter)
{
    return truth.handle[limiter] != 0;
}

static bool is_present(unsigned limiter)
{
    return truth.is[limiter] == PRESENT || truth.is[limiter] == GOING;
}

static void change(char what)
{
    unsigned i = what == 'd' ? any(LIMITERS, is_present) : any(ADDRESSES, is_free);
    if (i == LIMITERS)
        return;
    if (what != 'd') {
        add((unsigned)(what - 'a'), i);
        return;
    }
    truth.is[i] = GOING;
    int rc = fdn_limiters_remove(registry, truth.handle[i]);
    if (rc == 0 && truth.is[i] == GONE)
        explore_violated("a limiter is removed once");
    if (rc == 0)
        truth.is[i] = GONE;
}

/* ---- readers --------------------------------------------------------------------------------------------------------------------- */

/* Bits: the limiters that are wanted, by name or as themselves, and stand like this. */
static unsigned wanted(bool by_name, unsigned which, standing is)
{
    unsigned bits = 0;
    for (unsigned i = 1; i < LIMITERS; i++) {
        if (truth.is[i] == is && (by_name ? truth.name[i] == which : i == which))
            bits |= 1U << i;
    }
    return bits;
}

static void read_by(unsigned me, unsigned lane, char how)
{
    bool by_name = how != 'H';
    unsigned which = by_name ? explore_choose(2) : any(LIMITERS, had_handle);
    unsigned present = wanted(by_name, which, PRESENT), gone = wanted(by_name, which, GONE);
    uint64_t told = 0;
    fdn_limiter *t = how == 'N'   ? fdn_limiters_enter(registry, lane, names[which])
                     : how == 'T' ? fdn_limiters_enter_and_tell(registry, lane, names[which], &told)
                                  : fdn_limiters_enter_handle(registry, lane, truth.handle[which]);
    if (t == NULL) {
        if (present & wanted(by_name, which, PRESENT))
            explore_violated("what was there all the while is found");
        return;
    }
    unsigned found = truth.alive[address_of(t)];
    if (found == 0)
        explore_violated("what is found is not destroyed");
    if ((by_name ? truth.name[found] != which : found != which) || (gone >> found & 1))
        explore_violated("what is found is what was asked for");
    if (how == 'T' && truth.handle[found] != 0 && told != truth.handle[found])
        explore_violated("the handle that is told is that of what was found");
    truth.held[me] = (uint8_t)(address_of(t) + 1);
    explore_pass();
    truth.held[me] = 0;
    fdn_limiters_leave(registry, lane);
}

static void worker(uintptr_t me)
{
    unsigned lane = 0;
    if (!crowd && scripts[me][0] < 'a')
        lane = fdn_limiters_lane(registry);
    for (const char *s = scripts[me]; *s != 0; s++) {
        if (*s < 'a')
            read_by((unsigned)me, lane, *s);
        else
            change(*s);
    }
}

static void at_end(void)
{
    for (unsigned i = 1; i < LIMITERS; i++) {
        fdn_limiters_entry entry;
        if (truth.is[i] == PRESENT && fdn_limiters_find(registry, names[truth.name[i]], &entry) != 0)
            explore_violated("what is there can be found");
        if (truth.is[i] == PRESENT && entry.handle != truth.handle[i])
            explore_violated("a name is borne by one limiter");
    }
}

/* ---- begin ----------------------------------------------------------------------------------------------------------------------- */

/* The place where a name is put in an empty registry. */
static uint64_t home_of(uint64_t name)
{
    fdn_limiters_entry entry = {0};
    truth.alive[0] = 1;
    if (fdn_limiters_add(registry, name, 1, at_address(0), &entry) == 0)
        fdn_limiters_remove(registry, entry.handle);
    return entry.handle % (2 * FDN_LIMITERS_MAX);
}

int main(int argc, char **argv)
{
    if (argc < 3 || fdn_limiters_create(strcmp(argv[1], "portable") == 0, &registry) != 0) {
        fprintf(stderr, "usage: explore_names lanes|portable|crowd OPERATIONS...\n");
        return 2;
    }
    crowd = strcmp(argv[1], "crowd") == 0;
    names[0] = names[1] = 2;
    while (names[1] == names[0] || home_of(names[1]) != home_of(names[0]))
        names[1]++;
    add(0, 0);
    explore_state(&truth, sizeof truth);
    explore_state(registry, malloc_usable_size(registry));
    for (int i = 2; i < argc; i++) {
        scripts[script_count] = argv[i];
        explore_thread(worker, script_count++);
    }
    explore(at_end);
    explore_summary();
    return 0;
}
