%% The frame of the benchmarks: one table of ratios, each against a baseline measured in the same run.
%%
%% Both sides of a row are measured by turns, in an order that changes every time, each time in a fresh process; a row's figure is the
%% median of the rounds' ratios. So what else the machine does meets both sides alike. In a round each side has five measurements of
%% BENCH_MS (4) and the shortest counts: a shared machine takes the processor away for longer than that. Where work is left for later (a
%% save leaves flushes and compaction) the row says `steady': one measurement of five times the length, and nothing is left out.
%%
%% Environment: BENCH_ROUNDS (21), BENCH_MS, BENCH_DIR (temporary data), BENCH_OUT (the table as tab-separated values). Arguments: the
%% parts.
%%
%% A part is a module bench_<part> with rows(Dir) -> {[row()], Teardown}. A side is
%%   {loop, fun((Times) -> any())}       calls per measurement are found by calibration, a multiple of ten
%%   {loop, Processes, fun((Times) -> any())}       that many processes at once, each makes the calls
%%   {trial, fun(() -> Nanoseconds)}     a single measurement, made by the row itself
%%   {value, Number}                     measured by the row's part: a size (or what the row's unit says)
-module(bench).

-export([main/0, repeat/2, distributed/0, armed/1]).
-export_type([row/0]).

-type side() ::
    {loop, fun((pos_integer()) -> term())}
    | {loop, pos_integer(), fun((pos_integer()) -> term())}
    | {trial, fun(() -> non_neg_integer())}
    | {value, number()}.
-type row() :: #{
    what := string(),
    against := string(),
    %% How many times faster (smaller) than the baseline at least; at most so many times the baseline; at most so many ns more.
    goal => {faster, number()} | {at_most, number()} | {adds, number()},
    %% Of two values; bytes where it is left out.
    unit => bytes | ns | hits,
    %% The difference is told, not the ratio.
    difference => true,
    subject := side(),
    baseline := side(),
    %% Before every measurement, not timed.
    before => fun(() -> term()),
    steady => true,
    %% Trials a round, of which the median counts; rounds at most.
    trials => pos_integer(),
    rounds => pos_integer()
}.

-spec main() -> no_return().
main() ->
    Parts = [list_to_atom(P) || P <- init:get_plain_arguments()],
    Out = os:getenv("BENCH_OUT"),
    Dir = os:getenv("BENCH_DIR"),
    try
        {ok, _} = application:ensure_all_started(foundation_native),
        head(),
        Results = lists:append([part(Part, Dir) || Part <- parts(Parts)]),
        tail(Results),
        ok = file:write_file(Out, [tsv_head() | [tsv(Result) || Result <- Results]]),
        io:format("also in ~ts~n", [Out]),
        erlang:halt(0)
    catch
        Class:Reason:Stack ->
            io:format("bench: ~0tP~n", [{Class, Reason, Stack}, 60]),
            erlang:halt(1)
    end.

parts([]) -> [limiter, cluster, snapshot, flags, sentinel];
parts(Some) -> Some.

part(Part, Dir) ->
    Module = list_to_atom("bench_" ++ atom_to_list(Part)),
    PartDir = filename:join(Dir, atom_to_list(Part)),
    ok = file:make_dir(PartDir),
    {Rows, Teardown} = Module:rows(PartDir),
    Results = [shown(row(Row#{part => Part})) || Row <- Rows],
    _ = Teardown(),
    Results.

%% ---- measuring --------------------------------------------------------------------------------------------------------------------

row(Row = #{subject := {value, Subject}, baseline := {value, Baseline}}) ->
    result(Row, [{Subject, Baseline}]);
row(Row = #{subject := Subject, baseline := Baseline}) ->
    Before = maps:get(before, Row, fun() -> ok end),
    Ms = number("BENCH_MS", 4),
    {Turns, Length, Counts} =
        case {Row, Subject} of
            {_, {trial, _}} -> {maps:get(trials, Row, 1), none, fun median/1};
            {#{steady := true}, _} -> {1, 5 * Ms, fun median/1};
            _ -> {5, Ms, fun lists:min/1}
        end,
    A = calibrated(Subject, Before, Length),
    B = calibrated(Baseline, Before, Length),
    Rounds = min(number("BENCH_ROUNDS", 21), maps:get(rounds, Row, 1000000)),
    result(Row, [round(Round, A, B, Before, Turns, Counts) || Round <- lists:seq(1, Rounds)]).

round(Round, A, B, Before, Turns, Counts) ->
    {As, Bs} = lists:unzip([turn((Round + Turn) rem 2, A, B, Before) || Turn <- lists:seq(1, Turns)]),
    {Counts(As), Counts(Bs)}.

turn(0, A, B, Before) ->
    First = once(A, Before),
    {First, once(B, Before)};
turn(1, A, B, Before) ->
    First = once(B, Before),
    {once(A, Before), First}.

once(Side, Before) ->
    _ = Before(),
    measure(Side).

%% How many calls take so many milliseconds; the first measurements are the warm-up.
calibrated({loop, Fun}, Before, Ms) -> calibrated({loop, 1, Fun}, Before, Ms);
calibrated({loop, Processes, Fun}, Before, Ms) -> calibrate(Processes, Fun, 10, Before, Ms * 1000000);
calibrated({trial, Fun}, Before, _) ->
    _ = once({trial, Fun}, Before),
    {trial, Fun}.

calibrate(Processes, Fun, Times, Before, Wanted) ->
    case lists:min([once({Processes, Fun, Times}, Before) || _ <- [1, 2, 3]]) * Times of
        Took when Took >= Wanted / 2 -> {Processes, Fun, tens(Times * Wanted / Took)};
        Took -> calibrate(Processes, Fun, tens(Times * min(10, max(2, Wanted / max(1, Took)))), Before, Wanted)
    end.

tens(Times) -> max(10, 10 * round(Times / 10)).

measure({trial, Fun}) ->
    Fun();
measure({Processes, Fun, Times}) ->
    Parent = self(),
    Waiting = counters:new(1, [atomics]),
    ok = counters:put(Waiting, 1, Processes),
    Body = fun() ->
        ok = counters:sub(Waiting, 1, 1),
        ok = together(Waiting, Processes),
        Begin = erlang:monotonic_time(nanosecond),
        _ = Fun(Times),
        Parent ! {self(), Begin, erlang:monotonic_time(nanosecond)}
    end,
    %% Each on a scheduler of its own: two processes that take turns on one would measure nothing of what is asked.
    Schedulers = erlang:system_info(schedulers_online),
    Pids = [spawn_opt(Body, [link, {scheduler, 1 + N rem Schedulers}]) || N <- lists:seq(1, Processes)],
    Spans = [receive {Pid, Begin, End} -> {Begin, End} end || Pid <- Pids],
    (lists:max([End || {_, End} <- Spans]) - lists:min([Begin || {Begin, _} <- Spans])) / Times.

%% Until all of them run.
together(_, 1) ->
    ok;
together(Waiting, Processes) ->
    case counters:get(Waiting, 1) of
        0 -> ok;
        _ -> together(Waiting, Processes)
    end.

%% @doc For sides whose call is no matter of nanoseconds: the fun, so many times.
-spec repeat(non_neg_integer(), fun(() -> term())) -> ok.
repeat(0, _) ->
    ok;
repeat(N, Fun) ->
    _ = Fun(),
    repeat(N - 1, Fun).

%% @doc For what needs a node name.
-spec distributed() -> ok.
distributed() ->
    case is_alive() of
        true ->
            ok;
        false ->
            {ok, _} = net_kernel:start(['bench@127.0.0.1', longnames]),
            ok
    end.

%% @doc The flags of the group can be set.
-spec armed(atom()) -> ok | {error, atom()}.
armed(Group) ->
    case maps:get(Group, foundation_flags:groups()) of
        #{state := rolled_back, epoch := Epoch} -> foundation_flags:rearm(Group, Epoch);
        #{state := armed} -> ok
    end.

median(Values) ->
    lists:nth((length(Values) + 1) div 2, lists:sort(Values)).

%% ---- telling ----------------------------------------------------------------------------------------------------------------------

result(Row, Pairs) ->
    {As, Bs} = lists:unzip(Pairs),
    Ratio = median([A / B || {A, B} <- Pairs]),
    More = median([A - B || {A, B} <- Pairs]),
    Met = met(maps:get(goal, Row, none), Ratio, More),
    Row#{ns => median(As), base_ns => median(Bs), ratio => Ratio, more => More, measured => length(Pairs), met => Met}.

met(none, _, _) -> none;
met({faster, Goal}, Ratio, _) -> 1 / Ratio >= Goal;
met({at_most, Goal}, Ratio, _) -> Ratio =< Goal;
met({adds, Goal}, _, More) -> More =< Goal.

head() ->
    Names = ["part", "measured", "against", "it", "baseline", "ratio", "goal", "met"],
    io:format("~ts~n~ts~n", [line(Names), lists:duplicate(130, $-)]).

shown(Result = #{part := Part, what := What, against := Against, ns := A, base_ns := B, met := Met}) ->
    Goal = maps:get(goal, Result, none),
    Columns = [atom_to_list(Part), What, Against, figure(Result, A), figure(Result, B), ratio(Goal, Result), goal(Goal), met(Met)],
    io:format("~ts~n", [line(Columns)]),
    Result.

line(Columns) ->
    Widths = [9, 37, 36, 9, 9, 14, 12, 6],
    string:trim(lists:append([lists:flatten(string:pad(Column, Width)) || {Column, Width} <- lists:zip(Columns, Widths)]), trailing).

ratio(Goal, #{more := More} = Result) when element(1, Goal) =:= adds; is_map_key(difference, Result) ->
    text("~s~.1f ns", [[$+ || More >= 0], float(More)]);
ratio({at_most, _}, #{ratio := Ratio}) -> text("~.2fx", [Ratio]);
ratio(_, #{ratio := Ratio}) when Ratio =< 1 -> text("~.2fx faster", [1 / Ratio]);
ratio(_, #{ratio := Ratio}) -> text("~.2fx slower", [Ratio]).

goal(none) -> "-";
goal({faster, Goal}) -> text(">= ~px", [Goal]);
goal({at_most, Goal}) -> text("<= ~px", [Goal]);
goal({adds, Goal}) -> text("<= +~p ns", [Goal]).

met(none) -> "-";
met(true) -> "yes";
met(false) -> "MISSED".

figure(#{subject := {value, _}, unit := hits}, N) -> text("~b", [round(N)]);
figure(#{subject := {value, _}, unit := ns}, Ns) -> time(Ns);
figure(#{subject := {value, _}}, N) -> bytes(N);
figure(_, Ns) -> time(Ns).

time(Ns) when Ns < 100 -> text("~.1f ns", [float(Ns)]);
time(Ns) when Ns < 10000 -> text("~b ns", [round(Ns)]);
time(Ns) when Ns < 10000000 -> text("~b us", [round(Ns / 1000)]);
time(Ns) -> text("~b ms", [round(Ns / 1000000)]).

bytes(N) when N < 100000 -> text("~b B", [round(N)]);
bytes(N) -> text("~.1f MB", [N / 1000000]).

text(Format, Args) -> lists:flatten(io_lib:format(Format, Args)).

tail(Results) ->
    Missed = [R || R = #{met := false} <- Results],
    Goals = [R || R = #{met := Met} <- Results, Met =/= none],
    io:format("~ts~n~b of ~b goals met~n", [lists:duplicate(130, $-), length(Goals) - length(Missed), length(Goals)]).

tsv_head() ->
    "part\tmeasured\tagainst\tit\tbaseline\tit_over_baseline\tgoal\tmet\trounds\n".

tsv(Result = #{part := Part, what := What, against := Against, ratio := Ratio, met := Met}) ->
    #{ns := A, base_ns := B, measured := Rounds} = Result,
    Goal = maps:get(goal, Result, none),
    text("~ts\t~ts\t~ts\t~.3f\t~.3f\t~.4f\t~ts\t~ts\t~b~n", [Part, What, Against, float(A), float(B), Ratio, goal(Goal), Met, Rounds]).

number(Name, Default) ->
    case string:to_integer(os:getenv(Name, "")) of
        {N, ""} when is_integer(N), N > 0 -> N;
        _ -> Default
    end.
