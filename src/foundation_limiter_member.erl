%% @private Answers the other nodes' requests about the keys that this node keeps, one process a limiter. The limiter's owner starts it
%% and restarts it. It holds nothing but its name: the budgets are in the limiter's native table, and the owner is who stands for this
%% node among the members, so a crash here costs the requests that are under way and no more.
-module(foundation_limiter_member).
-behaviour(gen_server).

-include_lib("kernel/include/logger.hrl").

-export([start_link/3, name/1, may_be_named/1, serve/2]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2]).

-define(SCOPE, foundation_native).

%% `Options': those that all nodes should agree on.
-spec start_link(foundation_limiter:name(), foundation_limiter:handle(), term()) -> {ok, pid()} | {error, term()}.
start_link(Name, Handle, Options) ->
    gen_server:start_link({local, name(Name)}, ?MODULE, {Name, Handle, Options}, []).

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
    try
        apply(foundation_limiter, Function, [Home | Arguments])
    catch
        error:{badarg, {limiter, _}} -> gone;
        error:{badarg, Detail} -> {badarg, Detail}
    end.

init({Name, Handle, Options}) ->
    process_flag(message_queue_data, off_heap),
    Group = foundation_limiter_cluster:group(Name),
    {Monitor, Members} = pg:monitor(?SCOPE, Group),
    ok = foundation_limiter_cluster:view_changed(Name),
    ok = tell(Name, Options, Members),
    {ok, #{name => Name, home => foundation_limiter:home(Handle), options => Options, monitor => Monitor, warned => #{}}}.

handle_call(_Request, _From, State) ->
    {reply, {error, unknown_request}, State}.

handle_cast(_Request, State) ->
    {noreply, State}.

handle_info({foundation_limiter, From, Question}, State = #{home := Home}) ->
    ok = reply(From, checked(Home, Question)),
    {noreply, State};
handle_info({options, Node, Options}, State) ->
    {noreply, compare(Node, Options, State)};
handle_info({Monitor, Change, _Group, Pids}, State = #{monitor := Monitor, name := Name, options := Options}) ->
    ok = foundation_limiter_cluster:view_changed(Name),
    ok = tell(Name, Options, [Pid || Change =:= join, Pid <- Pids]),
    {noreply, State};
handle_info(_Message, State) ->
    {noreply, State}.

%% From another node, perhaps of another version.
checked(Home, {Function, Arguments} = Question) when length(Arguments) > 0 ->
    case lists:member({Function, length(Arguments)}, questions()) of
        true -> serve(Home, Question);
        false -> unknown_request
    end;
checked(_Home, _Question) ->
    unknown_request.

questions() ->
    [
        {lend_nif, 4}, {hit, 2}, {hit, 4}, {peek, 1}, {peek, 3},
        {reset, 1}, {reset, 2}, {get, 1}, {get, 2}, {inc, 2}, {inc, 3}, {set, 3}
    ].

%% The connection to a node that has stopped reading may be full; the other nodes do not wait for that.
reply(To, Answer) ->
    case erlang:send(To, {To, Answer}, [nosuspend, noconnect]) of
        nosuspend ->
            _ = spawn(fun() -> erlang:send(To, {To, Answer}, [noconnect]) end),
            ok;
        _ ->
            ok
    end.

tell(Name, Options, Members) ->
    _ = [
        erlang:send({name(Name), Node}, {options, node(), Options}, [nosuspend, noconnect])
     || Node <- lists:usort([node(Member) || Member <- Members]), Node =/= node()
    ],
    ok.

%% Said once a node and difference.
compare(Node, Theirs, State = #{name := Name, options := Ours, warned := Warned}) ->
    case Warned of
        #{Node := Theirs} ->
            State;
        _ when Theirs =:= Ours ->
            State#{warned := maps:remove(Node, Warned)};
        _ ->
            ?LOG_WARNING("foundation_limiter ~p: node ~p has other options, ~0p; here they are ~0p. Each node applies its own to the "
                         "keys that it keeps", [Name, Node, Theirs, Ours]),
            State#{warned := Warned#{Node => Theirs}}
    end.
