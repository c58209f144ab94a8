%% The distribution protocol by hand, with any flags: a hidden node in one socket. Version 6 handshake as the connecting side.
-module(fdn_dist).

-export([connect/3, close/1, monitor_name/2, ping/1, seen_until_pong/1, kill_and_wait/1, crash_loop/2, send_raw/2, closed/1]).

connect(Node, Cookie, Flags) ->
    [Name, Host] = string:split(atom_to_list(Node), "@"),
    {port, Port, _} = erl_epmd:port_please(Name, Host),
    {ok, S} = gen_tcp:connect(Host, Port, [binary, {active, false}, {packet, 2}, {nodelay, true}]),
    Own = list_to_binary(peer:random_name("fdndist") ++ "@" ++ Host),
    Creation = rand:uniform(16#ffffffff),
    ok = gen_tcp:send(S, <<"N", Flags:64, Creation:32, (byte_size(Own)):16, Own/binary>>),
    {ok, <<"sok", _/binary>>} = gen_tcp:recv(S, 0),
    {ok, <<"N", _:64, Challenge:32, _/binary>>} = gen_tcp:recv(S, 0),
    Ours = rand:uniform(16#ffffffff),
    ok = gen_tcp:send(S, <<"r", Ours:32, (digest(Cookie, Challenge))/binary>>),
    Expected = digest(Cookie, Ours),
    {ok, <<"a", Expected/binary>>} = gen_tcp:recv(S, 0),
    ok = inet:setopts(S, [{packet, 4}]),
    #{socket => S, pid => pid(Own, Creation), own => Own, creation => Creation}.

close(#{socket := S}) -> gen_tcp:close(S).

digest(Cookie, Challenge) -> erlang:md5([Cookie, integer_to_list(Challenge)]).

%% Terms of another node are made of bytes.
pid(Own, Creation) -> binary_to_term(<<131, 88, (atom_bytes(Own))/binary, 1:32, 0:32, Creation:32>>).

ref(#{own := Own, creation := Creation}) ->
    N = erlang:unique_integer([positive]),
    binary_to_term(<<131, 90, 3:16, (atom_bytes(Own))/binary, Creation:32, N:32, 0:32, 0:32>>).

atom_bytes(Name) -> <<119, (byte_size(Name)), Name/binary>>.

frame(#{socket := S}, Control) -> ok = gen_tcp:send(S, [$p, term_to_binary(Control)]).
frame(#{socket := S}, Control, Message) -> ok = gen_tcp:send(S, [$p, term_to_binary(Control), term_to_binary(Message)]).

send_raw(#{socket := S}, Bytes) -> gen_tcp:send(S, Bytes).

monitor_name(#{pid := Pid} = Conn, Name) ->
    Ref = ref(Conn),
    frame(Conn, {19, Pid, Name, Ref}),
    Ref.

%% {Tag, yes} from net_kernel.
ping(#{pid := Pid, own := Own} = Conn) ->
    Tag = ref(Conn),
    frame(Conn, {6, Pid, '', net_kernel}, {'$gen_call', {Pid, Tag}, {is_auth, binary_to_atom(Own)}}),
    await(Conn, Tag, []).

%% The control messages that come before the answer to two more pings.
seen_until_pong(#{pid := Pid, own := Own} = Conn) ->
    yes = ping(Conn),
    Tag = ref(Conn),
    frame(Conn, {6, Pid, '', net_kernel}, {'$gen_call', {Pid, Tag}, {is_auth, binary_to_atom(Own)}}),
    {seen, Seen} = await(Conn, Tag, seen),
    Seen ++ get({?MODULE, seen}).

await(Conn, Tag, seen) -> {seen, element(2, collect(Conn, Tag, []))};
await(Conn, Tag, _) ->
    {Answer, Seen} = collect(Conn, Tag, []),
    put({?MODULE, seen}, Seen),
    Answer.

collect(#{socket := S} = Conn, Tag, Seen) ->
    case gen_tcp:recv(S, 0, 30000) of
        {ok, <<>>} ->
            ok = gen_tcp:send(S, <<>>),
            collect(Conn, Tag, Seen);
        {ok, <<$p, Terms/binary>>} ->
            {Control, Used} = binary_to_term(Terms, [used]),
            <<_:Used/binary, Message/binary>> = Terms,
            case {Control, Message} of
                {{2, _, _}, _} when Message =/= <<>> ->
                    case binary_to_term(Message) of
                        {Tag, Answer} -> {Answer, Seen};
                        _ -> collect(Conn, Tag, Seen)
                    end;
                _ ->
                    collect(Conn, Tag, [Control | Seen])
            end
    end.

%% Whether the other side has ended the connection.
closed(#{socket := S} = Conn) ->
    case gen_tcp:recv(S, 0, 30000) of
        {error, closed} -> true;
        {error, timeout} -> false;
        {ok, _} -> closed(Conn)
    end.

%% ---- inside a VM ----

kill_and_wait(Pid) ->
    Ref = monitor(process, Pid),
    exit(Pid, kill),
    receive
        {'DOWN', Ref, _, _, Reason} -> Reason
    end.

%% A supervised process that crashes at once while the flag is on, as code behind a bad flag does, and lives when it is off.
crash_loop(Name, Flag) ->
    fdn_sentinel:keeper(fun() -> spawn_link(fun() -> restart(Name, Flag) end) end),
    ok.

restart(Name, Flag) ->
    {Pid, Ref} = spawn_monitor(fun() ->
        register(Name, self()),
        %% works for as long as the monitor of the sentinel needs to arrive
        Seen = fun() -> lists:keymember(monitored_by, 1, [process_info(self(), monitored_by)]) andalso watched() end,
        fdn_test:await(Seen),
        case foundation_flags:enabled(Flag) of
            true -> exit(bug_behind_the_flag);
            false -> receive after infinity -> ok end
        end
    end),
    receive
        {'DOWN', Ref, process, Pid, bug_behind_the_flag} -> restart(Name, Flag)
    end.

%% Somebody besides our own supervisor has a monitor on us.
watched() ->
    {monitored_by, By} = process_info(self(), monitored_by),
    length(By) >= 2.
