%% A flood of keys: memory that does not grow, and the budgets of busy keys, exact.
-module(foundation_limiter_flood_tests).

-export([flood/4]).

-include_lib("eunit/include/eunit.hrl").

-import(fdn_limiter, [at_once/1, resident/0]).

-define(L, foundation_limiter).
-define(YEAR, 366 * 86400000).
-define(CAPACITY, 100000).
-define(LIMIT, 1000).

%% In a VM of its own, whose memory is nobody else's business. Ten million keys once; then each algorithm and each way of being full.
flood_test_() ->
    [
        {timeout, 300, {lists:flatten(io_lib:format("~w ~w ~w", [Keys, A, OnFull])), fun() -> check(Keys, A, OnFull) end}}
     || {Keys, A, OnFull} <-
            [{10000000, gcra, evict}] ++
                [{1000000, A, evict} || A <- fdn_limiter:algorithms(), A =/= gcra] ++
                [{1000000, sliding_window, deny}, {1000000, fixed_window, allow}]
    ].

check(Keys, Algorithm, OnFull) ->
    {Peer, _} = fdn_test:peer(),
    try
        #{busy := Busy, late := Late, admitted := Admitted, before := Before, full := Full, rss := Rss} =
            peer:call(Peer, ?MODULE, flood, [Keys, Algorithm, OnFull, 4], 240000),
        %% The key that was busy before, and the one that became busy in the flood and had to find a slot.
        ?assertEqual(?LIMIT, Busy),
        OnFull =:= evict andalso ?assertEqual(?LIMIT, Late),
        case OnFull of
            deny -> ?assert(Admitted < Keys div 4);
            _ -> ?assertEqual(Keys, Admitted)
        end,
        %% Not a byte more than before; the counters of a thread that had made no call yet are 64.
        #{bytes := Bytes, slots := Slots} = Before,
        ?assert(maps:get(bytes, Full) - Bytes =< 64 * 64),
        ?assertMatch(#{slots := Slots}, Full),
        ?assert(Bytes < 40 * ?CAPACITY),
        ?assert(maps:get(live, Full) =< Slots),
        Slotless = Keys - 2 * Slots,
        ?assert(maps:get(full, Full) > Slotless),
        OnFull =:= evict andalso ?assert(maps:get(evicted, Full) > Slotless),
        %% The process grew by less than the table, which holds its keys; eight bytes for each would be twenty times that.
        ?assertEqual({Rss, true}, {Rss, Rss =< Bytes orelse os:getenv("LD_PRELOAD") =/= false})
    after
        fdn_test:stop_peer(Peer)
    end.

%% What the processes of a VM admit to busy keys and to a flood, and what it costs the VM.
flood(Keys, Algorithm, OnFull, Processes) ->
    {ok, _} = ?L:start_link(flooded, #{
        algorithm => Algorithm, limit => ?LIMIT, period => ?YEAR, capacity => ?CAPACITY, on_full => OnFull
    }),
    Early = [hit(busy) || _ <- lists:seq(1, 10)],
    Share = Keys div Processes,
    %% Each slot is used once, and what the VM needs for such processes it has got.
    _ = at_once([fun() -> run(-N * Share, 1 - N * Share - ?CAPACITY div 2, 0, 0, 0) end || N <- lists:seq(1, Processes)]),
    Before = ?L:info(flooded),
    Resident = resident(),
    Sums = at_once([fun() -> run(N * Share, (N - 1) * Share, 0, 0, 0) end || N <- lists:seq(1, Processes)]),
    Full = ?L:info(flooded),
    Rss = resident() - Resident,
    #{
        busy => lists:sum(Early) + lists:sum([Busy || {Busy, _, _} <- Sums]),
        late => lists:sum([Late || {_, Late, _} <- Sums]),
        admitted => lists:sum([Admitted || {_, _, Admitted} <- Sums]),
        before => Before,
        full => Full,
        rss => Rss
    }.

run(Key, Key, Busy, Late, Admitted) ->
    {Busy, Late, Admitted};
run(Key, End, Busy, Late, Admitted) when Key > 0, Key rem 500 =:= 0 ->
    run(Key - 1, End, Busy + hit(busy), Late + hit(late), Admitted + hit(Key));
run(Key, End, Busy, Late, Admitted) ->
    run(Key - 1, End, Busy, Late, Admitted + hit(Key)).

hit(Key) ->
    case ?L:hit(flooded, Key) of
        {allow, _} -> 1;
        {deny, _} -> 0
    end.
