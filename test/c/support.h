/* support.h - what check programs share. */
#ifndef FDN_TEST_SUPPORT_H
#define FDN_TEST_SUPPORT_H

#include <stddef.h>
#include <sys/types.h>

struct Suite;

/* Run a suite of check (and free it); what main returns: 0 where nothing failed. */
int support_run(struct Suite *suite);

/* A fresh folder, mode 0700; exits the program where there is none to be had. */
void support_tmpdir(char *path, size_t size);

/* Remove a folder and everything in it. */
void support_rmtree(const char *path);

/* DIR/NAME in a buffer of the caller's; returns it. */
char *support_path(char *buf, size_t size, const char *dir, const char *name);

/* Files, whole or in part; what fails ends the test. Reading returns how many bytes there were, up to `size`. */
void support_write_file(const char *path, const void *data, size_t len, mode_t mode);
void support_patch(const char *path, off_t at, const void *data, size_t len);
size_t support_read_file(const char *path, void *to, size_t size);

#endif
