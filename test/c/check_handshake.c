/* The handshake as a state machine, both outcomes of each step, against a node played by hand; and the look-up at epmd before it. */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "c_node/epmd.h"
#include "c_node/handshake.h"
#include "test/c/support.h"

#define PEER "peer@host"
#define COOKIE "MONSTER"

static struct fdn_hs fresh(struct fdn_hs_packet *out)
{
    struct fdn_hs hs = {.name = "us@host", .peer = PEER, .cookie = COOKIE, .creation = 7, .challenge = 12345};
    fdn_hs_start(&hs, out);
    return hs;
}

static enum fdn_hs_result say(struct fdn_hs *hs, const char *text, struct fdn_hs_packet *out)
{
    return fdn_hs_packet(hs, (const uint8_t *)text, strlen(text), out);
}

/* The challenge of a node: flags, challenge, creation, name. */
static size_t challenge(uint8_t *p, uint64_t flags, uint32_t value, const char *name)
{
    uint8_t *q = p;
    *q++ = 'N';
    for (int i = 56; i >= 0; i -= 8)
        *q++ = (uint8_t)(flags >> i);
    for (int i = 24; i >= 0; i -= 8)
        *q++ = (uint8_t)(value >> i);
    memcpy(q, "\0\0\0\5", 4);
    q += 4;
    *q++ = 0;
    *q++ = (uint8_t)strlen(name);
    memcpy(q, name, strlen(name));
    return (size_t)(q - p) + strlen(name);
}

/* The bit without which no DOWN ever arrives, and those that would change what a node sends us. */
START_TEST(flags_are_pinned)
{
    ck_assert_uint_eq(FDN_DFLAGS, 0x407074fbcULL);
    ck_assert(FDN_DFLAGS & 0x8);
    ck_assert(FDN_DFLAGS & 0x20);
    ck_assert(!(FDN_DFLAGS & FDN_DFLAG_PUBLISHED));
    ck_assert(!(FDN_DFLAGS & 0x2000));   /* DIST_HDR_ATOM_CACHE */
    ck_assert(!(FDN_DFLAGS & 0x800000)); /* FRAGMENTS */
}
END_TEST

/* MD5 of cookie and challenge as erlang:md5(["MONSTER", "4294967295"]) gives it. */
START_TEST(digest_is_erlangs)
{
    static const uint8_t expected[16] = {0xf2, 0xa8, 0x79, 0x90, 0x09, 0x9c, 0x30, 0x7f,
                                         0xc0, 0x99, 0xef, 0x8d, 0x61, 0x2b, 0x9a, 0xe4};
    uint8_t got[16];
    fdn_hs_digest("MONSTER", 4294967295u, got);
    ck_assert_mem_eq(got, expected, 16);
}
END_TEST

START_TEST(first_packet)
{
    struct fdn_hs_packet out;
    fresh(&out);
    static const uint8_t expected[] = {0, 22, 'N', 0, 0, 0,   4,   0x07, 0x07, 0x4f, 0xbc, 0,
                                       0, 0,  7,   0, 7, 'u', 's', '@',  'h',  'o',  's',  't'};
    ck_assert_uint_eq(out.n, sizeof expected);
    ck_assert_mem_eq(out.bytes, expected, sizeof expected);
}
END_TEST

START_TEST(connects)
{
    struct fdn_hs_packet out;
    uint8_t p[256], digest[16];
    struct fdn_hs hs = fresh(&out);
    ck_assert_int_eq(say(&hs, "sok", &out), FDN_HS_MORE);
    ck_assert_uint_eq(out.n, 0);
    ck_assert_int_eq(fdn_hs_packet(&hs, p, challenge(p, FDN_DFLAGS, 99, PEER), &out), FDN_HS_MORE);
    ck_assert_uint_eq(out.n, 23);
    ck_assert_mem_eq(out.bytes, "\0\25r\0\0\x30\x39", 7);
    fdn_hs_digest(COOKIE, 99, digest);
    ck_assert_mem_eq(out.bytes + 7, digest, 16);
    ck_assert_uint_eq(hs.peer_creation, 5);
    p[0] = 'a';
    fdn_hs_digest(COOKIE, 12345, p + 1);
    ck_assert_int_eq(fdn_hs_packet(&hs, p, 17, &out), FDN_HS_DONE);
    ck_assert_uint_eq(out.n, 0);
}
END_TEST

START_TEST(statuses)
{
    static const struct {
        const char *text;
        enum fdn_hs_result result;
    } cases[] = {
        {"sok", FDN_HS_MORE},          {"sok_simultaneous", FDN_HS_MORE},
        {"snok", FDN_HS_BUSY},         {"snot_allowed", FDN_HS_NOT_ALLOWED},
        {"salive", FDN_HS_NAME_CLASH}, {"snamed:x@y", FDN_HS_PROTOCOL},
        {"s", FDN_HS_PROTOCOL},        {"sokay", FDN_HS_PROTOCOL},
        {"x", FDN_HS_PROTOCOL},        {"", FDN_HS_PROTOCOL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct fdn_hs_packet out;
        struct fdn_hs hs = fresh(&out);
        ck_assert_int_eq(say(&hs, cases[i].text, &out), cases[i].result);
    }
}
END_TEST

/* `true` only for a connection that was ours. */
START_TEST(alive)
{
    struct fdn_hs_packet out;
    struct fdn_hs hs = fresh(&out);
    ck_assert_int_eq(say(&hs, "salive", &out), FDN_HS_NAME_CLASH);
    ck_assert_uint_eq(out.n, 8);
    ck_assert_mem_eq(out.bytes, "\0\6sfalse", 8);
    hs = fresh(&out);
    hs.own_stale = true;
    ck_assert_int_eq(say(&hs, "salive", &out), FDN_HS_MORE);
    ck_assert_uint_eq(out.n, 7);
    ck_assert_mem_eq(out.bytes, "\0\5strue", 7);
}
END_TEST

START_TEST(challenges)
{
    static const struct {
        uint64_t flags;
        const char *name;
        long cut;
        enum fdn_hs_result result;
    } cases[] = {
        {FDN_DFLAGS, PEER, 0, FDN_HS_MORE},
        {FDN_DFLAGS | ~0ULL, PEER, 0, FDN_HS_MORE},
        {FDN_DFLAGS, "other@host", 0, FDN_HS_WRONG_NODE},
        {FDN_DFLAGS, "peer@hosts", 0, FDN_HS_WRONG_NODE},
        {FDN_DFLAGS & ~FDN_DFLAG_DIST_MONITOR, PEER, 0, FDN_HS_TOO_OLD},
        {FDN_DFLAGS & ~FDN_DFLAG_V4_NC, PEER, 0, FDN_HS_TOO_OLD},
        {FDN_DFLAGS, PEER, 1, FDN_HS_PROTOCOL},
        {FDN_DFLAGS, PEER, 15, FDN_HS_PROTOCOL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        uint8_t p[256];
        struct fdn_hs_packet out;
        struct fdn_hs hs = fresh(&out);
        say(&hs, "sok", &out);
        size_t n = challenge(p, cases[i].flags, 1, cases[i].name) - (size_t)cases[i].cut;
        uint8_t *exact = malloc(n);
        memcpy(exact, p, n);
        ck_assert_int_eq(fdn_hs_packet(&hs, exact, n, &out), cases[i].result);
        free(exact);
    }
    struct fdn_hs_packet out;
    struct fdn_hs hs = fresh(&out);
    say(&hs, "sok", &out);
    ck_assert_int_eq(say(&hs, "n\0\5", &out), FDN_HS_TOO_OLD); /* version 5 */
}
END_TEST

START_TEST(cookies)
{
    uint8_t p[256];
    struct fdn_hs_packet out;
    struct fdn_hs hs = fresh(&out);
    ck_assert_int_eq(fdn_hs_closed(&hs), FDN_HS_PROTOCOL);
    say(&hs, "sok", &out);
    fdn_hs_packet(&hs, p, challenge(p, FDN_DFLAGS, 99, PEER), &out);
    /* a node that does not like our digest just closes */
    ck_assert_int_eq(fdn_hs_closed(&hs), FDN_HS_WRONG_COOKIE);
    /* a node with another cookie that lets us in all the same is no node of ours */
    p[0] = 'a';
    fdn_hs_digest("ANOTHER", 12345, p + 1);
    ck_assert_int_eq(fdn_hs_packet(&hs, p, 17, &out), FDN_HS_WRONG_COOKIE);
    ck_assert_int_eq(fdn_hs_packet(&hs, p, 16, &out), FDN_HS_PROTOCOL);
}
END_TEST

START_TEST(epmd_answers)
{
    static const struct {
        const char *bytes;
        size_t n;
        enum fdn_epmd_result result;
    } cases[] = {
        {"", 0, FDN_EPMD_MORE},
        {"w", 1, FDN_EPMD_MORE},
        {"w\1", 2, FDN_EPMD_UNKNOWN},
        {"w\0\x1f\x90M\0\0\6\0", 9, FDN_EPMD_MORE},
        {"w\0\x1f\x90M\0\0\6\0\5\0\1a\0\0", 15, FDN_EPMD_FOUND},
        {"w\0\x1f\x90M\0\0\5\0\5\0\1a\0\0", 15, FDN_EPMD_TOO_OLD},
        {"w\0\0\0M\0\0\6\0\5\0\1a\0\0", 15, FDN_EPMD_MALFORMED},
        {"HTTP/1.1 400", 12, FDN_EPMD_MALFORMED},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        uint16_t port = 0;
        uint8_t *exact = malloc(cases[i].n + 1);
        memcpy(exact, cases[i].bytes, cases[i].n);
        ck_assert_int_eq(fdn_epmd_reply(exact, cases[i].n, &port), cases[i].result);
        if (cases[i].result == FDN_EPMD_FOUND)
            ck_assert_uint_eq(port, 8080);
        free(exact);
    }
    uint8_t request[16];
    ck_assert_uint_eq(fdn_epmd_request("abc", request, sizeof request), 6);
    ck_assert_mem_eq(request, "\0\4zabc", 6);
    ck_assert_uint_eq(fdn_epmd_request("", request, sizeof request), 0);
    ck_assert_uint_eq(fdn_epmd_request("a name that is too long", request, sizeof request), 0);
}
END_TEST

START_TEST(epmd_port_as_erlang_finds_it)
{
    unsetenv("ERL_EPMD_PORT");
    ck_assert_uint_eq(fdn_epmd_port(), 4369);
    setenv("ERL_EPMD_PORT", "5000", 1);
    ck_assert_uint_eq(fdn_epmd_port(), 5000);
    static const char *const wrong[] = {"", "x", "0", "-1", "65536", "50x"};
    for (size_t i = 0; i < 6; i++) {
        setenv("ERL_EPMD_PORT", wrong[i], 1);
        ck_assert_uint_eq(fdn_epmd_port(), 4369);
    }
}
END_TEST

int main(void)
{
    Suite *s = suite_create("handshake");
    TCase *t = tcase_create("handshake");
    tcase_add_test(t, flags_are_pinned);
    tcase_add_test(t, digest_is_erlangs);
    tcase_add_test(t, first_packet);
    tcase_add_test(t, connects);
    tcase_add_test(t, statuses);
    tcase_add_test(t, alive);
    tcase_add_test(t, challenges);
    tcase_add_test(t, cookies);
    tcase_add_test(t, epmd_answers);
    tcase_add_test(t, epmd_port_as_erlang_finds_it);
    suite_add_tcase(s, t);
    return support_run(s);
}
