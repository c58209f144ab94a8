%% Limits that two nodes share, both on this machine: what a decision costs where nobody is asked, and where the other node is.
-module(bench_cluster).

-export([rows/1, hold/1]).

-include("bench.hrl").

-define(PERIOD, 86400000).
%% Out of reach within one measurement, each of which begins with a full budget.
-define(LIMIT, 16000000).
-define(BUDGET, 10000).

-spec rows(file:filename_all()) -> {[bench:row()], fun(() -> term())}.
rows(_Dir) ->
    ok = bench:distributed(),
    {Peer, Node} = peer(),
    Options = #{algorithm => fixed_window, limit => ?LIMIT, period => ?PERIOD, capacity => 100000},
    Shared = [
        {bench_lent, Options#{scope => cluster}},
        {bench_asked, Options#{scope => cluster_strict}},
        {bench_budget, Options#{scope => cluster, limit => ?BUDGET}},
        {bench_spent, Options#{scope => cluster, limit => 1}}
    ],
    {ok, Owners} = erpc:call(Node, ?MODULE, hold, [Shared]),
    {ok, _} = erpc:call(Node, bench_field, start_server, [bench_server]),
    Own = [{bench_local, Options#{clock => precise}}, {bench_local_spent, Options#{limit => 1}}],
    [{ok, _} = foundation_limiter:start_link(Name, Of) || {Name, Of} <- Own ++ Shared],
    [ok = agreed(Name) || {Name, _} <- Shared],
    There = key(bench_lent, Node),
    Here = key(bench_lent, node()),
    Spent = key(bench_spent, Node),
    {allow, 0} = foundation_limiter:hit(bench_spent, Spent),
    {deny, _} = foundation_limiter:hit(bench_spent, Spent),
    {allow, 0} = foundation_limiter:hit(bench_local_spent, Spent),
    Hits = fun(Limiter, Key) -> {loop, fun(N) -> hits(N, {Limiter, Key}) end} end,
    Asks = {loop, fun(N) -> asks(N, {{bench_server, Node}, There}) end},
    Whole = #{
        before => fun() ->
            [ok = foundation_limiter:reset(Limiter, Key) || Limiter <- [bench_lent, bench_asked, bench_local], Key <- [There, Here]],
            %% The third one is lent.
            [{allow, _} = foundation_limiter:hit(bench_lent, Key) || Key <- [There, Here], _ <- [1, 2, 3]]
        end
    },
    Local = Hits(bench_local, There),
    Rows = [
        Whole#{
            what => "cluster: leased hit",
            against => "local hit, precise clock",
            subject => Hits(bench_lent, There),
            baseline => Local
        },
        #{
            what => "cluster: known denial",
            against => "denied local hit",
            subject => Hits(bench_spent, Spent),
            baseline => Hits(bench_local_spent, Spent)
        },
        #{
            what => "cluster: a budget of 10000, leased",
            against => "the same, local",
            trials => 3,
            subject => {trial, fun() -> budget(bench_budget, There) end},
            baseline => {trial, fun() -> budget(bench_local, There) end}
        },
        Whole#{
            what => "cluster_strict: this node keeps it",
            against => "local hit, precise clock",
            subject => Hits(bench_asked, Here),
            baseline => Local
        },
        Whole#{
            what => "cluster_strict: the other node does",
            against => "local hit, precise clock",
            subject => Hits(bench_asked, There),
            baseline => Local
        },
        Whole#{
            what => "cluster_strict: the other node does",
            against => "gen_server there",
            subject => Hits(bench_asked, There),
            baseline => Asks
        }
    ],
    {Rows, fun() ->
        [ok = foundation_limiter:delete(Name) || {Name, _} <- Own ++ Shared],
        exit(Owners, shutdown),
        peer:stop(Peer)
    end}.

%% Nanoseconds a hit of the whole budget, from a key that nobody has hit.
budget(Limiter, Key) ->
    ok = foundation_limiter:reset(Limiter, Key),
    Begin = erlang:monotonic_time(nanosecond),
    ok = hits(?BUDGET, {Limiter, Key}),
    (erlang:monotonic_time(nanosecond) - Begin) / ?BUDGET.

?LOOP(hits, {Limiter, Key}, foundation_limiter:hit(Limiter, Key)).
?LOOP(asks, {Server, Key}, bench_field:ask(Server, Key, ?PERIOD, ?LIMIT)).

%% A key that this node keeps.
key(Limiter, Node) ->
    hd([Key || N <- lists:seq(1, 1000), Key <- [<<"user:", (integer_to_binary(N))/binary>>], keeper(Limiter, Key) =:= Node]).

keeper(Limiter, Key) -> foundation_limiter_cluster:keeper(Limiter, Key).

agreed(Limiter) ->
    case foundation_limiter:info(Limiter) of
        #{members := [_, _]} ->
            ok;
        _ ->
            receive after 1 -> ok end,
            agreed(Limiter)
    end.

peer() ->
    Path = lists:append([["-pa", filename:absname(Dir)] || Dir <- code:get_path(), Dir =/= "."]),
    Args = ["+Bd", "-kernel", "inet_dist_use_interface", "{127,0,0,1}", "-foundation_native", "data_dir", "ephemeral" | Path],
    Options = #{name => bench_other, host => "127.0.0.1", longnames => true, args => Args, wait_boot => 60000},
    {ok, Peer, Node} = peer:start_link(Options),
    {ok, _} = erpc:call(Node, application, ensure_all_started, [foundation_native]),
    {Peer, Node}.

%% In the peer: limiters that live as long as the process that is given back.
-spec hold([{atom(), map()}]) -> {ok, pid()}.
hold(Limiters) ->
    Parent = self(),
    Owner = spawn(fun() ->
        [{ok, _} = foundation_limiter:start_link(Name, Options) || {Name, Options} <- Limiters],
        Parent ! {self(), started},
        receive stop -> ok end
    end),
    receive {Owner, started} -> {ok, Owner} end.
