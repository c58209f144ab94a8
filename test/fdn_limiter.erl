%% What the limiter's suites share: limiters for one test, and processes that race.
-module(fdn_limiter).

-export([algorithms/0, name/0, start/1, stop/1, with/2, at_once/1, race/3, on_dirty_scheduler/1, resident/0, quietly/1]).

-define(L, foundation_limiter).

-spec algorithms() -> [atom()].
algorithms() ->
    [gcra, fixed_window, sliding_window].

%% A name that nobody used yet.
-spec name() -> atom().
name() ->
    list_to_atom("limiter_test_" ++ integer_to_list(erlang:unique_integer([positive]))).

-spec start(map()) -> {atom(), pid()}.
start(Options) ->
    Name = name(),
    {ok, Pid} = ?L:start_link(Name, Options),
    {Name, Pid}.

%% Stop an owner in good order, which deletes its limiter.
-spec stop(pid()) -> ok.
stop(Pid) ->
    unlink(Pid),
    Monitor = monitor(process, Pid),
    exit(Pid, shutdown),
    receive {'DOWN', Monitor, process, Pid, _} -> ok end.

%% A limiter for the time of a fun, with a manual clock unless told otherwise.
-spec with(map(), fun((atom()) -> Result)) -> Result.
with(Options, Fun) ->
    {Name, Pid} = start(maps:merge(#{clock => manual, capacity => 1000}, Options)),
    try
        Fun(Name)
    after
        unlink(Pid),
        try ?L:delete(Name) catch error:{badarg, {limiter, unknown}} -> ok end
    end.

%% Each fun in a process of its own; their results, in order. A fun that crashes takes the caller with it.
-spec at_once([fun(() -> Result)]) -> [Result].
at_once(Funs) ->
    Parent = self(),
    Pids = [spawn_link(fun() -> receive go -> Parent ! {self(), Fun()} end end) || Fun <- Funs],
    [Pid ! go || Pid <- Pids],
    [receive {Pid, Result} -> Result end || Pid <- Pids].

%% Whether a fun, in a process of its own, is put onto a dirty scheduler at least once, and its result.
-spec on_dirty_scheduler(fun(() -> Result)) -> {boolean(), Result}.
on_dirty_scheduler(Fun) ->
    Parent = self(),
    Pid = spawn_link(fun() ->
        receive go -> ok end,
        Parent ! {self(), Fun()},
        receive stop -> ok end
    end),
    1 = erlang:trace(Pid, true, [running, scheduler_id]),
    Pid ! go,
    Result = receive {Pid, R} -> R end,
    %% Its trace is complete, then.
    Delivered = erlang:trace_delivered(Pid),
    receive {trace_delivered, Pid, Delivered} -> ok end,
    Pid ! stop,
    {lists:member(dirty, schedulers(Pid)), Result}.

schedulers(Pid) ->
    receive
        {trace, Pid, in, _, 0} -> [dirty | schedulers(Pid)];
        {trace, Pid, _, _, _} -> schedulers(Pid)
    after 0 -> []
    end.

%% Bytes of memory that the system has given this VM.
-spec resident() -> integer().
resident() ->
    [erlang:garbage_collect(P) || P <- processes()],
    {ok, Text} = file:read_file("/proc/self/statm"),
    binary_to_integer(lists:nth(2, binary:split(Text, <<" ">>, [global]))) * 4096.

%% Two processes, each on a scheduler of its own where there are two, call the fun with 1 or 2 and each round, and wait for each other
%% before the first round and every so many.
-spec race(pos_integer(), pos_integer(), fun((1 | 2, pos_integer()) -> term())) -> ok.
race(Rounds, Every, Fun) ->
    Places = atomics:new(2, []),
    Body = fun(Me) ->
        Other = receive {other, Pid} -> Pid end,
        [
            begin
                (Round - 1) rem Every =:= 0 andalso meet(Places, Me, Other, Round),
                Fun(Me, Round)
            end
         || Round <- lists:seq(1, Rounds)
        ]
    end,
    Scheduler = fun(N) -> min(N, erlang:system_info(schedulers_online)) end,
    [{One, _}, {Two, _}] = Racers = [spawn_opt(fun() -> Body(Me) end, [monitor, {scheduler, Scheduler(Me)}]) || Me <- [1, 2]],
    One ! {other, Two},
    Two ! {other, One},
    [receive {'DOWN', Ref, process, Pid, Why} -> normal = Why end || {Pid, Ref} <- Racers],
    ok.

%% Wait for the other one: awake, so that both go on at once; asleep where the machine does not let both run.
meet(Places, Me, Other, Round) ->
    Other ! {at, Round},
    atomics:put(Places, Me, Round),
    spin(Places, 3 - Me, Round, 2000),
    receive {at, Round} -> ok end.

spin(_Places, _Other, _Round, 0) ->
    ok;
spin(Places, Other, Round, Left) ->
    case atomics:get(Places, Other) >= Round of
        true -> ok;
        false -> spin(Places, Other, Round, Left - 1)
    end.

%% What crashes on purpose need not be reported.
-spec quietly(fun(() -> Result)) -> Result.
quietly(Fun) ->
    #{level := Level} = logger:get_primary_config(),
    ok = logger:set_primary_config(level, none),
    try Fun() after logger:set_primary_config(level, Level) end.
