%% Debits that are given back, and counts that are changed, by processes that race. The clock stands still: what was admitted is what is
%% missing in the end, to the unit.
-module(foundation_limiter_undo_tests).

-include_lib("eunit/include/eunit.hrl").

-import(fdn_limiter, [algorithms/0, with/2, at_once/1]).

-define(L, foundation_limiter).
-define(PROCESSES, 4).

each_algorithm(Test) ->
    [{timeout, 300, {atom_to_list(A), fun() -> Test(A) end}} || A <- algorithms()].

limiter(Algorithm, Limit) ->
    #{algorithm => Algorithm, limit => Limit, period => 60000, on_full => deny}.

%% The sum of what the rounds of all processes give.
in_processes(Rounds, Body) ->
    lists:sum(at_once([fun() -> rounds(Rounds, fun() -> Body(Me) end, 0) end || Me <- lists:seq(1, ?PROCESSES)])).

rounds(0, _Body, Sum) -> Sum;
rounds(N, Body, Sum) -> rounds(N - 1, Body, Sum + Body()).

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
            0 = in_processes(20000, fun(Me) ->
                {deny, _, _} = ?L:hit_all([{N, one, 1}, {N, {own, Me}, 2}, {N, two, 3}, {N, one, 1}, {N, none, 1}]),
                0
            end),
            Keys = [one, two | [{own, Me} || Me <- lists:seq(1, ?PROCESSES)]],
            ?assertEqual([{K, 5} || K <- Keys], [{K, left(N, K)} || K <- Keys]),
            ?assertEqual(0, left(N, none))
        end)
    end).

%% Hits race with hit_alls that are undone: those may deny them, and never let more of them in.
undone_among_hits_test_() ->
    each_algorithm(fun(A) ->
        Limit = 40,
        with(limiter(A, Limit), fun(N) ->
            {allow, 0} = ?L:hit(N, none, Limit),
            [
                begin
                    Admitted = in_processes(Limit, fun
                        (Me) when Me rem 2 =:= 0 -> admitted(?L:hit(N, {key, Key}), 1);
                        (_) -> {deny, _, _} = ?L:hit_all([{N, {key, Key}, 2}, {N, none, 1}]), 0
                    end),
                    ?assert(Admitted =< Limit),
                    ?assertEqual({Key, Limit - Admitted}, {Key, left(N, {key, Key})})
                end
             || Key <- lists:seq(1, 2000)
            ]
        end)
    end).

%% Over several limiters and keys, in orders that cross, some denied and some not: all or nothing.
all_or_nothing_test_() ->
    {timeout, 300, fun() ->
        Limit = 4000,
        with(limiter(gcra, Limit), fun(G) ->
            with(limiter(fixed_window, Limit), fun(F) ->
                with(limiter(sliding_window, Limit), fun(S) ->
                    Entries = [{G, a, 1}, {F, a, 1}, {S, a, 1}],
                    Admitted = in_processes(5000, fun(Me) ->
                        Turned = lists:sublist(Entries ++ Entries, 1 + Me rem 3, 3),
                        case ?L:hit_all(Turned) of
                            {allow, [_, _, _]} -> 1;
                            {deny, _, _} -> 0
                        end
                    end),
                    %% One that is denied by what another one gives back lets budget lie, which the next takes.
                    ?assert(Admitted =< Limit),
                    ?assertEqual([Limit - Admitted || _ <- Entries], [left(L, K) || {L, K, _} <- Entries])
                end)
            end)
        end)
    end}.

%% ---- reserve and refund -----------------------------------------------------------------------------------------------------------

refunded_test_() ->
    {timeout, 300, fun() ->
        with(limiter(gcra, 50), fun(N) ->
            %% Those that have waited in vain, and those that have not, are given back; what is never refunded stays.
            Kept = in_processes(20000, fun(Me) ->
                case ?L:reserve(N, key, 1 + Me, 20000) of
                    {ok, _, Token} -> ok = ?L:refund(Token), 0;
                    {deny, _} -> 0
                end + admitted(?L:hit(N, key, 1), 1)
            end),
            ?assert(Kept =< 50),
            ?assertEqual(50 - Kept, left(N, key))
        end)
    end}.

%% One token, many refunds at once: one of them counts.
refunded_once_test_() ->
    {timeout, 300, fun() ->
        with(limiter(gcra, 50), fun(N) ->
            {allow, 20} = ?L:hit(N, key, 30),
            [
                begin
                    {ok, 0, Token} = ?L:reserve(N, key, 10, 0),
                    Answers = at_once([fun() -> ?L:refund(Token) end || _ <- lists:seq(1, ?PROCESSES)]),
                    ?assertEqual([ok | [{error, refunded} || _ <- tl(Answers)]], lists:sort(fun(X, _) -> X =:= ok end, Answers)),
                    ?assertEqual(20, left(N, key))
                end
             || _ <- lists:seq(1, 500)
            ]
        end)
    end}.

%% ---- counts -----------------------------------------------------------------------------------------------------------------------

%% inc is a counter: with one unit at a time, each count is answered once.
inc_test_() ->
    each_algorithm(fun(A) ->
        Rounds = 20000,
        with(limiter(A, ?PROCESSES * Rounds), fun(N) ->
            Counts = at_once([
                fun() -> [?L:inc(N, key, 1) || _ <- lists:seq(1, Rounds)] end
             || _ <- lists:seq(1, ?PROCESSES)
            ]),
            ?assertEqual(lists:seq(1, ?PROCESSES * Rounds), lists:sort(lists:append(Counts))),
            ?assertEqual(?PROCESSES * Rounds, ?L:get(N, key)),
            ?assertMatch({deny, _}, ?L:hit(N, key))
        end)
    end).

%% Hits beside it never admit what it counted.
inc_among_hits_test_() ->
    each_algorithm(fun(A) ->
        Limit = 40,
        with(limiter(A, Limit), fun(N) ->
            [
                begin
                    Admitted = in_processes(10, fun
                        (1) -> _ = ?L:inc(N, {key, Key}, 1), 1;
                        (_) -> admitted(?L:hit(N, {key, Key}, 2), 2)
                    end),
                    ?assertEqual({Key, Admitted}, {Key, ?L:get(N, {key, Key})}),
                    ?assert(Admitted =< Limit + 10)
                end
             || Key <- lists:seq(1, 1000)
            ]
        end)
    end).

%% ---- reset and set ----------------------------------------------------------------------------------------------------------------

%% Each reset is worth one budget, and other keys keep theirs.
reset_test_() ->
    each_algorithm(fun(A) ->
        Limit = 10,
        with(limiter(A, Limit), fun(N) ->
            {allow, 3} = ?L:hit(N, other, 7),
            [
                begin
                    Admitted = in_processes(20, fun
                        (1) -> ok = ?L:reset(N, {key, Key}), 0;
                        (_) -> admitted(?L:hit(N, {key, Key}), 1)
                    end),
                    ?assert(Admitted =< Limit * 21),
                    ok = ?L:reset(N, {key, Key}),
                    ?assertEqual(Limit, left(N, {key, Key}))
                end
             || Key <- lists:seq(1, 1000)
            ],
            ?assertEqual(3, left(N, other)),
            ?assertMatch(#{live := 1}, ?L:info(N))
        end)
    end).

set_test_() ->
    each_algorithm(fun(A) ->
        Limit = 10,
        with(limiter(A, Limit), fun(N) ->
            [
                begin
                    Admitted = in_processes(20, fun
                        (1) -> 4 = ?L:set(N, {key, Key}, 60000, 4), 0;
                        (_) -> admitted(?L:hit(N, {key, Key}), 1)
                    end),
                    ?assert(Admitted =< Limit + 20 * (Limit - 4)),
                    4 = ?L:set(N, {key, Key}, 60000, 4),
                    ?assertEqual(4, ?L:get(N, {key, Key})),
                    ?assertEqual(Limit - 4, left(N, {key, Key}))
                end
             || Key <- lists:seq(1, 1000)
            ]
        end)
    end).
