/*
 * spec.h - what to watch, read from the map that a caller or the configuration gives. The spans of the result point into that map.
 */
#ifndef FDN_SPEC_H
#define FDN_SPEC_H

#include "c_node/etf.h"
#include "c_node/policy.h"

#define FDN_SPEC_GROUPS 16

struct fdn_spec {
    struct fdn_etf process; /* atom or pid; n = 0 for a watch of the node */
    struct fdn_etf node;    /* atom; n = 0 where not given */
    struct fdn_etf groups[FDN_SPEC_GROUPS];
    unsigned group_count;
    struct fdn_policy_conf policy;
};

/* {badarg, {Key, Reason}}: the key as it was given (any term) and a word. */
struct fdn_badarg {
    struct fdn_etf given; /* the key itself where it is one we do not know */
    const char *key;      /* else our name for it */
    const char *reason;
};

bool fdn_spec_parse(struct fdn_etf map, struct fdn_spec *spec, struct fdn_badarg *why);

#endif
