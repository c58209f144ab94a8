/* The limiters of a library by name: lookup, handles, tombstones, owners, bounds, allocation failure. */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "base/fdn_alloc.h"
#include "base/fdn_atomic.h"
#include "base/fdn_error.h"
#include "engine/limiter_names.h"
#include "test/c/support.h"

static uint64_t seed = 88172645463325252ULL;

static uint64_t rnd(uint64_t below)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return seed % below;
}

static fdn_limiter *table(void)
{
    fdn_limiter *t;
    fdn_limiter_fit fit;
    fdn_limiter_config config = {.clock = FDN_LIMITER_MANUAL, .capacity = 1};
    ck_assert_int_eq(fdn_limiter_create(&config, &t, &fit), 0);
    return t;
}

START_TEST(names)
{
    fdn_limiters *r;
    fdn_limiters_entry a, b;
    ck_assert_int_eq(fdn_limiters_create(_i == 0, &r), 0);
    unsigned lane = fdn_limiters_lane(r);
    ck_assert_uint_eq(lane, 1);
    ck_assert_ptr_null(fdn_limiters_enter(r, lane, 77));
    fdn_limiter *t = table();
    ck_assert_int_eq(fdn_limiters_add(r, 77, 5, t, &a), 0);
    ck_assert_int_eq(fdn_limiters_add(r, 77, 6, t, &b), FDN_EBUSY);
    ck_assert_int_eq(fdn_limiters_find(r, 77, &b), 0);
    ck_assert_uint_eq(b.handle, a.handle);
    ck_assert_uint_eq(b.owner, 5);
    ck_assert_ptr_eq(fdn_limiters_enter(r, lane, 77), t);
    fdn_limiters_leave(r, lane);
    uint64_t told = 0;
    ck_assert_ptr_eq(fdn_limiters_enter_and_tell(r, lane, 77, &told), t);
    ck_assert_uint_eq(told, a.handle);
    fdn_limiters_leave(r, lane);
    ck_assert_ptr_null(fdn_limiters_enter_and_tell(r, lane, 78, &told));
    ck_assert_ptr_eq(fdn_limiters_enter_handle(r, 0, a.handle), t);
    fdn_limiters_leave(r, 0);
    ck_assert_int_eq(fdn_limiters_adopt(r, a.handle, 6, 7), FDN_EBUSY);
    ck_assert_int_eq(fdn_limiters_adopt(r, a.handle, 5, 7), 0);
    ck_assert_int_eq(fdn_limiters_remove(r, a.handle), 0);
    ck_assert_int_eq(fdn_limiters_remove(r, a.handle), FDN_EUNKNOWN);
    ck_assert_int_eq(fdn_limiters_adopt(r, a.handle, 7, 8), FDN_EUNKNOWN);
    ck_assert_ptr_null(fdn_limiters_enter(r, lane, 77));
    ck_assert_ptr_null(fdn_limiters_enter_handle(r, lane, a.handle));
    ck_assert_ptr_null(fdn_limiters_enter_handle(r, lane, 0));
    ck_assert_ptr_null(fdn_limiters_enter_handle(r, lane, UINT64_MAX));
    /* The same place, another incarnation: the old handle stays dead. */
    t = table();
    ck_assert_int_eq(fdn_limiters_add(r, 77, 5, t, &b), 0);
    ck_assert_uint_ne(b.handle, a.handle);
    ck_assert_ptr_null(fdn_limiters_enter_handle(r, lane, a.handle));
    ck_assert_ptr_eq(fdn_limiters_enter_handle(r, lane, b.handle), t);
    fdn_limiters_leave(r, lane);
    fdn_limiters_destroy(r);
}
END_TEST

enum { NAMES = 600 };
static struct {
    fdn_limiter *t;
    uint64_t name, handle;
} model[NAMES];
static fdn_limiters *registry;

/* Names that all belong in the first few places, where they form long chains. */
static void crowded_names(void)
{
    uint64_t name = 2;
    memset(model, 0, sizeof model);
    for (unsigned k = 0; k < NAMES; name++) {
        if (name * 0x9e3779b97f4a7c15ULL >> 50 < 100)
            model[k++].name = name;
    }
}

static void come_or_go(unsigned k)
{
    fdn_limiters_entry e;
    if (model[k].t == NULL) {
        fdn_limiter *t = table();
        ck_assert_int_eq(fdn_limiters_add(registry, model[k].name, k, t, &e), 0);
        model[k].t = t;
        model[k].handle = e.handle;
    } else {
        ck_assert_int_eq(fdn_limiters_remove(registry, model[k].handle), 0);
        model[k].t = NULL;
    }
}

/* Names come and go, against an array; probing finds every one, and no other, through all tombstones. */
START_TEST(names_come_and_go)
{
    ck_assert_int_eq(fdn_limiters_create(true, &registry), 0);
    crowded_names();
    for (int i = 0; i < 20000; i++) {
        come_or_go((unsigned)rnd(NAMES));
        unsigned k = (unsigned)rnd(NAMES);
        fdn_limiter *found = fdn_limiters_enter(registry, 1, model[k].name);
        ck_assert_ptr_eq(found, model[k].t);
        if (found)
            fdn_limiters_leave(registry, 1);
    }
    fdn_limiters_destroy(registry);
}
END_TEST

#ifdef FDN_ALLOC_FAULTS
/* Between a reader's look at a place and its announcement, limiters are removed, and others put in their places. */
static bool interrupted;

static void change_names(fdn_step_kind kind)
{
    if (kind == FDN_STEP_CLAIMED || interrupted || rnd(2) == 0)
        return;
    interrupted = true;
    fdn_step_hook = NULL;
    for (uint64_t n = 1 + rnd(4); n > 0; n--)
        come_or_go((unsigned)rnd(6));
}

START_TEST(names_change_under_a_reader)
{
    unsigned changed = 0;
    ck_assert_int_eq(fdn_limiters_create(_i == 0, &registry), 0);
    unsigned lane = fdn_limiters_lane(registry);
    crowded_names();
    for (int i = 0; i < 20000; i++) {
        unsigned k = (unsigned)rnd(6);
        bool by_handle = rnd(2) == 0;
        uint64_t handle = model[k].handle, told = 0;
        fdn_limiter *before = model[k].t;
        interrupted = false;
        /* Not where the limiter is held: there a removal would wait for this very thread. */
        fdn_step_hook = change_names;
        fdn_limiter *found = by_handle ? fdn_limiters_enter_handle(registry, lane, handle)
                                       : fdn_limiters_enter_and_tell(registry, lane, model[k].name, &told);
        fdn_step_hook = NULL;
        changed += interrupted;
        /* What was found is alive, and what was asked for; nothing is found only where it was not there all the while. */
        if (found != NULL) {
            ck_assert_ptr_eq(found, model[k].t);
            ck_assert_uint_eq(by_handle ? handle : told, model[k].handle);
            ck_assert_uint_eq(fdn_limiter_config_of(found)->capacity, 1);
            fdn_limiters_leave(registry, lane);
        } else {
            ck_assert(before == NULL || interrupted);
        }
        come_or_go((unsigned)rnd(6));
    }
    ck_assert_uint_gt(changed, 1000);
    fdn_limiters_destroy(registry);
}
END_TEST
#endif

START_TEST(registry_is_bounded)
{
    fdn_limiters *r;
    fdn_limiters_entry e;
    ck_assert_int_eq(fdn_limiters_create(true, &r), 0);
    for (uint64_t i = 0; i < FDN_LIMITERS_MAX; i++)
        ck_assert_int_eq(fdn_limiters_add(r, 2 + i, 1, table(), &e), 0);
    fdn_limiter *t = table();
    ck_assert_int_eq(fdn_limiters_add(r, 1000000, 1, t, &e), FDN_EFULL);
    ck_assert_int_eq(fdn_limiters_find(r, 2, &e), 0);
    ck_assert_int_eq(fdn_limiters_remove(r, e.handle), 0);
    ck_assert_int_eq(fdn_limiters_add(r, 1000000, 1, t, &e), 0);
    for (unsigned i = 1; i < FDN_LIMITER_LANES; i++)
        ck_assert_uint_eq(fdn_limiters_lane(r), i);
    ck_assert_uint_eq(fdn_limiters_lane(r), 0);
    fdn_limiters_destroy(r);
}
END_TEST

#ifdef FDN_ALLOC_FAULTS
START_TEST(allocation_failures)
{
    fdn_limiters *r = NULL;
    int n, rc;
    for (n = 0; n < 20; n++) {
        fdn_alloc_budget = n;
        rc = fdn_limiters_create(false, &r);
        fdn_alloc_budget = -1;
        if (rc == 0)
            break;
        ck_assert_int_eq(rc, FDN_ENOMEM);
        ck_assert_ptr_null(r);
    }
    ck_assert_int_eq(n, 3); /* the struct, the places, the lanes */
    fdn_limiters_destroy(r);
    fdn_limiters_destroy(NULL);
}
END_TEST
#endif

int main(void)
{
    Suite *s = suite_create("limiter_names");
    TCase *c = tcase_create("names");
    tcase_set_timeout(c, 300);
    tcase_add_loop_test(c, names, 0, 2);
    tcase_add_test(c, names_come_and_go);
    tcase_add_test(c, registry_is_bounded);
#ifdef FDN_ALLOC_FAULTS
    tcase_add_test(c, allocation_failures);
    tcase_add_loop_test(c, names_change_under_a_reader, 0, 2);
#endif
    suite_add_tcase(s, c);
    return support_run(s);
}
