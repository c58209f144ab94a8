%% How long single calls take: percentiles, of several funs by turns.
%%
%% Each call stands between two readings of the monotonic clock (a NIF: erlang:monotonic_time/0 takes three times as long). The
%% readings' own time is not taken off; the fun that does nothing shows it. The largest value is as much the scheduler's and the
%% machine's as the call's.
-module(bench_latency).

-export([percentiles/2, names/0]).

-define(SAMPLES, 200000).
-define(TURN, 1000).
-define(RANKS, [{"p50", 0.5}, {"p99", 0.99}, {"p99.9", 0.999}, {"max", 1}]).

%% @doc For every fun the percentiles of names/0, in nanoseconds. Each call gets the next key of the draws.
-spec percentiles([fun((binary()) -> term())], tuple()) -> [[non_neg_integer()]].
percentiles(Funs, Draws) ->
    Parent = self(),
    %% Samples go to memory that exists already: a growing heap would be measured as well.
    Sides = [{Fun, atomics:new(?SAMPLES, [])} || Fun <- Funs],
    Pid = spawn_link(fun() ->
        lists:foreach(fun(Turn) -> turn(Turn * ?TURN, Sides, Draws) end, lists:seq(0, ?SAMPLES div ?TURN - 1)),
        Parent ! {self(), done}
    end),
    receive
        {Pid, done} -> ok
    end,
    [ranked(lists:sort([atomics:get(Samples, N) || N <- lists:seq(1, ?SAMPLES)])) || {_, Samples} <- Sides].

-spec names() -> [string()].
names() ->
    [Name || {Name, _} <- ?RANKS].

ranked(Sorted) ->
    [lists:nth(ceil(Rank * ?SAMPLES), Sorted) || {_, Rank} <- ?RANKS].

turn(_, [], _) ->
    ok;
turn(From, [{Fun, Samples} | Sides], Draws) ->
    ok = sample(From + 1, From + ?TURN, bench_keys:start(), Fun, Samples, Draws),
    turn(From, Sides, Draws).

sample(N, Last, _, _, _, _) when N > Last ->
    ok;
sample(N, Last, At, Fun, Samples, Draws) ->
    Key = element(At band (tuple_size(Draws) - 1) + 1, Draws),
    Begin = empty_nif:now(),
    _ = Fun(Key),
    End = empty_nif:now(),
    ok = atomics:put(Samples, N, End - Begin),
    sample(N + 1, Last, At + 1, Fun, Samples, Draws).
