/*
 * handshake.h - the distribution handshake, version 6, as the side that connects.
 *
 *     we                                   the node
 *     N flags creation name  ------------>
 *                            <------------ s ok | ok_simultaneous | nok | not_allowed | alive
 *     [s true | s false]     ------------>      (after alive)
 *                            <------------ N flags challenge creation name
 *     r challenge digest     ------------>      digest = MD5(cookie ++ decimal challenge)
 *                            <------------ a digest
 *
 * A pure state machine: packets in (without their 2-byte length), packets out (with it), no sockets, no clock. The caller supplies the
 * random challenge.
 *
 * Source: "Distribution Protocol", Erlang/OTP documentation (ERTS user's guide).
 */
#ifndef FDN_HANDSHAKE_H
#define FDN_HANDSHAKE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Distribution flags, those that we name somewhere. */
#define FDN_DFLAG_PUBLISHED 0x1ULL
#define FDN_DFLAG_EXTENDED_REFERENCES 0x4ULL
#define FDN_DFLAG_DIST_MONITOR 0x8ULL
#define FDN_DFLAG_FUN_TAGS 0x10ULL
#define FDN_DFLAG_DIST_MONITOR_NAME 0x20ULL
#define FDN_DFLAG_NEW_FUN_TAGS 0x80ULL
#define FDN_DFLAG_EXTENDED_PIDS_PORTS 0x100ULL
#define FDN_DFLAG_EXPORT_PTR_TAG 0x200ULL
#define FDN_DFLAG_BIT_BINARIES 0x400ULL
#define FDN_DFLAG_NEW_FLOATS 0x800ULL
#define FDN_DFLAG_SMALL_ATOM_TAGS 0x4000ULL
#define FDN_DFLAG_UTF8_ATOMS 0x10000ULL
#define FDN_DFLAG_MAP_TAG 0x20000ULL
#define FDN_DFLAG_BIG_CREATION 0x40000ULL
#define FDN_DFLAG_HANDSHAKE_23 0x1000000ULL
#define FDN_DFLAG_UNLINK_ID 0x2000000ULL
#define FDN_DFLAG_MANDATORY_25_DIGEST 0x4000000ULL
#define FDN_DFLAG_V4_NC 0x400000000ULL

/*
 * What we announce. A node sends MONITOR_P_EXIT only to a peer that announced both DIST_MONITOR and DIST_MONITOR_NAME; without the
 * second no DOWN ever arrives, silently. Not announced, on purpose: PUBLISHED (we stay hidden), DIST_HDR_ATOM_CACHE and FRAGMENTS
 * (every frame stays plain), ALIAS and SPAWN (rpc to us fails at once).
 */
#define FDN_DFLAGS                                                                                                                     \
    (FDN_DFLAG_EXTENDED_REFERENCES | FDN_DFLAG_DIST_MONITOR | FDN_DFLAG_FUN_TAGS | FDN_DFLAG_DIST_MONITOR_NAME |                       \
     FDN_DFLAG_NEW_FUN_TAGS | FDN_DFLAG_EXTENDED_PIDS_PORTS | FDN_DFLAG_EXPORT_PTR_TAG | FDN_DFLAG_BIT_BINARIES |                      \
     FDN_DFLAG_NEW_FLOATS | FDN_DFLAG_SMALL_ATOM_TAGS | FDN_DFLAG_UTF8_ATOMS | FDN_DFLAG_MAP_TAG | FDN_DFLAG_BIG_CREATION |            \
     FDN_DFLAG_HANDSHAKE_23 | FDN_DFLAG_UNLINK_ID | FDN_DFLAG_MANDATORY_25_DIGEST | FDN_DFLAG_V4_NC)

/* What the other side must announce for our frames to be understood. */
#define FDN_DFLAGS_NEEDED                                                                                                              \
    (FDN_DFLAG_EXTENDED_REFERENCES | FDN_DFLAG_DIST_MONITOR | FDN_DFLAG_EXTENDED_PIDS_PORTS | FDN_DFLAG_UTF8_ATOMS |                   \
     FDN_DFLAG_BIG_CREATION | FDN_DFLAG_HANDSHAKE_23 | FDN_DFLAG_V4_NC)

#define FDN_NODE_NAME_MAX 255
#define FDN_COOKIE_MAX 255
#define FDN_HS_PACKET_MAX 1024 /* the longest packet of a handshake in either direction */
#define FDN_DIGEST_BYTES 16

enum fdn_hs_result {
    FDN_HS_MORE,         /* go on reading */
    FDN_HS_DONE,         /* connected */
    FDN_HS_PROTOCOL,     /* a packet that makes no sense here */
    FDN_HS_WRONG_COOKIE, /* the node's digest is not that of our cookie */
    FDN_HS_WRONG_NODE,   /* somebody else answers under that port */
    FDN_HS_NOT_ALLOWED,  /* the node refuses us (net_kernel:allow) */
    FDN_HS_BUSY,         /* nok: the node is connecting to us at the same time; try again */
    FDN_HS_NAME_CLASH,   /* alive: the node has a living connection under our name, which is not ours */
    FDN_HS_TOO_OLD,      /* the node lacks a flag that we need */
};

enum fdn_hs_state { FDN_HS_STATUS, FDN_HS_CHALLENGE, FDN_HS_ACK, FDN_HS_CONNECTED };

struct fdn_hs {
    enum fdn_hs_state state;
    const char *name;   /* ours; the caller's */
    const char *peer;   /* the node we dialled; the caller's */
    const char *cookie; /* the caller's */
    uint32_t creation;  /* ours, not 0 */
    uint32_t challenge; /* ours, random */
    bool own_stale;     /* answer `true` to alive: the old connection was ours and we know it to be dead */
    uint64_t peer_flags;
    uint32_t peer_creation; /* tells incarnations of the node apart */
};

struct fdn_hs_packet {
    uint8_t bytes[FDN_HS_PACKET_MAX];
    size_t n;
};

/* Begin: fills `out` with the first packet. The fields above `peer_flags` are set by the caller. */
void fdn_hs_start(struct fdn_hs *hs, struct fdn_hs_packet *out);

/* One received packet. `out` holds what is to be sent, n = 0 where nothing is. Any result above FDN_HS_DONE ends the attempt. */
enum fdn_hs_result fdn_hs_packet(struct fdn_hs *hs, const uint8_t *p, size_t n, struct fdn_hs_packet *out);

/*
 * What the end of the stream means in this state: a node with another cookie says nothing, it closes the connection instead of
 * acknowledging ours.
 */
enum fdn_hs_result fdn_hs_closed(const struct fdn_hs *hs);

/* One word for a result, as logs and status show it. */
const char *fdn_hs_word(enum fdn_hs_result r);

/* MD5 of the cookie followed by the challenge in decimal. */
void fdn_hs_digest(const char *cookie, uint32_t challenge, uint8_t out[FDN_DIGEST_BYTES]);

#endif
