/*
 * What may stand in the slots of a file that nobody had in order when it was last written: a process was killed in the middle of an
 * insertion (BUSY), or the machine died, and pages of different age came to the disk.
 */
#include "engine/limiter_file.h"

#define DAY_MS 86400000ULL

/* The furthest that a hit can put a state into the future; a day more, since after a crash time may go on from an older stamp. */
static uint64_t furthest_ms(fdn_limiter_algorithm algorithm)
{
    switch (algorithm) {
    case FDN_LIMITER_GCRA:
        return FDN_LIMITER_MAX_AHEAD / (16 * FDN_NS_PER_MS) + DAY_MS;
    case FDN_LIMITER_FIXED_WINDOW:
        return FDN_LIMITER_MAX_PERIOD_MS + DAY_MS;
    default:
        return 2 * FDN_LIMITER_MAX_PERIOD_MS + (1ULL << 31) + DAY_MS;
    }
}

/* BUSY, all ones, is further than that in every algorithm. */
static bool possible(fdn_limiter_algorithm algorithm, uint64_t state, uint64_t now_ns)
{
    /* Where the wait would overflow, before it does. */
    if (algorithm == FDN_LIMITER_GCRA && state > now_ns * 16 && state - now_ns * 16 > 2 * FDN_LIMITER_MAX_AHEAD)
        return false;
    return fdn_limiter_expires_in_ms(algorithm, state, now_ns) <= furthest_ms(algorithm);
}

static bool sound(fdn_limiter_algorithm algorithm, uint64_t print, uint64_t state, uint64_t now_ns, uint64_t place, uint64_t count)
{
    if (print == 0 || !possible(algorithm, state, now_ns))
        return false;
    uint64_t first = fdn_limiter_first_place(print, count);
    return place == first || place == fdn_limiter_second_place(print, count, first);
}

/* An earlier slot of the same key, which a search meets first. */
static _Atomic uint64_t *earlier(fdn_limiter_bucket *buckets, uint64_t count, uint64_t place, int slot, fdn_limiter_algorithm algorithm,
                                 uint64_t now_ns)
{
    uint64_t print = atomic_load(&buckets[place].print[slot]);
    uint64_t first = fdn_limiter_first_place(print, count);
    for (uint64_t at = first;; at = place) {
        int end = at == place ? slot : FDN_LIMITER_SLOTS;
        for (int i = 0; i < end; i++) {
            if (atomic_load(&buckets[at].print[i]) == print && possible(algorithm, atomic_load(&buckets[at].state[i]), now_ns))
                return &buckets[at].state[i];
        }
        if (at == place)
            return NULL;
    }
}

uint64_t fdn_limiter_recover(fdn_limiter_bucket *buckets, uint64_t count, fdn_limiter_algorithm algorithm, uint64_t now_ns)
{
    uint64_t dropped = 0;
    for (uint64_t place = 0; place < count; place++) {
        for (int i = 0; i < FDN_LIMITER_SLOTS; i++) {
            uint64_t print = atomic_load(&buckets[place].print[i]), state = atomic_load(&buckets[place].state[i]);
            if (print == 0 && state == FDN_LIMITER_FRESH)
                continue;
            if (sound(algorithm, print, state, now_ns, place, count)) {
                _Atomic uint64_t *other = earlier(buckets, count, place, i, algorithm, now_ns);
                if (other == NULL)
                    continue;
                /* Of one key, so of one period: in every algorithm the greater word has its end later, or as late and more consumed. */
                if (atomic_load(other) < state)
                    atomic_store(other, state);
            }
            atomic_store(&buckets[place].print[i], 0);
            atomic_store(&buckets[place].state[i], FDN_LIMITER_FRESH);
            dropped++;
        }
    }
    return dropped;
}

static uint64_t moved_back(fdn_limiter_algorithm algorithm, uint64_t state, uint64_t back_ms)
{
    if (algorithm == FDN_LIMITER_GCRA)
        return state - back_ms * FDN_NS_PER_MS * 16;
    if (algorithm == FDN_LIMITER_FIXED_WINDOW)
        return state - (back_ms << 24);
    /*
     * The windows lie at other moments now, and their period is not known here. An end that is one unit later than it would be makes
     * the word say that its window began no earlier than it did, or that it is still to come.
     */
    unsigned shift = (unsigned)(state >> 59);
    return state - (((back_ms >> shift) - 1) << 2 * fdn_limiter_sliding_count_bits(shift));
}

void fdn_limiter_move_back(const fdn_limiter_bucket *from, fdn_limiter_bucket *to, uint64_t count, fdn_limiter_algorithm algorithm,
                           uint64_t now_ns, uint64_t back_ms)
{
    for (uint64_t place = 0; place < count; place++) {
        for (int i = 0; i < FDN_LIMITER_SLOTS; i++) {
            uint64_t print = atomic_load(&from[place].print[i]), state = atomic_load(&from[place].state[i]);
            if (print == 0 || fdn_limiter_expired(algorithm, state, now_ns))
                continue;
            atomic_store(&to[place].print[i], print);
            atomic_store(&to[place].state[i], moved_back(algorithm, state, back_ms));
        }
    }
}
