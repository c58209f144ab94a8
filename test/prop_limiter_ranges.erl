%% Every number a limiter takes, of any size: what the documentation says is accepted is accepted, and nothing else. And every call with
%% any terms for arguments.
-module(prop_limiter_ranges).

-include("fdn_proper.hrl").

-export([prop_ranges/0, prop_any_arguments/0, prop_any_options/0]).

-define(L, foundation_limiter).

number_of_any_size() ->
    Powers = [1, 4, 1000, 1 bsl 24, 1 bsl 31, 366 * 86400000, 1 bsl 53, 1 bsl 61, 1 bsl 64, 1 bsl 100],
    oneof([range(-2, 3), range(1, 100000), ?LET({P, D}, {elements(Powers), range(-2, 2)}, P + D), return(1.0), return(many)]).

%% What the documentation says is accepted is accepted, and nothing else; what is accepted works.
prop_ranges() ->
    Numbers = {number_of_any_size(), number_of_any_size(), number_of_any_size(), number_of_any_size()},
    ?FORALL({Algorithm, {Limit, Period, Burst, Cost}}, {elements([gcra, fixed_window, sliding_window]), Numbers}, begin
        Name = prop_limiter_ranges,
        Options = #{algorithm => Algorithm, limit => Limit, period => Period, clock => manual, capacity => 10},
        All = case Algorithm of gcra -> Options#{burst => Burst}; _ -> Options end,
        Most = case Algorithm of gcra -> Burst; _ -> Limit end,
        case {?L:start_link(Name, All), documented(Algorithm, Limit, Period, Burst)} of
            {{ok, Pid}, true} ->
                try
                    works(Name, Limit, Most, Cost)
                after
                    unlink(Pid),
                    ok = ?L:delete(Name)
                end;
            {{error, {badarg, {Option, Reason}}}, false} ->
                lists:member(Option, [limit, period, burst]) andalso lists:member(Reason, [out_of_range, not_an_integer]);
            Other ->
                io:format("~p: ~p~n", [All, Other]),
                false
        end
    end).

documented(Algorithm, Limit, Period, Burst) ->
    is_integer(Limit) andalso is_integer(Period) andalso Period >= 1 andalso Period =< 31622400000 andalso Limit >= 0 andalso
        case Algorithm of
            fixed_window -> Limit =< 16777214;
            sliding_window -> Limit < 1 bsl ((20 + min(31, floor(math:log2(Period)))) div 2);
            gcra when not is_integer(Burst); Burst < 0; Burst >= 1 bsl 64 -> false;
            gcra when Limit =:= 0 -> true;
            gcra -> Limit =< Period * 1000000 andalso Burst >= 1 andalso Burst * interval(Period, Limit) =< 1 bsl 61
        end.

works(Name, Limit, Most, Cost) ->
    try ?L:hit(Name, key, Cost) of
        {deny, Retry} -> Limit =:= 0 andalso Retry > 0;
        {allow, Left} when Cost =:= 0 -> Left =:= Most;
        {allow, Left} -> Cost > 0 andalso Left =:= Most - Cost
    catch
        error:{badarg, {cost, not_an_integer}} -> not is_integer(Cost);
        error:{badarg, {cost, out_of_range}} -> Cost < 0 orelse Cost >= 1 bsl 64;
        error:{badarg, {cost, _}} -> Limit > 0 andalso Cost > Most
    end.

%% Of gcra, in 1/16 ns, rounded up.
interval(Period, Limit) ->
    (Period * 16000000 + Limit - 1) div Limit.

%% ---- any terms --------------------------------------------------------------------------------------------------------------------

%% {Function, What its arguments are}
calls() ->
    [
        {hit, [limiter, key]}, {hit, [limiter, key, number]}, {hit, [limiter, key, number, number]},
        {hit, [limiter, key, number, number, number]}, {peek, [limiter, key]}, {peek, [limiter, key, number, number]},
        {reset, [limiter, key]}, {reset, [limiter, key, number]}, {hit_all, [entries]}, {reserve, [limiter, key, number, number]},
        {refund, [token]}, {get, [limiter, key]}, {get, [limiter, key, number]}, {inc, [limiter, key, number]},
        {inc, [limiter, key, number, number]}, {set, [limiter, key, number, number]}, {advance, [limiter, number]}, {info, [limiter]},
        {whereis, [limiter]}
    ].

argument(limiter) -> oneof([name, name, handle, home, any()]);
argument(key) -> any();
argument(number) -> oneof([range(0, 10), return(1000), number_of_any_size(), any()]);
argument(entries) -> oneof([list({argument(limiter), argument(key), range(0, 3)}), list(any()), any()]);
argument(token) -> oneof([token, any()]).

%% Misuse is told as such, whatever it is; all else has one of the documented answers.
prop_any_arguments() ->
    Call = ?LET({Function, Roles}, elements(calls()), {Function, [argument(Role) || Role <- Roles]}),
    ?FORALL({Algorithm, Calls}, {elements([gcra, fixed_window, sliding_window]), list(Call)}, begin
        Name = prop_limiter_any,
        {ok, Pid} = ?L:start_link(Name, #{algorithm => Algorithm, limit => 5, period => 1000, clock => manual, capacity => 10}),
        try
            lists:all(fun({Function, Arguments}) -> answers(Function, [given(Name, A) || A <- Arguments]) end, Calls)
        after
            unlink(Pid),
            ok = ?L:delete(Name)
        end
    end).

given(Name, name) -> Name;
given(Name, handle) -> ?L:whereis(Name);
given(Name, home) -> ?L:home(?L:whereis(Name));
given(Name, token) -> case catch ?L:reserve(Name, k, 1, 1000) of {ok, _, Token} -> Token; _ -> none end;
given(Name, [Head | Tail]) -> [given(Name, Head) | given(Name, Tail)];
given(Name, {L, Key, Cost}) -> {given(Name, L), Key, Cost};
given(_Name, Other) -> Other.

answers(Function, Arguments) ->
    try apply(?L, Function, Arguments) of
        Answer -> answer(Function, Answer) orelse told(Function, Arguments, Answer)
    catch
        error:{badarg, {What, Why}} when is_atom(What) orelse element(1, What) =:= entry, is_atom(Why) orelse is_tuple(Why) -> true;
        Class:Reason:Stack -> told(Function, Arguments, {Class, Reason, Stack})
    end.

told(Function, Arguments, Answer) ->
    io:format("~p~p: ~p~n", [Function, Arguments, Answer]),
    false.

answer(hit_all, {allow, Lefts}) -> lists:all(fun is_integer/1, Lefts);
answer(hit_all, {deny, Index, Ms}) -> Index > 0 andalso Ms >= 0;
answer(reserve, {ok, Ms, Token}) -> Ms >= 0 andalso is_reference(Token);
answer(refund, Answer) -> lists:member(Answer, [ok, {error, expired}, {error, refunded}]);
answer(Function, {Word, N}) when Word =:= deny; Word =:= allow andalso Function =/= reserve -> is_integer(N) andalso N >= 0;
answer(Function, ok) -> Function =:= reset orelse Function =:= advance;
answer(info, Info) -> is_map(Info);
answer(whereis, undefined) -> true;
answer(Function, N) -> lists:member(Function, [get, inc, set, whereis]) andalso is_integer(N) andalso N >= 0.

%% A limiter starts with good options, or says which one is not.
prop_any_options() ->
    Option = oneof([algorithm, limit, period, burst, capacity, on_full, clock, telemetry, any()]),
    Words = [gcra, fixed_window, sliding_window, evict, deny, allow, auto, precise, coarse, manual, true, false],
    Map = ?LET(Pairs, list({Option, oneof([any(), range(0, 1000), elements(Words)])}), maps:from_list(Pairs)),
    ?FORALL({Name, Options}, {oneof([prop_limiter_any, any()]), oneof([Map, any()])}, begin
        case ?L:start_link(Name, Options) of
            {ok, Pid} -> unlink(Pid), ok =:= ?L:delete(Name);
            {error, {badarg, {_, Why}}} -> is_atom(Why);
            Other -> told(start_link, [Name, Options], Other)
        end
    end).
