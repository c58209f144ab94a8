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
    persist => undefined
}).

-spec start_link(term(), term()) -> {ok, pid()} | {error, term()}.
start_link(Name, Options) ->
    case normalise(Options) of
        {ok, Normal} -> proc_lib:start_link(?MODULE, init, [self(), Name, Normal]);
        {error, _} = Error -> Error
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
    case foundation_limiter:attach_nif(Name, Options, self()) of
        {ok, Handle, How} ->
            State = #{handle => Handle, file => opened(Name, Handle, How)},
            proc_lib:init_ack(Parent, {ok, self()}),
            gen_server:enter_loop(?MODULE, [], State);
        {error, _} = Error ->
            unlink(Parent),
            proc_lib:init_ack(Parent, Error)
    end.

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
handle_info(_Message, State) ->
    {noreply, State}.

terminate(normal, State) -> remove(State);
terminate(shutdown, State) -> remove(State);
terminate({shutdown, _}, State) -> remove(State);
terminate(_Crash, _State) -> ok.

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

%% A tuple of all options in the order that attach_nif wants; what the values mean is checked there.
normalise(Options) when is_map(Options) ->
    case unsupported(maps:to_list(Options)) of
        none ->
            All = maps:merge(?DEFAULTS, Options),
            Order = [algorithm, limit, period, burst, capacity, on_full, clock, scope, telemetry, persist],
            with_path(list_to_tuple([maps:get(Option, All) || Option <- Order]));
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

unsupported([]) -> none;
unsupported([{scope, Scope} | _]) when Scope =:= cluster; Scope =:= cluster_strict -> {scope, not_supported};
unsupported([{Option, _} | Rest]) when is_map_key(Option, ?DEFAULTS) -> unsupported(Rest);
unsupported([{Option, _} | _]) -> {Option, unknown_option}.
