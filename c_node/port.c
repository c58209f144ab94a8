#include "c_node/port.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define CONFIG_PACKET_MAX (256u << 10)
#define OUT_MAX (256u << 10) /* what waits for a VM that does not read; log lines beyond go to stderr */
#define CONNECT_MS 10000
#define CLASHES 20    /* a predecessor that is ending gets this many attempts' time */
#define VM_END_MS 200 /* between the end of its pipe and the end of the VM */

static void on_out(struct fdn_io *io, short revents, void *arg)
{
    struct fdn_port *p = arg;
    bool gone = fdn_frame_flush(&p->out, p->out_fd) != 0;
    if (gone || fdn_frame_queued(&p->out) == 0)
        fdn_loop_remove(&p->s->loop, io);
    if (gone) {
        fdn_frame_out_free(&p->out);
        p->out_fd = -1;
    }
}

static bool send_term(struct fdn_port *p, const ei_x_buff *x)
{
    uint32_t n = (uint32_t)x->index;
    const uint8_t head[4] = {(uint8_t)(n >> 24), (uint8_t)(n >> 16), (uint8_t)(n >> 8), (uint8_t)n};
    if (p->out_fd < 0 || fdn_frame_queued(&p->out) + n + 4 > OUT_MAX)
        return false;
    if (fdn_frame_put(&p->out, head, sizeof head) != 0 || fdn_frame_put(&p->out, x->buff, n) != 0)
        return false;
    if (fdn_frame_flush(&p->out, p->out_fd) != 0) {
        if (p->s)
            fdn_loop_remove(&p->s->loop, &p->out_io);
        fdn_frame_out_free(&p->out);
        p->out_fd = -1;
        return false;
    }
    if (p->s && fdn_frame_queued(&p->out) > 0 && !p->out_io.place)
        (void)fdn_loop_add(&p->s->loop, &p->out_io, p->out_fd, POLLOUT, on_out, p);
    return true;
}

void fdn_port_error(struct fdn_port *p, const char *word, const char *text)
{
    ei_x_buff x;
    if (ei_x_new_with_version(&x) != 0)
        return;
    if (ei_x_encode_tuple_header(&x, 2) == 0 && fdn_etf_put_atom(&x, "error") &&
        (text ? ei_x_encode_tuple_header(&x, 2) == 0 && fdn_etf_put_atom(&x, word) && fdn_etf_put_text(&x, text)
              : fdn_etf_put_atom(&x, word)))
        send_term(p, &x);
    ei_x_free(&x);
}

bool fdn_port_log(enum fdn_log_level level, const char *event, const char *detail, void *arg)
{
    struct fdn_port *p = arg;
    ei_x_buff x;
    if (p->eof || p->out_fd < 0 || ei_x_new_with_version(&x) != 0)
        return false;
    bool ok = ei_x_encode_tuple_header(&x, 4) == 0 && fdn_etf_put_atom(&x, "log") && fdn_etf_put_atom(&x, fdn_log_level_name(level)) &&
              fdn_etf_put_atom(&x, event) && fdn_etf_put_text(&x, detail) && send_term(p, &x);
    ei_x_free(&x);
    return ok;
}

bool fdn_port_read_config(struct fdn_port *p, struct fdn_config *conf, struct fdn_config_error *e)
{
    struct fdn_frame frame;
    struct fdn_etf map;
    memset(p, 0, sizeof *p);
    p->pidfd = -1;
    p->out_fd = STDOUT_FILENO;
    fdn_frame_in_init(&p->in, 4, CONFIG_PACKET_MAX);
    fdn_frame_out_init(&p->out, OUT_MAX);
    while (!fdn_frame_next(&p->in, &frame))
        if (fdn_frame_fill(&p->in, STDIN_FILENO) <= 0) {
            strcpy(e->text, "the pipe ended before the configuration came");
            return false;
        }
    if (frame.whole > frame.n || !fdn_etf_versioned(frame.p, frame.n, &map)) {
        strcpy(e->text, "the first packet is no term");
        return false;
    }
    return fdn_config_read_term(conf, map, e);
}

/* ---- the life of the VM ---- */

bool fdn_port_vm_lives(const struct fdn_port *p)
{
    struct pollfd fd = {.fd = p->pidfd, .events = POLLIN};
    return p->pidfd >= 0 && !p->vm_dead && poll(&fd, 1, 0) == 0;
}

static void on_linger_end(struct fdn_timer *t, void *arg)
{
    struct fdn_port *p = arg;
    fdn_sentinel_stop(p->s, FDN_EXIT_OK);
}

static void vm_died(struct fdn_port *p)
{
    struct fdn_sentinel *s = p->s;
    struct fdn_node *node = fdn_sentinel_node(s, s->conf.vm_node);
    if (p->vm_dead)
        return;
    p->vm_dead = true;
    fdn_loop_remove(&s->loop, &p->vm_io);
    if (p->bye) {
        fdn_sentinel_stop(s, FDN_EXIT_OK);
        return;
    }
    fdn_log(&s->log, FDN_LOG_WARNING, "vm_died", "node=%s os_pid=%d without a bye; lingering %llu ms", s->conf.vm_node, s->conf.vm_pid,
            (unsigned long long)s->conf.linger_ms);
    if (node)
        fdn_node_vm_gone(node, "vm_died");
    fdn_loop_at(&s->loop, &p->timer, s->loop.now_ms + s->conf.linger_ms, on_linger_end, p);
}

static void on_vm(struct fdn_io *io, short revents, void *arg)
{
    vm_died(arg);
}

static void on_still_alive(struct fdn_timer *t, void *arg)
{
    struct fdn_port *p = arg;
    if (fdn_port_vm_lives(p)) {
        fdn_log(&p->s->log, FDN_LOG_WARNING, "owner_gone",
                "the process that owns the sentinel ended, the VM lives: making room for another");
        fdn_sentinel_stop(p->s, FDN_EXIT_OWNER_GONE);
    } else {
        vm_died(p);
    }
}

static void on_eof(struct fdn_port *p)
{
    p->eof = true;
    fdn_loop_remove(&p->s->loop, &p->in_io);
    if (p->vm_dead)
        return;
    if (p->bye || !p->ready)
        fdn_sentinel_stop(p->s, FDN_EXIT_OK);
    else if (p->pidfd < 0)
        vm_died(p); /* no way to know better */
    else
        fdn_loop_at(&p->s->loop, &p->timer, p->s->loop.now_ms + VM_END_MS, on_still_alive, p);
}

static void on_in(struct fdn_io *io, short revents, void *arg)
{
    struct fdn_port *p = arg;
    struct fdn_frame frame;
    struct fdn_etf term;
    ssize_t got = fdn_frame_fill(&p->in, STDIN_FILENO);
    if (got == -EAGAIN)
        return;
    if (got <= 0) {
        on_eof(p);
        return;
    }
    while (fdn_frame_next(&p->in, &frame))
        if (fdn_etf_versioned(frame.p, frame.n, &term) && fdn_etf_is_atom(term, "bye")) {
            struct fdn_node *node = fdn_sentinel_node(p->s, p->s->conf.vm_node);
            p->bye = true;
            if (node)
                node->leaving_until = FDN_NEVER;
        }
}

/* ---- start ---- */

static void on_connect_deadline(struct fdn_timer *t, void *arg)
{
    struct fdn_port *p = arg;
    struct fdn_node *node = fdn_sentinel_node(p->s, p->s->conf.vm_node);
    fdn_port_error(p, node && node->problem ? node->problem : "timeout", NULL);
    fdn_sentinel_stop(p->s, FDN_EXIT_CONNECT);
}

bool fdn_port_start(struct fdn_port *p, struct fdn_sentinel *s)
{
    p->s = s;
    fcntl(STDIN_FILENO, F_SETFL, fcntl(STDIN_FILENO, F_GETFL) | O_NONBLOCK);
    fcntl(STDOUT_FILENO, F_SETFL, fcntl(STDOUT_FILENO, F_GETFL) | O_NONBLOCK);
#ifdef SYS_pidfd_open
    if (s->conf.vm_pid > 0)
        p->pidfd = (int)syscall(SYS_pidfd_open, s->conf.vm_pid, 0);
    if (p->pidfd >= 0)
        fcntl(p->pidfd, F_SETFD, FD_CLOEXEC);
#endif
    return fdn_loop_add(&s->loop, &p->in_io, STDIN_FILENO, POLLIN, on_in, p) &&
           (p->pidfd < 0 || fdn_loop_add(&s->loop, &p->vm_io, p->pidfd, POLLIN, on_vm, p)) &&
           fdn_loop_at(&s->loop, &p->timer, s->loop.now_ms + CONNECT_MS, on_connect_deadline, p);
}

void fdn_port_free(struct fdn_port *p)
{
    if (p->out_fd >= 0)
        (void)fdn_frame_flush(&p->out, p->out_fd);
    if (p->s) {
        fdn_loop_remove(&p->s->loop, &p->in_io);
        fdn_loop_remove(&p->s->loop, &p->out_io);
        fdn_loop_remove(&p->s->loop, &p->vm_io);
        fdn_loop_cancel(&p->s->loop, &p->timer);
    }
    if (p->pidfd >= 0)
        close(p->pidfd);
    fdn_frame_in_free(&p->in);
    fdn_frame_out_free(&p->out);
}

void fdn_port_up(struct fdn_port *p)
{
    ei_x_buff x;
    if (p->ready || p->eof)
        return;
    p->ready = true;
    fdn_loop_cancel(&p->s->loop, &p->timer);
    if (ei_x_new_with_version(&x) != 0)
        return;
    if (ei_x_encode_tuple_header(&x, 2) == 0 && fdn_etf_put_atom(&x, "ready") && ei_x_encode_map_header(&x, 3) == 0 &&
        fdn_etf_put_atom(&x, "version") && fdn_etf_put_text(&x, FDN_VERSION) && fdn_etf_put_atom(&x, "os_pid") &&
        ei_x_encode_long(&x, getpid()) == 0 && fdn_etf_put_atom(&x, "node") && fdn_etf_put_atom(&x, p->s->conf.node))
        send_term(p, &x);
    ei_x_free(&x);
}

void fdn_port_problem(struct fdn_port *p, const struct fdn_node *node)
{
    /* What no second attempt changes ends the start at once. */
    static const char *const final[] = {"wrong_cookie", "not_allowed", "too_old", "wrong_node", "unknown_host"};
    bool ends = node->clashes >= CLASHES;
    if (p->ready)
        return;
    for (size_t i = 0; i < sizeof final / sizeof *final; i++)
        ends = ends || strcmp(node->problem, final[i]) == 0;
    if (ends) {
        fdn_port_error(p, node->problem, NULL);
        fdn_sentinel_stop(p->s, FDN_EXIT_CONNECT);
    }
}
