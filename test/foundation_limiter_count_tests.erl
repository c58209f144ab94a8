%% The counts: get, inc, set.
-module(foundation_limiter_count_tests).

-include_lib("eunit/include/eunit.hrl").

-import(fdn_limiter, [algorithms/0, with/2]).

-define(L, foundation_limiter).

with_each(Options, Fun) ->
    [with(Options#{algorithm => A}, fun(N) -> Fun(A, N) end) || A <- algorithms()].

count_and_hit_share_the_budget_test() ->
    with_each(#{limit => 10, period => 1000}, fun(_, N) ->
        ?assertEqual(0, ?L:get(N, k)),
        ?assertEqual({allow, 6}, ?L:hit(N, k, 4)),
        ?assertEqual(4, ?L:get(N, k)),
        ?assertEqual(4, ?L:get(N, k, 1000)),
        ?assertEqual(7, ?L:inc(N, k, 3)),
        ?assertEqual(7, ?L:inc(N, k, 0)),
        ?assertEqual({allow, 2}, ?L:hit(N, k)),
        ?assertEqual(10, ?L:inc(N, k, 1000, 2)),
        ?assertMatch({deny, _}, ?L:hit(N, k)),
        ?assertEqual(2, ?L:set(N, k, 1000, 2)),
        ?assertEqual({allow, 7}, ?L:hit(N, k)),
        ?assertEqual(0, ?L:set(N, k, 1000, 0)),
        ?assertEqual({allow, 10}, ?L:peek(N, k))
    end).

%% The limit does not stop inc and set, and hits are denied until enough of the count is gone.
counts_go_beyond_the_limit_test() ->
    with_each(#{limit => 10, period => 1000}, fun(A, N) ->
        ?assertEqual(25, ?L:inc(N, k, 25)),
        ?assertEqual(25, ?L:get(N, k)),
        {deny, Ms} = ?L:hit(N, k),
        ?assertEqual(40, ?L:set(N, k, 1000, 40)),
        {deny, Ms40} = ?L:hit(N, k),
        ?assert(A =:= fixed_window orelse Ms40 > Ms),
        ok = ?L:advance(N, Ms40 - 1),
        ?assertMatch({deny, 1}, ?L:hit(N, k)),
        ok = ?L:advance(N, 1),
        ?assertMatch({allow, _}, ?L:hit(N, k))
    end).

counts_end_with_their_time_test() ->
    with(#{limit => 10, period => 1000, algorithm => fixed_window}, fun(N) ->
        3 = ?L:inc(N, k, 3),
        ok = ?L:advance(N, 999),
        ?assertEqual(3, ?L:get(N, k)),
        %% The window stays open when its count is set.
        5 = ?L:set(N, k, 1000, 5),
        ok = ?L:advance(N, 1),
        ?assertEqual(0, ?L:get(N, k))
    end),
    with(#{limit => 10, period => 1000}, fun(N) ->
        3 = ?L:inc(N, k, 3),
        ok = ?L:advance(N, 100),
        ?assertEqual(2, ?L:get(N, k)),
        ok = ?L:advance(N, 1),
        ?assertEqual(2, ?L:get(N, k)),
        ok = ?L:advance(N, 199),
        ?assertEqual(0, ?L:get(N, k))
    end),
    with(#{limit => 10, period => 1000, algorithm => sliding_window}, fun(N) ->
        4 = ?L:inc(N, k, 4),
        ok = ?L:advance(N, 1500),
        ?assertEqual(2, ?L:get(N, k)),
        ok = ?L:advance(N, 500),
        ?assertEqual(0, ?L:get(N, k))
    end).

%% The windows count under any period; gcra needs its limit, which only the preset period has.
periods_test() ->
    [
        with(#{algorithm => A}, fun(N) ->
            ?assertEqual(5, ?L:inc(N, k, 1000, 5)),
            ?assertEqual(7, ?L:inc(N, k, 2000, 7)),
            ?assertEqual({5, 7, 0}, {?L:get(N, k, 1000), ?L:get(N, k, 2000), ?L:get(N, k, 3000)}),
            ?assertEqual({allow, 4}, ?L:hit(N, k, 1000, 10)),
            ?assertEqual(9, ?L:set(N, k, 1000, 9)),
            ?assertEqual({allow, 0}, ?L:hit(N, k, 1000, 10)),
            [?assertError({badarg, {limit, no_preset_limit}}, F()) || F <- [
                fun() -> ?L:get(N, k) end, fun() -> ?L:inc(N, k, 1) end
            ]]
        end)
     || A <- [fixed_window, sliding_window]
    ],
    with(#{limit => 10, period => 1000}, fun(N) ->
        [?assertError({badarg, {period, not_the_preset_one}}, F()) || F <- [
            fun() -> ?L:get(N, k, 999) end, fun() -> ?L:inc(N, k, 2000, 1) end, fun() -> ?L:set(N, k, 1, 1) end
        ]]
    end),
    with(#{}, fun(N) ->
        ?assertError({badarg, {period, not_the_preset_one}}, ?L:inc(N, k, 1000, 1)),
        ?assertError({badarg, {limit, no_preset_limit}}, ?L:inc(N, k, 1))
    end).

limit_zero_test() ->
    with_each(#{limit => 0, period => 1000}, fun(A, N) ->
        Count = case A of gcra -> 0; _ -> 3 end,
        ?assertEqual(0, ?L:get(N, k)),
        ?assertEqual(Count, ?L:inc(N, k, 3)),
        ?assertEqual(Count, ?L:set(N, k, 1000, 3)),
        ?assertEqual(Count, ?L:get(N, k)),
        ?assertEqual({deny, 1000}, ?L:hit(N, k))
    end).

%% The ends of the ranges, and one further.
ends_of_ranges_test() ->
    Most = fun(gcra) -> (1 bsl 61) div (16 * 100 * 1000000); (fixed_window) -> 16777214; (sliding_window) -> 16383 end,
    with_each(#{limit => 10, period => 1000}, fun(A, N) ->
        M = Most(A),
        ?assertEqual(M, ?L:set(N, k, 1000, M)),
        ?assertEqual(M, ?L:get(N, k)),
        ?assertMatch({deny, _}, ?L:hit(N, k)),
        ?assertEqual(M, ?L:inc(N, other, M)),
        %% A count stops somewhere, and never turns over.
        More = ?L:inc(N, k, M),
        ?assert(More >= M),
        ?assert(?L:inc(N, k, M) >= More),
        ?assertMatch({deny, _}, ?L:hit(N, k)),
        ?assertError({badarg, {count, out_of_range}}, ?L:set(N, k, 1000, M + 1)),
        ?assertError({badarg, {n, out_of_range}}, ?L:inc(N, k, M + 1)),
        ?assertError({badarg, {n, out_of_range}}, ?L:inc(N, k, 1000, M + 1)),
        ok = ?L:reset(N, k),
        ?assertEqual(0, ?L:get(N, k))
    end).

bad_arguments_test() ->
    with(#{algorithm => fixed_window, limit => 10, period => 1000}, fun(N) ->
        Huge = 1 bsl 80,
        Numbers = [{out_of_range, -1}, {out_of_range, Huge}, {out_of_range, -Huge}, {out_of_range, (1 bsl 64) - 1} |
                   [{not_an_integer, X} || X <- [1.0, one, "1", <<"1">>, [], {1}, self(), #{}]]],
        [
            ?assertError({badarg, {Argument, Reason}}, F(Bad))
         || {Reason, Bad} <- Numbers,
            {Argument, F} <- [
                {n, fun(X) -> ?L:inc(N, k, X) end}, {n, fun(X) -> ?L:inc(N, k, 1000, X) end},
                {count, fun(X) -> ?L:set(N, k, 1000, X) end}, {period, fun(X) -> ?L:get(N, k, X) end},
                {period, fun(X) -> ?L:inc(N, k, X, 1) end}, {period, fun(X) -> ?L:set(N, k, X, 1) end}
            ]
        ],
        [?assertError({badarg, {period, out_of_range}}, F()) || F <- [
            fun() -> ?L:get(N, k, 0) end, fun() -> ?L:inc(N, k, 0, 1) end, fun() -> ?L:set(N, k, 366 * 86400000 + 1, 1) end
        ]],
        [
            [?assertError({badarg, {limiter, Reason}}, F(Bad)) || F <- [
                fun(X) -> ?L:get(X, k) end, fun(X) -> ?L:get(X, k, 1000) end, fun(X) -> ?L:inc(X, k, 1) end,
                fun(X) -> ?L:inc(X, k, 1000, 1) end, fun(X) -> ?L:set(X, k, 1000, 1) end
            ]]
         || {Reason, Bad} <- [{unknown, no_such_limiter}, {deleted, 12345}, {not_a_name_or_handle, "name"}]
        ],
        ?assertMatch(#{live := 0}, ?L:info(N))
    end).

%% A key of any type is the same key to every call.
keys_test() ->
    Deep = lists:foldl(fun(_, Inner) -> [{Inner}] end, [], lists:seq(1, 100000)),
    Keys = [
        a, 1, -1, 1.5, 1 bsl 200, <<>>, <<1:3>>, "text", [], {}, {user, 1}, [a | b], #{a => #{b => c}}, self(), make_ref(),
        fun() -> ok end, fun erlang:self/0, hd(erlang:ports()), Deep, binary:copy(<<"k">>, 1 bsl 20),
        maps:from_list([{I, I} || I <- lists:seq(1, 1000)])
    ],
    with(#{limit => 10, period => 1000}, fun(N) ->
        [
            begin
                ?assertEqual({allow, 9}, ?L:hit(N, K)),
                ?assertEqual(3, ?L:inc(N, K, 2)),
                ?assertEqual({allow, [6]}, ?L:hit_all([{N, K, 1}])),
                {ok, 0, Token} = ?L:reserve(N, K, 5, 0),
                ?assertEqual({9, 9}, {?L:get(N, K), ?L:get(N, K, 1000)}),
                ok = ?L:refund(Token),
                ?assertEqual({allow, 6}, ?L:peek(N, K)),
                ?assertEqual(8, ?L:set(N, K, 1000, 8)),
                ?assertEqual({allow, 1}, ?L:hit(N, K))
            end
         || K <- Keys
        ],
        ?assertEqual(length(Keys), maps:get(live, ?L:info(N)))
    end).

%% Keys that are hashed on a dirty scheduler, and by handle.
large_keys_test() ->
    with_each(#{limit => 10, period => 1000}, fun(_, N) ->
        H = ?L:whereis(N),
        [
            begin
                ?assertEqual(2, ?L:inc(H, K, 2)),
                ?assertEqual(3, ?L:inc(N, K, 1000, 1)),
                ?assertEqual(3, ?L:get(H, K)),
                ?assertEqual(3, ?L:get(N, K, 1000)),
                ?assertEqual(9, ?L:set(N, K, 1000, 9)),
                ?assertEqual({allow, 0}, ?L:hit(N, K))
            end
         || K <- [binary:copy(<<"k">>, 1 bsl 20), lists:seq(1, 10000)]
        ]
    end).

%% Counts of many processes add up, and each call answers a count of its own.
concurrent_counts_test() ->
    with_each(#{limit => 1000000, period => 366 * 86400000, clock => precise}, fun(A, N) ->
        Parent = self(),
        Pids = [spawn_link(fun() -> Parent ! {self(), [?L:inc(N, k, 1) || _ <- lists:seq(1, 2500)]} end) || _ <- lists:seq(1, 8)],
        Counts = lists:append([receive {Pid, Mine} -> Mine end || Pid <- Pids]),
        ?assertEqual(20000, ?L:get(N, k)),
        %% A gcra count may be back by a breath when it is told.
        A =/= gcra andalso ?assertEqual(lists:seq(1, 20000), lists:sort(Counts))
    end).
