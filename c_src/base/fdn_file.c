#include "base/fdn_file.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/resource.h>

#include "base/fdn_error.h"

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
