%% The contract of foundation_flags, over its server, without the application. Each case has a folder and a file of its own.
-module(foundation_flags_tests).

-include_lib("eunit/include/eunit.hrl").

-define(F, foundation_flags).

all_test_() ->
    cases(?MODULE, [
        unknown_flags_read_false,
        declared_set_and_listed,
        misuse_is_named,
        refusals_are_answers,
        names_of_every_kind,
        a_full_file_says_so,
        rollback_and_rearm,
        rollback_of_all,
        reasons_of_every_kind,
        not_sticky,
        cohorts,
        cohorts_the_erlang_way,
        subscribers_are_told,
        a_late_reason_is_waited_for,
        telemetry_is_told,
        another_process_changes_the_file,
        another_process_adds_a_name,
        set_while_readers_read
    ]).

%% Each case of a module with a folder, a file and a server of its own; foundation_flags_server_tests uses this too.
cases(Module, Names) ->
    {foreach, fun setup/0, fun cleanup/1, [
        fun(C) -> {timeout, 60, {atom_to_list(Name), fun() -> Module:Name(C) end}} end
     || Name <- Names
    ]}.

-compile(export_all).
-compile(nowarn_export_all).

setup() ->
    _ = application:stop(foundation_native),
    Dir = fdn_test:tmp_dir("flags"),
    Path = filename:join(Dir, "flags"),
    application:set_env(foundation_native, flags_file, Path),
    start(),
    #{level := Level} = logger:get_primary_config(),
    #{dir => Dir, path => Path, level => Level}.

cleanup(#{dir := Dir, level := Level}) ->
    stop(),
    logger:set_primary_config(level, Level),
    application:unset_env(foundation_native, flags_file),
    application:unset_env(foundation_native, flags),
    fdn_test:del_dir(Dir).

start() ->
    {ok, Pid} = foundation_flags_server:start_link(),
    unlink(Pid),
    Pid.

stop() ->
    case whereis(?F) of
        undefined -> ok;
        Pid -> gen_server:stop(Pid)
    end.

%% Start where it must fail: as a supervisor would see it.
%% Tried by a process of its own: whether a failed start leaves an 'EXIT' message with its caller depends on the OTP release.
start_error() ->
    logger:set_primary_config(level, none),
    {Pid, Ref} = spawn_monitor(fun() ->
        process_flag(trap_exit, true),
        exit({result, foundation_flags_server:start_link()})
    end),
    receive {'DOWN', Ref, process, Pid, {result, {error, Reason}}} -> Reason end.

tool(#{path := Path}, Args) ->
    fdn_test:run(foundation_nif:priv_file("foundation-flags"), ["--file", Path | Args]).

expect(Message) ->
    receive
        Message -> ok
    after 20000 -> error({never_told, Message, process_info(self(), messages)})
    end.

epoch(Group) ->
    #{Group := #{epoch := Epoch}} = ?F:groups(),
    Epoch.

%% ---- flags ------------------------------------------------------------------------------------------------------------------------

unknown_flags_read_false(_) ->
    ?assertEqual(false, ?F:enabled(flags_test_nobody_knows)),
    ?assertEqual(false, ?F:enabled_for(flags_test_nobody_knows, <<"x">>)),
    ?assertEqual(undefined, ?F:get(flags_test_nobody_knows)),
    ?assertEqual(undefined, ?F:info(flags_test_nobody_knows)),
    ?assertEqual({error, unknown_flag}, ?F:set(flags_test_nobody_knows, true)),
    ?assertEqual(#{}, ?F:list()),
    ?assertEqual(#{}, ?F:groups()).

declared_set_and_listed(#{path := Path}) ->
    ok = ?F:declare(a, #{group => g, default => true, description => ["the ", <<"first">>]}),
    ok = ?F:declare(b, #{}),
    ?assertEqual(true, ?F:enabled(a)),
    ?assertEqual(false, ?F:enabled(b)),
    ok = ?F:set(b, true),
    ?assertEqual(true, ?F:enabled(b)),
    ok = ?F:set_percentage(b, 30),
    ?assertEqual({percentage, 30}, ?F:get(b)),
    ?assertEqual(false, ?F:enabled(b)),
    ok = ?F:disable(a),
    ?assertEqual(#{a => false, b => {percentage, 30}}, ?F:list()),
    ok = ?F:enable(a),
    #{changed_at := At} = Info = ?F:info(a),
    ?assert(abs(At - erlang:system_time(millisecond)) < 60000),
    ?assertEqual(
        #{flag => a, value => true, group => g, epoch => 1, state => armed, default => true, explicit => true,
          description => <<"the first">>},
        maps:remove(changed_at, Info)
    ),
    ?assertMatch(#{explicit := true, group := default, description := <<>>}, ?F:info(b)),
    Group = #{epoch => 1, state => armed, sticky => true, reason => undefined, at => undefined, who => undefined},
    ?assertEqual(#{g => Group#{flags => [a]}, default => Group#{flags => [b]}}, ?F:groups()),
    Binary = list_to_binary(Path),
    ?assertMatch(
        #{path := Binary, flags := 2, groups := 2, flag_capacity := 1024, group_capacity := 64, faulted := false, read_only := false,
          guarded := true, native_cohorts := true, uuid := <<_:16/binary>>},
        ?F:info()
    ),
    %% It is all in the file.
    stop(),
    start(),
    ?assertEqual(#{a => true, b => {percentage, 30}}, ?F:list()).

misuse_is_named(_) ->
    NotAtom = {badarg, {flag, not_an_atom}},
    [?assertError(NotAtom, Fun()) || Flag <- ["a", <<"a">>, 1, {a}], Fun <- [
        fun() -> ?F:enabled(Flag) end,
        fun() -> ?F:get(Flag) end,
        fun() -> ?F:enabled_for(Flag, 1) end,
        fun() -> ?F:set(Flag, true) end,
        fun() -> ?F:info(Flag) end,
        fun() -> ?F:set_percentage(Flag, 101) end,
        fun() -> ?F:declare(Flag, #{}) end
    ]],
    ok = ?F:declare(a, #{}),
    [?assertError({badarg, {value, not_a_flag_value}}, ?F:set(a, V)) || V <-
        [1, undefined, {percentage, 101}, {percentage, -1}, {percentage, 5.0}, {percentage, 1, 2}, 50, "true", {percent, 5}]],
    [?assertError({badarg, {percent, not_an_integer_from_0_to_100}}, ?F:set_percentage(a, V)) || V <- [-1, 101, 5.0, a]],
    ?assertError({badarg, {options, not_a_map}}, ?F:declare(a, [])),
    ?assertError({badarg, {group, not_an_atom}}, ?F:declare(a, #{group => "g"})),
    ?assertError({badarg, {group, reserved}}, ?F:declare(a, #{group => all})),
    ?assertError({badarg, {flag, empty}}, ?F:declare('', #{})),
    ?assertError({badarg, {flag, control_character}}, ?F:declare('a\tb', #{})),
    ?assertError({badarg, {default, not_a_boolean}}, ?F:declare(a, #{default => 1})),
    ?assertError({badarg, {sticky, not_a_boolean}}, ?F:declare(a, #{sticky => yes})),
    ?assertError({badarg, {description, not_text}}, ?F:declare(a, #{description => 17})),
    ?assertError({badarg, {descripton, unknown_option}}, ?F:declare(a, #{descripton => ""})),
    ?assertError({badarg, {group, not_an_atom}}, ?F:rollback("g", x)),
    ?assertError({badarg, {timeout, not_a_timeout}}, ?F:rollback(default, x, soon)),
    ?assertError({badarg, {group, not_an_atom}}, ?F:rearm(<<"g">>, 1)),
    [?assertError({badarg, {epoch, not_an_epoch}}, ?F:rearm(default, E)) || E <- [0, -1, 1.0, a, 1 bsl 48]],
    ?assertEqual(armed, maps:get(state, maps:get(default, ?F:groups()))).

refusals_are_answers(_) ->
    Long = list_to_atom(lists:duplicate(56, $n)),
    Longest = list_to_atom(lists:duplicate(255, $n)),
    Fits = list_to_atom(lists:duplicate(55, $n)),
    [?assertEqual({error, name_too_long}, ?F:declare(Name, #{})) || Name <- [Long, Longest]],
    ?assertEqual({error, name_too_long}, ?F:declare(a, #{group => Long})),
    ok = ?F:declare(Fits, #{group => Fits, default => true}),
    ?assertEqual(true, ?F:enabled(Fits)),
    ok = ?F:declare(a, #{group => g}),
    ?assertEqual({error, other_group}, ?F:declare(a, #{group => h})),
    ok = ?F:declare(a, #{}),
    ?assertEqual(g, maps:get(group, ?F:info(a))),
    [?assertEqual({error, unknown_group}, ?F:rollback(G, x)) || G <- [h, Long, Longest]],
    ?assertEqual({error, unknown_group}, ?F:rearm(h, 1)),
    ?assertEqual({error, not_rolled_back}, ?F:rearm(g, 1)),
    ?assertEqual({error, stale_epoch}, ?F:rearm(g, 2)).

names_of_every_kind(#{path := _} = C) ->
    Names = ['größe', '日本語の旗', 'with space', 'Elixir.Foo', 'a=b', 'ÿ'],
    [ok = ?F:declare(N, #{group => N, default => true}) || N <- Names],
    [?assertEqual({N, true}, {N, ?F:enabled(N)}) || N <- Names],
    [?assertMatch({ok, #{flags := [N]}}, ?F:rollback(N, "größer als gedacht")) || N <- Names],
    [?assertEqual({N, false}, {N, ?F:enabled(N)}) || N <- Names],
    ?assertMatch(#{'größe' := #{reason := <<"größer als gedacht"/utf8>>}}, ?F:groups()),
    stop(),
    start(),
    ?assertEqual(lists:sort(Names), lists:sort(maps:keys(?F:list()))),
    {0, Text} = tool(C, ["get", "größe"]),
    ?assertEqual("false\n", Text).

a_full_file_says_so(_) ->
    Names = [list_to_atom("flags_test_" ++ integer_to_list(N)) || N <- lists:seq(1, 1024)],
    [ok = ?F:declare(N, #{}) || N <- Names],
    ?assertEqual({error, full}, ?F:declare(one_more, #{})),
    ?assertEqual(1024, maps:size(?F:list())),
    [ok = ?F:set(N, true) || N <- Names],
    ?assert(lists:all(fun ?F:enabled/1, Names)),
    {ok, #{flags := Flags}} = ?F:rollback(default, "all of them"),
    ?assertEqual(1024, length(Flags)),
    ?assertNot(lists:any(fun ?F:enabled/1, Names)).

%% ---- groups -----------------------------------------------------------------------------------------------------------------------

rollback_and_rearm(_) ->
    ok = ?F:declare(a, #{group => g, default => true}),
    ok = ?F:declare(b, #{group => g}),
    ok = ?F:declare(c, #{group => h, default => true}),
    ok = ?F:set(b, {percentage, 100}),
    ?assertEqual(true, ?F:enabled_for(b, x)),
    Node = node(),
    ?assertEqual({ok, #{epochs => #{g => 2}, flags => [a, b], nodes => #{Node => ok}}}, ?F:rollback(g, "error rate")),
    ?assertEqual(#{a => false, b => false, c => true}, ?F:list()),
    ?assertEqual(false, ?F:enabled_for(b, x)),
    #{g := #{epoch := 2, state := rolled_back, reason := <<"error rate">>, at := At, who := Who, sticky := true}} = ?F:groups(),
    ?assert(abs(At - erlang:system_time(millisecond)) < 60000),
    ?assertEqual(iolist_to_binary([pid_to_list(self()), " ", atom_to_list(node())]), Who),
    ?assertEqual({error, rolled_back}, ?F:set(a, true)),
    ?assertEqual({error, rolled_back}, ?F:disable(a)),
    %% Neither declaring nor a restart undoes it.
    ok = ?F:declare(a, #{group => g, default => true}),
    stop(),
    start(),
    ?assertEqual(false, ?F:enabled(a)),
    ?assertMatch(#{state := rolled_back, value := false, default := true, explicit := false}, ?F:info(a)),
    ?assertEqual({error, stale_epoch}, ?F:rearm(g, 1)),
    ?assertEqual(ok, ?F:rearm(g, 2)),
    ?assertEqual({error, not_rolled_back}, ?F:rearm(g, 2)),
    ?assertEqual(#{a => false, b => false, c => true}, ?F:list()),
    ok = ?F:set(a, true),
    ?assertEqual(#{a => true, b => false, c => true}, ?F:list()),
    ?assertMatch({ok, #{epochs := #{g := 3}, nodes := #{Node := {error, timeout}}}}, ?F:rollback(g, "no time to wait", 0)),
    ?assertEqual(false, ?F:enabled(a)).

rollback_of_all(_) ->
    ?assertMatch({ok, #{epochs := E, flags := []}} when map_size(E) =:= 0, ?F:rollback(all, none)),
    [ok = ?F:declare(F, #{group => G, default => true}) || {F, G} <- [{a, g}, {b, h}, {c, i}]],
    {ok, #{epochs := #{i := 2}}} = ?F:rollback(i, first),
    ?assertMatch({ok, #{epochs := #{g := 2, h := 2, i := 3}, flags := [a, b, c]}}, ?F:rollback(all, everything, infinity)),
    ?assertEqual(#{a => false, b => false, c => false}, ?F:list()).

reasons_of_every_kind(_) ->
    ok = ?F:declare(a, #{group => g}),
    Reason = fun(R) ->
        {ok, _} = ?F:rollback(g, R),
        maps:get(reason, maps:get(g, ?F:groups()))
    end,
    ?assertEqual(<<"an_atom">>, Reason(an_atom)),
    ?assertEqual(<<"io list">>, Reason(["io", $\s, <<"list">>])),
    ?assertEqual(<<>>, Reason("")),
    ?assertEqual(<<"{threshold,5,10000}">>, Reason({threshold, 5, 10000})),
    ?assertEqual(<<"#{a => 1}">>, Reason(#{a => 1})),
    ?assertEqual(<<"zero here">>, Reason(<<"zero", 0, "here">>)),
    ?assertEqual(119, byte_size(Reason(lists:duplicate(5000, $x)))),
    ?assertEqual(118, byte_size(Reason(lists:duplicate(5000, 16#e9)))),
    ?assert(is_binary(Reason(<<255, 254, 253>>))),
    ?assert(is_binary(Reason([1, 2 | improper]))),
    ?assert(is_binary(Reason(binary:copy(<<"y">>, 1000000)))).

not_sticky(_) ->
    ok = ?F:declare(a, #{group => g, sticky => false, default => true}),
    {ok, #{epochs := #{g := 2}, flags := [a]}} = ?F:rollback(g, emergency),
    ?assertEqual(false, ?F:enabled(a)),
    ?assertMatch(#{g := #{state := armed, sticky := false, reason := <<"emergency">>}}, ?F:groups()),
    ?assertEqual({error, not_rolled_back}, ?F:rearm(g, 2)),
    ok = ?F:enable(a),
    ?assertEqual(true, ?F:enabled(a)).

%% ---- cohorts ----------------------------------------------------------------------------------------------------------------------

known_vectors() ->
    [{<<"user1">>, 46}, {<<"user2">>, 25}, {1, 50}, {1.0, 63}, {a, 51}, {{1, 2}, 40}, {nil, 77}].

cohorts(_) ->
    ok = ?F:declare(use_ets_agent_registry, #{}),
    [
        begin
            ok = ?F:set_percentage(use_ets_agent_registry, Percent),
            ?assertEqual({Id, Percent, Cohort < Percent}, {Id, Percent, ?F:enabled_for(use_ets_agent_registry, Id)})
        end
     || {Id, Cohort} <- known_vectors(), Percent <- [0, Cohort, Cohort + 1, 100]
    ],
    Hash = erlang:phash2(use_ets_agent_registry, 1 bsl 32),
    [?assertEqual(Cohort, ?F:cohort_nif(Hash, Id)) || {Id, Cohort} <- known_vectors(), is_binary(Id) orelse is_integer(Id)],
    [?assertEqual(undefined, ?F:cohort_nif(Hash, Id)) || Id <- [1.0, a, {1, 2}, <<1:3>>, 1 bsl 64, <<0:(4097 * 8)>>, #{}]].

%% Where the self-check fails, Erlang computes every cohort.
cohorts_the_erlang_way(_) ->
    ok = ?F:declare(use_ets_agent_registry, #{}),
    ok = ?F:set_percentage(use_ets_agent_registry, 47),
    ?F:trust_cohorts_nif(false),
    ?assertMatch(#{native_cohorts := false}, ?F:info()),
    [?assertEqual({Id, Cohort < 47}, {Id, ?F:enabled_for(use_ets_agent_registry, Id)}) || {Id, Cohort} <- known_vectors()],
    stop(),
    start(),
    ?assertMatch(#{native_cohorts := true}, ?F:info()).

%% ---- telling ----------------------------------------------------------------------------------------------------------------------

subscribers_are_told(_) ->
    ok = ?F:declare(a, #{group => g}),
    ok = ?F:subscribe(),
    ok = ?F:subscribe(),
    Other = spawn(fun() -> ok = ?F:subscribe(), receive stop -> ok end end),
    ok = ?F:set(a, true),
    expect({foundation_flags, changed, a, true}),
    ok = ?F:set(a, {percentage, 5}),
    expect({foundation_flags, changed, a, {percentage, 5}}),
    {ok, _} = ?F:rollback(g, "why"),
    receive
        {foundation_flags, _, _, _} = Early -> error({before_rolled_back, Early});
        {foundation_flags, rolled_back, g, 2, <<"why">>} -> ok
    after 20000 -> error(never_told)
    end,
    expect({foundation_flags, changed, a, false}),
    %% Told once, although subscribed twice.
    ?assertEqual(none, receive Any -> Any after 0 -> none end),
    Other ! stop,
    ok = ?F:unsubscribe(),
    ok = ?F:rearm(g, 2),
    ok = ?F:declare(b, #{group => g, default => true}),
    ok = ?F:subscribe(),
    ok = ?F:set_percentage(b, 1),
    expect({foundation_flags, changed, b, {percentage, 1}}),
    ?assertEqual(none, receive Any2 -> Any2 after 0 -> none end).

%% The server sees a rollback before its writer could say why: as if the writer were stopped in between.
a_late_reason_is_waited_for(#{path := Path}) ->
    ok = ?F:subscribe(),
    ok = ?F:declare(a, #{group => g, default => true}),
    expect({foundation_flags, changed, a, true}),
    %% The group's epoch word, changed as a writer would that dies right after the flip.
    {ok, File} = file:open(Path, [read, write, raw, binary]),
    {ok, <<Word:64/native>>} = file:pread(File, 2048, 8),
    ok = file:pwrite(File, 2048, <<(Word + (1 bsl 16) + 1):64/native>>),
    ok = file:close(File),
    expect({foundation_flags, rolled_back, g, 2, undefined}),
    expect({foundation_flags, changed, a, false}),
    ?assertMatch(#{g := #{state := rolled_back, reason := undefined, at := undefined}}, ?F:groups()).

telemetry_is_told(_) ->
    fdn_test:with_telemetry(fun() ->
        Told = fun(Event, Metadata) ->
            Got = receive {telemetry, _Server, E, M, T} -> {E, M, T} after 20000 -> never end,
            ?assertEqual({[foundation_native, flags, Event], #{count => 1}, Metadata}, Got)
        end,
        ok = ?F:declare(a, #{group => g}),
        ok = ?F:set(a, true),
        Told(changed, #{flag => a, value => true}),
        {ok, _} = ?F:rollback(g, why),
        Told(rolled_back, #{group => g, epoch => 2, reason => <<"why">>})
    end).

another_process_changes_the_file(C) ->
    ok = ?F:declare(a, #{group => g}),
    ok = ?F:subscribe(),
    ?assertMatch({0, "a\t25%\n"}, tool(C, ["set", "a", "25%"])),
    ?assertEqual({percentage, 25}, ?F:get(a)),
    expect({foundation_flags, changed, a, {percentage, 25}}),
    ?assertMatch({0, "g\trolled_back\t2\n"}, tool(C, ["rollback", "g", "from the shell"])),
    ?assertEqual(false, ?F:get(a)),
    expect({foundation_flags, rolled_back, g, 2, <<"from the shell">>}),
    expect({foundation_flags, changed, a, false}),
    ?assertMatch({1, _}, tool(C, ["set", "a", "true"])),
    ?assertMatch({0, _}, tool(C, ["rearm", "g", "2"])),
    ok = ?F:set(a, true),
    expect({foundation_flags, changed, a, true}).

%% Another VM declares a flag in the file that we share.
another_process_adds_a_name(#{path := Path}) ->
    {Peer, _} = fdn_test:peer(),
    ok = peer:call(Peer, application, set_env, [foundation_native, flags_file, Path]),
    ok = ?F:subscribe(),
    {ok, _} = peer:call(Peer, gen_server, start, [{local, ?F}, foundation_flags_server, [], []]),
    ok = peer:call(Peer, ?F, declare, [flags_test_theirs, #{group => theirs}]),
    %% Known as soon as somebody sets it, without waiting for the watcher.
    ok = ?F:set(flags_test_theirs, true),
    ?assertEqual(true, ?F:enabled(flags_test_theirs)),
    expect({foundation_flags, changed, flags_test_theirs, true}),
    ?assertEqual(true, peer:call(Peer, ?F, enabled, [flags_test_theirs])),
    {ok, #{epochs := #{theirs := 2}}} = peer:call(Peer, ?F, rollback, [theirs, "they say"]),
    ?assertEqual(false, ?F:enabled(flags_test_theirs)),
    expect({foundation_flags, rolled_back, theirs, 2, <<"they say">>}),
    ok = peer:call(Peer, ?F, declare, [flags_test_more, #{group => more, default => true}]),
    fdn_test:await(fun() -> ?F:enabled(flags_test_more) end),
    fdn_test:stop_peer(Peer).

%% Readers on every scheduler while flags are declared, set and rolled back: they see true or false, and after a rollback false.
set_while_readers_read(_) ->
    ok = ?F:declare(a, #{group => g}),
    Stop = counters:new(1, []),
    Readers = [spawn_monitor(fun() -> read_until(Stop, 0) end) || _ <- lists:seq(1, 4)],
    [
        begin
            ok = ?F:declare(list_to_atom("flags_test_" ++ integer_to_list(N)), #{group => g}),
            ok = ?F:set(a, true),
            {ok, #{epochs := #{g := Epoch}}} = ?F:rollback(g, N, 0),
            ?assertEqual(false, ?F:enabled(a)),
            ok = ?F:rearm(g, Epoch),
            ?assertEqual(false, ?F:enabled(a))
        end
     || N <- lists:seq(1, 50)
    ],
    counters:put(Stop, 1, 1),
    [receive {'DOWN', M, process, P, Why} -> ?assertMatch({read, N} when N > 0, Why) end || {P, M} <- Readers].

read_until(Stop, N) ->
    true = is_boolean(?F:enabled(a)),
    case counters:get(Stop, 1) of
        0 -> read_until(Stop, N + 1);
        1 -> exit({read, N + 1})
    end.
