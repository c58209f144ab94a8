%% Every number a limiter takes, of any size: what the documentation says is accepted is accepted, and nothing else.
-module(prop_limiter_ranges).

-include("fdn_proper.hrl").

-export([prop_ranges/0]).

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
