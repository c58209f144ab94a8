%% @doc The VM in which the agents live. Its orders come on the standard input; when that ends, the driver is gone and so is this VM.
-module(digest_worker).

-export([main/0, command/1]).

%% @doc The line that tells a worker VM what it is. No cookie: both VMs have the same home folder.
-spec command(#{atom() => term()}) -> iodata().
command(Config) ->
    [base64:encode(term_to_binary(Config)), $\n].

%% @doc What the VM runs.
-spec main() -> ok.
main() ->
    Config = binary_to_term(base64:decode(string:trim(io:get_line("")))),
    _ = spawn(fun orders/0),
    #{node := Node, driver := Driver, log := Log} = Config,
    ok = log_to(Log),
    {ok, _} = net_kernel:start([Node, longnames]),
    Answer =
        try start(Config) of
            Facts -> {worker_up, Facts}
        catch
            _:Reason -> {worker_failed, Reason}
        end,
    {digest_demo, Driver} ! Answer,
    ok.

start(#{state := State, flags := Flags, data := Data, rate := Rate}) ->
    set(foundation_native, #{data_dir => Data, flags_file => Flags}),
    set(digest, #{state => State, rate => Rate}),
    {ok, _} = application:ensure_all_started(foundation_native),
    {Micros, {ok, _}} = timer:tc(application, ensure_all_started, [digest]),
    #{os_pid => os:getpid(), open_us => Micros}.

set(App, Env) ->
    case application:load(App) of
        ok -> ok;
        {error, {already_loaded, App}} -> ok
    end,
    maps:foreach(fun(Key, Value) -> application:set_env(App, Key, Value) end, Env).

%% A crashing agent logs the bytes it could not read; so the log goes to a file, and every term in it is cut.
log_to(File) ->
    _ = logger:remove_handler(default),
    logger:add_handler(default, logger_std_h, #{
        config => #{file => File},
        formatter => {logger_formatter, #{depth => 20, chars_limit => 4000}}
    }).

orders() ->
    case io:get_line("") of
        "stop\n" -> init:stop();
        Line when is_list(Line) -> orders();
        _ -> erlang:halt(1, [{flush, false}])
    end.
