/* A hostile peer during the handshake, and a hostile epmd before it. */
#include <stdlib.h>
#include <string.h>

#include "c_node/epmd.h"
#include "c_node/frame.h"
#include "c_node/handshake.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fdn_hs hs = {.name = "us@host", .peer = "peer@host", .cookie = "cookie", .creation = 5, .challenge = 1};
    struct fdn_hs_packet out;
    struct fdn_frame_in in;
    struct fdn_frame frame;
    uint16_t port;
    (void)fdn_epmd_reply(data, size, &port);
    hs.own_stale = size % 2 == 1;
    fdn_hs_start(&hs, &out);
    fdn_frame_in_init(&in, 2, FDN_HS_PACKET_MAX);
    while (size > 0) {
        ssize_t took = fdn_frame_feed(&in, data, size);
        if (took <= 0)
            abort();
        data += took, size -= (size_t)took;
        while (fdn_frame_next(&in, &frame)) {
            uint8_t *exact = malloc(frame.n ? frame.n : 1);
            memcpy(exact, frame.p, frame.n);
            enum fdn_hs_result r = fdn_hs_packet(&hs, exact, frame.n, &out);
            free(exact);
            if (out.n > sizeof out.bytes || !fdn_hs_word(r))
                abort();
            if (r == FDN_HS_DONE) /* the digest of a secret cannot be guessed */
                abort();
            if (r != FDN_HS_MORE) {
                fdn_frame_in_free(&in);
                return 0;
            }
        }
    }
    (void)fdn_hs_closed(&hs);
    fdn_frame_in_free(&in);
    return 0;
}
