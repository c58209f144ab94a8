%% @private Owners of the stores that foundation_snapshot:open/2 opens.
-module(foundation_snapshot_sup).
-behaviour(supervisor).

-export([start_link/0, init/1]).

-spec start_link() -> {ok, pid()} | {error, term()}.
start_link() ->
    supervisor:start_link({local, ?MODULE}, ?MODULE, []).

%% A crash of one store's owner must not close the others: the table lives on without it, and it is restarted.
init([]) ->
    Owner = #{
        id => owner,
        start => {foundation_snapshot_owner, start_link, [ours]},
        restart => transient,
        shutdown => infinity
    },
    {ok, {#{strategy => simple_one_for_one, intensity => 100, period => 10}, [Owner]}}.
