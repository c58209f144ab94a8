#include "base/fdn_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fdn_error.h"
#include "base/fdn_hash.h"

int fdn_file_hold_standard(void)
{
    for (int fd = 0; fd <= 2; fd++) {
        if (fcntl(fd, F_GETFD) >= 0 || errno != EBADF)
            continue;
        /* The lowest free number is this one. Opened the wrong way round: using it answers EBADF, as a closed one does. */
        if (open("/dev/null", fd == 0 ? O_WRONLY : O_RDONLY) < 0)
            return fdn_errno();
    }
    return 0;
}

int fdn_file_allocate(int fd, uint64_t size)
{
    struct rlimit limit;
    int rc;
    if (getrlimit(RLIMIT_FSIZE, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY && size > limit.rlim_cur)
        return EFBIG;
    do
        rc = posix_fallocate(fd, 0, (off_t)size);
    while (rc == EINTR);
    return rc;
}

int fdn_file_write(int fd, const void *data, size_t len, uint64_t offset)
{
    const char *p = data;
    while (len > 0) {
        ssize_t n = pwrite(fd, p, len, (off_t)offset);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n < 0 ? fdn_errno() : EIO;
        p += n;
        len -= (size_t)n;
        offset += (uint64_t)n;
    }
    return 0;
}

/* ---- owner and mode ------------------------------------------------------------------------------------------------------------- */

static int check_owner_and_mode(const struct stat *st)
{
    uid_t me = geteuid();
    if (st->st_uid != me && me != 0)
        return FDN_EOWNER;
    return (st->st_mode & (S_IWGRP | S_IWOTH)) ? FDN_EMODE : 0;
}

int fdn_file_check(int fd)
{
    struct stat st;
    if (fstat(fd, &st) != 0)
        return fdn_errno();
    return S_ISREG(st.st_mode) ? check_owner_and_mode(&st) : FDN_EFOREIGN;
}

int fdn_file_check_dir(int dir)
{
    struct stat st;
    if (fstat(dir, &st) != 0)
        return fdn_errno();
    if (st.st_uid != 0)
        return check_owner_and_mode(&st);
    return (st.st_mode & (S_IWGRP | S_IWOTH)) ? FDN_EMODE : 0;
}

int fdn_file_may_create(int dir)
{
    struct stat st;
    if (fstat(dir, &st) != 0)
        return fdn_errno();
    return geteuid() == 0 && st.st_uid != 0 ? FDN_EOWNER : 0;
}

/* A folder of that name may be made: not by root in a folder of another user. */
static int may_make(const char *name)
{
    const char *slash = strrchr(name, '/');
    char parent[4096];
    size_t n = slash ? (size_t)(slash - name) : 0;
    memcpy(parent, slash ? name : ".", slash ? n : 1);
    parent[slash ? n : 1] = '\0';
    int dir = open(slash && n == 0 ? "/" : parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dir < 0)
        return fdn_errno();
    int rc = fdn_file_may_create(dir);
    close(dir);
    return rc;
}

int fdn_file_open_dir(const char *path, bool create, const char **base, int *dir)
{
    const char *slash = strrchr(path, '/');
    char name[4096];
    size_t n = slash ? (size_t)(slash - path) : 0;
    if (n >= sizeof name)
        return ENAMETOOLONG;
    *base = slash ? slash + 1 : path;
    if (**base == '\0')
        return EISDIR;
    if (slash == NULL)
        strcpy(name, ".");
    else if (n == 0)
        strcpy(name, "/");
    else {
        memcpy(name, path, n);
        name[n] = '\0';
    }
    *dir = open(name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (*dir < 0 && errno == ENOENT && create) {
        int rc = may_make(name);
        if (rc != 0)
            return rc;
        if (mkdir(name, 0700) != 0 && errno != EEXIST)
            return fdn_errno();
        *dir = open(name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    }
    return *dir < 0 ? fdn_errno() : 0;
}

/* ---- creating ------------------------------------------------------------------------------------------------------------------- */

static int sync_dir(int dir)
{
    return fsync(dir) == 0 ? 0 : fdn_errno();
}

/* Filled under a temporary name. */
static int create_named(int dir, const char *base, fdn_file_fill *fill, void *context, bool replace)
{
    char temp[300];
    uint64_t unique;
    fdn_random(&unique, sizeof unique);
    int n = snprintf(temp, sizeof temp, "%s.new.%016llx", base, (unsigned long long)unique);
    if (n < 0 || (size_t)n >= sizeof temp)
        return ENAMETOOLONG;
    int fd = openat(dir, temp, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0)
        return fdn_errno();
    int rc = fill(fd, context);
    if (rc == 0 && (replace ? renameat(dir, temp, dir, base) : linkat(dir, temp, dir, base, 0)) != 0)
        rc = fdn_errno();
    if (rc != 0 || !replace)
        (void)unlinkat(dir, temp, 0);
    close(fd);
    return rc == 0 ? sync_dir(dir) : rc;
}

int fdn_file_create(int dir, const char *base, fdn_file_fill *fill, void *context)
{
#ifdef O_TMPFILE
    int fd = openat(dir, ".", O_RDWR | O_TMPFILE | O_CLOEXEC, 0600);
    if (fd >= 0) {
        char self[40];
        snprintf(self, sizeof self, "/proc/self/fd/%d", fd);
        int rc = access(self, F_OK) == 0 ? fill(fd, context) : ENOTSUP;
        if (rc == 0 && linkat(AT_FDCWD, self, dir, base, AT_SYMLINK_FOLLOW) != 0)
            rc = fdn_errno();
        close(fd);
        if (rc != ENOTSUP)
            return rc == 0 ? sync_dir(dir) : rc;
    }
#endif
    return create_named(dir, base, fill, context, false);
}

int fdn_file_replace(int dir, const char *base, fdn_file_fill *fill, void *context)
{
    return create_named(dir, base, fill, context, true);
}
