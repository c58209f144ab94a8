%% Start and stop of the application, each in a VM of its own.
-module(foundation_native_app_tests).

-include_lib("eunit/include/eunit.hrl").

-define(APP, foundation_native).
-define(PARTS, [foundation_limiter, foundation_snapshot, foundation_flags]).

app_test_() ->
    [
        {timeout, 120, {atom_to_list(element(2, erlang:fun_info(F, name))), F}}
     || F <- [
            fun starts_stops_and_starts_again/0,
            fun bad_data_folder_is_the_reason/0,
            fun bad_sentinel_options_are_the_reason/0,
            fun bad_library_is_the_reason/0,
            fun missing_library_is_the_reason/0,
            fun every_part_reloads_in_a_running_application/0,
            fun halt_with_everything_running/0
        ]
    ].

%% A VM with the application's environment set and not started.
with_vm(Env, Fun) ->
    {Peer, _} = fdn_test:peer(),
    try
        [ok = call(Peer, application, set_env, [?APP, K, V]) || {K, V} <- Env],
        Fun(Peer)
    after
        fdn_test:stop_peer(Peer)
    end.

call(Peer, M, F, A) ->
    peer:call(Peer, M, F, A, 60000).

starts_stops_and_starts_again() ->
    with_vm([{data_dir, ephemeral}], fun(Peer) ->
        Cycle = fun() ->
            ?assertEqual({ok, [?APP]}, call(Peer, application, ensure_all_started, [?APP])),
            [
                ?assert(is_pid(call(Peer, erlang, whereis, [Name])))
             || Name <- [foundation_native_sup, foundation_flags, foundation_snapshot_sup]
            ],
            {ok, Dir} = call(Peer, foundation_native, data_dir, []),
            ok = call(Peer, foundation_flags, declare, [app_flag, #{default => true}]),
            ?assert(filelib:is_regular(filename:join(Dir, "flags"))),
            ?assertEqual(ok, call(Peer, application, stop, [?APP])),
            ?assertEqual(undefined, call(Peer, erlang, whereis, [foundation_native_sup])),
            ?assertNot(filelib:is_file(Dir)),
            Dir
        end,
        Dirs = [Cycle() || _ <- lists:seq(1, 3)],
        ?assertEqual(3, length(lists:usort(Dirs)))
    end).

bad_data_folder_is_the_reason() ->
    fdn_test:with_tmp_dir(fun(Tmp) ->
        File = filename:join(Tmp, "file"),
        ok = file:write_file(File, <<>>),
        with_vm([{data_dir, File}], fun(Peer) ->
            call(Peer, logger, set_primary_config, [level, none]),
            {error, {?APP, Reason}} = call(Peer, application, ensure_all_started, [?APP]),
            ?assertMatch({match, _}, re:run(io_lib:format("~p", [Reason]), "data_dir.*enotdir", [dotall]))
        end)
    end).

bad_sentinel_options_are_the_reason() ->
    with_vm([{data_dir, ephemeral}, {sentinel, true}], fun(Peer) ->
        call(Peer, logger, set_primary_config, [level, none]),
        {error, {?APP, Reason}} = call(Peer, application, ensure_all_started, [?APP]),
        ?assertMatch({match, _}, re:run(io_lib:format("~p", [Reason]), "badarg,.*options,.*not_a_map", [dotall]))
    end).

%% The application in a folder of its own, one library of which is not what it should be.
with_changed_priv(Change, Fun) ->
    fdn_test:with_tmp_dir(fun(Tmp) ->
        Ebin = filename:join([Tmp, ?APP, "ebin"]),
        Priv = filename:join([Tmp, ?APP, "priv"]),
        copy(filename:dirname(code:which(?APP)), Ebin),
        copy(filename:dirname(foundation_nif:priv_file("x")), Priv),
        Change(Priv),
        with_vm([{data_dir, ephemeral}], fun(Peer) ->
            call(Peer, logger, set_primary_config, [level, none]),
            true = call(Peer, code, add_patha, [Ebin]),
            Fun(Peer)
        end)
    end).

copy(From, To) ->
    ok = filelib:ensure_dir(filename:join(To, "x")),
    {ok, Names} = file:list_dir(From),
    [
        case filelib:is_regular(filename:join(From, Name)) of
            true -> {ok, _} = file:copy(filename:join(From, Name), filename:join(To, Name));
            false -> ok
        end
     || Name <- Names
    ],
    ok.

bad_library_is_the_reason() ->
    [
        with_changed_priv(
            fun(Priv) -> ok = file:write_file(filename:join(Priv, atom_to_list(Part) ++ ".so"), <<"not a library">>) end,
            fun(Peer) -> refused(Peer, Part) end
        )
     || Part <- ?PARTS
    ].

missing_library_is_the_reason() ->
    with_changed_priv(
        fun(Priv) -> ok = file:delete(filename:join(Priv, "foundation_snapshot.so")) end,
        fun(Peer) -> refused(Peer, foundation_snapshot) end
    ).

refused(Peer, Part) ->
    {error, {?APP, {Reason, _}}} = call(Peer, application, ensure_all_started, [?APP]),
    ?assertMatch({nif_not_loaded, Part, {load_failed, _}}, Reason),
    {_, _, {_, Text}} = Reason,
    ?assertMatch({match, _}, re:run(Text, atom_to_list(Part))),
    ?assertEqual(undefined, call(Peer, erlang, whereis, [foundation_native_sup])).

%% A hot upgrade, twice: state stays, and nothing is left of the old code.
every_part_reloads_in_a_running_application() ->
    with_vm([{data_dir, ephemeral}], fun(Peer) ->
        {ok, _} = call(Peer, application, ensure_all_started, [?APP]),
        ok = call(Peer, foundation_flags, declare, [app_flag, #{group => app}]),
        ok = call(Peer, foundation_flags, set, [app_flag, true]),
        [
            begin
                _ = call(Peer, code, purge, [Part]),
                ?assertEqual({module, Part}, call(Peer, code, load_file, [Part])),
                ?assertEqual(ok, call(Peer, foundation_nif, check, [Part])),
                ?assertEqual(true, call(Peer, foundation_flags, enabled, [app_flag]))
            end
         || _ <- [1, 2], Part <- ?PARTS
        ],
        [call(Peer, code, purge, [Part]) || Part <- ?PARTS],
        ?assertEqual(true, call(Peer, foundation_flags, enabled, [app_flag]))
    end).

%% The VM ends while every part has its threads, its mappings and a file open.
halt_with_everything_running() ->
    fdn_test:with_tmp_dir(fun(Tmp) ->
        Eval = [
            "application:load(foundation_native), application:set_env(foundation_native, data_dir, ",
            io_lib:format("~p", [filename:join(Tmp, "data")]),
            "), {ok, _} = application:ensure_all_started(foundation_native), ",
            "{ok, _} = foundation_limiter:start_link(l, #{limit => 1, period => 1000}), {allow, 0} = foundation_limiter:hit(l, k), ",
            "{ok, S} = foundation_snapshot:open(s, #{path => ",
            io_lib:format("~p", [filename:join(Tmp, "store")]),
            "}), {ok, _} = foundation_snapshot:save(S, k, v), ok = foundation_flags:declare(f, #{}), "
        ],
        [
            ?assertMatch({How, {7, _}}, {How, fdn_test:eval_in_vm([Eval, How])})
         || How <- ["halt(7).", "halt(7, [{flush, false}]).", "init:stop(7)."]
        ]
    end).
