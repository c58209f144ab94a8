/*
 * fdn_file.h - what opening and making files has to watch out for in a process that is not ours alone.
 *
 * Results: 0, a positive errno, or a code of fdn_error.h.
 */
#ifndef FDN_BASE_FILE_H
#define FDN_BASE_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * For a program's first line: where descriptor 0, 1 or 2 is closed, put something there that fails when it is used. Otherwise the next
 * file opened gets that number, and what is printed is written into it. 0 or an errno.
 */
int fdn_file_hold_standard(void);

/*
 * Give [0, size) of a file its blocks. 0 or an errno; EFBIG where the process may not have files that large, in place of the SIGXFSZ
 * that ends processes which do not expect it, the VM among them.
 */
int fdn_file_allocate(int fd, uint64_t size);

/* Write all of it. 0 or an errno. */
int fdn_file_write(int fd, const void *data, size_t len, uint64_t offset);

/*
 * Open the folder of a path; *base is the path's last part (it points into `path`; EISDIR where it is empty). `create`: make the
 * folder, 0700 and one level, where it is missing (fdn_file_may_create). The caller closes *dir.
 */
int fdn_file_open_dir(const char *path, bool create, const char **base, int *dir);

/* Whether nobody else can put another file in the place of one in this folder: FDN_EOWNER, FDN_EMODE. A folder of root's is trusted. */
int fdn_file_check_dir(int dir);

/* FDN_EOWNER where root would make a file in a folder of another user, whom it would lock out. */
int fdn_file_may_create(int dir);

/*
 * Whether this is a regular file (else FDN_EFOREIGN) that belongs to this user (FDN_EOWNER; root may work on another's) and that nobody
 * else may write (FDN_EMODE).
 */
int fdn_file_check(int fd);

/* Fill a new file, which is empty and has no name yet: 0 when all that it must hold is on disk. */
typedef int fdn_file_fill(int fd, void *context);

/*
 * A complete file, mode 0600, appears under its name at once, and the folder is synced. EEXIST where there is one of that name. The
 * file has no name until it is filled where the system can do that, so that a creator that is killed leaves nothing; otherwise a
 * temporary one. `fill` may be called a second time, on another file, after it succeeded.
 */
int fdn_file_create(int dir, const char *base, fdn_file_fill *fill, void *context);

/* The same, in the place of the file of that name. */
int fdn_file_replace(int dir, const char *base, fdn_file_fill *fill, void *context);

#endif
