%% The snapshot store in the VM: the contract of each call, misuse, owners, damage, upgrade.
-module(foundation_snapshot_tests).

-include_lib("eunit/include/eunit.hrl").

-compile([export_all, nowarn_export_all]).

-define(S, foundation_snapshot).
-define(BADARG(What, Reason, Call), ?assertError({badarg, {What, Reason}}, Call)).

snapshot_test_() ->
    {setup, fun() -> {ok, _} = application:ensure_all_started(foundation_native) end, fun(_) -> ok end, [
        {timeout, 120, {atom_to_list(Name), fun() -> fdn_test:with_tmp_dir(fun ?MODULE:Name/1) end}}
     || {Name, 1} <- ?MODULE:module_info(exports), lists:prefix("t_", atom_to_list(Name))
    ]}.

open(Dir) ->
    open(Dir, #{}).

open(Dir, Options) ->
    ?S:open(test_store, Options#{path => Dir}).

with_store(Dir, Fun) ->
    with_store(Dir, #{}, Fun).

with_store(Dir, Options, Fun) ->
    {ok, Store} = open(Dir, Options),
    try
        Fun(Store)
    after
        catch ?S:close(Store)
    end.

%% ---- states ----

t_save_load_update(Dir) ->
    with_store(Dir, fun(S) ->
        ?assertEqual({error, not_found}, ?S:load(S, k)),
        {ok, A} = ?S:save(S, k, #{n => 1}),
        ?assertEqual(#{n => 1}, ?S:value(A)),
        {ok, B} = ?S:load(test_store, k),
        ?assertEqual(A, B),
        {ok, C} = ?S:update(S, k, B, #{n => 2}),
        ?assert(?S:version(C) > ?S:version(B)),
        ?assertEqual({error, {conflict, ?S:version(C)}}, ?S:update(S, k, B, #{n => 3})),
        ?assertEqual({error, {conflict, ?S:version(C)}}, ?S:update(S, k, B, x, #{stale => error})),
        {ok, D} = ?S:update(S, k, B, #{n => 4}, #{stale => overwrite}),
        ?assertEqual({ok, D}, ?S:load(S, k)),
        ?assertEqual(true, ?S:delete(S, k)),
        ?assertEqual({error, {conflict, absent}}, ?S:update(S, k, D, x)),
        ?assertEqual({error, not_found}, ?S:load(S, k)),
        %% The right version of another key is a conflict.
        {ok, E} = ?S:save(S, other, 1),
        {ok, F} = ?S:save(S, k, 1),
        ?assertEqual({error, {conflict, ?S:version(F)}}, ?S:update(S, k, E, 2))
    end).

t_reopening_keeps_versions_and_refuses_old_saved(Dir) ->
    A = with_store(Dir, fun(S) ->
        {ok, Saved} = ?S:save(S, k, v),
        Saved
    end),
    with_store(Dir, fun(S) ->
        {ok, B} = ?S:load(S, k),
        ?assertEqual(?S:version(A), ?S:version(B)),
        ?assertEqual({error, {conflict, ?S:version(A)}}, ?S:update(S, k, A, w)),
        {ok, C} = ?S:update(S, k, B, w),
        ?assert(?S:version(C) > ?S:version(B))
    end).

t_commit(Dir) ->
    with_store(Dir, fun(S) ->
        {ok, []} = ?S:commit(S, []),
        {ok, [A, B]} = ?S:commit(S, [{put, a, 1}, {expect, b, absent}, {put, b, 2}, {delete, c}]),
        ?assertEqual([1, 2], [?S:value(X) || X <- [A, B]]),
        #{version := Before} = ?S:info(S),
        ?assertEqual({error, {conflict, b}}, ?S:commit(S, [{put, a, 9}, {expect, b, absent}])),
        ?assertEqual({error, {conflict, a}}, ?S:commit(S, [{update, a, B, 9}, {put, b, 9}])),
        ?assertMatch(#{version := Before}, ?S:info(S)),
        {ok, []} = ?S:commit(S, [{expect, a, ?S:version(A)}]),
        {ok, [C]} = ?S:commit(S, [{update, a, A, 10}, {delete, b}, {expect, b, ?S:version(B)}]),
        ?assertEqual([{a, 10}], ?S:tab2list(S)),
        %% Writes take effect in order.
        {ok, [_, D]} = ?S:commit(S, [{put, a, 11}, {delete, a}, {put, a, 12}]),
        ?assertEqual({ok, D}, ?S:load(S, a)),
        ?assert(?S:version(D) > ?S:version(C)),
        %% Hundreds of operations go another way (dirty scheduler), to the same end.
        {ok, Saved} = ?S:commit(S, [{put, {n, N}, N} || N <- lists:seq(1, 5000)]),
        ?assertEqual(lists:seq(1, 5000), [?S:value(X) || X <- Saved]),
        ?assertEqual(5001, length(?S:tab2list(S)))
    end),
    with_store(Dir, fun(S) -> ?assertEqual(5001, length(?S:tab2list(S))) end).

%% ---- as ets ----

t_insert_lookup(Dir) ->
    Objects = [{a, 1}, {b}, {c, 1, 2}, {{d, <<"x">>}, #{}}, {1, int}, {1.0, float}, {[], nil}],
    with_store(Dir, fun(S) ->
        true = ?S:insert(S, hd(Objects)),
        true = ?S:insert(S, tl(Objects)),
        true = ?S:insert(S, []),
        [?assertEqual([O], ?S:lookup(S, element(1, O))) || O <- Objects],
        ?assertEqual(lists:sort(Objects), lists:sort(?S:tab2list(S))),
        ?assert(?S:member(S, {d, <<"x">>})),
        ?assertNot(?S:member(S, z)),
        ?assertEqual([], ?S:lookup(S, z)),
        ?assertEqual({error, not_found}, ?S:load(S, c)),
        ?assertMatch({ok, _}, ?S:load(S, 1.0)),
        true = ?S:delete(S, b),
        true = ?S:delete(S, b),
        ?assertEqual(6, ?S:foldl(fun(_, N) -> N + 1 end, 0, S)),
        %% The fun may write.
        ok = ?S:foldl(fun(O, ok) -> true = ?S:delete(S, element(1, O)), ok end, ok, S),
        ?assertEqual([], ?S:tab2list(S))
    end).

%% Keys are one key where they are `=:=', whatever their encoding: maps of either size, after a restart too.
t_keys_of_every_kind(Dir) ->
    Big = maps:from_list([{N, N} || N <- lists:seq(1, 100)]),
    BigAgain = lists:foldl(fun(N, M) -> M#{N => N} end, #{}, lists:reverse(lists:seq(1, 100))),
    F = fun(X) -> X + map_size(Big) end,
    Keys = [
        #{b => 1, a => 2, 1 => #{}}, Big, {nested, [Big]}, F, fun lists:map/2, self(), make_ref(), <<1:3>>, 1 bsl 200, -1, "text",
        [1 | 2], 'àtom', <<>>, {}, lists:seq(1, 300), 1.5, hd(erlang:ports())
    ],
    with_store(Dir, fun(S) -> [{ok, _} = ?S:save(S, K, {value, K}) || K <- Keys] end),
    with_store(Dir, fun(S) ->
        [?assertEqual({K, [{K, {value, K}}]}, {K, ?S:lookup(S, K)}) || K <- Keys],
        ?assertEqual(1, length(?S:lookup(S, BigAgain))),
        ?assertEqual(length(Keys), length(?S:tab2list(S))),
        T = ets:new(t, [set]),
        ets:insert(T, {0.0, plus}),
        {ok, _} = ?S:save(S, 0.0, plus),
        Minus = binary_to_term(<<131, 70, 1:1, 0:63>>),
        ?assertEqual(length(ets:lookup(T, Minus)), length(?S:lookup(S, Minus)))
    end).

t_values_of_every_kind(Dir) ->
    Values = [
        self(), make_ref(), fun(X) -> X end, fun lists:map/2, <<1:3>>, 1 bsl 5000, -(1 bsl 64), 1.0e300, [a | b], "string", 'ünï',
        maps:from_list([{N, [N]} || N <- lists:seq(1, 1000)]), queue:from_list(lists:seq(1, 50)), binary:copy(<<"x">>, 200000),
        lists:foldl(fun(_, Acc) -> [Acc] end, [], lists:seq(1, 10000)), {}, [], #{}, <<>>, erlang:make_tuple(5000, x)
    ],
    Indexed = lists:zip(lists:seq(1, length(Values)), Values),
    with_store(Dir, fun(S) -> [{ok, _} = ?S:save(S, N, V) || {N, V} <- Indexed] end),
    with_store(Dir, fun(S) ->
        [
            begin
                {ok, Saved} = ?S:load(S, N),
                ?assert(?S:value(Saved) =:= V)
            end
         || {N, V} <- Indexed
        ]
    end).

t_large_values(Dir) ->
    Large = binary:copy(<<"0123456789">>, 10000000),
    with_store(Dir, fun(S) ->
        {ok, A} = ?S:save(S, large, {Large, Large}),
        {ok, A} = ?S:load(S, large),
        ?assertEqual({error, too_big}, ?S:save(S, large, lists:duplicate(6, Large))),
        ?assertEqual({ok, A}, ?S:load(S, large))
    end).

%% ---- misuse ----

t_misuse_names_the_argument(Dir) ->
    {ok, S} = open(Dir),
    {ok, Saved} = ?S:save(S, k, v),
    Calls = fun(Store) ->
        [
            fun() -> ?S:save(Store, k, v) end, fun() -> ?S:load(Store, k) end, fun() -> ?S:lookup(Store, k) end,
            fun() -> ?S:insert(Store, {k, v}) end, fun() -> ?S:delete(Store, k) end, fun() -> ?S:member(Store, k) end,
            fun() -> ?S:update(Store, k, Saved, w) end, fun() -> ?S:commit(Store, []) end, fun() -> ?S:sync(Store) end,
            fun() -> ?S:info(Store) end, fun() -> ?S:close(Store) end, fun() -> ?S:tab2list(Store) end
        ]
    end,
    [?BADARG(store, not_open, Call()) || Call <- Calls(no_such_store)],
    [?BADARG(store, not_a_store, Call()) || Bad <- [1, "x", make_ref(), self()], Call <- Calls(Bad)],
    ?BADARG(saved, not_saved, ?S:update(S, k, {v, 1}, w)),
    ?BADARG(saved, not_saved, ?S:update(S, k, nonsense, w, #{})),
    ?BADARG(options, unknown_option, ?S:update(S, k, Saved, w, #{stale => maybe_so})),
    ?BADARG(saved, not_saved, ?S:value(x)),
    ?BADARG(saved, not_saved, ?S:version({a, b})),
    ?BADARG(object, not_a_tuple, ?S:insert(S, [{a, 1}, b])),
    ?BADARG(object, not_a_tuple, ?S:insert(S, {})),
    ?BADARG(object, not_a_tuple_or_list, ?S:insert(S, a)),
    ?BADARG(object, not_a_tuple_or_list, ?S:insert(S, [{a, 1} | b])),
    ?BADARG(operations, not_a_list, ?S:commit(S, {put, a, 1})),
    ?BADARG(operations, unknown_operation, ?S:commit(S, [{put, a, 1}, {frobnicate, a}])),
    ?BADARG(operations, unknown_operation, ?S:commit(S, [{expect, a, -1}])),
    ?BADARG(operations, unknown_operation, ?S:commit(S, [{update, a, saved, 1}])),
    ?BADARG(function, not_a_fun_of_two, ?S:foldl(x, [], S)),
    ?assertEqual([{k, v}], ?S:tab2list(S)),
    ok = ?S:close(S),
    [?BADARG(store, closed, Call()) || Call <- Calls(S)],
    [?BADARG(store, not_open, Call()) || Call <- Calls(test_store)].

t_options_are_checked(Dir) ->
    Bad = fun(Option, Reason, Options) ->
        ?assertEqual({error, {badarg, {Option, Reason}}}, open(Dir, Options)),
        ?assertEqual({error, {badarg, {Option, Reason}}}, ?S:start_link(test_store, maps:merge(#{path => Dir}, Options)))
    end,
    Bad(durability, unknown_value, #{durability => fast}),
    Bad(durability, out_of_range, #{durability => {interval, 0}}),
    Bad(segment_bytes, out_of_range, #{segment_bytes => 10}),
    Bad(segment_bytes, not_an_integer, #{segment_bytes => big}),
    Bad(max_bytes, out_of_range, #{max_bytes => 1}),
    [Bad(O, not_supported, #{O => x}) || O <- [encryption_key, mirror, schema, migrate, ttl]],
    Bad(colour, unknown_option, #{colour => blue}),
    ?assertEqual({error, {badarg, {path, not_a_path}}}, ?S:open(test_store, #{path => 7})),
    ?assertEqual({error, {badarg, {path, not_a_path}}}, ?S:open(test_store, #{path => ""})),
    ?assertEqual({error, {badarg, {path, not_a_path}}}, ?S:open(test_store, #{path => [$a, 0, $b]})),
    ?assertEqual({error, {badarg, {name, not_an_atom}}}, ?S:open("store", #{path => Dir})),
    ?assertEqual({error, {badarg, {options, not_a_map}}}, ?S:open(test_store, [{path, Dir}])).

t_directories_are_named(Dir) ->
    Missing = filename:join([Dir, "no", "such"]),
    ?assertEqual({error, {path, Missing, enoent}}, ?S:open(test_store, #{path => Missing})),
    File = filename:join(Dir, "file"),
    ok = file:write_file(File, "x"),
    ?assertEqual({error, {path, File, enotdir}}, ?S:open(test_store, #{path => File})),
    Below = filename:join(File, "below"),
    ?assertEqual({error, {path, Below, enotdir}}, ?S:open(test_store, #{path => Below})),
    Fresh = filename:join(Dir, "fré sh"),
    with_store(Fresh, fun(S) -> ?assertMatch(#{path := _}, ?S:info(S)) end),
    {ok, Info} = file:read_file_info(Fresh),
    ?assertEqual(8#700, element(8, Info) band 8#777).

t_one_opener(Dir) ->
    with_store(Dir, fun(S) ->
        ?assertEqual({ok, S}, open(Dir)),
        Os = list_to_integer(os:getpid()),
        ?assertEqual({error, {locked, Os}}, ?S:open(other_name, #{path => Dir})),
        Other = fdn_test:tmp_dir(),
        ?assertEqual({error, {already_open, Dir}}, ?S:open(test_store, #{path => Other})),
        fdn_test:del_dir(Other)
    end).

t_another_vm_is_refused(Dir) ->
    {Peer, _} = fdn_test:peer(),
    {ok, _} = peer:call(Peer, application, ensure_all_started, [foundation_native]),
    {ok, _} = peer:call(Peer, ?S, open, [test_store, #{path => Dir}]),
    Os = list_to_integer(peer:call(Peer, os, getpid, [])),
    ?assertEqual({error, {locked, Os}}, open(Dir)),
    ok = peer:call(Peer, ?S, close, [test_store]),
    with_store(Dir, fun(_) -> ok end),
    fdn_test:stop_peer(Peer).

t_damage_is_named_and_left_alone(Dir) ->
    with_store(Dir, fun(S) -> [{ok, _} = ?S:save(S, N, N) || N <- lists:seq(1, 10)] end),
    [File | _] = filelib:wildcard(filename:join(Dir, "seg-*")),
    {ok, Good} = file:read_file(File),
    <<Head:4200/binary, Byte, Rest/binary>> = Good,
    ok = file:write_file(File, [Head, Byte bxor 1, Rest]),
    {ok, Damaged} = file:read_file(File),
    ?assertMatch({error, {corrupt, {File, Offset}}} when Offset =< 4200, open(Dir)),
    ?assertEqual({ok, Damaged}, file:read_file(File)),
    ok = file:write_file(File, "PK something else"),
    ?assertEqual({error, {foreign_file, File}}, open(Dir)),
    ok = file:write_file(File, Good),
    with_store(Dir, fun(S) -> ?assertEqual(10, length(?S:tab2list(S))) end).

t_truncated_under_us(Dir) ->
    with_store(Dir, fun(S) ->
        {ok, _} = ?S:save(S, k, binary:copy(<<"x">>, 20000)),
        [File] = filelib:wildcard(filename:join(Dir, "seg-*")),
        {ok, Io} = file:open(File, [read, write]),
        {ok, 4096} = file:position(Io, 4096),
        ok = file:truncate(Io),
        ok = file:close(Io),
        ?assertEqual({error, faulted}, ?S:load(S, k)),
        ?assertEqual({error, {read_only, faulted}}, ?S:save(S, k, v)),
        ?assertEqual({error, {read_only, faulted}}, ?S:sync(S)),
        ?assertMatch(#{read_only := faulted}, ?S:info(S)),
        ?assertEqual({error, faulted}, ?S:close(S))
    end).

t_max_bytes(Dir) ->
    Value = binary:copy(<<"x">>, 10000),
    with_store(Dir, #{max_bytes => 1 bsl 20}, fun(S) ->
        Fill = fun Fill(N) ->
            case ?S:save(S, N, Value) of
                {ok, _} -> Fill(N + 1);
                Error -> {N, Error}
            end
        end,
        {N, Error} = Fill(0),
        ?assertEqual({error, full}, Error),
        ?assert(N > 40),
        ?assertEqual(N, length(?S:tab2list(S))),
        #{disk_bytes := Disk} = ?S:info(S),
        ?assert(Disk =< 1 bsl 20),
        [true = ?S:delete(S, K) || K <- lists:seq(0, N div 2)],
        [?assertMatch({ok, _}, ?S:save(S, K, Value)) || K <- lists:seq(0, N div 4)]
    end).

%% ---- durability, background work ----

t_sync_mode_is_durable_when_it_answers(Dir) ->
    with_store(Dir, #{durability => sync}, fun(S) ->
        [
            begin
                {ok, Saved} = ?S:save(S, N, N),
                #{durable_version := Durable} = ?S:info(S),
                ?assert(Durable >= ?S:version(Saved))
            end
         || N <- lists:seq(1, 5)
        ],
        true = ?S:insert(S, {a, 1}),
        true = ?S:delete(S, a),
        {ok, [_]} = ?S:commit(S, [{put, b, 1}, {delete, a}]),
        ?assertMatch(#{version := V, durable_version := V, durability := sync}, ?S:info(S))
    end).

t_sync_on_demand(Dir) ->
    with_store(Dir, fun(S) ->
        {ok, Saved} = ?S:save(S, k, v),
        #{durable_version := Before} = ?S:info(S),
        ?assert(Before < ?S:version(Saved)),
        ok = ?S:sync(S),
        #{durable_version := After} = ?S:info(S),
        ?assert(After >= ?S:version(Saved))
    end).

t_interval_mode_syncs_by_itself(Dir) ->
    with_store(Dir, #{durability => {interval, 10}}, fun(S) ->
        {ok, Saved} = ?S:save(S, k, v),
        fdn_test:await(fun() -> maps:get(durable_version, ?S:info(S)) >= ?S:version(Saved) end),
        ?assertMatch(#{durability := {interval, 10}}, ?S:info(S))
    end).

%% A save loop over few keys must not fill the disk.
t_compaction_keeps_up(Dir) ->
    Value = binary:copy(<<"y">>, 3000),
    with_store(Dir, #{segment_bytes => 65536}, fun(S) ->
        [{ok, _} = ?S:save(S, N rem 10, {N, Value}) || N <- lists:seq(1, 5000)],
        fdn_test:await(fun() ->
            #{used_bytes := Used, compactions := Gone} = ?S:info(S),
            Gone > 100 andalso Used < 1500000
        end),
        [?assertMatch([{K, {N, Value}}] when N > 4990, ?S:lookup(S, K)) || K <- lists:seq(0, 9)]
    end),
    with_store(Dir, fun(S) -> ?assertEqual(10, length(?S:tab2list(S))) end).

%% ---- owners ----

t_a_store_outlives_its_caller_and_its_owner(Dir) ->
    Self = self(),
    spawn(fun() ->
        {ok, S} = open(Dir),
        {ok, _} = ?S:save(S, k, v),
        Self ! {opened, S}
    end),
    S = receive {opened, Store} -> Store end,
    ?assertMatch([{k, v}], ?S:lookup(S, k)),
    {ok, Saved} = ?S:load(S, k),
    #{owner := Owner} = ?S:info(S),
    exit(Owner, kill),
    fdn_test:await(fun() ->
        #{owner := New} = ?S:info(S),
        New =/= Owner andalso is_process_alive(New)
    end),
    %% The very same table: the version is still good.
    ?assertMatch({ok, _}, ?S:update(S, k, Saved, w)),
    ok = ?S:close(S),
    ?assertEqual(undefined, ?S:whereis(test_store)).

%% An open that is in the supervisor's queue before the news of the owner's death takes the store over; the restart that follows finds
%% it owned. Other stores must not notice.
t_open_races_the_restart_of_the_owner(Dir) ->
    {ok, Other} = ?S:open(other_store, #{path => filename:join(Dir, "other")}),
    with_store(Dir, fun(S) ->
        {ok, _} = ?S:save(S, k, v),
        #{owner := Owner} = ?S:info(S),
        Sup = erlang:whereis(foundation_snapshot_sup),
        ok = sys:suspend(Sup),
        {Opener, Monitor} = spawn_monitor(fun() -> {ok, S} = open(Dir) end),
        fdn_test:await(fun() -> process_info(Sup, message_queue_len) =:= {message_queue_len, 1} end),
        exit(Owner, kill),
        fdn_test:await(fun() -> process_info(Sup, message_queue_len) =:= {message_queue_len, 2} end),
        ok = sys:resume(Sup),
        receive {'DOWN', Monitor, process, Opener, Reason} -> ?assertEqual(normal, Reason) end,
        #{owner := New} = ?S:info(S),
        ?assertNotEqual(Owner, New),
        fdn_test:await(fun() -> [New] =:= [P || {_, P, _, _} <- supervisor:which_children(Sup), P =/= owner(Other)] end),
        ?assertEqual(Sup, erlang:whereis(foundation_snapshot_sup)),
        ?assertEqual([{k, v}], ?S:lookup(S, k)),
        ok = ?S:close(Other)
    end).

owner(Store) ->
    maps:get(owner, ?S:info(Store)).

t_supervised_owner(Dir) ->
    Spec = ?S:child_spec({test_store, #{path => Dir}}),
    {ok, Sup} = supervisor:start_link(?MODULE, []),
    {ok, _} = supervisor:start_child(Sup, Spec),
    {ok, Saved} = ?S:save(test_store, k, v),
    #{owner := Owner} = ?S:info(test_store),
    ?assertEqual({error, {already_started, Owner}}, ?S:start_link(test_store, #{path => Dir})),
    exit(Owner, kill),
    fdn_test:await(fun() -> maps:get(owner, ?S:info(test_store)) =/= Owner end),
    ?assertMatch({ok, _}, ?S:update(test_store, k, Saved, w)),
    stop_sup(Sup),
    ?assertEqual(undefined, ?S:whereis(test_store)),
    with_store(Dir, fun(S) -> ?assertEqual([{k, w}], ?S:lookup(S, k)) end).

t_close_stops_the_owner(Dir) ->
    {ok, S} = open(Dir),
    #{owner := Owner} = ?S:info(S),
    ok = ?S:close(S),
    ?assertNot(is_process_alive(Owner)).

init([]) ->
    {ok, {#{strategy => one_for_one, intensity => 10, period => 10}, []}}.

stop_sup(Sup) ->
    unlink(Sup),
    Monitor = monitor(process, Sup),
    exit(Sup, shutdown),
    receive {'DOWN', Monitor, process, _, _} -> ok end.

%% ---- concurrency ----

%% Reads and conditional writes from many processes: no increment is lost.
t_updates_are_atomic(Dir) ->
    with_store(Dir, fun(S) ->
        {ok, _} = ?S:save(S, n, 0),
        Workers = [spawn_monitor(fun() -> [increment(S) || _ <- lists:seq(1, 300)] end) || _ <- lists:seq(1, 8)],
        [receive {'DOWN', Ref, process, _, Why} -> normal = Why end || {_, Ref} <- Workers],
        ?assertEqual([{n, 2400}], ?S:lookup(S, n))
    end).

increment(S) ->
    {ok, Saved} = ?S:load(S, n),
    case ?S:update(S, n, Saved, ?S:value(Saved) + 1) of
        {ok, _} -> ok;
        {error, {conflict, _}} -> increment(S)
    end.

%% The sum over two keys is the same in every commit, and in the file that a kill would leave.
t_commits_are_seen_whole(Dir) ->
    with_store(Dir, #{segment_bytes => 65536}, fun(S) ->
        {ok, [_, _]} = ?S:commit(S, [{put, a, 0}, {put, b, 0}]),
        Writer = spawn_link(fun() -> move(S, 1) end),
        Image = fdn_test:tmp_dir(),
        [
            begin
                Writer ! {pause, self()},
                receive paused -> ok end,
                ok = copy(Dir, Image),
                Writer ! go_on,
                {ok, I} = ?S:open(image_store, #{path => Image}),
                [{a, A}] = ?S:lookup(I, a),
                [{b, B}] = ?S:lookup(I, b),
                ok = ?S:close(I),
                ?assertEqual(0, A + B)
            end
         || _ <- lists:seq(1, 5)
        ],
        unlink(Writer),
        exit(Writer, kill),
        fdn_test:del_dir(Image)
    end).

move(S, N) ->
    {ok, _} = ?S:commit(S, [{put, a, N}, {put, b, -N}]),
    receive
        {pause, From} ->
            From ! paused,
            receive go_on -> ok end
    after 0 -> ok
    end,
    move(S, N + 1).

%% The background thread goes on: a file that is gone, or was begun meanwhile, means another try.
copy(From, To) ->
    _ = file:del_dir_r(To),
    ok = file:make_dir(To),
    Files = filelib:wildcard("seg-*", From),
    Copied = [file:copy(filename:join(From, F), filename:join(To, F)) || F <- Files],
    case lists:all(fun(R) -> element(1, R) =:= ok end, Copied) andalso filelib:wildcard("seg-*", From) =:= Files of
        true -> ok;
        false -> copy(From, To)
    end.

%% ---- hot upgrade ----

t_open_stores_survive_an_upgrade(Dir) ->
    with_store(Dir, #{segment_bytes => 65536}, fun(S) ->
        {ok, Saved} = ?S:save(S, k, v),
        {module, ?S} = code:load_file(?S),
        ?assertEqual([{k, v}], ?S:lookup(S, k)),
        {ok, Saved2} = ?S:update(S, k, Saved, w),
        true = code:soft_purge(?S) orelse code:purge(?S),
        {module, ?S} = code:load_file(?S),
        {ok, _} = ?S:update(test_store, k, Saved2, x),
        %% The maintenance thread of the new library works.
        Value = binary:copy(<<"y">>, 3000),
        [{ok, _} = ?S:save(S, big, Value) || _ <- lists:seq(1, 1000)],
        fdn_test:await(fun() -> maps:get(compactions, ?S:info(S)) > 10 end)
    end).
