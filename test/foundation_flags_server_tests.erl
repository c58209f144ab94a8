%% The owner of the flag file: how it starts, what it refuses, and how it goes on after a crash, a truncation or an upgrade.
-module(foundation_flags_server_tests).

-include_lib("eunit/include/eunit.hrl").

-compile(export_all).
-compile(nowarn_export_all).

-define(F, foundation_flags).

-import(foundation_flags_tests, [start/0, stop/0, start_error/0, tool/2, expect/1, epoch/1]).

all_test_() ->
    foundation_flags_tests:cases(?MODULE, [
        configured_flags,
        bad_configuration,
        refused_files,
        another_file,
        truncated,
        crash_of_the_server,
        crash_after_truncation,
        sentinel_speaks_of_our_file,
        sentinel_speaks_of_another_file,
        hot_upgrade
    ]).

%% ---- start and stop ---------------------------------------------------------------------------------------------------------------

configured_flags(_) ->
    stop(),
    application:set_env(foundation_native, flags, #{a => #{group => g, default => true, description => "A"}, b => #{sticky => false}}),
    start(),
    ?assertEqual(#{a => true, b => false}, ?F:list()),
    {ok, _} = ?F:rollback(g, "stays"),
    ok = ?F:set(b, true),
    stop(),
    start(),
    ?assertEqual(#{a => false, b => true}, ?F:list()),
    ?assertMatch(#{state := rolled_back, description := <<"A">>}, ?F:info(a)),
    stop(),
    application:set_env(foundation_native, flags, #{a => #{group => other}}),
    ?assertEqual({flags, a, other_group}, start_error()).

bad_configuration(_) ->
    stop(),
    Bad = fun(Flags) ->
        application:set_env(foundation_native, flags, Flags),
        start_error()
    end,
    ?assertEqual({badarg, {flags, not_a_map}}, Bad([a])),
    ?assertEqual({badarg, {flags, {"a", not_an_atom}}}, Bad(#{"a" => #{}})),
    ?assertEqual({badarg, {flags, {a, {options, not_a_map}}}}, Bad(#{a => true})),
    ?assertEqual({badarg, {flags, {a, {default, not_a_boolean}}}}, Bad(#{a => #{default => on}})),
    ?assertEqual({badarg, {flags, {a, {grup, unknown_option}}}}, Bad(#{a => #{grup => g}})),
    application:set_env(foundation_native, flags_file, 17),
    ?assertEqual({flags_file, 17, not_a_path}, Bad(#{})).

refused_files(#{dir := Dir, path := Path}) ->
    stop(),
    {ok, Whole} = file:read_file(Path),
    File = filename:join(Dir, "other"),
    application:set_env(foundation_native, flags_file, File),
    Refused = fun(Content, Mode) ->
        ok = file:write_file(File, Content),
        ok = file:change_mode(File, Mode),
        {flags_file, File, Reason} = start_error(),
        ?assertEqual({ok, iolist_to_binary(Content)}, file:read_file(File)),
        Reason
    end,
    <<Magic:8/binary, Format:32/native, Rest/binary>> = Whole,
    ?assertEqual(foreign_file, Refused("a file of somebody else's", 8#600)),
    ?assertEqual(unsupported_version, Refused([Magic, <<(Format + 1):32/native>>, Rest], 8#600)),
    ?assertEqual(corrupt, Refused(binary:part(Whole, 0, 10000), 8#600)),
    ?assertEqual(unsafe_mode, Refused(Whole, 8#660)),
    ok = file:delete(File),
    ok = file:make_symlink(Path, File),
    ?assertEqual({flags_file, File, eloop}, start_error()),
    Missing = filename:join([Dir, "no", "such", "flags"]),
    application:set_env(foundation_native, flags_file, Missing),
    ?assertEqual({flags_file, Missing, enoent}, start_error()),
    application:set_env(foundation_native, flags_file, "/dev/full"),
    ?assertEqual({flags_file, "/dev/full", foreign_file}, start_error()).

another_file(#{dir := Dir}) ->
    ok = ?F:declare(a, #{default => true}),
    stop(),
    ?assertEqual(true, ?F:enabled(a)),
    ?assertEqual({error, closed}, ?F:declare(b, #{})),
    ?assertEqual({error, closed}, ?F:subscribe()),
    ?assertEqual({error, closed}, ?F:unsubscribe()),
    Second = filename:join([Dir, "made", "flags"]),
    application:set_env(foundation_native, flags_file, Second),
    start(),
    ?assertEqual(undefined, ?F:get(a)),
    ?assertEqual(#{}, ?F:list()),
    ok = ?F:declare(a, #{}),
    ?assertEqual(false, ?F:enabled(a)),
    ?assertEqual(list_to_binary(Second), maps:get(path, ?F:info())),
    %% A file that was deleted is another one, under the same path.
    ok = ?F:set(a, true),
    stop(),
    ok = file:delete(Second),
    start(),
    ?assertEqual(undefined, ?F:get(a)).

truncate(Path, To) ->
    {ok, File} = file:open(Path, [read, write, raw]),
    {ok, To} = file:position(File, To),
    ok = file:truncate(File),
    ok = file:close(File).

truncated(#{path := Path}) ->
    ok = ?F:subscribe(),
    [ok = ?F:declare(F, #{group => g, default => true}) || F <- [a, b]],
    [expect({foundation_flags, changed, F, true}) || F <- [a, b]],
    logger:set_primary_config(level, none),
    truncate(Path, 100),
    ?assertEqual(false, ?F:enabled(a)),
    ?assertEqual({error, faulted}, ?F:set(a, true)),
    ?assertEqual({error, faulted}, ?F:declare(c, #{})),
    ?assertEqual({error, faulted}, ?F:rollback(g, x)),
    ?assertEqual({error, faulted}, ?F:rearm(g, 1)),
    ?assertEqual({error, faulted}, ?F:info(a)),
    ?assertMatch(#{faulted := true}, ?F:info()),
    ?assertEqual(#{a => false, b => false}, ?F:list()),
    expect({foundation_flags, changed, a, false}),
    expect({foundation_flags, changed, b, false}),
    ?assertMatch(Pid when is_pid(Pid), whereis(?F)),
    stop(),
    ?assertEqual({flags_file, Path, corrupt}, start_error()),
    ok = file:delete(Path),
    start(),
    ok = ?F:declare(a, #{default => true}),
    ?assertEqual(true, ?F:enabled(a)).

kill_server() ->
    Pid = whereis(?F),
    Monitor = monitor(process, Pid),
    exit(Pid, kill),
    receive {'DOWN', Monitor, process, Pid, killed} -> ok end.

crash_of_the_server(_) ->
    ok = ?F:subscribe(),
    ok = ?F:declare(a, #{group => g, default => true, description => "kept"}),
    expect({foundation_flags, changed, a, true}),
    kill_server(),
    %% Nothing but declaring and subscribing needs the server.
    ?assertEqual(true, ?F:enabled(a)),
    ok = ?F:set(a, {percentage, 50}),
    ?assertEqual({error, unknown_flag}, ?F:set(flags_test_unknown, true)),
    {ok, #{epochs := #{g := 2}}} = ?F:rollback(g, "while it was down"),
    ?assertEqual(false, ?F:enabled(a)),
    #{uuid := Uuid} = ?F:info(),
    start(),
    ?assertMatch(#{uuid := Uuid}, ?F:info()),
    expect({foundation_flags, rolled_back, g, 2, <<"while it was down">>}),
    expect({foundation_flags, changed, a, false}),
    ?assertMatch(#{description := <<"kept">>}, ?F:info(a)),
    ok = ?F:rearm(g, 2),
    ok = ?F:set(a, true),
    expect({foundation_flags, changed, a, true}).

crash_after_truncation(#{path := Path}) ->
    ok = ?F:declare(a, #{default => true}),
    logger:set_primary_config(level, none),
    truncate(Path, 0),
    kill_server(),
    start(),
    ?assertMatch(#{faulted := true}, ?F:info()),
    ?assertEqual(false, ?F:enabled(a)),
    ok = ?F:subscribe().

%% ---- the sentinel -----------------------------------------------------------------------------------------------------------------

sentinel_speaks_of_our_file(_) ->
    ok = ?F:subscribe(),
    ok = ?F:declare(a, #{group => g, default => true}),
    expect({foundation_flags, changed, a, true}),
    #{uuid := Uuid} = ?F:info(),
    {ok, 2} = ?F:rollback_nif(<<"g">>, <<"crash loop">>, <<"sentinel">>),
    ?F ! {foundation_sentinel, rolled_back, g, 2, <<"crash loop">>, Uuid},
    expect({foundation_flags, rolled_back, g, 2, <<"crash loop">>}),
    expect({foundation_flags, changed, a, false}),
    ok = gen_server:call(?F, look),
    ?assertEqual(2, epoch(g)),
    ?assertEqual(none, receive Any -> Any after 0 -> none end).

sentinel_speaks_of_another_file(_) ->
    ok = ?F:declare(a, #{group => g, default => true}),
    ok = ?F:subscribe(),
    Theirs = <<0:128>>,
    ?F ! {foundation_sentinel, rolled_back, g, 17, <<"crash loop">>, Theirs},
    expect({foundation_flags, rolled_back, g, 2, <<"crash loop">>}),
    ?assertEqual(false, ?F:enabled(a)),
    ?assertMatch(#{g := #{who := <<"sentinel">>, state := rolled_back}}, ?F:groups()),
    %% Told again, also after a re-arm: it is the same rollback.
    ok = ?F:rearm(g, 2),
    ?F ! {foundation_sentinel, rolled_back, <<"g">>, 17, <<"crash loop">>, Theirs},
    ok = gen_server:call(?F, look),
    ?assertEqual(2, epoch(g)),
    ?F ! {foundation_sentinel, rolled_back, g, 18, "again", Theirs},
    expect({foundation_flags, rolled_back, g, 3, <<"again">>}),
    logger:set_primary_config(level, none),
    ?F ! {foundation_sentinel, rolled_back, nothing_here, 1, x, Theirs},
    ok = gen_server:call(?F, look).

%% ---- hot upgrade ------------------------------------------------------------------------------------------------------------------

%% The module is loaded anew, twice, with its library: the mapping, the atoms, the watcher and the server go on.
hot_upgrade(C) ->
    ok = ?F:declare(a, #{group => g, default => true}),
    ok = ?F:subscribe(),
    #{uuid := Uuid} = ?F:info(),
    {?F, Beam, File} = code:get_object_code(?F),
    [
        begin
            {module, ?F} = code:load_binary(?F, File, Beam),
            fdn_test:await(fun() -> code:soft_purge(?F) end),
            ?assertEqual(Round =:= 1, ?F:enabled(a)),
            ?assertMatch(#{uuid := Uuid, faulted := false, native_cohorts := true}, ?F:info()),
            {0, _} = tool(C, ["set", "a", integer_to_list(Round) ++ "%"]),
            expect({foundation_flags, changed, a, {percentage, Round}}),
            {ok, #{epochs := #{g := Epoch}}} = ?F:rollback(g, Round),
            expect({foundation_flags, rolled_back, g, Epoch, iolist_to_binary(io_lib:format("~p", [Round]))}),
            expect({foundation_flags, changed, a, false}),
            ok = ?F:rearm(g, Epoch)
        end
     || Round <- [1, 2]
    ],
    ok = ?F:declare(b, #{default => true}),
    ?assertEqual(true, ?F:enabled(b)).
