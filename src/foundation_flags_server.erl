%% @private The owner of this node's flag file: opens it, gives names their atoms, and tells subscribers what changed.
%%
%% It is no part of reading, setting or rolling back: those work while it is down. The mapping lives in the NIF library, so a restart
%% finds it again, and with it the subscribers and what they were told last (`stash').
-module(foundation_flags_server).
-behaviour(gen_server).

-export([start_link/0, look/0]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2, terminate/2]).

-include_lib("kernel/include/logger.hrl").

-define(SERVER, foundation_flags).
-define(DESCRIPTIONS, foundation_flags_descriptions).
%% How long a rollback that is seen before its reason is waited for.
-define(REASON_MS, 20).

-record(state, {
    path :: file:filename_all(),
    subscribers = #{} :: #{pid() => reference()},
    values = #{} :: #{atom() => foundation_flags:value() | untold},
    epochs = #{} :: #{binary() => non_neg_integer()},
    late = #{} :: #{binary() => pos_integer()},
    %% the last rollback that a sentinel told of, in files other than ours
    foreign = #{} :: #{{binary(), binary()} => non_neg_integer()},
    faulted = false :: boolean(),
    dirty = false :: boolean(),
    syncer :: undefined | {pid(), reference()}
}).

-spec start_link() -> {ok, pid()} | {error, {flags_file | data_dir, term(), term()} | {badarg, term()}}.
start_link() ->
    gen_server:start_link({local, ?SERVER}, ?MODULE, [], []).

%% @doc Take in names that other processes have added to the file. Fine while the server is down.
-spec look() -> ok.
look() ->
    try
        gen_server:call(?SERVER, look, infinity)
    catch
        exit:_ -> ok
    end.

%% ---- start ------------------------------------------------------------------------------------------------------------------------

init([]) ->
    process_flag(trap_exit, true),
    foundation_flags:trust_cohorts_nif(cohorts_agree()),
    Declared = application:get_env(foundation_native, flags, #{}),
    case {check_declared(Declared), foundation_native:flags_file()} of
        {ok, {ok, Path}} -> open(Path, Declared, foundation_flags:stashed_nif());
        {ok, {error, Reason}} -> {stop, Reason};
        {{error, Reason}, _} -> {stop, Reason}
    end.

open(Path, Declared, Stashed) ->
    case foundation_flags:open_nif(native(Path)) of
        {ok, How} ->
            ?DESCRIPTIONS = ets:new(?DESCRIPTIONS, [named_table, protected, {read_concurrency, true}]),
            State = take_up(How, Stashed, #state{path = Path}),
            case declare_all(maps:to_list(Declared)) of
                ok -> {ok, remember(State)};
                {error, Reason} -> {stop, Reason}
            end;
        {error, Reason} ->
            reopen_failed(Path, Reason, Stashed)
    end.

%% After a crash of ours the old mapping is still in force; without a server nobody could subscribe, and the application would go down.
reopen_failed(Path, Reason, #{path := Path} = Stashed) ->
    ?LOG_ERROR("foundation_flags: ~ts cannot be opened again (~p); going on with what is mapped", [Path, Reason]),
    ?DESCRIPTIONS = ets:new(?DESCRIPTIONS, [named_table, protected, {read_concurrency, true}]),
    {ok, take_up(attached, Stashed, #state{path = Path})};
reopen_failed(Path, Reason, _) ->
    {stop, {flags_file, Path, Reason}}.

take_up(attached, #{subscribers := Pids, values := Values, epochs := Epochs, foreign := Foreign, descriptions := Texts}, State) ->
    true = ets:insert(?DESCRIPTIONS, Texts),
    Subscribers = maps:from_list([{Pid, monitor(process, Pid)} || Pid <- Pids]),
    look_at_file(State#state{subscribers = Subscribers, values = Values, epochs = Epochs, foreign = Foreign});
take_up(_How, _, State) ->
    %% What stands in a file when it is opened is news to nobody.
    bind_names(),
    State#state{
        values = foundation_flags:list(),
        epochs = maps:from_list([{Name, Epoch} || {_, Name, Epoch, _, _, _, _} <- foundation_flags:group_list()])
    }.

%% The C way of computing cohorts is used only where it agrees with the real one on ids of every kind that it handles.
cohorts_agree() ->
    Small = 1 bsl 27,
    Ids = [0, 1, -1, 77, Small - 1, Small, -Small, -Small - 1, 1 bsl 40, -(1 bsl 59) - 1, 1 bsl 62, -(1 bsl 63), <<>>] ++
        [binary:copy(<<"u">>, N) || N <- lists:seq(1, 30)] ++ [<<"user1">>, <<200, 0, 255>>],
    lists:all(
        fun(Flag) ->
            Hash = erlang:phash2(Flag, 1 bsl 32),
            lists:all(fun(Id) -> foundation_flags:cohort_nif(Hash, Id) =:= erlang:phash2({Flag, Id}, 100) end, Ids)
        end,
        [use_ets_agent_registry, a, foundation_flags]
    ).

check_declared(Declared) when is_map(Declared) ->
    maps:fold(
        fun
            (_, _, {error, _} = Error) -> Error;
            (Flag, _, ok) when not is_atom(Flag) -> {error, {badarg, {flags, {Flag, not_an_atom}}}};
            (Flag, Options, ok) ->
                case foundation_flags:check_options(Options) of
                    ok -> ok;
                    {error, Bad} -> {error, {badarg, {flags, {Flag, Bad}}}}
                end
        end,
        ok,
        Declared
    );
check_declared(_) ->
    {error, {badarg, {flags, not_a_map}}}.

declare_all([]) ->
    ok;
declare_all([{Flag, Options} | Rest]) ->
    case declare(Flag, Options) of
        ok -> declare_all(Rest);
        {error, Reason} -> {error, {flags, Flag, Reason}}
    end.

declare(Flag, Options) ->
    Group =
        case Options of
            #{group := Name} -> atom_to_binary(Name, utf8);
            _ -> undefined
        end,
    Default = maps:get(default, Options, false),
    case foundation_flags:declare_nif(atom_to_binary(Flag, utf8), Group, Default, maps:get(sticky, Options, undefined)) of
        {ok, _Index} ->
            describe(Flag, Options),
            bind_names();
        Error ->
            Error
    end.

describe(Flag, #{description := Text}) ->
    true = ets:insert(?DESCRIPTIONS, {Flag, unicode:characters_to_binary(Text)});
describe(_Flag, _) ->
    true.

bind_names() ->
    case foundation_flags:unbound_nif() of
        [] ->
            ok;
        Names ->
            Results = [bind(Index, Name) || {Index, Name} <- Names],
            case lists:all(fun(Result) -> Result =:= ok end, Results) of
                true -> bind_names();
                false -> ok
            end
    end.

bind(Index, Name) ->
    Flag = binary_to_atom(Name, utf8),
    foundation_flags:bind_nif(Index, Flag, erlang:phash2(Flag, 1 bsl 32)).

native(Path) ->
    unicode:characters_to_binary(Path, unicode, file:native_name_encoding()).

%% ---- calls ------------------------------------------------------------------------------------------------------------------------

handle_call({declare, Flag, Options}, _From, State) ->
    {reply, declare(Flag, Options), remember(State)};
handle_call({subscribe, Pid}, _From, #state{subscribers = Subscribers} = State) ->
    case Subscribers of
        #{Pid := _} -> {reply, ok, State};
        _ -> {reply, ok, remember(State#state{subscribers = Subscribers#{Pid => monitor(process, Pid)}})}
    end;
handle_call({unsubscribe, Pid}, _From, State) ->
    {reply, ok, forget(Pid, State)};
handle_call(look, _From, State) ->
    bind_names(),
    {reply, ok, State};
handle_call(Request, _From, State) ->
    {reply, {error, {unknown_request, Request}}, State}.

handle_cast(_, State) ->
    {noreply, State}.

handle_info(foundation_flags_file, State) ->
    {noreply, remember(look_at_file(State))};
handle_info(look_again, State) ->
    {noreply, remember(look_at_file(State))};
handle_info({foundation_sentinel, rolled_back, Group, Epoch, Reason, Uuid}, State) ->
    {noreply, remember(sentinel_rolled_back(name(Group), Epoch, Reason, Uuid, State))};
handle_info({'DOWN', Monitor, process, Pid, _}, #state{syncer = {Pid, Monitor}} = State) ->
    {noreply, sync(State#state{syncer = undefined})};
handle_info({'DOWN', Monitor, process, Pid, _}, #state{subscribers = Subscribers} = State) ->
    case Subscribers of
        #{Pid := Monitor} -> {noreply, forget(Pid, State)};
        _ -> {noreply, State}
    end;
handle_info(_, State) ->
    {noreply, State}.

%% An orderly stop is the end of the subscriptions; a crash is not.
terminate(Reason, _State) when Reason =:= normal; Reason =:= shutdown; element(1, Reason) =:= shutdown ->
    _ = foundation_flags:sync_nif(),
    foundation_flags:stash_nif(undefined);
terminate(_Reason, _State) ->
    ok.

forget(Pid, #state{subscribers = Subscribers} = State) ->
    case maps:take(Pid, Subscribers) of
        {Monitor, Rest} ->
            demonitor(Monitor, [flush]),
            remember(State#state{subscribers = Rest});
        error ->
            State
    end.

remember(#state{path = Path, subscribers = Subscribers, values = Values, epochs = Epochs, foreign = Foreign} = State) ->
    _ = foundation_flags:stash_nif(#{
        path => Path,
        subscribers => maps:keys(Subscribers),
        values => Values,
        epochs => Epochs,
        foreign => Foreign,
        descriptions => ets:tab2list(?DESCRIPTIONS)
    }),
    State.

%% ---- looking for changes ----------------------------------------------------------------------------------------------------------

look_at_file(#state{dirty = Dirty} = State) ->
    DirtyNow = foundation_flags:looked_nif(),
    bind_names(),
    sync(tell_values(tell_rollbacks(foundation_flags:group_list(), check_fault(State#state{dirty = Dirty or DirtyNow})))).

%% What was set here goes to disk in the background, one sync at a time: a slow disk must not hold up what subscribers are told.
sync(#state{dirty = true, syncer = undefined} = State) ->
    State#state{dirty = false, syncer = spawn_monitor(foundation_flags, sync_nif, [])};
sync(State) ->
    State.

check_fault(#state{faulted = false} = State) ->
    case foundation_flags:info() of
        #{faulted := true, path := Path} ->
            ?LOG_ERROR("foundation_flags: ~ts was truncated or overwritten; every flag reads off until the application is started "
                       "with a sound file", [Path]),
            telemetry([faulted], #{path => Path}),
            State#state{faulted = true};
        _ ->
            State
    end;
check_fault(State) ->
    State.

tell_rollbacks([], State) ->
    State;
tell_rollbacks([{_Index, Name, Epoch, _RolledBack, _Sticky, Rollback, _Rearm} | Rest], #state{epochs = Epochs, late = Late} = State) ->
    case maps:get(Name, Epochs, 1) of
        Known when Known >= Epoch ->
            tell_rollbacks(Rest, State#state{epochs = Epochs#{Name => Known}});
        _ when Rollback =:= undefined, not is_map_key(Name, Late) ->
            %% Its writer is between the flip and saying why, or died there.
            _ = erlang:send_after(?REASON_MS, self(), look_again),
            tell_rollbacks(Rest, State#state{late = Late#{Name => Epoch}});
        _ ->
            Reason =
                case Rollback of
                    {_At, _Who, Text} -> Text;
                    undefined -> undefined
                end,
            Group = binary_to_atom(Name, utf8),
            tell({foundation_flags, rolled_back, Group, Epoch, Reason}, State),
            telemetry([rolled_back], #{group => Group, epoch => Epoch, reason => Reason}),
            tell_rollbacks(Rest, State#state{epochs = Epochs#{Name => Epoch}, late = maps:remove(Name, Late)})
    end.

%% While the reason of a rollback is waited for, the values wait too: rolled_back comes first.
tell_values(#state{late = Late} = State) when map_size(Late) > 0 ->
    State;
tell_values(#state{values = Old} = State) ->
    New = foundation_flags:list(),
    %% An unknown flag reads false.
    Changed = maps:filter(fun(Flag, Value) -> maps:get(Flag, Old, false) =/= Value end, New),
    %% Who is killed in the middle of telling does not know who was told what: the next server tells it (again).
    _ = map_size(Changed) =:= 0 orelse remember(State#state{values = maps:merge(Old, maps:map(fun(_, _) -> untold end, Changed))}),
    maps:foreach(
        fun(Flag, Value) ->
            tell({foundation_flags, changed, Flag, Value}, State),
            telemetry([changed], #{flag => Flag, value => Value})
        end,
        Changed
    ),
    State#state{values = New}.

tell(Message, #state{subscribers = Subscribers}) ->
    maps:foreach(fun(Pid, _) -> Pid ! Message end, Subscribers).

%% telemetry is optional, and never asked for on a hot path.
telemetry(Event, Metadata) ->
    case erlang:function_exported(telemetry, execute, 3) of
        true -> apply(telemetry, execute, [[foundation_native, flags | Event], #{count => 1}, Metadata]);
        false -> ok
    end.

%% ---- what a sentinel says ---------------------------------------------------------------------------------------------------------

%% In our own file it has already happened. A sentinel with another file (another host) rolled back a group of the same name: ours
%% follows, once for each of its epochs, however often it is told.
sentinel_rolled_back(Name, Epoch, Reason, Uuid, #state{foreign = Foreign} = State) ->
    Key = {Uuid, Name},
    case foundation_flags:info() of
        #{uuid := Uuid} ->
            look_at_file(State);
        #{} when is_map_key(Key, Foreign), map_get(Key, Foreign) >= Epoch ->
            State;
        #{} ->
            case foundation_flags:rollback_nif(Name, foundation_flags:text(Reason), <<"sentinel">>) of
                {ok, _} -> ok;
                {error, Why} -> ?LOG_ERROR("foundation_flags: the sentinel's rollback of ~ts failed here: ~p", [Name, Why])
            end,
            look_at_file(State#state{foreign = Foreign#{Key => Epoch}})
    end.

name(Group) when is_atom(Group) -> atom_to_binary(Group, utf8);
name(Group) -> foundation_flags:text(Group).
