/*
 * config.h - what a sentinel is told at its start: a JSON file, or the first packet of the pipe from the VM, or both.
 *
 * JSON keys: node, nodes, cookie_file, flags_file, audit_file, tick_ms, watches. A key that is not known is an error, with its line and
 * column. A watch is the map of foundation_sentinel:watch/2 in JSON: strings are atoms, `failures` is [K, WindowMs], plus "id".
 */
#ifndef FDN_CONFIG_H
#define FDN_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "c_node/etf.h"
#include "c_node/handshake.h"

#define FDN_CONFIG_NODES 256

/* A watch of the configuration: id and map in the external format, in one allocation. */
struct fdn_config_watch {
    uint8_t *bytes;
    struct fdn_etf id, map;
};

struct fdn_config {
    char node[FDN_NODE_NAME_MAX + 1];
    char (*nodes)[FDN_NODE_NAME_MAX + 1];
    size_t node_count;
    char cookie[FDN_COOKIE_MAX + 1];
    char *flags_file; /* absolute or relative path; never NULL in a complete configuration */
    char *audit_file; /* NULL: audit lines go to the log */
    uint64_t tick_ms; /* net_ticktime of the nodes */
    struct fdn_config_watch *watches;
    size_t watch_count;
    /* Only from the pipe. */
    uint64_t linger_ms;
    int vm_pid;
    char vm_node[FDN_NODE_NAME_MAX + 1];
    char *file; /* configuration file to be read besides */
};

/* Where and what; complete sentence without a full stop. */
struct fdn_config_error {
    char text[512];
};

void fdn_config_init(struct fdn_config *c);
void fdn_config_free(struct fdn_config *c);

/* What is already set (by the pipe) stays; watches are added. */
bool fdn_config_read_file(struct fdn_config *c, const char *path, struct fdn_config_error *e);
/* The same from memory; `name` stands in the errors. Does not read the cookie file. */
bool fdn_config_read_json(struct fdn_config *c, const char *name, const char *text, size_t len, char **cookie_file,
                          struct fdn_config_error *e);
/* The map of the first packet. */
bool fdn_config_read_term(struct fdn_config *c, struct fdn_etf map, struct fdn_config_error *e);
/* Regular file of ours (or root's), nobody else may read it; first line, without the line end. */
bool fdn_config_read_cookie(struct fdn_config *c, const char *path, struct fdn_config_error *e);
/* Everything that is needed is there. */
bool fdn_config_complete(const struct fdn_config *c, struct fdn_config_error *e);

#endif
