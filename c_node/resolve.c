#include "c_node/resolve.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/fdn_alloc.h"

struct job {
    struct fdn_resolved result;
    int fd;
    char host[256];
};

_Static_assert(sizeof(struct fdn_resolved) <= 512, "a write of this size to a pipe is atomic");

/* An address is ours exactly if it can be bound. */
static bool is_local(const struct sockaddr_in *addr)
{
    struct sockaddr_in any_port = *addr;
    any_port.sin_port = 0;
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    bool local = fd >= 0 && bind(fd, (struct sockaddr *)&any_port, sizeof any_port) == 0;
    if (fd >= 0)
        close(fd);
    return local;
}

/*
 * Whether this is the machine's own name, in full or up to its first dot. Nothing else may know it (a container without a line in
 * /etc/hosts); a VM then takes the loopback address for it (gethostbyname_self in kernel's inet.erl), and so do we. `localhost` is
 * the loopback address whatever anybody says (RFC 6761).
 */
static bool is_own_name(const char *host)
{
    char own[256];
    if (strcasecmp(host, "localhost") == 0)
        return true;
    if (gethostname(own, sizeof own) != 0)
        return false;
    own[sizeof own - 1] = '\0';
    if (strcasecmp(host, own) == 0)
        return true;
    own[strcspn(own, ".")] = '\0';
    return strcasecmp(host, own) == 0;
}

static void *run(void *arg)
{
    struct job *job = arg;
    struct addrinfo hints = {.ai_family = AF_INET, .ai_socktype = SOCK_STREAM}, *found = NULL;
    job->result.error = getaddrinfo(job->host, NULL, &hints, &found);
    if (job->result.error == 0) {
        memcpy(&job->result.addr, found->ai_addr, sizeof job->result.addr);
        job->result.local = is_local(&job->result.addr);
        freeaddrinfo(found);
    } else if (is_own_name(job->host)) {
        job->result.addr = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
        job->result.local = true;
        job->result.error = 0;
    }
    while (write(job->fd, &job->result, sizeof job->result) < 0 && errno == EINTR)
        ;
    close(job->fd);
    fdn_free(job);
    return NULL;
}

int fdn_resolver_start(struct fdn_resolver *r, const char *host, void *owner, uint64_t ticket)
{
    struct job *job = fdn_calloc(1, sizeof *job);
    if (!job)
        return ENOMEM;
    size_t len = strlen(host);
    job->fd = len < sizeof job->host ? fcntl(r->write_fd, F_DUPFD_CLOEXEC, 0) : -1;
    if (job->fd < 0) {
        fdn_free(job);
        return len < sizeof job->host ? errno : ENAMETOOLONG;
    }
    memcpy(job->host, host, len + 1);
    job->result.owner = owner;
    job->result.ticket = ticket;
    /* Signals belong to the loop's thread. */
    sigset_t all, old;
    pthread_t thread;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    int rc = pthread_create(&thread, NULL, run, job);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (rc != 0) {
        close(job->fd);
        fdn_free(job);
        return rc;
    }
    pthread_detach(thread);
    return 0;
}

static void on_readable(struct fdn_io *io, short revents, void *arg)
{
    struct fdn_resolver *r = arg;
    struct fdn_resolved result;
    if (read(r->read_fd, &result, sizeof result) == (ssize_t)sizeof result)
        r->fn(&result);
}

int fdn_resolver_init(struct fdn_resolver *r, struct fdn_loop *loop, fdn_resolved_fn *fn)
{
    int fds[2];
    *r = (struct fdn_resolver){.read_fd = -1, .write_fd = -1, .fn = fn};
    if (pipe2(fds, O_CLOEXEC) != 0)
        return errno;
    r->read_fd = fds[0];
    r->write_fd = fds[1];
    fcntl(r->read_fd, F_SETFL, O_NONBLOCK);
    return fdn_loop_add(loop, &r->io, r->read_fd, POLLIN, on_readable, r) ? 0 : ENOMEM;
}

void fdn_resolver_free(struct fdn_resolver *r, struct fdn_loop *loop)
{
    fdn_loop_remove(loop, &r->io);
    if (r->read_fd >= 0)
        close(r->read_fd);
    if (r->write_fd >= 0)
        close(r->write_fd);
    r->read_fd = r->write_fd = -1;
}
