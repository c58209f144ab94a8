#include "base/fdn_error.h"

#include <errno.h>

#define ERRNO_NAMES(X)                                                                                                                 \
    X(EPERM, "eperm")                                                                                                                  \
    X(ENOENT, "enoent")                                                                                                                \
    X(EINTR, "eintr")                                                                                                                  \
    X(EIO, "eio")                                                                                                                      \
    X(EBADF, "ebadf")                                                                                                                  \
    X(EAGAIN, "eagain")                                                                                                                \
    X(ENOMEM, "enomem")                                                                                                                \
    X(EACCES, "eacces")                                                                                                                \
    X(EBUSY, "ebusy")                                                                                                                  \
    X(EEXIST, "eexist")                                                                                                                \
    X(EXDEV, "exdev")                                                                                                                  \
    X(ENODEV, "enodev")                                                                                                                \
    X(ENOTDIR, "enotdir")                                                                                                              \
    X(EISDIR, "eisdir")                                                                                                                \
    X(EINVAL, "einval")                                                                                                                \
    X(ENFILE, "enfile")                                                                                                                \
    X(EMFILE, "emfile")                                                                                                                \
    X(EFBIG, "efbig")                                                                                                                  \
    X(ENOSPC, "enospc")                                                                                                                \
    X(EROFS, "erofs")                                                                                                                  \
    X(EPIPE, "epipe")                                                                                                                  \
    X(ENAMETOOLONG, "enametoolong")                                                                                                    \
    X(ENOSYS, "enosys")                                                                                                                \
    X(ELOOP, "eloop")                                                                                                                  \
    X(EDQUOT, "edquot")                                                                                                                \
    X(ENOTSUP, "enotsup")                                                                                                              \
    X(ETIMEDOUT, "etimedout")                                                                                                          \
    X(ECONNREFUSED, "econnrefused")                                                                                                    \
    X(ECONNRESET, "econnreset")

const char *fdn_error_name(int rc)
{
    switch (rc) {
    case 0:
        return "ok";
#define FDN_ERROR_CASE(name, value, text)                                                                                              \
    case name:                                                                                                                         \
        return text;
        FDN_ERRORS(FDN_ERROR_CASE)
#undef FDN_ERROR_CASE
#define ERRNO_CASE(name, text)                                                                                                         \
    case name:                                                                                                                         \
        return text;
        ERRNO_NAMES(ERRNO_CASE)
#undef ERRNO_CASE
    default:
        return "errno";
    }
}
