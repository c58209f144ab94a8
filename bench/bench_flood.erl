%% Ten million distinct keys into a limiter for a hundred thousand, while one key is used all the time.
-module(bench_flood).

-export([rows/0]).

-define(CAPACITY, 100000).
-define(FLOOD, 10000000).
-define(LIMIT, 5000).
-define(HOT, hot_key).

%% @doc Rows of what it did to memory, and to the hot key's budget.
-spec rows() -> [bench:row()].
rows() ->
    %% Nothing comes back within the flood, so the hot key's hits that are admitted are its budget.
    {ok, _} = foundation_limiter:start_link(bench_flood, #{
        algorithm => fixed_window, limit => ?LIMIT, period => 3600000, capacity => ?CAPACITY
    }),
    0 = flood(1, ?CAPACITY * 3, 0),
    Before = {bytes(), resident()},
    Admitted = flood(?CAPACITY * 3 + 1, ?FLOOD, 0),
    After = {bytes(), resident()},
    ok = foundation_limiter:delete(bench_flood),
    Row = #{against => "the same before", goal => {at_most, 1}},
    [
        %% A scheduler that hits for the first time counts in a cache line of its own, and that line counts.
        Row#{
            what => "info bytes, after 10M keys",
            goal => {at_most, 1.001},
            subject => {value, element(1, After)},
            baseline => {value, element(1, Before)}
        },
        Row#{
            what => "resident set of the VM, after them",
            goal => {at_most, 1.02},
            subject => {value, element(2, After)},
            baseline => {value, element(2, Before)}
        },
        Row#{
            what => "hot key's hits admitted meanwhile",
            against => "its limit",
            unit => hits,
            subject => {value, Admitted},
            baseline => {value, ?LIMIT}
        }
    ].

%% Every thousandth hit is the hot key's, twice as many as it may have.
flood(N, Last, Admitted) when N > Last ->
    Admitted;
flood(N, Last, Admitted) when N rem 1000 =:= 0, Last =:= ?FLOOD ->
    case foundation_limiter:hit(bench_flood, ?HOT) of
        {allow, _} -> flooded(N, Last, Admitted + 1);
        {deny, _} -> flooded(N, Last, Admitted)
    end;
flood(N, Last, Admitted) ->
    flooded(N, Last, Admitted).

flooded(N, Last, Admitted) ->
    _ = foundation_limiter:hit(bench_flood, N),
    flood(N + 1, Last, Admitted).

bytes() ->
    maps:get(bytes, foundation_limiter:info(bench_flood)).

resident() ->
    Self = os:getpid(),
    [Kilobytes | _] = string:lexemes(os:cmd("ps -o rss= -p " ++ Self), " \n"),
    list_to_integer(Kilobytes) * 1024.
