%% A million keys, and the order in which a benchmark asks for them.
%%
%% The order is drawn beforehand and its keys stand in it one after the other, each a binary of its own, as a request's key would just
%% have been made: both sides of a row read the same sequence at the same small cost, and what misses the cache is the limiter's table.
%% Every measurement starts at a random place of it.
-module(bench_keys).

-export([count/0, key/1, draw/1, start/0, forget/0]).

-define(COUNT, 1000000).

-spec count() -> pos_integer().
count() -> ?COUNT.

-spec key(pos_integer()) -> binary().
key(N) ->
    <<"user:", (integer_to_binary(10000000 + N))/binary>>.

%% @doc 2^20 draws of keys 1..count(), by equal chance or by Zipf's law with exponent 0.99, as a tuple outside of every heap.
-spec draw(uniform | zipf) -> tuple().
draw(Law) ->
    Parent = self(),
    Draw = drawing(Law),
    {Pid, Monitor} = spawn_monitor(fun() ->
        ok = persistent_term:put({?MODULE, Law}, list_to_tuple([key(Draw()) || _ <- lists:seq(1, 1 bsl 20)])),
        Parent ! {self(), done}
    end),
    receive
        {Pid, done} -> ok;
        {'DOWN', Monitor, process, Pid, Reason} -> exit(Reason)
    end,
    _ = erlang:demonitor(Monitor, [flush]),
    persistent_term:get({?MODULE, Law}).

%% @doc Where a walk along the draws begins.
-spec start() -> pos_integer().
start() -> rand:uniform(1 bsl 20).

-spec forget() -> ok.
forget() ->
    [_ = persistent_term:erase({?MODULE, Law}) || Law <- [uniform, zipf]],
    ok.

drawing(uniform) ->
    fun() -> rand:uniform(?COUNT) end;
drawing(zipf) ->
    %% Gray et al., Quickly generating billion-record synthetic databases (1994), as YCSB has it.
    Theta = 0.99,
    Zeta = lists:sum([math:pow(N, -Theta) || N <- lists:seq(1, ?COUNT)]),
    Second = 1 + math:pow(0.5, Theta),
    Eta = (1 - math:pow(2 / ?COUNT, 1 - Theta)) / (1 - Second / Zeta),
    fun() ->
        U = rand:uniform(),
        case U * Zeta of
            Z when Z < 1 -> 1;
            Z when Z < Second -> 2;
            _ -> 1 + trunc(?COUNT * math:pow(Eta * U - Eta + 1, 1 / (1 - Theta)))
        end
    end.
