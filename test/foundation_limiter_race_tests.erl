%% The limiter among processes: races on fresh keys.
-module(foundation_limiter_race_tests).

-include_lib("eunit/include/eunit.hrl").

-import(fdn_limiter, [name/0, stop/1]).

-define(L, foundation_limiter).
-define(YEAR, 366 * 86400000).

%% ---- two racing processes -------------------------------------------------------------------------------------------------------

%% Two processes, each on a scheduler of its own where there are two, go through the keys in step, so that they meet at first
%% hits, and hit each key as often as one alone would have to. Gives the keys that were admitted too often, and too rarely.
race(Keys, Limit, Hit) ->
    Parent = self(),
    Counts = counters:new(Keys, []),
    Places = atomics:new(2, []),
    Body = fun(Me) ->
        [
            begin
                Key rem max(5, Limit div 4) =:= 1 andalso meet(Places, Me, Key),
                [case Hit(Key) of true -> counters:add(Counts, Key, 1); false -> denied end || _ <- lists:seq(1, Limit + 1)]
            end
         || Key <- lists:seq(1, Keys)
        ],
        Parent ! {done, self()}
    end,
    Scheduler = fun(N) -> min(N, erlang:system_info(schedulers_online)) end,
    Pids = [spawn_opt(fun() -> Body(Me) end, [link, {scheduler, Scheduler(Me)}]) || Me <- [1, 2]],
    [receive {done, P} -> ok end || P <- Pids],
    Admitted = [{Key, counters:get(Counts, Key)} || Key <- lists:seq(1, Keys)],
    {[Key || {Key, N} <- Admitted, N > Limit], [Key || {Key, N} <- Admitted, N < Limit]}.

%% Wait for the other one.
meet(Places, Me, Key) ->
    atomics:put(Places, Me, Key),
    wait_for(Places, 3 - Me, Key, 0).

wait_for(Places, Other, Key, Spins) ->
    case atomics:get(Places, Other) >= Key of
        true -> ok;
        false -> Spins rem 100 =:= 99 andalso erlang:yield(), wait_for(Places, Other, Key, Spins + 1)
    end.

never_over_admits_test_() ->
    [
        {timeout, 300, {title([Algorithm, Limit]), fun() -> never_over_admits(Algorithm, Limit, Clock) end}}
     || Algorithm <- [gcra, fixed_window], {Limit, Clock} <- [{1, precise}, {20, coarse}, {200, auto}]
    ].

title(Words) -> lists:flatten(io_lib:format("~w", [Words])).

never_over_admits(Algorithm, Limit, Clock) ->
    Keys = 5000,
    Name = name(),
    %% Nothing comes back while the test runs: a year's limit gives one unit in 44 hours at the most.
    {ok, Pid} = ?L:start_link(Name, #{
        algorithm => Algorithm, limit => Limit, period => ?YEAR, capacity => Keys, clock => Clock, on_full => deny
    }),
    Hit = fun(Key) -> element(1, ?L:hit(Name, {user, Key})) =:= allow end,
    {Over, Under} = race(Keys, Limit, Hit),
    #{full := Full} = ?L:info(Name),
    ?assertEqual([], Over),
    %% And never fewer, except for keys that found no slot.
    ?assert(length(Under) =< Full),
    stop(Pid).

%% The control: the harness sees a limiter that reads, and then writes, sooner or later.
read_then_write_over_admits_test_() ->
    {timeout, 300, fun() -> ?assertNotEqual([], over_admitted(100)) end}.

over_admitted(0) ->
    [];
over_admitted(Rounds) ->
    Table = ets:new(control, [public, {write_concurrency, true}]),
    Hit = fun(Key) ->
        case ets:lookup(Table, Key) of
            [{_, Count}] when Count >= 20 ->
                false;
            Seen ->
                erlang:yield(),
                ets:insert(Table, {Key, case Seen of [] -> 1; [{_, Count}] -> Count + 1 end}),
                true
        end
    end,
    case race(500, 20, Hit) of
        {[], _} -> over_admitted(Rounds - 1);
        {Over, _} -> Over
    end.
