/* Control messages: what a frame means, what an exit reason means, and the bytes of what we send. */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "c_node/control.h"
#include "test/c/support.h"

static const uint8_t our_pid_bytes[] = {88, 119, 3, 'u', '@', 'h', 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 9};
static const uint8_t their_pid_bytes[] = {88, 119, 3, 'p', '@', 'h', 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 8};
static const uint8_t ref_bytes[] = {90, 0, 3, 119, 3, 'u', '@', 'h', 0, 0, 0, 9, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3};
static const struct fdn_etf our_pid = {our_pid_bytes, sizeof our_pid_bytes};
static const struct fdn_etf their_pid = {their_pid_bytes, sizeof their_pid_bytes};
static const struct fdn_etf ref = {ref_bytes, sizeof ref_bytes};

static struct fdn_frame frame_of(const ei_x_buff *x)
{
    ck_assert_uint_eq(((uint32_t)(uint8_t)x->buff[2] << 8) + (uint8_t)x->buff[3], (unsigned)x->index - 4);
    return (struct fdn_frame){(uint8_t *)x->buff + 4, (size_t)x->index - 4, (uint64_t)x->index - 4};
}

/* {Op, Elements...} in a frame, with a message or without. */
static ei_x_buff control(long op, const struct fdn_etf *elements, int n, const char *message)
{
    ei_x_buff x;
    ei_x_new(&x);
    ei_x_append_buf(&x, "\0\0\0\0p", 5);
    ei_x_encode_version(&x);
    ei_x_encode_tuple_header(&x, n + 1);
    ei_x_encode_long(&x, op);
    for (int i = 0; i < n; i++)
        fdn_etf_put(&x, elements[i]);
    if (message) {
        ei_x_encode_version(&x);
        ei_x_encode_atom(&x, message);
    }
    fdn_control_end(&x);
    return x;
}

static struct fdn_etf atom(const char *name)
{
    static uint8_t bytes[8][64];
    static int next;
    uint8_t *p = bytes[next++ % 8];
    p[0] = 119;
    p[1] = (uint8_t)strlen(name);
    memcpy(p + 2, name, p[1]);
    return (struct fdn_etf){p, (size_t)p[1] + 2};
}

static enum fdn_control_kind kind_of(long op, const struct fdn_etf *elements, int n, const char *message)
{
    ei_x_buff x = control(op, elements, n, message);
    struct fdn_frame f = frame_of(&x);
    enum fdn_control_kind kind = fdn_control_parse(&f).kind;
    ei_x_free(&x);
    return kind;
}

START_TEST(what_frames_mean)
{
    const struct fdn_etf none = atom(""), name = atom("foundation_sentinel"), id = {(const uint8_t *)"\x61\x05", 2};
    const struct fdn_etf send[] = {none, our_pid}, reg[] = {their_pid, none, name}, link[] = {their_pid, our_pid};
    const struct fdn_etf unlink[] = {id, their_pid, our_pid}, mon[] = {their_pid, name, ref};
    const struct fdn_etf down[] = {their_pid, our_pid, ref, none}, late[] = {their_pid, our_pid, ref};
    ck_assert_int_eq(kind_of(2, send, 2, "hello"), FDN_CTL_SEND);
    ck_assert_int_eq(kind_of(2, send, 2, NULL), FDN_CTL_IGNORED);
    ck_assert_int_eq(kind_of(6, reg, 3, "hello"), FDN_CTL_REG_SEND);
    ck_assert_int_eq(kind_of(6, reg, 3, NULL), FDN_CTL_IGNORED);
    ck_assert_int_eq(kind_of(1, link, 2, NULL), FDN_CTL_LINK);
    ck_assert_int_eq(kind_of(35, unlink, 3, NULL), FDN_CTL_UNLINK);
    ck_assert_int_eq(kind_of(19, mon, 3, NULL), FDN_CTL_MONITOR);
    ck_assert_int_eq(kind_of(20, mon, 3, NULL), FDN_CTL_DEMONITOR);
    ck_assert_int_eq(kind_of(21, down, 4, NULL), FDN_CTL_MONITOR_EXIT);
    ck_assert_int_eq(kind_of(28, late, 3, "reason"), FDN_CTL_MONITOR_EXIT);
    ck_assert_int_eq(kind_of(28, late, 3, NULL), FDN_CTL_IGNORED);
    ck_assert_int_eq(kind_of(21, late, 3, NULL), FDN_CTL_IGNORED);
    ck_assert_int_eq(kind_of(99, late, 3, NULL), FDN_CTL_IGNORED);
    const struct fdn_etf wrong[] = {name, name, name, name};
    for (int op = 1; op < 40; op++)
        if (op != 2)
            ck_assert_int_eq(kind_of(op, wrong, 4, "x"), FDN_CTL_IGNORED);
}
END_TEST

START_TEST(malformed_frames)
{
    const struct fdn_etf mon[] = {their_pid, our_pid, ref};
    ei_x_buff x = control(19, mon, 3, "m");
    struct fdn_frame f = frame_of(&x);
    size_t message = f.n - 4;
    for (size_t n = 1; n < f.n; n++) {
        uint8_t *exact = malloc(n);
        memcpy(exact, f.p, n);
        struct fdn_frame cut = {exact, n, n};
        ck_assert_int_eq(fdn_control_parse(&cut).kind, n == message ? FDN_CTL_MONITOR : FDN_CTL_MALFORMED);
        free(exact);
    }
    uint8_t *changed = malloc(f.n);
    memcpy(changed, f.p, f.n);
    struct fdn_frame c = {changed, f.n, f.n};
    changed[0] = 'q';
    ck_assert_int_eq(fdn_control_parse(&c).kind, FDN_CTL_MALFORMED);
    changed[0] = 'p', changed[1] = 130;
    ck_assert_int_eq(fdn_control_parse(&c).kind, FDN_CTL_MALFORMED);
    changed[1] = 131, changed[2] = 106; /* [] where the tuple should be, rubbish behind it */
    ck_assert_int_eq(fdn_control_parse(&c).kind, FDN_CTL_MALFORMED);
    free(changed);
    ei_x_free(&x);
}
END_TEST

/* A reason too long for the buffer: the DOWN is understood from its beginning. */
START_TEST(cut_down)
{
    ei_x_buff reason;
    ei_x_new(&reason);
    ei_x_encode_tuple_header(&reason, 2);
    ei_x_encode_atom(&reason, "shutdown");
    char *big = calloc(1, 300000);
    ei_x_encode_binary(&reason, big, 300000);
    const struct fdn_etf down[] = {atom("name"), our_pid, ref, {(uint8_t *)reason.buff, (size_t)reason.index}};
    ei_x_buff x = control(21, down, 4, NULL);
    for (size_t n = 100; n < 70000; n += 777) {
        uint8_t *exact = malloc(n);
        memcpy(exact, x.buff + 4, n);
        struct fdn_frame cut = {exact, n, (uint64_t)x.index - 4};
        struct fdn_control c = fdn_control_parse(&cut);
        ck_assert_int_eq(c.kind, FDN_CTL_MONITOR_EXIT);
        ck_assert(c.reason_cut && fdn_etf_equal(c.ref, ref));
        ck_assert_int_eq(fdn_control_exit_class(c.reason), FDN_EXIT_NORMAL);
        free(exact);
    }
    /* cut before the reason begins: nothing can be said */
    uint8_t *exact = malloc(40);
    memcpy(exact, x.buff + 4, 40);
    struct fdn_frame cut = {exact, 40, (uint64_t)x.index - 4};
    ck_assert_int_eq(fdn_control_parse(&cut).kind, FDN_CTL_IGNORED);
    free(exact);
    free(big);
    ei_x_free(&x);
    ei_x_free(&reason);
}
END_TEST

static enum fdn_exit_class class_of(const char *bytes, size_t n)
{
    return fdn_control_exit_class((struct fdn_etf){(const uint8_t *)bytes, n});
}

START_TEST(exit_classes)
{
    ck_assert_int_eq(class_of("w\6normal", 8), FDN_EXIT_NORMAL);
    ck_assert_int_eq(class_of("w\10shutdown", 10), FDN_EXIT_NORMAL);
    ck_assert_int_eq(class_of("h\2w\10shutdownj", 13), FDN_EXIT_NORMAL);
    ck_assert_int_eq(class_of("h\2w\10shutdown", 12), FDN_EXIT_NORMAL); /* cut */
    ck_assert_int_eq(class_of("w\6noproc", 8), FDN_EXIT_NOPROC);
    ck_assert_int_eq(class_of("w\14noconnection", 14), FDN_EXIT_NOCONNECTION);
    ck_assert_int_eq(class_of("w\6killed", 8), FDN_EXIT_ABNORMAL);
    ck_assert_int_eq(class_of("h\2w\6normalj", 11), FDN_EXIT_ABNORMAL); /* {normal, []} is an error of somebody */
    ck_assert_int_eq(class_of("h\2w\6noprocj", 11), FDN_EXIT_ABNORMAL); /* {noproc, {gen_server, call, _}} */
    ck_assert_int_eq(class_of("h\3w\10shutdownjj", 14), FDN_EXIT_ABNORMAL);
    ck_assert_int_eq(class_of("j", 1), FDN_EXIT_ABNORMAL);
    ck_assert_int_eq(class_of("h\2", 2), FDN_EXIT_ABNORMAL);
    ck_assert_int_eq(class_of("w\6nor", 5), FDN_EXIT_ABNORMAL);
}
END_TEST

START_TEST(bytes_that_we_send)
{
    ei_x_buff x;
    struct fdn_control c;
    ei_x_new(&x);
    ck_assert(fdn_control_monitor(&x, our_pid, atom("name"), ref));
    struct fdn_frame f = frame_of(&x);
    c = fdn_control_parse(&f);
    ck_assert_int_eq(c.kind, FDN_CTL_MONITOR);
    ck_assert(fdn_etf_equal(c.from, our_pid) && fdn_etf_is_atom(c.to, "name") && fdn_etf_equal(c.ref, ref));
    ck_assert(fdn_control_demonitor(&x, our_pid, their_pid, ref));
    f = frame_of(&x);
    ck_assert_int_eq(fdn_control_parse(&f).kind, FDN_CTL_DEMONITOR);
    ck_assert(fdn_control_no_such_process(&x, atom("name"), their_pid, ref));
    f = frame_of(&x);
    c = fdn_control_parse(&f);
    ck_assert_int_eq(c.kind, FDN_CTL_MONITOR_EXIT);
    ck_assert(fdn_etf_equal(c.to, their_pid) && fdn_control_exit_class(c.reason) == FDN_EXIT_NOPROC);
    ck_assert(fdn_control_begin_reg_send(&x, our_pid, "net_kernel") && fdn_etf_put_atom(&x, "hi") && fdn_control_end(&x));
    f = frame_of(&x);
    c = fdn_control_parse(&f);
    ck_assert_int_eq(c.kind, FDN_CTL_REG_SEND);
    ck_assert(fdn_etf_is_atom(c.to, "net_kernel") && fdn_etf_is_atom(c.message, "hi"));
    ei_x_free(&x);
}
END_TEST

/* The operation of the answer to a call with this tag: 33 by alias, 2 to the pid; the tag goes back as it came. */
static int64_t answer_op(const ei_x_buff *tag)
{
    ei_x_buff x;
    struct fdn_etf control_term, message, part[2], e[3];
    int64_t op;
    struct fdn_etf t = {(uint8_t *)tag->buff, (size_t)tag->index};
    ei_x_new(&x);
    ck_assert(fdn_control_begin_reply(&x, our_pid, their_pid, t) && fdn_etf_put_atom(&x, "yes") && fdn_control_end(&x));
    const uint8_t *p = (uint8_t *)x.buff + 6;
    size_t n = (size_t)x.index - 6;
    long size = fdn_etf_skip(p, n);
    ck_assert_int_gt(size, 0);
    control_term = (struct fdn_etf){p, (size_t)size};
    ck_assert(fdn_etf_versioned(p + size, n - (size_t)size, &message));
    ck_assert(fdn_etf_tuple(message, 2, part) && fdn_etf_equal(part[0], t) && fdn_etf_is_atom(part[1], "yes"));
    ck_assert(fdn_etf_tuple(control_term, 3, e) && fdn_etf_int(e[0], &op));
    ck_assert(fdn_etf_equal(e[2], op == 33 ? ref : their_pid));
    ei_x_free(&x);
    return op;
}

START_TEST(answers_to_calls)
{
    ei_x_buff tag;
    ei_x_new(&tag); /* Ref */
    fdn_etf_put(&tag, ref);
    ck_assert_int_eq(answer_op(&tag), 2);
    tag.index = 0; /* [alias | Ref] */
    ei_x_encode_list_header(&tag, 1);
    ei_x_encode_atom(&tag, "alias");
    fdn_etf_put(&tag, ref);
    ck_assert_int_eq(answer_op(&tag), 33);
    tag.index = 0; /* [[alias | Ref] | Label] */
    ei_x_encode_list_header(&tag, 1);
    ei_x_encode_list_header(&tag, 1);
    ei_x_encode_atom(&tag, "alias");
    fdn_etf_put(&tag, ref);
    ei_x_encode_atom(&tag, "label");
    ck_assert_int_eq(answer_op(&tag), 33);
    tag.index = 0; /* [alias, Ref] */
    ei_x_encode_list_header(&tag, 2);
    ei_x_encode_atom(&tag, "alias");
    fdn_etf_put(&tag, ref);
    ei_x_encode_empty_list(&tag);
    ck_assert_int_eq(answer_op(&tag), 2);
    tag.index = 0; /* [alias] */
    ei_x_encode_list_header(&tag, 1);
    ei_x_encode_atom(&tag, "alias");
    ei_x_encode_empty_list(&tag);
    ck_assert_int_eq(answer_op(&tag), 2);
    ei_x_free(&tag);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("control");
    TCase *t = tcase_create("control");
    tcase_add_test(t, what_frames_mean);
    tcase_add_test(t, malformed_frames);
    tcase_add_test(t, cut_down);
    tcase_add_test(t, exit_classes);
    tcase_add_test(t, bytes_that_we_send);
    tcase_add_test(t, answers_to_calls);
    suite_add_tcase(s, t);
    return support_run(s);
}
