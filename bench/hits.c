/*
 * hits.c - what a hit of one key costs in the engine alone. Part of `make bench` only, which builds it twice: as it is, and with the
 * counters of allowed and denied hits left out (FDN_LIMITER_UNCOUNTED).
 *
 * Prints nanoseconds a hit: the shortest of several loops of some milliseconds each.
 */
#include <stdio.h>

#include "base/fdn_clock.h"
#include "engine/limiter.h"
#include "engine/limiter_names.h"

#define LOOPS 10
#define HITS 200000
#define KEY 0x9e3779b97f4a7c15ULL

int main(void)
{
    fdn_limiter_config config = {
        .algorithm = FDN_LIMITER_FIXED_WINDOW, .limit = FDN_LIMITER_MAX_FIXED_LIMIT, .period_ms = 3600000, .capacity = 1000};
    fdn_limiter_fit fit;
    fdn_limiters *names;
    fdn_limiter *t;
    if (fdn_limiters_create(false, &names) || fdn_limiter_create(&config, &t, &fit))
        return 2;
    unsigned lane = fdn_limiters_lane(names);
    uint64_t best = UINT64_MAX;
    for (int i = 0; i < LOOPS; i++) {
        uint64_t begin = fdn_clock_mono_ns();
        for (int j = 0; j < HITS; j++) {
            if (!fdn_limiter_hit(t, lane, fdn_limiter_preset(t), KEY, 1).allowed)
                return 3;
        }
        uint64_t took = fdn_clock_mono_ns() - begin;
        best = took < best ? took : best;
    }
    printf("%.3f\n", (double)best / HITS);
    fdn_limiter_destroy(t);
    fdn_limiters_destroy(names);
    return 0;
}
