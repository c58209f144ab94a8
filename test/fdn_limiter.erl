%% What the limiter's suites share: limiters for one test, and processes that race.
-module(fdn_limiter).

-export([name/0, start/1, stop/1, with/2, quietly/1]).

-define(L, foundation_limiter).

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

%% What crashes on purpose need not be reported.
-spec quietly(fun(() -> Result)) -> Result.
quietly(Fun) ->
    #{level := Level} = logger:get_primary_config(),
    ok = logger:set_primary_config(level, none),
    try Fun() after logger:set_primary_config(level, Level) end.
