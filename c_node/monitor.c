#include "c_node/monitor.h"

#include <stdio.h>
#include <string.h>

#include "base/fdn_alloc.h"
#include "c_node/sentinel.h"

#define RETRY_FIRST_MS 1
#define RETRY_MOST_MS 1000

const char *fdn_monitor_state_name(const struct fdn_watch *w)
{
    static const char *const names[] = {"idle", "armed", "absent", "gone"};
    if (w->spec.process.n == 0)
        return w->node->state == FDN_NODE_UP ? "up" : "down";
    return names[w->state];
}

void fdn_monitor_name(const struct fdn_watch *w, char *out, size_t size)
{
    fdn_etf_print(w->id, out, size);
}

/* ---- deadlines ---- */

static void judge(struct fdn_watch *w, enum fdn_verdict verdict, const char *what);

static void schedule(struct fdn_watch *w);

static void on_due(struct fdn_timer *t, void *arg)
{
    struct fdn_watch *w = arg;
    struct fdn_sentinel *s = w->s;
    bool probe;
    bool outage = w->policy.outage;
    enum fdn_verdict verdict = fdn_policy_tick(&w->policy, s->loop.now_ms, &probe);
    if (probe) {
        /* {'$gen_call', {OurPid, Ref}, {is_auth, OurName}} to net_kernel: answered by any VM whose schedulers run. */
        ei_x_buff *x = &s->x;
        w->probe_serial = ++s->serial;
        if (fdn_control_begin_reg_send(x, s->self, "net_kernel") && ei_x_encode_tuple_header(x, 3) == 0 &&
            fdn_etf_put_atom(x, "$gen_call") && ei_x_encode_tuple_header(x, 2) == 0 && fdn_etf_put(x, s->self) &&
            fdn_sentinel_ref(s, w->slot, w->probe_serial, x) && ei_x_encode_tuple_header(x, 2) == 0 && fdn_etf_put_atom(x, "is_auth") &&
            fdn_etf_put_atom(x, s->conf.node) && fdn_control_end(x))
            fdn_node_send(w->node, x);
    }
    if (verdict != FDN_QUIET)
        judge(w, verdict, w->policy.outage != outage ? "node unreachable" : "node does not answer probes");
    schedule(w);
}

static void schedule(struct fdn_watch *w)
{
    uint64_t due = fdn_policy_due(&w->policy);
    if (due == FDN_NEVER)
        fdn_loop_cancel(&w->s->loop, &w->due);
    else
        fdn_loop_at(&w->s->loop, &w->due, due, on_due, w);
}

static void judge(struct fdn_watch *w, enum fdn_verdict verdict, const char *what)
{
    struct fdn_sentinel *s = w->s;
    char id[128];
    if (verdict == FDN_QUIET)
        return;
    snprintf(w->last, sizeof w->last, "%s", what);
    if (verdict == FDN_COUNTED) {
        fdn_monitor_name(w, id, sizeof id);
        fdn_log(&s->log, FDN_LOG_INFO, "failure", "watch=%s node=%s failures=%u/%u %s", id, w->node->name,
                fdn_policy_recent(&w->policy, s->loop.now_ms), w->spec.policy.failures, what);
    } else {
        fdn_trip_watch(s, w, verdict == FDN_TRIP_DRY, what);
    }
}

/* ---- native monitors ---- */

static void retry_later(struct fdn_watch *w);

static void arm(struct fdn_watch *w)
{
    struct fdn_sentinel *s = w->s;
    ei_x_buff ref;
    if (w->spec.process.n == 0 || w->state == FDN_MON_GONE || w->node->state != FDN_NODE_UP)
        return;
    if (ei_x_new(&ref) != 0) {
        retry_later(w);
        return;
    }
    w->serial = ++s->serial;
    if (fdn_sentinel_ref(s, w->slot, w->serial, &ref) &&
        fdn_control_monitor(&s->x, s->self, w->spec.process, (struct fdn_etf){(uint8_t *)ref.buff, (size_t)ref.index})) {
        w->state = FDN_MON_ARMED;
        fdn_node_send(w->node, &s->x);
    }
    ei_x_free(&ref);
}

static void disarm(struct fdn_watch *w)
{
    struct fdn_sentinel *s = w->s;
    ei_x_buff ref;
    if (w->state == FDN_MON_ARMED && w->node->state == FDN_NODE_UP && ei_x_new(&ref) == 0) {
        if (fdn_sentinel_ref(s, w->slot, w->serial, &ref) &&
            fdn_control_demonitor(&s->x, s->self, w->spec.process, (struct fdn_etf){(uint8_t *)ref.buff, (size_t)ref.index}))
            fdn_node_send(w->node, &s->x);
        ei_x_free(&ref);
    }
    fdn_loop_cancel(&s->loop, &w->retry);
    w->serial = 0;
    if (w->state != FDN_MON_GONE)
        w->state = FDN_MON_IDLE;
}

static void on_retry(struct fdn_timer *t, void *arg)
{
    arm(arg);
}

static void retry_later(struct fdn_watch *w)
{
    uint64_t pause = (uint64_t)RETRY_FIRST_MS << (w->tries < 10 ? w->tries : 10);
    w->tries++;
    w->state = FDN_MON_RETRY;
    fdn_loop_at(&w->s->loop, &w->retry, w->s->loop.now_ms + (pause < RETRY_MOST_MS ? pause : RETRY_MOST_MS), on_retry, w);
}

static struct fdn_watch *by_ref(struct fdn_sentinel *s, struct fdn_etf ref, uint64_t *serial)
{
    uint32_t slot;
    return fdn_sentinel_own_ref(s, ref, &slot, serial) && slot < s->watches.cap ? s->watches.slots[slot] : NULL;
}

void fdn_monitor_exit(struct fdn_sentinel *s, struct fdn_node *node, const struct fdn_control *c)
{
    uint64_t serial;
    struct fdn_watch *w = by_ref(s, c->ref, &serial);
    s->downs++;
    if (!w || w->node != node || w->serial != serial || w->state != FDN_MON_ARMED)
        return;
    enum fdn_exit_class class = fdn_control_exit_class(c->reason);
    w->state = FDN_MON_IDLE;
    if (class == FDN_EXIT_NOPROC || class == FDN_EXIT_NOCONNECTION) {
        if (fdn_etf_is_pid(w->spec.process) && class == FDN_EXIT_NOPROC)
            w->state = FDN_MON_GONE;
        else
            retry_later(w);
        return;
    }
    w->tries = 0;
    if (!fdn_node_leaving(node)) {
        char what[96] = "exit: ";
        if (c->reason_cut)
            strcat(what, "(reason too long to keep)");
        else
            fdn_etf_print(c->reason, what + strlen(what), sizeof what - strlen(what));
        judge(w, fdn_policy_exit(&w->policy, class == FDN_EXIT_ABNORMAL, s->loop.now_ms), what);
    }
    if (fdn_etf_is_pid(w->spec.process))
        w->state = FDN_MON_GONE;
    else
        arm(w);
}

void fdn_monitor_answer(struct fdn_sentinel *s, struct fdn_etf ref)
{
    uint64_t serial;
    struct fdn_watch *w = by_ref(s, ref, &serial);
    if (w && w->probe_serial == serial) {
        w->probe_serial = 0;
        fdn_policy_alive(&w->policy, s->loop.now_ms);
        schedule(w);
    }
}

/* ---- nodes ---- */

static void node_up(struct fdn_watch *w)
{
    w->tries = 0;
    fdn_policy_found(&w->policy, w->s->loop.now_ms);
    arm(w);
    schedule(w);
}

#define EACH_WATCH(s, w)                                                                                                               \
    for (size_t i_ = 0; i_ < (s)->watches.cap; i_++)                                                                                   \
        if (((w) = (s)->watches.slots[i_]) != NULL)

void fdn_monitor_up(struct fdn_sentinel *s, struct fdn_node *node)
{
    struct fdn_watch *w;
    EACH_WATCH(s, w)
    if (w->node == node)
        node_up(w);
}

void fdn_monitor_lost(struct fdn_sentinel *s, struct fdn_node *node)
{
    struct fdn_watch *w;
    EACH_WATCH(s, w)
    if (w->node == node) {
        disarm(w);
        w->probe_serial = 0;
        if (!fdn_node_leaving(node))
            fdn_policy_lost(&w->policy, s->loop.now_ms);
        schedule(w);
    }
}

void fdn_monitor_dead(struct fdn_sentinel *s, struct fdn_node *node, const char *how)
{
    struct fdn_watch *w;
    char what[96];
    snprintf(what, sizeof what, "node dead: %s", how);
    EACH_WATCH(s, w)
    if (w->node == node) {
        if (!fdn_node_leaving(node))
            judge(w, fdn_policy_dead(&w->policy, s->loop.now_ms), what);
        schedule(w);
    }
}

void fdn_monitor_resume(struct fdn_sentinel *s)
{
    struct fdn_watch *w;
    EACH_WATCH(s, w)
    {
        fdn_policy_resume(&w->policy, s->loop.now_ms);
        schedule(w);
    }
}

/* ---- the table ---- */

struct fdn_watch *fdn_monitor_find(struct fdn_sentinel *s, struct fdn_etf id)
{
    struct fdn_watch *w;
    EACH_WATCH(s, w)
    if (fdn_etf_equal(w->id, id))
        return w;
    return NULL;
}

static bool free_slot(struct fdn_watches *t, uint32_t *slot)
{
    for (size_t i = 0; t->count < t->cap && i < t->cap; i++)
        if (!t->slots[i]) {
            *slot = (uint32_t)i;
            return true;
        }
    size_t cap = t->cap ? t->cap * 2 : 16;
    struct fdn_watch **slots = fdn_realloc(t->slots, cap * sizeof *slots);
    if (!slots)
        return false;
    memset(slots + t->cap, 0, (cap - t->cap) * sizeof *slots);
    *slot = (uint32_t)t->cap;
    t->slots = slots;
    t->cap = cap;
    return true;
}

void fdn_monitor_unwatch(struct fdn_sentinel *s, struct fdn_watch *w)
{
    disarm(w);
    fdn_loop_cancel(&s->loop, &w->due);
    s->watches.slots[w->slot] = NULL;
    s->watches.count--;
    fdn_policy_free(&w->policy);
    fdn_free(w->bytes);
    fdn_free(w);
}

void fdn_monitor_free(struct fdn_sentinel *s)
{
    struct fdn_watch *w;
    EACH_WATCH(s, w)
    fdn_monitor_unwatch(s, w);
    fdn_free(s->watches.slots);
    s->watches = (struct fdn_watches){NULL, 0, 0};
}

/* The node to watch: the pid's, the one named, the caller's. */
static struct fdn_node *node_of(struct fdn_sentinel *s, struct fdn_node *caller, const struct fdn_spec *spec,
                                char text[FDN_ATOM_BYTES + 1])
{
    if (fdn_etf_is_pid(spec->process)) {
        if (!fdn_etf_node(spec->process, text))
            return NULL;
    } else if (spec->node.n > 0) {
        if (!fdn_etf_atom(spec->node, text))
            return NULL;
    } else if (caller) {
        return caller;
    } else {
        return NULL;
    }
    return fdn_sentinel_node(s, text);
}

enum fdn_watch_result fdn_monitor_watch(struct fdn_sentinel *s, struct fdn_node *caller, struct fdn_etf id, struct fdn_etf map,
                                        struct fdn_badarg *why, char text[FDN_ATOM_BYTES + 1])
{
    struct fdn_spec spec;
    uint32_t slot;
    text[0] = 0;
    if (id.n > FDN_WATCH_ID_MAX || map.n > FDN_WATCH_MAP_MAX) {
        *why = (struct fdn_badarg){.key = id.n > FDN_WATCH_ID_MAX ? "id" : "spec", .reason = "too_big"};
        return FDN_WATCH_BADARG;
    }
    if (!fdn_spec_parse(map, &spec, why))
        return FDN_WATCH_BADARG;
    struct fdn_node *node = node_of(s, caller, &spec, text);
    if (!node)
        return FDN_WATCH_UNKNOWN_NODE;
    for (unsigned i = 0; i < spec.group_count; i++) {
        uint64_t epoch;
        bool rolled_back;
        if (!fdn_etf_atom(spec.groups[i], text) || fdn_flags_group_state(s->flags, text, &epoch, &rolled_back) != 0)
            return FDN_WATCH_UNKNOWN_GROUP;
    }
    struct fdn_watch *old = fdn_monitor_find(s, id);
    if (old && old->configured && caller)
        return FDN_WATCH_CONFIGURED;
    if (old && old->node == node && fdn_etf_equal(old->map, map))
        return FDN_WATCH_OK;
    if (!old && s->watches.count >= FDN_WATCHES_MAX)
        return FDN_WATCH_FULL;

    struct fdn_watch *w = fdn_calloc(1, sizeof *w);
    uint8_t *bytes = fdn_malloc(id.n + map.n);
    if (!w || !bytes || fdn_policy_init(&w->policy, &spec.policy, s->loop.now_ms) != 0 || !free_slot(&s->watches, &slot)) {
        if (w)
            fdn_policy_free(&w->policy);
        fdn_free(w);
        fdn_free(bytes);
        return FDN_WATCH_NO_MEMORY;
    }
    memcpy(bytes, id.p, id.n);
    memcpy(bytes + id.n, map.p, map.n);
    w->s = s;
    w->bytes = bytes;
    w->id = (struct fdn_etf){bytes, id.n};
    w->map = (struct fdn_etf){bytes + id.n, map.n};
    (void)fdn_spec_parse(w->map, &w->spec, why); /* as before, with spans into our copy */
    w->node = node;
    w->configured = caller == NULL;
    w->slot = slot;
    s->watches.slots[slot] = w;
    s->watches.count++;
    if (old)
        fdn_monitor_unwatch(s, old);
    if (node->state == FDN_NODE_UP)
        node_up(w);
    return FDN_WATCH_OK;
}
