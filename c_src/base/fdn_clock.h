/*
 * fdn_clock.h - clocks, in nanoseconds.
 *
 * The monotonic clocks never go back while the machine runs; they start again at a reboot, which fdn_boot_id tells apart. The wall
 * clock may jump and is used only to carry a duration across a reboot and to date records for people.
 */
#ifndef FDN_CLOCK_H
#define FDN_CLOCK_H

#include <stdint.h>

#define FDN_NS_PER_MS 1000000ULL
#define FDN_NS_PER_S 1000000000ULL

/* Monotonic time, full resolution (about 23 ns a call). */
uint64_t fdn_clock_mono_ns(void);

/* Monotonic time at the kernel's tick (4 ms on common kernels, about 3 ns a call). Same origin as fdn_clock_mono_ns. */
uint64_t fdn_clock_coarse_ns(void);

/* Resolution of fdn_clock_coarse_ns. */
uint64_t fdn_clock_coarse_resolution_ns(void);

/* Wall clock, nanoseconds since the Unix epoch. */
uint64_t fdn_clock_wall_ns(void);

/* The identity of this boot of the machine, 16 bytes. Returns 0, or an errno where the system does not tell one (then zeroed). */
int fdn_boot_id(uint8_t id[16]);

#endif
