/*
 * limiter_names.h - the limiters of a library, by name, and when one may be taken apart.
 *
 * A hit looks its limiter up without a lock and without writing to memory that other threads write: a table of {name, limiter} with
 * open addressing, and a line of its own (its lane) where the thread says which limiter it is inside. Whoever deletes a limiter first
 * unpublishes it, then waits until no lane names it, then gives its memory back. See the top of limiter_names.c.
 *
 * A name is a 64-bit word that is neither 0 nor 1 (an atom). A handle is the place of a limiter and its incarnation: it finds exactly
 * that limiter, and nothing once it is deleted. Handles are below 2^59.
 */
#ifndef FDN_LIMITER_NAMES_H
#define FDN_LIMITER_NAMES_H

#include "engine/limiter.h"

/* How many limiters may live at once. */
#define FDN_LIMITERS_MAX 8192

typedef struct fdn_limiters fdn_limiters;

/* What a name stands for. `owner` is a word of the caller's (a pid), 0 for none. */
typedef struct {
    uint64_t handle;
    uint64_t owner;
} fdn_limiters_entry;

/*
 * `portable`: readers announce themselves by an ordered store, instead of a plain one that deleters make visible with membarrier(2).
 * Used by itself where the system has no such call. Returns 0 or FDN_ENOMEM.
 */
int fdn_limiters_create(bool portable, fdn_limiters **out);

/* Destroys the limiters that are left. No other thread may be inside. NULL is allowed. */
void fdn_limiters_destroy(fdn_limiters *r);

/* A lane for the calling thread, to keep for its life; 0 when all are given out, which every thread may use, at a higher cost. */
unsigned fdn_limiters_lane(fdn_limiters *r);

/*
 * Enter the limiter of this name or handle; NULL where there is none. Between enter and leave it is not taken apart. A thread is inside
 * one limiter at a time. Lock-free.
 */
fdn_limiter *fdn_limiters_enter(fdn_limiters *r, unsigned lane, uint64_t name);
fdn_limiter *fdn_limiters_enter_handle(fdn_limiters *r, unsigned lane, uint64_t handle);

/* As fdn_limiters_enter; *handle is then the limiter's, by which exactly this one is found again. */
fdn_limiter *fdn_limiters_enter_and_tell(fdn_limiters *r, unsigned lane, uint64_t name, uint64_t *handle);

void fdn_limiters_leave(fdn_limiters *r, unsigned lane);

/*
 * Publish a limiter. On success the registry owns it. FDN_EBUSY where the name is taken, FDN_EFULL beyond FDN_LIMITERS_MAX; then it is
 * still the caller's.
 */
int fdn_limiters_add(fdn_limiters *r, uint64_t name, uint64_t owner, fdn_limiter *t, fdn_limiters_entry *out);

/* The entry of a name, or of a handle: 0, or FDN_EUNKNOWN. */
int fdn_limiters_find(fdn_limiters *r, uint64_t name, fdn_limiters_entry *out);
int fdn_limiters_find_handle(fdn_limiters *r, uint64_t handle, fdn_limiters_entry *out);

/* Put `owner` in the place of `expected`: 0, FDN_EUNKNOWN, or FDN_EBUSY where the owner is another one by now. */
int fdn_limiters_adopt(fdn_limiters *r, uint64_t handle, uint64_t expected, uint64_t owner);

/* Unpublish and destroy; waits for the threads that are inside. 0 or FDN_EUNKNOWN. Not from inside a limiter. */
int fdn_limiters_remove(fdn_limiters *r, uint64_t handle);

#endif
