/* Cutting a stream into packets, however it arrives, and bounded memory on both sides. */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/fdn_alloc.h"
#include "c_node/frame.h"
#include "test/c/support.h"

static size_t put_packet(uint8_t *at, const char *text)
{
    size_t n = strlen(text);
    memcpy(at, (const uint8_t[]){0, 0, (uint8_t)(n >> 8), (uint8_t)n}, 4);
    memcpy(at + 4, text, n);
    return n + 4;
}

/* The same stream in pieces of every size gives the same packets. */
START_TEST(any_fragmentation)
{
    uint8_t stream[256];
    static const char *const texts[] = {"hello", "", "a", "", "", "the last one of them"};
    size_t n = 0;
    for (size_t i = 0; i < 6; i++)
        n += put_packet(stream + n, texts[i]);
    for (size_t piece = 1; piece <= n; piece++) {
        struct fdn_frame_in in;
        struct fdn_frame f;
        size_t seen = 0;
        fdn_frame_in_init(&in, 4, 0);
        for (size_t at = 0; at < n; at += piece) {
            size_t len = at + piece < n ? piece : n - at;
            ck_assert_int_eq(fdn_frame_feed(&in, stream + at, len), (ssize_t)len);
            while (fdn_frame_next(&in, &f)) {
                ck_assert_uint_eq(f.n, strlen(texts[seen]));
                ck_assert_uint_eq(f.whole, f.n);
                ck_assert_mem_eq(f.p, texts[seen], f.n);
                seen++;
            }
        }
        ck_assert_uint_eq(seen, 6);
        fdn_frame_in_free(&in);
    }
}
END_TEST

/* The head of an oversized packet is kept, the rest is dropped, and the next packet is whole; memory stays bounded. */
START_TEST(oversized_packets)
{
    const uint32_t size = 40u << 20;
    struct fdn_frame_in in;
    struct fdn_frame f;
    uint8_t *chunk = malloc(1 << 16), after[64];
    int heads = 0;
    fdn_frame_in_init(&in, 4, 0);
    memset(chunk, 'x', 1 << 16);
    const uint8_t header[4] = {(uint8_t)(size >> 24), (uint8_t)(size >> 16), (uint8_t)(size >> 8), (uint8_t)size};
    ck_assert_int_eq(fdn_frame_feed(&in, header, 4), 4);
    for (size_t left = size; left > 0;) {
        ssize_t took = fdn_frame_feed(&in, chunk, left < (1 << 16) ? left : 1 << 16);
        ck_assert_int_gt(took, 0);
        left -= (size_t)took;
        while (fdn_frame_next(&in, &f)) {
            heads++;
            ck_assert_uint_eq(f.n, FDN_FRAME_HEAD_BYTES);
            ck_assert_uint_eq(f.whole, size);
        }
        ck_assert_uint_le(in.cap, FDN_FRAME_MAX + (1 << 17));
    }
    ck_assert_int_eq(heads, 1);
    size_t n = put_packet(after, "next");
    ck_assert_int_eq(fdn_frame_feed(&in, after, n), (ssize_t)n);
    ck_assert(fdn_frame_next(&in, &f));
    ck_assert_mem_eq(f.p, "next", 4);
    free(chunk);
    fdn_frame_in_free(&in);
}
END_TEST

/* A length is believed only as far as bytes arrive. */
START_TEST(lying_length_allocates_nothing)
{
    struct fdn_frame_in in;
    struct fdn_frame f;
    fdn_frame_in_init(&in, 4, 0);
    ck_assert_int_eq(fdn_frame_feed(&in,
                                    (const uint8_t *)"\x00\x0f\xff\xff"
                                                     "abc",
                                    7),
                     7);
    ck_assert(!fdn_frame_next(&in, &f));
    ck_assert_uint_le(in.cap, 1 << 16);
    fdn_frame_in_free(&in);
}
END_TEST

START_TEST(two_byte_header_then_four)
{
    struct fdn_frame_in in;
    struct fdn_frame f;
    fdn_frame_in_init(&in, 2, 1024);
    const uint8_t stream[] = {0, 1, 'a', 0, 0, 0, 2, 'b', 'c'};
    fdn_frame_feed(&in, stream, sizeof stream);
    ck_assert(fdn_frame_next(&in, &f) && f.n == 1);
    in.header = 4;
    ck_assert(fdn_frame_next(&in, &f) && f.n == 2 && memcmp(f.p, "bc", 2) == 0);
    ck_assert(!fdn_frame_next(&in, &f));
    fdn_frame_in_free(&in);
}
END_TEST

START_TEST(reading_a_socket)
{
    int s[2];
    struct fdn_frame_in in;
    struct fdn_frame f;
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, s), 0);
    fcntl(s[0], F_SETFL, O_NONBLOCK);
    fdn_frame_in_init(&in, 4, 0);
    ck_assert_int_eq(fdn_frame_fill(&in, s[0]), -EAGAIN);
    ck_assert_int_eq(write(s[1], "\0\0\0\1x", 5), 5);
    ck_assert_int_eq(fdn_frame_fill(&in, s[0]), 5);
    ck_assert(fdn_frame_next(&in, &f) && f.p[0] == 'x');
    close(s[1]);
    ck_assert_int_eq(fdn_frame_fill(&in, s[0]), 0);
    close(s[0]);
    fdn_frame_in_free(&in);
}
END_TEST

/* A peer that does not read fills the queue to its bound, and not further; what was accepted arrives in order. */
START_TEST(bounded_queue)
{
    int s[2];
    struct fdn_frame_out out;
    uint32_t next = 0, got;
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, s), 0);
    fcntl(s[0], F_SETFL, O_NONBLOCK);
    fdn_frame_out_init(&out, 100000);
    while (fdn_frame_put(&out, &next, sizeof next) == 0) {
        next++;
        ck_assert_int_eq(fdn_frame_flush(&out, s[0]), 0);
        ck_assert_uint_le(fdn_frame_queued(&out), 100000);
    }
    ck_assert_int_eq(fdn_frame_put(&out, &next, sizeof next), -ENOBUFS);
    ck_assert_uint_eq(fdn_frame_queued(&out), 100000);
    for (uint32_t i = 0; i < next; i++) {
        ck_assert_int_eq(read(s[1], &got, sizeof got), sizeof got);
        ck_assert_uint_eq(got, i);
        ck_assert_int_eq(fdn_frame_flush(&out, s[0]), 0);
    }
    close(s[1]);
    ck_assert_int_eq(fdn_frame_put(&out, &next, sizeof next), 0);
    ck_assert_int_eq(fdn_frame_flush(&out, s[0]), -EPIPE);
    close(s[0]);
    fdn_frame_out_free(&out);
}
END_TEST

START_TEST(no_memory)
{
    struct fdn_frame_in in;
    struct fdn_frame_out out;
    fdn_frame_in_init(&in, 4, 0);
    fdn_frame_out_init(&out, 0);
    fdn_alloc_budget = 0;
    ck_assert_int_eq(fdn_frame_feed(&in, (const uint8_t *)"a", 1), -ENOMEM);
    fdn_alloc_budget = 0;
    ck_assert_int_eq(fdn_frame_put(&out, "a", 1), -ENOMEM);
    fdn_alloc_budget = -1;
    ck_assert_int_eq(fdn_frame_feed(&in, (const uint8_t *)"a", 1), 1);
    ck_assert_int_eq(fdn_frame_put(&out, "a", 1), 0);
    fdn_frame_in_free(&in);
    fdn_frame_out_free(&out);
}
END_TEST

int main(void)
{
    signal(SIGPIPE, SIG_IGN);
    Suite *s = suite_create("frame");
    TCase *t = tcase_create("frame");
    tcase_add_test(t, any_fragmentation);
    tcase_add_test(t, oversized_packets);
    tcase_add_test(t, lying_length_allocates_nothing);
    tcase_add_test(t, two_byte_header_then_four);
    tcase_add_test(t, reading_a_socket);
    tcase_add_test(t, bounded_queue);
    tcase_add_test(t, no_memory);
    suite_add_tcase(s, t);
    return support_run(s);
}
