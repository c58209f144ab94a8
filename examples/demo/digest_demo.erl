%% @doc The driver: starts the sentinel and the worker VM, rolls the second implementation out, kills the worker VM, and checks.
%%
%% Environment, set by `run': DEMO_DIR (temporary data), DEMO_INPUT, DEMO_TTY; DEMO_SECONDS (how long the limiter spreads the work, 10),
%% DEMO_PERCENT (of the files that go to the second implementation, 30). Exit codes: 0 done and all the same; 1 not; 2 the input cannot
%% be used.
-module(digest_demo).

-export([main/0]).

%% An agent may crash so often within so many milliseconds.
-define(FAILURES, {3, 10000}).
%% No answer or no result for so many milliseconds: something is wrong.
-define(STALLED, 60000).

-record(run, {
    show,
    dir,
    root,
    files = [],
    total = 0,
    rate,
    percent,
    worker,
    port = undefined,
    os_pid,
    ups = [],
    kills = 0,
    recovery = undefined,
    open_us = 0,
    rollout = undefined,
    rolled_back = undefined,
    progress = #{},
    moved_at = 0
}).

-spec main() -> no_return().
main() ->
    true = register(?MODULE, self()),
    os:set_signal(sigterm, default),
    Run = #run{show = digest_report:new(), dir = env("DEMO_DIR"), percent = number("DEMO_PERCENT", 30)},
    try
        Run1 = prepare(read_input(Run)),
        Run2 = drive(start_work(Run1)),
        Run3 = leave(Run2),
        erlang:halt(digest_verdict:judge(facts(Run3)))
    catch
        throw:{give_up, Code, Format, Args} ->
            give_up(Run, Code, Format, Args);
        Class:Reason:Stack ->
            give_up(Run, 1, "the driver failed: ~0tP", [{Class, Reason, Stack}, 40])
    end.

%% ---- the input ------------------------------------------------------------------------------------------------------------------

read_input(Run = #run{dir = Dir}) ->
    Root =
        case env("DEMO_INPUT") of
            <<>> -> bytes(code:root_dir());
            Given -> absolute(Given)
        end,
    case string:prefix(<<(absolute(Dir))/binary, $/>>, <<Root/binary, $/>>) of
        nomatch -> ok;
        _ -> stop(2, "the input ~ts holds the demo's own temporary data; set TMPDIR to a folder outside it", [shown(Root)])
    end,
    case digest_check:list(Root) of
        {ok, [], _} ->
            stop(2, "there is no regular file in ~ts", [shown(Root)]);
        {ok, Files, Unreadable} ->
            digest_report:say(Run#run.show, "input: ~b files in ~ts", [length(Files), shown(Root)]),
            [digest_report:say(Run#run.show, "       folder not readable, left out: ~ts", [shown(D)]) || D <- Unreadable],
            spread(Run#run{root = Root, files = Files, total = length(Files)});
        {error, enotdir} ->
            stop(2, "the input ~ts is no folder", [shown(Root)]);
        {error, Reason} ->
            stop(2, "the input ~ts cannot be read: ~ts", [shown(Root), file:format_error(Reason)])
    end.

%% Each agent's share takes about DEMO_SECONDS, with room for a tenth of it at once.
spread(Run = #run{total = Total}) ->
    Limit = (Total + 3) div 4,
    Run#run{rate = #{limit => Limit, period => 1000 * number("DEMO_SECONDS", 10), burst => max(1, Limit div 10)}}.

%% ---- the two VMs and the sentinel -------------------------------------------------------------------------------------------------

prepare(Run = #run{dir = Dir}) ->
    Unique = string:lowercase(binary:encode_hex(crypto:strong_rand_bytes(5))),
    Node = fun(Name) -> binary_to_atom(<<Name/binary, $_, Unique/binary, "@127.0.0.1">>) end,
    Worker = Node(<<"digest">>),
    {ok, _} = net_kernel:start([Node(<<"driver">>), longnames]),
    _ = logger:remove_handler(default),
    ok = logger:add_handler(default, logger_std_h, #{config => #{file => text(in(Dir, "driver.log"))}}),
    ok = application:load(foundation_native),
    Env = [
        {data_dir, in(Dir, "driver")},
        {flags_file, in(Dir, "flags")},
        {sentinel, #{flags_file => in(Dir, "flags"), node => Node(<<"sentinel">>), nodes => [Worker], linger => 0}}
    ],
    [ok = application:set_env(foundation_native, Key, Value) || {Key, Value} <- Env],
    case application:ensure_all_started(foundation_native) of
        {ok, _} -> ok;
        {error, Reason} -> stop(1, "foundation_native does not start: ~0tp", [Reason])
    end,
    ok = foundation_flags:declare(digest_app:flag(), #{group => digest_app:group(), default => false}),
    Run1 = start_worker(Run#run{worker = Worker}),
    Policy = #{failures => ?FAILURES, grace => 0},
    lists:foreach(
        fun(Name) ->
            Watch = #{process => Name, node => Worker, group => digest_app:group(), policy => Policy},
            case foundation_sentinel:watch(Name, Watch) of
                ok -> ok;
                {error, Why} -> stop(1, "the sentinel does not watch ~ts: ~0tp", [Name, Why])
            end
        end,
        [digest_agent:name(Id) || Id <- digest_agent:ids()]
    ),
    Run1.

start_worker(Run = #run{dir = Dir, worker = Worker}) ->
    Erl = filename:join([code:root_dir(), "bin", "erl"]),
    Paths = lists:append([["-pa", filename:dirname(code:which(M))] || M <- [?MODULE, foundation_native]]),
    Args = ["-noshell", "-boot", "no_dot_erlang", "+fnui", "-kernel", "inet_dist_use_interface", "{127,0,0,1}"] ++ Paths,
    Port = open_port({spawn_executable, Erl}, [{args, Args ++ ["-s", "digest_worker", "main"]}, binary, exit_status, stderr_to_stdout]),
    Config = #{
        node => Worker,
        driver => node(),
        rate => Run#run.rate,
        state => in(Dir, "state"),
        flags => in(Dir, "flags"),
        data => in(Dir, "worker"),
        log => text(in(Dir, "worker.log"))
    },
    true = port_command(Port, digest_worker:command(Config)),
    Started = now_ms(),
    receive
        {worker_up, #{os_pid := OsPid, open_us := Open}} ->
            ok = file:write_file(in(Dir, "worker.pid"), OsPid),
            Run#run{port = Port, os_pid = OsPid, open_us = Open, ups = [Started | Run#run.ups]};
        {worker_failed, Reason} ->
            stop(1, "the worker VM does not start its application: ~0tP", [Reason, 40]);
        {Port, {exit_status, Status}} ->
            stop(1, "the worker VM ended with status ~b~n~ts", [Status, output(Port)])
    after ?STALLED ->
        stop(1, "the worker VM does not come up~n~ts", [output(Port)])
    end.

output(Port) ->
    receive
        {Port, {data, Data}} -> [Data | output(Port)]
    after 0 -> []
    end.

%% ---- the run ----------------------------------------------------------------------------------------------------------------------

%% With few files the whole work is done between two looks at it, so the roll-out is there from the start.
start_work(Run = #run{total = Total}) ->
    Run1 = if Total < 40 -> roll_out(Run); true -> Run end,
    case on_worker(Run1, digest_coordinator, begin_work, [Run#run.root]) of
        {ok, Total} -> ok;
        {ok, Other} -> stop(1, "the coordinator lists ~b files, the driver ~b", [Other, Total])
    end,
    Run1#run{moved_at = now_ms()}.

drive(Run = #run{total = Total, show = Show}) ->
    Run1 = look(hear(Run)),
    #{completed := Done, status := Status} = Run1#run.progress,
    Run2 = Run1#run{show = digest_report:progress(Show, "digested", Done, Total)},
    case next_step(Done, Run2) of
        roll_out -> drive(roll_out(Run2));
        kill -> drive(kill(Run2));
        wait when Status =:= done -> end_line(Run2);
        wait ->
            timer:sleep(50),
            drive(Run2)
    end.

next_step(Done, #run{total = Total, rollout = undefined}) when Done * 4 >= Total -> roll_out;
%% Not while the agents are crashing: the time from the last crash to the flag being off is measured in the VM.
next_step(Done, #run{total = Total, kills = 0, rolled_back = Back, progress = #{errors := Errors}}) when
    Done * 2 >= Total, (Back =/= undefined orelse Errors =:= 0)
->
    kill;
next_step(_, _) ->
    wait.

end_line(Run = #run{total = Total, show = Show}) ->
    Show1 = digest_report:progress(Show, "digested", Total, Total),
    Run#run{show = digest_report:line(Show1)}.

look(Run = #run{progress = Before, moved_at = Moved}) ->
    Now = on_worker(Run, digest_coordinator, progress, []),
    %% Crashes are no progress.
    case maps:with([completed, status], Now) =:= maps:with([completed, status], Before) of
        false ->
            Run#run{progress = Now, moved_at = now_ms()};
        true ->
            _ = now_ms() - Moved > ?STALLED andalso stop(1, "no result for ~b s: ~0tp", [?STALLED div 1000, Now]),
            Run#run{progress = Now}
    end.

hear(Run = #run{port = Port}) ->
    receive
        {rolled_back, Crashes, Nanos} ->
            #{reason := Reason} = maps:get(digest_app:group(), foundation_flags:groups()),
            Text = "the sentinel rolled ~ts back after ~b crashes, ~ts after the last one",
            Show0 = digest_report:say(Run#run.show, Text, [digest_app:group(), Crashes, digest_report:duration(Nanos)]),
            Show = digest_report:say(Show0, "  (~ts ...)", [string:slice(shown(Reason), 0, 80)]),
            hear(Run#run{rolled_back = {Crashes, Nanos, Reason}, show = Show});
        {Port, {data, _}} ->
            hear(Run);
        {Port, {exit_status, Status}} ->
            stop(1, "the worker VM ended by itself with status ~b", [Status])
    after 0 ->
        Run
    end.

roll_out(Run = #run{percent = Percent, show = Show}) ->
    ok = start_meter(Run),
    case foundation_flags:set(digest_app:flag(), {percentage, Percent}) of
        ok -> ok;
        {error, Reason} -> stop(1, "the flag cannot be set: ~0tp", [Reason])
    end,
    Since = os:system_time(microsecond),
    Run#run{rollout = Since, show = digest_report:say(Show, "~b % of the files go to the second implementation", [Percent])}.

start_meter(#run{worker = Worker}) ->
    _ = spawn(Worker, digest_meter, run, [self()]),
    receive
        {meter_ready, _} -> ok
    after ?STALLED -> stop(1, "the worker VM does not answer", [])
    end.

%% A real end of the VM, between any two instructions of it; and the start of another one on the same files.
kill(Run = #run{port = Port, os_pid = OsPid, show = Show, progress = #{completed := Before}}) ->
    Killed = erlang:monotonic_time(nanosecond),
    "" = os:cmd("kill -9 " ++ OsPid),
    receive
        %% The shell's number for signal 9.
        {Port, {exit_status, 137}} -> ok;
        {Port, {exit_status, Other}} -> stop(1, "the killed worker VM ended with status ~b, not by signal 9", [Other])
    after ?STALLED -> stop(1, "the worker VM (process ~ts) survived kill -9", [OsPid])
    end,
    Show1 = digest_report:say(Show, "kill -9 of the worker VM (process ~ts) after ~b results", [OsPid, Before]),
    Run1 = resumed(Before, start_worker(Run#run{show = Show1})),
    %% The first crash may be still to come.
    ok = case Run1#run.rolled_back of undefined -> start_meter(Run1); _ -> ok end,
    Recovery = erlang:monotonic_time(nanosecond) - Killed,
    Text = "the worker VM is back and at work after ~ts, of which opening its state took ~ts",
    Show2 = digest_report:say(Show1, Text, [digest_report:duration(Recovery), digest_report:duration(Run1#run.open_us * 1000)]),
    Run1#run{kills = Run#run.kills + 1, recovery = Recovery, show = Show2}.

%% Until there is a result more than before, or there is nothing more to do.
resumed(Before, Run) ->
    case look(Run) of
        #run{progress = #{completed := Done}} when Done < Before ->
            stop(1, "~b results were acknowledged before the kill and ~b are there after it", [Before, Done]);
        #run{progress = #{completed := Done, status := Status}} = Run1 when Done > Before; Status =:= done ->
            Run1;
        Run1 ->
            timer:sleep(2),
            resumed(Before, Run1)
    end.

on_worker(#run{worker = Worker}, Module, Function, Args) ->
    try
        erpc:call(Worker, Module, Function, Args, ?STALLED)
    catch
        Class:Reason -> stop(1, "~ts:~ts in the worker VM: ~0tP", [Module, Function, {Class, Reason}, 40])
    end.

%% ---- the end ----------------------------------------------------------------------------------------------------------------------

%% What the worker VM still knows; then it stops in order, and the store is read from disk.
leave(Run = #run{port = Port}) ->
    Set = on_worker(Run, foundation_flags, set, [digest_app:flag(), true]),
    Limiter = on_worker(Run, foundation_limiter, info, [digest_limiter]),
    true = port_command(Port, "stop\n"),
    receive
        {Port, {exit_status, 0}} -> ok;
        {Port, {exit_status, Status}} -> stop(1, "the worker VM stopped with status ~b", [Status])
    after ?STALLED -> stop(1, "the worker VM does not stop", [])
    end,
    #{state := State, reason := Reason} = maps:get(digest_app:group(), foundation_flags:groups()),
    Back =
        case {Run#run.rolled_back, State} of
            %% The VM was killed between the crash and the message about it.
            {undefined, rolled_back} -> {maps:get(errors, Run#run.progress), undefined, Reason};
            {Known, _} -> Known
        end,
    Progress = (Run#run.progress)#{set_again => Set, limiter => Limiter, ended => now_ms()},
    Run#run{port = undefined, rolled_back = Back, progress = Progress}.

facts(Run = #run{dir = Dir, root = Root, files = Files, progress = Progress}) ->
    Store =
        case foundation_snapshot:open(digest_store, #{path => in(Dir, "state")}) of
            {ok, Opened} -> Opened;
            {error, Reason} -> stop(1, "the state cannot be opened: ~0tp", [Reason])
        end,
    Total = Run#run.total,
    put(show, Run#run.show),
    Tell = fun(N) -> put(show, digest_report:progress(get(show), "checked", N, Total)) end,
    Expected = digest_check:expected(Root, Files, Tell),
    _ = digest_report:line(get(show)),
    Recorded = digest_check:recorded(Store),
    Facts = #{
        expected => Expected,
        recorded => Recorded,
        counts => digest_store:counts(Store),
        starts => digest_store:starts(Store),
        moves => maps:get(moves, Progress),
        rate => Run#run.rate,
        running_ms => [maps:get(ended, Progress) - Up || Up <- Run#run.ups],
        limiter => maps:get(limiter, Progress),
        percent => Run#run.percent,
        rollout => Run#run.rollout,
        rolled_back => Run#run.rolled_back,
        set_again => maps:get(set_again, Progress),
        kills => Run#run.kills,
        recovery => Run#run.recovery,
        open_us => Run#run.open_us
    },
    ok = foundation_snapshot:close(Store),
    ok = application:stop(foundation_native),
    Facts.

%% ---- small things -----------------------------------------------------------------------------------------------------------------

-spec stop(1 | 2, io:format(), [term()]) -> no_return().
stop(Code, Format, Args) ->
    throw({give_up, Code, Format, Args}).

give_up(#run{show = Show, dir = Dir}, Code, Format, Args) ->
    _ = digest_report:line(Show),
    digest_report:say(Show, "demo: " ++ Format, Args),
    [tail(Log, in(Dir, Log)) || Code =:= 1, Log <- ["driver.log", "worker.log"]],
    erlang:halt(Code).

tail(Name, File) ->
    case file:read_file(File) of
        {ok, Text} when byte_size(Text) > 0 ->
            Part = binary:part(Text, byte_size(Text), -min(byte_size(Text), 3000)),
            io:format("---- the end of ~ts~n~ts~n", [Name, shown(Part)]);
        _ ->
            ok
    end.

env(Name) ->
    case os:getenv(Name) of
        false -> <<>>;
        Value -> bytes(Value)
    end.

number(Name, Default) ->
    case string:to_integer(env(Name)) of
        {N, <<>>} when is_integer(N), N > 0 -> N;
        _ -> Default
    end.

in(Dir, Name) ->
    <<Dir/binary, $/, (list_to_binary(Name))/binary>>.

%% The logger takes no raw names.
text(Path) ->
    case unicode:characters_to_list(Path) of
        Text when is_list(Text) -> Text;
        _ -> binary_to_list(Path)
    end.

%% Bytes of the system as the VM got them: names need not be text.
bytes(Value) ->
    case unicode:characters_to_binary(Value, unicode, file:native_name_encoding()) of
        Bytes when is_binary(Bytes) -> Bytes;
        _ -> list_to_binary(Value)
    end.

absolute(Path) ->
    case string:trim(filename:absname(Path), trailing, "/") of
        <<>> -> <<"/">>;
        Trimmed -> Trimmed
    end.

shown(Bytes) ->
    case unicode:characters_to_list(Bytes) of
        Text when is_list(Text) -> io_lib:format("~ts", [Text]);
        _ -> io_lib:format("~0p", [Bytes])
    end.

now_ms() ->
    erlang:monotonic_time(millisecond).
