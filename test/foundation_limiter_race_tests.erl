%% The limiter among processes: no race admits more than the limit, and none loses budget.
-module(foundation_limiter_race_tests).

-include_lib("eunit/include/eunit.hrl").

-import(fdn_limiter, [algorithms/0, name/0, stop/1]).

-define(L, foundation_limiter).
-define(YEAR, (366 * 86400000)).

%% ---- two racing processes -------------------------------------------------------------------------------------------------------

%% Two processes, each on a scheduler of its own where there are two, go through the keys in step, so that they meet at first
%% hits, and hit each key as often as one alone would have to. Gives the keys that were admitted too often, and too rarely.
race(Keys, Limit, Hit) ->
    Counts = counters:new(Keys, []),
    Places = atomics:new(2, []),
    Parent = self(),
    Body = fun(Me) ->
        Other = receive {other, Pid} -> Pid end,
        [
            begin
                Key rem max(5, Limit div 4) =:= 1 andalso meet(Places, Me, Other, Key),
                [case Hit(Key) of true -> counters:add(Counts, Key, 1); false -> denied end || _ <- lists:seq(1, Limit + 1)]
            end
         || Key <- lists:seq(1, Keys)
        ],
        Parent ! {done, self()}
    end,
    Scheduler = fun(N) -> min(N, erlang:system_info(schedulers_online)) end,
    [One, Two] = [spawn_opt(fun() -> Body(Me) end, [link, {scheduler, Scheduler(Me)}]) || Me <- [1, 2]],
    One ! {other, Two},
    Two ! {other, One},
    [receive {done, P} -> ok end || P <- [One, Two]],
    Admitted = [{Key, counters:get(Counts, Key)} || Key <- lists:seq(1, Keys)],
    {[Key || {Key, N} <- Admitted, N > Limit], [Key || {Key, N} <- Admitted, N < Limit]}.

%% Wait for the other one: awake, so that both go on at once; asleep where the machine does not let both run.
meet(Places, Me, Other, Key) ->
    Other ! {at, Key},
    atomics:put(Places, Me, Key),
    spin(Places, 3 - Me, Key, 2000),
    receive {at, Key} -> ok end.

spin(_Places, _Other, _Key, 0) ->
    ok;
spin(Places, Other, Key, Left) ->
    case atomics:get(Places, Other) >= Key of
        true -> ok;
        false -> spin(Places, Other, Key, Left - 1)
    end.

never_over_admits_test_() ->
    [
        {timeout, 300, {title([Algorithm, Limit]), fun() -> never_over_admits(Algorithm, Limit, Clock) end}}
     || Algorithm <- algorithms(), {Limit, Clock} <- [{1, precise}, {20, coarse}, {200, auto}]
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
                think(5000),
                ets:insert(Table, {Key, case Seen of [] -> 1; [{_, Count}] -> Count + 1 end}),
                true
        end
    end,
    case race(200, 20, Hit) of
        {[], _} -> over_admitted(Rounds - 1);
        {Over, _} -> Over
    end.

%% A moment between reading and writing; others run meanwhile, here or on another scheduler.
think(0) -> erlang:yield();
think(N) -> think(N - 1).
