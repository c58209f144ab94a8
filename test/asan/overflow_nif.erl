%% The module of overflow_nif.c; the library stands next to the beam.
-module(overflow_nif).

-export([alloc_overflow/0, use_after_free/0, fine/0]).

-nifs([alloc_overflow/0, use_after_free/0, fine/0]).
-on_load(load/0).

load() -> erlang:load_nif(filename:rootname(code:which(?MODULE)), 0).

alloc_overflow() -> erlang:nif_error(not_loaded).
use_after_free() -> erlang:nif_error(not_loaded).
fine() -> erlang:nif_error(not_loaded).
