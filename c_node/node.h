/*
 * node.h - one connection out to one node.
 *
 *                 address known ------------------.
 *     waiting -> resolving -> asking epmd -> connecting -> handshake -> up
 *        ^           |             |             |             |        |
 *        '-----------+-------------+-------------+-------------+--------'   after a jittered back-off
 *
 * Everything is non-blocking and has a deadline. The end of a connection that was up is followed at once by another attempt: where the
 * node is on this machine and nobody listens on its port any more, its VM is dead (its listening socket and its connections end
 * together), and that is reported at once instead of after down_after.
 */
#ifndef FDN_NODE_H
#define FDN_NODE_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>

#include "c_node/epmd.h"
#include "c_node/etf.h"
#include "c_node/frame.h"
#include "c_node/handshake.h"
#include "c_node/loop.h"
#include "c_node/resolve.h"

struct fdn_sentinel;

enum fdn_node_state {
    FDN_NODE_WAITING,
    FDN_NODE_RESOLVING,
    FDN_NODE_ASKING,
    FDN_NODE_CONNECTING,
    FDN_NODE_HANDSHAKE,
    FDN_NODE_UP,
};

struct fdn_node {
    struct fdn_sentinel *s;
    char name[FDN_NODE_NAME_MAX + 1];
    char alive[FDN_NODE_NAME_MAX + 1]; /* before the @ */
    const char *host;                  /* after it */
    enum fdn_node_state state;
    const char *problem; /* why the last attempt failed, or the last connection ended: one word; NULL when all is well */
    uint64_t since_ms;   /* of this state being up or not */
    int fd;
    struct fdn_io io;
    struct fdn_timer timer; /* back-off, deadline of an attempt, or the end of a connection found bad */
    struct fdn_timer tick;
    uint64_t last_in_ms, last_out_ms;
    uint64_t ticket; /* of the look-up under way */
    bool have_address, local;
    struct sockaddr_in address;
    uint16_t port;      /* to connect to; 0 = ask epmd */
    uint16_t last_port; /* of the last connection that was up */
    uint8_t epmd[FDN_EPMD_REPLY_MAX];
    size_t epmd_len;
    struct fdn_hs hs;
    struct fdn_frame_in in;
    struct fdn_frame_out out;
    unsigned attempts;      /* since it was up */
    unsigned suspicion;     /* quick attempts left to find out whether a local VM has died */
    unsigned clashes;       /* attempts in a row that ended with alive */
    bool was_up, is_dead;   /* is_dead: reported, and not up since */
    bool no_reconnect;      /* the VM that started us is gone: the next one has a sentinel of its own */
    uint64_t leaving_until; /* the node said bye: what ends before this is no failure */
    uint32_t incarnation;
    uint64_t ups;
};

/* Name is "alive@host", checked by fdn_node_valid. NULL where memory ran out. Nothing happens before fdn_node_start. */
struct fdn_node *fdn_node_new(struct fdn_sentinel *s, const char *name);
void fdn_node_free(struct fdn_node *node);
bool fdn_node_valid(const char *name);
void fdn_node_start(struct fdn_node *node);

/* Queue a whole frame. A node that is not up gets nothing; one that does not read loses its connection. */
void fdn_node_send(struct fdn_node *node, const ei_x_buff *frame);

/* How long an answer may be now: what is left of the queue, less what monitors and news of rollbacks need. */
size_t fdn_node_room(const struct fdn_node *node);

/* The peer is no good: end the connection, soon (the caller may be in the middle of its bytes). */
void fdn_node_close(struct fdn_node *node, const char *problem);

/* The VM is known to be dead: do not wait for its socket. */
void fdn_node_vm_gone(struct fdn_node *node, const char *how);

bool fdn_node_leaving(const struct fdn_node *node);
const char *fdn_node_state_name(enum fdn_node_state state);

/* For fdn_resolver_init. */
void fdn_node_resolved(const struct fdn_resolved *result);

#endif
