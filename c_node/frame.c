#include "c_node/frame.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "base/fdn_alloc.h"

#define READ_CHUNK (64u << 10)

void fdn_frame_in_init(struct fdn_frame_in *in, unsigned header, uint32_t max)
{
    *in = (struct fdn_frame_in){.header = header, .max = max ? max : FDN_FRAME_MAX};
}

void fdn_frame_in_free(struct fdn_frame_in *in)
{
    fdn_free(in->buf);
    in->buf = NULL;
    in->start = in->end = in->cap = 0;
}

/* At least one free byte at the end; at most header + max + READ_CHUNK bytes are ever held. */
static bool make_room(struct fdn_frame_in *in)
{
    if (in->start == in->end) {
        in->start = in->end = 0;
        if (in->cap > 4 * READ_CHUNK) /* give back what one large packet took */
            fdn_frame_in_free(in);
    }
    if (in->end < in->cap)
        return true;
    if (in->start > 0) {
        memmove(in->buf, in->buf + in->start, in->end - in->start);
        in->end -= in->start;
        in->start = 0;
        if (in->end < in->cap)
            return true;
    }
    size_t cap = in->cap ? in->cap * 2 : READ_CHUNK;
    size_t most = (size_t)in->header + in->max + READ_CHUNK;
    if (cap > most)
        cap = most;
    if (cap <= in->cap)
        return false;
    uint8_t *buf = fdn_realloc(in->buf, cap);
    if (!buf)
        return false;
    in->buf = buf;
    in->cap = cap;
    return true;
}

static void drop_discarded(struct fdn_frame_in *in)
{
    size_t have = in->end - in->start;
    size_t drop = in->discard < have ? (size_t)in->discard : have;
    in->start += drop;
    in->discard -= drop;
}

ssize_t fdn_frame_fill(struct fdn_frame_in *in, int fd)
{
    if (!make_room(in))
        return -ENOMEM;
    ssize_t got;
    do {
        got = read(fd, in->buf + in->end, in->cap - in->end);
    } while (got < 0 && errno == EINTR);
    if (got < 0)
        return -errno;
    in->end += (size_t)got;
    drop_discarded(in);
    return got;
}

ssize_t fdn_frame_feed(struct fdn_frame_in *in, const uint8_t *p, size_t n)
{
    if (!make_room(in))
        return -ENOMEM;
    size_t take = in->cap - in->end < n ? in->cap - in->end : n;
    memcpy(in->buf + in->end, p, take);
    in->end += take;
    drop_discarded(in);
    return (ssize_t)take;
}

bool fdn_frame_next(struct fdn_frame_in *in, struct fdn_frame *frame)
{
    size_t have = in->end - in->start;
    if (in->discard > 0 || have < in->header)
        return false;
    const uint8_t *p = in->buf + in->start;
    uint32_t len =
        in->header == 2 ? (uint32_t)p[0] << 8 | p[1] : (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
    size_t keep = len <= in->max ? len : in->max < FDN_FRAME_HEAD_BYTES ? in->max : FDN_FRAME_HEAD_BYTES;
    if (have - in->header < keep)
        return false;
    *frame = (struct fdn_frame){p + in->header, keep, len};
    in->start += in->header + keep;
    in->discard = len - keep;
    drop_discarded(in);
    return true;
}

void fdn_frame_out_init(struct fdn_frame_out *out, size_t max)
{
    *out = (struct fdn_frame_out){.max = max ? max : FDN_FRAME_OUT_MAX};
}

void fdn_frame_out_free(struct fdn_frame_out *out)
{
    fdn_free(out->buf);
    out->buf = NULL;
    out->start = out->end = out->cap = 0;
}

int fdn_frame_put(struct fdn_frame_out *out, const void *p, size_t n)
{
    size_t queued = fdn_frame_queued(out);
    if (n > out->max - queued)
        return -ENOBUFS;
    if (out->cap - out->end < n && out->start > 0) {
        memmove(out->buf, out->buf + out->start, queued);
        out->start = 0;
        out->end = queued;
    }
    if (out->cap - out->end < n) {
        size_t cap = out->cap ? out->cap : 4096;
        while (cap - queued < n)
            cap *= 2;
        uint8_t *buf = fdn_realloc(out->buf, cap);
        if (!buf)
            return -ENOMEM;
        out->buf = buf;
        out->cap = cap;
    }
    memcpy(out->buf + out->end, p, n);
    out->end += n;
    return 0;
}

int fdn_frame_flush(struct fdn_frame_out *out, int fd)
{
    while (out->start < out->end) {
        ssize_t put = write(fd, out->buf + out->start, out->end - out->start);
        if (put < 0 && errno == EINTR)
            continue;
        if (put < 0)
            return errno == EAGAIN || errno == EWOULDBLOCK ? 0 : -errno;
        out->start += (size_t)put;
    }
    out->start = out->end = 0;
    return 0;
}
