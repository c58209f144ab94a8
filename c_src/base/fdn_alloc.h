/*
 * fdn_alloc.h - allocation of the engines.
 *
 * Allocation failure is an error that every engine function reports, never a crash. Tests compile the engines with
 * FDN_ALLOC_FAULTS and let the n-th allocation fail.
 */
#ifndef FDN_ALLOC_H
#define FDN_ALLOC_H

#include <stdlib.h>

#ifdef FDN_ALLOC_FAULTS
/* Defined by the test: how many more allocations succeed; negative = all. */
extern long fdn_alloc_budget;
static inline int fdn_alloc_fails(void)
{
    return fdn_alloc_budget >= 0 && fdn_alloc_budget-- == 0;
}
#else
static inline int fdn_alloc_fails(void)
{
    return 0;
}
#endif

static inline void *fdn_malloc(size_t n)
{
    return fdn_alloc_fails() ? NULL : malloc(n ? n : 1);
}

/* Zeroed; checks the product for overflow. */
static inline void *fdn_calloc(size_t count, size_t size)
{
    return fdn_alloc_fails() ? NULL : calloc(count ? count : 1, size ? size : 1);
}

static inline void *fdn_realloc(void *p, size_t n)
{
    return fdn_alloc_fails() ? NULL : realloc(p, n ? n : 1);
}

static inline void fdn_free(void *p)
{
    free(p);
}

#endif
