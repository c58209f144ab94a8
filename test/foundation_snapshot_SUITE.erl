%% kill -9. A VM of its own writes into a store from several processes and reports each acknowledged write; at a random moment it is
%% killed, opened again, checked, and goes on, over rotation and compaction all the time.
%%
%% What a writer does is a function of its number and a sequence number, so the only states that its keys may be in are those after n
%% writes, n not below the last acknowledged one: nothing lost, nothing half done, nothing that was never written, nothing risen.
-module(foundation_snapshot_SUITE).

-include_lib("common_test/include/ct.hrl").
-include_lib("stdlib/include/assert.hrl").

-export([all/0, suite/0, init_per_testcase/2, end_per_testcase/2]).
-export([killed_async/1, killed_sync/1, killed_interval/1, an_early_acknowledgement_is_found/1, half_a_commit_is_found/1]).
-export([vm/0]).

-define(S, foundation_snapshot).
-define(WRITERS, 3).
-define(KEYS, 7).
%% Acknowledgements between start and kill at most; the log holds some 30 of these writes in one segment.
-define(MAX_ACKS, 900).
%% How far a writer can be ahead of the acknowledgements that came out of the pipe.
-define(AHEAD, 5000).

suite() -> [{timetrap, {minutes, 10}}].

all() -> [killed_async, killed_sync, killed_interval, an_early_acknowledgement_is_found, half_a_commit_is_found].

init_per_testcase(_Case, Config) ->
    [{dir, fdn_test:tmp_dir()} | Config].

end_per_testcase(_Case, Config) ->
    fdn_test:del_dir(?config(dir, Config)).

killed_async(Config) -> rounds(?config(dir, Config), async, 30).
killed_sync(Config) -> rounds(?config(dir, Config), sync, 15).
killed_interval(Config) -> rounds(?config(dir, Config), {interval, 5}, 5).

rounds(Dir, Mode, Rounds) ->
    {Acked, States} = lists:foldl(
        fun(Round, {Total, States}) ->
            {Known, Acks} = killed(Dir, Mode, honest, States, rand:uniform(?MAX_ACKS)),
            {ok, After} = verify(Dir, Known),
            ct:pal("~p round ~b: ~b acknowledged, writers at ~w", [Mode, Round, Acks, After]),
            {Total + Acks, After}
        end,
        {0, [{W, 0} || W <- lists:seq(1, ?WRITERS)]},
        lists:seq(1, Rounds)
    ),
    ct:pal("~p: ~b kills, ~b acknowledged writes, ~w", [Mode, Rounds, Acked, States]),
    ?assert(Acked > Rounds * 50),
    %% The controls: the log was rotated and compacted while it was killed.
    Numbers = [list_to_integer(string:slice(F, 4, 16), 16) || F <- filelib:wildcard("seg-*", Dir)],
    ?assert(lists:max(Numbers) > 2 * Rounds),
    ?assert(lists:min(Numbers) > Rounds).

%% A VM that says "written" before it writes must turn this suite red.
an_early_acknowledgement_is_found(Config) ->
    Dir = ?config(dir, Config),
    {Known, _} = killed(Dir, async, lying, [{W, 0} || W <- lists:seq(1, ?WRITERS)], 100),
    ?assertMatch({lost, _}, verify(Dir, Known)).

%% So must a commit that is there in parts, or a delete that is undone.
half_a_commit_is_found(Config) ->
    Dir = ?config(dir, Config),
    {Known, _} = killed(Dir, async, honest, [{W, 0} || W <- lists:seq(1, ?WRITERS)], 100),
    {ok, States} = verify(Dir, Known),
    {1, N} = lists:keyfind(1, 1, States),
    {commit, [{put, Key, _} | _]} = write(1, next_commit(N)),
    {ok, _} = application:ensure_all_started(foundation_native),
    {ok, S} = ?S:open(kill_store, #{path => Dir}),
    true = ?S:insert(S, {Key, half}),
    ok = ?S:close(S),
    ?assertMatch({lost, {1, _}}, verify(Dir, States)).

next_commit(N) ->
    case write(1, N + 1) of
        {commit, [{put, _, _}, {put, _, _} | _]} -> N + 1;
        _ -> next_commit(N + 1)
    end.

%% ---- the VM that is killed ----

%% Start it, read acknowledgements, kill it at the given one. The answer: the last sequence number known of each writer, and how many.
killed(Dir, Mode, Honesty, States, At) ->
    Paths = lists:append([["-pa", filename:absname(P)] || P <- code:get_path(), P =/= "."]),
    Input = base64:encode(term_to_binary({Dir, Mode, Honesty, States, At})),
    Port = open_port({spawn_executable, os:find_executable("erl")}, [
        {args, Paths ++ ["-noshell", "-noinput", "-s", atom_to_list(?MODULE), "vm"]},
        {env, [{"FDN_KILL_INPUT", binary_to_list(Input)}]},
        {line, 200},
        exit_status
    ]),
    {os_pid, OsPid} = erlang:port_info(Port, os_pid),
    collect(Port, OsPid, At, maps:from_list(States), 0).

collect(Port, OsPid, At, Known, Count) ->
    receive
        {Port, {data, {eol, "A " ++ Text}}} ->
            [Writer, N] = [list_to_integer(T) || T <- string:lexemes(Text, " ")],
            _ = [os:cmd("kill -9 " ++ integer_to_list(OsPid)) || Count + 1 =:= At],
            collect(Port, OsPid, At, Known#{Writer := N}, Count + 1);
        {Port, {data, {_, Other}}} ->
            ct:pal("~ts", [Other]),
            collect(Port, OsPid, At, Known, Count);
        {Port, {exit_status, Status}} ->
            ?assertEqual(128 + 9, Status),
            {maps:to_list(Known), Count}
    end.

%% In the VM: `-s foundation_snapshot_SUITE vm'.
vm() ->
    {Dir, Mode, Honesty, States, At} = binary_to_term(base64:decode(os:getenv("FDN_KILL_INPUT"))),
    {ok, _} = foundation_snapshot_sup:start_link(),
    {ok, Store} = ?S:open(kill_store, #{path => Dir, durability => Mode, segment_bytes => 65536}),
    Out = open_port({fd, 0, 1}, [out]),
    true = register(out, Out),
    %% Where it lies, the writers stop just before the last write that they announce.
    Share = At div ?WRITERS + At rem ?WRITERS,
    [spawn_link(fun() -> loop(Store, Writer, N + 1, Honesty, N + Share) end) || {Writer, N} <- States],
    receive after infinity -> ok end.

loop(Store, Writer, N, lying, N) ->
    acknowledge(Writer, N),
    receive after infinity -> {Store, N} end;
loop(Store, Writer, N, Honesty, Last) ->
    case write(Writer, N) of
        {commit, Ops} -> {ok, _} = ?S:commit(Store, Ops);
        {save, Key, Value} -> {ok, _} = ?S:save(Store, Key, Value);
        {delete, Key} -> true = ?S:delete(Store, Key)
    end,
    acknowledge(Writer, N),
    loop(Store, Writer, N + 1, Honesty, Last).

acknowledge(Writer, N) ->
    port_command(out, ["A ", integer_to_list(Writer), " ", integer_to_list(N), "\n"]).

%% ---- what is written ----

write(Writer, N) ->
    Key = fun(I) -> {Writer, I rem ?KEYS} end,
    case erlang:phash2({Writer, N}, 10) of
        H when H < 4 -> {save, Key(N), value(Writer, N)};
        H when H < 6 -> {delete, Key(N * 3)};
        _ -> {commit, [{put, Key(N), value(Writer, N)}, {put, Key(N + 2), value(Writer, N)}, {delete, Key(N + 4)}]}
    end.

value(Writer, N) ->
    #{writer => Writer, n => N, payload => binary:copy(<<N:32>>, erlang:phash2({size, Writer, N}, 900))}.

apply_write({save, K, V}, Model) -> Model#{K => V};
apply_write({delete, K}, Model) -> maps:remove(K, Model);
apply_write({commit, Ops}, Model) -> lists:foldl(fun apply_op/2, Model, Ops).

apply_op({put, K, V}, Model) -> Model#{K => V};
apply_op({delete, K}, Model) -> maps:remove(K, Model).

%% ---- what must be there ----

%% Where each writer stands, or the first one whose keys are in a state that it cannot have left.
verify(Dir, Known) ->
    {ok, _} = application:ensure_all_started(foundation_native),
    {ok, Store} = ?S:open(kill_store, #{path => Dir, segment_bytes => 65536}),
    Objects = ?S:tab2list(Store),
    %% The table and its index agree.
    [?assertEqual([O], ?S:lookup(Store, K)) || {K, _} = O <- Objects],
    ok = ?S:close(Store),
    stand(Known, Objects, []).

stand([], _Objects, Found) ->
    {ok, lists:sort(Found)};
stand([{Writer, Acked} | Rest], Objects, Found) ->
    Mine = maps:from_list([O || {{W, _}, _} = O <- Objects, W =:= Writer]),
    Model = lists:foldl(fun(N, M) -> apply_write(write(Writer, N), M) end, #{}, lists:seq(1, Acked)),
    case ahead(Writer, Acked, Acked + ?AHEAD, Model, Mine) of
        lost -> {lost, {Writer, Acked}};
        N -> stand(Rest, Objects, [{Writer, N} | Found])
    end.

ahead(_Writer, N, _Max, Model, Model) -> N;
ahead(_Writer, N, N, _Model, _Mine) -> lost;
ahead(Writer, N, Max, Model, Mine) -> ahead(Writer, N + 1, Max, apply_write(write(Writer, N + 1), Model), Mine).
