%% The limiter through the NIF: answers, bad arguments, options, figures. Keys, races, floods and the life of a limiter have modules of
%% their own (foundation_limiter_*_tests); the comparison with a naive reference is in prop_limiter.
-module(foundation_limiter_tests).

-include_lib("eunit/include/eunit.hrl").

-import(fdn_limiter, [with/2]).

-define(L, foundation_limiter).

algorithms() -> [gcra, fixed_window, sliding_window].

%% ---- answers --------------------------------------------------------------------------------------------------------------------

gcra_test() ->
    with(#{limit => 10, period => 1000, burst => 3}, fun(N) ->
        ?assertEqual([{allow, 2}, {allow, 1}, {allow, 0}, {deny, 100}], [?L:hit(N, k) || _ <- lists:seq(1, 4)]),
        ?assertEqual({deny, 300}, ?L:hit(N, k, 3)),
        ok = ?L:advance(N, 99),
        ?assertEqual({deny, 1}, ?L:hit(N, k)),
        ok = ?L:advance(N, 1),
        ?assertEqual({allow, 0}, ?L:hit(N, k)),
        ok = ?L:advance(N, 1000000),
        ?assertEqual({allow, 3}, ?L:peek(N, k)),
        ?assertEqual({allow, 0}, ?L:hit(N, k, 3))
    end).

fixed_window_is_anchored_at_the_first_hit_test() ->
    with(#{algorithm => fixed_window, limit => 2, period => 1000}, fun(N) ->
        ok = ?L:advance(N, 990),
        ?assertEqual({allow, 1}, ?L:hit(N, k)),
        ok = ?L:advance(N, 20),
        ?assertEqual({allow, 0}, ?L:hit(N, k)),
        ?assertEqual({deny, 980}, ?L:hit(N, k)),
        ok = ?L:advance(N, 979),
        ?assertEqual({deny, 1}, ?L:hit(N, k)),
        ok = ?L:advance(N, 1),
        ?assertEqual({allow, 1}, ?L:hit(N, k))
    end).

%% What was admitted in the window before this one fades, evenly, over this one.
sliding_window_test() ->
    with(#{algorithm => sliding_window, limit => 10, period => 1000}, fun(N) ->
        ok = ?L:advance(N, 900),
        ?assertEqual({allow, 0}, ?L:hit(N, k, 10)),
        ?assertEqual({deny, 200}, ?L:hit(N, k)),
        ok = ?L:advance(N, 199),
        ?assertEqual({deny, 1}, ?L:hit(N, k)),
        ok = ?L:advance(N, 1),
        ?assertEqual({allow, 0}, ?L:hit(N, k)),
        ?assertEqual({deny, 100}, ?L:peek(N, k)),
        ok = ?L:advance(N, 400),
        ?assertEqual({allow, 4}, ?L:peek(N, k)),
        ?assertMatch(#{algorithm := sliding_window, burst := undefined}, ?L:info(N)),
        ?assertEqual({allow, 16382}, ?L:hit(N, k, 1001, 16383)),
        ?assertError({badarg, {limit, out_of_range}}, ?L:hit(N, k, 1000, 16384))
    end).

denied_hits_do_not_count_test() ->
    [
        with(#{algorithm => A, limit => 5, period => 1000}, fun(N) ->
            ?assertEqual({allow, 1}, ?L:hit(N, k, 4)),
            [?assertMatch({deny, _}, ?L:hit(N, k, 2)) || _ <- lists:seq(1, 100)],
            ?assertEqual({allow, 0}, ?L:hit(N, k))
        end)
     || A <- algorithms()
    ].

cost_zero_is_peek_test() ->
    [
        with(#{algorithm => A, limit => 2, period => 1000}, fun(N) ->
            Same = fun(Expected) ->
                ?assertEqual(Expected, ?L:hit(N, k, 0)),
                ?assertEqual(Expected, ?L:peek(N, k)),
                ?assertEqual(Expected, ?L:peek(N, k, 1000, 2)),
                ?assertEqual(Expected, ?L:hit(N, k, 1000, 2, 0))
            end,
            Same({allow, 2}),
            ?assertMatch(#{live := 0, allowed := 0, denied := 0}, ?L:info(N)),
            {allow, 1} = ?L:hit(N, k),
            Same({allow, 1}),
            {allow, 0} = ?L:hit(N, k),
            {deny, _} = Denied = ?L:hit(N, k),
            Same(Denied),
            ?assertMatch(#{live := 1, allowed := 2, denied := 1}, ?L:info(N))
        end)
     || A <- algorithms()
    ].

limit_zero_denies_always_test() ->
    [
        with(#{algorithm => A, limit => 0, period => 1000}, fun(N) ->
            [?assertEqual({deny, 1000}, ?L:hit(N, k, C)) || C <- [0, 1, 2, 1 bsl 63]],
            ok = ?L:advance(N, 5000),
            ?assertEqual({deny, 1000}, ?L:peek(N, k)),
            ?assertEqual({deny, 70}, ?L:hit(N, k, 70, 0))
        end)
     || A <- algorithms()
    ].

period_belongs_to_the_key_test() ->
    [
        with(#{algorithm => A, limit => 3, period => 1000}, fun(N) ->
            ?assertEqual({allow, 0}, ?L:hit(N, k, 1000, 3, 3)),
            ?assertMatch({deny, _}, ?L:hit(N, k)),
            ?assertEqual({allow, 1}, ?L:hit(N, k, 2000, 2)),
            ?assertEqual({allow, 1}, ?L:hit(N, k, 999, 2)),
            ok = ?L:reset(N, k, 2000),
            ?assertEqual({allow, 2}, ?L:peek(N, k, 2000, 2)),
            ?assertEqual({allow, 1}, ?L:peek(N, k, 999, 2)),
            ok = ?L:reset(N, k),
            ?assertEqual({allow, 3}, ?L:peek(N, k))
        end)
     || A <- algorithms()
    ].

no_preset_limit_test() ->
    with(#{}, fun(N) ->
        ?assertEqual({allow, 4}, ?L:hit(N, k, 1000, 5)),
        ?assertEqual({allow, 1}, ?L:hit(N, k, 1000, 5, 3)),
        ok = ?L:reset(N, k, 1000),
        ?assertEqual({allow, 5}, ?L:peek(N, k, 1000, 5)),
        [?assertError({badarg, {limit, no_preset_limit}}, F()) || F <- [
            fun() -> ?L:hit(N, k) end, fun() -> ?L:hit(N, k, 1) end, fun() -> ?L:peek(N, k) end, fun() -> ?L:reset(N, k) end
        ]],
        ?assertMatch(#{limit := undefined, period := undefined, burst := undefined}, ?L:info(N))
    end).

%% The ends of the documented ranges: inside they work, one further they are refused.
ends_of_ranges_test() ->
    Year = 366 * 86400 * 1000,
    with(#{algorithm => fixed_window}, fun(N) ->
        ?assertEqual({allow, 16777213}, ?L:hit(N, k, Year, 16777214)),
        ?assertEqual({allow, 0}, ?L:hit(N, k, Year, 16777214, 16777213)),
        ?assertEqual({deny, Year}, ?L:hit(N, k, Year, 16777214)),
        ?assertError({badarg, {limit, out_of_range}}, ?L:hit(N, k, Year, 16777215))
    end),
    with(#{limit => 1, period => Year, burst => 4}, fun(N) ->
        ?assertEqual({allow, 0}, ?L:hit(N, k, 4)),
        ?assertEqual({deny, 4 * Year}, ?L:hit(N, k, 4)),
        ?assertEqual({allow, 999999}, ?L:hit(N, k, 1, 1000000)),
        ?assertError({badarg, {limit, out_of_range}}, ?L:hit(N, k, 1, 1000001)),
        ok = ?L:advance(N, (1 bsl 59) div 1000000),
        ?assertEqual({allow, 4}, ?L:peek(N, k)),
        ?assertError({badarg, {ms, out_of_range}}, ?L:advance(N, 1))
    end).

%% ---- bad arguments --------------------------------------------------------------------------------------------------------------

bad_arguments_test() ->
    with(#{limit => 10, period => 1000, burst => 5}, fun(N) ->
        Cases = [
            {limiter, unknown, fun() -> ?L:hit(no_such_limiter, k) end},
            {limiter, unknown, fun() -> ?L:info(no_such_limiter) end},
            {limiter, unknown, fun() -> ?L:delete(no_such_limiter) end},
            {limiter, unknown, fun() -> ?L:advance(no_such_limiter, 1) end},
            {limiter, not_a_name_or_handle, fun() -> ?L:hit("name", k) end},
            {limiter, not_a_name_or_handle, fun() -> ?L:peek({N}, k) end},
            {limiter, not_a_name_or_handle, fun() -> ?L:reset(-1, k) end},
            {limiter, not_a_name_or_handle, fun() -> ?L:info(1.0) end},
            {limiter, not_a_name_or_handle, fun() -> ?L:hit(1 bsl 64, k) end},
            {limiter, deleted, fun() -> ?L:hit(0, k) end},
            {limiter, deleted, fun() -> ?L:hit(12345, k) end},
            {name, not_an_atom, fun() -> ?L:whereis("name") end},
            {cost, not_an_integer, fun() -> ?L:hit(N, k, 1.0) end},
            {cost, not_an_integer, fun() -> ?L:hit(N, k, one) end},
            {cost, out_of_range, fun() -> ?L:hit(N, k, -1) end},
            {cost, out_of_range, fun() -> ?L:hit(N, k, 1 bsl 64) end},
            {cost, exceeds_burst, fun() -> ?L:hit(N, k, 6) end},
            {cost, exceeds_burst, fun() -> ?L:hit(N, k, (1 bsl 64) - 1) end},
            {cost, exceeds_limit, fun() -> ?L:hit(N, k, 1000, 10, 11) end},
            {cost, not_an_integer, fun() -> ?L:hit(N, k, 1000, 10, []) end},
            {period, not_an_integer, fun() -> ?L:hit(N, k, 1.5, 10) end},
            {period, out_of_range, fun() -> ?L:hit(N, k, 0, 10) end},
            {period, out_of_range, fun() -> ?L:hit(N, k, -5, 10) end},
            {period, out_of_range, fun() -> ?L:hit(N, k, 366 * 86400000 + 1, 10) end},
            {period, out_of_range, fun() -> ?L:hit(N, k, 1 bsl 80, 10) end},
            {period, out_of_range, fun() -> ?L:peek(N, k, 0, 10) end},
            {period, out_of_range, fun() -> ?L:reset(N, k, 0) end},
            {limit, not_an_integer, fun() -> ?L:hit(N, k, 1000, 10.0) end},
            {limit, out_of_range, fun() -> ?L:hit(N, k, 1000, -1) end},
            {limit, out_of_range, fun() -> ?L:hit(N, k, 1000, 1 bsl 64) end},
            {limit, out_of_range, fun() -> ?L:peek(N, k, 1000, 1000000001) end},
            {ms, not_an_integer, fun() -> ?L:advance(N, 1.0) end},
            {ms, out_of_range, fun() -> ?L:advance(N, -1) end},
            {ms, out_of_range, fun() -> ?L:advance(N, (1 bsl 64) - 1) end}
        ],
        [?assertError({badarg, {Argument, Reason}}, F()) || {Argument, Reason, F} <- Cases],
        ?assertMatch(#{live := 0, allowed := 0, denied := 0}, ?L:info(N))
    end),
    with(#{limit => 1, period => 1000, clock => auto}, fun(N) ->
        ?assertError({badarg, {clock, not_manual}}, ?L:advance(N, 1))
    end).

bad_options_test() ->
    Good = #{limit => 10, period => 1000},
    Cases = [
        {limit, missing, #{period => 1000}},
        {period, missing, #{limit => 10}},
        {limit, missing, #{burst => 10}},
        {limit, not_an_integer, Good#{limit => 1.0}},
        {limit, out_of_range, Good#{limit => -1}},
        {limit, out_of_range, Good#{limit => 1000000001}},
        {limit, out_of_range, Good#{algorithm => fixed_window, limit => 1 bsl 24}},
        {period, out_of_range, Good#{period => 0}},
        {period, out_of_range, Good#{period => 366 * 86400000 + 1}},
        {period, not_an_integer, Good#{period => infinity}},
        {burst, out_of_range, Good#{burst => 0}},
        {burst, out_of_range, Good#{burst => 1 bsl 63}},
        {burst, not_an_integer, Good#{burst => "1"}},
        {burst, only_for_gcra, Good#{algorithm => fixed_window, burst => 10}},
        {capacity, out_of_range, Good#{capacity => 0}},
        {capacity, out_of_range, Good#{capacity => (1 bsl 31) + 1}},
        {capacity, not_an_integer, Good#{capacity => 1.0e6}},
        {algorithm, unknown_value, Good#{algorithm => leaky_bucket}},
        {limit, out_of_range, Good#{algorithm => sliding_window, limit => 16384}},
        {burst, only_for_gcra, Good#{algorithm => sliding_window, burst => 10}},
        {on_full, unknown_value, Good#{on_full => grow}},
        {clock, unknown_value, Good#{clock => 1}},
        {persist, not_a_path, Good#{persist => true}},
        {persist, not_a_path, Good#{persist => 7}},
        {persist, not_a_path, Good#{persist => ""}},
        {persist, not_a_path, Good#{persist => <<>>}},
        {persist, not_a_path, Good#{persist => {"file"}}},
        {persist, not_a_path, Good#{persist => "a" ++ [0] ++ "b"}},
        {persist, not_a_path, Good#{persist => <<"a", 0>>}},
        {persist, not_a_path, Good#{persist => [$a, -1]}},
        {persist, not_a_path, Good#{persist => [$a | $b]}},
        {persist, not_a_path, Good#{persist => lists:duplicate(5000, $a)}},
        {scope, unknown_value, Good#{scope => galaxy}},
        {cluster_timeout, only_for_cluster, Good#{cluster_timeout => 1000}},
        {cluster_timeout, out_of_range, Good#{scope => cluster_strict, cluster_timeout => 0}},
        {cluster_timeout, out_of_range, Good#{scope => cluster_strict, cluster_timeout => 60001}},
        {cluster_timeout, not_an_integer, Good#{scope => cluster_strict, cluster_timeout => 1.5}},
        {limits, unknown_option, Good#{limits => 1}},
        {"limit", unknown_option, Good#{"limit" => 1}},
        {options, not_a_map, [{limit, 10}]}
    ],
    [
        ?assertEqual({Options, {error, {badarg, {Option, Reason}}}}, {Options, ?L:start_link(never_started, Options)})
     || {Option, Reason, Options} <- Cases
    ],
    [?assertEqual({error, {badarg, {name, not_a_name}}}, ?L:start_link(Bad, Good)) || Bad <- [undefined, "name", 7]],
    ?assertEqual(undefined, ?L:whereis(never_started)),
    with(Good#{persist => undefined, scope => local, on_full => deny}, fun(N) ->
        ?assertMatch({allow, 9}, ?L:hit(N, k))
    end).

%% ---- figures --------------------------------------------------------------------------------------------------------------------

info_test() ->
    Self = self(),
    with(#{limit => 10, period => 1000, burst => 5, capacity => 1000}, fun(N) ->
        [?L:hit(N, I) || I <- lists:seq(1, 100)],
        [?L:hit(N, 1) || _ <- lists:seq(1, 10)],
        Info = ?L:info(N),
        ?assertEqual(Info, ?L:info(?L:whereis(N))),
        ?assertMatch(
            #{
                algorithm := gcra, limit := 10, period := 1000, burst := 5, capacity := 1000, on_full := evict, clock := manual,
                clock_in_use := manual, live := 100, allowed := 104, denied := 6, full := 0, evicted := 0, now := 0
            },
            Info
        ),
        ?assertNotEqual(Self, maps:get(owner, Info)),
        ok = ?L:advance(N, 400),
        ?assertMatch(#{live := 1, now := 400}, ?L:info(N))
    end),
    [
        with(Options, fun(N) -> ?assertMatch(#{clock_in_use := InUse}, ?L:info(N)) end)
     || {InUse, Options} <- [
            {coarse, #{clock => auto, limit => 5, period => 3600000}},
            {coarse, #{clock => auto, limit => 5, period => 3600000, algorithm => fixed_window}},
            {precise, #{clock => auto, limit => 3600000, period => 3600000, burst => 1}},
            {precise, #{clock => auto, limit => 5, period => 10, algorithm => fixed_window}},
            {coarse, #{clock => coarse, limit => 5, period => 10}},
            {precise, #{clock => precise, limit => 5, period => 3600000}}
        ]
    ].

%% The counters of calls made on any scheduler add up.
counters_are_exact_test() ->
    with(#{limit => 50, period => 1000}, fun(N) ->
        Workers = [spawn_monitor(fun() -> [?L:hit(N, I rem 100) || I <- lists:seq(1, 20000)] end) || _ <- lists:seq(1, 8)],
        [receive {'DOWN', Ref, process, Pid, Why} -> ?assertEqual(normal, Why) end || {Pid, Ref} <- Workers],
        ?assertMatch(#{allowed := 5000, denied := 155000}, ?L:info(N))
    end).
