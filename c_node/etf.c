#include "c_node/etf.h"

#include <stdio.h>
#include <string.h>

enum {
    NEW_FLOAT = 70,
    BIT_BINARY = 77,
    NEW_PID = 88,
    NEW_PORT = 89,
    NEWER_REF = 90,
    SMALL_INT = 97,
    INT = 98,
    FLOAT = 99,
    ATOM_LATIN1 = 100,
    PORT = 102,
    PID = 103,
    SMALL_TUPLE = 104,
    LARGE_TUPLE = 105,
    NIL = 106,
    STRING = 107,
    LIST = 108,
    BINARY = 109,
    SMALL_BIG = 110,
    LARGE_BIG = 111,
    NEW_FUN = 112,
    EXPORT = 113,
    NEW_REF = 114,
    SMALL_ATOM_LATIN1 = 115,
    MAP = 116,
    ATOM_UTF8 = 118,
    SMALL_ATOM_UTF8 = 119,
    V4_PORT = 120,
    VERSION = 131,
};

/* References have at most 5 words. */
#define MAX_REF_WORDS 5
/* Module, old index, old uniq and creator precede the free variables of a fun. */
#define FUN_FIXED_TERMS 4
#define FUN_HEADER_BYTES 29

static uint32_t be16(const uint8_t *p)
{
    return (uint32_t)p[0] << 8 | p[1];
}

static uint32_t be32(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

/* Length of the atom at p with its header, or a negative code. */
static long atom_size(const uint8_t *p, size_t n)
{
    size_t head, len;
    if (n < 1)
        return FDN_ETF_TRUNCATED;
    switch (p[0]) {
    case SMALL_ATOM_LATIN1:
    case SMALL_ATOM_UTF8:
        head = 2;
        break;
    case ATOM_LATIN1:
    case ATOM_UTF8:
        head = 3;
        break;
    default:
        return FDN_ETF_MALFORMED;
    }
    if (n < head)
        return FDN_ETF_TRUNCATED;
    len = head == 2 ? p[1] : be16(p + 1);
    if (len > (p[0] == ATOM_LATIN1 ? 255 : FDN_ATOM_BYTES))
        return FDN_ETF_MALFORMED;
    return n - head < len ? FDN_ETF_TRUNCATED : (long)(head + len);
}

/* A tag, `before` bytes, an atom, `after` bytes: pids, ports, references. */
static long around_atom(const uint8_t *p, size_t n, size_t before, size_t after)
{
    if (n < 1 + before)
        return FDN_ETF_TRUNCATED;
    long atom = atom_size(p + 1 + before, n - 1 - before);
    if (atom < 0)
        return atom;
    size_t total = 1 + before + (size_t)atom + after;
    return total > n ? FDN_ETF_TRUNCATED : (long)total;
}

/*
 * One head: the bytes before the term's children, and in *children how many terms follow. Leaves have none.
 */
static long head_size(const uint8_t *p, size_t n, uint64_t *children)
{
    uint64_t size;
    *children = 0;
    if (n < 1)
        return FDN_ETF_TRUNCATED;
#define NEED(k)                                                                                                                        \
    if (n < (k))                                                                                                                       \
        return FDN_ETF_TRUNCATED;
    switch (p[0]) {
    case NIL:
        return 1;
    case SMALL_INT:
        size = 2;
        break;
    case INT:
        size = 5;
        break;
    case NEW_FLOAT:
        size = 9;
        break;
    case FLOAT:
        size = 32;
        break;
    case ATOM_LATIN1:
    case SMALL_ATOM_LATIN1:
    case ATOM_UTF8:
    case SMALL_ATOM_UTF8:
        return atom_size(p, n);
    case SMALL_TUPLE:
        NEED(2)
        *children = p[1];
        return 2;
    case LARGE_TUPLE:
        NEED(5)
        *children = be32(p + 1);
        return 5;
    case STRING:
        NEED(3)
        size = 3 + (uint64_t)be16(p + 1);
        break;
    case LIST:
        NEED(5)
        *children = (uint64_t)be32(p + 1) + 1;
        return 5;
    case MAP:
        NEED(5)
        *children = (uint64_t)be32(p + 1) * 2;
        return 5;
    case BINARY:
        NEED(5)
        size = 5 + (uint64_t)be32(p + 1);
        break;
    case BIT_BINARY:
        NEED(6)
        if (p[5] < 1 || p[5] > 8)
            return FDN_ETF_MALFORMED;
        size = 6 + (uint64_t)be32(p + 1);
        break;
    case SMALL_BIG:
        NEED(2)
        size = 3 + (uint64_t)p[1];
        break;
    case LARGE_BIG:
        NEED(5)
        size = 6 + (uint64_t)be32(p + 1);
        break;
    case PID:
        return around_atom(p, n, 0, 9);
    case NEW_PID:
        return around_atom(p, n, 0, 12);
    case PORT:
        return around_atom(p, n, 0, 5);
    case NEW_PORT:
        return around_atom(p, n, 0, 8);
    case V4_PORT:
        return around_atom(p, n, 0, 12);
    case NEW_REF:
    case NEWER_REF:
        NEED(3)
        if (be16(p + 1) < 1 || be16(p + 1) > MAX_REF_WORDS)
            return FDN_ETF_MALFORMED;
        return around_atom(p, n, 2, (p[0] == NEW_REF ? 1 : 4) + 4 * (size_t)be16(p + 1));
    case NEW_FUN:
        NEED(1 + FUN_HEADER_BYTES)
        *children = FUN_FIXED_TERMS + (uint64_t)be32(p + 26);
        return 1 + FUN_HEADER_BYTES;
    case EXPORT:
        *children = 3;
        return 1;
    default: /* atom cache references, compressed and local terms: never sent under our flags */
        return FDN_ETF_MALFORMED;
    }
#undef NEED
    return size > n ? FDN_ETF_TRUNCATED : (long)size;
}

long fdn_etf_skip(const uint8_t *p, size_t n)
{
    size_t at = 0;
    uint64_t owed = 1, children;
    while (owed > 0) {
        if (owed > n - at)
            return FDN_ETF_TRUNCATED;
        long head = head_size(p + at, n - at, &children);
        if (head < 0)
            return head;
        at += (size_t)head;
        owed += children - 1;
    }
    return (long)at;
}

bool fdn_etf_versioned(const uint8_t *p, size_t n, struct fdn_etf *out)
{
    if (n < 2 || p[0] != VERSION || fdn_etf_skip(p + 1, n - 1) != (long)(n - 1))
        return false;
    *out = (struct fdn_etf){p + 1, n - 1};
    return true;
}

long fdn_etf_arity(struct fdn_etf t)
{
    if (t.n >= 2 && t.p[0] == SMALL_TUPLE)
        return t.p[1];
    if (t.n >= 5 && t.p[0] == LARGE_TUPLE)
        return (long)be32(t.p + 1);
    return -1;
}

/* Cut the first term off `rest`. */
static bool cut(struct fdn_etf *rest, struct fdn_etf *out)
{
    long size = fdn_etf_skip(rest->p, rest->n);
    if (size < 0)
        return false;
    *out = (struct fdn_etf){rest->p, (size_t)size};
    rest->p += size;
    rest->n -= (size_t)size;
    return true;
}

bool fdn_etf_tuple(struct fdn_etf t, unsigned arity, struct fdn_etf *elements)
{
    if (fdn_etf_arity(t) != (long)arity)
        return false;
    size_t head = t.p[0] == SMALL_TUPLE ? 2 : 5;
    struct fdn_etf rest = {t.p + head, t.n - head};
    for (unsigned i = 0; i < arity; i++)
        if (!cut(&rest, &elements[i]))
            return false;
    return true;
}

static struct fdn_etf_iter walk(struct fdn_etf t, uint8_t tag, unsigned per_element)
{
    struct fdn_etf_iter it = {.ok = false};
    if (t.n >= 5 && t.p[0] == tag && be32(t.p + 1) <= t.n) {
        it.rest = (struct fdn_etf){t.p + 5, t.n - 5};
        it.left = be32(t.p + 1) * per_element;
        it.ok = true;
    } else if (tag == LIST && t.n >= 1 && t.p[0] == NIL) {
        it.ok = true;
    }
    return it;
}

struct fdn_etf_iter fdn_etf_list(struct fdn_etf t)
{
    return walk(t, LIST, 1);
}

struct fdn_etf_iter fdn_etf_map(struct fdn_etf t)
{
    return walk(t, MAP, 2);
}

bool fdn_etf_next(struct fdn_etf_iter *it, struct fdn_etf *out)
{
    if (it->left == 0 || !cut(&it->rest, out))
        return false;
    it->left--;
    return true;
}

bool fdn_etf_map_get(struct fdn_etf map, const char *key, struct fdn_etf *value)
{
    struct fdn_etf k;
    for (struct fdn_etf_iter it = fdn_etf_map(map); fdn_etf_next(&it, &k) && fdn_etf_next(&it, value);)
        if (fdn_etf_is_atom(k, key))
            return true;
    return false;
}

bool fdn_etf_atom(struct fdn_etf t, char out[FDN_ATOM_BYTES + 1])
{
    int index = 0;
    long size = atom_size(t.p, t.n);
    if (size < 0)
        return false;
    size_t head = t.p[0] == ATOM_LATIN1 || t.p[0] == ATOM_UTF8 ? 3 : 2;
    if (memchr(t.p + head, 0, (size_t)size - head))
        return false; /* a zero byte inside would end the C string early: no name of ours has one */
    /* ei writes at most this many bytes and converts Latin-1 atoms. */
    return ei_decode_atom_as((const char *)t.p, &index, out, FDN_ATOM_BYTES + 1, ERLANG_UTF8, NULL, NULL) == 0;
}

bool fdn_etf_is_atom(struct fdn_etf t, const char *name)
{
    char text[FDN_ATOM_BYTES + 1];
    return fdn_etf_atom(t, text) && strcmp(text, name) == 0;
}

bool fdn_etf_int(struct fdn_etf t, int64_t *out)
{
    int index = 0;
    long long value;
    if (t.n < 2 || (t.p[0] != SMALL_INT && t.p[0] != INT && t.p[0] != SMALL_BIG))
        return false;
    if (t.p[0] == SMALL_BIG && t.p[1] > 8)
        return false;
    if (ei_decode_longlong((const char *)t.p, &index, &value) != 0)
        return false;
    *out = value;
    return true;
}

bool fdn_etf_bool(struct fdn_etf t, bool *out)
{
    *out = fdn_etf_is_atom(t, "true");
    return *out || fdn_etf_is_atom(t, "false");
}

bool fdn_etf_binary(struct fdn_etf t, const uint8_t **bytes, size_t *len)
{
    if (t.n < 5 || t.p[0] != BINARY || be32(t.p + 1) != t.n - 5)
        return false;
    *bytes = t.p + 5;
    *len = t.n - 5;
    return true;
}

bool fdn_etf_is_pid(struct fdn_etf t)
{
    return t.n > 0 && (t.p[0] == NEW_PID || t.p[0] == PID);
}

bool fdn_etf_is_ref(struct fdn_etf t)
{
    return t.n > 0 && (t.p[0] == NEWER_REF || t.p[0] == NEW_REF);
}

bool fdn_etf_node(struct fdn_etf t, char out[FDN_ATOM_BYTES + 1])
{
    size_t before = fdn_etf_is_pid(t) ? 1 : fdn_etf_is_ref(t) ? 3 : 0;
    return before > 0 && t.n > before && fdn_etf_atom((struct fdn_etf){t.p + before, t.n - before}, out);
}

bool fdn_etf_equal(struct fdn_etf a, struct fdn_etf b)
{
    return a.n == b.n && memcmp(a.p, b.p, a.n) == 0;
}

/* ---- printing ---- */

struct text {
    char *at;
    size_t left; /* room, the terminator not counted */
};

static void add(struct text *o, const char *s)
{
    for (; *s && o->left; s++, o->left--) {
        /* A log line stays one line of plain text, wherever it is cut and whatever a stranger puts into an atom. */
        *o->at++ = (unsigned char)*s < 0x20 || (unsigned char)*s >= 0x7f ? '?' : *s;
    }
}

static void print_head(struct fdn_etf t, struct text *o, long *children, const char **close)
{
    char buf[FDN_ATOM_BYTES + 1];
    int64_t number;
    *children = 0;
    *close = "";
    if (fdn_etf_atom(t, buf)) {
        add(o, buf);
    } else if (fdn_etf_int(t, &number)) {
        snprintf(buf, sizeof buf, "%lld", (long long)number);
        add(o, buf);
    } else if ((*children = fdn_etf_arity(t)) >= 0) {
        add(o, "{");
        *close = "}";
    } else {
        *children = 0;
        switch (t.p[0]) {
        case NIL:
            add(o, "[]");
            break;
        case LIST:
            *children = (long)be32(t.p + 1);
            add(o, "[");
            *close = "]";
            break;
        case STRING:
            add(o, "\"");
            snprintf(buf, sizeof buf, "%.*s", (int)(be16(t.p + 1) > 200 ? 200 : be16(t.p + 1)), (const char *)t.p + 3);
            add(o, buf);
            add(o, "\"");
            break;
        case BINARY:
            add(o, "<<\"");
            snprintf(buf, sizeof buf, "%.*s", (int)(be32(t.p + 1) > 200 ? 200 : be32(t.p + 1)), (const char *)t.p + 5);
            add(o, buf);
            add(o, "\">>");
            break;
        case MAP:
            add(o, "#{...}");
            break;
        case NEW_PID:
        case PID:
            add(o, "<pid>");
            break;
        case NEWER_REF:
        case NEW_REF:
            add(o, "<ref>");
            break;
        default:
            add(o, "...");
        }
    }
}

#define PRINT_DEPTH 6

void fdn_etf_print(struct fdn_etf t, char *out, size_t size)
{
    struct {
        struct fdn_etf rest;
        long left;
        const char *close;
    } stack[PRINT_DEPTH];
    struct text o = {out, size - 1};
    struct fdn_etf item = t;
    int depth = 0;
    for (bool have = true; o.left;) {
        if (have) {
            long children;
            const char *close;
            print_head(item, &o, &children, &close);
            if (*close && depth < PRINT_DEPTH) {
                size_t head = item.p[0] == SMALL_TUPLE ? 2 : 5;
                stack[depth].rest = (struct fdn_etf){item.p + head, item.n - head};
                stack[depth].left = children;
                stack[depth++].close = close;
            } else if (*close) {
                add(&o, "...");
                add(&o, close);
            }
        }
        if (depth == 0)
            break;
        if (stack[depth - 1].left-- > 0 && cut(&stack[depth - 1].rest, &item)) {
            have = true;
            if (o.at > out && !strchr("{[", o.at[-1]))
                add(&o, ",");
        } else {
            add(&o, stack[--depth].close);
            have = false;
        }
    }
    *o.at = 0;
}

/* ---- encoding ---- */

bool fdn_etf_put(ei_x_buff *x, struct fdn_etf t)
{
    return ei_x_append_buf(x, (const char *)t.p, (int)t.n) == 0;
}

bool fdn_etf_put_atom(ei_x_buff *x, const char *utf8)
{
    return ei_x_encode_atom_len_as(x, utf8, (int)strlen(utf8), ERLANG_UTF8, ERLANG_UTF8) == 0;
}

bool fdn_etf_put_text(ei_x_buff *x, const char *utf8)
{
    return ei_x_encode_binary(x, utf8, (int)strlen(utf8)) == 0;
}
