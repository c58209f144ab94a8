#include "base/fdn_clock.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#ifdef __APPLE__
#include <sys/sysctl.h>
#endif

uint64_t fdn_clock_coarse_resolution_ns(void)
{
    struct timespec ts;
    if (clock_getres(FDN_CLOCK_COARSE, &ts) != 0)
        return 10 * FDN_NS_PER_MS;
    return (uint64_t)ts.tv_sec * FDN_NS_PER_S + (uint64_t)ts.tv_nsec;
}

uint64_t fdn_clock_wall_ns(void)
{
    return fdn_clock_read_ns(CLOCK_REALTIME);
}

#ifdef __linux__
static int hex_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return -1;
}
#endif

int fdn_boot_id(uint8_t id[16])
{
    memset(id, 0, 16);
#if defined(__linux__)
    char text[64];
    int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return errno;
    ssize_t n = read(fd, text, sizeof text);
    close(fd);
    unsigned digits = 0;
    for (ssize_t i = 0; i < n && digits < 32; i++) {
        int v = hex_value(text[i]);
        if (v < 0)
            continue;
        id[digits / 2] = (uint8_t)(id[digits / 2] << 4 | v);
        digits++;
    }
    return digits == 32 ? 0 : EIO;
#elif defined(__APPLE__)
    struct timeval boot;
    size_t len = sizeof boot;
    int mib[2] = {CTL_KERN, KERN_BOOTTIME};
    if (sysctl(mib, 2, &boot, &len, NULL, 0) != 0)
        return errno;
    memcpy(id, &boot, sizeof boot < 16 ? sizeof boot : 16);
    return 0;
#else
    return ENOSYS;
#endif
}
