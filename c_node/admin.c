/*
 * admin.c - the calls of foundation_sentinel, each an ordinary gen_server:call that any connected node may make. Each function appends
 * one term, the answer, to x and returns false where memory ran out.
 */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/fdn_error.h"
#include "c_node/sentinel.h"

#define LEAVING_MS 60000 /* how long a `bye` of a node is believed when its connection does not end */

static bool put_tuple(ei_x_buff *x, long n)
{
    return ei_x_encode_tuple_header(x, n) == 0;
}

static bool put_number(ei_x_buff *x, uint64_t n)
{
    return ei_x_encode_ulonglong(x, n) == 0;
}

static bool put_map(ei_x_buff *x, long n)
{
    return ei_x_encode_map_header(x, n) == 0;
}

static bool put_error(ei_x_buff *x, const char *word)
{
    return put_tuple(x, 2) && fdn_etf_put_atom(x, "error") && fdn_etf_put_atom(x, word);
}

/* {error, {Word, Name}} */
static bool put_error_about(ei_x_buff *x, const char *word, const char *name)
{
    return put_tuple(x, 2) && fdn_etf_put_atom(x, "error") && put_tuple(x, 2) && fdn_etf_put_atom(x, word) && fdn_etf_put_atom(x, name);
}

static bool put_badarg(ei_x_buff *x, const struct fdn_badarg *why)
{
    return put_tuple(x, 2) && fdn_etf_put_atom(x, "error") && put_tuple(x, 2) && fdn_etf_put_atom(x, "badarg") && put_tuple(x, 2) &&
           (why->key ? fdn_etf_put_atom(x, why->key) : fdn_etf_put(x, why->given)) && fdn_etf_put_atom(x, why->reason);
}

static bool bad(ei_x_buff *x, const char *key, const char *reason)
{
    return put_badarg(x, &(struct fdn_badarg){.key = key, .reason = reason});
}

/* ---- status ---- */

static bool put_node(ei_x_buff *x, const struct fdn_sentinel *s, const struct fdn_node *n)
{
    bool up = n->state == FDN_NODE_UP;
    return fdn_etf_put_atom(x, n->name) && put_map(x, 6) && fdn_etf_put_atom(x, "state") &&
           fdn_etf_put_atom(x, up           ? "up"
                               : n->is_dead ? "dead"
                                            : "down") &&
           fdn_etf_put_atom(x, "phase") && fdn_etf_put_atom(x, fdn_node_state_name(n->state)) && fdn_etf_put_atom(x, "problem") &&
           fdn_etf_put_atom(x, up || !n->problem ? "none" : n->problem) && fdn_etf_put_atom(x, "since_ms") &&
           put_number(x, s->loop.now_ms - n->since_ms) && fdn_etf_put_atom(x, "local") &&
           fdn_etf_put_atom(x, n->local ? "true" : "false") && fdn_etf_put_atom(x, "connections") && put_number(x, n->ups);
}

static bool status(const struct fdn_sentinel *s, ei_x_buff *x)
{
    bool ok = put_map(x, 9) && fdn_etf_put_atom(x, "version") && fdn_etf_put_text(x, FDN_VERSION) && fdn_etf_put_atom(x, "node") &&
              fdn_etf_put_atom(x, s->conf.node) && fdn_etf_put_atom(x, "os_pid") && put_number(x, (uint64_t)getpid()) &&
              fdn_etf_put_atom(x, "uptime_ms") && put_number(x, s->loop.now_ms - s->started_ms) && fdn_etf_put_atom(x, "mode") &&
              fdn_etf_put_atom(x, s->port ? "port" : "alone") && fdn_etf_put_atom(x, "watches") && put_number(x, s->watches.count) &&
              fdn_etf_put_atom(x, "flags_file") && fdn_etf_put_text(x, s->conf.flags_file) && fdn_etf_put_atom(x, "flags_uuid") &&
              ei_x_encode_binary(x, s->uuid, (int)sizeof s->uuid) == 0 && fdn_etf_put_atom(x, "nodes") &&
              put_map(x, (long)s->node_count);
    for (size_t i = 0; ok && i < s->node_count; i++)
        ok = put_node(x, s, s->nodes[i]);
    return ok;
}

static bool metrics(struct fdn_sentinel *s, ei_x_buff *x)
{
    size_t up = 0;
    for (size_t i = 0; i < s->node_count; i++)
        up += s->nodes[i]->state == FDN_NODE_UP;
    return put_map(x, 8) && fdn_etf_put_atom(x, "nodes") && put_number(x, s->node_count) && fdn_etf_put_atom(x, "nodes_up") &&
           put_number(x, up) && fdn_etf_put_atom(x, "watches") && put_number(x, s->watches.count) && fdn_etf_put_atom(x, "downs") &&
           put_number(x, s->downs) && fdn_etf_put_atom(x, "trips") && put_number(x, s->trips) && fdn_etf_put_atom(x, "dry_trips") &&
           put_number(x, s->dry_trips) && fdn_etf_put_atom(x, "rollback_errors") && put_number(x, s->rollback_errors) &&
           fdn_etf_put_atom(x, "calls") && put_number(x, s->calls);
}

/* ---- watches ---- */

static bool put_watch(ei_x_buff *x, const struct fdn_sentinel *s, const struct fdn_watch *w)
{
    return fdn_etf_put(x, w->id) && put_map(x, 8) && fdn_etf_put_atom(x, "spec") && fdn_etf_put(x, w->map) &&
           fdn_etf_put_atom(x, "node") && fdn_etf_put_atom(x, w->node->name) && fdn_etf_put_atom(x, "state") &&
           fdn_etf_put_atom(x, fdn_monitor_state_name(w)) && fdn_etf_put_atom(x, "recent") &&
           put_number(x, fdn_policy_recent(&w->policy, s->loop.now_ms)) && fdn_etf_put_atom(x, "failures") &&
           put_number(x, w->policy.total_failures) && fdn_etf_put_atom(x, "trips") && put_number(x, w->policy.trips) &&
           fdn_etf_put_atom(x, "configured") && fdn_etf_put_atom(x, w->configured ? "true" : "false") && fdn_etf_put_atom(x, "last") &&
           fdn_etf_put_text(x, w->last);
}

/* So many bytes of watches in one answer: far below what may be queued to a node, however many watches there are. */
#define PAGE_BYTES (256 << 10)
#define MAP_COUNT_AT 1 /* the count stands behind the tag of a map */

/* A map of the watches from *slot on, as many as a page holds; *slot is where the next page begins, or the end. */
static bool put_page(ei_x_buff *x, const struct fdn_sentinel *s, size_t *slot)
{
    uint32_t n = 0;
    int head = x->index;
    if (!put_map(x, 0))
        return false;
    for (; *slot < s->watches.cap && x->index - head < PAGE_BYTES; ++*slot)
        if (s->watches.slots[*slot]) {
            if (!put_watch(x, s, s->watches.slots[*slot]))
                return false;
            n++;
        }
    for (int b = 0; b < 4; b++)
        x->buff[head + MAP_COUNT_AT + b] = (char)(n >> (24 - 8 * b));
    return true;
}

/* All of them where they fit into one page. */
static bool watches(const struct fdn_sentinel *s, ei_x_buff *x)
{
    size_t slot = 0;
    int head = x->index;
    if (!put_page(x, s, &slot))
        return false;
    if (slot >= s->watches.cap)
        return true;
    x->index = head;
    return put_error(x, "too_big");
}

/* {Map, Next}: Next is for the following call, or `done`. */
static bool watches_from(const struct fdn_sentinel *s, struct fdn_etf from, ei_x_buff *x)
{
    int64_t n;
    if (!fdn_etf_int(from, &n) || n < 0)
        return bad(x, "from", "not_a_slot");
    size_t slot = (size_t)n;
    return put_tuple(x, 2) && put_page(x, s, &slot) && (slot < s->watches.cap ? put_number(x, slot) : fdn_etf_put_atom(x, "done"));
}

static bool watch(struct fdn_sentinel *s, struct fdn_node *node, struct fdn_etf id, struct fdn_etf map, ei_x_buff *x)
{
    struct fdn_badarg why;
    char text[FDN_ATOM_BYTES + 1];
    switch (fdn_monitor_watch(s, node, id, map, &why, text)) {
    case FDN_WATCH_OK:
        return fdn_etf_put_atom(x, "ok");
    case FDN_WATCH_BADARG:
        return put_badarg(x, &why);
    case FDN_WATCH_UNKNOWN_NODE:
        return put_error_about(x, "unknown_node", text);
    case FDN_WATCH_UNKNOWN_GROUP:
        return put_error_about(x, "unknown_group", text);
    case FDN_WATCH_CONFIGURED:
        return put_error(x, "configured");
    case FDN_WATCH_FULL:
        return put_error(x, "full");
    case FDN_WATCH_NO_MEMORY:
        return put_error(x, "enomem");
    }
    return put_error(x, "internal");
}

static bool unwatch(struct fdn_sentinel *s, struct fdn_etf id, ei_x_buff *x)
{
    struct fdn_watch *w = fdn_monitor_find(s, id);
    if (!w)
        return put_error(x, "unknown_watch");
    if (w->configured)
        return put_error(x, "configured");
    fdn_monitor_unwatch(s, w);
    return fdn_etf_put_atom(x, "ok");
}

/* ---- rolling back by call ---- */

/* A reason as people give it: a binary, an atom, a string, or any term printed. */
static void reason_text(struct fdn_etf t, char *out, size_t size)
{
    const uint8_t *p;
    size_t n;
    if (fdn_etf_binary(t, &p, &n)) {
        n = n < size - 1 ? n : size - 1;
        while (n > 0 && n == size - 1 && (p[n] & 0xc0) == 0x80) /* not in the middle of a character */
            n--;
        memcpy(out, p, n);
        out[n] = 0;
        for (size_t i = 0; i < n; i++)
            if (p[i] < 0x20 || p[i] == 0x7f)
                out[i] = ' ';
    } else {
        fdn_etf_print(t, out, size);
    }
}

static bool rollback(struct fdn_sentinel *s, struct fdn_node *node, struct fdn_etf group, struct fdn_etf reason, ei_x_buff *x)
{
    char name[FDN_ATOM_BYTES + 1], why[FDN_FLAG_REASON_MAX + 1];
    uint64_t epoch = 0;
    if (!fdn_etf_atom(group, name))
        return bad(x, "group", "not_an_atom");
    reason_text(reason, why, sizeof why);
    int rc = fdn_trip_rollback(s, name, why, node->name, &epoch);
    if (rc == FDN_EUNKNOWN)
        return put_error_about(x, "unknown_group", name);
    if (rc != 0)
        return put_error(x, fdn_error_name(rc));
    return put_tuple(x, 2) && fdn_etf_put_atom(x, "ok") && put_number(x, epoch);
}

static bool rearm(struct fdn_sentinel *s, struct fdn_node *node, struct fdn_etf group, struct fdn_etf epoch, ei_x_buff *x)
{
    char name[FDN_ATOM_BYTES + 1];
    int64_t n;
    if (!fdn_etf_atom(group, name))
        return bad(x, "group", "not_an_atom");
    if (!fdn_etf_int(epoch, &n) || n < 0)
        return bad(x, "epoch", "not_an_epoch");
    int rc = fdn_trip_rearm(s, name, (uint64_t)n, node->name);
    if (rc == 0)
        return fdn_etf_put_atom(x, "ok");
    return rc == FDN_EUNKNOWN ? put_error_about(x, "unknown_group", name) : put_error(x, fdn_error_name(rc));
}

static bool events(struct fdn_sentinel *s, struct fdn_etf options, ei_x_buff *x)
{
    struct fdn_etf k, v;
    int64_t most = FDN_AUDIT_KEPT;
    struct fdn_etf_iter it = fdn_etf_map(options);
    if (!it.ok)
        return bad(x, "options", "not_a_map");
    while (fdn_etf_next(&it, &k) && fdn_etf_next(&it, &v)) {
        if (!fdn_etf_is_atom(k, "limit"))
            return put_badarg(x, &(struct fdn_badarg){.given = k, .reason = "unknown"});
        if (!fdn_etf_int(v, &most) || most < 0)
            return bad(x, "limit", "not_a_count");
    }
    return fdn_audit_encode(&s->audit, (size_t)most, x);
}

bool fdn_admin_answer(struct fdn_sentinel *s, struct fdn_node *node, struct fdn_etf request, ei_x_buff *x)
{
    struct fdn_etf e[3];
    if (fdn_etf_is_atom(request, "status"))
        return status(s, x);
    if (fdn_etf_is_atom(request, "watches"))
        return watches(s, x);
    if (fdn_etf_is_atom(request, "metrics"))
        return metrics(s, x);
    if (fdn_etf_is_atom(request, "bye")) {
        node->leaving_until = s->loop.now_ms + LEAVING_MS;
        fdn_log(&s->log, FDN_LOG_INFO, "bye", "node=%s is stopping", node->name);
        return fdn_etf_put_atom(x, "ok");
    }
    if (fdn_etf_tuple(request, 3, e)) {
        if (fdn_etf_is_atom(e[0], "watch"))
            return watch(s, node, e[1], e[2], x);
        if (fdn_etf_is_atom(e[0], "rollback"))
            return rollback(s, node, e[1], e[2], x);
        if (fdn_etf_is_atom(e[0], "rearm"))
            return rearm(s, node, e[1], e[2], x);
    }
    if (fdn_etf_tuple(request, 2, e)) {
        if (fdn_etf_is_atom(e[0], "watches"))
            return watches_from(s, e[1], x);
        if (fdn_etf_is_atom(e[0], "unwatch"))
            return unwatch(s, e[1], x);
        if (fdn_etf_is_atom(e[0], "events"))
            return events(s, e[1], x);
    }
    return put_error(x, "unknown_request");
}
