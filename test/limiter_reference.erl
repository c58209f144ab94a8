%% What a limiter must answer, worked out naively: it keeps a book of all that was admitted, with its time, and judges each question
%% from the whole book. No state is derived from hit to hit, nothing is rounded but the answers, and a wait is searched for, not
%% computed.
%%
%% Time is a number of milliseconds. Amounts are units, or for gcra what they are worth in time (1/16 ns).
-module(limiter_reference).

-export([new/2, advance/2, now/1, rule/2, hit/4, reset/3, hit_all/2, reserve/5, refund/2, get/3, inc/4, set/4, most/2]).
-export_type([ref/0, rule/0, token/0]).

-type algorithm() :: gcra | fixed_window | sliding_window.
-type rule() :: {Period :: pos_integer(), Limit :: non_neg_integer(), Burst :: non_neg_integer()}.
-type book() :: [{At :: non_neg_integer(), Amount :: integer()}].
-type ref() :: #{
    algorithm := algorithm(),
    preset := none | rule(),
    now := non_neg_integer(),
    books := #{{Key :: term(), Period :: pos_integer()} => book()},
    refunded := #{reference() => boolean()}
}.
-type token() :: {reference(), {term(), pos_integer()}, Amount :: pos_integer(), Since :: non_neg_integer()}.

-define(UNITS, 16000000). % of gcra's time in a millisecond

-spec new(algorithm(), none | rule()) -> ref().
new(Algorithm, Preset) ->
    #{algorithm => Algorithm, preset => Preset, now => 0, books => #{}, refunded => #{}}.

-spec advance(ref(), non_neg_integer()) -> ref().
advance(#{now := Now} = Ref, Ms) ->
    Ref#{now := Now + Ms}.

-spec now(ref()) -> non_neg_integer().
now(#{now := Now}) -> Now.

-spec rule(ref(), preset | {pos_integer(), non_neg_integer()}) -> rule().
rule(#{preset := Preset}, preset) -> Preset;
rule(_Ref, {Period, Limit}) -> {Period, Limit, Limit}.

%% Cost 0 is a peek.
-spec hit(ref(), term(), rule(), non_neg_integer()) -> {{allow | deny, non_neg_integer()}, ref()}.
hit(Ref, Key, {Period, _, _} = Rule, Cost) ->
    case answer(Ref, {Key, Period}, Rule, Cost) of
        {allow, _} = Answer when Cost > 0 -> {Answer, write(Ref, {Key, Period}, worth(Ref, Rule, Cost))};
        Answer -> {Answer, Ref}
    end.

-spec reset(ref(), term(), pos_integer()) -> ref().
reset(#{books := Books} = Ref, Key, Period) ->
    Ref#{books := maps:remove({Key, Period}, Books)}.

%% Hits in order, over limiters known by any terms. After a deny those before it are worth nothing; they were hits nevertheless, and a
%% window that one of them opened is open.
-spec hit_all(#{L => ref()}, [{L, term(), non_neg_integer()}]) ->
    {{allow, [non_neg_integer()]} | {deny, pos_integer(), non_neg_integer()}, #{L => ref()}}.
hit_all(Refs, Entries) ->
    hit_all(Refs, Refs, Entries, []).

hit_all(_Before, Refs, [], Lefts) ->
    {{allow, lists:reverse(Lefts)}, Refs};
hit_all(Before, Refs, [{L, Key, Cost} | Rest], Lefts) ->
    Ref = maps:get(L, Refs),
    case hit(Ref, Key, rule(Ref, preset), Cost) of
        {{allow, Left}, Ref2} -> hit_all(Before, Refs#{L := Ref2}, Rest, [Left | Lefts]);
        {{deny, Wait}, _} -> {{deny, length(Lefts) + 1, Wait}, maps:map(fun(I, R) -> undo(maps:get(I, Before), R) end, Refs)}
    end.

undo(#{books := Old}, #{books := New} = Ref) ->
    Ref#{books := maps:map(fun(Budget, Book) -> worthless(length(Book) - length(maps:get(Budget, Old, [])), Book) end, New)}.

worthless(0, Book) -> Book;
worthless(N, [{At, _} | Book]) -> [{At, 0} | worthless(N - 1, Book)].

%% gcra only: a hit that may wait. Written at once; what comes later queues behind it.
-spec reserve(ref(), term(), rule(), pos_integer(), non_neg_integer()) ->
    {{ok, non_neg_integer(), token()} | {deny, non_neg_integer()}, ref()}.
reserve(#{now := Now} = Ref, Key, {Period, Limit, _} = Rule, Cost, MaxWait) ->
    Budget = {Key, Period},
    Wait =
        case answer(Ref, Budget, Rule, Cost) of
            {allow, _} -> 0;
            {deny, Ms} -> Ms
        end,
    case Limit > 0 andalso Wait =< MaxWait of
        true ->
            Amount = worth(Ref, Rule, Cost),
            Since = Now * ?UNITS + debt(book(Ref, Budget), Now),
            {{ok, Wait, {make_ref(), Budget, Amount, Since}}, write(Ref, Budget, Amount)};
        false when Limit =:= 0 ->
            {{deny, Period}, Ref};
        false ->
            {{deny, Wait - MaxWait}, Ref}
    end.

%% What time has not given back since the queue before the reservation had drained is given back now; and never more than is owed.
-spec refund(ref(), token()) -> {ok | {error, expired | refunded}, ref()}.
refund(#{refunded := Refunded} = Ref, {Id, _, _, _}) when is_map_key(Id, Refunded) ->
    {{error, case maps:get(Id, Refunded) of true -> refunded; false -> expired end}, Ref};
refund(#{now := Now, refunded := Refunded} = Ref, {Id, Budget, Amount, Since}) ->
    Left = Amount - max(0, Now * ?UNITS - Since),
    case Left > 0 andalso debt(book(Ref, Budget), Now) > 0 of
        true -> {ok, write(Ref#{refunded := Refunded#{Id => true}}, Budget, -Left)};
        false -> {{error, expired}, Ref#{refunded := Refunded#{Id => false}}}
    end.

%% Units consumed, rounded up. gcra's are worth nothing by a limit of 0, and cannot be changed by it.
-spec get(ref(), term(), rule()) -> non_neg_integer().
get(#{algorithm := gcra}, _Key, {_, 0, _}) ->
    0;
get(#{algorithm := gcra, now := Now} = Ref, Key, {Period, Limit, _}) ->
    Interval = interval(Period, Limit),
    (debt(book(Ref, {Key, Period}), Now) + Interval - 1) div Interval;
get(#{algorithm := fixed_window, now := Now} = Ref, Key, {Period, _, _}) ->
    in_window(lists:reverse(book(Ref, {Key, Period})), Period, Now, none, 0);
get(#{algorithm := sliding_window, now := Now} = Ref, Key, {Period, _, _}) ->
    {Weighted, Period} = weighted(book(Ref, {Key, Period}), Period, Now),
    (Weighted + Period - 1) div Period.

%% A hit that nobody asks for leave. A count stays where its range ends.
-spec inc(ref(), term(), rule(), non_neg_integer()) -> {non_neg_integer(), ref()}.
inc(#{algorithm := gcra} = Ref, _Key, {_, 0, _}, _N) ->
    {0, Ref};
inc(Ref, Key, {Period, _, _} = Rule, N) ->
    Budget = {Key, Period},
    Ref2 = case min(worth(Ref, Rule, N), room(Ref, Budget, Rule)) of 0 -> Ref; Amount -> write(Ref, Budget, Amount) end,
    {get(Ref2, Key, Rule), Ref2}.

%% As if this many units were all that was consumed; an open window stays open. Of none it is a reset.
-spec set(ref(), term(), rule(), non_neg_integer()) -> {non_neg_integer(), ref()}.
set(Ref, Key, {Period, _, _}, 0) ->
    {0, reset(Ref, Key, Period)};
set(#{algorithm := gcra} = Ref, _Key, {_, 0, _}, _N) ->
    {0, Ref};
set(#{algorithm := Algorithm, now := Now, books := Books} = Ref, Key, {Period, _, _} = Rule, N) ->
    Budget = {Key, Period},
    Opened =
        case Algorithm of
            fixed_window -> opened(lists:reverse(book(Ref, Budget)), Period, Now);
            _ -> Now
        end,
    Emptied = Ref#{books := maps:remove(Budget, Books)},
    {N, Ref#{books := Books#{Budget => [{Opened, min(worth(Ref, Rule, N), room(Emptied, Budget, Rule))}]}}}.

%% The most that may be counted in one call.
-spec most(ref(), rule()) -> non_neg_integer().
most(#{algorithm := gcra}, {_, 0, _}) -> (1 bsl 64) - 1;
most(#{algorithm := gcra}, {Period, Limit, _}) -> (1 bsl 61) div interval(Period, Limit);
most(#{algorithm := fixed_window}, _) -> 16777214;
most(#{algorithm := sliding_window}, {Period, _, _}) -> (1 bsl ((20 + min(31, floor(math:log2(Period)))) div 2)) - 1.

%% What a count can still hold.
room(#{algorithm := gcra, now := Now} = Ref, Budget, _Rule) ->
    (1 bsl 62) - debt(book(Ref, Budget), Now);
room(#{algorithm := fixed_window} = Ref, {Key, _}, Rule) ->
    most(Ref, Rule) - get(Ref, Key, Rule);
room(#{algorithm := sliding_window, now := Now} = Ref, Budget, {Period, _, _} = Rule) ->
    most(Ref, Rule) - in_aligned(Now div Period, book(Ref, Budget), Period).

%% ---- the book -------------------------------------------------------------------------------------------------------------------

book(#{books := Books}, Budget) ->
    maps:get(Budget, Books, []).

write(#{now := Now, books := Books} = Ref, Budget, Amount) ->
    Ref#{books := Books#{Budget => [{Now, Amount} | maps:get(Budget, Books, [])]}}.

worth(#{algorithm := gcra}, {Period, Limit, _}, Cost) -> Cost * interval(Period, Limit);
worth(_Ref, _Rule, Cost) -> Cost.

%% gcra: of one unit, rounded up.
interval(Period, Limit) ->
    (Period * ?UNITS + Limit - 1) div Limit.

%% ---- answers --------------------------------------------------------------------------------------------------------------------

%% Remaining is the largest cost that fits; RetryAfter the least wait after which this cost fits.
answer(_Ref, _Budget, {Period, 0, _}, _Cost) ->
    {deny, Period};
answer(#{algorithm := Algorithm, now := Now} = Ref, Budget, Rule, Cost) ->
    Book = book(Ref, Budget),
    Wanted = max(1, Cost),
    Left = fun(At) -> left(Algorithm, Rule, Book, At) end,
    case Left(Now) of
        Fits when Fits >= Wanted -> {allow, Fits - Cost};
        _ -> {deny, least(fun(Wait) -> Left(Now + Wait) >= Wanted end)}
    end.

%% The least number from 1 on for which a condition holds that stays true once it is.
least(Holds) -> least(Holds, 1).

least(Holds, High) ->
    case Holds(High) of
        true -> between(Holds, High div 2, High);
        false -> least(Holds, High * 2)
    end.

between(_Holds, Low, High) when High - Low =< 1 -> High;
between(Holds, Low, High) ->
    Middle = (Low + High) div 2,
    case Holds(Middle) of
        true -> between(Holds, Low, Middle);
        false -> between(Holds, Middle, High)
    end.

left(gcra, {Period, Limit, Burst}, Book, Now) ->
    Interval = interval(Period, Limit),
    max(0, Burst * Interval - debt(Book, Now)) div Interval;
left(fixed_window, {Period, Limit, _}, Book, Now) ->
    Limit - in_window(lists:reverse(Book), Period, Now, none, 0);
left(sliding_window, {Period, Limit, _}, Book, Now) ->
    {Weighted, Scale} = weighted(Book, Period, Now),
    max(0, Limit * Scale - Weighted) div Scale.

%% gcra: a debt that time pays off. Limits of different size under one period share it, so it is counted in time.
debt(Book, Now) ->
    {Debt, Last} = lists:foldr(
        fun({At, Amount}, {Owed, Since}) -> {max(0, paid_off(Owed, At - Since) + Amount), At} end,
        {0, 0},
        Book
    ),
    paid_off(Debt, Now - Last).

paid_off(Owed, Ms) -> max(0, Owed - Ms * ?UNITS).

%% fixed_window: the windows follow from the hits: the first opens one, and so does the first one after its end.
in_window([{At, Amount} | Rest], Period, Now, Start, Used) when Start =/= none, At < Start + Period ->
    in_window(Rest, Period, Now, Start, Used + Amount);
in_window([{At, Amount} | Rest], Period, Now, _Start, _Used) ->
    in_window(Rest, Period, Now, At, Amount);
in_window([], Period, Now, Start, Used) when Start =/= none, Now < Start + Period ->
    Used;
in_window([], _Period, _Now, _Start, _Used) ->
    0.

%% When the window that is open opened; now, if there is none.
opened([], _Period, Now) ->
    Now;
opened([{Start, _} | Rest], Period, Now) ->
    case [Hit || {At, _} = Hit <- Rest, At >= Start + Period] of
        [] when Now < Start + Period -> Start;
        Later -> opened(Later, Period, Now)
    end.

%% sliding_window: {Estimate * Period, Period}: the aligned window of now, and of the one before it as much as the last Period ms cover.
weighted(Book, Period, Now) ->
    Index = Now div Period,
    Previous = in_aligned(Index - 1, Book, Period),
    {Previous * (Period - Now rem Period) + in_aligned(Index, Book, Period) * Period, Period}.

in_aligned(Index, Book, Period) ->
    lists:sum([Amount || {At, Amount} <- Book, At div Period =:= Index]).
