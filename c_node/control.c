#include "c_node/control.h"

#include <string.h>

enum {
    OP_LINK = 1,
    OP_SEND = 2,
    OP_EXIT = 3,
    OP_REG_SEND = 6,
    OP_MONITOR = 19,
    OP_DEMONITOR = 20,
    OP_MONITOR_EXIT = 21,
    OP_PAYLOAD_MONITOR_EXIT = 28,
    OP_ALIAS_SEND = 33,
    OP_UNLINK_ID = 35,
    OP_UNLINK_ID_ACK = 36,
};

#define PASS_THROUGH 'p'
#define VERSION 131
#define MAX_CONTROL_ARITY 8
#define SMALL_TUPLE_TAG 104

/* {21, Proc, ToPid, Ref, Reason} whose reason the frame was too long to hold: everything before it is there. */
static struct fdn_control parse_cut(const uint8_t *p, size_t n)
{
    struct fdn_control c = {.kind = FDN_CTL_IGNORED};
    struct fdn_etf part[4], rest = {p + 2, n - 2};
    int64_t op;
    if (n < 4 || p[0] != SMALL_TUPLE_TAG || p[1] != 5)
        return c;
    for (int i = 0; i < 4; i++) {
        long size = fdn_etf_skip(rest.p, rest.n);
        if (size < 0)
            return c;
        part[i] = (struct fdn_etf){rest.p, (size_t)size};
        rest = (struct fdn_etf){rest.p + size, rest.n - (size_t)size};
    }
    if (fdn_etf_int(part[0], &op) && op == OP_MONITOR_EXIT && rest.n > 0) {
        c.kind = FDN_CTL_MONITOR_EXIT;
        c.from = part[1];
        c.to = part[2];
        c.ref = part[3];
        c.reason = rest;
        c.reason_cut = true;
    }
    return c;
}

static void assign(struct fdn_control *c, int64_t op, unsigned arity, const struct fdn_etf *e, bool has_message)
{
    switch (op) {
    case OP_SEND:
        if (arity == 3 && has_message)
            c->kind = FDN_CTL_SEND, c->to = e[2];
        break;
    case OP_REG_SEND:
        if (arity == 4 && has_message && fdn_etf_is_pid(e[1]))
            c->kind = FDN_CTL_REG_SEND, c->from = e[1], c->to = e[3];
        break;
    case OP_LINK:
        if (arity == 3 && fdn_etf_is_pid(e[1]) && fdn_etf_is_pid(e[2]))
            c->kind = FDN_CTL_LINK, c->from = e[1], c->to = e[2];
        break;
    case OP_UNLINK_ID:
        if (arity == 4 && fdn_etf_is_pid(e[2]) && fdn_etf_is_pid(e[3]))
            c->kind = FDN_CTL_UNLINK, c->ref = e[1], c->from = e[2], c->to = e[3];
        break;
    case OP_MONITOR:
    case OP_DEMONITOR:
        if (arity == 4 && fdn_etf_is_pid(e[1]) && fdn_etf_is_ref(e[3])) {
            c->kind = op == OP_MONITOR ? FDN_CTL_MONITOR : FDN_CTL_DEMONITOR;
            c->from = e[1], c->to = e[2], c->ref = e[3];
        }
        break;
    case OP_MONITOR_EXIT:
    case OP_PAYLOAD_MONITOR_EXIT:
        if (arity == (op == OP_MONITOR_EXIT ? 5u : 4u) && fdn_etf_is_ref(e[3]) && (op == OP_MONITOR_EXIT || has_message)) {
            c->kind = FDN_CTL_MONITOR_EXIT;
            c->from = e[1], c->to = e[2], c->ref = e[3];
            c->reason = op == OP_MONITOR_EXIT ? e[4] : c->message;
        }
        break;
    default:
        break;
    }
}

struct fdn_control fdn_control_parse(const struct fdn_frame *frame)
{
    struct fdn_control c = {.kind = FDN_CTL_MALFORMED};
    const uint8_t *p = frame->p;
    size_t n = frame->n;
    struct fdn_etf e[MAX_CONTROL_ARITY];
    int64_t op;
    if (n < 3 || p[0] != PASS_THROUGH || p[1] != VERSION)
        return c;
    p += 2, n -= 2;
    if (frame->whole > frame->n)
        return parse_cut(p, n);
    long size = fdn_etf_skip(p, n);
    if (size < 0)
        return c;
    struct fdn_etf control = {p, (size_t)size};
    long arity = fdn_etf_arity(control);
    bool has_message = (size_t)size < n;
    if (has_message && !fdn_etf_versioned(p + size, n - (size_t)size, &c.message))
        return c;
    if (arity < 1)
        return c;
    c.kind = FDN_CTL_IGNORED;
    if (arity <= MAX_CONTROL_ARITY && fdn_etf_tuple(control, (unsigned)arity, e) && fdn_etf_int(e[0], &op))
        assign(&c, op, (unsigned)arity, e, has_message);
    return c;
}

enum fdn_exit_class fdn_control_exit_class(struct fdn_etf reason)
{
    /* Works on a reason whose end is missing: looks at its first bytes only. */
    struct fdn_etf first = reason;
    bool pair = reason.n > 2 && reason.p[0] == SMALL_TUPLE_TAG && reason.p[1] == 2;
    if (pair)
        first = (struct fdn_etf){reason.p + 2, reason.n - 2};
    char word[FDN_ATOM_BYTES + 1];
    if (!fdn_etf_atom(first, word))
        return FDN_EXIT_ABNORMAL;
    if (strcmp(word, "shutdown") == 0 || (!pair && strcmp(word, "normal") == 0))
        return FDN_EXIT_NORMAL;
    if (!pair && strcmp(word, "noproc") == 0)
        return FDN_EXIT_NOPROC;
    if (!pair && strcmp(word, "noconnection") == 0)
        return FDN_EXIT_NOCONNECTION;
    return FDN_EXIT_ABNORMAL;
}

/* ---- building ---- */

static bool begin(ei_x_buff *x, long op, long arity)
{
    static const char room[4] = {0, 0, 0, 0}; /* for the length */
    const char pass = PASS_THROUGH;
    x->index = 0;
    return ei_x_append_buf(x, room, 4) == 0 && ei_x_append_buf(x, &pass, 1) == 0 && ei_x_encode_version(x) == 0 &&
           ei_x_encode_tuple_header(x, arity) == 0 && ei_x_encode_long(x, op) == 0;
}

bool fdn_control_end(ei_x_buff *x)
{
    uint32_t n = (uint32_t)x->index - 4;
    for (int i = 0; i < 4; i++)
        x->buff[i] = (char)(n >> (24 - 8 * i));
    return true;
}

bool fdn_control_monitor(ei_x_buff *x, struct fdn_etf self, struct fdn_etf target, struct fdn_etf ref)
{
    return begin(x, OP_MONITOR, 4) && fdn_etf_put(x, self) && fdn_etf_put(x, target) && fdn_etf_put(x, ref) && fdn_control_end(x);
}

bool fdn_control_demonitor(ei_x_buff *x, struct fdn_etf self, struct fdn_etf target, struct fdn_etf ref)
{
    return begin(x, OP_DEMONITOR, 4) && fdn_etf_put(x, self) && fdn_etf_put(x, target) && fdn_etf_put(x, ref) && fdn_control_end(x);
}

bool fdn_control_no_such_process(ei_x_buff *x, struct fdn_etf target, struct fdn_etf watcher, struct fdn_etf ref)
{
    return begin(x, OP_MONITOR_EXIT, 5) && fdn_etf_put(x, target) && fdn_etf_put(x, watcher) && fdn_etf_put(x, ref) &&
           fdn_etf_put_atom(x, "noproc") && fdn_control_end(x);
}

bool fdn_control_refuse_link(ei_x_buff *x, struct fdn_etf self, struct fdn_etf peer)
{
    return begin(x, OP_EXIT, 4) && fdn_etf_put(x, self) && fdn_etf_put(x, peer) && fdn_etf_put_atom(x, "noproc") && fdn_control_end(x);
}

bool fdn_control_unlink_ack(ei_x_buff *x, struct fdn_etf id, struct fdn_etf self, struct fdn_etf peer)
{
    return begin(x, OP_UNLINK_ID_ACK, 4) && fdn_etf_put(x, id) && fdn_etf_put(x, self) && fdn_etf_put(x, peer) && fdn_control_end(x);
}

bool fdn_control_begin_send(ei_x_buff *x, struct fdn_etf to)
{
    return begin(x, OP_SEND, 3) && fdn_etf_put_atom(x, "") && fdn_etf_put(x, to) && ei_x_encode_version(x) == 0;
}

bool fdn_control_begin_reg_send(ei_x_buff *x, struct fdn_etf self, const char *name)
{
    return begin(x, OP_REG_SEND, 4) && fdn_etf_put(x, self) && fdn_etf_put_atom(x, "") && fdn_etf_put_atom(x, name) &&
           ei_x_encode_version(x) == 0;
}

/* [alias | Ref], or [[alias | Ref] | Label]: the two shapes of gen's tags that carry an alias. */
static bool alias_of(struct fdn_etf tag, struct fdn_etf *ref)
{
    struct fdn_etf head;
    for (int depth = 0; depth < 2; depth++) {
        struct fdn_etf_iter it = fdn_etf_list(tag);
        if (!it.ok || it.left != 1 || !fdn_etf_next(&it, &head))
            return false;
        if (fdn_etf_is_atom(head, "alias")) {
            *ref = it.rest;
            return fdn_etf_is_ref(it.rest);
        }
        tag = head;
    }
    return false;
}

bool fdn_control_begin_reply(ei_x_buff *x, struct fdn_etf self, struct fdn_etf to, struct fdn_etf tag)
{
    struct fdn_etf ref;
    bool ok = alias_of(tag, &ref)
                  ? begin(x, OP_ALIAS_SEND, 3) && fdn_etf_put(x, self) && fdn_etf_put(x, ref) && ei_x_encode_version(x) == 0
                  : fdn_control_begin_send(x, to);
    return ok && ei_x_encode_tuple_header(x, 2) == 0 && fdn_etf_put(x, tag);
}
