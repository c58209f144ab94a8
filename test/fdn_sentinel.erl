%% What the sentinel's suites share: VMs with a flag file and perhaps a sentinel, and a sentinel that runs alone.
-module(fdn_sentinel).

-export([vm/1, vm/2, sentinel/2, call/4, ask/3, watches/1, watch_state/2, kill_vm/2, signal/2, os_alive/1]).
-export([end_all/1]).
-export([alone/2, alone_line/2, alone_status/1, alone_stop/1, alone_name/0, json/1]).
-export([boot/1, boot_sentinel/1, spawn_named/1, relay/1, relayed/0, keeper/1]).
-export([send_request/2, old_call/3, foreign_pid/2, down_of/1, link_to/1, start_monitor/1, monitor_state/1]).

%% ---- VMs ----

%% A VM with a node name, the cookie of the test, and a flags server on the test's flag file with flag f in group g, on.
vm(Config, Options) when is_map(Options) ->
    Name = maps:get(name, Options, list_to_atom(peer:random_name("fdnvm"))),
    Args = ["-setcookie", cookie(Config), "-kernel", "prevent_overlapping_partitions", "false" | maps:get(args, Options, [])],
    {Peer, Node} = fdn_test:peer(#{name => Name, args => Args}),
    remember(Config, call(Peer, os, getpid, [])),
    case maps:get(flags, Options, true) of
        true -> ok = call(Peer, ?MODULE, boot, [flags_file(Config)]);
        false -> ok
    end,
    {Peer, Node}.

vm(Config) -> vm(Config, #{}).

%% Start the sentinel as the port of that VM.
sentinel({Peer, _Node}, Options) -> call(Peer, ?MODULE, boot_sentinel, [Options]).

call(Peer, M, F, A) -> peer:call(Peer, M, F, A, 60000).

%% A call of foundation_sentinel, made in the VM.
ask({Peer, _Node}, F, A) -> call(Peer, foundation_sentinel, F, A).

watches(Vm) -> ask(Vm, watches, []).

watch_state(Vm, Id) ->
    #{Id := #{state := State, failures := Failures, last := Last}} = watches(Vm),
    {State, Failures, Last}.

%% kill -9, and wait until the OS has taken it away.
kill_vm({Peer, _Node}, OsPid) ->
    unlink(Peer),
    signal("KILL", OsPid),
    fdn_test:await(fun() -> not os_alive(OsPid) end).

signal(Signal, OsPid) ->
    "" = os:cmd("kill -" ++ Signal ++ " " ++ to_list(OsPid)),
    ok.

%% A zombie is dead.
os_alive(OsPid) ->
    case file:read_file("/proc/" ++ to_list(OsPid) ++ "/stat") of
        {ok, Stat} ->
            [_, Rest] = string:split(Stat, ") ", trailing),
            binary:first(Rest) =/= $Z;
        {error, _} ->
            false
    end.

%% Processes that a case started: one that fails leaves them running, or stopped.
remember(Config, OsPid) ->
    ok = file:write_file(filename:join(proplists:get_value(dir, Config), "os_pids"), OsPid ++ "\n", [append]).

end_all(Config) ->
    case file:read_file(filename:join(proplists:get_value(dir, Config), "os_pids")) of
        {ok, Pids} ->
            [os:cmd("kill -9 " ++ P) || P <- string:lexemes(binary_to_list(Pids), "\n"), os_alive(P)];
        {error, enoent} -> []
    end.

to_list(N) when is_integer(N) -> integer_to_list(N);
to_list(L) -> L.

cookie(Config) -> proplists:get_value(cookie, Config).
flags_file(Config) -> filename:join(proplists:get_value(dir, Config), "flags").

%% ---- inside the VMs ----

%% Runs Fun in a process of its own that stays: peer calls run in processes that end.
keeper(Fun) ->
    Caller = self(),
    Tag = make_ref(),
    spawn(fun() ->
        process_flag(trap_exit, true),
        Caller ! {Tag, catch Fun()},
        keep()
    end),
    receive
        {Tag, Result} -> Result
    end.

%% Takes nothing out of its mailbox: relayed/0 looks at it.
keep() ->
    receive
        {?MODULE, never} -> ok
    end.

boot(FlagsFile) ->
    _ = application:load(foundation_native),
    ok = application:set_env(foundation_native, flags_file, FlagsFile),
    {ok, _} = keeper(fun() -> foundation_flags_server:start_link() end),
    ok = foundation_flags:declare(f, #{group => g, default => true}),
    ok = foundation_flags:declare(f2, #{group => g2, default => true}),
    true = foundation_flags:enabled(f),
    ok.

boot_sentinel(Options) ->
    keeper(fun() ->
        case foundation_sentinel:start_link(Options) of
            {ok, _} ->
                #{os_pid := Pid} = foundation_sentinel:status(),
                {ok, Pid};
            Error ->
                Error
        end
    end).

%% A registered process that ends with the reason it is sent.
spawn_named(Name) ->
    keeper(fun() ->
        spawn(fun() ->
            true = register(Name, self()),
            receive
                {exit, Reason} -> exit(Reason)
            end
        end)
    end).

%% Stands where the flags server stands, and keeps what it is told.
relay(Name) ->
    keeper(fun() -> register(Name, self()) end).

relayed() ->
    {messages, Messages} = process_info(whereis(foundation_flags), messages),
    Messages.

send_request(Server, Request) -> gen_server:receive_response(gen_server:send_request(Server, Request), 10000).

%% A call as releases before aliases made it: any term may be the tag.
old_call(Server, Request, Tag) ->
    Server ! {'$gen_call', {self(), Tag}, Request},
    receive
        {Tag, Answer} -> {tagged, Answer}
    after 10000 -> no_answer
    end.

%% A pid of another node, with the creation under which it is connected now.
foreign_pid(Node, Number) ->
    Name = atom_to_binary(Node),
    Bytes = term_to_binary(sentinel_pid(Node)),
    <<Creation:32>> = binary:part(Bytes, byte_size(Bytes), -4),
    binary_to_term(<<131, 88, 119, (byte_size(Name)), Name/binary, Number:32, 0:32, Creation:32>>).

%% The sentinel's own pid is seen where it probes: it calls net_kernel.
sentinel_pid(Node) ->
    1 = erlang:trace(whereis(net_kernel), true, ['receive']),
    ok = gen_server:call({foundation_sentinel, Node}, {watch, find_pid, #{group => g, policy => #{probe => #{}}}}),
    receive
        {trace, _, 'receive', {'$gen_call', {Pid, _}, {is_auth, Node}}} when node(Pid) =:= Node ->
            1 = erlang:trace(whereis(net_kernel), false, ['receive']),
            ok = gen_server:call({foundation_sentinel, Node}, {unwatch, find_pid}),
            Pid
    after 10000 -> error(no_probe)
    end.

down_of(What) ->
    Ref = monitor(process, What),
    receive
        {'DOWN', Ref, process, _, Reason} -> Reason
    after 10000 -> nothing
    end.

link_to(Pid) ->
    process_flag(trap_exit, true),
    link(Pid),
    receive
        {'EXIT', Pid, Reason} -> Reason
    after 10000 -> nothing
    end.

start_monitor(What) ->
    spawn(fun() -> watch_for_down(monitor(process, What)) end).

watch_for_down(Ref) ->
    receive
        {state, From} ->
            From ! {self(), quiet},
            watch_for_down(Ref);
        {'DOWN', Ref, process, _, Reason} ->
            receive
                {state, From} -> From ! {self(), Reason}
            end
    end.

monitor_state(Pid) ->
    Pid ! {state, self()},
    receive
        {Pid, State} -> State
    after 10000 -> nothing
    end.

%% ---- alone ----

alone_name() ->
    [_, Host] = string:split(atom_to_list(node()), "@"),
    list_to_atom(peer:random_name("foundation_sentinel") ++ "@" ++ Host).

%% The program with a configuration file made of Options (keys as in the file); its lines come to the calling process.
alone(Config, Options) ->
    Dir = proplists:get_value(dir, Config),
    Unique = integer_to_list(erlang:unique_integer([positive])),
    CookieFile = filename:join(Dir, "cookie" ++ Unique),
    ok = file:write_file(CookieFile, maps:get(cookie, Options, cookie(Config)) ++ "\n"),
    ok = file:change_mode(CookieFile, 8#600),
    File = filename:join(Dir, "config" ++ Unique ++ ".json"),
    All = maps:merge(
        #{node => alone_name(), cookie_file => CookieFile, flags_file => flags_file(Config)}, maps:remove(cookie, Options)
    ),
    ok = file:write_file(File, json(All)),
    Port = open_port(
        {spawn_executable, foundation_nif:priv_file("foundation_sentinel")},
        [{args, ["--config", File]}, stderr_to_stdout, {line, 4096}, exit_status, binary]
    ),
    {os_pid, OsPid} = erlang:port_info(Port, os_pid),
    remember(Config, integer_to_list(OsPid)),
    #{port => Port, os_pid => OsPid, node => maps:get(node, All), config => File}.

%% The next line that holds all the texts; {exit_status, N} where the program ends before it.
alone_line(#{port := Port} = Alone, Texts) ->
    receive
        {Port, {data, {eol, Line}}} ->
            case lists:all(fun(Text) -> string:find(Line, Text) =/= nomatch end, Texts) of
                true -> Line;
                false -> alone_line(Alone, Texts)
            end;
        {Port, {exit_status, Status}} ->
            {exit_status, Status}
    after 60000 -> error({no_line, Texts})
    end.

alone_status(#{port := Port}) ->
    receive
        {Port, {exit_status, Status}} -> Status
    after 60000 -> error(still_running)
    end.

alone_stop(#{os_pid := OsPid} = Alone) ->
    signal("TERM", OsPid),
    alone_status(Alone).

json(Map) when is_map(Map) ->
    ["{", lists:join(",", [[json(atom_to_binary(K)), ":", json(V)] || {K, V} <- maps:to_list(Map)]), "}"];
json(Boolean) when is_boolean(Boolean) -> atom_to_list(Boolean);
json(Atom) when is_atom(Atom) -> json(atom_to_binary(Atom));
json(Integer) when is_integer(Integer) -> integer_to_list(Integer);
json(Text) when is_binary(Text) -> [$", Text, $"];
json({list, List}) -> ["[", lists:join(",", [json(X) || X <- List]), "]"];
json(Path) when is_list(Path) -> json(unicode:characters_to_binary(Path)).
