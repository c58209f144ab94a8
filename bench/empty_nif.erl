%% What a NIF costs at least, and the steps from there to a limiter's hit; see empty_nif.c.
-module(empty_nif).

-export([empty/1, arguments/3, hash/3, least/3, answer/3, enter/3, hit/3, now/0]).
-nifs([empty/1, arguments/3, hash/3, least/3, answer/3, enter/3, hit/3, now/0]).
-on_load(load/0).
-compile({no_auto_import, [now/0]}).

load() ->
    erlang:load_nif(os:getenv("BENCH_NIF"), 0).

%% @doc Nothing.
-spec empty(Term) -> Term.
empty(_) ->
    erlang:nif_error(not_loaded).

%% @doc Read a binary and two integers.
-spec arguments(binary(), pos_integer(), Limit) -> Limit when Limit :: pos_integer().
arguments(_Key, _Period, _Limit) ->
    erlang:nif_error(not_loaded).

%% @doc As arguments/3, and hash the binary.
-spec hash(binary(), pos_integer(), Limit) -> Limit when Limit :: pos_integer().
hash(_Key, _Period, _Limit) ->
    erlang:nif_error(not_loaded).

%% @doc As hash/3, and a coarse clock and a compare-and-swap: what no hit can do without.
-spec least(binary(), pos_integer(), Limit) -> Limit when Limit :: pos_integer().
least(_Key, _Period, _Limit) ->
    erlang:nif_error(not_loaded).

%% @doc As least/3, with an answer of a hit's shape.
-spec answer(binary(), pos_integer(), pos_integer()) -> {allow, non_neg_integer()}.
answer(_Key, _Period, _Limit) ->
    erlang:nif_error(not_loaded).

%% @doc As answer/3, inside a limiter that is found by its name.
-spec enter(binary(), pos_integer(), pos_integer()) -> {allow, non_neg_integer()}.
enter(_Key, _Period, _Limit) ->
    erlang:nif_error(not_loaded).

%% @doc As enter/3, with the engine's hit (of a preset limit) in place of the clock and the swap.
-spec hit(binary(), pos_integer(), pos_integer()) -> {allow, non_neg_integer()}.
hit(_Key, _Period, _Limit) ->
    erlang:nif_error(not_loaded).

%% @doc The monotonic clock, in nanoseconds.
-spec now() -> non_neg_integer().
now() ->
    erlang:nif_error(not_loaded).
