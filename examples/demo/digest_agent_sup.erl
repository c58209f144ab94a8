%% @doc The four task agents, restarted one by one.
-module(digest_agent_sup).
-behaviour(supervisor).

-export([start_link/0, init/1]).

-spec start_link() -> supervisor:startlink_ret().
start_link() ->
    supervisor:start_link({local, ?MODULE}, ?MODULE, []).

%% Four agents that retry a poisonous task make up to eighty restarts a second (an agent waits 50 ms before it tries again). The
%% supervisor bears that for seconds, so that a bad release is ended by its roll-back and not by the end of the application.
init([]) ->
    Agents = [
        #{id => Id, start => {digest_agent, start_link, [Id]}}
     || Id <- digest_agent:ids()
    ],
    {ok, {#{strategy => one_for_one, intensity => 1000, period => 10}, Agents}}.
