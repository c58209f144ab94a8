/*
 * policy.h - when does what was seen make a trip? Pure: no sockets, no clock of its own; the time in milliseconds comes with each call.
 *
 * A watch collects failures. Failures are: an abnormal exit of the watched process, and an outage of the watched node. `failures` of
 * them within a window make a trip. A hang (a node that misses `probe_misses` probes in a row) is a trip by itself: the misses are its
 * hysteresis. One outage and one hang count once, however long they last.
 *
 *     window        t1      t2   t3           trips at t3 when failures = 3 and t3 - t1 < window_ms
 *                   |-------|----|---> time
 *
 * Not failures: normal exits (unless abnormal_only is off), a process that is not there yet (noproc), a lost connection before
 * down_after has passed, anything in the grace after start or reconnection, anything in the cool-down after a trip.
 */
#ifndef FDN_POLICY_H
#define FDN_POLICY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define FDN_POLICY_MAX_FAILURES 1000
#define FDN_POLICY_MAX_MS (365ULL * 24 * 3600 * 1000)
#define FDN_NEVER UINT64_MAX

struct fdn_policy_conf {
    uint32_t failures; /* 1 .. FDN_POLICY_MAX_FAILURES */
    uint64_t window_ms;
    bool outages;           /* outages of the node count: watches of a node, and those that say down_after */
    uint64_t down_after_ms; /* how long a node is unreachable before that is an outage */
    uint64_t probe_every_ms, probe_timeout_ms;
    uint32_t probe_misses; /* 0: no probe */
    uint64_t grace_ms, cooldown_ms;
    bool dry_run, abnormal_only;
};

/* The defaults of a watch of a process, or of a node. */
void fdn_policy_defaults(struct fdn_policy_conf *conf, bool of_node);

enum fdn_verdict { FDN_QUIET, FDN_COUNTED, FDN_TRIP, FDN_TRIP_DRY };

struct fdn_policy {
    struct fdn_policy_conf conf;
    uint64_t *times; /* ring of the last failures */
    uint32_t oldest, count;
    uint64_t grace_until, quiet_until;
    uint64_t lost_at; /* FDN_NEVER while the node is reachable */
    bool outage;      /* this outage has counted */
    uint64_t probe_next, probe_deadline;
    uint64_t probe_sent;
    uint32_t missed;
    bool hung; /* this hang has tripped */
    uint64_t total_failures, trips;
};

/* 0 or FDN_ENOMEM. The node counts as unreachable, but not as lost, until fdn_policy_found. */
int fdn_policy_init(struct fdn_policy *p, const struct fdn_policy_conf *conf, uint64_t now);
void fdn_policy_free(struct fdn_policy *p);

/* The watched process ended. */
enum fdn_verdict fdn_policy_exit(struct fdn_policy *p, bool abnormal, uint64_t now);
/* The node can be reached / not any more / is known to be dead. */
void fdn_policy_found(struct fdn_policy *p, uint64_t now);
void fdn_policy_lost(struct fdn_policy *p, uint64_t now);
enum fdn_verdict fdn_policy_dead(struct fdn_policy *p, uint64_t now);
/* The answer to the last probe. */
void fdn_policy_alive(struct fdn_policy *p, uint64_t now);

/* When fdn_policy_tick wants to be called; FDN_NEVER where nothing is pending. */
uint64_t fdn_policy_due(const struct fdn_policy *p);
/* *probe is set where a probe is to be sent now. */
enum fdn_verdict fdn_policy_tick(struct fdn_policy *p, uint64_t now, bool *probe);

/* We ourselves did not run for a while: what looks like silence of others was ours. Pending deadlines start again. */
void fdn_policy_resume(struct fdn_policy *p, uint64_t now);

/* Failures that lie within the window now. */
uint32_t fdn_policy_recent(const struct fdn_policy *p, uint64_t now);

#endif
