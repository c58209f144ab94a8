%% PropEr's notation for the modules prop_*.erl. Debian's erlang-proper has the modules but no header, so what its documentation names is
%% spelt out here; -include("fdn_proper.hrl").
-ifndef(FDN_PROPER_HRL).
-define(FDN_PROPER_HRL, true).

-define(FORALL(X, Type, Prop), proper:forall(Type, fun(X) -> Prop end)).
-define(LET(X, Type, Gen), proper_types:bind(Type, fun(X) -> Gen end, false)).
-define(SUCHTHAT(X, Type, Condition), proper_types:add_constraint(Type, fun(X) -> Condition end, true)).
-define(LAZY(Gen), proper_types:lazy(fun() -> Gen end)).
-define(SIZED(Size, Gen), proper_types:sized(fun(Size) -> Gen end)).
-define(IMPLIES(Condition, Prop), proper:implies(Condition, fun() -> Prop end)).
-define(WHENFAIL(Action, Prop), proper:whenfail(fun() -> Action end, fun() -> Prop end)).

-compile(nowarn_unused_import).
-import(proper, [aggregate/2, collect/2, conjunction/1, equals/2, numtests/2]).
-import(proper_types, [
    any/0, atom/0, binary/0, binary/1, bitstring/0, boolean/0, byte/0, char/0, elements/1, exactly/1, float/0, float/2, frequency/1,
    function0/1, integer/0, integer/2, list/0, list/1, loose_tuple/1, nat/0, neg_integer/0, non_empty/1, non_neg_integer/0, number/0,
    oneof/1, orderedlist/1, pos_integer/0, range/2, resize/2, return/1, string/0, term/0, tuple/0, tuple/1, union/1, vector/2
]).

-endif.
