/*
 * monitor.h - the watches, and the native monitors behind them.
 *
 * A watch of a process has one monitor on the node at a time. Monitors are one-shot and end with the connection, so:
 *
 *     idle --node up--> armed --DOWN--> armed again at once            (name: the supervisor has restarted it, or will)
 *                         |  '--DOWN noproc--> retry, with back-off    (name: nobody has it yet)
 *                         |  '--DOWN--> gone                           (pid: it never comes back)
 *                         '--connection lost--> idle
 *
 * The reference of a monitor or probe holds the watch's slot and a serial that is never used twice: an answer to anything but the
 * current one is ignored.
 */
#ifndef FDN_MONITOR_H
#define FDN_MONITOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "c_node/control.h"
#include "c_node/loop.h"
#include "c_node/policy.h"
#include "c_node/spec.h"

#define FDN_WATCHES_MAX 100000
#define FDN_WATCH_ID_MAX 256
#define FDN_WATCH_MAP_MAX (16u << 10)

struct fdn_sentinel;
struct fdn_node;

enum fdn_mon_state { FDN_MON_IDLE, FDN_MON_ARMED, FDN_MON_RETRY, FDN_MON_GONE };

struct fdn_watch {
    struct fdn_sentinel *s;
    uint8_t *bytes; /* id and map, which the spans below point into */
    struct fdn_etf id, map;
    struct fdn_spec spec;
    struct fdn_node *node;
    struct fdn_policy policy;
    enum fdn_mon_state state;
    bool configured; /* from the configuration: no call removes it */
    uint32_t slot;
    uint64_t serial, probe_serial;
    struct fdn_timer retry, due;
    unsigned tries; /* noproc in a row */
    char last[96];  /* the last failure, for people */
};

struct fdn_watches {
    struct fdn_watch **slots; /* NULL: free */
    size_t count, cap;
};

enum fdn_watch_result {
    FDN_WATCH_OK,
    FDN_WATCH_BADARG,        /* *why */
    FDN_WATCH_UNKNOWN_NODE,  /* not among the configured nodes; name in *text */
    FDN_WATCH_UNKNOWN_GROUP, /* the flag file has no such group; name in *text */
    FDN_WATCH_CONFIGURED,    /* the id belongs to a watch of the configuration */
    FDN_WATCH_FULL,
    FDN_WATCH_NO_MEMORY,
};

/*
 * Set a watch. The same id with the same map leaves the watch as it is, with what it has counted; another map replaces it. `caller` is
 * the node that asks (NULL: the configuration), and the node to watch where the map names none.
 */
enum fdn_watch_result fdn_monitor_watch(struct fdn_sentinel *s, struct fdn_node *caller, struct fdn_etf id, struct fdn_etf map,
                                        struct fdn_badarg *why, char text[FDN_ATOM_BYTES + 1]);
struct fdn_watch *fdn_monitor_find(struct fdn_sentinel *s, struct fdn_etf id);
void fdn_monitor_unwatch(struct fdn_sentinel *s, struct fdn_watch *w);
void fdn_monitor_free(struct fdn_sentinel *s);

/* What happened to a node. */
void fdn_monitor_up(struct fdn_sentinel *s, struct fdn_node *node);
void fdn_monitor_lost(struct fdn_sentinel *s, struct fdn_node *node);
void fdn_monitor_dead(struct fdn_sentinel *s, struct fdn_node *node, const char *how);
/* We did not run for a while. */
void fdn_monitor_resume(struct fdn_sentinel *s);

/* A DOWN, and the answer to a probe. */
void fdn_monitor_exit(struct fdn_sentinel *s, struct fdn_node *node, const struct fdn_control *c);
void fdn_monitor_answer(struct fdn_sentinel *s, struct fdn_etf ref);

const char *fdn_monitor_state_name(const struct fdn_watch *w);
/* The id in readable form. */
void fdn_monitor_name(const struct fdn_watch *w, char *out, size_t size);

#endif
