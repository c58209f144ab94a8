%% Limiters as the field writes them: the baselines of the limiter's rows.
%%
%% The three over ETS do what the like-named backends of Hammer 7 do with each hit (the same reads and writes, in the same order, on
%% tables with the same options); what stands around them there (a module that delegates) is left out. Under races some of them admit
%% more than their limit; that is how they are.
-module(bench_field).
-behaviour(gen_server).

-export([table/1, window/4, tokens/4, atomic/4]).
-export([start_server/1, ask/4, init/1, handle_call/3, handle_cast/2]).

-type answer() :: {allow, integer()} | {deny, integer()}.

-spec table(atom()) -> atom().
table(Name) ->
    ets:new(Name, [named_table, set, public, {read_concurrency, true}, {write_concurrency, true}, {decentralized_counters, true}]).

%% @doc The fixed window over ets:update_counter.
-spec window(atom(), term(), pos_integer(), pos_integer()) -> answer().
window(Table, Key, Period, Limit) ->
    Now = erlang:system_time(millisecond),
    Window = Now div Period,
    Expires = (Window + 1) * Period,
    case ets:update_counter(Table, {Key, Window}, 1, {{Key, Window}, 0, Expires}) of
        Count when Count =< Limit -> {allow, Count};
        _ -> {deny, Expires - Now}
    end.

%% @doc The token bucket over ETS: read, compute, write. Tokens that come back a second, and the most there are.
-spec tokens(atom(), term(), pos_integer(), pos_integer()) -> answer().
tokens(Table, Key, Rate, Capacity) ->
    Now = erlang:system_time(second),
    _ = ets:insert_new(Table, {Key, Capacity, Now}),
    [{_, Level, Since}] = ets:lookup(Table, Key),
    case min(Capacity, Level + trunc((Now - Since) * Rate)) of
        Tokens when Tokens >= 1 ->
            true = ets:insert(Table, {Key, Tokens - 1, Now}),
            {allow, Tokens - 1};
        _ ->
            {deny, 1000}
    end.

%% @doc The token bucket over atomics that are found through ETS.
-spec atomic(atom(), term(), pos_integer(), pos_integer()) -> answer().
atomic(Table, Key, Rate, Capacity) ->
    Now = erlang:system_time(second),
    case ets:lookup(Table, Key) of
        [{_, Cell}] ->
            Level = atomics:get(Cell, 1),
            Since = atomics:get(Cell, 2),
            case min(Capacity, Level + trunc((Now - Since) * Rate)) of
                Tokens when Tokens >= 1 ->
                    _ = atomics:exchange(Cell, 1, Tokens - 1),
                    _ = atomics:exchange(Cell, 2, Now),
                    {allow, Tokens - 1};
                _ ->
                    {deny, 1000}
            end;
        [] ->
            Cell = atomics:new(2, [{signed, false}]),
            true = ets:insert(Table, {Key, Cell}),
            _ = atomics:exchange(Cell, 1, Capacity),
            atomic(Table, Key, Rate, Capacity)
    end.

%% @doc A process that holds every key's window in a map.
-spec start_server(atom()) -> {ok, pid()}.
start_server(Name) ->
    gen_server:start({local, Name}, ?MODULE, [], []).

-spec ask(gen_server:server_ref(), term(), pos_integer(), pos_integer()) -> answer().
ask(Name, Key, Period, Limit) ->
    gen_server:call(Name, {hit, Key, Period, Limit}).

init([]) ->
    {ok, #{}}.

handle_call({hit, Key, Period, Limit}, _From, Windows) ->
    Now = erlang:system_time(millisecond),
    Window = Now div Period,
    Used =
        case Windows of
            #{Key := {Window, Count}} -> Count;
            _ -> 0
        end,
    case Used < Limit of
        true -> {reply, {allow, Limit - Used - 1}, Windows#{Key => {Window, Used + 1}}};
        false -> {reply, {deny, (Window + 1) * Period - Now}, Windows}
    end.

handle_cast(_, Windows) ->
    {noreply, Windows}.
