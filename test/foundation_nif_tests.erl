%% Load, upgrade, unload of the NIF libraries and what is said when one does not load, with the libraries of test/nif/fixture_nif.c:
%% a and b have the same abi of their state, c has another.
-module(foundation_nif_tests).

-include_lib("eunit/include/eunit.hrl").

-define(M, foundation_fixture).

all_test_() ->
    {setup, fun build/0, fun(_) -> ok end, fun(Libs) ->
        [{timeout, 120, {atom_to_list(element(2, erlang:fun_info(F, name))), fun() -> in_fixture(Libs, F) end}} || F <- cases()]
    end}.

cases() ->
    [
        fun each_failure_is_named/1,
        fun a_missing_library_is_named/1,
        fun a_library_of_another_module_is_named/1,
        fun success_after_failure_is_a_success/1,
        fun misuse_names_the_argument/1,
        fun upgrade_keeps_state_and_moves_the_thread/1,
        fun unknown_state_is_refused_and_the_old_code_goes_on/1,
        fun failing_threads_give_the_old_ones_back/1,
        fun failures_of_upgrade_leave_the_old_code_alone/1,
        fun unload_destroys_once/1,
        fun halt_with_threads_is_safe/1
    ].

build() ->
    Root = fdn_test:root_dir(),
    Dir = os:getenv("TEST_NIF_DIR", filename:join(Root, "_build/test-nif")),
    case os:getenv("TEST_NIF_DIR") of
        false ->
            Out = os:cmd("cd '" ++ Root ++ "' && make -s test-nifs 2>&1; echo status $?"),
            ?assertMatch({match, _}, re:run(Out, "status 0\n$"), Out);
        _ ->
            ok
    end,
    filename:absname(Dir).

in_fixture(Libs, Case) ->
    Dir = fdn_test:tmp_dir("nif"),
    os:putenv("FDN_FIXTURE_LOG", filename:join(Dir, "log")),
    %% The VM warns of each library that is refused, as it should.
    #{level := Level} = logger:get_primary_config(),
    logger:set_primary_config(level, error),
    C = #{libs => Libs, log => filename:join(Dir, "log"), dir => Dir},
    try
        Case(C)
    after
        os:unsetenv("FDN_FIXTURE_FAIL"),
        unload(),
        %% Nothing of this case may still write when the next one begins.
        fdn_test:await(fun() -> count("create", C) =:= count("destroy", C) end),
        logger:set_primary_config(level, Level),
        os:unsetenv("FDN_FIXTURE_LOG"),
        fdn_test:del_dir(Dir)
    end.

%% Load the module's code anew with that library, as a hot upgrade does where it is loaded already.
load(#{libs := Libs}, Variant) ->
    load_file(filename:join(Libs, "fixture_" ++ Variant)).

load_file(Library) ->
    persistent_term:put({?M, library}, Library),
    {?M, Beam, File} = code:get_object_code(?M),
    code:load_binary(?M, File, Beam).

load_ok(C, Variant) ->
    ?assertEqual({module, ?M}, load(C, Variant)).

unload() ->
    _ = code:purge(?M),
    _ = code:delete(?M),
    _ = code:purge(?M),
    ok.

log(#{log := File}) ->
    case file:read_file(File) of
        {ok, Text} -> [binary_to_list(L) || L <- binary:split(Text, <<"\n">>, [global, trim])];
        {error, enoent} -> []
    end.

count(Hook, C) ->
    length([L || L <- log(C), lists:prefix(Hook, L)]).

fail(What) ->
    os:putenv("FDN_FIXTURE_FAIL", What).

each_failure_is_named(C) ->
    Words = [enomem, resource_types, random_source, sigbus_guard, state, threads],
    [each_failure_is_named(C, W) || W <- Words],
    %% What had been made before a failure was taken back.
    ?assert(count("create", C) > 0),
    ?assertEqual(count("create", C), count("destroy", C)).

each_failure_is_named(C, Word) ->
    fail(atom_to_list(Word)),
    ?assertEqual({error, on_load_failure}, load(C, "a")),
    ?assertMatch({error, {nif_not_loaded, ?M, {load, Word, _}}}, foundation_nif:check(?M)),
    {error, {nif_not_loaded, ?M, {load, Word, Text}}} = foundation_nif:check(?M),
    ?assert(is_list(Text)).

a_missing_library_is_named(#{dir := Dir}) ->
    ?assertEqual({error, on_load_failure}, load_file(filename:join(Dir, "nowhere"))),
    ?assertMatch({error, {nif_not_loaded, ?M, {load_failed, _}}}, foundation_nif:check(?M)),
    {error, {_, _, {_, Text}}} = foundation_nif:check(?M),
    ?assertMatch({match, _}, re:run(Text, "nowhere")).

a_library_of_another_module_is_named(#{dir := Dir}) ->
    ok = file:write_file(filename:join(Dir, "text.so"), <<"not a library">>),
    ?assertEqual({error, on_load_failure}, load_file(filename:join(Dir, "text"))),
    ?assertMatch({error, {nif_not_loaded, ?M, {load_failed, _}}}, foundation_nif:check(?M)).

success_after_failure_is_a_success(C) ->
    fail("state"),
    ?assertEqual({error, on_load_failure}, load(C, "a")),
    os:unsetenv("FDN_FIXTURE_FAIL"),
    load_ok(C, "a"),
    ?assertEqual(ok, foundation_nif:check(?M)),
    ?assertEqual(5, ?M:add(5)).

misuse_names_the_argument(C) ->
    load_ok(C, "a"),
    ?assertError({badarg, {n, not_an_integer}}, ?M:add(one)).

upgrade_keeps_state_and_moves_the_thread(C) ->
    load_ok(C, "a"),
    ?assertEqual(a, ?M:library()),
    ?assertEqual(a, ?M:ask()),
    ?assertEqual(5, ?M:add(5)),
    load_ok(C, "b"),
    ?assertEqual(b, ?M:library()),
    ?assertEqual(b, ?M:ask()),
    ?assertEqual(6, ?M:add(1)),
    ?assertEqual(["create a", "resume a", "pause a", "resume b"], log(C)),
    %% The old library goes; nothing of the state goes with it.
    ?assertNot(code:purge(?M)),
    ?assertEqual(b, ?M:ask()),
    ?assertEqual(["create a", "resume a", "pause a", "resume b"], log(C)),
    %% And again, with code that is loaded a second time.
    load_ok(C, "a"),
    ?assertNot(code:purge(?M)),
    ?assertEqual(a, ?M:library()),
    ?assertEqual(a, ?M:ask()),
    ?assertEqual(7, ?M:add(1)),
    unload(),
    All = ["create a", "resume a", "pause a", "resume b", "pause b", "resume a", "pause a", "destroy a"],
    unloaded(C, All).

unknown_state_is_refused_and_the_old_code_goes_on(C) ->
    load_ok(C, "a"),
    ?assertEqual(3, ?M:add(3)),
    ?assertEqual({error, on_load_failure}, load(C, "c")),
    ?assertMatch({upgrade, upgrade_refused, _}, persistent_term:get({foundation_nif, load_error, ?M})),
    ?assertEqual(a, ?M:library()),
    ?assertEqual(a, ?M:ask()),
    ?assertEqual(4, ?M:add(1)),
    %% It was refused before anything was touched.
    ?assertEqual(["create a", "resume a"], log(C)),
    %% A later, fitting upgrade takes over.
    load_ok(C, "b"),
    ?assertEqual(5, ?M:add(1)),
    ?assertEqual(ok, foundation_nif:check(?M)).

failing_threads_give_the_old_ones_back(C) ->
    load_ok(C, "a"),
    ?assertEqual(3, ?M:add(3)),
    fail("threads_b"),
    ?assertEqual({error, on_load_failure}, load(C, "b")),
    ?assertMatch({upgrade, threads, _}, persistent_term:get({foundation_nif, load_error, ?M})),
    ?assertEqual(["create a", "resume a", "pause a", "resume a"], log(C)),
    ?assertEqual(a, ?M:ask()),
    ?assertEqual(3, ?M:add(0)).

failures_of_upgrade_leave_the_old_code_alone(C) ->
    load_ok(C, "a"),
    ?assertEqual(3, ?M:add(3)),
    [
        begin
            fail(atom_to_list(Word)),
            ?assertEqual({error, on_load_failure}, load(C, "b")),
            ?assertMatch({upgrade, Word, _}, persistent_term:get({foundation_nif, load_error, ?M})),
            ?assertEqual(a, ?M:ask()),
            ?assertEqual(3, ?M:add(0))
        end
     || Word <- [enomem, resource_types, random_source, sigbus_guard]
    ],
    ?assertEqual(["create a", "resume a"], log(C)).

%% From OTP 26 on, the VM may unload a library some time after its code was purged.
unloaded(C, Expected) ->
    fdn_test:await(fun() -> length(log(C)) >= length(Expected) end),
    ?assertEqual(Expected, log(C)).

unload_destroys_once(C) ->
    load_ok(C, "a"),
    ?assertEqual(1, ?M:add(1)),
    true = code:delete(?M),
    %% Deleted is not yet unloaded: the old code may still run.
    ?assertEqual(["create a", "resume a"], log(C)),
    _ = code:purge(?M),
    unloaded(C, ["create a", "resume a", "pause a", "destroy a"]),
    %% A fresh load is a fresh state.
    load_ok(C, "a"),
    ?assertEqual(1, ?M:add(1)).

%% The VM ends while the thread runs, in each way a VM can be made to end in order.
halt_with_threads_is_safe(#{libs := Libs, dir := Dir} = C) ->
    Theirs = C#{log := filename:join(Dir, "theirs")},
    os:putenv("FDN_FIXTURE_LOG", maps:get(log, Theirs)),
    Library = io_lib:format("~p", [filename:join(Libs, "fixture_a")]),
    Load = ["persistent_term:put({foundation_fixture, library}, ", Library, "), a = foundation_fixture:ask(), "],
    [
        ?assertMatch({How, {7, _}}, {How, fdn_test:eval_in_vm([Load, How])})
     || How <- ["halt(7).", "erlang:halt(7, [{flush, false}]).", "init:stop(7)."]
    ],
    ?assertEqual(3, count("resume", Theirs)).
