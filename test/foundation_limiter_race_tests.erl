%% The limiter among processes: no race admits more than the limit, and none loses budget.
-module(foundation_limiter_race_tests).

-include_lib("eunit/include/eunit.hrl").

-import(fdn_limiter, [algorithms/0, name/0, stop/1]).

-define(L, foundation_limiter).
-define(YEAR, (366 * 86400000)).

%% ---- two racing processes -------------------------------------------------------------------------------------------------------

%% Two processes hit each key as often as one alone would have to, and meet at first hits. Gives the keys that were admitted too often,
%% and too rarely.
race(Keys, Limit, Hit) ->
    Counts = counters:new(Keys, []),
    fdn_limiter:race(Keys, max(5, Limit div 4), fun(_Me, Key) ->
        [case Hit(Key) of true -> counters:add(Counts, Key, 1); false -> denied end || _ <- lists:seq(1, Limit + 1)]
    end),
    Admitted = [{Key, counters:get(Counts, Key)} || Key <- lists:seq(1, Keys)],
    {[Key || {Key, N} <- Admitted, N > Limit], [Key || {Key, N} <- Admitted, N < Limit]}.

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
