/*
 * explore.h - every interleaving of some threads that run the engine's own code.
 *
 * The engine is compiled with explore_shim.h in front of it, which makes each access to an atomic word a point at which another thread
 * may go on. The threads are coroutines. From every state that is reached each of them is tried in turn; a state is the words that are
 * ever written, the stacks and registers of the threads, and what the program adds (explore_state). States are told apart by a hash of
 * 128 bits, and not gone through twice. The search ends when there is nothing left to try.
 *
 * A store that the code makes weaker than seq_cst goes to the store buffer of its thread, first in, first out: it becomes visible at
 * any moment, before the next seq_cst store or read-modify-write of its thread, or by explore_membarrier. All else is seq_cst. Relaxed
 * accesses are not looked at: they are no part of a protocol.
 */
#ifndef FDN_MODEL_EXPLORE_H
#define FDN_MODEL_EXPLORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* ---- for the program ------------------------------------------------------------------------------------------------------------- */

/* Memory that belongs to the state: what the program knows and changes. Not the words that the engine accesses atomically. */
void explore_state(void *memory, size_t bytes);

/* A thread. At most 4. */
void explore_thread(void (*body)(uintptr_t argument), uintptr_t argument);

/*
 * Go through everything, from here. `at_end` is called in every state in which all threads have ended, outside of any thread, and
 * writes no words. Afterwards the threads are where they began.
 */
void explore(void (*at_end)(void));

/* Print the figures of all that was explored. */
void explore_summary(void);

/* Inside a thread: go on with each of 0 .. n - 1. */
unsigned explore_choose(unsigned n);

/* Inside a thread: others may go on here. */
void explore_pass(void);

/* The property `what` does not hold: print it and how it came to that, and exit with 1. */
_Noreturn void explore_violated(const char *what);

/* ---- for the shim ---------------------------------------------------------------------------------------------------------------- */

typedef enum { EXPLORE_LOAD, EXPLORE_STORE, EXPLORE_SWAP } explore_access;

/* Before an access to an atomic word of the engine, and after one that has changed it. */
void explore_before(const volatile void *word, size_t bytes, explore_access access);
void explore_changed(void);

/* A store weaker than seq_cst. */
void explore_store_later(volatile void *word, size_t bytes, uint64_t value);

void explore_lock(const void *mutex);
void explore_unlock(const void *mutex);

/* What a loop does that waits for others: nothing, until another thread has changed something. */
void explore_wait(void);

/* Everybody's store buffer is emptied, one after the other. */
void explore_membarrier(void);

#endif
