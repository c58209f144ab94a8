/*
 * fdn_file.h - what opening and making files has to watch out for in a process that is not ours alone.
 */
#ifndef FDN_BASE_FILE_H
#define FDN_BASE_FILE_H

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

#endif
