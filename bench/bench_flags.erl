%% Flags against the cheapest look-ups that the VM has, and the command line against erl_call.
-module(bench_flags).

-export([rows/1]).

-include("bench.hrl").

-define(FLAG, bench_flag).
-define(SHARE, bench_share).
-define(GROUP, bench_group).
-define(ID, <<"user:12345678">>).

-spec rows(file:filename_all()) -> {[bench:row()], fun(() -> term())}.
rows(_Dir) ->
    ok = foundation_flags:declare(?FLAG, #{default => true}),
    ok = foundation_flags:declare(?SHARE, #{}),
    ok = foundation_flags:set(?SHARE, {percentage, 50}),
    ok = foundation_flags:declare(bench_shell, #{group => ?GROUP}),
    Table = ets:new(bench_flags, [named_table, public, {read_concurrency, true}]),
    true = ets:insert(Table, {?FLAG, true}),
    ok = persistent_term:put(?FLAG, true),
    Enabled = {loop, fun(N) -> enabled(N, ?FLAG) end},
    Row = #{what => "enabled/1", subject => Enabled},
    Rows = [
        Row#{against => "empty NIF", goal => {at_most, 1.2}, baseline => {loop, fun(N) -> empty(N, ?FLAG) end}},
        Row#{against => "persistent_term:get", goal => {at_most, 1.4}, baseline => {loop, fun(N) -> persistent(N, ?FLAG) end}},
        Row#{against => "ets:lookup", goal => {faster, 12}, baseline => {loop, fun(N) -> lookups(N, {Table, ?FLAG}) end}},
        #{
            what => "enabled_for/2",
            against => "erlang:phash2({Flag, Id}, 100)",
            goal => {faster, 1.7},
            subject => {loop, fun(N) -> cohorts(N, {?SHARE, ?ID}) end},
            baseline => {loop, fun(N) -> hashes(N, {?SHARE, ?ID}) end}
        }
        | shell()
    ],
    {Rows, fun() -> persistent_term:erase(?FLAG) end}.

?LOOP(enabled, Flag, foundation_flags:enabled(Flag)).
?LOOP(empty, Flag, empty_nif:empty(Flag)).
?LOOP(persistent, Flag, persistent_term:get(Flag)).
?LOOP(lookups, {Table, Flag}, ets:lookup(Table, Flag)).
?LOOP(cohorts, {Flag, Id}, foundation_flags:enabled_for(Flag, Id)).
?LOOP(hashes, {Flag, Id}, erlang:phash2({Flag, Id}, 100)).

%% An operator's roll-back: the tool on the file, and a call into the VM. Where the tool is not built there is no row.
shell() ->
    Tool = foundation_nif:priv_file("foundation-flags"),
    Call = filename:join([code:root_dir(), "bin", "erl_call"]),
    case filelib:is_regular(Tool) andalso filelib:is_regular(Call) of
        false ->
            [];
        true ->
            {ok, File} = foundation_native:flags_file(),
            ok = bench:distributed(),
            Apply = "foundation_flags rollback [" ++ atom_to_list(?GROUP) ++ ",bench]",
            ByCall = ["-name", atom_to_list(node()), "-c", atom_to_list(erlang:get_cookie()), "-a", Apply],
            [
                #{
                    what => "roll-back from the shell, VM idle",
                    against => "erl_call",
                    goal => {faster, 3},
                    trials => 5,
                    before => fun() -> ok = bench:armed(?GROUP) end,
                    subject => {trial, fun() -> command(Tool, ["--file", File, "rollback", atom_to_list(?GROUP), "bench"]) end},
                    baseline => {trial, fun() -> command(Call, ByCall) end}
                }
            ]
    end.

command(Program, Args) ->
    Begin = erlang:monotonic_time(nanosecond),
    Port = open_port({spawn_executable, Program}, [{args, Args}, exit_status, hide, stderr_to_stdout]),
    ok = done(Port, []),
    Took = erlang:monotonic_time(nanosecond) - Begin,
    #{?GROUP := #{state := rolled_back}} = foundation_flags:groups(),
    Took.

done(Port, Said) ->
    receive
        {Port, {data, Data}} -> done(Port, [Said, Data]);
        {Port, {exit_status, 0}} -> ok;
        {Port, {exit_status, Code}} -> {Code, lists:flatten(Said)}
    end.
