%% Limiters with a file, and VMs that die, restart, share a disk that is full, or lose the file under their hands.
-module(foundation_limiter_SUITE).

-include_lib("common_test/include/ct.hrl").
-include_lib("stdlib/include/assert.hrl").

-export([all/0, suite/0, init_per_testcase/2, end_per_testcase/2]).
-export([
    killed_gcra/1, killed_fixed_window/1, killed_sliding_window/1, budgets_in_memory_are_found_out/1, clean_restart/1, one_vm/1,
    atoms_by_name/1, full_disk/1, limit_on_file_size/1, truncated_under_load/1
]).
-export([vm/0, hammer/3, count_hits/2]).

-define(L, foundation_limiter).
-define(YEAR, 366 * 86400000).
%% More than all lives can use up, the ones that nobody read of included.
-define(LIMIT, 300000).
-define(KEYS, 5).
-define(WRITERS, 3).
-define(ROUNDS, 15).
%% Acknowledgements of one life at most; what can be in a pipe, unread, when it ends.
-define(MAX_ACKS, 600).
-define(AHEAD, 20000).

suite() -> [{timetrap, {minutes, 10}}].

all() ->
    [
        killed_gcra, killed_fixed_window, killed_sliding_window, budgets_in_memory_are_found_out, clean_restart, one_vm, atoms_by_name,
        full_disk, limit_on_file_size, truncated_under_load
    ].

init_per_testcase(_Case, Config) ->
    [{dir, fdn_test:tmp_dir()} | Config].

end_per_testcase(_Case, Config) ->
    fdn_test:del_dir(?config(dir, Config)).

path(Config) -> filename:join(?config(dir, Config), "limits").

options(Algorithm, Path) ->
    #{algorithm => Algorithm, limit => ?LIMIT, period => ?YEAR, capacity => 1000, on_full => deny, persist => Path}.

%% ---- kill -9 ----------------------------------------------------------------------------------------------------------------------

%% Several processes hit a few keys and report each admission; the VM is killed at a random one, and started again. Over all lives no
%% key is admitted more often than its limit, and nothing that was reported is forgotten.
killed_gcra(Config) -> rounds(gcra, path(Config)).
killed_fixed_window(Config) -> rounds(fixed_window, path(Config)).
killed_sliding_window(Config) -> rounds(sliding_window, path(Config)).

rounds(Algorithm, Path) ->
    Options = options(Algorithm, Path),
    Acked = lists:foldl(
        fun(Round, Before) ->
            Known = killed(Options, rand:uniform(?MAX_ACKS), Before),
            Used = in_this_vm(Options, fun(L) -> maps:from_list([{K, used(L, K)} || K <- keys()]) end),
            ct:pal("~p, life ~b: ~w acknowledged, ~w consumed", [Algorithm, Round, maps:values(Known), maps:values(Used)]),
            %% Nothing is forgotten; and what was consumed without a report fits into a pipe.
            [
                begin
                    #{K := Reported} = Known,
                    ?assert(N >= Reported),
                    ?assert(N - Reported =< Round * ?AHEAD)
                end
             || {K, N} <- maps:to_list(Used)
            ],
            Known
        end,
        maps:from_keys(keys(), 0),
        lists:seq(1, ?ROUNDS)
    ),
    Rest = in_this_vm(Options, fun(L) -> maps:from_list([{K, count_hits(L, K)} || K <- keys()]) end),
    [?assert(maps:get(K, Acked) + maps:get(K, Rest) =< ?LIMIT) || K <- keys()],
    ?assert(lists:sum(maps:values(Acked)) > ?ROUNDS * 50).

%% A limiter without a file must turn these checks red.
budgets_in_memory_are_found_out(Config) ->
    Options = options(fixed_window, path(Config)),
    Once = killed(Options#{persist => undefined, limit => 50}, 200, maps:from_keys(keys(), 0)),
    Twice = killed(Options#{persist => undefined, limit => 50}, 200, Once),
    ?assert(lists:any(fun(N) -> N > 50 end, maps:values(Twice))).

keys() -> [{user, N} || N <- lists:seq(1, ?KEYS)].

used(L, Key) ->
    case ?L:peek(L, Key) of
        {allow, Left} -> ?LIMIT - Left;
        {deny, _} -> ?LIMIT
    end.

%% Hit until denied: how often it was admitted.
count_hits(L, Key) ->
    case ?L:hit(L, Key) of
        {allow, _} -> 1 + count_hits(L, Key);
        {deny, _} -> 0
    end.

in_this_vm(Options, Fun) ->
    {ok, Pid} = ?L:start_link(looked_at, Options),
    try Fun(looked_at) after fdn_limiter:stop(Pid) end.

%% Start a VM, count its reports, kill it at the given one (or let it end, when all is denied).
killed(Options, At, Known) ->
    Paths = lists:append([["-pa", filename:absname(P)] || P <- code:get_path(), P =/= "."]),
    Input = base64:encode(term_to_binary(Options)),
    Port = open_port({spawn_executable, os:find_executable("erl")}, [
        {args, Paths ++ ["-noshell", "-noinput", "-s", atom_to_list(?MODULE), "vm"]},
        {env, [{"FDN_KILL_INPUT", binary_to_list(Input)}]},
        {line, 200},
        exit_status
    ]),
    {os_pid, OsPid} = erlang:port_info(Port, os_pid),
    collect(Port, OsPid, At, Known, 0).

collect(Port, OsPid, At, Known, Count) ->
    receive
        {Port, {data, {eol, "A " ++ Text}}} ->
            Key = {user, list_to_integer(Text)},
            _ = [os:cmd("kill -9 " ++ integer_to_list(OsPid)) || Count + 1 =:= At],
            collect(Port, OsPid, At, maps:update_with(Key, fun(N) -> N + 1 end, Known), Count + 1);
        {Port, {data, {eol, "done"}}} ->
            _ = os:cmd("kill -9 " ++ integer_to_list(OsPid)),
            collect(Port, OsPid, At, Known, Count);
        {Port, {data, {_, Other}}} ->
            ct:pal("~ts", [Other]),
            collect(Port, OsPid, At, Known, Count);
        {Port, {exit_status, Status}} ->
            ?assertEqual(128 + 9, Status),
            Known
    end.

%% In the VM: `-s foundation_limiter_SUITE vm'.
vm() ->
    Options = binary_to_term(base64:decode(os:getenv("FDN_KILL_INPUT"))),
    {ok, _} = ?L:start_link(killed, Options),
    Out = open_port({fd, 0, 1}, [out]),
    true = register(out, Out),
    Writers = [spawn_monitor(fun() -> report(W) end) || W <- lists:seq(1, ?WRITERS)],
    [receive {'DOWN', Ref, process, Pid, normal} -> ok end || {Pid, Ref} <- Writers],
    port_command(out, "done\n"),
    receive after infinity -> ok end.

report(N) ->
    Key = N rem ?KEYS + 1,
    case ?L:hit(killed, {user, Key}) of
        {allow, _} ->
            port_command(out, ["A ", integer_to_list(Key), "\n"]),
            report(N + ?WRITERS);
        {deny, _} ->
            case [K || K <- keys(), element(1, ?L:peek(killed, K)) =:= allow] of
                [] -> ok;
                _ -> report(N + ?WRITERS)
            end
    end.

%% ---- restart, and who has the file ------------------------------------------------------------------------------------------------

%% init:stop/0 of a VM whose limiter is under a supervisor: the file is closed in good order, and the next VM goes on.
clean_restart(Config) ->
    Path = path(Config),
    [
        begin
            {Peer, _} = fdn_test:peer(),
            {ok, _} = peer:call(Peer, application, ensure_all_started, [foundation_native]),
            Spec = ?L:child_spec({api, options(gcra, Path)}),
            {ok, _} = peer:call(Peer, supervisor, start_child, [foundation_native_sup, Spec]),
            ?assertEqual({allow, ?LIMIT - 10 * Life}, peer:call(Peer, ?L, hit, [api, {a, "b"}, 10])),
            ?assertEqual(<<1:32/little>>, flags(Path)),
            Monitor = monitor(process, Peer),
            unlink(Peer),
            ok = peer:call(Peer, init, stop, []),
            receive {'DOWN', Monitor, process, Peer, _} -> ok end,
            fdn_test:await(fun() -> flags(Path) =:= <<0:32>> end)
        end
     || Life <- [1, 2, 3]
    ].

flags(Path) ->
    {ok, <<_:128/binary, Flags:4/binary, _/binary>>} = file:read_file(Path),
    Flags.

one_vm(Config) ->
    Path = path(Config),
    Options = options(fixed_window, Path),
    {One, _} = fdn_test:peer(),
    {Two, _} = fdn_test:peer(),
    unlink(One),
    {ok, Owner} = start_in(One, Options),
    OsPid = list_to_integer(peer:call(One, os, getpid, [])),
    {allow, _} = peer:call(One, ?L, hit, [api, k]),
    [?assertEqual({error, {locked, OsPid}}, start_in(Two, Options)) || _ <- [1, 2]],
    ?assertEqual({error, {locked, OsPid}}, start_in(One, Options, other)),
    %% A crash of the owner does not let go of it; the death of the VM does.
    true = peer:call(One, erlang, exit, [Owner, kill]),
    ?assertEqual({error, {locked, OsPid}}, start_in(Two, Options)),
    {allow, _} = peer:call(One, ?L, hit, [api, k]),
    _ = os:cmd("kill -9 " ++ integer_to_list(OsPid)),
    {ok, _} = when_free(fun() -> start_in(Two, Options) end),
    ?assertEqual({allow, ?LIMIT - 2}, peer:call(Two, ?L, peek, [api, k])),
    fdn_test:stop_peer(Two).

%% What starting a limiter answers once the file's last holder is gone.
when_free(Start) ->
    fdn_test:await(fun() ->
        case Start() of
            {error, {locked, _}} -> false;
            Answer -> Answer
        end
    end).

%% A limiter in another VM, whose owner is not linked to the one that asks.
start_in(Peer, Options) -> start_in(Peer, Options, api).

start_in(Peer, Options, Name) ->
    peer:call(Peer, erlang, apply, [fun unlinked/2, [Name, Options]]).

unlinked(Name, Options) ->
    case ?L:start_link(Name, Options) of
        {ok, Pid} ->
            unlink(Pid),
            {ok, Pid};
        Error ->
            Error
    end.

%% ---- keys -------------------------------------------------------------------------------------------------------------------------

%% Atoms have other numbers in each VM, and count by their names.
atoms_by_name(Config) ->
    Path = path(Config),
    Names = ["persisted_atom", [16#e9, 16#65e5], lists:duplicate(200, $p)],
    Counts = [
        begin
            {Peer, _} = fdn_test:peer(),
            {ok, _} = start_in(Peer, options(gcra, Path)),
            [_ = peer:call(Peer, erlang, list_to_atom, ["other_" ++ integer_to_list(I)]) || I <- lists:seq(1, 100 * Life)],
            Count = peer:call(Peer, erlang, system_info, [atom_count]),
            [
                begin
                    %% The atom is made there, and not known to the code of this suite.
                    Made = peer:call(Peer, erlang, list_to_atom, [Name]),
                    [
                        ?assertEqual({allow, ?LIMIT - Life}, peer:call(Peer, ?L, hit, [api, Key]))
                     || Key <- [Made, {user, Made}, [Made | <<"x">>], #{Made => {Made}}]
                    ]
                end
             || Name <- Names
            ],
            fdn_test:stop_peer(Peer),
            Count
        end
     || Life <- [1, 2, 3]
    ],
    ?assertEqual(3, length(lists:usort(Counts))).

%% ---- no room ----------------------------------------------------------------------------------------------------------------------

%% A small file system; root alone can mount one, and not in every container.
full_disk(Config) ->
    Mount = filename:join(?config(dir, Config), "small"),
    ok = file:make_dir(Mount),
    case fdn_test:run(os:find_executable("mount"), ["-t", "tmpfs", "-o", "size=64k,mode=0700", "tmpfs", Mount]) of
        {0, _} ->
            try
                Path = filename:join(Mount, "limits"),
                Options = options(gcra, Path),
                ?assertEqual({error, {file, enospc}}, ?L:start_link(api, Options#{capacity => 100000})),
                ?assertEqual({ok, []}, file:list_dir(Mount)),
                {ok, Pid} = ?L:start_link(api, Options#{capacity => 1000}),
                %% All of its space is there from the beginning: a full disk does not stop it.
                _ = file:write_file(filename:join(Mount, "filler"), binary:copy(<<0>>, 65536)),
                [{allow, _} = ?L:hit(api, Key) || Key <- lists:seq(1, 900)],
                ?assertMatch(#{faulted := false, live := 900}, ?L:info(api)),
                fdn_limiter:stop(Pid),
                {ok, Pid2} = ?L:start_link(api, Options#{capacity => 1000}),
                ?assertMatch(#{live := 900}, ?L:info(api)),
                fdn_limiter:stop(Pid2)
            after
                {0, _} = fdn_test:run(os:find_executable("umount"), [Mount])
            end;
        _ ->
            {skip, "no file system can be mounted here"}
    end.

%% More than the VM's own files need, and less than a limiter of that capacity.
limit_on_file_size(Config) ->
    Paths = lists:append([["-pa", filename:absname(P)] || P <- code:get_path(), P =/= "."]),
    Eval = io_lib:format("Small = ~w, {error, {file, efbig}} = foundation_limiter:start_link(api, Small#{capacity := 1 bsl 25}), "
        "{ok, _} = foundation_limiter:start_link(api, Small), {allow, _} = foundation_limiter:hit(api, k), "
        "io:put_chars(\"alive\"), halt(0).", [options(gcra, path(Config))]),
    Shell = ["-c", "ulimit -f 1048576; exec \"$@\"", "sh", os:find_executable("erl")],
    Args = Shell ++ Paths ++ ["-noshell", "-eval", lists:flatten(Eval)],
    ?assertEqual({0, "alive"}, fdn_test:run(os:find_executable("sh"), Args)).

%% ---- a file that is cut while it is hit -------------------------------------------------------------------------------------------

%% The VM lives, answers by on_full, and says it; the next one refuses the file and leaves it.
truncated_under_load(Config) ->
    [
        begin
            Path = path(Config) ++ atom_to_list(Policy),
            Options = (options(fixed_window, Path))#{on_full => Policy, limit => 1},
            {Peer, _} = fdn_test:peer(),
            {ok, _} = start_in(Peer, Options),
            %% Every key has used up its budget.
            [{allow, 0} = peer:call(Peer, ?L, hit, [api, Key]) || Key <- lists:seq(1, 300)],
            Self = self(),
            Hammers = [
                spawn_link(fun() -> Self ! {self(), peer:call(Peer, ?MODULE, hammer, [api, 300, 200000], infinity)} end)
             || _ <- [1, 2]
            ],
            ok = cut(Path, Size),
            %% The others may have been done before the cut.
            After = peer:call(Peer, ?MODULE, hammer, [api, 300, 20000], infinity),
            Allowed = After + lists:sum([receive {Hammer, N} -> N end || Hammer <- Hammers]),
            ?assertMatch(#{faulted := true}, peer:call(Peer, ?L, info, [api])),
            case Policy of
                deny -> ?assertEqual(0, Allowed);
                allow -> ?assert(Allowed > 300);
                evict -> ?assert(Allowed =< 300)
            end,
            fdn_test:stop_peer(Peer),
            ?assertEqual({error, {file, corrupt}}, when_free(fun() -> ?L:start_link(api, Options) end)),
            ?assertEqual(Size, filelib:file_size(Path))
        end
     || {Policy, Size} <- [{deny, 4096}, {allow, 200}, {evict, 9000}]
    ].

cut(Path, Size) ->
    {ok, File} = file:open(Path, [read, write, raw]),
    {ok, Size} = file:position(File, Size),
    ok = file:truncate(File),
    file:close(File).

%% In the VM: hit all keys again and again; how often one was admitted.
hammer(L, Keys, Times) ->
    length([x || N <- lists:seq(1, Times), element(1, ?L:hit(L, N rem Keys + 1)) =:= allow]).
