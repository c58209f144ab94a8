/* The snapshot store against a naive model: writes, batches, rotation, compaction, closing, and being killed. */
#include <check.h>
#include <errno.h>

#include "engine/store_internal.h"
#include "store_fixture.h"

static char dir[64], image[64];

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

static fdn_store *opened(const fdn_store_options *options)
{
    fdn_store *s = NULL;
    fdn_store_place place;
    int rc = fdn_store_open(options, &s, &place);
    ck_assert_msg(rc == 0, "open: %s at %s:%llu", fdn_error_name(rc), place.path, (unsigned long long)place.offset);
    return s;
}

START_TEST(writes_are_read_back)
{
    fdn_store_options options = small_store(dir, _i);
    fdn_store *s = opened(&options);
    bool equal = false;
    uint64_t first, second;
    ck_assert_int_eq(holds(s, 1, 0, 0, &equal), FDN_EUNKNOWN);
    ck_assert_int_eq(put(s, 1, 10, 100, true, &first), 0);
    ck_assert_int_eq(put(s, 1, 11, 30000, true, &second), 0);
    ck_assert_uint_lt(first, second);
    ck_assert_int_eq(holds(s, 1, 11, 30000, &equal), 0);
    ck_assert(equal);
    ck_assert_int_eq(erase(s, 1, true), 0);
    ck_assert_int_eq(holds(s, 1, 0, 0, &equal), FDN_EUNKNOWN);
    ck_assert_int_eq(erase(s, 1, true), 0);
    ck_assert_int_eq(put(s, 2, 12, 0, true, NULL), 0);
    ck_assert_int_eq(fdn_store_sync(s), 0);
    fdn_store_info info;
    fdn_store_get_info(s, &info);
    ck_assert_uint_eq(info.keys, 1);
    ck_assert_uint_eq(info.durable_lsn, info.lsn);
    ck_assert_int_eq(fdn_store_close(s), 0);
    ck_assert_int_eq(put(s, 3, 0, 1, true, NULL), FDN_ECLOSED);
    ck_assert_int_eq(holds(s, 2, 12, 0, &equal), FDN_ECLOSED);
    fdn_store_free(s);
    s = opened(&options);
    ck_assert_int_eq(holds(s, 2, 12, 0, &equal), 0);
    ck_assert(equal);
    ck_assert_int_eq(put(s, 4, 0, 1, true, &second), 0);
    fdn_store_free(s);
}
END_TEST

START_TEST(conditions_and_batches_are_all_or_nothing)
{
    fdn_store_options options = small_store(dir, FDN_STORE_ASYNC);
    fdn_store *s = opened(&options);
    fdn_store_result r;
    uint64_t lsn;
    digest before, after;
    uint8_t k1[32], k2[32], v[8];
    size_t l1 = key_term(k1, 1), l2 = key_term(k2, 2), vl = binary_term(v, "x", 1);
    ck_assert_int_eq(put(s, 1, 1, 10, true, &lsn), 0);
    fdn_store_op ops[2] = {{.kind = FDN_STORE_PUT, .key = k2, .key_len = l2, .value = v, .value_len = vl},
                           {.kind = FDN_STORE_EXPECT, .condition = FDN_STORE_VERSION, .version = lsn + 1, .key = k1, .key_len = l1}};
    ck_assert_int_eq(digest_of(s, &before), 0);
    ck_assert_int_eq(fdn_store_write(s, ops, 2, true, &r), FDN_ESTALE);
    ck_assert_uint_eq(r.conflict, 1);
    ck_assert(!r.absent);
    ck_assert_uint_eq(r.version, lsn);
    ck_assert_int_eq(digest_of(s, &after), 0);
    ck_assert(same_digest(&before, &after));
    ops[1].version = lsn;
    ck_assert_int_eq(fdn_store_write(s, ops, 2, true, &r), 0);
    ops[1].condition = FDN_STORE_ABSENT;
    ck_assert_int_eq(fdn_store_write(s, ops, 2, true, &r), FDN_ESTALE);
    ops[1].kind = FDN_STORE_DELETE;
    ops[1].condition = FDN_STORE_VERSION;
    ck_assert_int_eq(fdn_store_write(s, ops, 2, true, &r), 0);
    ops[0].condition = FDN_STORE_VERSION;
    ops[0].version = ops[0].lsn;
    ops[1].condition = FDN_STORE_ABSENT;
    ck_assert_int_eq(fdn_store_write(s, ops, 2, true, &r), 0);
    ck_assert_int_eq(digest_of(s, &before), 0);
    ck_assert_uint_eq(before.count, 1);
    copy_dir(dir, image);
    fdn_store_free(s);
    options.path = image;
    s = opened(&options);
    ck_assert_int_eq(digest_of(s, &after), 0);
    ck_assert(same_digest(&before, &after));
    fdn_store_free(s);
}
END_TEST

/* Put and delete of one key in one batch: the last one counts, in the table and after recovery. */
START_TEST(one_key_twice_in_a_batch)
{
    fdn_store_options options = small_store(dir, FDN_STORE_ASYNC);
    fdn_store *s = opened(&options);
    bool equal;
    ck_assert_int_eq(put_two(s, 1, 1, 1, 5, 50), 0);
    ck_assert_int_eq(holds(s, 1, 5, 50, &equal), FDN_EUNKNOWN);
    ck_assert_int_eq(put_two(s, 2, 2, 3, 6, 50), 0);
    ck_assert_int_eq(put_two(s, 2, 4, 2, 7, 50), 0);
    digest before, after;
    ck_assert_int_eq(digest_of(s, &before), 0);
    ck_assert_uint_eq(before.count, 1);
    copy_dir(dir, image);
    fdn_store_free(s);
    options.path = image;
    s = opened(&options);
    ck_assert_int_eq(digest_of(s, &after), 0);
    ck_assert(same_digest(&before, &after));
    fdn_store_free(s);
}
END_TEST

START_TEST(sizes_have_limits)
{
    fdn_store_options options = small_store(dir, FDN_STORE_ASYNC);
    fdn_store *s = opened(&options);
    fdn_store_result r;
    uint8_t k[32], v[8] = {0};
    bool equal = false;
    fdn_store_op op = {.kind = FDN_STORE_PUT, .key = k, .key_len = key_term(k, 1), .value = v, .value_len = FDN_STORE_VALUE_MAX + 1};
    ck_assert_int_eq(fdn_store_write(s, &op, 1, true, &r), FDN_ETOOBIG);
    op.value_len = 1;
    op.key_len = FDN_STORE_KEY_MAX + 1;
    ck_assert_int_eq(fdn_store_write(s, &op, 1, true, &r), FDN_ETOOBIG);
    op.key_len = 0;
    ck_assert_int_eq(fdn_store_write(s, &op, 1, true, &r), FDN_EINVAL);
    /* Larger than a segment: it gets one of its own. */
    ck_assert_int_eq(put(s, 1, 3, 1 << 20, false, NULL), FDN_EBUSY);
    ck_assert_int_eq(put(s, 1, 3, 1 << 20, true, NULL), 0);
    ck_assert_int_eq(put(s, 2, 4, 10, true, NULL), 0);
    fdn_store_free(s);
    s = opened(&options);
    ck_assert_int_eq(holds(s, 1, 3, 1 << 20, &equal), 0);
    ck_assert(equal);
    fdn_store_free(s);
}
END_TEST

START_TEST(a_second_opener_is_told_who_holds_it)
{
    fdn_store_options options = small_store(dir, FDN_STORE_ASYNC);
    fdn_store *s = opened(&options), *other = NULL;
    fdn_store_place place;
    ck_assert_int_eq(fdn_store_open(&options, &other, &place), FDN_ELOCKED);
    ck_assert_int_eq(place.pid, getpid());
    ck_assert_int_eq(fdn_store_close(s), 0);
    ck_assert_int_eq(fdn_store_open(&options, &other, &place), 0);
    fdn_store_free(other);
    fdn_store_free(s);
}
END_TEST

/* Somebody tidies up "a stale lock". */
START_TEST(the_lock_holds_without_its_file)
{
    fdn_store_options options = small_store(dir, FDN_STORE_ASYNC);
    fdn_store *s = opened(&options), *other = NULL;
    fdn_store_place place;
    char path[128];
    snprintf(path, sizeof path, "%s/lock", dir);
    ck_assert_int_eq(unlink(path), 0);
    ck_assert_int_eq(fdn_store_open(&options, &other, &place), FDN_ELOCKED);
    fdn_store_free(s);
    s = opened(&options);
    fdn_store_free(s);
}
END_TEST

/* In sync mode: "it is gone" is no answer while the delete that made it so is not on disk, nor is "the condition holds". */
START_TEST(what_writes_nothing_waits_for_what_it_saw)
{
    fdn_store_options options = small_store(dir, FDN_STORE_SYNC);
    fdn_store *s = opened(&options);
    fdn_store_info info;
    fdn_store_result result;
    uint8_t k[32];
    fdn_store_op op = {.kind = FDN_STORE_DELETE, .key = k, .key_len = key_term(k, 1)};
    ck_assert_int_eq(put(s, 1, 1, 100, true, NULL), 0);
    ck_assert_int_eq(erase(s, 1, true), 0);
    fdn_store_get_info(s, &info);
    ck_assert_uint_gt(info.lsn, info.durable_lsn);
    ck_assert_int_eq(fdn_store_write(s, &op, 1, true, &result), 0);
    ck_assert_uint_eq(result.lsn, info.lsn);
    op.kind = FDN_STORE_EXPECT;
    op.condition = FDN_STORE_ABSENT;
    ck_assert_int_eq(fdn_store_write(s, &op, 1, true, &result), 0);
    ck_assert_uint_eq(result.lsn, info.lsn);
    ck_assert_int_eq(fdn_store_sync_to(s, result.lsn), 0);
    fdn_store_get_info(s, &info);
    ck_assert_uint_eq(info.lsn, info.durable_lsn);
    fdn_store_free(s);
}
END_TEST

START_TEST(directories_that_cannot_be_used)
{
    fdn_store_options options = small_store("/nonexistent/fdn", FDN_STORE_ASYNC);
    fdn_store *s = NULL;
    fdn_store_place place;
    char file[128];
    ck_assert_int_eq(fdn_store_open(&options, &s, &place), ENOENT);
    ck_assert_str_eq(place.path, "/nonexistent/fdn");
    snprintf(file, sizeof file, "%s/file", dir);
    write_whole(file, (const uint8_t *)"x", 1);
    options.path = file;
    ck_assert_int_eq(fdn_store_open(&options, &s, &place), ENOTDIR);
    options.path = dir;
    options.segment_bytes = 5;
    ck_assert_int_eq(fdn_store_open(&options, &s, &place), FDN_EINVAL);
}
END_TEST

/* ---- the model ---- */
#define KEYS 40

typedef struct {
    bool there[KEYS];
    unsigned value[KEYS];
    size_t bytes[KEYS];
} model;

static void agree(fdn_store *s, const model *m, const char *when)
{
    digest d;
    size_t count = 0;
    for (unsigned k = 0; k < KEYS; k++) {
        bool equal = false;
        int rc = holds(s, k, m->value[k], m->bytes[k], &equal);
        count += m->there[k];
        if (m->there[k])
            ck_assert_msg(rc == 0 && equal, "key %u %s: %s", k, when, rc ? fdn_error_name(rc) : "wrong value");
        else
            ck_assert_msg(rc == FDN_EUNKNOWN, "key %u %s: risen (%s)", k, when, fdn_error_name(rc));
    }
    ck_assert_int_eq(digest_of(s, &d), 0);
    ck_assert_uint_eq(d.count, count);
}

static unsigned rnd(unsigned *seed)
{
    *seed = *seed * 1103515245u + 12345u;
    return *seed >> 8;
}

/* Small segments, long values: thousands of writes rotate and compact all the time; every so often the store is closed or killed. */
START_TEST(model_through_rotation_compaction_and_kills)
{
    unsigned seed = 77u + (unsigned)_i, written = 0;
    fdn_store_options options = small_store(dir, _i % 3);
    fdn_store *s = opened(&options);
    fdn_store_info info;
    model m;
    uint64_t removed = 0;
    memset(&m, 0, sizeof m);
    for (int step = 0; step < 4000; step++) {
        unsigned k = rnd(&seed) % KEYS, what = rnd(&seed) % 100;
        size_t bytes = rnd(&seed) % (what % 10 == 0 ? 5000 : 300);
        if (what < 55) {
            ck_assert_int_eq(put(s, k, ++written, bytes, true, NULL), 0);
            m.there[k] = true;
            m.value[k] = written;
            m.bytes[k] = bytes;
        } else if (what < 75) {
            ck_assert_int_eq(erase(s, k, true), 0);
            m.there[k] = false;
        } else if (what < 90) {
            unsigned b = rnd(&seed) % KEYS, gone = rnd(&seed) % KEYS;
            ck_assert_int_eq(put_two(s, k, b, gone, ++written, bytes), 0);
            m.there[k] = m.there[b] = true;
            m.value[k] = m.value[b] = written;
            m.bytes[k] = m.bytes[b] = bytes;
            m.there[gone] = false;
        } else if (what < 98) {
            bool more = true;
            for (int i = 0; i < 4 && more; i++)
                ck_assert_int_eq(fdn_store_maintain(s, 2000, &more), 0);
        } else {
            fdn_store_get_info(s, &info);
            removed += info.compactions;
            ck_assert_uint_le(info.used_bytes, 40 * FDN_STORE_SEGMENT_MIN);
            if (what == 98) {
                ck_assert_int_eq(fdn_store_close(s), 0);
                fdn_store_free(s);
            } else {
                copy_dir(dir, image);
                fdn_store_free(s);
                copy_dir(image, dir);
            }
            s = opened(&options);
            agree(s, &m, what == 98 ? "after close" : "after a kill");
        }
    }
    agree(s, &m, "at the end");
    fdn_store_free(s);
    ck_assert_uint_gt(removed, 5);
}
END_TEST

/* Deleted keys must not come back, and their records must not stay for ever either. */
START_TEST(tombstones_go_when_their_work_is_done)
{
    fdn_store_options options = small_store(dir, FDN_STORE_ASYNC);
    fdn_store *s = opened(&options);
    fdn_store_info info;
    bool more, equal;
    ck_assert_int_eq(put(s, 100000, 1, 200, true, NULL), 0);
    for (unsigned k = 0; k < 3000; k++)
        ck_assert_int_eq(put(s, k, k, 200, true, NULL), 0);
    for (unsigned k = 0; k < 3000; k++)
        ck_assert_int_eq(erase(s, k, true), 0);
    fdn_store_get_info(s, &info);
    ck_assert_uint_gt(info.tombstones, 2000);
    for (int i = 0; i < 10000; i++) {
        ck_assert_int_eq(fdn_store_maintain(s, 1 << 20, &more), 0);
        if (!more)
            break;
    }
    fdn_store_get_info(s, &info);
    ck_assert_uint_lt(info.used_bytes, 8 * FDN_STORE_SEGMENT_MIN);
    copy_dir(dir, image);
    fdn_store_free(s);
    options.path = image;
    s = opened(&options);
    for (unsigned k = 0; k < 3000; k++)
        ck_assert_int_eq(holds(s, k, 0, 0, &equal), FDN_EUNKNOWN);
    ck_assert_int_eq(holds(s, 100000, 1, 200, &equal), 0);
    fdn_store_free(s);
}
END_TEST

START_TEST(max_bytes_is_kept_and_nothing_is_lost)
{
    fdn_store_options options = small_store(dir, _i);
    options.max_bytes = 1 << 20;
    fdn_store *s = opened(&options);
    fdn_store_info info;
    bool equal = false;
    unsigned n = 0;
    int rc;
    while ((rc = put(s, n, n, 3000, true, NULL)) == 0)
        n++;
    ck_assert_int_eq(rc, FDN_EFULL);
    ck_assert_uint_gt(n, 150);
    fdn_store_get_info(s, &info);
    ck_assert_uint_le(info.disk_bytes, options.max_bytes);
    ck_assert_int_eq(info.failed, 0);
    for (unsigned k = 0; k < n; k++) {
        ck_assert_int_eq(holds(s, k, k, 3000, &equal), 0);
        ck_assert(equal);
    }
    /* Overwriting is writing too; deleting works, and makes room. */
    for (unsigned k = 0; k < n / 2; k++)
        ck_assert_int_eq(erase(s, k, true), 0);
    for (unsigned k = 0; k < n / 4; k++)
        ck_assert_msg((rc = put(s, 5000 + k, k, 3000, true, NULL)) == 0, "%u of %u: %s", k, n, fdn_error_name(rc));
    /* A save loop over live keys runs for ever inside the limit. */
    for (unsigned i = 0; i < 3000; i++)
        ck_assert_int_eq(put(s, 5000 + i % (n / 8), i, 3000, true, NULL), 0);
    fdn_store_get_info(s, &info);
    ck_assert_uint_le(info.disk_bytes, options.max_bytes);
    fdn_store_free(s);
    s = opened(&options);
    for (unsigned k = n / 2; k < n; k++)
        ck_assert_int_eq(holds(s, k, k, 3000, &equal), 0);
    fdn_store_free(s);
}
END_TEST

static int count_visit(void *context, const fdn_store_value *value)
{
    unsigned n = 0;
    for (size_t i = 7; i < value->key_len; i++)
        n = n * 10 + (unsigned)(value->key[i] - '0');
    if (n < 5000)
        ((unsigned char *)context)[n]++;
    return 0;
}

/* Keys that are there all the time are met exactly once while the table grows under the scan. */
START_TEST(scan_while_the_table_grows)
{
    static unsigned char seen[5000];
    fdn_store_options options = {.path = dir};
    fdn_store *s = opened(&options);
    uint64_t cursor = 0;
    size_t count;
    unsigned added = 5000;
    memset(seen, 0, sizeof seen);
    for (unsigned k = 0; k < 5000; k++)
        ck_assert_int_eq(put(s, k, k, 8, true, NULL), 0);
    do {
        ck_assert_int_eq(fdn_store_scan(s, &cursor, 50, &count, count_visit, seen), 0);
        for (int i = 0; i < 70; i++, added++)
            ck_assert_int_eq(put(s, added, added, 8, true, NULL), 0);
    } while (cursor != 0);
    for (unsigned k = 0; k < 5000; k++)
        ck_assert_msg(seen[k] == 1, "key %u visited %u times", k, seen[k]);
    fdn_store_free(s);
}
END_TEST

START_TEST(a_file_cut_under_us_turns_the_store_read_only)
{
    fdn_store_options options = small_store(dir, FDN_STORE_ASYNC);
    fdn_store *s = opened(&options);
    char path[128];
    fdn_store_info info;
    bool equal;
    int rc = 0;
    ck_assert_int_eq(put(s, 1, 1, 20000, true, NULL), 0);
    snprintf(path, sizeof path, "%s/seg-0000000000000001.fdn", dir);
    ck_assert_int_eq(truncate(path, 4096), 0);
    rc = holds(s, 1, 1, 20000, &equal);
    ck_assert_msg(rc == FDN_EFAULTED, "%s", fdn_error_name(rc));
    ck_assert_int_eq(put(s, 2, 1, 20000, true, NULL), FDN_EREADONLY);
    fdn_store_get_info(s, &info);
    ck_assert_int_eq(info.failed, FDN_EFAULTED);
    ck_assert_int_eq(fdn_store_close(s), FDN_EFAULTED);
    fdn_store_free(s);
}
END_TEST

/* Writes through a descriptor do not notice it, and would go on into a file without a beginning. */
START_TEST(a_file_cut_under_us_is_never_acknowledged)
{
    fdn_store_options options = small_store(dir, _i);
    fdn_store *s = opened(&options);
    char path[128];
    ck_assert_int_eq(put(s, 1, 1, 100, true, NULL), 0);
    ck_assert_int_eq(fdn_store_sync(s), 0);
    snprintf(path, sizeof path, "%s/seg-0000000000000001.fdn", dir);
    ck_assert_int_eq(truncate(path, 0), 0);
    int rc = put(s, 2, 1, 100, true, NULL);
    if (rc == 0)
        rc = fdn_store_sync(s);
    ck_assert_msg(rc == FDN_EREADONLY, "%s", fdn_error_name(rc));
    ck_assert_int_eq(fdn_store_failed(s), FDN_EFAULTED);
    fdn_store_free(s);
}
END_TEST

/* A reader on a scheduler does not wait while a large batch goes into the table. */
START_TEST(a_reader_need_not_wait)
{
    fdn_store_options options = small_store(dir, FDN_STORE_ASYNC);
    fdn_store *s = opened(&options);
    fdn_store_value value;
    uint8_t k[32];
    uint64_t lsn;
    size_t len, klen = key_term(k, 1);
    ck_assert_int_eq(put(s, 1, 1, 100, true, NULL), 0);
    pthread_rwlock_wrlock(&s->index_lock);
    ck_assert_int_eq(fdn_store_find(s, k, klen, false, &lsn, &len), FDN_EBUSY);
    ck_assert_int_eq(fdn_store_read(s, k, klen, false, SIZE_MAX, &value), FDN_EBUSY);
    fdn_store_value_free(&value);
    pthread_rwlock_unlock(&s->index_lock);
    ck_assert_int_eq(fdn_store_find(s, k, klen, false, &lsn, &len), 0);
    fdn_store_free(s);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("store");
    TCase *tc = tcase_create("store");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_set_timeout(tc, 120);
    tcase_add_loop_test(tc, writes_are_read_back, 0, 3);
    tcase_add_test(tc, conditions_and_batches_are_all_or_nothing);
    tcase_add_test(tc, one_key_twice_in_a_batch);
    tcase_add_test(tc, sizes_have_limits);
    tcase_add_test(tc, a_second_opener_is_told_who_holds_it);
    tcase_add_test(tc, the_lock_holds_without_its_file);
    tcase_add_test(tc, what_writes_nothing_waits_for_what_it_saw);
    tcase_add_test(tc, directories_that_cannot_be_used);
    tcase_add_loop_test(tc, model_through_rotation_compaction_and_kills, 0, 6);
    tcase_add_test(tc, tombstones_go_when_their_work_is_done);
    tcase_add_loop_test(tc, max_bytes_is_kept_and_nothing_is_lost, 0, 2);
    tcase_add_test(tc, scan_while_the_table_grows);
    tcase_add_test(tc, a_file_cut_under_us_turns_the_store_read_only);
    tcase_add_test(tc, a_reader_need_not_wait);
    tcase_add_loop_test(tc, a_file_cut_under_us_is_never_acknowledged, 0, 2);
    suite_add_tcase(suite, tc);
    SRunner *r = srunner_create(suite);
    fixture_begin();
    srunner_run_all(r, CK_NORMAL);
    fixture_end();
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed == 0 ? 0 : 1;
}
