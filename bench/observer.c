/*
 * observer.c - another OS process that sees a flag go off. Part of `make bench` only.
 *
 *     observer FILE FLAG
 *
 * Answers every line of its input twice: "on" when the flag is seen on, then the wall clock in nanoseconds when it is seen off. In
 * between it spins, as any reader of the file may at 1 ns a look.
 */
#include <inttypes.h>
#include <stdio.h>

#include "base/fdn_atomic.h"
#include "base/fdn_clock.h"
#include "shared/flag_map.h"

int main(int argc, char **argv)
{
    fdn_flags *flags;
    fdn_flag_info info;
    uint32_t index;
    char line[64];
    if (argc != 3 || fdn_flags_open(&flags, argv[1], FDN_FLAGS_READ_ONLY))
        return 2;
    if (fdn_flags_find(flags, argv[2], &index) || fdn_flags_at(flags, index, &info))
        return 3;
    const _Atomic uint64_t *epoch = fdn_flags_epoch_word(flags, info.group);
    const _Atomic uint64_t *value = fdn_flags_value_word(flags, index);
    while (fgets(line, sizeof line, stdin)) {
        while (fdn_flag_in_force(atomic_load(epoch), atomic_load(value)) == FDN_FLAG_FALSE)
            fdn_cpu_relax();
        puts("on");
        fflush(stdout);
        for (;;) {
            uint64_t e = atomic_load_explicit(epoch, memory_order_acquire);
            if (fdn_flag_in_force(e, atomic_load_explicit(value, memory_order_acquire)) == FDN_FLAG_FALSE)
                break;
            fdn_cpu_relax();
        }
        printf("%" PRIu64 "\n", fdn_clock_wall_ns());
        fflush(stdout);
    }
    fdn_flags_close(flags);
    return 0;
}
