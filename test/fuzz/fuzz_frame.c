/* A hostile peer after the handshake: any stream, in any pieces; each packet is parsed as a control message and answered. */
#include <stdlib.h>
#include <string.h>

#include "c_node/control.h"

#define REQUIRE(x)                                                                                                                     \
    if (!(x))                                                                                                                          \
        abort();

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void use(const struct fdn_frame *frame, ei_x_buff *x)
{
    char text[128];
    struct fdn_control c = fdn_control_parse(frame);
    switch (c.kind) {
    case FDN_CTL_MONITOR_EXIT:
        (void)fdn_control_exit_class(c.reason);
        if (!c.reason_cut)
            fdn_etf_print(c.reason, text, sizeof text);
        break;
    case FDN_CTL_MONITOR:
        REQUIRE(fdn_control_no_such_process(x, c.to, c.from, c.ref));
        break;
    case FDN_CTL_LINK:
        REQUIRE(fdn_control_refuse_link(x, c.to, c.from));
        break;
    case FDN_CTL_UNLINK:
        REQUIRE(fdn_control_unlink_ack(x, c.ref, c.to, c.from));
        break;
    case FDN_CTL_REG_SEND: {
        /* any term may be the tag of a call */
        REQUIRE(fdn_control_begin_reply(x, c.from, c.from, c.message) && fdn_etf_put_atom(x, "ok") && fdn_control_end(x));
        struct fdn_frame ours = {(uint8_t *)x->buff + 4, (size_t)x->index - 4, (uint64_t)x->index - 4};
        REQUIRE(fdn_control_parse(&ours).kind != FDN_CTL_MALFORMED);
        break;
    }
    default:
        break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fdn_frame_in in;
    struct fdn_frame frame;
    ei_x_buff x;
    if (size < 2)
        return 0;
    /* The first byte chooses the bound, so that small inputs reach oversized packets too; the second the pieces. */
    size_t piece = 1 + data[1];
    fdn_frame_in_init(&in, 4, data[0] ? data[0] : 0);
    ei_x_new(&x);
    data += 2, size -= 2;
    while (size > 0) {
        ssize_t took = fdn_frame_feed(&in, data, piece < size ? piece : size);
        REQUIRE(took > 0);
        data += took, size -= (size_t)took;
        while (fdn_frame_next(&in, &frame)) {
            REQUIRE(frame.n <= in.max && frame.whole >= frame.n);
            uint8_t *exact = malloc(frame.n ? frame.n : 1); /* reading past the packet is seen */
            memcpy(exact, frame.p, frame.n);
            struct fdn_frame alone = {exact, frame.n, frame.whole};
            use(&alone, &x);
            free(exact);
        }
    }
    ei_x_free(&x);
    fdn_frame_in_free(&in);
    return 0;
}
