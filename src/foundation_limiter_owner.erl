%% @private The owner of one limiter's table: creates it or takes it over from a predecessor that crashed, and removes it when it stops
%% in good order. It takes no part in hits, which go on without it.
-module(foundation_limiter_owner).
-behaviour(gen_server).

-export([start_link/2, deleted/1]).
-export([init/3, init/1, handle_call/3, handle_cast/2, handle_info/2, terminate/2]).

-define(DEFAULTS, #{
    algorithm => gcra,
    limit => undefined,
    period => undefined,
    burst => undefined,
    capacity => 100000,
    on_full => evict,
    clock => auto,
    scope => local,
    telemetry => false
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
        {ok, Handle, _CreatedOrAttached} ->
            proc_lib:init_ack(Parent, {ok, self()}),
            gen_server:enter_loop(?MODULE, [], Handle);
        {error, _} = Error ->
            unlink(Parent),
            proc_lib:init_ack(Parent, Error)
    end.

init(Handle) ->
    {ok, Handle}.

handle_call(_Request, _From, Handle) ->
    {reply, {error, unknown_request}, Handle}.

handle_cast(deleted, Handle) ->
    {stop, normal, Handle};
handle_cast(_Request, Handle) ->
    {noreply, Handle}.

handle_info(_Message, Handle) ->
    {noreply, Handle}.

terminate(normal, Handle) -> remove(Handle);
terminate(shutdown, Handle) -> remove(Handle);
terminate({shutdown, _}, Handle) -> remove(Handle);
terminate(_Crash, _Handle) -> ok.

remove(Handle) ->
    try foundation_limiter:remove_nif(Handle) of
        {ok, _} -> ok
    catch
        error:{badarg, {limiter, deleted}} -> ok
    end.

%% A tuple of all options in the order that attach_nif wants; what the values mean is checked there.
normalise(Options) when is_map(Options) ->
    case unsupported(maps:to_list(Options)) of
        none ->
            All = maps:merge(?DEFAULTS, maps:without([persist], Options)),
            Order = [algorithm, limit, period, burst, capacity, on_full, clock, scope, telemetry],
            {ok, list_to_tuple([maps:get(Option, All) || Option <- Order])};
        {_, _} = Wrong ->
            {error, {badarg, Wrong}}
    end;
normalise(_) ->
    {error, {badarg, {options, not_a_map}}}.

unsupported([]) -> none;
unsupported([{persist, undefined} | Rest]) -> unsupported(Rest);
unsupported([{persist, _} | _]) -> {persist, not_supported};
unsupported([{scope, Scope} | _]) when Scope =:= cluster; Scope =:= cluster_strict -> {scope, not_supported};
unsupported([{Option, _} | Rest]) when is_map_key(Option, ?DEFAULTS) -> unsupported(Rest);
unsupported([{Option, _} | _]) -> {Option, unknown_option}.
