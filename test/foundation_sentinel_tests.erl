%% What can be said without a second VM: options that are refused, and that nothing is needed for a goodbye.
-module(foundation_sentinel_tests).

-include_lib("eunit/include/eunit.hrl").

options_test_() ->
    {setup, fun fdn_test:distributed/0, fun(_) ->
        [
            ?_assertEqual({error, {badarg, {Key, Reason}}}, foundation_sentinel:start_link(Options))
         || {Key, Reason, Options} <- [
                {options, not_a_map, []},
                {colour, unknown, #{colour => red}},
                {flags_file, not_a_path, #{flags_file => 1}},
                {flags_file, not_a_path, #{flags_file => <<>>}},
                {flags_file, not_a_path, #{flags_file => <<"a", 0, "b">>}},
                {node, not_a_node_name, #{flags_file => "f", node => sentinel}},
                {node, not_a_node_name, #{flags_file => "f", node => 'a@b@c'}},
                {node, not_a_node_name, #{flags_file => "f", node => "a@b"}},
                {nodes, not_a_list_of_node_names, #{flags_file => "f", nodes => []}},
                {nodes, not_a_list_of_node_names, #{flags_file => "f", nodes => [a]}},
                {nodes, not_a_list_of_node_names, #{flags_file => "f", nodes => 'a@b'}},
                {nodes, not_a_list_of_node_names, #{flags_file => "f", nodes => ['a@b' | 'c@d']}},
                {linger, not_milliseconds, #{flags_file => "f", linger => -1}},
                {linger, not_milliseconds, #{flags_file => "f", linger => 1.5}},
                {config, not_a_path, #{flags_file => "f", config => ""}},
                {audit_file, not_a_path, #{flags_file => "f", audit_file => none}}
            ]
        ]
    end}.

not_distributed_test() ->
    {Peer, _} = fdn_test:peer(#{}),
    try
        nonode@nohost = peer:call(Peer, erlang, node, []),
        ?assertEqual({error, {badarg, {node, not_distributed}}}, peer:call(Peer, foundation_sentinel, start_link, [#{}])),
        ?assertEqual(ok, peer:call(Peer, foundation_sentinel, bye, [])),
        ?assertEqual(foundation_sentinel_nonode@nohost, peer:call(Peer, foundation_sentinel, sentinel_node, [])),
        ?assertEqual(
            {error, {sentinel, {not_connected, foundation_sentinel_nonode@nohost}}}, peer:call(Peer, foundation_sentinel, status, [])
        )
    after
        fdn_test:stop_peer(Peer)
    end.

bye_without_a_sentinel_test() ->
    ?assertEqual(ok, foundation_sentinel:bye()).

child_spec_test() ->
    Spec = foundation_sentinel:child_spec(#{linger => 5}),
    ?assertMatch(#{id := foundation_sentinel, start := {foundation_sentinel, start_link, [#{linger := 5}]}}, Spec),
    ?assertEqual(ok, supervisor:check_childspecs([Spec])).
