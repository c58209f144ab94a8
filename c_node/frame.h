/*
 * frame.h - byte streams cut into packets, both ways, with bounded memory.
 *
 * Reading: a packet is a big-endian length of 2 bytes (handshake) or 4 bytes (after it, and on the pipe to the VM), then that many
 * bytes.
 *
 *     buf  [ consumed | packet packet half-a-pack.. | free ]
 *                     start                          end   cap
 *
 * The buffer grows only as bytes really arrive, so a lying length costs nothing. A packet longer than `max` is reported once by its
 * first FDN_FRAME_HEAD_BYTES (a DOWN is recognizable by its head, and its reason may be as long as a node likes) and the rest is thrown
 * away as it arrives.
 *
 * Writing: a queue with an upper bound; a peer that does not read makes it full, and the owner closes the connection.
 */
#ifndef FDN_FRAME_H
#define FDN_FRAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define FDN_FRAME_MAX (1u << 20)         /* longest packet that is kept whole */
#define FDN_FRAME_HEAD_BYTES (64u << 10) /* what is kept of a longer one */
#define FDN_FRAME_OUT_MAX (4u << 20)     /* bytes queued to one peer */

struct fdn_frame_in {
    uint8_t *buf;
    size_t start, end, cap;
    uint64_t discard; /* bytes of an oversized packet still to come */
    uint32_t max;
    unsigned header; /* 2 or 4 */
};

struct fdn_frame {
    const uint8_t *p; /* valid until the next fdn_frame_fill */
    size_t n;         /* 0: a tick */
    uint64_t whole;   /* length on the wire; above n for an oversized packet */
};

/* max 0 means FDN_FRAME_MAX. Allocates nothing yet. */
void fdn_frame_in_init(struct fdn_frame_in *in, unsigned header, uint32_t max);
void fdn_frame_in_free(struct fdn_frame_in *in);

/* One read from fd. Returns the bytes read, 0 at the end of the stream, or -errno (-EAGAIN: nothing there; -ENOMEM). */
ssize_t fdn_frame_fill(struct fdn_frame_in *in, int fd);

/* The same from memory, for tests and fuzzing. Returns bytes taken (maybe fewer than n), or -ENOMEM. */
ssize_t fdn_frame_feed(struct fdn_frame_in *in, const uint8_t *p, size_t n);

/* The next complete packet; false where more bytes are needed. */
bool fdn_frame_next(struct fdn_frame_in *in, struct fdn_frame *frame);

struct fdn_frame_out {
    uint8_t *buf;
    size_t start, end, cap, max;
};

void fdn_frame_out_init(struct fdn_frame_out *out, size_t max);
void fdn_frame_out_free(struct fdn_frame_out *out);
static inline size_t fdn_frame_queued(const struct fdn_frame_out *out)
{
    return out->end - out->start;
}
/* All of it or nothing: 0, -ENOBUFS where the queue would exceed its bound, -ENOMEM. */
int fdn_frame_put(struct fdn_frame_out *out, const void *p, size_t n);
/* Write as much as fd takes. 0 (fdn_frame_queued tells what is left) or -errno. */
int fdn_frame_flush(struct fdn_frame_out *out, int fd);

#endif
