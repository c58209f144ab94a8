%% @doc What the agents keep, and under which keys.
%%
%% `coordinator' the coordinator's state; `{queue, Id}' the tasks of an agent; `{agent, Id}' its state; `{result, File}' a result, with
%% the number of times that it was committed; `{finished, Id, N}' the file that the agent finished as its Nth; `vms' the starts of
%% the VM, with the counts as they were then.
-module(digest_store).

-export([handle/0, fetch/2, counts/1, note_start/2, starts/1, agent/0]).

%% @doc The store of this VM, opened by the supervisor: it goes by its name.
-spec handle() -> foundation_snapshot:store().
handle() ->
    digest_store.

%% @doc As `foundation_snapshot:load/2', with `none' for a key that was never saved.
-spec fetch(foundation_snapshot:store(), term()) -> {ok, foundation_snapshot:saved()} | none.
fetch(Store, Key) ->
    case foundation_snapshot:load(Store, Key) of
        {ok, Saved} -> {ok, Saved};
        {error, not_found} -> none
    end.

%% @doc The state of a new agent.
-spec agent() -> #{atom() => term()}.
agent() ->
    #{current_task => undefined, completed_count => 0, error_count => 0, allowed => 0, denied => 0, conflicts => 0}.

%% @doc The sums over the agents.
-spec counts(foundation_snapshot:store()) -> #{atom() => non_neg_integer()}.
counts(Store) ->
    States = [foundation_snapshot:value(Saved) || Id <- digest_agent:ids(), {ok, Saved} <- [fetch(Store, {agent, Id})]],
    Sum = fun(Field) -> lists:sum([maps:get(Field, State) || State <- States]) end,
    #{
        completed => Sum(completed_count),
        errors => Sum(error_count),
        allowed => Sum(allowed),
        denied => Sum(denied),
        conflicts => Sum(conflicts)
    }.

%% @doc Note a start of the VM, once: the coordinator may be restarted in it.
-spec note_start(foundation_snapshot:store(), string()) -> ok.
note_start(Store, OsPid) ->
    case fetch(Store, vms) of
        {ok, Saved} ->
            Vms = foundation_snapshot:value(Saved),
            case lists:keymember(OsPid, 1, Vms) of
                true ->
                    ok;
                false ->
                    {ok, _} = foundation_snapshot:update(Store, vms, Saved, Vms ++ [{OsPid, counts(Store)}]),
                    ok
            end;
        none ->
            {ok, _} = foundation_snapshot:save(Store, vms, [{OsPid, counts(Store)}]),
            ok
    end.

%% @doc The starts of the VM in order: its OS process, and the sums over the agents as they were.
-spec starts(foundation_snapshot:store()) -> [{string(), #{atom() => non_neg_integer()}}].
starts(Store) ->
    case fetch(Store, vms) of
        {ok, Saved} -> foundation_snapshot:value(Saved);
        none -> []
    end.
