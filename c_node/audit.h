/*
 * audit.h - what was decided and done, one JSON object a line, and the last of it in memory for `events`.
 *
 *     {"at":"2026-01-31T12:00:00.123Z","event":"rollback","group":"checkout","epoch":7,"reason":"...","who":"...","watch":"..."}
 *
 * Appended to the audit file, one write a line; without a file the line goes to the log. An audit that cannot be written never stops a
 * rollback: it is reported, once, and the line goes to the log.
 */
#ifndef FDN_AUDIT_H
#define FDN_AUDIT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "c_node/etf.h"
#include "c_node/log.h"

#define FDN_AUDIT_KEPT 128

struct fdn_audit_record {
    uint64_t wall_ms;
    const char *event; /* a fixed word */
    char group[64];
    char watch[128];
    char reason[256];
    char who[128];
    uint64_t epoch; /* 0: none */
};

struct fdn_audit {
    struct fdn_log *log;
    int fd; /* -1: to the log */
    bool failing;
    struct fdn_audit_record kept[FDN_AUDIT_KEPT];
    size_t next, count;
};

/* path NULL: to the log. Creates the file 0600; never waits, also not for the reader of a pipe. 0 or an errno. */
int fdn_audit_open(struct fdn_audit *a, struct fdn_log *log, const char *path);
void fdn_audit_close(struct fdn_audit *a);

/* Empty or NULL texts are left out. */
void fdn_audit_write(struct fdn_audit *a, const char *event, const char *group, uint64_t epoch, const char *watch, const char *reason,
                     const char *who);

/* The kept records, oldest first, at most `most`, as a list of maps. */
bool fdn_audit_encode(const struct fdn_audit *a, size_t most, ei_x_buff *x);

#endif
