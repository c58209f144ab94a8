#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "base/fdn_alloc.h"
#include "base/fdn_file.h"
#include "c_node/port.h"
#include "c_node/sentinel.h"

static const char usage[] =
    "usage: foundation_sentinel --config FILE [--check-config]\n"
    "       foundation_sentinel --version | --help\n"
    "\n"
    "Watches processes and nodes of Erlang VMs over the distribution protocol and rolls flag groups back by policy.\n"
    "\n"
    "  --config FILE    JSON: node, nodes, cookie_file (mode 0600), flags_file, and optionally audit_file, tick_ms, watches\n"
    "  --check-config   read the configuration and the cookie file, report the first error, start nothing\n"
    "  --port           run as the port of foundation_sentinel:start_link/1; the VM writes the configuration to stdin\n"
    "  --version        print the version\n"
    "  --help           print this text\n"
    "\n"
    "Environment: ERL_EPMD_PORT, as Erlang uses it.\n"
    "Signals: SIGTERM and SIGINT end it in order (SIGINT is ignored with --port); SIGHUP is ignored.\n"
    "Exit codes: 0 ended in order; 1 internal error or out of memory; 2 usage; 3 configuration; 4 flag file;\n"
    "            5 the node refuses us (cookie, name clash, ...); 6 the owning process ended and the VM lives (--port)\n";

struct options {
    const char *config;
    bool port, check;
};

/* Returns an exit code, or -1 to go on. */
static int parse(int argc, char **argv, struct options *o)
{
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--help") == 0) {
            fputs(usage, stdout);
            return FDN_EXIT_OK;
        } else if (strcmp(argv[i], "--version") == 0) {
            puts("foundation_sentinel " FDN_VERSION);
            return FDN_EXIT_OK;
        } else if (strcmp(argv[i], "--port") == 0) {
            o->port = true;
        } else if (strcmp(argv[i], "--check-config") == 0) {
            o->check = true;
        } else if (strcmp(argv[i], "--config") == 0 && i + 1 < argc) {
            o->config = argv[++i];
        } else {
            fprintf(stderr, "foundation_sentinel: unknown or incomplete argument %s\n\n%s", argv[i], usage);
            return FDN_EXIT_USAGE;
        }
    }
    if (o->port == (o->config != NULL) || (o->check && !o->config)) {
        fprintf(stderr, "foundation_sentinel: one of --config FILE and --port is needed\n\n%s", usage);
        return FDN_EXIT_USAGE;
    }
    return -1;
}

static bool read_config(const struct options *o, struct fdn_port *port, struct fdn_config *conf, struct fdn_config_error *e)
{
    if (!o->port)
        return fdn_config_read_file(conf, o->config, e) && fdn_config_complete(conf, e);
    return fdn_port_read_config(port, conf, e) && (!conf->file || fdn_config_read_file(conf, conf->file, e)) &&
           fdn_config_complete(conf, e);
}

struct signals {
    int fd;
    struct fdn_io io;
    struct fdn_sentinel *s;
};

static void on_signal(struct fdn_io *io, short revents, void *arg)
{
    struct signals *g = arg;
    struct signalfd_siginfo info;
    if (read(g->fd, &info, sizeof info) != (ssize_t)sizeof info)
        return;
    fdn_log(&g->s->log, FDN_LOG_NOTICE, "stopping", "signal=%u", info.ssi_signo);
    fdn_sentinel_stop(g->s, FDN_EXIT_OK);
}

static bool catch_signals(struct signals *g, struct fdn_sentinel *s, bool port)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    if (port)
        signal(SIGINT, SIG_IGN); /* Ctrl-C in the VM's shell is not meant for us */
    else
        sigaddset(&set, SIGINT);
    sigprocmask(SIG_BLOCK, &set, NULL);
    g->s = s;
    g->fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    return g->fd >= 0 && fdn_loop_add(&s->loop, &g->io, g->fd, POLLIN, on_signal, g);
}

static int run(const struct options *o, struct fdn_sentinel *s, struct fdn_config *conf, struct fdn_port *port)
{
    struct signals signals = {.fd = -1};
    s->log.least = FDN_LOG_INFO;
    if (o->port) {
        s->port = port;
        s->log.sink = fdn_port_log;
        s->log.arg = port;
    }
    int rc = fdn_sentinel_init(s, conf);
    if (rc == FDN_EXIT_OK && !catch_signals(&signals, s, o->port))
        rc = FDN_EXIT_INTERNAL;
    if (rc == FDN_EXIT_OK) {
        fdn_log(&s->log, FDN_LOG_INFO, "started", "version=%s node=%s os_pid=%d flags_file=%s", FDN_VERSION, s->conf.node,
                (int)getpid(), s->conf.flags_file);
        int error = fdn_loop_run(&s->loop);
        rc = error ? FDN_EXIT_INTERNAL : s->exit_code;
    } else if (o->port && rc != FDN_EXIT_FLAGS_FILE) { /* that has been told with its reason */
        fdn_port_error(port, rc == FDN_EXIT_CONFIG ? "config" : "internal", "see the log");
    } else if (rc == FDN_EXIT_INTERNAL) {
        fdn_log(&s->log, FDN_LOG_ERROR, "internal", "out of memory or descriptors");
    }
    if (signals.fd >= 0) {
        fdn_loop_remove(&s->loop, &signals.io);
        close(signals.fd);
    }
    if (o->port)
        fdn_port_free(port);
    fdn_sentinel_free(s);
    return rc;
}

int main(int argc, char **argv)
{
    struct options o = {.port = false};
    struct fdn_config conf;
    struct fdn_config_error error = {""};
    struct fdn_port port;
    /* Nothing that is opened below may become standard error, which is written to. */
    if (fdn_file_hold_standard() != 0)
        return FDN_EXIT_INTERNAL;
    signal(SIGPIPE, SIG_IGN);
    signal(SIGHUP, SIG_IGN); /* the end of a terminal ends the VM; that is when we are needed */
    int rc = parse(argc, argv, &o);
    if (rc >= 0)
        return rc;
    fdn_config_init(&conf);
    struct fdn_sentinel *s = fdn_calloc(1, sizeof *s);
    if (!s)
        return FDN_EXIT_INTERNAL;
    if (!read_config(&o, &port, &conf, &error)) {
        fprintf(stderr, "foundation_sentinel: %s\n", error.text);
        if (o.port) {
            fdn_port_error(&port, "config", error.text);
            fdn_port_free(&port);
        }
        rc = FDN_EXIT_CONFIG;
    } else if (o.check) {
        printf("%s: ok, %zu nodes, %zu watches\n", o.config, conf.node_count, conf.watch_count);
        rc = FDN_EXIT_OK;
    } else {
        rc = run(&o, s, &conf, &port);
    }
    fdn_config_free(&conf);
    fdn_free(s);
    return rc;
}
