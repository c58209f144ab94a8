/*
 * Setting, declaring, rolling back and re-arming, step by step: at each step of one operation every sequence of up to three others is
 * run as a whole, from every state of the group and the flag. All answers, and the state that is left, must be those of a naive model
 * with the interrupted operation done at one moment between its beginning and its end. So no interleaving leaves a flag on that a
 * rollback turned off, brings an old value back, or loses a value that was set after a re-arm.
 */
#include "test/c/flags_fixture.h"

#define START 5 /* epoch */
#define INSIDE 3

typedef enum { SET_ON, SET_OFF, ROLL_BACK, REARM_NOW, REARM_NEXT, DECLARE_ON, DECLARE_OFF, VERBS } verb;

typedef struct {
    uint64_t epoch;
    bool rolled_back, transient;
    bool live, is_set, on; /* live: the value belongs to this epoch */
} model;

extern void (*fdn_step_hook)(fdn_step_kind kind);

static verb inside[INSIDE];
static int inside_answers[INSIDE];
static unsigned inside_count, steps_left;
static bool interrupted, locked;

/* ---- the naive model ------------------------------------------------------------------------------------------------------------ */

static int naive(model *m, verb v)
{
    switch (v) {
    case SET_ON:
    case SET_OFF:
        if (m->rolled_back)
            return FDN_EROLLEDBACK;
        m->live = m->is_set = true;
        m->on = v == SET_ON;
        return 0;
    case ROLL_BACK:
        m->epoch++;
        m->rolled_back = m->rolled_back || !m->transient;
        m->live = false;
        return 0;
    case REARM_NOW:
    case REARM_NEXT:
        if (m->epoch != START + (v == REARM_NEXT))
            return FDN_ESTALE;
        if (!m->rolled_back)
            return FDN_ENOTROLLEDBACK;
        m->rolled_back = false;
        return 0;
    default:
        if (m->live && !m->is_set)
            m->on = v == DECLARE_ON;
        return 0;
    }
}

/* ---- the real one -----------------------------------------------------------------------------------------------------------------
 */

static int real(verb v)
{
    switch (v) {
    case SET_ON:
    case SET_OFF:
        return fdn_flags_set_at(f, 0, v == SET_ON ? FDN_FLAG_TRUE : FDN_FLAG_FALSE);
    case ROLL_BACK:
        return fdn_flags_flip(f, "g", "steps", "me", NULL);
    case REARM_NOW:
    case REARM_NEXT:
        return fdn_flags_unflip(f, "g", START + (v == REARM_NEXT), "me");
    default:
        return fdn_flags_declare(f, "a", "g", v == DECLARE_ON, -1, NULL);
    }
}

static void others(fdn_step_kind kind)
{
    locked = locked || kind == FDN_STEP_LOCKED;
    if (steps_left-- != 0)
        return;
    fdn_step_hook = NULL;
    interrupted = true;
    for (unsigned i = 0; i < inside_count; i++)
        if (!locked || inside[i] < DECLARE_ON) /* declarations exclude each other */
            inside_answers[i] = real(inside[i]);
}

static _Atomic uint64_t *word(const _Atomic uint64_t *w)
{
    return (_Atomic uint64_t *)(uintptr_t)w;
}

/* States: armed, rolled back, armed and transient; set on, on by default, of an earlier epoch. */
static model begin(unsigned state)
{
    model m = {START, state % 3 == 1, state % 3 == 2, state / 3 != 2, state / 3 != 1, true};
    if (m.rolled_back)
        m.live = false;
    uint64_t epoch = m.epoch << FDN_FLAG_EPOCH_SHIFT;
    atomic_store(word(fdn_flags_epoch_word(f, 0)),
                 epoch | (m.rolled_back ? FDN_FLAG_ROLLED_BACK : 0) | (m.transient ? FDN_FLAG_TRANSIENT : 0));
    atomic_store(word(fdn_flags_value_word(f, 0)),
                 (m.live ? epoch : epoch - FDN_FLAG_EPOCH_ONE) | (m.is_set ? FDN_FLAG_EXPLICIT : 0) | FDN_FLAG_TRUE);
    return m;
}

static bool same(const model *m)
{
    uint64_t epoch = atomic_load(fdn_flags_epoch_word(f, 0)), value = atomic_load(fdn_flags_value_word(f, 0));
    bool live = fdn_flag_epoch(epoch) == fdn_flag_epoch(value);
    if (fdn_flag_epoch(epoch) != m->epoch || ((epoch & FDN_FLAG_ROLLED_BACK) != 0) != m->rolled_back || live != m->live)
        return false;
    if ((fdn_flag_in_force(epoch, value) == FDN_FLAG_TRUE) != (m->live && !m->rolled_back && m->on))
        return false;
    return !live || (((value & FDN_FLAG_EXPLICIT) != 0) == m->is_set && ((value & FDN_FLAG_TRUE) != 0) == m->on);
}

/* Whether the model agrees when the interrupted operation is done after the first `at` of the others. */
static bool agrees(model m, verb v, int answer, unsigned at)
{
    for (unsigned i = 0; i < inside_count; i++) {
        if (i == at && naive(&m, v) != answer)
            return false;
        if (naive(&m, inside[i]) != inside_answers[i])
            return false;
    }
    if (at == inside_count && naive(&m, v) != answer)
        return false;
    return same(&m);
}

/* Returns false when the operation has no such step. */
static bool run(unsigned state, verb v, unsigned step)
{
    model m = begin(state);
    steps_left = step;
    interrupted = locked = false;
    fdn_step_hook = others;
    int answer = real(v);
    fdn_step_hook = NULL;
    if (!interrupted)
        return false;
    for (unsigned at = 0; at <= inside_count; at++)
        if (agrees(m, v, answer, at))
            return true;
    ck_abort_msg("state %u, operation %d answers %s; at step %u: %d %d %d of %u", state, v, fdn_error_name(answer), step, inside[0],
                 inside[1], inside[2], inside_count);
    return false;
}

START_TEST(every_interruption_is_as_in_the_model)
{
    unsigned long runs = 0, least_steps = 99;
    verb v = (verb)_i;
    OK(fdn_flags_declare(f, "a", "g", true, -1, NULL));
    bool declares = v >= DECLARE_ON;
    unsigned verbs = declares ? DECLARE_ON : VERBS;
    for (inside_count = 0; inside_count <= INSIDE; inside_count++) {
        unsigned sequences = 1;
        for (unsigned i = 0; i < inside_count; i++)
            sequences *= verbs;
        for (unsigned s = 0; s < sequences; s++) {
            for (unsigned i = 0, rest = s; i < inside_count; i++, rest /= verbs)
                inside[i] = (verb)(rest % verbs);
            for (unsigned state = 0; state < 9; state++) {
                unsigned step = 0;
                while (run(state, v, step))
                    step++, runs++;
                if (step < least_steps)
                    least_steps = step;
            }
        }
    }
    ck_assert_uint_ge(least_steps, v <= SET_OFF || declares ? 3 : 1);
    ck_assert_uint_gt(runs, 1000);
}
END_TEST

int main(void)
{
    TCase *tc = tcase_create("steps");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_loop_test(tc, every_interruption_is_as_in_the_model, 0, VERBS);
    return run_suite("flags, step by step", tc);
}
