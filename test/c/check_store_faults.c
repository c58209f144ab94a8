/*
 * The machine refuses: every allocation and every system call of a run fails once, in turn. What was acknowledged stays, what was
 * refused did not happen, and after a failed flush the store takes nothing more.
 */
#include <check.h>
#include <errno.h>
#include <stdarg.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#include "base/fdn_alloc.h"
#include "store_fixture.h"

/* ---- the system calls, in front of the C library's ---- */
enum { NO_CALL, PWRITE, PWRITEV, FDATASYNC, FSYNC, MSYNC, FALLOCATE, RENAME, UNLINK, CALLS };
static int faulty_call, fault_errno;
static long fault_countdown = -1; /* calls of that kind until the one that fails; negative: none */
static bool short_write;
static fdn_store *running; /* single-threaded run in progress */
static bool opening;
static int flushes;       /* since the last segment got its name */
static bool unsafe_order; /* a file got its name, or went, before what it depends on was on disk */
/* By descriptor: bytes that only the page cache has, of stores that write through descriptors. */
static bool unflushed[1024];

static bool fails(int call)
{
    return call == faulty_call && fault_countdown >= 0 && fault_countdown-- == 0;
}

static long refuse(void)
{
    errno = fault_errno;
    return -1;
}

ssize_t pwrite(int fd, const void *buf, size_t n, off_t at)
{
    return fails(PWRITE) ? refuse() : syscall(SYS_pwrite64, fd, buf, n, at);
}

ssize_t pwritev(int fd, const struct iovec *iov, int count, off_t at)
{
    unflushed[fd] = true;
    if (fails(PWRITEV))
        return refuse();
    /* A kernel may write less than it was given. */
    if (short_write && iov[0].iov_len > 3)
        return syscall(SYS_pwrite64, fd, iov[0].iov_base, iov[0].iov_len / 2, at);
    return syscall(SYS_pwritev, fd, iov, (long)count, at, 0L);
}

int fdatasync(int fd)
{
    flushes++;
    unflushed[fd] = false;
    return (int)(fails(FDATASYNC) ? refuse() : syscall(SYS_fdatasync, fd));
}

int fsync(int fd)
{
    return (int)(fails(FSYNC) ? refuse() : syscall(SYS_fsync, fd));
}

int msync(void *addr, size_t len, int flags)
{
    flushes++;
    return (int)(fails(MSYNC) ? refuse() : syscall(SYS_msync, addr, len, flags));
}

int posix_fallocate(int fd, off_t at, off_t len)
{
    if (fails(FALLOCATE))
        return fault_errno;
    return syscall(SYS_fallocate, fd, 0, at, len) == 0 ? 0 : errno;
}

int renameat(int from_dir, const char *from, int to_dir, const char *to)
{
    unsafe_order |= (running || opening) && flushes == 0;
    flushes = 0;
    return (int)(fails(RENAME) ? refuse() : syscall(SYS_renameat2, from_dir, from, to_dir, to, 0));
}

int unlinkat(int dir_fd, const char *name, int flags)
{
    if (strncmp(name, "seg-", 4) == 0) {
        if (running) {
            fdn_store_info info;
            fdn_store_get_info(running, &info);
            unsafe_order |= info.durable_lsn != info.lsn;
            for (size_t fd = 0; fd < sizeof unflushed; fd++)
                unsafe_order |= unflushed[fd];
        }
        if (fails(UNLINK))
            return (int)refuse();
    }
    return (int)syscall(SYS_unlinkat, dir_fd, name, flags);
}

/* ---- a run of writes, noting what was acknowledged ---- */
#define KEYS 6
#define VALUE 2500

static char dir[64], image[64];

typedef struct {
    unsigned acked[KEYS]; /* value of the last acknowledged write, 0: none */
    unsigned maybe[KEYS]; /* value of a later write that was refused only by its flush, 0: none */
    int first_error;
} history;

static void setup(void)
{
    temp_dir(dir, sizeof dir);
    temp_dir(image, sizeof image);
    fault_countdown = -1;
    short_write = false;
    unsafe_order = false;
}

static void teardown(void)
{
    fault_countdown = -1;
    remove_dir(dir);
    remove_dir(image);
}

static void run(fdn_store *s, int durability, history *h)
{
    unsigned value = 0;
    bool more;
    for (int i = 0; i < 120; i++) {
        unsigned a = (unsigned)i % KEYS, b = (unsigned)(i * 7 + 3) % KEYS;
        bool batch = i % 5 == 4;
        value++;
        flushes = 0; /* a rotation in this call has to bring its own */
        int rc = batch ? put_two(s, a, b, 99, value, VALUE) : put(s, a, value, VALUE, true, NULL);
        if (rc == 0) {
            int flushed = durability == FDN_STORE_SYNC ? fdn_store_sync(s) : 0;
            unsigned *to = flushed == 0 ? h->acked : h->maybe;
            to[a] = value;
            if (batch)
                to[b] = value;
            rc = flushed;
        }
        if (rc != 0 && h->first_error == 0)
            h->first_error = rc;
        flushes = 0;
        if (i % 3 == 0)
            (void)fdn_store_maintain(s, 10000, &more);
        if (i % 10 == 9 && durability != FDN_STORE_SYNC)
            (void)fdn_store_sync(s);
    }
}

static void verify(fdn_store *s, const history *h, const char *when, long n)
{
    for (unsigned k = 0; k < KEYS; k++) {
        bool acked = false, maybe = false;
        int rc = holds(s, k, h->acked[k], VALUE, &acked);
        if (rc == 0 && h->maybe[k])
            (void)holds(s, k, h->maybe[k], VALUE, &maybe);
        if (h->acked[k] == 0 && !maybe)
            ck_assert_msg(rc == FDN_EUNKNOWN, "%s, fault %ld: key %u: %s", when, n, k, fdn_error_name(rc));
        else
            ck_assert_msg(rc == 0 && (acked || maybe), "%s, fault %ld: key %u: %s", when, n, k,
                          rc ? fdn_error_name(rc) : "wrong value");
    }
}

static const int kinds[] = {PWRITE, PWRITEV, FDATASYNC, FSYNC, MSYNC, FALLOCATE, RENAME, UNLINK};

/* _i: kind of call x durability. The n-th call of the kind fails, for every n until none fails any more. */
START_TEST(every_system_call_fails_once)
{
    int call = kinds[_i / 2], durability = _i % 2;
    long faults = 0;
    short_write = true;
    for (long n = 0;; n++) {
        fdn_store *s = NULL;
        fdn_store_place place;
        fdn_store_info info;
        fdn_store_options options = small_store(dir, durability);
        history h;
        memset(&h, 0, sizeof h);
        empty_dir(dir);
        faulty_call = call;
        fault_errno = call == FALLOCATE ? ENOSPC : EIO;
        fault_countdown = n;
        int rc = fdn_store_open(&options, &s, &place);
        if (rc != 0) {
            ck_assert_int_eq(rc, fault_errno);
            ck_assert_ptr_null(s);
            faults++;
            continue;
        }
        running = s;
        memset(unflushed, 0, sizeof unflushed);
        run(s, durability, &h);
        running = NULL;
        ck_assert(!unsafe_order);
        bool hit = fault_countdown < 0;
        fault_countdown = -1;
        faults += hit;
        fdn_store_get_info(s, &info);
        if (!hit) {
            ck_assert_int_eq(h.first_error, 0);
            ck_assert_int_eq(info.failed, 0);
        } else if (call == FALLOCATE) {
            /* A full disk refuses; it breaks nothing. */
            ck_assert_int_eq(info.failed, 0);
        } else if (info.failed != 0) {
            ck_assert_int_eq(info.failed, EIO);
            ck_assert_int_eq(put(s, 0, 5000, VALUE, true, NULL), FDN_EREADONLY);
            ck_assert_int_eq(fdn_store_sync(s), FDN_EREADONLY);
        } else {
            ck_assert_int_eq(call == FSYNC || call == PWRITE || call == RENAME,
                             true); /* while a segment was made: an error of that call */
        }
        verify(s, &h, "in the living store", n);
        copy_dir(dir, image);
        fdn_store_free(s);
        options.path = image;
        rc = fdn_store_open(&options, &s, &place);
        ck_assert_msg(rc == 0, "call %d fault %ld: reopen: %s at %s:%llu", call, n, fdn_error_name(rc), place.path,
                      (unsigned long long)place.offset);
        verify(s, &h, "after a kill", n);
        fdn_store_free(s);
        if (!hit)
            break;
    }
    /* The control: the call happens at all in this mode. */
    bool expected = !(call == PWRITEV && durability == FDN_STORE_ASYNC) && !(call == FDATASYNC && durability == FDN_STORE_ASYNC) &&
                    !(call == MSYNC && durability == FDN_STORE_SYNC);
    ck_assert_msg((faults > 0) == expected, "call %d in mode %d: %ld faults", call, durability, faults);
}
END_TEST

/* A kill between a seal and its flush leaves a whole segment that only the page cache has; what is opened behind it must not be on disk
 * before it. */
START_TEST(a_seal_that_was_never_flushed)
{
    fdn_store *s = NULL;
    fdn_store_place place;
    fdn_store_options options = small_store(dir, _i);
    ck_assert_int_eq(fdn_store_open(&options, &s, &place), 0);
    ck_assert_int_eq(put(s, 1, 1, VALUE, true, NULL), 0);
    fdn_store_free(s);
    copy_dir(dir, image);
    options.path = image;
    flushes = 0;
    opening = true;
    ck_assert_int_eq(fdn_store_open(&options, &s, &place), 0);
    opening = false;
    ck_assert(!unsafe_order);
    fdn_store_free(s);
}
END_TEST

/* Copies have no LSN of their own: that everything up to the last LSN is on disk does not mean that they are. */
START_TEST(copies_are_on_disk_before_the_original_goes)
{
    fdn_store *s = NULL;
    fdn_store_place place;
    fdn_store_info info;
    fdn_store_options options = small_store(dir, _i);
    bool more = true;
    ck_assert_int_eq(fdn_store_open(&options, &s, &place), 0);
    for (unsigned i = 0; i < 100; i++)
        ck_assert_int_eq(put(s, i < 50 && i % 10 == 0 ? i : 99, i, VALUE, true, NULL), 0);
    ck_assert_int_eq(fdn_store_sync(s), 0);
    running = s;
    while (more) {
        memset(unflushed, 0, sizeof unflushed);
        ck_assert_int_eq(fdn_store_maintain(s, 1 << 20, &more), 0);
    }
    running = NULL;
    fdn_store_get_info(s, &info);
    ck_assert_uint_gt(info.copied_bytes, 0);
    ck_assert_uint_gt(info.compactions, 0);
    ck_assert(!unsafe_order);
    fdn_store_free(s);
}
END_TEST

START_TEST(every_allocation_fails_once)
{
#ifdef FDN_ALLOC_FAULTS
    long faults = 0;
    for (long n = 0;; n++) {
        fdn_store *s = NULL;
        fdn_store_place place;
        fdn_store_options options = small_store(dir, FDN_STORE_ASYNC);
        history h;
        size_t count;
        uint64_t cursor = 0;
        digest d;
        memset(&h, 0, sizeof h);
        memset(&d, 0, sizeof d);
        empty_dir(dir);
        fdn_alloc_budget = n;
        int rc = fdn_store_open(&options, &s, &place);
        if (rc == 0) {
            run(s, FDN_STORE_ASYNC, &h);
            (void)fdn_store_scan(s, &cursor, 100, &count, digest_visit, &d);
        } else {
            ck_assert_int_eq(rc, FDN_ENOMEM);
        }
        bool hit = fdn_alloc_budget < 0;
        fdn_alloc_budget = -1;
        if (!hit)
            ck_assert_int_eq(h.first_error, 0);
        else
            faults++;
        if (s) {
            ck_assert(h.first_error == 0 || h.first_error == FDN_ENOMEM);
            verify(s, &h, "in the living store", n);
            copy_dir(dir, image);
            fdn_store_free(s);
            options.path = image;
            /* Recovery allocates too. */
            fdn_alloc_budget = n % 97;
            rc = fdn_store_open(&options, &s, &place);
            fdn_alloc_budget = -1;
            if (rc == FDN_ENOMEM)
                rc = fdn_store_open(&options, &s, &place);
            ck_assert_int_eq(rc, 0);
            verify(s, &h, "after a kill", n);
            fdn_store_free(s);
        }
        if (!hit)
            break;
    }
    ck_assert_int_gt(faults, 100);
#endif
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("store faults");
    TCase *tc = tcase_create("faults");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_set_timeout(tc, 240);
    tcase_add_loop_test(tc, every_system_call_fails_once, 0, 2 * (int)(sizeof kinds / sizeof *kinds));
    tcase_add_loop_test(tc, a_seal_that_was_never_flushed, 0, 2);
    tcase_add_loop_test(tc, copies_are_on_disk_before_the_original_goes, 0, 2);
    tcase_add_test(tc, every_allocation_fails_once);
    suite_add_tcase(suite, tc);
    SRunner *r = srunner_create(suite);
    fixture_begin();
    srunner_run_all(r, CK_NORMAL);
    fixture_end();
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed == 0 ? 0 : 1;
}
