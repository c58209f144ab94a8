%% From the death of a process to a flag that reads off: by the sentinel, seen by a third OS process, and by a monitor of the same VM
%% that writes into a table.
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
    Program = filename:join(filename:dirname(os:getenv("BENCH_NIF")), "observer"),
    Observer = open_port({spawn_executable, Program}, [{args, [File, atom_to_list(?FLAG)]}, {line, 80}]),
    Row = #{
        what => "kill of a process to flag off",
        against => "monitor in the VM, ets:insert",
        goal => {at_most, 3},
        trials => 20,
        subject => {trial, fun() -> by_sentinel(Observer) end},
        baseline => {trial, fun() -> by_monitor(Table) end}
    },
    {[Row], fun() ->
        true = port_close(Observer),
        gen_server:stop(Sentinel)
    end}.

by_sentinel(Observer) ->
    ok = bench:armed(?GROUP),
    ok = foundation_flags:set(?FLAG, true),
    Victim = victim(fun() -> true = register(?NAME, self()) end),
    ok = watched(),
    true = port_command(Observer, "look\n"),
    "on" = said(Observer),
    Begin = os:system_time(nanosecond),
    exit(Victim, kill),
    list_to_integer(said(Observer)) - Begin.

said(Observer) ->
    receive
        {Observer, {data, {eol, Line}}} -> Line
    end.

by_monitor(Table) ->
    true = ets:insert(Table, {?FLAG, true}),
    %% Without the name: the sentinel has nothing to do with this one.
    Victim = victim(fun() -> ok end),
    Parent = self(),
    Watcher = spawn_link(fun() ->
        Ref = erlang:monitor(process, Victim),
        Parent ! ready,
        receive
            {'DOWN', Ref, process, Victim, killed} ->
                true = ets:insert(Table, {?FLAG, false}),
                Parent ! {self(), os:system_time(nanosecond)}
        end
    end),
    receive ready -> ok end,
    Begin = os:system_time(nanosecond),
    exit(Victim, kill),
    receive {Watcher, Off} -> Off - Begin end.

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
