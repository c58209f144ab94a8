/*
 * control.h - control messages of the distribution: what a frame says, and the frames we send.
 *
 * Frame on the wire: u32 length, 'p', 131 control tuple[, 131 message]. A zero length is a tick.
 *
 * Source: "Distribution Protocol", section Protocol between Connected Nodes.
 */
#ifndef FDN_CONTROL_H
#define FDN_CONTROL_H

#include "c_node/etf.h"
#include "c_node/frame.h"

enum fdn_control_kind {
    FDN_CTL_IGNORED,      /* well-formed, of no interest */
    FDN_CTL_MALFORMED,    /* not a frame that a node sends; the reader closes the connection */
    FDN_CTL_SEND,         /* message for our pid `to` */
    FDN_CTL_REG_SEND,     /* message from `from` for the name `to` */
    FDN_CTL_LINK,         /* `from` wants a link to our pid `to` */
    FDN_CTL_UNLINK,       /* `from` removes a link, `ref` is the id to acknowledge */
    FDN_CTL_MONITOR,      /* `from` monitors our `to` (name or pid) under `ref` */
    FDN_CTL_DEMONITOR,    /* and no longer */
    FDN_CTL_MONITOR_EXIT, /* what we monitored under `ref` ended with `reason` */
};

struct fdn_control {
    enum fdn_control_kind kind;
    struct fdn_etf from, to, ref;
    struct fdn_etf reason;  /* of MONITOR_EXIT; where the frame was cut, as many bytes of it as there are */
    bool reason_cut;        /* then only fdn_control_exit_class may look at it */
    struct fdn_etf message; /* of SEND and REG_SEND */
};

/* Checks the whole frame with fdn_etf_skip first. A frame that was cut (frame.h) is understood where it is a MONITOR_EXIT. */
struct fdn_control fdn_control_parse(const struct fdn_frame *frame);

/* What an exit reason means. */
enum fdn_exit_class {
    FDN_EXIT_NORMAL,       /* normal, shutdown, {shutdown, _} */
    FDN_EXIT_ABNORMAL,     /* everything else */
    FDN_EXIT_NOPROC,       /* the process was not there when we monitored it */
    FDN_EXIT_NOCONNECTION, /* the node has lost whoever it asked; says nothing about the process */
};
enum fdn_exit_class fdn_control_exit_class(struct fdn_etf reason);

/* ---- frames to send. Each builds one whole frame in x (emptied first) and returns false where memory ran out. ---- */
bool fdn_control_monitor(ei_x_buff *x, struct fdn_etf self, struct fdn_etf target, struct fdn_etf ref);
bool fdn_control_demonitor(ei_x_buff *x, struct fdn_etf self, struct fdn_etf target, struct fdn_etf ref);
/* Answer to a monitor on something that we are not. */
bool fdn_control_no_such_process(ei_x_buff *x, struct fdn_etf target, struct fdn_etf watcher, struct fdn_etf ref);
/* Answer to a link. */
bool fdn_control_refuse_link(ei_x_buff *x, struct fdn_etf self, struct fdn_etf peer);
bool fdn_control_unlink_ack(ei_x_buff *x, struct fdn_etf id, struct fdn_etf self, struct fdn_etf peer);

/* Messages: begin, encode one term (ei_x_* or fdn_etf_put) into x, end. */
bool fdn_control_begin_send(ei_x_buff *x, struct fdn_etf to);
bool fdn_control_begin_reg_send(ei_x_buff *x, struct fdn_etf self, const char *name);
/* The answer {Tag, ...} to a gen call: through the alias where the tag names one, so that a late answer is dropped on the way. */
bool fdn_control_begin_reply(ei_x_buff *x, struct fdn_etf self, struct fdn_etf to, struct fdn_etf tag);
bool fdn_control_end(ei_x_buff *x);

#endif
