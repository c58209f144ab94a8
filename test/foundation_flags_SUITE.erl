%% Flags across OS processes: VMs that share a file, VMs that are stopped, killed or upgraded, files that are taken away or cannot be
%% used. Every VM here runs the whole application.
-module(foundation_flags_SUITE).

-include_lib("common_test/include/ct.hrl").
-include_lib("stdlib/include/assert.hrl").

-export([all/0, suite/0, init_per_testcase/2, end_per_testcase/2]).
-export([
    rollback_while_the_vm_is_stopped/1,
    rollback_survives_kill/1,
    two_vms_one_file/1,
    killed_writers/1,
    truncated_under_readers/1,
    refused_files_stop_the_application/1,
    no_space/1,
    upgrade_under_readers/1,
    command_line/1,
    command_line_without_standard_files/1
]).
%% In the peers.
-export([read_for/2, set_forever/2, start_readers/2, tell_subscribed/2]).

-define(F, foundation_flags).

suite() ->
    [{timetrap, {minutes, 3}}].

all() ->
    [
        rollback_while_the_vm_is_stopped,
        rollback_survives_kill,
        two_vms_one_file,
        killed_writers,
        truncated_under_readers,
        refused_files_stop_the_application,
        no_space,
        upgrade_under_readers,
        command_line,
        command_line_without_standard_files
    ].

init_per_testcase(_, Config) ->
    Dir = fdn_test:tmp_dir("flags_ct"),
    [{dir, Dir}, {path, filename:join(Dir, "flags")} | Config].

end_per_testcase(_, Config) ->
    fdn_test:del_dir(?config(dir, Config)).

%% ---- helpers ----------------------------------------------------------------------------------------------------------------------

%% A VM with the application on this file.
vm(Path) ->
    vm(Path, #{}).

vm(Path, Options) ->
    {Peer, _Node} = fdn_test:peer(Options),
    {ok, _} = start_application(Peer, Path),
    Peer.

start_application(Peer, Path) ->
    call(Peer, application, load, [foundation_native]),
    ok = call(Peer, application, set_env, [foundation_native, data_dir, ephemeral]),
    ok = call(Peer, application, set_env, [foundation_native, flags_file, Path]),
    call(Peer, application, ensure_all_started, [foundation_native]).

call(Peer, M, F, A) ->
    peer:call(Peer, M, F, A, 120000).

tool(Path, Args) ->
    fdn_test:run(foundation_nif:priv_file("foundation-flags"), ["--file", Path | Args]).

os_pid(Peer) ->
    call(Peer, os, getpid, []).

signal(Signal, OsPid) ->
    "" = os:cmd("kill -" ++ Signal ++ " " ++ OsPid).

%% Every thread of the process is stopped.
stopped(OsPid) ->
    Files = filelib:wildcard("/proc/" ++ OsPid ++ "/task/*/status"),
    Files =/= [] andalso
        lists:all(
            fun(File) ->
                {ok, Text} = file:read_file(File),
                re:run(Text, "^State:\\s+T", [multiline, {capture, none}]) =:= match
            end,
            Files
        ).

%% Kill the peer's VM as the kernel's OOM killer would, and wait until it is gone.
kill(Peer, OsPid) ->
    unlink(Peer),
    Monitor = monitor(process, Peer),
    signal("KILL", OsPid),
    receive {'DOWN', Monitor, process, Peer, _} -> ok end,
    fdn_test:await(fun() -> not filelib:is_dir("/proc/" ++ OsPid) orelse zombie(OsPid) end).

zombie(OsPid) ->
    case file:read_file("/proc/" ++ OsPid ++ "/status") of
        {ok, Text} -> re:run(Text, "^State:\\s+[ZX]", [multiline, {capture, none}]) =:= match;
        {error, _} -> true
    end.

%% ---- in the peers -----------------------------------------------------------------------------------------------------------------

%% The values of a flag as they change, until told to stop.
read_for(Flag, Until) ->
    First = ?F:enabled(Flag),
    persistent_term:put({reading, Until}, true),
    read_for(Flag, Until, [First]).

read_for(Flag, Until, [Last | _] = Seen) ->
    case persistent_term:get(Until, false) of
        true ->
            lists:reverse(Seen);
        false ->
            case ?F:enabled(Flag) of
                Last -> read_for(Flag, Until, Seen);
                Other -> read_for(Flag, Until, [Other | Seen])
            end
    end.

set_forever(Flag, Values) ->
    [?F:set(Flag, Value) || Value <- Values],
    set_forever(Flag, Values).

%% Readers that stay; what they have seen last stands in a counter: {reads, trues since the counter was reset}.
start_readers(N, Flag) ->
    Counts = counters:new(2, [write_concurrency]),
    Parent = self(),
    spawn(fun() ->
        [spawn_link(fun() -> read_forever(Flag, Counts) end) || _ <- lists:seq(1, N)],
        Parent ! started,
        receive stop -> ok end
    end),
    receive started -> ok end,
    persistent_term:put({?MODULE, counts}, Counts),
    Counts.

read_forever(Flag, Counts) ->
    case ?F:enabled(Flag) of
        true -> counters:add(Counts, 2, 1);
        false -> ok
    end,
    counters:add(Counts, 1, 1),
    read_forever(Flag, Counts).

%% Subscribe in a process of its own and wait for one message; the caller is told when the subscription stands.
tell_subscribed(Key, Message) ->
    Parent = self(),
    spawn(fun() ->
        ok = ?F:subscribe(),
        Parent ! {subscribed, self()},
        receive Message -> persistent_term:put(Key, true) end
    end),
    receive {subscribed, _} -> ok end.

%% ---- cases ------------------------------------------------------------------------------------------------------------------------

%% The VM is stopped in the middle of its reads; the command line rolls back; the first lookup after it goes on is false.
rollback_while_the_vm_is_stopped(Config) ->
    Path = ?config(path, Config),
    Peer = vm(Path),
    ok = call(Peer, ?F, declare, [risky, #{group => risk, default => true}]),
    OsPid = os_pid(Peer),
    [
        begin
            Until = {until, Round},
            Self = self(),
            Reader = spawn_link(fun() -> Self ! {self(), call(Peer, ?MODULE, read_for, [risky, Until])} end),
            fdn_test:await(fun() -> call(Peer, persistent_term, get, [{reading, Until}, false]) end),
            ?assertEqual(true, call(Peer, ?F, enabled, [risky])),
            signal("STOP", OsPid),
            fdn_test:await(fun() -> stopped(OsPid) end),
            {0, _} = tool(Path, ["rollback", "risk", "the VM hangs"]),
            ?assert(stopped(OsPid)),
            %% Asked while it is stopped: answered by the first thing this VM does about the flag.
            First = spawn_link(fun() -> Self ! {self(), call(Peer, ?F, enabled, [risky])} end),
            signal("CONT", OsPid),
            receive {First, Answer} -> ?assertEqual(false, Answer) end,
            ?assertEqual({error, rolled_back}, call(Peer, ?F, set, [risky, true])),
            ok = call(Peer, persistent_term, put, [Until, true]),
            receive {Reader, Seen} -> ?assertEqual([true, false], Seen) end,
            #{risk := #{epoch := Epoch, reason := <<"the VM hangs">>}} = call(Peer, ?F, groups, []),
            {0, _} = tool(Path, ["rearm", "risk", integer_to_list(Epoch)]),
            ok = call(Peer, ?F, set, [risky, true])
        end
     || Round <- lists:seq(1, 5)
    ],
    fdn_test:stop_peer(Peer).

rollback_survives_kill(Config) ->
    Path = ?config(path, Config),
    Peer = vm(Path),
    ok = call(Peer, ?F, declare, [a, #{group => g, default => true}]),
    ok = call(Peer, ?F, declare, [b, #{group => h}]),
    ok = call(Peer, ?F, set, [b, {percentage, 33}]),
    {ok, #{nodes := Nodes}} = call(Peer, ?F, rollback, [g, "before the end"]),
    ?assertEqual([ok], maps:values(Nodes)),
    kill(Peer, os_pid(Peer)),
    %% With every VM down.
    ?assertEqual({0, "a\tfalse\tg\trolled_back\t2\nb\t33%\th\tarmed\t1\n"}, tool(Path, ["list"])),
    ?assertMatch({0, _}, tool(Path, ["verify"])),
    {0, _} = tool(Path, ["set", "b", "true"]),
    {0, _} = tool(Path, ["rollback", "--all", "by hand"]),
    Next = vm(Path),
    ok = call(Next, ?F, declare, [a, #{group => g, default => true}]),
    ?assertEqual(#{a => false, b => false}, call(Next, ?F, list, [])),
    ?assertEqual({error, rolled_back}, call(Next, ?F, set, [a, true])),
    ?assertMatch(#{g := #{epoch := 3, reason := <<"by hand">>, state := rolled_back}}, call(Next, ?F, groups, [])),
    fdn_test:stop_peer(Next).

two_vms_one_file(Config) ->
    Path = ?config(path, Config),
    [One, Two] = [vm(Path), vm(Path)],
    ?assertEqual(maps:get(uuid, call(One, ?F, info, [])), maps:get(uuid, call(Two, ?F, info, []))),
    ok = call(One, ?F, declare, [a, #{group => g}]),
    ok = call(Two, ?F, declare, [a, #{group => g}]),
    ?assertEqual({error, other_group}, call(Two, ?F, declare, [a, #{group => h}])),
    ok = call(One, ?F, set, [a, true]),
    ?assertEqual(true, call(Two, ?F, enabled, [a])),
    ok = call(Two, ?MODULE, tell_subscribed, [told, {foundation_flags, rolled_back, g, 2, <<"one says">>}]),
    {ok, #{epochs := #{g := 2}}} = call(One, ?F, rollback, [g, "one says"]),
    ?assertEqual(false, call(Two, ?F, enabled, [a])),
    ?assertEqual({error, rolled_back}, call(Two, ?F, set, [a, true])),
    fdn_test:await(fun() -> call(Two, persistent_term, get, [told, false]) end),
    ok = call(Two, ?F, rearm, [g, 2]),
    ok = call(Two, ?F, set, [a, {percentage, 100}]),
    ?assertEqual({percentage, 100}, call(One, ?F, get, [a])),
    [fdn_test:stop_peer(P) || P <- [One, Two]].

%% VMs killed in the middle of sets: no torn value, the file sound, the survivor goes on.
killed_writers(Config) ->
    Path = ?config(path, Config),
    Survivor = vm(Path),
    ok = call(Survivor, ?F, declare, [a, #{group => g}]),
    Values = [true, {percentage, 17}, false, {percentage, 99}],
    [
        begin
            Writer = vm(Path),
            OsPid = os_pid(Writer),
            peer:cast(Writer, ?MODULE, set_forever, [a, Values]),
            #{generation := Before} = call(Survivor, ?F, info, []),
            fdn_test:await(fun() -> maps:get(generation, call(Survivor, ?F, info, [])) > Before + 10000 end),
            kill(Writer, OsPid),
            ?assert(lists:member(call(Survivor, ?F, get, [a]), Values)),
            ?assertMatch({0, _}, tool(Path, ["verify"])),
            ok = call(Survivor, ?F, declare, [list_to_atom("after_" ++ integer_to_list(Round)), #{group => g}]),
            ok = call(Survivor, ?F, set, [a, true])
        end
     || Round <- lists:seq(1, 4)
    ],
    ?assertEqual(5, maps:size(call(Survivor, ?F, list, []))),
    fdn_test:stop_peer(Survivor).

truncated_under_readers(Config) ->
    Path = ?config(path, Config),
    [
        begin
            Peer = vm(Path),
            ok = call(Peer, logger, set_primary_config, [level, none]),
            ok = call(Peer, ?F, declare, [a, #{group => g, default => true}]),
            Pid = call(Peer, erlang, whereis, [?F]),
            Counts = call(Peer, ?MODULE, start_readers, [50, a]),
            Read = fun(Index) -> call(Peer, counters, get, [Counts, Index]) end,
            fdn_test:await(fun() -> Read(2) > 10000 end),
            {ok, File} = file:open(Path, [read, write, raw]),
            {ok, Size} = file:position(File, Size),
            ok = file:truncate(File),
            ok = file:close(File),
            fdn_test:await(fun() -> call(Peer, ?F, enabled, [a]) =:= false end),
            ok = call(Peer, counters, put, [Counts, 2, 0]),
            From = Read(1),
            fdn_test:await(fun() -> Read(1) > From + 10000 end),
            %% A reader that was between its look and its count may have added one.
            ?assert(Read(2) =< 50),
            ?assertMatch(#{faulted := true}, call(Peer, ?F, info, [])),
            ?assertEqual(#{a => false}, call(Peer, ?F, list, [])),
            ?assertEqual({error, faulted}, call(Peer, ?F, set, [a, true])),
            ?assertEqual({error, faulted}, call(Peer, ?F, rollback, [g, x])),
            ?assertEqual(Pid, call(Peer, erlang, whereis, [?F])),
            ?assertMatch({3, _}, tool(Path, ["list"])),
            fdn_test:stop_peer(Peer),
            ok = file:delete(Path)
        end
     || Size <- [0, 5000]
    ].

refused_files_stop_the_application(Config) ->
    Dir = ?config(dir, Config),
    Path = ?config(path, Config),
    {Peer, _} = fdn_test:peer(),
    ok = call(Peer, logger, set_primary_config, [level, none]),
    {ok, _} = start_application(Peer, Path),
    ok = call(Peer, application, stop, [foundation_native]),
    {ok, Whole} = file:read_file(Path),
    <<Magic:8/binary, Format:32/native, Rest/binary>> = Whole,
    Refused = fun(File) ->
        {error, {foundation_native, Why}} = start_application(Peer, File),
        %% As application_controller wraps it; what is inside is for people to read.
        Text = lists:flatten(io_lib:format("~p", [Why])),
        {match, _} = re:run(Text, "flags_file"),
        {match, _} = re:run(Text, File),
        Why
    end,
    Reason = fun(File) ->
        {{shutdown, {failed_to_start_child, foundation_flags, {flags_file, File, R}}}, _} = Refused(File),
        R
    end,
    New = fun(Name, Content, Mode) ->
        File = filename:join(Dir, Name),
        ok = file:write_file(File, Content),
        ok = file:change_mode(File, Mode),
        File
    end,
    ?assertEqual(foreign_file, Reason(New("foreign", "root:x:0:0", 8#600))),
    ?assertEqual(unsupported_version, Reason(New("newer", [Magic, <<(Format + 1):32/native>>, Rest], 8#600))),
    ?assertEqual(corrupt, Reason(New("short", binary:part(Whole, 0, 4096), 8#600))),
    ?assertEqual(unsafe_mode, Reason(New("mode", Whole, 8#606))),
    Link = filename:join(Dir, "link"),
    ok = file:make_symlink(Path, Link),
    ?assertEqual(eloop, Reason(Link)),
    ?assertEqual(enoent, Reason(filename:join([Dir, "no", "such", "flags"]))),
    ?assertEqual(enotdir, Reason(filename:join([Path, "flags"]))),
    Open = filename:join(Dir, "open"),
    ok = file:make_dir(Open),
    ok = file:change_mode(Open, 8#777),
    ?assertEqual(unsafe_mode, Reason(filename:join(Open, "flags"))),
    %% And with a sound file it starts again.
    {ok, _} = start_application(Peer, Path),
    fdn_test:stop_peer(Peer).

%% A file system without room. Only root can mount one, and not in every container.
no_space(Config) ->
    Dir = ?config(dir, Config),
    Point = filename:join(Dir, "small"),
    ok = file:make_dir(Point),
    case os:cmd("mount -t tmpfs -o size=64k,mode=0700 tmpfs " ++ Point ++ " 2>&1") of
        "" ->
            try
                {Peer, _} = fdn_test:peer(),
                ok = call(Peer, logger, set_primary_config, [level, none]),
                File = filename:join(Point, "flags"),
                {error, {foundation_native, {Why, _}}} = start_application(Peer, File),
                ?assertEqual({shutdown, {failed_to_start_child, foundation_flags, {flags_file, File, enospc}}}, Why),
                ?assertEqual({ok, []}, file:list_dir(Point)),
                fdn_test:stop_peer(Peer)
            after
                os:cmd("umount " ++ Point)
            end;
        Refused ->
            {skip, Refused}
    end.

%% A new release's library takes over while readers on every scheduler go on; then the old one is unloaded. (At the same path the
%% dynamic linker would find the library it has, so each version stands in a folder of its own, as in a release.)
upgrade_under_readers(Config) ->
    Path = ?config(path, Config),
    First = copy_application(Config, "foundation_native-1"),
    {Peer, _} = fdn_test:peer(#{args => ["-pa", First]}),
    true = call(Peer, code, add_patha, [First]),
    {ok, _} = start_application(Peer, Path),
    ?assertEqual(filename:join(First, "foundation_flags.beam"), call(Peer, code, which, [?F])),
    ok = call(Peer, ?F, declare, [a, #{group => g, default => true}]),
    Counts = call(Peer, ?MODULE, start_readers, [8, a]),
    Read = fun(Index) -> call(Peer, counters, get, [Counts, Index]) end,
    fdn_test:await(fun() -> Read(2) > 1000 end),
    lists:foldl(
        fun(Round, Before) ->
            Next = copy_application(Config, "foundation_native-" ++ integer_to_list(Round)),
            [Old] = mapped(Peer),
            true = call(Peer, code, add_patha, [Next]),
            true = call(Peer, code, del_path, [Before]),
            {module, ?F} = call(Peer, code, load_file, [?F]),
            ?assertEqual(2, length(mapped(Peer))),
            fdn_test:await(fun() -> call(Peer, code, soft_purge, [?F]) end),
            %% The new library is in memory, and it alone.
            [New] = fdn_test:await(fun() -> length(mapped(Peer)) =:= 1 andalso mapped(Peer) end),
            ?assertNotEqual(Old, New),
            From = Read(2),
            fdn_test:await(fun() -> Read(2) > From + 1000 end),
            ok = call(Peer, ?MODULE, tell_subscribed, [{told, Round}, {foundation_flags, changed, a, {percentage, Round}}]),
            {0, _} = tool(Path, ["set", "a", integer_to_list(Round) ++ "%"]),
            fdn_test:await(fun() -> call(Peer, persistent_term, get, [{told, Round}, false]) end),
            ok = call(Peer, ?F, set, [a, true]),
            Next
        end,
        First,
        [2, 3, 4]
    ),
    fdn_test:stop_peer(Peer).

copy_application(Config, Name) ->
    To = filename:join(?config(dir, Config), Name),
    Priv = filename:dirname(foundation_nif:priv_file("foundation_flags.so")),
    ok = file:make_dir(To),
    "" = os:cmd("cp -rL " ++ Priv ++ " " ++ filename:dirname(code:which(?F)) ++ " " ++ To ++ " 2>&1"),
    filename:join(To, "ebin").

%% The inodes of the flags library that this VM has in memory.
mapped(Peer) ->
    {ok, Text} = file:read_file("/proc/" ++ os_pid(Peer) ++ "/maps"),
    {match, Lines} = re:run(Text, "([0-9]+)\\s+/\\S*foundation_flags\\.so", [global, {capture, [1], list}]),
    lists:usort([Inode || [Inode] <- Lines]).

%% A daemon may start it without standard files. The flag file must not take their place, and be printed into.
command_line_without_standard_files(Config) ->
    Path = ?config(path, Config),
    Peer = vm(Path),
    ok = call(Peer, ?F, declare, [a, #{group => g}]),
    fdn_test:stop_peer(Peer),
    Closed = ["<&-", ">&-", "2>&-", "<&- >&-", "<&- 2>&-", ">&- 2>&-", "<&- >&- 2>&-"],
    [
        begin
            {Status, _} = shell_tool(Path, Args, How),
            Expected =
                case string:find(How, " >&-") =/= nomatch orelse hd(How) =:= $> of
                    true -> [3];
                    false -> [0, 1]
                end,
            ?assert(lists:member(Status, Expected), {How, Args, Status}),
            ?assertEqual({How, Args, {0, "sound: 1 of 1024 flags in 1 groups\n"}}, {How, Args, tool(Path, ["verify"])})
        end
     || How <- Closed, Args <- ["rollback g " ++ lists:duplicate(40, $x), "--json get a"]
    ],
    [shell_tool(Path, "get nothing", How) || How <- Closed],
    ?assertMatch({0, _}, tool(Path, ["verify"])),
    %% What cannot be printed shows in the exit status.
    [
        ?assertMatch({Args, {3, _}}, {Args, shell_tool(Path, Args, ">/dev/full")})
     || Args <- ["list", "get a", "--json list", "--help", "--version", "rollback g x", "--json get nothing"]
    ].

shell_tool(Path, Args, Redirections) ->
    Command = "exec \"$0\" --file \"$1\" " ++ Args ++ " " ++ Redirections,
    fdn_test:run("/bin/sh", ["-c", Command, foundation_nif:priv_file("foundation-flags"), Path]).

command_line(Config) ->
    Path = ?config(path, Config),
    Peer = vm(Path),
    ok = call(Peer, ?F, declare, [a, #{group => g}]),
    ok = call(Peer, ?F, declare, ['größe', #{group => 'gruppe ß', default => true}]),
    fdn_test:stop_peer(Peer),
    ?assertEqual({0, "a\tfalse\tg\tarmed\t1\ngröße\ttrue\tgruppe ß\tarmed\t1\n"}, tool(Path, ["list"])),
    ?assertEqual(
        {0, "[{\"flag\":\"a\",\"value\":false,\"group\":\"g\",\"state\":\"armed\",\"epoch\":1},"
            "{\"flag\":\"größe\",\"value\":true,\"group\":\"gruppe ß\",\"state\":\"armed\",\"epoch\":1}]\n"},
        tool(Path, ["--json", "list"])
    ),
    ?assertEqual({0, "false\n"}, tool(Path, ["get", "a"])),
    ?assertEqual({0, "a\t20%\n"}, tool(Path, ["set", "a", "20%"])),
    ?assertEqual({0, "{\"flag\":\"a\",\"value\":{\"percentage\":20}}\n"}, tool(Path, ["--json", "set", "a", "20%"])),
    ?assertEqual({0, "g\trolled_back\t2\n"}, tool(Path, ["rollback", "g", "because"])),
    ?assertEqual(
        {0, "{\"epochs\":{\"g\":3,\"gruppe ß\":2},\"synced\":true}\n"},
        tool(Path, ["--json", "rollback", "--all", "because"])
    ),
    ?assertEqual({0, "g\tarmed\t3\n"}, tool(Path, ["rearm", "g", "3"])),
    ?assertEqual({0, "sound: 2 of 1024 flags in 2 groups\n"}, tool(Path, ["verify"])),
    %% 1: refused or unknown.
    [
        ?assertMatch({Args, {1, _}}, {Args, tool(Path, Args)})
     || Args <- [
            ["get", "b"],
            ["set", "b", "true"],
            ["set", "größe", "true"],
            ["rollback", "b", "x"],
            ["rearm", "b", "1"],
            ["rearm", "g", "3"],
            ["rearm", "gruppe ß", "1"],
            ["--json", "set", "größe", "true"]
        ]
    ],
    ?assertMatch({1, "{\"error\":\"rolled_back\"," ++ _}, tool(Path, ["--json", "set", "größe", "true"])),
    %% 2: usage.
    [
        ?assertMatch({Args, {2, _}}, {Args, tool(Path, Args)})
     || Args <- [
            [],
            ["frobnicate"],
            ["get"],
            ["get", "a", "b"],
            ["set", "a", "101%"],
            ["set", "a", "-1%"],
            ["set", "a", "50"],
            ["set", "a", "TRUE"],
            ["set", "a", ""],
            ["rollback", "g"],
            ["rearm", "g", "-3"],
            ["rearm", "g", "3x"],
            ["rearm", "g", "99999999999999999999999"],
            ["history"],
            ["--frobnicate", "list"]
        ]
    ],
    ?assertMatch({2, _}, fdn_test:run(foundation_nif:priv_file("foundation-flags"), ["list"])),
    %% 3: the file.
    [
        ?assertMatch({File, {3, _}}, {File, tool(File, ["list"])})
     || File <- [filename:join(?config(dir, Config), "none"), "/dev/full", "/dev/null", "/proc/version", ?config(dir, Config) ++ "/"]
    ],
    ?assertMatch({0, _}, fdn_test:run(foundation_nif:priv_file("foundation-flags"), ["--help"])),
    ?assertMatch({0, "foundation-flags " ++ _}, fdn_test:run(foundation_nif:priv_file("foundation-flags"), ["--version"])).
