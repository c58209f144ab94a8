#include "c_node/log.h"

#include <poll.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/fdn_clock.h"

const char *fdn_log_level_name(enum fdn_log_level level)
{
    static const char *const names[] = {"debug", "info", "notice", "warning", "error"};
    return names[level];
}

void fdn_log_time(char *out, unsigned long size)
{
    uint64_t wall = fdn_clock_wall_ns();
    time_t seconds = (time_t)(wall / FDN_NS_PER_S);
    struct tm utc;
    gmtime_r(&seconds, &utc);
    size_t n = strftime(out, size, "%Y-%m-%dT%H:%M:%S", &utc);
    snprintf(out + n, size - n, ".%03uZ", (unsigned)(wall / FDN_NS_PER_MS % 1000));
}

void fdn_log(struct fdn_log *log, enum fdn_log_level level, const char *event, const char *format, ...)
{
    char detail[2048], line[2304], when[32];
    va_list args;
    if (level < log->least)
        return;
    va_start(args, format);
    vsnprintf(detail, sizeof detail, format, args);
    va_end(args);
    for (char *c = detail; *c; c++)
        if ((unsigned char)*c < 0x20 || *c == 0x7f)
            *c = ' ';
    if (log->sink && log->sink(level, event, detail, log->arg))
        return;
    fdn_log_time(when, sizeof when);
    int n = snprintf(line, sizeof line, "%s %s %s %s\n", when, fdn_log_level_name(level), event, detail);
    /* A pipe or terminal that nobody reads would stop us at the next line: then the line is lost. Whoever shares the other end may
     * depend on its being blocking, so it is asked instead of changed. */
    struct pollfd room = {.fd = STDERR_FILENO, .events = POLLOUT};
    if (poll(&room, 1, 0) == 0)
        return;
    /* One write a line: lines of several processes do not mix. Nobody can be told where stderr is gone. */
    if (write(STDERR_FILENO, line, n < (int)sizeof line ? (size_t)n : sizeof line - 1) < 0)
        return;
}
