%% What stands around the native calls: telemetry of denials, and limiters whose budget is not here.
-module(foundation_limiter_call_tests).

-include_lib("eunit/include/eunit.hrl").

-import(fdn_limiter, [with/2]).

-define(L, foundation_limiter).

told() ->
    receive {telemetry, Pid, Event, Measurements, Metadata} -> {Pid, Event, Measurements, Metadata} after 0 -> none end.

%% ---- telemetry ------------------------------------------------------------------------------------------------------------------

denials_are_told_test() ->
    Denied = fun(Metadata, RetryAfterMs) ->
        {self(), [foundation_native, limiter, deny], #{count => 1, retry_after => RetryAfterMs}, Metadata}
    end,
    fdn_test:with_telemetry(fun() ->
        with(#{limit => 2, period => 1000, telemetry => true}, fun(N) ->
            Handle = ?L:whereis(N),
            ?assertMatch(#{telemetry := true}, ?L:info(N)),
            {allow, 0} = ?L:hit(N, k, 2),
            {allow, 0} = ?L:hit(N, k, 500, 1),
            ?assertEqual(none, told()),
            {deny, 500} = ?L:hit(N, k),
            ?assertEqual(Denied(#{limiter => N, key => k, limit => preset, cost => 1}, 500), told()),
            {deny, 1000} = ?L:hit(Handle, k, 2),
            ?assertEqual(Denied(#{limiter => N, key => k, limit => preset, cost => 2}, 1000), told()),
            {deny, 500} = ?L:hit(N, k, 500, 1),
            ?assertEqual(Denied(#{limiter => N, key => k, limit => {500, 1}, cost => 1}, 500), told()),
            {deny, 1000} = ?L:hit(Handle, k, 1000, 2, 2),
            ?assertEqual(Denied(#{limiter => N, key => k, limit => {1000, 2}, cost => 2}, 1000), told()),
            %% What only asks is told to nobody, even where it says deny.
            [?assertMatch({deny, _}, F()) || F <- [
                fun() -> ?L:peek(N, k) end, fun() -> ?L:hit(N, k, 0) end, fun() -> ?L:hit(N, k, 1000, 2, 0) end,
                fun() -> ?L:peek(N, k, 500, 1) end
            ]],
            ok = ?L:reset(N, k),
            ?assertEqual(none, told()),
            ?assertMatch(#{denied := 4}, ?L:info(N))
        end)
    end).

%% A key that is hashed on a dirty scheduler is told of like any other.
large_keys_are_told_test() ->
    fdn_test:with_telemetry(fun() ->
        with(#{limit => 0, period => 1000, telemetry => true}, fun(N) ->
            Key = lists:seq(1, 10000),
            {deny, 1000} = ?L:hit(N, Key),
            ?assertMatch({_, _, _, #{key := Key}}, told())
        end)
    end).

%% A member that answers the others' questions tells nobody: that is for the node that hit.
denials_at_home_are_not_told_test() ->
    fdn_test:with_telemetry(fun() ->
        with(#{limit => 1, period => 1000, telemetry => true}, fun(N) ->
            Home = ?L:home(?L:whereis(N)),
            ?assertEqual({allow, 0}, ?L:hit(Home, k)),
            ?assertEqual({deny, 1000}, ?L:hit(N, k)),
            ?assertMatch({_, _, _, _}, told()),
            ?assertEqual({deny, 1000}, ?L:hit(Home, k)),
            ?assertEqual(none, told())
        end)
    end).

told_only_where_asked_for_test() ->
    fdn_test:with_telemetry(fun() ->
        [
            with(Options#{limit => 0, period => 1000}, fun(N) ->
                ?assertMatch(#{telemetry := false}, ?L:info(N)),
                ?assertEqual({deny, 1000}, ?L:hit(N, k)),
                ?assertEqual(none, told())
            end)
         || Options <- [#{}, #{telemetry => false}]
        ]
    end).

%% Without the package the answers are the same, and nothing asks the code server for it.
without_the_package_test() ->
    false = code:is_loaded(telemetry),
    with(#{limit => 0, period => 1000, telemetry => true}, fun(N) ->
        CodeServer = whereis(code_server),
        1 = erlang:trace(CodeServer, true, ['receive']),
        ?assertEqual({deny, 1000}, ?L:hit(N, k)),
        Delivered = erlang:trace_delivered(CodeServer),
        receive {trace_delivered, CodeServer, Delivered} -> ok end,
        erlang:trace(CodeServer, false, ['receive']),
        ?assertEqual([], [Message || {trace, _, 'receive', {_, From, _} = Message} <- messages(), From =:= self()])
    end),
    ?assertEqual(false, code:is_loaded(telemetry)).

messages() ->
    receive Message -> [Message | messages()] after 0 -> [] end.

options_test() ->
    [
        ?assertEqual({error, {badarg, {Option, unknown_value}}}, ?L:start_link(never_started, #{Option => Value}))
     || {Option, Value} <- [{telemetry, yes}, {telemetry, 1}, {telemetry, undefined}, {scope, galaxy}, {scope, 1}]
    ],
    with(#{limit => 1, period => 1000, telemetry => true, scope => local}, fun(N) ->
        ?assertMatch(#{telemetry := true, scope := local}, ?L:info(N)),
        #{owner := Owner} = ?L:info(N),
        unlink(Owner),
        Monitor = monitor(process, Owner),
        exit(Owner, kill),
        receive {'DOWN', Monitor, process, _, _} -> ok end,
        Same = #{limit => 1, period => 1000, clock => manual, capacity => 1000},
        ?assertEqual({error, {badarg, {telemetry, differs_from_living_table}}}, ?L:start_link(N, Same))
    end).

%% ---- a budget that is elsewhere -------------------------------------------------------------------------------------------------

%% The native calls say so once their arguments are found good, and leave the rest to Erlang.
elsewhere_test() ->
    [
        begin
            N = fdn_limiter:name(),
            {ok, Handle, created} = ?L:attach_nif(
                N, {gcra, 2, 1000, undefined, 10, evict, manual, Scope, Telemetry, undefined}, self()
            ),
            ?assertMatch(#{scope := Scope, telemetry := Telemetry}, ?L:info(N)),
            Elsewhere = [cluster, N | Telemetry],
            [?assertEqual(Elsewhere, F()) || L <- [N, Handle], F <- [
                fun() -> ?L:hit_nif(L, k) end, fun() -> ?L:hit_nif(L, k, 2) end, fun() -> ?L:hit_nif(L, k, 500, 1) end,
                fun() -> ?L:hit_nif(L, k, 500, 2, 2) end, fun() -> ?L:peek_nif(L, k) end, fun() -> ?L:peek_nif(L, k, 500, 1) end,
                fun() -> ?L:reset_nif(L, k) end, fun() -> ?L:reset_nif(L, k, 500) end, fun() -> ?L:get_nif(L, k) end,
                fun() -> ?L:get_nif(L, k, 1000) end, fun() -> ?L:inc_nif(L, k, 1) end, fun() -> ?L:inc_nif(L, k, 1000, 1) end,
                fun() -> ?L:set_nif(L, k, 1000, 1) end
            ]],
            ?assertError({badarg, {cost, exceeds_burst}}, ?L:hit(N, k, 3)),
            ?assertError({badarg, {period, out_of_range}}, ?L:peek(N, k, 0, 1)),
            ?assertMatch(#{allowed := 0, denied := 0}, ?L:info(N)),
            {ok, _} = ?L:remove_nif(N, false)
        end
     || Scope <- [cluster, cluster_strict], Telemetry <- [true, false]
    ].
