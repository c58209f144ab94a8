%% Limits that several VMs share: never more admissions than the limit, whoever hits where; and a keeper that does not answer. The
%% clocks are manual, so no test depends on time.
-module(foundation_limiter_cluster_SUITE).

-include_lib("common_test/include/ct.hrl").
-include_lib("stdlib/include/assert.hrl").

-import(fdn_cluster, [call/4]).

-export([all/0, suite/0, groups/0, init_per_group/2, end_per_group/2, init_per_testcase/2, end_per_testcase/2]).
-export([
    never_over_the_limit/1, every_kind_of_key/1, reset_everywhere/1, windows_end/1, limits_differ/1, bad_arguments/1,
    strange_questions/1, deleted_and_made_again/1, keeper_does_not_answer/1, connection_full/1, counts_everywhere/1,
    what_is_refused/1, figures_and_telemetry/1, hot_keys_ask_seldom/1, denials_ask_nobody/1, reset_overtakes_a_denial/1
]).

-define(L, foundation_limiter).
-define(HOUR, 3600000).

suite() ->
    [{timetrap, {minutes, 3}}].

all() ->
    [{group, cluster_strict}, {group, cluster}].

groups() ->
    Both = [
        never_over_the_limit, every_kind_of_key, reset_everywhere, windows_end, limits_differ, bad_arguments, strange_questions,
        deleted_and_made_again, keeper_does_not_answer, connection_full, counts_everywhere, what_is_refused,
        figures_and_telemetry
    ],
    [{cluster_strict, [], Both}, {cluster, [], Both ++ [hot_keys_ask_seldom, denials_ask_nobody, reset_overtakes_a_denial]}].

init_per_group(Scope, Config) ->
    [{scope, Scope} | Config].

end_per_group(_Scope, _Config) ->
    ok.

%% The VMs of a case are linked to its process.
init_per_testcase(connection_full, Config) ->
    %% The connection is full with 1 KB that waits to be sent.
    [{vms, fdn_cluster:vms(3, ["+zdbbl", "1"])} | Config];
init_per_testcase(_, Config) ->
    [{vms, fdn_cluster:vms(3)} | Config].

end_per_testcase(_, Config) ->
    fdn_cluster:stop(?config(vms, Config)).

options(Config, Options) ->
    maps:merge(#{scope => ?config(scope, Config), clock => manual, period => ?HOUR, capacity => 1000}, Options).

%% ---- the limit --------------------------------------------------------------------------------------------------------------------

%% Processes of all VMs hit one hot key and many others until they are denied: all of the budget is admitted, and nothing more.
never_over_the_limit(Config) ->
    Vms = ?config(vms, Config),
    [
        begin
            ok = fdn_cluster:start(Vms, Algorithm, options(Config, #{algorithm => Algorithm, limit => Limit})),
            Keys = lists:seq(1, 30),
            ?assertEqual({Algorithm, Limit}, {Algorithm, fdn_cluster:admitted(Vms, Algorithm, [hot], 4)}),
            ?assertEqual({Algorithm, Limit * length(Keys)}, {Algorithm, fdn_cluster:admitted(Vms, Algorithm, Keys)})
        end
     || {Algorithm, Limit} <- [{gcra, 97}, {fixed_window, 100}, {sliding_window, 103}]
    ].

%% Whatever a key is made of, all nodes agree on who keeps it and on which key it is.
every_kind_of_key(Config) ->
    [Vm | _] = Vms = ?config(vms, Config),
    ok = fdn_cluster:start(Vms, api, options(Config, #{limit => 3})),
    There = call(Vm, erlang, spawn, [timer, sleep, [infinity]]),
    X = rand:uniform(1000000),
    Keys = [
        self(), There, make_ref(), alias(), hd(erlang:ports()), fun(Y) -> X + Y end, fun lists:map/2, #{a => 1, X => [self()]},
        {X, "list", <<"binary">>, 1.5, 1 bsl 100}, <<5:3>>, [], lists:seq(1, 10000)
    ],
    [
        begin
            Keepers = [call(V, foundation_limiter_cluster, keeper, [api, Key]) || V <- Vms],
            ?assertMatch({_, [_]}, {Key, lists:usort(Keepers)}),
            ?assertEqual({Key, 3}, {Key, fdn_cluster:admitted(Vms, api, [Key], 1)})
        end
     || Key <- Keys
    ].

%% A reset gives the whole budget back on all nodes: to those that have been told that there is none, too.
reset_everywhere(Config) ->
    [Vm | _] = Vms = ?config(vms, Config),
    ok = fdn_cluster:start(Vms, api, options(Config, #{algorithm => fixed_window, limit => 10})),
    [
        begin
            10 = fdn_cluster:admitted(Vms, api, [Key]),
            ok = call(Vm, ?L, reset, [api, Key]),
            ?assertEqual(10, fdn_cluster:admitted(Vms, api, [Key])),
            Hit = fun(V) -> call(V, ?L, hit, [api, Key, ?HOUR, 20]) end,
            10 = length([allow || _ <- lists:seq(1, 15), {allow, _} <- [Hit(Vm)]]),
            [{deny, _} = Hit(V) || V <- Vms],
            ok = call(Vm, ?L, reset, [api, Key, ?HOUR]),
            [?assertMatch({allow, _}, Hit(V)) || V <- Vms]
        end
     || Key <- [1, 2, 3, 4, 5]
    ].

%% A window ends for all nodes when it ends for the keeper, and what is left of it is worth nothing in the next one.
windows_end(Config) ->
    Vms = ?config(vms, Config),
    [
        begin
            ok = fdn_cluster:start(Vms, Algorithm, options(Config, #{algorithm => Algorithm, limit => 100})),
            [
                begin
                    Half = lists:sum(fdn_cluster:all(Vms, fdn_cluster, hits, [Algorithm, Key, 15])),
                    ?assertEqual(45, Half),
                    fdn_cluster:all(Vms, ?L, advance, [Algorithm, 2 * ?HOUR]),
                    ?assertEqual({Algorithm, 100}, {Algorithm, fdn_cluster:admitted(Vms, Algorithm, [Key])})
                end
             || Key <- [1, 2, 3]
            ]
        end
     || Algorithm <- [gcra, fixed_window, sliding_window]
    ].

%% Each node goes by its own options with the keys that it keeps, and says so once.
limits_differ(Config) ->
    [A, B, C] = Vms = ?config(vms, Config),
    [ok = call(Vm, fdn_cluster, collect_warnings, []) || Vm <- Vms],
    [ok = fdn_cluster:start_alone(Vm, api, options(Config, #{limit => Limit})) || {Vm, Limit} <- [{A, 10}, {B, 10}, {C, 30}]],
    fdn_cluster:agreed(Vms, api),
    ?assertEqual(10, fdn_cluster:admitted(Vms, api, [fdn_cluster:key_of(A, A, api)])),
    ?assertEqual(30, fdn_cluster:admitted(Vms, api, [fdn_cluster:key_of(C, A, api)])),
    Others = fun(Vm) -> [Node || Node <- fdn_cluster:nodes_of(Vms), call(Vm, fdn_cluster, warned_of, [Node])] end,
    #{node := Odd} = C,
    fdn_test:await(fun() -> Others(A) =:= [Odd] andalso Others(B) =:= [Odd] andalso length(Others(C)) =:= 2 end).

bad_arguments(Config) ->
    [Vm | _] = Vms = ?config(vms, Config),
    [ok = fdn_cluster:start_alone(V, api, options(Config, #{limit => 10})) || V <- tl(Vms)],
    %% This one would allow what the keeper does not.
    ok = fdn_cluster:start_alone(Vm, api, options(Config, #{limit => 100})),
    fdn_cluster:agreed(Vms, api),
    Wrong = fun(Argument, Reason, F, Args) ->
        ?assertError({exception, {badarg, {Argument, Reason}}, _}, erpc_like(Vm, F, Args))
    end,
    Key = fdn_cluster:key_of(lists:last(Vms), Vm, api),
    Wrong(cost, exceeds_burst, hit, [api, Key, 11]),
    Wrong(cost, exceeds_burst, hit, [api, Key, 101]),
    Wrong(period, out_of_range, hit, [api, Key, 0, 1]),
    Wrong(cost, exceeds_limit, hit, [api, Key, 1000, 1, 2]),
    Wrong(limit, not_an_integer, peek, [api, Key, 1000, x]),
    ?assertEqual({allow, 10}, call(Vm, ?L, peek, [api, Key])),
    ?assertEqual({allow, 10}, call(Vm, ?L, hit, [api, Key, 0])),
    ?assertMatch({allow, _}, call(Vm, ?L, hit, [api, Key, 10])),
    ?assertMatch({deny, _}, call(Vm, ?L, peek, [api, Key])).

erpc_like(Vm, F, Args) ->
    case call(Vm, fdn_cluster, tried, [?L, F, Args]) of
        {error, Reason} -> error({exception, Reason, Args});
        Answer -> Answer
    end.

%% The process that answers gets messages that it does not know, from nodes of another version or from nobody; it goes on.
strange_questions(Config) ->
    [A, B | _] = Vms = ?config(vms, Config),
    ok = fdn_cluster:start(Vms, api, options(Config, #{limit => 10})),
    Member = {foundation_limiter_member:name(api), maps:get(node, B)},
    Key = fdn_cluster:key_of(B, A, api),
    Before = call(B, erlang, whereis, [element(1, Member)]),
    [
        ?assertEqual({Question, unknown_request}, {Question, call(A, fdn_cluster, question, [Member, Question])})
     || Question <- [
            {hit, []}, {delete, []}, {delete, [x]}, {hit, [a, 1, 2, 3, 4]}, {hit, x}, {hit, [a | b]}, hit, <<"hit">>, {exit, [now]},
            {consumed, [a, preset]}, {consumed, [a, preset, []]}, {consumed, [a, preset, [a | b]]}, {consumed, [a, rule, [a]]},
            {consumed, [a, {1, b}, [a]]}
        ]
    ],
    ?assertEqual({badarg, {cost, not_an_integer}}, call(A, fdn_cluster, question, [Member, {hit, [Key, x]}])),
    ?assertEqual({badarg, {cost, not_an_integer}}, call(A, fdn_cluster, question, [Member, {lend_nif, [Key, preset, x, y]}])),
    ?assertEqual({badarg, {limit, not_a_limit}}, call(A, fdn_cluster, question, [Member, {lend_nif, [Key, rule, 1, 0]}])),
    %% Nobody whom this node sees as the keeper.
    ?assertEqual(not_yet, call(A, fdn_cluster, question, [Member, {consumed, [Key, preset, [nobody]]}])),
    ?assertEqual(moved, call(A, fdn_cluster, question, [Member, {hit, [fdn_cluster:key_of(A, A, api), 1]}])),
    call(A, erlang, send, [Member, anything]),
    {error, unknown_request} = call(A, gen_server, call, [Member, anything]),
    ?assertEqual(Before, call(B, erlang, whereis, [element(1, Member)])).

deleted_and_made_again(Config) ->
    [A, B, C] = Vms = ?config(vms, Config),
    [
        begin
            ok = fdn_cluster:start(Vms, api, options(Config, #{limit => 10})),
            ?assertEqual({error, {already_started, owner(A)}}, call(A, ?L, start_link, [api, options(Config, #{limit => 10})])),
            ?assertEqual(10, fdn_cluster:admitted(Vms, api, [key])),
            [ok = call(Vm, ?L, delete, [api]) || Vm <- Vms],
            [?assertEqual([], call(Vm, foundation_limiter_cluster, members, [api])) || Vm <- [C]],
            [?assertEqual(undefined, call(Vm, ?L, whereis, [api])) || Vm <- Vms],
            [?assertEqual(undefined, call(Vm, erlang, whereis, [foundation_limiter_member:name(api)])) || Vm <- Vms],
            fdn_test:await(fun() -> call(B, foundation_limiter_cluster, members, [api]) =:= [] end),
            [fdn_cluster:release(Vm, api) || Vm <- Vms]
        end
     || _ <- [1, 2]
    ].

owner(Vm) ->
    maps:get(owner, call(Vm, ?L, info, [api])).

%% ---- a keeper that does not answer ------------------------------------------------------------------------------------------------

%% A VM that is stopped keeps its connections and answers nobody. Its keys are denied; other keys go on; no answer comes late.
keeper_does_not_answer(Config) ->
    [A, B, C] = Vms = ?config(vms, Config),
    ok = fdn_cluster:start(Vms, api, options(Config, #{limit => 100, cluster_timeout => 50})),
    Keys = [Key | _] = fdn_cluster:keys_of(C, A, api, 20),
    Other = fdn_cluster:key_of(B, A, api),
    ok = fdn_cluster:signal("STOP", C),
    Caller = call(A, fdn_cluster, caller, []),
    [?assertMatch({_, {deny, 50}}, {K, call(A, fdn_cluster, by, [Caller, ?L, hit, [api, K]])}) || K <- Keys],
    ?assertMatch({deny, 50}, call(A, fdn_cluster, by, [Caller, ?L, peek, [api, Key]])),
    ?assertEqual({error, unreachable}, call(A, fdn_cluster, by, [Caller, ?L, reset, [api, Key]])),
    ?assertMatch({allow, _}, call(A, fdn_cluster, by, [Caller, ?L, hit, [api, Other]])),
    ?assertMatch(#{unreachable := 22}, call(A, ?L, info, [api])),
    ok = fdn_cluster:signal("CONT", C),
    %% The answer to a question that was asked last is behind all others.
    fdn_test:await(fun() -> element(1, call(A, fdn_cluster, by, [Caller, ?L, hit, [api, Key]])) =:= allow end),
    ?assertEqual([], call(A, fdn_cluster, messages, [Caller])).

%% So many requests that the connection to the stopped VM takes no more: callers are not suspended until it does.
connection_full(Config) ->
    [A, B, C] = Vms = ?config(vms, Config),
    ok = fdn_cluster:start(Vms, api, options(Config, #{limit => 100, cluster_timeout => 50})),
    Numbers = call(A, fdn_cluster, big_keys_of, [api, maps:get(node, C), 30]),
    Other = fdn_cluster:key_of(B, A, api),
    ok = fdn_cluster:signal("STOP", C),
    %% In processes of their own, before any of them finds out that nobody answers.
    Answers = call(A, fdn_cluster, at_once, [fdn_cluster, hit_big, [[api, Number] || Number <- Numbers]]),
    ?assertEqual([{deny, 50}], lists:usort(Answers)),
    ?assertMatch({allow, _}, call(A, ?L, hit, [api, Other])),
    ?assertMatch({allow, _}, call(B, ?L, hit, [api, Other])),
    ok = fdn_cluster:signal("CONT", C),
    fdn_test:await(fun() -> element(1, call(A, fdn_cluster, hit_big, [api, hd(Numbers)])) =:= allow end).

%% ---- the rest ---------------------------------------------------------------------------------------------------------------------

counts_everywhere(Config) ->
    [A, B, C] = Vms = ?config(vms, Config),
    ok = fdn_cluster:start(Vms, api, options(Config, #{algorithm => fixed_window, limit => 10})),
    [
        begin
            ?assertEqual([0, 0, 0], [call(Vm, ?L, get, [api, Key]) || Vm <- Vms]),
            ?assertEqual(3, call(A, ?L, inc, [api, Key, 3])),
            ?assertEqual(5, call(B, ?L, inc, [api, Key, ?HOUR, 2])),
            ?assertEqual([5, 5, 5], [call(Vm, ?L, get, [api, Key, ?HOUR]) || Vm <- Vms]),
            ?assertEqual(5, fdn_cluster:admitted(Vms, api, [Key])),
            %% What was denied before is not any more.
            ?assertEqual(7, call(C, ?L, set, [api, Key, ?HOUR, 7])),
            ?assertEqual(3, fdn_cluster:admitted(Vms, api, [Key])),
            ?assertEqual([10, 10, 10], [call(Vm, ?L, get, [api, Key]) || Vm <- Vms])
        end
     || Key <- [1, 2, 3, 4, 5]
    ],
    %% And what is left of a lease does not count on top.
    10 = call(A, ?L, inc, [api, key, 10]),
    ?assertEqual(0, call(B, ?L, set, [api, key, ?HOUR, 0])),
    ?assertMatch({allow, _}, call(A, ?L, hit, [api, key])),
    ?assertMatch({allow, _}, call(A, ?L, hit, [api, key])),
    ?assertEqual(10, call(B, ?L, set, [api, key, ?HOUR, 10])),
    ?assertEqual([{deny, ?HOUR}], lists:usort([call(Vm, ?L, hit, [api, key]) || Vm <- Vms])).

%% What debits a key for later, or several keys together, is for limiters of one node.
what_is_refused(Config) ->
    [Vm | _] = Vms = ?config(vms, Config),
    ok = fdn_cluster:start(Vms, api, options(Config, #{limit => 10})),
    Tried = fun(F, A) -> call(Vm, fdn_cluster, tried, [?L, F, A]) end,
    ?assertEqual({error, {badarg, {limiter, not_local}}}, Tried(reserve, [api, key, 1, 1000])),
    ?assertEqual({error, {badarg, {{entry, 1}, {limiter, not_local}}}}, Tried(hit_all, [[{api, key, 1}]])),
    [
        ?assertEqual({error, {badarg, Detail}}, Tried(start_link, [other, options(Config, Options)]))
     || {Detail, Options} <- [
            {{cluster_timeout, out_of_range}, #{cluster_timeout => 0}},
            {{cluster_timeout, out_of_range}, #{cluster_timeout => 60001}},
            {{cluster_timeout, not_an_integer}, #{cluster_timeout => 1.5}},
            {{limit, missing}, #{}}
        ]
    ],
    ?assertEqual(undefined, call(Vm, ?L, whereis, [other])),
    %% The name is a part of another one, which is an atom, too.
    Long = list_to_atom(lists:duplicate(236, 1080)),
    ?assertEqual(ok, fdn_cluster:start_alone(Vm, Long, options(Config, #{limit => 10}))),
    ?assertMatch({allow, 9}, call(Vm, ?L, hit, [Long, key])),
    Longer = list_to_atom(lists:duplicate(237, $x)),
    ?assertEqual({error, {badarg, {name, too_long}}}, Tried(start_link, [Longer, options(Config, #{limit => 10})])).

%% Each node counts and tells what its own callers were answered, wherever that was decided.
figures_and_telemetry(Config) ->
    [A, B, C] = Vms = ?config(vms, Config),
    Nodes = fdn_cluster:nodes_of(Vms),
    ok = fdn_cluster:start(Vms, api, options(Config, #{limit => 10, telemetry => true, cluster_timeout => 5000})),
    Scope = ?config(scope, Config),
    Key = fdn_cluster:key_of(C, A, api),
    ?assertMatch(
        #{scope := Scope, members := Nodes, cluster_timeout := 5000, allowed := 0, denied := 0, asked := 0, unreachable := 0},
        call(A, ?L, info, [api])
    ),
    ?assertEqual({5, none}, call(A, fdn_cluster, hits_told, [api, Key, 5])),
    ?assertEqual({5, {api, Key, preset, 1}}, call(B, fdn_cluster, hits_told, [api, Key, 6])),
    ?assertEqual({0, {api, Key, preset, 1}}, call(C, fdn_cluster, hits_told, [api, Key, 1])),
    ?assertEqual({0, {api, Key, preset, 1}}, call(C, fdn_cluster, hits_told, [api, Key, 1])),
    [
        ?assertMatch({_, #{allowed := Allowed, denied := Denied}}, {Vm, call(Vm, ?L, info, [api])})
     || {Vm, Allowed, Denied} <- [{A, 5, 0}, {B, 5, 1}, {C, 0, 2}]
    ],
    ?assertMatch(#{asked := 0}, call(C, ?L, info, [api])),
    [ok = call(Vm, ?L, delete, [api]) || Vm <- Vms].

%% A key that is hit again and again is leased: most of its hits ask nobody. All of its budget is there, whoever leases it.
hot_keys_ask_seldom(Config) ->
    [A, B, C] = Vms = ?config(vms, Config),
    [
        begin
            ok = fdn_cluster:start(Vms, Algorithm, options(Config, #{algorithm => Algorithm, limit => 3000})),
            Key = fdn_cluster:key_of(C, A, Algorithm),
            ?assertEqual(1000, call(A, fdn_cluster, hits, [Algorithm, Key, 1000])),
            ?assertEqual(1000, call(C, fdn_cluster, hits, [Algorithm, Key, 1000])),
            ?assertEqual(1000, fdn_cluster:admitted(Vms, Algorithm, [Key], 4)),
            #{asked := Asked, leased := Leased} = call(A, ?L, info, [Algorithm]),
            ?assert(Asked < 1000 andalso Leased > 500),
            ?assertMatch(#{asked := 0, leased := N} when N > 500, call(C, ?L, info, [Algorithm])),
            %% A hit that brings its limit has leases of its own, and the same budget.
            ?assertMatch({deny, _}, call(B, ?L, hit, [Algorithm, Key, ?HOUR, 2000]))
        end
     || Algorithm <- [gcra, fixed_window, sliding_window]
    ].

%% A reset in the moment at which a node has been told that there is nothing left, and has not noted that yet.
reset_overtakes_a_denial(Config) ->
    [A, B, C] = Vms = ?config(vms, Config),
    ok = fdn_cluster:start(Vms, api, options(Config, #{limit => 1})),
    Key = fdn_cluster:key_of(C, A, api),
    ?assertEqual({allow, 0}, call(B, ?L, hit, [api, Key])),
    ok = call(A, fdn_cluster, stop_before, [foundation_limiter_cluster, keep, 8, stopper]),
    Stopped = call(A, fdn_cluster, stopped_hit, [stopper, api, Key]),
    ok = call(B, ?L, reset, [api, Key]),
    ?assertMatch({deny, _}, call(A, fdn_cluster, go_on, [Stopped, stopper])),
    ?assertEqual({allow, 0}, call(A, ?L, hit, [api, Key])).

%% A node that was told that there is nothing left until a moment asks again at that moment, and not before.
denials_ask_nobody(Config) ->
    [A | _] = Vms = ?config(vms, Config),
    ok = fdn_cluster:start(Vms, api, options(Config, #{algorithm => fixed_window, limit => 10})),
    Key = fdn_cluster:key_of(lists:last(Vms), A, api),
    10 = fdn_cluster:admitted(Vms, api, [Key]),
    #{asked := Before} = call(A, ?L, info, [api]),
    ?assertEqual(0, call(A, fdn_cluster, hits, [api, Key, 1000])),
    ?assertMatch(#{asked := Before}, call(A, ?L, info, [api])),
    ?assertMatch({deny, Ms} when Ms > ?HOUR * 99 div 100 andalso Ms =< ?HOUR, call(A, ?L, hit, [api, Key])),
    ?assertMatch({allow, _}, call(A, ?L, hit, [api, other_key])),
    fdn_cluster:all(Vms, ?L, advance, [api, ?HOUR]),
    ?assertEqual(10, fdn_cluster:admitted(Vms, api, [Key])).
