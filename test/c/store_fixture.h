/* What the programs that test the snapshot store share: directories, small terms, a store's content as one comparable text. */
#ifndef STORE_FIXTURE_H
#define STORE_FIXTURE_H

#include <dirent.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fdn_error.h"
#include "engine/store.h"

#define FIXTURE __attribute__((unused)) static

/* Not a test of the store: the environment does not work. */
#define MUST(condition)                                                                                                                \
    do {                                                                                                                               \
        if (!(condition)) {                                                                                                            \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                                                            \
            abort();                                                                                                                   \
        }                                                                                                                              \
    } while (0)

/*
 * Everything is in one directory that main makes and removes, since a test that fails runs no teardown; in memory where the system has
 * such a place, since these tests open thousands of stores.
 */
static char fixture_root[40];

FIXTURE void fixture_begin(void)
{
    struct stat st;
    const char *base = stat("/dev/shm", &st) == 0 && access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp";
    snprintf(fixture_root, sizeof fixture_root, "%s/fdn-store-XXXXXX", base);
    MUST(mkdtemp(fixture_root) != NULL);
}

FIXTURE int fixture_remove(const char *path, const struct stat *st, int kind, struct FTW *ftw)
{
    (void)st;
    (void)kind;
    (void)ftw;
    return remove(path);
}

FIXTURE void fixture_end(void)
{
    nftw(fixture_root, fixture_remove, 8, FTW_DEPTH | FTW_PHYS);
}

FIXTURE void temp_dir(char *path, size_t size)
{
    snprintf(path, size, "%s/XXXXXX", fixture_root);
    MUST(mkdtemp(path) != NULL);
}

FIXTURE void each_file(const char *dir, void (*f)(const char *path, const char *name, void *context), void *context)
{
    DIR *d = opendir(dir);
    MUST(d != NULL);
    for (struct dirent *e; (e = readdir(d)) != NULL;) {
        char path[4600];
        if (e->d_name[0] == '.')
            continue;
        snprintf(path, sizeof path, "%s/%s", dir, e->d_name);
        f(path, e->d_name, context);
    }
    closedir(d);
}

FIXTURE void remove_one(const char *path, const char *name, void *context)
{
    (void)name;
    (void)context;
    unlink(path);
}

FIXTURE void empty_dir(const char *dir)
{
    each_file(dir, remove_one, NULL);
}

FIXTURE void remove_dir(const char *dir)
{
    empty_dir(dir);
    rmdir(dir);
}

FIXTURE uint8_t *read_whole(const char *path, size_t *size)
{
    FILE *f = fopen(path, "rb");
    struct stat st;
    MUST(f != NULL && fstat(fileno(f), &st) == 0);
    uint8_t *data = malloc((size_t)st.st_size + 1);
    *size = (size_t)st.st_size;
    MUST(data != NULL && fread(data, 1, *size, f) == *size);
    fclose(f);
    return data;
}

FIXTURE void write_whole(const char *path, const uint8_t *data, size_t size)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    MUST(fd >= 0 && write(fd, data, size) == (ssize_t)size);
    close(fd);
}

FIXTURE void copy_one(const char *path, const char *name, void *context)
{
    char to[4600];
    size_t size;
    uint8_t *data = read_whole(path, &size);
    snprintf(to, sizeof to, "%s/%s", (const char *)context, name);
    write_whole(to, data, size);
    free(data);
}

/* The files as a kill -9 at this moment would leave them: the page cache is what reading sees. */
FIXTURE void copy_dir(const char *from, char *to)
{
    empty_dir(to);
    each_file(from, copy_one, to);
}

/* <<"k<n>">> and <<"v<n>...">> as external terms. */
FIXTURE size_t binary_term(uint8_t *buf, const void *data, size_t len)
{
    uint8_t head[6] = {131, 109, (uint8_t)(len >> 24), (uint8_t)(len >> 16), (uint8_t)(len >> 8), (uint8_t)len};
    memcpy(buf, head, 6);
    memcpy(buf + 6, data, len);
    return len + 6;
}

FIXTURE size_t key_term(uint8_t *buf, unsigned n)
{
    char text[16];
    int len = snprintf(text, sizeof text, "k%u", n);
    return binary_term(buf, text, (size_t)len);
}

/* A value that tells which write it is of: any mix of two values is neither. */
FIXTURE uint8_t *value_term(unsigned n, size_t bytes, size_t *len)
{
    uint8_t *buf = malloc(bytes + 16), *body = malloc(bytes + 1);
    MUST(buf != NULL && body != NULL);
    for (size_t i = 0; i < bytes; i++)
        body[i] = (uint8_t)(i < 4 ? n >> 8 * i : n * 2654435761u >> (i % 24));
    *len = binary_term(buf, body, bytes);
    free(body);
    return buf;
}

FIXTURE int put(fdn_store *s, unsigned key, unsigned value, size_t bytes, bool wait, uint64_t *lsn)
{
    uint8_t k[32];
    size_t vlen;
    uint8_t *v = value_term(value, bytes, &vlen);
    fdn_store_op op = {.kind = FDN_STORE_PUT, .key = k, .key_len = key_term(k, key), .value = v, .value_len = vlen};
    fdn_store_result result;
    int rc = fdn_store_write(s, &op, 1, wait, &result);
    if (lsn)
        *lsn = op.lsn;
    free(v);
    return rc;
}

FIXTURE int erase(fdn_store *s, unsigned key, bool wait)
{
    uint8_t k[32];
    fdn_store_op op = {.kind = FDN_STORE_DELETE, .key = k, .key_len = key_term(k, key)};
    fdn_store_result result;
    return fdn_store_write(s, &op, 1, wait, &result);
}

/* Two puts and a delete as one record. */
FIXTURE int put_two(fdn_store *s, unsigned a, unsigned b, unsigned gone, unsigned value, size_t bytes)
{
    uint8_t k[3][32];
    size_t vlen;
    uint8_t *v = value_term(value, bytes, &vlen);
    fdn_store_op ops[3] = {{.kind = FDN_STORE_PUT, .key = k[0], .key_len = key_term(k[0], a), .value = v, .value_len = vlen},
                           {.kind = FDN_STORE_PUT, .key = k[1], .key_len = key_term(k[1], b), .value = v, .value_len = vlen},
                           {.kind = FDN_STORE_DELETE, .key = k[2], .key_len = key_term(k[2], gone)}};
    fdn_store_result result;
    int rc = fdn_store_write(s, ops, 3, true, &result);
    free(v);
    return rc;
}

/* 0 and whether the key holds value_term(value, bytes); FDN_EUNKNOWN where there is none. */
FIXTURE int holds(fdn_store *s, unsigned key, unsigned value, size_t bytes, bool *equal)
{
    uint8_t k[32];
    size_t klen = key_term(k, key), vlen;
    fdn_store_value got;
    int rc = fdn_store_read(s, k, klen, true, SIZE_MAX, &got);
    if (rc == 0) {
        uint8_t *v = value_term(value, bytes, &vlen);
        *equal = got.len == vlen && memcmp(got.data, v, vlen) == 0;
        free(v);
    }
    fdn_store_value_free(&got);
    return rc;
}

typedef struct {
    uint64_t sum;
    uint64_t versions;
    size_t count;
} digest;

FIXTURE int digest_visit(void *context, const fdn_store_value *value)
{
    digest *d = context;
    uint64_t h = 1469598103934665603u;
    for (size_t i = 0; i < value->key_len; i++)
        h = (h ^ value->key[i]) * 1099511628211u;
    for (size_t i = 0; i < value->len; i++)
        h = (h ^ value->data[i]) * 1099511628211u;
    d->sum += h;
    d->versions += (h | 1) * value->lsn;
    d->count++;
    return 0;
}

/* The whole table as one number, order apart. */
FIXTURE int digest_of(fdn_store *s, digest *d)
{
    uint64_t cursor = 0;
    size_t count;
    memset(d, 0, sizeof *d);
    do {
        int rc = fdn_store_scan(s, &cursor, 16, &count, digest_visit, d);
        if (rc != 0)
            return rc;
    } while (cursor != 0);
    return 0;
}

FIXTURE bool same_digest(const digest *a, const digest *b)
{
    return a->sum == b->sum && a->count == b->count && a->versions == b->versions;
}

FIXTURE fdn_store_options small_store(const char *path, int durability)
{
    fdn_store_options options = {.path = path, .durability = durability, .segment_bytes = FDN_STORE_SEGMENT_MIN};
    return options;
}

#endif
