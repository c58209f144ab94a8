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
 * A step of a lock-free protocol, between two accesses that must hold up against whatever others do in between. Nothing in ordinary
 * builds. For TSan the thread gives way here now and then: on few cores the narrow windows would hardly ever be hit. In the check
 * programs (FDN_ALLOC_FAULTS) a hook is called, which plays the others.
 */
typedef enum {
    FDN_STEP_FREE,   /* holding nothing, as far as this place knows */
    FDN_STEP_LOCKED, /* a lock was just taken, and is held until the operation ends */
    FDN_STEP_CLAIMED /* others would wait for this thread */
} fdn_step_kind;

extern void (*fdn_step_hook)(fdn_step_kind kind); /* of the check programs; defined by test/c/support.c */
#if defined(FDN_ALLOC_FAULTS)
static inline void fdn_step(fdn_step_kind kind)
{
    if (fdn_step_hook)
        fdn_step_hook(kind);
}
#elif defined(__SANITIZE_THREAD__)
#include <sched.h>
#include <time.h>
static inline void fdn_step(fdn_step_kind kind)
{
    struct timespec ts;
    (void)kind;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    if ((ts.tv_nsec >> 5) % 4 == 0)
        sched_yield();
}
#else
static inline void fdn_step(fdn_step_kind kind)
{
    (void)kind;
}
#endif

/* Hint to the core that this cache line will be written: it comes as the core's own, not as a copy that others keep as well. */
static inline void fdn_prefetch_to_write(const void *p)
{
#if defined(__x86_64__)
    /* Compilers keep it for CPU levels above the first; older CPUs take it as no operation. */
    __asm__ __volatile__("prefetchw %0" ::"m"(*(const char *)p));
#else
    __builtin_prefetch(p, 1);
#endif
}

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
