%% @doc A task agent: takes the task at the front of its queue, digests the file, and records the result.
%%
%% Every action is saved before the next begins. Taking the task off the queue and recording its result is one commit; so whenever the
%% VM ends, a task is in a queue or its result is recorded, and never both or neither.
-module(digest_agent).
-behaviour(gen_server).

-export([start_link/1, ids/0, name/1, work/1]).
-export([init/1, handle_continue/2, handle_call/3, handle_cast/2, handle_info/2]).

%% How long an agent that was ended by its task waits before it tries again, in milliseconds.
-define(RETRY, 50).

%% `queue' and `saved' are what the store holds for this agent; `denied' and `conflicts' are the counts since the last save.
-record(state, {id, store, root, queue, saved, awaited = false, denied = 0, conflicts = 0}).

%% @doc The agents there are.
-spec ids() -> [pos_integer()].
ids() ->
    [1, 2, 3, 4].

-spec name(pos_integer()) -> atom().
name(1) -> digest_agent_1;
name(2) -> digest_agent_2;
name(3) -> digest_agent_3;
name(4) -> digest_agent_4.

-spec start_link(pos_integer()) -> gen_server:start_ret().
start_link(Id) ->
    gen_server:start_link({local, name(Id)}, ?MODULE, Id, []).

%% @doc There are tasks in the agent's queue.
-spec work(pos_integer()) -> ok.
work(Id) ->
    gen_server:cast(name(Id), work).

init(Id) ->
    {ok, #state{id = Id, store = digest_store:handle()}, {continue, recover}}.

%% What the agent before this one saved. A task that it had begun is still in the queue: it is tried again.
handle_continue(recover, S = #state{id = Id, store = Store}) ->
    case digest_store:fetch(Store, {agent, Id}) of
        none ->
            {ok, Saved} = foundation_snapshot:save(Store, {agent, Id}, digest_store:agent()),
            {noreply, await(0, look(S#state{saved = Saved}))};
        {ok, Saved} ->
            case foundation_snapshot:value(Saved) of
                #{current_task := undefined} ->
                    {noreply, await(0, look(S#state{saved = Saved}))};
                #{error_count := Errors} = Mine ->
                    Kept = keep(Mine#{current_task := undefined, error_count := Errors + 1}, S#state{saved = Saved}),
                    {noreply, await(?RETRY, look(Kept))}
            end
    end.

handle_call(_, _From, S) ->
    {reply, {error, unknown_call}, S}.

handle_cast(work, S) ->
    {noreply, await(0, look(S))}.

handle_info(next, S) ->
    {noreply, next(S#state{awaited = false})}.

%% At most one `next' is under way.
await(_Ms, S = #state{awaited = true}) ->
    S;
await(0, S) ->
    self() ! next,
    S#state{awaited = true};
await(Ms, S) ->
    _ = erlang:send_after(Ms, self(), next),
    S#state{awaited = true}.

%% The queue and the root as they are in the store now: the coordinator may have changed them.
look(S = #state{store = Store}) ->
    Queue = case digest_store:fetch(Store, {queue, S#state.id}) of {ok, Saved} -> Saved; none -> undefined end,
    #{root := Root} = foundation_snapshot:value(element(2, foundation_snapshot:load(Store, coordinator))),
    S#state{queue = Queue, root = Root}.

next(S = #state{queue = undefined}) ->
    S;
next(S = #state{id = Id, queue = Queue}) ->
    case queue:peek(foundation_snapshot:value(Queue)) of
        {value, File} -> ask(File, S);
        empty ->
            case digest_coordinator:more(Id) of
                ok -> next(look(S));
                none -> S
            end
    end.

%% The limiter says when. A denied agent comes back by a timer and meanwhile answers its messages.
ask(File, S = #state{id = Id}) ->
    case foundation_limiter:hit(digest_limiter, Id) of
        {allow, _Remaining} ->
            digest(File, S);
        {deny, RetryAfter} ->
            await(max(1, RetryAfter), S#state{denied = S#state.denied + 1})
    end.

digest(File, S = #state{saved = Saved, denied = Denied}) ->
    Mine = #{allowed := Allowed, denied := Before} = foundation_snapshot:value(Saved),
    Begun = keep(Mine#{current_task := File, allowed := Allowed + 1, denied := Before + Denied}, S#state{denied = 0}),
    Begin = os:system_time(microsecond),
    Job = job(File),
    Result =
        case Job:digest(digest_files:path(S#state.root, File)) of
            {ok, Found} -> Found;
            {error, Reason} -> #{error => Reason}
        end,
    record(File, Result#{by => Job, agent => S#state.id, begun => Begin}, Begun).

%% The roll-out: a share of the files goes to the second implementation, the same files whenever and wherever it is asked.
job(File) ->
    case foundation_flags:enabled_for(digest_app:flag(), File) of
        true -> digest_job_fast;
        false -> digest_job
    end.

record(File, Result, S = #state{id = Id, store = Store, queue = Queue, saved = Saved}) ->
    {{value, File}, Rest} = queue:out(foundation_snapshot:value(Queue)),
    Mine = #{completed_count := Completed, conflicts := Conflicts} = foundation_snapshot:value(Saved),
    Done = Mine#{current_task := undefined, completed_count := Completed + 1, conflicts := Conflicts + S#state.conflicts},
    {Times, Version} =
        case digest_store:fetch(Store, {result, File}) of
            none -> {1, absent};
            {ok, Old} -> {maps:get(times, foundation_snapshot:value(Old)) + 1, foundation_snapshot:version(Old)}
        end,
    Ops = [
        {expect, {result, File}, Version},
        {update, {queue, Id}, Queue, Rest},
        {update, {agent, Id}, Saved, Done},
        {put, {result, File}, Result#{times => Times}},
        {put, {finished, Id, Completed + 1}, File}
    ],
    case foundation_snapshot:commit(Store, Ops) of
        {ok, [NewQueue, NewSaved | _]} -> await(0, S#state{queue = NewQueue, saved = NewSaved, conflicts = 0});
        %% The coordinator took tasks from the back of the queue meanwhile: the front is still ours.
        {error, {conflict, {queue, Id}}} -> record(File, Result, look(S#state{conflicts = S#state.conflicts + 1}))
    end.

keep(Value, S = #state{id = Id, store = Store, saved = Saved}) ->
    {ok, New} = foundation_snapshot:update(Store, {agent, Id}, Saved, Value),
    S#state{saved = New}.
