#include "c_node/handshake.h"

#include <stdio.h>
#include <string.h>

#include <md5.h>

_Static_assert(FDN_DFLAGS == 0x407074fbcULL, "the flags that were found to work with OTP 25, 27 and 29");

static uint8_t *put16(uint8_t *p, uint32_t v)
{
    p[0] = (uint8_t)(v >> 8);
    p[1] = (uint8_t)v;
    return p + 2;
}

static uint8_t *put32(uint8_t *p, uint32_t v)
{
    put16(p, v >> 16);
    put16(p + 2, v);
    return p + 4;
}

static uint32_t get16(const uint8_t *p)
{
    return (uint32_t)p[0] << 8 | p[1];
}

static uint32_t get32(const uint8_t *p)
{
    return get16(p) << 16 | get16(p + 2);
}

static void finish(struct fdn_hs_packet *out, const uint8_t *end)
{
    out->n = (size_t)(end - out->bytes);
    put16(out->bytes, (uint32_t)out->n - 2);
}

void fdn_hs_digest(const char *cookie, uint32_t challenge, uint8_t out[FDN_DIGEST_BYTES])
{
    char decimal[16];
    MD5_CTX md5;
    snprintf(decimal, sizeof decimal, "%u", (unsigned)challenge);
    MD5Init(&md5);
    MD5Update(&md5, (const uint8_t *)cookie, strlen(cookie));
    MD5Update(&md5, (const uint8_t *)decimal, strlen(decimal));
    MD5Final(out, &md5);
}

/* Compared in time that does not depend on where they differ. */
static bool same_digest(const uint8_t *a, const uint8_t *b)
{
    uint8_t differ = 0;
    for (int i = 0; i < FDN_DIGEST_BYTES; i++)
        differ |= a[i] ^ b[i];
    return differ == 0;
}

void fdn_hs_start(struct fdn_hs *hs, struct fdn_hs_packet *out)
{
    size_t len = strlen(hs->name);
    hs->state = FDN_HS_STATUS;
    uint8_t *p = out->bytes + 2;
    *p++ = 'N';
    p = put32(p, (uint32_t)(FDN_DFLAGS >> 32));
    p = put32(p, (uint32_t)FDN_DFLAGS);
    p = put32(p, hs->creation);
    p = put16(p, (uint32_t)len);
    memcpy(p, hs->name, len);
    finish(out, p + len);
}

static bool says(const uint8_t *p, size_t n, const char *word)
{
    return n == strlen(word) && memcmp(p, word, n) == 0;
}

static enum fdn_hs_result on_status(struct fdn_hs *hs, const uint8_t *p, size_t n, struct fdn_hs_packet *out)
{
    if (n < 1 || p[0] != 's')
        return FDN_HS_PROTOCOL;
    p++, n--;
    if (says(p, n, "ok") || says(p, n, "ok_simultaneous")) {
        hs->state = FDN_HS_CHALLENGE;
        return FDN_HS_MORE;
    }
    if (says(p, n, "alive")) {
        const char *answer = hs->own_stale ? "strue" : "sfalse";
        memcpy(out->bytes + 2, answer, strlen(answer));
        finish(out, out->bytes + 2 + strlen(answer));
        hs->state = FDN_HS_CHALLENGE;
        return hs->own_stale ? FDN_HS_MORE : FDN_HS_NAME_CLASH;
    }
    if (says(p, n, "nok"))
        return FDN_HS_BUSY;
    if (says(p, n, "not_allowed"))
        return FDN_HS_NOT_ALLOWED;
    return FDN_HS_PROTOCOL;
}

static enum fdn_hs_result on_challenge(struct fdn_hs *hs, const uint8_t *p, size_t n, struct fdn_hs_packet *out)
{
    if (n < 1 || p[0] != 'N')
        return n >= 1 && p[0] == 'n' ? FDN_HS_TOO_OLD : FDN_HS_PROTOCOL;
    if (n < 19 || n - 19 < get16(p + 17))
        return FDN_HS_PROTOCOL;
    hs->peer_flags = (uint64_t)get32(p + 1) << 32 | get32(p + 5);
    uint32_t challenge = get32(p + 9);
    hs->peer_creation = get32(p + 13);
    if (get16(p + 17) != strlen(hs->peer) || memcmp(p + 19, hs->peer, strlen(hs->peer)) != 0)
        return FDN_HS_WRONG_NODE;
    if ((hs->peer_flags & FDN_DFLAGS_NEEDED) != FDN_DFLAGS_NEEDED)
        return FDN_HS_TOO_OLD;
    uint8_t *q = out->bytes + 2;
    *q++ = 'r';
    q = put32(q, hs->challenge);
    fdn_hs_digest(hs->cookie, challenge, q);
    finish(out, q + FDN_DIGEST_BYTES);
    hs->state = FDN_HS_ACK;
    return FDN_HS_MORE;
}

static enum fdn_hs_result on_ack(struct fdn_hs *hs, const uint8_t *p, size_t n)
{
    uint8_t expected[FDN_DIGEST_BYTES];
    if (n != 1 + FDN_DIGEST_BYTES || p[0] != 'a')
        return FDN_HS_PROTOCOL;
    fdn_hs_digest(hs->cookie, hs->challenge, expected);
    if (!same_digest(p + 1, expected))
        return FDN_HS_WRONG_COOKIE;
    hs->state = FDN_HS_CONNECTED;
    return FDN_HS_DONE;
}

enum fdn_hs_result fdn_hs_packet(struct fdn_hs *hs, const uint8_t *p, size_t n, struct fdn_hs_packet *out)
{
    out->n = 0;
    switch (hs->state) {
    case FDN_HS_STATUS:
        return on_status(hs, p, n, out);
    case FDN_HS_CHALLENGE:
        return on_challenge(hs, p, n, out);
    case FDN_HS_ACK:
        return on_ack(hs, p, n);
    default:
        return FDN_HS_PROTOCOL;
    }
}

enum fdn_hs_result fdn_hs_closed(const struct fdn_hs *hs)
{
    return hs->state == FDN_HS_ACK ? FDN_HS_WRONG_COOKIE : FDN_HS_PROTOCOL;
}

const char *fdn_hs_word(enum fdn_hs_result r)
{
    switch (r) {
    case FDN_HS_MORE:
        return "handshake";
    case FDN_HS_DONE:
        return "ok";
    case FDN_HS_PROTOCOL:
        return "handshake_failed";
    case FDN_HS_WRONG_COOKIE:
        return "wrong_cookie";
    case FDN_HS_WRONG_NODE:
        return "wrong_node";
    case FDN_HS_NOT_ALLOWED:
        return "not_allowed";
    case FDN_HS_BUSY:
        return "busy";
    case FDN_HS_NAME_CLASH:
        return "name_clash";
    case FDN_HS_TOO_OLD:
        return "too_old";
    }
    return "unknown";
}
