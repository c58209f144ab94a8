/*
 * What slots.pml stands on: its sizes, the memory, the arithmetic of a state, and what is true, for the assertions.
 */
#ifndef SLOTS
#define SLOTS 2
#endif
#ifndef BUCKET
#define BUCKET 1 /* slots */
#endif
#ifndef KEYS
#define KEYS 2
#endif
#ifndef STRIPES
#define STRIPES 2
#endif
#ifndef OPS_0
#define OPS_0 1
#endif
#ifndef OPS_1
#define OPS_1 2
#endif
#ifndef OPS_2
#define OPS_2 0
#endif
#ifndef ONLY_0
#define ONLY_0 ANY
#endif
#ifndef NOT_1
#define NOT_1 NONE
#endif
#ifndef LIMIT
#define LIMIT 1 /* costs are from 1 to this */
#endif
#ifndef PERIOD
#define PERIOD 2 /* of a window, a lease */
#endif
#ifndef TICKS
#define TICKS 3
#endif
#define START 3

#define NONE 255
#define BUSY 255
#define FRESH 0

#define HIT 0
#define TAKE 1
#define GRANT 2
#define GIVE_BACK 3
#define RESET 4
#define ANY 5
#define MAY(op) (me == 0 && (ONLY_0 == ANY || ONLY_0 == op) || me == 1 && NOT_1 != op || me == 2)

byte F[SLOTS], S[SLOTS];
bool stripe[STRIPES];
byte now = START;
#ifdef AUTO
byte coarse = START;
#endif
byte threads;

#define stripe_of(k) (k % STRIPES)
#if SLOTS > 1
#define ALL_BUSY (S[0] == BUSY && S[1] == BUSY)
#define ONE_SLOT_A_KEY two_slots = (F[0] != 0 && F[0] == F[1] && S[0] != BUSY && S[1] != BUSY); assert(!two_slots)
#define NONE_BUSY (S[0] != BUSY && S[1] != BUSY)
#else
#define ALL_BUSY (S[0] == BUSY)
#define ONE_SLOT_A_KEY skip
#define NONE_BUSY (S[0] != BUSY)
#endif

/* ---- arithmetic of a state, as in limiter_rule.h and limiter_debit.c; in gcra a unit of cost lasts a tick ------------------------ */

#if defined(FIXED_WINDOW) || defined(LEASE)
#define word(end, units) ((end) * 4 + (units))
#define end_of(state) ((state) / 4)
#define units_of(state) ((state) % 4)
#else
#define end_of(state) (state)
#endif
#define expired(state, time) (end_of(state) <= (time))
#define lesser(a, b) (a < b -> a : b)
#define greater(a, b) (a > b -> a : b)

/* `allowed`: and so the state becomes `next`. */
inline change()
{
    if
    :: what == GIVE_BACK -> without()
#ifdef LEASE
    :: what == GRANT ->
        allowed = true;
        if
        :: expired(state, t) || units_of(state) == 0 -> next = word(t + PERIOD, cost)
        :: else -> next = word(lesser(end_of(state), t + PERIOD), lesser(units_of(state) + cost, 3))
        fi
    :: what <= TAKE ->
        allowed = (!expired(state, t) && units_of(state) >= cost);
        next = (allowed -> state - cost : 0)
#else
    :: what <= TAKE && expired(state, t) ->
        allowed = true;
#ifdef FIXED_WINDOW
        next = word(t + PERIOD, cost)
#else
        next = t + cost
#endif
    :: what <= TAKE && !expired(state, t) ->
        next = state + cost;
#ifdef FIXED_WINDOW
        allowed = (units_of(next) >= cost && units_of(next) <= LIMIT)
#else
        allowed = (next - t <= LIMIT)
#endif
#endif
    fi
}

/* What the state becomes when the debit (mark, cost) is given back at t. Not allowed: nothing of it is left. */
inline without()
{
    allowed = false;
#ifdef FIXED_WINDOW
    if
#ifndef UNDO_IN_ANY_WINDOW
    :: end_of(state) == mark && mark > t && units_of(state) >= cost -> next = state - cost; allowed = true
#else
    :: !expired(state, t) && units_of(state) >= cost -> next = state - cost; allowed = true
#endif
    :: else
    fi
#else
#ifndef UNDO_WITHOUT_SINCE
#define BACK (t > mark -> cost - (t - mark) : cost)
#else
#define BACK cost
#endif
    if
    :: state > t && BACK > 0 -> next = state - BACK; allowed = true
    :: else
    fi
#endif
}

/* ---- what is true, for the assertions: the naive algorithm ----------------------------------------------------------------------- */

byte moment[KEYS + 1]; /* of the last admission */
byte ends[KEYS + 1];   /* the end of the window or lease, or the theoretical arrival time */
#if defined(FIXED_WINDOW) || defined(LEASE)
byte units[KEYS + 1]; /* used; of a lease: left */
#endif
byte busy_with[3];
bool forgotten[3]; /* this thread's key was evicted or reset during the operation */
bool evicted[3];
byte astray[3];    /* the key that this thread has charged instead of its own */
bool over_admitted;
bool moot;         /* a thread guessed wrong: nothing is to be concluded from this run */

/* What must not be, by the names under which test/model/run reports it. */
bool over_admission, uncharged, judged_by_another, took_from_another, two_slots, left_busy;

/* While a thread is guessing, what it guessed may be why. */
inline no_over_admission()
{
    over_admission = over_admitted && !moot && !astray[0] && !astray[1] && !astray[2];
    assert(!over_admission)
}

inline is_right(condition)
{
    if
    :: condition
    :: else -> over_admitted = true; no_over_admission()
    fi
}

/* What was decided by clock t happens. Its moment: not before the last one's, and both lie within the operation. */
inline happens()
{
    if
    :: moment[key] < t -> moment[key] = t
    :: else
    fi;
#ifdef LEASE
    if
    :: what == GRANT && (ends[key] <= moment[key] || units[key] == 0) -> ends[key] = moment[key] + PERIOD; units[key] = cost
    :: what == GRANT && ends[key] > moment[key] && units[key] > 0 ->
        ends[key] = lesser(ends[key], moment[key] + PERIOD);
        units[key] = lesser(units[key] + cost, 3)
    :: else ->
        is_right(ends[key] > moment[key] && units[key] >= cost);
        units[key] = units[key] - cost
    fi
#elif defined(FIXED_WINDOW)
    if
    :: what == GIVE_BACK
    :: what != GIVE_BACK ->
        if
        :: ends[key] <= moment[key] -> ends[key] = moment[key] + PERIOD; units[key] = 0
        :: else
        fi
    fi;
    if
    :: what == HIT -> units[key] = units[key] + cost; is_right(units[key] <= LIMIT)
    :: else /* will be given back, or is; but the window stays open */
    fi
#else
    if
    :: what == HIT -> ends[key] = greater(ends[key], moment[key]) + cost; is_right(ends[key] - moment[key] <= LIMIT)
    :: else
    fi
#endif
}

#if defined(FIXED_WINDOW) || defined(LEASE)
#define CLEAR(k) ends[k] = 0; units[k] = 0
#else
#define CLEAR(k) ends[k] = 0
#endif
#define FORGOTTEN_TO(i, k) \
    if \
    :: busy_with[i] == k -> forgotten[i] = true; evicted[i] = evicted[i] || eviction \
    :: astray[i] == k -> forgotten[i] = true; CLEAR(busy_with[i]) \
    :: else \
    fi

inline forget(k, eviction)
{
    if
    :: k != 0 -> CLEAR(k); FORGOTTEN_TO(0, k); FORGOTTEN_TO(1, k); FORGOTTEN_TO(2, k)
    :: else
    fi
}
