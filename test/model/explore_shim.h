/*
 * explore_shim.h - included before everything else where the engine is compiled to be explored: what it does to atomic words, locks and
 * clocks becomes known to explore.c.
 */
#ifndef FDN_MODEL_EXPLORE_SHIM_H
#define FDN_MODEL_EXPLORE_SHIM_H

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <time.h>
#include <unistd.h>

#include "base/fdn_atomic.h"
#include "test/model/explore.h"

/* Relaxed are only counters and hints, which are no part of any protocol: nobody goes on there. */
#undef atomic_load
#define atomic_load(P) (explore_before((P), sizeof *(P), EXPLORE_LOAD), *(P))
#undef atomic_load_explicit
#define atomic_load_explicit(P, ORDER) ((ORDER) == memory_order_relaxed ? *(P) : atomic_load(P))

#undef atomic_store
#define atomic_store(P, V) (explore_before((P), sizeof *(P), EXPLORE_STORE), (void)(*(P) = (V)), explore_changed())
#undef atomic_store_explicit
#define atomic_store_explicit(P, V, ORDER)                                                                                             \
    ((ORDER) == memory_order_relaxed ? (void)(*(P) = (V)) : explore_store_later((P), sizeof *(P), (uint64_t)(uintptr_t)(V)))

#undef atomic_compare_exchange_strong
#define atomic_compare_exchange_strong(P, EXPECTED, V)                                                                                 \
    (explore_before((P), sizeof *(P), EXPLORE_SWAP),                                                                                   \
     atomic_compare_exchange_strong_explicit((P), (EXPECTED), (V), memory_order_seq_cst, memory_order_seq_cst) &&                      \
         (explore_changed(), 1))
#undef atomic_compare_exchange_weak
#define atomic_compare_exchange_weak atomic_compare_exchange_strong

#undef atomic_fetch_add
#define atomic_fetch_add(P, V)                                                                                                         \
    (explore_before((P), sizeof *(P), EXPLORE_SWAP), explore_changed(), atomic_fetch_add_explicit((P), (V), memory_order_seq_cst))
#undef atomic_fetch_sub
#define atomic_fetch_sub(P, V)                                                                                                         \
    (explore_before((P), sizeof *(P), EXPLORE_SWAP), explore_changed(), atomic_fetch_sub_explicit((P), (V), memory_order_seq_cst))

#define pthread_mutex_lock explore_lock
#define pthread_mutex_unlock explore_unlock
#define sched_yield explore_wait
#define fdn_cpu_relax explore_wait
#define nanosleep(HOW_LONG, LEFT) explore_wait()
#define syscall(...) (explore_membarrier(), 0L)
#define clock_gettime explore_clock /* of the program */
int explore_clock(clockid_t id, struct timespec *out);

#endif
