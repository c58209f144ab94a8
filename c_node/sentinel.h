/*
 * sentinel.h - what the whole C node is made of.
 *
 *     node.c      one connection out to each node: look-up, connect, handshake, ticks, back-off
 *     monitor.c   the watches: native monitors on processes, deadlines on nodes
 *     policy.c    (pure) when is it enough
 *     trip.c      roll the groups back in the shared file, then write the audit line, then tell the nodes
 *     genserver.c calls from the BEAM; admin.c answers them
 *     port.c      the pipe to the VM, when we run as its supervised port
 *
 * One thread runs all of it (loop.c). Name resolution, which blocks, has threads of its own (resolve.c).
 */
#ifndef FDN_SENTINEL_H
#define FDN_SENTINEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "c_node/audit.h"
#include "c_node/config.h"
#include "c_node/control.h"
#include "c_node/handshake.h"
#include "c_node/log.h"
#include "c_node/loop.h"
#include "c_node/monitor.h"
#include "c_node/node.h"
#include "c_node/resolve.h"
#include "shared/flag_map.h"

/* The name under which we answer calls, and the one that is told of rollbacks on each node. */
#define FDN_OUR_NAME "foundation_sentinel"
#define FDN_TOLD_NAME "foundation_flags"

/* Exit codes, documented in --help. */
enum fdn_exit_code {
    FDN_EXIT_OK = 0,
    FDN_EXIT_INTERNAL = 1,
    FDN_EXIT_USAGE = 2,
    FDN_EXIT_CONFIG = 3,
    FDN_EXIT_FLAGS_FILE = 4,
    FDN_EXIT_CONNECT = 5,
    FDN_EXIT_OWNER_GONE = 6,
};

/* A rollback of ours that is still in force: a node that was away hears of it when it is back. */
struct fdn_rollback {
    char group[FDN_FLAG_NAME_MAX + 1];
    char reason[FDN_FLAG_REASON_MAX + 1];
    uint64_t epoch;
};
#define FDN_ROLLBACKS 256

struct fdn_port;

struct fdn_sentinel {
    struct fdn_loop loop;
    struct fdn_log log;
    struct fdn_config conf;
    struct fdn_audit audit;
    struct fdn_resolver resolver;
    struct fdn_flags *flags;
    uint8_t uuid[16];
    uint32_t creation;
    ei_x_buff self_bytes;
    struct fdn_etf self; /* our pid */
    uint64_t serial;     /* of references; never used twice */
    struct fdn_node **nodes;
    size_t node_count;
    struct fdn_watches watches;
    struct fdn_rollback rollbacks[FDN_ROLLBACKS];
    size_t rollback_count;
    struct fdn_timer sync; /* the flag file is to be put on disk */
    ei_x_buff x, reply;    /* frames being built: to tell nodes; to answer a call */
    struct fdn_port *port; /* NULL when running alone */
    uint64_t started_ms;
    uint64_t trips, dry_trips, rollback_errors, downs, calls;
    int exit_code;
};

/* Everything but the flag file's contents is set from conf, which is taken over. Returns an exit code. */
int fdn_sentinel_init(struct fdn_sentinel *s, struct fdn_config *conf);
void fdn_sentinel_free(struct fdn_sentinel *s);
/* Ends the loop. The first code given stands. */
void fdn_sentinel_stop(struct fdn_sentinel *s, int exit_code);
struct fdn_node *fdn_sentinel_node(struct fdn_sentinel *s, const char *name);
/* Append the reference that names `slot` and `serial`. */
bool fdn_sentinel_ref(struct fdn_sentinel *s, uint32_t slot, uint64_t serial, ei_x_buff *out);
/* True for a reference of ours. */
bool fdn_sentinel_own_ref(struct fdn_sentinel *s, struct fdn_etf ref, uint32_t *slot, uint64_t *serial);

/* What node.c reports. */
void fdn_sentinel_up(struct fdn_sentinel *s, struct fdn_node *node);
void fdn_sentinel_lost(struct fdn_sentinel *s, struct fdn_node *node);
void fdn_sentinel_dead(struct fdn_sentinel *s, struct fdn_node *node, const char *how);
/* An attempt failed; `news`: for another reason than the one before. */
void fdn_sentinel_problem(struct fdn_sentinel *s, struct fdn_node *node, bool news);
/* Whether the node's VM is known to be alive, whatever its sockets look like: the VM that started us, by its process id. */
bool fdn_sentinel_vm_lives(struct fdn_sentinel *s, const struct fdn_node *node);
void fdn_sentinel_frame(struct fdn_sentinel *s, struct fdn_node *node, const struct fdn_frame *frame);

/* genserver.c: messages for a name or for our pid. */
void fdn_genserver_named(struct fdn_sentinel *s, struct fdn_node *node, struct fdn_etf from, struct fdn_etf name,
                         struct fdn_etf message);
void fdn_genserver_direct(struct fdn_sentinel *s, struct fdn_node *node, struct fdn_etf message);
bool fdn_genserver_is_ours(struct fdn_sentinel *s, struct fdn_etf name_or_pid);

/* admin.c: appends the answer to x; false where memory ran out. */
bool fdn_admin_answer(struct fdn_sentinel *s, struct fdn_node *node, struct fdn_etf request, ei_x_buff *x);

/* trip.c */
/* Open the flag file of the configuration. 0 or an error of fdn_flags_open. */
int fdn_trip_open(struct fdn_sentinel *s);
/* A watch has tripped. `last` says what happened last. */
void fdn_trip_watch(struct fdn_sentinel *s, struct fdn_watch *w, bool dry, const char *last);
/* By call. Results of fdn_flags_flip and fdn_flags_unflip. */
int fdn_trip_rollback(struct fdn_sentinel *s, const char *group, const char *reason, const char *who, uint64_t *epoch);
int fdn_trip_rearm(struct fdn_sentinel *s, const char *group, uint64_t epoch, const char *who);
/* What a node that has just connected may have missed. */
void fdn_trip_replay(struct fdn_sentinel *s, struct fdn_node *node);

#endif
