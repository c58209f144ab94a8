%% Runs every property of every module prop_*.erl under EUnit. PROP_NUMTESTS: cases a property (default 100).
-module(property_tests).

-include_lib("eunit/include/eunit.hrl").

-define(NUMTESTS, 100).

properties_test_() ->
    [
        {timeout, 600, {lists:flatten(io_lib:format("~s:~s", [Module, Name])), fun() -> check(Module, Name) end}}
     || Module <- modules(), {Name, 0} <- exports(Module), lists:prefix("prop_", atom_to_list(Name))
    ].

modules() ->
    Pattern = filename:join(filename:dirname(code:which(?MODULE)), "prop_*.beam"),
    [list_to_atom(filename:basename(File, ".beam")) || File <- lists:sort(filelib:wildcard(Pattern))].

exports(Module) ->
    case code:ensure_loaded(Module) of
        {module, Module} -> Module:module_info(exports);
        {error, Reason} -> error({Module, Reason})
    end.

%% The control: properties run, and a false one is an error that shows the case.
runs_and_refutes_test() ->
    ok = check(prop_selftest, prop_counts, [quiet]),
    ?assertEqual(numtests(), prop_selftest:counted()),
    ?assertError({falsified, prop_selftest, refuted, [N]} when N > 5, check(prop_selftest, refuted, [quiet])).

check(Module, Name) ->
    check(Module, Name, [{to_file, user}]).

check(Module, Name, Output) ->
    case proper:quickcheck(Module:Name(), [{numtests, numtests()}, long_result | Output]) of
        true -> ok;
        Counterexample -> error({falsified, Module, Name, Counterexample})
    end.

numtests() ->
    case os:getenv("PROP_NUMTESTS") of
        false -> ?NUMTESTS;
        Text -> list_to_integer(Text)
    end.
