%% The module of test/nif/fixture_nif.c; which of its libraries is loaded stands in a persistent term.
-module(foundation_fixture).

-export([add/1, library/0, ask/0]).

-nifs([add/1, library/0, ask/0]).
-on_load(load/0).

load() ->
    foundation_nif:loaded(?MODULE, erlang:load_nif(persistent_term:get({?MODULE, library}), ?MODULE)).

add(_N) -> erlang:nif_error(not_loaded).
library() -> erlang:nif_error(not_loaded).
ask() -> erlang:nif_error(not_loaded).
