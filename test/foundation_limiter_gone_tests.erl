%% Limiters that are deleted, and owners that are killed, under every kind of call: each call answers or says what is gone, what had
%% been debited elsewhere is given back, and tokens of a limiter that is gone are worth nothing.
-module(foundation_limiter_gone_tests).

-include_lib("eunit/include/eunit.hrl").

-import(fdn_limiter, [algorithms/0, name/0, start/1, stop/1, with/2, quietly/1]).

-define(L, foundation_limiter).
-define(HOUR, 3600000).

%% ---- under calls ------------------------------------------------------------------------------------------------------------------

%% Workers call until they are told to stop; the sums of what their steps gave.
while_called(Step, Meanwhile) ->
    Stop = counters:new(1, []),
    Workers = [spawn_monitor(fun() -> exit({sum, repeat(Step, Me, Stop, 0)}) end) || Me <- lists:seq(1, 4)],
    Result = Meanwhile(),
    counters:add(Stop, 1, 1),
    {[sum(Worker) || Worker <- Workers], Result}.

sum({Pid, Ref}) ->
    receive
        {'DOWN', Ref, process, Pid, {sum, Sum}} -> Sum;
        {'DOWN', Ref, process, Pid, Why} -> error(Why)
    end.

repeat(Step, Me, Stop, Sum) ->
    case counters:get(Stop, 1) of
        0 -> repeat(Step, Me, Stop, Sum + Step(Me));
        _ -> Sum
    end.

%% What is gone is said so, and nothing else is.
or_gone(Fun) ->
    try
        Fun()
    catch
        error:{badarg, {limiter, Gone}} when Gone =:= unknown; Gone =:= deleted -> gone;
        error:{badarg, {{entry, _}, {limiter, Gone}}} when Gone =:= unknown; Gone =:= deleted -> gone
    end.

calls(Name, Key, Own) ->
    [
        fun() -> {_, _} = ?L:hit(Name, Key) end,
        fun() -> {_, _} = ?L:hit(Name, {Key, lists:seq(1, 300)}) end,
        fun() -> {_, _} = ?L:hit(Name, Key, 1000, 3, 2) end,
        fun() -> {_, _} = ?L:peek(Name, Key) end,
        fun() -> ok = ?L:reset(Name, Key) end,
        fun() -> true = is_integer(?L:get(Name, Key)) end,
        fun() -> true = is_integer(?L:inc(Name, Key, 1)) end,
        fun() -> 1 = ?L:set(Name, Key, ?HOUR, 1) end,
        fun() -> #{} = ?L:info(Name) end,
        fun() -> ok = ?L:advance(Name, 1) end,
        fun() -> reserved(?L:reserve(Name, Key, 1, 10)) end,
        fun() -> all(?L:hit_all([{Name, Key, 1}, {Name, {Key, 1}, 1}, {Own, Key, 1}])) end,
        fun() -> all(?L:hit_all([{Own, lists:seq(1, 300), 1}, {Name, Key, 1}])) end
    ].

reserved({ok, _, Token}) ->
    case ?L:refund(Token) of
        ok -> ok;
        {error, expired} -> ok
    end;
reserved({deny, _}) ->
    ok.

all({allow, Lefts}) -> true = is_list(Lefts);
all({deny, I, Ms}) -> true = is_integer(I + Ms).

deleted_under_all_calls_test_() ->
    {timeout, 300, fun() ->
        Name = name(),
        Options = #{limit => 100, period => ?HOUR, capacity => 100, clock => manual},
        with(#{limit => 100, period => ?HOUR}, fun(Own) ->
            {ok, _} = ?L:start_link(Name, Options),
            Step = fun(Me) ->
                By = case {Me rem 2, ?L:whereis(Name)} of {1, Handle} when Handle =/= undefined -> Handle; _ -> Name end,
                [or_gone(Call) || Call <- calls(By, Me, Own)],
                1
            end,
            {Sums, _} = while_called(Step, fun() ->
                [begin ok = ?L:delete(Name), {ok, _} = ?L:start_link(Name, Options) end || _ <- lists:seq(1, 300)]
            end),
            ?assert(lists:sum(Sums) > 0),
            ok = ?L:delete(Name)
        end)
    end}.

%% hit_all over a limiter that stays and one that goes: what it debited first is given back where it could not go on.
hit_all_over_a_deleted_limiter_test_() ->
    [
        {timeout, 300, {atom_to_list(A), fun() ->
            Limit = 1000,
            Name = name(),
            Goes = #{algorithm => A, limit => 3, period => ?HOUR, capacity => 100},
            with(#{algorithm => A, limit => Limit, period => ?HOUR}, fun(Stays) ->
                {ok, _} = ?L:start_link(Name, Goes),
                Step = fun(Me) ->
                    case or_gone(fun() -> ?L:hit_all([{Stays, k, 1}, {Name, Me, 1}]) end) of
                        {allow, [_, _]} -> 1;
                        {deny, _, _} -> 0;
                        gone -> 0
                    end
                end,
                {Sums, _} = while_called(Step, fun() ->
                    [begin ok = ?L:delete(Name), {ok, _} = ?L:start_link(Name, Goes) end || _ <- lists:seq(1, 40)]
                end),
                ?assert(lists:sum(Sums) =< Limit),
                ?assertEqual(lists:sum(Sums), ?L:get(Stays, k)),
                ok = ?L:delete(Name)
            end)
        end}}
     || A <- algorithms()
    ].

%% In one process, for sure.
hit_all_names_what_is_gone_test() ->
    with(#{limit => 5, period => ?HOUR}, fun(Stays) ->
        {Name, Pid} = start(#{limit => 5, period => ?HOUR}),
        Handle = ?L:whereis(Name),
        {allow, [4, 4]} = ?L:hit_all([{Stays, k, 1}, {Handle, k, 1}]),
        stop(Pid),
        ?assertError({badarg, {{entry, 2}, {limiter, deleted}}}, ?L:hit_all([{Stays, k, 1}, {Handle, k, 1}])),
        ?assertError({badarg, {{entry, 3}, {limiter, unknown}}}, ?L:hit_all([{Stays, k, 1}, {Stays, j, 1}, {Name, k, 1}])),
        ?assertEqual({allow, 4}, ?L:peek(Stays, k)),
        ?assertEqual({allow, 5}, ?L:peek(Stays, j))
    end).

%% ---- tokens -----------------------------------------------------------------------------------------------------------------------

token_of_a_deleted_limiter_test() ->
    Options = #{limit => 5, period => ?HOUR, clock => manual, capacity => 100},
    {Name, Pid} = start(Options),
    {ok, 0, Token} = ?L:reserve(Name, k, 3, 0),
    stop(Pid),
    {ok, _} = ?L:start_link(Name, Options),
    {allow, 2} = ?L:hit(Name, k, 3),
    %% The new limiter of that name owes it nothing.
    ?assertEqual({error, expired}, ?L:refund(Token)),
    ?assertEqual({allow, 2}, ?L:peek(Name, k)),
    ok = ?L:delete(Name).

%% ---- owners -----------------------------------------------------------------------------------------------------------------------

%% The owner is killed again and again while the limiter is used. Nobody notices, and the budget is exact.
owner_killed_under_calls_test_() ->
    [
        {timeout, 300, {atom_to_list(A), fun() -> quietly(fun() -> owner_killed(A) end) end}}
     || A <- algorithms()
    ].

owner_killed(A) ->
    process_flag(trap_exit, true),
    Limit = 2000,
    Name = name(),
    Options = #{algorithm => A, limit => Limit, period => ?HOUR, capacity => 100, clock => manual},
    {ok, First} = ?L:start_link(Name, Options),
    {allow, _} = ?L:hit(Name, none, Limit),
    Step = fun(Me) ->
        {deny, _, _} = ?L:hit_all([{Name, k, 1}, {Name, Me, 1}, {Name, none, 1}]),
        case ?L:hit(Name, k) of {allow, _} -> 1; {deny, _} -> 0 end
    end,
    {Sums, Last} = while_called(Step, fun() ->
        lists:foldl(
            fun(_, Pid) ->
                exit(Pid, kill),
                receive {'EXIT', Pid, killed} -> ok end,
                {ok, Next} = ?L:start_link(Name, Options),
                Next
            end,
            First,
            lists:seq(1, 50)
        )
    end),
    %% What lay undone for a moment may have denied hits; the rest comes now.
    Rest = length([x || {allow, _} <- [?L:hit(Name, k) || _ <- lists:seq(1, Limit + 1)]]),
    ?assertEqual(Limit, lists:sum(Sums) + Rest),
    [?assertEqual({allow, Limit}, ?L:peek(Name, Me)) || Me <- lists:seq(1, 4)],
    stop(Last),
    process_flag(trap_exit, false).
