%% @private Cluster-wide limits, in the caller's process: which node keeps a key, how it is asked, and what is made of its answer.
%%
%% Every node that runs the limiter is a member of the `pg' group `{foundation_limiter, Name}'. One of them keeps a key
%% ({@link foundation_limiter_placement}): its own table has the budget, and the others ask it. A caller on the keeper's node goes to
%% that table itself.
%%
%% With `cluster_strict' each hit asks. With `cluster' a node whose callers come back for a key soon gets more than they asked for, a
%% lease: units that the keeper has debited before it grants them, and that hits on this node take from the native lease table until
%% they are used up, or the window that they were debited in ends. What is not used by then is lost, so nothing that happens to a lease
%% admits more than the limit. That a key has no budget is remembered there, too, until the moment that the keeper told.
%%
%% No answer is a denial. A request that may be lost, or is answered too late, loses the units that it was granted, and nothing else.
-module(foundation_limiter_cluster).

-export([request/2, keeper/2, members/1, info/2]).
-export([create/0, enter/6, remove/1, group/1, view_changed/1, past/1, past/2, forget/4, arguments/1, now_ms/0]).
-export_type([rule/0, request/0]).

-define(TABLE, ?MODULE).
-define(SCOPE, foundation_native).

%% A key that is asked for twice within this time is worth a lease; shorter than that, and leases would mostly end unused.
-define(WARM_MS, 1000).
%% A lease is at most this part of what the key has left, divided by the members.
-define(SHARE, 4).
%% Keys share this many slots for what is known about requests that are under way. Two keys in one slot lose leases, never units.
-define(SLOTS, 1024).

-type rule() :: preset | {PeriodMs :: pos_integer(), Limit :: non_neg_integer()}.
-type request() ::
    {hit, foundation_limiter:key(), rule(), Cost :: non_neg_integer()}
    | {peek, foundation_limiter:key(), rule()}
    | {reset | get, foundation_limiter:key(), preset | pos_integer()}
    | {inc | set, foundation_limiter:key(), preset | pos_integer(), non_neg_integer()}.

-record(limiter, {
    name :: foundation_limiter:name(),
    scope :: cluster | cluster_strict,
    handle :: foundation_limiter:handle(),
    %% Whether there is a preset limit.
    preset :: boolean(),
    past :: foundation_limiter_handover:past(),
    timeout :: pos_integer(),
    slots :: atomics:atomics_ref(),
    counts :: counters:counters_ref()
}).

%% ---- limiters of this node ------------------------------------------------------------------------------------------------------

%% The table of this node's cluster-wide limiters lives as long as the application.
-spec create() -> ok.
create() ->
    ?TABLE = ets:new(?TABLE, [named_table, public, {keypos, #limiter.name}, {read_concurrency, true}]),
    ok.

%% What is counted goes on from an owner that crashed to the next. False: the application does not run.
-spec enter(
    foundation_limiter:name(), cluster | cluster_strict, foundation_limiter:handle(), boolean(), foundation_limiter_handover:past(),
    pos_integer()
) -> boolean().
enter(Name, Scope, Handle, Preset, Past, Timeout) ->
    {Slots, Counts} =
        case find(Name) of
            #limiter{slots = Known, counts = Before} -> {Known, Before};
            undefined -> {atomics:new(cells(), []), counters:new(length(counts()), [write_concurrency])}
        end,
    L = #limiter{
        name = Name,
        scope = Scope,
        handle = Handle,
        preset = Preset,
        past = Past,
        timeout = Timeout,
        slots = Slots,
        counts = Counts
    },
    try
        ets:insert(?TABLE, L)
    catch
        error:badarg -> false
    end.

-spec remove(foundation_limiter:name()) -> ok.
remove(Name) ->
    try
        true = ets:match_delete(?TABLE, {suspect, {Name, '_'}, '_'}),
        true = ets:delete(?TABLE, Name),
        ok
    catch
        error:badarg -> ok
    end.

%% @doc For the process that answers: the members as they were, which it keeps up.
-spec past(foundation_limiter:name()) -> foundation_limiter_handover:past().
past(Name) ->
    #limiter{past = Past} = find(Name),
    Past.

-spec past(foundation_limiter:name(), foundation_limiter_handover:past()) -> boolean().
past(Name, Past) ->
    ets:update_element(?TABLE, Name, {#limiter.past, Past}).

-spec group(foundation_limiter:name()) -> {foundation_limiter, foundation_limiter:name()}.
group(Name) ->
    {foundation_limiter, Name}.

%% @doc The nodes that share the limiter's keys, as this node sees them.
-spec members(foundation_limiter:name()) -> [node()].
members(Name) ->
    try
        [node(Pid) || Pid <- pg:get_members(?SCOPE, group(Name))]
    catch
        error:badarg -> []
    end.

%% @doc The node that keeps the key, as this node sees it.
-spec keeper(foundation_limiter:name(), foundation_limiter:key()) -> node() | undefined.
keeper(Name, Key) ->
    foundation_limiter_placement:owner(foundation_limiter_placement:hash(Key), members(Name)).

%% @doc For {@link foundation_limiter:info/1}, which knows what the tables on this node have counted.
-spec info(foundation_limiter:name(), #{atom() => term()}) -> #{atom() => term()}.
info(Name, Info) ->
    Shared = Info#{members => lists:usort(members(Name))},
    case find(Name) of
        #limiter{counts = Counts, timeout = Timeout} = L ->
            [Allowed, Denied | Figures] = [{What, counters:get(Counts, N)} || {N, What} <- lists:enumerate(counts())],
            Here = [with_hits_here(L, Counted, Info) || Counted <- [Allowed, Denied]],
            maps:merge(Shared#{cluster_timeout => Timeout}, maps:from_list(Here ++ Figures));
        undefined ->
            Shared
    end.

%% The hits of this node's callers: those that its leases answered, and those that were asked for. With cluster_strict the table counts
%% the hits that it answered to all nodes.
with_hits_here(#limiter{scope = cluster}, {What, N}, Info) -> {What, map_get(What, Info) + N};
with_hits_here(#limiter{scope = cluster_strict}, Counted, _Info) -> Counted.

find(Name) ->
    try ets:lookup(?TABLE, Name) of
        [L] -> L;
        [] -> undefined
    catch
        error:badarg -> undefined
    end.

%% What is counted, by its place.
counts() -> [allowed, denied, asked, unreachable, leased].

count(#limiter{counts = Counts}, What, N) -> counters:add(Counts, place(What), N).

place(allow) -> 1;
place(deny) -> 2;
place(asked) -> 3;
place(unreachable) -> 4;
place(leased) -> 5.

%% ---- requests -------------------------------------------------------------------------------------------------------------------

%% @doc What a native call could not answer on this node.
-spec request(foundation_limiter:name(), request()) ->
    foundation_limiter:answer() | ok | Count :: non_neg_integer() | {error, unreachable}.
request(Name, Request) ->
    case find(Name) of
        undefined -> unanswered(Request, 1000);
        L -> answer(L, Request)
    end.

answer(L, {peek, Key, Rule} = Request) ->
    answered(L, Request, ask(L, hash(Key), {peek, [Key | arguments(Rule)]}));
answer(L, {hit, Key, Rule, 0} = Request) ->
    answered(L, Request, ask(L, hash(Key), {hit, [Key | arguments(Rule)] ++ [0]}));
answer(L = #limiter{scope = cluster_strict}, {hit, Key, Rule, Cost} = Request) ->
    counted(L, answered(L, Request, ask(L, hash(Key), {hit, [Key | arguments(Rule)] ++ [Cost]})));
answer(L = #limiter{scope = cluster}, {hit, Key, Rule, Cost}) ->
    counted(L, hit(L, hash(Key), Key, Rule, Cost));
answer(L, {What, Key, Period} = Request) ->
    Answer = answered(L, Request, ask(L, hash(Key), {What, [Key | period(Period)]})),
    What =:= reset andalso forget_everywhere(L, Key, Period),
    Answer;
answer(L, {What, Key, Period, N} = Request) ->
    Answer = answered(L, Request, ask(L, hash(Key), {What, [Key | period(Period)] ++ [N]})),
    What =:= set andalso forget_everywhere(L, Key, Period),
    Answer.

answered(_L, _Request, {ok, Answer}) -> Answer;
answered(L, Request, unreachable) -> unanswered(Request, L#limiter.timeout).

%% Nobody to ask: no member answers, or the application does not run.
unanswered(Request, RetryMs) when element(1, Request) =:= hit; element(1, Request) =:= peek -> {deny, RetryMs};
unanswered(_Request, _RetryMs) -> {error, unreachable}.

period(preset) -> [];
period(Period) -> [Period].

%% @doc A limit as arguments.
-spec arguments(rule()) -> [non_neg_integer()].
arguments(preset) -> [];
arguments({Period, Limit}) -> [Period, Limit].

counted(L, {Word, _} = Answer) ->
    ok = count(L, Word, 1),
    Answer.

hash(Key) -> foundation_limiter_placement:hash(Key).

%% ---- leases ---------------------------------------------------------------------------------------------------------------------

hit(L = #limiter{handle = Handle}, Hash, Key, Rule, Cost) ->
    Slot = Hash rem ?SLOTS,
    Seen = seen(L, Slot),
    %% Before the request leaves: what the keeper says about time counts from a later moment.
    Sent = foundation_limiter:lease_now_nif(Handle),
    Share = share(L, Slot, Hash),
    Answer = ask(L, Hash, {lend_nif, [Key, Rule, Cost, Share]}),
    Share =:= 0 orelse atomics:put(L#limiter.slots, asking(Slot), 0),
    case Answer of
        {ok, {granted, Units, Remaining, LifeMs}} when Units > Cost ->
            ok = count(L, leased, Units - Cost),
            keep(L, Slot, Seen, Key, Rule, Units - Cost, Sent + LifeMs, false),
            {allow, Remaining + Units - Cost};
        {ok, {granted, Cost, Remaining, _}} ->
            {allow, Remaining};
        {ok, {denied, RetryMs, ForMs}} ->
            keep(L, Slot, Seen, Key, Rule, 0, Sent + ForMs, true),
            {deny, RetryMs};
        unreachable ->
            {deny, L#limiter.timeout}
    end.

%% Put into the lease table, unless somebody reset the key (or the members changed) since the request was made: whoever did it moved the
%% slot's counter first and emptied the table then, so either he emptied it after this, or this sees that the counter has moved.
keep(L = #limiter{handle = Handle}, Slot, Seen, Key, Rule, Units, End, Closed) ->
    Rule =:= preset orelse atomics:put(L#limiter.slots, brought(), 1),
    ok = foundation_limiter:lease_nif(Handle, Key, Rule, Units, End, Closed),
    case seen(L, Slot) of
        Seen -> ok;
        _ -> foundation_limiter:forget_nif(Handle, Key, Rule)
    end.

%% 0: no lease is wanted. Else the keeper divides what the key has left by it.
share(#limiter{name = Name, slots = Slots, timeout = Timeout}, Slot, Hash) ->
    Now = now_ms(),
    %% Which of the slot's keys was asked for last, and when.
    Mark = Now bsl 20 bor (Hash bsr 12),
    Last = atomics:exchange(Slots, recent(Slot), Mark),
    case Last band 16#fffff =:= Hash bsr 12 andalso Last bsr 20 + ?WARM_MS > Now of
        true ->
            %% Of the callers that find the lease used up at the same time, one asks for the next. One that was killed meanwhile only
            %% blocks the others for the timeout.
            Until = atomics:get(Slots, asking(Slot)),
            case Until =< Now andalso atomics:compare_exchange(Slots, asking(Slot), Until, Now + Timeout) of
                ok -> ?SHARE * max(1, length(members(Name)));
                _ -> 0
            end;
        false ->
            0
    end.

%% Each slot has three cells; behind them there is one that counts the changes of the members, and one that says whether any hit brought
%% its own limit.
recent(Slot) -> 3 * Slot + 1.
asking(Slot) -> 3 * Slot + 2.
generation(Slot) -> 3 * Slot + 3.
view() -> 3 * ?SLOTS + 1.
brought() -> 3 * ?SLOTS + 2.
cells() -> 3 * ?SLOTS + 2.

seen(#limiter{slots = Slots}, Slot) ->
    {atomics:get(Slots, generation(Slot)), atomics:get(Slots, view())}.

%% The count of the key is another one now.
forget_everywhere(#limiter{name = Name, timeout = Timeout}, Key, Period) ->
    Members = members(Name),
    Keeper = foundation_limiter_placement:owner(hash(Key), Members),
    erpc:multicall(lists:usort([node() | Members]), ?MODULE, forget, [Name, Key, Period, Keeper], Timeout).

%% On each member: what this node holds of the key's budget, and that it has none; also of a time when it was the keeper.
-spec forget(foundation_limiter:name(), foundation_limiter:key(), preset | pos_integer(), Keeper :: node() | undefined) -> ok.
forget(Name, Key, Period, Keeper) ->
    case find(Name) of
        undefined ->
            ok;
        L ->
            _ = Keeper =:= node() orelse foundation_limiter_member:serve(home(L), {reset, [Key | period(Period)]}),
            forget_leases(L, Key)
    end.

forget_leases(#limiter{scope = cluster_strict}, _Key) ->
    ok;
forget_leases(#limiter{slots = Slots, handle = Handle, preset = Preset}, Key) ->
    ok = atomics:add(Slots, generation(hash(Key) rem ?SLOTS), 1),
    if_there(fun() ->
        _ = Preset andalso foundation_limiter:forget_nif(Handle, Key, preset),
        %% What belongs to a limit that a hit brought cannot be found without the limit. Its units end with their window; that there are
        %% none must not be believed so long.
        case atomics:get(Slots, brought()) of
            0 -> ok;
            1 -> foundation_limiter:reopen_nif(Handle)
        end
    end).

%% The tables of a limiter that is deleted go before its owner leaves the members.
if_there(Forget) ->
    try
        Forget()
    catch
        error:{badarg, {limiter, deleted}} -> ok
    end.

home(#limiter{handle = Handle}) -> foundation_limiter:home(Handle).

%% The members have changed: what a keeper of before denied, another may have budget for.
-spec view_changed(foundation_limiter:name()) -> ok.
view_changed(Name) ->
    case find(Name) of
        #limiter{slots = Slots, handle = Handle, scope = cluster} ->
            ok = atomics:add(Slots, view(), 1),
            if_there(fun() -> foundation_limiter:reopen_nif(Handle) end);
        _ ->
            ok
    end.

%% ---- asking the keeper ----------------------------------------------------------------------------------------------------------

ask(L, Hash, Question) ->
    case ask(L, Hash, Question, now_ms() + L#limiter.timeout, 1) of
        {ok, {badarg, Detail}} ->
            error({badarg, Detail});
        {ok, Answer} when Answer =/= unknown_request, Answer =/= unreachable ->
            {ok, Answer};
        _ ->
            ok = count(L, unreachable, 1),
            unreachable
    end.

ask(L, Hash, Question, Deadline, Pause) ->
    case keeper_of(L, Hash) of
        undefined -> unreachable;
        Node when Node =:= node() -> ask_here(L, Hash, Question, Deadline, Pause);
        Node -> ask_node(L, Hash, Node, Question, Deadline, Pause)
    end.

keeper_of(#limiter{name = Name}, Hash) ->
    foundation_limiter_placement:owner(Hash, members(Name)).

%% This node keeps the key. If it does not any more, after the key was debited, another may have taken it over before, and what was
%% debited here counts for nothing.
ask_here(L, Hash, Question, Deadline, Pause) ->
    case wanted(L, Question) of
        none ->
            Answer = foundation_limiter_member:serve(home(L), Question),
            case keeper_of(L, Hash) =:= node() of
                _ when Answer =:= gone -> error({badarg, {limiter, deleted}});
                true -> {ok, Answer};
                false -> ask_again(L, Hash, Question, Deadline, Pause)
            end;
        _ ->
            %% The key is taken over, for which all who want it wait at the process that answers others.
            ask_node(L, Hash, node(), Question, Deadline, Pause)
    end.

wanted(#limiter{name = Name, past = Past} = L, Question) ->
    foundation_limiter_handover:wanted(Past, Name, home(L), Question).

ask_node(L, Hash, Node, Question, Deadline, Pause) ->
    Trust = trust(L, Node),
    case Trust =/= suspected andalso call(L, Hash, Node, Question, Deadline) of
        {ok, Answer} ->
            Trust =:= on_trial andalso clear(L, Node),
            _ = Node =:= node() orelse count(L, asked, 1),
            case Answer of
                _ when Answer =:= moved; Answer =:= gone -> ask_again(L, Hash, Question, Deadline, Pause);
                _ -> {ok, Answer}
            end;
        gone ->
            ask_again(L, Hash, Question, Deadline, Pause);
        timeout ->
            ok = suspect(L, Node),
            unreachable;
        false ->
            unreachable
    end.

%% The members are changing, and two nodes do not see the same ones yet; or the keeper is gone, and another is not found yet.
ask_again(L, Hash, Question, Deadline, Pause) ->
    case now_ms() + Pause < Deadline of
        true ->
            receive after Pause -> ok end,
            ask(L, Hash, Question, Deadline, 2 * Pause);
        false ->
            unreachable
    end.

%% A request and its answer are plain messages, not a gen_server call: a call monitors the server, and both the monitor and the answer
%% suspend their sender while the connection is full, as it is with a node that is stopped. The answer goes to an alias, so that none
%% can come late.
call(L, Hash, Node, Question, Deadline) ->
    Alias = alias([reply]),
    case send({foundation_limiter_member:name(L#limiter.name), Node}, {foundation_limiter, Alias, Question}, Deadline) of
        ok ->
            case await(Alias, L, Hash, Node, Deadline, 4) of
                {ok, _} = Answer -> Answer;
                Failed -> give_up(Alias, Failed)
            end;
        noconnect ->
            _ = unalias(Alias),
            gone;
        nosuspend ->
            _ = unalias(Alias),
            timeout
    end.

send(To, Message, Deadline) ->
    case erlang:send(To, Message, [nosuspend, noconnect]) of
        nosuspend ->
            case now_ms() < Deadline of
                true ->
                    receive after 1 -> ok end,
                    send(To, Message, Deadline);
                false ->
                    nosuspend
            end;
        Result ->
            Result
    end.

%% Looks up from time to time whether the keeper is still the keeper.
await(Alias, L, Hash, Node, Deadline, Pause) ->
    receive
        {Alias, Answer} -> {ok, Answer}
    after Pause ->
        Left = Deadline - now_ms(),
        case keeper_of(L, Hash) of
            Node when Left =< 0 -> timeout;
            Node -> await(Alias, L, Hash, Node, Deadline, min(Left, 2 * Pause));
            _ -> gone
        end
    end.

%% It may have come just now.
give_up(Alias, Failed) ->
    _ = unalias(Alias),
    receive
        {Alias, Answer} -> {ok, Answer}
    after 0 -> Failed
    end.

%% @doc A clock that is always positive, so that the 0 of a cell that was never written is long ago.
-spec now_ms() -> pos_integer().
now_ms() ->
    erlang:monotonic_time(millisecond) + (1 bsl 40).

%% ---- keepers that do not answer -------------------------------------------------------------------------------------------------

%% A node that let a request run out of time is not asked again for as long, so that callers do not queue up before it; then one of them
%% tries, while the others go on without an answer.
trust(#limiter{name = Name, timeout = Timeout}, Node) ->
    Id = {Name, Node},
    case ets:lookup(?TABLE, Id) of
        [] ->
            trusted;
        [{suspect, _, Until}] ->
            Now = now_ms(),
            Later = {{suspect, {const, Id}, Now + 2 * Timeout}},
            case Until =< Now andalso ets:select_replace(?TABLE, [{{suspect, Id, Until}, [], [Later]}]) of
                1 -> on_trial;
                _ -> suspected
            end
    end.

suspect(#limiter{name = Name, timeout = Timeout}, Node) ->
    true = ets:insert(?TABLE, {suspect, {Name, Node}, now_ms() + Timeout}),
    ok.

clear(#limiter{name = Name}, Node) ->
    ets:delete(?TABLE, {Name, Node}).
