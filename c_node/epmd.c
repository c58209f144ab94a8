#include "c_node/epmd.h"

#include <stdlib.h>
#include <string.h>

#define PORT_PLEASE2_REQ 122
#define PORT2_RESP 119
#define DIST_VERSION 6

uint16_t fdn_epmd_port(void)
{
    const char *text = getenv("ERL_EPMD_PORT");
    char *end;
    if (text && *text) {
        long port = strtol(text, &end, 10);
        if (*end == 0 && port > 0 && port < 65536)
            return (uint16_t)port;
    }
    return FDN_EPMD_PORT;
}

size_t fdn_epmd_request(const char *alive, uint8_t *out, size_t size)
{
    size_t len = strlen(alive);
    if (len == 0 || len > 255 || len + 3 > size)
        return 0;
    out[0] = (uint8_t)((len + 1) >> 8);
    out[1] = (uint8_t)(len + 1);
    out[2] = PORT_PLEASE2_REQ;
    memcpy(out + 3, alive, len);
    return len + 3;
}

enum fdn_epmd_result fdn_epmd_reply(const uint8_t *p, size_t n, uint16_t *port)
{
    if (n < 1)
        return FDN_EPMD_MORE;
    if (p[0] != PORT2_RESP)
        return FDN_EPMD_MALFORMED;
    if (n < 2)
        return FDN_EPMD_MORE;
    if (p[1] != 0)
        return FDN_EPMD_UNKNOWN;
    if (n < 10) /* port, type, protocol, highest and lowest version; the name is not needed */
        return FDN_EPMD_MORE;
    *port = (uint16_t)(p[2] << 8 | p[3]);
    if (*port == 0)
        return FDN_EPMD_MALFORMED;
    unsigned highest = (unsigned)p[6] << 8 | p[7], lowest = (unsigned)p[8] << 8 | p[9];
    return highest < DIST_VERSION || lowest > DIST_VERSION ? FDN_EPMD_TOO_OLD : FDN_EPMD_FOUND;
}
