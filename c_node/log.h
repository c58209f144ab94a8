/*
 * log.h - one line an event.
 *
 *     2026-01-31T12:00:00.123Z error wrong_cookie node=a@host the node does not accept our cookie
 *
 * Lines go to stderr, or through a sink (the supervised port hands them to the VM's logger). A line that stderr does not take
 * at once is lost: nothing here waits for a reader.
 */
#ifndef FDN_LOG_H
#define FDN_LOG_H

#include <stdbool.h>

enum fdn_log_level { FDN_LOG_DEBUG, FDN_LOG_INFO, FDN_LOG_NOTICE, FDN_LOG_WARNING, FDN_LOG_ERROR };

struct fdn_log {
    enum fdn_log_level least; /* what is below is dropped */
    /* True where it took the line; false sends it to stderr. */
    bool (*sink)(enum fdn_log_level level, const char *event, const char *detail, void *arg);
    void *arg;
};

const char *fdn_log_level_name(enum fdn_log_level level);

/* `event` is one fixed word; the rest is printf. Control characters in the detail are replaced. */
void fdn_log(struct fdn_log *log, enum fdn_log_level level, const char *event, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* UTC with milliseconds, as above; needs 25 bytes. */
void fdn_log_time(char *out, unsigned long size);

#endif
