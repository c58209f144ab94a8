/* What memory a limiter takes, and when. */
#include <check.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "engine/limiter_table.h"
#include "test/c/support.h"

/* How much of a table's mapping is in memory, in percent, when it is new. */
static unsigned resident(uint64_t capacity)
{
    fdn_limiter *t;
    fdn_limiter_fit fit;
    fdn_limiter_config config = {.clock = FDN_LIMITER_MANUAL, .capacity = capacity};
    ck_assert_int_eq(fdn_limiter_create(&config, &t, &fit), 0);
    size_t page = (size_t)sysconf(_SC_PAGESIZE), pages = (t->mapped + page - 1) / page, in = 0;
    unsigned char *map = malloc(pages);
    ck_assert_ptr_nonnull(map);
    ck_assert_int_eq(mincore(t->mapping, t->mapped, map), 0);
    for (size_t i = 0; i < pages; i++)
        in += map[i] & 1;
    free(map);
    fdn_limiter_destroy(t);
    return (unsigned)(100 * in / pages);
}

static bool system_populates(void)
{
    bool can = false;
#if defined(MADV_HUGEPAGE) && defined(MADV_POPULATE_WRITE)
    size_t bytes = (size_t)4 << 20;
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    ck_assert_ptr_ne(p, MAP_FAILED);
    can = madvise(p, bytes, MADV_HUGEPAGE) == 0 && madvise(p, bytes, MADV_POPULATE_WRITE) == 0;
    munmap(p, bytes);
#endif
    return can;
}

START_TEST(small_and_huge_tables_take_memory_as_it_is_used)
{
    ck_assert_uint_lt(resident(100000), 10);
    ck_assert_uint_lt(resident(9000000), 10);
}
END_TEST

START_TEST(others_take_it_at_once)
{
    if (!system_populates())
        return;
    ck_assert_uint_eq(resident(131072), 100);
    ck_assert_uint_eq(resident(1000000), 100);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("limiter memory");
    TCase *tc = tcase_create("when it is taken");
    tcase_add_test(tc, small_and_huge_tables_take_memory_as_it_is_used);
    tcase_add_test(tc, others_take_it_at_once);
    suite_add_tcase(suite, tc);
    return support_run(suite);
}
