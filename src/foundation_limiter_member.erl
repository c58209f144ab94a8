%% @private Answers the other nodes' questions about the keys that this node keeps, one process a limiter. The limiter's owner starts
%% it and restarts it. It holds nothing that cannot be had again: the budgets are in the limiter's native table, and the owner is who
%% stands for this node among the members, so a crash here costs the questions that are under way and no more.
%%
%% It never waits. While a key is taken over from another member (foundation_limiter_handover), what is asked about it is put aside.
-module(foundation_limiter_member).
-behaviour(gen_server).

-include_lib("kernel/include/logger.hrl").

-export([start_link/4, name/1, may_be_named/1, serve/2]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2]).

-define(SCOPE, foundation_native).

-type question() :: {Function :: atom(), Arguments :: [term()]}.

%% Keys that are taken over: the alias to which what they have consumed will be told, the nodes that were asked (this one first), until
%% when, and the questions that wait for it, the last one first.
-type waiting() :: #{
    Whose ::
        term() => {reference(), foundation_limiter_handover:take(), [node()], Deadline :: integer(), [{reference(), question()}]}
}.

-record(state, {
    name :: foundation_limiter:name(),
    home :: foundation_limiter:handle(),
    options :: #{atom() => term()},
    timeout :: pos_integer(),
    monitor :: reference(),
    members :: [node()],
    waiting = #{} :: waiting(),
    aliases = #{} :: #{reference() => Whose :: term()},
    %% Nodes that have other options, and which.
    warned = #{} :: #{node() => #{atom() => term()}}
}).

%% `Options': those that all nodes should agree on.
-spec start_link(foundation_limiter:name(), foundation_limiter:handle(), #{atom() => term()}, pos_integer()) ->
    {ok, pid()} | {error, term()}.
start_link(Name, Handle, Options, Timeout) ->
    gen_server:start_link({local, name(Name)}, ?MODULE, {Name, Handle, Options, Timeout}, []).

%% The name under which it is registered on every node. One atom a limiter.
-spec name(foundation_limiter:name()) -> atom().
name(Name) ->
    list_to_atom(full_name(Name)).

%% An atom has at most 255 characters.
-spec may_be_named(foundation_limiter:name()) -> boolean().
may_be_named(Name) ->
    length(full_name(Name)) =< 255.

full_name(Name) ->
    "foundation_limiter." ++ atom_to_list(Name).

%% @doc Answer a question from the limiter's own table. `Home' is the limiter at home: {@link foundation_limiter:home/1}. `gone': its
%% table is, as it is for a moment before the owner of a deleted limiter leaves the members.
-spec serve(foundation_limiter:limiter(), {atom(), [term()]}) -> term().
serve(Home, {Function, Arguments}) ->
    named(fun() -> apply(foundation_limiter, Function, [Home | Arguments]) end).

%% What is wrong with a question is for who asked it.
named(Fun) ->
    try
        Fun()
    catch
        error:{badarg, {limiter, _}} -> gone;
        error:{badarg, Detail} -> {badarg, Detail}
    end.

init({Name, Handle, Options, Timeout}) ->
    process_flag(message_queue_data, off_heap),
    {Monitor, Members} = pg:monitor(?SCOPE, foundation_limiter_cluster:group(Name)),
    ok = foundation_limiter_cluster:view_changed(Name),
    ok = tell(Name, Options, Members),
    {ok, #state{
        name = Name,
        home = foundation_limiter:home(Handle),
        options = Options,
        timeout = Timeout,
        monitor = Monitor,
        members = lists:usort([node(Pid) || Pid <- Members])
    }}.

handle_call(_Request, _From, State) ->
    {reply, {error, unknown_request}, State}.

handle_cast(_Request, State) ->
    {noreply, State}.

handle_info({foundation_limiter, From, Question}, State) ->
    {noreply, asked(From, Question, State)};
handle_info({Alias, Answer}, State = #state{aliases = Aliases}) when is_map_key(Alias, Aliases) ->
    {noreply, told(Alias, Answer, State)};
handle_info({?MODULE, again, Alias}, State = #state{aliases = Aliases}) when is_map_key(Alias, Aliases) ->
    {noreply, told(Alias, again, State)};
handle_info({?MODULE, late, Alias}, State = #state{aliases = Aliases}) when is_map_key(Alias, Aliases) ->
    {noreply, told(Alias, late, State)};
handle_info({Monitor, Change, _Group, Pids}, State = #state{monitor = Monitor, name = Name, options = Options}) ->
    ok = foundation_limiter_cluster:view_changed(Name),
    ok = tell(Name, Options, [Pid || Change =:= join, Pid <- Pids]),
    {noreply, gone([node(Pid) || Change =:= leave, Pid <- Pids], changed(State))};
handle_info({options, Node, Options}, State) ->
    {noreply, compare(Node, Options, State)};
handle_info(_Message, State) ->
    {noreply, State}.

changed(State = #state{name = Name, members = Before}) ->
    case lists:usort(foundation_limiter_cluster:members(Name)) of
        Before ->
            State;
        Now ->
            Past = foundation_limiter_cluster:past(Name),
            Changed = foundation_limiter_handover:changed(Past, Before, foundation_limiter_cluster:now_ms()),
            _ = foundation_limiter_cluster:past(Name, Changed),
            State#state{members = Now}
    end.

%% ---- questions ------------------------------------------------------------------------------------------------------------------

asked(From, {consumed, [_Key, _Rule, [_ | _] = Asked] = Arguments}, State = #state{name = Name, home = Home}) when length(Asked) > 0 ->
    Past = foundation_limiter_cluster:past(Name),
    ok = reply(From, named(fun() -> foundation_limiter_handover:consumed(Past, Name, Home, Arguments) end)),
    State;
asked(From, Question, State = #state{home = Home, waiting = Waiting}) ->
    case known(Question) andalso wanted(Question, State) of
        false ->
            ok = reply(From, unknown_request),
            State;
        moved ->
            ok = reply(From, moved),
            State;
        none ->
            ok = reply(From, serve(Home, Question)),
            State;
        {Whose, _, _} when is_map_key(Whose, Waiting) ->
            {Alias, Take, Nodes, Deadline, Asked} = map_get(Whose, Waiting),
            State#state{waiting = Waiting#{Whose := {Alias, Take, Nodes, Deadline, [{From, Question} | Asked]}}};
        {Whose, _, Keeper} = Take ->
            %% Those who wait for it here do not wait longer than that.
            Deadline = foundation_limiter_cluster:now_ms() + (State#state.timeout + 1) div 2,
            ask_before({Whose, Take, [node()], Deadline, [{From, Question}]}, Keeper, State)
    end.

%% Another node sees this one as the keeper of the key. Unless this one does so too, some third one may answer as the keeper.
wanted({_, [Key | _]} = Question, #state{name = Name, home = Home}) ->
    case foundation_limiter_cluster:keeper(Name, Key) =:= node() of
        true -> foundation_limiter_handover:wanted(foundation_limiter_cluster:past(Name), Name, Home, Question);
        false -> moved
    end.

%% From another node, perhaps of another version.
known({Function, Arguments}) when length(Arguments) > 0 ->
    lists:member({Function, length(Arguments)}, [
        {lend_nif, 4}, {hit, 2}, {hit, 4}, {peek, 1}, {peek, 3},
        {reset, 1}, {reset, 2}, {get, 1}, {get, 2}, {inc, 2}, {inc, 3}, {set, 3}
    ]);
known(_Question) ->
    false.

%% The connection to a node that has stopped reading may be full; the other nodes do not wait for that.
reply(To, Answer) ->
    case erlang:send(To, {To, Answer}, [nosuspend, noconnect]) of
        nosuspend ->
            _ = spawn(fun() -> erlang:send(To, {To, Answer}, [noconnect]) end),
            ok;
        _ ->
            ok
    end.

%% ---- keys that are taken over ---------------------------------------------------------------------------------------------------

ask_before({Whose, {_, Rule, _} = Take, Asked, Deadline, Questions}, Keeper, State = #state{waiting = Waiting, aliases = Aliases}) ->
    Alias = alias([reply]),
    {Key, _Period} = Whose,
    %% What is not sent is late.
    Question = {foundation_limiter, Alias, {consumed, [Key, Rule, Asked]}},
    _ = erlang:send({name(State#state.name), Keeper}, Question, [nosuspend, noconnect]),
    _ = erlang:send_after(max(0, Deadline - foundation_limiter_cluster:now_ms()), self(), {?MODULE, late, Alias}),
    State#state{
        waiting = Waiting#{Whose => {Alias, setelement(3, Take, Keeper), Asked, Deadline, Questions}},
        aliases = Aliases#{Alias => Whose}
    }.

told(Alias, Answer, State = #state{home = Home, name = Name, waiting = Waiting, aliases = Aliases}) ->
    {Whose, OtherAliases} = maps:take(Alias, Aliases),
    {{Alias, {_, _, Keeper} = Take, Asked, Deadline, Questions}, Others} = maps:take(Whose, Waiting),
    Without = State#state{waiting = Others, aliases = OtherAliases},
    case Answer of
        {consumed, Consumed} ->
            %% The first question makes it a key that was seen, so those that follow are answered at once.
            _ = named(fun() ->
                foundation_limiter_handover:take_over(foundation_limiter_cluster:past(Name), Home, Take, Consumed)
            end),
            _ = [ok = reply(From, serve(Home, Question)) || {From, Question} <- lists:reverse(Questions)],
            Without;
        {kept, Earlier} ->
            ask_before({Whose, Take, Asked ++ [Keeper], Deadline, Questions}, Earlier, Without);
        not_yet ->
            _ = erlang:send_after(1, self(), {?MODULE, again, Alias}),
            State;
        again ->
            ask_before({Whose, Take, Asked, Deadline, Questions}, Keeper, Without);
        _ ->
            _ = unalias(Alias),
            _ = [ok = reply(From, unreachable) || {From, _} <- Questions],
            Without
    end.

%% What they knew of their keys is gone with them.
gone(Nodes, State = #state{waiting = Waiting}) ->
    Lost = [Alias || {Alias, {_, _, Keeper}, _, _, _} <- maps:values(Waiting), lists:member(Keeper, Nodes)],
    lists:foldl(fun(Alias, Acc) -> told(Alias, {consumed, 0}, Acc) end, State, Lost).

%% ---- options --------------------------------------------------------------------------------------------------------------------

tell(Name, Options, Members) ->
    _ = [
        erlang:send({name(Name), Node}, {options, node(), Options}, [nosuspend, noconnect])
     || Node <- lists:usort([node(Member) || Member <- Members]), Node =/= node()
    ],
    ok.

%% Said once a node and difference.
compare(Node, Theirs, State = #state{name = Name, options = Ours, warned = Warned}) ->
    case Warned of
        #{Node := Theirs} ->
            State;
        _ when Theirs =:= Ours ->
            State#state{warned = maps:remove(Node, Warned)};
        _ ->
            ?LOG_WARNING("foundation_limiter ~p: node ~p has other options, ~0p; here they are ~0p. Each node applies its own to the "
                         "keys that it keeps", [Name, Node, Theirs, Ours]),
            State#state{warned = Warned#{Node => Theirs}}
    end.
