%% @private The owner of one limiter's table: creates it or takes it over from a predecessor that crashed, and removes it when it stops
%% in good order. It takes no part in hits, which go on without it.
-module(foundation_limiter_owner).
-behaviour(gen_server).

-export([start_link/2, deleted/1]).
-export([init/3, init/1, handle_call/3, handle_cast/2, handle_info/2, terminate/2]).

-include_lib("kernel/include/logger.hrl").

%% How often the file of a table is looked after.
-define(LOOK_AFTER_MS, 5000).

-define(DEFAULTS, #{
    algorithm => gcra,
    limit => undefined,
    period => undefined,
    burst => undefined,
    capacity => 100000,
    on_full => evict,
    clock => auto,
    scope => local,
    telemetry => false,
    persist => undefined,
    cluster_timeout => undefined
}).
-define(CLUSTER_TIMEOUT, 1000).
-define(MAX_CLUSTER_TIMEOUT, 60000).

-spec start_link(term(), term()) -> {ok, pid()} | {error, term()}.
start_link(Name, Options) ->
    case normalise(Options) of
        {ok, {_, Cluster} = Normal} ->
            case Cluster =:= local orelse not is_atom(Name) orelse foundation_limiter_member:may_be_named(Name) of
                true -> proc_lib:start_link(?MODULE, init, [self(), Name, Normal]);
                false -> {error, {badarg, {name, too_long}}}
            end;
        {error, _} = Error ->
            Error
    end.

%% Tell the owner that its table is gone, and wait until it has stopped.
-spec deleted(pid()) -> ok.
deleted(Owner) when Owner =:= self() ->
    ok;
deleted(Owner) ->
    Monitor = monitor(process, Owner),
    gen_server:cast(Owner, deleted),
    receive
        {'DOWN', Monitor, process, _, _} -> ok
    end.

%% Started by proc_lib, so that a start that fails sends its starter an answer and no exit signal.
init(Parent, Name, Options) ->
    process_flag(trap_exit, true),
    case attach(Name, Options) of
        {ok, State} ->
            proc_lib:init_ack(Parent, {ok, self()}),
            gen_server:enter_loop(?MODULE, [], State);
        {error, _} = Error ->
            unlink(Parent),
            proc_lib:init_ack(Parent, Error)
    end.

attach(Name, {Native, Cluster}) ->
    case foundation_limiter:attach_nif(Name, Native, self()) of
        {ok, Handle, How} ->
            State = #{handle => Handle, file => opened(Name, Handle, How)},
            case join(Name, Handle, Cluster) of
                {ok, Membership} ->
                    {ok, State#{membership => Membership}};
                {error, _} = Error ->
                    How =:= created andalso remove(State),
                    Error
            end;
        {error, _} = Error ->
            Error
    end.

join(_Name, _Handle, local) -> {ok, none};
join(Name, Handle, {Scope, Timeout, Shared}) -> foundation_limiter_membership:join(Name, Scope, Handle, Timeout, Shared).

init(State) ->
    {ok, State}.

handle_call(_Request, _From, State) ->
    {reply, {error, unknown_request}, State}.

handle_cast(deleted, State) ->
    {stop, normal, State};
handle_cast(_Request, State) ->
    {noreply, State}.

handle_info(look_after, #{handle := Handle, file := {Name, Told}} = State) ->
    {noreply, State#{file := look_after(Name, Handle, Told)}};
handle_info(_Message, #{membership := none} = State) ->
    {noreply, State};
handle_info(Message, #{membership := Membership} = State) ->
    {ok, Next} = foundation_limiter_membership:info(Message, Membership),
    {noreply, State#{membership := Next}}.

terminate(normal, State) -> stop(State);
terminate(shutdown, State) -> stop(State);
terminate({shutdown, _}, State) -> stop(State);
terminate(_Crash, _State) -> ok.

%% The keys go to other members before the table goes.
stop(#{membership := none} = State) ->
    remove(State);
stop(#{membership := Membership} = State) ->
    ok = foundation_limiter_membership:leave(Membership),
    remove(State).

remove(#{handle := Handle}) ->
    try foundation_limiter:remove_nif(Handle, false) of
        {ok, _} -> ok
    catch
        error:{badarg, {limiter, deleted}} -> ok
    end.

%% ---- the file of a table that has one: none, or {Name, What was last said of it} ---------------------------------------------------

opened(Name, Handle, How) ->
    case foundation_limiter:look_after_nif(Handle) of
        {undefined, _, _} ->
            none;
        {Path, Dropped, _} ->
            How =:= created andalso Dropped > 0 andalso
                ?LOG_WARNING("foundation_limiter ~p: ~b slots of ~ts could not be kept", [Name, Dropped, Path]),
            look_after(Name, Handle, ok)
    end.

%% Notes the table's time there, and says once what has become of the file.
look_after(Name, Handle, Told) ->
    Result =
        try foundation_limiter:look_after_nif(Handle) of
            {_, _, Told} ->
                Told;
            {Path, _, {error, Reason} = Error} ->
                ?LOG_ERROR("foundation_limiter ~p: ~ts ~ts", [Name, Path, what_happened(Reason)]),
                Error;
            {_, _, ok} ->
                ok
        catch
            error:{badarg, {limiter, deleted}} -> Told
        end,
    _ = erlang:send_after(?LOOK_AFTER_MS, self(), look_after),
    {Name, Result}.

what_happened(faulted) -> "was truncated or overwritten; on_full answers for what is lost, until a restart with a sound file";
what_happened(enoent) -> "was removed or replaced; budgets end with this limiter";
what_happened(Reason) -> ["cannot be written: ", atom_to_list(Reason)].

%% ---- options ----------------------------------------------------------------------------------------------------------------------

%% A tuple of all options in the order that attach_nif wants, where what the values mean is checked; and what a limiter that is shared
%% with other nodes needs besides.
normalise(Options) when is_map(Options) ->
    case unsupported(maps:to_list(Options)) of
        none ->
            All = maps:merge(?DEFAULTS, Options),
            Order = [algorithm, limit, period, burst, capacity, on_full, clock, scope, telemetry, persist],
            with_cluster(with_path(list_to_tuple([maps:get(Option, All) || Option <- Order])), All);
        {_, _} = Wrong ->
            {error, {badarg, Wrong}}
    end;
normalise(_) ->
    {error, {badarg, {options, not_a_map}}}.

%% The path, which comes last, as the file system has it.
with_path(Values) ->
    Last = tuple_size(Values),
    case element(Last, Values) of
        undefined ->
            {ok, Values};
        Path ->
            case foundation_native:native_path(Path) of
                error -> {error, {badarg, {persist, not_a_path}}};
                Bytes -> {ok, setelement(Last, Values, Bytes)}
            end
    end.

with_cluster({error, _} = Error, _All) ->
    Error;
with_cluster({ok, Native}, #{scope := Scope, cluster_timeout := Timeout} = All) when Scope =:= cluster; Scope =:= cluster_strict ->
    %% What the members should agree on.
    Shared = maps:with([algorithm, limit, period, burst, scope], All),
    case Timeout of
        undefined -> {ok, {Native, {Scope, ?CLUSTER_TIMEOUT, Shared}}};
        _ when is_integer(Timeout), Timeout >= 1, Timeout =< ?MAX_CLUSTER_TIMEOUT -> {ok, {Native, {Scope, Timeout, Shared}}};
        _ when is_integer(Timeout) -> {error, {badarg, {cluster_timeout, out_of_range}}};
        _ -> {error, {badarg, {cluster_timeout, not_an_integer}}}
    end;
with_cluster({ok, Native}, #{cluster_timeout := undefined}) ->
    {ok, {Native, local}};
with_cluster({ok, _Native}, _All) ->
    {error, {badarg, {cluster_timeout, only_for_cluster}}}.

unsupported([]) -> none;
unsupported([{Option, _} | Rest]) when is_map_key(Option, ?DEFAULTS) -> unsupported(Rest);
unsupported([{Option, _} | _]) -> {Option, unknown_option}.
