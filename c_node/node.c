#include "c_node/node.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/fdn_alloc.h"
#include "c_node/sentinel.h"

#define ATTEMPT_MS 7000 /* as net_setuptime */
#define BACKOFF_FIRST_MS 100
#define BACKOFF_LOCAL_MS 1000
#define BACKOFF_REMOTE_MS 10000
#define SUSPICION 12 /* quick attempts, 1 ms apart */
#define READS_A_ROUND 16
#define ROOM_KEPT (1u << 20)

static void attempt(struct fdn_node *n);
static void on_timer(struct fdn_timer *t, void *arg);

const char *fdn_node_state_name(enum fdn_node_state state)
{
    static const char *const names[] = {"waiting", "resolving", "asking_epmd", "connecting", "handshake", "up"};
    return names[state];
}

bool fdn_node_valid(const char *name)
{
    const char *at = strchr(name, '@');
    return at && at > name && at[1] && !strchr(at + 1, '@') && strlen(name) <= FDN_NODE_NAME_MAX;
}

struct fdn_node *fdn_node_new(struct fdn_sentinel *s, const char *name)
{
    struct fdn_node *n = fdn_calloc(1, sizeof *n);
    if (!n)
        return NULL;
    n->s = s;
    n->fd = -1;
    strcpy(n->name, name);
    const char *at = strchr(n->name, '@');
    n->host = at + 1;
    memcpy(n->alive, n->name, (size_t)(at - n->name));
    fdn_frame_in_init(&n->in, 2, FDN_HS_PACKET_MAX);
    fdn_frame_out_init(&n->out, 0);
    n->since_ms = s->loop.now_ms;
    return n;
}

static void close_socket(struct fdn_node *n)
{
    fdn_loop_remove(&n->s->loop, &n->io);
    fdn_loop_cancel(&n->s->loop, &n->tick);
    if (n->fd >= 0)
        close(n->fd);
    n->fd = -1;
    fdn_frame_in_free(&n->in);
    fdn_frame_out_free(&n->out);
    fdn_frame_in_init(&n->in, 2, FDN_HS_PACKET_MAX);
    fdn_frame_out_init(&n->out, 0);
}

void fdn_node_free(struct fdn_node *n)
{
    if (!n)
        return;
    close_socket(n);
    fdn_loop_cancel(&n->s->loop, &n->timer);
    fdn_free(n);
}

void fdn_node_start(struct fdn_node *n)
{
    attempt(n);
}

bool fdn_node_leaving(const struct fdn_node *n)
{
    return n->s->loop.now_ms < n->leaving_until;
}

/* ---- the end of an attempt or of a connection ---- */

static uint32_t jitter(uint32_t below)
{
    uint32_t r = 0;
    /* Without randomness there is no jitter, which is no reason to fail. */
    if (getrandom(&r, sizeof r, GRND_NONBLOCK) < 0)
        r = 0;
    return below ? r % below : 0;
}

static void wait_and_retry(struct fdn_node *n)
{
    uint32_t most = n->local ? BACKOFF_LOCAL_MS : BACKOFF_REMOTE_MS;
    uint32_t pause = BACKOFF_FIRST_MS << (n->attempts < 8 ? n->attempts : 8);
    if (pause > most)
        pause = most;
    n->attempts++;
    n->state = FDN_NODE_WAITING;
    if (n->suspicion > 0)
        pause = 1;
    else
        pause = pause / 2 + jitter(pause / 2 + 1);
    fdn_loop_at(&n->s->loop, &n->timer, n->s->loop.now_ms + pause, on_timer, n);
}

/*
 * A local node that was up and is not: nobody listens on its port, or epmd no longer knows it. Both end with the VM. A node that only
 * lost its connection still listens, even a stopped one.
 */
static void suspect_dead(struct fdn_node *n, const char *how)
{
    n->suspicion = 0;
    if (n->local && n->was_up && !n->is_dead && !fdn_sentinel_vm_lives(n->s, n)) {
        n->is_dead = true;
        fdn_sentinel_dead(n->s, n, how);
    }
}

static void failed(struct fdn_node *n, const char *problem)
{
    bool news = !n->problem || strcmp(n->problem, problem) != 0;
    close_socket(n);
    n->problem = problem;
    if (n->suspicion > 0)
        n->suspicion--;
    if (strcmp(problem, "unknown_host") == 0 || n->attempts % 8 == 7)
        n->have_address = false;
    if (n->suspicion == 0)
        n->port = 0;
    wait_and_retry(n);
    fdn_sentinel_problem(n->s, n, news && n->suspicion == 0);
}

static void lost(struct fdn_node *n, const char *problem)
{
    uint16_t port = n->port;
    close_socket(n);
    n->problem = problem;
    n->since_ms = n->s->loop.now_ms;
    n->state = FDN_NODE_WAITING;
    n->attempts = 0;
    fdn_loop_cancel(&n->s->loop, &n->timer);
    fdn_sentinel_lost(n->s, n);
    if (n->no_reconnect)
        return;
    n->suspicion = n->local ? SUSPICION : 0;
    n->port = port;
    attempt(n);
}

void fdn_node_vm_gone(struct fdn_node *n, const char *how)
{
    n->no_reconnect = true;
    if (n->state == FDN_NODE_UP) {
        lost(n, how);
    } else {
        close_socket(n);
        fdn_loop_cancel(&n->s->loop, &n->timer);
        n->state = FDN_NODE_WAITING;
    }
    if (n->was_up && !n->is_dead) {
        n->is_dead = true;
        fdn_sentinel_dead(n->s, n, how);
    }
}

/* ---- traffic ---- */

static void update_events(struct fdn_node *n)
{
    short events = POLLIN;
    if (n->state == FDN_NODE_CONNECTING || fdn_frame_queued(&n->out) > 0)
        events |= POLLOUT;
    fdn_loop_events(&n->s->loop, &n->io, events);
}

/* The caller may be in the middle of reading from this node: the end comes from the loop. */
void fdn_node_close(struct fdn_node *n, const char *problem)
{
    n->problem = problem;
    fdn_loop_at(&n->s->loop, &n->timer, n->s->loop.now_ms, on_timer, n);
}

static void write_bytes(struct fdn_node *n, const void *p, size_t len)
{
    int rc = fdn_frame_put(&n->out, p, len);
    if (rc == 0)
        rc = fdn_frame_flush(&n->out, n->fd);
    if (rc != 0)
        fdn_node_close(n, rc == -ENOBUFS ? "slow_peer" : rc == -ENOMEM ? "no_memory" : "connection_lost");
    n->last_out_ms = n->s->loop.now_ms;
    update_events(n);
}

void fdn_node_send(struct fdn_node *n, const ei_x_buff *frame)
{
    if (n->state == FDN_NODE_UP)
        write_bytes(n, frame->buff, (size_t)frame->index);
}

size_t fdn_node_room(const struct fdn_node *n)
{
    size_t taken = fdn_frame_queued(&n->out) + ROOM_KEPT;
    return taken < n->out.max ? n->out.max - taken : 0;
}

static const char four_zeroes[4] = {0, 0, 0, 0};

static void on_tick(struct fdn_timer *t, void *arg)
{
    struct fdn_node *n = arg;
    uint64_t now = n->s->loop.now_ms, time = n->s->conf.tick_ms;
    if (now - n->last_in_ms > time + time / 4) {
        lost(n, "net_tick_timeout");
        return;
    }
    if (now - n->last_out_ms >= time / 4)
        write_bytes(n, four_zeroes, sizeof four_zeroes);
    fdn_loop_at(&n->s->loop, &n->tick, now + time / 4, on_tick, n);
}

static void up(struct fdn_node *n)
{
    n->in.header = 4; /* what has already arrived behind the handshake stays */
    n->in.max = FDN_FRAME_MAX;
    n->state = FDN_NODE_UP;
    n->problem = NULL;
    n->attempts = n->suspicion = n->clashes = 0;
    n->was_up = true;
    n->is_dead = false;
    n->leaving_until = 0;
    n->last_port = n->port;
    n->incarnation = n->hs.peer_creation;
    n->since_ms = n->last_in_ms = n->last_out_ms = n->s->loop.now_ms;
    n->ups++;
    fdn_loop_cancel(&n->s->loop, &n->timer);
    fdn_loop_at(&n->s->loop, &n->tick, n->s->loop.now_ms + n->s->conf.tick_ms / 4, on_tick, n);
    fdn_sentinel_up(n->s, n);
}

/* False where the attempt ended. */
static bool handshake_packet(struct fdn_node *n, const struct fdn_frame *f)
{
    struct fdn_hs_packet out = {.n = 0};
    enum fdn_hs_result r = f->whole > f->n ? FDN_HS_PROTOCOL : fdn_hs_packet(&n->hs, f->p, f->n, &out);
    if (out.n > 0)
        write_bytes(n, out.bytes, out.n);
    if (r == FDN_HS_MORE)
        return true;
    if (r == FDN_HS_DONE) {
        up(n);
        return true;
    }
    n->clashes = r == FDN_HS_NAME_CLASH ? n->clashes + 1 : 0;
    if (r == FDN_HS_WRONG_NODE) /* its port has passed to another VM */
        suspect_dead(n, "another node has its port");
    failed(n, fdn_hs_word(r));
    return false;
}

static void read_some(struct fdn_node *n)
{
    struct fdn_frame frame;
    for (int i = 0; i < READS_A_ROUND; i++) {
        ssize_t got = fdn_frame_fill(&n->in, n->fd);
        if (got == -EAGAIN)
            return;
        if (got <= 0) {
            if (n->state == FDN_NODE_UP)
                lost(n, got == -ENOMEM ? "no_memory" : "connection_lost");
            else
                failed(n, got == 0 || got == -ECONNRESET ? fdn_hs_word(fdn_hs_closed(&n->hs)) : "connection_lost");
            return;
        }
        n->last_in_ms = n->s->loop.now_ms;
        while (!(n->state == FDN_NODE_UP && n->timer.place) && fdn_frame_next(&n->in, &frame)) {
            if (n->state == FDN_NODE_HANDSHAKE) {
                if (!handshake_packet(n, &frame))
                    return;
            } else if (frame.whole == 0) {
                write_bytes(n, four_zeroes, sizeof four_zeroes);
            } else {
                fdn_sentinel_frame(n->s, n, &frame);
            }
        }
        if (n->timer.place && n->state == FDN_NODE_UP)
            return; /* found bad: the timer ends it */
    }
}

/* ---- an attempt, step by step ---- */

static void on_connected(struct fdn_node *n)
{
    int error = 0;
    socklen_t len = sizeof error;
    getsockopt(n->fd, SOL_SOCKET, SO_ERROR, &error, &len);
    if (error == 0 && n->state == FDN_NODE_ASKING) {
        uint8_t request[FDN_NODE_NAME_MAX + 4];
        size_t size = fdn_epmd_request(n->alive, request, sizeof request);
        n->epmd_len = 0;
        write_bytes(n, request, size);
        fdn_loop_events(&n->s->loop, &n->io, POLLIN);
        return;
    }
    if (error == 0) {
        struct fdn_hs_packet out;
        uint32_t challenge;
        if (getrandom(&challenge, sizeof challenge, 0) != (ssize_t)sizeof challenge) {
            failed(n, "no_randomness");
            return;
        }
        /* A connection that we had and that ended is the only one of ours that the node may still hold. */
        n->hs = (struct fdn_hs){.name = n->s->conf.node,
                                .peer = n->name,
                                .cookie = n->s->conf.cookie,
                                .creation = n->s->creation,
                                .challenge = challenge,
                                .own_stale = n->ups > 0};
        n->state = FDN_NODE_HANDSHAKE;
        fdn_hs_start(&n->hs, &out);
        write_bytes(n, out.bytes, out.n);
        return;
    }
    if (n->state == FDN_NODE_ASKING) {
        failed(n, error == ECONNREFUSED ? "no_epmd" : "unreachable");
        return;
    }
    bool had_port = n->suspicion > 0;
    if (error == ECONNREFUSED && had_port)
        suspect_dead(n, "nobody_listens");
    failed(n, error == ECONNREFUSED ? "refused" : "unreachable");
}

static void read_epmd(struct fdn_node *n)
{
    ssize_t got = read(n->fd, n->epmd + n->epmd_len, sizeof n->epmd - n->epmd_len);
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (got > 0)
        n->epmd_len += (size_t)got;
    switch (fdn_epmd_reply(n->epmd, n->epmd_len, &n->port)) {
    case FDN_EPMD_FOUND:
        close_socket(n);
        attempt(n);
        return;
    case FDN_EPMD_UNKNOWN:
        /* Dead, or epmd was restarted and has forgotten it: the port where it listened tells. */
        if (n->local && n->was_up && !n->is_dead && n->suspicion == 0 && n->last_port != 0) {
            close_socket(n);
            n->port = n->last_port;
            n->suspicion = 1;
            attempt(n);
            return;
        }
        failed(n, "unknown_node");
        return;
    case FDN_EPMD_TOO_OLD:
        failed(n, "too_old");
        return;
    case FDN_EPMD_MALFORMED:
        failed(n, "not_epmd");
        return;
    case FDN_EPMD_MORE:
        if (got <= 0)
            failed(n, "no_epmd");
    }
}

static void on_io(struct fdn_io *io, short revents, void *arg)
{
    struct fdn_node *n = arg;
    if (n->state == FDN_NODE_CONNECTING || (n->state == FDN_NODE_ASKING && (io->events & POLLOUT))) {
        on_connected(n);
        return;
    }
    if ((revents & POLLOUT) && fdn_frame_queued(&n->out) > 0) {
        if (fdn_frame_flush(&n->out, n->fd) != 0)
            revents |= POLLHUP;
        update_events(n);
    }
    if (revents & (POLLIN | POLLHUP | POLLERR)) {
        if (n->state == FDN_NODE_ASKING)
            read_epmd(n);
        else
            read_some(n);
    }
}

static void open_socket(struct fdn_node *n, uint16_t port, enum fdn_node_state state)
{
    struct sockaddr_in to = n->address;
    int one = 1;
    to.sin_port = htons(port);
    n->state = state;
    n->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (n->fd < 0) {
        failed(n, "no_socket");
        return;
    }
    setsockopt(n->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (!fdn_loop_add(&n->s->loop, &n->io, n->fd, POLLIN | POLLOUT, on_io, n)) {
        failed(n, "no_memory");
        return;
    }
    if (connect(n->fd, (struct sockaddr *)&to, sizeof to) == 0) {
        on_connected(n);
    } else if (errno != EINPROGRESS) {
        if (errno == ECONNREFUSED && state == FDN_NODE_CONNECTING && n->suspicion > 0)
            suspect_dead(n, "nobody_listens");
        failed(n, errno == ECONNREFUSED ? (state == FDN_NODE_ASKING ? "no_epmd" : "refused") : "unreachable");
    }
}

static void attempt(struct fdn_node *n)
{
    fdn_loop_at(&n->s->loop, &n->timer, n->s->loop.now_ms + ATTEMPT_MS, on_timer, n);
    if (!n->have_address) {
        n->state = FDN_NODE_RESOLVING;
        if (fdn_resolver_start(&n->s->resolver, n->host, n, ++n->ticket) != 0)
            failed(n, "unknown_host");
    } else if (n->port == 0) {
        open_socket(n, fdn_epmd_port(), FDN_NODE_ASKING);
    } else {
        open_socket(n, n->port, FDN_NODE_CONNECTING);
    }
}

void fdn_node_resolved(const struct fdn_resolved *result)
{
    struct fdn_node *n = result->owner;
    if (n->state != FDN_NODE_RESOLVING || n->ticket != result->ticket)
        return;
    if (result->error != 0) {
        failed(n, "unknown_host");
        return;
    }
    n->address = result->addr;
    n->local = result->local;
    n->have_address = true;
    attempt(n);
}

static void on_timer(struct fdn_timer *t, void *arg)
{
    struct fdn_node *n = arg;
    switch (n->state) {
    case FDN_NODE_WAITING:
        attempt(n);
        break;
    case FDN_NODE_UP:
        lost(n, n->problem ? n->problem : "connection_lost");
        break;
    case FDN_NODE_RESOLVING:
        failed(n, "unknown_host");
        break;
    default:
        failed(n, "no_answer");
    }
}
