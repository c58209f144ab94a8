/*
 * codec.h - what the store knows about encoded terms.
 *
 * Keys. Two keys are one key where the VM says `=:='. Their external terms need not be the same bytes: the order of a map's pairs
 * differs between VMs (and between runs, since OTP 26), atoms are Latin-1 in one release and UTF-8 in another, a fun carries the pid
 * of its creator. The canonical form takes those differences out. It is only hashed and compared, never decoded and never stored.
 */
#ifndef FDN_ENGINE_CODEC_H
#define FDN_ENGINE_CODEC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* How a record's value bytes are to be read (one byte of the record). */
enum {
    FDN_VALUE_NONE = 0, /* no value: deletes and markers */
    FDN_VALUE_ETF = 1   /* external term format; 2 and above are left to denser codecs */
};

/* A growing buffer that starts on the caller's stack. */
typedef struct fdn_codec_buf {
    uint8_t *data;
    size_t len;
    size_t cap;
    uint8_t fixed[256];
} fdn_codec_buf;

void fdn_codec_buf_init(fdn_codec_buf *buf);
void fdn_codec_buf_free(fdn_codec_buf *buf);

/*
 * The canonical form of the key whose external term is etf[0..len). `zeros_equal`: this VM holds 0.0 =:= -0.0 (before OTP 27).
 * Bytes that are not an external term this code knows, or that nest deeper than FDN_CODEC_DEPTH, are their own canonical form, marked
 * so that they never equal another. Returns 0 or FDN_ENOMEM. Bounded by O(len log len); never reads outside etf.
 */
#define FDN_CODEC_DEPTH 200
int fdn_codec_key(const uint8_t *etf, size_t len, bool zeros_equal, fdn_codec_buf *out);

#endif
