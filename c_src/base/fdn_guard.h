/*
 * fdn_guard.h - survive a mapped file that somebody truncates.
 *
 * Touching a mapped page behind the end of its file raises SIGBUS, whose default is the death of the whole VM. The guard is one
 * process-wide signal handler with a table of the ranges we mapped. A fault inside a registered range gets a private zero page at the
 * faulting address, the range is marked, and the faulting instruction is run again: readers see zeroes, which every format of ours
 * reads as "off", "absent" or "invalid". A fault anywhere else is passed on to the handler that stood before us, or to the default.
 *
 * The NIF libraries share one guard: it is a shared object of its own that stays loaded (-z nodelete), because a signal handler must
 * not vanish with the library that installed it. This table is the one mutable global of the project.
 *
 * Source: sigaction(2), mmap(2); the idea is the one of Java's and SQLite's handling of mapped-file faults.
 */
#ifndef FDN_GUARD_H
#define FDN_GUARD_H

#include <stdbool.h>
#include <stddef.h>

#define FDN_EXPORT __attribute__((visibility("default")))

/* How many ranges one process can register. */
#define FDN_GUARD_RANGES 8192

/* Install the handler. Idempotent and thread-safe. Returns 0 or an errno. */
FDN_EXPORT int fdn_guard_init(void);

/*
 * Register [addr, addr+len). Returns a slot number, or FDN_EMAPPINGS where the table is full. The caller removes the slot before it
 * unmaps the range. Safe from any thread.
 */
FDN_EXPORT int fdn_guard_add(void *addr, size_t len);

/* Take the range out again. After return no fault in it is handled any more. */
FDN_EXPORT void fdn_guard_remove(int slot);

/* Whether a fault happened in this range. One atomic load; false for a negative slot. */
FDN_EXPORT bool fdn_guard_faulted(int slot);

/* Whether our handler is the one in force (another library may have replaced it since). */
FDN_EXPORT bool fdn_guard_installed(void);

#endif
