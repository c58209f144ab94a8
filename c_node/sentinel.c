#include "c_node/sentinel.h"

#include <stdio.h>
#include <string.h>
#include <sys/random.h>

#include "base/fdn_alloc.h"
#include "base/fdn_error.h"
#include "c_node/port.h"

#define STALL_MS 1000
#define CLASHES_ALONE 20

static void on_stall(uint64_t paused_ms, void *arg)
{
    struct fdn_sentinel *s = arg;
    fdn_log(&s->log, FDN_LOG_WARNING, "stalled", "the sentinel did not run for %llu ms; deadlines start again",
            (unsigned long long)paused_ms);
    fdn_monitor_resume(s);
}

/* Our one pid; a term of ours is recognized by it and by the creation in references. */
static bool make_self(struct fdn_sentinel *s)
{
    erlang_pid pid = {.num = 1, .serial = 0, .creation = s->creation};
    strcpy(pid.node, s->conf.node);
    if (ei_x_new(&s->self_bytes) != 0 || ei_x_encode_pid(&s->self_bytes, &pid) != 0)
        return false;
    s->self = (struct fdn_etf){(uint8_t *)s->self_bytes.buff, (size_t)s->self_bytes.index};
    return ei_x_new(&s->x) == 0 && ei_x_new(&s->reply) == 0;
}

bool fdn_sentinel_ref(struct fdn_sentinel *s, uint32_t slot, uint64_t serial, ei_x_buff *out)
{
    erlang_ref ref = {.len = 3, .n = {slot, (unsigned)serial, (unsigned)(serial >> 32)}, .creation = s->creation};
    strcpy(ref.node, s->conf.node);
    return ei_x_encode_ref(out, &ref) == 0;
}

bool fdn_sentinel_own_ref(struct fdn_sentinel *s, struct fdn_etf t, uint32_t *slot, uint64_t *serial)
{
    erlang_ref ref;
    int index = 0;
    if (!fdn_etf_is_ref(t) || ei_decode_ref((const char *)t.p, &index, &ref) != 0 || ref.len != 3 || ref.creation != s->creation ||
        strcmp(ref.node, s->conf.node) != 0)
        return false;
    *slot = ref.n[0];
    *serial = (uint64_t)ref.n[2] << 32 | ref.n[1];
    return true;
}

struct fdn_node *fdn_sentinel_node(struct fdn_sentinel *s, const char *name)
{
    for (size_t i = 0; i < s->node_count; i++)
        if (strcmp(s->nodes[i]->name, name) == 0)
            return s->nodes[i];
    return NULL;
}

static int add_nodes(struct fdn_sentinel *s)
{
    s->node_count = 0;
    s->nodes = fdn_calloc(s->conf.node_count, sizeof *s->nodes);
    for (size_t i = 0; s->nodes && i < s->conf.node_count; i++) {
        if (fdn_sentinel_node(s, s->conf.nodes[i]))
            continue;
        struct fdn_node *node = fdn_node_new(s, s->conf.nodes[i]);
        if (!node)
            return FDN_EXIT_INTERNAL;
        s->nodes[s->node_count++] = node;
    }
    return s->nodes ? 0 : FDN_EXIT_INTERNAL;
}

static int add_watches(struct fdn_sentinel *s)
{
    char text[FDN_ATOM_BYTES + 1], id[128];
    struct fdn_badarg why = {.key = NULL};
    for (size_t i = 0; i < s->conf.watch_count; i++) {
        const struct fdn_config_watch *w = &s->conf.watches[i];
        enum fdn_watch_result rc = fdn_monitor_watch(s, NULL, w->id, w->map, &why, text);
        if (rc == FDN_WATCH_OK)
            continue;
        fdn_etf_print(w->id, id, sizeof id);
        fdn_log(&s->log, FDN_LOG_ERROR, "bad_watch", "watch=%s %s %s", id,
                rc == FDN_WATCH_UNKNOWN_NODE    ? "its node is not among the nodes:"
                : rc == FDN_WATCH_UNKNOWN_GROUP ? "the flag file has no group"
                                                : "cannot be set",
                text);
        return FDN_EXIT_CONFIG;
    }
    return 0;
}

int fdn_sentinel_init(struct fdn_sentinel *s, struct fdn_config *conf)
{
    uint32_t random[3];
    s->conf = *conf;
    memset(conf, 0, sizeof *conf);
    fdn_loop_init(&s->loop);
    s->started_ms = s->loop.now_ms;
    s->loop.stall_ms = STALL_MS;
    s->loop.on_stall = on_stall;
    s->loop.stall_arg = s;
    s->audit.fd = -1;
    s->resolver.read_fd = s->resolver.write_fd = -1;
    if (getrandom(random, sizeof random, 0) != (ssize_t)sizeof random) {
        fdn_log(&s->log, FDN_LOG_ERROR, "no_randomness", "getrandom failed");
        return FDN_EXIT_INTERNAL;
    }
    s->creation = random[0] | 4; /* 0 to 3 mean something else to old releases */
    s->serial = (uint64_t)random[1] << 16 | (random[2] & 0xffff);
    if (!make_self(s))
        return FDN_EXIT_INTERNAL;
    int rc = fdn_audit_open(&s->audit, &s->log, s->conf.audit_file);
    if (rc != 0) {
        fdn_log(&s->log, FDN_LOG_ERROR, "audit_file", "file=%s %s", s->conf.audit_file, strerror(rc));
        return FDN_EXIT_CONFIG;
    }
    rc = fdn_trip_open(s);
    if (rc != 0) {
        fdn_log(&s->log, FDN_LOG_ERROR, "flags_file", "file=%s %s", s->conf.flags_file, fdn_error_name(rc));
        if (s->port)
            fdn_port_error(s->port, "flags_file", fdn_error_name(rc));
        return FDN_EXIT_FLAGS_FILE;
    }
    rc = fdn_resolver_init(&s->resolver, &s->loop, fdn_node_resolved);
    if (rc == 0)
        rc = add_nodes(s);
    if (rc == 0 && (rc = add_watches(s)) != 0)
        return rc;
    if (rc != 0 || (s->port && !fdn_port_start(s->port, s)))
        return FDN_EXIT_INTERNAL;
    for (size_t i = 0; i < s->node_count; i++)
        fdn_node_start(s->nodes[i]);
    return FDN_EXIT_OK;
}

void fdn_sentinel_free(struct fdn_sentinel *s)
{
    if (s->sync.place) /* a rollback that is not yet on disk */
        (void)fdn_flags_sync(s->flags);
    fdn_monitor_free(s);
    for (size_t i = 0; i < s->node_count; i++)
        fdn_node_free(s->nodes[i]);
    fdn_free(s->nodes);
    fdn_resolver_free(&s->resolver, &s->loop);
    fdn_flags_close(s->flags);
    fdn_audit_close(&s->audit);
    if (s->self_bytes.buff)
        ei_x_free(&s->self_bytes);
    if (s->x.buff)
        ei_x_free(&s->x);
    if (s->reply.buff)
        ei_x_free(&s->reply);
    fdn_loop_free(&s->loop);
    fdn_config_free(&s->conf);
}

void fdn_sentinel_stop(struct fdn_sentinel *s, int exit_code)
{
    if (!s->loop.stop)
        s->exit_code = exit_code;
    s->loop.stop = true;
}

/* ---- what node.c reports ---- */

static bool is_vm(const struct fdn_sentinel *s, const struct fdn_node *node)
{
    return s->port && strcmp(node->name, s->conf.vm_node) == 0;
}

bool fdn_sentinel_vm_lives(struct fdn_sentinel *s, const struct fdn_node *node)
{
    return is_vm(s, node) && fdn_port_vm_lives(s->port);
}

void fdn_sentinel_up(struct fdn_sentinel *s, struct fdn_node *node)
{
    fdn_log(&s->log, FDN_LOG_INFO, "node_up", "node=%s creation=%u", node->name, node->incarnation);
    fdn_monitor_up(s, node);
    fdn_trip_replay(s, node);
    if (is_vm(s, node))
        fdn_port_up(s->port);
}

void fdn_sentinel_lost(struct fdn_sentinel *s, struct fdn_node *node)
{
    fdn_log(&s->log, fdn_node_leaving(node) ? FDN_LOG_INFO : FDN_LOG_WARNING, "node_lost", "node=%s %s", node->name, node->problem);
    fdn_monitor_lost(s, node);
}

void fdn_sentinel_dead(struct fdn_sentinel *s, struct fdn_node *node, const char *how)
{
    /* First what it is for, then the line about it. */
    fdn_monitor_dead(s, node, how);
    fdn_log(&s->log, fdn_node_leaving(node) ? FDN_LOG_INFO : FDN_LOG_WARNING, "node_dead", "node=%s %s", node->name, how);
}

static const char *explain(const char *problem)
{
    static const struct {
        const char *word, *text;
    } texts[] = {
        {"wrong_cookie", "the node does not accept our cookie, or has another one"},
        {"unknown_node", "epmd of its host has no node of that name"},
        {"unknown_host", "its host name cannot be resolved"},
        {"no_epmd", "no epmd answers on its host"},
        {"not_epmd", "what answers on the port of epmd is not epmd"},
        {"refused", "nobody listens on its port"},
        {"unreachable", "its host cannot be reached"},
        {"no_answer", "it accepts the connection and does not answer: stopped, hung, or not distribution over TCP (TLS?)"},
        {"name_clash", "it has a living connection under our name: another sentinel runs with this name"},
        {"not_allowed", "it refuses us (net_kernel:allow)"},
        {"too_old", "its release is too old (OTP 25 is the oldest)"},
        {"wrong_node", "another node answers on its port"},
        {"handshake_failed", "it ended the handshake; its own log says why (TLS distribution is not supported)"},
    };
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        if (strcmp(texts[i].word, problem) == 0)
            return texts[i].text;
    return "";
}

void fdn_sentinel_problem(struct fdn_sentinel *s, struct fdn_node *node, bool news)
{
    size_t ups = 0;
    if (news)
        fdn_log(&s->log, FDN_LOG_ERROR, node->problem, "node=%s %s", node->name, explain(node->problem));
    if (is_vm(s, node))
        fdn_port_problem(s->port, node);
    for (size_t i = 0; i < s->node_count; i++)
        ups += s->nodes[i]->ups > 0;
    if (!s->port && ups == 0 && node->clashes >= CLASHES_ALONE) {
        fdn_log(&s->log, FDN_LOG_ERROR, "name_clash", "another sentinel runs as %s; this one ends", s->conf.node);
        fdn_sentinel_stop(s, FDN_EXIT_CONNECT);
    }
}

void fdn_sentinel_frame(struct fdn_sentinel *s, struct fdn_node *node, const struct fdn_frame *frame)
{
    struct fdn_control c = fdn_control_parse(frame);
    ei_x_buff *x = &s->x;
    switch (c.kind) {
    case FDN_CTL_MONITOR_EXIT:
        fdn_monitor_exit(s, node, &c);
        break;
    case FDN_CTL_SEND:
        fdn_genserver_direct(s, node, c.message);
        break;
    case FDN_CTL_REG_SEND:
        fdn_genserver_named(s, node, c.from, c.to, c.message);
        break;
    case FDN_CTL_MONITOR:
        /* Ours are never down while the connection stands; its end is what the other side is told by its own VM. */
        if (!fdn_genserver_is_ours(s, c.to) && fdn_control_no_such_process(x, c.to, c.from, c.ref))
            fdn_node_send(node, x);
        break;
    case FDN_CTL_LINK:
        /* Never linked: our end would be a signal to the other side. */
        if (fdn_control_refuse_link(x, c.to, c.from))
            fdn_node_send(node, x);
        break;
    case FDN_CTL_UNLINK:
        if (fdn_control_unlink_ack(x, c.ref, c.to, c.from))
            fdn_node_send(node, x);
        break;
    case FDN_CTL_MALFORMED:
        fdn_log(&s->log, FDN_LOG_ERROR, "malformed", "node=%s sent %zu bytes that are no frame; closing the connection", node->name,
                frame->n);
        fdn_node_close(node, "malformed");
        break;
    case FDN_CTL_DEMONITOR:
    case FDN_CTL_IGNORED:
        break;
    }
}
