%% @doc The store, the limiter, the coordinator, and then the agents, which need all three.
-module(digest_sup).
-behaviour(supervisor).

-export([start_link/0, init/1]).

-spec start_link() -> supervisor:startlink_ret().
start_link() ->
    supervisor:start_link({local, ?MODULE}, ?MODULE, []).

init([]) ->
    {ok, Path} = application:get_env(digest, state),
    {ok, Rate} = application:get_env(digest, rate),
    Store = foundation_snapshot:child_spec({digest_store, #{path => Path}}),
    Limiter = foundation_limiter:child_spec({digest_limiter, Rate#{algorithm => gcra}}),
    Coordinator = #{
        id => digest_coordinator,
        start => {digest_coordinator, start_link, []}
    },
    Agents = #{
        id => digest_agent_sup,
        start => {digest_agent_sup, start_link, []},
        type => supervisor
    },
    {ok, {#{strategy => rest_for_one, intensity => 3, period => 10}, [Store, Limiter, Coordinator, Agents]}}.
