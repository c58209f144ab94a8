/*
 * genserver.c - messages from the BEAM. We look like a node with two registered processes: net_kernel, which answers pings, and
 * foundation_sentinel, which answers gen_server:call. Everything else is dropped.
 */
#include <string.h>

#include "c_node/sentinel.h"

bool fdn_genserver_is_ours(struct fdn_sentinel *s, struct fdn_etf t)
{
    return fdn_etf_is_atom(t, FDN_OUR_NAME) || fdn_etf_is_atom(t, "net_kernel") || fdn_etf_equal(t, s->self);
}

/* {'$gen_call', {Pid, Tag}, Request} */
static bool gen_call(struct fdn_etf message, struct fdn_etf *to, struct fdn_etf *tag, struct fdn_etf *request)
{
    struct fdn_etf part[3], from[2];
    if (!fdn_etf_tuple(message, 3, part) || !fdn_etf_is_atom(part[0], "$gen_call") || !fdn_etf_tuple(part[1], 2, from) ||
        !fdn_etf_is_pid(from[0]))
        return false;
    *to = from[0];
    *tag = from[1];
    *request = part[2];
    return true;
}

static bool answer_ping(struct fdn_etf request, ei_x_buff *x)
{
    struct fdn_etf part[2];
    if (fdn_etf_tuple(request, 2, part) && fdn_etf_is_atom(part[0], "is_auth"))
        return fdn_etf_put_atom(x, "yes");
    return ei_x_encode_tuple_header(x, 2) == 0 && fdn_etf_put_atom(x, "error") && fdn_etf_put_atom(x, "unknown_request");
}

void fdn_genserver_named(struct fdn_sentinel *s, struct fdn_node *node, struct fdn_etf from, struct fdn_etf name,
                         struct fdn_etf message)
{
    struct fdn_etf to, tag, request;
    bool kernel = fdn_etf_is_atom(name, "net_kernel");
    if ((!kernel && !fdn_etf_is_atom(name, FDN_OUR_NAME)) || !gen_call(message, &to, &tag, &request))
        return;
    s->calls++;
    if (!fdn_control_begin_reply(&s->reply, s->self, to, tag))
        return;
    bool ok = kernel ? answer_ping(request, &s->reply) : fdn_admin_answer(s, node, request, &s->reply);
    /* Callers that ask for more than their node reads are told so; the connection, and with it every monitor, stays. */
    if (ok && (size_t)s->reply.index > fdn_node_room(node))
        ok = fdn_control_begin_reply(&s->reply, s->self, to, tag) && ei_x_encode_tuple_header(&s->reply, 2) == 0 &&
             fdn_etf_put_atom(&s->reply, "error") && fdn_etf_put_atom(&s->reply, "busy");
    if (ok) {
        fdn_control_end(&s->reply);
        fdn_node_send(node, &s->reply);
    }
}

/* The answer to a probe: {Ref, yes}. */
void fdn_genserver_direct(struct fdn_sentinel *s, struct fdn_node *node, struct fdn_etf message)
{
    struct fdn_etf part[2];
    if (fdn_etf_tuple(message, 2, part) && fdn_etf_is_ref(part[0]))
        fdn_monitor_answer(s, part[0]);
}
