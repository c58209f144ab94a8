%% The golden files of persisted limiters (test/golden), the keys whose budgets are in them, and how such a file is read.
%%
%% They were made once, by the first version that had the format, and are never made again: a version that cannot read them breaks the
%% promise of doc/FORMAT.md. make/1 writes such a file for a format to come.
-module(fdn_golden).

-export([algorithms/0, file/1, options/1, keys/0, cost/1, make/1, prints/1, print_of/2, hash_of/2, secret/1]).

-define(L, foundation_limiter).
-define(PERIOD, 86400000).
-define(HEADER, 4096).

algorithms() -> [gcra, fixed_window, sliding_window].

file(Algorithm) ->
    filename:join([fdn_test:root_dir(), "test", "golden", "limiter-" ++ atom_to_list(Algorithm) ++ "-1.fdn"]).

options(Algorithm) ->
    #{algorithm => Algorithm, limit => 1000, period => ?PERIOD, capacity => 60, clock => manual, on_full => deny}.

%% Keys of every kind that means the same to all VMs.
keys() ->
    Large = maps:from_list([{K, V} || {K, V} <- lists:zip(lists:seq(1, 40), lists:seq(41, 80))]),
    [
        a, 'user', '', 'with space', true, undefined, [], list_to_atom([16#e9, 16#ff]),
        list_to_atom([16#65e5, 16#672c]), list_to_atom([$x, 16#1f600]), list_to_atom(lists:duplicate(255, $z)),
        list_to_atom(lists:duplicate(255, 16#65e5)),
        0, 1, 255, 256, -1, 1 bsl 31, 1 bsl 59, (1 bsl 63) - 1, -(1 bsl 63), 1 bsl 63, (1 bsl 64) - 1, 1 bsl 64, -(1 bsl 64), 1 bsl 300,
        0.0, 1.5, -2.5e-300,
        <<>>, <<"user:1">>, binary:copy(<<"0123456789">>, 200), <<5:3>>, <<"abc", 1:1>>,
        {}, {user, 42}, {user, <<"name">>, [admin, list_to_atom([$r, 16#f4, $l, $e])]}, {{1, 2}, {3}}, "text", [a | b], [[], [[]]],
        lists:seq(1, 1000),
        #{}, #{a => 1, <<"b">> => 2.0}, #{user => #{id => 7, role => admin}}, Large, #{Large => Large}, [#{a => b}, {c, #{1 => 2}}]
    ].

%% What was consumed of the key at this place of keys(), of 1000.
cost(Place) -> 3 * Place.

%% Write a golden file; the answer is the hash of each key.
make(Algorithm) ->
    ok = filelib:ensure_dir(file(Algorithm)),
    {ok, Pid} = ?L:start_link(golden, (options(Algorithm))#{persist => file(Algorithm)}),
    unlink(Pid),
    ok = ?L:advance(golden, 5000000),
    [{allow, _} = ?L:hit(golden, Key, cost(Place)) || {Place, Key} <- lists:zip(lists:seq(1, length(keys())), keys())],
    ok = gen_server:stop(Pid, shutdown, infinity),
    [hash_of(Key, secret(file(Algorithm))) || Key <- keys()].

%% The slots in use, as {Bucket, Fingerprint}.
prints(File) ->
    {ok, <<_:?HEADER/binary, Buckets/binary>>} = file:read_file(File),
    lists:sort([
        {Place, Print}
     || {Place, <<P1:64/little, P2:64/little, P3:64/little, P4:64/little, _:32/binary>>} <-
            lists:zip(lists:seq(0, byte_size(Buckets) div 64 - 1), [B || <<B:64/binary>> <= Buckets]),
        Print <- [P1, P2, P3, P4],
        Print =/= 0
    ]).

%% The fingerprint of a key's hash under a period, and the other way round.
print_of(Hash, Period) ->
    Hash bxor ((Period * 16#9e3779b97f4a7c15) band 16#ffffffffffffffff).

%% ---- from a key to its hash, as doc/FORMAT.md has it, and without the library -----------------------------------------------------

%% The keys of the two hashes.
secret(File) ->
    {ok, <<_:72/binary, Binaries:16/binary, Terms:16/binary, _/binary>>} = file:read_file(File),
    {Binaries, Terms}.

hash_of(Key, {Binaries, _}) when is_binary(Key) -> siphash(Key, Binaries);
hash_of(Key, {_, Terms}) -> siphash(iolist_to_binary(bytes(Key, Terms)), Terms).

bytes(T, _) when is_atom(T) -> sized($A, atom_to_binary(T, utf8));
bytes(T, _) when is_integer(T), T >= 0, T =< 255 -> <<$c, T>>;
bytes(T, _) when is_integer(T), T >= -(1 bsl 63), T < 1 bsl 63 -> <<$i, T:64/little>>;
bytes(T, _) when is_integer(T), T >= 0, T < 1 bsl 64 -> <<$u, T:64/little>>;
bytes(T, _) when is_float(T), T == 0 -> <<$f, 0:64>>;
bytes(T, _) when is_float(T) -> <<$f, T:64/little-float>>;
bytes(T, _) when is_binary(T) -> sized($b, T);
bytes(T, _) when is_integer(T); is_bitstring(T) -> sized($x, term_to_binary(T));
bytes(T, Terms) when is_tuple(T) -> [<<$t, (tuple_size(T)):64/little>> | [bytes(E, Terms) || E <- tuple_to_list(T)]];
bytes([], _) -> <<$n>>;
bytes(T, Terms) when is_list(T) -> [$l | elements(T, Terms)];
bytes(T, Terms) when is_map(T) ->
    Pairs = [siphash(iolist_to_binary([$:, bytes(K, Terms), bytes(V, Terms)]), Terms) || {K, V} <- maps:to_list(T)],
    <<$m, (map_size(T)):64/little, $:, (lists:sum(Pairs)):64/little>>.

sized(Tag, Bytes) -> [<<Tag, (byte_size(Bytes)):64/little>>, Bytes].

elements([E | Rest], Terms) -> [bytes(E, Terms) | elements(Rest, Terms)];
elements(Rest, Terms) -> [$], bytes(Rest, Terms)].

%% SipHash-2-4 (Aumasson, Bernstein 2012).
siphash(Bytes, <<K0:64/little, K1:64/little>>) ->
    Pad = 7 - byte_size(Bytes) rem 8,
    Padded = <<Bytes/binary, 0:Pad/unit:8, (byte_size(Bytes))>>,
    Start = {K0 bxor 16#736f6d6570736575, K1 bxor 16#646f72616e646f6d, K0 bxor 16#6c7967656e657261, K1 bxor 16#7465646279746573},
    {A, B, C, D} = lists:foldl(
        fun(Word, {V0, V1, V2, V3}) ->
            {W0, W1, W2, W3} = rounds(2, {V0, V1, V2, V3 bxor Word}),
            {W0 bxor Word, W1, W2, W3}
        end,
        Start,
        [Word || <<Word:64/little>> <= Padded]
    ),
    {E, F, G, H} = rounds(4, {A, B, C bxor 16#ff, D}),
    E bxor F bxor G bxor H.

rounds(0, V) ->
    V;
rounds(N, {V0, V1, V2, V3}) ->
    A0 = add(V0, V1),
    A1 = rotate(V1, 13) bxor A0,
    A2 = add(V2, V3),
    A3 = rotate(V3, 16) bxor A2,
    B0 = add(rotate(A0, 32), A3),
    B3 = rotate(A3, 21) bxor B0,
    B2 = add(A2, A1),
    B1 = rotate(A1, 17) bxor B2,
    rounds(N - 1, {B0, B1, rotate(B2, 32), B3}).

add(A, B) -> (A + B) band 16#ffffffffffffffff.

rotate(V, By) -> ((V bsl By) bor (V bsr (64 - By))) band 16#ffffffffffffffff.
