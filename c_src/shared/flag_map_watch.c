/* Telling other processes that something changed, and waiting to be told. */
#include <limits.h>
#include <time.h>

#include "base/fdn_clock.h"
#include "shared/flag_map_private.h"

#ifdef __linux__
#include <errno.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

static void pause_ms(unsigned ms)
{
    struct timespec t = {(time_t)(ms / 1000), (long)(ms % 1000) * (long)FDN_NS_PER_MS};
    nanosleep(&t, NULL);
}

uint64_t fdn_flags_generation(const fdn_flags *f)
{
    return atomic_load(&f->header->generation);
}

/* Before and after every change: a writer killed in between has moved the generation, too. */
void fdn_flags_begin(fdn_flags *f)
{
    atomic_fetch_add(&f->header->generation, 1);
}

void fdn_flags_end(fdn_flags *f)
{
    atomic_fetch_add(&f->header->generation, 1);
    fdn_flags_wake(f);
}

uint32_t fdn_flags_ticket(const fdn_flags *f)
{
    return atomic_load(&f->header->futex);
}

#ifdef __linux__

/* Not FUTEX_PRIVATE: the waiters are in other processes, which the kernel finds by the file's page. */
void fdn_flags_wake(fdn_flags *f)
{
    if (f->read_only)
        return;
    atomic_fetch_add(&f->header->futex, 1);
    syscall(SYS_futex, &f->header->futex, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

void fdn_flags_wait(const fdn_flags *f, uint32_t ticket, unsigned timeout_ms)
{
    struct timespec t = {(time_t)(timeout_ms / 1000), (long)(timeout_ms % 1000) * (long)FDN_NS_PER_MS};
    /* A page that is gone answers EFAULT at once, instead of a signal: then this is a plain pause, not a busy loop. */
    if (syscall(SYS_futex, &f->header->futex, FUTEX_WAIT, ticket, &t, NULL, 0) != 0 && errno != EAGAIN && errno != EINTR &&
        errno != ETIMEDOUT)
        pause_ms(timeout_ms);
}

#else

void fdn_flags_wake(fdn_flags *f)
{
    if (!f->read_only)
        atomic_fetch_add(&f->header->futex, 1);
}

void fdn_flags_wait(const fdn_flags *f, uint32_t ticket, unsigned timeout_ms)
{
    for (unsigned waited = 0; waited < timeout_ms && atomic_load(&f->header->futex) == ticket; waited += 5)
        pause_ms(5);
}

#endif
