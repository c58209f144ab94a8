%% Debits that are given back: reservations with their tokens, and hit_all.
-module(foundation_limiter_debit_tests).

-include_lib("eunit/include/eunit.hrl").

-import(fdn_limiter, [algorithms/0, with/2]).

-define(L, foundation_limiter).

%% ---- reserve --------------------------------------------------------------------------------------------------------------------

reserve_waits_its_turn_test() ->
    with(#{limit => 10, period => 1000, burst => 2}, fun(N) ->
        ?assertMatch({ok, 0, _}, ?L:reserve(N, k, 1, 0)),
        ?assertMatch({ok, 0, _}, ?L:reserve(N, k, 1, 0)),
        ?assertEqual({deny, 100}, ?L:reserve(N, k, 1, 0)),
        ?assertEqual({deny, 1}, ?L:reserve(N, k, 1, 99)),
        ?assertMatch({ok, 100, _}, ?L:reserve(N, k, 1, 100)),
        ?assertMatch({ok, 300, _}, ?L:reserve(N, k, 2, 1000)),
        ?assertEqual({deny, 400}, ?L:hit(N, k)),
        ok = ?L:advance(N, 300),
        ?assertEqual({deny, 100}, ?L:hit(N, k)),
        ok = ?L:advance(N, 100),
        ?assertEqual({allow, 0}, ?L:hit(N, k)),
        ?assertMatch(#{live := 1}, ?L:info(N))
    end).

%% Cost 0 asks what cost 1 would be answered, and takes nothing.
reserve_nothing_test() ->
    with(#{limit => 10, period => 1000, burst => 2}, fun(N) ->
        {ok, 0, Token} = ?L:reserve(N, k, 0, 0),
        ?assertEqual({error, expired}, ?L:refund(Token)),
        {allow, 0} = ?L:hit(N, k, 2),
        ?assertEqual({deny, 100}, ?L:reserve(N, k, 0, 0)),
        ?assertMatch({ok, 100, _}, ?L:reserve(N, k, 0, 100)),
        ?assertEqual({deny, 100}, ?L:hit(N, k))
    end).

limit_zero_test() ->
    with(#{limit => 0, period => 1000}, fun(N) ->
        ?assertEqual({deny, 1000}, ?L:reserve(N, k, 1, (1 bsl 64) - 1))
    end).

%% ---- refund ---------------------------------------------------------------------------------------------------------------------

refund_gives_back_once_test() ->
    with(#{limit => 10, period => 1000, burst => 5}, fun(N) ->
        {ok, 0, Token} = ?L:reserve(N, k, 5, 0),
        {deny, 100} = ?L:hit(N, k),
        ?assertEqual(ok, ?L:refund(Token)),
        ?assertEqual({allow, 5}, ?L:peek(N, k)),
        ?assertEqual({error, refunded}, ?L:refund(Token)),
        ?assertEqual({allow, 5}, ?L:peek(N, k))
    end).

%% Time gives back what it gives back; the refund is the rest, and nothing once it is all there.
refund_after_a_while_test() ->
    with(#{limit => 10, period => 1000, burst => 5}, fun(N) ->
        {ok, 0, Token} = ?L:reserve(N, k, 4, 0),
        ok = ?L:advance(N, 300),
        {allow, 4} = ?L:peek(N, k),
        ?assertEqual(ok, ?L:refund(Token)),
        ?assertEqual({allow, 5}, ?L:peek(N, k)),
        {ok, 0, Late} = ?L:reserve(N, k, 4, 0),
        ok = ?L:advance(N, 400),
        ?assertEqual({error, expired}, ?L:refund(Late)),
        ?assertEqual({error, expired}, ?L:refund(Late)),
        ?assertEqual({allow, 5}, ?L:peek(N, k))
    end).

refund_of_a_reset_key_test() ->
    with(#{limit => 10, period => 1000, burst => 5}, fun(N) ->
        {ok, 0, Token} = ?L:reserve(N, k, 4, 0),
        ok = ?L:reset(N, k),
        ?assertEqual({error, expired}, ?L:refund(Token)),
        ?assertEqual({allow, 5}, ?L:peek(N, k))
    end).

refund_after_delete_test() ->
    Options = #{limit => 10, period => 1000},
    {Token, Name} = with(Options, fun(N) ->
        {ok, 0, T} = ?L:reserve(N, k, 1, 0),
        {T, N}
    end),
    %% A new limiter of that name is another one.
    {ok, Pid} = ?L:start_link(Name, Options#{clock => manual}),
    {allow, 9} = ?L:hit(Name, k),
    ?assertEqual({error, expired}, ?L:refund(Token)),
    ?assertEqual({allow, 9}, ?L:peek(Name, k)),
    fdn_limiter:stop(Pid).

%% Of two processes with one token, at the same time, one refunds.
double_refund_test_() ->
    {timeout, 120, fun() ->
        Rounds = 5000,
        with(#{limit => 1000, period => 366 * 86400000, clock => precise, capacity => 100000}, fun(N) ->
            Tokens = list_to_tuple([element(3, {ok, 0, _} = ?L:reserve(N, Key, 1000, 0)) || Key <- lists:seq(1, Rounds)]),
            Counts = counters:new(Rounds, []),
            fdn_limiter:race(Rounds, 1, fun(_Me, Key) ->
                case ?L:refund(element(Key, Tokens)) of
                    ok -> counters:add(Counts, Key, 1);
                    {error, refunded} -> counters:add(Counts, Key, 1 bsl 16)
                end
            end),
            [?assertEqual({Key, 1 + (1 bsl 16)}, {Key, counters:get(Counts, Key)}) || Key <- lists:seq(1, Rounds)],
            [?assertEqual({allow, 1000}, ?L:peek(N, Key)) || Key <- lists:seq(1, Rounds)]
        end)
    end}.

%% The holder may die, and the token live on elsewhere; or nobody keeps it, and nothing happens.
token_outlives_its_process_test() ->
    with(#{limit => 10, period => 1000}, fun(N) ->
        Parent = self(),
        {Pid, Ref} = spawn_monitor(fun() ->
            {ok, 0, T} = ?L:reserve(N, k, 10, 0),
            {ok, 100, _} = ?L:reserve(N, k, 1, 1000),
            Parent ! {token, T}
        end),
        receive {'DOWN', Ref, process, Pid, normal} -> ok end,
        Token = receive {token, T} -> T end,
        ?assertEqual(Token, binary_to_term(term_to_binary(Token))),
        ?assertEqual(ok, ?L:refund(binary_to_term(term_to_binary(Token)))),
        ?assertEqual({allow, 9}, ?L:peek(N, k))
    end).

not_a_token_test() ->
    Other = atomics:new(1, []),
    Foreign = binary_to_term(<<131, 90, 0, 3, 100, 0, 3, "a@b", 0:32, 1:32, 2:32, 3:32>>),
    [
        ?assertError({badarg, {token, not_a_token}}, ?L:refund(Bad))
     || Bad <- [make_ref(), Other, Foreign, 0, token, self(), <<>>, [], {}, #{}, 1.0, 1 bsl 80, fun() -> ok end]
    ].

%% A token of another part's library is none of ours.
token_of_another_library_test() ->
    {ok, _} = application:ensure_all_started(foundation_native),
    Dir = fdn_test:tmp_dir(),
    {ok, Store} = foundation_snapshot:open(limiter_token_store, #{path => filename:join(Dir, "store")}),
    try
        {ok, Saved} = foundation_snapshot:save(Store, k, v),
        References = [R || R <- [Store | flatten(Saved)], is_reference(R)],
        [?assertError({badarg, {token, not_a_token}}, ?L:refund(R)) || R <- References],
        ?assertNotEqual([], References)
    after
        foundation_snapshot:close(Store),
        fdn_test:del_dir(Dir)
    end.

flatten(Term) when is_tuple(Term) -> lists:append([flatten(E) || E <- tuple_to_list(Term)]);
flatten(Term) -> [Term].

%% A token given out by the old code is refunded by the new one, and the limiter is the same.
refund_after_hot_upgrade_test_() ->
    {timeout, 120, fun() ->
        with(#{limit => 10, period => 1000}, fun(N) ->
            {?L, Beam, File} = code:get_object_code(?L),
            Tokens = [
                begin
                    {ok, 0, Token} = ?L:reserve(N, {k, I}, 10, 0),
                    {module, ?L} = code:load_binary(?L, File, Beam),
                    fdn_test:await(fun() -> code:soft_purge(?L) end),
                    {I, Token}
                end
             || I <- lists:seq(1, 5)
            ],
            [
                begin
                    ?assertEqual(ok, ?L:refund(Token)),
                    ?assertEqual({error, refunded}, ?L:refund(Token)),
                    ?assertEqual({allow, 10}, ?L:peek(N, {k, I}))
                end
             || {I, Token} <- Tokens
            ]
        end)
    end}.

reserve_bad_arguments_test() ->
    with(#{limit => 10, period => 1000, burst => 5}, fun(N) ->
        Numbers = [{out_of_range, -1}, {out_of_range, 1 bsl 80}, {out_of_range, -(1 bsl 80)} |
                   [{not_an_integer, X} || X <- [1.0, infinity, "1", <<"1">>, [], {1}, self(), #{}]]],
        [?assertError({badarg, {cost, Reason}}, ?L:reserve(N, k, Bad, 0)) || {Reason, Bad} <- Numbers],
        [?assertError({badarg, {max_wait, Reason}}, ?L:reserve(N, k, 1, Bad)) || {Reason, Bad} <- Numbers],
        [?assertError({badarg, {cost, exceeds_burst}}, ?L:reserve(N, k, C, 0)) || C <- [6, (1 bsl 64) - 1]],
        ?assertError({badarg, {limiter, unknown}}, ?L:reserve(no_such_limiter, k, 1, 0)),
        ?assertError({badarg, {limiter, deleted}}, ?L:reserve(12345, k, 1, 0)),
        ?assertError({badarg, {limiter, not_a_name_or_handle}}, ?L:reserve("n", k, 1, 0)),
        ?assertMatch({ok, 0, _}, ?L:reserve(N, k, 5, (1 bsl 64) - 1)),
        ?assertMatch({ok, 500, _}, ?L:reserve(?L:whereis(N), k, 5, (1 bsl 64) - 1))
    end),
    with(#{}, fun(N) -> ?assertError({badarg, {limit, no_preset_limit}}, ?L:reserve(N, k, 1, 0)) end),
    [
        with(#{algorithm => A, limit => 10, period => 1000}, fun(N) ->
            ?assertError({badarg, {limiter, not_gcra}}, ?L:reserve(N, k, 1, 0))
        end)
     || A <- [fixed_window, sliding_window]
    ].

%% Budget is reserved and given back while the limiter is deleted and made again: no call does anything but answer.
delete_during_reserve_test_() ->
    {timeout, 120, fun() ->
        Options = #{limit => 1000, period => 1000, capacity => 100},
        {Name, _} = fdn_limiter:start(Options),
        Stop = counters:new(1, []),
        Workers = [spawn_monitor(fun() -> reserver(Name, Stop) end) || _ <- lists:seq(1, 4)],
        [
            begin
                ok = ?L:delete(Name),
                {ok, _} = ?L:start_link(Name, Options)
            end
         || _ <- lists:seq(1, 30)
        ],
        counters:add(Stop, 1, 1),
        [receive {'DOWN', Ref, process, Pid, Why} -> ?assertEqual(normal, Why) end || {Pid, Ref} <- Workers],
        ok = ?L:delete(Name)
    end}.

reserver(Name, Stop) ->
    try ?L:reserve(Name, k, 1, 1 bsl 40) of
        {ok, _, Token} -> true = lists:member(?L:refund(Token), [ok, {error, expired}])
    catch
        error:{badarg, {limiter, unknown}} -> ok
    end,
    counters:get(Stop, 1) =:= 0 andalso reserver(Name, Stop).

reserve_large_keys_test() ->
    with(#{limit => 10, period => 1000}, fun(N) ->
        [
            begin
                {ok, 0, Token} = ?L:reserve(N, K, 10, 0),
                ?assertMatch({deny, 100}, ?L:hit(N, K)),
                ?assertEqual(ok, ?L:refund(Token)),
                ?assertEqual({allow, 10}, ?L:peek(N, K))
            end
         || K <- [binary:copy(<<"k">>, 1 bsl 20), lists:seq(1, 10000)]
        ]
    end).

%% ---- hit_all --------------------------------------------------------------------------------------------------------------------

all_or_nothing_test() ->
    with(#{limit => 5, period => 1000}, fun(Requests) ->
        with(#{algorithm => fixed_window, limit => 100, period => 60000}, fun(Tokens) ->
            with(#{algorithm => sliding_window, limit => 1000, period => 3600000}, fun(Bytes) ->
                All = [{Requests, u, 1}, {Tokens, u, 60}, {?L:whereis(Bytes), u, 500}],
                ?assertEqual({allow, [4, 40, 500]}, ?L:hit_all(All)),
                ?assertEqual({deny, 2, 60000}, ?L:hit_all(All)),
                Left = fun() -> [?L:peek(L, u) || L <- [Requests, Tokens, Bytes]] end,
                ?assertEqual([{allow, 4}, {allow, 40}, {allow, 500}], Left()),
                ?assertEqual({deny, 3, 3600000 div 1000}, shorten(?L:hit_all([{Requests, u, 4}, {Tokens, u, 40}, {Bytes, u, 501}]))),
                ?assertEqual([{allow, 4}, {allow, 40}, {allow, 500}], Left()),
                ?assertEqual({allow, [0, 0, 0]}, ?L:hit_all([{Requests, u, 4}, {Tokens, u, 40}, {Bytes, u, 500}])),
                ?assertMatch({deny, 1, _}, ?L:hit_all(All))
            end)
        end)
    end).

%% The exact wait of the sliding window is its own tests' matter.
shorten({deny, Index, Ms}) when Ms > 0, Ms =< 2 * 3600000 -> {deny, Index, 3600000 div 1000}.

empty_and_repeated_test() ->
    ?assertEqual({allow, []}, ?L:hit_all([])),
    [
        with(#{algorithm => A, limit => 5, period => 1000}, fun(N) ->
            ?assertEqual({allow, [3, 2, 2]}, ?L:hit_all([{N, k, 2}, {N, k, 1}, {N, k, 0}])),
            ?assertMatch({deny, 3, _}, ?L:hit_all([{N, k, 1}, {N, other, 1}, {N, k, 2}])),
            ?assertEqual([{allow, 2}, {allow, 5}], [?L:peek(N, k), ?L:peek(N, other)])
        end)
     || A <- algorithms()
    ].

%% Everything is looked at before anything is debited.
wrong_entries_test() ->
    with(#{limit => 5, period => 1000}, fun(N) ->
        with(#{}, fun(NoPreset) ->
            Good = {N, k, 1},
            Wrong = [
                {not_an_entry, X} || X <- [N, {N, k}, {N, k, 1, 1}, [N, k, 1], 1, <<>>, {}]
            ] ++ [
                {{limiter, unknown}, {no_such_limiter, k, 1}},
                {{limiter, deleted}, {12345, k, 1}},
                {{limiter, not_a_name_or_handle}, {"name", k, 1}},
                {{limit, no_preset_limit}, {NoPreset, k, 1}},
                {{cost, exceeds_burst}, {N, k, 6}},
                {{cost, out_of_range}, {N, k, -1}},
                {{cost, out_of_range}, {N, k, 1 bsl 80}},
                {{cost, not_an_integer}, {N, k, 1.0}},
                {{cost, not_an_integer}, {N, k, one}}
            ],
            [
                [
                    ?assertError({badarg, {{entry, I}, Reason}}, ?L:hit_all(place(I, Bad, lists:duplicate(Length, Good))))
                 || {I, Length} <- [{1, 0}, {1, 3}, {3, 2}, {64, 63}, {100, 150}]
                ]
             || {Reason, Bad} <- Wrong
            ],
            [
                ?assertError({badarg, {entries, not_a_proper_list}}, ?L:hit_all(Bad))
             || Bad <- [entries, {N, k, 1}, [Good | Good], lists:duplicate(63, Good) ++ Good, lists:duplicate(200, Good) ++ tail, 1]
            ],
            ?assertMatch(#{live := 0, allowed := 0, denied := 0}, ?L:info(N))
        end)
    end).

place(I, Bad, Good) ->
    {Before, After} = lists:split(I - 1, Good),
    Before ++ [Bad | After].

%% Long lists and large keys are hit on a dirty scheduler, with the same results.
long_lists_test() ->
    with(#{limit => 5, period => 1000, capacity => 10000}, fun(N) ->
        Keys = lists:seq(1, 5000),
        ?assertEqual({allow, lists:duplicate(5000, 3)}, ?L:hit_all([{N, K, 2} || K <- Keys])),
        {allow, 0} = ?L:hit(N, 4999, 3),
        ?assertEqual({deny, 4999, 200}, ?L:hit_all([{N, K, 1} || K <- Keys])),
        ?assertEqual({allow, 3}, ?L:peek(N, 1)),
        Large = [binary:copy(<<"k">>, 30000), lists:seq(1, 100), binary:copy(<<"l">>, 30000), lists:seq(1, 10000)],
        ?assertEqual({allow, [4, 4, 4, 4]}, ?L:hit_all([{N, K, 1} || K <- Large])),
        {allow, 0} = ?L:hit(N, lists:last(Large), 4),
        ?assertEqual({deny, 4, 200}, ?L:hit_all([{N, K, 1} || K <- Large])),
        [?assertEqual({allow, 4}, ?L:peek(N, K)) || K <- lists:droplast(Large)]
    end).

%% Short lists of small keys stay where they are.
scheduler_test() ->
    with(#{limit => 5, period => 1000}, fun(N) ->
        Went = fun(Keys) ->
            {Dirty, {allow, Left}} = fdn_limiter:on_dirty_scheduler(fun() -> ?L:hit_all([{N, K, 1} || K <- Keys]) end),
            ?assertEqual(length(Keys), length(Left)),
            Dirty
        end,
        ?assertEqual(false, Went(lists:seq(1, 64))),
        ?assertEqual(true, Went(lists:seq(1, 65))),
        ?assertEqual(false, Went([<<I:8000>> || I <- lists:seq(1, 32)])),
        ?assertEqual(true, Went([<<I:8000>> || I <- lists:seq(1, 33)])),
        ?assertEqual(true, Went([a, lists:seq(1, 10000)]))
    end).

%% Long lists of large keys use up their caller's time slice.
charged_test() ->
    with(#{limit => 5, period => 1000}, fun(N) ->
        Entries = [{N, list_to_tuple([I | lists:seq(1, 250)]), 1} || I <- lists:seq(1, 64)],
        {reductions, Before} = process_info(self(), reductions),
        {allow, _} = ?L:hit_all(Entries),
        {reductions, After} = process_info(self(), reductions),
        %% One percent of a slice is 40; these take a third of one.
        ?assert(After - Before >= 40)
    end).

%% Denials are told once, with the entry's key, and only what was denied.
denials_are_told_test() ->
    fdn_test:with_telemetry(fun() ->
        with(#{limit => 5, period => 1000, telemetry => true}, fun(N) ->
            {allow, [0]} = ?L:hit_all([{N, a, 5}]),
            {deny, 2, 400} = ?L:hit_all([{N, b, 1}, {N, a, 2}]),
            Told = fun(Ms, Metadata) ->
                Expected = {telemetry, self(), [foundation_native, limiter, deny], #{count => 1, retry_after => Ms}, Metadata},
                receive {telemetry, _, _, _, _} = Message -> ?assertEqual(Expected, Message) after 0 -> error(not_told) end
            end,
            Told(400, #{limiter => N, key => a, limit => preset, cost => 2}),
            {deny, 400} = ?L:reserve(N, a, 2, 0),
            Told(400, #{limiter => N, key => a, limit => preset, cost => 2}),
            {deny, 2, 200} = ?L:hit_all([{N, b, 1}, {N, a, 0}]),
            {deny, 200} = ?L:reserve(N, a, 0, 0),
            receive {telemetry, _, _, _, _} = Message -> error({told, Message}) after 0 -> ok end
        end)
    end).

%% Budgets that are not here cannot be given back exactly.
not_local_test() ->
    with(#{limit => 5, period => 1000}, fun(N) ->
        Far = fdn_limiter:name(),
        Options = {gcra, 2, 1000, undefined, 10, evict, manual, cluster, false, undefined},
        {ok, _, created} = ?L:attach_nif(Far, Options, self()),
        ?assertError({badarg, {{entry, 2}, {limiter, not_local}}}, ?L:hit_all([{N, k, 1}, {Far, k, 1}])),
        ?assertError({badarg, {limiter, not_local}}, ?L:reserve(Far, k, 1, 0)),
        ?assertEqual({allow, 5}, ?L:peek(N, k)),
        {ok, _} = ?L:remove_nif(Far, false)
    end).

%% Processes take pairs of keys in opposite orders; what is admitted of each is within its limit, and in the end what the answers say.
never_over_admits_test_() ->
    {timeout, 120, fun() -> [never_over_admits(A) || A <- algorithms()] end}.

never_over_admits(Algorithm) ->
    Limit = 7,
    with(#{algorithm => Algorithm, limit => Limit, period => 366 * 86400000, clock => precise, capacity => 100000}, fun(N) ->
        Rounds = 3000,
        Admitted = counters:new(2 * Rounds, []),
        Body = fun(Me) ->
            [
                begin
                    Pair = [2 * R - 1, 2 * R],
                    Order = case Me of 1 -> Pair; _ -> lists:reverse(Pair) end,
                    case ?L:hit_all([{N, K, 1} || K <- Order]) of
                        {allow, [_, _]} -> [counters:add(Admitted, K, 1) || K <- Pair];
                        {deny, _, _} -> denied
                    end
                end
             || R <- lists:seq(1, Rounds), _ <- lists:seq(1, Limit)
            ]
        end,
        Pids = [spawn_monitor(fun() -> Body(Me) end) || Me <- [1, 2]],
        [receive {'DOWN', Ref, process, Pid, Why} -> ?assertEqual(normal, Why) end || {Pid, Ref} <- Pids],
        [
            begin
                Count = counters:get(Admitted, K),
                ?assert(Count =< Limit),
                %% All that was given back is there.
                Rest = case ?L:peek(N, K) of {allow, Left} -> Left; {deny, _} -> 0 end,
                ?assertEqual({K, Limit - Count}, {K, Rest})
            end
         || K <- lists:seq(1, 2 * Rounds)
        ]
    end).

%% A limiter is deleted and made again while lists go through it: each call has an answer or names the entry, and a limiter that stays
%% has lost nothing by the calls that failed.
delete_during_hit_all_test_() ->
    {timeout, 120, fun() ->
        Most = 16777214,
        Options = #{algorithm => fixed_window, limit => Most, period => 366 * 86400000, capacity => 1000},
        {Stays, StaysPid} = fdn_limiter:start(Options),
        {Goes, _} = fdn_limiter:start(Options),
        Stop = counters:new(1, []),
        Workers = [spawn_monitor(fun() -> pairs(Stays, Goes, Stop, 0) end) || _ <- lists:seq(1, 4)],
        [
            begin
                ok = ?L:delete(Goes),
                {ok, _} = ?L:start_link(Goes, Options)
            end
         || _ <- lists:seq(1, 30)
        ],
        counters:add(Stop, 1, 1),
        Taken = lists:sum([receive {'DOWN', Ref, process, Pid, {taken, Count}} -> Count end || {Pid, Ref} <- Workers]),
        ?assertEqual({allow, Most - Taken}, ?L:peek(Stays, k)),
        ok = ?L:delete(Goes),
        fdn_limiter:stop(StaysPid)
    end}.

pairs(Stays, Goes, Stop, Taken) ->
    case counters:get(Stop, 1) of
        0 ->
            try ?L:hit_all([{Stays, k, 1}, {Goes, k, 1}, {?L:whereis(Goes), k, 1}]) of
                {allow, _} -> pairs(Stays, Goes, Stop, Taken + 1)
            catch
                error:{badarg, {{entry, I}, {limiter, Gone}}} when
                    I =:= 2, Gone =:= unknown; I > 1, Gone =:= deleted; I =:= 3, Gone =:= unknown
                ->
                    pairs(Stays, Goes, Stop, Taken)
            end;
        _ ->
            exit({taken, Taken})
    end.
