/*
 * port.h - the pipe to the VM that started us ({packet, 4}, external terms).
 *
 *     in   the configuration, first; later `bye` before an orderly stop; the end of the stream
 *     out  {ready, #{version, os_pid, node}} or {error, Reason}; {log, Level, Event, Detail}
 *
 * The end of the stream without `bye` means that the VM died or that only our owner process did. The VM's process id tells which (by a
 * pidfd): a dead VM is an outage at once, and we linger so that the policy and the other nodes get what they need; a living one has a
 * supervisor that starts our successor, so we make room at once.
 */
#ifndef FDN_PORT_H
#define FDN_PORT_H

#include "c_node/sentinel.h"

struct fdn_port {
    struct fdn_sentinel *s;
    struct fdn_io in_io, out_io, vm_io;
    struct fdn_frame_in in;
    struct fdn_frame_out out;
    int pidfd;  /* -1: the system has none */
    int out_fd; /* -1: nobody reads any more */
    bool ready, bye, eof, vm_dead;
    struct fdn_timer timer; /* connect deadline; later the wait for the VM's end; later the end of lingering */
};

/* Blocks until the first packet is there, and fills conf from it. */
bool fdn_port_read_config(struct fdn_port *port, struct fdn_config *conf, struct fdn_config_error *e);

/* The rest, once the sentinel stands. False where memory ran out. */
bool fdn_port_start(struct fdn_port *port, struct fdn_sentinel *s);
void fdn_port_free(struct fdn_port *port);

/* {error, Word} or {error, {Word, Text}}; written at once, as far as the pipe takes it. */
void fdn_port_error(struct fdn_port *port, const char *word, const char *text);

/* For struct fdn_log. */
bool fdn_port_log(enum fdn_log_level level, const char *event, const char *detail, void *arg);

/* The node of our VM is connected / an attempt to connect to it failed. */
void fdn_port_up(struct fdn_port *port);
void fdn_port_problem(struct fdn_port *port, const struct fdn_node *node);

/* Whether the VM is known to run. */
bool fdn_port_vm_lives(const struct fdn_port *port);

#endif
