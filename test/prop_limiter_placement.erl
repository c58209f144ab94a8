%% Which node keeps a key: rendezvous hashing over any set of members.
-module(prop_limiter_placement).

-include("fdn_proper.hrl").

-export([prop_order_of_members_does_not_matter/0, prop_a_member_that_comes_takes_only_its_own_keys/0, prop_balance/0]).

-define(P, foundation_limiter_placement).
-define(KEYS, 4000).

members() ->
    ?LET(Names, non_empty(list(range(1, 40))), [node_name(N) || N <- lists:usort(Names)]).

node_name(N) ->
    list_to_atom("shop" ++ integer_to_list(N) ++ "@host" ++ integer_to_list(N rem 7) ++ ".example.net").

prop_order_of_members_does_not_matter() ->
    ?FORALL(
        {Members, Key},
        {members(), term()},
        begin
            Hash = ?P:hash(Key),
            Owner = ?P:owner(Hash, Members),
            lists:member(Owner, Members) andalso
                Owner =:= ?P:owner(Hash, lists:reverse(Members)) andalso
                Owner =:= ?P:owner(Hash, Members ++ Members)
        end
    ).

%% And one that goes gives away only its own.
prop_a_member_that_comes_takes_only_its_own_keys() ->
    ?FORALL(
        {Members, New},
        ?SUCHTHAT({Members, New}, {members(), ?LET(N, range(1, 40), node_name(N))}, not lists:member(New, Members)),
        lists:all(
            fun(Key) ->
                Before = ?P:owner(?P:hash(Key), Members),
                lists:member(?P:owner(?P:hash(Key), [New | Members]), [Before, New])
            end,
            lists:seq(1, 500)
        )
    ).

%% Each member keeps its share of the keys, within six standard deviations of what throwing dice would give: no run in a million fails
%% by chance, and keys that are numbers in a row, or pids, which hash alike, are spread no worse than others.
prop_balance() ->
    ?FORALL(
        {Members, Kind},
        {?SUCHTHAT(M, members(), length(M) =< 16), elements([integer, binary, tuple, pid])},
        begin
            Owners = [?P:owner(?P:hash(key(Kind, N)), Members) || N <- lists:seq(1, ?KEYS)],
            Kept = fun(Member) -> length([O || O <- Owners, O =:= Member]) end,
            Share = 1 / length(Members),
            Mean = ?KEYS * Share,
            Allowed = 6 * math:sqrt(?KEYS * Share * (1 - Share)) + 1,
            lists:all(fun(Member) -> abs(Kept(Member) - Mean) =< Allowed end, Members)
        end
    ).

key(integer, N) -> N;
key(binary, N) -> <<"user:", (integer_to_binary(N))/binary>>;
key(tuple, N) -> {user, N};
key(pid, N) -> list_to_pid("<0." ++ integer_to_list(N) ++ ".0>").
