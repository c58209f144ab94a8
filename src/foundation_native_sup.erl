%% @private The parts under one supervisor. Limiters and supervised snapshot stores live in the supervision tree of whoever starts
%% them; what is here serves the whole node.
-module(foundation_native_sup).
-behaviour(supervisor).

-export([start_link/0, init/1]).

start_link() ->
    supervisor:start_link({local, ?MODULE}, ?MODULE, []).

init([]) ->
    ok = foundation_limiter_cluster:create(),
    Groups = #{
        id => pg,
        start => {pg, start_link, [foundation_native]}
    },
    Flags = #{
        id => foundation_flags,
        start => {foundation_flags_server, start_link, []}
    },
    Stores = #{
        id => foundation_snapshot_sup,
        start => {foundation_snapshot_sup, start_link, []},
        type => supervisor
    },
    {ok, {#{strategy => one_for_one, intensity => 10, period => 10}, [Groups, Flags, Stores | sentinel()]}}.

%% The sentinel comes last: it goes down first, after `bye'.
sentinel() ->
    case application:get_env(foundation_native, sentinel, false) of
        false -> [];
        Options -> [foundation_sentinel:child_spec(Options)]
    end.
