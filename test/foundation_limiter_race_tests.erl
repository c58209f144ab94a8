%% The limiter among processes: races, floods, owners that crash, deletion during hits, hot upgrade.
-module(foundation_limiter_race_tests).

-export([second_life/0]).

-include_lib("eunit/include/eunit.hrl").

-define(L, foundation_limiter).
-define(YEAR, 366 * 86400000).

unique() ->
    list_to_atom("limiter_race_" ++ integer_to_list(erlang:unique_integer([positive]))).

%% What crashes on purpose need not be reported.
quietly(Fun) ->
    #{level := Level} = logger:get_primary_config(),
    ok = logger:set_primary_config(level, none),
    try Fun() after logger:set_primary_config(level, Level) end.

stop(Pid) ->
    unlink(Pid),
    Monitor = monitor(process, Pid),
    exit(Pid, shutdown),
    receive {'DOWN', Monitor, process, Pid, _} -> ok end.

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
    Name = unique(),
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

%% ---- memory -----------------------------------------------------------------------------------------------------------------------

%% A million distinct keys into a table for ten thousand: not a byte more, and the busy key keeps its exact budget.
key_flood_test_() ->
    {timeout, 300, fun() ->
        Name = unique(),
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

%% ---- owner and table --------------------------------------------------------------------------------------------------------------

already_started_test() ->
    Name = unique(),
    {ok, Pid} = ?L:start_link(Name, #{limit => 1, period => 1000}),
    ?assertEqual({error, {already_started, Pid}}, ?L:start_link(Name, #{limit => 1, period => 1000})),
    ?assertEqual({error, {already_started, Pid}}, ?L:start_link(Name, #{limit => 7, period => 1000})),
    %% No exit signal came with the errors, or this test process would have died of it.
    stop(Pid).

one_of_many_starters_wins_test() ->
    Name = unique(),
    Parent = self(),
    Starters = [
        spawn_link(fun() ->
            receive go -> ok end,
            Parent ! {self(), ?L:start_link(Name, #{limit => 1, period => 1000})},
            receive stop -> ok end
        end)
     || _ <- lists:seq(1, 20)
    ],
    [P ! go || P <- Starters],
    Results = [receive {P, Result} -> Result end || P <- Starters],
    [Owner] = [Pid || {ok, Pid} <- Results],
    ?assertEqual(19, length([x || {error, {already_started, Pid}} <- Results, Pid =:= Owner])),
    ok = ?L:delete(Name),
    [P ! stop || P <- Starters].

crashed_owner_leaves_the_table_test() ->
    process_flag(trap_exit, true),
    Name = unique(),
    Options = #{algorithm => fixed_window, limit => 5, period => ?YEAR, capacity => 100},
    {ok, Pid} = ?L:start_link(Name, Options),
    Handle = ?L:whereis(Name),
    {allow, 2} = ?L:hit(Name, k, 3),
    exit(Pid, kill),
    receive {'EXIT', Pid, killed} -> ok end,
    %% Nobody owns it, and it works.
    ?assertEqual({allow, 1}, ?L:hit(Name, k)),
    ?assertMatch(#{owner := undefined}, ?L:info(Name)),
    [
        ?assertEqual({error, {badarg, {Option, differs_from_living_table}}}, ?L:start_link(Name, Options#{Option => Value}))
     || {Option, Value} <- [{limit, 6}, {period, 1000}, {capacity, 101}, {on_full, deny}, {clock, manual}]
    ],
    {ok, Pid2} = ?L:start_link(Name, Options),
    ?assertEqual(Handle, ?L:whereis(Name)),
    ?assertEqual({allow, 0}, ?L:hit(Handle, k)),
    ?assertMatch(#{owner := Pid2}, ?L:info(Name)),
    %% A crash with a reason, not a kill.
    quietly(fun() ->
        exit(Pid2, oops),
        receive {'EXIT', Pid2, oops} -> ok end
    end),
    {ok, Pid3} = ?L:start_link(Name, Options),
    ?assertMatch({deny, _}, ?L:hit(Name, k)),
    stop(Pid3),
    process_flag(trap_exit, false),
    ?assertEqual(undefined, ?L:whereis(Name)),
    ?assertError({badarg, {limiter, unknown}}, ?L:hit(Name, k)),
    ?assertError({badarg, {limiter, deleted}}, ?L:hit(Handle, k)).

supervised_test() ->
    Name = unique(),
    {ok, Sup} = supervisor:start_link(foundation_fixture_sup(), []),
    {ok, Pid} = supervisor:start_child(Sup, ?L:child_spec({Name, #{limit => 3, period => ?YEAR}})),
    {allow, 2} = ?L:hit(Name, k),
    Pid2 = quietly(fun() ->
        exit(Pid, kill),
        fdn_test:await(fun() -> case ?L:info(Name) of #{owner := P} when is_pid(P), P =/= Pid -> P; _ -> false end end)
    end),
    ?assertEqual({allow, 1}, ?L:hit(Name, k)),
    Monitor = monitor(process, Pid2),
    ok = ?L:delete(Name),
    receive {'DOWN', Monitor, process, Pid2, Why} -> ?assert(lists:member(Why, [normal, noproc])) end,
    %% Not restarted.
    ?assertMatch([{_, undefined, worker, _}], supervisor:which_children(Sup)),
    {ok, _} = supervisor:restart_child(Sup, {?L, Name}),
    ?assertEqual({allow, 2}, ?L:hit(Name, k)),
    unlink(Sup),
    SupMonitor = monitor(process, Sup),
    exit(Sup, shutdown),
    receive {'DOWN', SupMonitor, process, Sup, _} -> ok end,
    ?assertEqual(undefined, ?L:whereis(Name)).

%% A supervisor without children, as a module made here.
foundation_fixture_sup() ->
    Module = limiter_race_sup,
    Forms = [
        {attribute, 1, module, Module},
        {attribute, 1, export, [{init, 1}]},
        {function, 1, init, 1, [{clause, 1, [{var, 1, '_'}], [], [erl_parse:abstract({ok, {#{strategy => one_for_one}, []}})]}]}
    ],
    {ok, Module, Beam} = compile:forms(Forms),
    {module, Module} = code:load_binary(Module, "limiter_race_sup", Beam),
    Module.

%% ---- deletion and upgrade under load ----------------------------------------------------------------------------------------------

%% Processes hit by name and by handle while the limiter is deleted and made again; each call has an answer or says what is gone.
delete_during_hits_test_() ->
    {timeout, 300, fun() ->
        Name = unique(),
        Options = #{limit => 1000, period => 1000, capacity => 1000},
        {ok, _} = ?L:start_link(Name, Options),
        Stop = counters:new(1, []),
        Workers = [spawn_monitor(fun() -> worker(Name, Stop, 0) end) || _ <- lists:seq(1, 4)],
        [
            begin
                ok = ?L:delete(Name),
                ?assertEqual(undefined, ?L:whereis(Name)),
                {ok, _} = ?L:start_link(Name, Options)
            end
         || _ <- lists:seq(1, 300)
        ],
        counters:add(Stop, 1, 1),
        [receive {'DOWN', Ref, process, Pid, Why} -> ?assertMatch({hits, _}, Why) end || {Pid, Ref} <- Workers],
        ok = ?L:delete(Name)
    end}.

worker(Name, Stop, N) ->
    case counters:get(Stop, 1) of
        0 ->
            answered(fun() -> ?L:hit(Name, N rem 100) end),
            case ?L:whereis(Name) of
                undefined -> ok;
                Handle -> answered(fun() -> ?L:hit(Handle, {large, lists:seq(1, 300)}) end)
            end,
            worker(Name, Stop, N + 1);
        _ ->
            exit({hits, N})
    end.

answered(Fun) ->
    try Fun() of
        {allow, _} -> ok;
        {deny, _} -> ok
    catch
        error:{badarg, {limiter, Gone}} when Gone =:= unknown; Gone =:= deleted -> ok
    end.

%% A new version of the module is loaded, and the old one purged, while the limiter is in use: names, handles and budgets stay.
hot_upgrade_test_() ->
    {timeout, 300, fun() ->
        Name = unique(),
        {ok, Pid} = ?L:start_link(Name, #{limit => 100000000, period => ?YEAR, capacity => 1000}),
        Handle = ?L:whereis(Name),
        {allow, Left} = ?L:hit(Name, k, 10),
        ?assertEqual(100000000 - 10, Left),
        Stop = counters:new(1, []),
        Workers = [spawn_monitor(fun() -> worker(Name, Stop, 0) end) || _ <- lists:seq(1, 2)],
        {?L, Beam, File} = code:get_object_code(?L),
        [
            begin
                {module, ?L} = code:load_binary(?L, File, Beam),
                ?assertEqual(Handle, ?L:whereis(Name)),
                ?assertEqual({allow, Left - I}, ?L:hit(Name, k)),
                %% A process that is in a call of the old version, on a dirty scheduler, may end it.
                fdn_test:await(fun() -> code:soft_purge(?L) end),
                ?assertEqual({allow, Left - I}, ?L:peek(Handle, k))
            end
         || I <- lists:seq(1, 20)
        ],
        counters:add(Stop, 1, 1),
        [receive {'DOWN', Ref, process, P, Why} -> ?assertMatch({hits, _}, Why) end || {P, Ref} <- Workers],
        ?assertMatch(#{owner := Pid, live := 102}, ?L:info(Name)),
        stop(Pid)
    end}.

%% Everything of the module is unloaded, its state with it, and it is loaded again: no thread takes what it knew of the first life, a
%% place among those that deletions wait for, into the second. (In a VM of its own, which died of it.)
second_life_test_() ->
    {timeout, 300, fun() ->
        {Peer, _} = fdn_test:peer(),
        try
            ?assertEqual(ok, peer:call(Peer, ?MODULE, second_life, [], 120000))
        after
            fdn_test:stop_peer(Peer)
        end
    end}.

second_life() ->
    process_flag(trap_exit, true),
    [
        begin
            delete_under_hits(50),
            true = code:delete(?L),
            _ = code:purge(?L)
        end
     || _ <- lists:seq(1, 6)
    ],
    ok.

delete_under_hits(Times) ->
    [
        begin
            {ok, _} = ?L:start_link(again, #{limit => 10, period => 1000}),
            Hitters = [spawn_monitor(fun hit_until_gone/0) || _ <- lists:seq(1, 4)],
            erlang:yield(),
            ok = ?L:delete(again),
            [receive {'DOWN', Ref, process, Pid, Why} -> normal = Why end || {Pid, Ref} <- Hitters]
        end
     || _ <- lists:seq(1, Times)
    ].

hit_until_gone() ->
    try ?L:hit(again, k) of
        _ -> hit_until_gone()
    catch
        error:{badarg, {limiter, unknown}} -> ok
    end.
