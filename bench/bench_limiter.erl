%% The limiter against the field's usual fixed window over ETS, and against the least that a NIF of its kind can cost.
-module(bench_limiter).

-export([rows/1]).

-include("bench.hrl").

-define(KEY, <<"user:12345678">>).
-define(PERIOD, 60000).
%% Out of reach within one measurement; every measurement begins with a full budget.
-define(LIMIT, 16000000).
-define(KEYS, 100000).

-spec rows(file:filename_all()) -> {[bench:row()], fun(() -> term())}.
rows(_Dir) ->
    Preset = #{limit => ?LIMIT, period => ?PERIOD, capacity => 1000},
    {ok, _} = foundation_limiter:start_link(bench_gcra, Preset#{algorithm => gcra}),
    {ok, _} = foundation_limiter:start_link(bench_window, Preset#{algorithm => fixed_window}),
    {ok, _} = foundation_limiter:start_link(bench_full, #{algorithm => gcra, limit => 1, period => 3600000, capacity => 1000}),
    {allow, 0} = foundation_limiter:hit(bench_full, ?KEY),
    Table = ets:new(bench_windows, [public, {read_concurrency, true}, {write_concurrency, true}, {decentralized_counters, true}]),
    Before = fun() ->
        ok = foundation_limiter:reset(bench_gcra, ?KEY),
        ok = foundation_limiter:reset(bench_window, ?KEY),
        ets:delete_all_objects(Table)
    end,
    Hits = fun(Limiter) -> fun(N) -> hits(N, {Limiter, ?KEY}) end end,
    Windows = fun(N) -> windows(N, {Table, ?KEY}) end,
    Row = #{before => Before, against => "ets:update_counter window"},
    Bytes = sizes(Table),
    Rows = [
        Row#{what => "hot key, fixed_window", goal => {faster, 9}, subject => {loop, Hits(bench_window)}, baseline => {loop, Windows}},
        Row#{what => "hot key, gcra", goal => {faster, 9}, subject => {loop, Hits(bench_gcra)}, baseline => {loop, Windows}},
        Row#{
            what => "hot key, 2 processes",
            goal => {faster, 8},
            subject => {loop, 2, Hits(bench_window)},
            baseline => {loop, 2, Windows}
        },
        Row#{
            what => "hit with period and limit",
            against => "NIF: arguments, hash, clock, CAS",
            goal => {at_most, 1.25},
            subject => {loop, fun(N) -> full(N, {bench_gcra, ?KEY}) end},
            baseline => {loop, fun(N) -> least(N, ?KEY) end}
        },
        Row#{
            what => "denied hot key, 2 processes",
            against => "the same, 1 process",
            goal => {at_most, 1.25},
            subject => {loop, 2, Hits(bench_full)},
            baseline => {loop, Hits(bench_full)}
        },
        Bytes#{what => "bytes a live key", against => "row of the ETS window", goal => {at_most, 0.334}}
    ],
    {Rows, fun() -> [ok = foundation_limiter:delete(L) || L <- [bench_gcra, bench_window, bench_full]] end}.

?LOOP(hits, {Limiter, Key}, foundation_limiter:hit(Limiter, Key)).
?LOOP(full, {Limiter, Key}, foundation_limiter:hit(Limiter, Key, ?PERIOD, ?LIMIT)).
?LOOP(least, Key, empty_nif:least(Key, ?PERIOD, ?LIMIT)).
?LOOP(windows, {Table, Key}, window(Table, Key)).

window(Table, Key) ->
    Now = erlang:system_time(millisecond),
    Window = Now div ?PERIOD,
    Expires = (Window + 1) * ?PERIOD,
    case ets:update_counter(Table, {Key, Window}, 1, {{Key, Window}, 0, Expires}) of
        Count when Count =< ?LIMIT -> {allow, ?LIMIT - Count};
        _ -> {deny, Expires - Now}
    end.

%% Both filled with as many keys.
sizes(Table) ->
    {ok, _} = foundation_limiter:start_link(bench_bytes, #{limit => 10, period => 3600000, capacity => ?KEYS}),
    Empty = ets:info(Table, memory),
    Fill = fun(Key) ->
        {allow, _} = foundation_limiter:hit(bench_bytes, Key),
        {allow, _} = window(Table, Key)
    end,
    lists:foreach(Fill, lists:seq(1, ?KEYS)),
    #{bytes := Bytes} = foundation_limiter:info(bench_bytes),
    Words = ets:info(Table, memory) - Empty,
    ok = foundation_limiter:delete(bench_bytes),
    #{subject => {value, Bytes / ?KEYS}, baseline => {value, Words * erlang:system_info(wordsize) / ?KEYS}}.
