/*
 * The slot protocol of c_src/engine/limiter.c: hits, insertions, resets, evictions, debits given back and leases, over one pair of
 * buckets.
 *
 * Exhaustive over all interleavings, at every access to shared memory, of threads that do some operations each, freely chosen out of
 * hit, reset, grant, and take followed by give_back, on any key, with a clock that moves at any moment, from every state of the table
 * that has a meaning. All accesses to F (fingerprints) and S (states) are seq_cst in the code, and spin is sequentially consistent. The
 * labels are the functions of the code. Which free slot is taken, and which victim, is left open here.
 *
 * Asserted: the admissions that are not given back are admissions of the naive sequential algorithm (a ghost that knows no slots), with
 * every operation at one moment between its beginning and its end; an admission is charged to its own key, unless that was evicted or
 * reset meanwhile; a denial is judged by the key's own state; only the key's own budget is given back; no key has two slots; every BUSY
 * is left; nobody waits for ever.
 *
 * FIXED_WINDOW, LEASE: else gcra. EVICT: else deny. AUTO: two clocks, precise and coarse; else one for all. RESETS, UNDOES: operations
 * besides hits. ONLY_0, NOT_1: what a thread does, or does not. Sizes: slots_truth.pml. NO_LAST_LOOK is a guard that can be missed:
 * whoever uses find_settled looks again. All other macros take one away each that cannot; test/model/run demands that an assertion
 * says so.
 *
 * What the code does to shared memory, function by function; test/model/run compares. Who changes it there, changes the model.
 *   limiter_table.h fdn_limiter_find_in: load print
 *   limiter_table.h fdn_limiter_change_slot: load state, load print, change, swap state, load print
 *   limiter_table.h fdn_limiter_change_key: read_clock, find_in, find_in, change_slot, change_locked
 *   limiter.c fdn_limiter_change_locked: lock, find_settled, load state, load print, read_clock, change, exchange, insert, unlock
 *   limiter.c fdn_limiter_find_settled: find_in, load state, load print
 *   limiter.c insert: choose, recycling_clock, occupy, occupy
 *   limiter.c choose: load state
 *   limiter.c occupy: swap state, store print, store state
 *   limiter.c fdn_limiter_exchange: replace, swap state, load print
 *   limiter.c replace: swap state, load print, store state, store print, store state
 *   limiter.c fdn_limiter_reset: lock, find_settled, exchange, load state, unlock
 *   limiter_debit.c fdn_limiter_give_back: lock, find_settled, load state, load print, without, read_clock, exchange, unlock
 */
#include "slots_truth.pml"

/* ---- a thread: an atomic block is one access to shared memory and what follows from it locally ----------------------------------- */

#ifdef NO_LOCK
#define UNLOCKED true
#elif defined(NO_LOCK_IN_RESET)
#define UNLOCKED what == RESET
#elif defined(NO_LOCK_IN_UNDO)
#define UNLOCKED what == GIVE_BACK
#else
#define UNLOCKED false
#endif

/* Key 1 goes by the coarse clock; key 2 by either, since one key may be used under two rules; what it gives back, by the later one. */
inline read_clock()
{
#ifdef AUTO
    if
    :: key == 1 -> t = coarse
    :: key == 2 -> t = now
#ifdef UNDO_BY_COARSE
    :: key == 2 -> t = coarse
#else
    :: key == 2 && what != GIVE_BACK && coarse != now -> t = coarse
#endif
    fi
#else
    t = now
#endif
}

#ifdef RECYCLE_BY_PRECISE
#define RECYCLING_CLOCK now
#elif defined(RECYCLE_AHEAD_OF_OWN_CLOCK)
#define RECYCLING_CLOCK coarse
#else
#define RECYCLING_CLOCK lesser(coarse, t)
#endif

/* What was known is not any more. */
inline start_over()
{
    at = 0; state = 0; next = 0; allowed = false; seen = 0; evicting = false;
#if !defined(CLOCK_BEFORE_SCAN) && !defined(UNDO_CLOCK_FIRST)
    t = 0
#endif
}

proctype thread(byte me, ops)
{
    byte what, key, cost, at, t, state, next, i, recycling, seen, mark;
    bool holding, allowed, evicting, charged, own;

operation:
    atomic {
        if
        :: ops == 0 || moot -> goto stop
        :: ops > 0 && !moot -> ops--
        fi;
        select (key : 1 .. KEYS);
        busy_with[me] = key;
        if
        :: MAY(HIT) -> what = HIT; select (cost : 1 .. LIMIT)
#ifdef UNDOES
        :: MAY(TAKE) -> what = TAKE; select (cost : 1 .. LIMIT)
#endif
#ifdef LEASE
        :: MAY(GRANT) -> what = GRANT; select (cost : 1 .. LIMIT)
#endif
#ifdef RESETS
        :: MAY(RESET) -> what = RESET
#endif
        fi;
        if
        :: what >= GRANT -> goto lock
        :: else
        fi
    };
    atomic { read_clock(); goto find_in };

find_in: /* in both buckets */
    atomic {
        if
        :: at < SLOTS && F[at] != key -> at++; goto find_in
        :: at < SLOTS && F[at] == key -> goto change_slot
        :: at == SLOTS -> start_over(); goto lock
        fi
    };

change_slot:
    atomic { state = S[at]; goto second_reading };

second_reading:
    atomic {
        if
        :: state == BUSY -> start_over(); goto lock
        :: state != BUSY
        fi;
        if
#ifndef NO_SECOND_READING
        :: F[at] != key -> start_over(); goto lock
        :: F[at] == key
#else
        :: true
#endif
        fi;
        change();
        next = 0;
        if
        :: allowed -> goto swap
        :: else -> judged_by_another = (F[at] != key); assert(!judged_by_another); goto answered
        fi
    };

swap:
    atomic {
        if
#ifndef STORE_INSTEAD_OF_SWAP
        :: S[at] != state -> state = S[at]; goto second_reading
        :: S[at] == state
#else
        :: true
#endif
        fi;
        change();
        S[at] = next;
        if
        :: F[at] == key -> happens(); charged = true
        :: F[at] != key /* noticed, and made over; or it has happened to a key that is forgotten */
        :: F[at] != key && !forgotten[me] -> astray[me] = F[at]; happens() /* not noticed, the key being back by then */
        fi
    };
#ifndef NO_THIRD_READING
    atomic {
        moot = moot || (F[at] == key && !charged && !astray[me] && !forgotten[me]) || (F[at] != key && astray[me]);
        astray[me] = 0;
        no_over_admission();
        if
        :: F[at] == key -> charged = true
        :: F[at] != key -> charged = false; start_over(); goto lock
        fi
    };
#endif
    goto answered;

/* ---- under the lock of the stripe */

lock: /* change_locked, reset, give_back */
    atomic {
        if
        :: UNLOCKED
        :: !(UNLOCKED) && !stripe[stripe_of(key)] -> stripe[stripe_of(key)] = true
        fi;
        holding = true;
#ifdef CLOCK_BEFORE_SCAN
        read_clock();
#endif
        goto find_settled
    };

find_settled:
    atomic {
        if
        :: at == SLOTS -> goto not_found
        :: at < SLOTS && F[at] != key -> at++; goto find_settled
        :: at < SLOTS && F[at] == key
        fi
    };
    atomic {
        if
#ifndef BUSY_IS_ABSENT
        :: S[at] == BUSY -> goto wait_a_little
#else
        :: S[at] == BUSY -> at++; goto find_settled
#endif
        :: S[at] != BUSY
#ifdef NO_LAST_LOOK
            -> goto found
#endif
        fi
    };
    atomic {
        if
        :: F[at] == key -> goto found
        :: F[at] != key -> at = at - at % BUCKET; goto find_settled
        fi
    };

wait_a_little: /* shown as waiting, not as going round */
    atomic { S[at] != BUSY || F[at] != key -> at = at - at % BUCKET; goto find_settled };

found:
    atomic {
        state = S[at];
        if
        :: state == BUSY -> start_over(); goto find_settled
        :: state != BUSY && what == RESET -> next = FRESH; goto replace
        :: else
        fi
    };
    atomic {
        if
#ifndef NO_SECOND_READING_LOCKED
        :: F[at] != key -> start_over(); goto find_settled
        :: F[at] == key
#else
        :: true
#endif
        fi;
        own = (F[at] == key)
    };
    atomic {
#if !defined(CLOCK_BEFORE_SCAN) && !defined(UNDO_CLOCK_FIRST)
        read_clock();
#endif
        change();
        if
        :: !allowed -> judged_by_another = (!own && what != GIVE_BACK); assert(!judged_by_another); own = false; goto unlock
#if defined(LEASE) && !defined(LEASE_WITHOUT_CLAIM)
        :: allowed -> own = false; goto replace
#else
        :: allowed -> own = false
#endif
        fi
    };

exchange:
    atomic {
        if
        :: S[at] != state -> start_over(); goto find_settled
        :: S[at] == state -> S[at] = next
        fi;
        if
        :: what == GIVE_BACK && (F[at] == key && forgotten[me] || evicted[me]) -> forget(F[at], true) /* back already, or another's */
        :: what == GIVE_BACK && !(F[at] == key && forgotten[me] || evicted[me]) /* the ghost tells whether that is right */
        :: what != GIVE_BACK && F[at] == key -> happens(); charged = true
        :: what != GIVE_BACK && F[at] != key
        fi
    };
#ifndef NO_THIRD_READING_LOCKED
    atomic {
        if
        :: F[at] == key
        :: F[at] != key -> charged = false; start_over(); goto find_settled
        fi
    };
#endif
    goto unlock;

replace:
#ifndef REPLACE_WITHOUT_CLAIM
    atomic {
        if
        :: S[at] != state -> start_over(); goto find_settled
        :: S[at] == state -> S[at] = BUSY
        fi
    };
    atomic {
        if
#ifndef REPLACE_WITHOUT_LOOK
        :: F[at] != key -> goto restore
        :: F[at] == key
#else
        :: true
#endif
        fi;
        if
        :: next != FRESH -> goto replaced
        :: else
        fi
    };
#endif
    atomic { took_from_another = (F[at] != key); assert(!took_from_another); forget(key, false); F[at] = 0 };
replaced:
    atomic {
        if
        :: next != FRESH -> happens(); charged = true
        :: else
        fi;
        S[at] = next;
        goto unlock
    };

restore:
    atomic { S[at] = state; ONE_SLOT_A_KEY; start_over(); goto find_settled };

/* ---- insertion */

not_found:
    atomic {
        at = NONE;
        if
        :: what <= GRANT
        :: what > GRANT -> goto unlock
        fi;
#ifndef CLOCK_BEFORE_SCAN
        read_clock();
#endif
        change();
        next = 0;
        if
        :: allowed
        :: !allowed -> goto unlock
        fi;
#ifndef AUTO
        recycling = t;
        goto choose
#endif
    };
#ifdef AUTO
    atomic { recycling = RECYCLING_CLOCK; goto choose };
#endif

choose:
    atomic {
        if
        :: i == SLOTS -> i = 0; state = 0; goto chosen
        :: i < SLOTS -> state = S[i]
        fi;
        if
        :: state != BUSY && expired(state, recycling) -> at = i; seen = state; evicting = false
        :: state != BUSY && expired(state, recycling) && at != NONE && !evicting
        :: state != BUSY && !expired(state, recycling) && (at == NONE || evicting) -> at = i; seen = state; evicting = true
        :: state != BUSY && !expired(state, recycling) && at != NONE
        :: state == BUSY
        fi;
        i++;
        state = 0;
        goto choose
    };

chosen:
    atomic {
        recycling = 0;
        if
        :: at == NONE -> !ALL_BUSY; start_over(); goto find_settled
#ifndef EVICT
        :: at != NONE && evicting -> allowed = false; goto unlock
        :: at != NONE && !evicting -> goto occupy
#else
        :: at != NONE -> goto occupy
#endif
        fi
    };

occupy:
    atomic {
        if
#ifndef OCCUPY_WITHOUT_SWAP
        :: S[at] != seen -> start_over(); goto find_settled
        :: S[at] == seen
#else
        :: true
#endif
        fi;
#ifndef OCCUPY_WITHOUT_BUSY
        S[at] = BUSY;
#endif
        seen = 0;
        if
        :: evicting -> forget(F[at], true)
        :: else
        fi;
        evicting = false
    };
#ifndef OCCUPY_STATE_FIRST
    atomic { F[at] = key };
#endif
    atomic { change(); S[at] = next; happens(); charged = true; ONE_SLOT_A_KEY };
#ifdef OCCUPY_STATE_FIRST
    atomic { F[at] = key; ONE_SLOT_A_KEY };
#endif
    goto unlock;

/* ---- the end of an operation */

unlock:
    atomic {
        holding = false;
        if
        :: UNLOCKED
        :: else -> stripe[stripe_of(key)] = false
        fi;
        goto answered
    };

answered:
    atomic {
        uncharged = (!moot && what <= TAKE && allowed && !charged && !forgotten[me]);
        assert(!uncharged);
        at = 0; state = 0; recycling = 0; seen = 0; evicting = false; charged = false;
        if
        :: what == TAKE && allowed ->
#ifdef FIXED_WINDOW
            mark = end_of(next);
#else
            mark = t;
#endif
            next = 0; t = 0; allowed = false;
            what = GIVE_BACK;
#ifdef UNDO_CLOCK_FIRST
            t = now;
#endif
            goto lock
        :: else ->
            what = 0; key = 0; cost = 0; t = 0; next = 0; mark = 0; allowed = false;
            busy_with[me] = 0; forgotten[me] = false; evicted[me] = false;
            goto operation
        fi
    };

stop:
    threads--
}

proctype clock()
{
end:
    do
    :: now < START + TICKS -> now++
#ifdef AUTO
    :: coarse < now -> coarse = now
#endif
    od
}

/* Slot 0 belongs to key 1 and slot 1 to key 2, or to nobody: the keys are alike. */
inline begins_with(slot, k)
{
    if
    :: true
    :: true ->
        F[slot] = k;
#if defined(FIXED_WINDOW) || defined(LEASE)
        select (n : 1 .. LIMIT);
        units[k] = n;
        select (n : START .. START + PERIOD);
        ends[k] = n;
        moment[k] = n - PERIOD;
        S[slot] = word(ends[k], units[k])
#else
        select (n : START .. START + LIMIT);
        ends[k] = n;
        S[slot] = n
#endif
    fi
}

init
{
    byte n;

    atomic {
        begins_with(0, 1);
#if SLOTS > 1
        begins_with(1, 2);
#endif
        n = 0;
        threads = 2;
        run clock();
        run thread(0, OPS_0);
        run thread(1, OPS_1);
#if OPS_2 > 0
        threads++;
        run thread(2, OPS_2)
#endif
    };
    threads == 0;
    left_busy = !(NONE_BUSY);
    assert(!left_busy)
}
