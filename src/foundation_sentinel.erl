%% @doc The sentinel: a C node that watches processes and nodes and rolls flag groups back, also when the BEAM is hung or dead.
%%
%% This module owns it as a supervised port ({@link start_link/1}) and is the client of its calls. Every call is an ordinary
%% `gen_server:call({foundation_sentinel, SentinelNode}, Request)' answered by the C node itself, so it can be made from any node that
%% the sentinel is connected to, and costs one message there and back, whatever the state of the owner process here.
%%
%% An orderly stop of the application, or of this process by its supervisor, says `bye' first. The end of the VM without it is an outage
%% of this node, at once: so stop nodes with `init:stop/0', not with `halt/0'.
-module(foundation_sentinel).
-behaviour(gen_server).

-export([start_link/1, child_spec/1, sentinel_node/0, bye/0]).
-export([watch/2, unwatch/1, watches/0, status/0, metrics/0, rollback/2, rearm/2, events/1]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2, terminate/2]).

-export_type([options/0, spec/0, policy/0, reason/0]).

-define(NODE_KEY, {?MODULE, node}).
-define(PROGRAM, "foundation_sentinel").
-define(CALL_MS, 5000).
-define(START_MS, 15000).
-define(BYE_MS, 1000).

-type options() :: #{
    flags_file => file:name_all(),
    node => node(),
    nodes => [node()],
    linger => non_neg_integer(),
    config => file:name_all(),
    audit_file => file:name_all()
}.
%% `flags_file' defaults to {@link foundation_native:flags_file/0}; `nodes' to `[node()]'; `linger' (milliseconds that the sentinel goes
%% on after the death of this VM) to 5000; `audit_file' to none: audit lines go to the log. `config' is a JSON file with watches.

-type policy() :: #{
    failures => {Count :: 1..1000, WindowMs :: pos_integer()},
    down_after => non_neg_integer(),
    probe => #{every => pos_integer(), timeout => pos_integer(), misses => 1..1000},
    grace => non_neg_integer(),
    cooldown => non_neg_integer(),
    dry_run => boolean(),
    abnormal_only => boolean()
}.
%% `failures': so many within a window make a trip; {3, 10000} for a process, {1, 60000} for a node. A failure is an exit of the process
%% other than `normal', `shutdown' and `{shutdown, _}' (`abnormal_only => false' counts these too), and, for a watch of a node or one
%% that says `down_after', an outage: the node was unreachable for `down_after' ms (10000), or is known to be dead. Not being there
%% (`noproc') is no failure. `probe': a call to the node every `every' ms (1000) that must be answered within `timeout' (1000); `misses'
%% (3) in a row make a trip by themselves. `grace': nothing counts in the first ms after the watch was set or the node connected.
%% `cooldown': nothing counts for so many ms after a trip. `dry_run': say what would be rolled back.

-type spec() :: #{process => atom() | pid(), node => node(), group := atom() | [atom()], policy => policy()}.
-type reason() :: {badarg, {Key :: term(), Why :: atom()}} | {sentinel, term()} | term().

%% @doc Start the sentinel and wait until it is connected to this node.
%%
%% Errors: `{badarg, {Option, Reason}}' for what is wrong with the options, where `{badarg, {node, not_distributed}}' means that this VM
%% has no node name; `{sentinel, Reason}' for what the sentinel says: `not_built', `wrong_cookie', `not_allowed', `name_clash',
%% `{flags_file, Reason}', `{config, Text}', `tls_distribution', `{exit_status, Code}'. Takes a few milliseconds, at most 15 s.
-spec start_link(options()) -> {ok, pid()} | {error, reason()}.
start_link(Options) ->
    case check(Options) of
        {ok, Checked} -> gen_server:start_link({local, ?MODULE}, ?MODULE, Checked, []);
        {error, _} = Error -> Error
    end.

%% @doc For a supervisor.
-spec child_spec(options()) -> supervisor:child_spec().
child_spec(Options) ->
    #{id => ?MODULE, start => {?MODULE, start_link, [Options]}, shutdown => 5000}.

%% @doc The node name of the sentinel that this VM has started; without one, the name it would have by default.
-spec sentinel_node() -> node().
sentinel_node() ->
    persistent_term:get(?NODE_KEY, default_node()).

%% @doc Tell every sentinel connected to this node that it is going to stop: what ends from now on is no failure. `ok' also where none
%% runs. The application calls it before it stops; at most a second for each sentinel.
-spec bye() -> ok.
bye() ->
    case whereis(?MODULE) of
        undefined -> ok;
        Pid -> _ = catch gen_server:call(Pid, bye, ?BYE_MS)
    end,
    Others = [N || N <- nodes(hidden), is_sentinel(N), N =/= persistent_term:get(?NODE_KEY, undefined)],
    lists:foreach(fun(N) -> catch gen_server:call({?MODULE, N}, bye, ?BYE_MS) end, Others).

%% @doc Watch a process (by registered name or pid), or, without `process', a node. A second watch with the same id replaces the first;
%% with the same content too it changes nothing, so setting watches at every start is fine.
%%
%% `{error, {badarg, {Key, Reason}}}', `{error, {unknown_group, Group}}' (not in the flag file), `{error, {unknown_node, Node}}' (not
%% among the sentinel's nodes), `{error, configured}' (the id belongs to the configuration file), `{error, full}' (100000 watches).
-spec watch(Id :: term(), spec()) -> ok | {error, reason()}.
watch(Id, Spec) -> call({watch, Id, Spec}).

%% @doc Remove a watch: `{error, unknown_watch}', and `{error, configured}' for one of the configuration file.
-spec unwatch(Id :: term()) -> ok | {error, reason()}.
unwatch(Id) -> call({unwatch, Id}).

%% @doc All watches: id => what it is (`spec', `node', `configured'), its `state' (`armed', `absent', `gone', `idle'; `up' or `down' for
%% a node), its failures (`recent' in the window, `failures' in all), `trips' and the `last' failure as text. Linear in their number:
%% one call for each 256 KiB of them, so a watch that is set or removed meanwhile may be in it or not.
-spec watches() -> #{Id :: term() => map()} | {error, reason()}.
watches() -> watches(0, #{}).

watches(From, Seen) ->
    case call({watches, From}) of
        {#{} = Page, done} -> maps:merge(Seen, Page);
        {#{} = Page, Next} -> watches(Next, maps:merge(Seen, Page));
        {error, _} = Error -> Error
    end.

%% @doc How the sentinel is: `version', `node', `os_pid', `uptime_ms', `mode' (`port' or `alone'), `watches' (count), `flags_file',
%% `flags_uuid' and `nodes', where each node has its `state' (`up', `down', `dead'), `phase', `problem' and `since_ms'.
-spec status() -> map() | {error, reason()}.
status() -> call(status).

%% @doc Counters since its start: `downs', `trips', `dry_trips', `rollback_errors', `calls', `nodes', `nodes_up', `watches'.
-spec metrics() -> #{atom() => non_neg_integer()} | {error, reason()}.
metrics() -> call(metrics).

%% @doc Roll a group back through the sentinel: the file first, then the audit, then the nodes. Answers the new epoch.
-spec rollback(Group :: atom(), Reason :: term()) -> {ok, Epoch :: pos_integer()} | {error, reason()}.
rollback(Group, Reason) -> call({rollback, Group, Reason}).

%% @doc Let the flags of a group be set again. `{error, stale_epoch | not_rolled_back | {unknown_group, Group}}'.
-spec rearm(Group :: atom(), Epoch :: non_neg_integer()) -> ok | {error, reason()}.
rearm(Group, Epoch) -> call({rearm, Group, Epoch}).

%% @doc The last decisions (at most 128 are kept), oldest first. `limit' asks for fewer.
-spec events(#{limit => non_neg_integer()}) -> [map()] | {error, reason()}.
events(Options) -> call({events, Options}).

call(Request) ->
    Node = sentinel_node(),
    try
        gen_server:call({?MODULE, Node}, Request, ?CALL_MS)
    catch
        exit:{timeout, _} -> {error, {sentinel, {timeout, Node}}};
        exit:_ -> {error, {sentinel, {not_connected, Node}}}
    end.

is_sentinel(Node) -> lists:prefix("foundation_sentinel", atom_to_list(Node)).

default_node() ->
    [Short, Host] = string:split(atom_to_list(node()), "@"),
    list_to_atom("foundation_sentinel_" ++ Short ++ "@" ++ Host).

%%% options

check(Options) when is_map(Options) ->
    Known = [flags_file, node, nodes, linger, config, audit_file],
    case maps:keys(maps:without(Known, Options)) of
        [] -> check_distribution(Options);
        [Unknown | _] -> badarg(Unknown, unknown)
    end;
check(_) ->
    badarg(options, not_a_map).

check_distribution(Options) ->
    case {is_alive(), init:get_argument(proto_dist)} of
        {false, _} -> badarg(node, not_distributed);
        {true, {ok, [["inet_tls" | _] | _]}} -> {error, {sentinel, tls_distribution}};
        {true, _} -> check_file(Options)
    end.

check_file(#{flags_file := File} = Options) ->
    case is_path(File) of
        true -> check_rest(Options#{flags_file := filename:absname(File)});
        false -> badarg(flags_file, not_a_path)
    end;
check_file(Options) ->
    case foundation_native:flags_file() of
        {ok, File} -> check_rest(Options#{flags_file => File});
        {error, Reason} -> badarg(flags_file, Reason)
    end.

check_rest(Options) ->
    All = maps:merge(#{node => default_node(), nodes => [node()], linger => 5000}, Options),
    #{node := Node, nodes := Nodes, linger := Linger} = All,
    case
        [
            {Key, Reason}
         || {Key, Reason, false} <- [
                {node, not_a_node_name, is_node_name(Node)},
                {nodes, not_a_list_of_node_names, are_node_names(Nodes)},
                {linger, not_milliseconds, is_integer(Linger) andalso Linger >= 0 andalso Linger =< 24 * 3600 * 1000},
                {config, not_a_path, is_path(maps:get(config, All, "none"))},
                {audit_file, not_a_path, is_path(maps:get(audit_file, All, "none"))}
            ]
        ]
    of
        [] -> {ok, All};
        [{Key, Reason} | _] -> badarg(Key, Reason)
    end.

badarg(Key, Reason) -> {error, {badarg, {Key, Reason}}}.

is_path(Path) when is_binary(Path) -> Path =/= <<>> andalso binary:match(Path, <<0>>) =:= nomatch;
is_path(Path) when is_list(Path) -> Path =/= [] andalso io_lib:printable_unicode_list(Path);
is_path(_) -> false.

%% length/1 in a guard: an improper list is no list of names.
are_node_names(Names) when is_list(Names), length(Names) > 0 -> lists:all(fun is_node_name/1, Names);
are_node_names(_) -> false.

is_node_name(Name) when is_atom(Name) ->
    Text = atom_to_list(Name),
    length(Text) =< 255 andalso
        case string:split(Text, "@", all) of
            [[_ | _], [_ | _]] -> true;
            _ -> false
        end;
is_node_name(_) ->
    false.

%%% the owner of the port

%% @private
init(Options) ->
    process_flag(trap_exit, true),
    Program = foundation_nif:priv_file(?PROGRAM),
    case filelib:is_regular(Program) of
        true -> start_program(Program, Options);
        false -> {stop, {sentinel, not_built}}
    end.

start_program(Program, Options) ->
    Port = open_port({spawn_executable, Program}, [{packet, 4}, {args, ["--port"]}, binary, use_stdio, exit_status, hide]),
    true = port_command(Port, term_to_binary(first_packet(Options))),
    #{node := Node} = Options,
    case await_ready(Port, erlang:monotonic_time(millisecond) + ?START_MS) of
        ok ->
            persistent_term:put(?NODE_KEY, Node),
            {ok, #{port => Port, node => Node}};
        {error, Reason} ->
            _ = catch port_close(Port),
            {stop, {sentinel, Reason}}
    end.

%% The cookie goes through the pipe: arguments and environment of a process are for everybody to read. In Latin-1, since those are the
%% bytes that a VM's own handshake takes of it; it has no other characters there.
first_packet(#{node := Node, nodes := Nodes, flags_file := File, linger := Linger} = Options) ->
    Paths = maps:map(fun(_Key, Path) -> path(Path) end, maps:with([config, audit_file], Options)),
    Paths#{
        node => Node,
        nodes => lists:usort([node() | Nodes]),
        cookie => atom_to_binary(erlang:get_cookie(Node), latin1),
        flags_file => path(File),
        linger => Linger,
        tick => tick_ms(),
        vm_pid => list_to_integer(os:getpid()),
        vm_node => node()
    }.

%% A binary has the bytes of the name already, whatever they are.
path(Path) when is_binary(Path) -> filename:absname(Path);
path(Path) -> unicode:characters_to_binary(filename:absname(Path)).

tick_ms() ->
    case net_kernel:get_net_ticktime() of
        Seconds when is_integer(Seconds) -> Seconds * 1000;
        {ongoing_change_to, Seconds} -> Seconds * 1000;
        ignored -> 60000
    end.

await_ready(Port, Deadline) ->
    receive
        {Port, {data, Packet}} ->
            case binary_to_term(Packet) of
                {ready, _Info} ->
                    ok;
                {error, Reason} ->
                    {error, reason(Reason)};
                Other ->
                    log(Other),
                    await_ready(Port, Deadline)
            end;
        {Port, {exit_status, Status}} ->
            {error, {exit_status, Status}}
    after max(0, Deadline - erlang:monotonic_time(millisecond)) ->
        {error, timeout}
    end.

reason({flags_file, Word}) -> {flags_file, binary_to_atom(Word)};
reason(Other) -> Other.

log({log, Level, Event, Detail}) ->
    logger:log(Level, "foundation_sentinel: ~ts ~ts", [Event, Detail], #{domain => [foundation_native, sentinel]});
log(_) ->
    ok.

%% @private
handle_call(bye, _From, #{port := Port} = State) ->
    _ = say_bye(Port),
    {reply, ok, State};
handle_call(_Request, _From, State) ->
    {reply, {error, unknown_request}, State}.

%% @private
handle_cast(_Message, State) ->
    {noreply, State}.

%% @private
handle_info({Port, {data, Packet}}, #{port := Port} = State) ->
    log(binary_to_term(Packet)),
    {noreply, State};
handle_info({Port, {exit_status, Status}}, #{port := Port} = State) ->
    {stop, {sentinel, {exit_status, Status}}, State};
handle_info(_Message, State) ->
    {noreply, State}.

%% @private An end in order is no crash of the VM; after any other the C node sees that the VM lives, and makes room.
terminate(Reason, #{port := Port}) ->
    _ = persistent_term:erase(?NODE_KEY),
    case Reason of
        normal -> say_bye(Port);
        shutdown -> say_bye(Port);
        {shutdown, _} -> say_bye(Port);
        _ -> ok
    end,
    catch port_close(Port).

say_bye(Port) ->
    catch port_command(Port, term_to_binary(bye)).
