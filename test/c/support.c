/* What every check program shares: the budget of allocations that succeed (fdn_alloc.h); negative = all. */
#include "base/fdn_alloc.h"

#ifdef FDN_ALLOC_FAULTS
long fdn_alloc_budget = -1;
#endif
