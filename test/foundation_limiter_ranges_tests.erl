%% The ends of every documented range, from both sides: inside, the number works as it says; one further, it is refused and changes
%% nothing.
-module(foundation_limiter_ranges_tests).

-include_lib("eunit/include/eunit.hrl").

-import(fdn_limiter, [with/2, algorithms/0]).

-define(L, foundation_limiter).
-define(YEAR, (366 * 86400000)).
-define(TOO_LARGE, [(1 bsl 63) - 1, 1 bsl 63, (1 bsl 64) - 1, 1 bsl 64, 1 bsl 200]).

%% The largest limit of a period.
most(gcra, Period) -> Period * 1000000;
most(fixed_window, _) -> 16777214;
most(sliding_window, Period) -> (1 bsl ((20 + min(31, floor_log2(Period))) div 2)) - 1.

floor_log2(1) -> 0;
floor_log2(N) -> 1 + floor_log2(N div 2).

%% When a manual clock ends.
horizon(sliding_window) -> 1 bsl 38;
horizon(_) -> (1 bsl 59) div 1000000.

periods() -> [1, 2, 3, 999, 1000, 1024, 60000, 3600000, 86400000, ?YEAR - 1, ?YEAR].

%% What the documentation shows as examples of the formula.
sliding_examples_test() ->
    ?assertEqual(
        [1023, 16383, 131071, 1048575, 8388607],
        [most(sliding_window, P) || P <- [1, 1000, 60000, 3600000, 86400000]]
    ).

%% ---- period and limit -----------------------------------------------------------------------------------------------------------

limit_ends_test_() ->
    [{lists:flatten(io_lib:format("~w ~w", [A, P])), fun() -> limit_ends(A, P) end} || A <- algorithms(), P <- periods()].

limit_ends(A, P) ->
    Most = most(A, P),
    with(#{algorithm => A}, fun(N) ->
        ?assertEqual({allow, Most}, ?L:peek(N, k, P, Most)),
        ?assertEqual({allow, Most - 1}, ?L:hit(N, k, P, Most)),
        ?assertEqual({allow, 1}, ?L:hit(N, k, P, Most, Most - 2)),
        ?assertMatch({deny, _}, ?L:hit(N, k, P, Most, 2)),
        ?assertEqual({allow, 0}, ?L:hit(N, k, P, Most)),
        {deny, Wait} = ?L:hit(N, k, P, Most),
        %% Not a millisecond earlier.
        ok = ?L:advance(N, Wait - 1),
        Wait > 1 andalso ?assertEqual({deny, 1}, ?L:hit(N, k, P, Most)),
        ok = ?L:advance(N, 1),
        ?assertMatch({allow, _}, ?L:hit(N, k, P, Most)),
        %% At rest after two periods, whatever the algorithm.
        ok = ?L:advance(N, 2 * P),
        ?assertEqual({allow, 0}, ?L:hit(N, k, P, Most, Most)),
        Before = ?L:info(N),
        [?assertError({badarg, {limit, out_of_range}}, ?L:hit(N, k, P, Beyond)) || Beyond <- [-1, Most + 1 | ?TOO_LARGE]],
        [?assertError({badarg, {limit, out_of_range}}, ?L:peek(N, k, P, Beyond)) || Beyond <- [-1, Most + 1 | ?TOO_LARGE]],
        ?assertEqual(Before, ?L:info(N))
    end),
    with(#{algorithm => A, period => P, limit => Most}, fun(N) -> ?assertEqual({allow, Most - 1}, ?L:hit(N, k)) end),
    [
        ?assertEqual({error, {badarg, {limit, out_of_range}}}, ?L:start_link(never, #{algorithm => A, period => P, limit => Beyond}))
     || Beyond <- [-1, Most + 1 | ?TOO_LARGE]
    ].

period_ends_test() ->
    Beyond = [-1, 0, ?YEAR + 1 | ?TOO_LARGE],
    [
        with(#{algorithm => A}, fun(N) ->
            [
                begin
                    ?assertError({badarg, {period, out_of_range}}, ?L:hit(N, k, P, 1)),
                    ?assertError({badarg, {period, out_of_range}}, ?L:hit(N, k, P, 1, 1)),
                    ?assertError({badarg, {period, out_of_range}}, ?L:peek(N, k, P, 1)),
                    ?assertError({badarg, {period, out_of_range}}, ?L:reset(N, k, P)),
                    ?assertEqual(
                        {error, {badarg, {period, out_of_range}}},
                        ?L:start_link(never, #{algorithm => A, period => P, limit => 1})
                    )
                end
             || P <- Beyond
            ],
            [ok = ?L:reset(N, k, P) || P <- periods()],
            ?assertMatch(#{live := 0, allowed := 0, denied := 0}, ?L:info(N))
        end)
     || A <- algorithms()
    ].

%% Not only in one answer: so many hits are admitted, one at a time.
%% For gcra the period is long enough that the clock, which stands still, is all that counts.
each_unit_counts_test() ->
    [
        with(#{algorithm => A}, fun(N) ->
            ?assertEqual(Limit, admitted(N, P, Limit, Limit + 10, 0)),
            ?assertMatch(#{allowed := Limit, denied := 10, live := 1}, ?L:info(N))
        end)
     || {A, P, Limit} <- [
            {sliding_window, 1, 1023},
            {sliding_window, 1000, 16383},
            {sliding_window, 60000, 131071},
            {fixed_window, 1, 100000},
            {gcra, 1, 1000000}
        ]
    ].

admitted(_N, _P, _Limit, 0, Sum) ->
    Sum;
admitted(N, P, Limit, Left, Sum) ->
    case ?L:hit(N, k, P, Limit) of
        {allow, Remaining} when Remaining =:= Limit - Sum - 1 -> admitted(N, P, Limit, Left - 1, Sum + 1);
        {deny, _} -> admitted(N, P, Limit, Left - 1, Sum)
    end.

%% The previous window at its largest, weighed to the unit, through the whole of the next one.
sliding_full_windows_test() ->
    [
        with(#{algorithm => sliding_window, period => P, limit => Most}, fun(N) ->
            ok = ?L:advance(N, P - 1),
            {allow, 0} = ?L:hit(N, k, Most),
            ok = ?L:advance(N, 1),
            [
                begin
                    Left = Most - (Most * (P - At) + P - 1) div P,
                    case Left of
                        0 -> ?assertMatch({deny, _}, ?L:peek(N, k));
                        _ -> ?assertEqual({At, {allow, Left}}, {At, ?L:peek(N, k)})
                    end,
                    ok = ?L:advance(N, Step)
                end
             || {At, Step} <- steps(P)
            ],
            ?assertEqual({allow, 0}, ?L:hit(N, k, Most))
        end)
     || P <- periods(), Most <- [most(sliding_window, P)]
    ].

%% Moments of a window: {At, StepToTheNext}, to its end.
steps(P) ->
    Moments = lists:usort([At || At <- [0, 1, 2, P div 3, P div 2, P - 2, P - 1], At >= 0, At < P]),
    lists:zipwith(fun(At, Next) -> {At, Next - At} end, Moments, tl(Moments) ++ [P]).

%% ---- burst and cost -------------------------------------------------------------------------------------------------------------

burst_ends_test() ->
    [
        begin
            Options = #{limit => Limit, period => P},
            with(Options#{burst => Most}, fun(N) ->
                ?assertEqual({allow, Most}, ?L:peek(N, k)),
                ?assertEqual({allow, 0}, ?L:hit(N, k, Most)),
                ?assertMatch({deny, _}, ?L:hit(N, k)),
                {deny, Wait} = ?L:hit(N, k, Most),
                ok = ?L:advance(N, Wait - 1),
                ?assertEqual({deny, 1}, ?L:hit(N, k, Most)),
                ok = ?L:advance(N, 1),
                ?assertMatch({allow, _}, ?L:hit(N, k, Most)),
                [?assertError({badarg, {cost, exceeds_burst}}, ?L:hit(N, k, C)) || C <- [Most + 1, (1 bsl 64) - 1]]
            end),
            [
                ?assertEqual({error, {badarg, {burst, out_of_range}}}, ?L:start_link(never, Options#{burst => B}))
             || B <- [-1, 0, Most + 1 | ?TOO_LARGE], B > Most orelse B < 1
            ]
        end
     || {P, Limit} <- [{1, 1}, {1, 1000000}, {1000, 1}, {1000, 7}, {?YEAR, 1}, {?YEAR, 3}, {?YEAR, ?YEAR * 1000000}],
        Most <- [(1 bsl 61) div ((P * 16000000 + Limit - 1) div Limit)]
    ].

cost_ends_test() ->
    [
        with(#{algorithm => A, limit => 10, period => 1000}, fun(N) ->
            Exceeds = case A of gcra -> exceeds_burst; _ -> exceeds_limit end,
            [?assertError({badarg, {cost, Exceeds}}, ?L:hit(N, k, C)) || C <- [11, 12, (1 bsl 63), (1 bsl 64) - 1]],
            [?assertError({badarg, {cost, exceeds_limit}}, ?L:hit(N, k, 1000, 10, C)) || C <- [11, (1 bsl 64) - 1]],
            [?assertError({badarg, {cost, out_of_range}}, ?L:hit(N, k, C)) || C <- [-1, -(1 bsl 63), 1 bsl 64, -(1 bsl 100)]],
            [?assertError({badarg, {cost, out_of_range}}, ?L:hit(N, k, 1000, 10, C)) || C <- [-1, 1 bsl 64]],
            ?assertMatch(#{live := 0, allowed := 0, denied := 0}, ?L:info(N)),
            ?assertEqual({allow, 10}, ?L:hit(N, k, 0)),
            ?assertEqual({allow, 0}, ?L:hit(N, k, 10))
        end)
     || A <- algorithms()
    ].

%% ---- reservations and counts ------------------------------------------------------------------------------------------------------

-define(LONGEST_WAIT, ((1 bsl 61) div 16000000)).

%% Budgets that take years to come back, with a queue of years before them, to the end of the clock.
reserve_ends_test() ->
    [
        with(#{limit => 1, period => P, burst => Burst}, fun(N) ->
            ok = ?L:advance(N, At),
            [?assertError({badarg, {cost, exceeds_burst}}, ?L:reserve(N, k, C, 0)) || C <- [Burst + 1, (1 bsl 64) - 1]],
            [?assertError({badarg, {cost, out_of_range}}, ?L:reserve(N, k, C, 0)) || C <- [-1, 1 bsl 64]],
            [?assertError({badarg, {max_wait, out_of_range}}, ?L:reserve(N, k, 1, W)) || W <- [-1, 1 bsl 64, 1 bsl 200]],
            [?assertError({badarg, {max_wait, not_an_integer}}, ?L:reserve(N, k, 1, W)) || W <- [1.0, infinity, []]],
            ?assertMatch({ok, 0, _}, ?L:reserve(N, k, Burst, (1 bsl 64) - 1)),
            {Tokens, Waits} = lists:unzip(queue(N, Burst, [])),
            ?assertEqual([I * Burst * P || I <- lists:seq(length(Waits), 1, -1)], Waits),
            ?assert(hd(Waits) =< ?LONGEST_WAIT),
            %% The next would be just too long.
            {deny, Short} = ?L:reserve(N, k, Burst, (1 bsl 64) - 1),
            ?assertEqual(hd(Waits) + Burst * P, ?LONGEST_WAIT + Short),
            [?assertEqual(ok, ?L:refund(Token)) || Token <- Tokens],
            ?assertEqual({deny, Burst * P}, ?L:hit(N, k, Burst))
        end)
     || {P, Burst} <- [{?YEAR, 1}, {?YEAR, 4}, {1000000000, 100}], At <- [0, horizon(gcra)]
    ].

queue(N, Cost, Queue) ->
    case ?L:reserve(N, k, Cost, (1 bsl 64) - 1) of
        {ok, Wait, Token} -> queue(N, Cost, [{Token, Wait} | Queue]);
        {deny, _} -> Queue
    end.

%% {Options, the most that one call counts, where the count ends}
counted() ->
    [{#{algorithm => fixed_window, limit => 5, period => P}, 16777214, 16777214} || P <- periods()] ++
        [{#{algorithm => sliding_window, limit => 5, period => P}, M, M} || P <- periods(), M <- [most(sliding_window, P)]] ++
        [
            {#{algorithm => gcra, limit => L, period => P, burst => 1}, (1 bsl 61) div I, ((1 bsl 62) + I - 1) div I}
         || {P, L} <- [{1, 1}, {1, 1000000}, {1000, 7}, {?YEAR, 1}, {?YEAR, 3}], I <- [(P * 16000000 + L - 1) div L]
        ].

count_ends_test() ->
    [
        with(Options, fun(N) ->
            ?assertEqual(0, ?L:get(N, k)),
            ?assertEqual(Most, ?L:inc(N, k, Most)),
            ?assertEqual(Most, ?L:get(N, k, P)),
            [?assert(?L:inc(N, k, P, Most) =< End) || _ <- [1, 2]],
            ?assertEqual({Options, End}, {Options, ?L:inc(N, k, 1)}),
            ?assertEqual(End, ?L:get(N, k)),
            ?assertMatch({deny, _}, ?L:hit(N, k)),
            ?assertMatch({deny, _}, ?L:peek(N, k)),
            ?assertEqual(Most, ?L:set(N, k, P, Most)),
            ?assertEqual(Most, ?L:get(N, k)),
            ?assertEqual(0, ?L:inc(N, other, 0)),
            ?assertMatch(#{live := 1}, ?L:info(N)),
            ?assertEqual(0, ?L:set(N, k, P, 0)),
            ?assertEqual(0, ?L:get(N, k)),
            ?assertMatch(#{live := 0}, ?L:info(N)),
            [
                begin
                    ?assertError({badarg, {n, out_of_range}}, ?L:inc(N, k, X)),
                    ?assertError({badarg, {n, out_of_range}}, ?L:inc(N, k, P, X)),
                    ?assertError({badarg, {count, out_of_range}}, ?L:set(N, k, P, X))
                end
             || X <- [-1, Most + 1 | ?TOO_LARGE], X < 0 orelse X > Most
            ],
            [
                begin
                    ?assertError({badarg, {period, out_of_range}}, ?L:get(N, k, X)),
                    ?assertError({badarg, {period, out_of_range}}, ?L:inc(N, k, X, 1)),
                    ?assertError({badarg, {period, out_of_range}}, ?L:set(N, k, X, 1))
                end
             || X <- [-1, 0, ?YEAR + 1 | ?TOO_LARGE]
            ],
            ?assertMatch(#{live := 0}, ?L:info(N))
        end)
     || {#{period := P} = Options, Most, End} <- counted()
    ].

%% By a limit of 0 gcra cannot count, but what other limits under its period have consumed can be given back.
set_to_none_by_no_limit_test() ->
    with(#{limit => 0, period => 1000}, fun(N) ->
        {allow, 0} = ?L:hit(N, k, 1000, 1),
        ?assertEqual(0, ?L:get(N, k)),
        ?assertEqual(0, ?L:inc(N, k, 1)),
        ?assertEqual(0, ?L:set(N, k, 1000, 1)),
        ?assertMatch({deny, _}, ?L:peek(N, k, 1000, 1)),
        ?assertEqual(0, ?L:set(N, k, 1000, 0)),
        ?assertEqual({allow, 1}, ?L:peek(N, k, 1000, 1))
    end).

%% Where there is no slot, nothing is counted, and that is what is answered.
counts_of_a_full_table_test() ->
    [
        with(#{algorithm => A, limit => 5, period => 1000, capacity => 1, on_full => OnFull}, fun(N) ->
            #{slots := Slots} = ?L:info(N),
            [?L:hit(N, K) || K <- lists:seq(1, 20 * Slots)],
            #{full := Full} = ?L:info(N),
            [
                begin
                    ?assertEqual({A, 0}, {A, ?L:inc(N, {new, K}, 3)}),
                    ?assertEqual({A, 0}, {A, ?L:set(N, {new, K}, 1000, 3)}),
                    ?assertEqual({A, 0}, {A, ?L:get(N, {new, K})})
                end
             || K <- [1, 2, 3]
            ],
            ?assertMatch(#{live := Slots, full := F} when F =:= Full + 6, ?L:info(N))
        end)
     || A <- algorithms(), OnFull <- [deny, allow]
    ],
    with(#{limit => 5, period => 1000, capacity => 1, on_full => evict}, fun(N) ->
        [?assertEqual(3, ?L:inc(N, K, 3)) || K <- lists:seq(1, 100)],
        [?assertEqual(4, ?L:set(N, K, 1000, 4)) || K <- lists:seq(101, 200)]
    end).

%% Counted to the end at the end of the clock, no word overflows into another.
count_at_the_horizon_test() ->
    [
        with(Options, fun(N) ->
            ok = ?L:advance(N, horizon(maps:get(algorithm, Options)) - 1),
            _ = [?L:inc(N, k, Most) || _ <- lists:seq(1, 3)],
            ?assertEqual({Options, End}, {Options, ?L:get(N, k)}),
            ok = ?L:advance(N, 1),
            ?assertMatch({deny, _}, ?L:hit(N, other, maps:get(period, Options), 0)),
            ?assert(?L:get(N, k) =< End),
            ok = ?L:reset(N, k),
            ?assertEqual(0, ?L:get(N, k))
        end)
     || {#{period := P} = Options, Most, End} <- counted(), P > 1
    ].

%% ---- hit_all ----------------------------------------------------------------------------------------------------------------------

hit_all_ends_test() ->
    [
        with(#{algorithm => A, limit => Limit, period => 86400000}, fun(N) ->
            ?assertEqual({allow, []}, ?L:hit_all([])),
            %% Around where it goes to a dirty scheduler, and far beyond.
            [
                begin
                    ?assertEqual({allow, lists:seq(Limit - 1, Limit - Length, -1)}, ?L:hit_all(lists:duplicate(Length, {N, k, 1}))),
                    ok = ?L:reset(N, k)
                end
             || Length <- [1, 63, 64, 65, 10000, Limit]
            ],
            TooMany = lists:duplicate(Limit, {N, k, 1}) ++ [{N, k, 0}, {N, k, 1}],
            ?assertMatch({deny, I, _} when I =:= Limit + 1, ?L:hit_all(TooMany)),
            ?assertEqual({allow, Limit}, ?L:peek(N, k)),
            [
                ?assertError({badarg, _}, ?L:hit_all(Wrong))
             || Good <- [[], lists:duplicate(10, {N, k, 1}), lists:duplicate(100, {N, k, 1})],
                Bad <- [x, {N, k}, {N, k, 1, 1}, {N, k, -1}, {N, k, 1.0}, {N, k, Limit + 1}, {unknown, k, 1}, {N, k, 1 bsl 64}, []],
                Wrong <- [Good ++ [Bad], [Bad | Good], Good ++ Bad],
                not (Good ++ Bad =:= Wrong andalso Bad =:= [])
            ],
            Improper = [x, 1, {}, <<>>, #{}, [{N, k, 1} | {N, k, 1}]],
            [?assertError({badarg, {entries, not_a_proper_list}}, ?L:hit_all(X)) || X <- Improper],
            ?assertEqual({allow, Limit}, ?L:peek(N, k)),
            A =:= gcra andalso ?assertMatch(#{live := 0}, ?L:info(N))
        end)
     || A <- algorithms(), Limit <- [100000]
    ].

%% ---- capacity -------------------------------------------------------------------------------------------------------------------

capacity_ends_test() ->
    [
        begin
            with(#{algorithm => A, limit => 1, period => 1000, capacity => 1}, fun(N) ->
                ?assertEqual({allow, 0}, ?L:hit(N, k)),
                ?assertMatch({deny, _}, ?L:hit(N, k)),
                ?assertMatch(#{capacity := 1, live := 1}, ?L:info(N))
            end),
            [
                ?assertEqual(
                    {error, {badarg, {capacity, out_of_range}}},
                    ?L:start_link(never, #{algorithm => A, limit => 1, period => 1000, capacity => C})
                )
             || C <- [-1, 0, (1 bsl 31) + 1 | ?TOO_LARGE]
            ]
        end
     || A <- algorithms()
    ].

%% 64 GB of addresses; where the system does not give them, that is said.
largest_capacity_test() ->
    Name = fdn_limiter:name(),
    case ?L:start_link(Name, #{limit => 2, period => 1000, capacity => 1 bsl 31, clock => manual}) of
        {ok, _} ->
            [?assertEqual({allow, 1}, ?L:hit(Name, I)) || I <- lists:seq(1, 100)],
            [?assertEqual({allow, 0}, ?L:hit(Name, I)) || I <- lists:seq(1, 100)],
            ok = ?L:delete(Name);
        {error, enomem} ->
            ok
    end.

%% ---- time -----------------------------------------------------------------------------------------------------------------------

%% Up to its end a clock counts right: the longest windows open there and deny to their end.
horizon_test() ->
    [
        with(#{algorithm => A, limit => 3, period => P}, fun(N) ->
            End = horizon(A),
            {allow, 0} = ?L:hit(N, early, 3),
            ok = ?L:advance(N, End - 1),
            ?assertEqual({allow, 3}, ?L:peek(N, early)),
            ?assertEqual({allow, 0}, ?L:hit(N, late, 3)),
            {deny, Wait} = ?L:hit(N, late),
            ?assert(Wait >= 1 andalso Wait =< 2 * P),
            ok = ?L:advance(N, 1),
            case Wait of
                1 -> ?assertMatch({allow, _}, ?L:hit(N, late));
                _ -> ?assertEqual({deny, Wait - 1}, ?L:hit(N, late))
            end,
            ?assertEqual({allow, 0}, ?L:hit(N, last, 3)),
            ?assertMatch({deny, _}, ?L:hit(N, last)),
            [?assertError({badarg, {ms, out_of_range}}, ?L:advance(N, Ms)) || Ms <- [1, 2, 1 bsl 59 | ?TOO_LARGE]],
            ok = ?L:advance(N, 0),
            ?assertMatch(#{now := End}, ?L:info(N))
        end)
     || A <- algorithms(), P <- periods()
    ].

%% ---- what refuses everything ------------------------------------------------------------------------------------------------------

not_integers_test() ->
    [
        with(#{algorithm => A, limit => 10, period => 1000}, fun(N) ->
            [
                begin
                    ?assertError({badarg, {cost, not_an_integer}}, ?L:hit(N, k, X)),
                    ?assertError({badarg, {cost, not_an_integer}}, ?L:hit(N, k, 1000, 10, X)),
                    ?assertError({badarg, {limit, not_an_integer}}, ?L:hit(N, k, 1000, X)),
                    ?assertError({badarg, {period, not_an_integer}}, ?L:hit(N, k, X, 10)),
                    ?assertError({badarg, {period, not_an_integer}}, ?L:reset(N, k, X)),
                    ?assertError({badarg, {ms, not_an_integer}}, ?L:advance(N, X))
                end
             || X <- [1.0, 0.0, one, <<1>>, "1", [], {}, #{}, self(), infinity]
            ],
            ?assertMatch(#{live := 0, allowed := 0, denied := 0, now := 0}, ?L:info(N))
        end)
     || A <- algorithms()
    ].
