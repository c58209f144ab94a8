%% The sentinel as a neighbour: calls, pings, monitors and links on it, strangers, configuration, and what it says when it cannot work.
-module(foundation_sentinel_calls_SUITE).

-include_lib("common_test/include/ct.hrl").
-include_lib("stdlib/include/assert.hrl").

-export([all/0, init_per_testcase/2, end_per_testcase/2, suite/0]).
-export([
    ping_and_calls/1,
    good_citizen/1,
    ticks/1,
    wrong_cookie/1,
    unknown_node/1,
    name_clash/1,
    rollback_and_rearm_by_call/1,
    watch_arguments/1,
    many_watches/1,
    many_questions/1,
    cookie_beyond_ascii/1,
    configured_watches/1,
    configuration_errors/1,
    command_line/1,
    bad_starts/1
]).

-export([watch_many/1, ask_many/2, answers/1]).

-import(fdn_sentinel, [vm/1, vm/2, sentinel/2, call/4, ask/3, alone/2, alone_line/2, alone_stop/1, alone_status/1]).
-import(fdn_test, [await/1]).

suite() -> [{timetrap, {minutes, 3}}].

all() -> [F || {F, 1} <- ?MODULE:module_info(exports), not lists:member(F, [module_info, watch_many, answers])].

init_per_testcase(Case, Config) -> foundation_sentinel_SUITE:init_per_testcase(Case, Config).

end_per_testcase(Case, Config) -> foundation_sentinel_SUITE:end_per_testcase(Case, Config).

stop({Peer, _}) -> fdn_test:stop_peer(Peer).

server(Node) -> {foundation_sentinel, Node}.

%% ---- calls ----

ping_and_calls(Config) ->
    Vm = vm(Config),
    {PeerB, B} = VmB = vm(Config),
    {PeerC, _} = VmC = vm(Config),
    {ok, OsPid} = sentinel(Vm, #{nodes => [B]}),
    Name = ask(Vm, sentinel_node, []),
    [Short, _] = string:split(atom_to_list(element(2, Vm)), "@"),
    ?assert(lists:prefix("foundation_sentinel_" ++ Short ++ "@", atom_to_list(Name))),
    await(fun() -> lists:member(Name, call(PeerB, erlang, nodes, [hidden])) end),
    ?assertEqual([], [N || N <- call(PeerB, erlang, nodes, [visible]), N =:= Name]),
    pong = call(PeerB, net_adm, ping, [Name]),
    Version = application_version(),
    ?assertMatch(
        #{version := Version, os_pid := OsPid, node := Name, mode := port, watches := 0, uptime_ms := _,
          nodes := #{B := #{state := up}}},
        call(PeerB, gen_server, call, [server(Name), status])
    ),
    %% an asynchronous call, and one whose tag carries no alias
    ?assertMatch({reply, #{calls := _}}, call(PeerB, fdn_sentinel, send_request, [server(Name), metrics])),
    ?assertMatch({tagged, #{}}, call(PeerB, fdn_sentinel, old_call, [server(Name), metrics, {my, "tag", 1.5}])),
    %% a node that the sentinel does not know cannot reach it: it has no listening port
    pang = call(PeerC, net_adm, ping, [Name]),
    [stop(V) || V <- [Vm, VmB, VmC]].

application_version() ->
    _ = application:load(foundation_native),
    {ok, Version} = application:get_key(foundation_native, vsn),
    list_to_binary(Version).

good_citizen(Config) ->
    {Peer, _} = Vm = vm(Config),
    {ok, _} = sentinel(Vm, #{}),
    Name = ask(Vm, sentinel_node, []),
    ?assertEqual(noproc, call(Peer, fdn_sentinel, down_of, [{nobody_here, Name}])),
    ?assertEqual(noproc, call(Peer, fdn_sentinel, down_of, [call(Peer, fdn_sentinel, foreign_pid, [Name, 77])])),
    ?assertEqual(noproc, call(Peer, fdn_sentinel, link_to, [call(Peer, fdn_sentinel, foreign_pid, [Name, 1])])),
    %% a monitor on what we are stays quiet until the connection ends
    Down = call(Peer, fdn_sentinel, start_monitor, [server(Name)]),
    ?assertMatch({badrpc, _}, call(Peer, rpc, call, [Name, erlang, node, [], 2000])),
    ?assertMatch({error, unknown_request}, call(Peer, gen_server, call, [server(Name), {make, "coffee"}])),
    Big = binary:copy(<<"x">>, 3000000),
    [
        call(Peer, erlang, send, [{To, Name}, Message])
     || To <- [foundation_sentinel, net_kernel, nobody, rex, user],
        Message <- [
            hello,
            {'$gen_call', hello, hello},
            {'$gen_call', {self(), make_ref()}, Big},
            {'$gen_cast', #{Big => Big}},
            fun() -> Big end,
            [<<1:3>> | improper],
            1 bsl 5000
        ]
    ],
    pong = call(Peer, net_adm, ping, [Name]),
    ?assertEqual(quiet, call(Peer, fdn_sentinel, monitor_state, [Down])),
    ?assertMatch(#{nodes := #{}}, ask(Vm, status, [])),
    true = call(Peer, erlang, disconnect_node, [Name]),
    await(fun() -> call(Peer, fdn_sentinel, monitor_state, [Down]) =:= noconnection end),
    stop(Vm).

%% With a net_ticktime of one second a silent connection ends after a second; this one is there after three.
ticks(Config) ->
    {_, Node} = Vm = vm(Config, #{args => ["-kernel", "net_ticktime", "1"]}),
    {ok, _} = sentinel(Vm, #{}),
    await(fun() ->
        #{uptime_ms := Up, nodes := #{Node := #{connections := 1}}} = ask_rarely(Vm),
        Up > 4000
    end),
    stop(Vm).

%% Looked at from the side that is silent in between: a call is traffic.
ask_rarely(Vm) ->
    Ref = erlang:start_timer(2000, self(), look),
    receive
        {timeout, Ref, look} -> ask(Vm, status, [])
    end.

rollback_and_rearm_by_call(Config) ->
    {Peer, _} = Vm = vm(Config),
    {ok, _} = sentinel(Vm, #{}),
    {ok, Epoch} = ask(Vm, rollback, [g, <<"too many tickets">>]),
    ?assertNot(call(Peer, foundation_flags, enabled, [f])),
    ?assertMatch(
        #{g := #{state := rolled_back, epoch := Epoch, reason := <<"too many tickets">>}}, call(Peer, foundation_flags, groups, [])
    ),
    ?assertEqual({error, {unknown_group, nowhere}}, ask(Vm, rollback, [nowhere, x])),
    ?assertEqual({error, {badarg, {group, not_an_atom}}}, ask(Vm, rollback, ["g", x])),
    ?assertEqual({error, stale_epoch}, ask(Vm, rearm, [g, Epoch + 1])),
    ?assertEqual({error, {badarg, {epoch, not_an_epoch}}}, ask(Vm, rearm, [g, now])),
    ?assertEqual(ok, ask(Vm, rearm, [g, Epoch])),
    ?assertEqual({error, not_rolled_back}, ask(Vm, rearm, [g, Epoch])),
    ?assertEqual({error, {unknown_group, nowhere}}, ask(Vm, rearm, [nowhere, 1])),
    ?assertNot(call(Peer, foundation_flags, enabled, [f])),
    ok = call(Peer, foundation_flags, set, [f, true]),
    ?assert(call(Peer, foundation_flags, enabled, [f])),
    ?assertMatch([#{event := rollback}, #{event := rearm}], ask(Vm, events, [#{}])),
    ?assertMatch([#{event := rearm}], ask(Vm, events, [#{limit => 1}])),
    stop(Vm).

watch_arguments(Config) ->
    {_, Node} = Vm = vm(Config),
    {ok, _} = sentinel(Vm, #{}),
    Watch = fun(Spec) -> ask(Vm, watch, [w, Spec]) end,
    Policy = fun(P) -> Watch(#{process => a, group => g, policy => P}) end,
    Bad = fun(Key, Reason) -> {error, {badarg, {Key, Reason}}} end,
    ?assertEqual(Bad(spec, not_a_map), Watch([])),
    ?assertEqual(Bad(group, missing), Watch(#{process => a})),
    ?assertEqual(Bad(group, not_an_atom_or_list), Watch(#{group => "g"})),
    ?assertEqual(Bad(group, not_an_atom_or_list), Watch(#{group => []})),
    ?assertEqual(Bad(group, too_many), Watch(#{group => lists:duplicate(17, g)})),
    ?assertEqual(Bad(process, not_an_atom_or_pid), Watch(#{process => "a", group => g})),
    ?assertEqual(Bad(node, not_an_atom), Watch(#{node => "a", group => g})),
    ?assertEqual(Bad(node, not_the_node_of_the_pid), Watch(#{process => self(), node => Node, group => g})),
    ?assertEqual(Bad({proces, 1}, unknown), Watch(#{{proces, 1} => a, group => g})),
    ?assertEqual(Bad(policy, not_a_map), Policy([])),
    ?assertEqual(Bad(failures, not_count_and_milliseconds), Policy(#{failures => 3})),
    ?assertEqual(Bad(failures, not_count_and_milliseconds), Policy(#{failures => {0, 1}})),
    ?assertEqual(Bad(failures, not_count_and_milliseconds), Policy(#{failures => {1, -1}})),
    ?assertEqual(Bad(failures, not_count_and_milliseconds), Policy(#{failures => {1, 1 bsl 70}})),
    ?assertEqual(Bad(down_after, not_milliseconds), Policy(#{down_after => soon})),
    ?assertEqual(Bad(dry_run, not_a_boolean), Policy(#{dry_run => 1})),
    ?assertEqual(Bad(misses, not_a_count), Policy(#{probe => #{misses => 0}})),
    ?assertEqual(Bad(retries, unknown), Policy(#{probe => #{retries => 0}})),
    ?assertEqual(Bad(metrics, not_supported), Policy(#{metrics => #{}})),
    ?assertEqual(Bad(window, unknown), Policy(#{window => 1})),
    ?assertEqual(Bad(id, too_big), ask(Vm, watch, [binary:copy(<<"x">>, 300), #{group => g}])),
    ?assertEqual({error, {unknown_group, nowhere}}, Watch(#{process => a, group => [g, nowhere]})),
    ?assertEqual({error, {unknown_node, 'nobody@nowhere'}}, Watch(#{node => 'nobody@nowhere', group => g})),
    ?assertEqual({error, {unknown_node, node()}}, Watch(#{process => self(), group => g})),
    ?assertEqual(#{}, ask(Vm, watches, [])),
    Full = #{
        process => a,
        node => Node,
        group => [g, g2],
        policy => #{
            failures => {3, 1000},
            down_after => 5,
            grace => 0,
            cooldown => 0,
            dry_run => false,
            abnormal_only => true,
            probe => #{every => 1000, timeout => 1000, misses => 3}
        }
    },
    ok = ask(Vm, watch, [{any, "id", 1}, Full]),
    ?assertMatch(#{{any, "id", 1} := #{spec := Full, node := Node, configured := false}}, ask(Vm, watches, [])),
    ok = ask(Vm, unwatch, [{any, "id", 1}]),
    ?assertEqual(#{}, ask(Vm, watches, [])),
    stop(Vm).

%% ---- alone ----

wrong_cookie(Config) ->
    {_, Node} = Vm = vm(Config),
    Alone = alone(Config, #{nodes => {list, [Node]}, cookie => "not_the_cookie"}),
    Line = alone_line(Alone, [" error wrong_cookie ", "node=" ++ atom_to_list(Node)]),
    ?assert(is_binary(Line)),
    ?assertEqual(0, alone_stop(Alone)),
    stop(Vm).

unknown_node(Config) ->
    {_, Node} = Vm = vm(Config),
    [_, Host] = string:split(atom_to_list(Node), "@"),
    Nobody = list_to_atom("nobody_of_that_name@" ++ Host),
    Nowhere = 'nobody@no-such-host.invalid',
    Alone = alone(Config, #{nodes => {list, [Nobody, Nowhere, Node]}}),
    ?assert(is_binary(alone_line(Alone, [" error unknown_node ", "node=nobody_of_that_name@"]))),
    Name = maps:get(node, Alone),
    {Peer, _} = Vm,
    await(fun() -> lists:member(Name, call(Peer, erlang, nodes, [hidden])) end),
    await(fun() ->
        #{nodes := Nodes} = call(Peer, gen_server, call, [server(Name), status]),
        case Nodes of
            #{Nobody := #{state := down, problem := unknown_node},
              Nowhere := #{state := down, problem := unknown_host},
              Node := #{state := up}} ->
                true;
            _ ->
                false
        end
    end),
    ?assertEqual(0, alone_stop(Alone)),
    stop(Vm).

name_clash(Config) ->
    {Peer, Node} = Vm = vm(Config),
    First = alone(Config, #{nodes => {list, [Node]}}),
    Name = maps:get(node, First),
    ?assert(is_binary(alone_line(First, [" node_up "]))),
    Second = alone(Config, #{nodes => {list, [Node]}, node => Name}),
    ?assert(is_binary(alone_line(Second, [" error name_clash "]))),
    ?assertEqual(5, alone_status(Second)),
    %% the first one's connection was left alone
    ?assertMatch(#{nodes := #{Node := #{connections := 1}}}, call(Peer, gen_server, call, [server(Name), status])),
    ?assertEqual(0, alone_stop(First)),
    stop(Vm).

configured_watches(Config) ->
    {Peer, Node} = Vm = vm(Config),
    Watch = #{id => w, process => victim, node => Node, group => g, policy => #{failures => {list, [2, 60000]}}},
    Alone = alone(Config, #{nodes => {list, [Node]}, watches => {list, [Watch]}}),
    ?assert(is_binary(alone_line(Alone, [" node_up "]))),
    Call = fun(Request) -> call(Peer, gen_server, call, [server(maps:get(node, Alone)), Request]) end,
    ?assertMatch(#{mode := alone}, Call(status)),
    ?assertMatch(#{w := #{configured := true, node := Node}}, Call(watches)),
    ?assertEqual({error, configured}, Call({unwatch, w})),
    ?assertEqual({error, configured}, Call({watch, w, #{group => g}})),
    ok = Call({watch, other, #{group => g}}),
    ok = Call({unwatch, other}),
    ?assertEqual(0, alone_stop(Alone)),
    %% a group that the file does not have
    Wrong = alone(Config, #{nodes => {list, [Node]}, watches => {list, [Watch#{group => nowhere}]}}),
    ?assert(is_binary(alone_line(Wrong, [" error bad_watch watch=w ", "nowhere"]))),
    ?assertEqual(3, alone_status(Wrong)),
    stop(Vm).

configuration_errors(Config) ->
    Dir = ?config(dir, Config),
    File = filename:join(Dir, "c.json"),
    Cookie = filename:join(Dir, "cookie"),
    ok = file:write_file(Cookie, "secret\n"),
    ok = file:change_mode(Cookie, 8#600),
    Check = fun(Text) ->
        ok = file:write_file(File, Text),
        run(["--config", File, "--check-config"])
    end,
    Good = #{node => 's@h', nodes => {list, ['a@h']}, cookie_file => Cookie, flags_file => "/nowhere/flags"},
    {0, _} = Check(fdn_sentinel:json(Good)),
    Says = fun(Text, Parts) ->
        {Status, Output} = Check(Text),
        ?assertEqual({Text, 3}, {Text, Status}),
        [?assertNotEqual({nomatch, Output, Part}, {string:find(Output, Part), Output, Part}) || Part <- Parts]
    end,
    Says("{\n  \"node\": }", ["c.json:2:", "near '}'"]),
    Says("[]", ["c.json:1:1: not an object"]),
    Says("{\n \"node\": \"s@h\",\n   \"colour\": 1}", ["c.json:3:4: unknown key \"colour\""]),
    Says("{\"node\": \"nowhere\"}", ["c.json:1:10: \"nowhere\" is not a node name"]),
    Says("{\"nodes\": []}", ["c.json:1:2: \"nodes\" is not a list of 1 to"]),
    Says("{\"node\": \"a@b\", \"node\": \"c@d\"}", ["duplicate"]),
    Says(fdn_sentinel:json(maps:remove(nodes, Good)), ["\"nodes\" is missing"]),
    Says(fdn_sentinel:json(maps:remove(flags_file, Good)), ["\"flags_file\" is missing"]),
    Says(fdn_sentinel:json(Good#{tick_ms => 5}), ["\"tick_ms\" is not"]),
    Watch = #{id => w, node => 'a@h', group => g},
    {0, _} = Check(fdn_sentinel:json(Good#{watches => {list, [Watch#{policy => #{failures => {list, [1, 2]}}}]}})),
    [
        Says(fdn_sentinel:json(Good#{watches => {list, [Wrong]}}), Parts)
     || {Wrong, Parts} <- [
            {maps:remove(id, Watch), ["watch 1: \"id\" is missing"]},
            {maps:remove(group, Watch), ["watch \"w\": group: missing"]},
            {maps:remove(node, Watch), ["watch \"w\": node: missing"]},
            {Watch#{polcy => #{}}, ["watch \"w\": polcy: unknown"]},
            {Watch#{policy => #{failures => 3}}, ["watch \"w\": failures: not_count_and_milliseconds"]}
        ]
    ],
    %% the cookie file
    ok = file:change_mode(Cookie, 8#644),
    Says(fdn_sentinel:json(Good), ["cookie file " ++ Cookie, "mode 0644"]),
    ok = file:change_mode(Cookie, 8#600),
    ok = file:write_file(Cookie, "\n"),
    Says(fdn_sentinel:json(Good), ["empty"]),
    ok = file:delete(Cookie),
    Says(fdn_sentinel:json(Good), ["No such file"]).

command_line(Config) ->
    Version = application_version(),
    {0, Shown} = run(["--version"]),
    ?assertNotEqual(nomatch, string:find(Shown, Version)),
    {0, Help} = run(["--help"]),
    [?assertNotEqual(nomatch, string:find(Help, Word)) || Word <- ["--config", "Exit codes", "ERL_EPMD_PORT"]],
    {2, _} = run([]),
    {2, _} = run(["--frobnicate"]),
    {2, _} = run(["--config"]),
    {3, Missing} = run(["--config", "/nowhere/config.json"]),
    ?assertNotEqual(nomatch, string:find(Missing, "/nowhere/config.json: No such file")),
    Alone = alone(Config, #{nodes => {list, ['a@h']}, flags_file => "/nowhere/flags"}),
    ?assert(is_binary(alone_line(Alone, [" error flags_file file=/nowhere/flags enoent"]))),
    ?assertEqual(4, alone_status(Alone)).

run(Args) ->
    Program = foundation_nif:priv_file("foundation_sentinel"),
    Port = open_port({spawn_executable, Program}, [{args, Args}, stderr_to_stdout, exit_status, binary]),
    output(Port, <<>>).

output(Port, Seen) ->
    receive
        {Port, {data, Data}} -> output(Port, <<Seen/binary, Data/binary>>);
        {Port, {exit_status, Status}} -> {Status, Seen}
    after 60000 -> error({still_running, Seen})
    end.

%% More watches than one frame holds, or may be queued: all are told of, and the connection stays.
many_watches(Config) ->
    {Peer, Node} = Vm = vm(Config),
    {ok, _} = sentinel(Vm, #{}),
    Ids = lists:seq(1, 8000),
    ok = call(Peer, ?MODULE, watch_many, [Ids]),
    Watches = ask(Vm, watches, []),
    ?assertEqual(Ids, lists:sort(maps:keys(Watches))),
    %% asked for at once they are refused by name
    Sentinel = ask(Vm, sentinel_node, []),
    ?assertEqual({error, too_big}, call(Peer, gen_server, call, [server(Sentinel), watches])),
    ?assertEqual({error, {badarg, {from, not_a_slot}}}, call(Peer, gen_server, call, [server(Sentinel), {watches, -1}])),
    ?assertEqual({#{}, done}, call(Peer, gen_server, call, [server(Sentinel), {watches, 1 bsl 40}])),
    ?assertMatch(#{nodes := #{Node := #{connections := 1}}}, ask(Vm, status, [])),
    stop(Vm).

%% Each specification has half a kilobyte.
watch_many(Ids) ->
    Groups = [list_to_atom(lists:duplicate(30, $a + N)) || N <- lists:seq(0, 15)],
    [ok = foundation_flags:declare(list_to_atom("flag_" ++ [hd(atom_to_list(G))]), #{group => G}) || G <- Groups],
    [ok = foundation_sentinel:watch(Id, #{process => nobody, group => Groups}) || Id <- Ids],
    ok.

%% A node that asks for more at once than it reads is told so, or answered, but does not lose its connection.
many_questions(Config) ->
    {Peer, Node} = Vm = vm(Config),
    {ok, OsPid} = sentinel(Vm, #{}),
    ok = call(Peer, ?MODULE, watch_many, [lists:seq(1, 800)]),
    fdn_sentinel:signal("STOP", OsPid),
    Asked = call(Peer, ?MODULE, ask_many, [100, ask(Vm, sentinel_node, [])]),
    %% The VM does not read while it is stopped, and the sentinel answers all hundred.
    VmPid = call(Peer, os, getpid, []),
    fdn_sentinel:signal("STOP", VmPid),
    fdn_sentinel:signal("CONT", OsPid),
    await(fun() -> asleep(OsPid) end),
    fdn_sentinel:signal("CONT", VmPid),
    Answers = call(Peer, ?MODULE, answers, [Asked]),
    ?assertEqual(100, length([ok || {#{}, Next} <- Answers, is_integer(Next)] ++ [busy || {error, busy} <- Answers])),
    ?assertMatch([_ | _], [busy || {error, busy} <- Answers]),
    ?assertMatch(#{nodes := #{Node := #{connections := 1}}}, ask(Vm, status, [])),
    stop(Vm).

ask_many(N, Sentinel) ->
    fdn_sentinel:keeper(fun() ->
        Self = self(),
        Askers = [spawn(fun() -> asker(Sentinel, Self) end) || _ <- lists:seq(1, N)],
        [receive {P, asked} -> P end || P <- Askers]
    end).

asker(Sentinel, Starter) ->
    Request = gen_server:send_request(server(Sentinel), {watches, 0}),
    Starter ! {self(), asked},
    {reply, Answer} = gen_server:receive_response(Request, 60000),
    receive
        {answer, To} -> To ! {self(), Answer}
    end.

answers(Askers) ->
    [P ! {answer, self()} || P <- Askers],
    [receive {P, Answer} -> Answer end || P <- Askers].

%% Has nothing left to do.
asleep(OsPid) ->
    {ok, Stat} = file:read_file("/proc/" ++ integer_to_list(OsPid) ++ "/stat"),
    [_, <<State, _/binary>>] = binary:split(Stat, <<") ">>),
    State =:= $S.

%% The bytes of a cookie are its characters, as Erlang's own handshake takes them.
cookie_beyond_ascii(Config) ->
    Vm = vm([{cookie, "k" ++ [16#e9] ++ "ks"} | proplists:delete(cookie, Config)]),
    ?assertMatch({ok, _}, sentinel(Vm, #{})),
    stop(Vm).

%% ---- starts that fail ----

bad_starts(Config) ->
    {Peer, Node} = Vm = vm(Config),
    Nowhere = filename:join(?config(dir, Config), "nowhere"),
    ?assertEqual({error, {sentinel, {flags_file, enoent}}}, sentinel(Vm, #{flags_file => Nowhere})),
    ?assertMatch({error, {sentinel, {config, <<_/binary>>}}}, sentinel(Vm, #{config => Nowhere})),
    ?assertEqual({error, {badarg, {colour, unknown}}}, sentinel(Vm, #{colour => red})),
    %% the name is taken by a sentinel that lives
    First = alone(Config, #{nodes => {list, [Node]}}),
    ?assert(is_binary(alone_line(First, [" node_up "]))),
    ?assertEqual({error, {sentinel, name_clash}}, sentinel(Vm, #{node => maps:get(node, First)})),
    %% and the node refuses everybody but its friends
    ?assertEqual(0, alone_stop(First)),
    ok = call(Peer, net_kernel, allow, [['friend@nowhere']]),
    ?assertEqual({error, {sentinel, not_allowed}}, sentinel(Vm, #{})),
    stop(Vm).
