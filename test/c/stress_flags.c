/*
 * Threads against a flag file, under TSan: two maps of one file, readers, setters, and a thread that rolls back, checks and re-arms.
 *
 * - Readers never see a value that nobody ever set (a torn one).
 * - While a group is rolled back every flag of it reads off, however many sets were under way: the roller rolls back, and until it
 * re-arms no reader that starts after the rollback sees a flag on.
 * - After a re-arm nothing is on before somebody sets it under the new epoch.
 * STRESS_ROUNDS: rollbacks (default 3000).
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fdn_error.h"
#include "shared/flag_map.h"

enum { FLAGS = 4, SETTERS = 2, READERS = 2, LOOKS = 50 };

static fdn_flags *maps[2];
static _Atomic bool stop;
static _Atomic unsigned long long reads, sets, refused;

static void fail(const char *what, unsigned long long value)
{
    fprintf(stderr, "stress_flags: %s (%llx)\n", what, value);
    exit(1);
}

static bool somebody_sets(fdn_flag_value v)
{
    return v == FDN_FLAG_FALSE || v == FDN_FLAG_TRUE || v == (FDN_FLAG_PERCENTAGE | 17) || v == (FDN_FLAG_PERCENTAGE | 100);
}

static fdn_flag_value look(const fdn_flags *f, uint32_t i)
{
    uint64_t epoch = atomic_load_explicit(fdn_flags_epoch_word(f, 0), memory_order_acquire);
    return fdn_flag_in_force(epoch, atomic_load_explicit(fdn_flags_value_word(f, i), memory_order_acquire));
}

static void *reader(void *arg)
{
    const fdn_flags *f = arg;
    while (!atomic_load(&stop)) {
        for (uint32_t i = 0; i < FLAGS; i++) {
            fdn_flag_value v = look(f, i);
            if (!somebody_sets(v))
                fail("a value that nobody set", v);
        }
        atomic_fetch_add_explicit(&reads, FLAGS, memory_order_relaxed);
    }
    return NULL;
}

static void *setter(void *arg)
{
    static const fdn_flag_value values[] = {FDN_FLAG_TRUE, FDN_FLAG_PERCENTAGE | 17, FDN_FLAG_PERCENTAGE | 100, FDN_FLAG_FALSE};
    fdn_flags *f = arg;
    for (unsigned n = 0; !atomic_load(&stop); n++) {
        int rc = fdn_flags_set_at(f, n % FLAGS, values[n / FLAGS % 4]);
        if (rc == 0)
            atomic_fetch_add_explicit(&sets, 1, memory_order_relaxed);
        else if (rc == FDN_EROLLEDBACK)
            atomic_fetch_add_explicit(&refused, 1, memory_order_relaxed);
        else
            fail(fdn_error_name(rc), 0);
    }
    return NULL;
}

static void roll(fdn_flags *f, fdn_flags *other, unsigned rounds)
{
    for (unsigned n = 0; n < rounds; n++) {
        uint64_t epoch = 0;
        unsigned long long before = atomic_load(&sets);
        for (int k = 0; k < 20000 && atomic_load(&sets) == before; k++)
            usleep(10);
        int rc = fdn_flags_flip(n & 1 ? f : other, "g", "stress", "roller", &epoch);
        if (rc != 0)
            fail(fdn_error_name(rc), 0);
        for (unsigned k = 0; k < LOOKS; k++)
            for (uint32_t i = 0; i < FLAGS; i++)
                if (look(f, i) != FDN_FLAG_FALSE || look(other, i) != FDN_FLAG_FALSE)
                    fail("on after a rollback", atomic_load(fdn_flags_value_word(f, i)));
        /* No value word may carry the epoch of the rollback: that is what a re-arm would bring back. */
        for (uint32_t i = 0; i < FLAGS; i++) {
            uint64_t word = atomic_load(fdn_flags_value_word(f, i));
            if (fdn_flag_epoch(word) >= epoch)
                fail("a re-arm would bring back", word);
        }
        rc = fdn_flags_unflip(f, "g", epoch, "roller");
        if (rc != 0)
            fail(fdn_error_name(rc), epoch);
    }
}

int main(void)
{
    char dir[] = "/tmp/fdn-stress-XXXXXX", path[64], lock[64];
    const char *text = getenv("STRESS_ROUNDS");
    unsigned rounds = text ? (unsigned)strtoul(text, NULL, 10) : 3000;
    pthread_t threads[SETTERS + READERS];
    if (mkdtemp(dir) == NULL)
        fail("no folder", 0);
    snprintf(path, sizeof path, "%s/flags", dir);
    snprintf(lock, sizeof lock, "%s/flags.lock", dir);
    for (int i = 0; i < 2; i++)
        if (fdn_flags_open(&maps[i], path, FDN_FLAGS_CREATE) != 0)
            fail("open", 0);
    for (int i = 0; i < FLAGS; i++) {
        char name[8];
        snprintf(name, sizeof name, "f%d", i);
        if (fdn_flags_declare(maps[0], name, "g", true, -1, NULL) != 0)
            fail("declare", 0);
    }
    for (int i = 0; i < SETTERS + READERS; i++)
        pthread_create(&threads[i], NULL, i < SETTERS ? setter : reader, maps[i & 1]);
    roll(maps[0], maps[1], rounds);
    atomic_store(&stop, true);
    for (int i = 0; i < SETTERS + READERS; i++)
        pthread_join(threads[i], NULL);
    if (fdn_flags_verify(maps[1]) != 0)
        fail("verify", 0);
    printf("%u rollbacks, %llu sets, %llu refused, %llu reads\n", rounds, (unsigned long long)sets, (unsigned long long)refused,
           (unsigned long long)reads);
    for (int i = 0; i < 2; i++)
        fdn_flags_close(maps[i]);
    unlink(path);
    unlink(lock);
    rmdir(dir);
    return sets > 0 && refused > 0 ? 0 : 1;
}
