%% @doc An application as its authors would write it: a coordinator and four task agents that digest every file of a folder.
%%
%% Environment: `state' (folder of the snapshot store) and `rate' (the limiter's `limit', `period' and `burst' for each agent).
-module(digest_app).
-behaviour(application).

-export([start/2, stop/1, flag/0, group/0]).

start(_Type, _Args) ->
    %% The new implementation is off until an operator gives it a share of the files.
    case foundation_flags:declare(flag(), #{group => group(), default => false, description => "digest_job_fast"}) of
        ok -> digest_sup:start_link();
        {error, Reason} -> {error, {flag, flag(), Reason}}
    end.

stop(_State) ->
    ok.

%% @doc The flag that moves a cohort of the files to the second implementation.
-spec flag() -> atom().
flag() ->
    digest_fast.

%% @doc What the sentinel rolls back when the agents crash.
-spec group() -> atom().
group() ->
    digest_rollout.
