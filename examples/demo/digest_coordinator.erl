%% @doc The coordinator agent: makes the tasks, gives them to the task agents, and evens their queues out.
%%
%% Its own state is the value of the key `coordinator'; the queue of agent I is the value of `{queue, I}'. Whatever moves between them
%% moves in one commit, so a task is in exactly one queue at any moment, whenever the VM ends.
-module(digest_coordinator).
-behaviour(gen_server).

-export([start_link/0, begin_work/1, more/1, progress/0]).
-export([init/1, handle_call/3, handle_cast/2]).

-record(state, {store, saved}).

-spec start_link() -> gen_server:start_ret().
start_link() ->
    gen_server:start_link({local, ?MODULE}, ?MODULE, [], []).

%% @doc Make a task of every file under Root and hand them out. Once a store: the answer is the number of tasks.
-spec begin_work(binary()) -> {ok, non_neg_integer()} | {error, already_begun}.
begin_work(Root) ->
    gen_server:call(?MODULE, {begin_work, Root}, infinity).

%% @doc An idle agent asks for tasks: `ok' when its queue now has some, `none' when there is nothing to share out.
-spec more(pos_integer()) -> ok | none.
more(Id) ->
    gen_server:call(?MODULE, {more, Id}, infinity).

%% @doc The counts of all agents together, as they are in the store.
-spec progress() -> #{atom() => term()}.
progress() ->
    gen_server:call(?MODULE, progress, infinity).

init([]) ->
    Store = digest_store:handle(),
    ok = digest_store:note_start(Store, os:getpid()),
    case foundation_snapshot:load(Store, coordinator) of
        {ok, Saved} ->
            {ok, #state{store = Store, saved = Saved}};
        {error, not_found} ->
            {ok, Saved} = foundation_snapshot:save(Store, coordinator, #{status => waiting, total => 0, moves => 0, root => undefined}),
            {ok, #state{store = Store, saved = Saved}}
    end.

handle_call({begin_work, Root}, _From, S) ->
    case foundation_snapshot:value(S#state.saved) of
        #{status := waiting} = Mine ->
            {Files, _Unreadable} = digest_files:list(Root),
            New = Mine#{status := working, total := length(Files), root := Root},
            Queues = [{put, {queue, Id}, queue:from_list(Share)} || {Id, Share} <- deal(Files)],
            {ok, [Saved | _]} = foundation_snapshot:commit(S#state.store, [{update, coordinator, S#state.saved, New} | Queues]),
            lists:foreach(fun digest_agent:work/1, digest_agent:ids()),
            {reply, {ok, length(Files)}, S#state{saved = Saved}};
        _ ->
            {reply, {error, already_begun}, S}
    end;
handle_call({more, Id}, _From, S) ->
    {Answer, S1} = share(Id, S),
    {reply, Answer, S1};
handle_call(progress, _From, S) ->
    {reply, maps:merge(foundation_snapshot:value(S#state.saved), digest_store:counts(S#state.store)), S}.

handle_cast(_, S) ->
    {noreply, S}.

%% The files in turn, one to each agent.
deal(Files) ->
    Ids = digest_agent:ids(),
    Numbered = lists:enumerate(Files),
    [{Id, [File || {N, File} <- Numbered, N rem length(Ids) =:= Id rem length(Ids)]} || Id <- Ids].

%% The back half of the longest queue goes to the idle agent. Its owner keeps the front, which it may be working on, and learns of the
%% change by the conflict at its next commit; where it commits first, the conflict is here.
share(Id, S) ->
    Queues = [{Other, digest_store:fetch(S#state.store, {queue, Other})} || Other <- digest_agent:ids()],
    Lengths = [{queue:len(foundation_snapshot:value(Saved)), Other, Saved} || {Other, {ok, Saved}} <- Queues],
    {Mine, Others} = lists:partition(fun({_, Other, _}) -> Other =:= Id end, Lengths),
    case {Mine, lists:max(Others)} of
        {[{Length, _, _}], _} when Length > 0 -> {ok, S};
        {[{0, _, To}], {Length, From, Saved}} when Length >= 2 -> move(Id, To, From, Saved, Length, S);
        {_, {0, _, _}} -> {none, finish(S)};
        _ -> {none, S}
    end.

move(Id, To, From, Saved, Length, S) ->
    {Front, Back} = queue:split(Length - Length div 2, foundation_snapshot:value(Saved)),
    Mine = foundation_snapshot:value(S#state.saved),
    Ops = [
        {update, coordinator, S#state.saved, Mine#{moves := maps:get(moves, Mine) + Length div 2}},
        {update, {queue, From}, Saved, Front},
        {update, {queue, Id}, To, Back}
    ],
    case foundation_snapshot:commit(S#state.store, Ops) of
        {ok, [New | _]} -> {ok, S#state{saved = New}};
        {error, {conflict, {queue, _}}} -> share(Id, S)
    end.

finish(S) ->
    case foundation_snapshot:value(S#state.saved) of
        #{status := working} = Mine ->
            {ok, New} = foundation_snapshot:update(S#state.store, coordinator, S#state.saved, Mine#{status := done}),
            S#state{saved = New};
        _ ->
            S
    end.
