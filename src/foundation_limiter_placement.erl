%% @private Which node keeps a key of a cluster-wide limiter: rendezvous hashing (Thaler and Ravishankar, 1998).
%%
%% Every node weighs the key against each member and takes the heaviest, so all nodes that see the same members agree without a word
%% between them, and a member that comes or goes moves no keys but its own. `erlang:phash2/2' gives the same value on every machine and
%% in every release, for pids, references, ports and funs too, wherever they come from.
-module(foundation_limiter_placement).

-export([hash/1, owner/2]).
-export_type([hash/0]).

-define(RANGE, (1 bsl 32)).

-type hash() :: 0..16#ffffffff.

%% The part that is the same for all members: O(size of the key).
-spec hash(term()) -> hash().
hash(Key) ->
    erlang:phash2(Key, ?RANGE).

%% The heaviest member; of two that weigh the same, the one whose name sorts last. O(members); their order does not matter.
-spec owner(hash(), [node()]) -> node() | undefined.
owner(_Hash, []) -> undefined;
owner(Hash, [Node | Rest]) -> heaviest(Hash, Rest, Node, weight(Node, Hash)).

heaviest(_Hash, [], Best, _) ->
    Best;
heaviest(Hash, [Node | Rest], Best, Most) ->
    case weight(Node, Hash) of
        More when More > Most; More =:= Most, Node > Best -> heaviest(Hash, Rest, Node, More);
        _ -> heaviest(Hash, Rest, Best, Most)
    end.

%% Of the name as text: an atom's own hash is weak, and names like app1@host1 and app2@host2 share one, so that of two such members one
%% would keep no keys at all.
weight(Node, Hash) ->
    erlang:phash2({Hash, atom_to_binary(Node)}, ?RANGE).
