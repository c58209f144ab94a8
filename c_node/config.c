#include "c_node/config.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fdn_alloc.h"
#include "c_node/node.h"

#define DEFAULT_TICK_MS 60000
#define DEFAULT_LINGER_MS 5000
#define MAX_CONFIG_BYTES (1u << 20)

static bool fail(struct fdn_config_error *e, const char *format, ...) __attribute__((format(printf, 2, 3)));
static bool fail(struct fdn_config_error *e, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(e->text, sizeof e->text, format, args);
    va_end(args);
    return false;
}

void fdn_config_init(struct fdn_config *c)
{
    *c = (struct fdn_config){.tick_ms = DEFAULT_TICK_MS, .linger_ms = DEFAULT_LINGER_MS};
}

void fdn_config_free(struct fdn_config *c)
{
    for (size_t i = 0; i < c->watch_count; i++)
        fdn_free(c->watches[i].bytes);
    fdn_free(c->watches);
    fdn_free(c->nodes);
    fdn_free(c->flags_file);
    fdn_free(c->audit_file);
    fdn_free(c->file);
    memset(c, 0, sizeof *c); /* the cookie does not stay in memory */
}

bool fdn_config_complete(const struct fdn_config *c, struct fdn_config_error *e)
{
    if (!c->node[0])
        return fail(e, "\"node\" is missing: the sentinel's own name, as foundation_sentinel_a@host");
    if (c->node_count == 0)
        return fail(e, "\"nodes\" is missing: the nodes to connect to");
    if (!c->cookie[0])
        return fail(e, "\"cookie_file\" is missing");
    if (!c->flags_file)
        return fail(e, "\"flags_file\" is missing: the flag file of the nodes, see foundation_native:flags_file/0");
    for (size_t i = 0; i < c->node_count; i++)
        if (strcmp(c->nodes[i], c->node) == 0)
            return fail(e, "\"nodes\" holds the sentinel's own name %s", c->node);
    return true;
}

bool fdn_config_read_cookie(struct fdn_config *c, const char *path, struct fdn_config_error *e)
{
    struct stat st;
    char text[FDN_COOKIE_MAX + 2];
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0)
        return fail(e, "cookie file %s: %s", path, strerror(errno));
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode)) {
        close(fd);
        return fail(e, "cookie file %s: not a regular file", path);
    }
    if ((st.st_mode & 077) != 0 || (st.st_uid != geteuid() && st.st_uid != 0 && geteuid() != 0)) {
        close(fd);
        return fail(e, "cookie file %s: mode %04o; only its owner may have access (0600 or 0400)", path,
                    (unsigned)(st.st_mode & 07777));
    }
    ssize_t n = read(fd, text, sizeof text - 1);
    close(fd);
    if (n < 0)
        return fail(e, "cookie file %s: %s", path, strerror(errno));
    text[n] = 0;
    text[strcspn(text, "\r\n")] = 0;
    if (!text[0] || strlen(text) > FDN_COOKIE_MAX)
        return fail(e, "cookie file %s: %s", path, text[0] ? "longer than 255 bytes" : "empty");
    strcpy(c->cookie, text);
    return true;
}

bool fdn_config_read_file(struct fdn_config *c, const char *path, struct fdn_config_error *e)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    struct stat st;
    char *text = NULL, *cookie_file = NULL;
    bool ok = false;
    if (fd < 0 || fstat(fd, &st) != 0)
        fail(e, "%s: %s", path, strerror(errno));
    else if (!S_ISREG(st.st_mode) || st.st_size > MAX_CONFIG_BYTES)
        fail(e, "%s: %s", path, S_ISREG(st.st_mode) ? "longer than 1 MiB" : "not a regular file");
    else if (!(text = fdn_malloc((size_t)st.st_size)))
        fail(e, "%s: out of memory", path);
    else if (read(fd, text, (size_t)st.st_size) != st.st_size)
        fail(e, "%s: cannot be read", path);
    else
        ok = fdn_config_read_json(c, path, text, (size_t)st.st_size, &cookie_file, e);
    if (fd >= 0)
        close(fd);
    fdn_free(text);
    if (ok && cookie_file && !c->cookie[0])
        ok = fdn_config_read_cookie(c, cookie_file, e);
    fdn_free(cookie_file);
    return ok;
}

/* ---- the first packet of the pipe: made by foundation_sentinel.erl, so errors here are of that module ---- */

static bool text_of(struct fdn_etf v, char **out)
{
    const uint8_t *p;
    size_t n;
    if (!fdn_etf_binary(v, &p, &n) || n == 0 || memchr(p, 0, n) || !(*out = fdn_malloc(n + 1)))
        return false;
    memcpy(*out, p, n);
    (*out)[n] = 0;
    return true;
}

static bool name_of(struct fdn_etf v, char out[FDN_NODE_NAME_MAX + 1])
{
    char name[FDN_ATOM_BYTES + 1];
    if (!fdn_etf_atom(v, name) || !fdn_node_valid(name))
        return false;
    strcpy(out, name);
    return true;
}

static bool cookie_of(struct fdn_etf v, struct fdn_config *c)
{
    char *text = NULL;
    bool ok = text_of(v, &text) && strlen(text) <= FDN_COOKIE_MAX;
    if (ok)
        strcpy(c->cookie, text);
    if (text)
        memset(text, 0, strlen(text));
    fdn_free(text);
    return ok;
}

static bool nodes_of(struct fdn_etf v, struct fdn_config *c)
{
    struct fdn_etf name;
    struct fdn_etf_iter it = fdn_etf_list(v);
    if (!it.ok || it.left == 0 || it.left > FDN_CONFIG_NODES || !(c->nodes = fdn_calloc(it.left, sizeof *c->nodes)))
        return false;
    while (fdn_etf_next(&it, &name))
        if (!name_of(name, c->nodes[c->node_count++]))
            return false;
    return true;
}

static bool number_of(struct fdn_etf v, uint64_t most, uint64_t *out)
{
    int64_t n;
    if (!fdn_etf_int(v, &n) || n < 0 || (uint64_t)n > most)
        return false;
    *out = (uint64_t)n;
    return true;
}

bool fdn_config_read_term(struct fdn_config *c, struct fdn_etf map, struct fdn_config_error *e)
{
    struct fdn_etf k, v;
    uint64_t pid = 0;
    struct fdn_etf_iter it = fdn_etf_map(map);
    if (!it.ok)
        return fail(e, "the first packet is not a map");
    while (fdn_etf_next(&it, &k) && fdn_etf_next(&it, &v)) {
        char key[FDN_ATOM_BYTES + 1];
        bool ok = fdn_etf_atom(k, key);
        if (!ok)
            return fail(e, "a key is not an atom");
        if (strcmp(key, "node") == 0)
            ok = name_of(v, c->node);
        else if (strcmp(key, "nodes") == 0)
            ok = nodes_of(v, c);
        else if (strcmp(key, "cookie") == 0)
            ok = cookie_of(v, c);
        else if (strcmp(key, "flags_file") == 0)
            ok = text_of(v, &c->flags_file);
        else if (strcmp(key, "audit_file") == 0)
            ok = text_of(v, &c->audit_file);
        else if (strcmp(key, "config") == 0)
            ok = text_of(v, &c->file);
        else if (strcmp(key, "linger") == 0)
            ok = number_of(v, 24 * 3600 * 1000, &c->linger_ms);
        else if (strcmp(key, "tick") == 0)
            ok = number_of(v, 24 * 3600 * 1000, &c->tick_ms) && c->tick_ms >= 1000;
        else if (strcmp(key, "vm_pid") == 0)
            ok = number_of(v, INT32_MAX, &pid);
        else if (strcmp(key, "vm_node") == 0)
            ok = name_of(v, c->vm_node);
        else
            return fail(e, "unknown key %s", key);
        if (!ok)
            return fail(e, "bad value of %s", key);
    }
    c->vm_pid = (int)pid;
    return true;
}
