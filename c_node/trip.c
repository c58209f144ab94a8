/*
 * trip.c - rolling back. The order is the point: first the shared file, which takes effect in every VM of the host at that instant and
 * needs no VM to be alive; then the audit line; then a message to every connected node. Nothing here waits for a peer, and the file is
 * put on disk last, from the loop.
 */
#include <stdio.h>
#include <string.h>

#include "base/fdn_error.h"
#include "c_node/sentinel.h"

int fdn_trip_open(struct fdn_sentinel *s)
{
    int rc = fdn_flags_open(&s->flags, s->conf.flags_file, 0);
    if (rc == 0)
        fdn_flags_uuid(s->flags, s->uuid);
    return rc;
}

static void on_sync(struct fdn_timer *t, void *arg)
{
    struct fdn_sentinel *s = arg;
    int rc = fdn_flags_sync(s->flags);
    if (rc != 0)
        fdn_log(&s->log, FDN_LOG_ERROR, "sync_failed", "file=%s %s: the rollback is in force, but maybe not on disk",
                s->conf.flags_file, fdn_error_name(rc));
}

/* The file may have been replaced or truncated since we mapped it: then the one that stands there now is the one that counts. True
 * where it was opened anew. `rc`: what an operation on the mapped one has just answered. */
static bool reopened(struct fdn_sentinel *s, int rc)
{
    if (rc != FDN_EFAULTED && fdn_flags_same_file(s->flags, s->conf.flags_file))
        return false;
    struct fdn_flags *old = s->flags;
    int opened = fdn_trip_open(s);
    if (opened != 0) {
        s->flags = old;
        fdn_log(&s->log, FDN_LOG_ERROR, "flags_file", "file=%s %s: the flag file was replaced or damaged, and cannot be opened again",
                s->conf.flags_file, fdn_error_name(opened));
        return false;
    }
    fdn_flags_close(old);
    fdn_log(&s->log, FDN_LOG_WARNING, "flags_file", "file=%s was replaced or damaged; opened again", s->conf.flags_file);
    return true;
}

static int group_state(struct fdn_sentinel *s, const char *group, uint64_t *epoch, bool *rolled_back)
{
    int rc = fdn_flags_group_state(s->flags, group, epoch, rolled_back);
    return reopened(s, rc) ? fdn_flags_group_state(s->flags, group, epoch, rolled_back) : rc;
}

/* Flips first and looks at the file after it: the usual case does not wait for the look. */
static int flip(struct fdn_sentinel *s, const char *group, const char *reason, const char *who, uint64_t *epoch)
{
    int rc = fdn_flags_flip(s->flags, group, reason, who, epoch);
    return reopened(s, rc) ? fdn_flags_flip(s->flags, group, reason, who, epoch) : rc;
}

static struct fdn_rollback *remembered(struct fdn_sentinel *s, const char *group)
{
    for (size_t i = 0; i < s->rollback_count; i++)
        if (strcmp(s->rollbacks[i].group, group) == 0)
            return &s->rollbacks[i];
    return s->rollback_count < FDN_ROLLBACKS ? &s->rollbacks[s->rollback_count++] : NULL;
}

static void tell_one(struct fdn_sentinel *s, struct fdn_node *node, const char *group, uint64_t epoch, const char *reason)
{
    ei_x_buff *x = &s->x;
    if (node->state != FDN_NODE_UP)
        return;
    /* {foundation_sentinel, rolled_back, Group, Epoch, Reason, FileUuid} */
    if (fdn_control_begin_reg_send(x, s->self, FDN_TOLD_NAME) && ei_x_encode_tuple_header(x, 6) == 0 &&
        fdn_etf_put_atom(x, FDN_OUR_NAME) && fdn_etf_put_atom(x, "rolled_back") && fdn_etf_put_atom(x, group) &&
        ei_x_encode_ulonglong(x, epoch) == 0 && fdn_etf_put_text(x, reason) &&
        ei_x_encode_binary(x, s->uuid, (int)sizeof s->uuid) == 0 && fdn_control_end(x))
        fdn_node_send(node, x);
}

static void tell_all(struct fdn_sentinel *s, const char *group, uint64_t epoch, const char *reason)
{
    struct fdn_rollback *r = remembered(s, group);
    if (r) {
        snprintf(r->group, sizeof r->group, "%s", group);
        snprintf(r->reason, sizeof r->reason, "%s", reason);
        r->epoch = epoch;
    }
    for (size_t i = 0; i < s->node_count; i++)
        tell_one(s, s->nodes[i], group, epoch, reason);
    fdn_loop_at(&s->loop, &s->sync, s->loop.now_ms, on_sync, s);
}

void fdn_trip_replay(struct fdn_sentinel *s, struct fdn_node *node)
{
    for (size_t i = 0; i < s->rollback_count;) {
        struct fdn_rollback *r = &s->rollbacks[i];
        uint64_t epoch;
        bool rolled_back;
        int rc = fdn_flags_group_state(s->flags, r->group, &epoch, &rolled_back);
        if (rc == 0 && (!rolled_back || epoch != r->epoch)) { /* re-armed since: history */
            *r = s->rollbacks[--s->rollback_count];
            continue;
        }
        tell_one(s, node, r->group, r->epoch, r->reason);
        i++;
    }
}

void fdn_trip_watch(struct fdn_sentinel *s, struct fdn_watch *w, bool dry, const char *last)
{
    char id[128], reason[FDN_FLAG_REASON_MAX + 1];
    struct {
        char name[FDN_ATOM_BYTES + 1];
        uint64_t epoch;
        int rc;
        bool already;
    } groups[FDN_SPEC_GROUPS];
    fdn_monitor_name(w, id, sizeof id);
    snprintf(reason, sizeof reason, "watch %.40s: %s", id, last);
    if (dry)
        s->dry_trips++;
    else
        s->trips++;
    for (unsigned i = 0; i < w->spec.group_count; i++) {
        groups[i].epoch = 0;
        groups[i].already = false;
        fdn_etf_atom(w->spec.groups[i], groups[i].name);
        groups[i].rc = fdn_flags_group_state(s->flags, groups[i].name, &groups[i].epoch, &groups[i].already);
        if (groups[i].already) /* in the file that stands there now, too? */
            groups[i].rc = group_state(s, groups[i].name, &groups[i].epoch, &groups[i].already);
        if (!dry && !(groups[i].rc == 0 && groups[i].already))
            groups[i].rc = flip(s, groups[i].name, reason, s->conf.node, &groups[i].epoch);
    }
    for (unsigned i = 0; i < w->spec.group_count; i++) {
        bool done = !dry && groups[i].rc == 0 && !groups[i].already;
        const char *event = groups[i].already && groups[i].rc == 0 ? "already_rolled_back"
                            : dry                                  ? "dry_run"
                            : done                                 ? "rollback"
                                                                   : "rollback_failed";
        if (strcmp(event, "rollback_failed") == 0) {
            s->rollback_errors++;
            fdn_log(&s->log, FDN_LOG_ERROR, "rollback_failed", "group=%s watch=%s file=%s %s", groups[i].name, id, s->conf.flags_file,
                    fdn_error_name(groups[i].rc));
        } else {
            fdn_log(&s->log, done ? FDN_LOG_WARNING : FDN_LOG_NOTICE, event, "group=%s epoch=%llu watch=%s node=%s %s", groups[i].name,
                    (unsigned long long)groups[i].epoch, id, w->node->name, last);
        }
        fdn_audit_write(&s->audit, event, groups[i].name, groups[i].epoch, id, last, s->conf.node);
    }
    for (unsigned i = 0; i < w->spec.group_count; i++)
        if (!dry && groups[i].rc == 0 && !groups[i].already)
            tell_all(s, groups[i].name, groups[i].epoch, reason);
}

int fdn_trip_rollback(struct fdn_sentinel *s, const char *group, const char *reason, const char *who, uint64_t *epoch)
{
    int rc = flip(s, group, reason, who, epoch);
    if (rc == 0) {
        fdn_log(&s->log, FDN_LOG_WARNING, "rollback", "group=%s epoch=%llu who=%s %s", group, (unsigned long long)*epoch, who, reason);
        fdn_audit_write(&s->audit, "rollback", group, *epoch, NULL, reason, who);
        tell_all(s, group, *epoch, reason);
    }
    return rc;
}

int fdn_trip_rearm(struct fdn_sentinel *s, const char *group, uint64_t epoch, const char *who)
{
    uint64_t epoch_now;
    bool rolled_back;
    (void)group_state(s, group, &epoch_now, &rolled_back); /* of a file that was put in its place, if so */
    int rc = fdn_flags_unflip(s->flags, group, epoch, who);
    if (rc == 0) {
        fdn_log(&s->log, FDN_LOG_NOTICE, "rearm", "group=%s epoch=%llu who=%s", group, (unsigned long long)epoch, who);
        fdn_audit_write(&s->audit, "rearm", group, epoch, NULL, NULL, who);
        fdn_loop_at(&s->loop, &s->sync, s->loop.now_ms, on_sync, s);
    }
    return rc;
}
