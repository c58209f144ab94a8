%% Limiters with a file, in one VM: what the file keeps, who gets it, what is said when it is gone. What takes a VM that dies is in
%% foundation_limiter_SUITE.
-module(foundation_limiter_persist_tests).

-export([log/2]).

-include_lib("eunit/include/eunit.hrl").

-import(fdn_limiter, [name/0, stop/1]).

-define(L, foundation_limiter).
-define(YEAR, 366 * 86400000).

%% The fun gets a path in a folder that is there for its time.
with_path(Fun) ->
    fdn_test:with_tmp_dir(fun(Dir) -> Fun(filename:join(Dir, "limits")) end).

options(Path) ->
    #{limit => 10, period => ?YEAR, capacity => 100, clock => manual, on_full => deny, persist => Path}.

start(Options) ->
    Name = name(),
    {ok, Pid} = ?L:start_link(Name, Options),
    {Name, Pid}.

refused(Options) ->
    ?L:start_link(name(), Options).

%% A clock that is written down is not written on a normal scheduler; nor is there anything else of the file that a call waits for.
schedulers_test() ->
    with_path(fun(Path) ->
        {Name, Pid} = start(options(Path)),
        [
            ?assertMatch({Call, {Dirty, _}}, {Call, fdn_limiter:on_dirty_scheduler(Fun)})
         || {Dirty, Call, Fun} <- [
                {false, hit, fun() -> ?L:hit(Name, k) end},
                {false, reserve, fun() -> ?L:reserve(Name, k, 1, 0) end},
                {false, inc, fun() -> ?L:inc(Name, k, 1) end},
                {false, reset, fun() -> ?L:reset(Name, k) end},
                {true, advance, fun() -> ?L:advance(Name, 1) end},
                {true, info, fun() -> ?L:info(Name) end}
            ]
        ],
        stop(Pid)
    end).

%% ---- life -------------------------------------------------------------------------------------------------------------------------

budgets_outlive_the_owner_test_() ->
    [
        {atom_to_list(Algorithm), fun() ->
            with_path(fun(Path) ->
                Options = (options(Path))#{algorithm => Algorithm},
                {One, Pid} = start(Options),
                {allow, 7} = ?L:hit(One, {user, 1}, 3),
                ok = ?L:advance(One, 12345),
                ?assertMatch(#{persist := P, disk_bytes := 7552, faulted := false} when is_binary(P), ?L:info(One)),
                stop(Pid),
                ?assertEqual(undefined, ?L:whereis(One)),
                {Two, Pid2} = start(Options),
                ?assertMatch(#{now := 12345, live := 1, clock_in_use := manual}, ?L:info(Two)),
                ?assertMatch({allow, 7}, ?L:peek(Two, {user, 1})),
                ?assertMatch({allow, 10}, ?L:peek(Two, {user, 2})),
                %% Deleted, it is gone.
                unlink(Pid2),
                ok = ?L:delete(Two),
                ?assertEqual(false, filelib:is_file(Path)),
                {Three, Pid3} = start(Options),
                ?assertMatch({allow, 10}, ?L:peek(Three, {user, 1})),
                stop(Pid3)
            end)
        end}
     || Algorithm <- fdn_golden:algorithms()
    ].

%% A deploy changes limits; the budgets of the same period are the same ones.
limits_may_change_test() ->
    with_path(fun(Path) ->
        {One, Pid} = start(options(Path)),
        {allow, 0} = ?L:hit(One, k, 10),
        stop(Pid),
        {Two, Pid2} = start((options(Path))#{burst => 30, on_full => evict}),
        ?assertEqual({allow, 20}, ?L:peek(Two, k)),
        stop(Pid2),
        {Three, Pid3} = start(#{capacity => 100, persist => Path}),
        ?assertMatch({deny, _}, ?L:peek(Three, k, ?YEAR, 10)),
        stop(Pid3),
        ?assertEqual({error, {file, {differs, capacity}}}, refused((options(Path))#{capacity => 99})),
        ?assertEqual({error, {file, {differs, algorithm}}}, refused((options(Path))#{algorithm => fixed_window}))
    end).

a_crashed_owner_leaves_table_and_file_test() ->
    process_flag(trap_exit, true),
    with_path(fun(Path) ->
        {Name, Pid} = start(options(Path)),
        {allow, 6} = ?L:hit(Name, k, 4),
        exit(Pid, kill),
        receive {'EXIT', Pid, killed} -> ok end,
        {allow, 5} = ?L:hit(Name, k),
        Other = Path ++ "2",
        [
            ?assertEqual({error, {badarg, {persist, differs_from_living_table}}}, ?L:start_link(Name, options(Wrong)))
         || Wrong <- [Other, undefined]
        ],
        ?assertEqual(false, filelib:is_file(Other)),
        ?assertEqual({error, {locked, list_to_integer(os:getpid())}}, refused(options(Path))),
        {ok, Pid2} = ?L:start_link(Name, options(Path)),
        ?assertEqual({allow, 5}, ?L:peek(Name, k)),
        stop(Pid2)
    end),
    process_flag(trap_exit, false).

one_of_many_starters_wins_test() ->
    with_path(fun(Path) ->
        Name = name(),
        Parent = self(),
        Starters = [
            spawn_link(fun() ->
                receive go -> ok end,
                Parent ! {self(), ?L:start_link(Name, options(Path))},
                receive stop -> ok end
            end)
         || _ <- lists:seq(1, 20)
        ],
        [P ! go || P <- Starters],
        Results = [receive {P, Result} -> Result end || P <- Starters],
        [Owner] = [Pid || {ok, Pid} <- Results],
        ?assertEqual(19, length([x || {error, {already_started, Pid}} <- Results, Pid =:= Owner])),
        ok = ?L:delete(Name),
        [P ! stop || P <- Starters]
    end).

hot_upgrade_test() ->
    with_path(fun(Path) ->
        {Name, Pid} = start(options(Path)),
        {allow, 9} = ?L:hit(Name, k),
        {?L, Beam, File} = code:get_object_code(?L),
        {module, ?L} = code:load_binary(?L, File, Beam),
        fdn_test:await(fun() -> code:soft_purge(?L) end),
        {allow, 8} = ?L:hit(Name, k),
        stop(Pid),
        {Two, Pid2} = start(options(Path)),
        ?assertEqual({allow, 8}, ?L:peek(Two, k)),
        stop(Pid2)
    end).

%% ---- paths and files --------------------------------------------------------------------------------------------------------------

paths_of_every_kind_test() ->
    fdn_test:with_tmp_dir(fun(Dir) ->
        {ok, Cwd} = file:get_cwd(),
        Long = lists:duplicate(200, $x),
        Odd = <<(list_to_binary(Dir))/binary, "/raw", 255, 254>>,
        [
            begin
                {Name, Pid} = start(options(Path)),
                {allow, 9} = ?L:hit(Name, k),
                stop(Pid),
                {Again, Pid2} = start(options(Path)),
                {allow, 8} = ?L:hit(Again, k),
                stop(Pid2)
            end
         || Path <- [
                filename:join(Dir, "plain"),
                list_to_binary(filename:join(Dir, "binary")),
                [Dir, $/, "deep", ["er"]],
                filename:join(Dir, [16#e9, 16#65e5]),
                filename:join([Dir, "made", "limits"]),
                filename:join(Dir, Long),
                Odd
            ]
        ],
        try
            ok = file:set_cwd(Dir),
            {Name, Pid} = start(options("relative")),
            ?assertEqual(list_to_binary(filename:join(element(2, file:get_cwd()), "relative")), maps:get(persist, ?L:info(Name))),
            stop(Pid)
        after
            file:set_cwd(Cwd)
        end
    end).

refusals_have_words_test() ->
    fdn_test:with_tmp_dir(fun(Dir) ->
        At = fun(Name) -> filename:join(Dir, Name) end,
        ok = file:write_file(At("text"), <<"something else entirely">>),
        ok = file:make_symlink(At("text"), At("link")),
        ok = file:make_dir(At("folder")),
        {_, Pid} = start(options(At("sound"))),
        stop(Pid),
        {ok, Sound} = file:read_file(At("sound")),
        <<Head:100/binary, Byte, Tail/binary>> = Sound,
        ok = file:write_file(At("damaged"), <<Head/binary, (Byte bxor 1), Tail/binary>>),
        ok = file:write_file(At("short"), binary:part(Sound, 0, 5000)),
        <<Magic:8/binary, Version:16/little, Layout:2/binary, Rest/binary>> = Sound,
        ok = file:write_file(At("newer"), <<Magic/binary, (Version + 1):16/little, Layout/binary, Rest/binary>>),
        ok = file:write_file(At("shared"), Sound),
        ok = file:change_mode(At("shared"), 8#666),
        [
            begin
                Before = file:read_file(At(File)),
                ?assertEqual({File, {error, {file, Reason}}}, {File, refused(options(At(File)))}),
                ?assertEqual(Before, file:read_file(At(File)))
            end
         || {File, Reason} <- [
                {"text", foreign_file},
                {"link", eloop},
                {"folder", eisdir},
                {"damaged", corrupt},
                {"short", corrupt},
                {"newer", unsupported_version},
                {"shared", unsafe_mode},
                {"text/below", enotdir},
                {"no/such/folder", enoent},
                {lists:duplicate(300, $x), enametoolong}
            ]
        ],
        ?assertEqual({error, {badarg, {capacity, out_of_range}}}, refused((options(At("none")))#{capacity => 0})),
        ?assertEqual(false, filelib:is_file(At("none")))
    end).

%% ---- a file that is lost while it is in use ---------------------------------------------------------------------------------------

a_cut_file_follows_on_full_and_is_told_once_test_() ->
    [
        {atom_to_list(Policy), fun() ->
            with_path(fun(Path) ->
                {Name, Pid} = start((options(Path))#{on_full => Policy, capacity => 1000}),
                [{allow, 0} = ?L:hit(Name, K, 10) || K <- lists:seq(1, 500)],
                cut(Path, 4096),
                Said = logged(fun() ->
                    Answers = [?L:hit(Name, K, 10) || _ <- [1, 2], K <- lists:seq(1, 500)],
                    ?assertEqual(allowed_of(Policy), length([x || {allow, 0} <- Answers])),
                    [looked_after(Pid) || _ <- [1, 2, 3]],
                    ?assertMatch(#{faulted := true}, ?L:info(Name)),
                    ?assertMatch({allow, 10}, ?L:peek(Name, new)),
                    stop(Pid)
                end),
                ?assertMatch([_], [x || Text <- Said, string:find(Text, "was truncated or overwritten") =/= nomatch]),
                {ok, #{size := 4096}} = {ok, #{size => filelib:file_size(Path)}},
                ?assertEqual({error, {file, corrupt}}, refused((options(Path))#{capacity => 1000}))
            end)
        end}
     || Policy <- [deny, allow, evict]
    ].

%% Of 500 keys that have nothing left, asked twice, when all of them are forgotten.
allowed_of(deny) -> 0;
allowed_of(allow) -> 1000;
allowed_of(evict) -> 500.

a_removed_file_is_told_once_test() ->
    with_path(fun(Path) ->
        {Name, Pid} = start(options(Path)),
        ok = file:delete(Path),
        Said = logged(fun() ->
            [looked_after(Pid) || _ <- [1, 2, 3]],
            {allow, 9} = ?L:hit(Name, k),
            ?assertMatch(#{faulted := false}, ?L:info(Name))
        end),
        ?assertMatch([_], [x || Text <- Said, string:find(Text, "was removed or replaced") =/= nomatch]),
        stop(Pid)
    end).

%% Slots that a killed process was changing are dropped, which is said too.
dropped_slots_are_told_test() ->
    with_path(fun(Path) ->
        {_, Pid} = start(options(Path)),
        stop(Pid),
        {ok, File} = file:open(Path, [read, write, raw, binary]),
        ok = file:pwrite(File, 4096, <<7:64/little, 0:192, -1:64, 0:192>>),
        ok = file:close(File),
        Said = logged(fun() ->
            {_, Pid2} = start(options(Path)),
            looked_after(Pid2),
            stop(Pid2)
        end),
        ?assertMatch([_], [x || Text <- Said, string:find(Text, "1 slots of") =/= nomatch]),
        ?assertEqual([], fdn_golden:prints(Path))
    end).

cut(Path, Size) ->
    {ok, File} = file:open(Path, [read, write, raw]),
    {ok, Size} = file:position(File, Size),
    ok = file:truncate(File),
    ok = file:close(File).

%% The owner has looked at the file.
looked_after(Pid) ->
    Pid ! look_after,
    {error, unknown_request} = gen_server:call(Pid, are_you_there).

%% What was logged while the fun ran, as text.
logged(Fun) ->
    ok = logger:add_handler(?MODULE, ?MODULE, #{config => self(), level => warning}),
    Screen = logger:get_handler_config(default),
    _ = logger:set_handler_config(default, level, none),
    try
        Fun()
    after
        case Screen of
            {ok, #{level := Level}} -> logger:set_handler_config(default, level, Level);
            {error, _} -> ok
        end,
        ok = logger:remove_handler(?MODULE)
    end,
    collect().

%% As a handler of logger; runs in the process that says it.
log(Event, #{config := Pid}) ->
    Pid ! {logged, lists:flatten(logger_formatter:format(Event, #{single_line => true}))}.

collect() ->
    receive
        {logged, Text} -> [Text | collect()]
    after 0 -> []
    end.

%% ---- keys -------------------------------------------------------------------------------------------------------------------------

%% Budgets written by the first version, under a secret that stands in the file: the hash of every kind of key is what it was then, on
%% every release of Erlang/OTP.
golden_files_test_() ->
    [{atom_to_list(Algorithm), fun() -> golden(Algorithm) end} || Algorithm <- fdn_golden:algorithms()].

golden(Algorithm) ->
    with_path(fun(Path) ->
        Golden = fdn_golden:file(Algorithm),
        {ok, _} = file:copy(Golden, Path),
        {Name, Pid} = start((fdn_golden:options(Algorithm))#{persist => Path}),
        Keys = lists:zip(lists:seq(1, length(fdn_golden:keys())), fdn_golden:keys()),
        [?assertEqual({Key, {allow, 1000 - fdn_golden:cost(Place)}}, {Key, ?L:peek(Name, Key)}) || {Place, Key} <- Keys],
        ?assertMatch(#{now := 5000000, live := 48}, ?L:info(Name)),
        ?assertEqual(?L:peek(Name, 0.0), ?L:peek(Name, binary_to_term(<<131, 70, 16#80, 0:56>>))),
        Others = [self(), make_ref(), fun golden/1, fun erlang:self/0, b, 2, "texts"],
        [?assertEqual({allow, 1000}, ?L:peek(Name, Key)) || Key <- Others],
        stop(Pid),
        %% The same hashes from the words of doc/FORMAT.md alone.
        Secret = fdn_golden:secret(Golden),
        Prints = [Print || {_, Print} <- fdn_golden:prints(Golden)],
        Hashes = [fdn_golden:hash_of(Key, Secret) || {_, Key} <- Keys],
        ?assertEqual(lists:sort(Prints), lists:sort([fdn_golden:print_of(Hash, 86400000) || Hash <- Hashes]))
    end).

%% Test vectors: the keys of fdn_golden:keys() under the secret of limiter-gcra-1.fdn.
vectors_test() ->
    Secret = fdn_golden:secret(fdn_golden:file(gcra)),
    ?assertEqual({<<16#fd654b5e05fde8b1f1a321e0f221de2a:128>>, <<16#9ff94c09327258f463157ab87e016ae3:128>>}, Secret),
    ?assertEqual(vectors(), [fdn_golden:hash_of(Key, Secret) || Key <- fdn_golden:keys()]).

%% What means something to one VM only: the same while the VM lives, also when the limiter is started again.
keys_of_this_vm_test() ->
    with_path(fun(Path) ->
        Keys = [self(), make_ref(), hd(erlang:ports()), fun erlang:self/0, fun() -> 1 end, {self(), a}, #{self() => 1}],
        {One, Pid} = start(options(Path)),
        [?assertEqual({allow, 9}, ?L:hit(One, Key)) || Key <- Keys],
        stop(Pid),
        {Two, Pid2} = start(options(Path)),
        [?assertEqual({allow, 8}, ?L:hit(Two, Key)) || Key <- Keys],
        stop(Pid2)
    end).

large_keys_test() ->
    with_path(fun(Path) ->
        Atoms = [list_to_atom("large_keys_" ++ integer_to_list(I)) || I <- lists:seq(1, 1000)],
        Deep = lists:foldl(fun(_, Inner) -> [{Inner}] end, atom, lists:seq(1, 100000)),
        Keys = [binary:copy(<<"k">>, 1 bsl 20), Atoms, maps:from_list([{A, A} || A <- Atoms]), list_to_tuple(Atoms), Deep],
        {Name, Pid} = start(options(Path)),
        [?assertEqual({allow, 9}, ?L:hit(Name, Key)) || Key <- Keys],
        [?assertEqual({allow, 8}, ?L:hit(Name, binary_to_term(term_to_binary(Key)))) || Key <- Keys],
        stop(Pid)
    end).

vectors() ->
    [
        16#35e587f615c271a0, 16#58056fd7fbd68133, 16#7d71080686b90b9d, 16#f5eadfdd5e9b6a67, 16#e484b98b7bd700ae,
        16#ecc9ad992e0380e0, 16#34b02dbe8e38dcb2, 16#68cbe909a641c1f4, 16#202005b22cffc975, 16#2d559aab526df3a6,
        16#87765d28c2b9a34e, 16#54b505bf9fda031e, 16#fda30d4310e201d2, 16#44384c04f7bc649d, 16#2aacad068d6b5fe9,
        16#ea508a9a2ebb12a3, 16#52b21486bc0ec83e, 16#0d73d4d24f29dea8, 16#8d4040f7d5073308, 16#dd1c44ff71dd59e8,
        16#1793dba83c48a495, 16#560f9f2e69443252, 16#5e1649f6d2a6fadd, 16#09ccda5dca37e959, 16#1fd8f6de1ddb9e3c,
        16#c7808782fb71e30e, 16#93ef3dbc84248ffc, 16#e257974cc5f31a63, 16#7198b51e27862429, 16#1035e7184480e8b5,
        16#b26e6fbd1535317d, 16#7e92728809b668eb, 16#3b4eb55d5ba5a4fc, 16#52b5e79f5916789f, 16#f467bc5ab9a61581,
        16#ab2f56ebae0a4569, 16#04a93e4d3dd89ba3, 16#9da59ab6f2228f7c, 16#a125496b34cc61f9, 16#1464bb775f651bb2,
        16#407e346854e3c94b, 16#1b4c9f60b15c624a, 16#4cc16ea3fc393592, 16#3fec0bc9dd374aa4, 16#db96a66c6cd38134,
        16#1cc36bb45453b35d, 16#21fcb7e572f51dfb, 16#30eea0b933a69a65
    ].
