/* _GNU_SOURCE comes from the build. */
#include "base/fdn_guard.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/fdn_error.h"

/*
 * A slot's life: free (start 0) -> claimed (start CLAIMED, by CAS) -> live (len stored, then start by release) -> free. The handler
 * reads start, len, start again: a slot that changed in between is not its range. It runs in signal context and takes no lock.
 */
typedef struct {
    _Atomic uintptr_t start;
    _Atomic size_t len;
    _Atomic unsigned faults;
} range;

#define CLAIMED ((uintptr_t)1)

static range ranges[FDN_GUARD_RANGES];
static _Atomic int high_water; /* slots at and above were never used */
static struct sigaction previous;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static int install_result;
static uintptr_t page_mask;

static int find(uintptr_t at)
{
    int n = atomic_load(&high_water);
    for (int i = 0; i < n; i++) {
        uintptr_t start = atomic_load(&ranges[i].start);
        if (start <= CLAIMED || at < start)
            continue;
        size_t len = atomic_load(&ranges[i].len);
        if (at - start < len && atomic_load(&ranges[i].start) == start)
            return i;
    }
    return -1;
}

static void pass_on(int sig, siginfo_t *info, void *context)
{
    if (previous.sa_flags & SA_SIGINFO) {
        previous.sa_sigaction(sig, info, context);
    } else if (previous.sa_handler != SIG_DFL && previous.sa_handler != SIG_IGN) {
        previous.sa_handler(sig);
    } else {
        /* Back to the default: the instruction runs again, faults again, and the process dies with the right core. A SIGBUS that was
         * sent, not raised by a fault, is sent again. */
        struct sigaction dfl;
        memset(&dfl, 0, sizeof dfl);
        dfl.sa_handler = SIG_DFL;
        sigaction(sig, &dfl, NULL);
        if (info->si_code <= 0)
            (void)raise(sig);
    }
}

static void on_sigbus(int sig, siginfo_t *info, void *context)
{
    int saved_errno = errno;
    /* si_code > 0: raised by the kernel for an access, so si_addr is an address. */
    if (info->si_code > 0) {
        uintptr_t at = (uintptr_t)info->si_addr;
        int i = find(at);
        if (i >= 0) {
            void *page = (void *)(at & page_mask);
            size_t size = (size_t)(~page_mask + 1);
            if (mmap(page, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == page) {
                atomic_fetch_add(&ranges[i].faults, 1);
                errno = saved_errno;
                return;
            }
        }
    }
    pass_on(sig, info, context);
    errno = saved_errno;
}

static void install(void)
{
    struct sigaction act;
    page_mask = ~((uintptr_t)sysconf(_SC_PAGESIZE) - 1);
    memset(&act, 0, sizeof act);
    act.sa_sigaction = on_sigbus;
    /* SA_ONSTACK: the VM runs Erlang code on stacks of its own, and gives its threads an alternate signal stack for this reason. */
    act.sa_flags = SA_SIGINFO | SA_ONSTACK;
    sigemptyset(&act.sa_mask);
    install_result = sigaction(SIGBUS, &act, &previous) == 0 ? 0 : errno;
}

int fdn_guard_init(void)
{
    int rc = pthread_once(&once, install);
    return rc ? rc : install_result;
}

int fdn_guard_add(void *addr, size_t len)
{
    for (int i = 0; i < FDN_GUARD_RANGES; i++) {
        uintptr_t expected = 0;
        if (!atomic_compare_exchange_strong(&ranges[i].start, &expected, CLAIMED))
            continue;
        atomic_store(&ranges[i].faults, 0);
        atomic_store(&ranges[i].len, len);
        int top = atomic_load(&high_water);
        while (top <= i && !atomic_compare_exchange_weak(&high_water, &top, i + 1))
            ;
        atomic_store(&ranges[i].start, (uintptr_t)addr);
        return i;
    }
    return FDN_EMAPPINGS;
}

void fdn_guard_remove(int slot)
{
    if (slot >= 0 && slot < FDN_GUARD_RANGES)
        atomic_store(&ranges[slot].start, 0);
}

bool fdn_guard_faulted(int slot)
{
    return slot >= 0 && slot < FDN_GUARD_RANGES && atomic_load_explicit(&ranges[slot].faults, memory_order_relaxed) != 0;
}

bool fdn_guard_installed(void)
{
    struct sigaction now;
    return sigaction(SIGBUS, NULL, &now) == 0 && (now.sa_flags & SA_SIGINFO) && now.sa_sigaction == on_sigbus;
}
