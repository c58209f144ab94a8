%% @private What a member of a cluster-wide limiter does about keys that another member kept before it: it takes them over with what
%% they have consumed, so that a member that comes admits nothing on top of the limit.
%%
%% Keys cannot be listed, so each is taken over when it is first hit at its new keeper, which has not seen it. The keeper of before is
%% asked what was consumed there, and the new one debits as much. Nobody can consume anything there any more: it answers only when its
%% own view of the members has the new keeper, and then it answers no other question about the key; and whoever debits a key from the
%% table of his own node looks afterwards whether that node still is the keeper (foundation_limiter_cluster), so what was debited after
%% the answer admits nobody.
%%
%% What was consumed more than a period ago does not count, and where the keeper of before is gone, so is what it knew.
-module(foundation_limiter_handover).

-export([past/3, changed/3, wanted/4, consumed/4, take_over/4]).
-export_type([past/0, take/0]).

%% More changes than this within one period are not looked through.
-define(VIEWS, 8).

-opaque past() :: #{
    %% The members as they were, and until when, in ms; the last ones first.
    views := [{[node()], integer()}],
    algorithm := atom(),
    %% Of the preset limit; 0 where there is none.
    period := non_neg_integer(),
    limit := non_neg_integer(),
    total := non_neg_integer()
}.

%% What is to be taken over: whose budget it is, and from whom.
-type take() :: {Whose :: {foundation_limiter:key(), PeriodMs :: non_neg_integer()}, foundation_limiter_cluster:rule(), node()}.

%% @doc Of a node that is about to be a member.
-spec past(#{atom() => term()}, [node()], integer()) -> past().
past(#{algorithm := Algorithm, limit := Limit, period := Period, burst := Burst}, Members, NowMs) ->
    changed(
        #{
            views => [],
            algorithm => Algorithm,
            period => default(Period, 0),
            limit => default(Limit, 0),
            total => default(Burst, default(Limit, 0))
        },
        Members,
        NowMs
    ).

default(undefined, Else) -> Else;
default(N, _) -> N.

%% @doc The members are others now than these.
-spec changed(past(), [node()], integer()) -> past().
changed(Past, [], _NowMs) -> Past;
changed(Past = #{views := Views}, Members, NowMs) -> Past#{views := lists:sublist([{Members, NowMs} | Views], ?VIEWS)}.

%% @doc Whether the key of a question is to be taken over before this node, which keeps it, answers.
-spec wanted(past(), foundation_limiter:name(), foundation_limiter:limiter(), {atom(), [term()]}) -> take() | none.
wanted(#{views := []}, _Name, _Home, _Question) ->
    none;
wanted(Past, Name, Home, Question) ->
    case subject(Past, Question) of
        {Key, Rule, Cost} when is_integer(Cost), Cost > 0 ->
            case Cost =< total(Past, Rule) andalso keeper_before(Past, Name, Key, Rule) of
                {kept, Keeper} -> unseen(seen(Past, Home, Key, Rule), {{Key, period(Past, Rule)}, Rule, Keeper});
                _ -> none
            end;
        _ ->
            none
    end.

unseen(0, Take) -> Take;
unseen(_Consumed, _Take) -> none.

%% Of questions that take units: what is answered next makes the key a seen one. Others are answered without, and tell of this node's
%% table alone.
subject(_Past, {lend_nif, [Key, Rule, Cost, _Share]}) -> valid(Key, Rule, Cost);
subject(_Past, {hit, [Key, Cost]}) -> {Key, preset, Cost};
subject(_Past, {hit, [Key, Period, Limit, Cost]}) -> valid(Key, {Period, Limit}, Cost);
subject(_Past, {inc, [Key, N]}) -> {Key, preset, N};
subject(#{period := Period}, {inc, [Key, Period, N]}) -> {Key, preset, N};
subject(_Past, _Question) -> none.

valid(Key, preset, Cost) -> {Key, preset, Cost};
valid(Key, {Period, Limit}, Cost) when is_integer(Period), is_integer(Limit) -> {Key, {Period, Limit}, Cost};
valid(_Key, _Rule, _Cost) -> none.

%% Who kept the key before this node did, where that is a member and not so long ago that it does not matter.
keeper_before(#{views := Views} = Past, Name, Key, Rule) ->
    Since = foundation_limiter_cluster:now_ms() - span(Past, Rule),
    look_back(Views, Since, Name, foundation_limiter_placement:hash(Key)).

look_back([{Members, Until} | Earlier], Since, Name, Hash) when Until > Since ->
    case foundation_limiter_placement:owner(Hash, Members) of
        Node when Node =:= node() ->
            look_back(Earlier, Since, Name, Hash);
        Node ->
            case lists:member(Node, foundation_limiter_cluster:members(Name)) of
                true -> {kept, Node};
                false -> none
            end
    end;
look_back(_Views, _Since, _Name, _Hash) ->
    none.

total(#{total := Total}, preset) -> Total;
total(_Past, {_Period, Limit}) -> Limit.

period(#{period := Period}, preset) -> Period;
period(_Past, {Period, _Limit}) -> Period.

%% For how long units count that were consumed.
span(#{limit := 0}, preset) -> 0;
span(#{algorithm := gcra, period := Period, limit := Limit, total := Total}, preset) -> Period * Total div Limit + 1;
span(#{algorithm := sliding_window} = Past, Rule) -> 2 * period(Past, Rule);
span(Past, Rule) -> period(Past, Rule).

%% What was consumed here.
seen(Past, Home, Key, Rule) ->
    case foundation_limiter_member:serve(Home, {peek, [Key | foundation_limiter_cluster:arguments(Rule)]}) of
        {allow, Left} -> max(0, total(Past, Rule) - Left);
        _ -> total(Past, Rule)
    end.

%% @doc By a keeper of before, asked by the first of these nodes: what was consumed here, or who kept the key before, where that is none
%% of them. `not_yet': this node does not see yet that the other one keeps it.
-spec consumed(past(), foundation_limiter:name(), foundation_limiter:limiter(), [term()]) ->
    {consumed, non_neg_integer()} | {kept, node()} | not_yet | unknown_request.
consumed(Past, Name, Home, [Key, Rule, [By | _] = Asked]) ->
    case valid(Key, Rule, 1) =/= none andalso foundation_limiter_cluster:keeper(Name, Key) of
        By ->
            case seen(Past, Home, Key, Rule) of
                0 -> earlier(keeper_before(Past, Name, Key, Rule), Asked);
                Consumed -> {consumed, Consumed}
            end;
        false ->
            unknown_request;
        _ ->
            not_yet
    end.

earlier({kept, Node} = Kept, Asked) ->
    case lists:member(Node, Asked) of
        true -> {consumed, 0};
        false -> Kept
    end;
earlier(none, _Asked) ->
    {consumed, 0}.

%% @doc By the new keeper. Where somebody was quicker, and there is not so much left, all of it.
-spec take_over(past(), foundation_limiter:limiter(), take(), Consumed :: non_neg_integer()) -> ok.
take_over(_Past, _Home, _Take, 0) ->
    ok;
take_over(Past, Home, {{Key, _Period}, Rule, _From}, Consumed) ->
    case foundation_limiter:lend_nif(Home, Key, Rule, min(Consumed, total(Past, Rule)), 0) of
        {granted, _, _, _} ->
            ok;
        {denied, _, _} ->
            _ = foundation_limiter:lend_nif(Home, Key, Rule, 1, 1),
            ok
    end.
