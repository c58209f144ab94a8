%% Debits that are given back, and counts that are changed, by processes that race. The clock stands still: what was admitted is what is
%% missing in the end, to the unit.
-module(foundation_limiter_undo_tests).

-include_lib("eunit/include/eunit.hrl").

-import(fdn_limiter, [algorithms/0, with/2, at_once/1, race/3]).

-define(L, foundation_limiter).
-define(TIMES, 40).

each_algorithm(Test) ->
    [{timeout, 300, {atom_to_list(A), fun() -> Test(A) end}} || A <- algorithms()].

limiter(Algorithm, Limit) ->
    #{algorithm => Algorithm, limit => Limit, period => 60000, capacity => 10000}.

%% Two processes meet at each key, and each calls the fun some times with it; what the calls admitted to each key.
race_for(Keys, Fun) ->
    Admitted = counters:new(Keys, []),
    race(Keys, 1, fun(Me, Key) -> counters:add(Admitted, Key, times(?TIMES, fun() -> Fun(Me, Key) end, 0)) end),
    [{Key, counters:get(Admitted, Key)} || Key <- lists:seq(1, Keys)].

times(0, _Fun, Sum) -> Sum;
times(N, Fun, Sum) -> times(N - 1, Fun, Sum + Fun()).

admitted({allow, _}, Cost) -> Cost;
admitted({deny, _}, _Cost) -> 0.

left(N, Key) ->
    case ?L:peek(N, Key) of
        {allow, Left} -> Left;
        {deny, _} -> 0
    end.

%% ---- hit_all --------------------------------------------------------------------------------------------------------------------

%% Every hit_all is denied, at its last entry if not before. Nothing stays debited.
all_undone_test_() ->
    each_algorithm(fun(A) ->
        with(limiter(A, 5), fun(N) ->
            {allow, 0} = ?L:hit(N, none, 5),
            Keys = race_for(2000, fun(Me, Key) ->
                {deny, _, _} = ?L:hit_all([{N, Key, 1}, {N, {own, Me}, 2}, {N, {other, Key}, 3}, {N, Key, 1}, {N, none, 1}]),
                0
            end),
            [?assertEqual({K, 5}, {K, left(N, K)}) || {Key, 0} <- Keys, K <- [Key, {other, Key}, {own, 1}, {own, 2}]],
            ?assertEqual(0, left(N, none))
        end)
    end).

%% Hits race with hit_alls that are undone: those may deny them, and never let more of them in.
undone_among_hits_test_() ->
    each_algorithm(fun(A) ->
        Limit = ?TIMES - 5,
        with(limiter(A, Limit), fun(N) ->
            {allow, 0} = ?L:hit(N, none, Limit),
            Admitted = race_for(2000, fun
                (1, Key) -> admitted(?L:hit(N, Key), 1);
                (2, Key) -> {deny, _, _} = ?L:hit_all([{N, Key, 2}, {N, none, 1}]), 0
            end),
            [?assertEqual({Key, Limit - Sum}, {Key, left(N, Key)}) || {Key, Sum} <- Admitted],
            ?assertEqual([], [Key || {Key, Sum} <- Admitted, Sum > Limit])
        end)
    end).

%% Over several limiters and keys, in orders that cross, some denied and some not: all or nothing.
all_or_nothing_test_() ->
    {timeout, 300, fun() ->
        Limit = ?TIMES,
        with(limiter(gcra, Limit), fun(G) ->
            with(limiter(fixed_window, Limit), fun(F) ->
                with(limiter(sliding_window, Limit), fun(S) ->
                    Admitted = race_for(2000, fun(Me, Key) ->
                        Entries = [{G, Key, 1}, {F, Key, 1}, {S, Key, 1}],
                        case ?L:hit_all(case Me of 1 -> Entries; 2 -> lists:reverse(Entries) end) of
                            {allow, [_, _, _]} -> 1;
                            {deny, _, _} -> 0
                        end
                    end),
                    [?assertEqual({Key, Limit - Sum}, {Key, left(L, Key)}) || {Key, Sum} <- Admitted, L <- [G, F, S]],
                    ?assertEqual([], [Key || {Key, Sum} <- Admitted, Sum > Limit])
                end)
            end)
        end)
    end}.

%% ---- reserve and refund -----------------------------------------------------------------------------------------------------------

%% Reservations are all given back, those that would have had to wait, too. What hits took stays.
refunded_test_() ->
    {timeout, 300, fun() ->
        Limit = ?TIMES,
        with(limiter(gcra, Limit), fun(N) ->
            Admitted = race_for(2000, fun(Me, Key) ->
                case ?L:reserve(N, Key, 1 + Me, 20000) of
                    {ok, _, Token} -> ok = ?L:refund(Token);
                    {deny, _} -> ok
                end,
                admitted(?L:hit(N, Key), 1)
            end),
            [?assertEqual({Key, Limit - Sum}, {Key, left(N, Key)}) || {Key, Sum} <- Admitted],
            ?assertEqual([], [Key || {Key, Sum} <- Admitted, Sum > Limit])
        end)
    end}.

%% ---- counts -----------------------------------------------------------------------------------------------------------------------

%% inc is a counter: with one unit at a time, each count is answered once.
inc_test_() ->
    each_algorithm(fun(A) ->
        Rounds = 20000,
        with(limiter(A, 4 * Rounds), fun(N) ->
            Counts = at_once([fun() -> [?L:inc(N, key, 1) || _ <- lists:seq(1, Rounds)] end || _ <- lists:seq(1, 4)]),
            ?assertEqual(lists:seq(1, 4 * Rounds), lists:sort(lists:append(Counts))),
            ?assertEqual(4 * Rounds, ?L:get(N, key)),
            ?assertMatch({deny, _}, ?L:hit(N, key))
        end)
    end).

%% Hits beside it never admit what it counted.
inc_among_hits_test_() ->
    each_algorithm(fun(A) ->
        Limit = ?TIMES,
        with(limiter(A, Limit), fun(N) ->
            Counted = race_for(2000, fun
                (1, Key) -> true = is_integer(?L:inc(N, Key, 1)), 1;
                (2, Key) -> admitted(?L:hit(N, Key, 2), 2)
            end),
            [?assertEqual({Key, Sum}, {Key, ?L:get(N, Key)}) || {Key, Sum} <- Counted],
            ?assertEqual([], [Key || {Key, Sum} <- Counted, Sum > Limit + ?TIMES])
        end)
    end).

%% ---- reset and set ----------------------------------------------------------------------------------------------------------------

%% Each reset is worth one budget, and other keys keep theirs.
reset_test_() ->
    each_algorithm(fun(A) ->
        Limit = 2,
        with(limiter(A, Limit), fun(N) ->
            {allow, 1} = ?L:hit(N, other, 1),
            Admitted = race_for(2000, fun
                (1, Key) -> ok = ?L:reset(N, Key), 0;
                (2, Key) -> admitted(?L:hit(N, Key), 1)
            end),
            ?assertEqual([], [Key || {Key, Sum} <- Admitted, Sum < Limit orelse Sum > Limit * (?TIMES + 1)]),
            [begin ok = ?L:reset(N, Key), ?assertEqual({Key, Limit}, {Key, left(N, Key)}) end || {Key, _} <- Admitted],
            ?assertEqual(1, left(N, other)),
            ?assertMatch(#{live := 1}, ?L:info(N))
        end)
    end).

set_test_() ->
    each_algorithm(fun(A) ->
        Limit = 10,
        with(limiter(A, Limit), fun(N) ->
            Admitted = race_for(2000, fun
                (1, Key) -> 8 = ?L:set(N, Key, 60000, 8), 0;
                (2, Key) -> admitted(?L:hit(N, Key), 1)
            end),
            ?assertEqual([], [Key || {Key, Sum} <- Admitted, Sum > Limit + ?TIMES * (Limit - 8)]),
            [
                begin
                    8 = ?L:set(N, Key, 60000, 8),
                    ?assertEqual({Key, 8, 2}, {Key, ?L:get(N, Key), left(N, Key)})
                end
             || {Key, _} <- Admitted
            ]
        end)
    end).
