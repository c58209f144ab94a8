%% VMs that share limiters, for the suites of cluster-wide limits. They connect only where a test says so, so that a test can split them
%% as it likes; the test itself talks to them over their standard input and output, which no split concerns.
-module(fdn_cluster).

-export([vms/1, vms/2, stop/1, kill/1, signal/2, call/4, all/4, nodes_of/1, connect/1, split/2]).
-export([start/3, start_alone/3, release/2, agreed/2, kept_of/4, key_of/3, keys_of/4, admitted/3, admitted/4]).
%% In the VMs.
-export([hold/2, unhold/1, init/1, hit_until_denied/3, hits/3, one_each/3, start_hitting/3, admitted_so_far/1, stop_hitting/1]).
-export([tried/3, question/2, caller/0, by/4, messages/1, at_once/3, big_keys_of/3, hit_big/2, hits_told/3]).
-export([collect_warnings/0, log/2, warned_of/1, turns_so_far/1]).
-export([stop_before/4, stop_here/1, stopped_hit/3, go_on/2, deaf/0, hear/1, start_call/3, answer_of/1, taking_over/1]).

-behaviour(supervisor).

-define(L, foundation_limiter).

-type vm() :: #{peer := pid(), node := node(), os_pid := string()}.
-export_type([vm/0]).

%% ---- VMs --------------------------------------------------------------------------------------------------------------------------

-spec vms(pos_integer()) -> [vm()].
vms(N) ->
    vms(N, []).

%% `Args': more of them for the VMs. Nothing but a test ends a connection, so the tick that would find a stopped VM dead is very slow.
vms(N, Args) ->
    fdn_test:distributed(),
    Vms = [vm(Args) || _ <- lists:seq(1, N)],
    connect(Vms),
    Vms.

vm(More) ->
    Args = ["-kernel", "dist_auto_connect", "never", "-kernel", "net_ticktime", "3600", "-connect_all", "false" | More],
    {Peer, Node} = fdn_test:peer(#{name => peer:random_name(), args => Args}),
    Vm = #{peer => Peer, node => Node, os_pid => peer:call(Peer, os, getpid, [])},
    {ok, _} = call(Vm, application, ensure_all_started, [foundation_native]),
    Vm.

stop(Vms) ->
    [fdn_test:stop_peer(Peer) || #{peer := Peer} <- Vms],
    ok.

%% As the kernel's OOM killer would.
kill(#{peer := Peer} = Vm) ->
    unlink(Peer),
    Monitor = monitor(process, Peer),
    signal("KILL", Vm),
    receive {'DOWN', Monitor, process, Peer, _} -> ok end.

signal(Signal, #{os_pid := OsPid}) ->
    "" = os:cmd("kill -" ++ Signal ++ " " ++ OsPid),
    ok.

call(#{peer := Peer}, M, F, A) ->
    peer:call(Peer, M, F, A, 120000).

%% In all of them at the same time; their answers.
all(Vms, M, F, A) ->
    Parent = self(),
    Callers = [spawn_link(fun() -> Parent ! {self(), call(Vm, M, F, A)} end) || Vm <- Vms],
    [receive {Caller, Answer} -> Answer end || Caller <- Callers].

nodes_of(Vms) ->
    lists:usort([Node || #{node := Node} <- Vms]).

%% Each with each.
connect(Vms) ->
    [true = call(A, net_kernel, connect_node, [B]) || #{node := Own} = A <- Vms, #{node := B} <- Vms, B > Own],
    ok.

%% No connection is left between the two sides.
split(Some, Others) ->
    [call(A, erlang, disconnect_node, [B]) || A <- Some, #{node := B} <- Others],
    Gone = fun(Vm, Away) -> call(Vm, erlang, nodes, []) -- nodes_of(Away) =:= call(Vm, erlang, nodes, []) end,
    fdn_test:await(fun() -> lists:all(fun(A) -> Gone(A, Others) end, Some) andalso lists:all(fun(B) -> Gone(B, Some) end, Others) end),
    ok.

%% ---- limiters ---------------------------------------------------------------------------------------------------------------------

%% On all of them. Then all of them see all of them.
start(Vms, Name, Options) ->
    [start_alone(Vm, Name, Options) || Vm <- Vms],
    agreed(Vms, Name).

start_alone(Vm, Name, Options) ->
    call(Vm, ?MODULE, hold, [Name, Options]).

%% Stop its supervisor.
release(Vm, Name) ->
    call(Vm, ?MODULE, unhold, [Name]).

agreed(Vms, Name) ->
    Nodes = nodes_of(Vms),
    fdn_test:await(fun() ->
        lists:all(fun(Vm) -> lists:sort(call(Vm, foundation_limiter_cluster, members, [Name])) =:= Nodes end, Vms)
    end),
    ok.

%% Those of the keys that this node keeps, as a member sees it.
kept_of(#{node := Node}, Vm, Name, Keys) ->
    [Key || Key <- Keys, call(Vm, foundation_limiter_cluster, keeper, [Name, Key]) =:= Node].

keys_of(Keeper, Vm, Name, N) ->
    lists:sublist(kept_of(Keeper, Vm, Name, lists:seq(1, 20 * N)), N).

key_of(Keeper, Vm, Name) ->
    hd(keys_of(Keeper, Vm, Name, 1)).

%% How many hits were admitted by all VMs together, with so many processes in each that hit each key until it is denied.
admitted(Vms, Name, Keys) ->
    admitted(Vms, Name, Keys, 2).

admitted(Vms, Name, Keys, Processes) ->
    lists:sum(all(Vms, ?MODULE, hit_until_denied, [Name, Keys, Processes])).

%% ---- in the VMs -------------------------------------------------------------------------------------------------------------------

%% A limiter under a supervisor, in a process that nobody waits for.
hold(Name, Options) ->
    Parent = self(),
    {Holder, Monitor} = spawn_monitor(fun() ->
        register(holder(Name), self()),
        Started = supervisor:start_link(?MODULE, {Name, Options}),
        Parent ! {self(), Started},
        receive stop -> ok end
    end),
    receive
        {Holder, {ok, _}} -> demonitor(Monitor, [flush]) andalso ok;
        {'DOWN', Monitor, process, Holder, Reason} -> error(Reason)
    end.

unhold(Name) ->
    Monitor = monitor(process, holder(Name)),
    holder(Name) ! stop,
    receive
        {'DOWN', Monitor, process, _, _} -> ok
    end,
    fdn_test:await(fun() -> ?L:whereis(Name) =:= undefined end),
    ok.

holder(Name) -> list_to_atom("holder_of_" ++ atom_to_list(Name)).

init({Name, Options}) ->
    {ok, {#{intensity => 1000, period => 1}, [?L:child_spec({Name, Options})]}}.

hit_until_denied(Name, Keys, Processes) ->
    Parent = self(),
    Go = make_ref(),
    Hitters = [
        spawn_link(fun() ->
            receive Go -> ok end,
            Parent ! {self(), lists:sum([until_denied(Name, Key, 0) || Key <- Keys])}
        end)
     || _ <- lists:seq(1, Processes)
    ],
    [Hitter ! Go || Hitter <- Hitters],
    lists:sum([receive {Hitter, N} -> N end || Hitter <- Hitters]).

until_denied(Name, Key, N) ->
    case ?L:hit(Name, Key) of
        {allow, _} -> until_denied(Name, Key, N + 1);
        {deny, _} -> N
    end.

%% One hit of each key: how many were admitted.
one_each(Name, Keys, Cost) ->
    length([Key || Key <- Keys, {allow, _} <- [?L:hit(Name, Key, Cost)]]).

hits(Name, Key, N) ->
    length([allow || _ <- lists:seq(1, N), {allow, _} <- [?L:hit(Name, Key)]]).

%% Processes that hit the keys in turn, without end.
start_hitting(Name, Keys, Processes) ->
    Counts = counters:new(length(Keys) + 1, []),
    Hitters = [spawn(fun() -> hit_in_turn(Name, lists:enumerate(Keys), Counts) end) || _ <- lists:seq(1, Processes)],
    persistent_term:put({?MODULE, Name}, {Keys, Counts, Hitters}).

%% Until the limiter is gone.
hit_in_turn(Name, Keys, Counts) ->
    try
        [counters:add(Counts, N, 1) || {N, Key} <- Keys, {allow, _} <- [?L:hit(Name, Key)]]
    of
        _ ->
            counters:add(Counts, length(Keys) + 1, 1),
            hit_in_turn(Name, Keys, Counts)
    catch
        error:{badarg, {limiter, unknown}} -> ok
    end.

%% How often all keys were hit.
turns_so_far(Name) ->
    {Keys, Counts, _} = persistent_term:get({?MODULE, Name}),
    counters:get(Counts, length(Keys) + 1).

admitted_so_far(Name) ->
    {Keys, Counts, _} = persistent_term:get({?MODULE, Name}),
    lists:sum([counters:get(Counts, N) || {N, _} <- lists:enumerate(Keys)]).

%% Each process ends between two hits. How many hits of each key were admitted.
stop_hitting(Name) ->
    {Keys, Counts, Hitters} = persistent_term:get({?MODULE, Name}),
    _ = [fdn_dist:kill_and_wait(Pid) || Pid <- Hitters],
    maps:from_list([{Key, counters:get(Counts, N)} || {N, Key} <- lists:enumerate(Keys)]).

tried(M, F, A) ->
    try
        apply(M, F, A)
    catch
        error:Reason -> {error, Reason}
    end.

%% As foundation_limiter_cluster asks.
question(Member, Question) ->
    Alias = alias([reply]),
    Member ! {foundation_limiter, Alias, Question},
    receive {Alias, Answer} -> Answer end.

%% A process that makes calls for others, and looks at its own messages only for them.
caller() ->
    spawn(fun Loop() ->
        receive
            {?MODULE, From, Fun} -> From ! {?MODULE, self(), Fun()}
        end,
        Loop()
    end).

by(Caller, Fun) ->
    Caller ! {?MODULE, self(), Fun},
    receive {?MODULE, Caller, Answer} -> Answer end.

by(Caller, M, F, A) -> by(Caller, fun() -> apply(M, F, A) end).

messages(Caller) ->
    by(Caller, fun() -> element(2, process_info(self(), messages)) end).

%% One process a call, all started before the first one calls.
at_once(M, F, Calls) ->
    Parent = self(),
    Pids = [spawn_link(fun() -> receive go -> Parent ! {self(), apply(M, F, A)} end end) || A <- Calls],
    [Pid ! go || Pid <- Pids],
    [receive {Pid, Answer} -> Answer end || Pid <- Pids].

%% As hits/3, and what telemetry was told last in this process.
hits_told(Name, Key, N) ->
    fdn_test:with_telemetry(fun() ->
        Admitted = hits(Name, Key, N),
        receive
            {telemetry, Self, [foundation_native, limiter, deny], #{count := 1}, Told} when Self =:= self() ->
                #{limiter := Limiter, key := Of, limit := Rule, cost := Cost} = Told,
                {Admitted, {Limiter, Of, Rule, Cost}}
        after 0 -> {Admitted, none}
        end
    end).

%% Keys of 1 MB, by their numbers.
big_keys_of(Name, Node, N) ->
    lists:sublist([Key || Key <- lists:seq(1, 10 * N), foundation_limiter_cluster:keeper(Name, big(Key)) =:= Node], N).

hit_big(Name, Number) ->
    ?L:hit(Name, big(Number)).

big(Number) -> binary:copy(<<Number:32>>, 250000).

%% From now on who calls this function in this VM stops before it does anything, and tells the process of that name, which lets him go.
stop_before(Module, Function, Arity, Stopper) ->
    {Module, Beam, File} = code:get_object_code(Module),
    {ok, {Module, [{abstract_code, {raw_abstract_v1, Forms}}]}} = beam_lib:chunks(Beam, [abstract_code]),
    {ok, Tokens, _} = erl_scan:string(lists:flatten(io_lib:format("fdn_cluster:stop_here(~w).", [Stopper]))),
    {ok, [Stop]} = erl_parse:parse_exprs(Tokens),
    Changed = [
        case Form of
            {function, Anno, Function, Arity, [{clause, A, Args, Guards, Body}]} ->
                {function, Anno, Function, Arity, [{clause, A, Args, Guards, [Stop | Body]}]};
            _ ->
                Form
        end
     || Form <- Forms
    ],
    {ok, Module, New} = compile:forms(Changed, []),
    {module, Module} = code:load_binary(Module, File, New),
    ok.

stop_here(Stopper) ->
    case whereis(Stopper) of
        undefined ->
            ok;
        Pid ->
            Pid ! {stopped, self()},
            receive {go_on, Pid} -> ok end
    end.

%% Hit in a process that is stopped so.
stopped_hit(Stopper, Name, Key) ->
    Parent = self(),
    spawn(fun() ->
        register(Stopper, self()),
        Hitter = spawn(fun() -> exit({answer, ?L:hit(Name, Key)}) end),
        receive {stopped, Hitter} -> unregister(Stopper) end,
        Monitor = monitor(process, Hitter),
        Parent ! {stopped, self()},
        receive go_on -> Hitter ! {go_on, self()} end,
        receive {'DOWN', Monitor, process, Hitter, {answer, Answer}} -> persistent_term:put(Stopper, Answer) end
    end),
    receive {stopped, Holder} -> Holder end.

go_on(Holder, Stopper) ->
    Monitor = monitor(process, Holder),
    Holder ! go_on,
    receive {'DOWN', Monitor, process, _, _} -> persistent_term:get(Stopper) end.

%% This VM does not hear of new members, until go_on.
deaf() ->
    spawn(fun() ->
        Pg = whereis(foundation_native),
        true = erlang:suspend_process(Pg),
        receive hear -> erlang:resume_process(Pg) end
    end).

hear(Holder) ->
    Holder ! hear,
    ok.

%% How many keys wait to be taken over.
taking_over(Name) ->
    Maps = [Map || Map <- tuple_to_list(sys:get_state(foundation_limiter_member:name(Name))), is_map(Map)],
    length([Alias || Map <- Maps, {_, {Alias, _, _, _, _}} <- maps:to_list(Map), is_reference(Alias)]).

%% An answer that is not there yet.
start_call(M, F, A) ->
    Caller = caller(),
    Caller ! {?MODULE, spawn(fun() -> receive {?MODULE, _, Answer} -> persistent_term:put(Caller, {ok, Answer}) end end), fun() ->
        apply(M, F, A)
    end},
    Caller.

answer_of(Caller) ->
    persistent_term:get(Caller, none).

%% ---- warnings that name a node ----------------------------------------------------------------------------------------------------

collect_warnings() ->
    ets:new(?MODULE, [named_table, public, bag, {heir, whereis(init), none}]),
    logger:add_handler(?MODULE, ?MODULE, #{level => warning}).

log(#{msg := {Format, Args}}, _Config) ->
    ets:insert(?MODULE, {lists:flatten(io_lib:format(Format, Args))}),
    ok;
log(_Event, _Config) ->
    ok.

warned_of(Node) ->
    lists:any(fun({Text}) -> string:find(Text, atom_to_list(Node)) =/= nomatch end, ets:tab2list(?MODULE)).
