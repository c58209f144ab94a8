%% What every way of packaging must make possible: each part once, through its library or program, from a started application.
%% With CONSUMER_DIR set, starting the application (as a release does) runs the check and stops the VM with its result.
-module(consumer).
-behaviour(application).

-export([start/2, stop/1, init/1, main/0]).

start(_Type, _Args) ->
    case os:getenv("CONSUMER_DIR") of
        false -> ok;
        _ -> spawn(fun main/0)
    end,
    supervisor:start_link(?MODULE, []).

stop(_State) ->
    ok.

init([]) ->
    {ok, {#{}, []}}.

main() ->
    try
        {ok, _} = application:ensure_all_started(foundation_native),
        check(os:getenv("CONSUMER_DIR")),
        io:format("consumer: ok~n"),
        init:stop(0)
    catch
        Class:Reason:Stack ->
            io:format("consumer: failed ~tp~n", [{Class, Reason, Stack}]),
            erlang:halt(1)
    end.

check(Dir) ->
    limiter(),
    snapshot(filename:join(Dir, "store")),
    flags(),
    sentinel().

limiter() ->
    {ok, _} = foundation_limiter:start_link(consumer_limiter, #{limit => 2, period => 60000, capacity => 100}),
    {allow, 1} = foundation_limiter:hit(consumer_limiter, key),
    {allow, 0} = foundation_limiter:hit(consumer_limiter, key),
    {deny, _} = foundation_limiter:hit(consumer_limiter, key).

snapshot(Path) ->
    Value = #{text => <<"kept">>, list => [1, 2, 3]},
    {ok, Store} = foundation_snapshot:open(consumer_store, #{path => Path}),
    {ok, _} = foundation_snapshot:save(Store, key, Value),
    ok = foundation_snapshot:close(Store),
    {ok, Again} = foundation_snapshot:open(consumer_store, #{path => Path}),
    {ok, Saved} = foundation_snapshot:load(Again, key),
    Value = foundation_snapshot:value(Saved),
    ok = foundation_snapshot:close(Again).

flags() ->
    ok = foundation_flags:declare(consumer_flag, #{group => consumer}),
    false = foundation_flags:enabled(consumer_flag),
    ok = foundation_flags:set(consumer_flag, true),
    true = foundation_flags:enabled(consumer_flag).

%% The program by itself, and under its port.
sentinel() ->
    Program = foundation_nif:priv_file("foundation_sentinel"),
    Version = os:cmd("'" ++ Program ++ "' --version"),
    {ok, Expected} = application:get_key(foundation_native, vsn),
    {match, _} = re:run(Version, "\\Q" ++ Expected ++ "\\E"),
    true = is_alive(),
    {ok, _} = foundation_sentinel:start_link(#{}),
    #{} = foundation_sentinel:status(),
    {ok, _Epoch} = foundation_sentinel:rollback(consumer, <<"packaging test">>),
    false = foundation_flags:enabled(consumer_flag).
