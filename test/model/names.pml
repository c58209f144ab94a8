/*
 * The protocol of c_src/engine/limiter_names.c: how readers enter a limiter by name or handle, and when a deleter may destroy it.
 *
 * Exhaustive over all interleavings, at every access to shared memory, of two readers, who enter and leave as often as they like, and
 * two writers, who add and remove. The accesses are seq_cst in the code, and spin is sequentially consistent. The one that is weaker, a
 * reader's store to its lane, goes through a store buffer that drains at any time, or when membarrier says so. The addresses of
 * destroyed limiters are given to new ones.
 *
 * Asserted: nobody uses a limiter that is destroyed; a handle finds its limiter or nothing, nothing only if it was removed; a name
 * finds a limiter that bore it at some moment within the call, nothing only if there was a moment without one; the number of limiters
 * is right; nobody waits for ever.
 *
 * PORTABLE: no membarrier, the announcement is a seq_cst store. LANE_0: the second reader has no lane of its own. The other macros take
 * one guard away each; test/model/run demands that an assertion says so.
 *
 * What the code does to shared memory, function by function; test/model/run compares. Who changes it there, changes the model.
 *   limiter_names.c fdn_limiters_lane: load lanes_given, swap lanes_given
 *   limiter_names.c announce: fetch_add crowd, fetch_sub crowd, store inside release, store inside, store inside release
 *   limiter_names.c enter_place: load limiter, announce, load limiter, load identity, load handle, load limiter, announce, announce
 *   limiter_names.c enter_name: load name, enter_place
 *   limiter_names.c fdn_limiters_enter_handle: enter_place
 *   limiter_names.c fdn_limiters_leave: announce
 *   limiter_names.c locked_find: load name
 *   limiter_names.c locked_find_handle: load handle
 *   limiter_names.c vacancy: load name
 *   limiter_names.c fdn_limiters_add: lock, locked_find, vacancy, store handle, store limiter, store name, unlock
 *   limiter_names.c fdn_limiters_remove: lock, locked_find_handle, load limiter, store limiter, store name, store handle, load name,
 *     load name, store name, unlock, wait_for_readers, destroy
 *   limiter_names.c wait_for_readers: membarrier_all, load lanes_given, load inside, load crowd
 */
#ifndef ADDS
#define ADDS 4 /* limiters ever made, the first one included */
#endif
#ifndef READERS
#define READERS 1
#endif
#define PLACES 3 /* both names are at home in 0; 2 stays EMPTY, so probing ends there */
#define ADDRESSES 3

#define NOTHING 0
#define EMPTY 0
#define TOMBSTONE 1
#define NAME_A 2
#define NAME_B 3
#define BY_HANDLE 100

#if READERS > 1
#define FOR_READERS(what) what(0) what(1)
#else
#define FOR_READERS(what) what(0)
#endif

/* ---- shared memory --------------------------------------------------------------------------------------------------------------- */

byte name[PLACES], limiter[PLACES], handle[PLACES]; /* a handle: incarnation * 4 + place */
byte inside[READERS];                               /* the lanes, as others see them */
chan buffer[READERS] = [2] of { byte };             /* stores to the lanes that nobody else sees yet */
byte crowd, lanes_given, live, incarnations;
chan unpublished = [0] of { byte }; /* who removed a limiter is its deleter: these hand it to each other */
#ifdef LANES_COUNTED_EARLY
byte lanes_seen;
#endif

/* ---- what is true, for the assertions -------------------------------------------------------------------------------------------- */

byte alive[ADDRESSES + 1]; /* the incarnation of the limiter at this address; 0: free memory */
byte bearer[4];            /* of a name: the incarnation of its limiter */
byte handle_of[ADDS + 1];  /* of an incarnation, once fdn_limiters_add returned it */
byte wanted[READERS];      /* what a reader is looking for: a name, or BY_HANDLE + incarnation */
bool absent[READERS];      /* there was a moment in its call without such a limiter */
byte bore[READERS];        /* bits: the incarnations that it may rightly find */
byte held[READERS];        /* the address that it uses */

/* What must not be, by the names under which test/model/run reports it. */
bool destroyed_in_use, found_freed, found_another, told_another, not_found, miscounted;

#define BORE(who) if :: wanted[who] == identity -> bore[who] = bore[who] | (1 << inc) :: else fi;
#define ABSENT(who) if :: wanted[who] == identity -> absent[who] = true :: else fi;
#define HELD(who) destroyed_in_use = destroyed_in_use || held[who] == t;

inline appears(identity, inc)
{
    bearer[identity] = inc;
    FOR_READERS(BORE)
}

inline gone(identity)
{
    FOR_READERS(ABSENT)
}

inline disappears(inc)
{
    if
    :: bearer[NAME_A] == inc -> bearer[NAME_A] = 0; gone(NAME_A)
    :: bearer[NAME_B] == inc -> bearer[NAME_B] = 0; gone(NAME_B)
    fi;
    gone(BY_HANDLE + inc)
}

inline destroy(t)
{
    FOR_READERS(HELD)
    assert(!destroyed_in_use);
    alive[t] = 0
}

/* ---- readers --------------------------------------------------------------------------------------------------------------------- */

inline announce(t)
{
    if
    :: lane == 0 -> crowd++
    :: lane != 0 -> buffer[lane - 1]!t
    fi
#if defined(PORTABLE) && !defined(RELEASED_ANNOUNCEMENT)
    ;
    lane == 0 || empty(buffer[lane - 1])
#endif
}

inline withdraw()
{
    if
    :: lane == 0 -> crowd--
    :: lane != 0 -> buffer[lane - 1]!NOTHING
    fi
}

inline returns()
{
    wanted[me] = 0; absent[me] = false; bore[me] = 0; here = 0; t = 0; at = 0; told = 0; same = false
}

proctype reader(byte me)
{
    byte lane, at, here, t, told;
    bool same;

#ifdef LANE_0
    if :: me < READERS - 1 -> atomic { lane = lanes_given; lanes_given++ } :: else fi;
#else
    atomic { lane = lanes_given; lanes_given++ }; /* fdn_limiters_lane */
#endif

idle:
    atomic {
        if
        :: goto stop
        :: wanted[me] = NAME_A
        :: wanted[me] = NAME_B
        :: handle_of[1] != 0 -> wanted[me] = BY_HANDLE + 1
        :: handle_of[2] != 0 -> wanted[me] = BY_HANDLE + 2
#if ADDS > 2
        :: handle_of[3] != 0 -> wanted[me] = BY_HANDLE + 3
#endif
#if ADDS > 3
        :: handle_of[4] != 0 -> wanted[me] = BY_HANDLE + 4
#endif
        fi;
        if
        :: wanted[me] > BY_HANDLE ->
            bore[me] = 1 << (wanted[me] - BY_HANDLE);
            absent[me] = (bearer[NAME_A] != wanted[me] - BY_HANDLE && bearer[NAME_B] != wanted[me] - BY_HANDLE);
            at = handle_of[wanted[me] - BY_HANDLE] % 4;
            goto enter_place
        :: else ->
            if
            :: bearer[wanted[me]] != 0 -> bore[me] = 1 << bearer[wanted[me]]
            :: else -> absent[me] = true
            fi
        fi
    };
    do
    :: atomic { here = name[at] ->
            if
            :: here == wanted[me] -> here = 0; goto enter_place
            :: here == EMPTY || at == PLACES - 1 -> goto nothing
#ifdef TOMBSTONE_ENDS_PROBING
            :: here == TOMBSTONE -> goto nothing
#endif
            :: else -> at++
            fi
        }
    od;

enter_place:
    t = limiter[at]; /* first look */
    if :: t == NOTHING -> goto nothing :: else fi;
    announce(t);
#ifndef NO_SECOND_LOOK
    if /* second look */
    :: limiter[at] == t
    :: else -> withdraw(); goto enter_place
    fi;
#endif
    if /* identity */
    :: wanted[me] > BY_HANDLE -> same = (handle[at] == handle_of[wanted[me] - BY_HANDLE])
    :: wanted[me] < BY_HANDLE -> same = (name[at] == wanted[me]); told = handle[at]
    fi;
#ifndef NO_THIRD_LOOK
    if /* third look */
    :: limiter[at] == t
    :: else -> told = 0; withdraw(); goto enter_place
    fi;
#endif
    if
    :: same -> goto found
    :: else -> withdraw()
    fi;

nothing:
    atomic { not_found = !absent[me]; assert(!not_found); returns() };
    goto idle;

found:
    atomic {
        found_freed = (alive[t] == 0);
        assert(!found_freed);
        found_another = !((bore[me] >> alive[t]) & 1);
        assert(!found_another);
        told_another = (wanted[me] < BY_HANDLE && told / 4 != alive[t]);
        assert(!told_another);
        held[me] = t;
        returns()
    };
#ifdef LEAVE_BEFORE_LAST_USE
    withdraw();
    held[me] = 0; /* the last use of the limiter */
#else
    held[me] = 0; /* the last use of the limiter */
    withdraw(); /* fdn_limiters_leave */
#endif
    goto idle;

stop:
    skip
}

/* The hardware: what is in a store buffer becomes visible sooner or later. */
proctype store_buffer(byte lane)
{
end:
    do
    :: buffer[lane]?inside[lane]
    od
}

/* ---- changes --------------------------------------------------------------------------------------------------------------------- */

/*
 * All of them are made under the mutex, so one process makes them all. It leaves the waiting and destroying, which is done without the
 * mutex, to others.
 */
inline add(n)
{
    d_step { /* only the holder of the mutex changes names */
        at = 0;
        do
        :: at == PLACES || name[at] == EMPTY -> at = PLACES; break
        :: at < PLACES && name[at] == n -> break
        :: at < PLACES && name[at] != EMPTY && name[at] != n -> at++
        od;
#ifdef NO_LOOK_FOR_THE_NAME
        at = PLACES;
#endif
        if
        :: at < PLACES -> t = NOTHING /* FDN_EBUSY */
        :: else ->
            at = 0;
            do
            :: name[at] <= TOMBSTONE -> break
            :: else -> at++
            od;
            incarnations++;
            live++
        fi
    };
    if
    :: t != NOTHING ->
        handle[at] = incarnations * 4 + at;
        d_step { alive[t] = incarnations; limiter[at] = t };
        d_step { name[at] = n; appears(n, incarnations); count_is_right(); handle_of[incarnations] = incarnations * 4 + at }
    :: else
    fi
}

inline membarrier()
{
#if !defined(PORTABLE) && !defined(NO_MEMBARRIER)
    i = 0;
    do
    :: d_step { i < READERS ->
            do
            :: len(buffer[i]) > 0 -> buffer[i]?inside[i]
            :: len(buffer[i]) == 0 -> break
            od;
            i++
        }
    :: i == READERS -> break
    od;
    i = 0
#else
    skip
#endif
}

inline remove(h)
{
    d_step {
        at = h % 4;
        if
        :: handle[at] == h -> t = limiter[at]
        :: else -> at = PLACES
        fi
    };
    if
    :: at < PLACES ->
#ifdef LANES_COUNTED_EARLY
        lanes_seen = lanes_given;
#endif
#ifdef BARRIER_BEFORE_UNPUBLISHING
        membarrier();
#endif
        d_step {
            limiter[at] = NOTHING;
            if :: t != NOTHING -> disappears(alive[t]) :: else fi
        };
        name[at] = TOMBSTONE;
        d_step {
#ifndef HANDLE_KEPT
            handle[at] = 0;
#endif
            live--;
            count_is_right();
#ifndef TOMBSTONE_REMOVED
            if
            :: name[(at + 1) % PLACES] != EMPTY -> at = PLACES
            :: else
            fi
#endif
        };
        do
        :: d_step { at < PLACES && name[at] == TOMBSTONE -> name[at] = EMPTY; at = (at + PLACES - 1) % PLACES }
        :: at == PLACES || name[at] != TOMBSTONE -> break
        od;
        if
        :: t != NOTHING -> unpublished!t
        :: else
        fi
    :: else
    fi
}

inline count_is_right()
{
    miscounted = (live != (bearer[NAME_A] != 0) + (bearer[NAME_B] != 0));
    assert(!miscounted)
}

/* ADDS limits what it may do; it stops anywhere. */
proctype changes()
{
    byte at, t, h, i;

    do
    :: break
    :: atomic {
            incarnations < ADDS ->
            if
            :: alive[1] == 0 -> t = 1
            :: alive[2] == 0 -> t = 2
            :: alive[3] == 0 && incarnations > 1 -> t = 3 /* the first time 2 is as good */
            fi
        };
        if
        :: add(NAME_A)
        :: add(NAME_B)
        fi;
        d_step { t = 0; at = 0 }
    :: atomic {
            if
            :: handle_of[1] != 0 -> h = handle_of[1]
            :: handle_of[2] != 0 -> h = handle_of[2]
#if ADDS > 2
            :: handle_of[3] != 0 -> h = handle_of[3]
#endif
#if ADDS > 3
            :: handle_of[4] != 0 -> h = handle_of[4]
#endif
            fi
        };
        remove(h);
        d_step { t = 0; at = 0; h = 0 }
    od
}

/* ---- the end of a limiter -------------------------------------------------------------------------------------------------------- */

proctype deleter()
{
    byte t, i, lanes;

end:
    do
    :: unpublished?t ->
#ifndef BARRIER_BEFORE_UNPUBLISHING
        membarrier();
#endif
#ifdef LANES_COUNTED_EARLY
        lanes = lanes_seen;
#else
        lanes = lanes_given;
#endif
        i = 1;
        do
#ifndef NO_LOOK_AT_LANES
        :: i < lanes && inside[i - 1] != t -> i++ /* as long as not: nap */
#else
        :: i < lanes -> i++
#endif
        :: i >= lanes -> break
        od;
#ifndef NO_LOOK_AT_CROWD
        crowd == 0;
#endif
        atomic { destroy(t); t = 0; i = 0; lanes = 0 }
    od
}

init
{
    atomic {
        /* One limiter to begin with: at address 1, named A, in place 0. */
        lanes_given = 1; incarnations = 1; live = 1;
        alive[1] = 1; bearer[NAME_A] = 1; handle_of[1] = 4;
        handle[0] = 4; limiter[0] = 1; name[0] = NAME_A;
        run changes(); run deleter();
#ifdef TWO_DELETERS
        run deleter();
#endif
        run store_buffer(0); run reader(0);
#if READERS > 1
        run store_buffer(1); run reader(1)
#endif
    }
}
