%% That property_tests runs properties at all, as many cases as asked for: this one is counted by the test below it.
-module(prop_selftest).

-include("fdn_proper.hrl").

-export([prop_counts/0, counted/0, refuted/0]).

prop_counts() ->
    Counter = counters:new(1, []),
    persistent_term:put(?MODULE, Counter),
    ?FORALL(
        N,
        integer(),
        begin
            counters:add(Counter, 1, 1),
            is_integer(N)
        end
    ).

counted() ->
    counters:get(persistent_term:get(?MODULE), 1).

%% Not named prop_: it is false.
refuted() ->
    ?FORALL(N, range(0, 1000), N =< 5).
