/*
 * fdn_error.h - result codes of the engines.
 *
 * Every fallible function returns 0 for success, a positive errno for what the operating system refused, or one of the negative codes
 * below. fdn_error_name gives the word that Erlang sees as an atom and the tools print: one vocabulary for all callers.
 */
#ifndef FDN_ERROR_H
#define FDN_ERROR_H

#include <errno.h>

#define FDN_ERRORS(X)                                                                                                                  \
    X(FDN_ENOMEM, -1, "enomem")                /* allocation failed */                                                                 \
    X(FDN_EFULL, -2, "full")                   /* a fixed-size table has no room */                                                    \
    X(FDN_EFOREIGN, -3, "foreign_file")        /* not a file of this kind: magic differs */                                            \
    X(FDN_EVERSION, -4, "unsupported_version") /* a file of this kind, in a format this version does not read */                       \
    X(FDN_ECORRUPT, -5, "corrupt")             /* a checksum or an invariant of the file does not hold */                              \
    X(FDN_ELOCKED, -6, "locked")               /* another OS process has it open */                                                    \
    X(FDN_ECLOSED, -7, "closed")               /* the object was closed or deleted */                                                  \
    X(FDN_EREADONLY, -8, "read_only")          /* writes are refused, for good or by mode */                                           \
    X(FDN_EFAULTED, -9, "faulted")             /* the mapped file was truncated under us */                                            \
    X(FDN_EOWNER, -10, "wrong_owner")          /* a file that belongs to another user */                                               \
    X(FDN_EMODE, -11, "unsafe_mode")           /* a file or directory that others may write */                                         \
    X(FDN_EUNKNOWN, -12, "unknown")            /* no such name */                                                                      \
    X(FDN_ESTALE, -13, "stale_epoch")          /* the epoch given is no longer the current one */                                      \
    X(FDN_EROLLEDBACK, -14, "rolled_back")     /* the group is rolled back */                                                          \
    X(FDN_ENOTROLLEDBACK, -15, "not_rolled_back")                                                                                      \
    X(FDN_EOTHERGROUP, -16, "other_group") /* a flag never changes its group */                                                        \
    X(FDN_ENAME, -17, "name_too_long")                                                                                                 \
    X(FDN_ETOOBIG, -18, "too_big")             /* beyond a documented size */                                                          \
    X(FDN_EMAPPINGS, -19, "too_many_mappings") /* the SIGBUS guard's table is full */                                                  \
    X(FDN_EBUSY, -20, "busy")                  /* in use in a way that excludes this call */                                           \
    X(FDN_EINVAL, -21, "invalid")              /* an argument outside its documented range */                                          \
    X(FDN_EDIFFERS, -22, "differs")            /* a sound file, made for something else than what is asked of it */

enum {
#define FDN_ERROR_ENUM(name, value, text) name = (value),
    FDN_ERRORS(FDN_ERROR_ENUM)
#undef FDN_ERROR_ENUM
};

/* The word for a result code: "ok", one of the texts above, or the errno's lower-case symbol ("enospc"; "errno" where unknown). */
const char *fdn_error_name(int rc);

/* errno after a failed call, as a result code: never the 0 that would read as success, whatever the call left in errno. */
static inline int fdn_errno(void)
{
    int code = errno;
    return code != 0 ? code : EIO;
}

#endif
