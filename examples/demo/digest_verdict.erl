%% @doc What the run amounts to: the table, what is wrong with it, and the exit code.
-module(digest_verdict).

-export([judge/1, faults/1]).

%% @doc Print the table and the faults; 0 where there is none, else 1.
-spec judge(#{atom() => term()}) -> 0 | 1.
judge(Facts) ->
    digest_report:table(rows(Facts)),
    case faults(Facts) of
        [] ->
            io:format("Every result equals the independent pass: nothing lost, nothing done twice.~n"),
            0;
        Faults ->
            [io:format("FAULT: ~ts~n", [Fault]) || Fault <- Faults],
            1
    end.

rows(Facts = #{expected := Expected, recorded := Recorded, counts := Counts, limiter := Limiter}) ->
    #{lost := Lost, twice := Twice, different := Different, unknown := Unknown} = digest_check:compare(Expected, Recorded),
    #{allowed := Allowed, denied := Denied, errors := Errors, conflicts := Conflicts} = Counts,
    Results = maps:values(maps:get(results, Recorded)),
    By = fun(Job) -> length([1 || #{by := J} <- Results, J =:= Job]) end,
    #{limit := Limit, period := Period, burst := Burst} = maps:get(rate, Facts),
    [
        {"files", number(map_size(Expected))},
        {"results", number(length(Results))},
        {"  by the first implementation", number(By(digest_job))},
        {"  by the second, before its roll-back", number(By(digest_job_fast))},
        {"  files that could not be read (recorded)", number(length([1 || #{error := _} <- Results]))},
        {"different from the independent pass", number(length(Different) + length(Unknown))},
        {"lost", number(length(Lost))},
        {"done twice", number(length(Twice))},
        {"tasks moved between queues / conflicts", [number(maps:get(moves, Facts)), " / ", number(Conflicts)]},
        {"VM kills (kill -9)", number(maps:get(kills, Facts))},
        {"recovery, kill to next result", time(maps:get(recovery, Facts))},
        {"  of it opening the state", time(maps:get(open_us, Facts) * 1000)}
    ] ++ rollback_rows(Errors, Facts) ++
        [
            {"limiter, each agent", io_lib:format("~b in ~b ms, burst ~b", [Limit, Period, Burst])},
            {"limiter allowed / denied", [number(Allowed), " / ", number(Denied)]},
            {"  of it in the second VM", io_lib:format("~b / ~b", [maps:get(allowed, Limiter), maps:get(denied, Limiter)])}
        ].

rollback_rows(_, #{rolled_back := {Crashes, Nanos, _}, counts := #{errors := Errors}}) ->
    [
        {"crashes before the roll-back", number(Crashes)},
        {"tasks begun again (crashes and the kill)", number(Errors)},
        {"last crash to flag off", time(Nanos)}
    ];
rollback_rows(Errors, _) ->
    [
        {"crashes before the roll-back", "no crashing input in the cohort"},
        {"tasks begun again (the kill)", number(Errors)},
        {"last crash to flag off", "-"}
    ].

%% @doc Everything that is wrong with the facts, as sentences.
-spec faults(#{atom() => term()}) -> [iodata()].
faults(Facts = #{expected := Expected, recorded := Recorded}) ->
    Differences = digest_check:compare(Expected, Recorded),
    [difference(Kind, Files) || {Kind, Files = [_ | _]} <- lists:sort(maps:to_list(Differences))] ++
        [Text || {true, Text} <- checks(Facts)].

difference(Kind, Files) ->
    Some = lists:join(", ", [io_lib:format("~0p", [File]) || File <- lists:sublist(Files, 5)]),
    io_lib:format("~ts: ~b (~ts)", [Kind, length(Files), Some]).

checks(Facts = #{counts := Counts, expected := Expected, recorded := Recorded}) ->
    #{results := Results, finished := Finished, queued := Queued} = Recorded,
    #{allowed := Allowed, denied := Denied, completed := Completed, errors := Errors} = Counts,
    #{starts := Starts, kills := Kills, limiter := #{allowed := NowAllowed, denied := NowDenied}} = Facts,
    {_, #{allowed := Earlier, denied := EarlierDenied}} = lists:last(Starts),
    [
        {Kills < 1, "no VM was killed"},
        {length(Starts) =/= Kills + 1, io_lib:format("~b kills, and the store was opened by ~b VMs", [Kills, length(Starts)])},
        {Completed =/= map_size(Expected),
            io_lib:format("the agents count ~b results of ~b files", [Completed, map_size(Expected)])},
        {Completed =/= map_size(Results) orelse Completed =/= length(Finished), "the agents' counts are not those of the record"},
        {Queued =/= [], io_lib:format("~b tasks are still in a queue", [length(Queued)])},
        {Allowed =/= Completed + Errors,
            io_lib:format("~b hits were allowed for ~b results and ~b repeats", [Allowed, Completed, Errors])},
        {Allowed - Earlier =/= NowAllowed orelse Denied - EarlierDenied =/= NowDenied,
            io_lib:format("the limiter of the last VM counts ~b/~b, its agents ~b/~b", [
                NowAllowed, NowDenied, Allowed - Earlier, Denied - EarlierDenied
            ])},
        {Allowed > ceiling(Facts),
            io_lib:format("the limiter allowed ~b hits, and ~b are the most there can be", [Allowed, ceiling(Facts)])}
        | rollback_checks(Facts)
    ].

%% Of what a VM's limiter may allow four agents from the VM's start to the end of the run.
ceiling(#{rate := #{limit := Limit, period := Period, burst := Burst}, running_ms := Times}) ->
    lists:sum([4 * (Burst + 1 + Time * Limit div Period) || Time <- Times]).

rollback_checks(Facts = #{rolled_back := undefined, expected := Expected, recorded := Recorded}) ->
    #{percent := Percent, rollout := Since, set_again := Set} = Facts,
    Demanded = digest_check:demanded(Expected, Recorded, Percent, Since),
    [
        {Demanded =/= [],
            io_lib:format("no roll-back, and ~b files of the cohort crash the second implementation", [length(Demanded)])},
        {Set =/= ok, io_lib:format("there was no roll-back, and the flag cannot be set: ~0p", [Set])}
    ];
rollback_checks(#{set_again := Set}) ->
    [{Set =/= {error, rolled_back}, io_lib:format("after the roll-back a set of the flag answered ~0p", [Set])}].

number(N) -> integer_to_list(N).

time(undefined) -> "-";
time(Nanos) -> digest_report:duration(Nanos).
