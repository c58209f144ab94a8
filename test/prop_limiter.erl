%% The limiter against limiter_reference, with a manual clock: random programs over one to three limiters, every answer compared.
-module(prop_limiter).

-include("fdn_proper.hrl").

-export([prop_fixed_window/0, prop_gcra/0, prop_sliding_window/0, prop_all_at_once/0, prop_keys/0]).

-import(limiter_reference, [rule/2]).

-define(L, foundation_limiter).
-define(YEAR, (366 * 86400000)).

%% ---- programs -------------------------------------------------------------------------------------------------------------------

prop_fixed_window() -> prop_programs([fixed_window]).
prop_gcra() -> prop_programs([gcra]).
prop_sliding_window() -> prop_programs([sliding_window]).
prop_all_at_once() -> prop_programs([gcra, fixed_window, sliding_window]).

prop_programs(Algorithms) ->
    ?FORALL({Limiters, Commands}, program(Algorithms), run(Limiters, Commands)).

%% {[{Algorithm, {Period, Limit, Burst}}], [Command]}
program(Algorithms) ->
    ?LET(
        Limiters,
        ?LET(N, frequency([{2, 1}, {1, 2}, {1, 3}]), vector(N, limiter(Algorithms))),
        {Limiters, ?SIZED(Size, resize(2 * Size, list(command(Limiters))))}
    ).

limiter(Algorithms) ->
    Burst = fun(gcra, Limit) -> oneof([return(max(1, Limit)), range(1, 4)]); (_, Limit) -> return(Limit) end,
    ?SUCHTHAT(
        {_, {Period, _, Most}},
        ?LET({A, Period, Limit}, {elements(Algorithms), period(), limit()}, {A, {Period, Limit, Burst(A, Limit)}}),
        Period * Most < 4 * ?YEAR
    ).

%% Few keys, so that they meet; the last two are long enough to be hashed elsewhere.
key() ->
    frequency([
        {8, a},
        {2, oneof([1, 1.0, <<"k">>, {user, 7}, "str", #{a => 1}, binary:copy(<<"x">>, 40000), lists:seq(1, 300)])}
    ]).

%% A number of milliseconds; or to where a window ends, or what the last denial said, give or take one.
step(Period) ->
    frequency([
        {2, oneof([range(0, 3), range(0, Period), range(0, 3 * Period)])},
        {1, oneof([Period - 1, Period, 2 * Period])},
        {1, {edge, Period, range(-1, 1)}},
        {3, {wait, range(-1, 0)}}
    ]).

period() -> oneof([range(1, 20), range(1, 5000), return(?YEAR)]).
limit() -> oneof([range(0, 5), range(1, 1000)]).

%% A rule is the preset one or {Period, Limit}; sizes are tenths of what fits.
command(Limiters) ->
    ?LET(L, range(1, length(Limiters)), command(L, lists:nth(L, Limiters), Limiters)).

command(L, {Algorithm, {Period, Limit, _}}, Limiters) ->
    Rule = oneof([preset, preset, {oneof([return(Period), period()]), limit()}]),
    %% Counts go by the period alone, and gcra's by the preset limit.
    Count = case Algorithm of gcra -> oneof([preset, {Period, Limit}]); _ -> Rule end,
    Size = frequency([{3, one}, {1, range(0, 10)}]),
    frequency([
        {10, {hit, L, key(), Rule, Size}},
        {2, {peek, L, key(), Rule}},
        {1, {reset, L, key(), Rule}},
        {5, {advance, L, step(Period)}},
        {4, {hit_all, list({range(1, length(Limiters)), key(), Size})}},
        {3, {reserve, L, key(), Size, oneof([range(0, 3), range(0, Period), range(0, 10 * Period)])}},
        {3, {refund, range(1, 5)}},
        {2, {get, L, key(), Count}},
        {1, {inc, L, key(), Count, oneof([Size, range(0, 30)])}},
        {1, {set, L, key(), Count, oneof([Size, range(0, 30)])}}
    ]).

run(Limiters, Commands) ->
    Started = [start(I, Limiter) || {I, Limiter} <- lists:zip(lists:seq(1, length(Limiters)), Limiters)],
    Refs = [{I, limiter_reference:new(A, Preset)} || {I, {A, Preset}} <- lists:zip(lists:seq(1, length(Limiters)), Limiters)],
    try
        steps(Commands, maps:from_list(Refs), [], 1) andalso
            lists:all(fun({Name, _}) -> #{full := Full} = ?L:info(Name), Full =:= 0 end, Started)
    after
        [begin unlink(Pid), ok = ?L:delete(Name) end || {Name, Pid} <- Started]
    end.

start(I, {Algorithm, {Period, Limit, Burst}}) ->
    Options = #{algorithm => Algorithm, limit => Limit, period => Period, clock => manual, capacity => 1000, on_full => deny},
    {ok, Pid} = ?L:start_link(name(I), case Algorithm of gcra -> Options#{burst => Burst}; _ -> Options end),
    {name(I), Pid}.

name(1) -> prop_limiter_1;
name(2) -> prop_limiter_2;
name(3) -> prop_limiter_3.

steps([], _Refs, _Tokens, _Wait) ->
    true;
steps([Command0 | Rest], Refs, Tokens, Wait) ->
    Command = in_ms(Command0, Refs, Wait),
    {Expected, Refs2} = expected(Command, Refs, Tokens),
    Called = try call(Command, Refs, Tokens) catch error:Why -> {raised, Why} end,
    case {Called, Expected} of
        {{ok, Ms, Token}, {ok, Ms, Known}} ->
            steps(Rest, Refs2, [{Token, Known} | Tokens], Wait);
        {{deny, Ms}, {deny, Ms}} ->
            steps(Rest, Refs2, Tokens, Ms);
        {Same, Same} ->
            steps(Rest, Refs2, Tokens, Wait);
        {Answer, _} ->
            io:format("~p: ~p, not ~p; the limiters were ~p~n", [Command, Answer, Expected, Refs]),
            false
    end.

%% A manual clock ends after 18 years, that of a sliding window after 8: it stays before that.
in_ms({advance, L, Step}, Refs, Wait) ->
    Now = limiter_reference:now(maps:get(L, Refs)),
    Ms =
        case Step of
            {edge, Period, More} -> Period - Now rem Period + More;
            {wait, More} -> Wait + More;
            _ -> Step
        end,
    {advance, L, max(0, min(Ms, (1 bsl 38) - Now))};
in_ms(Command, _Refs, _Wait) ->
    Command.

size(one, {_, _, Most}) -> min(1, Most);
size(Tenths, {_, _, Most}) -> Most * Tenths div 10.

size(hit, Size, _Ref, Rule) -> size(Size, Rule);
size(_, one, _Ref, _Rule) -> 1;
size(_, Tenths, Ref, Rule) -> min(size(Tenths, Rule), limiter_reference:most(Ref, Rule)).

%% ---- one command, in the limiter and in the reference -----------------------------------------------------------------------------

call({advance, L, Ms}, _Refs, _Tokens) ->
    ?L:advance(name(L), Ms);
call({refund, N}, _Refs, Tokens) ->
    case Tokens of
        [] -> ok;
        _ -> ?L:refund(element(1, nth(N, Tokens)))
    end;
call({hit_all, Entries}, Refs, _Tokens) ->
    ?L:hit_all([{name(L), Key, size(Size, rule(maps:get(L, Refs), preset))} || {L, Key, Size} <- Entries]);
call({Verb, L, Key, Rule}, Refs, _Tokens) ->
    call(Verb, name(L), Key, Rule, rule(maps:get(L, Refs), Rule));
call({reserve, L, Key, Size, MaxWait}, Refs, _Tokens) ->
    ?L:reserve(name(L), Key, size(Size, rule(maps:get(L, Refs), preset)), MaxWait);
call({Verb, L, Key, Rule, Size}, Refs, _Tokens) ->
    {Period, Limit, _} = All = rule(maps:get(L, Refs), Rule),
    case {Verb, Rule, Size, size(Verb, Size, maps:get(L, Refs), All)} of
        {hit, preset, one, 1} -> ?L:hit(name(L), Key);
        {hit, preset, _, Cost} -> ?L:hit(name(L), Key, Cost);
        {hit, _, one, 1} -> ?L:hit(name(L), Key, Period, Limit);
        {hit, _, _, Cost} -> ?L:hit(name(L), Key, Period, Limit, Cost);
        {inc, preset, _, N} -> ?L:inc(name(L), Key, N);
        {inc, _, _, N} -> ?L:inc(name(L), Key, Period, N);
        {set, _, _, N} -> ?L:set(name(L), Key, Period, N)
    end.

call(peek, Name, Key, preset, _) -> ?L:peek(Name, Key);
call(peek, Name, Key, {Period, Limit}, _) -> ?L:peek(Name, Key, Period, Limit);
call(reset, Name, Key, preset, _) -> ?L:reset(Name, Key);
call(reset, Name, Key, {Period, _}, _) -> ?L:reset(Name, Key, Period);
call(get, Name, Key, preset, _) -> ?L:get(Name, Key);
call(get, Name, Key, {Period, _}, _) -> ?L:get(Name, Key, Period).

%% {Answer, References}; a token of the reference comes with its limiter.
expected({advance, L, Ms}, Refs, _Tokens) ->
    {ok, Refs#{L := limiter_reference:advance(maps:get(L, Refs), Ms)}};
expected({refund, _}, Refs, []) ->
    {ok, Refs};
expected({refund, N}, Refs, Tokens) ->
    {_, {L, Token}} = nth(N, Tokens),
    {Answer, Ref} = limiter_reference:refund(maps:get(L, Refs), Token),
    {Answer, Refs#{L := Ref}};
expected({hit_all, Entries}, Refs, _Tokens) ->
    Costs = [{L, Key, size(Size, rule(maps:get(L, Refs), preset))} || {L, Key, Size} <- Entries],
    {Answer, Refs2} = limiter_reference:hit_all(Refs, Costs),
    {Answer, Refs2};
expected({Verb, L, Key, Rule}, Refs, _Tokens) ->
    Ref = maps:get(L, Refs),
    {Period, _, _} = All = rule(Ref, Rule),
    case Verb of
        peek -> {element(1, limiter_reference:hit(Ref, Key, All, 0)), Refs};
        get -> {limiter_reference:get(Ref, Key, All), Refs};
        reset -> {ok, Refs#{L := limiter_reference:reset(Ref, Key, Period)}}
    end;
expected({reserve, L, Key, Size, MaxWait}, Refs, _Tokens) ->
    #{algorithm := Algorithm} = Ref = maps:get(L, Refs),
    Rule = rule(Ref, preset),
    Reserve = fun() -> limiter_reference:reserve(Ref, Key, Rule, size(Size, Rule), MaxWait) end,
    case Algorithm =:= gcra andalso Reserve() of
        false -> {{raised, {badarg, {limiter, not_gcra}}}, Refs};
        {{ok, Wait, Token}, Ref2} -> {{ok, Wait, {L, Token}}, Refs#{L := Ref2}};
        {Denied, _} -> {Denied, Refs}
    end;
expected({Verb, L, Key, Rule, Size}, Refs, _Tokens) ->
    Ref = maps:get(L, Refs),
    All = rule(Ref, Rule),
    {Answer, Ref2} =
        case {Verb, size(Verb, Size, Ref, All)} of
            {hit, Cost} -> limiter_reference:hit(Ref, Key, All, Cost);
            {inc, N} -> limiter_reference:inc(Ref, Key, All, N);
            {set, N} -> limiter_reference:set(Ref, Key, All, N)
        end,
    {Answer, Refs#{L := Ref2}}.

nth(N, List) ->
    lists:nth((N - 1) rem length(List) + 1, List).

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

