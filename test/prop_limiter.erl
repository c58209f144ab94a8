%% The limiter against naive references, with a manual clock: random programs of hits, peeks, resets and steps of time, every answer
%% compared. The references keep the admitted hits themselves, not a state derived from them.
-module(prop_limiter).

-include("fdn_proper.hrl").

-export([prop_fixed_window/0, prop_gcra/0, prop_keys/0, prop_ranges/0]).

-define(L, foundation_limiter).

%% ---- programs -------------------------------------------------------------------------------------------------------------------

%% Few keys, so that they meet; the last two are long enough to be hashed elsewhere.
key() ->
    oneof([a, 1, 1.0, <<"k">>, {user, 7}, "str", #{a => 1}, binary:copy(<<"x">>, 40000), lists:seq(1, 300)]).

period() -> oneof([range(1, 20), range(1, 5000), return(366 * 86400000)]).
limit() -> oneof([range(0, 5), range(1, 1000)]).

%% {Rule, Cost} where Rule is preset or {Period, Limit}; the cost, in tenths of what fits.
command(Period) ->
    Rule = oneof([preset, preset, {oneof([return(Period), period()]), limit()}]),
    frequency([
        {10, {hit, key(), Rule, frequency([{3, one}, {1, range(0, 10)}])}},
        {2, {peek, key(), Rule}},
        {1, {reset, key()}},
        {4, {advance, oneof([range(0, 3), range(0, Period), range(0, 3 * Period)])}}
    ]).

program(Burst) ->
    ?LET(
        {Period, Limit},
        {period(), limit()},
        {Period, Limit, Burst(Limit), list(command(Period))}
    ).

prop_fixed_window() ->
    ?FORALL({Period, Limit, _, Commands}, program(fun(Limit) -> Limit end), begin
        Options = #{algorithm => fixed_window, limit => Limit, period => Period},
        run(Options, {Period, Limit, Limit}, fun fixed_window/5, Commands)
    end).

prop_gcra() ->
    Burst = fun(Limit) -> oneof([return(max(1, Limit)), range(1, 4)]) end,
    ?FORALL({Period, Limit, Burst0, Commands}, ?SUCHTHAT({P, _, B, _}, program(Burst), P * B < 4 * 366 * 86400000), begin
        Options = #{algorithm => gcra, limit => Limit, period => Period, burst => Burst0},
        run(Options, {Period, Limit, Burst0}, fun gcra/5, Commands)
    end).

run(Options, Preset, Reference, Commands) ->
    Name = list_to_atom("prop_limiter_" ++ integer_to_list(erlang:unique_integer([positive]) rem 100)),
    {ok, Pid} = ?L:start_link(Name, Options#{clock => manual, capacity => 1000, on_full => deny}),
    try
        run(Name, Preset, Reference, Commands, 0, #{})
    after
        unlink(Pid),
        ok = ?L:delete(Name)
    end.

run(_Name, _Preset, _Reference, [], _Now, _Model) ->
    true;
run(Name, Preset, Reference, [Command | Rest], Now, Model) ->
    case Command of
        {advance, Ms} ->
            case (Now + Ms) * 1000000 =< 1 bsl 59 of
                true ->
                    ok = ?L:advance(Name, Ms),
                    run(Name, Preset, Reference, Rest, Now + Ms, Model);
                false ->
                    true
            end;
        {reset, Key} ->
            ok = ?L:reset(Name, Key),
            run(Name, Preset, Reference, Rest, Now, maps:remove({Key, element(1, Preset)}, Model));
        {Verb, Key, Rule, Size} ->
            {Period, Limit, Burst} = rule(Rule, Preset),
            Cost = case Size of one -> min(1, Burst); _ -> Burst * Size div 10 end,
            Answer =
                case {Verb, Rule} of
                    {hit, preset} when Size =:= one, Cost =:= 1 -> ?L:hit(Name, Key);
                    {hit, preset} -> ?L:hit(Name, Key, Cost);
                    {hit, {_, _}} when Size =:= one, Cost =:= 1 -> ?L:hit(Name, Key, Period, Limit);
                    {hit, {_, _}} -> ?L:hit(Name, Key, Period, Limit, Cost)
                end,
            check(Name, Preset, Reference, Rest, Now, Model, {Key, Period}, {Period, Limit, Burst}, Cost, Answer, Command);
        {peek, Key, Rule} ->
            {Period, Limit, Burst} = rule(Rule, Preset),
            Answer = case Rule of preset -> ?L:peek(Name, Key); _ -> ?L:peek(Name, Key, Period, Limit) end,
            check(Name, Preset, Reference, Rest, Now, Model, {Key, Period}, {Period, Limit, Burst}, 0, Answer, Command)
    end.

rule(preset, Preset) -> Preset;
rule({Period, Limit}, _Preset) -> {Period, Limit, Limit}.

check(Name, Preset, Reference, Rest, Now, Model, Budget, Rule, Cost, Answer, Command) ->
    Past = maps:get(Budget, Model, []),
    Expected = expected(Reference, Rule, Past, Now, Cost),
    case Answer =:= Expected of
        true ->
            Model2 = case Expected of
                {allow, _} when Cost > 0 -> Model#{Budget => [{Now, Cost, element(2, Rule)} | Past]};
                _ -> Model
            end,
            run(Name, Preset, Reference, Rest, Now, Model2);
        false ->
            io:format("~p at ~p: ~p, not ~p; admitted before: ~p~n", [Command, Now, Answer, Expected, Past]),
            false
    end.

%% ---- references: what is left at a time, given the admitted hits (latest first) ---------------------------------------------------

%% Remaining is the largest cost that fits; RetryAfter the least wait after which this cost fits.
expected(_Reference, {Period, 0, _}, _Past, _Now, _Cost) ->
    {deny, Period};
expected(Reference, {Period, Limit, Burst}, Past, Now, Cost) ->
    Wanted = max(1, Cost),
    Left = fun(At) -> Reference(Period, Limit, Burst, Past, At) end,
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

%% The windows follow from the hits: the first opens one, and so does the first one after its end.
fixed_window(Period, Limit, _Burst, Past, Now) ->
    Limit - used(lists:reverse(Past), Period, Now, none, 0).

used([{At, Cost, _} | Rest], Period, Now, Start, Used) when Start =/= none, At < Start + Period ->
    used(Rest, Period, Now, Start, Used + Cost);
used([{At, Cost, _} | Rest], Period, Now, _Start, _Used) ->
    used(Rest, Period, Now, At, Cost);
used([], Period, Now, Start, Used) when Start =/= none, Now < Start + Period ->
    Used;
used([], _Period, _Now, _Start, _Used) ->
    0.

%% A debt that is paid off by time, replayed from the first hit on. Limits of different size under one period share it, so it is
%% counted in time (1/16 ns).
gcra(Period, Limit, Burst, Past, Now) ->
    {Debt, Last} = lists:foldr(
        fun({At, Cost, ItsLimit}, {Owed, Since}) ->
            {max(0, Owed - (At - Since) * 16000000) + Cost * interval(Period, ItsLimit), At}
        end,
        {0, 0},
        Past
    ),
    Owed = max(0, Debt - (Now - Last) * 16000000),
    max(0, Burst * interval(Period, Limit) - Owed) div interval(Period, Limit).

%% Rounded up.
interval(Period, Limit) ->
    (Period * 16000000 + Limit - 1) div Limit.

%% ---- keys -----------------------------------------------------------------------------------------------------------------------

%% Two terms have one budget if, and only if, they are =:=, whichever way they were made.
prop_keys() ->
    ?FORALL({A, B}, oneof([{any(), any()}, ?LET(T, any(), {T, T}), ?LET(T, any(), {T, {T}}), ?LET(T, any(), {T, [T]})]), begin
        Name = prop_limiter_keys,
        {ok, Pid} = ?L:start_link(Name, #{limit => 2, period => 1000, clock => manual, capacity => 10}),
        try
            First = ?L:hit(Name, A),
            Second = ?L:hit(Name, binary_to_term(term_to_binary(A))),
            Third = ?L:hit(Name, B),
            First =:= {allow, 1} andalso Second =:= {allow, 0} andalso
                Third =:= (case A =:= B of true -> {deny, 500}; false -> {allow, 1} end)
        after
            unlink(Pid),
            ok = ?L:delete(Name)
        end
    end).

%% ---- ranges ---------------------------------------------------------------------------------------------------------------------

number_of_any_size() ->
    Powers = [1, 4, 1000, 1 bsl 24, 1 bsl 31, 366 * 86400000, 1 bsl 53, 1 bsl 61, 1 bsl 64, 1 bsl 100],
    oneof([range(-2, 3), range(1, 100000), ?LET({P, D}, {elements(Powers), range(-2, 2)}, P + D), return(1.0), return(many)]).

%% What the documentation says is accepted is accepted, and nothing else; what is accepted works.
prop_ranges() ->
    Numbers = {number_of_any_size(), number_of_any_size(), number_of_any_size(), number_of_any_size()},
    ?FORALL({Algorithm, {Limit, Period, Burst, Cost}}, {oneof([gcra, fixed_window]), Numbers}, begin
        Name = prop_limiter_ranges,
        Options = #{algorithm => Algorithm, limit => Limit, period => Period, clock => manual, capacity => 10},
        All = case Algorithm of gcra -> Options#{burst => Burst}; fixed_window -> Options end,
        Most = case Algorithm of gcra -> Burst; fixed_window -> Limit end,
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
