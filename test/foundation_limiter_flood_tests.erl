%% A flood of keys: memory that does not grow, and the budget of a busy key.
-module(foundation_limiter_flood_tests).

-include_lib("eunit/include/eunit.hrl").

-import(fdn_limiter, [name/0, stop/1]).

-define(L, foundation_limiter).
-define(YEAR, 366 * 86400000).

%% A million distinct keys into a table for ten thousand: not a byte more, and the busy key keeps its exact budget.
key_flood_test_() ->
    {timeout, 300, fun() ->
        Name = name(),
        {ok, Pid} = ?L:start_link(Name, #{limit => 1000, period => ?YEAR, capacity => 10000}),
        Busy = fun() -> case ?L:hit(Name, busy) of {allow, _} -> 1; {deny, _} -> 0 end end,
        Before = lists:sum([Busy() || _ <- lists:seq(1, 10)]),
        _ = [?L:hit(Name, {warm, I}) || I <- lists:seq(1, 20000)],
        Bytes = maps:get(bytes, ?L:info(Name)),
        Resident = resident_kb(),
        Rest = flood(Name, Busy, 1000000, 0),
        ?assertEqual(1000, Before + Rest),
        Info = ?L:info(Name),
        ?assert(maps:get(bytes, Info) - Bytes =< 64 * 64),
        ?assert(maps:get(bytes, Info) < 500000),
        ?assert(maps:get(evicted, Info) > 900000),
        %% The table has 320 KB; what else the VM took meanwhile is its own. (A preloaded ASan keeps what is freed.)
        ?assert(resident_kb() - Resident < 50000 orelse os:getenv("LD_PRELOAD") =/= false),
        stop(Pid)
    end}.

flood(_Name, _Busy, 0, Sum) ->
    Sum;
flood(Name, Busy, N, Sum) ->
    _ = ?L:hit(Name, {flood, N}),
    flood(Name, Busy, N - 1, case N rem 500 of 0 -> Sum + Busy(); _ -> Sum end).

resident_kb() ->
    case file:read_file("/proc/self/statm") of
        {ok, Text} -> binary_to_integer(lists:nth(2, binary:split(Text, <<" ">>, [global]))) * 4;
        {error, _} -> 0
    end.
