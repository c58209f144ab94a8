%% Keys of a limiter: terms of every type and size.
-module(foundation_limiter_key_tests).

-export([leave_nothing/1]).

-include_lib("eunit/include/eunit.hrl").

-import(fdn_limiter, [algorithms/0, with/2, on_dirty_scheduler/1, resident/0]).

-define(L, foundation_limiter).

%% Keys that are =:= share one budget, built in different ways; all others have their own.
keys_test() ->
    Big = maps:from_list([{I, I} || I <- lists:seq(1, 100)]),
    BigAgain = maps:from_list([{I, I} || I <- lists:reverse(lists:seq(1, 100))]),
    Bin = binary:copy(<<"x">>, 1000000),
    <<_:1, Unaligned:1000/binary, _/bitstring>> = <<0:1, (binary:copy(<<"y">>, 1000))/binary, 0:7>>,
    Deep = deep(200000),
    Fun = fun() -> Bin end,
    Ref = make_ref(),
    Same = [
        {a, list_to_atom("a")},
        {1 bsl 100, binary_to_term(term_to_binary(1 bsl 100))},
        {<<"abc">>, binary:part(<<"xabcx">>, 1, 3)},
        {binary:copy(<<"y">>, 1000), Unaligned},
        {<<5:3>>, bitstring_part(<<2:2, 5:3, 7:9>>)},
        {Bin, binary:copy(<<"x">>, 1000000)},
        {{user, 1, "name", <<"b">>}, list_to_tuple([user, 1, [$n | "ame"], <<"b">>])},
        {#{a => 1, b => 2}, maps:put(a, 1, #{b => 2})},
        {Big, BigAgain},
        {{x, Big}, {x, BigAgain}},
        {[Big | Big], [BigAgain | BigAgain]},
        {lists:seq(1, 5000), lists:reverse(lists:seq(5000, 1, -1))},
        {Deep, deep(200000)},
        {self(), list_to_pid(pid_to_list(self()))},
        {Ref, binary_to_term(term_to_binary(Ref))},
        {Fun, binary_to_term(term_to_binary(Fun))},
        {fun erlang:self/0, binary_to_term(term_to_binary(fun erlang:self/0))},
        {18446744073709551615, 18446744073709551616 - 1},
        {-9223372036854775808, -(1 bsl 63)},
        {1.5, 3 / 2}
    ],
    with(#{limit => 2, period => 1000}, fun(N) ->
        [
            begin
                ?assert(A =:= B),
                ?assertEqual({allow, 1}, ?L:hit(N, A)),
                ?assertEqual({allow, 0}, ?L:hit(N, B))
            end
         || {A, B} <- Same
        ]
    end).

bitstring_part(<<_:2, Part:3/bitstring, _/bitstring>>) -> Part.

deep(N) -> lists:foldl(fun(_, Inner) -> [{Inner}] end, [], lists:seq(1, N)).

different_keys_test() ->
    Numbers = [1, 1.0, 0, -1, 255, 256, 257, 65536, 1 bsl 62, 1 bsl 63, 1 bsl 64, 1 bsl 200, -(1 bsl 63), -(1 bsl 64), 0.5],
    Words = [<<"1">>, "1", '1', [], {}, <<>>, <<1:1>>, <<1>>, [<<1>>], a, b, "a", ab, <<"ab">>, true, false, undefined],
    Nested = [
        {1}, [1], [[1]], [1 | 1], {1, []}, {[1]}, {a, b}, {ab}, {{a}, b}, {{a, b}}, {a, {b}}, [a, b], [a | b], [[a], b], [[a, b]],
        [a, [b]], [<<"a">>, <<"b">>], [<<"ab">>, <<>>], {<<"a">>, <<"b">>}, {<<"ab">>, <<>>}
    ],
    Maps = [#{}, #{1 => 1}, #{1 => 1.0}, #{1.0 => 1}, #{a => b}, #{b => a}, #{a => #{b => c}}, #{{a, b} => c}, [#{a => b}]],
    Local = [self(), make_ref(), make_ref(), fun() -> 1 end, fun() -> 2 end, fun erlang:self/0, fun erlang:node/0 | erlang:ports()],
    Keys = Numbers ++ Words ++ Nested ++ Maps ++ Local,
    with(#{limit => 2, period => 1000}, fun(N) ->
        [?assertEqual({K, {allow, 1}}, {K, ?L:hit(N, K)}) || K <- Keys],
        ?assertEqual(length(Keys), maps:get(live, ?L:info(N)))
    end).

%% -0.0 is 0.0 up to OTP 26, and another term since OTP 27.
zeroes_test() ->
    Zero = list_to_float("0.0"),
    Minus = list_to_float("-0.0"),
    Second = case Zero =:= Minus of true -> {allow, 0}; false -> {allow, 1} end,
    [
        with(#{limit => 2, period => 1000}, fun(N) ->
            ?assertEqual({allow, 1}, ?L:hit(N, Wrap(Zero))),
            ?assertEqual(Second, ?L:hit(N, Wrap(Minus)))
        end)
     || Wrap <- [fun(F) -> F end, fun(F) -> [F, {F}] end, fun(F) -> #{1 => F} end]
    ].

%% One fun made by two processes is one key, though its external form names the process.
fun_of_another_process_test() ->
    Make = fun() -> counted(7) end,
    Here = Make(),
    Parent = self(),
    Pid = spawn_link(fun() -> Parent ! {self(), Make()} end),
    There = receive {Pid, Fun} -> Fun end,
    ?assert(Here =:= There),
    with(#{limit => 2, period => 1000}, fun(N) ->
        ?assertEqual({allow, 1}, ?L:hit(N, Here)),
        ?assertEqual({allow, 0}, ?L:hit(N, There))
    end).

counted(N) -> fun() -> N end.

%% ---- large keys -----------------------------------------------------------------------------------------------------------------

%% Beyond what a normal scheduler should do in one call.
large() ->
    Big = maps:from_list([{I, I} || I <- lists:seq(1, 1000)]),
    Bytes = binary:copy(<<"k">>, 1 bsl 20),
    [
        {binary, Bytes},
        {binary_inside, {user, Bytes}},
        {bitstring, <<1:1, (binary:copy(<<"k">>, 1 bsl 16))/binary>>},
        {many_bytes, [Bytes, Bytes]},
        {list, lists:seq(1, 10000)},
        {text, lists:duplicate(10000, $x)},
        {improper, lists:seq(1, 10000) ++ end_of_it},
        {tuple, list_to_tuple(lists:seq(1, 10000))},
        {deep, deep(100000)},
        {deep_map, lists:foldl(fun(_, Inner) -> #{k => Inner} end, #{}, lists:seq(1, 100000))},
        {deep_map_key, lists:foldl(fun(_, Inner) -> #{Inner => v} end, #{}, lists:seq(1, 1000))},
        {map, Big},
        {maps, [Big, #{Big => Big}]},
        {bignum, 1 bsl 1000000},
        {'fun', fun() -> {Big, Bytes} end},
        {fun_inside, [fun() -> {Big, Bytes} end]},
        {everything, {Bytes, Big, deep(1000), 1 bsl 5000, <<5:3>>, self(), make_ref(), fun lists:map/2, 1.5, [a | b]}}
    ].

small() ->
    [
        a, 1, -1, 1.5, 0.0, -0.0, 1 bsl 60, <<>>, <<"key">>, binary:copy(<<"k">>, 32768), "key", {}, [], #{}, {user, 1}, [a | b],
        self(), make_ref(), [make_ref(), self() | erlang:ports()], #{a => 1, b => {2, [3]}}, lists:seq(1, 100), {{{{{{a}}}}}}
    ].

%% Every call that takes a key.
calls(N, K) ->
    [
        {'hit/2', fun() -> ?L:hit(N, K) end},
        {'hit/3', fun() -> ?L:hit(N, K, 2) end},
        {'hit/4', fun() -> ?L:hit(N, K, 1000, 10) end},
        {'hit/5', fun() -> ?L:hit(N, K, 1000, 10, 2) end},
        {'peek/2', fun() -> ?L:peek(N, K) end},
        {'peek/4', fun() -> ?L:peek(N, K, 1000, 10) end},
        {'reset/2', fun() -> ?L:reset(N, K) end},
        {'reset/3', fun() -> ?L:reset(N, K, 1000) end},
        {'reserve/4', fun() -> ?L:reserve(N, K, 1, 0) end},
        {'hit_all/1', fun() -> ?L:hit_all([{N, a, 1}, {N, K, 1}]) end},
        {'get/2', fun() -> ?L:get(N, K) end},
        {'inc/3', fun() -> ?L:inc(N, K, 1) end},
        {'set/4', fun() -> ?L:set(N, K, 1000, 1) end}
    ].

%% A large key moves the call to a dirty scheduler; a small one does not pay for that.
schedulers_test_() ->
    {timeout, 120, fun() ->
        with(#{limit => 10, period => 1000}, fun(N) ->
            [
                ?assertMatch({Kind, Call, {true, _}}, {Kind, Call, on_dirty_scheduler(Fun)})
             || {Kind, K} <- large(), {Call, Fun} <- calls(N, K)
            ],
            [
                ?assertMatch({K, Call, {false, _}}, {K, Call, on_dirty_scheduler(Fun)})
             || K <- small(), {Call, Fun} <- calls(N, K)
            ]
        end)
    end}.

%% Every call hashes its key alike, whichever scheduler it ends on.
large_keys_test() ->
    [
        with(#{algorithm => A, limit => 10, period => 1000}, fun(N) ->
            [
                begin
                    ?assertEqual({allow, 9}, ?L:hit(N, K)),
                    ?assertEqual({allow, 7}, ?L:hit(N, K, 2)),
                    ?assertEqual({allow, 6}, ?L:hit(N, K, 1000, 10)),
                    ?assertEqual({allow, 4}, ?L:hit(N, K, 1000, 10, 2)),
                    ?assertEqual({allow, 4}, ?L:peek(N, K)),
                    ?assertEqual({allow, 4}, ?L:peek(N, K, 1000, 10)),
                    ?assertEqual({allow, [4, 2]}, ?L:hit_all([{N, K, 0}, {N, K, 2}])),
                    ?assertEqual(8, ?L:get(N, K)),
                    ?assertEqual(9, ?L:inc(N, K, 1)),
                    ok = ?L:reset(N, K),
                    ?assertEqual({allow, 10}, ?L:peek(N, K)),
                    ?assertEqual(4, ?L:set(N, K, 1000, 4)),
                    ?assertEqual({allow, 5}, ?L:hit(N, K)),
                    ok = ?L:reset(N, K, 1000),
                    ?assertEqual({allow, 10}, ?L:peek(N, K)),
                    ?assertMatch(#{live := 0}, ?L:info(N))
                end
             || {Kind, K} <- large(), A =:= gcra orelse Kind =:= everything
            ]
        end)
     || A <- algorithms()
    ].

large_key_refunded_test() ->
    with(#{limit => 10, period => 1000}, fun(N) ->
        [
            begin
                {ok, 0, Token} = ?L:reserve(N, K, 10, 0),
                ?assertEqual({deny, 100}, ?L:hit(N, K)),
                ?assertEqual(ok, ?L:refund(Token)),
                ?assertEqual({allow, 10}, ?L:peek(N, K))
            end
         || {_, K} <- large()
        ]
    end).

large_key_and_bad_argument_test() ->
    with(#{limit => 10, period => 1000}, fun(N) ->
        [
            begin
                ?assertError({badarg, {cost, exceeds_burst}}, ?L:hit(N, K, 11)),
                ?assertError({badarg, {limiter, unknown}}, ?L:hit(no_such_limiter, K))
            end
         || {_, K} <- large()
        ],
        ?assertMatch(#{live := 0, allowed := 0, denied := 0}, ?L:info(N))
    end).

%% What the walk over a key allocates is given back: stacks, buffers, iterators of maps, copies.
nothing_left_behind_test_() ->
    {timeout, 120, fun() ->
        {Peer, _} = fdn_test:peer(),
        try
            %% Where the calls with one of the keys left 1 KB each, this would be 10 MB.
            Grown = peer:call(Peer, ?MODULE, leave_nothing, [10000], 100000),
            ?assertEqual({Grown, true}, {Grown, Grown < 8000000 orelse os:getenv("LD_PRELOAD") =/= false})
        after
            fdn_test:stop_peer(Peer)
        end
    end}.

leave_nothing(Times) ->
    Keys = [
        deep(50), lists:seq(1, 300), maps:from_list([{I, [I]} || I <- lists:seq(1, 150)]), [#{#{a => [#{}]} => deep(9)} | 1 bsl 500],
        {<<1:1, 0:20000>>, fun lists:map/2}
    ],
    with(#{limit => 1000000, period => 1000, clock => precise}, fun(N) ->
        _ = [?L:hit(N, K) || _ <- lists:seq(1, Times div 10), K <- Keys],
        Before = resident(),
        _ = [?L:hit(N, K) || _ <- lists:seq(1, Times), K <- Keys],
        resident() - Before
    end).
