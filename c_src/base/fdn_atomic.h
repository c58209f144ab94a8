/*
 * fdn_atomic.h - the few words about atomics that every part shares.
 *
 * The engines use C11 <stdatomic.h> directly. Only lock-free 32- and 64-bit atomics are used, because the words live in memory that
 * other OS processes map, where a lock hidden inside an atomic would not be shared.
 */
#ifndef FDN_ATOMIC_H
#define FDN_ATOMIC_H

#include <stdatomic.h>
#include <stdint.h>

_Static_assert(ATOMIC_INT_LOCK_FREE == 2, "32-bit atomics must be lock-free");
_Static_assert(ATOMIC_LLONG_LOCK_FREE == 2, "64-bit atomics must be lock-free");
_Static_assert(sizeof(_Atomic uint64_t) == 8, "an atomic word has no hidden lock");
_Static_assert(sizeof(_Atomic uint32_t) == 4, "an atomic word has no hidden lock");

/* Size of the unit in which cores exchange memory; words written by different cores are kept this far apart. */
#define FDN_CACHE_LINE 64

/*
 * A point at which a lock-free protocol wants to be interrupted in its tests. Nothing, except in builds for TSan, where the thread
 * gives way to another one now and then: on few cores the narrow windows would hardly ever be hit.
 */
#if defined(__SANITIZE_THREAD__)
#include <sched.h>
#include <time.h>
static inline void fdn_race_point(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    if ((ts.tv_nsec >> 5) % 4 == 0)
        sched_yield();
}
#else
static inline void fdn_race_point(void)
{
}
#endif

/* Hint to the core that this is a spin loop. */
static inline void fdn_cpu_relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ __volatile__("yield");
#endif
}

#endif
