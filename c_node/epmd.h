/*
 * epmd.h - asking the port mapper where a node listens. Pure: bytes in, bytes out.
 *
 * Source: "Distribution Protocol", section EPMD, Erlang/OTP documentation.
 */
#ifndef FDN_EPMD_H
#define FDN_EPMD_H

#include <stddef.h>
#include <stdint.h>

#define FDN_EPMD_PORT 4369
#define FDN_EPMD_REPLY_MAX 1024

enum fdn_epmd_result {
    FDN_EPMD_MORE,      /* the answer is not complete yet */
    FDN_EPMD_FOUND,     /* *port is set */
    FDN_EPMD_UNKNOWN,   /* no node of that name is registered there */
    FDN_EPMD_TOO_OLD,   /* the node does not speak version 6 */
    FDN_EPMD_MALFORMED, /* not an answer of epmd */
};

/* The port of epmd: ERL_EPMD_PORT where it holds a port number, else 4369. */
uint16_t fdn_epmd_port(void);

/* PORT_PLEASE2 for the part of the node name before the @. Returns the bytes written, 0 where the name does not fit. */
size_t fdn_epmd_request(const char *alive, uint8_t *out, size_t size);

/* The answer as far as it arrived. epmd closes the connection after it. */
enum fdn_epmd_result fdn_epmd_reply(const uint8_t *p, size_t n, uint16_t *port);

#endif
