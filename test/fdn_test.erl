%% What the Erlang suites share: temporary folders, other VMs, waiting for something to become true.
-module(fdn_test).

-export([tmp_dir/0, tmp_dir/1, del_dir/1, with_tmp_dir/1, await/1, await/2, peer/0, peer/1, stop_peer/1, eval_in_vm/1, distributed/0,
         root_dir/0, run/2, with_telemetry/1]).

%% A fresh folder with a path of its own, mode 0700.
tmp_dir() ->
    tmp_dir("test").

tmp_dir(Label) ->
    Base = os:getenv("TMPDIR", "/tmp"),
    Unique = io_lib:format("fdn-~ts-~ts-~b", [Label, os:getpid(), erlang:unique_integer([positive])]),
    Dir = filename:join(Base, lists:flatten(Unique)),
    case file:make_dir(Dir) of
        ok ->
            ok = file:change_mode(Dir, 8#700),
            Dir;
        {error, eexist} ->
            tmp_dir(Label)
    end.

del_dir(Dir) ->
    case file:del_dir_r(Dir) of
        ok -> ok;
        {error, enoent} -> ok
    end.

with_tmp_dir(Fun) ->
    Dir = tmp_dir(),
    try
        Fun(Dir)
    after
        del_dir(Dir)
    end.

%% Wait until the fun gives true (or a value that is not false): for what announces itself by no message. Asks again when the scheduler
%% comes back, with a pause that grows to 50 ms; gives up, loudly, after a time that no healthy machine needs.
await(Fun) ->
    await(Fun, 60000).

await(Fun, TimeoutMs) ->
    await(Fun, erlang:monotonic_time(millisecond) + TimeoutMs, 1).

await(Fun, Deadline, Pause) ->
    case Fun() of
        false ->
            case erlang:monotonic_time(millisecond) > Deadline of
                true ->
                    error({never_became_true, Fun});
                false ->
                    receive after Pause -> ok end,
                    await(Fun, Deadline, min(Pause * 2, 50))
            end;
        Value ->
            Value
    end.

%% Another VM with this VM's code path, linked to the caller; controlled over its standard input and output, so this VM may be
%% nonode@nohost. Options are those of peer:start_link/1; `args' are added to the code path's.
peer() ->
    peer(#{}).

peer(Options) ->
    Args = code_path() ++ maps:get(args, Options, []),
    Defaults = #{connection => standard_io, wait_boot => 60000},
    {ok, Peer, Node} = peer:start_link(maps:merge(Defaults, Options#{args => Args})),
    %% Nothing of a test is kept in the user's data folder, unless the test says where.
    ok = peer:call(Peer, application, set_env, [foundation_native, data_dir, ephemeral]),
    {Peer, Node}.

code_path() ->
    lists:append([["-pa", filename:absname(Dir)] || Dir <- code:get_path(), Dir =/= "."]).

%% Evaluate text in another VM with this VM's code path and wait until that VM ends: {ExitStatus, Output}.
eval_in_vm(Eval) ->
    run(os:find_executable("erl"), code_path() ++ ["-noshell", "-eval", lists:flatten(Eval)]).

stop_peer(Peer) ->
    _ = (catch peer:stop(Peer)),
    ok.

%% Make this VM a distributed node where it is none yet (EUnit runs without a name); starts epmd where it does not run.
distributed() ->
    case is_alive() of
        true ->
            node();
        false ->
            _ = os:cmd("epmd -daemon"),
            %% It answers a moment after that command has returned.
            await(fun() -> element(1, erl_epmd:names()) =:= ok end),
            Name = list_to_atom("fdn_test_" ++ os:getpid()),
            {ok, _} = net_kernel:start([Name, shortnames]),
            node()
    end.

%% The folder of the source tree, from wherever the tests run (Common Test changes its folder).
root_dir() ->
    case os:getenv("FDN_ROOT") of
        false -> find_root(filename:absname(filename:dirname(code:which(?MODULE))));
        Root -> Root
    end.

find_root(Dir) ->
    case filelib:is_regular(filename:join(Dir, "Makefile")) andalso filelib:is_regular(filename:join(Dir, "rebar.config")) of
        true -> Dir;
        false when Dir =:= "/" -> error(no_source_tree);
        false -> find_root(filename:dirname(Dir))
    end.

%% Run a program and wait for its end: {ExitStatus, Output}, standard error included. Arguments are text.
run(Program, Args) ->
    Native = [unicode:characters_to_binary(Arg) || Arg <- Args],
    Port = open_port({spawn_executable, Program}, [{args, Native}, exit_status, stderr_to_stdout, binary, in]),
    run_output(Port, []).

run_output(Port, Acc) ->
    receive
        {Port, {data, Data}} -> run_output(Port, [Acc, Data]);
        {Port, {exit_status, Status}} -> {Status, unicode:characters_to_list(iolist_to_binary(Acc))}
    after 60000 -> error({no_end, Port})
    end.

%% Call the fun while a module `telemetry' is loaded, which is not the package: its execute/3 sends the caller of this function
%% {telemetry, Pid, Event, Measurements, Metadata}, Pid being where it was called.
with_telemetry(Fun) ->
    false = code:is_loaded(telemetry),
    persistent_term:put({?MODULE, listener}, self()),
    Forms = [
        "-module(telemetry).",
        "-export([execute/3]).",
        "execute(E, M, T) -> persistent_term:get({fdn_test, listener}) ! {telemetry, self(), E, M, T}, ok."
    ],
    {ok, telemetry, Beam} = compile:forms([parse(Form) || Form <- Forms]),
    {module, telemetry} = code:load_binary(telemetry, "telemetry.erl", Beam),
    try
        Fun()
    after
        code:delete(telemetry),
        code:purge(telemetry),
        persistent_term:erase({?MODULE, listener})
    end.

parse(Text) ->
    {ok, Tokens, _} = erl_scan:string(Text),
    {ok, Form} = erl_parse:parse_form(Tokens),
    Form.
