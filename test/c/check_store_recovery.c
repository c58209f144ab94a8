/*
 * Damage. A small store is cut at every byte, flipped at every bit, torn at every byte: it opens with exactly what was acknowledged, or
 * with what a crash may leave (a prefix of unsynced writes, on another boot), or it does not open and says where. Never anything else.
 */
#include <check.h>
#include <errno.h>

#include "store_fixture.h"

#define STEPS 8

static char dir[64], image[64];
static digest states[STEPS + 1]; /* after each write */
static uint64_t ends[STEPS + 1]; /* end of the log after each write */
static const uint8_t boot_a[16] = "boot a", boot_b[16] = "boot b";
static char last_segment[64]; /* name */

static void setup(void)
{
    temp_dir(dir, sizeof dir);
    temp_dir(image, sizeof image);
}

static void teardown(void)
{
    remove_dir(dir);
    remove_dir(image);
}

static int try_open(const char *path, const uint8_t *boot, fdn_store **s, fdn_store_place *place)
{
    fdn_store_options options = small_store(path, FDN_STORE_ASYNC);
    options.boot = boot;
    *s = NULL;
    return fdn_store_open(&options, s, place);
}

static void find_last(const char *path, const char *name, void *context)
{
    (void)path;
    (void)context;
    if (strncmp(name, "seg-", 4) == 0 && strcmp(name, last_segment) > 0)
        snprintf(last_segment, sizeof last_segment, "%s", name);
}

static void note(fdn_store *s, int step)
{
    fdn_store_info info;
    ck_assert_int_eq(digest_of(s, &states[step]), 0);
    fdn_store_get_info(s, &info);
    ends[step] = info.used_bytes;
}

/* Puts, an overwrite, a batch, a delete. With `synced`, durable after that many steps, so that the next one carries a WATERMARK. */
static void small_log(fdn_store *s, int synced)
{
    note(s, 0);
    for (int step = 1; step <= STEPS; step++) {
        int rc = step == 4   ? put_two(s, 8, 9, 1, 44, 21)
                 : step == 6 ? erase(s, 8, true)
                             : put(s, (unsigned)step % 4, (unsigned)step, 13, true, NULL);
        ck_assert_int_eq(rc, 0);
        note(s, step);
        if (step == synced)
            ck_assert_int_eq(fdn_store_sync(s), 0);
    }
}

/* dir: the files of a small store, closed or as a kill left them; digests and ends are noted. */
static void make_store(bool closed, int synced)
{
    fdn_store *s;
    fdn_store_place place;
    char live[64];
    temp_dir(live, sizeof live);
    ck_assert_int_eq(try_open(live, boot_a, &s, &place), 0);
    small_log(s, synced);
    if (closed)
        ck_assert_int_eq(fdn_store_close(s), 0);
    copy_dir(live, dir);
    fdn_store_free(s);
    remove_dir(live);
    last_segment[0] = 0;
    each_file(dir, find_last, NULL);
}

static char *image_path(void)
{
    static char path[160];
    snprintf(path, sizeof path, "%s/%s", image, last_segment);
    return path;
}

/* What opening the image gives: the number of the state, or -1 for "refused as damaged"; anything else fails the test. */
static int outcome(const uint8_t *boot, uint64_t at, const char *what)
{
    fdn_store *s;
    fdn_store_place place;
    digest d;
    int rc = try_open(image, boot, &s, &place);
    if (rc != 0) {
        ck_assert_msg(rc == FDN_ECORRUPT || rc == FDN_EFOREIGN || rc == FDN_EVERSION, "%s at %llu: %s", what, (unsigned long long)at,
                      fdn_error_name(rc));
        ck_assert_str_eq(place.path, image_path());
        return -1;
    }
    ck_assert_int_eq(digest_of(s, &d), 0);
    fdn_store_free(s);
    for (int step = STEPS; step >= 0; step--) {
        if (same_digest(&d, &states[step]))
            return step;
    }
    ck_abort_msg("%s at %llu: a state that never was", what, (unsigned long long)at);
    return -2;
}

/* Every bit of the records. On a closed store, and on one that was killed in this boot, nothing may change unnoticed. */
START_TEST(every_flipped_bit)
{
    bool closed = _i == 0;
    make_store(closed, 3);
    size_t size;
    copy_dir(dir, image);
    uint8_t *data = read_whole(image_path(), &size);
    uint64_t end = closed ? size : ends[STEPS];
    unsigned refused = 0, unharmed = 0;
    for (uint64_t bit = FDN_SEGMENT_HEADER * 8; bit < end * 8; bit++) {
        copy_dir(dir, image);
        data[bit / 8] ^= (uint8_t)(1 << bit % 8);
        write_whole(image_path(), data, size);
        data[bit / 8] ^= (uint8_t)(1 << bit % 8);
        int step = outcome(closed ? boot_b : boot_a, bit, "flipped bit");
        ck_assert_msg(step == -1 || step == STEPS, "flipped bit %llu of byte %llu: state %d", (unsigned long long)(bit % 8),
                      (unsigned long long)(bit / 8), step);
        step == -1 ? refused++ : unharmed++;
    }
    /* Unharmed: only the WATERMARK behind the SEAL of a closed store may go unread. */
    ck_assert_uint_le(unharmed, closed ? FDN_RECORD_MARK * 8 : 0);
    ck_assert_uint_gt(refused, 5000);
    free(data);
}
END_TEST

/* Bytes behind the end of the log of a killed store: any of them is somebody else's doing, or nothing. */
START_TEST(bytes_behind_the_end)
{
    size_t size;
    make_store(false, 3);
    copy_dir(dir, image);
    uint8_t *data = read_whole(image_path(), &size);
    for (uint64_t at = ends[STEPS]; at < ends[STEPS] + 200; at++) {
        copy_dir(dir, image);
        data[at] ^= 0x41;
        write_whole(image_path(), data, size);
        data[at] ^= 0x41;
        int step = outcome(boot_a, at, "byte behind the end");
        ck_assert(step == -1 || step == STEPS);
        copy_dir(dir, image);
        ck_assert_int_eq(outcome(boot_b, at, "untouched"), STEPS);
    }
    free(data);
}
END_TEST

/* The file is shorter than the store made it: always seen. */
START_TEST(every_truncation)
{
    bool closed = _i == 0;
    size_t size;
    make_store(closed, 3);
    copy_dir(dir, image);
    uint8_t *data = read_whole(image_path(), &size);
    uint64_t end = closed ? size : ends[STEPS] + 300;
    for (uint64_t at = 0; at < end; at++) {
        copy_dir(dir, image);
        write_whole(image_path(), data, at);
        int step = outcome(closed ? boot_b : boot_a, at, "truncation");
        /* Behind the SEAL nothing is needed. */
        ck_assert_msg(step == -1 || (closed && step == STEPS && at >= size - FDN_RECORD_MARK), "cut at %llu: state %d",
                      (unsigned long long)at, step);
    }
    free(data);
}
END_TEST

/* Power loss: everything from a byte on never reached the disk. What was synced is there, the rest up to a whole write. */
START_TEST(every_torn_tail_on_another_boot)
{
    int synced = _i ? 5 : 0;
    size_t size;
    make_store(false, synced);
    copy_dir(dir, image);
    uint8_t *data = read_whole(image_path(), &size), *torn = calloc(1, size);
    int least = STEPS;
    for (uint64_t at = FDN_SEGMENT_HEADER; at <= ends[STEPS]; at++) {
        int whole = STEPS;
        copy_dir(dir, image);
        memset(torn, 0, size);
        memcpy(torn, data, at);
        while (memcmp(torn, data, ends[whole]) != 0) /* a record may end in zeros */
            whole--;
        write_whole(image_path(), torn, size);
        int step = outcome(boot_b, at, "torn tail");
        ck_assert_msg(step == whole, "torn at %llu: state %d, whole writes %d", (unsigned long long)at, step, whole);
        least = step < least ? step : least;
    }
    ck_assert_int_eq(least, 0);
    free(torn);
    free(data);
}
END_TEST

/* A hole below what a WATERMARK vouches for is damage even after a power loss; behind it, it is where the log ends. */
START_TEST(holes_on_another_boot)
{
    int synced = 5;
    size_t size;
    make_store(false, synced);
    copy_dir(dir, image);
    uint8_t *data = read_whole(image_path(), &size), *holed = malloc(size);
    for (int step = 1; step <= STEPS; step++) {
        copy_dir(dir, image);
        memcpy(holed, data, size);
        memset(holed + ends[step - 1], 0, ends[step] - ends[step - 1]);
        write_whole(image_path(), holed, size);
        int got = outcome(boot_b, ends[step - 1], "hole");
        /* The write after the sync carries the WATERMARK: with it gone nothing vouches, but the log ends there anyway. */
        ck_assert_msg(got == (step <= synced ? -1 : step - 1), "hole in step %d: %d", step, got);
        copy_dir(dir, image);
        write_whole(image_path(), holed, size);
        got = outcome(boot_a, ends[step - 1], "hole");
        ck_assert_msg(got == -1 || (step == STEPS && got == STEPS - 1), "hole in step %d, same boot: %d", step, got);
    }
    free(holed);
    free(data);
}
END_TEST

/* kill -9 in the middle of an append: everything of the record is there but its first word. A batch contains whole inner records. */
START_TEST(killed_in_the_middle_of_an_append)
{
    size_t size;
    make_store(false, 2);
    copy_dir(dir, image);
    uint8_t *data = read_whole(image_path(), &size), *torn = calloc(1, size);
    for (int step = 1; step <= STEPS; step++) {
        for (uint64_t at = ends[step - 1] + 8; at <= ends[step]; at++) {
            uint64_t begin = ends[step - 1];
            copy_dir(dir, image);
            memset(torn, 0, size);
            memcpy(torn, data, at);
            /* Step 3 is led by a WATERMARK, a record of its own. */
            if (step == 3 && at >= begin + FDN_RECORD_MARK)
                begin += FDN_RECORD_MARK;
            memset(torn + begin, 0, 8);
            write_whole(image_path(), torn, size);
            int got = outcome(boot_a, at, "half an append");
            ck_assert_msg(got == step - 1, "killed in step %d at %llu: state %d", step, (unsigned long long)at, got);
        }
    }
    free(torn);
    free(data);
}
END_TEST

/* After a recovery the store goes on, with LSNs never used before, and is found again by the next. */
START_TEST(life_after_a_cut)
{
    fdn_store *s;
    fdn_store_place place;
    fdn_store_info info;
    uint64_t lsn;
    bool equal = false;
    size_t size;
    make_store(false, 0);
    copy_dir(dir, image);
    uint8_t *data = read_whole(image_path(), &size);
    data[ends[STEPS] - 10] ^= 1;
    write_whole(image_path(), data, size);
    ck_assert_int_eq(try_open(image, boot_b, &s, &place), 0);
    fdn_store_get_info(s, &info);
    ck_assert_uint_gt(info.recovered_cut, 0);
    ck_assert_int_eq(put(s, 30, 300, 40, true, &lsn), 0);
    ck_assert_uint_gt(lsn, states[STEPS].count + FDN_STORE_SEGMENT_MIN / FDN_RECORD_HEADER);
    char again[64];
    temp_dir(again, sizeof again);
    copy_dir(image, again);
    fdn_store_free(s);
    ck_assert_int_eq(try_open(again, boot_b, &s, &place), 0);
    ck_assert_int_eq(holds(s, 30, 300, 40, &equal), 0);
    ck_assert(equal);
    fdn_store_free(s);
    remove_dir(again);
    free(data);
}
END_TEST

/* Damage in a sealed segment is not the torn tail of a crash, whatever the boot. */
START_TEST(damage_in_a_sealed_segment)
{
    fdn_store *s;
    fdn_store_place place;
    size_t size;
    make_store(true, 0);
    char sealed[160];
    snprintf(sealed, sizeof sealed, "%s/%s", dir, last_segment);
    ck_assert_int_eq(try_open(dir, boot_a, &s, &place), 0);
    ck_assert_int_eq(put(s, 1, 1, 1, true, NULL), 0);
    fdn_store_free(s);
    uint8_t *data = read_whole(sealed, &size);
    data[ends[2] + 9] ^= 4;
    write_whole(sealed, data, size);
    ck_assert_int_eq(try_open(dir, boot_b, &s, &place), FDN_ECORRUPT);
    ck_assert_str_eq(place.path, sealed);
    ck_assert_uint_eq(place.offset, ends[2]);
    /* Nothing was changed: put right, it opens. */
    data[ends[2] + 9] ^= 4;
    write_whole(sealed, data, size);
    ck_assert_int_eq(try_open(dir, boot_b, &s, &place), 0);
    fdn_store_free(s);
    free(data);
}
END_TEST

START_TEST(foreign_files_and_other_versions)
{
    fdn_store *s;
    fdn_store_place place;
    size_t size;
    make_store(true, 0);
    copy_dir(dir, image);
    write_whole(image_path(), (const uint8_t *)"%PDF-1.7 not a segment", 22);
    ck_assert_int_eq(try_open(image, boot_a, &s, &place), FDN_EFOREIGN);
    ck_assert_str_eq(place.path, image_path());
    write_whole(image_path(), (const uint8_t *)"", 0);
    ck_assert_int_eq(try_open(image, boot_a, &s, &place), FDN_EFOREIGN);
    /* A segment of another store. */
    char name[64];
    snprintf(name, sizeof name, "%s", last_segment);
    make_store(true, 0);
    char from[160];
    snprintf(from, sizeof from, "%s/%s", dir, last_segment);
    uint8_t *data = read_whole(from, &size);
    char other[160];
    snprintf(other, sizeof other, "%s/seg-00000000000000ff.fdn", dir);
    write_whole(other, data, size);
    ck_assert_int_eq(try_open(dir, boot_a, &s, &place), FDN_EFOREIGN);
    ck_assert_str_eq(place.path, other);
    free(data);
}
END_TEST

/* Opening and closing for ever leaves few files. */
START_TEST(many_lives)
{
    fdn_store *s;
    fdn_store_place place;
    fdn_store_info info;
    bool more, equal = false;
    for (unsigned i = 0; i < 100; i++) {
        ck_assert_int_eq(try_open(dir, boot_a, &s, &place), 0);
        ck_assert_int_eq(put(s, i % 5, i, 20, true, NULL), 0);
        for (int k = 0; k < 1000; k++) {
            ck_assert_int_eq(fdn_store_maintain(s, 1 << 20, &more), 0);
            if (!more)
                break;
        }
        fdn_store_get_info(s, &info);
        ck_assert_uint_lt(info.segments, 20);
        fdn_store_free(s);
    }
    ck_assert_int_eq(try_open(dir, boot_a, &s, &place), 0);
    for (unsigned i = 95; i < 100; i++) {
        ck_assert_int_eq(holds(s, i % 5, i, 20, &equal), 0);
        ck_assert(equal);
    }
    fdn_store_free(s);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("store recovery");
    TCase *tc = tcase_create("recovery");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_set_timeout(tc, 240);
    tcase_add_loop_test(tc, every_flipped_bit, 0, 2);
    tcase_add_test(tc, bytes_behind_the_end);
    tcase_add_loop_test(tc, every_truncation, 0, 2);
    tcase_add_loop_test(tc, every_torn_tail_on_another_boot, 0, 2);
    tcase_add_test(tc, holes_on_another_boot);
    tcase_add_test(tc, killed_in_the_middle_of_an_append);
    tcase_add_test(tc, life_after_a_cut);
    tcase_add_test(tc, damage_in_a_sealed_segment);
    tcase_add_test(tc, foreign_files_and_other_versions);
    tcase_add_test(tc, many_lives);
    suite_add_tcase(suite, tc);
    SRunner *r = srunner_create(suite);
    fixture_begin();
    srunner_run_all(r, CK_NORMAL);
    fixture_end();
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed == 0 ? 0 : 1;
}
