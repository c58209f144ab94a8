#include "c_node/audit.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/fdn_clock.h"

int fdn_audit_open(struct fdn_audit *a, struct fdn_log *log, const char *path)
{
    *a = (struct fdn_audit){.log = log, .fd = -1};
    if (!path || !*path)
        return 0;
    a->fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0600);
    return a->fd < 0 ? errno : 0;
}

void fdn_audit_close(struct fdn_audit *a)
{
    if (a->fd >= 0)
        close(a->fd);
    a->fd = -1;
}

static void put(json_t *line, const char *key, const char *text)
{
    char ascii[256];
    if (!text || !*text)
        return;
    json_t *value = json_string(text);
    if (!value) { /* not UTF-8: a reason cut in the middle of a character, or bytes of a stranger */
        snprintf(ascii, sizeof ascii, "%s", text);
        for (char *c = ascii; *c; c++)
            if ((unsigned char)*c >= 0x80)
                *c = '?';
        value = json_string(ascii);
    }
    json_object_set_new(line, key, value);
}

static bool append(struct fdn_audit *a, const char *text)
{
    size_t len = strlen(text);
    ssize_t put_len;
    do {
        put_len = write(a->fd, text, len);
    } while (put_len < 0 && errno == EINTR);
    if (put_len == (ssize_t)len) {
        a->failing = false;
        return true;
    }
    if (!a->failing)
        fdn_log(a->log, FDN_LOG_ERROR, "audit_failed", "%s; lines go to the log", put_len < 0 ? strerror(errno) : "disk full");
    a->failing = true;
    return false;
}

void fdn_audit_write(struct fdn_audit *a, const char *event, const char *group, uint64_t epoch, const char *watch, const char *reason,
                     const char *who)
{
    struct fdn_audit_record *r = &a->kept[a->next];
    char when[32], line[2048];
    a->next = (a->next + 1) % FDN_AUDIT_KEPT;
    a->count += a->count < FDN_AUDIT_KEPT;
    *r = (struct fdn_audit_record){.wall_ms = fdn_clock_wall_ns() / FDN_NS_PER_MS, .event = event, .epoch = epoch};
    snprintf(r->group, sizeof r->group, "%s", group ? group : "");
    snprintf(r->watch, sizeof r->watch, "%s", watch ? watch : "");
    snprintf(r->reason, sizeof r->reason, "%s", reason ? reason : "");
    snprintf(r->who, sizeof r->who, "%s", who ? who : "");

    fdn_log_time(when, sizeof when);
    json_t *object = json_object();
    put(object, "at", when);
    put(object, "event", event);
    put(object, "group", r->group);
    if (epoch > 0)
        json_object_set_new(object, "epoch", json_integer((json_int_t)epoch));
    put(object, "watch", r->watch);
    put(object, "reason", r->reason);
    put(object, "who", r->who);
    size_t len = json_dumpb(object, line, sizeof line - 2, JSON_COMPACT);
    json_decref(object);
    if (len == 0 || len > sizeof line - 2) /* no memory: the fixed words still tell what happened */
        len = (size_t)snprintf(line, sizeof line - 2, "{\"at\":\"%s\",\"event\":\"%s\"}", when, event);
    line[len] = '\n';
    line[len + 1] = 0;
    if (a->fd < 0 || !append(a, line)) {
        line[len] = 0;
        fdn_log(a->log, FDN_LOG_NOTICE, "audit", "%s", line);
    }
}

static bool put_pair(ei_x_buff *x, const char *key, const char *text)
{
    return fdn_etf_put_atom(x, key) && fdn_etf_put_text(x, text);
}

bool fdn_audit_encode(const struct fdn_audit *a, size_t most, ei_x_buff *x)
{
    size_t n = a->count < most ? a->count : most;
    if (n > 0 && ei_x_encode_list_header(x, (long)n) != 0)
        return false;
    for (size_t i = 0; i < n; i++) {
        const struct fdn_audit_record *r = &a->kept[(a->next + FDN_AUDIT_KEPT - n + i) % FDN_AUDIT_KEPT];
        if (ei_x_encode_map_header(x, 7) != 0 || !fdn_etf_put_atom(x, "at") || ei_x_encode_ulonglong(x, r->wall_ms) != 0 ||
            !fdn_etf_put_atom(x, "event") || !fdn_etf_put_atom(x, r->event) || !fdn_etf_put_atom(x, "group") ||
            !fdn_etf_put_atom(x, r->group) || !fdn_etf_put_atom(x, "epoch") || ei_x_encode_ulonglong(x, r->epoch) != 0 ||
            !put_pair(x, "watch", r->watch) || !put_pair(x, "reason", r->reason) || !put_pair(x, "who", r->who))
            return false;
    }
    return ei_x_encode_empty_list(x) == 0;
}
