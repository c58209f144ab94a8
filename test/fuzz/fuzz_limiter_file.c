/*
 * Any bytes as a limiter's file: opening ends, refuses without changing a byte, or gives a table that can be hit. The first byte
 * chooses what is asked for, and may ask for repaired checksums, without which no input gets past them; the rest is laid over a sound
 * file.
 */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fdn_hash.h"
#include "engine/limiter_file.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define CAPACITY 4
#define BYTES (FDN_LIMITER_FILE_HEADER + 6 * sizeof(fdn_limiter_bucket))

static char dir[64], path[96];
static uint8_t sound[BYTES];

static void check(int condition)
{
    if (!condition)
        abort();
}

static void clean_up(void)
{
    unlink(path);
    rmdir(dir);
}

static fdn_limiter_config config_of(uint8_t choice)
{
    return (fdn_limiter_config){.algorithm = choice % 3,
                                .on_full = choice / 3 % 3,
                                .clock = choice & 64 ? FDN_LIMITER_MANUAL : FDN_LIMITER_AUTO,
                                .limit = 10,
                                .period_ms = 1000,
                                .burst = 10,
                                .capacity = CAPACITY};
}

static void write_file(const uint8_t *bytes, size_t n)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    check(fd >= 0 && write(fd, bytes, n) == (ssize_t)n);
    close(fd);
}

static size_t read_file(uint8_t *bytes, size_t size)
{
    int fd = open(path, O_RDONLY);
    check(fd >= 0);
    ssize_t n = read(fd, bytes, size);
    check(n >= 0);
    close(fd);
    return (size_t)n;
}

/* A sound file with some states in it. */
static void prepare(void)
{
    fdn_limiter *t;
    fdn_limiter_fit fit;
    fdn_limiter_opening why;
    fdn_limiter_config config = config_of(0);
    snprintf(dir, sizeof dir, "%s/fdn-fuzz-XXXXXX", access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
    check(mkdtemp(dir) != NULL);
    snprintf(path, sizeof path, "%s/limits", dir);
    check(atexit(clean_up) == 0);
    check(fdn_limiter_open(&config, path, NULL, &t, &fit, &why) == 0);
    for (uint64_t k = 1; k < 5; k++)
        (void)fdn_limiter_hit(t, 1, fdn_limiter_preset(t), k * 0x9e3779b97f4a7c15ULL, k);
    fdn_limiter_destroy(t);
    check(read_file(sound, sizeof sound) == sizeof sound);
}

static void repair(uint8_t *bytes, uint8_t choice)
{
    fdn_limiter_header *h = (fdn_limiter_header *)(void *)bytes;
    if (choice & 128)
        h->identity.algorithm = choice % 3;
    h->identity.checksum = fdn_hash_check(&h->identity, offsetof(fdn_limiter_identity, checksum), 0);
    h->stamp.checksum = fdn_hash_check(&h->stamp, offsetof(fdn_limiter_stamp, checksum), h->identity.checksum);
}

static void use(fdn_limiter *t)
{
    fdn_limiter_stats stats;
    for (uint64_t k = 0; k < 40; k++) {
        fdn_limiter_debit debit;
        uint64_t hash = k * 0x9e3779b97f4a7c15ULL;
        if (fdn_limiter_take(t, 1, fdn_limiter_preset(t), hash, 1 + k % 3, &debit).allowed && k % 2)
            (void)fdn_limiter_give_back(t, &debit);
        (void)fdn_limiter_hit(t, 1, fdn_limiter_preset(t), hash, 0);
        (void)fdn_limiter_used(t, fdn_limiter_preset(t), hash);
    }
    (void)fdn_limiter_reset(t, 1000, 0x9e3779b97f4a7c15ULL);
    (void)fdn_limiter_advance(t, 500);
    fdn_limiter_stats_of(t, &stats);
    check(!stats.faulted && stats.live <= stats.slots);
    check(fdn_limiter_look_after(t) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static _Alignas(64) uint8_t bytes[2 * BYTES], after[2 * BYTES];
    fdn_limiter *t;
    fdn_limiter_fit fit;
    fdn_limiter_opening why;
    if (path[0] == '\0')
        prepare();
    if (size < 3)
        return 0;
    uint8_t choice = data[0];
    size_t at = ((size_t)data[1] << 8 | data[2]) % BYTES, n = size - 3;
    data += 3;
    if (n > sizeof bytes - at)
        n = sizeof bytes - at;
    memcpy(bytes, sound, sizeof sound);
    memset(bytes + sizeof sound, 0, sizeof bytes - sizeof sound);
    if (n > 0)
        memcpy(bytes + at, data, n);
    /* The length of a sound file; or as much as there is of the input. */
    size_t length = choice & 32 ? at + n : BYTES;
    if (!(choice & 16))
        repair(bytes, choice);
    write_file(bytes, length);
    fdn_limiter_config config = config_of(choice);
    if (fdn_limiter_open(&config, path, NULL, &t, &fit, &why) != 0) {
        check(read_file(after, sizeof after) == length && memcmp(after, bytes, length) == 0);
        return 0;
    }
    use(t);
    fdn_limiter_destroy(t);
    /*
     * What was used is in order again; but for a word of sliding_window in the unit of another period, which a hit may take to be far
     * ahead in its own. Opening drops such words, and then nothing more.
     */
    check(fdn_limiter_open(&config, path, NULL, &t, &fit, &why) == 0);
    check(why.dropped == 0 || config.algorithm == FDN_LIMITER_SLIDING_WINDOW);
    fdn_limiter_destroy(t);
    check(fdn_limiter_open(&config, path, NULL, &t, &fit, &why) == 0 && why.dropped == 0);
    fdn_limiter_destroy(t);
    return 0;
}
