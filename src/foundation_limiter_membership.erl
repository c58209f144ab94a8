%% @private This node's part in a cluster-wide limiter, kept up by the limiter's owner: the owner is the member of the `pg' group, and
%% has the process that answers the others (foundation_limiter_member) linked to it.
%%
%% The owner does hardly anything else, so it lives as long as the limiter; the process that answers may crash without the members
%% changing, which would move keys. Should the scope of `pg' go down, as it does with the application, the owner joins again when it is
%% back.
-module(foundation_limiter_membership).

-export([join/5, leave/1, info/2]).
-export_type([membership/0]).

-define(SCOPE, foundation_native).
-define(AGAIN_MS, 20).

-opaque membership() :: #{
    name := foundation_limiter:name(),
    scope := cluster | cluster_strict,
    handle := foundation_limiter:handle(),
    timeout := pos_integer(),
    options := #{atom() => term()},
    member := pid() | undefined,
    pg := reference() | undefined
}.

%% @doc By the owner. The members that run on other nodes are known here before this node is one of them: it would keep all keys alone
%% until it saw the others.
-spec join(foundation_limiter:name(), cluster | cluster_strict, foundation_limiter:handle(), pos_integer(), #{atom() => term()}) ->
    {ok, membership()} | {error, {badarg, {scope, application_not_started}}}.
join(Name, Scope, Handle, Timeout, Options) ->
    Alone = #{
        name => Name,
        scope => Scope,
        handle => Handle,
        timeout => Timeout,
        options => Options,
        member => undefined,
        pg => undefined
    },
    case joined(Alone) of
        {ok, _} = Joined -> Joined;
        not_running -> {error, {badarg, {scope, application_not_started}}}
    end.

joined(State = #{name := Name, timeout := Timeout}) ->
    Group = foundation_limiter_cluster:group(Name),
    Monitor = monitor(process, ?SCOPE),
    try
        ok = synchronised(Group, Timeout),
        Started = started(entered(State#{pg := Monitor})),
        ok = pg:join(?SCOPE, Group, self()),
        {ok, Started}
    catch
        throw:not_running ->
            demonitored(Monitor);
        %% What pg says where its scope does not run, by the way in which it is called.
        error:badarg ->
            demonitored(Monitor);
        exit:{noproc, _} ->
            demonitored(Monitor)
    end.

demonitored(Monitor) ->
    true = demonitor(Monitor, [flush]),
    not_running.

entered(State = #{name := Name, scope := Scope, handle := Handle, timeout := Timeout, options := Options}) ->
    Before = lists:usort(foundation_limiter_cluster:members(Name)),
    Past = foundation_limiter_handover:past(Options, Before, foundation_limiter_cluster:now_ms()),
    Preset = map_get(period, Options) =/= undefined,
    case foundation_limiter_cluster:enter(Name, Scope, Handle, Preset, Past, Timeout) of
        true -> State;
        false -> throw(not_running)
    end.

started(State = #{name := Name, handle := Handle, options := Options, timeout := Timeout}) ->
    case foundation_limiter_member:start_link(Name, Handle, Options, Timeout) of
        {ok, Member} ->
            State#{member := Member};
        {error, {already_started, Old}} ->
            %% Of an owner that was killed; it goes, too.
            Monitor = monitor(process, Old),
            receive
                {'DOWN', Monitor, process, Old, _} -> started(State)
            end;
        {error, {noproc, _}} ->
            throw(not_running)
    end.

%% `pg' learns of other nodes' members some time after the nodes are connected. Ask them, and wait for that.
synchronised(Group, Timeout) ->
    Nodes = nodes(),
    Answers = erpc:multicall(Nodes, pg, get_local_members, [?SCOPE, Group], Timeout),
    There = lists:append([Pids || {ok, Pids} <- Answers]),
    known(Group, There, erlang:monotonic_time(millisecond) + Timeout).

known(Group, There, Deadline) ->
    case There -- pg:get_members(?SCOPE, Group) of
        [] ->
            ok;
        [_ | _] ->
            case erlang:monotonic_time(millisecond) < Deadline of
                true ->
                    receive after 1 -> ok end,
                    known(Group, There, Deadline);
                false ->
                    %% They ended meanwhile, or their nodes are out of reach.
                    ok
            end
    end.

%% @doc The keys of this node move to the others.
-spec leave(membership()) -> ok.
leave(#{name := Name, member := Member, pg := Monitor}) ->
    _ = Monitor =:= undefined orelse demonitor(Monitor, [flush]),
    try
        _ = pg:leave(?SCOPE, foundation_limiter_cluster:group(Name), self()),
        ok
    catch
        exit:_ -> ok
    end,
    _ = Member =:= undefined orelse stopped(Member),
    foundation_limiter_cluster:remove(Name).

stopped(Member) ->
    unlink(Member),
    Monitor = monitor(process, Member),
    exit(Member, shutdown),
    receive
        {'DOWN', Monitor, process, Member, _} -> ok
    end,
    receive
        {'EXIT', Member, _} -> ok
    after 0 -> ok
    end.

%% @doc What the owner was told.
-spec info(term(), membership()) -> {ok, membership()}.
info({'EXIT', Member, _Reason}, State = #{member := Member}) ->
    try
        {ok, started(State)}
    catch
        %% It starts with the next joining.
        throw:not_running -> {ok, State#{member := undefined}}
    end;
info({'DOWN', Monitor, process, _, _}, State = #{pg := Monitor}) ->
    again(State#{pg := undefined});
info({?MODULE, again}, State = #{pg := undefined, member := Member}) ->
    _ = Member =:= undefined orelse stopped(Member),
    case joined(State#{member := undefined}) of
        {ok, _} = Joined -> Joined;
        not_running -> again(State#{member := undefined})
    end;
info(_Message, State) ->
    {ok, State}.

again(State) ->
    _ = erlang:send_after(?AGAIN_MS, self(), {?MODULE, again}),
    {ok, State}.
