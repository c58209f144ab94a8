%% From the death of a process to a flag that reads off: by the sentinel, another OS process, and by a monitor of the same VM.
-module(bench_sentinel).

-export([rows/1]).

-define(FLAG, bench_watched).
-define(GROUP, bench_watched_group).
-define(NAME, bench_victim).

-spec rows(file:filename_all()) -> {[bench:row()], fun(() -> term())}.
rows(_Dir) ->
    ok = bench:distributed(),
    {ok, File} = foundation_native:flags_file(),
    ok = foundation_flags:declare(?FLAG, #{group => ?GROUP}),
    {ok, Sentinel} = foundation_sentinel:start_link(#{flags_file => File, node => 'bench_sentinel@127.0.0.1', linger => 0}),
    Table = ets:new(bench_watched, [named_table, public, {read_concurrency, true}]),
    Policy = #{failures => {1, 1000}, grace => 0, cooldown => 0},
    ok = foundation_sentinel:watch(bench, #{process => ?NAME, node => node(), group => ?GROUP, policy => Policy}),
    Row = #{
        what => "kill of a process to flag off",
        against => "monitor in the VM, ets:insert",
        goal => {at_most, 3},
        trials => 20,
        subject => {trial, fun by_sentinel/0},
        baseline => {trial, fun() -> by_monitor(Table) end}
    },
    {[Row], fun() -> gen_server:stop(Sentinel) end}.

by_sentinel() ->
    ok = bench:armed(?GROUP),
    ok = foundation_flags:set(?FLAG, true),
    Victim = victim(fun() -> true = register(?NAME, self()) end),
    ok = watched(),
    killed(Victim, fun off/0).

by_monitor(Table) ->
    true = ets:insert(Table, {?FLAG, true}),
    %% Without the name: the sentinel has nothing to do with this one.
    Victim = victim(fun() -> ok end),
    Parent = self(),
    Watcher = spawn_link(fun() ->
        Ref = erlang:monitor(process, Victim),
        Parent ! ready,
        receive {'DOWN', Ref, process, Victim, killed} -> true = ets:insert(Table, {?FLAG, false}) end
    end),
    receive ready -> ok end,
    Took = killed(Victim, fun() -> removed(Table) end),
    unlink(Watcher),
    Took.

killed(Victim, Off) ->
    Begin = erlang:monotonic_time(nanosecond),
    exit(Victim, kill),
    Off(),
    erlang:monotonic_time(nanosecond) - Begin.

off() ->
    case foundation_flags:enabled(?FLAG) of
        true -> off();
        false -> ok
    end.

removed(Table) ->
    case ets:lookup(Table, ?FLAG) of
        [{_, true}] -> removed(Table);
        [{_, false}] -> ok
    end.

victim(Begin) ->
    Parent = self(),
    Pid = spawn(fun() ->
        _ = Begin(),
        Parent ! {self(), ready},
        receive stop -> ok end
    end),
    receive {Pid, ready} -> Pid end.

%% Until the sentinel's monitor on the name is in place.
watched() ->
    case foundation_sentinel:watches() of
        #{bench := #{state := armed}} ->
            ok;
        #{bench := _} ->
            receive after 5 -> watched() end
    end.
