%% The life of a limiter: owners that crash, deletion and hot upgrade while it is in use.
-module(foundation_limiter_life_tests).

-export([second_life/0]).

-include_lib("eunit/include/eunit.hrl").

-import(fdn_limiter, [name/0, stop/1, quietly/1]).

-define(L, foundation_limiter).
-define(YEAR, 366 * 86400000).

%% ---- owner and table --------------------------------------------------------------------------------------------------------------

already_started_test() ->
    Name = name(),
    {ok, Pid} = ?L:start_link(Name, #{limit => 1, period => 1000}),
    ?assertEqual({error, {already_started, Pid}}, ?L:start_link(Name, #{limit => 1, period => 1000})),
    ?assertEqual({error, {already_started, Pid}}, ?L:start_link(Name, #{limit => 7, period => 1000})),
    %% No exit signal came with the errors, or this test process would have died of it.
    stop(Pid).

one_of_many_starters_wins_test() ->
    Name = name(),
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
    Name = name(),
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
    Name = name(),
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
        Name = name(),
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
        Name = name(),
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
