%% @private The owner of one open store: opens it or takes it over from a predecessor that crashed, and closes it when it stops in good
%% order. It takes no part in reads and writes, which go on without it.
-module(foundation_snapshot_owner).
-behaviour(gen_server).

-include_lib("kernel/include/logger.hrl").

-export([start_link/2, start_link/3, closed/1]).
-export([init/4, init/1, handle_call/3, handle_cast/2, handle_info/2, terminate/2]).

%% `Normal' comes from foundation_snapshot:normalise/2.
-spec start_link(foundation_snapshot:name(), tuple()) -> {ok, pid()} | {error, term()}.
start_link(Name, Normal) ->
    start_link(linked, Name, Normal).

%% `ours': under foundation_snapshot_sup. There a store that has a living owner is no failure: while the supervisor was about to restart
%% a dead owner, an open/2 may have started its successor, and a restart that fails is repeated until the supervisor gives up.
-spec start_link(ours | linked, foundation_snapshot:name(), tuple()) -> {ok, pid()} | {error, term()}.
start_link(Whose, Name, Normal) ->
    proc_lib:start_link(?MODULE, init, [self(), Whose, Name, Normal]).

%% Tell the owner that its store was closed, and wait until it has stopped.
-spec closed(pid()) -> ok.
closed(Owner) when Owner =:= self() ->
    ok;
closed(Owner) ->
    Monitor = monitor(process, Owner),
    gen_server:cast(Owner, closed),
    receive
        {'DOWN', Monitor, process, _, _} -> ok
    end.

%% Started by proc_lib, so that a start that fails sends its starter an answer and no exit signal.
init(Parent, Whose, Name, {Path, Durability, Interval, SegmentBytes, MaxBytes}) ->
    process_flag(trap_exit, true),
    case foundation_snapshot:open_nif(Name, Path, Durability, Interval, SegmentBytes, MaxBytes, zeros_equal(), self()) of
        {ok, Store} ->
            report_cut(Name, Store),
            proc_lib:init_ack(Parent, {ok, self()}),
            gen_server:enter_loop(?MODULE, [], {Name, Store});
        {already_started, _Living} when Whose =:= ours ->
            proc_lib:init_ack(Parent, {ok, self()});
        Failed ->
            unlink(Parent),
            proc_lib:init_ack(Parent, {error, reason(Failed)})
    end.

init(State) ->
    {ok, State}.

handle_call(_Request, _From, State) ->
    {reply, {error, unknown_request}, State}.

handle_cast(closed, {Name, _Store}) ->
    {stop, normal, {Name, undefined}};
handle_cast(_Request, State) ->
    {noreply, State}.

handle_info(_Message, State) ->
    {noreply, State}.

terminate(_Reason, {_Name, undefined}) ->
    ok;
terminate(_Reason, {Name, Store}) ->
    try foundation_snapshot:close_nif(Store) of
        {ok, _} -> ok;
        {{error, Reason}, _} -> ?LOG_ERROR("foundation_snapshot ~p: closed, but not flushed: ~p", [Name, Reason])
    catch
        error:{badarg, {store, closed}} -> ok
    end.

report_cut(Name, Store) ->
    case foundation_snapshot:info(Store) of
        #{recovered_cut := Cut} when Cut > 0 -> ?LOG_WARNING("foundation_snapshot ~p: cut a torn tail of ~b bytes", [Name, Cut]);
        _ -> ok
    end.

%% Whether 0.0 and -0.0 are one key in this VM (they are before OTP 27). Written so that no compiler knows the answer.
zeros_equal() ->
    binary_to_term(<<131, 70, 0:64>>) =:= binary_to_term(<<131, 70, 1:1, 0:63>>).

reason({open_failed, locked, _Path, _Offset, OsPid}) -> {locked, OsPid};
reason({open_failed, corrupt, Path, Offset, _}) -> {corrupt, {name(Path), Offset}};
reason({open_failed, Word, Path, _, _}) when Word =:= foreign_file; Word =:= unsupported_version -> {Word, name(Path)};
reason({open_failed, wrong_owner, Path, _, _}) -> {path, name(Path), owned_by_another_user};
reason({open_failed, Word, _, _, _}) when Word =:= enomem; Word =:= too_many_mappings -> Word;
reason({open_failed, Posix, Path, _, _}) -> {path, name(Path), Posix};
reason({already_open, Path}) -> {already_open, name(Path)};
reason({already_started, Pid}) -> {already_started, Pid};
reason({error, Reason}) -> Reason.

name(Bytes) ->
    case unicode:characters_to_list(Bytes) of
        Name when is_list(Name) -> Name;
        _ -> Bytes
    end.
