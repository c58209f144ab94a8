/*
 * resolve.h - host names to addresses without stopping the loop.
 *
 * getaddrinfo blocks, for as long as a name server likes. Each look-up has a detached thread of its own that writes its result to a
 * pipe; at most one a node is on its way. The loop owns the result. A result for a node that no longer waits is dropped by its ticket.
 */
#ifndef FDN_RESOLVE_H
#define FDN_RESOLVE_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>

#include "c_node/loop.h"

struct fdn_resolved {
    void *owner;
    uint64_t ticket;
    int error; /* 0, or a code of getaddrinfo */
    struct sockaddr_in addr;
    bool local; /* an address of this machine */
};

typedef void fdn_resolved_fn(const struct fdn_resolved *result);

struct fdn_resolver {
    int read_fd, write_fd;
    struct fdn_io io;
    fdn_resolved_fn *fn;
};

/* 0 or an errno. */
int fdn_resolver_init(struct fdn_resolver *r, struct fdn_loop *loop, fdn_resolved_fn *fn);
/* Threads still running keep their own copy of the pipe's end. */
void fdn_resolver_free(struct fdn_resolver *r, struct fdn_loop *loop);
/* 0 or an errno; then `fn` is called later, from the loop. */
int fdn_resolver_start(struct fdn_resolver *r, const char *host, void *owner, uint64_t ticket);

#endif
