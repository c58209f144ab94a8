%% The limiter against those the field writes (bench_field), and against the least that a NIF of its kind can cost.
%%
%% `hot key': one key. `uniform' and `zipf': a million live keys, drawn by equal chance or by Zipf's law (bench_keys).
-module(bench_limiter).

-export([rows/1]).

-include("bench.hrl").

-define(KEY, <<"user:12345678">>).
-define(ALGORITHMS, [fixed_window, sliding_window, gcra]).
%% Out of reach: of the hot key within one measurement, each of which begins with a full budget, of the others within the run. What they
%% were filled with keeps the others live for an hour.
-define(PERIOD, 86400000).
-define(LIMIT, 8000000).
-define(FILLED, 400000).
-define(WINDOW, "ets:update_counter window").

-spec rows(file:filename_all()) -> {[bench:row()], fun(() -> term())}.
rows(Dir) ->
    %% First of all, while the VM is small.
    Sizes = [size_row(Kind) || Kind <- [integer, binary, {user, id}]],
    Flood = bench_flood:rows(),
    Hot = hot(Dir),
    Live = live(),
    Draws = [{"uniform", 3.5, bench_keys:draw(uniform)}, {"zipf", 5, bench_keys:draw(zipf)}],
    Rows = [
        hot_rows(Hot),
        [live_rows(Live, Law) || Law <- Draws],
        floor_rows(Hot),
        step_rows(Hot),
        Sizes,
        Flood,
        counter_rows(),
        latency_rows(Hot, Live, Draws),
        kind_rows(Hot)
    ],
    {lists:flatten(Rows), fun() -> teardown(Hot, Live) end}.

%% ---- what is measured -------------------------------------------------------------------------------------------------------------

hot(Dir) ->
    Preset = #{limit => ?LIMIT, period => ?PERIOD, capacity => 1000},
    {ok, _} = foundation_limiter:start_link(bench_full, #{limit => 1, period => 3600000, capacity => 1000}),
    {allow, 0} = foundation_limiter:hit(bench_full, ?KEY),
    {ok, _} = foundation_limiter:start_link(bench_telling, Preset#{telemetry => true}),
    {ok, _} = foundation_limiter:start_link(bench_kept, Preset#{persist => filename:join(Dir, "limiter")}),
    {ok, _} = bench_field:start_server(bench_server),
    set("bench_hot_", Preset).

%% A million keys, each with consumed budget in every one of them.
live() ->
    Set = set("bench_live_", #{limit => ?LIMIT, period => ?PERIOD, capacity => bench_keys:count()}),
    #{limiters := Limiters, window := Window, tokens := Tokens, atomic := Atomic} = Set,
    Fill = fun(N) ->
        Key = bench_keys:key(N),
        [{allow, _} = foundation_limiter:hit(L, Key, ?FILLED) || {_, L} <- Limiters],
        {allow, _} = bench_field:window(Window, Key, ?PERIOD, ?LIMIT),
        {allow, _} = bench_field:tokens(Tokens, Key, 1, ?LIMIT),
        {allow, _} = bench_field:atomic(Atomic, Key, 1, ?LIMIT)
    end,
    lists:foreach(Fill, lists:seq(1, bench_keys:count())),
    Set.

set(Prefix, Options) ->
    Name = fun(What) -> list_to_atom(Prefix ++ atom_to_list(What)) end,
    Started = fun(Algorithm) ->
        {ok, _} = foundation_limiter:start_link(Name(Algorithm), Options#{algorithm => Algorithm}),
        {Algorithm, Name(Algorithm)}
    end,
    #{
        limiters => [Started(Algorithm) || Algorithm <- ?ALGORITHMS],
        window => bench_field:table(Name(window)),
        tokens => bench_field:table(Name(tokens)),
        atomic => bench_field:table(Name(atomic))
    }.

teardown(Hot, Live) ->
    Limiters = maps:get(limiters, Hot) ++ maps:get(limiters, Live) ++ [{gcra, L} || L <- [bench_full, bench_telling, bench_kept]],
    [ok = foundation_limiter:delete(L) || {_, L} <- Limiters],
    [true = ets:delete(maps:get(Table, Set)) || Set <- [Hot, Live], Table <- [window, tokens, atomic]],
    ok = bench_keys:forget(),
    gen_server:stop(bench_server).

%% ---- rows -------------------------------------------------------------------------------------------------------------------------

hot_rows(Set = #{limiters := Limiters, window := Window, tokens := Tokens, atomic := Atomic}) ->
    Gcra = proplists:get_value(gcra, Limiters),
    Row = #{before => fun() -> whole(Set) end},
    Hits = fun(L) -> fun(N) -> hits(N, {L, ?KEY}) end end,
    Windows = fun(N) -> windows(N, {Window, ?KEY}) end,
    Against = fun(Text, Baseline) ->
        Row#{what => "hot key, gcra", against => Text, subject => {loop, Hits(Gcra)}, baseline => {loop, Baseline}}
    end,
    [
        Row#{
            what => "hot key, " ++ named(Algorithm, Processes),
            against => ?WINDOW,
            goal => {faster, if Processes =:= 1 -> 9; true -> 8 end},
            subject => {loop, Processes, Hits(L)},
            baseline => {loop, Processes, Windows}
        }
     || Processes <- [1, 2], {Algorithm, L} <- Limiters
    ] ++
        [
            Against("token bucket over ETS", fun(N) -> tokens(N, {Tokens, ?KEY}) end),
            Against("token bucket over atomics", fun(N) -> atomic(N, {Atomic, ?KEY}) end),
            Against("gen_server", fun(N) -> asks(N, ?KEY) end)
        ].

%% Every measurement begins with an unused key.
whole(#{limiters := Limiters, window := Window, tokens := Tokens, atomic := Atomic}) ->
    [ok = foundation_limiter:reset(L, ?KEY) || {_, L} <- Limiters],
    [true = ets:delete_all_objects(Table) || Table <- [Window, Tokens, Atomic]].

live_rows(#{limiters := Limiters, window := Window, tokens := Tokens, atomic := Atomic}, {Law, Goal, Draws}) ->
    Gcra = proplists:get_value(gcra, Limiters),
    Walks = fun(L) -> fun(N) -> walk_hits(N, bench_keys:start(), Draws, L) end end,
    Windows = fun(N) -> walk_windows(N, bench_keys:start(), Draws, Window) end,
    Against = fun(Text, Baseline) ->
        #{what => Law ++ ", gcra", against => Text, subject => {loop, Walks(Gcra)}, baseline => {loop, Baseline}}
    end,
    [
        #{
            what => Law ++ ", " ++ named(Algorithm, Processes),
            against => ?WINDOW,
            goal => {faster, Goal},
            subject => {loop, Processes, Walks(L)},
            baseline => {loop, Processes, Windows}
        }
     || Processes <- [1, 2], {Algorithm, L} <- Limiters
    ] ++
        [
            Against("token bucket over ETS", fun(N) -> walk_tokens(N, bench_keys:start(), Draws, Tokens) end),
            Against("token bucket over atomics", fun(N) -> walk_atomic(N, bench_keys:start(), Draws, Atomic) end)
        ].

named(Algorithm, 1) -> atom_to_list(Algorithm);
named(Algorithm, 2) -> atom_to_list(Algorithm) ++ ", 2 processes".

floor_rows(#{limiters := Limiters}) ->
    Gcra = proplists:get_value(gcra, Limiters),
    Denied = fun(N) -> hits(N, {bench_full, ?KEY}) end,
    Empty = fun(N) -> empty(N, ?KEY) end,
    [
        #{
            what => "hit with period and limit",
            against => "NIF: arguments, hash, clock, CAS",
            goal => {at_most, 1.25},
            before => fun() -> ok = foundation_limiter:reset(Gcra, ?KEY) end,
            subject => {loop, fun(N) -> full(N, {Gcra, ?KEY}) end},
            baseline => {loop, fun(N) -> least(N, ?KEY) end}
        },
        #{
            what => "denied hot key, 2 processes",
            against => "the same, 1 process",
            goal => {at_most, 1.25},
            subject => {loop, 2, Denied},
            baseline => {loop, Denied}
        },
        #{what => "empty NIF, 2 processes", against => "the same, 1 process", subject => {loop, 2, Empty}, baseline => {loop, Empty}}
    ].

%% What a hit with period and limit is made of: from an empty NIF on, each with one thing more than the one before.
step_rows(#{limiters := Limiters}) ->
    Window = proplists:get_value(fixed_window, Limiters),
    Steps = [
        {"empty NIF", fun(N) -> empty(N, ?KEY) end},
        {"+ arguments", fun(N) -> arguments(N, ?KEY) end},
        {"+ hash", fun(N) -> hash(N, ?KEY) end},
        {"+ clock, CAS: the least", fun(N) -> least(N, ?KEY) end},
        {"+ answer", fun(N) -> answer(N, ?KEY) end},
        {"+ finding the limiter", fun(N) -> enter(N, ?KEY) end},
        {"+ the engine", fun(N) -> hit(N, ?KEY) end},
        {"+ period and limit: hit_nif/4", fun(N) -> native(N, {Window, ?KEY}) end},
        {"+ the Erlang function: hit/4", fun(N) -> full(N, {Window, ?KEY}) end}
    ],
    Row = #{rounds => 7, difference => true, before => fun() -> ok = foundation_limiter:reset(Window, ?KEY) end},
    [
        Row#{what => What, against => Against, subject => {loop, Subject}, baseline => {loop, Baseline}}
     || {{Against, Baseline}, {What, Subject}} <- lists:zip(lists:droplast(Steps), tl(Steps))
    ].

%% Bytes a live key, in a limiter and in the window over ETS filled with as many keys.
size_row(Kind) ->
    Keys = 100000,
    {ok, _} = foundation_limiter:start_link(bench_bytes, #{limit => 10, period => ?PERIOD, capacity => Keys}),
    Table = bench_field:table(bench_bytes_window),
    Empty = ets:info(Table, memory),
    Fill = fun(N) ->
        Key = kind(Kind, N),
        {allow, _} = foundation_limiter:hit(bench_bytes, Key),
        {allow, _} = bench_field:window(Table, Key, ?PERIOD, 10)
    end,
    lists:foreach(Fill, lists:seq(1, Keys)),
    #{bytes := Bytes} = foundation_limiter:info(bench_bytes),
    Words = ets:info(Table, memory) - Empty,
    ok = foundation_limiter:delete(bench_bytes),
    true = ets:delete(Table),
    #{
        what => text("bytes a live key, ~w", [Kind]),
        against => "row of the ETS window",
        goal => {at_most, 0.334},
        subject => {value, Bytes / Keys},
        baseline => {value, Words * erlang:system_info(wordsize) / Keys}
    }.

kind(integer, N) -> N;
kind(binary, N) -> bench_keys:key(N);
kind({user, id}, N) -> {user, N}.

%% The engine alone, with its counters and without.
counter_rows() ->
    Nanoseconds = fun(Program) ->
        list_to_float(string:trim(os:cmd(filename:join(filename:dirname(os:getenv("BENCH_NIF")), Program))))
    end,
    [
        #{
            what => "engine's hit, counted",
            against => "without the counters",
            goal => {adds, 2},
            subject => {trial, fun() -> Nanoseconds("hits") end},
            baseline => {trial, fun() -> Nanoseconds("hits_uncounted") end}
        }
    ].

latency_rows(#{limiters := HotLimiters, window := HotWindow}, #{limiters := Limiters, window := Window}, [{"uniform", _, Draws} | _]) ->
    {HotLimiter, Limiter} = {proplists:get_value(gcra, HotLimiters), proplists:get_value(gcra, Limiters)},
    Funs = [
        fun(_) -> foundation_limiter:hit(HotLimiter, ?KEY) end,
        fun(_) -> bench_field:window(HotWindow, ?KEY, ?PERIOD, ?LIMIT) end,
        fun(Key) -> foundation_limiter:hit(Limiter, Key) end,
        fun(Key) -> bench_field:window(Window, Key, ?PERIOD, ?LIMIT) end,
        fun(_) -> ok end
    ],
    [Hot, HotBase, Uniform, UniformBase, Clock] = bench_latency:percentiles(Funs, Draws),
    Row = fun(What, Against) ->
        fun(Rank, A, B) ->
            #{what => Rank ++ " of " ++ What, against => Against, unit => ns, subject => {value, A}, baseline => {value, B}}
        end
    end,
    Names = bench_latency:names(),
    lists:zipwith3(Row("hot key, gcra", ?WINDOW), Names, Hot, HotBase) ++
        lists:zipwith3(Row("uniform, gcra", ?WINDOW), Names, Uniform, UniformBase) ++
        lists:zipwith3(Row("the clock alone", "the same"), Names, Clock, Clock).

%% What a hit costs with other keys and other options.
kind_rows(#{limiters := Limiters}) ->
    Gcra = proplists:get_value(gcra, Limiters),
    Kinds = [
        {"an atom", user_12345678},
        {"an integer", 12345678},
        {"a tuple {user, Id}", {user, 12345678}},
        {"a string", "user:12345678"},
        {"a binary of 1 KB", binary:copy(?KEY, 79)}
    ],
    Row = #{
        against => "the same, binary of 13 B",
        rounds => 7,
        before => fun() -> ok = foundation_limiter:reset(Gcra, ?KEY) end,
        baseline => {loop, fun(N) -> hits(N, {Gcra, ?KEY}) end}
    },
    Others = fun(Limiter, Key) ->
        #{
            before => fun() -> [ok = foundation_limiter:reset(L, K) || {L, K} <- [{Gcra, ?KEY}, {Limiter, Key}]] end,
            subject => {loop, fun(N) -> hits(N, {Limiter, Key}) end}
        }
    end,
    [maps:merge(Row#{what => "hot key, " ++ Name}, Others(Gcra, Key)) || {Name, Key} <- Kinds] ++
        [
            maps:merge(Row#{what => "hot key, " ++ Option, against => "the same without"}, Others(L, ?KEY))
         || {Option, L} <- [{"telemetry => true", bench_telling}, {"persist => a file", bench_kept}]
        ].

text(Format, Args) -> lists:flatten(io_lib:format(Format, Args)).

%% ---- loops ------------------------------------------------------------------------------------------------------------------------

?LOOP(hits, {Limiter, Key}, foundation_limiter:hit(Limiter, Key)).
?LOOP(full, {Limiter, Key}, foundation_limiter:hit(Limiter, Key, ?PERIOD, ?LIMIT)).
?LOOP(least, Key, empty_nif:least(Key, ?PERIOD, ?LIMIT)).
?LOOP(empty, Key, empty_nif:empty(Key)).
?LOOP(arguments, Key, empty_nif:arguments(Key, ?PERIOD, ?LIMIT)).
?LOOP(hash, Key, empty_nif:hash(Key, ?PERIOD, ?LIMIT)).
?LOOP(answer, Key, empty_nif:answer(Key, ?PERIOD, ?LIMIT)).
?LOOP(enter, Key, empty_nif:enter(Key, ?PERIOD, ?LIMIT)).
?LOOP(hit, Key, empty_nif:hit(Key, ?PERIOD, ?LIMIT)).
?LOOP(native, {Limiter, Key}, foundation_limiter:hit_nif(Limiter, Key, ?PERIOD, ?LIMIT)).
?LOOP(windows, {Table, Key}, bench_field:window(Table, Key, ?PERIOD, ?LIMIT)).
?LOOP(tokens, {Table, Key}, bench_field:tokens(Table, Key, 1, ?LIMIT)).
?LOOP(atomic, {Table, Key}, bench_field:atomic(Table, Key, 1, ?LIMIT)).
?LOOP(asks, Key, bench_field:ask(bench_server, Key, ?PERIOD, ?LIMIT)).

?WALK(walk_hits, Limiter, foundation_limiter:hit).
?WALK(walk_windows, Table, live_window).
?WALK(walk_tokens, Table, live_tokens).
?WALK(walk_atomic, Table, live_atomic).

live_window(Table, Key) -> bench_field:window(Table, Key, ?PERIOD, ?LIMIT).
live_tokens(Table, Key) -> bench_field:tokens(Table, Key, 1, ?LIMIT).
live_atomic(Table, Key) -> bench_field:atomic(Table, Key, 1, ?LIMIT).
