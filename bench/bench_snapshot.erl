%% The snapshot store against tables that forget (ets), tables that do not (DETS, Mnesia), and a file written by hand.
-module(bench_snapshot).

-export([rows/1]).

-include("bench.hrl").

-define(MANY, 100000).
-define(WRITERS, 32).

-spec rows(file:filename_all()) -> {[bench:row()], fun(() -> term())}.
rows(Dir) ->
    One = state(1000),
    Ten = state(10000),
    Ets = ets:new(bench_states, [public]),
    {ok, Async} = foundation_snapshot:open(bench_async, #{path => filename:join(Dir, "async")}),
    {ok, Sync} = foundation_snapshot:open(bench_sync, #{path => filename:join(Dir, "sync"), durability => sync}),
    {ok, dets} = dets:open_file(dets, [{file, filename:join(Dir, "dets")}]),
    ok = start_mnesia(),
    {ok, File} = file:open(filename:join(Dir, "written"), [raw, binary, read, write]),
    true = ets:insert(Ets, {agent, One}),
    {ok, _} = foundation_snapshot:save(Async, agent, One),
    External = term_to_binary(One),

    Save = fun(State) -> {loop, fun(N) -> saves(N, {Async, State}) end} end,
    Insert = fun(State) -> {loop, fun(N) -> inserts(N, {Ets, State}) end} end,
    Load = {loop, fun(N) -> loads(N, Async) end},
    Dets = fun(N) -> bench:repeat(N, fun() -> ok = dets:insert(dets, {agent, One}) end) end,
    Mnesia = fun(N) -> bench:repeat(N, fun() -> ok = mnesia:dirty_write({bench_states, agent, One}) end) end,
    Encode = fun(N) -> encodes(N, One) end,
    Written = fun() -> timed(fun() -> ok = written(File, External) end) end,
    Saved = #{what => "save 1 KB", steady => true, subject => Save(One)},
    Rows = [
        Saved#{against => "ets:insert", goal => {at_most, 2.2}, baseline => Insert(One)},
        Saved#{what => "save 10 KB", against => "ets:insert", subject => Save(Ten), baseline => Insert(Ten)},
        Saved#{against => "term_to_binary", goal => {at_most, 1.3}, baseline => {loop, Encode}},
        Saved#{against => "dets:insert", goal => {faster, 25}, baseline => {loop, Dets}},
        Saved#{against => "mnesia:dirty_write, disc_copies", goal => {faster, 3}, baseline => {loop, Mnesia}},
        #{
            what => "load 1 KB",
            against => "ets:lookup",
            goal => {at_most, 2.2},
            subject => Load,
            baseline => {loop, fun(N) -> lookups(N, Ets) end}
        },
        #{
            what => "load 1 KB",
            against => "binary_to_term",
            goal => {faster, 4.5},
            subject => Load,
            baseline => {loop, fun(N) -> decodes(N, External) end}
        },
        #{
            what => "sync save 1 KB, 1 writer",
            against => "file:pwrite + file:datasync",
            goal => {at_most, 1.15},
            trials => 10,
            subject => {trial, fun() -> timed(fun() -> {ok, _} = foundation_snapshot:save(Sync, agent, One) end) end},
            baseline => {trial, Written}
        },
        #{
            what => "sync save 1 KB, one of 32 writers",
            against => "file:pwrite + file:datasync",
            goal => {faster, 15},
            trials => 3,
            subject => {trial, fun() -> group(Sync, One) end},
            baseline => {trial, Written}
        },
        #{
            what => "bytes on disk, state of 1 KB",
            against => "external term format",
            goal => {at_most, 0.45},
            subject => {value, on_disk(Async, One)},
            baseline => {value, byte_size(External)}
        },
        opening(Dir, One)
    ],
    {Rows, fun() ->
        _ = [foundation_snapshot:close(Store) || Store <- [Async, Sync]],
        ok = dets:close(dets),
        ok = file:close(File),
        stopped = mnesia:stop()
    end}.

?LOOP(saves, {Store, State}, foundation_snapshot:save(Store, agent, State)).
?LOOP(inserts, {Table, State}, ets:insert(Table, {agent, State})).
?LOOP(encodes, State, term_to_binary(State)).
?LOOP(loads, Store, foundation_snapshot:load(Store, agent)).
?LOOP(lookups, Table, ets:lookup(Table, agent)).
?LOOP(decodes, Binary, binary_to_term(Binary)).

%% An agent's state of about so many bytes in the external term format: counters, a queue of tasks, a history.
state(Bytes) ->
    state(Bytes, 1).

state(Bytes, Tasks) ->
    State = #{
        status => idle,
        completed_count => 1041,
        error_count => 3,
        current_task => undefined,
        performance_metrics => #{
            tasks_completed => 1041,
            tasks_failed => 3,
            average_execution_time => 12.5,
            last_task_timestamp => 1751500000
        },
        task_queue => queue:from_list([task(N) || N <- lists:seq(1, Tasks)])
    },
    case erlang:external_size(State) >= Bytes of
        true -> State;
        false -> state(Bytes, Tasks + 1)
    end.

task(N) ->
    #{id => N, type => digest, priority => normal, attempts => 0, path => <<"lib/stdlib/src/module_", (integer_to_binary(N))/binary>>}.

start_mnesia() ->
    ok = mnesia:create_schema([node()]),
    ok = mnesia:start(),
    {atomic, ok} = mnesia:create_table(bench_states, [{disc_copies, [node()]}]),
    ok = mnesia:wait_for_tables([bench_states], 10000).

timed(Fun) ->
    Begin = erlang:monotonic_time(nanosecond),
    _ = Fun(),
    erlang:monotonic_time(nanosecond) - Begin.

written(File, Binary) ->
    {ok, End} = file:position(File, eof),
    ok = file:pwrite(File, End, Binary),
    file:datasync(File).

%% The time of one save when 32 processes save at once, eight times each.
group(Store, State) ->
    Begin = erlang:monotonic_time(nanosecond),
    Save = fun(N) -> bench:repeat(8, fun() -> {ok, _} = foundation_snapshot:save(Store, N, State) end) end,
    Writers = [spawn_monitor(fun() -> Save(N) end) || N <- lists:seq(1, ?WRITERS)],
    _ = [receive {'DOWN', Ref, process, Pid, normal} -> ok end || {Pid, Ref} <- Writers],
    (erlang:monotonic_time(nanosecond) - Begin) div (?WRITERS * 8).

%% What one more key adds to the bytes that are needed.
on_disk(Store, State) ->
    #{live_bytes := Before} = foundation_snapshot:info(Store),
    Keys = 1000,
    _ = [{ok, _} = foundation_snapshot:save(Store, {agent, N}, State) || N <- lists:seq(1, Keys)],
    #{live_bytes := After} = foundation_snapshot:info(Store),
    (After - Before) / Keys.

opening(Dir, State) ->
    Path = filename:join(Dir, "many"),
    File = filename:join(Dir, "many.ets"),
    {ok, Store} = foundation_snapshot:open(bench_many, #{path => Path}),
    Table = ets:new(bench_many, [public]),
    Fill = fun(N) ->
        {ok, _} = foundation_snapshot:save(Store, {agent, N}, State),
        true = ets:insert(Table, {{agent, N}, State})
    end,
    lists:foreach(Fill, lists:seq(1, ?MANY)),
    ok = foundation_snapshot:close(Store),
    ok = ets:tab2file(Table, File),
    true = ets:delete(Table),
    #{
        what => "open 100000 keys of 1 KB",
        against => "ets:file2tab",
        goal => {faster, 15},
        rounds => 3,
        subject => {trial, fun() ->
            Took = timed(fun() -> {ok, _} = foundation_snapshot:open(bench_many, #{path => Path}) end),
            ok = foundation_snapshot:close(bench_many),
            Took
        end},
        baseline => {trial, fun() ->
            Begin = erlang:monotonic_time(nanosecond),
            {ok, Read} = ets:file2tab(File),
            Took = erlang:monotonic_time(nanosecond) - Begin,
            true = ets:delete(Read),
            Took
        end}
    }.
