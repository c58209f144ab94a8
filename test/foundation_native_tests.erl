%% The folder of the native state, and the application's start and stop.
-module(foundation_native_tests).

-include_lib("eunit/include/eunit.hrl").
-include_lib("kernel/include/file.hrl").

-define(APP, foundation_native).

env_test_() ->
    {foreach, fun keep_env/0, fun restore_env/1, [
        fun configured_folder_is_made_private/0,
        fun configured_folder_may_be_a_binary/0,
        fun existing_folder_is_left_as_it_is/0,
        fun no_path_is_named/0,
        fun a_file_in_the_way_is_named/0,
        fun a_parent_that_is_a_file_is_named/0,
        fun a_folder_that_may_not_be_made_is_named/0,
        fun ephemeral_is_one_folder_until_discarded/0,
        fun ephemeral_that_cannot_be_made_is_named/0,
        fun default_is_per_user_release_and_node/0,
        fun default_is_per_application_where_there_is_no_release/0,
        fun flags_file_defaults_into_the_folder/0,
        fun flags_file_that_is_no_path_is_named/0,
        fun errors_of_the_folder_reach_the_flags_file/0
    ]}.

keep_env() ->
    {[{K, application:get_env(?APP, K)} || K <- [data_dir, flags_file]], [{V, os:getenv(V)} || V <- ["XDG_DATA_HOME", "RELEASE_NAME"]]}.

restore_env({Env, Os}) ->
    [
        case Value of
            {ok, V} -> application:set_env(?APP, K, V);
            undefined -> application:unset_env(?APP, K)
        end
     || {K, Value} <- Env
    ],
    [
        case Value of
            false -> os:unsetenv(V);
            _ -> os:putenv(V, Value)
        end
     || {V, Value} <- Os
    ],
    foundation_native:discard_ephemeral().

set(Key, Value) ->
    application:set_env(?APP, Key, Value).

mode(Path) ->
    {ok, #file_info{mode = Mode}} = file:read_file_info(Path),
    Mode band 8#777.

configured_folder_is_made_private() ->
    fdn_test:with_tmp_dir(fun(Tmp) ->
        Dir = filename:join([Tmp, "a", "b"]),
        set(data_dir, Dir),
        ?assertEqual({ok, Dir}, foundation_native:data_dir()),
        ?assert(filelib:is_dir(Dir)),
        ?assertEqual(8#700, mode(Dir)),
        ?assertEqual({ok, Dir}, foundation_native:data_dir())
    end).

configured_folder_may_be_a_binary() ->
    fdn_test:with_tmp_dir(fun(Tmp) ->
        Dir = unicode:characters_to_binary(filename:join(Tmp, "data")),
        set(data_dir, Dir),
        ?assertEqual({ok, Dir}, foundation_native:data_dir()),
        ?assert(filelib:is_dir(Dir))
    end).

existing_folder_is_left_as_it_is() ->
    fdn_test:with_tmp_dir(fun(Tmp) ->
        Dir = filename:join(Tmp, "shared"),
        ok = file:make_dir(Dir),
        ok = file:change_mode(Dir, 8#750),
        set(data_dir, Dir),
        ?assertEqual({ok, Dir}, foundation_native:data_dir()),
        ?assertEqual(8#750, mode(Dir))
    end).

no_path_is_named() ->
    [
        begin
            set(data_dir, Bad),
            ?assertEqual({error, {data_dir, Bad, not_a_path}}, foundation_native:data_dir())
        end
     || Bad <- ["", <<>>, 17, folder, [{a}]]
    ].

a_file_in_the_way_is_named() ->
    fdn_test:with_tmp_dir(fun(Tmp) ->
        File = filename:join(Tmp, "file"),
        ok = file:write_file(File, <<>>),
        set(data_dir, File),
        ?assertEqual({error, {data_dir, File, enotdir}}, foundation_native:data_dir())
    end).

a_parent_that_is_a_file_is_named() ->
    fdn_test:with_tmp_dir(fun(Tmp) ->
        File = filename:join(Tmp, "file"),
        ok = file:write_file(File, <<>>),
        Dir = filename:join(File, "data"),
        set(data_dir, Dir),
        ?assertEqual({error, {data_dir, Dir, enotdir}}, foundation_native:data_dir())
    end).

%% Root meets no closed folder, but does not make files in the folder of somebody else.
a_folder_that_may_not_be_made_is_named() ->
    fdn_test:with_tmp_dir(fun(Tmp) ->
        Closed = filename:join(Tmp, "closed"),
        ok = file:make_dir(Closed),
        Reason =
            case file:read_file_info("/proc/self") of
                {ok, #file_info{uid = 0}} ->
                    ok = file:change_owner(Closed, 65534),
                    owned_by_another_user;
                _ ->
                    ok = file:change_mode(Closed, 8#500),
                    eacces
            end,
        [
            begin
                set(data_dir, Dir),
                ?assertEqual({error, {data_dir, Dir, Reason}}, foundation_native:data_dir())
            end
         || Dir <- [filename:join(Closed, "data"), filename:join([Closed, "deep", "data"])]
        ],
        ?assertEqual({ok, []}, file:list_dir(Closed))
    end).

ephemeral_is_one_folder_until_discarded() ->
    set(data_dir, ephemeral),
    {ok, Dir} = foundation_native:data_dir(),
    ?assertEqual(8#700, mode(Dir)),
    ?assertEqual({ok, Dir}, foundation_native:data_dir()),
    ok = file:write_file(filename:join(Dir, "state"), <<"x">>),
    ok = foundation_native:discard_ephemeral(),
    ?assertNot(filelib:is_file(Dir)),
    {ok, Next} = foundation_native:data_dir(),
    ?assertNotEqual(Dir, Next),
    ok = foundation_native:discard_ephemeral(),
    ?assertNot(filelib:is_file(Next)),
    ok = foundation_native:discard_ephemeral().

ephemeral_that_cannot_be_made_is_named() ->
    Before = os:getenv("TMPDIR"),
    os:putenv("TMPDIR", "/nowhere/at/all"),
    set(data_dir, ephemeral),
    try
        ?assertMatch({error, {data_dir, "/nowhere/at/all/foundation_native-" ++ _, enoent}}, foundation_native:data_dir())
    after
        case Before of
            false -> os:unsetenv("TMPDIR");
            _ -> os:putenv("TMPDIR", Before)
        end
    end.

default_is_per_user_release_and_node() ->
    fdn_test:with_tmp_dir(fun(Tmp) ->
        application:unset_env(?APP, data_dir),
        os:putenv("XDG_DATA_HOME", Tmp),
        os:putenv("RELEASE_NAME", "shop"),
        Expected = filename:join([Tmp, "foundation_native", "shop", atom_to_list(node())]),
        ?assertEqual({ok, Expected}, foundation_native:data_dir()),
        ?assertEqual(8#700, mode(Expected)),
        %% Without a release's name in the environment, the name of the boot script: one folder, whatever stands in that name.
        os:unsetenv("RELEASE_NAME"),
        {ok, Other} = foundation_native:data_dir(),
        ?assertEqual(filename:join(Tmp, "foundation_native"), filename:dirname(filename:dirname(Other)))
    end).

default_is_per_application_where_there_is_no_release() ->
    Shop = {application, fdn_shop, [{vsn, "1"}, {modules, []}, {registered, []}, {applications, [kernel, foundation_native]}]},
    fdn_test:with_tmp_dir(fun(Tmp) ->
        application:unset_env(?APP, data_dir),
        os:putenv("XDG_DATA_HOME", Tmp),
        os:unsetenv("RELEASE_NAME"),
        ok = application:load(Shop),
        try
            Expected = filename:join([Tmp, "foundation_native", "fdn_shop", atom_to_list(node())]),
            ?assertEqual({ok, Expected}, foundation_native:data_dir())
        after
            application:unload(fdn_shop)
        end
    end).

flags_file_defaults_into_the_folder() ->
    fdn_test:with_tmp_dir(fun(Tmp) ->
        set(data_dir, Tmp),
        application:unset_env(?APP, flags_file),
        ?assertEqual({ok, filename:join(Tmp, "flags")}, foundation_native:flags_file()),
        set(flags_file, "/somewhere/else"),
        ?assertEqual({ok, "/somewhere/else"}, foundation_native:flags_file()),
        set(flags_file, <<"relative">>),
        {ok, Absolute} = foundation_native:flags_file(),
        ?assertEqual(absolute, filename:pathtype(Absolute))
    end).

flags_file_that_is_no_path_is_named() ->
    [
        begin
            set(flags_file, Bad),
            ?assertEqual({error, {flags_file, Bad, not_a_path}}, foundation_native:flags_file())
        end
     || Bad <- ["", <<>>, 17, flags]
    ].

errors_of_the_folder_reach_the_flags_file() ->
    application:unset_env(?APP, flags_file),
    set(data_dir, 17),
    ?assertEqual({error, {data_dir, 17, not_a_path}}, foundation_native:flags_file()).
