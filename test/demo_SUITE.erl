%% The demo on small inputs of its own, and proof that its comparison and its verdict can fail.
-module(demo_SUITE).

-include_lib("common_test/include/ct.hrl").
-include_lib("stdlib/include/assert.hrl").

-export([all/0, suite/0, init_per_suite/1, end_per_suite/1, init_per_testcase/2, end_per_testcase/2]).
-export([
    odd_files/1,
    nothing_crashes/1,
    inputs_that_cannot_be_used/1,
    nothing_is_left_of_a_killed_driver/1,
    implementations_agree/1,
    second_implementation_crashes/1,
    comparison_sees_every_difference/1,
    verdict_sees_every_fault/1
]).

%% What `b2sum' says of no bytes, and of "abc".
-define(EMPTY,
    "786A02F742015903C6C6FD852552D272912F4740E15847618A86E217F71F5419D25E1031AFEE585313896444934EB04B903A685B1448B755D56F701AFE9BE2CE"
).
-define(ABC,
    "BA80A53F981C4D0D6A2797B69F12F6E94C212F14685AC4B74B12BB6FDBFFA2D17D87C5392AAB792DC252D5DE4533CC9518D38AA8DBF1925AB92386EDD4009923"
).

suite() ->
    [{timetrap, {minutes, 3}}].

all() ->
    [
        odd_files,
        nothing_crashes,
        inputs_that_cannot_be_used,
        nothing_is_left_of_a_killed_driver,
        implementations_agree,
        second_implementation_crashes,
        comparison_sees_every_difference,
        verdict_sees_every_fault
    ].

%% The demo's modules are no part of the library: compiled here as its `run' does it.
init_per_suite(Config) ->
    Ebin = filename:join(?config(priv_dir, Config), "demo_ebin"),
    ok = file:make_dir(Ebin),
    Sources = filelib:wildcard(filename:join(demo_dir(), "*.erl")),
    Compile = fun(Source) -> {ok, _} = compile:file(Source, [{outdir, Ebin}, debug_info, warnings_as_errors]) end,
    lists:foreach(Compile, Sources),
    true = code:add_patha(Ebin),
    [{demo_ebin, Ebin} | Config].

end_per_suite(Config) ->
    code:del_path(?config(demo_ebin, Config)),
    ok.

init_per_testcase(_Case, Config) ->
    Dir = fdn_test:tmp_dir("demo"),
    [ok = file:make_dir(filename:join(Dir, Name)) || Name <- ["input", "tmp"]],
    [{dir, Dir}, {input, filename:join(Dir, "input")}, {tmp, filename:join(Dir, "tmp")} | Config].

end_per_testcase(_Case, Config) ->
    fdn_test:del_dir(?config(dir, Config)).

%% ---- the demo as a whole ----------------------------------------------------------------------------------------------------------

%% Empty files, no last line feed, bytes that are no text, names that are no UTF-8, blanks, links in circles, a folder nobody may read.
odd_files(Config) ->
    Input = ?config(input, Config),
    odd(Input),
    {0, Output} = demo([Input], Config, [{"DEMO_SECONDS", "1"}, {"DEMO_PERCENT", "100"}]),
    ?assertMatch("8", row("files", Output)),
    ?assertMatch("8", row("results", Output)),
    ?assertMatch("0", row("different from the independent pass", Output)),
    ?assertMatch("0", row("lost", Output)),
    ?assertMatch("0", row("done twice", Output)),
    ?assertMatch("1", row("VM kills (kill -9)", Output)),
    ?assert(list_to_integer(row("crashes before the roll-back", Output)) >= 3),
    ?assertMatch({match, _}, re:run(Output, "the sentinel rolled digest_rollout back")),
    ?assertEqual([], left(Config)).

nothing_crashes(Config) ->
    Input = ?config(input, Config),
    [write(Input, "text " ++ integer_to_list(N), lists:duplicate(N, "a line\n")) || N <- lists:seq(1, 51)],
    {0, Output} = demo([Input], Config, [{"DEMO_SECONDS", "1"}, {"LANG", false}, {"LC_ALL", "C"}]),
    ?assertEqual("51", row("results", Output)),
    ?assertEqual("no crashing input in the cohort", row("crashes before the roll-back", Output)),
    ?assertEqual("1", row("VM kills (kill -9)", Output)),
    ?assertEqual([], left(Config)).

inputs_that_cannot_be_used(Config) ->
    Input = ?config(input, Config),
    {2, Empty} = demo([Input], Config, []),
    ?assertMatch({match, _}, re:run(Empty, "demo: there is no regular file in " ++ Input)),
    {2, Missing} = demo([Input ++ "/missing"], Config, []),
    ?assertMatch({match, _}, re:run(Missing, "demo: the input .*/missing cannot be read: no such file or directory")),
    File = write(Input, "a file", "text\n"),
    {2, NoFolder} = demo([File], Config, []),
    ?assertMatch({match, _}, re:run(NoFolder, "demo: the input .*a file is no folder")),
    {2, Around} = demo([?config(dir, Config)], Config, []),
    ?assertMatch({match, _}, re:run(Around, "holds the demo's own temporary data")),
    ?assertEqual([], left(Config)).

nothing_is_left_of_a_killed_driver(Config) ->
    Input = ?config(input, Config),
    odd(Input),
    Port = start([Input], Config, [{"DEMO_SECONDS", "60"}, {"DEMO_PERCENT", "1"}]),
    [Dir] = fdn_test:await(fun() -> with_file("worker.pid", left(Config)) end),
    {ok, Worker} = file:read_file(filename:join(Dir, "worker.pid")),
    {ok, Epmd} = file:read_file(filename:join(Dir, "epmd.pid")),
    {os_pid, Shell} = erlang:port_info(Port, os_pid),
    Children = string:lexemes(os:cmd(io_lib:format("cat /proc/~b/task/~b/children", [Shell, Shell])), " \n"),
    [Driver] = [Pid || Pid <- Children, "" =/= os:cmd("grep digest_demo /proc/" ++ Pid ++ "/cmdline")],
    "" = os:cmd(io_lib:format("kill -9 ~b ~ts", [Shell, Driver])),
    fdn_test:await(fun() -> left(Config) =:= [] end),
    ?assertNot(lives(Worker)),
    ?assertNot(lives(Epmd)).

%% ---- the implementations and the pass that judges them ----------------------------------------------------------------------------

implementations_agree(Config) ->
    Input = list_to_binary(?config(input, Config)),
    Cases = [
        {"none", "", 0, ?EMPTY, false},
        {"abc", "abc", 1, ?ABC, true},
        {"feed", "\n", 1, undefined, true},
        {"two", "a\nb", 2, undefined, true},
        {"closed", "a\nb\n", 2, undefined, true},
        {"bytes", [crypto:strong_rand_bytes(65536 - 3), "a\nb"], undefined, undefined, true},
        %% Line feeds on both sides of where the pieces end.
        {"long", [lists:duplicate(65535, $x), "\n", "\n", lists:duplicate(70000, $y)], 3, undefined, false}
    ],
    lists:foreach(
        fun({Name, Content, Lines, Digest, Fits}) ->
            Path = write(Input, Name, Content),
            {ok, First = #{lines := Counted, digest := Bytes}} = digest_job:digest(Path),
            _ = [?assertEqual(Lines, Counted) || Lines =/= undefined],
            _ = [?assertEqual({ok, First}, digest_job_fast:digest(Path)) || Fits],
            _ = [?assertEqual(Digest, binary_to_list(binary:encode_hex(Bytes))) || Digest =/= undefined],
            #{Name := Fact} = maps:from_list([{Name, F} || {_, F} <- maps:to_list(expected(Input, [Name]))]),
            ?assertEqual(First, maps:with([lines, bytes, digest], Fact))
        end,
        Cases
    ),
    ?assertEqual({error, enoent}, digest_job:digest(<<Input/binary, "/missing">>)),
    ?assertEqual({error, enoent}, digest_job_fast:digest(<<Input/binary, "/missing">>)),
    ?assertMatch([#{error := enoent}], maps:values(expected(Input, ["missing"]))).

%% The crash is the second implementation's own, and the judge knows which files have it.
second_implementation_crashes(Config) ->
    Input = list_to_binary(?config(input, Config)),
    Cases = [{"none", 0, true}, {"one", 1, false}, {"full", 65536, false}, {"over", 65537, true}, {"large", 3 bsl 20, true}],
    lists:foreach(
        fun({Name, Size, Crashes}) ->
            Path = write(Input, Name, binary:copy(<<"x">>, Size)),
            {ok, _} = digest_job:digest(Path),
            Result = #{by => digest_job, begun => 2},
            Recorded = #{results => #{list_to_binary(Name) => Result}, finished => [], queued => []},
            Demanded = digest_check:demanded(expected(Input, [Name]), Recorded, 100, 1),
            ?assertEqual(Crashes, Demanded =/= []),
            case Crashes of
                true -> ?assertError({badmatch, _}, digest_job_fast:digest(Path));
                false -> ?assertMatch({ok, _}, digest_job_fast:digest(Path))
            end
        end,
        Cases
    ).

comparison_sees_every_difference(_Config) ->
    #{expected := Expected, recorded := Good} = facts(),
    Same = #{lost => [], twice => [], different => [], unknown => []},
    ?assertEqual(Same, digest_check:compare(Expected, Good)),
    #{results := Results = #{<<"a">> := A}, finished := Finished} = Good,
    With = fun(Result) -> digest_check:compare(Expected, Good#{results := Results#{<<"a">> := Result}}) end,
    ?assertEqual(Same#{different := [<<"a">>]}, With(A#{lines := 2})),
    ?assertEqual(Same#{different := [<<"a">>]}, With(A#{bytes := 9})),
    <<First, Rest/binary>> = maps:get(digest, A),
    ?assertEqual(Same#{different := [<<"a">>]}, With(A#{digest := <<(First bxor 1), Rest/binary>>})),
    ?assertEqual(Same#{different := [<<"a">>]}, With(#{error => eacces, times => 1})),
    ?assertEqual(Same#{twice := [<<"a">>]}, With(A#{times := 2})),
    ?assertEqual(Same#{lost := [<<"a">>]}, digest_check:compare(Expected, Good#{results := maps:remove(<<"a">>, Results)})),
    ?assertEqual(Same#{lost := [<<"a">>]}, digest_check:compare(Expected, Good#{finished := Finished -- [<<"a">>]})),
    ?assertEqual(Same#{twice := [<<"a">>]}, digest_check:compare(Expected, Good#{finished := [<<"a">> | Finished]})),
    ?assertEqual(Same#{unknown := [<<"z">>]}, digest_check:compare(Expected, Good#{finished := [<<"z">> | Finished]})),
    ?assertEqual(Same#{different := [<<"c">>]}, digest_check:compare(Expected#{<<"c">> := #{error => enoent}}, Good)).

verdict_sees_every_fault(_Config) ->
    Good = facts(),
    #{counts := Counts, limiter := Limiter, recorded := Recorded = #{results := Results}} = Good,
    ?assertEqual([], digest_verdict:faults(Good)),
    Bad = [
        Good#{kills := 0},
        Good#{starts := [hd(maps:get(starts, Good))]},
        Good#{counts := Counts#{completed := 2}},
        Good#{counts := Counts#{allowed := 9}},
        Good#{limiter := Limiter#{allowed := 1}},
        Good#{limiter := Limiter#{denied := 7}},
        Good#{running_ms := []},
        Good#{set_again := ok},
        Good#{rolled_back := undefined},
        Good#{rolled_back := undefined, set_again := ok},
        Good#{recorded := Recorded#{queued := [<<"a">>]}},
        Good#{recorded := Recorded#{results := maps:remove(<<"a">>, Results)}}
    ],
    [?assertNotEqual([], digest_verdict:faults(Facts)) || Facts <- Bad],
    %% Without a file that crashes the second implementation no roll-back is asked for.
    NoCrash = Good#{rolled_back := undefined, set_again := ok, rollout := 1000},
    ?assertEqual([], digest_verdict:faults(NoCrash)).

%% Facts of a good run: three files, of which <<"b">> crashes the second implementation and one cannot be read.
facts() ->
    Digest = crypto:hash(blake2b, "x"),
    A = #{lines => 1, bytes => 1, digest => Digest},
    Large = A#{bytes => 70000},
    Result = #{by => digest_job, agent => 1, begun => 500, times => 1},
    Zero = #{completed => 0, errors => 0, allowed => 0, denied => 0, conflicts => 0},
    #{
        expected => #{<<"a">> => A, <<"b">> => Large, <<"c">> => #{error => eacces}},
        recorded => #{
            results => #{
                <<"a">> => maps:merge(Result, A),
                <<"b">> => maps:merge(Result, Large),
                <<"c">> => Result#{error => eacces}
            },
            finished => [<<"a">>, <<"b">>, <<"c">>],
            queued => []
        },
        counts => #{completed => 3, errors => 3, allowed => 6, denied => 4, conflicts => 0},
        starts => [{"1", Zero}, {"2", Zero#{allowed := 4, denied := 3}}],
        moves => 0,
        rate => #{limit => 1, period => 1000, burst => 1},
        running_ms => [2000, 1000],
        limiter => #{allowed => 2, denied => 1},
        percent => 100,
        rollout => 100,
        rolled_back => {3, 1000, <<"three failures">>},
        set_again => {error, rolled_back},
        kills => 1,
        recovery => 1000,
        open_us => 1
    }.

%% ---- help -------------------------------------------------------------------------------------------------------------------------

expected(Input, Names) ->
    digest_check:expected(Input, [list_to_binary(Name) || Name <- Names], fun(_) -> ok end).

odd(Input) ->
    write(Input, "empty", ""),
    write(Input, "open end", "one\ntwo\nthree"),
    write(Input, "utf8", <<"h", 16#C3, 16#A9, $\n>>),
    write(Input, "binary", crypto:strong_rand_bytes(100000)),
    write(Input, "latin1", <<"h", 16#E9, $\n>>),
    write(Input, <<"name ", 16#E9, 16#FF>>, <<16#FF>>),
    Deep = filename:join(Input, "a folder/deeper"),
    ok = filelib:ensure_dir(filename:join(Deep, "x")),
    write(Deep, "below", "text\n"),
    ok = file:make_symlink("..", filename:join(Deep, "loop")),
    ok = file:make_symlink("nowhere", filename:join(Input, "dangling")),
    Closed = write(Input, "closed", "secret\n"),
    ok = file:change_mode(Closed, 8#000).

write(Dir, Name, Content) ->
    Path = filename:join(Dir, Name),
    ok = file:write_file(Path, Content),
    Path.

demo_dir() ->
    filename:join(fdn_test:root_dir(), "examples/demo").

demo(Args, Config, Env) ->
    finish(start(Args, Config, Env), []).

start(Args, Config, Env) ->
    Ebin = filename:dirname(code:which(foundation_native)),
    All = [{"FDN_EBIN", filename:absname(Ebin)}, {"TMPDIR", ?config(tmp, Config)} | Env],
    Options = [{args, Args}, {env, All}, exit_status, stderr_to_stdout, binary, use_stdio],
    open_port({spawn_executable, filename:join(demo_dir(), "run")}, Options).

finish(Port, Output) ->
    receive
        {Port, {data, Data}} -> finish(Port, [Output, Data]);
        {Port, {exit_status, Code}} ->
            Text = iolist_to_binary(Output),
            ct:pal("exit ~b~n~ts", [Code, Text]),
            {Code, Text}
    end.

%% The second column of the table.
row(Name, Output) ->
    [Value] = [
        string:trim(Rest)
     || Line <- string:split(binary_to_list(Output), "\n", all),
        Rest <- [string:prefix(string:trim(Line, leading), Name)],
        Rest =/= nomatch,
        lists:prefix("  ", Rest)
    ],
    Value.

left(Config) ->
    filelib:wildcard(filename:join(?config(tmp, Config), "foundation-demo.*")).

with_file(Name, Dirs) ->
    Dirs =/= [] andalso filelib:is_regular(filename:join(hd(Dirs), Name)) andalso Dirs.

%% A process that has ended and was not yet waited for has no command line.
lives(OsPid) ->
    case file:read_file(["/proc/", string:trim(OsPid), "/cmdline"]) of
        {ok, Line} -> Line =/= <<>>;
        {error, _} -> false
    end.
