%% Limits that several VMs share, and what it costs that a keeper is killed, leaves or is split off, and that members come. The clocks
%% are manual, so no test depends on time.
-module(foundation_limiter_members_SUITE).

-include_lib("common_test/include/ct.hrl").
-include_lib("stdlib/include/assert.hrl").

-import(fdn_cluster, [call/4]).

-export([all/0, suite/0, groups/0, init_per_group/2, end_per_group/2, init_per_testcase/2, end_per_testcase/2]).
-export([
    keeper_killed/1, keeper_killed_under_load/1, keeper_leaves/1, keeper_is_being_deleted/1, member_joins/1,
    member_joins_under_load/1, member_joins_unseen_by_the_keeper/1, member_joins_unseen_by_another/1,
    member_joins_during_a_debit/1, members_come_and_go/1, keeper_with_a_file/1, keeper_of_before_hangs/1, split_and_healed/1,
    processes_killed/1, application_restarted/1
]).

-define(L, foundation_limiter).
-define(HOUR, 3600000).

suite() ->
    [{timetrap, {minutes, 3}}].

all() ->
    [{group, cluster_strict}, {group, cluster}].

groups() ->
    Both = [
        keeper_killed, keeper_killed_under_load, keeper_leaves, keeper_is_being_deleted, member_joins, member_joins_under_load,
        member_joins_unseen_by_the_keeper, member_joins_unseen_by_another, member_joins_during_a_debit, members_come_and_go,
        keeper_with_a_file, keeper_of_before_hangs, split_and_healed, processes_killed, application_restarted
    ],
    [{cluster_strict, [], Both}, {cluster, [], Both}].

init_per_group(Scope, Config) ->
    [{scope, Scope} | Config].

end_per_group(_Scope, _Config) ->
    ok.

%% The VMs of a case are linked to its process.
init_per_testcase(_, Config) ->
    [{vms, fdn_cluster:vms(3)} | Config].

end_per_testcase(_, Config) ->
    fdn_cluster:stop(?config(vms, Config)).

options(Config, Options) ->
    maps:merge(#{scope => ?config(scope, Config), clock => manual, period => ?HOUR, capacity => 1000}, Options).

%% ---- keepers that go --------------------------------------------------------------------------------------------------------------

%% The documented bound: one more limit for each owner that the key had.
keeper_killed(Config) ->
    [A, B, C] = Vms = ?config(vms, Config),
    ok = fdn_cluster:start(Vms, api, options(Config, #{limit => 20})),
    [Key, Other] = [fdn_cluster:key_of(Keeper, A, api) || Keeper <- [C, A]],
    ?assertEqual(40, fdn_cluster:admitted(Vms, api, [Key, Other])),
    ok = fdn_cluster:kill(C),
    fdn_cluster:agreed([A, B], api),
    ?assertEqual(20, fdn_cluster:admitted([A, B], api, [Key])),
    ?assertEqual(0, fdn_cluster:admitted([A, B], api, [Other])).

%% Killed while both others ask for its keys: each call ends, and no key gets more than the limits of its two keepers.
keeper_killed_under_load(Config) ->
    [A, B, C] = Vms = ?config(vms, Config),
    ok = fdn_cluster:start(Vms, api, options(Config, #{limit => 1000})),
    Keys = fdn_cluster:keys_of(C, A, api, 10),
    [ok = call(Vm, fdn_cluster, start_hitting, [api, Keys, 4]) || Vm <- [A, B]],
    fdn_test:await(fun() -> lists:sum([call(Vm, fdn_cluster, admitted_so_far, [api]) || Vm <- [A, B]]) > 100 end),
    ok = fdn_cluster:kill(C),
    fdn_cluster:agreed([A, B], api),
    Counts = [call(Vm, fdn_cluster, stop_hitting, [api]) || Vm <- [A, B]],
    Rest = [{Key, fdn_cluster:admitted([A, B], api, [Key])} || Key <- Keys],
    [
        ?assertMatch({_, N} when N >= 1000 andalso N =< 2000, {Key, lists:sum([maps:get(Key, Count) || Count <- [Left | Counts]])})
     || Left <- [maps:from_list(Rest)], Key <- Keys
    ].

keeper_leaves(Config) ->
    [A, B, C] = Vms = ?config(vms, Config),
    ok = fdn_cluster:start(Vms, api, options(Config, #{limit => 20})),
    [Key, Other] = [fdn_cluster:key_of(Keeper, A, api) || Keeper <- [C, A]],
    ?assertEqual(40, fdn_cluster:admitted(Vms, api, [Key, Other])),
    ok = fdn_cluster:release(C, api),
    fdn_cluster:agreed([A, B], api),
    ?assertEqual(20, fdn_cluster:admitted([A, B], api, [Key])),
    ?assertEqual(0, fdn_cluster:admitted([A, B], api, [Other])).

%% In the middle of a deletion a keeper has no table any more and is still a member. Who asks it learns nothing; it is not his limiter
%% that is gone.
keeper_is_being_deleted(Config) ->
    [A, B, C] = Vms = ?config(vms, Config),
    ok = fdn_cluster:start(Vms, api, options(Config, #{limit => 20, cluster_timeout => 50})),
    [Key, Other] = [fdn_cluster:key_of(Keeper, A, api) || Keeper <- [C, B]],
    {ok, _} = call(C, ?L, remove_nif, [api, false]),
    Tried = fun(F, Args) -> call(A, fdn_cluster, tried, [?L, F, Args]) end,
    [
        ?assertMatch({F, {deny, _}}, {F, Tried(F, [api, Key | More])})
     || {F, More} <- [{hit, []}, {hit, [?HOUR, 7]}, {hit, [0]}, {peek, []}]
    ],
    [
        ?assertEqual({F, {error, unreachable}}, {F, Tried(F, [api, Key | More])})
     || {F, More} <- [{reset, []}, {get, []}, {inc, [1]}, {set, [?HOUR, 1]}]
    ],
    ?assertMatch({allow, _}, Tried(hit, [api, Other])),
    %% There it is.
    ?assertEqual({error, {badarg, {limiter, unknown}}}, call(C, fdn_cluster, tried, [?L, hit, [api, Key]])),
    Requested = fun(Request) -> call(C, fdn_cluster, tried, [foundation_limiter_cluster, request, [api, Request]]) end,
    [
        ?assertEqual({error, {badarg, {limiter, deleted}}}, Requested(Asked))
     || Asked <- [{hit, Key, preset, 1}, {peek, Key, preset}, {get, Key, preset}]
    ],
    %% What it is told about others meanwhile makes no difference to it.
    ?assertEqual(ok, call(C, foundation_limiter_cluster, view_changed, [api])),
    ?assertEqual(ok, call(C, foundation_limiter_cluster, forget, [api, Key, preset, maps:get(node, A)])).

%% ---- members that come ------------------------------------------------------------------------------------------------------------

%% A member that comes takes its keys over with what they have consumed.
member_joins(Config) ->
    [A, B, C] = Vms = ?config(vms, Config),
    [
        begin
            Options = options(Config, #{algorithm => Algorithm, limit => 20}),
            ok = fdn_cluster:start([A, B], Algorithm, Options),
            [Full, Half, New] = [lists:seq(N, N + 29) || N <- [100, 200, 300]],
            ?assertEqual(20 * 30, fdn_cluster:admitted([A, B], Algorithm, Full)),
            ?assertEqual([30, 30], fdn_cluster:all([A, B], fdn_cluster, one_each, [Algorithm, Half, 5])),
            ok = fdn_cluster:start_alone(C, Algorithm, Options),
            fdn_cluster:agreed(Vms, Algorithm),
            [
                ?assert(fdn_cluster:kept_of(C, A, Algorithm, Keys) =/= [])
             || Keys <- [Full, Half, New]
            ],
            ?assertEqual({Algorithm, 0}, {Algorithm, fdn_cluster:admitted(Vms, Algorithm, Full)}),
            ?assertEqual({Algorithm, 10 * 30}, {Algorithm, fdn_cluster:admitted(Vms, Algorithm, Half)}),
            ?assertEqual({Algorithm, 20 * 30}, {Algorithm, fdn_cluster:admitted(Vms, Algorithm, New)}),
            %% A reset is one for the keeper of before, too.
            Moved = hd(fdn_cluster:kept_of(C, A, Algorithm, Full)),
            ok = call(B, ?L, reset, [Algorithm, Moved]),
            ?assertEqual(20, fdn_cluster:admitted(Vms, Algorithm, [Moved])),
            %% When all that was consumed has come back, keys are whole again.
            fdn_cluster:all(Vms, ?L, advance, [Algorithm, 2 * ?HOUR]),
            ?assertEqual({Algorithm, 20 * 30}, {Algorithm, fdn_cluster:admitted(Vms, Algorithm, Full)})
        end
     || Algorithm <- [gcra, fixed_window, sliding_window]
    ].

%% And so it is while the others hit its keys all the time, some before they have heard of it.
member_joins_under_load(Config) ->
    [A, B, C] = Vms = ?config(vms, Config),
    Options = options(Config, #{algorithm => fixed_window, limit => 300}),
    ok = fdn_cluster:start([A, B], api, Options),
    Keys = lists:seq(1, 60),
    [ok = call(Vm, fdn_cluster, start_hitting, [api, Keys, 4]) || Vm <- [A, B]],
    So = fun() -> lists:sum([call(Vm, fdn_cluster, admitted_so_far, [api]) || Vm <- [A, B]]) end,
    fdn_test:await(fun() -> So() > 3000 end),
    ok = fdn_cluster:start_alone(C, api, Options),
    ok = call(C, fdn_cluster, start_hitting, [api, Keys, 4]),
    fdn_cluster:agreed(Vms, api),
    Before = So(),
    fdn_test:await(fun() -> So() > Before orelse So() >= 60 * 300 end),
    Counts = [call(Vm, fdn_cluster, stop_hitting, [api]) || Vm <- Vms],
    Rest = maps:from_list([{Key, fdn_cluster:admitted(Vms, api, [Key])} || Key <- Keys]),
    Over = [{Key, N} || Key <- Keys, N <- [lists:sum([map_get(Key, Count) || Count <- [Rest | Counts]])], N > 300],
    ?assertEqual([], Over),
    ?assert(fdn_cluster:kept_of(C, A, api, Keys) =/= []).

%% A key that moves while the keeper of before does not see the new one yet: that one waits, and counts what was consumed until then.
member_joins_unseen_by_the_keeper(Config) ->
    {A, C, Key, Options} = about_to_move(Config),
    Deaf = call(A, fdn_cluster, deaf, []),
    ok = fdn_cluster:start_alone(C, api, Options),
    First = call(C, fdn_cluster, start_call, [?L, hit, [api, Key]]),
    Answer = fun() -> call(C, fdn_cluster, answer_of, [First]) end,
    fdn_test:await(fun() -> call(C, fdn_cluster, taking_over, [api]) =:= 1 orelse Answer() =/= none end),
    ?assertEqual(15, call(A, fdn_cluster, hits, [api, Key, 15])),
    ?assertEqual(none, Answer()),
    ok = call(A, fdn_cluster, hear, [Deaf]),
    fdn_test:await(fun() -> Answer() =/= none end),
    ?assertEqual({ok, {allow, 4}}, Answer()).

%% Or while a third one does not: the keeper of before sends it on.
member_joins_unseen_by_another(Config) ->
    {_, C, Key, Options} = about_to_move(Config),
    [_, B | _] = ?config(vms, Config),
    Deaf = call(B, fdn_cluster, deaf, []),
    ok = fdn_cluster:start_alone(C, api, Options),
    ?assertEqual(5, call(C, fdn_cluster, hits, [api, Key, 5])),
    Late = call(B, fdn_cluster, start_call, [?L, hit, [api, Key]]),
    fdn_test:await(fun() -> map_get(asked, call(B, ?L, info, [api])) > 0 end),
    ?assertEqual(5, call(C, fdn_cluster, hits, [api, Key, 5])),
    ?assertEqual(none, call(B, fdn_cluster, answer_of, [Late])),
    ok = call(B, fdn_cluster, hear, [Deaf]),
    fdn_test:await(fun() -> call(B, fdn_cluster, answer_of, [Late]) =/= none end),
    ?assertMatch({ok, {allow, 9}}, call(B, fdn_cluster, answer_of, [Late])).

%% Or while a process of the keeper of before is about to debit it there: what it debits afterwards admits nobody.
member_joins_during_a_debit(Config) ->
    {A, C, Key, Options} = about_to_move(Config),
    ok = call(A, fdn_cluster, stop_before, [foundation_limiter_member, serve, 2, stopper]),
    Stopped = call(A, fdn_cluster, stopped_hit, [stopper, api, Key]),
    ok = fdn_cluster:start_alone(C, api, Options),
    fdn_cluster:agreed(?config(vms, Config), api),
    ?assertEqual(5, call(C, fdn_cluster, hits, [api, Key, 5])),
    ?assertEqual({allow, 14}, call(A, fdn_cluster, go_on, [Stopped, stopper])).

%% A limiter of two VMs, and a key of the first one that the third one will keep.
about_to_move(Config) ->
    [A, B, C] = Vms = ?config(vms, Config),
    Options = options(Config, #{algorithm => fixed_window, limit => 20, cluster_timeout => 60000}),
    ok = fdn_cluster:start([A, B], api, Options),
    #{node := Before} = A,
    Owner = fun(Key, Nodes) -> foundation_limiter_placement:owner(foundation_limiter_placement:hash(Key), Nodes) end,
    Nodes = fdn_cluster:nodes_of([A, B]),
    All = fdn_cluster:nodes_of(Vms),
    New = maps:get(node, C),
    [Key | _] = [Key || Key <- lists:seq(1, 1000), Owner(Key, Nodes) =:= Before, Owner(Key, All) =:= New],
    {A, C, Key, Options}.

%% Members that come and go all the time, while all keys are hit: each that goes may cost one limit more, no one that comes does.
members_come_and_go(Config) ->
    [A, B, C] = Vms = ?config(vms, Config),
    Options = options(Config, #{algorithm => fixed_window, limit => 100, cluster_timeout => 200}),
    Keys = lists:seq(1, 50),
    ok = fdn_cluster:start_alone(A, api, Options),
    ok = call(A, fdn_cluster, start_hitting, [api, Keys, 4]),
    Comes = fun(Vm) ->
        ok = fdn_cluster:start_alone(Vm, api, Options),
        ok = call(Vm, fdn_cluster, start_hitting, [api, Keys, 2]),
        fdn_test:await(fun() -> call(Vm, fdn_cluster, turns_so_far, [api]) > 3 end)
    end,
    Goes = fun(Vm) ->
        ok = fdn_cluster:release(Vm, api),
        call(Vm, fdn_cluster, stop_hitting, [api])
    end,
    Comes(B),
    Comes(C),
    Gone = [
        begin
            Admitted = Goes(Vm),
            Comes(Vm),
            Admitted
        end
     || Vm <- [B, C, B, C]
    ],
    fdn_cluster:agreed(Vms, api),
    Left = [call(Vm, fdn_cluster, stop_hitting, [api]) || Vm <- Vms],
    Rest = maps:from_list([{Key, fdn_cluster:admitted(Vms, api, [Key])} || Key <- Keys]),
    Sum = fun(Key) -> lists:sum([map_get(Key, Counts) || Counts <- [Rest | Gone ++ Left]]) end,
    ?assertEqual([], [{Key, Sum(Key)} || Key <- Keys, Sum(Key) > 100 * (1 + length(Gone))]).

%% While the keeper of before does not answer, its keys are denied; once it is gone, they are whole.
keeper_of_before_hangs(Config) ->
    [A, B, C] = Vms = ?config(vms, Config),
    Options = options(Config, #{limit => 20, cluster_timeout => 100}),
    ok = fdn_cluster:start([A, B], api, Options),
    Of = fun(Vm) -> fdn_cluster:kept_of(Vm, A, api, lists:seq(1, 100)) end,
    ByB = Of(B),
    20 = fdn_cluster:admitted([A, B], api, [hd(ByB)]),
    ok = fdn_cluster:start_alone(C, api, Options),
    fdn_cluster:agreed(Vms, api),
    [Key | _] = Moved = [K || K <- Of(C), lists:member(K, ByB)],
    ok = fdn_cluster:signal("STOP", B),
    ?assertEqual([{deny, 100}], lists:usort([call(Vm, ?L, hit, [api, K]) || Vm <- [A, C], K <- Moved])),
    ?assertMatch({allow, _}, call(A, ?L, hit, [api, hd(Of(C) -- ByB)])),
    ok = fdn_cluster:kill(B),
    fdn_cluster:agreed([A, C], api),
    ?assertEqual(20, fdn_cluster:admitted([A, C], api, [Key])).

%% A keeper whose budgets are in a file goes on where it was.
keeper_with_a_file(Config) ->
    [A, B, C] = Vms = ?config(vms, Config),
    fdn_test:with_tmp_dir(fun(Dir) ->
        Options = options(Config, #{algorithm => fixed_window, limit => 20}),
        Kept = Options#{persist => filename:join(Dir, "kept")},
        ok = fdn_cluster:start([A, B], api, Options),
        ok = fdn_cluster:start_alone(C, api, Kept),
        fdn_cluster:agreed(Vms, api),
        Key = fdn_cluster:key_of(C, A, api),
        ?assertEqual([4, 4, 4], fdn_cluster:all(Vms, fdn_cluster, hits, [api, Key, 4])),
        ok = fdn_cluster:release(C, api),
        fdn_cluster:agreed([A, B], api),
        ok = fdn_cluster:start_alone(C, api, Kept),
        fdn_cluster:agreed(Vms, api),
        %% But for what it had lent to itself.
        ?assertMatch(N when N =< 8 andalso N >= 6, fdn_cluster:admitted(Vms, api, [Key]))
    end).

%% ---- splits, and processes that are killed -----------------------------------------------------------------------------------------

%% Each side goes on by itself: one limit a side. Together again, the keys have their keepers of before.
split_and_healed(Config) ->
    [A, B, C] = Vms = ?config(vms, Config),
    ok = fdn_cluster:start(Vms, api, options(Config, #{limit => 20})),
    Keys = [Of || Keeper <- Vms, Of <- fdn_cluster:keys_of(Keeper, A, api, 3)],
    Before = lists:sum(fdn_cluster:all(Vms, fdn_cluster, one_each, [api, Keys, 1])),
    ?assertEqual(27, Before),
    ok = fdn_cluster:split([A], [B, C]),
    fdn_cluster:agreed([A], api),
    fdn_cluster:agreed([B, C], api),
    [Alone, Together] = [fdn_cluster:admitted(Side, api, Keys) || Side <- [[A], [B, C]]],
    ?assert(Alone =< 9 * 20),
    ?assert(Together =< 9 * 20),
    %% Those kept by A had 3 hits each.
    ?assertEqual(6 * 20 + 3 * 17, Alone),
    ?assertEqual(3 * 20 + 6 * 17, Together),
    fdn_cluster:connect(Vms),
    fdn_cluster:agreed(Vms, api),
    ?assertEqual(0, fdn_cluster:admitted(Vms, api, Keys)).

%% The budgets are in native tables, and the members do not change for long.
processes_killed(Config) ->
    [A, _, C] = Vms = ?config(vms, Config),
    ok = fdn_cluster:start(Vms, api, options(Config, #{limit => 100})),
    Key = fdn_cluster:key_of(C, A, api),
    Kill = fun(Pid) -> killed = call(C, fdn_dist, kill_and_wait, [Pid]) end,
    Hits = fun() -> lists:sum(fdn_cluster:all(Vms, fdn_cluster, hits, [api, Key, 5])) end,
    Member = fun() -> call(C, erlang, whereis, [foundation_limiter_member:name(api)]) end,
    Again = fun(Pid) ->
        fdn_test:await(fun() -> Member() =/= undefined andalso Member() =/= Pid end),
        fdn_cluster:agreed(Vms, api)
    end,
    ?assertEqual(15, Hits()),
    Answers = Member(),
    Kill(Answers),
    Again(Answers),
    ?assertEqual(15, Hits()),
    Second = Member(),
    Kill(owner(C)),
    Again(Second),
    ?assertEqual(15, Hits()),
    Third = Member(),
    Kill(call(C, erlang, whereis, [foundation_native])),
    Again(Third),
    ?assertEqual(15, Hits()),
    ?assertEqual(40, fdn_cluster:admitted(Vms, api, [Key])).

%% Without the application nobody is asked and all is denied; when it is back, so is the limiter, with its budgets.
application_restarted(Config) ->
    [A, B, C] = Vms = ?config(vms, Config),
    ok = fdn_cluster:start(Vms, api, options(Config, #{limit => 20})),
    [Key, Away] = [fdn_cluster:key_of(Keeper, A, api) || Keeper <- [C, A]],
    ?assertEqual(15, lists:sum(fdn_cluster:all(Vms, fdn_cluster, hits, [api, Key, 5]))),
    ok = call(C, application, stop, [foundation_native]),
    fdn_cluster:agreed([A, B], api),
    ?assertMatch({deny, _}, call(C, ?L, hit, [api, {not_leased, Key}])),
    ?assertMatch({deny, _}, call(C, ?L, peek, [api, Key])),
    ?assertEqual({error, unreachable}, call(C, ?L, reset, [api, Key])),
    ?assertEqual(
        {error, {badarg, {scope, application_not_started}}}, call(C, ?L, start_link, [other, options(Config, #{limit => 1})])
    ),
    ?assertEqual(undefined, call(C, ?L, whereis, [other])),
    {ok, _} = call(C, application, ensure_all_started, [foundation_native]),
    fdn_cluster:agreed(Vms, api),
    ?assertEqual(5, fdn_cluster:admitted(Vms, api, [Key])),
    ?assertEqual(20, fdn_cluster:admitted(Vms, api, [Away])).

owner(Vm) ->
    maps:get(owner, call(Vm, ?L, info, [api])).

