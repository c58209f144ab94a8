/*
 * fdn_clock.h - clocks, in nanoseconds.
 *
 * The monotonic clocks never go back while the machine runs; they start again at a reboot, which fdn_boot_id tells apart. The wall
 * clock may jump and is used only to carry a duration across a reboot and to date records for people.
 */
#ifndef FDN_CLOCK_H
#define FDN_CLOCK_H

#include <stdint.h>
#include <time.h>

#define FDN_NS_PER_MS 1000000ULL
#define FDN_NS_PER_S 1000000000ULL

#if defined(CLOCK_MONOTONIC_COARSE)
#define FDN_CLOCK_COARSE CLOCK_MONOTONIC_COARSE
#elif defined(CLOCK_MONOTONIC_FAST)
#define FDN_CLOCK_COARSE CLOCK_MONOTONIC_FAST
#else
#define FDN_CLOCK_COARSE CLOCK_MONOTONIC
#endif

static inline uint64_t fdn_clock_read_ns(clockid_t id)
{
    struct timespec ts;
    /* Cannot fail: the ids are constants the platform defines and the pointer is valid. */
    (void)clock_gettime(id, &ts);
    return (uint64_t)ts.tv_sec * FDN_NS_PER_S + (uint64_t)ts.tv_nsec;
}

/* Monotonic time, full resolution (about 23 ns a call). */
static inline uint64_t fdn_clock_mono_ns(void)
{
    return fdn_clock_read_ns(CLOCK_MONOTONIC);
}

/* Monotonic time at the kernel's tick (4 ms on common kernels, about 3 ns a call). Same origin as fdn_clock_mono_ns. */
static inline uint64_t fdn_clock_coarse_ns(void)
{
    return fdn_clock_read_ns(FDN_CLOCK_COARSE);
}

/* Resolution of fdn_clock_coarse_ns. */
uint64_t fdn_clock_coarse_resolution_ns(void);

/* Wall clock, nanoseconds since the Unix epoch. */
uint64_t fdn_clock_wall_ns(void);

/* The identity of this boot of the machine, 16 bytes. Returns 0, or an errno where the system does not tell one (then zeroed). */
int fdn_boot_id(uint8_t id[16]);

#endif
