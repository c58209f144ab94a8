%% What a NIF costs at least; see empty_nif.c.
-module(empty_nif).

-export([empty/1, least/3, now/0]).
-nifs([empty/1, least/3, now/0]).
-on_load(load/0).
-compile({no_auto_import, [now/0]}).

load() ->
    erlang:load_nif(os:getenv("BENCH_NIF"), 0).

%% @doc Nothing.
-spec empty(Term) -> Term.
empty(_) ->
    erlang:nif_error(not_loaded).

%% @doc Arguments, keyed hash, coarse clock, compare-and-swap: what no hit can do without.
-spec least(binary(), pos_integer(), Limit) -> Limit when Limit :: pos_integer().
least(_Key, _Period, _Limit) ->
    erlang:nif_error(not_loaded).

%% @doc The monotonic clock, in nanoseconds.
-spec now() -> non_neg_integer().
now() ->
    erlang:nif_error(not_loaded).
