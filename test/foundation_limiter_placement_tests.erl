%% Nodes of every release and machine must agree on who keeps a key: values that were written down once.
-module(foundation_limiter_placement_tests).

-include_lib("eunit/include/eunit.hrl").

-define(P, foundation_limiter_placement).
-define(MEMBERS, ['a@host1', 'b@host2', 'c@host3', 'd@host4']).

hashes_test() ->
    [?assertEqual({Key, Hash}, {Key, ?P:hash(Key)}) || {Key, Hash, _} <- golden()].

owners_test() ->
    [?assertEqual({Key, Owner}, {Key, ?P:owner(?P:hash(Key), ?MEMBERS)}) || {Key, _, Owner} <- golden()].

nobody_test() ->
    ?assertEqual(undefined, ?P:owner(?P:hash(k), [])),
    ?assertEqual('a@host1', ?P:owner(?P:hash(k), ['a@host1'])).

%% Of pids, references and funs as another VM would send them.
golden() ->
    [
        {0, 3175731469, 'b@host2'},
        {1, 539485162, 'c@host3'},
        {-1, 1117813597, 'd@host4'},
        {1 bsl 64, 2519041713, 'c@host3'},
        {1.5, 2023646235, 'b@host2'},
        {<<>>, 147926629, 'd@host4'},
        {<<"user:42">>, 677879827, 'c@host3'},
        {<<5:3>>, 3354768668, 'c@host3'},
        {key, 29129, 'd@host4'},
        {'', 0, 'a@host1'},
        {{user, 42}, 3791834521, 'b@host2'},
        {{}, 221703996, 'd@host4'},
        {[], 3468870702, 'c@host3'},
        {"list", 3114540475, 'c@host3'},
        {[1 | 2], 3844221178, 'd@host4'},
        {#{}, 844985373, 'a@host1'},
        {#{a => 1, <<"b">> => [2]}, 3193639405, 'b@host2'},
        {maps:from_list([{N, N} || N <- lists:seq(1, 40)]), 2202532150, 'b@host2'},
        {list_to_pid("<0.100.0>"), 734762325, 'c@host3'},
        {binary_to_term(<<131, 88, 119, 6, "x@host", 7:32, 0:32, 9:32>>), 591482922, 'c@host3'},
        {binary_to_term(<<131, 90, 3:16, 119, 6, "x@host", 9:32, 1:32, 2:32, 3:32>>), 118531908, 'c@host3'},
        {fun lists:map/2, 840287883, 'd@host4'}
    ].
