%% The sentinel against real VMs: what ends, hangs, dies, comes back and says goodbye.
-module(foundation_sentinel_SUITE).

-include_lib("common_test/include/ct.hrl").
-include_lib("stdlib/include/assert.hrl").

-export([all/0, init_per_testcase/2, end_per_testcase/2, suite/0]).
-export([
    downs_of_names/1,
    downs_of_pids/1,
    old_incarnation/1,
    without_the_flag_no_down_arrives/1,
    crash_loop_rolls_back/1,
    order_of_a_trip/1,
    several_groups/1,
    dry_run_touches_nothing/1,
    killed_vm/1,
    killed_vm_seen_alone/1,
    orderly_stop/1,
    killed_after_bye/1,
    bye_to_a_sentinel_alone/1,
    stopped_vm_is_rolled_back/1,
    probe_sees_a_stopped_vm/1,
    same_name_again/1,
    late_node_hears_of_it/1,
    lost_connection_is_no_death/1,
    owner_killed/1,
    sentinel_killed/1,
    sentinel_stopped/1
]).

-import(fdn_sentinel, [vm/1, vm/2, sentinel/2, call/4, ask/3, watch_state/2, alone/2, alone_line/2, alone_stop/1]).
-import(fdn_test, [await/1]).

suite() -> [{timetrap, {minutes, 3}}].

all() -> [F || {F, 1} <- ?MODULE:module_info(exports), F =/= module_info].

init_per_testcase(Case, Config) ->
    ?assert(is_alive(), "this suite needs a node name: rebar3 ct --sname NAME"),
    Cookie = "fdn" ++ integer_to_list(erlang:unique_integer([positive])) ++ os:getpid(),
    [{dir, fdn_test:tmp_dir(atom_to_list(Case))}, {cookie, Cookie} | Config].

end_per_testcase(_Case, Config) ->
    _ = fdn_sentinel:end_all(Config),
    fdn_test:del_dir(?config(dir, Config)).

%% ---- helpers ----

enabled({Peer, _}, Flag) -> call(Peer, foundation_flags, enabled, [Flag]).

off(Vm, Flag) -> await(fun() -> not enabled(Vm, Flag) end).

armed(Vm, Id) -> await(fun() -> element(1, watch_state(Vm, Id)) =:= armed end).

failures(Vm, Id, N) -> await(fun() -> element(2, watch_state(Vm, Id)) =:= N end).

exit_named({Peer, _}, Name, Reason) ->
    Pid = call(Peer, erlang, whereis, [Name]),
    call(Peer, erlang, send, [Pid, {exit, Reason}]).

named({Peer, _}, Name) -> call(Peer, fdn_sentinel, spawn_named, [Name]).

os_pid({Peer, _}) -> list_to_integer(call(Peer, os, getpid, [])).

%% Everything a node has sent before its answer to this call has been handled when the answer is here.
downs(Vm) -> maps:get(downs, ask(Vm, metrics, [])).

stop({Peer, _}) -> fdn_test:stop_peer(Peer).

node_of({_, Node}) -> Node.

up(Vm, Node) ->
    case ask(Vm, status, []) of
        #{nodes := #{Node := #{state := State}}} -> State =:= up;
        _ -> false
    end.

%% ---- the seven ends of a process ----

downs_of_names(Config) ->
    Vm = vm(Config),
    {ok, _} = sentinel(Vm, #{}),
    ok = ask(Vm, watch, [w, #{process => victim, group => g, policy => #{failures => {100, 60000}}}]),
    ?assertMatch(#{w := #{state := S}} when S =:= absent; S =:= armed, ask(Vm, watches, [])),
    %% an unknown name
    await(fun() -> watch_state(Vm, w) =:= {absent, 0, <<>>} end),
    %% killed
    named(Vm, victim),
    armed(Vm, w),
    {Peer, _} = Vm,
    Pid = call(Peer, erlang, whereis, [victim]),
    true = call(Peer, erlang, exit, [Pid, kill]),
    failures(Vm, w, 1),
    {_, 1, <<"exit: killed">>} = watch_state(Vm, w),
    %% a reason of 500 KB, and one that no frame of ours holds
    named(Vm, victim),
    armed(Vm, w),
    exit_named(Vm, victim, {big, binary:copy(<<"x">>, 500000)}),
    failures(Vm, w, 2),
    ?assertMatch({_, 2, <<"exit: {big,", _/binary>>}, watch_state(Vm, w)),
    named(Vm, victim),
    armed(Vm, w),
    exit_named(Vm, victim, {big, binary:copy(<<"x">>, 5000000)}),
    failures(Vm, w, 3),
    %% ends in order are seen and not counted
    Before = downs(Vm),
    [
        begin
            named(Vm, victim),
            armed(Vm, w),
            exit_named(Vm, victim, Reason),
            await(fun() -> element(1, watch_state(Vm, w)) =:= absent end)
        end
     || Reason <- [normal, shutdown, {shutdown, binary:copy(<<"x">>, 2000000)}]
    ],
    ?assert(downs(Vm) >= Before + 3),
    ?assertMatch({absent, 3, _}, watch_state(Vm, w)),
    ?assert(enabled(Vm, f)),
    stop(Vm).

downs_of_pids(Config) ->
    {Peer, _} = Vm = vm(Config),
    {ok, _} = sentinel(Vm, #{}),
    [A, B] = [named(Vm, N) || N <- [a, b]],
    Policy = #{failures => {100, 60000}},
    [ok = ask(Vm, watch, [P, #{process => P, group => g, policy => Policy}]) || P <- [A, B]],
    [armed(Vm, P) || P <- [A, B]],
    true = call(Peer, erlang, exit, [A, kill]),
    failures(Vm, A, 1),
    {gone, 1, <<"exit: killed">>} = watch_state(Vm, A),
    exit_named(Vm, b, normal),
    await(fun() -> watch_state(Vm, B) =:= {gone, 0, <<>>} end),
    %% dead before it is watched
    ok = ask(Vm, watch, [again, #{process => A, group => g}]),
    await(fun() -> watch_state(Vm, again) =:= {gone, 0, <<>>} end),
    %% a demonitor is respected
    C = named(Vm, c),
    ok = ask(Vm, watch, [c, #{process => C, group => g}]),
    armed(Vm, c),
    ok = ask(Vm, unwatch, [c]),
    ?assertEqual({error, unknown_watch}, ask(Vm, unwatch, [c])),
    Before = downs(Vm),
    true = call(Peer, erlang, exit, [C, kill]),
    D = named(Vm, d),
    ok = ask(Vm, watch, [d, #{process => D, group => g}]),
    true = call(Peer, erlang, exit, [D, kill]),
    await(fun() -> element(1, watch_state(Vm, d)) =:= gone end),
    ?assertEqual(Before + 1, downs(Vm)),
    stop(Vm).

%% A pid of the VM that had this name before.
old_incarnation(Config) ->
    Name = list_to_atom(peer:random_name("fdnold")),
    First = vm(Config, #{name => Name}),
    Pid = named(First, victim),
    fdn_sentinel:kill_vm(First, os_pid(First)),
    Vm = vm(Config, #{name => Name}),
    {ok, _} = sentinel(Vm, #{}),
    ok = ask(Vm, watch, [old, #{process => Pid, group => g}]),
    await(fun() -> watch_state(Vm, old) =:= {gone, 0, <<>>} end),
    stop(Vm).

%% What ei announces lacks DFLAG_DIST_MONITOR_NAME; what we announce has it. Everything else is the same.
without_the_flag_no_down_arrives(Config) ->
    {Peer, Node} = Vm = vm(Config, #{flags => false}),
    Down = fun(Flags) ->
        Pid = named(Vm, victim),
        Conn = fdn_dist:connect(Node, ?config(cookie, Config), Flags),
        Ref = fdn_dist:monitor_name(Conn, victim),
        yes = fdn_dist:ping(Conn),
        Local = call(Peer, fdn_dist, kill_and_wait, [Pid]),
        ?assertEqual(killed, Local),
        Seen = fdn_dist:seen_until_pong(Conn),
        fdn_dist:close(Conn),
        lists:any(
            fun
                ({21, victim, _, R, killed}) -> R =:= Ref;
                (_) -> false
            end,
            Seen
        )
    end,
    ?assert(Down(16#407074fbc)),
    ?assertNot(Down(16#407074f9c)),
    stop(Vm).

%% ---- trips ----

crash_loop_rolls_back(Config) ->
    {Peer, _} = Vm = vm(Config),
    {ok, _} = sentinel(Vm, #{}),
    ok = ask(Vm, watch, [w, #{process => victim, group => g, policy => #{failures => {3, 60000}}}]),
    ok = call(Peer, fdn_dist, crash_loop, [victim, f]),
    off(Vm, f),
    ?assertMatch(#{g := #{state := rolled_back}, g2 := #{state := armed}}, call(Peer, foundation_flags, groups, [])),
    ?assertEqual({error, rolled_back}, call(Peer, foundation_flags, set, [f, true])),
    ?assert(enabled(Vm, f2)),
    ?assertMatch(#{w := #{trips := 1, failures := 3}}, ask(Vm, watches, [])),
    ?assertMatch(#{trips := 1}, ask(Vm, metrics, [])),
    ?assertMatch([#{event := rollback, group := g, watch := <<"w">>, epoch := _}], ask(Vm, events, [#{}])),
    stop(Vm).

%% The file, then the audit line, then the nodes: at the message's arrival the first two are there.
order_of_a_trip(Config) ->
    {_, _} = Vm = vm(Config),
    {PeerB, B} = VmB = vm(Config, #{flags => false}),
    true = call(PeerB, fdn_sentinel, relay, [foundation_flags]),
    Audit = filename:join(?config(dir, Config), "audit"),
    {ok, _} = sentinel(Vm, #{nodes => [B], audit_file => Audit}),
    await(fun() -> up(Vm, B) end),
    named(Vm, victim),
    ok = ask(Vm, watch, [w, #{process => victim, group => [g], policy => #{failures => {1, 1000}}}]),
    armed(Vm, w),
    exit_named(Vm, victim, boom),
    [{foundation_sentinel, rolled_back, g, Epoch, Reason, Uuid}] =
        await(fun() ->
            case call(PeerB, fdn_sentinel, relayed, []) of
                [] -> false;
                Messages -> Messages
            end
        end),
    ?assertNot(enabled(Vm, f)),
    {ok, Lines} = file:read_file(Audit),
    ?assertMatch([_], string:split(string:trim(Lines), "\n", all)),
    ?assertNotEqual(nomatch, string:find(Lines, "\"event\":\"rollback\",\"group\":\"g\",\"epoch\":" ++ integer_to_list(Epoch))),
    ?assertEqual(<<"watch w: exit: boom">>, Reason),
    ?assertMatch(#{flags_uuid := Uuid}, ask(Vm, status, [])),
    ?assertEqual(16, byte_size(Uuid)),
    stop(Vm),
    stop(VmB).

several_groups(Config) ->
    Vm = vm(Config),
    {ok, _} = sentinel(Vm, #{}),
    named(Vm, victim),
    ok = ask(Vm, watch, [w, #{process => victim, group => [g, g2], policy => #{failures => {1, 1000}}}]),
    armed(Vm, w),
    exit_named(Vm, victim, boom),
    off(Vm, f),
    off(Vm, f2),
    %% a second trip of a group that is rolled back makes no new epoch
    named(Vm, victim),
    armed(Vm, w),
    exit_named(Vm, victim, boom),
    await(fun() -> length(ask(Vm, events, [#{}])) =:= 4 end),
    ?assertMatch([rollback, rollback, already_rolled_back, already_rolled_back], [E || #{event := E} <- ask(Vm, events, [#{}])]),
    stop(Vm).

dry_run_touches_nothing(Config) ->
    Vm = vm(Config),
    {ok, _} = sentinel(Vm, #{}),
    named(Vm, victim),
    ok = ask(Vm, watch, [w, #{process => victim, group => g, policy => #{failures => {1, 1000}, dry_run => true}}]),
    armed(Vm, w),
    exit_named(Vm, victim, boom),
    await(fun() -> ask(Vm, events, [#{}]) =/= [] end),
    ?assertMatch([#{event := dry_run, group := g}], ask(Vm, events, [#{}])),
    ?assert(enabled(Vm, f)),
    stop(Vm).

%% ---- nodes ----

killed_vm(Config) ->
    Vm = vm(Config),
    Witness = vm(Config),
    {ok, Sentinel} = sentinel(Vm, #{linger => 100}),
    ok = ask(Vm, watch, [node, #{group => g}]),
    fdn_sentinel:kill_vm(Vm, os_pid(Vm)),
    off(Witness, f),
    ?assertMatch(#{g := #{reason := <<"watch node: node dead: vm_died">>}}, call(element(1, Witness), foundation_flags, groups, [])),
    await(fun() -> not fdn_sentinel:os_alive(Sentinel) end),
    stop(Witness).

killed_vm_seen_alone(Config) ->
    {_, Node} = Vm = vm(Config),
    {_, WitnessNode} = Witness = vm(Config),
    Alone = alone(Config, #{
        nodes => {list, [Node, WitnessNode]},
        watches => {list, [#{id => node, node => Node, group => g, policy => #{down_after => 3600000}}]}
    }),
    [alone_line(Alone, [" node_up "]) || _ <- [1, 2]],
    fdn_sentinel:kill_vm(Vm, os_pid(Vm)),
    off(Witness, f),
    ?assertEqual(0, alone_stop(Alone)),
    stop(Witness).

%% The application with its sentinel, stopped as a deploy stops it.
orderly_stop(Config) ->
    File = filename:join(?config(dir, Config), "flags"),
    Witness = vm(Config),
    {Peer, _} = Vm = vm(Config, #{flags => false}),
    _ = call(Peer, application, load, [foundation_native]),
    [
        ok = call(Peer, application, set_env, [foundation_native, Key, Value])
     || {Key, Value} <- [{data_dir, ?config(dir, Config)}, {flags_file, File}, {sentinel, #{}}]
    ],
    {ok, _} = call(Peer, application, ensure_all_started, [foundation_native]),
    #{os_pid := Sentinel} = ask(Vm, status, []),
    ok = ask(Vm, watch, [node, #{group => g}]),
    ok = ask(Vm, watch, [process, #{process => foundation_flags, group => g, policy => #{failures => {1, 1000}}}]),
    armed(Vm, process),
    OsPid = os_pid(Vm),
    unlink(Peer),
    ok = call(Peer, init, stop, []),
    await(fun() -> not fdn_sentinel:os_alive(OsPid) end),
    await(fun() -> not fdn_sentinel:os_alive(Sentinel) end),
    ?assert(enabled(Witness, f)),
    stop(Witness).

%% A VM that goes right after its goodbye, as one does whose stop takes too long for its supervisor.
killed_after_bye(Config) ->
    {Peer, _} = Vm = vm(Config),
    Witness = vm(Config),
    {ok, Sentinel} = sentinel(Vm, #{}),
    ok = ask(Vm, watch, [node, #{group => g}]),
    state = call(Peer, foundation_native_app, prep_stop, [state]),
    fdn_sentinel:kill_vm(Vm, os_pid(Vm)),
    await(fun() -> not fdn_sentinel:os_alive(Sentinel) end),
    ?assert(enabled(Witness, f)),
    stop(Witness).

bye_to_a_sentinel_alone(Config) ->
    {Peer, Node} = Vm = vm(Config),
    {WPeer, WitnessNode} = Witness = vm(Config),
    Alone = alone(Config, #{
        nodes => {list, [Node, WitnessNode]},
        watches => {list, [#{id => node, node => Node, group => g}]}
    }),
    [alone_line(Alone, [" node_up "]) || _ <- [1, 2]],
    ok = call(Peer, foundation_sentinel, bye, []),
    OsPid = os_pid(Vm),
    fdn_sentinel:kill_vm(Vm, OsPid),
    _ = alone_line(Alone, [" node_dead "]),
    Status = call(WPeer, gen_server, call, [{foundation_sentinel, maps:get(node, Alone)}, status]),
    ?assertMatch(#{nodes := #{Node := #{state := dead}}}, Status),
    ?assert(enabled(Witness, f)),
    ?assertEqual(0, alone_stop(Alone)),
    stop(Witness).

%% One VM is stopped, another one's process crashes: the file is off before the first goes on.
stopped_vm_is_rolled_back(Config) ->
    Stopped = vm(Config),
    {_, B} = Crashing = vm(Config),
    {ok, _} = sentinel(Stopped, #{nodes => [B]}),
    {ok, SentinelNode} = {ok, ask(Stopped, sentinel_node, [])},
    await(fun() -> up(Stopped, B) end),
    named(Crashing, victim),
    ok = ask(Stopped, watch, [w, #{process => victim, node => B, group => g, policy => #{failures => {1, 1000}}}]),
    armed(Stopped, w),
    OsPid = os_pid(Stopped),
    fdn_sentinel:signal("STOP", OsPid),
    exit_named(Crashing, victim, boom),
    off(Crashing, f),
    pong = call(element(1, Crashing), net_adm, ping, [SentinelNode]),
    fdn_sentinel:signal("CONT", OsPid),
    ?assertNot(enabled(Stopped, f)),
    [stop(V) || V <- [Stopped, Crashing]].

probe_sees_a_stopped_vm(Config) ->
    Vm = vm(Config),
    Witness = vm(Config),
    {ok, _} = sentinel(Vm, #{}),
    ok = ask(Vm, watch, [alive, #{group => g, policy => #{probe => #{every => 20, timeout => 100, misses => 3}}}]),
    OsPid = os_pid(Vm),
    fdn_sentinel:signal("STOP", OsPid),
    off(Witness, f),
    fdn_sentinel:signal("CONT", OsPid),
    ?assertNot(enabled(Vm, f)),
    ?assertMatch(#{alive := #{trips := 1, last := <<"node does not answer probes">>}}, ask(Vm, watches, [])),
    [stop(V) || V <- [Vm, Witness]].

same_name_again(Config) ->
    Name = list_to_atom(peer:random_name("fdnagain")),
    {_, Node} = First = vm(Config, #{name => Name}),
    Alone = alone(Config, #{
        nodes => {list, [Node]},
        watches => {list, [#{id => w, process => victim, node => Node, group => g, policy => #{failures => {list, [2, 60000]}}}]}
    }),
    named(First, victim),
    alone_line(Alone, [" node_up "]),
    fdn_sentinel:kill_vm(First, os_pid(First)),
    alone_line(Alone, [" node_lost "]),
    Second = vm(Config, #{name => Name}),
    named(Second, victim),
    alone_line(Alone, [" node_up "]),
    Ask = fun() ->
        {P, _} = Second,
        #{w := #{state := State}} = call(P, gen_server, call, [{foundation_sentinel, maps:get(node, Alone)}, watches]),
        State =:= armed
    end,
    [
        begin
            await(Ask),
            exit_named(Second, victim, boom),
            N =:= 2 orelse named(Second, victim)
        end
     || N <- [1, 2]
    ],
    off(Second, f),
    ?assertEqual(0, alone_stop(Alone)),
    stop(Second).

%% A node that was away when the group was rolled back is told when it comes.
late_node_hears_of_it(Config) ->
    Name = peer:random_name("fdnlate"),
    [_, Host] = string:split(atom_to_list(node()), "@"),
    Late = list_to_atom(Name ++ "@" ++ Host),
    Vm = vm(Config),
    {ok, _} = sentinel(Vm, #{nodes => [node_of(Vm), Late]}),
    {ok, Epoch} = ask(Vm, rollback, [g, <<"by hand">>]),
    {Peer, Late} = VmB = vm(Config, #{name => list_to_atom(Name), flags => false}),
    true = call(Peer, fdn_sentinel, relay, [foundation_flags]),
    %% the name was not there yet when the connection came up: have it come up once more
    Sentinel = ask(Vm, sentinel_node, []),
    Told = await(fun() ->
        case call(Peer, fdn_sentinel, relayed, []) of
            [] ->
                _ = call(Peer, erlang, disconnect_node, [Sentinel]),
                false;
            [Message | _] ->
                Message
        end
    end),
    ?assertMatch({foundation_sentinel, rolled_back, g, Epoch, <<"by hand">>, <<_:16/binary>>}, Told),
    [stop(V) || V <- [Vm, VmB]].

lost_connection_is_no_death(Config) ->
    {Peer, Node} = Vm = vm(Config),
    {ok, _} = sentinel(Vm, #{}),
    ok = ask(Vm, watch, [node, #{group => g, policy => #{down_after => 3600000}}]),
    named(Vm, victim),
    ok = ask(Vm, watch, [w, #{process => victim, group => g}]),
    armed(Vm, w),
    Sentinel = ask(Vm, sentinel_node, []),
    true = call(Peer, erlang, disconnect_node, [Sentinel]),
    await(fun() ->
        case ask(Vm, status, []) of
            #{nodes := #{Node := #{connections := N, state := up}}} -> N >= 2;
            _ -> false
        end
    end),
    armed(Vm, w),
    ?assertMatch(#{node := #{failures := 0}, w := #{failures := 0}}, ask(Vm, watches, [])),
    ?assert(enabled(Vm, f)),
    stop(Vm).

%% The owner process dies, the VM does not: no outage, and the next sentinel starts at once under the same name.
owner_killed(Config) ->
    {Peer, _} = Vm = vm(Config),
    {ok, First} = sentinel(Vm, #{}),
    ok = ask(Vm, watch, [node, #{group => g}]),
    true = call(Peer, erlang, exit, [call(Peer, erlang, whereis, [foundation_sentinel]), kill]),
    await(fun() -> call(Peer, erlang, whereis, [foundation_sentinel]) =:= undefined end),
    {ok, Second} = sentinel(Vm, #{}),
    ?assertNotEqual(First, Second),
    await(fun() -> not fdn_sentinel:os_alive(First) end),
    ?assert(enabled(Vm, f)),
    ?assertMatch(#{os_pid := Second}, ask(Vm, status, [])),
    stop(Vm).

sentinel_killed(Config) ->
    {Peer, _} = Vm = vm(Config),
    {ok, First} = sentinel(Vm, #{}),
    Owner = call(Peer, erlang, whereis, [foundation_sentinel]),
    fdn_sentinel:signal("KILL", First),
    await(fun() -> not call(Peer, erlang, is_process_alive, [Owner]) end),
    ?assertMatch({error, {sentinel, {not_connected, _}}}, ask(Vm, status, [])),
    {ok, Second} = sentinel(Vm, #{}),
    ?assertNotEqual(First, Second),
    stop(Vm).

%% Our own pause looks like everybody else's silence. The VM gives the connection up meanwhile, which says that the pause was long.
sentinel_stopped(Config) ->
    {Peer, Node} = Vm = vm(Config, #{args => ["-kernel", "net_ticktime", "1"]}),
    {ok, OsPid} = sentinel(Vm, #{}),
    Policy = #{down_after => 500, probe => #{every => 50, timeout => 200, misses => 2}},
    ok = ask(Vm, watch, [node, #{group => g, policy => Policy}]),
    Sentinel = ask(Vm, sentinel_node, []),
    fdn_sentinel:signal("STOP", OsPid),
    await(fun() -> not lists:member(Sentinel, call(Peer, erlang, nodes, [hidden])) end),
    fdn_sentinel:signal("CONT", OsPid),
    await(fun() ->
        case ask(Vm, status, []) of
            #{nodes := #{Node := #{connections := N, state := up}}} -> N >= 2;
            _ -> false
        end
    end),
    ?assertMatch(#{node := #{failures := 0}}, ask(Vm, watches, [])),
    ?assert(enabled(Vm, f)),
    stop(Vm).
