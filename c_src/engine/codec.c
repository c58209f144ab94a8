#include "engine/codec.h"

#include <stdlib.h>
#include <string.h>

#include "base/fdn_alloc.h"
#include "base/fdn_error.h"

/* Tags of the external term format, as the ERTS user's guide names them. */
enum {
    T_VERSION = 131,
    T_NEW_FLOAT = 70,
    T_BIT_BINARY = 77,
    T_NEW_PID = 88,
    T_NEW_PORT = 89,
    T_NEWER_REFERENCE = 90,
    T_SMALL_INTEGER = 97,
    T_INTEGER = 98,
    T_ATOM = 100,
    T_PORT = 102,
    T_PID = 103,
    T_SMALL_TUPLE = 104,
    T_LARGE_TUPLE = 105,
    T_NIL = 106,
    T_STRING = 107,
    T_LIST = 108,
    T_BINARY = 109,
    T_SMALL_BIG = 110,
    T_LARGE_BIG = 111,
    T_NEW_FUN = 112,
    T_EXPORT = 113,
    T_NEW_REFERENCE = 114,
    T_SMALL_ATOM = 115,
    T_MAP = 116,
    T_ATOM_UTF8 = 118,
    T_SMALL_ATOM_UTF8 = 119,
    T_V4_PORT = 120
};

#define CANONICAL 1 /* first byte of a canonical form; OPAQUE: the bytes as they came */
#define OPAQUE 0

typedef struct {
    const uint8_t *at;
    const uint8_t *end;
    fdn_codec_buf *out;
    bool zeros_equal;
    int rc; /* FDN_ENOMEM, or FDN_EINVAL: not understood */
} walk;

typedef struct {
    size_t start;
    size_t key_len;
    size_t len;
} pair;

void fdn_codec_buf_init(fdn_codec_buf *buf)
{
    buf->data = buf->fixed;
    buf->len = 0;
    buf->cap = sizeof buf->fixed;
}

void fdn_codec_buf_free(fdn_codec_buf *buf)
{
    if (buf->data != buf->fixed)
        fdn_free(buf->data);
    fdn_codec_buf_init(buf);
}

static uint8_t *extend(fdn_codec_buf *buf, size_t n)
{
    if (n > buf->cap - buf->len) {
        size_t cap = buf->cap * 2 > buf->len + n ? buf->cap * 2 : buf->len + n;
        uint8_t *data = fdn_malloc(cap);
        if (data == NULL)
            return NULL;
        memcpy(data, buf->data, buf->len);
        if (buf->data != buf->fixed)
            fdn_free(buf->data);
        buf->data = data;
        buf->cap = cap;
    }
    uint8_t *p = buf->data + buf->len;
    buf->len += n;
    return p;
}

static bool put(walk *w, const void *data, size_t n)
{
    uint8_t *p = extend(w->out, n);
    if (p == NULL) {
        w->rc = FDN_ENOMEM;
        return false;
    }
    memcpy(p, data, n);
    return true;
}

static bool put_tag(walk *w, uint8_t tag, uint32_t n)
{
    uint8_t head[5] = {tag, (uint8_t)(n >> 24), (uint8_t)(n >> 16), (uint8_t)(n >> 8), (uint8_t)n};
    return put(w, head, sizeof head);
}

static bool fail(walk *w)
{
    w->rc = FDN_EINVAL;
    return false;
}

static bool has(walk *w, size_t n)
{
    return (size_t)(w->end - w->at) >= n || fail(w);
}

/* A big-endian unsigned integer of `bytes` bytes. */
static bool get(walk *w, unsigned bytes, uint32_t *n)
{
    if (!has(w, bytes))
        return false;
    uint32_t v = 0;
    while (bytes-- > 0)
        v = v << 8 | *w->at++;
    *n = v;
    return true;
}

static bool copy(walk *w, size_t n)
{
    if (!has(w, n) || !put(w, w->at, n))
        return false;
    w->at += n;
    return true;
}

/* Header and payload as they are: tag, `bytes` bytes of length, then length * unit + extra bytes. */
static bool copy_sized(walk *w, uint8_t tag, unsigned bytes, size_t unit, size_t extra)
{
    uint32_t n;
    return get(w, bytes, &n) && put_tag(w, tag, n) && copy(w, (size_t)n * unit + extra);
}

static bool atom(walk *w, unsigned bytes, bool latin1)
{
    uint32_t n;
    if (!get(w, bytes, &n) || !has(w, n))
        return false;
    if (!latin1) {
        const uint8_t *text = w->at;
        w->at += n;
        return put_tag(w, T_ATOM_UTF8, n) && put(w, text, n);
    }
    uint32_t utf8 = n;
    for (uint32_t i = 0; i < n; i++)
        utf8 += w->at[i] >= 0x80;
    if (!put_tag(w, T_ATOM_UTF8, utf8))
        return false;
    for (uint32_t i = 0; i < n; i++) {
        uint8_t c = *w->at++;
        uint8_t two[2] = {(uint8_t)(0xc0 | c >> 6), (uint8_t)(0x80 | (c & 0x3f))};
        if (c < 0x80 ? !put(w, &c, 1) : !put(w, two, 2))
            return false;
    }
    return true;
}

static bool number(walk *w)
{
    static const uint8_t minus_zero[8] = {0x80};
    static const uint8_t zero[8] = {0};
    if (!has(w, 8) || !put_tag(w, T_NEW_FLOAT, 0))
        return false;
    const uint8_t *bits = w->at;
    w->at += 8;
    return put(w, w->zeros_equal && memcmp(bits, minus_zero, 8) == 0 ? zero : bits, 8);
}

/* The bits behind the last one of a bitstring mean nothing. */
static bool bits(walk *w)
{
    uint32_t n, last;
    if (!get(w, 4, &n) || !get(w, 1, &last) || !has(w, n) || last > 8 || (n == 0 && last != 0))
        return w->rc != 0 ? false : fail(w);
    const uint8_t *data = w->at;
    w->at += n;
    uint8_t used = (uint8_t)last;
    if (!put_tag(w, T_BIT_BINARY, n) || !put(w, &used, 1) || !put(w, data, n))
        return false;
    if (n > 0 && last > 0)
        w->out->data[w->out->len - 1] &= (uint8_t)(0xff << (8 - last));
    return true;
}

static bool term(walk *w, int depth);

static bool terms(walk *w, uint64_t count, int depth)
{
    while (count-- > 0) {
        if (!term(w, depth))
            return false;
    }
    return true;
}

static int compare(const uint8_t *a, size_t a_len, const uint8_t *b, size_t b_len)
{
    int c = memcmp(a, b, a_len < b_len ? a_len : b_len);
    return c != 0 ? c : (a_len > b_len) - (a_len < b_len);
}

/* A merge sort of a map's pairs by their canonical keys: no recursion deeper than the logarithm, no allocation of its own. */
static void sort_pairs(const uint8_t *base, pair *list, pair *spare, size_t n)
{
    for (size_t width = 1; width < n; width *= 2) {
        for (size_t lo = 0; lo < n; lo += 2 * width) {
            size_t mid = lo + width < n ? lo + width : n, hi = lo + 2 * width < n ? lo + 2 * width : n;
            size_t i = lo, j = mid;
            for (size_t k = lo; k < hi; k++) {
                bool left =
                    i < mid && (j >= hi || compare(base + list[i].start, list[i].key_len, base + list[j].start, list[j].key_len) <= 0);
                spare[k] = left ? list[i++] : list[j++];
            }
        }
        memcpy(list, spare, n * sizeof *list);
    }
}

static bool map(walk *w, int depth)
{
    uint32_t n;
    if (!get(w, 4, &n) || !put_tag(w, T_MAP, n))
        return false;
    if (n > (size_t)(w->end - w->at) / 2) /* a pair is at least two bytes */
        return fail(w);
    if (n == 0)
        return true;
    pair *list = fdn_calloc(n, 2 * sizeof *list);
    if (list == NULL) {
        w->rc = FDN_ENOMEM;
        return false;
    }
    size_t first = w->out->len;
    bool ok = true;
    for (uint32_t i = 0; ok && i < n; i++) {
        list[i].start = w->out->len - first;
        ok = term(w, depth);
        list[i].key_len = w->out->len - first - list[i].start;
        ok = ok && term(w, depth);
        list[i].len = w->out->len - first - list[i].start;
    }
    size_t total = w->out->len - first;
    uint8_t *sorted = ok ? fdn_malloc(total) : NULL;
    if (ok && sorted == NULL) {
        w->rc = FDN_ENOMEM;
        ok = false;
    }
    if (ok) {
        sort_pairs(w->out->data + first, list, list + n, n);
        size_t to = 0;
        for (uint32_t i = 0; i < n; i++) {
            memcpy(sorted + to, w->out->data + first + list[i].start, list[i].len);
            to += list[i].len;
        }
        memcpy(w->out->data + first, sorted, total);
    }
    fdn_free(sorted);
    fdn_free(list);
    return ok;
}

/* Size, arity, unique id and index as they are; the creator's pid is read and dropped; then the environment. */
static bool fun(walk *w, int depth)
{
    uint32_t size, free_vars;
    if (!get(w, 4, &size) || !put_tag(w, T_NEW_FUN, 0) || !copy(w, 1 + 16 + 4) || !get(w, 4, &free_vars) ||
        !put_tag(w, T_NEW_FUN, free_vars) || !terms(w, 3, depth))
        return false;
    size_t here = w->out->len;
    if (!term(w, depth))
        return false;
    w->out->len = here;
    return terms(w, free_vars, depth);
}

static bool identifier(walk *w, uint8_t tag, int depth, size_t tail)
{
    return put_tag(w, tag, 0) && term(w, depth) && copy(w, tail);
}

static bool reference(walk *w, uint8_t tag, int depth, size_t creation)
{
    uint32_t words;
    return get(w, 2, &words) && put_tag(w, tag, words) && term(w, depth) && copy(w, creation + (size_t)words * 4);
}

static bool term(walk *w, int depth)
{
    uint32_t tag, n;
    if (depth-- <= 0)
        return fail(w);
    if (!get(w, 1, &tag))
        return false;
    switch (tag) {
    case T_ATOM:
        return atom(w, 2, true);
    case T_SMALL_ATOM:
        return atom(w, 1, true);
    case T_ATOM_UTF8:
        return atom(w, 2, false);
    case T_SMALL_ATOM_UTF8:
        return atom(w, 1, false);
    case T_SMALL_INTEGER:
        return put_tag(w, T_SMALL_INTEGER, 0) && copy(w, 1);
    case T_INTEGER:
        return put_tag(w, T_INTEGER, 0) && copy(w, 4);
    case T_SMALL_BIG:
        return copy_sized(w, T_SMALL_BIG, 1, 1, 1);
    case T_LARGE_BIG:
        return copy_sized(w, T_LARGE_BIG, 4, 1, 1);
    case T_NEW_FLOAT:
        return number(w);
    case T_NIL:
        return put_tag(w, T_NIL, 0);
    case T_STRING:
        return copy_sized(w, T_STRING, 2, 1, 0);
    case T_BINARY:
        return copy_sized(w, T_BINARY, 4, 1, 0);
    case T_BIT_BINARY:
        return bits(w);
    case T_SMALL_TUPLE:
        return get(w, 1, &n) && put_tag(w, T_LARGE_TUPLE, n) && terms(w, n, depth);
    case T_LARGE_TUPLE:
        return get(w, 4, &n) && put_tag(w, T_LARGE_TUPLE, n) && terms(w, n, depth);
    case T_LIST:
        return get(w, 4, &n) && put_tag(w, T_LIST, n) && terms(w, (uint64_t)n + 1, depth);
    case T_MAP:
        return map(w, depth);
    case T_PID:
        return identifier(w, T_PID, depth, 9);
    case T_NEW_PID:
        return identifier(w, T_NEW_PID, depth, 12);
    case T_PORT:
        return identifier(w, T_PORT, depth, 5);
    case T_NEW_PORT:
        return identifier(w, T_NEW_PORT, depth, 8);
    case T_V4_PORT:
        return identifier(w, T_V4_PORT, depth, 12);
    case T_NEW_REFERENCE:
        return reference(w, T_NEW_REFERENCE, depth, 1);
    case T_NEWER_REFERENCE:
        return reference(w, T_NEWER_REFERENCE, depth, 4);
    case T_EXPORT:
        return put_tag(w, T_EXPORT, 0) && terms(w, 3, depth);
    case T_NEW_FUN:
        return fun(w, depth);
    default:
        return fail(w);
    }
}

int fdn_codec_key(const uint8_t *etf, size_t len, bool zeros_equal, fdn_codec_buf *out)
{
    static const uint8_t canonical = CANONICAL, opaque = OPAQUE;
    walk w = {.at = etf, .end = etf + len, .out = out, .zeros_equal = zeros_equal, .rc = 0};
    uint32_t version;
    if (put(&w, &canonical, 1) && get(&w, 1, &version) && (version == T_VERSION || fail(&w)) && term(&w, FDN_CODEC_DEPTH) &&
        w.at == w.end)
        return 0;
    if (w.rc == FDN_ENOMEM)
        return FDN_ENOMEM;
    w.rc = 0;
    out->len = 0;
    return put(&w, &opaque, 1) && put(&w, etf, len) ? 0 : FDN_ENOMEM;
}
